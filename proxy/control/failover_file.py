"""What a failover file says: whose sessions were taken over by whom.

A cluster manager rewrites it: as a YAML block ``{server2: server1}``, or as the include of an
Apache frontend, whose own rewrite rules then go on being of use. The content tells which. A file
counts as a whole or not at all; with one mistake in it nothing of it is in force.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from proxy.control.failover_rules import looks_like_rules, read_rules
from proxy.control.yaml_tree import Branch, Fault, read_yaml
from proxy.core.consistency import failover_circles, failover_routes
from proxy.core.errors import ProxyError
from proxy.core.raw import Raw, printable, shown
from proxy.core.settings import Balancer


class FailoverFile(NamedTuple):
    """What a file says; the notices are for the operator, and begin with their line."""

    map: dict[str, str]
    notices: tuple[str, ...] = ()


class FailoverFileError(ProxyError):
    """A failover file can't be used; each mistake begins with its line."""

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def read_failover(text: str, balancer: Balancer) -> FailoverFile:
    """The map in a failover file; an empty one from a text of nothing but comments.

    Together with the balancer's own ``failover`` it goes in no circle; for a route in both the file
    counts. Raises FailoverFileError with everything that is wrong.
    """
    found = _of_rules(text, balancer) if looks_like_rules(text) else _of_yaml(text)
    mistakes = [*found.mistakes, *_inconsistent(found, balancer)]
    if mistakes:
        raise FailoverFileError(tuple(f"{place}: {said}" for place, said in sorted(mistakes)))
    return FailoverFile(found.map, found.notices)


class _Place(NamedTuple):
    """Where something stands; in rules the line is enough."""

    line: int
    column: int = 0

    def __str__(self) -> str:
        column = f", column {self.column}" if self.column else ""
        return f"line {self.line}{column}"


_Mistake = tuple[_Place, str]


class _Found(NamedTuple):
    """What was read: the map, where its routes and their heirs stand, and what to say."""

    map: dict[str, str]
    gone: dict[str, _Place]
    heirs: dict[str, _Place]
    mistakes: list[_Mistake]
    notices: tuple[str, ...] = ()


# --- the two formats ---------------------------------------------------------------------------


def _of_rules(text: str, balancer: Balancer) -> _Found:
    rules = read_rules(text, balancer)
    notices = tuple(f"line {said.line}: {said.message}" for said in rules.notices)
    mistakes = [(_Place(said.line), said.message) for said in rules.mistakes]
    found = _Found({}, {}, {}, mistakes, notices)
    for entry in rules.entries:
        if entry.gone in found.map:
            first = found.gone[entry.gone].line
            said = f"found {shown(entry.gone)} for a second time; a route stands once in a file,"
            mistakes.append((_Place(entry.gone_line), f"{said} here in line {first}"))
            continue
        found.map[entry.gone] = entry.heir
        found.gone[entry.gone] = _Place(entry.gone_line)
        found.heirs[entry.gone] = _Place(entry.heir_line)
    return found


def _of_yaml(text: str) -> _Found:
    tree, faults = read_yaml(text)
    found = _Found({}, {}, {}, [_of_fault(fault) for fault in faults])
    if tree is None or tree.value is None:
        return found
    if not isinstance(tree.value, dict):
        said = f"found {shown(tree.value)}; allowed: a block of route: route, or rewrite rules"
        found.mistakes.append((_Place(*tree.at), said))
        return found
    at_fault = {fault.path for fault in faults}
    for gone, heir in tree.below.items():
        if (gone,) not in at_fault:
            _take_entry(str(gone), tree, heir, found)
    return found


def _of_fault(fault: Fault) -> _Mistake:
    key = "".join(f"{printable(str(step))}: " for step in fault.path[:1])
    return _Place(*fault.at), key + fault.message


def _take_entry(gone: str, tree: Branch, heir: Branch, found: _Found) -> None:
    if not isinstance(heir.value, str):
        quotes = "; in quotes it would be text" if isinstance(heir.value, int | float) else ""
        said = f"found {shown(heir.value)}; allowed: the route of a member, as text{quotes}"
        found.mistakes.append((_Place(*heir.at), said))
        return
    found.map[gone] = heir.value
    found.gone[gone], found.heirs[gone] = _Place(*tree.keys[gone]), _Place(*heir.at)


# --- what fits together ------------------------------------------------------------------------


def _inconsistent(found: _Found, balancer: Balancer) -> Iterator[_Mistake]:
    """Routes that no member has, and circles."""
    read, both = _tree(found.map, balancer), _tree(merged(balancer, found.map), balancer)
    for mistake in failover_routes(read, read):
        places = found.gone if mistake.on_key else found.heirs
        yield places[str(mistake.path[-1])], mistake.message
    circles = [*failover_circles(read, read)]
    for mistake in circles:
        yield found.heirs[str(mistake.path[-1])], mistake.message
    for mistake in [] if circles else failover_circles(both, both):
        gone = str(mistake.path[-1])
        # The configuration alone has no circle, so there is an entry of the file in this one.
        while gone not in found.map:
            gone = balancer.failover[gone]
        yield found.heirs[gone], f"{mistake.message}, with failover of the configuration"


def merged(balancer: Balancer, file: dict[str, str]) -> dict[str, str]:
    """The map in force: the file's, and the balancer's own ``failover`` for other routes."""
    return {**file, **{gone: heir for gone, heir in balancer.failover.items() if gone not in file}}


def _tree(failover: dict[str, str], balancer: Balancer) -> Raw:
    members: list[dict[str, Any]] = [{"route": member.route} for member in balancer.members]
    return Raw({"members": members, "failover": failover})
