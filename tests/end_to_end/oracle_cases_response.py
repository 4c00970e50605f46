"""Oracle cases: handling the response (P)."""

from collections.abc import Iterator

from tests.end_to_end.oracle_model import (
    Ask,
    Case,
    Close,
    Interim,
    MappingSite,
    New,
    Read,
    Send,
    Site,
    Step,
    Wait,
    get,
    post,
    request,
    to,
)
from tests.end_to_end.recording_member import Do, Script, answer

MIB = b"0123456789abcdef" * 65536
OLD = b"HTTP/1.0"


def plain(target: bytes = b"/") -> bytes:
    """A GET that belongs to server1."""
    return get(target, to(1))


def pair(target: bytes = b"/x") -> tuple[Step, ...]:
    """The request in question and one more, to see that nothing is left over."""
    return (Ask(plain(target)), Ask(plain(b"/after")))


def old(target: bytes = b"/x", *fields: bytes) -> tuple[Step, ...]:
    """A single HTTP/1.0 request to server1."""
    return (Ask(request(b"GET " + target + b" HTTP/1.0", to(1), *fields)),)


def head(*lines: bytes) -> bytes:
    """A response head from its lines."""
    return b"\r\n".join(lines) + b"\r\n\r\n"


def case(name: str, rules: str, script: Script, *, steps: tuple[Step, ...] | None = None) -> Case:
    """Two requests by default; the first meets the script."""
    return Case(name, rules, steps or pair(), scripts={b"/x": script})


# --- status and fields -------------------------------------------------------------------------

_STATUS_LINES = {
    "reason": b"HTTP/1.1 404 Nope Nope",
    "empty-reason": b"HTTP/1.1 200 ",
    "no-reason": b"HTTP/1.1 200",
    "299": b"HTTP/1.1 299 Odd",
    "600": b"HTTP/1.1 600 Odd",
    "999": b"HTTP/1.1 999 Odd",
    "reason-8-bit": b"HTTP/1.1 200 \xe4\xf6",
    "reason-tab": b"HTTP/1.1 200 a\tb",
    "version-1.0": b"HTTP/1.0 200 OK",
    "version-1.2": b"HTTP/1.2 200 OK",
    "version-2.0": b"HTTP/2.0 200 OK",
    "two-blanks": b"HTTP/1.1  200 OK",
    "two-digits": b"HTTP/1.1 20 OK",
    "four-digits": b"HTTP/1.1 2000 OK",
    "letters": b"HTTP/1.1 abc",
    "lower-case": b"http/1.1 200 OK",
    "no-version": b"200 OK",
    "status-000": b"HTTP/1.1 000 Odd",
    "status-099": b"HTTP/1.1 099 Odd",
}

_NO_STATUS_LINES = ("two-blanks", "two-digits", "letters", "lower-case", "no-version")

_CLOSING = (400, 401, 403, 404, 405, 408, 409, 410, 411, 413, 414, 416, 429, 431, 449, 451)
_FAILING = (500, 501, 502, 503, 504, 505, 507)


def _status_lines() -> Iterator[Case]:
    for name, line in _STATUS_LINES.items():
        script: Script = [head(line, b"X-Own: 1", b"Content-Length: 2") + b"ok"]
        if name in _NO_STATUS_LINES:
            script = [*script, 0.03, Do.CLOSE]
        yield case(f"status-{name}", "P1 P18", script)
    for status in (*_CLOSING, *_FAILING):
        script = [answer(b"ok", b"X-Own: 1", status=b"%d Word" % status)]
        yield case(f"status-closes-{status}", "P8", script)
    for status in (200, 201, 202, 203, 206, 207, 226, 300, 301, 303, 305, 307, 308):
        script = [answer(b"ok", status=b"%d Word" % status)]
        yield case(f"status-{status}", "P1", script)


