"""A frontend's listening socket: who is let in, and what comes before HTTP.

A connection is announced by a PROXY preamble where the frontend expects one, then counted, then
secured. Only then is there a ``FrontendConnection`` that reads. This is the only place of the data
plane with a task for a client: the TLS handshake, once for each connection.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple

from proxy.core import proxy_protocol
from proxy.core.errors import ClientError
from proxy.core.proxy_protocol import Ends
from proxy.dataplane.admission import EXHAUSTED
from proxy.dataplane.flow import AT_ONCE
from proxy.dataplane.frontend import Frontend
from proxy.dataplane.frontend_connection import TLS_SHUTDOWN, FrontendConnection
from proxy.dataplane.notices import Notice

log = logging.getLogger("balanceme")

# Connections taken from the kernel in one go, before others get their turn. With 64 a flood of
# handshakes that are thrown away leaves some 30 MB of fragmented memory, with 8 hardly one.
BATCH = 8
# How long, in seconds, nothing is accepted while the system has nothing left for a connection.
# Precedents: asyncio 1 s, nginx 0.5 s.
PAUSE = 0.5
# For how long, in seconds, a worker with more clients than others lets these accept first.
YIELD = 0.002
# For how long, in seconds, accepting must have gone well before it is said to be over.
RECOVERY = 2.0


class Security(NamedTuple):
    """How connections are secured: the TLS context, and seconds for a whole handshake."""

    context: ssl.SSLContext
    handshake: float


class Acceptor:
    """Accepts one frontend's connections."""

    __slots__ = (
        "_announced_badly",
        "_announcements",
        "_frontend",
        "_handshakes",
        "_loop",
        "_recovery",
        "_socket",
        "_timer",
        "_troubled",
        "_yielded",
        "_yields",
        "security",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listening: socket.socket,
        frontend: Frontend,
        security: Security | None,
        yields: Callable[[], bool] = lambda: False,
    ) -> None:
        """``yields`` tells whether others who accept from this socket should take the next one."""
        self._loop = loop
        self._socket = listening
        self._socket.settimeout(0)
        self._frontend = frontend
        # how connections are secured from now on
        self.security = security
        self._handshakes: set[asyncio.Task[None]] = set()
        self._announcements: set[Announcement] = set()
        # whether others were just let first
        self._yielded = False
        # while nothing is accepted: until when
        self._timer: asyncio.TimerHandle | None = None
        # whether the system had no room lately, and until when it may show that again
        self._troubled = False
        self._recovery: asyncio.TimerHandle | None = None
        self._yields = yields
        self._announced_badly = Notice("connections closed: no valid PROXY preamble")

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What is said of connections that were closed."""
        return (self._announced_badly,)

    def start(self) -> None:
        """Accept from now on."""
        self._loop.add_reader(self._socket, self._accept)

    def close(self) -> None:
        """Accept nothing more; handshakes under way may end."""
        for timer in (self._timer, self._recovery):
            if timer is not None:
                timer.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    # --- accepting ---------------------------------------------------------------------------

    def _accept(self) -> None:
        for number in range(BATCH):
            if self._yields() and not (number == 0 and self._yielded):
                self._yield()
                return
            self._yielded = False
            try:
                sock, address = self._socket.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._pause(error)
                    return
                continue  # this client is gone again
            sock.settimeout(0)
            if not self._frontend.announces(address[0]):
                self.serve(sock, address[0], None)
            elif self._frontend.admission.has_room(len(self._announcements)):
                Announcement(self, self._frontend, sock, address[0])
            else:
                _close(sock)

    def _yield(self) -> None:
        """Let others accept for a moment, and only for that: maybe none of them can."""
        self._loop.remove_reader(self._socket)
        self._yielded = True
        self._timer = self._loop.call_later(YIELD, self.start)

    def _pause(self, error: OSError) -> None:
        """Leave clients in the kernel's queue for a while; said once, until it is over."""
        self._loop.remove_reader(self._socket)
        if self._recovery is not None:
            self._recovery.cancel()
        if not self._troubled:
            self._troubled = True
            log.warning(
                "no connection can be accepted: %s; accepting pauses."
                " Raise the limit of open files, or lower max_connections",
                error.strerror,
            )
        self._timer = self._loop.call_later(PAUSE, self._resume)

    def _resume(self) -> None:
        self.start()
        self._recovery = self._loop.call_later(RECOVERY, self._recovered)

    def _recovered(self) -> None:
        self._troubled = False
        log.warning("connections are accepted again")

    def serve(self, sock: socket.socket, address: str, ends: Ends | None) -> None:
        """Let a client in, and secure its connection; ``ends`` is what a preamble told of it."""
        address = address if ends is None else ends.source
        if not self._frontend.admission.admit(address):
            _close(sock)
            return
        connection = FrontendConnection(self._frontend, address, ends)
        task = self._loop.create_task(self._begin(sock, connection))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    def refuse(self, sock: socket.socket) -> None:
        """Close a connection that was not announced as it should be."""
        sock.close()
        self._announced_badly.happened()

    @property
    def busy(self) -> bool:
        """Whether connections are being announced or secured."""
        return bool(self._announcements or self._handshakes)

    def add_reader(self, announcement: "Announcement", sock: socket.socket) -> None:
        """Tell ``announcement`` when there is something to read."""
        self._announcements.add(announcement)
        self._loop.add_reader(sock, announcement.readable)

    def remove_reader(self, announcement: "Announcement", sock: socket.socket) -> None:
        """Tell it no more."""
        self._announcements.discard(announcement)
        self._loop.remove_reader(sock)

    async def _begin(self, sock: socket.socket, connection: FrontendConnection) -> None:
        security = self.security
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=security.context if security else None,
                ssl_handshake_timeout=security.handshake if security else None,
                ssl_shutdown_timeout=TLS_SHUTDOWN if security else None,
            )
        except OSError as error:  # ssl.SSLError and TimeoutError are among them
            log.debug("handshake with %s: %s", connection.address, error)
            connection.leave()

    def __repr__(self) -> str:
        return f"<Acceptor {len(self._handshakes)} handshakes>"


