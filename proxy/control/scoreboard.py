"""Shared memory between the supervisor and its workers: counters up, status down.

One writer a cell: the supervisor writes the members' status, each worker its own row. A cell is an
aligned number of eight bytes, so that it is read whole; what belongs together in several cells may
be read half old and half new, which costs a second of accuracy and nothing else. Nobody waits for
anybody here. Each generation has a board of its own, since its members are others.
"""

import mmap
import os
from collections.abc import Sequence
from typing import NamedTuple

from proxy.core.health import Verdict
from proxy.core.member import Terms
from proxy.core.settings import OperatorStatus

# A whole number as a double is exact up to 2 ** 53.
CELL = 8
_OPERATOR = list(OperatorStatus)
_VERDICT = list(Verdict)


class MemberStatus(NamedTuple):
    """What the supervisor decided of a member.

    Times are monotonic ones, which all processes of a machine share; 0 for never.
    """

    operator: OperatorStatus
    verdict: Verdict = Verdict.PASSED
    # when traffic last failed, and until when such errors are over since its checks passed
    error_since: float = 0
    recovered: float = 0
    # the place of the member that has taken its sessions over; -1 for none
    heir: float = -1
    # when it came back
    back_since: float = 0
    load_factor: float = 1
    lbset: float = 0
    hot_standby: float = 0
    hot_spare: float = 0
    # until when those who wait for news there have to be sent away
    empty_by: float = 0

    @property
    def terms(self) -> Terms:
        """How it is elected."""
        return Terms(
            self.load_factor, int(self.lbset), bool(self.hot_standby), bool(self.hot_spare)
        )


class MemberCounters(NamedTuple):
    """What one worker counted of a member; ``error_since`` as above, seen by this worker.

    ``waiting`` are those of the busy ones that wait for news, as a Ping does.
    """

    busy: float = 0
    elected: float = 0
    sent: float = 0
    received: float = 0
    error_since: float = 0
    waiting: float = 0

    def plus(self, other: "MemberCounters") -> "MemberCounters":
        """The counts of two workers together; the later of their errors."""
        return MemberCounters(
            self.busy + other.busy,
            self.elected + other.elected,
            self.sent + other.sent,
            self.received + other.received,
            max(self.error_since, other.error_since),
            self.waiting + other.waiting,
        )


class WorkerCounters(NamedTuple):
    """What a worker says of itself; ``heartbeat`` is the monotonic time at which it did."""

    heartbeat: float = 0
    generation: float = 0
    connections: float = 0
    exchanges: float = 0


_LEAVING = 0
_HEADER = 1
_STATUS = len(MemberStatus._fields)
_MEMBER = len(MemberCounters._fields)
_WORKER = len(WorkerCounters._fields)
_CONNECTIONS = WorkerCounters._fields.index("connections")


class Scoreboard:
    """The board of one generation, for so many members and workers."""

    __slots__ = ("_cells", "_memory", "_row", "_rows", "file", "members", "workers")

    def __init__(self, members: int, workers: int, file: int | None = None) -> None:
        """A new board, or with ``file`` the view of one that was made by another process."""
        self.members = members
        self.workers = workers
        self._rows = _HEADER + _STATUS * members
        self._row = _WORKER + _MEMBER * members
        size = CELL * (self._rows + self._row * workers)
        if file is None:
            file = os.memfd_create("balanceme-scoreboard")
            os.truncate(file, size)
        # to be handed to other processes
        self.file = file
        self._memory = mmap.mmap(file, size)
        self._cells = memoryview(self._memory).cast("d")

    # --- written by the supervisor -----------------------------------------------------------

    @property
    def leaving(self) -> bool:
        """Whether those before us shall take us out."""
        return bool(self._cells[_LEAVING])

    @leaving.setter
    def leaving(self, leaving: bool) -> None:
        self._cells[_LEAVING] = leaving

    def status(self, member: int) -> MemberStatus:
        """The status of a member, by its place in the settings."""
        at = _HEADER + _STATUS * member
        operator, verdict, *rest = self._cells[at : at + _STATUS]
        return MemberStatus(_OPERATOR[int(operator)], _VERDICT[int(verdict)], *rest)

    def set_status(self, member: int, status: MemberStatus) -> None:
        """Write it."""
        operator, verdict, *rest = status
        at = _HEADER + _STATUS * member
        self._write(at, (_OPERATOR.index(operator), _VERDICT.index(verdict), *rest))

    # --- written by a worker ------------------------------------------------------------------

    def worker(self, worker: int) -> WorkerCounters:
        """What a worker said of itself."""
        at = self._rows + self._row * worker
        return WorkerCounters(*self._cells[at : at + _WORKER])

    def set_worker(self, worker: int, counters: WorkerCounters) -> None:
        """Write it."""
        self._write(self._rows + self._row * worker, counters)

    def counters(self, worker: int, member: int) -> MemberCounters:
        """What a worker counted of a member."""
        at = self._rows + self._row * worker + _WORKER + _MEMBER * member
        return MemberCounters(*self._cells[at : at + _MEMBER])

    def set_counters(self, worker: int, member: int, counters: MemberCounters) -> None:
        """Write it."""
        self._write(self._rows + self._row * worker + _WORKER + _MEMBER * member, counters)

    def set_connections(self, worker: int, connections: int) -> None:
        """Write how many clients a worker has, between two times that it says all of itself."""
        self._cells[self._rows + self._row * worker + _CONNECTIONS] = connections

    def fewest_connections(self, alive_since: float) -> float:
        """How many clients the worker has that has the fewest, of those with a heartbeat since."""
        cells, row, first = self._cells, self._row, self._rows
        return min(
            (
                cells[at + _CONNECTIONS]
                for at in range(first, first + row * self.workers, row)
                if cells[at] >= alive_since
            ),
            default=0,
        )

    def clear(self, worker: int) -> None:
        """Empty the row of a worker that is gone."""
        self._write(self._rows + self._row * worker, [0.0] * self._row)

    def _write(self, at: int, values: Sequence[float]) -> None:
        cells = self._cells
        for offset, value in enumerate(values):
            cells[at + offset] = value

    def close(self) -> None:
        """Let go of the memory."""
        self._cells.release()
        self._memory.close()
        os.close(self.file)

    def __repr__(self) -> str:
        return f"<Scoreboard {self.members} members, {self.workers} workers>"
