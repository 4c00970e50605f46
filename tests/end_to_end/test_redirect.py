"""Addresses: https for all, members' own ones turned into ours, and which request goes where."""

from typing import NamedTuple

import pytest

from tests.end_to_end.conftest import (
    NAME,
    Browser,
    Dial,
    Launcher,
    Members,
    Proxy,
    Yaml,
    fields_of,
    request,
    seen_by,
    settings_of,
    url_of,
)
from tests.end_to_end.raw_client import RawClient, Response
from tests.end_to_end.recording_member import RecordingMember, answer

pytestmark = pytest.mark.slow


class Site(NamedTuple):
    """A proxy with many mappings, and its members by name."""

    proxy: Proxy
    members: dict[str, RecordingMember]

    @property
    def https(self) -> str:
        """Where the first TLS frontend is, without path."""
        return self.proxy.url()


MAPPINGS: list[Yaml] = [
    {"path": "/", "balancer": "web"},
    {"path": "/webapp", "balancer": "app"},
    {"path": "/webapp/static/", "balancer": "static"},
    {"path": "/old/", "balancer": "old", "to": "/new/"},
    {"path": "/deep", "balancer": "deep"},
    {"path": "/deep/er/", "balancer": "deep", "to": "/"},
    {"path": "/raw", "balancer": "app", "rewrite_location": False},
    {"path": "/kept", "balancer": "app", "preserve_host": True},
    {
        "path": "/cookies",
        "balancer": "app",
        "cookie_domain": {"app.internal": "example.org"},
        "cookie_path": {"/internal": "/cookies"},
    },
    {"path": "/", "host": "push.example.org", "balancer": "push"},
    {"path": "/webapp", "host": "push.example.org", "balancer": "static"},
    {"path": "/", "host": "*.dav.example.org", "balancer": "dav"},
    {"path": "/", "host": "one.dav.example.org", "balancer": "app"},
]


@pytest.fixture(scope="module")
def site(serve_all: Launcher, members_all: Members) -> Site:
    """A frontend that maps, one that redirects to it, and a second one for one path alone."""
    names = ("web", "app", "app2", "old", "static", "deep", "push", "dav")
    members = {name: members_all(name) for name in names}
    balancers: Yaml = {
        name: {"members": [settings_of(members[name])]} for name in names if name != "app2"
    }
    balancers["app"]["members"].append(settings_of(members["app2"]) | {"hot_standby": True})
    balancers["deep"]["members"][0]["url"] += "/a/b"
    frontends = [
        serve_all.frontend(*MAPPINGS),
        serve_all.frontend(tls=False) | {"redirect_to_https": True},
        serve_all.frontend({"path": "/only/", "balancer": "app"}),
    ]
    return Site(serve_all.run({"frontends": frontends, "balancers": balancers}), members)


def ask(client: RawClient, data: bytes) -> Response:
    """One exchange on an open connection."""
    client.send(data)
    return client.read_response(data.partition(b" ")[0])


def with_port(site: Site, data: bytes) -> bytes:
    """A request as a browser writes it for a frontend that isn't on 443."""
    return data.replace(b"Host: " + NAME.encode(), b"Host: " + site.https[8:].encode())


def location(response: Response) -> str:
    """The one Location of a response."""
    (value,) = fields_of(response.fields, "location")
    return value


# --- http to https -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "OPTIONS"])
def test_plain_is_sent_to_https(method: str, site: Site, dial: Dial) -> None:
    """Every request is told its https address, with a method that may have a body kept (H47)."""
    client = dial(site.proxy, frontend=1)
    for target in ("/", "/webapp/?a=b&c=%2F%3d+", "/a%20b;c", "/?x=//y/../z"):
        body = b"mail" if method in ("POST", "PUT") else None
        response = ask(client, request(target, method=method, body=body))
        status = (
            b"301 Moved Permanently" if method in ("GET", "HEAD") else b"308 Permanent Redirect"
        )
        assert response.status_line == b"HTTP/1.1 " + status
        assert location(response) == site.https + target
        assert response.body == b""


