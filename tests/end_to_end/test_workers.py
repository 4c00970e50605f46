"""Several workers serve as one: they share what comes, and one that dies or hangs is replaced."""

import asyncio
import contextlib
import logging
import os
import re
import signal
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.end_to_end.conftest import (
    NAME,
    PATIENCE,
    Authority,
    Dial,
    Launcher,
    Members,
    Proxy,
    request,
    until,
    until_async,
)
from tests.end_to_end.processes import (
    ask,
    holders,
    is_gone,
    is_replaced,
    listens,
    on_each,
    phase_of,
    port_of,
    serving,
    shake,
    status,
    status_of,
)
from tests.end_to_end.raw_client import RawClient
from tests.end_to_end.recording_member import Held, answer

pytestmark = pytest.mark.slow

log = logging.getLogger(__name__)

# `python -m` this runs balanceme with a constant changed.
ALTERED = "tests.end_to_end.altered"


@pytest.fixture
def news() -> Iterator[Held]:
    """What Pings wait for."""
    held = Held(answer(b"news"))
    yield held
    held.let.set()


def both_ways(
    serve: Launcher,
    members: Members,
    held: Held | None = None,
    *,
    program: Sequence[str] = ("-m", "proxy"),
    **top: object,
) -> Proxy:
    """A proxy with a TLS and a plain frontend for server1 and server2."""
    mapping = {"path": "/", "balancer": "cluster"}
    scripts = {} if held is None else {b"/ping": held}
    both = [members(name, scripts) for name in ("server1", "server2")]
    cluster = {
        "sticky_session": "BALANCEME",
        "session_cookie": {"domain": "example.org"},
        "members": [
            {"url": f"http://{each.authority.decode()}", "route": each.name} for each in both
        ],
    }
    # Nobody is sent away for being idle while a test looks at something else.
    patient = {"timeouts": {"keep_alive": "60s"}}
    frontends = [serve.frontend(mapping, tls=tls) | patient for tls in (True, False)]
    return serve.run({"frontends": frontends, "balancers": {"cluster": cluster}, **top}, program)


# --- what they share -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "count"),
    [(2, 2), (4, 4), ("auto", len(os.sched_getaffinity(0)))],
    ids=["2", "4", "auto"],
)
def test_workers_start(
    wanted: int | str, count: int, serve: Launcher, members: Members, dial: Dial
) -> None:
    """So many workers serve from sockets that the supervisor opened; it has no clients itself."""
    proxy = both_ways(serve, members, workers=wanted)
    clients = [dial(proxy, frontend=frontend) for frontend in (0, 1) for _ in range(2 * count)]
    for client in clients:
        assert ask(client).status_line == b"HTTP/1.1 200 OK"
    found = status(proxy)
    assert [each["number"] for each in found["workers"]] == list(range(1, count + 1))
    assert {each["pid"] for each in found["workers"]} == set(proxy.workers)
    assert {(each["phase"], each["generation"]) for each in found["workers"]} == {("serving", 1)}
    assert max(each["heartbeat"] for each in found["workers"]) < PATIENCE
    assert (found["pid"], found["phase"], found["generation"]) == (proxy.pid, "serving", 1)
    assert found["connections"] <= len(clients)  # since the last heartbeat
    for frontend in (0, 1):
        (shared,) = listens(proxy.pid, proxy, frontend)
        assert [listens(pid, proxy, frontend) for pid in proxy.workers] == [{shared}] * count
        held = holders(proxy, frontend)
        assert len(held) == 2 * count
        assert proxy.pid not in held.values()


