"""One request and its response: where it goes, what fails on the way, and that it ends once."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from proxy.core.balancer import Balancer
from proxy.core.moves import Move
from proxy.core.sessions import cookie_hash
from proxy.core.settings import OperatorStatus
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.request import PREFETCH, PREFETCH_TIME, Request
from proxy.dataplane.response import Response
from tests.dataplane.conftest import MakeStage
from tests.dataplane.messages import (
    CHUNKED,
    CLOSE,
    chunks,
    handed_on,
    length,
    passed_on,
    post,
    request,
    response,
)
from tests.fakes import Peer, Script, Stage, unchunked

POST = b"POST / HTTP/1.1"
LARGE = b"x" * 20000
EXPECT = b"Expect: 100-continue\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
ACTIVESYNC = b"POST /Microsoft-Server-ActiveSync?Cmd=Ping HTTP/1.1"


def own(client: Peer) -> tuple[int, list[bytes]]:
    """Status and field lines of an answer of our own, which has the right length."""
    head, _, body = client.take().partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    assert b"Content-Length: %d" % len(body) in fields
    return int(line.split()[1]), fields


# --- own answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "fields", "status", "keep"),
    [
        (b"OPTIONS * HTTP/1.1", b"", 200, True),
        (b"CONNECT proxy.example:443 HTTP/1.1", b"", 405, True),
        (b"TRACE / HTTP/1.1", b"", 405, True),
        (b"GET / HTTP/1.1", b"Expect: 200-ok\r\n", 417, True),
        (b"GET / HTTP/1.1", b"Max-Forwards: 0\r\n", 400, False),
        (b"GET / HTTP/1.1", b"Max-Forwards: -1\r\n", 400, False),
        (b"OPTIONS / HTTP/1.1", b"Max-Forwards: 0\r\n", 200, True),
        (b"GET /a%2Fb HTTP/1.1", b"", 404, True),
        (b"GET /../a HTTP/1.1", b"", 400, False),
        (b"GET /a#b HTTP/1.1", b"", 400, False),
    ],
)
def test_answers_itself(
    stage: Stage, *, line: bytes, fields: bytes, status: int, keep: bool
) -> None:
    """Some requests are answered by us and reach no member (R15 to R18, R23, H27, H29)."""
    client = stage.client()
    client.send(request(line, fields))
    found, lines = own(client)
    assert found == status
    assert (b"Connection: close" in lines) is not keep
    assert client.open is keep
    assert stage.openings == []
    assert stage.busy == 0
    assert stage.statuses == [status]


def test_max_forwards_is_lowered() -> None:
    """A number above 0 is passed on, one less (R16)."""
    script = Script().client(request(fields=b"Max-Forwards: 5\r\n"))
    script.member_gets(passed_on(fields=b"Max-Forwards: 4\r\n")).play()


def test_trace_is_passed_on_like_apache(make_stage: MakeStage) -> None:
    """With compat TRACE is a method like others (R17)."""
    stage = make_stage(top={"compat": "apache"})
    stage.client().send(request(b"TRACE / HTTP/1.1"))
    assert stage.accept().take().startswith(b"TRACE / HTTP/1.1\r\n")


def test_no_mapping_is_404(make_stage: MakeStage) -> None:
    """A path that no mapping takes is 404, with the connection kept (R26)."""
    stage = make_stage(mapping={"path": "/app"})
    client = stage.client()
    client.send(request(b"GET /other HTTP/1.1"))
    assert own(client)[0] == 404
    assert client.open


@pytest.mark.parametrize(("method", "status"), [(b"GET", 301), (b"POST", 308)])
def test_redirects_to_https(stage: Stage, method: bytes, status: int) -> None:
    """A frontend that only redirects sends everybody to https, whatever the request (15.4.9)."""
    stage.frontend = replace(stage.frontend, redirect_port=443)
    client = stage.client()
    client.send(request(method + b" /a?b=c HTTP/1.1"))
    found, lines = own(client)
    assert found == status
    assert b"Location: https://proxy.example/a?b=c" in lines


def test_answer_to_an_unread_body_closes(stage: Stage) -> None:
    """An own answer before the body is there closes, and what still comes is discarded (H12)."""
    client = stage.client()
    client.send(request(b"TRACE / HTTP/1.1", length(b"x" * 9)) + b"GET /in")
    assert own(client)[0] == 405
    assert client.ends == ["eof"]
    client.send(b"ner HTTP/1.1\r\n\r\n" * 99)
    assert client.take() == b""
    assert len(stage.log.lines) == 1


# --- 100-continue --------------------------------------------------------------------------------


def test_continue_is_the_members() -> None:
    """Expect goes to the member, its 100 to the client, and the body then to the member (R19)."""
    script = Script().client(request(POST, EXPECT + length(b"abc")))
    script.member_gets(passed_on(POST, EXPECT, length(b"abc"))).client_gets(b"")
    script.member(CONTINUE).client_gets(CONTINUE)
    script.client(b"abc").member_gets(b"abc")
    script.member(response(body=b"x")).client_gets(handed_on(body=b"x")).play()


def test_continue_with_chunks_stays_chunked() -> None:
    """A chunked body after 100-continue is chunked at any size (R9)."""
    script = Script().client(request(POST, EXPECT + CHUNKED))
    script.member_gets(passed_on(POST, EXPECT, CHUNKED)).member(CONTINUE).client_gets(CONTINUE)
    script.client(chunks(b"a")).member_gets(chunks(b"a"))
    script.member(response()).client_gets(handed_on()).play(trailing=False)


def test_body_that_doesn_t_wait_goes_on(stage: Stage) -> None:
    """A client may send the body without waiting; the member's 100 is still passed on (R19)."""
    client = stage.client()
    client.send(request(POST, EXPECT + length(b"abc")) + b"a")
    member = stage.accept()
    member.gets(passed_on(POST, EXPECT, length(b"abc"), b"a"))
    client.send(b"bc")
    assert member.take() == b"bc"
    member.send(CONTINUE + response())
    client.gets(CONTINUE + handed_on())


