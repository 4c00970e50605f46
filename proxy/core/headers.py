"""The heads we write: a request's for the member, a response's for the client.

Each is built anew from what ``http1`` understood. Fields that belong to one connection go first,
whatever the message names in Connection, and only then our own are added, so that nobody can have
ours removed (RFC 9110 section 7.6.1, H40, H41).
"""

import re
from collections.abc import Callable, Collection, Iterable
from email.utils import formatdate, mktime_tz, parsedate_tz

from proxy.core.errors import ClientError
from proxy.core.fields import Field
from proxy.core.heads import RequestHead, ResponseHead
from proxy.core.rewriting import LOCATION_FIELDS, Rewriting

# RFC 9110 section 7.6.1 and R5; lengths and codings are written anew with the body's framing.
_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_FORWARDED = frozenset(
    (b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-server", b"x-forwarded-proto")
)
# What a client could say about itself, only to be believed of a trusted proxy (H43); Proxy would
# become HTTP_PROXY in a CGI program (D92).
_CLAIMS = frozenset(
    (
        b"client-ip",
        b"forwarded",
        b"front-end-https",
        b"proxy",
        b"true-client-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-ssl",
        b"x-original-url",
        b"x-real-ip",
        b"x-rewrite-url",
    )
)
# How fields begin with which proxies tell of a client's certificate.
_CLAIMS_OF_TLS = (b"ssl-client-", b"x-ssl-client-", b"ssl_client_", b"x-client-cert")
_REQUEST_DROPPED = _HOP_BY_HOP | _FORWARDED | _CLAIMS | {b"host", b"http2-settings"}
_TRUSTED_DROPPED = _HOP_BY_HOP | _FORWARDED | {b"host", b"http2-settings", b"proxy"}
_APACHE_DROPPED = _HOP_BY_HOP | {b"host"}
# What Connection can't take from a message: who named these would strip a request of its identity,
# or an answer of what protects its reader (RFC 9110 section 7.6.1 forbids to name them).
_END_TO_END = frozenset(
    (
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-security-policy",
        b"content-type",
        b"cookie",
        b"host",
        b"origin",
        b"range",
        b"referer",
        b"set-cookie",
        b"strict-transport-security",
        b"vary",
        b"www-authenticate",
        b"x-content-type-options",
        b"x-frame-options",
        b"x-ms-policykey",
    )
)
# What Apache keeps of them: naming it never alters the framing (H14).
_FRAMING = frozenset((b"content-length",))
# What a CGI program takes for one of these, since it reads _ and - alike (H23).
_TWINS = (
    _HOP_BY_HOP
    | _FORWARDED
    | _CLAIMS
    | {b"authorization", b"content-type", b"cookie", b"expect", b"host", b"proxy-authorization"}
)
# P5; Content-Length stays where the body keeps its length. Date, Server and Set-Cookie move.
_RESPONSE_DROPPED = frozenset(
    (
        b"connection",
        b"date",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"server",
        b"set-cookie",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_RESPONSE_DROPPED_LENGTH = _RESPONSE_DROPPED | {b"content-length"}
# Options that name no field worth removing: the usual case needs no set of its own.
_USUAL_OPTIONS = frozenset((b"keep-alive", b"close", b"upgrade", b"te"))
# Under this key a response's block keeps its Date and Server; under True and False its other
# lines, with and without Content-Length.
START = "start"
_DATES = (b"date", b"expires", b"last-modified")


class Forwarded:
    """What members are told about a client, for one connection (R7, D29, D30)."""

    __slots__ = (
        "_after_host",
        "_host",
        "_lines",
        "address",
        "apache",
        "client",
        "proto",
        "server_name",
        "trusted",
    )

    def __init__(self, client: str, server_name: str, *, tls: bool, trusted: bool) -> None:
        self.address = client
        self.client = client.encode()
        self.server_name = server_name.encode()
        self.proto = b"https" if tls else b"http"
        self.trusted = trusted
        self.apache = False
        # the lines for the last Host, mostly the only one
        self._host: bytes | None = b""
        self._lines = b""
        self._after_host = b"X-Forwarded-Server: %b\r\nX-Forwarded-Proto: %b\r\n" % (
            self.server_name,
            self.proto,
        )

    def lines(self, head: RequestHead, host: bytes | None) -> bytes:
        """The X-Forwarded lines for one request; a client's own values are replaced.

        ``host`` is what was asked for: a host in the target counts more than the field (H27).
        """
        if self.apache:
            return b""  # they stand among the fields
        if self.trusted and not _FORWARDED.isdisjoint(head.known):
            return self._appended(head, host)
        if host != self._host:
            self._host = host
            middle = b"" if host is None else b"X-Forwarded-Host: %b\r\n" % host
            self._lines = b"X-Forwarded-For: %b\r\n%b%b" % (self.client, middle, self._after_host)
        return self._lines

    def own(self, host: bytes | None) -> list[tuple[bytes, bytes, bytes | None]]:
        """Key, name and our value of the three fields that Apache adds."""
        return [
            (b"x-forwarded-for", b"X-Forwarded-For", self.client),
            (b"x-forwarded-host", b"X-Forwarded-Host", host),
            (b"x-forwarded-server", b"X-Forwarded-Server", self.server_name),
        ]

    def _appended(self, head: RequestHead, host: bytes | None) -> bytes:
        """A trusted proxy's values, with ours behind them; its scheme counts."""
        lines = []
        for key, name, value in self.own(host):
            values = [part for part in (head.joined(key), value) if part]
            if values:
                lines.append(b"%b: %b\r\n" % (name, b", ".join(values)))
        proto = head.known.get(b"x-forwarded-proto", b"").lower()
        proto = proto if proto in (b"http", b"https") else self.proto
        lines.append(b"X-Forwarded-Proto: %b\r\n" % proto)
        return b"".join(lines)


def member_request(
    head: RequestHead, target: bytes, host: bytes, forwarded: Forwarded, tail: bytes
) -> bytes:
    """The request head for a member (R1 to R9).

    ``target`` is the mapped path with the query, ``tail`` our own lines: of the client, the
    body's framing and the connection. Raises ClientError for a malformed Max-Forwards (R16).
    """
    if forwarded.apache:
        lines = b"".join(_apache_fields(head, forwarded))
    else:
        block = head.block
        lines = block.lines.get(forwarded.trusted, b"")
        if not lines:
            lines = _member_lines(head, trusted=forwarded.trusted)
            if not block.unusual:
                block.lines[forwarded.trusted] = lines
    start = (head.method, b" ", target, b" HTTP/1.1\r\nHost: ", host, b"\r\n")
    return b"".join((*start, lines, tail, b"\r\n"))


def _member_lines(head: RequestHead, *, trusted: bool) -> bytes:
    """The client's field lines for a member, but for Host and those of framing and connection.

    They depend on the block alone, which keeps them, except where a field is unusual.
    """
    fields = head.fields
    if b"max-forwards" in head.known:
        fields = _fewer_forwards(fields)
    dropped = _TRUSTED_DROPPED if trusted else _REQUEST_DROPPED
    if b"expect" in head.known and not head.expects_continue:
        dropped |= {b"expect"}
    if not head.options <= _USUAL_OPTIONS:
        dropped |= head.options - _END_TO_END
    dropped |= {key for key in head.known if b"_" in key and key.replace(b"_", b"-") in _TWINS}
    if not trusted:
        dropped |= {key for key in head.known if key.startswith(_CLAIMS_OF_TLS)}
    return _lines(fields, dropped)


def _lines(fields: Iterable[Field], dropped: Collection[bytes]) -> bytes:
    """The field lines whose keys are not in ``dropped``."""
    return b"".join(
        [b"%b: %b\r\n" % (name, value) for key, name, value in fields if key not in dropped]
    )


def _apache_fields(head: RequestHead, forwarded: Forwarded) -> list[bytes]:
    """The fields as Apache sends them: equal names joined, ours behind the client's (R3, R7)."""
    fields = head.fields
    if b"max-forwards" in head.known:
        fields = _fewer_forwards(fields)
    dropped = _APACHE_DROPPED | head.options
    if head.known.get(b"expect") == b"":
        dropped |= {b"expect"}
    merged: dict[bytes, tuple[bytes, bytes]] = {}
    for key, name, value in fields:
        if key in dropped:
            continue
        if key in merged:
            spelling, before = merged[key]
            merged[key] = (spelling, b"%b, %b" % (before, value))
        else:
            merged[key] = (name, value)
    for key, name, own in forwarded.own(head.host):
        if own is None:
            continue
        spelling, sent = merged.get(key, (name, None))
        merged[key] = (spelling, own if sent is None else b"%b, %b" % (sent, own))
    return [b"%b: %b\r\n" % field for field in merged.values()]


def _fewer_forwards(fields: Iterable[Field]) -> list[Field]:
    return [
        (key, name, b"%d" % (max_forwards(value) - 1) if key == b"max-forwards" else value)
        for key, name, value in fields
    ]


def max_forwards(value: bytes) -> int:
    """Max-Forwards as a number; raises ClientError if it is none (R16)."""
    if not re.fullmatch(rb"[0-9]{1,10}", value):
        raise ClientError(400, "malformed Max-Forwards")
    return int(value)


def framing_line(head: RequestHead, whole: int | None) -> tuple[bytes, bool]:
    """How the member learns of the body's end, and whether that is by chunks (R9).

    ``whole`` is the body's length if all of it is there already: a chunked body that is gets a
    length.
    """
    block = head.block
    if not block.chunked:
        if block.content_length is None:
            return b"", False
        return b"Content-Length: %d\r\n" % block.content_length, False
    if whole is not None and not head.expects_continue:
        return b"Content-Length: %d\r\n" % whole, False
    return b"Transfer-Encoding: chunked\r\n", True


# --- responses ---------------------------------------------------------------------------------


def own_start(head: ResponseHead, date: bytes, server: bytes) -> bytes:
    """Date and Server of a member's response, ours where it has none (P4).

    Without need of ours they depend on the block alone, which keeps them.
    """
    block = head.block
    theirs = [None if k in block.options else block.known.get(k) for k in (b"date", b"server")]
    lines = b"Date: %b\r\nServer: %b\r\n" % (
        date if theirs[0] is None else _date(theirs[0]),
        server if theirs[1] is None else theirs[1],
    )
    if None not in theirs:
        block.lines[START] = lines
    return lines


def client_lines(
    head: ResponseHead, rewriting: Rewriting, base: Callable[[], bytes], *, length: bool
) -> bytes:
    """A member's field lines for the client, but for Date and Server (P2 to P5, P10 to P16).

    ``base`` gives our ``https://host`` for this request, ``length`` tells whether Content-Length
    stays. Where nothing is rewritten they depend on the block alone, which keeps them.
    """
    lines = _client_lines(head, rewriting, base, length=length)
    unusual = not head.options <= _USUAL_OPTIONS
    if not unusual and head.known.keys().isdisjoint(_DEPEND_ON_MAPPING):
        head.block.lines[length] = lines
    return lines


def _client_lines(
    head: ResponseHead, rewriting: Rewriting, base: Callable[[], bytes], *, length: bool
) -> bytes:
    """A member's field lines for the client, Set-Cookie behind the others (P3)."""
    fields = head.fields
    if not head.known.keys().isdisjoint(_REWRITTEN):
        fields = _rewritten(fields, rewriting, base)
    dropped = _RESPONSE_DROPPED if length else _RESPONSE_DROPPED_LENGTH
    kept = _FRAMING if rewriting.apache else _END_TO_END
    named = head.options - kept
    if not head.options <= _USUAL_OPTIONS:
        dropped |= named
    lines = _lines(fields, dropped)
    if b"set-cookie" in head.known and b"set-cookie" not in named:
        lines += _lines([field for field in fields if field[0] == b"set-cookie"], ())
    return lines


def interim_response(head: ResponseHead) -> bytes:
    """A 1xx response for the client: the member's fields, nothing of ours (P17)."""
    lines = _lines(head.fields, _HOP_BY_HOP | head.options)
    return head.line + lines + b"\r\n"


def switching_response(head: ResponseHead) -> bytes:
    """A 101 response for the client (P26)."""
    return b"HTTP/1.1 101 %b\r\n%bConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % (
        head.reason,
        _lines(head.fields, _HOP_BY_HOP | head.options),
        head.known.get(b"upgrade", b""),
    )


# Responses with one of these look different for different mappings.
_DEPEND_ON_MAPPING = LOCATION_FIELDS | {b"set-cookie"}
_REWRITTEN = frozenset((*LOCATION_FIELDS, b"expires", b"last-modified", b"set-cookie"))


def _rewritten(
    fields: Iterable[Field], rewriting: Rewriting, base: Callable[[], bytes]
) -> list[Field]:
    done = []
    for key, name, value in fields:
        if key in LOCATION_FIELDS:
            done.append((key, name, rewriting.location(value, base())))
        elif key in _DATES:
            done.append((key, name, _date(value)))
        elif key == b"set-cookie" and rewriting.touches_cookies:
            done.append((key, name, rewriting.cookie(value)))
        else:
            done.append((key, name, value))
    return done


_OLD_DATE = re.compile(
    rb"[A-Z][a-z]+day, \d\d-[A-Z][a-z]{2}-\d\d [\d:]{8} GMT"
    rb"|[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d [\d:]{8} \d{4}"
)


def _date(value: bytes) -> bytes:
    """A date of RFC 850 or asctime in the form of RFC 9110 section 5.6.7; others unchanged (P4)."""
    if len(value) == 29 or _OLD_DATE.fullmatch(value) is None:
        return value
    parsed = parsedate_tz(value.decode())
    try:
        return formatdate(mktime_tz(parsed), usegmt=True).encode() if parsed else value
    except (ValueError, OverflowError):
        return value  # beyond the calendar
