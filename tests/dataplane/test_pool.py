"""A worker's connections to one member: taken, opened, limited, waited for."""

import errno
import socket
from typing import Any

import pytest

from proxy.dataplane.member_connection import MemberConnection
from proxy.dataplane.pool import ADDRESS_TTL
from tests.dataplane.conftest import MakeStage
from tests.dataplane.messages import passed_on, post, request, response
from tests.fakes import Peer, Stage


def busy(stage: Stage, count: int = 1) -> list[Peer]:
    """So many clients whose requests are on their way to members."""
    clients = [stage.client(f"192.0.2.{number}") for number in range(1, count + 1)]
    for client in clients:
        client.send(request())
    return clients


# --- taking --------------------------------------------------------------------------------------


def test_takes_the_one_used_last(make_stage: MakeStage) -> None:
    """Of the idle connections the one used last is taken, so that the others can age."""
    stage = make_stage(1)
    busy(stage, 2)
    members = [stage.accept(), stage.accept()]
    for member in members:
        member.take()
        member.send(response())
    stage.client().send(request())
    assert members[0].take() == b""
    members[1].gets(passed_on())


def test_no_reuse(make_stage: MakeStage) -> None:
    """Without reuse_connections each exchange has a connection of its own (R28)."""
    stage = make_stage(1, member={"reuse_connections": False})
    for client in busy(stage, 2):
        member = stage.accept()
        assert b"Connection: close\r\n" in member.take()
        member.send(response())
        assert client.open
        assert not member.open


def test_close_closes_what_is_idle(make_stage: MakeStage) -> None:
    """At the end of a worker idle connections are closed, the others end with their exchange."""
    stage = make_stage(1)
    client, _ = busy(stage, 2)
    members = [stage.accept(), stage.accept()]
    members[1].send(response())
    stage.loop.run(stage.pool().close)
    assert members[0].open
    assert not members[1].open
    members[0].send(response(body=b"x"))
    assert client.take().endswith(b"x")


# --- opening -------------------------------------------------------------------------------------


def test_tries_each_address(make_stage: MakeStage) -> None:
    """Each address of a name is tried before the connection counts as refused (F15)."""
    stage = make_stage(2)
    stage.loop.addresses["server1"] = ["10.0.0.1", "10.0.0.2", "10.0.0.1"]
    busy(stage)
    stage.refuse("10.0.0.1")
    assert stage.member().error_since is None
    stage.accept("10.0.0.2").send(response())
    assert stage.statuses == [200]


def test_all_addresses_refuse(make_stage: MakeStage) -> None:
    """When all of them refuse the name is asked for again the next time (F15)."""
    stage = make_stage(1)
    stage.loop.addresses["server1"] = ["10.0.0.1"]
    busy(stage)
    stage.refuse("10.0.0.1", OSError("unreachable"))
    stage.loop.addresses["server1"] = ["10.0.0.2"]
    busy(stage)
    assert stage.openings == ["10.0.0.2"]


def test_remembers_addresses_for_a_minute(make_stage: MakeStage) -> None:
    """A name is resolved once a minute, not for each connection."""
    stage = make_stage(1)
    stage.loop.addresses["server1"] = ["10.0.0.1"]
    busy(stage)
    stage.loop.addresses["server1"] = ["10.0.0.2"]
    busy(stage)
    assert stage.openings == ["10.0.0.1", "10.0.0.1"]
    stage.accept("10.0.0.1")
    stage.accept("10.0.0.1")
    stage.advance(ADDRESS_TTL + 1)
    busy(stage)
    assert stage.openings == ["10.0.0.2"]


def test_unresolved_name(make_stage: MakeStage) -> None:
    """A name that no resolver knows puts its member in error; it is asked for again (X)."""
    stage = make_stage(1)
    stage.loop.addresses["server1"] = socket.gaierror(-2, "Name or service not known")
    (client,) = busy(stage)
    assert client.take().startswith(b"HTTP/1.1 503 ")
    assert stage.member().error_since is not None
    del stage.loop.addresses["server1"]
    busy(stage)
    assert stage.openings == ["server1"]


def test_no_address_at_all(make_stage: MakeStage) -> None:
    """A name without an address is a refusal."""
    stage = make_stage(1)
    stage.loop.addresses["server1"] = []
    (client,) = busy(stage)
    assert client.take().startswith(b"HTTP/1.1 503 ")


