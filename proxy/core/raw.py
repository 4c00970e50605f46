"""A configuration before it is checked: any value, and the path that leads to it.

Questions about a raw tree must not fail on a wrong type, since another check reports it: what
isn't of the type asked for counts as not given. Nothing here judges.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice
from typing import Any, NamedTuple

from proxy.core.errors import Mistake
from proxy.core.values import parse_duration


class Raw(NamedTuple):
    """A value with its path from the root."""

    value: Any
    path: tuple[str | int, ...] = ()

    def at(self, *keys: str) -> "Raw":
        """What stands below these keys; a Raw of None if nothing does."""
        found = self
        for key in keys:
            inside = found.value.get(key) if isinstance(found.value, dict) else None
            found = Raw(inside, (*found.path, key))
        return found

    def entries(self) -> list["Raw"]:
        """A list's entries; none of anything else."""
        if not isinstance(self.value, list | tuple):
            return []
        return [Raw(value, (*self.path, index)) for index, value in enumerate(self.value)]

    def named(self) -> dict[str, "Raw"]:
        """A block's values by key; none of anything else."""
        if not isinstance(self.value, dict):
            return {}
        return {
            key: Raw(value, (*self.path, key))
            for key, value in self.value.items()
            if isinstance(key, str)
        }

    @property
    def given(self) -> bool:
        """Whether anything but null stands here."""
        return self.value is not None

    @property
    def text(self) -> str | None:
        """The value if it is a text that isn't empty."""
        return self.value if isinstance(self.value, str) and self.value else None

    @property
    def seconds(self) -> float | None:
        """The value if it is a duration."""
        try:
            return parse_duration(self.value)
        except ValueError:
            return None

    def mistake(self, message: str, *, on_key: bool = False) -> Mistake:
        """A mistake at this place."""
        return Mistake(self.path, message, on_key)


# --- words -------------------------------------------------------------------------------------

_LONGEST_TEXT = 60
_MOST_NAMES = 30
_LARGEST_NUMBER = 10**20
# A file of thousands of wrong names among thousands of right ones is answered all the same.
_MOST_COMPARED = 300


def printable(text: str) -> str:
    """A text fit for one line of a terminal: cut, and nothing in it that isn't to be seen."""
    if len(text) > _LONGEST_TEXT:
        text = text[:_LONGEST_TEXT] + "..."
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def shown(value: Any) -> str:
    """What was found, in words."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}" if abs(value) < _LARGEST_NUMBER else "a huge number"
        case str():
            return f'"{printable(value)}"'
        case list() | tuple():
            return "a list" if value else "an empty list"
        case dict():
            return "a block of keys" if value else "an empty block"
    return f"a {type(value).__name__}"


def listed(names: Iterable[str]) -> str:
    """``a, b, c``, and how many more there are if they are too many."""
    shortened = [printable(name) for name in names]
    more = len(shortened) - _MOST_NAMES
    if more > 0:
        shortened[_MOST_NAMES:] = [f"{more} more"]
    return ", ".join(shortened)


def near(name: str, names: Iterable[str]) -> list[str]:
    """The name that was probably meant, as a list of one; an empty one if none is near."""
    return get_close_matches(name, islice(names, _MOST_COMPARED), n=1)


def among(name: str, names: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest one, and all that are allowed."""
    allowed = [*dict.fromkeys(names)]
    if not allowed:
        return "; there is none"
    nearest = near(name, allowed)
    if nearest:
        return f"; did you mean {printable(nearest[0])}? Allowed: {listed(allowed)}"
    return f"; allowed: {listed(allowed)}"
