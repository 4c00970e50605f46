"""A worker's objects under one set of settings after another, and its end."""

import gc
import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import trustme

from proxy.control.worker import (
    STOP_STEP,
    Others,
    Worker,
    most_connections,
    place_of,
    room_for_connections,
)
from proxy.core.balancer import Balancer
from proxy.core.errors import ConfigError
from proxy.core.mapping import Mapping, MappingTable
from proxy.core.member import Member
from proxy.core.proxy_protocol import Ends
from proxy.core.settings import OperatorStatus, Settings
from proxy.dataplane.exchange import LONG_POLL
from proxy.dataplane.frontend import Frontend
from proxy.dataplane.frontend_connection import LAST_REQUEST
from proxy.dataplane.member_connection import MemberConnection
from proxy.dataplane.pool import MemberPool
from proxy.dataplane.tls import Certificates
from tests.dataplane.messages import CLOSE, request, response
from tests.fakes import STOP_TIMEOUT, FakeClock, FakeLoop, FakeTransport, Peer, Stage

SESSION = b"Cookie: BALANCEME=x.server%d\r\n"


@pytest.fixture
def make() -> Iterator[Callable[..., Stage]]:
    """Makes stages; each is checked at the end of the test."""
    stages: list[Stage] = []

    def stage(members: int = 2, **settings: Any) -> Stage:
        stages.append(Stage(members, **settings))
        return stages[-1]

    yield stage
    try:
        for each in stages:
            each.end()
    finally:
        for each in stages:
            each.close()


@pytest.fixture
def stage(make: Callable[..., Stage]) -> Stage:
    """A stage with two members."""
    return make()


def tick(stage: Stage) -> None:
    """What a worker does with each sweep."""
    stage.loop.run(stage.worker._tick)


def ask(stage: Stage, client: Peer, number: int = 1, fields: bytes = b"") -> Peer:
    """A request of a session of a member, which has got it and has not answered yet."""
    name = f"server{number}"
    there = {each: len(sent_on(each)) for each in stage.pool(name).connections}
    client.send(request(fields=fields + SESSION % number))
    if name in stage.openings:
        return stage.accept(name)
    (connection,) = (each for each in there if len(sent_on(each)) > there[each])
    peer = Peer(cast(FakeTransport, connection.transport))
    peer._taken, peer.check = there[connection], stage.check
    return peer


def sent_on(connection: MemberConnection) -> bytearray:
    """All that a member has got on a connection."""
    return cast(FakeTransport, connection.transport).sent


def served(stage: Stage, client: Peer, number: int = 1, fields: bytes = b"") -> bytes:
    """What a member gets for a request of its session, which is answered."""
    member = ask(stage, client, number, fields)
    found = member.take()
    member.send(response(body=b"x"))
    assert client.take().startswith(b"HTTP/1.1 200 ")
    return found


def status(client: Peer) -> int:
    """The status of the answer that has come."""
    return int(client.take().split(b" ", 2)[1])


def members_without(number: int) -> dict[str, Any]:
    """Balancer settings with one member fewer."""
    names = [f"server{each}" for each in (1, 2, 3) if each != number]
    return {"members": [{"url": f"http://{name}", "route": name} for name in names]}


# --- what stays the same --------------------------------------------------------------------------


def test_same_settings(stage: Stage) -> None:
    """What stays the same by name stays the same object, with all that is known of it."""
    client = stage.client()
    served(stage, client)
    worker = stage.worker

    def parts() -> tuple[object, ...]:
        return (
            worker.members,
            dict(worker.pools),
            dict(worker.frontends),
            worker.pools,
            worker.connections,
            worker.admission,
            worker.deadlines,
            worker.access_log,
        )

    before = parts()
    connections = set(stage.pool().connections)
    stage.balancer.put_in_error(stage.member("server2"), stage.clock.monotonic())
    stage.reload()
    assert before == parts()
    assert stage.pool().connections == connections
    assert stage.member("server2").in_error(stage.clock.monotonic())
    served(stage, client)
    assert stage.pool().connections == connections, "the idle connection is used again"
    assert [connection.served for connection in connections] == [2]


