"""What the heads of HTTP/1.1 messages say, read strictly (RFC 9112 sections 3 to 6).

A head is understood in exactly one way or refused, and only what was understood is ever written
on: ``headers`` builds it anew. The field lines are in ``fields``.

The start lines are ours rather than llhttp's, since that knows a fixed list of methods, refuses
raw 8-bit bytes in targets, and accepts two blanks between the parts.
"""

import re
from functools import lru_cache

from proxy.core.errors import ClientError, MemberError, UnexpectedError
from proxy.core.fields import (
    REMEMBERED_BLOCKS,
    REMEMBERED_SIZE,
    Field,
    FieldBlock,
    FieldsError,
    host_and_port,
)

_REQUEST_LINE = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([^\x00-\x20\x7f]+) HTTP/([1-9])\.([0-9])"
)
# The reason may hold obs-text and tabs (RFC 9112 section 4); the blank before it may be missing.
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")
_FOLD = re.compile(rb"\r\n[ \t]+")
# Requests with one of these may be answered by ourselves, or need more than passing on.
_UNUSUAL = frozenset((b"expect", b"max-forwards", b"upgrade"))


# What a head says of its session, with the salt it was made with: a key, and whether clients with
# the same field lines are told apart by their address. Made and read by ``sessions``.
SessionMark = tuple[bytes | None, int, bool]
_NOT_READ: SessionMark = (None, 0, False)

# Method, target, and 0 for HTTP/1.0 or 1 for what is served as HTTP/1.1 (RFC 9110 section 2.5).
RequestLine = tuple[bytes, bytes, int]
# Status, reason, and the version's minor number like above.
StatusLine = tuple[int, bytes, int]


def request_line(line: bytes) -> RequestLine:
    """A request line without its line end; raises ClientError (RFC 9112 section 3)."""
    found = _REQUEST_LINE.fullmatch(line)
    if found is None or line.startswith(b"PRI "):
        raise ClientError(400, "malformed request line")
    method, target, major, minor = found.groups()
    if major != b"1":
        raise ClientError(505, "HTTP version not supported")
    return method, target, 0 if minor == b"0" else 1


def status_line(line: bytes) -> StatusLine:
    """A status line without its line end; raises UnexpectedError (RFC 9112 section 4)."""
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        raise UnexpectedError("malformed status line")
    minor, status, reason = found.groups(b"")
    return int(status), reason, 0 if minor == b"0" else 1


class MessageFields(FieldBlock):
    """The field lines of a head: whether a body comes in chunks, and its length if it is stated."""

    __slots__ = ("chunked", "content_length")

    chunked: bool
    content_length: int | None


class Head:
    """What both kinds of heads say through their field lines.

    Nothing changes a head, so that one object may serve all messages with the same bytes.
    """

    __slots__ = ("block",)

    block: MessageFields

    @property
    def fields(self) -> list[Field]:
        """The field lines, in order."""
        return self.block.fields

    @property
    def known(self) -> dict[bytes, bytes]:
        """The last value of each name."""
        return self.block.known

    @property
    def options(self) -> frozenset[bytes]:
        """The names in Connection."""
        return self.block.options

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return self.block.chunked

    @property
    def content_length(self) -> int | None:
        """The body's length, if it is stated."""
        return self.block.content_length

    def joined(self, key: bytes) -> bytes | None:
        """All lines of one name joined by ``, `` (RFC 9110 section 5.3); None without one."""
        return self.block.joined(key)


class RequestFields(MessageFields):
    """The field lines of a request, and what they say of its host, body and connection."""

    __slots__ = (
        "cookie",
        "expects_continue",
        "host",
        "plain",
        "session",
        "unusual",
    )

    def __init__(self, text: bytes) -> None:
        """Raises FieldsError or ClientError (RFC 9112 sections 3.2, 6.1 to 6.3)."""
        super().__init__(text)
        known = self.known
        if self.repeated:
            self._refuse_repeated()
        self.host = known.get(b"host")
        if self.host is not None and host_and_port(self.host) is None:
            raise ClientError(400, "malformed Host")
        self.cookie = self.joined(b"cookie")
        self.chunked = b"transfer-encoding" in known
        length = known.get(b"content-length")
        self.content_length = None if length is None else _length(length)
        if self.chunked and length is not None:
            raise ClientError(400, "both lengths")
        if self.chunked and not _is_chunked(known[b"transfer-encoding"]):
            raise _refused_coding(known[b"transfer-encoding"])
        self.unusual = not _UNUSUAL.isdisjoint(known)
        # nothing but a head to be passed on, as most requests are
        self.plain = not self.unusual and not self.chunked and length is None
        # A field that Connection names isn't passed on, so no member would answer it.
        self.expects_continue = (
            known.get(b"expect", b"").lower() == b"100-continue"
            and (self.chunked or bool(self.content_length))
            and b"expect" not in self.options
        )
        self.session = _NOT_READ

    def _refuse_repeated(self) -> None:
        for key in (b"host", b"content-length", b"transfer-encoding", b"expect"):
            if key in self.known and self.count(key) > 1:
                raise ClientError(400, f"more than one {key.decode()}")


