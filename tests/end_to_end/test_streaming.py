"""Bodies pass as they come: nothing is gathered or added, and the slower side sets the pace."""

import asyncio
import select
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from http.client import HTTPResponse
from zlib import crc32

import aiohttp
import pytest

from proxy.lab.demo_server import DemoMember
from tests.end_to_end.conftest import (
    BLOCK,
    NAME,
    PATIENCE,
    Browser,
    BulkMember,
    Dial,
    Launcher,
    Members,
    Proxy,
    fields_of,
    request,
    seen_by,
    settings_of,
    until,
    until_async,
)
from tests.end_to_end.raw_client import End, RawClient, Response
from tests.end_to_end.recording_member import Do, RecordingMember, Script, answer

pytestmark = pytest.mark.slow

OK = b"HTTP/1.1 200 OK\r\n"
MIB = 1024 * 1024
# What the proxy may hold of bodies: per exchange as section D of the notes on hardening suggests,
# and once for what is allocated with the first large body (H36).
HELD = MIB
ONCE = 3 * MIB


class Site:
    """A proxy before one member that plays scripts."""

    def __init__(self, serve: Launcher, members: Members) -> None:
        self.member: RecordingMember = members("server1")
        self.proxy: Proxy = serve(self.member, mapping={"upgrade": ["websocket"]})

    def script(self, path: str, *steps: bytes | float | Do) -> None:
        """What the member does for a path from now on."""
        script: Script = steps
        self.member.record.seen.clear()
        self.member.scripts[path.encode()] = script


@pytest.fixture(scope="module")
def site(serve_all: Launcher, members_all: Members) -> Site:
    """A site for all tests that leave nothing behind."""
    return Site(serve_all, members_all)


def ask(client: RawClient, data: bytes) -> Response:
    """One exchange on an open connection."""
    client.send(data)
    return client.read_response(data.partition(b" ")[0])


def wait_stalled(moved: Callable[[], int]) -> int:
    """Wait until nothing moves any more; how much had moved."""
    before, since = -1, time.monotonic()
    deadline = since + PATIENCE
    while time.monotonic() - since < 0.3 and time.monotonic() < deadline:
        if moved() != before:
            before, since = moved(), time.monotonic()
        time.sleep(0.01)
    return before


# --- back-pressure -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide(serve_all: Launcher, bulk: BulkMember) -> Proxy:
    """A proxy before a member for large bodies, with little patience for the client's."""
    timeouts = {"timeouts": {"body": "200ms"}}
    return serve_all(bulk.settings, frontend=timeouts, balancer={"timeouts": {"response": "5s"}})


@pytest.mark.parametrize("framing", ["", "/chunked"], ids=["length", "chunked"])
def test_slow_readers_hold_the_member_back(
    framing: str, wide: Proxy, bulk: BulkMember, trust: ssl.SSLContext
) -> None:
    """Who doesn't read stops the member, not the proxy's memory, and gets it all (H36, D45)."""
    bulk.moved = 0
    clients = [connect(wide, trust) for _ in range(10)]
    before = wide.forget_peak()
    for client in clients:
        client.sendall(request(f"/800{framing}"))
    until(lambda: bulk.moved > 0, "the member sends")
    # What the kernel's buffers took, far from 10 times 50 MiB.
    assert wait_stalled(lambda: bulk.moved) < 10 * 10 * MIB
    assert wide.memory("VmHWM") - before < ONCE + 10 * HELD
    for client in clients[1:]:
        client.close()
    with clients[0]:
        response = HTTPResponse(clients[0])
        response.begin()
        total = checksum = 0
        while piece := response.read(len(BLOCK)):
            total += len(piece)
            checksum = crc32(piece, checksum)
        response.close()
    assert (total, checksum) == (800 * len(BLOCK), crc32(BLOCK * 800))
    assert wide.memory("VmHWM") - before < ONCE + 10 * HELD


