from typing import Any

import pytest

from proxy.core.heads import RequestHead
from proxy.core.http1 import Limits, read_request_head
from proxy.core.own_answers import (
    redirect_to_https,
    unavailable,
    upgrade_protocol,
    without_mapping,
    without_member,
)
from proxy.core.pages import OwnAnswer


def request(line: bytes, *lines: bytes) -> RequestHead:
    """A request with these field lines behind Host."""
    data = b"\r\n".join([line, b"Host: zarafa.com:80", *lines, b"", b""])
    found = read_request_head(data, Limits(999, 999, 99, 9999))
    assert found is not None
    return found[0]


def facts(answer: OwnAnswer | None) -> Any:
    """Status, reason and whether there is a page; None for no answer."""
    return answer and (answer.status, answer.phrase, bool(answer.body))


# --- requests that concern no member -----------------------------------------------------------


@pytest.mark.parametrize(
    "line", [b"CONNECT host:443 HTTP/1.1", b"CONNECT / HTTP/1.1", b"CONNECT http://a/ HTTP/1.1"]
)
def test_connect(line: bytes) -> None:
    """CONNECT is refused whatever its target looks like, and told what is allowed (R18, H27)."""
    answer = without_mapping(request(line))
    assert facts(answer) == (405, "Method Not Allowed", True)
    assert answer is not None
    assert answer.lines.startswith(b"Allow: GET, HEAD, POST, ")


def test_options_of_everything() -> None:
    """OPTIONS of ``*`` is answered with nothing (R17, H27)."""
    assert facts(without_mapping(request(b"OPTIONS * HTTP/1.1"))) == (200, "OK", False)


@pytest.mark.parametrize(
    ("value", "status"),
    [(b"100-continue", None), (b"100-CONTINUE", None), (b"200-ok", 417), (b"100-continue, x", 417)],
)
def test_expectation(value: bytes, status: int | None) -> None:
    """Nothing but 100-continue can be expected (R15, H13)."""
    answer = without_mapping(request(b"POST / HTTP/1.1", b"Expect: " + value))
    assert (answer and answer.status) == status


@pytest.mark.parametrize(
    "line",
    [b"GET / HTTP/1.1", b"GET * HTTP/1.1", b"OPTIONS / HTTP/1.1", b"PROPFIND /x HTTP/1.1"],
)
def test_nothing_to_answer(line: bytes) -> None:
    """Everything else is looked up (R17, H30)."""
    assert without_mapping(request(line)) is None
    assert without_member(request(line), apache=False) is None


# --- requests that end here --------------------------------------------------------------------


def test_trace() -> None:
    """TRACE would show a script the cookies that it may not see; Apache forwards it (R17, H29)."""
    head = request(b"TRACE / HTTP/1.1")
    assert facts(without_member(head, apache=False)) == (405, "Method Not Allowed", True)
    assert without_member(head, apache=True) is None


PROXY_ERROR = (400, "Proxy Error", True)


@pytest.mark.parametrize(
    ("method", "lines", "answer"),
    [
        (b"GET", [b"Max-Forwards: 1"], None),
        (b"GET", [b"Max-Forwards: 10"], None),
        (b"OPTIONS", [b"Max-Forwards: 1"], None),
        (b"OPTIONS", [b"Max-Forwards: 0"], (200, "OK", False)),
        (b"GET", [b"Max-Forwards: 0"], PROXY_ERROR),
        (b"GET", [b"Max-Forwards: -1"], PROXY_ERROR),
        (b"GET", [b"Max-Forwards: x"], PROXY_ERROR),
        (b"GET", [b"Max-Forwards: 1_0"], PROXY_ERROR),
        (b"GET", [b"Max-Forwards:"], PROXY_ERROR),
        (b"OPTIONS", [b"Max-Forwards: +1"], PROXY_ERROR),
        (b"GET", [b"Max-Forwards: 99999999999"], PROXY_ERROR),
        (b"GET", [b"Max-Forwards: 0", b"Max-Forwards: 5"], PROXY_ERROR),
        (b"GET", [b"Max-Forwards: x", b"Max-Forwards: 5"], PROXY_ERROR),
    ],
)
def test_max_forwards(method: bytes, lines: list[bytes], answer: Any) -> None:
    """With nothing left a request ends here, OPTIONS with 200; it is one number (R16, H29)."""
    head = request(method + b" / HTTP/1.1", *lines)
    answers = [without_member(head, apache=apache) for apache in (False, True)]
    assert [facts(given) for given in answers] == [answer, answer]


