"""The supervisor: starts what serves, obeys commands and signals, hands over, stops.

It serves no traffic. One process with one loop, in which nothing waits for long. Workers are
forked from it, always while the loop stands still: so a child finds no half-done work of its
parent's. Signals only say what is to be done; each is a short method. Whatever a command asks for
is done here, whether it came as a signal or over the control socket.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Coroutine, MutableMapping, Sequence
from enum import Enum
from typing import Any

from proxy import __version__
from proxy.control import config_file, worker_process
from proxy.control.channel import channel_pair
from proxy.control.commands import CommandError, Question
from proxy.control.forking import fork
from proxy.control.holdings import hold
from proxy.control.log_files import LineSink
from proxy.control.notify import STATUS_INTERVAL, Notify
from proxy.control.operator_log import start_logging
from proxy.control.overview import in_numbers, overview
from proxy.control.served import Served
from proxy.control.service import Service
from proxy.control.sockets import by_address, close_unwanted, from_systemd, from_upgrade
from proxy.control.state import PidFile
from proxy.control.upgrade import Predecessor, Successor, UpgradeError
from proxy.control.worker import room_for_connections
from proxy.control.workers import WATCH, WorkerHandle
from proxy.core.errors import ConfigError
from proxy.core.settings import ReloadCertificates

log = logging.getLogger("balanceme")

# How often certificate files are looked at, in seconds, with reload_certificates: auto.
CERTIFICATE_WATCH = 2.0
# How long a stop at once may take to leave no process, port or file behind, in seconds.
LAST_SECONDS = 3.0


class Phase(Enum):
    """What the supervisor is doing."""

    STARTING = "starting"
    SERVING = "serving"
    # everything is still served, while those before us are told to send no more clients
    LEAVING = "leaving"
    # another program has taken over; what is under way here may end
    FOLLOWED = "followed"
    STOPPING = "stopping"


class Supervisor:
    """All that is served, and what is done about it."""

    def __init__(
        self,
        file: str,
        services: Sequence[Service],
        loop: asyncio.AbstractEventLoop,
        environ: MutableMapping[str, str],
        predecessor: Predecessor | None,
    ) -> None:
        """Check the configuration and open all it needs; raises ConfigError with all mistakes."""
        self._file = file
        self._services = services
        self._loop = loop
        self._environ = environ
        self._phase = Phase.STARTING
        self._exit_status = 0
        self._started = time.time()
        self._predecessor = predecessor
        self._successor: Successor | None = None
        self._notify = Notify(environ)
        handed = by_address([*from_systemd(environ), *from_upgrade(environ)])
        settings = config_file.load(file)
        holdings = hold(settings, handed)
        self._sink = LineSink(os.dup(holdings.logs.log), "log")
        self._sink.call_later = loop.call_later
        start_logging(settings.log, self._sink)
        close_unwanted(handed, holdings.sockets.values())
        self._changed = asyncio.Event()
        self._served = Served(loop, holdings, self._changed.set, environ)
        # what can be said of these is theirs
        self.members, self.sessions = self._served.members, self._served.sessions
        self._pid_file: PidFile | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- the main loop -------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to stop; the exit status. Raises ConfigError before serving."""
        workers = self._served.workers
        self._handle_signals()
        if self._predecessor is None:
            self._loop.run_until_complete(self._start_services(takes_over=False))
        self._watch()
        self._watch_certificates()
        self.members.start()
        worker_process.share_memory()
        while not self._served.has_ended:
            self._served.probing.fork_due()
            for number in workers.due() if self._served.probing.first_results_are_in else ():
                self._fork(number)
            self._loop.run_until_complete(self._until_something_changes())
        self._loop.run_until_complete(self._end())
        return self._exit_status

    async def _start_services(self, *, takes_over: bool) -> None:
        pid_file = self._served.settings.pid_file
        if pid_file is not None:
            self._pid_file = PidFile(pid_file, os.getppid() if takes_over else None)
        try:
            for service in self._services:
                await service.start(self, takes_over=takes_over)
        except ConfigError:
            if self._pid_file is not None:
                self._pid_file.remove()
            raise

    async def _until_something_changes(self) -> None:
        await self._changed.wait()
        self._changed.clear()
        if self._phase is Phase.STARTING and self._served.all_serve:
            self._phase = Phase.SERVING
            await self._begin_serving()

    def _fork(self, number: int) -> None:
        """Start a worker."""
        ours, theirs = channel_pair()
        start = self._served.start_of(number, theirs)
        pid = fork(lambda: worker_process.run(start))
        theirs.close()
        now = time.monotonic()
        self._served.workers.forked(WorkerHandle(number, pid, ours, self._served.generation, now))

    async def _begin_serving(self) -> None:
        """All workers serve for the first time."""
        if self._predecessor is not None:
            await self._start_services(takes_over=True)
            self._predecessor.take_over()
        count = len(self._served.workers.slots)
        settings = self._served.settings
        room = count * room_for_connections()
        text = (
            f"serving on {', '.join(each.listen for each in settings.frontends)}"
            f" with {count} worker{'s' if count > 1 else ''}, with room for"
            f" {min(settings.max_connections or room, room)} connections"
        )
        log.info("%s", text)
        self._notify.ready(text)
        self._notify.watchdog_begins(self._loop.call_later)
        self._loop.call_later(STATUS_INTERVAL, self._say_how)

    def _say_how(self) -> None:
        if self._phase is Phase.SERVING:
            self._notify.status(in_numbers(self._served))
            self._loop.call_later(STATUS_INTERVAL, self._say_how)

    async def _end(self) -> None:
        await self._served.hooks.stop(0 if self._exit_status else LAST_SECONDS / 2)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_SECONDS)
        for service in self._services:
            await service.stop()
        if self._pid_file is not None:
            self._pid_file.remove()
        log.info("stopped")

    def _watch(self) -> None:
        self._loop.call_later(WATCH, self._watch)
        self._served.watch()
        self._sink.flush()

    def _watch_certificates(self) -> None:
        self._loop.call_later(CERTIFICATE_WATCH, self._watch_certificates)
        wanted = self._served.settings.reload_certificates is ReloadCertificates.AUTO
        if wanted and self._phase is Phase.SERVING:
            self._spawn(self._served.take_up_certificates())

    def _spawn(self, what: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- signals -------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        handlers = {
            signal.SIGCHLD: self._reap,
            signal.SIGHUP: lambda: self._spawn(self._reload_on_signal()),
            signal.SIGUSR1: self._reopen_logs,
            signal.SIGUSR2: lambda: self._spawn(self._upgrade_on_signal()),
            signal.SIGTERM: self._stop_on_signal,
            signal.SIGINT: self._stop_on_signal,
        }
        for number, handler in handlers.items():
            self._loop.add_signal_handler(number, handler)
        # Blocked since the program's first steps, so that none was lost.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)

    def _reap(self) -> None:
        self._served.reap()
        if self._successor is not None:
            self._successor.reap()

    async def _reload_on_signal(self) -> None:
        try:
            await self.reload(dry_run=False)
        except ConfigError:
            pass  # it is in the log already
        except CommandError as error:
            log.warning("nothing is reloaded: %s", error)

    async def _upgrade_on_signal(self) -> None:
        try:
            await self.upgrade()
        except CommandError:
            pass  # it is in the log already

    def _stop_on_signal(self) -> None:
        self.stop(at_once=self._phase in (Phase.LEAVING, Phase.STOPPING))

    def _reopen_logs(self) -> None:
        """Log files were renamed, as logrotate does."""
        try:
            self._served.reopen_logs()
        except ConfigError as error:
            log.error("logs can't be opened anew: %s", error)  # noqa: TRY400 - no mistake of ours
        else:
            self._sink.replace(os.dup(self._served.holdings.logs.log))
            log.info("logs are opened anew")

    # --- commands ------------------------------------------------------------------------------

    async def reload(self, *, dry_run: bool) -> list[str]:
        """Put the configuration file as it is now in force; what changes, in words.

        Raises ConfigError with everything that is wrong, and CommandError when it is too late;
        then nothing has changed.
        """
        if self._phase is not Phase.SERVING:
            raise CommandError(f"there is no reload while balanceme is {self._phase.value}")
        if dry_run:
            return await self._served.reload(config_file.load(self._file), dry_run=True)
        self._notify.reloading()
        try:
            words = await self._served.reload(config_file.load(self._file), dry_run=False)
        except ConfigError as error:
            for line in config_file.report(error, self._file).splitlines():
                log.error("%s", line)  # noqa: TRY400 - as above
            log.error("nothing is reloaded")  # noqa: TRY400 - as above
            raise
        finally:
            if self._phase is Phase.SERVING:
                self._notify.ready(in_numbers(self._served))
        self._sink.replace(os.dup(self._served.holdings.logs.log))
        start_logging(self._served.settings.log, self._sink)
        for line in words:
            log.info("reloaded: %s", line)
        return words

    async def upgrade(self) -> int:
        """Start the program anew on the same sockets; the new supervisor's process id.

        Raises CommandError when the new program was dropped; then this one serves on.
        """
        try:
            successor = await self._start_successor()
        except UpgradeError as error:
            for line in str(error).splitlines():
                log.error("no upgrade: %s", line)  # noqa: TRY400 - as above
            raise CommandError(str(error)) from error
        self._phase = Phase.FOLLOWED
        self._notify.main_pid(successor.pid)
        successor.go(self._hurry)
        timeout = self._served.settings.graceful_timeout
        log.info("followed by process %d; what is under way may take %g s", successor.pid, timeout)
        self._served.stop(timeout)
        return successor.pid

    async def _start_successor(self) -> Successor:
        """Start the new program, and wait until it can take over; raises UpgradeError."""
        if self._phase is not Phase.SERVING:
            raise UpgradeError(f"there is no upgrade while balanceme is {self._phase.value}")
        if self._successor is not None:
            raise UpgradeError("another upgrade is under way")
        entry, files = self._served.for_upgrade()
        lines = [] if self._predecessor is None else self._predecessor.lines
        try:
            self._successor = Successor({**self._environ, **entry}, files, lines)
            log.info("upgrade: process %d starts", self._successor.pid)
            await self._successor.ready()
        except UpgradeError:
            self._successor = None
            self.members.take_back()
            await self._take_back()
            raise
        return self._successor

    async def _take_back(self) -> None:
        # It may have ended between taking what there is once and saying so.
        try:
            if self._pid_file is not None:
                self._pid_file.take_back()
            for service in self._services:
                await service.take_back()
        except ConfigError as error:
            log.error("not taken back from the new program: %s", error)  # noqa: TRY400 - as above

    def _hurry(self) -> None:
        """The program that followed us stops, or is gone."""
        if self._phase is Phase.FOLLOWED:
            self._stop_workers()

    def stop(self, *, at_once: bool) -> None:
        """Stop gracefully, or at once; then the exit status is 1."""
        if self._successor is not None and self._phase is Phase.SERVING:
            self._successor.drop("balanceme stops")  # lest somebody serves on who was told to stop
        if at_once:
            log.warning("stopped at once: what was under way is lost")
            self._phase = Phase.STOPPING
            self._exit_status = 1
            self._served.cut()
            self._loop.call_later(LAST_SECONDS, os._exit, 1)
        elif self._phase is Phase.FOLLOWED:
            self._stop_workers()
        elif self._phase not in (Phase.LEAVING, Phase.STOPPING):
            leave = self._served.settings.leave_before_stop
            self._phase = Phase.LEAVING
            self._served.leave()
            if leave:
                log.info("leaving: health_path says 503 for %g s, then we stop", leave)
            self._notify.stopping("leaving")
            self._loop.call_later(leave, self._stop_workers)

    def _stop_workers(self) -> None:
        if self._phase is Phase.STOPPING:
            return
        self._phase = Phase.STOPPING
        if self._predecessor is not None:
            self._predecessor.hurry()
        timeout = self._served.settings.stop_timeout
        log.info("stopping: exchanges under way may take %g s", timeout)
        self._notify.stopping(f"exchanges under way may take {timeout:g} s")
        self._served.stop(timeout)

    async def explain(self, question: Question) -> dict[str, Any]:
        """Why a request goes to its member; raises CommandError."""
        return self._served.explain(question)

    async def status(self) -> dict[str, Any]:
        """All that is known, ready for JSON."""
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started": self._started,
            "config_file": self._file,
            "phase": self._phase.value,
            **await overview(self._served),
        }


def run(
    file: str, services: Sequence[Service] = (), environ: MutableMapping[str, str] = os.environ
) -> int:
    """Serve what a configuration file says, until told to stop; the exit status.

    Raises ConfigError before anything is served.
    """
    worker_process.raise_file_limit()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    predecessor = Predecessor.found(environ)
    try:
        return Supervisor(file, services, loop, environ, predecessor).run()
    except ConfigError as error:
        if predecessor is not None:
            predecessor.fail(config_file.report(error, file))
        raise
