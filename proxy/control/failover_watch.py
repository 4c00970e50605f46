"""The failover files of all balancers, watched: whatever a cluster manager does to one is seen.

The supervisor looks a few times a second; a look is a stat(2) a file. A change counts once a file
has stood still from one look to the next, so that half of a file is never taken for all of it. What
can't be used changes nothing: the former map stays in force, and the reason is said once. Nothing
here waits: neither a pipe nor a device is opened to read from it.
"""

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple

from proxy.control.failover_file import FailoverFileError, merged, read_failover
from proxy.core.settings import Balancer, Settings

# Bytes. A pair of rules takes 120 of them.
LARGEST_FILE = 64 * 1024
# Of the mistakes in one file; thousands of lines would help nobody.
MOST_TOLD = 10


class Reading(NamedTuple):
    """News of a balancer's failover file.

    ``map`` is None if the file can't be used, and what was in force stays so. ``text`` is for the
    operator, in lines that name the file; empty if there is nothing to be warned of.
    """

    balancer: str
    map: dict[str, str] | None
    text: str = ""


class FailoverFiles:
    """The files that balancers name as ``failover_file``."""

    def __init__(self, settings: Settings) -> None:
        self._files: dict[str, _File] = {}
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Other settings; what is known of a file that is still named stays known.

        Its map is read by the new settings at the next look. What doesn't fit them any more, a
        route that no member has, is out of ``maps`` at once.
        """
        former, self._files = self._files, {}
        for name, balancer in settings.balancers.items():
            if balancer.failover_file is None:
                continue
            file = former.get(name)
            if file is None or file.path != balancer.failover_file:
                # What another file said holds until this one is read.
                file = _File(balancer.failover_file, balancer, file.map if file else {})
            file.configure(balancer)
            self._files[name] = file

    def remember(self, balancer: str, said: dict[str, str]) -> None:
        """A file said this when the program before us read it; it holds until it says otherwise."""
        if balancer in self._files:
            self._files[balancer].map = said

    def look(self) -> list[Reading]:
        """What is new since the last look; at the first one, what there is."""
        news = []
        for name, file in self._files.items():
            found = file.look()
            if found is not None:
                news.append(Reading(name, found.map, found.text))
        return news

    @property
    def maps(self) -> dict[str, dict[str, str]]:
        """What is in force of each file, by balancer."""
        return {name: file.map for name, file in self._files.items()}


class _Content(NamedTuple):
    """What a file holds, or why it can't be read; and who else may write to it."""

    data: bytes | None
    error: str = ""
    warning: str = ""


class _Outcome(NamedTuple):
    map: dict[str, str] | None
    text: str


# Device, inode, times, size, owner and mode; or the number of the error.
_Stamp = tuple[int, ...]


class _File:
    """One file: what was seen of it, and what is in force."""

    __slots__ = ("_content", "_is_judged", "_is_read", "_settings", "_stamp", "map", "path")

    def __init__(self, path: str, settings: Balancer, former: dict[str, str]) -> None:
        self.path = path
        self.map = _fitting(former, settings)
        # of the last look; None before the first one
        self._stamp: _Stamp | None = None
        # whether the content was read while the file stood still
        self._is_read = False
        self._content: _Content | None = None
        # whether the content was read by the settings that hold
        self._is_judged = True
        self._settings = settings

    def configure(self, settings: Balancer) -> None:
        """Other settings of its balancer."""
        if settings != self._settings:
            self._settings = settings
            self._is_judged = False
            self.map = _fitting(self.map, settings)

    def look(self) -> _Outcome | None:
        """What is new."""
        stamp, is_first = _stamp(self.path), self._stamp is None
        stands_still, self._stamp = stamp == self._stamp, stamp
        former, content = self._content, self._content
        if not stands_still:
            self._is_read = False
        if is_first or (stands_still and not self._is_read):
            content = _read(self.path)
            if _stamp(self.path) != stamp and not is_first:
                return None  # it is being written at this moment
            # After the first look it is read once more, for what was written meanwhile.
            self._is_read = stands_still
        if content is None:
            return None
        is_judged = self._is_judged or content.data is None
        self._content, self._is_judged = content, True
        return self._news(content, former, is_judged=is_judged)

    def _news(
        self, content: _Content, former: _Content | None, *, is_judged: bool
    ) -> _Outcome | None:
        """What is new about the content; ``is_judged`` if the settings are the same as before."""
        is_same = former is not None and content[:2] == former[:2]
        before = found = _Outcome(self.map, "")
        if not (is_same and is_judged):
            found = self._meaning(content, is_first=former is None)
        if found.map is not None:
            self.map = found.map
        is_warned = former is not None and content.warning == former.warning
        lines = [found.text, "" if is_warned else content.warning]
        text = "\n".join(f"{self.path}: {line}" for line in "\n".join(lines).split("\n") if line)
        if is_same and not text and found.map == before.map:
            return None
        return _Outcome(found.map, text)

    def _meaning(self, content: _Content, *, is_first: bool) -> _Outcome:
        if content.data is None:
            if is_first and content.error == _MISSING:
                return _Outcome({}, f"{_MISSING}; until there is, nobody's sessions are taken over")
            return _Outcome(None, f"{content.error}; {_STAYS}")
        try:
            found = read_failover(_text(content.data), self._settings)
        except FailoverFileError as error:
            told = error.mistakes[:MOST_TOLD]
            more = len(error.mistakes) - len(told)
            ending = (
                [f"and {more} mistakes more" if more > 1 else "and one mistake more"]
                if more
                else []
            )
            return _Outcome(None, "\n".join([*told, *ending, _STAYS]))
        return _Outcome(found.map, "\n".join(found.notices))


