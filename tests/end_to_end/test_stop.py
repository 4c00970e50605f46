"""Stopping: what was asked before is answered, nobody waits in vain, and nothing is left behind."""

import os
import signal
import socket
import time

import pytest

from tests.end_to_end.conftest import (
    PATIENCE,
    Dial,
    Members,
    connect,
    request,
    seen_by,
    settings_of,
    until,
)
from tests.end_to_end.program import Program, Programs
from tests.end_to_end.raw_client import End
from tests.end_to_end.recording_member import Do, answer

pytestmark = pytest.mark.slow

PING = "/Microsoft-Server-ActiveSync?Cmd=Ping"
# Every request of a device counts as one that waits for news.
AT_ONCE = "from proxy.dataplane import exchange\nexchange.LONG_POLL = 0.0"
PINGS = 8


def nothing_is_left(program: Program) -> None:
    """No process, no file and no port of it."""
    until(lambda: not program.all, "all processes are gone")
    assert not program.socket.exists()
    assert not (program.folder / "balanceme.pid").exists()
    for frontend in range(len(program.settings["frontends"])):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(program.address(frontend))
            sock.listen()


def test_received_is_answered(install: Programs, members: Members, dial: Dial) -> None:
    """A request that was there before the stop is answered: on kept connections and on new ones."""
    member = members("server1")
    program = install(member, workers=2, pid_file="balanceme.pid", stop_timeout="10s")
    assert isinstance(program, Program)
    kept = [dial(program) for _ in range(8)]
    for client in kept:
        client.send(request("/"))
        assert client.read_response(b"GET").body == b"server1"
    clients = kept + [dial(program) for _ in range(8)]
    for client in clients:
        client.send(request("/last"))
    program.signal(signal.SIGTERM)
    for client in clients:
        assert client.read_response(b"GET").body == b"server1"
        client.close()
    assert program.wait() == 0
    nothing_is_left(program)
    assert len(seen_by(member, path=b"/last")) == 16


