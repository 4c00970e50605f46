"""Mistakes that only show between several settings: a route twice, a failover in a circle.

They are looked for in the raw tree, so that they stand in one list with the mistakes of single
values. The rule for all of it: never raise, and say nothing about what another check reports;
where a wrong type or an unknown key hides the facts, there is no verdict. Each finder takes the
tree's root, a frontend or a balancer, and yields what it found.
"""

from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address
from typing import Any

from proxy.core import consistency_members
from proxy.core.errors import Mistake
from proxy.core.raw import Raw, among, listed, near, printable, shown
from proxy.core.served import (
    ACTIVESYNC,
    HOUR,
    certificates,
    could_serve,
    mappings_to,
    served_names,
    takes_activesync,
)
from proxy.core.settings import Balancer, Frontend, Member, Model, SessionCookie, Settings
from proxy.core.values import listen_host_port

Finder = Callable[[Raw, Raw], Iterator[Mistake]]


def consistency_mistakes(tree: Any) -> list[Mistake]:
    """Everything that is wrong between the settings of a raw tree."""
    root = Raw(tree)
    found = [*_same_address(root), *_alone(root), *consistency_members.hook_mistakes(root)]
    for frontend in root.at("frontends").entries():
        for find in _OF_A_FRONTEND:
            found += find(root, frontend)
    for balancer in root.at("balancers").named().values():
        for find in _OF_A_BALANCER:
            found += find(root, balancer)
    return found


def _repeated(values: Iterable[tuple[str | None, Raw]]) -> Iterator[Raw]:
    """Each value whose key came before; one without a key never counts."""
    keys: set[str] = set()
    for key, value in values:
        if key in keys:
            yield value
        elif key is not None:
            keys.add(key)


def _misspelt(block: Raw, key: str, model: type[Model]) -> bool:
    """Whether an unknown key of a block could be this one: told elsewhere, and no fact is sure."""
    return any(near(name, [key]) for name in block.named().keys() - model.model_fields.keys())


# --- frontends ---------------------------------------------------------------------------------


def _same_address(root: Raw) -> Iterator[Mistake]:
    listens = [frontend.at("listen") for frontend in root.at("frontends").entries()]
    for listen in _repeated((_address(listen.text), listen) for listen in listens):
        yield listen.mistake(
            f"found {shown(listen.value)} for a second time; one frontend an address"
        )


def _alone(root: Raw) -> Iterator[Mistake]:
    """Settings of processes that mean nothing without another one."""
    if root.at("group").given and not (root.at("user").given or _misspelt(root, "user", Settings)):
        yield root.at("group").mistake("found without user; it is the group of that user's workers")
    leave = root.at("leave_before_stop")
    told = root.at("health_path").given or _misspelt(root, "health_path", Settings)
    if leave.text not in (None, "0", "0s") and not told:
        yield leave.mistake(
            f"found {shown(leave.text)} without health_path; nobody is told that we leave"
        )


def _address(listen: str | None) -> str | None:
    """An address in the one spelling by which two can be compared."""
    try:
        host, port = listen_host_port(listen or "")
    except ValueError:
        return None
    return f"{host if host == 'localhost' else ip_address(host)} {port}"


def _redirect(root: Raw, frontend: Raw) -> Iterator[Mistake]:
    """redirect_to_https is for a plain frontend that does nothing else."""
    redirect = frontend.at("redirect_to_https")
    mapped = frontend.at("mappings").entries()
    if redirect.value is not True:
        misspelt = _misspelt(frontend, "mappings", Frontend)
        if isinstance(frontend.value, dict) and not frontend.at("mappings").value and not misspelt:
            yield frontend.mistake(
                "found neither mappings nor redirect_to_https: true; a frontend has one of them"
            )
        return
    if frontend.at("tls").given:
        yield redirect.mistake("found true beside tls; only a frontend without tls can redirect")
    elif not any(
        other.at("tls").given or _misspelt(other, "tls", Frontend)
        for other in root.at("frontends").entries()
    ):
        yield redirect.mistake("found true, but no frontend has tls: nothing to redirect to")
    if mapped:
        yield redirect.mistake("found true beside mappings; a frontend that redirects maps nothing")


def _mapped_balancers(root: Raw, frontend: Raw) -> Iterator[Mistake]:
    """A mapping names a balancer that is there."""
    balancers = root.at("balancers")
    if not isinstance(balancers.value, dict):
        return
    names = list(balancers.named())
    for mapping in frontend.at("mappings").entries():
        balancer = mapping.at("balancer")
        if balancer.text is not None and balancer.text not in names:
            yield balancer.mistake(
                f"found {shown(balancer.text)}, which is no balancer{among(balancer.text, names)}"
            )


def _same_mapping(_: Raw, frontend: Raw) -> Iterator[Mistake]:
    mappings = frontend.at("mappings").entries()
    for mapping in _repeated((_request(mapping), mapping) for mapping in mappings):
        path = mapping.at("path")
        yield path.mistake(
            f"found {shown(path.value)} for a second time; one mapping for each host and path"
        )


