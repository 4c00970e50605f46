"""Each kind of change is in force after a reload, in all workers, and no connection is lost.

Every test begins under the same settings, with a connection at each worker, and looks at these and
at new ones afterwards: the former go on from their next request.
"""

import copy
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.end_to_end.conftest import (
    HOST,
    NAME,
    Dial,
    Launcher,
    Members,
    Proxy,
    Yaml,
    connect,
    fields_of,
    request,
    seen_by,
    settings_of,
    until,
    url_of,
)
from tests.end_to_end.raw_client import End, RawClient
from tests.end_to_end.recording_member import Do, RecordingMember, Script, Seen, answer
from tests.end_to_end.reloads import (
    Cluster,
    Edit,
    accepted,
    ask,
    code,
    footprint,
    generations,
    one_each,
    reload,
    set_route,
    status,
    worker_of,
)

pytestmark = pytest.mark.slow

TLS, PLAIN = 0, 1
SLOW = b"/slow"


class Pair(NamedTuple):
    """Two members, and what one path of theirs waits for."""

    first: RecordingMember
    second: RecordingMember
    done: threading.Event

    def hold(self, clients: Sequence[RawClient]) -> None:
        """Let these clients ask for what isn't answered until ``done`` is set."""
        self.done.clear()
        before = len(self.asked())
        for client in clients:
            client.send(request(SLOW))
        until(lambda: len(self.asked()) == before + len(clients), "all are with a member")

    def asked(self) -> list[Seen]:
        """Who asked for that path."""
        return seen_by(self.first, self.second, path=SLOW)


@pytest.fixture(scope="module")
def both(members_all: Members) -> Iterator[Pair]:
    """Two members."""
    done = threading.Event()
    scripts: dict[bytes, Script] = {SLOW: [done, answer(b"slow")]}
    yield Pair(members_all("server1", scripts), members_all("server2", scripts), done)
    done.set()


@pytest.fixture(scope="module")
def shared(serve_all: Launcher, both: Pair) -> Cluster:
    """Two workers with a frontend over TLS and a plain one, before two members."""
    mappings = [{"path": "/", "balancer": "cluster"} for _ in (TLS, PLAIN)]
    settings: Yaml = {
        "workers": 2,
        "graceful_timeout": "5s",
        "frontends": [
            serve_all.frontend(mappings[TLS]),
            serve_all.frontend(mappings[PLAIN], tls=False),
        ],
        "balancers": {
            "cluster": {
                "sticky_session": "BALANCEME",
                "session_cookie": {"domain": "example.org"},
                "members": [settings_of(member) for member in both[:2]],
            }
        },
    }
    return Cluster(serve_all.run(copy.deepcopy(settings)), settings)


@pytest.fixture
def proxy(shared: Cluster) -> Proxy:
    """The shared proxy under its first settings."""
    return shared.begin()


def changed(proxy: Proxy, edit: Edit) -> list[str]:
    """Edit the settings, and reload."""
    settings = copy.deepcopy(proxy.settings)
    edit(settings)
    return reload(proxy, settings)


def before_and_after(
    proxy: Proxy, dial: Dial, edit: Edit, frontend: int = PLAIN
) -> list[RawClient]:
    """A connection at each worker from before a change, then one at each from after it."""
    kept = one_each(proxy, dial, frontend)
    assert [code(ask(client)) for client in kept] == [200, 200]
    words = changed(proxy, edit)
    assert "nothing changes" not in words
    assert len(generations(proxy)) == 1
    return [*kept, *one_each(proxy, dial, frontend)]


# --- settings of all frontends -------------------------------------------------------------------


def test_server(proxy: Proxy, dial: Dial) -> None:
    """The Server field of answers without one of their own, and of our own ones."""
    clients = before_and_after(proxy, dial, lambda settings: settings.update(server="other"))
    for client in clients:
        for response in (ask(client), ask(client, method="TRACE")):
            assert fields_of(response.fields, "server") == ["other"]


def test_what_members_are_told(proxy: Proxy, dial: Dial, both: Pair) -> None:
    """Our name and the proxies before us that are trusted, on connections that are there too."""

    def edit(settings: Yaml) -> None:
        settings["trusted_proxies"] = [HOST]
        settings["frontends"][PLAIN]["server_name"] = "other.example.org"

    kept = one_each(proxy, dial, PLAIN)
    for client in kept:
        ask(client, "/told", "X-Forwarded-For: 192.0.2.7")
    changed(proxy, edit)
    for client in (*kept, *one_each(proxy, dial, PLAIN)):
        ask(client, "/told/after", "X-Forwarded-For: 192.0.2.7")
    for seen in seen_by(*both[:2], path=b"/told"):
        assert seen.value(b"x-forwarded-for") == b"127.0.0.1"
        assert seen.value(b"x-forwarded-server") == NAME.encode()
    after = seen_by(*both[:2], path=b"/told/after")
    assert len(after) == 4
    for seen in after:
        assert seen.value(b"x-forwarded-for") == b"192.0.2.7, 127.0.0.1"
        assert seen.value(b"x-forwarded-server") == b"other.example.org"


