from dataclasses import replace
from typing import Any

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.errors import ClientError, MemberError, UnexpectedError
from proxy.core.headers import Forwarded, client_lines, framing_line, member_request, own_start
from proxy.core.heads import RequestHead, ResponseHead
from proxy.core.http1 import Limits, _requests, read_request_head, read_response_head
from proxy.core.rewriting import Rewriting
from tests.core.facts import facts

LIMITS = Limits(request_line=8191, field=8191, fields=100, head=65536)
SMALL = Limits(request_line=20, field=20, fields=3, head=60)
BEHIND = [b"GET / HTTP/1.1\r\nHost: b\r\n\r\n", b"\r\n", b"\0", b"body\n\n"]
"""What may follow a head in the same read."""


def request(data: bytes, limits: Limits = LIMITS, scanned: int = 0) -> Any:
    """What a request head says and where it ends, the status of its refusal, or None."""
    try:
        found = read_request_head(data, limits, 0, scanned)
    except ClientError as error:
        return error.status
    return found and (facts(found[0]), found[1])


def response(data: bytes, limits: Limits = LIMITS, _: int = 0) -> Any:
    """What a response head says and where it ends, the kind of its refusal, or None."""
    try:
        found = read_response_head(data, limits)
    except MemberError as error:
        return type(error)
    return found and (facts(found[0]), found[1])


def however_it_arrives(read: Any, data: bytes, limits: Limits = LIMITS) -> Any:
    """The outcome for ``data``, having seen that it doesn't depend on how it is cut.

    Each prefix is incomplete, or is refused as the whole is; what follows a head changes nothing.
    """
    whole = read(data, limits)
    accepted = isinstance(whole, tuple)
    sizes = range(whole[1] if accepted else len(data))
    prefixes = (read(data[:size], limits, max(size - 1, 0)) for size in sizes)
    early = next((outcome for outcome in prefixes if outcome is not None), None)
    assert early is None or (early == whole and not accepted)
    if whole is not None:
        assert [read(data + rest, limits) for rest in BEHIND] == [whole] * len(BEHIND)
    return whole


def one(data: bytes) -> RequestHead:
    """The head of a request that is accepted."""
    found = read_request_head(data, LIMITS)
    assert found is not None
    return found[0]


def post(*lines: bytes) -> bytes:
    """A request with these field lines behind Host."""
    return b"\r\n".join([b"POST /a HTTP/1.1", b"Host: a", *lines, b"", b""])


# --- requests that are understood --------------------------------------------------------------


def test_request() -> None:
    """A head is read into its parts; the fields keep order, spelling and lines (R3, H22)."""
    data = (
        b"PROPFIND /a?b HTTP/1.1\r\nhOST: zarafa.com:8443\r\nCookie: a=b\r\n"
        b"X-Empty:\r\nDepth:\t1 \t\r\ncookie: c=d\r\n\r\n"
    )
    head = one(data)
    assert (head.method, head.target, head.minor) == (b"PROPFIND", b"/a?b", 1)
    assert head.host == b"zarafa.com:8443"
    assert head.fields == [
        (b"host", b"hOST", b"zarafa.com:8443"),
        (b"cookie", b"Cookie", b"a=b"),
        (b"x-empty", b"X-Empty", b""),
        (b"depth", b"Depth", b"1"),
        (b"cookie", b"cookie", b"c=d"),
    ]
    assert head.joined(b"cookie") == b"a=b, c=d"
    assert head.joined(b"depth") == b"1"
    assert head.joined(b"missing") is None
    assert however_it_arrives(request, data) == (facts(head), len(data))
    assert repr(head) == "<RequestHead b'PROPFIND' b'/a?b' 1.1>"


@pytest.mark.parametrize(
    ("line", "minor"),
    [
        (b"GET / HTTP/1.1", 1),
        (b"GET / HTTP/1.0", 0),
        (b"GET / HTTP/1.2", 1),
        (b"GET / HTTP/1.9", 1),
        (b"get / HTTP/1.1", 1),
        (b"MKCALENDAR / HTTP/1.1", 1),
        (b"X!#$%&'*+.^_`|~- / HTTP/1.1", 1),
        (b"X" * 200 + b" / HTTP/1.1", 1),
        (b"OPTIONS * HTTP/1.1", 1),
        (b"CONNECT host:443 HTTP/1.1", 1),
        (b"GET http://host/ HTTP/1.1", 1),
        (b'GET /\xc3\xa4?\xff"\\{|} HTTP/1.1', 1),
        (b"GET ? HTTP/1.1", 1),
    ],
)
def test_request_line(line: bytes, minor: int) -> None:
    """Any token is a method, a minor above 1 is read as 1, raw 8-bit bytes pass (L7, H24, H25)."""
    data = line + b"\r\nHost: a\r\n\r\n"
    head = one(data)
    assert however_it_arrives(request, data) == (facts(head), len(data))
    assert head.line == line
    assert [head.method, head.target] == line.split(b" ")[:2]
    assert head.minor == minor


