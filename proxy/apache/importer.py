"""From a tree of Apache's directives to settings, with where each comes from and what is lost.

Every directive ends as a setting, as a notice, or as a mistake where serving without it would be
wrong: what guards access, rewrites requests or answers, or serves by itself. The settings follow
Apache in all that differs (``compat: apache``), so that clients and members see no difference.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from proxy.apache.balancers import Balancers, grants_all
from proxy.apache.cookie_rules import Rules, route_cookie
from proxy.apache.draft import Draft, Imported
from proxy.apache.mistakes import ApacheError
from proxy.apache.parameters import on_off, seconds, whole
from proxy.apache.sites import MAPPING, NAMES, REWRITING, TLS, Site, address_of
from proxy.apache.tree import Directive, Notice, Place, Section, Tree

# --- what else there is --------------------------------------------------------------------------

# Directives that are looked at elsewhere, or that say what is so here anyway.
_KNOWN = MAPPING | REWRITING | TLS | NAMES
_SILENT = frozenset(
    "listen loadmodule serverroot define undefine proxyhctemplate balancermember proxyset"
    " mutex threadsperchild maxrequestworkers serverlimit startservers minsparethreads"
    " maxsparethreads threadlimit maxconnectionsperchild namevirtualhost hostnamelookups"
    " scriptsock typesconfig addtype addlanguage languagepriority forcelanguagepriority"
    " addcharset mimemagicfile serveradmin proxyrequests".split()
)
_WRONG_WITHOUT = {
    "authtype": "nobody is asked for a password here",
    "require": "nobody is kept out here",
    "deny": "nobody is kept out here",
    "sslverifyclient": "clients' certificates aren't asked for here",
    "redirect": "requests aren't redirected here",
    "redirectmatch": "requests aren't redirected here",
    "redirectpermanent": "requests aren't redirected here",
    "proxypassmatch": "paths are mapped by prefix here; write the prefixes as ProxyPass",
    "header": "answers' fields aren't changed here",
    "requestheader": "requests' fields aren't changed here",
    "rewritemap": "rules that look things up aren't understood here",
    "proxyerroroverride": "members' answers are passed on here",
    "sslproxyengine": "members are reached over plain HTTP here",
}
_NOTICES = {
    "servertokens": "server: in the configuration says what the Server field is",
    "serversignature": "own answers have no signature",
    "proxyvia": "there is no Via field",
    "sslciphersuite": "OpenSSL's own choice of ciphers is taken",
    "sslhonorcipherorder": "OpenSSL's own choice of ciphers is taken",
    "sslsessioncache": "sessions are resumed by tickets",
    "sslsessioncachetimeout": "sessions are resumed by tickets",
    "sslsessiontickets": "sessions are resumed by tickets",
    "sslusestapling": "there is no stapling",
    "documentroot": "files are served by members, not here",
    "alias": "files are served by members, not here",
    "errorlog": "log: in the configuration says where the log goes",
    "customlog": "access_log: says where it goes; its format is Apache's combined one",
    "logformat": "access_log: says where it goes; its format is Apache's combined one",
    "loglevel": "log: in the configuration says how much is told",
    "errordocument": "own answers have texts of their own",
    "pidfile": "pid_file: in the configuration names one",
    "user": "user: in the configuration says as whom workers run",
    "group": "group: in the configuration says as whom workers run",
}
_UNKNOWN = "it isn't known here; what it does isn't done"


def import_tree(tree: Tree) -> Imported:
    """The settings that a configuration means. Raises ApacheError with all mistakes."""
    return _Import(tree).run()


class _Import:
    """One configuration."""

    def __init__(self, tree: Tree) -> None:
        self._top = tree.top
        self._includes = tree.includes
        self._server_root = tree.server_root
        self._draft = Draft()
        self._draft.notices += tree.notices
        self._balancers = Balancers(self._draft, self._top.directives())
        self._settings: dict[str, Any] = {"compat": "apache"}

    def run(self) -> Imported:
        """All of it."""
        hosts = [each for each in self._top.sections() if each.key == "virtualhost"]
        self._take_balancers([self._top, *hosts])
        for place in (self._top, *hosts):
            self._look_at(place, redirects=self._site(place.children).redirects)
        frontends = self._frontends(hosts)
        self._take_timeouts([self._top, *hosts])
        self._settings["frontends"] = frontends
        if not frontends:
            listens = [each.at for each in self._top.directives("listen")]
            where = listens[0] if listens else Place(self._server_root, 0)
            text = "no address that is listened to has a ProxyPass; there is nothing to serve"
            self._draft.mistakes.append(Notice(where, "Listen", text))
        named = {mapping["balancer"] for each in frontends for mapping in each.get("mappings", ())}
        self._settings["balancers"] = {
            name: block for name, block in self._balancers.blocks.items() if name in named
        }
        if self._draft.mistakes:
            raise ApacheError(self._draft.mistakes)
        return Imported(
            self._settings,
            self._draft.comments(self._settings),
            tuple(dict.fromkeys(self._draft.notices)),
        )

    # --- balancers -------------------------------------------------------------------------------

    def _take_balancers(self, places: Iterable[Section]) -> None:
        for place in places:
            for section in place.sections("proxy"):
                self._balancers.take_section(section)
            for directive in place.directives("balancermember"):
                self._balancers.take_member(directive)
            for directive in place.directives("proxyset"):
                self._balancers.take_set(directive)

    def _take_timeouts(self, places: Iterable[Section]) -> None:
        """How long members may be silent, where they don't say so themselves (F16)."""
        said = {
            directive.key: directive
            for place in places
            for directive in place.directives()
            if directive.key in ("timeout", "proxytimeout") and directive.arguments
        }
        directive = said.get("proxytimeout") or said.get("timeout")
        if directive is None:
            return
        try:
            found = seconds(directive.arguments[0], least=1)
        except ValueError as error:
            self._draft.mistake(directive, str(error))
            return
        for block in self._balancers.blocks.values():
            block["timeouts"] = {"connect": found, "response": found, "tunnel": found}
            for member in block["members"]:
                if "timeouts" in member:
                    member["timeouts"] = block["timeouts"] | member["timeouts"]

    # --- everything else -------------------------------------------------------------------------

    def _look_at(self, place: Section, *, redirects: bool) -> None:
        """Say what becomes of directives that are no one else's."""
        for directive in place.directives():
            key = directive.key
            if redirects and key.startswith("redirect"):
                continue
            if key == "header" and route_cookie(directive) is not None:
                continue
            if key in _WRONG_WITHOUT and not grants_all(directive):
                self._draft.mistake(directive, _WRONG_WITHOUT[key])
            elif key in _NOTICES:
                self._draft.notice(directive, _NOTICES[key])
            elif key not in _KNOWN | _SILENT | _LIMITS.keys() | _WRONG_WITHOUT.keys():
                self._draft.notice(directive, _UNKNOWN)
        for section in place.sections():
            if section.key in ("directory", "files", "filesmatch", "directorymatch"):
                self._draft.notice(section, "files are served by members, not here")
            elif section.key in ("location", "locationmatch"):
                self._look_at_location(section)
            elif section.key not in ("proxy", "virtualhost"):
                self._draft.notice(section, _UNKNOWN)

    def _look_at_location(self, section: Section) -> None:
        handlers = [each.text.lower() for each in section.directives("sethandler")]
        if any(handler in ("balancer-manager", "server-status") for handler in handlers):
            self._draft.notice(
                section, "balanceme status and balanceme set do this; it isn't served"
            )
            return
        for directive in section.directives():
            if directive.key in ("proxypass", "proxypassreverse") or grants_all(directive):
                continue
            self._draft.mistake(directive, f"it isn't understood in <{section.name}>")

    # --- frontends --------------------------------------------------------------------------------

    def _frontends(self, hosts: Sequence[Section]) -> list[dict[str, Any]]:
        """One for each address that is listened to, with what its virtual hosts say."""
        found = []
        for listen in self._top.directives("listen"):
            address = address_of(listen.arguments[0]) if listen.arguments else None
            if address is None:
                self._draft.mistake(listen, "it has no port")
                continue
            sites = [self._site(host.children) for host in hosts if self._fits(host, address)]
            frontend = self._frontend(listen, address, sites or [self._site(self._top.children)])
            if frontend is not None:
                found.append(frontend)
        return found

    def _site(self, children: Sequence[Directive | Section]) -> Site:
        own = {child.key for child in children if isinstance(child, Directive)}
        # What the main server says counts where a host says nothing of it.
        inherited = [
            each
            for each in self._top.directives()
            if each.key not in own and each.key not in REWRITING
        ]
        both = children if children is self._top.children else [*inherited, *children]
        return Site(self._draft, self._balancers, both)

    def _fits(self, host: Section, address: tuple[str, int]) -> bool:
        for argument in host.arguments:
            found = address_of(
                argument if ":" in argument or argument.isdigit() else f"{argument}:0"
            )
            if found is None or "*" in found[0].strip("*"):
                self._draft.mistake(host, f"{argument} is no address; Apache never serves it (D4)")
            elif found[1] in (0, address[1]) and found[0] in ("*", address[0], "0.0.0.0"):  # noqa: S104 - as written there
                return True
        return False

    def _frontend(
        self, listen: Directive, address: tuple[str, int], sites: Sequence[Site]
    ) -> dict[str, Any] | None:
        host, port = address
        frontend: dict[str, Any] = {"listen": f"{'0.0.0.0' if host == '*' else host}:{port}"}  # noqa: S104
        self._draft.comes_from(frontend, listen)
        first = sites[0]
        if first.redirects:
            for site in sites[1:]:
                self._draft.notice(listen, f"{site.host} is redirected to https as well")
            return frontend | {"redirect_to_https": True}
        if first.host is not None:
            frontend["server_name"] = first.host
        certificates = [self._certificate(site, site is first) for site in sites if site.speaks_tls]
        certificates = [each for each in certificates if each is not None]
        if certificates:
            frontend["tls"] = certificates[0] if len(certificates) == 1 else certificates
        mappings: list[dict[str, Any]] = []
        for site in sites:
            rules = site.rules()
            for mapping in site.mappings():
                if rules is not None:
                    self._take_rules(rules, mapping["balancer"])
                self._take_route_cookies(site, mapping["balancer"])
                mappings += self._for_names(site, mapping, default=site is first)
            if (
                site is not first
                and mappings
                and all(each["path"] != "/" or each.get("host") != site.host for each in mappings)
            ):
                text = f"paths that {site.host} doesn't map are led as those of the first site"
                self._draft.notice(listen, text)
        if not mappings:
            return None
        frontend["mappings"] = mappings
        self._take_limits(frontend)
        return frontend

    def _certificate(self, site: Site, default: bool) -> dict[str, Any] | None:
        found = site.certificate()
        if found is not None and not default and site.host is not None:
            found["names"] = [site.host, *site.aliases]
        return found

    def _for_names(
        self, site: Site, mapping: dict[str, Any], *, default: bool
    ) -> list[dict[str, Any]]:
        """A mapping for each name of a site; the first site of an address takes all others."""
        if default or site.host is None:
            return [mapping]
        names = (site.host, *site.aliases)
        return [self._draft.like({**mapping, "host": name}, mapping) for name in names]

    # --- the session cookie -----------------------------------------------------------------------

    def _take_rules(self, rules: Rules, name: str) -> None:
        """What the rules say goes to the balancer whose cookie they set."""
        block = self._balancers.blocks[name]
        if str(block.get("sticky_session", "")).partition("|")[0] != rules.cookie:
            text = f"balancer {name} has no stickysession={rules.cookie}; the cookie isn't set"
            self._draft.notice(rules.directives[0], text)
            return
        block["session_cookie"] = dict(rules.settings)
        routes = [member.get("route") for member in block["members"]]
        if set(rules.renewed) >= {route for route in routes if route}:
            block["session_cookie"]["renew"] = "any"
        file = self._rewritten(rules)
        if file is not None:
            block["failover_file"] = file
        elif rules.failover:
            block["failover"] = rules.failover

    def _take_route_cookies(self, site: Site, name: str) -> None:
        block = self._balancers.blocks[name]
        for directive in site.directives:
            found = route_cookie(directive) if directive.key == "header" else None
            if found is None:
                continue
            if str(block.get("sticky_session", "")).partition("|")[0] == found[0]:
                block["session_cookie"] = found[1]
            else:
                text = f"balancer {name} has no stickysession={found[0]}; the cookie isn't set"
                self._draft.notice(directive, text)

    def _rewritten(self, rules: Rules) -> str | None:
        """The file that a cluster manager rewrites: included behind the first rule, rules alone."""
        first = rules.directives[0].at
        last = next((r.at for r in rules.directives[::-1] if r.at.file == first.file), first)
        for included in self._includes:
            at, file = included
            inside = [each for each in rules.directives if each.at.file == file]
            apart = all(each in rules.failover_rules for each in inside)
            if at.file == first.file and at.line > last.line and apart and not self._others(file):
                return file
        return None

    def _others(self, file: str) -> bool:
        """Whether a file holds anything but rewrite rules."""
        places = [self._top, *self._top.sections("virtualhost")]
        return any(
            child.at.file == file and child.key not in REWRITING
            for place in places
            for child in place.children
        )

    # --- limits -----------------------------------------------------------------------------------

    def _take_limits(self, frontend: dict[str, Any]) -> None:
        for directive in self._top.directives():
            meaning = _LIMITS.get(directive.key)
            if meaning is None or not directive.arguments:
                continue
            try:
                meaning(directive.arguments[0], frontend)
            except ValueError as error:
                self._draft.mistake(directive, str(error))


