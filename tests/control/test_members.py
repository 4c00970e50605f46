"""Members together: who is told of a change, what is kept, and what stops when we do."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.control import members as module
from proxy.control.cluster import Cluster
from proxy.control.commands import CommandError, DrainUntil
from proxy.control.hooks import Happening
from proxy.control.live_sessions import Counts
from proxy.control.members import STATE, Members, Others
from proxy.control.prober import Probed
from proxy.control.state import load_state
from proxy.core.sessions import MemberName
from proxy.core.settings import Event, OperatorStatus, Settings
from proxy.core.takeover import Said
from tests.control.clusters import settings, with_balancer

ROOT = Said("root", 1000.0)
Make = Callable[..., "Arena"]


class Arena:
    """Members whose workers, sessions and hooks are a test's."""

    def __init__(self, made: Settings, folder: Path) -> None:
        self.nudges = 0
        self.counted: dict[MemberName, int] = {}
        self.told: list[Happening] = []
        self.folder = folder
        self.cluster = Cluster(made, 1)
        # by now everybody who lives was seen
        self.cluster.counted_since -= 3600
        self.members = Members(
            self.cluster,
            asyncio.get_running_loop(),
            folder,
            Others(self._nudge, self._count, self.told.append),
        )

    def _nudge(self) -> None:
        self.nudges += 1

    async def _count(self) -> Counts:
        return Counts(self.counted, {})

    @property
    def events(self) -> list[Event]:
        """What hooks were told."""
        return [each.event for each in self.told]

    @property
    def saved(self) -> Any:
        """What is kept."""
        return load_state(self.folder, STATE, json.loads)

    def see(self, number: int, *, passed: bool) -> None:
        """A check of a member has a result."""
        key = self.cluster.members[number].key
        self.members.take_probes([Probed(key, "tcp", passed, "refused", 0.0, 0.0)])


def mail(**options: Any) -> Settings:
    """Three members with these options of their balancer."""
    return with_balancer(settings({}, {}, {}), **options)


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Makes arenas; what they watch ends with the test."""
    tmp_path.chmod(0o750)
    made: list[Arena] = []

    def arena(**options: Any) -> Arena:
        made.append(Arena(mail(**options), tmp_path))
        return made[-1]

    yield arena
    for each in made:
        each.members.stop()
        each.cluster.board.close()


async def test_a_change_is_told_kept_and_announced(make: Make) -> None:
    """Workers, the state folder and hooks hear of each change, in this order."""
    arena = make()
    await arena.members.failover("mail", "server2", "server1", ROOT)
    assert arena.nudges == 1
    assert [entry["route"] for entry in arena.saved["takeovers"]] == ["server2"]
    assert arena.events == [Event.TAKEOVER]
    await arena.members.failover("mail", "server2", None, ROOT)
    await arena.members.set_operator_status("mail", "server1", OperatorStatus.DISABLED, ROOT)
    await arena.members.set_terms("mail", "server1", {"lbset": 2}, ROOT)
    assert arena.nudges == 4
    assert arena.saved["members"][0]["status"]["operator"] == "disabled"
    with pytest.raises(CommandError, match="neither fenced"):
        await arena.members.readmit("mail", "server1", ROOT)
    assert arena.nudges == 4


async def test_results_of_checks(make: Make) -> None:
    """Verdicts reach workers and hooks; a result that changes nothing reaches nobody."""
    arena = make(health_checks=[{"type": "tcp", "passes": 1, "fails": 1}])
    for number in range(3):
        arena.see(number, passed=True)
    before = arena.nudges
    arena.see(1, passed=True)
    assert arena.nudges == before
    arena.see(1, passed=False)
    assert arena.nudges == before + 1
    assert arena.events == [Event.MEMBER_DOWN]


async def test_a_drain_counts_at_once(make: Make) -> None:
    """What is left on a drained member is known soon after the command, and looked at from then."""
    arena = make()
    arena.counted = {("mail", "server2"): 7}
    await arena.members.drain("mail", "server2", DrainUntil(), ROOT)
    await asyncio.sleep(0)
    drain = arena.cluster.members[1].drain
    assert drain is not None
    assert (drain.sessions, drain.left) == (7, 7)
    arena.counted = {}
    arena.members._counted_at = 0
    arena.members._look()
    await asyncio.sleep(0)
    assert drain.done
    assert arena.events == [Event.DRAINED]


async def test_reload_without_the_file(make: Make, tmp_path: Path) -> None:
    """Once no failover_file is named any more, what it said is over."""
    file = tmp_path / "failover"
    file.write_text("server2: server1\n")
    arena = make(failover_file=str(file))
    arena.members.restore({})
    assert arena.cluster.board.status(1).heir == 0
    arena.cluster.reload(mail(), 1).close()
    arena.members.configure()
    assert arena.cluster.board.status(1).heir == -1


async def test_a_file_is_no_news_twice(make: Make, tmp_path: Path) -> None:
    """After a restart a failover_file says what it said before, and nobody is told again.

    One that can't be used just then changes nothing, as at any other time; one that is gone does.
    """
    file = tmp_path / "failover"
    for text, heir, events in (
        ("server2: server1\n", 0, [Event.TAKEOVER]),
        ("server2: server1\n", 0, []),
        ("server2: nobody\n", 0, []),
        ("server2: server3\n", 2, [Event.TAKEOVER]),
        (None, -1, [Event.FAILBACK]),
    ):
        file.unlink() if text is None else file.write_text(text)
        arena = make(failover_file=str(file))
        arena.members.restore({})
        assert arena.cluster.board.status(1).heir == heir
        assert arena.events == events
        arena.members.configure()
        assert arena.cluster.board.status(1).heir == heir


async def test_upgrade_under_way(make: Make) -> None:
    """A new program knows all that was said, and wouldn't hear of more, nor of what we save."""
    arena = make(health_checks=[{"type": "tcp", "passes": 1, "fails": 1}])
    entry, (memory,) = arena.members.for_upgrade()
    assert entry == {"BALANCEME_MEMBERS": str(memory)}
    assert json.loads(os.pread(memory, 10_000, 0))["takeovers"] == []
    with pytest.raises(CommandError, match="an upgrade is under way"):
        await arena.members.readmit("mail", "server1", ROOT)
    arena.members.changed()
    assert not (arena.folder / STATE).exists()
    arena.see(1, passed=False)
    assert arena.events == []  # the new program sees it as well
    arena.members.take_back()
    assert arena.events == [Event.MEMBER_DOWN]
    assert arena.saved is not None
    await arena.members.failover("mail", "server2", "server1", ROOT)


async def test_what_could_not_be_saved(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the disk has room again it is saved, though nothing changes any more."""
    arena = make()
    monkeypatch.setattr(module, "save_state", lambda *_: False)
    await arena.members.failover("mail", "server2", "server1", ROOT)
    monkeypatch.undo()
    arena.members._look()
    assert not (arena.folder / STATE).exists()
    arena.members._save_at = 0
    arena.members._look()
    assert len(arena.saved["takeovers"]) == 1
    assert arena.members._save_at is None


async def test_stop(make: Make) -> None:
    """Who stops, or is followed, decides nothing more: the next one does."""
    arena = make(health_checks=[{"type": "tcp", "passes": 1, "fails": 1}])
    arena.see(0, passed=True)
    arena.members.stop()
    arena.see(0, passed=False)
    arena.members._look()
    assert arena.events == []
