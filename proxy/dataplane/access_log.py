"""One line for each exchange, collected and written in batches (P6).

Nothing that a client or a member sends can begin a new line, end a quoted string or reach a
terminal: what isn't printable ASCII is escaped, and long values are cut (H85). Cookies,
credentials and session ids in addresses are never written (H86, D80).
"""

import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from proxy.core.balancer import Choice
from proxy.core.pages import OwnAnswer
from proxy.core.settings import LogFormat
from proxy.dataplane.clock import Clock

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange

log = logging.getLogger("balanceme")

# Lines that are collected before they are written, however soon that is.
BATCH = 500
# Longest part of a request line or field that is written, in bytes.
LONGEST = 2048

_UNSAFE = re.compile(rb"[^\x20\x21\x23-\x5b\x5d-\x7e]")
# Webmail passes its session id in the address of every request (D80).
_SECRET = re.compile(rb"(?i)([?&](?:sessionid|password|passwd|token)=)[^& ]*")


def combined_text(value: bytes | None) -> str:
    """``value`` between the quotes of a combined line; ``-`` for none."""
    return _quoted(value, b"\\x%02x")


def json_text(value: bytes | None) -> str:
    """``value`` between the quotes of a JSON string; ``-`` for none."""
    return _quoted(value, b"\\u%04x")


def _quoted(value: bytes | None, escape: bytes) -> str:
    if not value:
        return "-"
    if len(value) > LONGEST:
        value = value[:LONGEST]
    if _UNSAFE.search(value) is not None:
        value = _UNSAFE.sub(lambda found: escape % found[0][0], value)
    return value.decode("ascii")


def without_secrets(text: bytes | None) -> bytes | None:
    """A request line or an address without the secrets in its query."""
    return _SECRET.sub(rb"\1...", text) if text and b"?" in text else text


class Refusal(NamedTuple):
    """A request that was refused before it could become an exchange."""

    client: bytes
    second: int
    line: bytes
    answer: OwnAnswer


class AccessLog:
    """Collects lines and hands them to ``write``, a batch at a time; None keeps no log.

    ``write`` takes bytes and gives back how many it took, as os.write does.
    """

    __slots__ = ("_clock", "_format", "_lines", "_troubled", "_write")

    def __init__(
        self, write: Callable[[bytes], int] | None, log_format: LogFormat, clock: Clock
    ) -> None:
        self._write = write
        self._format = log_format
        self._clock = clock
        self._lines: list[str] = []
        self._troubled = False

    def exchange(self, exchange: "Exchange") -> None:
        """An exchange has ended."""
        if self._write is not None:
            combined = self._format is LogFormat.COMBINED
            self._add(self._combined(exchange) if combined else self._json(exchange))

    def refused(self, refusal: Refusal) -> None:
        """A request was refused."""
        if self._write is not None:
            combined = self._format is LogFormat.COMBINED
            self._add(self._combined_refused(refusal) if combined else _json_refused(refusal))

    def _add(self, line: str) -> None:
        self._lines.append(line)
        if len(self._lines) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what was collected; trouble is said once, and never stops traffic."""
        if not self._lines or self._write is None:
            return
        data = "".join(self._lines).encode("ascii")
        self._lines.clear()
        try:
            while data:
                data = data[self._write(data) :]
        except OSError as error:
            if not self._troubled:
                log.warning(
                    "access log: %s; lines are lost until it can be written", error.strerror
                )
            self._troubled = True
        else:
            self._troubled = False

    # --- lines -------------------------------------------------------------------------------

    def _combined(self, exchange: "Exchange") -> str:
        """Apache's combined format (G1), then what became of the session."""
        head, response = exchange.head, exchange.response
        known = head.known
        choice = exchange.placement.choice if exchange.mapped else None
        asked = combined_text(choice.session_route if choice else None).replace(" ", "\\x20")
        total = self._clock.monotonic() - exchange.begun
        return (
            f"{exchange.client.forwarded.client.decode()} - -"
            f" [{self._clock.log_time(int(exchange.received_at))}]"
            f' "{combined_text(without_secrets(head.line))}"'
            f" {response.status} {response.body_sent or '-'}"
            f' "{combined_text(without_secrets(known.get(b"referer")))}"'
            f' "{combined_text(known.get(b"user-agent"))}"'
            f" session={choice.session.value if choice else '-'} route={asked}"
            f" member={_member(choice)}"
            f" attempts={exchange.placement.attempts if choice else 0}"
            f" connect={exchange.connect_time * 1000:.1f}"
            f" first_byte={exchange.first_byte_time * 1000:.1f} total={total * 1000:.1f}\n"
        )

    def _combined_refused(self, refusal: Refusal) -> str:
        return (
            f"{refusal.client.decode()} - - [{self._clock.log_time(refusal.second)}]"
            f' "{combined_text(without_secrets(refusal.line))}"'
            f' {refusal.answer.status} {len(refusal.answer.body)} "-" "-"'
            " session=- route=- member=- attempts=0 connect=0.0 first_byte=0.0 total=0.0\n"
        )

    def _json(self, exchange: "Exchange") -> str:
        """The same as an object; times are in milliseconds."""
        head, response = exchange.head, exchange.response
        known = head.known
        choice = exchange.placement.choice if exchange.mapped else None
        total = self._clock.monotonic() - exchange.begun
        return (
            f'{{"time": {exchange.received_at:.3f},'
            f' "client": "{exchange.client.forwarded.client.decode()}",'
            f' "request": "{json_text(without_secrets(head.line))}",'
            f' "host": "{json_text(head.host)}",'
            f' "status": {response.status}, "bytes": {response.body_sent},'
            f' "referer": "{json_text(without_secrets(known.get(b"referer")))}",'
            f' "user_agent": "{json_text(known.get(b"user-agent"))}",'
            f' "session": "{choice.session.value if choice else "-"}",'
            f' "route": "{json_text(choice.session_route if choice else None)}",'
            f' "member": "{_member(choice)}",'
            f' "reason": "{choice.reason.value if choice else "-"}",'
            f' "attempts": {exchange.placement.attempts if choice else 0},'
            f' "connect": {exchange.connect_time * 1000:.1f},'
            f' "first_byte": {exchange.first_byte_time * 1000:.1f},'
            f' "total": {total * 1000:.1f}}}\n'
        )

    def __repr__(self) -> str:
        return f"<AccessLog {len(self._lines)} lines waiting>"


def _json_refused(refusal: Refusal) -> str:
    return (
        f'{{"time": {refusal.second}.000, "client": "{refusal.client.decode()}",'
        f' "request": "{json_text(without_secrets(refusal.line))}",'
        f' "status": {refusal.answer.status}, "bytes": {len(refusal.answer.body)}}}\n'
    )


def _member(choice: Choice | None) -> str:
    """The route of the member that served, or its url."""
    if choice is None or choice.member is None:
        return "-"
    return choice.member.settings.route or choice.member.settings.url
