"""One request and its response: from the head understood to the line in the access log.

The exchange asks the core and obeys. It holds what is true for one request, drives the client's
and the member's connection, and ends exactly once, in ``finish``.
"""

import logging
from enum import Enum
from typing import TYPE_CHECKING

from proxy.core import headers
from proxy.core.errors import ClientError
from proxy.core.failover import Failure, Next
from proxy.core.framing import Body, ChunkedBody, LengthBody
from proxy.core.http1 import RequestHead, ResponseHead
from proxy.core.mapping import read_target
from proxy.core.own_answers import (
    redirect_to_https,
    unavailable,
    upgrade_protocol,
    without_mapping,
    without_member,
)
from proxy.core.pages import OwnAnswer
from proxy.core.placement import Placement
from proxy.dataplane.deadlines import NEVER
from proxy.dataplane.flow import Hold
from proxy.dataplane.request import Request
from proxy.dataplane.response import Response
from proxy.dataplane.tunnel import Tunnel

if TYPE_CHECKING:
    from proxy.dataplane.frontend import FrontendConnection
    from proxy.dataplane.member_connection import MemberConnection

log = logging.getLogger("balanceme")

# How long, in seconds, the first part of a body is waited for before a member is bothered (R10).
# Apache waits as long as the client's body timeout allows.
PREFETCH_TIME = 1.0
# What the log says when the client left before an answer; no HTTP status, but nginx's word too.
CLIENT_LEFT = 499