def test_redirect_without_a_host(site: Site, dial: Dial) -> None:
    """An old client without Host is sent to server_name; a malformed Host to nowhere (H21)."""
    response = ask(dial(site.proxy, frontend=1), b"GET /a HTTP/1.0\r\n\r\n")
    assert location(response) == f"{site.https}/a"
    for host in (b"evil.example.com/x", b"a b", b"a\r\nHost: b", b"<script>", b"a:0", b"a@b"):
        client = dial(site.proxy, frontend=1)
        response = ask(client, b"GET /a HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
        assert response.status_line == b"HTTP/1.1 400 Bad Request"
        assert fields_of(response.fields, "location") == []
        assert host not in response.body


async def test_browser_ends_up_on_https(site: Site, browser: Browser) -> None:
    """A browser that was given an http address gets its page over https."""
    session = browser(site.proxy, frontend=1)
    async with session.get("/webapp/x?y=z") as response:
        assert str(response.url) == f"{site.https}/webapp/x?y=z"
        assert [old.status for old in response.history] == [301]
        assert await response.text() == "app"


# --- members' addresses --------------------------------------------------------------------------


def test_location_is_ours(site: Site, dial: Dial) -> None:
    """A member's own address becomes ours, whichever member it is, and no other (P10 to P13)."""
    app, app2 = (url_of(site.members[name]) for name in ("app", "app2"))
    cases = {
        f"{app}/webapp/": f"{site.https}/webapp/",
        f"{app}/webapp": f"{site.https}/webapp",
        f"{app}/webapp?a=b#c": f"{site.https}/webapp?a=b#c",
        f"{app2}/webapp/x": f"{site.https}/webapp/x",
        app.upper() + "/webapp/X": f"{site.https}/webapp/X",
        f"{app}/webapplication": f"{app}/webapplication",
        f"{app}/elsewhere": f"{app}/elsewhere",
        f"{app}.evil.example.com/webapp/": f"{app}.evil.example.com/webapp/",
        f"{app}1/webapp/": f"{app}1/webapp/",
        "/webapp/relative": "/webapp/relative",
        "relative?a=b": "relative?a=b",
        "https://sso.example.com/webapp/": "https://sso.example.com/webapp/",
        app.replace("http:", "https:") + "/webapp/": app.replace("http:", "https:") + "/webapp/",
        "": "",
    }
    member = site.members["app"]
    client = dial(site.proxy)
    for theirs, ours in cases.items():
        fields = [f"Location: {theirs}".encode(), f"Content-Location: {theirs}".encode()]
        other = f"Refresh: 0; url={theirs}".encode()
        member.scripts[b"/webapp/"] = [answer(b"", *fields, other, status=b"303 See Other")]
        response = ask(client, with_port(site, request("/webapp/")))
        assert location(response) == ours
        assert fields_of(response.fields, "content-location") == [ours]
        assert other in response.fields
    del member.scripts[b"/webapp/"]


@pytest.mark.parametrize(
    ("asked", "theirs", "ours"),
    [
        ("/old/x", "old /new/x /new/y", "/old/y"),
        ("/deep/x", "deep /a/b/deep/x /a/b/deep/y?z", "/deep/y?z"),
        ("/deep/er/x", "deep /a/b/x /a/b/y", "/deep/er/y"),
        ("/raw/x", "app /raw/x /raw/y", None),
    ],
)
def test_mapped_paths(asked: str, theirs: str, ours: str | None, site: Site, dial: Dial) -> None:
    """A prefix is exchanged on the way to the member, and back in Location (P14, R26, R27)."""
    name, arrives, sent = theirs.split()
    member = site.members[name]
    sent = url_of(member) + sent
    member.scripts[b"*"] = [answer(b"", b"Location: " + sent.encode(), status=b"302 Found")]
    response = ask(dial(site.proxy), with_port(site, request(asked)))
    del member.scripts[b"*"]
    assert member.record.seen[-1].target == arrives.encode()
    assert location(response) == (sent if ours is None else site.https + ours)


def test_cookies_are_ours(site: Site, dial: Dial) -> None:
    """Domain and path of a member's cookies are replaced where the mapping says so (P15, P16)."""
    member = site.members["app"]
    lines = [
        b"Set-Cookie: a=1; Domain=app.internal; path=/internal/x; Secure",
        b"Set-Cookie: b=/internal; domain=other.internal; Path=/other",
    ]
    for path in (b"/cookies", b"/webapp/cookies"):
        member.scripts[path] = [answer(b"", *lines)]
    client = dial(site.proxy)
    response = ask(client, request("/cookies"))
    assert fields_of(response.fields, "set-cookie") == [
        "a=1; Domain=example.org; path=/cookies; Secure",
        "b=/internal; domain=other.internal; Path=/other",
    ]
    response = ask(client, request("/webapp/cookies"))
    assert [
        b"Set-Cookie: " + value.encode() for value in fields_of(response.fields, "set-cookie")
    ] == (lines)


def test_host_for_the_member(site: Site, dial: Dial) -> None:
    """A member gets its own name in Host, or the client's where the mapping says so (R4)."""
    member = site.members["app"]
    client = dial(site.proxy)
    for target, host in (("/webapp/h", member.authority), ("/kept/h", NAME.encode())):
        ask(client, request(target))
        (seen,) = seen_by(member, path=target.encode())
        assert seen.value(b"host") == host
        assert seen.value(b"x-forwarded-host") == NAME.encode()


# --- which request goes where --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "path", "name"),
    [
        (NAME, "/", "web"),
        (NAME, "/index", "web"),
        (NAME, "/webapp", "app"),
        (NAME, "/webapp/", "app"),
        (NAME, "/webapp?x", "app"),
        (NAME, "/webapp/static/a.css", "static"),
        (NAME, "/webapp/static", "app"),
        (NAME, "/webapplication", "web"),
        (NAME, "/WEBAPP/", "web"),
        (NAME, "/web%61pp/", "app"),
        (NAME, "//webapp//x", "app"),
        (NAME, "/x/../webapp/./y", "app"),
        ("elsewhere.example.com", "/webapp/", "app"),
        ("push.example.org", "/", "push"),
        ("PUSH.example.ORG:443", "/x", "push"),
        ("push.example.org.", "/x", "push"),
        ("push.example.org", "/webapp/x", "static"),
        ("two.dav.example.org", "/x", "dav"),
        ("one.dav.example.org", "/x", "app"),
        ("dav.example.org", "/x", "web"),
        ("[::1]:8443", "/x", "web"),
    ],
)
def test_longest_prefix_of_the_host(
    host: str, path: str, name: str, site: Site, dial: Dial
) -> None:
    """Host first, then the longest prefix that ends with a segment decides (R26, D15)."""
    client = dial(site.proxy)
    data = request(path).replace(NAME.encode(), host.encode())
    assert ask(client, data).body == name.encode()
    # The absolute form names the host by itself, whatever Host says (H27).
    absolute = f"http://{host}{path}" if path.startswith("/") else path
    assert ask(client, request(absolute)).body == name.encode()


