"""A balancer's whole decision: the session's own member first, then whoever is elected.

``choose`` is the heart of the proxy. It waits for nothing and knows no clock: the time and the
members already tried are arguments, the result is a ``Choice`` that says what came in, what was
chosen and why. All changes of a member's status happen here, so that the ledger stays exact.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from proxy.core.choice import Choice, Reason, Session
from proxy.core.failback import Away, Homes
from proxy.core.health import Verdict
from proxy.core.lbmethods import LBMETHODS, Ledger, candidates_of, lbsets_of
from proxy.core.live_sessions import LiveSessions, live_sessions
from proxy.core.member import Member, Terms, members_of
from proxy.core.settings import Assign, FirstRequest, OperatorStatus, Renew
from proxy.core.settings import Balancer as BalancerSettings
from proxy.core.sticky import RewriteRules, SessionCookie, StickySession


class Balancer:
    """A named group of members with one way to choose among them."""

    __slots__ = (
        "_apache",
        "_by_route",
        "_elect",
        "_heirs",
        "_kept",
        "_lbsets",
        "_ledger",
        "_own_route",
        "homes",
        "max_attempts",
        "members",
        "name",
        "rules",
        "session_cookie",
        "sessions",
        "settings",
        "sticky",
    )

    def __init__(
        self,
        name: str,
        settings: BalancerSettings,
        *,
        apache: bool = False,
        former: "Balancer | None" = None,
    ) -> None:
        """``former`` is the balancer of that name until now: what is known there goes on."""
        self.name = name
        self.settings = settings
        self.sessions: LiveSessions = live_sessions(settings, former.sessions if former else None)
        # Settled before members have other load factors.
        self._ledger = Ledger(()) if former is None else former.retire(settings)
        self.members: tuple[Member, ...] = members_of(
            settings, () if former is None else former.members
        )
        self._ledger.members = self.members
        attempts = settings.max_attempts
        self.max_attempts = len(self.members) - 1 if attempts is None else attempts
        self._apache = apache
        self._arrange()
        self._elect = LBMETHODS[settings.lbmethod]
        self._heirs = {k.encode(): v.encode() for k, v in settings.failover.items()}
        self.homes = Homes(settings, apache=apache)
        if former is not None:
            self.homes.clock_offset = former.homes.clock_offset
        name = (settings.sticky_session or "").partition("|")[0]
        cookie = settings.session_cookie
        self.sticky = StickySession(settings, apache=apache) if name else None
        if self.sticky is not None and former is not None:
            self.sticky.forged = former.forged
        self.session_cookie = (
            SessionCookie(cookie, name, settings.sticky_separator) if cookie and name else None
        )
        own = cookie.own_route if cookie and cookie.assign is Assign.OWN else None
        self._own_route = own.encode() if own else None
        self._prepare()

    def _arrange(self) -> None:
        """Members by route and by lbset, as their terms are now."""
        # Normal members come before hot standbys when a route is looked up (S13).
        self._by_route: dict[bytes, list[Member]] = {}
        for member in sorted(self.members, key=lambda m: m.hot_standby):
            if member.route is not None:
                self._by_route.setdefault(member.route, []).append(member)
        self._lbsets = lbsets_of(self.members)

    def _prepare(self) -> None:
        """What the members and heirs of now let be made ready."""
        cookie = self.settings.session_cookie
        rules = self._apache and self._own_route is not None and cookie is not None
        self.rules = RewriteRules(self.settings, cookie, self._heirs) if rules and cookie else None
        self._kept = {} if self.rules else self._ready_choices()

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
        return self.sticky.forged if self.sticky is not None else 0

    # --- the decision ------------------------------------------------------------------------

    def choose(
        self, target: bytes, cookie: bytes | None, now: float, tried: Collection[Member] = ()
    ) -> Choice:
        """Choose a member for one attempt.

        ``target`` is path and query, ``cookie`` the joined Cookie field, ``now`` a monotonic time
        in seconds; members in ``tried`` are left out.
        """
        asked = self.sticky.session_route(target, cookie) if self.sticky is not None else None
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
        if self.rules is not None:
            return replace(choice, cookie_route=self.rules.route(cookie))
        return choice

    def _decide(self, asked: bytes | None, now: float, tried: Collection[Member]) -> Choice:
        if self._all_in_error(now) and self.settings.forced_recovery:
            self._recover_all()
        if asked is None:
            return self._place(Session.NEW, asked, now, tried)
        away = self.homes.read(asked)
        if away is not None:
            return self._decide_away(away, now, tried)
        return self._decide_route(asked, now, tried)

    def _decide_route(self, asked: bytes, now: float, tried: Collection[Member]) -> Choice:
        """A session that asks for a route."""
        route = asked if self._apache else self.heir(asked)
        own = self._by_route.get(route)
        if own is None:
            return self._place(Session.UNKNOWN, asked, now, tried)
        member = self._usable(own, now, tried)
        if member is not None:
            member.kept += 1
            if route is asked:
                return Choice(member, Session.KEPT, Reason.KEPT, asked, self._renewed(asked))
            return self._moved(member, Reason.TAKEOVER, asked, now)
        redirected = self._redirected(own, now, tried)
        if redirected is not None:
            member, reason = redirected
            member.kept += 1
            return self._moved(member, reason, asked, now)
        if self.settings.no_failover:
            return Choice(None, Session.KEPT, Reason.NO_FAILOVER, asked, None)
        member = self._elected(now, tried)
        if member is not None:
            return self._moved(member, Reason.UNUSABLE, asked, now)
        return Choice(None, Session.KEPT, Reason.NOBODY, asked, None)

    def _decide_away(self, away: Away, now: float, tried: Collection[Member]) -> Choice:
        """A session that was taken over: it goes home once it may, or stays where it is."""
        members = self._by_route.get(away.home) if self.homes.remember else None
        if members is None:  # a home that nobody has is a client's text, and goes no further
            return self._decide_route(away.route, now, tried)
        # No session begins anew on a drained member, nor where sessions are taken over.
        home = next((m for m in members if self.electable(m, now, tried)), None)
        if home is not None and self.homes.is_due(away, now):
            home.kept += 1
            return Choice(home, Session.MOVED, Reason.FAILBACK, away.route, home.route)
        choice = self._decide_route(away.route, now, tried)
        member, route = choice.member, away.home
        if choice.cookie_route is None or member is None:
            return choice
        if member.route is not None and member.route != away.home:
            # While its home is away, the time until it goes back doesn't run.
            homes, to = self.homes, member.route
            route = homes.kept(away, to) if home else homes.token(away.home, to, now)
        reason = Reason.AWAY if choice.session is Session.KEPT else choice.reason
        return replace(choice, cookie_route=route, reason=reason)

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
            own = (m for m in self._by_route.get(own_route, ()) if self.electable(m, now, tried))
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

    def _moved(self, member: Member, reason: Reason, asked: bytes, now: float) -> Choice:
        """A session goes to another member; with failback, its cookie remembers where it was."""
        cookie_route = member.route
        if self.homes.remember and member.route is not None:
            cookie_route = self.homes.token(asked, member.route, now)
        return Choice(member, Session.MOVED, reason, asked, cookie_route)

    def _renewed(self, route: bytes) -> bytes | None:
        cookie = self.settings.session_cookie
        if cookie is None or (cookie.renew is Renew.OWN and route != self._own_route):
            return None
        return route

    def heir(self, route: bytes) -> bytes:
        """The route that has taken ``route``'s sessions over, along a chain of takeovers."""
        heirs = self._heirs
        while route in heirs:
            route = heirs[route]
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
    ) -> tuple[Member, Reason] | None:
        """A usable member along the chain of redirect routes (S13), or of takeovers."""
        for _ in range(len(self.members) - 1):
            redirect = next((m.redirect_route for m in members if m.redirect_route), None)
            route = redirect or next((m.takeover_route for m in members if m.takeover_route), None)
            if route is None:
                break
            members = self._by_route.get(route if self._apache else self.heir(route), ())
            found = self._usable(members, now, tried)
            if found is not None:
                return found, Reason.REDIRECT if redirect else Reason.TAKER
        return None

    def _elected(self, now: float, tried: Collection[Member]) -> Member | None:
        """Whom the lbmethod elects among those who may get a new session."""
        candidates = candidates_of(self._lbsets, self.electable, now, tried)
        if not candidates:
            return None
        self._ledger.settle()
        member = self._elect(candidates)
        member.elected += 1
        return member

    def electable(self, member: Member, now: float, tried: Collection[Member] = ()) -> bool:
        """Whether a session may begin on ``member``."""
        if member.operator is not OperatorStatus.ENABLED or member in tried:
            return False
        if member.route in self._heirs and not self._apache:
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

    def set_verdict(self, member: Member, verdict: Verdict) -> None:
        """What the health checks say of ``member``; passing ends an error too (H5)."""
        self._ledger.settle()
        member.verdict = verdict
        member.decide()
        if verdict is Verdict.PASSED:
            member.error_since = None

    def end_error(self, member: Member, before: float) -> None:
        """Checks have passed since: an error from ``before`` is over (H5)."""
        if member.error_since is not None and member.error_since < before:
            self._ledger.settle()
            member.error_since = None

    def set_terms(self, member: Member, terms: Terms) -> None:
        """How ``member`` is elected from now on; another load factor begins afresh (B14)."""
        self._ledger.settle()
        anew = terms.load_factor != member.terms.load_factor
        member.agree(terms)
        self._arrange()
        self._prepare()
        if anew:
            for each in self.members:
                each.lbstatus = each.factor

    def set_heirs(self, heirs: Mapping[bytes, bytes]) -> None:
        """Whose sessions are taken over by whom from now on, by route; there is no circle."""
        if heirs != self._heirs:
            self._ledger.settle()
            self._heirs = dict(heirs)
            self._prepare()

    def set_rising(self, member: Member, since: float) -> None:
        """``member`` is back: with slow_start its share rises from the monotonic ``since`` on."""
        if self.settings.slow_start:
            member.rising_since = since
            self._rise(member, since)

    def rise(self, now: float) -> None:
        """With each tick: the share of members that are back grows."""
        for member in self.members:
            if member.rising_since is not None:
                self._rise(member, now)

    def _rise(self, member: Member, now: float) -> None:
        self._ledger.settle()
        member.rise(now, self.settings.slow_start)

    def settle(self) -> None:
        """Make every member's ``lbstatus`` and ``elected`` exact."""
        self._ledger.settle()

    def _all_in_error(self, now: float) -> bool:
        """Whether everybody who could serve is in error (F7).

        Members that can't stand in for another don't count: kept out by the operator or by checks,
        drained, their sessions taken over. For Apache one of them prevents recovery.
        """
        anyone = False
        for member in self.members:
            if member.in_error(now):
                anyone = True
            elif self._apache or self.electable(member, now, ()):
                return False
        return anyone

    def _recover_all(self) -> None:
        self._ledger.settle()
        for member in self.members:
            member.error_since = None

    def __repr__(self) -> str:
        return f"<Balancer {self.name}>"
