"""What the proxy keeps for one connection is bounded, in both directions (H34 to H37, H73).

Each test opens many connections on which one side sends and the other doesn't take it, waits until
nothing moves any more, and weighs the process: whatever uvloop and OpenSSL hold is in it, socket
buffers of the kernel are not. ``--log-cli-level=INFO`` shows the weights.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

import pytest
import uvloop

from tests.end_to_end.conftest import HOST, NAME, Launcher, Proxy, request, settled

pytestmark = pytest.mark.slow

log = logging.getLogger(__name__)

KIB = 1024
CONNECTIONS = 25
# Seconds that a slow client takes for each read.
PAUSE = 0.02
# KiB for one connection. One read of uvloop's has up to 250 KiB, and it stops at 64 KiB that wait:
# below 320 KiB wait to be written, and as much of requests that were sent ahead is kept. Over TLS
# as much again waits encrypted to be written, and to be read; OpenSSL's buffers for this grow by a
# third beyond what they hold and never shrink, nor does uvloop's own for reading, of 256 KiB.
# All of it at once would be 640 and 1750; these are a third more than what any case comes to.
BOUND = {"plain": 600, "TLS": 1600}
# The same where no body is under way, and nothing that may be kept is large.
SMALL_BOUND = {"plain": 100, "TLS": 300}


@dataclass(frozen=True)
class Behaviour:
    """One side of a connection."""

    first: bytes = b""
    """What it sends: a client at once, a member when it is asked."""
    repeated: bytes = b""
    """What it sends then, for as long as it is taken."""
    times: int = 1_000_000
    each: bytes = b""
    """A member's answer to each request."""
    reads: bool = True
    slow: bool = False
    """Takes a read's worth now and then."""