@pytest.mark.parametrize("count", [1, 10])
def test_empty_lines_before_a_request(count: int) -> None:
    """Up to ten empty lines are passed over (L6)."""
    data = b"\r\n" * count + post()
    assert however_it_arrives(request, data) == (facts(one(post())), len(data))


def test_request_behind_another() -> None:
    """A head is read where it stands, also when all of it is there twice (L16)."""
    first, second = post(b"X: 1"), post(b"X: 2")
    found = read_request_head(first + second, LIMITS, len(first))
    assert found is not None
    assert (found[0].known[b"x"], found[1]) == (b"2", len(first + second))


@pytest.mark.parametrize(
    "line",
    [
        b"X: a\tb",
        b"X: \x80\xff",
        b"X:",
        b"X: \t ",
        b"X:a",
        b"!#$%&'*+-.^_`|~09aZ: a",
        b"X: a:b: c",
    ],
)
def test_field_line(line: bytes) -> None:
    """Names are tokens; in values tabs and 8-bit bytes pass, blanks around them go (L7, H20)."""
    name, _, value = line.partition(b":")
    head = one(post(line))
    assert however_it_arrives(request, post(line)) == (facts(head), len(post(line)))
    assert head.fields[1] == (name.lower(), name, value.strip(b" \t"))


