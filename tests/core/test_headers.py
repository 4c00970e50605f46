from typing import Any

import pytest

from proxy.core.errors import ClientError
from proxy.core.headers import (
    START,
    Forwarded,
    client_lines,
    framing_line,
    interim_response,
    max_forwards,
    member_request,
    own_start,
    switching_response,
)
from proxy.core.heads import RequestHead, ResponseHead
from proxy.core.http1 import Limits, read_request_head, read_response_head
from proxy.core.rewriting import Place, Rewriting

LIMITS = Limits(999, 999, 99, 9999)
DATE = b"Sun, 22 Nov 2026 13:15:57 GMT"
PLAIN = Rewriting([], {}, {})
KEEP = b"Connection: Keep-Alive\r\n"
OURS = [
    "X-Forwarded-For: 192.0.2.1",
    "X-Forwarded-Host: mail.zarafa.com:8443",
    "X-Forwarded-Server: zarafa.com",
    "X-Forwarded-Proto: https",
]


def request(*lines: str, line: str = "GET /a HTTP/1.1") -> RequestHead:
    """A request with these field lines behind Host."""
    text = "\r\n".join([line, "Host: mail.zarafa.com:8443", *lines, "", ""])
    found = read_request_head(text.encode("latin-1"), LIMITS)
    assert found is not None
    return found[0]


def forwarded(*, trusted: bool = False, apache: bool = False, tls: bool = True) -> Forwarded:
    """What is said of a client at 192.0.2.1."""
    told = Forwarded("192.0.2.1", "zarafa.com", tls=tls, trusted=trusted)
    told.apache = apache
    return told


def sent(head: RequestHead, told: Forwarded | None = None, tail: bytes = b"") -> list[str]:
    """The field lines for the member, behind Host."""
    told = told or forwarded()
    tail = told.lines(head, head.host) + tail
    text = member_request(head, head.target, b"server1", told, tail).decode("latin-1")
    lines = text.split("\r\n")
    assert lines[:2] == [f"{head.method.decode()} {head.target.decode()} HTTP/1.1", "Host: server1"]
    assert lines[-2:] == ["", ""]
    return lines[2:-2]


# --- requests ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    ["GET /a HTTP/1.1", "GET /a HTTP/1.0", "get /a?b HTTP/1.1", "PROPPATCH /a HTTP/1.9"],
)
def test_request_line(line: str) -> None:
    """The member always gets HTTP/1.1, the method in the client's letters (R1, H24, H30)."""
    assert sent(request(line=line)) == OURS


def test_order() -> None:
    """Host, the client's fields, ours, then framing and connection (R2)."""
    head = request("User-Agent: a", "accept: b", "X-Empty:", "X-Bytes: \xe4\t\xff")
    tail = b"Content-Length: 5\r\n" + KEEP
    assert sent(head, tail=tail) == [
        "User-Agent: a",
        "accept: b",
        "X-Empty: ",
        "X-Bytes: \xe4\t\xff",
        *OURS,
        "Content-Length: 5",
        "Connection: Keep-Alive",
    ]


def test_equal_names() -> None:
    """Lines of one name stay apart (H22); Apache joins them into the first (R3)."""
    head = request("Cookie: a=b", "X: 1", "cookie:  c=d ", "COOKIE:", "x: 2")
    assert sent(head)[:-4] == ["Cookie: a=b", "X: 1", "cookie: c=d", "COOKIE: ", "x: 2"]
    told = forwarded(apache=True)
    assert sent(head, told)[:-3] == ["Cookie: a=b, c=d, ", "X: 1, 2"]


@pytest.mark.parametrize(
    "line",
    [
        "Connection: keep-alive",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "TE: trailers",
        "Trailer: X",
        "Upgrade: websocket",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
    ],
)
@pytest.mark.parametrize("apache", [False, True])
def test_hop_by_hop_fields(line: str, apache: bool) -> None:
    """What belongs to the client's connection stays there; lengths are written anew (R5, H40)."""
    names = [text.partition(":")[0] for text in sent(request(line), forwarded(apache=apache))]
    assert line.partition(":")[0] not in names


@pytest.mark.parametrize("apache", [False, True])
def test_fields_named_in_connection(apache: bool) -> None:
    """Fields that any Connection line names go, in any case of letters (R5, H40)."""
    head = request("X-A: 1", "Connection: x-a ,X-C", "X-C: a", "connection: X-B", "x-b: 2")
    assert [line for line in sent(head, forwarded(apache=apache)) if line not in OURS] == []


