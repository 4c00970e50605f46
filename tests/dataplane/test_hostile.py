"""Whatever clients and members send, in whatever order and pieces: nothing breaks, nothing stays.

Hypothesis plays clients and members that keep to no rules. After each step the stage checks what
must hold at any time; in the end everybody falls silent, and all that waits must run out.
"""

from collections.abc import Iterator

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.dataplane.messages import CHUNKED, chunks, length, post, request, response
from tests.fakes import Peer, Stage, unchunked

UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
EXPECT = b"Expect: 100-continue\r\n"
LARGE = b"x" * 20000

# What clients and members are likely to say, right or wrong; and parts of it.
SAYINGS = [
    request(),
    request(fields=b"Connection: close\r\n"),
    request(fields=UPGRADE),
    request(fields=b"Max-Forwards: 1\r\nMax-Forwards: x\r\n"),
    request(fields=b"Cookie: BALANCEME=x.server2\r\n"),
    request(b"HEAD / HTTP/1.1"),
    request(b"GET / HTTP/1.0"),
    request(b"GET / HTTP/1.0", b"Connection: keep-alive\r\n"),
    request(b"OPTIONS * HTTP/1.1"),
    request(b"GET /%2F HTTP/1.1"),
    request(b"POST /Microsoft-Server-ActiveSync?Cmd=Ping HTTP/1.1"),
    post(b"abc"),
    post(LARGE)[:-1],
    request(b"POST / HTTP/1.1", EXPECT + length(b"abc")),
    request(b"POST / HTTP/1.1", EXPECT + CHUNKED),
    request(b"POST / HTTP/1.1", CHUNKED, chunks(b"ab", b"c")),
    request(b"POST / HTTP/1.1", CHUNKED),
    request(b"POST / HTTP/1.1", UPGRADE + length(b"a"), b"a"),
    request(fields=length(b"") + CHUNKED),
    b"GET  / HTTP/1.1\r\n\r\n",
    b"\r\n",
    b"x",
    b"0\r\n\r\n",
    b"3\r\nabc\r\n",
    b"-1\r\n",
    chunks(LARGE),
    LARGE * 5,
    response(),
    response(body=b"hello"),
    response(body=LARGE * 5),
    response(b"503 Down", body=b"x"),
    response(b"204 No", body=None),
    response(b"304 Not", length(b"x"), None),
    response(body=b"abc")[:-1],
    response(fields=b"Connection: close\r\n", body=b"abc"),
    response(b"200 OK", b"", None),
    response(b"200 OK", CHUNKED, None),
    response(b"200 OK", CHUNKED, None) + chunks(b"ab", LARGE),
    response(b"100 Continue", body=None),
    response(b"103 Early", b"Link: x\r\n", None),
    response(b"101 Switching", UPGRADE, None),
    b"HTTP/1.0 200 OK\r\n\r\nabc",
    b"HTTP/1.1 20 OK\r\n\r\n",
]
said = st.one_of(
    st.sampled_from(SAYINGS),
    st.builds(lambda saying, cut: saying[:cut], st.sampled_from(SAYINGS), st.integers(1, 60)),
    st.builds(lambda saying, cut: saying[cut:], st.sampled_from(SAYINGS), st.integers(1, 60)),
    st.binary(max_size=8),
)
number = st.integers(0, 3)
step = st.one_of(
    st.tuples(st.just("connect"), number, st.just(b"")),
    st.tuples(st.just("client"), number, said),
    st.tuples(st.just("client"), number, said),
    st.tuples(st.sampled_from(["client end", "client reset"]), number, st.just(b"")),
    st.tuples(st.sampled_from(["client stick", "client flow"]), number, st.just(b"")),
    st.tuples(st.sampled_from(["accept", "accept", "refuse"]), number, st.just(b"")),
    st.tuples(st.just("member"), number, said),
    st.tuples(st.just("member"), number, said),
    st.tuples(st.sampled_from(["member end", "member reset"]), number, st.just(b"")),
    st.tuples(st.sampled_from(["member stick", "member flow"]), number, st.just(b"")),
    st.tuples(st.just("advance"), st.sampled_from([0, 1, 6, 21, 61]), st.just(b"")),
    st.tuples(st.just("stop"), number, st.just(b"")),
)
Step = tuple[str, int, bytes]


