from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.framing import (
    CHUNK_LINE,
    Body,
    ChunkedBody,
    FramingError,
    LengthBody,
    UntilCloseBody,
    encode,
    request_body,
    response_body,
)
from proxy.core.http1 import Limits, read_request_head, read_response_head

LIMITS = Limits(request_line=99, field=99, fields=9, head=999)
BEHIND = b"GET / HTTP/1.1\r\n\r\n0\r\n\r\n"


def feed(body: Body, pieces: Iterable[bytes]) -> tuple[bytes, bytes]:
    """What the body holds, and what is behind it."""
    held = rest = b""
    for piece in pieces:
        if body.complete:
            rest += piece
        else:
            held += body.feed(piece)
            rest += body.rest
    return held, rest


def pieces(data: bytes, size: int = 1) -> list[bytes]:
    """``data`` in pieces of one size."""
    return [data[place : place + size] for place in range(0, len(data), size)]


def refusal(parts: Iterable[bytes]) -> int:
    """The status with which a body in chunks is refused."""
    with pytest.raises(FramingError) as refused:
        feed(ChunkedBody(LIMITS), parts)
    return refused.value.status


# --- bodies of a length, and until the end -----------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 99])
def test_length(size: int) -> None:
    """A body of five bytes is five bytes, however they come (H79)."""
    body = LengthBody(5)
    assert not body.complete
    assert feed(body, pieces(b"hello" + BEHIND, size)) == (b"hello", BEHIND)
    assert body.complete


def test_length_allocates_nothing() -> None:
    """An announced length is only a number (H35)."""
    body = LengthBody(2**63 - 1)
    assert body.feed(b"a") == b"a"
    assert not body.complete
    assert body.remaining == 2**63 - 2


def test_length_of_nothing() -> None:
    """A body of no bytes is complete from the start."""
    assert LengthBody(0).complete


def test_until_close() -> None:
    """Such a body takes everything, and only its connection's end completes it (P6)."""
    body = UntilCloseBody()
    assert feed(body, [b"a", b"", BEHIND]) == (b"a" + BEHIND, b"")
    assert not body.complete


# --- bodies in chunks --------------------------------------------------------------------------

