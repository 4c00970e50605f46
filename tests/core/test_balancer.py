from typing import Any

import pytest

from proxy.core.balancer import Balancer
from proxy.core.choice import Choice, Reason, Session
from proxy.core.health import Verdict
from proxy.core.member import Terms
from proxy.core.settings import Balancer as BalancerSettings
from proxy.core.settings import OperatorStatus
from tests.core.facts import claim

NOW = 1000.0
LATER = NOW + 61
"""After the retry time."""
COOKIE: dict[str, Any] = {"session_cookie": {}}
OWN: dict[str, Any] = {"session_cookie": {"assign": "own", "own_route": "server1"}}
ARTICLE: dict[str, Any] = {
    "session_cookie": {**OWN["session_cookie"], "first_request": "elect", "renew": "own"}
}
"""server1's frontend in the article."""


def balancer(*changes: dict[str, Any], apache: bool = False, **options: Any) -> Balancer:
    """Members server1, server2, ..., one for each block of changes."""
    members = [
        {"url": f"http://server{number}.zarafa.com", "route": f"server{number}", **change}
        for number, change in enumerate(changes, 1)
    ]
    plain = {"sticky_session": "BALANCEME", "members": members, **options}
    return Balancer("cluster", BalancerSettings.model_validate(plain), apache=apache)


def session(route: str) -> bytes:
    """The Cookie field of a session."""
    return f"BALANCEME=balancer.{route}".encode()


def number(cluster: Balancer, choice: Choice) -> int | None:
    """The chosen member: 1 for server1."""
    return cluster.members.index(choice.member) + 1 if choice.member else None


def elect(cluster: Balancer, now: float = NOW) -> int | None:
    """Who takes a new session."""
    return number(cluster, cluster.choose(b"/", None, now))


def ask(cluster: Balancer, route: str, now: float = NOW) -> int | None:
    """Who takes a request of a session."""
    return number(cluster, cluster.choose(b"/", session(route), now))


def fail(cluster: Balancer, *numbers: int, now: float = NOW) -> None:
    """Traffic to these members fails."""
    for place in numbers:
        cluster.put_in_error(cluster.members[place - 1], now)


# --- what becomes of a session -----------------------------------------------------------------


def test_new_session() -> None:
    """Who asks for nothing is elected a member, and the cookie names it (B3)."""
    cluster = balancer({}, {}, **COOKIE)
    member = cluster.members[0]
    assert cluster.choose(b"/", b"a=b", NOW) == (
        Choice(member, Session.NEW, Reason.ELECTED, None, b"server1")
    )


def test_kept_session() -> None:
    """Who carries a route goes to its member, and the cookie is prolonged (S13)."""
    cluster = balancer({}, {}, **COOKIE)
    member = cluster.members[1]
    for _ in range(3):
        assert cluster.choose(b"/", session("server2"), NOW) == (
            Choice(member, Session.KEPT, Reason.KEPT, b"server2", b"server2")
        )


def test_unknown_route() -> None:
    """A route that no member has is balanced like none, and replaced (S13, H53)."""
    cluster = balancer({}, {}, **COOKIE)
    member = cluster.members[0]
    assert cluster.choose(b"/", session("server9"), NOW) == (
        Choice(member, Session.UNKNOWN, Reason.ELECTED, b"server9", b"server1")
    )


def test_moved_session() -> None:
    """Who can't be served by its member goes to another, and the cookie says so (H57)."""
    cluster = balancer({}, {}, **COOKIE)
    fail(cluster, 2)
    member = cluster.members[0]
    assert cluster.choose(b"/", session("server2"), NOW) == (
        Choice(member, Session.MOVED, Reason.UNUSABLE, b"server2", b"server1")
    )


def test_nobody() -> None:
    """Without a usable member the session stays where it was, for the next request (B17)."""
    cluster = balancer({"status": "disabled"}, {"status": "stopped"}, **COOKIE)
    assert cluster.choose(b"/", None, NOW) == (Choice(None, Session.NEW, Reason.NOBODY, None, None))
    assert cluster.choose(b"/", session("server2"), NOW) == (
        Choice(None, Session.KEPT, Reason.NOBODY, b"server2", None)
    )


def test_url_carries_a_session() -> None:
    """The route in the target counts before the cookie's (S1)."""
    cluster = balancer({}, {}, **COOKIE)
    choice = cluster.choose(b"/?BALANCEME=x.server2", session("server1"), NOW)
    assert (number(cluster, choice), choice.session) == (2, Session.KEPT)


def test_without_sticky_session() -> None:
    """Without a name to look for, every request is new (S15)."""
    cluster = balancer({}, {}, sticky_session=None)
    choices = [cluster.choose(b"/", session("server2"), NOW) for _ in range(4)]
    assert [number(cluster, choice) for choice in choices] == [1, 2, 1, 2]
    assert {choice.session for choice in choices} == {Session.NEW}


@pytest.mark.parametrize("route", ["Server1", "server", "server1x", "server10", "x.server1"])
def test_routes_are_compared_completely(route: str) -> None:
    """A route is equal or it isn't (S12)."""
    cluster = balancer({}, {})
    assert cluster.choose(b"/", session(route), NOW).session is Session.UNKNOWN


def test_member_without_route() -> None:
    """No session sticks to a member without a route, and no cookie names it (S12)."""
    cluster = balancer({"route": None}, {}, **COOKIE)
    choice = cluster.choose(b"/", session("None"), NOW)
    assert choice == Choice(cluster.members[0], Session.UNKNOWN, Reason.ELECTED, b"None", None)


