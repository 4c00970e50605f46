"""From results of checks to verdicts, takeovers and members that come back."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from proxy.control.cluster import Cluster
from proxy.control.hooks import Happening
from proxy.control.member_view import MemberView
from proxy.control.prober import Probed
from proxy.control.verdicts import Verdicts
from proxy.core.health import Verdict
from proxy.core.settings import Event, OperatorStatus, Settings
from proxy.core.takeover import Origin, Said
from tests.control.clusters import settings, with_balancer
from tests.fakes import FakeClock

ROOT = Said("root", 0.0)
WEB = {"type": "http", "name": "web", "passes": 1, "fails": 1}
HOLD = 10.0


class Arena:
    """A cluster whose checks report what a test says."""

    def __init__(self, made: Settings) -> None:
        self.cluster = Cluster(made, 2)
        self.verdicts = Verdicts(self.cluster)

    def see(self, results: str, title: str = "web") -> bool:
        """One result of each member: ``+`` passed, ``-`` failed, ``.`` none."""
        found = [
            Probed(
                view.key, title, sign == "+", "200" if sign == "+" else "refused", 0.0, now(), None
            )
            for view, sign in zip(self.cluster.members, results, strict=True)
            if sign != "."
        ]
        return self.verdicts.take(found)

    @property
    def told(self) -> list[Happening]:
        """What happened since the last look."""
        return self.cluster.happenings.take()

    @property
    def events(self) -> list[tuple[Event, str | None]]:
        """The same, in short."""
        return [(each.event, each.member) for each in self.told]

    @property
    def verdict(self) -> list[Verdict]:
        """As workers are told."""
        board = self.cluster.board
        return [board.status(index).verdict for index in range(len(self.cluster.members))]

    @property
    def heirs(self) -> dict[str, str]:
        """As workers are told."""
        names = [view.name for view in self.cluster.members]
        found = {}
        for index, name in enumerate(names):
            heir = int(self.cluster.board.status(index).heir)
            if heir >= 0:
                found[name] = names[heir]
        return found

    def member(self, number: int) -> MemberView:
        """server1 is 1."""
        return self.cluster.members[number - 1]


def now() -> float:
    """Monotonic, as the fake clock has it."""
    return time.monotonic()


Make = Callable[..., Arena]


@pytest.fixture
def make(clock: FakeClock) -> Iterator[Make]:  # noqa: ARG001 - by its time all is decided
    """Makes arenas of three members with the check ``web``."""
    made: list[Arena] = []

    def arena(*members: dict[str, Any], **balancer: Any) -> Arena:
        plain = settings(*(members or ({}, {}, {})))
        options = {"health_checks": [WEB], "hold_off": f"{HOLD}s", **balancer}
        made.append(Arena(with_balancer(plain, **options)))
        return made[-1]

    yield arena
    for each in made:
        each.cluster.board.close()


# --- verdicts ------------------------------------------------------------------------------------


def test_first_verdicts(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Members take nothing before their first results; these are told, but are no events."""
    caplog.set_level(logging.INFO, "balanceme")
    arena = make()
    assert arena.verdict == [Verdict.UNKNOWN] * 3
    assert arena.see("++.")
    assert arena.verdict == [Verdict.PASSED, Verdict.PASSED, Verdict.UNKNOWN]
    assert "mail: server1 passes its checks" in caplog.messages
    assert arena.events == []
    assert arena.see("..-")
    assert arena.events == [(Event.MEMBER_DOWN, "server3")]


