"""The tools of these tests are products too: what they promise is tested here."""

import asyncio
from typing import Any

import pytest

from proxy.dataplane.frontend_connection import Phase
from tests.dataplane.conftest import MakeStage
from tests.dataplane.messages import (
    CHUNKED,
    chunks,
    handed_on,
    length,
    passed_on,
    request,
    response,
)
from tests.fakes import EOF, EPOCH, FakeClock, FakeLoop, FakeTransport, Script, Stage, unchunked


class Listener(asyncio.Protocol):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.keep_open = False

    def data_received(self, data: bytes) -> None:
        """Bytes."""
        self.told.append(data)

    def eof_received(self) -> bool:
        """The peer's end."""
        self.told.append("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        """Too much waits."""
        self.told.append("pause")

    def resume_writing(self) -> None:
        """Little waits."""
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self.told.append(exc)


@pytest.fixture
def loop(stage: Stage) -> FakeLoop:
    """A loop that is closed in the end."""
    return stage.loop


@pytest.fixture
def listener() -> Listener:
    """A protocol that notes what it is told."""
    return Listener()


@pytest.fixture
def transport(loop: FakeLoop, listener: Listener) -> FakeTransport:
    """A transport before that protocol."""
    return FakeTransport(loop, listener, ("192.0.2.1", 1))


# --- time and loop -------------------------------------------------------------------------------


def test_clock_stands_still() -> None:
    """Time passes when the test says so, on both clocks at once."""
    clock = FakeClock()
    assert (clock.monotonic(), clock.wall()) == (1000, EPOCH)
    clock.advance(1.5)
    assert (clock.monotonic(), clock.wall()) == (1001.5, EPOCH + 1.5)
    assert clock.date(int(clock.wall())) == b"Sun, 22 Nov 2026 14:15:58 GMT"


def test_loop_runs_until_nothing_is_ready(loop: FakeLoop) -> None:
    """One step runs what it causes, timers when their time has come, and waits for nothing."""
    told: list[int] = []
    loop.run(lambda: loop.call_soon(told.append, 1))
    loop.run(loop.call_later, 5, told.append, 2)
    assert told == [1]
    loop.clock.advance(5)
    loop.settle()
    assert told == [1, 2]


def test_loop_tells_of_mistakes(loop: FakeLoop) -> None:
    """What a callback or a task raises fails the test at once."""

    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        loop.run(lambda: 1 / 0)
    loop.mistakes.clear()
    with pytest.raises(AssertionError, match="task ended"):
        loop.run(lambda: loop.create_task(fail()))
    loop.mistakes.clear()


def test_connections_are_the_tests_decision(loop: FakeLoop) -> None:
    """Who connects waits until it is accepted or refused, or gives up."""
    results: list[object] = []

    async def connect() -> None:
        try:
            async with asyncio.timeout(10):
                found = await loop.getaddrinfo("member", 80)
                _, protocol = await loop.create_connection(Listener, found[0][4][0], 80)
                results.append(protocol)
        except OSError as error:
            results.append(str(error))

    for _ in range(3):
        loop.run(lambda: loop.create_task(connect()))
    assert [str(opening) for opening in loop.openings] == 3 * ["<Opening member>"]
    loop.openings[0].refuse()
    peer = loop.openings[0].accept()
    assert results == ["refused", peer.transport.protocol]
    loop.clock.advance(11)
    loop.settle()
    assert results[2] == ""
    assert loop.openings == []


# --- transport -----------------------------------------------------------------------------------


def test_transport_sends_at_once(transport: FakeTransport) -> None:
    """Unless it is stuck, what is written has been sent."""
    transport.write(b"ab")
    transport.write(b"")
    transport.write(b"c")
    assert transport.sent == b"abc"
    assert transport.writes == 2
    assert transport.get_write_buffer_size() == 0
    assert transport.get_extra_info("peername") == ("192.0.2.1", 1)
    assert transport.get_extra_info("socket") is None


def test_stuck_transport_pauses_inside_of_write(
    transport: FakeTransport, listener: Listener
) -> None:
    """Above the limit the protocol is paused before write returns, below the lower it goes on."""
    transport.set_write_buffer_limits(8)
    transport.stuck = True
    transport.write(b"x" * 8)
    assert listener.told == []
    transport.write(b"x")
    transport.write(b"x")
    assert listener.told == ["pause"]
    transport.flow(7)
    assert listener.told == ["pause"]
    transport.flow(1)
    assert listener.told == ["pause", "resume"]
    assert transport.get_write_buffer_size() == 2


def test_close_waits_for_what_is_written(
    loop: FakeLoop, transport: FakeTransport, listener: Listener
) -> None:
    """A close is over when everything is sent; the protocol hears of it in the loop's next turn."""
    transport.stuck = True
    transport.write(b"x")
    loop.run(transport.close)
    assert transport.is_closing()
    assert not transport.lost
    loop.run(transport.flow)
    assert listener.told == [None]
    with pytest.raises(RuntimeError):
        transport.write(b"x")


def test_abort_drops_what_is_written(
    loop: FakeLoop, transport: FakeTransport, listener: Listener
) -> None:
    """An abort loses what waits, and happens once."""
    transport.stuck = True
    transport.write(b"x")
    transport.abort()
    transport.abort()
    transport.close()
    transport.write(b"y")
    assert listener.told == []
    loop.settle()
    assert listener.told == [None]
    assert transport.sent == b""
    assert transport.ends == ["abort"]


def test_nothing_is_written_after_the_end(loop: FakeLoop, listener: Listener) -> None:
    """write_eof is the last word, and there is none over TLS."""
    transport = FakeTransport(loop, listener, ("192.0.2.1", 1))
    transport.write_eof()
    with pytest.raises(RuntimeError):
        transport.write(b"x")
    transport.close()
    with pytest.raises(RuntimeError):
        transport.write_eof()
    tls = FakeTransport(loop, listener, ("192.0.2.1", 1), tls=True)
    assert not tls.can_write_eof()
    with pytest.raises(NotImplementedError):
        tls.write_eof()


def test_what_comes_waits_while_paused(
    loop: FakeLoop, transport: FakeTransport, listener: Listener
) -> None:
    """A paused transport keeps what comes, in order, the end included."""
    transport.pause_reading()
    transport.feed(b"a")
    transport.feed(b"b")
    transport.feed(EOF)
    assert listener.told == []
    loop.run(transport.resume_reading)
    assert listener.told == [b"a", b"b", "eof", None]
    assert transport.ends == ["close"]


def test_end_is_seen_again_after_a_pause(
    loop: FakeLoop, transport: FakeTransport, listener: Listener
) -> None:
    """Who keeps a half-closed connection and pauses it reads the end a second time."""
    listener.keep_open = True
    transport.feed(EOF)
    transport.pause_reading()
    loop.run(transport.resume_reading)
    assert listener.told == ["eof", "eof"]
    assert not transport.is_closing()


# --- stage and script ----------------------------------------------------------------------------


def test_stage_notices_what_waits_for_ever(make_stage: MakeStage) -> None:
    """A connection without a deadline, or a gate shut without a reason, fails the next step."""
    stage = make_stage()
    client = stage.client()
    connection = stage.clients[0]
    deadline, connection.deadline = connection.deadline, float("inf")
    with pytest.raises(AssertionError, match="waits for ever"):
        stage.check()
    connection.deadline = deadline
    client.transport.pause_reading()
    with pytest.raises(AssertionError):
        stage.check()
    client.transport.reading = True
    connection.phase = Phase.EXCHANGE
    with pytest.raises(AssertionError):
        stage.check()
    connection.phase = Phase.IDLE


def test_stage_notices_who_stays_busy() -> None:
    """A member that counts an exchange nobody has fails the next step."""
    stage = Stage()
    try:
        stage.member().busy = 1
        with pytest.raises(AssertionError):
            stage.check()
    finally:
        stage.close()


def test_stage_notices_what_is_not_logged() -> None:
    """An exchange without a line in the log fails the end."""
    stage = Stage()
    try:
        stage.client().send(request(b"OPTIONS * HTTP/1.1"))
        stage.log.exchanges.clear()
        with pytest.raises(ValueError, match="not in list"):
            stage.end()
    finally:
        stage.close()


def test_script_is_played_in_every_manner(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script is played whole, in pieces on either side, and with trailing bytes."""
    pieces: list[set[int]] = []
    feed = FakeTransport.feed

    def watched(transport: FakeTransport, what: bytes) -> None:
        pieces[-1].add(len(what))
        feed(transport, what)

    stage_init = Stage.__init__

    def counted(stage: Stage, **settings: Any) -> None:
        pieces.append(set())
        stage_init(stage, **settings)

    monkeypatch.setattr(FakeTransport, "feed", watched)
    monkeypatch.setattr(Stage, "__init__", counted)
    script = Script().client(request()).member_gets(passed_on())
    script.member(response(body=b"long")).client_gets(handed_on(body=b"long")).play()
    assert len(pieces) == 6
    assert {1} in pieces
    assert len(pieces[0]) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        Script().client(request()).member_gets(passed_on(b"GET /other HTTP/1.1")),
        Script().client(request()).client_gets(b"x"),
        Script().client(request()).client_is_closed(),
        Script().client(request()[:-1]).member_gets(passed_on()),
        Script().client(request()).member(response()).member_is_closed(),
    ],
)
def test_script_fails_when_it_differs(wrong: Script) -> None:
    """A line that doesn't come true fails, and says in which manner."""
    with pytest.raises(AssertionError) as caught:
        wrong.play(trailing=False)
    assert "Manner(client=0, member=0" in caught.value.__notes__[0]


def test_chunks_are_compared_by_what_they_hold() -> None:
    """Bodies are equal however they are cut, but a missing end differs."""
    head = b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n"
    assert unchunked(head + chunks(b"ab", b"c")) == unchunked(head + chunks(b"abc"))
    assert unchunked(head + b"3\r\nabc\r\n") != unchunked(head + chunks(b"abc"))
    assert unchunked(head + chunks(b"abc")) == [head, b"abcEND"]
    sized = b"HTTP/1.1 200 OK\r\n" + length(b"abc") + b"\r\n"
    assert unchunked(sized + b"abc" + head + chunks()) == [sized, b"abc", head, b"END"]
