"""Which sessions are alive on the members of a balancer, and how each came where it is.

A worker has one table for each balancer, the supervisor joins those of all workers: ``merged`` says
where a session was seen last, ``joined`` makes one history of several. Nothing of what clients send
is kept, only the key that ``sessions`` makes of it.

A session's history is the events in which it came to another member than before. The first and the
last seven are kept: whatever a session does, it takes no more room. Of 100,000 sessions each takes
215 bytes, 226 once it has moved and 292 at most, so that a full table has 28 to 38 MB; a request of
a known session costs 0.4 µs, of a new one 0.9 (``python -m benchmarks.sessions``).
"""

import struct
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from proxy.core.choice import Choice, Reason, Session
from proxy.core.moves import Moves
from proxy.core.sessions import live_for
from proxy.core.settings import Balancer

# A table is cut into parts by the key, so that whatever goes through one, to make room or to pack
# it, takes well below 1 ms.
PARTS = 64
_MASK = PARTS - 1
# Sessions of a part: with so many it is looked for the first time whose life is over; no more
# than so many are kept. Those that never come back, as an attack's, are the first to go. At most
# 131072 of a balancer in each worker.
_FEW = 64
_MOST = 2048


# --- one session's history -----------------------------------------------------------------------


class Event(NamedTuple):
    """A session came to another member than before; ``at`` in monotonic seconds."""

    at: float
    member: str
    session: Session
    reason: Reason


# When, the member's place among the names, and what happened for which reason. Eleven bytes: with
# one event they take what seven would, since memory is given out in steps of sixteen.
_EVENT = struct.Struct("<dHB")
_SIZE = _EVENT.size
_LAST = 7
# Two members that are called by one place, after so many names, would be no great harm.
_MOST_NAMES = 1 << 16
_HAPPENED = [(session, reason) for session in Session for reason in Reason]
_CODES = {happened: code for code, happened in enumerate(_HAPPENED)}


def events(history: bytes, names: Collection[str]) -> list[Event]:
    """A history from another process, where members are called by their place among ``names``."""
    known = list(names)
    return [
        Event(at, known[place], *_HAPPENED[code]) for at, place, code in _EVENT.iter_unpack(history)
    ]


def joined(histories: Iterable[list[Event]]) -> list[Event]:
    """One history of what several workers saw; that a session is where it was is no event."""
    told: list[Event] = []
    for event in sorted((each for one in histories for each in one), key=lambda each: each.at):
        if not told or told[-1].member != event.member:
            told.append(event)
    return told


def moves_of(history: list[Event]) -> int:
    """How often a session came to another member, as far as that is known."""
    return max(len(history) - 1, 0) + (history[:1] != [] and history[0].session is Session.MOVED)


# --- who is alive --------------------------------------------------------------------------------

# When a session was last seen, on which member, and its history. Such a tuple is nothing that the
# collector has to look at.
Entry = tuple[float, str, bytes]


