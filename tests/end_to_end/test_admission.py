"""Who is let in, and what is known of them: numbers, descriptors, PROXY preambles, signatures."""

import resource
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest

from proxy.core.proxy_protocol import Ends, binary, line, missing, read
from tests.end_to_end.conftest import (
    HOST,
    NAME,
    PATIENCE,
    Dial,
    Launcher,
    Members,
    Proxy,
    connect,
    fields_of,
    is_served,
    request,
    seen_by,
    until,
)
from tests.end_to_end.recording_member import Do

pytestmark = pytest.mark.slow

CLIENT = Ends("198.51.100.7", 40000, "203.0.113.5", 443)
CLIENT_V6 = Ends("2001:db8::7", 40000, "2001:db8::5", 443)


def is_refused(client: socket.socket) -> bool:
    """Whether a connection is closed without a byte."""
    with client:
        try:
            return client.recv(1) == b""
        except ConnectionResetError:
            return True


def limit_files(proxy: Proxy, most: int) -> None:
    """Let the proxy open this many files at most."""
    _, hard = resource.prlimit(proxy.worker, resource.RLIMIT_NOFILE)
    resource.prlimit(proxy.worker, resource.RLIMIT_NOFILE, (most, hard))


# --- numbers -------------------------------------------------------------------------------------


def test_max_connections(serve: Launcher, members: Members, dial: Dial) -> None:
    """Beyond max_connections clients are refused at once; those that are there go on (H39)."""
    proxy = serve(members("server1"), max_connections=3)
    clients = [dial(proxy) for _ in range(3)]
    assert all(is_served(client) for client in clients)
    for _ in range(20):
        assert is_refused_at_once(proxy)
    assert all(is_served(client) for client in clients)
    clients.pop().close()
    until(lambda: not is_refused_at_once(proxy), "there is room again")
    assert proxy.stderr().count("connections refused: max_connections allows this worker 3") == 1


def is_refused_at_once(proxy: Proxy) -> bool:
    """Whether a new connection is closed within a moment."""
    try:
        with connect(proxy) as client:
            client.settimeout(0.2)
            return client.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


def test_handshakes_count(serve: Launcher, members: Members, dial: Dial) -> None:
    """A connection counts from its first packet on, and no more once its handshake failed (H39)."""
    proxy = serve(members("server1"), max_connections=2)
    silent = [connect(proxy), connect(proxy)]
    assert is_refused_at_once(proxy)
    silent[0].sendall(b"no TLS at all\r\n\r\n")
    silent[1].close()
    until(lambda: not is_refused_at_once(proxy), "there is room again")
    assert is_served(dial(proxy))
    silent[0].close()


def test_no_descriptor_left(serve: Launcher, members: Members, dial: Dial) -> None:
    """Without a descriptor accepting pauses, which is said once, and goes on by itself (H39)."""
    member = members("server1")
    proxy = serve(member, max_connections=10_000)
    clean = dial(proxy)
    assert is_served(clean)
    most = proxy.descriptors() + 20
    limit_files(proxy, most)
    crowd = [connect(proxy) for _ in range(60)]
    until(lambda: "accepting pauses" in proxy.stderr(), "it is said")
    for _ in range(5):
        assert is_served(clean)
    for client in crowd:
        client.close()
    until(lambda: "accepted again" in proxy.stderr(), "it goes on")
    assert is_served(dial(proxy))
    said = proxy.stderr()
    assert said.count("accepting pauses") == 1
    assert said.count("accepted again") == 1
    assert "in error" not in said


def test_no_descriptor_for_a_member(serve: Launcher, members: Members, dial: Dial) -> None:
    """Our own lack of descriptors is no fault of a member's: 503, and it stays in use (H39)."""
    proxy = serve(members("server1"), max_connections=10_000)
    first, second = dial(proxy), dial(proxy)
    most = proxy.descriptors()
    limit_files(proxy, most)
    first.send(request("/"))
    assert first.read_response(b"GET").status_line.startswith(b"HTTP/1.1 503 ")
    limit_files(proxy, most + 10)
    assert is_served(second)
    assert "in error" not in proxy.stderr()


