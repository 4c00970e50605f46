"""Directives that set the session cookie, by rewrite rules or by a Header, as settings.

What is understood is what the idiom needs: conditions on the Cookie field, rules that change no
address and set one cookie. A first rule gives every client without the cookie this host's route, a
second one renews it, and further ones turn the cookies of a member that failed into those of the
one that took over. Any other rule is a mistake: serving without it would be something else. The
other idiom, of Apache's own manual, writes the elected member's route with a Header directive.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from proxy.apache.tree import Directive

# Patterns that fit every request.
ALL_PATHS = (
    ".*",
    "^",
    "^/",
    "(.*)",
    "^(.*)$",
    "^.*$",
    "^/.*",
    "^/(.*)",
    "^/(.*)$",
    "^/?(.*)",
    "^/?(.*)$",
)
_COOKIE_FIELD = ("%{HTTP_COOKIE}", "%{HTTP:COOKIE}")
_VALUE = re.compile(r"\(?([A-Za-z0-9_-]*)(?:\\?\.)([A-Za-z0-9_-][A-Za-z0-9_.\\-]*?)\)?")


class RuleError(Exception):
    """A rule that isn't understood; the directive, and why."""

    def __init__(self, directive: Directive, why: str) -> None:
        super().__init__(why)
        self.directive = directive


class Cookie(NamedTuple):
    """What a rule's CO flag says (C5)."""

    name: str
    prefix: str
    route: str
    domain: str
    minutes: int
    path: str
    secure: bool
    http_only: bool
    same_site: str | None


class Rule(NamedTuple):
    """One rule: for whom it is, and which cookie it sets."""

    # the route that a client's cookie has; None for clients without the cookie
    route: str | None
    cookie: Cookie
    directive: Directive


class Rules(NamedTuple):
    """What the rules of a site say of its session cookie."""

    settings: dict[str, Any]
    cookie: str
    own_route: str
    renewed: tuple[str, ...]
    # rules that turn one member's cookies into another's, and those rules' places
    failover: dict[str, str]
    failover_rules: tuple[Directive, ...]
    # all of them
    directives: tuple[Directive, ...]


def read_rules(directives: Sequence[Directive]) -> Rules | None:
    """The meaning of a site's RewriteCond and RewriteRule, in their order; None for no rules.

    Raises RuleError for the first one that isn't understood.
    """
    rules: list[Rule] = []
    conditions: list[Directive] = []
    for directive in directives:
        if directive.key == "rewritecond":
            conditions.append(directive)
        elif directive.key == "rewriterule":
            rules.append(_rule(directive, conditions))
            conditions = []
    if not rules:
        return None
    return _joined(rules)


def _joined(rules: Sequence[Rule]) -> Rules:
    first = next((rule for rule in rules if rule.route is None), None)
    if first is None:
        raise RuleError(rules[0].directive, "no rule gives a cookie to clients without one")
    cookie, own = first.cookie, first.cookie.route
    for rule in rules:
        if rule.cookie.name != cookie.name:
            raise RuleError(rule.directive, f"it sets a second cookie, beside {cookie.name}")
    renewed = tuple(
        rule.route for rule in rules if rule.route is not None and rule.route == rule.cookie.route
    )
    turned = [rule for rule in rules if rule.route not in (None, rule.cookie.route)]
    return Rules(
        settings=_settings(cookie),
        cookie=cookie.name,
        own_route=own,
        renewed=renewed,
        failover={str(rule.route): rule.cookie.route for rule in turned},
        failover_rules=tuple(rule.directive for rule in turned),
        directives=tuple(rule.directive for rule in rules),
    )


def _settings(cookie: Cookie) -> dict[str, Any]:
    found: dict[str, Any] = {"domain": cookie.domain, "prefix": cookie.prefix}
    found["lifetime"] = f"{cookie.minutes}m" if cookie.minutes > 0 else 0
    found |= {"assign": "own", "own_route": cookie.route}
    if cookie.path != "/":
        found["path"] = cookie.path
    if cookie.secure:
        found["secure"] = True
    if cookie.http_only:
        found["http_only"] = True
    if cookie.same_site is not None:
        found["same_site"] = cookie.same_site
    return found


# --- one rule ----------------------------------------------------------------------------------


def _rule(directive: Directive, conditions: Sequence[Directive]) -> Rule:
    arguments = directive.arguments
    if len(arguments) != 3:
        raise RuleError(directive, "it has no flags; only rules that set a cookie are understood")
    pattern, substitution, flags = arguments
    if pattern not in ALL_PATHS or substitution != "-":
        raise RuleError(directive, "only rules for all requests that change none are understood")
    cookie = _cookie(directive, flags)
    if len(conditions) != 1:
        count = len(conditions) or "no"
        raise RuleError(directive, f"it has {count} conditions; one on the cookie is understood")
    return Rule(_condition(conditions[0], cookie), cookie, directive)