def test_words_of_a_session() -> None:
    """``word`` is what ``value`` is."""
    assert [fate.word for fate in Session] == [fate.value for fate in Session]


# --- whose sessions: assign, first_request, renew ----------------------------------------------


def test_own_route_takes_new_sessions() -> None:
    """With assign: own new and unknown sessions go to own_route from the first request on (X)."""
    cluster = balancer({}, {}, **OWN)
    own = cluster.members[0]
    for cookie, fate, asked in (
        (None, Session.NEW, None),
        (session("server9"), Session.UNKNOWN, b"server9"),
    ):
        for _ in range(2):
            choice = cluster.choose(b"/", cookie, NOW)
            assert choice == Choice(own, fate, Reason.OWN_ROUTE, asked, b"server1")


@pytest.mark.parametrize("status", ["drain", "disabled", "stopped"])
def test_own_route_that_takes_no_sessions(status: str) -> None:
    """No session begins on a member that is drained or off: it is elected another (B2, H54)."""
    cluster = balancer({"status": status}, {}, **OWN)
    choice = cluster.choose(b"/", None, NOW)
    assert choice == Choice(cluster.members[1], Session.NEW, Reason.ELECTED, None, b"server2")


def test_own_route_in_error() -> None:
    """While own_route's member is in error, sessions begin elsewhere and stay there (H57)."""
    cluster = balancer({}, {}, **OWN)
    fail(cluster, 1)
    assert cluster.choose(b"/", None, NOW).cookie_route == b"server2"
    assert elect(cluster, LATER) == 1
    assert ask(cluster, "server2", LATER) == 2


def test_first_request_is_elected() -> None:
    """With first_request: elect the cookie names own_route, whoever serves this one (C10)."""
    cookie = {**OWN["session_cookie"], "first_request": "elect"}
    cluster = balancer({}, {}, session_cookie=cookie)
    choices = [cluster.choose(b"/", None, NOW) for _ in range(4)]
    assert [number(cluster, choice) for choice in choices] == [1, 2, 1, 2]
    assert {choice.cookie_route for choice in choices} == {b"server1"}
    assert ask(cluster, "server1") == 1


@pytest.mark.parametrize(
    ("options", "routes"),
    [
        ({}, [None, None]),
        (COOKIE, [b"server1", b"server2"]),
        (OWN, [b"server1", b"server2"]),
        (ARTICLE, [b"server1", None]),
    ],
)
def test_renewal(options: dict[str, Any], routes: list[bytes | None]) -> None:
    """Every kept session's cookie is prolonged, or own_route's only, or none is set (C9)."""
    cluster = balancer({}, {}, **options)
    choices = [cluster.choose(b"/", session(route), NOW) for route in ("server1", "server2")]
    assert [choice.session for choice in choices] == [Session.KEPT, Session.KEPT]
    assert [choice.cookie_route for choice in choices] == routes


def test_a_moved_session_gets_its_cookie_whatever_is_renewed() -> None:
    """One that moved is told where, since renew is about sessions that stay (H57)."""
    cluster = balancer({}, {}, {}, **ARTICLE)
    fail(cluster, 2)
    choice = cluster.choose(b"/", session("server2"), NOW)
    assert choice.session is Session.MOVED
    assert choice.cookie_route == (choice.member and choice.member.route)


# --- as Apache does ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cookie", "cookie_route", "member"),
    [
        (None, b"server1", None),
        (b"x=y", b"server1", None),
        (b"BALANCEME=balancer.server1", b"server1", 1),
        (b"BALANCEME=balancer.server2", None, 2),
        (b"BALANCEME=balancer.server9", None, None),
        (b"XBALANCEME=balancer.server1", b"server1", None),
        (b"BALANCEME=balancer.server10", b"server1", None),
        (b"BALANCEME=balancerXserver1", b"server1", None),
        (b'BALANCEME="balancer.server1"', None, None),
        (b"balanceme=balancer.server1", b"server1", None),
        (b"BALANCEME=Balancer.server1", None, 1),
        (b"BALANCEME", None, None),
        (b"BALANCEME=", None, None),
        (b"foo=BALANCEME", None, None),
        (b"BALANCEME=balancer.server2; BALANCEME=balancer.server1", b"server1", 2),
        (b"BALANCEME=balancer.server1; BALANCEME=balancer.server2", b"server1", 1),
    ],
)
def test_article(cookie: bytes | None, cookie_route: bytes | None, member: int | None) -> None:
    """Each row of C8: the cookie that is set, and the member, None where it is elected."""
    cluster = balancer({}, {}, apache=True, **ARTICLE)
    choices = [cluster.choose(b"/", cookie, NOW) for _ in range(2)]
    members = [number(cluster, choice) for choice in choices]
    assert members == ([1, 2] if member is None else [member, member])
    assert {choice.cookie_route for choice in choices} == {cookie_route}


def test_article_assigns_whoever_serves() -> None:
    """The rules know nothing of the choice: the cookie is there without a member too (C10, C13)."""
    cluster = balancer({"status": "disabled"}, apache=True, **ARTICLE)
    choice = cluster.choose(b"/", None, NOW)
    assert choice == Choice(None, Session.NEW, Reason.NOBODY, None, b"server1")