def test_settings_are_those_in_force(stage: Stage) -> None:
    """Afterwards the worker is as one that began with these settings."""
    stage.reload(3, frontend={"limits": {"head": 70000}}, top={"health_path": "/health"})
    fresh = Worker(stage.settings, stage.loop)
    assert stage.worker.settings is stage.settings
    assert list(stage.worker.balancers) == list(fresh.balancers)
    keys = [
        [each.settings.key for each in members] for members in (stage.worker.members, fresh.members)
    ]
    assert keys[0] == keys[1]
    (mine,), (other,) = stage.worker.frontends.values(), fresh.frontends.values()
    for name in ("limits", "timeouts", "health_path", "server", "port", "server_name", "trusted"):
        assert getattr(mine, name) == getattr(other, name), name
    assert {pool.limits.head for pool in stage.pools.values()} == {70000}


# --- a client that is there -----------------------------------------------------------------------


def test_next_request_has_other_mappings(stage: Stage) -> None:
    """A connection's next request goes where the new mappings say."""
    client = stage.client()
    served(stage, client)
    stage.reload(mapping={"path": "/mail"})
    client.send(request(fields=SESSION % 1))
    assert status(client) == 404
    stage.reload()
    served(stage, client)


def test_next_request_has_other_limits(stage: Stage) -> None:
    """A head that has begun to arrive is judged by the new limits as well."""
    long = b"X: " + b"x" * 2000 + b"\r\n"
    client, begun = stage.client(), stage.client()
    served(stage, client, fields=long)
    begun.send(request(fields=long)[:-1])
    stage.reload(frontend={"limits": {"field": 1000}})
    client.send(request(fields=long))
    begun.send(b"\n")
    assert (status(client), status(begun)) == (431, 431)


def test_next_request_has_other_timeouts(stage: Stage) -> None:
    """Deadlines that are set from now on are the new ones."""
    client = stage.client()
    served(stage, client)
    stage.reload(frontend={"timeouts": {"keep_alive": "100s", "head": "40s"}})
    served(stage, client)
    stage.advance(99.0)
    assert client.open
    client.send(b"GET / HT")
    stage.advance(39.0)
    assert client.open
    stage.advance(2.0)
    assert status(client) == 408


def test_next_request_names_us_otherwise(stage: Stage) -> None:
    """Members hear the new server_name, and clients the new server and limit of requests."""
    client = stage.client()
    assert b"X-Forwarded-Server: proxy.example\r\n" in served(stage, client)
    stage.reload(
        frontend={"server_name": "new.example", "keep_alive_requests": 2},
        top={"server": "something else"},
    )
    assert b"X-Forwarded-Server: new.example\r\n" in served(stage, client)
    ask(stage, client, fields=b"Connection: keep-alive\r\n").send(response())
    answer = client.take()
    assert b"Server: something else\r\n" in answer
    assert CLOSE in answer


def test_next_request_is_trusted_or_not(stage: Stage) -> None:
    """Whether a client is one of the trusted proxies is looked at anew."""
    client = stage.client()
    told = b"X-Forwarded-For: 203.0.113.9\r\n"
    appended = b"X-Forwarded-For: 203.0.113.9, 192.0.2.1\r\n"
    assert appended not in served(stage, client, fields=told)
    stage.reload(top={"trusted_proxies": ["192.0.2.0/24"]})
    assert appended in served(stage, client, fields=told)
    stage.reload()
    assert appended not in served(stage, client, fields=told)


def test_next_answer_has_another_cookie(make: Callable[..., Stage]) -> None:
    """Cookies are set as the new settings say; sessions stay, since routes do."""
    stage = make(balancer={"session_cookie": {"lifetime": "1h"}})
    client = stage.client()
    member = ask(stage, client, 2)
    member.send(response())
    assert b"Set-Cookie: BALANCEME=balancer.server2;" in client.take()
    stage.reload(balancer={"session_cookie": {"prefix": "other"}})
    member = ask(stage, client, 2)
    member.send(response())
    assert b"Set-Cookie: BALANCEME=other.server2;" in client.take()


