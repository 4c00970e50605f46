"""Oracle cases: limits, bad input, timeouts and the life of a client's connection (L)."""

from collections.abc import Iterator

from tests.end_to_end.oracle_model import (
    LARGE,
    Ask,
    Case,
    Idle,
    Read,
    Send,
    Site,
    Wait,
    asks,
    cookie,
    get,
    post,
    request,
    sticky,
    to,
)
from tests.end_to_end.recording_member import Do, Script, answer

HOST = b"mail.zarafa.com"

# --- L: bad input ------------------------------------------------------------------------------

_LINES = {
    "two-blanks": b"GET  / HTTP/1.1",
    "two-blanks-before-version": b"GET /  HTTP/1.1",
    "tab": b"GET\t/ HTTP/1.1",
    "leading-blank": b" GET / HTTP/1.1",
    "trailing-blank": b"GET / HTTP/1.1 ",
    "bare-cr": b"GET /a\rb HTTP/1.1",
    "version-1.10": b"GET / HTTP/1.10",
    "version-lower-case": b"GET / http/1.1",
    "version-0.8": b"GET / HTTP/0.8",
    "version-11": b"GET / HTTP/11",
    "version-ftp": b"GET / FTP/1.1",
    "version-1.2": b"GET / HTTP/1.2",
    "version-1.9": b"GET / HTTP/1.9",
    "version-2.0": b"GET / HTTP/2.0",
    "version-3.0": b"GET / HTTP/3.0",
    "method-not-a-token": b"G(T / HTTP/1.1",
    "method-with-slash": b"G/T / HTTP/1.1",
    "no-version": b"GET /",
    "no-target": b"GET",
    "nul-in-target": b"GET /a\x00b HTTP/1.1",
    "control-in-target": b"GET /a\x01b HTTP/1.1",
    "preface-of-http-2": b"PRI * HTTP/2.0",
    "four-words": b"GET / x HTTP/1.1",
}

_FIELDS = {
    "blank-before-colon": b"X-A : 1",
    "no-colon": b"X-A",
    "empty-name": b": 1",
    "bad-name": b"X(A): 1",
    "slash-in-name": b"X/A: 1",
    "8-bit-name": b"X-\xe4: 1",
    "nul-in-value": b"X-A: a\x00b",
    "control-in-value": b"X-A: a\x01b",
    "del-in-value": b"X-A: a\x7fb",
    "bare-cr-in-value": b"X-A: a\rb",
    "tab-in-value": b"X-A: a\tb",
    "folded": b"X-A: a\r\n  b",
    "folded-tab": b"X-A: a\r\n\tb",
    "folded-empty": b"X-A: a\r\n ",
    "lf-only": b"X-A: 1\nX-B: 2",
}

_HOSTS = {
    "empty": b"",
    "blank": b"a b",
    "slash": b"a/b",
    "at": b"user@host",
    "two-dots": b"a..b",
    "port-text": b"host:x",
    "port-empty": b"host:",
    "port-zero": b"host:0",
    "port-large": b"host:65536",
    "port": b"host:65535",
    "underscore": b"a_b",
    "trailing-dot": b"mail.zarafa.com.",
    "ipv6": b"[::1]",
    "ipv6-port": b"[::1]:8443",
    "ipv6-open": b"[::1",
    "unknown": b"unknown.example.org",
    "capitals": b"MAIL.Zarafa.COM",
    "ipv4": b"192.0.2.1",
    "percent": b"a%41b",
    "comma": b"a,b",
    "colon-only": b":443",
    "8-bit": b"\xe4.org",
}


def _bad_lines() -> Iterator[Case]:
    for name, line in _LINES.items():
        yield Case(f"line-{name}", "L6 L7 L10", asks(request(line, to(1))))
    yield Case(
        "line-lf-only", "L6", asks(request(b"GET / HTTP/1.1", to(1)).replace(b"\r\n", b"\n"))
    )
    folded = b"GET / HTTP/1.1\r\n X: 1\r\nHost: " + HOST + b"\r\n\r\n"
    yield Case("line-folded-first", "L6", asks(folded))
    for count in (1, 10, 11):
        yield Case(f"empty-lines-{count}", "L6", (Ask(b"\r\n" * count + get(b"/", to(1))),))
    yield Case("empty-line-between", "L6", (*sticky(), Ask(b"\r\n" + get(b"/", to(1)))))
    yield Case("nonsense", "L6", asks(b"\x00\x01\x02\r\n\r\n"))
    yield Case("version-less", "L10", asks(b"GET /\r\n"), server_name=None)
    yield Case("version-less-with-sni", "L10", asks(b"GET /\r\n"))
    for name, field in _FIELDS.items():
        yield Case(f"field-{name}", "L6 L7", sticky(field))


def _hosts() -> Iterator[Case]:
    for name, host in _HOSTS.items():
        yield Case(f"host-{name}", "L8", asks(get(b"/", to(1), host=host)))
    yield Case("host-missing", "L8", asks(request(host=None)))
    yield Case("host-twice", "L8", sticky(b"Host: " + HOST))
    yield Case("host-two-lines-different", "L8", sticky(b"Host: other.example.org"))
    yield Case("sni-unknown", "L13", sticky(), server_name="unknown.example.org")
    yield Case("sni-none", "L13", sticky(), server_name=None)


