"""A member that does exactly what its script says and writes down every byte it was sent.

It speaks HTTP over plain sockets on purpose: no library tidies what it sends, and none hides
what it received. One thread accepts, one more serves each connection.

A script is the list of what the member does for one request, after it read the head:

* bytes are sent as they are, after ``@SELF@``, ``@HOST@`` and ``@OTHER@`` in the head were filled
  in: the member's address with and without port, the other member's address;
* a number is a pause in seconds, a ``threading.Event`` one until the test sets it;
* a ``Do`` is anything else: read the body, close, reset, echo.

A script without ``READ_BODY`` or ``LEAVE_BODY`` reads the body first, and sends ``100 Continue``
to a head that asks for it. After the script the connection is kept for the next request.
"""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_IDLE_LIMIT = 10.0
# How long, in seconds, a script is held at most, so that a test that failed ends.
_HELD_LIMIT = 20.0


class Do(Enum):
    """What a script can ask for besides bytes and pauses."""

    READ_BODY = "read the whole body now"
    LEAVE_BODY = "don't read the body"
    CLOSE = "close the connection in order"
    RESET = "close the connection with a reset"
    ECHO = "send back what comes until the other side closes"
    WAIT_CLOSE = "wait until the other side closes"


Step = bytes | float | Do | threading.Event
Script = Sequence[Step]


class Held(list[bytes | float | Do]):
    """A script that does nothing after it has read a head, until it is let."""

    def __init__(self, *steps: bytes | float | Do) -> None:
        super().__init__(steps)
        self.let = threading.Event()

    def __iter__(self) -> Iterator[bytes | float | Do]:
        self.let.wait(_HELD_LIMIT)
        return super().__iter__()


class GoneError(Exception):
    """The other side closed before the message was complete."""


@dataclass
class Seen:
    """One request as it arrived."""

    member: str
    connection: int
    head: bytes
    body: bytes = b""
    framing: str = "none"
    trailers: bytes = b""
    complete: bool = False
    """The whole body came, or the script didn't want it."""
    aborted: bool = False
    """The other side closed while the body was read, or while the script waited for that."""
    done: bool = False
    """The script has ended."""

    @property
    def lines(self) -> list[bytes]:
        """Request line and field lines, without line ends."""
        return self.head[:-4].split(b"\r\n")

    @property
    def target(self) -> bytes:
        """The request target, empty when the request line has none."""
        return [*self.lines[0].split(b" "), b""][1]

    def value(self, name: bytes) -> bytes | None:
        """The first field of that name."""
        for line in self.lines[1:]:
            key, _, value = line.partition(b":")
            if key.lower() == name:
                return value.strip()
        return None


@dataclass
class Record:
    """What a group of members saw, in the order of arrival."""

    seen: list[Seen] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, entry: Seen) -> None:
        """Note a head that has just arrived."""
        with self.lock:
            self.seen.append(entry)

    def settled(self) -> bool:
        """Whether the scripts of all requests that arrived have ended."""
        with self.lock:
            return all(entry.done for entry in self.seen)

    def wait_settled(self, seconds: float) -> bool:
        """Give requests under way that long to end; whether they did."""
        deadline = time.monotonic() + seconds
        while not (settled := self.settled()) and time.monotonic() < deadline:
            time.sleep(0.005)
        return settled


