"""Every timeout of a worker in one sweep (P3): an object stores its deadline as a number.

A timer per request would cost more than the whole decision; a second more or less matters to
nobody who waits for a timeout.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger("balanceme")

# How often deadlines are looked at, in seconds: the accuracy of all timeouts.
SWEEP = 0.5
NEVER = float("inf")


class Expiring(Protocol):
    """Whatever has a deadline: monotonic seconds, NEVER for none."""

    deadline: float

    def expired(self, now: float) -> None:
        """The deadline has passed; to be moved or closed."""


class Deadlines:
    """All connections of a worker; each is told when its deadline has passed."""

    __slots__ = ("_all", "_handle", "_loop", "_now", "ticks")

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float]) -> None:
        self._all: set[Expiring] = set()
        self._loop = loop
        self._now = now
        self._handle: asyncio.TimerHandle | None = None
        # Called with each sweep: what else is done about once a second.
        self.ticks: list[Callable[[], None]] = []

    def add(self, item: Expiring) -> None:
        """Watch ``item`` from now on."""
        self._all.add(item)

    def discard(self, item: Expiring) -> None:
        """Watch it no more."""
        self._all.discard(item)

    def start(self) -> None:
        """Sweep from now on, until ``stop``."""
        self._handle = self._loop.call_later(SWEEP, self._tick)

    def stop(self) -> None:
        """Sweep no more."""
        if self._handle is not None:
            self._handle.cancel()

    def _tick(self) -> None:
        self.start()
        self.sweep()
        for tick in self.ticks:
            tick()

    def sweep(self) -> None:
        """Tell everybody whose deadline has passed; a failure of one is not the others'."""
        now = self._now()
        for item in [item for item in self._all if item.deadline <= now]:
            # What came of the ones before may have moved this one's deadline, or ended it.
            if item.deadline > now or item not in self._all:
                continue
            try:
                item.expired(now)
            except Exception:
                log.exception("a deadline could not be kept: a mistake in balanceme")

    def __len__(self) -> int:
        return len(self._all)
