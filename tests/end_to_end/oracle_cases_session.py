"""Oracle cases: session cookies (C), session routes (S), elections (B) and failover (F)."""

from collections.abc import Iterator
from dataclasses import replace

from tests.end_to_end.oracle_model import (
    ARTICLE,
    LARGE,
    Ask,
    Case,
    CookieSite,
    MemberSite,
    New,
    Site,
    Start,
    Step,
    Stop,
    Wait,
    asks,
    chunked,
    cookie,
    get,
    post,
    request,
    to,
)
from tests.end_to_end.recording_member import CONTINUE, Do, Script, answer

NO_COOKIE = Site(cookie=None)
RESETTING: Script = [Do.RESET]
CLOSING: Script = [Do.CLOSE]


def thrice(raw: bytes) -> tuple[Step, ...]:
    """Three times the same: a sticky request stays, an elected one goes to and fro."""
    return (Ask(raw), Ask(raw), Ask(raw))


def apart(*raws: bytes) -> tuple[Step, ...]:
    """One after the other, each on a connection of its own."""
    return tuple(step for raw in raws for step in (Ask(raw), New()))


# --- C: assignment and refresh -----------------------------------------------------------------

_C8 = {
    "absent": None,
    "other": b"x=y",
    "own-route": b"BALANCEME=balancer.server1",
    "other-route": b"BALANCEME=balancer.server2",
    "unknown-route": b"BALANCEME=balancer.server9",
    "longer-name": b"XBALANCEME=balancer.server1",
    "longer-route": b"BALANCEME=balancer.server10",
    "any-char-for-dot": b"BALANCEME=balancerXserver1",
    "quoted": b'BALANCEME="balancer.server1"',
    "lower-case-name": b"balanceme=balancer.server1",
    "capital-value": b"BALANCEME=Balancer.server1",
    "bare-name": b"BALANCEME",
    "empty-value": b"BALANCEME=",
    "name-as-value": b"foo=BALANCEME",
    "two-cookies-server2-first": b"BALANCEME=balancer.server2; BALANCEME=balancer.server1",
    "two-cookies-server1-first": b"BALANCEME=balancer.server1; BALANCEME=balancer.server2",
    "among-others": b"a=1; BALANCEME=balancer.server1; b=2",
    "empty-header": b"",
    "route-with-suffix": b"BALANCEME=balancer.server1.x",
    "other-prefix": b"BALANCEME=other.server1",
    "no-prefix": b"BALANCEME=.server1",
    "second-text-matches": b"BALANCEME=x.server2; y=BALANCEME=balancer.server1",
}


def _assignment() -> Iterator[Case]:
    for name, value in _C8.items():
        fields = [] if value is None else [cookie(value)]
        yield Case(f"assign-{name}", "C1 C7 C8", thrice(get(b"/", *fields)))


_STATUSES = {
    "201": b"201 Created",
    "302": b"302 Found",
    "401": b"401 Unauthorized",
    "404": b"404 Not Found",
    "500": b"500 Internal Server Error",
    "503": b"503 Service Unavailable",
}


def _cookie_on_statuses() -> Iterator[Case]:
    for name, status in _STATUSES.items():
        yield Case(
            f"cookie-on-{name}",
            "C13 C15 P8",
            asks(get()),
            scripts={b"*": [answer(b"x", b"X-Own: 1", status=status)]},
        )
    for name in ("204 No Content", "304 Not Modified"):
        head = b"HTTP/1.1 %s\r\nETag: x\r\nContent-Type: text/a\r\n\r\n" % name.encode()
        yield Case(f"cookie-on-{name[:3]}", "C13 P6", asks(get(), get()), scripts={b"*": [head]})
    yield Case("cookie-on-head", "C13 P6", asks(request(b"HEAD / HTTP/1.1"), get()))


