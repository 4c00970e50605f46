from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.balancer import Balancer
from proxy.core.choice import Reason, Session
from proxy.core.failover import Failure, Next
from proxy.core.heads import RequestHead
from proxy.core.http1 import Limits, read_request_head
from proxy.core.mapping import Mapping, read_target
from proxy.core.moves import Move
from proxy.core.placement import Placement
from proxy.core.sessions import address_hash, read_session
from proxy.core.settings import Balancer as BalancerSettings
from proxy.core.settings import Mapping as MappingSettings

NOW = 1000.0
SECOND = 1795353357


def request(text: bytes = b"GET /", cookie: bytes = b"") -> RequestHead:
    """A request, of its method and target."""
    fields = b"Host: zarafa.com\r\n" + (b"Cookie: " + cookie + b"\r\n" if cookie else b"")
    found = read_request_head(text + b" HTTP/1.1\r\n" + fields + b"\r\n", Limits(99, 99, 9, 999))
    assert found is not None
    return found[0]


def mapping(
    count: int = 2,
    *,
    apache: bool = False,
    member: dict[str, Any] | None = None,
    response_timeout: str | None = None,
    **options: Any,
) -> Mapping:
    """A mapping to a balancer with ``count`` members, server1 and so on."""
    members = [
        {"url": f"http://server{number}", "route": f"server{number}", **(member or {})}
        for number in range(1, count + 1)
    ]
    plain = {"sticky_session": "BALANCEME", "session_cookie": {}, "members": members, **options}
    balancer = Balancer("cluster", BalancerSettings.model_validate(plain), apache=apache)
    plain = {"path": "/", "balancer": "cluster", "response_timeout": response_timeout}
    return Mapping(MappingSettings.model_validate(plain), balancer)


def place(way: Mapping, head: RequestHead, *, apache: bool = False) -> Placement:
    """A placement before its first attempt."""
    return Placement(way, read_target(head.target), head, apache=apache)


def refuse(
    placement: Placement, head: RequestHead, failure: Failure = Failure.REFUSED, now: float = NOW
) -> Next:
    """The attempt under way fails, on a new connection of a new client."""
    return placement.failed(failure, head, now, reused=False, later_request=False).next


def route(placement: Placement) -> bytes | None:
    """Where the request is."""
    return placement.member.route


# --- attempts ----------------------------------------------------------------------------------


def test_first_attempt() -> None:
    """A placement begins with the balancer's choice, by the cookie."""
    head = request(cookie=b"BALANCEME=balancer.server2")
    placement = place(mapping(), head)
    assert placement.choose(NOW)
    assert (route(placement), placement.attempts) == (b"server2", 1)
    assert placement.choice.session is Session.KEPT


def test_route_in_the_query() -> None:
    """The route is looked for in the path and the query (S1)."""
    placement = place(mapping(), request(b"GET /a?BALANCEME=x.server2"))
    assert placement.choose(NOW)
    assert route(placement) == b"server2"


def test_failover() -> None:
    """A request that was refused goes to another member, and its cookie says so (F1, H57)."""
    head = request(b"POST /", b"BALANCEME=balancer.server2")
    placement = place(mapping(), head)
    assert placement.choose(NOW)
    assert refuse(placement, head) is Next.OTHER_MEMBER
    assert placement.choose(NOW)
    assert (route(placement), placement.attempts) == (b"server1", 2)
    assert placement.choice.session is Session.MOVED
    line = placement.cookie_line(SECOND, tls=True)
    assert line.startswith(b"Set-Cookie: BALANCEME=balancer.server1; ")


def test_every_member_is_tried_once() -> None:
    """By default a request makes as many attempts as there are members (F5)."""
    head = request(cookie=b"BALANCEME=balancer.server3")
    placement = place(mapping(4), head)
    tried = []
    after = Next.OTHER_MEMBER
    while after is Next.OTHER_MEMBER and placement.choose(NOW):
        tried.append(route(placement))
        after = refuse(placement, head)
    assert tried[0] == b"server3"
    assert sorted(filter(None, tried)) == [b"server1", b"server2", b"server3", b"server4"]
    assert after is Next.ANSWER


