"""The member's side of a request: its head, and its body in the member's framing.

The first part of a body is collected before a member is bothered (R10): small bodies leave in one
write with a length, a client that is slow with a small body holds nobody's connection, and what is
collected can be sent to another member when the first refuses.
"""

from proxy.core import headers
from proxy.core.framing import ChunkedBody, LengthBody, encode
from proxy.core.heads import RequestHead
from proxy.core.mapping import Mapping
from proxy.core.member import Member
from proxy.core.own_answers import upgrade_protocol
from proxy.core.placement import Placement

# How much of a body is collected before a member is bothered, in bytes (R9, R10).
PREFETCH = 16304
KEEP_ALIVE = b"Connection: Keep-Alive\r\n"
CLOSE = b"Connection: close\r\n"
# How long, in seconds, it is waited for. Apache waits as long as the client's body timeout allows.
PREFETCH_TIME = 1.0


class Request:
    """One request's body on its way to a member, and the head before it."""

    __slots__ = (
        "_chunked",
        "_expects",
        "_held",
        "body",
        "complete",
        "continued",
        "received",
    )

    def __init__(
        self, body: LengthBody | ChunkedBody | None, *, expects_continue: bool = False
    ) -> None:
        self.body = body
        # whether all of it has arrived, and how many bytes have
        self.complete = body is None
        self.received = 0
        # whether the client may wait for 100 Continue, and whether it has been told, or didn't
        self._expects = expects_continue
        self.continued = not expects_continue
        # what is collected
        self._held = bytearray()
        # how the member reads the body
        self._chunked = False

    def hold(self, piece: bytes) -> None:
        """Collect a piece of the body."""
        self._held += piece

    @property
    def collected(self) -> bool:
        """Whether enough is there to go to a member."""
        return self.complete or len(self._held) >= PREFETCH or self._expects

    def encode(
        self, head: RequestHead, placement: Placement, forwarded: headers.Forwarded
    ) -> bytes:
        """The head for the member with what there is of the body, for one write (P4)."""
        target = placement.target
        member, mapping = placement.member, placement.mapping
        path = target.text
        if mapping.moves or member.base_path:
            path = mapping.member_path(target, member.base_path)
        # A host in the target replaces the field (RFC 9112 section 3.2.2).
        asked = target.host or head.block.host
        host = member.host_field
        if mapping.preserve_host:
            host = asked or forwarded.server_name
        ours = forwarded.lines(head, asked)
        if head.block.plain:
            tail = ours + (KEEP_ALIVE if member.reuse else CLOSE)
            return headers.member_request(head, path, host, forwarded, tail)
        whole = len(self._held) if self.complete and len(self._held) < PREFETCH else None
        framing, self._chunked = headers.framing_line(head, whole)
        tail = ours + framing + _connection_lines(head, member, mapping)
        data = headers.member_request(head, path, host, forwarded, tail)
        piece = bytes(self._held)
        self._held.clear()
        return data + self.framed(piece)

    def framed(self, piece: bytes) -> bytes:
        """A piece of the body in the member's framing."""
        return encode(piece, last=self.complete) if self._chunked else piece

    def __repr__(self) -> str:
        return f"<Request {'complete' if self.complete else 'incomplete'}>"


# The body of a request without one: nothing of it ever changes.
NO_BODY = Request(None)


def _connection_lines(head: RequestHead, member: Member, mapping: Mapping) -> bytes:
    """What the member is told about its connection (R2, R22)."""
    protocol = upgrade_protocol(head, mapping.upgrade)
    if protocol is not None:
        return b"Connection: Upgrade\r\nUpgrade: %b\r\n" % protocol
    return KEEP_ALIVE if member.reuse else CLOSE