@pytest.mark.parametrize(
    "host",
    [
        b"zarafa.com",
        b"ZARAFA.com:443",
        b"a_b",
        b"a.",
        b"localhost",
        b"192.0.2.1:65535",
        b"[::1]",
        b"[2001:db8::1]:8443",
        b"xn--bcher-kva.example",
    ],
)
def test_host(host: bytes) -> None:
    """Names, addresses and ports that exist are taken as they are (L8, H21)."""
    head = one(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    assert head.host == host


def test_no_host() -> None:
    """HTTP/1.0 may do without Host (L9)."""
    data = b"GET / HTTP/1.0\r\n\r\n"
    assert however_it_arrives(request, data) == (facts(one(data)), len(data))
    assert one(data).host is None


@pytest.mark.parametrize(
    ("lines", "chunked", "length"),
    [
        ([], False, None),
        ([b"Content-Length: 0"], False, 0),
        ([b"Content-Length: 5"], False, 5),
        ([b"content-length:\t005 "], False, 5),
        ([b"Content-Length: 9223372036854775807"], False, 2**63 - 1),
        ([b"Transfer-Encoding: chunked"], True, None),
        ([b"TRANSFER-ENCODING: \tChunKed\t"], True, None),
    ],
)
def test_request_framing(lines: list[bytes], chunked: bool, length: int | None) -> None:
    """One length in digits, or chunked and nothing else (R13, H2, H4); none is no body (H10)."""
    head = one(post(*lines))
    assert however_it_arrives(request, post(*lines)) == (facts(head), len(post(*lines)))
    assert (head.chunked, head.content_length) == (chunked, length)
    assert head.has_body == (chunked or bool(length))


@pytest.mark.parametrize(
    ("version", "lines", "kept", "options"),
    [
        (b"1.1", [], True, set()),
        (b"1.1", [b"Connection: close"], False, {b"close"}),
        (b"1.1", [b"Connection: x ,,\tCLOSE"], False, {b"x", b"close"}),
        (b"1.1", [b"Connection: x", b"A: b", b"connection: Close"], False, {b"x", b"close"}),
        (b"1.1", [b"Connection: keep-alive"], True, {b"keep-alive"}),
        (b"1.1", [b"Connection: "], True, set()),
        (b"1.0", [], False, set()),
        (b"1.0", [b"Connection: Keep-Alive"], True, {b"keep-alive"}),
        (
            b"1.0",
            [b"Connection: keep-alive", b"Transfer-Encoding: chunked"],
            False,
            {b"keep-alive"},
        ),
    ],
)
def test_connection(version: bytes, lines: list[bytes], kept: bool, options: set[bytes]) -> None:
    """Connection is a list over all its lines (P8, H40); chunks in 1.0 end it (R13, H3)."""
    head = one(post(*lines).replace(b"1.1", version, 1))
    assert head.keep_alive is kept
    assert set(head.options) == options


@pytest.mark.parametrize(
    ("version", "lines", "expects"),
    [
        (b"1.1", [b"Expect: 100-continue", b"Content-Length: 5"], True),
        (b"1.1", [b"expect: 100-Continue", b"Transfer-Encoding: chunked"], True),
        (b"1.1", [b"Expect: 100-continue"], False),
        (b"1.1", [b"Expect: 100-continue", b"Content-Length: 0"], False),
        (b"1.1", [b"Expect: 200-ok", b"Content-Length: 5"], False),
        (b"1.0", [b"Expect: 100-continue", b"Content-Length: 5"], False),
        (b"1.1", [b"Expect: 100-continue", b"Content-Length: 5", b"Connection: expect"], False),
    ],
)
def test_expect(version: bytes, lines: list[bytes], expects: bool) -> None:
    """100 Continue is expected for a body, not in HTTP/1.0, and not hop by hop (H13, R19)."""
    assert one(post(*lines).replace(b"1.1", version, 1)).expects_continue is expects


def test_switching_is_not_ours_to_refuse() -> None:
    """Upgrade is left to who forwards it, with a body too (R22, H82)."""
    head = one(post(b"Connection: upgrade", b"Upgrade: h2c", b"Content-Length: 3"))
    assert head.known[b"upgrade"] == b"h2c"
    assert head.content_length == 3


# --- requests that are refused -----------------------------------------------------------------

REFUSED_LINES = [
    *(b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b" GET / HTTP/1.1", b"GET / HTTP/1.1 "),
    *(b"GET\t/ HTTP/1.1", b"GET /\tHTTP/1.1", b"GET / HTTP/1.1\r", b"GET /\r HTTP/1.1"),
    *(b"GET / HTTP/1.10", b"GET / http/1.1", b"GET / HTTP/0.8", b"GET / HTTP/11"),
    *(b"GET / FTP/1.1", b"GET / HTTP/1.", b"GET / HTTP/1.a", b"GET / HTTP/01.1"),
    *(b"G@T / HTTP/1.1", b"G:T / HTTP/1.1", b"G\xc4T / HTTP/1.1", b"G\0T / HTTP/1.1"),
    *(b"GET /a b HTTP/1.1", b"GET /\0 HTTP/1.1", b"GET /\x7f HTTP/1.1", b"GET /\x1f HTTP/1.1"),
    *(b"GET /", b"GET", b"/ HTTP/1.1", b" HTTP/1.1", b"GET  HTTP/1.1", b"HTTP/1.1 200 OK"),
    *(b"PRI * HTTP/2.0", b"GET  / HTTP/2.0", b"\x16\x03\x01"),
]


@pytest.mark.parametrize("line", REFUSED_LINES)
def test_malformed_request_line(line: bytes) -> None:
    """Exactly one blank between three parts that are what they should be (L6, H15, H24, H25)."""
    assert however_it_arrives(request, line + b"\r\nHost: a\r\n\r\n") == 400


@pytest.mark.parametrize("version", [b"2.0", b"3.0", b"9.9"])
def test_other_version(version: bytes) -> None:
    """Another major version is refused by its own status (H24)."""
    assert however_it_arrives(request, b"GET / HTTP/" + version + b"\r\nHost: a\r\n\r\n") == 505


REFUSED_FIELDS = [
    *(b"X : a", b"X\t: a", b"X", b": a", b":", b" : a"),
    *(b"X@: a", b"X(: a", b"X\xc4: a", b"X\0: a", b"\x0bX: a", b"X[]: a", b'"X": a'),
    *(b"X: a\0b", b"X: a\x01b", b"X: a\x7fb", b"X: a\x0bb", b"X: a\x1fb", b"X: \x08"),
    *(b"X: a\rb", b"X: a\nb", b"X: a\r", b"X: \ra", b"X\r: a", b"X: a\r\r", b"X: a\r Y: b"),
    *(b" X: a", b"\tX: a", b" ", b"\t", b"X: a\r\n b", b"X: a\r\n\tb", b"X: a\r\n ", b"\x0b"),
    *(b"X: a\n\nGET / HTTP/1.1", b"X: a\nHost: b", b"X: a\n\r", b"\nX: a", b"\rX: a"),
]


@pytest.mark.parametrize("line", REFUSED_FIELDS)
def test_malformed_field_line(line: bytes) -> None:
    """Blanks, folds, controls, lone CR or LF, odd names: 400 (L6, H7, H17 to H20)."""
    for lines in ([line, b"Host: a"], [b"Host: a", line]):
        data = b"\r\n".join([b"POST / HTTP/1.1", *lines, b"", b""])
        assert however_it_arrives(request, data) == 400


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\n\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n" * 11 + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b" \r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_line_ends(data: bytes) -> None:
    """Only CR LF ends a line, and only ten empty ones may come first (L6, H7, H18)."""
    assert however_it_arrives(request, data) == 400


def test_endless_without_a_line_end() -> None:
    """Bare LF are refused at once, rather than waited for (H7)."""
    assert request(b"GET / HTTP/1.1\r\nHost: a\r\nX: a\n") == 400
    assert request(b"GET / HTTP/1.1\n") == 400
    assert request(b"\r\n" * 11) == 400


@pytest.mark.parametrize(
    "host",
    [
        *(b"", b" ", b"/", b"@", b"..", b".a", b"a..b", b"a b", b"u@a", b"a/b", b"a?b", b"a#b"),
        *(b"a:x", b"a:", b"a:0", b"a:65536", b"a:123456", b"a:-1", b"a:+1", b"a:80:80", b"\xc4"),
        *(b"[::1", b"::1", b"[]", b"[::1]x", b"[a.b]:x", b"[v1.x]", b"a\\b", b'"a"', b"<a>"),
    ],
)
def test_malformed_host(host: bytes) -> None:
    """What is no ``host[:port]`` is refused (L8, H21)."""
    data = b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"
    assert however_it_arrives(request, data) == 400


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\nhOST: b\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\n\r\n",
    ],
)
def test_one_host(data: bytes) -> None:
    """HTTP/1.1 has one Host, and nothing has two, even equal ones (L8, H21)."""
    assert however_it_arrives(request, data) == 400


