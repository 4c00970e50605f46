import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.settings import Balancer as BalancerSettings
from proxy.core.settings import SessionCookie as SessionCookieSettings
from proxy.core.sticky import RewriteRules, SessionCookie, StickySession, expires, signature

# 13:15:57 GMT; an hour later is the date in the example of C1.
SECOND = 1795353357


def balancer_settings(**options: Any) -> BalancerSettings:
    """The settings of the article's balancer, with changes."""
    plain = {
        "sticky_session": "BALANCEME",
        "members": [
            {"url": f"http://{route}.zarafa.com", "route": route}
            for route in ("server1", "server2")
        ],
    }
    return BalancerSettings.model_validate(plain | options)


def in_url(target: bytes, cookie: bytes | None = None, **options: Any) -> bytes | None:
    """The session route that is found, which is the same in both modes."""
    found = [
        StickySession(balancer_settings(**options), apache=apache).session_route(target, cookie)
        for apache in (False, True)
    ]
    assert found[0] == found[1]
    return found[0]


# --- the URL -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        b"/?BALANCEME=balancer.server2",
        b"/?a=b&BALANCEME=balancer.server2&c=d",
        b"/a;BALANCEME=balancer.server2",
        b"/?XBALANCEME=balancer.server2",
        b"/BALANCEME=balancer.server2",
        b"/BALANCEME=balancer.server2?a=b",
        b"/?BALANCEME&BALANCEME=balancer.server2",
        b"/?BALANCEME=&BALANCEME=balancer.server2",
        b"/?BALANCEME=?BALANCEME=balancer.server2",
        b"/?BALANCEME=balancer.server2&BALANCEME=balancer.server1",
    ],
)
def test_url(target: bytes) -> None:
    """The name counts wherever it stands, with the first value that isn't empty (S2, S3)."""
    assert in_url(target) == b"server2"


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/?BALANCEME",
        b"/?BALANCEME=",
        b"/?BALANCEME=&",
        b"/?balanceme=balancer.server2",
        b"/BALANCEME/balancer.server2",
    ],
)
def test_no_route_in_url(target: bytes) -> None:
    """Without name and value there is none, and the cookie is asked (S1, S2)."""
    assert in_url(target) is None
    assert in_url(target, b"BALANCEME=balancer.server1") == b"server1"


@pytest.mark.parametrize(
    ("target", "route"),
    [
        (b"/?BALANCEME=balancer.server2", b"server2"),
        (b"/?BALANCEME=balancer.server9", b"server9"),
        (b"/?BALANCEME=balancer", None),
        (b"/?BALANCEME=balancer.", None),
        (b"/?BALANCEME=balancer%2Eserver2", None),
    ],
)
def test_url_wins(target: bytes, route: bytes | None) -> None:
    """A value in the URL counts, known or not, with a route or not; no cookie then (S1, S4)."""
    assert in_url(target, b"BALANCEME=balancer.server1") == route


def test_slash_ends_no_route() -> None:
    """A value in the URL ends at ? or & (S3)."""
    assert in_url(b"/a;BALANCEME=b.server2/b") == b"server2/b"
    assert in_url(b"/a;BALANCEME=b.server2;c=d?e") == b"server2;c=d"


def test_semicolon_ends_parameter() -> None:
    """With semicolon_ends_parameter a ; ends it as well (S3)."""
    target = b"/a;BALANCEME=;BALANCEME=b.server2;c=d"
    assert in_url(target, semicolon_ends_parameter=True) == b"server2"