def _close(sock: socket.socket) -> None:
    """Close a connection by a reset, which costs neither side anything more."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    sock.close()


class Announcement:
    """A connection whose PROXY preamble is being read; nothing behind it is touched (H45)."""

    __slots__ = ("_acceptor", "_address", "_data", "_frontend", "_socket", "deadline")

    def __init__(
        self, acceptor: Acceptor, frontend: Frontend, sock: socket.socket, address: str
    ) -> None:
        self._acceptor = acceptor
        self._frontend = frontend
        self._socket = sock
        self._address = address
        self._data = b""
        self.deadline = frontend.clock.monotonic() + frontend.timeouts.head
        frontend.deadlines.add(self)
        acceptor.add_reader(self, sock)

    def readable(self) -> None:
        """There is something to read, or the proxy before us has gone."""
        try:
            while count := proxy_protocol.missing(self._data):
                piece = self._socket.recv(count)
                if not piece:
                    self._end()
                    self._socket.close()  # most often a check whether we are there
                    return
                self._data += piece
            ends = proxy_protocol.read(self._data)
        except BlockingIOError:
            return
        except (ClientError, OSError):
            self._end()
            self._acceptor.refuse(self._socket)
            return
        self._end()
        self._acceptor.serve(self._socket, self._address, ends)

    def expired(self, now: float) -> None:
        """The deadline has passed."""
        self._end()
        self._acceptor.refuse(self._socket)

    def _end(self) -> None:
        self._frontend.deadlines.discard(self)
        self._acceptor.remove_reader(self, self._socket)

    def __repr__(self) -> str:
        return f"<Announcement from {self._address}, {len(self._data)} bytes>"
