"""What is under way goes on to its end under the member it has, whatever reloads come meanwhile."""

import copy
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.end_to_end.conftest import (
    Dial,
    Launcher,
    Members,
    Proxy,
    Yaml,
    request,
    seen_by,
    settings_of,
    until,
)
from tests.end_to_end.raw_client import RawClient
from tests.end_to_end.recording_member import Do, RecordingMember, Script, answer
from tests.end_to_end.reloads import (
    Cluster,
    ask,
    code,
    command,
    generations,
    one_each,
    reload,
    status,
    write,
)

pytestmark = pytest.mark.slow

PING = "/Microsoft-Server-ActiveSync?Cmd=Ping&DeviceId=a&User=b&DeviceType=c"
ON_FIRST = "Cookie: BALANCEME=balancer.server1"
HALF = b"x" * 50_000
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
DOWNLOAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * len(HALF))


class Arena(NamedTuple):
    """A proxy, its members, and what slow paths wait for."""

    cluster: Cluster
    members: tuple[RecordingMember, RecordingMember]
    done: threading.Event


@pytest.fixture(scope="module")
def arena(serve_all: Launcher, members_all: Members) -> Iterator[Arena]:
    """Two workers before two members."""
    done = threading.Event()
    scripts: dict[bytes, Script] = {
        b"/Microsoft-Server-ActiveSync": [done, answer(b"news")],
        b"/slow": [done, answer(b"slow")],
        b"/download": [DOWNLOAD + HALF, done, HALF],
        b"/tunnel": [SWITCH, Do.ECHO],
    }
    both = members_all("server1", scripts), members_all("server2", scripts)
    mapping = {"path": "/", "balancer": "cluster", "upgrade": ["websocket"]}
    settings: Yaml = {
        "workers": 2,
        "frontends": [serve_all.frontend(mapping)],
        "balancers": {
            "cluster": {
                "sticky_session": "BALANCEME",
                "session_cookie": {"domain": "example.org"},
                "members": [settings_of(member) for member in both],
            }
        },
    }
    settings["frontends"][0]["timeouts"] = {"keep_alive": "60s"}
    yield Arena(Cluster(serve_all.run(copy.deepcopy(settings)), settings), both, done)
    done.set()


@pytest.fixture
def proxy(arena: Arena) -> Proxy:
    """The shared proxy under its first settings."""
    arena.done.clear()
    return arena.cluster.begin()


# --- under way -----------------------------------------------------------------------------------

Finish = Callable[[RawClient], object]


def waiting_ping(client: RawClient) -> Finish:
    """A phone that waits for news."""
    client.send(request(PING, ON_FIRST, method="POST", body=b""))
    return lambda client: client.read_response(b"POST").body == b"news"


def upload(client: RawClient) -> Finish:
    """A body with its length, of which a half has come."""
    sent = request("/upload", ON_FIRST, method="POST", body=2 * HALF)
    client.send_all(sent[: -len(HALF)])
    return lambda client: finish_upload(client, HALF)


def chunked_upload(client: RawClient) -> Finish:
    """A body in chunks, of which some have come."""
    head = request("/upload", ON_FIRST, "Transfer-Encoding: chunked", method="POST")
    chunk = b"%x\r\n%b\r\n" % (len(HALF), HALF)
    client.send_all(head + chunk + chunk[:10])
    return lambda client: finish_upload(client, chunk[10:] + b"0\r\n\r\n")


def finish_upload(client: RawClient, rest: bytes) -> bool:
    """Send the rest; whether the member answered."""
    client.send_all(rest)
    return client.read_response(b"POST").body == b"server1"


def download(client: RawClient) -> Finish:
    """A body of which the first half has come."""
    client.send(request("/download", ON_FIRST))
    head = client.wait_interim()
    assert head[0] == b"HTTP/1.1 200 OK"
    return lambda client: client.read_response(b"GET").body == 2 * HALF


def websocket(client: RawClient) -> Finish:
    """A tunnel that is open."""
    client.send(request("/tunnel", ON_FIRST, "Connection: Upgrade", "Upgrade: websocket"))
    assert code(client.read_response(b"GET")) == 101

    def finish(client: RawClient) -> bool:
        client.send(b"hello")
        return client.read_exactly(5) == b"hello"

    return finish


def pipelined(client: RawClient) -> Finish:
    """Two requests ahead of one that waits; the first is the one that began before the reload."""
    client.send(request("/slow", ON_FIRST) + request("/", ON_FIRST) + request("/", ON_FIRST))

    def finish(client: RawClient) -> bool:
        found = [client.read_response(b"GET").body for _ in range(3)]
        return found == [b"slow", b"server2", b"server2"]

    return finish


