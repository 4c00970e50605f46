"""Programs of the operator's: real ones, on both event loops."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from proxy.control.programs import Finished, inherited, run

# Runs a coroutine to its end.
Complete = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def complete(request: pytest.FixtureRequest) -> Iterator[Complete]:
    """Runs coroutines on a loop that has nothing to do afterwards, with no file left open."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        runner.run(asyncio.sleep(0))
        before = open_files()
        yield runner.run
        assert open_files() == before


def open_files() -> set[str]:
    """What this process has open."""
    return {each.name for each in Path("/proc/self/fd").iterdir()}


def sh(script: str, *, timeout: float = 60, **options: Any) -> Coroutine[Any, Any, Finished]:
    """A run of a shell script."""
    return run(["sh", "-c", script], timeout=timeout, **options)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that must come."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


# --- how it ends ----------------------------------------------------------------------------------


def test_status_and_output(complete: Complete) -> None:
    """The exit status comes with what was written, on standard output and error together."""
    assert complete(sh("echo out; echo err >&2; exit 3")) == (3, b"out\nerr\n", False, "")


def test_input(complete: Complete) -> None:
    """A program reads its input to its end."""
    assert complete(run(["cat"], stdin=b"told", timeout=60)) == (0, b"told", False, "")


def test_no_input(complete: Complete) -> None:
    """Without an input it finds the end at once."""
    assert complete(run(["cat"], timeout=60)).status == 0


def test_long_input_and_output(complete: Complete) -> None:
    """More than a pipe holds goes in and comes out; only the beginning is kept."""
    told = bytes(range(256)) * 4096
    found = complete(run(["cat"], stdin=told, timeout=60, most=300))
    assert found == (0, told[:300], False, "")


def test_input_that_nobody_reads(complete: Complete) -> None:
    """A program may ignore its input, however long, or close it."""
    assert complete(run(["true"], stdin=b"x" * 1_000_000, timeout=60)).status == 0
    script = "exec <&-; echo closed; sleep 0.05"
    assert complete(sh(script, stdin=b"x" * 1_000_000)) == (0, b"closed\n", False, "")


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["/nowhere/tell"], "No such file or directory"),
        (["/etc/passwd"], "Permission denied"),
        (["true", "a\0b"], "embedded null byte"),
    ],
)
def test_no_such_program(complete: Complete, argv: list[str], reason: str) -> None:
    """What can't be started has no status, and a reason."""
    found = complete(run(argv, timeout=60))
    assert (found.status, found.timed_out) == (None, False)
    assert found.text == f"can't be started: {reason}"


def test_no_descriptor_left(complete: Complete, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose end can't be watched is ended before it does anything."""

    def refuse(_: int) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", refuse)
        found = complete(run(["sleep", "60"], timeout=60))
    assert found.text == "can't be started: Too many open files"


def test_ended_by_a_signal(complete: Complete) -> None:
    """One that was killed by somebody else has no status either."""
    found = complete(sh("echo well; kill -SEGV $$"))
    assert (found.status, found.timed_out) == (None, False)
    assert found.text == "ended by SIGSEGV: well"
    assert complete(sh("kill -40 $$")).text == "ended by signal 40"


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (Finished(0, b"", timed_out=False), "exit status 0"),
        (Finished(1, b"\n \n one \ntwo\n", timed_out=False), "exit status 1: one"),
        (Finished(1, b"a\x1b[1m\xff\n", timed_out=False), "exit status 1: a?[1m\ufffd"),
        (Finished(2, b"x" * 1000, timed_out=False), "exit status 2: " + "x" * 200),
        (Finished(None, b"", timed_out=True, problem="killed after 10 s"), "killed after 10 s"),
    ],
)
def test_text(found: Finished, text: str) -> None:
    """One printable line says how it ended."""
    assert found.text == text


# --- its time -------------------------------------------------------------------------------------


def test_time_is_over(complete: Complete) -> None:
    """A program whose time is over is ended, with all that it has started."""
    found = complete(sh("sleep 60 & echo $!; wait", timeout=0.2))
    assert found[0::2] == (None, True)
    assert found.text == f"killed after 0.2 s: {int(found.output)}"
    complete(until(lambda: is_gone(int(found.output))))


