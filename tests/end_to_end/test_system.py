"""Life on a system: systemd, accounts, logs, files, limits, and other programs like us.

What needs root is skipped without it.
"""

import asyncio
import grp
import json
import os
import pwd
import resource
import signal
import socket
import ssl
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy.admin.client import AdminError, MistakesError, reload
from proxy.core.raw import shown
from tests.end_to_end.conftest import (
    HOST,
    PATIENCE,
    ROOT,
    Authority,
    Dial,
    Members,
    request,
    settings_of,
    until,
)
from tests.end_to_end.load import Load, member
from tests.end_to_end.program import Program, Programs
from tests.end_to_end.raw_client import RawClient

pytestmark = pytest.mark.slow

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def is_served(client: RawClient, target: str = "/") -> bool:
    """Whether it gets its answer."""
    client.send(request(target))
    return client.read_response(b"GET").body == b"server1"


def serves(program: Program, dial: Dial) -> bool:
    """Whether one who comes is served."""
    client = dial(program)
    served = is_served(client)
    client.close()
    return served


# --- systemd -------------------------------------------------------------------------------------

_CREDENTIALS = struct.Struct("3i")


class Manager:
    """Hears what systemd would, and from whom."""

    def __init__(self, path: Path) -> None:
        self.environ = {"NOTIFY_SOCKET": str(path)}
        self.heard: list[tuple[int, dict[str, str]]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(str(path))
        # The kernel may keep no more than ten messages that wait.
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        size = socket.CMSG_SPACE(_CREDENTIALS.size)
        while True:
            data, ((_, _, who),), _, _ = self._socket.recvmsg(4096, size)
            if not data:
                return
            words = dict(line.split("=", 1) for line in data.decode().split("\n"))
            self.heard.append((_CREDENTIALS.unpack(who)[0], words))

    def wait(self, key: str, count: int = 1) -> tuple[int, dict[str, str]]:
        """The ``count``-th message with that key, and the process that sent it."""
        until(lambda: len(self._with(key)) >= count, f"systemd hears {key}", 20)
        return self._with(key)[count - 1]

    def _with(self, key: str) -> list[tuple[int, dict[str, str]]]:
        return [(pid, words) for pid, words in list(self.heard) if key in words]

    def last(self, key: str) -> int:
        """Who sent the last message with that key."""
        return self._with(key)[-1][0]

    @property
    def order(self) -> list[tuple[int, str]]:
        """Who said what, by the first word of each message; but for what comes again and again."""
        told = [(pid, next(iter(words))) for pid, words in list(self.heard)]
        return [(pid, word) for pid, word in told if word not in ("WATCHDOG", "STATUS")]

    def close(self) -> None:
        """Hear no more."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join(PATIENCE)
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """The service manager of a program that is started with its ``environ``."""
    made = Manager(tmp_path / "notify")
    yield made
    made.close()


def test_systemd_hears_how_it_is(install: Programs, members: Members, manager: Manager) -> None:
    """Ready once all workers serve, around each reload, alive in between; then the successor."""
    settings = install.plain(settings_of(members("server1")), workers=2)
    first = "from proxy.control import supervisor\nsupervisor.STATUS_INTERVAL = 0.05"
    program = install.make(settings, first)
    program.start({**manager.environ, "WATCHDOG_USEC": "200000"})
    old, ready = manager.wait("READY")
    assert old == program.pid
    assert ready["STATUS"].startswith("serving on 127.0.0.1:")
    assert "with 2 workers, with room for " in ready["STATUS"]
    assert all(worker["phase"] == "serving" for worker in program.status()["workers"])
    assert manager.wait("WATCHDOG", 3)[0] == old
    until(
        lambda: any(
            words.get("STATUS") == "serving: 0 connections, 0 requests, 2 workers"
            for _, words in list(manager.heard)
        ),
        "systemd hears numbers",
    )
    program.configure(server="other")
    reload(program.socket, dry_run=False)
    program.configure(server="")
    with pytest.raises(MistakesError):
        reload(program.socket, dry_run=False)
    manager.wait("READY", 3)
    program.configure(server="other")
    new = program.upgrade()
    pid, ready = manager.wait("READY", 4)
    assert pid == new
    assert manager.wait("MAINPID")[1]["MAINPID"] == str(new)
    assert program.ended_first() == 0
    until(lambda: manager.last("WATCHDOG") == new, "the new one beats")
    os.kill(new, signal.SIGTERM)
    assert manager.wait("STOPPING")[0] == new
    assert program.ended() == 0
    assert manager.order == [
        *[(old, "READY"), (old, "RELOADING"), (old, "READY"), (old, "RELOADING"), (old, "READY")],
        *[(old, "MAINPID"), (new, "READY")],
        *[(new, "STOPPING")] * (len(manager.order) - 7),
    ]


LAUNCHER = """\
import os, socket, sys
first, *command = sys.argv[1:]
for number, port in enumerate(map(int, first.split(","))):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen()
    if sock.fileno() != 3 + number:
        os.dup2(sock.fileno(), 3 + number)
        sock.close()
    else:
        sock.detach()
    os.set_inheritable(3 + number, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(first.count(",") + 1)}
os.execv(command[0], command)
"""


def refuses(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


def test_socket_activation(
    install: Programs, members: Members, dial: Dial, free_port: Callable[[], int]
) -> None:
    """Ports that systemd has opened are used, also by the next program; others are closed."""
    unused = free_port()
    program = install.make(install.plain(settings_of(members("server1"))))
    ports = f"{program.address()[1]},{unused}"
    program.launch(words=[sys.executable, "-c", LAUNCHER, ports])
    program.wait_said("serving on")
    assert f"no frontend listens on {HOST}:{unused}, so the socket for it is closed" in (
        program.said()
    )
    assert refuses(unused)
    assert serves(program, dial)
    program.upgrade()
    assert serves(program, dial)
    program.ended_first()
    assert serves(program, dial)
    assert program.said().count("no frontend listens on") == 1


# --- two of them ---------------------------------------------------------------------------------


def test_second_one(
    install: Programs, members: Members, dial: Dial, free_port: Callable[[], int]
) -> None:
    """A second one with the port, the pid file or the control socket of the first gives up."""
    settings = install.plain(settings_of(members("server1")), pid_file="balanceme.pid")
    first = install.make(settings).start()
    second = first.folder / "second"
    second.mkdir()
    other = {"listen": f"{HOST}:{free_port()}", "mappings": settings["frontends"][0]["mappings"]}
    for frontend, pid_file, path, words in (
        (settings["frontends"][0], "own.pid", "own.sock", f"can't listen on {HOST}:"),
        (other, "../balanceme.pid", "own.sock", f"that runs as process {first.pid}; end it first"),
        (other, "own.pid", first.socket, f"another balanceme, process {first.pid}, answers on"),
    ):
        config = second / "balanceme.yaml"
        config.write_text(json.dumps({**settings, "frontends": [frontend], "pid_file": pid_file}))
        command = [
            sys.executable,
            "-m",
            "proxy",
            "run",
            str(config),
            "--socket",
            str(second / path),
        ]
        ended = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
        )
        assert (ended.returncode, ended.stdout) == (2, "")
        assert words in ended.stderr
        assert ended.stderr.count("\n") == 1
        assert [path.name for path in second.iterdir()] == ["balanceme.yaml"]
        assert first.current == int((first.folder / "balanceme.pid").read_text()) == first.pid
        assert serves(first, dial)


# --- accounts ------------------------------------------------------------------------------------


def facts(pid: int) -> dict[str, str]:
    """What the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@root
def test_workers_give_up_root(
    install: Programs, members: Members, authority: Authority, trust: ssl.SSLContext
) -> None:
    """Workers are another user for good; what only root may do is done by the supervisor."""
    account = pwd.getpwnam("nobody")
    group = grp.getgrgid(account.pw_gid).gr_name
    frontend = {
        "listen": "127.0.0.77:443",
        "server_name": "mail.example.org",
        "tls": {"certificate": str(authority.issue("root", "mail.example.org"))},
        "mappings": [{"path": "/", "balancer": "cluster"}],
    }
    settings = install.plain(settings_of(members("server1")), user="nobody", group=group)
    settings |= {"workers": 2, "log": {"path": "log"}, "access_log": {"path": "access.log"}}
    program = install.make({**settings, "frontends": [frontend]})
    program.folder.chmod(0o700)
    program.start()
    access_log = program.folder / "access.log"

    def all_is_well(lines: int) -> None:
        supervisor = program.current
        assert facts(supervisor)["Uid"].split() == ["0"] * 4
        workers = program.workers_of(supervisor)
        assert len(workers) == 2
        for worker in workers:
            found = facts(worker)
            assert found["Uid"].split() == [str(account.pw_uid)] * 4
            assert found["Gid"].split() == [str(account.pw_gid)] * 4
            assert set(found["Groups"].split()) <= {str(account.pw_gid)}
            for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
                assert int(found[kind], 16) == 0
        client = RawClient(
            program.address(), tls=trust, server_name="mail.example.org", patience=PATIENCE
        )
        assert is_served(client)
        client.close()
        until(lambda: access_log.read_text().count("\n") == lines, "the line is in the log")

    all_is_well(1)
    program.configure(server="other")
    reload(program.socket, dry_run=False)
    all_is_well(2)
    access_log.rename(program.folder / "access.log.1")
    os.kill(program.pid, signal.SIGUSR1)
    until(access_log.exists, "the log is opened anew")
    all_is_well(1)
    assert stat.S_IMODE(access_log.stat().st_mode) == 0o640
    assert access_log.stat().st_uid == 0
    program.upgrade()
    all_is_well(2)


# --- logs ----------------------------------------------------------------------------------------


async def rotated_under_load(program: Program, port: int, trust: ssl.SSLContext) -> int:
    """Rename the logs again and again; how many requests were answered."""
    async with member(port), Load(program, trust) as load:
        for number in range(1, 4):
            for name in ("access.log", "log"):
                (program.folder / name).rename(program.folder / f"{name}.{number}")
            os.kill(program.pid, signal.SIGUSR1)
            for name in ("access.log", "log"):
                path = program.folder / name
                await asyncio.to_thread(until, path.exists, "it is opened anew")
            await load.goes_on(100)
    assert not load.failures
    return load.answered


def test_logs_are_rotated(
    install: Programs, free_port: Callable[[], int], trust: ssl.SSLContext
) -> None:
    """After a rename and SIGUSR1 all write to the new files, and no line is lost."""
    port = free_port()
    logs = {"log": {"path": "log"}, "access_log": {"path": "access.log"}}
    program = install({"url": f"http://{HOST}:{port}", "route": "a"}, workers=2, **logs)
    assert isinstance(program, Program)
    count = asyncio.run(rotated_under_load(program, port, trust))
    os.kill(program.pid, signal.SIGTERM)
    assert program.ended() == 0
    files = [program.folder / f"access.log{end}" for end in (".1", ".2", ".3", "")]
    lines = [path.read_text().splitlines() for path in files]
    assert all(lines)
    assert sum(len(each) for each in lines) == count
    assert all(line.endswith(line[-1]) and " 200 3 " in line for each in lines for line in each)
    assert "logs are opened anew" in (program.folder / "log.3").read_text()
    assert "stopped" in (program.folder / "log").read_text()
    assert "stopped" not in (program.folder / "log.3").read_text()


def test_syslog(install: Programs, members: Members, dial: Dial) -> None:
    """Both logs may go to the syslog daemon, each line a datagram, with its severity."""
    program = install.make(
        install.plain(
            settings_of(members("server1")), log={"path": "syslog"}, access_log={"path": "syslog"}
        )
    )
    path = program.folder / "dev-log"
    program.install(f"from proxy.control import log_files\nlog_files.SYSLOG = {str(path)!r}")
    heard = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(path))
        daemon.settimeout(PATIENCE)
        program.launch()
        while b"serving on" not in heard:
            heard = daemon.recv(4096)
        assert heard.startswith(b"<30>")
        assert f"balanceme[{program.pid}]: INFO serving on {HOST}:".encode() in heard
        worker = program.worker
        assert is_served(dial(program), "/page")
        while b"GET /page HTTP/1.1" not in heard:
            heard = daemon.recv(4096)
        assert heard.startswith(b"<30>")
        assert f" balanceme[{worker}]: 127.0.0.1 - - [".encode() in heard
        os.kill(program.pid, signal.SIGTERM)
        while b"INFO stopped" not in heard:
            heard = daemon.recv(4096)
    assert program.ended() == 0


