"""Requests that no member can take now: who waits, how long, in which order, and how it ends."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.settings import OperatorStatus
from proxy.dataplane import waiting_room
from tests.dataplane.conftest import MakeStage
from tests.dataplane.messages import CHUNKED, chunks, length, request, response
from tests.fakes import Peer, Stage

POST = b"POST / HTTP/1.1"
SESSION2 = b"Cookie: BALANCEME=balancer.server2\r\n"
OFF: dict[str, Any] = {"status": "disabled"}
WAIT: dict[str, Any] = {"wait_timeout": "10s"}


@pytest.fixture
def closed(make_stage: MakeStage) -> Stage:
    """A stage whose members are all off, where requests wait for ten seconds."""
    return make_stage(2, member=OFF, balancer=WAIT)


def enable(stage: Stage, name: str = "server1") -> None:
    """The operator puts a member into service, and the worker hears of it."""
    stage.balancer.set_operator_status(stage.member(name), OperatorStatus.ENABLED)
    stage.loop.run(stage.worker.waiting_room.look)
    stage.check()


def status(client: Peer) -> int:
    """What a client was answered."""
    return int(client.take()[9:12] or b"0")


def waiting(stage: Stage) -> int:
    """How many wait."""
    return len(stage.worker.waiting_room)


# --- waiting -------------------------------------------------------------------------------------


def test_waits_for_a_member(closed: Stage) -> None:
    """A request that nobody can take is taken by whoever can be, at once (B16)."""
    client = closed.client()
    client.send(request())
    closed.advance(9)
    assert (waiting(closed), client.take(), closed.openings) == (1, b"", [])
    assert repr(closed.worker.waiting_room) == "<WaitingRoom 1 of 1000>"
    enable(closed)
    assert waiting(closed) == 0
    closed.accept().send(response(body=b"x"))
    assert client.take().endswith(b"x")
    assert closed.statuses == [200]
    assert "attempts=1" in closed.log.lines[0]


@pytest.mark.parametrize("apache", [False, True])
def test_503_when_the_time_is_over(make_stage: MakeStage, apache: bool) -> None:
    """After wait_timeout it is 503 (B16, B17), and the connection is closed like after any."""
    top = {"compat": "apache"} if apache else {}
    stage = make_stage(2, member=OFF, balancer=WAIT, top=top)
    client = stage.client()
    client.send(request())
    stage.advance(9.5)
    assert client.take() == b""
    stage.advance(1)
    assert status(client) == 503
    assert not client.open
    assert (waiting(stage), stage.busy) == (0, 0)
    assert "member=- attempts=0" in stage.log.lines[0]


def test_nobody_waits_by_default(make_stage: MakeStage) -> None:
    """Without wait_timeout it is 503 at once (B17)."""
    stage = make_stage(2, member=OFF)
    client = stage.client()
    client.send(request())
    assert status(client) == 503


def test_no_failover_waits_for_nobody(make_stage: MakeStage) -> None:
    """A session that may not go to another member gets 503 at once (F9)."""
    stage = make_stage(2, member=OFF, balancer={**WAIT, "no_failover": True})
    bound, free = stage.client(), stage.client()
    bound.send(request(fields=SESSION2))
    free.send(request())
    assert status(bound) == 503
    assert (waiting(stage), free.take()) == (1, b"")


def test_what_is_not_mapped_waits_for_nothing(make_stage: MakeStage) -> None:
    """What no member would get is answered as ever, whoever could be chosen (R16, R26)."""
    stage = make_stage(2, member=OFF, balancer=WAIT, mapping={"path": "/app"})
    for line, fields, expected in (
        (b"GET / HTTP/1.1", b"", 404),
        (b"CONNECT proxy.example:443 HTTP/1.1", b"", 405),
        (b"TRACE /app HTTP/1.1", b"", 405),
        (b"GET /app HTTP/1.1", b"Max-Forwards: 0\r\n", 400),
        (b"GET /app/%2F HTTP/1.1", b"", 404),
    ):
        client = stage.client()
        client.send(request(line, fields))
        assert status(client) == expected
    assert waiting(stage) == 0


def test_end_of_an_error_ends_the_wait(make_stage: MakeStage) -> None:
    """A member is tried again once its retry time is over, by who waits (F6)."""
    member = {"retry_after": "5s"}
    stage = make_stage(2, member=member, balancer={**WAIT, "forced_recovery": False})
    for name in ("server1", "server2"):
        stage.balancer.put_in_error(stage.member(name), stage.clock.monotonic())
    client = stage.client()
    client.send(request(fields=SESSION2))
    stage.advance(5)
    assert stage.openings == []
    stage.advance(0.1)
    stage.accept("server2").send(response())
    assert status(client) == 200


def test_waits_when_failover_finds_nobody(make_stage: MakeStage) -> None:
    """Whom the last usable member refused waits as well, its attempts counted on (B16, F5)."""
    member = {"retry_after": "5s"}
    settings = {**WAIT, "forced_recovery": False, "max_attempts": 3}
    stage = make_stage(2, member=member, balancer=settings)
    client = stage.client()
    client.send(request(POST, length(b"abc"), b"abc"))
    stage.refuse("server1")
    stage.refuse("server2")
    assert (waiting(stage), stage.busy) == (1, 0)
    stage.advance(5.1)
    member1 = stage.accept(stage.openings[0])
    assert member1.take().endswith(b"abc")
    member1.send(response())
    assert status(client) == 200
    assert "attempts=3" in stage.log.lines[0]


def test_last_attempt_waits_for_nobody(make_stage: MakeStage) -> None:
    """A request whose attempts are used up gets 503 at once, as with Apache (F5)."""
    stage = make_stage(2, balancer={**WAIT, "forced_recovery": False})
    client = stage.client()
    client.send(request())
    stage.refuse("server1")
    stage.refuse("server2")
    assert status(client) == 503


def test_order_of_arrival(closed: Stage) -> None:
    """Who came first is served first, and who left is passed over."""
    clients = [closed.client(f"192.0.2.{number}") for number in range(1, 5)]
    for client in clients:
        client.send(request())
    clients[1].reset()
    closed.balancer.members[0].settings = closed.balancer.members[0].settings.model_copy(
        update={"max_connections": 1}
    )
    enable(closed)
    member = closed.accept()
    for number in (1, 3, 4):
        assert b"X-Forwarded-For: 192.0.2.%d\r\n" % number in member.take()
        member.send(response())
    assert closed.statuses == [499, 200, 200, 200]


def test_only_so_many_wait(closed: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number it is 503 at once, and who waits already goes on (H39)."""
    monkeypatch.setattr(waiting_room, "MOST", 3)
    clients = [closed.client(f"192.0.2.{number}") for number in range(1, 6)]
    for client in clients:
        client.send(request())
    assert [status(client) for client in clients] == [0, 0, 0, 503, 503]
    clients[0].reset()
    late = closed.client("192.0.2.9")
    late.send(request())
    assert (waiting(closed), late.take()) == (3, b"")


