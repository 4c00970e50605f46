"""Who is let in: a listening socket without a network, on fake time."""

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from proxy.dataplane.acceptor import BATCH, PAUSE, RECOVERY, YIELD, Acceptor, Security
from tests.dataplane.conftest import MakeStage
from tests.fakes import FakeClock, FakeLoop, FakeSocket, FakeTransport, Stage


class Arriving(FakeSocket):
    """A client's socket that was accepted just now."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def settimeout(self, _: float) -> None:
        """It never waits."""

    def close(self) -> None:
        """Remember it."""
        self.closed = True


class Listening:
    """A listening socket with clients, or errors, that wait to be accepted."""

    def __init__(self) -> None:
        self.queue: deque[Arriving | OSError] = deque()
        self.number = 7
        self.closed = False

    def fileno(self) -> int:
        """As sockets do: none once it is closed."""
        return -1 if self.closed else self.number

    def settimeout(self, timeout: float) -> None:
        """It never waits."""
        assert timeout == 0

    def accept(self) -> tuple[Arriving, tuple[str, int]]:
        """The next client."""
        assert not self.closed
        if not self.queue:
            raise BlockingIOError
        found = self.queue.popleft()
        if isinstance(found, OSError):
            raise found
        return found, ("192.0.2.1", 50000)

    def close(self) -> None:
        """Remember it."""
        self.closed = True


class AcceptingLoop(FakeLoop):
    """A loop that makes connections of accepted sockets, at once."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.secured: list[Any] = []

    async def connect_accepted_socket(  # type: ignore[override]
        self, factory: Callable[[], asyncio.Protocol], sock: object, **options: Any
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """The connection stands."""
        self.secured.append((options.get("ssl"), options.get("ssl_handshake_timeout")))
        transport = FakeTransport(self, factory(), ("192.0.2.1", 50000), socket=sock)
        transport.protocol.connection_made(transport)
        return transport, transport.protocol


class Gate:
    """A frontend's acceptor, with all around it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.loop = AcceptingLoop(stage.clock)
        self.listening = Listening()
        # whether others should go first, the next times it is asked; then not
        self.yields: deque[bool] = deque()
        self.asked = 0
        self.acceptor = self.make()
        self.acceptor.start()

    def make(self, security: Security | None = None) -> Acceptor:
        """An acceptor for the socket."""
        sock = cast(socket.socket, self.listening)
        return Acceptor(self.loop, sock, self.stage.frontend, security, self._yields)

    def _yields(self) -> bool:
        self.asked += 1
        return self.yields.popleft() if self.yields else False

    def waits(self) -> bool:
        """Whether it waits for clients."""
        return self.listening.number in self.loop.readers

    @property
    def accepted(self) -> int:
        """How many clients were let in."""
        return len(self.stage.worker.connections)

    def arrive(self, count: int = 1, error: OSError | None = None) -> None:
        """Clients, or an error, arrive at the socket; nobody has looked yet."""
        self.listening.queue += [error or Arriving() for _ in range(count)]

    def look(self) -> None:
        """The loop says that somebody waits to be accepted, while it is asked to."""
        if self.waits() and self.listening.queue:
            self.loop.readers[self.listening.number]()
        self.loop.settle()

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.stage.clock.advance(seconds)
        self.loop.settle()

    def close(self) -> None:
        """All clients leave."""
        for connection in list(self.stage.worker.connections):
            cast(FakeTransport, connection.transport).lose(None)
        self.loop.settle()
        self.loop.close()


@pytest.fixture
def gate(make_stage: MakeStage) -> Iterator[Gate]:
    """An acceptor that waits for clients."""
    made = Gate(make_stage())
    yield made
    made.close()


# --- accepting ------------------------------------------------------------------------------------


def test_accepts_a_batch_at_a_time(gate: Gate) -> None:
    """Not all clients of a crowd are taken in one go: others get their turn in between."""
    gate.arrive(BATCH + 3)
    gate.look()
    assert gate.accepted == BATCH
    gate.look()
    assert gate.accepted == BATCH + 3
    assert gate.waits()


def test_client_that_is_gone_again(gate: Gate) -> None:
    """A client that leaves before it is accepted stops nobody."""
    gate.arrive(1, ConnectionAbortedError(errno.ECONNABORTED, "aborted"))
    gate.arrive(2)
    gate.look()
    assert gate.accepted == 2


def test_close(gate: Gate) -> None:
    """A closed acceptor takes nobody more, and lets go of its socket."""
    gate.arrive(1)
    gate.acceptor.close()
    assert not gate.waits()
    assert gate.listening.closed
    assert not gate.acceptor.busy
    assert repr(gate.acceptor) == "<Acceptor 0 handshakes>"


def test_security_changes(gate: Gate) -> None:
    """A reload changes how connections are secured from now on."""
    gate.arrive(1)
    gate.look()
    context: Any = object()
    gate.acceptor.security = Security(context, 7.0)
    gate.arrive(1)
    gate.look()
    assert gate.loop.secured == [(None, None), (context, 7.0)]


# --- letting others go first ----------------------------------------------------------------------


def test_yields_for_a_moment(gate: Gate) -> None:
    """With more clients than others a worker lets these accept first, and waits for a moment."""
    gate.yields += [True]
    gate.arrive()
    gate.look()
    assert gate.accepted == 0
    assert not gate.waits()
    gate.wait(YIELD / 2)
    assert not gate.waits()
    gate.wait(YIELD)
    assert gate.waits()
    gate.look()
    assert gate.accepted == 1


def test_accepts_after_it_has_yielded(gate: Gate) -> None:
    """If nobody else took the client meanwhile it is accepted, whoever has how many."""
    gate.yields += [True] * 99
    gate.arrive(3)
    for expected in range(4):
        gate.look()
        assert gate.accepted == expected
        gate.wait(YIELD)


def test_yields_anew_for_the_next(gate: Gate) -> None:
    """Whether others go first is asked for each client, in the middle of a batch too."""
    gate.yields += [False, False, True]
    gate.arrive(4)
    gate.look()
    assert gate.accepted == 2
    assert not gate.waits()
    gate.wait(YIELD)
    gate.look()
    assert gate.accepted == 4


def test_others_took_it(gate: Gate) -> None:
    """Where another worker was quicker there is nothing to do; then others go first again."""
    gate.yields += [True]
    gate.arrive()
    gate.look()
    gate.listening.queue.clear()
    gate.wait(YIELD)
    gate.loop.readers[7]()  # it was readable a moment ago
    assert gate.waits()
    gate.yields += [True]
    gate.arrive()
    gate.look()
    assert gate.accepted == 0
    gate.wait(YIELD)
    gate.look()
    assert gate.accepted == 1


def test_close_while_yielding(gate: Gate) -> None:
    """An acceptor that is closed while others go first doesn't come back."""
    gate.yields += [True]
    gate.arrive()
    gate.look()
    gate.acceptor.close()
    gate.wait(10 * YIELD)
    assert not gate.waits()
    assert gate.loop.readers == {}


# --- nothing left for a connection ----------------------------------------------------------------

FULL = OSError(errno.EMFILE, "Too many open files")
PAUSES = (
    "no connection can be accepted: Too many open files; accepting pauses."
    " Raise the limit of open files, or lower max_connections"
)
OVER = "connections are accepted again"


def test_pause(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    """Without a descriptor left accepting pauses; that is said once, and when it is over."""
    gate.arrive(1, FULL)
    gate.arrive(1)
    gate.look()
    assert not gate.waits()
    assert gate.accepted == 0
    gate.wait(PAUSE)
    gate.arrive(0)
    gate.listening.queue.appendleft(FULL)
    gate.look()
    assert caplog.messages == [PAUSES]
    gate.wait(PAUSE)
    gate.look()
    assert gate.accepted == 1
    gate.wait(RECOVERY)
    assert caplog.messages == [PAUSES, OVER]
    gate.arrive(1, FULL)
    gate.look()
    assert caplog.messages == [PAUSES, OVER, PAUSES]
    gate.acceptor.close()


def test_pause_is_over_for_who_yields(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    """That clients are accepted again is said by a worker that lets others go first as well.

    And trouble that comes later is told again.
    """
    gate.arrive(1, FULL)
    gate.look()
    gate.wait(PAUSE)
    for _ in range(10):
        gate.yields += [True]
        gate.arrive()
        gate.look()
        gate.wait(RECOVERY / 5)
        gate.look()
    assert gate.accepted == 10
    assert caplog.messages == [PAUSES, OVER]
    gate.arrive(1, FULL)
    gate.look()
    assert caplog.messages == [PAUSES, OVER, PAUSES]
    gate.acceptor.close()


def test_close_while_pausing(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    """An acceptor that is closed in a pause, or soon after one, says and does nothing more."""
    gate.arrive(1, FULL)
    gate.look()
    gate.wait(PAUSE)
    gate.acceptor.close()
    gate.wait(RECOVERY)
    assert not gate.loop.readers
    assert caplog.messages == [PAUSES]
