import base64
from typing import Any

import pytest

from proxy.core.heads import RequestHead
from proxy.core.sessions import (
    address_hash,
    browser_hash,
    cookie_hash,
    device_hash,
    live_for,
    read_session,
)
from proxy.core.settings import Balancer as BalancerSettings

SALT = b"0123456789abcdef"
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


# --- the same without a request -----------------------------------------------------------------


def test_hash_of_a_cookie() -> None:
    """A session is found by what stands in a browser's Cookie field."""
    text = b"lang=nl; ZARAFA_WEBAPP=0123abcd"
    assert cookie_hash(SALT, text) == key(cookie(text))
    assert cookie_hash(SALT, b"lang=nl") == 0


@pytest.mark.parametrize("user", [b"erika", b"Erika", b"Z\\erika"])
def test_hash_of_a_device(user: bytes) -> None:
    """A session is found by its device and by its user, as it logs in."""
    sent = head(ERIKA, EAS + b"?Cmd=Sync&DeviceId=abc")
    assert device_hash(SALT, b"abc", user) == key(sent)


def test_hash_of_a_browser() -> None:
    """A session is found by its browser, its address and the word of a proxy before us."""
    sent = head(b"User-Agent: Firefox\r\nX-Forwarded-For: ::1\r\n")
    found = browser_hash(SALT, b"Firefox", b"::1") ^ address_hash(SALT, "192.0.2.1")
    assert found == key(sent)


# --- how long it lives --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("session_cookie", "seconds"),
    [(None, HOUR), ({}, HOUR), ({"lifetime": 0}, HOUR), ({"lifetime": "5m"}, 300.0)],
)
def test_live_for(session_cookie: dict[str, Any] | None, seconds: float) -> None:
    """A session lives as long as its cookie, and an hour where that says nothing."""
    members = [{"url": "http://server1", "route": "server1"}]
    plain = {"members": members, "sticky_session": "B", "session_cookie": session_cookie}
    assert live_for(BalancerSettings.model_validate(plain)) == seconds
