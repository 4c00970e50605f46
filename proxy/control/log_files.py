"""Where log lines go: a file, a standard stream, or the syslog daemon.

``open_log`` makes the descriptor, once, before accounts change and workers are forked; each process
then writes through a ``LineSink`` of its own, which neither waits nor raises: a full disk, or a
terminal that somebody stopped, costs lines and not traffic. Only a plain file can't be written
without waiting, since the kernel offers no such thing: a disk that hangs is a log that hangs.

Several processes write to one pipe. What a client sent must not begin a line there (H85), so lines
go out whole, in pieces that the kernel doesn't mix with those of others (pipe(7): PIPE_BUF), and
the rest of a line that was cut is never written.
"""

import contextlib
import errno
import fcntl
import logging
import os
import select
import socket
import stat
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from proxy.core.errors import ConfigError, Mistake

log = logging.getLogger("balanceme")

# Where the syslog daemon takes datagrams.
SYSLOG = "/dev/log"
# RFC 3164 section 4.1.1: the facility for daemons without one of their own, and what a line is
# that only informs.
DAEMON = 3
INFORMATIONAL = 6
# Bytes of lines that wait for a reader who is slow; also what we ask pipes to hold, whose 64 KiB
# are less than a batch of access lines, and the most that Linux allows without privileges.
MOST_WAITING = 1 << 20
# How often lines that wait are tried again when a process ends, in seconds.
STEP = 0.01
# How soon they are tried again while the loop runs: the queue of a syslog daemon may hold no more
# than 10 lines (unix(7): max_dgram_qlen).
RETRY = 0.02

_TO_WRITE = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_NOW = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_REMEDIES = {
    errno.ENOENT: "create its folder, or name another file",
    errno.ENOTDIR: "a part of its path is no folder; name another file",
    errno.EACCES: "let this user write there, or name another file",
    errno.EPERM: "let this user write there, or name another file",
    errno.EISDIR: "name a file in it",
    errno.ENXIO: "it is a pipe without a reader, which must be started first, or a socket",
    errno.EROFS: "name a file that isn't on a disk for reading only",
    errno.ENOSPC: "make room on its disk, or name another file",
}


# --- opening -------------------------------------------------------------------------------------


def open_log(path: str, standard: int, key: str) -> int:
    """A new descriptor for a ``LineSink``, closed on exec.

    ``path`` is the name of a file, "-" for the standard stream numbered ``standard``, or "syslog".
    Raises ConfigError at ``key``.path when nothing can be written there.
    """
    try:
        if path == "-":
            return _standard_stream(standard)
        if path == "syslog":
            return _syslog()
        # A named pipe without a reader would keep us waiting; plain files ignore O_NONBLOCK.
        return _with_room(os.open(path, _TO_WRITE | os.O_CREAT, 0o640))
    except OSError as error:
        if path == "-":
            text = f"standard {'output' if standard == 1 else 'error'} can't be written"
            remedy = "start with an open one, or name a file"
        elif path == "syslog":
            text = f"{SYSLOG} can't be reached"
            remedy = "start a syslog daemon, or name a file"
        else:
            text = f"{path} can't be written"
            remedy = _REMEDIES.get(error.errno or 0, "name another file")
        message = f"{text}: {error.strerror}; {remedy}"
        raise ConfigError([Mistake((key, "path"), message)]) from error


def take_standard_streams() -> None:
    """Let nobody else have the numbers of standard streams that are closed.

    The next files that are opened would, and whoever means the stream would write into one of them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # This is the lowest number that is free. For reading only: no log is to take it.
            os.open(os.devnull, os.O_RDONLY)
            os.set_inheritable(number, True)  # noqa: FBT003 - has no name


def _standard_stream(number: int) -> int:
    """Opened anew if somebody may be slow to read it, else a duplicate.

    O_NONBLOCK belongs to what was opened, and that is the shell's as well as ours.
    """
    if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    if stat.S_ISFIFO(os.fstat(number).st_mode) or os.isatty(number):
        # Refused when it belongs to another account: _send_to_foreign is for that.
        with contextlib.suppress(OSError):
            return _with_room(os.open(f"/proc/self/fd/{number}", _TO_WRITE))
    return _with_room(os.dup(number))


def _with_room(fd: int) -> int:
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, MOST_WAITING)
    return fd


def _syslog() -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(SYSLOG)
        return sock.detach()


# --- kinds of targets ----------------------------------------------------------------------------


class _Kind(NamedTuple):
    """How lines reach one kind of descriptor."""

    cut: Callable[[bytes, int], list[bytes]]
    """Whole lines of a severity, into what is sent at once."""
    send: Callable[[int, bytes], int]
    """As os.write does; raises BlockingIOError instead of waiting."""
    comes_back: bool = False
    """Whether an error is no reason to give up lines: they wait."""


def _kind(fd: int) -> _Kind:
    """What ``fd`` is."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode):
        sock = socket.socket(fileno=fd)
        datagrams = sock.type == socket.SOCK_DGRAM
        sock.detach()
        return _SYSLOG if datagrams else _STREAM_SOCKET
    if not stat.S_ISFIFO(mode) and not os.isatty(fd):
        return _FILE
    return _FOREIGN_STREAM if os.get_blocking(fd) else _STREAM