class Phase(Enum):
    """How far the exchange has got."""

    READ = "read"
    COLLECTING = "collecting"
    CONNECTING = "connecting"
    SENT = "sent"
    RESPONDING = "responding"
    DONE = "done"


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
        self.phase = Phase.READ
        # wall clock; then monotonic, and seconds since
        self.received_at = client.frontend.clock.wall()
        self.begun = client.frontend.clock.monotonic()
        self.connect_time = 0.0
        self.first_byte_time = 0.0
        # the member's side
        self.request = Request(head, body)
        self.mapped = False
        self.connection: MemberConnection | None = None
        self.tunnel: Tunnel | None = None
        # the client's side
        self.response = Response(client, head)

    # --- the decision ------------------------------------------------------------------------

    def start(self, piece: bytes) -> None:
        """Decide where the request goes; ``piece`` is what there is of its body."""
        self.phase = Phase.COLLECTING
        if piece:
            self.request.hold(piece)
        answer = self._own_answer() or self._place()
        if answer is not None:
            self.answer(answer)
        else:
            self._begin()

    def _own_answer(self) -> OwnAnswer | None:
        """The answer to a request that concerns no member."""
        frontend = self.client.frontend
        if frontend.redirect_port is not None:
            return redirect_to_https(self.head, frontend.server_name, frontend.redirect_port)
        return without_mapping(self.head)

    def _place(self) -> OwnAnswer | None:
        """Find mapping and member; the answer if there is none, or none is needed."""
        head, frontend = self.head, self.client.frontend
        try:
            target = read_target(head.target)
        except ClientError as error:
            return OwnAnswer(error.status)
        mapping = frontend.mappings.find(target.host or head.host, target.path)
        if mapping is None:
            return OwnAnswer(404)
        placement = self.placement = Placement(mapping, target, head, apache=frontend.apache)
        self.mapped = True
        if not placement.choose(frontend.clock.monotonic()):
            return unavailable(apache=frontend.apache)
        return without_member(head, apache=frontend.apache)

    def _begin(self) -> None:
        """Go to the member, once enough of the body is there."""
        if self.request.collected:
            self._connect()
        elif not self.client.frontend.apache:
            self.client.deadline = self.begun + PREFETCH_TIME

    # --- the request -------------------------------------------------------------------------

    def request_data(self, piece: bytes) -> None:
        """More of the request's body."""
        request, connection = self.request, self.connection
        request.continued = True
        if self.phase is Phase.COLLECTING:
            request.hold(piece)
            self._begin()
        elif self.phase is Phase.CONNECTING:
            request.hold(piece)
            self.client.gate.hold(Hold.CONNECTING)
        elif connection is not None:
            data = request.framed(piece)
            self.placement.member.sent += len(data)
            connection.transport.write(data)
            connection.deadline = self.next_deadline()

    def _connect(self, *, fresh: bool = False) -> None:
        """Take a connection to the member, or have one opened."""
        self.phase = Phase.CONNECTING
        pool = self.client.frontend.pools[self.placement.member]
        connection = None if fresh else pool.take()
        if connection is not None:
            self._send(connection)
            return
        if not self.request.complete:
            self.client.deadline = NEVER
        pool.open(self)

    def wants_connection(self) -> bool:
        """Whether a connection is being waited for."""
        return self.phase is Phase.CONNECTING

    def connected(self, connection: "MemberConnection") -> None:
        """A connection to the member stands."""
        self.connect_time = self.client.frontend.clock.monotonic() - self.begun
        self._send(connection)

    def _send(self, connection: "MemberConnection") -> None:
        client, placement = self.client, self.placement
        self.phase = Phase.SENT
        self.connection = connection
        data = self.request.encode(placement, client.forwarded)
        placement.member.sent += len(data)
        connection.begin(self, data, self.next_deadline())
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
        placement, connection = self.placement, self.connection
        protocol = upgrade_protocol(self.head, placement.mapping.upgrade)
        answered = head.known.get(b"upgrade", b"").lower()
        if protocol is None or protocol.lower() != answered or not self.request.complete:
            return False
        if connection is None:
            return False
        self.phase = Phase.RESPONDING
        self.response.status = 101
        self.first_byte_time = self.client.frontend.clock.monotonic() - self.begun
        self.client.write(headers.switching_response(head))
        timeout = placement.member.timeouts.tunnel
        self.tunnel = Tunnel(self, self.client, connection, timeout)
        if data:
            self.tunnel.member_data(data)
        self.tunnel.client_data(self.client.take_ahead())
        return True

    def respond(
        self, head: ResponseHead, body: Body | None, piece: bytes, *, complete: bool
    ) -> None:
        """The final head, with what there is of the body, in one write."""
        response, frontend, placement = self.response, self.client.frontend, self.placement
        self.phase = Phase.RESPONDING
        self.first_byte_time = frontend.clock.monotonic() - self.begun
        response.keep = response.may_keep(head.status, request_complete=self.request.complete)
        date = frontend.clock.date(int(self.received_at))
        lines = headers.ResponseLines(date, frontend.server, self._cookie_line())
        data = response.begin(head, body, lines, placement.mapping)
        # What B9 counts: the status line and the body.
        placement.member.received += len(piece) + len(head.reason) + 13
        self.client.write(data + response.framed(piece, last=complete))
        if complete:
            self.finish(keep=response.keep)

    def response_data(self, piece: bytes, *, complete: bool) -> None:
        """More of the response's body."""
        self.placement.member.received += len(piece)
        data = self.response.framed(piece, last=complete)
        if data:
            self.client.write(data)
        if complete:
            self.finish(keep=self.response.keep)

    def _cookie_line(self) -> bytes:
        if not self.mapped:
            return b""
        return self.placement.cookie_line(int(self.received_at), tls=self.client.frontend.tls)

    def answer(self, answer: OwnAnswer) -> None:
        """Answer ourselves, and end."""
        self._leave_member()
        response = self.response
        complete = self.request.complete
        response.keep = response.may_keep(answer.status, request_complete=complete)
        response.own(answer, int(self.received_at), self._cookie_line())
        self.finish(keep=response.keep)

    # --- failures and the end ----------------------------------------------------------------

    def attempt_failed(self, failure: Failure) -> None:
        """The member could not be reached."""
        if self.phase is Phase.CONNECTING:
            self._judge(failure, reused=False)

    def member_lost(self, failure: Failure, *, reused: bool) -> None:
        """The member's connection failed before the response was complete."""
        self.connection = None
        if self.phase is Phase.SENT:
            if failure is Failure.CLOSED and not self.request.complete:
                failure = Failure.SENDING
            self._judge(failure, reused=reused)
        elif self.phase is Phase.RESPONDING:
            # The body ends too early, and the client must be able to tell (P24, H59): a length
            # or a missing last chunk tells it, a body until close needs a reset.
            client = self.client
            self.finish(keep=False)
            if not self.response.delimited:
                client.abort()

    def _judge(self, failure: Failure, *, reused: bool) -> None:
        """An attempt has failed before anything was answered: again, or give up."""
        client, placement = self.client, self.placement
        apache = client.frontend.apache
        now = client.frontend.clock.monotonic()
        later = client.served > 1
        verdict = placement.failed(failure, self.head, now, reused=reused, later_request=later)
        if verdict.member_in_error:
            settings = placement.member.settings
            log.warning(
                "%s in error for %g s: %s", settings.url, settings.retry_after, failure.value
            )
        if verdict.next is Next.SAME_MEMBER:
            self._connect(fresh=True)
        elif verdict.next is Next.OTHER_MEMBER and placement.choose(now):
            self._connect()
        elif verdict.next is Next.CLOSE_CLIENT:
            self.response.status = verdict.status
            self.finish(keep=False)
        elif verdict.next is Next.OTHER_MEMBER or verdict.status == 503:
            self.answer(unavailable(apache=apache))
        else:
            self.answer(OwnAnswer(verdict.status, verdict.reason if apache else ""))

    def _leave_member(self) -> None:
        """The member, if there is one, is left; its connection can't be used again."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        if self.phase is Phase.CONNECTING:
            self.client.frontend.pools[self.placement.member].forget(self)

    def abandon(self) -> bool:
        """The request turned out malformed: whoever got a part of it must not see its end (H11).

        Whether the client may still be told.
        """
        untold = self.phase is not Phase.RESPONDING
        self._leave_member()
        self._end()
        return untold

    def finish(self, *, keep: bool) -> None:
        """The one end of every exchange; ``keep`` tells whether the client's connection stays."""
        if self.phase is Phase.DONE:
            return
        self._end()
        self.client.frontend.access_log.exchange(self)
        self.client.exchange_done(keep=keep)

    def _end(self) -> None:
        self.phase = Phase.DONE
        self.connection = None
        if self.mapped:
            self.placement.leave()

    # --- the other side, and timers ----------------------------------------------------------

    def client_lost(self) -> None:
        """The client is gone: so is our interest in the member's answer (H66)."""
        if self.phase is Phase.DONE:
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
        self.client.deadline = NEVER
        self.client.gate.hold(Hold.OTHER_SIDE_SLOW)

    def member_ready(self) -> None:
        """The member has caught up."""
        self.client.gate.release(Hold.OTHER_SIDE_SLOW)
        if not self.request.complete:
            self.client.expect_body()

    def waits_for_client(self) -> bool:
        """Whether the member's silence is the client's doing."""
        client, request = self.client, self.request
        owes_body = not request.complete and request.continued and client.gate.open
        return owes_body or client.blocked

    def client_expired(self) -> None:
        """The client's deadline has passed while its body, or its reading, was waited for."""
        if self.phase is Phase.COLLECTING and not self.client.frontend.apache:
            self._connect()
        elif self.phase is Phase.RESPONDING:
            self.client.abort()
        else:
            self.answer(OwnAnswer(408))

    def __repr__(self) -> str:
        return f"<Exchange {self.head!r} {self.phase.value}>"