def test_member_is_sent_to_by_its_new_settings(stage: Stage) -> None:
    """A member's own settings count for the next request to it, connections or not."""
    client = stage.client()
    served(stage, client)
    stage.reload(member={"timeouts": {"response": "7s"}})
    ask(stage, client)
    stage.advance(6.5)
    assert client.take() == b""
    stage.advance(1.0)
    assert status(client) == 504


# --- exchanges under way --------------------------------------------------------------------------


def test_exchange_ends_on_a_member_that_is_removed(stage: Stage) -> None:
    """An exchange under way ends as it began, on a member that is no more."""
    client = stage.client()
    gone = stage.member("server2")
    member = ask(stage, client, 2)
    stage.reload(balancer=members_without(2))
    tick(stage)
    assert gone not in stage.worker.members
    assert gone.busy == 1
    assert gone in stage.pools
    member.send(response(body=b"whole"))
    assert client.take().endswith(b"\r\n\r\nwhole")
    assert member.ends == ["abort"], "nobody needs the connection any more"
    tick(stage)
    assert gone not in stage.pools
    assert client.open
    served(stage, client)  # and the client's connection goes on


@pytest.mark.parametrize("begun", ["waits", "answers", "sends"])
def test_exchange_in_any_phase(make: Callable[..., Stage], begun: str) -> None:
    """It doesn't matter how far it had got: waiting to connect, in its body, in its answer."""
    stage = make(3)
    client = stage.client()
    gone = stage.member("server3")
    fields = b"Content-Length: 6\r\n" + SESSION % 3
    client.send(request(b"POST / HTTP/1.1", fields, b"abc" if begun == "sends" else b"abcdef"))
    if begun == "sends":
        stage.advance(1.0)  # the first piece waits for a moment
    stage.loop.settle()
    if begun == "waits":
        stage.reload(2)
    member = stage.accept("server3")
    if begun == "answers":
        member.send(response(fields=b"Content-Length: 4\r\n", body=None) + b"wh")
    stage.reload(2)
    tick(stage)
    if begun == "sends":
        client.send(b"def")
    assert member.take().endswith(b"abcdef")
    member.send(b"at" if begun == "answers" else response(body=b"what"))
    assert client.take().endswith(b"what")
    tick(stage)
    assert gone not in stage.pools


def test_failover_of_an_exchange_of_before(make: Callable[..., Stage]) -> None:
    """Where its member fails after the reload, it goes to one that is still there."""
    stage = make(3)
    client = stage.client()
    client.send(request(fields=SESSION % 1))
    stage.reload(balancer=members_without(2))
    tick(stage)
    assert {pool.member.name for pool in stage.pools.values()} == {"server1", "server3"}
    stage.refuse("server1")
    assert stage.openings == ["server3"]
    stage.accept("server3").send(response())
    assert status(client) == 200
    assert stage.member("server1").in_error(stage.clock.monotonic())


def test_failover_when_nobody_is_left(stage: Stage) -> None:
    """Where all its members are others now, a request that fails is answered with 503."""
    client = stage.client()
    client.send(request(fields=SESSION % 1))
    others = {"members": [{"url": "http://new", "route": "new"}]}
    stage.reload(balancer=others)
    tick(stage)
    stage.refuse("server1")
    assert status(client) == 503
    tick(stage)
    assert len(stage.pools) == 1


def test_tunnel_goes_on(make: Callable[..., Stage]) -> None:
    """A tunnel outlives its mapping, its balancer and its member."""
    stage = make(1, mapping={"upgrade": ["websocket"]})
    client = stage.client()
    fields = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    client.send(request(fields=fields))
    member = stage.accept()
    member.take()
    member.send(b"HTTP/1.1 101 Switching Protocols\r\n" + fields + b"\r\n")
    client.take()
    other = {"members": [{"url": "http://new", "route": "new"}]}
    mapping = {"path": "/", "balancer": "other"}
    stage.reload(
        frontend={"mappings": [mapping]}, top={"balancers": {"other": {**other}, "cluster": other}}
    )
    tick(stage)
    client.send(b"ping")
    assert member.take() == b"ping"
    member.send(b"pong")
    assert client.take() == b"pong"
    client.end()
    tick(stage)
    assert len(stage.pools) == 2