def _cookie_more() -> Iterator[Case]:
    yield Case("cookie-on-503-of-ours", "C13 F14", asks(get()), down=(1, 2))
    yield Case("cookie-on-502-of-ours", "C13 F1 F14", asks(get()), scripts={b"*": CLOSING})
    yield Case("no-cookie-on-400", "C14", asks(request(b"GET / HTTP/1.1", host=None)))
    yield Case("no-cookie-on-404-for-slash", "C14 L12", asks(get(b"/a%2Fb")))
    yield Case("no-cookie-on-options-star", "C14 C17", asks(request(b"OPTIONS * HTTP/1.1")))
    yield Case("no-cookie-on-417", "C14 R15", asks(get(b"/", b"Expect: tea")))
    yield Case(
        "member-cookies-stay",
        "C15 P3",
        asks(get()),
        scripts={
            b"*": [
                answer(
                    b"x",
                    b"Set-Cookie: first=1",
                    b"X-Between: 1",
                    b"set-cookie: BALANCEME=mine; path=/x",
                    b"X-After: 1",
                )
            ]
        },
    )
    yield Case("cookie-on-favicon", "C17", asks(get(b"/favicon.ico"), get(b"/favicon.ico")))
    yield Case(
        "cookie-on-activesync-options",
        "C17 R17",
        asks(request(b"OPTIONS /Microsoft-Server-ActiveSync?Cmd=Ping HTTP/1.1")),
    )
    yield Case("cookie-on-post", "C17", asks(post(b"/form", b"a=b")))
    yield Case("first-request-quirk", "C10 C11", apart(get(), get(), get(b"/", to(1))))
    yield Case("other-sessions-not-prolonged", "C9", asks(get(b"/", to(2)), get(b"/", to(2))))
    yield Case(
        "cookie-with-slow-member",
        "C3 P4",
        asks(get()),
        scripts={b"*": [1.2, answer(b"slow")]},
    )
    yield Case(
        "cookie-with-members-date",
        "C3 P4",
        asks(get()),
        scripts={b"*": [answer(b"x", b"Date: Sun, 06 Nov 1994 08:49:37 GMT")]},
    )


def _cookie_attributes() -> Iterator[Case]:
    variants = {
        "session-only": CookieSite(lifetime=0),
        "one-minute": CookieSite(lifetime=1),
        "dotted-domain": CookieSite(domain=".zarafa.com"),
        "path": CookieSite(path="/webapp"),
        "secure": CookieSite(secure=True),
        "all": CookieSite(path="/x", secure=True, http_only=True, same_site="Lax"),
        "same-site-none": CookieSite(secure=True, same_site="None"),
    }
    for name, variant in variants.items():
        yield Case(f"attributes-{name}", "C1 C2 C3 C4 C5", asks(get()), Site(cookie=variant))
    yield Case("no-rules", "S15", apart(get(), get(), get(b"/", to(2))), NO_COOKIE)


def _failover_include() -> Iterator[Case]:
    site = Site(failover_include=True)
    four = apart(get(), get(b"/", to(1)), get(b"/", to(2)), get(b"/", to(2)))
    yield Case("include-members-up", "C12 C6", four, site)
    yield Case("include-server2-down", "C12 F4", four, site, down=(2,))
    yield Case("include-server1-down", "C12 F4", four, site, down=(1,))
    yield Case(
        "include-capital-b",
        "C12",
        apart(*[get(b"/", cookie(b"BALANCEME=Balancer.server2"))] * 2),
        site,
    )


# --- S: where the session route is found -------------------------------------------------------