def in_a_head(client: RawClient) -> Finish:
    """A head that has begun is a request of the new settings."""
    client.send(request("/", ON_FIRST)[:30])

    def finish(client: RawClient) -> bool:
        client.send(request("/", ON_FIRST)[30:])
        return client.read_response(b"GET").body == b"server2"

    return finish


def between_requests(client: RawClient) -> Finish:
    """A connection that is kept serves its next request under the new settings."""
    assert ask(client, "/", ON_FIRST).body == b"server1"
    return lambda client: ask(client, "/", ON_FIRST).body == b"server2"


BEGINNINGS = [
    waiting_ping,
    upload,
    chunked_upload,
    download,
    websocket,
    pipelined,
    in_a_head,
    between_requests,
]
# What is with its member, and so in the log with it, in the end.
WITH_FIRST = 7


def test_what_is_under_way(arena: Arena, proxy: Proxy, dial: Dial) -> None:
    """It ends well at both workers, though several reloads came and took its member away."""
    begun = [(client, begin(client)) for begin in BEGINNINGS for client in one_each(proxy, dial)]
    first, second = arena.members
    until(lambda: len(seen_by(first)) == 2 * WITH_FIRST, "all are with their member")
    settings = copy.deepcopy(proxy.settings)
    settings["balancers"]["cluster"]["members"] = [settings_of(second)]
    reload(proxy, settings)
    for number in range(3):
        settings["server"] = f"other{number}"
        reload(proxy, settings)
    until(lambda: busy_without(proxy, "server1"), "the member is not told any more")
    arena.done.set()
    for (client, finish), begin in zip(
        begun, [each for each in BEGINNINGS for _ in range(2)], strict=True
    ):
        assert finish(client), begin.__name__
    for client, _ in begun:
        client.close()
    until(lambda: not first.connected, "nothing is kept of the member that is gone")
    assert len(seen_by(first)) == 2 * WITH_FIRST
    assert all(seen.complete for seen in seen_by(first, path=b"/upload"))


def busy_without(proxy: Proxy, route: str) -> bool:
    """Whether no member of that name is shown."""
    members = status(proxy)["balancers"]["cluster"]["members"]
    return route not in [member["route"] for member in members]


def test_a_member_that_comes_back(arena: Arena, proxy: Proxy, dial: Dial) -> None:
    """What began with a member before it was gone ends, beside what begins with it again."""
    before = asked(arena, PING.encode())
    begun = [(client, waiting_ping(client)) for client in one_each(proxy, dial)]
    until(lambda: asked(arena, PING.encode()) == before + 2, "both wait")
    settings = copy.deepcopy(proxy.settings)
    for _ in range(3):
        gone = copy.deepcopy(settings)
        del gone["balancers"]["cluster"]["members"][0]
        reload(proxy, gone)
        reload(proxy, settings)
        for client in one_each(proxy, dial):
            assert ask(client, "/", ON_FIRST).body == b"server1"
    arena.done.set()
    for client, finish in begun:
        assert finish(client)


def test_logs_of_a_worker_beyond_the_number(
    arena: Arena, serve: Launcher, dial: Dial, tmp_path: Path
) -> None:
    """While it ends its exchanges it writes where all do, also when log files are renamed."""
    file, renamed = tmp_path / "access.log", tmp_path / "access.log.1"
    arena.done.clear()
    proxy = serve(arena.members[0], workers=2, access_log={"path": str(file)})
    clients = one_each(proxy, dial)
    for client in clients:
        client.send(request("/slow?renamed"))
    until(lambda: asked(arena, b"/slow?renamed") == 2, "both are with the member")
    reload(proxy, {**proxy.settings, "workers": 1})
    file.rename(renamed)
    os.kill(proxy.pid, signal.SIGUSR1)
    until(lambda: "logs are opened anew" in proxy.stderr(), "files are opened anew")
    arena.done.set()
    assert [client.read_response(b"GET").body for client in clients] == [b"slow"] * 2
    until(lambda: file.read_text().count("/slow") == 2, "both lines are in the new file")
    assert renamed.read_text() == ""


def asked(arena: Arena, target: bytes) -> int:
    """How often members were asked for exactly this."""
    return sum(seen.target == target for seen in seen_by(*arena.members))


# --- what is known -------------------------------------------------------------------------------


def test_elections_go_on(serve: Launcher, dial: Dial, members: Members) -> None:
    """Each worker elects as if there had been no reload: no burst comes to the first member."""
    proxy = serve(members("server1"), members("server2"), workers=2)
    clients = one_each(proxy, dial)
    for client in clients:
        elected = []
        for number in range(8):
            elected.append(ask(client).body)
            reload(proxy, {**proxy.settings, "server": f"other{number}"})
        assert elected[:2] in ([b"server1", b"server2"], [b"server2", b"server1"])
        assert elected == elected[:2] * 4
    third = settings_of(members("server3"))
    settings = copy.deepcopy(proxy.settings)
    settings["balancers"]["cluster"]["members"].append(third)
    reload(proxy, settings)
    for client in clients:
        assert Counter(ask(client).body for _ in range(9)) == Counter(
            {b"server1": 3, b"server2": 3, b"server3": 3}
        )


