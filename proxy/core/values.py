"""Values as the configuration writes them: durations, sizes, addresses, names, paths.

Each function reads one kind of value and raises ``ValueError`` with the reason in the operator's
words, fit to stand behind what was found. The types below tell pydantic and the JSON schema the
same. Nothing here knows which setting a value belongs to.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)

DURATION_PATTERN = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)"
SIZE_PATTERN = r"([0-9]{1,12})([kmg]?)"
STATUSES_PATTERN = r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?"
# Ten years. A session cookie's Expires is a date: a lifetime without a bound can leave the
# calendar, and no other duration means anything beyond it.
LONGEST_DURATION = 3650 * 86400.0
# More than any machine has cores.
MOST_WORKERS = 1024

DURATION_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_BYTES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_DURATION = re.compile(DURATION_PATTERN)
_SIZE = re.compile(SIZE_PATTERN)
# [!-~]: a space or anything beyond ASCII could not be sent in a request head as it stands.
_MEMBER_URL = re.compile(
    r"http://(?:[A-Za-z0-9._-]+|\[(?P<v6>[0-9A-Fa-f:.]+)\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/[!-~]*)?",
    re.IGNORECASE,
)


def parse_duration(value: Any) -> float:
    """Seconds from text such as ``250ms``, ``20s``, ``60m``, ``2h``, ``1d``, or from a bare 0."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value == 0:
        return 0.0
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("a duration is a number with a unit: 250ms, 20s, 60m, 2h, 1d")
    seconds = float(found[1]) * DURATION_UNITS[found[2]]
    if seconds > LONGEST_DURATION:
        raise ValueError("a duration is at most 3650d")
    return seconds


def parse_timeout(value: Any) -> float:
    """A duration that isn't zero: 0 could mean at once or never, so it means nothing."""
    seconds = parse_duration(value)
    if seconds == 0:
        raise ValueError("a timeout is longer than 0; left out it has its default")
    return seconds


def duration_text(seconds: float) -> str:
    """The shortest text for a duration, to the millisecond: 3660.0 is ``61m``."""
    milliseconds = round(seconds * 1000)
    for unit, factor in DURATION_UNITS.items():
        if milliseconds and milliseconds % (factor * 1000) == 0:
            return f"{milliseconds // (factor * 1000):.0f}{unit}"
    return "0"


def parse_size(value: Any) -> int:
    """Bytes from a number or from text such as ``8190``, ``16k``, ``1m``, ``1g``."""
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        found = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            raise ValueError("a size is a number of bytes, or one with a unit: 16k, 1m, 1g")
        size = int(found[1]) * _BYTES[found[2]]
    if not 1 <= size <= 2**40:
        raise ValueError("a size is at least 1 and at most 1024g")
    return size


def size_text(size: int) -> str:
    """The shortest text for a number of bytes: 65536 is ``64k``."""
    for unit, factor in reversed(_BYTES.items()):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return "0"


def parse_workers(value: Any) -> int | Literal["auto"]:
    """A number of processes, or ``auto``."""
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_WORKERS:
        raise ValueError(f"workers is a whole number from 1 to {MOST_WORKERS}, or auto")
    return value


def listen_host_port(value: str) -> tuple[str, int]:
    """``0.0.0.0:443`` or ``[::]:443`` as host and port."""
    host, _, port = value.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if bare != "localhost":
        try:
            in_brackets = ip_address(bare).version == 6
        except ValueError:
            raise ValueError("listen is address:port, such as 0.0.0.0:443 or [::]:443") from None
        if in_brackets == (bare == host):
            raise ValueError("an IPv6 address stands in brackets, an IPv4 address without")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ValueError("a port is a number from 1 to 65535")
    return bare, int(port)


def check_listen(value: str) -> str:
    """The value as it is, if it is an address to listen on."""
    listen_host_port(value)
    return value


def check_member_url(value: str) -> str:
    """The value as it is, if it is ``http://host[:port][/path]``."""
    if value.lower().startswith("https:"):
        raise ValueError("a member is reached over plain HTTP: http://host[:port][/path]")
    found = _MEMBER_URL.fullmatch(value)
    if found is None:
        raise ValueError("a member's url is http://host[:port][/path] in ASCII, nothing more")
    if found["v6"] is not None:
        _check_v6(found["v6"])
    if found["port"] is not None and not 0 < int(found["port"]) < 65536:
        raise ValueError("a port is a number from 1 to 65535")
    if found["path"] is not None:
        check_path(found["path"])
    return value


