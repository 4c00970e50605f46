"""After a failed attempt: try again, or give up, and does it count against the member.

One sentence: nothing sent, any request may go to another member; sent but nothing answered, only
an idempotent one, once, and only when a reused connection turned out dead; answered, never.

| what failed | again | status | member in error |
|---|---|---|---|
| REFUSED, CONNECT_TIMEOUT, UNRESOLVED | another member, any method, body and all | 503 | yes |
| NO_CONNECTION: none free in time | another member, any method | 503 | no (Apache: yes) |
| EXHAUSTED: we have no room for another | another member, any method | 503 | no |
| CLOSED unanswered, reused connection | same member, new connection, if idempotent | 502 | no |
| CLOSED unanswered | no | 502 | no |
| RESPONSE_TIMEOUT, HEAD_TIMEOUT | no | 504 (Apache: 502) | no, but with fail_on_timeout |
| UNFINISHED: no answer to a part of a request | no | 504 (Apache: 502) | no |
| UNEXPECTED, BAD_RESPONSE | no | 502 | no |
| SENDING: lost while the body was sent | no | 502 | no |

Nothing that a client can cause counts against a member: not what it sends, not that it leaves or
is slow, not how many it is. With ``fail_on_timeout`` silence counts only after a whole request,
and never on ActiveSync's path, where it may mean that nothing has happened (F11, D70).

A client whose connection served requests before learns of CLOSED by the closed connection: it may
then send an idempotent request again by itself (F1). Apache never sends one again.
"""

from enum import Enum
from typing import NamedTuple

# RFC 9110 section 9.2.2.
IDEMPOTENT = frozenset(
    (b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE", b"PROPFIND", b"REPORT", b"SEARCH")
)


class Failure(Enum):
    """How an attempt failed."""

    REFUSED = "connection refused"
    CONNECT_TIMEOUT = "connect timeout"
    UNRESOLVED = "name not resolved"
    NO_CONNECTION = "no connection was free in time"
    EXHAUSTED = "no descriptor or port was left for a connection"
    UNASKED = "closed, or spoke, before it was asked"
    CLOSED = "closed without an answer"
    RESPONSE_TIMEOUT = "no answer in time"
    HEAD_TIMEOUT = "answer not complete in time"
    UNFINISHED = "no answer in time, nor the whole request sent"
    UNEXPECTED = "no HTTP/1 answer to this request"
    BAD_RESPONSE = "malformed answer"
    SENDING = "lost while the body was sent"


class Next(Enum):
    """What to do next."""

    OTHER_MEMBER = 1
    SAME_MEMBER = 2
    ANSWER = 3
    CLOSE_CLIENT = 4


class Verdict(NamedTuple):
    """What follows from a failure; ``status`` and ``reason`` are for ``Next.ANSWER``."""

    next: Next
    member_in_error: bool
    status: int = 502
    reason: str = ""


class Attempt(NamedTuple):
    """The facts of a failed attempt."""

    failure: Failure
    method: bytes
    has_body: bool
    # The connection to the member had carried an exchange before.
    reused: bool
    # The client's connection had carried an exchange before.
    later_request: bool
    # Failover attempts that are left.
    left: int
    # A timeout counts against the member.
    fail_on_timeout: bool = False


_NOTHING_SENT = frozenset(
    (
        Failure.REFUSED,
        Failure.CONNECT_TIMEOUT,
        Failure.UNRESOLVED,
        Failure.NO_CONNECTION,
        Failure.EXHAUSTED,
        Failure.UNASKED,
    )
)
_TIMEOUTS = (Failure.RESPONSE_TIMEOUT, Failure.HEAD_TIMEOUT, Failure.UNFINISHED)


def judge(attempt: Attempt, *, apache: bool = False) -> Verdict:
    """Again or give up (F1, F2, F5 with section X); ``apache`` as Apache would."""
    failure = attempt.failure
    if failure is Failure.UNASKED and (apache or attempt.left <= 0):
        failure = Failure.CLOSED  # Apache sends its request all the same
    if failure in _NOTHING_SENT:
        return _nothing_sent(attempt, apache=apache)
    if failure is Failure.CLOSED:
        safe = attempt.method in IDEMPOTENT and not attempt.has_body
        if attempt.reused and safe and not apache:
            return Verdict(Next.SAME_MEMBER, member_in_error=False)
        if attempt.later_request and apache:
            return Verdict(Next.CLOSE_CLIENT, member_in_error=not attempt.reused)
        return Verdict(Next.ANSWER, member_in_error=False, reason="Proxy Error")
    timeout = failure in _TIMEOUTS
    # Apache takes a status line for an answer (F11).
    counts = failure is Failure.RESPONSE_TIMEOUT or (failure is Failure.HEAD_TIMEOUT and not apache)
    in_error = counts and attempt.fail_on_timeout
    status = 504 if timeout and not apache else 502
    # Apache's phrase tells whether a status line had come (F14).
    answered = failure in (Failure.HEAD_TIMEOUT, Failure.BAD_RESPONSE, Failure.SENDING)
    reason = "Bad Gateway" if answered else "Proxy Error"
    return Verdict(Next.ANSWER, in_error, status, reason)


def _nothing_sent(attempt: Attempt, *, apache: bool) -> Verdict:
    failure = attempt.failure
    busy = failure is Failure.NO_CONNECTION
    in_error = failure not in (Failure.EXHAUSTED, Failure.UNASKED) and (apache or not busy)
    if apache and failure is Failure.UNRESOLVED:
        return Verdict(Next.ANSWER, in_error, 500, "Proxy Error")
    if attempt.left > 0:
        return Verdict(Next.OTHER_MEMBER, in_error)
    return Verdict(Next.ANSWER, in_error, 503, "Service Unavailable")
