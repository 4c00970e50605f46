"""A balancer's whole decision: the session's own member first, then whoever is elected.

``choose`` is the heart of the proxy. It waits for nothing and knows no clock: the time and the
members already tried are arguments, the result is a ``Choice`` that says what came in, what was
chosen and why. All changes of a member's status happen here, so that the ledger stays exact.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from proxy.core.lbmethods import LBMETHODS, Ledger
from proxy.core.member import Member
from proxy.core.settings import Assign, FirstRequest, OperatorStatus, Renew
from proxy.core.settings import Balancer as BalancerSettings
from proxy.core.sticky import RewriteRules, SessionCookie, StickySession


class Session(Enum):
    """What became of the session in this exchange."""

    NEW = "new"
    KEPT = "kept"
    MOVED = "moved"
    UNKNOWN = "unknown"

    def __init__(self, word: str) -> None:
        # what ``value`` says, without the 0.4 µs that an enum's property takes
        self.word = word


class Reason(Enum):
    """Why this member, or why none."""

    KEPT = "its own member"
    OWN_ROUTE = "own_route takes new sessions"
    ELECTED = "elected"
    TAKEOVER = "failover map"
    REDIRECT = "redirect_route"
    UNUSABLE = "its own member can't be used"
    NO_FAILOVER = "its own member can't be used, no_failover"
    NOBODY = "no member can be used"


@dataclass(slots=True)
class Choice:
    """One decision: which member, what became of the session, what the cookie shall say."""

    member: Member | None
    session: Session
    reason: Reason
    session_route: bytes | None
    cookie_route: bytes | None


class Balancer:
    """A named group of members with one way to choose among them."""

    __slots__ = (
        "_apache",
        "_by_route",
        "_elect",
        "_failover",
        "_kept",
        "_lbsets",
        "_ledger",
        "_own_route",
        "_rules",
        "_sticky",
        "max_attempts",
        "members",
        "name",
        "session_cookie",
        "settings",
    )

    def __init__(
        self,
        name: str,
        settings: BalancerSettings,
        *,
        apache: bool = False,
        former: "Balancer | None" = None,
    ) -> None:
        """``former`` is the balancer of that name until now: its members and ledger go on."""
        self.name = name
        self.settings = settings
        # Settled before members have other load factors.
        self._ledger = Ledger(()) if former is None else former.retire(settings)
        self.members = self._ledger.members = _members(settings, former)
        attempts = settings.max_attempts
        self.max_attempts = len(self.members) - 1 if attempts is None else attempts
        self._apache = apache
        # Normal members come before hot standbys when a route is looked up (S13).
        self._by_route: dict[bytes, list[Member]] = {}
        for member in sorted(self.members, key=lambda m: m.settings.hot_standby):
            if member.route is not None:
                self._by_route.setdefault(member.route, []).append(member)
        self._lbsets = _lbsets(self.members)
        self._elect = LBMETHODS[settings.lbmethod]
        self._failover = {k.encode(): v.encode() for k, v in settings.failover.items()}
        name = (settings.sticky_session or "").partition("|")[0]
        cookie = settings.session_cookie
        self._sticky = StickySession(settings, apache=apache) if name else None
        if self._sticky is not None and former is not None:
            self._sticky.forged = former.forged
        self.session_cookie = (
            SessionCookie(cookie, name, settings.sticky_separator) if cookie and name else None
        )
        own = cookie.own_route if cookie and cookie.assign is Assign.OWN else None
        self._own_route = own.encode() if own else None
        self._rules = RewriteRules(settings, cookie) if apache and own and cookie else None
        self._kept = {} if self._rules else self._ready_choices()

    def retire(self, successor: BalancerSettings | None = None) -> Ledger:
        """Leave the ledger, settled, to the balancer that follows with these settings, if one does.

        Exchanges under way that began here go on to tell of errors, and it is the same ledger.
        Where they fail over they find no member any more that the successor doesn't have.
        """
        staying = {each.key for each in successor.members} if successor else set()
        self._ledger.settle()
        for member in self.members:
            if member.settings.key not in staying:
                self.set_operator_status(member, OperatorStatus.STOPPED)
        return self._ledger

    def _ready_choices(self) -> dict[bytes, tuple[Member, Choice]]:
        """For each route that leads to its own member alone: the choice of a kept session."""
        return {
            route: (
                members[0],
                Choice(members[0], Session.KEPT, Reason.KEPT, route, self._renewed(route)),
            )
            for route, members in self._by_route.items()
            if len(members) == 1 and self.heir(route) == route
        }

    @property
    def forged(self) -> int:
        """How many session cookies had no valid signature."""
        return self._sticky.forged if self._sticky is not None else 0

    # --- the decision ------------------------------------------------------------------------

    def choose(
        self, target: bytes, cookie: bytes | None, now: float, tried: Collection[Member] = ()
    ) -> Choice:
        """Choose a member for one attempt.

        ``target`` is path and query, ``cookie`` the joined Cookie field, ``now`` a monotonic time
        in seconds; members in ``tried`` are left out.
        """
        asked = self._sticky.session_route(target, cookie) if self._sticky is not None else None
        if asked is not None and not tried:
            # Nearly every request is of this kind: its choice is ready-made.
            kept = self._kept.get(asked)
            if kept is not None:
                member, choice = kept
                if member.error_since is None and member.takes_sessions:
                    member.kept += 1
                    return choice
        if self._apache:
            tried = ()  # Apache relies on the error state alone, whatever comes of it (F8, F13)
        choice = self._decide(asked, now, tried)
        if self._rules is not None:
            return replace(choice, cookie_route=self._rules.route(cookie))
        return choice

    def _decide(self, asked: bytes | None, now: float, tried: Collection[Member]) -> Choice:
        if self._all_in_error(now) and self.settings.forced_recovery:
            self._recover_all()
        if asked is None:
            return self._place(Session.NEW, asked, now, tried)
        route = asked if self._apache else self.heir(asked)
        own = self._by_route.get(route)
        if own is None:
            return self._place(Session.UNKNOWN, asked, now, tried)
        member = self._usable(own, now, tried)
        if member is not None:
            member.kept += 1
            if route is asked:
                return Choice(member, Session.KEPT, Reason.KEPT, asked, self._renewed(asked))
            return self._moved(member, Reason.TAKEOVER, asked)
        member = self._redirected(own, now, tried)
        if member is not None:
            member.kept += 1
            return self._moved(member, Reason.REDIRECT, asked)
        if self.settings.no_failover:
            return Choice(None, Session.KEPT, Reason.NO_FAILOVER, asked, None)
        member = self._elected(now, tried)
        if member is not None:
            return self._moved(member, Reason.UNUSABLE, asked)
        return Choice(None, Session.KEPT, Reason.NOBODY, asked, None)

    def _place(
        self, session: Session, asked: bytes | None, now: float, tried: Collection[Member]
    ) -> Choice:
        """Place a session that has no member yet."""
        own_route = self.heir(self._own_route) if self._own_route is not None else None
        elect = own_route is None or (
            self.settings.session_cookie is not None
            and self.settings.session_cookie.first_request is FirstRequest.ELECT
        )
        if not elect and own_route is not None:
            # No session begins on a drained member (H54).
            own = (m for m in self._by_route.get(own_route, ()) if self._electable(m, now, tried))
            member = next(own, None)
            if member is not None:
                member.kept += 1
                return Choice(member, session, Reason.OWN_ROUTE, asked, member.route)
        member = self._elected(now, tried)
        if member is None:
            return Choice(None, session, Reason.NOBODY, asked, None)
        # With first_request: elect the cookie is own_route's whoever serves this request (C10).
        route = own_route if own_route is not None and elect else member.route
        return Choice(member, session, Reason.ELECTED, asked, route)

    def stagger(self, elections: int) -> None:
        """Begin so many elections further on, lest all workers elect the same member first."""
        for _ in range(elections):
            member = self._elected(0.0, ())
            if member is not None:
                member.elected -= 1

    def _moved(self, member: Member, reason: Reason, asked: bytes) -> Choice:
        return Choice(member, Session.MOVED, reason, asked, member.route)

    def _renewed(self, route: bytes) -> bytes | None:
        cookie = self.settings.session_cookie
        if cookie is None or (cookie.renew is Renew.OWN and route != self._own_route):
            return None
        return route

    def heir(self, route: bytes) -> bytes:
        """The route that has taken ``route``'s sessions over, along a chain of takeovers."""
        failover = self._failover
        while route in failover:
            route = failover[route]
        return route

    def _usable(
        self, members: Sequence[Member], now: float, tried: Collection[Member]
    ) -> Member | None:
        for member in members:
            if member not in tried and self._consider(member, now):
                return member
        return None

    def _redirected(
        self, members: Sequence[Member], now: float, tried: Collection[Member]
    ) -> Member | None:
        """A usable member along the chain of redirect routes (S13)."""
        for _ in range(len(self.members) - 1):
            route = next((m.redirect_route for m in members if m.redirect_route), None)
            if route is None:
                break
            members = self._by_route.get(route if self._apache else self.heir(route), ())
            found = self._usable(members, now, tried)
            if found is not None:
                return found
        return None

    def _elected(self, now: float, tried: Collection[Member]) -> Member | None:
        """Whom the lbmethod elects: lbset by lbset, spares and standbys inside theirs (B7)."""
        for lbset in self._lbsets:
            candidates = self._candidates(lbset, now, tried)
            if candidates:
                self._ledger.settle()
                member = self._elect(candidates)
                member.elected += 1
                return member
        return None

    def _candidates(
        self, lbset: Sequence[Member], now: float, tried: Collection[Member]
    ) -> list[Member]:
        """Normal members, one spare for each of them that is unusable, else standbys (B2)."""
        normal: list[Member] = []
        spares: list[Member] = []
        standbys: list[Member] = []
        unusable = 0
        for member in lbset:
            settings = member.settings
            usable = self._electable(member, now, tried)
            if settings.hot_spare or settings.hot_standby:
                if usable:
                    (spares if settings.hot_spare else standbys).append(member)
            elif usable:
                normal.append(member)
            else:
                unusable += 1
        return (normal + spares[:unusable]) or standbys

    def _electable(self, member: Member, now: float, tried: Collection[Member]) -> bool:
        if member.operator is not OperatorStatus.ENABLED or member in tried:
            return False
        if member.route in self._failover and not self._apache:
            return False  # its sessions belong to another member: none may begin here
        return self._consider(member, now)

    # --- changes of status -------------------------------------------------------------------

    def _consider(self, member: Member, now: float) -> bool:
        """Whether ``member`` is usable; its error is over once somebody looks (F6)."""
        if member.error_since is None:
            return member.takes_sessions
        if member.in_error(now) or not member.takes_sessions:
            return False
        self._ledger.settle()
        member.error_since = None
        return True

    def put_in_error(self, member: Member, now: float) -> bool:
        """Traffic to ``member`` failed; whether this is news (F1). Not with ignore_errors."""
        if member.settings.ignore_errors:
            return False
        news = member.error_since is None
        self._ledger.settle()
        member.error_since = now
        return news

    def set_operator_status(self, member: Member, status: OperatorStatus) -> None:
        """What the operator wants of ``member``."""
        self._ledger.settle()
        member.operator = status
        member.decide()

    def set_check_failed(self, member: Member, failed: bool) -> None:
        """What the health checks say of ``member``; passing ends an error too (H5)."""
        self._ledger.settle()
        member.check_failed = failed
        member.decide()
        if not failed:
            member.error_since = None

    def settle(self) -> None:
        """Make every member's ``lbstatus`` and ``elected`` exact."""
        self._ledger.settle()

    def lbstatus(self, member: Member) -> int:
        """The member's claim, exact."""
        self._ledger.settle()
        return member.lbstatus

    def _all_in_error(self, now: float) -> bool:
        """Whether everybody who could serve is in error (F7).

        Members that can't stand in for another don't count: kept out by the operator or by checks,
        drained, their sessions taken over. For Apache one of them prevents recovery.
        """
        anyone = False
        for member in self.members:
            if member.in_error(now):
                anyone = True
            elif self._apache or self._electable(member, now, ()):
                return False
        return anyone

    def _recover_all(self) -> None:
        self._ledger.settle()
        for member in self.members:
            member.error_since = None

    def __repr__(self) -> str:
        return f"<Balancer {self.name}>"


def _members(settings: BalancerSettings, former: Balancer | None) -> tuple[Member, ...]:
    """New members, but for those that were there."""
    known = {} if former is None else {member.settings.key: member for member in former.members}
    members = []
    for each in settings.members:
        member = known.get(each.key)
        if member is None:
            member = Member(each, settings)
        else:
            member.configure(each, settings)
        members.append(member)
    return tuple(members)


def _lbsets(members: Sequence[Member]) -> list[list[Member]]:
    numbers = sorted({member.settings.lbset for member in members})
    return [[m for m in members if m.settings.lbset == number] for number in numbers]
