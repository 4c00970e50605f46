"""The command line: what it prints, how it ends, and what the access log tells of the traffic."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from proxy import __version__
from proxy.control.commands import CommandError
from proxy.core.errors import ConfigError, Mistake
from tests.admin.fake_commands import STATUS, FakeCommands, Supervisor
from tests.end_to_end.conftest import (
    HOST,
    PATIENCE,
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
from tests.end_to_end.recording_member import Do, RecordingMember, answer

pytestmark = pytest.mark.slow


def balanceme(*words: str | Path, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    command = [sys.executable, "-m", "proxy", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    ended = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=20, check=False
    )
    assert "Traceback" not in ended.stderr
    return ended


# --- commands ------------------------------------------------------------------------------------


OF_A_MEMBER = ("drain", "disable", "enable")
ASKING = ("reload", "upgrade", "stop", "status", "sessions", *OF_A_MEMBER)
COMMANDS = ("run", "check", "schema", "demo", *ASKING, "session", "version")


def test_help() -> None:
    """Help tells every command in a line, and ends well."""
    ended = balanceme("--help")
    assert ended.returncode == 0
    assert ended.stderr == ""
    for command in COMMANDS:
        assert re.search(rf"^ +{command} +[A-Z].*\.$", ended.stdout, re.MULTILINE)
    for status in ("0  done", "1  failed", "2  mistakes in", "3  no balanceme answers"):
        assert f"\n  {status}" in ended.stdout
    assert "$BALANCEME_SOCKET" in ended.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command: str) -> None:
    """Its first sentence stands alone, and each option says what it is for."""
    ended = balanceme(command, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    usage, text, *_ = ended.stdout.split("\n\n")
    assert usage.startswith(f"usage: balanceme {command} [-h]")
    assert re.match(r"[A-Z][^.]{10,}\.( |\n|$)", text)
    for option in re.findall(r"--[a-z-]+", usage):
        assert re.search(rf"^  (-h, )?{option}( [A-Z_]+)?\s+[a-z(]", ended.stdout, re.MULTILINE)
    assert ("--socket" in usage) == (command in ("run", "demo", *ASKING))
    assert ("--json" in usage) == (command in ("check", "reload", "status", "sessions"))
    assert ("FILE" in usage) == (command in ("run", "check"))


def test_version() -> None:
    """The version is one line."""
    ended = balanceme("version")
    assert (ended.returncode, ended.stdout) == (0, f"balanceme {__version__}\n")
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", __version__)


def test_schema() -> None:
    """The schema is JSON that editors can use: it knows every top key, and refuses others."""
    ended = balanceme("schema")
    assert (ended.returncode, ended.stderr) == (0, "")
    schema = json.loads(ended.stdout)
    assert {"frontends", "balancers", "access_log", "graceful_timeout"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("serve",),
        ("run",),
        ("check", "a", "b"),
        ("reload", "a"),
        ("stop", "--socket"),
        ("status", "--now"),
    ],
)
def test_wrong_words(words: tuple[str, ...]) -> None:
    """A command line that can't be understood ends with status 2 and the usage."""
    ended = balanceme(*words)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("usage: balanceme")


# --- configurations ------------------------------------------------------------------------------

MISTAKEN = """\
frontend:
  - listen: 127.0.0.1:8443
frontends:
  - listen: 127.0.0.1:84430
    tls: {certificate: missing.pem}
    timeouts: {head: 20}
    mappings:
      - {path: /, balancer: clutser}
balancers:
  cluster:
    lbmethod: random
    members:
      - {url: "https://server1", route: server1}
      - {url: "http://server2", route: server2, load_factor: 0}
    failover: {server3: server1}
"""


