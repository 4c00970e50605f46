"""YAML text to a raw tree in which every key and value knows its line and column.

PyYAML reads the text into events; what comes after is ours, since its own constructors forget
positions, let a later key replace an earlier one, and read ``010`` as 8 and ``12:30`` as 750.
Here a plain value is null, true or false (also yes, no, on, off), a decimal number, or text;
keys are always text; tags never run anything.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    ScalarEvent,
    SequenceStartEvent,
)
from yaml.reader import ReaderError

from proxy.core.raw import printable

Keys = tuple[str | int, ...]

# The settings nest seven deep; we read by recursion, so there has to be a bound.
MOST_LEVELS = 50
# Aliases can make a small file huge: ten levels of ten aliases each are 10 ** 10 values.
MOST_VALUES = 100_000


class Position(NamedTuple):
    """A place in a file; both count from 1."""

    line: int
    column: int


class Fault(NamedTuple):
    """Something that is wrong with the YAML itself."""

    at: Position
    path: Keys
    message: str


class Branch(NamedTuple):
    """A value with its place, and what lies below it."""

    value: Any
    at: Position
    keys: dict[str | int, Position]
    below: dict[str | int, "Branch"]
    size: int = 1

    def position(self, path: Keys, *, on_key: bool = False) -> Position:
        """The place of a key or of its value; of the nearest key above it if it isn't there."""
        branch, nearest = self, self.at
        for step in path:
            if step not in branch.below:
                return nearest
            nearest, branch = branch.keys[step], branch.below[step]
        return nearest if on_key else branch.at


def read_yaml(text: str) -> tuple[Branch | None, list[Fault]]:
    """The tree and what is wrong with its YAML; no tree if there is no telling what is meant."""
    try:
        loader = yaml.SafeLoader(text)
    except ReaderError as error:
        return None, [_character_fault(error, text)]
    planter = _Planter(_events(loader))
    try:
        tree = planter.document()
    except _UnreadableError as error:
        return None, [*planter.faults, error.fault]
    except yaml.MarkedYAMLError as error:
        return None, [_syntax_fault(error)]
    except (ValueError, OverflowError):
        # PyYAML's own, of an escape like "\UFFFFFFFF" or of the number behind %YAML.
        return None, [*planter.faults, Fault(_place(loader.get_mark()), (), _NO_NUMBER)]
    return tree, planter.faults


def _events(loader: Any) -> Iterator[Event]:
    while loader.check_event():
        yield loader.get_event()


# --- scalars -----------------------------------------------------------------------------------

_TAG = "tag:yaml.org,2002:"
_STR, _NULL, _BOOL, _INT, _FLOAT = (_TAG + kind for kind in ("str", "null", "bool", "int", "float"))
_TRUE = ("true", "yes", "on")
_PLAIN = {
    _NULL: re.compile(r"(?:~|null|Null|NULL|)"),
    _BOOL: re.compile(r"true|false|yes|no|on|off", re.IGNORECASE),
    # Eighteen digits are more than any setting needs, and leave no number too long to print.
    _INT: re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})"),
    _FLOAT: re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}"),
}


def _scalar(event: ScalarEvent) -> Any:
    """The value of a scalar. Raises ValueError if it has a tag that doesn't fit."""
    text, tag = event.value, event.tag
    if tag is None and event.implicit[0]:
        tag = next((kind for kind, plain in _PLAIN.items() if plain.fullmatch(text)), _STR)
    if tag in (None, "!", _STR):
        return text
    if tag not in _PLAIN or not _PLAIN[tag].fullmatch(text):
        raise ValueError(tag)
    if tag == _BOOL:
        return text.lower() in _TRUE
    if tag == _NULL:
        return None
    return int(text) if tag == _INT else float(text)


# --- events to branches ------------------------------------------------------------------------