def test_long_exchanges_are_cut(install: Programs, members: Members, dial: Dial) -> None:
    """A download that outlasts stop_timeout is cut, so that its client can tell."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
    member = members("server1", {b"/a": [head, Do.WAIT_CLOSE], b"/b": [chunked, Do.WAIT_CLOSE]})
    program = install(member, stop_timeout="300ms")
    clients = [dial(program), dial(program)]
    for client, path in zip(clients, ("/a", "/b"), strict=True):
        client.send(request(path))
        assert client.wait_interim()
    program.signal(signal.SIGTERM)
    for client in clients:
        response = client.read_response(b"GET")
        assert (response.body, response.end) == (b"half", End.TRUNCATED)
    assert program.wait() == 0
    until(lambda: all(seen.aborted for seen in seen_by(member)), "the member is left")


def test_pings_are_sent_away(install: Programs, members: Members, dial: Dial) -> None:
    """Waiting Pings end with a 503 and when to come again, spread over stop_timeout (D41)."""
    member = members("server1", {b"*": [Do.READ_BODY, Do.WAIT_CLOSE]})
    settings = install.plain(settings_of(member), stop_timeout="2s")
    program = install.make(settings, AT_ONCE).start()
    clients = [dial(program) for _ in range(PINGS)]
    for client in clients:
        client.send(request(PING, method="POST", body=b"news?"))
    until(lambda: len(seen_by(member)) == PINGS, "they wait")
    program.signal(signal.SIGTERM)
    ended: dict[int, float] = {}
    deadline = time.monotonic() + PATIENCE
    while len(ended) < PINGS and time.monotonic() < deadline:
        for number, client in enumerate(clients):
            if number not in ended and client.wait_closed(0.001):
                ended[number] = time.monotonic()
    for client in clients:
        response = client.read_response(b"POST")
        assert response.status_line == b"HTTP/1.1 503 Service Unavailable"
        assert int(response.value(b"retry-after") or b"0") > 0
        assert response.value(b"connection") == b"close"
    assert max(ended.values()) - min(ended.values()) > 0.5
    assert program.wait() == 0


@pytest.mark.parametrize("how", ["signal", "command"])
def test_at_once(how: str, install: Programs, members: Members, dial: Dial) -> None:
    """A second signal, or stop --now, ends it at once with status 1, and leaves nothing behind."""
    member = members("server1", {b"*": [Do.READ_BODY, Do.WAIT_CLOSE]})
    settings = install.plain(
        settings_of(member), workers=2, stop_timeout="1h", pid_file="balanceme.pid"
    )
    program = install.make(settings).start()
    client = dial(program)
    client.send(request("/"))
    until(lambda: seen_by(member), "the request arrives")
    if how == "signal":
        program.signal(signal.SIGINT)
        program.wait_said("stopping: exchanges under way may take 3600 s")
        program.signal(signal.SIGINT)
    else:
        ended = program.balanceme("stop", "--now")
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "stopped\n", "")
    assert program.ended() == 1
    nothing_is_left(program)
    assert client.wait_closed(PATIENCE)
    assert "stopped at once" in program.said()


def test_stop_command(install: Programs, members: Members, dial: Dial) -> None:
    """``balanceme stop`` comes back when all has ended, and what was asked is answered."""
    member = members("server1", {b"/slow": [Do.READ_BODY, 0.5, answer(b"slow")]})
    settings = install.plain(settings_of(member), stop_timeout="10s", pid_file="balanceme.pid")
    program = install.make(settings).start()
    client = dial(program)
    client.send(request("/slow"))
    until(lambda: seen_by(member), "the request arrives")
    ended = program.balanceme("stop")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "stopped\n", "")
    nothing_is_left(program)
    assert client.read_response(b"GET").body == b"slow"
    assert program.ended() == 0


def health(program: Program, dial: Dial, frontend: int) -> bytes:
    """What those before us are told at a frontend."""
    client = dial(program, frontend=frontend)
    client.send(request("/health", "Connection: close"))
    status = client.read_response(b"GET").status_line[9:12]
    client.close()
    return status


def test_leave_before_stop(install: Programs, members: Members, dial: Dial) -> None:
    """Before the stop all is served as ever, but for health_path, on every frontend."""
    mapping = {"path": "/", "balancer": "cluster"}
    frontends = [
        install.frontend(mapping),
        install.frontend(mapping, tls=False),
        {**install.frontend(tls=False), "redirect_to_https": True},
    ]
    program = install.make(
        {
            "workers": 2,
            "health_path": "/health",
            "leave_before_stop": "2s",
            "frontends": frontends,
            "balancers": {"cluster": {"members": [settings_of(members("server1"))]}},
        }
    ).start()
    kept = dial(program)
    for frontend in range(3):
        assert health(program, dial, frontend) == b"200"
    program.signal(signal.SIGTERM)
    program.wait_said("leaving: health_path says 503 for 2 s, then we stop")
    until(lambda: health(program, dial, 0) == b"503", "it leaves")
    assert program.status()["phase"] == "leaving"
    for frontend in range(3):
        until(lambda at=frontend: health(program, dial, at) == b"503", "they all do")  # type: ignore[misc]
    kept.send(request("/"))
    assert kept.read_response(b"GET").body == b"server1"
    connect(program).close()
    assert "stopping" not in program.said()
    assert program.ended() == 0
    assert "stopping" in program.said()


def test_stop_of_workers_that_hang(install: Programs, members: Members) -> None:
    """A worker that doesn't stop in time is killed, and the end is a good one."""
    settings = install.plain(settings_of(members("server1")), stop_timeout="100ms")
    first = "from proxy.control import workers\nworkers.GRACE = 0.1\nworkers.WATCH = 0.1"
    program = install.make(settings, first).start()
    os.kill(program.worker, signal.SIGSTOP)
    program.signal(signal.SIGTERM)
    assert program.ended() == 0
    assert "is stopping for too long; it is killed" in program.said()
