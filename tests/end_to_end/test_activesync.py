"""Devices: what the proxy must leave alone, how long they may wait, and what must not be repeated.

Follows the list of section 12 of the notes on ActiveSync; rules are theirs.
"""

import asyncio
import base64
import socket
import struct
import threading
from collections.abc import Iterator
from zlib import crc32

import pytest

from tests.end_to_end.conftest import (
    BLOCK,
    NAME,
    Browser,
    BulkMember,
    Dial,
    Launcher,
    Members,
    Proxy,
    Yaml,
    fields_of,
    request,
    seen_by,
    until,
    until_async,
    url_of,
)
from tests.end_to_end.raw_client import End, RawClient, Response
from tests.end_to_end.recording_member import Do, answer

pytestmark = pytest.mark.slow

PATH = "/Microsoft-Server-ActiveSync"
PING = f"{PATH}?Cmd=Ping&User=erika&DeviceId=androidc1234&DeviceType=Android"
SEND = f"{PATH}?Cmd=SendMail&User=erika&DeviceId=androidc1234&DeviceType=Android"
HOME = "Cookie: BALANCEME=balancer.server1"
# Every timeout that a Ping could run into, but for the one that is meant for it.
SHORT: Yaml = {
    "frontend": {
        "timeouts": dict.fromkeys(("handshake", "head", "body", "keep_alive", "write"), "300ms")
    },
    "balancer": {"timeouts": dict.fromkeys(("connect", "response", "tunnel"), "300ms")},
}


class Site:
    """A proxy with short timeouts before two members."""

    def __init__(self, serve: Launcher, members: Members) -> None:
        self.server1, self.server2 = members("server1"), members("server2")
        self.proxy = serve(self.server1, self.server2, **SHORT)

    def script(self, *steps: bytes | float | Do) -> None:
        """What the session's member does for a device from now on."""
        self.server1.record.seen.clear()
        self.server2.record.seen.clear()
        self.server1.scripts[PATH.encode()] = [Do.READ_BODY, *steps]


@pytest.fixture(scope="module")
def shared(serve_all: Launcher, members_all: Members) -> Site:
    """A site for the tests that leave nothing behind."""
    return Site(serve_all, members_all)


@pytest.fixture
def site(serve: Launcher, members: Members) -> Site:
    """A site of its own."""
    return Site(serve, members)


def post(client: RawClient, target: str, *fields: str | bytes, body: bytes = b"") -> Response:
    """One command of a device whose home is server1."""
    client.send(request(target, HOME, *fields, method="POST", body=body))
    return client.read_response(b"POST")


# --- 1. the address ------------------------------------------------------------------------------

VECTORS = {
    "sync": b"jAAJBAp2MTQwRGV2aWNlAApTbWFydFBob25l",
    "ping": b"jRIHBBAAAQIDBAUGBwgJCgsMDQ4PBHhWNBIDV1A4CBFlcmlrYUBleGFtcGxlLm9yZw==",
    "android": b"eQAJCAxhbmRyb2lkYzEyMzQAB0FuZHJvaWQ=",
    "folder-sync": b"jAkJBAT77wC+BP////8CV1A=",
    "send-mail": b"oQEMDAT/////BAEAAAACU1AHAQEIDUVYQU1QTEVcZXJpa2E=",
    "cut-short": b"jAAJBAp2MTQw",
    "only-padding": b"====",
    "empty": b"",
    "4-kib": b"A" * 4096,
    "domain-user": b"Cmd=Sync&User=DOM%5Cbob&DeviceId=ABC&DeviceType=iPhone",
    "lower-case-escapes": b"User=b%c3%b6b%2fx%3d&Cmd=Ping",
    "plus": b"User=a+b%20c+d&Cmd=Ping",
    "empty-values": b"Cmd=&User=&&=x&DeviceId",
    "repeated-names": b"Cmd=Ping&Cmd=Sync&User=a&User=b",
    "question-marks": b"a?b?Cmd=Ping",
    "dots-and-slashes": b"../..//a/./b;c=d",
    "percent-alone": b"100%&%zz=%",
    "obs-text": b"User=b\xf6b\xff",
    "odd-characters": b"{}|\\^`<>\"'[]~!*()",
}


