import base64
from random import Random
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.heads import RequestHead
from proxy.core.sessions import LiveSessions, address_hash, live_for, merge, read_session
from proxy.core.settings import Balancer as BalancerSettings

SALT = b"0123456789abcdef"
NOW = 1000.0
HOUR = 3600.0
EAS = b"POST /Microsoft-Server-ActiveSync"
ERIKA = b"Authorization: Basic " + base64.b64encode(b"erika:secret") + b"\r\n"
COMPACT = b"?jRIHBBAAAQIDBAUGBwgJCgsMDQ4PBHhWNBIDV1A4CBFlcmlrYUBleGFtcGxlLm9yZw=="


def head(fields: bytes = b"", start: bytes = b"GET /") -> RequestHead:
    """A request with whole field lines, never seen before."""
    return RequestHead(start + b" HTTP/1.1\r\nHost: zarafa.com\r\n" + fields + b"\r\n")


def cookie(text: bytes) -> RequestHead:
    """A request with this Cookie field."""
    return head(b"Cookie: " + text + b"\r\n")


def key(made: RequestHead, address: str = "192.0.2.1", salt: bytes = SALT) -> int:
    """What stands for the session of a request by a client at ``address``."""
    eas = made.target.startswith(b"/Microsoft")
    mark = read_session(made, salt, activesync=eas)
    return mark[1] ^ address_hash(salt, address) if mark[2] else mark[1]


def table(*seen: tuple[int, float], lifetime: float = HOUR) -> LiveSessions:
    """A table in which these sessions were seen, each at its time."""
    made = LiveSessions(lifetime)
    for session, now in seen:
        made.note(session, now)
    return made


def packed(made: LiveSessions, now: float = NOW) -> bytes:
    """A table for another process."""
    return b"".join(made.packed(now))


# --- what makes a session ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        b"ZARAFA_WEBAPP",
        b"ZARAFA_WEBACCESS",
        b"KOPANO_WEBAPP",
        b"GROMMUNIO_WEB",
        b"__Secure-GROMMUNIO_WEB",
        b"__Host-KOPANO_WEBAPP",
        b"PHPSESSID",
        b"JSESSIONID",
    ],
)
def test_webmail_cookie(name: bytes) -> None:
    """A webmail's session cookie is the session, from wherever, with whatever else (D74)."""
    one = key(cookie(name + b"=0123abcd; BALANCEME=balancer.server1"))
    assert one
    assert one == key(cookie(b"lang=nl;" + name + b"=0123abcd"), "192.0.2.2")
    assert one != key(cookie(name + b"=0123abce; BALANCEME=balancer.server1"))


def test_route_is_no_part_of_the_session() -> None:
    """A session that a member marks with its route is the same one after it moved."""
    assert key(cookie(b"JSESSIONID=0A1B.server1")) == key(cookie(b"JSESSIONID=0A1B.server2"))


@pytest.mark.parametrize(
    "text", [b"MY_PHPSESSID=1", b"PHPSESSID_OLD=1", b"phpsessid=1", b"PHPSESSID=", b"a=PHPSESSID=1"]
)
def test_other_cookies(text: bytes) -> None:
    """A cookie whose name only contains a webmail's, or has no value, is none."""
    assert key(cookie(text)) == key(head())


def test_browser_with_a_route() -> None:
    """Without a webmail's cookie, the client's address and its browser make the session."""
    firefox = head(b"User-Agent: Firefox\r\n")
    chrome = head(b"User-Agent: Chrome\r\n")
    clients = [(made, address) for made in (firefox, chrome) for address in ("192.0.2.1", "::1")]
    assert len({key(made, address) for made, address in clients}) == 4
    assert key(firefox) == key(head(b"User-Agent: Firefox\r\nAccept: */*\r\n", b"GET /other"))


def test_browser_behind_another_proxy() -> None:
    """Clients that share the address of a proxy before us are told apart by its word."""
    first = head(b"X-Forwarded-For: 192.0.2.1\r\n")
    second = head(b"X-Forwarded-For: 192.0.2.2\r\n")
    assert key(first, "10.0.0.1") != key(second, "10.0.0.1")