def _fields() -> Iterator[Case]:
    many = answer(
        b"ok",
        b"X-Second: 2",
        b"server: Own/1.0",
        b"X-First:   padded \t",
        b"Set-Cookie: a=1; Path=/; HttpOnly",
        b"date: Sun, 06 Nov 1994 08:49:37 GMT",
        b"x-second: 3",
        b"X-Empty:",
        b"Set-Cookie: b=2",
        b"Content-Type: text/x",
        b"Vary: Accept",
        b"Vary: Cookie",
        b'ETag: "x"',
    )
    yield case("fields-order", "P2 P3 P4", [many])
    hop = answer(
        b"ok",
        b"Connection: X-Hop",
        b"X-Hop: 1",
        b"Keep-Alive: timeout=9",
        b"Proxy-Authenticate: Basic",
        b"Proxy-Authorization: x",
        b"Proxy-Connection: close",
        b"TE: x",
        b"Trailer: X-T",
        b"Upgrade: h2c",
        b"Via: 1.1 own",
        b"X-Stay: 1",
    )
    yield case("fields-hop-by-hop", "P5", [hop])
    closing = answer(b"ok", b"Connection: close")
    yield case("fields-connection-close", "P5 R28", [closing, Do.CLOSE])
    both = answer(b"ok", b"Connection: Set-Cookie, Date", b"Set-Cookie: a=1", b"Date: x")
    yield case("fields-connection-names-cookie", "P5", [both])
    dates = {
        "rfc-850": b"Sunday, 06-Nov-94 08:49:37 GMT",
        "asctime": b"Sun Nov  6 08:49:37 1994",
        "nonsense": b"yesterday",
        "zone": b"Sun, 06 Nov 1994 08:49:37 +0100",
        "zero": b"0",
    }
    for name, value in dates.items():
        fields = [b"Date: " + value, b"Expires: " + value, b"Last-Modified: " + value]
        yield case(f"dates-{name}", "P4", [answer(b"ok", *fields)])
    warnings = (
        b"Date: Sun, 06 Nov 1994 08:49:37 GMT",
        b'Warning: 110 own "stale" "Sun, 06 Nov 1994 08:49:37 GMT"',
        b'Warning: 110 own "stale" "Mon, 07 Nov 1994 08:49:37 GMT"',
        b'Warning: 110 own "stale"',
    )
    yield case("fields-warning", "P5", [answer(b"ok", *warnings)])
    yield case("fields-obs-text", "H20", [answer(b"ok", b"X-A: \xe4\xff\tb")])
    thousand = [b"X-%d: %d" % (number, number) for number in range(1000)]
    yield case("fields-1000", "P22", [answer(b"ok", *thousand)])
    for length in (4000, 8190, 8191, 8192, 9000):
        line = b"X-A: " + b"x" * (length - 5)
        yield case(f"fields-line-of-{length}", "P22", [answer(b"ok", line)])
    yield case("server-and-date-added", "P2 P4", [answer(b"ok", b"X: 1")])
    asking = (Ask(get(b"/x", to(1), b"Connection: keep-alive")),)
    yield case("keep-alive-asked", "P9", [answer(b"ok")], steps=asking)
    asking = (Ask(get(b"/x", to(1), b"Connection: Keep-Alive, X-Y")),)
    yield case("keep-alive-asked-capital", "P9", [answer(b"ok")], steps=asking)
    asking = (Ask(get(b"/x", to(1), b"Connection: keep-alive")),)
    script: Script = [answer(b"no", status=b"503 Busy")]
    yield case("keep-alive-asked-503", "P8 P9", script, steps=asking)
    asking = (Ask(get(b"/x", to(1), b"Connection: close")),)
    yield case("close-asked-by-client", "P8", [answer(b"ok", b"X: 1")], steps=asking)


_BAD_FIELDS = {
    "no-colon": b"broken",
    "blank-before-colon": b"X-A : 1",
    "bad-name": b"X(A): 1",
    "empty-name": b": 1",
    "control": b"X-A: a\x01b",
    "nul": b"X-A: a\x00b",
    "bare-cr": b"X-A: a\rb",
    "folded": b"X-A: a\r\n   b",
    "folded-tab": b"X-A: a\r\n\tb",
    "two-lengths": b"Content-Length: 2\r\nContent-Length: 2",
    "two-different-lengths": b"Content-Length: 2\r\nContent-Length: 5",
    "length-2x": b"Content-Length: 2x",
    "length-negative": b"Content-Length: -2",
    "length-list": b"Content-Length: 2, 2",
    "length-empty": b"Content-Length:",
    "length-and-chunked": b"Content-Length: 2\r\nTransfer-Encoding: chunked",
    "gzip": b"Transfer-Encoding: gzip",
    "gzip-chunked": b"Transfer-Encoding: gzip, chunked",
    "identity": b"Transfer-Encoding: identity",
}


