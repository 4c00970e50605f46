"""A client's connection, and what all connections of one frontend share.

The connection cuts the client's bytes into requests and hands each to an ``Exchange``. One request
is under way at a time; what a client sends ahead waits unread, at most one read of it, until its
turn comes. Nothing here knows members.
"""

import asyncio
import logging
from collections.abc import Callable
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import NamedTuple, cast

from proxy.core.errors import ClientError
from proxy.core.framing import FramingError, request_body
from proxy.core.headers import Forwarded
from proxy.core.http1 import Limits, RequestHead, read_request_head
from proxy.core.mapping import MappingTable
from proxy.core.pages import OwnAnswer
from proxy.core.settings import ClientTimeouts
from proxy.dataplane.access_log import AccessLog, Refusal
from proxy.dataplane.clock import Clock
from proxy.dataplane.deadlines import NEVER, Deadlines
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.exchange import Phase as ExchangePhase
from proxy.dataplane.flow import HIGH_WATER, Gate, Hold
from proxy.dataplane.pool import Pools

log = logging.getLogger("balanceme")

# How long, in seconds, what a client still sends is read and discarded after the answer that
# closes its connection, so that the answer isn't lost by a reset (RFC 9112 section 9.6).
# Precedents: Apache 2 s, nginx 5 s.
LINGER = 2.0
# The same for the end of a TLS connection.
TLS_SHUTDOWN = 5.0


class Phase(Enum):
    """What a client's connection is doing."""

    IDLE = "idle"
    HEAD = "head"
    EXCHANGE = "exchange"
    LINGER = "linger"
    CLOSED = "closed"


class Frontend(NamedTuple):
    """What all connections of one frontend share."""

    mappings: MappingTable
    pools: Pools
    timeouts: ClientTimeouts
    limits: Limits
    clock: Clock
    deadlines: Deadlines
    access_log: AccessLog
    connections: set["FrontendConnection"]
    server_name: str
    port: int
    tls: bool
    # The Server field's value.
    server: bytes
    # Requests after the first on one connection; 0 for no limit.
    keep_alive_requests: int = 0
    # Where https is served, for a frontend that only points there.
    redirect_port: int | None = None
    trusted: tuple[IPv4Network | IPv6Network, ...] = ()
    apache: bool = False
    # Whether the worker is stopping: every answer then closes its connection.
    stopping: Callable[[], bool] = lambda: False

    def trusts(self, address: str) -> bool:
        """Whether ``address`` is a proxy whose X-Forwarded fields count."""
        if not self.trusted:
            return False
        try:
            peer = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return any(peer in network for network in self.trusted if network.version == peer.version)


