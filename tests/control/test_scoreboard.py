"""The shared memory between supervisor and workers, also seen by another process."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.control.scoreboard import (
    CELL,
    MemberCounters,
    MemberStatus,
    Scoreboard,
    WorkerCounters,
)
from proxy.core.health import Verdict
from proxy.core.settings import OperatorStatus

# A child of these tests does little, and ends; Python 3.12 warns where other tests left threads.
pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)

ENABLED = MemberStatus(OperatorStatus.ENABLED, Verdict.PASSED, *[0.0] * 9)
MEMBERS, WORKERS = 3, 2


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    """A board for three members and two workers."""
    made = Scoreboard(MEMBERS, WORKERS)
    yield made
    made.close()


def content(board: Scoreboard) -> list[Any]:
    """All that a board says."""
    return [
        board.leaving,
        *(board.status(member) for member in range(board.members)),
        *(board.worker(worker) for worker in range(board.workers)),
        *(
            board.counters(worker, member)
            for worker in range(board.workers)
            for member in range(board.members)
        ),
    ]


def leave(board: Scoreboard) -> None:
    """Let those before us know."""
    board.leaving = True


STATUS = MemberStatus(OperatorStatus.DRAIN, Verdict.FENCED, 4.5, 5.5, 1, 6.5, 2.5, 3, 1, 0, 7.5)
COUNTERS = MemberCounters(1, 2, 3, 4, 5.5, 6)
# Everything that can be written to the board, in the order of ``content``.
WRITERS: dict[str, Callable[[Scoreboard], object]] = {
    "leaving": leave,
    **{
        f"status {member}": partial(Scoreboard.set_status, member=member, status=STATUS)
        for member in range(MEMBERS)
    },
    **{
        f"worker {worker}": partial(
            Scoreboard.set_worker, worker=worker, counters=WorkerCounters(1.5, 2, 3, 4)
        )
        for worker in range(WORKERS)
    },
    **{
        f"counters {worker} {member}": partial(
            Scoreboard.set_counters, worker=worker, member=member, counters=COUNTERS
        )
        for worker in range(WORKERS)
        for member in range(MEMBERS)
    },
}


def test_empty(board: Scoreboard) -> None:
    """A new board says that nothing has happened, and that all members are enabled."""
    assert content(board) == [
        False,
        *[ENABLED] * MEMBERS,
        *[WorkerCounters()] * WORKERS,
        *[MemberCounters()] * (WORKERS * MEMBERS),
    ]
    assert repr(board) == "<Scoreboard 3 members, 2 workers>"


@pytest.mark.parametrize("name", WRITERS)
def test_each_thing_has_its_own_cells(board: Scoreboard, name: str) -> None:
    """What is written changes that and nothing else, wherever it stands."""
    before = content(board)
    WRITERS[name](board)
    changed = [now != then for now, then in zip(content(board), before, strict=True)]
    assert changed == [each == name for each in WRITERS]


@pytest.mark.parametrize(("members", "workers"), [(0, 1), (1, 1), (1, 64), (200, 8)])
def test_layout(members: int, workers: int) -> None:
    """All cells are used, each once, and the file ends with the last one."""
    board = Scoreboard(members, workers)
    try:
        board.leaving = True
        for member in range(members):
            board.set_status(member, MemberStatus(OperatorStatus.STOPPED, Verdict.FAILED, *[1] * 9))
        for worker in range(workers):
            board.set_worker(worker, WorkerCounters(1, 1, 1, 1))
            for member in range(members):
                board.set_counters(worker, member, MemberCounters(1, 1, 1, 1, 1, 1))
        assert 0 not in board._cells
        assert os.fstat(board.file).st_size == CELL * len(board._cells)
    finally:
        board.close()


def test_out_of_bounds(board: Scoreboard) -> None:
    """A row beyond the last worker's is an error, and nobody else's."""
    before = content(board)
    with pytest.raises(IndexError):
        board.set_worker(WORKERS, WorkerCounters(1, 1, 1, 1))
    assert content(board) == before


@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from(OperatorStatus),
    st.sampled_from(Verdict),
    st.floats(0, allow_infinity=False),
    st.tuples(*[st.integers(0, 2**53)] * 4),
)
def test_reads_what_was_written(
    board: Scoreboard,
    operator: OperatorStatus,
    verdict: Verdict,
    since: float,
    counts: tuple[int, ...],
) -> None:
    """Every status comes back as it was, and whole numbers exactly, up to 2 ** 53."""
    status = MemberStatus(operator, verdict, since)
    board.set_status(1, status)
    assert board.status(1) == status
    assert board.status(1).operator is operator
    board.set_counters(1, 1, MemberCounters(*map(float, counts))._replace(error_since=since))
    assert board.counters(1, 1) == (*counts, since, 0)
    board.set_worker(0, WorkerCounters(since, *counts[1:]))
    assert board.worker(0) == (since, *counts[1:])


def test_leaving_is_taken_back(board: Scoreboard) -> None:
    """Leaving is said, and unsaid."""
    board.leaving = True
    assert board.leaving is True
    board.leaving = False
    assert board.leaving is False


def test_counts_together() -> None:
    """Two workers' counts are added; of their errors the later one counts (F1)."""
    together = MemberCounters(1, 2, 3, 4, 5.5, 6).plus(MemberCounters(10, 20, 30, 40, 1.5, 60))
    assert together == MemberCounters(11, 22, 33, 44, 5.5, 66)
    assert MemberCounters().plus(together) == together


