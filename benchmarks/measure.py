"""One measurement: a proxy that stands ready, a scenario, and the figure that comes out.

CPU time is read together with the members' counters at both ends of a window in the middle of the
load, so neither the load's start nor its end counts. Rounds and their order are the affair of
``run``.
"""

import json
import os
import socket
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.checks import wait_for_log
from benchmarks.peers import Peer, Setup
from benchmarks.processes import (
    BenchmarkError,
    Cores,
    Program,
    core_seconds,
    cpu_seconds,
    memory_kb,
)
from benchmarks.scenarios import Driver, Held, Load, Scenario, Unit

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 15.0
# Both readings of memory are taken with these open, so that what a proxy allocates only once is
# not counted as belonging to the others.
FIRST_HELD = 100
_WARM_UP_SECONDS = 0.4
_DRIVER_SECONDS = 20.0
_HOLD_SECONDS = 90.0
_SETTLE_SECONDS = 1.5


@dataclass
class Contender:
    """A proxy that was started."""

    peer: Peer
    setup: Setup
    program: Program


@dataclass(frozen=True)
class Sample:
    """One measurement; without a cost when something went wrong."""

    cost: float | None = None
    rate: float = 0.0
    """Requests or MB a second."""
    busy: float = 0.0
    """Share of a core that the proxy used."""
    others: float = 0.0
    """Share of the proxy's core that others used."""
    fault: str | None = None

    def __str__(self) -> str:
        if self.cost is None:
            return f"NOT VALID: {self.fault}"
        busy = f", {self.busy:.0%} of a core" if self.busy else ""
        return f"{self.cost:.2f}{busy}"


class Members:
    """The two members' process, and the line to ask it for its counters."""

    def __init__(self, core: int | None, folder: Path, stack: ExitStack) -> None:
        command = [sys.executable, "-m", "benchmarks.members"]
        program = Program("members", command, core=core, errors=folder / "members.log", folder=ROOT)
        stack.enter_context(program)
        first, second, control = json.loads(program.listen(START_SECONDS))
        self.ports: tuple[int, int] = (first, second)
        line = socket.create_connection(("127.0.0.1", control), timeout=START_SECONDS)
        self._line = stack.enter_context(line)
        self._answers = stack.enter_context(line.makefile("rb"))

    def count(self) -> dict[str, int]:
        """The counters of both members together."""
        self._line.sendall(b"?")
        total: dict[str, int] = {}
        for counters in json.loads(self._answers.readline()).values():
            for name, value in counters.items():
                total[name] = total.get(name, 0) + value
        return total


@dataclass(frozen=True)
class Reading:
    """Where the counters and the CPU time of a proxy stand."""

    when: float
    counters: dict[str, int]
    processes: frozenset[int]
    cpu: float
    core: float


class Meter:
    """Measures any contender in any scenario."""

    def __init__(self, folder: Path, cores: Cores, stack: ExitStack) -> None:
        self.members = Members(cores.others, folder, stack)
        self._folder = folder
        self._cores = cores

    def load(self, contender: Contender, load: Load, seconds: float) -> Sample:
        """CPU time for what goes through in so many seconds."""
        os.truncate(contender.setup.access_log, 0)
        port = contender.setup.tls_port if load.tls else contender.setup.plain_port
        command = _driver_command(load, port, self._write_texts(load))
        with self._program("load", command) as driver:
            time.sleep(_WARM_UP_SECONDS)
            before = self._read(contender.program)
            time.sleep(seconds)
            after = self._read(contender.program)
            driver.interrupt()
            said = driver.rest(_DRIVER_SECONDS)
        if not contender.program.is_running:
            fault = f"it ended while it was measured\n{contender.program.tail()}"
            return Sample(fault=fault)
        outcome = _outcome(said, driver)
        fault_found = _find_fault(outcome, before, after) or _missing_lines(contender, outcome)
        return _sample(load, before, after, fault_found)

    def held(self, contender: Contender, held: Held, count: int) -> Sample:
        """Memory for so many connections that stay open."""
        port = str(contender.setup.tls_port)
        command = [sys.executable, "-m", "benchmarks.clients", "hold", port]
        with self._program("clients", [*command, *self._write_texts(held)]) as clients:
            before = self._memory_with(contender, held, clients, FIRST_HELD, FIRST_HELD)
            after = self._memory_with(contender, held, clients, count, FIRST_HELD + count)
        return Sample((after - before) / count)

    def _read(self, program: Program) -> Reading:
        """Now; finding the processes comes first since it takes a moment."""
        processes = program.family()
        counters = self.members.count()
        core = core_seconds(self._cores.proxy)
        return Reading(time.monotonic(), counters, processes, cpu_seconds(processes), core)

    def _memory_with(
        self, contender: Contender, held: Held, clients: Program, more: int, total: int
    ) -> int:
        """KB of the proxy once so many more connections are open."""
        _open_more(clients, more)
        if not held.answered:
            self._wait_for_waiting(total)
        time.sleep(_SETTLE_SECONDS)
        size = memory_kb(contender.program.family())
        state = _open_more(clients, 0)
        if state["lost"] or (held.answered and state["answered"] != total):
            raise BenchmarkError(f"of {total} connections: {state}\n{contender.program.tail()}")
        return size

    def _wait_for_waiting(self, total: int) -> None:
        end = time.monotonic() + _HOLD_SECONDS
        while (waiting := self.members.count()["waiting"]) < total:
            if time.monotonic() > end:
                raise BenchmarkError(f"only {waiting} of {total} requests wait at the members")
            time.sleep(0.1)

    def _program(self, name: str, command: list[str]) -> Program:
        """A load generator, away from the proxy's core."""
        errors = self._folder / f"{name}.log"
        return Program(name, command, core=self._cores.others, errors=errors, folder=ROOT)

    def _write_texts(self, scenario: Scenario) -> list[str]:
        """A scenario's requests as files, for the load generators to read."""
        requests = scenario.requests if isinstance(scenario, Load) else (scenario.request,)
        names = []
        for place, request in enumerate(requests):
            path = self._folder / f"{scenario.name}-{place}.txt"
            path.write_bytes(request)
            names.append(str(path))
        return names


