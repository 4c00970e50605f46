from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck as Slowness
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.control.config_writer import COLUMNS, tree_of, write
from proxy.control.yaml_tree import read_yaml
from proxy.core.errors import ConfigError
from proxy.core.reading import settings_from_tree
from proxy.core.settings import Settings
from tests.core.configurations import ODD, SETTINGS_AT_RANDOM, TREES, Tree

ROOT = Path(__file__).parent.parent.parent
EVERY_KEY = ROOT / "config" / "balanceme.yaml"
FILES = [*sorted((ROOT / "config" / "examples").glob("*.yaml")), EVERY_KEY]
TWO_MEMBERS = ROOT / "config" / "examples" / "two-members.yaml"


def read(text: str) -> Any:
    """What our reader makes of a text, which has no fault."""
    tree, faults = read_yaml(text)
    assert tree is not None
    assert not faults
    return tree.value


def tree_in(file: Path) -> Any:
    """The raw tree of a file."""
    return read(file.read_text(encoding="utf-8"))


def paths(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths to all that is in a tree."""
    yield path
    if isinstance(tree, dict | list):
        for key, inside in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from paths(inside, (*path, key))


# --- what a person would like to keep ----------------------------------------------------------

README = """\
workers: 1
frontends:
  - listen: 0.0.0.0:443
    tls: {certificate: /etc/balanceme/mail.pem, key: /etc/balanceme/mail.key}
    mappings:
      - {path: /, balancer: cluster}
balancers:
  cluster:
    members:
      - {url: "http://server1.zarafa.com", route: server1}
      - {url: "http://server2.zarafa.com", route: server2}
    lbmethod: byrequests
    sticky_session: BALANCEME
    session_cookie:
      domain: zarafa.com
      prefix: balancer
      lifetime: 60m
      assign: own
      own_route: server1
    failover: {}
"""


def test_the_example_of_the_readme() -> None:
    """Short blocks stand in one line, long ones and lists of blocks one entry below the other."""
    tree = tree_in(TWO_MEMBERS)
    assert write(tree) == README
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert tree == read(readme.partition("```yaml\n")[2].partition("```")[0])


# As an importer of another configuration would have it.
IMPORTED = """\
# Made of /etc/apache2/sites-enabled/mail.conf. What has no counterpart here is said where it would
# stand.
#
# Check it, then run it.

compat: apache
frontends:
  - listen: 0.0.0.0:443  # mail.conf:3 <VirtualHost *:443>
    tls: {certificate: /etc/ssl/mail.pem, key: /etc/ssl/mail.key}
    mappings:
      # mail.conf:9 ProxyPass / balancer://cluster/ stickysession=BALANCEME timeout=300
      - path: /
        balancer: cluster
        response_timeout: 5m  # at least 1h for ActiveSync
# mail.conf:20 ProxySet
balancers:
  cluster:
    members:
      # mail.conf:21 BalancerMember "http://server1.zarafa.com" route=server1 with a remark that
      #   needs more than one line to be told
      - {url: "http://server1.zarafa.com", route: server1}
      # mail.conf:22 BalancerMember
      # mail.conf:23 is the same once more
      - {url: "http://server2.zarafa.com", route: server2}
      # mail.conf:25
      - url: http://server3.zarafa.com  # a third one
        route: server3
        health_checks:
          - {type: http, path: /}  # hcuri
    sticky_session: BALANCEME
    session_cookie: {domain: zarafa.com, own_route: server1}  # mail.conf:30 RewriteRule
unheard_of: 1
"""


def test_comments() -> None:
    """A comment stands behind its entry if it fits, above it if not; the head comes first."""
    members: list[Tree] = [
        {"route": f"server{number}", "url": f"http://server{number}.zarafa.com"}
        for number in (1, 2, 3)
    ]
    members[2]["health_checks"] = [{"path": "/", "type": "http"}]
    tree = {
        "unheard_of": 1,
        "balancers": {
            "cluster": {
                "session_cookie": {"own_route": "server1", "domain": "zarafa.com"},
                "members": members,
                "sticky_session": "BALANCEME",
            }
        },
        "compat": "apache",
        "frontends": [
            {
                "listen": "0.0.0.0:443",
                "mappings": [{"balancer": "cluster", "path": "/", "response_timeout": "5m"}],
                "tls": {"key": "/etc/ssl/mail.key", "certificate": "/etc/ssl/mail.pem"},
            }
        ],
    }
    of_members = ("balancers", "cluster", "members")
    mapping = ("frontends", 0, "mappings", 0)
    remark = "with a remark that needs more than one line to be told"
    comments = {
        ("frontends", 0, "listen"): ["mail.conf:3 <VirtualHost *:443>"],
        mapping: [
            "mail.conf:9 ProxyPass / balancer://cluster/ stickysession=BALANCEME timeout=300"
        ],
        (*mapping, "response_timeout"): ["at least 1h for ActiveSync"],
        ("balancers",): ["mail.conf:20 ProxySet", " "],
        (*of_members, 0): [
            f'mail.conf:21 BalancerMember "http://server1.zarafa.com" route=server1 {remark}'
        ],
        (*of_members, 1): ["mail.conf:22 BalancerMember\nmail.conf:23 is the same once more"],
        (*of_members, 2): ["mail.conf:25"],
        (*of_members, 2, "url"): ["a third one"],
        (*of_members, 2, "health_checks", 0, "hcuri"): ["hcuri"],
        ("balancers", "cluster", "session_cookie"): ["mail.conf:30 RewriteRule"],
    }
    made = "Made of /etc/apache2/sites-enabled/mail.conf."
    told = f"{made} What has no counterpart here is said where it would stand."
    assert write(tree, comments, [told, "", "Check it, then run it."]) == IMPORTED


# Of config/balanceme.yaml, which gives every key its default or an example.
SMALLEST = """\
hooks:
  - {on: [member_down, member_up], command: [/usr/local/bin/tell]}
  - {on: [takeover], url: "https://monitor.zarafa.com/events"}
user: balanceme
group: balanceme
pid_file: /run/balanceme/balanceme.pid
state_folder: /var/lib/balanceme
frontends:
  - listen: 0.0.0.0:443
    server_name: mail.zarafa.com
    tls:
      certificate: /etc/balanceme/mail.pem
      key: /etc/balanceme/mail.key
      names: [mail.zarafa.com]
    mappings:
      - {path: /, balancer: cluster}
  - listen: 0.0.0.0:80
    redirect_to_https: true
balancers:
  cluster:
    members:
      - {url: "http://server1.zarafa.com", route: server1}
      - {url: "http://server2.zarafa.com", route: server2}
    sticky_session: BALANCEME
    session_cookie: {domain: zarafa.com, assign: own, own_route: server1}
    health_checks:
      - {type: http, name: web, path: /webapp/, statuses: [200-399]}
      - {type: smtp, required: false}
      - {type: tls}
      - {type: mysql, required: false}
      - {type: command, command: [/usr/local/bin/check]}
"""


def test_only_what_is_no_default() -> None:
    """Of a file with every key remains what it takes to mean the same."""
    assert write(tree_of(settings_from_tree(tree_in(EVERY_KEY)))) == SMALLEST


# --- comments ----------------------------------------------------------------------------------

HOSTILE = "a\nworkers: 2\r\n- b\x00\x1b[2J\u2028c: d\x85e\ud800\ttab"


def test_comments_break_nothing() -> None:
    """Whatever a comment holds is in lines that begin with #, with nothing that can't be seen."""
    text = write({"workers": 1}, {("workers",): [HOSTILE]}, [HOSTILE])
    comment = "# a\n# workers: 2\n# - b\\x00\\x1b[2J\n# c: d\n# e\\ud800 tab\n"
    assert text == f"{comment}\n{comment}workers: 1\n"


@pytest.mark.parametrize(
    "path", [("log", "level", "x"), ("log", "lvl"), ("log", 0), ("logs",), (0,), ("hooks", -1)]
)
def test_comments_of_what_is_not_there(path: tuple[str | int, ...]) -> None:
    """A comment whose entry isn't there is told at the nearest one above it, and never lost."""
    tree = {"log": {"level": "info"}, "hooks": [{"on": ["takeover"]}]}
    text = write(tree, {path: ["lost?"]})
    assert text.count("# lost?") == 1
    assert read(text) == tree


def test_a_comment_on_all_of_it() -> None:
    """A comment on the whole tree isn't taken for one on its first entry."""
    text = write({"workers": 1}, {(): ["all"], ("workers",): ["one"]}, ["head"])
    assert text == "# head\n\n# all\n\nworkers: 1  # one\n"


def test_comments_are_wrapped() -> None:
    """No line of a comment is longer than 100 columns, but for a single word that is."""
    told = " ".join(["word"] * 60) + " " + "x" * 120
    lines = write({"log": {"level": "info"}}, {("log", "level"): [told]}).splitlines()
    assert [line.split()[-1] for line in lines if len(line) > COLUMNS] == ["x" * 120]
    assert all(line.startswith("  #   word") for line in lines[2:5])
    assert lines[-1] == "  level: info"


# --- texts and numbers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("server1", "server1"),
        ("0.0.0.0:443", "0.0.0.0:443"),
        ("200-399", "200-399"),
        ("2001:db8::/32", "2001:db8::/32"),
        (".zarafa.com", ".zarafa.com"),
        ("a b", "a b"),
        ("größe", "größe"),
        ("-v", "-v"),
        ("[::]:443", '"[::]:443"'),
        ("*.zarafa.com", '"*.zarafa.com"'),
        ("off", '"off"'),
        ("Null", '"Null"'),
        ("1.2", '"1.2"'),
        ("12:30", '"12:30"'),
        ("2026-11-24", '"2026-11-24"'),
        (".", '"."'),
        ("-", '"-"'),
        ("", '""'),
        ("@", '"@"'),
        ("%", '"%"'),
        (" a", '" a"'),
        ("a: b", '"a: b"'),
        ("a #b", '"a #b"'),
        ("a\nb\x07\u2028\U000e0001", r'"a\nb\x07\u2028\U000e0001"'),
        (r"^\d+$", r"'^\d+$'"),
        (r"^\d'$", r'"^\\d' + "'" + '$"'),
        (True, "true"),
        (None, "null"),
        (0, "0"),
        (-5, "-5"),
        (1.0, "1.0"),
        (0.00001, "0.00001"),
        (1e16, "10000000000000000.0"),
        ([], "[]"),
        ({}, "{}"),
        ([[1], []], "\n  - [1]\n  - []"),
    ],
)
def test_values(value: Any, text: str) -> None:
    """Quotes stand where a text would be read as something else, and only there."""
    written = write({"server": value})
    assert written == f"server:{'' if text.startswith(chr(10)) else ' '}{text}\n"
    assert read(written) == {"server": value}


