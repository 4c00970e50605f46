"""Single rules and their limits; the messages are held by ``tests/control/mistakes``."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.consistency import consistency_mistakes

Tree = dict[str, Any]


def tree(
    *, frontend: Tree | None = None, balancer: Tree | None = None, mapping: Tree | None = None
) -> Tree:
    """A configuration without mistakes, with some keys replaced or, by None, taken out."""

    def changed(block: Tree, changes: Tree | None) -> Tree:
        return {key: value for key, value in (block | (changes or {})).items() if value is not None}

    mappings = [changed({"path": "/", "balancer": "cluster"}, mapping)]
    one = {"listen": "0.0.0.0:443", "tls": {"certificate": "a.pem"}, "mappings": mappings}
    members = [
        {"url": "http://server1", "route": "server1"},
        {"url": "http://server2", "route": "server2"},
    ]
    cluster = {"sticky_session": "BALANCEME", "session_cookie": {}, "members": members}
    return {
        "frontends": [changed(one, frontend)],
        "balancers": {"cluster": changed(cluster, balancer)},
    }


def places(configuration: Any) -> list[str]:
    """Where the mistakes are, as dotted paths below the only frontend or balancer."""
    found = consistency_mistakes(configuration)
    return [".".join(map(str, mistake.path[2:])) for mistake in found]


def test_nothing_is_wrong() -> None:
    """The configuration that these tests start from has no mistake."""
    assert places(tree()) == []


@pytest.mark.parametrize(
    ("failover", "wrong"),
    [
        ({}, []),
        ({"server2": "server1"}, []),
        ({"server1": "server1"}, ["failover.server1"]),
        ({"server1": "server2", "server2": "server1"}, ["failover.server1"]),
        ({"server3": "server1"}, ["failover.server3"]),
        ({"server2": "server3"}, ["failover.server2"]),
        ({"server2": 5}, []),
        ({5: "server1"}, []),
        ("server1", []),
    ],
)
def test_failover(failover: Any, wrong: list[str]) -> None:
    """A failover leads from one member's route to another's, and not in a circle."""
    assert places(tree(balancer={"failover": failover})) == wrong


def test_each_circle_is_told_once() -> None:
    """Two circles are two mistakes, however many entries lead into them."""
    routes = [f"r{number}" for number in range(6)]
    members = [{"url": f"http://{route}", "route": route} for route in routes]
    failover = {"r0": "r1", "r1": "r2", "r2": "r1", "r3": "r4", "r4": "r3", "r5": "r0"}
    wrong = places(tree(balancer={"members": members, "failover": failover}))
    assert wrong == ["failover.r1", "failover.r3"]


def test_a_long_chain_is_no_circle() -> None:
    """A chain may be as long as one likes, and is walked once."""
    routes = [f"r{number}" for number in range(2_000)]
    members = [{"url": f"http://{route}", "route": route} for route in routes]
    failover = dict(pairwise(routes))
    assert places(tree(balancer={"members": members, "failover": failover})) == []


@pytest.mark.parametrize(
    "member",
    [
        {"url": "http://server3", "route": 3},
        {"url": "http://server3", "rout": "server3"},
        {"url": "http://server3", "route": ""},
        "server3",
    ],
)
def test_no_verdict_without_facts(member: Any) -> None:
    """Where a member's route can't be known, no route is called unknown."""
    members = [{"url": "http://server1", "route": "server1"}, member]
    configuration = tree(
        balancer={
            "members": members,
            "failover": {"server3": "server1"},
            "session_cookie": {"assign": "own", "own_route": "server3"},
        }
    )
    assert places(configuration) == []


@pytest.mark.parametrize(
    ("cookie", "wrong"),
    [
        ({"assign": "own", "own_route": "server1"}, []),
        ({"assign": "own", "own_route": "server1", "first_request": "elect", "renew": "own"}, []),
        ({"assign": "own"}, ["assign"]),
        ({"assign": "own", "own_rout": "server1"}, []),
        ({"assign": "own", "own_route": "server3"}, ["own_route"]),
        ({"own_route": "server1"}, ["own_route"]),
        ({"assign": "elected", "own_route": "server1"}, ["own_route"]),
        ({"asign": "own", "own_route": "server1"}, []),
        ({"assign": "mine", "own_route": "server1"}, []),
        ({"first_request": "own"}, ["first_request"]),
        ({"renew": "own"}, ["renew"]),
        ({"renew": "any"}, []),
    ],
)
def test_own_route(cookie: Tree, wrong: list[str]) -> None:
    """assign: own and own_route need each other; the rest of own needs both."""
    found = places(tree(balancer={"session_cookie": cookie}))
    assert found == [f"session_cookie.{key}" for key in wrong]


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"sticky_session": None}, ["session_cookie"]),
        ({"sticky_session": None, "stickysession": "BALANCEME"}, []),
        ({"sticky_session": None, "session_cookie": None}, []),
        ({"members": [{"url": "http://server1"}]}, ["session_cookie"]),
        ({"members": [{"url": "http://server1"}], "session_cookie": None}, []),
        ({"sticky_separator": "!"}, []),
        ({"sticky_separator": "b"}, ["sticky_separator"]),
        ({"sticky_separator": "-", "session_cookie": {"prefix": "a-b"}}, ["sticky_separator"]),
        ({"sticky_separator": False}, []),
        ({"sticky_separator": False, "session_cookie": {"prefix": ""}}, []),
        ({"sticky_separator": "off", "session_cookie": {"prefix": "a"}}, ["session_cookie.prefix"]),
    ],
)
def test_session_cookie(changes: Tree, wrong: list[str]) -> None:
    """A session cookie has a route to carry, and what it carries is read back."""
    assert places(tree(balancer=changes)) == wrong


@pytest.mark.parametrize(
    ("members", "wrong"),
    [
        ([{"url": "http://a"}, {"url": "http://a:8080"}], []),
        ([{"url": "http://a"}, {"url": "http://A:80/"}], ["members.1.url"]),
        ([{"url": "http://a/b"}, {"url": "http://a/B"}], []),
        ([{"url": "http://a", "route": "r"}, {"url": "http://b", "route": "R"}], []),
        (
            [{"url": "http://a", "route": "r"}, {"url": "http://b", "route": "r"}],
            ["members.1.route"],
        ),
        ([{"hot_spare": True, "hot_standby": True}], ["members.0.hot_spare"]),
        ([{"hot_spare": True, "hot_standby": False}], []),
        ([{"route": "r", "redirect_route": "r"}], ["members.0.redirect_route"]),
        ([{"route": "r", "redirect_route": "s"}], ["members.0.redirect_route"]),
        ([{"route": "r", "redirect_route": "s"}, {"route": "s"}], []),
    ],
)
def test_members(members: Any, wrong: list[str]) -> None:
    """Members differ in URL and route, have one role, and redirect to each other."""
    assert places(tree(balancer={"members": members, "session_cookie": None})) == wrong


@pytest.mark.parametrize(
    ("frontend", "wrong"),
    [
        ({"server_name": "mail.zarafa.com"}, []),
        ({"server_name": "mail.example.org"}, ["session_cookie.domain"]),
        ({"server_name": "x.org", "tls": [{"names": ["*.zarafa.com"]}]}, []),
        ({"tls": {"names": ["*.example.org"]}}, ["session_cookie.domain"]),
    ],
)
def test_cookie_domain(frontend: Tree, wrong: list[str]) -> None:
    """A cookie's domain fits at least one name by which its balancer is reached."""
    cookie = {"session_cookie": {"domain": "zarafa.com"}}
    assert places(tree(frontend=frontend, balancer=cookie)) == wrong


