"""What an oracle case is made of: a site that both frontends serve, and steps for the client.

A site is described once; ``apache.py`` and ``balanceme_process.py`` each write it in their own
words. Every case has its own site on its own address, so that no case sees what another one
left in a balancer or a connection pool.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.end_to_end.recording_member import Script

# --- the site ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class MemberSite:
    """One member of the balancer."""

    route: str | None
    path: str = ""
    load_factor: float = 1
    lbset: int = 0
    flags: str = ""
    """Apache's status letters: D, S, N, H, R, I."""
    redirect: str | None = None
    retry: int = 60
    reuse: bool = True


@dataclass(frozen=True)
class MappingSite:
    """One mapping, and how its answers are rewritten."""

    path: str = "/"
    to: str | None = None
    reverse: bool = True
    cookie_domain: Mapping[str, str] = field(default_factory=dict)
    cookie_path: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CookieSite:
    """The session cookie that the rules set."""

    lifetime: int = 60
    """Minutes."""
    domain: str = "zarafa.com"
    path: str | None = None
    secure: bool = False
    http_only: bool = False
    same_site: str | None = None


TWO = (MemberSite("server1"), MemberSite("server2"))


@dataclass(frozen=True)
class Site:
    """One frontend with its balancer; the defaults are the article's virtual host."""

    members: tuple[MemberSite, ...] = TWO
    mappings: tuple[MappingSite, ...] = (MappingSite(),)
    cookie: CookieSite | None = CookieSite()
    failover_include: bool = False
    """The include moves sessions of server2 to server1."""
    sticky: str | None = "BALANCEME"
    separator: str | None = None
    semicolon: bool = False
    lbmethod: str = "byrequests"
    no_failover: bool = False
    max_attempts: int | None = None
    fail_on_status: tuple[int, ...] = ()
    fail_on_timeout: bool = False
    forced_recovery: bool = True
    wait: int | None = None
    """Seconds a request waits for a member that can be used."""
    preserve_host: bool = False
    upgrade: str | None = None
    timeout: int | None = None
    """Seconds a member may take."""
    head_timeout: int | None = None
    body_timeout: int | None = None
    keep_alive_ms: int | None = None
    keep_alive_requests: int | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    """``line``, ``field``, ``fields``."""


ARTICLE = Site()


# --- the client's steps ------------------------------------------------------------------------


@dataclass(frozen=True)
class Ask:
    """Send a request and read its response; ``answers`` more than one for a pipeline."""

    raw: bytes
    answers: int = 1
    patience: float = 3.0


@dataclass(frozen=True)
class Send:
    """Send bytes and read nothing yet."""

    raw: bytes


@dataclass(frozen=True)
class Read:
    """Read a response."""

    method: bytes = b"GET"


@dataclass(frozen=True)
class Interim:
    """Wait until an interim response has come; it is reported with the final one."""


@dataclass(frozen=True)
class Tunnel:
    """Send bytes through a tunnel and read as many back, or as many as ``reads`` says."""

    raw: bytes
    reads: int | None = None


@dataclass(frozen=True)
class Wait:
    """Let time pass."""

    seconds: float


@dataclass(frozen=True)
class New:
    """Report whether the connection was kept, and go on with a new one."""


@dataclass(frozen=True)
class Close:
    """The client goes away in the middle of things."""


@dataclass(frozen=True)
class HalfClose:
    """The client has nothing more to send."""


@dataclass(frozen=True)
class Idle:
    """Whether the frontend closes the silent connection within that time."""

    seconds: float


@dataclass(frozen=True)
class Stop:
    """A member refuses connections from now on."""

    member: int


@dataclass(frozen=True)
class Start:
    """A stopped member is back on its port."""

    member: int


Step = Ask | Send | Read | Interim | Tunnel | Wait | New | Close | HalfClose | Idle | Stop | Start


@dataclass(frozen=True)
class Case:
    """One thing both frontends must do alike.

    ``scripts`` says what a member does for a path; ``*`` stands for every other path. Members
    are started before the steps; ``down`` lists those that are not.
    """

    name: str
    rules: str
    steps: tuple[Step, ...]
    site: Site = ARTICLE
    scripts: Mapping[bytes, Script] = field(default_factory=dict)
    per_member: Mapping[int, Mapping[bytes, Script]] = field(default_factory=dict)
    """Scripts of single members, by their number from 1."""
    down: tuple[int, ...] = ()
    server_name: str | None = "mail.zarafa.com"
    """SNI of the TLS handshake."""
    plain: bool = False
    """Speak without TLS."""
    connections: bool = False
    """Compare which member connection each request came on, too."""
    aside: bool = False
    """Play it beside others of this kind, since it waits most of its time."""
    probe: bool = True
    """See at the end whether the connection takes another request."""


# --- small builders ----------------------------------------------------------------------------

LARGE = bytes(range(256)) * 160
"""40,960 bytes: beyond the 16,304 up to which a chunked body gets a length (R9)."""


def request(
    line: bytes = b"GET / HTTP/1.1",
    *fields: bytes,
    host: bytes | None = b"mail.zarafa.com",
    body: bytes = b"",
) -> bytes:
    """A request's exact bytes; ``host`` None leaves the field out."""
    first = [b"Host: " + host] if host is not None else []
    return b"\r\n".join([line, *first, *fields]) + b"\r\n\r\n" + body


def get(target: bytes = b"/", *fields: bytes, host: bytes | None = b"mail.zarafa.com") -> bytes:
    """A GET with HTTP/1.1."""
    return request(b"GET " + target + b" HTTP/1.1", *fields, host=host)


def post(target: bytes, body: bytes, *fields: bytes) -> bytes:
    """A POST with its Content-Length."""
    line = b"POST " + target + b" HTTP/1.1"
    return request(line, *fields, b"Content-Length: %d" % len(body), body=body)


def chunked(*pieces: bytes, trailers: bytes = b"") -> bytes:
    """A chunked body with one chunk a piece."""
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return chunks + b"0\r\n" + trailers + b"\r\n"


def cookie(value: bytes) -> bytes:
    """A Cookie field."""
    return b"Cookie: " + value


def to(number: int) -> bytes:
    """The Cookie field of a session that belongs to that member."""
    return b"Cookie: BALANCEME=balancer.server%d" % number


def asks(*raws: bytes) -> tuple[Step, ...]:
    """One request after the other, on one connection."""
    return tuple(Ask(raw) for raw in raws)


def sticky(*fields: bytes) -> tuple[Step, ...]:
    """A single GET that belongs to server1."""
    return asks(get(b"/", to(1), *fields))