def test_member_that_closes_at_once(make_stage: MakeStage) -> None:
    """Closed before anything was sent is as good as refused; for Apache it is a 502 (H65)."""
    stage = make_stage(1, top={"compat": "apache"})
    (client,) = busy(stage)
    opening = stage.loop.openings[0]
    stage.loop.call_soon(opening.close_at_once)
    stage.loop.settle()
    stage.check()
    assert client.take().startswith(b"HTTP/1.1 502 ")


def test_member_that_closes_at_once_fails_over(make_stage: MakeStage) -> None:
    """Nothing was sent, so another member gets the request, whatever its method (H69)."""
    stage = make_stage(2)
    client = stage.client()
    client.send(post(b"abc"))
    stage.loop.call_soon(stage.loop.openings[0].close_at_once)
    stage.loop.settle()
    stage.check()
    assert stage.openings == ["server2"]
    member = stage.accept("server2")
    assert member.take().endswith(b"abc")
    member.send(response())
    assert client.take().startswith(b"HTTP/1.1 200 ")


# --- max_connections -----------------------------------------------------------------------------


def test_waits_for_a_free_connection(make_stage: MakeStage) -> None:
    """At the limit exchanges wait, and get connections in their order (F12)."""
    stage = make_stage(1, member={"max_connections": 1})
    clients = busy(stage, 3)
    assert stage.openings == ["server1"]
    member = stage.accept()
    for client in clients:
        member.take()
        member.send(response(body=b"x"))
        assert client.take().endswith(b"x")
    assert len(stage.pool().connections) == 1
    assert "connect=0 " in stage.log.lines[0]


def test_closed_connection_makes_room(make_stage: MakeStage) -> None:
    """When a connection closes, whoever waits has a new one opened (F12)."""
    stage = make_stage(1, member={"max_connections": 1})
    first, second = busy(stage, 2)
    stage.accept().end()
    assert first.take().startswith(b"HTTP/1.1 502 ")
    stage.accept().send(response(body=b"x"))
    assert second.take().endswith(b"x")


@pytest.mark.parametrize("gone", [False, True], ids=["refused", "client gone"])
def test_failed_opening_makes_room(make_stage: MakeStage, *, gone: bool) -> None:
    """When an opening fails, whoever waits for it must not wait for ever (F12)."""
    stage = make_stage(1, member={"max_connections": 1})
    first, second = busy(stage, 2)
    if gone:
        first.reset()
    stage.refuse()
    assert stage.openings == ["server1"]
    stage.accept().send(response(body=b"x"))
    assert second.take().endswith(b"x")


def test_opening_that_nobody_wants_is_given_to_who_waits(make_stage: MakeStage) -> None:
    """A connection whose client has gone serves the next that waits (F12)."""
    stage = make_stage(1, member={"max_connections": 1})
    first, second = busy(stage, 2)
    first.reset()
    stage.accept().send(response(body=b"x"))
    assert second.take().endswith(b"x")


def test_who_leaves_waits_no_longer(make_stage: MakeStage) -> None:
    """A client that goes while it waits is not given a connection (H66)."""
    stage = make_stage(1, member={"max_connections": 1})
    _, second, third = busy(stage, 3)
    second.reset()
    member = stage.accept()
    member.take()
    member.send(response())
    assert b"X-Forwarded-For: 192.0.2.3\r\n" in member.take()
    member.send(response(body=b"x"))
    assert third.take().endswith(b"x")


def test_acquire_timeout(make_stage: MakeStage) -> None:
    """After acquire_timeout the request goes to another member, and none is in error (F12, X)."""
    stage = make_stage(2, member={"max_connections": 1, "acquire_timeout": "2s"})
    clients = busy(stage, 3)
    members = [stage.accept("server1"), stage.accept("server2")]
    assert stage.busy == 3
    stage.advance(1.9)
    assert "attempts" not in "".join(stage.log.lines)
    stage.advance(0.2)
    stage.advance(2.1)
    assert clients[2].take().startswith(b"HTTP/1.1 503 ")
    assert not any(member.error_since for member in stage.balancer.members)
    for member in members:
        member.send(response())
    assert stage.statuses == [503, 200, 200]


def test_acquire_timeout_fails_over(make_stage: MakeStage) -> None:
    """The other member takes it if it has room (F12)."""
    stage = make_stage(2, member={"max_connections": 1, "acquire_timeout": "2s"})
    first = stage.client()
    first.send(request())
    stage.accept("server1")
    second = stage.client()
    second.send(request(fields=b"Cookie: BALANCEME=x.server1\r\n"))
    stage.advance(2.1)
    stage.accept("server2").send(response(body=b"x"))
    assert second.take().endswith(b"x")


