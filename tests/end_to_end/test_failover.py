"""Members die, hang and return: nobody pays but the requests that were under way with them."""

import asyncio
import hashlib
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.cookies import SimpleCookie
from typing import NamedTuple

import pytest
from aiohttp import ClientSession
from yarl import URL

from tests.end_to_end.conftest import (
    HOST,
    NAME,
    ROOT,
    Browser,
    Dial,
    Launcher,
    Members,
    Proxy,
    Yaml,
    fields_of,
    request,
    seen_by,
    settings_of,
    until,
)
from tests.end_to_end.raw_client import End, RawClient, Response
from tests.end_to_end.recording_member import Do, RecordingMember, Script, Step, answer

pytestmark = pytest.mark.slow

OK = b"HTTP/1.1 200 OK"


class Turns(list[Step]):
    """A script that is another one each time it is played; the last one stays."""

    def __init__(self, *scripts: Script) -> None:
        super().__init__([0.0])
        self._scripts = [*scripts]

    def __iter__(self) -> Iterator[Step]:
        return iter(self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0])


def cookie(route: str) -> str:
    """The session cookie as a client sends it."""
    return f"Cookie: BALANCEME=balancer.{route}"


def ask(client: RawClient, data: bytes) -> Response:
    """One exchange on an open connection."""
    client.send(data)
    return client.read_response(data.partition(b" ")[0])


def session_of(browser: ClientSession, route: str) -> ClientSession:
    """A client that belongs to a route since an earlier visit."""
    known = SimpleCookie(f"BALANCEME=balancer.{route}; path=/; domain=example.org")
    browser.cookie_jar.update_cookies(known, URL(f"https://{NAME}/"))
    return browser


# --- refused -------------------------------------------------------------------------------------

Demo = Callable[[str], tuple["subprocess.Popen[bytes]", Yaml]]


