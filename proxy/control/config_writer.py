"""Settings and raw trees to the text of a configuration file that a person would like to keep.

The reverse of ``yaml_tree`` and ``core.reading``: whatever is written is read back as the same
tree, by our reader and by others, and no comment can change that. ``write`` doesn't judge its tree;
``tree_of`` takes checked settings. Nothing here opens a file, and secrets are written out: who
keeps the text keeps them.
"""

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from typing import Any, NamedTuple, get_args, get_origin

from proxy.core.reading import with_compat_defaults
from proxy.core.settings import Balancer, Frontend, Model, Settings
from proxy.core.values import (
    DURATION_UNITS,
    LoadFactor,
    Size,
    Statuses,
    duration_text,
    parse_duration,
    size_text,
)
from proxy.core.written import is_of, is_secret, kinds

Place = tuple[str | int, ...]

COLUMNS = 100
"""What lines are kept in, but for a single value or word that is longer."""
# A few less than where PyYAML gives up looking for a key's colon.
_LONGEST_KEY = 1000
# Blocks that stand below one another however short they are.
_NEVER_FLOW = (Settings, Frontend, Balancer)


def write(
    settings_tree: Mapping[str, Any],
    comments: Mapping[Place, Sequence[str]] = {},
    head: Sequence[str] = (),
) -> str:
    """The text of a configuration file with this raw tree, keys in the order of the models.

    ``comments`` are texts without their ``#`` by the path of the entry that they are about; one
    whose entry isn't there stands at the nearest one above it. ``head`` comes before everything
    else, one paragraph or line a text. Raises ValueError for a number that no file can hold, and
    TypeError for what is no tree.
    """
    writer = _Writer(settings_tree, comments)
    lines = [line for text in head for line in _comment(text, "", hanging="")]
    if lines:
        lines.append("")
    return "\n".join([*lines, *writer.lines()]) + "\n"


# --- trees to lines ----------------------------------------------------------------------------


class _Part(NamedTuple):
    """A part of the tree: its value, the type that its setting is declared with, its path."""

    value: Any
    kind: Any
    path: Place

    def below(self, key: str | int) -> "_Part":
        """An entry of a list, or what a key of a block has."""
        kind = self.kind
        if isinstance(key, str):
            block = _block_kind(kind)
            kind = get_args(block)[1] if get_origin(block) is dict else _kinds(block).get(key)
        return _Part(self.value[key], kind, (*self.path, key))


class _Writer:
    """Writes one tree; all it keeps is what is to be said where."""

    def __init__(self, tree: Mapping[str, Any], comments: Mapping[Place, Sequence[str]]) -> None:
        self._root = _Part(tree, Settings, ())
        self._comments: dict[Place, list[str]] = {}
        for path, texts in comments.items():
            told = [text for text in texts if text.strip()]
            if told:
                self._comments.setdefault(_nearest(tree, path), []).extend(told)
        # Comments inside of these need lines of their own to stand at.
        self._opened = {path[:end] for path in self._comments for end in range(len(path))}

    def lines(self) -> list[str]:
        """The whole tree."""
        lines = self._block(self._root, 0) if self._root.value else ["{}"]
        told = [*self._told((), "")]
        # The blank line tells a comment on all of it from one on its first entry.
        return [*told, "", *lines] if told else lines

    def _block(self, part: _Part, indent: int) -> list[str]:
        """The lines of a block or a list that isn't empty, one entry below the other."""
        lines: list[str] = []
        for key in _ordered(part):
            header = "-" if isinstance(key, int) else f"{_key(key, part.kind)}:"
            if len(header) > _LONGEST_KEY:
                lines.append(f"{' ' * indent}? {header[:-1]}")
                header = ":"
            lines += self._entry(header, part.below(key), indent)
        return lines

    def _entry(self, header: str, part: _Part, indent: int) -> list[str]:
        """The lines of a key or a dash with its value, and of what is said about it."""
        margin = " " * indent
        if self._may_flow(part):
            line = f"{margin}{header} {_flow(part, outside=True)}"
            if len(line) <= COLUMNS or not _holds(part.value):
                return self._commented(line, part.path, margin)
        below = self._block(part, indent + 2)
        lines = _dashed(below, indent) if header == "-" else [f"{margin}{header}", *below]
        return [*self._told(part.path, margin), *lines]

    def _may_flow(self, part: _Part) -> bool:
        if not _holds(part.value):
            return True
        if part.path in self._opened or _block_kind(part.kind) in _NEVER_FLOW:
            return False
        return _is_small(part.value)

    def _commented(self, line: str, path: Place, margin: str) -> list[str]:
        """A line with its comment behind it if that is short, and above it otherwise."""
        told = [*self._told(path, margin)]
        if len(told) == 1:
            behind = f"{line}  {told[0].strip()}"
            if len(behind) <= COLUMNS:
                return [behind]
        return [*told, line]

    def _told(self, path: Place, margin: str) -> Iterator[str]:
        for text in self._comments.get(path, ()):
            yield from _comment(text, margin, hanging="  ")