_remembered_fields = lru_cache(maxsize=REMEMBERED_BLOCKS)(RequestFields)


class RequestHead(Head):
    """One request's head, understood.

    What others make of its bytes is kept with it: what the log writes in ``note``, what tells its
    session in ``session``.
    """

    __slots__ = ("keep_alive", "line", "method", "minor", "note", "session", "target")

    block: RequestFields

    def __init__(self, text: bytes) -> None:
        """``text`` ends with the empty line; raises ClientError (RFC 9112 sections 3, 5, 6)."""
        end = text.find(b"\r\n")
        self.line = text[:end]
        self.method, self.target, self.minor = request_line(self.line)
        fields = text[end + 2 :]
        try:
            remember = len(fields) <= REMEMBERED_SIZE
            self.block = _remembered_fields(fields) if remember else RequestFields(fields)
        except FieldsError as error:
            raise ClientError(400, "malformed header field") from error
        if self.block.host is None and self.minor:
            raise ClientError(400, "no Host")
        options = self.block.options
        # Chunks in HTTP/1.0 are doubtful framing: the connection serves nothing more (H3).
        self.keep_alive = (
            b"close" not in options
            if self.minor
            else b"keep-alive" in options and not self.block.chunked
        )
        self.note: tuple[str, str] | None = None
        self.session = _NOT_READ

    @property
    def host(self) -> bytes | None:
        """The Host field, if there is one."""
        return self.block.host

    @property
    def expects_continue(self) -> bool:
        """Whether the client may wait for 100 Continue before it sends the body."""
        return self.minor > 0 and self.block.expects_continue

    @property
    def has_body(self) -> bool:
        """Whether a body of at least one byte may follow."""
        return self.block.chunked or bool(self.block.content_length)

    def __repr__(self) -> str:
        return f"<RequestHead {self.method!r} {self.target!r} 1.{self.minor}>"


class ResponseFields(MessageFields):
    """The field lines of a response, and what they say of its body and connection."""

    __slots__ = ("closes",)

    def __init__(self, text: bytes) -> None:
        """Raises FieldsError or MemberError (RFC 9112 section 6.3)."""
        try:
            super().__init__(text)
        except FieldsError:
            # RFC 9112 section 5.2: a folded line is read with a blank for the fold.
            unfolded = _FOLD.sub(b" ", text)
            if unfolded == text:
                raise
            super().__init__(unfolded)
        known = self.known
        self.closes = b"close" in self.options
        self.chunked = b"transfer-encoding" in known
        length = known.get(b"content-length")
        self.content_length = None if length is None else int(length)
        if self.content_length is not None and self.content_length >= 1 << 63:
            raise MemberError("Content-Length too large")
        if length is not None and length[:1] == b"0" != length:
            # The client gets the number as we read it.
            number = b"%d" % int(length)
            self.fields = [
                (key, name, number if key == b"content-length" else value)
                for key, name, value in self.fields
            ]
        if self.chunked and (length is not None or not _is_chunked(known[b"transfer-encoding"])):
            raise MemberError("ambiguous framing")
        if self.repeated:
            for key in (b"content-length", b"transfer-encoding"):
                if self.count(key) > 1:
                    raise MemberError(f"more than one {key.decode()}")


class ResponseHead(Head):
    """One response's head, understood."""

    __slots__ = ("keep_alive", "line", "minor", "reason", "status")

    block: ResponseFields

    def __init__(self, text: bytes) -> None:
        """``text`` ends with the empty line; raises MemberError (RFC 9112 sections 4 to 6)."""
        end = text.find(b"\r\n")
        self.status, self.reason, self.minor = status_line(text[:end])
        try:
            self.block = ResponseFields(text[end + 2 :])
        except FieldsError as error:
            raise MemberError("malformed header field") from error
        # the status line as the client gets it
        self.line = b"HTTP/1.1 %d %b\r\n" % (self.status, self.reason)
        self.keep_alive = self.minor > 0 and not self.block.closes

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status} 1.{self.minor}>"


def _is_chunked(value: bytes) -> bool:
    """Whether the coding is chunked and nothing else (H2)."""
    return value.lower() == b"chunked"


_CODINGS = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9a-z-]+[ \t]*,[ \t]*)+chunked")


def _refused_coding(value: bytes) -> ClientError:
    """Codings before chunked are not understood; without it last, no end is known (RFC 9112 6.1).

    Section 6.3 wants 400 for the latter.
    """
    value = value.lower()
    if _CODINGS.fullmatch(value) and value.count(b"chunked") == 1:
        return ClientError(501, "transfer coding not supported")
    return ClientError(400, "ambiguous framing")


def _length(value: bytes) -> int:
    """Content-Length as a number; llhttp has seen to its digits (H4)."""
    length = int(value)
    if length >= 1 << 63:
        raise ClientError(400, "Content-Length too large")
    return length
