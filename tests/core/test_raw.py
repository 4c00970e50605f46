from typing import Any

import pytest

from proxy.core.errors import Mistake
from proxy.core.raw import Raw, among, listed, near, printable, shown


def test_a_place_keeps_its_path() -> None:
    """Whatever is reached from the root knows the way back."""
    root = Raw({"frontends": [{"tls": {"key": "k"}}]})
    key = root.at("frontends").entries()[0].at("tls", "key")
    assert key == Raw("k", ("frontends", 0, "tls", "key"))
    assert key.mistake("wrong", on_key=True) == Mistake(key.path, "wrong", on_key=True)


@pytest.mark.parametrize("value", [None, 1, 1.5, True, "text", [], {}, object()])
def test_questions_never_fail(value: Any) -> None:
    """What isn't of the type asked for counts as not given."""
    raw = Raw(value)
    assert raw.at("a", "b") == Raw(None, ("a", "b"))
    assert raw.entries() == []
    assert raw.named() == {}
    assert raw.seconds is None
    assert raw.text == (value if value == "text" else None)
    assert raw.given == (value is not None)


def test_named_leaves_out_keys_that_are_no_text() -> None:
    """Only keys that are text have a name."""
    assert Raw({1: 2, None: 3, "a": 4}).named() == {"a": Raw(4, ("a",))}


def test_seconds() -> None:
    """A duration is read as seconds."""
    assert Raw("5m").seconds == 300.0


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "nothing"),
        (True, "true"),
        (False, "false"),
        (5, "the number 5"),
        (0.5, "the number 0.5"),
        pytest.param(10**5000, "a huge number", id="huge"),
        ("a", '"a"'),
        ("ü", '"ü"'),
        ("a\x1b[0m\nb", '"a\\x1b[0m\\nb"'),
        ("x" * 100, '"' + "x" * 60 + '..."'),
        ([1], "a list"),
        ([], "an empty list"),
        ({1: 2}, "a block of keys"),
        ({}, "an empty block"),
        (b"", "a bytes"),
    ],
)
def test_shown(value: Any, words: str) -> None:
    """What was found is told in one line, whatever it is."""
    assert shown(value) == words


def test_printable_has_one_line() -> None:
    """Nothing that a terminal would act on gets into a message."""
    assert printable("a\tb\x7f\u2028") == "a\\tb\\x7f\\u2028"


def test_listed() -> None:
    """A long list is cut, and says by how much."""
    assert listed(["a", "b"]) == "a, b"
    assert listed(str(number) for number in range(40)).endswith("28, 29, 10 more")


def test_among() -> None:
    """An unknown name is answered with the nearest one and with all that there are."""
    assert near("sever1", ["server1", "x"]) == ["server1"]
    assert among("sever1", ["server1", "x", "x"]) == "; did you mean server1? Allowed: server1, x"
    assert among("y", ["server1"]) == "; allowed: server1"
    assert among("y", []) == "; there is none"
