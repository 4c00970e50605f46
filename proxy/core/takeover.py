"""Whose sessions another member has taken over, on whose word, and which word counts.

A balancer's takeovers have four origins, which don't overwrite each other. For one route the first
that says anything counts:

| origin | says so | until |
|---|---|---|
| OPERATOR | a command | a command clears it |
| FILE | failover_file | the cluster manager rewrites it |
| CHECKS | a failed verdict, as takeover says | the member passes again |
| CONFIGURATION | failover in the configuration | a reload |

A chain of takeovers is followed to its end. An entry that would close a circle has no effect as
long as it would; of several the one with the weakest origin.
"""

from collections.abc import Collection, Mapping
from enum import Enum
from typing import NamedTuple


class Said(NamedTuple):
    """By whom something was said, when (seconds since 1970) and why."""

    by: str
    at: float
    why: str = ""


class Origin(Enum):
    """Who says that sessions are taken over, the strongest first."""

    OPERATOR = "operator"
    FILE = "failover_file"
    CHECKS = "checks"
    CONFIGURATION = "configuration"


class Takeover(NamedTuple):
    """One entry: the route of who has taken over, and who says so."""

    heir: str
    origin: Origin
    said: Said


class Takeovers:
    """All takeovers of one balancer, by the route whose sessions were taken over."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[Origin, dict[str, Takeover]] = {origin: {} for origin in Origin}

    def put(self, gone: str, heir: str, origin: Origin, said: Said) -> None:
        """``heir`` has taken over from ``gone``."""
        self._entries[origin][gone] = Takeover(heir, origin, said)

    def clear(self, gone: str, origin: Origin) -> Takeover | None:
        """Take an entry back; what it said, if there was one."""
        return self._entries[origin].pop(gone, None)

    def replace(self, origin: Origin, heirs: Mapping[str, str], said: Said) -> None:
        """Say anew all that an origin says; entries that stay keep by whom and when."""
        former = self._entries[origin]
        self._entries[origin] = {
            gone: former[gone]
            if gone in former and former[gone].heir == heir
            else Takeover(heir, origin, said)
            for gone, heir in heirs.items()
        }

    def keep(self, routes: frozenset[str]) -> None:
        """Forget entries about routes that no member has any more."""
        for origin, entries in self._entries.items():
            self._entries[origin] = {
                gone: entry
                for gone, entry in entries.items()
                if gone in routes and entry.heir in routes
            }

    def of(self, origin: Origin) -> dict[str, Takeover]:
        """What one origin says."""
        return dict(self._entries[origin])

    @property
    def by_checks(self) -> Collection[str]:
        """Whose sessions are taken over since their checks fail."""
        return self._entries[Origin.CHECKS].keys()

    def in_force(self) -> dict[str, Takeover]:
        """What counts: for each route the strongest word, without circles."""
        found: dict[str, Takeover] = {}
        for entries in self._entries.values():
            for gone, entry in entries.items():
                if gone not in found and not _closes_circle(found, gone, entry.heir):
                    found[gone] = entry
        return found

    @property
    def heirs(self) -> dict[str, str]:
        """The same in short: whose sessions go to whom."""
        return {gone: entry.heir for gone, entry in self.in_force().items()}

    def circle(self, gone: str, heir: str) -> bool:
        """Whether an entry of the operator's would close a circle with others of theirs."""
        return _closes_circle(self._entries[Origin.OPERATOR], gone, heir)

    def __repr__(self) -> str:
        return f"<Takeovers {self.heirs}>"


def _closes_circle(entries: Mapping[str, Takeover], gone: str, heir: str) -> bool:
    route: str | None = heir
    while route is not None and route != gone:
        entry = entries.get(route)
        route = None if entry is None else entry.heir
    return route == gone