def test_next_request_of_a_client_waits_too(closed: Stage) -> None:
    """A client's later requests come after the one that waits, and are not lost (L16)."""
    client = closed.client()
    client.send(request() + request(b"GET /second HTTP/1.1"))
    assert waiting(closed) == 1
    enable(closed)
    member = closed.accept()
    member.take()
    member.send(response())
    assert member.take().startswith(b"GET /second ")
    member.send(response())
    assert closed.statuses == [200, 200]


# --- bodies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", [length(b"x" * 90000), CHUNKED])
@pytest.mark.parametrize("apache", [False, True])
def test_body_is_held_back(make_stage: MakeStage, framing: bytes, apache: bool) -> None:
    """While a request waits nothing more of its body is read; then it comes complete (F3)."""
    top = {"compat": "apache"} if apache else {}
    stage = make_stage(2, member=OFF, balancer=WAIT, top=top)
    body = b"x" * 90000 if framing != CHUNKED else chunks(b"x" * 90000)
    client = stage.client()
    client.send(request(POST, framing) + body[:1000])
    assert not client.transport.is_reading()
    for start in range(1000, len(body), 9000):
        client.send(body[start : start + 9000])
    stage.advance(9)  # the time is not the client's
    assert len(stage.clients[0].exchange.request._held) < 2000  # type: ignore[union-attr]
    enable(stage)
    member = stage.accept()
    assert member.take().count(b"x" * 1000) or framing == CHUNKED
    member.send(response(body=b"y"))
    assert client.take().endswith(b"y")
    assert member.transport.sent.count(b"x") >= 90000


@pytest.mark.parametrize("apache", [False, True])
def test_small_body_has_its_time_after_the_wait(make_stage: MakeStage, apache: bool) -> None:
    """A body that was held back is due within the client's time once it is read again (H70)."""
    top = {"compat": "apache"} if apache else {}
    stage = make_stage(2, member=OFF, balancer=WAIT, top=top)
    client = stage.client()
    client.send(request(POST, length(b"abc")) + b"a")
    stage.advance(9)
    enable(stage)
    stage.advance(1)
    member = None if apache else stage.accept()
    stage.advance(18.5)
    client.send(b"bc")
    member = member or stage.accept()
    assert member.take().endswith(b"\r\n\r\nabc")


