"""Running a program of the operator's: with an input, for a result, within a time.

The loop goes on meanwhile: no thread, no wait. The end of a program is a descriptor that becomes
readable (pidfd_open(2)), so that nobody has to listen for SIGCHLD, and who reaps other children by
their process ids goes on doing so. A program is the head of a process group of its own, which is
ended as a whole when its time is over. What it starts and leaves behind, once it has ended by
itself, is its own affair. Nothing here is a shell: a program has arguments, not a command line.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

# From SIGTERM to SIGKILL, in seconds.
PATIENCE = 1.0
# Characters of a program's first line that are told to people.
_LONGEST = 200
# Bytes that are read or written at once; as much as a pipe holds.
_PIECE = 65536
# What a service manager said to this process alone (sd_notify(3), sd_listen_fds(3)).
_PERSONAL = (
    *("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"),
    *("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"),
)


class Finished(NamedTuple):
    """How a run came to its end."""

    status: int | None
    """The exit status; None when the program could not be started, or was killed."""
    output: bytes
    """The beginning of what it wrote on standard output and standard error together."""
    timed_out: bool
    """Its time was over, so we ended it."""
    problem: str = ""
    """Why there is no status, in words: killed after 10 s."""

    @property
    def text(self) -> str:
        """How it ended, and the first line that it wrote, in one printable line."""
        how = self.problem or f"exit status {self.status}"
        lines = (line.strip() for line in self.output.decode(errors="replace").splitlines())
        first = next(filter(None, lines), "")[:_LONGEST]
        shown = "".join(each if each.isprintable() else "?" for each in first)
        return f"{how}: {shown}" if shown else how


def inherited() -> dict[str, str]:
    """The environment that a program gets: ours, without what was said to this process alone."""
    return {key: value for key, value in os.environ.items() if key not in _PERSONAL}


async def run(
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    timeout: float,  # noqa: ASYNC109 - ends the program, and not only the wait for it
    environ: Mapping[str, str] | None = None,
    most: int = 4096,
) -> Finished:
    """Run a program to its end, for at most ``timeout`` seconds; never raises for its failure.

    ``argv`` is the program, looked for in PATH, and its arguments; ``environ`` its whole
    environment, ``inherited()`` when left out. It gets ``stdin``, if it cares to read it. Of its
    output ``most`` bytes are kept. When its time is over its process group gets SIGTERM, and
    SIGKILL a second later or when the program itself has ended. Who cancels this kills it.
    """
    try:
        running = _Running(_start(argv, environ), stdin, most)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return Finished(None, b"", timed_out=False, problem=f"can't be started: {reason}")
    try:
        await asyncio.wait([running.ended], timeout=timeout)
        timed_out = not running.ended.done()
        if timed_out:
            running.end(signal.SIGTERM)
            await asyncio.wait([running.ended], timeout=PATIENCE)
        if not running.ended.done():
            running.end(signal.SIGKILL)
            # One that the kernel can't end now (a dead disk) is reaped whenever it ends.
            await asyncio.wait([running.ended], timeout=PATIENCE)
    except asyncio.CancelledError:
        running.end(signal.SIGKILL)
        await asyncio.wait([running.ended], timeout=PATIENCE)
        raise
    finally:
        running.close()
    output = bytes(running.output)
    if timed_out:
        return Finished(None, output, timed_out=True, problem=f"killed after {timeout:g} s")
    status = running.ended.result()
    if status < 0:
        # the real-time ones have no names
        named = -status in {*signal.Signals}
        problem = f"ended by {signal.Signals(-status).name if named else f'signal {-status}'}"
        return Finished(None, output, timed_out=False, problem=problem)
    return Finished(status, output, timed_out=False)


def _start(argv: Sequence[str], environ: Mapping[str, str] | None) -> "subprocess.Popen[bytes]":
    """The program's process, with no file of ours, and no signal blocked or handled in our way."""
    # Handled signals are the default's by exec(2), and Popen restores what Python ignores. Only
    # what is blocked would stay so; nothing is, unless whoever started us had it so.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return subprocess.Popen(  # noqa: S603 - the operator's own words, and no shell
        list(argv),
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=inherited() if environ is None else environ,
        start_new_session=True,
        preexec_fn=_unblock if blocked else None,  # noqa: PLW1509 - the supervisor has no threads
    )


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


class _Running:
    """A process, and our ends of its pipes."""

    def __init__(self, process: "subprocess.Popen[bytes]", stdin: bytes, most: int) -> None:
        """Watch it; raises OSError, and then it is gone."""
        self._loop = asyncio.get_running_loop()
        self._process = process
        self._most = most
        self.output = bytearray()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        """Its exit status, or the number of the signal that ended it, negative."""
        if process.stdin is None or process.stdout is None:
            raise OSError("it has no pipes")  # never so: for readers, and the checker of types
        self._to, self._from = process.stdin, process.stdout
        try:
            self._watched = os.pidfd_open(process.pid)
        except OSError:
            process.kill()
            process.wait()
            self._to.close()
            self._from.close()
            raise
        # whether it is on its way out by our will
        self._told_to_end = False
        self._left = memoryview(stdin)
        for pipe in (self._to, self._from):
            os.set_blocking(pipe.fileno(), False)
        self._loop.add_reader(self._watched, self._has_ended)
        self._loop.add_reader(self._from.fileno(), self._read)
        self._loop.add_writer(self._to.fileno(), self._write)

    def end(self, number: signal.Signals) -> None:
        """Send its process group a signal that may end it."""
        self._told_to_end = True
        # Until it is reaped nobody else can have its number.
        if self._process.returncode is None:
            self._signal(number)

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except OSError:
            pass  # all of them have ended, or run as somebody else: sudo

    def _has_ended(self) -> None:
        if self._told_to_end:
            self._signal(signal.SIGKILL)  # what it has started had its SIGTERM as well
        # A pipe that somebody else holds open has no end: what is there is all.
        while len(self.output) < self._most and self._read():
            pass
        self._loop.remove_reader(self._watched)
        os.close(self._watched)
        self.close()
        status = self._process.poll()
        self.ended.set_result(-signal.SIGKILL if status is None else status)

    def _read(self) -> bool:
        """Take some output; whether there was any."""
        if self._from.closed:
            return False
        try:
            piece = os.read(self._from.fileno(), _PIECE)
        except BlockingIOError:
            return False
        self.output += piece[: self._most - len(self.output)]
        if not piece:
            self._loop.remove_reader(self._from.fileno())
            self._from.close()
        return bool(piece)

    def _write(self) -> None:
        """Give it some of its input, and an end to it."""
        try:
            written = os.write(self._to.fileno(), self._left[:_PIECE])
            self._left = self._left[written:]
        except BlockingIOError:
            return
        except OSError:
            self._left = self._left[:0]  # it reads no more
        if not self._left:
            self._loop.remove_writer(self._to.fileno())
            self._to.close()

    def close(self) -> None:
        """Let go of the pipes; its end is still taken note of."""
        if not self._to.closed:
            self._loop.remove_writer(self._to.fileno())
            self._to.close()
        if not self._from.closed:
            self._loop.remove_reader(self._from.fileno())
            self._from.close()
