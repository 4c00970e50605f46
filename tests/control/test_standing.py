"""What was decided of members, as workers take it from the board: all of them the same."""

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as configured
from hypothesis import strategies as st

from proxy.control.cluster import Cluster
from proxy.control.commands import CommandError
from proxy.control.operations import Operations
from proxy.control.prober import Probed
from proxy.control.scoreboard import MemberCounters
from proxy.control.standing import Standing
from proxy.control.verdicts import Verdicts
from proxy.core.balancer import Balancer
from proxy.core.choice import Session
from proxy.core.health import Verdict
from proxy.core.member import Member
from proxy.core.settings import OperatorStatus, Settings
from proxy.core.takeover import Origin, Said
from tests.control.clusters import settings, with_balancer
from tests.fakes import FakeClock

ROUTES = ["server1", "server2", "server3"]
ROOT = Said("root", 0.0)
HOLD = 10.0


class Polls:
    """Who is to be sent away."""

    def __init__(self) -> None:
        self.told: dict[Member, float] = {}

    def empty(self, member: Member, by: float) -> None:
        """Until when."""
        self.told[member] = by


class WorkerOf:
    """What a standing knows of its worker."""

    def __init__(self, made: Settings) -> None:
        self.balancers = {name: Balancer(name, each) for name, each in made.balancers.items()}
        self.leaving = False
        self.long_polls = Polls()

    @property
    def members(self) -> list[Member]:
        """In the order of the settings."""
        return [member for each in self.balancers.values() for member in each.members]

    def leave(self, *, leaving: bool) -> None:
        """Whether those before us are told."""
        self.leaving = leaving

    def serves(self, route: str) -> tuple[str | None, Session]:
        """Who serves a session now, and what became of it."""
        choice = self.balancers["mail"].choose(b"/", f"ROUTE=balancer.{route}".encode(), now())
        return choice.member.name if choice.member else None, choice.session


def now() -> float:
    """Monotonic, as the fake clock has it."""
    return time.monotonic()


def mail(**options: Any) -> Settings:
    """Three members with a check, whose sessions have cookies."""
    check = {"type": "http", "passes": 1, "fails": 1}
    plain = {"health_checks": [check], "hold_off": f"{HOLD}s", "session_cookie": {}}
    return with_balancer(settings({}, {}, {}), **(plain | options))


class Model:
    """A supervisor's view, and two workers beside it."""

    def __init__(self, made: Settings, clock: FakeClock) -> None:
        self.clock = clock
        self.cluster = Cluster(made, 2)
        self.verdicts = Verdicts(self.cluster)
        self.operations = Operations(self.cluster, self.verdicts)
        self.workers = [WorkerOf(made) for _ in range(2)]
        self.standings = [
            Standing(worker, self.cluster.board)  # type: ignore[arg-type]
            for worker in self.workers
        ]

    def see(self, number: int, *, passed: bool) -> None:
        """A check of a member has a result."""
        key = self.cluster.members[number].key
        self.verdicts.take([Probed(key, "http", passed, "", 0.0, now())])

    def fail(self, number: int, worker: int) -> None:
        """A worker's traffic to a member fails."""
        balancer = self.workers[worker].balancers["mail"]
        member = balancer.members[number]
        balancer.put_in_error(member, now())
        self.standings[worker].in_error(member)
        counters = MemberCounters(error_since=now())
        self.cluster.board.set_counters(worker, number, counters)
        self.cluster.take_errors()

    def take(self) -> None:
        """All workers look."""
        for standing in self.standings:
            standing.take()

    def close(self) -> None:
        """Let go of the board."""
        self.cluster.board.close()


@pytest.fixture
def model(clock: FakeClock) -> Iterator[Model]:
    """A model whose members have all passed."""
    made = Model(mail(slow_start="10s"), clock)
    for number in range(3):
        made.see(number, passed=True)
    made.take()
    yield made
    made.close()


# --- each thing once -----------------------------------------------------------------------------


def test_everything_is_taken(model: Model, clock: FakeClock) -> None:
    """Status, verdict, terms, heirs and who is to be sent away reach every worker."""
    view = model.cluster.members[1]
    clock.advance(1)
    model.cluster.set_operator_status(view, OperatorStatus.DRAIN)
    model.operations.set_terms(view, {"load_factor": 3.0, "hot_spare": True}, ROOT)
    model.operations.failover(view, "server1", ROOT)
    view.status = view.status._replace(empty_by=77.0)
    model.see(2, passed=False)
    model.cluster.board.leaving = True
    model.take()
    for worker in model.workers:
        second, third = worker.members[1:]
        assert second.operator is OperatorStatus.DRAIN
        assert second.terms == (3.0, 0, False, True)
        assert worker.long_polls.told[second] == 77.0
        assert third.verdict is Verdict.FAILED
        assert worker.serves("server2") == ("server1", Session.MOVED)
        assert worker.leaving
        assert worker.balancers["mail"].homes.clock_offset == pytest.approx(time.time() - now())


