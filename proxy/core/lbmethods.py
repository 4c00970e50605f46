"""How a balancer elects: who may be elected, and by which lbmethod, as Apache does (B2 to B10).

byrequests gives each member a claim, its lbstatus. With each election every candidate's claim
grows by its load factor; the first candidate with the highest claim is elected and pays the sum
of what the candidates got. Load factors 1 and 2 give:

| step | m1 before, after | m2 before, after | elected |
|---|---|---|---|
| 1 | 0, 100 | 0, 200 - 300 = -100 | m2 |
| 2 | 100, 200 - 300 = -100 | -100, 100 | m1 |
| 3 | -100, 0 | 100, 300 - 300 = 0 | m2 |

A request that follows its session route is no election, but it is paid for like one (B4): every
usable member's claim grows, and the member pays. Nearly all requests are of this kind, so the
ledger counts them and pays out when somebody looks: a sticky request costs the same with two
members as with two hundred.
"""

from collections.abc import Callable, Collection, Sequence

from proxy.core.member import Member
from proxy.core.settings import LbMethod


class Ledger:
    """The claims (lbstatus) of a balancer's members; nobody else changes them.

    A sticky request that went to a member (B4) is one more of its ``kept`` until then.
    """

    __slots__ = ("members",)

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members

    def settle(self) -> None:
        """Pay out what sticky requests brought; afterwards every lbstatus is exact.

        To be called before a status changes and before an election: all that were kept until then
        have found the same members usable.
        """
        kept = sum(member.kept for member in self.members)
        if not kept:
            return
        # Members in error count as unusable until somebody considers them again (F6).
        usable = [m for m in self.members if m.takes_sessions and m.error_since is None]
        claims = sum(member.factor for member in usable)
        for member in usable:
            member.lbstatus += kept * member.factor
        for member in self.members:
            member.lbstatus -= member.kept * claims
            member.elected += member.kept
            member.kept = 0


def lbsets_of(members: Sequence[Member]) -> list[list[Member]]:
    """The members of each lbset, the lowest first (B7)."""
    numbers = sorted({member.lbset for member in members})
    return [[m for m in members if m.lbset == number] for number in numbers]


def candidates_of(
    lbsets: Sequence[Sequence[Member]],
    electable: Callable[[Member, float, Collection[Member]], bool],
    now: float,
    tried: Collection[Member],
) -> list[Member]:
    """Who may be elected: of the first lbset that has anybody (B7), and of these by role (B2).

    Normal members with one spare for each of them that can't be elected, or else standbys. Nobody
    is asked for behind that lbset, since whoever is asked for is considered (F6).
    """
    for lbset in lbsets:
        normal: list[Member] = []
        spares: list[Member] = []
        standbys: list[Member] = []
        missing = 0
        for member in lbset:
            role = spares if member.hot_spare else standbys if member.hot_standby else normal
            if electable(member, now, tried):
                role.append(member)
            elif role is normal:
                missing += 1
        found = (normal + spares[:missing]) or standbys
        if found:
            return found
    return []


def byrequests(candidates: Sequence[Member]) -> Member:
    """The first member with the highest claim (B3)."""
    best = candidates[0]
    total = 0
    for member in candidates:
        member.lbstatus += member.factor
        total += member.factor
        if member.lbstatus > best.lbstatus:
            best = member
    best.lbstatus -= total
    return best


def bytraffic(candidates: Sequence[Member]) -> Member:
    """The first member with the least traffic in both directions by its load factor (B9)."""
    return min(candidates, key=lambda m: m.sent // m.factor + m.received // m.factor)


def bybusyness(candidates: Sequence[Member]) -> Member:
    """The member with the fewest exchanges under way; byrequests among equals (B10)."""
    total = 0
    for member in candidates:
        member.lbstatus += member.factor
        total += member.factor
    best = min(candidates, key=lambda m: (m.busy, -m.lbstatus))
    best.lbstatus -= total
    return best


LBMETHODS: dict[LbMethod, Callable[[Sequence[Member]], Member]] = {
    LbMethod.BYREQUESTS: byrequests,
    LbMethod.BYTRAFFIC: bytraffic,
    LbMethod.BYBUSYNESS: bybusyness,
}