def test_compat(proxy: Proxy, dial: Dial) -> None:
    """Apache's way of answering what is too large."""
    long = "X-Long: " + "x" * 20_000
    assert [code(ask(c, "/", long)) for c in one_each(proxy, dial, PLAIN)] == [431, 431]
    clients = before_and_after(proxy, dial, lambda settings: settings.update(compat="apache"))
    assert [code(ask(client, "/", long)) for client in clients] == [400] * 4


def test_limits(proxy: Proxy, dial: Dial) -> None:
    """What a request may measure."""
    line = "/" + "x" * 600
    assert [code(ask(client, line)) for client in one_each(proxy, dial, PLAIN)] == [200, 200]
    clients = before_and_after(
        proxy, dial, lambda s: s["frontends"][PLAIN].update(limits={"request_line": 512})
    )
    assert [code(ask(client, line)) for client in clients] == [414] * 4


def test_timeouts(proxy: Proxy, dial: Dial, both: Pair) -> None:
    """How long clients and members may take; who waits goes on under the timeout it began with."""
    waiting = one_each(proxy, dial, PLAIN)
    both.hold(waiting)

    def edit(settings: Yaml) -> None:
        settings["frontends"][PLAIN]["timeouts"] = {"keep_alive": "77s"}
        settings["frontends"][PLAIN]["mappings"].append(
            {"path": SLOW.decode(), "balancer": "cluster", "response_timeout": "100ms"}
        )

    clients = before_and_after(proxy, dial, edit)
    for client in clients:
        kept = fields_of(ask(client, "/", "Connection: keep-alive").fields, "keep-alive")
        assert kept == ["timeout=77"]
        assert code(ask(client, SLOW.decode())) == 504
    both.done.set()
    assert [client.read_response(b"GET").body for client in waiting] == [b"slow", b"slow"]


@pytest.mark.parametrize(
    ("key", "most"), [("max_connections", 4), ("max_connections_per_address", 3)]
)
def test_max_connections(proxy: Proxy, dial: Dial, key: str, most: int) -> None:
    """How many clients may come: nobody is sent away, and no more are let in until some leave."""
    kept = [client for _ in range(3) for client in one_each(proxy, dial, PLAIN)]
    assert {code(ask(client)) for client in kept} == {200}
    changed(proxy, lambda settings: settings.update({key: most}))
    assert {code(ask(client)) for client in kept} == {200}
    assert all(is_refused(proxy) for _ in range(10))
    ports = {client.port for client in kept[2:]}
    for client in kept[2:]:
        client.close()
    until(lambda: not ports & accepted().keys(), "they have left")
    changed(proxy, lambda settings: settings.pop(key))
    assert {code(ask(client)) for client in (*kept[:2], *one_each(proxy, dial, PLAIN))} == {200}


def is_refused(proxy: Proxy) -> bool:
    """Whether a connection is reset before anything was answered."""
    try:
        with connect(proxy, PLAIN) as sock:
            sock.sendall(request())
            return not sock.recv(1)
    except ConnectionError:
        return True


# --- mappings ------------------------------------------------------------------------------------


def test_mappings(proxy: Proxy, dial: Dial, both: Pair) -> None:
    """Added, changed and removed ones."""

    def mappings(*found: Yaml) -> Edit:
        return lambda s: s["frontends"][PLAIN].update(
            mappings=[{"balancer": "cluster", **each} for each in found]
        )

    clients = before_and_after(
        proxy, dial, mappings({"path": "/"}, {"path": "/added", "to": "/mapped"})
    )
    assert [code(ask(client, "/added")) for client in clients] == [200] * 4
    assert len(seen_by(*both[:2], path=b"/mapped")) == 4
    changed(proxy, mappings({"path": "/"}, {"path": "/added", "to": "/changed"}))
    assert [code(ask(client, "/added")) for client in clients] == [200] * 4
    assert len(seen_by(*both[:2], path=b"/changed")) == 4
    changed(proxy, mappings({"path": "/added"}))
    assert [code(ask(client, "/")) for client in clients] == [404] * 4
    assert [code(ask(client, "/added")) for client in clients] == [200] * 4
    changed(proxy, mappings({"path": "/", "host": "other.example.org"}))
    assert [code(ask(client, "/added")) for client in clients] == [404] * 4


