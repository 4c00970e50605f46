from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.control import yaml_tree
from proxy.control.yaml_tree import MOST_LEVELS, Position, read_yaml


def value(text: str) -> Any:
    """What YAML without faults is read as."""
    tree, faults = read_yaml(text)
    assert tree is not None
    assert faults == []
    return tree.value


def fault(text: str) -> str:
    """The only fault of a text, as ``LINE:COLUMN PATH MESSAGE``."""
    [found] = read_yaml(text)[1]
    return f"{found.at.line}:{found.at.column} {'.'.join(map(str, found.path))} {found.message}"


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("on", True),
        ("No", False),
        ("off", False),
        ("0", 0),
        ("-12", -12),
        ("1.5", 1.5),
        ("010", "010"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("1e3", "1e3"),
        (".inf", ".inf"),
        ("2026-11-24", "2026-11-24"),
        ("=", "="),
        ("9" * 19, "9" * 19),
        ("'5'", "5"),
        ('"off"', "off"),
        ("! 5", "5"),
        ("!!str 5", "5"),
        ("!!int '5'", 5),
        ("!!float '1.5'", 1.5),
        ("!!null ''", None),
        ("|\n  a\n  b\n", "a\nb\n"),
    ],
)
def test_scalars(text: str, meaning: Any) -> None:
    """A plain value is null, true, false, a decimal number or text, and nothing more."""
    read = value(f"key: {text}")["key"]
    assert read == meaning
    assert type(read) is type(meaning)


def test_keys_are_text() -> None:
    """A key is text, whatever a value of its spelling would be."""
    assert value("1: a\non: b\n~: c\n") == {"1": "a", "on": "b", "~": "c"}


def test_nothing_there() -> None:
    """A text without a value has neither a tree nor a fault."""
    assert read_yaml("# a comment\n") == (None, [])


def test_positions() -> None:
    """Keys, values and entries know where they stand, counted from 1."""
    tree, _ = read_yaml("frontends:\n  - listen: a\n    tls: {key: b}\n")
    assert tree is not None
    assert tree.position(()) == Position(1, 1)
    assert tree.position(("frontends",), on_key=True) == Position(1, 1)
    assert tree.position(("frontends",)) == Position(2, 3)
    assert tree.position(("frontends", 0, "listen")) == Position(2, 13)
    assert tree.position(("frontends", 0, "tls", "key"), on_key=True) == Position(3, 11)


def test_position_of_what_is_not_there() -> None:
    """A missing key is told at the key, or the entry, that lacks it."""
    tree, _ = read_yaml("frontends:\n  - listen: a\nbalancers:\n  a:\n    b: c\n")
    assert tree is not None
    assert tree.position(("frontends", 0, "tls", "key")) == Position(2, 5)
    assert tree.position(("balancers", "a", "members")) == Position(4, 3)
    assert tree.position(("server",)) == Position(1, 1)


def test_anchors() -> None:
    """An alias is the value of its anchor; its own place counts, and the anchor's for the rest."""
    tree, faults = read_yaml("a: &x {b: 1}\nc: *x\nd: [*x]\n")
    assert tree is not None
    assert faults == []
    assert tree.value == {"a": {"b": 1}, "c": {"b": 1}, "d": [{"b": 1}]}
    assert tree.position(("c",)) == Position(2, 4)
    assert tree.position(("d", 0)) == Position(3, 5)
    assert tree.position(("c", "b")) == Position(1, 11)


def test_merge() -> None:
    """<< brings in keys that aren't given; of several blocks the first one counts."""
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*b, *a], z: 3}\nd: {<<: *a}\n"
    tree, _ = read_yaml(text)
    assert tree is not None
    assert tree.value["c"] == {"x": 1, "y": 2, "z": 3}
    assert tree.value["d"] == {"x": 1, "y": 1}
    assert tree.position(("c", "x"), on_key=True) == Position(1, 8)


