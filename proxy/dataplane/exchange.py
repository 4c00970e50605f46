"""One request and its response: from the head understood to the line in the access log.

The exchange asks the core and obeys. It holds what is true for one request, drives the client's
and the member's connection, and ends exactly once, in ``finish``.
"""

import logging
from enum import Enum
from typing import TYPE_CHECKING

from proxy.core import headers
from proxy.core.errors import ClientError
from proxy.core.explain_line import NO_PLACEMENT, explain_line, with_line
from proxy.core.failover import Failure, Next
from proxy.core.framing import Body, ChunkedBody, LengthBody
from proxy.core.heads import RequestHead, ResponseHead
from proxy.core.mapping import read_target
from proxy.core.own_answers import (
    OWN_METHODS,
    health,
    redirect_to_https,
    unavailable,
    without_mapping,
    without_member,
)
from proxy.core.pages import OwnAnswer
from proxy.core.placement import Placement
from proxy.dataplane.deadlines import NEVER
from proxy.dataplane.flow import Hold, ends_of
from proxy.dataplane.mistakes import guarded
from proxy.dataplane.request import NO_BODY, PREFETCH_TIME, Request
from proxy.dataplane.response import CLIENT_LEFT, CLOSING, Response
from proxy.dataplane.tunnel import Tunnel, asked_for

if TYPE_CHECKING:
    from proxy.dataplane.frontend_connection import FrontendConnection
    from proxy.dataplane.member_connection import MemberConnection

log = logging.getLogger("balanceme")

# Seconds after which a device's request without an answer is taken for one that waits for news.
LONG_POLL = 10.0
# Seconds between two words about a member in error: when all are, each request may end and renew
# their errors (F7), and clients can send as many as they like.
TELL_AGAIN = 1.0


class Phase(Enum):
    """How far the exchange has got."""

    READ = "read"
    WAITING = "waiting"
    COLLECTING = "collecting"
    CONNECTING = "connecting"
    SENT = "sent"
    RESPONDING = "responding"
    DONE = "done"


# An enum's member costs 0.06 µs more through its class (CPython 3.11), 25 times in an exchange.
READ, WAITING, COLLECTING, CONNECTING, SENT, RESPONDING, DONE = Phase


