"""The supervisor's side of the health checks: the prober's process, and what it tells.

There is one such process while there is a check to run, and none otherwise. It is watched and
replaced like a worker, which it is none of. What results mean is not decided here: they are handed
on. At the start, workers wait for the first results of required checks, for a while: else the first
clients would be sent to members that are known to be down a moment later.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from proxy.control import prober_process
from proxy.control.accounts import Account
from proxy.control.channel import Kind, Message, channel_pair
from proxy.control.check_files import named
from proxy.control.forking import fork
from proxy.control.holdings import Holdings
from proxy.control.prober import Assignment, Key, Probed
from proxy.control.prober_process import ProberStart
from proxy.control.probes.probe import timeout_of
from proxy.control.probes.result import NO_FILES, Target
from proxy.control.workers import Told, WorkerHandle, Workers
from proxy.core.settings import HealthCheck, Settings

log = logging.getLogger("balanceme")

# Beyond the longest timeout, how long workers wait for the first results, in seconds.
MARGIN = 2.0
# The most that they wait: in an upgrade the former supervisor gives up on the new one after 20 s.
LONGEST_WAIT = 17.0


def assignments_of(holdings: Holdings, stopped: Collection[Key] = ()) -> tuple[Assignment, ...]:
    """All checks of all members but ``stopped`` ones, which are asked nothing (H6)."""
    return tuple(
        Assignment(key, check, target, holdings.check_files.get(named(check), NO_FILES))
        for key, checks, target in _checked(holdings.settings)
        if key not in stopped
        for check in checks
    )


def _checked(settings: Settings) -> Iterator[tuple[Key, tuple[HealthCheck, ...], Target]]:
    for name, balancer in settings.balancers.items():
        for member in balancer.members:
            own = member.health_checks
            checks = balancer.health_checks if own is None else own
            yield (name, *member.key), checks, Target.of(member)


@dataclass
class Heard:
    """What is done about what the prober tells."""

    probed: Callable[[list[Probed]], None]
    # there is something to fork, or nobody left, or workers wait no longer
    changed: Callable[[], None]


class Probing:
    """The prober, if there is one, and who waits for it."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, account: Account | None, heard: Heard
    ) -> None:
        self._loop = loop
        self._account = account
        self._heard = heard
        self._holdings: Holdings | None = None
        self._assignments: tuple[Assignment, ...] = ()
        self._last_word = 0.0
        self._workers = Workers(
            loop, Told(self._take, lambda _: None, heard.changed), lambda _: self._last_word
        )
        # required checks whose first result workers wait for; None once nobody waits
        self._missing: set[tuple[Key, str]] | None = set()
        self._waits_until: float | None = None

    # --- which checks ----------------------------------------------------------------------------

    def configure(self, holdings: Holdings, stopped: Collection[Key] = ()) -> None:
        """Have these checks from now on; those that were there before go on undisturbed."""
        former, self._assignments = self._assignments, assignments_of(holdings, stopped)
        self._holdings = holdings
        if self._assignments == former:
            return
        if self._missing is not None:
            known = {each.id for each in former} - self._missing
            required = {each.id for each in self._assignments if each.check.required}
            self._missing = required - known
        self._workers.resize(1 if self._assignments else 0, 0)
        for worker in self._workers.current:
            self._workers.send(worker, Kind.PROBES, self._assignments)
        self._heard.changed()

    def use_logs(self) -> None:
        """Let the prober write to the log that the holdings have now."""
        if self._holdings is not None:
            settings, logs = self._holdings.settings, self._holdings.logs
            for worker in self._workers.all:
                self._workers.send(worker, Kind.LOGS, settings.log, [logs.log])

    # --- who waits for first results -------------------------------------------------------------

    @property
    def first_results_are_in(self) -> bool:
        """Whether workers need not wait for first results, or not any longer; stays so once so."""
        if self._missing is None:
            return True
        if not self._missing or self._workers.stopping:
            self._missing = None
            return True
        now = time.monotonic()
        if self._waits_until is None:
            longest = max(timeout_of(each.check) for each in self._assignments)
            seconds = min(longest + MARGIN, LONGEST_WAIT)
            self._waits_until = now + seconds
            self._loop.call_later(seconds, self._heard.changed)
            count = len(self._missing)
            words = f"{count} health check{'s' if count > 1 else ''}"
            log.info("workers wait for the first results of %s", words)
        if now < self._waits_until:
            return False
        missing = sorted(f"{key[0]} {key[2] or key[1]} {title}" for key, title in self._missing)
        log.warning("workers start without the first results of: %s", ", ".join(missing))
        self._missing = None
        return True

    # --- the process -----------------------------------------------------------------------------

    def fork_due(self) -> None:
        """Start the prober if there is to be one and isn't; only while the loop stands still."""
        holdings = self._holdings
        if holdings is None or not self._workers.due():
            return
        ours, theirs = channel_pair()
        settings, logs = holdings.settings, holdings.logs
        start = ProberStart(self._assignments, theirs, settings.log, logs.log, self._account)
        pid = fork(lambda: prober_process.run(start))
        theirs.close()
        self._last_word = now = time.monotonic()
        self._workers.forked(WorkerHandle(0, pid, ours, 0, now, title="prober"))

    @property
    def pid(self) -> int | None:
        """The process id of the prober, if there is one."""
        current = self._workers.current
        return current[0].pid if current else None

    @property
    def is_gone(self) -> bool:
        """Whether no process is left."""
        return not self._workers.all

    def watch(self) -> None:
        """Once a second: look whether it hangs."""
        self._workers.watch()

    def reap(self) -> None:
        """Take note of its end, if it has ended."""
        self._workers.reap()

    def stop(self) -> None:
        """Let it end at once; it has nothing to finish."""
        self._workers.stop(0)

    def cut(self) -> None:
        """End it at once, whatever it does."""
        self.stop()
        for worker in self._workers.all:
            self._workers.kill(worker)

    def _take(self, worker: WorkerHandle, message: Message) -> None:
        self._last_word = time.monotonic()
        if message.kind is not Kind.PROBED:
            return
        # A check may have gone while its last result was on the way.
        wanted = {each.id for each in self._assignments}
        probed = [each for each in message.value if (each.key, each.title) in wanted]
        if not probed:
            return
        for each in probed:
            how = "passed" if each.passed else "failed"
            name = each.key[2] or each.key[1]
            log.debug("%s %s: %s %s: %s", each.key[0], name, each.title, how, each.text)
        self._heard.probed(probed)
        if self._missing:
            self._missing -= {(each.key, each.title) for each in probed}
            if not self._missing:
                self._heard.changed()

    def __repr__(self) -> str:
        return f"<Probing {len(self._assignments)} checks, {self._workers!r}>"
