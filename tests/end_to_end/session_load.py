"""Sessions that keep their cookies and ask again and again, and what became of each request."""

import asyncio
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, Self

# How long, in seconds, a client waits for an answer, and between two requests.
PATIENCE = 1.5
PAUSE = 0.1


class Answer(NamedTuple):
    """One request of a session: when it was sent and answered, and by whom."""

    sent: float
    came: float
    # empty if the request was lost: cut off, timed out, or answered by the proxy alone
    member: str
    # 0 without an answer
    status: int


@dataclass
class Session:
    """One browser's connection and cookie."""

    address: tuple[str, int]
    cookie: bytes = b""
    answers: list[Answer] = field(default_factory=list)

    async def run(self, until: asyncio.Event) -> None:
        """Ask, again and again."""
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not until.is_set():
            sent = time.monotonic()
            try:
                async with asyncio.timeout(PATIENCE):
                    streams = streams or await asyncio.open_connection(*self.address)
                    status, member, keep = await self._ask(*streams)
            except (OSError, EOFError, TimeoutError):
                status, member, keep = 0, "", False
            self.answers.append(Answer(sent, time.monotonic(), member, status))
            if streams is not None and not keep:
                streams[1].close()
                streams = None
            await asyncio.sleep(PAUSE)
        if streams is not None:
            streams[1].close()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[int, str, bool]:
        cookie = b"Cookie: %b\r\n" % self.cookie if self.cookie else b""
        writer.write(b"GET / HTTP/1.1\r\nHost: mail.example.org\r\n%b\r\n" % cookie)
        head = await reader.readuntil(b"\r\n\r\n")
        line, *fields = head.lower().split(b"\r\n")
        named = dict(each.split(b": ", 1) for each in fields if each)
        body = await reader.readexactly(int(named[b"content-length"]))
        status = int(line.split()[1])
        if b"set-cookie" in named:
            at = head.lower().index(b"set-cookie: ") + len(b"set-cookie: ")
            self.cookie = head[at:].partition(b";")[0]
        keep = named.get(b"connection") != b"close"
        return status, body.decode() if status == 200 else "", keep


class Load:
    """Many sessions at once, each on a member that it is told."""

    def __init__(self, address: tuple[str, int], routes: list[str], each: int) -> None:
        self.sessions = [
            Session(address, f"BALANCEME=balancer.{route}".encode())
            for route in routes
            for _ in range(each)
        ]
        self._until = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(each.run(self._until)) for each in self.sessions]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._until.set()
        await asyncio.wait(self._tasks, timeout=10)

    def lost(self, since: float) -> list[Answer]:
        """Requests from then on that no member answered."""
        return [
            answer
            for session in self.sessions
            for answer in session.answers
            if answer.came >= since and not answer.member
        ]

    def served_again(self, since: float) -> float:
        """Seconds after which every session had been answered by a member again, and was since."""
        latest = 0.0
        for session in self.sessions:
            after = [answer for answer in session.answers if answer.came >= since]
            lost = [place for place, answer in enumerate(after) if not answer.member]
            first = lost[-1] + 1 if lost else 0
            assert first < len(after), "a session isn't served"
            latest = max(latest, after[first].came - since)
        return latest

    def moves(self, since: float) -> list[tuple[str, str, float]]:
        """Each change of member from then on: from, to, when."""
        found = []
        for session in self.sessions:
            served = [answer for answer in session.answers if answer.member]
            for before, after in pairwise(served):
                if after.came >= since and before.member != after.member:
                    found.append((before.member, after.member, after.came))
        return found
