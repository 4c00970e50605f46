"""Certificates that end soon: told in the log and to hooks, each once a day.

Our own are looked at when they come into force and once an hour; members' are told of by those who
connect to them. What matters is the day on which somebody has to do something, so a certificate is
told of again on each day until then, and after it. Nothing of this changes what is served.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator

from proxy.control.holdings import Holdings
from proxy.control.hooks import JSON, Happening, iso_time
from proxy.core.settings import Event
from proxy.core.validity import end_of_pem

log = logging.getLogger("balanceme")

# Days before its end from which on a certificate of ours is told of.
DAYS = 14
# How often ours are looked at, in seconds.
INTERVAL = 3600.0
_DAY = 86400.0


class CertificateEnds:
    """What was told of which certificate."""

    def __init__(self, happened: Callable[[Happening], None]) -> None:
        """``happened`` hears of each certificate that is told of."""
        self._happened = happened
        self._looked_at: Holdings | None = None
        self._due = 0.0
        # its end, and the day on which that was told, by whose it is
        self._told: dict[str, tuple[float, int]] = {}

    def watch(self, holdings: Holdings) -> None:
        """To be called often: looks at our own when they are others than before, or when due."""
        if holdings is self._looked_at and time.monotonic() < self._due:
            return
        self._looked_at = holdings
        self._due = time.monotonic() + INTERVAL
        today = _day()
        self._told = {whose: told for whose, told in self._told.items() if told[1] == today}
        for file, pem in _files(holdings):
            try:
                self._tell(file, end_of_pem(pem), DAYS)
            except ValueError as error:  # OpenSSL has read it
                log.warning("when certificate %s ends can't be read: %s", file, error)

    def seen(
        self,
        who: str,
        ends: float,
        days: int,
        *,
        balancer: str | None = None,
        member: str | None = None,
    ) -> None:
        """Take note of another's certificate, and tell of it if it ends within ``days``.

        ``who`` is named in the text; ``ends`` is in seconds since 1970.
        """
        self._tell(who, ends, days, (balancer, member))

    def _tell(
        self, whose: str, ends: float, days: int, where: tuple[str | None, str | None] | None = None
    ) -> None:
        now = time.time()
        told = ends, _day()
        if ends - now > days * _DAY or self._told.get(whose) == told:
            return
        self._told[whose] = told
        of = "" if where is None else "of "
        text = f"certificate {of}{whose} {_when(ends - now)}, {iso_time(ends)}"
        log.warning("%s", text)
        details: dict[str, JSON] = {
            "certificate": whose,
            "ends": iso_time(ends),
            "days": int((ends - now) // _DAY),
        }
        balancer, member = where or (None, None)
        self._happened(Happening(Event.CERTIFICATE_ENDS, balancer, member, text, details, at=now))


def _files(holdings: Holdings) -> Iterator[tuple[str, bytes]]:
    """The certificate files that are served, with their content."""
    for frontend in holdings.settings.frontends:
        materials = holdings.keys[frontend.listen]
        for tls, material in zip(frontend.certificates, materials, strict=True):
            yield tls.certificate, material.certificate


def _day() -> int:
    """The day, as a number."""
    return int(time.time() // _DAY)


def _when(left: float) -> str:
    if left < 0:
        return "has ended"
    days, hours = round(left / _DAY), math.ceil(left / 3600)
    if days > 1:
        return f"ends in {days} days"
    return f"ends within {hours} hours" if hours > 1 else "ends within an hour"
