"""Oracle cases: forwarding the request (R), limits and bad input (L)."""

from collections.abc import Iterator

from tests.end_to_end.oracle_model import (
    LARGE,
    Ask,
    Case,
    Close,
    Idle,
    MappingSite,
    MemberSite,
    New,
    Read,
    Send,
    Site,
    Step,
    Tunnel,
    Wait,
    asks,
    chunked,
    get,
    post,
    request,
    sticky,
    to,
)
from tests.end_to_end.recording_member import Do, Script, answer

PUT = b"PUT /upload HTTP/1.1"
CHUNKED = b"Transfer-Encoding: chunked"


# --- R: request line and fields ----------------------------------------------------------------

_METHODS = (
    "GET HEAD POST PUT DELETE PATCH OPTIONS TRACE PROPFIND REPORT MKCOL LOCK SEARCH BREW get M-X_1 "
    "A!#$%&'*+.^`|~"
).split()


def _methods() -> Iterator[Case]:
    for method in _METHODS:
        raw = request(method.encode() + b" /x HTTP/1.1", to(1))
        yield Case(f"method-{method}", "R1 R17 H30", (Ask(raw), Ask(get(b"/", to(1)))))
    raw = request(b"X" * 60 + b" / HTTP/1.1", to(1))
    yield Case("method-long", "R1 L7", asks(raw))
    for length in (b"Content-Length: 0", b"Content-Length: 3"):
        for method in ("GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "PROPFIND"):
            body = b"abc" if length.endswith(b"3") else b""
            raw = request(method.encode() + b" /x HTTP/1.1", to(1), length, body=body)
            name = f"{method}-with-length-{length[-1:].decode()}"
            yield Case(name, "R9 H9", (Ask(raw), Ask(get(b"/", to(1)))))
    yield Case("options-star", "R17", (Ask(request(b"OPTIONS * HTTP/1.1")), Ask(get())))
    yield Case("get-star", "R23", asks(request(b"GET * HTTP/1.1")))
    yield Case("connect-authority", "R18", asks(request(b"CONNECT mail.zarafa.com:443 HTTP/1.1")))
    yield Case("connect-path", "R18", asks(request(b"CONNECT /x HTTP/1.1")))


def _fields() -> Iterator[Case]:
    many = (
        b"User-Agent: Mozilla/5.0 (x; y)",
        b"accept: */*",
        b"X-CUSTOM:  padded value \t",
        b"Accept-Language: de,en;q=0.5",
        b"X-Empty:",
        b"Authorization: Basic dXNlcjpwYXNz",
        b"Proxy-Authorization: Basic eA==",
        b"Via: 1.0 fred",
        b'If-None-Match: "x"',
        b"X-Forwarded-Proto: http",
    )
    yield Case("order-and-spelling", "R2 R3 R6", sticky(*many))
    equal = (b"X-A: 1", b"X-B: 2", b"x-a: 3", b"X-A:", b"X-B: 4", b"Accept: a", b"Accept: b")
    yield Case("equal-names-joined", "R3", sticky(*equal))
    yield Case("cookies-joined", "R3 S7", sticky(b"X: y", b"Cookie: a=1", b"cookie: b=2"))
    hop = (
        b"Connection: close, X-Hop, keep-alive",
        b"X-Hop: 1",
        b"X-Stay: 1",
        b"Keep-Alive: 300",
        b"Proxy-Connection: keep-alive",
        b"TE: trailers",
        b"Trailer: X-T",
        b"Upgrade: h2c",
    )
    yield Case("hop-by-hop-removed", "R5", sticky(*hop))
    named = {
        "cookie": b"Connection: Cookie",
        "host": b"Connection: Host",
        "forwarded": b"Connection: X-Forwarded-For, X-Forwarded-Host",
        "length": b"Connection: Content-Length",
        "unknown": b"Connection: nothing-of-that-name",
        "empty": b"Connection:",
        "upgrade": b"Connection: Upgrade",
        "twice": b"Connection: X-Hop\r\nConnection: X-Two",
    }
    for name, field in named.items():
        raw = post(
            b"/", b"abc", to(1), b"X-Forwarded-For: 9.9.9.9", b"X-Hop: 1", b"X-Two: 2", field
        )
        yield Case(f"connection-names-{name}", "R5 H14", (Ask(raw), Ask(get(b"/", to(1)))))
    yield Case("connection-te", "R5", sticky(b"Connection: TE", b"TE: trailers"))
    forwarded = (
        b"X-Forwarded-For: 1.2.3.4",
        b"X-Middle: 1",
        b"x-forwarded-host: other.example.org",
        b"X-Forwarded-Server: other",
    )
    yield Case("forwarded-appended", "R7", sticky(*forwarded))
    yield Case("forwarded-twice", "R7 R3", sticky(forwarded[0], b"X-Forwarded-For: 5.6.7.8"))
    yield Case("forwarded-empty", "R7", sticky(b"X-Forwarded-For:"))
    yield Case(
        "forwarded-host-with-port", "R7", asks(get(b"/", to(1), host=b"Mail.Zarafa.com:8443"))
    )
    yield Case("other-headers", "R6", sticky(b"Forwarded: for=1.2.3.4", b"X-Real-IP: 1.1.1.1"))
    yield Case("proxy-header", "R6", sticky(b"Proxy: http://evil.example.org/"))
    yield Case("underscore-name", "R6 H23", sticky(b"X_Under_Score: 1", b"Content_Length: 5"))
    yield Case("range-forwarded", "R6", sticky(b"Range: bytes=0-3", b'If-Range: "x"'))
    yield Case("obs-text-value", "L7", sticky(b"X-Text: \xe4\xf6\xfc \xff\t."))
    yield Case("http-1.0-forwarded-as-1.1", "R1", asks(request(b"GET /x HTTP/1.0", to(1))))
    keep = request(b"GET /x HTTP/1.0", to(1), b"Connection: keep-alive")
    yield Case("http-1.0-keep-alive", "P9", (Ask(keep), Ask(keep)))
    yield Case("http-1.0-without-host", "L9", asks(request(b"GET /x HTTP/1.0", host=None)))
    yield Case(
        "http-1.0-without-host-without-sni",
        "L9 R7",
        asks(request(b"GET /x HTTP/1.0", host=None)),
        server_name=None,
    )


def _host() -> Iterator[Case]:
    keep = Site(preserve_host=True)
    yield Case("preserve-host", "R4", sticky(), keep)
    yield Case("preserve-host-with-port", "R4", asks(get(b"/", to(1), host=b"Other.org:99")), keep)
    absolute = get(b"http://elsewhere.example.org/x?y", to(1))
    yield Case("absolute-form", "R23 R7", asks(absolute))
    yield Case("absolute-form-preserve-host", "R23 R4", asks(absolute), keep)
    yield Case(
        "preserve-host-absent",
        "R4",
        asks(request(b"GET /x HTTP/1.0", to(1), host=None)),
        keep,
        server_name=None,
    )
    yield Case(
        "no-reuse",
        "R28 R2",
        (*sticky(), *sticky()),
        Site(
            (MemberSite("server1", reuse=False), MemberSite("server2")),
        ),
        connections=True,
    )
    yield Case("reuse", "R28", (*sticky(), New(), *sticky(), *sticky()), connections=True)


# --- R: request bodies -------------------------------------------------------------------------

_BODIES = {
    "no-length": request(b"POST /x HTTP/1.1", to(1)),
    "length-zero": post(b"/x", b"", to(1)),
    "length": post(b"/x", b"a=b&c=d", to(1), b"Content-Type: application/x-www-form-urlencoded"),
    "length-large": post(b"/x", LARGE, to(1)),
    "length-with-leading-zeros": request(
        b"POST /x HTTP/1.1", to(1), b"Content-Length: 0003", body=b"abc"
    ),
    "chunked-empty": request(PUT, to(1), CHUNKED, body=chunked()),
    "chunked-small": request(PUT, to(1), CHUNKED, body=chunked(b"abc", b"defgh")),
    "chunked-16303": request(PUT, to(1), CHUNKED, body=chunked(b"x" * 16303)),
    "chunked-16304": request(PUT, to(1), CHUNKED, body=chunked(b"x" * 16304)),
    "chunked-large": request(PUT, to(1), CHUNKED, body=chunked(LARGE, LARGE)),
    "chunked-many": request(PUT, to(1), CHUNKED, body=chunked(*[b"ab"] * 500)),
    "chunked-trailers": request(
        PUT, to(1), CHUNKED, b"Trailer: X-T", body=chunked(b"abc", trailers=b"X-T: 1\r\n")
    ),
    "chunked-extension": request(PUT, to(1), CHUNKED, body=b"3;name=value\r\nabc\r\n0;x\r\n\r\n"),
    "chunked-quoted-extension": request(
        PUT, to(1), CHUNKED, body=b'3;name="a;b"\r\nabc\r\n0\r\n\r\n'
    ),
    "chunked-capital-hex": request(PUT, to(1), CHUNKED, body=b"A\r\n0123456789\r\n0\r\n\r\n"),
    "chunked-leading-zeros": request(PUT, to(1), CHUNKED, body=b"0003\r\nabc\r\n000\r\n\r\n"),
    "chunked-capital-coding": request(
        PUT, to(1), b"transfer-encoding: Chunked", body=chunked(b"abc")
    ),
    "chunked-on-get": request(b"GET /x HTTP/1.1", to(1), CHUNKED, body=chunked(b"abc")),
    "chunked-http-1.0": request(
        b"PUT /x HTTP/1.0", to(1), CHUNKED, b"Connection: keep-alive", body=chunked(b"abc")
    ),
    "chunked-size-then-blank": request(PUT, to(1), CHUNKED, body=b"3 \r\nabc\r\n0\r\n\r\n"),
}

_BAD_BODIES = {
    "chunked-0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "chunked-lf-only": b"3\nabc\n0\n\n",
    "chunked-wrong-end": b"3\r\nabcd\r\n0\r\n\r\n",
    "chunked-negative": b"-3\r\nabc\r\n0\r\n\r\n",
    "chunked-no-digits": b";x\r\nabc\r\n0\r\n\r\n",
    "chunked-overflow": b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "chunked-bad-trailer": b"3\r\nabc\r\n0\r\nbad trailer\r\n\r\n",
    "chunked-blank-first": b" 3\r\nabc\r\n0\r\n\r\n",
}

_LENGTHS = {
    "empty": b"Content-Length:",
    "signed": b"Content-Length: +3",
    "negative": b"Content-Length: -3",
    "hexadecimal": b"Content-Length: 0x3",
    "list": b"Content-Length: 3, 3",
    "repeated": b"Content-Length: 3\r\nContent-Length: 3",
    "different": b"Content-Length: 3\r\nContent-Length: 4",
    "64-bits": b"Content-Length: 9223372036854775808",
    "blank-inside": b"Content-Length: 3 3",
    "underscore": b"Content-Length: 1_0",
    "text": b"Content-Length: x",
}

_CODINGS = {
    "identity": b"identity",
    "xchunked": b"xchunked",
    "chunked-gzip": b"chunked, gzip",
    "empty": b"",
    "gzip-chunked": b"gzip, chunked",
    "chunked-chunked": b"chunked, chunked",
    "two-lines": b"chunked\r\nTransfer-Encoding: chunked",
    "parameter": b"chunked;q=1",
    "quoted": b'"chunked"',
    "leading-tab": b"\tchunked",
    "trailing-tab": b"chunked\t",
    "trailing-blank": b"chunked ",
}


def _bodies() -> Iterator[Case]:
    after = Ask(get(b"/", to(1)))
    for name, raw in _BODIES.items():
        yield Case(f"body-{name}", "R9", (Ask(raw), after))
    for name, body in _BAD_BODIES.items():
        raw = request(PUT, to(1), CHUNKED, body=body)
        yield Case(f"body-{name}", "L11 C14", asks(raw))
    for name, field in _LENGTHS.items():
        raw = request(b"POST /x HTTP/1.1", to(1), field, body=b"abc")
        yield Case(f"length-{name}", "L11 H4", asks(raw))
    for name, coding in _CODINGS.items():
        raw = request(PUT, to(1), b"Transfer-Encoding: " + coding, body=chunked(b"abc"))
        yield Case(f"coding-{name}", "R13 R14 H2", (Ask(raw), New(), after, after))
    both = request(PUT, to(1), b"Content-Length: 3", CHUNKED, body=chunked(b"abc"))
    yield Case("body-length-and-chunked", "R9 H1", (Ask(both), New(), after))
    both = request(PUT, to(1), CHUNKED, b"Content-Length: 13", body=chunked(b"abc"))
    yield Case("body-chunked-and-length", "R9 H1", (Ask(both), New(), after))


def _slow_bodies() -> Iterator[Case]:
    raw = post(b"/x", b"abcdef", to(1))
    yield Case("body-in-pieces", "R10", (Send(raw[:-4]), Wait(0.1), Send(raw[-4:]), Read(b"POST")))
    raw = request(PUT, to(1), CHUNKED, body=chunked(b"abc", b"def"))
    parts = (Send(raw[:-12]), Wait(0.1), Send(raw[-12:]), Read(b"PUT"))
    yield Case("chunks-in-pieces", "R10", parts)
    raw = get(b"/x", to(1))
    halves = (Send(raw[:7]), Wait(0.05), Send(raw[7:30]), Wait(0.05), Send(raw[30:]), Read())
    yield Case("head-in-pieces", "L14", halves)
    gone = (Send(post(b"/x", LARGE, to(1))[:-5]), Wait(0.15), Close(), Wait(0.15))
    yield Case("client-gone-in-large-body", "R10 H11", (*gone, *sticky()))
    gone = (Send(post(b"/x", b"abcdef", to(1))[:-3]), Wait(0.05), Close(), Wait(0.1))
    yield Case("client-gone-in-small-body", "R10 H11", (*gone, *sticky()))
    gone = (Send(get(b"/x")[:-3]), Wait(0.05), Close(), Wait(0.05))
    yield Case("client-gone-in-head", "R10", (*gone, *sticky()))


# --- R: expectations, Max-Forwards, upgrades ---------------------------------------------------


def _expect() -> Iterator[Case]:
    raw = post(b"/x", b"a=b", to(1), b"Expect: 100-continue")
    after = Ask(get(b"/", to(1)))
    head, body = raw[:-3], raw[-3:]
    patient = (Send(head), Wait(0.1), Send(body), Read(b"POST"), after)
    yield Case("expect-at-once", "R19 P17", (Ask(raw), after))
    yield Case("expect-patient", "R19 P17", patient)
    yield Case("expect-capitals", "R19 R15", (Ask(raw.replace(b"100-c", b"100-C")), after))
    spool = request(PUT, to(1), CHUNKED, b"Expect: 100-continue", body=chunked(b"abc"))
    yield Case("expect-chunked", "R9 R19", (Ask(spool), after))
    at = spool.index(b"\r\n\r\n") + 4
    patient = (Send(spool[:at]), Wait(0.1), Send(spool[at:]), Read(b"PUT"), after)
    yield Case("expect-chunked-patient", "R9 R19", patient)
    yield Case("expect-without-body", "R19", (*sticky(b"Expect: 100-continue"), after))
    old = request(
        b"POST /x HTTP/1.0", to(1), b"Content-Length: 3", b"Expect: 100-continue", body=b"abc"
    )
    yield Case("expect-http-1.0", "R19 P17", (Ask(old),))
    yield Case(
        "expect-large", "R19", (Ask(post(b"/x", LARGE, to(1), b"Expect: 100-continue")), after)
    )
    finals = {"200": b"200 OK", "302": b"302 Found", "401": b"401 No", "413": b"413 Large"}
    for name, status in finals.items():
        final = answer(b"final", status=status)
        kept: Script = [Do.LEAVE_BODY, final, Do.READ_BODY]
        steps: tuple[Step, ...] = (Send(head), Wait(0.1), Read(b"POST"), New(), after, after)
        if name == "200":
            steps = (Send(head), Wait(0.2), Send(body), Read(b"POST"), after)
        yield Case(f"expect-final-{name}-kept", "R19", steps, scripts={b"/x": kept})
        closing = answer(b"final", b"Connection: close", status=status)
        closed: Script = [Do.LEAVE_BODY, closing, Do.CLOSE]
        steps = (Send(head), Wait(0.1), Read(b"POST"), New(), after)
        yield Case(f"expect-final-{name}-close", "R19", steps, scripts={b"/x": closed})
    for name, value in {"other": b"tea", "list": b"100-continue, tea", "empty": b""}.items():
        field = b"Expect: " + value
        yield Case(f"expect-{name}", "R15", (*sticky(field), *sticky()))
    field = post(b"/x", b"a=b", to(1), b"Expect: tea")
    yield Case("expect-other-with-body", "R15 L19", (Ask(field), after))


def _max_forwards() -> Iterator[Case]:
    for value in ("5", "1", "0", "-1", "x", "05", "4294967296"):
        field = b"Max-Forwards: " + value.encode()
        yield Case(f"max-forwards-{value}", "R16 F14", sticky(field))
        if value in ("0", "5"):
            for method in (b"OPTIONS", b"TRACE"):
                raw = request(method + b" /x HTTP/1.1", to(1), field)
                yield Case(f"max-forwards-{value}-{method.decode()}", "R16 C16", asks(raw))


_SOCKET = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: eA==")
_SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: %s\r\nConnection: Upgrade\r\nX-Own: 1\r\n\r\n"
)


