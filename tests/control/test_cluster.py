"""The one view of all members: where their status is decided, and what of it survives."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from proxy.control.cluster import Cluster
from proxy.control.member_view import MemberView
from proxy.control.overview import balancers
from proxy.control.scoreboard import MemberCounters, MemberStatus, Scoreboard, WorkerCounters
from proxy.core.settings import OperatorStatus, Settings
from tests.control.clusters import settings

ENABLED, DRAIN, DISABLED = (
    OperatorStatus.ENABLED,
    OperatorStatus.DRAIN,
    OperatorStatus.DISABLED,
)
Make = Callable[..., Cluster]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes clusters, whose boards are closed in the end."""
    made: list[Cluster] = []

    def cluster(*members: dict[str, Any], workers: int = 2, **balancers: Any) -> Cluster:
        made.append(Cluster(settings(*members, **balancers), workers))
        return made[-1]

    yield cluster
    for each in made:
        each.board.close()


def reload(cluster: Cluster, other: Settings, workers: int = 2) -> None:
    """Put other settings in force; the former board is closed."""
    cluster.reload(other, workers).close()


def fails(board: Scoreboard, worker: int, member: int, since: float) -> None:
    """A worker's traffic to a member has failed."""
    board.set_counters(worker, member, board.counters(worker, member)._replace(error_since=since))


def statuses(cluster: Cluster) -> list[MemberStatus]:
    """What workers are told of all members."""
    return [cluster.board.status(index) for index in range(len(cluster.members))]


# --- one place for a member's status --------------------------------------------------------------


def test_begins_with_the_file(make: Make) -> None:
    """At first a member's status is the file's, and workers find it on the board."""
    cluster = make({}, {"status": "drain"}, chat=({"status": "disabled"},))
    assert [status.operator for status in statuses(cluster)] == [ENABLED, DRAIN, DISABLED]
    assert [view.name for view in cluster.members] == ["server1", "server2", "server1"]
    assert [view.balancer for view in cluster.members] == ["mail", "mail", "chat"]
    assert repr(cluster) == "<Cluster 3 members>"
    assert repr(cluster.members[1]) == "<MemberView mail server2 drain>"


def test_errors_of_several_workers(make: Make) -> None:
    """What one worker ran into all are told; of several errors the last one counts (F1)."""
    cluster = make({}, {})
    assert not cluster.take_errors()
    fails(cluster.board, 0, 1, 100.0)
    fails(cluster.board, 1, 1, 90.0)
    assert cluster.take_errors()
    assert statuses(cluster) == [
        MemberStatus(ENABLED, error_since=0),
        MemberStatus(ENABLED, error_since=100.0),
    ]
    assert not cluster.take_errors()  # the same is no news
    fails(cluster.board, 1, 1, 99.0)
    assert not cluster.take_errors()  # nor is what was before
    fails(cluster.board, 1, 1, 101.0)
    assert cluster.take_errors()
    assert cluster.board.status(1).error_since == 101.0


def test_error_outlives_its_worker(make: Make) -> None:
    """A member stays in error when the worker is gone that found it so."""
    cluster = make({})
    fails(cluster.board, 0, 0, 100.0)
    cluster.take_errors()
    cluster.worker_ended(0)
    assert not cluster.take_errors()
    assert cluster.board.status(0).error_since == 100.0


def test_retry_time(make: Make) -> None:
    """In error is who failed less than its retry time ago, and never who did not fail (F6)."""
    (view,) = make({"retry_after": "10s"}).members
    assert not view.in_error(0.0)
    view.status = view.status._replace(error_since=100.0)
    assert view.in_error(100.0)
    assert view.in_error(110.0)
    assert not view.in_error(110.1)


def test_operator_status(make: Make) -> None:
    """What the operator says is written to the board, and hides no error (habit 12)."""
    cluster = make({}, {})
    fails(cluster.board, 0, 1, 100.0)
    cluster.take_errors()
    cluster.set_operator_status(cluster.members[1], DRAIN)
    assert statuses(cluster)[1] == MemberStatus(DRAIN, error_since=100.0)
    assert statuses(cluster)[0].operator is ENABLED


def test_find(make: Make) -> None:
    """A member is found by its route or its url, in its own balancer alone."""
    cluster = make({}, {"route": None, "url": "http://b:81"}, chat=({},))
    assert [view.key for view in cluster.find("mail", "server1")] == [
        ("mail", "http://server1", "server1")
    ]
    assert cluster.find("mail", "http://server1") == cluster.find("mail", "server1")
    assert cluster.find("mail", "http://b:81")[0].name == "http://b:81"
    assert not cluster.find("mail", "server2")
    assert not cluster.find("chat", "http://b:81")
    assert not cluster.find("nobody", "server1")


