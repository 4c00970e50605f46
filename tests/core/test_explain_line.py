"""X-Balanceme: what it says, and that nobody else can say it."""

import pytest

from proxy.core.explain_line import explain_line, with_line, without_line
from proxy.core.heads import RequestHead
from proxy.core.mapping import Mapping, read_target
from proxy.core.placement import Placement
from proxy.core.settings import Mapping as MappingSettings
from tests.core.test_balancer import COOKIE, NOW, balancer


@pytest.mark.parametrize(
    ("cookie", "told"),
    [
        (b"a=b", b'member=server1 route=- session=new reason="elected" attempts=1'),
        (
            b"BALANCEME=x.server2",
            b'member=server2 route=server2 session=kept reason="its own member" attempts=1',
        ),
        (
            b"BALANCEME=x@server2.server1",
            (
                b'member=server2 route=server1 session=moved reason="back at its own member"'
                b" attempts=1"
            ),
        ),
        (
            b'BALANCEME=x.a" attempts=9',
            b'member=server1 route=- session=unknown reason="elected" attempts=1',
        ),
        (
            b'BALANCEME=x@a"b.server9',
            b'member=server1 route=- session=unknown reason="elected" attempts=1',
        ),
    ],
)
def test_line(cookie: bytes, told: bytes) -> None:
    """The choice in the words of the access log; a route only if a member has it (H86)."""
    mapping = Mapping(
        MappingSettings(path="/", balancer="cluster"), balancer({}, {}, failback="return", **COOKIE)
    )
    head = RequestHead(b"GET / HTTP/1.1\r\nHost: a\r\nCookie: %b\r\n\r\n" % cookie)
    placement = Placement(mapping, read_target(head.target), head, apache=False)
    assert placement.choose(NOW)
    assert explain_line(placement) == b"X-Balanceme: %b\r\n" % told


def test_nobody() -> None:
    """Without a member there is none to name."""
    mapping = Mapping(
        MappingSettings(path="/", balancer="cluster"), balancer({"status": "disabled"})
    )
    head = RequestHead(b"GET / HTTP/1.0\r\n\r\n")
    placement = Placement(mapping, read_target(head.target), head, apache=False)
    assert not placement.choose(NOW)
    assert explain_line(placement) == (
        b'X-Balanceme: member=- route=- session=new reason="no member can be used" attempts=0\r\n'
    )


def test_a_members_own() -> None:
    """A member's lines of that name go, however it spells it, and no other line does."""
    others = b"X-Balanceme2: a\r\nA: X-Balanceme: b\r\n"
    theirs = b"X-Balanceme: c\r\nX-BALANCEME: d\r\nx-balanceme: \r\n"
    assert without_line(theirs + others + theirs) == others
    head = b"HTTP/1.1 101 A\r\n" + theirs + others + b"\r\n"
    assert with_line(head, b"X-Balanceme: ours\r\n") == (
        b"HTTP/1.1 101 A\r\nX-Balanceme: ours\r\n" + others + b"\r\n"
    )
