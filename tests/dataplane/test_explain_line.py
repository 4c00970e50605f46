"""X-Balanceme on the way: who gets it, with which responses, and that no member writes it."""

from typing import Any

import pytest

from proxy.core.settings import OperatorStatus
from tests.dataplane.conftest import MakeStage
from tests.dataplane.messages import handed_on, request, response
from tests.fakes import Peer, Stage

TOLD: dict[str, Any] = {"explain_to": ["192.0.2.1"]}
# A connection for each request, to be accepted.
ANEW = {"reuse_connections": False}
LINE = b'X-Balanceme: member=server1 route=- session=new reason="elected" attempts=1\r\n'
NOTHING = b'X-Balanceme: member=- route=- session=- reason="-" attempts=0\r\n'
FORGED = b"X-Balanceme: member=evil\r\nx-BALANCEME: b\r\n"


def served(stage: Stage, client: Peer, fields: bytes = b"", theirs: bytes = b"") -> bytes:
    """What a client gets for a request with these fields; the member adds ``theirs``."""
    client.send(request(fields=fields))
    stage.accept().send(response(b"200 OK", theirs, b"x"))
    return client.take()


def test_who_is_told(make_stage: MakeStage) -> None:
    """Only clients in explain_to are told; for others nothing is other than it was."""
    stage = make_stage(1, top=TOLD, member=ANEW)
    assert served(stage, stage.client()) == handed_on(fields=LINE, body=b"x")
    assert served(stage, stage.client("192.0.2.2")) == handed_on(body=b"x")


def test_nobody_is_told(stage: Stage) -> None:
    """Without explain_to nobody is told."""
    assert served(stage, stage.client()) == handed_on(body=b"x")


def test_a_member_s_own_line(make_stage: MakeStage) -> None:
    """A member's line of that name is passed on to others, and can't be taken for ours."""
    stage = make_stage(1, top=TOLD, member=ANEW)
    theirs = FORGED + b"A: b\r\n"
    ours = handed_on(fields=LINE + b"A: b\r\n", body=b"x")
    others = handed_on(fields=theirs, body=b"x")
    # What is remembered of the same head for the one isn't given to the other.
    for _ in range(2):
        assert served(stage, stage.client("192.0.2.2"), theirs=theirs) == others
        assert served(stage, stage.client(), theirs=theirs) == ours


def test_connection_can_t_take_it_away(make_stage: MakeStage) -> None:
    """Naming the line in Connection removes a member's, and not ours (H41)."""
    stage = make_stage(1, top=TOLD)
    theirs = b"Connection: x-balanceme\r\n" + FORGED
    assert served(stage, stage.client(), theirs=theirs) == handed_on(fields=LINE, body=b"x")


def test_what_a_client_sends(make_stage: MakeStage) -> None:
    """A client's own line goes to the member as any other does, and never comes back."""
    stage = make_stage(1, top=TOLD)
    client = stage.client()
    client.send(request(fields=b"X-Balanceme: a\r\n" + b"Cookie: BALANCEME=x.evil\r\n"))
    member = stage.accept()
    assert b"\r\nX-Balanceme: a\r\n" in member.take()
    member.send(response(body=b"x"))
    assert b'\r\nX-Balanceme: member=server1 route=- session=unknown reason="' in client.take()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"GET /a%2Fb HTTP/1.1", NOTHING),
        (b"CONNECT / HTTP/1.1", NOTHING),
        (b"TRACE / HTTP/1.1", LINE),
        (b"GE\x00T / HTTP/1.1", NOTHING),
        (b"GET / HTTP/2.0", NOTHING),
    ],
)
def test_own_answers(make_stage: MakeStage, line: bytes, told: bytes) -> None:
    """Answers of our own tell it as well, those to what can't be understood among them."""
    stage = make_stage(1, top=TOLD)
    client = stage.client()
    client.send(request(line))
    assert b"\r\n" + told in client.take()
    client = stage.client("192.0.2.2")
    client.send(request(line))
    assert b"X-Balanceme" not in client.take()