# --- members -------------------------------------------------------------------------------------


def cookie(route: str) -> str:
    """The field of a session that has a route."""
    return f"Cookie: BALANCEME=balancer.{route}"


def test_members_come_and_go(proxy: Proxy, dial: Dial, members: Members) -> None:
    """A new member gets its share; sessions of one that is gone move, with a new cookie."""
    third = members("server3")
    clients = before_and_after(
        proxy, dial, lambda s: s["balancers"]["cluster"]["members"].append(settings_of(third))
    )
    for client in clients:
        assert Counter(ask(client).body for _ in range(6)) == Counter(
            {b"server1": 2, b"server2": 2, b"server3": 2}
        )
    assert [ask(client, "/", cookie("server3")).body for client in clients] == [b"server3"] * 4
    changed(proxy, lambda s: s["balancers"]["cluster"]["members"].pop())
    for client in clients:
        moved = ask(client, "/", cookie("server3"))
        assert code(moved) == 200
        assert set_route(moved).encode() == moved.body
        assert moved.body in (b"server1", b"server2")
    assert len(seen_by(third)) == 12
    third.stop()


def test_another_address_under_the_same_route(proxy: Proxy, dial: Dial, members: Members) -> None:
    """Sessions go to where their member is now, and stay there."""
    other = members("other")
    clients = before_and_after(
        proxy, dial, lambda s: s["balancers"]["cluster"]["members"][0].update(url=url_of(other))
    )
    for client in clients:
        found = ask(client, "/", cookie("server1"))
        assert (found.body, set_route(found)) == (b"other", "server1")


def test_load_factor(proxy: Proxy, dial: Dial) -> None:
    """Elections by the new shares."""
    clients = before_and_after(
        proxy, dial, lambda s: s["balancers"]["cluster"]["members"][0].update(load_factor=3)
    )
    for client in clients:
        elected = Counter(ask(client).body for _ in range(8))
        assert elected == {b"server1": 6, b"server2": 2}


@pytest.mark.parametrize("word", ["drain", "disabled", "stopped"])
def test_status(proxy: Proxy, dial: Dial, word: str) -> None:
    """No new session on the member; its own stay with it only while it drains."""
    clients = before_and_after(
        proxy, dial, lambda s: s["balancers"]["cluster"]["members"][0].update(status=word)
    )
    for client in clients:
        assert {ask(client).body for _ in range(4)} == {b"server2"}
        theirs = ask(client, "/", cookie("server1"))
        expected = "server1" if word == "drain" else "server2"
        assert (theirs.body.decode(), set_route(theirs)) == (expected, expected)
    changed(proxy, lambda s: s["balancers"]["cluster"]["members"][0].pop("status"))
    for client in clients:
        assert {ask(client).body for _ in range(8)} == {b"server1", b"server2"}


def test_failover_entry(proxy: Proxy, dial: Dial) -> None:
    """Sessions move in the next request, which names their new member in their cookie."""
    clients = before_and_after(
        proxy, dial, lambda s: s["balancers"]["cluster"].update(failover={"server1": "server2"})
    )
    for client in clients:
        moved = ask(client, "/", cookie("server1"))
        assert (moved.body, set_route(moved)) == (b"server2", "server2")
        assert {ask(client).body for _ in range(3)} == {b"server2"}


def test_the_cookie(proxy: Proxy, dial: Dial) -> None:
    """How sessions are told."""

    def edit(settings: Yaml) -> None:
        settings["balancers"]["cluster"].update(
            sticky_session="OTHER", session_cookie={"prefix": "other", "lifetime": 0}
        )

    clients = before_and_after(proxy, dial, edit)
    for client in clients:
        found = ask(client, "/", "Cookie: OTHER=other.server2")
        assert found.body == b"server2"
        assert fields_of(found.fields, "set-cookie") == ["OTHER=other.server2; path=/"]


def test_a_balancer_of_its_own(proxy: Proxy, dial: Dial, members: Members) -> None:
    """A balancer that is added, and leads elsewhere; then it is gone with its mapping."""
    third = members("server3")

    def edit(settings: Yaml) -> None:
        settings["balancers"]["second"] = {"members": [{"url": url_of(third)}]}
        settings["frontends"][PLAIN]["mappings"].append({"path": "/second", "balancer": "second"})

    clients = before_and_after(proxy, dial, edit)
    assert [ask(client, "/second").body for client in clients] == [b"server3"] * 4
    settings = copy.deepcopy(proxy.settings)
    del settings["balancers"]["second"], settings["frontends"][PLAIN]["mappings"][1]
    reload(proxy, settings)
    assert b"server3" not in [ask(client, "/second").body for client in clients]


