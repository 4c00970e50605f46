"""What operators and cluster managers say of members, as clients notice it on every worker."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import (
    Dial,
    Launcher,
    Members,
    Proxy,
    Yaml,
    request,
    settings_of,
    until,
)
from tests.end_to_end.processes import ask, on_each, status_of
from tests.end_to_end.raw_client import RawClient
from tests.end_to_end.recording_member import Do, RecordingMember
from tests.end_to_end.reloads import begun, code, command, ended

pytestmark = pytest.mark.slow

SERVER1, SERVER2 = (f"Cookie: BALANCEME=balancer.server{number}" for number in (1, 2))
PING = "/Microsoft-Server-ActiveSync?Cmd=Ping&User=erika&DeviceId=a1&DeviceType=Android"
# A Ping counts as one after a moment already.
QUICK_PINGS = ("-m", "tests.end_to_end.altered", "proxy.dataplane.exchange.LONG_POLL=0.2")


def run(
    serve: Launcher,
    *members: RecordingMember,
    program: tuple[str, ...] = ("-m", "proxy"),
    balancer: Yaml | None = None,
    **top: Any,
) -> Proxy:
    """Two workers for these members, without TLS."""
    frontend = serve.frontend({"path": "/", "balancer": "cluster"}, tls=False)
    cluster = {
        "sticky_session": "BALANCEME",
        "session_cookie": {},
        "members": [settings_of(member) for member in members],
        **(balancer or {}),
    }
    frontend["timeouts"] = {"keep_alive": "60s"}
    settings = {"frontends": [frontend], "balancers": {"cluster": cluster}, "workers": 2, **top}
    return serve.run(settings, program)


def say(proxy: Proxy, *words: str) -> str:
    """What a command prints that must succeed."""
    done = command(proxy, *words)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def fate(client: RawClient, cookie: str = SERVER2, target: str = "/") -> tuple[str, str]:
    """Who serves a client, and what its session cookie is from then on."""
    client.send(request(target, cookie))
    answer = client.read_response(b"GET")
    line = (answer.value(b"set-cookie") or b"").decode()
    return answer.body.decode(), line.partition(";")[0].removeprefix("BALANCEME=")


def test_failover_by_hand(serve: Launcher, members: Members, dial: Dial, tmp_path: Path) -> None:
    """Sessions go to the heir with their next request, cookie and all, until that is cleared.

    It holds over a restart, and is shown with by whom, when and why.
    """
    both = members("server1"), members("server2")
    proxy = run(serve, *both, state_folder=str(tmp_path))
    clients = list(on_each(proxy, lambda: dial(proxy)).values())
    assert {fate(each) for each in clients} == {("server2", "balancer.server2")}
    told = say(proxy, "failover", "server2", "server1", "--reason", "new disk")
    assert told.startswith("cluster: server2 has lost its ")
    until(lambda: {fate(each) for each in clients} == {("server1", "balancer.server1")}, "all", 1)
    assert {ask(each).body for each in clients for _ in range(4)} == {b"server1"}
    takeover = status_of(proxy, "server2")["takeover"]
    assert (takeover["heir"], takeover["origin"]) == ("server1", "operator")
    assert "server2: server1 has taken over its sessions, as root said at" in say(proxy, "status")
    for each in clients:
        each.close()
    assert proxy.stop() == []
    proxy.start()
    assert fate(dial(proxy)) == ("server1", "balancer.server1")
    assert status_of(proxy, "server2")["takeover"]["why"] == "new disk"
    assert say(proxy, "failover", "--clear", "server2") == (
        "cluster: server2 has its sessions again\n"
    )
    assert fate(dial(proxy)) == ("server2", "balancer.server2")
    say(proxy, "failover", "--clear", "server2")  # as often as one likes


def test_failover_that_can_not_be(serve: Launcher, members: Members) -> None:
    """What can't be is refused with the reason, and nothing changes."""
    proxy = run(serve, members("server1"), members("server2"))
    say(proxy, "failover", "server2", "server1")
    for words, reason in (
        (["failover", "server1", "server2"], "server2's own sessions are taken over, in the end"),
        (["failover", "server1", "server7"], "cluster has no member server7; it has server1, ser"),
        (["failover", "server1"], "say who has taken over, or --clear"),
        (["failover", "server1", "server2", "--clear"], "say who has taken over, or --clear"),
        (["readmit", "server1"], "cluster: server1 is neither fenced nor held off"),
        (["set", "server1"], "nothing to set"),
        (["set", "server1", "--load-factor", "0"], "load_factor must be a number from 1 to 100"),
    ):
        done = command(proxy, *words)
        assert done.returncode == 1
        assert done.stderr.startswith(reason)
    assert status_of(proxy, "server1")["takeover"] is None


