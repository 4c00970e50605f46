"""Attacks that were thought out with the code at hand; each of them comes to nothing.

Most of them count on what survives an exchange (a connection to a member, a remembered head, a
count), on events that reach the worker in one go, or on a second spelling of the same thing.
"""

import random
from collections.abc import Callable, Iterator
from ipaddress import ip_network

import pytest

from proxy.core.errors import ClientError
from proxy.core.proxy_protocol import Ends, binary, line, missing, read
from proxy.core.sticky import signature
from proxy.dataplane.admission import Admission
from tests.dataplane.conftest import MakeStage
from tests.dataplane.messages import CHUNKED, chunks, length, passed_on, post, request, response
from tests.dataplane.test_hostile import read_requests
from tests.fakes import EOF, Peer, Stage, unchunked

SECRET = "0123456789abcdef"
MOST = 30000
LARGE = b"x" * 20000


def chunk(data: bytes) -> bytes:
    """One chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


# --- many things at once -------------------------------------------------------------------------

CLIENT_SAYS = [
    request(),
    request() * 3,
    request(b"OPTIONS * HTTP/1.1") * 5,
    request(fields=b"Connection: close\r\n"),
    request(fields=b"Cookie: BALANCEME=balancer.server2\r\n"),
    request(b"HEAD / HTTP/1.1"),
    request(b"GET /%2F HTTP/1.1"),
    request(b"GET / HTTP/1.0"),
    post(b"abc"),
    post(LARGE)[:-1],
    request(b"POST / HTTP/1.1", b"Expect: 100-continue\r\n" + CHUNKED),
    request(b"POST / HTTP/1.1", CHUNKED, chunks(b"ab", b"c")),
    request(b"POST / HTTP/1.1", CHUNKED, chunk(LARGE)),
    chunk(LARGE),
    chunk(LARGE) + b"0\r\n\r\n",
    b"0\r\n\r\n",
    b"-1\r\n",
    b"x",
]
MEMBER_SAYS = [
    *[response(body=b"hello")] * 6,
    response(body=LARGE * 5),
    response(body=b"hello")[:-3],
    b"llo",
    response(b"200 OK", CHUNKED, None) + chunks(b"ab", LARGE),
    response(b"304 Not", length(b"x"), None),
    response(b"100 Continue", body=None),
    response(b"101 Switching", b"Connection: Upgrade\r\nUpgrade: x\r\n", None),
    response(b"503 Down", b"Connection: close\r\n", b"x"),
    b"HTTP/1.0 200 OK\r\n\r\nabc",
    b"HTTP/1.1 20 OK\r\n\r\n",
]
ACTS = [*["says"] * 7, "ends", "resets", "sticks", "flows", "flows"]


class Crowd:
    """Clients and members that do several things before the worker gets its turn."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage = stage
        self.dice = random.Random(seed)
        self.clients = [stage.client(f"192.0.2.{number}") for number in range(1, 4)]
        self.members: list[Peer] = []

    def play(self, steps: int) -> None:
        """Do something so many times, then fall silent until nobody is left."""
        dice, stage = self.dice, self.stage
        for _ in range(steps):
            while stage.openings and dice.random() < 0.8:
                self.members.append(stage.accept(dice.choice(stage.openings)))
            acts = [self._act() for _ in range(dice.choice([1, 2, 3]))]
            stage.loop.run(lambda acts=acts: [act() for act in acts])
            stage.check()
            if dice.random() < 0.1:
                stage.advance(dice.choice([0.6, 1.1, 6, 21, 61]))
        for _ in range(30):
            stage.advance(61)

    def _act(self) -> Callable[[], None]:
        client = self.dice.random() < 0.5 or not self.members
        peer = self.dice.choice(self.clients if client else self.members)
        what, data = (
            self.dice.choice(ACTS),
            self.dice.choice(CLIENT_SAYS if client else MEMBER_SAYS),
        )
        return lambda: self._do(peer, what, data)

    @staticmethod
    def _do(peer: Peer, what: str, data: bytes) -> None:
        transport = peer.transport
        if transport.lost:
            return
        if what == "resets":
            transport.lose(ConnectionResetError("reset"))
        elif what in ("sticks", "flows"):
            transport.stuck = what == "sticks"
            transport.flow(0 if transport.stuck else None)
        elif not transport.at_eof:
            transport.feed(data if what == "says" else EOF)


