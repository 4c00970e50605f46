"""Whatever one client does, the next one gets its answer, and nothing is left behind."""

import asyncio
import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable

import pytest

from proxy.lab.demo_server import DemoMember
from tests.end_to_end.conftest import (
    NAME,
    PATIENCE,
    BulkMember,
    Dial,
    Launcher,
    Members,
    Proxy,
    Yaml,
    connect,
    is_served,
    request,
    seen_by,
    settings_of,
    until,
    until_async,
)
from tests.end_to_end.recording_member import RecordingMember

pytestmark = pytest.mark.slow

MIB = 1024 * 1024


def both_ways(serve: Launcher, *members: RecordingMember | Yaml, **frontend: object) -> Proxy:
    """A proxy with a TLS frontend and a plain one, where thousands of clients cost less."""
    mapping = {"path": "/", "balancer": "cluster"}
    frontends = [{**serve.frontend(mapping, tls=tls), **frontend} for tls in (True, False)]
    found = [settings_of(member) for member in members]
    return serve.run({"frontends": frontends, "balancers": {"cluster": {"members": found}}})


def reset(client: socket.socket) -> None:
    """Close with RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def first_visit(proxy: Proxy) -> None:
    """A whole visit: with the first one the event loop opens a file of its own, and keeps it."""
    with connect(proxy, 1) as client:
        client.sendall(b"x\r\n\r\n")
        while client.recv(4096):
            pass


# --- slow clients --------------------------------------------------------------------------------


def test_slow_clients(serve: Launcher, members: Members, dial: Dial, trust: ssl.SSLContext) -> None:
    """Hundreds of slow and silent clients delay nobody, and are closed in time (H70, H71)."""
    member = members("server1")
    times = {"handshake": "1500ms", "head": "1500ms", "body": "1500ms", "keep_alive": "20s"}
    proxy = both_ways(serve, member, timeouts=times)
    clean = dial(proxy)
    assert is_served(clean)
    before = proxy.descriptors()
    silent = [connect(proxy, frontend) for frontend in (0, 1) for _ in range(50)]
    secured = [trust.wrap_socket(connect(proxy), server_hostname=NAME) for _ in range(50)]
    trickling = [connect(proxy, 1) for _ in range(250)]
    uploading = [connect(proxy, 1) for _ in range(20)]
    for client in trickling + secured[:25]:
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: mail.example.org\r\nX-Slow: ")
    for client in uploading:
        client.sendall(request("/upload", "Content-Length: 20000", method="POST") + b"x")
    slow = {*silent, *secured, *trickling, *uploading}
    until(lambda: proxy.descriptors() >= before + 420, "all are connected")
    # While every one of them is there, others are served as ever.
    for _ in range(20):
        assert is_served(clean)
        assert is_served(dial(proxy, frontend=1))
    assert proxy.descriptors() >= before + 420
    for client in slow:
        client.setblocking(False)
    until(lambda: not goes_on(slow, set(uploading)), "the slow ones are closed")
    # The clean clients are still there, with connections to the member.
    until(lambda: proxy.descriptors() <= before + 40, "nothing of them is left")
    assert is_served(clean)
    assert seen_by(member, path=b"/slow") == []
    assert not any(seen.complete for seen in seen_by(member, path=b"/upload"))


def goes_on(clients: set[socket.socket], silent: set[socket.socket]) -> int:
    """A byte from each client that isn't silent; who sees its end closes. How many are left."""
    for client in [*clients]:
        try:
            if client not in silent:
                client.send(b"x")
            over = not client.recv(4096)
        except (BlockingIOError, ssl.SSLWantReadError):
            over = False
        except OSError:
            over = True
        if over:
            client.close()
            clients.remove(client)
    return len(clients)


def test_client_that_never_reads(serve: Launcher, bulk: BulkMember, trust: ssl.SSLContext) -> None:
    """Who doesn't take what he asked for is dropped in time, and so is the member (H73)."""
    proxy = both_ways(serve, bulk.settings, timeouts={"write": "500ms"})
    first_visit(proxy)
    before, memory = proxy.descriptors(), proxy.forget_peak()
    clients = [trust.wrap_socket(connect(proxy), server_hostname=NAME), connect(proxy, 1)]
    for client in clients:
        client.sendall(request("/3000"))
    until(lambda: bulk.moved > 0, "the member sends")
    until(lambda: proxy.descriptors() <= before, "they are dropped")
    assert bulk.broken.wait(PATIENCE)
    assert bulk.moved < 2 * 50 * MIB
    assert proxy.memory("VmHWM") - memory < 5 * MIB
    for client in clients:
        client.close()


# --- hasty clients -------------------------------------------------------------------------------