@pytest.mark.parametrize("line", ["Cookie: a", "Authorization: Basic YTpi", "Origin: null"])
def test_security_named_in_connection(line: str) -> None:
    """What tells who asks can't be stripped by naming it; Apache strips it (R5, H14)."""
    head = request(line, f"Connection: {line.partition(':')[0]}")
    assert sent(head)[0] == line
    assert line not in sent(head, forwarded(apache=True))


@pytest.mark.parametrize("apache", [False, True])
@pytest.mark.parametrize("trusted", [False, True])
def test_own_fields_named_in_connection(apache: bool, trusted: bool) -> None:
    """No Connection can strip what we add (R5, H14, H41)."""
    head = request(
        "Connection: Host, X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Server",
        "Connection: X-Forwarded-Proto, Content-Length, Transfer-Encoding, Connection",
    )
    lines = sent(head, forwarded(apache=apache, trusted=trusted), b"Content-Length: 5\r\n" + KEEP)
    ours = OURS[:3] if apache else OURS
    assert lines == [*ours, "Content-Length: 5", "Connection: Keep-Alive"]


def test_client_values_named_in_connection() -> None:
    """Apache removes a client's forwarded fields then, and adds its own (R5)."""
    head = request("Connection: x-forwarded-for", "X-Forwarded-For: 198.51.100.7")
    assert sent(head, forwarded(apache=True)) == OURS[:3]


@pytest.mark.parametrize("apache", [False, True])
@pytest.mark.parametrize(
    "line",
    [
        "Authorization: Basic YTpi",
        "Proxy-Authorization: Basic YTpi",
        "Proxy-Authenticate: Basic",
        "Via: 1.1 a",
        "Range: bytes=0-1",
        "If-None-Match: x",
        "If-Modified-Since: x",
        "Accept-Encoding: gzip",
        "X-Forwarded-For-Real: a",
        "X_Forwarded_For_Real: a",
        "X_A: a",
    ],
)
def test_kept_fields(line: str, apache: bool) -> None:
    """Everything else is passed on (R6, R8)."""
    assert sent(request(line), forwarded(apache=apache))[0] == line


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize(
    "line",
    [
        *("X_Forwarded_For: a", "X-Forwarded_For: a", "CONTENT_LENGTH: 5", "x_real_ip: a"),
        *("Transfer_Encoding: chunked", "X_Forwarded-Proto: https", "Content_Type: a"),
    ],
)
def test_underscore_twins(line: str, trusted: bool) -> None:
    """What a CGI program takes for a field of ours is dropped; Apache passes it on (H23)."""
    assert sent(request(line), forwarded(trusted=trusted)) == OURS
    assert sent(request(line), forwarded(apache=True, trusted=trusted))[0] == line


def test_nothing_is_invented() -> None:
    """No field is added but Host and those that tell of the client (H49)."""
    assert sent(request()) == OURS
    assert sent(request(), forwarded(apache=True)) == OURS[:3]


# --- forwarded fields --------------------------------------------------------------------------

CLAIMS = [
    "X-Forwarded-For: 198.51.100.7",
    "x-forwarded-host: evil.example",
    "X-Forwarded-Server: evil",
    "X-FORWARDED-PROTO: http",
    "X-Forwarded-For: 203.0.113.9,",
]


def test_forwarded_fields_of_a_client() -> None:
    """What a client claims about itself is replaced, and never arrives (H42, D29, D30)."""
    head = request(*CLAIMS, "Forwarded: for=a", "X-Real-IP: a", "X-Forwarded-Port: 1", "Proxy: a")
    assert sent(head) == OURS


def test_forwarded_fields_of_a_trusted_proxy() -> None:
    """A trusted proxy's values stand before ours, and its scheme counts (R7, H42)."""
    kept = ["Forwarded: for=a", "X-Real-IP: a", "X-Forwarded-Port: 1"]
    head = request(*CLAIMS, *kept, "Proxy: a")
    assert sent(head, forwarded(trusted=True)) == [
        *kept,
        "X-Forwarded-For: 198.51.100.7, 203.0.113.9,, 192.0.2.1",
        "X-Forwarded-Host: evil.example, mail.zarafa.com:8443",
        "X-Forwarded-Server: evil, zarafa.com",
        "X-Forwarded-Proto: http",
    ]


@pytest.mark.parametrize("proto", ["", "https, http", "ftp", "javascript:"])
def test_scheme_of_a_trusted_proxy(proto: str) -> None:
    """A scheme is http or https, never a list (D30)."""
    head = request(f"X-Forwarded-Proto: {proto}")
    assert sent(head, forwarded(trusted=True)) == OURS