def test_only_flips_are_told(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """A result like the one before says nothing to workers, to the log or to hooks."""
    arena = make()
    arena.see("+++")
    caplog.set_level(logging.INFO, "balanceme")
    caplog.clear()
    assert not arena.see("+++")
    assert not caplog.messages
    assert arena.see("+-+")
    assert caplog.messages[:2] == [
        "mail: server2: check web fails: refused",
        "mail: server2 is down: web: refused",
    ]
    assert not arena.see("+-+")
    assert len(arena.events) == 1


def test_advisory(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """An advisory check is told when it flips, and keeps nobody out (D109)."""
    arena = make(health_checks=[WEB, {"type": "mysql", "required": False, "fails": 1}])
    arena.see("+++")
    arena.see("++-", "mysql")
    assert arena.verdict == [Verdict.PASSED] * 3
    assert "mail: server3: check mysql (advisory) fails: refused" in caplog.messages
    assert arena.events == []


def test_back_after_hold_off(make: Make, clock: FakeClock) -> None:
    """A member that passes again is held off, then up, and rises from then on."""
    arena = make()
    arena.see("+++")
    arena.see("+-+")
    arena.see("+++")
    assert arena.verdict[1:2] == [Verdict.HELD]
    assert not arena.verdicts.tick()
    clock.advance(HOLD)
    assert arena.verdicts.tick()
    assert arena.verdict[1:2] == [Verdict.PASSED]
    assert arena.cluster.board.status(1).back_since == clock.monotonic()
    assert arena.events == [(Event.MEMBER_DOWN, "server2"), (Event.MEMBER_UP, "server2")]


@pytest.mark.parametrize("fence", ["never", "on_failure"])
def test_down_is_told_once(make: Make, fence: str) -> None:
    """A member that fails while it is held off wasn't up, so that nobody hears twice of its end."""
    arena = make(fence=fence)
    arena.see("++-")
    arena.see("..+")
    arena.see("..-")
    fenced = [(Event.FENCED, "server3")] if fence == "on_failure" else []
    assert arena.events == [(Event.MEMBER_DOWN, "server3"), *fenced]


def test_nobody_is_held_off_alone(make: Make) -> None:
    """The first one that is back after all were down serves at once."""
    arena = make()
    arena.see("+++")
    arena.see("---")
    assert arena.see("+..")
    assert arena.verdict == [Verdict.PASSED, Verdict.FAILED, Verdict.FAILED]
    arena.see(".+.")
    assert arena.verdict[1:2] == [Verdict.HELD]


def test_nobody_waits_for_one_who_is_taken_over(make: Make) -> None:
    """Who has left its sessions to a member that is held off can't serve in its place."""
    arena = make({}, {})
    arena.see("++")
    arena.see("-+")
    arena.cluster.takeovers["mail"].put("server2", "server1", Origin.OPERATOR, ROOT)
    arena.see("++")
    assert arena.verdict == [Verdict.PASSED] * 2


def test_results_of_nobody(make: Make) -> None:
    """Results of members and checks that a reload has taken away are passed over."""
    arena = make()
    assert not arena.verdicts.take([Probed(("mail", "http://x", "x"), "web", True, "", 0.0, now())])
    assert not arena.see("+++", "gone")
    assert arena.verdict == [Verdict.UNKNOWN] * 3


# --- errors of traffic ---------------------------------------------------------------------------


def test_checks_end_an_error(make: Make, clock: FakeClock) -> None:
    """Checks that began to pass since traffic failed end the error before its time (H5)."""
    arena = make(health_checks=[{**WEB, "passes": 2}])
    arena.see("+++")
    clock.advance(5)
    status = arena.cluster.board.counters(0, 1)._replace(error_since=clock.monotonic())
    arena.cluster.board.set_counters(0, 1, status)
    assert arena.cluster.take_errors()
    clock.advance(1)
    assert not arena.see("+++")
    assert arena.member(2).in_error(clock.monotonic())
    assert arena.see("+++")
    assert not arena.member(2).in_error(clock.monotonic())
    assert arena.cluster.board.status(1).recovered == clock.monotonic()
    clock.advance(1)
    arena.cluster.board.set_counters(0, 1, status._replace(error_since=clock.monotonic()))
    arena.cluster.take_errors()
    assert arena.member(2).in_error(clock.monotonic())


# --- takeovers -----------------------------------------------------------------------------------


def test_named_takeover(make: Make, clock: FakeClock) -> None:
    """A failed member's sessions go to who is named, until it is back."""
    arena = make({}, {"takeover": "server3"}, {})
    arena.see("+++")
    arena.see("+-+")
    assert arena.heirs == {"server2": "server3"}
    told = arena.told
    assert [each.event for each in told] == [Event.MEMBER_DOWN, Event.TAKEOVER]
    assert told[1].details == {"heir": "server3", "reason": "web: refused"}
    arena.see("+++")
    assert arena.heirs == {"server2": "server3"}  # as long as it is held off
    clock.advance(HOLD)
    arena.verdicts.tick()
    assert arena.heirs == {}
    assert arena.events == [(Event.MEMBER_UP, "server2"), (Event.FAILBACK, "server2")]


def test_takeover_auto(make: Make) -> None:
    """With auto it is the member with the fewest sessions, one for all, and it stays that one."""
    arena = make(takeover="auto")
    arena.see("+++")
    arena.verdicts.sessions = {("mail", "server1"): 5, ("mail", "server2"): 9}
    arena.see("++-")
    assert arena.heirs == {"server3": "server1"}
    arena.verdicts.sessions = {("mail", "server1"): 50, ("mail", "server2"): 9}
    arena.verdicts.tick()
    assert arena.heirs == {"server3": "server1"}


def test_takeover_spread(make: Make) -> None:
    """By default nobody takes over: each session is elected a member."""
    arena = make()
    arena.see("+++")
    arena.see("+-+")
    assert arena.heirs == {}
    assert arena.events == [(Event.MEMBER_DOWN, "server2")]


def test_who_takes_over_can_serve(make: Make) -> None:
    """Neither who fails, nor who is drained or off, nor who lost its own sessions takes over."""
    arena = make(takeover="auto")
    arena.see("+++")
    arena.cluster.set_operator_status(arena.member(1), OperatorStatus.DRAIN)
    arena.see("++-")
    assert arena.heirs == {"server3": "server2"}
    arena.see("+--")
    assert arena.heirs == {"server3": "server2"}  # nobody is left for server2's
    arena.cluster.set_operator_status(arena.member(1), OperatorStatus.ENABLED)
    assert arena.verdicts.tick()
    assert arena.heirs == {"server3": "server2", "server2": "server1"}


def test_all_down_and_back(make: Make) -> None:
    """The first one back has everybody's sessions; each that follows has its own again."""
    arena = make(takeover="auto", hold_off=0)
    arena.see("+++")
    arena.see("---")
    assert arena.heirs == {}
    arena.see("+--")
    assert arena.heirs == {"server2": "server1", "server3": "server1"}
    arena.see("++-")
    assert arena.heirs == {"server3": "server1"}


def test_an_operators_word_counts_more(make: Make) -> None:
    """Where somebody has said already who takes over, the checks say nothing."""
    arena = make({}, {"takeover": "server3"}, {})
    arena.see("+++")
    arena.cluster.takeovers["mail"].put("server2", "server1", Origin.OPERATOR, ROOT)
    arena.cluster.publish()
    arena.see("+-+")
    assert arena.heirs == {"server2": "server1"}


def test_back_while_the_operator_says_otherwise(make: Make) -> None:
    """A member that is up again hasn't its sessions again where the operator gave them away."""
    arena = make(takeover="auto", hold_off=0)
    arena.see("+++")
    arena.see("+-+")
    arena.cluster.takeovers["mail"].put("server2", "server3", Origin.OPERATOR, ROOT)
    assert [each for each, _ in arena.events] == [Event.MEMBER_DOWN, Event.TAKEOVER]
    arena.see("+++")
    assert arena.heirs == {"server2": "server3"}
    assert arena.events == [(Event.MEMBER_UP, "server2")]


@pytest.mark.parametrize("takeover", ["auto", "spread"])
def test_checks_that_a_reload_takes_away(make: Make, takeover: str) -> None:
    """A member that nobody checks any more is up, and has its sessions again."""
    arena = make(takeover=takeover)
    arena.see("+++")
    arena.see("+-+")
    assert len(arena.heirs) == (takeover == "auto")
    assert arena.events[0] == (Event.MEMBER_DOWN, "server2")
    changes = {"health_checks": [], "takeover": "spread", "hold_off": "0s"}
    fresh = with_balancer(arena.cluster.settings, **changes)
    arena.cluster.reload(fresh, 2).close()
    assert arena.verdicts.tick()
    assert arena.heirs == {}
    failback = [(Event.FAILBACK, "server2")] if takeover == "auto" else []
    assert arena.events == [(Event.MEMBER_UP, "server2"), *failback]
    assert not arena.verdicts.tick()


# --- fences --------------------------------------------------------------------------------------


def test_fenced(make: Make, clock: FakeClock) -> None:
    """A member that is fenced stays out, with its reason and time, and its sessions taken over."""
    arena = make(fence="on_failure", takeover="auto")
    arena.see("+++")
    arena.see("+-+")
    assert [each for each, _ in arena.events] == [
        Event.MEMBER_DOWN,
        Event.FENCED,
        Event.TAKEOVER,
    ]
    fenced = arena.member(2).fenced
    assert fenced is not None
    assert (fenced.by, fenced.why) == ("health checks", "web: refused")
    arena.see("+++")
    clock.advance(1e6)
    arena.verdicts.tick()
    assert arena.verdict[1:2] == [Verdict.FENCED]
    assert arena.heirs == {"server2": "server1"}
