"""Files that the supervisor leaves on the system: its process id, and what survives a restart.

Whoever reads one finds the old content or the new one, never a part: each is written beside its
name and put in its place. Only the supervisor writes here; a worker that was broken into can
neither forge what the next start believes nor name a process that root is to signal.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from proxy.core.errors import ConfigError, Mistake

log = logging.getLogger("balanceme")

T = TypeVar("T")

# Bytes; what is longer holds no process id.
LONGEST_PID = 20


# --- the pid file ------------------------------------------------------------------------------


class PidFile:
    """The file with our process id, locked as long as we live.

    The lock tells a living balanceme from what a dead one left; process ids alone can't, since they
    are given again. It is one of the process (fcntl(2), F_SETLK): workers don't inherit it, and it
    ends however we end.
    """

    __slots__ = ("_descriptor", "_path", "_pid")

    def __init__(self, path: str, predecessor: int | None = None) -> None:
        """Take the file; ``predecessor`` is the process that an upgrade follows.

        Raises ConfigError if another balanceme holds it, and for a name that can't be used.
        """
        self._path = Path(path)
        self._pid = os.getpid()
        self._descriptor = self._open(predecessor)

    def _open(self, predecessor: int | None) -> int:
        path = self._path
        try:
            return self._take(predecessor)
        except OSError as error:
            text = f"{path} can't be written: {error.strerror}"
            if isinstance(error, FileNotFoundError):
                text += f"; make the folder {self._path.parent} first (under systemd,"
                text += " RuntimeDirectory= does)"
            raise ConfigError([Mistake(("pid_file",), text)]) from error

    def take_back(self) -> None:
        """Take it again if another one had taken it over, and is gone; raises ConfigError."""
        if not _is_file(self._path, self._descriptor):
            former, self._descriptor = self._descriptor, self._open(None)
            os.close(former)

    def remove(self) -> None:
        """Remove the file, unless it is another's by now: an upgrade's, or a child asks."""
        if os.getpid() != self._pid:
            return
        try:
            if _is_file(self._path, self._descriptor):
                self._path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("the pid file %s can't be removed: %s", self._path, error.strerror)
        finally:
            os.close(self._descriptor)

    def _take(self, predecessor: int | None) -> int:
        made = self._path.with_name(f".{self._path.name}.{self._pid}")
        descriptor = _write_beside(made, b"%d\n" % self._pid, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            while not self._put(made, predecessor):
                pass
        except BaseException:
            os.close(descriptor)
            made.unlink()
            raise
        return descriptor

    def _put(self, made: Path, predecessor: int | None) -> bool:
        """Put our file in its place; False if another one was put or removed meanwhile."""
        try:
            held = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            try:
                os.link(made, self._path)
            except FileExistsError:
                return False
            made.unlink()
            return True
        try:
            pid = self._pid_in(held)
            try:
                fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                if predecessor is None or pid != predecessor:
                    raise self._in_use(pid) from None
            # Between opening and locking it may have become another's.
            if not _is_file(self._path, held):
                return False
            made.replace(self._path)
            return True
        finally:
            os.close(held)

    def _pid_in(self, descriptor: int) -> int | None:
        """The process id in a file; raises ConfigError for a file that is none of ours."""
        text = os.pread(descriptor, LONGEST_PID + 1, 0)
        if text and not re.fullmatch(rb"[0-9]{1,19}\n?", text):
            remedy = "it holds something else; name another file, or remove it"
            raise ConfigError([Mistake(("pid_file",), f"{self._path} is no pid file: {remedy}")])
        return int(text) if text else None

    def _in_use(self, pid: int | None) -> ConfigError:
        text = f"{self._path} belongs to a balanceme that runs as process {pid}; end it first"
        remedy = f" (kill {pid}), or give this one a file of its own"
        return ConfigError([Mistake(("pid_file",), text + remedy)])


def _is_file(path: Path, descriptor: int) -> bool:
    """Whether a name still is that of an open file."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


# --- the state folder --------------------------------------------------------------------------


def open_folder(path: str) -> Path:
    """The state folder, made with mode 0750 if it isn't there, and ours alone.

    It stays the supervisor's own (root's, when workers drop to another user): they never write
    there. Raises ConfigError if it can't be used, and if others could write to it, for what is read
    from it is believed.
    """
    folder = Path(path)
    try:
        try:
            folder.mkdir(mode=0o750)
        except FileExistsError:
            pass
        reason = _unsafe(folder)
    except OSError as error:
        reason = f"can't be used: {error.strerror}"
    if reason is not None:
        raise ConfigError([Mistake(("state_folder",), f"{path} {reason}")])
    return folder


def _unsafe(folder: Path) -> str | None:
    """Why a folder can't hold our state, if it can't."""
    found = folder.stat()
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISDIR(found.st_mode):
        return "is no folder"
    if found.st_uid not in (0, os.geteuid()):
        return f"belongs to user {found.st_uid}, who could forge what is read from it; chown it"
    # A group of our own is us: many systems give each user one, and mode 0775 with it.
    if mode & 0o002 or (mode & 0o020 and found.st_gid != os.getegid()):
        return f"can be written by others (mode {mode:04o}); chmod 750 {folder}"
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        return f"can't be written by user {os.geteuid()}; change its owner"
    return None


def save_state(folder: Path, name: str, data: bytes) -> bool:
    """Put ``data`` in the place of what was saved before; False if that is still there instead.

    A full disk or the like is told in the log, and is no reason to stop.
    """
    path = folder / name
    made = path.with_name(f".{name}.{os.getpid()}")
    try:
        try:
            checked = b"sha256 %b\n%b" % (_checksum(data), data)
            os.close(_write_beside(made, checked, 0o640, sync=True))
            made.replace(path)
            _sync_folder(folder)
        except BaseException:
            made.unlink(missing_ok=True)
            raise
    except OSError as error:
        log.warning("%s can't be saved, what it held before stays: %s", path, error.strerror)
        return False
    return True


def load_state(folder: Path, name: str, parse: Callable[[bytes], T]) -> T | None:
    """What was saved, read by ``parse``; None if nothing was, or nothing that can be used.

    A file that ``parse`` raises for is set aside under the name ``NAME.damaged`` with a warning.
    What killed processes left half written is removed.
    """
    path = folder / name
    for left in folder.glob(f".{name}.[0-9]*"):
        with contextlib.suppress(OSError):
            left.unlink()
    try:
        return parse(_checked(path.read_bytes()))
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 - whatever is in a file, it never stops a start
        reason = (
            error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        )
    aside = path.with_name(f"{name}.damaged")
    try:
        path.replace(aside)
    except OSError as error:
        log.warning("%s can't be used (%s), nor set aside: %s", path, reason, error.strerror)
    else:
        log.warning("%s can't be used (%s); it is set aside as %s", path, reason, aside)
    return None


def _checksum(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def _checked(found: bytes) -> bytes:
    """What was saved, if it is all there; raises ValueError."""
    head, _, data = found.partition(b"\n")
    if head != b"sha256 %b" % _checksum(data):
        raise ValueError("its checksum doesn't fit what it holds")
    return data


def _sync_folder(folder: Path) -> None:
    """A name is on the disk when its folder is (rename(2) says nothing of it, fsync(2) does)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_beside(path: Path, data: bytes, mode: int, *, sync: bool = False) -> int:
    """A new file with this content and exactly this mode; its descriptor.

    Leaves none behind if that fails.
    """
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, mode)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        if sync:
            os.fsync(descriptor)
    except BaseException:
        os.close(descriptor)
        path.unlink()
        raise
    return descriptor
