"""What stands in an Apache configuration: directives and sections, each with its place."""

from collections.abc import Iterator
from typing import NamedTuple


class Place(NamedTuple):
    """Where something stands."""

    file: str
    # from 1; the first one of a continued line
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Notice(NamedTuple):
    """What the importer has to say of a directive: what it means here, and what to do."""

    at: Place
    directive: str
    text: str

    def __str__(self) -> str:
        return f"{self.at}: {self.directive}: {self.text}"


class Directive(NamedTuple):
    """One directive."""

    # as it is written; names are compared without regard to case
    name: str
    # without their quotes, ${NAME} replaced
    arguments: tuple[str, ...]
    # all behind the name, as it is written
    text: str
    at: Place

    @property
    def key(self) -> str:
        """The name, to compare."""
        return self.name.lower()


class Section(NamedTuple):
    """``<Name arguments>`` with what stands in it."""

    name: str
    arguments: tuple[str, ...]
    text: str
    at: Place
    children: "tuple[Directive | Section, ...]"

    @property
    def key(self) -> str:
        """The name, to compare."""
        return self.name.lower()

    def directives(self, name: str = "") -> Iterator[Directive]:
        """The directives that stand directly in it, all or those of a name."""
        for child in self.children:
            if isinstance(child, Directive) and name.lower() in ("", child.key):
                yield child

    def sections(self, name: str = "") -> "Iterator[Section]":
        """The sections that stand directly in it, all or those of a name."""
        for child in self.children:
            if isinstance(child, Section) and name.lower() in ("", child.key):
                yield child


class Included(NamedTuple):
    """A file that was included, and where."""

    at: Place
    file: str


class Tree(NamedTuple):
    """A whole configuration: includes are in place, conditions are decided."""

    children: tuple[Directive | Section, ...]
    notices: tuple[Notice, ...]
    server_root: str
    includes: tuple[Included, ...] = ()

    @property
    def top(self) -> Section:
        """All of it, as a section."""
        return Section("", (), "", Place("", 0), self.children)
