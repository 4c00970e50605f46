"""Our connection to a member: it carries one exchange at a time, and reads the response.

A connection goes back to its pool only when both messages ended where they should. After any doubt
it is closed, and bytes that nobody asked for close it too, so that no client ever gets an answer
that was meant for another (H58 to H61).
"""

import asyncio
import logging
import select
from typing import TYPE_CHECKING, cast

from proxy.core.errors import MemberError, UnexpectedError
from proxy.core.failover import Failure
from proxy.core.framing import Body, FramingError, LengthBody, UntilCloseBody, response_body
from proxy.core.heads import ResponseHead
from proxy.core.http1 import read_response_head
from proxy.dataplane import mistakes
from proxy.dataplane.deadlines import NEVER
from proxy.dataplane.flow import HIGH_WATER, Gate, Hold

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange
    from proxy.dataplane.pool import MemberPool

log = logging.getLogger("balanceme")

# 1xx responses before the final one (P17); the tenth is one too many.
INTERIM_RESPONSES = 10


# The body of a response that came whole; nothing of it ever changes.
WHOLE = LengthBody(0)


class MemberConnection(asyncio.Protocol):
    """One connection to a member."""

    __slots__ = (
        "_body",
        "_buffer",
        "_interim",
        "_keep",
        "_poll",
        "deadline",
        "exchange",
        "gate",
        "pool",
        "served",
        "transport",
    )

    def __init__(self, pool: "MemberPool") -> None:
        # for the connection's life
        self.pool = pool
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.gate: Gate = cast(Gate, None)
        self.served = 0
        self._poll = select.poll()
        # for one exchange
        self.exchange: Exchange | None = None
        self.deadline = NEVER
        self._buffer = b""
        self._body: Body | None = None
        self._interim = 0
        self._keep = False

    # --- asyncio's callbacks -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The member accepted."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(HIGH_WATER)
        self.gate = Gate(self.transport)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            self._poll.register(sock.fileno(), select.POLLIN)
        self.pool.connections.add(self)
        self.pool.deadlines.add(self)

    def data_received(self, data: bytes) -> None:
        """Bytes from the member."""
        exchange = self.exchange
        if exchange is None:
            self.close()  # nobody asked for anything (H60)
            return
        try:
            if self._body is not None:
                self._more_body(exchange, self._body, data)
            elif exchange.tunnel is not None:
                exchange.tunnel.member_data(data)
            else:
                self._read_head(exchange, self._buffer + data if self._buffer else data)
        except UnexpectedError:
            self._fail(exchange, Failure.UNEXPECTED)
        except (MemberError, FramingError):
            self._fail(exchange, Failure.BAD_RESPONSE)
        except Exception:
            log.exception("a response could not be handled: a mistake in balanceme")
            mistakes.end(exchange)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, whoever ended it."""
        self.pool.lost(self)
        exchange = self.exchange
        if exchange is None:
            return
        body, self._body = self._body, None
        if isinstance(body, UntilCloseBody) and exc is None:
            self.exchange = None
            exchange.response_data(b"", complete=True)
        else:
            self._fail(exchange, self._closed_early())

    def _closed_early(self) -> Failure:
        """How a connection failed that ended before the head did (P23)."""
        if b"\r\n" in self._buffer:
            return Failure.BAD_RESPONSE
        # An answer that has begun is no reason to ask again (H69).
        return Failure.UNEXPECTED if self._buffer or self._interim else Failure.CLOSED

    # --- one exchange ------------------------------------------------------------------------

    def begin(self, exchange: "Exchange", data: bytes, deadline: float) -> None:
        """Send a request's head, with what there is of its body, and expect the response."""
        self.exchange = exchange
        self.served += 1
        self.deadline = deadline
        self._interim = 0
        self.transport.write(data)

    def _read_head(self, exchange: "Exchange", data: bytes) -> None:
        limits = self.pool.limits
        while True:
            found = read_response_head(data, limits)
            if found is None:
                self._buffer = data
                return
            head, end = found
            data = data[end:]
            if head.status >= 200:
                break
            if head.status == 101:
                self._buffer = b""
                if not exchange.switch(head, data):
                    raise UnexpectedError("upgrade that nobody asked for")
                return
            self._interim += 1
            self.deadline = exchange.next_deadline()
            exchange.interim(head)
            if self._interim >= INTERIM_RESPONSES:
                raise UnexpectedError("too many interim responses")
        self._buffer = b""
        self._final(exchange, head, data)

    def _final(self, exchange: "Exchange", head: ResponseHead, data: bytes) -> None:
        """The final head, with what came behind it."""
        self._keep = head.keep_alive
        method, now = exchange.head.method, self.pool.clock.monotonic()
        body: Body | None = WHOLE
        complete, piece = True, data
        if head.status == 200 and head.block.content_length == len(data) and method != b"HEAD":
            pass  # it came in one piece, as most do
        elif (body := response_body(head, method, self.pool.limits)) is None:
            piece = b""
            self._keep = self._keep and not data
        else:
            piece = body.feed(data) if data else b""
            complete = body.complete
            if isinstance(body, UntilCloseBody):
                self._keep = False
            self._body = None if complete else body
            self._keep = self._keep and not body.rest
        if complete:
            self._release(exchange, now)
        else:
            self.deadline = exchange.next_deadline()
        exchange.respond(head, body, piece, now, complete=complete)

    def _more_body(self, exchange: "Exchange", body: Body, data: bytes) -> None:
        piece = body.feed(data)
        if body.complete:
            self._body = None
            self._keep = self._keep and not body.rest
            self._release(exchange, self.pool.clock.monotonic())
        else:
            self.deadline = exchange.next_deadline()
        if piece or body.complete:
            exchange.response_data(piece, complete=body.complete)

    def _release(self, exchange: "Exchange", now: float) -> None:
        """The response has ended: back to the pool, or closed when in doubt."""
        self.exchange = None
        exchange.connection = None
        self.deadline = NEVER
        # What the member hasn't taken of a request would stand before the next one (H12).
        owed = not exchange.request.complete or self.transport.get_write_buffer_size()
        if self._keep and not owed:
            if not self.gate.open:
                self.gate.release(~Hold.NONE)
            self.pool.give_back(self, now)
        else:
            self.close()

    def _fail(self, exchange: "Exchange", failure: Failure) -> None:
        self.exchange = None
        self._body = None
        self.transport.abort()
        exchange.member_lost(failure, reused=self.served > 1)

    # --- state, closing, timers --------------------------------------------------------------

    def is_clean(self) -> bool:
        """Whether the idle connection can be used: open, and nothing waits to be read (F17, H60).

        The event loop may not have told of it yet, so the kernel is asked.
        """
        return not self.transport.is_closing() and not self._poll.poll(0)

    def close(self) -> None:
        """Close; nothing more is wanted of the member."""
        self.exchange = None
        self._body = None
        self.transport.abort()

    def pause_writing(self) -> None:
        """The member is slow to read."""
        if self.exchange is not None:
            self.exchange.member_slow()

    def resume_writing(self) -> None:
        """The member has caught up."""
        if self.exchange is not None:
            self.exchange.member_ready()

    def expired(self, now: float) -> None:
        """The member was silent for too long, or the idle connection is old."""
        self.deadline = NEVER
        exchange = self.exchange
        if exchange is None:
            self.close()
        elif exchange.waits_for_client():
            self.deadline = exchange.next_deadline()
        elif exchange.tunnel is not None:
            exchange.tunnel.close()
        elif self._poll.poll(0):
            self.deadline = now  # it is we who are late: what it said is read before the next sweep
        else:
            self._fail(exchange, self._silence(exchange))

    def _silence(self, exchange: "Exchange") -> Failure:
        """How a member failed that sends nothing."""
        if b"\r\n" in self._buffer:
            return Failure.HEAD_TIMEOUT
        if exchange.request.complete and not self.transport.get_write_buffer_size():
            return Failure.RESPONSE_TIMEOUT
        return Failure.UNFINISHED

    def __repr__(self) -> str:
        state = "ACTIVE" if self.exchange is not None else "IDLE"
        return f"<MemberConnection {self.pool.member.settings.url} {state} served={self.served}>"
