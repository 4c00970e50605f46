"""What a probe is given, and what comes out of it.

Plain values, since they travel between processes. Words of a member are shown to people through
``told`` alone: printable, and cut.
"""

from typing import NamedTuple
from urllib.parse import urlsplit

from proxy.core.proxy_protocol import OWN_BINARY, OWN_LINE
from proxy.core.settings import Member, ProxyProtocol

_PREAMBLES = {ProxyProtocol.V1: OWN_LINE, ProxyProtocol.V2: OWN_BINARY}
# Characters of a result's text.
LONGEST_TEXT = 200
# The same for what a member said, as a part of it.
LONGEST_QUOTE = 120


class Target(NamedTuple):
    """The member that is asked."""

    host: str
    """Name or address, an IPv6 one without brackets."""
    port: int
    route: str | None
    url: str
    preamble: bytes = b""
    """What the member wants to hear before anything else, on its own port."""

    @classmethod
    def of(cls, member: Member) -> "Target":
        """The member with these settings."""
        parts = urlsplit(member.url)
        preamble = _PREAMBLES[member.proxy_protocol] if member.proxy_protocol else b""
        return cls(parts.hostname or "", parts.port or 80, member.route, member.url, preamble)


class CheckFiles(NamedTuple):
    """What the files of a check hold. Shows nothing of itself, in no log either."""

    user: str | None = None
    password: str | None = None
    authorities: str | None = None
    """PEM."""

    def __repr__(self) -> str:
        return "CheckFiles(...)"


NO_FILES = CheckFiles()


class Result(NamedTuple):
    """How a probe went."""

    passed: bool
    text: str
    """One printable line: why it failed, or what was seen."""
    certificate_ends: float | None = None
    """When the certificate that was shown ends, in seconds since 1970."""


class ProbeError(Exception):
    """The member does not pass; the message says why."""


def told(said: str | bytes, longest: int = LONGEST_QUOTE) -> str:
    """What somebody else said, as a part of a line for people."""
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    text = "".join(each if each.isprintable() else "?" for each in text.strip()[: longest + 1])
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
