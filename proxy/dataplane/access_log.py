"""One line for each exchange, collected and written in batches (P6).

Nothing that a client or a member sends can begin a new line, end a quoted string or reach a
terminal: what isn't printable ASCII is escaped, and long values are cut (H85). Cookies,
credentials and session ids in addresses are never written (H86, D80).
"""

import re
from typing import TYPE_CHECKING, NamedTuple, Protocol

from proxy.core.choice import Choice, Session
from proxy.core.heads import RequestHead
from proxy.core.placement import Placement
from proxy.core.settings import LogFormat
from proxy.dataplane.clock import Clock

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange

# Lines that are collected before they are written, however soon that is.
BATCH = 500
# Longest part of a request line or field that is written, in bytes.
LONGEST = 2048
# How long lines may wait for their reader when a worker ends, in seconds.
PATIENCE = 1.0

# A request that concerns no member.
NO_SESSION = "session=- route=- member=- attempts=0 connect=0"
KEPT = Session.KEPT

_UNSAFE = re.compile(rb"[^\x20\x21\x23-\x5b\x5d-\x7e]")
# Webmail passes its session id in the address of every request (D80); the part of an address
# before @ may hold a password (RFC 3986 section 3.2.1).
_SECRET = re.compile(
    rb"([?&;](?i:sessionid|sid|(?:access_?)?token|password|passwd|passwort|pass|pwd|secret)=)[^& ]*"
    rb"|(?<=://)[^/?# ]*@"
)


def combined_text(value: bytes | None) -> str:
    """``value`` between the quotes of a combined line; ``-`` for none."""
    if value and len(value) <= LONGEST and _UNSAFE.search(value) is None:
        return value.decode("ascii")
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
    """A request line or an address without the secrets in it."""
    if not text:
        return text
    return _SECRET.sub(lambda found: found[1] + b"..." if found[1] else b"...@", text)


class Refusal(NamedTuple):
    """A request that was refused before it could become an exchange."""

    client: bytes
    second: int
    line: bytes
    status: int
    body_sent: int


class Sink(Protocol):
    """Where lines are written; it tells the operator of its trouble, and never stops traffic."""

    def write(self, lines: bytes) -> None:
        """Write whole lines, or try again what couldn't be; never waits, never raises."""

    def close(self, patience: float) -> None:
        """Write no more; what waits may be taken for so many seconds."""