@pytest.mark.parametrize("query", VECTORS.values(), ids=VECTORS.keys())
def test_query_is_not_touched(query: bytes, shared: Site, dial: Dial) -> None:
    """1: the query arrives byte for byte, compact or plain, sound or broken (D8, D11, H26)."""
    shared.script(answer())
    for method in ("POST", "OPTIONS"):
        client = dial(shared.proxy)
        client.send(request(PATH.encode() + b"?" + query, HOME, method=method, body=b""))
        assert client.read_response(method.encode()).status_line == b"HTTP/1.1 200 OK"
    targets = [seen.target for seen in seen_by(shared.server1)]
    assert targets == [PATH.encode() + b"?" + query] * 2


@pytest.mark.parametrize(
    "path", [PATH, PATH.lower(), PATH.upper(), "/AutoDiscover/AutoDiscover.xml"]
)
def test_spelling_of_the_path(path: str, shared: Site, dial: Dial) -> None:
    """1: a path is forwarded in the device's spelling (D1, D13)."""
    shared.script(answer())
    assert post(dial(shared.proxy), path).status_line == b"HTTP/1.1 200 OK"
    assert [seen.target for seen in seen_by(shared.server1)] == [path.encode()]


# --- 2. one member -------------------------------------------------------------------------------


async def test_device_keeps_its_member(shared: Site, browser: Browser) -> None:
    """2: a device that returns its cookie has one member for all it asks (D50, D53)."""
    shared.script(answer(b"server1"))
    shared.server2.scripts[PATH.encode()] = [answer(b"server2")]
    targets = [PATH, f"{PATH}?{VECTORS['android'].decode()}", PING, SEND, "/autodiscover/x.xml"]
    for _ in range(4):
        session = browser(shared.proxy)
        served = []
        for target in targets:
            async with session.options(PATH) as response:
                served.append(await response.text())
            async with session.post(target, data=b"body") as response:
                served.append(await response.text())
        assert len(set(served)) == 1


# --- 3. waiting ----------------------------------------------------------------------------------


async def test_ping_may_be_silent(shared: Site, browser: Browser) -> None:
    """3: a Ping outlasts every other timeout; the same wait elsewhere does not (D32 to D34)."""
    shared.script(1.2, answer(b"nothing new"))
    shared.server1.scripts[PATH.lower().encode()] = [1.2, answer(b"nothing new")]
    shared.server1.scripts[b"/other"] = [1.2, answer()]
    headers = {"Cookie": "BALANCEME=balancer.server1"}
    session = browser(shared.proxy)

    async def ask(target: str) -> tuple[int, bytes]:
        async with session.post(target, data=b"<Ping/>", headers=headers) as response:
            return response.status, await response.read()

    targets = [PING, f"{PATH}?{VECTORS['ping'].decode()}", PING.lower(), "/other"]
    *pings, other = await asyncio.gather(*[ask(target) for target in targets])
    assert pings == [(200, b"nothing new")] * 3
    assert other[0] == 504


async def test_mail_ends_a_ping(site: Site, browser: Browser) -> None:
    """3: a mail's news reaches the device as it is sent, piece by piece (D32, P7)."""
    mail, seen = threading.Event(), threading.Event()

    class Waiting(list[bytes | float | Do]):
        """Sends the head when a mail comes, the body when the head was seen."""

        def __iter__(self) -> Iterator[bytes | float | Do]:
            yield Do.READ_BODY
            mail.wait(10)
            yield b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nne"
            seen.wait(10)
            yield b"ws"

    site.server1.scripts[PATH.encode()] = Waiting([Do.READ_BODY])
    headers = {"Cookie": "BALANCEME=balancer.server1"}
    events = []

    async def ping() -> None:
        async with browser(site.proxy).post(PING, headers=headers) as response:
            events.append("head")
            events.append((await response.content.readexactly(2)).decode())
            seen.set()
            events.append((await response.content.readexactly(2)).decode())

    waiting = asyncio.create_task(ping())
    await until_async(lambda: seen_by(site.server1), "the Ping arrives")
    # Others are served meanwhile, and no byte comes to the device that waits.
    for number in range(3):
        async with browser(site.proxy).get("/") as response:
            assert response.status == 200
        events.append(f"other{number}")
    events.append("mail")
    mail.set()
    await waiting
    assert events == ["other0", "other1", "other2", "mail", "head", "ne", "ws"]


