"""What is fuzzed: functions that take any bytes and check what must hold of them.

Each target is plain Python, so that pytest can call it with what a fuzzer found once. The first
three bytes of an input say in which manner the rest is treated, counted from ``0`` as an editor
shows it: a flag or two, where the first cut is, and how large the pieces behind it are.
"""

import re
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from proxy.core import fields, heads, http1, mapping, proxy_protocol
from proxy.core.errors import ClientError, MemberError
from proxy.core.framing import ChunkedBody, FramingError, encode
from proxy.core.headers import Forwarded, client_lines, framing_line, member_request, own_start
from proxy.core.heads import RequestHead, ResponseHead
from proxy.core.http1 import Limits, read_request_head, read_response_head
from proxy.core.mapping import canonical_path, read_target
from proxy.core.rewriting import Rewriting
from proxy.core.settings import Balancer
from proxy.core.sticky import StickySession
from tests import readers
from tests.core.facts import facts
from tests.fuzz.conversation import play
from tests.readers import Message, each_cut

WIDE = Limits(request_line=8191, field=8191, fields=100, head=65536)
NARROW = Limits(request_line=40, field=40, fields=4, head=120)
# h11 takes no raw 8-bit bytes in a target; which of them it is doesn't matter to its reading.
PLAIN = bytes(byte if byte < 0x80 else 0x7A for byte in range(256))

Target = Callable[[bytes], None]


class Manner(NamedTuple):
    """How an input is treated."""

    flags: int
    first: int
    step: int

    def cut(self, data: bytes) -> list[bytes]:
        """``data`` in pieces."""
        return each_cut(data, self.first, self.step)


def manner(data: bytes) -> tuple[Manner, bytes]:
    """The manner at the start of an input, and what is to be treated."""
    flags, first, step = ((byte - 0x30) % 256 for byte in data[:3].ljust(3, b"0"))
    return Manner(flags, first, step), data[3:]


def forget() -> None:
    """Empty the tables of what was read before, so that a run depends on its input alone."""
    http1._requests.clear()
    for module in (fields, heads, http1, mapping):
        _forget(module)


def _forget(module: ModuleType) -> None:
    for value in vars(module).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()


# --- heads ---------------------------------------------------------------------------------------


Found = tuple[RequestHead | ResponseHead, int] | int | type[MemberError] | None


def _said(found: Found) -> object:
    return (facts(found[0]), found[1]) if isinstance(found, tuple) else found


def _request(data: bytes, limits: Limits, scanned: int) -> Found:
    try:
        return read_request_head(data, limits, 0, scanned)
    except ClientError as error:
        return error.status


def _response(data: bytes, limits: Limits, _: int) -> Found:
    try:
        return read_response_head(data, limits)
    except MemberError as error:
        return type(error)


def _head(read: Callable[[bytes, Limits, int], Found], data: bytes) -> tuple[Found, bytes]:
    """The outcome for the head in ``data``, having seen that it is the same in pieces."""
    forget()
    how, data = manner(data)
    limits = NARROW if how.flags & 1 else WIDE
    arrived, scanned = b"", 0
    outcome: Found = None
    for piece in how.cut(data):
        arrived += piece
        outcome = read(arrived, limits, scanned)
        scanned = len(arrived)
        if outcome is not None:
            break
    forget()
    whole = read(data, limits, 0)
    if outcome is None or isinstance(outcome, tuple):
        assert _said(outcome) == _said(whole), "cuts change what is understood"
    else:
        # Refused for one of its faults, which may be seen before the head is complete.
        late = read(data + b"\r\n\r\n", limits, 0) if whole is None else whole
        assert not isinstance(late, tuple | None), "cuts change what is refused"
    assert _said(read(data, limits, 0)) == _said(whole), "what is remembered differs"
    return whole, data


def request_head(data: bytes) -> None:
    """A client's head: the same in pieces, and what a member gets of it is what h11 read in it."""
    found, data = _head(_request, data)
    if not isinstance(found, tuple):
        return
    head, end = found
    assert isinstance(head, RequestHead)
    theirs = readers.read_requests(_plain_line(data[:end]))
    assert not theirs.fault, f"h11 refuses what we accept: {theirs.fault}"
    (message,) = theirs.messages
    assert (message.method, message.target) == (head.method, head.target.translate(PLAIN))
    assert message.fields == [(key, _coding(key, value)) for key, _, value in head.fields]
    forwarded = Forwarded("192.0.2.1", "proxy.example", tls=True, trusted=False)
    tail = framing_line(head, None)[0] + b"Connection: Keep-Alive\r\n"
    tail = forwarded.lines(head, head.host) + tail
    try:
        text = member_request(head, head.target, b"server1", forwarded, tail)
    except ClientError:
        assert message.values(b"max-forwards")
        return
    rebuilt = readers.read_requests(_plain_line(text))
    assert not rebuilt.fault, f"h11 refuses what we wrote: {rebuilt.fault}"
    (copy,) = rebuilt.messages
    assert (copy.method, copy.target, copy.version) == (message.method, message.target, b"1.1")
    _same_fields(copy, message)


