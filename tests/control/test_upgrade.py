"""An upgrade's two programs: the old one here, the new one a process of a few lines."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.control import upgrade
from proxy.control.upgrade import VARIABLE, Predecessor, Successor, UpgradeError

# What each new program begins with: it finds the one that started it.
FOUND = """\
import os, sys, time
from proxy.control.upgrade import Predecessor
predecessor = Predecessor.found(os.environ)
"""
# Starts a new program of these lines; what else it is given is that of Successor.
Start = Callable[..., Successor]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts new programs, with our own command line as one of Python with these lines."""
    monkeypatch.chdir(Path(__file__).parents[2])
    started: list[Successor] = []

    def begin(code: str, environ: Any = os.environ, *files: Any) -> Successor:
        monkeypatch.setattr(sys, "orig_argv", ["python", "-c", code])
        started.append(Successor(environ, *(files or [[]])))
        return started[-1]

    yield begin
    for successor in started:
        successor._process.kill()
        successor._process.wait()
        successor._line.close()


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, Predecessor]]:
    """The old program's end of a line, and its new end."""
    ours, theirs = socket.socketpair()
    ours.settimeout(60)
    made = Predecessor({VARIABLE: str(theirs.detach())})
    with ours:
        yield ours, made
        made.hurry()


def open_files() -> set[str]:
    """What this process has open."""
    return {each.name for each in Path("/proc/self/fd").iterdir()}


async def ended(successor: Successor) -> int:
    """The exit status of the new program, once it has ended."""
    return await asyncio.to_thread(successor._process.wait, 60)


async def refusal(successor: Successor) -> str:
    """Why the new program was dropped; nothing is left of it."""
    with pytest.raises(UpgradeError) as caught:
        await successor.ready()
    assert successor._process.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.kill(successor.pid, 0)
    return str(caught.value)


# --- the old program ------------------------------------------------------------------------------


async def test_ready(start: Start) -> None:
    """The new program says that it serves, is answered, and goes on by itself."""
    successor = start(FOUND + "predecessor.take_over(); sys.exit(7)")
    await successor.ready()
    stops = asyncio.Event()
    successor.go(stops.set)
    assert await ended(successor) == 7
    async with asyncio.timeout(60):
        await stops.wait()


async def test_failed_with_a_reason(start: Start) -> None:
    """What the new program says is wrong is told, whole; nothing has happened here."""
    before = open_files()
    successor = start(FOUND + "predecessor.fail('line one\\nline zwölf')")
    assert await refusal(successor) == "the new program was dropped: line one\nline zwölf"
    assert open_files() == before


@pytest.mark.parametrize("how", ["sys.exit(3)", "os._exit(3)"])
async def test_silent_death(start: Start, how: str) -> None:
    """A new program that ends without a word is told with its own exit status."""
    reason = await refusal(start(FOUND + how))
    words = "it ended with status 3; standard error may tell more"
    assert reason == f"the new program was dropped: {words}"