@pytest.mark.parametrize("apache", [False, True])
@pytest.mark.parametrize(("max_attempts", "count"), [(0, 1), (1, 2), (5, 6)])
def test_attempts_are_counted(max_attempts: int, count: int, apache: bool) -> None:
    """Attempts are counted, not members: with both down max_attempts 5 makes 6 (F5, F7)."""
    head = request()
    placement = place(mapping(max_attempts=max_attempts, apache=apache), head, apache=apache)
    after = Next.OTHER_MEMBER
    while after is Next.OTHER_MEMBER and placement.choose(NOW):
        after = refuse(placement, head)
    assert placement.attempts == count


def test_nobody_served() -> None:
    """When all attempts failed the session stays where it was, and no cookie is sent (B17)."""
    head = request(cookie=b"BALANCEME=balancer.server2")
    placement = place(mapping(), head)
    assert placement.choose(NOW)
    refuse(placement, head)
    assert placement.choose(NOW)
    assert placement.choice.cookie_route == b"server1"
    verdict = placement.failed(Failure.REFUSED, head, NOW, reused=False, later_request=False)
    assert (verdict.next, verdict.status) == (Next.ANSWER, 503)
    assert (placement.choice.member, placement.choice.reason) == (None, Reason.NOBODY)
    assert placement.cookie_line(SECOND, tls=True) == b""


def test_cookie_of_a_failed_request() -> None:
    """A session that was served badly is told where it is; Apache tells that of 503 too (C13)."""
    head = request()
    for failure, apache, told in (
        (Failure.BAD_RESPONSE, False, True),
        (Failure.BAD_RESPONSE, True, True),
        (Failure.REFUSED, False, False),
        (Failure.REFUSED, True, True),
    ):
        placement = place(mapping(max_attempts=0, apache=apache), head, apache=apache)
        assert placement.choose(NOW)
        assert refuse(placement, head, failure) is Next.ANSWER
        assert bool(placement.cookie_line(SECOND, tls=True)) is told


def test_nobody_can_be_chosen() -> None:
    """Without a usable member there is no attempt (B17)."""
    placement = place(mapping(member={"status": "disabled"}), request())
    assert not placement.choose(NOW)
    assert placement.attempts == 0
    assert placement.cookie_line(SECOND, tls=True) == b""


def test_without_retry_time() -> None:
    """With retry_after: 0 the next attempt is on another member all the same (F13, X)."""
    head = request(cookie=b"BALANCEME=balancer.server2")
    placement = place(mapping(member={"retry_after": 0}), head)
    assert placement.choose(NOW)
    refuse(placement, head)
    assert placement.choose(NOW + 0.001)
    assert route(placement) == b"server1"


def test_without_retry_time_as_apache() -> None:
    """Apache finds the session's member ready again, and uses the attempts up on it (F13)."""
    head = request(cookie=b"BALANCEME=balancer.server2")
    placement = place(mapping(member={"retry_after": 0}, apache=True), head, apache=True)
    assert placement.choose(NOW)
    refuse(placement, head)
    assert placement.choose(NOW + 0.001)
    assert route(placement) == b"server2"
    assert refuse(placement, head) is Next.ANSWER


def test_ignored_errors() -> None:
    """A member that ignores errors is failed over from; Apache can't do that (F8, X)."""
    head = request()
    for apache, after in ((False, Next.OTHER_MEMBER), (True, Next.ANSWER)):
        way = mapping(member={"ignore_errors": True}, apache=apache)
        placement = place(way, head, apache=apache)
        assert placement.choose(NOW)
        assert refuse(placement, head) is after


def test_no_failover() -> None:
    """A session that may not fail over makes one attempt (F9)."""
    head = request(cookie=b"BALANCEME=balancer.server2")
    placement = place(mapping(no_failover=True), head)
    assert placement.choose(NOW)
    assert refuse(placement, head) is Next.OTHER_MEMBER
    assert not placement.choose(NOW)
    assert placement.choice.reason is Reason.NO_FAILOVER


