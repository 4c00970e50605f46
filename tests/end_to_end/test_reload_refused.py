"""What a reload refuses changes nothing; reloads at once, storms of them, workers in trouble."""

import copy
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.core.raw import printable
from tests.end_to_end.conftest import (
    HOST,
    NAME,
    Authority,
    Dial,
    Launcher,
    Members,
    Proxy,
    Yaml,
    request,
    settings_of,
    until,
)
from tests.end_to_end.recording_member import Do
from tests.end_to_end.reloads import (
    Cluster,
    ask,
    begun,
    code,
    command,
    ended,
    footprint,
    generations,
    is_complete,
    one_each,
    reload,
    status,
    worker_of,
    write,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared(serve_all: Launcher, members_all: Members) -> Cluster:
    """Two workers before a member."""
    mapping = {"path": "/", "balancer": "cluster"}
    member = settings_of(members_all("server1"))
    settings: Yaml = {
        "workers": 2,
        "graceful_timeout": "1s",
        "frontends": [serve_all.frontend(mapping)],
        "balancers": {"cluster": {"sticky_session": "BALANCEME", "members": [member]}},
    }
    return Cluster(serve_all.run(copy.deepcopy(settings)), settings)


# Counts a worker as hung sooner than usual.
HUNG_SOONER = ("-m", "tests.end_to_end.altered", "proxy.control.workers.HUNG=2")


@pytest.fixture
def proxy(shared: Cluster) -> Proxy:
    """The shared proxy under its first settings."""
    return shared.begin()


# --- mistakes ------------------------------------------------------------------------------------


def taken(settings: Yaml, _: Path, port: int, *_more: object) -> list[str]:
    """An address that somebody else has, and one that is free."""
    mapping = {"path": "/", "balancer": "cluster"}
    settings["frontends"] += [
        {"listen": f"{HOST}:{port}", "mappings": [mapping]},
        {"listen": f"{HOST}:{free()}", "mappings": [dict(mapping)]},
    ]
    return [f"frontends[1].listen: can't listen on {HOST}:{port}: Address already in use"]


def free() -> int:
    """A port that nobody has."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


def unopened_logs(settings: Yaml, folder: Path, *_: object) -> list[str]:
    """Logs in folders that aren't there."""
    settings["log"] = {"path": str(folder / "missing" / "log")}
    settings["access_log"] = {"path": str(folder / "gone" / "log")}
    return [
        f"log.path: {folder}/missing/log can't be written: No such file or directory;",
        f"access_log.path: {folder}/gone/log can't be written: No such file or directory;",
    ]


def unfit_key(settings: Yaml, _: Path, _port: int, authority: Authority) -> list[str]:
    """A key of another certificate."""
    certificate, key = authority.issue("one", NAME), authority.issue("two", NAME)
    settings["frontends"][0]["tls"] = {"certificate": str(certificate), "key": str(key)}
    return [f"frontends[0].tls: the key in {key} does not belong to the certificate"]


def unreadable_key(settings: Yaml, folder: Path, _: int, authority: Authority) -> list[str]:
    """A key that isn't there, or that everybody may read."""
    key = shutil.copy(authority.issue("two", NAME), folder / "open.pem")
    Path(key).chmod(0o644)
    missing = folder / "missing.pem"
    settings["frontends"][0]["tls"] = [
        {"certificate": str(authority.certificate), "key": str(missing)},
        {"certificate": str(authority.certificate), "key": str(key), "names": ["a.example"]},
    ]
    return [
        f'frontends[0].tls[0].key: found "{printable(str(missing))}", but there is no such',
        f'frontends[0].tls[1].key: found "{printable(str(key))}", a secret that everybody may read',
    ]


def words(settings: Yaml, *_: object) -> list[str]:
    """Words that mean nothing."""
    settings["balancers"]["cluster"]["lbmethod"] = "random"
    settings["frontends"][0]["mappings"][0]["balancer"] = "clutser"
    return ['frontends[0].mappings[0].balancer: found "clutser"', "balancers.cluster.lbmethod: "]


def all_together(settings: Yaml, folder: Path, port: int, authority: Authority) -> list[str]:
    """All that shows only in use."""
    return [
        *unfit_key(settings, folder, port, authority),
        *taken(settings, folder, port, authority),
        *unopened_logs(settings, folder),
    ]


def descriptors(proxy: Proxy) -> list[int]:
    """How many files each process has open, but for those of commands that are just ending."""
    looks = []
    for _ in range(10):
        looks.append([footprint(pid).descriptors for pid in (proxy.pid, *proxy.workers)])
        time.sleep(0.005)
    return min(looks)


@pytest.mark.parametrize(
    "spoil",
    [taken, unopened_logs, unfit_key, unreadable_key, words, all_together],
    ids=lambda function: function.__name__,
)
def test_mistakes(
    proxy: Proxy,
    dial: Dial,
    authority: Authority,
    tmp_path: Path,
    spoil: Callable[[Yaml, Path, int, Authority], list[str]],
) -> None:
    """All are printed where the command was given and logged; nothing has changed or stays open."""
    kept = one_each(proxy, dial)
    before = generations(proxy), descriptors(proxy)
    said = len(proxy.stderr())
    settings = copy.deepcopy(proxy.settings)
    settings["server"] = "other"
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        expected = spoil(settings, tmp_path, other.getsockname()[1], authority)
        write(proxy, {**proxy.settings, **settings})
        done = command(proxy, "reload")
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == len(expected)
    for line, part in zip(lines, expected, strict=True):
        assert line.startswith(str(proxy.config))
        assert part in line
        assert f"ERROR {line}" in proxy.stderr()[said:]
    assert "nothing is reloaded" in proxy.stderr()[said:]
    assert (generations(proxy), descriptors(proxy)) == before
    for client in kept:
        response = ask(client, method="TRACE")
        assert b"balanceme" in b"".join(response.fields)


def test_a_file_that_is_gone(proxy: Proxy) -> None:
    """Neither a missing file nor nonsense ends what runs; by a signal it is only in the log."""
    before = generations(proxy)
    proxy.config.unlink()
    assert command(proxy, "reload").returncode == 2
    assert "no such file" in proxy.stderr()
    proxy.config.write_bytes(b"\xff\0[")
    said = len(proxy.stderr())
    os.kill(proxy.pid, signal.SIGHUP)
    until(lambda: "nothing is reloaded" in proxy.stderr()[said:], "it is refused")
    assert generations(proxy) == before
    os.kill(proxy.pid, signal.SIGHUP)  # and once more, so that nothing hangs behind the first


# --- the command ---------------------------------------------------------------------------------


def test_the_command(proxy: Proxy) -> None:
    """It prints what changes, a line each, and ends well; the log says the same."""
    assert command(proxy, "reload").stdout == "nothing changes\n"
    proxy.settings["server"] = "other"
    proxy.settings["balancers"]["cluster"]["lbmethod"] = "bytraffic"
    write(proxy)
    lines = [
        "server: balanceme -> other",
        "balancers.cluster: lbmethod byrequests -> bytraffic",
    ]
    for options in (["--dry-run"], []):
        done = command(proxy, "reload", *options)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == lines
    for line in lines:
        assert proxy.stderr().count(f"reloaded: {line}\n") == 1


def test_dry_run_refuses_as_well(proxy: Proxy) -> None:
    """Mistakes of the file are found by it too."""
    proxy.settings["balancers"]["cluster"]["lbmethod"] = "random"
    write(proxy)
    done = command(proxy, "reload", "--dry-run")
    assert (done.returncode, done.stdout) == (2, "")
    assert "balancers.cluster.lbmethod" in done.stderr


def test_what_takes_a_restart(proxy: Proxy, tmp_path: Path) -> None:
    """It is said of what a reload leaves as it is."""
    found = reload(proxy, {**proxy.settings, "pid_file": str(tmp_path / "pid")})
    assert len(found) == 1
    assert found[0].endswith("; takes a restart, a reload leaves it as it is")
    assert not (tmp_path / "pid").exists()


def test_too_late(serve: Launcher, members: Members, dial: Dial) -> None:
    """Once we are to stop there is none, whether it is asked for then or waits for its turn."""
    silent = members("server1", {b"*": [Do.LEAVE_BODY, Do.WAIT_CLOSE]})
    proxy = serve(silent, workers=2, leave_before_stop="1500ms", health_path="/healthy")
    client = dial(proxy)
    client.send(request())
    until(lambda: silent.record.seen, "an exchange is under way")
    proxy.signal(signal.SIGTERM)

    def refused(phase: str) -> None:
        until(lambda: status(proxy)["phase"] == phase, f"it is {phase}")
        os.kill(proxy.pid, signal.SIGHUP)
        done = command(proxy, "reload")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"there is no reload while balanceme is {phase}\n"
        assert f"nothing is reloaded: {done.stderr}" in proxy.stderr()

    refused("leaving")
    refused("stopping")
    assert proxy.wait() == 0
    assert "generation" not in proxy.stderr()


# --- several at once -----------------------------------------------------------------------------


def test_two_at_once(proxy: Proxy) -> None:
    """Each waits for the other, and both are carried out."""
    (first,) = generations(proxy)
    commands = [begun(proxy, "reload") for _ in range(3)]
    assert [ended(each).returncode for each in commands] == [0] * 3
    assert generations(proxy) == {first + 3}


def test_storm_of_signals(proxy: Proxy, dial: Dial) -> None:
    """However many come, the last file is in force, in all workers, and clients are served."""
    clients = one_each(proxy, dial)
    for number in range(50):
        write(proxy, {**proxy.settings, "server": f"storm{number}"})
        os.kill(proxy.pid, signal.SIGHUP)
        assert code(ask(clients[number % 2])) == 200
    until(lambda: "-> storm49\n" in proxy.stderr(), "the last one is in force")
    assert reload(proxy) == ["nothing changes"]
    for client in clients:
        assert b"Server: storm49" in ask(client, method="TRACE").fields


# --- workers in trouble --------------------------------------------------------------------------


def test_a_worker_is_killed(proxy: Proxy, dial: Dial) -> None:
    """One that dies in the middle of reloads is replaced, and the new one has the last settings."""
    dying = proxy.workers[0]
    waiting = begun(proxy, "reload")
    os.kill(dying, signal.SIGKILL)
    for number in range(10):
        reload(proxy, {**proxy.settings, "server": f"other{number}"})
    assert ended(waiting).returncode == 0
    until(lambda: is_complete(proxy), "another one serves")
    assert dying not in proxy.workers
    assert len(generations(proxy)) == 1
    for client in one_each(proxy, dial):
        assert b"Server: other9" in ask(client, method="TRACE").fields


def test_a_worker_is_frozen(serve: Launcher, members: Members, dial: Dial) -> None:
    """It is killed and replaced, and the reload ends; the other one has the settings at once."""
    cluster = {"members": [settings_of(members("server1"))]}
    frontend = serve.frontend({"path": "/", "balancer": "cluster"})
    settings = {"workers": 2, "frontends": [frontend], "balancers": {"cluster": cluster}}
    proxy = serve.run(settings, HUNG_SOONER)
    (client, _) = one_each(proxy, dial)
    frozen = next(pid for pid in proxy.workers if pid != worker_of(proxy, client))
    os.kill(frozen, signal.SIGSTOP)
    write(proxy, {**proxy.settings, "server": "other"})
    waiting = begun(proxy, "reload")
    until(lambda: b"Server: other" in ask(client, method="TRACE").fields, "it is in force")
    assert ended(waiting).returncode == 0
    until(lambda: is_complete(proxy), "another one serves")
    assert frozen not in proxy.workers
    for each in one_each(proxy, dial):
        assert b"Server: other" in ask(each, method="TRACE").fields
