"""A real Apache httpd in the foreground with many virtual hosts: the oracle.

One process serves all sites, each as a virtual host on an address of its own; its balancers
share nothing (S17). It is started from a configuration of its own in a temporary directory and
ended by its own process id.
"""

import os
import shutil
from pathlib import Path

from tests.end_to_end.frontend_process import FrontendProcess, NotStartedError
from tests.end_to_end.oracle_model import CookieSite, MappingSite, MemberSite, Site

_BINARIES = ("/usr/sbin/apache2", "/usr/sbin/httpd", "/usr/local/apache2/bin/httpd")
_MODULE_FOLDERS = (
    "/usr/lib/apache2/modules",
    "/usr/lib64/httpd/modules",
    "/usr/local/apache2/modules",
)
_MODULES = (
    "mpm_event authz_core unixd reqtimeout ssl socache_shmcb rewrite headers log_config "
    "slotmem_shm proxy proxy_http proxy_balancer "
    "lbmethod_byrequests lbmethod_bytraffic lbmethod_bybusyness"
).split()


def find_apache() -> str | None:
    """The server's binary, None when there is none on this machine."""
    found = [path for path in _BINARIES if os.access(path, os.X_OK)]
    return found[0] if found else shutil.which("apache2") or shutil.which("httpd")


def _module_folder() -> Path:
    for folder in _MODULE_FOLDERS:
        if Path(folder, "mod_proxy.so").exists():
            return Path(folder)
    raise NotStartedError("Apache's modules were not found")


# --- configuration -----------------------------------------------------------------------------


def _cookie_flag(cookie: CookieSite) -> str:
    fields = [f"BALANCEME:balancer.server1:{cookie.domain}:{cookie.lifetime}"]
    if cookie.path or cookie.secure or cookie.http_only or cookie.same_site:
        fields.append(cookie.path or "/")
        fields.append("secure" if cookie.secure else "0")
        fields.append("httponly" if cookie.http_only else "0")
        fields.append(cookie.same_site or "0")
    return f"[CO={':'.join(fields)}]"


def _cookie_rules(site: Site) -> list[str]:
    if site.cookie is None:
        return []
    rule = f"RewriteRule .* - {_cookie_flag(site.cookie)}"
    conditions = ["!BALANCEME", "BALANCEME=(balancer.server1)"]
    if site.failover_include:
        conditions.append("BALANCEME=(balancer.server2)")
    lines = ["RewriteEngine On"]
    for condition in conditions:
        lines += [f"RewriteCond %{{HTTP_COOKIE}} {condition}", rule]
    return lines


def _balancer_parameters(site: Site) -> str:
    words = [f"lbmethod={site.lbmethod}"]
    if site.sticky:
        words.append(f"stickysession={site.sticky}")
    if site.separator:
        words.append(f"stickysessionsep={site.separator}")
    if site.semicolon:
        words.append("scolonpathdelim=On")
    if site.no_failover:
        words.append("nofailover=On")
    if site.max_attempts is not None:
        words.append(f"maxattempts={site.max_attempts}")
    if site.fail_on_status:
        words.append(f"failonstatus={','.join(map(str, site.fail_on_status))}")
    if site.fail_on_timeout:
        words.append("failontimeout=On")
    if not site.forced_recovery:
        words.append("forcerecovery=Off")
    if site.wait is not None:
        words.append(f"timeout={site.wait}")
    return " ".join(words)


def _mapping(mapping: MappingSite, parameters: str) -> list[str]:
    target = "balancer://cluster" + (mapping.to or mapping.path)
    lines = [f"ProxyPass {mapping.path} {target} {parameters}"]
    if mapping.reverse:
        lines.append(f"ProxyPassReverse {mapping.path} {target}")
    for theirs, ours in mapping.cookie_domain.items():
        lines.append(f"ProxyPassReverseCookieDomain {theirs} {ours}")
    for theirs, ours in mapping.cookie_path.items():
        lines.append(f"ProxyPassReverseCookiePath {theirs} {ours}")
    return lines


