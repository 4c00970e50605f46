"""Requests that no member can take now, until one can, or until their time is over (B16).

Whoever waits is looked at in order of arrival: with each sweep, when a member's status changes,
and when other settings come into force. What can be chosen is the core's to say, and what becomes
of a request is its exchange's; the room only knows who waits, and until when.
"""

from typing import TYPE_CHECKING

from proxy.dataplane.clock import Clock
from proxy.dataplane.deadlines import NEVER, Deadlines
from proxy.dataplane.notices import Notice

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange

# How many requests wait in one worker; each holds its client's connection, and up to a read of its
# body. Those beyond are answered at once. Precedents: nginx 100 by example, HAProxy maxconn.
MOST = 1000


class WaitingRoom:
    """The requests of one worker that wait for a member."""

    __slots__ = ("_clock", "_deadlines", "_latest", "_until", "deadline", "notice")

    def __init__(self, clock: Clock, deadlines: Deadlines) -> None:
        self._clock = clock
        self._deadlines = deadlines
        # Due with each sweep; it is swept while somebody waits.
        self.deadline = 0.0
        # until when each one waits, the one that came first first; monotonic seconds
        self._until: dict[Exchange, float] = {}
        self._latest = NEVER
        # what is said of those beyond
        self.notice = Notice("requests got 503 at once: %d wait for a member already", MOST)

    def enter(self, exchange: "Exchange", timeout: float) -> bool:
        """Let ``exchange`` wait for at most ``timeout`` seconds; False if it may not."""
        until = min(self._clock.monotonic() + timeout, self._latest)
        if until <= self._clock.monotonic():
            return False
        if len(self._until) >= MOST:
            self.notice.happened()
            return False
        self._deadlines.add(self)
        self._until[exchange] = until
        return True

    def leave(self, exchange: "Exchange") -> None:
        """The exchange waits no longer, whatever has become of it."""
        self._until.pop(exchange, None)
        if not self._until:
            self._deadlines.discard(self)

    def expired(self, now: float) -> None:
        """With each sweep: somebody's time may be over, and so may a member's error."""
        self.look()

    def look(self) -> None:
        """A member's status may have changed: let each try again."""
        now = self._clock.monotonic()
        for exchange, until in list(self._until.items()):
            # What came of the ones before may have ended this one's wait.
            if exchange in self._until:
                exchange.try_again(now, last=now >= until)

    def settings_changed(self) -> None:
        """Other settings are in force, and with them maybe other members: ask anew."""
        for exchange in list(self._until):
            if exchange in self._until:
                exchange.place_again()

    def close(self, latest: float) -> None:
        """Nobody waits beyond ``latest``: the worker stops."""
        self._latest = min(self._latest, latest)
        for exchange, until in self._until.items():
            self._until[exchange] = min(until, self._latest)

    def __len__(self) -> int:
        return len(self._until)

    def __repr__(self) -> str:
        return f"<WaitingRoom {len(self)} of {MOST}>"
