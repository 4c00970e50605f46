"""What the operator asked for: frozen models with every setting, its unit and its default.

Nothing here runs, and nothing here changes while the proxy runs: state lives in ``member`` and
``balancer``. ``config/balanceme.yaml`` documents every key; a test holds the two together. How
single values are written is said in ``values``; the mistakes that only show between several
settings are found by ``consistency``; ``reading`` joins them in one list.
"""

from enum import Enum
from typing import Annotated, Any, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    Tag,
    ValidationError,
)

from proxy.core.values import (
    AccountName,
    BalancerName,
    CheckMethod,
    CheckName,
    CookieDomain,
    CookiePath,
    CookiePrefix,
    Duration,
    FailStatus,
    FileName,
    FolderName,
    HookUrl,
    HostField,
    HostName,
    HostOrAddress,
    Listen,
    LoadFactor,
    MemberUrl,
    Network,
    Path,
    Pattern,
    Port,
    Route,
    Secrets,
    Separator,
    ServerField,
    ServerName,
    Size,
    Statuses,
    StickyName,
    Target,
    Timeout,
    TlsVersion,
    Token,
    Workers,
)

# --- words -------------------------------------------------------------------------------------


class Compat(Enum):
    """Whose behaviour the defaults follow."""

    APACHE = "apache"


class LbMethod(Enum):
    """How a balancer elects (B3, B9, B10)."""

    BYREQUESTS = "byrequests"
    BYTRAFFIC = "bytraffic"
    BYBUSYNESS = "bybusyness"


class Assign(Enum):
    """Which member a new session's cookie names."""

    ELECTED = "elected"
    OWN = "own"


class FirstRequest(Enum):
    """Where the first request of a session goes that is assigned to ``own_route``."""

    OWN = "own"
    ELECT = "elect"


class Renew(Enum):
    """Which session cookies are prolonged with each response."""

    ANY = "any"
    OWN = "own"


class SameSite(Enum):
    """RFC 6265bis section 4.1.2.7."""

    LAX = "Lax"
    STRICT = "Strict"
    NONE = "None"


class OperatorStatus(Enum):
    """What the operator wants of a member; one of the three axes of its status."""

    ENABLED = "enabled"
    DRAIN = "drain"
    DISABLED = "disabled"
    STOPPED = "stopped"


class ProxyProtocol(Enum):
    """How a client is announced to a member."""

    V1 = "v1"
    V2 = "v2"


class Takeover(Enum):
    """Who takes over the sessions of a member that failed, where no route says so."""

    SPREAD = "spread"
    AUTO = "auto"


class Failback(Enum):
    """What becomes of sessions that were taken over once their member is back."""

    STAY = "stay"
    RETURN = "return"
    EXPIRE = "expire"


class Fence(Enum):
    """Whether a member that failed stays out until somebody readmits it."""

    NEVER = "never"
    ON_FAILURE = "on_failure"


class CheckType(Enum):
    """What a health check speaks (section 10 of the traffic reference, D96 to D110)."""

    HTTP = "http"
    HTTPS = "https"
    TCP = "tcp"
    TLS = "tls"
    SMTP = "smtp"
    LMTP = "lmtp"
    IMAP = "imap"
    POP3 = "pop3"
    MYSQL = "mysql"
    ZARAFA = "zarafa"
    ACTIVESYNC = "activesync"
    COMMAND = "command"


class Event(Enum):
    """What hooks are told of."""

    MEMBER_DOWN = "member_down"
    MEMBER_UP = "member_up"
    TAKEOVER = "takeover"
    FAILBACK = "failback"
    FENCED = "fenced"
    READMITTED = "readmitted"
    DRAINED = "drained"
    CERTIFICATE_ENDS = "certificate_ends"


class ReloadCertificates(Enum):
    """When certificate files that have changed are taken up."""

    MANUAL = "manual"
    AUTO = "auto"


class LogLevel(Enum):
    """How much the log says."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(Enum):
    """How an access line is written."""

    COMBINED = "combined"
    JSON = "json"


# --- models ------------------------------------------------------------------------------------


class Model(BaseModel):
    """Frozen, and strict about keys it doesn't know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Tls(Model):
    """A certificate and the names it is for."""

    certificate: FileName
    """PEM file: the certificate, then its chain."""
    key: FileName | None = None
    """PEM file with the private key; without it the key is in the certificate's file."""
    password_file: FileName | None = None
    """File whose first line decrypts the key."""
    names: tuple[HostName, ...] = ()
    """Server names (SNI) that get this certificate; the first entry of a list serves all others."""
    min_version: TlsVersion = "1.2"
    """Oldest TLS version that is accepted."""


