"""Explanations: what they say of each rule, and that they say what happens."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.balancer import Balancer
from proxy.core.choice import Choice, Reason, Session
from proxy.core.explain import Asked, Entrance, Explanation, Known, explain
from proxy.core.explain_choice import Remarks, choice_steps
from proxy.core.health import Verdict
from proxy.core.mapping import Mapping, MappingTable
from proxy.core.member import Member, terms_of
from proxy.core.settings import Balancer as BalancerSettings
from proxy.core.settings import Mapping as MappingSettings
from proxy.core.settings import OperatorStatus
from proxy.core.sticky import signature
from proxy.core.takeover import Origin, Said, Takeover
from tests.core.test_balancer import ARTICLE, COOKIE, NOW, balancer, session

SECOND = 1764000000
ROOT = Said("root", SECOND - 60, "new disk")
HEIR = {"server2": Takeover("server1", Origin.OPERATOR, ROOT)}


def ask(
    cluster: Balancer,
    cookie: bytes | None = None,
    target: bytes = b"/",
    *,
    apache: bool = False,
    takeovers: dict[str, Takeover] | None = None,
    remarks: dict[Member, Remarks] | None = None,
) -> Explanation:
    """Why a request to this balancer goes where it does."""
    cluster.set_heirs({k.encode(): v.heir.encode() for k, v in (takeovers or {}).items()})
    mapping = Mapping(MappingSettings(path="/", balancer="cluster"), cluster)
    table = MappingTable([mapping], apache=apache)
    known = Known(NOW, SECOND, {"cluster": takeovers or {}}, remarks or {})
    entrance = Entrance("0.0.0.0:80", table, apache=apache)
    return explain(entrance, Asked(target, b"mail.zarafa.com", cookie), known)


def steps(cluster: Balancer, cookie: bytes | None = None, **options: Any) -> list[str]:
    """What is told behind the mapping."""
    return ask(cluster, cookie, **options).steps[3:]


# --- before a balancer -------------------------------------------------------------------------


def entrance(**options: Any) -> Entrance:
    """A frontend with two mappings."""
    cluster = balancer({})
    blocks: list[dict[str, Any]] = [
        {"path": "/webapp", "host": "mail.zarafa.com"},
        {"path": "/Microsoft-Server-ActiveSync", "response_timeout": "7s"},
    ]
    table = MappingTable(
        Mapping(MappingSettings(balancer="cluster", **block), cluster) for block in blocks
    )
    return Entrance("0.0.0.0:443", table, tls=True, server_name="us", **options)


@pytest.mark.parametrize(
    ("asked", "options", "status", "told"),
    [
        (Asked(b"/health"), {}, 200, "health_path: answered by balanceme itself with 200, since"),
        (Asked(b"/health"), {"leaving": True}, 503, "with 503, since it is to stop"),
        (
            Asked(b"/a?b", b"mail.zarafa.com"),
            {"redirect_port": 443},
            301,
            "redirect_to_https: answered with 301 Location: https://mail.zarafa.com/a?b",
        ),
        (
            Asked(b"/other", b"mail.zarafa.com"),
            {},
            404,
            "no mapping of this frontend fits host mail.zarafa.com and the path /other: 404",
        ),
        (Asked(b"/webapp"), {}, 404, "fits a request without a host and the path /webapp: 404"),
        (Asked(b"webapp"), {}, 400, "the request is refused with 400: malformed target"),
        (Asked(b"/a b"), {}, 400, "the request is refused with 400: malformed request line"),
        (Asked(b"/", b"a/b"), {}, 400, "the request is refused with 400: malformed Host"),
        (Asked(b"/%2e%2e/"), {}, 400, "refused with 400: path leads above the root"),
    ],
)
def test_own_answers(asked: Asked, options: dict[str, Any], status: int, told: str) -> None:
    """What we answer ourselves is told in one step behind the frontend, and it is the last."""
    found = explain(entrance(health_path=b"/health", **options), asked, Known(NOW, SECOND))
    assert (found.status, found.members, found.choice) == (status, (), None)
    assert found.steps[0] == "frontend 0.0.0.0:443 speaks TLS"
    assert told in found.steps[1]
    assert len(found.steps) == 2


def test_mappings() -> None:
    """The mapping that applies is named, and whose timeout counts (R26, D33)."""
    found = explain(entrance(), Asked(b"/webapp/x", b"mail.zarafa.com"), Known(NOW, SECOND))
    assert found.steps[1:3] == [
        (
            "mapping /webapp of host mail.zarafa.com is the longest that fits /webapp/x;"
            " it leads to balancer cluster"
        ),
        "no ActiveSync path: timeouts.response says how long the member may be silent",
    ]
    found = explain(entrance(), Asked(b"/Microsoft-Server-ActiveSync"), Known(NOW, SECOND))
    assert found.steps[2] == (
        "an ActiveSync path: the mapping's response_timeout (7 s) says how long the member may be"
        " silent"
    )
    assert (
        "timeouts.activesync" in ask(balancer({}), target=b"/microsoft-server-activesync").steps[2]
    )


# --- the session -------------------------------------------------------------------------------

SIGNED: dict[str, Any] = {"session_cookie": {"secret": "0123456789abcdef"}}
SIGNATURE = signature("0123456789abcdef", "BALANCEME", b"server2")


@pytest.mark.parametrize(
    ("options", "target", "cookie", "told"),
    [
        ({}, b"/", None, "the URL has no parameter BALANCEME, the request no cookie at all"),
        ({}, b"/", b"a=b; BALANCEME=", "BALANCEME, the request no cookie BALANCEME with a value"),
        ({}, b"/", b"BALANCEME=x", 'BALANCEME is "x": without a route behind a "." it asks for'),
        ({}, b"/", b"BALANCEME=x.", 'is "x.": without a route behind a "." it asks for none'),
        ({}, b"/", session("server2"), 'asks for route server2, behind the first "."'),
        (
            {"sticky_session": "BALANCEME|route"},
            b"/?route=x.server1",
            session("server2"),
            (
                'URL parameter route is "x.server1", and counts before cookies: it asks for route'
                ' server1, behind the first "."'
            ),
        ),
        (
            {"sticky_separator": "off"},
            b"/",
            b"BALANCEME=server2",
            'cookie BALANCEME is "server2": it asks for route server2, all of it',
        ),
        (
            SIGNED,
            b"/",
            session("server2~" + SIGNATURE.decode()),
            'it asks for route server2, behind the first ".", and its signature is valid',
        ),
        (SIGNED, b"/", session("server2~x"), "its signature is not valid, so it asks for no route"),
        ({}, b"/", b"BALANCEME=\xff.\xfe", r'is "\xff.\xfe": it asks for route \xfe'),
        ({"sticky_session": None}, b"/", session("server2"), "no sticky_session: no session"),
    ],
)
def test_session_route(
    options: dict[str, Any], target: bytes, cookie: bytes | None, told: str
) -> None:
    """Where a route was looked for, what was read there, and what it says (S1 to S11)."""
    assert told in steps(balancer({}, {}, **options), cookie, target=target)[0]


def test_taken_over() -> None:
    """A takeover is told with who said so, when and why, along a chain of them."""
    chain = {
        **HEIR,
        "server1": Takeover("server3", Origin.CHECKS, Said("checks", SECOND, "http: 503")),
    }
    told = steps(balancer({}, {}, {}, **COOKIE), session("server2"), takeovers=chain)
    assert told[1:6] == [
        (
            "server2: server1 has taken over its sessions, said by root on"
            " Mon, 24 Nov 2025 15:59:00 GMT: new disk"
        ),
        (
            "server1: server3 has taken over its sessions, said by checks on"
            " Mon, 24 Nov 2025 16:00:00 GMT: http: 503 (checks)"
        ),
        (
            "member server1: server3 has taken over its sessions, said by checks on"
            " Mon, 24 Nov 2025 16:00:00 GMT: http: 503 (checks); takes nothing"
        ),
        (
            "member server2: server1 has taken over its sessions, said by root on"
            " Mon, 24 Nov 2025 15:59:00 GMT: new disk; takes nothing"
        ),
        "member server3: takes its own sessions and new ones",
    ]
    assert told[6] == "server3 has taken over and can be used: the session moves there"


def test_long_routes() -> None:
    """A route as long as they may be is known as any other."""
    long = "r" * 63
    takeovers = {long: Takeover("server1", Origin.FILE, Said("failover_file", SECOND))}
    found = ask(balancer({}, {"route": long}), session(long), takeovers=takeovers)
    assert [member.name for member in found.members] == ["server1"]
    assert found.steps[4].startswith(f"{long}: server1 has taken over its sessions, said by")
    assert found.steps[6].endswith("takes nothing")


@pytest.mark.parametrize(
    ("failback", "told"),
    [
        ("stay", "; homes are passed over (failback is stay)"),
        ("return", "; failback: return takes it home as soon as that is back"),
        ("expire", "; failback: expire takes it home as soon as that is back"),
    ],
)
def test_away(failback: str, told: str) -> None:
    """A session that was taken over is told with its home, and when it returns."""
    cluster = balancer({}, {"status": "drain"}, failback=failback, **COOKIE)
    found = steps(cluster, b"BALANCEME=balancer@server2.server1")
    assert found[0].endswith("it is the session of a member that another one took over from")
    assert found[1] == f"its home is server2, and it is at server1{told}"
    stays = "server1 has that route and can be used: the session stays with it"
    away = "its home can't have it yet: the session stays with server1"
    assert found[4] == (stays if failback == "stay" else away)


def test_away_until() -> None:
    """The moment until which a session stays away is told, whatever it is."""
    cluster = balancer({}, {}, failback="expire", **COOKIE)
    found = steps(cluster, b"BALANCEME=balancer@server2@1764000060.server1")
    assert found[1].endswith(
        "expire takes it home after Mon, 24 Nov 2025 16:01:00 GMT, once that is back"
    )
    assert "year" not in steps(cluster, b"BALANCEME=balancer@server2@999999999999999.server1")[1]


# --- the members -------------------------------------------------------------------------------


def test_members() -> None:
    """Each member is told with what people, checks and traffic say of it, and what it takes."""
    cluster = balancer(
        {"status": "drain"},
        {"status": "disabled"},
        {},
        {},
        {"hot_standby": True},
        {"hot_spare": True},
        {"lbset": 1, "route": None},
    )
    members = cluster.members
    cluster.set_operator_status(members[1], OperatorStatus.STOPPED)
    cluster.set_verdict(members[2], Verdict.FAILED)
    cluster.put_in_error(members[3], NOW - 18)
    remarks = {members[1]: Remarks(ROOT), members[2]: Remarks(reason="web: 503")}
    found = steps(cluster, remarks=remarks)
    assert found[1:8] == [
        "member server1: drained by the configuration; of lbset 0; takes its own sessions only",
        (
            "member server2: stopped by root on Mon, 24 Nov 2025 15:59:00 GMT: new disk;"
            " of lbset 0; takes nothing"
        ),
        "member server3: check failed (web: 503); of lbset 0; takes nothing",
        "member server4: in error for 42 s more (retry_after 60 s); of lbset 0; takes nothing",
        (
            "member server5: a hot standby; of lbset 0; takes its own sessions and new ones when"
            " nobody else can"
        ),
        (
            "member server6: a hot spare; of lbset 0; takes its own sessions and new ones in the"
            " place of one that can't"
        ),
        (
            "member http://server7.zarafa.com: of lbset 1; takes new sessions; without a route it"
            " keeps none"
        ),
    ]
    assert found[9] == (
        "server6 (load factor 1): the only one that can be elected; lbset 0 is the lowest with"
        " anybody"
    )


def test_fenced() -> None:
    """Who is fenced is told with when and why."""
    cluster = balancer({}, {})
    cluster.set_verdict(cluster.members[0], Verdict.FENCED)
    remarks = {cluster.members[0]: Remarks(fenced=Said("checks", SECOND, "smtp: refused"))}
    assert steps(cluster, remarks=remarks)[1] == (
        "member server1: fenced by checks on Mon, 24 Nov 2025 16:00:00 GMT: smtp: refused;"
        " takes nothing"
    )


# --- the choice and the cookie -----------------------------------------------------------------


def test_elected() -> None:
    """Several candidates are all named, since each worker elects by its own counts."""
    found = ask(balancer({}, {"load_factor": 2}, {"status": "drain"}, **COOKIE))
    assert found.steps[-3:] == [
        "a member is elected",
        (
            "server1 (load factor 1), server2 (load factor 2): byrequests elects one of them, each"
            " worker by its own counts"
        ),
        "the response sets the cookie, for route server2",
    ]
    assert [member.name for member in found.members] == ["server2", "server1"]
    assert found.cookie.startswith(b"Set-Cookie: BALANCEME=balancer.server2; path=/; expires=")


def test_a_standby_is_elected() -> None:
    """Why a hot standby is elected is told."""
    cluster = balancer({"status": "disabled"}, {"hot_standby": True})
    assert steps(cluster)[-2].endswith("elected; a hot standby, since nobody else can be")


@pytest.mark.parametrize(
    ("changes", "options", "cookie", "told"),
    [
        (
            [{}, {"status": "disabled", "redirect_route": "server1"}],
            {},
            session("server2"),
            "server2 can't be used, and redirect_route leads to server1: the session moves there",
        ),
        (
            [{}, {"status": "disabled", "takeover": "server1"}],
            {},
            session("server2"),
            "server2 can't be used, and takeover leads to server1: the session moves there",
        ),
        (
            [{}, {"status": "disabled"}],
            {"no_failover": True},
            session("server2"),
            "server2 can't be used, and it goes to no other one (no_failover)",
        ),
        (
            [{}, {"status": "disabled"}],
            {},
            session("server2"),
            "server2 can't be used: another one is elected, to which the session moves",
        ),
        ([{"status": "disabled"}], {}, None, "no member can be used"),
        (
            [{}, {}],
            {"session_cookie": {"own_route": "server2", "assign": "own"}},
            None,
            "server2 is own_route, which takes new sessions (session_cookie.assign)",
        ),
        (
            [{}, {"status": "drain"}],
            {"session_cookie": {"own_route": "server2", "assign": "own"}},
            None,
            "own_route server2 can't take it: a member is elected",
        ),
        (
            [{}, {}],
            {"session_cookie": {"own_route": "server2", "assign": "own", "first_request": "elect"}},
            None,
            "a member is elected, whoever own_route is (session_cookie.first_request)",
        ),
        ([{}], {}, session("server9"), "no member has the route server9: it is as good as none"),
        (
            [{}, {}],
            {"failback": "return"},
            b"BALANCEME=balancer@server2.server1",
            "server2 is its home and is back: the session returns there (failback)",
        ),
    ],
)
def test_reasons(
    changes: list[dict[str, Any]], options: dict[str, Any], cookie: bytes | None, told: str
) -> None:
    """Each reason is told by the setting that made it so."""
    assert told in steps(balancer(*changes, **{**COOKIE, **options}), cookie)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_told(reason: Reason) -> None:
    """Whatever the reason, there is a sentence for it."""
    cluster = balancer({}, {})
    choice = Choice(cluster.members[0], Session.KEPT, reason, b"server2", None)
    (told,) = choice_steps(cluster, choice, (), {})
    assert "server" in told or "member" in told
    assert "{" not in told


def test_waiting() -> None:
    """That a request waits for a member before it gets 503 is told (B16)."""
    found = steps(balancer({"status": "disabled"}, wait_timeout="5s"))
    assert found[-2] == "answered with 503 once wait_timeout (5 s) is over"


def test_no_failover_waits_for_nobody() -> None:
    """Who goes to no other member gets 503 at once."""
    cluster = balancer({}, {"status": "disabled"}, wait_timeout="5s", no_failover=True)
    assert steps(cluster, session("server2"))[-2] == "answered with 503"


def test_all_in_error() -> None:
    """That all members are tried at once is told as what it is (F7)."""
    cluster = balancer({}, {}, **COOKIE)
    for member in cluster.members:
        cluster.put_in_error(member, NOW)
    found = ask(cluster, session("server2"))
    assert [member.name for member in found.members] == ["server2"]
    assert "takes nothing" in found.steps[5]
    assert (
        found.steps[6] == "every member that could serve is in error: all of them are tried at once"
    )


@pytest.mark.parametrize(
    ("options", "cookie", "told"),
    [
        ({}, session("server2"), "no session_cookie: balanceme sets none"),
        (COOKIE, session("server2"), "the response prolongs the cookie, for route server2"),
        (
            {"session_cookie": {"assign": "own", "own_route": "server1", "renew": "own"}},
            session("server2"),
            "the cookie isn't prolonged: session_cookie.renew is own, and it isn't own_route's",
        ),
        (COOKIE, session("server3"), "the response sets the cookie, for route server1"),
    ],
)
def test_cookie(options: dict[str, Any], cookie: bytes, told: str) -> None:
    """Whether the response sets a cookie, and why (C1 to C9)."""
    found = ask(balancer({}, {"status": "drain"}, **options), cookie)
    assert found.steps[-1] == told
    assert bool(found.cookie) == told.startswith("the response")


def test_cookie_without_a_member() -> None:
    """Nobody's response sets no cookie, nor does that of a member without a route."""
    assert steps(balancer({"status": "disabled"}, **COOKIE))[-1] == (
        "nobody serves: the cookie stays as it is"
    )
    assert steps(balancer({"route": None}, **COOKIE))[-1] == (
        "http://server1.zarafa.com has no route: no cookie is set"
    )


