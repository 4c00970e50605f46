"""Servers of a few lines that do what no healthy server does, and a way to ask them."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from proxy.control.probes.probe import probe
from proxy.control.probes.result import LONGEST_TEXT, NO_FILES, CheckFiles, Result, Target
from proxy.core.settings import HealthCheck

HOST = "127.0.0.1"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]]


class Fake:
    """A server that does to each connection what a test says."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.port = 0
        # what each connection brought, up to its end, once it has ended
        self.heard: list[bytes] = []
        self._ended = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        heard = bytearray()
        feed = reader.feed_data

        def keep(data: Any) -> None:
            heard.extend(data)
            feed(data)

        reader.feed_data = keep  # type: ignore[method-assign]
        try:
            await self._talk(reader, writer)
            while await reader.read(65536):
                pass
        except (OSError, asyncio.CancelledError):
            pass  # the probe had enough, or the test
        finally:
            self.heard.append(bytes(heard))
            self._ended.set()
            writer.close()

    async def all_said(self) -> bytes:
        """What the first connection brought until the probe closed it."""
        async with asyncio.timeout(10):
            await self._ended.wait()
        return self.heard[0]


@asynccontextmanager
async def served(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[Fake]:
    """A server on a loopback port."""
    fake = Fake(talk)
    server = await asyncio.start_server(fake, HOST, 0, ssl=tls)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()


def says(*pieces: bytes, then_close: bool = False) -> Talk:
    """Sends each piece: the first at once, each other once something has come."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for index, piece in enumerate(pieces):
            if index:
                await reader.read(65536)
            writer.write(piece)
            await writer.drain()
        if then_close:
            writer.close()

    return talk


def answers(*pieces: bytes, then_close: bool = False) -> Talk:
    """The same for a server that doesn't speak first."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        await says(*pieces, then_close=then_close)(reader, writer)

    return talk


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says nothing."""


def endless(piece: bytes, *, first: bytes = b"") -> Talk:
    """Sends the same piece for ever."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    return talk


def dripping(piece: bytes) -> Talk:
    """Sends a byte now and then: never idle for long, and never done in time."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            for index in range(len(piece)):
                writer.write(piece[index : index + 1])
                await writer.drain()
                await asyncio.sleep(0.02)

    return talk


async def ask(port: int, files: CheckFiles = NO_FILES, **words: Any) -> Result:
    """Probe a port of this machine; every result is fit for people."""
    check = HealthCheck.model_validate({"timeout": "10s", **words})
    target = Target(HOST, port, "server1", f"http://{HOST}:{port}")
    if check.type.value != "command" and check.port is None:
        check = check.model_copy(update={"port": port})
    result = await probe(check, target, files)
    assert result.text
    assert result.text.isprintable()
    assert len(result.text) <= LONGEST_TEXT
    return result
