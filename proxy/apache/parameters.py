"""The ``key=value`` parameters of members and balancers (B1), as our settings.

One function a parameter: it takes the value and gives what to set, or raises ValueError with what
is wrong; what has no meaning here is a notice. Apache refuses what is out of range at its start, so
that is a mistake here too (D9).
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

Block = dict[str, Any]


class Unsupported(NamedTuple):
    """A parameter that has no meaning here, and what to say of it."""

    text: str


Meaning = Block | Unsupported
Parameter = Callable[[str], Meaning]


def split(argument: str) -> tuple[str, str] | None:
    """``key=value`` with the key in lower case; None for anything else."""
    key, equals, value = argument.partition("=")
    return (key.lower(), value) if equals and key else None


# --- values ------------------------------------------------------------------------------------


def _number(value: str, least: float, most: float = float("inf")) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f'found "{value}", which is no number') from None
    if not least <= number <= most:
        bounds = f"at least {least:g}" if most == float("inf") else f"from {least:g} to {most:g}"
        raise ValueError(f"found {value}; it has to be {bounds}")
    return number


def whole(value: str, least: int, most: float = float("inf")) -> int:
    """A whole number in these bounds; raises ValueError."""
    number = _number(value, least, most)
    if not number.is_integer():
        raise ValueError(f"found {value}, which is no whole number")
    return int(number)


def seconds(value: str, least: float = 0, unit: str = "s") -> str | int:
    """A time with or without a unit, in our spelling; raises ValueError."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|mi|m|min|h)?", value, re.IGNORECASE)
    if found is None:
        raise ValueError(f'found "{value}", which is no time')
    written = (found[2] or unit).lower()
    if _number(found[1], 0) == 0:
        if least > 0:
            raise ValueError(f"found {value}; it has to be at least {least:g} s")
        return 0
    return found[1] + {"mi": "m", "min": "m"}.get(written, written)


def on_off(value: str) -> bool:
    """On or Off; raises ValueError."""
    if value.lower() not in ("on", "off"):
        raise ValueError(f'found "{value}"; it has to be On or Off')
    return value.lower() == "on"


# --- members -----------------------------------------------------------------------------------

_FLAGS: dict[str, Block] = {
    "D": {"status": "disabled"},
    "S": {"status": "stopped"},
    "N": {"status": "drain"},
    "H": {"hot_standby": True},
    "R": {"hot_spare": True},
    "I": {"ignore_errors": True},
}
# Of several words for the operator's status the one that takes least counts.
_ORDER = ["enabled", "drain", "disabled", "stopped"]


def _status(value: str) -> Meaning:
    found: Block = {}
    sign = "+"
    for letter in value.upper():
        if letter in "+-":
            sign = letter
        elif letter in "EC" and sign == "+":
            return Unsupported("a member begins without error; the first request would clear it")
        elif letter in _FLAGS or letter in "EC":
            meaning = _FLAGS.get(letter, {})
            stronger = _ORDER.index(meaning.get("status", "enabled")) >= _ORDER.index(
                found.get("status", "enabled")
            )
            if sign == "+" and ("status" not in meaning or stronger):
                found |= meaning
        else:
            raise ValueError(f"found the letter {letter}; known: D, S, N, H, R, I, E, C")
    return found


def _route(key: str) -> Parameter:
    def meaning(value: str) -> Meaning:
        if len(value) >= 64:
            raise ValueError("found 64 characters or more; a route has at most 63")
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", value):
            raise ValueError(f'found "{value}"; a route has letters, digits, _ . and -')
        return {key: value}

    return meaning


def _ignored(text: str) -> Parameter:
    return lambda _: Unsupported(text)


def _timeout(value: str) -> Meaning:
    found = seconds(value, least=1)
    timeouts: Block = {"response": found, "tunnel": found}
    if float(value) >= 3600:
        timeouts["activesync"] = found
    return {"timeouts": timeouts}