# --- the cookie --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cookie", "route", "apache"),
    [
        (b"BALANCEME=x.server2", b"server2", b"server2"),
        (b"a=b; BALANCEME=x.server2; c=d", b"server2", b"server2"),
        (b"a=b,BALANCEME=x.server2", b"server2", b"server2"),
        (b"BALANCEME =x.server2", b"server2", b"server2"),
        (b"BALANCEME= x.server2", b"server2", b"server2"),
        (b"BALANCEME\t=x.server2", b"server2", b"server2"),
        (b"BALANCEME=\tx.server2", b"server2", b"server2"),
        (b"\tBALANCEME=x.server2", b"server2", b"server2"),
        (b"BALANCEME==x.server2", b"server2", b"server2"),
        (b"BALANCEME=a=b.server2", b"server2", b"server2"),
        (b"BALANCEME=x.server2,y=z", b"server2", b"server2"),
        (b'BALANCEME="x.server2"', b'server2"', b'server2"'),
        (b"BALANCEME=x.server2 ; y=z", b"server2 ", b"server2 "),
        (b'a="BALANCEME=x.server2"', None, None),
        (b"XBALANCEME=x.server2", None, None),
        (b"BALANCEMEX=1; BALANCEME=x.server2", b"server2", b"server2"),
        (b"BALANCEME; BALANCEME=x.server2", b"server2", b"server2"),
        (b"balanceme=x.server2", None, None),
        (b"", None, None),
        (b"BALANCEME", None, None),
        (b"BALANCEME=", None, None),
        (b"a=b; BALANCEME=", None, None),
        # the odd rows: read strictly, but for Apache
        (b"a= BALANCEME=x.server2", None, b"server2"),
        (b"a=b BALANCEME=x.server2", None, b"server2"),
        (b"BALANCEME;BALANCEME=x.server2", b"server2", None),
        (b"BALANCEME=; BALANCEME=x.server2", b"server2", None),
    ],
)
def test_cookie(cookie: bytes, route: bytes | None, apache: bytes | None) -> None:
    """Each row of S5; where section X lets us, we read strictly."""
    found = [
        StickySession(balancer_settings(), apache=mode).session_route(b"/", cookie)
        for mode in (False, True)
    ]
    assert found == [route, apache]


def test_first_cookie_decides() -> None:
    """Of several cookies of the name the first one counts, usable or not (S6)."""
    assert in_url(b"/", b"BALANCEME=x.server9; BALANCEME=x.server1") == b"server9"
    assert in_url(b"/", b"BALANCEME=nothing; BALANCEME=x.server1") is None


def test_no_cookie() -> None:
    """A request without cookies asks for nothing."""
    assert in_url(b"/", None) is None


@pytest.mark.parametrize(
    ("value", "route"),
    [
        (b"balancer.server1", b"server1"),
        (b"a.b.server2", b"b.server2"),
        (b"balancer..server2", b".server2"),
        (b".server2", b"server2"),
        (b"server2", None),
        (b"x.", None),
    ],
)
def test_route_follows_the_first_separator(value: bytes, route: bytes | None) -> None:
    """No separator or nothing behind it is no route (S8, S9)."""
    assert in_url(b"/", b"BALANCEME=" + value) == route
    assert in_url(b"/?BALANCEME=" + value) == route


def test_separator() -> None:
    """Another character separates, or none: then the whole value is the route (S10)."""
    cookie = b"BALANCEME=a.b-server2"
    assert in_url(b"/", cookie, sticky_separator="-") == b"server2"
    assert in_url(b"/", cookie, sticky_separator="off") == b"a.b-server2"
    assert in_url(b"/", b"BALANCEME=", sticky_separator="off") is None


def test_names_of_cookie_and_parameter() -> None:
    """Each of two names is looked for in its own place only (S11)."""
    names = {"sticky_session": "JSESSIONID|jsessionid"}
    assert in_url(b"/;jsessionid=x.server1", None, **names) == b"server1"
    assert in_url(b"/;JSESSIONID=x.server1", None, **names) is None
    assert in_url(b"/", b"JSESSIONID=x.server1", **names) == b"server1"
    assert in_url(b"/", b"jsessionid=x.server1", **names) is None


@pytest.mark.parametrize("apache", [False, True])
def test_among_thousands(apache: bool) -> None:
    """A cookie is found behind thousands of others that look like it (H38, H52)."""
    cookie = b"XBALANCEME=x.server1; BALANCEMEX=x.server1; " * 2000 + b"BALANCEME=x.server2"
    sticky = StickySession(balancer_settings(), apache=apache)
    assert sticky.session_route(b"/", cookie) == b"server2"


# --- the cookie that we set --------------------------------------------------------------------


def test_expires() -> None:
    """The date has hyphens, English names and a day of two digits (C3)."""
    assert expires(SECOND + 3600) == "Sun, 22-Nov-2026 14:15:57 GMT"
    assert expires(0) == "Thu, 01-Jan-1970 00:00:00 GMT"


LINES: list[tuple[dict[str, Any], bool, str]] = [
    (
        {"domain": "zarafa.com"},
        False,
        "path=/; domain=zarafa.com; expires=Sun, 22-Nov-2026 14:15:57 GMT",
    ),
    (
        {"domain": ".zarafa.com", "path": "/app", "lifetime": "2m"},
        False,
        "path=/app; domain=.zarafa.com; expires=Sun, 22-Nov-2026 13:17:57 GMT",
    ),
    ({"lifetime": 0}, False, "path=/"),
    ({"lifetime": 0}, True, "path=/; secure; HttpOnly"),
    ({"lifetime": 0, "secure": False, "http_only": False}, True, "path=/"),
    ({"lifetime": 0, "secure": True, "http_only": True}, False, "path=/; secure; HttpOnly"),
    ({"lifetime": 0, "same_site": "Lax"}, False, "path=/; SameSite=Lax"),
    (
        {"domain": "zarafa.com", "lifetime": 0, "same_site": "None"},
        True,
        "path=/; domain=zarafa.com; secure; HttpOnly; SameSite=None",
    ),
]


