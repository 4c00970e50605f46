"""A balancer's decision as a value: which member, what became of the session, and why."""

from dataclasses import dataclass
from enum import Enum

from proxy.core.member import Member


class Session(Enum):
    """What became of the session in this exchange."""

    NEW = "new"
    KEPT = "kept"
    MOVED = "moved"
    UNKNOWN = "unknown"

    def __init__(self, word: str) -> None:
        # what ``value`` says, without the 0.4 µs that an enum's property takes
        self.word = word


class Reason(Enum):
    """Why this member, or why none."""

    KEPT = "its own member"
    OWN_ROUTE = "own_route takes new sessions"
    ELECTED = "elected"
    TAKEOVER = "failover map"
    REDIRECT = "redirect_route"
    TAKER = "its takeover while it can't be used"
    FAILBACK = "back at its own member"
    AWAY = "stays with the member that took it over"
    OPERATOR = "moved by the operator"
    UNUSABLE = "its own member can't be used"
    NO_FAILOVER = "its own member can't be used, no_failover"
    NOBODY = "no member can be used"


@dataclass(slots=True)
class Choice:
    """One decision: which member, what became of the session, what the cookie shall say."""

    member: Member | None
    session: Session
    reason: Reason
    session_route: bytes | None
    cookie_route: bytes | None
