"""How members stand: what the supervisor decided, taken from the board into a worker's objects.

Only what changed is taken, and each error once: it may be over here for a reason of our own (F7).
"""

import time
from collections.abc import Sequence

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
            self._take_heirs(members)
        now = time.monotonic()
        for balancer in worker.balancers.values():
            balancer.homes.clock_offset = time.time() - now
            balancer.rise(now)

    def _take(self, balancer: Balancer, member: Member, status: MemberStatus) -> None:
        if member.operator is not status.operator:
            balancer.set_operator_status(member, status.operator)
        if member.terms != status.terms:
            balancer.set_terms(member, status.terms)
        if member.verdict is not status.verdict:
            balancer.set_verdict(member, status.verdict)
        balancer.end_error(member, status.recovered)
        since = status.error_since
        if since > self.error_of(member) and since >= status.recovered:
            self._errors[member] = status.error_since
            balancer.put_in_error(member, status.error_since)
        if status.back_since > self._back.get(member, 0):
            self._back[member] = status.back_since
            balancer.set_rising(member, status.back_since)
        self._worker.long_polls.empty(member, status.empty_by)

    def _take_heirs(self, members: Sequence[tuple[Balancer, Member]]) -> None:
        """Whose sessions are taken over, in all balancers."""
        heirs: dict[Balancer, dict[bytes, bytes]] = {balancer: {} for balancer, _ in members}
        for (balancer, member), status in zip(members, self._taken, strict=True):
            if status is None or status.heir < 0 or member.route is None:
                continue
            heir = members[int(status.heir)][1].route
            if heir is not None:
                heirs[balancer][member.route] = heir
        for balancer, found in heirs.items():
            balancer.set_heirs(found)

    def __repr__(self) -> str:
        return f"<Standing of {len(self._taken)} members>"
