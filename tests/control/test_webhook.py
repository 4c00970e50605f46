"""Posting an object to real servers on the loopback, plain and with TLS."""

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from proxy.control import webhook
from proxy.control.webhook import post

BODY = b'{"event": "member_down"}'


class Posted(NamedTuple):
    """A request that a server has seen."""

    line: str
    fields: dict[str, str]
    body: bytes


class Monitor(ThreadingHTTPServer):
    """A server that takes objects; the last part of the path is the status it answers."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.seen: list[Posted] = []
        self.at = f"127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """A client that refuses a certificate breaks its connection."""


class _Handler(BaseHTTPRequestHandler):
    server: Monitor

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fields = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append(Posted(self.requestline, fields, body))
        status = int(self.path.partition("?")[0].rpartition("/")[2])
        if status == 0:
            self.wfile.write(b"nonsense\r\n\r\n")
            return
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "/200")
        self.end_headers()
        self.wfile.write(b"" if status < 400 else b"no such\x1b room\nmore")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serving(monitor: Monitor) -> Iterator[Monitor]:
    """A server that runs in a thread."""
    thread = threading.Thread(target=monitor.serve_forever, args=[0.01])
    thread.start()
    with monitor:
        yield monitor
        monitor.shutdown()
    thread.join()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the environment stands between."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    """One that speaks plain HTTP."""
    yield from serving(Monitor())


@pytest.fixture
def authority() -> trustme.CA:
    """Who issues the certificate of ``secure``."""
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[Monitor]:
    """One that speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    yield from serving(Monitor(context))


def test_posted(monitor: Monitor) -> None:
    """The object arrives as it is, and any 2xx takes it."""
    assert post(f"http://{monitor.at}/events/204?room=1", BODY, 60) is None
    [seen] = monitor.seen
    assert seen.line == "POST /events/204?room=1 HTTP/1.1"
    assert seen.body == BODY
    assert seen.fields["content-type"] == "application/json"
    assert seen.fields["host"] == monitor.at
    assert "authorization" not in seen.fields


@pytest.mark.parametrize(
    ("userinfo", "told"),
    [
        ("user:secret", "Basic dXNlcjpzZWNyZXQ="),
        ("user", "Basic dXNlcjo="),
        ("us%65r:%C3%BC%40", "Basic dXNlcjrDvEA="),
    ],
)
def test_userinfo(monitor: Monitor, userinfo: str, told: str) -> None:
    """A user in the URL is sent as Basic authentication, and no part of the request's address."""
    assert post(f"http://{userinfo}@{monitor.at}/200", BODY, 60) is None
    [seen] = monitor.seen
    assert seen.fields["authorization"] == told
    assert seen.fields["host"] == monitor.at


def test_refused(monitor: Monitor) -> None:
    """Another status is a reason, with what the server says to it."""
    found = post(f"http://{monitor.at}/404", BODY, 60)
    assert found == "it answers 404 Not Found: no such\x1b room"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirected(monitor: Monitor, status: int) -> None:
    """A redirect is no success: what follows it would not be the POST."""
    found = post(f"http://{monitor.at}/{status}", BODY, 60)
    assert found is not None
    assert found.endswith("and redirects are not followed")
    assert len(monitor.seen) == 1


def test_nonsense(monitor: Monitor) -> None:
    """What isn't HTTP is a reason."""
    assert post(f"http://{monitor.at}/0", BODY, 60) == "it does not answer: nonsense\r\n"


def test_unreachable() -> None:
    """Nobody there, no such port, no address: each is a reason, without the password."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        found = post(f"http://user:secret@127.0.0.1:{held.getsockname()[1]}/", BODY, 60)
    assert found == "it can't be reached: [Errno 111] Connection refused"
    for url in ("http://user:secret@a:b/", "http://user:secret@[::/", "http://user:secret@/"):
        found = post(url, BODY, 60)
        assert found is not None
        assert found.startswith("it ")
        assert "secret" not in found


def test_no_answer() -> None:
    """Who takes the connection and says nothing is waited for so long."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = post(f"http://127.0.0.1:{silent.getsockname()[1]}/", BODY, 0.05)
    assert found == "it does not answer: timed out"


def test_tls(
    secure: Monitor, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that the environment's authorities have issued is trusted."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert post(f"https://{secure.at}/200", BODY, 60) is None
    assert secure.seen[0].body == BODY
    found = post(f"https://localhost:{secure.server_port}/200", BODY, 60)
    assert found is not None
    assert "certificate verify failed" in found
    assert len(secure.seen) == 1


def test_untrusted(secure: Monitor) -> None:
    """Another certificate is not, and nothing is told to its holder."""
    found = post(f"https://user:secret@{secure.at}/200", BODY, 60)
    assert found is not None
    assert found.startswith("it can't be reached: [SSL: CERTIFICATE_VERIFY_FAILED]")
    assert secure.seen == []


def test_proxy_of_the_environment(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that the environment names is asked."""
    monkeypatch.setenv("http_proxy", f"http://{monitor.at}")
    assert post("http://monitor.example/200", BODY, 60) is None
    assert monitor.seen[0].line == "POST http://monitor.example/200 HTTP/1.1"


@pytest.mark.slow
def test_program(monitor: Monitor) -> None:
    """As a program: the object on standard input, the URL in the environment, a status in the end.

    It needs nothing but Python's own library.
    """
    command = [sys.executable, "-I", "-S", webhook.__file__]
    environ = {**os.environ, "BALANCEME_TIMEOUT": "60"}
    for status, expected in ((200, (0, b"")), (500, (1, b"it answers 500 "))):
        environ["BALANCEME_URL"] = f"http://{monitor.at}/{status}"
        ended = subprocess.run(command, input=BODY, env=environ, capture_output=True, check=False)
        assert ended.returncode == expected[0]
        assert ended.stderr.startswith(expected[1])
        assert ended.stdout == b""
        assert monitor.seen[-1].body == BODY