def test_start_says_how_many_fit(serve: Launcher, members: Members, dial: Dial) -> None:
    """max_connections is divided over the workers; the first line says how many fit in all."""
    proxy = both_ways(serve, members, workers=4, max_connections=40)
    assert "with 4 workers, with room for 40 connections" in proxy.stderr()
    let_in: list[RawClient] = []

    def come() -> bool:
        """One more client; whether all are there for whom there is room."""
        with contextlib.suppress(ConnectionResetError):
            client = dial(proxy, frontend=1)
            if ask(client).status_line == b"HTTP/1.1 200 OK":
                let_in.append(client)
        return len(let_in) == 40

    until(come, "all are let in for whom there is room")
    for _ in range(20):
        come()
    assert len(let_in) == 40
    until(lambda: connections(proxy) == [10] * 4, "each worker has its part")
    assert "connections refused: max_connections allows this worker 10" in proxy.stderr()


def test_room_is_what_files_allow(serve: Launcher, members: Members) -> None:
    """More than the limit of open files allows is not promised, whatever max_connections says."""
    proxy = both_ways(serve, members, workers=2, max_connections=10**9)
    text = re.search(r"with room for (\d+) connections", proxy.stderr())
    assert text is not None
    assert int(text[1]) < 10**9


def connections(proxy: Proxy) -> list[int]:
    """How many connections each worker has, by its last heartbeat."""
    return [each["connections"] for each in status(proxy)["workers"]]


