"""Other people's readings of HTTP/1.1, to compare ours with: h11's, and strict ones by hand.

Nothing here imports the proxy, so that a mistake of its readers can't hide in the measure.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import h11

# Name in lower case, value.
Fields = list[tuple[bytes, bytes]]
# RFC 9110 section 7.6.1, and those that the proxy writes anew.
HOP_BY_HOP = frozenset(
    b"connection content-length keep-alive proxy-connection te trailer transfer-encoding"
    b" upgrade".split()
)
# What a client can't say of itself: README, "How it differs from Apache" (H42, H43).
CLAIMS = frozenset(
    b"x-forwarded-for x-forwarded-host x-forwarded-server x-forwarded-proto x-forwarded-port"
    b" forwarded proxy x-real-ip".split()
)
# What a proxy writes of its own accord, as far as it is about one connection.
FRAMED = frozenset((b"connection", b"content-length", b"transfer-encoding"))
# A field with the name of such an option is no field that Connection means.
MEANINGLESS = frozenset((b"close", b"keep-alive", b"upgrade", b"te"))


@dataclass
class Message:
    """A message as another reader understood it."""

    method: bytes = b""
    target: bytes = b""
    status: int = 0
    reason: bytes = b""
    version: bytes = b"1.1"
    fields: Fields = field(default_factory=list)
    body: bytes = b""
    complete: bool = False

    def values(self, name: bytes) -> list[bytes]:
        """The values of all lines of one name."""
        return [value for key, value in self.fields if key == name]

    @property
    def options(self) -> set[bytes]:
        """The names in Connection."""
        return {
            option.strip(b" \t").lower()
            for value in self.values(b"connection")
            for option in value.split(b",")
        }

    @property
    def kept(self) -> bool:
        """Whether its connection may carry another message (RFC 9112 section 9.3)."""
        if self.version == b"1.0":
            return b"keep-alive" in self.options and not self.values(b"transfer-encoding")
        return b"close" not in self.options

    def besides(self, names: Collection[bytes]) -> Fields:
        """A copy's fields, but for ``names`` and what had to be written anew."""
        gone = FRAMED | {b"close"} | set(names)
        return [item for item in self.fields if item[0] not in gone]

    def without(self, names: Collection[bytes]) -> Fields:
        """What a copy's fields must be: none of this connection's, and none of ``names``."""
        gone = HOP_BY_HOP | self.options | MEANINGLESS | set(names)
        return [item for item in self.fields if item[0] not in gone]


class Reading(NamedTuple):
    """Messages, of which the last may be incomplete; why it went no further; what was left."""

    messages: list[Message]
    fault: str
    rest: bytes


# --- messages, by h11 ----------------------------------------------------------------------------


def read_requests(data: bytes, *, chunks_by_hand: bool = False) -> Reading:
    """The requests in a client's bytes, or in what a member got.

    h11 refuses blanks before a chunk's extension, which RFC 9112 section 7.1.1 has a reader take;
    ``chunks_by_hand`` leaves bodies in chunks to ``read_chunks``.
    """
    found: list[Message] = []
    while True:
        for _ in range(10):  # empty lines before a request, of which h11 knows nothing
            data = data.removeprefix(b"\r\n")
        if not data or (found and not found[-1].kept):
            return Reading(found, "", data)
        before = len(found)
        reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        fault = _read_message(reader, data, found, chunks_by_hand=chunks_by_hand)
        data = reader.trailing_data[0]
        if chunks_by_hand and len(found) > before and found[-1].values(b"transfer-encoding"):
            body = read_chunks(data)
            found[-1].body, found[-1].complete = body.data, body.end is not None
            data = data[body.end or len(data) :]
        if fault or len(found) == before or not found[-1].complete:
            return Reading(found, fault, data)


def read_responses(data: bytes, requests: Sequence[Message], *, closed: bool) -> Reading:
    """The responses to ``requests`` in a member's bytes, or in what a client got.

    ``closed``: the sender ended the connection behind them. A 1xx without a final response behind
    it is the last message.
    """
    found: list[Message] = []
    for request in requests:
        if not data or (found and not found[-1].kept):
            break
        reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        upgrade = [(b"Upgrade", b"x"), (b"Connection", b"upgrade")]
        fields = [(b"Host", b"a"), *(upgrade if request.values(b"upgrade") else [])]
        # A 200 to CONNECT would end HTTP, for h11 as for everybody; the proxy never says so.
        reader.send(h11.Request(method=request.method, target="/", headers=fields))
        reader.send(h11.EndOfMessage())
        fault = _read_message(reader, data, found, closed=closed)
        data = reader.trailing_data[0]
        if fault or not found or not found[-1].complete or found[-1].status < 200:
            return Reading(found, fault, data)
    return Reading(found, "", data)


def _read_message(
    reader: h11.Connection,
    data: bytes,
    found: list[Message],
    *,
    closed: bool = False,
    chunks_by_hand: bool = False,
) -> str:
    """Read a message and the 1xx responses before it; why it is none, or nothing."""
    reader.receive_data(data)
    if closed:
        reader.receive_data(b"")
    try:
        while True:
            event = reader.next_event()
            if isinstance(event, h11.Data):
                found[-1].body += event.data
            elif isinstance(event, h11.EndOfMessage):
                found[-1].complete = True
                return ""
            elif isinstance(event, h11.Event) and not isinstance(event, h11.ConnectionClosed):
                found.append(_message(event))
                by_hand = chunks_by_hand and bool(found[-1].values(b"transfer-encoding"))
                if found[-1].status == 101 or by_hand:
                    return ""
            else:
                return ""
    except h11.RemoteProtocolError as error:
        return str(error)