CHUNKED = [
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"0\r\n\r\n", b""),
    (b"000\r\n\r\n", b""),
    (b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", b"abc"),
    (b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789"),
    (b"000000000000005\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
    (b"3\r\n0\r\n\r\n0\r\n\r\n", b"0\r\n"),
    (b"5;a\r\nhello\r\n0;b=c\r\n\r\n", b"hello"),
    (b'5 ; a = "b\x80;c"\t;d\r\nhello\r\n0;e\r\n\r\n', b"hello"),
    (b"5\r\nhello\r\n0\r\nX: a\r\ny:\tb \r\n\r\n", b"hello"),
    (b"0\r\nContent-Length: 5\r\nHost: evil\r\nCookie: a=b\r\nTE: x\r\n\r\n", b""),
    (b"0\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n", b""),
]


@pytest.mark.parametrize(("data", "held"), CHUNKED)
def test_chunks_cut_at_every_place(data: bytes, held: bytes) -> None:
    """Extensions and trailers are dropped, whatever their names; nothing behind is taken (H8)."""
    for place in range(len(data) + 1):
        assert feed(ChunkedBody(LIMITS), [data[:place], data[place:] + BEHIND]) == (held, BEHIND)
    for size in (1, 2, 3):
        assert feed(ChunkedBody(LIMITS), pieces(data + BEHIND, size)) == (held, BEHIND)


@pytest.mark.parametrize(("data", "_"), CHUNKED)
def test_truncated_chunks(data: bytes, _: bytes) -> None:
    """Without its last byte no body is complete (H11)."""
    body = ChunkedBody(LIMITS)
    feed(body, pieces(data[:-1]))
    assert not body.complete


MALFORMED = [
    # the size: hexadecimal digits and nothing else (H5)
    *(b"\r\n", b"x\r\n", b"5x\r\n", b"0x5\r\n", b"+5\r\n", b"-5\r\n", b"5_0\r\n", b"5.\r\n"),
    *(b" 5\r\n", b"\t5\r\n", b"5 5\r\n", b"\xb2\r\n", b"\xef\xbc\x95\r\n", b"5,5\r\n", b"g\r\n"),
    *(b"5 \r\n", b"5\t\r\n", b"\0\r\n", b"5\0\r\n", b"5\x0b;a\r\n"),
    # the line's end is CR LF, in extensions too (H6, H7)
    *(b"5\nhello\r\n", b"5\rhello\r\n", b"5\r\rhello\r\n", b"5;a\nhello\r\n", b"5;a\rb\r\n"),
    *(b"5;a\0b\r\n", b"5;\x7f\r\n", b"5;a\r\r\n", b"5\n\r\n", b"0\n\r\n", b"0;\n\r\n"),
    # the data's end too (H5)
    *(b"5\r\nhello!\r\n", b"5\r\nhello\n", b"5\r\nhello\r\r\n", b"5\r\nhell\r\n\r\n0\r\n\r\n"),
    *(b"5\r\nhello0\r\n\r\n", b"5\r\nhello\0\0", b"5\r\nhello\n\r\n", b"5\r\nhello \r\n"),
    # trailers are field lines (H8)
    *(b"0\r\nX\r\n\r\n", b"0\r\nX : a\r\n\r\n", b"0\r\n: a\r\n\r\n", b"0\r\n X: a\r\n\r\n"),
    *(b"0\r\nX: a\r\n b\r\n\r\n", b"0\r\nX: a\0\r\n\r\n", b"0\r\nX: a\rb\r\n\r\n"),
    *(b"0\r\nX: a\n\r\n\r\n", b"0\r\n\nX: a\r\n\r\n", b"0\r\n\rX: a\r\n\r\n"),
    *(b"0\r\nGET / HTTP/1.1\r\n\r\n", b"0\r\nGET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    *(b"0\r\nContent-Length: x\r\n\r\n", b"0\r\nX\xc4: a\r\n\r\n"),
]


@pytest.mark.parametrize("data", MALFORMED)
def test_malformed_chunks(data: bytes) -> None:
    """What can be read in two ways is refused, however it arrives (L11, H5 to H8)."""
    behind = b"\r\n0\r\n\r\n\r\n"
    assert refusal([data + behind]) == 400
    assert refusal(pieces(data + behind)) == 400
    assert refusal([b"1\r\na\r\n" + data[:2], data[2:] + behind]) == 400


@pytest.mark.parametrize("size", [b"1000000000000000", b"f" * 16, b"0" * 16 + b"5", b"f" * 5000])
def test_chunk_too_large(size: bytes) -> None:
    """The number of digits has its limit (L11, H5)."""
    assert refusal([size + b"\r\n"]) == 413
    assert refusal(pieces(size)) == 413


def test_largest_chunk() -> None:
    """A chunk below that limit is only a number (H35)."""
    body = ChunkedBody(LIMITS)
    assert body.feed(b"f" * 15 + b"\r\nab") == b"ab"


@pytest.mark.parametrize("size", [1, 1000, 10**6])
def test_long_chunk_line(size: int) -> None:
    """A chunk's line has its limit, also when it never ends (H6, H34)."""
    longest = b"1;" + b"x" * (CHUNK_LINE - 4) + b"\r\na\r\n0\r\n\r\n"
    assert feed(ChunkedBody(LIMITS), pieces(longest, max(size, 9))) == (b"a", b"")
    assert refusal(pieces(b"1;x" + longest[2:], max(size, 9))) == 400
    assert refusal(pieces(b"1;" + b"x" * 2 * CHUNK_LINE, max(size, 9))) == 400


def test_many_chunk_extensions() -> None:
    """All extensions of a body together have their limit (H6)."""
    chunk = b"1;" + b"x" * 1023 + b"\r\na\r\n"
    count = LIMITS.chunk_extensions // 1024
    assert feed(ChunkedBody(LIMITS), [chunk * count, b"0\r\n\r\n"]) == (b"a" * count, b"")
    assert refusal([chunk * count, b"0;\r\n\r\n"]) == 400


@pytest.mark.parametrize("size", [1, 1000, 10**6])
def test_long_trailers(size: int) -> None:
    """Trailers together have their limit, also when they never end (H34)."""
    longest = b"0\r\nX: " + b"x" * (LIMITS.trailers - 3) + b"\r\n\r\n"
    assert feed(ChunkedBody(LIMITS), pieces(longest, max(size, 99))) == (b"", b"")
    for place in range(-4, 0):
        assert feed(ChunkedBody(LIMITS), [longest[:place], longest[place:]]) == (b"", b"")
    assert refusal(pieces(longest.replace(b"X", b"XX"), max(size, 99))) == 431
    assert refusal(pieces(b"0\r\n" + b"X: a\r\n" * LIMITS.trailers, max(size, 99))) == 431


class CountedBody(ChunkedBody):
    """Counts the elements it looks at."""

    __slots__ = ("steps",)

    def __init__(self) -> None:
        super().__init__(LIMITS)
        self.steps = 0

    def _framing(self, data: bytes, position: int) -> int:
        self.steps += 1
        return super()._framing(data, position)


@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_tiny_chunks_are_linear(size: int) -> None:
    """Twice as many chunks cost twice as many steps, and little is kept between reads (H38)."""
    steps = []
    for count in (500, 1000):
        body = CountedBody()
        for piece in pieces(b"1\r\na\r\n" * count + b"0\r\n\r\n", size):
            body.feed(piece)
            assert len(body._buffer) < 3
        assert body.complete
        steps.append(body.steps)
    per_chunk = [steps[0] / 500, steps[1] / 1000]
    assert per_chunk[1] <= per_chunk[0] * 1.1


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.binary(min_size=1, max_size=20), max_size=6), st.integers(1, 30))
def test_chunks_are_read_back(parts: list[bytes], size: int) -> None:
    """What is encoded as chunks is read as the same bytes, in whatever pieces it comes (P6)."""
    data = b"".join(encode(part, last=False) for part in parts) + encode(b"", last=True)
    assert feed(ChunkedBody(LIMITS), pieces(data + BEHIND, size)) == (b"".join(parts), BEHIND)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.binary(max_size=20)
    | st.lists(
        st.sampled_from([b"0", b"2", b"f", b"\r\n", b"\r", b"\n", b";", b"ab", b"X: a", b" "]),
        max_size=12,
    ).map(b"".join),
    st.integers(1, 5),
)
def test_any_bytes_in_chunks(data: bytes, size: int) -> None:
    """Whatever comes is delimited or refused, the same way in one piece and in many (H5)."""
    outcomes = []
    for parts in ([data], pieces(data, size)):
        body = ChunkedBody(LIMITS)
        try:
            held, rest = feed(body, parts)
        except FramingError as error:
            outcomes.append((b"", b"", error.status))
        else:
            outcomes.append((held, rest, body.complete))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("piece", "last", "data"),
    [
        (b"hello", False, b"5\r\nhello\r\n"),
        (b"hello", True, b"5\r\nhello\r\n0\r\n\r\n"),
        (b"x" * 17, False, b"11\r\n" + b"x" * 17 + b"\r\n"),
        (b"", False, b""),
        (b"", True, b"0\r\n\r\n"),
    ],
)
def test_encode(piece: bytes, last: bool, data: bytes) -> None:
    """An empty piece is no chunk, since that would end the body (P6)."""
    assert encode(piece, last=last) == data


