"""What all workers together know of sessions; workers are tables behind real channels."""

import asyncio
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from proxy.control import live_sessions as module
from proxy.control import session_answers
from proxy.control.channel import Kind, channel_pair
from proxy.control.cluster import Cluster
from proxy.control.commands import CommandError
from proxy.control.live_sessions import LiveSessions
from proxy.control.workers import WorkerHandle, Workers
from proxy.core.balancer import Balancer
from proxy.core.choice import Choice, Reason, Session
from proxy.core.moves import Move
from proxy.core.settings import OperatorStatus, Settings
from proxy.core.takeover import Origin, Said

SALT = b"0123456789abcdef"
NEW = Choice(None, Session.NEW, Reason.ELECTED, None, None)
MOVED = Choice(None, Session.MOVED, Reason.UNUSABLE, None, None)


def settings() -> Settings:
    """Two balancers; the first has a member without a route."""
    member = {"url": "http://server1", "route": "server1"}
    members = [member, {"url": "http://server2", "route": "server2"}, {"url": "http://nameless"}]
    mappings = [{"path": "/", "balancer": "mail"}]
    return Settings.model_validate(
        {
            "frontends": [{"listen": "127.0.0.1:8080", "mappings": mappings}],
            "balancers": {
                "mail": {"members": members},
                "web": {"members": [member], "sticky_session": "ROUTE"},
            },
        }
    )


class Handle:
    """A worker with tables of its own, which answers what it is asked."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.balancers = {
            name: Balancer(name, balancer) for name, balancer in settings().balancers.items()
        }
        self.ours, self.theirs = channel_pair()
        self.silent = False
        self.tasks: set[asyncio.Task[None]] = set()

    def note(
        self, key: int, ago: float, member: str = "server1", choice: Choice = NEW, web: bool = False
    ) -> None:
        """A request of a session was served so many seconds ago."""
        table = self.balancers["web" if web else "mail"].sessions
        table.note(key, time.monotonic() - ago, member, choice)


class FakeWorkers:
    """All of them, as the supervisor has them."""

    def __init__(self, count: int) -> None:
        self.all = [Handle(number) for number in range(count)]
        self.sessions: LiveSessions | None = None

    @property
    def serving(self) -> list[Handle]:
        """All but the last one, which starts, if there are more than two."""
        return self.all[:2]

    def send(self, worker: Handle, kind: Kind, value: Any = None) -> None:
        """What a worker is told, it obeys as the real one does."""
        worker.ours.send(kind, value)
        message = worker.theirs.receive()
        assert message is not None
        if message.kind is Kind.MOVE_SESSIONS:
            session_answers.obey(worker.balancers, message.value)
        elif not worker.silent:
            worker.tasks.add(asyncio.ensure_future(self._answer(worker, message.value)))

    async def _answer(self, worker: Handle, asked: session_answers.Asked) -> None:
        await session_answers.answer(worker.theirs, asked, worker.balancers)
        message = worker.ours.receive()
        assert message is not None
        assert self.sessions is not None
        self.sessions.heard(cast(WorkerHandle, worker), message)


class Yard:
    """The supervisor's side, with its workers and its cluster."""

    def __init__(self, count: int) -> None:
        self.cluster = Cluster(settings(), count)
        self.workers = FakeWorkers(count)
        self.sessions = LiveSessions(cast(Workers, self.workers), self.cluster, SALT)
        self.workers.sessions = self.sessions

    def __getitem__(self, number: int) -> Handle:
        return self.workers.all[number]

    def close(self) -> None:
        """Close what is open."""
        self.cluster.board.close()
        for worker in self.workers.all:
            worker.ours.close()
            worker.theirs.close()


@pytest.fixture
async def make() -> AsyncIterator[Callable[[int], Yard]]:
    """Makes yards; in the end no file is left open."""
    made: list[Yard] = []

    def yard(count: int = 2) -> Yard:
        made.append(Yard(count))
        return made[-1]

    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only how many
    yield yard
    for each in made:
        each.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above


@pytest.fixture
def yard(make: Callable[[int], Yard]) -> Yard:
    """A yard of two workers."""
    return make(2)


def refused(text: str) -> Any:
    """A command that can't be carried out, with these words."""
    return pytest.raises(CommandError, match=f"^{re.escape(text)}")


# --- counts --------------------------------------------------------------------------------------


async def test_count(yard: Yard) -> None:
    """Each session counts once, where it was seen last, in each balancer that it is in."""
    yard[0].note(1, 9)
    yard[1].note(1, 5, "server2", MOVED)
    yard[0].note(2, 4)
    yard[1].note(2, 8)
    yard[1].note(3, 3, "http://nameless")
    yard[0].note(1, 2, web=True)
    now = time.monotonic()
    counts = await yard.sessions.count()
    assert counts.sessions == {
        ("mail", "server1"): 1,
        ("mail", "server2"): 1,
        ("mail", "http://nameless"): 1,
        ("web", "server1"): 1,
    }
    ago = {name: round(now - seen) for name, seen in counts.last_seen.items()}
    assert ago[("mail", "server1")] == 4
    assert ago[("mail", "server2")] == 5
    assert ago.keys() == counts.sessions.keys()