def _bad_fields() -> Iterator[Case]:
    for name, line in _BAD_FIELDS.items():
        own = b"Content-Length" in line or b"Transfer" in line
        length = [] if own else [b"Content-Length: 2"]
        body = b"2\r\nok\r\n0\r\n\r\n" if b"chunked" in line else b"ok"
        until_close: Script = [0.03, Do.CLOSE] if name in ("gzip", "identity") else []
        script: Script = [head(b"HTTP/1.1 200 OK", line, *length) + body, *until_close]
        yield case(f"bad-{name}", "P19 P20 P21", script)
    lines = head(b"HTTP/1.1 200 OK", b"X-A: 1", b"Content-Length: 2").replace(b"\r\n", b"\n")
    yield case("bad-lf-only", "P19", [lines + b"ok"])
    yield case("bad-one-empty-line-first", "P18", [b"\r\n" + answer(b"ok")])
    yield case("bad-two-empty-lines-first", "P18", [b"\r\n\r\n" + answer(b"ok"), Do.CLOSE])
    yield case("bad-end-in-head", "P23", [b"HTTP/1.1 200 OK\r\nX-A: 1\r\n", Do.CLOSE])
    yield case("bad-end-in-status-line", "P23", [b"HTTP/1.1 200", Do.CLOSE])
    later = (Ask(plain()), Ask(plain(b"/x")))
    yield case("bad-end-in-later-status-line", "P23 F1", [b"HTTP/1.1 200", Do.CLOSE], steps=later)
    yield case("bad-no-status-line", "P18", [b"hello\r\nworld\r\n", Do.CLOSE])
    yield case("bad-long-status-line", "P22", [answer(b"", status=b"200 " + b"x" * 9000)])


# --- bodies ------------------------------------------------------------------------------------

_CHUNKED = head(b"HTTP/1.1 200 OK", b"Content-Type: text/a", b"Transfer-Encoding: chunked")

