"""What a member gets of a request: its head, and its body in the member's framing."""

import pytest

from proxy.dataplane.request import PREFETCH, PREFETCH_TIME
from tests.dataplane.conftest import MakeStage
from tests.dataplane.messages import CHUNKED, chunks, length, passed_on, post, request, response
from tests.fakes import Script, Stage

POST = b"POST / HTTP/1.1"
LARGE = b"x" * PREFETCH


def test_passes_a_request_on() -> None:
    """A head is rebuilt: our Host first, the client's fields in order, then ours (R2, P2)."""
    fields = b"Accept: */*\r\nX-Empty: \r\nCookie: a=1; b=2\r\naccept:  x \t\r\n"
    expected = b"Accept: */*\r\nX-Empty: \r\nCookie: a=1; b=2\r\naccept: x\r\n"
    script = Script().client(request(b"GET /a?b=%2F HTTP/1.1", fields))
    script.member_gets(passed_on(b"GET /a?b=%2F HTTP/1.1", expected)).play()


@pytest.mark.parametrize(
    ("fields", "body", "tail", "expected"),
    [
        (length(b"abc"), b"abc", length(b"abc"), b"abc"),
        (length(b""), b"", length(b""), b""),
        (CHUNKED, chunks(b"ab", b"c"), length(b"abc"), b"abc"),
        (CHUNKED, chunks(), length(b""), b""),
        (CHUNKED, b"3;ext=1\r\nabc\r\n0\r\nTrailer: x\r\n\r\n", length(b"abc"), b"abc"),
        (length(LARGE), LARGE, length(LARGE), LARGE),
    ],
    ids=["length", "length 0", "chunked", "chunked, empty", "extension and trailer", "large"],
)
def test_frames_a_body(fields: bytes, body: bytes, tail: bytes, expected: bytes) -> None:
    """A length stays, a small chunked body gets one; extensions and trailers go (R9, H6, H8)."""
    script = Script().client(request(POST, fields, body))
    script.member_gets(passed_on(POST, b"", tail, expected)).member(response()).play()


def test_chunks_a_large_body_again() -> None:
    """A chunked body of 16304 bytes or more stays chunked, in chunks of ours (R9)."""
    body = chunks(b"y" * 10, LARGE, b"z")
    script = Script().client(request(POST, CHUNKED, body))
    script.member_gets(passed_on(POST, b"", CHUNKED, body)).play()


def test_gives_a_length_to_one_byte_less(stage: Stage) -> None:
    """A chunked body of 16303 bytes gets a length, however its pieces come (R9)."""
    client = stage.client()
    client.send(request(POST, CHUNKED, b"3faf\r\n" + LARGE[:-3]))
    client.send(b"xx")
    assert stage.openings == []
    client.send(b"\r\n0\r\n\r\n")
    stage.accept().gets(passed_on(POST, b"", length(LARGE[1:]), LARGE[1:]))


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"PROPFIND", b"X-Y!"])
def test_passes_a_body_of_any_method(method: bytes) -> None:
    """A body belongs to its request, whatever the method, and is never the next request (H9)."""
    line, body = method + b" / HTTP/1.1", b"GET /inner HTTP/1.1\r\n\r\n"
    script = Script().client(request(line, length(body), body))
    script.member_gets(passed_on(line, b"", length(body), body)).play()


def test_collects_a_small_body_first(stage: Stage) -> None:
    """No member is bothered before a small body is there (R10)."""
    client = stage.client()
    client.send(post(b"abc")[:-1])
    stage.advance(PREFETCH_TIME - 0.1)
    assert stage.openings == []
    client.send(b"c")
    stage.accept().gets(passed_on(POST, b"", length(b"abc"), b"abc"))


def test_waits_a_moment_for_a_slow_body(stage: Stage) -> None:
    """A body that is slow goes to the member after a second, as it comes (R10, section X)."""
    client = stage.client()
    client.send(request(POST, length(b"abcd")) + b"a")
    stage.advance(PREFETCH_TIME / 2)
    client.send(b"b")
    stage.advance(PREFETCH_TIME / 2 - 0.01)
    assert stage.openings == []
    stage.advance(0.02)
    member = stage.accept()
    member.gets(passed_on(POST, b"", length(b"abcd"), b"ab"))
    client.send(b"cd")
    assert member.take() == b"cd"


