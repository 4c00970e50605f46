import asyncio
import errno
import fcntl
import os
import re
import resource
import select
import socket
import stat
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.control import log_files
from proxy.control.log_files import MOST_WAITING, RETRY, LineSink, open_log
from proxy.core.errors import ConfigError

NOBODY = 65534


def numbered(first: int, count: int, length: int = 100) -> bytes:
    """Lines that know their number and their length."""
    return b"".join(b"%0*d\n" % (length - 1, first + number) for number in range(count))


def numbers(data: bytes) -> list[int]:
    """The numbers of such lines, all of them whole."""
    lines = data.splitlines(keepends=True)
    assert all(re.fullmatch(rb"\d{99}\n", line) for line in lines)
    return [int(line) for line in lines]


class Told(list[str]):
    """What a sink said."""

    def __call__(self, text: str) -> None:
        """It says something."""
        self.append(text)


@pytest.fixture
def told() -> Told:
    """What the sinks of a test said of their trouble."""
    return Told()


@pytest.fixture
def make_sink(told: Told) -> Iterator[Callable[[int], LineSink]]:
    """Makes sinks, which are closed in the end."""
    sinks: list[LineSink] = []

    def make(fd: int) -> LineSink:
        sink = LineSink(fd, "access log")
        sink.on_trouble = sink.on_recovery = told
        sinks.append(sink)
        return sink

    yield make
    for sink in sinks:
        sink.on_trouble = list[str]().append
        sink.close()


MakeSink = Callable[[int], LineSink]


class Pipe:
    """A pipe whose reading end never waits."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)

    def read(self) -> bytes:
        """All that is in it."""
        data = b""
        while True:
            try:
                part = os.read(self.reader, MOST_WAITING)
            except BlockingIOError:
                return data
            if not part:
                return data
            data += part

    def close_reader(self) -> None:
        """Nobody reads any more."""
        os.close(self.reader)
        self.reader = -1

    def close(self) -> None:
        """Both ends."""
        for fd in (self.reader, self.writer):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe that stands for a standard stream."""
    made = Pipe()
    yield made
    made.close()


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A terminal: the end that shows, and the one that is written to."""
    shown, written = os.openpty()
    os.set_blocking(shown, False)
    yield shown, written
    os.close(shown)
    os.close(written)


class Daemon:
    """A syslog daemon that keeps what it gets."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """It listens."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(self.path))

    def stop(self) -> None:
        """It is gone, and so is its socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self.path.unlink()

    def take(self) -> list[bytes]:
        """The datagrams that came."""
        assert self._socket is not None
        taken: list[bytes] = []
        while True:
            try:
                taken.append(self._socket.recv(65536))
            except BlockingIOError:
                return taken


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A syslog daemon that runs."""
    made = Daemon(tmp_path / "log")
    monkeypatch.setattr(log_files, "SYSLOG", str(made.path))
    made.start()
    yield made
    made.stop()


# --- opening -------------------------------------------------------------------------------------


def test_opens_a_file_to_append(tmp_path: Path) -> None:
    """A new file isn't for everybody, what is there stays, and no other program inherits it."""
    path = tmp_path / "access.log"
    before = os.umask(0o022)
    try:
        for line in (b"one\n", b"two\n"):
            fd = open_log(str(path), 1, "access_log")
            os.write(fd, line)
            assert not os.get_inheritable(fd)
            os.close(fd)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"one\ntwo\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def mistake(path: str, standard: int = 1, key: str = "access_log") -> str:
    """Why a log can't be opened."""
    with pytest.raises(ConfigError) as caught:
        open_log(path, standard, key)
    (found,) = caught.value.mistakes
    assert found.path == (key, "path")
    return found.message


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone/a.log", "No such file or directory; create its folder, or name another file"),
        (".", "Is a directory; name a file in it"),
        ("file/a.log", "Not a directory; a part of its path is no folder; name another file"),
        ("fifo", "No such device or address; it is a pipe without a reader, "),
        ("a" * 300, "File name too long; name another file"),
    ],
)
def test_file_that_cant_be_opened(name: str, reason: str, tmp_path: Path) -> None:
    """The message names the file, the reason and what to do; a pipe isn't waited for."""
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    path = str(tmp_path / name)
    assert mistake(path).startswith(f"{path} can't be written: {reason}")