def test_article_with_failover_include() -> None:
    """A server2 session gets server1's cookie; this request still goes to server2 (C11, C12)."""
    cluster = balancer({}, {}, apache=True, failover={"server2": "server1"}, **ARTICLE)
    choice = cluster.choose(b"/", session("server2"), NOW)
    assert (number(cluster, choice), choice.cookie_route) == (2, b"server1")
    assert [elect(cluster) for _ in range(3)] == [1, 1, 2]  # elected as ever, the debt repaid
    fail(cluster, 2)
    choice = cluster.choose(b"/", session("server2"), NOW)
    assert (number(cluster, choice), choice.cookie_route) == (1, b"server1")


def test_article_with_an_include_that_has_no_effect() -> None:
    """The own rules come first, so server1's sessions can't be moved elsewhere (C6, C12)."""
    cluster = balancer({}, {}, apache=True, failover={"server1": "server2"}, **ARTICLE)
    choice = cluster.choose(b"/", session("server1"), NOW)
    assert (number(cluster, choice), choice.cookie_route) == (1, b"server1")


# --- failover map ------------------------------------------------------------------------------


def test_takeover() -> None:
    """A session of a member that was taken over moves within this request."""
    cluster = balancer({}, {}, failover={"server2": "server1"}, **COOKIE)
    assert cluster.choose(b"/", session("server2"), NOW) == (
        Choice(cluster.members[0], Session.MOVED, Reason.TAKEOVER, b"server2", b"server1")
    )
    assert cluster.choose(b"/", session("server1"), NOW).session is Session.KEPT


def test_chain_of_takeovers() -> None:
    """Who took over may be taken over as well: the last one has all the sessions."""
    chain = {"server3": "server2", "server2": "server1", "server1": "server4"}
    cluster = balancer({}, {}, {}, {}, failover=chain, **COOKIE)
    assert [ask(cluster, f"server{place}") for place in (1, 2, 3, 4)] == [4, 4, 4, 4]
    assert cluster.heir(b"server3") == b"server4"
    assert cluster.heir(b"server9") == b"server9"


def test_no_session_begins_where_they_were_taken_over() -> None:
    """A member whose route is in the failover map is not elected, however usable."""
    cluster = balancer({}, {}, {}, failover={"server2": "server1"})
    assert [elect(cluster) for _ in range(4)] == [1, 3, 1, 3]
    fail(cluster, 1)
    assert [elect(cluster) for _ in range(3)] == [3, 3, 3]
    fail(cluster, 3)
    cluster.set_operator_status(cluster.members[0], OperatorStatus.DISABLED)
    cluster.set_operator_status(cluster.members[2], OperatorStatus.DISABLED)
    assert elect(cluster) is None


def test_takeover_by_a_member_in_error() -> None:
    """While the heir can't be used its sessions go on to another, never to the failed one."""
    cluster = balancer({}, {}, {}, failover={"server2": "server1"}, **COOKIE)
    fail(cluster, 1)
    assert cluster.choose(b"/", session("server2"), NOW) == (
        Choice(cluster.members[2], Session.MOVED, Reason.UNUSABLE, b"server2", b"server3")
    )


@pytest.mark.parametrize("first_request", ["own", "elect"])
def test_takeover_of_own_route(first_request: str) -> None:
    """New sessions of an own_route that was taken over belong to the heir."""
    cookie = {**OWN["session_cookie"], "first_request": first_request}
    cluster = balancer({}, {}, failover={"server1": "server2"}, session_cookie=cookie)
    choice = cluster.choose(b"/", None, NOW)
    assert (number(cluster, choice), choice.cookie_route) == (2, b"server2")


# --- which member of a session -----------------------------------------------------------------


def test_members_that_share_a_route() -> None:
    """The first usable one in order is taken, hot standbys last (S13)."""
    same = {"route": "server"}
    cluster = balancer({**same, "hot_standby": True}, same, same)
    assert ask(cluster, "server") == 2
    fail(cluster, 2)
    assert ask(cluster, "server") == 3
    fail(cluster, 3)
    assert ask(cluster, "server") == 1


@pytest.mark.parametrize(
    "change", [{"lbset": 1}, {"hot_spare": True}, {"hot_standby": True}, {"status": "drain"}]
)
def test_sessions_bypass_what_is_for_elections(change: dict[str, Any]) -> None:
    """A session is kept by a member that would not be elected now (S14)."""
    cluster = balancer({}, change)
    assert [elect(cluster) for _ in range(3)] == [1, 1, 1]
    assert [ask(cluster, "server2") for _ in range(3)] == [2, 2, 2]


@pytest.mark.parametrize("status", ["disabled", "stopped"])
def test_sessions_of_a_member_that_is_off(status: str) -> None:
    """A disabled or stopped member is never reached, and free again when enabled (S14, H54)."""
    cluster = balancer({}, {"status": status})
    assert ask(cluster, "server2") == 1
    cluster.set_operator_status(cluster.members[1], OperatorStatus.ENABLED)
    assert ask(cluster, "server2") == 2


def test_sessions_of_a_member_that_failed_its_checks() -> None:
    """Only a passing check brings it back, no time that passes; it ends an error too (S14, H5)."""
    cluster = balancer({}, {})
    member = cluster.members[1]
    cluster.set_verdict(member, Verdict.FAILED)
    fail(cluster, 2)
    assert ask(cluster, "server2", LATER) == 1
    cluster.set_verdict(member, Verdict.PASSED)
    assert ask(cluster, "server2") == 2