# --- members --------------------------------------------------------------------------------------


def test_member_added(stage: Stage) -> None:
    """A new member takes its sessions, and its part of the new ones."""
    stage.reload(3)
    choices = Counter(stage.balancer.choose(b"/", None, 0.0).member for _ in range(9))
    assert set(choices.values()) == {3}
    served(stage, stage.client(), 3)


def test_member_removed(stage: Stage) -> None:
    """Idle connections to it are closed at once; its sessions are placed anew."""
    client = stage.client()
    served(stage, client, 2)
    (connection,) = stage.pool("server2").connections
    stage.reload(1)
    assert connection.transport.is_closing()
    tick(stage)
    assert len(stage.pools) == 1
    client.send(request(fields=SESSION % 2))
    stage.accept("server1").send(response())
    assert status(client) == 200


def test_member_with_another_url(stage: Stage) -> None:
    """Another url is another server: nothing of the former is taken for it."""
    client = stage.client()
    served(stage, client, 1)
    former = stage.member("server1")
    stage.balancer.put_in_error(former, stage.clock.monotonic())
    moved = {
        "members": [
            {"url": "http://elsewhere:81", "route": "server1"},
            {"url": "http://server2", "route": "server2"},
        ]
    }
    stage.reload(balancer=moved)
    assert stage.member("server1") is not former
    client.send(request(fields=SESSION % 1))
    assert stage.openings == ["elsewhere"]
    member = stage.accept("elsewhere")
    assert b"Host: elsewhere:81\r\n" in member.take()
    member.send(response())
    assert status(client) == 200


def test_member_that_comes_back(stage: Stage) -> None:
    """Who is configured again is a new member, while the exchange of before still ends."""
    first, second = stage.client(), stage.client()
    gone = stage.member("server2")
    old = ask(stage, first, 2)
    stage.reload(1)
    stage.reload(2)
    assert stage.member("server2") is not gone
    new = ask(stage, second, 2)
    for member, client in ((old, first), (new, second)):
        member.send(response())
        assert status(client) == 200
    tick(stage)
    assert gone not in stage.pools


def test_preamble_begins(stage: Stage) -> None:
    """Once clients are announced by a preamble, no connection from before is used again."""
    client = stage.client()
    served(stage, client)
    (connection,) = stage.pool().connections
    stage.reload(member={"proxy_protocol": "v1"})
    assert connection.transport.is_closing()
    stage.clients[0].ends = Ends("192.0.2.1", 50000, "192.0.2.9", 80)
    member = ask(stage, client)
    assert member.take().startswith(b"PROXY ")
    member.send(response())
    stage.reload()
    assert served(stage, client).startswith(b"GET ")


def test_more_connections(make: Callable[..., Stage]) -> None:
    """Who waits for a connection gets it as soon as there may be more of them."""
    stage = make(1, member={"max_connections": 1})
    clients = [stage.client() for _ in range(3)]
    for client in clients:
        client.send(request())
    first = stage.accept()
    assert stage.openings == []
    stage.reload(1, member={"max_connections": 2})
    assert len(stage.openings) == 1
    stage.reload(1)
    assert len(stage.openings) == 2
    for member in (first, stage.accept(), stage.accept()):
        member.send(response())
    assert [status(client) for client in clients] == [200] * 3


# --- frontends ------------------------------------------------------------------------------------

TWO: dict[str, Any] = {
    "frontends": [
        {"listen": f"127.0.0.1:{port}", "mappings": [{"path": "/", "balancer": "cluster"}]}
        for port in (8080, 8081)
    ]
}


