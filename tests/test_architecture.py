"""Holds the shape of the package: who may import whom, docstrings, and the bounds of a module.

The table is the one of the style guide, «Who may import whom». Arrows point down only: what a
folder may import of ours, and what of the outside. A new dependency is a new line here, with a
reason, and a decision.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "proxy"
MODULES = sorted(PACKAGE.rglob("*.py"))

# --- who may import whom ------------------------------------------------------------------------

# Parts of the standard library that compute, and neither wait nor look at the machine. What a
# decision needs of those that do (time, random, os, ...) comes in as an argument.
PURE = frozenset(
    "abc base64 binascii bisect collections contextlib dataclasses difflib email.utils enum"
    " functools hashlib heapq hmac http ipaddress itertools math operator re string struct types"
    " typing urllib.parse".split()
)
# What also holds clients and servers, or clocks: only these names of it.
ONLY_FROM = {
    "http": {"HTTPStatus"},
    "email": {"formatdate", "mktime_tz", "parsedate_tz"},
}
# select: whether bytes wait on an idle connection, asked without waiting (H60).
TRAFFIC = PURE | {"asyncio", "errno", "logging", "select", "socket", "ssl", "time"}
STANDARD = frozenset(sys.stdlib_module_names)


class Rule(NamedTuple):
    """What a folder (or a module beside the folders) may import."""

    ours: frozenset[str]
    """Folders, or single modules with a dot, of ``proxy``."""
    outside: frozenset[str]
    """Top-level modules, or dotted ones, of the standard library and of dependencies."""


def rule(ours: str, outside: frozenset[str]) -> Rule:
    """A rule whose folders are written in one string."""
    return Rule(frozenset(ours.split()), outside)


TABLE = {
    "core": rule("core", PURE),
    "dataplane": rule("core dataplane", TRAFFIC),
    "control": rule("core dataplane control", STANDARD | {"uvloop", "yaml"}),
    "admin": rule("core control admin", STANDARD | {"aiohttp"}),
    "apache": rule("core.settings core.errors apache", PURE | {"pathlib"}),
    "lab": rule("lab", STANDARD | {"aiohttp", "trustme", "uvloop"}),
    "cli": rule("cli core dataplane control admin apache lab", STANDARD),
    "__init__": rule("", frozenset()),
    "__main__": rule("cli", frozenset()),
}
# Dependencies that one module alone may import, since they do no I/O.
MODULE_MAY = {
    "core/fields.py": {"httptools"},
    "core/settings.py": {"pydantic"},
    "core/reading.py": {"pydantic"},  # its errors become our mistakes
    "core/values.py": {"pydantic"},  # the types of the settings
}

# --- bounds -------------------------------------------------------------------------------------

MODULE_LINES = 400
FUNCTION_LINES = 60
NESTING = 3
PARAMETERS = 6

# What crosses a bound, and why it reads better so: "core/x.py" for a module's lines,
# "core/x.py Class.method" for a function's lines, nesting or parameters. An entry that crosses
# nothing fails as well.
CROSSINGS: dict[str, str] = {
    "core/settings.py": "every setting is on one page, each with its sentence",
    "dataplane/frontend_connection.py": "a client's connection in asyncio's order, from its first"
    " byte to its last deadline",
    "dataplane/exchange.py": "an exchange's whole life, from its head to its line in the log,"
    " is read from top to bottom in one place",
}


class Import(NamedTuple):
    """One imported module, and the name taken from it if it is a ``from`` import."""

    module: str
    name: str | None
    line: int
    in_function: bool


def place(path: Path) -> str:
    """A module's path below ``proxy/``, the way the tables above spell it."""
    return path.relative_to(PACKAGE).as_posix()


def folder(path: Path) -> str:
    """The key of ``TABLE`` for a module: its folder, or its own name beside the folders."""
    return Path(place(path)).parts[0].removesuffix(".py")


def parse(path: Path) -> ast.Module:
    """A module's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """All functions with their dotted names, methods and inner functions included."""
    for node in ast.iter_child_nodes(tree):
        inner = prefix
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{prefix}{node.name}."
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            # Both kinds have the same fields.
            yield inner[:-1], node  # type: ignore[misc]
        yield from functions(node, inner)


def imports(path: Path) -> Iterator[Import]:
    """Every import of a module, those inside functions and under TYPE_CHECKING included."""
    tree = parse(path)
    inside = {id(node) for _, function in functions(tree) for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, None, node.lineno, id(node) in inside)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                yield Import(module, alias.name, node.lineno, id(node) in inside)


def allowed(found: Import, path: Path) -> bool:
    """Whether the table lets this module import that."""
    mine = TABLE.get(folder(path))
    if mine is None or found.module.startswith("."):
        return False
    top = found.module.partition(".")[0]
    if top == "proxy":
        return allowed_of_ours(found, mine)
    if top in MODULE_MAY.get(place(path), ()):
        return True
    if mine.outside >= STANDARD and top in STANDARD:
        return True
    if top in ONLY_FROM and found.name not in ONLY_FROM[top]:
        return False
    return top in mine.outside or found.module in mine.outside


def allowed_of_ours(found: Import, mine: Rule) -> bool:
    """Whether ``proxy.a.b`` or a part of it is in the rule's first column."""
    # `from proxy.core import sticky` names the module proxy.core.sticky.
    parts = [*found.module.split(".")[1:], found.name or ""]
    if parts == ["__version__"]:
        return True
    return parts[0] in mine.ours or ".".join(parts[:2]) in mine.ours