# --- PROXY preambles from proxies before us ------------------------------------------------------


@pytest.fixture(scope="module")
def announced(serve_all: Launcher, members_all: Members) -> Proxy:
    """A TLS frontend and a plain one behind a proxy that announces clients."""
    member = members_all("server1")
    mapping = {"path": "/", "balancer": "cluster"}
    frontends = [
        serve_all.frontend(mapping, tls=tls)
        | {"proxy_protocol": [HOST], "timeouts": {"head": "1s", "handshake": "1s"}}
        for tls in (True, False)
    ]
    return serve_all.run(
        {
            "frontends": frontends,
            "balancers": {"cluster": {"members": [{"url": f"http://{member.authority.decode()}"}]}},
            "max_connections_per_address": 2,
        }
    )


def secured(raw: socket.socket, trust: ssl.SSLContext | None) -> socket.socket:
    """The connection, after a handshake if it is to be secured."""
    return trust.wrap_socket(raw, server_hostname=NAME) if trust else raw


@pytest.mark.parametrize("write", [line, binary], ids=["v1", "v2"])
@pytest.mark.parametrize("ends", [CLIENT, CLIENT_V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_announced_client(
    write: object, ends: Ends, announced: Proxy, trust: ssl.SSLContext, *, tls: bool
) -> None:
    """Members and log get the client that the preamble tells of, before TLS or HTTP (H45)."""
    assert callable(write)
    raw = connect(announced, 0 if tls else 1)
    for byte in write(ends):
        raw.sendall(bytes([byte]))
    with secured(raw, trust if tls else None) as client:
        client.sendall(request("/announced", "X-Forwarded-For: 192.0.2.66", "Connection: close"))
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200 ")
    until(lambda: f"{ends.source} - - " in announced.stdout(), "it is logged")


def test_proxys_own_connection(announced: Proxy) -> None:
    """A check by the proxy before us is served as its own, in one packet with its preamble."""
    with connect(announced, 1) as client:
        client.sendall(b"PROXY UNKNOWN\r\n" + request("/check"))
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "data",
    [request("/"), b"PROXY TCP4 1 2 3 4\r\n" + request("/"), b"\x16\3\1\2\0\1\0\1\xfc\3\3"],
    ids=["none", "malformed", "TLS"],
)
@pytest.mark.parametrize("frontend", [0, 1])
def test_without_valid_preamble(data: bytes, frontend: int, announced: Proxy) -> None:
    """Who has to announce clients and doesn't is closed, unheard (H45)."""
    client = connect(announced, frontend)
    client.sendall(data)
    assert is_refused(client)


def test_slow_preamble(announced: Proxy) -> None:
    """A preamble that doesn't come is waited for no longer than a head (H70)."""
    client = connect(announced)
    client.sendall(b"PROXY ")
    assert is_refused(client)


def test_announced_clients_are_counted(announced: Proxy) -> None:
    """The limit for one address counts the announced clients, not the proxy before us (H39)."""
    busy = Ends("198.51.100.99", 1, "203.0.113.5", 443)
    clients = []
    for _ in range(2):
        client = connect(announced, 1)
        client.sendall(line(busy) + request("/"))
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        clients.append(client)
    third = connect(announced, 1)
    third.sendall(line(busy) + request("/"))
    assert is_refused(third)
    with connect(announced, 1) as other:
        other.sendall(line(busy._replace(source="198.51.100.98")) + request("/"))
        assert other.recv(65536).startswith(b"HTTP/1.1 200 ")
    for client in clients:
        client.close()
    assert "max_connections_per_address is 2" in announced.stderr()


def test_preamble_of_others(serve: Launcher, members: Members) -> None:
    """A preamble from anybody else is no HTTP, and believed by nobody (H45)."""
    member = members("server1")
    proxy = serve(member, frontend={"tls": None, "proxy_protocol": ["192.0.2.0/24"]})
    with connect(proxy) as client:
        client.sendall(line(CLIENT) + request("/forged"))
        assert client.recv(65536).startswith(b"HTTP/1.1 400 ")
    assert seen_by(member, path=b"/forged") == []


# --- PROXY preambles to members ------------------------------------------------------------------


class AnnouncedMember:
    """A member that wants a preamble on each connection, and keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[Ends | None] = []
        self.socket = socket.create_server((HOST, 0))
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(PATIENCE)
                preamble = b""
                while count := missing(preamble):
                    preamble += connection.recv(count)
                self.told.append(read(preamble))
                data = b""
                while b"\r\n\r\n" not in data:
                    data += connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nserver1")
                connection.recv(1)

    def stop(self) -> None:
        """End it."""
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(PATIENCE)


@pytest.fixture
def told() -> Iterator[AnnouncedMember]:
    """Such a member."""
    member = AnnouncedMember()
    yield member
    member.stop()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_member_is_told(version: str, serve: Launcher, dial: Dial, told: AnnouncedMember) -> None:
    """A member that wants it is told of each client, on a connection that nobody else gets."""
    address = "{}:{}".format(*told.socket.getsockname())
    settings = {"url": f"http://{address}", "route": "server1", "proxy_protocol": version}
    proxy = serve(settings)
    first, second = dial(proxy), dial(proxy)
    assert all(is_served(client) for client in (first, second, first))
    assert len(told.told) == 3
    ends = [ends for ends in told.told if ends is not None]
    assert [end.source for end in ends] == [HOST] * 3
    assert {end.destination_port for end in ends} == {proxy.address()[1]}
    assert ends[0].source_port == ends[2].source_port != ends[1].source_port


# --- clients that leave, and cookies that lie ----------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_departure_of_a_client_that_is_not_read(
    serve: Launcher, members: Members, trust: ssl.SSLContext, *, tls: bool
) -> None:
    """Who has sent too much ahead is not read from, and yet missed within seconds (H66)."""
    member = members("server1", {b"/wait": [Do.WAIT_CLOSE]})
    frontend = {"limits": {"pipelined": "1k"}} | ({} if tls else {"tls": None})
    proxy = serve(member, frontend=frontend)
    client = secured(connect(proxy), trust if tls else None)
    client.sendall(request("/wait") + request("/ahead") * 1000)
    until(lambda: seen_by(member, path=b"/wait"), "the member has the request")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1" + bytes(7))
    client.close()
    until(lambda: " 499 " in proxy.stdout(), "it is noticed", 5)
    assert seen_by(member, path=b"/ahead") == []


def test_signed_cookies(serve: Launcher, members: Members, dial: Dial) -> None:
    """Signed cookies keep their session; forged ones count as none, and are counted (H53)."""
    one, two = members("server1"), members("server2")
    cookie = {"secret": ["a secret of this test", "the secret before it"]}
    proxy = serve(one, two, balancer={"session_cookie": cookie})
    client = dial(proxy)
    client.send(request("/"))
    first = client.read_response(b"GET")
    (value,) = fields_of(first.fields, "set-cookie")
    assert "=balancer.server" in value
    signed = value.partition(";")[0]
    for _ in range(4):
        client.send(request("/", f"Cookie: {signed}"))
        assert client.read_response(b"GET").body == first.body
    forged = signed.partition("~")[0]
    bodies = set()
    for _ in range(16):
        client.send(request("/", f"Cookie: {forged}"))
        bodies.add(client.read_response(b"GET").body)
    assert bodies == {b"server1", b"server2"}
    until(lambda: "without a valid signature" in proxy.stderr(), "it is said")
    assert proxy.stderr().count("without a valid signature") == 1


def test_more_than_there_is_room_for(serve: Launcher, members: Members) -> None:
    """A limit beyond that of open files is told at the start, with what to raise it to (H39)."""
    proxy = serve(members("server1"), max_connections=10_000_000, workers=2)
    assert "max_connections is 10000000, for each worker 5000000, but" in proxy.stderr()
    assert "raise it to 10000064" in proxy.stderr()