def _nearest(tree: Any, path: Place) -> Place:
    """The path of an entry, or of the nearest one above it that is there."""
    for end, step in enumerate(path):
        if isinstance(tree, Mapping):
            there = step in tree
        else:
            there = _is_list(tree) and isinstance(step, int) and 0 <= step < len(tree)
        if not there:
            return path[:end]
        tree = tree[step]
    return path


def _ordered(part: _Part) -> Iterable[Any]:
    """The keys of a block in the order of its model, unknown ones last; the indexes of a list."""
    if _is_list(part.value):
        return range(len(part.value))
    if not all(isinstance(name, str) for name in part.value):
        raise TypeError("found a key that is no text; a configuration file has no such key")
    block = _block_kind(part.kind)
    # A block of names keeps its order, which is the operator's.
    order = list(_kinds(block))
    return sorted(part.value, key=lambda name: order.index(name) if name in order else len(order))


def _dashed(lines: list[str], indent: int) -> list[str]:
    """A block as an entry of a list: a dash before its first key, and comments on that above."""
    first = next(index for index, line in enumerate(lines) if not line.lstrip().startswith("#"))
    above = [line[2:] for line in lines[:first]]
    return [*above, f"{' ' * indent}- {lines[first][indent + 2 :]}", *lines[first + 1 :]]


def _block_kind(kind: Any) -> Any:
    """The model, or the ``dict[name, kind]``, that a type of a setting holds; None for others."""
    if (isinstance(kind, type) and issubclass(kind, Model)) or get_origin(kind) is dict:
        return kind
    return next(filter(None, map(_block_kind, get_args(kind))), None)


def _kinds(block: Any) -> dict[str, Any]:
    """The kinds of a model's settings, in its order; none of anything else."""
    return kinds(block) if isinstance(block, type) else {}


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _holds(value: Any) -> bool:
    """Whether this is a block or a list that isn't empty."""
    return (isinstance(value, Mapping) or _is_list(value)) and len(value) > 0


def _is_small(value: Any, levels: int = 2) -> bool:
    """Whether a value can stand in one line: no list of blocks, and not deep."""
    if isinstance(value, Mapping):
        return levels > 0 and all(_is_small(inside, levels - 1) for inside in value.values())
    return not _is_list(value) or not any(_holds(entry) for entry in value)


def _flow(part: _Part, *, outside: bool = False) -> str:
    """A value in one line; ``outside`` of braces and brackets more texts can do without quotes."""
    if isinstance(part.value, Mapping):
        below = [(_key(key, part.kind, flow=True), part.below(key)) for key in _ordered(part)]
        return f"{{{', '.join(f'{key}: {_flow(inside)}' for key, inside in below)}}}"
    if _is_list(part.value):
        return f"[{', '.join(_flow(part.below(key)) for key in _ordered(part))}]"
    return _scalar(part.value, flow=not outside)


# --- comments ----------------------------------------------------------------------------------


def _comment(text: str, margin: str, *, hanging: str) -> Iterator[str]:
    """The lines of a comment; a word longer than a line stays whole, so that it can be found."""
    for line in text.splitlines() or [""]:
        shown = "".join(_visible(character) for character in line.expandtabs(1))
        yield from textwrap.wrap(
            shown,
            # Far inside a column of single words would be no help.
            width=max(COLUMNS, len(margin) + 40),
            initial_indent=f"{margin}# ",
            subsequent_indent=f"{margin}# {hanging}",
            break_long_words=False,
            break_on_hyphens=False,
        ) or [f"{margin}#"]


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode()


# --- scalars -----------------------------------------------------------------------------------

# How a text may begin without quotes: a letter, a digit, /file, _name, -option, .domain, ./file.
_BEGINS = r"(?:[^\W\d]|[0-9/]|--?[A-Za-z]|\.\.?/|\.[A-Za-z])"
# A colon before a blank ends a key, # after one begins a comment; commas, brackets and, for some
# readers, any colon and any question mark mean something inside of braces.
_PLAIN = re.compile(rf"{_BEGINS}(?:[^\s:#]|:(?=\S)|(?<=\S)#| (?=[^\s#:]))*")
_PLAIN_IN_FLOW = re.compile(rf"{_BEGINS}(?:[^\s:#,?\[\]{{}}]| (?=[^\s#:,?\[\]{{}}]))*")
# Read as something else than text, here or by another reader of YAML 1.1 or 1.2.
_NO_TEXT = re.compile(
    r"null|true|false|yes|no|on|off|y|n|\.inf|\.nan"
    r"|[0-9][0-9_]*(?:\.[0-9_]*)?(?:e[-+]?[0-9]+)?"
    r"|0[xob][0-9a-f_]+"
    r"|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}.*",
    re.IGNORECASE,
)
# What our reader takes for a number.
_NUMBER = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t"}


