"""Configurations at random: raw trees without a mistake, and the settings they mean.

``TREES`` covers every field of every model. What the fields of one block have to do with those of
another is not known here: whatever ``consistency`` finds wrong is taken out again.
"""

from enum import Enum
from itertools import pairwise
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from proxy.core import settings
from proxy.core.consistency import consistency_mistakes
from proxy.core.consistency_members import USES
from proxy.core.reading import settings_from_tree, with_compat_defaults
from proxy.core.settings import Model

Tree = dict[str, Any]
Values = st.SearchStrategy[Any]

# --- values ------------------------------------------------------------------------------------

# Texts that YAML, or one of its readers, would take for something else.
ODD = (
    "off on No yes y null ~ true 5 007 1.5 1e3 0x1f 12:30 1_000 2026-11-24 .5 .inf * *a & &a ! !a"
    " @ % ` ' \" | > - -- --- ... ? : a: :a # a# {} [] {a [a a,b a\\b << = ß ü€ 日本"
).split(" ")
ODD += [" a", "a ", "a b", "a  b", "a: b", "a #b", "- a", "? a", "", "a\nb", "\n", "a\r\nb", "\t"]
ODD += ["\x07", "\x7f", "\x85", "\xa0", "\u2028", "\ufeff", "\U0001f600", "'\\", "\\\"'"]

TEXT = st.sampled_from(ODD) | st.text(max_size=12)
FILE = TEXT.filter(lambda text: text != "" and "\0" not in text) | st.just("/etc/a.pem")
NAME = st.sampled_from(["a", "server1", "off", "5", "1e3", "0x1f", "null", "-", "--", "...", "2.5"])
HOST = st.sampled_from(["a", "no", "1", "a.b", "mail.zarafa.com", "1.5", "0x1", "2026-11-24"])
HOST_OR_WILD = HOST | HOST.map("*.{}".format)
PATHS = st.sampled_from(["/", "/a", "/a/", "/a:b", "/%20", "/a'b\"", "/a,b", "/{}", "/~"])
TARGET = PATHS | st.sampled_from(["/?a=b", "/a?", "/:"])
SWITCH = st.booleans()
NUMBER = st.integers(1, 10**9)
NETWORK = st.sampled_from(
    ["192.0.2.1", "10.0.0.0/8", "::1", "2001:db8::/32", "0.0.0.0/0", "192.0.2.1/32", "::/0"]
)
_UNITS = st.sampled_from(["ms", "s", "m", "h", "d"])
TIMEOUT = st.sampled_from(
    ["250ms", "1.5s", "90m", "0.1ms", "3650d", "0.000000001d", "1.23456h", "61m", "60s", "3600s"]
) | st.builds("{}{}".format, st.integers(1, 3650), _UNITS)
DURATION = TIMEOUT | st.sampled_from([0, "0s", "0d"])
SIZE = st.integers(1, 2**40) | st.builds(
    "{}{}".format, st.integers(1, 1024), st.sampled_from(["", "k", "m", "g"])
)
STATUSES = st.sampled_from([200, "204", "200-399", "500-500"])
SECRET = st.text(min_size=16, max_size=20) | st.just("# put 16: random")
COMMAND = st.lists(TEXT, max_size=3)
PROTOCOLS = st.sampled_from(["websocket", "h2c", "no", "!", "*", "%", "`", "|", "~", "1.5"])


def or_null(values: Values) -> Values:
    """A value, or null instead of leaving the key out."""
    return st.none() | values


def words(kind: type[Enum]) -> Values:
    """One of the words of a setting."""
    return st.sampled_from([each.value for each in kind])


def some(values: Values, *, at_least: int = 0) -> Values:
    """A short list."""
    return st.lists(values, min_size=at_least, max_size=3)