def _upgrades() -> Iterator[Case]:
    site = Site(upgrade="websocket")
    accept: Script = [_SWITCH % b"websocket", Do.ECHO]
    scripts = {b"/chat": accept}
    raw = get(b"/chat", to(1), *_SOCKET)
    pings = (Ask(raw), Tunnel(b"\x81\x05hello"), Tunnel(bytes(range(256)) * 40))
    yield Case("upgrade-tunnel", "R22 P26", pings, site, scripts, probe=False)
    yield Case("upgrade-not-configured", "R22", (*sticky(*_SOCKET), *sticky()))
    eager = (Ask(raw + b"early"), Tunnel(b"", reads=5))
    yield Case("upgrade-early-bytes", "P26", eager, site, scripts, probe=False)
    capital: Script = [_SWITCH % b"WebSocket", Do.ECHO]
    steps: tuple[Step, ...] = (Ask(raw), Tunnel(b"x"))
    yield Case("upgrade-other-case", "P26", steps, site, {b"/chat": capital}, probe=False)
    wrong: Script = [_SWITCH % b"h2c", Do.CLOSE]
    yield Case("upgrade-other-protocol", "P26", (Ask(raw),), site, {b"/chat": wrong})
    yield Case("switch-not-asked", "P26", (Ask(get(b"/chat", to(1))),), site, scripts)
    other = get(b"/chat", to(1), b"Connection: Upgrade", b"Upgrade: h2c")
    yield Case("upgrade-unknown-protocol", "R22", (Ask(other), *sticky()), site)
    refuse: Script = [answer(b"no", status=b"403 Forbidden")]
    yield Case("upgrade-refused", "P26 P27", (Ask(raw), *sticky()), site, {b"/chat": refuse})
    hint: Script = [answer(b"x", b"Upgrade: websocket", b"Connection: Upgrade")]
    yield Case("upgrade-offered-after-asking", "P27", (Ask(raw), *sticky()), site, {b"/chat": hint})
    yield Case("upgrade-offered", "P27 P5", (Ask(get(b"/chat", to(1))),), site, {b"/chat": hint})
    once = Ask(get(b"/chat", to(1), b"Connection: close"))
    yield Case("upgrade-offered-and-closed", "P27 P8", (once,), site, {b"/chat": hint})
    unknown: Script = [answer(b"x", b"Upgrade: h2c", b"Connection: Upgrade")]
    steps = (Ask(get(b"/chat", to(1))),)
    yield Case("upgrade-offered-other", "P27", steps, site, {b"/chat": unknown})
    posted = post(b"/chat", b"abc", to(1), *_SOCKET)
    yield Case("upgrade-post", "P26", (Ask(posted), Tunnel(b"x")), site, scripts, probe=False)
    lower = get(b"/chat", to(1), b"connection: keep-alive, upgrade", b"upgrade: WebSocket")
    yield Case("upgrade-case", "R22", (Ask(lower), Tunnel(b"x")), site, scripts, probe=False)
    closing: Script = [_SWITCH % b"websocket", b"bye", Do.CLOSE]
    steps = (Ask(raw), Tunnel(b"", reads=3), Idle(0.5))
    yield Case("tunnel-member-closes", "P26", steps, site, {b"/chat": closing}, probe=False)
    waiting: Script = [_SWITCH % b"websocket", Do.WAIT_CLOSE]
    steps = (Ask(raw), Wait(0.05), Close(), Wait(0.1))
    yield Case("tunnel-client-closes", "P26", steps, site, {b"/chat": waiting}, probe=False)


