"""The heads of HTTP/1.1 messages, read strictly (RFC 9112 sections 2 to 6).

Bytes go in, values come out; nothing here waits or writes. A head is understood in exactly one
way or refused, and only what was understood is ever written on: ``headers`` builds it anew. The
field lines are in ``fields``, the bodies in ``framing``.

The start lines are ours rather than llhttp's, since that knows a fixed list of methods, refuses
raw 8-bit bytes in targets, and accepts two blanks between the parts.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from proxy.core.errors import ClientError, MemberError, UnexpectedError
from proxy.core.fields import Field, FieldBlock, FieldsError, host_and_port

_REQUEST_LINE = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([^\x00-\x20\x7f]+) HTTP/([1-9])\.([0-9])"
)
# The reason may hold obs-text and tabs (RFC 9112 section 4); the blank before it may be missing.
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")
# Start lines up to this size are remembered, like field lines: 0.5 MiB at the most.
_REMEMBERED_LINE = 512
_BARE_LF = re.compile(rb"(?<!\r)\n")
_FOLD = re.compile(rb"\r\n[ \t]+")
# Empty lines before a request (RFC 9112 section 2.2; Apache skips as many, L6).
_LEADING_LINES = 10
# Requests with one of these may be answered by ourselves, or need more than passing on.
_UNUSUAL = frozenset((b"expect", b"max-forwards", b"upgrade"))


class Limits(NamedTuple):
    """What is refused for its size, in bytes; ``fields`` is a number of lines."""

    request_line: int
    field: int
    fields: int
    head: int
    # The status for too large or too many fields (Apache: 400, L3).
    status: int = 431


# Method, target, and 0 for HTTP/1.0 or 1 for what is served as HTTP/1.1 (RFC 9110 section 2.5).
RequestLine = tuple[bytes, bytes, int]
# Status, reason, and the version's minor number like above.
StatusLine = tuple[int, bytes, int]


def _request_line(line: bytes) -> RequestLine:
    """A request line without its line end; raises ClientError (RFC 9112 section 3)."""
    found = _REQUEST_LINE.fullmatch(line)
    if found is None or line.startswith(b"PRI "):
        raise ClientError(400, "malformed request line")
    method, target, major, minor = found.groups()
    if major != b"1":
        raise ClientError(505, "HTTP version not supported")
    return method, target, 0 if minor == b"0" else 1


def _status_line(line: bytes) -> StatusLine:
    """A status line without its line end; raises UnexpectedError (RFC 9112 section 4)."""
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        raise UnexpectedError("malformed status line")
    minor, status, reason = found.groups(b"")
    return int(status), reason, 0 if minor == b"0" else 1


_remembered_request_line = lru_cache(maxsize=1024)(_request_line)
_remembered_status_line = lru_cache(maxsize=256)(_status_line)


def request_line(line: bytes) -> RequestLine:
    """What a request line says; raises ClientError."""
    return (_remembered_request_line if len(line) <= _REMEMBERED_LINE else _request_line)(line)


def status_line(line: bytes) -> StatusLine:
    """What a status line says; raises UnexpectedError."""
    return (_remembered_status_line if len(line) <= _REMEMBERED_LINE else _status_line)(line)


class RequestFields(FieldBlock):
    """The field lines of a request, and what they say of its host, body and connection."""

    __slots__ = (
        "chunked",
        "content_length",
        "cookie",
        "expects_continue",
        "host",
        "plain",
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
        if self.chunked and (length is not None or not _is_chunked(known[b"transfer-encoding"])):
            raise ClientError(400, "ambiguous framing")
        self.unusual = not _UNUSUAL.isdisjoint(known)
        # nothing but a head to be passed on, as most requests are
        self.plain = not self.unusual and not self.chunked and length is None
        # A field that Connection names isn't passed on, so no member would answer it.
        self.expects_continue = (
            known.get(b"expect", b"").lower() == b"100-continue"
            and (self.chunked or bool(self.content_length))
            and b"expect" not in self.options
        )

    def _refuse_repeated(self) -> None:
        for key in (b"host", b"content-length", b"transfer-encoding", b"expect"):
            if key in self.known and self.count(key) > 1:
                raise ClientError(400, f"more than one {key.decode()}")


class RequestHead:
    """One request's head, understood; ``block`` keeps the field lines of the client."""

    __slots__ = ("block", "keep_alive", "line", "method", "minor", "target")

    def __init__(self, line: bytes, parts: RequestLine, block: RequestFields) -> None:
        """``line`` is the request line, ``parts`` what it says."""
        self.line = line
        self.method, self.target, self.minor = parts
        self.block = block
        options = block.options
        self.keep_alive = b"close" not in options if self.minor else b"keep-alive" in options

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
    def host(self) -> bytes | None:
        """The Host field, if there is one."""
        return self.block.host

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return self.block.chunked

    @property
    def content_length(self) -> int | None:
        """The body's length, if it is stated."""
        return self.block.content_length

    @property
    def expects_continue(self) -> bool:
        """Whether the client may wait for 100 Continue before it sends the body."""
        return self.minor > 0 and self.block.expects_continue

    @property
    def has_body(self) -> bool:
        """Whether a body of at least one byte may follow."""
        return self.block.chunked or bool(self.block.content_length)

    def joined(self, key: bytes) -> bytes | None:
        """All lines of one name joined by ``, `` (RFC 9110 section 5.3); None without one."""
        return self.block.joined(key)

    def __repr__(self) -> str:
        return f"<RequestHead {self.method!r} {self.target!r} 1.{self.minor}>"