class Chaos:
    """A stage on which anybody may do anything."""

    def __init__(self, *, tls: bool, apache: bool) -> None:
        self.stage = Stage(
            2,
            tls=tls,
            mapping={"upgrade": ["websocket"]},
            member={"max_connections": 2, "acquire_timeout": "5s"},
            balancer={"session_cookie": {}},
            top={"compat": "apache"} if apache else {},
        )
        self.clients = [self.stage.client("192.0.2.1")]
        self.members: list[Peer] = []

    def play(self, steps: list[Step]) -> None:
        """Play all steps, then let everybody fall silent."""
        for what, number, data in steps:
            self._step(what, number, data)
        self._silence()
        self.stage.end()
        for member in self.members:
            read_requests(bytes(member.transport.sent))

    def _step(self, what: str, number: int, data: bytes) -> None:
        stage = self.stage
        if what == "connect" and stage.log.sink is not None:  # else the worker has ended
            self.clients.append(stage.client(f"192.0.2.{len(self.clients) + 1}"))
        elif what == "advance":
            stage.advance(number + 0.2)
        elif what == "stop":
            if not stage.frontend.closing:
                stage.stop()
        elif what in ("accept", "refuse"):
            if stage.openings:
                opening = stage.openings[number % len(stage.openings)]
                if what == "accept":
                    self.members.append(stage.accept(opening))
                else:
                    stage.refuse(opening)
        else:
            who, _, act = what.partition(" ")
            peers = self.clients if who == "client" else self.members
            if peers:
                self._act(peers[number % len(peers)], act, data)

    @staticmethod
    def _act(peer: Peer, act: str, data: bytes) -> None:
        if peer.transport.lost:
            return
        if act == "end":
            peer.end()
        elif act == "reset":
            peer.reset()
        elif act == "stick":
            peer.stick()
        elif act == "flow":
            peer.flow()
        elif not peer.transport.at_eof:
            peer.send(data)

    def _silence(self) -> None:
        """Nobody does anything any more: every wait ends (P4 of the hardening rules)."""
        for seconds in (2, 21, 61, 61, 61, 61, 3661, 61, 61, 61):
            self.stage.advance(seconds)
        assert not self.stage.frontend.connections
        assert not self.stage.openings
        assert not any(pool.connections for pool in self.stage.pools.values())


_PLAIN = bytes(byte if byte < 0x80 else 0x7A for byte in range(256))


def read_requests(data: bytes) -> list[h11.Request]:
    """The requests in what a member got, read by another's parser; raises what that doesn't take.

    Raw bytes in a query are passed on as they are (R23), and more than h11 takes.
    """
    if not data:
        return []  # to h11 no bytes are the end, told again and again
    data = data.translate(_PLAIN)
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    reader.receive_data(data)
    found: list[h11.Request] = []
    while True:
        event = reader.next_event()
        if isinstance(event, h11.Request):
            found.append(event)
        if event in (h11.NEED_DATA, h11.PAUSED) and reader.their_state is not h11.DONE:
            return found
        if isinstance(event, h11.EndOfMessage):
            if reader.our_state is h11.SEND_RESPONSE:
                reader.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                reader.send(h11.EndOfMessage())
            if reader.our_state is not h11.DONE:
                return found  # an upgrade: what follows is no HTTP
            reader.start_next_cycle()


def played(steps: list[Step], *, tls: bool = False, apache: bool = False) -> None:
    """Play these steps on a stage of their own."""
    chaos = Chaos(tls=tls, apache=apache)
    try:
        chaos.play(steps)
    finally:
        chaos.stage.close()


