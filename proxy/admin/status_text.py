"""The status as a terminal shows it: a head, the workers, each balancer with its members.

Pure: the tree of ``Commands.status`` goes in, text comes out. What is missing in it is shown as
``-`` and what is new is left out, since the program that answers may be of another version.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from proxy.admin.member_notes import member_notes, word

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


class Column(NamedTuple):
    """A column: its title, the key of its value, and how that is written."""

    title: str
    key: str
    text: Callable[[Any], str]
    right: bool = False


def status_text(status: Mapping[str, Any], now: float) -> str:
    """All there is to see; ``now`` in seconds since 1970."""
    workers = [{**worker, "up": _age(worker, now)} for worker in blocks(status.get("workers"))]
    parts = [_head(status, now), table(_WORKER, workers)]
    balancers = status.get("balancers")
    for name, balancer in balancers.items() if isinstance(balancers, Mapping) else ():
        block = balancer if isinstance(balancer, Mapping) else {}
        members = [_with_state(member) for member in blocks(block.get("members"))]
        title = f"balancer {word(name)}, {word(block.get('lbmethod'))}"
        notes = [note for member in members for note in member_notes(member)]
        parts.append("\n".join([title, table(_MEMBER, members), *notes]))
    return "\n\n".join(parts)


def _head(status: Mapping[str, Any], now: float) -> str:
    words = (word(status.get(key)) for key in ("version", "pid", "generation", "phase"))
    frontends = [
        word(frontend.get("listen")) + (" (TLS)" if frontend.get("tls") else "")
        for frontend in blocks(status.get("frontends"))
    ]
    lines = [
        "balanceme {}, process {}, generation {}, {}, up {}".format(
            *words, duration(_age(status, now))
        ),
        f"configuration {word(status.get('config_file'))}",
        f"listening on {', '.join(frontends) or '-'}",
        f"{word(status.get('connections'))} connections, {word(status.get('requests'))} requests",
    ]
    return "\n".join(lines)


def _age(block: Mapping[str, Any], now: float) -> float | None:
    """Seconds since something started, if it says when."""
    started = block.get("started")
    return now - started if isinstance(started, int | float) else None


def _with_state(member: Mapping[str, Any]) -> dict[str, Any]:
    """A member as its row needs it: Apache's letters stand behind the words."""
    letters = member.get("letters")
    state = word(member.get("status"))
    return {**member, "state": f"{state} [{word(letters)}]" if letters else state}


# --- tables --------------------------------------------------------------------------------------


def table(columns: tuple[Column, ...], rows: Iterable[Mapping[str, Any]]) -> str:
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


def blocks(value: Any) -> list[Mapping[str, Any]]:
    """A list's entries that have keys; none of anything else."""
    if not isinstance(value, list | tuple):
        return []
    return [entry for entry in value if isinstance(entry, Mapping)]


# --- cells ---------------------------------------------------------------------------------------


def _bytes(value: Any) -> str:
    """A number of bytes with at most four digits, in units of 1024: ``980 B``, ``1.2 MB``."""
    if not isinstance(value, int | float):
        return word(value)
    rest = float(value)
    for unit in _UNITS:
        if rest < 1000 or unit == _UNITS[-1]:
            break
        rest /= 1024
    exact = unit == "B" or rest >= 100
    return f"{rest:.0f} {unit}" if exact else f"{rest:.1f} {unit}"


def duration(value: Any) -> str:
    """Seconds in the two largest units: ``3d 4h``, ``5m 6s``, ``0.3s``."""
    if not isinstance(value, int | float):
        return word(value)
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
    Column("WORKER", "number", word),
    Column("PROCESS", "pid", word, right=True),
    Column("PHASE", "phase", word),
    Column("GENERATION", "generation", word, right=True),
    Column("CONNECTIONS", "connections", word, right=True),
    Column("REQUESTS", "requests", word, right=True),
    Column("UP", "up", duration, right=True),
    Column("HEARTBEAT", "heartbeat", duration, right=True),
)
_MEMBER = (
    Column("MEMBER", "route", word),
    Column("URL", "url", word),
    Column("STATUS", "state", word),
    Column("BUSY", "busy", word, right=True),
    Column("WAITING", "waiting", word, right=True),
    Column("ELECTED", "elected", word, right=True),
    Column("SESSIONS", "sessions", word, right=True),
    Column("SENT", "sent", _bytes, right=True),
    Column("RECEIVED", "received", _bytes, right=True),
)
