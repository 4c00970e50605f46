"""Demo members in a thread of their own, and a switch for each.

The thread keeps them apart from the proxy, which has the main thread and its event loop to
itself. The switches are an HTTP server for curl: ``POST /server1/stop``, ``POST /server1/start``,
``POST /start`` for all, and ``GET /`` to see how they are.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

from aiohttp import web

from proxy.lab.demo_server import LAST_WORDS, LOGGER, DemoMember

HOST = "127.0.0.1"
# A start or stop takes milliseconds; past this the thread is stuck, which is a bug.
PATIENCE = 10.0


class DemoError(Exception):
    """The demo can't be given; the message says why, and what to do."""


class DemoMembers:
    """Members ``server1``, ``server2``, ... by their ports, with the server of their switches."""

    def __init__(self, ports: Sequence[int], control_port: int) -> None:
        self.members = [
            DemoMember(f"server{number}", port) for number, port in enumerate(ports, start=1)
        ]
        self.control_port = control_port
        self._control: web.AppRunner | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread()

    def start(self) -> None:
        """Start all; raises DemoError, with everything closed, if a port can't be had."""
        loop = self._loop = asyncio.new_event_loop()
        # As a daemon it can't keep a process alive whose main thread has failed.
        self._thread = threading.Thread(target=_run, args=(loop,), name="members", daemon=True)
        self._thread.start()
        try:
            _call(loop, self._start())
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all and end the thread; nothing to do if it doesn't run."""
        loop, self._loop = self._loop, None
        if loop is not None:
            _call(loop, self._stop())
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()

    # --- in the thread ---

    async def _start(self) -> None:
        for member in self.members:
            try:
                await member.start()
            except (OSError, OverflowError) as error:
                raise port_error(member.port, "--member-port", error) from error
        application = web.Application()
        application.router.add_get("/", self._status)
        application.router.add_post("/{action:start}", self._switch)
        application.router.add_post("/{name}/{action:start|stop}", self._switch)
        runner = web.AppRunner(
            application, access_log=None, logger=LOGGER, shutdown_timeout=LAST_WORDS
        )
        await runner.setup()
        self._control = runner
        try:
            await web.TCPSite(runner, HOST, self.control_port).start()
        except (OSError, OverflowError) as error:
            raise port_error(self.control_port, "--control-port", error) from error
        self.control_port = runner.addresses[0][1]

    async def _stop(self) -> None:
        if self._control is not None:
            await self._control.cleanup()
        for member in self.members:
            await member.stop()

    async def _status(self, request: web.Request) -> web.Response:
        lines = (f"{member.name} {_state(member)}\n" for member in self.members)
        return web.Response(text="".join(lines))

    async def _switch(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name")
        meant = [member for member in self.members if name in (None, member.name)]
        if not meant:
            names = ", ".join(member.name for member in self.members)
            return web.Response(status=404, text=f"no member {name}: there are {names}\n")
        for member in meant:
            try:
                await (member.start() if request.match_info["action"] == "start" else member.stop())
            except OSError as error:
                return web.Response(status=500, text=f"{member.name}: {error}\n")
        return await self._status(request)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """The thread: ends, with its loop, when the loop is stopped."""
    try:
        loop.run_forever()
    finally:
        loop.close()


def _call(loop: asyncio.AbstractEventLoop, step: Coroutine[Any, Any, None]) -> None:
    """Have a step done in the thread, and wait for it; what it raises is raised here."""
    asyncio.run_coroutine_threadsafe(step, loop).result(PATIENCE)


def _state(member: DemoMember) -> str:
    if not member.is_running:
        return "stopped"
    return f"running on {member.address}, sessions: {len(member.sessions)}"


def port_error(port: int, option: str, error: OSError | OverflowError) -> DemoError:
    """What to say of a port that can't be had."""
    number = error.errno if isinstance(error, OSError) else None
    reason = os.strerror(number) if number else str(error)
    return DemoError(f"port {port} on {HOST} can't be used ({reason}): choose with {option}")
