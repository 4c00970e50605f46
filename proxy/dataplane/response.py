"""The client's side of a response: its head, its body in the client's framing, our own answers.

Whether it comes from a member or from ourselves, a response is written here and nowhere else, in
as few writes as there are pieces (P4).
"""

from typing import TYPE_CHECKING

from proxy.core import headers
from proxy.core.framing import Body, LengthBody, encode
from proxy.core.http1 import RequestHead, ResponseHead, host_and_port
from proxy.core.mapping import Mapping
from proxy.core.pages import OwnAnswer

if TYPE_CHECKING:
    from proxy.dataplane.frontend import FrontendConnection

# Statuses after which Apache closes the client's connection, a member's own included (P8).
CLOSING = frozenset((400, 408, 411, 413, 414, 500, 501, 503))


class Response:
    """One response on its way to the client."""

    __slots__ = ("_chunked", "_client", "_request", "body_sent", "delimited", "keep", "status")

    def __init__(self, client: "FrontendConnection", request: RequestHead) -> None:
        self._client = client
        self._request = request
        # 0 until a head is written
        self.status = 0
        self.body_sent = 0
        # whether the client's connection stays for another request
        self.keep = False
        self._chunked = False
        # whether the client can tell where the body ends
        self.delimited = True

    def may_keep(self, status: int, *, request_complete: bool) -> bool:
        """Whether the client's connection can stay after a response with ``status``."""
        return (
            request_complete
            and self._request.keep_alive
            and status not in CLOSING
            and self._client.may_keep()
        )

    def interim(self, head: ResponseHead) -> None:
        """A 1xx response: passed on to clients that know them (P17)."""
        if self._request.minor and (head.status != 100 or self._request.expects_continue):
            self._client.write(headers.interim_response(head))

    def begin(
        self, head: ResponseHead, body: Body | None, lines: headers.ResponseLines, mapping: Mapping
    ) -> bytes:
        """The final head of a member's response; ``keep`` has been decided.

        ``lines`` gets its last part here: what the client is told about connection and framing.
        """
        request = self._request
        bare = body is None or isinstance(body, LengthBody)
        self.status = head.status
        self._chunked = not bare and request.minor > 0
        self.delimited = bare or self._chunked
        self.keep = self.keep and self.delimited
        head_only = request.method == b"HEAD"
        lines.tail = self._client.connection_lines(request, keep=self.keep)
        if self._chunked or (head_only and head.chunked and request.minor):
            lines.tail += b"Transfer-Encoding: chunked\r\n"
        length = head_only or (bare and head.status not in (204, 304))
        return headers.client_response(head, lines, mapping.rewriting, self._base, length=length)

    def framed(self, piece: bytes, *, last: bool) -> bytes:
        """A piece of the body in the client's framing."""
        self.body_sent += len(piece)
        return encode(piece, last=last) if self._chunked else piece

    def own(self, answer: OwnAnswer, second: int, cookie: bytes) -> None:
        """An answer of our own, whole; ``keep`` has been decided."""
        client = self._client
        head_only = self._request.method == b"HEAD"
        self.status = answer.status
        self.body_sent = 0 if head_only else len(answer.body)
        first = client.first_lines(second, cookie)
        tail = client.connection_lines(self._request, keep=self.keep)
        client.write(answer.encode(first, tail, head_only=head_only))

    def _base(self) -> bytes:
        """Our own address as the client wrote it: ``https://host`` (P12)."""
        frontend = self._client.frontend
        parts = host_and_port(self._request.host or b"")
        name, port = parts or (frontend.server_name.encode(), b"")
        scheme, usual = (b"https", b"443") if frontend.tls else (b"http", b"80")
        port = port or b"%d" % frontend.port
        return b"%b://%b%b" % (scheme, name, b"" if port == usual else b":" + port)

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.body_sent} bytes>"
