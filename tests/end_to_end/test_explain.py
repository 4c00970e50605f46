"""Explanations: `balanceme explain` and X-Balanceme say where a request goes, and it goes there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.admin import client as admin
from proxy.admin.explain_text import explain_text
from proxy.control.commands import Question
from tests.end_to_end.conftest import (
    HOST,
    PATIENCE,
    ROOT,
    Dial,
    Launcher,
    Members,
    Proxy,
    fields_of,
    settings_of,
    until,
)
from tests.end_to_end.processes import ask, set_status, status_of
from tests.end_to_end.reloads import command

pytestmark = pytest.mark.slow

COOKIE = "BALANCEME=balancer.server2"


def balanceme(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    whole = [sys.executable, "-m", "proxy", *map(str, words)]
    return subprocess.run(
        whole, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@pytest.fixture
def proxy(serve: Launcher, members: Members) -> Proxy:
    """A proxy with two workers and three members, which explains itself to this machine."""
    three = [settings_of(members(f"server{number}")) for number in (1, 2, 3)]
    return serve(*three, workers=2, explain_to=["127.0.0.0/8"])


def explained(proxy: Proxy, dial: Dial) -> str:
    """Why a session goes where it does; a request of it must go there, and say so itself."""
    found = admin.explain(proxy.socket, Question("/", cookie=COOKIE))
    served = ask(dial(proxy), f"Cookie: {COOKIE}")
    (told,) = fields_of(served.fields, "X-Balanceme")
    assert f'session={found["session"]} reason="{found["reason"]}"' in told
    if served.status_line.startswith(b"HTTP/1.1 503 "):
        assert (found["members"], found["status"]) == ([], 503)
        assert told.startswith("member=- route=server2 ")
    else:
        who = served.body.decode()
        assert who in [each["route"] for each in found["members"]]
        assert told.startswith(f"member={who} route=server2 ")
    return explain_text(found)


def test_where_a_session_goes(proxy: Proxy, dial: Dial) -> None:
    """What operators say of members is told, and a request goes where it is said to go."""
    assert "-> member server2 (" in explained(proxy, dial)
    assert "session kept; Set-Cookie: BALANCEME=balancer.server2;" in explained(proxy, dial)
    list(admin.say_of_member(proxy.socket, "server2", "drain", {"reason": "new disk"}))
    text = explained(proxy, dial)
    assert re.search(r"member server2: drained by \S+ on .* GMT: new disk; takes its own", text)
    assert "-> member server2 (" in text
    set_status(proxy, "disabled", "server3")
    set_status(proxy, "disabled", "server2")
    text = explained(proxy, dial)
    assert "server2 can't be used: another one is elected, to which the session moves" in text
    assert "server1 (load factor 1): the only one that can be elected" in text
    assert "-> member server1 (" in text
    set_status(proxy, "enabled", "server3")
    set_status(proxy, "enabled", "server2")
    said = {"heir": "server3", "reason": "moved"}
    list(admin.say_of_member(proxy.socket, "server2", "failover", said))
    text = explained(proxy, dial)
    assert re.search(
        r"server2: server3 has taken over its sessions, said by \S+ on .*: moved", text
    )
    assert "-> member server3 (" in text
    assert "session moved; Set-Cookie: BALANCEME=balancer.server3;" in text
    for number in (1, 3):
        set_status(proxy, "stopped", f"server{number}")
    explained(proxy, dial)


def test_in_error(serve: Launcher, members: Members, dial: Dial) -> None:
    """A member that traffic ran into is told with how long it stays out (F1)."""
    alive, dead = members("server1"), members.stopped("server2")
    proxy = serve(alive, dead, workers=2, explain_to=[HOST])
    (told,) = fields_of(ask(dial(proxy), f"Cookie: {COOKIE}").fields, "X-Balanceme")
    assert told.startswith("member=server1 route=server2 session=moved reason=")
    assert told.endswith('"its own member can\'t be used" attempts=2')
    until(lambda: status_of(proxy, "server2")["in_error"], "it is known to be in error")
    text = explained(proxy, dial)
    assert re.search(r"member server2: in error for (60|5\d) s more \(retry_after 60 s\)", text)
    assert "-> member server1 (" in text


def test_an_election(proxy: Proxy) -> None:
    """Without a session all candidates are named, and asking is no election."""
    before = [status_of(proxy, f"server{number}")["elected"] for number in (1, 2, 3)]
    url = f"{proxy.url()}/webapp/?a=b"
    ended = command(proxy, "explain", url)
    assert (ended.returncode, ended.stderr) == (0, "")
    told = [admin.explain(proxy.socket, Question(url)) for _ in range(5)]
    assert all(each["members"] == told[0]["members"] for each in told)
    assert re.search(
        r"\n-> one of server1 \(.*\), server2 \(.*\), server3 \(.*\), session new;"
        r" of server1 Set-Cookie: BALANCEME=balancer.server1; path=/; domain=example.org; expires=",
        ended.stdout,
    )
    assert ended.stdout.startswith(f" 1. frontend {HOST}:{proxy.address()[1]} speaks TLS\n")
    assert [status_of(proxy, f"server{number}")["elected"] for number in (1, 2, 3)] == before


def test_a_file_alone(proxy: Proxy, tmp_path: Path) -> None:
    """A file is explained without anybody serving it, with its members as it says."""
    set_status(proxy, "disabled", "server2")
    ended = balanceme("explain", "--config", proxy.config, "--cookie", COOKIE, "/")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(" 1. members are as the file says")
    assert "\n-> member server2 (" in ended.stdout
    ended = balanceme("explain", "--config", proxy.config, "--plain", "/")
    assert (ended.returncode, ended.stderr) == (1, "no frontend speaks plain HTTP\n")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("wrokers: 1\n")
    ended = balanceme("explain", "--config", wrong, "/")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "wrokers: unknown key" in ended.stderr


def test_commands(proxy: Proxy, tmp_path: Path) -> None:
    """What can't be explained ends with its status and a reason; help tells of each option."""
    ended = command(proxy, "explain", "--listen", "[::]:1", "/")
    assert ended.returncode == 1
    assert ended.stderr.startswith("no frontend listens on [::]:1; there are: ")
    ended = command(proxy, "explain", "--json", "--host", "elsewhere", "nowhere")
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["status"] == 400
    assert balanceme("explain", "/", "--socket", tmp_path / "none.sock").returncode == 3
    helped = balanceme("explain", "--help").stdout
    for option in ("--host", "--cookie", "--listen", "--plain", "--config", "--json", "--socket"):
        assert re.search(rf"^  {option}( [A-Z]+)?\s+[a-z(]", helped, re.MULTILINE)


def test_nobody_else_is_told(serve: Launcher, members: Members, dial: Dial) -> None:
    """Whom explain_to doesn't name is told nothing, from the reload on that takes it out."""
    proxy = serve(members("server1"), explain_to=[HOST])
    client = dial(proxy)
    assert fields_of(ask(client).fields, "X-Balanceme") == [
        'member=server1 route=- session=new reason="elected" attempts=1'
    ]
    proxy.settings["explain_to"] = ["192.0.2.0/24"]
    assert proxy.reload()
    assert fields_of(ask(client).fields, "X-Balanceme") == []
    assert fields_of(ask(dial(proxy)).fields, "X-Balanceme") == []