CODINGS = [
    *(b"gzip", b"identity", b"xchunked", b"chunkedx", b"chunked, gzip", b"gzip, chunked", b""),
    *(b"chunked, chunked", b"chunked,", b",chunked", b"chunked;q=1", b'"chunked"', b"chunked x"),
    *(b"\x0bchunked", b"chunked\x0b", b"chunked\x00", b"chunked\x80", b"\xa0chunked", b"chu nked"),
    *(b"identity, chunked", b"chunked\r\n gzip"),
]
LENGTHS = [
    *(b"", b"+5", b"-5", b"0x5", b"5,5", b"5, 5", b"5 5", b"5_0", b"5.0", b"5e1", b"x", b"5x"),
    *(b"9223372036854775808", b"18446744073709551616", b"9" * 40, b"\xb2", b"\xd9\xa5", b"5;"),
    *(b"5\x0b", b"\x0c5", b"5\0", b'"5"'),
]


@pytest.mark.parametrize("coding", CODINGS)
def test_other_transfer_coding(coding: bytes) -> None:
    """Any coding but chunked is refused, a length beside it or not (R13, R14, H2).

    400 where chunked isn't last, 501 where others stand before it (RFC 9112 6.1, 6.3).
    """
    line = b"Transfer-Encoding: " + coding
    status = 501 if coding in (b"gzip, chunked", b"identity, chunked") else 400
    assert however_it_arrives(request, post(line)) == status
    assert however_it_arrives(request, post(line, b"Content-Length: 5")) == 400


@pytest.mark.parametrize("length", LENGTHS)
def test_malformed_length(length: bytes) -> None:
    """A length is ASCII digits, below 2^63 (L11, H4)."""
    assert however_it_arrives(request, post(b"Content-Length: " + length)) == 400


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
        [b"Transfer-Encoding: chunked", b"X: a", b"content-length: 0"],
        [b"Content-Length: 5", b"Content-Length: 5"],
        [b"Content-Length: 5", b"X: a", b"content-LENGTH: 6"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"transfer-encoding: identity"],
        [b"Expect: 100-continue", b"Expect: 100-continue"],
        [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Connection: content-length"],
    ],
)
def test_ambiguous_framing(lines: list[bytes]) -> None:
    """Two lengths, two codings or both are one too many, however they stand (L11, H1, H14)."""
    for version in (b"1.0", b"1.1"):
        data = post(*lines).replace(b"1.1", version, 1)
        assert however_it_arrives(request, data) == 400


# --- sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "outcome"), [(8190, None), (8191, None), (8192, 414)])
def test_long_request_line(size: int, outcome: int | None) -> None:
    """A request line has its limit, line end not counted (L2, H33)."""
    line = b"GET /" + b"x" * (size - 14) + b" HTTP/1.1"
    assert len(line) == size
    read = request(line + b"\r\nHost: a\r\n\r\n")
    assert read == outcome or (outcome is None and isinstance(read, tuple))
    assert [request(line + end) for end in (b"", b"\r", b"\r\n")][-1] == outcome


def test_request_line_of_the_limit_in_pieces() -> None:
    """The CR of a line that is just short enough isn't a byte too many (L2)."""
    line = b"GET /" + b"x" * 6 + b" HTTP/1.1"
    assert len(line) == SMALL.request_line
    data = line + b"\r\nHost: a\r\n\r\n"
    assert isinstance(however_it_arrives(request, data, SMALL), tuple)
    assert however_it_arrives(request, data.replace(b"x", b"xx", 1), SMALL) == 414


