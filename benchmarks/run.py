"""Measure: ``python -m benchmarks.run [--rounds N] [--seconds N] [--only SCENARIO ...]``.

Starts the members and every proxy that is installed, lets the proxies take turns in each scenario
of each round, writes one result file and prints its tables. While one proxy is measured the others
stand idle. Nothing here knows what a scenario asks or how a proxy is configured.
"""

import argparse
import fcntl
import os
import platform
import shutil
import signal
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import trustme

from benchmarks import report
from benchmarks.checks import check_work
from benchmarks.measure import FIRST_HELD, ROOT, START_SECONDS, Contender, Meter, Sample
from benchmarks.peers import PEERS, Peer, Setup
from benchmarks.processes import (
    BenchmarkError,
    Cores,
    Program,
    free_ports,
    raise_file_limit,
    wait_for_port,
)
from benchmarks.scenarios import SCENARIOS, Held, Load, Scenario

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Options:
    """How long and what."""

    rounds: int
    seconds: float
    held: int
    held_rounds: int
    scenarios: tuple[Scenario, ...]
    peers: tuple[Peer, ...]


class Bench:
    """A run while it lasts: who takes part, and the result as it grows."""

    def __init__(self, options: Options, result: report.Result, stack: ExitStack) -> None:
        self._options = options
        self._result = result
        self._peers = list(options.peers)
        self._cores = Cores.of_this_machine()
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-")))
        # Apache's children, which are not root, must reach their files.
        self._folder.chmod(0o755)
        self._certificate, self._key = make_certificate(self._folder)
        self._meter = Meter(self._folder, self._cores, stack)

    def run(self) -> None:
        """Everything that was asked for."""
        for peer in self._options.peers:
            if not peer.is_installed:
                self._leave_out(peer, "not installed")
        loads = [s for s in self._options.scenarios if isinstance(s, Load)]
        if loads:
            self._run_loads(loads)
        helds = [s for s in self._options.scenarios if isinstance(s, Held)]
        for _ in range(self._options.held_rounds):
            for held in helds:
                for peer in list(self._peers):
                    self._run_held(held, peer)

    # --- CPU time: all proxies are up, and take turns ---

    def _run_loads(self, loads: list[Load]) -> None:
        with ExitStack() as stack:
            contenders = self._start_all(stack)
            for turn in range(self._options.rounds):
                for load in loads:
                    self._run_turns(load, contenders, turn)

    def _start_all(self, stack: ExitStack) -> list[Contender]:
        contenders = []
        for peer in list(self._peers):
            try:
                contenders.append(self._start(peer, stack))
            except (BenchmarkError, OSError) as error:
                self._leave_out(peer, error)
        return contenders

    def _run_turns(self, load: Load, contenders: list[Contender], turn: int) -> None:
        """One scenario of one round; who is first changes with each round."""
        first = turn % len(contenders) if contenders else 0
        for contender in contenders[first:] + contenders[:first]:
            try:
                sample = self._meter.load(contender, load, self._options.seconds)
            except (BenchmarkError, OSError) as error:
                sample = Sample(fault=str(error))
            say(f"round {turn + 1} of {self._options.rounds}, ", end="")
            self._record(load, contender.peer, sample)
            if not contender.program.is_running:
                contenders.remove(contender)

    # --- memory: each time a proxy that was just started ---

    def _run_held(self, held: Held, peer: Peer) -> None:
        count = self._options.held
        if count > peer.most_held:
            say(f"{held.name}, {peer.name}: left out, {count} are more than it can hold")
            return
        with ExitStack() as stack:
            try:
                total = count + FIRST_HELD
                contender = self._start(peer, stack, total, 0 if held.answered else total)
            except (BenchmarkError, OSError) as error:
                self._leave_out(peer, error)
                return
            try:
                sample = self._meter.held(contender, held, count)
            except (BenchmarkError, OSError) as error:
                sample = Sample(fault=str(error))
        self._record(held, peer, sample)

    # --- shared by both ---

    def _start(self, peer: Peer, stack: ExitStack, held: int = 0, waiting: int = 0) -> Contender:
        """Start a proxy and see that it does its work."""
        setup = self._setup(peer, held, waiting)
        output = setup.access_log if peer.logs_to_output else setup.folder / "output.log"
        program = Program(
            peer.name,
            peer.command(setup),
            core=self._cores.proxy,
            errors=setup.folder / "error.log",
            output=output,
            folder=ROOT,
        )
        stack.enter_context(program)
        for port in (setup.tls_port, setup.plain_port):
            wait_for_port(program, port, START_SECONDS)
        try:
            check_work(setup)
        except (BenchmarkError, OSError) as error:
            raise BenchmarkError(f"it does not do the work: {error}\n{program.tail()}") from error
        return Contender(peer, setup, program)

    def _setup(self, peer: Peer, held: int, waiting: int) -> Setup:
        """An empty folder and free ports."""
        folder = self._folder / peer.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        tls_port, plain_port = free_ports(2)
        return Setup(
            folder=folder,
            tls_port=tls_port,
            plain_port=plain_port,
            members=self._meter.members.ports,
            certificate=self._certificate,
            key=self._key,
            held=held,
            waiting=waiting,
        )

    def _leave_out(self, peer: Peer, reason: object) -> None:
        """Say that and why a proxy is not measured, and go on without it."""
        self._peers.remove(peer)
        note = f"{peer.name} left out: {reason}"
        self._result.notes.append(first_line(note))
        say(note)

    def _record(self, scenario: Scenario, peer: Peer, sample: Sample) -> None:
        """Add a measurement to its row."""
        say(f"{scenario.name}, {peer.name}: {sample}")
        row = self._result.row(scenario.name, peer.name)
        row.costs.append(sample.cost)
        row.rates.append(sample.rate)
        row.busy.append(sample.busy)
        row.others.append(sample.others)
        if sample.fault:
            row.faults.append(first_line(sample.fault))