def test_texts_between_braces() -> None:
    """Where commas and colons mean something, a text with them is in quotes."""
    texts = ["a,b", "a:b", "a?", "a]", "a}", "a b"]
    assert write({"x": texts}) == 'x: ["a,b", "a:b", "a?", "a]", "a}", a b]\n'


def test_keys() -> None:
    """A setting's name is never in quotes; other keys are like any text."""
    hook = {"on": ["takeover"], "url": "http://a"}
    tree = {"hooks": [hook], "on": 1, "<<": 2, "k" * 2000: {"a": 1}}
    text = write(tree)
    assert '- {on: [takeover], url: "http://a"}\n"on": 1\n"<<": 2\n? kkk' in text
    assert read(text) == tree


@pytest.mark.parametrize("value", [10**18, 1e300, float("inf"), float("nan"), 1e-30])
def test_numbers_that_no_file_holds(value: float) -> None:
    """A number that would be read back as a text is refused."""
    with pytest.raises(ValueError, match="a configuration file can't hold it"):
        write({"workers": value})


def test_values_that_no_file_holds() -> None:
    """What is no tree is refused by the name of its type."""
    with pytest.raises(TypeError, match="found a bytes"):
        write({"server": b"a"})
    with pytest.raises(TypeError, match="found a key that is no text"):
        write({"balancers": {1: {}}})