ONE, MORE = "(one)", "(more)"
# With tags, a mistake inside is told once, and not for each of the two shapes.
OneOrMoreTls = Annotated[
    Annotated[Tls, Tag(ONE)] | Annotated[tuple[Tls, ...], Tag(MORE), Field(min_length=1)],
    Discriminator(lambda value: MORE if isinstance(value, list | tuple) else ONE),
]


class ClientTimeouts(Model):
    """How long a client may take; each value is a duration."""

    handshake: Timeout = 20.0
    """For the whole TLS handshake."""
    head: Timeout = 20.0
    """From a request's first byte, or from the connection's start, to the end of its head."""
    body: Timeout = 20.0
    """Between two pieces of a request body, and how far a slow one may fall behind body_rate."""
    keep_alive: Duration = 5.0
    """Between two requests."""
    write: Timeout = 60.0
    """For the client to take what is waiting for it."""


class MemberTimeouts(Model):
    """How long a member may take; each value is a duration."""

    connect: Timeout = 60.0
    """For a TCP connection to a member."""
    response: Timeout = 60.0
    """Between two pieces of a response, and before the first."""
    activesync: Timeout = 3660.0
    """The same on /Microsoft-Server-ActiveSync, where a Ping waits up to 3540 s (D33)."""
    tunnel: Timeout = 60.0
    """Without a byte in either direction after an upgrade (P26)."""


class Limits(Model):
    """What is refused for its size."""

    request_line: Size = 16384
    """Bytes of a request line; beyond it 414."""
    field: Size = 16384
    """Bytes of one header field line; beyond it 431."""
    fields: Annotated[int, Field(ge=1, strict=True)] = 200
    """Field lines in a head; beyond it 431."""
    head: Size = 65536
    """Bytes of a whole head, ours or a member's; beyond it 431, or 502."""
    chunk_extensions: Size = 16384
    """Bytes of all chunk extensions of a body; beyond it 400, or 502."""
    trailers: Size = 16384
    """Bytes of a body's trailers; beyond it 431, or 502."""
    pipelined: Size = 65536
    """Bytes of requests ahead of the answer under way; a client with more isn't read from."""
    body_rate: Size = 500
    """Bytes a second that a request body must bring, in the long run; below it 408."""


class Mapping(Model):
    """Host and path prefix to balancer (Apache: ProxyPass)."""

    path: Path
    """Prefix of the request's path; the longest that fits wins (R26)."""
    host: HostName | None = None
    """Only requests for this host; *.example.org takes all below it."""
    balancer: BalancerName
    """Name of a balancer."""
    to: Path | None = None
    """What the prefix becomes on the member; the same path when left out."""
    preserve_host: StrictBool = False
    """Send the client's Host to the member instead of the member's own (R4)."""
    rewrite_location: StrictBool = True
    """Turn a member's own address in Location and Content-Location into ours (P10)."""
    cookie_domain: dict[CookieDomain, CookieDomain] = {}
    """Domains in a member's cookies that are replaced (P15): theirs to ours."""
    cookie_path: dict[CookiePath, CookiePath] = {}
    """Paths in a member's cookies that are replaced (P16): theirs to ours."""
    upgrade: tuple[Token, ...] = ()
    """Protocols that may be upgraded to and tunnelled, such as websocket (R22, P26)."""
    response_timeout: Timeout | None = None
    """Instead of the member's response and activesync timeout."""
    max_body: Size | None = None
    """Bytes of a request body; beyond it 413."""