def _member(member: MemberSite, authority: str, site: Site) -> str:
    words = [f"BalancerMember http://{authority}{member.path}"]
    if member.route:
        words.append(f"route={member.route}")
    if member.load_factor != 1:
        words.append(f"loadfactor={member.load_factor}")
    if member.lbset:
        words.append(f"lbset={member.lbset}")
    if member.flags:
        words.append(f"status=+{member.flags}")
    if member.redirect:
        words.append(f"redirect={member.redirect}")
    if member.retry != 60:
        words.append(f"retry={member.retry}")
    if not member.reuse:
        words.append("disablereuse=On")
    if site.timeout:
        words.append(f"timeout={site.timeout}")
    if site.upgrade:
        words.append(f"upgrade={site.upgrade}")
    return " ".join(words)


def _times_and_limits(site: Site) -> list[str]:
    head = f"{site.head_timeout}" if site.head_timeout else "20-40,MinRate=500"
    body = f"{site.body_timeout}" if site.body_timeout else "20,MinRate=500"
    lines = [f"RequestReadTimeout header={head} body={body}"]
    if site.keep_alive_ms is not None:
        lines.append(f"KeepAliveTimeout {site.keep_alive_ms}ms")
    if site.keep_alive_requests is not None:
        lines.append(f"MaxKeepAliveRequests {site.keep_alive_requests}")
    names = {"line": "LimitRequestLine", "field": "LimitRequestFieldSize"}
    names["fields"] = "LimitRequestFields"
    return lines + [f"{names[key]} {value}" for key, value in site.limits.items()]


def virtual_host(site: Site, listen: str, members: list[str], certificate: Path) -> list[str]:
    """The article's virtual host with what this site changes of it."""
    parameters = _balancer_parameters(site)
    # The first directive that fits wins (R26); ours promises the longest.
    mappings = sorted(site.mappings, key=lambda mapping: -len(mapping.path))
    lines = [f"Listen {listen} https", f"<VirtualHost {listen}>", "ServerName mail.zarafa.com"]
    lines += ["SSLEngine On", f"SSLCertificateFile {certificate}"]
    lines += _times_and_limits(site) + _cookie_rules(site)
    if site.preserve_host:
        lines.append("ProxyPreserveHost On")
    for number, mapping in enumerate(mappings):
        lines += _mapping(mapping, parameters if number == 0 else "")
    lines.append("<Proxy balancer://cluster>")
    for member, authority in zip(site.members, members, strict=True):
        lines.append(_member(member, authority, site))
    return [*lines, "</Proxy>", "</VirtualHost>", ""]


def _main_server(folder: Path) -> list[str]:
    modules = _module_folder()
    loads = [
        f"LoadModule {name}_module {modules}/mod_{name}.so"
        for name in _MODULES
        if (modules / f"mod_{name}.so").exists()  # some builds have unixd and log_config inside
    ]
    identity = ["User www-data", "Group www-data"] if os.geteuid() == 0 else []
    return [
        f"ServerRoot {folder}",
        f"DefaultRuntimeDir {folder}",
        f"PidFile {folder}/httpd.pid",
        f"ErrorLog {folder}/error.log",
        *loads,
        *identity,
        "LogLevel warn",
        "ServerName mail.zarafa.com",
        "ServerTokens Prod",
        "SSLSessionCache none",
        # One process, so that there is one connection pool for each member.
        "StartServers 1",
        "ServerLimit 1",
        "ThreadLimit 64",
        "ThreadsPerChild 64",
        "MaxRequestWorkers 64",
        "MinSpareThreads 1",
        "MaxSpareThreads 64",
        "",
    ]


# --- process -----------------------------------------------------------------------------------


def start_apache(
    folder: Path, sites: list[tuple[Site, str, list[str]]], certificate: Path
) -> FrontendProcess:
    """Serve the sites: each with its listen address and its members' addresses."""
    binary = find_apache()
    if binary is None:
        raise NotStartedError("there is no Apache on this machine")
    lines = _main_server(folder)
    for site, listen, members in sites:
        lines += virtual_host(site, listen, members, certificate)
    config = folder / "httpd.conf"
    config.write_text("\n".join(lines))
    command = [binary, "-d", str(folder), "-f", str(config), "-D", "FOREGROUND"]
    process = FrontendProcess("Apache", command, folder)
    host, _, port = sites[-1][1].rpartition(":")
    process.start((host, int(port)))
    return process
