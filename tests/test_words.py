"""Holds the glossary: one word for one thing, in every identifier of ``proxy/``.

Reads names, attributes, arguments, keyword arguments, functions, classes, imports and the names
of files. Comments and strings are free: a quotation may use another's words.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "proxy"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Words that only ever name a thing twice, each with the word of the glossary.
REFUSED = {
    "affinity": "sticky_session",
    "backend": "member, or balancer",
    "backup": "hot_standby",
    "cooldown": "retry_after",
    "downstream": "client",
    "node": "member",
    "payload": "body",
    "persistence": "sticky_session",
    "redispatch": "failover",
    "upstream": "member",
    "weight": "load_factor",
}

# Identifiers that a foreign API imposes, each with the API. An entry nobody uses fails as well.
FOREIGN: dict[str, str] = {"RequestPayloadError": "aiohttp: a request whose body breaks off"}

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def words(identifier: str) -> set[str]:
    """The words of an identifier, lower case and in the singular."""
    return {word.lower().removesuffix("s") for word in _WORD.findall(identifier)}


def refused(identifier: str) -> set[str]:
    """The words of an identifier that the glossary refuses."""
    return {word for word in REFUSED if word.removesuffix("s") in words(identifier)}


def identifiers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every identifier in a syntax tree, with its line.

    Syntax nodes hold them as plain strings in fields of many names (``id``, ``attr``, ``arg``,
    ``name``, ``names``, ...); a constant's value and a type comment are the only other strings.
    """
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        for field, value in ast.iter_fields(node):
            if field in ("value", "kind", "type_comment"):
                continue
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, str):
                    yield item, line


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_identifiers_use_the_glossary(path: Path) -> None:
    """No identifier has a word that the glossary has another one for."""
    place = path.relative_to(PACKAGE).as_posix()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [
        f"{place}:{line} {identifier}: say {REFUSED[word]}, not {word}"
        for identifier, line in [*identifiers(tree), (path.stem, 0)]
        if identifier not in FOREIGN
        for word in refused(identifier)
    ]
    assert not found


def test_foreign_names_are_in_use() -> None:
    """An exception for a foreign API has a reason, and goes with its last use."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in MODULES]
    used = {identifier for tree in trees for identifier, _ in identifiers(tree)}
    assert set(FOREIGN) <= used
    assert all(FOREIGN.values())


@pytest.mark.parametrize(
    "identifier",
    ["node", "nodes", "BackendPool", "to_upstream", "HTTPPayload", "_weight2", "max_backups"],
)
def test_refuses_in_every_spelling(identifier: str) -> None:
    """A refused word is found in snake case, in camel case and in the plural."""
    assert refused(identifier)


@pytest.mark.parametrize("identifier", ["anode", "weighted_mean", "nodelay", "member_url", "SSL"])
def test_takes_other_words(identifier: str) -> None:
    """A word that only contains a refused one is another word."""
    assert not refused(identifier)


def test_reads_every_kind_of_identifier() -> None:
    """Definitions, arguments, attributes, keywords, imports, patterns and globals are read."""
    source = (
        "import a1.b1 as c1\nfrom d1 import e1\nclass F1(g1, h1=i1):\n  j1: k1\n"
        "def l1(m1, *n1, o1=p1, **q1):\n  global r1\n  try: s1.t1(u1=v1)\n  except W1 as x1: pass\n"
        "  match y1:\n    case Z1(a2=b2): pass\n    case [*c2]: pass\n    case {**d2}: pass\n"
    )
    read = {identifier for identifier, _ in identifiers(ast.parse(source))}
    named = set(re.findall(r"\w\d", source)) | {"a1.b1"}
    assert named - {"a1", "b1"} <= read