_S2 = {
    "query": b"/?BALANCEME=b.server2",
    "query-second": b"/?a=1&BALANCEME=b.server2&c=3",
    "longer-name": b"/?XBALANCEME=b.server2",
    "path-segment": b"/BALANCEME=b.server2",
    "path-parameter": b"/a;BALANCEME=b.server2",
    "path-parameter-with-query": b"/a;BALANCEME=b.server2?x=1",
    "name-without-equals": b"/BALANCEME/x?BALANCEME=b.server2",
    "lower-case": b"/?balanceme=b.server2",
    "slash-does-not-end": b"/a;BALANCEME=b.server2/b",
    "semicolon-does-not-end": b"/a;BALANCEME=b.server2;x=1",
    "empty-first": b"/?BALANCEME=&BALANCEME=b.server2",
    "empty-only": b"/?BALANCEME=",
    "query-not-decoded": b"/?BALANCEME=b%2Eserver2",
    "path-decoded": b"/a;BALANCEME=balancer%2Eserver2",
    "semicolon-decoded": b"/a%3BBALANCEME=b.server2",
    "two-values": b"/?BALANCEME=b.server2&BALANCEME=b.server1",
    "path-before-query": b"/a;BALANCEME=b.server2?BALANCEME=b.server1",
    "no-separator": b"/?BALANCEME=server2",
    "unknown": b"/?BALANCEME=b.server9",
    "question-mark-ends": b"/?BALANCEME=b.server2?x",
}


def _url_routes() -> Iterator[Case]:
    for name, target in _S2.items():
        yield Case(f"url-{name}", "S2 S3 S4", thrice(get(target)), NO_COOKIE)
    both = {
        "url-before-cookie": b"/?BALANCEME=b.server2",
        "url-unknown-before-cookie": b"/?BALANCEME=b.server9",
        "url-without-route-before-cookie": b"/?BALANCEME=x",
        "url-empty-then-cookie": b"/?BALANCEME=",
    }
    for name, target in both.items():
        yield Case(name, "S1", thrice(get(target, to(1))))
    semicolon = Site(cookie=None, semicolon=True)
    for name in ("semicolon-does-not-end", "slash-does-not-end", "path-parameter"):
        yield Case(f"scolon-{name}", "S3", thrice(get(_S2[name])), semicolon)


_S5 = {
    "after-semicolon": b"a=b; BALANCEME=x.server2; c=d",
    "after-comma": b"a=b,BALANCEME=x.server2",
    "blank-before-equals": b"BALANCEME =x.server2",
    "blank-after-equals": b"BALANCEME= x.server2",
    "tab-before-equals": b"BALANCEME\t=x.server2",
    "tab-before-name": b"a=b;\tBALANCEME=x.server2",
    "two-equals": b"BALANCEME==x.server2",
    "equals-in-value": b"BALANCEME=a=b.server2",
    "blank-in-another-value": b"a= BALANCEME=x.server2",
    "comma-ends": b"BALANCEME=x.server2,y=z",
    "quoted": b'BALANCEME="x.server2"',
    "trailing-blank": b"BALANCEME=x.server2 ; y=z",
    "in-quotes-of-another": b'a="BALANCEME=x.server2"',
    "longer-name-before": b"XBALANCEME=x.server2",
    "longer-name-after": b"BALANCEMEX=1; BALANCEME=x.server2",
    "bare-name-then-blank": b"BALANCEME; BALANCEME=x.server2",
    "bare-name-no-blank": b"BALANCEME;BALANCEME=x.server2",
    "empty-first": b"BALANCEME=; BALANCEME=x.server2",
    "lower-case": b"balanceme=x.server2",
    "first-unusable": b"BALANCEME=x.server9; BALANCEME=x.server2",
    "no-separator": b"BALANCEME=server2",
    "empty-route": b"BALANCEME=x.",
    "two-dots": b"BALANCEME=x..server2",
    "first-dot-counts": b"BALANCEME=a.b.server2",
    "empty-prefix": b"BALANCEME=.server2",
    "capital-route": b"BALANCEME=x.Server2",
    "prefix-of-route": b"BALANCEME=x.server",
    "longer-route": b"BALANCEME=x.server22",
    "no-blank-after-semicolon": b"a=b;BALANCEME=x.server2",
}