def test_expected_continue_is_the_members(closed: Stage) -> None:
    """Who expects 100-continue waits without having sent a body (R19)."""
    client = closed.client()
    client.send(request(POST, b"Expect: 100-continue\r\n" + length(b"abc")))
    closed.advance(9)
    assert client.take() == b""
    enable(closed)
    member = closed.accept()
    assert b"Expect: 100-continue" in member.take()
    member.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    client.send(b"abc")
    assert member.take() == b"abc"


def test_body_beyond_the_limit(make_stage: MakeStage) -> None:
    """A body that turns out too large while its request waits is 413 (H33)."""
    stage = make_stage(2, member=OFF, balancer=WAIT, mapping={"max_body": 100})
    client = stage.client()
    client.send(request(POST, CHUNKED) + b"32\r\n" + b"x" * 50)
    client.transport.protocol.data_received(b"\r\n33\r\n" + b"x" * 51)  # it was read before
    stage.loop.settle()
    assert status(client) == 413
    assert waiting(stage) == 0


# --- how it ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [Peer.reset, Peer.end])
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("body", [b"", b"a"])
def test_client_that_leaves(
    make_stage: MakeStage, *, body: bytes, tls: bool, gone: Callable[[Peer], None]
) -> None:
    """A client that leaves waits no more; over plain TCP it may only have nothing to add (H66)."""
    stage = make_stage(2, tls=tls, member=OFF, balancer=WAIT)
    client = stage.client()
    client.send(request(POST, length(body) if body else b"", body))
    gone(client)
    half_closed = gone is Peer.end and not tls
    assert waiting(stage) == (1 if half_closed else 0)
    stage.advance(11)
    assert stage.statuses == [503 if half_closed else 499]


def test_client_that_leaves_unread(closed: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who isn't read from is looked for every second, and missed (H66)."""
    client = closed.client()
    client.send(request(POST, length(b"abc")) + b"a")
    monkeypatch.setattr("proxy.dataplane.frontend_connection.has_left", lambda *_, **__: True)
    closed.advance(1.1)
    assert waiting(closed) == 0
    assert not client.open
    assert closed.statuses == [499]


def test_malformed_body_ends_the_wait(closed: Stage) -> None:
    """A body that turns out malformed is 400, wait or not (H5)."""
    client = closed.client()
    client.send(request(POST, CHUNKED) + b"1\r\na\r\n")
    client.transport.protocol.data_received(b"zz\r\n")  # it was read before
    closed.loop.settle()
    assert status(client) == 400
    assert waiting(closed) == 0


def test_reload_may_know_a_member(closed: Stage) -> None:
    """Other settings may have a member for who waits, or no mapping any more."""
    client = closed.client()
    client.send(request())
    closed.reload(3, member=OFF, balancer=WAIT)
    assert waiting(closed) == 1
    closed.reload(4, balancer=WAIT)  # the operator's word about the others still counts
    closed.accept("server4").send(response())
    assert status(client) == 200
    assert closed.statuses == [200]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"mapping": {"path": "/app"}, "balancer": WAIT}, 404),
        ({"balancer": {**WAIT, "no_failover": True}}, 503),
        ({}, 503),
    ],
    ids=["no mapping", "no_failover", "no wait_timeout"],
)
def test_reload_may_end_the_wait(closed: Stage, settings: dict[str, Any], expected: int) -> None:
    """When they have no mapping for it, or let nobody wait, its answer comes at once."""
    client = closed.client()
    client.send(request(fields=SESSION2))
    closed.reload(2, member=OFF, **settings)
    assert status(client) == expected
    assert waiting(closed) == 0
    assert closed.statuses == [expected]


@pytest.mark.parametrize("comes_back", [False, True])
def test_stop(make_stage: MakeStage, comes_back: bool) -> None:
    """A worker that stops serves who waits if it can, and answers 503 before it ends."""
    stage = make_stage(2, member=OFF, balancer={"wait_timeout": "10m"})
    client = stage.client()
    client.send(request())
    stage.stop()
    stage.advance(20)
    assert client.take() == b""
    if not comes_back:
        stage.advance(9.1)
    else:
        enable(stage)
        stage.accept().send(response())
    assert status(client) == (200 if comes_back else 503)
    stage.advance(1)
    assert len(stage.statuses) == 1


def test_stop_without_time(make_stage: MakeStage) -> None:
    """Even a worker that has no time to stop answers who waits."""
    stage = make_stage(2, member=OFF, balancer={"wait_timeout": "10m"})
    client = stage.client()
    client.send(request())
    stage.loop.run(lambda: stage.loop.create_task(stage.worker.stop(0.0)))
    assert status(client) == 503
    assert stage.statuses == [503]