@pytest.mark.parametrize(("options", "tls", "attributes"), LINES)
def test_cookie_line(options: dict[str, Any], tls: bool, attributes: str) -> None:
    """One line, the attributes in Apache's order and spelling (C1 to C5, H55)."""
    cookie = SessionCookie(SessionCookieSettings.model_validate(options), "BALANCEME", ".")
    line = cookie.line(b"server1", SECOND, tls=tls)
    assert line == f"Set-Cookie: BALANCEME=balancer.server1; {attributes}\r\n".encode()


@pytest.mark.parametrize(
    ("options", "separator", "value"),
    [
        ({}, "-", b"balancer-server1"),
        ({"prefix": ""}, ".", b".server1"),
        ({}, "off", b"server1"),
    ],
)
def test_cookie_value_is_read_back(options: dict[str, Any], separator: str, value: bytes) -> None:
    """What is written before the route is what the lookup skips (S8, S10)."""
    cookie = SessionCookie(SessionCookieSettings.model_validate(options), "BALANCEME", separator)
    line = cookie.line(b"server1", SECOND, tls=True)
    written = line.removeprefix(b"Set-Cookie: ").partition(b";")[0]
    assert written == b"BALANCEME=" + value
    assert in_url(b"/", written, sticky_separator=separator) == b"server1"


def test_cookie_line_of_each_second() -> None:
    """What is remembered within a second is kept apart by route and TLS, and dropped after (C3)."""
    cookie = SessionCookie(SessionCookieSettings(), "BALANCEME", ".")
    lines = {
        cookie.line(route, second, tls=tls)
        for second in (SECOND, SECOND + 1, SECOND)
        for route in (b"server1", b"server2")
        for tls in (False, True)
    }
    assert len(lines) == 8
    again = cookie.line(b"server2", SECOND, tls=False)
    assert again is cookie.line(b"server2", SECOND, tls=False)
    assert b"balancer.server2;" in again
    assert b"14:15:57" in again


# --- the article's rules -----------------------------------------------------------------------


def rules(renew: str = "own", **options: Any) -> RewriteRules:
    """The rewrite rules of server1's frontend."""
    cookie = {"assign": "own", "own_route": "server1", "renew": renew}
    settings = balancer_settings(**options)
    heirs = {gone.encode(): heir.encode() for gone, heir in settings.failover.items()}
    return RewriteRules(settings, SessionCookieSettings.model_validate(cookie), heirs)


@pytest.mark.parametrize(
    ("cookie", "route"),
    [
        (None, b"server1"),
        (b"x=y", b"server1"),
        (b"BALANCEME=balancer.server1", b"server1"),
        (b"BALANCEME=balancer.server2", None),
        (b"BALANCEME=balancer.server9", None),
        (b"XBALANCEME=balancer.server1", b"server1"),
        (b"BALANCEME=balancer.server10", b"server1"),
        (b"BALANCEME=balancerXserver1", b"server1"),
        (b'BALANCEME="balancer.server1"', None),
        (b"balanceme=balancer.server1", b"server1"),
        (b"BALANCEME=Balancer.server1", None),
        (b"BALANCEME", None),
        (b"BALANCEME=", None),
        (b"foo=BALANCEME", None),
        (b"BALANCEME=balancer.server2; BALANCEME=balancer.server1", b"server1"),
        (b"BALANCEME=balancer.server1; BALANCEME=balancer.server2", b"server1"),
        # several Cookie lines are tested joined (C7)
        (b"x=y, BALANCEME=balancer.server1", b"server1"),
    ],
)
def test_rules(cookie: bytes | None, route: bytes | None) -> None:
    """The column Set-Cookie of C8: the rules look at text (C7), the first one wins (C6)."""
    assert rules().route(cookie) == route


def test_rules_that_renew_all() -> None:
    """With renew: any there is a rule for each member, beyond the article's."""
    assert rules("any").route(b"BALANCEME=balancer.server2") == b"server2"
    assert rules("any").route(b"BALANCEME=balancer.server9") is None


