"""What happens to members: told to the log at once, and to hooks by whoever takes it up."""

import logging
import time

from proxy.control.hooks import JSON, Happening
from proxy.core.settings import Event

log = logging.getLogger("balanceme")


class Happenings:
    """Those that nobody has taken up yet."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Happening] = []

    def happened(
        self, event: Event, balancer: str | None, member: str | None, text: str, **details: JSON
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
