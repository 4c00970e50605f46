"""Requests that we answer ourselves, and what with."""

import re
from collections.abc import Collection

from proxy.core.errors import ClientError
from proxy.core.fields import host_and_port
from proxy.core.headers import max_forwards
from proxy.core.heads import RequestHead, ResponseHead
from proxy.core.mapping import read_target
from proxy.core.pages import OwnAnswer

# Seconds until a client may try again when no member can take its request (D25).
_RETRY_AFTER = b"Retry-After: 10\r\n"
_ALLOW = b"Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS\r\n"

# RFC 9110 section 7.8; a list of several is none of them.
_PROTOCOL = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+(?:/[!#$%&'*+.^_`|~0-9a-z-]+)?")

# Only these methods, and heads with unusual fields, can have an answer of ours.
OWN_METHODS = frozenset((b"CONNECT", b"OPTIONS", b"TRACE"))


def without_mapping(head: RequestHead) -> OwnAnswer | None:
    """The answer to a request that concerns no member at all (R15, R17, R18)."""
    if head.method == b"CONNECT":
        # A reverse proxy opens no way to anywhere (H27).
        return OwnAnswer(405, lines=_ALLOW)
    if head.target == b"*" and head.method == b"OPTIONS":
        return OwnAnswer(200, body=b"")
    if head.known.get(b"expect", b"").lower() not in (b"", b"100-continue"):
        return OwnAnswer(417)
    return None


def redirect_to_https(head: RequestHead, server_name: str, port: int) -> OwnAnswer:
    """The same address with https; methods that may have a body keep it (RFC 9110 15.4.9)."""
    try:
        target = read_target(head.target)
    except ClientError as error:
        return OwnAnswer(error.status)
    parts = host_and_port(target.host or head.host or b"")
    host = parts[0] if parts else server_name.encode()
    place = b"" if port == 443 else b":%d" % port
    status = 301 if head.method in (b"GET", b"HEAD") else 308
    address = b"https://%b%b%b" % (host, place, target.text)
    return OwnAnswer(status, lines=b"Location: %b\r\n" % address, body=b"")


def without_member(head: RequestHead, *, apache: bool) -> OwnAnswer | None:
    """The answer to a request that is mapped but not passed on (R16, R17, H29)."""
    if head.method == b"TRACE" and not apache:
        return OwnAnswer(405, lines=_ALLOW)
    left = head.joined(b"max-forwards")
    if left is None:
        return None
    try:
        if max_forwards(left) > 0:
            return None
    except ClientError:
        return OwnAnswer(400, "Proxy Error")
    return OwnAnswer(200, body=b"") if head.method == b"OPTIONS" else OwnAnswer(400, "Proxy Error")


def unavailable(*, apache: bool) -> OwnAnswer:
    """No member can take the request (B17, D25)."""
    return OwnAnswer(503, lines=b"" if apache else _RETRY_AFTER)


def health(*, leaving: bool) -> OwnAnswer:
    """What those before us are told: whether to send us clients."""
    if leaving:
        return OwnAnswer(503, lines=_RETRY_AFTER, body=b"leaving\n")
    return OwnAnswer(200, body=b"serving\n")


def upgrade_protocol(head: RequestHead, allowed: Collection[bytes]) -> bytes | None:
    """The protocol that the client wants to change to, if it is one of ``allowed`` (R22, H82).

    ``allowed`` are lower-case names; ``any`` stands for every protocol but HTTP and TLS, which
    would change how the connection itself is read.
    """
    if not allowed or b"upgrade" not in head.options or not head.minor:
        return None
    protocol = head.known.get(b"upgrade", b"")
    return protocol if _is_allowed(protocol, allowed) else None


def offered_protocol(head: ResponseHead, allowed: Collection[bytes]) -> bytes | None:
    """The protocol that a member offers to change to, if it is one of ``allowed`` (P27)."""
    protocol = head.known.get(b"upgrade", b"")
    return protocol if _is_allowed(protocol, allowed) else None


def _is_allowed(protocol: bytes, allowed: Collection[bytes]) -> bool:
    name = protocol.lower()
    if _PROTOCOL.fullmatch(name) is None or name.startswith((b"h2", b"http/", b"tls/")):
        return False
    return name in allowed or b"any" in allowed
