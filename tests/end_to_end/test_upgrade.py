"""An upgrade: the next program takes the place of this one, and nobody notices.

``BALANCEME_UPGRADES=50`` makes as many under load.
"""

import asyncio
import os
import signal
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.admin import client as admin
from proxy.admin.client import AdminError
from tests.end_to_end.conftest import (
    HOST,
    PATIENCE,
    Dial,
    Members,
    Yaml,
    request,
    seen_by,
    settings_of,
    until,
)
from tests.end_to_end.load import Load, member
from tests.end_to_end.program import Program, Programs
from tests.end_to_end.raw_client import End
from tests.end_to_end.recording_member import Do, RecordingMember, answer

pytestmark = pytest.mark.slow

UPGRADES = int(os.environ.get("BALANCEME_UPGRADES", "2"))

PING = "/Microsoft-Server-ActiveSync?Cmd=Ping"
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def gone(pid: int) -> bool:
    """Whether a process has ended; its parent may not have noticed."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def all_gone(*pids: int) -> None:
    """Wait until these processes have ended."""
    until(lambda: all(map(gone, pids)), f"{pids} end", 30)


def start(install: Programs, *members: RecordingMember | Yaml, **top: Any) -> Program:
    """A program that serves over TLS."""
    program = install(*members, mapping={"upgrade": ["websocket"]}, **top)
    assert isinstance(program, Program)
    return program


# --- nobody notices ------------------------------------------------------------------------------


async def upgrades_under_load(program: Program, port: int, trust: ssl.SSLContext) -> None:
    """Upgrade again and again while clients come, go and stay."""
    async with member(port), Load(program, trust) as load:
        for number in range(UPGRADES):
            before = await asyncio.to_thread(lambda: program.current)
            if number % 2:
                os.kill(before, signal.SIGUSR2)
            else:
                assert await asyncio.to_thread(program.upgrade) != before
            await load.goes_on()
            await asyncio.to_thread(all_gone, before)
            assert not load.failures
            assert await asyncio.to_thread(lambda: program.current) != before
        await load.goes_on()
    assert not load.failures


def test_nobody_notices(
    install: Programs, free_port: Callable[[], int], trust: ssl.SSLContext
) -> None:
    """Under load no request fails and no connection is refused, by command and by SIGUSR2."""
    port = free_port()
    program = start(install, {"url": f"http://{HOST}:{port}", "route": "a"}, workers=2)
    asyncio.run(upgrades_under_load(program, port, trust))


class Late(list[bytes | float | Do]):
    """A script whose second half waits until the test lets it go on."""

    def __init__(self, first: bytes, second: bytes) -> None:
        super().__init__([Do.READ_BODY])
        self._halves = first, second
        self.go_on = threading.Event()

    def __iter__(self) -> Iterator[bytes | float | Do]:
        yield Do.READ_BODY
        yield self._halves[0]
        self.go_on.wait(3 * PATIENCE)
        yield self._halves[1]


class Lasting:
    """Exchanges of every kind that lasts, all under way."""

    def __init__(self, server: RecordingMember, program: Program, dial: Dial) -> None:
        self._news = Late(b"", answer(b"news"))
        self._rest = Late(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc", b"def")
        server.scripts[PING.partition("?")[0].encode()] = self._news
        server.scripts[b"/down"] = self._rest
        server.scripts[b"/tunnel"] = [SWITCH, Do.ECHO]
        already = len(seen_by(server))
        self.ping, self.down, self.up, self.tunnel = (dial(program) for _ in range(4))
        self.ping.send(request(PING, method="POST", body=b"news?"))
        self.down.send(request("/down"))
        self.up.send(request("/up", "Content-Length: 6", method="POST") + b"abc")
        self.tunnel.send(request("/tunnel", *UPGRADE))
        assert self.tunnel.read_response(b"GET").status_line.startswith(b"HTTP/1.1 101 ")
        assert self.down.wait_interim()
        until(lambda: len(seen_by(server)) >= already + 3, "all have begun")

    def go_on(self) -> None:
        """Let them end; all of them do, whole."""
        self.tunnel.send(b"still there?")
        self.up.send(b"def")
        self._news.go_on.set()
        self._rest.go_on.set()
        assert self.up.read_response(b"POST").body == b"server1"
        assert self.ping.read_response(b"POST").body == b"news"
        assert self.down.read_response(b"GET").body == b"abcdef"
        assert self.tunnel.read_exactly(12) == b"still there?"

    def are_cut(self) -> None:
        """They end without having been whole, and each client can tell."""
        for client in (self.down, self.up, self.tunnel, self.ping):
            assert client.wait_closed(PATIENCE)
        assert self.down.read_response(b"GET").end is End.TRUNCATED
        self.leave()

    def leave(self) -> None:
        """The clients are gone, and members wait for nobody."""
        for client in (self.ping, self.down, self.up, self.tunnel):
            client.close()
        self._news.go_on.set()
        self._rest.go_on.set()


def operator_status(program: Program, status: str | None = None) -> str:
    """What the operator wants of server2, told anew or asked."""
    if status is not None:
        path = "balancers/cluster/members/server2/status"
        admin._call(program.socket, "POST", path, {"status": status})
    members = program.status()["balancers"]["cluster"]["members"]
    return next(str(each["operator"]) for each in members if each["route"] == "server2")


def test_exchanges_go_on(install: Programs, members: Members, dial: Dial) -> None:
    """What is under way ends well, however many programs follow; what there is once is the last's.

    That is the control socket, the pid file, and what was said of members.
    """
    server = members("server1")
    standby = settings_of(members("server2")) | {"hot_standby": True}
    program = start(install, server, standby, pid_file="balanceme.pid")
    pid_file = program.folder / "balanceme.pid"
    first = program.current
    assert operator_status(program, "drain") == "drain"
    idle = dial(program)
    idle.send(request("/"))
    assert idle.read_response(b"GET").body == b"server1"
    lasting = Lasting(server, program, dial)
    second = program.upgrade()
    assert idle.wait_closed(PATIENCE)
    idle.close()
    assert (program.current, int(pid_file.read_text())) == (second, second)
    assert operator_status(program) == "drain"
    assert program.workers_of(first)
    also = Lasting(server, program, dial)
    third = program.upgrade()
    fourth = program.upgrade()
    all_gone(third)  # it has no exchanges
    assert (program.current, int(pid_file.read_text())) == (fourth, fourth)
    new = dial(program)
    new.send(request("/"))
    assert new.read_response(b"GET").body == b"server1"
    until(lambda: program.status()["requests"] == 1, "the last one counts it")
    assert not gone(first)
    assert not gone(second)
    lasting.go_on()
    also.go_on()
    lasting.leave()
    also.leave()
    all_gone(first, second)
    assert operator_status(program) == "drain"
    assert "stopping" not in program.said()
    assert program.socket.exists()
    os.kill(fourth, signal.SIGTERM)
    assert program.ended() == 0
    assert not pid_file.exists()
    assert not program.socket.exists()


def test_graceful_timeout(install: Programs, members: Members, dial: Dial) -> None:
    """After graceful_timeout what is still under way is cut, and the old program ends."""
    server = members("server1")
    program = start(install, server, graceful_timeout="500ms")
    first = program.current
    lasting = Lasting(server, program, dial)
    second = program.upgrade()
    lasting.are_cut()
    all_gone(first)
    assert program.current == second


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_end_of_the_new_one(number: int, install: Programs, members: Members, dial: Dial) -> None:
    """When the new program stops or is gone, the old one that still finishes hurries."""
    server = members("server1")
    program = start(install, server, stop_timeout="500ms")
    lasting = Lasting(server, program, dial)
    os.kill(program.upgrade(), number)
    lasting.are_cut()
    assert program.ended() == 0


# --- it is not ready -----------------------------------------------------------------------------

HANGS = "import time, proxy.control.config_file as file\nfile.load = lambda _: time.sleep(600)"
CRASHES = "raise SystemExit('the new version is broken')"
DIES = """\
import os, signal
from proxy.control import upgrade
upgrade.Predecessor.take_over = lambda _: os.kill(os.getpid(), signal.SIGKILL)"""


def test_dropped(install: Programs, members: Members, dial: Dial) -> None:
    """A program that can't serve is dropped with the reason, and nothing has happened."""
    program = install.make(
        install.plain(settings_of(members("server1")), workers=2, pid_file="balanceme.pid")
    ).start()
    workers = program.workers
    good = program.config.read_text()
    bad = good.replace("balancer: cluster", "balancer: clutser")
    taken = good.replace("pid_file: balanceme.pid", "pid_file: missing/balanceme.pid")
    for first, config, reason in (
        ("", bad, ':7:15: frontends[0].mappings[0].balancer: found "clutser"'),
        ("", taken, "pid_file: "),
        (CRASHES, good, "it ended with status 1; standard error may tell more"),
        (DIES, good, "it was ended by SIGKILL"),
    ):
        program.install(first)
        program.config.write_text(config)
        said = len(program.said())
        with pytest.raises(AdminError) as told:
            program.upgrade()
        assert told.value.exit_status == 1
        text = str(told.value)
        assert text.startswith("the new program was dropped: ")
        assert reason in text
        assert f"ERROR no upgrade: {text.splitlines()[0]}" in program.said()[said:]
        assert program.current == program.pid
        assert int((program.folder / "balanceme.pid").read_text()) == program.pid
        until(lambda: sorted(program.all) == sorted([program.pid, *workers]), "it is gone")
        client = dial(program)
        client.send(request("/"))
        assert client.read_response(b"GET").body == b"server1"
    program.config.write_text(bad)
    ended = program.balanceme("upgrade")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"the new program was dropped: {program.config}:7:15: ")
    program.install()
    program.config.write_text(good)
    ended = program.balanceme("upgrade")
    following = program.current
    assert ended.stdout == f"upgraded: process {following} serves from now on\n"
    assert ended.returncode == 0
    assert int((program.folder / "balanceme.pid").read_text()) == following
    assert program.ended_first() == 0