@pytest.fixture
def demo(free_port: Callable[[], int]) -> Iterator[Demo]:
    """Starts demo members as processes of their own; gives each with its settings."""
    processes = []

    def start(name: str) -> tuple["subprocess.Popen[bytes]", Yaml]:
        port = free_port()
        words = ["proxy.lab.demo_server", "--name", name, "--port", str(port)]
        process = subprocess.Popen([sys.executable, "-m", *words], cwd=ROOT, stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout is not None
        assert b"listens" in process.stdout.readline()
        return process, {"url": f"http://{HOST}:{port}", "route": name}

    yield start
    for process in processes:
        process.kill()
        process.communicate()


async def test_sessions_of_a_killed_member_go_on(
    serve: Launcher, demo: Demo, browser: Browser
) -> None:
    """Once a member is killed its sessions move, POST with its body too (F1 to F3, H87)."""
    (victim, one), (_, two) = demo("server1"), demo("server2")
    proxy = serve(one, two)
    sessions = [browser(proxy) for _ in range(10)]
    homes = []
    for session in sessions:
        async with session.get("/webaccess/") as response:
            homes.append(response.headers["X-Member"])
    assert sorted(homes) == ["server1"] * 5 + ["server2"] * 5
    victim.kill()
    victim.wait()
    body = bytes(range(256)) * 1000

    async def upload(session: ClientSession) -> str:
        async with session.post("/upload", data=body) as response:
            assert response.status == 200
            assert response.headers["X-Member"] == "server2"
            assert response.cookies["BALANCEME"].value == "balancer.server2"
            return await response.text()

    for text in await asyncio.gather(*[upload(session) for session in sessions]):
        assert f"{len(body)} bytes, sha256 {hashlib.sha256(body).hexdigest()}" in text
    for session in sessions:
        async with session.get("/webaccess/") as response:
            assert response.headers["X-Member"] == "server2"
    lines = proxy.access_lines(30)
    moved = [line for line in lines if " session=moved route=server1 member=server2 " in line]
    kept = [line for line in lines if " session=kept route=server2 member=server2 " in line]
    assert (len(moved), len(kept)) == (5, 15)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_bodies_of_every_size_move(
    chunked: bool, serve: Launcher, members: Members, dial: Dial
) -> None:
    """A body arrives whole at the second member, however long and however framed (F3, F13)."""
    server1, server2 = members.stopped("server1"), members("server2")
    # Without a retry time the dead member is asked each time.
    client = dial(serve(settings_of(server1) | {"retry_after": 0}, server2))
    sizes = [1, 16303, 16304, 16305, 300_000]
    for size in sizes:
        body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        if chunked:
            framed = b"%x\r\n%b\r\n0\r\n\r\n" % (size, body)
            data = request("/", cookie("server1"), "Transfer-Encoding: chunked", method="POST")
            response = ask(client, data + framed)
        else:
            response = ask(client, request("/", cookie("server1"), method="POST", body=body))
        assert response.body == b"server2"
        assert fields_of(response.fields, "set-cookie")[0].startswith("BALANCEME=balancer.server2")
        assert server2.record.seen[-1].body == body
    assert len(server2.record.seen) == len(sizes)


def test_expected_continue_moves(serve: Launcher, members: Members, dial: Dial) -> None:
    """A client that waits for 100 Continue gets it from the second member (F3)."""
    server2 = members("server2")
    client = dial(serve(members.stopped("server1"), server2))
    fields = [cookie("server1"), "Content-Length: 5", "Expect: 100-continue"]
    client.send(request("/", *fields, method="POST"))
    assert client.wait_interim() == [b"HTTP/1.1 100 Continue"]
    client.send(b"hello")
    assert client.read_response(b"POST").body == b"server2"
    assert [seen.body for seen in seen_by(server2)] == [b"hello"]


def test_member_in_error_is_left_alone(serve: Launcher, members: Members, dial: Dial) -> None:
    """Until its retry time has passed nobody tries a member that failed (F6, H88)."""
    server1, server2 = members.stopped("server1"), members("server2")
    proxy = serve(server1, server2)
    client = dial(proxy)
    assert ask(client, request("/", cookie("server1"))).body == b"server2"
    server1.start()
    for _ in range(20):
        assert ask(client, request("/", cookie("server1"))).body == b"server2"
        assert ask(client, request("/")).body == b"server2"
    assert seen_by(server1) == []
    assert [" attempts=2 " in line for line in proxy.access_lines(41)] == [True] + [False] * 40
    assert proxy.stderr().count("in error for 60 s: connection refused") == 1


async def test_member_returns(serve: Launcher, members: Members, browser: Browser) -> None:
    """A member that is back gets new sessions after its retry time; moved ones stay (F6, H57)."""
    server1, server2 = members.stopped("server1"), members("server2")
    proxy = serve(settings_of(server1) | {"retry_after": "300ms"}, server2)
    moved = session_of(browser(proxy), "server1")
    async with moved.get("/") as response:
        assert await response.text() == "server2"
    server1.start()
    served = ""
    for _ in range(1000):
        async with browser(proxy).get("/") as response:
            served = await response.text()
        if served == "server1":
            break
        await asyncio.sleep(0.01)
    assert served == "server1"
    for _ in range(5):
        async with moved.get("/") as response:
            assert await response.text() == "server2"


def test_all_members_down(serve: Launcher, members: Members, dial: Dial) -> None:
    """503 with Retry-After while nobody is there, an answer as soon as one is (F7, D25, H89)."""
    server1, server2 = members.stopped("server1"), members.stopped("server2")
    proxy = serve(server1, server2)
    for fields in ([], [cookie("server1")], [cookie("server9")]):
        for method in ("GET", "POST"):
            response = ask(dial(proxy), request("/", *fields, method=method))
            assert response.status_line == b"HTTP/1.1 503 Service Unavailable"
            assert int(fields_of(response.fields, "retry-after")[0]) > 0
            assert fields_of(response.fields, "set-cookie") == []
    server2.start()
    assert ask(dial(proxy), request("/", cookie("server2"))).body == b"server2"
    response = ask(dial(proxy), request("/", cookie("server1")))
    assert response.body == b"server2"
    assert fields_of(response.fields, "set-cookie")[0].startswith("BALANCEME=balancer.server2;")


def test_no_failover(serve: Launcher, members: Members, dial: Dial) -> None:
    """With no_failover a session waits for its member, with its cookie untouched (F9)."""
    server1, server2 = members.stopped("server1"), members("server2")
    first = settings_of(server1) | {"retry_after": 0}
    proxy = serve(first, server2, balancer={"no_failover": True})
    response = ask(dial(proxy), request("/", cookie("server1")))
    assert response.status_line == b"HTTP/1.1 503 Service Unavailable"
    assert fields_of(response.fields, "set-cookie") == []
    assert ask(dial(proxy), request("/")).body == b"server2"
    server1.start()
    assert ask(dial(proxy), request("/", cookie("server1"))).body == b"server1"


def test_who_stands_in(serve: Launcher, members: Members, dial: Dial) -> None:
    """Sessions follow the redirect route; a standby serves when nobody else can (S13, B2)."""
    server1, server2, server3 = (
        members.stopped("server1"),
        members("server2"),
        members("server3"),
    )
    proxy = serve(
        settings_of(server1) | {"redirect_route": "server3"},
        server2,
        settings_of(server3) | {"hot_standby": True},
    )
    client = dial(proxy)
    for _ in range(3):
        response = ask(client, request("/", cookie("server1")))
        assert response.body == b"server3"
        assert fields_of(response.fields, "set-cookie")[0].startswith("BALANCEME=balancer.server3;")
    assert {ask(client, request("/")).body for _ in range(5)} == {b"server2"}
    server2.stop()
    assert {ask(client, request("/")).body for _ in range(5)} == {b"server3"}


def test_full_member(serve: Launcher, members: Members, dial: Dial) -> None:
    """Who finds no free connection in time goes elsewhere, and nobody is in error for it (F12)."""
    busy = members("server1", {b"/wait": [Do.READ_BODY, Do.WAIT_CLOSE]})
    limits = {"max_connections": 1, "acquire_timeout": "100ms"}
    proxy = serve(settings_of(busy) | limits, members("server2"))
    first = dial(proxy)
    first.send(request("/wait", cookie("server1")))
    until(lambda: seen_by(busy), "the first request arrives")
    second = dial(proxy)
    assert ask(second, request("/", cookie("server1"))).body == b"server2"
    first.close()
    until(lambda: seen_by(busy)[0].aborted, "the first request is given up")
    assert ask(second, request("/", cookie("server1"))).body == b"server1"
    assert "in error" not in proxy.stderr()


# --- a member that neither accepts nor refuses ---------------------------------------------------


@pytest.fixture
def black_hole() -> Iterator[Yaml]:
    """A member that lets every connection attempt wait: its backlog is full, nobody accepts."""
    fillers = []
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen(0)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        yield {"url": f"http://{HOST}:{listener.getsockname()[1]}", "route": "server1"}
    for filler in fillers:
        filler.close()


async def test_black_hole(
    serve: Launcher, members: Members, browser: Browser, black_hole: Yaml
) -> None:
    """A member that can't be reached costs one connect timeout, and others nothing (H88)."""
    server2 = members("server2")
    proxy = serve(black_hole, server2, balancer={"timeouts": {"connect": "1s"}})
    events = []

    async def visit(name: str, route: str) -> None:
        async with session_of(browser(proxy), route).post("/", data=name.encode()) as response:
            assert response.status == 200
            assert await response.text() == "server2"
            assert response.cookies["BALANCEME"].value == "balancer.server2"
        events.append(name)

    unlucky = asyncio.create_task(visit("unlucky", "server1"))
    for number in range(5):
        await visit(f"other{number}", "server2")
    assert events == [f"other{number}" for number in range(5)]
    await unlucky
    await visit("later", "server1")
    assert sorted(seen.body for seen in seen_by(server2)) == sorted(
        event.encode() for event in events
    )
    lines = proxy.access_lines(7)
    assert [" attempts=2 " in line for line in lines] == [False] * 5 + [True, False]


# --- under way -----------------------------------------------------------------------------------

TRUNCATED: dict[bytes, Script] = {
    b"/length": [OK + b"\r\nContent-Length: 1000\r\n\r\na part", Do.CLOSE],
    b"/chunked": [OK + b"\r\nTransfer-Encoding: chunked\r\n\r\n6\r\na part\r\n", Do.CLOSE],
    b"/in-a-chunk": [OK + b"\r\nTransfer-Encoding: chunked\r\n\r\nff\r\na part", Do.CLOSE],
    b"/until-close": [OK + b"\r\n\r\na part", 0.02, Do.RESET],
}


BAD_ANSWERS = [
    b"garbage\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    OK + b"\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    OK + b"\r\nContent-Length: -1\r\n\r\n",
    OK + b"\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    OK + b"\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    OK + b"\r\nTransfer-Encoding: gzip\r\n\r\n",
    OK + b"\r\nno colon\r\nContent-Length: 0\r\n\r\n",
    OK + b"\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
]


UNASKED: dict[bytes, Script] = {
    b"/at-once": [answer(b"not asked")],
    b"/soon": [0.002, answer(b"not asked")],
    b"/later": [0.02, b"not even an answer"],
    b"/no-body": [b"HTTP/1.1 204 No Content\r\n\r\nnot asked"],
}


class Site(NamedTuple):
    """A proxy before a member that does everything wrong, and one that is never needed."""

    proxy: Proxy
    server1: RecordingMember
    server2: RecordingMember

    def check_nobody_is_to_blame(self, dial: Dial) -> None:
        """The member serves its session on: it was the fault of one response only."""
        client = dial(self.proxy)
        assert ask(client, request("/fine", cookie("server1"))).body == b"server1"
        assert seen_by(self.server2) == []
        assert "in error" not in self.proxy.stderr()


@pytest.fixture(scope="module")
def site(serve_all: Launcher, members_all: Members) -> Site:
    """A site for the tests after which both members are as before."""
    scripts = {**TRUNCATED, b"/silent": [Do.READ_BODY, Do.WAIT_CLOSE]}
    for number, data in enumerate(BAD_ANSWERS):
        scripts[b"/%d" % number] = [data, Do.CLOSE]
    scripts |= {path: [answer(b"asked"), *more] for path, more in UNASKED.items()}
    both = members_all("server1", scripts), members_all("server2")
    return Site(serve_all(*both, balancer={"timeouts": {"response": "200ms"}}), *both)


@pytest.mark.parametrize("path", TRUNCATED, ids=lambda path: path[1:].decode())
def test_truncation_is_visible(path: bytes, site: Site, dial: Dial) -> None:
    """Who got a part of a response can tell that the rest is missing (P24, H59)."""
    response = ask(dial(site.proxy), request(path, cookie("server1")))
    assert response.status_line == OK
    assert response.body == b"a part"
    assert response.end is End.TRUNCATED
    site.check_nobody_is_to_blame(dial)


@pytest.mark.parametrize("secure", [True, False], ids=["tls", "plain"])
def test_truncation_is_visible_to_old_clients(
    secure: bool, serve: Launcher, members: Members, trust: ssl.SSLContext
) -> None:
    """An HTTP/1.0 client, which reads until close, sees that the stream was cut (H59)."""
    member = members("server1", TRUNCATED)
    proxy = serve(member, frontend=None if secure else {"tls": None})
    client = socket.create_connection(proxy.address(), timeout=5)
    if secure:
        client = trust.wrap_socket(client, server_hostname=NAME, suppress_ragged_eofs=False)
    with client:
        client.sendall(b"GET /until-close HTTP/1.0\r\nHost: %b\r\n\r\n" % NAME.encode())
        got = b""
        with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):  # noqa: PT012
            while data := client.recv(4096):
                got += data
    assert got.endswith(b"a part")


