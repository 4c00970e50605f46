"""The failover include of an Apache frontend: pairs of RewriteCond and RewriteRule (C5, C12, C18).

    RewriteCond %{HTTP_COOKIE} BALANCEME=(Balancer.server2)
    RewriteRule .* - [CO=BALANCEME:Balancer.server1:zarafa.com:60]

Each pair says that one route's sessions were taken over by another one. Whatever spelling Apache
has for that is understood; what says anything else is a mistake and no guess. The cookie's domain
and lifetime are the balancer's own business and are passed over. Whether there are such members is
asked elsewhere.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from proxy.core.raw import shown
from proxy.core.settings import Balancer


class Said(NamedTuple):
    """Something about a line of a file; lines count from 1."""

    line: int
    message: str


class Entry(NamedTuple):
    """One takeover: the lines of both routes, whose sessions, and who has them now."""

    gone_line: int
    heir_line: int
    gone: str
    heir: str


class Rules(NamedTuple):
    """All that an include says, in the order of its lines."""

    entries: list[Entry]
    mistakes: list[Said]
    notices: list[Said]


def looks_like_rules(text: str) -> bool:
    """Whether a text is meant for Apache: no line of YAML begins like this."""
    return (
        re.search(r"^[^\S\n]*(?:Rewrite\w*(?:\s|\\?$)|<)", text, re.IGNORECASE | re.MULTILINE)
        is not None
    )


def read_rules(text: str, balancer: Balancer) -> Rules:
    """What an include says; nothing is raised."""
    reader = _Reader(balancer)
    for line, words in _directives(text):
        try:
            reader.read(line, words)
        except _RefusedError as error:
            reader.rules.mistakes.append(Said(line, str(error)))
    reader.end()
    return reader.rules


# --- text to words (D1) ------------------------------------------------------------------------

_BLANKS = " \t\v\f\r"
# In quotes, or up to a blank that no backslash stands before.
_WORD = re.compile(
    rf"""\"((?:\\.|[^\"\\])*)\"|'((?:\\.|[^'\\])*)'|((?:\\[{_BLANKS}]|[^{_BLANKS}])+)"""
)


def _directives(text: str) -> Iterator[tuple[int, list[str]]]:
    """The words of each directive and its first line; a backslash continues even a comment."""
    whole, first = "", 0
    lines = text.split("\n")
    for number, ended in enumerate(lines, 1):
        line = ended.removesuffix("\r")
        first = first or number
        whole += line.removesuffix("\\")
        if line.endswith("\\") and number < len(lines):
            continue
        words = whole.strip(_BLANKS)
        if words and not words.startswith("#"):
            yield first, ["".join(groups) for groups in _WORD.findall(words)]
        whole, first = "", 0


# --- words to meaning --------------------------------------------------------------------------

_VARIABLES = ("%{http_cookie}", "%{http:cookie}")
_EVERY_PATH = ".* . ^ ^.* ^.*$ .*$ (.*) ^(.*) ^(.*)$ / ^/ ^/.* ^/.*$ ^/(.*) ^/(.*)$".split()
# Flags that change nothing where the substitution is a hyphen; by both of their names.
_NEUTRAL = "l last end nc nocase ne noescape pt passthrough qsa qsappend".split()


class _RefusedError(Exception):
    """A directive that isn't understood; the message says what is allowed."""


class _Condition(NamedTuple):
    line: int
    gone: str | None
    is_joined: bool


