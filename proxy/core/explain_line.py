"""The line X-Balanceme, which tells a trusted client how its member was chosen (explain_to).

It holds nothing that a client or a member sent: a route is named only if a configured member has
it. A member's own line of that name is taken out where ours is written, so that it can't speak for
us, and is passed on untouched elsewhere.
"""

import re

from proxy.core.placement import Placement

_LINES = re.compile(rb"^X-Balanceme:[^\r\n]*\r\n", re.IGNORECASE | re.MULTILINE)
# Of a request that concerns no member.
NO_PLACEMENT = b'X-Balanceme: member=- route=- session=- reason="-" attempts=0\r\n'


def explain_line(placement: Placement) -> bytes:
    """The whole line for a request that was mapped."""
    choice = placement.choice
    member = "-" if choice.member is None else choice.member.name
    return (
        f"X-Balanceme: member={member} route={_route(placement)} session={choice.session.word}"
        f' reason="{choice.reason.value}" attempts={placement.attempts}\r\n'
    ).encode()


def with_line(head: bytes, line: bytes) -> bytes:
    """A whole head with our line instead of a member's."""
    start, end, rest = head.partition(b"\r\n")
    return start + end + line + without_line(rest)


def without_line(lines: bytes) -> bytes:
    """Whole field lines without a member's own of that name."""
    return _LINES.sub(b"", lines)


def _route(placement: Placement) -> str:
    """The route that was asked for, if a member has it."""
    balancer, asked = placement.mapping.balancer, placement.choice.session_route
    if asked is None:
        return "-"
    away = balancer.homes.read(asked)
    route = asked if away is None else away.route
    routes = (member.settings.route for member in balancer.members if member.route == route)
    return next(routes, None) or "-"