class Frontend(Model):
    """An address we listen on."""

    listen: Listen
    """Address and port: 0.0.0.0:443, [::]:443."""
    server_name: ServerName | None = None
    """Our name in X-Forwarded-Server and in own redirects; the host's name when left out."""
    tls: OneOrMoreTls | None = None
    """A certificate, or a list of them by name; without it the frontend speaks plain HTTP."""
    redirect_to_https: StrictBool = False
    """Answer every request with its https address; for a frontend without tls."""
    mappings: tuple[Mapping, ...] = ()
    """Which requests go to which balancer."""
    timeouts: ClientTimeouts = ClientTimeouts()
    """How long a client may take."""
    limits: Limits = Limits()
    """What is refused for its size."""
    keep_alive_requests: Annotated[int, Field(ge=0, strict=True)] = 0
    """Requests after the first on one connection; 0 for no limit (L15)."""
    proxy_protocol: tuple[Network, ...] = ()
    """Proxies before us that announce each client by a PROXY preamble, and must (H45)."""

    @property
    def certificates(self) -> tuple[Tls, ...]:
        """``tls`` as a list, empty for plain HTTP."""
        if self.tls is None:
            return ()
        return self.tls if isinstance(self.tls, tuple) else (self.tls,)


class SessionCookie(Model):
    """The cookie that carries a session's route (section C of Apache's behaviour)."""

    domain: CookieDomain | None = None
    """Domain attribute, written as it is; a cookie for one host only when left out (C2)."""
    path: CookiePath = "/"
    """Path attribute."""
    prefix: CookiePrefix = "balancer"
    """Stands before the separator and the route: balancer.server1."""
    lifetime: Duration = 3600.0
    """From the request on; 0 for a cookie that ends with the browser (C3, C4)."""
    assign: Assign = Assign.ELECTED
    """A new session belongs to the member that served it (elected) or to own_route (own)."""
    own_route: Route | None = None
    """The route of this host's own member, for assign: own."""
    first_request: FirstRequest = FirstRequest.OWN
    """With assign: own, the first request goes to own_route (own) or is elected (C10)."""
    renew: Renew = Renew.ANY
    """Prolong every known session's cookie (any), or only own_route's (C9)."""
    secure: StrictBool | None = None
    """Secure attribute; over TLS on when left out."""
    http_only: StrictBool | None = None
    """HttpOnly attribute; over TLS on when left out."""
    same_site: SameSite | None = None
    """SameSite attribute."""
    secret: Secrets = ()
    """Signs the route; a second one only verifies. A route without a valid signature is none."""


class HealthCheck(Model):
    """One thing that is asked of a member again and again (H1)."""

    type: CheckType
    """What it speaks."""
    name: CheckName | None = None
    """What it is called; its type when left out."""
    required: StrictBool = True
    """Whether the member is out when it fails; otherwise it is only told."""
    host: HostOrAddress | None = None
    """Whom to ask instead of the member's own host."""
    port: Port | None = None
    """The port; the type's own when left out, or the member's for http and activesync."""
    interval: Timeout = 10.0
    """From one probe's start to the next one's, a tenth more or less; 1s once a result is new."""
    timeout: Timeout | None = None
    """For a whole probe; 5s when left out, 15s for smtp and lmtp (D103)."""
    passes: Annotated[int, Field(ge=1, strict=True)] = 2
    """Probes in a row that must pass before a failed check counts as passed."""
    fails: Annotated[int, Field(ge=1, strict=True)] = 2
    """The same the other way; the very first probe decides alone."""
    tls: StrictBool = False
    """Speak TLS from the first byte; smtp, lmtp, imap, pop3 and zarafa. activesync: over https."""
    verify: StrictBool = True
    """Whether a certificate must be valid for the host, wherever TLS is spoken."""
    ca_file: FileName | None = None
    """PEM file of the authorities that count; the system's when left out."""
    server_name: ServerName | None = None
    """Name that is asked for (SNI) and must be in the certificate; the host when left out."""
    certificate_days: Annotated[int, Field(ge=0, strict=True)] = 14
    """tls and https: told when the certificate ends within so many days."""
    method: CheckMethod = "GET"
    """http and https: the request's method."""
    path: Target | None = None
    """http, https, activesync: what is asked for; / or /Microsoft-Server-ActiveSync."""
    host_field: HostField | None = None
    """http, https, activesync: the Host field; host and port when left out."""
    statuses: tuple[Statuses, ...] = ()
    """http, https, zarafa, activesync: what passes, such as [200-399]; by type when left out."""
    body: Pattern | None = None
    """http and https: a regular expression that the first 64 KiB of the body must match."""
    hello: ServerName | None = None
    """smtp and lmtp: the name that we greet with; the host's own when left out."""
    credentials_file: FileName | None = None
    """activesync and mysql: a file with user:password in one line, of an account for this."""
    command: tuple[str, ...] = ()
    """command: program and arguments; status 0 passes. BALANCEME_ variables tell of the member."""

    @property
    def title(self) -> str:
        """What people call it."""
        return self.name or self.type.value


