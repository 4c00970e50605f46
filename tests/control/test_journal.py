"""What survives a restart: what was said of members, and takeovers."""

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.control.cluster import Cluster
from proxy.control.holdings import Holdings, Logs
from proxy.control.journal import restore, saved
from proxy.control.member_view import Drain
from proxy.control.members import STATE, VARIABLE
from proxy.control.prober import Probed
from proxy.control.served import Served
from proxy.control.state import load_state, save_state
from proxy.control.verdicts import Verdicts
from proxy.core.health import Verdict
from proxy.core.member import Terms
from proxy.core.settings import Event, OperatorStatus
from proxy.core.takeover import Origin, Said
from tests.control.clusters import settings, with_balancer
from tests.fakes import FakeClock, FakeLoop

ENABLED, DRAIN, DISABLED = (
    OperatorStatus.ENABLED,
    OperatorStatus.DRAIN,
    OperatorStatus.DISABLED,
)
ROOT = Said("root", 1000.5, "new disk")
FENCING = {"fence": "on_failure", "health_checks": [{"type": "tcp"}]}
Make = Callable[..., Cluster]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes clusters, whose boards are closed in the end."""
    made: list[Cluster] = []

    def cluster(*members: dict[str, Any], chat: Any = None, **balancer: Any) -> Cluster:
        others = {} if chat is None else {"chat": chat}
        made.append(Cluster(with_balancer(settings(*members, **others), **balancer), 1))
        return made[-1]

    yield cluster
    for each in made:
        each.board.close()


def restored(cluster: Cluster, found: Any) -> list[str]:
    """What is said when this is taken up, over JSON as on the disk."""
    return restore(cluster, json.loads(json.dumps(found)))


def operators(cluster: Cluster) -> list[OperatorStatus]:
    """What the operator wants of each member, as workers are told."""
    return [cluster.board.status(index).operator for index in range(len(cluster.members))]


# --- what is saved and taken up -----------------------------------------------------------------


def test_nothing_to_save(make: Make) -> None:
    """As long as nobody says anything there is nothing to keep."""
    assert saved(make({}, {"status": "drain"}))["members"] == []


def test_status(make: Make) -> None:
    """What differs from the file is saved with who said it, and taken up again, in words."""
    cluster = make({}, {"status": "drain"}, {"route": None}, {})
    for index, status in enumerate((DISABLED, ENABLED, DRAIN)):
        cluster.set_operator_status(cluster.members[index], status, ROOT)
    found = saved(cluster)
    fresh = make({}, {"status": "drain"}, {"route": None}, {})
    assert restored(fresh, found) == [
        "mail: server1 is still disabled, as was said",
        "mail: server2 is still enabled, as was said",
        "mail: http://server3 is still drain, as was said",
    ]
    assert operators(fresh) == [DISABLED, ENABLED, DRAIN, ENABLED]
    assert fresh.members[0].said == ROOT
    assert saved(fresh) == found


def test_as_far_as_the_file_agrees(make: Make) -> None:
    """What was said of a member that is gone, or that the file now says otherwise, is over.

    That it is over is said as well.
    """
    cluster = make({}, {}, {}, chat=({},))
    for view in cluster.members:
        cluster.set_operator_status(view, DISABLED, ROOT)
    fresh = make({"status": "drain"}, {"url": "http://other"}, {})
    assert restored(fresh, saved(cluster)) == [
        "mail: server1 is disabled no more, as was said: the file says drain now",
        "mail: server2: there is no such member now; what was said is forgotten",
        "mail: server3 is still disabled, as was said",
        "chat: server1: there is no such member now; what was said is forgotten",
    ]
    assert operators(fresh) == [DRAIN, ENABLED, DISABLED]


def test_terms(make: Make) -> None:
    """Load factor, lbset and role hold until the file says something new of them."""
    cluster = make({}, {})
    for view in cluster.members:
        view.set_terms(Terms(2.5, 1, hot_standby=True, hot_spare=False))
        view.terms_said = ROOT
    fresh = make({}, {"load_factor": 3})
    restored(fresh, saved(cluster))
    assert fresh.board.status(0).terms == (2.5, 1, True, False)
    assert fresh.members[0].terms_said == ROOT
    assert fresh.board.status(1).terms == (3, 0, False, False)


def test_drains(make: Make) -> None:
    """A drain goes on to its deadline, whoever restarts meanwhile."""
    cluster = make({}, {})
    cluster.set_operator_status(cluster.members[0], DRAIN, ROOT)
    cluster.members[0].drain = Drain(7, until=2000.0, until_empty=False, since=1000.0, left=3)
    fresh = make({}, {})
    restored(fresh, saved(cluster))
    assert fresh.members[0].drain == Drain(None, until=2000.0, until_empty=False, since=1000.0)


def test_fences(make: Make) -> None:
    """A fenced member is fenced after a restart, unless nobody is fenced any more."""
    cluster = make({}, {}, **FENCING)
    cluster.members[1].health.fence()
    cluster.members[1].fenced = ROOT
    cluster.set_verdict(cluster.members[1])
    fresh = make({}, {}, **FENCING)
    assert restored(fresh, saved(cluster)) == ["mail: server2 is still fenced"]
    assert fresh.board.status(1).verdict is Verdict.FENCED
    assert fresh.members[1].fenced == ROOT
    free = make({}, {}, **{**FENCING, "fence": "never"})
    assert restored(free, saved(cluster)) == []
    assert free.board.status(1).verdict is Verdict.UNKNOWN


def test_takeovers(make: Make) -> None:
    """All takeovers go on but the configuration's, and a file's that is named no more."""
    cluster = make({}, {}, {}, {}, failover={"server4": "server1"})
    takeovers = cluster.takeovers["mail"]
    takeovers.put("server1", "server2", Origin.OPERATOR, ROOT)
    takeovers.put("server3", "server2", Origin.CHECKS, ROOT)
    takeovers.put("server2", "server4", Origin.FILE, ROOT)
    fresh = make({}, {}, {})
    assert restored(fresh, saved(cluster)) == [
        "mail: server2 still has server1's sessions",
        "mail: server2 still has server3's sessions",
    ]
    assert [fresh.board.status(index).heir for index in range(3)] == [1, -1, 1]
    watching = make({}, {}, {}, {}, failover_file="/failover")
    assert "mail: server4 still has server2's sessions" in restored(watching, saved(cluster))
    smaller = make({}, {})
    assert restored(smaller, saved(cluster)) == [
        "mail: server2 still has server1's sessions",
        "mail: server2 has taken over from server3 no more: one of them is gone",
    ]


WEB = {"type": "http", "name": "web", "passes": 1, "fails": 3}


def see(cluster: Cluster, *results: str) -> Verdicts:
    """Results of the check ``web``, one of each member at a time: + passed, - failed."""
    verdicts = Verdicts(cluster)
    for each in results:
        verdicts.take(
            Probed(view.key, "web", sign == "+", "", 0.0, time.monotonic())
            for view, sign in zip(cluster.members, each, strict=True)
        )
    return verdicts


def test_upgrade_goes_on_where_checks_were(make: Make) -> None:
    """An upgrade is no start: who is down is told once, held off as before, and nobody fails anew.

    A restart knows nothing of checks: what they found may be of yesterday.
    """
    options = {"fence": "on_failure", "hold_off": "60s", "health_checks": [WEB]}
    free = {**options, "fence": "never"}
    for balancer, after in ((options, Verdict.FENCED), (free, Verdict.FAILED)):
        cluster = make({}, {}, {}, **balancer)
        see(cluster, "++-", "+--", "+--", "+--")
        fresh = make({}, {}, {}, **balancer)
        restored(fresh, saved(cluster, upgrade=True))
        states = [fresh.board.status(index).verdict for index in range(3)]
        assert states == [Verdict.PASSED, after, Verdict.FAILED]
        see(fresh, "---")
        assert fresh.board.status(0).verdict is Verdict.PASSED  # one probe of three
        assert fresh.happenings.take() == []
        see(fresh, "--+")
        assert fresh.board.status(2).verdict is Verdict.HELD
        see(fresh, "--+")
        assert fresh.board.status(0).verdict is after  # fenced as ever
        told = [(each.event, each.member) for each in fresh.happenings.take()]
        assert told[0] == (Event.MEMBER_DOWN, "server1")
        assert told[-1] == (Event.MEMBER_UP, "server3")  # as nobody else can serve
        again = make({}, {}, {}, **balancer)
        restored(again, saved(cluster))
        assert again.board.status(0).verdict is Verdict.UNKNOWN


def test_restart_while_a_member_is_down(make: Make) -> None:
    """Hooks that heard that it is down hear when it is up, and of nothing twice."""
    cluster = make({}, {}, health_checks=[WEB])
    see(cluster, "+-")
    fresh = make({}, {}, health_checks=[WEB])
    restored(fresh, saved(cluster))
    see(fresh, "+-", "+-")
    assert [each.event for each in fresh.happenings.take()] == []
    fresh = make({}, {}, health_checks=[WEB])
    restored(fresh, saved(cluster))
    see(fresh, "++")
    assert [each.event for each in fresh.happenings.take()] == [Event.MEMBER_UP]


def test_upgrade_to_other_checks(make: Make) -> None:
    """What a new configuration checks otherwise, or no more, is as it says."""
    cluster = make({}, {}, fence="on_failure", health_checks=[WEB])
    see(cluster, "++", "+-", "+-", "+-")
    found = saved(cluster, upgrade=True)
    for checks, second in (
        ([{"type": "tcp", "required": False}], Verdict.FENCED),
        ([{**WEB, "name": "other"}], Verdict.FENCED),
    ):
        fresh = make({}, {}, fence="on_failure", health_checks=checks)
        restored(fresh, found)
        states = [fresh.board.status(index) for index in (0, 1)]
        assert [each.verdict for each in states] == [Verdict.PASSED, second]
        assert states[0].back_since == 0
    bare = make({}, {})
    restored(bare, found)
    verdicts = Verdicts(bare)
    verdicts.tick()
    assert [bare.board.status(index).verdict for index in (0, 1)] == [Verdict.PASSED] * 2
    assert [each.event for each in bare.happenings.take()] == [Event.MEMBER_UP]


# --- files that can't be used --------------------------------------------------------------------

GOOD = {
    "balancer": "mail",
    "url": "http://server1",
    "route": "server1",
    "status": {"file": "enabled", "operator": "disabled", "by": "root", "at": 1.0, "why": ""},
}


def journal(*members: Any, takeovers: Any = ()) -> bytes:
    """A journal with these entries."""
    return json.dumps({"format": 1, "members": members, "takeovers": takeovers}).encode()


DAMAGED = [
    b"",
    b"\0" * 64,
    b"\xff\xfe",
    b"null",
    b"7",
    b'"text"',
    b"{}",
    b"[]",
    b'{"format": 2, "members": [], "takeovers": []}',
    b'{"format": 1}',
    b"[" * 100_000,
    journal(GOOD)[:-9],
    journal(GOOD, {}),
    journal(GOOD, None),
    journal(GOOD, {**GOOD, "status": {"file": "enabled", "operator": "asleep"}}),
    journal(GOOD, {**GOOD, "url": ["a", "list"]}),
    journal(GOOD, {**GOOD, "terms": {"file": [1, 0, False, False], "terms": [1, 2]}}),
    journal(GOOD, {**GOOD, "terms": {"file": [1, 0, False, False], "terms": [{}, 2, 3, 4]}}),
    journal(GOOD, {**GOOD, "drain": {"until": "x", "until_empty": False}}),
    journal(GOOD, {**GOOD, "health": ["passed", 0.0, []]}),
    journal(GOOD, {**GOOD, "health": ["well", 0.0, [], {}]}),
    journal(GOOD, takeovers=[{"balancer": "mail", "route": "server1"}]),
    journal(GOOD, takeovers=[{**GOOD, "heir": "server2", "origin": "nobody"}]),
]


def holdings(folder: Path, *members: dict[str, Any]) -> Holdings:
    """What is held with this state folder, and two members unless they are said."""
    made = settings(*(members or ({}, {})), top={"state_folder": str(folder)})
    return Holdings(made, {}, {}, (), Logs(os.open(os.devnull, os.O_WRONLY), None))


def served(folder: Path, environ: dict[str, str] | None = None) -> Served:
    """What is served with this state folder, before any worker."""
    loop = FakeLoop(FakeClock())
    held = holdings(folder)
    try:
        return Served(loop, held, lambda: None, environ or {})
    finally:
        loop.close()
        held.logs.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state folder."""
    tmp_path.chmod(0o750)
    return tmp_path


