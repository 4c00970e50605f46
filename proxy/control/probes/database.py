"""Asking MySQL and MariaDB, by a whole login and a goodbye (D105 to D107).

Whoever reads the greeting and hangs up is counted as an interrupted handshake; after some of them
the server locks the host out, and with it the groupware that runs there. So a handshake that has
begun is always completed here: by a login, or by the server's refusal of one, which shows as well
that it lives. An account without password and without rights that is called ``USER`` makes it a
login.
"""

import hashlib
import re
from typing import NamedTuple

from proxy.control.probes.line import MOST_READ, Line
from proxy.control.probes.result import CheckFiles, ProbeError, Target, told
from proxy.core.settings import HealthCheck

# Who logs in without a credentials_file.
USER = "balanceme"

# Client capabilities: long password and flags, protocol 4.1, authentication of 4.1, and by plugin.
_LONG_PASSWORD, _LONG_FLAG, _PROTOCOL_41 = 0x1, 0x4, 0x200
_SECURE, _PLUGINS = 0x8000, 0x80000
_WANTED = _LONG_PASSWORD | _LONG_FLAG | _PROTOCOL_41 | _SECURE | _PLUGINS
_OK, _MORE, _SWITCH, _ERROR = 0x00, 0x01, 0xFE, 0xFF
_COM_QUIT = b"\x01"
_NATIVE, _SHA2 = b"mysql_native_password", b"caching_sha2_password"
# What caching_sha2_password says when it wants the password itself, which only TLS may carry.
_FULL_LOGIN = b"\x04"
# Packets of the server's from our login on: a switch of plugins, two of a plugin's own, and OK.
_MOST_TURNS = 6
# Refusals of an account or of how it logs in, from a server that works: no rights, wrong password,
# host not allowed, plugins that we don't have, expired, locked, only over TLS.
_NO_LOGIN = {1044, 1045, 1130, 1251, 1275, 1524, 1698, 1820, 1862, 3118, 3159, 4151}
_IN_WORDS = {
    1040: "too many connections",
    1129: "it has locked this host out; FLUSH HOSTS there lets it in again",
}


class _Refused(NamedTuple):
    """An error packet."""

    code: int
    message: str

    def judge(self, version: str) -> str:
        """What it means; raises ProbeError for a server that doesn't work."""
        if self.code not in _NO_LOGIN:
            words = _IN_WORDS.get(self.code, told(self.message))
            raise ProbeError(f"{version}: error {self.code}, {words}")
        return f"{version}, alive: error {self.code}, {told(self.message)}"


async def mysql(line: Line, check: HealthCheck, target: Target, files: CheckFiles) -> str:
    """Log in and quit; the server's version. Raises ProbeError."""
    await line.open(check, target, 3306)
    number, greeting = await _packet(line, "its greeting")
    if greeting[:1] == bytes([_ERROR]):
        return _refusal(greeting).judge("MySQL")
    server = _greeting(greeting)
    refused = await _log_in(line, number, server, files)
    if refused is not None:
        return refused.judge(server.version)
    line.write(_framed(0, _COM_QUIT))
    return server.version


# --- the login -----------------------------------------------------------------------------------


class _Server(NamedTuple):
    """What a greeting says."""

    version: str
    nonce: bytes
    capabilities: int
    plugin: bytes


def _greeting(greeting: bytes) -> _Server:
    """Read protocol 10; raises ProbeError for anything else."""
    version, _, rest = greeting[1:].partition(b"\0")
    # connection id, 8 bytes of nonce, 0, capabilities, then character set, status, capabilities
    if greeting[:1] != b"\x0a" or len(rest) < 31:
        raise ProbeError(f"its greeting is none of MySQL's: {told(greeting[:40])}")
    capabilities = (
        int.from_bytes(rest[13:15], "little") | int.from_bytes(rest[18:20], "little") << 16
    )
    if not capabilities & _PROTOCOL_41:
        raise ProbeError(f"{_named(version)} is older than 4.1, and can't be asked")
    length = max(12, rest[20] - 9)
    nonce = rest[4:12] + rest[31 : 31 + length]
    plugin = rest[31 + max(13, rest[20] - 8) :].partition(b"\0")[0]
    return _Server(_named(version), nonce[:20], capabilities, plugin or _NATIVE)


def _named(version: bytes) -> str:
    """``MariaDB 10.11.6``, from what is meant for programs (D105)."""
    text = version.decode("ascii", "replace")
    product = "MariaDB" if "mariadb" in text.lower() else "MySQL"
    if product == "MariaDB":
        text = text.removeprefix("5.5.5-")
    number = re.match(r"[0-9]+(\.[0-9]+)*", text)
    return f"{product} {number[0] if number else told(text, 40)}"


async def _log_in(line: Line, number: int, server: _Server, files: CheckFiles) -> _Refused | None:
    """Complete the handshake: None once we are in, or the refusal. Raises ProbeError."""
    password = (files.password or "").encode()
    plugin = server.plugin
    flags = _WANTED & server.capabilities
    proof = _proof(plugin, password, server.nonce)
    packet = flags.to_bytes(4, "little") + (1 << 24).to_bytes(4, "little") + b"\x21" + bytes(23)
    packet += (files.user or USER).encode() + b"\0" + bytes([len(proof)]) + proof
    packet += plugin + b"\0" if flags & _PLUGINS else b""
    line.write(_framed(number + 1, packet))
    for _ in range(_MOST_TURNS):
        number, answer = await _packet(line, "its answer to a login")
        kind = answer[0]
        if kind == _OK:
            return None
        if kind == _ERROR:
            return _refusal(answer)
        if kind == _SWITCH:
            plugin, _, nonce = answer[1:].partition(b"\0")
            line.write(_framed(number + 1, _proof(plugin or _NATIVE, password, nonce[:20])))
        elif kind != _MORE:
            raise ProbeError(f"its answer to a login is none: {told(answer[:40])}")
        elif answer[1:2] == _FULL_LOGIN:
            # The password itself isn't sent in the clear: an empty one lets the server refuse us.
            line.write(_framed(number + 1, b"\0"))
    raise ProbeError("its answers to a login have no end")


def _proof(plugin: bytes, password: bytes, nonce: bytes) -> bytes:
    """What proves the password to a plugin; nothing without one, or to a plugin we don't have."""
    if not password:
        return b""
    if plugin == _NATIVE:
        once = _sha1(password)
        return _xor(once, _sha1(nonce + _sha1(once)))
    if plugin == _SHA2:
        once = hashlib.sha256(password).digest()
        twice = hashlib.sha256(once).digest()
        return _xor(once, hashlib.sha256(twice + nonce).digest())
    return b""


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data).digest()  # noqa: S324 - the protocol's


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


# --- packets -------------------------------------------------------------------------------------


def _refusal(packet: bytes) -> _Refused:
    """An error packet: code, maybe # and an SQL state, and words (D106)."""
    message = packet[3:]
    if message.startswith(b"#"):
        message = message[6:]
    return _Refused(int.from_bytes(packet[1:3], "little"), message.decode("utf-8", "replace"))


async def _packet(line: Line, what: str) -> tuple[int, bytes]:
    """The next packet's number and content. Raises ProbeError."""
    head = await line.read_exactly(4, what)
    length = int.from_bytes(head[:3], "little")
    if not 1 <= length <= MOST_READ:
        raise ProbeError(f"{what} is none of MySQL's: {told(head)}")
    return head[3], await line.read_exactly(length, what)


def _framed(number: int, content: bytes) -> bytes:
    return len(content).to_bytes(3, "little") + bytes([number & 0xFF]) + content