def _key(name: str, kind: Any, *, flow: bool = False) -> str:
    """A key; a setting's never needs quotes, also ``on`` doesn't, since keys are always text."""
    return name if name in _kinds(_block_kind(kind)) else _text(name, flow=flow)


def _scalar(value: Any, *, flow: bool) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return _number(value)
        case str():
            return _text(value, flow=flow)
    raise TypeError(f"found a {type(value).__name__}; a configuration file has no such value")


def _number(value: float) -> str:
    if isinstance(value, int):
        text = str(value)
    else:
        text = f"{Decimal(repr(value)):f}"
        text = text if "." in text else f"{text}.0"
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"found the number {value}; a configuration file can't hold it")
    return text


def _text(text: str, *, flow: bool) -> str:
    """A text without quotes where it can be, in single ones where that saves escapes."""
    plain = (_PLAIN_IN_FLOW if flow else _PLAIN).fullmatch(text)
    if text.isprintable() and plain and not _NO_TEXT.fullmatch(text):
        return text
    if text.isprintable() and "'" not in text and ("\\" in text or '"' in text):
        return f"'{text}'"
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    """A character of a text in double quotes. Nothing that can't be seen is left as it is."""
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


# --- settings to trees -------------------------------------------------------------------------

# What the defaults of other settings depend on.
_DECIDING = ("compat", "own_route")


def tree_of(settings: Settings) -> dict[str, Any]:
    """The smallest raw tree that means these settings: every default is left out.

    Durations and sizes have their shortest spelling; secrets are in it.
    """
    # What the settings would be if nothing were given that can be left out: all defaults, with
    # those that differ under compat, each in its place.
    bare = Settings.model_validate(with_compat_defaults(_tree(settings, None)))
    return _tree(settings, bare)


def _tree(block: Model, bare: Model | None) -> dict[str, Any]:
    """The keys of a block that can't be left out, and those whose values aren't those of bare."""
    tree: dict[str, Any] = {}
    for name, kind in kinds(type(block)).items():
        value, field = getattr(block, name), type(block).model_fields[name]
        left_out = value if bare is None else getattr(bare, name)
        if field.is_required() or value != left_out or _decides(name, value, field.default):
            tree[name] = _raw(value, kind, None if bare is None else left_out)
    return tree


def _decides(name: str, value: Any, default: Any) -> bool:
    """Whether a value makes blocks, and by that defaults, or says which defaults there are."""
    if value == default:
        return False
    is_shape = isinstance(value, Model | tuple) and not isinstance(default, Model)
    return is_shape or name in _DECIDING


def _raw(value: Any, kind: Any, bare: Any) -> Any:
    """A value as a file has it; blocks in it without what ``bare`` has, its counterpart."""
    match value:
        case Model():
            return _tree(value, bare)
        case dict():
            return {key: _raw(inside, kind, (bare or {}).get(key)) for key, inside in value.items()}
        case (secret,) if is_secret(kind):
            return secret
        case tuple():
            below = bare or [None] * len(value)
            return [_raw(entry, kind, inside) for entry, inside in zip(value, below, strict=True)]
    return _raw_scalar(value, kind)


def _raw_scalar(value: Any, kind: Any) -> Any:
    match value:
        case Enum():
            return value.value
        case IPv4Network() | IPv6Network():
            return str(value.network_address if value.num_addresses == 1 else value)
        case float() if is_of(kind, LoadFactor):
            return int(value) if value.is_integer() else value
        case float():
            return _duration(value)
        case int() if not isinstance(value, bool) and is_of(kind, Size):
            return _number_or_text(size_text(value))
        case str() if is_of(kind, Statuses):
            return _number_or_text(value)
    return value


def _number_or_text(text: str) -> int | str:
    """Without quotes in the file either way."""
    return int(text) if text.isdecimal() else text


def _duration(seconds: float) -> int | str:
    """The spelling of ``duration_text``; of a duration finer than that, the shortest."""
    if not seconds:
        return 0
    text = duration_text(seconds)
    if _is_duration(text, seconds):
        return text
    finer = (
        f"{seconds / factor:.9f}".rstrip("0").rstrip(".") + unit
        for unit, factor in DURATION_UNITS.items()
    )
    return min((each for each in finer if _is_duration(each, seconds)), key=len, default=text)


def _is_duration(text: str, seconds: float) -> bool:
    try:
        return parse_duration(text) == seconds
    except ValueError:
        return False
