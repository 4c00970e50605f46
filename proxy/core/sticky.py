"""The session route in a request, and the session cookie in a response (rules S and C).

A route only ever counts as a key into the table of configured members; what a client sent is
never written back. ``http.cookies`` is unfit here: it loses every cookie of a field in which one
is odd.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from typing import NamedTuple

from proxy.core.failback import AWAY
from proxy.core.settings import Balancer as BalancerSettings
from proxy.core.settings import Renew, SameSite
from proxy.core.settings import SessionCookie as SessionCookieSettings

# How many Cookie fields have their route remembered, and up to which size in bytes: 4 MiB in all.
REMEMBERED_COOKIES = 2048
LONGEST_REMEMBERED = 2048


# Stands between a route and its signature; no route has it.
_SIGNED = b"~"
# In place of a route whose signature isn't valid.
_FORGED = b""


def signature(secret: str, cookie: str, route: bytes) -> bytes:
    """The signature of ``route`` in the session cookie named ``cookie``: 128 bits as text.

    Whoever has it was sent to that route once, and can't make one for another route (RFC 2104).
    """
    message = b"session route\0%b\0%b" % (cookie.encode(), route)
    digest = hmac.digest(secret.encode(), message, hashlib.sha256)
    return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=")


class Sighting(NamedTuple):
    """What a request says of its session, and where."""

    # as it was read; None if there is none
    value: bytes | None
    route: bytes | None
    in_url: bool = False
    forged: bool = False


class StickySession:
    """Finds the session route in a request's target and Cookie field.

    Where routes are signed, one without a valid signature counts as none, and is counted in
    ``forged``.
    """

    __slots__ = (
        "_apache",
        "_cookie",
        "_cookie_name",
        "_cookie_route",
        "_marker",
        "_parameter",
        "_secrets",
        "_separator",
        "forged",
    )

    def __init__(self, settings: BalancerSettings, *, apache: bool = False) -> None:
        cookie, _, parameter = (settings.sticky_session or "").encode().partition(b"|")
        parameter = parameter or cookie
        separator = settings.sticky_separator
        self._separator = None if separator == "off" else separator.encode()
        self._cookie_name = cookie
        # A cookie stands at the start or behind ; or , (S5); an empty one is passed over.
        self._cookie = re.compile(rb"(?:^|[;,])[ \t]*" + re.escape(cookie) + rb"[ \t]*=([^;,]+)")
        ends = rb"?&;" if settings.semicolon_ends_parameter else rb"?&"
        self._marker = parameter + b"="
        self._parameter = re.compile(
            re.escape(self._marker) + rb"[" + ends + rb"]*([^" + ends + rb"]+)"
        )
        self._apache = apache
        self._secrets = settings.session_cookie.secret if settings.session_cookie else ()
        self.forged = 0
        # A client sends the same cookies with each request.
        self._cookie_route = lru_cache(maxsize=REMEMBERED_COOKIES)(self._read_cookie)

    def session_route(self, target: bytes, cookie: bytes | None) -> bytes | None:
        """The route that the client asks for; None if it asks for none (S1 to S11).

        Of a session that is away it is the whole token, for ``read_away``.
        ``target`` is path and query, ``cookie`` the joined Cookie field. The URL wins, even
        when its value holds no route.
        """
        # Not with ``in``: for bytes that raises and catches an error inside (0.5 µs).
        if target.find(self._marker) >= 0:
            found = self._parameter.search(target)
            if found is not None:
                return self._counted(self._route(found[1]))
        if cookie is None:
            return None
        read = self._cookie_route if len(cookie) <= LONGEST_REMEMBERED else self._read_cookie
        route = read(cookie)
        return route or self._counted(route)

    @property
    def signed(self) -> bool:
        """Whether a route needs a signature."""
        return bool(self._secrets)

    def look(self, target: bytes, cookie: bytes | None) -> Sighting:
        """The same for people: what was read, and where. Nothing is counted."""
        found = self._parameter.search(target)
        value = found[1] if found is not None else self._value(cookie or b"")
        route = None if value is None else self._route(value)
        return Sighting(value, route or None, found is not None, route == _FORGED)

    def _counted(self, route: bytes | None) -> bytes | None:
        if route == _FORGED:
            self.forged += 1
            return None
        return route

    def _read_cookie(self, cookie: bytes) -> bytes | None:
        value = self._value(cookie)
        return None if value is None else self._route(value)

    def _value(self, cookie: bytes) -> bytes | None:
        """The session cookie's value."""
        if self._apache:
            return _apache_cookie(cookie, self._cookie_name) or None
        found = self._cookie.search(cookie)
        return None if found is None else found[1]

    def _route(self, value: bytes) -> bytes | None:
        """What follows the first separator (S8); None for no or an empty route (S9)."""
        if self._separator is not None:
            before, _, value = value.partition(self._separator)
            at = before.find(AWAY)
            if at >= 0 and value:
                value = before[at:] + self._separator + value
        return self._verified(value) if value and self._secrets else value or None

    def _verified(self, value: bytes) -> bytes:
        """The route in front of a valid signature by one of the secrets."""
        route, _, given = value.partition(_SIGNED)
        name = self._cookie_name.decode()
        valid = [
            hmac.compare_digest(signature(secret, name, route), given) for secret in self._secrets
        ]
        return route if any(valid) else _FORGED


