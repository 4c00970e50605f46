"""A worker's connections to its members: used again while idle, opened anew, limited in number.

Opening is the only step of an exchange that waits, and the only one with a task. Whoever asked is
told by a call of ``connected`` or ``attempt_failed``.
"""

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

from proxy.core.failover import Failure
from proxy.core.http1 import Limits
from proxy.core.member import Member
from proxy.dataplane import mistakes
from proxy.dataplane.admission import EXHAUSTED
from proxy.dataplane.clock import Clock
from proxy.dataplane.deadlines import NEVER, Deadlines
from proxy.dataplane.member_connection import MemberConnection

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange

log = logging.getLogger("balanceme")

# How long, in seconds, an idle connection is kept. Most members close theirs sooner; a firewall
# between us might forget it later.
IDLE = 60.0
# How long, in seconds, a member's resolved addresses are used.
ADDRESS_TTL = 60.0


class Waiting:
    """An exchange that waits for one of ``max_connections`` to become free."""

    __slots__ = ("deadline", "exchange", "pool")

    def __init__(self, pool: "MemberPool", exchange: "Exchange", deadline: float) -> None:
        self.pool = pool
        self.exchange = exchange
        self.deadline = deadline

    def expired(self, now: float) -> None:
        """No connection became free in time (F12)."""
        self.pool.forget(self.exchange)
        self.exchange.attempt_failed(Failure.NO_CONNECTION)


class MemberPool:
    """The connections to one member."""

    __slots__ = (
        "_addresses",
        "_addresses_expire",
        "_idle",
        "_opening",
        "_waiting",
        "clock",
        "connections",
        "deadlines",
        "error_told",
        "limits",
        "member",
    )

    def __init__(self, member: Member, limits: Limits, clock: Clock, deadlines: Deadlines) -> None:
        self.member = member
        self.limits = limits
        self.clock = clock
        self.deadlines = deadlines
        self.connections: set[MemberConnection] = set()
        self._idle: list[MemberConnection] = []
        self._opening: set[asyncio.Task[None]] = set()
        # the one that waits longest first
        self._waiting: dict[Exchange, Waiting] = {}
        self._addresses: list[str] = []
        self._addresses_expire = 0.0
        # when it was last told that the member is in error, monotonic
        self.error_told = -NEVER

    def configure(self, limits: Limits) -> None:
        """Other limits, and other settings of the member, are in force."""
        self.limits = limits
        if not self.member.reuse:
            self.close()  # what is idle began without a preamble, or is not wanted
        self._serve_waiting()

    # --- taking and giving back --------------------------------------------------------------

    def take(self) -> MemberConnection | None:
        """An idle connection that can be used, the one used last first."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_clean():
                return connection
            connection.close()
        return None

    def open(self, exchange: "Exchange") -> None:
        """Open a connection for ``exchange``, or let it wait for one to become free."""
        if self._is_full():
            self._wait(exchange)
            return
        task = asyncio.get_running_loop().create_task(self._open(exchange))
        self._opening.add(task)
        task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[None]) -> None:
        """An opening has ended, well or not."""
        self._opening.discard(task)
        if not task.cancelled():
            self._serve_waiting()

    def _is_full(self) -> bool:
        limit = self.member.settings.max_connections
        return limit is not None and len(self.connections) + len(self._opening) >= limit

    def _wait(self, exchange: "Exchange") -> None:
        timeout = self.member.settings.acquire_timeout
        deadline = NEVER if timeout is None else self.clock.monotonic() + timeout
        waiting = Waiting(self, exchange, deadline)
        self._waiting[exchange] = waiting
        self.deadlines.add(waiting)

    def forget(self, exchange: "Exchange") -> None:
        """The exchange waits no longer."""
        waiting = self._waiting.pop(exchange, None)
        if waiting is not None:
            self.deadlines.discard(waiting)

    def give_back(self, connection: MemberConnection, now: float) -> None:
        """The connection's exchange has ended well, at monotonic time ``now``."""
        waited_for = bool(self._waiting)
        if not self.member.reuse or (waited_for and not connection.is_clean()):
            connection.close()
        elif waited_for:
            self._next_waiting().connected(connection)
        else:
            connection.deadline = now + IDLE
            self._idle.append(connection)

    def lost(self, connection: MemberConnection) -> None:
        """The connection is closed."""
        self.connections.discard(connection)
        self.deadlines.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        """Who waits longest gets the room there is."""
        while self._waiting and not self._is_full():
            self.open(self._next_waiting())

    def _next_waiting(self) -> "Exchange":
        exchange = next(iter(self._waiting))
        self.forget(exchange)
        return exchange

    def close(self) -> None:
        """Close what is idle; exchanges under way keep their connections."""
        for connection in list(self._idle):
            connection.close()
        self._idle.clear()

    # --- opening -----------------------------------------------------------------------------

    async def _open(self, exchange: "Exchange") -> None:
        try:
            async with asyncio.timeout(self.member.connect_timeout):
                connection = await self._connect()
        except TimeoutError:
            exchange.attempt_failed(Failure.CONNECT_TIMEOUT)
        except socket.gaierror:
            exchange.attempt_failed(Failure.UNRESOLVED)
        except OSError as error:
            ours = error.errno in EXHAUSTED
            exchange.attempt_failed(Failure.EXHAUSTED if ours else Failure.REFUSED)
        except Exception:
            log.exception("a connection could not be opened: a mistake in balanceme")
            if exchange.wants_connection():
                mistakes.end(exchange)
        else:
            if not exchange.wants_connection():
                self.give_back(connection, self.clock.monotonic())
            elif connection.is_clean():
                exchange.connected(connection)
            else:
                connection.close()  # what it said is nobody's (H60)
                exchange.attempt_failed(Failure.UNASKED)

    async def _connect(self) -> MemberConnection:
        """Connect to the first of the member's addresses that accepts (F15)."""
        loop = asyncio.get_running_loop()
        error: OSError = OSError("no address")
        for address in await self._resolve(loop):
            try:
                _, connection = await loop.create_connection(
                    lambda: MemberConnection(self), address, self.member.port
                )
            except OSError as failed:
                if failed.errno in EXHAUSTED:
                    raise  # no word about this address, nor about the next
                error = failed
            else:
                return connection
        self._addresses_expire = 0.0
        raise error

    async def _resolve(self, loop: asyncio.AbstractEventLoop) -> list[str]:
        now = self.clock.monotonic()
        if now >= self._addresses_expire:
            try:
                found = await loop.getaddrinfo(
                    self.member.host, self.member.port, type=socket.SOCK_STREAM
                )
            except socket.gaierror:
                if not self._addresses:
                    raise
                return self._addresses  # a name server that is away for a while changes nothing
            self._addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
            self._addresses_expire = now + ADDRESS_TTL
        return self._addresses

    def __repr__(self) -> str:
        return f"<MemberPool {self.member!r} idle={len(self._idle)} all={len(self.connections)}>"


Pools = dict[Member, MemberPool]
