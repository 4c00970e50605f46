"""An upgrade: a new program takes over the sockets of the one that runs.

The old supervisor starts its own command line again, with its listening sockets and one end of a
line. The new one serves beside it first, then says that it is ready; the old one answers, and from
then on only ends what it has under way. If the new program ends or says what is wrong with it
before that, nothing has happened. While both are there the line stays: when its new end closes,
the new supervisor is stopping, and the old one hurries too. A third program is handed the second's
end as well, so that the second may end without hurrying the first.
"""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence

log = logging.getLogger("balanceme")

# Holds the descriptors of a new supervisor's ends: of the line to the one that started it, then of
# the lines to those before that may still be finishing. 7,9
VARIABLE = "BALANCEME_UPGRADE"
# How long a new program may take until it serves, and the old one to answer, in seconds.
PREPARATION = 30.0
ANSWER = 5.0
# How long one that has closed its line without a word may take to end by itself, in seconds.
LAST = 2.0
# What a service manager said to the old process alone.
_PERSONAL = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID")
_READY, _GO, _FAILED = b"ready\n", b"go\n", b"failed: "
# Bytes of a new program's words that are read.
_LONGEST = 65536


class UpgradeError(Exception):
    """The new program could not take over, in words; it is gone."""


class Successor:
    """The new program, seen by the old supervisor."""

    def __init__(
        self, environ: Mapping[str, str], files: Sequence[int], lines: Sequence[int] = ()
    ) -> None:
        """Start it, with these descriptors open under the same numbers; raises UpgradeError.

        ``lines`` are those to our own predecessors.
        """
        self._line, theirs = socket.socketpair()
        self._line.settimeout(0)
        clean = {key: value for key, value in environ.items() if key not in _PERSONAL}
        handed = [theirs.fileno(), *lines]
        clean[VARIABLE] = ",".join(map(str, handed))
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                [sys.executable, *sys.orig_argv[1:]],
                env=clean,
                pass_fds=[*handed, *files],
            )
        except OSError as error:
            self._line.close()
            raise UpgradeError(f"the new program can't be started: {error}") from error
        finally:
            theirs.close()
        # why it is to end before it has taken over
        self._dropped = ""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ready(self) -> None:
        """Wait until it serves; raises UpgradeError when it won't."""
        loop = asyncio.get_running_loop()
        said = b""
        try:
            async with asyncio.timeout(PREPARATION):
                while said != _READY and (piece := await loop.sock_recv(self._line, _LONGEST)):
                    said += piece
        except TimeoutError:
            self.drop(f"it does not serve after {PREPARATION:g} s")
        except OSError as error:
            self.drop(str(error))
        if said != _READY:
            if not (said or self._dropped):
                await self._let_end()
            self.drop(said.removeprefix(_FAILED).decode(errors="replace").strip())
        if self._dropped or said != _READY:
            status = self._process.wait()
            self._line.close()
            reason = self._dropped or _how(status)
            raise UpgradeError(f"the new program was dropped: {reason}")

    async def _let_end(self) -> None:
        """Wait a moment for its end: then the exit status tells why it ended, and not that we did.

        A program that fails closes its files well before it is gone.
        """
        for _ in range(100):
            if self._process.poll() is not None:
                break
            await asyncio.sleep(LAST / 100)

    def drop(self, reason: str) -> None:
        """End it before it has taken over; without a ``reason`` its exit status is one."""
        self._dropped = self._dropped or reason
        self._process.kill()

    def go(self, when_it_stops: Callable[[], None]) -> None:
        """Let it take over; ``when_it_stops`` is called once when it does."""
        loop = asyncio.get_running_loop()

        def closed() -> None:
            loop.remove_reader(self._line)
            when_it_stops()

        try:
            self._line.send(_GO)
        except OSError:
            pass  # it is gone already, as the line tells right away
        loop.add_reader(self._line, closed)

    def reap(self) -> None:
        """Take note of its end, if it has ended."""
        self._process.poll()


def _how(status: int) -> str:
    if status < 0:
        return f"it was ended by {signal.Signals(-status).name}"
    return f"it ended with status {status}; standard error may tell more"


class Predecessor:
    """The old supervisor, seen by the new program."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Read what the old one left; the variable goes, so that no other process takes it up."""
        self._line, *self._earlier = [
            socket.socket(fileno=int(number)) for number in environ.pop(VARIABLE).split(",")
        ]
        for line in (self._line, *self._earlier):
            line.set_inheritable(False)
            line.settimeout(ANSWER)

    @property
    def lines(self) -> list[int]:
        """The descriptors of the lines to all who may still be finishing."""
        return [line.fileno() for line in (self._line, *self._earlier) if not _is_closed(line)]

    @classmethod
    def found(cls, environ: MutableMapping[str, str]) -> "Predecessor | None":
        """The one that started us, if one did."""
        return cls(environ) if VARIABLE in environ else None

    def take_over(self) -> None:
        """Say that we serve, and wait until the old one has let go of what there is once."""
        try:
            self._line.send(_READY)
            answer = self._line.recv(len(_GO))
        except OSError as error:
            log.warning("the former supervisor does not answer: %s", error)
        else:
            if answer != _GO:
                log.warning("the former supervisor has ended before it could hand over")

    def fail(self, reason: str) -> None:
        """Say why we can't."""
        try:
            self._line.send(_FAILED + reason.encode()[: _LONGEST - len(_FAILED)])
        except OSError as error:
            log.warning("the former supervisor can't be told: %s", error)

    def hurry(self) -> None:
        """We stop, and so shall it, and whoever finishes since before it."""
        for line in (self._line, *self._earlier):
            line.close()


def _is_closed(line: socket.socket) -> bool:
    """Whether the other end is closed: nobody there says anything once we have taken over."""
    line.settimeout(0)
    try:
        return not line.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