def block(model: type[Model], at_most: int = 6, /, **values: Values) -> Values:
    """A block with what a model needs, and a few of its other settings."""
    fields = model.model_fields
    assert values.keys() == fields.keys()
    needed = sorted(name for name, field in fields.items() if field.is_required())
    others = sorted(values.keys() - needed)

    @st.composite
    def drawn(draw: st.DrawFn) -> Tree:
        given = (
            draw(st.lists(st.sampled_from(others), unique=True, max_size=at_most)) if others else []
        )
        return {name: draw(values[name]) for name in [*needed, *given]}

    return drawn()


# --- blocks ------------------------------------------------------------------------------------

TLS = block(
    settings.Tls,
    certificate=FILE,
    key=or_null(FILE),
    password_file=FILE,
    names=some(HOST_OR_WILD),
    min_version=st.sampled_from(["1.2", "1.3", 1.2, 1.3]),
)
CLIENT_TIMEOUTS = block(
    settings.ClientTimeouts,
    handshake=TIMEOUT,
    head=TIMEOUT,
    body=TIMEOUT,
    keep_alive=DURATION,
    write=TIMEOUT,
)
MEMBER_TIMEOUTS = block(
    settings.MemberTimeouts,
    connect=TIMEOUT,
    response=TIMEOUT,
    activesync=TIMEOUT,
    tunnel=TIMEOUT,
)
LIMITS = block(
    settings.Limits,
    request_line=SIZE,
    field=SIZE,
    fields=NUMBER | st.sampled_from([100, 200]),
    head=SIZE,
    chunk_extensions=SIZE,
    trailers=SIZE,
    pipelined=SIZE,
    body_rate=SIZE,
)
BALANCERS = st.sampled_from(["cluster", "web", "off", "1.5", "-"])
MAPPING = block(
    settings.Mapping,
    path=PATHS,
    host=HOST_OR_WILD,
    balancer=BALANCERS,
    to=PATHS,
    preserve_host=SWITCH,
    rewrite_location=SWITCH,
    cookie_domain=st.dictionaries(HOST.filter(lambda host: "_" not in host), HOST, max_size=3),
    cookie_path=st.dictionaries(PATHS, PATHS | st.just("/" * 1030), max_size=3),
    upgrade=some(PROTOCOLS),
    response_timeout=TIMEOUT,
    max_body=or_null(SIZE),
)
FRONTEND = block(
    settings.Frontend,
    listen=st.sampled_from(["0.0.0.0:443", "[::]:443", "localhost:80", "127.0.0.1:8080"]),
    server_name=or_null(HOST),
    tls=TLS | some(TLS, at_least=1),
    redirect_to_https=SWITCH,
    mappings=some(MAPPING),
    timeouts=CLIENT_TIMEOUTS,
    limits=LIMITS,
    keep_alive_requests=st.sampled_from([0, 7, 100]),
    proxy_protocol=some(NETWORK),
)
SESSION_COOKIE = block(
    settings.SessionCookie,
    domain=st.sampled_from(["zarafa.com", ".zarafa.com", "no", "1"]),
    path=PATHS,
    prefix=st.sampled_from(["", "a", "off", "-", "5"]),
    lifetime=DURATION,
    assign=words(settings.Assign),
    own_route=NAME,
    first_request=words(settings.FirstRequest),
    renew=words(settings.Renew),
    secure=SWITCH,
    http_only=SWITCH,
    same_site=words(settings.SameSite),
    secret=SECRET | st.lists(SECRET, max_size=2),
)
_ANY_CHECK = block(
    settings.HealthCheck,
    15,
    type=words(settings.CheckType),
    name=NAME,
    required=SWITCH,
    host=HOST | st.sampled_from(["::1", "192.0.2.1"]),
    port=st.integers(1, 65535),
    interval=TIMEOUT,
    timeout=TIMEOUT,
    passes=NUMBER,
    fails=NUMBER,
    tls=SWITCH,
    verify=SWITCH,
    ca_file=FILE,
    server_name=HOST,
    certificate_days=st.integers(0, 100),
    method=st.sampled_from(["GET", "HEAD", "OPTIONS"]),
    path=TARGET,
    host_field=HOST | st.sampled_from(["a:80", "[::1]:80", ":"]),
    statuses=some(STATUSES),
    body=st.sampled_from([r"\d+", "", "a|b", r"^\"'$", "[a-z]{2}", "a: #b", "ü\n"]),
    hello=HOST,
    credentials_file=FILE,
    command=COMMAND,
)
HEALTH_CHECK = _ANY_CHECK.map(
    # What its type has no use for is left out.
    lambda check: (
        {key: check[key] for key in check if key in USES[check["type"]].split()}
        | (
            {"command": ["/bin/true"]}
            if check["type"] == "command" and not check.get("command")
            else {}
        )
    )
)
MEMBER = block(
    settings.Member,
    url=st.builds(
        "{}://{}{}{}".format,
        st.sampled_from(["http", "HTTP"]),
        st.sampled_from(["server1", "[::1]", "192.0.2.1"]),
        st.sampled_from(["", ":80", ":8080"]),
        st.just("") | PATHS,
    ),
    route=NAME,
    load_factor=st.floats(1, 100) | st.integers(1, 100),
    lbset=st.integers(0, 99),
    hot_standby=SWITCH,
    hot_spare=SWITCH,
    redirect_route=NAME,
    status=words(settings.OperatorStatus),
    ignore_errors=SWITCH,
    retry_after=DURATION,
    takeover=NAME,
    health_checks=or_null(some(HEALTH_CHECK)),
    timeouts=or_null(MEMBER_TIMEOUTS),
    max_connections=NUMBER,
    acquire_timeout=DURATION,
    reuse_connections=SWITCH,
    proxy_protocol=words(settings.ProxyProtocol),
)
_ANY_BALANCER = block(
    settings.Balancer,
    members=some(MEMBER, at_least=1),
    lbmethod=words(settings.LbMethod),
    sticky_session=st.sampled_from(["BALANCEME", "a|b", "no", "5|5", "-"]),
    sticky_separator=st.sampled_from([*".!#'\"&*%@`|~-?:,[{>=5", "off", False]),
    semicolon_ends_parameter=SWITCH,
    session_cookie=SESSION_COOKIE,
    failover=st.dictionaries(NAME, NAME, max_size=3),
    failover_file=FILE,
    takeover=words(settings.Takeover),
    failback=words(settings.Failback),
    fence=words(settings.Fence),
    hold_off=DURATION,
    slow_start=DURATION,
    health_checks=some(HEALTH_CHECK),
    fail_on_status=some(st.integers(200, 599)),
    fail_on_timeout=SWITCH,
    forced_recovery=SWITCH,
    wait_timeout=DURATION,
    no_failover=SWITCH,
    max_attempts=st.integers(0, 9),
    timeouts=MEMBER_TIMEOUTS,
)


