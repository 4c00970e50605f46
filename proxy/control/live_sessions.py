"""What all workers together know of sessions: counts, lists, histories; and moving one.

Workers are asked over their channels, and their tables joined part by part, so that the loop never
stands still. Who doesn't answer in time is left out.
"""

import asyncio
import heapq
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from proxy.control.channel import Kind, Message
from proxy.control.cluster import Cluster
from proxy.control.commands import CommandError
from proxy.control.member_view import MemberView
from proxy.control.session_answers import Asked, Ordered, Told
from proxy.control.workers import WorkerHandle, Workers
from proxy.core.live_sessions import PARTS, Event, events, joined, merged, moves_of
from proxy.core.moves import MOST, Move
from proxy.core.sessions import (
    WITHOUT_LIFETIME,
    MemberName,
    address_hash,
    browser_hash,
    cookie_hash,
    device_hash,
    live_for,
)
from proxy.core.settings import OperatorStatus

log = logging.getLogger("balanceme")

# How long workers may take to tell their sessions, in seconds.
COUNTING = 2.0
# More sessions than these are listed nowhere: nobody reads them, and workers have other work.
MOST_LISTED = 1000


class Counts(NamedTuple):
    """Live sessions, and when the last of them was seen (monotonic), of each member with any.

    ``complete`` if all workers that there are to be have told theirs.
    """

    sessions: Mapping[MemberName, int]
    last_seen: Mapping[MemberName, float]
    complete: bool = True


class Known(NamedTuple):
    """What is known of one session in one balancer; ``last`` seen on ``member``, monotonic."""

    last: float
    member: str
    history: list[Event]


class Answer(NamedTuple):
    """One worker's tables, and the file that they are in, if they are."""

    told: Mapping[str, Told]
    file: int | None


# By the place among all sessions, of which the first are those seen last.
_Listed = tuple[float, str, str, int]


