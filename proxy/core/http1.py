"""The heads of HTTP/1.1 messages, read strictly (RFC 9112 sections 2 to 6).

Bytes go in, values come out; nothing here waits or writes. A head is understood in exactly one
way or refused, and only what was understood is ever written on: ``headers`` builds it anew. The
bodies are in ``framing``.

httptools (llhttp in its strict mode) reads the field lines of both directions. The start lines
are ours, since llhttp knows a fixed list of methods, refuses raw 8-bit bytes in targets, and
accepts two blanks between the parts.
"""

import re
from functools import lru_cache
from typing import NamedTuple

import httptools

from proxy.core.errors import ClientError, MemberError, ProxyError

# (lower-cased name, name as sent, value)
Field = tuple[bytes, bytes, bytes]

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([^\x00-\x20\x7f]+) HTTP/1\.([0-9])\r\n")
_OTHER_VERSION = re.compile(rb"[^\r\n]* HTTP/[1-9]\.[0-9]\r\n")
# The reason may hold obs-text and tabs (RFC 9112 section 4); the blank before it may be missing.
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_FOLD = re.compile(rb"\r\n[ \t]+")
_HOST = re.compile(
    rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_~!$&'()*+,;=%-]+(?:\.[A-Za-z0-9_~!$&'()*+,;=%-]+)*\.?)"
    rb"(?::([0-9]{1,5}))?"
)
# Empty lines before a request (RFC 9112 section 2.2; Apache skips as many, L6).
_LEADING_LINES = 10
_NO_OPTIONS: frozenset[bytes] = frozenset()


class Limits(NamedTuple):
    """What is refused for its size, in bytes; ``fields`` is a number of lines."""

    request_line: int
    field: int
    fields: int
    head: int


class RequestHead:
    """One request's head, understood; ``fields`` keeps the order and spelling of the client."""

    __slots__ = (
        "chunked",
        "content_length",
        "expects_continue",
        "fields",
        "host",
        "keep_alive",
        "known",
        "line",
        "method",
        "minor",
        "options",
        "repeated",
        "target",
    )

    def __init__(self, method: bytes, target: bytes, minor: int, fields: list[Field]) -> None:
        self.method = method
        self.target = target
        self.minor = minor
        self.fields = fields
        # The last line of each name; ``repeated`` tells that some name has more than one.
        self.known = {key: value for key, _, value in fields}
        self.repeated = len(self.known) != len(fields)
        self.host: bytes | None = self.known.get(b"host")
        self.options = _connection_options(self)
        self.chunked = False
        self.content_length: int | None = None
        self.expects_continue = False
        self.keep_alive = b"close" not in self.options if minor else b"keep-alive" in self.options
        self.line = b""

    @property
    def has_body(self) -> bool:
        """Whether a body of at least one byte may follow."""
        return self.chunked or bool(self.content_length)

    def joined(self, key: bytes) -> bytes | None:
        """All lines of one name joined by ``, `` (RFC 9110 section 5.3); None without one."""
        return _joined(self, key)

    def __repr__(self) -> str:
        return f"<RequestHead {self.method!r} {self.target!r} 1.{self.minor}>"


class ResponseHead:
    """One response's head, understood."""

    __slots__ = (
        "chunked",
        "content_length",
        "fields",
        "known",
        "minor",
        "options",
        "reason",
        "repeated",
        "status",
    )

    def __init__(self, status: int, reason: bytes, minor: int, fields: list[Field]) -> None:
        self.status = status
        self.reason = reason
        self.minor = minor
        self.fields = fields
        self.known = {key: value for key, _, value in fields}
        self.repeated = len(self.known) != len(fields)
        self.options = _connection_options(self)
        self.chunked = False
        self.content_length: int | None = None

    @property
    def keep_alive(self) -> bool:
        """Whether the connection may carry another response (RFC 9112 section 9.3)."""
        return self.minor > 0 and b"close" not in self.options

    def joined(self, key: bytes) -> bytes | None:
        """All lines of one name joined by ``, ``; None without one."""
        return _joined(self, key)

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status} 1.{self.minor}>"