def _check_v6(value: str) -> None:
    try:
        is_v6 = ip_address(value).version == 6
    except ValueError:
        is_v6 = False
    if not is_v6:
        raise ValueError("between brackets stands an IPv6 address")


def check_path(value: str) -> str:
    """The value as it is, if it is a path that a request can have after it was cleaned up."""
    if not re.fullmatch(r"/[!-~]*", value) or re.search(r"[?#]|//|/\.\.?(/|$)", value):
        raise ValueError("a path begins with / and has no query, fragment, // or dot segment")
    return value


def parse_network(value: Any) -> IPv4Network | IPv6Network:
    """A network such as ``10.0.0.0/8``, or one address, from text."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        interface = ip_interface(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError("a network is an address, or 10.0.0.0/8, 2001:db8::/32") from None
    if interface.ip != interface.network.network_address:
        raise ValueError(f"the network of this address is {interface.network}")
    return interface.network


def parse_secrets(value: Any) -> tuple[str, ...]:
    """One secret, or a list of at most two, as a tuple."""
    found = (value,) if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or len(found) > 2:
        raise ValueError("a secret is text, or there is a list of two, the newer one first")
    for secret in found:
        if not isinstance(secret, str) or len(secret) < 16:
            raise ValueError("a secret is text of at least 16 characters")
    return tuple(found)


def check_statuses(value: Any) -> str:
    """A status such as ``200``, or a range such as ``200-399``, as text."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    found = re.fullmatch(STATUSES_PATTERN, text) if isinstance(text, str) else None
    if found is None or int(found[1]) > int(found[2] or found[1]):
        raise ValueError("a status is a number from 100 to 599, or a range of them: 200-399")
    return found[0]


def among_statuses(status: int, ranges: Iterable[str]) -> bool:
    """Whether a status is one of these, or in one of the ranges."""
    for each in ranges:
        first, _, last = each.partition("-")
        if int(first) <= status <= int(last or first):
            return True
    return False


def check_pattern(value: str) -> str:
    """The value as it is, if it is a regular expression."""
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"a regular expression has a mistake: {error}") from None
    return value


