"""A raw tree as a whole; the messages are held by ``tests/control/mistakes``."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.errors import ConfigError
from proxy.core.reading import settings_from_tree, with_compat_defaults
from proxy.core.settings import Assign, Compat, FirstRequest, Renew, Settings

TREE: dict[str, Any] = {
    "frontends": [
        {
            "listen": "0.0.0.0:443",
            "server_name": "mail.zarafa.com",
            "tls": {"certificate": "mail.pem"},
            "mappings": [{"path": "/", "balancer": "cluster"}],
        }
    ],
    "balancers": {
        "cluster": {
            "sticky_session": "BALANCEME",
            "session_cookie": {"domain": "zarafa.com", "own_route": "server1"},
            "members": [
                {"url": "http://server1", "route": "server1"},
                {"url": "http://server2", "route": "server2"},
            ],
            "failover": {"server2": "server1"},
        }
    },
}


def mistakes(tree: Any) -> list[str]:
    """The mistakes in a tree, as dotted paths."""
    with pytest.raises(ConfigError) as caught:
        settings_from_tree(tree)
    return [".".join(map(str, mistake.path)) for mistake in caught.value.mistakes]


def changed(*path: Any, to: Any) -> dict[str, Any]:
    """The tree for Apache with one value replaced."""
    tree = copy.deepcopy({**TREE, "compat": "apache"})
    block: Any = tree
    for step in path[:-1]:
        block = block[step]
    block[path[-1]] = to
    return tree


def test_all_mistakes_at_once() -> None:
    """Values, unknown keys and what lies between settings are reported together."""
    tree = changed("balancers", "cluster", "members", 1, "route", to="server1")
    tree["workers"] = 0
    tree["wrokers"] = 1
    assert mistakes(tree) == [
        "workers",
        "wrokers",
        "balancers.cluster.members.1.route",
        "balancers.cluster.failover.server2",
    ]


def test_a_misspelt_key_is_one_mistake() -> None:
    """The key that was meant isn't called missing as well."""
    tree = {"frontend": TREE["frontends"], "balancers": TREE["balancers"]}
    assert mistakes({**tree, "compat": "apache"}) == ["frontend"]


def test_a_wrong_value_is_one_mistake() -> None:
    """What a wrong value would mean for other settings isn't told."""
    assert mistakes(changed("balancers", "cluster", "session_cookie", "own_route", to=1)) == [
        "balancers.cluster.session_cookie.own_route"
    ]


def test_a_refused_entry_is_one_mistake() -> None:
    """A list isn't called too short because its only entry is wrong."""
    assert mistakes(changed("frontends", 0, to=5)) == ["frontends.0"]


@pytest.mark.parametrize("tree", [None, 5, "text", [], {}, {1: 2}, {"frontends": {1: 2}}])
def test_no_settings_at_all(tree: Any) -> None:
    """Anything that isn't a configuration is refused with mistakes."""
    assert mistakes(tree)


# --- compat ------------------------------------------------------------------------------------


def test_apache_defaults() -> None:
    """compat: apache turns every default that differs into what Apache does."""
    found = settings_from_tree({**TREE, "compat": "apache"})
    frontend, cookie = found.frontends[0], found.balancers["cluster"].session_cookie
    assert cookie is not None
    assert found.compat is Compat.APACHE
    assert found.server == "Apache"
    assert frontend.keep_alive_requests == 100
    limits = frontend.limits
    assert (limits.request_line, limits.field, limits.fields) == (8191, 8191, 100)
    assert limits.head == 800 * 1024
    assert (cookie.secure, cookie.http_only) == (False, False)
    assert (cookie.assign, cookie.first_request) == (Assign.OWN, FirstRequest.ELECT)
    assert cookie.renew is Renew.OWN


def test_what_is_given_stays() -> None:
    """A key that the file gives has its value, compat or not."""
    tree = changed("frontends", 0, "limits", to={"fields": 50})
    tree["server"] = "balanceme"
    tree["balancers"]["cluster"]["session_cookie"]["secure"] = None
    found = settings_from_tree(tree)
    cookie = found.balancers["cluster"].session_cookie
    assert found.server == "balanceme"
    assert found.frontends[0].limits.fields == 50
    assert found.frontends[0].limits.field == 8191
    assert cookie is not None
    assert cookie.secure is None


@pytest.mark.parametrize("cookie", [{}, {"own_route": None}, {"assign": "elected"}])
def test_own_defaults_need_an_own_route(cookie: dict[str, Any]) -> None:
    """Without own_route a new session's cookie names the member that served it."""
    tree = changed("balancers", "cluster", "session_cookie", to=cookie)
    found = settings_from_tree(tree).balancers["cluster"].session_cookie
    assert found is not None
    assert (found.assign, found.renew, found.secure) == (Assign.ELECTED, Renew.ANY, False)


def test_no_session_cookie_stays_none() -> None:
    """The defaults of a block that is off unless given don't turn it on."""
    tree = changed("balancers", "cluster", "session_cookie", to=None)
    assert settings_from_tree(tree).balancers["cluster"].session_cookie is None


def test_the_tree_itself_is_left_alone() -> None:
    """Defaults are filled into a copy, so that positions of the file still fit."""
    tree = {**TREE, "compat": "apache"}
    before = copy.deepcopy(tree)
    assert with_compat_defaults(tree) != before
    assert tree == before
    assert with_compat_defaults(TREE) is TREE


# --- properties --------------------------------------------------------------------------------


def keys_of(tree: Any) -> set[str]:
    """All keys that occur in a tree."""
    inside = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    own = set(tree) if isinstance(tree, dict) else set()
    return own.union(*(keys_of(value) for value in inside))


VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["apache", "cluster", "server1", "own", "/", "5m", "0.0.0.0:443", "[key]"])
)
TREES = st.recursive(
    VALUES,
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from(sorted(keys_of(TREE) | {"compat", "limits"})) | VALUES,
            below,
            max_size=5,
        )
    ),
    max_leaves=20,
)


def answer(tree: Any) -> Settings | ConfigError:
    """What comes of a tree; anything but these two gets through and fails the test."""
    try:
        return settings_from_tree(tree)
    except ConfigError as error:
        return error


@settings(max_examples=60, deadline=None)
@given(TREES)
def test_random_trees(tree: Any) -> None:
    """Whatever is read, the answer is settings or a ConfigError with mistakes."""
    answered = answer(tree)
    if isinstance(answered, ConfigError):
        assert answered.mistakes
        assert all("\n" not in mistake.message for mistake in answered.mistakes)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_changes(data: st.DataObject) -> None:
    """A random value in one place of a good configuration is accepted or told, never raised."""
    tree: Any = copy.deepcopy({**TREE, "compat": "apache"})
    block = tree
    while True:
        keys = sorted(block) if isinstance(block, dict) else range(len(block))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(block[key], dict | list) or data.draw(st.booleans()):
            break
        block = block[key]
    block[key] = data.draw(TREES)
    answered = answer(tree)
    assert isinstance(answered, Settings) or answered.mistakes