# --- which of them -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"Content-Length: 5", LengthBody),
        (b"Content-Length: 0", None),
        (b"Transfer-Encoding: chunked", ChunkedBody),
        (b"X: a", None),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"PROPFIND"])
def test_request_body(line: bytes, kind: type[Body] | None, method: bytes) -> None:
    """Any method may have a body, and none has one without a length (H9, H10)."""
    for version in (b"1.0", b"1.1"):
        data = method + b" / HTTP/" + version + b"\r\nHost: a\r\n" + line + b"\r\n\r\n"
        found = read_request_head(data, LIMITS)
        assert found is not None
        body = request_body(found[0], LIMITS)
        assert type(body) is (kind or type(None))
        assert not isinstance(body, LengthBody) or body.remaining == 5


@pytest.mark.parametrize(
    ("status", "method", "line", "kind"),
    [
        (200, b"GET", b"Content-Length: 5", LengthBody),
        (200, b"GET", b"Content-Length: 0", None),
        (200, b"GET", b"Transfer-Encoding: chunked", ChunkedBody),
        (200, b"GET", b"X: a", UntilCloseBody),
        (205, b"GET", b"Content-Length: 5", LengthBody),
        (404, b"POST", b"Content-Length: 5", LengthBody),
        (200, b"HEAD", b"Content-Length: 5", None),
        (200, b"HEAD", b"Transfer-Encoding: chunked", None),
        (200, b"HEAD", b"X: a", None),
        (204, b"GET", b"Content-Length: 5", None),
        (304, b"GET", b"Transfer-Encoding: chunked", None),
        (304, b"GET", b"Content-Length: 5", None),
        (100, b"POST", b"Content-Length: 5", None),
        (103, b"GET", b"X: a", None),
    ],
)
def test_response_body(status: int, method: bytes, line: bytes, kind: type[Body] | None) -> None:
    """HEAD, 1xx, 204 and 304 have none, the others by length, chunks or close (P6, H44)."""
    found = read_response_head(b"HTTP/1.1 %d X\r\n%b\r\n\r\n" % (status, line), LIMITS)
    assert found is not None
    assert type(response_body(found[0], method, LIMITS)) is (kind or type(None))