def hurry(proxy: Proxy, times: int, trust: ssl.SSLContext) -> None:
    """Connections that end at once, in every way."""
    hello = b"\x16\3\1\2\0\1\0\1\xfc\3\3" + bytes(100)
    for number in range(times):
        client = connect(proxy)
        if number % 3 == 1:
            client.sendall(hello[: number % len(hello)])
        if number % 2:
            reset(client)
        else:
            client.close()
        client = connect(proxy, 1)
        client.sendall(request("/hasty")[: number % 60])
        reset(client)
    for number in range(times // 20):
        secured = trust.wrap_socket(connect(proxy), server_hostname=NAME)
        secured.sendall(request("/hasty")[: number % 60])
        reset(secured)


def test_hasty_clients(
    serve: Launcher, members: Members, dial: Dial, trust: ssl.SSLContext
) -> None:
    """Thousands that come and go at once leave no descriptor, no memory, no word (H72, H92)."""
    member = members("server1")
    proxy = both_ways(serve, member)
    clean = dial(proxy)
    assert is_served(clean)
    hurry(proxy, 400, trust)
    assert is_served(clean)
    member.stop()
    member.start()
    until(lambda: proxy.descriptors() < 30, "the connections are closed")
    before, memory, said = proxy.descriptors(), proxy.memory(), proxy.stderr()
    hurry(proxy, 1500, trust)
    assert is_served(clean)
    member.stop()
    until(lambda: proxy.descriptors() <= before, "the connections are closed")
    assert proxy.memory() - memory < 4 * MIB
    assert proxy.stderr() == said


# --- malformed requests --------------------------------------------------------------------------

POST = b"POST /evil HTTP/1.1\r\nHost: a\r\n"
GET = b"GET /evil HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
MALFORMED = [
    # lengths that contradict each other, or are none (H1 to H4)
    POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + NEXT,
    POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + NEXT,
    POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello" + NEXT,
    POST + b"Content-Length: 5, 5\r\n\r\nhello" + NEXT,
    POST + b"Content-Length: +5\r\n\r\nhello" + NEXT,
    POST + b"Content-Length: 0x5\r\n\r\nhello" + NEXT,
    POST + b"Content-Length: 5_0\r\n\r\nhello" + NEXT,
    POST + b"Content-Length: \xd9\xa5\r\n\r\nhello" + NEXT,
    POST + b"Content-Length:\r\n\r\n" + NEXT,
    POST + b"Content-Length: 99999999999999999999\r\n\r\n" + NEXT,
    POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + NEXT,
    POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + NEXT,
    POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + NEXT,
    POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + NEXT,
    # chunks (H5 to H8)
    CHUNKED + b"-1\r\n" + NEXT,
    CHUNKED + b"0x1\r\na\r\n0\r\n\r\n" + NEXT,
    CHUNKED + b"5\r\nhelloX\r\n0\r\n\r\n" + NEXT,
    CHUNKED + b"5\nhello\r\n0\r\n\r\n" + NEXT,
    CHUNKED + b"5;a\rb\r\nhello\r\n0\r\n\r\n" + NEXT,
    CHUNKED + b"ffffffffffffffffff\r\n" + NEXT,
    CHUNKED + b"5;" + b"x" * 100_000,
    CHUNKED + b"0\r\n" + b"a: b\r\n" * 20_000,
    CHUNKED + b"0\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    # field lines (H17 to H21)
    GET + b"X : a\r\n\r\n" + NEXT,
    GET + b": a\r\n\r\n" + NEXT,
    GET + b"no colon\r\n\r\n" + NEXT,
    GET + b"X: a\r\n folded\r\n\r\n" + NEXT,
    GET + b"X: a\0b\r\n\r\n" + NEXT,
    GET + b"X: a\rb\r\n\r\n" + NEXT,
    GET + b"\xe4: a\r\n\r\n" + NEXT,
    GET + b"Host: b\r\n\r\n" + NEXT,
    b"GET /evil HTTP/1.1\r\n\r\n" + NEXT,
    b"GET /evil HTTP/1.1\r\nHost: a/b\r\n\r\n" + NEXT,
    b"GET /evil HTTP/1.1\r\nHost: a b\r\n\r\n" + NEXT,
    b"GET /evil HTTP/1.1\r\nHost: a:99999\r\n\r\n" + NEXT,
    # request lines (H15, H24 to H27)
    b"GET  /evil HTTP/1.1\r\nHost: a\r\n\r\n" + NEXT,
    b"GET /evil\r\nHost: a\r\n\r\n" + NEXT,
    b"GET /evil HTTP/2.0\r\nHost: a\r\n\r\n" + NEXT,
    b"GET /evil HTTP/1.1 \r\nHost: a\r\n\r\n" + NEXT,
    b"G@T /evil HTTP/1.1\r\nHost: a\r\n\r\n" + NEXT,
    b"GET /evil%2 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /evil#fragment HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /../../evil HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /evil%00 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET evil HTTP/1.1\r\nHost: a\r\n\r\n",
    b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"TRACE /evil HTTP/1.1\r\nHost: a\r\nCookie: secret\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /evil HTTP/1.1\nHost: a\n\n" + NEXT,
    b"\r\n" * 100 + NEXT,
    b"\0" * 100 + b"\r\n\r\n" + NEXT,
    # what is too large (H33, H34)
    b"GET /evil?" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"G" * 100_000,
    GET + b"X: " + b"x" * 100_000 + b"\r\n\r\n",
    GET + b"x" * 100_000,
    GET + b"X: y\r\n" * 1000 + b"\r\n",
    # an expectation nobody knows (H13)
    POST + b"Expect: something\r\nContent-Length: 5\r\n\r\nhello",
]


def test_malformed_requests(serve: Launcher, members: Members, dial: Dial) -> None:
    """Each is refused, nothing behind it is served, and the next client is not bothered (P6)."""
    member = members("server1")
    proxy = both_ways(serve, member)
    clean = dial(proxy)
    for data in MALFORMED:
        client = dial(proxy, frontend=1)
        client.send(data)
        response = client.read_response(b"GET")
        status = int(response.status_line[9:12] or b"0")
        assert 400 <= status <= 505, data[:200]
        assert status != 500, data[:200]
        assert b"secret" not in response.body
        if data.endswith(NEXT):
            assert client.wait_closed(PATIENCE), data[:200]
        client.close()
        assert is_served(clean)
    assert seen_by(member, path=b"/smuggled") == []
    # Of a body whose chunks turn out malformed the member may have seen the beginning.
    assert not any(seen.complete for seen in seen_by(member, path=b"/evil"))
    assert "in error" not in proxy.stderr()


# --- clients that break off anywhere -------------------------------------------------------------


@pytest.fixture
async def demo(free_port: Callable[[], int]) -> AsyncIterator[DemoMember]:
    """A member that repeats what it was asked."""
    member = DemoMember("server1", free_port())
    await member.start()
    yield member
    await member.stop()


async def read_answer(reader: asyncio.StreamReader) -> bytes:
    """A response with a length, whole."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return head + await reader.readexactly(int(length))


async def clean_visit(proxy: Proxy, token: str) -> None:
    """A client whose answers must be its own."""
    reader, writer = await asyncio.open_connection(*proxy.address(1))
    for number in range(4):
        method, body = ("POST", b"x" * 30_000) if number % 2 else ("GET", None)
        target = f"/headers?{token}-{number}"
        writer.write(request(target, method=method, body=body))
        answer = await asyncio.wait_for(read_answer(reader), PATIENCE)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert f'"request": "{method} {target} HTTP/1.1"'.encode() in answer
    writer.close()
    await writer.wait_closed()


ABORTED = [
    (request("/upload", "Content-Length: 100000", method="POST") + bytes(40_000), 0),
    (request("/upload", "Transfer-Encoding: chunked", method="POST") + b"ffff\r\n" + bytes(900), 0),
    (request("/download?size=3m"), 1000),
    (request("/download?size=3m&chunked=1"), 200_000),
    (request("/headers?a") + request("/download?size=1m") + request("/headers?b"), 10),
    (request("/slow?seconds=5"), 0),
    (request("/headers")[:30], 0),
    (b"garbage\r\n\r\n", 5),
]


async def rude_visit(proxy: Proxy, kind: int, chance: random.Random) -> None:
    """A client that breaks off."""
    data, wanted = ABORTED[kind]
    reader, writer = await asyncio.open_connection(*proxy.address(1))
    writer.write(data)
    try:
        await asyncio.wait_for(reader.readexactly(wanted), PATIENCE)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    await asyncio.sleep(chance.random() / 50)
    if chance.random() < 0.5:
        writer.transport.abort()
    else:
        writer.close()


async def test_answers_are_never_mixed_up(serve: Launcher, demo: DemoMember) -> None:
    """Clients that break off anywhere leave no byte for the next user of a connection (H81, P6)."""
    proxy = both_ways(serve, {"url": demo.address, "route": "server1"})
    first_visit(proxy)
    before = proxy.descriptors()
    chance = random.Random(5)

    async def worker(number: int) -> None:
        for step in range(20):
            if chance.random() < 0.5:
                await rude_visit(proxy, chance.randrange(len(ABORTED)), chance)
            else:
                await clean_visit(proxy, f"{number}-{step}")

    await asyncio.gather(*[worker(number) for number in range(16)])
    await clean_visit(proxy, "last")
    assert "in error" not in proxy.stderr()
    await demo.stop()
    await until_async(lambda: proxy.descriptors() <= before, "all connections are closed")