def test_errors_last(proxy: Proxy, dial: Dial, members: Members) -> None:
    """A member in error stays so, in all workers, and is not tried before its time."""
    third = members.stopped("server3")
    settings = copy.deepcopy(proxy.settings)
    settings["balancers"]["cluster"]["members"].append({**settings_of(third), "retry_after": "10m"})
    reload(proxy, settings)
    clients = one_each(proxy, dial)
    on_third = "Cookie: BALANCEME=balancer.server3"
    assert code(ask(clients[0], "/error", on_third)) == 200
    until(lambda: [each["in_error"] for each in told(proxy)] == [False, False, True], "it is known")
    third.start()
    for number in range(3):
        settings["server"] = f"other{number}"
        reload(proxy, settings)
        for client in (*clients, *one_each(proxy, dial)):
            assert ask(client, "/error", on_third).body in (b"server1", b"server2")
        assert [each["in_error"] for each in told(proxy)] == [False, False, True]
    assert not third.record.seen
    settings["balancers"]["cluster"]["members"][2]["retry_after"] = "0s"
    reload(proxy, settings)
    for client in clients:
        assert ask(client, "/error", on_third).body == b"server3"


def told(proxy: Proxy) -> list[dict[str, object]]:
    """What the status says of the members."""
    found: list[dict[str, object]] = status(proxy)["balancers"]["cluster"]["members"]
    return found


def test_counters_never_fall(serve: Launcher, members: Members, dial: Dial) -> None:
    """What was counted of members stays, though workers are fewer and others than before."""
    proxy = serve(members("server1"), workers=2, graceful_timeout="5s")
    for client in one_each(proxy, dial):
        for _ in range(10):
            ask(client)
        client.close()
    until(lambda: sum_of(proxy) == 20, "all is counted")
    for workers in (3, 1, 2, 1):
        reload(proxy, {**proxy.settings, "workers": workers})
        assert sum_of(proxy) == 20
    until(lambda: len(proxy.workers) == 1, "those before have ended")
    assert sum_of(proxy) == 20


def sum_of(proxy: Proxy) -> int:
    """How often members were elected."""
    return sum(int(str(each["elected"])) for each in told(proxy))


# --- what would change ---------------------------------------------------------------------------


def test_dry_run(proxy: Proxy, dial: Dial) -> None:
    """The differences in words, with the live sessions that each moves; nothing is changed.

    A browser with several connections counts once, whichever workers it is connected to.
    """
    before = generations(proxy)
    already = {str(each["route"]): int(str(each["sessions"])) for each in told(proxy)}
    clients = [*one_each(proxy, dial), *one_each(proxy, dial)]
    for number in range(30):
        route = "server1" if number < 18 else "server2"
        fields = f"Cookie: ZARAFA_WEBAPP=session{number}; BALANCEME=balancer.{route}"
        for client in clients:
            assert ask(client, "/", fields).body.decode() == route
    found = {str(each["route"]): int(str(each["sessions"])) for each in told(proxy)}
    assert found == {"server1": already["server1"] + 18, "server2": already["server2"] + 12}
    settings = copy.deepcopy(proxy.settings)
    settings["server"] = "other"
    cluster = settings["balancers"]["cluster"]
    cluster["members"][0]["status"] = "disabled"
    (gone,) = cluster["members"][1:]
    cluster["members"][1] = {"url": "http://192.0.2.1", "route": "server3"}
    settings["frontends"][0]["mappings"][0]["host"] = "*.example.org"
    write(proxy, settings)
    ended = command(proxy, "reload", "--dry-run")
    count, place = sum(found.values()), f"frontends {settings['frontends'][0]['listen']}"
    members = "balancers.cluster.members"
    assert ended.stdout.splitlines() == [
        "server: balanceme -> other",
        f"{place} mappings: / to cluster removed; moves {count} live sessions",
        f"{place} mappings: *.example.org/ to cluster added",
        f"{members}: server2 ({gone['url']}) removed; moves {found['server2']} live sessions",
        f"{members} server1: status enabled -> disabled; moves {found['server1']} live sessions",
        f"{members}: server3 (http://192.0.2.1) added",
    ]
    assert generations(proxy) == before
    assert ask(clients[0], "/", "Cookie: BALANCEME=balancer.server2").body == b"server2"
    assert b"Server: balanceme" in ask(clients[0], method="TRACE").fields
