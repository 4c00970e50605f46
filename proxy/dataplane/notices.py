"""Warnings that clients can cause at will: said once, then once a minute with their number.

So a log can't be flooded by who sends enough of what is refused, and nothing is kept quiet.
"""

import logging

log = logging.getLogger("balanceme")

# Sweeps between two lines about the same: a minute.
PERIOD = 120


class Notice:
    """One such warning."""

    __slots__ = ("_arguments", "_more", "_text", "_wait", "total")

    def __init__(self, text: str, *arguments: object) -> None:
        self._text = text
        self._arguments = arguments
        self._more = 0
        self._wait = 0
        # since the start
        self.total = 0

    def about(self, *arguments: object) -> None:
        """What the text speaks of has changed."""
        self._arguments = arguments

    def happened(self, times: int = 1) -> None:
        """It happened again."""
        self.total += times
        if self._wait:
            self._more += times
            return
        self._wait = PERIOD
        log.warning(self._text, *self._arguments)

    def tick(self) -> None:
        """A sweep has passed."""
        if not self._wait:
            return
        self._wait -= 1
        if not self._wait and self._more:
            text = self._text % self._arguments
            log.warning("%s (%d times in the last minute)", text, self._more)
            self._more = 0
            self._wait = PERIOD

    def __repr__(self) -> str:
        return f"<Notice {self._text!r} {self.total} times>"