# --- R: targets and mappings -------------------------------------------------------------------

_TARGETS = [
    b"//a//b", b"/a/./b", b"/a/../b", b"/a/%2e%2e/b", b"/a;p=1/../b", b"/a/..", b"//", b"/a/.",
    b"/../a", b"/%2e%2e/x", b"/a%2Fb", b"/a%2fb", b"/a%00b", b"/a%0Ab", b"/a%zz", b"/a%",
    b"/a?x#f", b"/a b", b"a", b"", b"*", b"/a%20b", b"/a+b", b"/a%2Bb", b"/%41%7e~", b"/a%3Bb",
    b"/a%3Fb", b"/a%23b", b"/a%25b", b"/a%2541", b"/%E4%F6", b"/%c3%a4", b"/\xc3\xa4",
    b"/\"<>^`{|}[]\\", b"/!$&'()*+,;=:@-._~", b"/a?", b"/a??b", b"/a?x=%zz", b"?x",
    b"http://host", b"http://host/p?q", b"http://user@host/p", b"/a?q=\xe4\"<>\\{}",
    b"/a/b/../../c", b"/a/b/./../c/", b"/a//../b", b"/%2E/a", b"/a%7Fb", b"/a%09b",
    b"/.", b"/..", b"/...",
    b"/a?b=../c", b"/a%5Cb", b"/a%2f..%2fb", b"https://mail.zarafa.com/s", b"HTTP://host/x",
    b"ftp://host/x", b"/a#", b"//host/x",
    b"/a%3a%40%26%3d%2b%24%2c", b"/Microsoft-Server-ActiveSync?User=a&DeviceId=b&Cmd=Ping",
]  # fmt: skip