# --- dead connections, and members in error ----------------------------------------------------


def test_dead_connection() -> None:
    """A reused connection that was dead costs no attempt, and is replaced once (H69)."""
    head = request()
    placement = place(mapping(), head)
    assert placement.choose(NOW)
    first, second = (
        placement.failed(Failure.CLOSED, head, NOW, reused=True, later_request=True).next
        for _ in range(2)
    )
    assert (first, second) == (Next.SAME_MEMBER, Next.ANSWER)
    assert placement.attempts == 1
    assert placement.member.status(NOW) == "ok"


def test_news_of_an_error() -> None:
    """Only the first of several failures is told as news (F1)."""
    head, way = request(), mapping(member={"route": None})
    placements = [place(way, head) for _ in range(4)]
    assert all(placement.choose(NOW) for placement in placements)
    news = [
        placement.failed(Failure.REFUSED, head, NOW, reused=False, later_request=False)
        for placement in placements
    ]
    assert [verdict.member_in_error for verdict in news] == [True, True, False, False]


@pytest.mark.parametrize(
    "failure",
    [
        Failure.CLOSED,
        Failure.RESPONSE_TIMEOUT,
        Failure.HEAD_TIMEOUT,
        Failure.UNEXPECTED,
        Failure.BAD_RESPONSE,
        Failure.SENDING,
    ],
)
def test_failures_after_sending(failure: Failure) -> None:
    """What goes wrong after the request was sent leaves the member usable (F1, H67)."""
    head = request()
    placement = place(mapping(), head)
    assert placement.choose(NOW)
    assert refuse(placement, head, failure) is Next.ANSWER
    assert placement.member.usable(NOW)


SESSION2 = b"BALANCEME=balancer.server2"
ACTIVESYNC = b"POST /Microsoft-Server-ActiveSync?Cmd="


@pytest.mark.parametrize("status", [200, 304, 500, 503])
@pytest.mark.parametrize("wanted", [[], [503], [200, 304, 500]])
@pytest.mark.parametrize("ignored", [False, True])
def test_fail_on_status(status: int, wanted: list[int], *, ignored: bool) -> None:
    """An answer with such a status puts its member in error, but not with ignore_errors (F10)."""
    way = mapping(fail_on_status=wanted, member={"ignore_errors": ignored})
    placement = place(way, request(cookie=SESSION2))
    assert placement.choose(NOW)
    in_error = status in wanted and not ignored
    assert placement.answered(status, NOW) is in_error
    assert placement.member.in_error(NOW) is in_error
    assert not way.balancer.members[0].in_error(NOW)
    assert not placement.answered(status, NOW)  # that is no news any more


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        (b"GET /webaccess", True),
        (b"POST /webaccess", True),
        (b"POST /x/Microsoft-Server-ActiveSync?Cmd=Ping", True),
        (ACTIVESYNC + b"Ping", False),
        (ACTIVESYNC + b"Sync", False),
        (b"POST /MICROSOFT-SERVER-ACTIVESYNC", False),
        (b"OPTIONS /Microsoft-Server-ActiveSync", False),
    ],
)
@pytest.mark.parametrize("apache", [False, True])
@pytest.mark.parametrize("failure", [Failure.RESPONSE_TIMEOUT, Failure.HEAD_TIMEOUT])
def test_fail_on_timeout(failure: Failure, text: bytes, *, counts: bool, apache: bool) -> None:
    """Silence puts a member in error if it is asked for, but never a device's (F11, D70)."""
    for fail_on_timeout, ignored in ((True, False), (True, True), (False, False)):
        member = {"ignore_errors": ignored}
        way = mapping(fail_on_timeout=fail_on_timeout, member=member, apache=apache)
        head = request(text)
        placement = place(way, head, apache=apache)
        assert placement.choose(NOW)
        verdict = placement.failed(failure, head, NOW, reused=False, later_request=False)
        assert (verdict.next, verdict.status) == (Next.ANSWER, 502 if apache else 504)
        half_a_head = apache and failure is Failure.HEAD_TIMEOUT
        expected = fail_on_timeout and counts and not ignored and not half_a_head
        assert verdict.member_in_error is expected
        assert placement.member.in_error(NOW) is verdict.member_in_error


