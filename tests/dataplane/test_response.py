"""What a client gets of a response: its head, and its body in the client's framing."""

import pytest

from tests.dataplane.conftest import MakeStage
from tests.dataplane.messages import (
    CHUNKED,
    CLOSE,
    DATE,
    HOST,
    chunks,
    handed_on,
    length,
    passed_on,
    request,
    response,
)
from tests.fakes import Script, Stage

OLD = b"GET / HTTP/1.0\r\n" + HOST + b"\r\n"
OLD_KEPT = b"GET / HTTP/1.0\r\n" + HOST + b"Connection: keep-alive\r\n\r\n"
KEPT = b"Keep-Alive: timeout=5\r\nConnection: Keep-Alive\r\n"


def answered(line: bytes, fields: bytes, body: bytes = b"") -> bytes:
    """A response as the client gets it, its framing among ``fields``."""
    first = b"\r\nDate: " + DATE + b"\r\nServer: balanceme\r\n"
    return b"HTTP/1.1 " + line + first + fields + b"\r\n" + body


@pytest.mark.parametrize(
    ("line", "fields", "body", "expected"),
    [
        (b"200 OK", length(b"abc"), b"abc", answered(b"200 OK", length(b"abc"), b"abc")),
        (b"200 OK", length(b""), b"", answered(b"200 OK", length(b""))),
        (
            b"200 OK",
            CHUNKED,
            b"2;a=b\r\nab\r\n1\r\nc\r\n0\r\nTrailer: x\r\n\r\n",
            answered(b"200 OK", CHUNKED, chunks(b"abc")),
        ),
        (b"404 Nope Nope", length(b"a"), b"a", answered(b"404 Nope Nope", length(b"a"), b"a")),
        (b"299 ", length(b"a"), b"a", answered(b"299 ", length(b"a"), b"a")),
        (b"204 No Content", length(b"abc"), b"", answered(b"204 No Content", b"")),
        (b"204 No Content", CHUNKED, b"", answered(b"204 No Content", b"")),
        (b"304 Not Modified", length(b"abc"), b"", answered(b"304 Not Modified", b"")),
        (b"205 Reset", length(b"a"), b"a", answered(b"205 Reset", length(b"a"), b"a")),
        (b"449 Retry after", length(b""), b"", answered(b"449 Retry after", length(b""))),
    ],
)  # fmt: skip
def test_frames_a_body(line: bytes, fields: bytes, body: bytes, expected: bytes) -> None:
    """Length stays length, chunks are cut anew, 204 and 304 have nothing (P1, P6, H44)."""
    script = Script().client(request()).member_gets(passed_on())
    script.member(b"HTTP/1.1 " + line + b"\r\n" + fields + b"\r\n" + body)
    script.client_gets(expected).play()


