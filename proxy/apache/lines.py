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

_BARE = re.compile(rf"[^{BLANKS}]+")
_QUOTED = {
    quote: re.compile(rf"{quote}((?:\\[\\{quote}]|[^{quote}])*+)({quote}?)") for quote in "\"'"
}
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
    whole, first, cut = "", 0, False
    pieces = text.split("\n")
    for number, piece in enumerate(pieces, 1):
        first = first or number
        # Apache's lines end at a NUL like its strings do; what follows is lost, a backslash too.
        shown, nul, _ = piece.partition("\0")
        cut = cut or bool(nul)
        whole += shown
        if not nul and number < len(pieces):
            joined = whole.removesuffix("\r")
            if joined.endswith("\\"):
                whole = joined[:-1]
                continue
        said = whole.strip(BLANKS)
        if said and not said.startswith("#"):
            yield Line(first, said, cut)
        whole, first, cut = "", 0, False
    # The last line ended in a backslash, and nothing came.
    if (said := whole.strip(BLANKS)) and not said.startswith("#"):
        yield Line(first, said, cut)


def first_word(text: str) -> tuple[str, str]:
    """The first word without its quotes, and the text behind it; empty at the end."""
    text = text.lstrip(BLANKS)
    if not text:
        return "", ""
    quote = text[0]
    if quoted := quote in _QUOTED and _QUOTED[quote].match(text):
        word = _ESCAPED[quote].sub(r"\1", quoted[1])
        return word, text[quoted.end() :].lstrip(BLANKS)
    bare = _BARE.match(text)
    end = bare.end() if bare else 0
    return text[:end].replace("\\\\", "\\"), text[end:].lstrip(BLANKS)


def words(text: str) -> tuple[str, ...]:
    """All words without their quotes."""
    found = []
    while text := text.lstrip(BLANKS):
        word, text = first_word(text)
        found.append(word)
    return tuple(found)


def open_quote(text: str) -> bool:
    """Whether a word's quote isn't closed."""
    while text := text.lstrip(BLANKS):
        quoted = text[0] in _QUOTED and _QUOTED[text[0]].match(text)
        if quoted and not quoted[2]:
            return True
        _, text = first_word(text)
    return False


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