@pytest.mark.parametrize("status", [b"302 Found", b"401 No", b"413 Large", b"200 OK"])
def test_final_answer_instead_of_continue(stage: Stage, status: bytes) -> None:
    """A final answer is passed on and closes: the body was never sent (R19 and X, H13)."""
    client = stage.client()
    client.send(request(POST, EXPECT + length(b"abc")))
    member = stage.accept()
    member.send(response(status, body=b"no"))
    assert client.take() == handed_on(status, body=b"no").replace(
        b"\r\n\r\n", b"\r\n" + CLOSE + b"\r\n"
    )
    assert not client.open
    assert not member.open
    assert not stage.member().error_since
    client.send(b"abc")  # sent all the same
    assert stage.statuses == [int(status[:3])]


def test_old_client_expects_nothing(stage: Stage) -> None:
    """Expect in HTTP/1.0, or without a body, is dropped (H13)."""
    for line, fields in ((b"POST / HTTP/1.0", EXPECT + length(b"a")), (b"GET / HTTP/1.1", EXPECT)):
        stage.client().send(request(line, fields) + (b"a" if b"POST" in line else b""))
        assert b"Expect" not in stage.accept(stage.openings[0]).take()


@pytest.mark.parametrize("idle", [False, True], ids=["new", "idle"])
def test_waiting_for_continue_is_the_members_time(make_stage: MakeStage, *, idle: bool) -> None:
    """While the member thinks about 100 the client owes nothing: 504 after its time (F16, H65)."""
    stage = make_stage(1)
    if idle:
        reused(stage)
    client = stage.client()
    client.send(request(POST, EXPECT + length(b"abc")))
    if not idle:
        stage.accept()
    stage.advance(59)
    assert client.take() == b""
    stage.advance(2)
    assert own(client)[0] == 504


def test_body_after_continue_has_its_time(stage: Stage) -> None:
    """After 100 the body is due within the client's time (H70, L14)."""
    client = stage.client()
    client.send(request(POST, EXPECT + length(b"abc")))
    stage.advance(30)
    member = stage.accept()
    stage.advance(30)
    member.send(CONTINUE)
    client.take()
    stage.advance(19)
    assert client.take() == b""
    stage.advance(2)
    assert own(client)[0] == 408
    assert not member.open


@pytest.mark.parametrize("framing", [length(b"x" * 200000), CHUNKED])
def test_steady_body_may_take_hours(stage: Stage, framing: bytes) -> None:
    """Who brings 500 bytes a second is never too slow, who brings more may pause as well (H70)."""
    client = stage.client()
    client.send(request(POST, framing))
    stage.advance(1.5)
    member = stage.accept()
    data = b"x" * 2000 if framing != CHUNKED else b"7d0\r\n" + b"x" * 2000 + b"\r\n"
    for number in range(90):
        stage.advance(2 if number % 30 else 19)
        client.send(data)
    assert client.open
    assert member.open
    assert client.take() == b""


