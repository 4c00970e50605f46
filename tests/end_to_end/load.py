"""Clients that never stop, and forgive nothing: what they see is what users see of a change.

Some keep their connections and ask one request after the other, by GET and by POST; some make a TLS
connection for each. None asks twice: a connection that ends without an answer to what was asked is
a failure, whoever may be to blame. A client only takes note of an end before it asks.
"""

import asyncio
import ssl
from collections import Counter
from typing import Self

from tests.end_to_end.conftest import NAME, PATIENCE, Proxy, request, until_async
from tests.end_to_end.storm import MARK, Answer, Listening

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok" + MARK
BODY = b"x" * 999 + MARK

_GET = request("/load")
_POST = request("/load", method="POST", body=BODY)
_LAST = request("/load", "Connection: close")


def member(port: int) -> Listening:
    """A member for the load; it must be there before the load, and longer."""
    return Listening(("127.0.0.1", port), {b"/load": Answer(OK)})


class Load:
    """The clients of a proxy, between entering and leaving."""

    def __init__(
        self, proxy: Proxy, trust: ssl.SSLContext | None, *, kept: int = 4, new: int = 2
    ) -> None:
        self._proxy = proxy
        self._trust = trust
        self._kept = kept
        self._new = new
        self._ends = False
        self._tasks: list[asyncio.Task[None]] = []
        self.answered = 0
        self.failures: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        kinds = [(_GET, _POST)[number % 2] for number in range(self._kept)] + [_LAST] * self._new
        self._tasks = [asyncio.create_task(self._ask(data)) for data in kinds]
        await self.goes_on(20)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ends = True
        await asyncio.wait_for(asyncio.gather(*self._tasks), PATIENCE)

    async def goes_on(self, count: int = 200) -> None:
        """Until so many more requests are answered."""
        goal = self.answered + count
        await until_async(lambda: self.answered >= goal, f"{count} more answers", 60)

    # --- clients -------------------------------------------------------------------------------

    async def _ask(self, data: bytes) -> None:
        while not self._ends:
            await self._connection(data)

    async def _connection(self, data: bytes) -> None:
        """Ask on one connection until it is closed, or all ends."""
        try:
            reader, writer = await asyncio.open_connection(
                *self._proxy.address(),
                ssl=self._trust,
                server_hostname=NAME if self._trust else None,
            )
        except OSError as error:
            self._failed(f"connecting: {error!r}")
            return
        try:
            while not self._ends and not reader.at_eof():
                writer.write(data)
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
                body = await asyncio.wait_for(reader.readexactly(3), PATIENCE)
                if not head.startswith(b"HTTP/1.1 200 ") or body != b"ok~":
                    self._failed(f"answer: {head.splitlines()[0]!r}")
                    return
                self.answered += 1
                if b"Connection: close" in head:
                    return
                await asyncio.sleep(0)
        except (OSError, EOFError, TimeoutError) as error:
            self._failed(f"no answer: {error!r}")
        finally:
            writer.transport.abort()

    def _failed(self, what: str) -> None:
        self.failures[what] += 1
