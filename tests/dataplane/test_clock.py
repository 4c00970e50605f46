"""Time for one worker."""

import time

import pytest

from proxy.dataplane.clock import Clock

SECOND = 1795356957


def test_date_changes_with_the_second() -> None:
    """The Date field is made once a second, and is that second's (P5, RFC 9110 section 5.6.7)."""
    clock = Clock()
    first = clock.date(SECOND)
    assert first == b"Sun, 22 Nov 2026 14:15:57 GMT"
    assert clock.date(SECOND) is first
    assert clock.date(SECOND + 1) == b"Sun, 22 Nov 2026 14:15:58 GMT"
    assert clock.date(SECOND) == first


def test_log_time_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """The access log has local time, as Apache's does (G2)."""
    monkeypatch.setattr(time, "localtime", time.gmtime)
    clock = Clock()
    assert clock.log_time(SECOND).startswith("22/Nov/2026:14:15:57 ")
    assert clock.log_time(SECOND + 60).startswith("22/Nov/2026:14:16:57 ")


def test_two_clocks() -> None:
    """One clock only goes forward, the other is the wall's."""
    clock = Clock()
    assert clock.monotonic() <= clock.monotonic()
    assert abs(clock.wall() - time.time()) < 60
