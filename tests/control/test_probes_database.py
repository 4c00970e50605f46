"""Probes of MySQL, against MariaDB and what is broken: no handshake breaks off (D105 to D107)."""

import hashlib
import socket

import pytest

from proxy.control.probes.result import NO_FILES, CheckFiles
from tests.control.probed_servers import Talk, ask, endless, says, served, silent
from tests.control.real_servers import HOST, MariaDb, until

CHECKER = CheckFiles("checker", "a secret")
NONCE = bytes(range(1, 21))


def packet(number: int, content: bytes) -> bytes:
    """A packet of the protocol."""
    return len(content).to_bytes(3, "little") + bytes([number]) + content


def greeting(
    version: bytes = b"8.0.36", plugin: bytes = b"mysql_native_password", flags: int = 0x88205
) -> bytes:
    """A server's first packet."""
    content = b"\x0a" + version + b"\0" + (7).to_bytes(4, "little") + NONCE[:8] + b"\0"
    content += flags.to_bytes(4, "little")[:2] + b"\x21\0\0" + flags.to_bytes(4, "little")[2:]
    content += bytes([21]) + bytes(10) + NONCE[8:] + b"\0" + plugin + b"\0"
    return packet(0, content)


def error(number: int, code: int, text: bytes) -> bytes:
    """An error packet."""
    return packet(number, b"\xff" + code.to_bytes(2, "little") + text)


OK = b"\0\0\0\2\0\0\0"
DENIED = b"#28000Access denied"

# --- a real server -------------------------------------------------------------------------------


async def test_mariadb_never_counts_us_as_interrupted(mariadb: MariaDb) -> None:
    """200 probes log in and leave: no counter of failures moves, on which hosts are blocked."""
    names = ("Aborted_connects", "Aborted_connects_preauth", "Aborted_clients")
    before = [mariadb.status(name) for name in names]
    for files in (NO_FILES, CHECKER):
        for _ in range(100):
            result = await ask(mariadb.port, files, type="mysql")
            assert result.passed, result
            assert result.text.startswith("MariaDB 1")
    assert [mariadb.status(name) for name in names] == before


def test_who_hangs_up_after_the_greeting_is_counted(mariadb: MariaDb) -> None:
    """What the test above looks at does move for a probe that only reads the greeting (D107)."""
    before = mariadb.status("Aborted_connects_preauth")
    with socket.create_connection((HOST, mariadb.port)) as sock:
        sock.recv(4096)
    until(lambda: mariadb.status("Aborted_connects_preauth") > before, "it counts")


@pytest.mark.parametrize("files", [CheckFiles("checker", "wrong"), CheckFiles("nobody", "")])
async def test_mariadb_that_refuses_us_lives(mariadb: MariaDb, files: CheckFiles) -> None:
    """A refused login passes and says so; the handshake was completed."""
    before = mariadb.status("Aborted_connects_preauth")
    result = await ask(mariadb.port, files, type="mysql")
    assert result.passed
    assert "alive: error 1045, Access denied" in result.text
    assert mariadb.status("Aborted_connects_preauth") == before


# --- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("talk", "text"),
    [
        (says(greeting(), packet(2, OK)), "MySQL 8.0.36"),
        (says(greeting(b"5.5.5-10.4.6-MariaDB"), packet(2, OK)), "MariaDB 10.4.6"),
        (
            says(greeting(), error(2, 1045, DENIED)),
            "MySQL 8.0.36, alive: error 1045, Access denied",
        ),
        (
            says(greeting(), packet(2, b"\xfemysql_old\0abc\0"), error(4, 1045, DENIED)),
            "MySQL 8.0.36, alive: error 1045, Access denied",
        ),
        (
            says(error(0, 1130, b"Host 'x' is not allowed"), then_close=True),
            "MySQL, alive: error 1130, Host 'x' is not allowed",
        ),
    ],
)
async def test_passes(talk: Talk, text: str) -> None:
    """A login, or a refusal of it, passes."""
    async with served(talk) as server:
        assert await ask(server.port, type="mysql") == (True, text, None)


