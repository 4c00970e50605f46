"""A client's connection.

It cuts the client's bytes into requests and hands each to an ``Exchange``. One request
is under way at a time; what a client sends ahead waits until its turn comes, and with more than
``limits.pipelined`` of it the client isn't read from. Nothing here knows members.
"""

import asyncio
import logging
import ssl
from enum import Enum
from typing import Any, cast

from proxy.core.errors import ClientError
from proxy.core.explain_line import NO_PLACEMENT
from proxy.core.framing import FramingError, request_body
from proxy.core.headers import Forwarded
from proxy.core.heads import RequestHead
from proxy.core.http1 import read_request_head
from proxy.core.own_answers import unavailable
from proxy.core.proxy_protocol import Ends
from proxy.dataplane import mistakes
from proxy.dataplane.admission import is_among
from proxy.dataplane.deadlines import NEVER
from proxy.dataplane.exchange import READ, Exchange
from proxy.dataplane.flow import HIGH_WATER, Gate, Hold, has_left, reset
from proxy.dataplane.frontend import Frontend
from proxy.dataplane.response import refusal

log = logging.getLogger("balanceme")

# For how many seconds what a client still sends is read and discarded after the answer that closes
# its connection, lest a reset lose it (RFC 9112 section 9.6). Precedents: Apache 2 s, nginx 5 s.
LINGER = 2.0
# The same over TLS, where up to HIGH_WATER bytes may wait out of our sight.
TLS_LINGER = 15.0
# The longest that the end of a TLS connection may take; what waits to be written goes first.
TLS_SHUTDOWN = 60.0
# For how many seconds since the last one a kept connection takes another request although it is to
# close: that one may be on its way, and would be lost. Precedent: nginx, keepalive_min_timeout.
LAST_REQUEST = 1.0
# How often, in seconds, it is looked whether a client is there that isn't read from.
LOOK = 1.0
# Requests that are answered by ourselves in a row, before others get their turn (H38).
TURNS = 100


class Phase(Enum):
    """What a client's connection is doing."""

    IDLE = "idle"
    HEAD = "head"
    EXCHANGE = "exchange"
    LINGER = "linger"
    CLOSED = "closed"


# See exchange.py.
IDLE, HEAD, EXCHANGE, LINGERING, CLOSED = Phase
# No request is under way.
BETWEEN = (IDLE, HEAD)


