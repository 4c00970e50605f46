"""A client's connection: requests one after another, its timeouts, and how it ends."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from proxy.dataplane.frontend_connection import (
    LAST_REQUEST,
    LINGER,
    TLS_LINGER,
    FrontendConnection,
)
from tests.dataplane.conftest import MakeStage
from tests.dataplane.messages import (
    CHUNKED,
    CLOSE,
    HOST,
    chunks,
    handed_on,
    length,
    passed_on,
    post,
    request,
    response,
)
from tests.fakes import MOST_BUFFERED, Peer, Script, Stage

POST = b"POST / HTTP/1.1"
NOT_FOUND = request(b"GET /a%2Fb HTTP/1.1")


def serve(stage: Stage, client: Peer, body: bytes = b"x") -> Peer:
    """A first exchange, so that the connections have served one."""
    client.send(request())
    member = stage.accept()
    member.send(response(body=body))
    client.take()
    member.take()
    return member


def statuses(client: Peer) -> list[int]:
    """The statuses of the answers that the client got; all have lengths."""
    data, start, found = client.take(), 0, []
    while start < len(data):
        end = data.index(b"\r\n\r\n", start)
        head = data[start:end].lower()
        found.append(int(head[9:12]))
        size = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        start = end + 4 + int(size or b"0")
    return found


# --- keep-alive and pipelining -------------------------------------------------------------------


def test_keeps_both_connections() -> None:
    """Both connections serve one exchange after another, of any kind (H79, R28)."""
    script = Script().client(request()).member_gets(passed_on())
    script.member(response(body=b"a")).client_gets(handed_on(body=b"a"))
    script.client(post(b"b")).member_gets(passed_on(POST, b"", length(b"b"), b"b"))
    script.member(response(b"204 No", body=None)).client_gets(handed_on(b"204 No", body=None))
    head = b"HEAD / HTTP/1.1"
    script.client(request(head)).member_gets(passed_on(head))
    script.member(response(body=b"c").removesuffix(b"c"))
    script.client_gets(handed_on(body=b"c").removesuffix(b"c"))
    script.client(request()).member_gets(passed_on())
    script.member(response(b"304 Not", body=None)).client_gets(handed_on(b"304 Not", body=None))
    script.client(request(POST, CHUNKED, chunks(b"d")))
    script.member_gets(passed_on(POST, b"", length(b"d"), b"d"))
    script.member(response(body=b"e")).client_gets(handed_on(body=b"e")).play()


def test_pipelined_requests_are_answered_in_order() -> None:
    """Requests sent at once are served one by one, in order, bodies and own answers among them."""
    ahead = request() + post(b"a") + NOT_FOUND + request(b"HEAD / HTTP/1.1") + request()
    script = Script().client(ahead).member_gets(passed_on())
    script.member(response(body=b"1")).client_gets(handed_on(body=b"1"))
    script.member_gets(passed_on(POST, b"", length(b"a"), b"a"))
    script.member(response(body=b"2"))
    page = (
        b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head>\n"
        b"<body><h1>404 Not Found</h1><p>Nothing is here.</p></body></html>\n"
    )
    own = handed_on(b"404 Not Found", body=None).removesuffix(b"\r\n")
    own += length(page) + b"Content-Type: text/html; charset=iso-8859-1\r\n\r\n" + page
    script.client_gets(handed_on(body=b"2") + own)
    script.member_gets(passed_on(b"HEAD / HTTP/1.1")).member(response(body=b"3")[:-1])
    script.member_gets(passed_on()).member(response(body=b"4"))
    script.client_gets(handed_on(body=b"3")[:-1] + handed_on(body=b"4")).play()


def test_a_502_doesn_t_stop_the_next(stage: Stage) -> None:
    """Pipelined requests go on after a 502 (L16)."""
    client = stage.client()
    client.send(request() * 2)
    stage.accept().send(b"nonsense\r\n\r\n")
    stage.accept("server2").send(response())
    assert statuses(client) == [502, 200]


@pytest.mark.parametrize("tls", [False, True])
def test_ten_thousand_requests_without_reading(make_stage: MakeStage, *, tls: bool) -> None:
    """Who asks ten thousand times and never reads is read no further, and dropped (H37, H73).

    What waits for the client stays bounded, and so does what it sent ahead.
    """
    stage = make_stage(tls=tls)
    client = stage.client()
    client.stick()
    transport = client.transport
    for _ in range(100):
        client.send(NOT_FOUND * 100)
    assert not transport.is_reading()
    assert len(transport.waiting) < transport.high + 1000
    assert len(stage.clients[0]._buffer) <= MOST_BUFFERED
    assert len(stage.log.lines) < 1000
    stage.advance(61)
    assert client.ends == ["abort"]


def test_ten_thousand_requests_read_late(stage: Stage) -> None:
    """Who reads after all gets every answer, in pieces as it reads (H37)."""
    client = stage.client()
    client.stick()
    for _ in range(100):
        client.send(NOT_FOUND * 100)
    while len(stage.log.lines) < 10000:
        client.flow(60000)
    client.flow()
    assert statuses(client) == [404] * 10000


def test_ten_thousand_requests_to_a_member(make_stage: MakeStage) -> None:
    """One request is under way at a time, and at most one read waits (H37)."""
    stage = make_stage(1)
    client = stage.client()
    for _ in range(10):
        client.send(request() * 1000)
    member = stage.accept()
    assert not client.transport.is_reading()
    assert len(stage.clients[0]._buffer) <= 2 * 1000 * len(request())
    for _ in range(10000):
        member.gets(passed_on())
        member.send(response())
    assert statuses(client) == [200] * 10000
    assert member.take() == b""


def test_slow_client_gets_no_next_answer(make_stage: MakeStage) -> None:
    """While answers wait for the client, its next request isn't begun (H37)."""
    stage = make_stage(1)
    client = stage.client()
    member = serve(stage, client)
    client.stick()
    client.send(request() + request())
    member.take()
    member.send(response(body=b"y" * 100000))
    assert member.take() == b""
    assert stage.busy == 0
    stage.advance(50)
    client.flow()
    member.gets(passed_on())
    member.send(response())
    assert statuses(client) == [200, 200]


