"""What happens to members and is told: to the log here, to hooks by whoever takes it up."""

import logging
import time
from typing import Any, NamedTuple

from proxy.core.settings import Event

log = logging.getLogger("balanceme")


class Happening(NamedTuple):
    """One event."""

    event: Event
    balancer: str | None
    # its route or url
    member: str | None
    # one line for people
    text: str
    details: dict[str, Any]
    # seconds since 1970
    at: float


class Happenings:
    """Those that nobody has taken up yet."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Happening] = []

    def happened(
        self, event: Event, balancer: str | None, member: str | None, text: str, **details: Any
    ) -> None:
        """Something happened: it is logged at once."""
        bad = event in (Event.MEMBER_DOWN, Event.FENCED, Event.CERTIFICATE_ENDS)
        log.log(logging.WARNING if bad else logging.INFO, "%s", text)
        self._waiting.append(Happening(event, balancer, member, text, details, time.time()))

    def note(self, text: str, *, bad: bool = False) -> None:
        """Something for the log alone."""
        log.log(logging.WARNING if bad else logging.INFO, "%s", text)

    def take(self) -> list[Happening]:
        """All that happened since the last time."""
        found, self._waiting = self._waiting, []
        return found

    def __repr__(self) -> str:
        return f"<Happenings {len(self._waiting)} waiting>"
