"""One message, one meaning: what we pass on is what another reader found in what we were sent.

Hypothesis writes messages with any framing, chunks, extensions, trailers and spelling, and cuts
them anywhere; h11 reads them at both ends of the proxy (P1, P2, P7, H1 to H9, H40, H51).
"""

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from tests import readers
from tests.fakes import Peer, Stage
from tests.readers import Fields, Message

# What requests and responses are made of.
TOKEN = st.text("!#$%&'*+-.^_`|~09AZaz", min_size=1, max_size=8).map(str.encode)
TEXT = st.text("".join(map(chr, [9, *range(32, 127), *range(128, 256)])), max_size=12).map(
    lambda text: text.encode("latin-1")
)
BLANKS = st.sampled_from([b"", b" ", b"\t", b" \t "])
NAMES = st.sampled_from(
    b"Accept Cookie COOKIE X-A x_a Range TE Trailer Keep-Alive Proxy-Connection Via Warning"
    b" X-Forwarded-For x-forwarded-proto Forwarded Proxy Content-Type Set-Cookie ETag".split()
)
SPECIAL = frozenset(
    b"connection content-length transfer-encoding host expect max-forwards upgrade date server"
    b" location content-location uri destination expires last-modified".split()
)
FIELD = st.tuples(NAMES | TOKEN.filter(lambda name: name.lower() not in SPECIAL), TEXT)
FIELDS = st.lists(FIELD, max_size=6)
# Names that Connection may have: of fields that are there, or of nothing; none that closes.
OPTIONS = st.lists(st.sampled_from([b"x-a", b"X_A", b"Keep-Alive", b"", b"x"]), max_size=3)
QUOTED = TEXT.map(lambda text: b'"' + text.replace(b"\\", b"").replace(b'"', b'\\"') + b'"')
VALUE = st.just(b"") | st.builds(
    lambda blanks, value: blanks + b"=" + value, BLANKS, TOKEN | QUOTED
)
EXTENSION = st.just(b"") | st.builds(
    lambda blanks, name, value: blanks + b";" + name + value, BLANKS, TOKEN, VALUE
)
# To h11, which reads members' chunks, no blank may stand before an extension.
PLAIN_EXTENSION = st.just(b"") | st.builds(lambda name: b";" + name, TOKEN)


def chunk(extension: st.SearchStrategy[bytes]) -> st.SearchStrategy[tuple[bytes, int, bytes]]:
    """A chunk's data, the zeros before its size, and its extension."""
    return st.tuples(st.binary(min_size=1, max_size=30), st.integers(0, 5), extension)


PLACES = st.lists(st.integers(0, 2000), max_size=8)


class Body(NamedTuple):
    """A body as it is sent: what it holds, its field lines, its bytes."""

    data: bytes
    lines: bytes
    sent: bytes


def chunked(chunks: list[tuple[bytes, int, bytes]], trailers: Fields, coding: bytes) -> Body:
    """A body in chunks, with sizes of any spelling, extensions and trailers."""
    sent = b"".join(
        b"%b%b%b\r\n%b\r\n" % (b"0" * zeros, (b"%x", b"%X")[zeros % 2] % len(data), ext, data)
        for data, zeros, ext in chunks
    )
    sent += b"000\r\n" + lines(trailers) + b"\r\n"
    data = b"".join(data for data, _, _ in chunks)
    return Body(data, b"Transfer-Encoding: " + coding + b"\r\n", sent)


def lines(fields: Fields) -> bytes:
    """Field lines as they are sent."""
    return b"".join(name + b":" + value + b"\r\n" for name, value in fields)


CODING = st.sampled_from([b"chunked", b"Chunked", b"CHUNKED "])
CHUNKED = st.builds(chunked, st.lists(chunk(EXTENSION), max_size=5), FIELDS, CODING)
PLAIN_CHUNKED = st.builds(chunked, st.lists(chunk(PLAIN_EXTENSION), max_size=5), FIELDS, CODING)
LENGTH = st.builds(
    lambda data, zeros: Body(data, b"content-length:%b%d\r\n" % (b"0" * zeros, len(data)), data),
    st.binary(max_size=60) | st.just(b"x" * 20000),
    st.integers(0, 3),
)
NONE = st.just(Body(b"", b"", b""))


class Sent(NamedTuple):
    """A message as it is sent, and its method if it is a request."""

    data: bytes
    method: bytes = b""


def _with_fields(start: bytes, fields: Fields, options: list[bytes], body: Body) -> bytes:
    connection = b"Connection: " + b" , ".join(options) + b"\r\n" if options else b""
    middle = len(fields) // 2
    head = lines(fields[:middle]) + body.lines + lines(fields[middle:]) + connection
    return start + b"\r\n" + head + b"\r\n" + body.sent


