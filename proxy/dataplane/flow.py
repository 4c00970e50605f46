"""Pausing one side when the other is slow, and ending it when nothing more can come.

A connection may have to stop reading for several reasons at once, and must go on only when the
last of them is gone. Each is safe to give twice.
"""

import asyncio
import select
from enum import Flag, auto
from socket import SO_LINGER, SOL_SOCKET, socket

from proxy.core.proxy_protocol import Ends

# Bytes that may wait in a transport before the other side is paused; below a quarter it goes on.
HIGH_WATER = 64 * 1024
# For SO_LINGER: on, for 0 s. A close is then a reset.
AT_ONCE = b"\1" + bytes(7)


def reset(transport: asyncio.Transport) -> None:
    """Close at once, and so that the other side can't take it for an orderly end."""
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        sock.setsockopt(SOL_SOCKET, SO_LINGER, AT_ONCE)
    transport.abort()


def ends_of(transport: asyncio.Transport) -> Ends:
    """Both ends of a connection, seen from the other side."""
    source = transport.get_extra_info("peername")
    destination = transport.get_extra_info("sockname")
    return Ends(source[0], source[1], destination[0], destination[1])


def has_left(sock: socket, *, tls: bool) -> bool:
    """Whether the other side of a connection has ended it, told without reading.

    Over plain TCP it may have ended its own direction alone, and wait for its answer.
    """
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP if tls else 0)
    return bool(poll.poll(0))


class Hold(Flag):
    """Why a connection must not be read from."""

    NONE = 0
    OTHER_SIDE_SLOW = auto()
    CONNECTING = auto()
    PIPELINED = auto()


class Gate:
    """Lets a transport be read from while nothing holds it."""

    __slots__ = ("_holds", "_transport", "open")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._holds = Hold.NONE
        # whether the transport is read from
        self.open = True

    def hold(self, why: Hold) -> None:
        """Stop reading, for this reason too."""
        if self._holds is Hold.NONE and not self._transport.is_closing():
            self._transport.pause_reading()
        self._holds |= why
        self.open = False

    def release(self, why: Hold) -> None:
        """This reason is gone."""
        if not self._holds & why:
            return
        self._holds &= ~why
        if self._holds is Hold.NONE:
            self.open = True
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def __repr__(self) -> str:
        return f"<Gate {self._holds}>"
