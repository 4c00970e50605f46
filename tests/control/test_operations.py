"""What operators say of members, and how far drains have come."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from proxy.control.cluster import Cluster
from proxy.control.commands import CommandError, DrainUntil
from proxy.control.drains import Drains
from proxy.control.member_view import MemberView
from proxy.control.operations import Operations, member_named
from proxy.control.scoreboard import MemberCounters
from proxy.control.verdicts import Verdicts
from proxy.core.health import Health
from proxy.core.settings import Event, Fence, HealthCheck, OperatorStatus
from proxy.core.takeover import Origin, Said
from tests.control.clusters import settings

ROOT = Said("root", 1000.0, "new disk")
HOUR = 3600.0


class Desk:
    """A cluster, and who commands it."""

    def __init__(self, *members: dict[str, Any]) -> None:
        self.cluster = Cluster(settings(*members), 1)
        # by now everybody who lives was seen
        self.cluster.counted_since -= HOUR
        self.operations = Operations(self.cluster, Verdicts(self.cluster))
        self.drains = Drains(self.cluster)

    def member(self, number: int) -> MemberView:
        """server1 is 1."""
        return self.cluster.members[number - 1]

    @property
    def events(self) -> list[tuple[Event, str | None]]:
        """What happened since the last look."""
        return [(each.event, each.member) for each in self.cluster.happenings.take()]

    @property
    def heirs(self) -> list[float]:
        """As workers are told: the place of each member's heir."""
        return [self.cluster.board.status(i).heir for i in range(len(self.cluster.members))]

    def operator(self, number: int) -> OperatorStatus:
        """As workers are told."""
        return self.cluster.board.status(number - 1).operator

    def verdict(self, number: int) -> str:
        """As workers are told."""
        return self.cluster.board.status(number - 1).verdict.value

    def is_done(self, number: int) -> bool:
        """Whether a member's drain is."""
        drain = self.member(number).drain
        return drain is not None and drain.done

    def busy(self, number: int, count: int) -> None:
        """So many exchanges are under way on a member."""
        self.cluster.board.set_counters(0, number - 1, MemberCounters(busy=count))

    def look(self, sessions: int, *, complete: bool = True) -> bool:
        """So many sessions of server2 are alive, the last one seen now."""
        name, seen = ("mail", "server2"), time.monotonic()
        last_seen = {name: seen} if sessions else {}
        return self.drains.look({name: sessions}, last_seen, complete=complete)


@pytest.fixture
def desk() -> Iterator[Callable[..., Desk]]:
    """Makes desks over three members."""
    made: list[Desk] = []

    def make(*members: dict[str, Any]) -> Desk:
        made.append(Desk(*(members or ({}, {}, {}))))
        return made[-1]

    yield make
    for each in made:
        each.cluster.board.close()


Make = Callable[..., Desk]


# --- names -------------------------------------------------------------------------------------


def test_member_named(desk: Make) -> None:
    """A member goes by route or url; names that nobody has are refused with those there are."""
    cluster = desk().cluster
    assert member_named(cluster, "mail", "server2") is cluster.members[1]
    assert member_named(cluster, "mail", "http://server2") is cluster.members[1]
    with pytest.raises(CommandError, match=r"^mail has no member x; it has server1, server2, ser"):
        member_named(cluster, "mail", "x")
    with pytest.raises(CommandError, match=r"^there is no balancer web$"):
        member_named(cluster, "web", "server1")


# --- status and terms ----------------------------------------------------------------------------


def test_status(desk: Make, caplog: pytest.LogCaptureFixture) -> None:
    """What is said holds, and by whom and why is kept as long as the file says otherwise."""
    caplog.set_level(logging.INFO, "balanceme")
    made = desk()
    made.operations.set_status(made.member(2), OperatorStatus.DISABLED, ROOT)
    assert made.operator(2) is OperatorStatus.DISABLED
    assert made.member(2).said == ROOT
    assert caplog.messages == ["mail: server2 is disabled, as root said: new disk"]
    made.operations.set_status(made.member(2), OperatorStatus.ENABLED, ROOT)
    assert made.member(2).said is None
    assert made.cluster.board.status(1).back_since > 0


def test_terms(desk: Make) -> None:
    """Load factor, lbset and role reach the workers; two roles at a time are refused."""
    made = desk()
    view = made.member(1)
    made.operations.set_terms(view, {"load_factor": 2.5, "hot_spare": True}, ROOT)
    assert made.cluster.board.status(0).terms == (2.5, 0, False, True)
    assert view.terms_said == ROOT
    with pytest.raises(CommandError, match="can't be both hot_spare and hot_standby"):
        made.operations.set_terms(view, {"hot_standby": True}, ROOT)
    assert made.cluster.board.status(0).terms == (2.5, 0, False, True)


# --- takeovers -----------------------------------------------------------------------------------


