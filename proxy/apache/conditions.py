"""Whether a conditional section is taken: IfDefine, IfModule, IfVersion, IfFile and their like.

A condition is decided where it is read, with what is defined and loaded so far (D8).
"""

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from proxy.apache.known import BARE_SECTIONS, DIRECTIVES, SECTIONS
from proxy.apache.lines import first_word, words

_VERSION = re.compile(r"([0-9]+)(?:\.([0-9]*)(?:\.([0-9]*))?)?")


class ConditionError(ValueError):
    """The condition can't be decided; says what to do."""


class Facts(NamedTuple):
    """What conditions ask for."""

    is_defined: Callable[[str], bool]
    # both names of each
    modules: Collection[str]
    version: tuple[int, int, int]
    server_root: Path


def is_condition(key: str) -> bool:
    """Whether a section, by its name in lower case, is one of these."""
    return key in _CONDITIONS or key == "ifversion"


def holds(key: str, text: str, facts: Facts) -> bool:
    """Whether the section is taken; ``text`` is what stands behind its name.

    Raises ConditionError.
    """
    if key == "ifversion":
        return _of_version(text, facts.version)
    inside, closed, _ = text.rpartition(">")
    if not closed:
        raise ConditionError("has no closing >: write it at the end of the line")
    negated = inside.startswith("!")
    name, _ = first_word(inside[negated:])
    if not name:
        raise ConditionError("names nothing: write what it asks for behind the name")
    return _CONDITIONS[key](name, facts) != negated


def reason(key: str, text: str) -> str:
    """Why a section wasn't taken, and what to do if it should be."""
    said = text.rpartition(">")[0] or text
    negated = said.startswith("!")
    name, _ = first_word(said[negated:])
    if key == "ifdefine":
        if negated:
            return f"not read, since {name} is defined"
        return f"not read, since {name} isn't defined; -D {name} would read it"
    if key == "ifmodule":
        if negated:
            return f"not read, since {name} counts as loaded"
        if not name.endswith((".c", "_module")):
            return f"not read: {name} names no module, say mod_x.c or x_module"
        return f"not read, since {name} isn't loaded"
    return f"not read, since it isn't so: {said}"


def _of_define(name: str, facts: Facts) -> bool:
    return facts.is_defined(name)


def _of_module(name: str, facts: Facts) -> bool:
    return name in facts.modules


def _of_file(name: str, facts: Facts) -> bool:
    try:
        return (facts.server_root / name).exists()
    except (OSError, ValueError):
        return False


def _of_directive(name: str, facts: Facts) -> bool:
    key = name.lower()
    return key in DIRECTIVES or (key.startswith("<") and _of_section(key[1:], facts))


def _of_section(name: str, _: Facts) -> bool:
    return name.lower() in SECTIONS | BARE_SECTIONS


_CONDITIONS = {
    "ifdefine": _of_define,
    "ifmodule": _of_module,
    "iffile": _of_file,
    "ifdirective": _of_directive,
    "ifsection": _of_section,
}


# --- IfVersion ----------------------------------------------------------------------------------


def _of_version(text: str, version: tuple[int, int, int]) -> bool:
    operator, wanted = _comparison(words(text))
    negated = operator.startswith("!") and operator != "!"
    kind = operator[negated:]
    if kind == "~":
        return _matches(wanted, version) != negated
    if kind in ("=", "==") and wanted.startswith("/"):
        if len(wanted) < 2 or not wanted.endswith("/"):
            raise ConditionError("has no / behind the pattern: write /PATTERN/")
        return _matches(wanted[1:-1], version) != negated
    if kind not in _COMPARED:
        raise ConditionError(
            f"doesn't know {operator[:40]!r}: write one of = > >= < <= ~, or ! before"
        )
    return _COMPARED[kind](version, _numbers(wanted)) != negated


def _comparison(found: tuple[str, ...]) -> tuple[str, str]:
    """The operator and what stands behind it, without the closing ``>``."""
    if len(found) > 3:
        raise ConditionError("takes an operator and one version")
    if len(found) in (2, 3) and found[-1] == ">":
        found = found[:-1]
    elif found and found[-1].endswith(">") and len(found) < 3:
        found = (*found[:-1], found[-1][:-1])
    else:
        raise ConditionError("has no closing >: write it right behind the version")
    # A version alone is compared for equality.
    return (found[0], found[1]) if len(found) == 2 else ("=", found[0])


def _numbers(wanted: str) -> tuple[int, int, int]:
    found = _VERSION.fullmatch(wanted)
    # No version has more digits, and Python bounds how many it reads.
    if not found or len(wanted) > 100:
        said = f"{wanted[:40]!r} isn't a version: write MAJOR.MINOR.PATCH, with a blank before it"
        raise ConditionError(said)
    major, minor, patch = (int(part or 0) for part in found.groups())
    return major, minor, patch


def _matches(pattern: str, version: tuple[int, int, int]) -> bool:
    try:
        return re.search(pattern, ".".join(map(str, version))) is not None
    except (re.error, OverflowError, RecursionError) as error:
        raise ConditionError(f"has no regular expression: {error}") from error


_COMPARED: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    "=": lambda ours, wanted: ours == wanted,
    "==": lambda ours, wanted: ours == wanted,
    ">": lambda ours, wanted: ours > wanted,
    ">=": lambda ours, wanted: ours >= wanted,
    "<": lambda ours, wanted: ours < wanted,
    "<=": lambda ours, wanted: ours <= wanted,
}