def test_half_closed_client_gets_all_its_answers(make_stage: MakeStage) -> None:
    """Who sends all its requests and then ends its side still gets every answer."""
    stage = make_stage(1)
    client = stage.client()
    client.send(request() + post(b"abc")[:-1])
    client.send(b"c" + request())
    client.end()
    member = stage.accept()
    for _ in range(3):
        member.take()
        member.send(response())
    assert statuses(client) == [200, 200, 200]
    assert client.ends == ["close"]
    assert client.transport.lost


def test_half_close_over_tls_is_the_end(make_stage: MakeStage) -> None:
    """Over TLS an end inside of an exchange is a client that left (H77)."""
    stage = make_stage(tls=True)
    client = stage.client()
    client.send(request())
    member = stage.accept()
    client.end()
    assert not member.open
    assert stage.statuses == [499]


@pytest.mark.parametrize("data", [b"", b"GET / HT", request(POST, length(b"abc")) + b"a"])
def test_half_close_without_a_request_is_the_end(stage: Stage, data: bytes) -> None:
    """An end before a request is complete ends the connection, without a line unless it is one."""
    client = stage.client()
    client.send(data)
    client.end()
    assert client.transport.lost
    assert client.take() == b""
    assert stage.statuses == ([499] if data.startswith(b"POST") else [])


