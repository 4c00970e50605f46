"""The bodies of HTTP/1.1 messages, by their framing (RFC 9112 sections 6 and 7).

Three ways to know where a body ends; each is fed with bytes, gives back the piece among them,
and keeps in ``rest`` what came after the end. They are ours rather than the parser's, since only
so the place where a body ends is known exactly, and what follows is never taken for a part of it.
"""

import re
from enum import Enum

from proxy.core.errors import ProxyError
from proxy.core.fields import FieldBlock, FieldsError
from proxy.core.heads import RequestHead, ResponseHead
from proxy.core.http1 import Limits


class FramingError(ProxyError):
    """A body that can't be delimited; ``status`` is for a client, a member's gives 502."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class LengthBody:
    """A body of a known number of bytes."""

    __slots__ = ("complete", "remaining", "rest")

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.complete = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """What of ``data`` belongs to the body; what doesn't is in ``rest``."""
        remaining = self.remaining
        if len(data) < remaining:
            self.remaining = remaining - len(data)
            return data
        self.complete = True
        self.remaining = 0
        if len(data) == remaining:
            return data
        self.rest = data[remaining:]
        return data[:remaining]


class UntilCloseBody:
    """A response body that ends with its connection (RFC 9112 section 6.3, point 8)."""

    __slots__ = ("complete", "rest")

    def __init__(self) -> None:
        self.complete = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """All of ``data``."""
        return data


# A chunk's line; precedents: Node 16 KiB for all extensions, Apache 8190 for the line.
CHUNK_LINE = 4096
# Fewer digits than 2^63 has, and more than any body needs (H5); extensions by their grammar (H6).
_CHUNK_LINE = re.compile(
    rb"""([0-9A-Fa-f]{1,15})
    (?:[ \t]*;[ \t]*[!\#$%&'*+.^_`|~0-9A-Za-z-]++
        (?:[ \t]*=[ \t]*(?:
            [!\#$%&'*+.^_`|~0-9A-Za-z-]++
            | "(?:[\t\ !\#-\[\]-~\x80-\xff]|\\[\t\ -~\x80-\xff])*+"
        ))?
    )*+\r\n""",
    re.VERBOSE,
)
_PLAIN_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
_CHUNK_TOO_LARGE = re.compile(rb"[0-9A-Fa-f]{16}")


class _Chunk(Enum):
    LINE = 1
    DATA = 2
    DATA_END = 3
    TRAILERS = 4


class ChunkedBody:
    """A body in chunks (RFC 9112 section 7.1); extensions and trailers are checked and dropped."""

    __slots__ = ("_buffer", "_extensions", "_limits", "_remaining", "_state", "complete", "rest")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.complete = False
        self.rest = b""
        self._buffer = b""
        self._extensions = 0
        self._remaining = 0
        self._state = _Chunk.LINE

    def feed(self, data: bytes) -> bytes:
        """The piece in ``data``, joined; what follows the body is in ``rest``.

        Raises FramingError.
        """
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        pieces = []
        position, end = 0, len(data)
        while position < end and not self.complete:
            if self._state is _Chunk.DATA:
                piece = data[position : position + self._remaining]
                pieces.append(piece)
                position += len(piece)
                self._remaining -= len(piece)
                if not self._remaining:
                    self._state = _Chunk.DATA_END
                continue
            position = self._whole_chunks(data, position, pieces)
            if position == end:
                break
            step = self._framing(data, position)
            if step == 0:
                self._buffer = data[position:]
                break
            position += step
        if self.complete:
            self.rest = data[position:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _whole_chunks(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        """Take chunks without extensions that are there whole, many at once; the place behind.

        A read full of tiny ones holds the worker for 23 instead of 78 ms (benchmarks/micro: tiny
        chunks).
        """
        if self._state is not _Chunk.LINE:
            return position
        while found := _PLAIN_LINE.match(data, position):
            begin = found.end()
            end = begin + int(found[1], 16)
            if end == begin or data[end : end + 2] != b"\r\n":
                break
            pieces.append(data[begin:end])
            position = end + 2
        return position

    def _framing(self, data: bytes, position: int) -> int:
        """Take one element that is not data; how many bytes it had, 0 if it is incomplete."""
        if self._state is _Chunk.LINE:
            return self._line(data, position)
        if self._state is _Chunk.DATA_END:
            if len(data) - position < 2 and data[position:] == b"\r":
                return 0
            if not data.startswith(b"\r\n", position):
                raise FramingError(400, "chunk longer than its size")
            self._state = _Chunk.LINE
            return 2
        return self._trailers(data, position)

    def _line(self, data: bytes, position: int) -> int:
        # A line in many pieces is looked at once it is whole.
        whole = data.find(b"\n", position) >= 0
        found = _CHUNK_LINE.match(data, position) if whole else None
        if found is None:
            if _CHUNK_TOO_LARGE.match(data, position):
                raise FramingError(413, "chunk too large")
            if whole or len(data) - position > CHUNK_LINE:
                raise FramingError(400, "malformed chunk size")
            return 0
        length = found.end() - position
        self._extensions += length - len(found[1]) - 2
        if length > CHUNK_LINE or self._extensions > self._limits.chunk_extensions:
            raise FramingError(400, "chunk extensions too large")
        self._remaining = int(found[1], 16)
        self._state = _Chunk.DATA if self._remaining else _Chunk.TRAILERS
        return length

    def _trailers(self, data: bytes, position: int) -> int:
        if data.startswith(b"\r\n", position):
            self.complete = True
            return 2
        end = data.find(b"\r\n\r\n", position)
        # Without its end, of which a part may be there already.
        if (len(data) - 3 if end < 0 else end) - position > self._limits.trailers:
            raise FramingError(self._limits.status, "trailers too large")
        if end < 0:
            return 0
        try:
            FieldBlock(data[position : end + 4])
        except FieldsError as error:
            raise FramingError(400, "malformed trailer") from error
        self.complete = True
        return end + 4 - position


Body = LengthBody | ChunkedBody | UntilCloseBody


def request_body(head: RequestHead, limits: Limits) -> LengthBody | ChunkedBody | None:
    """How the request's body is delimited; None if there is none (RFC 9112 section 6.3)."""
    block = head.block
    if block.chunked:
        return ChunkedBody(limits)
    return LengthBody(block.content_length) if block.content_length else None


def response_body(head: ResponseHead, method: bytes, limits: Limits) -> Body | None:
    """How the response's body is delimited; None if there is none (RFC 9112 section 6.3)."""
    if method == b"HEAD" or head.status in (204, 304) or head.status < 200:
        return None
    block = head.block
    if block.chunked:
        return ChunkedBody(limits)
    if block.content_length is None:
        return UntilCloseBody()
    return LengthBody(block.content_length) if block.content_length else None


def encode(piece: bytes, *, last: bool) -> bytes:
    """A piece of a body as a chunk, with the last chunk behind it if nothing more comes."""
    data = b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
    return data + b"0\r\n\r\n" if last else data
