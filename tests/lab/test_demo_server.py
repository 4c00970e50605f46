"""proxy.lab.demo_server: a member over real sockets."""

import asyncio
import hashlib
import socket
import sys
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientConnectionError, ClientSession, CookieJar, DummyCookieJar

from proxy.lab import demo_server
from proxy.lab.demo_server import SESSION_COOKIE, DemoMember

ACTIVESYNC = "/Microsoft-Server-ActiveSync"
PING = ACTIVESYNC + "?Cmd=Ping&User=erika&DeviceId=a1&DeviceType=Phone"


@pytest.fixture
async def member() -> AsyncIterator[DemoMember]:
    """A running member."""
    member = DemoMember("server1", 0)
    await member.start()
    yield member
    await member.stop()


@pytest.fixture
async def client(member: DemoMember) -> AsyncIterator[ClientSession]:
    """A client that keeps no cookies."""
    async with ClientSession(member.address, cookie_jar=DummyCookieJar()) as session:
        yield session


async def raw(member: DemoMember, request: bytes) -> bytes:
    """The answer to raw bytes, up to the end of the connection."""
    reader, writer = await asyncio.open_connection(member.host, member.port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def text(client: ClientSession, path: str, cookie: str = "") -> str:
    """The body of a GET."""
    headers = {"Cookie": f"{SESSION_COOKIE}={cookie}"} if cookie else None
    async with client.get(path, headers=headers) as response:
        return await response.text()


# --- sessions ---


async def test_session_counts_its_requests(member: DemoMember) -> None:
    """A client that returns its cookie sees the counter of its session go up, on both paths."""
    jar = CookieJar(unsafe=True)  # cookies of an IP address
    async with ClientSession(member.address, cookie_jar=jar) as client:
        assert await text(client, "/") == "server1: request 1, new session on server1\n"
        assert await text(client, "/webaccess/") == "server1: request 2 of this session\n"


async def test_session_cookie(client: ClientSession) -> None:
    """A new session gets a cookie for the whole site, a known one gets none."""
    async with client.get("/") as response:
        cookie = response.cookies[SESSION_COOKIE]
    assert cookie["path"] == "/"
    async with client.get("/", headers={"Cookie": f"{SESSION_COOKIE}={cookie.value}"}) as response:
        assert not response.cookies
        assert response.headers["Cache-Control"] == "no-store"


async def test_unknown_session_starts_again(client: ClientSession) -> None:
    """A session of another member starts at 1 here, under a name of this member's."""
    assert "request 1, new session on server1 (yours" in await text(client, "/", cookie="other")


async def test_stop_forgets_sessions(member: DemoMember) -> None:
    """A stopped member refuses connections, and after its start it knows no session."""
    async with ClientSession(member.address) as client:
        async with client.get("/") as response:
            session = response.cookies[SESSION_COOKIE].value
        port = member.port
        await member.stop()
        with pytest.raises(ClientConnectionError):
            await client.get("/")
        await member.start()
        assert member.port == port
        assert "request 1" in await text(client, "/", cookie=session)


async def test_sessions_are_bounded(
    member: DemoMember, client: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the bound the session that was used longest ago is forgotten."""
    monkeypatch.setattr(demo_server, "MAX_SESSIONS", 2)
    member.sessions = {"old": 7, "older": 7}
    assert "request 8 " in await text(client, "/", cookie="old")
    await text(client, "/")
    assert "older" not in member.sessions
    assert member.sessions["old"] == 8


async def test_browser_gets_a_page(client: ClientSession) -> None:
    """Who accepts HTML gets it; the member's name is in it."""
    async with client.get("/", headers={"Accept": "text/html,*/*;q=0.8"}) as response:
        assert response.content_type == "text/html"
        assert "<title>Webmail on server1</title>" in await response.text()


# --- bodies ---


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_upload(client: ClientSession, method: str, chunked: bool) -> None:
    """An upload is counted and hashed, in either framing."""
    body = bytes(range(256)) * 1024

    async def pieces() -> AsyncIterator[bytes]:
        yield body[:1]
        yield body[1:]

    data = pieces() if chunked else body
    async with client.request(method, "/upload", data=data) as response:
        answer = await response.text()
    assert answer == f"server1: 262144 bytes, sha256 {hashlib.sha256(body).hexdigest()}\n"


@pytest.mark.parametrize(("size", "expected"), [("0", 0), ("3", 3), ("200k", 204800)])
async def test_download(client: ClientSession, size: str, expected: int) -> None:
    """A download has as many bytes as asked for, and says so before."""
    async with client.get(f"/download?size={size}") as response:
        assert response.content_length == expected
        assert len(await response.read()) == expected


async def test_chunked_download(client: ClientSession) -> None:
    """A download in chunks doesn't tell its length."""
    async with client.get("/download?size=70000&chunked=1") as response:
        assert response.headers["Transfer-Encoding"] == "chunked"
        assert response.content_length is None
        assert len(await response.read()) == 70000


async def test_head_of_download(client: ClientSession) -> None:
    """HEAD gets the length alone, and the connection goes on."""
    async with client.head("/download?size=20m") as response:
        assert response.content_length == 20 * 1024**2
    assert "request 1" in await text(client, "/")


# --- single answers ---


@pytest.mark.parametrize("absolute", [False, True])
async def test_redirect(member: DemoMember, client: ClientSession, absolute: bool) -> None:
    """A redirect is relative, or names the member's own address as careless servers do."""
    path = f"/redirect?absolute={absolute:d}"
    async with client.get(path, allow_redirects=False) as response:
        assert response.status == 303
        expected = (member.address if absolute else "") + "/webaccess/"
        assert response.headers["Location"] == expected


@pytest.mark.parametrize("status", [200, 204, 304, 401, 449, 503, 599])
async def test_status(client: ClientSession, status: int) -> None:
    """Any status can be had, those that no standard knows included."""
    async with client.get(f"/status/{status}") as response:
        assert response.status == status
        assert ("WWW-Authenticate" in response.headers) == (status == 401)


async def test_headers_as_received(member: DemoMember) -> None:
    """The request line and the fields come back in order and spelling."""
    answer = await raw(
        member,
        b"PROPFIND /headers?a=%2f HTTP/1.1\r\nhOst: a\r\nB: 1\r\nb: 2\r\nConnection: close\r\n\r\n",
    )
    assert answer.partition(b"\r\n\r\n")[2] == (
        b'{"member": "server1",\n "request": "PROPFIND /headers?a=%2f HTTP/1.1",\n "headers": [\n'
        b'  ["hOst", "a"],\n  ["B", "1"],\n  ["b", "2"],\n  ["Connection", "close"]]}\n'
    )


async def test_slow(client: ClientSession) -> None:
    """A slow answer takes as long as asked for."""
    assert await text(client, "/slow?seconds=0.01") == "server1: after 0.01 s\n"


async def test_websocket_echo(client: ClientSession) -> None:
    """A WebSocket sends text and bytes back; its handshake is signed too."""
    async with client.ws_connect("/websocket") as socket:
        await socket.send_str("hello")
        assert await socket.receive_str() == "hello"
        await socket.send_bytes(b"\x00\xff")
        assert await socket.receive_bytes() == b"\x00\xff"


async def test_every_answer_names_its_member(client: ClientSession) -> None:
    """X-Member is in every response, refusals included."""
    for path in ("/", "/headers", "/status/500", "/nowhere", "/websocket", "/download?size=1"):
        async with client.get(path) as response:
            assert response.headers["X-Member"] == "server1"


# --- ActiveSync ---


async def test_activesync_options(client: ClientSession) -> None:
    """OPTIONS tells protocol versions and commands, without a body."""
    async with client.options(ACTIVESYNC) as response:
        assert response.status == 200
        assert "14.0" in response.headers["MS-ASProtocolVersions"]
        assert "Ping" in response.headers["MS-ASProtocolCommands"]
        assert response.headers["MS-Server-ActiveSync"]
        assert await response.read() == b""


async def test_activesync_ping_waits(member: DemoMember, client: ClientSession) -> None:
    """A Ping is silent until its time is over, whatever others do; a stop cuts it."""
    ping = asyncio.create_task(client.post(PING + "&wait=3600").__aenter__())
    async with client.post(PING + "&wait=0") as response:
        assert await response.text() == "server1: Ping of device a1: nothing new in 0 s\n"
    assert not ping.done()
    await member.stop()
    with pytest.raises(ClientConnectionError):
        await ping


async def test_activesync_command_answers_at_once(
    member: DemoMember, client: ClientSession
) -> None:
    """Other commands don't wait, and the compact query is understood as it is."""
    async with client.post(PING.replace("Ping", "Sync"), data=b"wbxml") as response:
        assert await response.text() == "server1: Sync of device a1: done\n"
    path = (ACTIVESYNC + "?jAkJBAT77wC+BP////8CV1A=").encode()
    answer = await raw(
        member, b"POST " + path + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    )
    assert answer.endswith(b"server1: FolderSync of device fbef00be: done\n")


# --- odd input ---


@pytest.mark.parametrize(
    "path",
    [
        "/download?size=",
        "/download?size=-1",
        "/download?size=9999999999999",
        "/slow?seconds=nan",
        "/slow?seconds=-1",
        "/slow?seconds=99999",
        "/status/100",
        "/status/abc",
        "/status/²00",
    ],
)
async def test_odd_values_are_refused(client: ClientSession, path: str) -> None:
    """A value that makes no sense gets a 400 that says what does."""
    async with client.get(path) as response:
        assert response.status == 400
        assert (await response.text()).startswith("server1: ")


@pytest.mark.parametrize("query", ["", "?====", "?Cmd=Ping&wait=x", "?" + "A" * 4096])
async def test_odd_activesync_queries_are_refused(client: ClientSession, query: str) -> None:
    """A query without a command gets a 400, and not a 500, which phones take badly."""
    async with client.post(ACTIVESYNC + query) as response:
        assert response.status == 400


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /?\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_nonsense_is_refused_quietly(
    member: DemoMember, request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """What is no HTTP gets a 400 and no traceback in the log."""
    assert (await raw(member, request_bytes)).startswith(b"HTTP/1.0 400 ")
    assert not caplog.records


async def test_broken_off_upload_is_quiet(
    member: DemoMember, client: ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that leaves in the middle of an upload leaves no traceback."""
    reader, writer = await asyncio.open_connection(member.host, member.port)
    writer.write(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
    writer.write_eof()
    await reader.read()
    writer.close()
    assert "request 1" in await text(client, "/")
    assert not caplog.records


# --- the command line ---


def test_command_line_names_a_busy_port(capsys: pytest.CaptureFixture[str]) -> None:
    """A port that is taken ends the command with one line that names it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as ended:
            demo_server.main(["--name", "server2", "--port", str(port)])
    assert ended.value.code == 1
    assert f"server2 can't listen on http://127.0.0.1:{port}" in capsys.readouterr().err


@pytest.mark.slow
async def test_command_line_serves_until_told_to_stop() -> None:
    """The command says where it listens, serves, and ends well on SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy.lab.demo_server", "--name", "server7", "--port", "0"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    name, _, address = line.strip().partition(" listens on ")
    assert name == "server7"
    async with ClientSession(address) as client:
        assert "new session on server7" in await text(client, "/")
    process.terminate()
    assert await process.wait() == 0