METHOD = st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"PROPFIND", b"get", b"M-SEARCH"])
TARGET = st.text("".join(map(chr, range(33, 127))), max_size=12).map(
    lambda query: b"/a?" + query.encode().replace(b"#", b"")
)
REQUEST = st.builds(
    lambda method, target, fields, options, body: Sent(
        _with_fields(
            method + b" " + target + b" HTTP/1.1\r\nhOsT: a.example", fields, options, body
        ),
        method,
    ),
    *(METHOD, TARGET, FIELDS, OPTIONS, NONE | LENGTH | CHUNKED),
)
STATUS = st.sampled_from([200, 201, 204, 206, 302, 304, 404, 449, 502, 599])
RESPONSE = st.builds(
    lambda status, reason, fields, options, body: Sent(
        _with_fields(b"HTTP/1.1 %d %b" % (status, reason), fields, options, body)
    ),
    *(STATUS, TEXT, FIELDS, OPTIONS, NONE | LENGTH | PLAIN_CHUNKED),
)
INTERIM = st.lists(
    st.builds(
        lambda fields: _with_fields(b"HTTP/1.1 103 E", fields, [], Body(b"", b"", b"")), FIELDS
    ),
    max_size=2,
)


def send(peer: Peer, data: bytes, places: list[int]) -> None:
    """Send ``data``, cut at these places."""
    start = 0
    for place in [*sorted({place % (len(data) + 1) for place in places}), len(data)]:
        if place > start and not peer.transport.lost:
            peer.send(data[start:place])
        start = place


def in_order_of_names(fields: Fields) -> Fields:
    """Fields by name, the lines of one name in their own order (RFC 9110 section 5.3)."""
    return sorted(fields, key=lambda item: item[0])


@settings(deadline=None, max_examples=150)
@given(st.lists(REQUEST, min_size=1, max_size=3), PLACES)
def test_a_member_gets_the_message_that_the_client_sent(
    sent: list[Sent], places: list[int]
) -> None:
    """Method, query, fields and body are those that h11 reads of the client's own bytes."""
    data = b"".join(message.data for message in sent)
    asked = readers.read_requests(data, chunks_by_hand=True)
    assert not asked.fault
    assert len(asked.messages) == len(sent)
    stage = Stage(1)
    try:
        client = stage.client()
        send(client, data, places)
        members: list[Peer] = []
        for _ in sent:
            if stage.openings:
                members.append(stage.accept())
            members[-1].send(b"HTTP/1.1 204 No\r\n\r\n")
        got = [m for member in members for m in readers.read_requests(member.take()).messages]
        assert len(got) == len(sent)
        for copy, message in zip(got, asked.messages, strict=True):
            same_request(copy, message)
        stage.end()
    finally:
        stage.close()


def same_request(copy: Message, message: Message) -> None:
    """A member's copy is the client's message, but for what a proxy has to write anew."""
    assert copy.complete
    assert (copy.method, copy.target, copy.body) == (message.method, message.target, message.body)
    assert copy.besides({b"host"} | readers.CLAIMS) == message.without({b"host"} | readers.CLAIMS)
    assert copy.values(b"host") == [b"server1"]
    assert copy.values(b"x-forwarded-host") == message.values(b"host")
    assert copy.values(b"x-forwarded-for") == [b"192.0.2.1"]


@settings(deadline=None, max_examples=150)
@given(RESPONSE, INTERIM, st.sampled_from([b"GET", b"HEAD", b"PUT"]), PLACES)
def test_the_client_gets_the_message_that_the_member_sent(
    sent: Sent, interim: list[bytes], method: bytes, places: list[int]
) -> None:
    """Status, reason, fields and body are those that h11 reads of the member's own bytes."""
    data = b"".join(interim) + sent.data
    asked = [Message(method)]
    theirs = readers.read_responses(data, asked, closed=True)
    stage = Stage(1)
    try:
        client = stage.client()
        client.send(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
        member = stage.accept()
        send(member, data, places)
        if not member.transport.lost:
            member.end()
        ours = readers.read_responses(client.take(), asked, closed=not client.open)
        assert not theirs.fault
        assert not ours.fault
        assert not ours.rest
        assert theirs.messages[-1].complete
        same_responses(ours.messages, theirs.messages)
        stage.end()
    finally:
        stage.close()


def same_responses(copies: list[Message], messages: list[Message]) -> None:
    """A client's copies are the member's messages, but for what a proxy has to write anew."""
    assert [copy.status for copy in copies] == [message.status for message in messages]
    for copy, message in zip(copies, messages, strict=True):
        assert (copy.reason, copy.body, copy.complete) == (
            message.reason,
            message.body,
            message.complete,
        )
        written = {b"date", b"server"}
        assert in_order_of_names(copy.besides(written)) == in_order_of_names(
            message.without(written)
        )
