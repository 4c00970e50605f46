"""The sentences of an explanation about one balancer: its session, its members, its choice.

Nothing is decided here: each takes a value that the balancer or its parts gave, and names the
setting that made it so. Whatever a client sent is quoted and cut.
"""

from collections.abc import Iterator, Mapping
from email.utils import formatdate
from typing import NamedTuple

from proxy.core.balancer import Balancer
from proxy.core.choice import Choice, Reason, Session
from proxy.core.failback import Away
from proxy.core.health import Verdict
from proxy.core.lbmethods import candidates_of, lbsets_of
from proxy.core.member import Member
from proxy.core.placement import Placement
from proxy.core.raw import printable, shown
from proxy.core.settings import FirstRequest, OperatorStatus
from proxy.core.sticky import Sighting
from proxy.core.takeover import Origin, Said, Takeover


class Remarks(NamedTuple):
    """What people and checks said of a member."""

    # of its operator status, where that isn't what the file says
    said: Said | None = None
    fenced: Said | None = None
    # which checks fail, and what they said
    reason: str = ""


def as_text(value: bytes) -> str:
    """Bytes of a request as a key among the settings' texts."""
    return value.decode("ascii", "backslashreplace")


def in_words(value: bytes) -> str:
    """Bytes of a request or of the settings in one line, cut if they are long."""
    return printable(as_text(value))


def _quoted(value: bytes) -> str:
    return shown(as_text(value))


def _by(said: Said) -> str:
    """``by root on Tue, 24 Nov 2026 14:00:00 GMT: kernel update``."""
    why = f": {printable(said.why)}" if said.why else ""
    return f"by {printable(said.by)} on {formatdate(said.at, usegmt=True)}{why}"


# --- the session -------------------------------------------------------------------------------


def session_steps(
    balancer: Balancer, target: bytes, cookie: bytes | None, takeovers: Mapping[str, Takeover]
) -> Iterator[str]:
    """Where a session route was looked for, what it was, and who has taken over from it.

    ``takeovers`` are those that the balancer follows.
    """
    if balancer.sticky is None:
        yield "no sticky_session: no session sticks to a member, each request is elected one"
        return
    sighting = balancer.sticky.look(target, cookie)
    yield _sighting(balancer, sighting, cookie)
    if sighting.route is None:
        return
    away = balancer.homes.read(sighting.route)
    if away is not None:
        yield _away(balancer, away)
    route = as_text(sighting.route if away is None else away.route)
    for gone in _gone(route, takeovers):
        yield f"{gone}: {_taken_over(takeovers[gone])}"


def _gone(route: str, takeovers: Mapping[str, Takeover]) -> Iterator[str]:
    """The routes along a chain of takeovers, but for its end."""
    while route in takeovers:
        yield route
        route = takeovers[route].heir


def _sighting(balancer: Balancer, found: Sighting, cookie: bytes | None) -> str:
    name, _, parameter = (balancer.settings.sticky_session or "").partition("|")
    parameter = parameter or name
    if found.value is None:
        no_cookie = "no cookie at all" if cookie is None else f"no cookie {name} with a value"
        return f"no session route: the URL has no parameter {parameter}, the request {no_cookie}"
    place = f"URL parameter {parameter}" if found.in_url else f"cookie {name}"
    text = f"{place} is {_quoted(found.value)}"
    if found.in_url and cookie is not None:
        text += ", and counts before cookies"
    if found.forged:
        return f"{text}: its signature is not valid, so it asks for no route"
    separator = balancer.settings.sticky_separator
    if found.route is None:
        return f"{text}: without a route behind a {shown(separator)} it asks for none"
    behind = "all of it" if separator == "off" else f"behind the first {shown(separator)}"
    signed = ", and its signature is valid" if balancer.sticky and balancer.sticky.signed else ""
    if balancer.homes.read(found.route) is None:
        return f"{text}: it asks for route {in_words(found.route)}, {behind}{signed}"
    return f"{text}: it is the session of a member that another one took over from{signed}"


