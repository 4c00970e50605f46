"""Errors by fault: the client's, the member's, the configuration's, or ours.

Whoever catches a ``ProxyError`` knows from its type whom to blame, and from ``status`` what to
answer. Foreign exceptions are translated into these where they enter.
"""

from collections.abc import Sequence
from typing import NamedTuple


class ProxyError(Exception):
    """Base of everything this program raises on purpose."""


class ClientError(ProxyError):
    """The client broke a rule. ``status`` is the HTTP status to answer it with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class MemberError(ProxyError):
    """A member's answer can't be understood; the client gets 502 (RFC 9110 section 15.6.3)."""


class UnexpectedError(MemberError):
    """A member's answer is none to an HTTP/1 request, or to this one."""


class Mistake(NamedTuple):
    """One mistake in a configuration: where, what was found, what is allowed.

    ``path`` leads to the value from the root, keys and indexes mixed:
    ``("frontends", 0, "listen")``. ``on_key`` tells that the key itself is the mistake, not its
    value.
    """

    path: tuple[str | int, ...]
    message: str
    on_key: bool = False


class ConfigError(ProxyError):
    """The configuration can't be used; ``mistakes`` holds every reason that was found."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("; ".join(mistake.message for mistake in mistakes))
        self.mistakes = tuple(mistakes)