@pytest.mark.parametrize("fields", [length(b"abc"), CHUNKED, b""], ids=["length", "chunked", "no"])
def test_head_request_gets_no_body(fields: bytes) -> None:
    """The answer to HEAD ends with its head, which says what GET would get (P6, H44)."""
    line = b"HEAD / HTTP/1.1"
    script = Script().client(request(line)).member_gets(passed_on(line))
    script.member(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n")
    script.client_gets(answered(b"200 OK", fields)).client(request())
    script.member_gets(passed_on()).member(response(body=b"x"))
    script.client_gets(handed_on(body=b"x")).play()


def test_body_until_close_is_chunked() -> None:
    """A body that ends with its connection is chunked, and the client's connection kept (P6)."""
    script = Script().client(request()).member_gets(passed_on())
    script.member(b"HTTP/1.1 200 OK\r\n\r\nabc").member(b"def").member_ends()
    script.client_gets(answered(b"200 OK", CHUNKED, chunks(b"abcdef")))
    script.client(request()).member_gets(passed_on())
    script.member(response(body=b"x")).client_gets(handed_on(body=b"x")).play(trailing=False)


def test_old_member_is_not_kept() -> None:
    """A member that speaks HTTP/1.0 gets a new connection for each request (P18)."""
    script = Script().client(request()).member_gets(passed_on())
    script.member(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + length(b"a") + b"\r\na")
    script.member_is_closed().client_gets(handed_on(body=b"a")).play()


@pytest.mark.parametrize(
    ("fields", "body"),
    [(CHUNKED, chunks(b"ab", b"c")), (b"", b"abc")],
    ids=["chunked", "until close"],
)
def test_old_client_gets_a_body_until_close(fields: bytes, body: bytes) -> None:
    """A client of HTTP/1.0 gets no chunks: its body ends with its connection (P6, H44)."""
    script = Script().client(OLD_KEPT).member_gets(passed_on())
    script.member(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n" + body)
    if not fields:
        script.member_ends()
    script.client_gets(answered(b"200 OK", CLOSE, b"abc")).client_is_closed()
    script.play(trailing=bool(fields))


def test_old_client_is_kept_if_it_asks_and_can_tell() -> None:
    """HTTP/1.0 is kept alive on demand, when a length ends the body (P8, P9)."""
    script = Script().client(OLD_KEPT).member_gets(passed_on()).member(response(body=b"x"))
    script.client_gets(answered(b"200 OK", length(b"x") + KEPT, b"x"))
    script.client(OLD).member_gets(passed_on()).member(response(body=b"y"))
    script.client_gets(answered(b"200 OK", length(b"y") + CLOSE, b"y")).client_is_closed().play()


def test_old_client_with_a_chunked_request_is_not_kept() -> None:
    """Chunks in HTTP/1.0 are doubtful framing: answered once, and closed (H3, R13)."""
    fields = b"Connection: keep-alive\r\n" + CHUNKED
    script = Script().client(request(b"POST / HTTP/1.0", fields, chunks(b"abc")))
    script.member_gets(passed_on(b"POST / HTTP/1.1", b"", length(b"abc"), b"abc"))
    script.member(response(body=b"x"))
    script.client_gets(answered(b"200 OK", length(b"x") + CLOSE, b"x")).client_is_closed().play()


@pytest.mark.parametrize("status", [400, 408, 411, 413, 414, 500, 501, 503])
def test_closes_after_some_statuses(status: int) -> None:
    """A member's 400, 408, 411, 413, 414, 500, 501 and 503 close the client's connection (P8)."""
    line = b"%d X" % status
    script = Script().client(request()).member_gets(passed_on()).member(response(line, body=b"x"))
    script.client_gets(answered(line, length(b"x") + CLOSE, b"x")).client_is_closed().play()


@pytest.mark.parametrize("status", [401, 404, 449, 502, 504, 507])
def test_keeps_after_others(status: int) -> None:
    """Other statuses keep it, 502 and 504 too (P8, D23)."""
    script = Script().client(request()).member_gets(passed_on())
    script.member(response(b"%d X" % status, body=b"x"))
    script.client_gets(handed_on(b"%d X" % status, body=b"x")).play()


def test_close_is_passed_on_to_nobody() -> None:
    """A member's Connection: close is its own affair: the client's connection stays (P5, P8)."""
    script = Script().client(request()).member_gets(passed_on())
    script.member(response(fields=CLOSE, body=b"x")).member_is_closed()
    script.client_gets(handed_on(body=b"x"))
    script.client(request()).member_gets(passed_on()).member(response(body=b"y"))
    script.client_gets(handed_on(body=b"y")).play()


def test_interim_responses_are_passed_on() -> None:
    """103 goes to the client with its fields and nothing of ours, an unasked 100 doesn't (P17)."""
    script = Script().client(request()).member_gets(passed_on())
    script.member(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
    script.client_gets(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
    script.member(response(body=b"x")).client_gets(handed_on(body=b"x")).play()


def test_old_client_gets_no_interim_responses() -> None:
    """A client of HTTP/1.0 doesn't know 1xx (H44)."""
    script = Script().client(OLD).member_gets(passed_on())
    script.member(b"HTTP/1.1 103 Early Hints\r\n\r\n" + response(body=b"x"))
    script.client_gets(answered(b"200 OK", length(b"x") + CLOSE, b"x")).play()


def test_nine_interim_responses_are_fine_ten_are_not(stage: Stage) -> None:
    """The tenth interim response is passed on, and then it is 502 (P17, H63)."""
    client = stage.client()
    client.send(request())
    member = stage.accept()
    for _ in range(9):
        member.send(b"HTTP/1.1 102 Processing\r\n\r\n")
    assert client.take() == b"HTTP/1.1 102 Processing\r\n\r\n" * 9
    member.send(b"HTTP/1.1 102 Processing\r\n\r\n")
    assert client.take().startswith(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 502 ")
    assert not member.open


def test_location_becomes_ours(make_stage: MakeStage) -> None:
    """A member's own address is rewritten to the one that the client used (P10 to P12)."""
    for tls, scheme in ((False, b"http"), (True, b"https")):
        stage = make_stage(tls=tls)
        client = stage.client()
        client.send(request())
        stage.accept().send(response(b"302 Found", b"Location: http://server2/a?b\r\n"))
        assert b"Location: " + scheme + b"://proxy.example/a?b\r\n" in client.take()


def test_equal_heads_are_not_mixed_up(make_stage: MakeStage) -> None:
    """What is remembered of a head holds for no other client's host, mapping or cookie (P6, P12).

    One member connection gives byte for byte the same head to all.
    """
    plain = {"path": "/", "balancer": "cluster"}
    other = {"path": "/b", "balancer": "cluster", "to": "/app", "cookie_path": {"/": "/b"}}
    stage = make_stage(
        1,
        frontend={"mappings": [plain, other]},
        balancer={"session_cookie": {"lifetime": 0}},
        member={"max_connections": 1},
    )
    fields = b"Location: http://server1/app/x\r\nSet-Cookie: a=1; path=/\r\nX-A: b\r\n"
    cookie = b"Set-Cookie: BALANCEME=balancer.server1; path=/\r\n"
    member = None
    for line, path, host, asked in [
        (b"GET / HTTP/1.1", b"/", b"one.example", b""),
        (b"GET / HTTP/1.1", b"/", b"two.example:8080", b"Cookie: BALANCEME=balancer.server1\r\n"),
        (b"GET /b HTTP/1.1", b"/b", b"one.example", b""),
        (b"HEAD / HTTP/1.1", b"/", b"one.example", b""),
        (b"GET / HTTP/1.0", b"/", b"one.example", b""),
    ]:
        client = stage.client()
        client.send(line + b"\r\nHost: " + host + b"\r\n" + asked + b"\r\n")
        member = member or stage.accept()
        member.send(b"HTTP/1.1 200 OK\r\n" + fields + length(b"x") + b"\r\n")
        if not line.startswith(b"HEAD"):
            member.send(b"x")
        location = b"Location: http://" + host + b"/b/x\r\n"
        theirs = b"Set-Cookie: a=1; path=" + path + b"\r\n"
        close = CLOSE if line.endswith(b"0") else b""
        body = b"" if line.startswith(b"HEAD") else b"x"
        expected = cookie + location + b"X-A: b\r\n" + length(b"x") + theirs + close
        assert client.take() == answered(b"200 OK", expected, body)


def test_offered_upgrade_stays(make_stage: MakeStage) -> None:
    """An Upgrade that the mapping allows stays in a normal answer, another doesn't (P27)."""
    stage = make_stage(mapping={"upgrade": ["websocket"]})
    for protocol, kept in ((b"websocket", True), (b"h2c", False)):
        client = stage.client()
        client.send(request(fields=b"Connection: keep-alive\r\n"))
        fields = b"Connection: upgrade\r\nUpgrade: " + protocol + b"\r\n"
        stage.accept(stage.openings[0]).send(response(b"426 Upgrade", fields))
        assert (b"\r\nUpgrade: " + protocol in client.take()) is kept


def test_cookie_stands_behind_date_and_server(make_stage: MakeStage) -> None:
    """Our session cookie stands before the member's fields, theirs at the end (C15, P3)."""
    stage = make_stage(balancer={"session_cookie": {"lifetime": 0}})
    client = stage.client()
    client.send(request())
    fields = b"Set-Cookie: a=1\r\nX-A: b\r\nSet-Cookie: a=2\r\n"
    stage.accept().send(response(fields=fields))
    assert client.take() == answered(
        b"200 OK",
        b"Set-Cookie: BALANCEME=balancer.server1; path=/\r\nX-A: b\r\n"
        + length(b"")
        + b"Set-Cookie: a=1\r\nSet-Cookie: a=2\r\n",
    )