# --- what closes it ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (b"GET / HTTP/1.1", CLOSE),
        (b"GET / HTTP/1.1", b"Connection: x, CLOSE\r\n"),
        (b"GET / HTTP/1.0", b""),
    ],
)
def test_nothing_follows_a_last_request(stage: Stage, line: bytes, fields: bytes) -> None:
    """After Connection: close, or HTTP/1.0, what the client sent ahead is not processed (H80)."""
    client = stage.client()
    client.send(request(line, fields) + request())
    stage.accept().send(response())
    assert client.take().count(b"HTTP/1.1 200") == 1
    assert client.ends == ["eof"]
    client.send(request())
    assert len(stage.log.lines) == 1
    client.end()
    assert client.transport.lost


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET / HTTP/1.1\n" + HOST + b"\r\n", 400),
        (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST * 2 + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (request(fields=b"X : y\r\n"), 400),
        (request(fields=b" folded\r\n"), 400),
        (request(fields=length(b"") + CHUNKED), 400),
        (request(fields=b"Content-Length: +1\r\n"), 400),
        (request(fields=b"Content-Length: 1\r\nContent-Length: 2\r\n"), 400),
        (request(fields=b"Transfer-Encoding: gzip\r\n"), 400),
        (request(fields=b"Transfer-Encoding: gzip, chunked\r\n"), 501),
        (request(b"GET /" + b"a" * 17000 + b" HTTP/1.1"), 414),
        (b"GET /" + b"a" * 17000, 414),
        (request(fields=b"X: " + b"a" * 17000 + b"\r\n"), 431),
        (request(fields=b"X: y\r\n" * 201), 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 11000, 431),
        (b"\r\n" * 11 + request(), 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
)  # fmt: skip
def test_refuses_and_closes(stage: Stage, data: bytes, status: int) -> None:
    """What can't be understood is answered and closed; nothing behind it counts (L6, H80, P3)."""
    client = stage.client()
    client.send(data + request())
    head = client.take()
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert CLOSE in head
    assert client.ends == ["eof"]
    client.send(request())
    assert client.take() == b""
    assert stage.openings == []
    assert len(stage.log.lines) == 1
    assert f'" {status} ' in stage.log.lines[0]


@pytest.mark.parametrize("count", [1, 10])
def test_skips_empty_lines(count: int) -> None:
    """Up to ten empty lines before a request are skipped (L6)."""
    Script().client(b"\r\n" * count + request()).member_gets(passed_on()).play()


def test_refusal_waits_for_the_answers_before(stage: Stage) -> None:
    """A malformed request behind a good one is refused after that one's answer (L16)."""
    client = stage.client()
    client.send(request() + b"nonsense\r\n\r\n")
    stage.accept().send(response())
    assert statuses(client) == [200, 400]


def test_lingers_after_a_refusal(stage: Stage) -> None:
    """After a refusal what comes is discarded for two seconds, so that the answer arrives (9.6)."""
    client = stage.client()
    client.send(b"nonsense\r\n\r\n")
    assert client.ends == ["eof"]
    client.send(b"x" * 100000)
    stage.advance(LINGER - 0.1)
    assert client.ends == ["eof"]
    stage.advance(0.2)
    assert client.ends == ["eof", "abort"]
    assert client.transport.lost


def test_a_client_that_closes_ends_the_lingering(stage: Stage) -> None:
    """Once the client has closed as well, nothing is waited for (9.6)."""
    client = stage.client()
    client.send(b"nonsense\r\n\r\n")
    client.end()
    assert client.transport.lost


def test_keep_alive_requests(make_stage: MakeStage) -> None:
    """The limit counts requests after the first; who asks is told how many are left (L15, P9)."""
    stage = make_stage(1, frontend={"keep_alive_requests": 2})
    client = stage.client()
    client.send(request(fields=b"Connection: keep-alive\r\n") * 4)
    member = stage.accept()
    for left in (2, 1):
        member.send(response())
        assert (
            b"Keep-Alive: timeout=5, max=%d\r\nConnection: Keep-Alive\r\n" % left in client.take()
        )
    member.send(response())
    assert CLOSE in client.take()
    assert client.ends == ["eof"]
    assert len(stage.log.lines) == 3


# --- timeouts ------------------------------------------------------------------------------------


def test_silent_connection_is_closed(stage: Stage) -> None:
    """A connection that sends nothing is closed after 20 s, without an answer (L14, H70)."""
    client = stage.client()
    stage.advance(19.9)
    assert client.open
    stage.advance(0.2)
    assert client.take() == b""
    assert client.ends == ["eof"]
    assert stage.log.lines == []
    stage.advance(LINGER + 0.1)
    assert client.transport.lost


def test_head_in_drops_is_408(stage: Stage) -> None:
    """The whole head has 20 s, however its bytes trickle (L14, H70)."""
    client = stage.client()
    stage.advance(15)
    for byte in request()[:19]:
        client.send(bytes([byte]))
        stage.advance(1)
    assert client.take() == b""
    stage.advance(1.1)
    assert statuses(client) == [408]
    assert '"GET / HTTP/1.1" 408 ' in stage.log.lines[0]


def test_body_in_silence_is_408(stage: Stage) -> None:
    """Between two pieces of a body there may be 20 s; then it is 408 (L14, H16)."""
    client = stage.client()
    client.send(request(POST, length(b"x" * 5)) + b"x")
    stage.advance(1.1)
    member = stage.accept()
    for _ in range(3):
        stage.advance(19)
        client.send(b"x")
    stage.advance(20.1)
    assert statuses(client) == [408]
    assert not client.open
    assert not member.open
    client.send(b"x" + request())
    assert stage.statuses == [408]


def test_idle_connection_is_closed(stage: Stage) -> None:
    """A kept connection is closed after 5 s; a request begun has its 20 s again (L14)."""
    client = stage.client()
    serve(stage, client)
    stage.advance(4.9)
    client.send(b"GET")
    stage.advance(19)
    assert client.open
    client.send(request()[3:])
    stage.accept("server2").send(response())
    assert statuses(client) == [200]
    stage.advance(5.1)
    assert client.ends == ["eof"]


def test_slow_member_costs_the_client_nothing(make_stage: MakeStage) -> None:
    """While the member doesn't read the body, or isn't there yet, the client owes nothing (H36)."""
    stage = make_stage(member={"timeouts": {"response": "100s"}})
    client = stage.client()
    client.send(request(POST, length(b"x" * 300000)) + b"x" * 20000)
    client.send(b"x" * 20000)
    stage.advance(50)
    assert client.take() == b""
    member = stage.accept()
    member.stick()
    client.send(b"x" * 100000)
    assert not client.transport.is_reading()
    stage.advance(50)
    assert client.take() == b""
    member.flow()
    assert client.transport.is_reading()
    stage.advance(19)
    assert client.take() == b""
    stage.advance(2)
    assert statuses(client) == [408]


def test_member_that_takes_nothing_is_504(stage: Stage) -> None:
    """A member that never reads the body is left after the response timeout (H65)."""
    client = stage.client()
    client.send(request(POST, length(b"x" * 300000)) + b"x" * 20000)
    member = stage.accept()
    member.stick()
    client.send(b"x" * 100000)
    stage.advance(61)
    assert statuses(client) == [504]
    assert not member.open


def test_first_piece_that_the_member_doesn_t_take(stage: Stage) -> None:
    """A member that stops reading at the first piece costs the client no 408 (H36)."""
    client = stage.client()
    client.send(request(POST, length(b"x" * 300000)) + b"x" * 100000)
    member = stage.loop.openings[0].accept(stuck=True)
    assert not client.transport.is_reading()
    stage.advance(30)
    assert client.take() == b""
    member.flow()
    assert client.transport.is_reading()
    stage.advance(21)
    assert statuses(client) == [408]


# --- slow clients --------------------------------------------------------------------------------


def test_slow_client_pauses_its_member(stage: Stage) -> None:
    """A client that doesn't read pauses its member; it may take the write timeout (H36, H73)."""
    client = stage.client()
    client.send(request())
    member = stage.accept()
    client.stick()
    member.send(b"HTTP/1.1 200 OK\r\n" + length(b"x" * 400000) + b"\r\n" + b"x" * 100000)
    assert not member.transport.is_reading()
    member.send(b"x" * 100000)
    assert len(client.transport.waiting) < 101000
    stage.advance(59)
    client.flow(100000)  # the member goes on, and fills the room again
    assert len(client.transport.waiting) > 99000
    assert not member.transport.is_closing()
    stage.advance(59)
    client.flow()
    member.send(b"x" * 200000)
    assert client.take().endswith(b"x" * 400000)


def test_client_that_reads_nothing_is_dropped(stage: Stage) -> None:
    """Without progress for the write timeout the client is cut off, and its member freed (H73)."""
    client = stage.client()
    client.send(request())
    member = stage.accept()
    client.stick()
    member.send(b"HTTP/1.1 200 OK\r\n" + length(b"x" * 400000) + b"\r\n" + b"x" * 100000)
    stage.advance(61)
    assert client.ends == ["abort"]
    assert client.is_reset
    assert not member.open
    assert stage.busy == 0


def test_end_that_is_not_taken_is_reset(stage: Stage) -> None:
    """What is dropped of a body until close must not look like its end (H59)."""
    client = stage.client()
    client.send(request(b"GET / HTTP/1.0"))
    member = stage.accept()
    client.stick()
    member.send(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1000)
    member.end()
    assert client.ends == ["eof"]
    stage.advance(61)
    assert client.is_reset


def test_lingering_ends_without_a_reset(stage: Stage) -> None:
    """When everything was sent, a reset could only take it back (RFC 9112 section 9.6)."""
    client = stage.client()
    client.send(b"nonsense\r\n\r\n")
    stage.advance(LINGER + 0.1)
    assert client.ends == ["eof", "abort"]
    assert not client.is_reset


def test_body_that_trickles_is_no_reading(stage: Stage) -> None:
    """Sending the body in drops, or to its end, doesn't prolong the time to read (H73)."""
    for last in (b"x", b""):
        client = stage.client()
        client.send(request(POST, length(b"x" * 20003)) + b"x" * 20000)
        member = stage.accept(stage.openings[0])
        client.stick()
        member.send(b"HTTP/1.1 200 OK\r\n" + length(b"x" * 400000) + b"\r\n" + b"x" * 100000)
        for piece in (b"x", b"x", last):
            stage.advance(15)
            client.send(piece)
        stage.advance(16)
        assert client.ends == ["abort"]
        assert not member.open


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("fields", [b"", CLOSE])
@pytest.mark.parametrize("size", [1000, 100000])
def test_end_of_an_answer_is_waited_for(
    make_stage: MakeStage, *, tls: bool, fields: bytes, size: int
) -> None:
    """What waits of a whole answer has the write timeout, whatever ends the connection (H36)."""
    stage = make_stage(tls=tls)
    client = stage.client()
    client.send(request(fields=fields))
    client.stick()
    stage.accept().send(response(body=b"x" * size))
    for _ in range(5):
        stage.advance(10)
    assert not client.transport.lost
    client.flow()
    assert client.take().endswith(b"x" * size)
    assert "abort" not in client.ends
    stage.advance(70)
    stage.advance(70)
    assert client.transport.lost


def test_slow_answer_leaves_the_member_connection_clean(make_stage: MakeStage) -> None:
    """A client that is slow with the end of its answer doesn't pause the next one's (H36, P6)."""
    stage = make_stage(1)
    client = stage.client()
    client.send(request())
    client.stick()
    member = stage.accept()
    member.send(response(body=b"x" * 100000))
    other = stage.client()
    other.send(request())
    assert stage.openings == []
    member.send(response(body=b"y"))
    assert other.take().endswith(b"y")
    client.flow()
    assert client.take().endswith(b"x" * 100000)


def test_slow_answer_doesn_t_pause_who_waits(make_stage: MakeStage) -> None:
    """The same when another exchange waits for the connection and gets it at once (F12)."""
    stage = make_stage(1, member={"max_connections": 1})
    client, other = stage.client(), stage.client()
    client.send(request())
    member = stage.accept()
    other.send(request())
    client.stick()
    member.send(response(body=b"x" * 100000))
    client.reset()
    member.send(response(body=b"y"))
    assert other.take().endswith(b"y")


def test_both_sides_slow(stage: Stage) -> None:
    """Client and member may both stop reading; when they go on, so does the exchange (H36)."""
    client = stage.client()
    client.send(request(POST, length(b"x" * 400000)) + b"x" * 20000)
    member = stage.accept()
    member.stick()
    client.stick()
    client.send(b"x" * 100000)
    member.send(b"HTTP/1.1 200 OK\r\n" + length(b"y" * 200000) + b"\r\n" + b"y" * 100000)
    assert not client.transport.is_reading()
    assert not member.transport.is_reading()
    stage.advance(30)
    client.flow()
    stage.advance(25)  # the member still doesn't read, so the client owes nothing
    assert client.open
    member.flow()
    client.send(b"x" * 280000)
    member.send(b"y" * 100000)
    assert client.take().endswith(b"y" * 200000)
    assert member.take().endswith(b"x" * 400000)


# --- stopping, and what members are told ---------------------------------------------------------


def test_graceful_stop(stage: Stage) -> None:
    """A stop closes idle connections at once and others after their request, which says so."""
    idle, begun, busy = (stage.client() for _ in range(3))
    first = serve(stage, idle)
    begun.send(request()[:4])
    stage.advance(LAST_REQUEST)
    busy.send(request() + request())
    member = stage.accept("server2")
    stage.stop()
    assert idle.ends == ["eof"]
    assert (begun.ends, busy.ends) == ([], [])
    member.send(response(body=b"x"))
    assert CLOSE in busy.take()
    assert busy.ends == ["eof"]
    begun.send(request()[4:])
    first.send(response(body=b"y"))
    assert CLOSE in begun.take()
    assert begun.ends == ["eof"]
    assert len(stage.log.lines) == 3


def test_graceful_stop_waits_for_no_head(stage: Stage) -> None:
    """A head that doesn't come to its end has its usual time, and no more."""
    begun = stage.client()
    begun.send(request()[:4])
    stage.stop()
    stage.advance(20)
    assert begun.take().startswith(b"HTTP/1.1 408 ")
    assert begun.ends == ["eof"]


def test_request_that_meets_the_stop(stage: Stage) -> None:
    """A request that was on its way when the stop began is served, and told that it is the last."""
    kept, new, begun, silent = (stage.client() for _ in range(4))
    serve(stage, kept)
    begun.send(NOT_FOUND[:9])
    stage.stop()
    for client, data in ((kept, NOT_FOUND), (new, NOT_FOUND), (begun, NOT_FOUND[9:])):
        assert client.ends == []
        client.send(data)
        assert CLOSE in client.take()
        assert client.ends == ["eof"]
    stage.advance(LAST_REQUEST)
    assert silent.ends == ["eof"]


def test_answer_that_meets_the_stop(stage: Stage) -> None:
    """Who was told that the connection is kept, and then the stop began, may ask once more."""
    client, silent = stage.client(), stage.client()
    members = []
    for each, name in ((client, "server1"), (silent, "server2")):
        each.send(request())
        members.append(stage.accept(name))
        members[-1].send(response(fields=length(b"ab"), body=None) + b"a")
        assert CLOSE not in each.take()
    stage.stop()
    for member in members:
        member.send(b"b")
    assert client.ends == silent.ends == []
    client.send(NOT_FOUND)
    assert CLOSE in client.take()
    stage.advance(LAST_REQUEST)
    assert silent.ends == ["eof"]


@pytest.mark.parametrize(
    ("address", "trusted"),
    [("192.0.2.1", True), ("198.51.100.1", False), ("2001:db8::1%eth0", True), ("-", False)],
)
def test_trusts_networks(make_stage: MakeStage, address: str, *, trusted: bool) -> None:
    """X-Forwarded fields count when they come from a trusted proxy (D29, H42)."""
    stage = make_stage(top={"trusted_proxies": ["192.0.2.0/24", "2001:db8::/32"]})
    client = stage.client(address)
    client.send(request(fields=b"X-Forwarded-For: 203.0.113.9\r\n"))
    line = b"X-Forwarded-For: 203.0.113.9, " if trusted else b"X-Forwarded-For: "
    assert line + address.encode() + b"\r\n" in stage.accept().take()


def test_trusts_nobody_by_default(stage: Stage) -> None:
    """Without trusted proxies, and for what is no address, nobody is trusted (H42)."""
    assert not stage.frontend.trusts("127.0.0.1")
    networks = (ip_network("127.0.0.0/8"),)
    frontend = replace(stage.frontend, trusted=networks)
    assert frontend.trusts("127.0.0.1")
    assert not frontend.trusts("::1")
    assert not frontend.trusts("a name")


def test_repr_tells_the_phase(stage: Stage) -> None:
    """A connection prints as its client and what it is doing."""
    client = stage.client()
    connection = stage.clients[0]
    assert repr(connection) == "<FrontendConnection 192.0.2.1 idle>".replace(
        "FrontendConnection", FrontendConnection.__name__
    )
    client.send(request())
    assert repr(connection).endswith(" exchange>")


def test_tls_linger_is_longer() -> None:
    """Over TLS what waits in the lower transport can't be seen, so it gets more time (H77)."""
    assert TLS_LINGER > LINGER


def test_refused_head_request_gets_no_page(stage: Stage) -> None:
    """What a refused HEAD gets ends with the head; its length is that of the page (H44)."""
    client = stage.client()
    client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n")
    answer = client.take()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"\r\n\r\n")
    assert '400 - "-"' in stage.log.lines[0]