def test_failover_to_who_can_not_serve(serve: Launcher, members: Members) -> None:
    """It is done, for who commands may know more; and told, lest members be mixed up."""
    proxy = run(serve, members("server1"), members("server2"))
    say(proxy, "disable", "server1")
    assert say(proxy, "failover", "server2", "server1").splitlines() == [
        "cluster: server2 has lost its 0 live sessions to server1",
        "cluster: server1 can't serve them now: it is disabled",
    ]


RULES = """\
# written by the cluster manager
RewriteCond %{HTTP_COOKIE} BALANCEME=(Balancer.server2)
RewriteRule .* - [CO=BALANCEME:Balancer.server1:zarafa.com:60]
"""


@pytest.mark.parametrize("text", [RULES, "server2: server1\n"], ids=["apache", "yaml"])
def test_failover_file(
    text: str, serve: Launcher, members: Members, dial: Dial, tmp_path: Path
) -> None:
    """What a cluster manager writes is in force within a second; a broken file changes nothing."""
    file = tmp_path / "failover"
    file.write_text("")
    both = members("server1"), members("server2")
    proxy = run(serve, *both, balancer={"failover_file": str(file)})
    clients = list(on_each(proxy, lambda: dial(proxy)).values())
    assert {fate(each) for each in clients} == {("server2", "balancer.server2")}
    file.write_text(text)
    until(lambda: {fate(each) for each in clients} == {("server1", "balancer.server1")}, "all", 1.5)
    file.write_text(text + "nonsense\n")
    until(lambda: "what it said before stays in force" in proxy.stderr(), "it says so")
    assert {fate(each) for each in clients} == {("server1", "balancer.server1")}
    proxy.reload()
    assert {fate(each) for each in clients} == {("server1", "balancer.server1")}
    new = tmp_path / "new"
    new.write_text("")
    new.rename(file)
    until(lambda: {fate(each) for each in clients} == {("server2", "balancer.server2")}, "all", 1.5)


def test_terms_at_run_time(serve: Launcher, members: Members, dial: Dial) -> None:
    """Load factor, standby, spare and lbset count from the next election on, on every worker."""
    both = members("server1"), members("server2")
    proxy = run(serve, *both)
    clients = list(on_each(proxy, lambda: dial(proxy)).values())

    def elected() -> list[str]:
        found = [ask(each).body.decode() for each in clients for _ in range(8)]
        return [name for name in found if name == "server2"]

    assert len(elected()) == 8
    told = say(proxy, "set", "server1", "--load-factor", "3", "--reason", "more cores")
    assert told == "cluster: server1 has load_factor 3.0\n"
    until(lambda: len(elected()) == 4, "a quarter")
    say(proxy, "set", "server2", "--hot-standby", "yes")
    until(lambda: not elected(), "none")
    say(proxy, "set", "server2", "--hot-standby", "no", "--lbset", "1", "--status", "disabled")
    assert fate(clients[0]) == ("server1", "balancer.server1")
    shown = say(proxy, "status")
    assert "server1: load factor 3.0, lbset 0, as root said at" in shown
    assert "server2: load factor 1.0, lbset 1, as root said at" in shown
    # What the file says anew counts more than what was said before.
    proxy.settings["balancers"]["cluster"]["members"][1]["lbset"] = 0
    proxy.settings["balancers"]["cluster"]["members"][1]["load_factor"] = 2
    proxy.reload()
    found = json.loads(say(proxy, "status", "--json"))["balancers"]["cluster"]["members"]
    assert [(each["load_factor"], each["lbset"]) for each in found] == [(3.0, 0), (2.0, 0)]