def test_frontend_removed(stage: Stage) -> None:
    """Its idle clients are closed, others after their request; its twin's know nothing."""
    stage.reload(top=TWO)
    other = stage.worker.frontends[("127.0.0.1:8081", False)]
    idle, begun, busy = (stage.client(frontend=other) for _ in range(3))
    stays = stage.client()
    begun.send(b"GET ")
    served(stage, stays)
    served(stage, idle, 2)
    member = ask(stage, busy, 2)
    stage.reload()
    assert list(stage.worker.frontends) == [("127.0.0.1:8080", False)]
    served(stage, stays)
    stage.advance(LAST_REQUEST)
    assert [client.ends for client in (idle, begun, busy, stays)] == [["eof"], [], [], []]
    begun.send(b"* HTTP/1.1\r\nHost: proxy.example\r\n\r\n")
    assert CLOSE in begun.take()
    assert begun.ends == ["eof"]
    member.send(response())
    assert CLOSE in busy.take()
    assert busy.ends == ["eof"]
    served(stage, stays)


def test_frontend_that_comes_back(stage: Stage) -> None:
    """At an address that is served again, clients of before still end, and new ones stay."""
    stage.reload(top=TWO)
    place = ("127.0.0.1:8081", False)
    client = stage.client(frontend=stage.worker.frontends[place])
    member = ask(stage, client)
    stage.reload()
    stage.reload(top=TWO)
    member.send(response())
    assert CLOSE in client.take()
    again = stage.client(frontend=stage.worker.frontends[place])
    served(stage, again)
    assert again.open


class Authority:
    """Certificates in files."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self._folder = folder

    def tls(self, *names: str) -> dict[str, Any]:
        """The settings of a certificate with these names."""
        issued = self._authority.issue_cert(*names)
        path = self._folder / f"{names[0]}.pem"
        issued.private_key_and_cert_chain_pem.write_to_path(path)
        path.chmod(0o600)
        return {"certificate": str(path), "names": list(names)}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One for all tests: making keys takes a while."""
    return Authority(tmp_path_factory.mktemp("worker"))


def test_tls_is_another_place(stage: Stage, authority: Authority) -> None:
    """An address that speaks TLS from now on is another place: clients of before have to end."""
    client = stage.client()
    served(stage, client)
    plain = stage.frontend
    stage.reload(frontend={"tls": authority.tls("one.example")})
    ((place, frontend),) = stage.worker.frontends.items()
    assert place == ("127.0.0.1:8080", True) == place_of(stage.settings.frontends[0])
    assert frontend is not plain
    assert (frontend.tls, plain.tls, plain.closing, frontend.closing) == (True, False, True, False)
    stage.advance(LAST_REQUEST)
    assert client.ends == ["eof"]
    stage.reload()
    assert list(stage.worker.frontends) == [("127.0.0.1:8080", False)]


def test_certificates_are_put_behind_the_same_entry(stage: Stage, authority: Authority) -> None:
    """Tickets outlive a reload: connections to an address begin at the same TLS context."""
    one, two = authority.tls("one.example"), authority.tls("two.example")
    stage.reload(frontend={"tls": one})
    entry = stage.worker._others.entries.of("127.0.0.1:8080")
    first = entry.sni_callback
    stage.reload(frontend={"tls": two})
    assert stage.worker._others.entries.of("127.0.0.1:8080") is entry
    assert entry.sni_callback is not first
    assert stage.worker._security(stage.settings.frontends[0]) == (entry, 20.0)


# --- limits for all -------------------------------------------------------------------------------


def test_admission_changes(stage: Stage) -> None:
    """Nobody is sent away by lower limits; who comes later is counted with who is there."""
    clients = [stage.client("192.0.2.1") for _ in range(2)]
    clients.append(stage.client("192.0.2.2"))
    admission = stage.worker.admission
    stage.reload(top={"max_connections_per_address": 2})
    assert not admission.admit("192.0.2.1")
    assert admission.admit("192.0.2.2")
    admission.leave("192.0.2.2")
    stage.reload(top={"max_connections": 2})
    assert not admission.admit("192.0.2.3")
    assert all(client.open for client in clients)
    assert admission.count == 3
    served(stage, clients[0])
    stage.reload(top={"max_connections_per_address": 2, "trusted_proxies": ["192.0.2.1/32"]})
    assert admission.admit("192.0.2.1")
    admission.leave("192.0.2.1")


def test_most_connections() -> None:
    """A worker takes its part of all connections, rounded up, or as many as it has files for."""
    stage = Stage(top={"max_connections": 7, "workers": 2})
    try:
        assert stage.worker.admission.most == most_connections(stage.settings) == 4
        stage.reload()
        assert stage.worker.admission.most == room_for_connections()
    finally:
        stage.close()


