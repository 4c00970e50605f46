"""How far drains have come, and what follows at their end.

A drained member keeps its sessions until they are over. At a deadline those that are left move: the
member is disabled, so that each goes elsewhere with its next request (never within one), and those
that wait for news are sent away. A drain is done once nothing is left.
"""

import time
from collections.abc import Mapping

from proxy.control.cluster import Cluster
from proxy.control.member_view import Drain, MemberView
from proxy.core.sessions import MemberName, live_for
from proxy.core.settings import Event, OperatorStatus
from proxy.core.takeover import Said


class Drains:
    """All drains of the cluster."""

    __slots__ = ("_cluster",)

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @property
    def under_way(self) -> list[tuple[MemberView, Drain]]:
        """Those that aren't done, or whose deadline is yet to come."""
        found = [(view, view.drain) for view in self._cluster.members if view.drain is not None]
        return [(view, drain) for view, drain in found if not drain.done or _is_due(drain)]

    def look(
        self,
        sessions: Mapping[MemberName, int],
        last_seen: Mapping[MemberName, float],
        *,
        complete: bool = True,
    ) -> bool:
        """How many sessions are left as just counted; whether workers have to know anything.

        ``last_seen``: when the last of a member's sessions was, in monotonic seconds. What is not
        ``complete`` says of no member that it is empty.
        """
        changed = False
        for view, drain in self.under_way:
            name = (view.balancer, view.name)
            drain.left = sessions.get(name, 0)
            if drain.sessions is None:
                drain.sessions = drain.left
            # Sessions may live that nobody has seen since the workers began to count.
            seen = max(last_seen.get(name, 0.0), self._cluster.counted_since)
            over = seen + self._lifetime(view) - time.monotonic()
            drain.last_over = time.time() + over
            is_empty = complete and not drain.left and over <= 0
            changed |= self._step(view, drain, is_empty=is_empty)
        return changed

    def _lifetime(self, view: MemberView) -> float:
        return live_for(self._cluster.settings.balancers[view.balancer])

    def _step(self, view: MemberView, drain: Drain, *, is_empty: bool) -> bool:
        busy = self._cluster.counters(self._cluster.members.index(view)).busy
        late = drain.until is not None and time.time() >= drain.until
        if not drain.moving and late:
            self._move(view, drain)
            return True
        if drain.done or busy or not (is_empty or drain.moving):
            return False
        disable = drain.until_empty and not drain.moving
        if disable:
            self._disable(view, drain, "drained until it was empty")
        drain.done = True
        text = f"{view.title} is drained: nothing is left on it"
        self._cluster.happenings.happened(Event.DRAINED, view.balancer, view.name, text)
        return disable

    def _move(self, view: MemberView, drain: Drain) -> None:
        """The deadline has come: what is left goes elsewhere."""
        drain.moving = True
        self._disable(view, drain, "its drain has come to its end")
        spread = self._cluster.settings.stop_timeout
        view.status = view.status._replace(empty_by=time.monotonic() + spread)
        self._cluster.publish()
        text = f"{view.title}: its drain has come to its end; {drain.left} live sessions move"
        self._cluster.happenings.note(text)

    def _disable(self, view: MemberView, drain: Drain, why: str) -> None:
        by = view.said.by if view.said is not None else "drain"
        self._cluster.set_operator_status(view, OperatorStatus.DISABLED, Said(by, time.time(), why))
        view.drain = drain

    def __repr__(self) -> str:
        return f"<Drains {[view.name for view, _ in self.under_way]}>"


def _is_due(drain: Drain) -> bool:
    """Whether its deadline moves sessions yet: also one that nobody knew of may turn up."""
    return drain.until is not None and not drain.moving and not drain.until_empty
