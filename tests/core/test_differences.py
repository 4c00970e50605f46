from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from proxy.core.differences import NEEDS_RESTART, Difference, differences, in_words
from proxy.core.settings import Model, Settings
from proxy.core.written import kinds

SECRET = "0123456789abcdef"
OTHER_SECRET = "fedcba9876543210"
MEMBERS = [
    {"url": "http://server1.zarafa.com", "route": "server1"},
    {"url": "http://server2.zarafa.com", "route": "server2"},
]
CLUSTER = {"sticky_session": "BALANCEME", "session_cookie": {}, "members": MEMBERS}
WEB = {"members": [{"url": "http://web.zarafa.com", "route": "web1"}]}
MAPPINGS = [{"path": "/", "balancer": "cluster"}]
FRONTEND = {"listen": "0.0.0.0:443", "tls": {"certificate": "a.pem"}, "mappings": MAPPINGS}
TREE = {"frontends": [FRONTEND], "balancers": {"cluster": CLUSTER, "web": WEB}}
BOTH = (("cluster", "server1"), ("cluster", "server2"))
SERVER2 = BOTH[1:]


def top(**changes: Any) -> Settings:
    """Settings with other ones at the top."""
    return Settings.model_validate({**TREE, **changes})


def frontend(**changes: Any) -> Settings:
    """Settings with another frontend."""
    return top(frontends=[{**FRONTEND, **changes}])


def cluster(**changes: Any) -> Settings:
    """Settings with another balancer."""
    return top(balancers={"cluster": {**CLUSTER, **changes}, "web": WEB})


def server2(**changes: Any) -> Settings:
    """Settings with another second member."""
    return cluster(members=[MEMBERS[0], {**MEMBERS[1], **changes}])


def cookie(**changes: Any) -> Settings:
    """Settings with another session cookie."""
    return cluster(session_cookie=changes)


def lines(old: Settings, new: Settings) -> list[str]:
    """The differences in words, with some live sessions on each member of the cluster."""
    counts = {"server1": 1, "server2": 20, "server3": 300}
    sessions = {("cluster", route): count for route, count in counts.items()}
    return in_words(differences(old, new), sessions)


# --- in words ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (top(), top(workers="auto"), "workers: 1 -> auto"),
        (top(), top(log={"level": "debug"}), "log.level: info -> debug"),
        (top(), top(access_log=None), "access_log: {} -> null"),
        (top(), top(access_log={"path": "/a"}), 'access_log.path: "-" -> /a'),
        (top(), top(stop_timeout="2m"), "stop_timeout: 30s -> 2m"),
        (top(), top(compat="apache"), "compat: null -> apache"),
        (
            top(),
            top(user="www-data"),
            "user: null -> www-data; takes a restart, a reload leaves it as it is",
        ),
        (
            top(),
            frontend(limits={"head": "32k"}),
            "frontends 0.0.0.0:443: limits.head 64k -> 32k",
        ),
        (
            top(),
            frontend(mappings=[{**MAPPINGS[0], "upgrade": ["websocket"]}]),
            "frontends 0.0.0.0:443 mappings /: upgrade [] -> [websocket]",
        ),
        (
            top(),
            cluster(lbmethod="bytraffic"),
            "balancers.cluster: lbmethod byrequests -> bytraffic",
        ),
        (top(), cookie(lifetime="2h"), "balancers.cluster: session_cookie.lifetime 1h -> 2h"),
        (
            top(),
            server2(load_factor=2.0),
            "balancers.cluster.members server2: load_factor 1 -> 2",
        ),
        (
            top(),
            server2(status="drain"),
            "balancers.cluster.members server2: status enabled -> drain",
        ),
        (
            top(),
            server2(status="disabled"),
            "balancers.cluster.members server2: status enabled -> disabled; moves 20 live sessions",
        ),
        (
            cluster(members=[*MEMBERS, {"url": "http://a", "route": "server3"}]),
            top(),
            "balancers.cluster.members: server3 (http://a) removed; moves 300 live sessions",
        ),
        (
            cluster(members=[*MEMBERS, {"url": "http://a"}]),
            top(),
            "balancers.cluster.members: http://a removed",
        ),
        (
            top(),
            cluster(failover={"server1": "server2"}),
            "balancers.cluster.failover: server1: server2 added; moves 1 live session",
        ),
        (
            top(),
            cluster(failover={"server2": "server1"}),
            "balancers.cluster.failover: server2: server1 added; moves 20 live sessions",
        ),
        (
            top(),
            cookie(secret=SECRET),
            "balancers.cluster: session_cookie.secret changed; moves 21 live sessions",
        ),
        (
            top(),
            top(balancers={"cluster": CLUSTER}),
            "balancers: web removed; moves no live sessions",
        ),
    ],
)
def test_in_words(old: Settings, new: Settings, line: str) -> None:
    """A line says where, what, from what to what, and how many sessions that moves."""
    assert lines(old, new) == [line]