class AccessLog:
    """Collects lines and hands them to ``sink``, a batch at a time; None keeps no log."""

    __slots__ = ("_clock", "_line", "_lines", "count", "sink")

    def __init__(self, sink: Sink | None, log_format: LogFormat, clock: Clock) -> None:
        self._clock = clock
        self._lines: list[str] = []
        # how many exchanges have ended
        self.count = 0
        self.sink: Sink | None = None
        self.replace(sink, log_format)

    def replace(self, sink: Sink | None, log_format: LogFormat) -> None:
        """Write to ``sink`` from now on; the one before has got its lines, and isn't closed."""
        self.flush()
        self.sink = sink
        combined = log_format is LogFormat.COMBINED
        # the format, compiled once (P6)
        self._line = self._combined if combined else self._json

    def exchange(self, exchange: "Exchange", now: float) -> None:
        """An exchange has ended, at monotonic time ``now``."""
        self.count += 1
        if self.sink is not None:
            self._lines.append(self._line(exchange, now))
            if len(self._lines) >= BATCH:
                self.flush()

    def refused(self, refusal: Refusal) -> None:
        """A request was refused."""
        if self.sink is not None:
            combined = self._line == self._combined
            self._lines.append(
                self._combined_refused(refusal) if combined else _json_refused(refusal)
            )
            if len(self._lines) >= BATCH:
                self.flush()

    def flush(self) -> None:
        """Write what was collected; if it is nothing, what the sink couldn't write before."""
        if self.sink is not None:
            lines = "".join(self._lines).encode("ascii")
            self._lines.clear()
            self.sink.write(lines)

    def close(self) -> None:
        """The worker ends: write what was collected, and no more."""
        self.flush()
        if self.sink is not None:
            self.sink.close(PATIENCE)
            self.sink = None

    # --- lines -------------------------------------------------------------------------------

    def _combined(self, exchange: "Exchange", now: float) -> str:
        """Apache's combined format (G1), then what became of the session; times are in µs."""
        head, response, begun = exchange.head, exchange.response, exchange.begun
        session = NO_SESSION
        if exchange.mapped:
            placement = exchange.placement
            choice, connect = placement.choice, exchange.connect_time
            member = choice.member
            if (
                choice.session is KEPT
                and member is not None
                and not connect
                and placement.attempts == 1
            ):
                session = member.kept_words
            else:
                session = _combined_session(choice, placement.attempts, connect)
        first_byte = f"{int(exchange.first_byte_time * 1e6)}"
        # Mostly the first byte came with the last.
        spent = now - begun
        total = first_byte if spent == exchange.first_byte_time else int(spent * 1e6)
        line, browser = head.note or _combined_note(head)
        return (
            f"{exchange.client.forwarded.address} - - "
            f"[{self._clock.log_time(response.second)}] {line} {response.status}"
            f" {response.body_sent or '-'} {browser} {session} first_byte={first_byte}"
            f" total={total}\n"
        )

    def _combined_refused(self, refusal: Refusal) -> str:
        return (
            f"{refusal.client.decode()} - - [{self._clock.log_time(refusal.second)}]"
            f' "{combined_text(without_secrets(refusal.line))}"'
            f' {refusal.status} {refusal.body_sent or "-"} "-" "-"'
            f" {NO_SESSION} first_byte=0 total=0\n"
        )

    def _json(self, exchange: "Exchange", now: float) -> str:
        """The same as an object."""
        head, response = exchange.head, exchange.response
        known = head.known
        session = '"session": "-", "route": "-", "member": "-", "reason": "-", "attempts": 0'
        if exchange.mapped:
            session = _json_session(exchange.placement)
        return (
            f'{{"time": {exchange.received_at:.3f},'
            f' "client": "{exchange.client.forwarded.address}",'
            f' "request": "{json_text(without_secrets(head.line))}",'
            f' "host": "{json_text(head.host)}",'
            f' "status": {response.status}, "bytes": {response.body_sent},'
            f' "referer": "{json_text(without_secrets(known.get(b"referer")))}",'
            f' "user_agent": "{json_text(known.get(b"user-agent"))}", {session},'
            f' "connect": {int(exchange.connect_time * 1e6)},'
            f' "first_byte": {int(exchange.first_byte_time * 1e6)},'
            f' "total": {int((now - exchange.begun) * 1e6)}}}\n'
        )

    def __repr__(self) -> str:
        return f"<AccessLog {len(self._lines)} lines waiting>"


def _json_refused(refusal: Refusal) -> str:
    return (
        f'{{"time": {refusal.second}.000, "client": "{refusal.client.decode()}",'
        f' "request": "{json_text(without_secrets(refusal.line))}",'
        f' "status": {refusal.status}, "bytes": {refusal.body_sent}}}\n'
    )


def _combined_note(head: RequestHead) -> tuple[str, str]:
    """What a line has of the head itself, quoted: the request line; Referer and User-Agent."""
    referer = combined_text(without_secrets(head.known.get(b"referer")))
    browser = f'"{referer}" "{combined_text(head.known.get(b"user-agent"))}"'
    head.note = f'"{combined_text(without_secrets(head.line))}"', browser
    return head.note


def _combined_session(choice: Choice, attempts: int, connect: float) -> str:
    """What became of the session: which route came in, who served, and how it was reached."""
    asked = combined_text(choice.session_route).replace(" ", "\\x20")
    served = "-" if choice.member is None else choice.member.name
    return (
        f"session={choice.session.word} route={asked} member={served}"
        f" attempts={attempts} connect={int(connect * 1e6)}"
    )


def _json_session(placement: Placement) -> str:
    choice = placement.choice
    served = choice.member.name if choice.member is not None else "-"
    return (
        f'"session": "{choice.session.word}", "route": "{json_text(choice.session_route)}",'
        f' "member": "{served}", "reason": "{choice.reason.value}",'
        f' "attempts": {placement.attempts}'
    )
