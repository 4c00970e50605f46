"""What operators and cluster managers say of members: drain, disable, failover, readmit, terms.

Each is carried out at once on the cluster, with by whom, when and why; what can't be is refused
with the reason. Telling workers and saving are the caller's part.
"""

import time
from collections.abc import Mapping
from typing import Any

from proxy.control.cluster import Cluster
from proxy.control.commands import CommandError, DrainUntil
from proxy.control.member_view import Drain, MemberView
from proxy.control.verdicts import Verdicts
from proxy.core.health import Verdict
from proxy.core.settings import Event, OperatorStatus
from proxy.core.takeover import Origin, Said


def member_named(cluster: Cluster, balancer: str, member: str) -> MemberView:
    """The member of a balancer with this route or url; raises CommandError."""
    found = cluster.find(balancer, member)
    if found:
        return found[0]
    if balancer not in cluster.settings.balancers:
        raise CommandError(f"there is no balancer {balancer}")
    known = ", ".join(view.name for view in cluster.of(balancer))
    raise CommandError(f"{balancer} has no member {member}; it has {known}")


class Operations:
    """Commands about members."""

    __slots__ = ("_cluster", "_verdicts")

    def __init__(self, cluster: Cluster, verdicts: Verdicts) -> None:
        self._cluster = cluster
        self._verdicts = verdicts

    # --- operator status ------------------------------------------------------------------------

    def set_status(self, view: MemberView, status: OperatorStatus, said: Said) -> None:
        """What the operator wants of a member, from now on."""
        self._cluster.set_operator_status(view, status, said)
        self._note(view, f"is {status.value}", said)

    def drain(self, view: MemberView, until: DrainUntil, said: Said) -> None:
        """No new sessions for a member, and an end of it for those it has."""
        self.set_status(view, OperatorStatus.DRAIN, said)
        view.drain = Drain(None, until.deadline, until.empty, time.time())

    # --- terms ----------------------------------------------------------------------------------

    def set_terms(self, view: MemberView, changes: Mapping[str, Any], said: Said) -> None:
        """Another load factor, lbset or role, until the file says something new."""
        terms = view.status.terms._replace(**changes)
        if terms.hot_spare and terms.hot_standby:
            raise CommandError(f"{view.title} can't be both hot_spare and hot_standby")
        view.set_terms(terms)
        view.terms_said = said
        self._cluster.publish()
        told = ", ".join(f"{key} {value}" for key, value in changes.items())
        self._note(view, f"has {told}", said)

    # --- takeovers ------------------------------------------------------------------------------

    def failover(self, view: MemberView, heir: str, said: Said) -> None:
        """Another member has taken over this one's sessions."""
        gone, taker = view.settings.route, member_named(self._cluster, view.balancer, heir)
        if gone is None or taker.settings.route is None:
            raise CommandError("a member without a route has no sessions that could be taken over")
        takeovers = self._cluster.takeovers[view.balancer]
        if taker is view:
            raise CommandError(f"{view.title} can't take over its own sessions")
        if takeovers.circle(gone, taker.settings.route):
            raise CommandError(
                f"{taker.name}'s own sessions are taken over, in the end by {view.name};"
                f" clear that first: balanceme failover --clear {taker.name}"
            )
        before = takeovers.heirs
        takeovers.put(gone, taker.settings.route, Origin.OPERATOR, said)
        text = f"{view.title}: {taker.name} takes over its sessions, as {said.by} said"
        self._cluster.tell_takeover(view.balancer, gone, before, text, reason=said.why or None)

    def clear_failover(self, view: MemberView, said: Said) -> None:
        """A member's sessions are its own again; raises CommandError if it isn't ours to say."""
        takeovers, route = self._cluster.takeovers[view.balancer], view.settings.route or ""
        before = takeovers.heirs
        entry = takeovers.clear(route, Origin.OPERATOR)
        if entry is None:
            left = takeovers.in_force().get(route)
            if left is not None:
                raise CommandError(f"{view.title}: {_still(left.origin)}")
            return  # as it should be
        text = f"{view.title}: {entry.heir} takes its sessions over no more, as {said.by} said"
        self._cluster.tell_takeover(view.balancer, route, before, text, reason=said.why or None)

    def set_failover_file(self, balancer: str, heirs: Mapping[str, str]) -> None:
        """What a cluster manager wrote is in force."""
        takeovers = self._cluster.takeovers[balancer]
        former = {gone: entry.heir for gone, entry in takeovers.of(Origin.FILE).items()}
        before = takeovers.heirs
        takeovers.replace(Origin.FILE, heirs, Said("failover_file", time.time()))
        tell = self._cluster.tell_takeover
        for gone, heir in heirs.items():
            if former.get(gone) != heir:
                text = f"{balancer}: {gone}: {heir} takes over its sessions, as failover_file says"
                tell(balancer, gone, before, text)
        for gone, heir in former.items():
            if gone not in heirs:
                text = f"{balancer}: {gone}: {heir} takes its sessions over no more (failover_file)"
                tell(balancer, gone, before, text)

    # --- fencing --------------------------------------------------------------------------------

    def readmit(self, view: MemberView, said: Said) -> None:
        """A member that is fenced or held off may serve again, as soon as its checks pass."""
        before = view.health.verdict
        if not view.health.readmit():
            state = "it passes its checks" if before is Verdict.PASSED else view.health.reason
            raise CommandError(f"{view.title} is neither fenced nor held off: {state}")
        view.fenced = None
        self._cluster.set_verdict(view)
        verdict = view.health.verdict
        text = f"{view.title} is readmitted, as {said.by} said"
        if verdict is not Verdict.PASSED:
            text += f"; it is back once its checks pass: {view.health.reason or 'not checked yet'}"
        self._cluster.happenings.happened(
            Event.READMITTED, view.balancer, view.name, text, reason=said.why
        )
        if verdict is Verdict.PASSED:
            self._verdicts.returned(view)

    def _note(self, view: MemberView, what: str, said: Said) -> None:
        why = f": {said.why}" if said.why else ""
        self._cluster.happenings.note(f"{view.title} {what}, as {said.by} said{why}")


def _still(origin: Origin) -> str:
    if origin is Origin.CHECKS:
        return "its checks fail; once they pass it has its sessions again"
    where = "failover in the configuration" if origin is Origin.CONFIGURATION else origin.value
    return f"it is {where} that says who has taken over its sessions; change that"