async def test_count_of_many(yard: Yard) -> None:
    """All sessions of all parts of the tables are counted."""
    for key in range(1, 5001):
        yard[key % 2].note(key * 7919, 1, f"server{key % 2 + 1}")
    assert set((await yard.sessions.count()).sessions.values()) == {2500}


async def test_count_without_workers(make: Callable[[int], Yard]) -> None:
    """Before there are workers there are no sessions."""
    assert (await make(0).sessions.count()).sessions == {}


async def test_count_that_is_not_complete(
    make: Callable[[int], Yard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that starts yet, or is silent, may have sessions: the count says that it isn't all.

    So a member whose sessions are only there never counts as empty.
    """
    monkeypatch.setattr(module, "COUNTING", 0.05)
    assert (await make(2).sessions.count()).complete
    assert not (await make(3).sessions.count()).complete
    yard = make(2)
    yard[1].silent = True
    assert not (await yard.sessions.count()).complete


async def test_worker_that_ends(yard: Yard) -> None:
    """Nobody waits for a worker that ends before it has answered."""
    yard[0].note(1, 9)
    yard[1].silent = True
    counting = asyncio.ensure_future(yard.sessions.count())
    await asyncio.sleep(0)
    yard.sessions.ended(1)
    assert (await counting).sessions == {("mail", "server1"): 1}
    yard.sessions.ended(1)


async def test_worker_that_is_silent(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that doesn't answer in time is left out, and what it says later is passed over."""
    monkeypatch.setattr(module, "COUNTING", 0.01)
    yard[0].note(1, 9)
    yard[1].silent = True
    assert (await yard.sessions.count()).sessions == {("mail", "server1"): 1}
    assert "sessions are counted without 1 workers" in caplog.text
    await yard.workers._answer(yard[1], session_answers.Asked(1, None))
    await yard.workers._answer(yard[1], session_answers.Asked(1, ()))


async def test_who_asks_goes_away(yard: Yard) -> None:
    """What workers have told is closed when nobody wants to know any more."""
    yard[1].silent = True
    counting = asyncio.ensure_future(yard.sessions.count())
    await asyncio.sleep(0)
    await asyncio.gather(*yard[0].tasks)
    counting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await counting


async def test_several_ask_at_once(yard: Yard) -> None:
    """Each gets its own answer."""
    yard[0].note(1, 9)
    asked = [yard.sessions.count(), yard.sessions.count()]
    counts = await asyncio.gather(*asked)
    (known,) = await yard.sessions.history(1)
    assert [each.sessions for each in counts] == [{("mail", "server1"): 1}] * 2
    assert known["id"] == "0000000000000001"


# --- lists and histories -------------------------------------------------------------------------


def ids(told: dict[str, Any]) -> list[int]:
    """The sessions of a list."""
    return [int(each["id"], 16) for each in told["sessions"]]


async def test_listed(yard: Yard) -> None:
    """The list has those seen last, of one balancer or member or of all, and says how many."""
    for key, ago, member in ((1, 9, "server1"), (2, 7, "server2"), (3, 8, "http://nameless")):
        yard[key % 2].note(key, ago, member)
    yard[0].note(4, 6, web=True)
    listed = yard.sessions.listed
    everybody = await listed(None, None, 10)
    assert (everybody["total"], ids(everybody)) == (4, [4, 2, 3, 1])
    few = await listed(None, None, 2)
    assert (few["total"], ids(few)) == (4, [4, 2])
    assert ids(await listed(None, "server1", 10)) == [4, 1]
    assert ids(await listed("mail", "server1", 10)) == [1]
    assert ids(await listed("mail", None, 10)) == [2, 3, 1]
    assert ids(await listed(None, "http://nameless", 10)) == [3]
    assert await listed(None, None, 0) == {"total": 4, "sessions": []}
    with refused("there is no balancer x; there are mail, web"):
        await listed("x", None, 10)
    with refused("there is no member server2; there are server1"):
        await listed("web", "server2", 10)


async def test_listed_in_words(yard: Yard) -> None:
    """Each session says since when it is known, when it was seen, and why it is where it is."""
    wall = time.time()
    yard[0].note(1, 100)
    yard[1].note(1, 50, "server2", MOVED)
    (told,) = (await yard.sessions.listed(None, None, 10))["sessions"]
    assert (round(wall - told.pop("since")), round(wall - told.pop("last"))) == (100, 50)
    assert told == {
        "id": "0000000000000001",
        "balancer": "mail",
        "member": "server2",
        "live": True,
        "moves": 1,
        "session": "moved",
        "reason": "its own member can't be used",
    }


async def test_history(yard: Yard) -> None:
    """A history is that of all workers, in each balancer, also of a session that is over."""
    yard[0].note(1, 4000)
    yard[1].note(1, 3900, "server2", MOVED)
    yard[0].note(1, 5, web=True)
    mail, web = await yard.sessions.history(1)
    assert (mail["balancer"], mail["live"], web["live"]) == ("mail", False, True)
    assert [(event["member"], event["session"]) for event in mail["events"]] == [
        ("server1", "new"),
        ("server2", "moved"),
    ]
    assert [event["reason"] for event in web["events"]] == ["elected"]
    assert mail["move"] is None
    with refused("nobody knows a session 0000000000000002; ids change"):
        await yard.sessions.history(2)


# --- moving --------------------------------------------------------------------------------------


async def test_move(make: Callable[[int], Yard], caplog: pytest.LogCaptureFixture) -> None:
    """A move is told to all workers, to those that start as well, and to those to come."""
    caplog.set_level(logging.INFO, "balanceme")
    yard = make(3)
    yard[0].note(1, 9)
    assert await yard.sessions.move(1, "http://server2", None, "root", "a bad disk") == [
        {"balancer": "mail", "from": "server1", "to": "server2"}
    ]
    (ordered,) = yard.sessions.moves
    assert ordered[:2] == ("mail", 1)
    assert ordered.move[:2] == ("server2", "server1")
    for worker in yard.workers.all:
        assert worker.balancers["mail"].sessions.moves == {1: ordered.move}
        assert not worker.balancers["web"].sessions.moves
    assert caplog.messages[-1] == (
        "mail: session 0000000000000001 moves from server1 to server2 with its next request,"
        " as root said: a bad disk"
    )
    told = (await yard.sessions.history(1))[0]["move"]
    assert told.pop("at") == pytest.approx(time.time(), abs=5)
    assert told == {"member": "server2", "from": "server1", "by": "root", "reason": "a bad disk"}


async def test_move_that_cannot_be(yard: Yard) -> None:
    """What a move lacks is told, and nobody is told of the move."""
    yard[0].note(1, 9)
    move = yard.sessions.move
    with refused("nobody knows a session 0000000000000002"):
        await move(2, "server2", None, "root", "")
    with refused("there is no member server3; there are server1, server2, http://nameless"):
        await move(1, "server3", None, "root", "")
    with refused("session 0000000000000001 is on server1 already"):
        await move(1, "server1", None, "root", "")
    with refused("session 0000000000000001 is in no balancer that has a member server1"):
        await move(1, "server1", "web", "root", "")
    view = yard.cluster.members[1]
    yard.cluster.takeovers["mail"].put("server2", "server1", Origin.OPERATOR, Said("root", 0))
    with refused("mail: server1 has taken over server2's sessions"):
        await move(1, "server2", None, "root", "")
    yard.cluster.set_operator_status(view, OperatorStatus.DRAIN)
    with refused("mail: server2 is drain and takes no sessions; enable it first"):
        await move(1, "server2", None, "root", "")
    assert yard.sessions.moves == ()


async def test_moves_are_bounded(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many are kept for workers to come, and none that is over."""
    monkeypatch.setattr(module, "MOST", 2)
    for key in (1, 2, 3):
        yard[0].note(key, 9)
        await yard.sessions.move(key, "server2", None, "root", "")
    assert [each.key for each in yard.sessions.moves] == [2, 3]
    now = time.monotonic() + 4000
    monkeypatch.setattr(time, "monotonic", lambda: now)
    await yard.sessions.move(3, "server2", None, "root", "")
    assert [each.key for each in yard.sessions.moves] == [3]


def test_moves_of_a_balancer_that_is_gone() -> None:
    """A worker whose settings have no such balancer any more passes its moves over."""
    move = session_answers.Ordered("gone", 1, cast(Any, None))
    session_answers.obey({}, (move,))


def test_workers_forget_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Moves that are over cost nothing."""
    balancer = Balancer("mail", settings().balancers["mail"])
    move = Move("server2", "server1", 100.0)
    session_answers.obey({"mail": balancer}, (session_answers.Ordered("mail", 1, move),))
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    session_answers.forget_moves({"mail": balancer})
    assert not balancer.sessions.moves


# --- finding -------------------------------------------------------------------------------------


def test_find(yard: Yard) -> None:
    """A session has one id, by whatever it is found."""
    find = yard.sessions.find
    cookie = find({"cookie": "a=1; ZARAFA_WEBAPP=2"})
    assert cookie == find({"cookie": "ZARAFA_WEBAPP=2", "address": "192.0.2.1"})
    device = find({"device": "abc", "user": "Erika"})
    assert device == find({"device": "abc", "user": "Z\\erika"})
    browser = find({"address": "192.0.2.1", "user_agent": "Firefox"})
    assert browser != find({"address": "192.0.2.2", "user_agent": "Firefox"})
    assert len({cookie, device, browser}) == 3


@pytest.mark.parametrize(
    ("traits", "words"),
    [
        ({}, "that names no session: it takes"),
        ({"cookie": "lang=nl"}, "that names no session: it takes"),
        ({"device": "abc"}, "a device is known together with its user"),
    ],
)
def test_find_by_too_little(yard: Yard, traits: dict[str, str], words: str) -> None:
    """What is missing is told."""
    with refused(words):
        yard.sessions.find(traits)


def test_repr(yard: Yard) -> None:
    """It says how many moves are remembered."""
    assert repr(yard.sessions) == "<LiveSessions 0 moves>"