# --- who has the fewest clients -------------------------------------------------------------------


def test_fewest_connections() -> None:
    """Who has the fewest clients counts, but not who shows no sign of life."""
    board = Scoreboard(1, 3)
    try:
        for worker, (heartbeat, connections) in enumerate([(100.0, 7), (50.0, 1), (101.0, 9)]):
            board.set_worker(worker, WorkerCounters(heartbeat, 1, connections))
        assert board.fewest_connections(100.0) == 7
        assert board.fewest_connections(50.0) == 1
        assert board.fewest_connections(100.5) == 9
        assert board.fewest_connections(200.0) == 0  # then nobody has less than any other
        board.set_connections(0, 11)
        assert board.worker(0) == WorkerCounters(100.0, 1, 11)
        assert board.fewest_connections(100.0) == 9
    finally:
        board.close()


def test_clear(board: Scoreboard) -> None:
    """The row of a worker that is gone is empty for the next one; no other cell changes."""
    for write in WRITERS.values():
        write(board)
    before = content(board)
    board.clear(0)
    empty = {"worker 0", *(f"counters 0 {member}" for member in range(MEMBERS))}
    for name, now, then in zip(WRITERS, content(board), before, strict=True):
        assert now == (type(then)() if name in empty else then), name


# --- other processes -----------------------------------------------------------------------------


def test_seen_by_another_process(board: Scoreboard) -> None:
    """A forked worker and the supervisor see what the other one writes, at once."""
    board.set_status(2, MemberStatus(OperatorStatus.DRAIN, Verdict.FAILED, 1.5))
    ours, theirs = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.read(ours, 1)
            elected = int(board.leaving) + [*OperatorStatus].index(board.status(2).operator)
            board.set_counters(1, 2, MemberCounters(elected=elected))
        finally:
            os._exit(0)
    board.leaving = True
    os.write(theirs, b"x")
    os.waitpid(process, 0)
    os.close(ours)
    os.close(theirs)
    assert board.counters(1, 2).elected == 1 + [*OperatorStatus].index(OperatorStatus.DRAIN)


def test_seen_through_its_file(board: Scoreboard) -> None:
    """Who is handed the file sees the same board, and goes on when the others let go of it."""
    for write in WRITERS.values():
        write(board)
    seen = Scoreboard(MEMBERS, WORKERS, os.dup(board.file))
    assert content(seen) == content(board)
    seen.set_worker(0, WorkerCounters(9, 9, 9, 9))
    assert board.worker(0) == (9, 9, 9, 9)
    before = content(board)
    seen.close()
    assert content(board) == before


def test_close_leaves_nothing_open() -> None:
    """Neither file nor memory is left of a board that was closed."""
    before = len([*Path("/proc/self/fd").iterdir()])
    maps = Path("/proc/self/maps").read_text().count("balanceme-scoreboard")
    board = Scoreboard(2, 2)
    assert Path("/proc/self/maps").read_text().count("balanceme-scoreboard") == maps + 1
    board.close()
    assert len([*Path("/proc/self/fd").iterdir()]) == before
    assert Path("/proc/self/maps").read_text().count("balanceme-scoreboard") == maps