@pytest.mark.parametrize(("size", "outcome"), [(8190, None), (8191, None), (8192, 431)])
def test_long_field(size: int, outcome: int | None) -> None:
    """A field line has its limit: name, colon and value (L3, H33)."""
    line = b"X: " + b"x" * (size - 3)
    read = request(post(line))
    assert read == outcome or (outcome is None and isinstance(read, tuple))


@pytest.mark.parametrize(("count", "outcome"), [(99, None), (100, None), (101, 431)])
def test_many_fields(count: int, outcome: int | None) -> None:
    """A head has a limit of lines, Host among them (L4, H33)."""
    read = request(post(*[b"X: a"] * (count - 1)))
    assert read == outcome or (outcome is None and isinstance(read, tuple))


@pytest.mark.parametrize(("size", "outcome"), [(59, None), (60, None), (61, 431)])
def test_large_head(size: int, outcome: int | None) -> None:
    """A whole head has its limit, however it arrives and however its lines are cut (H33)."""
    bare = b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\nY: 123456\r\n\r\n"
    data = bare % (b"x" * (size - len(bare) + 2))
    assert len(data) == size
    read = however_it_arrives(request, data, SMALL)
    assert read == outcome or (outcome is None and isinstance(read, tuple))


def test_status_of_large_fields() -> None:
    """For Apache large or many fields are 400 (L3, L4)."""
    limits = Limits(20, 20, 3, 60, status=400)
    assert request(post(b"X: " + b"x" * 18), limits) == 400
    assert request(post(b"X:", b"X:", b"X:"), limits) == 400
    assert request(b"GET / HTTP/1.1\r\n" + b"x" * 60, limits) == 400
    assert request(b"GET /xxxxxxx HTTP/1.1\r\nHost: a\r\n\r\n", limits) == 414


@pytest.mark.parametrize(
    ("start", "endless", "status"),
    [
        (b"GET /", b"x", 414),
        (b"", b"G", 414),
        (b"", b"\0", 414),
        (b"", b"\r\n", 400),
        (b"GET / HTTP/1.1\r\n", b"x", 431),
        (b"GET / HTTP/1.1\r\nX:", b" ", 431),
        (b"GET / HTTP/1.1\r\nX: ", b"x", 431),
        (b"GET / HTTP/1.1\r\n", b"X:\r\n", 431),
    ],
)
def test_endless(start: bytes, endless: bytes, status: int) -> None:
    """Whatever part never ends is cut off at a limit, and not before (H34)."""
    data = start
    while (outcome := request(data, SMALL)) is None:
        data += endless
    assert outcome == status
    assert len(data) > 20
    assert len(data) <= SMALL.head + len(endless)


def test_what_was_scanned_is_not_scanned_again() -> None:
    """A head in small pieces is found although its end lies across two of them (H32)."""
    data = post(b"X: a")
    for scanned in range(len(data)):
        assert read_request_head(data, LIMITS, 0, scanned) is not None


# --- what is remembered ------------------------------------------------------------------------


def test_lines_that_were_read_before() -> None:
    """Lines that are known are not read again, whatever the first line and whoever sends them."""
    first = one(post(b"X: a"))
    data = b"GET /b?c HTTP/1.0\r\nHost: a\r\nX: a\r\n\r\n"
    second = one(data)
    assert second.block is first.block
    assert (second.method, second.target, second.minor) == (b"GET", b"/b?c", 0)
    assert second.line == b"GET /b?c HTTP/1.0"
    assert (first.keep_alive, second.keep_alive) == (True, False)
    assert one(post(b"X: b")).block is not first.block


def test_long_lines_are_read_each_time() -> None:
    """What is too large to be remembered says the same each time."""
    for data in (post(b"X: " + b"x" * 5000), post().replace(b"/a", b"/" + b"a" * 600)):
        assert request(data) == request(data) == (facts(one(data)), len(data))
    long = post(b"X: " + b"x" * 5000)
    assert one(long).block is not one(long).block


def test_what_is_remembered_is_judged_again() -> None:
    """What one frontend, or HTTP/1.0, accepts isn't thereby accepted elsewhere (H21, H33)."""
    data = post(b"A: b", b"C: d", b"E: f")
    assert isinstance(request(data), tuple)
    assert request(data, Limits(8191, 8191, 3, 65536)) == 431
    assert request(data, Limits(9, 8191, 100, 65536)) == 414
    assert isinstance(request(b"GET / HTTP/1.0\r\nX: a\r\n\r\n"), tuple)
    assert request(b"GET / HTTP/1.1\r\nX: a\r\n\r\n") == 400


# --- responses ---------------------------------------------------------------------------------


def answer(data: bytes) -> ResponseHead:
    """The head of a response that is accepted, however it arrives."""
    found = read_response_head(data, LIMITS)
    assert found is not None
    assert however_it_arrives(response, data) == (facts(found[0]), found[1])
    assert found[1] == len(data)
    return found[0]


