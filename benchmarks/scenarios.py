"""What is asked of a proxy: load shapes as data.

A ``Load`` is driven for a while and costs CPU time a request or a GB; a ``Held`` is a number of
connections that stay open and costs memory. Nothing here runs.
"""

from dataclasses import dataclass
from enum import Enum

HOST = b"mail.zarafa.com"
SMALL_BYTES = 1000
POST_BYTES = 2048
BIG_BYTES = 20_000_000
ROUTES = ("server1", "server2")
PING_PATH = b"/Microsoft-Server-ActiveSync"


class Driver(Enum):
    """Which load generator drives a scenario."""

    WRK = "wrk"
    HANDSHAKES = "handshakes"


class Unit(Enum):
    """What a figure is; each is better when smaller."""

    REQUEST = "µs CPU a request"
    DOWNLOAD = "s CPU a GB down"
    UPLOAD = "s CPU a GB up"
    MEMORY = "KB a connection"


@dataclass(frozen=True)
class Load:
    """Requests that are sent in turn over some connections, as quickly as they are answered."""

    name: str
    title: str
    requests: tuple[bytes, ...]
    tls: bool = True
    connections: int = 64
    browsers: int = 1
    """Among so many the requests and the connections are divided."""
    unit: Unit = Unit.REQUEST
    driver: Driver = Driver.WRK


@dataclass(frozen=True)
class Held:
    """Connections over TLS that send one request each and then stay open."""

    name: str
    title: str
    request: bytes
    answered: bool
    unit: Unit = Unit.MEMORY


Scenario = Load | Held


@dataclass(frozen=True)
class Goal:
    """What the proxy must reach in a scenario: a figure, or a share of a peer's figure."""

    scenario: str
    at_most: float
    of_peer: str | None = None


# --- requests ----------------------------------------------------------------------------------

_FIREFOX = b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
_LANGUAGE = b"en-GB,en;q=0.7,nl;q=0.3"
_AGENTS = (
    _FIREFOX,
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:132.0) Gecko/20100101 Firefox/132.0",
    b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0",
    b"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Safari/605.1.15",
)
_LANGUAGES = (_LANGUAGE, b"nl,en-US;q=0.7,en;q=0.3", b"de-DE,de;q=0.9,en;q=0.5", b"fr")
_DOCUMENT = b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
_IMAGE = b"image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"
_SCRIPT = b"*/*"


def session(route: str, number: int = 0) -> bytes:
    """A Cookie field: an application's cookie and the session cookie."""
    return b"ZARAFA_WEBACCESS=%032x; BALANCEME=balancer.%b" % (0x1D0C5 + number, route.encode())


def request(
    method: bytes = b"GET",
    path: bytes = b"/small",
    *,
    cookie: bytes | None = None,
    body: bytes = b"",
    connection: bytes = b"keep-alive",
    agent: bytes = _FIREFOX,
    language: bytes = _LANGUAGE,
    accept: bytes = _DOCUMENT,
) -> bytes:
    """A whole request with nine browser-like field lines; eight without a cookie."""
    lines = [
        method + b" " + path + b" HTTP/1.1",
        b"Host: " + HOST,
        b"User-Agent: " + agent,
        b"Accept: " + accept,
        b"Accept-Language: " + language,
        b"Accept-Encoding: gzip, deflate, br",
        b"Referer: https://" + HOST + b"/webaccess/index.php",
        b"Cache-Control: no-cache",
        b"Connection: " + connection,
    ]
    if cookie is not None:
        lines.append(b"Cookie: " + cookie)
    if body:
        lines += [b"Content-Type: application/octet-stream", b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _sticky(
    method: bytes = b"GET",
    path: bytes = b"/small",
    body: bytes = b"",
    connection: bytes = b"keep-alive",
) -> tuple[bytes, ...]:
    """The same request once for each member's sessions."""
    return tuple(
        request(method, path, cookie=session(route), body=body, connection=connection)
        for route in ROUTES
    )


def _newcomers() -> tuple[bytes, ...]:
    """First requests of browsers that differ, so that no head is like the one before."""
    return tuple(
        request(path=b"/pages", agent=agent, language=language)
        for language in _LANGUAGES
        for agent in _AGENTS
    )


def _browsers(count: int) -> tuple[bytes, ...]:
    """For each browser in turn: what it asks for, of three kinds, with its own session."""
    asked = [(b"/pages/%d", _DOCUMENT), (b"/pages/%d.png", _IMAGE), (b"/pages?id=%d", _SCRIPT)]
    return tuple(
        request(
            path=path % place,
            cookie=session(ROUTES[number % 2], number),
            agent=_AGENTS[number % len(_AGENTS)],
            language=_LANGUAGES[number // 2 % len(_LANGUAGES)],
            accept=accept,
        )
        for number in range(count)
        for place in range(4)
        for path, accept in asked
    )


# --- scenarios ---------------------------------------------------------------------------------

LOADS = (
    Load("sticky_tls", "sticky, TLS, kept alive", _sticky()),
    Load("browsers_tls", "sticky, TLS, 8 browsers", _browsers(8), browsers=8),
    Load("new_tls", "new sessions, TLS, kept alive", _newcomers()),
    Load("sticky_plain", "sticky, plain, kept alive", _sticky(), tls=False),
    Load("new_plain", "new sessions, plain, kept alive", _newcomers(), tls=False),
    Load(
        "post_tls",
        "sticky, TLS, POST of 2 KB up and down",
        _sticky(b"POST", b"/post", b"u" * POST_BYTES),
    ),
    Load(
        "handshake",
        "full TLS 1.3 handshake, one request, close",
        _sticky(connection=b"close"),
        connections=16,
        driver=Driver.HANDSHAKES,
    ),
    Load(
        "download_tls",
        "download of 20 MB, TLS",
        _sticky(path=b"/download"),
        connections=4,
        unit=Unit.DOWNLOAD,
    ),
    # One text only: wrk copies the text before each of its writes as soon as there are two.
    Load(
        "upload_tls",
        "upload of 20 MB, TLS",
        (request(b"POST", b"/upload", cookie=session("server1"), body=b"u" * BIG_BYTES),),
        connections=4,
        unit=Unit.UPLOAD,
    ),
)

HELDS = (
    Held("idle", "idle client connection, TLS", request(cookie=session("server1")), answered=True),
    Held(
        "ping",
        "waiting Ping, TLS client and its member connection",
        request(
            b"POST",
            PING_PATH + b"?Cmd=Ping&DeviceId=0",
            cookie=session("server1"),
            body=b"p" * 64,
        ),
        answered=False,
    ),
)

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in (*LOADS, *HELDS)}

GOALS = (
    Goal("sticky_tls", 0.45, "apache"),
    Goal("sticky_tls", 1.6, "haproxy"),
    Goal("browsers_tls", 0.45, "apache"),
    Goal("browsers_tls", 1.6, "haproxy"),
    Goal("ping", 40.0),
)