@pytest.mark.parametrize("end", [Do.CLOSE, Do.RESET], ids=["close", "reset"])
def test_request_under_way_is_lost_once(
    end: Do, serve: Launcher, members: Members, dial: Dial
) -> None:
    """A request that reached a member which then dies: 502, and it is sent to nobody else (F1)."""
    both = [members(f"server{number}", {b"/": [Do.READ_BODY, end]}) for number in (1, 2)]
    proxy = serve(*both)
    for method in ("GET", "POST"):
        response = ask(dial(proxy), request("/", cookie("server1"), method=method, body=b"mail"))
        assert response.status_line == b"HTTP/1.1 502 Bad Gateway"
    assert len(seen_by(*both)) == 2
    assert "in error" not in proxy.stderr()


def test_upload_under_way_is_lost_once(serve: Launcher, members: Members, dial: Dial) -> None:
    """A member that dies while it gets a body: 502, and no second try (F1, D67)."""
    both = [members(f"server{number}", {b"/": [Do.LEAVE_BODY, Do.RESET]}) for number in (1, 2)]
    proxy = serve(*both)
    response = ask(dial(proxy), request("/", method="POST", body=bytes(1_000_000)))
    assert response.status_line == b"HTTP/1.1 502 Bad Gateway"
    assert len(seen_by(*both)) == 1


