"""A member while the proxy runs: three axes of status, counters, and what is derived of them.

What the operator set, what health checks observed and what traffic ran into never overwrite each
other; ``usable`` joins them:

| operator | verdict of the checks | traffic | by the session route | elected |
|---|---|---|---|---|
| enabled | passed | fine | yes | yes |
| drain | passed | fine | yes | no |
| disabled, stopped | any | any | no | no |
| any | failed, held off, fenced, unknown | any | no | no |
| any | any | in error, retry time not over | no | no |
| any | any | in error, retry time over | as if fine | as if fine |

A member whose sessions another one has taken over gets none of them, and none begins there, as
long as that lasts; this is the balancer's to know.

All changes go through the member's ``Balancer``, since the others' lbstatus depends on them (B4).
"""

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

from proxy.core import proxy_protocol
from proxy.core.health import Verdict
from proxy.core.settings import Balancer as BalancerSettings
from proxy.core.settings import Member as MemberSettings
from proxy.core.settings import OperatorStatus, ProxyProtocol

_PREAMBLES = {ProxyProtocol.V1: proxy_protocol.line, ProxyProtocol.V2: proxy_protocol.binary}
# A tuple's search compares by identity first, and an enum's hash is written in Python.
_TAKES_SESSIONS = (OperatorStatus.ENABLED, OperatorStatus.DRAIN)


# What a member has at least of its share when it comes back, with slow_start.
FIRST_SHARE = 0.1


class Terms(NamedTuple):
    """How a member is elected, which the operator may change while the proxy runs (M7)."""

    load_factor: float
    lbset: int
    hot_standby: bool
    hot_spare: bool


def terms_of(settings: MemberSettings) -> Terms:
    """The terms that the configuration says."""
    return Terms(settings.load_factor, settings.lbset, settings.hot_standby, settings.hot_spare)


class Member:
    """One server of a balancer."""

    __slots__ = (
        "activesync_timeout",
        "base_path",
        "busy",
        "connect_timeout",
        "elected",
        "error_since",
        "factor",
        "host",
        "host_field",
        "hot_spare",
        "hot_standby",
        "kept",
        "kept_words",
        "lbset",
        "lbstatus",
        "name",
        "operator",
        "origin",
        "port",
        "preamble",
        "received",
        "redirect_route",
        "response_timeout",
        "retry_after",
        "reuse",
        "rising_since",
        "route",
        "sent",
        "settings",
        "takeover_route",
        "takes_sessions",
        "terms",
        "tunnel_timeout",
        "verdict",
    )

    def __init__(self, settings: MemberSettings, balancer: BalancerSettings) -> None:
        # since when its share rises, monotonic; None once it has all of it
        self.rising_since: float | None = None
        self.configure(settings, balancer)
        self.operator = settings.status
        self.verdict = Verdict.PASSED
        self.error_since: float | None = None
        self.decide()

        # Written by the balancer and its ledger alone; sticky requests first count as kept.
        self.lbstatus = 0
        self.elected = 0
        self.kept = 0
        self.busy = 0
        self.sent = 0
        self.received = 0

    def configure(self, settings: MemberSettings, balancer: BalancerSettings) -> None:
        """Put settings in force; what is known of the member while it runs stays."""
        url = urlsplit(settings.url)
        self.settings = settings
        # what logs call it
        self.name = settings.route or settings.url
        # what the access log says of a kept session on a connection that was there
        self.kept_words = f"session=kept route={self.name} member={self.name} attempts=1 connect=0"
        # Attributes of frozen models cost twice as much as our own, hence the copies.
        timeouts = settings.timeouts or balancer.timeouts
        self.connect_timeout = timeouts.connect
        self.response_timeout = timeouts.response
        self.activesync_timeout = timeouts.activesync
        self.tunnel_timeout = timeouts.tunnel
        # how a client is announced; then a connection is for one client
        self.preamble = _PREAMBLES[settings.proxy_protocol] if settings.proxy_protocol else None
        self.reuse = settings.reuse_connections and self.preamble is None
        self.host = url.hostname or ""
        self.port = url.port or 80
        # The port is left out when it is 80 (R4); urlsplit has taken the brackets off.
        name = f"[{self.host}]" if ":" in self.host else self.host
        self.host_field = (name if self.port == 80 else f"{name}:{self.port}").encode()
        # As configured, for Location (P11); the slash at the end belongs to the path.
        self.origin = f"{url.scheme}://{url.netloc}".lower().encode()
        self.base_path = url.path.encode()
        self.route = settings.route.encode() if settings.route else None
        self.redirect_route = settings.redirect_route.encode() if settings.redirect_route else None
        self.takeover_route = settings.takeover.encode() if settings.takeover else None
        self.retry_after = settings.retry_after
        self.agree(terms_of(settings))

    def agree(self, terms: Terms) -> None:
        """Put terms in force."""
        self.terms = terms
        self.lbset = terms.lbset
        self.hot_standby = terms.hot_standby
        self.hot_spare = terms.hot_spare
        self.factor = round(terms.load_factor * 100)

    def rise(self, now: float, slow_start: float) -> None:
        """Its share grows from a tenth to all of it within ``slow_start`` seconds."""
        share = 1.0
        if self.rising_since is not None and slow_start:
            share = min(max((now - self.rising_since) / slow_start, FIRST_SHARE), 1.0)
        if share == 1.0:
            self.rising_since = None
        self.factor = max(round(self.terms.load_factor * 100 * share), 1)

    def decide(self) -> None:
        """Operator or checks have changed: whether it takes requests, whatever traffic ran into."""
        passed = self.verdict is Verdict.PASSED
        self.takes_sessions = passed and self.operator in _TAKES_SESSIONS

    def in_error(self, now: float) -> bool:
        """Whether traffic failed less than the retry time ago (F6)."""
        return self.error_since is not None and now - self.error_since <= self.retry_after

    def usable(self, now: float) -> bool:
        """Whether it may get a request of its own sessions now (B2)."""
        return self.takes_sessions and not self.in_error(now)

    def status(self, now: float) -> str:
        """The status in the operator's words."""
        return status_words(self.operator, self.verdict, in_error=self.in_error(now))

    def __repr__(self) -> str:
        return f"<Member {self.settings.route or self.settings.url} busy={self.busy}>"


def members_of(settings: BalancerSettings, known: Iterable[Member]) -> tuple[Member, ...]:
    """A balancer's members: new ones, but for those ``known`` that are the same."""
    by_key = {member.settings.key: member for member in known}
    members = []
    for each in settings.members:
        member = by_key.get(each.key)
        if member is None:
            member = Member(each, settings)
        else:
            member.configure(each, settings)
        members.append(member)
    return tuple(members)


def status_words(operator: OperatorStatus, verdict: Verdict, *, in_error: bool) -> str:
    """A member's status in the operator's words."""
    words = [] if operator is OperatorStatus.ENABLED else [operator.value]
    if verdict is not Verdict.PASSED:
        words.append(verdict.value)
    if in_error:
        words.append("in error")
    return ", ".join(words) or "ok"