class LiveSessions:
    """The sessions that one worker saw on one balancer's members, each with its last request.

    Seconds are monotonic ones, which all processes of a machine share. The table goes on over
    reloads, which may change its ``lifetime``; members that are gone stay in histories.
    """

    __slots__ = ("_names", "_parts", "_room", "lifetime", "moves")

    def __init__(self, lifetime: float) -> None:
        self.lifetime = lifetime
        self._parts: list[dict[int, Entry]] = [{} for _ in range(PARTS)]
        # How many a part may hold before those are looked for whose life is over; as keys are
        # hashes, all parts are about the same size.
        self._room = _FEW
        # the place of each member that sessions were seen on
        self._names: dict[str, int] = {}
        # those that the operator moves; nearly always none
        self.moves = Moves()

    def note(self, key: int, now: float, member: str, choice: Choice) -> None:
        """A request of session ``key`` was served at ``now`` by the member of that name."""
        part = self._parts[key & _MASK]
        known = part.get(key)
        if known is not None and known[1] is member:
            part[key] = (now, member, known[2])
        else:
            self._note_event(key, now, member, choice)

    def _note_event(self, key: int, now: float, member: str, choice: Choice) -> None:
        """A session is new here, or has moved; or a reload has made its member's name anew."""
        part = self._parts[key & _MASK]
        _, before, history = part.get(key, (0.0, None, b""))
        place = self._place(member)  # known to whoever is told, event or not
        # Who is kept elsewhere than before was moved by another worker, which has the event; or it
        # is another browser of the same kind and address, which is no event at all.
        if before is None or (before != member and choice.session is not Session.KEPT):
            code = _CODES[choice.session, choice.reason]
            if len(history) > _LAST * _SIZE:
                history = history[:_SIZE] + history[-(_LAST - 1) * _SIZE :]
            history += _EVENT.pack(now, place, code)
        part[key] = (now, member, history)
        if len(part) > self._room:
            self._make_room(part, now)

    def _place(self, member: str) -> int:
        return self._names.setdefault(member, min(len(self._names), _MOST_NAMES - 1))

    def _make_room(self, part: dict[int, Entry], now: float) -> None:
        """Forget whose life is over, and when that is not enough who was not seen for longest.

        At least an eighth of the room is free then, so that each new session pays for a few others.
        """
        over = now - self.lifetime
        for key in [key for key, entry in part.items() if entry[0] <= over]:
            del part[key]
        if len(part) > _MOST - _MOST // 8:
            for key in sorted(part, key=lambda key: part[key][0])[: _MOST // 4]:
                del part[key]
        self._room = min(max(2 * len(part), _FEW), _MOST)

    # --- what is told --------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """The members that sessions were seen on, each in its place."""
        return tuple(self._names)[:_MOST_NAMES]

    def live(self, now: float) -> Counter[str]:
        """How many sessions are alive on each member, as far as this worker saw them."""
        over = now - self.lifetime
        return Counter(
            member for part in self._parts for last, member, _ in part.values() if last > over
        )

    def packed(self, now: float) -> Iterator[bytes]:
        """Those alive, for another process: a piece for each part, which ``merged`` takes.

        Each piece is made when it is asked for; to make all at once of 100,000 sessions takes some
        50 ms.
        """
        over = now - self.lifetime
        places = self._names
        for part in self._parts:
            alive = [
                (key, last, places[member])
                for key, (last, member, _) in part.items()
                if last > over
            ]
            count = len(alive)
            keys, seconds, members = zip(*alive, strict=True) if alive else ((), (), ())
            yield struct.pack(f"<I{count}Q{count}d{count}H", count, *keys, *seconds, *members)

    def told(self, keys: Iterable[int]) -> dict[int, Entry]:
        """What is known of these sessions, over or not, with histories for ``events``."""
        entries = ((key, self._parts[key & _MASK].get(key)) for key in keys)
        return {key: entry for key, entry in entries if entry is not None}

    def __repr__(self) -> str:
        return f"<LiveSessions {sum(map(len, self._parts))} kept for {self.lifetime:g} s>"


def live_sessions(settings: Balancer, former: LiveSessions | None) -> LiveSessions:
    """The table of a balancer with these settings: the one that it had, or a new one."""
    made = LiveSessions(0) if former is None else former
    made.lifetime = live_for(settings)
    return made


# --- several workers -----------------------------------------------------------------------------


def merged(
    pieces: Iterable[tuple[Collection[str], bytes]],
) -> dict[int, tuple[float, str]]:
    """When and where each session was seen last, of the same part of any workers' tables.

    A piece stands beside the ``names`` of its table. Raises ValueError for bytes that are no piece.
    """
    latest: dict[int, tuple[float, str]] = {}
    for names, piece in pieces:
        known = list(names)
        for key, last, place in _unpacked(piece):
            seen = (last, known[place])
            # Of two in the same moment it is any, as long as it is always the same one.
            if key not in latest or seen > latest[key]:
                latest[key] = seen
    return latest


def _unpacked(piece: bytes) -> Iterator[tuple[int, float, int]]:
    try:
        (count,) = struct.unpack_from("<I", piece)
        values = struct.unpack(f"<I{count}Q{count}d{count}H", piece)
    except struct.error as error:
        raise ValueError("no packed table of sessions") from error
    yield from zip(
        values[1 : count + 1],
        values[count + 1 : 2 * count + 1],
        values[2 * count + 1 :],
        strict=True,
    )