def connect(proxy: Proxy, trust: ssl.SSLContext | None) -> socket.socket:
    """A client whose system takes little ahead of it."""
    client = socket.socket()
    client.settimeout(PATIENCE)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
    client.connect(proxy.address(0 if trust else 1))
    return trust.wrap_socket(client, server_hostname=NAME) if trust else client


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_slow_member_holds_the_client_back(
    framing: str, wide: Proxy, bulk: BulkMember, dial: Dial
) -> None:
    """A member that takes nothing stops the client, for as long as it likes (H36, D83)."""
    client = dial(wide)
    assert ask(client, request("/", method="POST", body=b"")).body == b"0 0"
    bulk.ready.clear()
    bulk.arrived.clear()
    before = wide.forget_peak()
    # More than all buffers of the kernel take: 4 MiB to send and 32 to receive at most, twice.
    count = 1600
    piece = BLOCK
    if framing == "length":
        client.send(request("/", f"Content-Length: {count * len(BLOCK)}", method="POST"))
    else:
        client.send(request("/", "Transfer-Encoding: chunked", method="POST"))
        piece = b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK)
    client.send(piece * count + (b"" if framing == "length" else b"0\r\n\r\n"))
    assert bulk.arrived.wait(PATIENCE)
    left = wait_stalled(lambda: pushed(client))
    assert left > 0
    assert wide.memory("VmHWM") - before < ONCE
    bulk.ready.set()
    expected = b"%d %d" % (count * len(BLOCK), crc32(BLOCK * count))
    assert client.read_response(b"POST").body == expected


def pushed(client: RawClient) -> int:
    """Send what can be sent; how much is left."""
    client._flush()
    return len(client._outgoing)


SIZES = [100_000, 200_000, 300_000, 600_000]


def test_slow_reader_gets_the_end(serve: Launcher, members: Members, trust: ssl.SSLContext) -> None:
    """The last bytes wait for a slow client longer than idle connections do (H73, P8)."""
    scripts = {b"/%d" % size: [answer((BLOCK * 10)[:size])] for size in SIZES}
    mapping = {"path": "/", "balancer": "cluster"}
    frontends = [serve.frontend(mapping, tls=tls) for tls in (True, False)]
    for frontend in frontends:
        frontend["timeouts"] = {"keep_alive": "100ms"}
    member = settings_of(members("server1", scripts))
    proxy = serve.run({"frontends": frontends, "balancers": {"cluster": {"members": [member]}}})
    clients = []
    wanted = []
    for kind in (trust, None):
        for option in ("keep-alive", "close"):
            for size in SIZES:
                client = connect(proxy, kind)
                client.sendall(request(f"/{size}", f"Connection: {option}"))
                clients.append(client)
                wanted.append(("tls" if kind else "plain", option, size))
    # Longer than the keep-alive time and the 2 s that a closed connection lingers.
    time.sleep(3.3)
    got = []
    for client, (kind_name, option, size) in zip(clients, wanted, strict=True):
        with client:
            got.append((kind_name, option, len(read_body(client, size))))
    assert got == wanted


def read_body(client: socket.socket, size: int) -> bytes:
    """What comes of a response's body until it is whole, or the connection ends."""
    data = b""
    try:
        while (at := data.find(b"\r\n\r\n")) < 0 or len(data) - at - 4 < size:
            piece = client.recv(65_536)
            if not piece:
                break
            data += piece
    except OSError:
        pass
    return data.partition(b"\r\n\r\n")[2]


