"""Bytes both ways after an upgrade, and upgrades that nobody may have."""

import pytest

from tests.dataplane.conftest import MakeStage
from tests.dataplane.messages import OUR_FIELDS, length, post, request, response
from tests.fakes import Peer, Script, Stage

UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\n"
ALLOWED = {"upgrade": ["websocket"]}


@pytest.fixture
def stage(make_stage: MakeStage) -> Stage:
    """A stage whose mapping allows websocket."""
    return make_stage(1, mapping=ALLOWED)


def tunnel(stage: Stage) -> tuple[Peer, Peer]:
    """A client and a member with a tunnel between them."""
    client = stage.client()
    client.send(request(fields=UPGRADE))
    member = stage.accept()
    member.send(SWITCHING + UPGRADE + b"\r\n")
    client.take()
    member.take()
    return client, member


def test_tunnel_carries_bytes_both_ways() -> None:
    """After the member's 101 bytes go both ways as they are (R22, P26, H83)."""
    script = Script(mapping=ALLOWED).client(request(fields=UPGRADE))
    script.member_gets(b"GET / HTTP/1.1\r\nHost: server1\r\n" + OUR_FIELDS + UPGRADE + b"\r\n")
    script.member(SWITCHING + b"Sec-A: b\r\n" + UPGRADE + b"Set-Cookie: c\r\n\r\n")
    script.client_gets(SWITCHING + b"Sec-A: b\r\nSet-Cookie: c\r\n" + UPGRADE + b"\r\n")
    script.client(b"\x81\x05GET / HTTP/1.1\r\n\r\n").member_gets(b"\x81\x05GET / HTTP/1.1\r\n\r\n")
    script.member(b"HTTP/1.1 200 OK\r\n\r\n").client_gets(b"HTTP/1.1 200 OK\r\n\r\n")
    script.member_ends().client_is_closed().play(trailing=False)


def test_bytes_ahead_wait_for_the_101(stage: Stage) -> None:
    """What a client sends before the 101 waits for it, and is the tunnel's then (H83)."""
    client = stage.client()
    client.send(request(fields=UPGRADE) + b"ahead")
    client.send(b" of time")
    member = stage.accept()
    assert not member.take().endswith(b"ahead")
    member.send(SWITCHING + UPGRADE + b"\r\nhello")
    assert member.take() == b"ahead of time"
    assert client.take().endswith(b"\r\n\r\nhello")


def test_other_answer_leaves_it_http(stage: Stage) -> None:
    """Any other answer is an answer, and what came ahead is the next request (H83)."""
    client = stage.client()
    client.send(request(fields=UPGRADE) + request())
    member = stage.accept()
    member.take()
    member.send(response(b"403 No", body=b"x"))
    assert member.take().startswith(b"GET / HTTP/1.1\r\n")
    member.send(response())
    assert stage.statuses == [403, 200]
    assert client.open


@pytest.mark.parametrize("fields", [b"", b"Upgrade: h2c\r\n", b"Upgrade: websocket, x\r\n"])
def test_other_protocol_is_502(stage: Stage, fields: bytes) -> None:
    """A 101 for another protocol than the client's is 502, and both are left HTTP (H84, P26)."""
    client = stage.client()
    client.send(request(fields=UPGRADE))
    member = stage.accept()
    member.send(SWITCHING + fields + b"\r\n")
    assert client.take().startswith(b"HTTP/1.1 502 ")
    assert not member.open


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (b"GET / HTTP/1.1", b""),
        (b"GET / HTTP/1.1", b"Upgrade: websocket\r\n"),
        (b"GET / HTTP/1.1", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"),
        (b"GET / HTTP/1.0", UPGRADE),
    ],
)
def test_unasked_101_is_502(stage: Stage, line: bytes, fields: bytes) -> None:
    """A 101 to a request that asked for none, or may not, is 502 (H82, H84)."""
    client = stage.client()
    client.send(request(line, fields))
    member = stage.accept()
    assert b"Upgrade" not in member.take()
    member.send(SWITCHING + UPGRADE + b"\r\n")
    assert client.take().startswith(b"HTTP/1.1 502 ")
    assert not member.open