# --- health_path, leaving -------------------------------------------------------------------------

HEALTH: dict[str, Any] = {"top": {"health_path": "/health"}}


def test_health_path(make: Callable[..., Stage]) -> None:
    """It is answered by ourselves: 200 while we serve, 503 once we are to leave, and 200 again."""
    stage = make(**HEALTH)
    for leaving, expected in ((False, 200), (True, 503), (False, 200)):
        stage.worker.leave(leaving=leaving)
        for method in (b"GET", b"HEAD"):
            client = stage.client()
            client.send(request(method + b" /health HTTP/1.1"))
            answer = client.take()
            assert answer.startswith(b"HTTP/1.1 %d " % expected)
            assert answer.endswith(b"\r\n\r\n") == (method == b"HEAD")
            assert client.open == (expected == 200)
    assert stage.openings == []


def test_health_path_and_nothing_else(make: Callable[..., Stage]) -> None:
    """Only the very path is ours; leaving, everything else is served as before."""
    stage = make(1, **HEALTH)
    stage.worker.leave(leaving=True)
    for target in (b"/health/", b"/healthy", b"/health?x", b"/"):
        client = stage.client()
        client.send(request(b"GET " + target + b" HTTP/1.1"))
        stage.accept().send(response() + b"")
        assert status(client) == 200
        stage.pool().close()


def test_health_path_of_a_frontend_that_redirects(authority: Authority) -> None:
    """It is answered on a frontend that only points to https too (those before us ask there)."""
    frontends = [
        {"listen": "127.0.0.1:8080", "redirect_to_https": True},
        {
            "listen": "127.0.0.1:8443",
            "tls": authority.tls("one.example"),
            "mappings": [{"path": "/", "balancer": "cluster"}],
        },
    ]
    settings = Settings.model_validate(
        {
            "health_path": "/health",
            "frontends": frontends,
            "balancers": {"cluster": {"members": [{"url": "http://server1"}]}},
        }
    )
    clock = FakeClock()
    loop = FakeLoop(clock)
    worker = Worker(settings, loop)
    loop.close()
    first, second = worker.frontends.values()
    assert (first.redirect_port, first.health_path) == (8443, b"/health")
    assert (second.redirect_port, second.health_path) == (None, b"/health")
    stage = Stage(top={"health_path": "/health"})
    try:
        stage.frontend.redirect_port = 8443
        client = stage.client()
        client.send(request(b"GET /health HTTP/1.1"))
        assert status(client) == 200
        client.send(request())
        assert status(client) == 301
        stage.end()
    finally:
        stage.close()


def test_leaving_outlives_a_reload(make: Callable[..., Stage]) -> None:
    """Who comes to be served after that is told the same."""
    stage = make(**HEALTH)
    stage.worker.leave(leaving=True)
    stage.reload(top={**HEALTH["top"], **TWO})
    for frontend in stage.worker.frontends.values():
        client = stage.client(frontend=frontend)
        client.send(request(b"GET /health HTTP/1.1"))
        assert status(client) == 503


def test_health_path_changes(make: Callable[..., Stage]) -> None:
    """A reload changes the path, or takes it away."""
    stage = make(1, **HEALTH)
    client = stage.client()
    stage.reload(1, top={"health_path": "/alive"})
    client.send(request(b"GET /alive HTTP/1.1"))
    assert status(client) == 200
    stage.reload(1)
    client.send(request(b"GET /alive HTTP/1.1"))
    stage.accept().send(response(b"404 Not Found"))
    assert status(client) == 404


# --- settings that can't be used ------------------------------------------------------------------


