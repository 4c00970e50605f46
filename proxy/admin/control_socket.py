"""The control socket: which path it has, and how its file comes into place and goes.

Two rules. The rights of the file are the access control, so they are right from its first moment.
And the path never leads to half a socket: it is bound under another name, listens, and is renamed
into place, over the one of a supervisor that is being replaced if need be. Whoever does that, or
removes its file, holds a lock on the folder: of two that start together the second finds the
first, and one that leaves doesn't remove its successor's file.

What is sent over it is ``admin.api``'s.
"""

import asyncio
import fcntl
import logging
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from proxy.core.errors import ConfigError, Mistake

log = logging.getLogger("balanceme")

VARIABLE = "BALANCEME_SOCKET"
# Bytes of a path that fit into struct sockaddr_un, less the zero at their end.
LONGEST_PATH = 107
# Not TMPDIR: the supervisor and the command line must mean the same folder.
_SHARED = Path("/tmp")  # noqa: S108 - what is found there is checked on each use
# The file's mode is 0660: connecting takes the right to write.
_UMASK = 0o117
# Commands that may wait to be accepted.
_BACKLOG = 64
# Seconds; a lock is held for some system calls.
_LOCK_TRIES = 200
_LOCK_PAUSE = 0.025
_PROBE_TIMEOUT = 2.0
# Linux's struct ucred: process, user and group.
_PEER = struct.Struct("3i")


class SocketError(ConfigError):
    """The control socket can't be had at this path; the message says why, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__([Mistake((), message)])


def default_socket(environ: Mapping[str, str], uid: int) -> Path:
    """Where the control socket of this user is, unless another path is given.

    Raises SocketError if it would be in a folder that somebody else may have made.
    """
    if environ.get(VARIABLE):
        return Path(environ[VARIABLE])
    if uid == 0:
        return Path("/run/balanceme/control.sock")
    runtime = Path(environ.get("XDG_RUNTIME_DIR", ""))
    # The XDG specification wants a path that isn't absolute to count as none.
    if runtime.is_absolute():
        return runtime / "balanceme" / "control.sock"
    folder = _SHARED / f"balanceme-{uid}"
    if os.path.lexists(folder):
        _check_ours(folder, uid)
    return folder / "control.sock"


def _check_ours(folder: Path, uid: int) -> None:
    """A folder where all may write can hold somebody else's in the place of ours."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or found.st_mode & 0o077:
        raise SocketError(
            f"{folder} must be a folder of this user's own with mode 0700;"
            " remove it, or give another --socket"
        )


def process_behind(connected: socket.socket) -> int:
    """The process that listens where this socket is connected to; 0 if it has no id here."""
    told = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    pid: int = _PEER.unpack(told)[0]
    return pid


class ControlSocket:
    """A socket that listens at a path, between ``open`` and ``remove``."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        # Beside it, so that a rename is enough.
        self._temporary = self.path.with_name(f".balanceme-{os.getpid()}")
        self._placed: tuple[int, int] | None = None

    async def open(self, *, takes_over: bool) -> socket.socket:
        """The socket, in place; with ``takes_over`` the path may be a running supervisor's.

        Raises SocketError.
        """
        self._check_length()
        try:
            _make_folder(self.path.parent)
            async with _locked(self.path.parent):
                self._check_place(takes_over=takes_over)
                return self._put_in_place()
        except OSError as error:
            reason = error.strerror or error
            raise SocketError(f"no socket can be made at {self.path}: {reason}") from error

    @property
    def is_in_place(self) -> bool:
        """Whether the path leads to us."""
        try:
            return _identity(self.path) == self._placed
        except FileNotFoundError:
            return False

    async def remove(self) -> None:
        """Take the file away if it is still ours; call it while the socket is open."""
        # An open socket keeps its file's inode, so no other file can have the number.
        placed, self._placed = self._placed, None
        if placed is None:
            return
        try:
            async with _locked(self.path.parent):
                if _identity(self.path) == placed:
                    self.path.unlink()
        except FileNotFoundError:
            return
        except (OSError, SocketError) as error:
            log.warning("%s could not be removed: %s", self.path, error)

    def _check_length(self) -> None:
        for path in (self.path, self._temporary):
            length = len(os.fsencode(path))
            if length > LONGEST_PATH:
                raise SocketError(
                    f"{path} has {length} bytes, and the path of a socket at most {LONGEST_PATH};"
                    " give a shorter --socket"
                )

    def _check_place(self, *, takes_over: bool) -> None:
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise SocketError(
                f"{self.path} is there, and is no socket; remove it, or give another --socket"
            )
        if not takes_over:
            _check_abandoned(self.path)

    def _put_in_place(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Left by one that was killed, and had our process id.
            self._temporary.unlink(missing_ok=True)
            before = os.umask(_UMASK)
            try:
                sock.bind(str(self._temporary))
            finally:
                os.umask(before)
            sock.listen(_BACKLOG)
            self._temporary.replace(self.path)
            self._placed = _identity(self.path)
        except BaseException:
            sock.close()
            raise
        return sock


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _make_folder(folder: Path) -> None:
    shared = folder.parent.stat().st_mode & stat.S_IWOTH
    try:
        folder.mkdir(mode=0o700 if shared else 0o750)
    except FileExistsError:
        pass
    if shared:
        _check_ours(folder, os.geteuid())


@asynccontextmanager
async def _locked(folder: Path) -> AsyncIterator[None]:
    """Hold the lock of a folder; the event loop goes on while another one has it."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(_LOCK_PAUSE)
            else:
                break
        else:
            raise SocketError(
                f"{folder} is locked by another process; end it, or give another --socket"
            )
        yield
    finally:
        os.close(fd)


def _check_abandoned(path: Path) -> None:
    """Raises SocketError unless nobody listens there: who had it was killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT)
        pid = 0
        try:
            probe.connect(str(path))
            pid = process_behind(probe)
        except ConnectionRefusedError:
            return
        except BlockingIOError:
            pass  # so many wait to be accepted that no more can
    # A process of another container has no id here.
    process = f", process {pid}," if pid else ""
    raise SocketError(
        f"another balanceme{process} answers on {path}; stop it, or give this one another --socket"
    )
