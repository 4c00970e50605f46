"""What people are told of what is served: by the status command, by the API, by systemd.

Nothing is decided here, and nothing kept. The words are those of ``commands.Commands.status``.
"""

import time
from collections.abc import Mapping
from typing import Any

from proxy.control.cluster import Cluster
from proxy.control.member_view import Drain, MemberView
from proxy.control.served import Served
from proxy.core.health import Verdict
from proxy.core.member import status_words
from proxy.core.sessions import MemberName
from proxy.core.settings import OperatorStatus
from proxy.core.takeover import Said


async def overview(served: Served) -> dict[str, Any]:
    """All that is known of what is served, ready for JSON."""
    sessions = (await served.sessions.count()).sessions
    workers = _workers(served)
    return {
        "generation": served.generation,
        "frontends": [
            {"listen": each.listen, "tls": bool(each.certificates)}
            for each in served.settings.frontends
        ],
        "connections": sum(each["connections"] for each in workers),
        "requests": served.cluster.exchanges,
        "workers": workers,
        "balancers": balancers(served.cluster, sessions),
    }


def in_numbers(served: Served) -> str:
    """How much is served, for one line."""
    workers = _workers(served)
    connections, requests = sum(each["connections"] for each in workers), served.cluster.exchanges
    return f"serving: {connections} connections, {requests} requests, {len(workers)} workers"


def balancers(cluster: Cluster, sessions: Mapping[MemberName, int]) -> dict[str, Any]:
    """All balancers with their members; ``sessions`` are live ones."""
    found: dict[str, Any] = {
        name: {"lbmethod": balancer.lbmethod.value, "members": []}
        for name, balancer in cluster.settings.balancers.items()
    }
    for index, view in enumerate(cluster.members):
        name = (view.balancer, view.name)
        told = {**_member(cluster, view), **_counts(cluster, index, sessions.get(name, 0))}
        found[view.balancer]["members"].append(told)
    return found


def _member(cluster: Cluster, view: MemberView) -> dict[str, Any]:
    now, status, takeover = time.monotonic(), view.status, cluster.takeover_of(view)
    return {
        "route": view.settings.route,
        "url": view.settings.url,
        "status": status_words(status.operator, status.verdict, in_error=view.in_error(now)),
        "letters": _letters(view, now),
        "operator": status.operator.value,
        "said": _said(view.said),
        "verdict": status.verdict.value,
        "reason": view.health.reason or None,
        "checks": [
            {
                "name": title,
                "required": check.settings.required,
                "passing": check.passing,
                "text": check.text,
            }
            for title, check in view.health.checks.items()
        ],
        "fenced": _said(view.fenced),
        "in_error": view.in_error(now),
        "takeover": None
        if takeover is None
        else {
            "heir": takeover.heir,
            "origin": takeover.origin.value,
            **takeover.said._asdict(),
        },
        **status.terms._asdict(),
        "terms_said": _said(view.terms_said),
        "drain": _drain(view.drain),
    }


def _said(said: Said | None) -> dict[str, Any] | None:
    return None if said is None else said._asdict()


def _drain(drain: Drain | None) -> dict[str, Any] | None:
    if drain is None:
        return None
    return {
        "since": drain.since,
        "until": drain.until,
        "until_empty": drain.until_empty,
        "sessions": drain.sessions,
        "left": drain.left,
        "empty_at": drain.empty_at(time.time()),
        "moving": drain.moving,
        "done": drain.done,
    }


def _letters(view: MemberView, now: float) -> str:
    """What Apache prints for it (B2)."""
    status, operator = view.status, view.status.operator
    letters = {
        "I": view.settings.ignore_errors,
        "D": operator is OperatorStatus.DISABLED,
        "S": operator is OperatorStatus.STOPPED,
        "N": operator is OperatorStatus.DRAIN,
        "E": view.in_error(now),
        "C": status.verdict is not Verdict.PASSED,
        "H": bool(status.hot_standby),
        "R": bool(status.hot_spare),
    }
    return "".join(letter for letter, holds in letters.items() if holds)


def _counts(cluster: Cluster, index: int, sessions: int) -> dict[str, Any]:
    counters = cluster.counters(index)
    return {
        "busy": int(counters.busy),
        "waiting": int(counters.waiting),
        "elected": int(counters.elected),
        "sent": int(counters.sent),
        "received": int(counters.received),
        "sessions": sessions,
    }


def _workers(served: Served) -> list[dict[str, Any]]:
    """The workers in their slots."""
    now, wall = time.monotonic(), time.time()
    told = []
    for worker in served.workers.current:
        counters = served.cluster.board.worker(worker.number)
        told.append(
            {
                "number": worker.number + 1,
                "pid": worker.pid,
                "phase": worker.phase.value,
                "generation": worker.generation,
                "connections": int(counters.connections),
                "requests": int(counters.exchanges),
                "started": wall - (now - worker.started),
                "heartbeat": round(now - counters.heartbeat, 3),
            }
        )
    return told