class Exchange:
    """One request and its response."""

    __slots__ = (
        "begun",
        "client",
        "connect_time",
        "connection",
        "first_byte_time",
        "head",
        "mapped",
        "phase",
        "placement",
        "received_at",
        "request",
        "response",
        "tunnel",
    )

    # Set once the request is ``mapped``.
    placement: Placement

    def __init__(
        self,
        client: "FrontendConnection",
        head: RequestHead,
        body: LengthBody | ChunkedBody | None,
    ) -> None:
        self.client = client
        self.head = head
        self.phase = READ
        # wall clock; then monotonic, and seconds since
        clock = client.frontend.clock
        self.received_at = clock.wall()
        self.begun = clock.monotonic()
        self.connect_time = 0.0
        self.first_byte_time = 0.0
        # the member's side
        self.request = (
            NO_BODY if body is None else Request(body, expects_continue=head.expects_continue)
        )
        self.mapped = False
        self.connection: MemberConnection | None = None
        self.tunnel: Tunnel | None = None
        # the client's side
        self.response = Response(client, head, int(self.received_at))

    # --- the decision ------------------------------------------------------------------------

    def start(self, piece: bytes) -> None:
        """Decide where the request goes; ``piece`` is what there is of its body."""
        self.phase = COLLECTING
        if piece:
            self.request.hold(piece)
        head, frontend = self.head, self.client.frontend
        answer: OwnAnswer | None
        if head.target == frontend.health_path:
            answer = health(leaving=frontend.leaving)
        elif frontend.redirect_port is not None:
            answer = redirect_to_https(head, frontend.server_name, frontend.redirect_port)
        elif head.block.unusual or head.method in OWN_METHODS:
            apache = frontend.apache
            answer = without_mapping(head) or self._place() or without_member(head, apache=apache)
        else:
            answer = self._place()
        if answer is not None:
            self.answer(answer)
        elif self.request.complete and self.phase is COLLECTING:
            self._connect(self.begun)
        elif self.phase is COLLECTING:
            self._begin()

    def _place(self) -> OwnAnswer | None:
        """Find mapping and member; the answer if there is none, and none is waited for."""
        head, frontend = self.head, self.client.frontend
        try:
            target = read_target(head.target, frontend.apache)
        except ClientError as error:
            return OwnAnswer(error.status)
        host = target.host or head.block.host
        certificates = frontend.certificates
        if certificates is not None and certificates.misdirects(self.client.context, host):
            return OwnAnswer(421)
        mapping = frontend.mappings.find(host, target.path)
        if mapping is None:
            return OwnAnswer(404)
        most = mapping.max_body
        if most is not None and max(head.content_length or 0, self.request.received) > most:
            return OwnAnswer(413)
        placement = self.placement = Placement(mapping, target, head, apache=frontend.apache)
        if mapping.balancer.sessions.moves:
            placement.look_for_move(head, self.client.address, frontend.salt)
        chosen = placement.choose(self.begun)
        self.mapped = True
        return None if chosen or self._wait() else unavailable(apache=frontend.apache)

    def _wait(self) -> bool:
        """Nobody can be chosen: whether the request waits for somebody (B16)."""
        timeout, client = self.placement.wait_timeout(), self.client
        if not timeout or not client.frontend.waiting_room.enter(self, timeout):
            return False
        self.phase = WAITING
        if not self.request.complete:
            client.hold(Hold.CONNECTING)
        return True

    @guarded
    def try_again(self, now: float, *, last: bool) -> None:
        """It waits, and there may be somebody now; if not, it's over when this was the last try."""
        if self.placement.choose(now):
            self._go_on(now)
        elif last:
            self.answer(unavailable(apache=self.client.frontend.apache))

    @guarded
    def place_again(self) -> None:
        """It waits, and the settings are others: they may know a member for it, or not know it."""
        former = self.placement
        self.client.frontend.waiting_room.leave(self)
        self.phase = COLLECTING
        answer = self._place()
        if self.placement is not former:
            self.placement.attempts += former.attempts
        if answer is not None:
            self.answer(answer)
        elif self.phase is COLLECTING:
            self._go_on(self.client.frontend.clock.monotonic())

    def _go_on(self, now: float) -> None:
        """Somebody was found for a request that has waited."""
        self.client.frontend.waiting_room.leave(self)
        self.phase = COLLECTING
        if self.request.complete:
            self._connect(now)
        else:
            self.client.gate.release(Hold.CONNECTING)
            self.client.expect_body()
            self._begin()

    def _begin(self) -> None:
        """Go to the member, once enough of the body is there."""
        if self.request.collected:
            self._connect(self.client.frontend.clock.monotonic())
        elif not self.client.frontend.apache:
            self.client.deadline = self.begun + PREFETCH_TIME

    # --- the request -------------------------------------------------------------------------

    def request_data(self, piece: bytes) -> None:
        """More of the request's body."""
        request, connection = self.request, self.connection
        request.continued = True
        most = self.placement.mapping.max_body
        if most is not None and request.received > most:
            self._refuse_body()
        elif self.phase is COLLECTING:
            request.hold(piece)
            self._begin()
        elif self.phase is CONNECTING or self.phase is WAITING:
            request.hold(piece)
            self.client.hold(Hold.CONNECTING)
        elif connection is not None:
            data = request.framed(piece)
            self.placement.member.sent += len(data)
            connection.transport.write(data)
            connection.deadline = self.next_deadline()

    def _refuse_body(self) -> None:
        """The body is larger than its mapping allows (413), and the member mustn't see its end."""
        if not self.abandon_response():
            self.answer(OwnAnswer(413))

    def _connect(self, now: float, *, fresh: bool = False) -> None:
        """Take a connection to the member, or have one opened."""
        self.phase = CONNECTING
        pool = self.client.frontend.pools[self.placement.member]
        connection = None if fresh else pool.take()
        if connection is not None:
            self._send(connection, now)
            return
        if not self.request.complete:
            self.client.deadline = NEVER
        pool.open(self)

    def wants_connection(self) -> bool:
        """Whether a connection is being waited for."""
        return self.phase is CONNECTING

    @guarded
    def connected(self, connection: "MemberConnection") -> None:
        """A connection to the member stands."""
        now = self.client.frontend.clock.monotonic()
        self.connect_time = now - self.begun
        self._send(connection, now)

    def _send(self, connection: "MemberConnection", now: float) -> None:
        client, placement = self.client, self.placement
        self.phase = SENT
        self.connection = connection
        data = self.request.encode(self.head, placement, client.forwarded)
        if placement.member.preamble is not None:
            data = placement.member.preamble(client.ends or ends_of(client.transport)) + data
        placement.member.sent += len(data)
        connection.begin(self, data, now + placement.response_timeout)
        if client.blocked:
            self.client_slow()
        if not client.gate.open:
            client.gate.release(Hold.CONNECTING)
        if not self.request.complete and self.request.continued:
            client.expect_body()

    # --- the response ------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """Until when the member must send the next piece."""
        return self.client.frontend.clock.monotonic() + self.placement.response_timeout

    def interim(self, head: ResponseHead) -> None:
        """A 1xx response."""
        if head.status == 100 and not self.request.continued:
            self.request.continued = True
            self.client.expect_body()
        self.response.interim(head)

    def switch(self, head: ResponseHead, data: bytes) -> bool:
        """101: the connections become a tunnel; False if that was not asked for (P26, H84)."""
        tunnel = self.tunnel = asked_for(self, head)
        if tunnel is None:
            return False
        self.phase = RESPONDING
        self.response.status = 101
        now = self.client.frontend.clock.monotonic()
        self.first_byte_time = now - self.begun
        self.placement.served(self.head, self.client.address, self.client.frontend.salt, now)
        answer = headers.switching_response(head)
        line = self._explain_line() if self.client.explains else b""
        if line:
            answer = with_line(answer, line)
        self.client.transport.write(answer)
        tunnel.member_data(data)
        tunnel.client_data(self.client.take_ahead())
        return True

    def respond(
        self, head: ResponseHead, body: Body | None, piece: bytes, now: float, *, complete: bool
    ) -> None:
        """The final head, with what there is of the body, in one write, at monotonic ``now``."""
        client, response, placement = self.client, self.response, self.placement
        self.phase = RESPONDING
        self.first_byte_time = now - self.begun
        response.keep = self._may_keep(head.status)
        # What B9 counts: the status line and the body.
        placement.member.received += len(piece) + len(head.line) - 2
        if head.status != 401:  # whoever has to log in first has no session there
            placement.served(self.head, client.address, client.frontend.salt, now)
        data = response.begin(head, body, piece, placement, last=complete)
        client.transport.write(data)
        if placement.mapping.fail_on_status:
            self._take_status(head.status, now)
        if complete:
            self._finish(now, keep=response.keep)

    def _take_status(self, status: int, now: float) -> None:
        """Whether the final answer puts its member in error (F10), unless the client caused it."""
        if not self._owes_body and self.placement.answered(status, now):
            self._tell_of_error(f"answered {status}", now)

    def response_data(self, piece: bytes, *, complete: bool) -> None:
        """More of the response's body."""
        self.placement.member.received += len(piece)
        data = self.response.framed(piece, last=complete)
        if data:
            self.client.transport.write(data)
        if complete:
            self.finish(keep=self.response.keep)

    def _may_keep(self, status: int) -> bool:
        """Whether the client's connection can serve another request."""
        return (
            self.request.complete
            and self.head.keep_alive
            and status not in CLOSING
            and self.client.may_keep
        )

    def _cookie_line(self) -> bytes:
        if not self.mapped:
            return b""
        return self.placement.cookie_line(self.response.second, tls=self.client.frontend.tls)

    def _explain_line(self) -> bytes:
        """What a client in explain_to is told of the choice."""
        if not self.client.explains_to(self.head):
            return b""
        return explain_line(self.placement) if self.mapped else NO_PLACEMENT

    def answer(self, answer: OwnAnswer) -> None:
        """Answer ourselves, and end."""
        self._leave_member()
        response = self.response
        response.keep = self._may_keep(answer.status)
        lines = self._cookie_line()
        if self.client.explains:
            lines += self._explain_line()
        response.own(answer, lines)
        self.finish(keep=response.keep)

    # --- failures and the end ----------------------------------------------------------------

    @guarded
    def attempt_failed(self, failure: Failure) -> None:
        """The member could not be reached."""
        if self.phase is CONNECTING:
            self._judge(failure, reused=False)

    @guarded
    def member_lost(self, failure: Failure, *, reused: bool) -> None:
        """The member's connection failed before the response was complete."""
        self.connection = None
        if self.phase is SENT:
            if failure is Failure.CLOSED and not self.request.complete:
                failure = Failure.SENDING
            self._judge(failure, reused=reused)
        elif self.phase is RESPONDING:
            self.response.cut()
            self.finish(keep=False)

    def _judge(self, failure: Failure, *, reused: bool) -> None:
        """An attempt has failed before anything was answered: again, or give up."""
        client, placement = self.client, self.placement
        apache = client.frontend.apache
        now = client.frontend.clock.monotonic()
        later = client.served > 1
        verdict = placement.failed(failure, self.head, now, reused=reused, later_request=later)
        if verdict.member_in_error:
            self._tell_of_error(failure.value, now)
        if verdict.next is Next.SAME_MEMBER:
            self._connect(now, fresh=True)
        elif verdict.next is Next.OTHER_MEMBER and placement.choose(now):
            self._connect(now)
        elif verdict.next is Next.CLOSE_CLIENT:
            self.response.status = verdict.status
            self.finish(keep=False)
        elif verdict.next is Next.OTHER_MEMBER and self._wait():
            pass
        elif verdict.next is Next.OTHER_MEMBER or verdict.status == 503:
            self.answer(unavailable(apache=apache))
        else:
            self.answer(OwnAnswer(verdict.status, verdict.reason if apache else ""))

    def _tell_of_error(self, why: str, now: float) -> None:
        """The member is in error, and it is news: to the operator, and to all workers."""
        member = self.placement.member
        settings, pool = member.settings, self.client.frontend.pools[member]
        if now - pool.error_told < TELL_AGAIN:
            return
        pool.error_told = now
        log.warning("%s in error for %g s: %s", settings.url, settings.retry_after, why)
        self.client.frontend.member_in_error(member)

    def _leave_member(self) -> None:
        """The member, if there is one, is left; its connection can't be used again."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        if self.phase is CONNECTING:
            self.client.frontend.pools[self.placement.member].forget(self)
        elif self.phase is WAITING:
            self.client.frontend.waiting_room.leave(self)

    def abandon(self) -> bool:
        """The request turned out malformed: whoever got a part of it must not see its end (H11).

        Whether the client may still be told; it is cut off when an answer is under way.
        """
        if self.abandon_response():
            return False
        self._leave_member()
        self._end()
        return True

    def abandon_response(self) -> bool:
        """Cut both sides off at once if an answer is under way; whether one was.

        At once, since the member's next bytes may be there already: its connection must not go
        back to the pool while a body is owed (H12).
        """
        if self.phase is not RESPONDING:
            return False
        self.client.abort()
        self.client_lost()
        return True

    def finish(self, *, keep: bool) -> None:
        """The one end of every exchange; ``keep`` tells whether the client's connection stays."""
        if self.phase is not DONE:
            self._finish(self.client.frontend.clock.monotonic(), keep=keep)

    def _finish(self, now: float, *, keep: bool) -> None:
        client = self.client
        self.phase = DONE
        self.connection = None
        if self.mapped:
            self.placement.leave()
        client.frontend.access_log.exchange(self, now)
        client.exchange_done(now, keep=keep)

    def _end(self) -> None:
        self.phase = DONE
        self.connection = None
        if self.mapped:
            self.placement.leave()

    # --- the other side, and timers ----------------------------------------------------------

    def client_lost(self) -> None:
        """The client is gone: so is our interest in the member's answer (H66)."""
        if self.phase is DONE:
            return
        self.response.status = self.response.status or CLIENT_LEFT
        if self.tunnel is not None:
            self.tunnel.client_lost()
        self._leave_member()
        self.finish(keep=False)

    def client_slow(self) -> None:
        """The client reads slowly: stop taking from the member."""
        if self.connection is not None:
            self.connection.gate.hold(Hold.OTHER_SIDE_SLOW)

    def client_ready(self) -> None:
        """The client has caught up."""
        if self.connection is not None:
            self.connection.gate.release(Hold.OTHER_SIDE_SLOW)

    def member_slow(self) -> None:
        """The member reads slowly: stop taking from the client."""
        self.client.hold(Hold.OTHER_SIDE_SLOW)

    def member_ready(self) -> None:
        """The member has caught up."""
        self.client.gate.release(Hold.OTHER_SIDE_SLOW)
        if not self.request.complete:
            self.client.expect_body()

    def waits_for_client(self) -> bool:
        """Whether the member's silence is the client's doing."""
        return self._owes_body or self.client.blocked

    @property
    def _owes_body(self) -> bool:
        """Whether the client is to send more of its body, and could."""
        request = self.request
        return not request.complete and request.continued and self.client.gate.open

    def waits_for_news(self, now: float) -> bool:
        """Whether this is a device's request that has waited long enough to be a Ping (D41)."""
        return (
            self.phase is SENT
            and self.placement.target.activesync
            and self.request.complete
            and now - self.begun >= LONG_POLL
        )

    @guarded
    def client_expired(self) -> None:
        """The deadline for more of the client's body has passed."""
        if self.phase is COLLECTING and not self.client.frontend.apache:
            self._connect(self.client.frontend.clock.monotonic())
        elif self.phase is not COLLECTING and not self.waits_for_client():
            pass  # by now it is the member's turn
        elif self.phase is RESPONDING:
            self.client.abort()
        else:
            self.answer(OwnAnswer(408))

    def __repr__(self) -> str:
        return f"<Exchange {self.head!r} {self.phase.value}>"
