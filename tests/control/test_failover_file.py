"""What failover files say: golden pairs of a file and what is read from it, in many spellings."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.control.failover_file import FailoverFile, FailoverFileError, merged, read_failover
from proxy.core.settings import Balancer

FILES = sorted(
    file for file in (Path(__file__).parent / "failover_files").iterdir() if file.suffix != ".txt"
)
ROUTES = ("server1", "server2", "server3", "server-4")


def balancer(**others: Any) -> Balancer:
    """Settings of a balancer with a cookie like the article's."""
    members = [{"url": f"http://{route}.zarafa.com", "route": route} for route in ROUTES]
    return Balancer.model_validate(
        {"members": members, "sticky_session": "BALANCEME", "session_cookie": {}} | others
    )


def told(text: str, settings: Balancer) -> str:
    """What is read, one line for each thing."""
    try:
        found = read_failover(text, settings)
    except FailoverFileError as error:
        return "\n".join(error.mistakes)
    entries = [f"{gone} -> {heir}" for gone, heir in found.map.items()]
    return "\n".join([*(entries or ["nobody"]), *(f"notice: {said}" for said in found.notices)])


def pair(condition: str, cookie: str, flags: str = "") -> str:
    """A pair of rules."""
    return (
        f"RewriteCond %{{HTTP_COOKIE}} {condition} {flags}\n"
        f"RewriteRule .* - [CO={cookie}:zarafa.com:60]\n"
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_golden_pairs(file: Path) -> None:
    """Each file says exactly what stands beside it."""
    text = file.read_bytes().decode()
    expected = file.with_name(f"{file.name}.txt").read_text(encoding="utf-8")
    assert told(text, balancer()) + "\n" == expected


@pytest.mark.parametrize(
    ("condition", "cookie", "others"),
    [
        ("BALANCEME=(balancer!server2)", "BALANCEME:balancer!server1", {"sticky_separator": "!"}),
        (r"BALANCEME=balancer\|server2", "BALANCEME:balancer|server1", {"sticky_separator": "|"}),
        ("BALANCEME=(server2)", "BALANCEME:server1", {"sticky_separator": "off"}),
        (
            "BALANCEME=Mail.server2",
            "BALANCEME:Mail.server1",
            {"session_cookie": {"prefix": "Mail"}},
        ),
        ("BALANCEME=any.server2", "BALANCEME:other.server1", {"session_cookie": None}),
        ("R=balancer.server2", "R:balancer.server1", {"sticky_session": "R|route"}),
        (
            "BALANCEME=(.server2)",
            "BALANCEME:.server1",
            {"session_cookie": {"prefix": ""}},
        ),
    ],
)
def test_cookie_of_the_balancer(condition: str, cookie: str, others: Any) -> None:
    """Name, prefix and separator are those of the balancer's session cookie."""
    assert told(pair(condition, cookie), balancer(**others)) == "server2 -> server1"


@pytest.mark.parametrize(
    ("condition", "others"),
    [
        ("BALANCEME=(balancer.server2)", {"sticky_separator": "!"}),
        ("BALANCEME=(mail.server2)", {}),
        ("BALANCEME=(server2)", {}),
        ("BALANCEME=(balancer.)", {}),
        ("BALANCEME=", {"sticky_separator": "off"}),
        ("balanceme=(balancer.server2)", {}),
        ("route=(balancer.server2)", {"sticky_session": "R|route"}),
        (r"BALANCEME=\w+.server2", {"session_cookie": None}),
        ("BALANCEME=balancer.server2)(", {}),
        ("BALANCEME=balancer.server2\\", {}),
    ],
)
def test_other_cookies(condition: str, others: Any) -> None:
    """A pattern of another cookie, or of more than one route, is a mistake in its line."""
    said = told(pair(condition, "BALANCEME:balancer.server1"), balancer(**others))
    assert said.startswith("line 1: found ")
    assert "; allowed: " in said


def test_without_sticky_session() -> None:
    """Rules say nothing where no cookie carries routes, a YAML block does."""
    settings = balancer(sticky_session=None, session_cookie=None)
    assert "has no sticky_session" in told(pair("B=(b.server2)", "B:b.server1"), settings)
    assert told("server2: server1", settings) == "server2 -> server1"


def test_circle_through_the_configuration() -> None:
    """File and configuration together go in no circle, and the file's word counts more."""
    settings = balancer(failover={"server1": "server2", "server3": "server2"})
    said = told("# one\nserver2: server1\n", settings)
    assert said == (
        "line 2, column 10: found a circle: server2 -> server1 -> server2,"
        " with failover of the configuration"
    )
    assert told("{server2: server-4, server1: server3, server3: server2}", settings) == (
        "server2 -> server-4\nserver1 -> server3\nserver3 -> server2"
    )
    assert merged(settings, {"server1": "server3"}) == {
        "server1": "server3",
        "server3": "server2",
    }


def test_one_notice_for_all_pairs() -> None:
    """The capital letter of the article's include is told once, however many pairs there are."""
    text = pair("BALANCEME=(Balancer.server2)", "BALANCEME:balancer.server1")
    text += pair("BALANCEME=(Balancer.server3)", "BALANCEME:balancer.server1")
    found = read_failover(text, balancer())
    assert found.map == {"server2": "server1", "server3": "server1"}
    assert len(found.notices) == 1


@pytest.mark.parametrize(
    "text", ["\n", " ", "\\\n", "{", "? ", "'", '"\\', "(", "RewriteCond \\\n"]
)
def test_largest_odd_text(text: str) -> None:
    """The largest text of one piece alone is read in one go, and none of it is a route."""
    said = told(text * (65_536 // len(text)), balancer())
    assert said == "nobody" or said.startswith("line ")


_PIECES = [
    *("RewriteCond ", "RewriteRule ", "RewriteEngine on", "%{HTTP_COOKIE} ", "BALANCEME=", ".* - "),
    *("(balancer.server2)", "[CO=BALANCEME:balancer.server1:a:1]", "[NC]", "[OR]", "[", "]", "\\"),
    *(
        "\n",
        "\r\n",
        '"',
        "'",
        "#",
        " ",
        "\t",
        "server1",
        "server2",
        "server3",
        ": ",
        "{",
        "}",
        ", ",
    ),
    *(
        "? ",
        "- ",
        "&a ",
        "*a",
        "<<: ",
        "!x ",
        "\x00",
        "\u00a0",
        "\u2028",
        "<If>",
        "---\n",
        "%YAML ",
    ),
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=30).map("".join) | st.text(max_size=30))
def test_any_text(text: str) -> None:
    """Any text is a map of known routes without a circle, or mistakes with their lines."""
    mistakes: tuple[str, ...] = ()
    found = FailoverFile({})
    try:
        found = read_failover(text, balancer())
    except FailoverFileError as error:
        mistakes = error.mistakes or ("no reason",)
    assert all(said.startswith("line ") and said.isprintable() for said in mistakes)
    for route in found.map:
        steps, heir = 0, route
        while heir in found.map:
            assert heir in ROUTES
            heir, steps = found.map[heir], steps + 1
            assert steps <= len(ROUTES)
        assert heir in ROUTES