Limit = Callable[[str, dict[str, Any]], None]


def _limit(key: str, more: int = 0) -> Limit:
    """A limit; Apache refuses a line from two bytes more on than it says (L2 to L4)."""

    def take(value: str, frontend: dict[str, Any]) -> None:
        frontend.setdefault("limits", {})[key] = whole(value, 1) + more

    return take


def _timeout(value: str, frontend: dict[str, Any]) -> None:
    found = seconds(value, least=1)
    frontend.setdefault("timeouts", {}).update({"write": found})


def _keep_alive(value: str, frontend: dict[str, Any]) -> None:
    if not on_off(value):
        frontend.setdefault("timeouts", {})["keep_alive"] = 0


def _keep_alive_timeout(value: str, frontend: dict[str, Any]) -> None:
    frontend.setdefault("timeouts", {}).setdefault("keep_alive", seconds(value))


def _keep_alive_requests(value: str, frontend: dict[str, Any]) -> None:
    frontend["keep_alive_requests"] = whole(value, 0)


_LIMITS: dict[str, Limit] = {
    "limitrequestline": _limit("request_line", more=1),
    "limitrequestfieldsize": _limit("field", more=1),
    "limitrequestfields": _limit("fields"),
    "timeout": _timeout,
    "proxytimeout": lambda *_: None,
    "keepalive": _keep_alive,
    "keepalivetimeout": _keep_alive_timeout,
    "maxkeepaliverequests": _keep_alive_requests,
}
