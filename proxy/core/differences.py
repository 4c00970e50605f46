"""What changes when other settings come into force, in the operator's words, and who is moved.

Things are told by what makes them the same to the operator: a frontend by its address, a
certificate by its names, a mapping by host and path, a member by url and route. What isn't the
same any more was removed, and something else added. The order is that of the settings.

Whoever is moved, or cut off, is told by member: (name of the balancer, route). A session that a
change moves may be moved by another one as well; what is told is each change's own doing. Nobody
is moved by drain. What files contain is none of our business.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from proxy.core.balancer import Balancer as RunningBalancer
from proxy.core.mapping import Mapping as RunningMapping
from proxy.core.mapping import MappingTable
from proxy.core.sessions import MemberName
from proxy.core.settings import (
    Balancer,
    Frontend,
    Member,
    Model,
    OperatorStatus,
    Settings,
    Tls,
)
from proxy.core.settings import SessionCookie as SessionCookieSettings
from proxy.core.sticky import SessionCookie, StickySession
from proxy.core.written import is_secret, kinds, written

Moves = tuple[MemberName, ...]
NOBODY: Mapping[str, Moves] = {}

# What is decided once, when the supervisor starts.
NEEDS_RESTART = ("user", "group", "pid_file", "state_folder")
# By these a session's cookie leads to its member; the prefix in front of the route is passed over.
_READS_COOKIES = ("sticky_session", "sticky_separator", "session_cookie", "session_cookie.secret")
_TAKES_NOTHING = (OperatorStatus.DISABLED, OperatorStatus.STOPPED)


class Difference(NamedTuple):
    """One change: where, what, and whose live sessions it moves or cuts off."""

    path: str
    """``workers``, ``frontends 0.0.0.0:443``, ``balancers.cluster.members server2``."""
    text: str
    """``1 -> 2``, ``timeouts.head 20s -> 30s``, ``server2 (http://server2.zarafa.com) removed``."""
    moves: Moves = ()
    restart: bool = False
    """Whether a reload leaves the setting as it is."""


def differences(old: Settings, new: Settings) -> list[Difference]:
    """All that changes from ``old`` to ``new``; empty if nothing that means anything does."""
    found: list[Difference] = []
    for name in Settings.model_fields:
        if name == "frontends":
            found += _frontends(old, new)
        elif name == "balancers":
            found += _balancers(old.balancers, new.balancers)
        else:
            for key, text in _changes(old, new, name):
                found.append(Difference(key, text, restart=name in NEEDS_RESTART))
    return found


def in_words(found: Iterable[Difference], sessions: Mapping[MemberName, int]) -> list[str]:
    """A line for each difference, with how many of the live ``sessions`` it moves."""
    return [_line(difference, sessions) for difference in found] or ["nothing changes"]


def _line(difference: Difference, sessions: Mapping[MemberName, int]) -> str:
    line = f"{difference.path}: {difference.text}"
    if difference.restart:
        line += "; takes a restart, a reload leaves it as it is"
    if difference.moves:
        count = sum(sessions.get(member, 0) for member in dict.fromkeys(difference.moves))
        line += f"; moves {count or 'no'} live session{'' if count == 1 else 's'}"
    return line


# --- any settings ------------------------------------------------------------------------------


def _changes(old: Model, new: Model, name: str) -> Iterator[tuple[str, str]]:
    """What changed of one setting: its key, with dots inside of a block, and from what to what."""
    before, after = getattr(old, name), getattr(new, name)
    kind = kinds(type(old))[name]
    if before == after:
        return
    if isinstance(before, Model) and isinstance(after, Model):
        for inside in type(before).model_fields:
            for key, text in _changes(before, after, inside):
                yield f"{name}.{key}", text
    elif is_secret(kind):
        yield name, "changed"
    else:
        yield name, f"{written(before, kind)} -> {written(after, kind)}"


def _setting(
    place: str, old: Model, new: Model, name: str, whose: Mapping[str, Moves] = NOBODY
) -> Iterator[Difference]:
    """What changed of one setting of the thing at ``place``; ``whose`` sessions that moves."""
    for key, text in _changes(old, new, name):
        yield Difference(place, f"{key} {text}", whose.get(key, ()))


def _settings(
    place: str, old: Model, new: Model, whose: Mapping[str, Moves] = NOBODY
) -> Iterator[Difference]:
    """The same for all settings."""
    for name in type(old).model_fields:
        yield from _setting(place, old, new, name, whose)


Key = TypeVar("Key", bound=Hashable)
Thing = TypeVar("Thing")


def _pairs(
    old: Mapping[Key, Thing], new: Mapping[Key, Thing]
) -> Iterator[tuple[Key, Thing | None, Thing | None]]:
    """Each thing before and after: those that are gone, then the others in their new order."""
    for key in old:
        if key not in new:
            yield key, old[key], None
    for key in new:
        yield key, old.get(key), new[key]


def _reordered(place: str, old: Iterable[Key], new: Iterable[Key]) -> Iterator[Difference]:
    """Whether those that stayed stand in another order."""
    before, after = list(old), list(new)
    if [key for key in before if key in after] != [key for key in after if key in before]:
        yield Difference(place, "order changed")


# --- frontends ---------------------------------------------------------------------------------


def _frontends(old: Settings, new: Settings) -> Iterator[Difference]:
    before, after = ({_address(f): f for f in each.frontends} for each in (old, new))
    served = {mapping.balancer for frontend in new.frontends for mapping in frontend.mappings}
    for key, former, frontend in _pairs(before, after):
        if former is None:
            yield Difference("frontends", f"{key} added")
        elif frontend is None:
            cut_off = {mapping.balancer for mapping in former.mappings} - served
            moves = [_members_of(name, old.balancers[name]) for name in sorted(cut_off)]
            yield Difference("frontends", f"{key} removed", sum(moves, ()))
        else:
            yield from _frontend(old, new, former, frontend)
    yield from _reordered("frontends", before, after)


def _address(frontend: Frontend) -> str:
    """What makes a frontend the same: clients that speak TLS can't go on without."""
    return f"{frontend.listen} {'with' if frontend.certificates else 'without'} tls"


def _frontend(
    old: Settings, new: Settings, before: Frontend, after: Frontend
) -> Iterator[Difference]:
    place = f"frontends {before.listen}"
    for name in Frontend.model_fields:
        if name == "tls":
            yield from _certificates(f"{place} tls", before.certificates, after.certificates)
        elif name == "mappings":
            yield from _mappings(f"{place} mappings", old, new, (before, after))
        else:
            yield from _setting(place, before, after, name)


def _certificates(place: str, old: tuple[Tls, ...], new: tuple[Tls, ...]) -> Iterator[Difference]:
    before, after = ({_names(tls): tls for tls in each} for each in (old, new))
    for names, former, tls in _pairs(before, after):
        if former is not None and tls is not None:
            yield from _settings(f"{place} {names}", former, tls)
        elif former is not None:
            yield Difference(place, f"{former.certificate} for {names} removed")
        elif tls is not None:
            yield Difference(place, f"{tls.certificate} for {names} added")
    if [*before][:1] != [*after][:1] and before.keys() & after.keys():
        first, then = old[0].certificate, new[0].certificate
        yield Difference(place, f"{then} for all other names, before {first}")
    else:
        yield from _reordered(place, before, after)


def _names(tls: Tls) -> str:
    return ", ".join(tls.names) or "all names"


def _mappings(
    place: str, old: Settings, new: Settings, frontends: tuple[Frontend, Frontend]
) -> Iterator[Difference]:
    if frontends[0].mappings == frontends[1].mappings:
        return
    before, after = ({(m.host, m.path): m for m in each.mappings} for each in frontends)
    tables = _table(old, frontends[0]), _table(new, frontends[1])
    for (host, path), former, mapping in _pairs(before, after):
        name = f"{host or ''}{path}"
        moves = _led_elsewhere(host, path, *tables)
        if former is not None and mapping is not None:
            yield from _settings(f"{place} {name}", former, mapping, {"balancer": moves})
        elif former is not None:
            yield Difference(place, f"{name} to {former.balancer} removed", moves)
        elif mapping is not None:
            yield Difference(place, f"{name} to {mapping.balancer} added", moves)
    yield from _reordered(place, before, after)


def _table(settings: Settings, frontend: Frontend) -> MappingTable:
    names = {mapping.balancer for mapping in frontend.mappings}
    balancers = {name: RunningBalancer(name, settings.balancers[name]) for name in names}
    return MappingTable([RunningMapping(m, balancers[m.balancer]) for m in frontend.mappings])


def _led_elsewhere(host: str | None, path: str, old: MappingTable, new: MappingTable) -> Moves:
    """Whose sessions' requests for ``host`` and ``path`` another balancer gets now, or none."""
    # Hardly a host that has a mapping of its own begins with this label.
    name = host.replace("*", "__any__").encode() if host else None
    before, after = (table.find(name, path.encode()) for table in (old, new))
    if before is None or (after is not None and after.balancer.name == before.balancer.name):
        return ()
    return _members_of(before.balancer.name, before.balancer.settings)


# --- balancers ---------------------------------------------------------------------------------


def _members_of(name: str, balancer: Balancer) -> Moves:
    """The members of a balancer on which sessions can be."""
    return tuple((name, member.route) for member in balancer.members if member.route)


def _balancers(old: Mapping[str, Balancer], new: Mapping[str, Balancer]) -> Iterator[Difference]:
    for name, former, balancer in _pairs(old, new):
        if former is None:
            yield Difference("balancers", f"{name} added")
        elif balancer is None:
            yield Difference("balancers", f"{name} removed", _members_of(name, former))
        else:
            yield from _balancer(name, former, balancer)


def _balancer(name: str, old: Balancer, new: Balancer) -> Iterator[Difference]:
    place = f"balancers.{name}"
    whose = dict.fromkeys(_READS_COOKIES, _lost_cookies(name, old, new))
    for field in Balancer.model_fields:
        if field == "members":
            yield from _members(name, old.members, new.members)
        elif field == "failover":
            yield from _failover(name, old.failover, new.failover)
        else:
            yield from _setting(place, old, new, field, whose)


def _lost_cookies(name: str, old: Balancer, new: Balancer) -> Moves:
    """Those whose sessions' cookies lead nowhere any more: written as before, they are read now."""
    cookie_name = (old.sticky_session or "").partition("|")[0]
    if not cookie_name:
        return ()
    # Members that set their own cookie may write it as we would, but for a signature.
    settings = old.session_cookie or SessionCookieSettings()
    cookie = SessionCookie(settings, cookie_name, old.sticky_separator)
    sticky = StickySession(new) if new.sticky_session else None
    lost = []
    for _, route in _members_of(name, old):
        line = cookie.line(route.encode(), 0, tls=False)
        sent = line.removeprefix(b"Set-Cookie: ").partition(b";")[0]
        if sticky is None or sticky.session_route(b"/", sent) != route.encode():
            lost.append((name, route))
    return tuple(lost)


def _members(
    balancer: str, old: tuple[Member, ...], new: tuple[Member, ...]
) -> Iterator[Difference]:
    place = f"balancers.{balancer}.members"
    before, after = ({m.key: m for m in each} for each in (old, new))
    for (url, route), former, member in _pairs(before, after):
        name = f"{route} ({url})" if route else url
        whose = ((balancer, route),) if route else ()
        if former is None:
            yield Difference(place, f"{name} added")
        elif member is None:
            yield Difference(place, f"{name} removed", whose)
        else:
            stops = member.status in _TAKES_NOTHING and former.status not in _TAKES_NOTHING
            by_status = {"status": whose} if stops else NOBODY
            yield from _settings(f"{place} {route or url}", former, member, by_status)
    yield from _reordered(place, before, after)


def _failover(
    balancer: str, old: Mapping[str, str], new: Mapping[str, str]
) -> Iterator[Difference]:
    place = f"balancers.{balancer}.failover"
    for gone, former, heir in _pairs(old, new):
        if former is None:
            yield Difference(place, f"{gone}: {heir} added", ((balancer, gone),))
        elif heir is None:
            yield Difference(place, f"{gone}: {former} removed")
        elif heir != former:
            # Its sessions have cookies of the former heir by now, and stay with it.
            yield Difference(place, f"{gone}: {former} -> {heir}")
