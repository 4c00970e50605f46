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


def test_notice_about_something_else(caplog: pytest.LogCaptureFixture) -> None:
    """Once a limit is another, what is said tells the new one; what was counted stays."""
    notice = Notice("most is %d", 3)
    notice.happened()
    notice.happened()
    notice.about(5)
    for _ in range(PERIOD):
        notice.tick()
    notice.happened()
    assert caplog.messages == ["most is 3", "most is 5 (1 times in the last minute)"]
    for _ in range(2 * PERIOD):
        notice.tick()
    notice.happened()
    assert caplog.messages[3:] == ["most is 5"]
    assert notice.total == 4


# --- other limits ---------------------------------------------------------------------------------

ONE, TWO = "192.0.2.1", "192.0.2.2"


def test_other_limits(caplog: pytest.LogCaptureFixture) -> None:
    """They count from now on; who is there stays, also where there are more than that."""
    admission = Admission(9)
    for address in (ONE, ONE, ONE, TWO):
        assert admission.admit(address)
    admission.configure(4, None, (), [ONE, ONE, ONE, TWO])
    assert not admission.admit(TWO)
    assert admission.count == 4
    admission.configure(9, 2, (), [ONE, ONE, ONE, TWO])
    assert admission.count == 4
    assert not admission.admit(ONE)
    admission.leave(ONE)
    assert not admission.admit(ONE)
    admission.leave(ONE)
    assert admission.admit(ONE)
    assert admission.admit(TWO)
    assert not admission.admit(TWO)
    assert caplog.messages == [
        "connections refused: max_connections allows this worker 4",
        "connections refused: max_connections_per_address is 2",
    ]
    assert repr(admission) == "<Admission 4 of 9>"


def test_other_exceptions() -> None:
    """Who is trusted now, or no more, is counted so with all connections that it has."""
    trusted = (ip_network("192.0.2.1/32"),)
    admission = Admission(9, 1)
    assert admission.admit(ONE)
    admission.configure(9, 1, trusted, [ONE])
    assert admission.admit(ONE)
    admission.configure(9, 1, (), [ONE, ONE])
    assert not admission.admit(ONE)
    for _ in range(2):
        admission.leave(ONE)
    assert admission.admit(ONE)


def test_limit_taken_away() -> None:
    """Without a limit for an address nothing is kept of any."""
    admission = Admission(9, 1)
    assert admission.admit(ONE)
    admission.configure(9, None, (), [ONE])
    assert admission.admit(ONE)
    assert not admission._by_address
    admission.leave(ONE)
    admission.leave(ONE)
    assert admission.count == 0
    assert not admission._by_address


def test_who_is_still_being_secured() -> None:
    """A connection that doesn't stand yet counts in all, and leaves without harm."""
    admission = Admission(2)
    assert admission.admit(ONE)
    assert admission.admit(TWO)
    admission.configure(2, 1, (), [TWO])
    assert admission.count == 2
    admission.leave(ONE)
    assert admission.admit(ONE)
    for address in (ONE, TWO):
        admission.leave(address)
    assert admission.count == 0
    assert not admission._by_address
