"""Before the race: whether a proxy does the work that is measured.

A few single requests to each peer, over TLS and plain. What is compared must obey the cookie, set
it again, forward where the client is and log what it did.
"""

import re
import socket
import ssl
import time
from contextlib import closing
from pathlib import Path

from benchmarks.clients import tls_context
from benchmarks.peers import Setup
from benchmarks.processes import BenchmarkError
from benchmarks.scenarios import ROUTES, request, session

_SECONDS = 10.0
_FLUSH_SECONDS = 3.0
_LOG_LINE = re.compile(
    rb'127\.0\.0\.1 - - \[[^]]+\] "GET /echo HTTP/1\.1" 200 \d+ "https://[^"]+" "Mozilla[^"]+"'
)
_FORWARDED = (b"x-forwarded-for:", b"x-forwarded-host:", b"x-forwarded-server:")


def check_work(setup: Setup) -> None:
    """Raise with what the peer leaves undone."""
    for port in (setup.tls_port, setup.plain_port):
        for route in ROUTES:
            answer = _ask(port, route, tls=port == setup.tls_port)
            _expect(answer, rb"^HTTP/1\.1 200 ", "status 200")
            _expect(answer, rb"\r\nx-member: " + route.encode(), f"an answer from {route}")
            _expect(answer, _cookie(route.encode()), f"a renewed cookie for {route}")
            for field in _FORWARDED:
                _expect(answer, rb"\r\n" + field, f"{field.decode()} at the member")
        answer = _ask(port, None, tls=port == setup.tls_port)
        _expect(answer, _cookie(rb"server[12]"), "a cookie for a new session")
    _expect_log_lines(setup.access_log, 2 * (len(ROUTES) + 1))


def _cookie(route: bytes) -> bytes:
    return rb"\r\nset-cookie: balanceme=balancer\." + route + rb"[^\r]*domain=zarafa\.com"


def _ask(port: int, route: str | None, *, tls: bool) -> bytes:
    """One request on a connection of its own; the whole answer."""
    cookie = None if route is None else session(route)
    text = request(path=b"/echo", cookie=cookie, connection=b"close")
    answer = b""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=_SECONDS)) as raw:
        connection = tls_context().wrap_socket(raw) if tls else raw
        with closing(connection):
            connection.sendall(text)
            while data := connection.recv(65536):
                answer += data
            if isinstance(connection, ssl.SSLSocket) and connection.version() != "TLSv1.3":
                raise BenchmarkError("it does not speak TLS 1.3")
    return answer


def _expect(answer: bytes, pattern: bytes, what: str) -> None:
    if not re.search(pattern, answer, re.IGNORECASE):
        raise BenchmarkError(f"expected {what}, got {answer.decode(errors='replace')}")


def _expect_log_lines(log: Path, count: int) -> None:
    """Lines in the combined format; a peer may write them in batches."""
    text = b""
    end = time.monotonic() + _FLUSH_SECONDS
    while time.monotonic() < end:
        text = log.read_bytes() if log.exists() else b""
        if len(_LOG_LINE.findall(text)) >= count:
            return
        time.sleep(0.1)
    raise BenchmarkError(f"expected {count} lines in its access log, got {text.decode()}")


def wait_for_log(log: Path, count: int) -> int:
    """How many lines the access log has, waiting for the last batch until it has so many."""
    end = time.monotonic() + _FLUSH_SECONDS
    while (lines := _line_count(log)) < count and time.monotonic() < end:
        time.sleep(0.1)
    return lines


def _line_count(log: Path) -> int:
    with log.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
