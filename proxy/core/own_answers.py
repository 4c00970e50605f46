"""Requests that we answer ourselves, and what with."""

from collections.abc import Collection

from proxy.core.errors import ClientError
from proxy.core.headers import max_forwards
from proxy.core.http1 import RequestHead, host_and_port
from proxy.core.mapping import read_target
from proxy.core.pages import OwnAnswer

# Seconds until a client may try again when no member can take its request (D25).
_RETRY_AFTER = b"Retry-After: 10\r\n"
_ALLOW = b"Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS\r\n"


def without_mapping(head: RequestHead) -> OwnAnswer | None:
    """The answer to a request that concerns no member at all (R17, R18)."""
    if head.method == b"CONNECT":
        # A reverse proxy opens no way to anywhere (H27).
        return OwnAnswer(405, lines=_ALLOW)
    if head.target == b"*" and head.method == b"OPTIONS":
        return OwnAnswer(200, body=b"")
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
    address = b"https://%b%b%b%b" % (host, place, target.path, target.query)
    return OwnAnswer(status, lines=b"Location: %b\r\n" % address, body=b"")


def without_member(head: RequestHead, *, apache: bool) -> OwnAnswer | None:
    """The answer to a request that is mapped but not passed on (R15, R16, R17, H29)."""
    known = head.known
    if b"expect" in known and known[b"expect"].lower() != b"100-continue":
        return OwnAnswer(417)
    if head.method == b"TRACE" and not apache:
        return OwnAnswer(405, lines=_ALLOW)
    if b"max-forwards" not in known:
        return None
    try:
        if max_forwards(known[b"max-forwards"]) > 0:
            return None
    except ClientError:
        return OwnAnswer(400, "Proxy Error")
    return OwnAnswer(200, body=b"") if head.method == b"OPTIONS" else OwnAnswer(400, "Proxy Error")


def unavailable(*, apache: bool) -> OwnAnswer:
    """No member can take the request (B17, D25)."""
    return OwnAnswer(503, lines=b"" if apache else _RETRY_AFTER)


def upgrade_protocol(head: RequestHead, allowed: Collection[bytes]) -> bytes | None:
    """The protocol that the client wants to change to, if it is one of ``allowed`` (R22, H82).

    ``allowed`` are lower-case names; ``any`` stands for every protocol.
    """
    if not allowed or b"upgrade" not in head.options or not head.minor:
        return None
    protocol = head.known.get(b"upgrade", b"")
    fits = protocol.lower() in allowed or (b"any" in allowed and bool(protocol))
    return protocol if fits else None