@pytest.mark.parametrize(
    ("target", "authorization", "same"),
    [
        (b"?Cmd=Ping&DeviceId=abc&DeviceType=iPhone", ERIKA, True),
        (b"?deviceid=abc&Cmd=Sync", ERIKA, True),
        (b"?DeviceId=abc", b"Authorization: Basic " + base64.b64encode(b"Z\\Erika:new"), True),
        (b"?DeviceId=abd", ERIKA, False),
        (b"?DeviceId=abc", b"Authorization: Basic " + base64.b64encode(b"max:secret"), False),
        (b"?DeviceId=abc", b"Authorization: Basic =", False),
        (b"?DeviceId=abc", b"Authorization: Bearer abc", False),
    ],
)
def test_activesync_device(target: bytes, authorization: bytes, same: bool) -> None:
    """A device is known by its id and its user, wherever it is; passwords change (D4, D18, D19)."""
    plain = key(head(ERIKA, EAS + b"?Cmd=Sync&DeviceId=abc"))
    other = head(authorization.removesuffix(b"\r\n") + b"\r\n", EAS + target)
    assert plain
    assert (key(other, "192.0.2.2") == plain) is same


def test_activesync_compact_query() -> None:
    """A device that sends its binary id compactly, and as hex in OPTIONS, is one device (D10)."""
    plain = key(head(ERIKA, EAS + b"?DeviceId=000102030405060708090a0b0c0d0e0f"))
    assert key(head(ERIKA, EAS + COMPACT)) == plain


@pytest.mark.parametrize("target", [b"", b"?", b"?Cmd=Sync", b"?jAA=", b"?jA", b"?jAAJBAA=", b"?%"])
def test_activesync_without_device(target: bytes) -> None:
    """A request without a device, as OPTIONS are, leaves nothing behind (D5)."""
    assert key(head(ERIKA, EAS + target)) == 0


def test_key_is_the_salts() -> None:
    """The same salt makes the same keys in each process, another one others, never 0."""
    made = cookie(b"PHPSESSID=1")
    with_one = key(made)
    assert with_one != key(made, salt=b"another")
    assert with_one == key(cookie(b"PHPSESSID=1"), salt=bytes(bytearray(SALT)))
    assert 0 < with_one < 1 << 64


def test_what_a_head_says_is_kept_with_it() -> None:
    """The next request of the same bytes, or of the same field lines, isn't read again."""
    first = cookie(b"PHPSESSID=1")
    key(first)
    assert first.session == (SALT, key(first), False)
    assert first.block.session is first.session
    other = head(b"Cookie: PHPSESSID=1\r\n", b"GET /other")
    assert other.block is first.block
    assert key(other) == key(first)


# --- who is alive ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("session_cookie", "seconds"),
    [(None, HOUR), ({}, HOUR), ({"lifetime": 0}, HOUR), ({"lifetime": "5m"}, 300.0)],
)
def test_live_for(session_cookie: dict[str, Any] | None, seconds: float) -> None:
    """A session lives as long as its cookie, and an hour where that says nothing."""
    members = [{"url": "http://server1", "route": "server1"}]
    plain = {"members": members, "sticky_session": "B", "session_cookie": session_cookie}
    assert live_for(BalancerSettings.model_validate(plain)) == seconds


def test_live_until_the_lifetime_has_passed() -> None:
    """Each request prolongs its session, as it does the cookie."""
    made = table((1, NOW), (2, NOW), (1, NOW + 1000))
    assert made.live(NOW) == 2
    assert made.live(NOW + HOUR - 1) == 2
    assert made.live(NOW + HOUR) == 1
    assert made.live(NOW + HOUR + 1000) == 0


def test_lifetime_of_a_reload() -> None:
    """A table may outlive a reload that changes the lifetime."""
    made = table((1, NOW))
    made.lifetime = 60.0
    assert made.live(NOW + 60) == 0


def test_sessions_that_are_over_make_room() -> None:
    """A table doesn't grow with the sessions that have been, only with those alive."""
    made = LiveSessions(60.0)
    for session in range(200_000):
        made.note(session, NOW + session / 100)  # 6000 alive at a time
    assert sum(map(len, made._parts)) < 3 * 6000
    assert made.live(NOW + 2000) == 6000 - 1


def test_bound() -> None:
    """Sessions that never come back can't fill a table, nor drive out those that do."""
    made = LiveSessions(HOUR)
    for number in range(400_000):
        made.note(number, NOW + number / 1000)
        if number % 100 == 0:
            for session in range(64):  # these come back
                made.note((1 << 63) + session, NOW + number / 1000)
    assert sum(map(len, made._parts)) <= 131072
    assert all((1 << 63) + session in made._parts[session] for session in range(64))


def test_room_for_as_many_as_there_may_be() -> None:
    """A hundred thousand sessions are all kept, however unevenly hashes fall."""
    hashes = Random(1)
    keys = {hashes.getrandbits(64) for _ in range(100_000)}
    assert table(*((session, NOW) for session in keys)).live(NOW) == len(keys)