def test_hangs(install: Programs, members: Members) -> None:
    """A program that never serves is not waited for any longer than that."""
    settings = install.plain(settings_of(members("server1")))
    program = install.make(settings, "from proxy.control import upgrade\nupgrade.PREPARATION = 0.3")
    program.start()
    program.install(HANGS)
    with pytest.raises(AdminError, match=r"it does not serve after 0\.3 s"):
        program.upgrade()
    assert program.current == program.pid
    until(lambda: len(program.all) == 2, "it is gone")


def waiting(program: Program) -> tuple[int, Path]:
    """Begin an upgrade; the new program, which waits until there is a file."""
    go_on = program.folder / "go-on"
    program.install(
        f"import pathlib, time\nwhile not pathlib.Path({str(go_on)!r}).exists(): time.sleep(0.01)"
    )
    before = set(program.all)
    os.kill(program.current, signal.SIGUSR2)
    until(lambda: len(set(program.all) - before) == 1, "the new program starts")
    (pid,) = set(program.all) - before
    return pid, go_on


def test_old_one_is_killed(install: Programs, members: Members, dial: Dial) -> None:
    """When the old program is killed meanwhile, the new one serves nevertheless."""
    settings = install.plain(settings_of(members("server1")), pid_file="balanceme.pid")
    program = install.make(settings).start()
    new, go_on = waiting(program)
    os.kill(program.pid, signal.SIGKILL)
    program.wait()
    go_on.touch()
    until(lambda: program.said().count("serving on") == 2, "the new one serves", 20)
    assert "the former supervisor" in program.said()
    assert program.current == new
    assert int((program.folder / "balanceme.pid").read_text()) == new
    client = dial(program)
    client.send(request("/"))
    assert client.read_response(b"GET").body == b"server1"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_new_one_is_ended(number: int, install: Programs, members: Members) -> None:
    """When the new program is ended before it serves, the old one serves on, and may try again."""
    program = install.make(install.plain(settings_of(members("server1")))).start()
    new, go_on = waiting(program)
    with pytest.raises(AdminError, match="another upgrade is under way"):
        program.upgrade()
    with pytest.raises(AdminError, match="would not hear of it; say it again"):
        operator_status(program, "drain")
    os.kill(new, number)
    go_on.touch()
    program.wait_said("no upgrade: the new program was dropped")
    assert program.current == program.pid
    assert program.upgrade() == program.current != program.pid


