from ipaddress import ip_network
from typing import Any

import pytest

from proxy.core.settings import (
    AccessLog,
    Balancer,
    Compat,
    Frontend,
    Hook,
    Limits,
    Mapping,
    Member,
    MemberTimeouts,
    Model,
    SessionCookie,
    Settings,
)
from proxy.core.written import is_secret, kinds, shown_url, written


@pytest.mark.parametrize(
    ("model", "name", "value", "text"),
    [
        (Settings, "workers", 2, "2"),
        (Settings, "workers", "auto", "auto"),
        (Settings, "compat", None, "null"),
        (Settings, "compat", Compat.APACHE, "apache"),
        (Settings, "stop_timeout", 30.0, "30s"),
        (Settings, "graceful_timeout", 3660.0, "61m"),
        (Settings, "leave_before_stop", 0.0, "0"),
        (Settings, "server", "My server", '"My server"'),
        (Settings, "trusted_proxies", (), "[]"),
        (Settings, "trusted_proxies", (ip_network("10.0.0.0/8"),), "[10.0.0.0/8]"),
        (AccessLog, "path", "-", '"-"'),
        (Limits, "head", 65536, "64k"),
        (Limits, "request_line", 8191, "8191"),
        (Limits, "fields", 1024, "1024"),
        (Mapping, "max_body", 2 * 1024**3, "2g"),
        (Mapping, "cookie_path", {"/a": "/"}, "{/a: /}"),
        (Mapping, "upgrade", ("websocket", "h2c"), "[websocket, h2c]"),
        (Mapping, "response_timeout", 0.25, "250ms"),
        (Frontend, "redirect_to_https", True, "true"),
        (Member, "load_factor", 1.0, "1"),
        (Member, "load_factor", 1.25, "1.25"),
        (Member, "retry_after", 1.0, "1s"),
        (Member, "timeouts", MemberTimeouts.model_validate({"connect": "5s"}), "{connect: 5s}"),
        (Balancer, "sticky_separator", ".", '"."'),
        (Balancer, "sticky_session", "JSESSIONID|jsessionid", "JSESSIONID|jsessionid"),
        (SessionCookie, "prefix", "", '""'),
    ],
)
def test_written(model: type[Model], name: str, value: Any, text: str) -> None:
    """A value is written as a configuration file would, by the kind of its setting."""
    assert written(value, kinds(model)[name]) == text


def test_secrets_are_not_written() -> None:
    """Of a block with secrets it is only told that there are some."""
    cookie = SessionCookie(domain="zarafa.com", secret=("0123456789abcdef",))
    assert written(cookie) == "{domain: zarafa.com, secret: (secret)}"
    assert is_secret(kinds(SessionCookie)["secret"])
    assert not is_secret(kinds(SessionCookie)["domain"])


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://monitor.zarafa.com/events", "https://monitor.zarafa.com/events"),
        ("https://user:secret@monitor.zarafa.com/", "https://...@monitor.zarafa.com/"),
        ("http://a@secret@b:80?token=secret", "http://...@b:80?..."),
        ("http://a/b@c?d@e", "http://a/b@c?..."),
        ("http://[::1]:8000/b?", "http://[::1]:8000/b"),
    ],
)
def test_secrets_of_a_url(url: str, shown: str) -> None:
    """Of a hook's URL neither user nor query is written, wherever it stands."""
    hook = Hook.model_validate({"on": ["takeover"], "url": url})
    assert shown_url(url) == shown
    quoted = written(url, kinds(Hook)["url"])
    assert quoted.strip('"') == shown
    assert quoted in written((hook,), kinds(Settings)["hooks"])