@pytest.mark.parametrize("seed", range(8))
def test_events_in_one_go(seed: int, make_stage: MakeStage) -> None:
    """What arrives together is told together: members read whole requests, nothing stays (P1)."""
    for number in range(25):
        stage = make_stage(
            tls=number % 3 == 0,
            mapping={"max_body": MOST},
            member={"max_connections": 2} if number % 2 else {},
            frontend={"limits": {"pipelined": 100}},
            balancer={"session_cookie": {"secret": SECRET}},
        )
        crowd = Crowd(stage, seed * 1000 + number)
        crowd.play(15)
        assert not stage.frontend.connections
        assert stage.frontend.admission.count == 0
        for member in crowd.members:
            read_requests(bytes(member.transport.sent))


# --- bodies that are refused, and the member's connection ----------------------------------------


@pytest.mark.parametrize("tls", [False, True])
def test_body_refused_while_connecting(make_stage: MakeStage, *, tls: bool) -> None:
    """The connection that comes too late is clean, and serves who comes next (H12, P6)."""
    stage = make_stage(1, tls=tls, mapping={"max_body": MOST})
    client = stage.client()
    client.send(request(b"POST / HTTP/1.1", CHUNKED, chunk(LARGE)))
    client.send(chunk(LARGE))
    assert client.take().startswith(b"HTTP/1.1 413 ")
    member = stage.accept()
    assert member.take() == b""
    stage.client("192.0.2.2").send(request())
    assert member.take().startswith(b"GET / HTTP/1.1\r\n")


@pytest.mark.parametrize("end", [b"", b"0\r\n\r\n"])
def test_body_refused_on_its_way(end: bytes, make_stage: MakeStage) -> None:
    """A member that got a part never sees the end, nor anything behind it (H11, H12)."""
    stage = make_stage(1, mapping={"max_body": MOST})
    client = stage.client()
    client.send(request(b"POST / HTTP/1.1", CHUNKED, chunk(LARGE)))
    member = stage.accept()
    client.send(chunk(LARGE) + (end and end + request()))
    assert client.take().startswith(b"HTTP/1.1 413 ")
    assert not member.open
    assert member.take().endswith(chunk(LARGE))
    stage.client("192.0.2.2").send(request())
    assert stage.openings == ["server1"]


def test_early_answer_and_the_rest_of_its_body_together(stage: Stage) -> None:
    """An answer that is told just before its request's end leaves a connection in doubt (H12)."""
    client = stage.client()
    client.send(post(LARGE)[:-1])
    member = stage.accept()

    def together() -> None:
        member.transport.feed(response())
        client.transport.feed(b"x" + request(b"GET /smuggled HTTP/1.1"))

    stage.loop.run(together)
    assert not member.open
    assert not client.open
    assert b"smuggled" not in member.take()


def test_trickle_of_framing(stage: Stage) -> None:
    """Marks of chunks are no body: who sends little else holds no member for long (H70)."""
    client = stage.client()
    client.send(request(b"POST / HTTP/1.1", CHUNKED))
    stage.advance(1.1)
    member = stage.accept()
    for _ in range(45):
        if client.open:
            client.send(b"1\r\nx\r\n")
        stage.advance(0.5)
    assert client.take().startswith(b"HTTP/1.1 408 ")
    assert not member.open
    assert stage.busy == 0


# --- what survives an exchange -------------------------------------------------------------------


def manners(head: bytes) -> Iterator[list[bytes]]:
    """The same request, twice: in one go, cut, and behind empty lines."""
    yield [head + head]
    yield [head, head]
    yield [head[:-1], head[-1:] + head]
    yield [b"\r\n" + head, b"\r\n\r\n" + head]
    yield [bytes([byte]) for byte in head + head]


