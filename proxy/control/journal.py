"""What operators and takeovers set, as it survives a restart, a reload and an upgrade.

One JSON object, all of it read before any of it counts. An entry holds as long as the configuration
still says what it said when the entry was made; where it says something new, that counts. The
state folder's side of it (whole files, checksums, damaged ones set aside) is ``state``.
"""

from collections.abc import Iterator
from typing import Any

from proxy.control.cluster import Cluster
from proxy.control.member_view import Drain, MemberView
from proxy.core.health import HandedOn, Verdict
from proxy.core.member import Terms, terms_of
from proxy.core.settings import Fence, OperatorStatus
from proxy.core.takeover import Origin, Said, Takeover

# What is kept of takeovers: the configuration says its own at each start. The file's as well, lest
# it be news, or be forgotten when the file can't be used just then.
_KEPT = (Origin.OPERATOR, Origin.FILE, Origin.CHECKS)
_FORMAT = 1


def saved(cluster: Cluster, *, upgrade: bool = False) -> dict[str, Any]:
    """All that was said since the start and must survive, ready for JSON.

    For an ``upgrade`` what checks have found as well.
    """
    return {
        "format": _FORMAT,
        "members": [
            entry
            for view in cluster.members
            if (entry := _member(view, upgrade=upgrade)) is not None
        ],
        "takeovers": [
            {"balancer": name, "route": gone, **_takeover(entry)}
            for name, takeovers in cluster.takeovers.items()
            for origin in _KEPT
            for gone, entry in takeovers.of(origin).items()
        ],
    }


def _member(view: MemberView, *, upgrade: bool) -> dict[str, Any] | None:
    operator, file = view.status.operator, view.settings.status
    found: dict[str, Any] = {}
    if operator is not file or view.drain is not None:
        found["status"] = {"file": file.value, "operator": operator.value, **_said(view.said)}
    if view.terms_said is not None:
        terms = {"file": list(terms_of(view.settings)), "terms": list(view.status.terms)}
        found["terms"] = {**terms, **_said(view.terms_said)}
    if view.fenced is not None:
        found["fenced"] = _said(view.fenced)
    if view.drain is not None:
        drain = view.drain
        found["drain"] = {
            "until": drain.until,
            "until_empty": drain.until_empty,
            "since": drain.since,
            "moving": drain.moving,
            "done": drain.done,
        }
    if upgrade and view.health.checks:
        verdict, *others = view.health.handed_on()
        found["health"] = [verdict.value, *others]
    if view.is_down:
        found["is_down"] = True
    if not found:
        return None
    return {
        "balancer": view.balancer,
        "url": view.settings.url,
        "route": view.settings.route,
        **found,
    }


def _said(said: Said | None) -> dict[str, Any]:
    return {} if said is None else said._asdict()


def _takeover(entry: Takeover) -> dict[str, Any]:
    return {"heir": entry.heir, "origin": entry.origin.value, **_said(entry.said)}


# --- and back ----------------------------------------------------------------------------------


def restore(cluster: Cluster, found: Any) -> list[str]:
    """Take up what ``saved`` said, as far as it still holds; in words.

    Nothing is taken up, and some exception raised, if it is nothing that ``saved`` says.
    """
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise TypeError("it is of another format")
    by_key = {view.key: view for view in cluster.members}
    members = [
        (by_key.get((entry["balancer"], entry["url"], entry["route"])), _Read(entry))
        for entry in found["members"]
    ]
    takeovers = [_read_takeover(entry) for entry in found["takeovers"]]
    words = []
    for view, read in members:
        if view is None:
            words.append(f"{read.title}: there is no such member now; what was said is forgotten")
        else:
            words += _restore_member(cluster, view, read)
    for balancer, gone, entry in takeovers:
        if entry.origin is not Origin.FILE or _has_file(cluster, balancer):
            words.append(_restore_takeover(cluster, balancer, gone, entry))
    cluster.publish()
    return words


