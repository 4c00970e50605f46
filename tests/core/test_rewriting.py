import pytest

from proxy.core.rewriting import Place, Rewriting

BASE = b"https://zarafa.com"
ROOT = [Place(b"http://server1.zarafa.com", b"", b""), Place(b"http://server2:8080", b"/app", b"")]
APP = [Place(b"http://server1", b"/webaccess", b"/app")]
APP_SLASH = [Place(b"http://server1", b"/webaccess/", b"/app/")]


def location(places: list[Place], value: bytes, *, apache: bool = False) -> bytes:
    """A Location as it is sent to the client, without the frontend's own address."""
    return Rewriting(places, {}, {}, apache=apache).location(value, BASE).removeprefix(BASE)


@pytest.mark.parametrize(
    ("places", "value", "ours"),
    [
        (ROOT, b"http://server1.zarafa.com/a?b#c", b"/a?b#c"),
        (ROOT, b"http://server1.zarafa.com", b"/"),
        (ROOT, b"http://server1.zarafa.com/", b"/"),
        (ROOT, b"http://server1.zarafa.com?a", b"/?a"),
        (ROOT, b"http://server1.zarafa.com#a", b"/#a"),
        (ROOT, b"HTTP://Server1.Zarafa.Com/A", b"/A"),
        (ROOT, b"http://server2:8080/app/x", b"/x"),
        (APP, b"http://server1/webaccess/n", b"/app/n"),
        (APP, b"http://server1/webaccess", b"/app"),
        (APP, b"http://server1/webaccess?n", b"/app?n"),
        (APP_SLASH, b"http://server1/webaccess/n", b"/app/n"),
        (APP_SLASH, b"http://server1/webaccess/", b"/app/"),
    ],
)
def test_location(places: list[Place], value: bytes, ours: bytes) -> None:
    """A member's address becomes ours, whichever member it is (P10, P11, P12, P14)."""
    assert [location(places, value, apache=apache) for apache in (False, True)] == [ours, ours]


@pytest.mark.parametrize(
    ("places", "value"),
    [
        (ROOT, b"/a"),
        (ROOT, b"a/b"),
        (ROOT, b""),
        (ROOT, b"//server1.zarafa.com/a"),
        (ROOT, b"https://server1.zarafa.com/a"),
        (ROOT, b"http://server3/a"),
        (ROOT, b"http://server2/app/x"),
        (ROOT, b"http://server2:8080/other"),
        (ROOT, b"balancer://cluster/a"),
        (APP, b"http://server1/other"),
        (APP, b"http://server1/WebAccess/n"),
        (APP_SLASH, b"http://server1/webaccess"),
    ],
)
def test_location_of_others(places: list[Place], value: bytes) -> None:
    """Relative values, other schemes, hosts, ports and paths are passed unchanged (P11, P13)."""
    assert [location(places, value, apache=apache) for apache in (False, True)] == [value, value]


@pytest.mark.parametrize(
    ("places", "value", "apaches"),
    [
        (ROOT, b"http://server1.zarafa.com.evil/x", b"/.evil/x"),
        (ROOT, b"http://server1.zarafa.com:8080/x", b"/:8080/x"),
        (ROOT, b"http://server1.zarafa.com@evil/", b"/@evil/"),
        (APP, b"http://server1/webaccess2/n", b"/app2/n"),
    ],
)
def test_location_ends_at_a_boundary(places: list[Place], value: bytes, apaches: bytes) -> None:
    """Behind a member's address begins a path, a query or a fragment; not for Apache (P11, X)."""
    assert location(places, value) == value
    assert location(places, value, apache=True) == apaches


def test_first_place_counts() -> None:
    """Places are tried in order (P14)."""
    assert location([*APP, Place(b"http://server1", b"", b"/b")], b"http://server1/x") == b"/b/x"
    assert location([Place(b"http://server1", b"", b"/b"), *APP], b"http://server1/webaccess") == (
        b"/b/webaccess"
    )


# --- cookies -----------------------------------------------------------------------------------

DOMAIN = {"server1.zarafa.com": "zarafa.com"}
PATH = {"/webaccess": "/"}


@pytest.mark.parametrize(
    ("value", "ours"),
    [
        (b"a=b; domain=server1.zarafa.com; path=/x", b"a=b; domain=zarafa.com; path=/x"),
        (b"a=b; Domain=SERVER1.Zarafa.com", b"a=b; Domain=zarafa.com"),
        (b"a=b;DOMAIN =server1.zarafa.com;secure", b"a=b;DOMAIN =zarafa.com;secure"),
        (b"a=b; path=/webaccess/sub; HttpOnly", b"a=b; path=/; HttpOnly"),
        (b"a=b; PATH=/webaccess", b"a=b; PATH=/"),
        (b"a=b; path=/WebAccess", b"a=b; path=/WebAccess"),
        (b"a=b; path=/x/webaccess", b"a=b; path=/x/webaccess"),
        (b"a=b; domain=.server1.zarafa.com", b"a=b; domain=.server1.zarafa.com"),
        (b"a=b; domain=server2.zarafa.com", b"a=b; domain=server2.zarafa.com"),
        (b"domain=server1.zarafa.com", b"domain=server1.zarafa.com"),
        (b"path=/webaccess; x", b"path=/webaccess; x"),
        (b"a=b; domain; path", b"a=b; domain; path"),
        (b'a="b;c"; xpath=/webaccess', b'a="b;c"; xpath=/webaccess'),
        (b"", b""),
    ],
)
def test_cookie(value: bytes, ours: bytes) -> None:
    """Domain and path are replaced as a whole, every other byte stays (P15, P16, H56)."""
    for apache in (False, True):
        assert Rewriting([], DOMAIN, PATH, apache=apache).cookie(value) == ours


def test_cookie_domain_is_complete() -> None:
    """The whole domain is compared; Apache looks at its start only (P15, X)."""
    value = b"a=b; domain=server1.zarafa.com.evil"
    assert Rewriting([], DOMAIN, {}).cookie(value) == value
    assert Rewriting([], DOMAIN, {}, apache=True).cookie(value) == b"a=b; domain=zarafa.com"


@pytest.mark.parametrize(
    ("domains", "paths", "touches"),
    [({}, {}, False), (DOMAIN, {}, True), ({}, PATH, True)],
)
def test_touches_cookies(domains: dict[str, str], paths: dict[str, str], touches: bool) -> None:
    """Without anything to replace cookies are left alone (P16)."""
    assert Rewriting([], domains, paths).touches_cookies is touches