@pytest.mark.slow
def test_no_pause() -> None:
    """Nothing that a request triggers takes long, with a hundred thousand sessions that end.

    Measured by the best of several runs, as the machine may have pauses of its own.
    """
    worst = []
    for _ in range(3):
        made = table(*((session, NOW) for session in range(100_000)))
        longest = 0.0
        for session in range(100_000, 110_000):
            began = perf_counter()
            made.note(session, NOW + HOUR)
            longest = max(longest, perf_counter() - began)
        worst.append(longest)
    assert min(worst) < 0.001


def test_repr() -> None:
    """The number of sessions that are kept, over or not."""
    assert repr(table((1, NOW), (2, NOW))) == "<LiveSessions 2 kept for 3600 s>"


# --- several workers ---------------------------------------------------------------------------

SERVER1, SERVER2 = ("cluster", "server1"), ("cluster", "server2")


def test_merge_counts_a_session_once() -> None:
    """A browser's connections go to several workers; together they are one session."""
    first, second = table((1, NOW), (2, NOW)), table((2, NOW + 1), (3, NOW))
    tables = [(SERVER1, packed(first)), (SERVER1, packed(second))]
    assert merge(tables) == {SERVER1: 3}


def test_merge_of_a_session_that_moved() -> None:
    """A session is where it was seen last, whichever worker saw it."""
    before, after = table((1, NOW), (2, NOW)), table((1, NOW + 0.5))
    tables = [(SERVER1, packed(before)), (SERVER2, packed(after))]
    assert merge(tables) == {SERVER1: 1, SERVER2: 1}


def test_merge_of_several_balancers() -> None:
    """A browser has one session with each balancer."""
    tables = [(SERVER1, packed(table((1, NOW)))), (("web", "server1"), packed(table((1, NOW + 9))))]
    assert merge(tables) == {SERVER1: 1, ("web", "server1"): 1}


def test_merge_of_nothing() -> None:
    """A member without sessions is told with 0."""
    assert merge([]) == {}
    assert merge([(SERVER1, b"")]) == {SERVER1: 0}


def test_packed_are_those_alive() -> None:
    """Sessions that are over aren't handed on."""
    made = table((1, NOW), (2, NOW + 10))
    assert merge([(SERVER1, packed(made, NOW + HOUR))]) == {SERVER1: 1}
    assert packed(made, NOW + HOUR + 10) == b""


def test_packed_is_compact() -> None:
    """A session takes 16 bytes, and no piece is large."""
    pieces = list(table(*((session, NOW) for session in range(10_000))).packed(NOW))
    assert sum(map(len, pieces)) < 10_000 * 16 + 64 * 4 + 1
    assert max(map(len, pieces)) < 10_000


@pytest.mark.parametrize("data", [b"\x01", b"\x01\0\0\0", b"\xff" * 20])
def test_what_is_no_table(data: bytes) -> None:
    """Bytes of something else are refused."""
    with pytest.raises(ValueError, match="no packed table"):
        merge([(SERVER1, data)])


seen = st.tuples(
    st.sampled_from(["server1", "server2", "server3"]),
    st.integers(0, 5),
    st.integers(0, 3).map(lambda second: NOW + second),
)


@given(st.lists(st.lists(seen, max_size=8), max_size=3), st.randoms(use_true_random=False))
def test_merge_does_not_depend_on_order(
    workers: list[list[tuple[str, int, float]]], order: Random
) -> None:
    """Whatever the order of the tables, each session is counted once, where it was last."""
    tables = []
    latest: dict[int, tuple[float, str]] = {}
    for worker in workers:
        members = {route: LiveSessions(HOUR) for route, _, _ in worker}
        for route, session, now in sorted(worker, key=lambda each: each[2]):
            members[route].note(session, now)
            latest[session] = max(latest.get(session, (0.0, "")), (now, route))
        tables += [(("cluster", route), packed(made)) for route, made in members.items()]
    counts = merge(tables)
    for route in ("server1", "server2", "server3"):
        expected = sum(where == route for _, where in latest.values())
        assert counts.get(("cluster", route), 0) == expected
    order.shuffle(tables)
    assert merge(tables) == counts


@given(st.lists(st.tuples(st.integers(0, 300), st.floats(0, 50)), max_size=300))
def test_table_is_the_latest_request_of_each(requests: list[tuple[int, float]]) -> None:
    """Making room changes nothing of what is told."""
    made = LiveSessions(20.0)
    latest: dict[int, float] = {}
    now = NOW
    for session, passed in requests:
        now += passed / 10
        made.note(session * 64, now)  # all in one part
        latest[session] = now
    assert made.live(now) == sum(last > now - 20.0 for last in latest.values())
