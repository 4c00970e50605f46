"""Asking mail servers: SMTP and LMTP, IMAP, POP3 (D101 to D104).

Each speaks first, and is let finish before we say a word: a server may punish who talks early.
Each is told that we leave, also one that refuses us, so that nothing is left waiting for us.
"""

import re
import socket

from proxy.control.probes.line import MOST_READ, Line
from proxy.control.probes.result import CheckFiles, ProbeError, Target, told
from proxy.core.settings import CheckType, HealthCheck

# RFC 5321 section 4.2
_REPLY = re.compile(rb"([2-5][0-9]{2})([ -].*)?")
_GREETING, _FAREWELL = "its greeting", "its farewell"
# Characters that a name in EHLO may have (RFC 5321 section 4.1.2), and what host names have more.
_HELLO = re.compile(r"[A-Za-z0-9_.-]+")


async def smtp(line: Line, check: HealthCheck, target: Target, files: CheckFiles) -> str:
    """Greeting, EHLO or LHLO, QUIT; the greeting. Raises ProbeError."""
    is_lmtp = check.type is CheckType.LMTP
    # Zarafa's dagent listens on 2003; 465 is SMTP over TLS (RFC 8314 section 3.3).
    port = 2003 if is_lmtp else 465 if check.tls else 25
    await line.open(check, target, port, files if check.tls else None)
    code, text = await _reply(line, _GREETING)
    if code != 220:
        line.write(b"QUIT\r\n")
        raise ProbeError(f"it refuses us: {told(text)}")
    command = "LHLO" if is_lmtp else "EHLO"
    line.write(f"{command} {_hello(check)}\r\n".encode("ascii"))
    code, answer = await _reply(line, f"its answer to {command}")
    line.write(b"QUIT\r\n")
    if code != 250:
        raise ProbeError(f"{command} is refused: {told(answer)}")
    try:
        await _reply(line, _FAREWELL)
    except ProbeError:
        pass  # it has shown all that was asked for, and some just hang up
    return told(text)


def _hello(check: HealthCheck) -> str:
    name = check.hello or socket.gethostname()
    return name if _HELLO.fullmatch(name) else "localhost"


async def _reply(line: Line, what: str) -> tuple[int, bytes]:
    """A reply of one line or several: its code, and its first line. Raises ProbeError."""
    first, read = b"", 0
    while read < MOST_READ:
        text = await line.read_line(what)
        read += len(text) + 1
        found = _REPLY.fullmatch(text)
        if found is None:
            raise ProbeError(f"{what} is none: {told(text)}")
        first = first or text
        if not (found[2] or b"").startswith(b"-"):
            return int(found[1]), first
    raise ProbeError(f"{what} has no end within {MOST_READ} bytes")


async def imap(line: Line, check: HealthCheck, target: Target, files: CheckFiles) -> str:
    """Greeting and LOGOUT; the greeting. Raises ProbeError."""
    await line.open(check, target, 993 if check.tls else 143, files if check.tls else None)
    greeting = await line.read_line(_GREETING)
    words = greeting.upper().split(maxsplit=2)
    if words[:1] != [b"*"] or len(words) < 2 or words[1] not in (b"OK", b"PREAUTH", b"BYE"):
        raise ProbeError(f"its greeting is none: {told(greeting)}")
    if words[1] == b"BYE":
        raise ProbeError(f"it refuses us: {told(greeting)}")
    line.write(b"x LOGOUT\r\n")
    try:
        read = 0
        while read < MOST_READ and not (answer := await line.read_line(_FAREWELL)).startswith(
            b"x "
        ):
            read += len(answer) + 1
    except ProbeError:
        pass  # it may hang up with its untagged BYE
    return told(greeting)


async def pop3(line: Line, check: HealthCheck, target: Target, files: CheckFiles) -> str:
    """Greeting and QUIT; the greeting. Raises ProbeError."""
    await line.open(check, target, 995 if check.tls else 110, files if check.tls else None)
    greeting = await line.read_line(_GREETING)
    if not greeting.startswith((b"+OK", b"-ERR")):
        raise ProbeError(f"its greeting is none: {told(greeting)}")
    line.write(b"QUIT\r\n")
    if greeting.startswith(b"-ERR"):
        raise ProbeError(f"it refuses us: {told(greeting)}")
    try:
        await line.read_line(_FAREWELL)
    except ProbeError:
        pass  # as above
    return told(greeting)
