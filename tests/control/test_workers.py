"""Workers as processes: replaced, watched, ended. Time, processes and their kernel are fakes."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from proxy.control import workers as module
from proxy.control.channel import Channel, Kind, Message, channel_pair
from proxy.control.workers import (
    GRACE,
    HUNG,
    LONGEST_PAUSE,
    PREPARATION,
    STABLE,
    WATCH,
    Phase,
    Told,
    WorkerHandle,
    Workers,
)
from tests.fakes import FakeClock, FakeLoop


class FakeSystem:
    """What the module asks the system: processes that a test lets end, and who was killed."""

    WNOHANG = os.WNOHANG
    waitstatus_to_exitcode = staticmethod(os.waitstatus_to_exitcode)

    def __init__(self) -> None:
        # wait statuses of those that have ended and were not waited for
        self.ended: dict[int, int] = {}
        self.alive: set[int] = set()
        self.killed: list[int] = []

    def waitpid(self, pid: int, options: int) -> tuple[int, int]:
        """The status of a process that has ended, as the kernel tells it once."""
        assert options == os.WNOHANG
        if pid in self.ended:
            return pid, self.ended.pop(pid)
        if pid not in self.alive:
            raise ChildProcessError(pid)
        return 0, 0

    def kill(self, pid: int, number: signal.Signals) -> None:
        """A zombie may be killed as well; who was waited for may be somebody else by now."""
        assert number is signal.SIGKILL
        if pid not in self.alive and pid not in self.ended:
            raise ProcessLookupError(pid)
        self.killed.append(pid)
        if pid in self.alive:
            self.end(pid, signal.SIGKILL)

    def end(self, pid: int, status: int) -> None:
        """A process ends, with a wait status."""
        self.alive.remove(pid)
        self.ended[pid] = status


class Yard:
    """The workers of a supervisor, with all around them."""

    def __init__(self, count: int) -> None:
        self.clock = FakeClock()
        self.loop = FakeLoop(self.clock)
        self.system = FakeSystem()
        self.heartbeats: dict[int, float] = {}
        self.messages: list[tuple[WorkerHandle, Message]] = []
        self.ended: list[int] = []
        self.changes = 0
        # what is done about a message, beside keeping it
        self.obey: Callable[[WorkerHandle, Message], object] = lambda *_: None
        # the workers' ends of the lines, by process
        self.lines: dict[int, Channel] = {}
        told = Told(self._message, self.ended.append, self._changed)
        self.workers = Workers(self.loop, told, lambda number: self.heartbeats[number])
        self.workers.resize(count, 0)

    def _message(self, worker: WorkerHandle, message: Message) -> None:
        self.messages.append((worker, message))
        self.obey(worker, message)

    def _changed(self) -> None:
        self.changes += 1

    @property
    def now(self) -> float:
        """The fake time."""
        return self.clock.monotonic()

    def fork(self) -> list[WorkerHandle]:
        """Give each slot that wants one a worker, as the supervisor does."""
        made = []
        for number in self.workers.due():
            pid = 100 + len(self.lines)
            ours, self.lines[pid] = channel_pair()
            self.system.alive.add(pid)
            made.append(WorkerHandle(number, pid, ours, 1, self.now))
            self.workers.forked(made[-1])
        return made

    def says(self, worker: WorkerHandle, kind: Kind, value: object = None) -> None:
        """A worker says something, which is heard at once."""
        self.lines[worker.pid].send(kind, value)
        self.loop.readers[worker.channel.fileno()]()

    def serve(self) -> list[WorkerHandle]:
        """Fork all that are due, and let them serve."""
        made = self.fork()
        for worker in made:
            self.heartbeats[worker.number] = self.now
            self.says(worker, Kind.IN_FORCE, 1)
        return made

    def dies(self, worker: WorkerHandle, status: int = 0) -> None:
        """A worker's process ends, by itself unless it was killed before; we are told of it."""
        if worker.pid in self.system.alive:
            self.system.end(worker.pid, status)
        self.lines[worker.pid].close()
        self.workers.reap()

    def heard(self, worker: WorkerHandle) -> list[tuple[Kind, object]]:
        """What a worker was told since the last time."""
        found = []
        while (message := self.lines[worker.pid].receive()) is not None:
            found.append((message.kind, message.value))
        return found

    def wait(self, seconds: float, *, beats: bool = True) -> None:
        """Let time pass, with a look at the workers each second; their hearts beat or not."""
        end = self.now + seconds
        while self.now < end:
            self.clock.advance(min(WATCH, end - self.now))
            self.loop.settle()
            if beats:
                self.heartbeats = dict.fromkeys(self.heartbeats, self.now)
            self.workers.watch()

    def close(self) -> None:
        """Throw all away."""
        for worker in self.workers.all:
            worker.channel.close()
        for line in self.lines.values():
            line.close()
        self.loop.close()