# --- heads -------------------------------------------------------------------------------------


def read_request_head(
    data: bytes, limits: Limits, start: int = 0, scanned: int = 0
) -> tuple[RequestHead, int] | None:
    """The request head at ``start`` and the place behind it, or None while it is incomplete.

    ``scanned`` tells how much of ``data`` an earlier call has seen, so that a head in many small
    pieces costs no more than one in a few.

    Raises ClientError with the status to answer (RFC 9112 sections 2, 3, 5 and 6).
    """
    if data[start : start + 1] in b"\r\n":
        start = _skip_empty_lines(data, start)
    end = data.find(b"\r\n\r\n", max(start, scanned - 3))
    if end < 0:
        _refuse_endless(data, start, scanned, limits)
        return None
    found = _REQUEST_LINE.match(data, start)
    if found is None:
        raise _bad_request_line(data[start : end + 2], limits)
    method, target, minor = found.groups()
    fields_start = found.end()
    if fields_start - start - 2 > limits.request_line:
        raise ClientError(414, "request line too long")
    # A head without fields ends with its first line, whose line end belongs to the empty line.
    text = data[min(fields_start, end + 2) : end + 4]
    fields = read_fields(text, ClientError(400, "malformed header field"))
    if len(text) > limits.field or len(fields) > limits.fields:
        _refuse_large(text, fields, limits)
    head = RequestHead(method, target, 1 if minor != b"0" else 0, fields)
    _understand_request(head)
    head.line = data[start : fields_start - 2]
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
    if line_end < 0 and len(data) - start > limits.request_line:
        raise ClientError(414, "request line too long")
    if len(data) - start > limits.head:
        raise ClientError(431, "head too large")
    if _BARE_LF.search(data, max(start, scanned - 1)):
        raise ClientError(400, "line without CR")
    if line_end >= 0 and _REQUEST_LINE.match(data, start) is None:
        raise _bad_request_line(data[start:], limits)


def _bad_request_line(data: bytes, limits: Limits) -> ClientError:
    if data.find(b"\r\n") > limits.request_line:
        return ClientError(414, "request line too long")
    if _OTHER_VERSION.match(data) and not data.startswith(b"PRI "):
        return ClientError(505, "HTTP version not supported")
    return ClientError(400, "malformed request line")


def _refuse_large(text: bytes, fields: list[Field], limits: Limits) -> None:
    if len(text) > limits.head:
        raise ClientError(431, "head too large")
    if len(fields) > limits.fields:
        raise ClientError(431, "too many header fields")
    # Counted as sent, with colon and blank: name, value and two bytes.
    if any(len(name) + len(value) + 2 > limits.field for _, name, value in fields):
        raise ClientError(431, "header field too large")


class _Collector:
    """What httptools calls for each field line."""

    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: list[Field] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), name, value))


def read_fields(text: bytes, refusal: ProxyError) -> list[Field]:
    """The field lines in ``text``, which ends with an empty line; raises ``refusal``."""
    collector = _Collector()
    try:
        httptools.HttpRequestParser(collector).feed_data(b"GET / HTTP/1.1\r\n" + text)
    except httptools.HttpParserUpgrade:
        pass  # Upgrade is ours to judge: the fields are complete
    except httptools.HttpParserError as error:
        raise refusal from error
    fields = collector.fields
    if b" \r\n" in text or b"\t\r\n" in text:
        fields = [(key, name, value.rstrip(b" \t")) for key, name, value in fields]
    return fields


