"""From the results of checks to what follows: verdicts, takeovers, members that come back.

The cluster is changed here and nowhere else on the checks' account. Nothing waits; times that run
out (a hold-off) are looked at by ``tick``.
"""

import time
from collections.abc import Iterable, Mapping

from proxy.control.cluster import Cluster
from proxy.control.member_view import MemberView
from proxy.control.prober import Key, Probed
from proxy.core.health import Verdict
from proxy.core.sessions import MemberName
from proxy.core.settings import Event, Failback, OperatorStatus, Takeover
from proxy.core.takeover import Origin, Said

_OUT = (Verdict.FAILED, Verdict.FENCED, Verdict.HELD)
# What becomes of the sessions that were taken over, in words.
_FAILBACK = {
    Failback.STAY: "stay there until they end",
    Failback.RETURN: "return with their next request",
    Failback.EXPIRE: "return when their cookies run out",
}
CHECKS = "health checks"


class Verdicts:
    """What checks bring about."""

    __slots__ = ("_cluster", "sessions")

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        # live sessions of each member, as last counted: who has the fewest takes over
        self.sessions: Mapping[MemberName, int] = {}

    def take(self, results: Iterable[Probed]) -> bool:
        """Results have come; whether workers have to know."""
        views = {view.key: view for view in self._cluster.members}
        changed = flipped = False
        for result in results:
            view = views.get(result.key)
            if view is not None:
                flipped |= self._count(view, result)
                changed |= self._recover(view, result)
        # Nearly all say what those before them said: what the time brings is for the next tick.
        return (flipped and self.tick()) or changed

    def tick(self) -> bool:
        """Verdicts and takeovers as of now; whether workers have to know."""
        now = time.monotonic()
        changed = False
        serving = self._serving(now)
        for view in self._cluster.members:
            before = view.health.verdict
            alone = serving[view.balancer] <= {view.key}
            if view.health.judge(now, alone=alone):
                self._flipped(view, before)
                serving = self._serving(now)
                changed = True
            elif self._is_back_unnoticed(view):
                self.returned(view)
                changed = True
        for view in self._cluster.members:
            changed |= self._take_over(view, now)
        return changed

    def _serving(self, now: float) -> dict[str, set[Key]]:
        """Of each balancer, the members who can serve anybody's sessions."""
        cluster = self._cluster
        found: dict[str, set[Key]] = {name: set() for name in cluster.takeovers}
        gone = {name: takeovers.heirs for name, takeovers in cluster.takeovers.items()}
        for view in cluster.members:
            if view.settings.route not in gone[view.balancer] and view.usable(now):
                found[view.balancer].add(view.key)
        return found

    def _is_back_unnoticed(self, view: MemberView) -> bool:
        """Whether a member passes that is told to be down: a reload took its checks away."""
        if view.health.verdict is not Verdict.PASSED:
            return False
        taken_over = self._cluster.takeovers[view.balancer].by_checks
        return view.is_down or view.settings.route in taken_over

    # --- one check ------------------------------------------------------------------------------

    def _count(self, view: MemberView, result: Probed) -> bool:
        """Count a result; whether it flipped its check."""
        check = view.health.checks.get(result.title)
        if check is None or not view.health.observe(result.title, result.passed, result.text):
            return False
        advisory = "" if check.settings.required else " (advisory)"
        word = "passes" if result.passed else "fails"
        text = f"{view.title}: check {result.title}{advisory} {word}: {result.text}"
        self._cluster.happenings.note(text, bad=not result.passed)
        return True

    def _recover(self, view: MemberView, result: Probed) -> bool:
        """Checks that pass since traffic failed end the error before its retry time (H5)."""
        check = view.health.checks.get(result.title)
        if not view.in_error(result.at) or check is None or not check.settings.required:
            return False
        if not result.passed:
            view.passed_since[result.title] = 0
        elif result.at - result.took > view.status.error_since:
            view.passed_since[result.title] = view.passed_since.get(result.title, 0) + 1
        required = [each for each in view.health.checks.values() if each.settings.required]
        if any(
            view.passed_since.get(each.settings.title, 0) < each.settings.passes
            for each in required
        ):
            return False
        view.status = view.status._replace(recovered=result.at)
        self._cluster.publish()
        self._cluster.happenings.note(f"{view.title}: in error no more, its checks pass")
        return True

    # --- one member -----------------------------------------------------------------------------

    def _flipped(self, view: MemberView, before: Verdict) -> None:
        cluster, verdict = self._cluster, view.health.verdict
        cluster.set_verdict(view)
        happened, reason = cluster.happenings.happened, view.health.reason
        was_down = view.is_down
        view.is_down |= verdict in (Verdict.FAILED, Verdict.FENCED)
        if verdict is Verdict.FAILED and was_down:
            cluster.happenings.note(f"{view.title} is still down: {reason}", bad=True)
        elif verdict is Verdict.FAILED:
            text = f"{view.title} is down: {reason}"
            happened(Event.MEMBER_DOWN, view.balancer, view.name, text, reason=reason)
        elif verdict is Verdict.FENCED:
            view.fenced = Said(CHECKS, time.time(), reason)
            text = f"{view.title} is down, and fenced until it is readmitted: {reason}"
            if not was_down:
                happened(Event.MEMBER_DOWN, view.balancer, view.name, text, reason=reason)
            happened(Event.FENCED, view.balancer, view.name, text, reason=reason)
        elif verdict is Verdict.HELD:
            wait = max(view.health.back_at - time.monotonic(), 0.0)
            cluster.happenings.note(f"{view.title} passes; held off for {wait:.0f} s more")
        elif before is Verdict.UNKNOWN and not was_down:
            cluster.happenings.note(f"{view.title} passes its checks")
            self.back(view)
        else:
            self.returned(view)

    def returned(self, view: MemberView) -> None:
        """A member that was out is back."""
        view.is_down = False
        text = f"{view.title} is up"
        self._cluster.happenings.happened(Event.MEMBER_UP, view.balancer, view.name, text)
        self.back(view)

    def back(self, view: MemberView) -> None:
        """A member passes: its sessions are its own again, as failback says."""
        route = view.settings.route
        takeovers = self._cluster.takeovers[view.balancer]
        before = takeovers.heirs
        entry = takeovers.clear(route, Origin.CHECKS) if route else None
        if entry is not None and route is not None:
            what = _FAILBACK[self._cluster.settings.balancers[view.balancer].failback]
            text = f"{view.title} has its sessions again; those that {entry.heir} took over {what}"
            if route in takeovers.heirs:
                text = f"{view.title} passes, so its checks let nobody take over from it"
            self._cluster.tell_takeover(view.balancer, route, before, text)

    def _take_over(self, view: MemberView, now: float) -> bool:
        """Somebody takes over a failed member's sessions, if one is to and can."""
        route, takeovers = view.settings.route, self._cluster.takeovers[view.balancer]
        if route is None or view.health.verdict not in _OUT or route in takeovers.in_force():
            return False
        heir = self._heir(view, now)
        if heir is None or heir.settings.route is None:
            return False
        before, said = takeovers.heirs, Said(CHECKS, time.time(), view.health.reason)
        takeovers.put(route, heir.settings.route, Origin.CHECKS, said)
        text = f"{view.title}: {heir.name} takes over its sessions"
        self._cluster.tell_takeover(view.balancer, route, before, text, reason=said.why)
        return True

    def _heir(self, view: MemberView, now: float) -> MemberView | None:
        """Who takes over: who is named, or who has the fewest sessions, and can serve them."""
        balancer = self._cluster.settings.balancers[view.balancer]
        taken_over = self._cluster.takeovers[view.balancer].in_force()
        fit = [
            each
            for each in self._cluster.of(view.balancer)
            if each is not view
            and each.settings.route not in (None, *taken_over)
            and each.status.operator is OperatorStatus.ENABLED
            and each.status.verdict is Verdict.PASSED
        ]
        named = view.settings.takeover
        if named is not None:
            return next((each for each in fit if each.settings.route == named), None)
        if balancer.takeover is not Takeover.AUTO or not fit:
            return None
        return min(fit, key=lambda each: (each.in_error(now), self._load(each)))

    def _load(self, view: MemberView) -> tuple[int, float]:
        index = self._cluster.members.index(view)
        sessions = self.sessions.get((view.balancer, view.name), 0)
        return sessions, self._cluster.counters(index).busy

    def __repr__(self) -> str:
        return f"<Verdicts {[view.health.verdict.value for view in self._cluster.members]}>"