LONG = "/" + "x" * 4000


def ask_for_nothing(client: RawClient, count: int) -> None:
    """So many requests that are answered by ourselves, each with a long line in the log."""
    for _ in range(count // 50):
        client.send_all(request(LONG) * 50)
        for _ in range(50):
            assert client.read_response(b"GET").status_line.startswith(b"HTTP/1.1 404 ")


def test_reader_of_stdout_stops(install: Programs, members: Members, dial: Dial) -> None:
    """Who stops to read the access log costs lines and no traffic, and is told of once."""
    settings = install.plain(settings_of(members("server1")))
    settings["frontends"][0]["mappings"][0]["path"] = "/served"
    program = install.make(settings)
    reader, writer = os.pipe()
    try:
        program.start(stdout=writer)
        client = dial(program)
        ask_for_nothing(client, 1000)
        program.wait_said("access log: its reader is too slow; lines are lost")
        assert is_served(client, "/served")
    finally:
        os.close(reader)
        os.close(writer)
    assert is_served(client, "/served")
    assert program.said().count("access log: ") == 1


def test_full_disk(install: Programs, members: Members, dial: Dial) -> None:
    """An access log on a full disk costs lines and no traffic, and is told of once."""
    settings = install.plain(settings_of(members("server1")), access_log={"path": "/dev/full"})
    program = install.make(settings).start()
    client = dial(program)
    for _ in range(3):
        requests = program.status()["requests"]
        assert is_served(client)
        until(lambda past=requests: program.status()["requests"] > past, "a tick passes")  # type: ignore[misc]
    program.wait_said("access log: No space left on device; lines are lost")
    assert program.said().count("access log: ") == 1
    assert is_served(client)


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams(closed: str, install: Programs, members: Members, dial: Dial) -> None:
    """Without standard streams all is served, and their numbers are nobody else's."""
    settings = install.plain(
        settings_of(members("server1")), log={"path": "log"}, access_log={"path": "access.log"}
    )
    program = install.make(settings)
    program.launch(words=["sh", "-c", f'exec "$@" {closed}', "sh"])
    program.wait_said("serving on")
    for pid in program.all:
        for number in (0, 1, 2):
            if str(number) in closed:
                assert Path(f"/proc/{pid}/fd/{number}").readlink() == Path(os.devnull)
    assert serves(program, dial)
    program.upgrade()
    assert serves(program, dial)


def test_log_to_a_closed_stream(install: Programs, members: Members) -> None:
    """Who wants to log on a stream that is closed is told so, where it still can be."""
    program = install.make(install.plain(settings_of(members("server1"))))
    program.launch(words=["sh", "-c", 'exec "$@" 2>&-', "sh"])
    assert program.ended() == 2
    assert program.stdout() == (
        f"{program.config}: log.path: standard error can't be written: Bad file descriptor;"
        " start with an open one, or name a file\n"
    )


# --- files and limits ----------------------------------------------------------------------------


def test_files(install: Programs, members: Members) -> None:
    """Pid file and state folder are made with their modes; what is stale or damaged gives way."""
    settings = install.plain(
        settings_of(members("server1")), pid_file="balanceme.pid", state_folder="state"
    )
    program = install.make(settings)
    pid_file, folder = program.folder / "balanceme.pid", program.folder / "state"
    pid_file.write_text("1\n")
    before = os.umask(0o022)
    try:
        program.start()
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    assert pid_file.read_text() == f"{program.pid}\n"
    assert stat.S_IMODE(pid_file.stat().st_mode) == 0o644
    os.kill(program.pid, signal.SIGTERM)
    assert program.ended() == 0
    assert not pid_file.exists()
    folder.rmdir()
    folder.mkdir(0o750)
    (folder / "members.json").write_text("{broken")
    program.start()
    assert (folder / "members.json.damaged").read_text() == "{broken"
    assert "it is set aside as" in program.said()


def test_limit_of_files(install: Programs, members: Members) -> None:
    """The limit of open files is raised as far as may be, and what it has room for is told."""
    program = install.make(
        install.plain(settings_of(members("server1")), workers=2),
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (200, 1000))",
    ).start()
    for pid in program.all:
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (1000, 1000)
    assert f"with 2 workers, with room for {2 * ((1000 - 64) // 2)} connections" in program.said()


def test_key_for_everybody(
    install: Programs, members: Members, dial: Dial, authority: Authority
) -> None:
    """A private key that everybody may read is refused by check, run and reload."""
    key = authority.issue("open", "mail.example.org")
    server = members("server1")
    program = install(server, frontend={"tls": {"certificate": str(key)}})
    assert isinstance(program, Program)
    key.chmod(0o644)
    words = "frontends[0].tls.certificate: "
    ended = program.balanceme("check", str(program.config))
    assert ended.returncode == 2
    assert words in ended.stderr
    assert shown(str(key)) in ended.stderr
    ended = program.balanceme("reload")
    assert ended.returncode == 2
    assert words in ended.stderr
    assert words in program.said()
    with pytest.raises(AdminError, match="the new program was dropped"):
        program.upgrade()
    other = install.make(program.settings)
    other.launch()
    assert other.ended() == 2
    assert words in other.said()
    client = dial(program)
    assert is_served(client)
