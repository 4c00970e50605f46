"""The heads of HTTP/1.1 messages found in a stream of bytes, within limits (RFC 9112 section 2).

Bytes go in, values come out; nothing here waits or writes. What a head says is in ``heads``, the
bodies are in ``framing``. A head that is byte for byte one seen before is not read again: polls,
Pings and pages are asked for with the same bytes over and over (benchmarks/micro: head parsing).
"""

import re
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import lru_cache

from proxy.core.errors import ClientError, MemberError, UnexpectedError
from proxy.core.fields import REMEMBERED_BLOCKS, REMEMBERED_SIZE
from proxy.core.heads import RequestHead, ResponseHead, request_line, status_line

_BARE_LF = re.compile(rb"(?<!\r)\n")
# Empty lines before a request (RFC 9112 section 2.2; Apache skips as many, L6).
_LEADING_LINES = 10

# Heads that were read, the oldest first; a look into it with all that has come costs less than to
# search for the head's end.
_requests: dict[bytes, RequestHead] = {}
_remembered_response = lru_cache(maxsize=REMEMBERED_BLOCKS)(ResponseHead)


@dataclass(slots=True)
class Limits:
    """What is refused for its size, in bytes; ``fields`` is a number of lines.

    ``status`` answers too large or too many fields (Apache: 400, L3). A head up to ``harmless``
    bytes is within all limits of size, whatever its lines.
    """

    request_line: int
    field: int
    fields: int
    head: int
    status: int = 431
    # the highest status of a member's answer (H61); Apache passes all of three digits
    last_status: int = 599
    chunk_extensions: int = 16384
    trailers: int = 16384
    pipelined: int = 65536
    # bytes a second
    body_rate: int = 500
    harmless: int = dataclass_field(init=False)

    def __post_init__(self) -> None:
        self.harmless = min(self.request_line, self.field, self.head, REMEMBERED_SIZE)


# --- requests ----------------------------------------------------------------------------------


def read_request_head(
    data: bytes, limits: Limits, start: int = 0, scanned: int = 0
) -> tuple[RequestHead, int] | None:
    """The request head at ``start`` and the place behind it, or None while it is incomplete.

    ``scanned`` tells how much of ``data`` an earlier call has seen, so that a head in many small
    pieces costs no more than one in a few.

    Raises ClientError with the status to answer.
    """
    if not start and len(data) <= limits.harmless:
        known = _requests.get(data)
        if known is not None:
            if len(known.block.fields) > limits.fields:
                raise _too_many_fields(limits)
            return known, len(data)
    if data.startswith(b"\r\n", start):
        start = _skip_empty_lines(data, start)
    end = data.find(b"\r\n\r\n", max(start, scanned - 3)) + 4
    if end < 4:
        _refuse_endless(data, start, scanned, limits)
        return None
    text = data[start:end]
    if end - start > limits.harmless:
        _refuse_large(text, limits)
        _refuse_many(text, limits)
        return RequestHead(text), end
    head = _requests.get(text)
    if head is None:
        _refuse_many(text, limits)
        head = RequestHead(text)
        if len(_requests) >= REMEMBERED_BLOCKS:
            del _requests[next(iter(_requests))]
        _requests[text] = head
    if len(head.block.fields) > limits.fields:
        raise _too_many_fields(limits)
    return head, end


def _refuse_many(text: bytes, limits: Limits) -> None:
    """Refuse too many lines before anything is made of them, or remembered (H38, H92)."""
    if text.count(b"\r\n") - 2 > limits.fields:  # the request line, and the empty one
        request_line(text[: text.find(b"\r\n")])
        raise _too_many_fields(limits)


def _too_many_fields(limits: Limits) -> ClientError:
    return ClientError(limits.status, "too many header fields")


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
    if line_end >= 0 and line_end + 2 > scanned:  # not seen whole by an earlier call
        request_line(data[start:line_end])
    if _BARE_LF.search(data, max(start, scanned - 1)):
        raise ClientError(400, "line without CR")


def _refuse_large(text: bytes, limits: Limits) -> None:
    if text.find(b"\r\n") > limits.request_line:
        raise ClientError(414, "request line too long")
    if len(text) > limits.head:
        raise ClientError(limits.status, "head too large")
    if max(map(len, text.split(b"\r\n")[1:])) > limits.field:
        raise ClientError(limits.status, "header field too large")


# --- responses ---------------------------------------------------------------------------------


def read_response_head(data: bytes, limits: Limits) -> tuple[ResponseHead, int] | None:
    """The response head at the start of ``data`` and its length, or None while incomplete.

    Raises MemberError.
    """
    end = data.find(b"\r\n\r\n") + 4
    if end < 4:
        _refuse_endless_response(data, limits)
        return None
    text = data[:end]
    if end <= limits.harmless:
        head = _remembered_response(text)
    elif end > limits.head:
        raise MemberError("head too large")
    elif max(map(len, text.split(b"\r\n"))) > limits.field:
        fault = UnexpectedError if text.find(b"\r\n") > limits.field else MemberError
        raise fault("line too long")
    else:
        head = ResponseHead(text)
    if len(head.block.fields) > limits.fields:
        raise MemberError("too many header fields")
    if head.status > limits.last_status:
        raise UnexpectedError("no such status")
    return head, end


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
    if data.count(b"\n") != data.count(b"\r\n"):
        raise fault("line without CR")