def _plain_line(text: bytes) -> bytes:
    """A request whose first line holds only what h11 takes."""
    text = text.lstrip(b"\r\n")
    line, ends, rest = text.partition(b"\r\n")
    return line.translate(PLAIN) + ends + rest


def _same_fields(copy: Message, message: Message) -> None:
    """A member's copy of a request has its fields, and of the client's claims only ours."""
    written = {b"host", b"expect", b"max-forwards"} | readers.CLAIMS
    assert copy.besides(written) == message.without(written)
    assert copy.values(b"host") == [b"server1"]
    assert copy.values(b"x-forwarded-for") == [b"192.0.2.1"]
    assert copy.values(b"x-forwarded-proto") == [b"https"]
    assert copy.values(b"x-forwarded-host") == message.values(b"host")
    for name in (b"forwarded", b"proxy", b"x-real-ip", b"te", b"upgrade", b"trailer"):
        assert not copy.values(name)
    for name in (b"content-length", b"transfer-encoding"):
        assert copy.values(name) == message.values(name)


def _coding(key: bytes, value: bytes) -> bytes:
    """A field's value as h11 tells it: it writes ``chunked`` small."""
    return value.lower() if key == b"transfer-encoding" else value


def response_head(data: bytes) -> None:
    """A member's head: the same in pieces, and what a client gets of it is what h11 read in it."""
    found, data = _head(_response, data)
    if not isinstance(found, tuple):
        return
    head, end = found
    assert isinstance(head, ResponseHead)
    asked = [Message(b"GET", fields=[(b"upgrade", b"x")])]
    theirs = readers.read_responses(data[:end], asked, closed=False)
    assert not theirs.fault, f"h11 refuses what we accept: {theirs.fault}"
    message = theirs.messages[0]
    assert (message.status, message.reason) == (head.status, head.reason)
    assert message.fields == [(key, _coding(key, value)) for key, _, value in head.fields]
    start = own_start(head, b"Sun, 22 Nov 2026 13:15:57 GMT", b"balanceme")
    lines = client_lines(head, Rewriting((), {}, {}), lambda: b"https://proxy.example", length=True)
    rebuilt = readers.read_responses(head.line + start + lines + b"\r\n", asked, closed=False)
    assert not rebuilt.fault, f"h11 refuses what we wrote: {rebuilt.fault}"
    copy = rebuilt.messages[0]
    assert (copy.status, copy.reason) == (message.status, message.reason)
    written = {b"date", b"server", b"set-cookie", b"proxy-authenticate", b"expires"}
    written |= {b"last-modified"}
    assert copy.besides(written) == message.without(written)
    if b"set-cookie" not in message.options:
        assert copy.values(b"set-cookie") == message.values(b"set-cookie")


# --- parts ---------------------------------------------------------------------------------------


def chunks(data: bytes) -> None:
    """A body in chunks: the same in pieces, and its data is what another decoder finds."""
    how, data = manner(data)
    whole = _chunks([data])
    assert _chunks(how.cut(data)) == whole, "cuts change what is understood"
    theirs = readers.read_chunks(data)
    if whole is None:
        assert theirs.end is None, "refused, but well-formed"
        return
    body, end = whole
    # Trailers are judged once all of them are there.
    assert not theirs.malformed or (end is None and theirs.in_trailers), "accepted, but malformed"
    assert (body, end) == (theirs.data, theirs.end)
    assert _chunks([encode(body, last=True)]) == (body, len(encode(body, last=True)))


def _chunks(pieces: list[bytes]) -> tuple[bytes, int | None] | None:
    """The data and where the body ends, None while it hasn't ended; None for a refusal."""
    body, held, taken = ChunkedBody(WIDE), b"", 0
    for piece in pieces:
        taken += len(piece)
        try:
            held += body.feed(piece)
        except FramingError:
            return None
        if body.complete:
            return held, taken - len(body.rest)
    return held, None


