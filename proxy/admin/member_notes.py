"""What a terminal shows of a member beside its numbers: what was said of it, by whom, when and why.

Pure, and as forgiving as ``status_text``: what is missing or of another kind is left out.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any


def member_notes(member: Mapping[str, Any]) -> list[str]:
    """A line for everything that isn't as the configuration says, or that fails."""
    name = word(member.get("route") or member.get("url"))
    return [f"{name}: {text}" for text in _notes(member)]


def _notes(member: Mapping[str, Any]) -> Iterator[str]:
    said, drain = _block(member, "said"), _block(member, "drain")
    if said or drain:
        yield f"{word(member.get('operator'))}{_by(said)}{_left(member, drain)}"
    takeover = _block(member, "takeover")
    if takeover:
        yield f"{word(takeover.get('heir'))} has taken over its sessions{_by(takeover)}"
    fenced = _block(member, "fenced")
    if fenced:
        name = word(member.get("route") or member.get("url"))
        yield f"fenced{_by(fenced)}; balanceme readmit {name} lets it serve again"
    terms = _block(member, "terms_said")
    if terms:
        yield f"{_terms(member)}{_by(terms)}"
    checks = member.get("checks")
    for check in checks if isinstance(checks, list) else ():
        if isinstance(check, Mapping) and check.get("passing") is not True:
            advisory = "" if check.get("required", True) else " (advisory)"
            state = "fails" if check.get("passing") is False else "has no result yet"
            text = f": {word(check['text'])}" if check.get("text") else ""
            yield f"check {word(check.get('name'))}{advisory} {state}{text}"


def _by(said: Mapping[str, Any]) -> str:
    """``, as root said at 15:04:05: new disk``."""
    by, at, why = said.get("by"), said.get("at"), said.get("why")
    if not by:
        return ""
    when = f" at {clock(at)}" if isinstance(at, int | float) and at else ""
    return f", as {word(by)} said{when}" + (f": {word(why)}" if why else "")


def _left(member: Mapping[str, Any], drain: Mapping[str, Any]) -> str:
    if not drain:
        return ""
    if drain.get("done"):
        return "; drained, nothing is left on it"
    text = f"; {left(member)}"
    until = drain.get("until")
    if isinstance(until, int | float) and not drain.get("moving"):
        text += f"; what is left moves at {clock(until)}"
    return text


def left(member: Mapping[str, Any]) -> str:
    """``12 live sessions, 3 exchanges under way, 1 of them waiting; empty at about 22:05:10``."""
    drain = _block(member, "drain")
    found = f"{word(member.get('sessions'))} live sessions"
    found += f", {word(member.get('busy'))} exchanges under way"
    if member.get("waiting"):
        found += f", {word(member['waiting'])} of them waiting for news"
    empty = drain.get("empty_at")
    return found + (f"; empty at about {clock(empty)}" if isinstance(empty, int | float) else "")


def _terms(member: Mapping[str, Any]) -> str:
    found = f"load factor {word(member.get('load_factor'))}, lbset {word(member.get('lbset'))}"
    for key in ("hot_standby", "hot_spare"):
        found += f", {key.replace('_', ' ')}" if member.get(key) else ""
    return found


def _block(member: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = member.get(key)
    return found if isinstance(found, Mapping) else {}


def clock(seconds: float) -> str:
    """The local time, with its date unless it is today's."""
    try:
        then = datetime.fromtimestamp(seconds).astimezone()
    except (ValueError, OverflowError, OSError):
        return "a time that no clock shows"
    today = then.date() == datetime.now().astimezone().date()
    return then.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def word(value: Any) -> str:
    """A value in one line, with nothing in it that a terminal would obey."""
    text = "-" if value is None or value == "" else str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode()