def test_slow_chunked_body_stays_chunked(stage: Stage) -> None:
    """A chunked body whose length isn't known after a second stays chunked (R10)."""
    client = stage.client()
    client.send(request(POST, CHUNKED, b"2\r\nab\r\n"))
    stage.advance(PREFETCH_TIME + 0.1)
    member = stage.accept()
    assert member.take() == passed_on(POST, b"", CHUNKED, b"2\r\nab\r\n")
    client.send(b"1\r\nc\r")
    assert member.take() == b"1\r\nc\r\n"
    client.send(b"\n0\r\n\r\n")
    assert member.take() == b"0\r\n\r\n"


def test_apache_waits_as_long_as_the_body_timeout(make_stage: MakeStage) -> None:
    """With compat a slow body is waited for until 408, and no member sees it (R10)."""
    stage = make_stage(top={"compat": "apache"})
    client = stage.client()
    client.send(post(b"abc")[:-1])
    stage.advance(PREFETCH_TIME + 5)
    assert stage.openings == []
    stage.advance(20)
    assert client.take().startswith(b"HTTP/1.1 408 ")
    assert stage.statuses == [408]


def test_large_body_goes_on_at_once(stage: Stage) -> None:
    """From 16304 bytes on a body is streamed (R10)."""
    client = stage.client()
    client.send(request(POST, length(LARGE * 2)) + LARGE)
    member = stage.accept()
    member.gets(passed_on(POST, b"", length(LARGE * 2), LARGE))
    client.send(LARGE[1:])
    assert member.take() == LARGE[1:]


def test_body_that_comes_while_connecting_is_kept(stage: Stage) -> None:
    """What arrives before the connection stands is sent with it, and held back after (F3, P4)."""
    client = stage.client()
    client.send(request(POST, length(LARGE + b"abcd")) + LARGE)
    client.send(b"ab")
    assert not client.transport.is_reading()
    client.send(b"cd")
    member = stage.accept()
    assert client.transport.is_reading()
    assert member.take() == passed_on(POST, b"", length(LARGE + b"abcd"), LARGE + b"abcd")


@pytest.mark.parametrize(
    ("upgrade", "reuse", "expected"),
    [
        ((), True, b"Connection: Keep-Alive\r\n"),
        ((), False, b"Connection: close\r\n"),
        (("websocket",), True, b"Connection: Upgrade\r\nUpgrade: WebSocket\r\n"),
        (("other",), True, b"Connection: Keep-Alive\r\n"),
    ],
)
def test_says_what_becomes_of_the_connection(
    make_stage: MakeStage, *, upgrade: tuple[str, ...], reuse: bool, expected: bytes
) -> None:
    """Our own Connection stands last; an upgrade is passed on only if allowed (R2, R22, H82)."""
    stage = make_stage(mapping={"upgrade": upgrade}, member={"reuse_connections": reuse})
    fields = b"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nKeep-Alive: 5\r\n"
    stage.client().send(request(fields=fields))
    assert stage.accept().take().endswith(b"http\r\n" + expected + b"\r\n")


@pytest.mark.parametrize(
    ("line", "host"),
    [
        (b"GET / HTTP/1.1", b"proxy.example"),
        (b"GET http://other.example/ HTTP/1.1", b"other.example"),
    ],
)
def test_preserves_the_host(make_stage: MakeStage, line: bytes, host: bytes) -> None:
    """With preserve_host the client's host goes on; one in the target replaces it (R4, H27)."""
    stage = make_stage(mapping={"preserve_host": True})
    stage.client().send(request(line))
    assert stage.accept().take().startswith(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n")


def test_connection_options_don_t_touch_framing() -> None:
    """Naming Content-Length or Host in Connection alters neither framing nor routing (H14, H41)."""
    fields = b"Connection: content-length, host, x-forwarded-for, x-gone\r\nX-Gone: 1\r\n"
    script = Script().client(post(b"abc", fields))
    script.member_gets(passed_on(POST, b"", length(b"abc"), b"abc")).play()


@pytest.mark.parametrize("value", [b"x\r\nMax-Forwards: 5", b"x"])
def test_malformed_max_forwards(stage: Stage, value: bytes) -> None:
    """A malformed Max-Forwards, also one of several, is 400 and leaves nothing behind (R16)."""
    for _ in range(2):  # the second time over a connection that is idle
        client = stage.client()
        client.send(request(fields=b"Max-Forwards: " + value + b"\r\n"))
        if stage.openings:
            stage.accept(stage.openings[0])
        assert client.take().startswith(b"HTTP/1.1 400 ")
        assert stage.busy == 0