MEMBER: dict[str, Parameter] = {
    "loadfactor": lambda value: {"load_factor": _number(value, 1, 100)},
    "route": _route("route"),
    "redirect": _route("redirect_route"),
    "lbset": lambda value: {"lbset": whole(value, 0, 99)},
    "status": _status,
    "retry": lambda value: {"retry_after": seconds(value)},
    "timeout": _timeout,
    "connectiontimeout": lambda value: {"timeouts": {"connect": seconds(value, least=0.001)}},
    "max": lambda value: {"max_connections": whole(value, 1)},
    "acquire": lambda value: {"acquire_timeout": seconds(value, unit="ms")},
    "disablereuse": lambda value: {"reuse_connections": not on_off(value)},
    "enablereuse": lambda value: {"reuse_connections": on_off(value)},
    "upgrade": lambda value: {"upgrade": value},
    "smax": _ignored("connections are kept as long as they are of use"),
    "min": _ignored("connections are opened when they are needed"),
    "ttl": _ignored("connections are kept as long as they are of use"),
    "ping": _ignored("health_checks find out whether a member answers"),
    "keepalive": _ignored("TCP keep-alive probes are always on"),
    "iobuffersize": _ignored("buffers are sized by what comes"),
    "responsefieldsize": _ignored("limits.field of the frontend counts for answers as well"),
    "addressttl": _ignored("a name is looked up for each connection"),
    "flushpackets": _ignored("whatever comes is passed on at once"),
    "flushwait": _ignored("whatever comes is passed on at once"),
}

# --- balancers ---------------------------------------------------------------------------------

_LBMETHODS = ("byrequests", "bytraffic", "bybusyness")


def _lbmethod(value: str) -> Meaning:
    if value == "heartbeat":
        raise ValueError("found heartbeat, for which there is nothing here; take bybusyness")
    if value not in _LBMETHODS:
        raise ValueError(f'found "{value}"; known: {", ".join(_LBMETHODS)}')
    return {"lbmethod": value}


def _separator(value: str) -> Meaning:
    if value.lower() == "off":
        return {"sticky_separator": "off"}
    if len(value) != 1:
        raise ValueError(f'found "{value}"; a separator is one character, or Off')
    return {"sticky_separator": value}


def _statuses(value: str) -> Meaning:
    return {"fail_on_status": [whole(each, 200, 599) for each in value.split(",")]}


BALANCER: dict[str, Parameter] = {
    "lbmethod": _lbmethod,
    "stickysession": lambda value: {"sticky_session": value},
    "stickysessionsep": _separator,
    "scolonpathdelim": lambda value: {"semicolon_ends_parameter": on_off(value)},
    "nofailover": lambda value: {"no_failover": on_off(value)},
    "timeout": lambda value: {"wait_timeout": seconds(value)},
    "maxattempts": lambda value: {"max_attempts": whole(value, 0)},
    "failonstatus": _statuses,
    "failontimeout": lambda value: {"fail_on_timeout": on_off(value)},
    "forcerecovery": lambda value: {"forced_recovery": on_off(value)},
    "growth": _ignored("a reload adds members while all is served"),
    "nonce": _ignored("there is no balancer-manager; balanceme set changes members at run time"),
}

# --- health checks -----------------------------------------------------------------------------

_METHODS = {
    "TCP": {"type": "tcp"},
    **{
        word + version: {"type": "http", "method": word}
        for word in ("OPTIONS", "HEAD", "GET")
        for version in ("", "11")
    },
}


def _method(value: str) -> Meaning:
    if value.upper() == "NONE":
        return {}
    if value.upper() not in _METHODS:
        raise ValueError(f'found "{value}"; known: None, {", ".join(_METHODS)}')
    return dict(_METHODS[value.upper()])


def _expression(_: str) -> Meaning:
    raise ValueError("expressions aren't understood; say statuses and body of the health check")


# What belongs to the one check of a member; ``hctemplate`` is resolved before.
CHECK: dict[str, Parameter] = {
    "hcmethod": _method,
    "hcinterval": lambda value: {"interval": seconds(value, least=0.1)},
    "hcpasses": lambda value: {"passes": whole(value, 1)},
    "hcfails": lambda value: {"fails": whole(value, 1)},
    "hcuri": lambda value: {"path": value},
    "hcexpr": _expression,
}
