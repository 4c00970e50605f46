"""Plays a case against one frontend and writes down what happened, fact by fact.

A fact has a name such as ``answer 1: status line`` or ``member request 2: fields``. Two sides
agree when all their facts are equal. Only what can't be equal is made so first: the current
date, the cookie's expiry (kept as a distance), the address of a side, and what the frontend's
own pages say and how long they are.
"""

import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.end_to_end.oracle_model import (
    Ask,
    Case,
    Close,
    HalfClose,
    Idle,
    Interim,
    New,
    Read,
    Send,
    Start,
    Step,
    Stop,
    Tunnel,
    Wait,
    request,
)
from tests.end_to_end.raw_client import End, RawClient, Response
from tests.end_to_end.recording_member import Record, RecordingMember, Seen

_PROBE = request(b"OPTIONS * HTTP/1.1")
"""Answered by the frontend itself (R17): it moves nothing in a balancer."""
_SETTLE = 1.5
_OWN_PAGE = b"text/html; charset=iso-8859-1"
"""Content-Type of the frontend's own pages; no member's script uses it."""

Fact = object
Facts = dict[str, Fact]


# --- addresses ---------------------------------------------------------------------------------


def free_port() -> int:
    """A port nobody listens on, at any address."""
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Side:
    """One of the two frontends under comparison, and its corner of the loopback network.

    Everything of both sides listens on the same port, at addresses that differ in one octet
    only: texts that hold an address or a port are equally long on both sides.
    """

    octet: int
    port: int
    tls: ssl.SSLContext

    def host(self, case: int, number: int = 0) -> str:
        """Address of a case's frontend (0) or member (1 and up)."""
        return f"127.{self.octet}.{100 + case % 150}.{100 + 10 * (case // 150) + number}"

    def authority(self, case: int, number: int = 0) -> str:
        """The same with the port."""
        return f"{self.host(case, number)}:{self.port}"

    def members(self, case: int, count: int) -> list[str]:
        """Addresses of a case's members."""
        return [self.authority(case, number) for number in range(1, count + 1)]

    def plain(self, data: bytes) -> bytes:
        """The data without what tells the sides apart."""
        return data.replace(b"127.%d." % self.octet, b"127.x.")


# --- playing -----------------------------------------------------------------------------------


@dataclass
class Play:
    """A case under way on one side."""

    side: Side
    case: Case
    index: int
    members: list[RecordingMember]
    record: Record
    facts: Facts = field(default_factory=dict)
    client: RawClient | None = None
    answers: int = 0
    connections: int = 0
    tunnels: int = 0

    def connect(self) -> RawClient:
        """The connection under way, or a new one."""
        if self.client is None:
            address = (self.side.host(self.index), self.side.port)
            tls = None if self.case.plain else self.side.tls
            self.client = RawClient(address, tls=tls, server_name=self.case.server_name)
            self.connections += 1
        return self.client

    def step(self, step: Step) -> None:
        """Do one step of the case."""
        match step:
            case Ask():
                self._ask(step)
            case Send():
                self.connect().send_all(step.raw)
            case Read():
                self._answer(self.connect().read_response(step.method), _SLOW)
            case Interim():
                self._interim()
            case Tunnel():
                self._tunnel(step)
            case Wait():
                time.sleep(step.seconds)
            case New():
                self.end_connection()
            case Close():
                self.drop()
            case HalfClose():
                self.connect().half_close()
            case Idle():
                self._note(f"connection {self.connections}: closed when idle", self._idle(step))
            case Stop():
                self.members[step.member - 1].stop()
                time.sleep(0.02)
            case Start():
                self.members[step.member - 1].start()

    def _ask(self, step: Ask) -> None:
        client = self.connect()
        client.patience = step.patience
        started = time.time()
        client.send(step.raw)
        for _ in range(step.answers):
            response = client.read_response(step.raw.partition(b" ")[0])
            response.started = started
            self._answer(response, _AT_ONCE if step.answers == 1 else _SLOW)

    def _interim(self) -> None:
        lines = self.connect().wait_interim()
        self._note(f"answer {self.answers + 1}: interim came first", self._lines(lines))

    def _tunnel(self, step: Tunnel) -> None:
        client = self.connect()
        client.send_all(step.raw)
        length = len(step.raw) if step.reads is None else step.reads
        self.tunnels += 1
        self._note(f"tunnel {self.tunnels}: received", client.read_exactly(length))

    def _idle(self, step: Idle) -> bool:
        return self.connect().wait_closed(step.seconds)

    def drop(self) -> None:
        """Close the connection under way, if there is one."""
        if self.client is not None:
            self.client.close()
            self.client = None

    # --- facts -----------------------------------------------------------------------------

    def _note(self, name: str, value: Fact) -> None:
        self.facts[name] = value

    def _lines(self, lines: list[bytes]) -> list[bytes]:
        return [self.side.plain(line) for line in lines]

    def _answer(self, response: Response, slack: float) -> None:
        self.answers += 1
        own = response.value(b"content-type") == _OWN_PAGE
        body = b"(own page)" if own and response.body else self.side.plain(response.body)
        fields = list(comparable(response, own, slack))
        values = {
            "end": response.end.value,
            "status line": response.status_line,
            "fields": self._lines(fields),
            "framing": "(own page)" if own else response.framing,
            "body": body,
            "trailers": response.trailers,
            "interim": [self._lines(lines) for lines in response.interim],
        }
        for name, value in values.items():
            self._note(f"answer {self.answers}: {name}", value)

    def end_connection(self) -> None:
        """Note whether the connection takes another request, and close it."""
        if self.client is None:
            return
        if self.case.probe:
            self._note(f"connection {self.connections}: after the last answer", self._state())
        self.drop()

    def _state(self) -> str:
        client = self.connect()
        client.send(_PROBE)
        end = client.read_response(b"OPTIONS").end
        return {End.NOTHING: "closed", End.COMPLETE: "kept"}.get(end, end.value)

    def note_members(self) -> None:
        """Add what arrived at the members."""
        seen = self.record.seen
        self._note("member requests", [entry.member for entry in seen])
        for number, entry in enumerate(seen, start=1):
            for name, value in self._seen(entry).items():
                self._note(f"member request {number}: {name}", value)

    def _seen(self, entry: Seen) -> Facts:
        lines = self._lines(entry.lines)
        facts: Facts = {
            "request line": lines[0],
            "fields": lines[1:],
            "framing": entry.framing,
            "body": entry.body,
            "trailers": entry.trailers,
            "end": "aborted" if entry.aborted else "complete" if entry.complete else "open",
        }
        if self.case.connections:
            facts["connection"] = entry.connection
        return facts