class FrontendConnection(asyncio.Protocol):
    """One client's connection."""

    __slots__ = (
        "_buffer",
        "_position",
        "_reading",
        "_scanned",
        "blocked",
        "deadline",
        "exchange",
        "forwarded",
        "frontend",
        "gate",
        "half_closed",
        "phase",
        "served",
        "transport",
    )

    def __init__(self, frontend: Frontend) -> None:
        # for the connection's life
        self.frontend = frontend
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.gate: Gate = cast(Gate, None)
        self.forwarded: Forwarded = cast(Forwarded, None)
        self.served = 0
        self.half_closed = False
        self.blocked = False
        # for what it is doing now
        self.phase = Phase.IDLE
        self.deadline = NEVER
        self.exchange: Exchange | None = None
        # bytes that no request has taken yet, from _position on
        self._buffer = b""
        self._position = 0
        self._scanned = 0
        self._reading = False

    # --- asyncio's callbacks -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands; over TLS, after the handshake."""
        frontend = self.frontend
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(HIGH_WATER)
        self.gate = Gate(self.transport)
        peer = transport.get_extra_info("peername")
        address = peer[0] if isinstance(peer, tuple) else "-"
        self.forwarded = Forwarded(
            address, frontend.server_name, tls=frontend.tls, trusted=frontend.trusts(address)
        )
        self.forwarded.apache = frontend.apache
        self.deadline = frontend.clock.monotonic() + frontend.timeouts.head
        frontend.connections.add(self)
        frontend.deadlines.add(self)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        exchange = self.exchange
        if exchange is not None:
            self._exchange_data(exchange, data)
        elif self.phase is not Phase.LINGER:
            self._buffer = self._buffer + data if self._buffer else data
            self._read_requests()

    def eof_received(self) -> bool:
        """The client sends no more; over plain TCP it may still wait for its answer."""
        exchange = self.exchange
        self.half_closed = True
        return not self.frontend.tls and exchange is not None and exchange.request.complete

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, whoever ended it."""
        self.phase = Phase.CLOSED
        self.frontend.connections.discard(self)
        self.frontend.deadlines.discard(self)
        if self.exchange is not None:
            self.exchange.client_lost()
            self.exchange = None

    # --- requests ----------------------------------------------------------------------------

    def _exchange_data(self, exchange: Exchange, data: bytes) -> None:
        """Bytes that arrive while an exchange is under way: its body, its tunnel, or the next."""
        if exchange.tunnel is not None:
            exchange.tunnel.client_data(data)
        elif exchange.request.complete:
            self._buffer = self._buffer[self._position :] + data
            self._position = 0
            self.gate.hold(Hold.PIPELINED)
        else:
            self._feed_body(exchange, data)

    def _read_requests(self) -> None:
        """Take requests from the buffer, as long as each is answered at once."""
        self._reading = True
        while self.phase in (Phase.IDLE, Phase.HEAD) and self._position < len(self._buffer):
            if self.blocked:
                break  # a client that doesn't read gets no more answers
            try:
                if not self._read_request():
                    break
            except ClientError as error:
                self._refuse(error)
            except Exception:
                log.exception("a request could not be handled: a mistake in balanceme")
                self._fail()
        self._reading = False
        if self._position >= len(self._buffer):
            self._buffer = b""
            self._position = 0
        elif self.phase is Phase.EXCHANGE or self.blocked:
            self.gate.hold(Hold.PIPELINED)

    def _read_request(self) -> bool:
        """Begin the next request; False while its head is incomplete."""
        frontend = self.frontend
        found = read_request_head(self._buffer, frontend.limits, self._position, self._scanned)
        if found is None:
            if self.phase is Phase.IDLE:
                self.phase = Phase.HEAD
                self.deadline = frontend.clock.monotonic() + frontend.timeouts.head
            self._buffer = self._buffer[self._position :]
            self._position = 0
            self._scanned = len(self._buffer)
            return False
        head, self._position = found
        self._scanned = 0
        self.phase = Phase.EXCHANGE
        self.deadline = NEVER
        self.served += 1
        exchange = self.exchange = Exchange(self, head, request_body(head))
        if exchange.request.complete:
            exchange.start(b"")
        else:
            rest = self._buffer[self._position :]
            self._buffer = b""
            self._position = 0
            self._feed_body(exchange, rest)
        return True

    def _feed_body(self, exchange: Exchange, data: bytes) -> None:
        """Hand the exchange its body's piece; what is behind the body waits."""
        body = exchange.request.body
        if body is None:
            return
        try:
            piece = body.feed(data)
        except FramingError as error:
            if exchange.abandon():
                self._refuse(error, exchange.head.line)
            else:
                self.abort()
            return
        if body.complete:
            exchange.request.complete = True
            self._buffer = body.rest
            self.deadline = NEVER
        else:
            self.expect_body()
        if exchange.phase is ExchangePhase.READ:
            exchange.start(piece)
        elif piece or body.complete:
            exchange.request_data(piece)

    def expect_body(self) -> None:
        """More of a body is due (H70)."""
        self.deadline = self.frontend.clock.monotonic() + self.frontend.timeouts.body

    def take_ahead(self) -> bytes:
        """What the client sent behind its upgrade request."""
        ahead = self._buffer[self._position :]
        self._buffer = b""
        self._position = 0
        self.gate.release(Hold.PIPELINED)
        return ahead

    def exchange_done(self, *, keep: bool) -> None:
        """The exchange has ended; the connection serves the next request, or closes."""
        self.exchange = None
        if not keep or self.half_closed:
            self.close()
            return
        self.phase = Phase.IDLE
        self.deadline = self.frontend.clock.monotonic() + self.frontend.timeouts.keep_alive
        if not self.gate.open:
            self.gate.release(Hold.PIPELINED | Hold.CONNECTING | Hold.OTHER_SIDE_SLOW)
        if self._buffer and not self._reading:
            self._read_requests()

    # --- own answers -------------------------------------------------------------------------

    def first_lines(self, second: int, cookie: bytes) -> bytes:
        """Date, Server and cookie of an answer of our own."""
        frontend = self.frontend
        return b"Date: %b\r\nServer: %b\r\n%b" % (
            frontend.clock.date(second),
            frontend.server,
            cookie,
        )

    def may_keep(self) -> bool:
        """Whether the connection may serve another request."""
        limit = self.frontend.keep_alive_requests
        return not self.frontend.stopping() and (limit == 0 or self.served <= limit)

    def connection_lines(self, head: RequestHead, *, keep: bool) -> bytes:
        """What the client is told about its connection; only who asked is told it is kept (P9)."""
        if not keep:
            return b"Connection: close\r\n"
        if b"keep-alive" not in head.options:
            return b""
        limit = self.frontend.keep_alive_requests
        left = b", max=%d" % (limit - self.served + 1) if limit else b""
        timeout = int(self.frontend.timeouts.keep_alive)
        return b"Keep-Alive: timeout=%d%b\r\nConnection: Keep-Alive\r\n" % (timeout, left)

    def _refuse(self, error: ClientError | FramingError, line: bytes = b"") -> None:
        """Answer what can't be understood, and close: nothing behind it can be trusted."""
        if self.phase is Phase.CLOSED:
            return
        second = int(self.frontend.clock.wall())
        answer = OwnAnswer(error.status)
        first = self.first_lines(second, b"")
        self.write(answer.encode(first, b"Connection: close\r\n", head_only=False))
        line = line or self._buffer[self._position :].partition(b"\r\n")[0]
        self.frontend.access_log.refused(Refusal(self.forwarded.client, second, line, answer))
        self._buffer = b""
        self.exchange = None
        self.close()

    def _fail(self) -> None:
        """Our own mistake: 500, but never on an ActiveSync path (D26)."""
        exchange = self.exchange
        if exchange is not None and exchange.response.status == 0:
            activesync = exchange.mapped and exchange.placement.activesync
            exchange.answer(OwnAnswer(503 if activesync else 500))
        else:
            self.abort()

    # --- writing, closing, timers ------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Write to the client."""
        self.transport.write(data)

    def close(self) -> None:
        """Close once everything is written, and once the client has stopped sending."""
        if self.phase is Phase.CLOSED:
            return
        self.phase = Phase.LINGER
        self.deadline = self.frontend.clock.monotonic() + LINGER
        if self.frontend.tls or self.half_closed:
            self.transport.close()
        elif self.transport.can_write_eof() and not self.transport.is_closing():
            self.gate.release(~Hold.NONE)
            self.transport.write_eof()

    def abort(self) -> None:
        """Close at once, so that the client notices that something is missing."""
        self.transport.abort()

    def close_when_idle(self) -> None:
        """The worker stops: close now, or after the exchange under way."""
        if self.phase in (Phase.IDLE, Phase.HEAD):
            self.close()

    def pause_writing(self) -> None:
        """The client is slow to read."""
        self.blocked = True
        self.deadline = self.frontend.clock.monotonic() + self.frontend.timeouts.write
        if self.exchange is not None:
            self.exchange.client_slow()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.blocked = False
        if self.exchange is not None:
            self.deadline = NEVER
            if not self.exchange.request.complete:
                self.expect_body()
            self.exchange.client_ready()
        elif self._buffer:
            self.gate.release(Hold.PIPELINED)
            self._read_requests()

    def expired(self, now: float) -> None:
        """The deadline has passed."""
        self.deadline = NEVER
        if self.phase is Phase.HEAD:
            self._refuse(ClientError(408, "head not complete in time"))
        elif self.phase is Phase.EXCHANGE and self.exchange is not None and not self.blocked:
            self.exchange.client_expired()
        elif self.phase is Phase.IDLE:
            self.close()
        else:
            self.abort()

    def __repr__(self) -> str:
        return f"<FrontendConnection {self.forwarded.client.decode()} {self.phase.value}>"
