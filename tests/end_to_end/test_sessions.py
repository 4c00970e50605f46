"""A session stays with its member: the first promise to users, with real cookies and clients."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable
from email.utils import mktime_tz, parsedate_tz
from http.cookies import SimpleCookie
from typing import NamedTuple

import pytest
from aiohttp import ClientSession, CookieJar
from yarl import URL

from proxy.lab.demo_server import DemoMember
from tests.end_to_end.conftest import (
    HOST,
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
    url_of,
)
from tests.end_to_end.raw_client import RawClient, Response
from tests.end_to_end.recording_member import RecordingMember, answer

pytestmark = pytest.mark.slow


class Cluster(NamedTuple):
    """A proxy before two members, for the tests that leave nothing behind."""

    proxy: Proxy
    members: tuple[RecordingMember, RecordingMember]


@pytest.fixture(scope="module")
def cluster(serve_all: Launcher, members_all: Members) -> Cluster:
    """Two members that answer with their names."""
    both = members_all("server1"), members_all("server2")
    return Cluster(serve_all(*both), both)


def session_cookies(response: Response) -> list[str]:
    """The lines that set our cookie."""
    lines = fields_of(response.fields, "set-cookie")
    return [line for line in lines if line.startswith("BALANCEME=")]


def ask(client: RawClient, *fields: str | bytes, target: str = "/") -> Response:
    """One GET on an open connection."""
    client.send(request(target, *fields))
    return client.read_response(b"GET")


async def served_by(session: ClientSession, path: str = "/") -> str:
    """The name of the member that answered."""
    async with session.get(path) as response:
        assert response.status == 200
        return await response.text()


# --- staying -------------------------------------------------------------------------------------


async def test_fifty_clients_keep_their_member(
    serve: Launcher, members: Members, browser: Browser
) -> None:
    """Each of many clients stays with one member, on kept and on new connections (S4, H57)."""
    proxy = serve(members("server1"), members("server2"))
    jars = [CookieJar() for _ in range(50)]

    async def visit(jar: CookieJar, requests: int) -> set[str]:
        session = browser(proxy, jar=jar)
        served = {await served_by(session, f"/{number}") for number in range(requests)}
        await session.close()
        return served

    first = await asyncio.gather(*[visit(jar, 1) for jar in jars])
    assert Counter(name for served in first for name in served) == {"server1": 25, "server2": 25}
    for requests in (6, 3, 1):
        assert await asyncio.gather(*[visit(jar, requests) for jar in jars]) == first


async def test_the_members_own_session_lives(
    serve: Launcher, browser: Browser, free_port: Callable[[], int]
) -> None:
    """The member's session, which only it knows, goes on counting beside our cookie (D75, H56)."""
    demos = [DemoMember(f"server{number}", free_port()) for number in (1, 2)]
    for demo in demos:
        await demo.start()
    proxy = serve(*[{"url": demo.address, "route": demo.name} for demo in demos])

    async def client() -> list[str]:
        session = browser(proxy)
        return [await served_by(session, "/webaccess/") for _ in range(6)]

    for pages in await asyncio.gather(*[client() for _ in range(10)]):
        assert len({page.partition(":")[0] for page in pages}) == 1
        counts = [re.findall(r"\d+", page.partition(":")[2])[0] for page in pages]
        assert counts == ["1", "2", "3", "4", "5", "6"]
    assert sum(len(demo.sessions) for demo in demos) == 10
    for demo in demos:
        await demo.stop()


async def test_a_session_spans_the_domain(
    serve: Launcher, members: Members, browser: Browser
) -> None:
    """A cookie for the domain holds for all its hosts; without one, for the one host (C2)."""
    proxy = serve(members("server1"), members("server2"))
    jar = CookieJar()
    first = await served_by(browser(proxy, NAME, jar=jar))
    for _ in range(3):
        assert await served_by(browser(proxy, "webmail.example.org", jar=jar)) == first
    cookie = jar.filter_cookies(URL("https://push.example.org/"))
    assert cookie["BALANCEME"].value == f"balancer.{first}"

    proxy = serve(members("server1"), members("server2"), balancer={"session_cookie": {}})
    jar = CookieJar()
    await served_by(browser(proxy, NAME, jar=jar))
    assert "BALANCEME" in jar.filter_cookies(URL(f"https://{NAME}/"))
    assert not jar.filter_cookies(URL("https://push.example.org/"))