# --- 4. the device leaves ------------------------------------------------------------------------


def leave(client: RawClient, how: str) -> None:
    """End a device's connection."""
    if how == "reset":
        raw = client._socket
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if how == "half-close":
        client.half_close()
    else:
        client.close()


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
def test_device_leaves_during_a_ping(how: str, shared: Site, dial: Dial) -> None:
    """4: the member's connection is closed within a second, and nobody is to blame (D36, H66)."""
    shared.script(Do.WAIT_CLOSE)
    devices = [dial(shared.proxy) for _ in range(10)]
    for device in devices:
        device.send(request(PING, HOME, method="POST", body=b"<Ping/>"))
    until(lambda: len(seen_by(shared.server1)) == 10, "ten Pings arrive")
    before = shared.proxy.descriptors()
    for device in devices:
        leave(device, how)
    until(lambda: all(seen.aborted for seen in seen_by(shared.server1)), "they end", 1)
    until(lambda: shared.proxy.descriptors() <= before - 20, "both sides are closed")
    shared.script(answer(b"here"))
    assert post(dial(shared.proxy), PING).body == b"here"
    assert "in error" not in shared.proxy.stderr()
    assert seen_by(shared.server2) == []


# --- 5. and 6. the member dies -------------------------------------------------------------------


@pytest.mark.parametrize("target", [PING, SEND], ids=["ping", "send-mail"])
@pytest.mark.parametrize("end", [Do.CLOSE, Do.RESET], ids=["close", "reset"])
@pytest.mark.parametrize("kept", [False, True], ids=["first", "later"])
def test_member_dies_under_way(kept: bool, end: Do, target: str, shared: Site, dial: Dial) -> None:
    """5, 6: no 500 and exactly one attempt, also on kept connections (D26, D67, D68, D71)."""
    client = dial(shared.proxy)
    if kept:
        shared.script(answer())
        post(client, target)
    shared.script(end)
    response = post(client, target, body=b"mail" * 10_000)
    assert response.status_line == b"HTTP/1.1 502 Bad Gateway"
    assert len(seen_by(shared.server1, shared.server2)) == 1
    assert "in error" not in shared.proxy.stderr()


def test_member_dies_and_returns(site: Site, dial: Dial) -> None:
    """5: after a member's death the next command goes to the other one, and stays (D26, D51)."""
    site.script(Do.WAIT_CLOSE)
    device = dial(site.proxy)
    device.send(request(PING, HOME, method="POST", body=b"<Ping/>"))
    until(lambda: seen_by(site.server1), "the Ping arrives")
    site.server1.stop()
    assert device.read_response(b"POST").status_line == b"HTTP/1.1 502 Bad Gateway"
    assert seen_by(site.server2) == []
    response = post(device, PING)
    assert response.body == b"server2"
    (line,) = fields_of(response.fields, "set-cookie")
    assert line.startswith("BALANCEME=balancer.server2;")
    site.server1.start()
    moved = "Cookie: BALANCEME=balancer.server2"
    device.send(request(PING, moved, method="POST", body=b""))
    assert device.read_response(b"POST").body == b"server2"


def test_nobody_there(serve: Launcher, members: Members, dial: Dial) -> None:
    """5: with no member left a device is told to come later, never 500 (D25, D26)."""
    proxy = serve(members.stopped("server1"), members.stopped("server2"))
    response = post(dial(proxy), PING, body=b"<Ping/>")
    assert response.status_line == b"HTTP/1.1 503 Service Unavailable"
    assert int(fields_of(response.fields, "retry-after")[0]) > 0