def test_drain_until_empty(serve: Launcher, members: Members, dial: Dial) -> None:
    """A drained member keeps its sessions until they are over; then it is disabled, and said so."""
    both = members("server1"), members("server2")
    proxy = run(serve, *both, balancer={"session_cookie": {"lifetime": "2s"}})
    client = dial(proxy)
    assert fate(client) == ("server2", "balancer.server2")
    waiting = begun(proxy, "drain", "server2", "--until-empty", "--wait")
    until(lambda: status_of(proxy, "server2")["drain"] is not None, "it is drained")
    end = time.monotonic() + 2
    while time.monotonic() < end:
        assert fate(client) == ("server2", "balancer.server2")
        assert ask(client).body == b"server1"
        time.sleep(0.2)
    assert waiting.poll() is None
    done = ended(waiting)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("cluster: server2 gets no new sessions; ")
    assert any(" live sessions, 0 exchanges under way; empty at about " in line for line in lines)
    assert lines[-1] == "cluster: server2 is drained: nothing is left on it"
    assert status_of(proxy, "server2")["operator"] == "disabled"
    assert "cluster: server2 is drained: nothing is left on it" in proxy.stderr()


def test_drain_with_a_deadline(serve: Launcher, members: Members, dial: Dial) -> None:
    """At its deadline sessions move between two requests, and waiting Pings are sent away (D42).

    What is under way goes on to its end under the member it has.
    """
    server1, server2 = members("server1"), members("server2")
    server2.scripts[b"/Microsoft-Server-ActiveSync"] = [Do.READ_BODY, Do.WAIT_CLOSE]
    proxy = run(serve, server1, server2, program=QUICK_PINGS, stop_timeout="1s")
    phone, browser, upload = (dial(proxy) for _ in range(3))
    phone.send(request(PING, SERVER2, method="POST", body=b""))
    upload.send(request("/save", SERVER2, "Content-Length: 8", method="POST") + b"half")
    until(lambda: status_of(proxy, "server2")["busy"] >= 2, "both are under way")
    waiting = begun(proxy, "drain", "server2", "--for", "1s", "--wait")
    assert fate(browser) == ("server2", "balancer.server2")
    assert code(phone.read_response(b"POST")) == 503
    until(lambda: fate(browser) == ("server1", "balancer.server1"), "the session has moved")
    assert waiting.poll() is None
    upload.send(b"half")
    assert upload.read_response(b"POST").body == b"server2"
    done = ended(waiting)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        0,
        "cluster: server2 is drained: nothing is left on it",
    )
    phone = dial(proxy)
    assert fate(phone) == ("server1", "balancer.server1")


def test_drain_that_is_taken_back(serve: Launcher, members: Members) -> None:
    """Who waits for a drain that the operator takes back is told, with exit status 1."""
    proxy = run(serve, members("server1"), members("server2"))
    waiting = begun(proxy, "drain", "server2", "--for", "1h", "--wait")
    until(lambda: status_of(proxy, "server2")["drain"] is not None, "it is drained")
    say(proxy, "enable", "server2")
    done = ended(waiting)
    assert (done.returncode, done.stderr) in [
        (1, "cluster: server2 is drained no more: it is ok\n"),
        (0, ""),  # it was empty before
    ]