def play(case: Case, index: int, side: Side) -> Facts:
    """Everything that happened when the case was played against that side."""
    record = Record()
    members = []
    for number in range(1, len(case.site.members) + 1):
        scripts = {**case.scripts, **case.per_member.get(number, {})}
        member = RecordingMember(
            f"server{number}",
            side.host(index, number),
            side.port,
            scripts=scripts,
            record=record,
        )
        members.append(member)
    with ExitStack() as stack:
        for number, member in enumerate(members, start=1):
            stack.callback(member.stop)
            member.other = members[number % len(members)].authority
            if number not in case.down:
                member.start()
        played = Play(side, case, index, members, record)
        stack.callback(played.drop)
        for step in case.steps:
            played.step(step)
        played.end_connection()
        record.wait_settled(_SETTLE)
        played.note_members()
    return played.facts


# --- making comparable -------------------------------------------------------------------------

_EXPIRES = re.compile(rb"expires=([^;]*)")
_AT_ONCE = 1.3
"""Seconds around the request's start in which a date can be that of its arrival."""
_SLOW = 30.0
"""The same where nobody knows when the request began to arrive."""


def comparable(response: Response, own: bool, slack: float = _AT_ONCE) -> Iterator[bytes]:
    """Field lines with dates of today replaced, and without the framing of own pages."""
    date = _today(response.value(b"date") or b"", response.started)
    for line in response.fields:
        name, _, value = line.partition(b":")
        key = name.lower()
        if own and key in (b"content-length", b"transfer-encoding"):
            continue
        stamp = _today(value, response.started) if key in (b"date", b"expires") else None
        if stamp is not None:
            late = stamp - response.started > slack
            yield name + (b": (later)" if late else b": (at arrival)")
        elif key == b"set-cookie" and b"BALANCEME=balancer." in value:
            yield _EXPIRES.sub(_distance(date, response.started), line)
        else:
            yield line


def _today(value: bytes, started: float) -> float | None:
    """A date that was made for this response, not by a script."""
    stamp = _stamp(value.strip(), "%a, %d %b %Y %H:%M:%S GMT")
    return stamp if stamp is not None and abs(stamp - started) < _SLOW else None


def _distance(date: float | None, started: float) -> Callable[[re.Match[bytes]], bytes]:
    def replace(match: re.Match[bytes]) -> bytes:
        stamp = _stamp(match[1], "%a, %d-%b-%Y %H:%M:%S GMT")
        if stamp is None:
            return match[0]
        if date is not None:
            return b"expires=(date + %d s)" % round(stamp - date)
        return b"expires=(request + %d s)" % (5 * round((stamp - started) / 5))

    return replace


def _stamp(value: bytes, form: str) -> float | None:
    try:
        return datetime.strptime(value.decode("ascii"), form).replace(tzinfo=UTC).timestamp()
    except (ValueError, UnicodeDecodeError):
        return None


# --- comparing ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """One fact that is not the same on both sides; a missing fact is None."""

    fact: str
    apache: Fact
    ours: Fact

    def __str__(self) -> str:
        return f"{self.fact}\n    Apache:    {self.apache!r}\n    balanceme: {self.ours!r}"


def compare(apache: Facts, ours: Facts) -> list[Difference]:
    """All facts that differ, in the order of Apache's facts."""
    names = list(apache) + [name for name in ours if name not in apache]
    return [
        Difference(name, apache.get(name), ours.get(name))
        for name in names
        if apache.get(name) != ours.get(name)
    ]
