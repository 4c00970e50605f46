"""The prober's process: what it does between its fork and its end.

It runs as the workers' account, since it parses what members send and starts commands, looks up
names in threads, and may wait: nothing that the supervisor may do. Down come the checks, new log
files, and the order to stop; up go results, and an empty list when there are none for a moment:
whoever is silent counts as hung. Without its supervisor it ends, and with it what it has started.
"""

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NoReturn

from proxy.control.accounts import Account
from proxy.control.channel import Channel, ChannelError, Kind, Message
from proxy.control.log_files import LineSink
from proxy.control.operator_log import start_logging
from proxy.control.prober import MOST_AT_ONCE, Assignment, Probed, Prober
from proxy.control.worker_process import settle_in
from proxy.core.settings import Log

log = logging.getLogger("balanceme")

# How often something is told at least, in seconds; several times in what counts as hung.
HEARTBEAT = 0.5
# Results that wait for a supervisor that doesn't read; beyond it the oldest are forgotten.
MOST_WAITING = 10_000


@dataclass
class ProberStart:
    """All that a prober begins with; every file of the supervisor's that isn't here is closed."""

    assignments: tuple[Assignment, ...]
    channel: Channel
    log: Log
    # the log's descriptor
    log_file: int
    account: Account | None


def run(start: ProberStart) -> NoReturn:
    """Be the prober, in a process that was forked just now, until told to stop."""
    status = 1
    try:
        settle_in([start.channel.fileno(), start.log_file], start.account)
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        # A name server that doesn't answer holds threads up: there is one for each probe.
        loop.set_default_executor(ThreadPoolExecutor(MOST_AT_ONCE))
        loop.run_until_complete(ProberProcess(start, loop).serve())
        status = 0
    except Exception:
        log.exception("the prober ends by a mistake in balanceme")
    finally:
        logging.shutdown()
        os._exit(status)


class ProberProcess:
    """The prober, and its line to the supervisor."""

    def __init__(self, start: ProberStart, loop: asyncio.AbstractEventLoop) -> None:
        self._start = start
        self._loop = loop
        self._channel = start.channel
        self._stop = asyncio.Event()
        # results that nobody was told of yet
        self._waiting: list[Probed] = []
        self._telling = False
        self._sink = LineSink(start.log_file, "log")
        self._sink.call_later = loop.call_later
        start_logging(start.log, self._sink, "prober")
        self._prober = Prober(self._probed)

    async def serve(self) -> None:
        """Probe until told to stop."""
        self._loop.add_reader(self._channel.fileno(), self._hear)
        self._send(Kind.IN_FORCE, None)
        self._prober.assign(self._start.assignments)
        while not self._stop.is_set():
            self._tell()
            self._sink.flush()
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await self._stop.wait()
            except TimeoutError:
                pass
        await self._prober.stop()

    # --- what comes down -------------------------------------------------------------------------

    def _hear(self) -> None:
        """The supervisor has something to say, or has ended."""
        try:
            while (message := self._channel.receive()) is not None:
                self._obey(message)
        except EOFError:
            self._loop.remove_reader(self._channel.fileno())
            if not self._stop.is_set():
                log.warning("the supervisor is gone; the prober ends")
            self._stop.set()

    def _obey(self, message: Message) -> None:
        if message.kind is Kind.PROBES:
            self._prober.assign(message.value)
        elif message.kind is Kind.LOGS:
            (file,) = message.files
            self._sink.replace(file)
            start_logging(message.value, self._sink, "prober")
        elif message.kind is Kind.STOP:
            self._stop.set()

    # --- what goes up ----------------------------------------------------------------------------

    def _probed(self, probed: Probed) -> None:
        """Tell of a result at once, together with others of the same moment."""
        self._waiting.append(probed)
        del self._waiting[:-MOST_WAITING]
        if not self._telling:
            self._telling = True
            self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        self._telling = False
        if self._send(Kind.PROBED, self._waiting):
            self._waiting = []

    def _send(self, kind: Kind, value: object) -> bool:
        try:
            self._channel.send(kind, value)
        except ChannelError:
            return False  # it is stuck for a moment, or gone, as the line tells as well
        return True
