"""Hooks: who wants to know is told, and whoever hangs over it delays nothing else."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from proxy.admin import client as admin
from tests.end_to_end.conftest import (
    HOST,
    NAME,
    Authority,
    Dial,
    Launcher,
    Members,
    is_served,
    until,
)
from tests.end_to_end.processes import is_gone, is_replaced, serving

pytestmark = pytest.mark.slow


class Monitor(HTTPServer):
    """Who takes the objects that are posted."""

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Handler)
        self.seen: list[dict[str, Any]] = []
        self.url = f"http://{HOST}:{self.server_port}/events"


class _Handler(BaseHTTPRequestHandler):
    server: Monitor

    def do_POST(self) -> None:
        self.server.seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Monitor]:
    """One that runs."""
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Monitor() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
    thread.join()


def issue(authority: Authority, folder: Path, days: int) -> Path:
    """A certificate that ends in so many days, with its key."""
    path = folder / "frontend.pem"
    path.touch(mode=0o600)
    ends = datetime.now(UTC) + timedelta(days=days)
    issued = authority.ca.issue_cert(NAME, not_after=ends)
    issued.private_key_and_cert_chain_pem.write_to_path(str(path))
    return path


def told(folder: Path) -> list[dict[str, Any]]:
    """What the command hook has written down."""
    file = folder / "told"
    text = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in text.splitlines()] if text.endswith("\n") else []


def tells(folder: Path) -> dict[str, Any]:
    """A hook that writes down what it is told."""
    script = f'line=$(cat); echo "$line" >>{folder / "told"}'
    return {"on": ["certificate_ends"], "command": ["sh", "-c", script]}


def hangs(folder: Path) -> dict[str, Any]:
    """A hook that does nothing but hang, whatever it is told to do."""
    script = f"trap '' TERM; echo $$ >{folder / 'pid'}; while :; do sleep 600; done"
    return {"on": ["certificate_ends"], "command": ["sh", "-c", script], "timeout": "1h"}


def hanging(folder: Path) -> int:
    """The process id of the hook that hangs, once it does."""
    file = folder / "pid"
    until(lambda: file.exists() and file.read_text().endswith("\n"), "it hangs")
    return int(file.read_text())


def pipes(pid: int) -> set[str]:
    """The pipes that a process has open."""
    links = [each.readlink().name for each in Path(f"/proc/{pid}/fd").iterdir()]
    return {link for link in links if link.startswith("pipe:")}


def test_certificate_ends(
    serve: Launcher, members: Members, authority: Authority, monitor: Monitor, tmp_path: Path
) -> None:
    """A certificate that ends in 5 days is told to a command and to a URL, and once only."""
    certificate = issue(authority, tmp_path, days=5)
    proxy = serve(
        members("server1"),
        frontend={"tls": {"certificate": str(certificate)}},
        hooks=[tells(tmp_path), {"on": ["certificate_ends"], "url": monitor.url}],
    )
    until(lambda: told(tmp_path) and monitor.seen, "both are told")
    [found] = told(tmp_path)
    assert monitor.seen == [found]
    assert found["event"] == "certificate_ends"
    assert found["certificate"] == str(certificate)
    assert found["text"].startswith(f"certificate {certificate} ends in 5 days, ")
    assert proxy.stderr().count(f"WARNING {found['text']}") == 1

    # a reload tells another end, to who is there then; the same end is told to nobody
    proxy.settings["hooks"] = [tells(tmp_path)]
    proxy.reload()
    issue(authority, tmp_path, days=6)
    proxy.reload()
    until(lambda: len(told(tmp_path)) == 2, "it is told")
    assert " ends in 6 days, " in told(tmp_path)[1]["text"]
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == 0
    assert len(monitor.seen) == 1


def test_hook_that_hangs(
    serve: Launcher, members: Members, authority: Authority, dial: Dial, tmp_path: Path
) -> None:
    """A hook that hangs delays neither traffic, nor a new worker, nor another hook, nor a stop."""
    certificate = issue(authority, tmp_path, days=5)
    proxy = serve(
        members("server1"),
        frontend={"tls": {"certificate": str(certificate)}},
        hooks=[hangs(tmp_path), tells(tmp_path)],
    )
    hook = hanging(tmp_path)
    until(lambda: told(tmp_path), "the other one is told")
    assert is_served(dial(proxy))

    [worker] = serving(proxy)
    os.kill(worker, signal.SIGKILL)
    until(lambda: is_replaced(proxy, worker, 1), "another worker")
    assert is_served(dial(proxy))
    assert not is_gone(hook)
    assert pipes(hook)
    assert not pipes(hook) & pipes(serving(proxy)[0])

    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == 0
    assert is_gone(hook)
    assert "one event is not told, since balanceme stops" in proxy.stderr()


def test_hook_that_hangs_in_a_stop_at_once(
    serve: Launcher, members: Members, authority: Authority, tmp_path: Path
) -> None:
    """It delays no stop at once either, which leaves nothing behind."""
    certificate = issue(authority, tmp_path, days=5)
    proxy = serve(
        members("server1"),
        frontend={"tls": {"certificate": str(certificate)}},
        hooks=[hangs(tmp_path)],
        pid_file=str(tmp_path / "balanceme.pid"),
    )
    hook = hanging(tmp_path)
    proxy.signal(0)  # the end is no surprise from here on
    admin.stop(proxy.socket, at_once=True)
    assert proxy.wait() == 1
    assert is_gone(hook)
    assert not proxy.socket.exists()
    assert not (tmp_path / "balanceme.pid").exists()