# --- round trips -------------------------------------------------------------------------------

# Surrogates too, which a name of a file that isn't UTF-8 has.
ANY_TEXT = st.sampled_from([*ODD, HOSTILE]) | st.text(st.characters(), max_size=20)
LEAVES = (
    ANY_TEXT | st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(-1e6, 1e6)
)
ANY_TREE = st.dictionaries(
    ANY_TEXT,
    st.recursive(
        LEAVES.filter(lambda value: not isinstance(value, float) or abs(value) > 0.001),
        lambda inside: st.lists(inside, max_size=4) | st.dictionaries(ANY_TEXT, inside, max_size=4),
        max_leaves=12,
    ),
    max_size=5,
)
ONES_OWN = st.lists(ANY_TEXT, max_size=2)
ANYWHERE = st.lists(ANY_TEXT | st.integers(-1, 3), max_size=4).map(tuple)


@st.composite
def comments_on(draw: st.DrawFn, tree: Tree) -> dict[tuple[str | int, ...], list[str]]:
    """Comments on a few entries of a tree, and on some that aren't there."""
    places = st.sampled_from([*paths(tree)]) | ANYWHERE
    return draw(st.dictionaries(places, ONES_OWN, max_size=6))


@settings(max_examples=150, deadline=None)
@given(tree=ANY_TREE, head=ONES_OWN, data=st.data())
def test_any_tree(tree: Tree, head: list[str], data: st.DataObject) -> None:
    """What is written is read back as it was, by our reader and by another."""
    text = write(tree, data.draw(comments_on(tree)), head)
    assert read(text) == tree
    assert yaml.safe_load(text) == tree
    assert all(line.isprintable() for line in text.split("\n"))


@settings(max_examples=100, deadline=None, suppress_health_check=[Slowness.too_slow])
@given(loaded=SETTINGS_AT_RANDOM, head=ONES_OWN, data=st.data())
def test_any_settings(loaded: Settings, head: list[str], data: st.DataObject) -> None:
    """Settings are the same after they were written and read, whatever comments stand there."""
    tree = tree_of(loaded)
    text = write(tree, data.draw(comments_on(tree)), head)
    assert settings_from_tree(read(text)) == loaded


