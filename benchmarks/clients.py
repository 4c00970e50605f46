"""The clients wrk can't be: full handshakes, and connections that are held open.

``python -m benchmarks.clients handshakes PORT CONNECTIONS FILE...`` makes one request a connection,
never resumes a TLS session, and prints on SIGINT what it did (wrk and h2load both resume when they
connect again). ``python -m benchmarks.clients hold PORT FILE`` reads numbers from standard input:
each opens so many more connections and answers with how many are open and how many were lost.
"""

import asyncio
import json
import select
import signal
import socket
import ssl
import sys
from collections import deque
from itertools import cycle
from pathlib import Path
from typing import cast

import uvloop

_AT_ONCE = 50
_READ_BYTES = 65536


def tls_context() -> ssl.SSLContext:
    """TLS 1.3 without a look at who the certificate is from."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# --- handshakes --------------------------------------------------------------------------------


class Handshake:
    """One connection: handshake, request, response, end. A step runs until it has to wait."""

    def __init__(self, context: ssl.SSLContext, port: int, text: bytes) -> None:
        raw = socket.create_connection(("127.0.0.1", port))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.settimeout(0)
        self.socket = context.wrap_socket(raw, do_handshake_on_connect=False)
        self._text = text
        self._asked = False
        self.answer = b""

    def step(self) -> bool:
        """Go on; True when the connection has ended."""
        try:
            if not self._asked:
                self.socket.do_handshake()
                self.socket.send(self._text)
                self._asked = True
            while data := self.socket.recv(_READ_BYTES):
                self.answer += data
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            return True
        return True

    @property
    def has_succeeded(self) -> bool:
        """A whole answer after a handshake that was not shortened."""
        head, end, body = self.answer.partition(b"\r\n\r\n")
        length = b"content-length: %d" % len(body)
        good = head.startswith(b"HTTP/1.1 200 ") and length in head.lower()
        return bool(end) and good and not self.socket.session_reused


class HandshakeClient:
    """So many connections at a time, each replaced by a new one when it ends."""

    def __init__(self, port: int, connections: int, texts: list[bytes]) -> None:
        self._port = port
        self._connections = connections
        self._texts = cycle(texts)
        self._context = tls_context()
        self._poll = select.epoll()
        self._open: dict[int, Handshake] = {}
        self._is_over = False
        self.succeeded = 0
        self.failed = 0

    def stop(self, *_: object) -> None:
        """Open no more connections and return from ``run`` soon."""
        self._is_over = True

    def run(self) -> None:
        """Until stopped."""
        for _ in range(self._connections):
            self._connect()
        while not self._is_over:
            for number, _ in self._poll.poll(0.2):
                if self._open[number].step():
                    self._ended(number)

    def _connect(self) -> None:
        handshake = Handshake(self._context, self._port, next(self._texts))
        number = handshake.socket.fileno()
        self._open[number] = handshake
        self._poll.register(number, select.EPOLLIN)
        handshake.step()

    def _ended(self, number: int) -> None:
        handshake = self._open.pop(number)
        if handshake.has_succeeded:
            self.succeeded += 1
        else:
            self.failed += 1
        self._poll.unregister(number)
        handshake.socket.close()
        self._connect()


def handshakes(port: int, connections: int, texts: list[bytes]) -> None:
    """Drive until SIGINT, then print the outcome as wrk's script does."""
    client = HandshakeClient(port, connections, texts)
    signal.signal(signal.SIGINT, client.stop)
    client.run()
    print(json.dumps({"requests": client.succeeded, "failed": client.failed}))


# --- held connections --------------------------------------------------------------------------


class HeldConnection(asyncio.Protocol):
    """Sends its request as soon as it is connected and then never closes."""

    def __init__(self, client: "HoldingClient") -> None:
        self._client = client
        self._answer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The request goes out at once."""
        self._client.open += 1
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._client.text)

    def data_received(self, data: bytes) -> None:
        """Answers are small; one counts as soon as its head has begun well."""
        if not self._answer:
            self._client.answered += data.startswith(b"HTTP/1.1 200 ")
        self._answer += data[:1]

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody but the proxy closes these."""
        self._client.lost += 1


class HoldingClient:
    """Opens connections on command and counts what became of them."""

    def __init__(self, port: int, text: bytes) -> None:
        self.text = text
        self.open = 0
        self.answered = 0
        self.lost = 0
        self._port = port
        self._context = tls_context()

    async def run(self) -> None:
        """Obey the numbers on standard input until it closes."""
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            await self._open_more(int(line))
            counts = {"open": self.open, "answered": self.answered, "lost": self.lost}
            print(json.dumps(counts), flush=True)

    async def _open_more(self, count: int) -> None:
        waiting = deque(range(count))
        await asyncio.gather(*(self._open_some(waiting) for _ in range(_AT_ONCE)))

    async def _open_some(self, waiting: deque[int]) -> None:
        loop = asyncio.get_running_loop()
        while waiting:
            waiting.pop()
            await loop.create_connection(
                lambda: HeldConnection(self), "127.0.0.1", self._port, ssl=self._context
            )


def hold(port: int, text: bytes) -> None:
    """Hold connections until standard input closes."""
    uvloop.install()
    asyncio.run(HoldingClient(port, text).run())


def main(arguments: list[str]) -> None:
    """Run the one that is named first."""
    if arguments[0] == "handshakes":
        texts = [Path(name).read_bytes() for name in arguments[3:]]
        handshakes(int(arguments[1]), int(arguments[2]), texts)
    else:
        hold(int(arguments[1]), Path(arguments[2]).read_bytes())


if __name__ == "__main__":
    main(sys.argv[1:])