# --- 7. and 8. statuses --------------------------------------------------------------------------

STATUSES = [
    (b"449 Retry after sending a PROVISION command", b"MS-Server-ActiveSync: 14.0"),
    (b"451 Redirect", b"X-MS-Location: http://@SELF@/Microsoft-Server-ActiveSync"),
    (b"456 Blocked by policy", b"X-MS-Credentials-Expire: 3"),
    (b"457 Expired", b"X-MS-Credential-Service-Url: https://pw.example.org/?a=b"),
    (b"507 Insufficient Storage", b"X-MS-RP: 2.5,12.0,12.1"),
    (b"503 Service Unavailable", b"Retry-After: 300"),
    (b"500 Internal Server Error", b"X-Z-Push-Version: 2.7.1"),
    (b"401 Unauthorized", b'WWW-Authenticate: Basic realm="ZPush"'),
    (b"403 Forbidden", b"X-Odd:"),
    (b"404 Nope Nope", b"X-Obs: \xe4\xf6"),
    (b"299 Odd", b"MS-ASProtocolVersions: 2.5,12.0"),
    (b"599 ", b"x-lower: a"),
]


@pytest.mark.parametrize(("status", "field"), STATUSES, ids=lambda value: value.decode("latin-1"))
def test_statuses_pass(status: bytes, field: bytes, shared: Site, dial: Dial) -> None:
    """7: any status passes with reason, fields and empty body, and is no failure (D23, P1)."""
    shared.script(answer(b"", field, b"Content-Type: application/vnd.ms-sync.wbxml", status=status))
    for _ in range(2):
        response = post(dial(shared.proxy), PING)
        assert response.status_line == b"HTTP/1.1 " + status
        assert response.body == b""
        assert response.end is End.COMPLETE
        sent = field.replace(b"@SELF@", shared.server1.authority).split(b"\r\n")
        names = {line.partition(b":")[0].lower() for line in sent}
        got = [line for line in response.fields if line.partition(b":")[0].lower() in names]
        assert [line.rstrip() for line in got] == sent
    assert len(seen_by(shared.server1)) == 2
    assert seen_by(shared.server2) == []
    assert "in error" not in shared.proxy.stderr()


def test_wrong_credentials(shared: Site, dial: Dial) -> None:
    """8: a 401 keeps its challenge, and no number of them marks a member down (D17)."""
    challenge = b'WWW-Authenticate: Basic realm="ZPush"'
    shared.script(answer(b"", challenge, status=b"401 Unauthorized"))
    client = dial(shared.proxy)
    for _ in range(50):
        response = post(client, PING, "Authorization: Basic d3Jvbmc6d3Jvbmc=")
        assert response.status_line == b"HTTP/1.1 401 Unauthorized"
        assert challenge in response.fields
    shared.script(answer(b"welcome"))
    assert post(client, PING).body == b"welcome"


# --- 9. bodies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 16_303, 16_304, 16_305, 200_000])
def test_chunked_upload(size: int, shared: Site, dial: Dial) -> None:
    """9: a body of unknown length arrives whole, and no length is asked for (D44)."""
    shared.script(answer())
    body = (BLOCK * 4)[:size]
    client = dial(shared.proxy)
    client.send(request(SEND, HOME, "Transfer-Encoding: chunked", method="POST"))
    for start in range(0, size, 7001):
        piece = body[start : start + 7001]
        client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
    client.send(b"0\r\n\r\n")
    assert client.read_response(b"POST").status_line == b"HTTP/1.1 200 OK"
    (seen,) = seen_by(shared.server1)
    assert seen.body == body
    assert (seen.value(b"transfer-encoding") is None) != (seen.value(b"content-length") is None)


