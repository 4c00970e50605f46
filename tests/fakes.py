"""Fakes for tests of the data plane: time, event loop and transports that a test decides on.

Nothing here opens a socket, sleeps or looks at the real clock, so a test is exact and quick. From
the smallest to the largest:

* ``FakeClock`` stands still until it is moved.
* ``FakeLoop`` is an event loop on that clock. It polls nothing; ``settle`` runs it until nothing
  is left to do. Whoever connects waits in ``openings`` until the test accepts or refuses.
* ``FakeTransport`` keeps what is written, obeys pause and resume, and can be ``stuck``, like a
  connection whose other side doesn't read. It is as strict as uvloop's.
* ``Peer`` is that other side: it sends, takes, ends.
* ``Stage`` is one worker's data plane between such peers, put together by ``control.worker``.
  After every step it checks what must hold at any time, and ``end`` what must be left.
* ``Script`` is a conversation written as a trace; it is played on one stage after another: whole,
  cut at every byte on either side, and with trailing bytes.
"""

import asyncio
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Sequence
from socket import SO_LINGER
from typing import Any, NamedTuple, cast

import pytest

from proxy.control import worker
from proxy.core.balancer import Balancer
from proxy.core.member import Member
from proxy.core.settings import LogFormat, Settings
from proxy.dataplane.access_log import AccessLog, Refusal
from proxy.dataplane.clock import Clock
from proxy.dataplane.deadlines import NEVER
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.exchange import Phase as ExchangePhase
from proxy.dataplane.flow import HIGH_WATER, Hold
from proxy.dataplane.frontend import Frontend
from proxy.dataplane.frontend_connection import FrontendConnection, Phase
from proxy.dataplane.member_connection import MemberConnection
from proxy.dataplane.pool import MemberPool

# 22 Nov 2026 14:15:57 GMT, the date of Apache's examples (C3).
EPOCH = 1795356957.0
# What a worker has for its end, in seconds.
STOP_TIMEOUT = 30.0
# What one connection may hold of what its client sent ahead (H37): a read, and a head.
MOST_BUFFERED = 2 * 262144


# --- time and loop -------------------------------------------------------------------------------


class FakeClock(Clock):
    """A clock that stands still until ``advance``; the Date field is the real one's."""

    __slots__ = ("passed",)

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return 1000.0 + self.passed

    def wall(self) -> float:
        """Seconds since 1970."""
        return EPOCH + self.passed

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.passed += seconds


class _NoSelector:
    """What a loop asks for events, of which there are none."""

    def select(self, timeout: float | None) -> list[object]:
        assert timeout == 0, "the loop would wait for ever: nothing is ready"
        return []