def _request(mapping: Raw) -> str | None:
    path, host = mapping.at("path").text, mapping.at("host")
    if path is None or (host.given and host.text is None):
        return None
    return f"{(host.text or '').lower()} {path}"


def _certificate_names(_: Raw, frontend: Raw) -> Iterator[Mistake]:
    """A name has one certificate, and only the first one of a list may do without names."""
    entries = certificates(frontend)
    names = [name for entry in entries for name in entry.at("names").entries()]
    lowered = ((name.text.lower() if name.text else None, name) for name in names)
    for name in _repeated(lowered):
        yield name.mistake(
            f"found {shown(name.value)} for a second time; a name has one certificate"
        )
    for entry in entries[1:]:
        if isinstance(entry.value, dict) and not entry.at("names").value:
            yield entry.mistake(
                "found no names; only the first of several certificates can do without,"
                " this one would never be chosen"
            )


# --- balancers ---------------------------------------------------------------------------------


def _routes(balancer: Raw) -> list[str] | None:
    """The routes of a balancer's members; None if they can't be known for sure."""
    members = balancer.at("members").entries()
    routes = [member.at("route") for member in members]
    if not all(isinstance(member.value, dict) for member in members) or not members:
        return None
    if any(route.given and route.text is None for route in routes):
        return None
    if any(_misspelt(member, "route", Member) for member in members):
        return None
    return [route.text for route in routes if route.text is not None]


def _unknown(route: str, routes: list[str]) -> str:
    return f"found {shown(route)}, a route that no member has{among(route, routes)}"


def _same_member(_: Raw, balancer: Raw) -> Iterator[Mistake]:
    """Neither a route nor a URL stands twice in a balancer."""
    members = balancer.at("members").entries()
    routes = [member.at("route") for member in members]
    for route in _repeated((route.text, route) for route in routes):
        yield route.mistake(
            f"found {shown(route.value)} for a second time;"
            " a route belongs to one member of a balancer"
        )
    urls = [member.at("url") for member in members]
    for url in _repeated((_plain_url(url.text), url) for url in urls):
        yield url.mistake(
            f"found {shown(url.value)} for a second time; a member stands once in a balancer"
        )


def _plain_url(url: str | None) -> str | None:
    """A URL in the one spelling by which two can be compared."""
    scheme, mark, rest = (url or "").partition("://")
    host, slash, path = rest.partition("/")
    if not mark:
        return None
    return f"{scheme.lower()}://{host.lower().removesuffix(':80')}{slash}{path}".removesuffix("/")


def _roles(_: Raw, balancer: Raw) -> Iterator[Mistake]:
    """A member is a spare or a standby, and its redirect route is another member's."""
    routes = _routes(balancer)
    for member in balancer.at("members").entries():
        spare = member.at("hot_spare")
        if spare.value is True and member.at("hot_standby").value is True:
            yield spare.mistake("found true beside hot_standby: true; a member is one of them")
        redirect = member.at("redirect_route")
        if redirect.text is None or routes is None:
            continue
        if redirect.text == member.at("route").text:
            yield redirect.mistake(f"found {shown(redirect.text)}, the member's own route")
        elif redirect.text not in routes:
            yield redirect.mistake(_unknown(redirect.text, routes))


def failover_routes(_: Raw, balancer: Raw) -> Iterator[Mistake]:
    """Whoever is gone and whoever took over is a member."""
    routes = _routes(balancer)
    if routes is None:
        return
    known = set(routes)
    for gone, heir in balancer.at("failover").named().items():
        if gone not in known:
            yield heir.mistake(_unknown(gone, routes), on_key=True)
        if heir.text is not None and heir.text not in known:
            yield heir.mistake(_unknown(heir.text, routes))


def failover_circles(_: Raw, balancer: Raw) -> Iterator[Mistake]:
    """Each circle is told once; a chain that ends is none."""
    failover = {gone: heir.text for gone, heir in balancer.at("failover").named().items()}
    walked: set[str] = set()
    for start in failover:
        trail: dict[str, None] = {}
        route: str | None = start
        while route in failover and route not in walked:
            walked.add(route)
            trail[route] = None
            route = failover[route]
        if route in trail:
            names = [*trail]
            circle = [*names[names.index(route) :], route]
            yield balancer.at("failover", route).mistake(
                f"found a circle: {' -> '.join(printable(name) for name in circle)}"
            )


def _session_cookie(_: Raw, balancer: Raw) -> Iterator[Mistake]:
    """A session cookie is of use if routes are written to it and read back from it."""
    cookie = balancer.at("session_cookie")
    if not isinstance(cookie.value, dict):
        return
    if not balancer.at("sticky_session").given and not _misspelt(
        balancer, "sticky_session", Balancer
    ):
        yield cookie.mistake(
            "found without sticky_session, which names the cookie and reads it back", on_key=True
        )
    if _routes(balancer) == []:
        yield cookie.mistake(
            "found where no member has a route; it would carry nothing", on_key=True
        )
    yield from _separator(balancer)