def test_remembered_head_tells_nothing_of_others(make_stage: MakeStage) -> None:
    """The same bytes of another client are that client's, however they come (P6, H42)."""
    head = request(fields=b"X-Forwarded-For: 192.0.2.66\r\nX-Real-IP: 192.0.2.66\r\n")
    for pieces in manners(head):
        stage = make_stage(1, top={"trusted_proxies": ["192.0.2.7"]})
        members: list[Peer] = []
        for address in ("192.0.2.1", "192.0.2.7", "192.0.2.1"):
            client = stage.client(address)
            for piece in pieces:
                client.send(piece)
            members = members or [stage.accept()]
            for _ in range(2):
                got = members[0].take()
                members[0].send(response())
                theirs = b"X-Forwarded-For: 192.0.2.66, 192.0.2.7\r\n"
                if address == "192.0.2.7":
                    assert theirs in got
                    assert b"X-Real-IP: 192.0.2.66\r\n" in got
                else:
                    assert got == passed_on()


def test_half_closed_client_gets_all_its_answers(stage: Stage) -> None:
    """Who says it all and ends its direction is answered for all of it, in order (H79)."""
    client = stage.client()
    client.send(b"".join(request(b"GET /%d HTTP/1.1" % number) for number in range(3)))
    client.end()
    members: dict[str, Peer] = {}
    for number in range(3):
        name = ("server1", "server2")[number % 2]
        member = members[name] = members.get(name) or stage.accept(name)
        assert member.take().startswith(b"GET /%d " % number)
        member.send(response(body=b"%d" % number))
    assert unchunked(client.take())[1::2] == [b"0", b"1", b"2"]
    assert not client.open


def test_admission_forgets_nobody_and_nothing() -> None:
    """Whatever addresses come and go, in the end nothing is counted (H39)."""
    exempt = [ip_network("198.51.100.0/24"), ip_network("2001:db8:1::/48")]
    admission = Admission(20, 2, exempt)
    addresses = ["192.0.2.1", "198.51.100.1", "2001:db8::1", "2001:db8::2", "2001:db8:1::1"]
    addresses += ["fe80::1%eth0", "fe80::2%eth1", "-", ""]
    dice = random.Random(1)
    there: list[str] = []
    for _ in range(2000):
        address = dice.choice(addresses)
        if dice.random() < 0.5 and admission.admit(address):
            there.append(address)
        elif there:
            admission.leave(there.pop(dice.randrange(len(there))))
        assert admission.count == len(there) <= 20
        assert sum(there.count(each) for each in addresses[2:4]) <= 2
    for address in there:
        admission.leave(address)
    assert admission.count == 0
    assert admission._by_address == {}


# --- other spellings -----------------------------------------------------------------------------

SPELLINGS = [
    b"/upload",
    b"/upload?/other",
    b"//upload",
    b"/%75pload/a",
    b"/%75%70%6c%6F%61%64",
    b"/other/../upload",
    b"/other//..///upload/.",
    b"/./upload",
    b"http://proxy.example/upload",
    b"HTTPS://PROXY.example.:8443//upload",
]


@pytest.mark.parametrize("target", SPELLINGS)
def test_a_limit_has_one_spelling(target: bytes, make_stage: MakeStage) -> None:
    """However a path is spelled, its own mapping's limit holds, in length and in chunks (H31)."""
    limited = {"path": "/upload", "balancer": "cluster", "max_body": 10}
    every = [{"path": "/", "balancer": "cluster"}, limited]
    stage = make_stage(frontend={"mappings": every})
    start = b"POST %b HTTP/1.1" % target
    for fields, body in ((length(b"x" * 11), b""), (CHUNKED, chunks(b"x" * 6, b"x" * 5))):
        client = stage.client()
        client.send(request(start, fields, body))
        assert client.take().startswith(b"HTTP/1.1 413 ")
    assert not stage.openings