@pytest.mark.parametrize(
    ("cookie", "told"),
    [
        (None, "the Cookie field doesn't name BALANCEME: own_route server1 is set"),
        (session("server1"), r"rewrite rules: BALANCEME=balancer.server1 is in the Cookie field"),
        (session("server2"), "BALANCEME=balancer.server2 is in the Cookie field: server1 is set"),
        (session("server3"), "rewrite rules: none fires for this Cookie field, no cookie is set"),
    ],
)
def test_rewrite_rules(cookie: bytes | None, told: str) -> None:
    """For Apache the rewrite rule that fired is told, takeovers among them (C6 to C12)."""
    cluster = balancer({}, {}, {}, apache=True, **ARTICLE)
    found = steps(cluster, cookie, apache=True, takeovers=HEIR)
    assert told in found[-1]
    assert not any("taken over" in step for step in found[:-1])


# --- it says what happens ----------------------------------------------------------------------

ROUTES = ["server1", "server2", "server3"]
routes = st.sampled_from(ROUTES)
some_members = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "route": st.none(),
            "lbset": st.integers(0, 1),
            "load_factor": st.sampled_from([1, 2.5]),
            "role": st.sampled_from(["hot_standby", "hot_spare"]),
            "redirect_route": routes,
            "takeover": routes,
            "ignore_errors": st.just(True),
        },
    ),
    min_size=1,
    max_size=3,
)
cookies = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {},
        optional={
            "own": routes,
            "first_request": st.sampled_from(["own", "elect"]),
            "renew": st.sampled_from(["any", "own"]),
            "secret": st.just("0123456789abcdef"),
        },
    ),
)
some_options = st.fixed_dictionaries(
    {"session_cookie": cookies},
    optional={
        "sticky_session": st.sampled_from([None, "B|r"]),
        "sticky_separator": st.just("off"),
        "failback": st.sampled_from(["return", "expire"]),
        "no_failover": st.just(True),
        "lbmethod": st.sampled_from(["bybusyness", "bytraffic"]),
    },
)
values = st.one_of(
    routes.map(lambda route: f"balancer.{route}"),
    st.tuples(routes, routes).map(lambda two: f"balancer@{two[0]}.{two[1]}"),
    st.tuples(routes, routes).map(lambda two: f"balancer@{two[0]}@1764000001.{two[1]}"),
    routes.map(lambda r: f"x.{r}~{signature('0123456789abcdef', 'B', r.encode()).decode()}"),
    st.sampled_from(["x", "server1", "balancer.", "a.b.server1", "", "@.", "balancer.server9"]),
)
states = st.tuples(
    st.sampled_from(OperatorStatus),
    st.sampled_from([Verdict.PASSED, Verdict.PASSED, Verdict.FAILED, Verdict.FENCED]),
    st.sampled_from([None, None, NOW - 10, NOW - 100]),
)


