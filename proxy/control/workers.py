"""The workers as processes: forked, watched, replaced, ended.

A slot holds one worker after another. One that ends unasked is replaced at once; if it ends soon
and again, after a growing pause of its own slot alone. One whose heartbeat stops is killed. Forking
is left to the caller, since it must not happen while the supervisor's event loop runs.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from proxy.control.channel import Channel, ChannelError, Kind, Message

log = logging.getLogger("balanceme")

# A worker that lived so long, in seconds, has not died of its start.
STABLE = 10.0
# The longest pause before a worker is replaced that ends again and again, in seconds.
LONGEST_PAUSE = 60.0
# Seconds without a heartbeat (there are two a second) after which a worker counts as hung.
HUNG = 10.0
# How long a worker may take until it serves, or has put a plan in force, in seconds.
PREPARATION = 20.0
# Beyond the time that a worker has to stop; then it is killed.
GRACE = 2.0
# How often workers are looked at, in seconds.
WATCH = 1.0


class Phase(Enum):
    """What a worker is doing, as far as the supervisor knows."""

    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"
    # or ended: nobody talks to it any more, and its process id may become another's
    KILLED = "killed"


@dataclass
class WorkerHandle:
    """One worker's process."""

    number: int
    pid: int
    channel: Channel
    generation: int
    started: float
    phase: Phase = Phase.STARTING
    # until when it must have done what it was told, monotonic
    deadline: float = 0.0
    # what it is called; by its number when left out
    title: str = ""

    def __str__(self) -> str:
        return f"{self.title or f'worker {self.number + 1}'} (process {self.pid})"


@dataclass
class Slot:
    """The place of one worker after another."""

    worker: WorkerHandle | None = None
    # how many in a row ended soon, and when the next one is due
    failures: int = 0
    due: float = 0.0


@dataclass
class Told:
    """What is done about what happens to workers."""

    message: Callable[[WorkerHandle, Message], None]
    # a worker in a slot has ended; its number
    ended: Callable[[int], None]
    # there is something to fork, or nobody left
    changed: Callable[[], None]