@pytest.mark.parametrize("dots", [b"%2e%2e", b".%2E", b"%2e.", b"%2e"])
@pytest.mark.parametrize("around", [b"/other/%b/upload", b"/other/%b", b"//%b/"])
def test_hidden_dots_reach_nobody(around: bytes, dots: bytes, stage: Stage) -> None:
    """Dot segments that a member might find behind our back are refused (H26)."""
    client = stage.client()
    client.send(request(b"GET %b HTTP/1.1" % (around % dots)))
    assert client.take().startswith(b"HTTP/1.1 400 ")
    assert not stage.openings


def signed(route: bytes, secret: str = SECRET, name: str = "BALANCEME") -> bytes:
    """A route with its signature."""
    return route + b"~" + signature(secret, name, route)


@pytest.mark.parametrize(
    "value",
    [
        b"server2",
        b"server2~",
        b"~",
        signed(b"server1").replace(b"server1", b"server2"),
        signed(b"server2")[:-1],
        signed(b"server2") + b"A",
        signed(b"server2") + b"~",
        signed(b"server2") + b"\xff",
        signed(b"server2", "another secret..."),
        signed(b"server2", name="OTHER"),
        signed(b"server2~"),
        signed(b"x.server2"),
        b"server2" + signed(b""),
    ],
)
@pytest.mark.parametrize("field", [b"Cookie: BALANCEME=balancer.%b\r\n", None])
def test_forged_routes_count_as_none(
    value: bytes, field: bytes | None, make_stage: MakeStage
) -> None:
    """Only a signature of ours for this very route and cookie chooses a member (H53)."""
    stage = make_stage(balancer={"session_cookie": {"secret": SECRET}})
    client = stage.client()
    if field is not None:
        client.send(request(fields=field % value))
    else:
        client.send(request(b"GET /?BALANCEME=balancer.%b HTTP/1.1" % value))
    assert stage.openings == ["server1"]


def announced(data: bytes, step: int) -> tuple[Ends | str | None, bytes]:
    """What is said of a client, and what is left, when ``data`` comes in pieces of ``step``."""
    taken = b""
    try:
        while count := missing(taken):
            piece = data[len(taken) : len(taken) + min(count, step)]
            if not piece:
                return "incomplete", b""
            taken += piece
        return read(taken), data[len(taken) :]
    except ClientError:
        return "refused", b""


ENDS = Ends("192.0.2.66", 40000, "203.0.113.5", 443)
ENDS_V6 = Ends("2001:db8::66", 40000, "2001:db8::5", 443)
PREAMBLES = [
    *(write(ends) for write in (line, binary) for ends in (ENDS, ENDS_V6)),
    b"PROXY UNKNOWN\r\n",
    b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n",
    b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    b"PROXY \r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 01 1\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 1\n",
    b"PROXY TCP6 192.0.2.1 192.0.2.2 1 1\r\n",
    b"proxy TCP4 192.0.2.1 192.0.2.2 1 1\r\n",
    binary(ENDS)[:13] + b"\x21" + binary(ENDS)[14:],
    binary(ENDS)[:14] + b"\x10\x01" + binary(ENDS)[16:],
    binary(ENDS)[:12] + b"\x11" + binary(ENDS)[13:],
    binary(ENDS)[:12] + b"\x20" + binary(ENDS)[13:],
    binary(ENDS)[:11] + b"\r" + binary(ENDS)[12:],
]


@pytest.mark.parametrize("preamble", PREAMBLES)
def test_preambles_are_read_alike_in_every_cut(preamble: bytes) -> None:
    """How a preamble is cut decides nothing, and no byte behind it is taken (H45)."""
    data = preamble + request() + preamble
    whole = announced(data, len(data))
    assert whole[0] in (ENDS, ENDS_V6, None, "refused")
    assert whole[1] in (request() + preamble, b"")
    for step in (1, 2, 3, 7, 15, 16):
        assert announced(data, step) == whole
