"""One probe whatever the member does: connecting, TLS, time, descriptors; tcp, tls and command."""

import asyncio
import datetime as dt
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from proxy.control.probes import probe as module
from proxy.control.probes.certificate import ends_of
from proxy.control.probes.probe import probe, timeout_of
from proxy.control.probes.result import CheckFiles, Target, told
from proxy.core import proxy_protocol
from proxy.core.settings import CheckType, HealthCheck, Member
from tests.control.probed_servers import HOST, answers, ask, says, served, silent

NAME = "mail.example.org"
CA = trustme.CA()
TRUSTED = CheckFiles(authorities=CA.cert_pem.bytes().decode())
TOMORROW = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
YESTERDAY = TOMORROW - dt.timedelta(days=2)


def context(ca: trustme.CA = CA, ends: dt.datetime = TOMORROW) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate for NAME and for loopback."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    begins = ends - dt.timedelta(days=9)
    ca.issue_cert(NAME, HOST, not_before=begins, not_after=ends).configure_cert(made)
    return made


def descriptors() -> int:
    """How many files this process has open."""
    return len([*Path("/proc/self/fd").iterdir()])


async def until_async(true: Callable[[], bool]) -> None:
    """Wait until that is so; fails if it never is."""
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it never was so")


# --- tcp and tls ---------------------------------------------------------------------------------


async def test_tcp_passes_once_connected() -> None:
    """Whoever accepts passes, and isn't told anything."""
    async with served(silent) as server:
        assert await ask(server.port, type="tcp") == (True, "connected", None)
        assert await server.all_said() == b""


async def test_tls_tells_when_the_certificate_ends() -> None:
    """A whole handshake; the end of the certificate is told to the second, verified or not."""
    expected = float(int(TOMORROW.timestamp()))
    async with served(silent, context()) as server:
        result = await ask(server.port, TRUSTED, type="tls", server_name=NAME)
        assert result == (True, "TLSv1.3", expected)
        assert await ask(server.port, type="tls", verify=False) == (True, "TLSv1.3", expected)


@pytest.mark.parametrize(
    ("made", "words", "text"),
    [
        (context(ends=YESTERDAY), {}, "certificate has expired"),
        (context(trustme.CA()), {}, "unable to get local issuer certificate"),
        (context(), {"server_name": "other.example.org"}, "Hostname mismatch"),
    ],
    ids=["expired", "unknown authority", "another name"],
)
async def test_tls_fails_by_the_certificate(
    made: ssl.SSLContext, words: dict[str, object], text: str
) -> None:
    """An expired, unknown or wrong certificate fails, unless verify is off."""
    async with served(silent, made) as server:
        result = await ask(server.port, TRUSTED, type="tls", **words)
        assert not result.passed
        assert result.text.startswith(f"its certificate is refused: {text}")
        assert (await ask(server.port, TRUSTED, type="tls", verify=False, **words)).passed


async def test_tls_against_who_speaks_none() -> None:
    """Another protocol, a hang-up or silence fails the handshake, and the text says so."""
    async with served(says(b"220 mail ESMTP\r\n")) as server:
        assert (await ask(server.port, type="tls")).text == "no TLS: wrong version number"
    async with served(says(then_close=True)) as server:
        assert (await ask(server.port, type="tls")).text.startswith("no TLS: ")
    async with served(silent) as server:
        result = await ask(server.port, type="tls", timeout="250ms")
        assert result == (False, "timed out after 0.25 s, in the TLS handshake", None)


# --- connecting ----------------------------------------------------------------------------------


async def test_refused(unused_tcp_port: int) -> None:
    """Nobody listens: the text says where."""
    result = await ask(unused_tcp_port, type="smtp")
    reason = "Connection refused"
    assert result.text == f"can't connect to {HOST} port {unused_tcp_port}: {reason}"


async def test_unknown_name() -> None:
    """A name that can't be looked up fails, one that is none as well."""
    for name in ("nowhere.invalid", "a" * 64):
        result = await ask(1, type="tcp", host=name)
        assert not result.passed
        assert f"{name} can't be looked up" in result.text


async def test_another_host_and_port_may_be_asked() -> None:
    """Host and port of the check come before the member's, each on its own."""
    async with served(silent) as server:
        check = HealthCheck.model_validate({"type": "tcp", "host": HOST, "port": server.port})
        assert (await probe(check, Target("nowhere.invalid", 1, None, "http://x"))).passed


