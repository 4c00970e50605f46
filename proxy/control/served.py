"""What is in force, and the workers that serve it: plans, reloads, status, counts.

A generation is one set of settings with all that is open for it. The next one is prepared beside
it, whole, and only then told to the workers, which swap it in while they serve. What a worker says
that concerns all of them (a member in error) is decided here, in the one view of the cluster.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, MutableMapping
from typing import Any, TypeVar

from proxy.control.accounts import resolve
from proxy.control.certificate_ends import CertificateEnds
from proxy.control.certificate_files import Stamp
from proxy.control.channel import MOST_FILES, Channel, Kind, Message
from proxy.control.check_files import read_check_files, renewed_files
from proxy.control.cluster import Cluster
from proxy.control.commands import CommandError, Question
from proxy.control.explaining import explain
from proxy.control.holdings import Holdings, hold, open_logs, read_keys, renewed, stamp_of
from proxy.control.hooks import Hooks
from proxy.control.live_sessions import LiveSessions
from proxy.control.members import Members, Others
from proxy.control.plan import Plan
from proxy.control.prober import Probed
from proxy.control.probing import Heard, Probing
from proxy.control.sockets import by_address, close_all, for_upgrade
from proxy.control.state import open_folder
from proxy.control.worker import warn_of_room, worker_count
from proxy.control.worker_process import Start
from proxy.control.workers import PREPARATION, Phase, Told, WorkerHandle, Workers
from proxy.core.differences import differences, in_words
from proxy.core.errors import ConfigError
from proxy.core.settings import OperatorStatus, Settings
from proxy.dataplane.tls import Entries

log = logging.getLogger("balanceme")


class Served:
    """One generation after another, and their workers."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        holdings: Holdings,
        changed: Callable[[], None],
        environ: MutableMapping[str, str],
    ) -> None:
        """``changed`` is called when there may be something to fork, or nobody left.

        What the program before us left in ``environ`` of the members is taken from there.
        Raises ConfigError for what needs a start to be changed: accounts and the state folder.
        """
        settings = holdings.settings
        self._account = resolve(settings.user, settings.group)
        folder = None if settings.state_folder is None else open_folder(settings.state_folder)
        self._loop = loop
        self._changed = changed
        self.generation = 1
        self.holdings = holdings
        warn_of_room(settings)
        self.cluster = Cluster(holdings.settings, worker_count(holdings.settings))
        self.hooks = Hooks(settings.hooks, loop)
        self.certificate_ends = CertificateEnds(self.hooks.happened)
        self.workers = Workers(loop, Told(self._heard, self._ended, changed), self._heartbeat)
        self.workers.resize(worker_count(holdings.settings), 0)
        self.probing = Probing(loop, self._account, Heard(self._probed, changed))
        self._salt = os.urandom(16)
        self.sessions = LiveSessions(self.workers, self.cluster, self._salt)
        self.members = Members(
            self.cluster,
            loop,
            folder,
            Others(self._members_changed, self.sessions.count, self.hooks.happened),
        )
        # made once, so that all workers have the same
        self._entries = Entries()
        self._name_entries()
        self.members.restore(environ)
        self._configure_probing()
        self._reloading = asyncio.Lock()
        # what certificate files were when they were last taken up on their own, or could not be
        self._tried: Stamp | None = None
        # who waits for a worker until a plan is in force
        self._in_force: dict[int, asyncio.Future[bool]] = {}

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.holdings.settings

    def _name_entries(self) -> None:
        """Keep the entries of TLS connections in the order in which workers ask for theirs."""
        for frontend in self.settings.frontends:
            if frontend.certificates:
                self._entries.of(frontend.listen)

    # --- workers -------------------------------------------------------------------------------

    def start_of(self, number: int, channel: Channel) -> Start:
        """What a worker begins with that is forked now."""
        return Start(
            number=number,
            plan=self._plan(),
            channel=channel,
            board=self.cluster.board,
            sockets=self.holdings.sockets,
            logs=self.holdings.logs,
            entries=self._entries,
            account=self._account,
            salt=self._salt,
            moves=self.sessions.moves,
        )

    def _plan(self) -> Plan:
        holdings = self.holdings
        return Plan(self.generation, holdings.settings, holdings.keys, self.cluster.board.workers)

    @property
    def all_serve(self) -> bool:
        """Whether every slot has a worker that serves."""
        return len(self.workers.serving) == len(self.workers.slots)

    def _heartbeat(self, number: int) -> float:
        return self.cluster.board.worker(number).heartbeat

    @property
    def has_ended(self) -> bool:
        """Whether all processes have ended that were to."""
        return self.workers.stopping and not self.workers.all and self.probing.is_gone

    def reap(self) -> None:
        """Take note of processes that have ended."""
        self.workers.reap()
        self.probing.reap()

    def watch(self) -> None:
        """Once a second: look who hangs, and what nobody was told of."""
        self.workers.watch()
        if not self.workers.stopping:
            self.certificate_ends.watch(self.holdings)
        self.probing.watch()
        self.take_errors()

    def take_errors(self) -> None:
        """Let all workers know what one of them ran into."""
        if self.cluster.take_errors():
            self.workers.nudge()

    def _heard(self, worker: WorkerHandle, message: Message) -> None:
        if message.kind is Kind.IN_FORCE:
            worker.generation = message.value
            if worker.generation == self.generation:
                _answer(self._in_force, worker.number, value=True)
                self._changed()
            elif worker.phase is Phase.SERVING:
                self._send_plan(worker)  # it was forked before the last reload
        elif message.kind is Kind.REFUSED:
            self.workers.kill(worker)
        elif message.kind is Kind.IN_ERROR:
            self.take_errors()
        elif message.kind is Kind.SESSIONS:
            self.sessions.heard(worker, message)

    def _ended(self, number: int) -> None:
        """A worker is gone: nobody waits for it, and its counts stay."""
        _answer(self._in_force, number, value=False)
        self.sessions.ended(number)
        if number < self.cluster.board.workers:
            self.cluster.worker_ended(number)

    # --- reload --------------------------------------------------------------------------------

    async def reload(self, settings: Settings, *, dry_run: bool) -> list[str]:
        """Put settings in force; what changes, in words.

        Raises ConfigError with everything that can't be had, and CommandError when it is too
        late; then nothing has changed.
        """
        async with self._reloading:
            found = differences(self.settings, settings)
            moves = any(each.moves for each in found)
            words = in_words(found, (await self.sessions.count()).sessions if moves else {})
            if self.workers.stopping:
                raise CommandError("there is no reload while balanceme is stopping")
            former, available = self.holdings, by_address(self.holdings.sockets.values())
            holdings = None if dry_run else hold(settings, available)
            keys = read_keys(settings) if holdings is None else holdings.keys
            files = read_check_files(settings) if holdings is None else holdings.check_files
            read_anew = renewed(former, settings, keys) + renewed_files(former.check_files, files)
            if holdings is not None:
                await self._put_in_force(holdings)
            return [*(words if found else []), *read_anew] if read_anew else words

    async def _put_in_force(self, holdings: Holdings) -> None:
        """Let all workers swap; those that can't are replaced. Nothing is left to fail here."""
        former, count = self.holdings, worker_count(holdings.settings)
        former_board = self.cluster.reload(holdings.settings, count)
        self.holdings = holdings
        self.hooks.configure(holdings.settings.hooks)
        self.generation += 1
        warn_of_room(holdings.settings)
        self._name_entries()
        # Before anybody is waited for: a file is read by settings that the members are of.
        self.members.configure()
        self._configure_probing()
        self.probing.use_logs()
        self.workers.resize(count, holdings.settings.graceful_timeout)
        waiting = []
        for worker in self.workers.serving:
            self._in_force[worker.number] = self._loop.create_future()
            waiting.append(self._in_force[worker.number])
            self._send_plan(worker)
        self._changed()
        if waiting:
            await asyncio.wait(waiting, timeout=PREPARATION)
        former_board.close()
        former.close_but(holdings)
        log.info("generation %d of the settings is in force", self.generation)

    def _send_plan(self, worker: WorkerHandle) -> None:
        """Hand a worker the generation in force, with all that is open for it."""
        worker.deadline = time.monotonic() + PREPARATION
        holdings = self.holdings
        sockets = [holdings.sockets[each.listen] for each in holdings.settings.frontends]
        listening = [sock.fileno() for sock in sockets]
        self._send_logs(worker)
        for first in range(0, len(listening), MOST_FILES):
            files = listening[first : first + MOST_FILES]
            self.workers.send(worker, Kind.SOCKETS, None, files)
        self.workers.send(worker, Kind.PLAN, self._plan(), [self.cluster.board.file])

    async def take_up_certificates(self) -> None:
        """Put certificate files in force that have changed, with the settings as they are.

        A certificate and its key are seldom written at once: what can't be used is left alone
        until it changes again.
        """
        seen = stamp_of(self.settings)
        if seen in (self.holdings.stamp, self._tried):
            return
        self._tried = seen
        try:
            for line in await self.reload(self.settings, dry_run=False):
                log.info("%s", line)
        except ConfigError as error:
            log.warning("certificate files have changed, but can't be used: %s", error)

    # --- logs ----------------------------------------------------------------------------------

    def reopen_logs(self) -> None:
        """Open log files anew, for they were renamed; raises ConfigError, and writes on."""
        former = self.holdings.logs
        self.holdings.logs = open_logs(self.settings)
        former.close()
        for worker in self.workers.all:
            self._send_logs(worker)
        self.probing.use_logs()

    def _send_logs(self, worker: WorkerHandle) -> None:
        settings = self.settings
        self.workers.send(
            worker, Kind.LOGS, (settings.log, settings.access_log), self.holdings.logs.files
        )

    # --- members -------------------------------------------------------------------------------

    def for_upgrade(self) -> tuple[dict[str, str], tuple[int, ...]]:
        """What the new program needs to serve the same: entries of its environment, and files."""
        entry, files = for_upgrade(self.holdings.sockets.values())
        of_members, memory = self.members.for_upgrade()
        return {**entry, **of_members}, (*files, *memory)

    def explain(self, question: Question) -> dict[str, Any]:
        """Why a request goes to its member; raises CommandError."""
        self.take_errors()
        return explain(self.cluster, question, self.sessions.moves, self._salt)

    # --- members and their checks ---------------------------------------------------------------

    def _members_changed(self) -> None:
        self.workers.nudge()
        self._configure_probing()

    def _configure_probing(self) -> None:
        """Have the checks of the settings in force; a member that is stopped is asked nothing."""
        stopped = {
            view.key
            for view in self.cluster.members
            if view.status.operator is OperatorStatus.STOPPED
        }
        self.probing.configure(self.holdings, stopped)

    def _probed(self, results: list[Probed]) -> None:
        self.members.take_probes(results)
        for view, check, ends in self.cluster.certificates_seen(results):
            self.certificate_ends.seen(
                f"{view.title}, check {check.title}",
                ends,
                check.certificate_days,
                balancer=view.balancer,
                member=view.name,
            )

    # --- the end -------------------------------------------------------------------------------

    def stop(self, timeout: float) -> None:
        """Serve nobody new; workers may take ``timeout`` seconds for what is under way."""
        self.members.stop()
        # Workers close theirs. With ours open the kernel would let clients in whom nobody serves.
        close_all(self.holdings.sockets.values())
        self.workers.stop(timeout)
        self.probing.stop()

    def cut(self) -> None:
        """End all workers at once."""
        self.stop(0)
        self.probing.cut()
        for worker in self.workers.all:
            self.workers.kill(worker)

    def leave(self) -> None:
        """Let those before us know that they shall send no more clients."""
        self.cluster.board.leaving = True
        self.workers.nudge()

    def __repr__(self) -> str:
        return f"<Served generation={self.generation} {self.workers!r}>"


Value = TypeVar("Value")


def _answer(waiting: dict[int, asyncio.Future[Value]], number: int, value: Value) -> None:
    future = waiting.pop(number, None)
    if future is not None and not future.done():
        future.set_result(value)
