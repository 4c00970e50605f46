"""What puts a member in error, and what never does: nothing that a client can bring about.

Each story is one client's with one member; all of them run with fail_on_timeout, which is where
a client's silence could be mistaken for the member's.
"""

import logging
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from proxy.core.member import Member
from proxy.dataplane.request import PREFETCH_TIME
from tests.dataplane.conftest import MakeStage
from tests.dataplane.messages import CHUNKED, CLOSE, chunks, length, request, response
from tests.fakes import Peer, Stage

POST = b"POST / HTTP/1.1"
EXPECT = b"Expect: 100-continue\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SESSION1 = b"Cookie: BALANCEME=balancer.server1\r\n"
PING = b"POST /Microsoft-Server-ActiveSync?Cmd=Ping HTTP/1.1"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"

STRICT: dict[str, Any] = {
    "fail_on_timeout": True,
    "fail_on_status": [408, 413, 499, 500, 502, 503, 504],
    "timeouts": {"response": "5s", "activesync": "30s", "tunnel": "5s"},
}


@pytest.fixture
def strict(make_stage: MakeStage) -> Stage:
    """A stage on which anything that may count against a member does."""
    return make_stage(2, balancer=STRICT, mapping={"upgrade": ["websocket"]})


def told(stage: Stage) -> list[Member]:
    """Whom the others are told of from now on."""
    members: list[Member] = []
    stage.frontend.member_in_error = members.append
    return members


# --- fail_on_status ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        response(b"503 No", body=b"busy"),
        response(b"503 No", CHUNKED, None) + chunks(b"bu", b"sy"),
        response(b"503 No", CLOSE, b"busy"),
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + response(b"503 No", body=b"busy"),
    ],
    ids=["length", "chunked", "closes", "after an interim one"],
)
@pytest.mark.parametrize("by", [0, 1])
def test_fail_on_status(
    strict: Stage, caplog: pytest.LogCaptureFixture, answer: bytes, by: int
) -> None:
    """The answer is passed on as it is; then its member is in error, and all are told (F10)."""
    members = told(strict)
    client = strict.client()
    client.send(request(fields=SESSION1))
    strict.accept().send(answer, by=by)
    data = client.take()
    assert data.rpartition(b"HTTP/1.1 ")[2].startswith(b"503 No\r\n")
    assert b"".join(data.split(b"2\r\n")).replace(b"\r\n", b"").count(b"busy") <= 1
    assert strict.statuses == [503]
    assert members == [strict.member()]
    assert strict.member().in_error(strict.clock.monotonic())
    assert [line.getMessage() for line in caplog.records if line.levelno == logging.WARNING] == [
        "http://server1 in error for 60 s: answered 503"
    ]
    again = strict.client()
    again.send(request(fields=SESSION1))
    assert strict.openings == ["server2"]


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"HEAD / HTTP/1.1", b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\n"),
        (b"GET / HTTP/1.1", b"HTTP/1.1 304 Not\r\nETag: x\r\n\r\n"),
        (b"GET / HTTP/1.0", b"HTTP/1.1 503 No\r\n\r\nuntil it closes"),
        (PING, response(b"503 No")),
    ],
)
def test_fail_on_status_whatever_the_answer(
    make_stage: MakeStage, line: bytes, answer: bytes
) -> None:
    """An answer without a body, or without a known end, counts like any (F10)."""
    stage = make_stage(2, balancer={"fail_on_status": [304, 503]})
    members = told(stage)
    client = stage.client()
    client.send(request(line))
    member = stage.accept()
    member.send(answer)
    member.end()
    assert members == [stage.member()]
    assert len(stage.statuses) == 1


@pytest.mark.parametrize("status", [b"200 OK", b"404 No", b"501 No"])
def test_other_statuses_say_nothing(strict: Stage, status: bytes) -> None:
    """Only what is listed counts."""
    members = told(strict)
    strict.client().send(request())
    strict.accept().send(response(status))
    assert members == []


def test_interim_answers_say_nothing(make_stage: MakeStage) -> None:
    """An interim answer and a 101 are no final ones (F10)."""
    stage = make_stage(1, balancer={"fail_on_status": [200]}, mapping={"upgrade": ["websocket"]})
    members = told(stage)
    client = stage.client()
    client.send(request(fields=UPGRADE))
    member = stage.accept()
    member.send(b"HTTP/1.1 102 Processing\r\n\r\n")
    member.send(b"HTTP/1.1 101 Switching Protocols\r\n" + UPGRADE + b"\r\n")
    assert members == []


@pytest.mark.parametrize("expects", [False, True])
def test_body_that_the_member_does_not_want(strict: Stage, *, expects: bool) -> None:
    """An answer instead of 100, or while the body waits for the member, is the member's (F10)."""
    members = told(strict)
    client = strict.client()
    client.send(request(POST, (EXPECT if expects else b"") + LARGE) + b"x" * 20_000 * (not expects))
    member = strict.accept()
    if not expects:
        member_is_full(strict, client, member)
    member.send(response(b"503 No"))
    assert strict.statuses == [503]
    assert members == [strict.member()]