def test_error_ends_when_somebody_looks() -> None:
    """After the retry time the next request tries the member; until then it is left out (F6)."""
    cluster = balancer({}, {"retry_after": "10s"})
    fail(cluster, 2)
    assert [ask(cluster, "server2", NOW + seconds) for seconds in (0, 10, 10.5)] == [1, 1, 2]
    fail(cluster, 2, now=NOW + 11)
    assert ask(cluster, "server2", NOW + 21) == 1
    assert {elect(cluster, NOW + 21.5) for _ in range(3)} == {1, 2}


def test_news_of_an_error() -> None:
    """An error is news once, until it is over (F1)."""
    cluster = balancer({}, {})
    first = cluster.members[0]
    assert [cluster.put_in_error(first, NOW) for _ in range(2)] == [True, False]
    elect(cluster, LATER)
    assert cluster.put_in_error(first, LATER)


def test_ignore_errors() -> None:
    """Such a member is never in error (F8)."""
    cluster = balancer({"ignore_errors": True}, {})
    assert not cluster.put_in_error(cluster.members[0], NOW)
    assert ask(cluster, "server1") == 1


def test_redirect_route() -> None:
    """The session of an unusable member goes to its redirect route, and stays there (S13)."""
    cluster = balancer({"redirect_route": "server3"}, {}, {}, **COOKIE)
    assert ask(cluster, "server1") == 1
    fail(cluster, 1)
    assert cluster.choose(b"/", session("server1"), NOW) == (
        Choice(cluster.members[2], Session.MOVED, Reason.REDIRECT, b"server1", b"server3")
    )


def test_chain_of_redirect_routes() -> None:
    """The lookup is repeated for the redirect route's own, at most members - 1 times (S13)."""
    chain = [{"redirect_route": f"server{place}"} for place in (2, 3, 4)]
    cluster = balancer(*chain, {})
    fail(cluster, 1, 2, 3)
    choice = cluster.choose(b"/", session("server1"), NOW)
    assert (number(cluster, choice), choice.reason) == (4, Reason.REDIRECT)


def test_circle_of_redirect_routes() -> None:
    """A circle of unusable members ends, and somebody else is elected (S13)."""
    cluster = balancer({"redirect_route": "server2"}, {"redirect_route": "server1"}, {})
    fail(cluster, 1, 2)
    assert ask(cluster, "server1") == 3


def test_redirect_route_that_was_taken_over() -> None:
    """A redirect route that is in the failover map means its heir."""
    cluster = balancer({"redirect_route": "server3"}, {}, {}, failover={"server3": "server2"})
    fail(cluster, 1)
    choice = cluster.choose(b"/", session("server1"), NOW)
    assert (number(cluster, choice), choice.cookie_route) == (2, b"server2")


def test_redirect_route_bypasses_what_is_for_elections() -> None:
    """A redirected session may go to a standby, as one of its own would (S13, S14)."""
    cluster = balancer({"redirect_route": "server3"}, {}, {"hot_standby": True})
    fail(cluster, 1)
    assert ask(cluster, "server1") == 3


def test_no_failover() -> None:
    """A session whose member can't be used gets nobody; others are balanced (F9)."""
    cluster = balancer({}, {}, no_failover=True, **COOKIE)
    fail(cluster, 2)
    assert cluster.choose(b"/", session("server2"), NOW) == (
        Choice(None, Session.KEPT, Reason.NO_FAILOVER, b"server2", None)
    )
    assert ask(cluster, "server9") == 1
    assert elect(cluster) == 1
    assert ask(cluster, "server2", LATER) == 2


# --- members already tried ---------------------------------------------------------------------


def test_tried_members_are_left_out() -> None:
    """Neither a session nor an election goes to a member that was tried (F5, X)."""
    cluster = balancer({}, {}, {})
    first, second, third = cluster.members
    assert cluster.choose(b"/", session("server1"), NOW, [first]).member is second
    assert cluster.choose(b"/", session("server1"), NOW, [first, second]).member is third
    assert cluster.choose(b"/", None, NOW, cluster.members).member is None


def test_tried_member_without_retry_time() -> None:
    """With retry_after: 0 a session is failed over all the same, which Apache can't (F13, X)."""
    soon = NOW + 0.001
    for apache, expected in ((False, 2), (True, 1)):
        cluster = balancer({"retry_after": 0}, {"retry_after": 0}, apache=apache)
        fail(cluster, 1)
        tried = [cluster.members[0]]
        choice = cluster.choose(b"/", session("server1"), soon, tried)
        assert number(cluster, choice) == expected


def test_tried_member_that_is_ignored_for_apache() -> None:
    """Apache doesn't fail over from a member that ignores errors (F8, X)."""
    for apache, expected in ((False, 2), (True, 1)):
        cluster = balancer({"ignore_errors": True}, {}, apache=apache)
        fail(cluster, 1)
        choice = cluster.choose(b"/", session("server1"), NOW, [cluster.members[0]])
        assert number(cluster, choice) == expected


@pytest.mark.parametrize(
    ("count", "options", "attempts"),
    [(1, {}, 0), (2, {}, 1), (3, {}, 2), (2, {"max_attempts": 5}, 5), (3, {"max_attempts": 0}, 0)],
)
def test_max_attempts(count: int, options: dict[str, Any], attempts: int) -> None:
    """Failover attempts for a request: as configured, or one for each other member (F5)."""
    assert balancer(*[{}] * count, **options).max_attempts == attempts


