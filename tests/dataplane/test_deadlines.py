"""Every timeout in one sweep."""

from collections.abc import Callable

import pytest

from proxy.dataplane.deadlines import NEVER, SWEEP, Deadlines
from tests.fakes import FakeClock, FakeLoop, Stage


class Item:
    """Something with a deadline, which tells when it passed."""

    def __init__(self, deadline: float, told: list[float]) -> None:
        self.deadline = deadline
        self.told = told
        self.then: Callable[[], object] = lambda: None

    def expired(self, now: float) -> None:
        """The deadline has passed."""
        self.told.append(self.deadline)
        self.deadline = NEVER
        self.then()


@pytest.fixture
def deadlines(stage: Stage) -> Deadlines:
    """Deadlines on the stage's clock, which shows 1000."""
    return Deadlines(stage.loop, stage.clock.monotonic)


def test_tells_who_is_due(stage: Stage, deadlines: Deadlines) -> None:
    """Whoever's deadline is now or has passed is told once (P3)."""
    told: list[float] = []
    for deadline in (999, 1000, 1001, NEVER):
        deadlines.add(Item(deadline, told))
    assert len(deadlines) == 4
    deadlines.sweep()
    deadlines.sweep()
    assert sorted(told) == [999, 1000]
    stage.clock.advance(1)
    deadlines.sweep()
    assert told[2:] == [1001]


def test_forgets(deadlines: Deadlines) -> None:
    """Whoever is discarded is told nothing, however often."""
    told: list[float] = []
    item = Item(0, told)
    deadlines.add(item)
    deadlines.discard(item)
    deadlines.discard(item)
    deadlines.sweep()
    assert told == []


def test_what_one_changes_counts_for_the_next(deadlines: Deadlines) -> None:
    """A deadline that is moved, or given up, in the same sweep has not passed (F12, F17)."""
    told: list[float] = []
    items = [Item(1, told), Item(1, told)]
    gone = [Item(2, told), Item(2, told)]

    def move() -> None:
        for item in items:
            item.deadline = 2000

    def drop() -> None:
        for item in gone:
            deadlines.discard(item)

    for item in items:
        item.then = move
        deadlines.add(item)
    for item in gone:
        item.then = drop
        deadlines.add(item)
    deadlines.sweep()
    assert sorted(told) == [1, 2]


def test_one_that_fails_doesn_t_hold_up_the_others(stage: Stage, deadlines: Deadlines) -> None:
    """A mistake in one callback is logged; the others are told (P4, P6)."""
    told: list[float] = []
    items = [Item(number, told) for number in range(3)]
    for item in items:
        item.then = lambda: 1 / 0
        deadlines.add(item)
    deadlines.sweep()
    assert sorted(told) == [0, 1, 2]
    assert len(stage.mistakes()) == 3


def test_sweeps_by_itself() -> None:
    """Once started it sweeps and ticks twice a second, until it is stopped (P3)."""
    clock = FakeClock()
    loop = FakeLoop(clock)
    try:
        deadlines = Deadlines(loop, clock.monotonic)
        told: list[float] = []
        ticks: list[float] = []
        deadlines.ticks.append(lambda: ticks.append(clock.passed))
        deadlines.add(Item(1000 + 2 * SWEEP, told))
        deadlines.start()
        for _ in range(3):
            clock.advance(SWEEP)
            loop.settle()
        assert told == [1000 + 2 * SWEEP]
        assert ticks == [SWEEP, 2 * SWEEP, 3 * SWEEP]
        deadlines.stop()
        clock.advance(SWEEP)
        loop.settle()
        assert len(ticks) == 3
    finally:
        loop.close()


def test_stops_before_it_started(deadlines: Deadlines) -> None:
    """Stopping what was never started is nothing."""
    deadlines.stop()