def _together(lines: bytes, _: int) -> list[bytes]:
    return [lines] if lines else []


def _packed(lines: bytes, _: int) -> list[bytes]:
    """As many lines as the kernel keeps together; a longer one for itself."""
    pieces = []
    begin = 0
    while begin < len(lines):
        end = begin + select.PIPE_BUF
        if end < len(lines):
            end = lines.rfind(b"\n", begin, end) + 1 or lines.index(b"\n", end) + 1
        pieces.append(lines[begin:end])
        begin = end
    return pieces


def _datagrams(lines: bytes, severity: int) -> list[bytes]:
    """A line each, behind a header in the form that local daemons read (RFC 3164 section 4)."""
    priority = DAEMON * 8 + severity
    header = f"<{priority}>{time.strftime('%b %e %H:%M:%S')} balanceme[{os.getpid()}]: ".encode()
    return [header + line for line in lines.splitlines(keepends=True)]


def _send_to_socket(fd: int, piece: bytes) -> int:
    sock = socket.socket(fileno=fd)
    try:
        return sock.send(piece, _NOW)
    finally:
        sock.detach()


def _send_to_syslog(fd: int, piece: bytes) -> int:
    """A daemon that was started again has another socket of the same name."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM, fileno=fd)
    line = piece.rstrip(b"\n")
    try:
        sock.send(line, _NOW)
    except BlockingIOError:
        raise
    except OSError:
        sock.connect(SYSLOG)
        sock.send(line, _NOW)
    finally:
        sock.detach()
    return len(piece)


def _send_to_foreign(fd: int, piece: bytes) -> int:
    """To a pipe or terminal whose waiting we can't turn off, since it isn't ours alone."""
    # Room for so much is what poll promises; a longer line is cut.
    piece = piece[: select.PIPE_BUF]
    try:
        return os.pwritev(fd, [piece], -1, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
    # Pipes before Linux 6.4, whose room another worker may take, and terminals, who may promise
    # more than they have: only there somebody who stops to read may hold us up after all.
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    if not poller.poll(0):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return os.write(fd, piece)


_FILE = _Kind(_together, os.write)
_STREAM = _Kind(_packed, os.write)
_FOREIGN_STREAM = _Kind(_packed, _send_to_foreign)
_STREAM_SOCKET = _Kind(_packed, _send_to_socket)
_SYSLOG = _Kind(_datagrams, _send_to_syslog, comes_back=True)


# --- writing -------------------------------------------------------------------------------------


class LineSink:
    """Writes lines to the descriptor ``fd`` of ``open_log``, which it owns; for one thread.

    What can't be written at once waits, up to ``MOST_WAITING`` bytes, for the next ``write`` or
    ``flush``; with an event loop's ``call_later`` it is tried again soon. Trouble is said once, and
    once when it is over, with the number of lines lost: through ``on_trouble`` and ``on_recovery``,
    which are handed a sentence.
    """

    __slots__ = (
        *("fd", "on_trouble", "on_recovery", "call_later"),
        *("_name", "_kind", "_waiting", "_retrying", "_troubled", "_lost"),
    )

    def __init__(self, fd: int, name: str) -> None:
        """``name`` is what people call it: access log. Raises OSError if ``fd`` isn't open."""
        self.fd = fd
        self.on_trouble: Callable[[str], None] = log.warning
        self.on_recovery: Callable[[str], None] = log.warning
        # an event loop's, for what can't be written at once
        self.call_later: Callable[[float, Callable[[], None]], object] | None = None
        self._name = name
        self._kind = _kind(fd)
        # pieces as they are sent; one that begins with a line's end follows a line that was cut
        self._waiting: deque[bytes] = deque()
        self._retrying = False
        self._troubled = False
        # lines, since the trouble began
        self._lost = 0

    def write(self, lines: bytes, severity: int = INFORMATIONAL) -> None:
        """Write whole lines, each with its end; ``severity`` is syslog's (RFC 3164 section 4.1.1).

        Without lines it tries what waits, as ``flush`` does. Never waits, never raises.
        """
        self._waiting += self._kind.cut(lines, severity)
        self.flush()
        size = sum(map(len, self._waiting))
        if size > MOST_WAITING:
            while size > MOST_WAITING:
                piece = self._waiting.pop()
                size -= len(piece)
                self._lost += piece.count(b"\n")
            self._trouble("its reader is too slow; lines are lost")

    def flush(self) -> None:
        """Try again what waits; to be called about once a second."""
        if not self._waiting:
            return
        error = self._send()
        if error is None:
            self._recover()
        elif isinstance(error, BlockingIOError):
            self._retry()
        else:
            fate = "wait" if self._waits_for(error) else "are lost"
            self._trouble(f"{error.strerror}; lines {fate}")

    def replace(self, fd: int) -> None:
        """Write to ``fd`` from now on, under the number of the old one; ``fd`` itself is closed.

        For a file that was renamed, or another one. What waited for the old one goes to the new.
        """
        self.flush()
        os.dup2(fd, self.fd, inheritable=False)
        os.close(fd)
        before, self._kind = self._kind, _kind(self.fd)
        # Datagrams have their header already.
        if not (before is self._kind is _SYSLOG):
            # The line that was cut is none of the new one's.
            waiting = b"".join(self._waiting).removeprefix(b"\n")
            self._waiting = deque(self._kind.cut(waiting, INFORMATIONAL))
        self.flush()

    def close(self, patience: float = 0.0) -> None:
        """Write no more; what waits may be taken for ``patience`` seconds, which are waited for."""
        if self.fd < 0:
            return
        deadline = time.monotonic() + patience
        self.flush()
        while self._waiting and time.monotonic() < deadline:
            time.sleep(STEP)
            self.flush()
        if self._waiting:
            self._lost += self._count()
            self._waiting.clear()
            self.on_trouble(f"{self._name}: it is closed; lines lost: {self._lost}")
        os.close(self.fd)
        self.fd, self._kind = -1, _FILE

    def _send(self) -> OSError | None:
        """Send what waits; why it wasn't all."""
        while self._waiting:
            piece = self._waiting[0]
            try:
                taken = self._kind.send(self.fd, piece)
            except OSError as error:
                if not isinstance(error, BlockingIOError) and not self._waits_for(error):
                    self._lose()
                return error
            if taken == len(piece):
                self._waiting.popleft()
            else:
                self._waiting[0] = self._rest(piece, taken)
        return None

    def _waits_for(self, error: OSError) -> bool:
        return self._kind.comes_back and error.errno != errno.EMSGSIZE

    def _rest(self, piece: bytes, taken: int) -> bytes:
        """What remains to be sent behind the first ``taken`` bytes, lines that are whole."""
        end = piece.index(b"\n", max(taken - 1, 0))
        if end < taken:
            return piece[taken:]
        # Only this line's end: by now another process may have written behind the cut.
        self._lost += 1
        return piece[end:]

    def _count(self) -> int:
        """Lines that wait."""
        cut = bool(self._waiting) and self._waiting[0].startswith(b"\n")
        return sum(piece.count(b"\n") for piece in self._waiting) - cut

    def _lose(self) -> None:
        """Give up what waits, but for the end of a line that was cut."""
        self._lost += self._count()
        cut = self._waiting[0].startswith(b"\n")
        self._waiting.clear()
        if cut:
            self._waiting.append(b"\n")

    def _retry(self) -> None:
        """Soon: a pipe or a daemon may hold less than a batch of lines."""
        if self.call_later is None or self._retrying:
            return
        try:
            self.call_later(RETRY, self._again)
            self._retrying = True
        except RuntimeError:
            # the loop is closed: close() comes next
            self.call_later = None

    def _again(self) -> None:
        self._retrying = False
        self.flush()

    def _trouble(self, text: str) -> None:
        if not self._troubled:
            self._troubled = True
            self.on_trouble(f"{self._name}: {text} until it can be written")

    def _recover(self) -> None:
        if not self._troubled and not self._lost:
            return
        lost, self._lost = self._lost, 0
        self._troubled = False
        self.on_recovery(f"{self._name}: it can be written again; lines lost: {lost}")

    def __repr__(self) -> str:
        trouble = f", {self._lost} lost" if self._troubled else ""
        return f"<LineSink {self._name}: {self._count()} lines waiting{trouble}>"
