"""The configuration in the making: settings with where they come from, notices and mistakes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from proxy.apache.tree import Directive, Notice, Section

Path = tuple[str | int, ...]
Origin = Directive | Section


class Imported(NamedTuple):
    """What an Apache configuration means here."""

    # what a configuration file of ours would hold
    tree: dict[str, Any]
    # where each of it comes from, by its path
    comments: dict[Path, list[str]]
    notices: tuple[Notice, ...]


class Draft:
    """Collects what directives mean."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self.mistakes: list[Notice] = []
        # by the block's identity; blocks are kept, lest another one get it
        self._origins: dict[int, tuple[dict[str, Any], list[str]]] = {}

    def notice(self, origin: Origin, text: str) -> None:
        """What a directive means here, and what to do."""
        self.notices.append(Notice(origin.at, origin.name, text))

    def mistake(self, origin: Origin, text: str) -> None:
        """Serving without this would be wrong."""
        self.mistakes.append(Notice(origin.at, origin.name, text))

    def comes_from(self, block: dict[str, Any], origin: Origin) -> None:
        """A block was made of a directive."""
        words = self._origins.setdefault(id(block), (block, []))[1]
        name = f"<{origin.name}" if isinstance(origin, Section) else origin.name
        text = f"{origin.at}: {name} {origin.text}".rstrip()
        text += ">" if isinstance(origin, Section) else ""
        if text not in words:
            words.append(text)

    def like(self, block: dict[str, Any], former: dict[str, Any]) -> dict[str, Any]:
        """``block``, which comes from where ``former`` came from."""
        if id(former) in self._origins:
            self._origins[id(block)] = (block, self._origins[id(former)][1])
        return block

    def comments(self, value: Any, path: Path = ()) -> dict[Path, list[str]]:
        """Where the blocks in ``value`` come from, by their paths."""
        found: dict[Path, list[str]] = {}
        if isinstance(value, dict):
            if id(value) in self._origins and path:
                found[path] = self._origins[id(value)][1]
            for key, inside in value.items():
                found |= self.comments(inside, (*path, key))
        elif isinstance(value, list):
            for index, inside in enumerate(value):
                found |= self.comments(inside, (*path, index))
        return found


def merge(into: dict[str, Any], found: Mapping[str, Any]) -> None:
    """Add settings to a block; blocks inside of it are joined."""
    for key, value in found.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value