def _cookie_routes() -> Iterator[Case]:
    for name, value in _S5.items():
        yield Case(f"route-{name}", "S5 S6 S8 S9 S12", thrice(get(b"/", cookie(value))), NO_COOKIE)
    lines = get(b"/", cookie(b"a=1"), b"X-Between: 1", cookie(b"BALANCEME=x.server2"))
    yield Case("route-in-second-cookie-line", "S7 R3", thrice(lines))
    lines = get(b"/", to(1), cookie(b"BALANCEME=x.server2"))
    yield Case("route-in-both-cookie-lines", "S7 S6", thrice(lines))


def _separators() -> Iterator[Case]:
    sites = {
        "separator-colon": (Site(cookie=None, separator="!"), b"BALANCEME=x!server2"),
        "separator-colon-dot-value": (Site(cookie=None, separator="!"), b"BALANCEME=x.server2"),
        "separator-off": (Site(cookie=None, separator="Off"), b"BALANCEME=server2"),
        "separator-off-dot-value": (Site(cookie=None, separator="Off"), b"BALANCEME=x.server2"),
    }
    for name, (site, value) in sites.items():
        yield Case(name, "S10", thrice(get(b"/", cookie(value))), site)
    two = Site(cookie=None, sticky="BALANCEME|sid")
    yield Case("two-names-cookie", "S11", thrice(get(b"/", to(2))), two)
    yield Case("two-names-parameter", "S11", thrice(get(b"/a;sid=x.server2")), two)
    yield Case("two-names-crossed-cookie", "S11", thrice(get(b"/", cookie(b"sid=x.server2"))), two)
    yield Case("two-names-crossed-url", "S11", thrice(get(b"/?BALANCEME=x.server2")), two)
    dotted = Site((MemberSite("a.b"), MemberSite("b.a")), cookie=None)
    yield Case("dotted-route", "S8", thrice(get(b"/", cookie(b"BALANCEME=x.b.a"))), dotted)
    nameless = Site((MemberSite("server1"), MemberSite(None)), cookie=None)
    yield Case("member-without-route", "S12", thrice(get(b"/", to(2))), nameless)
    none = Site(cookie=None, sticky=None)
    yield Case("no-sticky-session", "S1", thrice(get(b"/", to(2))), none)


def _sticky_flags() -> Iterator[Case]:
    for flag in "DSNHRI":
        site = Site((MemberSite("server1"), MemberSite("server2", flags=flag)), cookie=None)
        steps = asks(get(), get(), get(b"/", to(2)), get(b"/", to(2)), get(), get())
        yield Case(f"sticky-flag-{flag.lower()}", "S14 B2", steps, site)
    far = Site((MemberSite("server1"), MemberSite("server2", lbset=1)), cookie=None)
    yield Case("sticky-other-lbset", "S14 B7", asks(get(), get(), get(b"/", to(2)), get()), far)
    redirect = Site(
        (
            MemberSite("server1", redirect="server3"),
            MemberSite("server2"),
            MemberSite("server3"),
        ),
        cookie=None,
    )
    steps = asks(get(b"/", to(1)), get(b"/", to(1)), get(b"/", to(1)))
    yield Case("redirect-route-up", "S13", steps, redirect)
    yield Case("redirect-route-down", "S13", steps, redirect, down=(1,))
    yield Case("redirect-route-both-down", "S13", steps, redirect, down=(1, 3))
    standby = Site(
        (MemberSite("server1", redirect="server2"), MemberSite("server2", flags="H")),
        cookie=None,
    )
    yield Case("redirect-to-standby", "S13 S14", steps, standby, down=(1,))


# --- B: elections ------------------------------------------------------------------------------


def weighted(*factors: float, lbmethod: str = "byrequests") -> Site:
    """Members with these load factors."""
    members = tuple(
        MemberSite(f"server{number}", load_factor=factor)
        for number, factor in enumerate(factors, start=1)
    )
    return Site(members, cookie=None, lbmethod=lbmethod)