async def test_names_are_tried_address_by_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that refuses is followed by the next one."""
    async with served(silent) as server:
        loop = asyncio.get_running_loop()
        known = await loop.getaddrinfo(HOST, server.port, type=1)
        other = await loop.getaddrinfo("127.0.0.9", server.port, type=1)

        async def found(*_: object, **__: object) -> object:
            return [*other, *known]

        monkeypatch.setattr(loop, "getaddrinfo", found)
        assert (await ask(server.port, type="tcp", host="two.example.org")).passed


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_members_that_want_a_preamble_get_one(version: str) -> None:
    """On its own port a member hears that no client is meant; on others it wants none."""
    async with served(answers(b"HTTP/1.1 204 No\r\n\r\n")) as server, served(silent) as other:
        url = f"http://{HOST}:{server.port}"
        target = Target.of(Member.model_validate({"url": url, "proxy_protocol": version}))
        check = HealthCheck.model_validate({"type": "http"})
        assert (await probe(check, target)).passed
        said = await server.all_said()
        await probe(check.model_copy(update={"port": other.port, "timeout": 0.1}), target)
        assert (await other.all_said()).startswith(b"GET / ")
    head, _, request = said.partition(b"GET /")
    assert request
    assert proxy_protocol.missing(head) == 0
    assert proxy_protocol.read(head) is None


# --- the end of each -----------------------------------------------------------------------------


async def test_leaves_nothing_open() -> None:
    """Passed, failed, timed out or cancelled: no descriptor stays."""
    async with served(silent) as plain, served(silent, context()) as tls:
        # what the first of all makes stays: threads' queues, contexts
        await ask(plain.port, type="tcp")
        count = descriptors()
        for kind in ("tcp", "smtp", "imap", "http", "mysql", "tls"):
            await ask(plain.port, type=kind, timeout="50ms")
            await ask(tls.port, type="https", timeout="50ms", verify=False)
            check = HealthCheck.model_validate({"type": kind, "port": plain.port})
            task = asyncio.create_task(probe(check, Target(HOST, 1, None, "http://x")))
            await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        # TLS connections say goodbye
        await until_async(lambda: descriptors() <= count)


async def test_cancellation_gets_through() -> None:
    """Who cancels a probe has it cancelled, and no result."""
    async with served(silent) as server:
        check = HealthCheck.model_validate({"type": "smtp", "port": server.port})
        task = asyncio.create_task(probe(check, Target(HOST, 1, None, "http://x")))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_mistake_of_ours_is_a_failure_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing a probe runs into ends its caller."""

    async def broken(*_: object) -> str:
        raise ZeroDivisionError

    monkeypatch.setitem(module._CONVERSATIONS, CheckType.TCP, broken)
    result = await ask(1, type="tcp")
    assert not result.passed
    assert "ended by a mistake in balanceme" in caplog.text


def test_timeouts() -> None:
    """Mail servers may let a client wait (D103); what is configured counts."""
    kinds: dict[str, float] = {"http": 5, "imap": 5, "mysql": 5, "smtp": 15, "lmtp": 15}
    for kind, seconds in kinds.items():
        assert timeout_of(HealthCheck.model_validate({"type": kind})) == seconds
    assert timeout_of(HealthCheck.model_validate({"type": "smtp", "timeout": "2s"})) == 2


# --- values --------------------------------------------------------------------------------------


def test_targets() -> None:
    """A member's url says where it is."""
    found = [
        Target.of(Member(url=url))[:2]
        for url in ("http://server1", "HTTP://Server1:8080/path", "http://[::1]:81")
    ]
    assert found == [("server1", 80), ("server1", 8080), ("::1", 81)]


def test_words_of_others_are_shown_safely() -> None:
    """What somebody else said is printable and cut."""
    assert told(b" a\x1b[0m\xff\r\n") == "a?[0m\ufffd"
    assert told("x" * 500) == "x" * 117 + "..."
    assert told("x" * 120) == "x" * 120


def test_files_show_nothing_of_themselves() -> None:
    """Credentials don't get into a log by accident."""
    files = CheckFiles("user", "secret", "authorities")
    assert "secret" not in f"{files!r} {files} {[files]}"


@pytest.mark.parametrize("end", [b"", b"\x30", b"\x30\x82\xff", b"\x30\x03\x30\x01\x02", b"x" * 99])
def test_no_certificate_has_no_end(end: bytes) -> None:
    """What can't be read is no reason to fail."""
    assert ends_of(end) is None


def test_certificates_of_other_centuries() -> None:
    """Both kinds of times are read (RFC 5280 section 4.1.2.5)."""
    for year in (2049, 2050, 2999):
        ends = dt.datetime(year, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
        issued = CA.issue_cert(NAME, not_before=YESTERDAY, not_after=ends)
        der = ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())
        assert ends_of(der) == ends.timestamp()


# --- command -------------------------------------------------------------------------------------


async def test_command_is_told_of_the_member() -> None:
    """Exit status 0 passes; the member stands in the environment."""
    words = "$BALANCEME_HOST $BALANCEME_PORT $BALANCEME_ROUTE $BALANCEME_URL"
    result = await ask(81, type="command", command=["sh", "-c", f"echo {words}"])
    assert result.passed
    assert result.text.endswith("127.0.0.1 81 server1 http://127.0.0.1:81")


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("echo it is ill; echo more; exit 3", "exit status 3: it is ill"),
        ("kill -9 $$", "ended by SIGKILL"),
        ("yes; exit 0", "killed after 0.3 s: y"),
    ],
)
async def test_command_fails(script: str, text: str) -> None:
    """Another status, a signal, or too long: the first line of its output says more."""
    timeout = "300ms" if "killed" in text else "10s"
    result = await ask(1, type="command", command=["sh", "-c", script], timeout=timeout)
    assert result == (False, text, None)


async def test_command_that_is_not_there() -> None:
    """A program that can't be started fails."""
    result = await ask(1, type="command", command=["/nowhere/check"])
    assert result == (False, "can't be started: No such file or directory", None)