def test_half_closed_client_that_reads_late(make_stage: MakeStage) -> None:
    """Who has ended its side and reads slowly still gets all its answers (H79)."""
    stage = make_stage(1)
    client = stage.client()
    client.stick()
    client.send(request() * 3)
    member = stage.accept()
    client.end()
    for number in range(3):
        member.take()
        member.send(response(body=b"x" * 100000))
        client.flow()
        if number < 2:
            client.stick()
    assert statuses(client) == [200] * 3
    assert not client.open


def test_half_closed_client_is_looked_at(make_stage: MakeStage) -> None:
    """Whether who has ended its side is still there is looked at while it waits (H66)."""
    stage = make_stage(1)
    client = stage.client()
    client.send(request())
    stage.accept()
    client.end()
    for _ in range(5):
        assert stage.clients[0].deadline <= stage.clock.monotonic() + 1
        stage.advance(1.5)
    assert client.open


def test_handshake_that_ends_while_the_worker_stops(make_stage: MakeStage) -> None:
    """A connection that stands only after the stop has begun serves one request, and closes."""
    stage = make_stage(1)
    holder = stage.client()
    holder.send(request())
    member = stage.accept()
    stage.stop()
    late = stage.client()
    late.send(NOT_FOUND)
    assert b"Connection: close" in late.take()
    member.send(response())
    stage.advance(0.1)


def test_many_answers_of_our_own_let_others_in(stage: Stage) -> None:
    """A read full of requests that we answer ourselves is answered in turns, and in full (H38)."""
    client = stage.client()
    client.send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
    assert statuses(client) == [200] * 1000