class FakeLoop(asyncio.BaseEventLoop):
    """An event loop on a ``FakeClock``, without events of its own."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._selector = _NoSelector()
        self.clock = clock
        # connections that are being opened, the oldest first
        self.openings: list[Opening] = []
        # what is called for descriptors that can be read, once a test says so
        self.readers: dict[int, Callable[[], object]] = {}
        # what a name resolves to, if not to itself; an exception is raised
        self.addresses: dict[str, list[str] | OSError] = {}
        # what nobody caught
        self.mistakes: list[str] = []
        self.tasks: list[asyncio.Task[Any]] = []

    def time(self) -> float:
        """The fake time."""
        return self.clock.monotonic()

    def _process_events(self, event_list: Sequence[object]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps."""

    def call_exception_handler(self, context: Any) -> None:
        """Keep what nobody caught, for ``run`` to raise."""
        self.mistakes.append(f"{context.get('message')}: {context.get('exception')!r}")

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """A task; it is watched, since the loop would tell of its failure much later."""
        task: asyncio.Task[Any] = super().create_task(coro, **options)
        self.tasks.append(task)
        return task

    def add_reader(  # type: ignore[override]
        self, fd: Any, callback: Callable[..., object], *args: Any
    ) -> None:
        """Keep what is to be called."""
        self.readers[fd if isinstance(fd, int) else fd.fileno()] = lambda: callback(*args)

    def remove_reader(self, fd: Any) -> bool:
        """Call nothing any more."""
        fd = fd if isinstance(fd, int) else fd.fileno()
        return self.readers.pop(fd, None) is not None

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        """The host itself as its only address, unless ``addresses`` says otherwise."""
        found = self.addresses.get(host, [host])
        if isinstance(found, OSError):
            raise found
        return [(2, 1, 6, "", (address, port)) for address in found]

    async def create_connection(  # type: ignore[override]
        self, factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Wait for the test to decide."""
        opening = Opening(self, factory, host)
        self.openings.append(opening)
        try:
            return await opening.outcome
        finally:
            if opening in self.openings:
                self.openings.remove(opening)

    def run(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Call ``callback`` inside the loop, and whatever follows from it.

        Fails on anything that nobody caught.
        """
        self.call_soon(callback, *arguments)
        self.settle()

    def settle(self) -> None:
        """Run until nothing is ready and no timer is due."""
        while self._ready or self._is_due():  # type: ignore[attr-defined]
            self.call_soon(self.stop)
            self.run_forever()
        for task in [task for task in self.tasks if task.done()]:
            self.tasks.remove(task)
            if not task.cancelled() and task.exception() is not None:
                self.mistakes.append(f"task ended with {task.exception()!r}")
        assert not self.mistakes, self.mistakes

    def _is_due(self) -> bool:
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        now = self.time()
        return any(not timer.cancelled() and timer.when() <= now for timer in timers)


class Opening:
    """A connection to a member that is being opened."""

    def __init__(
        self, loop: FakeLoop, factory: Callable[[], asyncio.Protocol], address: str
    ) -> None:
        self.loop = loop
        self.factory = factory
        self.address = address
        self.outcome: asyncio.Future[tuple[asyncio.Transport, asyncio.Protocol]] = (
            loop.create_future()
        )

    def accept(self, *, socket: object = None, stuck: bool = False) -> "Peer":
        """The member accepts, and reads nothing if ``stuck``.

        ``socket`` is what the transport says its socket is.
        """
        transport = self._transport(socket)
        transport.stuck = stuck
        self.loop.run(self._made, transport)
        return Peer(transport)

    def close_at_once(self) -> None:
        """The member accepts and closes, before anybody hears of it; to be called in the loop."""
        transport = self._transport(None)
        self._made(transport)
        transport.feed(EOF)

    def _transport(self, socket: object) -> "FakeTransport":
        transport = FakeTransport(self.loop, self.factory(), (self.address, 80), socket=socket)
        self.loop.openings.remove(self)
        return transport

    def _made(self, transport: "FakeTransport") -> None:
        transport.protocol.connection_made(transport)
        self.outcome.set_result((transport, transport.protocol))

    def refuse(self, error: OSError | None = None) -> None:
        """The member refuses, or cannot be reached."""
        self.loop.openings.remove(self)
        self.loop.run(self.outcome.set_exception, error or ConnectionRefusedError("refused"))

    def __repr__(self) -> str:
        return f"<Opening {self.address}>"


# A pipe that nobody writes to, and that is never closed.
_QUIET = os.pipe()


class FakeSocket:
    """The socket that a transport tells of: it remembers its options."""

    def __init__(self) -> None:
        self.options: dict[int, object] = {}

    def fileno(self) -> int:
        """A descriptor on which nothing ever happens."""
        return _QUIET[0]

    def setsockopt(self, _: int, option: int, value: object) -> None:
        """Remember an option's value."""
        self.options[option] = value


# --- transport and peer --------------------------------------------------------------------------


class End(NamedTuple):
    """What a peer can send instead of bytes."""

    error: OSError | None


EOF = End(None)


class FakeTransport(asyncio.Transport):
    """A connection: what our side wrote, and whether it reads.

    Writing never blocks; while ``stuck`` what is written waits, and beyond the limits that the
    protocol has set it is told to pause, inside of ``write`` as real transports do.
    """

    def __init__(
        self,
        loop: FakeLoop,
        protocol: asyncio.Protocol,
        peername: tuple[str, int],
        *,
        tls: bool = False,
        socket: object = None,
    ) -> None:
        super().__init__({"peername": peername, "socket": socket})
        self.socket = socket
        self.loop = loop
        self.protocol = protocol
        self.tls = tls
        # writing
        self.sent = bytearray()
        self.waiting = bytearray()
        self.writes = 0
        self.stuck = False
        self.high, self.low = HIGH_WATER, HIGH_WATER // 4
        self.writing_paused = False
        # how our side ended the connection, in order: "eof", "close", "abort"
        self.ends: list[str] = []
        self.lost = False
        # reading
        self.incoming: deque[bytes | End] = deque()
        self.reading = True
        self.at_eof = False

    # --- what our side calls -----------------------------------------------------------------

    def write(self, data: Any) -> None:
        """Send, or let wait while stuck."""
        if self.lost:
            raise RuntimeError("write on a connection that is gone")
        if "eof" in self.ends:
            raise RuntimeError("write after write_eof")
        if "abort" in self.ends or not data:
            return
        self.writes += 1
        self.waiting += data
        if not self.stuck:
            self.flow()
        elif not self.writing_paused and len(self.waiting) > self.high:
            self.writing_paused = True
            self.protocol.pause_writing()

    def write_eof(self) -> None:
        """Send nothing more."""
        if self.tls:
            raise NotImplementedError
        if self.lost or self.is_closing():
            raise RuntimeError("write_eof on a closing connection")
        self.ends.append("eof")

    def can_write_eof(self) -> bool:
        """Not over TLS."""
        return not self.tls

    def close(self) -> None:
        """Close once everything is sent."""
        if not self.is_closing():
            self.ends.append("close")
            if not self.waiting:
                self.loop.call_soon(self.lose, None)

    def abort(self) -> None:
        """Close at once; what waits is lost."""
        if "abort" not in self.ends:
            self.ends.append("abort")
            self.waiting.clear()
            self.loop.call_soon(self.lose, None)

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self.lost or "close" in self.ends or "abort" in self.ends

    def pause_reading(self) -> None:
        """Take nothing more from the peer."""
        self.reading = False

    def resume_reading(self) -> None:
        """Take from the peer again; an end that was read before is read again."""
        if not self.reading:
            self.reading = True
            if self.at_eof and not self.incoming:
                self.incoming.append(EOF)
            self.loop.call_soon(self.deliver)

    def is_reading(self) -> bool:
        """Whether anything is taken from the peer."""
        return self.reading and not self.is_closing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """When to pause and to resume the protocol."""
        self.high = HIGH_WATER if high is None else high
        self.low = self.high // 4 if low is None else low

    def set_read_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """When TLS stops reading while the protocol doesn't; nothing is read ahead here."""

    def get_write_buffer_size(self) -> int:
        """Bytes that wait to be sent."""
        return len(self.waiting)

    # --- what the peer does ------------------------------------------------------------------

    def flow(self, most: int | None = None) -> None:
        """Send what waits, or ``most`` bytes of it."""
        most = len(self.waiting) if most is None else most
        self.sent += self.waiting[:most]
        del self.waiting[:most]
        if self.writing_paused and len(self.waiting) <= self.low:
            self.writing_paused = False
            self.protocol.resume_writing()
        if not self.waiting and "close" in self.ends:
            self.loop.call_soon(self.lose, None)

    def feed(self, what: bytes | End) -> None:
        """Bytes or the end from the peer; they wait while our side doesn't read."""
        self.incoming.append(what)
        self.deliver()

    def deliver(self) -> None:
        """Hand our side what has arrived, as far as it reads."""
        while self.incoming and self.is_reading():
            what = self.incoming.popleft()
            if isinstance(what, bytes):
                self.protocol.data_received(what)
            elif what.error is not None:
                self.lose(what.error)
            else:
                self.at_eof = True
                if not self.protocol.eof_received():
                    self.close()

    def lose(self, error: OSError | None) -> None:
        """The connection is gone."""
        if not self.lost:
            self.lost = True
            self.waiting.clear()
            self.protocol.connection_lost(error)

    def __repr__(self) -> str:
        return f"<FakeTransport sent={len(self.sent)} waiting={len(self.waiting)} {self.ends}>"


class Peer:
    """The other side of a ``FakeTransport``: a client, or a member."""

    def __init__(self, transport: FakeTransport) -> None:
        self.transport = transport
        self.loop = transport.loop
        self._taken = 0
        self.check: Callable[[], None] = lambda: None

    def _run(self, callback: Callable[..., object], *arguments: Any) -> None:
        self.loop.run(callback, *arguments)
        self.check()

    def send(self, data: bytes, *, by: int = 0) -> None:
        """Send ``data``, in pieces of ``by`` bytes, or whole."""
        step = by or max(len(data), 1)
        for start in range(0, len(data), step):
            self._run(self.transport.feed, data[start : start + step])

    def end(self) -> None:
        """Send nothing more (FIN)."""
        self._run(self.transport.feed, EOF)

    def reset(self) -> None:
        """End at once (RST), whether our side reads or not."""
        self._run(self.transport.lose, ConnectionResetError("reset"))

    def stick(self) -> None:
        """Read nothing any more."""
        self.transport.stuck = True

    def flow(self, most: int | None = None) -> None:
        """Read what waits, and everything from now on; or ``most`` bytes of it only."""
        if most is None:
            self.transport.stuck = False
        self._run(self.transport.flow, most)

    def take(self) -> bytes:
        """What has arrived since the last time."""
        data = bytes(self.transport.sent[self._taken :])
        self._taken += len(data)
        return data

    def gets(self, expected: bytes) -> None:
        """What has arrived is this, however its chunks are cut."""
        assert unchunked(self.take()) == unchunked(expected)

    @property
    def ends(self) -> list[str]:
        """How our side ended the connection; empty while it stands."""
        return self.transport.ends

    @property
    def is_reset(self) -> bool:
        """Whether our side ended the connection so that it can't be taken for an orderly end."""
        socket = self.transport.socket
        lingers = isinstance(socket, FakeSocket) and SO_LINGER in socket.options
        return "abort" in self.ends and lingers

    @property
    def open(self) -> bool:
        """Whether our side may still send."""
        return not self.transport.is_closing() and "eof" not in self.transport.ends


def unchunked(data: bytes) -> list[bytes]:
    """The messages in ``data`` as heads and bodies, without the marks of chunks.

    The last chunk stays visible as ``END``, so that a body that was cut off differs.
    """
    parts: list[bytes] = []
    while data:
        head, blank, data = data.partition(b"\r\n\r\n")
        parts.append(head + blank)
        fields = head.lower()
        if b"\r\ntransfer-encoding: chunked" in fields:
            body, data = _unchunk(data)
            parts.append(body)
        elif b"\r\ncontent-length: " in fields:
            length = int(fields.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
            parts.append(data[:length])
            data = data[length:]
    return parts


def _unchunk(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        line, _, rest = data.partition(b"\r\n")
        try:
            size = int(line, 16)
        except ValueError:
            return body + data, b""
        if not size:
            return body + b"END", rest[2:]
        body += rest[:size]
        data = rest[size + 2 :]


# --- one worker's data plane ---------------------------------------------------------------------


class KeptLines(list[str]):
    """A sink that keeps its lines."""

    def write(self, lines: bytes) -> None:
        """Keep them."""
        self += lines.decode().splitlines()

    def close(self, patience: float) -> None:
        """What was kept remains."""


class KeptLog(AccessLog):
    """An access log that keeps its lines, and knows which exchanges they are for."""

    __slots__ = ("exchanges", "lines", "refusals")

    def __init__(self, log_format: LogFormat, clock: Clock) -> None:
        self.lines = KeptLines()
        super().__init__(self.lines, log_format, clock)
        self.exchanges: list[Exchange] = []
        self.refusals: list[bytes] = []

    def exchange(self, exchange: Exchange, now: float) -> None:
        """An exchange has ended."""
        self.exchanges.append(exchange)
        super().exchange(exchange, now)
        self.flush()

    def refused(self, refusal: Refusal) -> None:
        """A request was refused before it could become an exchange."""
        self.refusals.append(refusal.line)
        super().refused(refusal)
        self.flush()


_SLOT: Any = vars(FrontendConnection)["exchange"]


class WatchedConnection(FrontendConnection):
    """A client's connection that remembers its exchanges."""

    def __init__(self, frontend: Frontend, address: str) -> None:
        self.exchanges: list[Exchange] = []
        super().__init__(frontend, address)

    @property
    def exchange(self) -> Exchange | None:
        """The exchange under way."""
        return cast(Exchange | None, _SLOT.__get__(self))

    @exchange.setter
    def exchange(self, exchange: Exchange | None) -> None:
        _SLOT.__set__(self, exchange)
        if exchange is not None:
            self.exchanges.append(exchange)


class Mistakes(logging.Handler):
    """Keeps what is logged as a mistake of our own."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        error = record.exc_info[1] if record.exc_info else None
        self.found.append(f"{record.getMessage()} {error!r}")


class Stage:
    """One worker's data plane, with a frontend, one balancer and its members.

    The members are called server1, server2, ... and so are their routes. ``settings`` are changes
    to the parts of the configuration of that name: ``frontend``, ``mapping``, ``balancer``,
    ``member`` (for each), and ``top`` for the rest; ``tls`` is a frontend that speaks it.
    """

    def __init__(self, members: int = 2, *, tls: bool = False, **settings: dict[str, Any]) -> None:
        self.settings = self._settings(members, settings)
        assert self.settings.access_log is not None
        self.clock = FakeClock()
        self.log = KeptLog(self.settings.access_log.format, self.clock)
        self.loop = FakeLoop(self.clock)
        self.clients: list[WatchedConnection] = []
        self._mistakes = Mistakes()
        logging.getLogger("balanceme").addHandler(self._mistakes)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(worker, "Clock", lambda: self.clock)
                patch.setattr(worker, "AccessLog", lambda *_: self.log)
                self.worker = worker.Worker(self.settings, self.loop)
        except BaseException:
            self.close()
            raise
        (self.frontend,) = self.worker.frontends.values()
        self.frontend.tls = tls
        self.frontend.port = 443 if tls else 80
        self.deadlines = self.worker.deadlines
        self.pools = self.worker.pools

    @staticmethod
    def _settings(members: int, changes: dict[str, dict[str, Any]]) -> Settings:
        mapping = {"path": "/", "balancer": "cluster", **changes.get("mapping", {})}
        frontend = {
            "listen": "127.0.0.1:8080",
            "server_name": "proxy.example",
            "mappings": [mapping],
            **changes.get("frontend", {}),
        }
        names = [f"server{number}" for number in range(1, members + 1)]
        balancer = {
            "sticky_session": "BALANCEME",
            "members": [
                {"url": f"http://{name}", "route": name, **changes.get("member", {})}
                for name in names
            ],
            **changes.get("balancer", {}),
        }
        tree = {"frontends": [frontend], "balancers": {"cluster": balancer}}
        return Settings.model_validate({**tree, **changes.get("top", {})})

    @property
    def balancer(self) -> Balancer:
        """The balancer in force."""
        return self.worker.balancers["cluster"]

    def reload(self, members: int = 2, **settings: dict[str, Any]) -> None:
        """Put other settings in force, which are made as those of the stage."""
        self.settings = self._settings(members, settings)
        self.loop.run(self.worker.configure, self.settings)
        self.check()

    # --- actors ------------------------------------------------------------------------------

    def client(self, address: str = "192.0.2.1", frontend: Frontend | None = None) -> Peer:
        """A client connects."""
        frontend = frontend or self.frontend
        frontend.admission.admit(address)
        connection = WatchedConnection(frontend, address)
        self.clients.append(connection)
        transport = FakeTransport(
            self.loop,
            connection,
            (address, 50000),
            tls=frontend.tls,
            socket=FakeSocket(),
        )
        self.loop.run(connection.connection_made, transport)
        return self._watched(Peer(transport))

    def accept(self, name: str = "server1") -> Peer:
        """The member accepts the oldest connection that is being opened to it."""
        peer = self._watched(self._opening(name).accept())
        self.check()
        return peer

    def refuse(self, name: str = "server1", error: OSError | None = None) -> None:
        """The member refuses the oldest connection that is being opened to it."""
        self._opening(name).refuse(error)
        self.check()

    def _opening(self, name: str) -> Opening:
        found = [opening for opening in self.loop.openings if opening.address == name]
        assert found, f"nobody connects to {name}: {self.loop.openings}"
        return found[0]

    def _watched(self, peer: Peer) -> Peer:
        peer.check = self.check
        return peer

    def advance(self, seconds: float) -> None:
        """Let time pass, and everybody notice."""
        self.clock.advance(seconds)
        self.loop.settle()
        self.loop.run(self.deadlines.sweep)
        self.check()

    def stop(self) -> None:
        """The worker begins to stop gracefully; ``advance`` lets it go on."""
        self.loop.run(lambda: self.loop.create_task(self.worker.stop(STOP_TIMEOUT)))
        self.check()

    # --- facts -------------------------------------------------------------------------------

    def member(self, name: str = "server1") -> Member:
        """A member by its route."""
        return next(m for m in self.balancer.members if m.settings.route == name)

    def pool(self, name: str = "server1") -> MemberPool:
        """A member's connections."""
        return self.pools[self.member(name)]

    @property
    def openings(self) -> list[str]:
        """To whom connections are being opened."""
        return [opening.address for opening in self.loop.openings]

    @property
    def busy(self) -> int:
        """Exchanges under way on members."""
        return sum(member.busy for member in self.pools)

    @property
    def statuses(self) -> list[int]:
        """The status of each exchange in the access log."""
        return [exchange.response.status for exchange in self.log.exchanges]

    def mistakes(self) -> list[str]:
        """Mistakes of our own that were logged; to be asked by who expects some."""
        found, self._mistakes.found = self._mistakes.found, []
        return found

    # --- what must hold ----------------------------------------------------------------------

    def check(self) -> None:
        """What holds at any time: who waits has a timer, who is held has a reason."""
        watched = self.deadlines._all
        engaged = dict.fromkeys(self.pools, 0)
        for client in self.clients:
            exchange = client.exchange
            if exchange is not None and exchange.mapped and exchange.placement._engaged:
                engaged[exchange.placement.member] += 1
            standing = not client.transport.is_closing()
            assert (client in self.worker.connections) == (client.phase is not Phase.CLOSED)
            assert (client in watched) == (client.phase is not Phase.CLOSED)
            if standing:
                self._check_client(client)
        assert {member: member.busy for member in engaged} == engaged
        for pool in self.pools.values():
            for connection in pool.connections:
                assert connection in watched
                if not connection.transport.is_closing():
                    self._check_member_connection(connection)

    def _check_client(self, client: WatchedConnection) -> None:
        """No waiting without a timer (P4 of the hardening rules), no gate that stays shut."""
        exchange = client.exchange
        holds = client.gate._holds
        assert len(client._buffer) <= MOST_BUFFERED
        assert client.transport.is_reading() == (holds is Hold.NONE)
        if client.blocked or exchange is None:
            assert client.deadline < NEVER, f"{client!r} waits for ever"
        if exchange is None:
            assert client.phase in (Phase.IDLE, Phase.HEAD, Phase.LINGER)
            assert client.blocked or holds is Hold.NONE
            return
        assert client.phase is Phase.EXCHANGE
        waiting = exchange.phase is ExchangePhase.WAITING
        assert waiting == (exchange in self.frontend.waiting_room._until)
        connecting = waiting or exchange.phase is ExchangePhase.CONNECTING
        assert connecting or Hold.CONNECTING not in holds
        if exchange.phase in (ExchangePhase.SENT, ExchangePhase.RESPONDING):
            connection = exchange.connection
            assert connection is not None
            assert connection.exchange is exchange
            assert connection.deadline < NEVER
            if Hold.OTHER_SIDE_SLOW in holds:
                assert connection.transport.writing_paused  # type: ignore[attr-defined]
        else:
            assert connecting or client.deadline < NEVER, f"{client!r} waits for ever"

    def _check_member_connection(self, connection: MemberConnection) -> None:
        """Busy with its own exchange, or idle, read from and watched."""
        exchange = connection.exchange
        assert connection.transport.is_reading() == connection.gate.open
        if exchange is None:
            assert connection in connection.pool._idle
            assert connection.gate.open
            assert connection.deadline < NEVER
        else:
            assert connection not in connection.pool._idle
            assert exchange.connection is connection
            assert connection.gate.open or exchange.client.blocked

    def end(self) -> None:
        """All clients leave: nothing may be left of their exchanges. Each was logged once."""
        for client in self.clients:
            transport = client.transport
            assert isinstance(transport, FakeTransport)
            self.loop.run(transport.lose, ConnectionResetError("reset"))
        while self.loop.openings:
            self.loop.openings[0].refuse()
        self.advance(0.1)  # a stop that is under way looks again so often
        assert self.busy == 0
        assert not self.worker.connections
        connections = set().union(*(pool.connections for pool in self.pools.values()))
        assert self.deadlines._all == connections
        assert not any(pool._waiting or pool._opening for pool in self.pools.values())
        assert not len(self.worker.waiting_room)
        assert not any(c.exchange for c in connections), "an exchange without a client"
        self._check_log()
        assert not self._mistakes.found, self._mistakes.found

    def _check_log(self) -> None:
        """Every exchange is logged once, as such or as a refusal of its body."""
        refusals = list(self.log.refusals)
        logged = Counter(map(id, self.log.exchanges))
        for client in self.clients:
            for exchange in client.exchanges:
                assert exchange.phase is ExchangePhase.DONE
                if not logged[id(exchange)]:
                    refusals.remove(exchange.head.line)
                assert logged[id(exchange)] < 2, f"{exchange!r} is logged again"
        assert len(self.log.lines) == len(self.log.exchanges) + len(self.log.refusals)

    def close(self) -> None:
        """Throw the stage away."""
        logging.getLogger("balanceme").removeHandler(self._mistakes)
        self.loop.close()


# --- scripts -------------------------------------------------------------------------------------


class Manner(NamedTuple):
    """How a script is played: bytes in a piece on either side (0: whole), and trailing bytes."""

    client: int = 0
    member: int = 0
    trailing: bool = False


WHOLE = Manner()
CUTS = (WHOLE, Manner(client=1), Manner(member=1), Manner(client=1, member=1), Manner(3, 7))
# The beginning of a request that never ends, and of an answer that nobody asked for.
AHEAD = b"GET /ahead HTTP/1.1\r\nHo"
UNASKED = b"HTTP/1.1 200 OK\r\nUnas"


class Script:
    """A conversation of one client with one member, as a trace.

    Its methods write one line each; ``play`` plays them all, once in each manner, on a new stage
    that is made from ``settings``, and checks what is left in the end.
    """

    def __init__(self, **settings: Any) -> None:
        self._settings = {"members": 1, **settings}
        self._lines: list[tuple[str, bytes]] = []

    def client(self, data: bytes) -> "Script":
        """The client sends."""
        return self._line("client", data)

    def client_gets(self, data: bytes) -> "Script":
        """The client has received exactly this."""
        return self._line("client_gets", data)

    def client_is_closed(self) -> "Script":
        """Our side has ended the client's connection."""
        return self._line("client_is_closed")

    def member(self, data: bytes) -> "Script":
        """The member sends; it accepts a connection that is being opened first."""
        return self._line("member", data)

    def member_gets(self, data: bytes) -> "Script":
        """The member has received exactly this."""
        return self._line("member_gets", data)

    def member_ends(self) -> "Script":
        """The member closes its connection."""
        return self._line("member_ends")

    def member_is_closed(self) -> "Script":
        """Our side has closed the member's connection."""
        return self._line("member_is_closed")

    def _line(self, what: str, data: bytes = b"") -> "Script":
        self._lines.append((what, data))
        return self

    def play(self, *, trailing: bool = True) -> None:
        """Play in all manners; ``trailing`` with bytes behind the last message of each side too.

        These must change nothing; not so where the last bytes are an unfinished message.
        """
        manners = [*CUTS, Manner(trailing=True)] if trailing else CUTS
        for manner in manners:
            stage = Stage(**self._settings)
            try:
                self._play(stage, manner)
                stage.end()
            except AssertionError as error:
                error.add_note(f"played with {manner}")
                raise
            finally:
                stage.close()

    def _play(self, stage: Stage, manner: Manner) -> None:
        client = stage.client()
        member: Peer | None = None
        last = {what: index for index, (what, _) in enumerate(self._lines)}
        for index, (what, data) in enumerate(self._lines):
            trails = manner.trailing and last[what] == index
            if stage.openings and what.startswith("member"):
                member = stage.accept(stage.openings[0])
            if what == "client":
                client.send(data + AHEAD if trails else data, by=manner.client)
            elif what == "client_gets":
                client.gets(data)
            elif what == "client_is_closed":
                assert not client.open
            else:
                assert member is not None, "nobody connects to a member"
                self._member_line(member, what, data + UNASKED if trails else data, manner)

    @staticmethod
    def _member_line(member: Peer, what: str, data: bytes, manner: Manner) -> None:
        if what == "member":
            member.send(data, by=manner.member)
        elif what == "member_gets":
            member.gets(data.removesuffix(UNASKED))
        elif what == "member_ends":
            member.end()
        else:
            assert not member.open