def test_nothing_changes() -> None:
    """There is a line also for nothing; a list of one certificate is that certificate."""
    assert differences(top(), top()) == []
    assert lines(top(), frontend(tls=[FRONTEND["tls"]])) == ["nothing changes"]


def test_order() -> None:
    """Differences stand in the order of the settings, what is gone before what is new."""
    new = top(
        workers=2,
        frontends=[{**FRONTEND, "listen": "0.0.0.0:8443"}],
        balancers={"cluster": {**CLUSTER, "members": [MEMBERS[1]], "no_failover": True}},
    )
    assert [difference.path for difference in differences(top(), new)] == [
        "workers",
        "frontends",
        "frontends",
        "balancers",
        "balancers.cluster.members",
        "balancers.cluster",
    ]


def test_a_session_counts_once_in_a_line() -> None:
    """A change that moves a member's sessions in two ways moves them once."""
    difference = Difference("balancers.cluster", "changed", BOTH + BOTH)
    assert in_words([difference], dict.fromkeys(BOTH, 1)) == [
        "balancers.cluster: changed; moves 2 live sessions"
    ]


# --- what is the same --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        # a frontend is its address and whether it speaks TLS
        (
            top(),
            frontend(listen="0.0.0.0:444"),
            [
                ("frontends", "0.0.0.0:443 with tls removed"),
                ("frontends", "0.0.0.0:444 with tls added"),
            ],
        ),
        (
            top(),
            frontend(tls=None),
            [
                ("frontends", "0.0.0.0:443 with tls removed"),
                ("frontends", "0.0.0.0:443 without tls added"),
            ],
        ),
        # a certificate is its names
        (
            top(),
            frontend(tls={"certificate": "b.pem"}),
            [("frontends 0.0.0.0:443 tls all names", "certificate a.pem -> b.pem")],
        ),
        (
            top(),
            frontend(tls=[{"certificate": "a.pem"}, {"certificate": "b", "names": ["b", "c"]}]),
            [("frontends 0.0.0.0:443 tls", "b for b, c added")],
        ),
        (
            frontend(tls=[{"certificate": each, "names": [each]} for each in "abc"]),
            frontend(tls=[{"certificate": each, "names": [each]} for each in "bac"]),
            [("frontends 0.0.0.0:443 tls", "b for all other names, before a")],
        ),
        (
            frontend(tls=[{"certificate": each, "names": [each]} for each in "abc"]),
            frontend(tls=[{"certificate": each, "names": [each]} for each in "acb"]),
            [("frontends 0.0.0.0:443 tls", "order changed")],
        ),
        # a mapping is its host and path
        (
            top(),
            frontend(mappings=[*MAPPINGS, {"path": "/a", "host": "b", "balancer": "cluster"}]),
            [("frontends 0.0.0.0:443 mappings", "b/a to cluster added")],
        ),
        # a member is its url and route
        (
            top(),
            server2(url="http://server3.zarafa.com"),
            [
                ("balancers.cluster.members", "server2 (http://server2.zarafa.com) removed"),
                ("balancers.cluster.members", "server2 (http://server3.zarafa.com) added"),
            ],
        ),
        (
            cluster(members=[{"url": "http://server1"}]),
            cluster(members=[{"url": "http://server1", "lbset": 2}, MEMBERS[0]]),
            [
                ("balancers.cluster.members http://server1", "lbset 0 -> 2"),
                ("balancers.cluster.members", "server1 (http://server1.zarafa.com) added"),
            ],
        ),
        (
            top(),
            cluster(members=MEMBERS[::-1]),
            [("balancers.cluster.members", "order changed")],
        ),
        # an entry of failover is its route
        (
            cluster(failover={"server2": "server1", "a": "b"}),
            cluster(failover={"a": "c"}),
            [
                ("balancers.cluster.failover", "server2: server1 removed"),
                ("balancers.cluster.failover", "a: b -> c"),
            ],
        ),
    ],
)
def test_what_is_the_same(old: Settings, new: Settings, found: list[tuple[str, str]]) -> None:
    """Something else in the place of a thing is told as removed and added, not as changed."""
    assert [(each.path, each.text) for each in differences(old, new)] == found


# --- who is moved ------------------------------------------------------------------------------


def moved(old: Settings, new: Settings) -> set[tuple[str, str]]:
    """The members whose sessions any of the differences moves."""
    return {member for difference in differences(old, new) for member in difference.moves}