@pytest.mark.parametrize("framing", ["Content-Length: 8", "Transfer-Encoding: chunked"])
def test_expect_continue(framing: str, shared: Site, dial: Dial) -> None:
    """9: the body is asked for by 100 Continue, and only then comes (D31, H13)."""
    shared.script()
    shared.server1.scripts[PATH.encode()] = [answer(b"sent")]
    client = dial(shared.proxy)
    client.send(request(SEND, HOME, framing, "Expect: 100-continue", method="POST"))
    assert client.wait_interim() == [b"HTTP/1.1 100 Continue"]
    client.send(b"8\r\nthe mail\r\n0\r\n\r\n" if "chunked" in framing else b"the mail")
    response = client.read_response(b"POST")
    assert response.body == b"sent"
    assert [seen.body for seen in seen_by(shared.server1)] == [b"the mail"]


def test_refused_before_the_body(shared: Site, dial: Dial) -> None:
    """9: a final answer instead of 100 Continue reaches the device (H12, H68)."""
    shared.server1.scripts[PATH.encode()] = [
        Do.LEAVE_BODY,
        answer(b"too large", status=b"413 Content Too Large"),
    ]
    client = dial(shared.proxy)
    client.send(
        request(SEND, HOME, "Content-Length: 9999999", "Expect: 100-continue", method="POST")
    )
    response = client.read_response(b"POST")
    assert response.status_line == b"HTTP/1.1 413 Content Too Large"
    assert response.interim == []
    assert client.wait_closed(5)


def test_broken_off_upload(shared: Site, dial: Dial) -> None:
    """9: a body that breaks off is broken off for the member too, never ended well (D44, H11)."""
    shared.script(answer())
    for framing, start in (
        ("Content-Length: 100000", bytes(50_000)),
        ("Transfer-Encoding: chunked", b"%x\r\n%b\r\n" % (50_000, bytes(50_000))),
    ):
        client = dial(shared.proxy)
        client.send(request(SEND, HOME, framing, method="POST") + start)
        until(lambda: seen_by(shared.server1), "the head arrives")
        client.close()
        until(lambda: seen_by(shared.server1)[0].aborted, "the member is told")
        assert not seen_by(shared.server1)[0].complete
        shared.script(answer())


# What one exchange may hold of bodies, both directions and TLS included (H36: 256 KiB each way).
HELD = 4 * 1024 * 1024


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_large_upload_takes_no_memory(
    framing: str, serve: Launcher, bulk: BulkMember, dial: Dial
) -> None:
    """9: a mail of 100 MiB goes through in constant memory, however framed (D43, H35, H36)."""
    proxy = serve(bulk.settings)
    client = dial(proxy)
    count = 1600
    if framing == "length":
        fields = [f"Content-Length: {count * len(BLOCK)}"]
        piece, end = BLOCK, b""
    else:
        fields = ["Transfer-Encoding: chunked"]
        piece, end = b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK), b"0\r\n\r\n"
    before = proxy.forget_peak()
    client.send(request(SEND, *fields, "Expect: 100-continue", method="POST"))
    assert client.wait_interim() == [b"HTTP/1.1 100 Continue"]
    for _ in range(count):
        client.send_all(piece)
    client.send_all(end)
    checksum = 0
    for _ in range(count):
        checksum = crc32(BLOCK, checksum)
    assert client.read_response(b"POST").body == b"%d %d" % (count * len(BLOCK), checksum)
    assert proxy.memory("VmHWM") - before < HELD


# --- 10. and 11. fields --------------------------------------------------------------------------


def test_set_cookie_lines(shared: Site, dial: Dial) -> None:
    """10: the members' Set-Cookie lines stay as they are, beside ours (D46, D53, D74, P3)."""
    lines = [
        b"Set-Cookie: __Secure-GROMMUNIO_WEB=a%20b; path=/; secure; HttpOnly; SameSite=None",
        b'set-cookie: __Secure-encryption-store-key="x,y"; Path=/; Secure; Partitioned',
        b"Set-Cookie: BALANCEME=balancer.theirs; path=/webapp",
        b"Set-Cookie: a=1; expires=Thu, 01-Jan-1970 00:00:01 GMT; Max-Age=0; domain=.example.org",
        b"Set-Cookie: a=1; domain=server1.example.org",
        b"Set-Cookie: \xe4=\xf6;;=",
    ]
    shared.script(answer(b"", *lines))
    response = post(dial(shared.proxy), PATH)
    got = [line for line in response.fields if line.lower().startswith(b"set-cookie:")]
    assert got[0].startswith(b"Set-Cookie: BALANCEME=balancer.server1; path=/; domain=example.org;")
    assert got[1:] == lines