# --- forced recovery ---------------------------------------------------------------------------


@pytest.mark.parametrize("apache", [False, True])
def test_all_in_error(apache: bool) -> None:
    """When everybody is in error, all are tried at once, whatever the retry time (F7, H67)."""
    cluster = balancer({}, {}, apache=apache)
    fail(cluster, 1, 2)
    assert [ask(cluster, "server2"), elect(cluster), ask(cluster, "server1")] == [2, 1, 1]


def test_not_all_in_error() -> None:
    """One member that isn't in error is enough, also if its retry time is just over (F6, F7)."""
    cluster = balancer({}, {"retry_after": "1s"})
    fail(cluster, 1, 2)
    assert ask(cluster, "server1", NOW + 2) == 2


KEPT_OUT = [
    {"status": "disabled"},
    {"status": "stopped"},
    {"status": "drain"},
    {"check_failed": True},
]


@pytest.mark.parametrize("change", KEPT_OUT)
@pytest.mark.parametrize("apache", [False, True])
def test_recovery_beside_a_member_that_is_kept_out(change: dict[str, Any], apache: bool) -> None:
    """One that is off, or failed its checks, prevents recovery for Apache only (F7, H7, X)."""
    cluster = balancer({}, {} if "check_failed" in change else change, apache=apache)
    if "check_failed" in change:
        cluster.set_verdict(cluster.members[1], Verdict.FAILED)
    fail(cluster, 1)
    assert elect(cluster) == (None if apache else 1)
    assert elect(cluster, LATER) == 1


def test_recovery_beside_a_member_that_was_taken_over() -> None:
    """A member that serves nobody, since it was taken over, doesn't prevent recovery (F7)."""
    cluster = balancer({}, {}, failover={"server2": "server1"})
    fail(cluster, 1)
    assert [ask(cluster, "server2"), ask(cluster, "server1"), elect(cluster)] == [1, 1, 1]


@pytest.mark.parametrize("apache", [False, True])
def test_without_forced_recovery(apache: bool) -> None:
    """Without it nobody is tried before the retry time, which each has of its own (F6, F7)."""
    slow = {"retry_after": "20s"}
    cluster = balancer({"retry_after": "10s"}, slow, forced_recovery=False, apache=apache)
    fail(cluster, 1, 2)
    assert [ask(cluster, "server2", NOW + 10), elect(cluster, NOW + 10)] == [None, None]
    assert [ask(cluster, "server2", NOW + 11), elect(cluster, NOW + 11)] == [1, 1]
    assert ask(cluster, "server2", NOW + 21) == 2


def test_nobody_in_error() -> None:
    """Without an error there is nothing to recover from: all are off (B17)."""
    cluster = balancer({"status": "disabled"}, {"status": "drain"})
    assert elect(cluster) is None
    assert ask(cluster, "server1") is None
    assert ask(cluster, "server2") == 2


# --- lbsets, spares and standbys ---------------------------------------------------------------

ROLES: list[tuple[str, tuple[dict[str, Any], ...], list[str]]] = [
    ("s3 standby", ({}, {}, {"hot_standby": True}), ["1212", "2222", "3333"]),
    ("s3 spare", ({}, {}, {"hot_spare": True}), ["1212", "2323", "3333"]),
    (
        "s3 spare, s2 disabled",
        ({}, {"status": "disabled"}, {"hot_spare": True}),
        ["1313", "3333", "3333"],
    ),
    ("s3 spare, s2 drain", ({}, {"status": "drain"}, {"hot_spare": True}), ["1313", "3333"]),
    ("s2, s3 spare", ({}, {"hot_spare": True}, {"hot_spare": True}), ["1111", "2222", "3333"]),
    ("s3 lbset 1", ({}, {}, {"lbset": 1}), ["1212", "2222", "3333"]),
    ("s2, s3 lbset 1", ({}, {"lbset": 1}, {"lbset": 1}), ["1111", "2323", "3333"]),
    (
        "s3 standby, s2 lbset 1",
        ({}, {"lbset": 1}, {"hot_standby": True}),
        ["1111", "3333", "3333"],
    ),
    (
        "s2 spare, s3 standby",
        ({}, {"hot_spare": True}, {"hot_standby": True}),
        ["1111", "2222", "3333"],
    ),
]


@pytest.mark.parametrize(
    ("changes", "sequences"), [row[1:] for row in ROLES], ids=[row[0] for row in ROLES]
)
def test_roles(changes: tuple[dict[str, Any], ...], sequences: list[str]) -> None:
    """Elections with all up, s1 down, s1 and s2 down (B7, B8)."""
    for down, sequence in enumerate(sequences):
        cluster = balancer(*changes)
        fail(cluster, *range(1, down + 1))
        assert "".join(str(elect(cluster)) for _ in sequence) == sequence


def test_a_tried_member_counts_as_unusable() -> None:
    """A spare stands in for a member that this request has tried (B2)."""
    cluster = balancer({}, {"hot_spare": True})
    first, spare = cluster.members
    assert cluster.choose(b"/", None, NOW).member is first
    assert cluster.choose(b"/", None, NOW, [first]).member is spare


