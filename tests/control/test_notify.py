"""What systemd hears, over a socket like its own."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy.control.notify import Notify

Said = Callable[[Notify], None]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end, on a path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def environ(manager: socket.socket, **others: str) -> dict[str, str]:
    """What systemd puts into our environment."""
    return {"NOTIFY_SOCKET": manager.getsockname(), **others}


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (lambda notify: notify.ready("2 workers serve"), b"READY=1\nSTATUS=2 workers serve"),
        (lambda notify: notify.stopping("30 s left"), b"STOPPING=1\nSTATUS=30 s left"),
        (lambda notify: notify.status("grün"), "STATUS=grün".encode()),
        (lambda notify: notify.status("a\nMAINPID=1\r\nb"), b"STATUS=a MAINPID=1 b"),
        (lambda notify: notify.status("\ud800"), b"STATUS=?"),
        (lambda notify: notify.watchdog(), b"WATCHDOG=1"),
        (lambda notify: notify.main_pid(4711), b"MAINPID=4711"),
    ],
)
def test_messages(manager: socket.socket, said: Said, heard: bytes) -> None:
    """Each message is one datagram of assignments, and no text can begin another one."""
    said(Notify(environ(manager)))
    assert manager.recv(1000) == heard


def test_nothing_after_another_one(manager: socket.socket) -> None:
    """Who has named another process for the service says nothing more of it."""
    notify = Notify(environ(manager))
    notify.main_pid(4711)
    assert manager.recv(1000) == b"MAINPID=4711"
    notify.stopping("the end")
    notify.watchdog()
    with pytest.raises(BlockingIOError):
        manager.recv(1000)


def test_reloading_tells_the_time(manager: socket.socket) -> None:
    """A reload's begin is told on the monotonic clock, in microseconds."""
    before = time.monotonic_ns() // 1000
    Notify(environ(manager)).reloading()
    word, told = manager.recv(1000).decode().split("\n")
    name, _, value = told.partition("=")
    assert (word, name) == ("RELOADING=1", "MONOTONIC_USEC")
    assert before <= int(value) <= time.monotonic_ns() // 1000


def test_abstract_address() -> None:
    """An address that begins with @ is no file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("")  # a free abstract address
        name = sock.getsockname().decode()
        Notify({"NOTIFY_SOCKET": name.replace("\0", "@")}).watchdog()
        assert sock.recv(100) == b"WATCHDOG=1"


def test_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    """Started by hand, nothing is sent and nothing is said about it."""
    notify = Notify({})
    notify.ready("")
    notify.watchdog()
    assert notify.watchdog_interval is None
    assert not caplog.records


def test_manager_that_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What can't be sent is lost, and said once."""
    notify = Notify({"NOTIFY_SOCKET": str(tmp_path / "none")})
    notify.ready("")
    notify.watchdog()
    [record] = caplog.records
    assert "READY=1 could not be sent to NOTIFY_SOCKET: [Errno 2]" in record.getMessage()


@pytest.mark.parametrize("name", ["vsock:2:1234", "/a\0b", "/" + "long" * 100])
def test_unusable_address(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """An address of another kind, or none at all, is no crash."""
    Notify({"NOTIFY_SOCKET": name}).ready("")
    assert len(caplog.records) == 1


def test_manager_that_does_not_read(
    manager: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    """A full queue isn't waited for."""
    notify = Notify(environ(manager))
    for _ in range(10_000):
        notify.status("x" * 1000)
        if caplog.records:
            break
    [record] = caplog.records
    assert "[Errno 11]" in record.getMessage()


@pytest.mark.parametrize("process", [None, str(os.getpid())], ids=["any", "ours"])
def test_watchdog_interval(process: str | None) -> None:
    """Signs of life are due at half of the limit, whether it names our process or none."""
    given = {"WATCHDOG_USEC": "30000000"} | ({"WATCHDOG_PID": process} if process else {})
    assert Notify(given).watchdog_interval == 15.0


def test_watchdog_of_another_process() -> None:
    """A limit that names another process is neither ours nor our children's."""
    given = {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}
    assert Notify(given).watchdog_interval is None
    assert given == {}


@pytest.mark.parametrize("limit", ["", "0", "-1", "soon", "\u0661"])
def test_watchdog_without_a_limit(limit: str, caplog: pytest.LogCaptureFixture) -> None:
    """A limit that is no number is told, and nobody is sent signs of life."""
    assert Notify({"WATCHDOG_USEC": limit}).watchdog_interval is None
    assert "WATCHDOG_USEC" in caplog.text


def test_new_program_of_an_upgrade(manager: socket.socket) -> None:
    """It finds the socket and the limit, and no process that would be another one."""
    given = environ(manager, WATCHDOG_USEC="1000000", WATCHDOG_PID=str(os.getpid()))
    Notify(given)
    assert given == environ(manager, WATCHDOG_USEC="1000000")
    assert Notify(given).watchdog_interval == 0.5
