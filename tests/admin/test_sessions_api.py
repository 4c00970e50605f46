"""proxy.admin.sessions_api, and the client's functions for it, over a real socket."""

import asyncio
import getpass
from pathlib import Path
from typing import Any

import pytest

from proxy.admin import client
from proxy.admin.client import AdminError
from proxy.control.commands import CommandError
from tests.admin.fake_commands import EVENTS, SESSION, FakeCommands, Supervisor

ID = SESSION["id"]


@pytest.fixture(autouse=True)
def supervisor(path: Path, commands: FakeCommands) -> Any:
    """A supervisor that answers."""
    with Supervisor(path, commands) as supervisor:
        yield supervisor


def ask(path: Path, method: str, place: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
    """Status and text of an answer."""
    code, text = asyncio.run(client._exchange(path, method, place, body, 10))
    return code, text.decode()


def test_listed(path: Path, commands: FakeCommands) -> None:
    """Only what is given narrows the list."""
    assert client.sessions(path, None, None, 7) == {"total": 3, "sessions": [SESSION]}
    client.sessions(path, "a&b", "http://server1/?x=1", 0)
    assert commands.asked == [
        ("listed", None, None, 7),
        ("listed", "a&b", "http://server1/?x=1", 0),
    ]
    assert ask(path, "GET", "sessions")[0] == 200
    assert commands.asked[-1] == ("listed", None, None, 100)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("limit=-1", "limit must be a whole number"),
        ("limit=x", "limit must be a whole number"),
        ("limit=9999999999", "limit must be a whole number"),
        ("route=a", "unknown route; known: balancer, member, limit"),
    ],
)
def test_list_that_cannot_be(path: Path, query: str, words: str) -> None:
    """What isn't understood is told."""
    code, text = ask(path, "GET", f"sessions?{query}")
    assert (code, words in text) == (400, True)


def test_history(path: Path, commands: FakeCommands) -> None:
    """A session is asked for by its id."""
    assert client.session(path, ID) == [{**SESSION, "events": EVENTS, "move": None}]
    assert commands.asked == [("history", int(ID, 16))]


@pytest.mark.parametrize("session", ["123", "0123456789abcdeg", "0123456789abcdef0", "a/b"])
def test_what_is_no_id(path: Path, session: str) -> None:
    """An id that can't be one is told, before anything is done."""
    with pytest.raises(AdminError, match=r"16 hex digits|Not Found"):
        client.session(path, session)
    with pytest.raises(AdminError, match=r"16 hex digits|Not Found"):
        client.move_session(path, session, "server1", None, "")


def test_move(path: Path, commands: FakeCommands) -> None:
    """A move says who wants it, and why."""
    moves = [{"balancer": "cluster", "from": "server1", "to": "server2"}]
    assert client.move_session(path, ID, "server2", None, "a bad disk") == moves
    client.move_session(path, ID, "server2", "cluster", "")
    session, by = int(ID, 16), getpass.getuser()
    assert commands.asked == [
        ("move", session, "server2", None, by, "a bad disk"),
        ("move", session, "server2", "cluster", by, ""),
    ]
    commands.failure = CommandError("it is there already")
    with pytest.raises(AdminError, match=r"^it is there already$"):
        client.move_session(path, ID, "server2", None, "")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "member must say where"),
        ({"member": 1}, "member must be a text"),
        ({"member": "a", "reason": "two\nlines"}, "reason must be one line"),
        ({"member": "a", "reason": "x" * 201}, "reason must be one line"),
    ],
)
def test_move_that_cannot_be(
    path: Path, commands: FakeCommands, body: dict[str, Any], words: str
) -> None:
    """What isn't understood moves nobody."""
    code, text = ask(path, "POST", f"sessions/{ID}/move", body)
    assert (code, words in text, commands.asked) == (400, True, [])


def test_find(path: Path, commands: FakeCommands) -> None:
    """An id is found by what a session has."""
    assert client.find_session(path, {"device": "abc", "user": "erika"}) == ID
    assert commands.asked == [("find", {"device": "abc", "user": "erika"})]
    assert ask(path, "POST", "sessions/find", {"password": "x"})[0] == 400
