"""Sending away who waits for news: evenly over a time, lest all phones come back at once (D41).

Of the requests that wait as a Ping does, so many are ended at each look that what is left of them
falls with what is left of the time. Ending one is safe: the device asks again (D42, D68).
"""

from collections.abc import Collection

from proxy.core.member import Member
from proxy.dataplane.clock import Clock
from proxy.dataplane.frontend_connection import FrontendConnection


class LongPolls:
    """A worker's waiting requests, and until when those of some members must end."""

    __slots__ = ("_clock", "_connections", "_emptying", "_most")

    def __init__(self, connections: Collection[FrontendConnection], clock: Clock) -> None:
        self._connections = connections
        self._clock = clock
        # members that are to be empty: since when and until when, monotonic
        self._emptying: dict[Member, tuple[float, float]] = {}
        # how many there were at most, of each member that is emptied, or of all for None
        self._most: dict[Member | None, int] = {}

    def empty(self, member: Member, by: float) -> None:
        """Send away who waits on ``member`` until ``by``, and who does later; 0 for nobody."""
        if self._emptying.get(member, (0.0, 0.0))[1] != by:
            self._emptying.pop(member, None)
            self._most.pop(member, None)
            if by:
                self._emptying[member] = (self._clock.monotonic(), by)

    def tick(self) -> None:
        """With each sweep: some of those who wait on members that are to be empty."""
        now = self._clock.monotonic()
        for member, (since, by) in self._emptying.items():
            if member.busy:  # one that is empty stays in the list for as long as it is drained
                share = max(by - now, 0.0) / max(by - since, 0.001)
                self.end_some(share, member)

    def end_some(self, share: float, member: Member | None = None) -> None:
        """Let no more wait than this share of those who did at most, on a member or on all."""
        now = self._clock.monotonic()
        waiting = [
            connection
            for connection in self._connections
            if connection.exchange is not None
            and connection.exchange.waits_for_news(now)
            and (member is None or connection.exchange.placement.member is member)
        ]
        most = max(self._most.get(member, 0), len(waiting))
        self._most[member] = most
        for connection in waiting[int(most * share) :]:
            connection.send_away()

    def __repr__(self) -> str:
        return f"<LongPolls {self._emptying}>"