def nesting(function: ast.AST) -> int:
    """How deep blocks stand in blocks; ``elif`` stands beside its ``if``, not in it."""
    blocks = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)
    scopes = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)

    def depth(node: ast.AST, chained: bool) -> int:
        children = [child for child in ast.iter_child_nodes(node) if not isinstance(child, scopes)]
        chain = node.orelse if isinstance(node, ast.If) and len(node.orelse) == 1 else []
        below = max((depth(child, child in chain) for child in children), default=0)
        is_block = isinstance(node, (*blocks, ast.TryStar))
        return below + (is_block and not (chained and isinstance(node, ast.If)))

    return depth(function, chained=False)


def parameters(function: ast.FunctionDef) -> int:
    """Number of parameters, ``self`` and the starred ones included."""
    spec = function.args
    starred = [argument for argument in (spec.vararg, spec.kwarg) if argument]
    return len(spec.posonlyargs + spec.args + spec.kwonlyargs + starred)


def crossings(path: Path) -> Iterator[tuple[str, str]]:
    """What in a module crosses a bound: its key in ``CROSSINGS``, and by how much."""
    lines = len(path.read_text(encoding="utf-8").splitlines())
    if lines > MODULE_LINES:
        yield place(path), f"{lines} lines, at most {MODULE_LINES}"
    for name, function in functions(parse(path)):
        key = f"{place(path)} {name}"
        lines = (function.end_lineno or 0) - function.lineno + 1
        for value, bound, what in (
            (lines, FUNCTION_LINES, "lines"),
            (nesting(function), NESTING, "levels of nesting"),
            (parameters(function), PARAMETERS, "parameters"),
        ):
            if value > bound:
                yield key, f"{value} {what}, at most {bound}"


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_imports_point_down(path: Path) -> None:
    """A module imports only what the table gives to its folder."""
    refused = [
        f"{place(path)}:{found.line} imports {found.module}"
        + (f" ({found.name})" if found.name else "")
        for found in imports(path)
        if not allowed(found, path)
    ]
    assert not refused


def test_command_line_imports_planes_inside_functions() -> None:
    """Each command of ``cli`` imports what it needs itself, so that help needs nothing."""
    early = [
        f"{place(path)}:{found.line} imports {found.module}"
        for path in MODULES
        if folder(path) == "cli"
        for found in imports(path)
        if found.module.startswith("proxy.") and not found.in_function
        if not found.module.startswith("proxy.cli")
    ]
    assert not early


def test_every_folder_has_a_rule() -> None:
    """A folder or module directly in ``proxy/`` stands in the table."""
    assert {folder(path) for path in MODULES} <= set(TABLE)


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_module_opens_with_docstring(path: Path) -> None:
    """A module says first what it is."""
    assert ast.get_docstring(parse(path)), f"{place(path)} has no docstring"


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_bounds(path: Path) -> None:
    """A module and its functions keep the bounds, but for what is listed with its reason."""
    crossed = [f"{key}: {text}" for key, text in crossings(path) if key not in CROSSINGS]
    assert not crossed


def test_listed_crossings_are_in_use() -> None:
    """An entry of CROSSINGS has a reason, and goes when nothing crosses a bound there any more."""
    crossed = {key for path in MODULES for key, _ in crossings(path)}
    assert set(CROSSINGS) <= crossed
    assert all(CROSSINGS.values())


# --- the measures themselves --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "depth"),
    [
        ("pass", 0),
        ("if a:\n  pass\nelif b:\n  pass\nelif c:\n  pass\nelse:\n  pass", 1),
        ("if a:\n  pass\nelse:\n  if b:\n    pass\n  c()", 2),
        ("for a in b:\n  try:\n    c()\n  except D:\n    if e:\n      with f:\n        pass", 4),
        ("if a:\n  def inner():\n    if b:\n      pass", 1),
    ],
)
def test_nesting_counts_blocks(body: str, depth: int) -> None:
    """Blocks in blocks count, ``elif`` and inner functions don't."""
    assert nesting(ast.parse(body)) == depth


@pytest.mark.parametrize(
    ("where", "module", "name", "fine"),
    [
        ("core/sticky.py", "proxy.core.http1", "RequestHead", True),
        ("core/sticky.py", "proxy.core", "http1", True),
        ("core/sticky.py", "asyncio", None, False),
        ("core/sticky.py", "collections.abc", "Iterable", True),
        ("core/sticky.py", "urllib.parse", "urlsplit", True),
        ("core/sticky.py", "urllib.request", "urlopen", False),
        ("core/sticky.py", "http", "HTTPStatus", True),
        ("core/sticky.py", "http.client", "HTTPConnection", False),
        ("core/sticky.py", "email.utils", "formatdate", True),
        ("core/sticky.py", "email.utils", "localtime", False),
        ("core/sticky.py", "httptools", None, False),
        ("core/fields.py", "httptools", None, True),
        ("dataplane/pool.py", "proxy.control.worker", "Worker", False),
        ("dataplane/pool.py", "proxy", "control", False),
        ("dataplane/pool.py", "aiohttp", "web", False),
        ("apache/importer.py", "proxy.core.settings", "Settings", True),
        ("apache/importer.py", "proxy.core", "settings", True),
        ("apache/importer.py", "proxy.core.balancer", "Balancer", False),
        ("lab/demo.py", "proxy.core.settings", "Settings", False),
        ("lab/demo.py", "proxy.lab.demo_server", "DemoMember", True),
        ("lab/demo.py", ".demo_server", "DemoMember", False),
        ("cli/configuration.py", "proxy", "__version__", True),
        ("__main__.py", "proxy.cli", "main", True),
    ],
)
def test_table_is_read_as_meant(where: str, module: str, name: str | None, fine: bool) -> None:
    """The check itself tells what the table allows from what it doesn't."""
    found = Import(module, name, line=1, in_function=False)
    assert allowed(found, PACKAGE / where) is fine
