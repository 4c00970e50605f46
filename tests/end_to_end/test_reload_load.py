"""Reloads under load: no request fails, no connection is refused, and nothing grows.

``RELOADS=200`` in the environment makes it the full size; with ``--log-cli-level=INFO`` pytest
shows what was measured.
"""

import asyncio
import copy
import logging
import os
import ssl
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack

import pytest

from proxy.admin import client as admin
from tests.end_to_end.conftest import HOST, NAME, Launcher, Proxy, Yaml, settled
from tests.end_to_end.reloads import Footprint, footprint, generations, write
from tests.end_to_end.storm import MARK, Answer, Listening

pytestmark = pytest.mark.slow

log = logging.getLogger(__name__)

RELOADS = int(os.environ.get("RELOADS", "40"))
KIB = 1024
BODY = b"x" * 3000 + MARK
# Bytes that a process may have more in the end: for each reload, whose settings take far more, and
# for pages that are hardly used.
LEFT = 4 * KIB
UNUSED = 512 * KIB


class Load:
    """Clients that keep their connection, clients that come anew each time, GETs and POSTs."""

    def __init__(self, proxy: Proxy, trust: ssl.SSLContext) -> None:
        self._proxy = proxy
        self._trust = trust
        # set for all to end with the request they are at
        self.stopping = asyncio.Event()
        self.answered: Counter[str] = Counter()

    async def run(self) -> None:
        """Ask until ``stop``; whatever goes wrong ends it."""
        async with asyncio.TaskGroup() as group:
            for frontend in (0, 1):
                for number in range(4):
                    group.create_task(self._client(frontend, f"server{number % 2 + 1}", 1000))
                    group.create_task(self._client(frontend, "", 1))

    async def _client(self, frontend: int, route: str, requests: int) -> None:
        """Connections with so many requests each, one after the other."""
        while not self.stopping.is_set():
            host, port = self._proxy.address(frontend)
            tls = self._trust if frontend == 0 else None
            reader, writer = await asyncio.open_connection(
                host, port, ssl=tls, server_hostname=NAME if tls else None
            )
            for _ in range(requests):
                await self._exchange(reader, writer, route)
                if self.stopping.is_set():
                    break
            writer.transport.abort()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, route: str
    ) -> None:
        cookie = f"Cookie: BALANCEME=balancer.{route}\r\n" if route else ""
        line = f"/ HTTP/1.1\r\nHost: {NAME}\r\n{cookie}"
        if self.answered.total() % 3:
            writer.write(f"GET {line}\r\n".encode())
        else:
            writer.write(f"POST {line}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status = head.split(" ")[1]
        assert status == "200", head
        length = int(head.lower().partition("content-length: ")[2].split("\r\n")[0])
        served = (await reader.readexactly(length)).decode().removesuffix("~")
        assert served == route or not route, (served, route)
        self.answered[served] += 1


def listening(number: int, port: int) -> Listening:
    """A member that answers with its name."""
    name = b"server%d" % number + MARK
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name)
    return Listening((HOST, port), {b"/": Answer(answer)})


def member(number: int, port: int) -> Yaml:
    """A member as the configuration has it."""
    return {"url": f"http://{HOST}:{port}", "route": f"server{number}"}


def changes(first: Yaml, third: Yaml, number: int) -> Yaml:
    """Other settings for each reload, of all kinds, under which every request is served."""
    settings = copy.deepcopy(first)
    settings["server"] = f"other{number}"
    cluster = settings["balancers"]["cluster"]
    cluster["members"][number % 2]["load_factor"] = 1 + number % 5
    if number % 3 == 0:
        cluster["members"].append(third)
    if number % 4 == 0:
        settings["balancers"][f"balancer{number}"] = copy.deepcopy(cluster)
    if number % 2:
        settings["frontends"][0]["limits"] = {"fields": 100 + number}
        settings["frontends"][1]["timeouts"] = {"keep_alive": f"{10 + number}s"}
        settings["frontends"].append(settings["frontends"].pop(0))
        settings["frontends"].reverse()
    return settings


async def under_load(
    proxy: Proxy, trust: ssl.SSLContext, third: Yaml, numbers: Iterable[int]
) -> Counter[str]:
    """So many reloads; who answered meanwhile."""
    first, load = copy.deepcopy(proxy.settings), Load(proxy, trust)
    asking = asyncio.create_task(load.run())
    for number in numbers:
        write(proxy, changes(first, third, number) if number % 10 else first)
        proxy.settings = first  # by which clients find the addresses
        await asyncio.to_thread(admin.reload, proxy.socket, dry_run=False)
        if asking.done():
            break
    load.stopping.set()
    await asking
    return load.answered


async def in_two_parts(
    proxy: Proxy, trust: ssl.SSLContext, ports: Sequence[int]
) -> tuple[Counter[str], list[list[Footprint]]]:
    """A quarter of the reloads, then the rest; who answered, and what is taken after each part."""
    answered: Counter[str] = Counter()
    found = []
    quarter = RELOADS // 4
    async with AsyncExitStack() as stack:
        members = [
            await stack.enter_async_context(listening(number, port))
            for number, port in enumerate(ports, 1)
        ]
        for numbers in (range(1, quarter + 1), range(quarter + 1, RELOADS + 1)):
            answered += await under_load(proxy, trust, member(3, ports[2]), numbers)
            for each in members:
                await each.close_connections()
            found.append(await settled(lambda: footprints(proxy)))
    return answered, found


def footprints(proxy: Proxy) -> list[Footprint]:
    """What supervisor and workers take."""
    return [footprint(pid) for pid in (proxy.pid, *proxy.workers)]


@pytest.mark.usefixtures("exact_memory")
def test_reloads_under_load(
    serve: Launcher, free_port: Callable[[], int], trust: ssl.SSLContext
) -> None:
    """Every request is answered, by its session's member, and processes stay as they are."""
    ports = [free_port() for _ in range(3)]
    mappings = [{"path": "/", "balancer": "cluster"} for _ in range(2)]
    frontends = [serve.frontend(mappings[0]), serve.frontend(mappings[1], tls=False)]
    members = [member(number, port) for number, port in enumerate(ports[:2], 1)]
    balancer = {"sticky_session": "BALANCEME", "members": members}
    proxy = serve.run({"workers": 2, "frontends": frontends, "balancers": {"cluster": balancer}})
    (begin,) = generations(proxy)
    workers = proxy.workers

    answered, found = asyncio.run(in_two_parts(proxy, trust, ports))
    log.info("answered: %s", dict(answered))
    for process, taken in enumerate(zip(*found, strict=True)):
        log.info("process %d: %s, then %s", process, *taken)
    assert generations(proxy) == {begin + RELOADS}
    assert set(answered) == {"server1", "server2", "server3"}
    assert proxy.workers == workers
    for before, after in zip(*found, strict=True):
        assert (after.descriptors, after.threads) == (before.descriptors, before.threads)
        assert after.memory - before.memory < LEFT * RELOADS + UNUSED