def test_failed_configure_changes_nothing(stage: Stage, authority: Authority) -> None:
    """When a certificate can't be used all is as before, whatever else would have changed."""
    client = stage.client()
    served(stage, client)
    stage.worker.leave(leaving=True)

    def facts() -> list[object]:
        worker = stage.worker
        return [
            worker.settings,
            *worker.balancers.items(),
            *worker.members,
            *((member.settings, member.status(0.0)) for member in worker.members),
            *worker.pools.items(),
            *worker.frontends.items(),
            repr(stage.frontend),
            *worker.admission.notices,
            repr(worker.admission),
            repr(stage.clients[0]),
        ]

    before = facts()
    bad = Settings.model_validate(
        {
            "frontends": [
                {"listen": "127.0.0.1:9", "tls": authority.tls("one.example"), "mappings": []},
                {"listen": "127.0.0.1:10", "tls": {"certificate": "/nowhere.pem"}},
            ],
            "balancers": {"other": {"members": [{"url": "http://other"}]}},
            "max_connections": 1,
        }
    )
    with pytest.raises(ConfigError, match="No such file") as caught:
        stage.worker.configure(bad)
    assert [mistake.path for mistake in caught.value.mistakes] == [("frontends", 1, "tls")]
    assert facts() == before
    assert b"GET " in served(stage, client)


# --- many reloads ---------------------------------------------------------------------------------

OURS = (Balancer, Member, MemberPool, Frontend, MappingTable, Mapping, Certificates)


def living() -> Counter[str]:
    """How many objects of ours are alive that a reload makes."""
    gc.collect()
    return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, OURS))


@pytest.mark.slow
def test_nothing_grows(make: Callable[..., Stage], authority: Authority) -> None:
    """After many reloads under traffic there is as much as after the first: nothing is kept."""
    elsewhere = living()
    stage = make()
    client, waiting = stage.client(), stage.client()
    ask(stage, waiting, 2)
    tls = [authority.tls("one.example"), authority.tls("two.example")]
    variants: list[dict[str, Any]] = [
        {"members": 3},
        {"balancer": members_without(2)},
        {"top": TWO},
        {
            "top": {
                "frontends": [
                    TWO["frontends"][0],
                    {**TWO["frontends"][1], "tls": tls},
                ]
            }
        },
        {"members": 2},
    ]

    def reloads(times: int) -> None:
        for number in range(times):
            stage.reload(**variants[number % len(variants)])
            served(stage, client)
            tick(stage)

    forget(stage)
    reloads(len(variants))
    forget(stage)
    before = living()
    reloads(10 * len(variants))
    forget(stage)
    assert living() == before
    # the exchange under way still has its own, as it was when it began
    assert before["Balancer"] - elsewhere["Balancer"] == 2
    assert before["Member"] - elsewhere["Member"] == 3


def forget(stage: Stage) -> None:
    """Let the stage keep nothing of exchanges; then it can't check them in the end."""
    stage._check_log = lambda: None  # type: ignore[method-assign]
    stage.log.exchanges.clear()
    for client in stage.clients:
        client.exchanges.clear()


def test_former_settings_are_let_go(stage: Stage) -> None:
    """With the last exchange that began under them, former settings are gone as well."""
    client = stage.client()
    member = ask(stage, client, 2)
    settings = weakref.ref(stage.worker.settings)
    balancer = weakref.ref(stage.balancer.settings)
    stage.reload(1)
    gc.collect()
    assert settings() is None
    assert balancer() is not None
    member.send(response())
    assert status(client) == 200
    tick(stage)
    forget(stage)
    gc.collect()
    assert balancer() is None


# --- alone, or one of several ---------------------------------------------------------------------


def test_stagger() -> None:
    """Several workers don't all elect the same member first."""
    firsts = []
    for number in range(3):
        clock = FakeClock()
        loop = FakeLoop(clock)
        stage = Stage(3)
        worker = Worker(stage.settings, loop, others=Others(number))
        stage.close()
        loop.close()
        member = worker.balancers["cluster"].choose(b"/", None, 0.0).member
        assert member is not None
        firsts.append(member.name)
        assert sum(each.elected for each in worker.members) == 1
    assert sorted(firsts) == ["server1", "server2", "server3"]


def test_reload_staggers_nobody(stage: Stage) -> None:
    """Elections go on after a reload where they were."""
    worker = stage.worker
    first = worker.balancers["cluster"].choose(b"/", None, 0.0).member
    stage.reload()
    second = worker.balancers["cluster"].choose(b"/", None, 0.0).member
    assert {first, second} == set(worker.members)