def _condition(condition: Directive, cookie: Cookie) -> str | None:
    """The route that a client's cookie must have, or None if it must have no such cookie."""
    arguments = condition.arguments
    if not 2 <= len(arguments) <= 3 or arguments[0].upper() not in _COOKIE_FIELD:
        raise RuleError(condition, "only conditions on %{HTTP_COOKIE} are understood")
    if len(arguments) == 3 and arguments[2].upper() not in ("[NC]", "[NOCASE]"):
        raise RuleError(condition, f"the flags {arguments[2]} aren't understood, but NC is")
    pattern = arguments[1]
    if pattern in (f"!{cookie.name}", f"!{cookie.name}="):
        return None
    name, equals, value = pattern.partition("=")
    found = _VALUE.fullmatch(value)
    if name != cookie.name or not equals or found is None:
        raise RuleError(
            condition, f"found {pattern}; !{cookie.name} and {cookie.name}=(prefix.route) are known"
        )
    if found[1].lower() != cookie.prefix.lower():
        raise RuleError(condition, f"its prefix {found[1]} isn't that of the cookie it sets")
    return found[2].replace("\\", "")


def _cookie(directive: Directive, flags: str) -> Cookie:
    if not flags.startswith("[") or not flags.endswith("]"):
        raise RuleError(directive, f"found {flags}, where [flags] should be")
    fields: list[str] | None = None
    for flag in flags[1:-1].split(","):
        key, _, value = flag.partition("=")
        if key.lower() in ("co", "cookie"):
            fields = _fields(value)
        elif key.lower() not in ("l", "last", "ne", "noescape"):
            raise RuleError(directive, f"the flag {flag} isn't understood; CO and L are")
    if fields is None or len(fields) < 3:
        raise RuleError(directive, "its CO flag needs name, value and domain, or does nothing (C5)")
    name, value, domain, *rest = fields
    prefix, dot, route = value.partition(".")
    if not dot or "%" in "".join(fields) or "$" in "".join(fields):
        raise RuleError(directive, f"the value {value} is no prefix.route that stands fast")
    minutes, path, secure, http_only, same_site = (*rest, *[""] * 5)[:5]
    leading = re.match(r"-?[0-9]*", minutes)
    count = leading[0] if leading is not None else ""
    return Cookie(
        name=name,
        prefix=prefix,
        route=route,
        domain=domain,
        minutes=int(count) if count.strip("-") else 0,
        path=path or "/",
        secure=secure.lower() in ("true", "1", "secure"),
        http_only=http_only.lower() in ("true", "1", "httponly"),
        same_site=None if same_site.lower() in ("", "0", "false") else same_site.capitalize(),
    )


def _fields(value: str) -> list[str]:
    """The fields of a CO flag; empty ones are skipped, as Apache's tokenizer does."""
    separator = ";" if value.startswith(";") else ":"
    return [field for field in value.split(separator) if field]


# --- the other idiom ---------------------------------------------------------------------------

_ROUTE_COOKIE = re.compile(r"([A-Za-z0-9_-]+)=([A-Za-z0-9_-]*)\.%\{BALANCER_WORKER_ROUTE\}e")


def route_cookie(directive: Directive) -> tuple[str, dict[str, Any]] | None:
    """``Header add Set-Cookie "ROUTEID=.%{BALANCER_WORKER_ROUTE}e; path=/"``: name and settings.

    None for any other Header, and for attributes that aren't understood.
    """
    words = [each for each in directive.arguments if each.lower() != "always"]
    if len(words) not in (3, 4) or words[0].lower() not in ("add", "set", "append"):
        return None
    if words[1].lower() != "set-cookie" or words[3:] not in ([], ["env=BALANCER_ROUTE_CHANGED"]):
        return None
    value, *attributes = [part.strip() for part in words[2].split(";")]
    found = _ROUTE_COOKIE.fullmatch(value)
    if found is None:
        return None
    settings: dict[str, Any] = {"prefix": found[2], "lifetime": 0}
    for attribute in attributes:
        key, _, said = attribute.partition("=")
        if key.lower() in ("path", "domain", "samesite"):
            settings[{"samesite": "same_site"}.get(key.lower(), key.lower())] = said
        elif key.lower() in ("secure", "httponly"):
            settings[{"httponly": "http_only"}.get(key.lower(), key.lower())] = True
        elif attribute:
            return None
    if settings.get("path") == "/":
        del settings["path"]
    return found[1], settings
