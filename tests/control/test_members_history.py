"""Whatever happens to members, and whenever a reload or an upgrade comes: nothing changes by it."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as configured
from hypothesis import strategies as st

from proxy.control.cluster import Cluster
from proxy.control.commands import CommandError, DrainUntil
from proxy.control.drains import Drains
from proxy.control.hooks import Happening
from proxy.control.journal import restore, saved
from proxy.control.operations import Operations
from proxy.control.prober import Probed
from proxy.control.verdicts import Verdicts
from proxy.core.health import Verdict
from proxy.core.settings import Event, OperatorStatus, Settings
from proxy.core.takeover import Said
from tests.control.clusters import settings, with_balancer
from tests.fakes import FakeClock

ROOT = Said("root", 0.0)
CHECK = {"type": "tcp", "passes": 1, "fails": 1}
NUMBER = st.integers(0, 2)
FILES = [{}, {"server1": "server2"}, {"server2": "server1"}, {"server3": "server1"}]
DRAINS = [DrainUntil(), DrainUntil(0.0), DrainUntil(None, empty=True)]
EVENT = st.one_of(
    st.tuples(st.just("see"), NUMBER, st.booleans()),
    st.tuples(st.just("status"), NUMBER, st.sampled_from(OperatorStatus)),
    st.tuples(st.just("failover"), NUMBER, NUMBER),
    st.tuples(st.sampled_from(["clear", "readmit", "count", "reload", "upgrade"]), NUMBER, NUMBER),
    st.tuples(st.just("file"), NUMBER, st.sampled_from(FILES)),
    st.tuples(st.just("drain"), NUMBER, st.sampled_from(DRAINS)),
    st.tuples(st.just("wait"), NUMBER, st.sampled_from([1.0, 11.0, 61.0, 4000.0])),
)


def mail(**options: Any) -> Settings:
    """Three members, of which server2 has named who takes over."""
    return with_balancer(settings({}, {"takeover": "server3"}, {}), **options)


class Story:
    """A cluster, who decides about it, and all that hooks were told over all programs."""

    def __init__(self, made: Settings, clock: FakeClock) -> None:
        self.settings, self.clock = made, clock
        self.told: list[Happening] = []
        self.begin(Cluster(made, 1))

    def begin(self, cluster: Cluster) -> None:
        """A program that has this cluster."""
        self.cluster, self.drains, self.verdicts = cluster, Drains(cluster), Verdicts(cluster)
        self.operations = Operations(cluster, self.verdicts)

    def happen(self, word: str, number: int, detail: Any) -> None:
        """One event; raises CommandError for what is refused."""
        view = self.cluster.members[number]
        if word == "see":
            self.verdicts.take([Probed(view.key, "tcp", detail, "", 0.0, time.monotonic())])
        elif word == "status":
            self.operations.set_status(view, detail, ROOT)
        elif word == "failover":
            self.operations.failover(view, f"server{detail + 1}", ROOT)
        elif word == "clear":
            self.operations.clear_failover(view, ROOT)
        elif word == "readmit":
            self.operations.readmit(view, ROOT)
        elif word == "file":
            self.operations.set_failover_file("mail", detail)
        else:
            self.pass_time(word, number, detail)

    def pass_time(self, word: str, number: int, detail: Any) -> None:
        """An event that the time brings, or whoever changes the program."""
        if word == "drain":
            self.operations.drain(self.cluster.members[number], detail, ROOT)
        elif word == "count":
            self.drains.look({}, {})
        elif word == "wait":
            self.clock.advance(detail)
        elif word == "reload":
            self.cluster.reload(self.settings, 1).close()
        elif word == "upgrade":
            self.told += self.cluster.happenings.take()
            former, following = self.cluster, Cluster(self.settings, 1)
            restore(following, json.loads(json.dumps(saved(former, upgrade=True))))
            former.board.close()
            self.begin(following)

    @property
    def state(self) -> list[Any]:
        """All that must not change by itself; that traffic failed is for each program to see."""
        board, views = self.cluster.board, self.cluster.members
        status = [board.status(number)._replace(back_since=0, empty_by=0) for number in range(3)]
        drains = [view.drain and (view.drain.until, view.drain.done) for view in views]
        said = [(view.said, view.fenced, view.is_down) for view in views]
        return [status, self.cluster.takeovers["mail"].heirs, drains, said]


@pytest.fixture(scope="module")
def _quiet() -> Iterator[None]:
    """Without the log of thousands of events."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("logging.Logger.log", lambda *_, **__: None)
        yield


@pytest.mark.usefixtures("_quiet")
@configured(max_examples=200, deadline=None)
@given(
    st.lists(EVENT, max_size=20),
    st.sampled_from(["spread", "auto"]),
    st.sampled_from(["never", "on_failure"]),
)
def test_any_history(events: list[tuple[str, int, Any]], takeover: str, fence: str) -> None:
    """Reloads and upgrades change nothing, and a look that finds nothing new changes nothing.

    Who is out is known to be down, who passes isn't; and hooks hear of each in turn.
    """
    options = {"hold_off": "10s", "failover_file": "/x", "health_checks": [CHECK]}
    with pytest.MonkeyPatch.context() as patch:
        clock = FakeClock()
        patch.setattr("time.monotonic", clock.monotonic)
        story = Story(mail(takeover=takeover, fence=fence, **options), clock)
        for word, number, detail in events:
            before = story.state
            with suppress(CommandError):
                story.happen(word, number, detail)
            if word in ("reload", "upgrade"):
                assert story.state == before
            story.verdicts.tick()
            before = story.state
            assert not story.verdicts.tick()
            assert story.state == before
            agree(story)
        story.told += story.cluster.happenings.take()
        story.cluster.board.close()
    in_turn(story.told)


def agree(story: Story) -> None:
    """What is known of each member agrees with its verdict."""
    for view in story.cluster.members:
        verdict = view.health.verdict
        assert (verdict is Verdict.FENCED) is (view.fenced is not None)
        if verdict is not Verdict.UNKNOWN:
            assert view.is_down is (verdict is not Verdict.PASSED)
        if verdict is Verdict.PASSED:
            assert view.name not in story.cluster.takeovers["mail"].by_checks


def in_turn(told: list[Happening]) -> None:
    """Of each member: down, up, down; and no takeover ends twice."""
    for name in ("server1", "server2", "server3"):
        events = [each.event for each in told if each.member == name]
        ways = [each for each in events if each in (Event.MEMBER_DOWN, Event.MEMBER_UP)]
        assert ways == [(Event.MEMBER_DOWN, Event.MEMBER_UP)[turn % 2] for turn in range(len(ways))]
        heirs = [each for each in events if each in (Event.TAKEOVER, Event.FAILBACK)]
        both = zip([Event.FAILBACK, *heirs], heirs, strict=False)
        assert (Event.FAILBACK, Event.FAILBACK) not in both