def test_spares_stand_in_for_members_of_their_own_lbset() -> None:
    """An unusable member of another lbset brings in no spare (B7)."""
    cluster = balancer({}, {"hot_spare": True, "lbset": 1}, {"lbset": 1})
    fail(cluster, 1)
    assert [elect(cluster) for _ in range(3)] == [3, 3, 3]


# --- takeovers that come and go ----------------------------------------------------------------


def heirs(cluster: Balancer, **heirs: str) -> None:
    """Whose sessions are taken over by whom from now on."""
    cluster.set_heirs({gone.encode(): heir.encode() for gone, heir in heirs.items()})


def test_takeover_at_run_time() -> None:
    """From one request to the next a member's sessions go to its heir, and back again."""
    cluster = balancer({}, {}, {}, **COOKIE)
    assert ask(cluster, "server2") == 2
    heirs(cluster, server2="server3")
    choice = cluster.choose(b"/", session("server2"), NOW)
    assert choice == Choice(
        cluster.members[2], Session.MOVED, Reason.TAKEOVER, b"server2", b"server3"
    )
    assert {elect(cluster) for _ in range(6)} == {1, 3}
    heirs(cluster)
    assert ask(cluster, "server2") == 2
    assert {elect(cluster) for _ in range(6)} == {1, 2, 3}


def test_takeover_at_run_time_as_apache_does() -> None:
    """There a live takeover is what the rewritten include would be: another pair of rules (C12)."""
    own = {"assign": "own", "own_route": "server1", "renew": "own"}
    cluster = balancer({}, {}, session_cookie=own, apache=True)
    assert cluster.choose(b"/", session("server2"), NOW).cookie_route is None
    heirs(cluster, server2="server1")
    choice = cluster.choose(b"/", session("server2"), NOW)
    assert (number(cluster, choice), choice.cookie_route) == (2, b"server1")


@pytest.mark.parametrize("key", ["takeover", "redirect_route"])
def test_named_takeover_while_traffic_fails(key: str) -> None:
    """Before any verdict, sessions of a member in error go to who would take them over."""
    cluster = balancer({}, {key: "server3"}, {}, **COOKIE)
    fail(cluster, 2)
    reason = Reason.TAKER if key == "takeover" else Reason.REDIRECT
    for _ in range(3):
        choice = cluster.choose(b"/", session("server2"), NOW)
        assert choice == Choice(cluster.members[2], Session.MOVED, reason, b"server2", b"server3")


# --- coming home -------------------------------------------------------------------------------

HOUR = 3600.0
WALL = 1764000000.0


def returning(failback: str, **options: Any) -> Balancer:
    """Three members, with a failback; NOW is WALL."""
    cluster = balancer({}, {}, {}, failback=failback, **COOKIE, **options)
    cluster.homes.clock_offset = WALL - NOW
    return cluster


def test_stay() -> None:
    """With failback: stay the cookie remembers nothing, so the session stays."""
    cluster = returning("stay")
    heirs(cluster, server2="server1")
    assert cluster.choose(b"/", session("server2"), NOW).cookie_route == b"server1"
    heirs(cluster)
    assert ask(cluster, "server1") == 1


def away(cluster: Balancer, token: bytes, now: float = NOW) -> Choice:
    """What becomes of a session whose cookie has this behind its prefix."""
    return cluster.choose(b"/", b"BALANCEME=balancer" + token, now)


def test_return() -> None:
    """With failback: return a session goes home with the first request after its member is back."""
    cluster = returning("return")
    heirs(cluster, server2="server1")
    token = cluster.choose(b"/", session("server2"), NOW).cookie_route
    assert token == b"@server2.server1"
    choice = away(cluster, token)
    assert choice == Choice(cluster.members[0], Session.KEPT, Reason.AWAY, b"server1", token)
    heirs(cluster)
    choice = away(cluster, token)
    assert choice == Choice(
        cluster.members[1], Session.MOVED, Reason.FAILBACK, b"server1", b"server2"
    )


def test_expire() -> None:
    """With failback: expire it goes home when the cookie of that time would have run out."""
    cluster = returning("expire")
    heirs(cluster, server2="server1")
    token = cluster.choose(b"/", session("server2"), NOW).cookie_route
    assert token == b"@server2@%d.server1" % (WALL + HOUR)
    # while its home is away, the time doesn't run
    token = away(cluster, token, NOW + 100).cookie_route
    assert token == b"@server2@%d.server1" % (WALL + HOUR + 100)
    heirs(cluster)
    choice = away(cluster, token, NOW + HOUR + 99)
    assert (number(cluster, choice), choice.cookie_route) == (1, token)
    choice = away(cluster, token, NOW + HOUR + 100)
    assert (number(cluster, choice), choice.reason) == (2, Reason.FAILBACK)
    assert choice.cookie_route == b"server2"


@pytest.mark.parametrize("status", ["drain", "disabled", "stopped"])
def test_home_that_takes_nobody(status: str) -> None:
    """A session doesn't go home to a member that gets no new sessions (H54)."""
    cluster = returning("return")
    cluster.set_operator_status(cluster.members[1], OperatorStatus(status))
    assert number(cluster, away(cluster, b"@server2.server1")) == 1


def test_home_in_error() -> None:
    """Nor to one in error, nor to one that was tried just now."""
    cluster = returning("return")
    fail(cluster, 2)
    assert number(cluster, away(cluster, b"@server2.server1")) == 1
    tried = [cluster.members[1]]
    choice = cluster.choose(b"/", b"BALANCEME=balancer@server2.server1", NOW + 1e3, tried)
    assert number(cluster, choice) == 1


