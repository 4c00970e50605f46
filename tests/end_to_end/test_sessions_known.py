"""Sessions are known: where each is, how it came there; and an operator can send one elsewhere."""

import base64
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.end_to_end.conftest import (
    ROOT,
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
from tests.end_to_end.processes import ask, call, on_each, status_of
from tests.end_to_end.raw_client import RawClient, Response
from tests.end_to_end.recording_member import Held, answer
from tests.end_to_end.reloads import command

pytestmark = pytest.mark.slow

ERIKA = "Authorization: Basic " + base64.b64encode(b"erika:secret").decode()
PHONE = "/Microsoft-Server-ActiveSync?Cmd=Sync&DeviceId=phone&DeviceType=x"
WEBMAIL = "ZARAFA_WEBAPP=4711"


def run(serve: Launcher, *members: Yaml) -> Proxy:
    """A proxy of two workers for these members, without TLS."""
    mapping = {"path": "/", "balancer": "cluster"}
    frontend = serve.frontend(mapping, tls=False) | {"timeouts": {"keep_alive": "60s"}}
    cluster = {
        "sticky_session": "BALANCEME",
        "session_cookie": {"domain": "example.org"},
        "members": [*members],
    }
    settings = {"frontends": [frontend], "balancers": {"cluster": cluster}, "workers": 2}
    return serve.run(settings)


def said(proxy: Proxy, *words: str) -> str:
    """What a command prints."""
    ended = command(proxy, *words)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def cookie(route: str) -> str:
    """A webmail's browser that was sent to a member."""
    return f"Cookie: {WEBMAIL}; BALANCEME=balancer.{route}"


def route_set(response: Response) -> str:
    """Where the cookie of an answer leads."""
    found = re.search(rb"BALANCEME=balancer\.(\w+);", response.value(b"set-cookie") or b"")
    assert found is not None
    return found[1].decode()


@pytest.fixture
def dialled(dial: Dial) -> Callable[[Proxy], list[RawClient]]:
    """A client at each worker."""
    return lambda proxy: list(on_each(proxy, lambda: dial(proxy)).values())


@pytest.mark.parametrize("action", ["show", "move", "find"])
def test_help(action: str) -> None:
    """Each action says what it does, and each of its options what it is for."""
    line = [sys.executable, "-m", "proxy", "session", action, "--help"]
    ended = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    usage, text, *_ = ended.stdout.split("\n\n")
    assert re.match(r"[A-Z][^.]{10,}\.( |\n|$)", text)
    options = re.findall(r"--[a-z-]+", usage)
    assert "--socket" in options
    for option in options:
        assert re.search(rf"^  {option}( [A-Z]+)?\s+[A-Za-z]", ended.stdout, re.MULTILINE)


def test_sessions_are_listed(
    serve: Launcher, members: Members, dialled: Callable[[Proxy], list[RawClient]]
) -> None:
    """A session is listed once, whichever workers saw it, and found by what an admin knows."""
    proxy = run(serve, *(settings_of(members(name)) for name in ("server1", "server2")))
    clients = dialled(proxy)
    for client in clients:
        assert ask(client, cookie("server2")).body == b"server2"
    (phone,) = {ask(clients[0], ERIKA, target=PHONE).body.decode()}
    rows = said(proxy, "sessions").splitlines()
    assert rows[-1] == "2 live sessions"
    browser_id = next(row.split()[0] for row in rows if "its own member" in row)
    phone_id = next(row.split()[0] for row in rows if "elected" in row)
    listed = call(proxy, "GET", "sessions?member=server2&limit=5")
    assert listed["total"] == (2 if phone == "server2" else 1)
    assert browser_id in said(proxy, "session", "find", "--cookie", WEBMAIL)
    found = said(proxy, "session", "find", "--device", "phone", "--user", "Erika")
    assert f"session {phone_id} of balancer cluster\n" in found
    assert re.search(rf"^\d\d:\d\d:\d\d assigned {phone}: elected$", found, re.MULTILINE)
    assert "secret" not in found + "".join(rows)
    unknown = command(proxy, "session", "show", "0123456789abcdef")
    assert (unknown.returncode, unknown.stderr[:14]) == (1, "nobody knows a")


def test_history_of_a_session_whose_member_dies(
    serve: Launcher, members: Members, dialled: Callable[[Proxy], list[RawClient]]
) -> None:
    """A session that failover moves has moved once, though several workers saw it."""
    server1, server2 = members("server1"), members("server2")
    proxy = run(serve, settings_of(server1), settings_of(server2))
    clients = dialled(proxy)
    for client in clients:
        assert ask(client, cookie("server2")).body == b"server2"
    server2.stop()
    moved = [ask(client, cookie("server2")) for client in clients]
    assert [(each.body, route_set(each)) for each in moved] == [(b"server1", "server1")] * 2
    (told,) = call(proxy, "GET", "sessions")["sessions"]
    assert (told["member"], told["moves"], told["session"]) == ("server1", 1, "moved")
    (known,) = call(proxy, "GET", f"sessions/{told['id']}")["sessions"]
    assert [(event["member"], event["reason"]) for event in known["events"]] == [
        ("server2", "its own member"),
        ("server1", "its own member can't be used"),
    ]
    assert status_of(proxy, "server1")["sessions"] == 1
    assert status_of(proxy, "server2")["sessions"] == 0


def test_operator_moves_a_session(
    serve: Launcher, members: Members, dialled: Callable[[Proxy], list[RawClient]]
) -> None:
    """A move is for the next request, on every worker; what is under way ends where it is."""
    held = Held(answer(b"server2"))
    server1, server2 = members("server1"), members("server2", {b"/held": held})
    proxy = run(serve, settings_of(server1), settings_of(server2))
    clients = dialled(proxy)
    for client in clients:
        assert ask(client, cookie("server2")).body == b"server2"
    (told,) = call(proxy, "GET", "sessions")["sessions"]
    clients[0].send(request("/held", cookie("server2")))
    until(lambda: seen_by(server2, path=b"/held"), "a request is under way")
    text = said(proxy, "session", "move", told["id"], "server1", "--reason", "a bad disk")
    assert text == (
        f"cluster: session {told['id']} goes from server2 to server1 with its next request\n"
    )
    held.let.set()
    assert clients[0].read_response(b"GET").body == b"server2"
    other = [ask(client, cookie("server2").replace("4711", "4712")) for client in clients]
    assert {each.body for each in other} == {b"server2"}
    for client in clients:
        moved = ask(client, cookie("server2"))
        assert (moved.body, route_set(moved)) == (b"server1", "server1")
        assert ask(client, cookie("server1")).body == b"server1"
    history = said(proxy, "session", "show", told["id"])
    assert " moved to server1: moved by the operator\n" in history
    assert re.search(r"told to go from server2 to server1 by \w+: a bad disk\n", history)
    until(lambda: " as " in proxy.stderr() and "a bad disk" in proxy.stderr(), "it is in the log")
