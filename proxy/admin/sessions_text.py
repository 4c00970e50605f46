"""Sessions as a terminal shows them: a table of those alive, and one's history line by line.

Pure, as ``status_text``, with the same tolerance for what is missing or new.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any

from proxy.admin.member_notes import word
from proxy.admin.status_text import Column, blocks, duration, table

# What became of a session, for its history.
_HAPPENED = {
    "new": "assigned {member}",
    "unknown": "assigned {member}, since its cookie named no member",
    "kept": "seen on {member}",
    "moved": "moved to {member}",
}


def sessions_text(told: Mapping[str, Any], now: float) -> str:
    """The table of ``SessionCommands.listed``; ``now`` in seconds since 1970."""
    sessions = [
        {**each, "for": _since(each.get("since"), now), "ago": _since(each.get("last"), now)}
        for each in blocks(told.get("sessions"))
    ]
    total = told.get("total")
    last = f"{word(total)} live session{'' if total == 1 else 's'}"
    if isinstance(total, int) and total > len(sessions):
        last += f", of which these {len(sessions)} were seen last"
    return f"{table(_SESSION, sessions)}\n\n{last}" if sessions else last


def history_text(
    sessions: Sequence[Mapping[str, Any]], now: float, zone: tzinfo | None = None
) -> str:
    """A session's history in each balancer, as of ``now``; in local time, or that of a zone."""
    return "\n\n".join(_history(each, now, zone) for each in blocks(sessions))


def _history(session: Mapping[str, Any], now: float, zone: tzinfo | None) -> str:
    lines = [f"session {word(session.get('id'))} of balancer {word(session.get('balancer'))}"]
    for event in blocks(session.get("events")):
        happened = _HAPPENED.get(str(event.get("session")), "on {member}")
        text = happened.format(member=word(event.get("member")))
        lines.append(f"{_moment(event.get('at'), now, zone)} {text}: {word(event.get('reason'))}")
    move = session.get("move")
    if isinstance(move, Mapping):
        why = f": {word(move['reason'])}" if move.get("reason") else ""
        said = f"told to go from {word(move.get('from'))} to {word(move.get('member'))}"
        by = word(move.get("by"))
        lines.append(f"{_moment(move.get('at'), now, zone)} {said} by {by}{why}")
    over = "" if session.get("live", True) else "; it is over"
    lines.append(f"last request {_moment(session.get('last'), now, zone)}{over}")
    return "\n".join(lines)


def _since(moment: Any, now: float) -> float | None:
    return max(now - moment, 0.0) if isinstance(moment, int | float) else None


def _moment(moment: Any, now: float, zone: tzinfo | None) -> str:
    """The time of day, with the date of another day."""
    if not isinstance(moment, int | float):
        return word(moment)
    when, today = (datetime.fromtimestamp(each, UTC).astimezone(zone) for each in (moment, now))
    return when.strftime("%H:%M:%S" if when.date() == today.date() else "%Y-%m-%d %H:%M:%S")


_SESSION = (
    Column("SESSION", "id", word),
    Column("BALANCER", "balancer", word),
    Column("MEMBER", "member", word),
    Column("FOR", "for", duration, right=True),
    Column("LAST SEEN", "ago", duration, right=True),
    Column("MOVES", "moves", word, right=True),
    Column("WHY THERE", "reason", word),
)