def test_merge_in_quotes_is_a_key() -> None:
    """Only a plain << merges."""
    assert value("'<<': 1") == {"<<": 1}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\na: 2\n", "2:1 a found for a second time; a key stands once in a block"),
        ("a: !x 1\n", "1:4 a found the tag !x;"),
        ("a: !!int x\n", "1:4 a found the tag !!int;"),
        ("a: !!binary aGk=\n", "1:4 a found the tag !!binary;"),
        ("a: !!set {x}\n", "1:4 a found the tag !!set;"),
        ("a: !!python/name:os.system\n", "1:4 a found the tag !!python/name:os.system;"),
        ("a: !list [1]\n", "1:4 a found the tag !list;"),
        ("!x a: 1\n", "1:1  found the tag !x;"),
        ("[a]: 1\n", "1:1  found a list, a block or an alias as a key"),
        ("a: *x\n", "1:4 a found *x, but no &x before it"),
        ("a: &x [*x]\n", "1:8 a.0 found *x inside of &x"),
        ("a: {<<: 1}\n", "1:9 a.<< << takes an alias"),
        ("a: {<<: [{}, 1]}\n", "1:9 a.<< << takes an alias"),
    ],
)
def test_faults(text: str, told: str) -> None:
    """What YAML allows and a configuration doesn't is told with its place."""
    assert fault(text).startswith(told)


def test_faults_leave_the_rest() -> None:
    """All faults are told at once, and what isn't faulty is read."""
    tree, faults = read_yaml("a: 1\na: 2\nb: !x 3\nc: 4\n")
    assert tree is not None
    assert tree.value == {"a": 1, "b": None, "c": 4}
    assert len(faults) == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a:\n\t- b\n", "2:1  not YAML: found a tab"),
        ("a: b: c\n", "1:5  not YAML: found a colon where no key can be"),
        ("a: 1\nb\n", "3:1  not YAML: found a line without a colon"),
        ("a: {b: 1\n", "2:1  not YAML: found no comma and no }"),
        ("a: [b\n", "2:1  not YAML: found no comma and no ]"),
        ("a:\n  b: 1\n c: 2\n", "3:2  not YAML: found a line that begins in no column"),
        ("  a: 1\n b: 2\n", "2:2  not YAML: found a line that begins in no column"),
        ("a: 'b\n", "2:1  not YAML: found unexpected end of stream"),
        ("a: 1\nb: \x07\n", "2:4  not YAML: found the control character U+0007"),
        ("a: 1\n---\nb: 2\n", "2:1  found a second document"),
        ("[" * (MOST_LEVELS + 2), "1:52  nested deeper than 50 levels"),
        ("[" * 200, "1:52  nested deeper than 50 levels"),
        ("{" * 5000, "1:52  nested deeper than 50 levels"),
        ("? " * 5000, "1:103  nested deeper than 50 levels"),
        ("%YAML 3.0\n---\na: 1\n", "1:1  not YAML: "),
        (f"%YAML 1.{'9' * 5000}\n---\na: 1\n", "1:9  not YAML: found a number"),
        ('a: "\\U00110000"', "1:7  not YAML: found a number"),
        ('a: "\\UFFFFFFFF"', "1:7  not YAML: found a number"),
    ],
)
def test_unreadable(text: str, told: str) -> None:
    """Where there is no reading on, the place and a remedy are told."""
    assert read_yaml(text)[0] is None
    assert fault(text).startswith(told)


def test_aliases_have_a_bound() -> None:
    """A small file can't become a huge tree."""
    text = "a0: &a0 [x, x]\n"
    text += "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    assert fault(text).startswith("1:1  found more than 100000 values")


def test_merges_have_a_bound() -> None:
    """Merging a large block many times is refused before it is done."""
    block = ", ".join(f"k{n}: 1" for n in range(1000))
    text = f"a: &a {{{block}}}\nb:\n" + "  - {<<: *a}\n" * 101
    assert "found more than 100000 values" in fault(text)


def test_values_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of more values than any configuration has isn't read to its end."""
    monkeypatch.setattr(yaml_tree, "MOST_VALUES", 10)
    assert fault("a: [1, 2, 3, 4, 5, 6, 7, 8, 9, *nowhere").startswith("1:29  found more than")


@settings(max_examples=100, deadline=None)
@given(st.text("ab:-[]{}&*!<'\"|>#%?,~ \n\t1\x07", max_size=40) | st.text(max_size=20))
def test_any_text(text: str) -> None:
    """Any text is a tree, or at least one fault, or empty."""
    tree, faults = read_yaml(text)
    for found in faults:
        assert found.at >= Position(1, 1)
        assert "\n" not in found.message
    if tree is not None:
        assert tree.position(("x", 0)) >= Position(1, 1)