class ResponseFields(FieldBlock):
    """The field lines of a response, and what they say of its body and connection."""

    __slots__ = ("chunked", "closes", "content_length")

    def __init__(self, text: bytes) -> None:
        """Raises FieldsError or MemberError (RFC 9112 section 6.3)."""
        super().__init__(text)
        known = self.known
        self.closes = b"close" in self.options
        self.chunked = b"transfer-encoding" in known
        length = known.get(b"content-length")
        self.content_length = None if length is None else int(length)
        if self.content_length is not None and self.content_length >= 1 << 63:
            raise MemberError("Content-Length too large")
        if self.chunked and (length is not None or not _is_chunked(known[b"transfer-encoding"])):
            raise MemberError("ambiguous framing")
        if self.repeated:
            for key in (b"content-length", b"transfer-encoding"):
                if self.count(key) > 1:
                    raise MemberError(f"more than one {key.decode()}")


class ResponseHead:
    """One response's head, understood; ``block`` keeps the field lines of the member."""

    __slots__ = ("block", "keep_alive", "minor", "reason", "status")

    def __init__(self, parts: StatusLine, block: ResponseFields) -> None:
        """``parts`` is what the status line says."""
        self.status, self.reason, self.minor = parts
        self.block = block
        self.keep_alive = self.minor > 0 and not block.closes

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return self.block.chunked

    @property
    def content_length(self) -> int | None:
        """The body's length, if it is stated."""
        return self.block.content_length

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

    def joined(self, key: bytes) -> bytes | None:
        """All lines of one name joined by ``, ``; None without one."""
        return self.block.joined(key)

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status} 1.{self.minor}>"


def _is_chunked(value: bytes) -> bool:
    """Whether the coding is chunked and nothing else (H2)."""
    return value.lower() == b"chunked"


def _length(value: bytes) -> int:
    """Content-Length as a number; llhttp has seen to its digits (H4)."""
    length = int(value)
    if length >= 1 << 63:
        raise ClientError(400, "Content-Length too large")
    return length


# --- requests ----------------------------------------------------------------------------------


def read_request_head(
    data: bytes,
    limits: Limits,
    start: int = 0,
    scanned: int = 0,
    last: RequestFields | None = None,
) -> tuple[RequestHead, int] | None:
    """The request head at ``start`` and the place behind it, or None while it is incomplete.

    ``scanned`` tells how much of ``data`` an earlier call has seen, so that a head in many small
    pieces costs no more than one in a few; ``last`` is the block of the request before.

    Raises ClientError with the status to answer (RFC 9112 sections 2, 3, 5 and 6).
    """
    line_end = data.find(b"\r\n", start)
    if last is not None and line_end > start and data.startswith(last.text, line_end + 2):
        line = data[start:line_end]
        if last.host is not None and len(line) <= limits.request_line:
            return RequestHead(line, request_line(line), last), line_end + 2 + len(last.text)
    return _read_new_request_head(data, limits, start, scanned)