def test_ignored_statuses(make_stage: MakeStage) -> None:
    """A member with ignore_errors stays in service (F10)."""
    stage = make_stage(1, balancer=STRICT, member={"ignore_errors": True})
    members = told(stage)
    stage.client().send(request())
    stage.accept().send(response(b"503 No"))
    assert (members, stage.member().error_since) == ([], None)


def test_our_own_answers_are_no_member_s(strict: Stage) -> None:
    """A 502 or 503 of ours is no status of a member (F10)."""
    members = told(strict)
    client = strict.client()
    client.send(request())
    strict.accept().end()
    assert client.take().startswith(b"HTTP/1.1 502 ")
    assert members == []


def test_told_once(strict: Stage) -> None:
    """Of several answers that were under way only the first is news."""
    members = told(strict)
    clients = [strict.client(f"192.0.2.{number}") for number in range(1, 5)]
    for client in clients:
        client.send(request(fields=SESSION1))
    for peer in [strict.accept() for _ in clients]:
        peer.send(response(b"503 No"))
    assert members == [strict.member()]
    assert strict.statuses == [503] * 4


def test_told_once_a_second(make_stage: MakeStage, caplog: pytest.LogCaptureFixture) -> None:
    """When all members are in error each request renews it, which isn't told each time (F7)."""
    stage = make_stage(1, balancer=STRICT)
    members = told(stage)
    client = stage.client()
    client.send(request())
    member = stage.accept()
    for number in range(20):
        member.send(response(b"502 No"))
        assert stage.member().error_since == stage.clock.monotonic()
        assert len(members) == number // 10 + 1
        stage.advance(0.1001)
        client.send(request())
    assert stage.statuses == [502] * 20
    assert caplog.text.count("in error") == 2


# --- fail_on_timeout -----------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 O", b"HTTP/1.1 102 Processing\r\n\r\n"])
@pytest.mark.parametrize("body", [b"", b"abc", b"x" * 30000])
def test_fail_on_timeout(strict: Stage, begun: bytes, body: bytes) -> None:
    """A member that keeps a whole request waiting too long is in error; this one gets 504 (F11)."""
    members = told(strict)
    client = strict.client()
    client.send(request(POST, length(body) if body else b"", body))
    member = strict.accept()
    member.send(begun)
    strict.advance(5.1)
    assert client.take().rpartition(b"HTTP/1.1 ")[2].startswith(b"504 ")
    assert members == [strict.member()]
    assert strict.openings == []


def test_without_fail_on_timeout(make_stage: MakeStage) -> None:
    """By default silence says nothing of a member (F1)."""
    stage = make_stage(1)
    members = told(stage)
    stage.client().send(request())
    stage.accept()
    stage.advance(61)
    assert (stage.statuses, members) == ([504], [])


@pytest.mark.parametrize("line", [PING, PING.replace(b"Ping", b"Sync"), PING.lower()])
def test_devices_wait_for_news(strict: Stage, line: bytes) -> None:
    """What a device waits for may not happen: it gets its 504, and nobody is in error (D70)."""
    members = told(strict)
    client = strict.client()
    client.send(request(line.replace(b"http", b"HTTP").replace(b"post", b"POST")))
    strict.accept()
    strict.advance(30.1)
    assert client.take().startswith(b"HTTP/1.1 504 ")
    assert members == []


def test_answer_that_we_have_not_read(make_stage: MakeStage) -> None:
    """An answer that has arrived is no silence: it is we who were late."""
    stage = make_stage(1, balancer=STRICT)
    members = told(stage)
    client = stage.client()
    client.send(request())
    member = stage.accept()
    (connection,) = stage.pool().connections
    reader, writer = os.pipe()
    try:
        connection._poll.register(reader)
        os.write(writer, b"x")
        stage.advance(5.1)
        assert (client.take(), members) == (b"", [])
        connection._poll.unregister(reader)
    finally:
        os.close(reader)
        os.close(writer)
    member.send(response())
    assert client.take().startswith(b"HTTP/1.1 200 ")
    stage.client().send(request())
    stage.advance(5.6)
    assert members == [stage.member()]


# --- what is the client's ------------------------------------------------------------------------


class Story(NamedTuple):
    """One client's doing with its member, and what the client is told in the end."""

    begin: bytes
    play: Callable[[Stage, Peer, Peer], None]
    status: int


def silent(*_: object) -> None:
    """Nobody does anything."""


def continued(_: Stage, __: Peer, member: Peer) -> None:
    """The member asks for the body."""
    member.send(CONTINUE)


def leaves(_: Stage, client: Peer, ___: Peer) -> None:
    """The client is gone."""
    client.reset()


def sends(data: bytes) -> Callable[[Stage, Peer, Peer], None]:
    """The client sends that."""
    return lambda _, client, __: client.send(data)


