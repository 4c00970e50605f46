"""Where we differ from Apache on purpose, and why.

Each entry names the cases, the facts that differ (``*`` and ``?`` as in a shell) and the reason,
with the rule of Apache's behaviour it departs from. ``ours`` pins what we do instead. The list is
kept true from both sides: a difference that is not on it fails its case, and so does an entry
whose difference no longer occurs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from tests.end_to_end.oracle_run import Difference, Fact


@dataclass(frozen=True)
class Departure:
    """One decision, and all the cases in which it shows."""

    reason: str
    cases: tuple[str, ...]
    facts: tuple[str, ...]
    ours: Mapping[str, Fact] = field(default_factory=dict)


_STATUS = "answer 1: status line"
_ANSWER = ("answer 1: *",)
_REFUSED = ("answer 1: *", "member request*")
"""Apache forwards the request, we answer it: nothing is comparable any more."""
_CLOSED = ("connection 1: after the last answer",)
_KEPT = {_CLOSED[0]: "kept"}
_SHUT = {_CLOSED[0]: "closed"}
_SECOND = ("answer 2: *",)
_BAD_REQUEST = {_STATUS: b"HTTP/1.1 400 Bad Request"}
_BAD_GATEWAY = {_STATUS: b"HTTP/1.1 502 Bad Gateway"}
_PROXY_ERROR = {_STATUS: b"HTTP/1.1 502 Proxy Error"}

# --- the client's side -------------------------------------------------------------------------

_REQUESTS = (
    Departure(
        "R18: CONNECT asks for a tunnel to anywhere; it is refused and never forwarded",
        ("connect-authority",),
        _REFUSED,
        {_STATUS: b"HTTP/1.1 405 Method Not Allowed", "member requests": []},
    ),
    Departure(
        "R18: one answer for CONNECT, whatever its target looks like",
        ("connect-path",),
        ("answer 1: status line", "answer 1: fields", *_CLOSED),
        {_STATUS: b"HTTP/1.1 405 Method Not Allowed"},
    ),
    Departure(
        "R14: a transfer coding we don't know is the client's mistake, not ours (400 instead of "
        "500), and no reason to put a member in error",
        ("coding-gzip-chunked", "coding-chunked-chunked", "coding-two-lines"),
        ("answer 1: status line", "answer 1: fields", "answer ?: body", "member request*"),
        {"answer 2: body": b"server1", "member requests": ["server1", "server1"]},
    ),
    Departure(
        "R9: a request with both lengths is the classic of request smuggling; it is refused",
        ("body-length-and-chunked", "body-chunked-and-length"),
        _REFUSED,
        {**_BAD_REQUEST, "member requests": ["server1"]},
    ),
    Departure(
        "L7: folded lines are read differently by different servers; they are refused",
        ("field-folded", "field-folded-tab"),
        (*_REFUSED, *_CLOSED),
        {**_BAD_REQUEST, "member requests": []},
    ),
    Departure(
        "L7: a major version we don't speak is refused instead of taken for 1.1",
        ("line-version-2.0", "line-version-3.0"),
        (*_REFUSED, *_CLOSED),
        {_STATUS: b"HTTP/1.1 505 HTTP Version Not Supported", "member requests": []},
    ),
    Departure(
        "L10: a request without a version is refused, and with a proper status line",
        ("line-no-version", "version-less-with-sni"),
        _ANSWER,
        _BAD_REQUEST,
    ),
    Departure(
        "L10: the same where Apache would serve it as HTTP/0.9",
        ("version-less",),
        _REFUSED,
        {**_BAD_REQUEST, "member requests": []},
    ),
    Departure(
        "L17: plain HTTP on the TLS port is closed without an answer; there is no TLS to hold one",
        ("plain-on-tls-port",),
        _ANSWER,
        {"answer 1: end": "closed without an answer"},
    ),
    Departure(
        "L9: HTTP/1.0 without Host is accepted, whether or not the handshake named a server",
        ("http-1.0-without-host",),
        _REFUSED,
        {_STATUS: b"HTTP/1.1 200 OK", "member requests": ["server1"]},
    ),
    Departure(
        "R19: a final answer instead of 100 Continue is passed on; the body is no longer wanted",
        ("expect-final-200-kept",),
        (
            "answer 1: fields",
            "answer 1: interim",
            *_SECOND,
            *_CLOSED,
            "member request*",
        ),
        {_STATUS: b"HTTP/1.1 200 OK", "answer 1: body": b"final", "answer 1: interim": []},
    ),
    Departure(
        "F1: a member that is slow to say 100 Continue costs this request, and isn't put in error",
        ("no-continue-in-time",),
        ("answer 1: *", "answer 2: body", "member request*"),
        {"answer 1: status line": b"HTTP/1.1 502 Proxy Error", "answer 2: body": b"server1"},
    ),
    Departure(
        "F11: silence after an Expect isn't the member's alone, so failontimeout doesn't count it",
        ("failontimeout-no-continue",),
        ("answer 1: status line", "member request*"),
        {_STATUS: b"HTTP/1.1 502 Proxy Error", "member requests": ["server1", "server1"]},
    ),
    Departure(
        "F11: a device waits for news that may not come, which says nothing of the member (D70)",
        ("failontimeout-activesync",),
        ("answer 2: body", "member request*"),
        {_STATUS: b"HTTP/1.1 502 Proxy Error", "answer 2: body": b"server1"},
    ),
    Departure(
        "R19: the same for other statuses, instead of 500 and a member in error",
        ("expect-final-302-kept", "expect-final-401-kept", "expect-final-413-kept"),
        ("answer 1: *", "answer ?: body", "member request*"),
        {"answer 1: body": b"final", "member requests": ["server1", "server1", "server1"]},
    ),
    Departure(
        "R9: the body of an Expect is passed on as it comes, so its length is not known",
        ("expect-chunked",),
        ("member request 1: fields", "member request 1: framing"),
        {"member request 1: framing": "chunked"},
    ),
    Departure(
        "R13: chunks in HTTP/1.0 are doubtful framing; such a connection is never kept (H3)",
        ("body-chunked-http-1.0",),
        ("answer 1: fields", *_SECOND, *_CLOSED, "member requests", "member request 2: *"),
        {_STATUS: b"HTTP/1.1 200 OK", "member requests": ["server1"]},
    ),
    Departure(
        "L11: a chunk's size is digits and nothing else, a blank is a mistake (H5)",
        ("body-chunked-size-then-blank",),
        (*_REFUSED, *_SECOND, *_CLOSED),
        {**_BAD_REQUEST, "member requests": []},
    ),
    Departure(
        "C14: no 400 for a malformed body carries a cookie, one for its trailer neither",
        ("body-chunked-bad-trailer",),
        ("answer 1: fields",),
        _BAD_REQUEST,
    ),
    Departure(
        "R15: 417 is a whole answer and the connection is kept; who closes it has to say so, "
        "which Apache doesn't (RFC 9112 section 9.6)",
        ("no-cookie-on-417",),
        _CLOSED,
        {_STATUS: b"HTTP/1.1 417 Expectation Failed", **_KEPT},
    ),
    Departure(
        "R15: the same, so that the next request has its answer",
        ("expect-other", "expect-list", "expect-other-with-body"),
        (*_SECOND, *_CLOSED, "member request*"),
        {_STATUS: b"HTTP/1.1 417 Expectation Failed", "answer 2: body": b"server1", **_KEPT},
    ),
    Departure(
        "R16: TRACE reflects cookies and credentials; ours has no answer of that kind (H29)",
        ("max-forwards-0-TRACE",),
        (*_ANSWER, *_CLOSED),
        {_STATUS: b"HTTP/1.1 400 Proxy Error", "member requests": []},
    ),
    Departure(
        "R16: nothing that we answer ourselves depends on the cookie or allows TRACE alone",
        ("max-forwards-0-OPTIONS",),
        ("answer 1: fields",),
        {_STATUS: b"HTTP/1.1 200 OK", "member requests": []},
    ),
    Departure(
        "R23: the target's authority replaces Host, also for the member (RFC 9112 section 3.2.2)",
        ("absolute-form-preserve-host",),
        ("member request 1: fields",),
        {"member request 1: request line": b"GET /x?y HTTP/1.1"},
    ),
    Departure(
        "L3: the limit is for each line, equal names or not",
        ("field-joined-too-long",),
        (*_REFUSED, *_CLOSED),
        {_STATUS: b"HTTP/1.1 200 OK", "member requests": ["server1"]},
    ),
    Departure(
        "L19: a body that nobody wants is not read to its end; the answer comes at once, says "
        "that the connection closes, and closes it (H12)",
        ("body-after-404",),
        ("answer 1: fields", *_SECOND, *_CLOSED, "member request*"),
        {_STATUS: b"HTTP/1.1 404 Not Found", **_SHUT, "member requests": []},
    ),
    Departure(
        "F14: the rest of the request's body is owed after such a 502; instead of reading it the "
        "connection is closed, and the answer says so (H12)",
        ("reset-while-sending-body",),
        ("answer 1: fields", *_CLOSED),
        {**_BAD_GATEWAY, **_SHUT},
    ),
)

# --- the member's side -------------------------------------------------------------------------

_RESPONSES = (
    Departure(
        "P18: what doesn't begin with a proper status line is no answer of HTTP/1; guessing at "
        "HTTP/0.9 would hand the client whatever came",
        (
            "status-two-blanks",
            "status-two-digits",
            "status-four-digits",
            "status-letters",
            "status-lower-case",
            "status-no-version",
            "status-status-000",
            "status-status-099",
            "bad-no-status-line",
            "bad-one-empty-line-first",
        ),
        _ANSWER,
        _PROXY_ERROR,
    ),
    Departure(
        "P19: bare LF as line end is not accepted from a member either",
        ("bad-lf-only",),
        _ANSWER,
        _PROXY_ERROR,
    ),
    Departure(
        "P20: a member's mistake is a 502, not a 500, and costs the client nothing else",
        (
            "bad-blank-before-colon",
            "bad-bad-name",
            "bad-empty-name",
            "bad-control",
            "bad-bare-cr",
        ),
        ("answer 1: status line", "answer 1: fields", *_SECOND, *_CLOSED, "member request*"),
        {**_BAD_GATEWAY, "member requests": ["server1", "server1"]},
    ),
    Departure(
        "P21: two lengths, or a length with chunks, leave open where the answer ends",
        ("bad-two-lengths", "bad-two-different-lengths", "bad-length-and-chunked"),
        _ANSWER,
        _BAD_GATEWAY,
    ),
    Departure(
        "P29: an answer to a Range request is passed on as the member gave it",
        ("range-ignored-by-member", "range-beyond"),
        _ANSWER,
        {_STATUS: b"HTTP/1.1 200 OK", "answer 1: body": b"hello"},
    ),
    Departure(
        "P2: lines of one name stay as many as they were, Vary too",
        ("fields-order",),
        ("answer 1: fields",),
    ),
    Departure(
        "P4: a date in another zone is passed on as it is; with GMT behind it, it would be wrong",
        ("dates-zone",),
        ("answer 1: fields",),
    ),
    Departure(
        "P5: Warning is obsolete (RFC 9111 section 5.5) and passed on like any other field",
        ("fields-warning",),
        ("answer 1: fields",),
    ),
    Departure(
        "P6: chunks are passed on as chunks, also when nothing is in them",
        ("reply-chunked-empty",),
        ("answer 1: fields", "answer 1: framing"),
        {"answer 1: framing": "chunked"},
    ),
    Departure(
        "P15: domain and path are attributes behind the cookie's value; its name is none of them",
        ("member-cookie-in-value",),
        ("answer 1: fields",),
    ),
    Departure(
        "P17: an interim response has no body, and so no length (RFC 9110 section 8.6)",
        ("interim-with-length",),
        ("answer 1: interim",),
        {"answer 1: interim": [[b"HTTP/1.1 102 P"]]},
    ),
    Departure(
        "P19: a fold becomes one blank, however long it is (RFC 9112 section 5.2)",
        ("bad-folded", "bad-folded-tab"),
        ("answer 1: fields",),
        {_STATUS: b"HTTP/1.1 200 OK"},
    ),
    Departure(
        "P21: a 502 for an invalid length or chunk carries the cookie like every other (C13)",
        (
            "bad-length-2x",
            "bad-length-negative",
            "bad-length-list",
            "bad-length-empty",
            "reply-chunked-bad-first-size",
        ),
        ("answer 1: fields",),
        _BAD_GATEWAY,
    ),
    Departure(
        "P21: a transfer coding we don't know leaves open what the body is (H58)",
        ("bad-gzip", "bad-gzip-chunked", "bad-identity"),
        _ANSWER,
        _BAD_GATEWAY,
    ),
    Departure(
        "F1: where an answer had begun the client is told of the failure; a closed connection "
        "would have it send the request again",
        ("bad-end-in-later-status-line",),
        ("answer 2: *", *_CLOSED),
        {"answer 2: status line": b"HTTP/1.1 502 Proxy Error", **_KEPT},
    ),
)

DEPARTURES = (*_REQUESTS, *_RESPONSES)


def departures_of(case: str) -> list[Departure]:
    """The entries that name this case."""
    return [entry for entry in DEPARTURES if case in entry.cases]


def complaints(case: str, found: list[Difference], ours: Mapping[str, Fact]) -> list[str]:
    """What the list and the facts don't agree on; empty when they do."""
    entries = departures_of(case)
    patterns = [pattern for entry in entries for pattern in entry.facts]
    texts = [
        f"not on the list: {difference}"
        for difference in found
        if not any(fnmatchcase(difference.fact, pattern) for pattern in patterns)
    ]
    texts += [
        f"on the list, but no longer different: {pattern}"
        for pattern in patterns
        if not any(fnmatchcase(difference.fact, pattern) for difference in found)
    ]
    texts += [
        f"{fact} should be {value!r} ({entry.reason}): {ours.get(fact)!r}"
        for entry in entries
        for fact, value in entry.ours.items()
        if ours.get(fact) != value
    ]
    return texts
