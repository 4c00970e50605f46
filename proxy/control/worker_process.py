"""A worker's process: what it does between its fork and its end.

It hears of the rest of the world through its channel and its scoreboard alone. Down come plans
(a reload), nudges to look at the members' status, new log files, and the order to stop; up go
counters once a tick, and at once that a member is in error. Without its supervisor it stops.
"""

import asyncio
import contextlib
import encodings.idna  # noqa: F401 - for members' names, out of reach once root is given up
import gc
import logging
import os
import resource
import signal
import socket
import ssl
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import uvloop

from proxy.control import session_answers
from proxy.control.accounts import Account, drop
from proxy.control.channel import Channel, ChannelError, Kind, Message
from proxy.control.holdings import Logs
from proxy.control.log_files import LineSink
from proxy.control.operator_log import start_logging
from proxy.control.plan import Plan
from proxy.control.scoreboard import MemberCounters, Scoreboard, WorkerCounters
from proxy.control.session_answers import Asked, Ordered
from proxy.control.standing import Standing
from proxy.control.waiting import Waiting
from proxy.control.worker import Others, Worker
from proxy.core.member import Member
from proxy.core.settings import AccessLog as AccessLogSettings
from proxy.core.settings import Log, LogFormat
from proxy.dataplane.tls import Entries

log = logging.getLogger("balanceme")

# A worker with so many clients more than another lets that one accept first.
SLACK = 2
# Seconds since its last heartbeat after which nobody waits for a worker.
ALIVE = 2.0
# The supervisor's signals; a terminal or a service manager may send them to all its processes.
IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


LogSettings = tuple[Log, AccessLogSettings | None]


@dataclass
class Start:
    """All that a worker begins with; every file of the supervisor's that isn't here is closed."""

    number: int
    plan: Plan
    channel: Channel
    board: Scoreboard
    sockets: dict[str, socket.socket]
    logs: Logs
    account: Account | None
    # what all workers have in common since before they were forked
    entries: Entries
    salt: bytes
    # sessions that the operator moved before
    moves: tuple[Ordered, ...] = ()


def share_memory() -> None:
    """Let workers that are forked from now on share what is loaded by now.

    The collector writes into each object that it looks at, and what is written to is copied: 13 MB
    for each worker, without this.
    """
    gc.collect()
    gc.freeze()


def run(start: Start) -> NoReturn:
    """Be a worker, in a process that was forked just now, until told to stop.

    Nothing of the supervisor's is torn down here: its objects stay as they were, without their
    files, so that none of them can touch what the supervisor still uses.
    """
    status = 1
    try:
        sockets = [sock.fileno() for sock in start.sockets.values()]
        files = [start.channel.fileno(), start.board.file, *start.logs.files, *sockets]
        settle_in(files, start.account)
        loop = uvloop.new_event_loop()
        asyncio.set_event_loop(loop)
        status = loop.run_until_complete(WorkerProcess(start, loop).serve())
    except Exception:
        log.exception("worker %d ends by a mistake in balanceme", start.number + 1)
    finally:
        logging.shutdown()
        os._exit(status)


def settle_in(files: Iterable[int], account: Account | None) -> None:
    """What a process does first that was forked from the supervisor; ``files`` it needs."""
    _close_others(files)
    if account is not None:
        drop(account)
    signal.set_wakeup_fd(-1)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _close_others(files: Iterable[int]) -> None:
    """Let go of the supervisor's files: who waits for its end would wait for ours.

    Their numbers stay taken, since objects that were copied with them may close them yet.
    """
    keep = {0, 1, 2, *files}
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for file in [int(each.name) for each in Path("/proc/self/fd").iterdir()]:
        if file not in keep and file != null:
            os.dup2(null, file, inheritable=False)