_SEGMENT = re.compile(rb"(?:[A-Za-z0-9!$&'()*+,;=:@._~-]|%[0-9A-F]{2})*")


def target(data: bytes) -> None:
    """A request's target: one canonical path however it is spelled, the query untouched.

    What the member gets leads to the same canonical path, and is the client's own spelling unless
    that has dot segments, or the mode is Apache's.
    """
    forget()
    how, data = manner(data)
    apache = bool(how.flags & 1)
    if re.fullmatch(rb"[^\x00-\x20\x7f]+", data) is None:
        return  # no target, as the request line's reader sees to
    try:
        found = read_target(data, apache)
    except ClientError:
        return
    path, mark, query = data.partition(b"?")
    if data[:1] not in (b"/", b"?"):
        authority, slash, path = path.partition(b"://")[2].partition(b"/")
        assert found.host == authority
        path = slash + path
    else:
        assert found.host is None
    assert found.query == mark + query
    sent = found.text.removesuffix(found.query)
    dots = not {b".", b".."}.isdisjoint(path.split(b"/"))
    assert sent == (found.path if apache or dots else path or b"/")
    assert found.path == canonical_path(sent), "canonical in one step"
    assert found.path == canonical_path(found.path)
    segments = found.path.split(b"/")
    assert segments[0] == b""
    assert all(map(_SEGMENT.fullmatch, segments))
    assert not {b".", b".."}.intersection(segments)
    assert b"" not in segments[1:-1]
    assert unquote_to_bytes(found.path) == _walked(unquote_to_bytes(path))


def _walked(path: bytes) -> bytes:
    """The place that a decoded path leads to, step by step."""
    steps: list[bytes] = []
    for step in path.split(b"/"):
        if step == b"..":
            steps.pop()
        elif step not in (b"", b"."):
            steps.append(step)
    slash = path.endswith((b"/", b"/.", b"/..")) and bool(steps)
    return b"/" + b"/".join(steps) + (b"/" if slash else b"")


_SEPARATORS = (".", "!", "off")
_STICKY = [
    (StickySession(Balancer.model_validate(settings), apache=apache), settings, apache)
    for apache in (False, True)
    for settings in (
        {
            "sticky_session": name,
            "sticky_separator": separator,
            "members": [{"url": "http://server1", "route": "server1"}],
        }
        for separator in _SEPARATORS
        for name in ("BALANCEME", "a|b")
    )
]


def cookie_route(data: bytes) -> None:
    """The session route in a target and a Cookie field, which a space parts."""
    how, data = manner(data)
    sticky, settings, apache = _STICKY[how.flags % len(_STICKY)]
    sticky._cookie_route.cache_clear()
    text, blank, cookie = data.partition(b" ")
    found = sticky.session_route(text, cookie if blank else None)
    assert found == sticky.session_route(text, cookie if blank else None)
    assert found is None or (found and (found in text or found in cookie))
    name, _, parameter = str(settings["sticky_session"]).encode().partition(b"|")
    separator = settings["sticky_separator"]
    mark = None if separator == "off" else str(separator).encode()
    theirs = readers.parameter_route(text, parameter or name, mark)
    if theirs is not None:
        assert found == (theirs or None)
    elif not apache:
        assert found == (readers.cookie_route(cookie, name, mark) if blank else None)


def preamble(data: bytes) -> None:
    """A PROXY preamble: taken to its end and no further, and read back when it is written."""
    taken = b""
    try:
        while count := proxy_protocol.missing(taken):
            assert 0 < count <= 4096
            if len(data) - len(taken) < count:
                return
            taken = data[: len(taken) + count]
        ends = proxy_protocol.read(taken)
    except ClientError:
        return
    assert data.startswith(taken)
    assert taken[:1] != b"P" or (taken.endswith(b"\r\n") and taken.count(b"\n") == 1)
    if ends is not None:
        assert proxy_protocol.read(proxy_protocol.line(ends)) == ends
        assert proxy_protocol.read(proxy_protocol.binary(ends)) == ends


def conversation(data: bytes) -> None:
    """A client and members that say anything: see ``tests.fuzz.conversation``."""
    forget()
    how, data = manner(data)
    play(data, how.flags, how.cut)


TARGETS: dict[str, Target] = {
    "request_head": request_head,
    "response_head": response_head,
    "chunks": chunks,
    "target": target,
    "cookie_route": cookie_route,
    "preamble": preamble,
    "conversation": conversation,
}