def test_unavailable() -> None:
    """503 tells when to come back, but for Apache, which doesn't (B17, F14, D25)."""
    assert facts(unavailable(apache=False)) == (503, "Service Unavailable", True)
    assert unavailable(apache=False).lines == b"Retry-After: 10\r\n"
    assert unavailable(apache=True).lines == b""


# --- redirects to https ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "port", "status", "location"),
    [
        (b"GET /a?b=%zz HTTP/1.1", 443, 301, b"https://zarafa.com/a?b=%zz"),
        (b"HEAD / HTTP/1.1", 443, 301, b"https://zarafa.com/"),
        (b"POST /a HTTP/1.1", 443, 308, b"https://zarafa.com/a"),
        (b"PROPFIND /a HTTP/1.1", 8443, 308, b"https://zarafa.com:8443/a"),
        (b"GET //evil.example/../x HTTP/1.1", 443, 301, b"https://zarafa.com/x"),
        (b"GET http://[::1]:80/a HTTP/1.1", 443, 301, b"https://[::1]/a"),
    ],
)
def test_redirect_to_https(line: bytes, port: int, status: int, location: bytes) -> None:
    """The address is the same with https, its path cleaned up; a body isn't lost (R23)."""
    answer = redirect_to_https(request(line), "mail.zarafa.com", port)
    assert facts(answer)[::2] == (status, False)
    assert answer.lines == b"Location: " + location + b"\r\n"


def test_redirect_without_host() -> None:
    """Who names no host is sent to our own name."""
    found = read_request_head(b"GET / HTTP/1.0\r\n\r\n", Limits(99, 99, 9, 999))
    assert found is not None
    answer = redirect_to_https(found[0], "mail.zarafa.com", 443)
    assert answer.lines == b"Location: https://mail.zarafa.com/\r\n"


@pytest.mark.parametrize(("target", "status"), [(b"/../a", 400), (b"/a%2Fb", 404), (b"*", 400)])
def test_no_redirect_for_a_malformed_target(target: bytes, status: int) -> None:
    """What is no target is refused as it would be behind https (R23, L12)."""
    head = request(b"GET " + target + b" HTTP/1.1")
    assert redirect_to_https(head, "zarafa.com", 443).status == status


# --- upgrades ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "allowed", "protocol"),
    [
        ([b"Connection: upgrade", b"Upgrade: websocket"], {b"websocket"}, b"websocket"),
        ([b"Connection: keep-alive, Upgrade", b"Upgrade: WebSocket"], {b"websocket"}, b"WebSocket"),
        ([b"Connection: upgrade", b"Upgrade: x"], {b"any"}, b"x"),
        ([b"Connection: upgrade", b"Upgrade: websocket"], set(), None),
        ([b"Connection: upgrade", b"Upgrade: other"], {b"websocket"}, None),
        ([b"Upgrade: websocket"], {b"websocket"}, None),
        ([b"Connection: upgrade"], {b"websocket", b"any"}, None),
        ([b"Connection: upgrade", b"Upgrade:"], {b"any"}, None),
        ([b"Connection: upgrade", b"Upgrade: h2c"], {b"h2c", b"any"}, None),
        ([b"Connection: upgrade", b"Upgrade: websocket, H2C"], {b"any"}, None),
        ([b"Connection: upgrade", b"Upgrade: TLS/1.2"], {b"any"}, None),
    ],
)
def test_upgrade(lines: list[bytes], allowed: set[bytes], protocol: bytes | None) -> None:
    """Only to what is allowed, and never to h2c or TLS (R22, H82)."""
    assert upgrade_protocol(request(b"GET / HTTP/1.1", *lines), allowed) == protocol


def test_no_upgrade_in_http_1_0() -> None:
    """HTTP/1.0 can't be upgraded (H82)."""
    head = request(b"GET / HTTP/1.0", b"Connection: upgrade", b"Upgrade: websocket")
    assert upgrade_protocol(head, {b"websocket"}) is None