@st.composite
def situations(draw: st.DrawFn) -> dict[str, Any]:
    """Settings, how members stand, who has taken over, and what a request says."""
    blocks = []
    for place, changes in enumerate(draw(some_members), 1):
        block = {"url": f"http://server{place}", "route": f"server{place}", **changes}
        role = block.pop("role", None)
        blocks.append({**block, str(role): True} if role else block)
    options: dict[str, Any] = draw(some_options)
    cookie = options.pop("session_cookie")
    if cookie is not None:
        own = cookie.pop("own", None)
        assigned = {"assign": "own", "own_route": own} if own else {}
        options["session_cookie"] = {**cookie, **assigned}
    # Later ones take over: there is no circle.
    gone = draw(st.lists(st.sampled_from([(0, 1), (0, 2), (1, 2)]), max_size=2))
    heirs = {ROUTES[a]: ROUTES[b] for a, b in gone if b < len(blocks)}
    return {
        "tree": {"sticky_session": "B", "members": blocks, **options},
        "states": [draw(states) for _ in blocks],
        "heirs": heirs,
        "apache": draw(st.booleans()),
        "cookie": draw(st.none() | values.map(lambda value: f"a=b; B={value}")),
        "url": draw(st.sampled_from(["/", "/?r=x.server2", "/?B=x.server1&c=d"])),
    }