def _completed(balancer: Tree) -> Tree:
    """A balancer in which settings that need others have them, so that they aren't taken out."""
    members = balancer["members"]
    cookie = balancer.get("session_cookie")
    if cookie is None and balancer.get("failback") in ("return", "expire"):
        cookie = balancer["session_cookie"] = {}
    if cookie is not None:
        balancer.setdefault("sticky_session", "BALANCEME")
        members[0].setdefault("route", "server1")
    if "failover" in balancer:
        for index, member in enumerate(members):
            member.setdefault("route", f"server{index}")
    if balancer.get("takeover") == "auto" or balancer.get("fence") == "on_failure":
        balancer["health_checks"] = balancer.get("health_checks") or [{"type": "tcp"}]
    routes = [member["route"] for member in members if "route" in member]
    if cookie is not None:
        if "first_request" in cookie or cookie.get("renew") == "own":
            cookie["assign"] = "own"
        if "own_route" in cookie or cookie.get("assign") == "own":
            cookie["own_route"] = routes[0]
    if "failover" in balancer:
        balancer["failover"] = dict(pairwise(dict.fromkeys(routes)))
    for member, other in pairwise(members):
        for key in ("redirect_route", "takeover"):
            if key in member and "route" in other:
                member[key] = other["route"]
    return balancer