MakeYard = Callable[[int], Yard]


@pytest.fixture
def make_yard(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeYard]:
    """Makes a yard with so many slots; the module sees its time and its processes."""
    yards: list[Yard] = []

    def make(count: int) -> Yard:
        yard = Yard(count)
        yards.append(yard)
        monkeypatch.setattr(module, "os", yard.system)
        monkeypatch.setattr(time, "monotonic", yard.clock.monotonic)
        return yard

    yield make
    for yard in yards:
        yard.close()


@pytest.fixture
def yard(make_yard: MakeYard) -> Yard:
    """Two workers that serve, with everything watched for a while."""
    made = make_yard(2)
    made.serve()
    made.wait(2)
    return made


# --- begin ----------------------------------------------------------------------------------------


def test_from_fork_to_serving(make_yard: MakeYard) -> None:
    """Each slot wants a worker; it serves once it says that the settings are in force."""
    yard = make_yard(2)
    assert yard.workers.due() == [0, 1]
    first, second = yard.fork()
    assert yard.workers.due() == []
    assert [first.phase, second.phase] == [Phase.STARTING] * 2
    assert yard.workers.serving == []
    yard.says(first, Kind.IN_FORCE, 1)
    assert yard.workers.serving == [first]
    assert yard.workers.current == [first, second]
    assert yard.messages == [(first, Message(Kind.IN_FORCE, 1, ()))]
    assert str(first) == f"worker 1 (process {first.pid})"
    assert repr(yard.workers) == "<Workers 2 of 2, 0 retiring>"


def test_slow_start(make_yard: MakeYard, caplog: pytest.LogCaptureFixture) -> None:
    """Who doesn't serve in time is killed, and replaced; others go on."""
    yard = make_yard(2)
    slow, quick = yard.fork()
    yard.heartbeats[1] = yard.now
    yard.says(quick, Kind.IN_FORCE, 1)
    yard.wait(PREPARATION)
    assert yard.system.killed == []
    yard.wait(1)
    assert yard.system.killed == [slow.pid]
    assert f"{slow} is starting for too long; it is killed" in caplog.messages
    yard.dies(slow)
    assert yard.workers.due() == [0]
    assert yard.workers.serving == [quick]


