"""Asking over HTTP: web servers, Zarafa's own server, ActiveSync (D96 to D100, D110).

One request on a connection of its own, which says that it is the only one. The answer's head is
read as strictly as those of members' answers to clients; of its body no more than the check needs.
"""

import base64
import re
from typing import NamedTuple

from proxy.control.probes.line import Line
from proxy.control.probes.result import CheckFiles, ProbeError, Target, told
from proxy.core.errors import MemberError
from proxy.core.framing import FramingError, response_body
from proxy.core.heads import ResponseHead
from proxy.core.http1 import Limits, read_response_head
from proxy.core.settings import CheckType, HealthCheck
from proxy.core.values import among_statuses

# Bytes of a body that its pattern may match.
MOST_BODY = 65536
# 100 and 103 may come before the answer; nobody sends many (RFC 9110 section 15.2).
_MOST_INTERIM = 4
_LIMITS = Limits(request_line=16384, field=16384, fields=200, head=65536)
_PIECE = 16384
_OUTCOME = "its answer"


class _Asked(NamedTuple):
    """What a type of check asks for, unless the check says otherwise."""

    method: str
    path: str
    port: int
    scheme: str
    statuses: tuple[str, ...]


def _asked(check: HealthCheck, target: Target, files: CheckFiles) -> _Asked:
    kind, scheme = check.type, "https" if check.tls else "http"
    if kind is CheckType.HTTP:
        return _Asked(check.method, "/", target.port, "http", ("200-399",))
    if kind is CheckType.HTTPS:
        return _Asked(check.method, "/", 443, "https", ("200-399",))
    if kind is CheckType.ZARAFA:
        # It speaks SOAP, which is posted (D100).
        return _Asked("GET", "/", 237 if check.tls else 236, scheme, ("405",))
    statuses = ("401",) if files.user is None else ("200",)
    port = 443 if check.tls else target.port
    return _Asked("OPTIONS", "/Microsoft-Server-ActiveSync", port, scheme, statuses)


async def ask(line: Line, check: HealthCheck, target: Target, files: CheckFiles) -> str:
    """Ask, and judge the answer; what was seen. Raises ProbeError."""
    asked = _asked(check, target, files)
    await line.open(check, target, asked.port, files if asked.scheme == "https" else None)
    line.write(_request(asked, check, target, files))
    try:
        head, rest = await _read_head(line)
        seen = told(b"%d %b" % (head.status, head.reason))
        if not among_statuses(head.status, check.statuses or asked.statuses):
            raise ProbeError(f"{seen}{_hint(head)}, and not {_listed(check, asked)}")
        if check.body is not None:
            await _match(line, head, asked.method, rest, check.body)
    except (MemberError, FramingError) as error:
        raise ProbeError(f"no HTTP: {error}") from error
    if check.type is CheckType.ACTIVESYNC and not check.statuses:
        return seen + _activesync(head)
    return seen


def _listed(check: HealthCheck, asked: _Asked) -> str:
    return " or ".join(check.statuses or asked.statuses)


def _hint(head: ResponseHead) -> str:
    """A missing groupware server shows as 503 with the time of the next try (D97)."""
    again = head.known.get(b"retry-after")
    return "" if again is None else f" (Retry-After: {told(again, 20)})"


def _request(asked: _Asked, check: HealthCheck, target: Target, files: CheckFiles) -> bytes:
    host, port = check.host or target.host, check.port or asked.port
    bracketed = f"[{host}]" if ":" in host else host
    usual = 443 if asked.scheme == "https" else 80
    authority = bracketed if port == usual else f"{bracketed}:{port}"
    lines = [
        f"{asked.method} {check.path or asked.path} HTTP/1.1",
        f"Host: {check.host_field or authority}",
        "User-Agent: balanceme",
        "Accept: */*",
        "Connection: close",
    ]
    if files.user is not None:
        secret = base64.b64encode(f"{files.user}:{files.password or ''}".encode()).decode()
        lines.append(f"Authorization: Basic {secret}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


async def _read_head(line: Line) -> tuple[ResponseHead, bytes]:
    """The answer's head, and what came behind it."""
    data, interim = b"", 0
    while True:
        found = read_response_head(data, _LIMITS) if data else None
        if found is None:
            piece = await line.read_some(_PIECE, _OUTCOME)
            if not piece:
                cut = "in the midst of" if data else "before"
                raise ProbeError(f"it hung up {cut} {_OUTCOME}")
            data += piece
            continue
        head, end = found
        data = data[end:]
        # 101 is no answer to a request that didn't ask for it; it is judged like any other.
        if head.status >= 200 or head.status == 101:
            return head, data
        interim += 1
        if interim > _MOST_INTERIM:
            raise ProbeError(f"more than {_MOST_INTERIM} answers before the answer")


async def _match(line: Line, head: ResponseHead, method: str, rest: bytes, pattern: str) -> None:
    """Read the body as far as it counts; raises ProbeError if the pattern isn't in it."""
    body = response_body(head, method.encode(), _LIMITS)
    found = b""
    if body is not None:
        found = body.feed(rest) if rest else b""
        while not body.complete and len(found) < MOST_BODY:
            piece = await line.read_some(_PIECE, "the body")
            if not piece:
                break  # it ends with its connection, or is cut; what is there can match
            found += body.feed(piece)
    if re.search(pattern, found[:MOST_BODY].decode("utf-8", "replace")) is None:
        raise ProbeError(f"{head.status}, and its body doesn't match {told(pattern, 60)}")


def _activesync(head: ResponseHead) -> str:
    """What more an ActiveSync server says, if it is one (D96, D97); raises ProbeError."""
    if head.status == 401:
        if b"www-authenticate" not in head.known:
            raise ProbeError("401 without WWW-Authenticate: no ActiveSync server asks so")
        return ", asks for a login"
    versions = head.joined(b"ms-asprotocolversions")
    if versions is None:
        raise ProbeError(f"{head.status} without MS-ASProtocolVersions: no ActiveSync server")
    return f", versions {told(versions, 80)}"