def test_failover_and_clear(desk: Make) -> None:
    """By hand sessions go to another member, and are its own again."""
    made = desk()
    made.operations.failover(made.member(2), "server1", ROOT)
    assert made.heirs == [-1, 0, -1]
    assert made.events == [(Event.TAKEOVER, "server2")]
    takeover = made.cluster.takeover_of(made.member(2))
    assert takeover is not None
    assert takeover.said == ROOT
    made.operations.clear_failover(made.member(2), ROOT)
    assert made.heirs == [-1, -1, -1]
    assert made.events == [(Event.FAILBACK, "server2")]


def test_failover_that_can_not_be(desk: Make) -> None:
    """No circle, no member that isn't there, nobody without a route; nothing changes."""
    made = desk({}, {}, {"route": None})
    made.operations.failover(made.member(2), "server1", ROOT)
    for number, heir, words in (
        (1, "server2", "server2's own sessions are taken over, in the end by server1; clear that"),
        (1, "server1", "mail: server1 can't take over its own sessions"),
        (1, "server7", "mail has no member server7"),
        (3, "server1", "a member without a route has no sessions"),
        (1, "http://server3", "a member without a route has no sessions"),
    ):
        with pytest.raises(CommandError, match=f"^{words}"):
            made.operations.failover(made.member(number), heir, ROOT)
    assert made.heirs == [-1, 0, -1]


def test_clear_what_others_say(desk: Make) -> None:
    """What the cluster manager or the configuration says is to be changed there."""
    made = desk()
    made.operations.clear_failover(made.member(2), ROOT)
    assert made.events == []  # it is as it should be
    made.operations.set_failover_file("mail", {"server2": "server1"})
    with pytest.raises(CommandError, match="it is failover_file that says"):
        made.operations.clear_failover(made.member(2), ROOT)
    assert made.heirs == [-1, 0, -1]


def test_clear_what_checks_say(desk: Make) -> None:
    """A takeover that its checks would bring about again is not to be cleared."""
    made = desk()
    made.cluster.takeovers["mail"].put("server2", "server1", Origin.CHECKS, ROOT)
    made.operations.failover(made.member(2), "server3", ROOT)
    made.operations.clear_failover(made.member(2), ROOT)
    with pytest.raises(CommandError, match="its checks fail; once they pass it has its sessions"):
        made.operations.clear_failover(made.member(2), ROOT)
    assert made.heirs == [-1, 0, -1]


