"""Probes over HTTP: web servers, Zarafa, ActiveSync, Apache among them (D96 to D100, H3)."""

import base64
from typing import Any

import pytest

from proxy.control.probes.result import NO_FILES, CheckFiles
from tests.control.probed_servers import Talk, answers, ask, dripping, endless, served, silent
from tests.control.real_servers import NAME, Issued, Web

LOGIN = CheckFiles("phone", "a secret: with a colon")


def response(start: str, *fields: str, body: bytes = b"") -> bytes:
    """A response's bytes."""
    return "\r\n".join([f"HTTP/1.1 {start}", *fields, "", ""]).encode() + body


# --- a real server -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "passed", "text"),
    [
        ({}, True, "200 OK"),
        ({"method": "HEAD"}, True, "200 OK"),
        ({"method": "OPTIONS"}, True, "200 OK"),
        ({"path": "/moved?x=1"}, True, "302 Found"),
        ({"path": "/moved", "statuses": [200]}, False, "302 Found, and not 200"),
        ({"path": "/nowhere"}, False, "404 Not Found, and not 200-399"),
        ({"path": "/nowhere", "statuses": [200, "400-404"]}, True, "404 Not Found"),
        ({"path": "/down"}, False, "503 Service Unavailable, and not 200-399"),
        ({"body": "all is w.ll"}, True, "200 OK"),
        ({"body": "^all"}, False, "200, and its body doesn't match ^all"),
        ({"body": "well", "path": "/down", "statuses": [503]}, False, "503, and its body doesn't"),
    ],
)
async def test_apache_is_judged_by_status_and_body(
    apache: Web, words: dict[str, Any], passed: bool, text: str
) -> None:
    """200 to 399 pass unless statuses says otherwise; a pattern must match as well."""
    result = await ask(apache.http, type="http", **words)
    assert result.passed is passed, result
    assert result.text.startswith(text)


async def test_apache_over_tls(apache: Web, issued: Issued) -> None:
    """A whole handshake with a certificate that is checked, and one request (D99)."""
    files = CheckFiles(authorities=issued.authority)
    result = await ask(apache.https, files, type="https", server_name=NAME)
    assert result.passed, result
    assert result.text == "200 OK"
    assert result.certificate_ends is not None
    refused = await ask(apache.https, files, type="https")
    assert not refused.passed
    assert refused.text.startswith("its certificate is refused: IP address mismatch")


# --- what is asked -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ({"type": "http"}, ["GET / HTTP/1.1", "Host: 127.0.0.1:{port}"]),
        (
            {"type": "http", "path": "/x?y", "host_field": "mail.example.org", "method": "OPTIONS"},
            ["OPTIONS /x?y HTTP/1.1", "Host: mail.example.org"],
        ),
        ({"type": "zarafa"}, ["GET / HTTP/1.1", "Host: 127.0.0.1:{port}"]),
        (
            {"type": "activesync"},
            ["OPTIONS /Microsoft-Server-ActiveSync HTTP/1.1", "Host: 127.0.0.1:{port}"],
        ),
    ],
)
async def test_asks_properly(words: dict[str, Any], lines: list[str]) -> None:
    """A request has a Host, and says that it is the only one (H2)."""
    async with served(answers(response("204 No Content"))) as server:
        await ask(server.port, **words)
        said = (await server.all_said()).decode()
        expected = [line.format(port=server.port) for line in lines]
    usual = ["User-Agent: balanceme", "Accept: */*", "Connection: close", "", ""]
    assert said.split("\r\n") == expected + usual


async def test_logs_in_to_activesync() -> None:
    """With credentials the login is sent (D97)."""
    async with served(answers(response("200 OK", "MS-ASProtocolVersions: 14.1"))) as server:
        await ask(server.port, LOGIN, type="activesync")
        said = await server.all_said()
    secret = base64.b64encode(b"phone:a secret: with a colon")
    assert b"\r\nAuthorization: Basic " + secret + b"\r\n" in said


# --- judgement -----------------------------------------------------------------------------------

ASKS = 'WWW-Authenticate: Basic realm="ZPush"'
VERSIONS = "MS-ASProtocolVersions: 2.5,12.0,14.1"