@pytest.mark.parametrize("command", ["check", "run"])
def test_all_mistakes_at_once(command: str, tmp_path: Path) -> None:
    """Every mistake is told in one go, with file, line and column, and nothing is started."""
    config = tmp_path / "balanceme.yaml"
    config.write_text(MISTAKEN)
    ended = balanceme(command, config)
    assert (ended.returncode, ended.stdout) == (2, "")
    lines = ended.stderr.splitlines()
    places = [re.fullmatch(r".*/balanceme\.yaml:(\d+):\d+: ([^:]+): .+", line) for line in lines]
    found = [(int(place[1]), place[2]) for place in places if place]
    assert found == [
        (1, "frontend"),
        (4, "frontends[0].listen"),
        (5, "frontends[0].tls.certificate"),
        (6, "frontends[0].timeouts.head"),
        (8, "frontends[0].mappings[0].balancer"),
        (11, "balancers.cluster.lbmethod"),
        (13, "balancers.cluster.members[0].url"),
        (14, "balancers.cluster.members[1].load_factor"),
        (15, "balancers.cluster.failover.server3"),
    ]
    assert len(lines) == len(found)


def test_check_says_yes(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """A configuration without mistakes is told so; file names in it count from its folder."""
    config = tmp_path / "balanceme.yaml"
    (tmp_path / "mail.pem").write_text("whether it is a certificate shows when it is used\n")
    settings = plain(free_port(), 1)
    settings["frontends"][0]["tls"] = {"certificate": "mail.pem"}
    config.write_text(yaml.safe_dump(settings))
    ended = balanceme("check", config)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"{config}: no mistakes\n"
    (tmp_path / "mail.pem").unlink()
    assert balanceme("check", config).returncode == 2


@pytest.mark.parametrize(
    ("command", "content", "words"),
    [
        ("check", None, "no such file"),
        ("run", None, "no such file"),
        ("check", b"", "empty"),
        ("check", b"frontends: [", ""),
        ("run", b"\xff\xfe\0", ""),
    ],
    ids=["missing", "missing-run", "empty", "unclosed", "binary"],
)
def test_files_that_are_none(
    command: str, content: bytes | None, words: str, tmp_path: Path
) -> None:
    """What can't be read as a configuration ends with status 2, naming the file."""
    config = tmp_path / "balanceme.yaml"
    if content is not None:
        config.write_bytes(content)
    ended = balanceme(command, config)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(str(config))
    assert words in ended.stderr.lower()


def test_check_for_programs(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """As JSON every mistake has its place in parts; the exit status is the same."""
    config = tmp_path / "balanceme.yaml"
    config.write_text(MISTAKEN)
    ended = balanceme("check", "--json", config)
    assert (ended.returncode, ended.stderr) == (2, "")
    found = json.loads(ended.stdout)
    assert found["file"] == str(config)
    lines = balanceme("check", config).stderr.splitlines()
    assert lines == [
        f"{config}:{at['line']}:{at['column']}: {at['key']}: {at['message']}"
        for at in found["mistakes"]
    ]
    config.write_text(yaml.safe_dump(plain(free_port(), 1)))
    ended = balanceme("check", "--json", config)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout) == {"file": str(config), "mistakes": []}
    config.unlink()
    ended = balanceme("check", "--json", config)
    assert (ended.returncode, ended.stderr) == (2, "")
    message = "no such file; check the name and the folder"
    assert json.loads(ended.stdout)["mistakes"] == [
        {"line": None, "column": None, "key": "", "message": message}
    ]


# --- starting ------------------------------------------------------------------------------------


def plain(port: int, member_port: int) -> Yaml:
    """The settings of a frontend without TLS."""
    member = {"url": f"http://{HOST}:{member_port}", "route": "server1"}
    return {
        "frontends": [
            {"listen": f"{HOST}:{port}", "mappings": [{"path": "/", "balancer": "cluster"}]}
        ],
        "balancers": {"cluster": {"members": [member]}},
    }


def test_port_in_use(tmp_path: Path) -> None:
    """An address that somebody has is named, with the place in the configuration."""
    config = tmp_path / "balanceme.yaml"
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(yaml.safe_dump(plain(port, 1)))
        ended = balanceme("run", config)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
    assert f"frontends[0].listen: can't listen on {HOST}:{port}: " in ended.stderr
    assert "in use" in ended.stderr


def test_second_proxy_on_one_port(serve: Launcher, members: Members, tmp_path: Path) -> None:
    """A second proxy for the same address gives up, and the first one serves on."""
    member = members("server1")
    first = serve(member, frontend={"tls": None})
    config = tmp_path / "balanceme.yaml"
    config.write_text(yaml.safe_dump(first.settings))
    ended = balanceme("run", config)
    assert ended.returncode == 2
    assert f"can't listen on {HOST}:{first.address()[1]}" in ended.stderr
    assert first.alive


def test_foreign_address(tmp_path: Path) -> None:
    """An address that isn't this machine's is told as that."""
    config = tmp_path / "balanceme.yaml"
    settings = plain(8443, 1)
    settings["frontends"][0]["listen"] = "192.0.2.1:8443"
    config.write_text(yaml.safe_dump(settings))
    ended = balanceme("run", config)
    assert ended.returncode == 2
    assert "can't listen on 192.0.2.1:8443: " in ended.stderr


@pytest.mark.parametrize("name", ["missing/access.log", "."], ids=["no-folder", "a-folder"])
def test_access_log_that_cant_be_written(
    name: str, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """An access log that can't be opened ends the start, before anything listens."""
    config = tmp_path / "balanceme.yaml"
    config.write_text(yaml.safe_dump({**plain(free_port(), 1), "access_log": {"path": name}}))
    ended = balanceme("run", config)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
    assert f"access_log.path: {tmp_path / name} can't be written: " in ended.stderr


def test_signals_wait_for_the_start(tmp_path: Path) -> None:
    """A signal that comes before anything can handle it is kept, and ends nothing."""
    config = tmp_path / "balanceme.yaml"
    os.mkfifo(config)
    command = [sys.executable, "-m", "proxy", "run", str(config)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    numbers = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)

    def blocked() -> set[int]:
        status = Path(f"/proc/{process.pid}/status").read_text()
        mask = int(status.partition("SigBlk:")[2].split()[0], 16)
        return {number for number in range(1, 65) if mask & 1 << number - 1}

    try:
        until(lambda: blocked() >= set(numbers), "the start blocks the signals")
        for number in numbers:
            process.send_signal(number)
        # It waits for the file's writer until now.
        config.write_text("nonsense: 1")
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 2
    assert f"{config}:1:1: nonsense: " in errors


# --- asking a running one ------------------------------------------------------------------------


@pytest.fixture
def commands() -> FakeCommands:
    """What a supervisor was asked, and what it answers."""
    return FakeCommands()


@pytest.fixture
def path(tmp_path: Path, commands: FakeCommands) -> Iterator[Path]:
    """The control socket of a supervisor that answers."""
    path = tmp_path / "control.sock"
    with Supervisor(path, commands) as supervisor:
        stop = commands.stop

        def stop_and_end(*, at_once: bool) -> None:
            stop(at_once=at_once)
            supervisor.end()

        commands.stop = stop_and_end  # type: ignore[method-assign]
        yield path


CHANGES = ["balancers.cluster: member server3 is new", "access_log.path: b.log, was a.log"]


@pytest.mark.parametrize(
    ("words", "asked", "printed"),
    [
        (["reload"], ("reload", False), "\n".join(CHANGES) + "\n"),
        (["reload", "--dry-run"], ("reload", True), "\n".join(CHANGES) + "\n"),
        (["upgrade"], ("upgrade",), "upgraded: process 4812 serves from now on\n"),
        (["stop"], ("stop", False), "stopped\n"),
        (["stop", "--now"], ("stop", True), "stopped\n"),
    ],
)
def test_commands(
    words: list[str], asked: tuple[object, ...], printed: str, path: Path, commands: FakeCommands
) -> None:
    """A command reaches the supervisor, and what came of it is printed."""
    ended = balanceme(*words, "--socket", path)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", printed)
    assert commands.asked == [asked]


def test_status(path: Path) -> None:
    """The status is a table for people, and all of it as JSON."""
    ended = balanceme("status", "--socket", path)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert re.fullmatch(
        r"balanceme 1\.2\.3, process 4711, generation 3, serving, up [0-9dhms. ]+", lines[0]
    )
    assert any(re.match(r"server1 +http://10\.0\.0\.1:8080 +ok +3 +2 +120 +40 ", x) for x in lines)
    ended = balanceme("status", "--json", "--socket", path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout) == STATUS


def test_default_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: FakeCommands
) -> None:
    """Without --socket the environment says where a running one is found."""
    path = tmp_path / "other.sock"
    monkeypatch.setenv("BALANCEME_SOCKET", str(path))
    assert balanceme("status").returncode == 3
    with Supervisor(path, commands):
        ended = balanceme("status", "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout) == STATUS


def test_reload_for_programs(path: Path, commands: FakeCommands) -> None:
    """As JSON changes and mistakes are lists of lines."""
    ended = balanceme("reload", "--json", "--socket", path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout) == {"changes": CHANGES}
    commands.failure = ConfigError([Mistake(("workers",), "found 0")])
    ended = balanceme("reload", "--json", "--socket", path)
    assert ended.returncode == 2
    assert json.loads(ended.stdout) == {"mistakes": [f"{STATUS['config_file']}: workers: found 0"]}


def test_reload_with_mistakes(path: Path, commands: FakeCommands) -> None:
    """Every mistake is told as ``check`` tells it."""
    commands.failure = ConfigError([Mistake(("workers",), "found 0"), Mistake((), "no room")])
    ended = balanceme("reload", "--socket", path)
    assert (ended.returncode, ended.stdout) == (2, "")
    file = STATUS["config_file"]
    assert ended.stderr == f"{file}: workers: found 0\n{file}: no room\n"


def test_nothing_to_reload(path: Path, commands: FakeCommands) -> None:
    """A file that is as it was says so."""
    commands.changes = []
    ended = balanceme("reload", "--socket", path)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "no changes\n")


def test_refused_command(path: Path, commands: FakeCommands) -> None:
    """A command that can't be carried out fails with the supervisor's reason alone."""
    commands.failure = CommandError("the new program ended at its start")
    ended = balanceme("upgrade", "--socket", path)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "the new program ended at its start\n"


@pytest.mark.parametrize("command", ASKING)
def test_nobody_answers(command: str, tmp_path: Path) -> None:
    """Without a running balanceme a command ends with status 3, and says where it looked."""
    path = tmp_path / "control.sock"
    member = ["server1"] if command in OF_A_MEMBER else []
    ended = balanceme(command, *member, "--socket", path)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr == (
        f"no balanceme answers on {path}; is it running? with another --socket?\n"
    )


# --- stopping ------------------------------------------------------------------------------------


def refuses(proxy: Proxy) -> bool:
    """Whether nobody listens there any more."""
    with socket.socket() as probe:
        return probe.connect_ex(proxy.address()) != 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_graceful_stop(number: int, serve: Launcher, members: Members, dial: Dial) -> None:
    """On a signal requests that have begun end well, idle and new connections don't begin (D41)."""
    member = members("server1")
    proxy = serve(member, stop_timeout="10s")
    member.scripts[b"/slow"] = Waiting(lambda: refuses(proxy))
    busy, idle, early = dial(proxy), dial(proxy), dial(proxy)
    idle.send(request("/"))
    assert idle.read_response(b"GET").body == b"server1"
    early.send(request("/early")[:9])
    busy.send(request("/slow") + request("/next"))
    until(lambda: len(seen_by(member)) == 2, "the slow request arrives")
    proxy.signal(number)
    finished = busy.read_response(b"GET")
    early.send(request("/early")[9:])
    late = early.read_response(b"GET")
    assert [finished.body, late.body] == [b"finished", b"server1"]
    assert [each.value(b"connection") for each in (finished, late)] == [b"close"] * 2
    for client in (idle, early, busy):
        assert client.wait_closed(PATIENCE)
    for client in (idle, early, busy):
        client.close()
    assert proxy.wait() == 0
    assert [seen.target for seen in seen_by(member)] == [b"/", b"/slow", b"/early"]
    assert '"GET /slow HTTP/1.1" 200 ' in proxy.stdout()
    assert "stopping" in proxy.stderr()


class Waiting(list[bytes | float | Do]):
    """A script that answers once something is true."""

    def __init__(self, true: Callable[[], bool]) -> None:
        super().__init__([Do.READ_BODY])
        self._true = true

    def __iter__(self):  # type: ignore[no-untyped-def]
        yield Do.READ_BODY
        deadline = time.monotonic() + PATIENCE
        while not self._true() and time.monotonic() < deadline:
            time.sleep(0.01)
        yield answer(b"finished")


def waiting_clients(
    serve: Launcher, members: Members, dial: Dial, timeout: str
) -> tuple[Proxy, RecordingMember]:
    """A proxy with exchanges under way that won't end by themselves."""
    member = members("server1", {b"/wait": [Do.READ_BODY, Do.WAIT_CLOSE]})
    proxy = serve(member, stop_timeout=timeout)
    for _ in range(3):
        dial(proxy).send(request("/wait"))
    until(lambda: len(seen_by(member)) == 3, "the requests arrive")
    return proxy, member


def test_stop_timeout(serve: Launcher, members: Members, dial: Dial) -> None:
    """What has not ended in the graceful timeout is cut, and the end is a good one."""
    proxy, member = waiting_clients(serve, members, dial, "200ms")
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == 0
    until(lambda: all(seen.aborted for seen in seen_by(member)), "the member is left")
    assert proxy.stdout().count("GET /wait HTTP/1.1") == 3


def test_second_signal(serve: Launcher, members: Members, dial: Dial) -> None:
    """A second signal ends it at once, with status 1."""
    proxy, _ = waiting_clients(serve, members, dial, "60s")
    proxy.signal(signal.SIGTERM)
    until(lambda: "stopping" in proxy.stderr(), "the first signal is understood")
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == 1
    assert "stopped at once" in proxy.stderr()


# --- the access log ------------------------------------------------------------------------------

SECRETS = ("s3cretid", "c2VjcmV0OnBhc3M=", "hunter2", "t0psecret", "apps3ssion")


def visit(proxy: Proxy, dial: Dial) -> None:
    """Requests with every fate of a session, full of secrets."""
    address = "/webapp/?load=a&sessionid=s3cretid&password=hunter2&b=c"
    fields = (
        "Authorization: Basic c2VjcmV0OnBhc3M=",
        f"Referer: https://mail.example.org{address}&token=t0psecret",
    )
    browser = b'User-Agent: Mozilla/5.0 "quoted" \\ \xe4'
    for route in ("", "server1", "server2", "server9"):
        cookie = f"; BALANCEME=balancer.{route}" if route else ""
        client = dial(proxy)
        client.send(request(address, *fields, f"Cookie: ZARAFA=apps3ssion{cookie}", browser))
        assert client.read_response(b"GET").status_line == b"HTTP/1.1 200 OK"
    for refused in (
        b"GET /?sessionid=s3cretid HTTP/1.1\r\nAuthorization: Basic c2VjcmV0OnBhc3M=\r\n\r\n",
        b"GET /?token=t0psecret HTTP/1.1\nCookie: ZARAFA=apps3ssion\nPassword: hunter2\n\n",
        b"\r\nGET / HTTP/1.1\rCookie: ZARAFA=apps3ssion\rX: hunter2\r\n\r\n",
        b"\0\xff\r\n\r\n",
    ):
        client = dial(proxy)
        client.send(refused)
        assert client.read_response(b"GET").status_line == b"HTTP/1.1 400 Bad Request"


FATES = [
    ("new", "-", "server1", 1),
    ("kept", "server1", "server1", 1),
    ("moved", "server2", "server1", 2),
    ("unknown", "server9", "server1", 1),
]


def logged(
    serve: Launcher, members: Members, dial: Dial, log: Yaml, lines: Callable[[Proxy], list[str]]
) -> list[str]:
    """The access lines of a visit."""
    gone = settings_of(members.stopped("server2")) | {"hot_standby": True}
    proxy = serve(members("server1"), gone, access_log=log)
    visit(proxy, dial)
    until(lambda: len(lines(proxy)) >= 8, "eight access lines")
    found = lines(proxy)
    assert len(found) == 8
    text = "\n".join(found)
    for secret in SECRETS:
        assert secret not in text
        assert secret not in proxy.stderr()
    assert text.isascii()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    return found


def test_combined_log(serve: Launcher, members: Members, dial: Dial, tmp_path: Path) -> None:
    """A combined line tells the session's fate behind Apache's fields, and no secret (H85, H86)."""
    path = tmp_path / "access.log"
    lines = logged(
        serve,
        members,
        dial,
        {"path": str(path)},
        lambda _: path.read_text().splitlines() if path.exists() else [],
    )
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0
    pattern = re.compile(
        r"127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"
        r' "(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}) (?:\d+|-)'
        r' "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<browser>(?:[^"\\]|\\.)*)"'
        r" session=(?P<session>\S+) route=(?P<route>\S+) member=(?P<member>\S+)"
        r" attempts=(?P<attempts>\d+) connect=[\d.]+ first_byte=[\d.]+ total=[\d.]+"
    )
    found = [pattern.fullmatch(line) for line in lines]
    entries = [entry for entry in found if entry]
    assert len(entries) == 8, lines
    fates = [
        (entry["session"], entry["route"], entry["member"], int(entry["attempts"]))
        for entry in entries
    ]
    assert fates == [*FATES, *[("-", "-", "-", 0)] * 4]
    assert [entry["status"] for entry in entries] == ["200"] * 4 + ["400"] * 4
    assert entries[0]["request"].startswith("GET /webapp/?load=a&sessionid=")
    assert entries[0]["request"].endswith("&b=c HTTP/1.1")
    assert entries[0]["browser"] == r"Mozilla/5.0 \x22quoted\x22 \x5c \xe4"


def test_json_log(serve: Launcher, members: Members, dial: Dial) -> None:
    """The same as JSON, an object a line (H85, H86)."""
    lines = logged(
        serve,
        members,
        dial,
        {"path": "-", "format": "json"},
        lambda proxy: proxy.stdout().splitlines(),
    )
    entries = [json.loads(line) for line in lines]
    fates = [
        tuple(entry[key] for key in ("session", "route", "member", "attempts"))
        for entry in entries[:4]
    ]
    assert fates == FATES
    assert [entry["status"] for entry in entries] == [200] * 4 + [400] * 4
    assert entries[0]["user_agent"] == 'Mozilla/5.0 "quoted" \\ \xe4'
    assert entries[0]["request"].startswith("GET /webapp/?load=a&sessionid=")
    for entry in entries:
        assert entry["client"] == "127.0.0.1"
        assert abs(entry["time"] - time.time()) < 60


def test_no_log(serve: Launcher, members: Members, dial: Dial) -> None:
    """access_log: null keeps none."""
    proxy = serve(members("server1"), access_log=None, stop_timeout="100ms")
    visit(proxy, dial)
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == 0
    assert proxy.stdout() == ""