_MISSING = "there is no such file"
_STAYS = "what it said before stays in force"


def _fitting(file: dict[str, str], settings: Balancer) -> dict[str, str]:
    """What is left of a map under other settings; nothing if it would go in a circle."""
    routes = {member.route for member in settings.members}
    left = {gone: heir for gone, heir in file.items() if {gone, heir} <= routes}
    both = merged(settings, left)
    for start in left:
        route, steps = start, 0
        while route in both and steps <= len(both):
            route, steps = both[route], steps + 1
        if route in both:
            return {}
    return left


# --- the file itself ---------------------------------------------------------------------------


def _stamp(path: str) -> _Stamp:
    try:
        found = os.stat(path)  # noqa: PTH116 - of every file, at every look
    except (OSError, ValueError) as error:
        return (getattr(error, "errno", None) or errno.EINVAL,)
    return (
        *(found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size),
        *(found.st_uid, found.st_mode),
    )


def _read(path: str) -> _Content:
    """What a file holds now."""
    try:
        # A pipe would be waited for when it is opened, and a terminal would become ours.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        return _Content(None, _MISSING)
    except (OSError, ValueError) as error:
        return _Content(None, f"it can't be read: {getattr(error, 'strerror', None) or error}")
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return _Content(None, "it is no plain file")
        data = b""
        while len(data) <= LARGEST_FILE and (
            piece := os.read(descriptor, LARGEST_FILE + 1 - len(data))
        ):
            data += piece
    except OSError as error:
        return _Content(None, f"it can't be read: {error.strerror}")
    finally:
        os.close(descriptor)
    if len(data) > LARGEST_FILE:
        return _Content(None, f"it is larger than {LARGEST_FILE} bytes")
    return _Content(data, warning=_who_else_writes(path, found))


def _text(data: bytes) -> str:
    """The content as text. Raises FailoverFileError."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        said = f"line {line}: not UTF-8: found the byte 0x{byte:02X}; save the file as UTF-8"
        raise FailoverFileError((said,)) from None


def _who_else_writes(path: str, file: os.stat_result) -> str:
    """A warning if not only the file's owner and root can send sessions elsewhere."""
    for what, found in (("it", file), ("its folder", _folder_of(path))):
        if found is None or (what != "it" and found.st_mode & stat.S_ISVTX):
            continue  # in a sticky folder nobody replaces another's file
        who = "everybody" if found.st_mode & stat.S_IWOTH else ""
        if found.st_mode & stat.S_IWGRP and found.st_gid != 0:
            who = who or f"group {found.st_gid}"
        if who:
            mode = stat.S_IMODE(found.st_mode)
            return (
                f"{who} may write to {what} (mode {mode:04o}); chmod go-w leaves that to its owner"
            )
    return ""


def _folder_of(path: str) -> os.stat_result | None:
    try:
        return Path(path).parent.stat()
    except OSError:
        return None