def test_silent_member(site: Site, dial: Dial) -> None:
    """A member that says nothing in time: 504, no second try, no error for others (F1, H65)."""
    response = ask(dial(site.proxy), request("/silent", cookie("server1")))
    assert response.status_line == b"HTTP/1.1 504 Gateway Timeout"
    (seen,) = seen_by(site.server1, path=b"/silent")
    until(lambda: seen.aborted, "the member's connection is closed")
    site.check_nobody_is_to_blame(dial)


def test_malformed_answers(site: Site, dial: Dial) -> None:
    """A malformed answer is a 502 for its request alone: the member stays in use (H58, H67)."""
    for number, data in enumerate(BAD_ANSWERS):
        response = ask(dial(site.proxy), request(f"/{number}", cookie("server1")))
        assert response.status_line == b"HTTP/1.1 502 Bad Gateway", data
        site.check_nobody_is_to_blame(dial)


@pytest.mark.parametrize("path", UNASKED, ids=lambda path: path[1:].decode())
def test_unasked_answers_are_nobodys(path: bytes, site: Site, dial: Dial) -> None:
    """What a member sends without being asked ends its connection and reaches no client (H60)."""
    for _ in range(20):
        client = dial(site.proxy)
        response = ask(client, request(path, cookie("server1")))
        assert response.body == b"asked"
        until(site.server1.record.settled, "the member has sent it all")
        response = ask(client, request("/fine", cookie("server1")))
        assert response.body == b"server1"
        client.close()
    site.check_nobody_is_to_blame(dial)