def test_wait_timeout() -> None:
    """Who can't be taken may wait, but not who may not go to another member (B16, F9)."""
    for options, seconds in (
        ({}, 0.0),
        ({"wait_timeout": "5s"}, 5.0),
        ({"wait_timeout": "5s", "no_failover": True}, 0.0),
    ):
        way = mapping(member={"status": "disabled"}, **options)
        placement = place(way, request(cookie=SESSION2))
        assert not placement.choose(NOW)
        assert placement.wait_timeout() == seconds
        # Who has no session yet is never bound to a member.
        placement = place(way, request())
        assert not placement.choose(NOW)
        assert placement.wait_timeout() == (5.0 if options else 0.0)


@pytest.mark.parametrize("apache", [False, True])
def test_without_forced_recovery(apache: bool) -> None:
    """When all have refused nobody is tried again before the retry time, attempts or not (F7)."""
    way = mapping(forced_recovery=False, max_attempts=5, apache=apache)
    head = request(cookie=SESSION2)
    placement = place(way, head, apache=apache)
    for _ in way.balancer.members:
        assert placement.choose(NOW)
        assert refuse(placement, head) is Next.OTHER_MEMBER
    assert not placement.choose(NOW)
    assert not place(way, head, apache=apache).choose(NOW + 60)
    later = place(way, head, apache=apache)
    assert later.choose(NOW + 60.1)
    assert route(later) == b"server2"


# What a request can come to at a member; the client has a part in all but the first three.
FATES = st.one_of(
    st.tuples(st.sampled_from(Failure), st.booleans(), st.booleans()),
    st.sampled_from([200, 304, 401, 449, 500, 502, 503, 504]),
    st.none(),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    apache=st.booleans(),
    asked=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    fates=st.lists(st.tuples(FATES, st.integers(0, 90)), max_size=12),
    activesync=st.booleans(),
)
def test_what_puts_a_member_in_error(
    apache: bool,
    asked: tuple[bool, bool, bool],
    fates: list[tuple[tuple[Failure, bool, bool] | int | None, int]],
    activesync: bool,
) -> None:
    """Nothing but refusal, connect timeout, no address and what the settings name (F1, H67).

    Apache adds two: no connection in time (F12), and a new connection that closes (F1).
    """
    by_status, by_timeout, recovery = asked
    way = mapping(
        3,
        apache=apache,
        fail_on_status=[503] if by_status else [],
        fail_on_timeout=by_timeout,
        forced_recovery=recovery,
        member={"retry_after": "30s"},
    )
    head = request(ACTIVESYNC + b"Sync" if activesync else b"GET /")
    now = NOW
    for fate, seconds in fates:
        now += seconds
        placement = place(way, head, apache=apache)
        if not placement.choose(now):
            assert all(each.error_since is not None for each in way.balancer.members)
            continue
        before = [each.error_since for each in way.balancer.members]
        fault = False
        if isinstance(fate, int):
            fault = by_status and fate == 503
            assert placement.answered(fate, now) is fault
        elif fate is not None:
            failure, reused, later = fate
            fault = failure in (Failure.REFUSED, Failure.CONNECT_TIMEOUT, Failure.UNRESOLVED)
            if failure in (Failure.RESPONSE_TIMEOUT, Failure.HEAD_TIMEOUT):
                half_a_head = apache and failure is Failure.HEAD_TIMEOUT
                fault = by_timeout and not activesync and not half_a_head
            elif apache and failure is Failure.CLOSED:
                fault = later and not reused
            elif apache and failure is Failure.NO_CONNECTION:
                fault = True
            elif apache and failure is Failure.UNASKED:
                fault = later and not reused
            verdict = placement.failed(failure, head, now, reused=reused, later_request=later)
            assert verdict.member_in_error is fault
        placement.leave()
        for each, since in zip(way.balancer.members, before, strict=True):
            hit = fault and each is placement.member
            assert each.error_since == (now if hit else since)