def test_moved_again_while_away() -> None:
    """Where it is away may fail as well: its home stays the same, and coming there ends it."""
    cluster = returning("return")
    heirs(cluster, server2="server1", server1="server3")
    choice = away(cluster, b"@server2.server1")
    assert (number(cluster, choice), choice.cookie_route) == (3, b"@server2.server3")
    fail(cluster, 1, 3)
    heirs(cluster, server2="server1")
    cluster.set_operator_status(cluster.members[1], OperatorStatus.DRAIN)
    heirs(cluster, server1="server2")
    choice = away(cluster, b"@server2.server1")
    assert (number(cluster, choice), choice.cookie_route) == (2, b"server2")


def test_stay_reads_what_others_remember() -> None:
    """After a change to failback: stay, homes in cookies are passed over, and go."""
    cluster = returning("stay")
    choice = away(cluster, b"@server2.server1")
    assert (number(cluster, choice), choice.session_route) == (1, b"server1")
    assert choice.cookie_route == b"server1"


def test_home_that_nobody_has() -> None:
    """A home that is no member's is none; with a route that is none a session goes home."""
    cluster = returning("return")
    for token in (b"@server9.server1", b"@.server1", b"@@@.server1", b"@\xff.server1"):
        assert number(cluster, away(cluster, token)) == 1
    assert number(cluster, away(cluster, b"@server2.server9")) == 2


@pytest.mark.parametrize("failback", ["stay", "return", "expire"])
def test_home_is_never_a_clients_text(failback: str) -> None:
    """What a URL gives as home isn't written back: it would set cookie attributes of its choice."""
    cluster = returning(failback)
    for home in (b"x;domain=zarafa.com", b"server9", b"", b"x@1764000000"):
        choice = cluster.choose(b"/?BALANCEME=balancer@%b.server1" % home, None, NOW)
        assert (number(cluster, choice), choice.cookie_route) == (1, b"server1")
    heirs(cluster, server1="server3")
    choice = cluster.choose(b"/?BALANCEME=balancer@x;path=/y.server1", None, NOW)
    assert number(cluster, choice) == 3
    assert choice.cookie_route is not None
    assert b";" not in choice.cookie_route


def test_signed_home() -> None:
    """A signature holds for home and route together; a home of one's own making is forged."""
    cookie: dict[str, Any] = {"secret": "0123456789abcdef"}
    cluster = balancer({}, {}, failback="return", session_cookie=cookie)
    heirs(cluster, server2="server1")
    assert cluster.session_cookie is not None

    def sent(route: bytes | None) -> bytes:
        assert route is not None
        assert cluster.session_cookie is not None
        line = cluster.session_cookie.line(route, 0, tls=False)
        return line.removeprefix(b"Set-Cookie: ").partition(b";")[0]

    moved = cluster.choose(b"/", sent(b"server2"), NOW)
    assert moved.cookie_route == b"@server2.server1"
    heirs(cluster)
    back = cluster.choose(b"/", sent(moved.cookie_route), NOW)
    assert (back.reason, back.cookie_route) == (Reason.FAILBACK, b"server2")
    assert cluster.forged == 0
    stolen = sent(b"server1").replace(b"balancer.", b"balancer@server2.")
    assert cluster.choose(b"/", stolen, NOW).session is Session.NEW
    assert cluster.forged == 1


# --- how a member is elected, changed at run time ------------------------------------------------


def test_terms() -> None:
    """Load factor, lbset and role count from the next election on; claims begin afresh (B14)."""
    cluster = balancer({}, {}, {})
    [elect(cluster) for _ in range(4)]
    cluster.set_terms(cluster.members[1], Terms(2, 0, hot_standby=False, hot_spare=False))
    assert [claim(cluster, member) for member in cluster.members] == [100, 200, 100]
    shares = [elect(cluster) for _ in range(40)]
    assert [shares.count(place) for place in (1, 2, 3)] == [10, 20, 10]
    cluster.set_terms(cluster.members[0], Terms(1, 0, hot_standby=True, hot_spare=False))
    assert {elect(cluster) for _ in range(6)} == {2, 3}
    cluster.set_terms(cluster.members[1], Terms(2, 1, hot_standby=False, hot_spare=False))
    assert {elect(cluster) for _ in range(6)} == {3}
    fail(cluster, 3)
    assert elect(cluster) == 1
    fail(cluster, 1)
    assert elect(cluster) == 2
    cluster.set_terms(cluster.members[2], Terms(1, 0, hot_standby=False, hot_spare=True))
    assert ask(cluster, "server2") == 2


def test_slow_start() -> None:
    """The share of a member that is back rises from a tenth to all of it."""
    cluster = balancer({}, {"load_factor": 2}, slow_start="100s")
    member = cluster.members[1]
    assert member.factor == 200
    cluster.set_rising(member, NOW)
    factors = []
    for later in (0, 5, 20, 50, 99, 100, 150):
        cluster.rise(NOW + later)
        factors.append(member.factor)
    assert factors == [20, 20, 40, 100, 198, 200, 200]
    assert member.rising_since is None


def test_no_slow_start() -> None:
    """Without slow_start a member is back with all of its share."""
    cluster = balancer({}, {})
    cluster.set_rising(cluster.members[1], NOW)
    cluster.rise(NOW)
    assert cluster.members[1].factor == 100