def test_draining_member_keeps_its_sessions(serve: Launcher, members: Members, dial: Dial) -> None:
    """A draining member serves who already belongs to it, and nobody else (H54)."""
    server1, server2 = members("server1"), members("server2")
    drained = {"url": url_of(server1), "route": "server1", "status": "drain"}
    client = dial(serve(drained, server2))
    assert ask(client, "Cookie: BALANCEME=balancer.server1").body == b"server1"
    assert {ask(client).body for _ in range(6)} == {b"server2"}


def test_route_in_the_address(serve: Launcher, members: Members, dial: Dial) -> None:
    """A client without cookies is known by a parameter of the address, which wins (S1, S2)."""
    sticky = {"sticky_session": "BALANCEME|route"}
    client = dial(serve(members("server1"), members("server2"), balancer=sticky))
    for _ in range(3):
        assert ask(client, target="/?route=x.server2").body == b"server2"
        assert ask(client, target="/a;route=x.server1").body == b"server1"
    cookie = "Cookie: BALANCEME=balancer.server1"
    assert ask(client, cookie, target="/?a=b&route=x.server2").body == b"server2"


def test_route_in_the_members_cookie(serve: Launcher, members: Members, dial: Dial) -> None:
    """Members may carry the route in a cookie of their own; then we set none (S11)."""
    balancer = {"sticky_session": "ZARAFA_WEBACCESS", "session_cookie": None}
    client = dial(serve(members("server1"), members("server2"), balancer=balancer))
    for _ in range(3):
        response = ask(client, "Cookie: a=b; ZARAFA_WEBACCESS=0a1b2c.server2")
        assert response.body == b"server2"
        assert fields_of(response.fields, "set-cookie") == []


# --- the cookie ----------------------------------------------------------------------------------

ENDS = r"expires=(?P<expires>[A-Z][a-z]{2}, \d\d-[A-Z][a-z]{2}-\d{4} \d\d:\d\d:\d\d GMT)"
COOKIES: list[tuple[Yaml, str, int]] = [
    (
        {"domain": "example.org"},
        rf"BALANCEME=balancer\.server1; path=/; domain=example\.org; {ENDS}; secure; HttpOnly",
        3600,
    ),
    (
        {"path": "/mail", "prefix": "", "lifetime": "2h", "secure": False, "http_only": False},
        rf"BALANCEME=\.server1; path=/mail; {ENDS}",
        7200,
    ),
    (
        {"domain": ".example.org", "lifetime": 0, "same_site": "None", "prefix": "b"},
        r"BALANCEME=b\.server1; path=/; domain=\.example\.org; secure; HttpOnly; SameSite=None",
        0,
    ),
    (
        {"lifetime": "90s", "http_only": False, "same_site": "Lax", "prefix": "zarafa"},
        rf"BALANCEME=zarafa\.server1; path=/; {ENDS}; secure; SameSite=Lax",
        90,
    ),
]


def seconds(date: str) -> int:
    """A date of either field, in seconds since the epoch."""
    parsed = parsedate_tz(date)
    assert parsed is not None
    return mktime_tz(parsed)


def test_cookie_as_configured(serve: Launcher, members: Members, dial: Dial) -> None:
    """Each attribute is what the settings say, in Apache's order and spelling (C1 to C5, H55)."""
    member = members("server1")
    settings = {
        "frontends": [
            serve.frontend(
                *[
                    {"path": f"/{number}", "balancer": f"cluster{number}"}
                    for number in range(len(COOKIES))
                ]
            )
        ],
        "balancers": {
            f"cluster{number}": {
                "sticky_session": "BALANCEME",
                "session_cookie": cookie,
                "members": [{"url": url_of(member), "route": "server1"}],
            }
            for number, (cookie, _, _) in enumerate(COOKIES)
        },
    }
    client = dial(serve.run(settings))
    for number, (_, wanted, lifetime) in enumerate(COOKIES):
        response = ask(client, target=f"/{number}")
        (line,) = fields_of(response.fields, "set-cookie")
        found = re.fullmatch(wanted, line)
        assert found, line
        if lifetime:
            (date,) = fields_of(response.fields, "date")
            assert seconds(found["expires"]) - seconds(date) == lifetime


def test_cookie_is_renewed(cluster: Cluster, dial: Dial) -> None:
    """Every response moves the end of a session's life, so that a used one never ends (D56, C3)."""
    client = dial(cluster.proxy)
    ends: list[int] = []
    deadline = time.monotonic() + 5
    while len(set(ends)) < 2 and time.monotonic() < deadline:
        response = ask(client, "Cookie: BALANCEME=balancer.server2")
        (line,) = session_cookies(response)
        assert line.startswith("BALANCEME=balancer.server2;")
        found = re.search(ENDS, line)
        assert found
        ends.append(seconds(found["expires"]))
        (date,) = fields_of(response.fields, "date")
        assert ends[-1] - seconds(date) == 3600
    assert ends[-1] == ends[0] + 1