@pytest.mark.parametrize(
    ("cookie", "frontend", "wrong"),
    [
        ({"same_site": "None"}, {}, False),
        ({"same_site": "None"}, {"tls": None}, True),
        ({"same_site": "None", "secure": True}, {"tls": None}, False),
        ({"same_site": "None", "secure": False}, {}, True),
        ({"same_site": "Lax", "secure": False}, {"tls": None}, False),
    ],
)
def test_same_site(cookie: Tree, frontend: Tree, wrong: bool) -> None:
    """SameSite=None needs Secure, on every way to the balancer."""
    found = places(tree(frontend=frontend, balancer={"session_cookie": cookie}))
    assert found == (["session_cookie.same_site"] if wrong else [])


@pytest.mark.parametrize(
    ("mapping", "timeouts", "wrong"),
    [
        ({}, {}, []),
        ({}, {"response": "30s", "activesync": "1h"}, []),
        ({}, {"activesync": "59m"}, ["timeouts.activesync"]),
        ({}, {"activesync": "soon"}, []),
        ({"path": "/webapp"}, {"activesync": "59m"}, []),
        ({"response_timeout": "61m"}, {"activesync": "59m"}, []),
        ({"response_timeout": "59m"}, {}, ["mappings.0.response_timeout"]),
        ({"path": "/webapp", "response_timeout": "59m"}, {}, []),
    ],
)
def test_activesync(mapping: Tree, timeouts: Tree, wrong: list[str]) -> None:
    """Where ActiveSync is mapped, the timeout that counts is an hour at least."""
    assert places(tree(mapping=mapping, balancer={"timeouts": timeouts})) == wrong


def test_activesync_of_a_member() -> None:
    """A member's own timeout counts like its balancer's."""
    members = [{"url": "http://a", "route": "a", "timeouts": {"activesync": "5m"}}]
    wrong = places(tree(balancer={"members": members}))
    assert wrong == ["members.0.timeouts.activesync"]