@pytest.mark.parametrize("piece", [b"x", b"x" * 400])
def test_trickling_body(stage: Stage, piece: bytes) -> None:
    """Who brings less, however regularly, gets 408, and its member is free again (H70)."""
    client = stage.client()
    client.send(request(POST, length(b"x" * 100000)))
    stage.advance(1.5)
    member = stage.accept()
    seconds = 0
    while client.open and seconds < 300:
        client.send(piece)
        stage.advance(1)
        seconds += 1
    assert own(client)[0] == 408
    assert not member.open
    assert 20 <= seconds <= (22 if len(piece) == 1 else 110)


@pytest.mark.parametrize("size", [3, 50000])
def test_body_up_to_the_limit(size: int) -> None:
    """A mapping's max_body lets pass what is just as large (H33)."""
    body = b"x" * size
    for data in (request(POST, length(body), body), request(POST, CHUNKED, chunks(body))):
        stage = Stage(mapping={"max_body": size})
        client = stage.client()
        client.send(data)
        member = stage.accept()
        assert body in b"".join(unchunked(member.take()))
        member.send(response())
        assert client.take().startswith(b"HTTP/1.1 200 ")
        stage.end()
        stage.close()


@pytest.mark.parametrize("size", [3, 50000])
def test_body_beyond_the_limit(size: int) -> None:
    """A larger one gets 413, at once if it says so, and no member ever sees its end (H33)."""
    body = b"x" * (size + 1)
    for data in (request(POST, length(body)), request(POST, CHUNKED, chunks(body))):
        stage = Stage(mapping={"max_body": size})
        client = stage.client()
        client.send(data)
        assert stage.openings == []
        assert own(client)[0] == 413
        assert not client.open
        stage.end()
        stage.close()


def test_body_grows_beyond_the_limit() -> None:
    """A member that has a part of it loses its connection without the end (H11, H33)."""
    stage = Stage(mapping={"max_body": "50k"})
    client = stage.client()
    client.send(request(POST, CHUNKED) + chunks(b"x" * 30000)[:-5])
    member = stage.accept()
    client.send(chunks(b"x" * 30000))
    assert own(client)[0] == 413
    assert not member.open
    assert not member.take().endswith(b"0\r\n\r\n")
    stage.end()
    stage.close()


def test_body_grows_beyond_the_limit_after_an_answer() -> None:
    """When an answer is under way already, the client is cut off."""
    stage = Stage(mapping={"max_body": "50k"})
    client = stage.client()
    client.send(request(POST, CHUNKED) + chunks(b"x" * 30000)[:-5])
    member = stage.accept()
    member.send(response(body=b"abc")[:-1])
    client.send(chunks(b"x" * 30000))
    assert not client.open
    assert not member.open
    stage.end()
    stage.close()


# --- early answers -------------------------------------------------------------------------------


def test_early_answer_is_passed_on(stage: Stage) -> None:
    """An answer before the body is through is passed on, and both connections end (H12, H68)."""
    client = stage.client()
    client.send(request(POST, length(b"x" * 50000)) + b"x" * 20000)
    member = stage.accept()
    member.send(response(b"413 Large", body=b"no"))
    head = client.take()
    assert head.startswith(b"HTTP/1.1 413 Large\r\n")
    assert CLOSE in head
    assert head.endswith(b"no")
    assert not member.open
    client.send(b"x" * 30000)
    client.end()
    assert client.transport.lost


def test_early_answer_while_the_body_goes_on(stage: Stage) -> None:
    """While an early answer still comes, the body goes on; then the client is closed (H12)."""
    client = stage.client()
    client.send(request(POST, length(b"x" * 50000)) + b"x" * 20000)
    member = stage.accept()
    member.take()
    member.send(b"HTTP/1.1 200 OK\r\n" + length(b"abcd") + b"\r\nab")
    client.send(b"x" * 30000)
    assert member.take() == b"x" * 30000
    member.send(b"cd")
    assert client.take().endswith(b"\r\n\r\nabcd")
    assert not client.open
    assert stage.statuses == [200]