def test_cookie_belongs_to_every_kind_of_answer(cluster: Cluster, dial: Dial) -> None:
    """Errors, redirects and bodiless answers carry the cookie as well, first of all (C13, C15)."""
    statuses = [b"204 No Content", b"304 Not Modified", b"303 See Other", b"404 Not Found"]
    for member in cluster.members:
        for status in statuses:
            script = [answer(b"", b"Set-Cookie: theirs=1", status=status)]
            member.scripts[b"/" + status[:3]] = script
    client = dial(cluster.proxy)
    for status in statuses:
        response = ask(client, target=f"/{status[:3].decode()}")
        assert response.status_line == b"HTTP/1.1 " + status
        ours, theirs = fields_of(response.fields, "set-cookie")
        assert ours.startswith("BALANCEME=balancer.server")
        assert theirs == "theirs=1"
        assert response.fields[2].startswith(b"Set-Cookie: BALANCEME=")


# --- odd cookies ---------------------------------------------------------------------------------

ODD_COOKIES = [
    b"BALANCEME=balancer.server9",
    b"BALANCEME=balancer.server1x",
    b"BALANCEME=balancer.SERVER2",
    b"BALANCEME=balancer.",
    b"BALANCEME=balancer",
    b"BALANCEME=.",
    b"BALANCEME=",
    b"BALANCEME",
    b"balanceme=balancer.server2",
    b"XBALANCEME=balancer.server2",
    b'BALANCEME="balancer.server2"',
    b"BALANCEME=balancer.server2 x",
    b"BALANCEME=balancer.../../etc/passwd",
    b"BALANCEME=balancer.127.0.0.1:22",
    b"BALANCEME=balancer.{0}%s%n$(id)",
    b"BALANCEME=balancer.\xff\xfe\xe4",
    b"BALANCEME=balancer.server2\t\x80",
    b"BALANCEME=balancer." + b"x" * 8000,
    b";;; ,,=; BALANCEME =; =",
    b"$Version=1; $Path=/",
    b"; ".join(b"a%d=b" % number for number in range(1000)),
]


def test_odd_cookies_are_replaced(cluster: Cluster, dial: Dial) -> None:
    """What names no member is no error: it is placed anew, and a fresh cookie sent (H53, H55)."""
    client = dial(cluster.proxy)
    for cookie in ODD_COOKIES:
        response = ask(client, b"Cookie: " + cookie)
        assert response.status_line == b"HTTP/1.1 200 OK", cookie
        (line,) = session_cookies(response)
        assert line.startswith(f"BALANCEME=balancer.{response.body.decode()}; path=/;")


def test_first_exact_cookie_counts(cluster: Cluster, dial: Dial) -> None:
    """Look-alikes and odd neighbours steer nothing, the first exact name does (H52, S5, S6)."""
    client = dial(cluster.proxy)
    for cookie in (
        "Cookie: BALANCEME=balancer.server2",
        "Cookie: XBALANCEME=balancer.server1; BALANCEME=balancer.server2",
        'Cookie: a="b; c"; d=[}; BALANCEME=balancer.server2; e',
        "Cookie: BALANCEME=balancer.server2; BALANCEME=balancer.server1",
        "Cookie: BALANCEME=; BALANCEME=balancer.server2",
        "Cookie: a=b\r\nCookie: BALANCEME=balancer.server2",
    ):
        for _ in range(2):
            assert ask(client, cookie).body == b"server2", cookie


def test_cookie_goes_to_the_member_unchanged(cluster: Cluster, dial: Dial) -> None:
    """The Cookie field reaches the member byte for byte, each line of it (H22, H56)."""
    lines = [b'Cookie: a="b;c"; d=\xe4;;', b"Cookie: BALANCEME=balancer.server1; e={}"]
    ask(dial(cluster.proxy), *lines, target="/unchanged")
    (seen,) = seen_by(*cluster.members, path=b"/unchanged")
    assert [line for line in seen.lines if line.lower().startswith(b"cookie")] == lines


# --- assignment ----------------------------------------------------------------------------------

OWN = {"domain": "example.org", "assign": "own", "own_route": "server2"}