def test_checks_end_an_error() -> None:
    """An error of before the checks passed is over; a later one isn't (H5)."""
    cluster = balancer({}, {})
    fail(cluster, 2)
    cluster.end_error(cluster.members[1], NOW)
    assert ask(cluster, "server2") == 1
    cluster.end_error(cluster.members[1], NOW + 1)
    assert ask(cluster, "server2") == 2


# --- reload --------------------------------------------------------------------------------------


def reloaded(former: Balancer, *changes: dict[str, Any], **options: Any) -> Balancer:
    """The balancer that follows, with other members or options."""
    return Balancer("cluster", balancer(*changes, **options).settings, former=former)


def test_reload_keeps_members() -> None:
    """A member with the same url and route is the same one, wherever it stands in the file."""
    cluster = balancer({}, {})
    first, second = cluster.members
    first.busy, first.elected, first.lbstatus = 3, 7, -50
    cluster.set_operator_status(second, OperatorStatus.DRAIN)
    fail(cluster, 1)
    settings = cluster.settings.members
    after = Balancer(
        "cluster",
        cluster.settings.model_copy(
            update={"members": (settings[1], settings[0].model_copy(update={"lbset": 4}))}
        ),
        former=cluster,
    )
    assert after.members == (second, first)
    assert (first.busy, first.elected, first.lbstatus, first.error_since) == (3, 7, -50, NOW)
    assert first.settings.lbset == 4
    assert second.operator is OperatorStatus.DRAIN


@pytest.mark.parametrize("change", [{"url": "http://other"}, {"route": "other"}, {"route": None}])
def test_reload_with_another_server(change: dict[str, Any]) -> None:
    """At another url, or under another route, it is another member, of which nothing is known."""
    cluster = balancer({}, {})
    fail(cluster, 1)
    cluster.members[0].lbstatus = -700
    after = reloaded(cluster, change, {})
    assert after.members[0] is not cluster.members[0]
    assert after.members[1] is cluster.members[1]
    assert (after.members[0].error_since, after.members[0].lbstatus) == (None, 0)


def test_reload_keeps_claims() -> None:
    """Elections go on where they were; a new member is due like any other (B3)."""
    cluster = balancer({}, {}, {})
    assert [elect(cluster) for _ in range(4)] == [1, 2, 3, 1]
    after = reloaded(cluster, {}, {}, {})
    assert [elect(after) for _ in range(3)] == [2, 3, 1]
    more = reloaded(after, {}, {}, {}, {})
    assert sorted(str(elect(more)) for _ in range(8)) == [*"11223344"]


def test_exchanges_of_before_a_reload() -> None:
    """Who began under former settings tells of errors, and the others know."""
    cluster = balancer({}, {}, **COOKIE)
    member = cluster.choose(b"/", session("server1"), NOW).member
    after = reloaded(cluster, {}, {}, **COOKIE)
    assert member is after.members[0]
    assert cluster.put_in_error(member, NOW)
    assert ask(after, "server1") == 2
    assert [claim(after, each) for each in after.members] == [-100, 100]


def test_who_is_gone_takes_nothing_more() -> None:
    """An exchange of before a reload isn't moved to a member that the reload took away."""
    cluster = balancer({}, {}, {}, **COOKIE)
    first, second, third = cluster.members
    after = reloaded(cluster, {}, {"url": "http://new", "route": "new"}, {}, **COOKIE)
    assert second not in after.members
    fail(cluster, 1)
    for _ in range(3):
        assert cluster.choose(b"/", session("server1"), NOW, [first]).member is third
    assert second.status(NOW) == "stopped"
    assert {member.status(NOW) for member in after.members[1:]} == {"ok"}


def test_retired_for_good() -> None:
    """When a balancer goes as a whole, none of its members takes anything more."""
    cluster = balancer({}, {}, **COOKIE)
    cluster.retire()
    assert elect(cluster) is None
    assert cluster.choose(b"/", session("server1"), NOW).member is None


def test_reload_keeps_the_count_of_forged_cookies() -> None:
    """How many cookies had no valid signature is counted on, also with another secret."""
    secret: dict[str, Any] = {"session_cookie": {"secret": "0123456789abcdef"}}
    cluster = balancer({}, **secret)
    for _ in range(3):
        cluster.choose(b"/", session("server1"), NOW)
    assert cluster.forged == 3
    after = reloaded(cluster, {}, session_cookie={"secret": "fedcba9876543210"})
    after.choose(b"/", session("server1"), NOW)
    assert after.forged == 4


@pytest.mark.parametrize("elections", range(5))
def test_stagger(elections: int) -> None:
    """Each worker begins with another member, as if there had been elections; none counts."""
    cluster = balancer({}, {}, {"load_factor": 2})
    expected = [elect(cluster) for _ in range(elections + 12)][elections:]
    staggered = balancer({}, {}, {"load_factor": 2})
    staggered.stagger(elections)
    assert [member.elected for member in staggered.members] == [0, 0, 0]
    assert [elect(staggered) for _ in range(12)] == expected


def test_stagger_without_anybody() -> None:
    """Where no member can be elected there is nothing to begin with."""
    cluster = balancer({"status": "disabled"})
    cluster.stagger(3)
    assert cluster.members[0].elected == 0


def test_shown_by_its_name() -> None:
    """A balancer is shown by its name."""
    assert repr(balancer({})) == "<Balancer cluster>"