# --- reload ---------------------------------------------------------------------------------------


def test_reload_keeps_what_was_said(make: Make) -> None:
    """A member stays as the operator wants it, while the file says of it what it did."""
    cluster = make({}, {"status": "drain"})
    cluster.set_operator_status(cluster.members[0], DISABLED)
    cluster.set_operator_status(cluster.members[1], ENABLED)
    reload(cluster, settings({"load_factor": 2}, {"status": "drain"}))
    assert [status.operator for status in statuses(cluster)] == [DISABLED, ENABLED]
    assert cluster.members[0].settings.load_factor == 2


def test_reload_with_another_status_in_the_file(make: Make) -> None:
    """Once the file says another status than before, that is the operator's last word."""
    cluster = make({}, {"status": "drain"}, {"status": "drain"})
    cluster.set_operator_status(cluster.members[0], DISABLED)
    cluster.set_operator_status(cluster.members[1], DISABLED)
    reload(cluster, settings({"status": "drain"}, {}, {"status": "disabled"}))
    assert [status.operator for status in statuses(cluster)] == [DRAIN, ENABLED, DISABLED]


@pytest.mark.parametrize("change", [{"url": "http://other"}, {"route": "other"}])
def test_another_url_or_route_is_another_member(make: Make, change: dict[str, str]) -> None:
    """A server at another address, or under another route, begins anew: it is another one."""
    cluster = make({}, {})
    cluster.set_operator_status(cluster.members[0], DISABLED)
    fails(cluster.board, 0, 0, 100.0)
    cluster.take_errors()
    cluster.board.set_counters(0, 0, MemberCounters(elected=5))
    reload(cluster, settings(change, {}))
    assert statuses(cluster)[0] == MemberStatus(ENABLED)
    assert cluster.counters(0) == MemberCounters()


def test_another_balancer_has_other_members(make: Make) -> None:
    """The same server in another balancer is another member."""
    cluster = make({}, chat=({},))
    cluster.set_operator_status(cluster.members[1], DRAIN)
    reload(cluster, settings({}, forum=({},)))
    assert [status.operator for status in statuses(cluster)] == [ENABLED, ENABLED]


def test_order_in_the_file(make: Make) -> None:
    """Members that move in the file take their status and their counts along."""
    cluster = make({}, {}, {})
    for index in range(3):
        cluster.board.set_counters(1, index, MemberCounters(elected=index + 1))
    cluster.set_operator_status(cluster.members[2], DRAIN)
    fails(cluster.board, 0, 1, 100.0)
    cluster.take_errors()
    third, first = ({"url": f"http://server{n}", "route": f"server{n}"} for n in (3, 1))
    new = {"url": "http://new", "route": "new"}
    reload(cluster, settings(third, new, first))
    assert [view.name for view in cluster.members] == ["server3", "new", "server1"]
    assert [status.operator for status in statuses(cluster)] == [DRAIN, ENABLED, ENABLED]
    assert [cluster.counters(index).elected for index in range(3)] == [3, 0, 1]
    reload(cluster, settings({}, {}, {}))
    assert statuses(cluster)[1].error_since == 0  # who was away begins anew


def test_reload_begins_no_error_anew(make: Make) -> None:
    """An error that nobody had taken up before a reload is taken up after it, once."""
    cluster = make({}, {})
    fails(cluster.board, 0, 0, 100.0)
    cluster.take_errors()
    fails(cluster.board, 1, 1, 200.0)
    reload(cluster, settings({}, {}))
    assert [status.error_since for status in statuses(cluster)] == [100.0, 0]
    assert cluster.take_errors()
    assert [status.error_since for status in statuses(cluster)] == [100.0, 200.0]
    assert not cluster.take_errors()


def test_leaving_outlives_a_reload(make: Make) -> None:
    """Those before us are told to stay away across a reload."""
    cluster = make({})
    cluster.board.leaving = True
    reload(cluster, settings({}))
    assert cluster.board.leaving


def test_former_board_is_the_callers(make: Make) -> None:
    """Workers go on with the former board until they have the new one."""
    cluster = make({})
    former = cluster.board
    assert cluster.reload(settings({}), 3) is former
    former.set_worker(0, WorkerCounters(1, 2, 3, 4))
    assert cluster.board is not former
    assert cluster.board.workers == 3
    former.close()


# --- counts ---------------------------------------------------------------------------------------