@pytest.mark.parametrize(
    "option",
    ["keep-alive", "X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, Host, close"],
    ids=["plain", "named-in-connection"],
)
def test_forwarded_fields_are_replaced(option: str, shared: Site, dial: Dial) -> None:
    """11: what a client says about itself never arrives, whatever it names (D29, D30, H41)."""
    shared.script(answer())
    post(
        dial(shared.proxy),
        PING,
        "X-Forwarded-For: 203.0.113.9, 10.0.0.1",
        "x-forwarded-for: 203.0.113.10",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: evil.example.com",
        "X-Forwarded-Server: evil.example.com",
        "X-Forwarded-Port: 80",
        "X-Real-IP: 203.0.113.9",
        "Forwarded: for=203.0.113.9;proto=http",
        "Proxy: http://evil.example.com",
        f"Connection: {option}",
    )
    (seen,) = seen_by(shared.server1)
    ours = [line for line in seen.lines[1:] if line.lower().startswith((b"x-", b"forw", b"proxy"))]
    host = NAME.encode()
    assert ours == [
        b"X-Forwarded-For: 127.0.0.1",
        b"X-Forwarded-Host: " + host,
        b"X-Forwarded-Server: " + host,
        b"X-Forwarded-Proto: https",
    ]
    assert seen.value(b"host") == shared.server1.authority
    assert b"evil" not in seen.head
    assert b"203.0.113" not in seen.head


def test_device_fields_arrive(shared: Site, dial: Dial) -> None:
    """Credentials and a device's own fields arrive unchanged, none is invented (D16, D20)."""
    shared.script(answer())
    fields = [
        b"Authorization: Basic " + base64.b64encode("EXAMPLE\\erika:pa:ß".encode("latin-1")),
        b"MS-ASProtocolVersion: 14.1",
        b"X-MS-PolicyKey: 3942919513",
        b"MS-ASAcceptMultiPart: T",
        b"user-agent: Android/8.0-EAS-2.0",
        b"Accept-Encoding: gzip",
        b"Accept-Language: de-at",
        b"X-Push-Plugin-Odd: \xe4",
        b"Content-Type: application/vnd.ms-sync.wbxml",
    ]
    post(dial(shared.proxy), PING, *fields)
    (seen,) = seen_by(shared.server1)
    names = {line.partition(b":")[0].lower() for line in seen.lines[1:]}
    assert [line for line in seen.lines if line in fields] == fields
    assert names - {line.partition(b":")[0].lower() for line in fields} == {
        b"host",
        b"cookie",
        b"content-length",
        b"connection",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-server",
        b"x-forwarded-proto",
    }


def test_options_belong_to_the_member(shared: Site, dial: Dial) -> None:
    """OPTIONS is the member's to answer: empty body, its versions, no type guessed (D22, D28)."""
    shared.script(answer(b"", b"MS-ASProtocolVersions: 2.5,12.0,12.1,14.0"))
    client = dial(shared.proxy)
    client.send(request(PATH, HOME, method="OPTIONS"))
    response = client.read_response(b"OPTIONS")
    assert fields_of(response.fields, "ms-asprotocolversions") == ["2.5,12.0,12.1,14.0"]
    assert fields_of(response.fields, "content-type") == []
    assert response.body == b""


def test_host_is_preserved_where_asked(serve: Launcher, members: Members, dial: Dial) -> None:
    """Autodiscover hands out the Host it sees: preserve_host keeps the public one (D14, R4)."""
    member = members("server1")
    for preserve, wanted in ((True, NAME), (False, url_of(member).removeprefix("http://"))):
        proxy: Proxy = serve(member, mapping={"preserve_host": preserve})
        post(dial(proxy), "/autodiscover/autodiscover.xml")
        assert member.record.seen[-1].value(b"host") == wanted.encode()