@pytest.mark.parametrize(
    ("line", "status", "reason", "minor"),
    [
        (b"HTTP/1.1 200 OK", 200, b"OK", 1),
        (b"HTTP/1.1 404 Nope Nope", 404, b"Nope Nope", 1),
        (b"HTTP/1.1 200 ", 200, b"", 1),
        (b"HTTP/1.1 200", 200, b"", 1),
        (b"HTTP/1.1 200 \xe4\t\xff", 200, b"\xe4\t\xff", 1),
        (b"HTTP/1.1 299 OK", 299, b"OK", 1),
        (b"HTTP/1.1 449 Retry", 449, b"Retry", 1),
        (b"HTTP/1.1 599 X", 599, b"X", 1),
        (b"HTTP/1.1 100 Continue", 100, b"Continue", 1),
        (b"HTTP/1.0 200 OK", 200, b"OK", 0),
        (b"HTTP/1.9 200 OK", 200, b"OK", 1),
    ],
)
def test_status_line(line: bytes, status: int, reason: bytes, minor: int) -> None:
    """Status and reason pass as they are (P1); any minor version is read (P18, H61)."""
    for fields in (b"", b"X: a\r\n"):
        head = answer(line + b"\r\n" + fields + b"\r\n")
        assert (head.status, head.reason, head.minor) == (status, reason, minor)
        assert repr(head) == f"<ResponseHead {status} 1.{minor}>"


@pytest.mark.parametrize(
    "line",
    [
        *(b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 abc", b"HTTP/1.1  200 OK"),
        *(b"HTTP/1.1 000 X", b"HTTP/1.1 099 X", b"http/1.1 200 OK", b"HTTP/2.0 200 OK"),
        *(b"HTTP/1.10 200 OK", b"HTTP/1.1\t200 OK", b"HTTP/1.1 200\tOK", b" HTTP/1.1 200 OK"),
        *(b"HTTP/1.1", b"200 OK", b"hello", b"ICY 200 OK", b"\r\nHTTP/1.1 200 OK"),
        *(b"HTTP/1.1 200 O\rK", b"HTTP/1.1 200 O\0K", b"HTTP/1.1 200 O\x7fK", b"HTTP/1.1 200 OK\r"),
    ],
)
def test_malformed_status_line(line: bytes) -> None:
    """What doesn't begin like an answer of HTTP/1 is none (P18, H61, H62)."""
    assert however_it_arrives(response, line + b"\r\nX: a\r\n\r\n") is UnexpectedError


def test_response_fields() -> None:
    """Order, spelling and lines are kept (P2); a folded line is joined with a blank (P19, H62)."""
    head = answer(
        b"HTTP/1.1 200 OK\r\nB: 1\r\nset-Cookie: a\r\nX: a\r\n \t b\r\nSet-Cookie: b\r\n\r\n"
    )
    assert head.fields == [
        (b"b", b"B", b"1"),
        (b"set-cookie", b"set-Cookie", b"a"),
        (b"x", b"X", b"a b"),
        (b"set-cookie", b"Set-Cookie", b"b"),
    ]
    assert head.joined(b"set-cookie") == b"a, b"
    assert answer(b"HTTP/1.1 200 OK\r\nX: a\r\n \r\n\tb\r\n\r\n").known[b"x"].split() == [
        b"a",
        b"b",
    ]


@pytest.mark.parametrize(
    "line",
    [
        *(b"X : a", b"X", b": a", b"X@: a", b"X(: a", b"X\xc4: a", b" X: a", b"X\t: a", b"\t"),
        *(b"X: a\0b", b"X: a\x01b", b"X: a\x7fb", b"X: a\rb", b"X: a\nb", b"X: a\r", b"X: a\nY: b"),
    ],
)
def test_malformed_response_field(line: bytes) -> None:
    """What a client couldn't send either is refused from a member too (P19, P20, H62)."""
    data = b"HTTP/1.1 200 OK\r\n" + line + b"\r\nY: a\r\n\r\n"
    assert however_it_arrives(response, data) is MemberError


@pytest.mark.parametrize(
    ("lines", "chunked", "length"),
    [
        ([], False, None),
        ([b"Content-Length: 0"], False, 0),
        ([b"Content-Length: 005 "], False, 5),
        ([b"Transfer-Encoding: Chunked"], True, None),
    ],
)
def test_response_framing(lines: list[bytes], chunked: bool, length: int | None) -> None:
    """One length, chunks, or until the connection closes (P6)."""
    head = answer(b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"", b""]))
    assert (head.chunked, head.content_length) == (chunked, length)


