"""Sessions that the operator moves: each goes to another member with its next request.

Never within one: what is under way ends where it is. With the answer its cookie is corrected, and
from then on it is a session of the other member as any. Requests that still come with the former
cookie are sent after it for a minute, and a client that returns no cookies for as long as its
session lives.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from proxy.core.choice import Choice, Reason, Session
from proxy.core.member import Member

# So many seconds after a session has come with its corrected cookie, the move is over: no requests
# with the former one are under way any more, and where it goes from there is the balancer's.
SETTLED = 60.0
# No balancer remembers more of them; the first ones are over first.
MOST = 10_000


class Move(NamedTuple):
    """Where a session goes, by the name of the member; over at ``until``, monotonic seconds."""

    member: str
    former: str
    until: float


class Moves(dict[int, Move]):
    """The moves of one balancer by the key of the session, the latest last.

    A request pays for it with one question whether there is any.
    """

    def put(self, key: int, move: Move) -> None:
        """Move a session from now on; what was said of it before is over."""
        self.pop(key, None)
        if len(self) >= MOST:
            del self[next(iter(self))]
        self[key] = move

    def of(self, key: int, now: float) -> Move | None:
        """A session's move, if it isn't over."""
        move = self.get(key)
        return None if move is None or move.until <= now else move

    def followed(self, key: int, choice: Choice, now: float, lifetime: float) -> None:
        """A request of the session goes as ``choice`` says: how long the move holds from now on."""
        move = self.of(key, now)
        if move is None:
            return
        if choice.session_route is None:
            self[key] = move._replace(until=now + lifetime)
        elif (
            choice.session is Session.KEPT
            and choice.member is not None
            and (choice.member.name == move.member)
        ):
            self[key] = move._replace(until=min(move.until, now + SETTLED))

    def forget(self, now: float) -> None:
        """Drop those that are over."""
        for key in [key for key, move in self.items() if move.until <= now]:
            del self[key]


def follow(
    move: Move, choice: Choice, members: Sequence[Member], now: float, tried: Collection[Member]
) -> Choice:
    """The choice for a session that is moved, instead of its balancer's.

    That one stands while the other member can't be used, and where the session has its home with a
    third by now.
    """
    chosen = choice.member
    member = next((each for each in members if each.name == move.member), None)
    if member is None or member is chosen or member in tried or not member.usable(now):
        return choice
    if choice.session is Session.KEPT and chosen is not None and chosen.name != move.former:
        return choice
    if chosen is not None:
        # It is another one that gets the request.
        if choice.reason in (Reason.ELECTED, Reason.UNUSABLE):
            chosen.elected -= 1
        else:
            chosen.kept -= 1
    member.kept += 1
    return Choice(member, Session.MOVED, Reason.OPERATOR, choice.session_route, member.route)