def _apache_cookie(text: bytes, name: bytes) -> bytes:
    """The cookie's value the way mod_proxy_balancer looks for it, odd rows of S5 included."""
    start = text.find(name)
    while start >= 0:
        if start == 0 or text[start - 1] in b";, \t":
            start += len(name)
            while text[start : start + 1] in (b" ", b"\t"):
                start += 1
            if text[start : start + 1] == b"=" and len(text) > start + 1:
                return re.split(rb"[;,]", text[start + 1 :], maxsplit=1)[0]
            start += 1  # the character after a bare name is swallowed
        start = text.find(name, start + 1)
    return b""


def expires(when: float) -> str:
    """``Sun, 22-Nov-2026 14:15:57 GMT`` for seconds since the epoch (C3)."""
    day, date, month, year, clock, zone = formatdate(when, usegmt=True).split()
    return f"{day} {date}-{month}-{year} {clock} {zone}"


class SessionCookie:
    """Writes the session cookie for a route (C1 to C5); the text changes once a second."""

    __slots__ = (
        "_away_head",
        "_head",
        "_lifetime",
        "_lines",
        "_name",
        "_second",
        "_secret",
        "_tails",
    )

    def __init__(self, settings: SessionCookieSettings, name: str, separator: str) -> None:
        prefix = "" if separator == "off" else settings.prefix + separator
        self._head = f"Set-Cookie: {name}={prefix}".encode()
        self._away_head = f"Set-Cookie: {name}={settings.prefix}".encode()
        self._name = name
        self._secret = settings.secret[0] if settings.secret else None
        self._lifetime = settings.lifetime
        self._tails = (_tail(settings, tls=False), _tail(settings, tls=True))
        # The lines for requests that arrived in ``second``, by route, without and with TLS.
        self._second = -1
        self._lines: tuple[dict[bytes, bytes], dict[bytes, bytes]] = ({}, {})

    def line(self, route: bytes, second: int, *, tls: bool) -> bytes:
        """The whole header line for a request that arrived in ``second`` (since the epoch).

        ``route`` may be the token of a session that is away.
        """
        if second != self._second:
            self._second = second
            self._lines = ({}, {})
        line = self._lines[tls].get(route)
        if line is None:
            line = self._lines[tls][route] = self._build(route, second, tls=tls)
        return line

    def _build(self, route: bytes, second: int, *, tls: bool) -> bytes:
        head = self._away_head if route.startswith(AWAY) else self._head
        before, after = self._tails[tls]
        lifetime = ""
        if self._lifetime:
            lifetime = f"; expires={expires(second + self._lifetime)}"
        if self._secret is not None:
            route += _SIGNED + signature(self._secret, self._name, route)
        return head + route + f"{before}{lifetime}{after}\r\n".encode()


def _tail(settings: SessionCookieSettings, *, tls: bool) -> tuple[str, str]:
    """The attributes before and after ``expires``, in the order of C5."""
    before = f"; path={settings.path}"
    if settings.domain:
        before += f"; domain={settings.domain}"
    after = ""
    if tls if settings.secure is None else settings.secure:
        after += "; secure"
    if tls if settings.http_only is None else settings.http_only:
        after += "; HttpOnly"
    if settings.same_site is not None:
        after += f"; SameSite={SameSite(settings.same_site).value}"
    return before, after


class Rule(NamedTuple):
    """A rewrite rule: with a Cookie field like that, the cookie names this route."""

    # None: a field without the cookie's name
    pattern: re.Pattern[bytes] | None
    route: bytes

    def fires(self, text: bytes) -> bool:
        """Whether a Cookie field is like that."""
        return self.pattern is not None and self.pattern.search(text) is not None


class RewriteRules:
    """The article's rewrite rules: cookie assignment by the text of the Cookie field alone.

    Only for ``compat: apache``. The rules look at the request's cookie as text (C7), so a cookie
    that merely contains the name or begins with the value counts (C8), and they know nothing of
    the member that is chosen (C10). The first rule that fires wins (C6); the failover pairs come
    last, as in the article's include (C12).
    """

    __slots__ = ("_first", "_name", "_rules")

    def __init__(
        self,
        settings: BalancerSettings,
        cookie: SessionCookieSettings,
        heirs: Mapping[bytes, bytes],
    ) -> None:
        name = (settings.sticky_session or "").partition("|")[0].encode()
        self._name = name
        own = (cookie.own_route or "").encode()
        self._first = Rule(None, own)
        # The article writes the separator unescaped, so that it stands for any character.
        prefix = re.escape(cookie.prefix.encode()) + b"."
        start = re.escape(name) + b"=" + (b"" if settings.sticky_separator == "off" else prefix)
        routes = [(own, own)]
        if cookie.renew is Renew.ANY:
            others = (member.route for member in settings.members if member.route)
            routes += [(route.encode(), route.encode()) for route in others]
        routes += heirs.items()
        self._rules = [Rule(re.compile(start + re.escape(gone)), heir) for gone, heir in routes]

    def route(self, cookie: bytes | None) -> bytes | None:
        """The route that the response's cookie names; None if no rule fires."""
        rule = self.rule(cookie)
        return None if rule is None else rule.route

    def rule(self, cookie: bytes | None) -> Rule | None:
        """The rule that fires."""
        text = cookie or b""
        if self._name not in text:
            return self._first
        return next((each for each in self._rules if each.fires(text)), None)
