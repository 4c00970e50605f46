"""Our connection to a member: what it reads, and when it may be used again."""

import os

import pytest

from proxy.dataplane.member_connection import MemberConnection
from tests.dataplane.conftest import MakeStage
from tests.dataplane.messages import (
    CHUNKED,
    CLOSE,
    chunks,
    handed_on,
    length,
    passed_on,
    request,
    response,
)
from tests.fakes import Peer, Script, Stage

BODY = b"HTTP/1.1 200 OK\r\n" + length(b"ab") + b"\r\nab"


class Descriptor:
    """What poll needs of a socket."""

    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        """The file descriptor."""
        return self.number


def exchange(stage: Stage, data: bytes, line: bytes = b"GET / HTTP/1.1") -> tuple[Peer, Peer]:
    """Client and member after an exchange that the member answers with ``data``."""
    client = stage.client()
    client.send(request(line))
    member = stage.accept(stage.openings[0])
    member.take()
    member.send(data)
    return client, member


def test_is_used_again(make_stage: MakeStage) -> None:
    """A connection whose messages ended where they should serves the next client (F17, R28)."""
    stage = make_stage(1)
    _, member = exchange(stage, BODY)
    assert repr(stage.pool()) == "<MemberPool <Member server1 busy=0> idle=1 all=1>"
    other = stage.client()
    other.send(request())
    assert stage.openings == []
    member.gets(passed_on())
    (connection,) = stage.pool().connections
    assert repr(connection) == "<MemberConnection http://server1 ACTIVE served=2>"
    member.send(response(body=b"x"))
    other.gets(handed_on(body=b"x"))
    assert repr(connection) == "<MemberConnection http://server1 IDLE served=2>"


@pytest.mark.parametrize(
    "data",
    [
        BODY + b"x",
        BODY + BODY,
        b"HTTP/1.1 204 No\r\n\r\nx",
        b"HTTP/1.1 304 Not\r\n" + length(b"x") + b"\r\nx",
        b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n" + chunks(b"a") + b"x",
        b"HTTP/1.1 200 OK\r\n" + CLOSE + length(b"a") + b"\r\na",
        b"HTTP/1.0 200 OK\r\n" + length(b"a") + b"\r\na",
    ],
)
def test_is_closed_when_in_doubt(stage: Stage, data: bytes) -> None:
    """Bytes behind an answer close the connection, and so does its own word (H60, P25)."""
    client, member = exchange(stage, data)
    assert not member.open
    assert client.open
    assert client.take().count(b"HTTP/1.1") == 1


def test_body_of_a_head_request_closes(stage: Stage) -> None:
    """A body after the answer to HEAD is discarded with its connection (H60)."""
    client, member = exchange(stage, BODY, b"HEAD / HTTP/1.1")
    assert not member.open
    assert client.take().endswith(b"\r\n\r\n")


@pytest.mark.parametrize("data", [b"x", BODY])
def test_unasked_data_on_an_idle_connection_closes_it(make_stage: MakeStage, data: bytes) -> None:
    """What comes while nobody asked is given to nobody (H60, P6)."""
    stage = make_stage(1)
    _, member = exchange(stage, BODY)
    member.send(data)
    assert not member.open
    assert repr(stage.pool()) == "<MemberPool <Member server1 busy=0> idle=0 all=0>"
    stage.client().send(request())
    assert stage.openings == ["server1"]


def test_idle_connection_that_the_member_closes_is_forgotten(make_stage: MakeStage) -> None:
    """A member may close an idle connection; the next request opens another (F17)."""
    stage = make_stage(1)
    _, member = exchange(stage, BODY)
    member.end()
    assert not stage.pool().connections
    stage.client().send(request())
    assert stage.openings == ["server1"]


