"""What several workers bring: ``python -m benchmarks.workers [--rounds N] [--seconds N]``.

Two questions. How much do two workers on two cores carry, against one? A machine with two cores has
none left for load and members, so it is answered by CPU time, with all workers on one core: if a
request costs no more with two workers than with one, they get in each other's way nowhere, and two
cores carry 2 x (the cost with one) / (the cost with two). And how evenly are connections spread
that stay? That is asked of bare processes that share one listening socket, or have one each
(SO_REUSEPORT), and of our workers, who share one and let those first that have fewer clients.
"""

import argparse
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import cast

from benchmarks import report
from benchmarks.measure import ROOT
from benchmarks.peers import Balanceme
from benchmarks.processes import BenchmarkError, Program, free_ports, raise_file_limit
from benchmarks.run import Bench, Options, alone, say
from benchmarks.scenarios import SCENARIOS, Load

LOAD = cast(Load, SCENARIOS["sticky_tls"])
# As many connections for each worker; with fewer a turn of its loop has less to do at once.
TWICE = replace(LOAD, name="sticky_tls_twice", connections=2 * LOAD.connections)
# Of one go, as our acceptor takes them.
_BATCH = 8
_SETTLE_SECONDS = 1.5
_SPREAD = """\
workers: {workers}
access_log: null
frontends:
  - listen: 127.0.0.1:{port}
    mappings: [{{path: /, balancer: nobody}}]
    timeouts: {{head: 60s}}
balancers:
  nobody: {{members: [{{url: "http://127.0.0.1:9"}}]}}
"""


# --- how much they carry -------------------------------------------------------------------------


class One(Balanceme):
    """The proxy with one worker."""

    name = "one worker"


class Two(Balanceme):
    """The proxy with two."""

    name = "two workers"
    workers = 2


def capacity(rounds: int, seconds: float) -> str:
    """What two workers carry, as a multiple of one."""
    one, two = One(), Two()
    options = Options(rounds, seconds, 0, 0, (LOAD, TWICE), (one, two))
    result = report.Result("", {}, {}, {})
    with ExitStack() as stack:
        Bench(options, result, stack).run()
    alone_row, both_row = result.row(LOAD.name, one.name), result.row(TWICE.name, two.name)
    pairs = zip(alone_row.costs, both_row.costs, strict=True)
    ratios = [2 * cost / both for cost, both in pairs if cost and both]
    if not ratios:
        raise BenchmarkError(f"nothing was measured: {result.rows}")
    return (
        f"two workers carry {median(ratios):.2f} times one (rounds:"
        f" {', '.join(f'{ratio:.2f}' for ratio in ratios)}): {alone_row.cost:.1f} µs CPU a request"
        f" with one, {both_row.cost:.1f} µs with two and twice the connections"
    )


# --- how evenly connections are spread -----------------------------------------------------------


@dataclass
class Arrivals:
    """How clients connect."""

    name: str
    connect: Callable[[int, int], list[socket.socket]]


def _one_by_one(port: int, count: int) -> list[socket.socket]:
    made = []
    for _ in range(count):
        made.append(socket.create_connection(("127.0.0.1", port)))
        time.sleep(0.002)
    return made


def _at_once(port: int, count: int) -> list[socket.socket]:
    return [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]


ARRIVALS = (Arrivals("one by one", _one_by_one), Arrivals("at once", _at_once))


def _accept_for_ever(listening: socket.socket) -> None:
    """A bare worker: epoll, and a batch of connections that it keeps."""
    listening.settimeout(0)
    poll = select.epoll()
    poll.register(listening)
    kept = []
    while True:
        poll.poll()
        for _ in range(_BATCH):
            try:
                kept.append(listening.accept()[0])
            except BlockingIOError:
                break


def _sockets(pid: int) -> int:
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += str(entry.readlink()).startswith("socket:")
        except FileNotFoundError:
            pass
    return found


def _spread(pids: Sequence[int], port: int, arrivals: Arrivals, count: int) -> list[int]:
    before = [_sockets(pid) for pid in pids]
    held = arrivals.connect(port, count)
    time.sleep(_SETTLE_SECONDS)
    after = [_sockets(pid) for pid in pids]
    for sock in held:
        sock.close()
    return [now - then for now, then in zip(after, before, strict=True)]


def bare(workers: int, arrivals: Arrivals, count: int, *, reuse: bool) -> list[int]:
    """Connections of each bare process."""
    (port,) = free_ports(1)
    listening = [_listen(port) for _ in range(workers if reuse else 1)]
    pids = []
    for number in range(workers):
        pid = os.fork()
        if pid == 0:
            _accept_for_ever(listening[number if reuse else 0])
        pids.append(pid)
    try:
        return _spread(pids, port, arrivals, count)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for sock in listening:
            sock.close()


def _listen(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(4096)
    return sock


def ours(workers: int, arrivals: Arrivals, count: int) -> list[int]:
    """Connections of each of our workers."""
    (port,) = free_ports(1)
    with TemporaryDirectory(prefix="benchmarks-") as name:
        folder = Path(name)
        config = folder / "balanceme.yaml"
        config.write_text(_SPREAD.format(workers=workers, port=port))
        command = [sys.executable, "-m", "proxy", "run", str(config)]
        command += ["--socket", str(folder / "control.sock")]
        log = folder / "log"
        with Program("balanceme", command, core=None, errors=log, folder=ROOT) as program:
            while "serving on" not in log.read_text():
                if not program.is_running:
                    raise BenchmarkError(program.tail())
                time.sleep(0.05)
            pids = sorted(program.family())[1:]
            return _spread(pids, port, arrivals, count)


def spread(workers: int, count: int) -> str:
    """A table: connections of each process, by how they share and how clients come."""
    lines = [f"{count} connections over {workers} processes, of each:"]
    for arrivals in ARRIVALS:
        found = {
            "one socket": bare(workers, arrivals, count, reuse=False),
            "SO_REUSEPORT": bare(workers, arrivals, count, reuse=True),
            "balanceme": ours(workers, arrivals, count),
        }
        lines += [f"{arrivals.name:12}{name:14}{json.dumps(of)}" for name, of in found.items()]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    given = parser.parse_args()
    raise_file_limit()
    with alone():
        print(spread(4, 400), flush=True)
        print(capacity(given.rounds, given.seconds))
    say("done")


if __name__ == "__main__":
    main()