def test_trusted_proxy_that_says_nothing() -> None:
    """Without values of its own a trusted proxy is like any client."""
    assert sent(request(), forwarded(trusted=True)) == OURS


def test_forwarded_fields_as_apache_writes_them() -> None:
    """Apache trusts everybody: ours are appended in place, the scheme is the client's (R2, R7)."""
    head = request(*CLAIMS, "X-Real-IP: a", "Proxy: a")
    assert sent(head, forwarded(apache=True)) == [
        "X-Forwarded-For: 198.51.100.7, 203.0.113.9,, 192.0.2.1",
        "x-forwarded-host: evil.example, mail.zarafa.com:8443",
        "X-Forwarded-Server: evil, zarafa.com",
        "X-FORWARDED-PROTO: http",
        "X-Real-IP: a",
        "Proxy: a",
    ]


@pytest.mark.parametrize("apache", [False, True])
def test_no_host(apache: bool) -> None:
    """A request without Host has no X-Forwarded-Host (R7)."""
    found = read_request_head(b"GET / HTTP/1.0\r\nX: a\r\n\r\n", LIMITS)
    assert found is not None
    lines = sent(found[0], forwarded(apache=apache))
    assert lines == ["X: a", OURS[0], OURS[2], *([] if apache else OURS[3:])]


def test_scheme_without_tls() -> None:
    """The scheme is the frontend's (D30)."""
    assert sent(request(), forwarded(tls=False))[-1] == "X-Forwarded-Proto: http"


def test_lines_of_several_clients() -> None:
    """The same lines of different clients are told apart by what is said of the clients."""
    claims = ("X: a", "X-Forwarded-For: 198.51.100.7", "X-Real-IP: b")
    apache = ["X: a", "X-Forwarded-For: 198.51.100.7, 192.0.2.1", "X-Real-IP: b", *OURS[1:3]]
    other = Forwarded("192.0.2.2", "zarafa.com", tls=False, trusted=False)
    for _ in range(2):
        head = request(*claims)
        assert sent(head) == ["X: a", *OURS]
        assert sent(head, forwarded(apache=True)) == apache
        assert sent(head, forwarded(trusted=True)) == [
            "X: a",
            "X-Real-IP: b",
            "X-Forwarded-For: 198.51.100.7, 192.0.2.1",
            *OURS[1:],
        ]
        assert sent(head, other) == [
            "X: a",
            "X-Forwarded-For: 192.0.2.2",
            *OURS[1:3],
            "X-Forwarded-Proto: http",
        ]


def test_hosts_of_one_client() -> None:
    """A client that names one host, another, none, and the first again (R7)."""
    told = forwarded()
    for host in ("a", "b", None, "a", None):
        lines = f"Host: {host}\r\n" if host else ""
        found = read_request_head(f"GET / HTTP/1.0\r\n{lines}\r\n".encode(), LIMITS)
        assert found is not None
        middle = [f"X-Forwarded-Host: {host}"] if host else []
        assert sent(found[0], told) == [OURS[0], *middle, *OURS[2:]]


# --- Expect, Max-Forwards, framing -------------------------------------------------------------


def test_expect() -> None:
    """Expect is forwarded where a body and an answer to it may follow (R19, H13)."""
    lines = ("Expect: 100-continue", "Content-Length: 5")
    assert sent(request(*lines))[0] == "Expect: 100-continue"
    assert sent(request(lines[0])) == OURS
    assert sent(request("Expect:"), forwarded(apache=True)) == OURS[:3]
    assert sent(request(*lines, line="POST /a HTTP/1.0")) == OURS


def test_expect_of_another_version() -> None:
    """The same lines in HTTP/1.0, and again in HTTP/1.1, are not taken for each other's (H13)."""
    lines = ("Expect: 100-continue", "Content-Length: 5")
    told = forwarded()
    for version, expected in (("1.0", OURS), ("1.1", [lines[0], *OURS]), ("1.0", OURS)):
        assert sent(request(*lines, line=f"POST /a HTTP/{version}"), told) == expected


@pytest.mark.parametrize("apache", [False, True])
def test_max_forwards(apache: bool) -> None:
    """Max-Forwards is one less each time (R16, H29)."""
    head = request("A: b", "Max-forwards: 010")
    for _ in range(2):
        assert sent(head, forwarded(apache=apache))[1] == "Max-forwards: 9"


