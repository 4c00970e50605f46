"""Our proxy as a process of its own, with the same sites as the oracle's Apache.

The settings name only what the article's virtual host says; whatever else has to be Apache's
comes from ``compat: apache``, and is thereby tested.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

from tests.end_to_end.frontend_process import FrontendProcess
from tests.end_to_end.oracle_model import CookieSite, MappingSite, MemberSite, Site

_STATUS = {"D": "disabled", "N": "drain", "S": "stopped"}
_FLAGS = {"H": "hot_standby", "R": "hot_spare", "I": "ignore_errors"}

Yaml = dict[str, Any]


def _session_cookie(cookie: CookieSite) -> Yaml:
    words: Yaml = {
        "domain": cookie.domain,
        "lifetime": f"{cookie.lifetime}m",
        "assign": "own",
        "own_route": "server1",
    }
    if cookie.path:
        words["path"] = cookie.path
    if cookie.secure:
        words["secure"] = True
    if cookie.http_only:
        words["http_only"] = True
    if cookie.same_site:
        words["same_site"] = cookie.same_site
    return words


def _member(member: MemberSite, authority: str) -> Yaml:
    words: Yaml = {"url": f"http://{authority}{member.path}"}
    if member.route:
        words["route"] = member.route
    if member.load_factor != 1:
        words["load_factor"] = member.load_factor
    if member.lbset:
        words["lbset"] = member.lbset
    for letter in member.flags:
        if letter in _STATUS:
            words["status"] = _STATUS[letter]
        else:
            words[_FLAGS[letter]] = True
    if member.redirect:
        words["redirect_route"] = member.redirect
    if member.retry != 60:
        words["retry_after"] = f"{member.retry}s"
    if not member.reuse:
        words["reuse_connections"] = False
    return words


def _balancer(site: Site, members: list[str]) -> Yaml:
    words: Yaml = {
        "lbmethod": site.lbmethod,
        "members": [
            _member(member, authority)
            for member, authority in zip(site.members, members, strict=True)
        ],
    }
    if site.sticky:
        words["sticky_session"] = site.sticky
    if site.separator:
        words["sticky_separator"] = site.separator.lower()
    if site.semicolon:
        words["semicolon_ends_parameter"] = True
    if site.cookie:
        words["session_cookie"] = _session_cookie(site.cookie)
    if site.failover_include:
        words["failover"] = {"server2": "server1"}
    if site.no_failover:
        words["no_failover"] = True
    if site.max_attempts is not None:
        words["max_attempts"] = site.max_attempts
    if site.fail_on_status:
        words["fail_on_status"] = [*site.fail_on_status]
    if site.fail_on_timeout:
        words["fail_on_timeout"] = True
    if not site.forced_recovery:
        words["forced_recovery"] = False
    if site.wait is not None:
        words["wait_timeout"] = f"{site.wait}s"
    if site.timeout:
        words["timeouts"] = {"connect": f"{site.timeout}s", "response": f"{site.timeout}s"}
    return words


def _mapping(mapping: MappingSite, site: Site, balancer: str) -> Yaml:
    words: Yaml = {"path": mapping.path, "balancer": balancer}
    if mapping.to:
        words["to"] = mapping.to
    if site.preserve_host:
        words["preserve_host"] = True
    if not mapping.reverse:
        words["rewrite_location"] = False
    if mapping.cookie_domain:
        words["cookie_domain"] = dict(mapping.cookie_domain)
    if mapping.cookie_path:
        words["cookie_path"] = dict(mapping.cookie_path)
    if site.upgrade:
        words["upgrade"] = [site.upgrade]
    return words


def _frontend(site: Site, listen: str, balancer: str, certificate: Path) -> Yaml:
    words: Yaml = {
        "listen": listen,
        "server_name": "mail.zarafa.com",
        "tls": {"certificate": str(certificate)},
        "mappings": [_mapping(mapping, site, balancer) for mapping in site.mappings],
    }
    timeouts = {}
    if site.head_timeout:
        timeouts["head"] = f"{site.head_timeout}s"
    if site.body_timeout:
        timeouts["body"] = f"{site.body_timeout}s"
    if site.keep_alive_ms is not None:
        timeouts["keep_alive"] = f"{site.keep_alive_ms}ms"
    if timeouts:
        words["timeouts"] = timeouts
    if site.keep_alive_requests is not None:
        words["keep_alive_requests"] = site.keep_alive_requests
    names = {"line": "request_line", "field": "field", "fields": "fields"}
    if site.limits:
        words["limits"] = {names[key]: value for key, value in site.limits.items()}
    return words


def settings(sites: list[tuple[Site, str, list[str]]], certificate: Path) -> Yaml:
    """The configuration file's content for these sites."""
    frontends, balancers = [], {}
    for number, (site, listen, members) in enumerate(sites, start=1):
        balancer = f"case{number}"
        frontends.append(_frontend(site, listen, balancer, certificate))
        balancers[balancer] = _balancer(site, members)
    return {
        "compat": "apache",
        "server": "Apache",
        "access_log": None,
        "stop_timeout": "1s",
        "frontends": frontends,
        "balancers": balancers,
    }


def start_balanceme(
    folder: Path, sites: list[tuple[Site, str, list[str]]], certificate: Path
) -> FrontendProcess:
    """Serve the sites: each with its listen address and its members' addresses."""
    config = folder / "balanceme.yaml"
    config.write_text(yaml.safe_dump(settings(sites, certificate), sort_keys=False))
    command = [sys.executable, "-m", "proxy", "run", str(config)]
    command += ["--socket", str(folder / "control.sock")]
    process = FrontendProcess("balanceme", command, folder)
    host, _, port = sites[-1][1].rpartition(":")
    process.start((host, int(port)))
    return process