def _away(balancer: Balancer, away: Away) -> str:
    text = f"its home is {in_words(away.home)}, and it is at {in_words(away.route)}"
    if not balancer.homes.remember:
        return f"{text}; homes are passed over (failback is stay)"
    text += f"; failback: {balancer.settings.failback.value}"
    if away.until is None:
        return f"{text} takes it home as soon as that is back"
    until = formatdate(min(away.until, _LATEST), usegmt=True)
    return f"{text} takes it home after {until}, once that is back"


# The last second that has a date.
_LATEST = 253402300799


def _taken_over(takeover: Takeover) -> str:
    text = f"{takeover.heir} has taken over its sessions"
    if takeover.origin is Origin.CONFIGURATION:
        return f"{text} (failover in the configuration)"
    if takeover.origin is Origin.OPERATOR:
        return f"{text}, said {_by(takeover.said)}"
    return f"{text}, said {_by(takeover.said)} ({takeover.origin.value})"


# --- the members -------------------------------------------------------------------------------

_OPERATOR = {
    OperatorStatus.DRAIN: "drained",
    OperatorStatus.DISABLED: "disabled",
    OperatorStatus.STOPPED: "stopped",
}


def member_step(
    balancer: Balancer, member: Member, now: float, remarks: Remarks, taken: Takeover | None
) -> str:
    """How a member stands, and what it takes as it does; ``taken``: who takes it instead."""
    states = list(_states(member, now, remarks))
    if len({each.lbset for each in balancer.members}) > 1:
        states.append(f"of lbset {member.lbset}")
    if taken is not None:
        states.append(_taken_over(taken))
    if member.usable(now) and taken is None:
        new = balancer.electable(member, now)
        takes = f"its own sessions and new ones{_role(member)}" if new else "its own sessions only"
        if member.route is None:
            takes = "new sessions; without a route it keeps none"
    else:
        takes = "nothing"
    return f"member {member.name}: {'; '.join([*states, f'takes {takes}'])}"


def _role(member: Member) -> str:
    if member.hot_standby:
        return " when nobody else can"
    return " in the place of one that can't" if member.hot_spare else ""


def _states(member: Member, now: float, remarks: Remarks) -> Iterator[str]:
    if member.operator is not OperatorStatus.ENABLED:
        said = " by the configuration" if remarks.said is None else f" {_by(remarks.said)}"
        yield _OPERATOR[member.operator] + said
    if member.verdict is Verdict.FENCED and remarks.fenced is not None:
        yield f"fenced {_by(remarks.fenced)}"
    elif member.verdict is not Verdict.PASSED:
        why = f" ({printable(remarks.reason)})" if remarks.reason else ""
        yield f"{member.verdict.value}{why}"
    if member.error_since is not None and member.in_error(now):
        left = member.retry_after - (now - member.error_since)
        yield f"in error for {left:.0f} s more (retry_after {member.retry_after:g} s)"
    if member.hot_spare or member.hot_standby:
        yield "a hot spare" if member.hot_spare else "a hot standby"


# --- the choice --------------------------------------------------------------------------------

_ELECTED = (Reason.ELECTED, Reason.UNUSABLE)
_CHOSEN = {
    Reason.KEPT: "{member} has that route and can be used: the session stays with it",
    Reason.OWN_ROUTE: "{member} is own_route, which takes new sessions (session_cookie.assign)",
    Reason.TAKEOVER: "{member} has taken over and can be used: the session moves there",
    Reason.REDIRECT: "{own} can't be used, and redirect_route leads to {member}:"
    " the session moves there",
    Reason.TAKER: "{own} can't be used, and takeover leads to {member}: the session moves there",
    Reason.FAILBACK: "{member} is its home and is back: the session returns there (failback)",
    Reason.AWAY: "its home can't have it yet: the session stays with {member}",
    Reason.OPERATOR: "the operator moves the session to {member}",
    Reason.UNUSABLE: "{own} can't be used: another one is elected, to which the session moves",
    Reason.NO_FAILOVER: "{own} can't be used, and it goes to no other one (no_failover)",
    Reason.NOBODY: "no member can be used",
}