@pytest.mark.parametrize(
    ("old", "new", "moves"),
    [
        (top(), server2(route="server3"), SERVER2),
        (top(), server2(url="http://server3.zarafa.com"), SERVER2),
        (top(), server2(route=None), SERVER2),
        (top(), server2(status="stopped"), SERVER2),
        (top(), server2(status="drain"), ()),
        (server2(status="drain"), server2(status="disabled"), SERVER2),
        (server2(status="disabled"), server2(status="stopped"), ()),
        (server2(status="disabled"), top(), ()),
        (top(), server2(hot_standby=True), ()),
        (top(), cluster(members=[*MEMBERS, {"url": "http://server3"}]), ()),
        (cluster(failover={"server2": "server1"}), top(), ()),
        (top(), top(balancers={"cluster": WEB, "web": WEB}), BOTH),
    ],
)
def test_moves_of_a_member(old: Settings, new: Settings, moves: Any) -> None:
    """Who can't stay on a member moves; drain, and what is new, moves nobody."""
    assert moved(old, new) == set(moves)


@pytest.mark.parametrize(
    ("old", "new", "moves"),
    [
        (top(), cluster(sticky_session="ROUTE"), BOTH),
        (top(), cluster(sticky_session=None, session_cookie=None), BOTH),
        (top(), cluster(sticky_session="BALANCEME|route"), ()),
        (cluster(sticky_session=None, session_cookie=None), top(), ()),
        (top(), cluster(sticky_separator="!"), BOTH),
        (top(), cluster(sticky_separator="off"), BOTH),
        (cluster(sticky_separator="off"), top(), BOTH),
        # What stands in front of the route is passed over.
        (top(), cookie(prefix="other"), ()),
        (top(), cookie(domain="zarafa.com", lifetime="2h"), ()),
        (top(), cookie(secret=SECRET), BOTH),
        (cookie(secret=SECRET), top(), BOTH),
        (cookie(secret=SECRET), cookie(secret=OTHER_SECRET), BOTH),
        # A second secret still verifies.
        (cookie(secret=SECRET), cookie(secret=[OTHER_SECRET, SECRET]), ()),
        (cookie(secret=[OTHER_SECRET, SECRET]), cookie(secret=OTHER_SECRET), ()),
        # Members may go on with cookies of their own.
        (top(), cluster(session_cookie=None), ()),
        (cluster(session_cookie=None), top(), ()),
        (cluster(session_cookie=None), cookie(secret=SECRET), BOTH),
    ],
)
def test_moves_of_cookies(old: Settings, new: Settings, moves: Any) -> None:
    """Sessions move whose cookies aren't understood any more."""
    assert moved(old, new) == set(moves)


WEBAPP = {"path": "/webapp", "balancer": "cluster"}
OF_A_HOST = {**WEBAPP, "path": "/", "host": "*.zarafa.com"}


@pytest.mark.parametrize(
    ("old", "new", "moves"),
    [
        (MAPPINGS, [{"path": "/", "balancer": "web"}], BOTH),
        (MAPPINGS, [*MAPPINGS, {"path": "/web", "balancer": "web"}], BOTH),
        (MAPPINGS, [*MAPPINGS, WEBAPP], ()),
        ([WEBAPP], [{"path": "/web", "balancer": "web"}], BOTH),
        # What a removed mapping took goes to the same balancer by the one above it.
        ([*MAPPINGS, WEBAPP], MAPPINGS, ()),
        ([{"path": "/", "balancer": "web"}, WEBAPP], [{"path": "/", "balancer": "web"}], BOTH),
        ([WEBAPP], [{"path": "/", "balancer": "cluster"}], ()),
        ([OF_A_HOST], [{**OF_A_HOST, "balancer": "web"}], BOTH),
        ([OF_A_HOST], MAPPINGS, ()),
        (MAPPINGS, [*MAPPINGS, {**OF_A_HOST, "balancer": "web"}], BOTH),
    ],
)
def test_moves_of_mappings(old: Any, new: Any, moves: Any) -> None:
    """Sessions move whose requests another balancer gets, or none."""
    assert moved(frontend(mappings=old), frontend(mappings=new)) == set(moves)


def test_moves_of_frontends() -> None:
    """Sessions are cut off if no frontend leads to their balancer any more."""
    second = {"listen": "0.0.0.0:80", "mappings": MAPPINGS}
    both = top(frontends=[FRONTEND, second])
    assert moved(both, top()) == set()
    assert moved(top(), frontend(tls=None)) == set()
    assert moved(both, top(frontends=[{"listen": "0.0.0.0:8080"}])) == set(BOTH)


# --- every setting -----------------------------------------------------------------------------