def answer(body: bytes = b"", *fields: bytes, status: bytes = b"200 OK") -> bytes:
    """A whole response with its length, as most scripts need it."""
    lines = [b"HTTP/1.1 " + status, *fields, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class RecordingMember:
    """A scripted member on a real address; it can be stopped and started again."""

    def __init__(
        self,
        name: str,
        host: str,
        port: int = 0,
        *,
        scripts: Mapping[bytes, Script] | None = None,
        record: Record | None = None,
    ) -> None:
        self.name = name
        self.scripts = dict(scripts or {})
        self.record = record if record is not None else Record()
        self.other = b""
        self._address = (host, port)
        self._listener: socket.socket | None = None
        self._connections: dict[int, socket.socket] = {}
        self._threads: list[threading.Thread] = []
        self._numbers = 0
        self._lock = threading.Lock()

    # --- life ------------------------------------------------------------------------------

    @property
    def authority(self) -> bytes:
        """Its address as a URL has it."""
        return b"%s:%d" % (self._address[0].encode(), self._address[1])

    @property
    def connected(self) -> int:
        """How many connections there are."""
        with self._lock:
            return len(self._connections)

    def start(self) -> None:
        """Listen, on the same port as before when it was stopped."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(self._address)
        listener.listen(64)
        self._address = listener.getsockname()
        self._listener = listener
        self._run(self._accept, listener)

    def stop(self) -> None:
        """Refuse connections from now on and close those that are open."""
        listener, self._listener = self._listener, None
        if listener is not None:
            _shut(listener)
        with self._lock:
            connections = list(self._connections.values())
        for connection in connections:
            _shut(connection)
        for thread in self._threads:
            thread.join(_IDLE_LIMIT)
        self._threads.clear()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    # --- one connection --------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                listener.close()
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(_IDLE_LIMIT)
            with self._lock:
                self._numbers += 1
                number = self._numbers
                self._connections[number] = connection
            self._run(self._serve, connection, number)

    def _serve(self, connection: socket.socket, number: int) -> None:
        wire = _Wire(connection)
        try:
            while self._serve_one(wire, number):
                pass
        except (GoneError, OSError):
            pass
        finally:
            with self._lock:
                self._connections.pop(number, None)
            _shut(connection)
            connection.close()

    def _serve_one(self, wire: "_Wire", number: int) -> bool:
        seen = Seen(self.name, number, wire.read_head())
        self.record.add(seen)
        try:
            return self._play(wire, seen)
        finally:
            seen.done = True

    def _script_for(self, seen: Seen) -> Script:
        path = seen.target.partition(b"?")[0]
        script = self.scripts.get(path) or self.scripts.get(b"*") or [answer(self.name.encode())]
        if Do.READ_BODY in script or Do.LEAVE_BODY in script:
            return script
        expects = (seen.value(b"expect") or b"").lower() == b"100-continue"
        return [*([CONTINUE] if expects else []), Do.READ_BODY, *script]

    def _play(self, wire: "_Wire", seen: Seen) -> bool:
        """Do what the script says; whether the connection can take another request."""
        script = self._script_for(seen)
        seen.complete = Do.LEAVE_BODY in script
        for step in script:
            if isinstance(step, bytes):
                wire.send(self._filled(step))
            elif isinstance(step, Do):
                if not self._do(step, wire, seen):
                    return False
            elif isinstance(step, threading.Event):
                step.wait(_IDLE_LIMIT)
            else:
                time.sleep(step)
        return True

    def _do(self, step: Do, wire: "_Wire", seen: Seen) -> bool:
        if step is Do.READ_BODY:
            wire.read_body(seen)
        elif step is Do.ECHO:
            wire.echo()
            return False
        elif step is Do.WAIT_CLOSE:
            wire.wait_close()
            seen.aborted = True
            return False
        elif step is Do.RESET:
            wire.reset()
            return False
        elif step is Do.CLOSE:
            return False
        return True

    def _filled(self, data: bytes) -> bytes:
        data = data.replace(b"@SELF@", self.authority).replace(b"@OTHER@", self.other)
        return data.replace(b"@HOST@", self._address[0].encode())


class _Wire:
    """One accepted connection, read by lines and lengths."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray()

    def _fill(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise GoneError
        self._buffer += data

    def read_head(self) -> bytes:
        """Everything up to the empty line, with it."""
        return self._read_until(b"\r\n\r\n")

    def _read_until(self, mark: bytes) -> bytes:
        while (at := self._buffer.find(mark)) < 0:
            self._fill()
        return self._take(at + len(mark))

    def _read_exactly(self, length: int) -> bytes:
        while len(self._buffer) < length:
            self._fill()
        return self._take(length)

    def _take(self, length: int) -> bytes:
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        return data

    def read_body(self, seen: Seen) -> None:
        """The body by the head's framing, into ``seen``; what came of a broken one stays there."""
        coding = seen.value(b"transfer-encoding")
        length = seen.value(b"content-length")
        try:
            if coding is not None:
                seen.framing = "chunked"
                self._read_chunks(seen)
            elif length is not None:
                seen.framing = "length"
                self._read_length(seen, int(length))
        except (GoneError, OSError):
            seen.aborted = True
            raise
        seen.complete = True

    def _read_length(self, seen: Seen, length: int) -> None:
        try:
            seen.body = self._read_exactly(length)
        except (GoneError, OSError):
            seen.body = bytes(self._buffer)
            raise

    def _read_chunks(self, seen: Seen) -> None:
        while size := int(self._read_until(b"\r\n"), 16):
            seen.body += self._read_exactly(size)
            if self._read_exactly(2) != b"\r\n":
                raise GoneError
        while (line := self._read_until(b"\r\n")) != b"\r\n":
            seen.trailers += line

    def send(self, data: bytes) -> None:
        """All of it, in one write where the socket takes it."""
        self._socket.sendall(data)

    def echo(self) -> None:
        """Send back what comes until the other side closes."""
        while data := self._take(len(self._buffer)) or self._socket.recv(65536):
            self._socket.sendall(data)

    def wait_close(self) -> None:
        """Read and forget until the other side closes."""
        while self._socket.recv(65536):
            pass

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


def _shut(connection: socket.socket) -> None:
    """End a socket so that a thread that waits on it wakes up."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