def test_unread_data_is_found_before_use(make_stage: MakeStage) -> None:
    """The kernel is asked before an idle connection is used again (F17, H60)."""
    stage = make_stage(1)
    _, member = exchange(stage, BODY)
    reader, writer = os.pipe()
    try:
        (connection,) = stage.pool().connections
        connection._poll.register(reader)
        stage.advance(1)
        assert connection.is_clean()
        os.write(writer, b"x")
        stage.client().send(request())
        assert not member.open
        assert stage.openings == ["server1"]
    finally:
        os.close(reader)
        os.close(writer)


def test_data_before_the_request_is_poison(make_stage: MakeStage) -> None:
    """A member that speaks before it was asked is closed: 502 (H60)."""
    stage = make_stage(1)
    client = stage.client()
    client.send(request())
    reader, writer = os.pipe()
    try:
        os.write(writer, BODY)
        member = stage.loop.openings[0].accept(socket=Descriptor(reader))
    finally:
        os.close(reader)
        os.close(writer)
    assert member.take() == b""
    assert not member.open
    assert client.take().startswith(b"HTTP/1.1 502 ")


def test_body_that_is_owed_closes(make_stage: MakeStage) -> None:
    """With bytes of a request unsent the connection isn't used again (H12)."""
    stage = make_stage(1)
    client = stage.client()
    client.send(request(b"POST / HTTP/1.1", length(b"x" * 20000)))
    client.send(b"x" * 19999)
    member = stage.accept()
    member.stick()
    client.send(b"x")
    assert member.transport.waiting == b"x"
    member.send(response(b"200 OK", body=b"y"))
    assert client.take().endswith(b"y")
    assert not member.open
    assert not stage.pool().connections


def test_idle_connection_ages(make_stage: MakeStage) -> None:
    """An idle connection is closed after a minute, and not by its last exchange's timeout."""
    stage = make_stage(1)
    _, member = exchange(stage, BODY)
    stage.advance(59)
    assert member.open
    stage.advance(2)
    assert not member.open


def test_is_clean_after_an_answer_that_a_slow_client_paused(make_stage: MakeStage) -> None:
    """A connection that was paused inside of its last piece is read from again (H36, P6)."""
    stage = make_stage(1)
    client = stage.client()
    client.send(request())
    client.stick()
    member = stage.accept()
    member.send(response(body=b"x" * 60000))
    client.send(request())
    hint = b"HTTP/1.1 103 Early\r\nLink: " + b"y" * 10000 + b"\r\n\r\n"
    member.send(hint + BODY)
    assert stage.busy == 0
    assert stage.clients[0].blocked
    assert member.transport.is_reading()
    other = stage.client()
    other.send(request())
    member.send(response(body=b"z"))
    assert other.take().endswith(b"z")


def test_answers_in_pieces_and_pairs() -> None:
    """Interim, final head and body may come in one piece or in many."""
    script = Script().client(request()).member_gets(passed_on())
    script.member(b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 103 Early\r\n\r\n" + BODY)
    script.client_gets(
        b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 103 Early\r\n\r\n" + handed_on(body=b"ab")
    ).play()


def test_late_answer_is_given_to_nobody(make_stage: MakeStage) -> None:
    """What a member sends after its client has gone ends with the connection (H81)."""
    stage = make_stage(1)
    client = stage.client()
    client.send(request())
    member = stage.accept()
    connection = member.transport.protocol
    client.reset()
    assert isinstance(connection, MemberConnection)
    connection.data_received(BODY)  # as if it was in the air
    stage.client().send(request())
    assert stage.openings == ["server1"]


def test_head_of_many_pieces_is_bounded(stage: Stage) -> None:
    """An endless head is 502 after its limit, whatever its pieces (H34, H63)."""
    client = stage.client()
    client.send(request())
    member = stage.accept()
    member.send(b"HTTP/1.1 200 OK\r\n")
    for _ in range(100):
        member.send(b"X: " + b"y" * 997 + b"\r\n")
    assert client.take().startswith(b"HTTP/1.1 502 ")
    assert not member.open