# --- busy --------------------------------------------------------------------------------------


def test_busy() -> None:
    """A request counts from the choice until it leaves, at one member at a time (B10)."""
    head = request()
    placement = place(mapping(), head)
    first, second = placement.mapping.balancer.members
    assert placement.choose(NOW)
    assert (first.busy, second.busy) == (1, 0)
    refuse(placement, head)
    assert (first.busy, second.busy) == (0, 0)
    assert placement.choose(NOW)
    assert (first.busy, second.busy) == (0, 1)
    placement.leave()
    placement.leave()
    assert (first.busy, second.busy) == (0, 0)


FAILURES = st.tuples(st.sampled_from(Failure), st.booleans(), st.booleans())


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    apache=st.booleans(),
    counts=st.tuples(st.integers(1, 3), st.integers(0, 4)),
    requests=st.lists(st.lists(FAILURES, max_size=5), max_size=4),
    turns=st.lists(st.integers(0, 3), max_size=20),
)
def test_busy_is_exact(
    apache: bool,
    counts: tuple[int, int],
    requests: list[list[tuple[Failure, bool, bool]]],
    turns: list[int],
) -> None:
    """However attempts of several requests mix and fail, nobody's busy is ever wrong (B10)."""
    way = mapping(counts[0], max_attempts=counts[1], apache=apache)
    head = request()
    placements = [place(way, head, apache=apache) for _ in requests]
    at: list[Any] = [
        placement.member if placement.choose(NOW) else None for placement in placements
    ]
    for turn in turns:
        if turn >= len(requests) or at[turn] is None:
            continue
        placement = placements[turn]
        at[turn] = None
        if not requests[turn]:
            placement.leave()
        else:
            failure, reused, later = requests[turn].pop()
            verdict = placement.failed(failure, head, NOW, reused=reused, later_request=later)
            if verdict.next is Next.SAME_MEMBER or (
                verdict.next is Next.OTHER_MEMBER and placement.choose(NOW)
            ):
                at[turn] = placement.member
            else:
                placement.leave()
        busy = [member.busy for member in way.balancer.members]
        assert busy == [at.count(member) for member in way.balancer.members]
    for placement in placements:
        placement.leave()
    assert {member.busy for member in way.balancer.members} == {0}


# --- what goes with it -------------------------------------------------------------------------


def test_no_cookie_to_set() -> None:
    """Without a session cookie in the settings no line is written (S15)."""
    placement = place(mapping(session_cookie=None), request())
    assert placement.choose(NOW)
    assert placement.cookie_line(SECOND, tls=True) == b""


@pytest.mark.parametrize(
    ("text", "response_timeout", "seconds"),
    [
        (b"GET /webaccess", None, 5.0),
        (b"POST /Microsoft-Server-ActiveSync?Cmd=Ping", None, 3660.0),
        (b"POST /microsoft-server-activesync", None, 3660.0),
        (b"POST /x/Microsoft-Server-ActiveSync", None, 5.0),
        (b"GET /webaccess", "2h", 7200.0),
        (b"POST /Microsoft-Server-ActiveSync", "2h", 7200.0),
    ],
)
def test_response_timeout(text: bytes, response_timeout: str | None, seconds: float) -> None:
    """The mapping's, else the member's, an hour longer for ActiveSync's long polls (F16, D33)."""
    way = mapping(timeouts={"response": "5s"}, response_timeout=response_timeout)
    placement = place(way, request(text))
    assert placement.choose(NOW)
    assert placement.response_timeout == seconds


def test_shown_by_its_mapping() -> None:
    """A placement is shown by its mapping, with the attempts made."""
    placement = place(mapping(), request())
    placement.choose(NOW)
    assert repr(placement) == "<Placement <Mapping /> attempts=1>"


# --- live sessions -------------------------------------------------------------------------------