def test_rules_for_failover() -> None:
    """The include's pairs come last: one for server1 itself never takes effect (C6, C12)."""
    assert rules(failover={"server2": "server1"}).route(b"BALANCEME=balancer.server2") == b"server1"
    assert rules(failover={"server1": "server2"}).route(b"BALANCEME=balancer.server1") == b"server1"
    assert rules(failover={"server2": "server1"}).route(b"BALANCEME=Balancer.server2") is None


@pytest.mark.parametrize(("separator", "value"), [("-", b"balancer-server1"), ("off", b"server1")])
def test_rules_know_the_separator(separator: str, value: bytes) -> None:
    """Whatever separates prefix and route, the cookie that was set is renewed (C9, S10)."""
    assert rules(sticky_separator=separator).route(b"BALANCEME=" + value) == b"server1"


# --- signed routes -----------------------------------------------------------------------------

NEW, OLD, OTHER = "a secret that is new", "a secret that is old", "a secret of others"


def signed(*secrets: str) -> tuple[StickySession, bytes]:
    """A finder with these secrets, and the cookie that is set with the first of them."""
    settings = balancer_settings(session_cookie={"secret": secrets})
    assert settings.session_cookie is not None
    cookie = SessionCookie(settings.session_cookie, "BALANCEME", ".")
    line = cookie.line(b"server1", 0, tls=True).removeprefix(b"Set-Cookie: ")
    return StickySession(settings), line.partition(b";")[0]


def test_signed_route_is_read_back() -> None:
    """What we signed we believe, in cookie and URL, however often it comes."""
    sticky, cookie = signed(NEW)
    assert re.fullmatch(rb"BALANCEME=balancer\.server1~[\w-]{22}", cookie)
    for _ in range(3):
        assert sticky.session_route(b"/", b"a=b; " + cookie) == b"server1"
        assert sticky.session_route(b"/?" + cookie, None) == b"server1"
    assert sticky.forged == 0


def test_rotation() -> None:
    """A second secret verifies what was signed before, and signs nothing."""
    sticky, cookie = signed(NEW, OLD)
    _, old = signed(OLD)
    assert sticky.session_route(b"/", old) == b"server1"
    assert cookie == signed(NEW)[1] != old


def test_forged_routes_count_as_none() -> None:
    """A route without a valid signature is none, and counted each time."""
    sticky, cookie = signed(NEW)
    route, _, signature = cookie.partition(b"~")
    forged = [
        route,
        route + b"~",
        route + b"~" + signature[:-1],
        route + b"~" + signature + b"A",
        route + b"~" + signature.swapcase(),
        cookie.replace(b"server1", b"server2"),
        signed(OTHER)[1],
    ]
    for number, value in enumerate(forged * 2):
        assert sticky.session_route(b"/", value) is None
        assert sticky.session_route(b"/?" + value, cookie) is None  # the URL wins (S2)
        assert sticky.forged == 2 * number + 2
    assert sticky.session_route(b"/", b"BALANCEME=balancer") is None
    assert sticky.forged == 2 * len(forged * 2)


def test_signature_is_for_one_cookie() -> None:
    """What is signed for one balancer's cookie is nothing to another's."""
    assert signature(NEW, "A", b"server1") != signature(NEW, "B", b"server1")


# --- what is told to people --------------------------------------------------------------------

SECRET = "0123456789abcdef"
PARTS = ["BALANCEME", "=", ".", ";", ",", "&", "?", " ", "x", "server1", "@", "~"]
PARTS += [f"server1~{signature(SECRET, 'BALANCEME', b'server1').decode()}"]
texts = st.lists(st.sampled_from(PARTS), max_size=12).map(lambda parts: "".join(parts).encode())


@given(texts, st.none() | texts, st.booleans(), st.sampled_from([{}, {"sticky_separator": "off"}]))
def test_what_is_looked_at_is_what_counts(
    query: bytes, cookie: bytes | None, apache: bool, options: dict[str, Any]
) -> None:
    """What people are told of a request's route is what it is led by, and isn't counted."""
    for secret in ({}, {"session_cookie": {"secret": SECRET}}):
        made = StickySession(balancer_settings(**options, **secret), apache=apache)
        sighting = made.look(b"/?" + query, cookie)
        assert made.forged == 0
        assert sighting.route == made.session_route(b"/?" + query, cookie)
        assert sighting.forged == bool(made.forged)
        assert made.signed == bool(secret)
        if sighting.value is not None:
            assert sighting.value in (query if sighting.in_url else cookie or b"")
