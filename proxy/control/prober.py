"""When each member is asked: the probes of all checks, each in a loop of its own.

A check's probes follow one another, one at a time, in its interval, a tenth more or less, so that
those of many don't fall together. While it isn't clear what counts they follow within a second.
What the results mean for a member is not decided here. It runs in a process of its own: see
``prober_process``.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from proxy.control.probes.probe import probe
from proxy.control.probes.result import NO_FILES, CheckFiles, Result, Target
from proxy.core.settings import HealthCheck

log = logging.getLogger("balanceme")

# From one probe to the next while results are new, in seconds.
HASTE = 1.0
# The least from one's end to the next one's start, for those that take longer than their interval.
BREATH = 0.1
# How far apart the first probes of new checks are, all together, in seconds.
SPREAD = 0.1
# How much an interval varies.
JITTER = 0.1
# Probes at a time: each may have a connection, a thread that looks up a name, or a process.
MOST_AT_ONCE = 48

Key = tuple[str, str, str | None]
"""What makes a member this member: balancer, url, route."""


class Assignment(NamedTuple):
    """One check of one member."""

    key: Key
    check: HealthCheck
    target: Target
    files: CheckFiles = NO_FILES

    @property
    def id(self) -> tuple[Key, str]:
        """What makes it this check, whatever its settings."""
        return self.key, self.check.title


class Probed(NamedTuple):
    """One probe's result, as it is told to the supervisor."""

    key: Key
    title: str
    passed: bool
    text: str
    took: float
    """Seconds."""
    at: float
    """When it ended, monotonic."""
    certificate_ends: float | None = None
    """Seconds since 1970."""


class Pace:
    """How soon a check's next probe is due, by the results so far."""

    __slots__ = ("_check", "_passed", "_streak")

    def __init__(self, check: HealthCheck) -> None:
        self._check = check
        self._passed: bool | None = None
        # how many in a row were like the last one
        self._streak = 0

    def after(self, passed: bool) -> float:
        """Take a result; seconds from that probe's start to the next one's."""
        check = self._check
        enough = check.passes if passed else check.fails
        first, unlike = self._passed is None, self._passed is (not passed)
        self._passed = passed
        if first and passed:
            self._streak = enough  # it counts at once, and all is well
        else:
            self._streak = 1 if unlike else self._streak + 1
        haste = unlike or self._streak < enough
        return min(check.interval, HASTE) if haste else check.interval


Probe = Callable[[HealthCheck, Target, CheckFiles], Awaitable[Result]]


class Prober:
    """All checks of all members, and who is asked just now."""

    def __init__(
        self,
        tell: Callable[[Probed], None],
        *,
        probe: Probe = probe,
        vary: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """``tell`` is called with each result, ``vary`` gives a number between two."""
        self._tell = tell
        self._probe = probe
        self._vary = vary
        self._room = asyncio.Semaphore(MOST_AT_ONCE)
        self._tasks: dict[Assignment, asyncio.Task[None]] = {}

    def assign(self, assignments: Sequence[Assignment]) -> None:
        """Have these checks and no other; one that was there before goes on undisturbed."""
        for former in self._tasks.keys() - set(assignments):
            self._tasks.pop(former).cancel()
        fresh = [each for each in assignments if each not in self._tasks]
        for index, assignment in enumerate(fresh):
            task = asyncio.create_task(self._go_on(assignment, SPREAD * index / len(fresh)))
            task.add_done_callback(_look_at_end)
            self._tasks[assignment] = task

    async def stop(self) -> None:
        """End all probes, with what they have started."""
        tasks = [*self._tasks.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _go_on(self, assignment: Assignment, delay: float) -> None:
        """Probe one check of one member again and again."""
        loop = asyncio.get_running_loop()
        pace = Pace(assignment.check)
        await asyncio.sleep(delay)
        while True:
            async with self._room:
                started = loop.time()
                found = await self._probe(assignment.check, assignment.target, assignment.files)
            ended = loop.time()
            self._tell(_probed(assignment, found, ended - started))
            pause = pace.after(found.passed) * self._vary(1 - JITTER, 1 + JITTER)
            await asyncio.sleep(max(started + pause - ended, BREATH))

    def __repr__(self) -> str:
        return f"<Prober {len(self._tasks)} checks>"


def _probed(assignment: Assignment, found: Result, took: float) -> Probed:
    return Probed(
        assignment.key,
        assignment.check.title,
        found.passed,
        found.text,
        took,
        time.monotonic(),
        found.certificate_ends,
    )


def _look_at_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a mistake in balanceme: a check has ended", exc_info=task.exception())