def test_who_comes_while_the_worker_stops(make_stage: MakeStage) -> None:
    """A last request that comes late waits no longer than the worker has."""
    stage = make_stage(2, member=OFF, balancer={"wait_timeout": "10m"})
    kept = stage.client()
    kept.send(request(b"OPTIONS * HTTP/1.1"))
    kept.take()
    stage.stop()
    kept.send(request())
    assert waiting(stage) == 1
    stage.advance(29.1)
    assert status(kept) == 503


def test_mistake_ends_one_wait(closed: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake with one that waits is its 500, and the others' turn comes (P5)."""
    clients = [closed.client(), closed.client()]
    for client in clients:
        client.send(request())
    first = closed.clients[0].exchange

    def connect(exchange: object, _: float) -> None:
        assert exchange is not first
        closed.loop.openings.clear()

    with monkeypatch.context() as patch:
        patch.setattr("proxy.dataplane.exchange.Exchange._connect", connect)
        closed.balancer.set_operator_status(closed.member(), OperatorStatus.ENABLED)
        closed.loop.run(closed.worker.waiting_room.look)
    assert status(clients[0]) == 500
    assert waiting(closed) == 0
    assert closed.mistakes()


# --- in any order --------------------------------------------------------------------------------

ASKS = (
    request(),
    request(fields=SESSION2) * 3,
    request(POST, length(b"x" * 40_000)) + b"x" * 300,
    request(POST, CHUNKED) + b"5\r\nab",
    request(POST, b"Expect: 100-continue\r\n" + length(b"abc")),
    request(b"HEAD / HTTP/1.0"),
)


def clients_step(stage: Stage, peers: list[Peer], what: str, number: int) -> None:
    """A client does something."""
    if what == "ask":
        peer = stage.client(f"192.0.2.{len(peers) + 1}")
        peers.append(peer)
        peer.send(ASKS[number % len(ASKS)])
        return
    peer = peers[number % len(peers)]
    if peer.transport.lost:
        return
    if what == "send":
        peer.send(b"c\r\n\r\n3\r\nabc\r\n" if number % 2 else b"x" * 20_000)
    elif what == "leave":
        (peer.end if number % 3 == 0 and not peer.transport.at_eof else peer.reset)()
    elif number % 2:
        peer.stick()
    else:
        peer.flow()


def members_step(stage: Stage, peers: list[Peer], what: str, number: int) -> None:
    """A member, the operator or the clock does something."""
    members = stage.balancer.members
    member = members[number % len(members)]
    opening = stage.openings[number % len(stage.openings)] if stage.openings else None
    if what == "operator":
        stage.balancer.set_operator_status(member, list(OperatorStatus)[number % 3])
        stage.loop.run(stage.worker.waiting_room.look)
    elif what == "error":
        stage.balancer.put_in_error(member, stage.clock.monotonic())
    elif what == "reload":
        changes = ({"wait_timeout": "3s"}, {"no_failover": True}, {"forced_recovery": False})
        stage.reload(number % 3 + 1, balancer=WAIT | changes[number % 3])
    elif what == "opening" and opening is not None:
        if number % 2:
            stage.refuse(opening)
        else:
            peers.append(stage.accept(opening))
    elif what == "answer" and peers:
        peer = peers[number % len(peers)]
        if not peer.transport.lost:
            peer.send((response(body=b"x"), b"HTTP/1.1 100 Go\r\n\r\n", b"HT")[number % 3])
    elif what == "time":
        stage.advance((0.5, 2.0, 7.0)[number % 3])
    stage.check()


CLIENTS = ("ask", "ask", "send", "leave", "stick")
MEMBERS = ("operator", "operator", "error", "reload", "opening", "opening", "answer", "time")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    apache=st.booleans(),
    tls=st.booleans(),
    steps=st.lists(
        st.tuples(st.sampled_from((*CLIENTS, *MEMBERS)), st.integers(0, 11)), max_size=40
    ),
)
def test_any_order_of_events(*, apache: bool, tls: bool, steps: list[tuple[str, int]]) -> None:
    """Whatever happens while requests wait, each ends once, and nobody waits for ever."""
    top = {"compat": "apache"} if apache else {}
    stage = Stage(2, tls=tls, member=OFF, balancer=WAIT, top=top)
    clients: list[Peer] = []
    members: list[Peer] = []
    try:
        for what, number in steps:
            if what in MEMBERS:
                members_step(stage, members, what, number)
            elif what == "ask" or clients:
                clients_step(stage, clients, what, number)
        stage.advance(10.1)
        assert waiting(stage) == 0
        stage.end()
    finally:
        stage.close()