def test_upgrade_is_for_its_mapping_only(make_stage: MakeStage) -> None:
    """Without upgrade in the mapping nothing is asked of the member (R22)."""
    stage = make_stage(1)
    stage.client().send(request(fields=UPGRADE))
    assert b"Upgrade" not in stage.accept().take()


def test_body_of_an_upgrade_request_is_a_body(stage: Stage) -> None:
    """A body belongs to the request; a 101 before its end is 502 (H83)."""
    client = stage.client()
    client.send(post(b"abc", UPGRADE))
    member = stage.accept()
    assert member.take().endswith(b"\r\n\r\nabc")
    member.send(SWITCHING + UPGRADE + b"\r\n")
    assert client.take().startswith(SWITCHING)
    client.reset()
    client = stage.client()
    client.send(request(b"POST / HTTP/1.1", UPGRADE + length(b"x" * 20001)) + b"x" * 20000)
    member = stage.accept()
    member.send(SWITCHING + UPGRADE + b"\r\n")
    assert client.take().startswith(b"HTTP/1.1 502 ")
    assert not client.open


def test_is_logged_with_its_bytes(stage: Stage) -> None:
    """A tunnel is one line when it ends: 101, and what went to the client (P26)."""
    client, member = tunnel(stage)
    member.send(b"x" * 10)
    assert stage.log.lines == []
    client.send(b"y")
    member.end()
    assert ' 101 10 "' in stage.log.lines[0]
    assert client.ends == ["eof"]


def test_client_that_leaves_ends_it(stage: Stage) -> None:
    """When the client goes, what it sent before still reaches the member, which is then closed."""
    client, member = tunnel(stage)
    member.stick()
    client.send(b"last words")
    client.reset()
    assert member.ends == ["close"]
    assert stage.busy == 0
    member.flow()
    assert member.take() == b"last words"
    assert member.transport.lost


@pytest.mark.parametrize("tls", [False, True])
def test_half_close_of_the_client_ends_it(make_stage: MakeStage, *, tls: bool) -> None:
    """A client that ends its side ends the tunnel, which lasts until either side ends (P26)."""
    stage = make_stage(1, tls=tls, mapping=ALLOWED)
    client, member = tunnel(stage)
    client.end()
    assert member.ends == ["close"]
    assert client.transport.lost
    assert stage.busy == 0


def test_member_that_fails_ends_it(stage: Stage) -> None:
    """When the member's connection fails the client's is closed."""
    client, member = tunnel(stage)
    member.reset()
    assert client.ends == ["eof"]


def test_silence_ends_it(stage: Stage) -> None:
    """Without a byte either way for the tunnel timeout both sides are closed (P26)."""
    client, member = tunnel(stage)
    for peer in (client, member, client):
        stage.advance(59)
        peer.send(b"x")
    stage.advance(59)
    assert client.ends == []
    stage.advance(2)
    assert client.ends == ["eof"]
    assert member.ends == ["close"]
    assert stage.statuses == [101]


def test_member_that_reads_nothing_pauses_the_client_and_is_left(stage: Stage) -> None:
    """A member that doesn't read pauses the client; after the timeout nothing is left (H36)."""
    client, member = tunnel(stage)
    member.stick()
    client.send(b"x" * 100000)
    assert not client.transport.is_reading()
    stage.advance(61)
    assert stage.busy == 0
    assert not client.open
    stage.advance(61)
    assert member.ends == ["close", "abort"]
    assert member.transport.lost


def test_client_that_reads_nothing_pauses_the_member_and_is_dropped(stage: Stage) -> None:
    """A client that doesn't read pauses the member, and is dropped by the write timeout (H73)."""
    client, member = tunnel(stage)
    client.stick()
    member.send(b"x" * 100000)
    assert not member.transport.is_reading()
    stage.advance(59)
    client.flow(90000)
    assert member.transport.is_reading()
    member.send(b"x" * 100000)
    stage.advance(61)
    assert client.ends == ["abort"]
    assert member.ends == ["close"]


def test_graceful_stop_lets_it_go_on(stage: Stage) -> None:
    """A stop leaves a tunnel open, and ends it with the graceful timeout (D41)."""
    client, member = tunnel(stage)
    stage.stop()
    member.send(b"x")
    assert client.take() == b"x"
    stage.advance(31)
    assert client.ends == ["abort"]
