"""The supervisor's side of health checks: one prober or none, and who waits for it.

Time, processes and forks are fakes; the line to the prober is real.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from proxy.control import probing as module
from proxy.control import workers as workers_module
from proxy.control.channel import Channel, Kind, channel_pair
from proxy.control.holdings import Holdings, Logs
from proxy.control.prober import Assignment, Key, Probed
from proxy.control.probes.result import CheckFiles, Target
from proxy.control.probing import LONGEST_WAIT, Heard, Probing, assignments_of
from proxy.control.workers import HUNG, WATCH
from proxy.core.settings import Settings
from tests.control.test_workers import FakeSystem
from tests.fakes import FakeClock, FakeLoop

SERVER1: Key = ("cluster", "http://server1:81", "server1")
SERVER2: Key = ("cluster", "http://server2", "server2")
WEB = {"type": "http", "name": "web"}
MAIL = {"type": "smtp", "required": False}
MAPPING = {"path": "/", "balancer": "cluster"}
LOG = 2


def holdings(*checks: dict[str, Any], own: list[dict[str, Any]] | None = None) -> Holdings:
    """Two members with these checks; ``own`` are the second's."""
    tree = {
        "frontends": [
            {"listen": "127.0.0.1:80", "mappings": [{"path": "/", "balancer": "cluster"}]}
        ],
        "balancers": {
            "cluster": {
                "members": [
                    {"url": "http://server1:81", "route": "server1"},
                    {"url": "http://server2", "route": "server2", "health_checks": own},
                ],
                "health_checks": list(checks),
            }
        },
    }
    return Holdings(Settings.model_validate(tree), {}, {}, (), Logs(LOG, None))


def probed(key: Key, title: str, *, passed: bool = True) -> Probed:
    """A result."""
    return Probed(key, title, passed, "seen", 0.1, 5.0, None)


class Scene:
    """A supervisor's part, and a prober's end of the line."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = FakeClock()
        self.loop = FakeLoop(self.clock)
        self.system = FakeSystem()
        self.results: list[Probed] = []
        self.changes = 0
        # the prober's ends of the lines, and what each began with
        self.lines: dict[int, Channel] = {}
        self.begun: list[tuple[Assignment, ...]] = []
        monkeypatch.setattr(workers_module, "os", self.system)
        monkeypatch.setattr(workers_module, "time", self.clock)
        monkeypatch.setattr(module, "time", self.clock)
        monkeypatch.setattr(module, "channel_pair", self._pair)
        monkeypatch.setattr(module, "fork", self._fork)
        self.probing = Probing(self.loop, None, Heard(self.results.extend, self._changed))

    def _changed(self) -> None:
        self.changes += 1

    def _pair(self) -> tuple[Channel, Channel]:
        ours, theirs = channel_pair()
        # the supervisor closes its copy after the fork
        self._theirs = Channel(theirs._socket.dup())
        return ours, theirs

    def _fork(self, _: object) -> int:
        pid = 100 + len(self.lines)
        self.lines[pid] = self._theirs
        self.system.alive.add(pid)
        self.begun.append(self.probing._assignments)
        return pid

    def waits(self) -> bool:
        """Whether workers wait for first results."""
        return not self.probing.first_results_are_in

    @property
    def line(self) -> Channel:
        """The line of the prober there is."""
        assert self.probing.pid is not None
        return self.lines[self.probing.pid]

    def says(self, kind: Kind, value: object = None) -> None:
        """The prober says something, which is heard at once."""
        (reader,) = self.loop.readers.values()
        self.line.send(kind, value)
        reader()

    def heard(self) -> list[tuple[Kind, object]]:
        """What the prober was told since the last time."""
        found = []
        while (message := self.line.receive()) is not None:
            found.append((message.kind, message.value))
        return found

    def start(self, *checks: dict[str, Any]) -> None:
        """Configure, and have a prober that runs."""
        self.probing.configure(holdings(*checks))
        self.probing.fork_due()
        self.says(Kind.IN_FORCE)

    def wait(self, seconds: float) -> None:
        """Let time pass, with a look each second."""
        for _ in range(round(seconds / WATCH)):
            self.clock.advance(WATCH)
            self.loop.settle()
            self.probing.watch()

    def close(self) -> None:
        """Throw all away."""
        for worker in self.probing._workers.all:
            worker.channel.close()
        for line in self.lines.values():
            line.close()
        self.loop.close()


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A supervisor's part."""
    made = Scene(monkeypatch)
    yield made
    made.close()


# --- which checks --------------------------------------------------------------------------------


def test_assigns_each_check_of_each_member() -> None:
    """A member's own checks are instead of its balancer's; none at all is an own list as well."""
    found = assignments_of(holdings(WEB, MAIL, own=[{"type": "imap"}]))
    assert [each.id for each in found] == [(SERVER1, "web"), (SERVER1, "smtp"), (SERVER2, "imap")]
    assert found[0].target == Target("server1", 81, "server1", "http://server1:81")
    assert [each.id for each in assignments_of(holdings(WEB, own=[]))] == [(SERVER1, "web")]


def test_asks_nothing_of_stopped_members() -> None:
    """A member that the operator stopped is left alone (H6)."""
    found = assignments_of(holdings(WEB), {SERVER1})
    assert [each.key for each in found] == [SERVER2]