def test_slow_body_under_an_early_answer_is_cut(stage: Stage) -> None:
    """A client that stops its upload under an answer is cut off (H16)."""
    client = stage.client()
    client.send(request(POST, length(b"x" * 50000)) + b"x" * 20000)
    member = stage.accept()
    member.send(b"HTTP/1.1 200 OK\r\n" + length(b"abcd") + b"\r\nab")
    stage.advance(21)
    assert client.ends == ["abort"]
    assert not member.open


# --- failover ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT", b"X-ANY"])
def test_refused_request_goes_to_another_member(stage: Stage, method: bytes) -> None:
    """A refused connection moves any request on, body and all (F1 to F3)."""
    line = method + b" / HTTP/1.1"
    client = stage.client()
    client.send(request(line, length(b"abc")) + b"abc")
    stage.refuse("server1")
    assert stage.busy == 1
    member = stage.accept("server2")
    expected = passed_on(line, b"", length(b"abc"), b"abc")
    member.gets(expected.replace(b"server1", b"server2"))
    member.send(response(body=b"x"))
    client.gets(handed_on(body=b"x"))
    assert stage.member("server1").error_since is not None
    assert "attempts=2" in stage.log.lines[0]
    assert "member=server2" in stage.log.lines[0]


def test_body_that_was_collected_moves_on(stage: Stage) -> None:
    """What was read of a large body before the refusal is sent to the next member (F3)."""
    body = b"x" * PREFETCH + b"yz"
    client = stage.client()
    client.send(request(POST, length(body)) + body[:-1])
    client.send(b"z")
    stage.refuse("server1")
    assert stage.accept("server2").take().endswith(b"\r\n\r\n" + body)


def test_connect_timeout_moves_on(stage: Stage) -> None:
    """A member that doesn't answer the connection in time is left for another (F1, H65, H88)."""
    client = stage.client()
    client.send(request())
    stage.advance(61)
    assert stage.openings == ["server2"]
    stage.accept("server2").send(response())
    assert stage.statuses == [200]


def test_unknown_name_moves_on(stage: Stage) -> None:
    """A name that can't be resolved is a refusal (section X)."""
    stage.loop.addresses["server1"] = OSError("no such name")
    stage.client().send(request())
    assert stage.openings == ["server2"]


def test_all_refused_is_503(make_stage: MakeStage) -> None:
    """Nobody left: 503 with Retry-After; the session stays where it was (B17, D25, F5)."""
    stage = make_stage(3, balancer={"session_cookie": {}})
    client = stage.client()
    client.send(request(fields=b"Cookie: BALANCEME=balancer.server2\r\n"))
    for name in ("server2", "server1", "server3"):
        stage.refuse(name)
    status, lines = own(client)
    assert status == 503
    assert b"Retry-After: 10" in lines
    assert not any(line.startswith(b"Set-Cookie") for line in lines)
    assert not client.open
    assert "member=- attempts=3" in stage.log.lines[0]


def test_max_attempts_go_round(make_stage: MakeStage) -> None:
    """Attempts are counted, not members (F5)."""
    stage = make_stage(2, balancer={"max_attempts": 4})
    client = stage.client()
    client.send(request())
    for _ in range(5):
        stage.refuse(stage.openings[0])
    assert own(client)[0] == 503


def test_no_usable_member_is_503_at_once(stage: Stage) -> None:
    """When nobody can be chosen the answer is 503 at once, to the body's rest too (B17, H89)."""
    for member in stage.balancer.members:
        stage.balancer.set_operator_status(member, OperatorStatus.DISABLED)
    client = stage.client()
    client.send(request(POST, length(b"abc")))
    assert own(client)[0] == 503
    assert not client.open


# --- the member's connection fails ---------------------------------------------------------------


def reused(stage: Stage) -> tuple[Peer, Peer]:
    """A client and a member whose connections have served an exchange."""
    client = stage.client()
    client.send(request())
    member = stage.accept()
    member.send(response())
    client.take()
    member.take()
    return client, member


@pytest.mark.parametrize("end", [Peer.end, Peer.reset])
def test_get_is_sent_again_when_a_reused_connection_dies(
    make_stage: MakeStage, end: Callable[[Peer], None]
) -> None:
    """A reused connection that dies at once costs a GET only a new connection (H69, D71)."""
    stage = make_stage(1)
    client, member = reused(stage)
    client.send(request())
    member.gets(passed_on())
    end(member)
    member = stage.accept()
    member.gets(passed_on())
    member.send(response(body=b"x"))
    client.gets(handed_on(body=b"x"))
    assert stage.member().error_since is None


