"""Members that fail in the middle of traffic: who hears of it, and what becomes of who waits."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

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
from tests.end_to_end.processes import ask, on_each, set_status, status_of
from tests.end_to_end.raw_client import RawClient, Response
from tests.end_to_end.recording_member import answer

pytestmark = pytest.mark.slow

SERVER1 = "Cookie: BALANCEME=balancer.server1"


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for clients that wait."""
    with ThreadPoolExecutor(8) as found:
        yield found


def run(serve: Launcher, *members: Yaml, cluster: Yaml, **top: object) -> Proxy:
    """A proxy for these members, without TLS."""
    mapping = {"path": "/", "balancer": "cluster"}
    frontend = serve.frontend(mapping, tls=False) | {"timeouts": {"keep_alive": "60s"}}
    balancer = {
        "sticky_session": "BALANCEME",
        "session_cookie": {"domain": "example.org"},
        "members": [*members],
        **cluster,
    }
    return serve.run({"frontends": [frontend], "balancers": {"cluster": balancer}, **top})


def test_status_that_one_worker_sees(serve: Launcher, members: Members, dial: Dial) -> None:
    """An answer with a status of fail_on_status puts its member in error for all workers (F10)."""
    busy = answer(b"busy", status=b"503 Busy")
    server1, server2 = members("server1", {b"/ill": [busy]}), members("server2")
    cluster = {"fail_on_status": [503]}
    both = [settings_of(server1), settings_of(server2)]
    proxy = run(serve, *both, cluster=cluster, workers=2)
    first, second = on_each(proxy, lambda: dial(proxy)).values()
    assert [ask(each, SERVER1).body for each in (first, second)] == [b"server1", b"server1"]
    first.send(request("/ill", SERVER1))
    ill = first.read_response(b"GET")
    assert (ill.status_line, ill.body) == (b"HTTP/1.1 503 Busy", b"busy")
    until(lambda: ask(second, SERVER1).body == b"server2", "the other worker has heard", 1.0)
    assert status_of(proxy)["status"] == "in error"
    assert len(seen_by(server1, path=b"/ill")) == 1
    until(lambda: "in error for 60 s: answered 503" in proxy.stderr(), "it is logged")


def waiting(pool: ThreadPoolExecutor, proxy: Proxy, dial: Dial) -> list[Future[Response]]:
    """Six clients with requests that nobody can take yet; two of them with a large body."""
    gate = threading.Barrier(7)
    body = b"x" * 500_000

    def wait(client: RawClient, large: bool) -> Response:
        client.patience = 20
        gate.wait()
        if not large:
            client.send(request("/", SERVER1))
            return client.read_response(b"GET")
        client.send(request("/", method="POST", body=body))
        return client.read_response(b"POST")

    clients = [dial(proxy) for _ in range(6)]
    found = [pool.submit(wait, each, number < 2) for number, each in enumerate(clients)]
    gate.wait()
    return found


def statuses(answers: list[Future[Response]]) -> list[bytes]:
    """What the clients were answered."""
    return [each.result(20).status_line.split()[1] for each in answers]


def off(members: Members) -> list[Yaml]:
    """Two members that run, and are disabled."""
    names = ("server1", "server2")
    return [{**settings_of(members(name)), "status": "disabled"} for name in names]


CLUSTER: Yaml = {"wait_timeout": "60s"}
Answers = list[Future[Response]]


def none_yet(proxy: Proxy, answers: Answers) -> None:
    """Nobody is answered, and all clients are there."""
    assert not any(each.done() for each in answers)
    assert proxy.stdout().count("\n") == 0


@pytest.mark.parametrize("how", ["operator", "reload"])
def test_who_waits_is_served(
    serve: Launcher, members: Members, dial: Dial, pool: ThreadPoolExecutor, how: str
) -> None:
    """Once somebody can be chosen again those who wait are served, bodies and all (B16)."""
    proxy = run(serve, *off(members), cluster=CLUSTER, workers=2)
    answers = waiting(pool, proxy, dial)
    until(lambda: status_of(proxy)["busy"] == 0, "nobody is busy")
    none_yet(proxy, answers)
    if how == "operator":
        set_status(proxy, "enabled")
    else:
        proxy.settings["balancers"]["cluster"]["members"].append(settings_of(members("server3")))
        proxy.reload()
    assert statuses(answers) == [b"200"] * 6
    served = b"server1" if how == "operator" else b"server3"
    assert {each.result().body for each in answers} == {served}


def stop(proxy: Proxy) -> None:
    """The proxy is to stop."""
    proxy._ended_by_test = True
    proxy.signal(signal.SIGTERM)


def end_worker(proxy: Proxy) -> None:
    """Its supervisor is gone, so the worker stops gracefully."""
    proxy._ended_by_test = True
    os.kill(proxy.pid, signal.SIGKILL)


@pytest.mark.parametrize("end", [stop, end_worker])
def test_who_waits_is_answered_at_the_end(
    serve: Launcher,
    members: Members,
    dial: Dial,
    pool: ThreadPoolExecutor,
    end: Callable[[Proxy], None],
) -> None:
    """A worker that stops answers those who wait: 503, and not a cut connection (B16, B17)."""
    proxy = run(serve, *off(members), cluster=CLUSTER, stop_timeout="2s")
    answers = waiting(pool, proxy, dial)
    until(lambda: status_of(proxy)["busy"] == 0, "nobody is busy")
    none_yet(proxy, answers)
    end(proxy)
    assert statuses(answers) == [b"503"] * 6