_WEIGHTS: dict[str, tuple[float, ...]] = {
    "1-1": (1, 1),
    "1-2": (1, 2),
    "3-1": (3, 1),
    "1.5-1": (1.5, 1),
    "1-1-1": (1, 1, 1),
    "2-3-5": (2, 3, 5),
}


def _elections() -> Iterator[Case]:
    day = asks(*[get()] * 24)
    for name, factors in _WEIGHTS.items():
        yield Case(f"byrequests-{name}", "B3", day, weighted(*factors))
    for name, factors in _WEIGHTS.items():
        if name not in ("1.5-1", "1-1-1"):
            yield Case(f"bytraffic-{name}", "B9", day, weighted(*factors, lbmethod="bytraffic"))
    for name in ("1-1", "1-2", "2-3-5"):
        site = weighted(*_WEIGHTS[name], lbmethod="bybusyness")
        yield Case(f"bybusyness-{name}", "B10", day, site)
    debt = [get()] * 4 + [get(b"/", to(1))] * 6 + [get()] * 12
    yield Case("debt-1-1", "B4", asks(*debt), weighted(1, 1))
    debt = [get()] * 8 + [get(b"/", to(1))] * 4 + [get()] * 16
    yield Case("debt-1-3", "B4", asks(*debt), weighted(1, 3))
    yield Case("debt-bybusyness", "B4 B10", asks(*debt), weighted(1, 3, lbmethod="bybusyness"))
    yield Case("debt-with-cookies", "B4 C10", asks(*[get(), get(b"/", to(1))] * 7))
    mixed = [get(b"/", to(2)), get(), get(b"/", to(9)), get(b"/", to(1)), get()] * 4
    yield Case("debt-mixed", "B4 S15", asks(*mixed), weighted(2, 3, 5))
    site = Site(
        (MemberSite("server1"), MemberSite("server2", lbset=1), MemberSite("server3", flags="H")),
        cookie=None,
    )
    yield Case("debt-counts-every-member", "B4", asks(*mixed), site)


def _outage() -> Iterator[Case]:
    steps = (
        *asks(get(), get(), get()),
        Stop(2),
        *asks(*[get()] * 7),
        Start(2),
        Wait(1.15),
        *asks(*[get()] * 6),
    )
    members = (MemberSite("server1"), MemberSite("server2", retry=1))
    yield Case("outage-1-1", "B5 F6", steps, Site(members, cookie=None))
    steps = (*asks(*[get()] * 4), Stop(3), *asks(*[get()] * 10))
    yield Case("outage-2-3-5", "B5 B6", steps, weighted(2, 3, 5))


def _spares() -> Iterator[Case]:
    def trio(*flags: str, sets: tuple[int, int, int] = (0, 0, 0)) -> Site:
        members = tuple(
            MemberSite(f"server{number}", flags=flag, lbset=lbset)
            for number, flag, lbset in zip((1, 2, 3), flags, sets, strict=True)
        )
        return Site(members, cookie=None)

    sites = {
        "standby": trio("", "", "H"),
        "spare": trio("", "", "R"),
        "spare-and-disabled": trio("", "D", "R"),
        "spare-and-drain": trio("", "N", "R"),
        "two-spares": trio("", "R", "R"),
        "spare-and-standby": trio("", "R", "H"),
        "lbset": trio("", "", "", sets=(0, 0, 1)),
        "two-in-second-lbset": trio("", "", "", sets=(0, 1, 1)),
        "standby-before-second-lbset": trio("", "H", "", sets=(0, 0, 1)),
    }
    four = asks(*[get()] * 6)
    for name, site in sites.items():
        yield Case(f"{name}-all-up", "B7 B8", four, site)
        yield Case(f"{name}-first-down", "B7 B8", four, site, down=(1,))
        yield Case(f"{name}-two-down", "B7 B8", four, site, down=(1, 2))
    for name, flag in {"disabled": "D", "stopped": "S", "draining": "N"}.items():
        site = Site(tuple(replace(member, flags=flag) for member in ARTICLE.members))
        yield Case(f"all-{name}", "B17", apart(get(), get(b"/", to(1))), site)
    site = Site((MemberSite("server1", flags="HD"), MemberSite("server2", flags="H")), cookie=None)
    yield Case("two-flags", "B2", asks(get(), get(b"/", to(1)), get()), site)