def test_only_once(make_stage: MakeStage) -> None:
    """The second connection is new: when it dies too, the answer is 502 (H69)."""
    stage = make_stage(1)
    client, member = reused(stage)
    client.send(request())
    member.end()
    stage.accept().end()
    assert own(client)[0] == 502
    assert client.open
    assert stage.statuses == [200, 502]
    assert stage.openings == []


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 O", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
def test_answer_that_has_begun_is_not_asked_for_again(make_stage: MakeStage, data: bytes) -> None:
    """After the first byte of an answer nothing is sent again: 502 (H69, P23)."""
    stage = make_stage(1)
    client, member = reused(stage)
    client.send(request())
    member.send(data)
    member.end()
    assert client.take().partition(b"HTTP/1.1 502 ")[1]
    assert stage.openings == []


def test_post_is_never_sent_twice(make_stage: MakeStage) -> None:
    """A POST on a dead reused connection gets 502, and its client may judge (H69)."""
    stage = make_stage(1)
    client, member = reused(stage)
    client.send(post(b"abc"))
    assert member.take().endswith(b"abc")
    member.end()
    assert stage.openings == []
    assert own(client)[0] == 502
    assert client.open
    assert stage.statuses == [200, 502]


def test_post_on_a_dead_connection_like_apache(make_stage: MakeStage) -> None:
    """With compat: apache the client's connection is closed without an answer (F1)."""
    stage = make_stage(1, top={"compat": "apache"})
    client, member = reused(stage)
    client.send(post(b"abc"))
    member.take()
    member.end()
    assert client.take() == b""
    assert not client.open
    assert stage.statuses == [200, 502]


def test_first_request_of_a_client_gets_502(make_stage: MakeStage) -> None:
    """A client's first request is answered 502 when the member closes without an answer (F1)."""
    stage = make_stage(1)
    _, member = reused(stage)
    client = stage.client()
    client.send(post(b"abc"))
    member.end()
    assert own(client)[0] == 502
    assert client.open
    assert stage.openings == []


def test_new_connection_that_closes_is_502(make_stage: MakeStage) -> None:
    """A GET on a new connection that closes is not repeated: 502 (F2, H65)."""
    stage = make_stage(1)
    client = stage.client()
    client.send(request())
    stage.accept().end()
    assert own(client)[0] == 502
    client.send(request())
    stage.accept().reset()
    assert own(client)[0] == 502
    assert client.open


def test_loss_while_the_body_is_sent_is_502(stage: Stage) -> None:
    """A member that goes while the body is sent gives 502, also to a later request (F1)."""
    client, _ = reused(stage)
    client.send(request(POST, length(b"x" * 50000)) + b"x" * 20000)
    stage.accept("server2").reset()
    assert own(client)[0] == 502
    assert not client.open


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"<html>no head</html>\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
        b"HTTP/1.1 200 OK\nX: y\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000,
    ],
)
def test_malformed_answer_is_502(stage: Stage, data: bytes) -> None:
    """An answer that can't be understood is 502; its member stays in service (H58, H61, H67)."""
    client = stage.client()
    client.send(request())
    member = stage.accept()
    member.send(data)
    assert own(client)[0] == 502
    assert client.open
    assert not member.open
    assert stage.member().error_since is None


@pytest.mark.parametrize(
    ("line", "seconds"), [(b"GET / HTTP/1.1", 60), (ACTIVESYNC, 3660)], ids=["GET", "ActiveSync"]
)
def test_silent_member_is_504(stage: Stage, line: bytes, seconds: int) -> None:
    """Silence is 504 after the response timeout, which is an hour for ActiveSync (H65, D33)."""
    client = stage.client()
    client.send(request(line))
    member = stage.accept()
    stage.advance(seconds - 1)
    assert client.take() == b""
    stage.advance(2)
    assert own(client)[0] == 504
    assert client.open
    assert not member.open
    assert stage.member().error_since is None


def test_each_piece_has_its_own_time(stage: Stage) -> None:
    """The response timeout holds between two pieces, interim ones too, not for the whole (F16)."""
    client = stage.client()
    client.send(request())
    member = stage.accept()
    stage.advance(59)
    member.send(b"HTTP/1.1 102 Processing\r\n\r\n")
    stage.advance(59)
    member.send(b"HTTP/1.1 200 OK\r\n" + length(b"abc") + b"\r\n")
    for byte in b"abc":
        stage.advance(59)
        member.send(bytes([byte]))
    assert client.take().endswith(b"\r\n\r\nabc")