def live(placement: Placement, head: RequestHead, address: str = "192.0.2.1") -> int:
    """How many sessions the member has once it has answered."""
    placement.served(head, address, b"salt", NOW)
    return placement.mapping.balancer.sessions.live(NOW)[placement.member.name]


def test_served_sessions_live_on_the_member() -> None:
    """A session is known by its webmail's cookie, whoever sends it how often."""
    way = mapping(1)
    for number, address, count in ((1, "192.0.2.1", 1), (1, "192.0.2.2", 1), (2, "192.0.2.1", 2)):
        head = request(cookie=b"PHPSESSID=%d" % number)
        placement = place(way, head)
        assert placement.choose(NOW)
        assert live(placement, head, address) == count


def test_served_without_a_cookie_of_a_webmail() -> None:
    """A browser counts by its address once it carries a route, lest it be counted twice."""
    way = mapping(1)
    for cookie, address, count in (
        (b"", "192.0.2.1", 0),
        (b"BALANCEME=balancer.server1", "192.0.2.1", 1),
        (b"BALANCEME=balancer.server1", "192.0.2.2", 2),
        (b"BALANCEME=balancer.gone", "192.0.2.3", 3),
    ):
        head = request(b"GET /served", cookie)
        placement = place(way, head)
        assert placement.choose(NOW)
        assert live(placement, head, address) == count


def test_served_devices() -> None:
    """A device is known by its id, whether it returns cookies or not."""
    way = mapping(1)
    for target, count in ((b"?Cmd=Sync&DeviceId=a", 1), (b"?DeviceId=a&Cmd=Ping", 1), (b"", 1)):
        head = request(b"POST /Microsoft-Server-ActiveSync" + target)
        placement = place(way, head)
        assert placement.choose(NOW)
        assert live(placement, head) == count


# --- sessions that the operator moves -----------------------------------------------------------


def move(way: Mapping, head: RequestHead, address: str = "192.0.2.1") -> Placement:
    """A placement of a request while there are moves."""
    placement = place(way, head)
    placement.look_for_move(head, address, b"salt")
    assert placement.choose(NOW)
    return placement


def test_moved_by_the_operator() -> None:
    """Only the session that the operator moves is led elsewhere, and is a live one there."""
    way = mapping()
    head = request(cookie=b"PHPSESSID=1; BALANCEME=balancer.server1")
    other = request(cookie=b"PHPSESSID=2; BALANCEME=balancer.server1")
    (key,) = {read_session(head, b"salt", activesync=False)[1]}
    way.balancer.sessions.moves.put(key, Move("server2", "server1", NOW + 60))
    assert route(move(way, other)) == b"server1"
    placement = move(way, head)
    assert route(placement) == b"server2"
    assert (placement.choice.session, placement.choice.reason) == (Session.MOVED, Reason.OPERATOR)
    assert b"=balancer.server2;" in placement.cookie_line(SECOND, tls=True)
    assert live(placement, head) == 1
    # another attempt is the balancer's own
    refuse(placement, head)
    assert placement.choose(NOW)
    assert route(placement) == b"server1"


def test_moved_browser_is_told_by_its_address() -> None:
    """Browsers with the same fields are told apart by their address, as for the live sessions."""
    way, head = mapping(), request(cookie=b"BALANCEME=balancer.server1")
    key = read_session(head, b"salt", activesync=False)[1] ^ address_hash(b"salt", "192.0.2.1")
    way.balancer.sessions.moves.put(key, Move("server2", "server1", NOW + 60))
    assert route(move(way, head, "192.0.2.2")) == b"server1"
    assert route(move(way, head)) == b"server2"


def test_moved_to_a_member_that_was_taken_over() -> None:
    """A member whose sessions another one has gets none, whatever was said before."""
    way = mapping(3)
    way.balancer.set_heirs({b"server2": b"server3"})
    head = request(cookie=b"PHPSESSID=1; BALANCEME=balancer.server1")
    key = read_session(head, b"salt", activesync=False)[1]
    way.balancer.sessions.moves.put(key, Move("server2", "server1", NOW + 60))
    assert route(move(way, head)) == b"server1"