@pytest.mark.slow
def test_sigterm_is_ignored(complete: Complete) -> None:
    """One that doesn't care for SIGTERM is killed, with all that it has started."""
    found = complete(sh("trap '' TERM; sleep 60 & echo $!; wait", timeout=0.2))
    assert found[0::2] == (None, True)
    complete(until(lambda: is_gone(int(found.output))))


def test_others_of_the_group(complete: Complete) -> None:
    """What ignores SIGTERM is killed as well when the program itself ends by it."""
    script = "(trap '' TERM; echo ready; sleep 60) & echo $!; wait"
    found = complete(sh(script, timeout=0.2))
    child = int(found.output.replace(b"ready", b"").strip())
    complete(until(lambda: is_gone(child)))


def test_output_held_open(complete: Complete) -> None:
    """What a program leaves behind may keep its output: the program has ended all the same."""
    found = complete(sh("sleep 60 & echo $!"))
    child = int(found.output)
    assert found.status == 0
    assert not is_gone(child)
    os.kill(child, signal.SIGKILL)


def test_output_without_an_end(complete: Complete) -> None:
    """What is left behind may even go on writing."""
    found = complete(sh("yes & sleep 0.05", most=1_000_000))
    assert found.status == 0
    assert found.output


def test_cancelled(complete: Complete, tmp_path: Path) -> None:
    """Who no longer waits for a program kills it."""
    file = tmp_path / "pid"

    async def cancel() -> int:
        task = asyncio.create_task(sh(f"trap '' TERM; echo $$ >{file}; sleep 60"))
        await until(lambda: file.exists() and file.read_text().endswith("\n"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return int(file.read_text())

    assert is_gone(complete(cancel()))


def test_side_by_side(complete: Complete, tmp_path: Path) -> None:
    """Programs run side by side: here each needs the other one to end."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    async def both() -> list[Finished]:
        return list(await asyncio.gather(sh(f"cat {fifo}"), sh(f"echo told >{fifo}")))

    assert [each.output for each in complete(both())] == [b"told\n", b""]


# --- what it finds --------------------------------------------------------------------------------


def test_environment(complete: Complete, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is ours, without what the service manager said to us, or the one given."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    monkeypatch.setenv("OTHER", "kept")
    script = "echo ${NOTIFY_SOCKET-none} ${OTHER-none}"
    assert complete(sh(script)).output == b"none kept\n"
    assert complete(sh(script, environ={"PATH": os.environ["PATH"]})).output == b"none none\n"
    assert "NOTIFY_SOCKET" not in inherited()


def test_signals(complete: Complete) -> None:
    """A program begins with nothing blocked, and with nothing ignored or handled by us.

    What whoever started us lets us ignore, as a shell's ``&`` does, programs ignore as well.
    """
    ours = _signals(Path("/proc/self/status").read_text())
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
    handler = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        found = complete(run(["cat", "/proc/self/status"], timeout=60))
    finally:
        signal.signal(signal.SIGUSR2, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    found_there = _signals(found.output.decode())
    python_s = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    assert found_there["SigIgn"] == ours["SigIgn"] & ~python_s
    assert (found_there["SigBlk"], found_there["SigCgt"]) == (0, 0)


def _signals(status: str) -> dict[str, int]:
    """Which signals a process blocks, ignores and handles, as the kernel tells it."""
    lines = (line.partition(":\t") for line in status.splitlines())
    return {
        name: int(mask, 16) for name, _, mask in lines if name in ("SigBlk", "SigIgn", "SigCgt")
    }


def test_files(complete: Complete) -> None:
    """A program has the three files that everybody has, and none of ours."""
    with Path("/etc/passwd").open() as ours:
        os.set_inheritable(ours.fileno(), True)
        script = "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:3])"
        script += f"; print(os.path.exists('/proc/self/fd/{ours.fileno()}'))"
        found = complete(run([sys.executable, "-c", script], timeout=60))
    assert found.output == b"[0, 1, 2]\nFalse\n"


def test_other_children_are_left_alone() -> None:
    """Who reaps his own children by their process ids, on SIGCHLD, finds all of them."""
    child = subprocess.Popen(["sh", "-c", "exit 7"])
    calls = []

    async def beside_it() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, lambda: calls.append(child.poll()))
        assert (await sh("exit 5")).status == 5
        await until(lambda: bool(calls) and calls[-1] == 7)

    asyncio.run(beside_it())
