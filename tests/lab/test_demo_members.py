"""proxy.lab.demo_members: two members in a thread, and their switches."""

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from proxy.lab.demo_members import DemoError, DemoMembers


@pytest.fixture
def members() -> Iterator[DemoMembers]:
    """Two running members on free ports."""
    members = DemoMembers((0, 0), 0)
    members.start()
    yield members
    members.stop()


def switch(members: DemoMembers, path: str, method: str = "POST") -> str:
    """What the switches answer."""
    url = f"http://127.0.0.1:{members.control_port}{path}"
    request = urllib.request.Request(url, method=method)
    with urllib.request.urlopen(request, timeout=10) as response:
        answer: bytes = response.read()
    return answer.decode()


def page(members: DemoMembers, index: int) -> str:
    """The webmail page of a member."""
    with urllib.request.urlopen(members.members[index].address + "/", timeout=10) as response:
        answer: bytes = response.read()
    return answer.decode()


def test_members_run(members: DemoMembers) -> None:
    """Both members answer under their names, and the status says where."""
    assert page(members, 0).startswith("server1: ")
    assert page(members, 1).startswith("server2: ")
    assert switch(members, "/", "GET") == (
        f"server1 running on {members.members[0].address}, sessions: 1\n"
        f"server2 running on {members.members[1].address}, sessions: 1\n"
    )


def test_stop_and_start_one(members: DemoMembers) -> None:
    """A stopped member refuses connections until it is started; the other goes on."""
    assert switch(members, "/server1/stop").startswith("server1 stopped\nserver2 running")
    with pytest.raises(urllib.error.URLError, match="refused"):
        page(members, 0)
    assert "server2" in page(members, 1)
    assert switch(members, "/server1/start").startswith("server1 running")
    assert "server1" in page(members, 0)


def test_start_all(members: DemoMembers) -> None:
    """``/start`` starts what is stopped and leaves the others alone."""
    page(members, 1)
    switch(members, "/server1/stop")
    answer = switch(members, "/start")
    assert answer.startswith("server1 running")
    assert answer.endswith("sessions: 1\n")


@pytest.mark.parametrize("path", ["/server3/stop", "//stop", "/server1/kill"])
def test_unknown_switch(members: DemoMembers, path: str) -> None:
    """What isn't there is a 404."""
    with pytest.raises(urllib.error.HTTPError, match="404") as refused:
        switch(members, path)
    refused.value.close()


def test_switch_wants_post(members: DemoMembers) -> None:
    """Looking at an address stops nothing."""
    with pytest.raises(urllib.error.HTTPError, match="405") as refused:
        switch(members, "/server1/stop", "GET")
    refused.value.close()


@pytest.mark.parametrize("option", ["--member-port", "--control-port"])
def test_busy_port_is_named(members: DemoMembers, option: str) -> None:
    """A port that is taken is named with its option, and nothing is left running."""
    busy = members.members[0].port
    ports = ((0, busy), 0) if option == "--member-port" else ((0, 0), busy)
    threads = threading.active_count()
    with pytest.raises(DemoError, match=rf"port {busy} .*in use.*{option}"):
        DemoMembers(*ports).start()
    assert threading.active_count() == threads


def test_impossible_port_is_named() -> None:
    """A number that is no port is a mistake like any other."""
    with pytest.raises(DemoError, match="port 99999 "):
        DemoMembers((99999, 0), 0).start()
