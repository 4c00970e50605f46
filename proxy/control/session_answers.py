"""A worker's side of what is known of sessions: it tells its tables, and moves sessions.

The rule: whatever is asked, the loop goes on within a millisecond; a table is told part by part,
into a file in memory that the supervisor reads.
"""

import asyncio
import os
import time
from collections.abc import Mapping
from typing import NamedTuple

from proxy.control.channel import Channel, Kind
from proxy.core.balancer import Balancer
from proxy.core.live_sessions import Entry
from proxy.core.moves import Move


class Asked(NamedTuple):
    """What the supervisor wants to know, by the number of its question.

    ``keys`` are sessions whose histories are wanted; None for all tables without them.
    """

    number: int
    keys: tuple[int, ...] | None


class Told(NamedTuple):
    """What one worker knows of one balancer's sessions.

    ``names`` are its members by their places. Of whole tables ``sizes`` are the bytes of each part,
    one after another in the file that comes with it, else ``entries`` are the sessions asked for.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...] = ()
    entries: Mapping[int, Entry] = {}


class Ordered(NamedTuple):
    """A session's move, as every worker is told of it."""

    balancer: str
    key: int
    move: Move


def obey(balancers: Mapping[str, Balancer], moves: tuple[Ordered, ...]) -> None:
    """Move sessions from now on."""
    for each in moves:
        if each.balancer in balancers:  # a reload may have removed it
            balancers[each.balancer].sessions.moves.put(each.key, each.move)


def forget_moves(balancers: Mapping[str, Balancer]) -> None:
    """Drop the moves that are over."""
    for balancer in balancers.values():
        if balancer.sessions.moves:
            balancer.sessions.moves.forget(time.monotonic())


async def answer(channel: Channel, asked: Asked, balancers: Mapping[str, Balancer]) -> None:
    """Tell what is asked for; raises ChannelError."""
    if asked.keys is not None:
        found = {name: balancer.sessions for name, balancer in balancers.items()}
        told = {name: Told(each.names, (), each.told(asked.keys)) for name, each in found.items()}
        channel.send(Kind.SESSIONS, (asked.number, told))
        return
    file = os.memfd_create("balanceme-sessions")
    try:
        told = {name: await _write(file, balancer) for name, balancer in balancers.items()}
        channel.send(Kind.SESSIONS, (asked.number, told), [file])
    finally:
        os.close(file)


async def _write(file: int, balancer: Balancer) -> Told:
    sizes = []
    for piece in balancer.sessions.packed(time.monotonic()):
        sizes.append(os.write(file, piece))
        await asyncio.sleep(0)
    # Read last: a piece may be of a member that was none when the first one was written.
    return Told(balancer.sessions.names, tuple(sizes))
