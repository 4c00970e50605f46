"""Starting a program on one core, reading its CPU time and memory, and stopping it again.

The CPU time is that of the kernel's clock of each process (user and system, in nanoseconds, threads
included) summed over the program and its children. Only what was started here is ever stopped.
"""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

_STOP_SECONDS = 5.0
_TAIL_BYTES = 2000


class BenchmarkError(Exception):
    """A measurement that can't be made, with the reason in words."""


@dataclass(frozen=True)
class Cores:
    """Where the proxy runs and where everything else does; None leaves it to the kernel."""

    proxy: int | None
    others: int | None

    @classmethod
    def of_this_machine(cls) -> "Cores":
        """The first two cores we may use; with only one nothing is pinned."""
        usable = sorted(os.sched_getaffinity(0))
        return cls(usable[0], usable[1]) if len(usable) > 1 else cls(None, None)


def pinned(core: int | None, command: Sequence[str]) -> list[str]:
    """The command, bound to a core."""
    return list(command) if core is None else ["taskset", "-c", str(core), *command]


def raise_file_limit() -> int:
    """Let this process and its children open as many files as allowed; says how many."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = max(hard, 65536)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
        return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_ports(count: int) -> list[int]:
    """Ports nothing listens on, from below those the kernel gives to clients."""
    found: list[int] = []
    for port in range(20000 + os.getpid() % 5000, 32000):
        with contextlib.closing(socket.socket()) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise BenchmarkError("no free ports below 32000")


def _relations() -> dict[int, tuple[int, int]]:
    """Parent and session of each process of this machine."""
    relations = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stat = (entry / "stat").read_text()
            _, parent, _, session = stat.rpartition(")")[2].split()[:4]
            relations[int(entry.name)] = int(parent), int(session)
    return relations


def family(leader: int) -> frozenset[int]:
    """The leader of a session, the rest of the session and all that descend from them."""
    relations = _relations()
    found = {pid for pid, (_, session) in relations.items() if session == leader}
    while more := {pid for pid, (parent, _) in relations.items() if parent in found} - found:
        found |= more
    return frozenset(found)


def cpu_seconds(pids: frozenset[int]) -> float:
    """CPU time that these processes have used since they began."""
    # The clock of another process: CPUCLOCK_SCHED is 2, see clock_getcpuclockid(3).
    nanoseconds = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            nanoseconds += time.clock_gettime_ns((~pid << 3) | 2)
    return nanoseconds / 1e9


def core_seconds(core: int | None) -> float:
    """Time that a core has not been idle since the machine began; 0 for no core."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _, _, irq, softirq, *_ = map(int, ticks)
            return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    return 0.0


def memory_kb(pids: frozenset[int]) -> int:
    """Resident KB of these processes; what several of them share counts once."""
    return sum(_proportional_kb(pid) for pid in pids)


def _proportional_kb(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


class Program:
    """A program that was started here, with the files its two outputs go to."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        core: int | None,
        errors: Path,
        output: Path | None = None,
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self._errors = errors
        with contextlib.ExitStack() as files:
            stderr = files.enter_context(errors.open("ab"))
            stdout: IO[bytes] | int = subprocess.PIPE
            if output is not None:
                stdout = files.enter_context(output.open("ab"))
            self._process = subprocess.Popen(
                pinned(core, command),
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                cwd=folder,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        """Whether the program itself still lives."""
        return self._process.poll() is None

    def family(self) -> frozenset[int]:
        """Its processes; empty when all have ended."""
        return family(self._process.pid)

    def say(self, text: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode() + b"\n")
        self._process.stdin.flush()

    def listen(self, seconds: float) -> str:
        """The next line of its standard output, waited for so long."""
        assert self._process.stdout is not None
        timer = _alarm(seconds, f"{self.name} said nothing for {seconds:.0f} s")
        with timer:
            line = self._process.stdout.readline().decode()
        if not line:
            raise BenchmarkError(f"{self.name} ended early\n{self.tail()}")
        return line

    def interrupt(self) -> None:
        """Ask for an early but orderly end."""
        self._process.send_signal(signal.SIGINT)

    def rest(self, seconds: float) -> str:
        """Wait for its end and return what else it said."""
        try:
            return self._process.communicate(timeout=seconds)[0].decode(errors="replace")
        except subprocess.TimeoutExpired:
            raise BenchmarkError(f"{self.name} did not end within {seconds:.0f} s") from None

    def tail(self) -> str:
        """The end of what it wrote to standard error."""
        text = self._errors.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
        return f"end of {self._errors.name}:\n{text}" if text else ""

    def stop(self) -> None:
        """End it and its children, politely at first."""
        if self.is_running:
            self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=_STOP_SECONDS)
        for pid in self.family():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=_STOP_SECONDS)


@contextlib.contextmanager
def _alarm(seconds: float, message: str) -> Iterator[None]:
    """Raise in the main thread when the block takes longer."""

    def ring(*_: object) -> None:
        raise BenchmarkError(message)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def wait_for_port(program: Program, port: int, seconds: float) -> None:
    """Return as soon as the program accepts connections there."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not program.is_running:
            raise BenchmarkError(f"{program.name} ended at once\n{program.tail()}")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.05)
    raise BenchmarkError(f"{program.name} does not listen on its port\n{program.tail()}")