class _Read:
    """One member's entry, read and checked."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.title = f"{entry['balancer']}: {entry['route'] or entry['url']}"
        self.status: tuple[OperatorStatus, OperatorStatus, Said] | None = None
        self.terms: tuple[Terms, Terms, Said] | None = None
        if "status" in entry:
            told = entry["status"]
            statuses = OperatorStatus(told["file"]), OperatorStatus(told["operator"])
            self.status = (*statuses, _read_said(told))
        if "terms" in entry:
            told = entry["terms"]
            self.terms = (_read_terms(told["file"]), _read_terms(told["terms"]), _read_said(told))
        self.fenced = _read_said(entry["fenced"]) if "fenced" in entry else None
        self.drain = _read_drain(entry["drain"]) if "drain" in entry else None
        self.is_down = bool(entry.get("is_down"))
        self.health = _read_health(entry["health"]) if "health" in entry else None


def _read_health(told: list[Any]) -> HandedOn:
    verdict, back_at, failures, passing = told
    times = tuple(float(each) for each in failures)
    states = {str(title): None if each is None else bool(each) for title, each in passing.items()}
    return HandedOn(Verdict(verdict), float(back_at), times, states)


def _read_terms(told: list[Any]) -> Terms:
    load_factor, lbset, hot_standby, hot_spare = told
    return Terms(float(load_factor), int(lbset), bool(hot_standby), bool(hot_spare))


def _read_said(told: dict[str, Any]) -> Said:
    return Said(str(told.get("by", "")), float(told.get("at", 0.0)), str(told.get("why", "")))


def _read_drain(told: dict[str, Any]) -> Drain:
    until = told["until"]
    return Drain(
        sessions=None,
        until=None if until is None else float(until),
        until_empty=bool(told["until_empty"]),
        since=float(told["since"]),
        moving=bool(told["moving"]),
        done=bool(told["done"]),
    )


def _read_takeover(told: dict[str, Any]) -> tuple[str, str, Takeover]:
    entry = Takeover(str(told["heir"]), Origin(told["origin"]), _read_said(told))
    return str(told["balancer"]), str(told["route"]), entry


def _restore_member(cluster: Cluster, view: MemberView, read: _Read) -> Iterator[str]:
    if read.status is not None:
        file, operator, said = read.status
        if view.settings.status is file:
            cluster.set_operator_status(view, operator, said)
            view.drain = read.drain
            yield f"{read.title} is still {operator.value}, as was said"
        else:
            now = view.settings.status.value
            yield f"{read.title} is {operator.value} no more, as was said: the file says {now} now"
    if read.terms is not None:
        former, terms, said = read.terms
        if terms_of(view.settings) == former:
            view.set_terms(terms)
            view.terms_said = said
            yield f"{read.title} still has the load factor and role that were said"
        else:
            yield f"{read.title} has the load factor and role of the file, which are new"
    view.is_down = read.is_down
    if read.health is not None:
        view.health.take_up(read.health)
        if view.health.verdict is not view.status.verdict:
            cluster.set_verdict(view)
    fence = cluster.settings.balancers[view.balancer].fence
    if read.fenced is not None and fence is Fence.ON_FAILURE:
        view.health.fence()
        view.fenced = read.fenced
        cluster.set_verdict(view)
        yield f"{read.title} is still fenced"


def _has_file(cluster: Cluster, balancer: str) -> bool:
    settings = cluster.settings.balancers.get(balancer)
    return settings is not None and settings.failover_file is not None


def _restore_takeover(cluster: Cluster, balancer: str, gone: str, entry: Takeover) -> str:
    known = cluster.by_route(balancer, gone), cluster.by_route(balancer, entry.heir)
    if None in known:
        return f"{balancer}: {entry.heir} has taken over from {gone} no more: one of them is gone"
    cluster.takeovers[balancer].put(gone, entry.heir, entry.origin, entry.said)
    return f"{balancer}: {entry.heir} still has {gone}'s sessions"