def first_line(text: str) -> str:
    """What a result file keeps of a fault; ends of logs, with their paths, are only shown."""
    return text.partition("\n")[0]


def say(text: str, end: str = "\n") -> None:
    """Progress goes to standard error, the report to standard output."""
    print(text, end=end, file=sys.stderr, flush=True)


@contextmanager
def alone() -> Iterator[None]:
    """Two runs at once would measure each other."""
    RESULTS.mkdir(exist_ok=True)
    folder = os.open(RESULTS, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise SystemExit("another run is under way") from None
    finally:
        os.close(folder)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A server certificate with an ECDSA P-256 key, as two files."""
    issued = trustme.CA(key_type=trustme.KeyType.ECDSA).issue_cert(
        "mail.zarafa.com", "127.0.0.1", key_type=trustme.KeyType.ECDSA
    )
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    issued.cert_chain_pems[0].write_to_path(certificate)
    key.touch(mode=0o600)
    issued.private_key_pem.write_to_path(key)
    return certificate, key


def machine(files: int) -> dict[str, str]:
    """What the figures depend on, without naming the machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {
        "CPU": next(models, "?"),
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "OpenSSL": ssl.OPENSSL_VERSION.split()[1],
        "open files": str(files),
    }


def parse(arguments: list[str] | None) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run")
    parser.add_argument("--rounds", type=int, help="turns of each proxy (5; quick: 1)")
    parser.add_argument("--seconds", type=float, help="length of a turn (2; quick: 1)")
    parser.add_argument("--held", type=int, help="connections held open (1000; quick: 500)")
    parser.add_argument("--only", nargs="+", metavar="SCENARIO", choices=list(SCENARIOS))
    parser.add_argument("--peers", nargs="+", metavar="PEER", choices=[p.name for p in PEERS])
    parser.add_argument("--quick", action="store_true", help="two minutes, for a first look")
    given = parser.parse_args(arguments)
    quick: bool = given.quick
    return Options(
        rounds=given.rounds or (1 if quick else 5),
        seconds=given.seconds or (1.0 if quick else 2.0),
        held=given.held or (500 if quick else 1000),
        held_rounds=1 if quick else 2,
        scenarios=tuple(s for s in SCENARIOS.values() if not given.only or s.name in given.only),
        peers=tuple(p for p in PEERS if not given.peers or p.name in given.peers),
    )


def measure(options: Options) -> report.Result:
    """The whole run."""
    result = report.Result(
        started=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        machine=machine(raise_file_limit()),
        versions={peer.name: peer.version() for peer in options.peers if peer.is_installed},
        options={"rounds": options.rounds, "seconds": options.seconds, "held": options.held},
    )
    with ExitStack() as stack:
        Bench(options, result, stack).run()
    return result


def main(arguments: list[str] | None = None) -> None:
    """Measure, save, print."""
    options = parse(arguments)
    # So that a plain kill, too, ends what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed")
    with alone():
        result = measure(options)
    path = RESULTS / f"{''.join(filter(str.isalnum, result.started))}.json"
    result.save(path)
    print(report.text(result))
    say(f"saved as results/{path.name}")


if __name__ == "__main__":
    main()
