"""What the supervisor knows of one member: settings, status, health, and what people said of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.control.prober import Key
from proxy.control.scoreboard import MemberCounters, MemberStatus
from proxy.core.health import Health, Verdict
from proxy.core.member import Terms, terms_of
from proxy.core.settings import Balancer as BalancerSettings
from proxy.core.settings import HealthCheck, OperatorStatus
from proxy.core.settings import Member as MemberSettings
from proxy.core.takeover import Said


@dataclass
class Drain:
    """A drain under way, or one that has done its work."""

    # how many sessions were alive when it began; None until they were counted
    sessions: int | None
    # until when its sessions stay, in seconds since 1970; None for as long as they live
    until: float | None = None
    # whether the member is disabled once it is empty
    until_empty: bool = False
    # when it began, in seconds since 1970
    since: float = 0.0
    # what is left, as last counted
    left: int | None = None
    # when the last of its sessions will be over if none of them is seen again, since 1970
    last_over: float | None = None
    moving: bool = False
    done: bool = False

    def empty_at(self, now: float) -> float | None:
        """When it will be empty, at the pace so far; since 1970, None if that can't be told."""
        if self.done:
            return now
        if self.sessions is None or self.left is None:
            return None
        gone, took = self.sessions - self.left, now - self.since
        paced = now + self.left * took / gone if gone > 0 else None
        found = [each for each in (paced, self.until) if each is not None]
        if not found:
            return self.last_over
        return min(found)


class MemberView:
    """One member."""

    __slots__ = (
        "balancer",
        "drain",
        "ended",
        "fenced",
        "health",
        "is_down",
        "passed_since",
        "said",
        "settings",
        "status",
        "terms_said",
    )

    def __init__(
        self, balancer: str, settings: MemberSettings, balancer_settings: BalancerSettings
    ) -> None:
        self.balancer = balancer
        self.settings = settings
        checks = _checks(settings, balancer_settings)
        self.health = Health(checks, balancer_settings.fence, balancer_settings.hold_off)
        self.status = MemberStatus(settings.status, self.health.verdict)
        self.set_terms(terms_of(settings))
        # who said that it is what it is, if it isn't what the file says
        self.said: Said | None = None
        self.terms_said: Said | None = None
        self.fenced: Said | None = None
        self.drain: Drain | None = None
        # whether hooks were told that it is down, and not yet that it is up again
        self.is_down = False
        # since the last error: how often in a row each check has passed
        self.passed_since: dict[str, int] = {}
        # what workers counted that have ended
        self.ended = MemberCounters()

    @property
    def key(self) -> Key:
        """What makes it this member, of all balancers'."""
        return self.balancer, *self.settings.key

    @property
    def name(self) -> str:
        """What people call it."""
        return self.settings.route or self.settings.url

    @property
    def title(self) -> str:
        """What logs call it."""
        return f"{self.balancer}: {self.name}"

    def is_called(self, name: str) -> bool:
        """Whether people may mean this member, by its route or its url."""
        return name in (self.settings.route, self.settings.url)

    def configure(self, settings: MemberSettings, balancer: BalancerSettings) -> None:
        """Other settings; what the file says otherwise than before counts."""
        if settings.status is not self.settings.status:
            self.status = self.status._replace(operator=settings.status, empty_by=0)
            self.said = self.drain = None
        if terms_of(settings) != terms_of(self.settings):
            self.terms_said = None
        if self.terms_said is None:
            self.set_terms(terms_of(settings))
        self.health.configure(_checks(settings, balancer), balancer.fence, balancer.hold_off)
        if self.health.verdict is not Verdict.FENCED:
            self.fenced = None
        self.status = self.status._replace(verdict=self.health.verdict)
        self.settings = settings

    def set_terms(self, terms: Terms) -> None:
        """How it is elected."""
        self.status = self.status._replace(
            load_factor=terms.load_factor,
            lbset=terms.lbset,
            hot_standby=terms.hot_standby,
            hot_spare=terms.hot_spare,
        )

    def in_error(self, now: float) -> bool:
        """Whether traffic failed less than the retry time ago (F6), and no check passed since."""
        since = self.status.error_since
        recovered = self.status.recovered > since
        return bool(since) and not recovered and now - since <= self.settings.retry_after

    def usable(self, now: float) -> bool:
        """Whether it takes sessions, its own and new ones."""
        status = self.status
        enabled = status.operator is OperatorStatus.ENABLED
        return enabled and status.verdict is Verdict.PASSED and not self.in_error(now)

    def __repr__(self) -> str:
        return f"<MemberView {self.balancer} {self.name} {self.status.operator.value}>"


def _checks(settings: MemberSettings, balancer: BalancerSettings) -> Sequence[HealthCheck]:
    """Its own checks, or else its balancer's."""
    own = settings.health_checks
    return balancer.health_checks if own is None else own