class Member(Model):
    """One server of a balancer (Apache: BalancerMember, B1)."""

    url: MemberUrl
    """http://host[:port][/path]"""
    route: Route | None = None
    """The name sessions carry; without it no session can stick to the member."""
    load_factor: LoadFactor = 1.0
    """Share of the elections, 1 to 100, two decimals."""
    lbset: Annotated[int, Field(ge=0, le=99, strict=True)] = 0
    """Members of the lowest set are tried first."""
    hot_standby: StrictBool = False
    """Used only when no other member of its set can be."""
    hot_spare: StrictBool = False
    """Stands in for an unusable member of its set."""
    redirect_route: Route | None = None
    """Where its sessions go while it can't be used."""
    status: OperatorStatus = OperatorStatus.ENABLED
    """enabled; drain: known sessions only; disabled or stopped: nothing."""
    ignore_errors: StrictBool = False
    """Never put in error."""
    retry_after: Duration = 60.0
    """How long it stays in error before it is tried again."""
    takeover: Route | None = None
    """Route of who takes over its sessions when it fails; the balancer's when left out."""
    health_checks: tuple[HealthCheck, ...] | None = None
    """Instead of the balancer's."""
    timeouts: MemberTimeouts | None = None
    """Instead of the balancer's."""
    max_connections: Annotated[int, Field(ge=1, strict=True)] | None = None
    """Connections of one worker to it; further requests wait for one."""
    acquire_timeout: Duration | None = None
    """How long they wait before they fail over; without it, as long as their client does."""
    reuse_connections: StrictBool = True
    """Keep connections open between requests."""
    proxy_protocol: ProxyProtocol | None = None
    """Announce the client by a PROXY preamble, on a connection for each request."""

    @property
    def key(self) -> tuple[str, str | None]:
        """What makes it this member of its balancer: another address is another server."""
        return self.url, self.route


class Balancer(Model):
    """A named group of members with one way to choose among them."""

    members: Annotated[tuple[Member, ...], Field(min_length=1)]
    """The servers to choose from."""
    lbmethod: LbMethod = LbMethod.BYREQUESTS
    """How a request without a session is placed."""
    sticky_session: StickyName | None = None
    """Name of the cookie and URL parameter with the route, or cookie|parameter (S11)."""
    sticky_separator: Separator = "."
    """Between prefix and route; off when the whole value is the route (S10)."""
    semicolon_ends_parameter: StrictBool = False
    """A ; ends the route in a URL (S3)."""
    session_cookie: SessionCookie | None = None
    """The cookie we set; without it only the members' own cookies carry routes."""
    failover: dict[Route, Route] = {}
    """Route of a member that failed: route of the one that took its sessions over."""
    failover_file: FileName | None = None
    """The same in a file that a cluster manager rewrites: YAML, or Apache's rewrite rules."""
    takeover: Takeover = Takeover.SPREAD
    """A failed member's sessions are elected anew (spread), or all go to one member (auto)."""
    failback: Failback = Failback.STAY
    """What becomes of sessions that were taken over once their member is back."""
    fence: Fence = Fence.NEVER
    """on_failure: a member whose checks failed stays out until it is readmitted."""
    hold_off: Duration = 5.0
    """How long a failed member must pass before it is back; doubled each time it fails again."""
    slow_start: Duration = 0.0
    """How long the share of a member that is back takes to rise to its load factor."""
    health_checks: tuple[HealthCheck, ...] = ()
    """What is asked of each member."""
    fail_on_status: tuple[FailStatus, ...] = ()
    """Statuses of a member's answer that put it in error (F10)."""
    fail_on_timeout: StrictBool = False
    """A short request without an answer in time puts the member in error (F11, D70)."""
    forced_recovery: StrictBool = True
    """When every member is in error, all are tried at once, whatever retry_after says (F7)."""
    wait_timeout: Duration = 0.0
    """How long a request waits for a member that can be used, before 503 (B16)."""
    no_failover: StrictBool = False
    """A session whose member can't be used gets 503 instead of another member (F9)."""
    max_attempts: Annotated[int, Field(ge=0, strict=True)] | None = None
    """Failover attempts for one request; the number of the other members when left out (F5)."""
    timeouts: MemberTimeouts = MemberTimeouts()
    """How long its members may take."""