def test_own_member_takes_new_sessions(serve: Launcher, members: Members, dial: Dial) -> None:
    """With assign: own, a new session goes to own_route at once, and its cookie says so."""
    cookie = {"session_cookie": OWN}
    client = dial(serve(members("server1"), members("server2"), balancer=cookie))
    for _ in range(5):
        response = ask(client)
        assert response.body == b"server2"
        assert session_cookies(response)[0].startswith("BALANCEME=balancer.server2;")
    response = ask(client, "Cookie: BALANCEME=balancer.server1")
    assert response.body == b"server1"
    assert session_cookies(response)[0].startswith("BALANCEME=balancer.server1;")


async def test_first_request_elected(serve: Launcher, members: Members, browser: Browser) -> None:
    """first_request: elect shares out first requests; all later ones are own_route's (C10)."""
    cookie = {"session_cookie": {**OWN, "first_request": "elect"}}
    proxy = serve(members("server1"), members("server2"), balancer=cookie)
    sessions = [browser(proxy) for _ in range(6)]
    first = [await served_by(session) for session in sessions]
    assert Counter(first) == {"server1": 3, "server2": 3}
    for session in sessions:
        assert {await served_by(session) for _ in range(3)} == {"server2"}


async def test_two_frontends_share_their_sessions(
    serve: Launcher, members: Members, browser: Browser
) -> None:
    """As in the article: two proxies that never talk keep and route each other's sessions (D52)."""
    both = [members("server1"), members("server2")]
    proxies = [
        serve(*both, balancer={"session_cookie": {**OWN, "own_route": own}})
        for own in ("server1", "server2")
    ]
    for own, proxy in zip(("server1", "server2"), proxies, strict=True):
        jar = CookieJar()
        served = [await served_by(browser(proxy, jar=jar))]
        served += [await served_by(browser(each, jar=jar)) for each in proxies * 3]
        assert set(served) == {own}


@pytest.mark.parametrize(("renew", "lines"), [("any", 1), ("own", 0)])
def test_whose_cookies_are_renewed(
    renew: str, lines: int, serve: Launcher, members: Members, dial: Dial
) -> None:
    """The other frontend's cookie is routed, and prolonged unless renew: own says no (C9)."""
    cookie = {"session_cookie": {**OWN, "renew": renew}}
    client = dial(serve(members("server1"), members("server2"), balancer=cookie))
    response = ask(client, "Cookie: BALANCEME=balancer.server1")
    assert response.body == b"server1"
    assert len(session_cookies(response)) == lines
    response = ask(client, "Cookie: BALANCEME=balancer.server2")
    assert response.body == b"server2"
    assert len(session_cookies(response)) == 1


async def test_failover_map_moves_a_session(
    serve: Launcher, members: Members, browser: Browser
) -> None:
    """A taken over session is served by its heir, whose cookie comes in the same response (D54)."""
    all_three = [members(f"server{number}") for number in (1, 2, 3)]
    proxy = serve(*all_three, balancer={"failover": {"server2": "server1"}})
    session = browser(proxy)
    old = SimpleCookie("BALANCEME=balancer.server2; path=/; domain=example.org")
    session.cookie_jar.update_cookies(old, URL(proxy.url()))
    async with session.get("/") as response:
        assert response.status == 200
        assert await response.text() == "server1"
        assert response.cookies["BALANCEME"].value == "balancer.server1"
    assert await served_by(session) == "server1"
    moved, kept = proxy.access_lines(2)
    assert " session=moved route=server2 member=server1 attempts=1 " in moved
    assert " session=kept route=server1 member=server1 attempts=1 " in kept
    # No session begins at a member whose sessions another one has taken over.
    assert {await served_by(browser(proxy)) for _ in range(6)} == {"server1", "server3"}


def test_plain_frontend_shares_sessions(serve: Launcher, members: Members, dial: Dial) -> None:
    """Two frontends of one proxy route by the same cookie; Secure is for the one with TLS (C5)."""
    mapping = {"path": "/", "balancer": "cluster"}
    both = [members("server1"), members("server2")]
    proxy = serve.run(
        {
            "frontends": [serve.frontend(mapping), serve.frontend(mapping, tls=False)],
            "balancers": {
                "cluster": {
                    "sticky_session": "BALANCEME",
                    "session_cookie": {},
                    "members": [{"url": url_of(member), "route": member.name} for member in both],
                }
            },
        }
    )
    assert proxy.address(0)[0] == HOST
    for frontend, secure in ((0, True), (1, False)):
        client = dial(proxy, frontend=frontend)
        response = ask(client, "Cookie: BALANCEME=balancer.server2")
        assert response.body == b"server2"
        (line,) = session_cookies(response)
        assert line.endswith("; secure; HttpOnly") is secure