def _message(event: h11.Event) -> Message:
    if isinstance(event, h11.Request):
        return Message(
            event.method, event.target, version=event.http_version, fields=list(event.headers)
        )
    assert isinstance(event, h11.Response | h11.InformationalResponse)
    return Message(
        status=event.status_code,
        reason=bytes(event.reason),
        version=event.http_version,
        fields=list(event.headers),
        complete=event.status_code < 200,
    )


# --- parts, by hand ------------------------------------------------------------------------------

FIELD_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TEXT = frozenset(b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100)))


class Chunks(NamedTuple):
    """A body in chunks: its data so far, the place behind it once it is complete, its fault."""

    data: bytes
    end: int | None
    malformed: bool
    in_trailers: bool = False


def read_chunks(data: bytes) -> Chunks:
    """A body in chunks, line by line (RFC 9112 section 7.1)."""
    body, place = b"", 0
    while True:
        line, place = _line(data, place)
        if line is None:
            return Chunks(body, None, malformed=False)
        size, semicolon, extension = line[:-2].partition(b";")
        found = _SIZE.fullmatch(size) if semicolon else re.fullmatch(rb"([0-9A-Fa-f]{1,15})", size)
        good = line.endswith(b"\r\n") and _are_extensions(semicolon + extension)
        if found is None or not good:
            return Chunks(body, None, malformed=True)
        length = int(found[1], 16)
        if not length:
            return _trailers(data, place, body)
        body += data[place : place + length]
        place += length
        ends = data[place : place + 2]
        if ends != b"\r\n":
            return Chunks(body, None, malformed=not b"\r\n".startswith(ends))
        place += 2


def _are_extensions(text: bytes) -> bool:
    """Whether all of ``text`` is extensions by their grammar (RFC 9112 section 7.1.1)."""
    while text:
        text = text.lstrip(b" \t")
        name = _TOKEN.match(text[1:].lstrip(b" \t"))
        if text[:1] != b";" or name is None:
            return False
        text = text[1:].lstrip(b" \t")[name.end() :]
        behind = text.lstrip(b" \t")
        if behind[:1] == b"=":
            value = behind[1:].lstrip(b" \t")
            length = _quoted(value) if value[:1] == b'"' else _token(value)
            if not length:
                return False
            text = value[length:]
    return True


def _token(text: bytes) -> int:
    """How long the token at the start is; 0 for none."""
    found = _TOKEN.match(text)
    return found.end() if found else 0


def _quoted(text: bytes) -> int:
    """How long the quoted string at the start is; 0 for one that isn't well-formed."""
    place = 1
    while place < len(text) and text[place] in _TEXT:
        if text[place] == ord('"'):
            return place + 1
        if text[place] == ord("\\"):
            place += 1
            if place == len(text) or text[place] not in _TEXT:
                return 0
        place += 1
    return 0


def _trailers(data: bytes, place: int, body: bytes) -> Chunks:
    malformed = False
    while True:
        line, place = _line(data, place)
        if line is None:
            return Chunks(body, None, malformed, in_trailers=True)
        if line == b"\r\n":
            return Chunks(body, None if malformed else place, malformed, in_trailers=True)
        malformed |= not line.endswith(b"\r\n") or not FIELD_LINE.fullmatch(line[:-2])


def _line(data: bytes, place: int) -> tuple[bytes | None, int]:
    """The line at ``place``, up to its LF, and the place behind it; None while it has no end."""
    end = data.find(b"\n", place) + 1
    return (data[place:end], end) if end else (None, place)


def cookie_route(cookie: bytes, name: bytes, separator: bytes | None) -> bytes | None:
    """The route in the first cookie of exactly this name that has a value (S5, S8, S9)."""
    for pair in cookie.replace(b",", b";").split(b";"):
        key, equals, value = pair.partition(b"=")
        if equals and value and key.strip(b" \t") == name:
            return route_in(value, separator)
    return None


def parameter_route(target: bytes, name: bytes, separator: bytes | None) -> bytes | None:
    """The route behind the first ``name=`` in a target that has a value; b"" for a value without.

    Apache looks for the text, wherever it stands (S2).
    """
    for place in _places(target, name + b"="):
        value = target[place:].lstrip(b"?&")
        value = value.replace(b"?", b"&").partition(b"&")[0]
        if value:
            return route_in(value, separator) or b""
    return None


def route_in(value: bytes, separator: bytes | None) -> bytes | None:
    """What follows the first separator; without one the whole value is the route.

    What stands behind an @ in front of the separator tells of a session that is away.
    """
    if separator is None or separator not in value:
        return None if separator else value or None
    at = value.index(separator)
    if at + len(separator) == len(value):
        return None
    away = value.find(b"@", 0, at)
    return value[at + len(separator) :] if away < 0 else value[away:]


def _places(text: bytes, part: bytes) -> list[int]:
    """The places behind each ``part`` in ``text``."""
    starts = range(len(text) - len(part) + 1)
    return [start + len(part) for start in starts if text.startswith(part, start)]


def each_cut(data: bytes, first: int, step: int) -> list[bytes]:
    """``data`` in pieces: one of ``first`` bytes, others of ``step``; 0 is whatever is left."""
    first %= len(data) + 1
    rest = data[first:]
    step = step or max(len(rest), 1)
    pieces = [data[:first], *(rest[i : i + step] for i in range(0, len(rest), step))]
    return [piece for piece in pieces if piece]
