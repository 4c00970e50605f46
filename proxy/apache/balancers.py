"""Balancers and members: Proxy sections, BalancerMember, ProxySet, and parameters of ProxyPass."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from proxy.apache.draft import Draft, merge
from proxy.apache.parameters import BALANCER, CHECK, MEMBER, Parameter, Unsupported, split
from proxy.apache.tree import Directive, Section

_BALANCER = re.compile(r"balancer://([^/]+)(/.*)?", re.IGNORECASE)

Origin = Directive | Section


def balancer_name(url: str) -> str | None:
    """The name in ``balancer://name/path``, in lower case (D6); None for another URL."""
    found = _BALANCER.fullmatch(url)
    return found[1].lower() if found is not None else None


class Balancers:
    """All balancers there are, as blocks of settings."""

    def __init__(self, draft: Draft, server: Iterable[Directive]) -> None:
        """``server`` are the main server's directives, with templates of health checks."""
        self._draft = draft
        self.blocks: dict[str, dict[str, Any]] = {}
        self._templates: dict[str, Sequence[str]] = {
            each.arguments[0].lower(): each.arguments[1:]
            for each in server
            if each.key == "proxyhctemplate" and each.arguments
        }
        # what a mapping needs to know of its members
        self.upgrades: dict[str, str] = {}

    def block(self, name: str, origin: Origin) -> dict[str, Any]:
        """The balancer of a name, made if it isn't there."""
        if name not in self.blocks:
            self.blocks[name] = {"members": []}
        if isinstance(origin, Section):
            self._draft.comes_from(self.blocks[name], origin)
        return self.blocks[name]

    # --- where they are said -----------------------------------------------------------------

    def take_section(self, section: Section) -> None:
        """``<Proxy balancer://name ...>``."""
        name = balancer_name(section.arguments[0]) if section.arguments else None
        if name is None:
            if any(not _grants(each) for each in section.directives()):
                self._draft.mistake(section, "only sections of balancers are understood")
            return
        self.block(name, section)
        for directive in section.directives():
            if directive.key == "balancermember":
                self.take_member(directive, name)
            elif directive.key == "proxyset":
                self.take_set(directive, name)
            elif not _grants(directive):
                self._draft.mistake(directive, f"it isn't understood in <{section.name}>")
        for inner in section.sections():
            self._draft.mistake(inner, f"it isn't understood in <{section.name}>")
        self.take_parameters(section, name, section.arguments[1:])

    def take_member(self, directive: Directive, name: str | None = None) -> None:
        """``BalancerMember [balancer://name] url key=value ...``."""
        arguments = list(directive.arguments)
        if name is None:
            name = balancer_name(arguments.pop(0)) if arguments else None
        if name is None or not arguments:
            self._draft.mistake(directive, "it needs a balancer and the member's URL")
            return
        member = self.member(name, arguments[0], directive)
        self._take_member_parameters(directive, member, arguments[1:], name)

    def take_set(self, directive: Directive, name: str | None = None) -> None:
        """``ProxySet [balancer://name | url] key=value ...``."""
        arguments = list(directive.arguments)
        if arguments and split(arguments[0]) is None:
            url = arguments.pop(0)
            name = balancer_name(url)
            if name is None:
                self._set_member(directive, url, arguments)
                return
        if name is None:
            self._draft.mistake(directive, "it needs the name of a balancer, outside of <Proxy>")
        elif name not in self.blocks:
            self._draft.mistake(directive, f"there is no balancer {name}")
        else:
            self.take_parameters(directive, name, arguments)

    def _set_member(self, directive: Directive, url: str, arguments: Sequence[str]) -> None:
        for name, block in self.blocks.items():
            for member in block["members"]:
                if member["url"].rstrip("/") == url.rstrip("/"):
                    self._take_member_parameters(directive, member, arguments, name)
                    return
        self._draft.mistake(directive, f"there is no member {url}")

    def member(self, name: str, url: str, origin: Origin) -> dict[str, Any]:
        """A member of a balancer, added if it isn't there."""
        members: list[dict[str, Any]] = self.block(name, origin)["members"]
        for known in members:
            if known["url"].rstrip("/") == url.rstrip("/"):
                return known
        member: dict[str, Any] = {"url": url.rstrip("/") if url.count("/") == 3 else url}
        members.append(member)
        self._draft.comes_from(member, origin)
        return member

    # --- parameters ----------------------------------------------------------------------------

    def take_parameters(self, origin: Origin, name: str, arguments: Sequence[str]) -> None:
        """What is said of a balancer; what is a member's counts for all of its members."""
        block = self.blocks[name]
        for argument in arguments:
            pair = split(argument)
            if pair is None:
                self._draft.mistake(origin, f"found {argument}, which is no key=value")
            elif pair[0] in BALANCER:
                self._take(origin, BALANCER[pair[0]], pair, block)
            elif pair[0] in MEMBER or pair[0] in CHECK:
                for member in block["members"]:
                    self._take_member_parameters(origin, member, [argument], name)
            else:
                self._draft.mistake(origin, f"unknown parameter {pair[0]}")

    def _take_member_parameters(
        self, origin: Origin, member: dict[str, Any], arguments: Sequence[str], name: str
    ) -> None:
        check: dict[str, Any] = {}
        for argument in self._with_templates(origin, arguments):
            pair = split(argument)
            if pair is None:
                self._draft.mistake(origin, f"found {argument}, which is no key=value")
            elif pair[0] in CHECK:
                self._take(origin, CHECK[pair[0]], pair, check)
            elif pair[0] in MEMBER:
                self._take(origin, MEMBER[pair[0]], pair, member)
            else:
                self._draft.mistake(origin, f"unknown parameter {pair[0]}")
        if "upgrade" in member:
            self.upgrades[name] = member.pop("upgrade")
        if "type" in check:
            # Apache counts one result unless told otherwise (H1).
            member["health_checks"] = [_of_type({"passes": 1, "fails": 1, **check})]

    def _with_templates(self, origin: Origin, arguments: Sequence[str]) -> Iterable[str]:
        for argument in arguments:
            pair = split(argument)
            if pair is None or pair[0] != "hctemplate":
                yield argument
            elif pair[1].lower() in self._templates:
                yield from self._templates[pair[1].lower()]
            else:
                self._draft.mistake(origin, f"there is no ProxyHCTemplate {pair[1]}")

    def _take(
        self, origin: Origin, parameter: Parameter, pair: tuple[str, str], into: dict[str, Any]
    ) -> None:
        try:
            found = parameter(pair[1])
        except ValueError as error:
            self._draft.mistake(origin, f"{pair[0]}: {error}")
            return
        if isinstance(found, Unsupported):
            self._draft.notice(origin, f"{pair[0]} has no effect: {found.text}")
        else:
            merge(into, found)


def grants_all(directive: Directive) -> bool:
    """Whether it is ``Require all granted``: everybody is let in, as is so here anyway."""
    words = [word.lower() for word in directive.arguments]
    return directive.key == "require" and words == ["all", "granted"]


def _grants(directive: Directive) -> bool:
    """The same, or as vhosts for Apache 2.2 say it."""
    words = [word.lower() for word in directive.arguments]
    allows = directive.key == "allow" and words == ["from", "all"]
    return allows or directive.key == "order" or grants_all(directive)


def _of_type(check: dict[str, Any]) -> dict[str, Any]:
    if check["type"] == "tcp":
        check.pop("path", None)
    return {"type": check.pop("type"), **check}