# Values of all kinds in a file's spelling; for a setting it takes the first that is another one.
CANDIDATES: list[Any] = [
    "web",
    True,
    False,
    7,
    7.0,
    "7m",
    "apache",
    "bytraffic",
    "own",
    "elect",
    "Lax",
    "disabled",
    "v1",
    "auto",
    "debug",
    "json",
    "/other",
    "http://other.zarafa.com",
    "127.0.0.1:1",
    "!",
    "1.3",
    "auto",
    "return",
    "on_failure",
    "imap",
    "other",
    "HEAD",
    ["500-502"],
    [502],
    [{"type": "tcp"}],
    [{"on": ["drained"], "command": ["other"]}],
    ["drained"],
    ["10.9.0.0/16"],
    ["other.zarafa.com"],
    OTHER_SECRET,
    {"other": "server1"},
    {"/other": "/"},
    {"path": "/var/log/other"},
    {"certificate": "other.pem"},
    {"connect": "7s"},
    {"head": "7s"},
    {"head": 7},
    {"prefix": "other"},
    [{"path": "/other", "balancer": "web"}],
    [{"url": "http://other.zarafa.com"}],
    [{"listen": "127.0.0.1:1"}],
    {"cluster": WEB, "web": WEB},
]
FULL = top(
    hooks=[{"on": ["takeover"], "url": "http://monitor.zarafa.com"}],
    frontends=[
        {**FRONTEND, "tls": [{"certificate": "a.pem"}, {"certificate": "b", "names": ["b"]}]}
    ],
    balancers={
        "cluster": {
            **CLUSTER,
            "failover": {"server1": "server2"},
            "health_checks": [{"type": "http"}],
            "members": [{**MEMBERS[0], "timeouts": {}}],
            "session_cookie": {"secret": SECRET},
        },
        "web": WEB,
    },
)
Change = tuple[tuple[str | int, ...], Any]


def other_value(kind: Any, value: Any) -> Any:
    """A value of the same setting that isn't this one."""
    for candidate in CANDIDATES:
        try:
            found = TypeAdapter(kind).validate_python(candidate)
        except ValidationError:
            continue
        if found != value:
            return found
    pytest.fail(f"no candidate for {kind}")


def changes(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[Change]:
    """Another value for each setting in ``value``, on all levels."""
    if isinstance(value, Model):
        for name, kind in kinds(type(value)).items():
            inside = getattr(value, name)
            yield (*path, name), other_value(kind, inside)
            yield from changes(inside, (*path, name))
    elif isinstance(value, dict):
        for name, inside in value.items():
            yield from changes(inside, (*path, name))
    elif isinstance(value, tuple):
        for index, inside in enumerate(value):
            yield from changes(inside, (*path, index))


def with_change(value: Any, path: tuple[str | int, ...], new: Any) -> Any:
    """A copy with ``new`` in the place that ``path`` leads to, if that is still there."""
    if not path:
        return new
    step, rest = path[0], path[1:]
    if isinstance(value, Model) and isinstance(step, str):
        return value.model_copy(update={step: with_change(getattr(value, step), rest, new)})
    if isinstance(value, dict) and step in value:
        return {**value, step: with_change(value[step], rest, new)}
    if isinstance(value, tuple) and isinstance(step, int) and step < len(value):
        return (*value[:step], with_change(value[step], rest, new), *value[step + 1 :])
    return value


CHANGES = list(changes(FULL))


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: ".".join(map(str, change[0])))
def test_every_setting_makes_a_difference(change: Change) -> None:
    """No setting is forgotten, in either direction, on any level; only few take a restart."""
    path, value = change
    changed = with_change(FULL, path, value)
    assert changed != FULL
    for found in (differences(FULL, changed), differences(changed, FULL)):
        assert found
        assert any(each.restart for each in found) is (path[0] in NEEDS_RESTART)


def test_every_model_is_walked() -> None:
    """The settings that are changed one by one have a thing of every kind."""
    models = {model for model in Model.__subclasses__() if model.__module__ == Settings.__module__}

    def found(value: Any) -> Iterator[type[Model]]:
        if isinstance(value, Model):
            yield type(value)
            for name in type(value).model_fields:
                yield from found(getattr(value, name))
        for inside in value.values() if isinstance(value, dict) else ():
            yield from found(inside)
        for inside in value if isinstance(value, tuple) else ():
            yield from found(inside)

    assert set(found(FULL)) == models


@given(st.lists(st.sampled_from(CHANGES), min_size=1, max_size=4))
def test_several_changes(chosen: list[Change]) -> None:
    """Any changes together make a difference, in words, and no secret is ever among them."""
    changed = FULL
    for path, value in chosen:
        changed = with_change(changed, path, value)
    for old, new in ((FULL, changed), (changed, FULL)):
        words = in_words(differences(old, new), {})
        assert words != ["nothing changes"]
        assert not any(SECRET in line or OTHER_SECRET in line for line in words)