BALANCER = _ANY_BALANCER.map(_completed)
_ANY_HOOK = block(
    settings.Hook,
    on=some(words(settings.Event), at_least=1),
    command=COMMAND,
    url=st.sampled_from(["https://user:a@b/c?d=e", "http://[::1]:8000/", "http://'{,}"]),
    timeout=TIMEOUT,
)
HOOK = _ANY_HOOK.map(
    lambda hook: hook if "url" in hook else {**hook, "command": hook.get("command") or ["a"]}
)
ACCESS_LOG = block(settings.AccessLog, path=FILE, format=words(settings.LogFormat))
LOG = block(settings.Log, path=FILE, level=words(settings.LogLevel))
ACCOUNT = st.sampled_from(["www-data", "1000", "no", ".", "1.5"])
SETTINGS = block(
    settings.Settings,
    workers=st.just("auto") | st.integers(1, 1024),
    compat=or_null(words(settings.Compat)),
    server=st.sampled_from(
        ["Apache", "balanceme", "a: b", "# a", "off", "5", "'\"\\", "a, b", "-"]
    ),
    trusted_proxies=some(NETWORK),
    max_connections=NUMBER,
    max_connections_per_address=NUMBER,
    access_log=st.none() | ACCESS_LOG,
    log=LOG,
    graceful_timeout=DURATION,
    stop_timeout=DURATION,
    leave_before_stop=DURATION,
    health_path=PATHS,
    reload_certificates=words(settings.ReloadCertificates),
    hooks=some(HOOK),
    explain_to=some(NETWORK),
    user=ACCOUNT,
    group=ACCOUNT,
    pid_file=FILE,
    state_folder=FILE,
    frontends=some(FRONTEND, at_least=1),
    balancers=st.dictionaries(BALANCERS, BALANCER, min_size=1, max_size=2),
)

# --- trees without a mistake -------------------------------------------------------------------

# Where these are at fault, so is the entry of the list that they stand in.
NEEDED = ("listen", "path", "url", "balancer", "type")


def mended(tree: Tree) -> Tree:
    """A tree without what ``consistency`` finds wrong; refused if too little is left."""
    while mistakes := consistency_mistakes(with_compat_defaults(tree)):
        path = list(mistakes[0].path)
        if path[-1] in NEEDED and isinstance(path[-2], int):
            path.pop()
        _take_out(tree, path)
    return tree


def _take_out(tree: Any, path: list[str | int]) -> None:
    for step in path[:-1]:
        assume(step in tree if isinstance(tree, dict) else True)
        tree = tree[step]
    assume(path[-1] in tree if isinstance(tree, dict) else len(tree) > 1 or path[-2] != "members")
    del tree[path[-1]]


def _completed_frontends(tree: Tree) -> Tree:
    first, *others = tree["frontends"]
    if others and "redirect_to_https" in others[0]:
        first["tls"] = first.get("tls") or {"certificate": "/etc/a.pem"}
        others[0] = {"listen": others[0]["listen"], "redirect_to_https": True}
    for frontend in (first, *others[1:]):
        if not frontend.get("mappings"):
            frontend["mappings"] = [{"path": "/", "balancer": next(iter(tree["balancers"]))}]
    return {**tree, "frontends": [first, *others]}


def _completed_tree(tree: Tree) -> Tree:
    if "group" in tree:
        tree.setdefault("user", "www-data")
    if "leave_before_stop" in tree:
        tree.setdefault("health_path", "/health")
    names = [*tree["balancers"]]
    for frontend in tree["frontends"]:
        for mapping in frontend.get("mappings", ()):
            if mapping["balancer"] not in names:
                mapping["balancer"] = names[-1]
    return mended(_completed_frontends(tree))


TREES: st.SearchStrategy[Tree] = SETTINGS.map(_completed_tree)
"""Raw trees without a mistake."""
SETTINGS_AT_RANDOM: st.SearchStrategy[settings.Settings] = TREES.map(settings_from_tree)
"""What they mean."""
