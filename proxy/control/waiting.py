"""How many requests wait for news on each member: phones, that nobody would see go elsewhere.

It is time that makes a request one of them, so that connections are looked at, some with each tick:
10,000 that all wait take 2 ms together, and are through after three ticks.
"""

from collections import Counter
from collections.abc import Collection

from proxy.core.member import Member
from proxy.dataplane.frontend_connection import FrontendConnection

# Connections to look at in one tick, well below 1 ms.
_AT_ONCE = 4000


class Waiting:
    """A worker's requests that wait for news."""

    __slots__ = ("_connections", "_found", "_left", "counts")

    def __init__(self, connections: Collection[FrontendConnection]) -> None:
        self._connections = connections
        self._left: list[FrontendConnection] = []
        self._found: Counter[Member] = Counter()
        # by member, as of the last time that all connections had been looked at
        self.counts: Counter[Member] = Counter()

    def tick(self, now: float) -> None:
        """Look at some connections, at monotonic ``now`` (D41)."""
        if not self._left:
            self._left, self._found = list(self._connections), Counter()
        some = self._left[-_AT_ONCE:]
        del self._left[-_AT_ONCE:]
        self._found.update(
            exchange.placement.member
            for connection in some
            if (exchange := connection.exchange) is not None and exchange.waits_for_news(now)
        )
        if not self._left:
            self.counts = self._found

    def __repr__(self) -> str:
        return f"<Waiting {self.counts.total()}>"