class _UnreadableError(Exception):
    """Reading on would be of no use, or without an end."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class _Planter:
    """Grows branches from events. What is faulty grows a branch of nothing, and is noted."""

    def __init__(self, events: Iterator[Event]) -> None:
        self.faults: list[Fault] = []
        self._events = events
        # By anchor; None while its value is being read.
        self._anchors: dict[str, Branch | None] = {}
        self._read = self._brought_in = 0

    def document(self) -> Branch | None:
        """The only document of the stream; None if there is none."""
        tree = None
        for event in self._events:
            if not isinstance(event, DocumentStartEvent):
                continue
            if tree is not None:
                raise _error("found a second document; write one, without ---", event)
            start = next(self._events)
            tree = self._branch(start, ())
            if tree.size > MOST_VALUES:
                raise _error(_TOO_MANY, start)
        return tree

    def _branch(self, event: Event, path: Keys) -> Branch:
        if isinstance(event, AliasEvent):
            return self._alias(event, path)
        if len(path) > MOST_LEVELS:
            raise _error(f"nested deeper than {MOST_LEVELS} levels", event)
        self._read += 1
        if self._read > MOST_VALUES:
            raise _error(_TOO_MANY, event)
        anchor: str | None = getattr(event, "anchor", None)
        if anchor is not None:
            self._anchors[anchor] = None
        if isinstance(event, ScalarEvent):
            made = self._leaf(event, path)
        elif isinstance(event, SequenceStartEvent):
            made = self._list(event, path)
        else:
            made = self._block(event, path)
        if anchor is not None:
            self._anchors[anchor] = made
        return made

    def _fault(self, event: Event, path: Keys, message: str) -> Branch:
        self.faults.append(Fault(_position(event), path, message))
        return Branch(None, _position(event), {}, {})

    def _alias(self, event: AliasEvent, path: Keys) -> Branch:
        name = printable(str(event.anchor))
        if event.anchor not in self._anchors:
            return self._fault(event, path, f"found *{name}, but no &{name} before it")
        branch = self._anchors[event.anchor]
        if branch is None:
            return self._fault(event, path, f"found *{name} inside of &{name}; it has no end")
        # What lies below keeps its place, which is where one has to mend it.
        return branch._replace(at=_position(event))

    def _leaf(self, event: ScalarEvent, path: Keys) -> Branch:
        try:
            return Branch(_scalar(event), _position(event), {}, {})
        except ValueError:
            return self._fault(event, path, _tag_message(event.tag))

    def _list(self, event: SequenceStartEvent, path: Keys) -> Branch:
        below: dict[str | int, Branch] = {}
        while not isinstance(entry := next(self._events), CollectionEndEvent):
            below[len(below)] = self._branch(entry, (*path, len(below)))
        if event.tag not in (None, "!", _TAG + "seq"):
            return self._fault(event, path, _tag_message(event.tag))
        places = {index: branch.at for index, branch in below.items()}
        return _grown([branch.value for branch in below.values()], event, places, below)

    def _block(self, event: Event, path: Keys) -> Branch:
        keys: dict[str | int, Position] = {}
        below: dict[str | int, Branch] = {}
        merged: list[Branch] = []
        while not isinstance(key := next(self._events), CollectionEndEvent):
            name = self._key(key, path)
            branch = self._branch(start := next(self._events), (*path, name or ""))
            if name is None:
                continue
            if name == "<<" and isinstance(key, ScalarEvent) and key.implicit[0]:
                merged += self._sources(start, branch, path)
            elif name in keys:
                again = "found for a second time; a key stands once in a block, here in line"
                self._fault(key, (*path, name), f"{again} {keys[name].line}")
            else:
                keys[name], below[name] = _position(key), branch
        if isinstance(event, MappingStartEvent) and event.tag not in (None, "!", _TAG + "map"):
            return self._fault(event, path, _tag_message(event.tag))
        for source in merged:
            for other in [step for step in source.below if step not in below]:
                keys[other], below[other] = source.keys[other], source.below[other]
        value = {step: branch.value for step, branch in below.items()}
        return _grown(value, event, keys, below)

    def _key(self, event: Event, path: Keys) -> str | None:
        """The text of a key, whatever a value of that spelling would be."""
        if isinstance(event, ScalarEvent) and event.tag in (None, "!", _STR):
            return str(event.value)
        if isinstance(event, ScalarEvent):
            self._fault(event, path, _tag_message(event.tag))
        else:
            # One level deeper, else keys in keys would have no bound.
            self._branch(event, (*path, ""))
            self._fault(event, path, "found a list, a block or an alias as a key; a key is text")
        return None

    def _sources(self, event: Event, branch: Branch, path: Keys) -> list[Branch]:
        """The blocks that ``<<`` brings in, the one that counts most first."""
        sources = [*branch.below.values()] if isinstance(branch.value, list) else [branch]
        if not all(isinstance(source.value, dict) for source in sources):
            message = "<< takes an alias of a block of keys, or a list of such aliases"
            self._fault(event, (*path, "<<"), message)
            return []
        self._brought_in += sum(len(source.below) for source in sources)
        if self._brought_in > MOST_VALUES:
            raise _error(_TOO_MANY, event)
        return sources


def _grown(
    value: Any, event: Event, keys: dict[str | int, Position], below: dict[str | int, Branch]
) -> Branch:
    size = 1 + sum(branch.size for branch in below.values())
    return Branch(value, _position(event), keys, below, size)


def _position(event: Event) -> Position:
    return _place(event.start_mark)  # only events made by hand have none


def _place(mark: Any) -> Position:
    return Position(mark.line + 1, mark.column + 1)


# --- messages ----------------------------------------------------------------------------------

_TOO_MANY = f"found more than {MOST_VALUES} values, those behind aliases counted"

_NO_NUMBER = "not YAML: found a number behind a backslash or %YAML that is too large"
_NO_COLUMN = (
    "found a line that begins in no column of its block; begin all its keys in the same one"
)
# A part of PyYAML's words for the usual slips, and ours.
_SLIPS = (
    ("'\\t'", "found a tab; indent with spaces"),
    (
        "mapping values are not allowed",
        "found a colon where no key can be; check the indentation, and quote a text with a colon",
    ),
    ("could not find expected ':'", "found a line without a colon; write key: value"),
    ("expected ',' or '}'", "found no comma and no }; close each { and part its keys by commas"),
    ("expected ',' or ']'", "found no comma and no ]; close each [ and part its entries by commas"),
    ("expected <block end>", _NO_COLUMN),
    ("expected '<document start>'", _NO_COLUMN),
)


def _error(message: str, event: Event) -> "_UnreadableError":
    return _UnreadableError(Fault(_position(event), (), message))


def _tag_message(tag: str | None) -> str:
    name = printable((tag or "").replace(_TAG, "!!"))
    return f"found the tag {name}; allowed: none, values need no tags here"


def _syntax_fault(error: yaml.MarkedYAMLError) -> Fault:
    mark = error.problem_mark or error.context_mark
    at = _place(mark) if mark else Position(1, 1)
    problem = str(error.problem or error.context)
    slip = next((words for sign, words in _SLIPS if sign in problem), problem)
    return Fault(at, (), f"not YAML: {slip}")


def _character_fault(error: ReaderError, text: str) -> Fault:
    before = text[: error.position]
    at = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
    character = error.character if isinstance(error.character, int) else ord(error.character)
    return Fault(at, (), f"not YAML: found the control character U+{character:04X}; remove it")