# --- logs ----------------------------------------------------------------------------------------


def test_access_log(proxy: Proxy, dial: Dial, tmp_path: Path) -> None:
    """Another file, another format, none and one again; each line is in exactly one of them."""
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    clients = one_each(proxy, dial, PLAIN)

    def use(access_log: Yaml | None, target: str) -> None:
        changed(proxy, lambda settings: settings.update(access_log=access_log))
        for client in clients:
            assert code(ask(client, target)) == 200

    for client in clients:
        ask(client, "/log/0")
    use({"path": str(first)}, "/log/1")
    use({"path": str(first), "format": "json"}, "/log/2")
    use({"path": str(second), "format": "json"}, "/log/3")
    use(None, "/log/4")
    use({"path": str(second)}, "/log/5")
    changed(proxy, lambda settings: settings.pop("access_log"))

    def found() -> list[list[tuple[str, str]]]:
        texts = proxy.stdout(), first.read_text(), second.read_text()
        return [re.findall(r"^(.).*GET /log/(.)", text, re.MULTILINE) for text in texts]

    combined, json = str(HOST[0]), "{"
    assert found() == [
        [(combined, "0")] * 2,
        [(combined, "1")] * 2 + [(json, "2")] * 2,
        [(json, "3")] * 2 + [(combined, "5")] * 2,
    ]


