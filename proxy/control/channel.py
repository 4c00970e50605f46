"""The line from the supervisor to one worker or the prober: small messages, maybe with open files.

Both ends belong to one program: what comes out was pickled by ourselves, and the line is a pair of
sockets that nobody else can reach. A message is whole or not there. Sending never waits: a line
whose other end reads nothing is an error, since then that process is stuck or gone.
"""

import os
import pickle
import socket
from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple

# Bytes of a message that travel in the line itself; more is handed over as a file in memory.
DIRECT = 8192
# Descriptors in one message: as many as the kernel takes (SCM_MAX_FD).
MOST_FILES = 253


class Kind(Enum):
    """What a message is about. The first group goes down to a worker or the prober, the rest up."""

    SOCKETS = "sockets"
    PLAN = "plan"
    STATUS = "status"
    LOGS = "logs"
    SESSIONS_WANTED = "sessions wanted"
    MOVE_SESSIONS = "move sessions"
    PROBES = "probes"
    STOP = "stop"

    IN_FORCE = "in force"
    REFUSED = "refused"
    IN_ERROR = "in error"
    SESSIONS = "sessions"
    PROBED = "probed"


class Message(NamedTuple):
    """One message; ``files`` are descriptors that now are the receiver's to close."""

    kind: Kind
    value: Any
    files: tuple[int, ...]


class ChannelError(Exception):
    """The other end takes nothing more: it is stuck, or gone."""


class Channel:
    """One end of the line."""

    __slots__ = ("_socket",)

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.settimeout(0)

    def fileno(self) -> int:
        """For who waits until there is something to receive."""
        return self._socket.fileno()

    def send(self, kind: Kind, value: Any = None, files: Sequence[int] = ()) -> None:
        """Send a message; ``files`` stay the sender's. Raises ChannelError."""
        data = pickle.dumps((kind, value), pickle.HIGHEST_PROTOCOL)
        if len(data) <= DIRECT:
            self._send(b"\0" + data, files)
            return
        file = os.memfd_create("balanceme-message")
        try:
            with open(file, "wb", closefd=False) as stream:
                stream.write(data)
            self._send(b"\1", [file, *files])
        finally:
            os.close(file)

    def _send(self, data: bytes, files: Sequence[int]) -> None:
        try:
            if files:
                socket.send_fds(self._socket, [data], list(files))
            else:
                self._socket.send(data)
        except BlockingIOError:
            raise ChannelError("it doesn't read what it is told") from None
        except OSError as error:
            raise ChannelError(error.strerror) from error

    def receive(self) -> Message | None:
        """The next message, None if there is none; raises EOFError when the other end is gone."""
        try:
            data, files, _, _ = socket.recv_fds(self._socket, DIRECT + 1, MOST_FILES)
        except BlockingIOError:
            return None
        except OSError as error:
            raise EOFError from error
        if not data:
            raise EOFError
        if data[0] == 0:
            kind, value = pickle.loads(data[1:])  # noqa: S301 - our own, see above
        else:
            with open(files.pop(0), "rb") as stream:  # noqa: PTH123 - no path
                stream.seek(0)
                kind, value = pickle.load(stream)  # noqa: S301 - our own, see above
        return Message(kind, value, tuple(files))

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def __repr__(self) -> str:
        return f"<Channel {self._socket.fileno()}>"


def channel_pair() -> tuple[Channel, Channel]:
    """Both ends of a new line."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(ours), Channel(theirs)