@pytest.mark.parametrize(
    ("kind", "files", "start", "passed", "text"),
    [
        ("zarafa", NO_FILES, ("405 Method Not Allowed",), True, "405 Method Not Allowed"),
        ("zarafa", NO_FILES, ("200 OK",), False, "200 OK, and not 405"),
        ("activesync", NO_FILES, ("401 No", ASKS), True, "401 No, asks for a login"),
        ("activesync", NO_FILES, ("401 No",), False, "401 without WWW-Authenticate: "),
        ("activesync", NO_FILES, ("200 OK", VERSIONS), False, "200 OK, and not 401"),
        ("activesync", LOGIN, ("200 OK", VERSIONS), True, "200 OK, versions 2.5,12.0,14.1"),
        ("activesync", LOGIN, ("200 OK",), False, "200 without MS-ASProtocolVersions: "),
        ("activesync", LOGIN, ("401 No", ASKS), False, "401 No, and not 200"),
        (
            *("activesync", LOGIN, ("503 Down", "Retry-After: 300"), False),
            "503 Down (Retry-After: 300), and not 200",
        ),
    ],
)
async def test_judges_by_type(
    kind: str, files: CheckFiles, start: tuple[str, ...], passed: bool, text: str
) -> None:
    """What passes when nothing is configured is what a healthy server of that type says."""
    async with served(answers(response(*start, "Content-Length: 0"))) as server:
        result = await ask(server.port, files, type=kind)
    assert result.passed is passed, result
    assert result.text.startswith(text)


async def test_statuses_alone_decide_when_configured() -> None:
    """Who names statuses has judged what they mean."""
    async with served(answers(response("401 No"))) as server:
        assert (await ask(server.port, type="activesync", statuses=["200-401"])).passed


CHUNKED = b"3\r\nall\r\n8\r\n is well\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("talk", "text"),
    [
        (answers(response("100 Continue") + response("200 OK")), "200 OK"),
        (answers(b"HTTP/1.0 200 Fine\n".replace(b"\n", b"\r\n\r\n")), "200 Fine"),
        (answers(b"HTTP/1.1 200\r\nA: b\r\n\r\n"), "200"),
        (answers(b"HTTP/1.1 2", b"", then_close=False), None),
    ],
)
async def test_reads_heads(talk: Talk, text: str | None) -> None:
    """Interim answers are passed over, old versions are fine, half a head is waited for."""
    async with served(talk) as server:
        result = await ask(server.port, type="http", timeout="10s" if text else "250ms")
    assert result.text == (text or "timed out after 0.25 s, waiting for its answer")
    assert result.passed is (text is not None)


@pytest.mark.parametrize(
    "talk",
    [
        answers(response("200 OK", "Content-Length: 11", body=b"all is well")),
        answers(response("200 OK", "Transfer-Encoding: chunked", body=CHUNKED)),
        answers(response("200 OK", body=b"all is well"), then_close=True),
        answers(response("200 OK", "Content-Length: 999", body=b"all is well"), then_close=True),
    ],
)
async def test_matches_bodies_of_any_framing(talk: Talk) -> None:
    """A body is what its framing says, chunks without their sizes."""
    async with served(talk) as server:
        assert await ask(server.port, type="http", body="^all is well$") == (True, "200 OK", None)


async def test_reads_no_more_of_a_body_than_counts() -> None:
    """A pattern is looked for in the first 64 KiB, also of a body without an end."""
    for start, passed in ((b"x" * 65532 + b"well", True), (b"x" * 65533 + b"well", False)):
        first = response("200 OK", body=start)
        async with served(endless(b"y" * 4096, first=first)) as server:
            assert (await ask(server.port, type="http", body="well")).passed is passed


@pytest.mark.parametrize(
    ("talk", "text"),
    [
        (answers(b"220 mail ESMTP Postfix\r\n"), "no HTTP: malformed status line"),
        (answers(b"\x00\x01\x02\r\n\r\n"), "no HTTP: malformed status line"),
        (answers(response("200 OK", "A\0: b")), "no HTTP: malformed header field"),
        (answers(response("200 OK")[:9], then_close=True), "it hung up in the midst of its answer"),
        (answers(then_close=True), "it hung up before its answer"),
        (answers(response("100 Continue") * 9), "more than 4 answers before the answer"),
        (endless(b"x" * 1000), "no HTTP: line too long"),
        (endless(b"A: b\r\n" * 100, first=b"HTTP/1.1 200 OK\r\n"), "no HTTP: head too large"),
        (
            answers(response("200 OK", "Transfer-Encoding: chunked", body=b"zz\r\n")),
            "no HTTP: malformed chunk size",
        ),
    ],
)
async def test_fails(talk: Talk, text: str) -> None:
    """What isn't HTTP, hangs up or has no end fails, and the text says how."""
    async with served(talk) as server:
        assert await ask(server.port, type="http", body="x") == (False, text, None)


async def test_has_to_answer_in_time() -> None:
    """The limit is for the whole probe: also for who is silent, and for who never stops."""
    for talk in (silent, dripping(response("200 OK"))):
        async with served(talk) as server:
            result = await ask(server.port, type="http", timeout="250ms")
        assert result == (False, "timed out after 0.25 s, waiting for its answer", None)