class _Reader:
    """Takes directives one by one."""

    def __init__(self, balancer: Balancer) -> None:
        self.rules = Rules([], [], [])
        # What stands before the next RewriteRule, and belongs to it alone (C18).
        self._conditions: list[_Condition] = []
        self._cookie = (balancer.sticky_session or "").partition("|")[0]
        cookie = balancer.session_cookie
        self._separator = "" if balancer.sticky_separator == "off" else balancer.sticky_separator
        self._prefix = cookie.prefix if cookie else None

    def read(self, line: int, words: list[str]) -> None:
        """Take a directive. Raises _RefusedError."""
        name = words[0].lower()
        if name.startswith("rewritecond"):
            # It stands before its rule even if it isn't understood: one mistake, not two.
            self._conditions.append(_Condition(line, None, is_joined=True))
        if name == "rewritecond":
            self._conditions[-1] = self._condition(line, words[1:])
        elif name == "rewriterule":
            conditions, self._conditions = self._conditions, []
            self._rule(line, words[1:], conditions)
        elif name != "rewriteengine" or [word.lower() for word in words[1:]] != ["on"]:
            raise _RefusedError(
                f"found {shown(' '.join(words))}; allowed: RewriteCond, RewriteRule,"
                " RewriteEngine on"
            )

    def end(self) -> None:
        """The file ends here."""
        if self._conditions:
            line = self._conditions[-1].line
            said = Said(line, "found RewriteCond without a RewriteRule behind it; each has one")
            self.rules.mistakes.append(said)

    def _condition(self, line: int, words: list[str]) -> _Condition:
        if len(words) not in (2, 3):
            raise _RefusedError(
                f"found {shown(' '.join(words))} behind RewriteCond; allowed: %{{HTTP_COOKIE}},"
                " a pattern, and maybe flags such as [NC]"
            )
        if words[0].lower() not in _VARIABLES:
            raise _RefusedError(f"found {shown(words[0])}; allowed: %{{HTTP_COOKIE}}")
        flags = _flags(words[2:])
        for flag in flags:
            if flag not in ("nc", "nocase", "or", "ornext"):
                raise _RefusedError(f"found the flag {shown(flag)}; allowed: NC, OR")
        ignore_case = "nc" in flags or "nocase" in flags
        name, _, value = (_literal(words[1]) or "").partition("=")
        same = name.lower() == self._cookie.lower() if ignore_case else name == self._cookie
        route = self._route(value) if same and self._cookie else None
        if route is None:
            raise _RefusedError(f"found the pattern {shown(words[1])}; {self._allowed('=')}")
        if not ignore_case:
            self._notice_case(line, value)
        return _Condition(line, route, "or" in flags or "ornext" in flags)

    def _notice_case(self, line: int, value: str) -> None:
        """Apache compares letters exactly, and the article's include never matched (C12)."""
        prefix = self._prefix or ""
        if self._separator and not value.startswith(prefix) and not self.rules.notices:
            self.rules.notices.append(
                Said(
                    line,
                    f"found {shown(value)} where cookies begin with {shown(prefix)}; Apache"
                    " compares letters exactly and would match none of them without [NC];"
                    " taken as it was meant",
                )
            )

    def _rule(self, line: int, words: list[str], conditions: list[_Condition]) -> None:
        if not conditions:
            raise _RefusedError(
                "found RewriteRule without RewriteCond before it; it would move every session"
            )
        if len(words) != 3:
            raise _RefusedError(
                f"found {shown(' '.join(words))} behind RewriteRule; allowed: a pattern, a hyphen"
                " and [CO=...], flags without blanks or in quotes"
            )
        if words[0] not in _EVERY_PATH:
            raise _RefusedError(f"found the pattern {shown(words[0])}; allowed: .*")
        if words[1] != "-":
            raise _RefusedError(f"found the substitution {shown(words[1])}; allowed: -")
        heir = self._heir(_flags(words[2:]))
        if not all(condition.is_joined for condition in conditions[:-1]):
            raise _RefusedError(
                "found RewriteRule behind conditions that must all hold; a session has one route,"
                " [OR] lets one of them do"
            )
        for condition in conditions:
            if condition.gone is not None:
                entry = Entry(condition.line, line, condition.gone, heir)
                self.rules.entries.append(entry)

    def _heir(self, flags: dict[str, list[str]]) -> str:
        cookies = flags.pop("co", []) + flags.pop("cookie", [])
        for flag in flags:
            if flag not in _NEUTRAL:
                raise _RefusedError(f"found the flag {shown(flag)}; allowed: CO, L, NC")
        if len(cookies) != 1:
            raise _RefusedError(
                f"found {len(cookies) or 'no'} flags CO; a RewriteRule has one here"
            )
        text = cookies[0]
        # Empty fields are none (C5).
        fields = [field for field in text.split(";" if text.startswith(";") else ":") if field]
        if len(fields) < 3:
            raise _RefusedError(
                f"found {shown('CO=' + text)}, which Apache passes over; it takes name, value and"
                " domain"
            )
        route = self._route(fields[1]) if fields[0] == self._cookie else None
        if route is None:
            found = ":".join(fields[:2])
            raise _RefusedError(f"found the cookie {shown(found)}; {self._allowed(':')}")
        return route

    def _route(self, value: str) -> str | None:
        """The route in a cookie's value (S8); None if it is no value of ours."""
        if not self._separator:
            return value or None
        prefix, _, route = value.partition(self._separator)
        if self._prefix is not None and prefix.lower() != self._prefix.lower():
            return None
        return route or None

    def _allowed(self, equals: str) -> str:
        if not self._cookie:
            return "the balancer has no sticky_session, so no cookie of it carries routes"
        prefix = "PREFIX" if self._prefix is None else self._prefix
        before = prefix + self._separator if self._separator else ""
        return f"allowed: {self._cookie}{equals}{before}ROUTE"


def _flags(words: list[str]) -> dict[str, list[str]]:
    """The flags in brackets: by name in small letters, the text behind each =."""
    flags: dict[str, list[str]] = {}
    for word in words:
        if len(word) < 2 or word[0] != "[" or word[-1] != "]":
            raise _RefusedError(f"found {shown(word)} where flags stand; allowed: [FLAG,FLAG]")
        for flag in word[1:-1].split(","):
            name, _, value = flag.strip(_BLANKS).partition("=")
            flags.setdefault(name.lower(), []).append(value)
    return flags


def _literal(pattern: str) -> str | None:
    """The text that a regular expression matches; None if it matches more than one.

    A dot is a dot, as whoever wrote it meant. Groups, and anchors at both ends, make no difference.
    """
    pattern = re.sub(r"^(\(*)(?:\^|\\b)", r"\1", pattern)
    pattern = re.sub(r"(?:\$|\\b)(\)*)$", r"\1", pattern)
    text, depth, escaped = "", 0, False
    for character in pattern:
        if escaped and character.isalnum():
            return None
        if escaped or character not in r"\()*+?[]{}|^$":
            text, escaped = text + character, False
        elif character == "\\":
            escaped = True
        elif character in "()" and depth >= 0:
            depth += 1 if character == "(" else -1
        else:
            return None
    return text if depth == 0 and not escaped else None