async def test_says_goodbye() -> None:
    """After the login comes COM_QUIT, in a sequence of its own."""
    async with served(says(greeting(), packet(2, OK))) as server:
        await ask(server.port, type="mysql")
        said = await server.all_said()
    assert b"balanceme\0" in said
    assert said.endswith(packet(0, b"\x01"))


@pytest.mark.parametrize("plugin", [b"mysql_native_password", b"caching_sha2_password"])
async def test_proves_the_password(plugin: bytes) -> None:
    """The password is proved by the server's plugin, in the login or once it is asked for."""
    if plugin.startswith(b"mysql"):
        once = hashlib.sha1(b"a secret").digest()
        mask = hashlib.sha1(NONCE + hashlib.sha1(once).digest()).digest()
    else:
        once = hashlib.sha256(b"a secret").digest()
        mask = hashlib.sha256(hashlib.sha256(once).digest() + NONCE).digest()
    proof = bytes(a ^ b for a, b in zip(once, mask, strict=True))
    done = (
        packet(2, b"\x01\x03") + packet(3, OK) if plugin.startswith(b"caching") else packet(2, OK)
    )
    async with served(says(greeting(plugin=plugin), done)) as server:
        assert (await ask(server.port, CHECKER, type="mysql")).text == "MySQL 8.0.36"
        assert bytes([len(proof)]) + proof + plugin in await server.all_said()
    switch = packet(2, b"\xfe" + plugin + b"\0" + NONCE + b"\0")
    async with served(says(greeting(plugin=b"other"), switch, packet(4, OK))) as server:
        assert (await ask(server.port, CHECKER, type="mysql")).passed
        assert packet(3, proof) in await server.all_said()


async def test_never_sends_a_password_in_the_clear() -> None:
    """A server that wants the password itself gets none, and may refuse us."""
    wants = packet(2, b"\x01\x04")
    first = greeting(plugin=b"caching_sha2_password")
    async with served(says(first, wants, error(4, 1045, DENIED))) as server:
        assert (await ask(server.port, CHECKER, type="mysql")).passed
        assert b"a secret" not in await server.all_said()


@pytest.mark.parametrize(
    ("talk", "text"),
    [
        (says(error(0, 1040, b"Too many")), "MySQL: error 1040, too many connections"),
        (
            says(error(0, 1129, b"Host is blocked")),
            "MySQL: error 1129, it has locked this host out; FLUSH HOSTS there lets it in again",
        ),
        (
            says(greeting(), error(2, 1040, b"#08004Too many")),
            "MySQL 8.0.36: error 1040, too many connections",
        ),
        (
            says(greeting(), error(2, 1053, b"#08S01Server shutdown in progress")),
            "MySQL 8.0.36: error 1053, Server shutdown in progress",
        ),
        (says(greeting(flags=5)), "MySQL 8.0.36 is older than 4.1, and can't be asked"),
        (says(greeting()[:30], then_close=True), "it hung up in the midst of its greeting"),
        (says(b"220 mail ESMTP\r\n"), "its greeting is none of MySQL's: 220"),
        (says(packet(0, b"\x09old")), "its greeting is none of MySQL's: old"),
        (says(greeting(), b"", then_close=True), "it hung up before its answer to a login"),
        (says(greeting(), packet(2, b"\x77")), "its answer to a login is none: w"),
        (
            says(greeting(), *[packet(2, b"\xfex\0y\0")] * 9),
            "its answers to a login have no end",
        ),
        (says(greeting() + packet(1, b"\x01\x03") * 90), "its answers to a login have no end"),
        (endless(b"\xff" * 1000), "its greeting is none of MySQL's: \ufffd\ufffd\ufffd\ufffd"),
    ],
)
async def test_fails(talk: Talk, text: str) -> None:
    """What is overloaded, has locked us out, goes down, or is no MySQL fails."""
    async with served(talk) as server:
        assert await ask(server.port, type="mysql") == (False, text, None)


async def test_has_to_answer_in_time() -> None:
    """Each step of the handshake has the whole probe's limit."""
    for talk, what in ((silent, "its greeting"), (says(greeting()), "its answer to a login")):
        async with served(talk) as server:
            result = await ask(server.port, type="mysql", timeout="250ms")
        assert result == (False, f"timed out after 0.25 s, waiting for {what}", None)