def test_what_is_known_of_members(install: Programs, members: Members) -> None:
    """A member that is down, held off or taken over stays so, and none of it is told again."""
    server1, server2 = members("server1"), members("server2")
    settings = install.plain(*map(settings_of, (server1, server2)))
    settings["balancers"]["cluster"] |= {
        "health_checks": [{"type": "tcp", "interval": "250ms", "passes": 1, "fails": 1}],
        "takeover": "auto",
        "hold_off": "1h",
    }
    program = install.make(settings).start()
    server2.stop()
    until(lambda: "server1 takes over its sessions" in program.said(), "it is down")
    for _ in range(2):
        program.upgrade()
    [told] = admin.members_called(program.socket, "server2")
    assert (told["verdict"], told["takeover"]["origin"]) == ("check failed", "checks")
    server2.start()
    until(lambda: "server2 passes; held off for 3600 s more" in program.said(), "it passes")
    program.upgrade()
    [told] = admin.members_called(program.socket, "server2")
    assert told["verdict"] == "held off"
    for words in ("is down", "takes over its sessions", "held off for"):
        assert program.said().count(words) == 1


def test_that_can_not_even_be_started(install: Programs, members: Members) -> None:
    """An interpreter that is gone is told, and afterwards members obey as before."""
    settings = install.plain(*map(settings_of, (members("server1"), members("server2"))))
    program = install.make(settings, "sys.executable = '/gone/python'").start()
    with pytest.raises(AdminError, match="the new program can't be started: "):
        program.upgrade()
    [told] = admin.say_of_member(program.socket, "server2", "failover", {"heir": "server1"})
    assert told["balancer"] == "cluster"


def test_stop_meanwhile(install: Programs, members: Members) -> None:
    """Who is told to stop has nobody follow, although an upgrade is under way."""
    program = install.make(install.plain(settings_of(members("server1")))).start()
    waiting(program)
    os.kill(program.pid, signal.SIGTERM)
    assert program.ended() == 0
    assert "no upgrade: the new program was dropped: balanceme stops" in program.said()
