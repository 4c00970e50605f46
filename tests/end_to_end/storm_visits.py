"""The visits of a storm, kind by kind, and what the member does about their paths.

``QUICK`` visits are over as soon as both sides have done their part; ``SLOW`` ones end by a
timeout of the proxy, or wait for it. A kind stands as often in its list as it shall occur.
"""

import ssl

from tests.end_to_end.storm import MARK, Answer, End, Step, Visit

TLS, PLAIN, HASTY = 0, 1, 2
"""The frontends: the last one's timeouts are short."""

_HOST = b" HTTP/1.1\r\nHost: mail.example.org\r\n"
_HEAD_END = b"\r\n\r\n"
_BODY = b"x" * 1999 + MARK
_LARGE = b"x" * 99_999 + MARK
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
_OK = b"HTTP/1.1 200 OK\r\n"
_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
_CLOSED = b"Connection: close\r\n"


def _get(path: bytes, fields: bytes = b"", method: bytes = b"GET") -> bytes:
    return method + b" " + path + _HOST + fields + b"\r\n"


def _post(path: bytes, body: bytes, fields: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST " + path + _HOST + fields + length + b"\r\n" + body


def _post_chunked(path: bytes, *chunks: bytes) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"POST " + path + _HOST + _CHUNKED + body + b"0\r\n\r\n"


def _whole(body: bytes, fields: bytes = b"", line: bytes = _OK) -> bytes:
    return line + fields + b"Content-Length: %d\r\n\r\n" % len(body) + body


_UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
_IN_CHUNKS = _OK + _CHUNKED + b"3\r\nabc\r\n5;x=y\r\nabcd~\r\n0\r\nX: y\r\n\r\n"

# --- what the member does -------------------------------------------------------------------------

_MALFORMED_ANSWERS = [
    b"garbage\r\n\r\n",
    b"HTTP/2 200 OK\r\n\r\n",
    b"HTTP/1.1 99 Low\r\n\r\n",
    _OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    _OK + b"Content-Length: x\r\n\r\nhello",
    _OK + b"Content-Length: 5\r\n" + _CHUNKED + b"0\r\n\r\n",
    _OK + b"X : y\r\n\r\n",
    _OK + b"X: y\0\r\n\r\n",
    _OK + b"X: " + b"y" * 20_000 + _HEAD_END,
    _OK + b"Content-Length: 0\r\n" + b"X: y\r\n" * 300 + b"\r\n",
    _SWITCH,
    b"HTTP/1.1 100 Continue\r\n\r\n" * 11,
]
_TRUNCATED_ANSWERS = [
    b"",
    b"HTTP/1.1 2",
    _OK + b"X: y\r\n",
    _OK + b"Content-Length: 5\r\n\r\nhel",
    _OK + _CHUNKED + b"5\r\nhel",
    _OK + _CHUNKED + b"5\r\nhello\r\n",
    _OK + _CHUNKED + b"5x\r\nhello\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
]

ANSWERS = {
    b"/ok": Answer(_whole(b"ok~")),
    b"/cookies": Answer(_whole(b"ok~", b"Set-Cookie: a=b\r\nSet-Cookie: c=d; path=/\r\n")),
    b"/chunked": Answer(_IN_CHUNKS),
    b"/large": Answer(_whole(_LARGE)),
    b"/huge": Answer(_whole(b"x" * 3_000_000 + MARK)),
    b"/until-close": Answer(_OK + b"\r\nok~", End.CLOSE),
    b"/last": Answer(_whole(b"ok~", _CLOSED), End.CLOSE),
    b"/204": Answer(b"HTTP/1.1 204 No Content\r\nX: ~\r\n\r\n"),
    b"/304": Answer(b"HTTP/1.1 304 Not Modified\r\nX: ~\r\nContent-Length: 9\r\n\r\n"),
    b"/head": Answer(_OK + b"X: ~\r\nContent-Length: 9\r\n\r\n"),
    b"/hints": Answer(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + _whole(b"ok~")),
    b"/too-much": Answer(_whole(b"ok~") + _whole(b"unasked")),
    b"/early": Answer(_whole(b"ok~", _CLOSED, b"HTTP/1.1 413 Too Large\r\n"), early=True),
    b"/silent": Answer(early=True),
    b"/stalled": Answer(_OK + b"Content-Length: 9\r\n\r\n~", early=True),
    b"/tunnel": Answer(_SWITCH, echo=True),
    b"/tunnel/closed": Answer(_SWITCH + b"hello~", End.CLOSE),
    b"/tunnel/reset": Answer(_SWITCH + b"hello~", End.RESET),
    **{b"/malformed/%d" % i: Answer(data) for i, data in enumerate(_MALFORMED_ANSWERS)},
    **{b"/cut/%d" % i: Answer(data, End.CLOSE) for i, data in enumerate(_TRUNCATED_ANSWERS)},
    **{b"/reset/%d" % i: Answer(data, End.RESET) for i, data in enumerate(_TRUNCATED_ANSWERS)},
}

# --- what clients do ------------------------------------------------------------------------------


def _visit(*sent: bytes, end: End = End.CLOSE, secured: bool = False) -> Visit:
    """Requests one after the other, each answered with a mark."""
    steps = tuple(Step(data) for data in sent)
    return Visit(steps, end, len(sent), TLS if secured else PLAIN, secured)


def _sent(data: bytes, end: End, frontend: int = PLAIN, requests: int = 1) -> Visit:
    """Bytes for which no answer is waited."""
    return Visit((Step(data, count=0),), end, requests, frontend)


_ALL_KINDS = [
    _get(b"/ok", b"Cookie: BALANCEME=balancer.server1\r\n"),
    _get(b"/cookies"),
    _get(b"/chunked"),
    _get(b"/204"),
    _get(b"/304"),
    _get(b"/head", method=b"HEAD"),
    _get(b"/hints"),
    _get(b"/large"),
    _post(b"/ok", _BODY),
    _post(b"/ok", _LARGE),
    _post_chunked(b"/ok", b"abc", _BODY),
    _post(b"/chunked", _BODY, b"Expect: 100-continue\r\n"),
    _get(b"/refused"),
    _get(b"/too-much"),
]
_PIPELINED = _get(b"/ok") * 4 + _get(b"/head", method=b"HEAD") + _post(b"/ok", _BODY) * 3
_ANSWERED = [
    _visit(*_ALL_KINDS),
    _visit(*_ALL_KINDS, secured=True),
    _visit(*[_get(b"/ok")] * 20),
    _visit(*[_get(b"/ok")] * 20, secured=True),
    Visit((Step(_PIPELINED, count=8),), End.CLOSE, 8),
    Visit((Step(_PIPELINED, count=8),), End.RESET, 8),
    _visit(_get(b"/ok", _CLOSED), end=End.STAY),
    _visit(b"GET /ok HTTP/1.0\r\nHost: a\r\n\r\n", end=End.STAY),
    _visit(b"GET /chunked HTTP/1.0\r\nHost: a\r\n\r\n", end=End.STAY),
    _visit(_get(b"/until-close"), _get(b"/last"), end=End.RESET),
    _visit(_get(b"/ok"), _get(b"/ok"), end=End.HALF_CLOSE),
    _visit(_post(b"/early", _LARGE), end=End.RESET),
    Visit((Step(_get(b"/ok", method=b"TRACE") + _get(b"/nobody"), b"</html>", 2),), End.CLOSE, 2),
    _visit(_get(b"/ok", _CLOSED), end=End.STAY, secured=True),
]
_TUNNELS = [
    Visit((Step(_get(b"/tunnel", _UPGRADE), _HEAD_END), Step(b"hello~")), end, 1, frontend, secured)
    for end in (End.CLOSE, End.RESET)
    for frontend, secured in ((PLAIN, False), (TLS, True))
] + [
    _visit(_get(b"/tunnel/closed", _UPGRADE), end=End.STAY),
    _visit(_get(b"/tunnel/reset", _UPGRADE), end=End.STAY),
    _visit(_get(b"/ok", _UPGRADE)),
]
_WHOLE_CHUNKED = _post_chunked(b"/ok", b"abc", _BODY)
_CUT_OFF = (
    [_sent(_get(b"/ok")[:size], End.RESET) for size in (0, 1, 30, 44)]
    + [_sent(_get(b"/ok")[:size], End.CLOSE) for size in (0, 20, 45)]
    + [
        _sent(_get(path), end)
        for path in (b"/ok", b"/large", b"/silent", b"/nobody")
        for end in (End.RESET, End.CLOSE)
    ]
    + [_sent(_post(b"/ok", _LARGE)[:size], End.RESET) for size in (100, 10_000, 40_000)]
    + [_sent(_post(b"/ok", _LARGE)[:size], End.CLOSE) for size in (100, 40_000)]
    + [_sent(_post(b"/ok", _LARGE)[:40_000], End.HALF_CLOSE)]
    + [
        _sent(_WHOLE_CHUNKED[:size], end)
        for size in (90, 100, 1500)
        for end in (End.RESET, End.HALF_CLOSE)
    ]
    + [_sent(_PIPELINED, end, requests=8) for end in (End.RESET, End.CLOSE)]
    + [Visit((Step(_get(b"/large"), _HEAD_END),), end) for end in (End.RESET, End.CLOSE)]
    + [
        Visit((Step(_get(b"/huge"), b"xxx", 1000),), end, 1, frontend, frontend == TLS)
        for end in (End.RESET, End.CLOSE)
        for frontend in (PLAIN, TLS)
    ]
)
_MALFORMED = [
    _sent(data, End.STAY)
    for data in (
        b"garbage\r\n\r\n",
        b"\x16\3\1\2\0\1\0\1\xfc\3\3" + bytes(100) + b"\r\n\r\n",
        _get(b"/ok", b"X : y\r\n"),
        _get(b"/ok", b"X: y\r\n folded\r\n"),
        _get(b"/ok", b"Host: b\r\n"),
        _get(b"/ok", b"X: y\0\r\n"),
        _get(b"/ok", b"X: y\r\n" * 201),
        _get(b"/ok", b"X: " + b"y" * 17_000 + b"\r\n"),
        _get(b"/" + b"x" * 17_000),
        b"GET /ok HTTP/2.0\r\n\r\n",
        _get(b"/ok", _CLOSED, b"TRACE"),
        _get(b"/ok", _CLOSED, b"CONNECT"),
        _post(b"/ok", _BODY, b"Transfer-Encoding: chunked\r\n"),
        _post(b"/ok", _BODY, b"Content-Length: 1\r\n"),
        b"POST /ok" + _HOST + _CHUNKED + b"5\r\nhelloX\r\n",
        b"POST /ok" + _HOST + _CHUNKED + b"5\r\nhello\r\n0\r\nno colon\r\n\r\n",
        b"POST /ok" + _HOST + _CHUNKED + b"1;" + b"x" * 5000,
    )
]
_BAD_ANSWERS = [
    _sent(_get(path, _CLOSED), End.STAY)
    for path in ANSWERS
    if path.startswith((b"/malformed", b"/cut", b"/reset"))
]
_HANDSHAKES = [_sent(data, end, TLS, 0) for end in (End.RESET, End.CLOSE) for data in (b"", b"GET")]


def _hello() -> bytes:
    """What a TLS client says first."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(
        ssl.MemoryBIO(), outgoing, server_hostname="mail.example.org"
    )
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


_HELLO = _hello()
_HANDSHAKES += [
    _sent(_HELLO[:100], End.RESET, TLS, 0),
    _sent(_HELLO, End.CLOSE, TLS, 0),
    _sent(_HELLO, End.RESET, TLS, 0),
    _sent(_HELLO[:60] + bytes(500), End.STAY, TLS, 0),
    _sent(_get(b"/ok"), End.STAY, TLS, 0),
    *[Visit((), end, 0, TLS, secured=True) for end in (End.RESET, End.CLOSE)],
    *[
        Visit((Step(_get(b"/ok")[:30], count=0),), e, 1, TLS, secured=True)
        for e in (End.RESET, End.CLOSE)
    ],
]

QUICK = _ANSWERED * 3 + _TUNNELS + _CUT_OFF + _MALFORMED + _BAD_ANSWERS + _HANDSHAKES

SLOW = [
    # a timeout of the client's
    _sent(b"", End.STAY, HASTY, 0),
    _sent(_get(b"/ok")[:30], End.STAY, HASTY),
    _sent(_post(b"/ok", _LARGE)[:40_000], End.STAY, HASTY),
    _sent(_post_chunked(b"/ok", _BODY)[:1000], End.STAY, HASTY),
    Visit((Step(_get(b"/ok")),), End.STAY, 1, HASTY),
    Visit((Step(_get(b"/huge"), count=0),), End.STAY, 1, HASTY, deaf=2.5),
    _sent(_HELLO[:100], End.STAY, TLS, 0),
    # of the member's, over either frontend
    _sent(_get(b"/impatient/silent", _CLOSED), End.STAY),
    _sent(_get(b"/impatient/stalled"), End.STAY),
    _sent(_post(b"/impatient/silent", _LARGE, _CLOSED), End.STAY),
    Visit((Step(_get(b"/impatient/silent", _CLOSED), count=0),), End.STAY, 1, TLS, secured=True),
    Visit((Step(_get(b"/tunnel", _UPGRADE), _HEAD_END),), End.STAY, 1),
    # of connecting; or they leave while they wait, for the member or for a connection to it
    _sent(_get(b"/unreachable", _CLOSED), End.STAY),
    *[_sent(_get(b"/unreachable"), end) for end in (End.RESET, End.CLOSE)],
    *[_sent(_get(b"/crowded/silent", _CLOSED), end) for end in (End.RESET, End.CLOSE, End.STAY)],
]
