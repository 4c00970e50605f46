"""The status as a terminal shows it: a head, the workers, each balancer with its members.

Pure: the tree of ``Commands.status`` goes in, text comes out. What is missing in it is shown as
``-`` and what is new is left out, since the program that answers may be of another version.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


class Column(NamedTuple):
    """A column: its title, the key of its value, and how that is written."""

    title: str
    key: str
    text: Callable[[Any], str]
    right: bool = False


def status_text(status: Mapping[str, Any], now: float) -> str:
    """All there is to see; ``now`` in seconds since 1970."""
    workers = [{**worker, "up": _age(worker, now)} for worker in _blocks(status.get("workers"))]
    parts = [_head(status, now), _table(_WORKER, workers)]
    balancers = status.get("balancers")
    for name, balancer in balancers.items() if isinstance(balancers, Mapping) else ():
        block = balancer if isinstance(balancer, Mapping) else {}
        members = [_with_state(member) for member in _blocks(block.get("members"))]
        title = f"balancer {_word(name)}, {_word(block.get('lbmethod'))}"
        parts.append(f"{title}\n{_table(_MEMBER, members)}")
    return "\n\n".join(parts)


def _head(status: Mapping[str, Any], now: float) -> str:
    words = (_word(status.get(key)) for key in ("version", "pid", "generation", "phase"))
    frontends = [
        _word(frontend.get("listen")) + (" (TLS)" if frontend.get("tls") else "")
        for frontend in _blocks(status.get("frontends"))
    ]
    lines = [
        "balanceme {}, process {}, generation {}, {}, up {}".format(
            *words, _duration(_age(status, now))
        ),
        f"configuration {_word(status.get('config_file'))}",
        f"listening on {', '.join(frontends) or '-'}",
        f"{_word(status.get('connections'))} connections, {_word(status.get('requests'))} requests",
    ]
    return "\n".join(lines)


def _age(block: Mapping[str, Any], now: float) -> float | None:
    """Seconds since something started, if it says when."""
    started = block.get("started")
    return now - started if isinstance(started, int | float) else None


def _with_state(member: Mapping[str, Any]) -> dict[str, Any]:
    """A member as its row needs it: Apache's letters stand behind the words."""
    letters = member.get("letters")
    state = _word(member.get("status"))
    return {**member, "state": f"{state} [{_word(letters)}]" if letters else state}


# --- tables --------------------------------------------------------------------------------------


def _table(columns: tuple[Column, ...], rows: Iterable[Mapping[str, Any]]) -> str:
    """Lines whose columns are as wide as their widest cell, with two blanks between."""
    lines = [[column.title for column in columns]]
    lines += [[column.text(row.get(column.key)) for column in columns] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    )


def _blocks(value: Any) -> list[Mapping[str, Any]]:
    """A list's entries that have keys; none of anything else."""
    if not isinstance(value, list | tuple):
        return []
    return [entry for entry in value if isinstance(entry, Mapping)]


# --- cells ---------------------------------------------------------------------------------------


def _word(value: Any) -> str:
    """A value in one line, with nothing in it that a terminal would obey."""
    text = "-" if value is None or value == "" else str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _bytes(value: Any) -> str:
    """A number of bytes with at most four digits, in units of 1024: ``980 B``, ``1.2 MB``."""
    if not isinstance(value, int | float):
        return _word(value)
    rest = float(value)
    for unit in _UNITS:
        if rest < 1000 or unit == _UNITS[-1]:
            break
        rest /= 1024
    exact = unit == "B" or rest >= 100
    return f"{rest:.0f} {unit}" if exact else f"{rest:.1f} {unit}"


def _duration(value: Any) -> str:
    """Seconds in the two largest units: ``3d 4h``, ``5m 6s``, ``0.3s``."""
    if not isinstance(value, int | float):
        return _word(value)
    seconds = max(float(value), 0.0)
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    days, rest = divmod(round(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")]
    first = next((place for place, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count}{unit}" for count, unit in parts[first : first + 2])


_WORKER = (
    Column("WORKER", "number", _word),
    Column("PROCESS", "pid", _word, right=True),
    Column("PHASE", "phase", _word),
    Column("GENERATION", "generation", _word, right=True),
    Column("CONNECTIONS", "connections", _word, right=True),
    Column("REQUESTS", "requests", _word, right=True),
    Column("UP", "up", _duration, right=True),
    Column("HEARTBEAT", "heartbeat", _duration, right=True),
)
_MEMBER = (
    Column("MEMBER", "route", _word),
    Column("URL", "url", _word),
    Column("STATUS", "state", _word),
    Column("BUSY", "busy", _word, right=True),
    Column("ELECTED", "elected", _word, right=True),
    Column("SESSIONS", "sessions", _word, right=True),
    Column("SENT", "sent", _bytes, right=True),
    Column("RECEIVED", "received", _bytes, right=True),
)