@settings(max_examples=100, deadline=None, suppress_health_check=[Slowness.too_slow])
@given(tree=TREES, data=st.data())
def test_nothing_can_be_left_out(tree: Tree, data: st.DataObject) -> None:
    """Without any one key of the smallest tree the settings are others, or none at all."""
    loaded = settings_from_tree(tree)
    smallest = tree_of(loaded)
    keys = [path for path in paths(smallest) if path and isinstance(path[-1], str)]
    *above, key = data.draw(st.sampled_from(keys))
    block: Any = smallest
    for step in above:
        block = block[step]
    del block[key]
    try:
        assert settings_from_tree(smallest) != loaded
    except ConfigError:
        pass


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_files_of_ours(file: Path) -> None:
    """What a user may copy is the same after it was written and read, and when written again."""
    tree = tree_in(file)
    loaded = settings_from_tree(tree)
    assert read(write(tree)) == tree
    smallest = write(tree_of(loaded))
    assert settings_from_tree(read(smallest)) == loaded
    assert write(read(smallest)) == smallest
    assert max(map(len, smallest.splitlines())) <= COLUMNS


# --- the smallest tree -------------------------------------------------------------------------


def settings_with(changes: Tree, balancer: Tree, frontend: Tree) -> Settings:
    """Small settings with a few keys more."""
    mappings = [{"path": "/", "balancer": "cluster"}]
    members = [{"url": "http://a", "route": "a"}]
    return settings_from_tree(
        {
            "frontends": [{"listen": "0.0.0.0:80", "mappings": mappings, **frontend}],
            "balancers": {"cluster": {"members": members, **balancer}},
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("spelt", "shortest"),
    [
        ("3600s", "1h"),
        ("1.5h", "90m"),
        ("0.25s", "250ms"),
        ("0d", 0),
        ("0.1ms", "0.1ms"),
        ("1.23456789s", "1.23456789s"),
        ("7200000ms", "2h"),
    ],
)
def test_durations(spelt: str, shortest: str | int) -> None:
    """A duration is spelt as we spell it everywhere, and exactly."""
    assert tree_of(settings_with({"stop_timeout": spelt}, {}, {}))["stop_timeout"] == shortest


def test_other_spellings() -> None:
    """Sizes, statuses, networks, load factors and secrets have their shortest spelling."""
    member = {"url": "http://a", "route": "a", "load_factor": 2.0, "timeouts": {}}
    check = {"type": "zarafa", "statuses": ["200", "300-399"]}
    cookie = {"secret": ["a" * 16]}
    balancer = {
        "members": [{**member, "health_checks": []}],
        "sticky_session": "A",
        "session_cookie": cookie,
        "health_checks": [check],
    }
    frontend = {"proxy_protocol": ["192.0.2.1/32", "::/0"], "limits": {"head": 131072, "field": 5}}
    tree = tree_of(settings_with({"access_log": None}, balancer, frontend))
    assert tree["access_log"] is None
    assert tree["frontends"][0]["proxy_protocol"] == ["192.0.2.1", "::/0"]
    assert tree["frontends"][0]["limits"] == {"field": 5, "head": "128k"}
    assert tree["balancers"]["cluster"]["members"] == [
        {**member, "load_factor": 2, "health_checks": []}
    ]
    assert tree["balancers"]["cluster"]["health_checks"][0]["statuses"] == [200, "300-399"]
    assert tree["balancers"]["cluster"]["session_cookie"] == {"secret": "a" * 16}


def test_defaults_of_compat() -> None:
    """Under compat: apache Apache's defaults are left out, and ours have to be given."""
    balancer = {"sticky_session": "A", "session_cookie": {"own_route": "a"}}
    apache = settings_with({"compat": "apache"}, balancer, {})
    smallest = tree_of(apache)
    assert smallest["compat"] == "apache"
    assert smallest["frontends"][0].keys() == {"listen", "mappings"}
    assert smallest["balancers"]["cluster"]["session_cookie"] == {"own_route": "a"}
    ours = {"compat": "apache", "server": "balanceme"}
    limits = {"limits": {"request_line": "16k", "field": 8191}}
    cookie = {"own_route": "a", "assign": "own", "first_request": "own", "secure": None}
    tree = tree_of(
        settings_with(ours, {**balancer, "session_cookie": cookie, "hold_off": "5s"}, limits)
    )
    assert tree["server"] == "balanceme"
    assert tree["frontends"][0]["limits"] == {"request_line": "16k"}
    assert tree["balancers"]["cluster"]["hold_off"] == "5s"
    assert tree["balancers"]["cluster"]["session_cookie"] == {
        "own_route": "a",
        "first_request": "own",
        "secure": None,
    }