# --- replacing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "with status 0"), (1 << 8, "with status 1"), (signal.SIGSEGV, "by signal SIGSEGV")],
)
def test_ended_unasked(
    yard: Yard, status: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Who ends unasked is replaced at once, however it ended; that is said with the way."""
    first, second = yard.workers.current
    changes = yard.changes
    yard.wait(STABLE)
    yard.dies(first, status)
    assert yard.ended == [0]
    assert yard.changes > changes
    assert yard.workers.due() == [0]
    assert yard.workers.current == [second]
    assert caplog.messages == [f"{first} has ended unasked, {words}; another takes its place now"]
    assert caplog.records[0].levelno == logging.ERROR
    [third] = yard.serve()
    assert (third.number, yard.workers.serving) == (0, [third, second])


def test_back_off(make_yard: MakeYard, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that ends soon, again and again, is replaced after pauses that double to a minute.

    The first time is at once; other slots know nothing of it.
    """
    yard = make_yard(2)
    yard.serve()
    pauses = []
    for _ in range(9):
        yard.dies(yard.workers.slots[0].worker or pytest.fail("no worker"))
        began, changes = yard.now, 0
        assert yard.workers.slots[1].worker is not None
        while 0 not in yard.workers.due():
            changes = yard.changes
            yard.wait(0.5)
        if yard.now > began:
            assert yard.changes > changes, "nobody looks who is due"
        pauses.append(yard.now - began)
        yard.serve()
    assert pauses == [0, 1, 2, 4, 8, 16, 32, LONGEST_PAUSE, LONGEST_PAUSE]
    assert caplog.messages[3].endswith("another takes its place in 4 s, since 4 ended soon")


def test_back_off_ends_with_a_stable_worker(make_yard: MakeYard) -> None:
    """One that lived for a while has not died of its start: the next time counts as the first."""
    yard = make_yard(1)
    for _ in range(4):
        yard.wait(8)
        yard.dies(yard.serve()[0])
    assert yard.workers.due() == []
    yard.wait(LONGEST_PAUSE)
    [worker] = yard.serve()
    yard.wait(STABLE + 1)
    yard.dies(worker)
    assert yard.workers.due() == [0]


def test_last_words(yard: Yard) -> None:
    """What a worker said before its end is heard, before the end is told."""
    first, _ = yard.workers.current
    yard.lines[first.pid].send(Kind.SESSIONS, [1])
    before = list(yard.ended)
    yard.obey = lambda *_: before.extend(yard.ended)
    yard.dies(first)
    assert yard.messages[-1] == (first, Message(Kind.SESSIONS, [1], ()))
    assert before == []
    assert yard.ended == [0]


def test_nothing_is_done_to_the_dead(yard: Yard) -> None:
    """Whatever its last words ask for, a worker that has ended is neither told nor killed.

    Its process id may be anybody's by then; and it is replaced all the same.
    """
    first, second = yard.workers.current

    def obey(worker: WorkerHandle, message: Message) -> None:
        if message.kind is Kind.REFUSED:
            yard.workers.kill(worker)
        else:
            yard.workers.send(worker, Kind.PLAN)
            yard.workers.nudge()

    yard.obey = obey
    for kind in (Kind.IN_ERROR, Kind.IN_FORCE, Kind.REFUSED):
        yard.lines[first.pid].send(kind, 0)
    yard.dies(first, signal.SIGKILL)
    assert yard.system.killed == []
    assert yard.workers.due() == [0]
    assert yard.heard(second) == [(Kind.STATUS, None)] * 2
    yard.workers.reap()  # nobody waits for it again
    assert yard.workers.serving == [second]


def test_nothing_of_it_stays_open(yard: Yard) -> None:
    """The line to a worker that has ended is closed, and nobody waits for it any more."""
    first, second = yard.workers.current
    line = first.channel.fileno()
    yard.dies(first)
    assert first.channel.fileno() == -1
    assert line not in yard.loop.readers
    assert second.channel.fileno() in yard.loop.readers


def test_line_closed_before_the_end(yard: Yard) -> None:
    """A worker whose line closes is not heard any more; its end is told by the kernel."""
    first, _ = yard.workers.current
    yard.lines[first.pid].close()
    yard.loop.readers[first.channel.fileno()]()
    assert first.channel.fileno() not in yard.loop.readers
    assert yard.ended == []
    yard.dies(first)
    assert yard.ended == [0]


# --- watching -------------------------------------------------------------------------------------


def test_hung(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    """A worker without a heartbeat for too long is killed once, and replaced."""
    first, second = yard.workers.current
    began = yard.now
    while not yard.system.killed:
        yard.wait(1, beats=False)
        yard.heartbeats[1] = yard.now
    assert HUNG < yard.now - began <= HUNG + WATCH
    yard.wait(5)
    assert yard.system.killed == [first.pid]
    assert caplog.messages == [f"{first} hangs: no heartbeat for 10 s; it is killed"]
    yard.dies(first)
    yard.fork()
    assert [worker.number for worker in yard.workers.current] == [0, 1]
    assert yard.workers.serving == [second]


def test_no_heartbeat_yet(make_yard: MakeYard) -> None:
    """Who has just begun to serve hasn't hung, even if its board says nothing of it yet.

    A reload may have begun another board while the worker was starting.
    """
    yard = make_yard(1)
    yard.wait(3)
    [worker] = yard.fork()
    yard.heartbeats[0] = 0.0
    yard.says(worker, Kind.IN_FORCE, 1)
    yard.wait(HUNG, beats=False)
    assert yard.system.killed == []
    yard.wait(1, beats=False)
    assert yard.system.killed == [worker.pid]


@pytest.mark.parametrize("away", [2 * WATCH + 0.1, 60.0, 86400.0])
def test_after_a_standstill(yard: Yard, away: float) -> None:
    """When we, or the whole machine, stood still nobody is killed for it: all get their chance.

    Who still hangs afterwards is killed then.
    """
    first, _ = yard.workers.current
    yard.clock.advance(away)
    yard.workers.watch()
    assert yard.system.killed == []
    yard.heartbeats[1] = yard.now
    yard.wait(1, beats=False)
    if away < HUNG:
        assert yard.system.killed == []
    else:
        assert yard.system.killed == [first.pid]


def test_first_look(make_yard: MakeYard) -> None:
    """The first look kills nobody: who can say how long the machine took so far."""
    yard = make_yard(1)
    yard.serve()
    yard.heartbeats[0] = 0.0
    yard.workers.watch()
    assert yard.system.killed == []


# --- talking --------------------------------------------------------------------------------------


def test_nudge(make_yard: MakeYard) -> None:
    """All that serve are to look at the members' status; who is starting looks by itself."""
    yard = make_yard(2)
    first, second = yard.fork()
    yard.says(first, Kind.IN_FORCE, 1)
    yard.workers.nudge()
    assert yard.heard(first) == [(Kind.STATUS, None)]
    assert yard.heard(second) == []


def test_cant_be_told(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that doesn't read what it is told is killed, and told nothing more."""
    first, second = yard.workers.current
    while not yard.system.killed:
        yard.workers.nudge()
        yard.heard(second)
    assert yard.system.killed == [first.pid]
    text = f"{first} can't be told anything: it doesn't read what it is told; it is killed"
    assert caplog.messages == [text]
    yard.workers.nudge()
    yard.workers.send(first, Kind.STATUS)
    assert yard.system.killed == [first.pid]
    assert caplog.messages == [text]


def test_gone_before_we_know(yard: Yard) -> None:
    """A worker that has ended, which nobody has told us yet, is no trouble when it is spoken to."""
    first, _ = yard.workers.current
    yard.system.end(first.pid, 0)
    yard.lines[first.pid].close()
    yard.workers.nudge()
    yard.workers.reap()
    assert yard.ended == [0]
    assert yard.workers.due() == [0]


# --- how many -------------------------------------------------------------------------------------


def test_resize(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    """More slots want workers; those of fewer stop gracefully, while the others know nothing."""
    caplog.set_level(logging.INFO, "balanceme")
    first, second = yard.workers.current
    yard.workers.resize(3, 100.0)
    assert yard.workers.due() == [2]
    [third] = yard.serve()
    yard.workers.resize(1, 100.0)
    assert yard.workers.retiring == [second, third]
    assert yard.workers.current == [first]
    assert yard.workers.all == [first, second, third]
    for worker in (second, third):
        assert yard.heard(worker) == [(Kind.STOP, 100.0)]
        assert worker.phase is Phase.STOPPING
    assert yard.heard(first) == []
    yard.dies(second)
    assert yard.workers.retiring == [third]
    assert yard.ended == []  # no slot is free for it
    assert yard.workers.due() == []
    assert caplog.messages == [f"{second} has ended with status 0"]
    # a slot that comes back gets a worker of its own, while a former one still ends
    yard.workers.resize(3, 100.0)
    assert yard.workers.due() == [1, 2]
    yard.serve()
    yard.dies(third)
    assert len(yard.workers.current) == 3
    assert yard.workers.retiring == []


def test_resize_of_an_empty_slot(yard: Yard) -> None:
    """A slot whose worker has just ended goes without a word, and its pause with it."""
    _, second = yard.workers.current
    yard.dies(second)
    yard.workers.resize(1, 1.0)
    yard.wait(2)
    assert yard.workers.due() == []
    assert yard.workers.retiring == []


# --- ending ---------------------------------------------------------------------------------------


def test_stop(yard: Yard) -> None:
    """All are told to stop, and none is replaced; the end of each is told, the last one too."""
    first, second = yard.workers.current
    yard.workers.stop(30.0)
    for worker in (first, second):
        assert yard.heard(worker) == [(Kind.STOP, 30.0)]
    yard.dies(first)
    assert yard.workers.due() == []
    changes = yard.changes
    yard.dies(second)
    assert yard.changes > changes
    assert yard.workers.all == []
    assert yard.ended == [0, 1]


def test_stop_deadline(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    """Who doesn't stop in time is killed; a heartbeat is not asked for any more."""
    first, second = yard.workers.current
    yard.workers.resize(1, 20.0)
    yard.workers.stop(10.0)
    yard.wait(10.0 + GRACE, beats=False)
    assert yard.system.killed == []
    yard.wait(1, beats=False)
    # the second was told anew: the shorter time counts
    assert sorted(yard.system.killed) == [first.pid, second.pid]
    assert f"{first} is stopping for too long; it is killed" in caplog.messages
    for worker in (first, second):
        yard.dies(worker)
    assert yard.workers.all == []


def test_stop_ends_pauses(make_yard: MakeYard) -> None:
    """Once we stop, no slot waits for its pause to end, and those that start are to stop too."""
    yard = make_yard(2)
    first, second = yard.fork()
    yard.dies(first)
    yard.workers.stop(5.0)
    assert yard.heard(second) == [(Kind.STOP, 5.0)]
    yard.says(second, Kind.IN_FORCE, 1)
    assert second.phase is Phase.STOPPING
    yard.wait(LONGEST_PAUSE)
    assert yard.workers.due() == []


def test_stop_after_a_kill(yard: Yard) -> None:
    """Who was killed is told nothing more, and waited for."""
    first, second = yard.workers.current
    yard.workers.kill(first)
    yard.workers.stop(5.0)
    assert first.phase is Phase.KILLED
    assert yard.heard(first) == []
    yard.wait(60)
    assert yard.system.killed == [first.pid, second.pid]