def _understand_request(head: RequestHead) -> None:
    known = head.known
    if head.repeated:
        _refuse_repeated(head)
    if head.host is not None:
        if host_and_port(head.host) is None:
            raise ClientError(400, "malformed Host")
    elif head.minor:
        raise ClientError(400, "no Host")
    if b"transfer-encoding" in known:
        # llhttp has refused Content-Length beside it, and codings that don't end in chunked (H2).
        if known[b"transfer-encoding"].lower() != b"chunked":
            raise ClientError(400, "unknown transfer coding")
        head.chunked = True
    elif b"content-length" in known:
        head.content_length = _length(known[b"content-length"])
    if b"expect" in known:
        wanted = known[b"expect"].lower() == b"100-continue"
        head.expects_continue = wanted and head.minor > 0 and head.has_body


def _refuse_repeated(head: RequestHead) -> None:
    for key in (b"host", b"content-length", b"transfer-encoding", b"expect"):
        if key in head.known and sum(field[0] == key for field in head.fields) > 1:
            raise ClientError(400, f"more than one {key.decode()}")


def _length(value: bytes) -> int:
    """Content-Length as a number; llhttp has checked its digits and its size (H4)."""
    length = int(value)
    if length >= 1 << 63:
        raise ClientError(400, "Content-Length too large")
    return length


def read_response_head(data: bytes, limits: Limits) -> tuple[ResponseHead, int] | None:
    """The response head at the start of ``data`` and its length, or None while incomplete.

    Raises MemberError (RFC 9112 sections 4 to 6).
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        _refuse_endless_response(data, limits)
        return None
    found = _STATUS_LINE.match(data)
    if found is None:
        raise MemberError("malformed status line")
    minor, status, reason = found.groups()
    text = data[min(found.end(), end + 2) : end + 4]
    if len(text) > limits.field and max(map(len, text.split(b"\r\n"))) > limits.field:
        raise MemberError("header field too large")
    if b"\r\n " in text or b"\r\n\t" in text:
        text = _FOLD.sub(b" ", text)  # RFC 9112 section 5.2: replaced by a blank
    fields = read_fields(text, MemberError("malformed header field"))
    head = ResponseHead(int(status), reason or b"", 1 if minor != b"0" else 0, fields)
    if b"transfer-encoding" in head.known:
        if head.joined(b"transfer-encoding").lower() != b"chunked":  # type: ignore[union-attr]
            raise MemberError("unknown transfer coding")
        head.chunked = True
    elif b"content-length" in head.known:
        head.content_length = int(head.known[b"content-length"])
    return head, end + 4


def _refuse_endless_response(data: bytes, limits: Limits) -> None:
    line_end = data.find(b"\r\n")
    if line_end >= 0 and _STATUS_LINE.match(data) is None:
        raise MemberError("malformed status line")
    if len(data) > limits.head or len(data) - max(data.rfind(b"\r\n"), 0) > limits.field:
        raise MemberError("head too large")
    if _BARE_LF.search(data):
        raise MemberError("line without CR")


def _joined(head: RequestHead | ResponseHead, key: bytes) -> bytes | None:
    if not head.repeated:
        return head.known.get(key)
    values = [value for name, _, value in head.fields if name == key]
    return b", ".join(values) if values else None


def _connection_options(head: RequestHead | ResponseHead) -> frozenset[bytes]:
    value = head.known.get(b"connection")
    if value is None:
        return _NO_OPTIONS
    if head.repeated:
        value = _joined(head, b"connection") or b""
    return _options(value)


@lru_cache(maxsize=256)
def _options(value: bytes) -> frozenset[bytes]:
    """The names in a Connection field, lower case (RFC 9110 section 7.6.1)."""
    return frozenset(filter(None, (name.strip(b" \t") for name in value.lower().split(b","))))


@lru_cache(maxsize=1024)
def host_and_port(value: bytes) -> tuple[bytes, bytes] | None:
    """Host and port (empty if there is none) of a Host field; None if malformed (L8, H21)."""
    found = _HOST.fullmatch(value)
    if found is None:
        return None
    host, port = found[1], found[2] or b""
    if port and not 0 < int(port) < 65536:
        return None
    return host, port
