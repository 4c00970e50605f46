"""Sessions that were taken over, and how they come home: their home travels in their cookie.

After a takeover of server2 by server1 the cookie says ``balancer@server2.server1``: the home stands
in front of the separator, where nobody looks for a route, so that other frontends, and other
programs, lead the session to server1 all the same. ``failback: return`` sends it home with the
first request after its member is back; ``expire`` when the cookie of that time would have run out,
``balancer@server2@1764000000.server1``. With ``stay`` cookies remember nothing, and what they
remember is passed over.
"""

from typing import NamedTuple

from proxy.core.sessions import live_for
from proxy.core.settings import Balancer, Failback

# Stands before a session's home in its cookie, and before the second until which it stays away.
AWAY = b"@"


class Away(NamedTuple):
    """A session that was taken over: where it belongs, and until when (since 1970) it stays."""

    home: bytes
    until: int | None
    route: bytes


def away_token(away: Away, separator: bytes) -> bytes:
    """What the cookie has behind its prefix, such as ``@server2@1764000000.server1``."""
    home = away.home
    for sign in (b"%", separator):
        home = home.replace(sign, b"%%%02X" % sign[0])
    until = b"" if away.until is None else b"@%d" % away.until
    return AWAY + home + until + separator + away.route


def read_away(token: bytes, separator: bytes) -> Away | None:
    """What a token says; None for a plain route. A token that makes no sense says its route."""
    if not token.startswith(AWAY):
        return None
    before, _, route = token[1:].partition(separator)
    home, _, until = before.partition(AWAY)
    for sign in (separator, b"%"):
        home = home.replace(b"%%%02X" % sign[0], sign)
    return Away(home, int(until) if until.isdigit() and len(until) < 16 else None, route)


class Homes:
    """What a balancer's cookies remember, and when they are obeyed."""

    __slots__ = ("_failback", "_lifetime", "_separator", "clock_offset")

    def __init__(self, settings: Balancer, *, apache: bool = False) -> None:
        """``apache``: its cookies remember nothing."""
        self._failback = Failback.STAY if apache else settings.failback
        self._lifetime = live_for(settings)
        self._separator = settings.sticky_separator.encode()
        # from monotonic times to seconds since 1970; whoever has a clock keeps it
        self.clock_offset = 0.0

    @property
    def remember(self) -> bool:
        """Whether sessions have a home at all."""
        return self._failback is not Failback.STAY

    def read(self, asked: bytes) -> Away | None:
        """What a session says that is away; None for a plain route."""
        return read_away(asked, self._separator)

    def token(self, home: bytes, route: bytes, now: float) -> bytes:
        """What the cookie says of a session that is at ``route`` while its home is away."""
        until = None
        if self._failback is Failback.EXPIRE:
            until = int(now + self.clock_offset + self._lifetime)
        return away_token(Away(home, until, route), self._separator)

    def kept(self, away: Away, route: bytes) -> bytes:
        """What the cookie goes on to say of a session that is at ``route``."""
        return away_token(away._replace(route=route), self._separator)

    def is_due(self, away: Away, now: float) -> bool:
        """Whether a session goes home whose home is back, with cookies that remember it."""
        return away.until is None or now + self.clock_offset >= away.until

    def __repr__(self) -> str:
        return f"<Homes {self._failback.value}>"