# --- F: failover -------------------------------------------------------------------------------


def _refused() -> Iterator[Case]:
    requests = {
        "get": get(b"/", to(1)),
        "post": post(b"/", b"a=b", to(1)),
        "post-large": post(b"/", LARGE, to(1)),
        "chunked-small": request(
            b"PUT / HTTP/1.1", to(1), b"Transfer-Encoding: chunked", body=chunked(b"abc", b"de")
        ),
        "chunked-large": request(
            b"PUT / HTTP/1.1", to(1), b"Transfer-Encoding: chunked", body=chunked(LARGE)
        ),
        "expect": post(b"/", b"a=b", to(1), b"Expect: 100-continue"),
        "propfind": request(b"PROPFIND / HTTP/1.1", to(1), b"Depth: 0"),
    }
    for name, raw in requests.items():
        yield Case(f"refused-{name}", "F1 F2 F3 F4", asks(raw, get(b"/", to(1))), down=(1,))
    yield Case("refused-elected", "F1 B6", asks(*[get()] * 4), down=(1,))
    yield Case("all-down", "F1 F5 F14 B17", apart(get(), post(b"/", b"a=b")), down=(1, 2))
    yield Case("all-down-keep-alive", "F14 P8", asks(get(b"/", to(1))), down=(1, 2))
    yield Case("all-down-head", "F14", asks(request(b"HEAD / HTTP/1.1", to(1))), down=(1, 2))
    steps = (*apart(get(b"/", to(1))), Start(1), *apart(get(b"/", to(1)), get(), get()))
    yield Case("all-down-one-returns", "F7", steps, down=(1, 2))
    steps = (*apart(get(b"/", to(1))), Start(2), *apart(get(b"/", to(1)), get(b"/", to(1))))
    yield Case("all-down-the-other-returns", "F7", steps, down=(1, 2))
    single = Site((MemberSite("server1"),), cookie=None)
    steps = (*apart(get(), get()), Start(1), *apart(get()))
    yield Case("single-member-down", "F5 F7", steps, single, down=(1,))


def _retry() -> Iterator[Case]:
    soon = Site((MemberSite("server1", retry=1), MemberSite("server2")), cookie=None)
    steps = (
        *asks(get(b"/", to(1)), get(b"/", to(1))),
        Start(1),
        *asks(get(b"/", to(1))),
        Wait(1.15),
        *asks(get(b"/", to(1)), get(b"/", to(1))),
    )
    yield Case("retry-back", "F6", steps, soon, down=(1,))
    steps = (
        *asks(get(b"/", to(1))),
        Wait(1.15),
        *asks(get(b"/", to(1))),
        Start(1),
        *asks(get(b"/", to(1))),
    )
    yield Case("retry-still-down", "F6", steps, soon, down=(1,))
    # With retry=0 later requests depend on microseconds in Apache (F13): one request only.
    never = Site((MemberSite("server1", retry=0), MemberSite("server2")), cookie=None)
    yield Case("retry-zero-elected", "F13 F6", asks(get()), never, down=(1,))


