"""The client's side of a response: its head, its body in the client's framing, our own answers.

Whether it comes from a member or from ourselves, a response is written here and nowhere else, in
as few writes as there are pieces (P4).
"""

from typing import TYPE_CHECKING

from proxy.core import headers
from proxy.core.explain_line import explain_line, without_line
from proxy.core.framing import Body, LengthBody, encode
from proxy.core.heads import RequestHead, ResponseHead
from proxy.core.own_answers import offered_protocol
from proxy.core.pages import OwnAnswer
from proxy.core.placement import Placement
from proxy.dataplane.access_log import Refusal
from proxy.dataplane.flow import reset

if TYPE_CHECKING:
    from proxy.dataplane.frontend import Frontend
    from proxy.dataplane.frontend_connection import FrontendConnection

# Statuses after which Apache closes the client's connection, a member's own included (P8).
CLOSING = frozenset((400, 408, 411, 413, 414, 500, 501, 503))
# What the log says when the client left before an answer; no HTTP status, but nginx's word too.
CLIENT_LEFT = 499


class Response:
    """One response on its way to the client."""

    __slots__ = (
        "_client",
        "_request",
        "body_sent",
        "chunked",
        "delimited",
        "keep",
        "second",
        "status",
    )

    def __init__(self, client: "FrontendConnection", request: RequestHead, second: int) -> None:
        self._client = client
        self._request = request
        # when the request arrived, since the epoch: what Date and the cookie's end are counted from
        self.second = second
        # 0 until a head is written
        self.status = 0
        self.body_sent = 0
        # whether the client's connection stays for another request
        self.keep = False
        # whether the client reads the body in chunks
        self.chunked = False
        # whether the client can tell where the body ends
        self.delimited = True

    def interim(self, head: ResponseHead) -> None:
        """A 1xx response: passed on to clients that know them (P17)."""
        if self._request.minor and (head.status != 100 or b"expect" in self._request.known):
            client, data = self._client, headers.interim_response(head)
            told = client.explains and client.explains_to(self._request)
            client.transport.write(without_line(data) if told else data)

    def begin(
        self,
        head: ResponseHead,
        body: Body | None,
        piece: bytes,
        placement: Placement,
        *,
        last: bool,
    ) -> bytes:
        """The final head of a member's response with what there is of the body, for one write.

        ``keep`` has been decided.
        """
        request, client, block = self._request, self._client, head.block
        frontend, mapping = client.frontend, placement.mapping
        head_only = request.method == b"HEAD"
        bare = body is None or isinstance(body, LengthBody)
        if not bare:
            self.chunked = self.delimited = request.minor > 0
            self.keep = self.keep and self.chunked
        self.status = head.status
        tail = frontend.connection_lines(request, client.served, keep=self.keep)
        if mapping.upgrade:
            tail = _with_offer(tail, offered_protocol(head, mapping.upgrade))
        if self.chunked or (head_only and block.chunked and request.minor):
            tail += b"Transfer-Encoding: chunked\r\n"
        start = block.lines.get(headers.START)
        if start is None:
            start = headers.own_start(head, frontend.clock.date(self.second), frontend.server)
        # Never with 204 (RFC 9110 section 8.6); Apache drops it from 304 as well (P6).
        length = head.status != 204 and (head_only or (bare and head.status != 304))
        lines = block.lines.get(length)
        if lines is None:
            asked = placement.target.host
            lines = headers.client_lines(
                head, mapping.rewriting, lambda: self._base(asked), length=length
            )
        cookie = placement.cookie_line(self.second, tls=frontend.tls)
        if client.explains and client.explains_to(request):
            lines = without_line(lines)
            cookie += explain_line(placement)
        self.body_sent = len(piece)
        if self.chunked:
            piece = encode(piece, last=last)
        return b"".join((head.line, start, cookie, lines, tail, b"\r\n", piece))

    def framed(self, piece: bytes, *, last: bool) -> bytes:
        """A piece of the body in the client's framing."""
        self.body_sent += len(piece)
        return encode(piece, last=last) if self.chunked else piece

    def cut(self) -> None:
        """The body ends too early, and the client must be able to tell (P24, H59).

        A length or a missing last chunk tells it; a body until close needs a reset.
        """
        if not self.delimited:
            reset(self._client.transport)

    def own(self, answer: OwnAnswer, cookie: bytes) -> None:
        """An answer of our own, whole; ``keep`` has been decided."""
        client = self._client
        frontend = client.frontend
        head_only = self._request.method == b"HEAD"
        self.status = answer.status
        self.body_sent = 0 if head_only else len(answer.body)
        first = frontend.first_lines(self.second, cookie)
        tail = frontend.connection_lines(self._request, client.served, keep=self.keep)
        client.transport.write(answer.encode(first, tail, head_only=head_only))

    def _base(self, asked: bytes | None) -> bytes:
        """Our own address as the client wrote it, without a usual port: ``https://host`` (P12)."""
        frontend = self._client.frontend
        host = (asked or self._request.host or frontend.server_name.encode()).lower()
        if frontend.tls:
            return b"https://" + host.removesuffix(b":443")
        return b"http://" + host.removesuffix(b":80")

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.body_sent} bytes>"


def refusal(
    frontend: "Frontend", client: bytes, status: int, line: bytes, told: bytes = b""
) -> bytes:
    """The answer to a request that can't be understood, which closes; it is logged here.

    ``line`` is what there is of the request line, ``told`` a line of ours for the answer.
    """
    second, answer = int(frontend.clock.wall()), OwnAnswer(status)
    head_only = line.startswith(b"HEAD ")
    sent = 0 if head_only else len(answer.body)
    frontend.access_log.refused(Refusal(client, second, line, status, sent))
    first = frontend.first_lines(second, told)
    return answer.encode(first, b"Connection: close\r\n", head_only=head_only)


def _with_offer(tail: bytes, protocol: bytes | None) -> bytes:
    """The connection's lines with the protocol that the member offers (RFC 9110 section 7.8)."""
    if protocol is None:
        return tail
    if b"Connection: " in tail:
        tail = tail.replace(b"Connection: ", b"Connection: Upgrade, ")
    else:
        tail = b"Connection: Upgrade\r\n" + tail
    return tail + b"Upgrade: %b\r\n" % protocol