@pytest.mark.parametrize(
    "lines",
    [
        *([b"Content-Length: " + length] for length in LENGTHS),
        *([b"Transfer-Encoding: " + coding] for coding in CODINGS),
        [b"Content-Length: 5", b"Content-Length: 5"],
        [b"Content-Length: 5", b"Content-Length: 6"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"],
        [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
    ],
)
def test_ambiguous_response(lines: list[bytes]) -> None:
    """A member that leaves open where its answer ends gave none (P21, H58)."""
    data = b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"", b""])
    assert however_it_arrives(response, data) is MemberError


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", False),
    ],
)
def test_member_connection_is_kept(line: bytes, kept: bool) -> None:
    """A connection is used again unless the member says close or speaks HTTP/1.0 (P18)."""
    assert answer(line + b"\r\n").keep_alive is kept


@pytest.mark.parametrize(
    ("line", "refusal"),
    [
        (b"HTTP/1.1 200 1234567", None),
        (b"HTTP/1.1 200 12345678", UnexpectedError),
        (b"HTTP/1.1 200 \r\nX: 45678901234567890", None),
        (b"HTTP/1.1 200 \r\nX: 456789012345678901", MemberError),
        (b"HTTP/1.1 200 \r\nX: 4567890\r\n 2345678901", None),
        (b"HTTP/1.1 200 \r\nX: 45678901234567890\r\nY: 4567890123456789", None),
        (b"HTTP/1.1 200 \r\nX: 45678901234567890\r\nY: 45678901234567890", MemberError),
    ],
)
def test_large_response_head(line: bytes, refusal: type[MemberError] | None) -> None:
    """Lines and the whole head have their limits, however they arrive (P22, H63)."""
    outcome = however_it_arrives(response, line + b"\r\n\r\n", SMALL)
    assert isinstance(outcome, tuple) if refusal is None else outcome is refusal


def test_nothing_is_made_of_too_many_lines() -> None:
    """Too many lines are counted before they are read, and not remembered (H38, H92)."""
    data = b"GET /many HTTP/1.1\r\n" + b"a:b\r\n" * 500 + b"\r\n"
    assert request(data) == 431
    assert data not in _requests
    assert request(b"GET /many HTTP/9\r\n" + b"a:b\r\n" * 500 + b"\r\n") == 400


@pytest.mark.parametrize("status", [600, 999])
def test_status_that_is_none(status: int) -> None:
    """A status is at most 599 (H61); for Apache any number of three digits is one (P18)."""
    data = b"HTTP/1.1 %d X\r\n\r\n" % status
    with pytest.raises(UnexpectedError):
        read_response_head(data, LIMITS)
    found = read_response_head(data, replace(LIMITS, last_status=999))
    assert found is not None
    assert found[0].status == status


def test_many_response_fields() -> None:
    """The number of a member's lines is limited like a client's (H63)."""
    found = read_response_head(b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 100 + b"\r\n", LIMITS)
    assert found is not None
    assert len(found[0].fields) == 100
    with pytest.raises(MemberError):
        read_response_head(b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 101 + b"\r\n", LIMITS)


@pytest.mark.parametrize(
    ("start", "refusal"),
    [(b"HTTP/1.1 200 O", UnexpectedError), (b"HTTP/1.1 200 OK\r\nX: a", MemberError)],
)
def test_endless_response(start: bytes, refusal: type[MemberError]) -> None:
    """A line that never ends is cut off at the limit, and not before (H63)."""
    line = start.rpartition(b"\n")[2]
    data = start + b"x" * (SMALL.field - len(line))
    assert response(data + b"\r", SMALL) is None
    assert response(data + b"xxx", SMALL) is refusal


def test_response_that_was_read_before() -> None:
    """A head that is known is not read again; one that differs anywhere is."""
    first = answer(b"HTTP/1.1 200 OK\r\nX: a\r\n\r\n")
    assert answer(b"HTTP/1.1 200 OK\r\nX: a\r\n\r\n") is first
    assert answer(b"HTTP/1.1 200 OK\r\nX: ab\r\n\r\n").known == {b"x": b"ab"}
    assert answer(b"HTTP/1.0 404 Nope\r\nX: a\r\n\r\n").keep_alive is False
    long = b"HTTP/1.1 200 " + b"x" * 600 + b"\r\nX: " + b"x" * 5000 + b"\r\n\r\n"
    assert response(long) == response(long)


# --- any bytes at all --------------------------------------------------------------------------