def test_failover(make_stage: MakeStage) -> None:
    """Attempts are counted, and nobody is named when nobody answered (F1)."""
    stage = make_stage(2, top=TOLD)
    client = stage.client()
    client.send(request(fields=b"Cookie: BALANCEME=x.server2\r\n"))
    stage.refuse("server2")
    stage.accept("server1").send(response())
    assert (
        b"X-Balanceme: member=server1 route=server2 session=moved"
        b' reason="its own member can\'t be used" attempts=2\r\n'
    ) in client.take()
    client = stage.client()
    for member in stage.balancer.members:
        stage.balancer.set_operator_status(member, OperatorStatus.DISABLED)
    client.send(request(fields=b"Cookie: BALANCEME=x.server1\r\n"))
    assert (
        b"X-Balanceme: member=- route=server1 session=kept"
        b' reason="no member can be used" attempts=0\r\n'
    ) in client.take()


def test_a_member_that_fails(make_stage: MakeStage) -> None:
    """With a 502 the member is named that didn't answer."""
    stage = make_stage(1, top=TOLD)
    client = stage.client()
    client.send(request())
    stage.accept().send(b"nonsense\r\n\r\n")
    answer = client.take()
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert LINE in answer


def test_interim_and_switching(make_stage: MakeStage) -> None:
    """A 101 tells it too; in a 1xx before the answer nobody does."""
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    top = {**TOLD, "trusted_proxies": ["192.0.2.3"]}
    stage = make_stage(1, top=top, mapping={"upgrade": ["websocket"]})
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
        client = stage.client(address)
        client.send(request(fields=upgrade))
        member = stage.accept()
        member.send(b"HTTP/1.1 103 Early Hints\r\nA: b\r\n" + FORGED + b"\r\n")
        hints = client.take()
        member.send(b"HTTP/1.1 101 Switching Protocols\r\n" + FORGED + upgrade + b"\r\n")
        switched = client.take()
        if address == "192.0.2.1":
            assert hints == b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n"
            assert switched == b"HTTP/1.1 101 Switching Protocols\r\n" + LINE + upgrade + b"\r\n"
        else:
            assert FORGED in hints
            assert FORGED in switched


@pytest.mark.parametrize(
    ("forwarded", "told"),
    [
        (b"", False),
        (b"X-Forwarded-For: 192.0.2.1\r\n", True),
        (b"X-Forwarded-For: 192.0.2.1, 192.0.2.9\r\n", False),
        (b"X-Forwarded-For: 192.0.2.9, 192.0.2.1, 198.51.100.2\r\n", True),
        (b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.9\r\n", False),
        (b"X-Forwarded-For: 192.0.2.1, nonsense\r\n", False),
        (b"X-Forwarded-For: 192.0.2.1,\r\n", True),
    ],
)
def test_behind_a_trusted_proxy(make_stage: MakeStage, forwarded: bytes, told: bool) -> None:
    """Behind a proxy that is trusted its client counts, and not what that says of itself (H43)."""
    trusted = {"trusted_proxies": ["198.51.100.0/24"]}
    stage = make_stage(1, top={**TOLD, **trusted}, member=ANEW)
    answer = served(stage, stage.client("198.51.100.1"), forwarded)
    assert (b"X-Balanceme" in answer) == told
    answer = served(stage, stage.client("192.0.2.9"), forwarded)
    assert b"X-Balanceme" not in answer


def test_a_reload(make_stage: MakeStage) -> None:
    """Connections follow a reload from their next response on."""
    stage = make_stage(1)
    client = stage.client()
    client.send(request())
    member = stage.accept()
    member.send(response(body=b"x"))
    assert b"X-Balanceme" not in client.take()
    for told in (True, False):
        client.send(request())
        stage.reload(1, top=TOLD if told else {})
        member.send(response(body=b"x"))
        assert (b"X-Balanceme" in client.take()) == told