def test_unmapped_is_not_found(site: Site, dial: Dial) -> None:
    """A frontend knows its own mappings only; all else is 404 and reaches no member (H28)."""
    client = dial(site.proxy, frontend=2)
    assert ask(client, request("/only/x")).body == b"app"
    before = len(seen_by(*site.members.values()))
    for target in ("/", "/only", "/onlyx/", "/webapp/", "/only/../webapp/", "//evil.example.com/x"):
        response = ask(client, request(target))
        assert response.status_line == b"HTTP/1.1 404 Not Found"
        assert fields_of(response.fields, "set-cookie") == []
    assert len(seen_by(*site.members.values())) == before


def test_sessions_by_balancer(serve: Launcher, members: Members, dial: Dial) -> None:
    """Each balancer has sessions of its own, in cookies of its own, over all its mappings."""
    names = ("mail1", "mail2", "dav1", "dav2")
    made = {name: members(name) for name in names}
    balancers = {
        name: {
            "sticky_session": f"{name.upper()}_ROUTE",
            "session_cookie": {"path": "/"},
            "members": [settings_of(made[f"{name}{number}"]) for number in (1, 2)],
        }
        for name in ("mail", "dav")
    }
    mappings = [
        {"path": "/", "balancer": "mail"},
        {"path": "/caldav", "balancer": "dav"},
        {"path": "/carddav", "balancer": "dav"},
    ]
    proxy = serve.run({"frontends": [serve.frontend(*mappings)], "balancers": balancers})
    client = dial(proxy)
    cookie = "Cookie: DAV_ROUTE=balancer.dav2; MAIL_ROUTE=balancer.mail1"
    for _ in range(3):
        for path, name in (("/", "mail1"), ("/caldav/x", "dav2"), ("/carddav", "dav2")):
            response = ask(client, request(path, cookie))
            assert response.body == name.encode()
            (line,) = fields_of(response.fields, "set-cookie")
            assert line.startswith(f"{name[:-1].upper()}_ROUTE=balancer.{name};")