def test_only_what_counts_is_told(desk: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Hooks hear of sessions that go elsewhere, and not of words that change nothing."""
    caplog.set_level(logging.INFO, "balanceme")
    made = desk()
    for _ in range(2):
        made.operations.failover(made.member(2), "server1", ROOT)
    assert made.events == [(Event.TAKEOVER, "server2")]
    made.operations.set_failover_file("mail", {"server2": "server3"})
    assert made.events == []
    assert caplog.messages[-1] == (
        "mail: server2: server3 takes over its sessions, as failover_file says;"
        " server1 has them, as before"
    )
    made.operations.clear_failover(made.member(2), ROOT)
    [told] = made.cluster.happenings.take()
    assert (told.event, told.details["heir"]) == (Event.TAKEOVER, "server3")
    made.operations.set_failover_file("mail", {})
    assert made.events == [(Event.FAILBACK, "server2")]


def test_failover_file(desk: Make) -> None:
    """What a cluster manager writes counts at once; only changes are told."""
    made = desk()
    made.operations.set_failover_file("mail", {"server2": "server1", "server3": "server1"})
    assert made.heirs == [-1, 0, 0]
    assert made.events == [(Event.TAKEOVER, "server2"), (Event.TAKEOVER, "server3")]
    made.operations.set_failover_file("mail", {"server2": "server3"})
    assert made.heirs == [-1, 2, -1]
    assert made.events == [(Event.TAKEOVER, "server2"), (Event.FAILBACK, "server3")]
    made.operations.set_failover_file("mail", {"server2": "server3"})
    assert made.events == []


# --- readmission ---------------------------------------------------------------------------------


def test_readmit(desk: Make) -> None:
    """A fenced member serves again as soon as its checks pass; one that isn't is refused."""
    made = desk()
    view = made.member(2)
    with pytest.raises(CommandError, match="is neither fenced nor held off: it passes its checks"):
        made.operations.readmit(view, ROOT)
    check = HealthCheck.model_validate({"type": "tcp", "passes": 1, "fails": 1})
    view.health = Health((check,), Fence.ON_FAILURE, 0)
    for passed in (True, False):
        view.health.observe("tcp", passed, "refused")
        view.health.judge(0, alone=False)
    view.fenced = ROOT
    made.cluster.set_verdict(view)
    made.operations.readmit(view, ROOT)
    assert made.verdict(2) == "check failed"
    assert made.member(2).fenced is None
    view.health.observe("tcp", True, "")
    view.health.fence()
    made.operations.readmit(view, ROOT)
    assert made.verdict(2) == "passed"
    assert made.events == [
        (Event.READMITTED, "server2"),
        (Event.READMITTED, "server2"),
        (Event.MEMBER_UP, "server2"),
    ]


# --- drains --------------------------------------------------------------------------------------


def test_drain_without_end(desk: Make) -> None:
    """A drain is done once nothing is left, and the member stays drained."""
    made = desk()
    made.operations.drain(made.member(2), DrainUntil(), ROOT)
    made.busy(2, 1)
    assert not made.look(sessions=3)
    drain = made.member(2).drain
    assert drain is not None
    assert (drain.sessions, drain.left, drain.done) == (3, 3, False)
    made.look(sessions=0)
    assert not made.is_done(2)
    made.busy(2, 0)
    assert not made.look(sessions=0)
    assert made.is_done(2)
    assert made.operator(2) is OperatorStatus.DRAIN
    assert made.events == [(Event.DRAINED, "server2")]
    assert made.drains.under_way == []


def test_drain_until_empty(desk: Make) -> None:
    """Once it is empty the member is disabled, lest a session turn up that nobody knew of."""
    made = desk()
    made.operations.drain(made.member(2), DrainUntil(empty=True), ROOT)
    assert not made.look(sessions=1)
    assert made.look(sessions=0)
    assert made.operator(2) is OperatorStatus.DISABLED
    said = made.member(2).said
    assert said is not None
    assert (said.by, said.why) == ("root", "drained until it was empty")
    assert made.events == [(Event.DRAINED, "server2")]


def test_sessions_that_nobody_has_seen_yet(desk: Make) -> None:
    """After a start, or once a worker has ended, a member isn't empty before a lifetime is over.

    Its sessions are known by their cookies alone until they come again.
    """
    made = desk()
    made.operations.drain(made.member(2), DrainUntil(empty=True), ROOT)
    made.cluster.counted_since = time.monotonic() - HOUR + 60
    assert not made.look(sessions=0)
    drain = made.member(2).drain
    assert drain is not None
    now = time.time()
    assert drain.empty_at(now) == pytest.approx(now + 60, abs=5)
    made.cluster.counted_since -= 60
    made.cluster.worker_ended(0)
    assert not made.look(sessions=0)
    made.cluster.counted_since -= HOUR
    assert not made.look(sessions=0, complete=False)
    assert made.operator(2) is OperatorStatus.DRAIN
    assert made.look(sessions=0)
    assert made.operator(2) is OperatorStatus.DISABLED
    assert made.events == [(Event.DRAINED, "server2")]


def test_deadline_of_a_drain_that_is_done(desk: Make) -> None:
    """A session that turns up behind the end of a drain moves at its deadline as any other."""
    made = desk()
    made.operations.drain(made.member(2), DrainUntil(time.time() + HOUR), ROOT)
    made.look(sessions=0)
    assert made.is_done(2)
    assert len(made.drains.under_way) == 1
    drain = made.member(2).drain
    assert drain is not None
    assert not made.look(sessions=1)
    drain.until = time.time()
    assert made.look(sessions=1)
    assert made.operator(2) is OperatorStatus.DISABLED
    assert made.drains.under_way == []
    assert made.events == [(Event.DRAINED, "server2")]


def test_drain_with_a_deadline(desk: Make) -> None:
    """At the deadline the member is disabled, and who waits there sent away; then it is done."""
    made = desk()
    made.operations.drain(made.member(2), DrainUntil(time.time() + HOUR), ROOT)
    made.busy(2, 2)
    assert not made.look(sessions=5)
    drain = made.member(2).drain
    assert drain is not None
    drain.until = time.time()
    before = time.monotonic()
    assert made.look(sessions=5)
    assert made.operator(2) is OperatorStatus.DISABLED
    assert made.cluster.board.status(1).empty_by >= before + 30
    assert not made.look(sessions=5)
    assert not made.is_done(2)
    made.busy(2, 0)
    made.look(sessions=5)  # they carry its route yet, and move with their next request
    assert made.is_done(2)
    assert made.events == [(Event.DRAINED, "server2")]


def test_drain_is_over_when_the_operator_says_otherwise(desk: Make) -> None:
    """Another word ends a drain, and nobody is sent away any more."""
    made = desk()
    made.operations.drain(made.member(2), DrainUntil(time.time()), ROOT)
    made.busy(2, 1)
    made.look(sessions=5)
    made.operations.set_status(made.member(2), OperatorStatus.ENABLED, ROOT)
    assert made.member(2).drain is None
    assert made.cluster.board.status(1).empty_by == 0
    assert not made.look(sessions=0)


def test_estimate(desk: Make) -> None:
    """When it is empty: by the pace so far, at the deadline at the latest, or when all are over."""
    made = desk()
    now = time.time()
    made.operations.drain(made.member(2), DrainUntil(), ROOT)
    made.look(sessions=10)
    drain = made.member(2).drain
    assert drain is not None
    empty = drain.empty_at(now)
    assert empty == pytest.approx(now + HOUR, abs=5)  # a lifetime after the last one was seen
    drain.since = now - 100
    made.look(sessions=5)
    assert drain.empty_at(now) == pytest.approx(now + 100, abs=5)
    drain.until = now + 60
    assert drain.empty_at(now) == now + 60
    made.look(sessions=0)
    assert drain.empty_at(now) == now