class Side(asyncio.Protocol):
    """A client, or a member's end of a connection, that behaves as it is told."""

    open: ClassVar[set["Side"]] = set()

    def __init__(self, behaviour: Behaviour, *, client: bool) -> None:
        self._behaviour = behaviour
        self._client = client
        self._begun = False
        self._left = behaviour.times if behaviour.repeated else 0
        self._paused = False
        self._transport = cast(asyncio.Transport, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client begins."""
        self._transport = cast(asyncio.Transport, transport)
        self.open.add(self)
        if self._client:
            # uvloop begins to read only after this, whatever is said here.
            asyncio.get_running_loop().call_soon(self._begin)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self.open.discard(self)

    @classmethod
    async def close_all(cls) -> None:
        """End all connections; an event loop must not end before them."""
        while cls.open:
            for side in list(cls.open):
                side._transport.abort()
            await asyncio.sleep(0.001)

    def data_received(self, data: bytes) -> None:
        """A member begins when it is asked."""
        if not self._begun:
            self._begin()
        if self._behaviour.slow:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(PAUSE, self._transport.resume_reading)
        if self._behaviour.each:
            self._transport.write(self._behaviour.each * data.count(b"\r\n\r\n"))

    def _begin(self) -> None:
        self._begun = True
        if not self._behaviour.reads:
            self._transport.pause_reading()
        self._transport.write(self._behaviour.first)
        self._flood()

    def _flood(self) -> None:
        while self._left and not self._paused and not self._transport.is_closing():
            self._left -= 1
            self._transport.write(self._behaviour.repeated)

    def pause_writing(self) -> None:
        """The proxy takes no more for now."""
        self._paused = True

    def resume_writing(self) -> None:
        """It does again."""
        self._paused = False
        self._flood()


def small_socket() -> socket.socket:
    """A socket that takes little itself, so that a standstill comes soon."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * KIB)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * KIB)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock


def moved(proxy: Proxy) -> str:
    """What the proxy has read and written so far."""
    return Path(f"/proc/{proxy.worker}/io").read_text()


async def weigh(
    proxy: Proxy, port: int, sides: tuple[Behaviour, Behaviour], trust: ssl.SSLContext | None
) -> tuple[float, float]:
    """KiB of the proxy's for each of the connections on which these two meet: now, and at most."""
    loop = asyncio.get_running_loop()
    client, member = sides
    sock = small_socket()
    sock.bind((HOST, port))
    server = await loop.create_server(lambda: Side(member, client=False), sock=sock)

    async def connect(count: int) -> None:
        for _ in range(count):
            sock = small_socket()
            sock.connect(proxy.address())
            sock.setblocking(False)
            name = NAME if trust else None
            await loop.create_connection(
                lambda: Side(client, client=True), sock=sock, ssl=trust, server_hostname=name
            )
        await settled(lambda: moved(proxy))

    await connect(5)  # what is allocated once doesn't count
    before = proxy.memory("RssAnon")
    proxy.forget_peak()
    high = proxy.memory("VmHWM")
    await connect(CONNECTIONS)
    found = proxy.memory("RssAnon") - before, proxy.memory("VmHWM") - high
    server.close()
    await Side.close_all()
    return found[0] / KIB / CONNECTIONS, found[1] / KIB / CONNECTIONS


BLOCK = bytes(64 * KIB)
CHUNK = b"10000\r\n" + BLOCK + b"\r\n"
SMALL = b"64\r\n" + b"x" * 100 + b"\r\n"
SMALL = SMALL * 600
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = "Transfer-Encoding: chunked"
IN_CHUNKS = OK + CHUNKED.encode() + b"\r\n\r\n"
POST_CHUNKED = request("/", CHUNKED, method="POST")
LENGTH = "Content-Length: 100000000000"
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
LINES = b"X-Line: " + b"x" * 4000 + b"\r\n"
NOT_READ = Behaviour(reads=False)

CASES = {
    # downloads that the client doesn't take
    "download, length": (
        Behaviour(request("/"), reads=False),
        Behaviour(OK + LENGTH.encode() + b"\r\n\r\n", BLOCK),
    ),
    "download, chunked": (Behaviour(request("/"), reads=False), Behaviour(IN_CHUNKS, CHUNK)),
    "download, small chunks": (Behaviour(request("/"), reads=False), Behaviour(IN_CHUNKS, SMALL)),
    "download, slowly": (
        Behaviour(request("/"), slow=True),
        Behaviour(OK + b"Content-Length: 3276800\r\n\r\n", BLOCK, 50),
    ),
    # uploads that the member doesn't take
    "upload, length": (Behaviour(request("/", LENGTH, method="POST"), BLOCK), NOT_READ),
    "upload, chunked": (Behaviour(POST_CHUNKED, CHUNK), NOT_READ),
    "upload, small chunks": (Behaviour(POST_CHUNKED, SMALL), NOT_READ),
    # requests whose answers nobody takes, and requests that wait for a silent member
    "pipelined": (
        Behaviour(b"", request("/") * 100, 100, reads=False),
        Behaviour(each=OK + b"Content-Length: 2000\r\n\r\n" + bytes(2000)),
    ),
    "pipelined, own answers": (
        Behaviour(b"", request("/", method="TRACE") * 100, 600, reads=False),
        Behaviour(),
    ),
    "pipelined, large answers": (
        Behaviour(b"", request("/") * 100, 100, reads=False),
        Behaviour(each=OK + b"Content-Length: 10000000\r\n\r\n" + bytes(10_000_000)),
    ),
    "pipelined, silent member": (Behaviour(b"", request("/") * 100, 100), Behaviour()),
    # parts that never end: they are refused
    "endless head": (Behaviour(request("/")[:-2], LINES, 100), Behaviour()),
    "endless extension": (Behaviour(POST_CHUNKED + b"1;x=", b"x" * 4000, 100), Behaviour()),
    "endless trailers": (Behaviour(POST_CHUNKED + b"0\r\n", LINES, 100), Behaviour()),
    "answer's endless head": (Behaviour(request("/")), Behaviour(OK, LINES, 100)),
    "answer's endless extension": (
        Behaviour(request("/")),
        Behaviour(IN_CHUNKS + b"1;x=", b"x" * 4000, 100),
    ),
    "answer's endless trailers": (
        Behaviour(request("/")),
        Behaviour(IN_CHUNKS + b"0\r\n", LINES, 100),
    ),
    # parts that end just before they would be refused: they are waited for
    "head": (Behaviour(request("/")[:-2] + LINES * 15), Behaviour()),
    "extension": (Behaviour(POST_CHUNKED + b"1;x=" + b"x" * 4000), Behaviour()),
    "trailers": (Behaviour(POST_CHUNKED + b"0\r\n" + LINES * 4), Behaviour()),
    "answer's head": (Behaviour(request("/")), Behaviour(OK + LINES * 15)),
    "answer's extension": (
        Behaviour(request("/")),
        Behaviour(IN_CHUNKS + b"1;x=" + b"x" * 4000),
    ),
    "answer's trailers": (Behaviour(request("/")), Behaviour(IN_CHUNKS + b"0\r\n" + LINES * 4)),
    # tunnels
    "tunnel, client doesn't read": (
        Behaviour(request("/", *UPGRADE), reads=False),
        Behaviour(SWITCH, BLOCK),
    ),
    "tunnel, member doesn't read": (
        Behaviour(request("/", *UPGRADE), BLOCK),
        Behaviour(SWITCH, reads=False),
    ),
}


# What is kept of a member's head or framing is the same whatever the client speaks.
KINDS = [(case, "plain") for case in CASES]
KINDS += [(case, "TLS") for case in CASES if not case.startswith("answer")]


@pytest.mark.usefixtures("exact_memory")
@pytest.mark.parametrize(("case", "kind"), KINDS)
def test_bounded(
    case: str, kind: str, serve: Launcher, free_port: Callable[[], int], trust: ssl.SSLContext
) -> None:
    """However much is sent and however little is taken, a connection keeps a fixed amount."""
    port, tls = free_port(), kind == "TLS"
    mapping = {"path": "/", "balancer": "cluster", "upgrade": ["websocket"]}
    settings = {
        "frontends": [serve.frontend(mapping, tls=tls)],
        "balancers": {"cluster": {"members": [{"url": f"http://{HOST}:{port}"}]}},
        "access_log": None,
    }
    proxy = serve.run(settings)
    size, peak = uvloop.run(weigh(proxy, port, CASES[case], trust if tls else None))
    log.info("%s, %s: %.0f KiB a connection, at most %.0f", case, kind, size, peak)
    large = case.startswith(("download", "upload", "pipelined", "tunnel"))
    assert peak < (BOUND if large else SMALL_BOUND)[kind]
