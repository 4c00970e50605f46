"""How members stand: what the supervisor decided, taken from the board into a worker's objects.

Only what changed is taken, and each error once: it may be over here for a reason of our own (F7).
"""

import time

from proxy.control.decided import put_heirs, put_status
from proxy.control.scoreboard import MemberStatus, Scoreboard
from proxy.control.worker import Worker
from proxy.core.balancer import Balancer
from proxy.core.member import Member


class Standing:
    """The members of a worker, as its board has them."""

    def __init__(self, worker: Worker, board: Scoreboard) -> None:
        self._worker = worker
        self._board = board
        self._taken: list[MemberStatus | None] = [None] * board.members
        # the last error of each member that the supervisor knows of from us, or we from it
        self._errors: dict[Member, float] = {}
        # when each member last came back
        self._back: dict[Member, float] = {}

    def begin(self, board: Scoreboard) -> None:
        """Other settings have come into force, with a board of their own: all of it is taken."""
        members = set(self._worker.members)
        self._board = board
        self._errors = {each: t for each, t in self._errors.items() if each in members}
        self._back = {each: t for each, t in self._back.items() if each in members}
        self._taken = [None] * board.members
        self.take()

    def error_of(self, member: Member) -> float:
        """When traffic to a member last failed, here or as we were told."""
        return self._errors.get(member, 0)

    def in_error(self, member: Member) -> None:
        """Our own traffic has put a member in error."""
        self._errors[member] = member.error_since or 0

    def take(self) -> None:
        """Take what is new on the board, and what the time brings."""
        board, worker = self._board, self._worker
        if board.leaving is not worker.leaving:
            worker.leave(leaving=board.leaving)
        members = [
            (balancer, member)
            for balancer in worker.balancers.values()
            for member in balancer.members
        ]
        news = [
            (index, status)
            for index in range(len(members))
            if (status := board.status(index)) != self._taken[index]
        ]
        for index, status in news:
            self._taken[index] = status
            self._take(*members[index], status)
        if news:
            put_heirs((*each, taken) for each, taken in zip(members, self._taken, strict=True))
        now = time.monotonic()
        for balancer in worker.balancers.values():
            balancer.homes.clock_offset = time.time() - now
            balancer.rise(now)

    def _take(self, balancer: Balancer, member: Member, status: MemberStatus) -> None:
        put_status(balancer, member, status)
        since = status.error_since
        if since > self.error_of(member) and since >= status.recovered:
            self._errors[member] = status.error_since
            balancer.put_in_error(member, status.error_since)
        if status.back_since > self._back.get(member, 0):
            self._back[member] = status.back_since
            balancer.set_rising(member, status.back_since)
        self._worker.long_polls.empty(member, status.empty_by)

    def __repr__(self) -> str:
        return f"<Standing of {len(self._taken)} members>"