def _attempts() -> Iterator[Case]:
    three = tuple(MemberSite(f"server{number}") for number in (1, 2, 3))
    none = Site(cookie=None, max_attempts=0)
    yield Case("no-attempts", "F5", apart(*[get(b"/", to(1))] * 2), none, down=(1,))
    one = Site(three, cookie=None, max_attempts=1)
    sticky = apart(*[get(b"/", to(1))] * 3)
    yield Case("one-attempt-two-down", "F5", sticky, one, down=(1, 2))
    yield Case("three-members-two-down", "F5 F1", sticky, Site(three, cookie=None), down=(1, 2))
    yield Case("more-attempts", "F5", sticky, Site(three, cookie=None, max_attempts=5), down=(1, 2))
    stay = Site(cookie=None, no_failover=True)
    steps = apart(get(b"/", to(1)), get(b"/", to(1)), get(b"/", to(9)), get())
    yield Case("no-failover", "F9", steps, stay, down=(1,))
    yield Case("no-failover-up", "F9", steps, stay)
    faithful = Site((MemberSite("server1", flags="I"), MemberSite("server2")), cookie=None)
    yield Case("ignore-errors-down", "F8", apart(*[get(b"/", to(1))] * 2), faithful, down=(1,))
    blocked = Site((MemberSite("server1"), MemberSite("server2", flags="D")), cookie=None)
    steps = (*apart(get()), Start(1), *apart(get()))
    yield Case("recovery-with-disabled-member", "F7", steps, blocked, down=(1,))


def _broken() -> Iterator[Case]:
    after = get(b"/fine", to(1))
    for name, script in {"closed": CLOSING, "reset": RESETTING}.items():
        scripts = {b"/broken": script}
        first = asks(get(b"/broken", to(1)), after)
        yield Case(f"{name}-first-request", "F1", first, scripts=scripts)
        later = (*asks(after, get(b"/broken", to(1))), New(), *asks(after))
        yield Case(f"{name}-later-request", "F1", later, scripts=scripts)
        later = (*asks(after, post(b"/broken", b"a=b", to(1))), New(), *asks(after))
        yield Case(f"{name}-later-post", "F1", later, scripts=scripts)
        posted = asks(post(b"/broken", b"a=b", to(1)), after)
        yield Case(f"{name}-first-post", "F1 F2", posted, scripts=scripts)
        fresh = (*asks(get(b"/fine", to(2)), get(b"/broken", to(1))), New(), *asks(after, after))
        yield Case(f"{name}-later-request-new-connection", "F1", fresh, scripts=scripts)
    slow = Site(timeout=1)
    steps = asks(get(b"/slow", to(1)), after)
    scripts = {b"/slow": [1.6, Do.CLOSE]}
    yield Case("response-timeout", "F1 F14 F16", steps, slow, scripts)
    scripts = {b"/slow": [b"HTTP/1.1 200 OK\r\nX: y\r\n", 1.6, Do.CLOSE]}
    yield Case("response-timeout-in-head", "F1 F16", steps, slow, scripts)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
    scripts = {b"/slow": [head, 1.6, Do.CLOSE]}
    steps = (*asks(get(b"/slow", to(1))), New(), *asks(after))
    yield Case("response-timeout-in-body", "F1 P24", steps, slow, scripts)
    # More than the buffers between us take, so that the frontend is sending when it happens.
    gone: Script = [Do.LEAVE_BODY, 0.2, Do.RESET]
    steps = (*asks(post(b"/gone", LARGE * 400, to(1))), New(), *asks(after))
    yield Case("reset-while-sending-body", "F1 P31", steps, scripts={b"/gone": gone})


def _expect_unanswered() -> Iterator[Case]:
    silent: Script = [1.6, CONTINUE, Do.READ_BODY, answer(b"late")]
    yield Case(
        "no-continue-in-time",
        "F1",
        asks(post(b"/x", b"a=b", to(1), b"Expect: 100-continue"), get(b"/", to(1))),
        Site(timeout=1),
        per_member={1: {b"/x": silent}},
    )


SESSION_CASES = [
    *_assignment(),
    *_cookie_on_statuses(),
    *_cookie_more(),
    *_cookie_attributes(),
    *_failover_include(),
    *_url_routes(),
    *_cookie_routes(),
    *_separators(),
    *_sticky_flags(),
    *_elections(),
    *_outage(),
    *_spares(),
    *_refused(),
    *_retry(),
    *_attempts(),
    *_broken(),
    *_expect_unanswered(),
]
