"""A client that sends exact bytes over TLS and takes answers apart without repairing them.

Sending and receiving happen in one loop, so that an answer that comes before a large request was
sent never blocks either side.
"""

import select
import socket
import ssl
import time
from dataclasses import dataclass, field
from enum import Enum

_STEP = 0.5


class End(Enum):
    """How a response's body ended."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"
    NOTHING = "closed without an answer"
    TIMEOUT = "no end in time"


@dataclass
class Response:
    """One final response, and the interim ones before it."""

    status_line: bytes = b""
    fields: list[bytes] = field(default_factory=list)
    body: bytes = b""
    framing: str = "none"
    trailers: bytes = b""
    end: End = End.COMPLETE
    interim: list[list[bytes]] = field(default_factory=list)
    started: float = 0.0

    def value(self, name: bytes) -> bytes | None:
        """The first field of that name."""
        for line in self.fields:
            key, _, value = line.partition(b":")
            if key.lower() == name:
                return value.strip()
        return None


class _ShortError(Exception):
    """The stream ended, or time was up, before what was asked for had come."""

    def __init__(self, end: End) -> None:
        self.end = end


class RawClient:
    """One connection to a frontend."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        tls: ssl.SSLContext | None,
        server_name: str | None = None,
        patience: float = 3.0,
    ) -> None:
        self.patience = patience
        self.closed = False
        self._incoming = bytearray()
        self._outgoing = bytearray()
        raw = socket.create_connection(address, timeout=patience)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._socket = tls.wrap_socket(raw, server_hostname=server_name) if tls else raw
        except OSError:
            raw.close()
            raise
        self._socket.setblocking(False)

    @property
    def port(self) -> int:
        """Its own port."""
        port: int = self._socket.getsockname()[1]
        return port

    # --- bytes -----------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send at once what the socket takes; the rest goes while something is awaited."""
        self._outgoing += data
        self._flush()

    def send_all(self, data: bytes) -> None:
        """Send it all, taking in whatever comes meanwhile."""
        self.send(data)
        deadline = time.monotonic() + self.patience
        while self._outgoing and not self.closed and time.monotonic() < deadline:
            self._pump(deadline)

    def _flush(self) -> None:
        while self._outgoing and not self.closed:
            try:
                sent = self._socket.send(self._outgoing[:65536])
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError, BlockingIOError):
                return
            except OSError:
                # The other side is gone; what it sent before that may still be read.
                self._outgoing.clear()
                return
            del self._outgoing[:sent]

    def _pump(self, deadline: float) -> None:
        """Move bytes both ways once; ``closed`` is set when nothing more can come."""
        pending = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()
        if not pending:
            wait = min(_STEP, max(0.0, deadline - time.monotonic()))
            # Not select(2): a run of all tests may have a descriptor beyond its 1024.
            poll = select.poll()
            wanted = select.POLLIN | (select.POLLOUT if self._outgoing else 0)
            poll.register(self._socket, wanted)
            poll.poll(1000 * wait)
        self._flush()
        try:
            data = self._socket.recv(65536)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            return
        except OSError:
            data = b""
        if not data:
            self.closed = True
        self._incoming += data

    def _need(self, deadline: float) -> None:
        if self.closed:
            raise _ShortError(End.TRUNCATED)
        if time.monotonic() >= deadline:
            raise _ShortError(End.TIMEOUT)
        self._pump(deadline)

    def _until(self, mark: bytes, deadline: float) -> bytes:
        while (at := self._incoming.find(mark)) < 0:
            self._need(deadline)
        return self._take(at + len(mark))

    def _take(self, length: int) -> bytes:
        data = bytes(self._incoming[:length])
        del self._incoming[:length]
        return data

    # --- answers ---------------------------------------------------------------------------

    def read_response(self, method: bytes) -> Response:
        """The next final response with all interim ones before it, as far as they come."""
        response = Response(started=time.time())
        deadline = time.monotonic() + self.patience
        try:
            self._read_head(response, deadline)
            self._read_body(response, method, deadline)
        except _ShortError as short:
            response.end = short.end
            if not response.status_line:
                self._headless(response)
        return response

    def _headless(self, response: Response) -> None:
        response.body += self._take(len(self._incoming))
        if not response.body and response.end is End.TRUNCATED:
            response.end = End.NOTHING

    def _read_head(self, response: Response, deadline: float) -> None:
        while True:
            while len(self._incoming) < 5:
                self._need(deadline)
            if not self._incoming.startswith(b"HTTP/"):
                response.framing = "no head"
                self._read_to_end(response, deadline)
                raise _ShortError(End.COMPLETE)
            lines = self._until(b"\r\n\r\n", deadline)[:-4].split(b"\r\n")
            status = lines[0][9:12]
            if status[:1] != b"1" or status == b"101":
                response.status_line, response.fields = lines[0], lines[1:]
                return
            response.interim.append(lines)

    def _read_body(self, response: Response, method: bytes, deadline: float) -> None:
        status = response.status_line[9:12]
        length = response.value(b"content-length")
        if method == b"HEAD" or status in (b"101", b"204", b"304"):
            return
        if (response.value(b"transfer-encoding") or b"").lower() == b"chunked":
            response.framing = "chunked"
            self._read_chunks(response, deadline)
        elif length is not None:
            response.framing = "length"
            self._read_length(response, int(length), deadline)
        else:
            response.framing = "close"
            self._read_to_end(response, deadline)

    def _read_chunks(self, response: Response, deadline: float) -> None:
        while size := int(self._until(b"\r\n", deadline), 16):
            self._read_length(response, len(response.body) + size, deadline)
            self._until(b"\r\n", deadline)
        while (line := self._until(b"\r\n", deadline)) != b"\r\n":
            response.trailers += line

    def _read_length(self, response: Response, total: int, deadline: float) -> None:
        while True:
            response.body += self._take(total - len(response.body))
            if len(response.body) == total:
                return
            self._need(deadline)

    def _read_to_end(self, response: Response, deadline: float) -> None:
        while not self.closed:
            self._need(deadline)
        response.body += self._take(len(self._incoming))

    def wait_interim(self) -> list[bytes]:
        """The next head, without taking it; empty when none comes."""
        deadline = time.monotonic() + self.patience
        try:
            while (at := self._incoming.find(b"\r\n\r\n")) < 0:
                self._need(deadline)
        except _ShortError:
            return []
        return bytes(self._incoming[:at]).split(b"\r\n")

    def read_exactly(self, length: int) -> bytes:
        """That many bytes, or what came of them."""
        deadline = time.monotonic() + self.patience
        try:
            while len(self._incoming) < length:
                self._need(deadline)
        except _ShortError:
            pass
        return self._take(length)

    def wait_closed(self, seconds: float) -> bool:
        """Whether the other side closes within that time."""
        deadline = time.monotonic() + seconds
        while not self.closed and time.monotonic() < deadline:
            self._pump(deadline)
        return self.closed

    # --- end -------------------------------------------------------------------------------

    def half_close(self) -> None:
        """Say that nothing more will be sent, as far as TCP goes."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close without a word."""
        self._socket.close()