@pytest.mark.parametrize("damaged", DAMAGED)
def test_damaged_journal(damaged: bytes, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A journal that can't be used is a warning, and never keeps us from serving.

    Nothing of it is believed, not even what comes before the damage: it would go unsaid. The file
    is set aside, so that the next start says nothing.
    """
    save_state(folder, STATE, damaged)
    made = served(folder)
    assert operators(made.cluster) == [ENABLED, ENABLED]
    made.cluster.board.close()
    [(_, level, text)] = caplog.record_tuples
    assert level == logging.WARNING
    assert text.startswith(f"{folder / STATE} can't be used (")
    assert text.endswith(f"it is set aside as {folder / STATE}.damaged")
    assert [path.name for path in folder.iterdir()] == [f"{STATE}.damaged"]
    caplog.clear()
    served(folder).cluster.board.close()
    assert not caplog.messages


@pytest.mark.parametrize("cut", [1, 40, 72, 73, 100])
def test_torn_journal(cut: int, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file of which a part is missing, or changed, is set aside, whatever it still says."""
    save_state(folder, STATE, journal(GOOD))
    whole = (folder / STATE).read_bytes()
    for torn in (whole[:cut], whole[:cut] + b"x" + whole[cut + 1 :], whole + b"\n"):
        (folder / STATE).write_bytes(torn)
        made = served(folder)
        assert operators(made.cluster) == [ENABLED, ENABLED]
        made.cluster.board.close()
        assert "its checksum doesn't fit what it holds" in caplog.text
        caplog.clear()


def test_upgrade_from_one_that_says_it_otherwise(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What a former program says that isn't understood is a warning."""
    file = os.memfd_create("members")
    os.write(file, b"[7]")
    served(folder, {VARIABLE: str(file)}).cluster.board.close()
    served(folder, {VARIABLE: "{}"}).cluster.board.close()
    what = "what was said of members is not understood: "
    assert caplog.messages[0] == f"{what}it is of another format"
    assert caplog.messages[1].startswith(what)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.close(file)
    save_state(folder, STATE, journal(GOOD))
    made = served(folder, {VARIABLE: "{}"})
    assert operators(made.cluster) == [DISABLED, ENABLED]  # as was saved, at least
    made.cluster.board.close()


# --- all of it together --------------------------------------------------------------------------


async def test_state_is_taken_up(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What an operator said before a restart holds after it, and is told."""
    caplog.set_level(logging.INFO, "balanceme")
    first = served(folder)
    assert not [*folder.iterdir()]
    await first.members.set_operator_status("mail", "server2", DISABLED, ROOT)
    first.cluster.board.close()
    caplog.clear()
    second = served(folder)
    assert operators(second.cluster) == [ENABLED, DISABLED]
    assert caplog.messages == ["mail: server2 is still disabled, as was said"]
    await second.members.set_operator_status("mail", "server2", ENABLED, ROOT)
    second.cluster.board.close()
    assert load_state(folder, STATE, json.loads) == {"format": 1, "members": [], "takeovers": []}


async def test_reload_saves_what_is_over(folder: Path) -> None:
    """What the file has overruled doesn't come back when the file changes back later."""
    made = Served(asyncio.get_running_loop(), holdings(folder), lambda: None, {})
    for name in ("server1", "server2"):
        await made.members.set_operator_status("mail", name, DISABLED, ROOT)
    await made._put_in_force(holdings(folder, {"status": "drain"}, {}))
    assert operators(made.cluster) == [DRAIN, DISABLED]
    made.cluster.board.close()
    made.holdings.logs.close()
    again = served(folder)
    assert operators(again.cluster) == [ENABLED, DISABLED]
    again.cluster.board.close()


async def test_reload_knows_files_before_it_waits(folder: Path) -> None:
    """While workers swap, a file is read by the new settings: its old members may be gone.

    Of an heir that is gone no place on the board can be written.
    """
    file = folder / "failover"
    file.write_text("server2: server1\n")
    first, second = holdings(folder, {}, {}, {}), holdings(folder, {}, {})
    first.settings = with_balancer(first.settings, failover_file=str(file))
    second.settings = with_balancer(second.settings, failover_file=str(file))
    heirs: list[float] = []

    def changed() -> None:
        file.write_text("server2: server3\n")
        for _ in range(2):
            made.members.look_at_files()
        heirs.append(made.cluster.board.status(1).heir)

    made = Served(asyncio.get_running_loop(), first, lambda: None, {})
    made._changed = changed
    await made._put_in_force(second)
    assert heirs == [0]
    made.cluster.board.close()
    second.logs.close()