# --- stopping -------------------------------------------------------------------------------------

PING = b"POST /Microsoft-Server-ActiveSync?Cmd=Ping&DeviceId=d%d HTTP/1.1"


def pings(stage: Stage, count: int) -> list[Peer]:
    """Devices that wait for news, for long enough."""
    devices = []
    for number in range(count):
        device = stage.client(f"192.0.2.{number}")
        device.send(request(PING % number, b"Content-Length: 0\r\n"))
        stage.accept()
        devices.append(device)
    stage.advance(LONG_POLL)
    return devices


def stop_step_by_step(stage: Stage, seconds: float) -> None:
    """Time passes in the steps in which a worker that stops looks."""
    for _ in range(round(seconds / STOP_STEP)):
        stage.clock.advance(STOP_STEP)
        stage.loop.settle()
    stage.check()


def test_stop_spreads_waiting_pings(make: Callable[..., Stage]) -> None:
    """Waiting Pings are answered evenly over the time there is, lest all come back at once (D41).

    Each is told to come back elsewhere: 503, and its connection closes.
    """
    stage = make(1)
    devices = pings(stage, 30)
    stage.stop()
    sent_away = [0]
    for second in range(1, 30):
        stop_step_by_step(stage, 1.0)
        sent_away.append(sum(not device.open for device in devices))
        assert math.isclose(sent_away[-1], second * 30 / STOP_TIMEOUT, abs_tol=1)
    assert max(after - before for before, after in pairwise(sent_away)) <= 2
    stop_step_by_step(stage, 1.5)
    answers = [device.take() for device in devices]
    assert all(answer.startswith(b"HTTP/1.1 503 ") for answer in answers)
    assert all(CLOSE in answer for answer in answers)
    assert not stage.worker.connections


def test_stop_lets_others_end(make: Callable[..., Stage]) -> None:
    """A request that is no Ping, or a young one, may take the time there is; then it is cut."""
    stage = make(1)
    waiting = pings(stage, 1)
    plain, young = stage.client(), stage.client()
    plain.send(request())
    stage.accept()
    young.send(request(PING % 99, b"Content-Length: 0\r\n"))
    stage.accept()
    stage.stop()
    stop_step_by_step(stage, LONG_POLL - 1)
    assert (plain.open, young.open) == (True, True)
    stop_step_by_step(stage, STOP_TIMEOUT - LONG_POLL - 1)
    assert plain.open
    assert (young.open, waiting[0].open) == (False, False)
    stop_step_by_step(stage, 4.0)
    assert plain.is_reset
    assert not stage.worker.connections


def test_hurry(make: Callable[..., Stage]) -> None:
    """A worker that has long to end is told to be quicker; never to take longer."""
    stage = make(1)
    client = stage.client()
    client.send(request())
    stage.accept()
    stage.stop()
    stage.worker.hurry(100.0)
    stop_step_by_step(stage, 10.0)
    stage.worker.hurry(5.0)
    stop_step_by_step(stage, 4.9)
    assert client.open
    stop_step_by_step(stage, 1.0)
    assert client.is_reset


def test_stop_says_so(make: Callable[..., Stage]) -> None:
    """Once told to stop, a worker's health_path says 503 to who is still connected."""
    stage = make(1, **HEALTH)
    client = stage.client()
    client.send(request(fields=SESSION % 1) + request(b"GET /health HTTP/1.1"))
    member = stage.accept()
    stage.stop()
    assert stage.frontend.leaving
    member.send(response())
    assert CLOSE in client.take()


def test_operator_status_of_the_file_is_the_supervisors(stage: Stage) -> None:
    """A member that is there keeps its status through a reload; the supervisor says another."""
    stage.balancer.set_operator_status(stage.member("server2"), OperatorStatus.DRAIN)
    stage.reload(member={"status": "disabled"})
    assert stage.member("server1").operator is OperatorStatus.ENABLED
    assert stage.member("server2").operator is OperatorStatus.DRAIN
    stage.reload(3, member={"status": "disabled"})
    assert stage.member("server3").operator is OperatorStatus.DISABLED
