"""What a table of live sessions takes: ``python -m benchmarks.sessions [--count 100000]``.

Memory by tracemalloc, of a table filled with sessions of random keys that all are alive; times are
the best of several runs. Pauses are the longest time that a loop stands still for one step.
"""

import argparse
import gc
import random
import time
import tracemalloc
from collections.abc import Callable, Sequence

from proxy.core.choice import Choice, Reason, Session
from proxy.core.live_sessions import LiveSessions, merged

NOW = 1000.0
ELECTED = Choice(None, Session.NEW, Reason.ELECTED, None, None)
UNUSABLE = Choice(None, Session.MOVED, Reason.UNUSABLE, None, None)
MEMBERS = ("server1", "server2")
# Requests in a run that is timed, and runs of which the best one counts.
REQUESTS = 10_000
RUNS = 7


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sessions")
    parser.add_argument("--count", type=int, default=100_000, help="sessions (default: 100000)")
    count = parser.parse_args(arguments).count
    keys = random.Random(1).sample(range(1, 1 << 62), count)
    for events in (1, 2, 8):
        taken = memory(keys, events) / count
        print(f"{events} event{'s' if events > 1 else ' '}: {taken:6.0f} bytes a session")
    times(keys)
    pauses(keys)


def filled(keys: Sequence[int], events: int = 1) -> LiveSessions:
    """A table in which each session came to a member so many times."""
    table = LiveSessions(3600.0)
    # keys and times are each request's own objects, as they are in a worker
    for number in range(events):
        choice = UNUSABLE if number else ELECTED
        for key in keys:
            table.note(key + 0, NOW + number + key % 1000 / 1000, MEMBERS[number % 2], choice)
    return table


def memory(keys: Sequence[int], events: int) -> int:
    """Bytes of a table, with all it holds; the keys are its own."""
    gc.collect()
    tracemalloc.start()
    table = filled([], 0)
    for number in range(events):
        choice = UNUSABLE if number else ELECTED
        for key in keys:
            own = int.from_bytes(key.to_bytes(8, "little"), "little")
            table.note(own, NOW + number + key % 1000 / 1000, MEMBERS[number % 2], choice)
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return taken


def best(run: Callable[[], object]) -> float:
    """Seconds of the best of several runs."""
    found = []
    for _ in range(RUNS):
        began = time.perf_counter()
        run()
        found.append(time.perf_counter() - began)
    return min(found)


def times(keys: Sequence[int]) -> None:
    """What requests pay."""
    table = filled(keys)
    some = random.Random(2).sample(keys, min(REQUESTS, len(keys)))

    def known() -> None:
        for key in some:
            table.note(key, NOW + 10, MEMBERS[0], ELECTED)

    def new() -> None:
        fresh = LiveSessions(3600.0)
        for key in some:
            fresh.note(key, NOW, MEMBERS[0], ELECTED)

    print(f"request of a known session: {best(known) / len(some) * 1e6:5.2f} µs")
    print(f"request of a new session:   {best(new) / len(some) * 1e6:5.2f} µs")


def pauses(keys: Sequence[int]) -> None:
    """What it takes to tell and to join tables, in one step and in all."""
    tables = [filled(keys), filled(keys)]
    pieces = [[], []]  # type: list[list[bytes]]

    def steps(next_step: Callable[[int], object], count: int) -> tuple[float, float]:
        found = []
        for number in range(count):
            began = time.perf_counter()
            next_step(number)
            found.append(time.perf_counter() - began)
        return max(found), sum(found)

    def told() -> tuple[float, float]:
        pieces[0], pieces[1] = [], list(tables[1].packed(NOW + 20))
        packing = tables[0].packed(NOW + 20)
        return steps(lambda _: pieces[0].append(next(packing)), len(pieces[1]))

    def join() -> tuple[float, float]:
        return steps(
            lambda number: merged((MEMBERS, each[number]) for each in pieces), len(pieces[0])
        )

    for what, run in (("a table is told", told), ("two tables are joined", join)):
        longest, whole = min(run() for _ in range(RUNS))
        print(f"{what}: {whole * 1e3:.0f} ms in all, {longest * 1e3:.2f} ms at once")
    print(f"bytes told of a session: {sum(map(len, pieces[0])) / len(keys):.1f}")


if __name__ == "__main__":
    main()
