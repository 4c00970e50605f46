"""What config/ offers for a service: units and log rotation that fit the program's own defaults."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from proxy.control.config_file import load
from proxy.control.sockets import BACKLOG
from proxy.core.settings import Settings
from proxy.core.values import listen_host_port, parse_duration

CONFIG = Path(__file__).parent.parent.parent / "config"
UNITS = sorted((CONFIG / "systemd").iterdir())
# What systemd-analyze security gives at most, of 10: the network itself is 0.9 of it.
EXPOSURE = 1.5
# What one worker should have room for.
CLIENTS = 30_000

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is missing: apt-get install systemd",
)


def options(name: str) -> dict[str, list[str]]:
    """The options of a unit, each with all of its values."""
    found: dict[str, list[str]] = {}
    for line in (CONFIG / "systemd" / name).read_text(encoding="utf-8").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


SERVICE, SOCKET = options("balanceme.service"), options("balanceme.socket")


@pytest.fixture
def copies(tmp_path: Path) -> list[str]:
    """The units, with a program that is there in the place of ours."""
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace("/usr/bin/balanceme", "/bin/true")
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    return [str(tmp_path / unit.name) for unit in UNITS]


def analyze(*arguments: str) -> str:
    """What systemd-analyze says; the test fails where it finds something to refuse."""
    done = subprocess.run(
        ["systemd-analyze", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


# --- systemd's own word ------------------------------------------------------------------------


@needs_systemd
def test_units_are_understood(copies: list[str]) -> None:
    """Every option is one that systemd knows, with a value that it takes."""
    assert analyze("verify", *copies) == ""


@needs_systemd
def test_exposure(copies: list[str]) -> None:
    """The service is shut off from everything that it doesn't need."""
    said = analyze("security", "--offline=true", "--no-pager", copies[0])
    found = re.search(r"Overall exposure level for balanceme.service: ([0-9.]+)", said)
    assert found, said
    assert float(found[1]) <= EXPOSURE


@needs_systemd
@pytest.mark.parametrize("call", ["memfd_create", "prlimit64", "sched_getaffinity", "epoll_wait"])
def test_needed_calls_are_allowed(call: str) -> None:
    """What the proxy can't do without is in the groups of system calls that the unit allows."""
    allowed, refused = (calls(value.removeprefix("~")) for value in SERVICE["SystemCallFilter"])
    assert call in allowed - refused


def calls(groups: str) -> set[str]:
    """All system calls of some groups."""
    found: set[str] = set()
    for group in groups.split():
        names = [line.strip() for line in analyze("syscall-filter", group).splitlines()[1:]]
        inner = [name for name in names if name.startswith("@")]
        found |= {name for name in names if not name.startswith(("@", "#"))}
        found |= calls(" ".join(inner)) if inner else set()
    return found


# --- what fits together ------------------------------------------------------------------------


def default(key: str) -> float:
    """A setting's default."""
    found = Settings.model_fields[key].default
    assert isinstance(found, float)
    return found


def test_stop_is_waited_for() -> None:
    """The kill of systemd comes later than we give up on exchanges ourselves."""
    wait = parse_duration(SERVICE["TimeoutStopSec"][0])
    assert wait >= default("stop_timeout") + default("leave_before_stop") + 10


def test_stop_reaches_the_supervisor_alone() -> None:
    """Workers are stopped by their supervisor, and what is left is killed."""
    assert SERVICE["KillMode"] == ["mixed"]


def test_room_for_clients() -> None:
    """The limit of open files has room for many clients of a worker, each with a member's."""
    assert (int(SERVICE["LimitNOFILE"][0]) - 64) // 2 >= CLIENTS


def test_mistakes_are_not_tried_again() -> None:
    """The status of a mistake in the configuration ends the service, any other starts it again."""
    assert SERVICE["Restart"] == ["on-failure"]
    assert SERVICE["RestartPreventExitStatus"] == ["2"]


def test_upgrade_keeps_what_it_needs() -> None:
    """The supervisor may name its successor, which may bind ports as it could."""
    assert SERVICE["NotifyAccess"] == ["main"]
    assert SERVICE["AmbientCapabilities"] == SERVICE["CapabilityBoundingSet"]


def test_folders_are_those_of_the_documentation() -> None:
    """The files that config/balanceme.yaml shows are in folders that the service has."""
    shown = load(CONFIG / "balanceme.yaml", check_files=False)
    assert shown.pid_file is not None
    assert Path(shown.pid_file).parent == Path("/run", *SERVICE["RuntimeDirectory"])
    assert shown.state_folder == str(Path("/var/lib", *SERVICE["StateDirectory"]))
    assert (shown.user, shown.group) == (*SERVICE["User"], *SERVICE["Group"])


def test_one_control_socket() -> None:
    """A reload finds the socket that the supervisor was told, in the service's own folder."""
    start, reload = SERVICE["ExecStart"][0].split(), SERVICE["ExecReload"][0].split()
    assert (start[1], reload[1]) == ("run", "reload")
    assert start[-2:] == reload[-2:]
    assert Path(start[-1]).parent == Path("/run", *SERVICE["RuntimeDirectory"])


def test_sockets_are_like_ours() -> None:
    """The sockets that systemd opens are written and queued as ours are."""
    addresses = [listen_host_port(value) for value in SOCKET["ListenStream"]]
    assert addresses == [("0.0.0.0", 80), ("0.0.0.0", 443), ("::", 80), ("::", 443)]
    assert SOCKET["BindIPv6Only"] == ["ipv6-only"]
    assert SOCKET["Backlog"] == [str(BACKLOG)]


def test_rotation_fits_the_service() -> None:
    """Logs are rotated where the service writes them, as its user, and it is told."""
    text = (CONFIG / "logrotate" / "balanceme").read_text(encoding="utf-8")
    assert f"/var/log/{SERVICE['LogsDirectory'][0]}/*.log {{" in text
    assert f"su {SERVICE['User'][0]} {SERVICE['Group'][0]}" in text
    assert "--signal=USR1 --kill-whom=main balanceme.service" in text