class WorkerProcess:
    """A worker, and its line to the supervisor."""

    def __init__(self, start: Start, loop: asyncio.AbstractEventLoop) -> None:
        self._start = start
        self._number = start.number
        self._generation = start.plan.generation
        self._channel = start.channel
        self._board = start.board
        self._loop = loop
        self._speaker = f"worker {start.number + 1}"
        self._counting: set[asyncio.Task[None]] = set()
        self._stop_timeout: asyncio.Future[float] = loop.create_future()
        # the sockets of the next plan, which come before it
        self._listening: list[int] = []
        settings = start.plan.settings
        self._sink = LineSink(start.logs.log, "log")
        self._sink.call_later = loop.call_later
        start_logging(settings.log, self._sink, self._speaker)
        self._worker = Worker(
            settings,
            loop,
            start.plan.keys,
            Others(
                start.number,
                start.entries,
                start.salt,
                member_in_error=self._member_in_error,
                yields=self._yields,
            ),
        )
        self._standing = Standing(self._worker, start.board)
        session_answers.obey(self._worker.balancers, start.moves)
        self._waiting = Waiting(self._worker.connections)
        self._access_sink: LineSink | None = None
        self._use_access_log(settings.access_log, start.logs.access_log)

    async def serve(self) -> int:
        """Serve until told to stop; the exit status."""
        loop, worker = self._loop, self._worker
        loop.set_exception_handler(_exception)
        sys.unraisablehook = _unraisable
        self._begin_board(self._board)
        worker.deadlines.ticks += [self._tick, self._sink.flush]
        worker.accept(self._start.sockets)
        worker.start()
        loop.add_reader(self._channel.fileno(), self._hear)
        self._tell(Kind.IN_FORCE, self._generation)
        await worker.stop(await self._stop_timeout)
        self._publish()
        return 0

    # --- what comes down -----------------------------------------------------------------------

    def _hear(self) -> None:
        """The supervisor has something to say, or has ended."""
        try:
            while (message := self._channel.receive()) is not None:
                self._obey(message)
        except EOFError:
            self._loop.remove_reader(self._channel.fileno())
            if not self._stop_timeout.done():
                log.warning("the supervisor is gone; this worker stops gracefully")
            self._stop(self._worker.settings.stop_timeout)

    def _obey(self, message: Message) -> None:
        if message.kind is Kind.SOCKETS:
            self._listening += message.files
        elif message.kind is Kind.PLAN:
            (board,) = message.files
            self._reload(message.value, board)
        elif message.kind is Kind.STATUS:
            self._standing.take()
            self._worker.waiting_room.look()
        elif message.kind is Kind.LOGS:
            self._use_logs(message.value, message.files)
        elif message.kind is Kind.SESSIONS_WANTED:
            task = self._loop.create_task(self._tell_sessions(message.value))
            self._counting.add(task)
            task.add_done_callback(self._counting.discard)
        elif message.kind is Kind.MOVE_SESSIONS:
            session_answers.obey(self._worker.balancers, message.value)
        elif message.kind is Kind.STOP:
            self._stop(message.value)

    def _use_logs(self, settings: LogSettings, files: Sequence[int]) -> None:
        """Write to other files, or to those of the same name that are there now."""
        log_settings, access_log = settings
        file, *others = files
        self._sink.replace(file)
        start_logging(log_settings, self._sink, self._speaker)
        self._use_access_log(access_log, others[0] if others else None)

    def _use_access_log(self, settings: AccessLogSettings | None, file: int | None) -> None:
        access_log, former = self._worker.access_log, self._access_sink
        if settings is None or file is None:
            self._access_sink = None
            access_log.replace(None, LogFormat.COMBINED)
            if former is not None:
                former.close(0)
        elif former is None:
            self._access_sink = LineSink(file, "access log")
            self._access_sink.call_later = self._loop.call_later
            access_log.replace(self._access_sink, settings.format)
        else:
            access_log.replace(former, settings.format)
            former.replace(file)  # with what waits for a slow reader

    def _reload(self, plan: Plan, board: int) -> None:
        """Put a plan in force; it was checked before, so a failure is a mistake of ours."""
        listening, self._listening = self._listening, []
        try:
            self._worker.configure(plan.settings, plan.keys)
            listens = [frontend.listen for frontend in plan.settings.frontends]
            sockets = {
                listen: socket.socket(fileno=file)
                for listen, file in zip(listens, listening, strict=True)
            }
            self._board.close()
            self._generation = plan.generation
            self._begin_board(Scoreboard(len(self._worker.members), plan.workers, board))
            self._worker.accept(sockets)
        except Exception:
            log.exception("settings could not be put in force: a mistake in balanceme")
            self._tell(Kind.REFUSED, plan.generation)
        else:
            self._tell(Kind.IN_FORCE, plan.generation)

    def _begin_board(self, board: Scoreboard) -> None:
        self._board = board
        self._standing.begin(board)
        self._publish()

    def _stop(self, timeout: float) -> None:
        if not self._stop_timeout.done():
            self._stop_timeout.set_result(timeout)
        else:
            self._worker.hurry(timeout)

    # --- what goes up --------------------------------------------------------------------------

    def _tick(self) -> None:
        """With each sweep: counters up, status down."""
        self._waiting.tick(time.monotonic())
        self._publish()
        self._standing.take()
        session_answers.forget_moves(self._worker.balancers)

    def _publish(self) -> None:
        board, number, worker = self._board, self._number, self._worker
        for balancer in worker.balancers.values():
            balancer.settle()
        for index, member in enumerate(worker.members):
            board.set_counters(number, index, self._counters(member))
        board.set_worker(
            number,
            WorkerCounters(
                time.monotonic(), self._generation, worker.admission.count, worker.exchanges
            ),
        )

    def _yields(self) -> bool:
        """Whether another worker has so many clients less that the next one is his.

        They accept from one socket, so whoever is there first would get the most: of 400 phones
        that came one after another, one of four workers got half. This makes it a quarter.
        """
        board, mine = self._board, self._worker.admission.count
        if board.workers == 1:
            return False
        board.set_connections(self._number, mine)
        return mine > board.fewest_connections(time.monotonic() - ALIVE) + SLACK

    def _counters(self, member: Member) -> MemberCounters:
        return MemberCounters(
            member.busy,
            member.elected,
            member.sent,
            member.received,
            self._standing.error_of(member),
            self._waiting.counts[member],
        )

    def _member_in_error(self, member: Member) -> None:
        """Traffic has put a member in error: the others are to know at once."""
        self._standing.in_error(member)
        members = self._worker.members
        if member in members:
            self._board.set_counters(self._number, members.index(member), self._counters(member))
            self._tell(Kind.IN_ERROR)

    async def _tell_sessions(self, asked: Asked) -> None:
        try:
            await session_answers.answer(self._channel, asked, self._worker.balancers)
        except ChannelError as error:
            log.warning("the supervisor can't be told of sessions: %s", error)

    def _tell(self, kind: Kind, value: object = None) -> None:
        try:
            self._channel.send(kind, value)
        except ChannelError as error:
            # It reads the board every second all the same.
            log.warning("the supervisor can't be told: %s", error)


def _exception(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """What nobody caught: that a client breaks its TLS is no news, the rest is our mistake."""
    error = context.get("exception")
    if isinstance(error, OSError | ssl.SSLError):
        log.debug("%s: %s", context.get("message"), error)
    else:
        exc_info = error if isinstance(error, BaseException) else None
        log.error("a mistake in balanceme: %s", context.get("message"), exc_info=exc_info)


def _unraisable(problem: "sys.UnraisableHookArgs") -> None:
    """A name (SNI) that is no ASCII can't be told to the TLS context; the handshake fails (H75)."""
    if isinstance(problem.exc_value, UnicodeDecodeError) and isinstance(problem.object, bytes):
        log.debug("handshake with a malformed server name")
    else:
        sys.__unraisablehook__(problem)


def raise_file_limit() -> None:
    """As many open files as the system allows (P9)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