def _targets() -> Iterator[Case]:
    for target in _TARGETS:
        shown = target.decode("latin-1").encode("ascii", "backslashreplace").decode()
        yield Case(f"target-{shown}", "R23 L12", asks(get(target, to(1))))


def _mappings() -> Iterator[Case]:
    def fetch(*targets: bytes) -> tuple[Step, ...]:
        return tuple(Ask(get(target, to(1))) for target in targets)

    renamed = Site(mappings=(MappingSite("/app", "/webaccess"), MappingSite("/")))
    targets: tuple[bytes, ...] = (
        b"/app",
        b"/app/",
        b"/app/x?y",
        b"/apple",
        b"/x",
        b"/app;a=1",
        b"/App/x",
    )
    yield Case("mapping-renamed", "R26", fetch(*targets), renamed)
    slashes = Site(mappings=(MappingSite("/app/", "/webaccess/"), MappingSite("/")))
    yield Case("mapping-with-slashes", "R26", fetch(*targets), slashes)
    bare = Site(mappings=(MappingSite("/ns", "/"), MappingSite("/")))
    yield Case("mapping-slash-on-one-side", "R26", fetch(b"/ns", b"/ns/", b"/ns/x"), bare)
    only = Site(mappings=(MappingSite("/app"),))
    yield Case("mapping-none-fits", "R26", (Ask(get(b"/app/x")), Ask(get(b"/app/%41"))), only)
    longest = Site(
        mappings=(MappingSite("/"), MappingSite("/a", "/one"), MappingSite("/a/b", "/two"))
    )
    yield Case("mapping-longest", "R26", fetch(b"/a/b/c", b"/a/c", b"/a/b", b"/c"), longest)
    targets = (b"/a/../app/x", b"/%61pp/x", b"//app/x", b"/app/../x")
    yield Case("mapping-of-canonical-path", "R26 R23 H31", fetch(*targets), renamed)
    path = Site((MemberSite("server1", path="/app"), MemberSite("server2", path="/app")))
    yield Case("member-path", "R27", fetch(b"/", b"/x?y", b"//x"), path)
    path = Site((MemberSite("server1", path="/app/"), MemberSite("server2", path="/app/")))
    yield Case("member-path-with-slash", "R27", fetch(b"/", b"/x"), path)


REQUEST_CASES = [
    *_methods(),
    *_fields(),
    *_host(),
    *_bodies(),
    *_slow_bodies(),
    *_expect(),
    *_max_forwards(),
    *_upgrades(),
    *_targets(),
    *_mappings(),
]
