"""However many workers there are, members have one status, one share and one set of counters."""

import asyncio
import contextlib
import logging
import os
import signal
import ssl
import time
from collections.abc import Callable

import pytest

from proxy.admin import client as admin
from tests.end_to_end.conftest import (
    HOST,
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
from tests.end_to_end.processes import (
    ask,
    is_gone,
    is_replaced,
    on_each,
    serving,
    set_status,
    status,
    status_of,
)
from tests.end_to_end.raw_client import RawClient
from tests.end_to_end.reloads import command
from tests.end_to_end.storm import MARK, Answer, End, Listening, Step, Storm, Visit

pytestmark = pytest.mark.slow

log = logging.getLogger(__name__)

# How long, in seconds, news may take from one worker to all: the promise is a tenth of that.
SOON = 1.0
SERVER1, SERVER2 = (f"Cookie: BALANCEME=balancer.server{number}" for number in (1, 2))


def plain(serve: Launcher) -> Yaml:
    """A frontend without TLS, on which nobody is sent away for being idle."""
    mapping = {"path": "/", "balancer": "cluster"}
    return serve.frontend(mapping, tls=False) | {"timeouts": {"keep_alive": "60s"}}


def run(serve: Launcher, *members: Yaml, **top: object) -> Proxy:
    """A proxy for these members, without TLS."""
    cluster = {
        "sticky_session": "BALANCEME",
        "session_cookie": {"domain": "example.org"},
        "members": [*members],
    }
    return serve.run({"frontends": [plain(serve)], "balancers": {"cluster": cluster}, **top})


def body_of(client: RawClient, *fields: str) -> str:
    """Who serves a client."""
    return ask(client, *fields).body.decode()


def served_by(proxy: Proxy, dial: Dial, *fields: str) -> set[str]:
    """Who serves clients with these fields that come one after another and leave."""
    found = set()
    for _ in range(8):
        client = dial(proxy)
        found.add(body_of(client, *fields))
        client.close()
    return found


def until_all(true: Callable[[], object], what: str) -> None:
    """Wait until it is so for all workers, and tell how long that took."""
    begun = time.monotonic()
    until(true, what, SOON)
    log.info("%s: after %.1f ms", what, 1000 * (time.monotonic() - begun))


# --- status --------------------------------------------------------------------------------------


def test_error_that_one_worker_finds(serve: Launcher, members: Members, dial: Dial) -> None:
    """A member that one worker finds dead is in error for all workers at once (F1)."""
    server1, server2 = members("server1"), members("server2")
    proxy = run(serve, settings_of(server1), settings_of(server2), workers=4)
    first, *others = on_each(proxy, lambda: dial(proxy)).values()
    assert {body_of(each, SERVER1) for each in (first, *others)} == {"server1"}
    server1.stop()
    assert body_of(first, SERVER1) == "server2"
    # It could serve again, so who moves from it has heard of it and not run into it.
    begun = time.monotonic()
    server1.start()
    until_all(lambda: {body_of(each, SERVER1) for each in others} == {"server2"}, "all moved")
    log.info("%.1f ms since the first one knew", 1000 * (time.monotonic() - begun))
    assert status_of(proxy)["status"] == "in error"
    until(lambda: proxy.stdout().count(" attempts=2 ") == 1, "only the first one tried again")
    assert proxy.stderr().count("in error for 60 s") == 1
    # So it is for a worker that comes later.
    victim = proxy.workers[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: is_replaced(proxy, victim, 4), "it is replaced")
    before = len(seen_by(server1))
    new = on_each(proxy, lambda: dial(proxy))
    assert {body_of(each, SERVER1) for each in new.values()} == {"server2"}
    assert len(seen_by(server1)) == before


def test_commands_of_the_operator(serve: Launcher, members: Members, dial: Dial) -> None:
    """A word is in force once its command has ended; who is no member gets none."""
    both = [settings_of(members(name)) for name in ("server1", "server2")]
    proxy = run(serve, *both, workers=2)

    def said(*words: str) -> str:
        ended = command(proxy, *words)
        assert ended.returncode == (1 if ended.stderr else 0)
        return ended.stdout or ended.stderr

    assert served_by(proxy, dial, SERVER1) == {"server1"}
    assert said("drain", "server1") == "cluster: server1 gets no new sessions; 1 live ones stay\n"
    assert served_by(proxy, dial) == {"server2"}
    assert served_by(proxy, dial, SERVER1) == {"server1"}
    said("disable", both[0]["url"], "--balancer", "cluster")
    assert served_by(proxy, dial, SERVER1) == {"server2"}
    assert said("enable", "server1") == "cluster: server1 gets sessions\n"
    assert served_by(proxy, dial, SERVER1) == {"server1"}
    assert status_of(proxy)["status"] == "ok"
    nobody = "no balancer has a member server3; there are: server1, server2\n"
    assert said("drain", "server3") == nobody


def test_what_the_operator_says(
    serve: Launcher, members: Members, dial: Dial, tmp_path: os.PathLike[str]
) -> None:
    """An operator's word counts in all workers at once, and survives what ends them.

    Where the file has a new word, that is the operator's latest.
    """
    both = [settings_of(members(name)) for name in ("server1", "server2")]
    proxy = run(serve, *both, workers=4, state_folder=str(tmp_path))
    clients = on_each(proxy, lambda: dial(proxy)).values()
    assert {body_of(each, SERVER1) for each in clients} == {"server1"}

    def drained() -> bool:
        for each in clients:
            # One request of each, so that neither member is due; then two elections tell.
            assert (body_of(each, SERVER1), body_of(each, SERVER2)) == ("server1", "server2")
            if (body_of(each), body_of(each)) != ("server2", "server2"):
                return False
        return True

    assert not drained()
    set_status(proxy, "drain")
    until_all(drained, "all drain it")
    set_status(proxy, "disabled")
    until_all(lambda: {body_of(each, SERVER1) for each in clients} == {"server2"}, "all left it")
    assert status_of(proxy)["status"] == "disabled"
    for each in clients:
        each.close()
    assert proxy.stop() == []
    proxy.start()
    assert status_of(proxy)["operator"] == "disabled"
    assert "cluster: server1 is still disabled, as was said" in proxy.stderr()
    assert served_by(proxy, dial, SERVER1) == {"server2"}
    proxy.settings["balancers"]["cluster"]["members"][0]["status"] = "drain"
    proxy.reload()
    assert status_of(proxy)["operator"] == "drain"
    assert served_by(proxy, dial, SERVER1) == {"server1"}
    # A word that the file has overruled is no more, whatever the file says next.
    del proxy.settings["balancers"]["cluster"]["members"][0]["status"]
    proxy.reload()
    assert proxy.stop() == []
    proxy.start()
    assert status_of(proxy)["status"] == "ok"


def test_operator_status_survives_an_upgrade(
    serve: Launcher, members: Members, dial: Dial, tmp_path: os.PathLike[str]
) -> None:
    """The new program of an upgrade knows what was said to the old one."""
    both = [settings_of(members(name)) for name in ("server1", "server2")]
    proxy = run(serve, *both, workers=2, state_folder=str(tmp_path))
    set_status(proxy, "disabled")
    former = proxy.pid
    proxy._ended_by_test = True
    new = admin.upgrade(proxy.socket)
    try:
        assert status(proxy)["pid"] == new != former
        assert status_of(proxy)["operator"] == "disabled"
        assert served_by(proxy, dial, SERVER1) == {"server2"}
        assert proxy.wait() == 0
    finally:
        admin.stop(proxy.socket, at_once=False)
    until(lambda: is_gone(new), "the new one ends")


# --- shares and counters -------------------------------------------------------------------------

FACTORS = {"server1": 1.0, "server2": 2.0, "server3": 3.5}
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nserver" + MARK
# What counts as received of an answer of seven bytes, as Apache has it: first line and body.
COUNTED = len(b"HTTP/1.1 200 OK") + 7


def test_shares(serve: Launcher, free_port: Callable[[], int], trust: ssl.SSLContext) -> None:
    """New sessions are shared out by load factors over all workers together (B3).

    Every request is in the counters, whichever worker it was with.
    """
    ports = {name: free_port() for name in FACTORS}
    members = [
        {"url": f"http://{HOST}:{port}", "route": name, "load_factor": FACTORS[name]}
        for name, port in ports.items()
    ]
    proxy = run(serve, *members, workers=4, access_log=None)
    visit = Visit((Step(request("/")),) * 50, End.CLOSE, requests=50, frontend=0)

    async def come() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for port in ports.values():
                await stack.enter_async_context(Listening((HOST, port), {b"/": Answer(ANSWER)}))
            await Storm([proxy.address()], trust).make([visit] * 200, 20)

    asyncio.run(come())
    until(lambda: status(proxy)["requests"] == 10_000, "all are counted")
    found = {name: status_of(proxy, name) for name in FACTORS}
    assert sum(each["elected"] for each in found.values()) == 10_000
    assert min(each["requests"] for each in status(proxy)["workers"]) > 0
    for name, factor in FACTORS.items():
        share = found[name]["elected"] / 10_000
        log.info("%s: %.4f of all, %.4f by its load factor", name, share, factor / 6.5)
        assert abs(share / (factor / 6.5) - 1) < 0.01
        assert found[name]["received"] == found[name]["elected"] * COUNTED
        assert found[name]["sent"] > found[name]["elected"] * 50


def counts(proxy: Proxy) -> dict[str, int]:
    """The counters of server1, and all requests."""
    found = status_of(proxy)
    told = {key: found[key] for key in ("elected", "sent", "received", "busy")}
    return told | {"requests": status(proxy)["requests"]}


def test_counters_outlive_workers(serve: Launcher, members: Members, dial: Dial) -> None:
    """What a worker had counted stays when it dies, and when a reload ends it or goes on with it.

    They never run backwards, not even for a moment.
    """
    server1 = members("server1")
    proxy = run(serve, settings_of(server1), workers=4)
    for each in on_each(proxy, lambda: dial(proxy)).values():
        for _ in range(5):
            assert body_of(each) == "server1"
    until(lambda: counts(proxy)["requests"] == 20, "all are counted")
    told = counts(proxy)
    assert told["elected"] == len(seen_by(server1)) == 20
    assert told["sent"] == sum(len(seen.head) for seen in seen_by(server1))
    assert told["received"] == 20 * COUNTED
    assert told["busy"] == 0
    victim = proxy.workers[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: is_replaced(proxy, victim, 4), "it is replaced")
    assert counts(proxy) == told
    for workers in (4, 2, 4):
        proxy.settings["workers"] = workers
        proxy.settings["health_path"] = f"/health{workers}"
        proxy.reload()
        assert counts(proxy) == told
    until(lambda: len(serving(proxy)) == 4, "four serve")
    assert counts(proxy) == told
    for each in on_each(proxy, lambda: dial(proxy)).values():
        assert body_of(each) == "server1"
    until(lambda: counts(proxy)["requests"] == 24, "all are counted")
    assert counts(proxy)["elected"] == 24
