from typing import Any

import pytest

from proxy.core.health import Verdict
from proxy.core.member import Member, status_words
from proxy.core.settings import Balancer as BalancerSettings
from proxy.core.settings import OperatorStatus

NOW = 1000.0


def member(url: str = "http://server1.zarafa.com", **options: Any) -> Member:
    """A balancer's only member."""
    plain = {"members": [{"url": url, **options}], "timeouts": {"response": "5s"}}
    settings = BalancerSettings.model_validate(plain)
    return Member(settings.members[0], settings)


@pytest.mark.parametrize(
    ("url", "host", "port", "field"),
    [
        ("http://server1.zarafa.com", "server1.zarafa.com", 80, b"server1.zarafa.com"),
        ("http://h:80/", "h", 80, b"h"),
        ("http://h:8080/app", "h", 8080, b"h:8080"),
        ("http://[2001:db8::1]", "2001:db8::1", 80, b"[2001:db8::1]"),
        ("http://[::1]:81/a/", "::1", 81, b"[::1]:81"),
    ],
)
def test_address(url: str, host: str, port: int, field: bytes) -> None:
    """The Host that is sent has the member's port, but for port 80 (R4)."""
    made = member(url)
    assert (made.host, made.port, made.host_field) == (host, port, field)


@pytest.mark.parametrize(
    ("url", "origin", "base_path"),
    [
        ("http://server1.zarafa.com", b"http://server1.zarafa.com", b""),
        ("http://h:80/", b"http://h:80", b"/"),
        ("http://h:8080/app", b"http://h:8080", b"/app"),
        ("http://[::1]:81/a/", b"http://[::1]:81", b"/a/"),
    ],
)
def test_place(url: str, origin: bytes, base_path: bytes) -> None:
    """A Location is compared with the URL as configured (P11), its path goes first (R27)."""
    assert (member(url).origin, member(url).base_path) == (origin, base_path)


def test_timeouts() -> None:
    """A member's timeouts are its balancer's, unless it has its own (F16, D33)."""
    own = {"connect": "1s", "response": "2s", "activesync": "2h", "tunnel": "4s"}
    for timeouts, seconds in (
        (None, (60.0, 5.0, 3660.0, 60.0)),
        ({}, (60.0, 60.0, 3660.0, 60.0)),
        (own, (1.0, 2.0, 7200.0, 4.0)),
    ):
        made = member(timeouts=timeouts)
        assert (made.connect_timeout, made.response_timeout) == seconds[:2]
        assert (made.activesync_timeout, made.tunnel_timeout) == seconds[2:]


@pytest.mark.parametrize(
    ("load_factor", "factor"), [(1, 100), (1.5, 150), (2.25, 225), (1.1, 110), (100, 10000)]
)
def test_load_factor(load_factor: float, factor: int) -> None:
    """Two decimals of a load factor count (B1)."""
    assert member(load_factor=load_factor).factor == factor


@pytest.mark.parametrize(
    ("operator", "verdict", "failed_ago", "usable", "status"),
    [
        ("enabled", "passed", None, True, "ok"),
        ("drain", "passed", None, True, "drain"),
        ("disabled", "passed", None, False, "disabled"),
        ("stopped", "passed", None, False, "stopped"),
        ("enabled", "check failed", None, False, "check failed"),
        ("drain", "check failed", None, False, "drain, check failed"),
        ("enabled", "passed", 0.0, False, "in error"),
        ("enabled", "passed", 60.0, False, "in error"),
        ("enabled", "passed", 60.1, True, "ok"),
        ("drain", "passed", 60.0, False, "drain, in error"),
        ("drain", "passed", 60.1, True, "drain"),
        ("disabled", "passed", 60.1, False, "disabled"),
        ("stopped", "check failed", 1.0, False, "stopped, check failed, in error"),
        ("enabled", "check failed", 60.1, False, "check failed"),
        ("enabled", "held off", None, False, "held off"),
        ("enabled", "fenced", None, False, "fenced"),
        ("drain", "fenced", 1.0, False, "drain, fenced, in error"),
        ("enabled", "not checked yet", None, False, "not checked yet"),
    ],
)
def test_three_axes(
    operator: str, verdict: str, failed_ago: float | None, usable: bool, status: str
) -> None:
    """Operator, checks and traffic never hide each other; all must agree (B2, F6)."""
    made = member()
    made.operator = OperatorStatus(operator)
    made.verdict = Verdict(verdict)
    made.decide()
    made.error_since = None if failed_ago is None else NOW - failed_ago
    assert made.usable(NOW) is usable
    assert made.takes_sessions is (operator in ("enabled", "drain") and verdict == "passed")
    assert made.in_error(NOW) is (failed_ago is not None and failed_ago <= 60)
    assert made.status(NOW) == status