def _separator(balancer: Raw) -> Iterator[Mistake]:
    """The route is what follows the first separator (S8), so the prefix must hold none."""
    separator, prefix = balancer.at("sticky_separator"), balancer.at("session_cookie", "prefix")
    if separator.value in (False, "off"):
        if prefix.text:
            yield prefix.mistake("found with sticky_separator: off, where all of it is the route")
        return
    before = prefix.value if prefix.given else SessionCookie.model_fields["prefix"].default
    if separator.text and isinstance(before, str) and separator.text in before:
        yield separator.mistake(
            f"found {shown(separator.text)}, which stands in the cookie's prefix"
            f" {shown(before)} too; the route would be read back wrong"
        )


def _own_route(_: Raw, balancer: Raw) -> Iterator[Mistake]:
    """assign: own needs an own_route that a member has; without it the rest has no effect."""
    cookie = balancer.at("session_cookie")
    own, assign = cookie.at("own_route"), cookie.at("assign")
    if any(_misspelt(cookie, key, SessionCookie) for key in ("own_route", "assign")):
        return
    if assign.value != "own":
        if assign.value in (None, "elected"):
            yield from _without_effect(cookie)
        return
    if not own.given:
        yield assign.mistake(
            "found own without own_route; it takes the route of this host's member"
        )
        return
    routes = _routes(balancer)
    if routes is not None and own.text is not None and own.text not in routes:
        yield own.mistake(_unknown(own.text, routes))


def _without_effect(cookie: Raw) -> Iterator[Mistake]:
    for key in ("own_route", "first_request"):
        if cookie.at(key).given:
            yield cookie.at(key).mistake("found without assign: own, so it has no effect")
    if cookie.at("renew").value == "own":
        yield cookie.at("renew").mistake("found own without assign: own; it would renew nothing")


def _secret(root: Raw, balancer: Raw) -> Iterator[Mistake]:
    """Apache's rewrite rules know nothing of signatures, and would assign routes without."""
    secret = balancer.at("session_cookie", "secret")
    if secret.value and root.at("compat").value == "apache":
        yield secret.mistake("found beside compat: apache; Apache's cookies have no signature")


# --- balancers and the frontends that lead to them ---------------------------------------------


def _cookie_domain(root: Raw, balancer: Raw) -> Iterator[Mistake]:
    """A browser drops a cookie whose domain isn't that of the request (RFC 6265 section 5.3)."""
    domain = balancer.at("session_cookie", "domain")
    names = served_names(root, str(balancer.path[-1]))
    if domain.text is None or not names:
        return
    if not any(could_serve(name, domain.text) for name in names):
        yield domain.mistake(
            f"found {shown(domain.text)}, which fits none of the served names;"
            f" browsers would drop the cookie. Served: {listed(names)}"
        )


def _same_site(root: Raw, balancer: Raw) -> Iterator[Mistake]:
    """Browsers drop SameSite=None without Secure (RFC 6265bis section 5.7)."""
    cookie = balancer.at("session_cookie")
    same_site, secure = cookie.at("same_site"), cookie.at("secure")
    if same_site.value != "None" or secure.value is True:
        return
    if secure.value is False:
        yield same_site.mistake("found None with secure: false; browsers would drop the cookie")
    elif any(
        not frontend.at("tls").given for frontend, _ in mappings_to(root, str(balancer.path[-1]))
    ):
        yield same_site.mistake(
            "found None, but a frontend without tls leads here and would not set Secure;"
            " allowed with secure: true"
        )


def _activesync(root: Raw, balancer: Raw) -> Iterator[Mistake]:
    """No timeout below an hour where a Ping may wait for 59 minutes (D33).

    A mapping's response_timeout counts instead of the members' timeouts, so it is looked at
    alone, and the members' only if a mapping without one leads there.
    """
    by_mapping = False
    for frontend, mapping in mappings_to(root, str(balancer.path[-1])):
        if not takes_activesync(frontend, mapping):
            continue
        timeout = mapping.at("response_timeout")
        by_mapping |= not timeout.given
        yield from _below_an_hour(timeout)
    if by_mapping:
        for place in (balancer, *balancer.at("members").entries()):
            yield from _below_an_hour(place.at("timeouts", "activesync"))


def _below_an_hour(timeout: Raw) -> Iterator[Mistake]:
    if timeout.seconds is not None and timeout.seconds < HOUR:
        yield timeout.mistake(
            f"found {shown(timeout.value)}, but {ACTIVESYNC} is mapped here, where a request"
            " may wait for 59 minutes; at least 1h"
        )


_OF_A_FRONTEND: tuple[Finder, ...] = (
    _redirect,
    _mapped_balancers,
    _same_mapping,
    _certificate_names,
)
_OF_A_BALANCER: tuple[Finder, ...] = (
    _same_member,
    _roles,
    failover_routes,
    failover_circles,
    _session_cookie,
    _own_route,
    _secret,
    _cookie_domain,
    _same_site,
    _activesync,
    *consistency_members.OF_A_BALANCER,
)