def test_hands_on_what_files_hold() -> None:
    """The content of a check's files goes with it."""
    held = holdings({"type": "mysql", "credentials_file": "/secret"}, own=[WEB])
    held.check_files["/secret", None] = files = CheckFiles("user", "password")
    assert [each.files for each in assignments_of(held)] == [files, CheckFiles()]


# --- one process or none -------------------------------------------------------------------------


def test_without_checks_there_is_none(scene: Scene) -> None:
    """No process, and nothing else that would differ from before there were checks."""
    scene.probing.configure(holdings())
    scene.probing.fork_due()
    assert scene.probing.pid is None
    assert scene.changes == 0
    assert not scene.waits()
    assert scene.probing.is_gone


def test_with_checks_there_is_one(scene: Scene) -> None:
    """It begins with all of them, and there is only one."""
    scene.start(WEB)
    scene.probing.fork_due()
    assert len(scene.begun) == 1
    assert [each.id for each in scene.begun[0]] == [(SERVER1, "web"), (SERVER2, "web")]
    assert not scene.probing.is_gone


def test_a_reload_tells_it_other_checks(scene: Scene) -> None:
    """It goes on with others; told nothing if they are the same."""
    scene.start(WEB)
    scene.probing.configure(holdings(WEB))
    assert scene.heard() == []
    scene.probing.configure(other := holdings(WEB, MAIL))
    assert scene.heard() == [(Kind.PROBES, assignments_of(other))]


def test_a_reload_without_checks_ends_it(scene: Scene) -> None:
    """It is told to stop, and not replaced; with checks again there is another one."""
    scene.start(WEB)
    pid, line = scene.probing.pid, scene.line
    assert pid is not None
    scene.probing.configure(holdings())
    message = line.receive()
    assert message is not None
    assert message.kind is Kind.STOP
    scene.system.end(pid, 0)
    scene.probing.reap()
    assert scene.probing.is_gone
    scene.probing.fork_due()
    assert len(scene.begun) == 1
    scene.start(WEB)
    assert len(scene.begun) == 2


def test_is_replaced_when_it_dies(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """Another takes its place, with the checks of now."""
    scene.start(WEB)
    scene.probing.configure(holdings(MAIL))
    assert scene.probing.pid is not None
    scene.system.end(scene.probing.pid, 9)
    scene.probing.reap()
    assert "prober (process 100) has ended unasked, by signal SIGKILL" in caplog.text
    scene.probing.fork_due()
    assert [each.check.title for each in scene.begun[1]] == ["smtp", "smtp"]


def test_is_killed_when_it_is_silent(scene: Scene) -> None:
    """Each message is a heartbeat, an empty one as well."""
    scene.start(WEB)
    for _ in range(3):
        scene.wait(HUNG - 1)
        scene.says(Kind.PROBED, [])
    assert scene.system.killed == []
    scene.wait(HUNG + 2)
    assert scene.system.killed == [100]


def test_stops_at_once(scene: Scene) -> None:
    """It has nothing to finish, and isn't replaced."""
    scene.start(WEB)
    scene.probing.stop()
    assert scene.heard() == [(Kind.STOP, 0)]
    assert not scene.waits()


# --- results -------------------------------------------------------------------------------------


def test_hands_on_results(scene: Scene) -> None:
    """Those of checks that there still are."""
    scene.start(WEB)
    gone = probed(SERVER1, "gone")
    scene.says(Kind.PROBED, [probed(SERVER1, "web"), gone, probed(SERVER2, "web", passed=False)])
    assert [(each.key, each.passed) for each in scene.results] == [
        (SERVER1, True),
        (SERVER2, False),
    ]


# --- who waits -----------------------------------------------------------------------------------


def test_workers_wait_for_each_required_check(scene: Scene) -> None:
    """Until each of them has a result, whatever it is; what is only told isn't waited for."""
    scene.start(WEB, MAIL)
    assert scene.waits()
    scene.says(Kind.PROBED, [probed(SERVER1, "web")])
    assert scene.waits()
    before = scene.changes
    scene.says(Kind.PROBED, [probed(SERVER2, "web", passed=False)])
    assert scene.changes == before + 1
    assert not scene.waits()


def test_workers_wait_once(scene: Scene) -> None:
    """Checks of a reload make nobody wait again."""
    scene.start(MAIL)
    assert not scene.waits()
    scene.probing.configure(holdings(WEB))
    assert not scene.waits()


@pytest.mark.parametrize(
    ("timeout", "seconds"), [({}, 7), ({"timeout": "1s"}, 3), ({"timeout": "9m"}, LONGEST_WAIT)]
)
def test_workers_wait_no_longer_than_that(
    scene: Scene, caplog: pytest.LogCaptureFixture, timeout: dict[str, str], seconds: float
) -> None:
    """The longest timeout and two seconds, or what an upgrade leaves; then it is told."""
    scene.start({**WEB, **timeout})
    scene.says(Kind.PROBED, [probed(SERVER1, "web")])
    assert scene.waits()
    scene.wait(seconds - 1)
    assert scene.waits()
    before = scene.changes
    scene.wait(1)
    assert scene.changes == before + 1
    assert not scene.waits()
    assert "start without the first results of: cluster server2 web" in caplog.text