async def test_death_by_a_mistake(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    """Where it fails with a traceback that is on standard error, as ever, and its status told."""
    reason = await refusal(start(FOUND + "raise RuntimeError('a mistake')"))
    assert "it ended with status 1; standard error may tell more" in reason
    assert "RuntimeError: a mistake" in capfd.readouterr().err


async def test_death_by_a_signal(start: Start) -> None:
    """The same for one that is killed."""
    reason = await refusal(start(f"import os; os.kill(os.getpid(), {int(signal.SIGTERM)})"))
    assert reason == "the new program was dropped: it was ended by SIGTERM"


async def test_closes_its_line_and_lingers(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that lets go of the line but doesn't end is killed."""
    monkeypatch.setattr(upgrade, "LAST", 0.05)
    reason = await refusal(start(FOUND + "predecessor.hurry(); time.sleep(60)"))
    assert reason == "the new program was dropped: it was ended by SIGKILL"


async def test_takes_too_long(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that doesn't serve in time is killed, whatever it does."""
    monkeypatch.setattr(upgrade, "PREPARATION", 0.1)
    before = open_files()
    successor = start("import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)")
    reason = await refusal(successor)
    assert reason == "the new program was dropped: it does not serve after 0.1 s"
    assert open_files() == before


async def test_dropped_by_us(start: Start) -> None:
    """We may want no new program any more, while it is still beginning."""
    successor = start(FOUND + "time.sleep(60)")
    waiting = asyncio.create_task(refusal(successor))
    await asyncio.sleep(0)
    successor.drop("we stop")
    assert await waiting == "the new program was dropped: we stop"


async def test_cant_be_started(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that is gone is told at once."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    before = open_files()
    with pytest.raises(UpgradeError, match=r"^the new program can't be started: .*No such file"):
        start(FOUND)
    assert open_files() == before


async def test_dies_after_it_was_ready(start: Start) -> None:
    """One that is gone before it could be answered counts as one that stops."""
    successor = start(FOUND + "predecessor._line.send(b'ready\\n'); os._exit(4)")
    await successor.ready()
    await ended(successor)
    stops = asyncio.Event()
    successor.go(stops.set)
    async with asyncio.timeout(60):
        await stops.wait()


async def test_hurry_on_close(start: Start, tmp_path: Path) -> None:
    """When the new program stops the old one is told once, however long that takes."""
    os.mkfifo(tmp_path / "stop")
    code = f"predecessor.take_over(); open({str(tmp_path / 'stop')!r}).read(); predecessor.hurry()"
    successor = start(FOUND + code + "; time.sleep(60)")
    await successor.ready()
    told: list[str] = []
    stops = asyncio.Event()

    def stopping() -> None:
        told.append("it stops")
        stops.set()

    successor.go(stopping)
    fifo = await asyncio.to_thread((tmp_path / "stop").open, "w")
    assert not told
    fifo.close()
    async with asyncio.timeout(60):
        await stops.wait()
    for _ in range(3):
        await asyncio.sleep(0)
    assert told == ["it stops"]
    assert successor._process.poll() is None


async def test_reap_leaves_no_zombie(start: Start) -> None:
    """Its end is taken note of, however often it is looked."""
    successor = start(FOUND + "predecessor.take_over()")
    await successor.ready()
    stops = asyncio.Event()
    successor.go(stops.set)
    await stops.wait()
    await asyncio.to_thread(os.waitid, os.P_PID, successor.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{successor.pid}").exists()
    successor.reap()
    assert not Path(f"/proc/{successor.pid}").exists()
    successor.reap()


WHAT_IT_HAS = """\
import os
from proxy.control.upgrade import VARIABLE, Predecessor
environ = dict(os.environ)
predecessor = Predecessor.found(os.environ)
there = [name for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name)]
inherits = [line for line in predecessor.lines if os.get_inheritable(line)]
predecessor.fail(repr((
    [name for name in environ if name.startswith(("LISTEN", "WATCHDOG_PID"))],
    environ["OTHER"], environ["WATCHDOG_USEC"], VARIABLE in os.environ,
    os.pread(%d, 99, 0), len(there), len(predecessor.lines), inherits,
)))
"""


async def test_what_it_is_given(start: Start) -> None:
    """It gets our environment without what a service manager said to us alone, and the files.

    Lines to those before us are handed on; nothing of it goes to programs that it starts.
    """
    file = os.memfd_create("handed over")
    os.write(file, b"content")
    ours, earlier = socket.socketpair()
    environ = {**os.environ, "OTHER": "one", "WATCHDOG_USEC": "5"}
    environ |= dict.fromkeys(("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"), "1")
    with ours, earlier:
        successor = start(WHAT_IT_HAS % file, environ, [file], [earlier.fileno()])
        reason = await refusal(successor)
    os.close(file)
    # standard streams, both lines, the file
    told: tuple[object, ...] = ([], "one", "5", False, b"content", 6, 2, [])
    assert reason == f"the new program was dropped: {told!r}"


# --- the new program ------------------------------------------------------------------------------


def test_nobody_started_us() -> None:
    """Without the variable we are nobody's successor."""
    assert Predecessor.found({"PATH": "/bin"}) is None


def test_variable_goes() -> None:
    """The line is nobody else's: neither a variable nor an inherited descriptor leads to it."""
    ours, theirs = socket.socketpair()
    environ = {VARIABLE: str(theirs.detach()), "PATH": "/bin"}
    found = Predecessor.found(environ)
    assert found is not None
    assert environ == {"PATH": "/bin"}
    assert not found._line.get_inheritable()
    ours.close()
    found.hurry()


def test_take_over(
    line: tuple[socket.socket, Predecessor], caplog: pytest.LogCaptureFixture
) -> None:
    """Once the old one has answered it is over, without a word."""
    ours, predecessor = line
    ours.send(b"go\n")
    predecessor.take_over()
    assert ours.recv(99) == b"ready\n"
    assert not caplog.messages


def test_old_one_ends_before_it_answers(
    line: tuple[socket.socket, Predecessor], caplog: pytest.LogCaptureFixture
) -> None:
    """Then we serve all the same: nobody else does."""
    ours, predecessor = line
    ours.shutdown(socket.SHUT_WR)
    predecessor.take_over()
    assert caplog.messages == ["the former supervisor has ended before it could hand over"]


@pytest.mark.parametrize("how", ["silent", "gone"])
def test_old_one_doesnt_answer(
    line: tuple[socket.socket, Predecessor], caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """The same when it is stuck, after a while, or gone altogether."""
    ours, predecessor = line
    predecessor._line.settimeout(0.05)
    if how == "gone":
        ours.close()
    predecessor.take_over()
    reason = "timed out" if how == "silent" else "[Errno 32] Broken pipe"
    assert caplog.messages == [f"the former supervisor does not answer: {reason}"]


def test_fail(line: tuple[socket.socket, Predecessor], caplog: pytest.LogCaptureFixture) -> None:
    """A reason is told, cut where it is too long; when nobody is there to hear it, the log is."""
    ours, predecessor = line
    predecessor.fail("x" * 100_000)
    assert ours.recv(100_000).startswith(b"failed: xxx")
    ours.close()
    predecessor.fail("again")
    assert caplog.messages == ["the former supervisor can't be told: [Errno 32] Broken pipe"]


def test_lines_to_those_before() -> None:
    """Who has ended is left out of what a third program is handed, and all are told to hurry."""
    ours, theirs = socket.socketpair()
    other, gone = socket.socketpair()
    descriptors = [theirs.detach(), gone.detach()]
    found = Predecessor({VARIABLE: ",".join(map(str, descriptors))})
    assert found.lines == descriptors
    other.close()
    assert found.lines == descriptors[:1]
    found.hurry()
    assert ours.recv(1) == b""
    ours.close()