@settings(deadline=None, max_examples=150)
@given(st.lists(step, max_size=25), st.booleans(), st.booleans())
@example(
    [
        ("client", 0, request()),
        ("accept", 0, b""),
        ("client stick", 0, b""),
        ("member", 0, response(body=LARGE * 5)),
        ("advance", 6, b""),
        ("client", 0, request()),
    ],
    False,
    False,
)
def test_nothing_breaks_and_nothing_stays(steps: list[Step], tls: bool, apache: bool) -> None:
    """Any steps in any order leave no exchange, no busy member, no connection behind (H72, P4)."""
    played(steps, tls=tls, apache=apache)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6))
def test_any_bytes_from_a_client(pieces: list[bytes]) -> None:
    """Bytes without any sense are refused or waited out (H75, P1)."""
    played([("client", 0, piece) for piece in pieces])


@settings(deadline=None, max_examples=100)
@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6), st.booleans())
def test_any_bytes_from_a_member(pieces: list[bytes], status_line: bool) -> None:
    """Bytes without any sense from a member hurt nobody but its exchange (H58, P6)."""
    start: list[Step] = [("client", 0, request()), ("accept", 0, b"")]
    if status_line:
        start.append(("member", 0, b"HTTP/1.1 200 OK\r\n"))
    played([*start, *(("member", 0, piece) for piece in pieces)])


# --- cuts ----------------------------------------------------------------------------------------

REQUESTS = [
    request(),
    request(b"HEAD / HTTP/1.1"),
    post(b"abc"),
    post(LARGE),
    request(b"POST / HTTP/1.1", CHUNKED, chunks(b"a", b"bc")),
    request(b"PUT / HTTP/1.1", CHUNKED, b"1;a=b\r\na\r\n0\r\nX: y\r\n\r\n"),
    request(b"OPTIONS * HTTP/1.1"),
    request(b"GET /%2F HTTP/1.1"),
]
RESPONSES = [
    response(body=b"hello"),
    response(b"100 Continue", body=None) + response(body=LARGE),
    response(b"103 Early", b"Link: x\r\n", None) + response(b"204 No", body=None),
    response(b"200 OK", CHUNKED, None) + chunks(b"ab", LARGE, b"c"),
    response(b"304 Not", length(b"xyz"), None),
    response(b"404 Not", b"Connection: close\r\n", b"x"),
]


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    """``data`` in pieces, cut at these places as far as it has them."""
    start = 0
    for place in sorted({place % (len(data) + 1) for place in places}):
        yield data[start:place]
        start = place
    yield data[start:]


def conversation(
    requests: list[bytes], responses: list[bytes], places: list[int]
) -> tuple[list[bytes], list[bytes]]:
    """What client and members got when all bytes are cut at these places."""
    stage = Stage(1)
    try:
        client = stage.client()
        for piece in cut(b"".join(requests), places):
            client.send(piece)
        members: list[Peer] = []
        for answer in responses * 4:
            if stage.openings:
                members.append(stage.accept())
            if not stage.busy or members[-1].transport.lost:
                break
            line = members[-1].transport.sent.rpartition(b"\r\nHost")[0]
            head_only = line.endswith(b"HEAD / HTTP/1.1")
            for piece in cut(b"HTTP/1.1 200 OK\r\n\r\n" if head_only else answer, places):
                members[-1].send(piece)
        at_members = b"".join(member.take() for member in members)
        stage.end()
        return unchunked(client.take()), unchunked(at_members)
    finally:
        stage.close()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=5),
    st.lists(st.sampled_from(RESPONSES), min_size=1, max_size=4),
    st.lists(st.integers(0, 30000), max_size=12),
)
def test_cuts_change_nothing(
    requests: list[bytes], responses: list[bytes], places: list[int]
) -> None:
    """However the bytes are cut, both sides get the same messages (H32, P1)."""
    whole = conversation(requests, responses, [])
    assert conversation(requests, responses, places) == whole


def test_h11_refuses_what_it_should() -> None:
    """The measuring device itself finds a malformed request."""
    assert read_requests(b"") == []
    assert len(read_requests(request() + post(b"abc"))) == 2
    with pytest.raises(h11.RemoteProtocolError):
        read_requests(request(fields=b"X : y\r\n"))
