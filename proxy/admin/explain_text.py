"""An explanation as a terminal shows it: a numbered step a line, and what comes of them.

Pure: the answer of ``Commands.explain`` goes in, text comes out. What is missing in it is left out,
since the program that answers may be of another version.
"""

from collections.abc import Mapping
from typing import Any


def explain_text(found: Mapping[str, Any]) -> str:
    """All steps, and the result behind an arrow."""
    steps = found.get("steps")
    told = steps if isinstance(steps, list) else []
    lines = [f"{number:2}. {_word(step)}" for number, step in enumerate(told, 1)]
    return "\n".join([*lines, f"-> {_result(found)}"])


def is_served(found: Mapping[str, Any]) -> bool:
    """Whether a member gets the request."""
    return bool(_members(found))


def _result(found: Mapping[str, Any]) -> str:
    members, cookie = _members(found), found.get("set_cookie")
    if not members:
        text = f"no member: answered with {_word(found.get('status'))}"
        return f"{text}; Set-Cookie: {_word(cookie)}" if cookie else text
    names = [_name(member) for member in members]
    text = f"member {names[0]}" if len(names) == 1 else f"one of {', '.join(names)}"
    text += f", session {_word(found.get('session'))}; "
    if not cookie:
        return f"{text}no Set-Cookie"
    whose = "" if len(names) == 1 else f"of {_word(members[0].get('route'))} "
    return f"{text}{whose}Set-Cookie: {_word(cookie)}"


def _members(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    members = found.get("members")
    if not isinstance(members, list):
        return []
    return [each for each in members if isinstance(each, Mapping)]


def _name(member: Mapping[str, Any]) -> str:
    """``server1 (http://10.0.0.1)``."""
    route, url = member.get("route"), _word(member.get("url"))
    return url if route is None else f"{_word(route)} ({url})"


def _word(value: Any) -> str:
    """A value in one line, with nothing in it that a terminal would obey."""
    text = "-" if value is None else str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode()