def trickles(stage: Stage, client: Peer, ___: Peer) -> None:
    """The client sends less than it must."""
    for _ in range(30):
        if client.open:
            client.send(b"x")
            stage.advance(1)


def reads_nothing(stage: Stage, client: Peer, member: Peer) -> None:
    """The client takes nothing of the answer before, and has asked again."""
    client.stick()
    member.send(response(body=b"x" * 200_000))
    stage.advance(10)


def stops_reading(_: Stage, client: Peer, member: Peer) -> None:
    """The client takes nothing of the answer."""
    client.stick()
    member.send(response(body=b"x" * 200_000)[:-1])


def member_is_full(_: Stage, client: Peer, member: Peer) -> None:
    """A body fills what the member takes, and it takes no more for now."""
    member.stick()
    client.send(b"x" * 200_000)


def member_is_slow(_: Stage, client: Peer, member: Peer) -> None:
    """All of a body has come, and the member hasn't taken it yet."""
    member.stick()
    client.send(b"x" * 60_000)


LARGE = length(b"x" * 300_000)
STORIES = {
    "body that never comes": Story(request(POST, LARGE), silent, 408),
    "body in part": Story(request(POST, LARGE) + b"x" * 20_000, silent, 408),
    "chunk that never ends": Story(request(POST, CHUNKED) + b"5\r\nab", silent, 408),
    "trickle": Story(request(POST, LARGE), trickles, 408),
    "malformed chunk": Story(request(POST, CHUNKED) + b"1\r\na\r\n", sends(b"zz\r\n"), 400),
    "leaves in its body": Story(request(POST, LARGE), leaves, 499),
    "leaves": Story(request(), leaves, 499),
    "expects, and is silent": Story(request(POST, EXPECT + LARGE), continued, 408),
    "expects what never comes": Story(request(POST, EXPECT + LARGE), silent, 504),
    "expects, and leaves": Story(request(POST, EXPECT + LARGE), leaves, 499),
    "doesn't read": Story(request(), stops_reading, 200),
    "doesn't read, and asks again": Story(request() * 2, reads_nothing, 200),
    "more than the member takes": Story(request(POST, LARGE), member_is_full, 504),
    "more than it takes at once": Story(
        request(POST, length(b"x" * 80_000)) + b"x" * 20_000, member_is_slow, 504
    ),
    "refused for what is missing of it": Story(
        request(POST, LARGE) + b"x" * 20_000,
        lambda _, __, member: member.send(response(b"500 No")),
        500,
    ),
    "refused for what it is": Story(
        request(POST, CHUNKED) + b"1\r\na\r\n",
        lambda _, __, member: member.send(response(b"408 Late")),
        408,
    ),
    "member answers the half of it": Story(
        request(POST, LARGE) + b"x" * 20_000,
        lambda _, __, member: member.send(b"HTTP/1.1 200 OK\r\n" + LARGE + b"\r\n"),
        200,
    ),
}


@pytest.mark.parametrize("apache", [False, True])
@pytest.mark.parametrize("name", STORIES)
def test_clients_fault(make_stage: MakeStage, name: str, *, apache: bool) -> None:
    """Whatever a client does or leaves undone, its member stays in service (X, H67)."""
    top = {"compat": "apache"} if apache else {}
    stage = make_stage(1, balancer=STRICT, top=top)
    members = told(stage)
    begin, play, status = STORIES[name]
    client = stage.client()
    client.send(begin)
    stage.advance(PREFETCH_TIME + 0.1)
    if not stage.openings:
        stage.advance(60)  # Apache's way: no member is bothered before enough is there
        assert apache
        assert members == []
        return
    member = stage.accept()
    play(stage, client, member)
    for _ in range(20):
        stage.advance(4.9)
    assert members == []
    assert stage.member().error_since is None
    last = stage.statuses[-1] if stage.statuses else 400
    assert last == (502 if apache and status == 504 else status)


def test_tunnel_that_falls_silent(strict: Stage) -> None:
    """Silence in a tunnel is nobody's fault (P26)."""
    members = told(strict)
    client = strict.client()
    client.send(request(fields=UPGRADE))
    member = strict.accept()
    member.send(b"HTTP/1.1 101 Switching Protocols\r\n" + UPGRADE + b"\r\n")
    strict.advance(5.1)
    assert not client.open
    assert members == []


def test_timeout_in_the_body(strict: Stage) -> None:
    """A member that falls silent in its answer has been there (F11)."""
    members = told(strict)
    client = strict.client()
    client.send(request())
    strict.accept().send(b"HTTP/1.1 200 OK\r\n" + length(b"abc") + b"\r\na")
    strict.advance(5.1)
    assert not client.open
    assert members == []


def test_client_that_leaves_while_connecting(strict: Stage) -> None:
    """A connection that fails after its client has left is nobody's business (D36)."""
    members = told(strict)
    client = strict.client()
    client.send(request())
    client.reset()
    strict.refuse()
    assert members == []
