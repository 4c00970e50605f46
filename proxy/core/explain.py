"""Why a request goes to its member, in words.

The decision itself is made here as everywhere, by ``mapping``, ``placement`` and ``balancer``;
around it stand sentences about what these objects say, each naming the setting or the rule that
applied. Nothing is decided twice. The balancers must have been made for one explanation alone,
since to choose is to change their counts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from proxy.core.balancer import Balancer
from proxy.core.choice import Choice
from proxy.core.errors import ClientError
from proxy.core.explain_choice import (
    Remarks,
    candidates,
    choice_steps,
    cookie_step,
    in_words,
    member_step,
    session_steps,
)
from proxy.core.heads import RequestHead
from proxy.core.mapping import Mapping as CoreMapping
from proxy.core.mapping import MappingTable, Target, read_target
from proxy.core.member import Member
from proxy.core.own_answers import health, redirect_to_https, unavailable
from proxy.core.placement import Placement
from proxy.core.sessions import read_session
from proxy.core.takeover import Takeover


class Asked(NamedTuple):
    """A request, as far as its member depends on it; it is explained as a GET without a body."""

    # path and query
    target: bytes
    host: bytes | None = None
    cookie: bytes | None = None

    def head(self) -> RequestHead:
        """Raises ClientError for what no frontend would take."""
        lines = b"" if self.cookie is None else b"Cookie: %b\r\n" % self.cookie
        # Only HTTP/1.0 knows requests without a host.
        if self.host is None:
            return RequestHead(b"GET %b HTTP/1.0\r\n%b\r\n" % (self.target, lines))
        return RequestHead(
            b"GET %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (self.target, self.host, lines)
        )


@dataclass(frozen=True)
class Entrance:
    """A frontend as its requests find it."""

    listen: str
    mappings: MappingTable
    tls: bool = False
    apache: bool = False
    server_name: str = ""
    health_path: bytes | None = None
    leaving: bool = False
    redirect_port: int | None = None


@dataclass(frozen=True)
class Known:
    """What was said of members, which the balancers don't know, and what time it is."""

    # monotonic, and since 1970
    now: float
    second: int
    # by balancer and route; those that the balancers follow
    takeovers: Mapping[str, Mapping[str, Takeover]] = field(default_factory=dict)
    remarks: Mapping[Member, Remarks] = field(default_factory=dict)
    # with which workers make the keys of sessions
    salt: bytes = b""


class Explanation(NamedTuple):
    """The steps of a decision, and what came of it."""

    steps: list[str]
    # that of our own answer; None if it is a member that answers
    status: int | None
    balancer: Balancer | None = None
    choice: Choice | None = None
    # among whom the chosen member was elected; empty without an election
    candidates: tuple[Member, ...] = ()
    # the whole line, if there is one
    cookie: bytes = b""

    @property
    def members(self) -> tuple[Member, ...]:
        """Who may serve the request: one member, or those of whom each worker elects one."""
        chosen = self.choice.member if self.choice is not None else None
        if chosen is None:
            return ()
        return (chosen, *(each for each in self.candidates if each is not chosen))


def explain(entrance: Entrance, asked: Asked, known: Known) -> Explanation:
    """Why a request that comes to a frontend goes where it does."""
    steps = [f"frontend {entrance.listen}{' speaks TLS' if entrance.tls else ' speaks plain HTTP'}"]
    try:
        head = asked.head()
        told = _own_answer(entrance, head)
        if told is not None:
            return Explanation([*steps, told[1]], told[0])
        target = read_target(head.target, entrance.apache)
    except ClientError as error:
        return Explanation(
            [*steps, f"the request is refused with {error.status}: {error}"], error.status
        )
    host = target.host or head.host
    mapping = entrance.mappings.find(host, target.path)
    if mapping is None:
        return Explanation([*steps, _no_mapping(host, target)], 404)
    steps += _mapping_steps(mapping, target)
    placement = Placement(mapping, target, head, apache=entrance.apache)
    return _placed(entrance, placement, head, known, steps)


def _own_answer(entrance: Entrance, head: RequestHead) -> tuple[int, str] | None:
    """Status and step of an answer that needs no mapping."""
    if head.target == entrance.health_path:
        status = health(leaving=entrance.leaving).status
        state = "is to stop" if entrance.leaving else "serves"
        return status, f"health_path: answered by balanceme itself with {status}, since it {state}"
    if entrance.redirect_port is None:
        return None
    answer = redirect_to_https(head, entrance.server_name, entrance.redirect_port)
    place = answer.lines.strip().decode("ascii", "backslashreplace")
    return answer.status, f"redirect_to_https: answered with {answer.status} {place}".rstrip()


def _no_mapping(host: bytes | None, target: Target) -> str:
    for_host = "a request without a host" if host is None else f"host {in_words(host)}"
    return f"no mapping of this frontend fits {for_host} and the path {in_words(target.path)}: 404"


def _mapping_steps(mapping: CoreMapping, target: Target) -> Iterator[str]:
    settings = mapping.settings
    host = f"of host {settings.host}" if settings.host else "for every host"
    yield (
        f"mapping {settings.path} {host} is the longest that fits {in_words(target.path)};"
        f" it leads to balancer {mapping.balancer.name}"
    )
    kind = "an ActiveSync path" if target.activesync else "no ActiveSync path"
    timeout = "timeouts.activesync" if target.activesync else "timeouts.response"
    if mapping.response_timeout is not None:
        timeout = f"the mapping's response_timeout ({mapping.response_timeout:g} s)"
    yield f"{kind}: {timeout} says how long the member may be silent"


def _placed(
    entrance: Entrance,
    placement: Placement,
    head: RequestHead,
    known: Known,
    steps: list[str],
) -> Explanation:
    """What the balancer says: first how things stand, then its choice, then what came of it."""
    balancer, target, cookie = placement.mapping.balancer, placement.target, head.block.cookie
    # Apache knows takeovers as rewrite rules alone (C12).
    takeovers = {} if entrance.apache else known.takeovers.get(balancer.name, {})
    steps += session_steps(balancer, target.text, cookie, takeovers)
    for member in balancer.members:
        taken = takeovers.get(member.settings.route or "")
        remarks = known.remarks.get(member, Remarks())
        steps.append(member_step(balancer, member, known.now, remarks, taken))
    before = [member for member in balancer.members if member.in_error(known.now)]
    if balancer.sessions.moves:
        placement.look_for_move(head, "", known.salt)
        if read_session(head, known.salt, activesync=target.activesync)[2]:
            steps.append(
                "some sessions are moved by the operator: whether this one is can't be told without"
                " a webmail's own cookie"
            )
    chosen = placement.choose(known.now)
    if any(member.error_since is None for member in before):
        steps.append("every member that could serve is in error: all of them are tried at once")
    elected = candidates(balancer, placement.choice, known.now)
    steps += choice_steps(balancer, placement.choice, elected, takeovers)
    if not chosen:
        wait = placement.wait_timeout()
        steps.append(
            f"answered with 503{f' once wait_timeout ({wait:g} s) is over' if wait else ''}"
        )
    line = placement.cookie_line(known.second, tls=entrance.tls)
    steps.append(cookie_step(balancer, cookie, placement, line))
    status = None if chosen else unavailable(apache=entrance.apache).status
    return Explanation(steps, status, balancer, placement.choice, elected, line)