@pytest.mark.parametrize("value", [b"", b"x", b"-1", b"+1", b"1_0", b"1.0", b"\xb2", b"9" * 11])
def test_malformed_max_forwards(value: bytes) -> None:
    """It is a number of digits, and not too many (R16)."""
    with pytest.raises(ClientError) as refused:
        max_forwards(value)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("lines", "whole", "framing"),
    [
        ([], 0, (b"", False)),
        (["Content-Length: 5"], 5, (b"Content-Length: 5\r\n", False)),
        (["Content-Length: 005"], None, (b"Content-Length: 5\r\n", False)),
        (["Content-Length: 0"], 0, (b"Content-Length: 0\r\n", False)),
        (["Transfer-Encoding: chunked"], 5, (b"Content-Length: 5\r\n", False)),
        (["Transfer-Encoding: chunked"], 0, (b"Content-Length: 0\r\n", False)),
        (["Transfer-Encoding: Chunked"], None, (b"Transfer-Encoding: chunked\r\n", True)),
        (
            ["Transfer-Encoding: chunked", "Expect: 100-continue"],
            5,
            (b"Transfer-Encoding: chunked\r\n", True),
        ),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_framing(lines: list[str], whole: int | None, framing: Any, method: str) -> None:
    """A length stays, chunks get one if all of them are there (R9)."""
    assert framing_line(request(*lines, line=f"{method} / HTTP/1.1"), whole) == framing


# --- responses ---------------------------------------------------------------------------------


def response(*lines: str, line: str = "HTTP/1.1 200 OK") -> ResponseHead:
    """A member's response with these field lines."""
    found = read_response_head("\r\n".join([line, *lines, "", ""]).encode("latin-1"), LIMITS)
    assert found is not None
    return found[0]


def start(head: ResponseHead) -> list[str]:
    """Date and Server of a response, where ours would be the DATE above and balanceme."""
    return own_start(head, DATE, b"balanceme").decode().split("\r\n")[:-1]


def passed(head: ResponseHead, rewriting: Rewriting = PLAIN, *, length: bool = True) -> list[str]:
    """The field lines for the client, behind Date and Server."""
    lines = client_lines(head, rewriting, lambda: b"https://zarafa.com", length=length)
    return lines.decode("latin-1").split("\r\n")[:-1]


def test_response_order() -> None:
    """The member's fields keep order, spelling and lines; Set-Cookie moves to the end (P2, P3)."""
    head = response(
        "B: 1",
        "Set-Cookie: a=b",
        "content-type: x",
        "Server: member",
        "A: 2",
        "set-cookie: BALANCEME=x",
        "B: 3",
        "Date: x",
        "X-Bytes: \xe4\t\xff",
        "Via: 1.1 a",
        "Proxy-Authorization: a",
    )
    assert passed(head) == [
        "B: 1",
        "content-type: x",
        "A: 2",
        "B: 3",
        "X-Bytes: \xe4\t\xff",
        "Via: 1.1 a",
        "Proxy-Authorization: a",
        "Set-Cookie: a=b",
        "set-cookie: BALANCEME=x",
    ]
    assert start(head) == ["Date: x", "Server: member"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], [f"Date: {DATE.decode()}", "Server: balanceme"]),
        (["Server: a"], [f"Date: {DATE.decode()}", "Server: a"]),
        (["date: b"], ["Date: b", "Server: balanceme"]),
        (["Server: a", "Date: b"], ["Date: b", "Server: a"]),
        (
            ["Server: a", "Date: b", "Connection: date, server"],
            [f"Date: {DATE.decode()}", "Server: balanceme"],
        ),
    ],
)
def test_date_and_server(lines: list[str], expected: list[str]) -> None:
    """The member's Date and Server count, ours stand in where it has none (P4, H51)."""
    head = response(*lines)
    assert start(head) == expected
    kept = head.block.lines.get(START, b"").decode().split("\r\n")[:-1]
    ours = {f"Date: {DATE.decode()}", "Server: balanceme"}
    assert kept == ([] if ours & set(expected) else expected)  # what is ours isn't kept
    assert passed(head) == []


