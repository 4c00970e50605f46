"""Tens of thousands of clients a minute that end in every way, and a member that misbehaves.

Both are protocols on one event loop, since streams or threads for each connection would cost more
than the proxy between them. A ``Visit`` is one client's connection, an ``Answer`` is what the
member does about one path; how each of them ends is an ``End``. Bodies end with ``MARK``, which
occurs nowhere else, so that neither side has to understand what it reads.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Self, cast

from proxy.dataplane.flow import reset

MARK = b"~"
# How long, in seconds, a visit may take: for slow machines only.
PATIENCE = 20.0
# A chunked body with the mark behind its last byte.
_LAST_CHUNK = MARK + b"\r\n0\r\n\r\n"


class End(Enum):
    """What becomes of a connection after everything was sent and what was wanted has come."""

    STAY = "wait for the other side to close"
    CLOSE = "close"
    RESET = "close with RST"
    HALF_CLOSE = "send no more, and wait for the other side to close"


def _end(transport: asyncio.Transport, end: End) -> None:
    if end is End.CLOSE:
        transport.close()
    elif end is End.RESET:
        reset(transport)
    elif end is End.HALF_CLOSE:
        transport.write_eof()


# --- the member ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What the member does for one path."""

    data: bytes = b""
    end: End = End.STAY
    """STAY keeps the connection for the next request."""
    early: bool = False
    """Don't wait for the request's body."""
    echo: bool = False
    """Send back what comes from now on."""


class StormMember(asyncio.Protocol):
    """One connection of a member that does what ``answers`` say."""

    def __init__(self, answers: Mapping[bytes, Answer], connections: set["StormMember"]) -> None:
        self._answers = answers
        self._connections = connections
        self._data = b""
        self._echo = False
        self.transport = cast(asyncio.Transport, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection from the proxy."""
        self.transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """A part of a request, or of a tunnel's bytes."""
        if self._echo:
            self.transport.write(data)
            return
        self._data = data = self._data + data if self._data else data
        head, found, body = data.partition(b"\r\n\r\n")
        if not found:
            return
        answer = self._answers[head.split(b" ", 2)[1].partition(b"?")[0]]
        chunked = b"Transfer-Encoding" in head
        if head.startswith(b"POST") and not answer.early:
            if not body and b"100-continue" in head:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            if not body.endswith(_LAST_CHUNK if chunked else MARK):
                return
        self._data = b""
        self._echo = answer.echo
        self.transport.write(answer.data)
        _end(self.transport, answer.end)

    def eof_received(self) -> bool:
        """The proxy has closed."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._connections.discard(self)


# --- the clients ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """Bytes to send, and the bytes whose so many occurrences are waited for then."""

    send: bytes
    until: bytes = MARK
    count: int = 1


@dataclass(frozen=True)
class Visit:
    """One client's connection."""

    steps: tuple[Step, ...]
    end: End
    requests: int = 1
    """Requests that it begins, whole or not."""
    frontend: int = 1
    secured: bool = False
    """Over TLS; also to a TLS frontend one can come without a handshake."""
    deaf: float = 0.0
    """Seconds for which it reads nothing, whatever comes."""


class _Client(asyncio.Protocol):
    """Makes one visit."""

    def __init__(self, visit: Visit, ended: asyncio.Future[None]) -> None:
        self._visit = visit
        self._ended = ended
        self._number = -1
        self._missing = 0
        self._tail = b""
        self._transport = cast(asyncio.Transport, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The first step."""
        self._transport = cast(asyncio.Transport, transport)
        if self._visit.deaf:
            loop = asyncio.get_running_loop()
            # uvloop begins to read only after this, whatever is said here.
            loop.call_soon(self._transport.pause_reading)
            # Who doesn't read doesn't notice either that it was cut off.
            loop.call_later(self._visit.deaf, self._transport.resume_reading)
        self._next()

    def _next(self) -> None:
        visit = self._visit
        while not self._missing:
            self._number += 1
            if self._number == len(visit.steps):
                _end(self._transport, visit.end)
                return
            step = visit.steps[self._number]
            self._missing = step.count
            self._tail = b""
            self._transport.write(step.send)

    def data_received(self, data: bytes) -> None:
        """What is waited for may be among it, or have begun in what came before."""
        if not self._missing:
            return
        until = self._visit.steps[self._number].until
        data = self._tail + data
        self._missing = max(0, self._missing - data.count(until))
        self._tail = data[len(data) - len(until) + 1 :]
        if not self._missing:
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        """The visit is over; with an error if not all came that was waited for."""
        if self._ended.done():
            return
        if self._missing:
            step = self._visit.steps[self._number]
            self._ended.set_exception(AssertionError(f"{self._missing} missing after {step}"))
        else:
            self._ended.set_result(None)


class Storm:
    """Makes visits to frontends, so many at a time."""

    def __init__(self, addresses: Sequence[tuple[str, int]], trust: ssl.SSLContext) -> None:
        self._addresses = addresses
        self._trust = trust

    async def make(self, visits: Sequence[Visit], at_once: int) -> None:
        """Make all these visits; the first that fails ends it."""
        left = iter(visits)

        async def some() -> None:
            for visit in left:
                await self._make(visit)

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(some())

    async def _make(self, visit: Visit) -> None:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        transport, _ = await loop.create_connection(
            lambda: _Client(visit, ended),
            *self._addresses[visit.frontend],
            ssl=self._trust if visit.secured else None,
            server_hostname="mail.example.org" if visit.secured else None,
        )
        try:
            await asyncio.wait_for(ended, PATIENCE)
        except TimeoutError:
            raise AssertionError(f"never ends: {visit}") from None
        finally:
            transport.abort()


class Listening:
    """A member that serves while it is entered; an event loop must not end before it."""

    def __init__(self, address: tuple[str, int], answers: Mapping[bytes, Answer]) -> None:
        self._address = address
        self._answers = answers
        self._connections: set[StormMember] = set()

    async def __aenter__(self) -> Self:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(self._address)
        self._server = await asyncio.get_running_loop().create_server(
            lambda: StormMember(self._answers, self._connections), sock=sock, backlog=1024
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.close_connections()

    async def close_connections(self) -> None:
        """Close all connections that are open now."""
        for connection in list(self._connections):
            connection.transport.abort()
        while any(each.transport.is_closing() for each in self._connections):  # noqa: ASYNC110 - a tick
            await asyncio.sleep(0)