def built(situation: dict[str, Any]) -> Balancer:
    """A balancer in that situation."""
    made = Balancer(
        "cluster",
        BalancerSettings.model_validate(situation["tree"]),
        apache=situation["apache"],
    )
    made.homes.clock_offset = SECOND - NOW
    for member, (operator, verdict, error) in zip(made.members, situation["states"], strict=True):
        made.set_operator_status(member, operator)
        made.set_verdict(member, verdict)
        if error is not None:
            made.put_in_error(member, error)
        made.set_terms(member, terms_of(member.settings))
    made.set_heirs({k.encode(): v.encode() for k, v in situation["heirs"].items()})
    return made


def comparable(choice: Choice) -> tuple[object, ...]:
    """A choice, with its member by name."""
    name = None if choice.member is None else choice.member.name
    return name, choice.session, choice.reason, choice.session_route, choice.cookie_route


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(situations())
def test_it_says_what_happens(situation: dict[str, Any]) -> None:
    """Whatever settings, statuses and cookies: the member that is explained is the one chosen."""
    target, cookie = situation["url"].encode(), situation["cookie"]
    cookie = None if cookie is None else cookie.encode()
    takeovers = {k: Takeover(v, Origin.FILE, ROOT) for k, v in situation["heirs"].items()}
    apache = situation["apache"]
    found = ask(built(situation), cookie, target, apache=apache, takeovers=takeovers)
    chosen = built(situation).choose(target, cookie, NOW)
    assert found.choice is not None
    assert comparable(found.choice) == comparable(chosen)
    assert (found.status is None) == (chosen.member is not None)
    _check_words(found, chosen)


def _check_words(found: Explanation, chosen: Choice) -> None:
    """What the sentences say fits to the choice."""
    said = {step.partition(": ")[0]: step for step in found.steps if step.startswith("member ")}
    told = " | ".join(found.steps)
    elected = chosen.reason in (Reason.ELECTED, Reason.UNUSABLE)
    for member in found.members:
        if "tried at once" not in told:
            assert "takes nothing" not in said[f"member {member.name}"]
        if elected:
            assert "own sessions only" not in said[f"member {member.name}"]
    if elected:
        assert found.choice is not None
        assert found.choice.member in found.candidates
        assert ("the only one" in told) == (len(found.members) == 1)
    elif chosen.member is not None:
        assert len(found.members) == 1
        assert chosen.member.name in found.steps[-2]
    if chosen.session is Session.NEW:
        assert "asks for route" not in told
    assert ("signature is not valid" in told) <= (chosen.session is Session.NEW)
    assert all(step.isprintable() for step in found.steps)