def test_counts_of_all_workers(make: Make) -> None:
    """Counts are those of all workers, and those of workers that have ended."""
    cluster = make({}, {})
    cluster.board.set_counters(0, 1, MemberCounters(1, 10, 100, 1000, 5.5, 2))
    cluster.board.set_counters(1, 1, MemberCounters(2, 20, 200, 2000, 4.5))
    assert cluster.counters(1) == MemberCounters(3, 30, 300, 3000, 5.5, 2)
    cluster.worker_ended(0)
    # what it had under way has ended with it
    assert cluster.counters(1) == MemberCounters(2, 30, 300, 3000, 5.5)
    cluster.board.set_counters(0, 1, MemberCounters(elected=1))
    cluster.worker_ended(0)
    assert cluster.counters(1).elected == 31
    assert cluster.counters(0) == MemberCounters()


def test_counts_never_go_back(make: Make) -> None:
    """Until a worker has taken up new settings its counts are those it had; then its own.

    They are not lost either with a worker that ends in between.
    """
    cluster = make({}, {})
    cluster.board.set_counters(0, 0, MemberCounters(elected=10))
    cluster.board.set_counters(1, 0, MemberCounters(elected=5))
    reload(cluster, settings({}, {}))
    assert cluster.counters(0).elected == 15
    cluster.board.set_counters(0, 0, MemberCounters(elected=11))
    assert cluster.counters(0).elected == 16
    cluster.worker_ended(1)
    assert cluster.counters(0).elected == 16


def test_counts_with_fewer_workers(make: Make) -> None:
    """What workers counted that are no more wanted stays."""
    cluster = make({})
    cluster.board.set_counters(1, 0, MemberCounters(3, elected=5))
    reload(cluster, settings({}), workers=1)
    assert cluster.counters(0) == MemberCounters(elected=5)
    reload(cluster, settings({}), workers=3)
    assert cluster.counters(0) == MemberCounters(elected=5)


def test_exchanges_of_all_workers(make: Make) -> None:
    """Exchanges count with all workers there were, over reloads and deaths."""
    cluster = make({})
    cluster.board.set_worker(0, WorkerCounters(heartbeat=1.5, exchanges=10))
    cluster.board.set_worker(1, WorkerCounters(heartbeat=2.5, exchanges=5))
    assert cluster.exchanges == 15
    reload(cluster, settings({}), workers=3)
    assert cluster.exchanges == 15
    # nobody hangs because of a reload
    assert [cluster.board.worker(worker).heartbeat for worker in range(3)] == [1.5, 2.5, 0]
    cluster.worker_ended(0)
    assert cluster.exchanges == 15
    reload(cluster, settings({}), workers=1)
    assert cluster.exchanges == 15


# --- what people see ------------------------------------------------------------------------------


def test_as_json(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is known of each member, in whole numbers and plain words."""
    monkeypatch.setattr(time, "monotonic", lambda: 110.0)
    cluster = make({}, {"route": None})
    fails(cluster.board, 0, 0, 100.0)
    cluster.take_errors()
    cluster.board.set_counters(1, 0, MemberCounters(1, 2, 3, 4))
    cluster.set_operator_status(cluster.members[0], DRAIN)
    told = balancers(cluster, {("mail", "server1"): 7})
    assert json.loads(json.dumps(told)) == told
    assert told["mail"]["lbmethod"] == "byrequests"
    first = told["mail"]["members"][0]
    expected: dict[str, Any] = {
        "route": "server1",
        "url": "http://server1",
        "status": "drain, in error",
        "letters": "NE",
        "operator": "drain",
        "said": None,
        "verdict": "passed",
        "reason": None,
        "checks": [],
        "fenced": None,
        "in_error": True,
        "takeover": None,
        "load_factor": 1.0,
        "lbset": 0,
        "hot_standby": False,
        "hot_spare": False,
        "terms_said": None,
        "drain": None,
        "busy": 1,
        "waiting": 0,
        "elected": 2,
        "sent": 3,
        "received": 4,
        "sessions": 7,
    }
    assert first == expected
    assert told["mail"]["members"][1]["status"] == "ok"
    assert told["mail"]["members"][1]["sessions"] == 0


def operators(cluster: Cluster) -> list[OperatorStatus]:
    """What the operator wants of each member."""
    return [view.status.operator for view in cluster.members]


def test_members_without_a_route(make: Make) -> None:
    """Who has no route is told apart by its url."""
    cluster = make({"route": None}, {"route": None})
    assert isinstance(cluster.members[0], MemberView)
    cluster.set_operator_status(cluster.members[1], DRAIN)
    reload(cluster, settings({"route": None}, {"route": None}))
    assert operators(cluster) == [ENABLED, DRAIN]
