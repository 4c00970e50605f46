"""Probes of SMTP, LMTP, IMAP and POP3, against Postfix and Dovecot and others (D101 to D104)."""

import pytest

from proxy.control.probes.result import CheckFiles
from tests.control.probed_servers import Talk, ask, dripping, endless, says, served, silent
from tests.control.real_servers import NAME, Issued, Mail

# --- real servers --------------------------------------------------------------------------------


async def test_postfix_is_greeted_and_left(postfix: Mail) -> None:
    """A session is whole: the greeting is read, EHLO and QUIT are said, nothing breaks off."""
    before = postfix.said().count("disconnect")
    result = await ask(postfix.ports["smtp"], type="smtp", hello="checker.example.org")
    assert result == (True, f"220 {NAME} ESMTP Postfix", None)
    said = postfix.wait_said("disconnect", before + 1)
    assert said.splitlines()[-1].endswith("ehlo=1 quit=1 commands=2")


async def test_postfix_over_tls(postfix: Mail, issued: Issued) -> None:
    """tls: true speaks TLS from the first byte, and the certificate's end is told."""
    files = CheckFiles(authorities=issued.authority)
    port = postfix.ports["smtps"]
    result = await ask(port, files, type="smtp", tls=True, server_name=NAME)
    assert result.passed, result
    assert result.certificate_ends is not None


async def test_postfix_speaks_no_lmtp(postfix: Mail) -> None:
    """Whoever answers LHLO with a refusal fails."""
    result = await ask(postfix.ports["smtp"], type="lmtp")
    assert not result.passed
    assert result.text.startswith("LHLO is refused: 5")


@pytest.mark.parametrize(
    ("where", "kind", "seen"),
    [
        ("imap", "imap", "* OK [CAPABILITY IMAP4rev1 "),
        ("imaps", "imap", "* OK [CAPABILITY IMAP4rev1 "),
        ("pop3", "pop3", "+OK ready"),
        ("pop3s", "pop3", "+OK ready"),
        ("lmtp", "lmtp", "220 "),
    ],
)
async def test_dovecot_is_greeted_and_left(
    dovecot: Mail, issued: Issued, where: str, kind: str, seen: str
) -> None:
    """Each protocol passes by its greeting, and its session ends with a logout."""
    ended = "Logged out" if kind == "lmtp" else "by logging out"
    before = dovecot.said().count(ended)
    over_tls = where.endswith("s")
    words = {"tls": True, "server_name": NAME} if over_tls else {}
    files = CheckFiles(authorities=issued.authority)
    result = await ask(dovecot.ports[where], files, type=kind, **words)
    assert result.passed, result
    assert result.text.startswith(seen)
    assert (result.certificate_ends is not None) is over_tls
    dovecot.wait_said(ended, before + 1)


# --- what is well though unusual -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "talk", "text"),
    [
        (
            "smtp",
            says(b"220-one\r\n220-two\r\n220 three\r\n", b"250 ok\r\n", b"221 bye\r\n"),
            "220-one",
        ),
        ("smtp", says(b"220\r\n", b"250-ok\r\n250 8BITMIME\r\n", b"221 bye\r\n"), "220"),
        ("smtp", says(b"220 hangs up\r\n", b"250 ok\r\n", b"", then_close=True), "220 hangs up"),
        ("imap", says(b"* PREAUTH welcome\r\n", b"* BYE\r\nx OK\r\n"), "* PREAUTH welcome"),
        ("imap", says(b"* ok hello\r\n", b"* BYE\r\n", then_close=True), "* ok hello"),
        ("pop3", says(b"+OK <1@x>\n", b"+OK bye\n"), "+OK <1@x>"),
        ("smtp", says(b"220 \x1b[31mred\xff\r\n", b"250 ok\r\n", b"221\r\n"), "220 ?[31mred\ufffd"),
    ],
)
async def test_passes(kind: str, talk: Talk, text: str) -> None:
    """Several lines, bare line ends, an early end after the last word: it lives."""
    async with served(talk) as server:
        assert await ask(server.port, type=kind) == (True, text, None)


async def test_says_nothing_before_the_greeting() -> None:
    """Our first word is EHLO, in answer to the whole greeting (D103)."""
    async with served(says(b"220 ready\r\n", b"250 ok\r\n", b"221 bye\r\n")) as server:
        await ask(server.port, type="smtp", hello="me.example.org")
        assert await server.all_said() == b"EHLO me.example.org\r\nQUIT\r\n"


# --- what is not ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "talk", "text"),
    [
        ("smtp", says(b"421 too busy\r\n"), "it refuses us: 421 too busy"),
        ("smtp", says(b"554-no\r\n554 never\r\n"), "it refuses us: 554-no"),
        ("smtp", says(b"220 a\r\n", b"502 what\r\n"), "EHLO is refused: 502 what"),
        ("lmtp", says(b"220 a\r\n", b"421 later\r\n"), "LHLO is refused: 421 later"),
        ("smtp", says(b"220 a", then_close=True), "it hung up in the midst of its greeting"),
        ("smtp", says(b"", then_close=True), "it hung up before its greeting"),
        ("smtp", says(b"HTTP/1.1 400 Bad\r\n"), "its greeting is none: HTTP/1.1 400 Bad"),
        ("smtp", says(b"220 a\r\n", b"", then_close=True), "it hung up before its answer to EHLO"),
        ("imap", says(b"* BYE overloaded\r\n"), "it refuses us: * BYE overloaded"),
        ("imap", says(b"220 smtp\r\n"), "its greeting is none: 220 smtp"),
        ("imap", says(b"\r\n"), "its greeting is none:"),
        ("pop3", says(b"-ERR no\r\n"), "it refuses us: -ERR no"),
        ("pop3", says(b"* OK imap\r\n"), "its greeting is none: * OK imap"),
        ("smtp", endless(b"x" * 1000), "its greeting is no line of at most 8192 bytes"),
        ("smtp", endless(b"220-a\r\n"), "its greeting has no end within 8192 bytes"),
        ("imap", endless(b"x" * 1000), "its greeting is no line of at most 8192 bytes"),
        ("pop3", endless(b"x" * 1000), "its greeting is no line of at most 8192 bytes"),
    ],
)
async def test_fails(kind: str, talk: Talk, text: str) -> None:
    """What refuses, hangs up, speaks something else or has no end fails, and the text says how."""
    async with served(talk) as server:
        assert await ask(server.port, type=kind) == (False, text, None)


@pytest.mark.parametrize("kind", ["smtp", "lmtp", "imap", "pop3"])
async def test_has_to_answer_in_time(kind: str) -> None:
    """The limit is for the whole probe: also for who is silent, and for who never stops."""
    for talk in (silent, dripping(b"220-a\r\n" if kind.endswith("mtp") else b"x")):
        async with served(talk) as server:
            result = await ask(server.port, type=kind, timeout="250ms")
        assert not result.passed
        assert result.text == "timed out after 0.25 s, waiting for its greeting"


async def test_leaves_politely_when_refused() -> None:
    """Who refuses us is told QUIT as well, and is left."""
    async with served(says(b"421 later\r\n")) as server:
        await ask(server.port, type="smtp")
        assert await server.all_said() == b"QUIT\r\n"