SUNDAY = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("value", "ours"),
    [
        (SUNDAY, SUNDAY),
        ("Sunday, 06-Nov-94 08:49:37 GMT", SUNDAY),
        ("Sun Nov  6 08:49:37 1994", SUNDAY),
        ("Sun Nov 22 13:15:57 2026", DATE.decode()),
        ("Sunday, 22-Nov-26 13:15:57 GMT", DATE.decode()),
        ("0", "0"),
        ("-1", "-1"),
        ("", ""),
        ("Sun, 6 Nov 1994 08:49:37 GMT", "Sun, 6 Nov 1994 08:49:37 GMT"),
        ("Sunday, 06-Nov-94 08:49:37 CET", "Sunday, 06-Nov-94 08:49:37 CET"),
        ("Sun Xyz  6 08:49:37 1994", "Sun Xyz  6 08:49:37 1994"),
        ("Sun Nov  6 :::::::: 1994", "Sun Nov  6 :::::::: 1994"),
        ("Fri Dec 31 99:99:99 9999", "Fri Dec 31 99:99:99 9999"),
    ],
)
def test_old_dates(value: str, ours: str) -> None:
    """Dates of RFC 850 and asctime are written as today, whatever else stands there stays (P4)."""
    head = response(f"Expires: {value}", f"last-modified: {value}", f"Date: {value}")
    assert passed(head) == [f"Expires: {ours}", f"last-modified: {ours}"]
    assert start(head)[0] == f"Date: {ours}"


@pytest.mark.parametrize(
    "line",
    [
        "Connection: keep-alive",
        "Keep-Alive: timeout=5",
        "Proxy-Authenticate: Basic",
        "Proxy-Connection: close",
        "TE: trailers",
        "Trailer: X",
        "Transfer-Encoding: chunked",
        "Upgrade: h2c",
    ],
)
def test_hop_by_hop_fields_of_a_member(line: str) -> None:
    """What belongs to the member's connection stays there (P5, H40)."""
    assert passed(response("A: b", line)) == ["A: b"]


def test_fields_that_a_member_names_in_connection() -> None:
    """Fields named there go, but for the length and what protects (P5, H14, H40)."""
    head = response(
        "X-A: 1",
        "Connection: x-a, Content-Length",
        "Content-Length: 5",
        "Set-Cookie: a=b",
        "connection: SET-COOKIE",
        "B: c",
    )
    assert passed(head) == ["Content-Length: 5", "B: c", "Set-Cookie: a=b"]
    assert passed(head, length=False) == ["B: c", "Set-Cookie: a=b"]
    assert passed(head, Rewriting((), {}, {}, apache=True)) == ["Content-Length: 5", "B: c"]


def test_length() -> None:
    """Content-Length stays where the body keeps it (P6)."""
    head = response("A: b", "content-length: 5", "C: d")
    for _ in range(2):
        assert passed(head, length=True) == ["A: b", "content-length: 5", "C: d"]
        assert passed(head, length=False) == ["A: b", "C: d"]


REWRITING = Rewriting(
    [Place(b"http://server1", b"", b"")], {"server1": "zarafa.com"}, {"/webaccess": "/"}
)


def test_rewriting() -> None:
    """Addresses in four fields and cookies become ours on any status, nothing else (P10 to P16)."""
    address = "http://server1/a"
    names = ["Location", "content-location", "URI", "Destination"]
    others = [f"Refresh: 0; {address}", f"Link: <{address}>", f"X-Location: {address}"]
    head = response(
        *(f"{name}: {address}" for name in names),
        *others,
        "Set-Cookie: a=b; domain=server1; path=/webaccess/x",
    )
    assert passed(head, REWRITING) == [
        *(f"{name}: https://zarafa.com/a" for name in names),
        *others,
        "Set-Cookie: a=b; domain=zarafa.com; path=/",
    ]


def test_rewritten_lines_are_not_kept() -> None:
    """What one mapping rewrites, or could, isn't kept for the requests of another (P10, P15)."""
    for line in ("Location: http://server1/a", "Set-Cookie: a=b; domain=server1"):
        head = response(line)
        assert passed(head) == [line]
        assert True not in head.block.lines
    head = response("A: b")
    passed(head, REWRITING)
    assert head.block.lines[True] == b"A: b\r\n"


# --- interim responses and upgrades ------------------------------------------------------------


def test_interim_response() -> None:
    """1xx is passed with the member's fields, nothing of ours (P17, H62)."""
    head = response(
        "Link: <a>",
        "Connection: x-a",
        "X-A: 1",
        "Content-Length: 5",
        "link: <b>",
        line="HTTP/1.1 103 Early Hints",
    )
    assert interim_response(head) == b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\nlink: <b>\r\n\r\n"
    bare = response(line="HTTP/1.1 100 Continue")
    assert interim_response(bare) == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_switching_response() -> None:
    """101 has the member's fields, Connection and Upgrade, no Date, Server or cookie (P26)."""
    head = response(
        "Sec-WebSocket-Accept: a",
        "connection: upgrade, X-A",
        "upgrade: WebSocket",
        "X-A: 1",
        line="HTTP/1.1 101 Switching Protocols",
    )
    assert switching_response(head) == (
        b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: a\r\n"
        b"Connection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
    )