@pytest.mark.parametrize("end", [Peer.end, Peer.reset, lambda _: None])
@pytest.mark.parametrize(
    ("fields", "body"), [(length(b"abc"), b"ab"), (CHUNKED, b"3\r\nab"), (CHUNKED, b"1\r\na\r\n")]
)
def test_truncated_body_is_cut(
    stage: Stage, fields: bytes, body: bytes, end: Callable[[Peer], None]
) -> None:
    """A body that ends too early ends the client's connection without its end (P24, H59)."""
    client = stage.client()
    client.send(request())
    member = stage.accept()
    member.send(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n" + body)
    end(member)
    stage.advance(61)
    data = client.take()
    assert not data.endswith(b"0\r\n\r\n")
    assert data.count(b"a") == handed_on().count(b"a") + 1 + fields.count(b"a")
    assert client.ends[0] == "eof"
    assert stage.statuses == [200]


def test_truncated_chunk_is_cut(stage: Stage) -> None:
    """A chunk that breaks the rules under way ends the client's connection (H58, H59)."""
    client = stage.client()
    client.send(request())
    member = stage.accept()
    member.send(b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n2\r\nab\r\n")
    member.send(b"zz\r\n")
    assert client.take().endswith(b"\r\n\r\n2\r\nab\r\n")
    assert not client.open
    assert not member.open


def test_reset_of_a_body_until_close_is_cut(stage: Stage) -> None:
    """A body until close that is reset lacks its last chunk (H59)."""
    client = stage.client()
    client.send(request())
    member = stage.accept()
    member.send(b"HTTP/1.1 200 OK\r\n\r\nab")
    member.reset()
    assert client.take().endswith(b"\r\n\r\n2\r\nab\r\n")
    assert not client.open


@pytest.mark.parametrize("fields", [CHUNKED, b""], ids=["chunked", "until close"])
def test_old_client_is_cut_by_a_reset(stage: Stage, fields: bytes) -> None:
    """HTTP/1.0 can't tell a cut body by its framing: nothing but a reset ends it (H59)."""
    client = stage.client()
    client.send(request(b"GET / HTTP/1.0"))
    member = stage.accept()
    member.send(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n" + (b"2\r\nab\r\n" if fields else b"ab"))
    member.reset()
    assert client.take().endswith(b"\r\n\r\nab")
    assert client.ends == ["abort"]
    assert client.is_reset


# --- the client leaves ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["collecting", "connecting", "sending", "waiting", "interim", "responding", "tunnel"]
)
def test_client_that_leaves_frees_its_member(make_stage: MakeStage, name: str) -> None:
    """A client may go at any time: its member connection ends, nobody is busy (H66, D36)."""
    stage = make_stage(mapping={"upgrade": ["websocket"]})
    client = stage.client()
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    body = {"collecting": 10, "connecting": 10, "sending": 10**6}.get(name, 0)
    fields = upgrade if name == "tunnel" else b""
    client.send(request(POST, fields + length(b"x" * body)) + b"x" * min(body - 1, 20000))
    if name == "connecting":
        client.send(b"x")
    member = None if name in ("collecting", "connecting") else stage.accept()
    if member is not None and name == "interim":
        member.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    if member is not None and name == "responding":
        member.send(b"HTTP/1.1 200 OK\r\n" + length(b"abc") + b"\r\na")
    if member is not None and name == "tunnel":
        member.send(b"HTTP/1.1 101 Switching Protocols\r\n" + upgrade + b"\r\n")
    assert stage.busy == 1
    client.reset()
    assert stage.busy == 0
    assert member is None or not member.open
    expected = {"responding": 200, "tunnel": 101}.get(name, 499)
    assert stage.statuses == [expected]


def test_connection_that_nobody_wants_any_more_is_kept(stage: Stage) -> None:
    """A connection that stands after its client left is there for the next one (H81)."""
    client = stage.client()
    client.send(request())
    client.reset()
    member = stage.accept()
    assert member.take() == b""
    other = stage.client()
    other.send(request(fields=b"Cookie: BALANCEME=x.server1\r\n"))
    assert member.take().startswith(b"GET / HTTP/1.1\r\n")


@pytest.mark.parametrize("body", [b"", b"3\r\nab", b"3\r\nabc\r\n"])
def test_truncated_request_is_never_completed(stage: Stage, body: bytes) -> None:
    """Of a body that the client doesn't finish the member must not see an end (H11)."""
    client = stage.client()
    client.send(request(POST, CHUNKED) + body)
    stage.advance(PREFETCH_TIME + 0.1)
    member = stage.accept()
    client.end()
    assert not member.take().endswith(b"0\r\n\r\n")
    assert not member.open
    assert stage.statuses == [499]


def test_malformed_chunk_before_and_after_a_member(stage: Stage) -> None:
    """A malformed chunk is 400, and a member that saw a part never sees an end (H5, H11)."""
    client = stage.client()
    client.send(request(POST, CHUNKED) + b"zz\r\n")
    assert own(client)[0] == 400
    client = stage.client()
    client.send(request(POST, CHUNKED) + b"1\r\na\r\n")
    stage.advance(PREFETCH_TIME + 0.1)
    member = stage.accept()
    client.send(b"-1\r\n")
    assert own(client)[0] == 400
    assert not member.take().endswith(b"0\r\n\r\n")
    assert not member.open
    assert [line.split('"')[2].split()[0] for line in stage.log.lines] == ["400", "400"]


def test_malformed_chunk_under_an_answer_cuts(stage: Stage) -> None:
    """A malformed chunk while the answer is under way can only be cut off; it is logged (H11)."""
    client = stage.client()
    client.send(request(POST, CHUNKED) + b"1\r\na\r\n")
    stage.advance(PREFETCH_TIME + 0.1)
    member = stage.accept()
    member.send(b"HTTP/1.1 200 OK\r\n" + length(b"abc") + b"\r\na")
    client.send(b"-1\r\n")
    assert client.ends == ["abort"]
    assert not member.open
    assert stage.statuses == [200]


def test_repr_tells_how_far_it_is(stage: Stage) -> None:
    """An exchange and its parts print what an operator wants to know."""
    client = stage.client()
    client.send(request(POST, length(LARGE)) + LARGE[:-1])
    member = stage.accept()
    exchange = stage.clients[0].exchange
    assert exchange is not None
    assert repr(exchange) == "<Exchange <RequestHead b'POST' b'/' 1.1> sent>"
    assert "incomplete" in repr(exchange.request)
    assert repr(exchange.response) == "<Response 0 0 bytes>"
    client.send(LARGE[-1:])
    assert "incomplete" not in repr(exchange.request)
    member.send(response(body=b"abc"))
    assert repr(exchange.response) == "<Response 200 3 bytes>"


# --- our own mistakes ----------------------------------------------------------------------------


def fail(*_: object, **__: object) -> None:
    """A mistake of ours."""
    raise ZeroDivisionError("a mistake")


@pytest.mark.parametrize(("line", "status"), [(b"GET / HTTP/1.1", 500), (ACTIVESYNC, 503)])
@pytest.mark.parametrize("when", ["choosing", "sending", "connected", "failing"])
def test_mistake_before_the_answer(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, line: bytes, status: int, when: str
) -> None:
    """A mistake of ours is 500 wherever it happens, but 503 on an ActiveSync path (P5, D26)."""
    client = stage.client()
    if when == "sending":
        client.send(request())
        stage.accept().send(response())
        client.take()
    if when in ("choosing", "failing"):
        monkeypatch.setattr(Balancer, "choose" if when == "choosing" else "put_in_error", fail)
    else:
        monkeypatch.setattr(Request, "encode", fail)
    client.send(request(line, b"Cookie: BALANCEME=x.server1\r\n"))
    if when == "connected":
        stage.accept()
    if when == "failing":
        stage.refuse()
    assert own(client)[0] == status
    assert len(stage.mistakes()) == 1
    assert stage.statuses[-1] == status


@pytest.mark.parametrize("body", [b"x", b"xy"], ids=["incomplete", "complete"])
def test_mistake_in_the_answer(stage: Stage, monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    """A mistake before the answer is written is 500 too (P5)."""
    monkeypatch.setattr(Exchange, "respond", fail)
    client = stage.client()
    client.send(request())
    member = stage.accept()
    member.send(response(body=b"xy").removesuffix(b"xy") + body)
    assert own(client)[0] == 500
    assert stage.busy == 0
    assert stage.mistakes()


def test_mistake_under_an_answer(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake after the answer's head cuts the client off (P5, H59)."""
    client = stage.client()
    client.send(request())
    member = stage.accept()
    member.send(b"HTTP/1.1 200 OK\r\n" + length(b"abc") + b"\r\na")
    monkeypatch.setattr(Response, "framed", fail)
    member.send(b"b")
    assert client.ends == ["abort"]
    assert not member.open
    assert stage.mistakes()


def test_mistake_when_a_deadline_passes(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in a callback of the clock ends the exchange as well (P5)."""
    client = stage.client()
    client.send(request(POST, length(b"ab")) + b"a")
    monkeypatch.setattr(Exchange, "_connect", fail)
    stage.advance(PREFETCH_TIME + 0.1)
    assert own(client)[0] == 500
    assert stage.mistakes()


def test_connection_that_is_owed_a_body_is_nobody_elses() -> None:
    """An answer and its refused body end in one go: its connection is closed (H12, H60)."""
    stage = Stage(1, mapping={"max_body": 100000})
    client = stage.client()
    client.send(request(POST, CHUNKED) + chunks(b"x" * 90000)[:-5])
    member = stage.accept()
    member.send(response(body=b"helloworld")[:-5])

    def both() -> None:
        client.transport.feed(chunks(b"x" * 20000))
        member.transport.feed(b"world")

    stage.loop.run(both)
    assert not member.open
    other = stage.client()
    other.send(request())
    assert stage.openings == ["server1"]
    stage.end()
    stage.close()


# --- live sessions -------------------------------------------------------------------------------

WEBMAIL = b"Cookie: PHPSESSID=1; BALANCEME=balancer.server2\r\n"


def live(stage: Stage) -> list[int]:
    """How many sessions live on each member."""
    now = stage.clock.monotonic()
    found = stage.balancer.sessions.live(now)
    return [found[member.name] for member in stage.balancer.members]


def test_session_lives_where_it_is_served(stage: Stage) -> None:
    """A session counts on its member, for an hour after the last answer."""
    client = stage.client()
    client.send(request(fields=WEBMAIL))
    assert live(stage) == [0, 0]
    stage.accept("server2").send(response())
    assert live(stage) == [0, 1]
    stage.advance(3600)
    assert live(stage) == [0, 0]


def test_session_lives_where_failover_brought_it(stage: Stage) -> None:
    """A member that could not be reached has served nobody."""
    client = stage.client()
    client.send(request(fields=WEBMAIL))
    stage.refuse("server2")
    stage.accept("server1").send(response())
    assert live(stage) == [1, 0]


@pytest.mark.parametrize(
    ("line", "count"), [(b"200 OK", 1), (b"449 Retry", 1), (b"503 No", 1), (b"401 Who", 0)]
)
def test_who_has_to_log_in_has_no_session(stage: Stage, line: bytes, count: int) -> None:
    """A member that asks who is there has no session of it: not yet, or no more."""
    client = stage.client()
    client.send(request(fields=WEBMAIL))
    stage.accept("server2").send(response(line))
    assert live(stage) == [0, count]


def test_own_answer_is_no_session(stage: Stage) -> None:
    """What no member answers is no session anywhere."""
    client = stage.client()
    client.send(request(b"OPTIONS / HTTP/1.1", WEBMAIL + b"Max-Forwards: 0\r\n"))
    assert own(client)[0] == 200
    assert live(stage) == [0, 0]


def test_tunnel_is_a_session(make_stage: MakeStage) -> None:
    """A request for a tunnel is a request."""
    stage = make_stage(2, mapping={"upgrade": ["websocket"]})
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    client = stage.client()
    client.send(request(fields=WEBMAIL + upgrade))
    stage.accept("server2").send(b"HTTP/1.1 101 Switching Protocols\r\n" + upgrade + b"\r\n")
    assert live(stage) == [0, 1]


def test_session_that_is_moved(make_stage: MakeStage) -> None:
    """A session goes elsewhere with its next request, and its cookie with the answer."""
    stage = make_stage(2, balancer={"session_cookie": {}})
    client = stage.client()
    client.send(request(fields=WEBMAIL))
    first = stage.accept("server2")
    salt = stage.frontend.salt
    key = cookie_hash(salt, b"PHPSESSID=1")
    now = stage.clock.monotonic()
    stage.balancer.sessions.moves.put(key, Move("server1", "server2", now + 60))
    # what is under way ends where it is
    first.send(response())
    assert b"server1" not in client.take()
    client.send(request(fields=WEBMAIL))
    stage.accept("server1").send(response())
    assert b"Set-Cookie: BALANCEME=balancer.server1;" in client.take()
    assert live(stage) == [1, 0]
