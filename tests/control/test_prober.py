"""When members are asked: first at once, then in the interval, in haste while it isn't clear.

Time is a fake: a probe takes as long as a test says, and a day passes at once.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.control.prober import BREATH, HASTE, MOST_AT_ONCE, SPREAD, Assignment, Probed, Prober
from proxy.control.probes.result import CheckFiles, Result, Target
from proxy.core.settings import HealthCheck
from tests.fakes import FakeClock, FakeLoop

TARGET = Target("server1", 80, "server1", "http://server1")


def assignment(route: str = "server1", **words: Any) -> Assignment:
    """A check of a member."""
    check = HealthCheck.model_validate({"type": "tcp", **words})
    return Assignment(("cluster", f"http://{route}", route), check, TARGET)


class Bench:
    """A prober whose probes a test answers, on a clock that a test moves."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.loop = FakeLoop(self.clock)
        # what the next probes find: passed, and after so many seconds
        self.found: list[tuple[bool, float]] = []
        # when each began, since the start; who; and how many were under way at most
        self.begun: list[float] = []
        self.routes: list[str] = []
        self.under_way = self.most = 0
        self.cancelled = 0
        self.told: list[Probed] = []
        self.factor = 1.0
        self._start = self.loop.time()
        self.prober = self._make()

    def _make(self) -> Prober:
        return Prober(self.told.append, probe=self._probe, vary=lambda *_: self.factor)

    async def _probe(self, check: HealthCheck, target: Target, files: CheckFiles) -> Result:
        self.begun.append(round(self.loop.time() - self._start, 3))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        passed, seconds = self.found.pop(0) if self.found else (True, 0.0)
        try:
            if seconds:
                await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1
        return Result(passed, "seen", 5.0)

    def assign(self, *assignments: Assignment) -> None:
        """Have these checks."""
        self.loop.run(self.prober.assign, assignments)

    def wait(self, seconds: float) -> None:
        """Let time pass, in small steps."""
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)
            self.loop.settle()

    def finds(self, *passed: int) -> None:
        """What the next probes find, at once."""
        self.found += [(bool(each), 0.0) for each in passed]

    def close(self) -> None:
        """End all."""
        self.loop.run(lambda: self.loop.create_task(self.prober.stop()))
        self.loop.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A prober on a fake clock."""
    made = Bench()
    yield made
    made.close()


def pauses(bench: Bench) -> list[float]:
    """Seconds from each probe's start to the next one's."""
    return [round(b - a, 2) for a, b in zip(bench.begun, bench.begun[1:], strict=False)]


# --- pace ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ((1, 1, 1), [10, 10]),
        ((1, 0, 0, 0), [10, 1, 10]),
        ((1, 0, 1, 1), [10, 1, 1]),
        ((0, 0, 0), [1, 10]),
        ((0, 1, 1, 1), [1, 1, 10]),
    ],
)
def test_hurries_while_results_are_new(
    bench: Bench, found: tuple[int, ...], expected: list[float]
) -> None:
    """The interval, but a second once a result is unlike the last one, or too few are alike."""
    bench.finds(*found)
    bench.assign(assignment(interval="10s"))
    bench.wait(35)
    assert pauses(bench)[: len(expected)] == expected


def test_counts_as_many_as_the_check_wants(bench: Bench) -> None:
    """Haste lasts until so many results in a row are there; the first one that passed counts."""
    bench.finds(1, 0, 0, 0, 0, 1, 1, 1)
    bench.assign(assignment(interval="4s", fails=3, passes=2))
    bench.wait(30)
    assert pauses(bench)[:7] == [4, 1, 1, 4, 4, 1, 4]


def test_a_short_interval_is_never_stretched(bench: Bench) -> None:
    """Haste is no longer than the interval itself."""
    bench.finds(0, 1, 0, 1)
    bench.assign(assignment(interval="500ms"))
    bench.wait(2)
    assert pauses(bench)[:3] == [0.5, 0.5, 0.5]
    assert HASTE > 0.5


def test_intervals_vary(bench: Bench) -> None:
    """A tenth more or less, as the dice say."""
    bench.factor = 0.9
    bench.assign(assignment(interval="10s"))
    bench.wait(20)
    assert pauses(bench) == [9, 9]


def test_intervals_are_from_start_to_start(bench: Bench) -> None:
    """How long a probe takes is a part of the interval; one that takes longer is let breathe."""
    bench.found = [(True, 3.0), (True, 12.0), (True, 0.0)]
    bench.assign(assignment(interval="10s"))
    bench.wait(25)
    assert pauses(bench) == pytest.approx([10, 12 + BREATH], abs=0.051)


def test_one_at_a_time(bench: Bench) -> None:
    """A check's probes never overlap."""
    bench.found = [(False, 20.0)] * 3
    bench.assign(assignment(interval="100ms"))
    bench.wait(50)
    assert bench.most == 1