_BODIES: dict[str, Script] = {
    "length": [answer(b"hello", b"Content-Type: text/a")],
    "length-zero": [answer(b"")],
    "length-large": [answer(MIB)],
    "length-in-pieces": [answer(b"hello")[:-3], 0.05, b"llo"],
    "chunked": [_CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"],
    "chunked-empty": [_CHUNKED + b"0\r\n\r\n"],
    "chunked-in-pieces": [_CHUNKED, 0.03, b"5\r\nhe", 0.03, b"llo\r\n0\r\n", 0.03, b"\r\n"],
    "chunked-trailers": [_CHUNKED + b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"],
    "chunked-extension": [_CHUNKED + b"5;a=b\r\nhello\r\n0;c\r\n\r\n"],
    "chunked-large": [_CHUNKED + b"100000\r\n" + MIB + b"\r\n0\r\n\r\n"],
    "chunked-bad-size": [_CHUNKED + b"5\r\nhello\r\n", 0.1, b"xyz\r\n", Do.CLOSE],
    "chunked-bad-first-size": [_CHUNKED + b"xyz\r\nhello", Do.CLOSE],
    "until-close": [b"HTTP/1.1 200 OK\r\nContent-Type: text/a\r\n\r\nhello", Do.CLOSE],
    "until-close-1.0": [b"HTTP/1.0 200 OK\r\n\r\nhello", Do.CLOSE],
    "until-close-large": [b"HTTP/1.1 200 OK\r\n\r\n" + MIB, Do.CLOSE],
    "length-1.0": [b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", Do.CLOSE],
    "length-1.0-keep-alive": [
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello"
    ],
    "204": [b"HTTP/1.1 204 No Content\r\nContent-Type: text/a\r\nContent-Length: 0\r\n\r\n"],
    "204-bare": [b"HTTP/1.1 204 No Content\r\n\r\n"],
    "204-with-body": [b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc", Do.CLOSE],
    "204-chunked": [b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"],
    "205": [b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"],
    "304": [b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Type: text/a\r\n\r\n"],
    "304-with-length": [b"HTTP/1.1 304 Not Modified\r\nContent-Length: 55\r\n\r\n"],
    "truncated-length": [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", 0.02, Do.CLOSE],
    "truncated-length-reset": [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", 0.1, Do.RESET
    ],
    "truncated-chunk": [_CHUNKED + b"a\r\nhello", 0.02, Do.CLOSE],
    "truncated-between-chunks": [_CHUNKED + b"5\r\nhello\r\n", 0.02, Do.CLOSE],
    "truncated-large": [b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + MIB, Do.CLOSE],
    "extra-bytes": [answer(b"hello") + b"HTTP/1.1 200 OK\r\n\r\nsecret"],
    "extra-bytes-after-chunks": [_CHUNKED + b"5\r\nhello\r\n0\r\n\r\nsecret"],
    "compressed": [answer(b"\x1f\x8b\x08\x00", b"Content-Encoding: gzip")],
}  # fmt: skip


def _bodies() -> Iterator[Case]:
    for name, script in _BODIES.items():
        yield case(f"reply-{name}", "P6 P7 P24 P25", script)
    for name in (
        "length", "chunked", "chunked-trailers", "until-close", "204", "304",
        "chunked-large", "truncated-chunk",
    ):  # fmt: skip
        yield case(f"reply-to-1.0-{name}", "P6", _BODIES[name], steps=old())
        keep = old(b"/x", b"Connection: keep-alive")
        yield case(f"reply-to-1.0-keep-alive-{name}", "P6 P9", _BODIES[name], steps=keep)
    heads: dict[str, Script] = {
        "length": [head(b"HTTP/1.1 200 OK", b"Content-Length: 55")],
        "no-length": [head(b"HTTP/1.1 200 OK", b"Content-Type: text/a")],
        "chunked": [_CHUNKED],
        "404": [head(b"HTTP/1.1 404 Not Found", b"Content-Length: 9")],
        "1.0": [b"HTTP/1.0 200 OK\r\nX: 1\r\n\r\n", Do.CLOSE],
    }
    for name, script in heads.items():
        steps = (Ask(request(b"HEAD /x HTTP/1.1", to(1))), Ask(plain(b"/after")))
        yield case(f"reply-to-head-{name}", "P6", script, steps=steps)
    reuse = (Ask(plain(b"/x")), Ask(plain(b"/after")), Ask(plain(b"/after")))
    for name in ("extra-bytes", "length-1.0", "length-1.0-keep-alive", "chunked", "204"):
        yield Case(
            f"reply-reuse-{name}",
            "P25 P18 R28",
            reuse,
            scripts={b"/x": _BODIES[name]},
            connections=True,
        )


def _streaming() -> Iterator[Case]:
    big: Script = [b"HTTP/1.1 200 OK\r\nContent-Length: 40000000\r\n\r\n" + MIB, MIB * 38, Do.CLOSE]
    steps: tuple[Step, ...] = (
        Send(plain(b"/x")),
        Wait(0.1),
        Close(),
        Wait(0.1),
        Ask(plain(b"/after")),
    )
    yield case("client-gone-while-body", "P30", big, steps=steps)
    slow: Script = [0.3, answer(b"late")]
    steps = (Send(plain(b"/x")), Wait(0.1), Close(), Wait(0.3), Ask(plain(b"/after")))
    yield case("client-gone-while-waiting", "P30", slow, steps=steps)
    early: Script = [Do.LEAVE_BODY, answer(b"early", b"X: 1"), 0.2, Do.READ_BODY]
    steps = (Ask(post(b"/x", b"x" * 100000, to(1))), Ask(plain(b"/after")))
    yield case("early-final-then-read", "P31", early, steps=steps)
    steps = (Ask(post(b"/x", b"x" * 3000, to(1))), Ask(plain(b"/after")))
    yield case("early-final-small-body", "P31", early, steps=steps)


# --- interim responses -------------------------------------------------------------------------


def _interims() -> Iterator[Case]:
    hints = head(b"HTTP/1.1 103 Early Hints", b"Link: </a.css>; rel=preload", b"X-Own: 1")
    work = head(b"HTTP/1.1 102 Processing")
    odd = head(b"HTTP/1.1 110 Odd")
    go = head(b"HTTP/1.1 100 Continue")
    final = answer(b"ok")
    yield case("interim-103", "P17 C14", [hints, final])
    yield case("interim-102-103-110", "P17", [work, hints, odd, final])
    yield case("interim-103-slow-final", "P17", [hints, 0.1, final], steps=(
        Send(plain(b"/x")), Interim(), Read(), Ask(plain(b"/after")),
    ))  # fmt: skip
    yield case("interim-100-unasked", "P17", [go, final])
    yield case("interim-to-1.0", "P17", [hints, go, final], steps=old())
    for count in (9, 10, 11):
        yield case(f"interim-{count}-times", "P17", [work * count + final])
    yield case("interim-with-length", "P17", [head(b"HTTP/1.1 102 P", b"Content-Length: 5"), final])
    yield case("interim-set-cookie", "P17", [head(b"HTTP/1.1 103 E", b"Set-Cookie: a=1"), final])
    yield case("interim-101-unasked", "P26", [head(b"HTTP/1.1 101 S", b"Upgrade: x"), Do.CLOSE])


# --- rewriting ---------------------------------------------------------------------------------

_LOCATIONS = {
    "self": b"http://@SELF@/x/y?z#f",
    "self-bare": b"http://@SELF@",
    "self-slash": b"http://@SELF@/",
    "other-member": b"http://@OTHER@/x",
    "capital-scheme": b"HTTP://@SELF@/x",
    "https": b"https://@SELF@/x",
    "no-port": b"http://@HOST@/x",
    "relative": b"/x/y",
    "relative-path": b"x/y",
    "scheme-relative": b"//@SELF@/x",
    "foreign": b"http://www.example.org/x",
    "balancer": b"balancer://cluster/x",
    "longer-host": b"http://@SELF@.evil.example.org/x",
    "longer-port": b"http://@SELF@0/x",
    "self-query": b"http://@SELF@?x",
    "self-fragment": b"http://@SELF@#x",
    "self-user": b"http://@SELF@@evil.example.org/x",
    "public": b"https://mail.zarafa.com/x",
    "empty": b"",
    "blank-inside": b"http://@SELF@/a b",
    "8-bit": b"http://@SELF@/\xe4",
}


def _locations() -> Iterator[Case]:
    for name, value in _LOCATIONS.items():
        script: Script = [answer(b"moved", b"Location: " + value, status=b"302 Found")]
        yield case(f"location-{name}", "P10 P11 P12 P13 P14", script)
    for field in (b"Content-Location", b"URI", b"Destination", b"Refresh", b"Link", b"location"):
        script = [answer(b"x", field + b": http://@SELF@/y")]
        yield case(f"rewritten-{field.decode()}", "P10", script)
    for status in (b"200 OK", b"201 Created", b"301 Moved", b"404 No", b"503 No"):
        script = [answer(b"x", b"Location: http://@SELF@/y", status=status)]
        yield case(f"location-on-{status[:3].decode()}", "P10", script)
    two = answer(b"x", b"Location: http://@SELF@/a", b"Location: http://@OTHER@/b")
    yield case("location-twice", "P10", [two])
    moved: Script = [answer(b"", b"Location: http://@SELF@/y", status=b"302 Found")]
    hosts = {
        "port": b"mail.zarafa.com:8443",
        "port-443": b"mail.zarafa.com:443",
        "other": b"other.example.org",
        "capitals": b"Mail.ZARAFA.com",
        "ipv6": b"[::1]",
        "ipv6-port": b"[::1]:8443",
    }
    for name, host in hosts.items():
        asked = (Ask(get(b"/x", to(1), host=host)),)
        yield case(f"location-host-{name}", "P12", moved, steps=asked)
    yield Case(
        "location-without-host",
        "P12",
        (Ask(request(b"GET /x HTTP/1.0", to(1), host=None)),),
        scripts={b"/x": moved},
        server_name=None,
    )


def _mapped_locations() -> Iterator[Case]:
    app = Site(mappings=(MappingSite("/app", "/webaccess"), MappingSite("/")))
    values = {
        "inside": b"http://@SELF@/webaccess/n",
        "itself": b"http://@SELF@/webaccess",
        "longer": b"http://@SELF@/webaccessories",
        "outside": b"http://@SELF@/other",
        "bare": b"http://@SELF@",
        "relative": b"/webaccess/n",
    }
    for name, value in values.items():
        script: Script = [answer(b"", b"Location: " + value, status=b"302 Found")]
        scripts = {b"/webaccess/x": script, b"/x": script}
        steps: tuple[Step, ...] = (Ask(plain(b"/app/x")), Ask(plain(b"/x")))
        yield Case(f"location-mapped-{name}", "P14", steps, app, scripts)
    alone = Site(mappings=(MappingSite("/app", "/webaccess"),))
    for name in ("inside", "outside"):
        script = [answer(b"", b"Location: " + values[name], status=b"302 Found")]
        steps = (Ask(plain(b"/app/x")),)
        scripts = {b"/webaccess/x": script}
        yield Case(f"location-mapped-alone-{name}", "P14", steps, alone, scripts)
    slashes = Site(mappings=(MappingSite("/app/", "/webaccess/"),))
    for name in ("inside", "itself", "longer"):
        script = [answer(b"", b"Location: " + values[name], status=b"302 Found")]
        steps = (Ask(plain(b"/app/x")),)
        scripts = {b"/webaccess/x": script}
        yield Case(f"location-mapped-slashes-{name}", "P14", steps, slashes, scripts)
    off = Site(mappings=(MappingSite("/", reverse=False),))
    script = [answer(b"", b"Location: http://@SELF@/y", status=b"302 Found")]
    yield Case("location-not-rewritten", "P10", (Ask(plain(b"/x")),), off, {b"/x": script})


_COOKIES = {
    "domain": b"a=1; domain=server1.zarafa.com; path=/",
    "domain-capitals": b"a=1; Domain=SERVER1.Zarafa.com; path=/",
    "domain-leading-dot": b"a=1; domain=.server1.zarafa.com",
    "domain-longer": b"a=1; domain=server1.zarafa.com.evil.org",
    "domain-other": b"a=1; domain=example.org",
    "domain-no-blank": b"a=1;domain=server1.zarafa.com;secure",
    "domain-blanks": b"a=1 ;  DOMAIN = server1.zarafa.com ; Secure",
    "path": b"a=1; path=/webaccess; HttpOnly",
    "path-capitals": b"a=1; PATH=/webaccess",
    "path-below": b"a=1; path=/webaccess/sub",
    "path-longer": b"a=1; path=/webaccessories",
    "path-other-case": b"a=1; path=/WebAccess",
    "path-other": b"a=1; path=/else",
    "both": b"a=1; Path=/webaccess; Domain=server1.zarafa.com; Secure; SameSite=Lax",
    "in-value": b"domain=server1.zarafa.com; path=/x",
    "expires": b"a=1; expires=Sun, 06-Nov-1994 08:49:37 GMT; path=/webaccess",
    "quoted": b'a="x; domain=server1.zarafa.com"; path=/webaccess',
    "no-value": b"a; path",
    "none": b"a=1",
}


def _cookies() -> Iterator[Case]:
    mapping = MappingSite(
        cookie_domain={"server1.zarafa.com": "zarafa.com"}, cookie_path={"/webaccess": "/"}
    )
    site = Site(mappings=(mapping,))
    for name, value in _COOKIES.items():
        lines = [b"Set-Cookie: " + value, b"set-cookie: second=1; path=/webaccess"]
        script: Script = [answer(b"ok", *lines)]
        steps = (Ask(plain(b"/x")),)
        yield Case(f"member-cookie-{name}", "P15 P16", steps, site, {b"/x": script})
    script = [answer(b"ok", b"Set-Cookie: " + _COOKIES["both"])]
    yield case("member-cookie-unmapped", "P16", script)


def _ranges() -> Iterator[Case]:
    asked = (Ask(get(b"/x", to(1), b"Range: bytes=1-2")), Ask(plain(b"/after")))
    yield case("range-ignored-by-member", "P29", [answer(b"hello")], steps=asked)
    partial = answer(b"el", b"Content-Range: bytes 1-2/5", status=b"206 Partial Content")
    yield case("range-answered-by-member", "P29", [partial], steps=asked)
    asked = (Ask(get(b"/x", to(1), b"Range: bytes=9-")), Ask(plain(b"/after")))
    yield case("range-beyond", "P29", [answer(b"hello")], steps=asked)
    asked = (Ask(get(b"/x", to(1), b'If-None-Match: "x"')), Ask(plain(b"/after")))
    yield case("conditional-not-evaluated", "P29", [answer(b"hello", b'ETag: "x"')], steps=asked)
    dated = (b"If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT",)
    asked = (Ask(get(b"/x", to(1), *dated)), Ask(plain(b"/after")))
    last = answer(b"hello", b"Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT")
    yield case("modified-since-not-evaluated", "P29", [last], steps=asked)


def _failed_members() -> Iterator[Case]:
    moved = (Ask(plain(b"/x")), New(), Ask(plain(b"/x")), Ask(get(b"/x")))
    redirect: Script = [answer(b"moved", b"Location: http://@OTHER@/y", status=b"302 Found")]
    yield Case("redirect-while-failed-over", "P10 F4", moved, scripts={b"*": redirect}, down=(1,))


RESPONSE_CASES = [
    *_status_lines(),
    *_fields(),
    *_bad_fields(),
    *_bodies(),
    *_streaming(),
    *_interims(),
    *_locations(),
    *_mapped_locations(),
    *_cookies(),
    *_ranges(),
    *_failed_members(),
]
