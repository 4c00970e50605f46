"""Time for one worker: monotonic for deadlines, wall clock for what people and caches read.

The only place of the data plane that asks for the time; tests hand in another one.
"""

import time
from email.utils import formatdate


class Clock:
    """Seconds, and the Date field's text, which changes once a second (P5)."""

    __slots__ = ("_date", "_log_second", "_log_time", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._date = b""
        self._log_second = -1
        self._log_time = ""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def date(self, second: int) -> bytes:
        """The Date field for a second since the epoch (RFC 9110 section 5.6.7)."""
        if second != self._second:
            self._second = second
            self._date = formatdate(second, usegmt=True).encode()
        return self._date

    def log_time(self, second: int) -> str:
        """Local time as Apache logs it: ``22/Nov/2026:13:16:01 +0000`` (G2)."""
        if second != self._log_second:
            self._log_second = second
            self._log_time = time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime(second))
        return self._log_time