@dataclass
class Workers:
    """All workers of this supervisor."""

    loop: asyncio.AbstractEventLoop
    told: Told
    heartbeat: Callable[[int], float]
    slots: list[Slot] = field(default_factory=list)
    # those that no slot has any more, until they end
    retiring: list[WorkerHandle] = field(default_factory=list)
    stopping: bool = False
    _watched: float = 0.0

    # --- how many, and who is due ----------------------------------------------------------------

    def resize(self, count: int, timeout: float) -> None:
        """Have so many slots; workers beyond them stop gracefully within ``timeout`` seconds."""
        while len(self.slots) < count:
            self.slots.append(Slot())
        for slot in self.slots[count:]:
            if slot.worker is not None:
                self.retiring.append(slot.worker)
                self._tell_to_stop(slot.worker, timeout)
        del self.slots[count:]

    def due(self) -> list[int]:
        """The numbers of the slots that want a worker now."""
        if self.stopping:
            return []
        now = time.monotonic()
        return [
            number
            for number, slot in enumerate(self.slots)
            if slot.worker is None and slot.due <= now
        ]

    def forked(self, worker: WorkerHandle) -> None:
        """A slot has its worker."""
        worker.deadline = time.monotonic() + PREPARATION
        self.slots[worker.number].worker = worker
        self.loop.add_reader(worker.channel.fileno(), self._hear, worker)

    @property
    def all(self) -> list[WorkerHandle]:
        """All workers there are."""
        return [*self.current, *self.retiring]

    @property
    def current(self) -> list[WorkerHandle]:
        """Those in slots."""
        return [slot.worker for slot in self.slots if slot.worker is not None]

    @property
    def serving(self) -> list[WorkerHandle]:
        """Those in slots that serve."""
        return [worker for worker in self.current if worker.phase is Phase.SERVING]

    # --- talking ---------------------------------------------------------------------------------

    def send(
        self, worker: WorkerHandle, kind: Kind, value: Any = None, files: Sequence[int] = ()
    ) -> None:
        """Tell a worker something; one that can't be told is killed, and so replaced."""
        try:
            worker.channel.send(kind, value, files)
        except ChannelError as error:
            if worker.phase is not Phase.KILLED:
                log.warning("%s can't be told anything: %s; it is killed", worker, error)
                self.kill(worker)

    def nudge(self) -> None:
        """Let all look at the members' status."""
        for worker in self.serving:
            self.send(worker, Kind.STATUS)

    def _hear(self, worker: WorkerHandle) -> None:
        try:
            while (message := worker.channel.receive()) is not None:
                if message.kind is Kind.IN_FORCE and worker.phase is Phase.STARTING:
                    worker.phase = Phase.SERVING
                self.told.message(worker, message)
        except EOFError:
            self.loop.remove_reader(worker.channel.fileno())  # its end is told by the kernel

    # --- watching --------------------------------------------------------------------------------

    def watch(self) -> None:
        """Once a second: look who hangs, or didn't do in time what it was told."""
        now = time.monotonic()
        late = now - self._watched > 2 * WATCH
        self._watched = now
        if late:
            return  # it was we, or the whole machine, that stood still; they had no chance
        for worker in self.all:
            if worker.phase is Phase.SERVING:
                # One that was starting during a reload has no heartbeat on the new board yet.
                hung = now - max(self.heartbeat(worker.number), worker.started) > HUNG
                if hung:
                    log.error("%s hangs: no heartbeat for %g s; it is killed", worker, HUNG)
            else:
                hung = worker.phase is not Phase.KILLED and now > worker.deadline
                if hung:
                    log.error("%s is %s for too long; it is killed", worker, worker.phase.value)
            if hung:
                self.kill(worker)

    def reap(self) -> None:
        """Take note of workers that have ended."""
        for worker in self.all:
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: WorkerHandle, code: int) -> None:
        worker.phase = Phase.KILLED  # its last words may ask for what can't be done any more
        self._hear(worker)
        self.loop.remove_reader(worker.channel.fileno())
        worker.channel.close()
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        if worker in self.retiring:
            self.retiring.remove(worker)
            log.info("%s has ended %s", worker, how)
        else:
            self.slots[worker.number].worker = None
            self.told.ended(worker.number)
            if not self.stopping:
                self._plan_next(worker, how)
        self.told.changed()

    def _plan_next(self, worker: WorkerHandle, how: str) -> None:
        now = time.monotonic()
        slot = self.slots[worker.number]
        slot.failures = 0 if now - worker.started > STABLE else slot.failures + 1
        pause = min(2.0 ** (slot.failures - 2), LONGEST_PAUSE) if slot.failures > 1 else 0.0
        slot.due = now + pause
        self.loop.call_later(pause, self.told.changed)
        when = f"in {pause:g} s, since {slot.failures} ended soon" if pause else "now"
        log.error("%s has ended unasked, %s; another takes its place %s", worker, how, when)

    # --- ending ----------------------------------------------------------------------------------

    def stop(self, timeout: float) -> None:
        """Let all stop gracefully within ``timeout`` seconds; none is replaced any more."""
        self.stopping = True
        for worker in self.all:
            self._tell_to_stop(worker, timeout)
        self.told.changed()

    def _tell_to_stop(self, worker: WorkerHandle, timeout: float) -> None:
        if worker.phase is not Phase.KILLED:
            worker.phase = Phase.STOPPING
            worker.deadline = time.monotonic() + timeout + GRACE
            self.send(worker, Kind.STOP, timeout)

    def kill(self, worker: WorkerHandle) -> None:
        """End a worker at once."""
        if worker.phase is not Phase.KILLED:
            worker.phase = Phase.KILLED
            os.kill(worker.pid, signal.SIGKILL)

    def __repr__(self) -> str:
        return f"<Workers {len(self.current)} of {len(self.slots)}, {len(self.retiring)} retiring>"
