from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.values import (
    check_listen,
    check_member_url,
    check_path,
    duration_text,
    listen_host_port,
    parse_duration,
    parse_network,
    parse_size,
    parse_timeout,
    size_text,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("20s", 20.0),
        ("1.5m", 90.0),
        ("2h", 7200.0),
        ("3650d", 315360000.0),
        ("0s", 0.0),
        (0, 0.0),
        (0.0, 0.0),
    ],
)
def test_duration(text: Any, seconds: float) -> None:
    """A duration is a number with a unit, or a bare 0."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "wrong",
    ["", "20", 20, "s", "-1s", "1 s", "1h30m", "1e3s", "٣s", "3651d", True, False, None, []],
)
def test_no_duration(wrong: Any) -> None:
    """Nothing else is a duration, and false isn't 0."""
    with pytest.raises(ValueError, match="a duration is"):
        parse_duration(wrong)


@pytest.mark.parametrize("zero", [0, "0s", "0ms"])
def test_no_timeout_of_zero(zero: Any) -> None:
    """A timeout of 0 could mean at once or never, so it is refused."""
    with pytest.raises(ValueError, match="longer than 0"):
        parse_timeout(zero)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0"), (0.25, "250ms"), (20.0, "20s"), (60.0, "1m"), (3660.0, "61m"), (86400.0, "1d")],
)
def test_duration_text(seconds: float, text: str) -> None:
    """Seconds are written with the largest unit that needs no fraction."""
    assert duration_text(seconds) == text


@given(st.integers(0, 10**9 - 1))
def test_duration_text_is_read_back(milliseconds: int) -> None:
    """What is written for a duration is read as the same duration."""
    text = duration_text(milliseconds / 1000)
    assert text == "0" or round(parse_duration(text) * 1000) == milliseconds


@given(st.integers(1, 10**12 - 1))
def test_size_text_is_read_back(size: int) -> None:
    """What is written for a size is read as the same size."""
    assert parse_size(size_text(size)) == size


@pytest.mark.parametrize(
    ("text", "size"), [(1, 1), ("8190", 8190), ("16k", 16384), ("1m", 2**20), ("1g", 2**30)]
)
def test_size(text: Any, size: int) -> None:
    """A size is a number of bytes, or one with a unit."""
    assert parse_size(text) == size


@pytest.mark.parametrize("wrong", [0, -1, "0", "1kb", "1K", "1.5k", 1.5, True, None, "1025g"])
def test_no_size(wrong: Any) -> None:
    """Nothing else is a size, and a limit of 0 would refuse everything."""
    with pytest.raises(ValueError, match="a size is"):
        parse_size(wrong)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:443", ("0.0.0.0", 443)),
        ("[::]:443", ("::", 443)),
        ("[2001:db8::1]:65535", ("2001:db8::1", 65535)),
        ("localhost:80", ("localhost", 80)),
    ],
)
def test_listen(text: str, address: tuple[str, int]) -> None:
    """An address to listen on is an IP address, or localhost, and a port."""
    assert listen_host_port(text) == address
    assert check_listen(text) == text


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("443", "address:port"),
        ("mail.zarafa.com:443", "address:port"),
        ("*:443", "address:port"),
        (":443", "address:port"),
        ("::1:443", "brackets"),
        ("[127.0.0.1]:443", "brackets"),
        ("127.0.0.1", "address:port"),
        ("127.0.0.1:", "a port"),
        ("127.0.0.1:0", "a port"),
        ("127.0.0.1:65536", "a port"),
        ("127.0.0.1:" + "9" * 5000, "a port"),
        ("127.0.0.1:٣", "a port"),
    ],
)
def test_no_listen(wrong: str, reason: str) -> None:
    """Whatever can't be bound is refused, with the reason."""
    with pytest.raises(ValueError, match=reason):
        check_listen(wrong)


@pytest.mark.parametrize(
    "url",
    [
        "http://server1.zarafa.com",
        "HTTP://server_1:8080",
        "http://[2001:db8::1]:80/app",
        "http://10.0.0.1/a/b",
        "http://server1/",
    ],
)
def test_member_url(url: str) -> None:
    """A member's URL is http, a host, and if need be a port and a path."""
    assert check_member_url(url) == url


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("https://server1", "plain HTTP"),
        ("server1", "nothing more"),
        ("http://", "nothing more"),
        ("http://user@server1", "nothing more"),
        ("http://server1?x", "nothing more"),
        ("http://ser ver", "nothing more"),
        ("http://server1/ü", "nothing more"),
        ("http://[::1", "nothing more"),
        ("http://server1\n", "nothing more"),
        ("http://[1.2.3.4]", "IPv6"),
        ("http://[:::]", "IPv6"),
        ("http://server1:0", "a port"),
        ("http://server1:65536", "a port"),
        ("http://server1/a?b", "a path"),
        ("http://server1/../b", "a path"),
    ],
)
def test_no_member_url(wrong: str, reason: str) -> None:
    """What a member's URL may not hold is refused, with the reason."""
    with pytest.raises(ValueError, match=reason):
        check_member_url(wrong)


@pytest.mark.parametrize("path", ["/", "/a", "/a/", "/.a", "/a..b", "/Microsoft-Server-ActiveSync"])
def test_path(path: str) -> None:
    """A path begins with a slash."""
    assert check_path(path) == path


@pytest.mark.parametrize(
    "wrong", ["", "a", "/a b", "/a?b", "/a#b", "//a", "/a//b", "/./a", "/a/.."]
)
def test_no_path(wrong: str) -> None:
    """A path that no cleaned-up request can have is refused."""
    with pytest.raises(ValueError, match="a path begins"):
        check_path(wrong)


@pytest.mark.parametrize("text", ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::1"])
def test_network(text: str) -> None:
    """A network is written with its prefix, or as one address."""
    assert parse_network(text) == ip_network(text)
    assert parse_network(ip_network(text)) == ip_network(text)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("10.0.0.1/8", "of this address is 10.0.0.0/8"),
        ("proxy.zarafa.com", "a network is"),
        (10, "a network is"),
        (None, "a network is"),
    ],
)
def test_no_network(wrong: Any, reason: str) -> None:
    """An address inside a network isn't the network, and a number is neither."""
    with pytest.raises(ValueError, match=reason):
        parse_network(wrong)
