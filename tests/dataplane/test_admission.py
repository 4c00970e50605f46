"""proxy.dataplane.admission and .notices: who is let in, and what is said of those who aren't."""

from ipaddress import ip_network

import pytest

from proxy.dataplane.admission import Admission
from proxy.dataplane.notices import PERIOD, Notice


def test_most_connections(caplog: pytest.LogCaptureFixture) -> None:
    """Beyond the most nobody is let in, until somebody has left (H39)."""
    admission = Admission(2)
    assert [admission.admit(address) for address in ("a", "b", "c", "a")] == [True] * 2 + [
        False
    ] * 2
    admission.leave("a")
    assert admission.admit("c")
    assert not admission.admit("a")
    assert caplog.messages == ["connections refused: max_connections allows this worker 2"]


def test_per_address(caplog: pytest.LogCaptureFixture) -> None:
    """One address has its own limit; trusted proxies have none (H39)."""
    admission = Admission(99, 1, (ip_network("192.0.2.9/32"),))
    assert admission.admit("192.0.2.1")
    assert not admission.admit("192.0.2.1")
    assert admission.admit("192.0.2.2")
    assert admission.admit("192.0.2.9")
    assert admission.admit("192.0.2.9")
    admission.leave("192.0.2.1")
    assert admission.admit("192.0.2.1")
    assert caplog.messages == ["connections refused: max_connections_per_address is 1"]


def test_ipv6_counts_by_network() -> None:
    """Who has an address of a /64 has them all; a zone is no other address."""
    admission = Admission(99, 1)
    assert admission.admit("2001:db8::1%eth0")
    assert not admission.admit("2001:db8::ffff:2")
    assert admission.admit("2001:db8:0:1::1")


def test_nothing_stays() -> None:
    """After all have left the counts are where they were (H92)."""
    admission = Admission(99, 5)
    addresses = [f"192.0.2.{number % 7}" for number in range(30)]
    admitted = [address for address in addresses if admission.admit(address)]
    for address in admitted:
        admission.leave(address)
    assert admission.count == 0
    assert not admission._by_address


def test_notice_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """The first time is said at once, the others with their number a minute later (H85)."""
    notice = Notice("odd %s", "thing")
    for _ in range(5):
        notice.happened()
    notice.happened(3)
    for _ in range(PERIOD):
        notice.tick()
    assert caplog.messages == ["odd thing", "odd thing (7 times in the last minute)"]
    for _ in range(2 * PERIOD):
        notice.tick()
    notice.happened()
    assert caplog.messages[2:] == ["odd thing"]
    assert notice.total == 9