def _driver_command(load: Load, port: int, texts: list[str]) -> list[str]:
    """The load generator's command line; it runs until it is interrupted."""
    if load.driver is Driver.HANDSHAKES:
        script = [sys.executable, "-m", "benchmarks.clients", "handshakes"]
        return [*script, str(port), str(load.connections), *texts]
    script = ["wrk", f"-t{load.browsers}", f"-c{load.connections}", "-d600", "--timeout", "15"]
    script += ["-s", str(Path(__file__).with_name("load.lua"))]
    return [
        *script,
        f"{'https' if load.tls else 'http'}://127.0.0.1:{port}/",
        "--",
        str(load.browsers),
        *texts,
    ]


def _outcome(said: str, driver: Program) -> dict[str, int]:
    """What the load generator says at its end, on its last line."""
    try:
        outcome: dict[str, int] = json.loads(said.splitlines()[-1])
    except (IndexError, ValueError):
        raise BenchmarkError(f"no result from the load generator: {said}{driver.tail()}") from None
    return outcome


def _find_fault(outcome: dict[str, int], before: Reading, after: Reading) -> str | None:
    """Why a measurement does not count, if so."""
    wrong = {name: value for name, value in outcome.items() if value and name != "requests"}
    if wrong:
        return f"failed requests: {wrong}"
    if before.processes != after.processes:
        return "some of its processes came or went meanwhile"
    return None


def _missing_lines(contender: Contender, outcome: dict[str, int]) -> str | None:
    """Whether the access log has a line for each request that was answered."""
    requests = outcome["requests"]
    lines = wait_for_log(contender.setup.access_log, requests)
    return None if lines >= requests else f"{lines} access lines for {requests} requests"


def _sample(load: Load, before: Reading, after: Reading, fault: str | None) -> Sample:
    """Cost and rate of what went through between two readings."""
    counter = {Unit.DOWNLOAD: "sent", Unit.UPLOAD: "received"}.get(load.unit, "requests")
    amount = float(after.counters[counter] - before.counters[counter])
    elapsed, cpu = after.when - before.when, after.cpu - before.cpu
    if not amount:
        return Sample(busy=cpu / elapsed, fault=fault or "nothing went through")
    # Microseconds a request, or seconds a GB and MB a second.
    per, scale = (1e6, 1.0) if load.unit is Unit.REQUEST else (1e9, 1e6)
    cost = None if fault else cpu / amount * per
    others = max(0.0, after.core - before.core - cpu)
    return Sample(cost, amount / elapsed / scale, cpu / elapsed, others / elapsed, fault)


def _open_more(clients: Program, count: int) -> dict[str, int]:
    """Let the clients open more connections; what became of all of them."""
    clients.say(str(count))
    state: dict[str, int] = json.loads(clients.listen(_HOLD_SECONDS))
    return state