class FrontendConnection(asyncio.Protocol):
    """One client's connection."""

    __slots__ = (
        "_admitted",
        "_buffer",
        "_position",
        "_reading",
        "_scanned",
        "address",
        "blocked",
        "context",
        "deadline",
        "ends",
        "exchange",
        "explains",
        "forwarded",
        "frontend",
        "gate",
        "half_closed",
        "may_keep",
        "phase",
        "served",
        "transport",
    )

    def __init__(self, frontend: Frontend, address: str = "-", ends: Ends | None = None) -> None:
        # for the connection's life
        self.frontend = frontend
        # the client's; where a PROXY preamble announced it, both ends of its connection
        self.address = address
        self.ends = ends
        # whether it counts among those connected, and what secures it
        self._admitted = True
        self.context: ssl.SSLContext | None = None
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.gate: Gate = cast(Gate, None)
        self.forwarded: Forwarded = cast(Forwarded, None)
        # whether its responses may have to tell how their member was chosen
        self.explains = False
        self.served = 0
        self.may_keep = True
        self.half_closed = False
        self.blocked = False
        # for what it is doing now
        self.phase = IDLE
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
        self.may_keep = not frontend.closing
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(HIGH_WATER)
        if frontend.tls:  # else 256 KiB wait unread before TLS stops reading
            cast(Any, transport).set_read_buffer_limits(HIGH_WATER)
        self.gate = Gate(self.transport)
        if frontend.certificates is not None:
            self.context = transport.get_extra_info("ssl_object").context
        self.reload()
        self.deadline = frontend.clock.monotonic() + frontend.timeouts.head
        frontend.connections.add(self)
        frontend.deadlines.add(self)

    def reload(self) -> None:
        """The frontend's settings are others: what was made of them is made anew."""
        frontend = self.frontend
        self.forwarded = Forwarded(
            self.address,
            frontend.server_name,
            tls=frontend.tls,
            trusted=frontend.trusts(self.address),
        )
        self.forwarded.apache = frontend.apache
        self.explains = bool(frontend.explain_to) and (
            self.forwarded.trusted or is_among(self.address, frontend.explain_to)
        )

    def explains_to(self, head: RequestHead) -> bool:
        """Whether the response to this request tells how its member was chosen.

        Behind a trusted proxy its client counts: the last address in X-Forwarded-For that is no
        trusted proxy's (H43).
        """
        if not self.explains or not self.forwarded.trusted:
            return self.explains
        frontend, address = self.frontend, self.address
        for told in reversed((head.joined(b"x-forwarded-for") or b"").split(b",")):
            if not frontend.trusts(address):
                break
            address = told.strip().decode("ascii", "replace") or address
        return is_among(address, frontend.explain_to)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        exchange = self.exchange
        if exchange is not None:
            self._exchange_data(exchange, data)
        elif self.phase is not LINGERING:
            self._buffer = self._take() + data if self._buffer else data
            self._read_requests()

    def eof_received(self) -> bool:
        """The client sends no more; over plain TCP it may still wait for its answer."""
        exchange = self.exchange
        self.half_closed = True
        if self.frontend.tls:
            if exchange is not None:
                exchange.client_lost()  # TLS takes no more for it, so its member needn't go on
            return False
        if exchange is None:
            return self.blocked and bool(self._buffer)
        self._look_later()
        return exchange.request.complete and exchange.tunnel is None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, whoever ended it."""
        self.phase = CLOSED
        self.leave()
        self.frontend.connections.discard(self)
        self.frontend.deadlines.discard(self)
        if self.exchange is not None:
            self.exchange.client_lost()
            self.exchange = None

    def leave(self) -> None:
        """The client counts no more among those connected."""
        if self._admitted:
            self._admitted = False
            self.frontend.admission.leave(self.address)

    # --- requests ----------------------------------------------------------------------------

    def _exchange_data(self, exchange: Exchange, data: bytes) -> None:
        """Bytes that arrive while an exchange is under way: its body, its tunnel, or the next."""
        if exchange.tunnel is not None:
            exchange.tunnel.client_data(data)
        elif exchange.request.complete:
            self._buffer = self._take() + data
            self._hold_ahead()
        else:
            self._feed_body(exchange, data)

    def _read_requests(self) -> None:
        """Take requests from the buffer, as long as each is answered at once."""
        self._reading = True
        turns = 0
        while self.phase in BETWEEN and self._position < len(self._buffer):
            if self.blocked:
                break  # a client that doesn't read gets no more answers
            if (turns := turns + 1) > TURNS:
                asyncio.get_running_loop().call_soon(self._go_on)
                break
            try:
                if not self._read_request():
                    break
            except ClientError as error:
                self._refuse(error)
            except Exception:
                log.exception("a request could not be handled: a mistake in balanceme")
                if self.exchange is not None:
                    mistakes.end(self.exchange)
                else:
                    self.abort()
        self._reading = False
        if self._position >= len(self._buffer):
            self._buffer = b""
            self._position = 0
        elif self.phase is not LINGERING and (self.exchange or self.blocked or turns > TURNS):
            self._hold_ahead()
        if self.half_closed and not self.blocked and self.phase in BETWEEN:
            self.close()  # what it had sent is answered

    def _go_on(self) -> None:
        """Take requests again, after others have had their turn."""
        if self.phase in BETWEEN and not self._reading:
            self.gate.release(Hold.PIPELINED)
            self._read_requests()

    def _hold_ahead(self) -> None:
        """Stop reading from a client that has sent enough ahead (H37)."""
        if len(self._buffer) - self._position > self.frontend.limits.pipelined:
            self.hold(Hold.PIPELINED)

    def _read_request(self) -> bool:
        """Begin the next request; False while its head is incomplete."""
        frontend = self.frontend
        found = read_request_head(self._buffer, frontend.limits, self._position, self._scanned)
        if found is None:
            if self.phase is IDLE:
                self.phase = HEAD
                self.deadline = frontend.clock.monotonic() + frontend.timeouts.head
            self._buffer = self._take()
            self._scanned = len(self._buffer)
            return False
        head, self._position = found
        self._scanned = 0
        self.phase = EXCHANGE
        self.deadline = NEVER
        self.served += 1
        if self.served > frontend.keep_alive_requests > 0:
            self.may_keep = False
        body = None if head.block.plain else request_body(head, frontend.limits)
        exchange = self.exchange = Exchange(self, head, body)
        if exchange.request.complete:
            exchange.start(b"")
        else:
            self._feed_body(exchange, self._take())
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
            return
        exchange.request.received += len(piece)
        if body.complete:
            exchange.request.complete = True
            self._buffer = body.rest
            self._hold_ahead()
        else:
            self.expect_body(len(data))
        if exchange.phase is READ:
            exchange.start(piece)
        elif piece or body.complete:
            exchange.request_data(piece)

    def expect_body(self, received: int = 0) -> None:
        """More of a body is due, unless it is we who don't read, or the client.

        Each of the ``received`` bytes gives a little time, up to the timeout: who sends steadily
        may be slow, and may fall silent for a while, but can't hold a member by a trickle (H70).
        """
        if self.gate.open and not self.blocked:
            frontend = self.frontend
            latest = frontend.clock.monotonic() + frontend.timeouts.body
            earned = self.deadline + received / frontend.limits.body_rate
            self.deadline = min(earned, latest) if received else latest

    def take_ahead(self) -> bytes:
        """What the client sent behind its upgrade request."""
        self.gate.release(Hold.PIPELINED)
        return self._take()

    def _take(self) -> bytes:
        """What no request has taken yet; the buffer is empty then."""
        rest = self._buffer[self._position :]
        self._buffer = b""
        self._position = 0
        return rest

    def exchange_done(self, now: float, *, keep: bool) -> None:
        """The exchange has ended; the connection serves the next request, or closes."""
        self.exchange = None
        if not keep:
            self.close()
            return
        self.phase = IDLE
        if not self.blocked:
            timeout = self.frontend.timeouts.keep_alive
            # The client was told that it may go on, before we knew that we close.
            self.deadline = now + (timeout if self.may_keep else min(timeout, LAST_REQUEST))
        if not self.gate.open:
            self.gate.release(Hold.PIPELINED | Hold.CONNECTING | Hold.OTHER_SIDE_SLOW)
        if (self._buffer or self.half_closed) and not self._reading:
            self._read_requests()

    # --- own answers -------------------------------------------------------------------------

    def _refuse(self, error: ClientError | FramingError, line: bytes = b"") -> None:
        """Answer what can't be understood, and close: nothing behind it can be trusted."""
        if self.phase is CLOSED:
            return
        # One line, whatever ended it: field lines hold what no log may (H86).
        line = line or next(iter(self._buffer[self._position :].lstrip(b"\r\n").splitlines()), b"")
        told = NO_PLACEMENT if self.explains and not self.forwarded.trusted else b""
        client = self.forwarded.client
        self.transport.write(refusal(self.frontend, client, error.status, line, told))
        self._buffer = b""
        self.exchange = None
        self.close()

    # --- writing, holding, closing, timers ---------------------------------------------------

    def hold(self, why: Hold) -> None:
        """Stop reading; whether the client is still there is then looked at now and then (H66)."""
        self.gate.hold(why)
        self._look_later()

    @property
    def _is_unread(self) -> bool:
        """Whether the client's end could not be read."""
        return self.half_closed or not self.gate.open

    def _look_later(self) -> None:
        if self.phase is EXCHANGE and not self.blocked:
            self.deadline = self.frontend.clock.monotonic() + LOOK

    def _look(self) -> None:
        """Whether a client that isn't read from is still there; its end can't be read."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None and has_left(sock, tls=self.frontend.tls):
            self.abort()
        else:
            self._look_later()

    def close(self) -> None:
        """Close once everything is written, and once the client has stopped sending."""
        if self.phase is CLOSED:
            return
        tls = self.frontend.tls
        timeout = TLS_LINGER if tls else LINGER
        if self.transport.get_write_buffer_size():
            timeout = max(timeout, self.frontend.timeouts.write)
        self.phase = LINGERING
        self.deadline = self.frontend.clock.monotonic() + timeout
        self.gate.release(~Hold.NONE)
        if tls or self.half_closed:
            self.transport.close()
        elif self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()

    def abort(self) -> None:
        """Close at once, so that the client notices that something is missing (H59)."""
        if self.exchange is not None or self.transport.get_write_buffer_size():
            reset(self.transport)
        else:
            self.transport.abort()

    def close_when_idle(self) -> None:
        """Nothing more is accepted here: close after the request that has begun, or may have."""
        self.may_keep = False
        if self.phase is not IDLE:
            return
        timeouts = self.frontend.timeouts
        since = self.deadline - (timeouts.keep_alive if self.served else timeouts.head)
        self.deadline = min(self.deadline, since + LAST_REQUEST)
        if self.blocked or self.deadline <= self.frontend.clock.monotonic():
            self.close()

    def send_away(self) -> None:
        """Worker or member stop: whoever waits for news asks another one for them (D41, D68)."""
        self.may_keep = False
        if self.exchange is not None:
            self.exchange.answer(unavailable(apache=self.frontend.apache))

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
            if self._is_unread:
                self._look_later()
            if not self.exchange.request.complete:
                self.expect_body()
            self.exchange.client_ready()
        elif self.phase in BETWEEN:
            timeouts = self.frontend.timeouts
            timeout = timeouts.keep_alive if self.phase is IDLE else timeouts.head
            self.deadline = self.frontend.clock.monotonic() + timeout
            self.gate.release(Hold.PIPELINED)
            if (self._buffer or self.half_closed) and not self._reading:
                self._read_requests()

    def expired(self, now: float) -> None:
        """The deadline has passed."""
        self.deadline = NEVER
        if self.phase is HEAD:
            self._refuse(ClientError(408, "head not complete in time"))
        elif self.phase is EXCHANGE and self.exchange is not None and not self.blocked:
            if self._is_unread:
                self._look()
            else:
                self.exchange.client_expired()
        elif self.phase is IDLE and not self.blocked:
            self.close()
        else:
            self.abort()

    def __repr__(self) -> str:
        return f"<FrontendConnection {self.forwarded.client.decode()} {self.phase.value}>"