def test_access_log_with_a_slow_reader(proxy: Proxy, dial: Dial, tmp_path: Path) -> None:
    """Lines that wait for their reader are not lost by a reload."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    changed(proxy, lambda settings: settings.update(access_log={"path": str(pipe)}))
    client = dial(proxy, frontend=PLAIN)
    # More than the pipe holds, and less than may wait.
    for _ in range(500):
        assert code(ask(client, "/" + "x" * 1900)) == 200
    changed(proxy, lambda settings: settings.update(server="other"))
    found = b""

    def is_complete() -> bool:
        nonlocal found
        with suppress(BlockingIOError):
            found += os.read(reader, 1 << 20)
        return found.count(b"\n") == 500

    until(is_complete, "all lines are there")
    changed(proxy, lambda settings: settings.pop("access_log"))
    os.close(reader)


def test_log(proxy: Proxy, dial: Dial, tmp_path: Path) -> None:
    """Another file and level, for the supervisor and for all workers."""
    file = tmp_path / "proxy.log"
    kept = one_each(proxy, dial, PLAIN)
    changed(proxy, lambda s: s.update(log={"path": str(file), "level": "debug"}))
    assert "reloaded" in file.read_text()
    for _ in range(2):
        for client in one_each(proxy, dial, TLS):
            client.close()
    # A handshake that fails is worth a line for who looks for mistakes.
    while not ("worker 1" in file.read_text() and "worker 2" in file.read_text()):
        with connect(proxy, TLS) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            sock.recv(100)
    before = len(proxy.stderr())
    changed(proxy, lambda settings: settings.update(log={"path": str(file), "level": "error"}))
    size = file.stat().st_size
    changed(proxy, lambda settings: settings.update(server="other"))
    assert (file.stat().st_size, len(proxy.stderr())) == (size, before)
    changed(proxy, lambda settings: settings.pop("log"))
    assert "reloaded" in proxy.stderr()[before:]
    assert {code(ask(client)) for client in kept} == {200}


# --- listeners -----------------------------------------------------------------------------------


def test_more_listeners_than_one_message_holds(
    proxy: Proxy, dial: Dial, serve_all: Launcher
) -> None:
    """As many sockets as there are go to the workers that run (unix(7): 253 in a message)."""
    workers = proxy.workers
    mapping = {"path": "/", "balancer": "cluster"}
    many = [serve_all.frontend(mapping, tls=False) for _ in range(300)]
    changed(proxy, lambda settings: settings["frontends"].extend(many))
    for index in (2, 150, 301):
        assert code(ask(dial(proxy, frontend=index))) == 200
    assert proxy.workers == workers


def test_a_listener_comes_and_goes(
    proxy: Proxy, dial: Dial, serve_all: Launcher, both: Pair
) -> None:
    """It serves; then it refuses, its idle clients are closed and exchanges under way end."""
    added = serve_all.frontend({"path": "/", "balancer": "cluster"}, tls=False)
    files = {pid: footprint(pid).descriptors for pid in (proxy.pid, *proxy.workers)}
    changed(proxy, lambda settings: settings["frontends"].append(added))
    idle, busy, late = (one_each(proxy, dial, 2) for _ in range(3))
    assert {code(ask(client)) for client in (*idle, *busy, *late)} == {200}
    both.hold(busy)
    for client in late:
        client.send(request(SLOW)[:20])
    address = proxy.address(2)
    settings = copy.deepcopy(proxy.settings)
    del settings["frontends"][2]
    reload(proxy, settings)
    with pytest.raises(ConnectionRefusedError):
        RawClient(address, tls=None)
    assert all(client.wait_closed(5) for client in idle)
    for client in late:
        client.send(request(SLOW)[20:])
    both.done.set()
    for client in (*busy, *late):
        response = client.read_response(b"GET")
        assert (response.body, fields_of(response.fields, "connection")) == (b"slow", ["close"])
        assert client.wait_closed(5)
    for client in (*idle, *busy, *late):
        client.close()
    until(
        lambda: all(footprint(pid).descriptors <= count for pid, count in files.items()),
        "nothing stays open",
    )


def test_from_plain_to_tls_and_back(proxy: Proxy, dial: Dial, both: Pair) -> None:
    """An address changes what it speaks; no connection is refused, what is under way ends."""
    tls = proxy.settings["frontends"][TLS]["tls"]
    idle, busy = one_each(proxy, dial, PLAIN), one_each(proxy, dial, PLAIN)
    both.hold(busy)
    changed(proxy, lambda settings: settings["frontends"][PLAIN].update(tls=tls))
    secured = one_each(proxy, dial, PLAIN)
    assert {code(ask(client)) for client in secured} == {200}
    both.done.set()
    assert [client.read_response(b"GET").body for client in busy] == [b"slow", b"slow"]
    assert all(client.wait_closed(5) for client in (*idle, *busy))
    changed(proxy, lambda settings: settings["frontends"][PLAIN].pop("tls"))
    assert {code(ask(client)) for client in one_each(proxy, dial, PLAIN)} == {200}
    assert all(client.wait_closed(5) for client in secured)


# --- workers -------------------------------------------------------------------------------------


def test_more_workers_and_fewer(proxy: Proxy, dial: Dial, both: Pair) -> None:
    """More serve at once; those beyond the number end their exchanges and go."""
    first = set(proxy.workers)
    kept = one_each(proxy, dial)
    changed(proxy, lambda settings: settings.update(workers=3))
    until(lambda: [w["phase"] for w in status(proxy)["workers"]] == ["serving"] * 3, "3 serve")
    assert first < set(proxy.workers)
    clients = one_each(proxy, dial)
    assert {code(ask(client)) for client in (*kept, *clients)} == {200}
    late = one_each(proxy, dial)
    both.hold(clients)
    for client in late:
        client.send(request()[:20])
    changed(proxy, lambda settings: settings.update(workers=1))
    both.done.set()
    for client in late:
        client.send(request()[20:])
    assert [client.read_response(b"GET").body for client in clients] == [b"slow"] * 3
    assert [code(client.read_response(b"GET")) for client in late] == [200] * 3
    for client in (*kept, *clients, *late):
        client.close()
    until(lambda: len(proxy.workers) == 1, "the others have ended")
    assert set(proxy.workers) < first
    assert "killed" not in proxy.stderr()
    assert code(ask(dial(proxy))) == 200


def test_a_worker_beyond_the_number_has_graceful_timeout(
    proxy: Proxy, dial: Dial, members: Members
) -> None:
    """What is not done by then is cut off."""
    silent = members("silent", {b"*": [Do.LEAVE_BODY, Do.WAIT_CLOSE]})
    silent_only = [{"url": url_of(silent), "route": "silent"}]
    changed(proxy, lambda s: s["balancers"]["cluster"].update(members=silent_only))
    by_worker = {worker_of(proxy, client): client for client in one_each(proxy, dial)}
    for client in by_worker.values():
        client.send(request())
    until(lambda: len(seen_by(silent)) == 2, "they are with their member")
    changed(proxy, lambda settings: settings.update(workers=1, graceful_timeout="300ms"))
    until(lambda: len(proxy.workers) == 1, "the other one has ended")
    (stays,) = proxy.workers
    for pid, client in by_worker.items():
        if pid != stays:
            response = client.read_response(b"GET")
            assert response.end is End.NOTHING or code(response) == 503
    assert not by_worker[stays].wait_closed(0.1)
