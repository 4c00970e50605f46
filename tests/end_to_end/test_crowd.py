"""However many are slow or wait, who comes next is served at once (H39, H71).

``BALANCEME_PINGS=9000 BALANCEME_SLOW=500`` make it as large as a descriptor limit of 20,000 allows;
``--log-cli-level=INFO`` shows the memory for each of them, and how long the others took.
"""

import asyncio
import logging
import os
import resource
import ssl
from collections.abc import Callable, Iterator, Sequence
from statistics import quantiles
from time import perf_counter
from typing import cast

import pytest
import uvloop

from tests.end_to_end.conftest import HOST, NAME, Launcher, Proxy, request, settled, until_async

pytestmark = pytest.mark.slow

log = logging.getLogger(__name__)

PINGS = int(os.environ.get("BALANCEME_PINGS", "2000"))
SLOW = int(os.environ.get("BALANCEME_SLOW", "2000"))
OTHERS = 50
# Clients that connect at the same time.
AT_ONCE = 100
# How long, in seconds, something may take that goes on all the time: for slow machines only.
PATIENCE = 60.0

PING = request("/Microsoft-Server-ActiveSync?Cmd=Ping", method="POST", body=b"news?")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnews"


class PingMember(asyncio.Protocol):
    """A member that has no news for Pings until it is told so; everything else it answers."""

    def __init__(self, crowd: "Crowd") -> None:
        self._crowd = crowd
        self._transport = cast(asyncio.Transport, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection from the proxy."""
        self._transport = cast(asyncio.Transport, transport)
        self._crowd.connections.add(self._transport)

    def data_received(self, data: bytes) -> None:
        """A request, whole."""
        if b"Cmd=Ping" in data:
            self._crowd.pings.add(self._transport)
        else:
            self._transport.write(ANSWER)

    def connection_lost(self, exc: Exception | None) -> None:
        """The proxy has closed."""
        self._crowd.connections.discard(self._transport)


class Waiter(asyncio.Protocol):
    """A client that sends something, and may send more; it counts those that were answered."""

    answered = 0
    lost = 0

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.transport = cast(asyncio.Transport, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """All it has to say for now."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._data)

    def data_received(self, data: bytes) -> None:
        """An answer, whole."""
        Waiter.answered += data.startswith(b"HTTP/1.1 200 ")

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed, by whomever."""
        Waiter.lost += 1


class Crowd:
    """All the clients of one proxy, and its member."""

    def __init__(self, proxy: Proxy, trust: ssl.SSLContext) -> None:
        self.proxy = proxy
        # of members
        self.connections: set[asyncio.Transport] = set()
        self.pings: set[asyncio.Transport] = set()
        self._trust = trust
        self._all: list[Waiter] = []

    async def come(self, count: int, data: bytes, *, tls: bool) -> list[Waiter]:
        """So many more clients, who stay."""
        numbers = iter(range(count))
        came: list[Waiter] = []

        async def some() -> None:
            for _ in numbers:
                _, waiter = await asyncio.get_running_loop().create_connection(
                    lambda: Waiter(data),
                    *self.proxy.address(0 if tls else 1),
                    ssl=self._trust if tls else None,
                    server_hostname=NAME if tls else None,
                )
                came.append(waiter)

        await asyncio.gather(*[some() for _ in range(AT_ONCE)])
        self._all += came
        return came

    async def others(self, name: str, slow: Sequence[Waiter] = ()) -> None:
        """Serve some others, one after the other; before each, all the slow ones send a byte."""
        times = []
        for _ in range(OTHERS):
            for waiter in slow:
                waiter.transport.write(b"x")
            begun = perf_counter()
            reader, writer = await asyncio.open_connection(
                *self.proxy.address(), ssl=self._trust, server_hostname=NAME
            )
            writer.write(request("/mail", "Connection: close"))
            assert (await asyncio.wait_for(reader.read(), PATIENCE)).endswith(b"\r\n\r\nnews")
            times.append(1000 * (perf_counter() - begun))
            writer.close()
            await writer.wait_closed()
        tenths = quantiles(times, n=10)
        figures = tenths[4], tenths[8], max(times)
        log.info("%s: median %.1f ms, 90 of 100 %.1f ms, at most %.1f ms", name, *figures)

    def close_connections(self) -> None:
        """Close all the member's connections."""
        for transport in self.connections:
            transport.abort()

    async def leave(self) -> None:
        """End them all; an event loop must not end before them."""
        self.close_connections()
        for waiter in self._all:
            waiter.transport.abort()
        await until_async(
            lambda: not self.connections and Waiter.lost == len(self._all), "all have left"
        )


async def serve_others(crowd: Crowd) -> None:
    """Serve others while all the rest is there; then answer the Pings."""
    proxy = crowd.proxy
    memory = proxy.memory("RssAnon")
    await crowd.come(PINGS, PING, tls=True)
    await until_async(lambda: len(crowd.pings) == PINGS, "all Pings wait", PATIENCE)
    log.info("%.1f KiB a Ping", (proxy.memory("RssAnon") - memory) / PINGS / 1024)
    memory = proxy.memory("RssAnon")
    head = request("/slow")[:-2] + b"X-Slow: "
    slow = [
        *await crowd.come(SLOW // 2, head, tls=True),
        *await crowd.come(SLOW - SLOW // 2, head, tls=False),
    ]
    await until_async(lambda: proxy.descriptors() >= 2 * PINGS + SLOW, "all are there")
    log.info("%.1f KiB a slow client", (proxy.memory("RssAnon") - memory) / SLOW / 1024)
    await crowd.others("beside a quiet crowd")
    await crowd.others("beside a busy crowd", slow)
    assert Waiter.lost == Waiter.answered == 0
    for transport in list(crowd.pings):
        transport.write(ANSWER)
    await until_async(lambda: Waiter.answered == PINGS, "all Pings are answered", PATIENCE)


async def gather_crowd(proxy: Proxy, port: int, trust: ssl.SSLContext) -> None:
    """Do it, and let nobody stay."""
    Waiter.answered = Waiter.lost = 0
    crowd = Crowd(proxy, trust)
    server = await asyncio.get_running_loop().create_server(
        lambda: PingMember(crowd), HOST, port, backlog=4096
    )
    try:
        await crowd.others("alone")
        crowd.close_connections()
        before = await settled(proxy.descriptors)
        await serve_others(crowd)
    finally:
        server.close()
        await crowd.leave()
    await until_async(lambda: proxy.descriptors() <= before, "all connections are closed")


@pytest.fixture
def files() -> Iterator[None]:
    """As many open files for this process as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * PINGS + SLOW + 200
    if hard < needed:
        pytest.skip(f"needs {needed} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("files")
def test_crowd(serve: Launcher, free_port: Callable[[], int], trust: ssl.SSLContext) -> None:
    """Thousands of slow clients and of Pings hold nobody up, and are answered in the end (H71)."""
    port = free_port()
    mapping = {"path": "/", "balancer": "cluster"}
    patient = {"handshake": "60s", "head": "120s"}
    frontends = [{**serve.frontend(mapping, tls=tls), "timeouts": patient} for tls in (True, False)]
    members = [{"url": f"http://{HOST}:{port}"}]
    proxy = serve.run({"frontends": frontends, "balancers": {"cluster": {"members": members}}})
    uvloop.run(gather_crowd(proxy, port, trust))
