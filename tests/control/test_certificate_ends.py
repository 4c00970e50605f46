"""Certificates near their end, with real ones and a clock that a test moves."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme

from proxy.control import certificate_ends
from proxy.control.certificate_ends import CertificateEnds
from proxy.control.certificate_files import read_pem
from proxy.control.holdings import Holdings, Logs
from proxy.control.hooks import Happening, iso_time
from proxy.core.settings import Event, Settings

CA = trustme.CA()
# 22 Nov 2026 14:15:57 GMT
NOW = 1795356957.0
DAY = 86400.0


class Clock(SimpleNamespace):
    """Both clocks, which stand still."""

    passed = 0.0

    def time(self) -> float:
        """Seconds since 1970."""
        return NOW + self.passed

    def monotonic(self) -> float:
        """Seconds since something."""
        return 1000 + self.passed


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time that the module sees."""
    clock = Clock()
    monkeypatch.setattr(certificate_ends, "time", clock)
    return clock


@pytest.fixture
def happened() -> list[Happening]:
    """What was told."""
    return []


@pytest.fixture
def ends(happened: list[Happening]) -> CertificateEnds:
    """Who tells it."""
    return CertificateEnds(happened.append)


class Files:
    """Certificate files by name, and what is served with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> str:
        """The file of a certificate."""
        return str(self.folder / f"{name}.pem")

    def held(self, *frontends: list[str], **left: float) -> Holdings:
        """Write certificates with so many seconds left; the holdings of frontends with them."""
        for name, seconds in left.items():
            end = datetime.fromtimestamp(NOW + seconds, UTC)
            begin = end - timedelta(days=500)
            issued = CA.issue_cert("mail.zarafa.com", not_before=begin, not_after=end)
            issued.private_key_and_cert_chain_pem.write_to_path(self.path(name))
        tree = {
            "frontends": [
                {
                    "listen": f"127.0.0.1:{number}",
                    "tls": [
                        {"certificate": self.path(name), "names": [f"{name}.zarafa.com"]}
                        for name in names
                    ],
                    "mappings": [{"path": "/", "balancer": "a"}],
                }
                for number, names in enumerate(frontends or [list(left)], start=1)
            ],
            "balancers": {"a": {"members": [{"url": "http://a"}]}},
        }
        settings = Settings.model_validate(tree)
        keys = {
            each.listen: tuple(read_pem(tls, ()) for tls in each.certificates)
            for each in settings.frontends
        }
        return Holdings(settings, {}, keys, (), Logs(2, None))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Makes them."""
    return Files(tmp_path)


def test_ends_soon(
    ends: CertificateEnds,
    happened: list[Happening],
    files: Files,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A certificate that ends within 14 days is told of, in the log and to hooks."""
    ends.watch(files.held(soon=5 * DAY, later=15 * DAY))
    [found] = happened
    end = iso_time(NOW + 5 * DAY)
    assert found == Happening(
        event=Event.CERTIFICATE_ENDS,
        balancer=None,
        member=None,
        text=f"certificate {files.path('soon')} ends in 5 days, {end}",
        details={"certificate": files.path("soon"), "ends": end, "days": 5},
        at=NOW,
    )
    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.WARNING, found.text)


@pytest.mark.parametrize(
    ("left", "words", "days"),
    [
        (14 * DAY, "ends in 14 days", 14),
        (2 * DAY - 60, "ends in 2 days", 1),
        (DAY, "ends within 24 hours", 1),
        (3601, "ends within 2 hours", 0),
        (3600, "ends within an hour", 0),
        (0, "ends within an hour", 0),
        (-1, "has ended", -1),
        (-400 * DAY, "has ended", -400),
    ],
)
def test_when(
    left: float, words: str, days: int, ends: CertificateEnds, happened: list[Happening]
) -> None:
    """How long it lasts is told in days, on its last day in hours, and that it is over."""
    ends.seen("server1", NOW + left, 14)
    [found] = happened
    assert f" {words}, " in found.text
    assert found.details["days"] == days


def test_once_a_day(
    ends: CertificateEnds, happened: list[Happening], files: Files, clock: Clock
) -> None:
    """A file is told of once a day, however many frontends have it and reloads there are."""
    held = files.held(["soon"], ["soon"], soon=5 * DAY)
    ends.watch(held)
    ends.watch(files.held(["soon"], soon=5 * DAY))
    clock.passed = 7200
    ends.watch(held)
    assert len(happened) == 1
    clock.passed = DAY
    ends.watch(held)
    assert [each.details["days"] for each in happened] == [5, 4]


def test_has_ended(ends: CertificateEnds, happened: list[Happening], files: Files) -> None:
    """A file whose certificate has ended is told of as well."""
    ends.watch(files.held(over=-DAY))
    assert [each.details["days"] for each in happened] == [-1]


def test_looked_at_once_an_hour(
    ends: CertificateEnds, happened: list[Happening], files: Files, clock: Clock
) -> None:
    """Without a reload files are looked at once an hour."""
    held = files.held(later=14 * DAY + 600)
    ends.watch(held)
    clock.passed = 3599
    ends.watch(held)
    assert happened == []
    clock.passed = 3600
    ends.watch(held)
    assert len(happened) == 1


def test_another_certificate(
    ends: CertificateEnds, happened: list[Happening], files: Files
) -> None:
    """A reload with another certificate that ends soon as well tells of it."""
    ends.watch(files.held(soon=5 * DAY))
    ends.watch(files.held(soon=6 * DAY))
    ends.watch(files.held(soon=90 * DAY))
    assert [each.details["days"] for each in happened] == [5, 6]


def test_unreadable(
    ends: CertificateEnds,
    happened: list[Happening],
    files: Files,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What we can't read, though OpenSSL could, is said; the others are told of."""
    held = files.held(bad=DAY, soon=5 * DAY)
    first, second = held.keys["127.0.0.1:1"]
    broken = type(first)(first.certificate.replace(b"CERTIFICATE", b"CHART"), None, None)
    held.keys["127.0.0.1:1"] = (broken, second)
    ends.watch(held)
    assert len(happened) == 1
    name = files.path("bad")
    assert caplog.messages[0] == (
        f"when certificate {name} ends can't be read: there is no certificate"
    )


def test_of_a_member(
    ends: CertificateEnds, happened: list[Happening], files: Files, clock: Clock
) -> None:
    """A member's certificate is told of in the same way, with the days that its check has."""
    for left in (4, 2, 2):
        end_then = NOW + left * DAY
        ends.seen("server1.zarafa.com:993", end_then, 3, balancer="cluster", member="server1")
    end = iso_time(NOW + 2 * DAY)
    assert happened == [
        Happening(
            Event.CERTIFICATE_ENDS,
            "cluster",
            "server1",
            f"certificate of server1.zarafa.com:993 ends in 2 days, {end}",
            {"certificate": "server1.zarafa.com:993", "ends": end, "days": 2},
            NOW,
        )
    ]
    # looks at our own files forget nothing of today, and what was told on other days
    ends.watch(files.held(later=100 * DAY))
    ends.seen("server1.zarafa.com:993", NOW + 2 * DAY, 3)
    assert len(happened) == 1
    clock.passed = DAY
    ends.watch(files.held(later=100 * DAY))
    assert ends._told == {}
    ends.seen("server1.zarafa.com:993", NOW + 2 * DAY, 0)
    assert len(happened) == 1
    ends.seen("server1.zarafa.com:993", NOW + 2 * DAY, 1)
    assert len(happened) == 2