def _limits() -> Iterator[Case]:
    def line(length: int) -> bytes:
        return b"/" + b"x" * (length - len(b"GET / HTTP/1.1"))

    def field(length: int) -> bytes:
        return b"X-A: " + b"x" * (length - len(b"X-A: "))

    for length in (8190, 8191, 8192, 20000, 70000):
        yield Case(f"line-of-{length}", "L2", asks(get(line(length), to(1))))
        yield Case(f"field-of-{length}", "L3", sticky(field(length)))
    yield Case("field-joined-too-long", "L3", sticky(field(5000), field(5000)))
    for count in (99, 100, 101, 200):
        fields = [b"X-%d: 1" % number for number in range(count - 2)]
        yield Case(f"fields-{count}", "L4", sticky(*fields))
    small = Site(limits={"line": 100, "field": 50, "fields": 5})
    yield Case("own-limit-line", "L2", asks(get(b"/" + b"x" * 120, to(1))), small)
    yield Case("own-limit-field", "L3", sticky(b"X-A: " + b"x" * 60), small)
    yield Case("own-limit-fields", "L4", sticky(*[b"X: 1"] * 4), small)
    yield Case("cookie-of-4096", "H32", sticky(cookie(b"big=" + b"x" * 4092)))


def _timeouts() -> Iterator[Case]:
    head = Site(head_timeout=1)
    yield Case("silent-client", "L14", (Send(b""), Idle(2.0)), head, probe=False)
    steps = (Send(get()[:20]), Read())
    yield Case("head-timeout", "L14 C14", steps, head)
    body = Site(body_timeout=1)
    steps = (Send(post(b"/x", b"abcdef", to(1))[:-3]), Read(b"POST"))
    yield Case("body-timeout", "L14 C13", steps, body)
    steps = (Send(post(b"/x", LARGE, to(1))[:-3]), Read(b"POST"))
    yield Case("large-body-timeout", "L14", steps, body)
    idle = Site(keep_alive_ms=300)
    yield Case("idle-closed", "L14", (*sticky(), Idle(1.0)), idle, probe=False)
    kept = (*sticky(), Wait(0.1), *sticky(), Idle(0.1))
    yield Case("idle-kept", "L14", kept, idle)


def _keep_alive() -> Iterator[Case]:
    two = Site(keep_alive_requests=2)
    keep = get(b"/", to(1), b"Connection: keep-alive")
    yield Case("keep-alive-limit", "L15 P9", tuple(Ask(keep) for _ in range(3)), two)
    yield Case(
        "keep-alive-limit-silent", "L15", tuple(Ask(get(b"/", to(1))) for _ in range(3)), two
    )
    yield Case("keep-alive-default", "L15 P9", tuple(Ask(keep) for _ in range(101)))
    yield Case("close-asked", "P8", (Ask(get(b"/", to(1), b"Connection: close")),))
    yield Case(
        "close-and-keep-alive", "P8", (Ask(get(b"/", to(1), b"Connection: keep-alive, close")),)
    )
    pipeline = get(b"/a", to(1)) + get(b"/b", to(2)) + get(b"/c", to(1))
    yield Case("pipeline", "L16", (Ask(pipeline, answers=3),))
    mixed = post(b"/a", b"abc", to(1)) + request(b"HEAD /b HTTP/1.1", to(1))
    steps = (Send(mixed), Read(b"POST"), Read(b"HEAD"))
    yield Case("pipeline-with-body", "L16", steps)
    scripts: dict[bytes, Script] = {
        b"/b": [Do.LEAVE_BODY, b"HTTP/1.1 200 OK\r\nbroken\r\n\r\n", Do.CLOSE]
    }
    yield Case("pipeline-with-502", "L16", (Ask(pipeline, answers=3),), scripts=scripts)
    bad = get(b"/a", to(1)) + get(b"/b", b"bad line")
    yield Case("pipeline-with-400", "L16", (Ask(bad, answers=2),))
    slow: dict[bytes, Script] = {b"/a": [0.15, answer(b"slow")]}
    yield Case("pipeline-slow-first", "L16", (Ask(pipeline, answers=3),), scripts=slow)
    closing = get(b"/a", to(1), b"Connection: close") + get(b"/b", to(1))
    yield Case("pipeline-after-close", "L16 P8", (Ask(closing),))
    long = b"".join(get(b"/%d" % number, to(1 + number % 2)) for number in range(30))
    yield Case("pipeline-of-30", "L16", (Ask(long, answers=30),))
    yield Case("plain-on-tls-port", "L17", (Ask(get()),), plain=True)
    unread = post(b"/a%2Fb", LARGE, to(1))
    head, body = unread[: -len(LARGE)], unread[-len(LARGE) :]
    late = (Send(head), Wait(0.1), Send(body), Read(b"POST"), Ask(get(b"/", to(1))))
    yield Case("body-after-404", "L19", late)
    yield Case("body-with-404", "L19", asks(post(b"/a%2Fb", b"abc", to(1)), get(b"/", to(1))))


INPUT_CASES = [
    *_bad_lines(),
    *_hosts(),
    *_limits(),
    *_timeouts(),
    *_keep_alive(),
]