@pytest.mark.parametrize(
    ("checks", "wrong"),
    [([], ["takeover", "fence"]), (None, ["takeover", "fence"]), ([{"type": "tcp"}], [])],
)
def test_takeover_needs_checks(checks: list[Tree] | None, wrong: list[str]) -> None:
    """No member counts as failed without checks, also where the list of them is given and empty."""
    balancer: Tree = {"takeover": "auto", "fence": "on_failure", "health_checks": checks}
    assert places(tree(balancer=balancer)) == wrong


@pytest.mark.parametrize(
    ("frontend", "wrong"),
    [
        ({"mappings": None}, [""]),
        ({"mappings": []}, [""]),
        ({"mappings": None, "mapings": []}, []),
        ({"redirect_to_https": False}, []),
        ({"redirect_to_https": True}, ["redirect_to_https"] * 2),
        ({"redirect_to_https": True, "mappings": None}, ["redirect_to_https"]),
        ({"redirect_to_https": True, "mappings": None, "tls": None}, ["redirect_to_https"]),
    ],
)
def test_redirect_to_https(frontend: Tree, wrong: list[str]) -> None:
    """A frontend maps or redirects, and only redirects if another one has tls."""
    assert places(tree(frontend=frontend)) == wrong


def test_redirect_to_another_frontend() -> None:
    """A plain frontend may redirect to the one with tls."""
    configuration = tree()
    configuration["frontends"].append({"listen": "0.0.0.0:80", "redirect_to_https": True})
    assert places(configuration) == []


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("0.0.0.0:443", "0.0.0.0:443", True),
        ("[::1]:443", "[0::1]:443", True),
        ("0.0.0.0:443", "0.0.0.0:444", False),
        ("localhost:443", "127.0.0.1:443", False),
        ("here", "here", False),
    ],
)
def test_addresses(first: str, second: str, same: bool) -> None:
    """Two frontends don't listen on one address, however it is spelled."""
    configuration = tree(frontend={"listen": first})
    configuration["frontends"] += tree(frontend={"listen": second})["frontends"]
    assert places(configuration) == (["listen"] if same else [])


def test_mappings() -> None:
    """Host and path belong to one mapping; a mapping's balancer is there."""
    mappings = [
        {"path": "/", "balancer": "cluster"},
        {"path": "/", "host": "a", "balancer": "cluster"},
        {"path": "/", "host": "A", "balancer": "cluster"},
        {"path": "/a", "balancer": "clutser"},
    ]
    wrong = places(tree(frontend={"mappings": mappings}))
    assert wrong == ["mappings.3.balancer", "mappings.2.path"]


def test_certificates() -> None:
    """Each name has one certificate, and only the first certificate can do without names."""
    tls = [{"names": ["a", "b"]}, {"names": ["B"]}, {"certificate": "c.pem"}]
    wrong = places(tree(frontend={"tls": tls}))
    assert wrong == ["tls.1.names.0", "tls.2"]


KEYS = (
    "frontends balancers cluster listen tls names mappings path host balancer response_timeout"
    " members url route redirect_route failover session_cookie domain prefix assign own_route"
    " sticky_session sticky_separator same_site secure timeouts activesync"
).split()
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["cluster", "/", "own", "None", "http://a", "5m", "0.0.0.0:443", "a.b"])
    | st.text(max_size=5)
)
TREES = st.recursive(
    SCALARS,
    lambda below: (
        st.lists(below, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), below, max_size=6)
        | st.dictionaries(st.integers() | st.none(), below, max_size=2)
    ),
    max_leaves=25,
)


@settings(max_examples=60, deadline=None)
@given(TREES)
def test_never_raises(configuration: Any) -> None:
    """Whatever a raw tree holds, the answer is a list."""
    assert isinstance(consistency_mistakes(configuration), list)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_never_raises_near_a_good_tree(data: st.DataObject) -> None:
    """A wrong type in any place of a good configuration is no reason to fail."""
    cookie = {"assign": "own", "own_route": "server1", "domain": "zarafa.com", "same_site": "None"}
    block: Any = tree(
        balancer={"session_cookie": cookie, "failover": {"server2": "server1"}},
        frontend={"server_name": "mail.zarafa.com", "tls": [{"names": ["a"]}, {"names": ["b"]}]},
    )
    root = block
    while True:
        key = data.draw(
            st.sampled_from(sorted(block) if isinstance(block, dict) else range(len(block)))
        )
        if not isinstance(block[key], dict | list) or not block[key] or data.draw(st.booleans()):
            break
        block = block[key]
    block[key] = data.draw(TREES)
    assert isinstance(consistency_mistakes(root), list)
