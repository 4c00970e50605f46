"""Virtual hosts: addresses, names, certificates, and which paths lead to which balancer."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from proxy.apache.balancers import Balancers, balancer_name
from proxy.apache.cookie_rules import ALL_PATHS, RuleError, Rules, read_rules
from proxy.apache.draft import Draft
from proxy.apache.parameters import split
from proxy.apache.tree import Directive, Section

_HTTP = re.compile(r"http://([^/]+)(/.*)?", re.IGNORECASE)
_ADDRESS = re.compile(r"(?:(.*):)?([0-9]+)")
# Directives that only concern mappings, looked at together.
MAPPING = frozenset(
    "proxypass proxypassreverse proxypassreversecookiedomain proxypassreversecookiepath"
    " proxypreservehost".split()
)
REWRITING = frozenset(("rewriteengine", "rewritecond", "rewriterule", "include", "includeoptional"))
TLS = frozenset(
    "sslengine sslcertificatefile sslcertificatekeyfile sslprotocol sslcertificatechainfile".split()
)
NAMES = frozenset(("servername", "serveralias"))


class Site:
    """One virtual host, or the main server."""

    def __init__(
        self, draft: Draft, balancers: Balancers, directives: Sequence[Directive | Section]
    ) -> None:
        self._draft = draft
        self._balancers = balancers
        self.directives = [each for each in directives if isinstance(each, Directive)]
        self.sections = [each for each in directives if isinstance(each, Section)]
        self.name = self._one("servername")
        self.aliases = [name for each in self._all("serveralias") for name in each.arguments]
        self.used: set[str] = set()

    def _all(self, name: str) -> list[Directive]:
        return [each for each in self.directives if each.key == name]

    def _last(self, name: str) -> Directive | None:
        found = self._all(name)
        return found[-1] if found else None

    def _one(self, name: str) -> str | None:
        found = self._last(name)
        return found.arguments[0] if found is not None and found.arguments else None

    @property
    def host(self) -> str | None:
        """Its name, without scheme and port."""
        if self.name is None:
            return None
        return self.name.rpartition("://")[2].partition(":")[0]

    @property
    def speaks_tls(self) -> bool:
        """Whether it is for TLS."""
        return (self._one("sslengine") or "off").lower() in ("on", "optional")

    @property
    def redirects(self) -> bool:
        """Whether it does nothing but send everybody to https."""
        if self._all("proxypass"):
            return False
        to_https = [each for each in self._all("redirect") if _leads_to_https(each)]
        to_https += [each for each in self._all("redirectpermanent") if _leads_to_https(each)]
        to_https += [each for each in self._all("rewriterule") if _rewrites_to_https(each)]
        return bool(to_https)

    # --- certificates --------------------------------------------------------------------------

    def certificate(self) -> dict[str, Any] | None:
        """Its certificate and key."""
        files, keys = self._all("sslcertificatefile"), self._all("sslcertificatekeyfile")
        origin = self._last("sslengine")
        if not files or not files[0].arguments:
            if origin is not None:
                self._draft.mistake(origin, "there is no SSLCertificateFile for it")
            return None
        for extra in files[1:]:
            self._draft.notice(extra, "a name has one certificate; the first one is taken")
        found: dict[str, Any] = {"certificate": files[0].arguments[0]}
        if keys and keys[0].arguments:
            found["key"] = keys[0].arguments[0]
        chain = self._last("sslcertificatechainfile")
        if chain is not None:
            self._draft.mistake(chain, "append the chain to the file of SSLCertificateFile")
        protocol = self._last("sslprotocol")
        if protocol is not None:
            words = [word.lower() for word in protocol.arguments]
            if words == ["tlsv1.3"] or {"-tlsv1.2", "all"} <= set(words):
                found["min_version"] = "1.3"
            elif any(word.lstrip("+") in ("tlsv1", "tlsv1.1", "sslv3") for word in words):
                self._draft.notice(protocol, "nothing older than TLS 1.2 is spoken")
        self._draft.comes_from(found, files[0])
        return found

    # --- mappings ------------------------------------------------------------------------------

    def mappings(self) -> list[dict[str, Any]]:
        """Which paths lead where, in their order."""
        found: list[dict[str, Any]] = []
        for directive, path, arguments in self._passes():
            mapping = self._mapping(directive, path, arguments)
            if mapping is None:
                continue
            before = next((each for each in found if path.startswith(each["path"])), None)
            if before is not None:
                self._draft.notice(
                    directive, f"it has no effect: {before['path']} stands before it and takes it"
                )
                continue
            self._draft.comes_from(mapping, directive)
            found.append(mapping)
        reverse = {self._path_of(each, 2) for each in self._all("proxypassreverse")}
        reverse |= {self._location(each) for each in self._in_locations("proxypassreverse")}
        preserve = (self._one("proxypreservehost") or "off").lower() == "on"
        for mapping in found:
            if mapping["path"] not in reverse:
                mapping["rewrite_location"] = False
            if preserve:
                mapping["preserve_host"] = True
            self._take_cookie_rewriting(mapping)
        return found

    def _passes(self) -> Iterable[tuple[Directive, str, Sequence[str]]]:
        """Each ProxyPass with its path and what is behind it."""
        for directive in self._all("proxypass"):
            if len(directive.arguments) < 2:
                self._draft.mistake(directive, "it needs a path and a URL")
            else:
                yield directive, directive.arguments[0], directive.arguments[1:]
        for section in self.sections:
            if section.key == "virtualhost":
                continue
            for directive in section.directives("proxypass"):
                if section.key == "location" and section.arguments and directive.arguments:
                    yield directive, section.arguments[0], directive.arguments
                else:
                    self._draft.mistake(directive, f"it isn't understood in <{section.name}>")

    def _mapping(
        self, directive: Directive, path: str, arguments: Sequence[str]
    ) -> dict[str, Any] | None:
        url, *rest = arguments
        words = [word for word in rest if split(word) is None]
        parameters = [word for word in rest if split(word) is not None]
        for word in words:
            if word.lower() == "nocanon":
                self._draft.notice(directive, "nocanon: paths go as the client spelled them anyway")
            else:
                self._draft.mistake(directive, f"{word} isn't understood")
        if url == "!":
            self._draft.mistake(
                directive, f"{path} is excluded, which nothing here can be; map it to who serves it"
            )
            return None
        name = balancer_name(url)
        inside = url.partition("://")[2].partition("/")
        to = f"/{inside[2]}" if inside[1] else "/"
        if name is None:
            name = self._balancer_of(directive, url)
            if name is None:
                return None
        self._balancers.block(name, directive)
        self._balancers.take_parameters(directive, name, parameters)
        mapping: dict[str, Any] = {"path": path, "balancer": name}
        if to != path:
            mapping["to"] = to
        if name in self._balancers.upgrades:
            mapping["upgrade"] = [self._balancers.upgrades[name]]
        return mapping

    def _balancer_of(self, directive: Directive, url: str) -> str | None:
        """A balancer of one member, for ``ProxyPass / http://host/``."""
        found = _HTTP.fullmatch(url)
        if found is None:
            scheme = url.partition(":")[0]
            self._draft.mistake(directive, f"members are reached over plain HTTP, not {scheme}")
            return None
        name = re.sub(r"[^A-Za-z0-9_.-]", "-", found[1])[:63]
        self._balancers.member(name, f"http://{found[1]}", directive)
        return name

    def _path_of(self, directive: Directive, count: int) -> str | None:
        return directive.arguments[0] if len(directive.arguments) >= count else None

    def _in_locations(self, name: str) -> list[tuple[Section, Directive]]:
        return [
            (section, directive)
            for section in self.sections
            if section.key == "location" and section.arguments
            for directive in section.directives(name)
        ]

    def _location(self, found: tuple[Section, Directive]) -> str:
        return found[0].arguments[0]

    def _take_cookie_rewriting(self, mapping: dict[str, Any]) -> None:
        for name, key in (
            ("proxypassreversecookiedomain", "cookie_domain"),
            ("proxypassreversecookiepath", "cookie_path"),
        ):
            pairs = [each.arguments[:2] for each in self._all(name) if len(each.arguments) >= 2]
            if pairs:
                mapping[key] = {pair[0]: pair[1] for pair in pairs}

    # --- the session cookie --------------------------------------------------------------------

    def rules(self) -> Rules | None:
        """What its rewrite rules say of the session cookie."""
        if (self._one("rewriteengine") or "off").lower() != "on":
            for rule in self._all("rewriterule"):
                self._draft.notice(rule, "it has no effect: RewriteEngine isn't on here")
            return None
        rules = [each for each in self.directives if each.key in ("rewritecond", "rewriterule")]
        try:
            return read_rules(rules)
        except RuleError as error:
            self._draft.mistake(error.directive, str(error))
            return None


def _leads_to_https(directive: Directive) -> bool:
    """``Redirect [permanent] / https://host/``."""
    return (
        len(directive.arguments) >= 2
        and directive.arguments[-2] == "/"
        and (directive.arguments[-1].lower().startswith("https://"))
    )


def _rewrites_to_https(directive: Directive) -> bool:
    """``RewriteRule ^ https://%{HTTP_HOST}%{REQUEST_URI} [R=301,L]``."""
    if len(directive.arguments) != 3:
        return False
    pattern, to, flags = directive.arguments
    return pattern in ALL_PATHS and to.lower().startswith("https://") and "R" in flags.upper()


def address_of(argument: str) -> tuple[str, int] | None:
    """Host and port of ``a:p``, ``p``, ``*:p``, ``_default_:p``, ``[v6]:p``; None for another."""
    found = _ADDRESS.fullmatch(argument)
    if found is None:
        return None
    host = found[1]
    return ("*" if host in (None, "", "_default_") else host), int(found[2])