def test_share_rises(model: Model, clock: FakeClock) -> None:
    """A member that is back rises in every worker, from when the supervisor took it back."""
    model.see(1, passed=False)
    model.see(1, passed=True)
    clock.advance(HOLD)
    model.verdicts.tick()
    clock.advance(5)
    model.take()
    assert [worker.members[1].factor for worker in model.workers] == [50, 50]
    clock.advance(5)
    model.take()
    assert [worker.members[1].factor for worker in model.workers] == [100, 100]


def test_error_that_checks_ended(model: Model, clock: FakeClock) -> None:
    """It is over in every worker, and doesn't come back with what is read again (H5)."""
    model.fail(1, worker=0)
    model.take()
    assert [worker.serves("server2")[1] for worker in model.workers] == [Session.MOVED] * 2
    clock.advance(1)
    model.see(1, passed=True)
    model.take()
    assert [worker.serves("server2")[1] for worker in model.workers] == [Session.KEPT] * 2
    model.standings[0].begin(model.cluster.board)
    assert model.workers[0].serves("server2")[1] is Session.KEPT


# --- whatever happens ----------------------------------------------------------------------------

NUMBER = st.integers(0, 2)
EVENT = st.one_of(
    st.tuples(st.just("see"), NUMBER, st.booleans()),
    st.tuples(st.just("fail"), NUMBER, st.integers(0, 1)),
    st.tuples(st.just("status"), NUMBER, st.sampled_from(OperatorStatus)),
    st.tuples(st.just("failover"), NUMBER, NUMBER),
    st.tuples(st.just("clear"), NUMBER, st.none()),
    st.tuples(st.just("readmit"), NUMBER, st.none()),
    st.tuples(st.just("wait"), NUMBER, st.sampled_from([1.0, 11.0, 61.0])),
)


def happen(model: Model, event: tuple[str, int, Any]) -> None:
    """One event."""
    word, number, detail = event
    view = model.cluster.members[number]
    if word == "see":
        model.see(number, passed=detail)
    elif word == "fail":
        model.fail(number, worker=detail)
    elif word == "status":
        model.cluster.set_operator_status(view, detail)
    elif word == "failover" and not model.cluster.takeovers["mail"].circle(
        view.name, ROUTES[detail]
    ):
        model.operations.failover(view, ROUTES[detail], ROOT)
    elif word == "clear":
        with suppress(CommandError):  # its checks say so
            model.operations.clear_failover(view, ROOT)
    elif word == "readmit" and view.health.verdict in (Verdict.FENCED, Verdict.HELD):
        model.operations.readmit(view, ROOT)
    elif word == "wait":
        model.clock.advance(detail)
    model.verdicts.tick()
    model.take()


def permitted(model: Model, number: int) -> bool:
    """The truth table: whether operator and checks let a member serve its own sessions."""
    status = model.cluster.board.status(number)
    known = status.operator in (OperatorStatus.ENABLED, OperatorStatus.DRAIN)
    return known and status.verdict is Verdict.PASSED


@configured(max_examples=150, deadline=None)
@given(
    st.lists(EVENT, max_size=25),
    st.sampled_from(["spread", "auto"]),
    st.sampled_from(["never", "on_failure"]),
)
def test_any_history(events: list[tuple[str, int, Any]], takeover: str, fence: str) -> None:
    """After any events all workers decide the same, by one truth table.

    A session whose member may serve, and whose sessions nobody has taken over, is never moved; one
    is served whenever anybody may; nobody serves who may not.
    """
    with pytest.MonkeyPatch.context() as patch:
        clock = FakeClock()
        patch.setattr("time.monotonic", clock.monotonic)
        model = Model(mail(takeover=takeover, fence=fence), clock)
        try:
            for number in range(3):
                model.see(number, passed=True)
            model.take()
            for event in events:
                happen(model, event)
                compare(model)
        finally:
            model.close()


def compare(model: Model) -> None:
    """What both workers decide for a session of each member, against the table."""
    in_force = model.cluster.takeovers["mail"].in_force()
    fit = [permitted(model, number) for number in range(3)]
    for number, route in enumerate(ROUTES):
        served = [worker.serves(route) for worker in model.workers]
        view = model.cluster.members[number]
        if fit[number] and route not in in_force and not view.in_error(now()):
            assert served == [(route, Session.KEPT)] * 2
        for name, _ in served:
            assert name is None or fit[ROUTES.index(name)]
        if route in in_force:
            heir = follow(in_force, route)
            taker = ROUTES.index(heir)
            if fit[taker] and not model.cluster.members[taker].in_error(now()):
                assert served == [(heir, Session.MOVED)] * 2


def follow(in_force: dict[str, Any], route: str) -> str:
    """Who has a route's sessions in the end."""
    while route in in_force:
        route = in_force[route].heir
    return route


def test_origins_stay_apart(model: Model) -> None:
    """The checks' takeover goes on behind an operator's, and is there when that is cleared."""
    takeovers = model.cluster.takeovers["mail"]
    takeovers.put("server2", "server3", Origin.CHECKS, ROOT)
    model.operations.failover(model.cluster.members[1], "server1", ROOT)
    model.take()
    assert model.workers[0].serves("server2")[0] == "server1"
    model.operations.clear_failover(model.cluster.members[1], ROOT)
    model.take()
    assert model.workers[0].serves("server2")[0] == "server3"
