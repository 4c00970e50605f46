"""Text to lines and words, as Apache cuts it (D1); no meaning, and nothing is raised.

A backslash at a line's end continues it, in comments as well. Words end at blanks or stand in
quotes; a quote that isn't closed ends with the line.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

# What Apache's isspace() takes, and no other blank of Unicode.
BLANKS = " \t\n\v\f\r"
# Characters of a line, continued ones together.
LONGEST = 16 * 1024 * 1024

# In double quotes, in single ones, bare; and whether the quote is closed.
_WORD = re.compile(rf"""\"((?:\\[\\\"]|[^\"])*+)(\"?)|'((?:\\[\\']|[^'])*+)('?)|([^{BLANKS}]+)""")
_ESCAPED = {quote: re.compile(rf"\\([\\{quote}])") for quote in "\"'"}
_VARIABLE = re.compile(r"\$\{([^}]*)\}")


class Line(NamedTuple):
    """A line with those that continue it, without blanks around; never empty, and no comment."""

    # the first of them, from 1
    number: int
    text: str
    # a NUL byte ended it
    cut: bool


def logical_lines(text: str) -> Iterator[Line]:
    """All lines that say something."""
    parts: list[str] = []
    first, cut = 0, False
    pieces = text.split("\n")
    for number, piece in enumerate(pieces, 1):
        first = first or number
        # Apache's lines end at a NUL like its strings do; what follows is lost, a backslash too.
        shown, nul, _ = piece.partition("\0")
        cut = cut or bool(nul)
        ended = shown.removesuffix("\r") if number < len(pieces) and not nul else shown
        # An empty line behind two backslashes continues as well: it is the text so far that counts.
        if not ended and parts:
            ended = parts.pop()
        parts.append(ended)
        if number < len(pieces) and not nul and ended.endswith("\\"):
            parts[-1] = ended[:-1]
            if not parts[-1]:
                parts.pop()
            continue
        said = "".join(parts).strip(BLANKS)
        if said and not said.startswith("#"):
            yield Line(first, said, cut)
        parts, first, cut = [], 0, False


def first_word(text: str) -> tuple[str, str]:
    """The first word without its quotes, and the text behind it; empty at the end."""
    found = _WORD.search(text)
    return (_said(found), text[found.end() :].lstrip(BLANKS)) if found else ("", "")


def words(text: str) -> tuple[str, ...]:
    """All words without their quotes."""
    return tuple(map(_said, _WORD.finditer(text)))


def open_quote(text: str) -> bool:
    """Whether a word's quote isn't closed."""
    return any("" in found.group(2, 4) for found in _WORD.finditer(text))


def _said(found: re.Match[str]) -> str:
    double, _, single, _, bare = found.groups()
    if double is not None:
        return _ESCAPED['"'].sub(r"\1", double)
    if single is not None:
        return _ESCAPED["'"].sub(r"\1", single)
    return bare.replace("\\\\", "\\")


def quoted_word(word: str) -> str:
    """A word the way it has to be written; words have no line ends, no NUL and no variable."""
    if word and not set(word) & {*BLANKS, *"\"'\\#<>"}:
        return word
    return '"' + re.sub(r"([\\\"])", r"\\\1", word) + '"'


def replaced(text: str, lookup: Callable[[str], str | None]) -> tuple[str, list[str]]:
    """A line with each ``${NAME}`` replaced before it is cut into words; names without a value.

    Those stay as they are written. Names with a colon belong to rewrite maps, and aren't missed.
    """
    missing: list[str] = []

    def value(found: re.Match[str]) -> str:
        known = lookup(found[1])
        if known is None and ":" not in found[1]:
            missing.append(found[1])
        return found[0] if known is None else known

    return _VARIABLE.sub(value, text), missing