def candidates(balancer: Balancer, choice: Choice, now: float) -> tuple[Member, ...]:
    """Among whom the chosen member was elected, if it was."""
    if choice.member is None or choice.reason not in _ELECTED:
        return ()
    lbsets = lbsets_of(balancer.members)
    return tuple(candidates_of(lbsets, balancer.electable, now, ()))


def choice_steps(
    balancer: Balancer,
    choice: Choice,
    elected: tuple[Member, ...],
    takeovers: Mapping[str, Takeover],
) -> Iterator[str]:
    """What was chosen and why; ``elected`` are those among whom there was an election."""
    own = as_text(choice.session_route or b"")
    for gone in _gone(own, takeovers):
        own = takeovers[gone].heir
    if choice.session is Session.UNKNOWN and choice.session_route is not None:
        yield f"no member has the route {in_words(choice.session_route)}: it is as good as none"
    if choice.reason is Reason.ELECTED:
        yield _why_elected(balancer)
    else:
        member = "" if choice.member is None else choice.member.name
        yield _CHOSEN.get(choice.reason, f"{{member}}: {choice.reason.value}").format(
            member=member, own=own
        )
    if elected:
        yield _election(balancer, elected)


def _why_elected(balancer: Balancer) -> str:
    cookie = balancer.settings.session_cookie
    if cookie is None or cookie.own_route is None:
        return "a member is elected"
    if cookie.first_request is FirstRequest.ELECT:
        return "a member is elected, whoever own_route is (session_cookie.first_request)"
    return f"own_route {cookie.own_route} can't take it: a member is elected"


def _election(balancer: Balancer, elected: tuple[Member, ...]) -> str:
    names = ", ".join(
        f"{member.name} (load factor {member.terms.load_factor:g})" for member in elected
    )
    text = f"{names}: the only one that can be elected"
    if len(elected) > 1:
        method = balancer.settings.lbmethod.value
        text = f"{names}: {method} elects one of them, each worker by its own counts"
    if len({member.lbset for member in balancer.members}) > 1:
        text += f"; lbset {elected[0].lbset} is the lowest with anybody"
    if elected[0].hot_standby:
        text += "; a hot standby, since nobody else can be"
    return text


# --- the cookie --------------------------------------------------------------------------------


def cookie_step(balancer: Balancer, cookie: bytes | None, placement: Placement, line: bytes) -> str:
    """Why the response sets the session cookie or doesn't; ``line`` is what it sets."""
    if balancer.session_cookie is None:
        return "no session_cookie: balanceme sets none"
    if balancer.rules is not None:
        return _rewrite_rule(balancer, cookie)
    choice = placement.choice
    if line:
        verb = "prolongs" if choice.session is Session.KEPT else "sets"
        return f"the response {verb} the cookie, for route {in_words(choice.cookie_route or b'')}"
    if choice.member is None:
        return "nobody serves: the cookie stays as it is"
    if choice.member.route is None:
        return f"{choice.member.name} has no route: no cookie is set"
    return "the cookie isn't prolonged: session_cookie.renew is own, and it isn't own_route's"


def _rewrite_rule(balancer: Balancer, cookie: bytes | None) -> str:
    rule = None if balancer.rules is None else balancer.rules.rule(cookie)
    if rule is None:
        return "rewrite rules: none fires for this Cookie field, no cookie is set"
    route = in_words(rule.route)
    if rule.pattern is None:
        name = (balancer.settings.sticky_session or "").partition("|")[0]
        return f"rewrite rules: the Cookie field doesn't name {name}: own_route {route} is set"
    return f"rewrite rules: {in_words(rule.pattern.pattern)} is in the Cookie field: {route} is set"
