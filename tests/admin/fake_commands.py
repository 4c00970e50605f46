"""A supervisor that does nothing but tell what it was asked."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

from proxy.admin.api import AdminServer
from proxy.control.commands import DrainUntil, Question
from proxy.core.settings import OperatorStatus
from proxy.core.takeover import Said

STATUS: dict[str, Any] = {
    "version": "1.2.3",
    "pid": 4711,
    "generation": 3,
    "started": 1795356957.0,
    "config_file": "/etc/balanceme/balanceme.yaml",
    "phase": "serving",
    "frontends": [
        {"listen": "0.0.0.0:443", "tls": True},
        {"listen": "0.0.0.0:80", "tls": False},
    ],
    "connections": 12,
    "requests": 34567,
    "workers": [
        {
            "number": 1,
            "pid": 4712,
            "phase": "serving",
            "generation": 3,
            "connections": 7,
            "requests": 20000,
            "started": 1795356958.0,
            "heartbeat": 0.25,
        },
        {
            "number": 2,
            "pid": 4713,
            "phase": "starting",
            "generation": 3,
            "connections": 5,
            "requests": 14567,
            "started": 1795530660.0,
            "heartbeat": 61.0,
        },
    ],
    "balancers": {
        "cluster": {
            "lbmethod": "byrequests",
            "members": [
                {
                    "route": "server1",
                    "url": "http://10.0.0.1:8080",
                    "status": "ok",
                    "operator": "enabled",
                    "verdict": "passed",
                    "in_error": False,
                    "busy": 3,
                    "waiting": 2,
                    "elected": 120,
                    "sent": 1234567,
                    "received": 98765432100,
                    "sessions": 40,
                },
                {
                    "route": None,
                    "url": "http://10.0.0.2:8080/app",
                    "status": "drain, in error",
                    "letters": "NE",
                    "operator": "drain",
                    "verdict": "passed",
                    "in_error": True,
                    "busy": 0,
                    "waiting": 0,
                    "elected": 7,
                    "sent": 980,
                    "received": 0,
                    "sessions": 2,
                },
            ],
        }
    },
}


EXPLANATION: dict[str, Any] = {
    "steps": [
        "frontend 0.0.0.0:443 speaks TLS",
        "server1 has taken over and can be used: the session moves there",
    ],
    "balancer": "cluster",
    "members": [{"route": "server1", "url": "http://10.0.0.1:8080"}],
    "session": "moved",
    "reason": "failover map",
    "status": None,
    "set_cookie": "BALANCEME=balancer.server1",
}


class FakeCommands:
    """``Commands`` whose answers a test sets; ``asked`` lists what came."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        # by whom, when and why, of what was said of members
        self.said: list[Said] = []
        self.tree: dict[str, Any] = dict(STATUS)
        self.changes = [
            "balancers.cluster: member server3 is new",
            "access_log.path: b.log, was a.log",
        ]
        self.explanation: dict[str, Any] = dict(EXPLANATION)
        self.failure: Exception | None = None

    def _ask(self, *words: object) -> None:
        self.asked.append(words)
        if self.failure is not None:
            raise self.failure

    async def status(self) -> dict[str, Any]:
        """The tree that was set."""
        return self.tree

    async def explain(self, question: Question) -> dict[str, Any]:
        """What was set."""
        self._ask("explain", question)
        return self.explanation

    async def reload(self, *, dry_run: bool) -> list[str]:
        """The changes that were set."""
        self._ask("reload", dry_run)
        return self.changes

    async def upgrade(self) -> int:
        """A process id."""
        self._ask("upgrade")
        return 4812

    def stop(self, *, at_once: bool) -> None:
        """Nothing."""
        self._ask("stop", at_once)

    @property
    def members(self) -> Self:
        """They are all asked here."""
        return self

    @property
    def sessions(self) -> "FakeSessions":
        """They are asked beside."""
        return FakeSessions(self._ask)

    async def set_operator_status(
        self, balancer: str, member: str, status: OperatorStatus, said: Said
    ) -> None:
        """Nothing."""
        self._say(said, "set_operator_status", balancer, member, status)

    async def drain(self, balancer: str, member: str, until: DrainUntil, said: Said) -> None:
        """Nothing."""
        self._say(said, "drain", balancer, member, until)

    async def set_terms(
        self, balancer: str, member: str, changes: Mapping[str, Any], said: Said
    ) -> None:
        """Nothing."""
        self._say(said, "set_terms", balancer, member, changes)

    async def failover(self, balancer: str, member: str, heir: str | None, said: Said) -> None:
        """Nothing."""
        self._say(said, "failover", balancer, member, heir)

    async def readmit(self, balancer: str, member: str, said: Said) -> None:
        """Nothing."""
        self._say(said, "readmit", balancer, member)

    def _say(self, said: Said, *words: object) -> None:
        self.said.append(said)
        self._ask(*words)


SESSION: dict[str, Any] = {
    "id": "0123456789abcdef",
    "balancer": "cluster",
    "member": "server1",
    "live": True,
    "since": 1795356957.0,
    "last": 1795357957.0,
    "moves": 1,
    "session": "moved",
    "reason": "its own member can't be used",
}
EVENTS: list[dict[str, Any]] = [
    {"at": 1795356957.0, "member": "server2", "session": "new", "reason": "elected"},
    {
        "at": 1795357000.0,
        "member": "server1",
        "session": "moved",
        "reason": "its own member can't be used",
    },
]


class FakeSessions:
    """``SessionCommands`` of a supervisor with one session."""

    def __init__(self, ask: Callable[..., None]) -> None:
        self._ask = ask

    async def listed(self, balancer: str | None, member: str | None, limit: int) -> dict[str, Any]:
        """One of three."""
        self._ask("listed", balancer, member, limit)
        return {"total": 3, "sessions": [SESSION]}

    async def history(self, session: int) -> list[dict[str, Any]]:
        """Two events."""
        self._ask("history", session)
        return [{**SESSION, "events": EVENTS, "move": None}]

    async def move(
        self, session: int, member: str, balancer: str | None, by: str, reason: str
    ) -> list[dict[str, str]]:
        """It was on server1."""
        self._ask("move", session, member, balancer, by, reason)
        return [{"balancer": "cluster", "from": "server1", "to": member}]

    def find(self, traits: Mapping[str, str]) -> int:
        """Always the same one."""
        self._ask("find", traits)
        return 0x0123456789ABCDEF


class Supervisor:
    """An ``AdminServer`` in a thread, for clients that block; its loop is its own."""

    def __init__(self, path: Path, commands: FakeCommands) -> None:
        self._server = AdminServer(path)
        self._commands = commands
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._ending: Future[None] | None = None

    def __enter__(self) -> Self:
        self._loop.run_until_complete(self._server.start(self._commands))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._ending is not None:
            self._ending.result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._server.stop())
        self._loop.close()

    def end(self) -> None:
        """From any thread: close the server, once it has answered what it was asked."""
        self._ending = asyncio.run_coroutine_threadsafe(self._server.stop(), self._loop)