# --- many ----------------------------------------------------------------------------------------


def test_first_probes_are_at_once_and_apart(bench: Bench) -> None:
    """The first is asked at once, all within a tenth of a second."""
    bench.assign(*[assignment(f"server{number}", interval="10s") for number in range(10)])
    assert bench.begun == [0]
    bench.wait(SPREAD)
    assert len(bench.told) == 10


def test_so_many_at_once_and_no_more(bench: Bench) -> None:
    """Beyond some dozens they wait for each other, and all are asked."""
    bench.found = [(True, 1.0)] * 100
    bench.assign(*[assignment(f"server{number}") for number in range(100)])
    bench.wait(4)
    assert bench.most == MOST_AT_ONCE
    assert len(bench.told) == 100


# --- results -------------------------------------------------------------------------------------


def test_tells_what_was_found(bench: Bench) -> None:
    """A result has its member, its check, how long it took and when it was."""
    bench.found = [(False, 0.5)]
    bench.assign(assignment("server2", name="web"))
    bench.wait(0.9)
    (probed,) = bench.told
    assert probed[:4] == (("cluster", "http://server2", "server2"), "web", False, "seen")
    assert probed.took == pytest.approx(0.5, abs=0.051)
    assert probed.at > 0
    assert probed.certificate_ends == 5.0


# --- other assignments ---------------------------------------------------------------------------


def test_equal_checks_go_on_undisturbed(bench: Bench) -> None:
    """A reload neither asks at once whom it leaves as he was, nor forgets what is under way."""
    bench.found = [(True, 3.0)]
    bench.assign(assignment(interval="10s"))
    bench.wait(1)
    bench.assign(assignment(interval="10s"), assignment("server2", interval="10s"))
    bench.wait(12)
    assert bench.cancelled == 0
    assert bench.begun == [0, 1, 10, 11]


def test_changed_checks_begin_anew(bench: Bench) -> None:
    """Other settings of a check are in force at once, and what was under way is never told."""
    bench.found = [(False, 30.0)]
    bench.assign(assignment(interval="10s"))
    bench.wait(1)
    bench.assign(assignment(interval="5s"))
    bench.wait(11)
    assert bench.cancelled == 1
    assert bench.begun == [0, 1, 6, 11]
    assert all(probed.passed for probed in bench.told)


def test_other_files_are_another_check(bench: Bench) -> None:
    """A password that was changed is used from now on."""
    former = assignment()
    bench.assign(former)
    bench.wait(1)
    bench.assign(former._replace(files=CheckFiles("user", "other")))
    assert bench.begun == [0, 1]


def test_checks_that_are_gone_end(bench: Bench) -> None:
    """Nobody is asked any more of what no settings say."""
    bench.found = [(True, 30.0)]
    bench.assign(assignment())
    bench.assign()
    bench.wait(60)
    assert bench.begun == [0]
    assert bench.told == []
    assert bench.cancelled == 1


def test_stop_ends_what_is_under_way(bench: Bench) -> None:
    """All probes are cancelled, and waited for."""
    bench.found = [(True, 30.0)] * 2
    bench.assign(assignment(), assignment("server2"))
    bench.wait(SPREAD)
    ended = bench.loop.create_task(bench.prober.stop())
    bench.loop.settle()
    assert ended.done()
    assert bench.cancelled == 2


async def test_a_mistake_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A check that ends by a mistake of ours is no silence."""

    async def broken(*_: object) -> Result:
        raise ZeroDivisionError

    prober = Prober(lambda _: None, probe=broken)
    prober.assign([assignment()])
    for _ in range(1000):
        if "a check has ended" in caplog.text:
            break
        await asyncio.sleep(0.001)
    assert "a mistake in balanceme: a check has ended" in caplog.text