class Hook(Model):
    """Who is told when something happens: a command or a URL, with a JSON object."""

    on: Annotated[tuple[Event, ...], Field(min_length=1)]
    """Which events."""
    command: tuple[str, ...] = ()
    """Program and arguments; the object comes on standard input."""
    url: HookUrl | None = None
    """Where the object is posted to."""
    timeout: Timeout = 10.0
    """How long it may take."""


class AccessLog(Model):
    """Where an access line goes and what it looks like."""

    path: FileName = "-"
    """A file, - for standard output, or syslog."""
    format: LogFormat = LogFormat.COMBINED
    """combined: Apache's, with the session's fate behind it; json: the same as an object."""


class Log(Model):
    """Where we tell the operator what happens."""

    path: FileName = "-"
    """A file, - for standard error, or syslog."""
    level: LogLevel = LogLevel.INFO
    """The least that is told."""


class Settings(Model):
    """The whole configuration."""

    workers: Workers = 1
    """Processes that serve traffic; auto for one on each core."""
    compat: Compat | None = None
    """apache: every default that differs becomes Apache's."""
    server: ServerField = "balanceme"
    """Server field of answers that carry none of their own."""
    trusted_proxies: tuple[Network, ...] = ()
    """Proxies before us whose X-Forwarded fields count."""
    max_connections: Annotated[int, Field(ge=1, strict=True)] | None = None
    """Clients' connections at a time; when left out, what the limit of open files allows."""
    max_connections_per_address: Annotated[int, Field(ge=1, strict=True)] | None = None
    """The same for one client's address, trusted_proxies excepted."""
    access_log: AccessLog | None = AccessLog()
    """null for no access log."""
    log: Log = Log()
    """What we tell the operator."""
    graceful_timeout: Duration = 3660.0
    """How long a worker that another one follows may take for its exchanges under way."""
    stop_timeout: Duration = 30.0
    """The same once we are asked to stop; waiting Pings end spread over it (D41)."""
    leave_before_stop: Duration = 0.0
    """How long everything is still served, while health_path says 503, before we stop."""
    health_path: Path | None = None
    """Answered by ourselves on every frontend: 200 while we serve, 503 once we are to stop."""
    reload_certificates: ReloadCertificates = ReloadCertificates.MANUAL
    """Changed certificate files are taken up by a reload (manual), or within seconds (auto)."""
    hooks: tuple[Hook, ...] = ()
    """Who is told of events."""
    explain_to: tuple[Network, ...] = ()
    """Clients whose responses say in X-Balanceme how their member was chosen."""
    user: AccountName | None = None
    """Whom the workers run as, when we are started as root."""
    group: AccountName | None = None
    """Their group; the user's own when left out."""
    pid_file: FileName | None = None
    """File with the supervisor's process id."""
    state_folder: FolderName | None = None
    """Folder for what must survive a restart."""
    frontends: Annotated[tuple[Frontend, ...], Field(min_length=1)]
    """The addresses we listen on."""
    balancers: dict[BalancerName, Balancer]
    """The balancers by name."""


# --- reading -----------------------------------------------------------------------------------


KEY = "[key]"
"""Stands last in the path of a refusal that is about the key of a block of names."""


class Refusal(NamedTuple):
    """One thing that the models refused.

    ``kind`` is pydantic's name for it; ``reason`` is said where ``values`` gave one.
    """

    path: tuple[str | int, ...]
    kind: str
    value: Any
    reason: str | None


def validate(tree: Any) -> Settings | list[Refusal]:
    """The settings made from a raw tree, or everything that is wrong with it."""
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        return [
            Refusal(
                tuple(step for step in found["loc"] if step not in (ONE, MORE)),
                found["type"],
                found["input"],
                str(found["ctx"]["error"]) if found["type"] == "value_error" else None,
            )
            for found in error.errors(include_url=False)
        ]