# --- framing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 1_000_000])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_bodies_arrive(framing: str, size: int, site: Site, dial: Dial) -> None:
    """A body is the same on both sides: length stays length, all else is in chunks (P6)."""
    body = (BLOCK * 16)[:size]
    if framing == "length":
        site.script("/", answer(body))
    elif framing == "chunked":
        pieces = [body[start : start + 9000] for start in range(0, size, 9000)]
        chunks = [b"%x;x=y\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
        site.script("/", OK + b"Transfer-Encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n")
    else:
        site.script("/", OK + b"\r\n", body, Do.CLOSE)
    client = dial(site.proxy)
    for _ in range(2):
        response = ask(client, request())
        assert response.end is End.COMPLETE
        assert response.body == body
        assert response.framing == ("length" if framing == "length" else "chunked")


def test_bodiless_answers(site: Site, dial: Dial) -> None:
    """HEAD, 204 and 304 have no body, whatever the head says; the next answer is right (P6)."""
    client = dial(site.proxy)
    chunked = b"Transfer-Encoding: chunked\r\n\r\n"
    for method, head in (
        ("HEAD", OK + b"Content-Length: 1000\r\n\r\n"),
        ("HEAD", OK + chunked),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n"),
    ):
        site.script("/", head)
        response = ask(client, request(method=method))
        assert response.status_line == head.partition(b"\r\n")[0]
        if method == "HEAD":
            assert head.split(b"\r\n")[1] in response.fields
        site.script("/", answer(b"next"))
        assert ask(client, request()).body == b"next"


def test_trailers_are_dropped(site: Site, dial: Dial) -> None:
    """Fields behind a chunked body end there, in both directions (H8, P6)."""
    site.script(
        "/",
        OK + b"Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX-T: 1\r\nSet-Cookie: a=b\r\n\r\n",
    )
    client = dial(site.proxy)
    body = b"4\r\nmail\r\n0\r\nHost: evil\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n"
    for _ in range(2):
        response = ask(client, request("/", "Transfer-Encoding: chunked", method="POST") + body)
        assert (response.body, response.trailers) == (b"hello", b"")
        assert fields_of(response.fields, "trailer") == []
    for seen in seen_by(site.member):
        assert (seen.body, seen.trailers) == (b"mail", b"")
        assert b"evil" not in seen.head


def test_pipelined_requests(site: Site, dial: Dial) -> None:
    """Requests sent ahead are answered one by one in order, however slow the first is (H79)."""
    site.script("/slow", 0.2, answer(b"slow"))
    site.script("/empty", b"HTTP/1.1 204 No Content\r\n\r\n")
    site.script("/echo", Do.READ_BODY, answer(b"echo"))
    client = dial(site.proxy)
    wanted: list[tuple[str, str]] = [("GET", "slow")]
    for number in range(10):
        wanted += [("POST", "echo"), ("GET", "empty"), ("HEAD", "echo"), ("GET", f"{number}")]
    data = b""
    for number, (method, name) in enumerate(wanted):
        body = b"%d" % number * 100 if method == "POST" else None
        data += request(f"/{name}", method=method, body=body)
    client.send(data)
    for method, name in wanted:
        response = client.read_response(method.encode())
        assert response.end is End.COMPLETE
        body = {"slow": b"slow", "echo": b"echo", "empty": b""}.get(name, b"server1")
        assert response.body == (b"" if method == "HEAD" else body)
    assert [seen.body for seen in seen_by(site.member) if seen.body] == [
        b"%d" % number * 100 for number, (method, _) in enumerate(wanted) if method == "POST"
    ]


def test_content_is_not_opened(site: Site, dial: Dial) -> None:
    """Codings, ranges and validators belong to client and member (H48, D85, D86)."""
    fields = [
        b"Content-Encoding: gzip",
        b"Content-Range: bytes 5-9/100",
        b'ETag: W/"x"',
        b"Cache-Control: private, no-transform",
        b"Vary: Accept-Encoding",
    ]
    site.script("/", answer(b"\x1f\x8b no gzip", *fields, status=b"206 Partial Content"))
    sent = ["Accept-Encoding: gzip, br", "Range: bytes=5-9", 'If-Range: "x"', "If-Match: *"]
    response = ask(dial(site.proxy), request("/", *sent))
    assert response.status_line == b"HTTP/1.1 206 Partial Content"
    assert response.body == b"\x1f\x8b no gzip"
    assert [line for line in response.fields if line in fields] == fields
    (seen,) = seen_by(site.member)
    assert set(seen.lines) >= {line.encode() for line in sent}


def test_answer_before_the_body(site: Site, trust: ssl.SSLContext) -> None:
    """A member's early answer reaches a client that is still sending, and ends there (H12, H68)."""
    site.script("/", Do.LEAVE_BODY, answer(b"too large", status=b"413 Content Too Large"))
    with (
        socket.create_connection(site.proxy.address(), timeout=PATIENCE) as raw,
        trust.wrap_socket(raw, server_hostname=NAME) as client,
    ):
        client.sendall(request("/", f"Content-Length: {8 * MIB}", method="POST") + bytes(MIB))
        poll = select.poll()
        poll.register(client, select.POLLIN)
        until(lambda: poll.poll(0), "the answer comes")
        # A client like this one reads only when it has sent everything.
        client.sendall(bytes(2 * MIB))
        data = b""
        while piece := client.recv(65_536):
            data += piece
    assert data.startswith(b"HTTP/1.1 413 Content Too Large\r\n")
    assert data.endswith(b"too large")
    assert len(seen_by(site.member)) == 1


# --- WebSocket -----------------------------------------------------------------------------------


@pytest.fixture
async def demo(free_port: Callable[[], int]) -> AsyncIterator[DemoMember]:
    """A member that echoes WebSocket messages."""
    member = DemoMember("server1", free_port())
    await member.start()
    yield member
    await member.stop()


async def test_websocket_echo(serve: Launcher, demo: DemoMember, browser: Browser) -> None:
    """Messages of every size pass both ways, and so does the end (P26, H83, D87)."""
    member = {"url": demo.address, "route": "server1"}
    proxy = serve(member, mapping={"upgrade": ["websocket"]})

    async def talk(number: int) -> None:
        async with browser(proxy).ws_connect("/websocket", max_msg_size=0) as channel:
            await channel.send_str(f"hello {number}")
            assert await channel.receive_str() == f"hello {number}"
            for size in (0, 125, 126, 65_536, MIB):
                message = (BLOCK * 17)[number : number + size]
                await channel.send_bytes(message)
                assert await channel.receive_bytes() == message
            await channel.ping(b"x")
        assert channel.close_code == 1000

    await asyncio.gather(*[talk(number) for number in range(5)])
    lines = proxy.access_lines(5)
    assert [" 101 " in line for line in lines] == [True] * 5


async def test_websocket_is_allowed_by_path(
    serve: Launcher, demo: DemoMember, browser: Browser
) -> None:
    """Without the mapping's leave the member sees an ordinary request (H82, R22)."""
    proxy = serve({"url": demo.address, "route": "server1"})
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await browser(proxy).ws_connect("/websocket")
    assert refused.value.status == 426


async def test_silent_websocket_ends(serve: Launcher, demo: DemoMember, browser: Browser) -> None:
    """A tunnel without a byte for its timeout ends; one in use goes on (P26)."""
    proxy = serve(
        {"url": demo.address, "route": "server1"},
        mapping={"upgrade": ["websocket"]},
        balancer={"timeouts": {"tunnel": "400ms"}},
    )
    silent = await browser(proxy).ws_connect("/websocket")
    busy = await browser(proxy).ws_connect("/websocket")
    ended = asyncio.create_task(silent.receive())
    while not ended.done():
        await busy.send_str("still here")
        assert await busy.receive_str() == "still here"
        await asyncio.sleep(0.05)
    assert (await ended).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSE)
    await busy.send_str("and on")
    assert await busy.receive_str() == "and on"
    await busy.close()
    await until_async(lambda: proxy.stdout().count(" 101 ") == 2, "both are logged")


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
UPGRADE = ("Connection: keep-alive, Upgrade", "Upgrade: websocket")