def check_host(value: str) -> str:
    """The value as it is, if it is a host name or an address, an IPv6 one without brackets."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", value):
        try:
            ip_address(value)
        except ValueError:
            raise ValueError("a host is a name or an address, without port") from None
    return value


# --- types -------------------------------------------------------------------------------------


def _allowed(words: str) -> Any:
    # What is allowed, in words, for our messages. Editors show "errorMessage" as well.
    return Field(json_schema_extra={"errorMessage": words})


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": f"^{DURATION_PATTERN}$"}, {"const": 0}]}
    ),
    _allowed("a number with a unit: 250ms, 20s, 60m, 2h, 1d"),
]
# A duration that can't be 0, which could mean at once or never.
Timeout = Annotated[
    float,
    BeforeValidator(parse_timeout),
    WithJsonSchema({"type": "string", "pattern": f"^{DURATION_PATTERN}$"}),
    _allowed("a number with a unit: 250ms, 20s, 60m, 2h, 1d"),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema({"type": ["string", "integer"], "pattern": f"^{SIZE_PATTERN}$", "minimum": 1}),
    _allowed("a number of bytes, or one with a unit: 16k, 1m, 1g"),
]
Network = Annotated[
    IPv4Network | IPv6Network,
    PlainValidator(parse_network),
    WithJsonSchema({"type": "string"}),
    _allowed("an address or a network: 192.0.2.1, 10.0.0.0/8, 2001:db8::/32"),
]
FileName = Annotated[
    str, StringConstraints(pattern=r"^[^\x00]+$"), _allowed("the name of a file, as text")
]
FolderName = Annotated[
    str, StringConstraints(pattern=r"^[^\x00]+$"), _allowed("the name of a folder, as text")
]
# POSIX: portable names don't begin with a hyphen.
AccountName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_.][A-Za-z0-9_.-]{0,31}$"),
    _allowed("the name of a user or group of this system, as text"),
]
Workers = Annotated[
    Literal["auto"] | Annotated[int, Field(ge=1, le=MOST_WORKERS, strict=True)],
    PlainValidator(parse_workers),
    WithJsonSchema(
        {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": MOST_WORKERS}]}
    ),
    _allowed(f"a whole number from 1 to {MOST_WORKERS}, or auto"),
]
Listen = Annotated[
    str, AfterValidator(check_listen), _allowed("address:port, such as 0.0.0.0:443 or [::]:443")
]
MemberUrl = Annotated[
    str, AfterValidator(check_member_url), _allowed("http://host[:port][/path] as text")
]
Path = Annotated[str, AfterValidator(check_path), _allowed("a path that begins with /")]
# A route travels in a cookie and in a URL (B1: at most 63 characters).
Route = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,63}$"),
    _allowed("1 to 63 letters, digits, underscores, dots and hyphens, as text"),
]
# A secret or a list of two, each long enough that nobody guesses it (RFC 2104 section 3).
_SECRET: dict[str, Any] = {"type": "string", "minLength": 16}
Secrets = Annotated[
    tuple[str, ...],
    PlainValidator(parse_secrets),
    WithJsonSchema({"anyOf": [_SECRET, {"type": "array", "items": _SECRET, "maxItems": 2}]}),
    _allowed("a secret of at least 16 characters, or a list of two, the newer one first"),
]
BalancerName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,63}$"),
    _allowed("a name of 1 to 63 letters, digits, underscores, dots and hyphens, as text"),
]
HostName = Annotated[
    str,
    StringConstraints(pattern=r"^(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$"),
    _allowed("a host name, or *. and a domain, as text"),
]
ServerName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$"),
    _allowed("a host name, as text"),
]
ServerField = Annotated[
    str,
    StringConstraints(pattern=r"^[!-~]+( [!-~]+)*$"),
    _allowed("ASCII words with one space between them"),
]
CookieDomain = Annotated[
    str,
    StringConstraints(pattern=r"^\.?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$"),
    _allowed("a domain such as example.org, as text"),
]
CookiePath = Annotated[
    str,
    StringConstraints(pattern=r"^/[!-:<-~]*$"),
    _allowed("a path that begins with /, without ;"),
]
CookiePrefix = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_-]*$"),
    _allowed("letters, digits, underscores and hyphens, as text"),
]
# One cookie name, or a cookie name and a URL parameter name: BALANCEME or JSESSIONID|jsessionid.
StickyName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_-]+(\|[A-Za-z0-9_-]+)?$"),
    _allowed("a cookie's name, or COOKIE|parameter, of letters, digits, underscores and hyphens"),
]
# YAML 1.1 reads off as false.
Separator = Annotated[
    str,
    StringConstraints(pattern=r"^([!-:<-~]|off)$"),
    BeforeValidator(lambda value: "off" if value is False else value),
    _allowed("one visible ASCII character but ;, in quotes, or off"),
]
Token = Annotated[
    str,
    StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"),
    _allowed("the name of a protocol, such as websocket"),
]
# What a request may ask for: a path, maybe with a query.
Target = Annotated[
    str,
    StringConstraints(pattern=r"^/[!-\"$-~]*$"),
    _allowed("a path that begins with /, maybe with a query"),
]
HostField = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_.:\[\]-]+$"),
    _allowed("a host, maybe with a port, as text"),
]
HostOrAddress = Annotated[
    str, AfterValidator(check_host), _allowed("a host name or an address, as text")
]
Port = Annotated[int, Field(ge=1, le=65535, strict=True)]
CheckName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,63}$"),
    _allowed("a name of 1 to 63 letters, digits, underscores, dots and hyphens, as text"),
]
CheckMethod = Literal["GET", "HEAD", "OPTIONS"]
# One status, or a range of them.
Statuses = Annotated[
    str,
    BeforeValidator(check_statuses),
    WithJsonSchema(
        {
            "type": ["string", "integer"],
            "pattern": f"^{STATUSES_PATTERN}$",
            "minimum": 100,
            "maximum": 599,
        }
    ),
    _allowed("a status from 100 to 599, or a range such as 200-399"),
]
FailStatus = Annotated[int, Field(ge=200, le=599, strict=True)]
Pattern = Annotated[str, AfterValidator(check_pattern), _allowed("a regular expression, as text")]
HookUrl = Annotated[
    str,
    StringConstraints(pattern=r"^https?://[!-\"$-~]+$"),
    _allowed("a URL, http://... or https://..., as text"),
]
LoadFactor = Annotated[float, Field(ge=1, le=100, strict=True)]
# YAML reads 1.2 as a number.
TlsVersion = Annotated[
    Literal["1.2", "1.3"],
    BeforeValidator(lambda value: str(value) if isinstance(value, float) else value),
]