def test_retry_time_of_its_own() -> None:
    """Error ends strictly after the member's retry time, also with 0 (F6)."""
    made = member(retry_after=0)
    made.error_since = NOW
    assert not made.usable(NOW)
    assert made.usable(NOW + 0.001)


def test_configured_status() -> None:
    """A member starts with the status the operator wrote."""
    assert member(status="drain").status(NOW) == "drain"
    assert not member(status="disabled").usable(NOW)


def test_configure() -> None:
    """Other settings count from now on; what is known of the member while it runs stays."""
    made = member(route="server1", proxy_protocol="v1")
    made.operator = OperatorStatus.DRAIN
    made.verdict, made.error_since = Verdict.FAILED, NOW
    made.lbstatus, made.elected, made.kept, made.busy = -100, 4, 2, 3
    made.sent, made.received = 50, 60
    made.decide()
    other = BalancerSettings.model_validate(
        {
            "members": [
                {
                    "url": "http://server1.zarafa.com",
                    "route": "server1",
                    "load_factor": 3,
                    "retry_after": "5s",
                    "redirect_route": "server2",
                    "status": "disabled",
                }
            ],
            "sticky_session": "ROUTE",
            "session_cookie": {"lifetime": "10s"},
            "timeouts": {"connect": "1s", "response": "2s", "activesync": "1h", "tunnel": "4s"},
        }
    )
    made.configure(other.members[0], other)
    assert made.settings is other.members[0]
    assert (made.factor, made.retry_after, made.redirect_route) == (300, 5.0, b"server2")
    assert (made.connect_timeout, made.response_timeout) == (1.0, 2.0)
    assert (made.activesync_timeout, made.tunnel_timeout) == (3600.0, 4.0)
    assert (made.preamble, made.reuse) == (None, True)
    # what the file says of the status is the supervisor's to judge
    assert made.status(NOW) == "drain, check failed, in error"
    assert not made.takes_sessions
    assert (made.lbstatus, made.elected, made.kept, made.busy) == (-100, 4, 2, 3)
    assert (made.sent, made.received) == (50, 60)


def test_configure_drops_what_is_left_out() -> None:
    """What the other settings don't say is at its default again."""
    made = member(
        redirect_route="b", route="a", reuse_connections=False, timeouts={"connect": "1s"}
    )
    plain = member(route="a")
    balancer = BalancerSettings.model_validate({"members": [{"url": "http://a", "route": "a"}]})
    for each in (made, plain):
        each.configure(balancer.members[0], balancer)
    kept = ("settings",)
    for name in Member.__slots__:
        if name not in kept:
            assert getattr(made, name) == getattr(plain, name), name


@pytest.mark.parametrize(
    ("operator", "verdict", "in_error", "words"),
    [
        ("enabled", "passed", False, "ok"),
        ("enabled", "check failed", True, "check failed, in error"),
        ("drain", "passed", True, "drain, in error"),
        ("stopped", "check failed", False, "stopped, check failed"),
        ("enabled", "fenced", False, "fenced"),
        ("enabled", "held off", False, "held off"),
        ("drain", "not checked yet", False, "drain, not checked yet"),
    ],
)
def test_status_words(operator: str, verdict: str, in_error: bool, words: str) -> None:
    """Supervisor and workers say a status with the same words."""
    found = status_words(OperatorStatus(operator), Verdict(verdict), in_error=in_error)
    assert found == words


def test_shown_by_its_route() -> None:
    """A member is shown by its route, or by its URL if it has none, and with what it does."""
    assert repr(member(route="server1")) == "<Member server1 busy=0>"
    assert repr(member()) == "<Member http://server1.zarafa.com busy=0>"