async def test_connections_are_spread(serve: Launcher, members: Members) -> None:
    """Connections that stay are spread evenly, whether they come one by one or all at once."""
    proxy = both_ways(serve, members, workers=4)
    writers: list[asyncio.StreamWriter] = []

    async def come() -> None:
        reader, writer = await asyncio.open_connection(*proxy.address(1))
        writers.append(writer)
        writer.write(request("/"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")

    for _ in range(200):
        await come()
    await until_async(lambda: sum(connections(proxy)) == 200, "all are counted")
    one_by_one = connections(proxy)
    for _ in range(4):
        await asyncio.gather(*[come() for _ in range(50)])
    await until_async(lambda: sum(connections(proxy)) == 400, "all are counted")
    at_once = connections(proxy)
    log.info("200 one by one: %s; 200 more at once: %s", one_by_one, at_once)
    assert max(one_by_one) - min(one_by_one) <= 8
    assert max(at_once) - min(at_once) <= 12
    for writer in writers:
        writer.close()
        await writer.wait_closed()


# --- a worker dies -------------------------------------------------------------------------------


class Walker:
    """A client that keeps its connection and its cookie, and asks one thing after another."""

    def __init__(self, proxy: Proxy) -> None:
        self._address = proxy.address(1)
        self._cookie = ""
        self._writer: asyncio.StreamWriter | None = None
        self.port = 0
        self.stopped = False
        self.lost = 0
        """Connections that were lost."""
        self.served: list[str] = []
        """By whom, in turn."""

    async def walk(self) -> None:
        """Go on until stopped; whoever refuses a connection ends the test."""
        while not self.stopped:
            reader, self._writer = await asyncio.open_connection(*self._address)
            self.port = self._writer.get_extra_info("sockname")[1]
            try:
                while not self.stopped:
                    self._writer.write(request("/", *([self._cookie] if self._cookie else [])))
                    self._take(await reader.readuntil(b"\r\n\r\n"), await reader.readexactly(7))
            except (ConnectionError, asyncio.IncompleteReadError):
                self.lost += 1
            finally:
                self._writer.close()
                with contextlib.suppress(ConnectionError):
                    await self._writer.wait_closed()

    def _take(self, head: bytes, body: bytes) -> None:
        assert head.startswith(b"HTTP/1.1 200 "), head
        found = re.search(rb"Set-Cookie: (BALANCEME=[^;]+)", head)
        if found:
            self._cookie = f"Cookie: {found[1].decode()}"
        self.served.append(body.decode())


@pytest.fixture
async def walkers() -> AsyncIterator[Callable[[Proxy, int], list[Walker]]]:
    """Lets so many clients walk until the test ends."""
    walking: list[tuple[Walker, asyncio.Task[None]]] = []

    def let(proxy: Proxy, count: int) -> list[Walker]:
        new = [Walker(proxy) for _ in range(count)]
        walking.extend((each, asyncio.create_task(each.walk())) for each in new)
        return new

    yield let
    for walker, _ in walking:
        walker.stopped = True
    await asyncio.gather(*[task for _, task in walking])


async def test_killed_worker(
    serve: Launcher,
    members: Members,
    dial: Dial,
    news: Held,
    walkers: Callable[[Proxy, int], list[Walker]],
) -> None:
    """A worker killed by SIGKILL costs its own connections alone, and is replaced (H91).

    Nobody is refused meanwhile, sessions stay, and what the others have under way goes on.
    """
    proxy = both_ways(serve, members, news, workers=2)
    victim, other = proxy.workers
    pings = on_each(proxy, lambda: dial(proxy))
    for ping in pings.values():
        ping.send(request("/ping"))
    walking: list[Walker] = []

    def come() -> bool:
        """Two more; whether each worker has some of enough."""
        walking.extend(walkers(proxy, 2))
        held = holders(proxy, 1)
        return len(walking) > 8 and {victim, other} <= {held.get(each.port) for each in walking}

    await until_async(come, "each worker has some")
    await until_async(lambda: all(len(each.served) > 10 for each in walking), "all walk")
    held = holders(proxy, 1)
    with_victim = [each for each in walking if held[each.port] == victim]
    before = len(walking[0].served)
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    # Each new one comes after the kill, and before or after it is replaced.
    newcomers = walkers(proxy, 8)
    await until_async(lambda: is_replaced(proxy, victim, 2), "another one serves")
    log.info("another worker serves %.3f s after the kill", time.monotonic() - killed)
    workers = serving(proxy)
    assert other in workers
    more = [*newcomers, *walkers(proxy, 8)]
    await until_async(lambda: all(len(each.served) > 10 for each in more), "newcomers walk")
    await until_async(lambda: all(len(each.served) > before + 20 for each in walking), "all walk")
    assert [each.lost for each in walking] == [int(each in with_victim) for each in walking]
    assert [each.lost for each in more] == [0] * 16
    for each in [*walking, *more]:
        assert len(set(each.served)) == 1
    new = next(pid for pid in workers if pid != other)
    await until_async(lambda: new in holders(proxy, 1).values(), "the new one has clients")
    news.let.set()
    assert pings[other].read_response(b"GET").body == b"news"
    assert pings[victim].wait_closed(PATIENCE)
    text = f"worker 1 (process {victim}) has ended unasked, by signal SIGKILL; another takes its"
    assert proxy.stderr().count(text) == 1


def test_worker_that_dies_again_and_again(serve: Launcher, members: Members, dial: Dial) -> None:
    """One that dies in a loop is replaced after growing pauses; the log counts, the rest serves."""
    proxy = both_ways(serve, members, workers=2)
    first, other = proxy.workers
    client = on_each(proxy, lambda: dial(proxy))[other]
    victims, times = [first], [0.0]
    for _ in range(3):
        os.kill(victims[-1], signal.SIGKILL)
        until(lambda: victims[-1] not in proxy.workers, "it is gone")  # noqa: B023 - called now
        assert ask(client).body in (b"server1", b"server2")
        assert ask(dial(proxy)).body in (b"server1", b"server2")
        # Not even a worker that still starts is spared.
        until(lambda: len(proxy.workers) == 2, "another one is there")
        times.append(time.monotonic())
        victims += [pid for pid in proxy.workers if pid != other]
    until(lambda: len(serving(proxy)) == 2, "the last one serves")
    assert set(serving(proxy)) == {other, victims[-1]}
    assert ask(client).status_line == b"HTTP/1.1 200 OK"
    said = re.findall(
        r"ERROR worker 1 \(process (\d+)\) has ended unasked, by signal SIGKILL;"
        r" another takes its place (.+)",
        proxy.stderr(),
    )
    whens = ["now"] + [f"in {2**n} s, since {n + 2} ended soon" for n in range(2)]
    assert said == list(zip(map(str, victims[:3]), whens, strict=True))
    assert times[3] - times[1] > 1 + 2 - 0.1


# --- a worker or all of us stand still -----------------------------------------------------------


def hung(serve: Launcher, members: Members) -> Proxy:
    """A proxy with two workers that counts them as hung sooner than usual."""
    seconds = float(os.environ.get("BALANCEME_HUNG", "2"))
    program = ("-m", ALTERED, f"proxy.control.workers.HUNG={seconds}")
    return both_ways(serve, members, workers=2, program=program)


@pytest.fixture
def frozen() -> Iterator[Callable[[int], None]]:
    """Freezes processes until the test ends."""
    pids: list[int] = []

    def freeze(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        until(lambda: phase_of(pid) == "T", "it stands still")
        pids.append(pid)

    yield freeze
    for pid in pids:
        if not is_gone(pid):
            os.kill(pid, signal.SIGCONT)


def test_frozen_worker(
    serve: Launcher, members: Members, dial: Dial, frozen: Callable[[int], None]
) -> None:
    """A worker without a heartbeat is killed and replaced; others serve meanwhile (H91)."""
    proxy = hung(serve, members)
    victim, other = proxy.workers
    clients = on_each(proxy, lambda: dial(proxy))
    frozen(victim)
    begun = time.monotonic()
    clients[victim].send(request("/"))
    served = 0
    while victim in proxy.workers:
        assert ask(clients[other]).status_line == b"HTTP/1.1 200 OK"
        newcomer = dial(proxy)
        assert ask(newcomer).status_line == b"HTTP/1.1 200 OK"
        newcomer.close()
        served += 1
        assert time.monotonic() < begun + 3 * PATIENCE
    log.info("ended %.1f s after it froze; %d others served", time.monotonic() - begun, served)
    until(lambda: len(serving(proxy)) == 2, "another takes its place")
    assert other in serving(proxy)
    assert clients[victim].wait_closed(PATIENCE)
    text = rf"ERROR worker 1 \(process {victim}\) hangs: no heartbeat for \d+ s; it is killed"
    assert len(re.findall(text, proxy.stderr())) == 1
    assert proxy.stderr().count("has ended unasked, by signal SIGKILL; another takes its") == 1


def test_frozen_supervisor(
    serve: Launcher, members: Members, dial: Dial, frozen: Callable[[int], None]
) -> None:
    """Traffic goes on beside a supervisor that stands still; when it wakes it kills nobody.

    Not even if the workers stood still as well, and longer than they may: they had no chance.
    """
    proxy = hung(serve, members)
    workers = proxy.workers
    clients = on_each(proxy, lambda: dial(proxy))
    frozen(proxy.pid)
    for client in [*clients.values(), dial(proxy)]:
        assert ask(client).status_line == b"HTTP/1.1 200 OK"
    for pid in workers:
        frozen(pid)
    begun = time.monotonic()
    until(lambda: time.monotonic() > begun + 3, "time passes")
    os.kill(proxy.pid, signal.SIGCONT)
    until(lambda: phase_of(proxy.pid) == "S", "the supervisor has looked")
    for pid in workers:
        os.kill(pid, signal.SIGCONT)
    woken = time.monotonic()
    until(lambda: time.monotonic() > woken + 2.5, "it looks twice more")
    assert proxy.workers == serving(proxy) == workers
    for client in clients.values():
        assert ask(client).status_line == b"HTTP/1.1 200 OK"
    assert "killed" not in proxy.stderr()


# --- the supervisor dies -------------------------------------------------------------------------


def busy(proxy: Proxy) -> int:
    """How many exchanges are under way, by the last heartbeats."""
    return sum(int(status_of(proxy, name)["busy"]) for name in ("server1", "server2"))


def test_killed_supervisor(
    serve: Launcher, members: Members, dial: Dial, news: Held, tmp_path: Path
) -> None:
    """Without their supervisor workers accept no more, finish what is under way, and end.

    Another balanceme can start at once in its place: on the same ports, with the same files.
    """
    pid_file = tmp_path / "balanceme.pid"
    proxy = both_ways(serve, members, news, workers=2, pid_file=str(pid_file), stop_timeout="60s")
    orphans = proxy.workers
    pings, idle = on_each(proxy, lambda: dial(proxy)), dial(proxy)
    for ping in pings.values():
        ping.send(request("/ping"))
    assert ask(idle).status_line == b"HTTP/1.1 200 OK"
    until(lambda: busy(proxy) == 2, "both wait for news")
    proxy.signal(signal.SIGKILL)
    proxy.wait()
    proxy.settings["stop_timeout"] = "500ms"
    proxy.start()
    assert pid_file.read_text() == f"{proxy.pid}\n"
    assert status(proxy)["pid"] == proxy.pid
    assert idle.wait_closed(PATIENCE)
    idle.close()
    assert not any(is_gone(pid) for pid in orphans)
    for _ in range(8):
        client = dial(proxy)
        assert ask(client).status_line == b"HTTP/1.1 200 OK"
        assert holders(proxy)[port_of(client._socket)] in proxy.workers
    news.let.set()
    for ping in pings.values():
        assert ping.read_response(b"GET").body == b"news"
        ping.close()
    until(lambda: all(map(is_gone, orphans)), "the orphans end")
    assert proxy.stderr().count("the supervisor is gone; this worker stops gracefully") == 2
    # What doesn't end within stop_timeout is cut.
    news.let.clear()
    orphans, ping = proxy.workers, dial(proxy)
    ping.send(request("/ping"))
    until(lambda: busy(proxy) == 1, "it waits for news")
    proxy.signal(signal.SIGKILL)
    proxy.wait()
    assert ping.wait_closed(PATIENCE)
    until(lambda: all(map(is_gone, orphans)), "the orphans end")


# --- TLS sessions --------------------------------------------------------------------------------


def resumed_by(
    proxy: Proxy, context: ssl.SSLContext, session: ssl.SSLSession, frontend: int = 0
) -> set[int]:
    """The workers, all there are, with whom a client goes on with its session."""
    found: set[int] = set()
    clients: list[ssl.SSLSocket] = []

    def found_all() -> bool:
        clients.append(shake(proxy, context, session, frontend))
        found.add(holders(proxy, frontend)[port_of(clients[-1])])
        return found == set(proxy.workers)

    until(found_all, "each worker has a client")
    assert [each.session_reused for each in clients] == [True] * len(clients)
    log.info("each worker has a client of %d", len(clients))
    for each in clients:
        each.close()
    return found


@pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"]
)
def test_tickets(
    version: ssl.TLSVersion, serve: Launcher, members: Members, authority: Authority
) -> None:
    """A TLS session goes on with every worker, whichever began it.

    Also after a reload, at a frontend that a reload added, and with a worker that replaced another.
    """
    proxy = both_ways(serve, members, workers=2)
    context = authority.trust()
    context.minimum_version = context.maximum_version = version

    def begun(frontend: int = 0) -> ssl.SSLSession:
        with shake(proxy, context, None, frontend) as client:
            assert not client.session_reused
            assert client.session is not None
            return client.session

    first = begun()
    assert resumed_by(proxy, context, first) == set(proxy.workers)
    proxy.settings["frontends"].append(
        serve.frontend({"path": "/", "balancer": "cluster"}) | {"server_name": NAME}
    )
    proxy.reload()
    assert resumed_by(proxy, context, first) == set(proxy.workers)
    added = begun(2)
    assert resumed_by(proxy, context, added, 2) == set(proxy.workers)
    victim = proxy.workers[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: is_replaced(proxy, victim, 2), "it is replaced")
    assert resumed_by(proxy, context, first) == set(proxy.workers)
    assert resumed_by(proxy, context, added, 2) == set(proxy.workers)
    latest = begun(2)
    assert resumed_by(proxy, context, latest, 2) == set(proxy.workers)