def _read_new_request_head(
    data: bytes, limits: Limits, start: int, scanned: int
) -> tuple[RequestHead, int] | None:
    if data[start : start + 1] in b"\r\n":
        start = _skip_empty_lines(data, start)
    end = data.find(b"\r\n\r\n", max(start, scanned - 3))
    if end < 0:
        _refuse_endless(data, start, scanned, limits)
        return None
    line_end = data.find(b"\r\n", start)
    line = data[start:line_end]
    if len(line) > limits.request_line:
        raise ClientError(414, "request line too long")
    parts = request_line(line)
    text = data[line_end + 2 : end + 4]
    if len(text) > limits.field or end + 4 - start > limits.head:
        _refuse_large(text, end + 4 - start, limits)
    try:
        block = RequestFields(text)
    except FieldsError as error:
        raise ClientError(400, "malformed header field") from error
    if len(block.fields) > limits.fields:
        raise ClientError(limits.status, "too many header fields")
    head = RequestHead(line, parts, block)
    if head.minor and block.host is None:
        raise ClientError(400, "no Host")
    return head, end + 4


def _skip_empty_lines(data: bytes, start: int) -> int:
    first = start
    while data.startswith(b"\r\n", start):
        start += 2
    if start - first > 2 * _LEADING_LINES:
        raise ClientError(400, "too many empty lines before the request")
    return start


def _refuse_endless(data: bytes, start: int, scanned: int, limits: Limits) -> None:
    """Refuse what can't become a head any more, so that it is not waited for."""
    line_end = data.find(b"\r\n", start, start + limits.request_line + 2)
    # One byte more may be the CR of a line that is just short enough.
    if line_end < 0 and len(data) - start > limits.request_line + 1:
        raise ClientError(414, "request line too long")
    if len(data) - start > limits.head:
        raise ClientError(limits.status, "head too large")
    if _BARE_LF.search(data, max(start, scanned - 1)):
        raise ClientError(400, "line without CR")
    if line_end >= 0:
        request_line(data[start:line_end])


def _refuse_large(text: bytes, size: int, limits: Limits) -> None:
    if size > limits.head:
        raise ClientError(limits.status, "head too large")
    if max(map(len, text.split(b"\r\n"))) > limits.field:
        raise ClientError(limits.status, "header field too large")


# --- responses ---------------------------------------------------------------------------------


def read_response_head(
    data: bytes, limits: Limits, last: ResponseFields | None = None
) -> tuple[ResponseHead, int] | None:
    """The response head at the start of ``data`` and its length, or None while incomplete.

    ``last`` is the block of the response before. Raises MemberError (RFC 9112 sections 4 to 6).
    """
    line_end = data.find(b"\r\n")
    if last is not None and line_end >= 0 and data.startswith(last.text, line_end + 2):
        return ResponseHead(status_line(data[:line_end]), last), line_end + 2 + len(last.text)
    end = data.find(b"\r\n\r\n")
    if end < 0:
        _refuse_endless_response(data, limits)
        return None
    parts = status_line(data[:line_end])
    if end + 4 > limits.head:
        raise MemberError("head too large")
    if end > limits.field and max(map(len, data[:end].split(b"\r\n"))) > limits.field:
        fault = UnexpectedError if data.find(b"\r\n") > limits.field else MemberError
        raise fault("line too long")
    text = data[line_end + 2 : end + 4]
    if b"\r\n " in text or b"\r\n\t" in text:
        text = _FOLD.sub(b" ", text)  # RFC 9112 section 5.2: replaced by a blank
    try:
        block = ResponseFields(text)
    except FieldsError as error:
        raise MemberError("malformed header field") from error
    return ResponseHead(parts, block), end + 4


def _refuse_endless_response(data: bytes, limits: Limits) -> None:
    line_end = data.find(b"\r\n")
    if line_end >= 0:
        status_line(data[:line_end])
    if len(data) > limits.head:
        raise MemberError("head too large")
    fault = UnexpectedError if line_end < 0 else MemberError
    # Without the line's CR LF, of which the CR may be there already.
    if len(data) - (data.rfind(b"\r\n") + 2) > limits.field + 1:
        raise fault("line too long")
    if _BARE_LF.search(data):
        raise fault("line without CR")