# Pieces that heads are made of, and pieces that break them.
PIECES = [
    *(b"GET ", b"POST ", b"/", b"/a?b", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"HTTP/1.1 200 OK\r\n"),
    *(b"Host: a\r\n", b"Host", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"Connection: x, close\r\n", b"X: a\r\n", b"x-y:", b"Expect: 100-continue\r\n"),
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"\r",
        b"\n",
        b" ",
        b"\t",
        b":",
        b",",
        b"\0",
        b"\x0b",
        b"\x80",
        b"\xff",
    ),
]
SOUP = st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join)
START = b"GET /a HTTP/1.1\r\nHost: a\r\n"


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.binary(max_size=40) | SOUP | SOUP.map(lambda soup: START + soup + b"\r\n\r\n"))
def test_any_bytes_of_a_client(data: bytes) -> None:
    """Whatever comes is a head, the beginning of one, or a client's mistake; no other error."""
    however_it_arrives(request, data)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.binary(max_size=40) | SOUP | SOUP.map(lambda s: b"HTTP/1.1 200 OK\r\n" + s + b"\r\n\r\n"))
def test_any_bytes_of_a_member(data: bytes) -> None:
    """Whatever comes is a head, the beginning of one, or a member's mistake; no other error."""
    however_it_arrives(response, data)


# --- what is written on, read by another --------------------------------------------------------

TOKEN = st.text("!#$%&'*+-.^_`|~0189AZaz", min_size=1, max_size=6).map(str.encode)
NAME = st.sampled_from([b"Accept", b"Cookie", b"X-A", b"x_a", b"Te", b"Range"]) | TOKEN
VALUE = st.text("".join(map(chr, [9, *range(32, 127), *range(128, 256)])), max_size=10).map(
    lambda text: text.encode("latin-1")
)
LINES = st.lists(st.tuples(NAME, VALUE), max_size=6)
FRAMING = st.sampled_from([b"", b"Content-Length: 7\r\n", b"Transfer-Encoding: chunked\r\n"])
TARGET = st.text("".join(map(chr, range(33, 127))), max_size=12).map(
    lambda text: b"/" + text.encode()
)
OURS = {
    b"host",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-server",
    b"x-forwarded-proto",
}
WRITTEN = OURS | {b"connection", b"content-length", b"transfer-encoding", b"date", b"server"}


def encode(lines: list[tuple[bytes, bytes]]) -> bytes:
    """Field lines as they are sent."""
    return b"".join(name + b":" + value + b"\r\n" for name, value in lines)


def unwritten(fields: Any) -> list[tuple[bytes, bytes]]:
    """The fields that aren't ours, with their names in lower case."""
    return [(key, value) for key, value in fields if key not in WRITTEN]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(TOKEN, TARGET, LINES, FRAMING)
def test_a_request_is_read_alike_by_h11(
    method: bytes, target: bytes, lines: list[tuple[bytes, bytes]], framing: bytes
) -> None:
    """What is accepted and built anew is accepted by another reader, which understands the same."""
    data = method + b" " + target + b" HTTP/1.1\r\nHost: a.b:80\r\n" + encode(lines) + framing
    try:
        found = read_request_head(data + b"\r\n", LIMITS)
    except ClientError:
        return
    assert found is not None
    head = found[0]
    forwarded = Forwarded("192.0.2.1", "zarafa.com", tls=True, trusted=False)
    tail = framing_line(head, None)[0] + b"Connection: Keep-Alive\r\n"
    tail = forwarded.lines(head, head.host) + tail
    text = member_request(head, head.target, b"server1", forwarded, tail)
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(text)
    event = reader.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target) == (head.method, head.target)
    read = list(event.headers)
    assert read[0] == (b"host", b"server1")
    gone = OURS | head.options | {b"te", b"connection", b"content-length", b"transfer-encoding"}
    kept = [(key, value) for key, _, value in head.fields if key not in gone]
    assert unwritten(read) == kept
    lengths = {b"content-length": b"7"} if b"Length" in framing else {}
    chunks = {b"transfer-encoding": b"chunked"} if b"chunked" in framing else {}
    bodies = {b"content-length", b"transfer-encoding"}
    assert {key: value for key, value in read if key in bodies} == lengths | chunks


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(200, 999), VALUE, LINES, FRAMING)
def test_a_response_is_read_alike_by_h11(
    status: int, reason: bytes, lines: list[tuple[bytes, bytes]], framing: bytes
) -> None:
    """The same for a member's answer."""
    data = b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (status, reason, encode(lines), framing)
    try:
        found = read_response_head(data, LIMITS)
    except MemberError:
        return
    assert found is not None
    head = found[0]
    start = own_start(head, b"Sun, 22 Nov 2026 13:15:57 GMT", b"balanceme")
    kept = client_lines(head, Rewriting([], {}, {}), lambda: b"https://zarafa.com", length=True)
    text = b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (head.status, head.reason, start, kept)
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(text)
    event = reader.next_event()
    assert isinstance(event, h11.Response)
    assert (event.status_code, event.reason) == (status, reason)
    gone = {b"te", b"connection", b"date", b"server", b"set-cookie", *head.options}
    theirs = [(key, value) for key, _, value in head.fields if key not in gone | WRITTEN]
    assert unwritten(event.headers) == theirs