# --- kept connections that are gone --------------------------------------------------------------


class Closing(RecordingMember):
    """Tells when it has closed a connection."""

    closed = threading.Semaphore(0)

    def _serve(self, connection: socket.socket, number: int) -> None:
        super()._serve(connection, number)
        self.closed.release()


@pytest.mark.parametrize("end", [Do.CLOSE, Do.RESET], ids=["close", "reset"])
def test_member_closes_kept_connections(
    end: Do, serve: Launcher, free_port: Callable[[], int], dial: Dial
) -> None:
    """A member that closes after each answer costs no error, and no second POST (F17, H60)."""
    script: dict[bytes, Script] = {b"*": [answer(b"fine"), end]}
    with Closing("server1", HOST, free_port(), scripts=script) as member:
        client = dial(serve(member))
        for number in range(100):
            for method, body in (("GET", None), ("POST", b"%d" % number)):
                response = ask(client, request(f"/{number}", method=method, body=body))
                assert response.body == b"fine"
                assert member.closed.acquire(timeout=5)
        targets = [(seen.lines[0].split()[0], seen.target) for seen in seen_by(member)]
    assert targets == [
        (method, b"/%d" % number) for number in range(100) for method in (b"GET", b"POST")
    ]


def test_kept_connection_dies_with_the_request(
    serve: Launcher, members: Members, dial: Dial
) -> None:
    """A kept connection that dies: GET is sent once more, POST never (H69, D68, D71)."""
    member = members("server1")
    proxy = serve(member)
    for method, status, times in (
        ("GET", b"HTTP/1.1 200 OK", 2),
        ("POST", b"HTTP/1.1 502 Bad Gateway", 1),
    ):
        path = f"/{method}"
        member.scripts[path.encode()] = Turns([Do.CLOSE], [answer(b"fine")])
        client = dial(proxy)
        assert ask(client, request("/")).body == b"server1"
        response = ask(client, request(path, method=method, body=b"" if times == 1 else None))
        assert response.status_line == status
        assert len(seen_by(member, path=path.encode())) == times
    assert ask(dial(proxy), request("/", method="POST", body=b"again")).body == b"server1"


# --- restarts under load -------------------------------------------------------------------------


def test_restart_under_load(serve: Launcher, members: Members, dial: Dial) -> None:
    """A member that is restarted under load costs no more than the requests on it (H90)."""
    first, second = members("server1"), members("server2")
    proxy = serve(settings_of(first) | {"retry_after": "1s"}, second)
    clients = [dial(proxy) for _ in range(8)]
    failed: list[Response] = []
    served: list[Response] = []
    stop = threading.Event()

    def visit(client: RawClient) -> None:
        while not stop.is_set():
            response = ask(client, request("/", cookie("server1")))
            good = response.status_line == OK and response.end is End.COMPLETE
            (served if good else failed).append(response)
            if response.end is End.NOTHING or response.value(b"connection") == b"close":
                client = dial(proxy)

    threads = [threading.Thread(target=visit, args=[client]) for client in clients]
    for thread in threads:
        thread.start()
    until(lambda: len(served) > 100, "the load is on")
    first.stop()
    here = len(served)
    until(lambda: len(served) > here + 100, "the other one takes over")
    first.start()
    here = len(seen_by(first))
    until(lambda: len(seen_by(first)) > here + 50, "its sessions are back")
    stop.set()
    for thread in threads:
        thread.join()
    assert len(failed) <= len(clients)