class LiveSessions:
    """The sessions of all balancers, over all workers."""

    def __init__(self, workers: Workers, cluster: Cluster, salt: bytes) -> None:
        """The salt is the workers'."""
        self._workers = workers
        self._cluster = cluster
        self._salt = salt
        self._number = 0
        # who waits for which worker, by the number of the question and of the worker
        self._waiting: dict[tuple[int, int], asyncio.Future[Answer]] = {}
        # moves for workers that are yet to come, each with who said it, why and when
        self._moves: dict[tuple[str, int], tuple[Move, str, str, float]] = {}

    # --- asking workers ------------------------------------------------------------------------

    def heard(self, worker: WorkerHandle, message: Message) -> None:
        """A worker has answered."""
        number, told = message.value
        file = message.files[0] if message.files else None
        future = self._waiting.pop((number, worker.number), None)
        if future is not None and not future.done():
            future.set_result(Answer(told, file))
        elif file is not None:
            os.close(file)

    def ended(self, worker: int) -> None:
        """A worker is gone: nobody waits for it."""
        for key in [key for key in self._waiting if key[1] == worker]:
            future = self._waiting.pop(key)
            if not future.done():
                future.set_result(Answer({}, None))

    async def _ask(self, keys: tuple[int, ...] | None) -> list[Answer]:
        """Every worker's answer, of those that answer in time; their files are the caller's."""
        self._number += 1
        number, loop = self._number, asyncio.get_running_loop()
        waiting = {}
        for worker in self._workers.serving:
            waiting[number, worker.number] = loop.create_future()
        self._waiting |= waiting
        for worker in self._workers.serving:
            self._workers.send(worker, Kind.SESSIONS_WANTED, Asked(number, keys))
        if not waiting:
            return []
        try:
            await asyncio.wait(waiting.values(), timeout=COUNTING)
        except asyncio.CancelledError:
            _close(each.result() for each in waiting.values() if each.done())
            raise
        finally:
            for each in waiting:
                self._waiting.pop(each, None)
        answers = [each.result() for each in waiting.values() if each.done()]
        if len(answers) < len(waiting):
            log.warning("sessions are counted without %d workers", len(waiting) - len(answers))
        return answers

    async def _parts(
        self, answers: list[Answer]
    ) -> AsyncIterator[tuple[str, dict[int, tuple[float, str]]]]:
        """All live sessions, a part at a time: when and where each was seen last."""
        try:
            for balancer in self._cluster.settings.balancers:
                readers = [_pieces(each, balancer) for each in answers if balancer in each.told]
                for _ in range(PARTS):
                    yield balancer, merged([next(reader) for reader in readers])
                    await asyncio.sleep(0)
        finally:
            _close(answers)

    # --- what is told --------------------------------------------------------------------------

    async def count(self) -> Counts:
        """How many sessions are alive on each member, and when they were last seen.

        A member without a route goes by its url.
        """
        sessions: Counter[MemberName] = Counter()
        last_seen: dict[MemberName, float] = {}
        answers = await self._ask(None)
        async for balancer, part in self._parts(answers):
            for last, member in part.values():
                sessions[balancer, member] += 1
                if last > last_seen.get((balancer, member), 0.0):
                    last_seen[balancer, member] = last
        return Counts(sessions, last_seen, len(answers) >= self._cluster.board.workers)

    async def listed(self, balancer: str | None, member: str | None, limit: int) -> dict[str, Any]:
        """The sessions seen last, and how many there are; raises CommandError."""
        names = {(each.balancer, each.name) for each in self._meant(balancer, member)}
        total, found = 0, list[_Listed]()
        async for name, part in self._parts(await self._ask(None)):
            # A member that is gone may have sessions that have not moved yet.
            meant = [
                (last, name, where, key)
                for key, (last, where) in part.items()
                if (name, where) in names or (member is None and balancer in (None, name))
            ]
            total += len(meant)
            found = heapq.nlargest(min(limit, MOST_LISTED), chain(found, meant))
        known = await self._known(tuple({key for *_, key in found}))
        now = time.time() - time.monotonic()
        sessions = []
        for last, name, where, key in found:
            each = known.get((name, key), Known(last, where, []))
            sessions.append({**self._in_words(name, key, each, now), "last": last + now})
        return {"total": total, "sessions": sessions}

    async def history(self, session: int) -> list[dict[str, Any]]:
        """What is known of a session, an entry for each balancer that it is in.

        Raises CommandError if nobody knows it.
        """
        now = time.time() - time.monotonic()
        known = await self._known((session,))
        if not known:
            raise _unknown(session)
        return [
            {
                **self._in_words(balancer, session, each, now),
                "events": [_event(event, now) for event in each.history],
                "move": self._move_in_words(balancer, session, now),
            }
            for (balancer, _), each in known.items()
        ]

    async def _known(self, keys: tuple[int, ...]) -> dict[tuple[str, int], Known]:
        """What all workers know of these sessions, by balancer and key."""
        found: dict[tuple[str, int], list[Known]] = {}
        for answer in await self._ask(keys):
            for balancer, told in answer.told.items():
                for key, (last, member, history) in told.entries.items():
                    each = Known(last, member, events(history, told.names))
                    found.setdefault((balancer, key), []).append(each)
        together = {}
        for name, several in found.items():
            latest = max(several, key=lambda each: (each.last, each.member))
            together[name] = latest._replace(history=joined(each.history for each in several))
        return together

    def _in_words(self, balancer: str, key: int, known: Known, now: float) -> dict[str, Any]:
        """A session in a list; ``now`` makes seconds since 1970 of monotonic ones."""
        # A worker that was replaced may have taken the history with it.
        since = known.history[0].at + now if known.history else None
        latest = known.history[-1] if known.history else None
        lifetime = self._lifetime(balancer)
        return {
            "id": f"{key:016x}",
            "balancer": balancer,
            "member": known.member,
            "live": known.last > time.monotonic() - lifetime,
            "since": since,
            "last": known.last + now,
            "moves": moves_of(known.history),
            "session": latest and latest.session.word,
            "reason": latest and latest.reason.value,
        }

    def _move_in_words(self, balancer: str, key: int, now: float) -> dict[str, Any] | None:
        if (balancer, key) not in self._moves:
            return None
        move, by, reason, at = self._moves[balancer, key]
        told = {"member": move.member, "from": move.former, "by": by, "reason": reason}
        return {**told, "at": at + now}

    # --- finding and moving --------------------------------------------------------------------

    def find(self, traits: Mapping[str, str]) -> int:
        """The key of the session with these traits; raises CommandError for too few of them."""
        told = {key: value.encode() for key, value in traits.items()}
        key = 0
        if "device" in told:
            if "user" not in told:
                raise CommandError("a device is known together with its user; name that as well")
            key = device_hash(self._salt, told["device"], told["user"])
        elif "cookie" in told:
            key = cookie_hash(self._salt, told["cookie"])
        if not key and "address" in told:
            agent = told.get("user_agent", b"")
            key = browser_hash(self._salt, agent, told.get("forwarded_for", b""))
            key ^= address_hash(self._salt, traits["address"])
        if not key:
            raise CommandError(
                "that names no session: it takes a webmail's cookie, a device with its user, or"
                " the address of a client with its browser's User-Agent"
            )
        return key

    async def move(
        self, session: int, member: str, balancer: str | None, by: str, reason: str
    ) -> list[dict[str, str]]:
        """Move a session to a member, in all balancers that have it and that member.

        It goes there with its next request. Raises CommandError if it can't.
        """
        key = session
        meant = {view.balancer: view for view in self._meant(balancer, member)}
        known = await self._known((key,))
        places = {name: each.member for (name, _), each in known.items() if name in meant}
        if not known:
            raise _unknown(key)
        if not places:
            raise CommandError(f"session {key:016x} is in no balancer that has a member {member}")
        if all(meant[name].name == former for name, former in places.items()):
            raise CommandError(f"session {key:016x} is on {member} already")
        orders = []
        for name, former in places.items():
            view = meant[name]
            if view.status.operator is not OperatorStatus.ENABLED:
                raise CommandError(
                    f"{name}: {view.name} is {view.status.operator.value} and takes no sessions;"
                    " enable it first"
                )
            takeover = self._cluster.takeover_of(view)
            if takeover is not None:
                raise CommandError(f"{name}: {takeover.heir} has taken over {view.name}'s sessions")
            if view.name != former:
                until = time.monotonic() + self._lifetime(name)
                orders.append(Ordered(name, key, Move(view.name, former, until)))
        await self._tell(orders, by, reason)
        return [
            {"balancer": each.balancer, "from": each.move.former, "to": each.move.member}
            for each in orders
        ]

    async def _tell(self, orders: Sequence[Ordered], by: str, reason: str) -> None:
        for order in orders:
            self._remember(order, by, reason)
            log.info(
                "%s: session %016x moves from %s to %s with its next request, as %s said%s",
                *(order.balancer, order.key, order.move.former, order.move.member),
                *(by, f": {reason}" if reason else ""),
            )
        for worker in self._workers.all:
            self._workers.send(worker, Kind.MOVE_SESSIONS, tuple(orders))
        # Who answers this has heard of the moves before.
        await self._ask(())

    def _remember(self, order: Ordered, by: str, reason: str) -> None:
        """For workers to come, until the move is over or there are too many."""
        now = time.monotonic()
        for key in [key for key, (move, *_) in self._moves.items() if move.until <= now]:
            del self._moves[key]
        self._moves.pop((order.balancer, order.key), None)
        if len(self._moves) >= MOST:
            del self._moves[next(iter(self._moves))]
        self._moves[order.balancer, order.key] = (order.move, by, reason, now)

    @property
    def moves(self) -> tuple[Ordered, ...]:
        """What a worker has to know that begins now."""
        return tuple(Ordered(*name, move) for name, (move, *_) in self._moves.items())

    def _meant(self, balancer: str | None, member: str | None) -> list[MemberView]:
        """The members that are called so, by route or url; raises CommandError if nobody is."""
        balancers = self._cluster.settings.balancers
        if balancer is not None and balancer not in balancers:
            raise CommandError(f"there is no balancer {balancer}; there are {', '.join(balancers)}")
        there = [each for each in self._cluster.members if balancer in (None, each.balancer)]
        found = [each for each in there if member is None or each.is_called(member)]
        if not found:
            known = ", ".join(dict.fromkeys(each.name for each in there))
            raise CommandError(f"there is no member {member}; there are {known}")
        return found

    def _lifetime(self, balancer: str) -> float:
        settings = self._cluster.settings.balancers.get(balancer)
        return WITHOUT_LIFETIME if settings is None else live_for(settings)

    def __repr__(self) -> str:
        return f"<LiveSessions {len(self._moves)} moves>"


def _pieces(answer: Answer, balancer: str) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """The parts of one table; those of other balancers stand before it in the file."""
    at = 0
    for name, told in answer.told.items():
        if name == balancer and answer.file is not None:
            for size in told.sizes:
                yield told.names, os.pread(answer.file, size, at)
                at += size
        at += sum(told.sizes)


def _close(answers: Iterable[Answer]) -> None:
    for answer in answers:
        if answer.file is not None:
            os.close(answer.file)


def _event(event: Event, now: float) -> dict[str, Any]:
    return {
        "at": event.at + now,
        "member": event.member,
        "session": event.session.word,
        "reason": event.reason.value,
    }


def _unknown(key: int) -> CommandError:
    return CommandError(
        f"nobody knows a session {key:016x}; ids change with each start of balanceme, and sessions"
        " that are over are forgotten (balanceme sessions lists the others)"
    )
