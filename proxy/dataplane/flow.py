"""Pausing one side when the other is slow.

A connection may have to stop reading for several reasons at once, and must go on only when the
last of them is gone. Each is safe to give twice.
"""

import asyncio
from enum import Flag, auto

# Bytes that may wait in a transport before the other side is paused; below a quarter it goes on.
HIGH_WATER = 64 * 1024


class Hold(Flag):
    """Why a connection must not be read from."""

    NONE = 0
    OTHER_SIDE_SLOW = auto()
    CONNECTING = auto()
    PIPELINED = auto()


class Gate:
    """Lets a transport be read from while nothing holds it."""

    __slots__ = ("_holds", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._holds = Hold.NONE

    def hold(self, why: Hold) -> None:
        """Stop reading, for this reason too."""
        if self._holds is Hold.NONE and not self._transport.is_closing():
            self._transport.pause_reading()
        self._holds |= why

    def release(self, why: Hold) -> None:
        """This reason is gone."""
        if not self._holds & why:
            return
        self._holds &= ~why
        if self._holds is Hold.NONE and not self._transport.is_closing():
            self._transport.resume_reading()

    @property
    def open(self) -> bool:
        """Whether the transport is read from."""
        return self._holds is Hold.NONE

    def __repr__(self) -> str:
        return f"<Gate {self._holds}>"