def test_unread_data_is_not_given_to_who_waits(
    make_stage: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection with unread bytes is not handed on: who waits gets a new one (H60)."""
    stage = make_stage(1, member={"max_connections": 1})
    _, second = busy(stage, 2)
    member = stage.accept()
    with monkeypatch.context() as patch:
        patch.setattr(MemberConnection, "is_clean", lambda *_: False)
        member.send(response())
    assert not member.open
    stage.accept().send(response(body=b"x"))
    assert second.take().endswith(b"x")


def test_wait_has_no_end_by_default(make_stage: MakeStage) -> None:
    """Without acquire_timeout a request waits as long as its client does (F12)."""
    stage = make_stage(1, member={"max_connections": 1, "timeouts": {"response": "2h"}})
    busy(stage, 2)
    stage.accept()
    stage.advance(3600)
    assert stage.busy == 2


# --- what is no member's fault -------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EADDRNOTAVAIL])
def test_our_own_lack_is_no_member_s_fault(make_stage: MakeStage, number: int) -> None:
    """Without a descriptor or a local port we can't connect, and nobody is in error (H67)."""
    stage = make_stage(1)
    client = stage.client()
    client.send(request())
    stage.refuse("server1", OSError(number, "exhausted"))
    assert client.take().startswith(b"HTTP/1.1 503 ")
    assert stage.member().error_since is None


def test_our_own_lack_ends_an_opening(make_stage: MakeStage) -> None:
    """Without a descriptor for one address a refusal of the next would be no word on both (H67)."""
    stage = make_stage(1)
    stage.loop.addresses["server1"] = ["10.0.0.1", "10.0.0.2"]
    busy(stage)
    stage.refuse("10.0.0.1", OSError(errno.EMFILE, "exhausted"))
    assert stage.openings == []
    assert stage.statuses == [503]
    assert stage.member().error_since is None


def test_our_own_lack_when_resolving(make_stage: MakeStage) -> None:
    """A name that we have no descriptor to ask for isn't unknown."""
    stage = make_stage(1)
    stage.loop.addresses["server1"] = OSError(errno.EMFILE, "Too many open files")
    busy(stage)
    assert stage.statuses == [503]
    assert stage.member().error_since is None


@pytest.mark.parametrize("gone", [False, True])
def test_opening_that_nobody_foresaw(make_stage: MakeStage, *, gone: bool) -> None:
    """What fails in opening, such as a thread to resolve a name, ends the exchange (P5)."""
    stage = make_stage(1)
    (client,) = busy(stage)
    if gone:
        client.reset()
    error: Any = RuntimeError("can't start new thread")
    stage.refuse("server1", error)
    assert stage.statuses == [499 if gone else 500]
    assert stage.member().error_since is None
    assert stage.mistakes()


@pytest.mark.parametrize("apache", [False, True])
def test_full_member_is_in_error_for_apache_only(make_stage: MakeStage, apache: bool) -> None:
    """However many wait for max_connections, the member isn't in error; F12 has it so."""
    top = {"compat": "apache"} if apache else {}
    member = {"max_connections": 1, "acquire_timeout": "1s"}
    stage = make_stage(1, member=member, balancer={"fail_on_timeout": True}, top=top)
    busy(stage, 20)
    stage.accept()
    stage.advance(1.1)
    assert stage.statuses == [503] * 19
    assert (stage.member().error_since is not None) is apache


def test_name_server_that_is_away(make_stage: MakeStage) -> None:
    """Addresses that are known serve on while the name can't be resolved (F15)."""
    stage = make_stage(1)
    stage.loop.addresses["server1"] = ["10.0.0.1"]
    busy(stage)
    stage.loop.openings[0].accept()
    stage.advance(3600)
    stage.loop.addresses["server1"] = socket.gaierror(-3, "Temporary failure")
    busy(stage)
    assert stage.openings == ["10.0.0.1"]


def test_waiting_clients_that_all_leave(make_stage: MakeStage) -> None:
    """Thousands that wait for a connection and leave are forgotten one by one (H38, H72)."""
    stage = make_stage(1, member={"max_connections": 1})
    clients = busy(stage, 2000)
    for client in clients[:0:-1]:
        stage.loop.run(client.transport.lose, ConnectionResetError("reset"))
    assert not stage.pool()._waiting
