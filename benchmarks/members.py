"""The members: two servers in one process that do as little as possible, and count.

``python -m benchmarks.members`` binds free ports, prints them as one line of JSON and serves until
its standard input closes. Requests come from proxies only, one at a time on a connection and never
chunked, so this is no HTTP server: it knows just the requests of ``scenarios``.
"""

import asyncio
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from itertools import cycle
from typing import cast

import uvloop

from benchmarks.scenarios import BIG_BYTES, PING_PATH, POST_BYTES, ROUTES, SMALL_BYTES

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_BACKLOG = 4096
_BIG = b"d" * BIG_BYTES


def answer(route: str, body: bytes, more: bytes = b"") -> bytes:
    """A response as an application gives it, with the member's route and the time in it."""
    date = formatdate(usegmt=True).encode()
    return (
        b"HTTP/1.1 200 OK\r\nDate: " + date + b"\r\nServer: member\r\n"
        b"Content-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\n"
        + more
        + b"X-Member: "
        + route.encode()
        + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
    ) + body


def _pages(route: str) -> "cycle[bytes]":
    """Answers that differ as pages do: each head is its own, a body has 1,000 bytes on average."""
    sizes = range(SMALL_BYTES - 31, SMALL_BYTES + 33, 2)
    return cycle([answer(route, b"v" * n, b'ETag: "%08x"\r\n' % (n * 7919)) for n in sizes])


@dataclass(slots=True, eq=False)
class Member:
    """One member: its ready-made answers and its counters."""

    route: str
    requests: int = 0
    received: int = 0
    written: int = 0
    waiting: int = 0
    connections: "set[Connection]" = field(default_factory=set)
    small: bytes = b""
    pages: "cycle[bytes]" = field(default_factory=lambda: cycle((b"",)))
    answers: dict[bytes, bytes] = field(default_factory=dict)

    def renew(self) -> None:
        """Make the answers anew, which is due each second as they carry the date."""
        self.small = answer(self.route, b"s" * SMALL_BYTES)
        self.pages = _pages(self.route)
        self.answers[b"/post"] = answer(self.route, b"p" * POST_BYTES)

    def counters(self) -> dict[str, int]:
        """What went through it so far; bytes of bodies, and only those the kernel has taken."""
        pending = sum(connection.pending() for connection in self.connections)
        return {
            "requests": self.requests,
            "received": self.received,
            "sent": self.written - pending,
            "waiting": self.waiting,
        }


class Connection(asyncio.Protocol):
    """One connection a proxy opened to a member."""

    __slots__ = ("_buffer", "_member", "_missing", "_path", "_request_head", "_transport", "_waits")

    def __init__(self, member: Member) -> None:
        self._member = member
        self._buffer = b""
        self._path = b""
        self._request_head = b""
        self._missing = 0
        self._waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Nothing is read before the first request."""
        self._transport = cast("asyncio.Transport", transport)
        self._member.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """A Ping that loses its connection waits no longer."""
        self._member.connections.discard(self)
        self._member.waiting -= self._waits

    def data_received(self, data: bytes) -> None:
        """The usual small request is seen at its two ends, others are read properly."""
        member = self._member
        if data.startswith(b"GET /small ") and data.endswith(b"\r\n\r\n"):
            member.requests += 1
            self._transport.write(member.small)
        elif data.startswith(b"GET /pages") and data.endswith(b"\r\n\r\n"):
            member.requests += 1
            self._transport.write(next(member.pages))
        elif self._missing:
            self._body_received(data)
        else:
            self._head_received(data)

    def pending(self) -> int:
        """Bytes that were written but not yet taken by the kernel."""
        return self._transport.get_write_buffer_size()

    def _head_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        self._buffer = b""
        self._request_head = head
        self._path = head.split(b" ", 2)[1].partition(b"?")[0]
        length = _CONTENT_LENGTH.search(head)
        self._missing = int(length[1]) if length else 0
        if self._missing:
            self._body_received(rest)
        else:
            self._answer()

    def _body_received(self, data: bytes) -> None:
        self._member.received += len(data)
        self._missing -= len(data)
        if not self._missing:
            self._answer()

    def _answer(self) -> None:
        member = self._member
        member.requests += 1
        if self._path == PING_PATH:
            self._waits = True
            member.waiting += 1
            return
        text = member.answers.get(self._path, member.small)
        if self._path == b"/download":
            text = answer(member.route, _BIG)
        elif self._path == b"/echo":
            text = answer(member.route, self._request_head)
        member.written += len(text)
        self._transport.write(text)


class Control(asyncio.Protocol):
    """The measuring side asks with any byte and gets the counters as a line of JSON."""

    def __init__(self, members: list[Member]) -> None:
        self._members = members

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for the answers."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """One line for each question."""
        counters = {member.route: member.counters() for member in self._members}
        self._transport.write(json.dumps(counters).encode() + b"\n")


def _renew(loop: asyncio.AbstractEventLoop, members: list[Member]) -> None:
    """Once a second."""
    for member in members:
        member.renew()
    loop.call_later(1.0, _renew, loop, members)


async def _serve() -> None:
    """Serve until standard input closes."""
    loop = asyncio.get_running_loop()
    members = [Member(route) for route in ROUTES]
    _renew(loop, members)
    factories: list[Callable[[], asyncio.Protocol]] = [partial(Connection, m) for m in members]
    factories.append(partial(Control, members))
    servers = [
        await loop.create_server(factory, "127.0.0.1", 0, backlog=_BACKLOG) for factory in factories
    ]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Run the members."""
    uvloop.install()
    asyncio.run(_serve())


if __name__ == "__main__":
    main()