def test_file_that_this_user_may_not_write(tmp_path: Path) -> None:
    """Missing rights are told as that."""
    folder = tmp_path / "others"
    folder.mkdir(mode=0o500)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        message = mistake(str(folder / "a.log"))
    finally:
        os.seteuid(user)
    assert message.endswith(": Permission denied; let this user write there, or name another file")


@pytest.mark.parametrize(("standard", "name"), [(1, "output"), (2, "error")])
def test_standard_stream_that_is_closed(
    standard: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that was started without the stream says so."""
    monkeypatch.setattr(
        log_files, "_standard_stream", lambda _, inner=log_files._standard_stream: inner(1 << 20)
    )
    assert mistake("-", standard, "log") == (
        f"standard {name} can't be written: Bad file descriptor;"
        " start with an open one, or name a file"
    )


def test_no_syslog_daemon(daemon: Daemon) -> None:
    """The message says whom we looked for."""
    daemon.stop()
    assert mistake("syslog") == (
        f"{daemon.path} can't be reached: No such file or directory;"
        " start a syslog daemon, or name a file"
    )


def test_pipe_of_a_standard_stream_stays_as_it_is(pipe: Pipe) -> None:
    """We don't wait for its reader, but whoever else writes there still does."""
    fd = open_log("-", pipe.writer, "log")
    assert not os.get_blocking(fd)
    assert not os.get_inheritable(fd)
    assert os.get_blocking(pipe.writer)
    assert fcntl.fcntl(pipe.writer, fcntl.F_GETPIPE_SZ) == MOST_WAITING
    os.close(fd)


def test_terminal_of_a_standard_stream_stays_as_it_is(terminal: tuple[int, int]) -> None:
    """The same for the terminal of a shell."""
    fd = open_log("-", terminal[1], "log")
    assert not os.get_blocking(fd)
    assert os.get_blocking(terminal[1])
    os.close(fd)


def test_file_as_standard_stream_is_shared(tmp_path: Path) -> None:
    """Who writes to the same file before and after us neither loses nor overwrites anything."""
    with (tmp_path / "all").open("wb", buffering=0) as shell:
        shell.write(b"before\n")
        fd = open_log("-", shell.fileno(), "log")
        os.write(fd, b"ours\n")
        shell.write(b"after\n")
        os.close(fd)
    assert (tmp_path / "all").read_bytes() == b"before\nours\nafter\n"


# --- files ---------------------------------------------------------------------------------------


def test_full_disk_is_said_once(make_sink: MakeSink, told: Told, tmp_path: Path) -> None:
    """Lines are lost, which is said once, and once when it is over, with their number."""
    sink = make_sink(open_log("/dev/full", 1, "access_log"))
    for _ in range(3):
        sink.write(numbered(0, 2))
        sink.flush()
    assert told == ["access log: No space left on device; lines are lost until it can be written"]
    assert repr(sink) == "<LineSink access log: 0 lines waiting, 6 lost>"
    sink.replace(open_log(str(tmp_path / "a"), 1, "access_log"))
    assert len(told) == 1
    sink.write(numbered(6, 1))
    sink.write(numbered(7, 1))
    assert told[1:] == ["access log: it can be written again; lines lost: 6"]
    assert repr(sink) == "<LineSink access log: 0 lines waiting>"
    assert numbers((tmp_path / "a").read_bytes()) == [6, 7]


def test_line_that_was_cut_ends(make_sink: MakeSink, told: Told, tmp_path: Path) -> None:
    """Where room ends within a line, the next one begins a new line all the same."""
    sink = make_sink(open_log(str(tmp_path / "a"), 1, "access_log"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))
    try:
        sink.write(b"one\nother\nthird\n")
        sink.write(b"fourth\n")
        assert repr(sink) == "<LineSink access log: 0 lines waiting, 3 lost>"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    sink.write(b"last\n")
    assert (tmp_path / "a").read_bytes() == b"one\nothe\nlast\n"
    assert told == [
        "access log: File too large; lines are lost until it can be written",
        "access log: it can be written again; lines lost: 3",
    ]


def test_rotation(make_sink: MakeSink, told: Told, tmp_path: Path) -> None:
    """A renamed file gets lines until the new one takes its number; none is lost."""
    path = tmp_path / "access.log"
    sink = make_sink(open_log(str(path), 1, "access_log"))
    number = sink.fd
    sink.write(numbered(0, 2))
    path.rename(tmp_path / "access.log.1")
    sink.write(numbered(2, 1))
    fd = open_log(str(path), 1, "access_log")
    sink.replace(fd)
    sink.write(numbered(3, 1))
    assert sink.fd == number
    assert not os.get_inheritable(number)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert numbers((tmp_path / "access.log.1").read_bytes()) == [0, 1, 2]
    assert numbers(path.read_bytes()) == [3]
    assert told == []


# --- pipes, terminals, sockets -------------------------------------------------------------------


class Stream:
    """One of several things that are read: its end for the sink, and what came out."""

    def __init__(self, fd: int, read: Callable[[], bytes]) -> None:
        self.fd = fd
        self.read = read


@pytest.fixture(params=["pipe", "foreign pipe", "foreign pipe before Linux 6.4", "socket"])
def stream(
    request: pytest.FixtureRequest, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stream]:
    """A stream as standard output; "foreign" ones can't be opened anew."""
    if request.param == "socket":
        ours, other = socket.socketpair()
        other.setblocking(False)

        def read() -> bytes:
            data = b""
            while True:
                try:
                    data += other.recv(MOST_WAITING)
                except BlockingIOError:
                    return data

        yield Stream(open_log("-", ours.fileno(), "access_log"), read)
        ours.close()
        other.close()
        return
    inner: Any = os.open

    def refusing(path: str, *arguments: Any) -> int:
        if path.startswith("/proc/"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return int(inner(path, *arguments))

    def unsupported(*_: Any) -> int:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    if "foreign" in request.param:
        monkeypatch.setattr(os, "open", refusing)
    if "before" in request.param:
        monkeypatch.setattr(os, "pwritev", unsupported)
    fd = open_log("-", pipe.writer, "access_log")
    assert os.get_blocking(fd) == ("foreign" in request.param)
    yield Stream(fd, pipe.read)


def test_reader_that_stalls_and_reads(stream: Stream, make_sink: MakeSink, told: Told) -> None:
    """Nobody waits for a slow reader; what he didn't take waits for him, whole and in order."""
    sink = make_sink(stream.fd)
    count = MOST_WAITING // 100
    sink.write(numbered(0, count // 2))
    sink.write(numbered(count // 2, count // 2))
    data = b""
    while data.count(b"\n") < count // 2 * 2:
        part = stream.read()
        assert part
        data += part
        sink.flush()
    assert numbers(data) == list(range(count // 2 * 2))
    assert told == []
    assert repr(sink) == "<LineSink access log: 0 lines waiting>"


def test_reader_that_stalls_for_good(stream: Stream, make_sink: MakeSink, told: Told) -> None:
    """Beyond 1 MiB the newest lines are lost, and the operator learns how many."""
    sink = make_sink(stream.fd)
    count = 4 * MOST_WAITING // 100
    for first in range(0, count, count // 8):
        sink.write(numbered(first, count // 8))
    assert told == ["access log: its reader is too slow; lines are lost until it can be written"]
    written = count // 8 * 8 if not count % (count // 8) else count // 8 * 9
    data = b""
    while part := stream.read():
        data += part
        sink.flush()
    found = numbers(data)
    assert MOST_WAITING < len(data) < 3 * MOST_WAITING
    assert found == sorted(found)
    assert told[1:] == [f"access log: it can be written again; lines lost: {written - len(found)}"]


def test_rest_of_a_long_line_never_begins_one(make_sink: MakeSink, pipe: Pipe, told: Told) -> None:
    """A line that the pipe took a part of ends there: others may have written behind it (H85)."""
    sink = make_sink(open_log("-", pipe.writer, "access_log"))
    other = make_sink(open_log("-", pipe.writer, "access_log"))
    sink.write(b"x" * (MOST_WAITING - 8192) + b"\n")
    sink.write(b"y" * 20_000 + b"\n")
    data = pipe.read()
    other.write(b"other\n")
    sink.write(b"next\n")
    data += pipe.read()
    cut, rest = data.split(b"\n", 1)[1].split(b"other\n")
    assert set(cut) == {ord("y")}
    assert rest == b"\nnext\n"
    assert told == ["access log: it can be written again; lines lost: 1"]


def test_longest_lines_pass(stream: Stream, make_sink: MakeSink) -> None:
    """Lines of any length keep their order; the longest are pieces of their own."""
    sink = make_sink(stream.fd)
    lines = [
        b"%d" % number * length for number, length in enumerate((1, 4095, 2000, 2094, 1, 4094))
    ]
    sink.write(b"".join(line + b"\n" for line in lines))
    assert stream.read().splitlines() == lines


def test_closed_pipe(make_sink: MakeSink, pipe: Pipe, told: Told) -> None:
    """A reader that is gone is no reason to stop."""
    sink = make_sink(open_log("-", pipe.writer, "access_log"))
    pipe.close_reader()
    for _ in range(3):
        sink.write(numbered(0, 1))
    assert told == ["access log: Broken pipe; lines are lost until it can be written"]


def test_stopped_terminal(make_sink: MakeSink, terminal: tuple[int, int], told: Told) -> None:
    """A terminal that somebody stopped (Ctrl-S) shows its lines later, opened anew or not."""
    shown, written = terminal
    anew = make_sink(open_log("-", written, "access_log"))
    foreign = make_sink(os.dup(written))
    termios.tcflow(written, termios.TCOOFF)
    anew.write(b"one\n")
    foreign.write(b"two\n")
    assert repr(anew) == repr(foreign) == "<LineSink access log: 1 lines waiting>"
    termios.tcflow(written, termios.TCOON)
    anew.flush()
    foreign.flush()
    lines = b""
    while not lines.endswith(b"two\r\n"):  # a terminal shows them in pieces
        lines += os.read(shown, 100)
    assert lines == b"one\r\ntwo\r\n"
    assert told == []


def test_named_pipe_whose_reader_is_started_again(
    make_sink: MakeSink, tmp_path: Path, told: Told
) -> None:
    """A named pipe is written again as soon as it has a reader."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = make_sink(open_log(str(path), 1, "access_log"))
    os.close(reader)
    sink.write(b"lost\n")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink.write(b"seen\n")
    assert os.read(reader, 100) == b"seen\n"
    os.close(reader)
    assert told == [
        "access log: Broken pipe; lines are lost until it can be written",
        "access log: it can be written again; lines lost: 1",
    ]


def test_lines_that_wait_move_to_a_file(
    make_sink: MakeSink, pipe: Pipe, told: Told, tmp_path: Path
) -> None:
    """What a stalled reader didn't take goes where the log goes now."""
    sink = make_sink(open_log("-", pipe.writer, "access_log"))
    count = 3 * MOST_WAITING // 200
    sink.write(numbered(0, count))
    sink.replace(open_log(str(tmp_path / "a"), 1, "access_log"))
    taken = numbers(pipe.read())
    assert taken + numbers((tmp_path / "a").read_bytes()) == list(range(count))
    assert told == []


WRITER = """
import os, sys, time
from proxy.control.log_files import LineSink
sink = LineSink(int(sys.argv[1]), "log")
os.read(int(sys.argv[2]), 1)
for number in range(200):
    sink.write(b"".join(sys.argv[3].encode() * (60 + n * 131 % 400) + b"\\n" for n in range(100)))
sink.close(patience=60)
"""


@pytest.mark.slow
def test_processes_share_a_pipe(pipe: Pipe) -> None:
    """Several workers write to one pipe, whose reader is slow: no line is torn."""
    fd = open_log("-", pipe.writer, "access_log")
    gate, opening = os.pipe()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(fd), str(gate), letter], pass_fds=(fd, gate)
        )
        for letter in "ab"
    ]
    os.write(opening, b"go")
    for end in (fd, pipe.writer, gate, opening):
        os.close(end)
    pipe.writer = -1
    data = b""
    os.set_blocking(pipe.reader, True)
    while part := os.read(pipe.reader, 10_000):
        data += part
    assert [writer.wait() for writer in writers] == [0, 0]
    lines = data.splitlines()
    assert {(line[:1], len(set(line))) for line in lines} == {(b"a", 1), (b"b", 1)}
    lengths = {60 + n * 131 % 400 for n in range(100)}
    assert {len(line) for line in lines} == lengths


# --- syslog --------------------------------------------------------------------------------------


def test_syslog_line(daemon: Daemon, make_sink: MakeSink) -> None:
    """A datagram a line, with the header that local daemons read (RFC 3164 section 4)."""
    sink = make_sink(open_log("syslog", 1, "access_log"))
    sink.write(b"one\ntwo\n")
    sink.write(b"three\n", severity=3)
    one, two, three = daemon.take()
    pattern = rb"<(\d+)>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d balanceme\[(\d+)\]: (\w+)"
    found = [re.fullmatch(pattern, line) for line in (one, two, three)]
    process = str(os.getpid()).encode()
    assert [line and line.groups() for line in found] == [
        (b"30", process, b"one"),
        (b"30", process, b"two"),
        (b"27", process, b"three"),
    ]


def test_syslog_daemon_that_is_started_again(
    daemon: Daemon, make_sink: MakeSink, told: Told
) -> None:
    """Lines wait while the daemon is gone, and reach the one that follows it."""
    sink = make_sink(open_log("syslog", 1, "access_log"))
    sink.write(b"one\n")
    assert len(daemon.take()) == 1
    daemon.stop()
    sink.write(b"two\n")
    sink.write(b"three\n")
    assert told == [
        "access log: No such file or directory; lines wait until it can be written",
    ]
    daemon.start()
    sink.flush()
    assert [line[-5:] for line in daemon.take()] == [b": two", b"three"]
    assert told[1:] == ["access log: it can be written again; lines lost: 0"]
    daemon.stop()
    daemon.start()
    sink.write(b"four\n")
    assert len(daemon.take()) == 1
    assert len(told) == 2


def test_syslog_daemon_that_stays_away(daemon: Daemon, make_sink: MakeSink, told: Told) -> None:
    """Beyond 1 MiB lines are lost, and counted."""
    sink = make_sink(open_log("syslog", 1, "access_log"))
    daemon.stop()
    sink.write(numbered(0, MOST_WAITING // 50, length=50))
    kept = int(re.findall(r"\d+", repr(sink))[0])
    assert MOST_WAITING // 50 // 2 < kept < MOST_WAITING // 50
    daemon.start()
    taken: list[bytes] = []
    while kept > len(taken):
        sink.flush()
        taken += daemon.take()
    lost = MOST_WAITING // 50 - kept
    assert told[1:] == [f"access log: it can be written again; lines lost: {lost}"]


def test_slow_syslog_daemon(daemon: Daemon, make_sink: MakeSink, told: Told) -> None:
    """Nobody waits for a daemon that doesn't take its datagrams; they wait for it."""
    sink = make_sink(open_log("syslog", 1, "access_log"))
    sink.write(numbered(0, 2000))
    taken: list[bytes] = []
    while len(taken) < 2000:
        part = daemon.take()
        assert part
        taken += part
        sink.flush()
    assert numbers(b"".join(line[-99:] + b"\n" for line in taken)) == list(range(2000))
    assert told == []


def test_what_waits_is_tried_again_soon(daemon: Daemon, make_sink: MakeSink, told: Told) -> None:
    """A daemon whose queue is short needs no new lines to get the rest, nor a sweep."""
    sink = make_sink(open_log("syslog", 1, "access_log"))
    calls: list[Callable[[], None]] = []
    sink.call_later = lambda delay, call: calls.append(call) if delay == RETRY else None
    sink.write(numbered(0, 1000))
    sink.write(numbered(1000, 1000))
    taken = daemon.take()
    while len(taken) < 2000:
        (call,) = calls
        calls.clear()
        call()
        taken += daemon.take()
    assert not calls
    assert told == []


async def test_retries_end_with_the_loop(make_sink: MakeSink, pipe: Pipe, told: Told) -> None:
    """Lines that come when the loop is closed wait for the end."""
    sink = make_sink(open_log("-", pipe.writer, "access_log"))
    loop = asyncio.new_event_loop()
    loop.close()
    sink.call_later = loop.call_later
    count = 3 * MOST_WAITING // 200
    sink.write(numbered(0, count))
    found = numbers(pipe.read())
    sink.close()
    assert found + numbers(pipe.read()) == list(range(count))
    assert told == []


def test_line_too_long_for_syslog(daemon: Daemon, make_sink: MakeSink, told: Told) -> None:
    """What no datagram can hold is lost, and doesn't stand before all others."""
    sink = make_sink(open_log("syslog", 1, "access_log"))
    sink.write(b"a" * 10_000_000 + b"\n")
    sink.write(b"next\n")
    assert told == [
        "access log: Message too long; lines are lost until it can be written",
        "access log: it can be written again; lines lost: 1",
    ]
    assert len(daemon.take()) == 1


def test_rotation_of_syslog(daemon: Daemon, make_sink: MakeSink) -> None:
    """A new descriptor to the same daemon changes nothing in lines that wait."""
    sink = make_sink(open_log("syslog", 1, "access_log"))
    sink.write(numbered(0, 2000))
    assert "0 lines" not in repr(sink)
    sink.replace(open_log("syslog", 1, "access_log"))
    taken = daemon.take()
    sink.flush()
    taken += daemon.take()
    assert len({len(line) for line in taken}) == 1


def test_from_a_pipe_to_syslog(daemon: Daemon, make_sink: MakeSink, pipe: Pipe) -> None:
    """Lines that waited for another kind of reader get their headers."""
    sink = make_sink(open_log("-", pipe.writer, "access_log"))
    os.write(sink.fd, b"x" * (MOST_WAITING - 4096))
    sink.write(b"y" * 4000 + b"\n")
    sink.write(b"waiting\n" * 20)
    sink.replace(open_log("syslog", 1, "access_log"))
    taken: list[bytes] = []
    while part := daemon.take():
        taken += part
        sink.flush()
    assert {line[:4] for line in taken} == {b"<30>"}
    assert [line[-9:] for line in taken] == [b": waiting"] * 20


# --- the end -------------------------------------------------------------------------------------


def test_close_waits_for_the_reader(make_sink: MakeSink, pipe: Pipe, told: Told) -> None:
    """In the end a reader who reads gets every line, though the pipe couldn't hold them all."""
    sink = make_sink(open_log("-", pipe.writer, "access_log"))
    count = 3 * MOST_WAITING // 200
    sink.write(numbered(0, count))
    data = bytearray()

    def read() -> None:
        poll = select.poll()
        poll.register(pipe.reader, select.POLLIN)
        while data.count(b"\n") < count and poll.poll(10_000):
            data.extend(os.read(pipe.reader, 65536))

    reader = threading.Thread(target=read)
    reader.start()
    sink.close(patience=10)
    reader.join()
    assert numbers(bytes(data)) == list(range(count))
    assert told == []


def test_close_tells_what_is_lost(make_sink: MakeSink, pipe: Pipe, told: Told) -> None:
    """One who doesn't read is waited for no longer than was said."""
    sink = make_sink(open_log("-", pipe.writer, "access_log"))
    sink.write(numbered(0, 3 * MOST_WAITING // 200))
    sink.close(patience=0.02)
    lost = 3 * MOST_WAITING // 200 - len(numbers(pipe.read()))
    assert told == [f"access log: it is closed; lines lost: {lost}"]


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("path", ["/dev/null", "-", "syslog"])
def test_write_after_the_end(path: str, make_sink: MakeSink, pipe: Pipe, told: Told) -> None:
    """A line that comes too late fails nobody, and isn't written elsewhere."""
    sink = make_sink(open_log(path, pipe.writer, "access_log"))
    sink.close()
    sink.close()
    sink.write(b"late\n")
    assert told == ["access log: Bad file descriptor; lines are lost until it can be written"]