def test_bytes_around_the_switch(site: Site, dial: Dial) -> None:
    """Bytes sent ahead of the 101 wait for it, bytes right behind it pass (H83, P26)."""
    site.script("/", SWITCH + b"from the member", Do.ECHO)
    client = dial(site.proxy)
    client.send(request("/", *UPGRADE) + b"ahead")
    head = client.read_response(b"GET")
    assert head.status_line == b"HTTP/1.1 101 Switching Protocols"
    assert fields_of(head.fields, "upgrade") == ["WebSocket"]
    assert fields_of(head.fields, "set-cookie") == []
    assert client.read_exactly(20) == b"from the memberahead"
    client.send(b"more")
    assert client.read_exactly(4) == b"more"
    (seen,) = seen_by(site.member)
    assert seen.value(b"connection") == b"Upgrade"
    assert seen.value(b"upgrade") == b"websocket"


def test_refused_switch_stays_http(site: Site, dial: Dial) -> None:
    """After any answer but a 101 the connection speaks HTTP, with what was sent ahead (H83)."""
    site.script("/", answer(b"no", status=b"403 Forbidden"))
    client = dial(site.proxy)
    client.send(request("/", *UPGRADE) + request("/next"))
    assert client.read_response(b"GET").body == b"no"
    assert client.read_response(b"GET").body == b"server1"


def test_tunnel_has_back_pressure(site: Site, dial: Dial) -> None:
    """An echo that nobody reads stops the sender, and not the proxy's memory (H36)."""
    site.script("/", SWITCH, Do.ECHO)
    client = dial(site.proxy)
    assert ask(client, request("/", *UPGRADE)).status_line.endswith(b"Switching Protocols")
    before = site.proxy.forget_peak()
    total = 160 * MIB  # four times what a connection's buffers take, and more
    client.send(bytes(total))
    left = wait_stalled(lambda: pushed(client))
    assert left > 0
    assert site.proxy.memory("VmHWM") - before < ONCE
    client._outgoing.clear()
    returned = client.read_exactly(total - left)
    assert len(returned) == total - left
