"""Health checks run in a process of their own, beside the workers and under the same supervisor."""

import os
import pwd
import re
import signal
import socket
from pathlib import Path

import pytest

from tests.end_to_end.conftest import HOST, Members, Yaml, settings_of, until
from tests.end_to_end.processes import is_gone, serving, set_status
from tests.end_to_end.program import Program, Programs, ignores
from tests.end_to_end.recording_member import RecordingMember

pytestmark = pytest.mark.slow

WEB: Yaml = {"type": "http", "interval": "200ms"}


def checked(install: Programs, members: list[RecordingMember], *checks: Yaml) -> Yaml:
    """Settings with these members and checks, and a log that tells every result."""
    settings = install.plain(*map(settings_of, members), log={"level": "debug"})
    settings["balancers"]["cluster"]["health_checks"] = list(checks)
    return settings


def prober(proxy: Program) -> int | None:
    """The process id of the prober, if there is one."""
    others = set(proxy.workers_of(proxy.pid)) - set(serving(proxy))
    return others.pop() if len(others) == 1 else None


def has_prober(proxy: Program) -> int:
    """The same, once there is one."""
    until(lambda: prober(proxy) is not None, "there is a prober")
    found = prober(proxy)
    assert found is not None
    return found


def test_results_reach_the_supervisor(install: Programs, members: Members) -> None:
    """Each check of each member is asked again and again, and who fails is told from who passes."""
    both = [members("server1"), members.stopped("server2")]
    proxy = install.run(checked(install, both, WEB, {"type": "tcp", "name": "port"}))
    # They were there before the first worker was.
    said = proxy.said()
    for line in (
        "cluster server1: http passed: 200 OK",
        "cluster server1: port passed: connected",
        "cluster server2: http failed: can't connect to 127.0.0.1 port",
        "cluster server2: port failed: can't connect to 127.0.0.1 port",
    ):
        assert line in said[: said.index("serving on")], line
    both[1].start()
    proxy.wait_said("cluster server2: http passed: 200 OK")
    assert proxy.said().count("cluster server1: http passed") > 1


def test_the_prober_is_a_process_of_its_own(install: Programs, members: Members) -> None:
    """It holds no file of the supervisor's, heeds no signal of a terminal's, and ends with it."""
    proxy = install.run(checked(install, [members()], WEB))
    pid = has_prober(proxy)
    assert ignores(pid, signal.SIGINT)
    assert proxy.address()[1] not in listening(pid)
    proxy.signal(signal.SIGTERM)
    assert proxy.ended() == 0
    assert is_gone(pid)
    assert "stopped" in proxy.said()


def listening(pid: int) -> set[int]:
    """The ports of sockets that a process holds and listens on."""
    links = {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()}
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(w[1].split(":")[1], 16) for w in lines if f"socket:[{w[9]}]" in links}


def test_a_killed_prober_is_replaced(install: Programs, members: Members) -> None:
    """Another one goes on asking, and the workers serve on."""
    proxy = install.run(checked(install, [members()], WEB))
    pid, workers = has_prober(proxy), serving(proxy)
    os.kill(pid, signal.SIGKILL)
    proxy.wait_said(f"prober (process {pid}) has ended unasked, by signal SIGKILL")
    until(lambda: prober(proxy) not in (None, pid), "there is another prober")
    count = proxy.said().count("http passed")
    until(lambda: proxy.said().count("http passed") > count, "it asks")
    assert serving(proxy) == workers


def test_without_its_supervisor_it_ends(
    install: Programs, members: Members, tmp_path: Path
) -> None:
    """With the command that it has started."""
    file = tmp_path / "pid"
    script = f"echo $$ > {file}; exec sleep 60"
    command = {"type": "command", "command": ["sh", "-c", script], "timeout": "60s"}
    proxy = install.run(checked(install, [members()], WEB, {**command, "required": False}))
    pid = has_prober(proxy)
    until(lambda: file.exists() and file.read_text().strip(), "the command runs")
    started = int(file.read_text())
    proxy.signal(signal.SIGKILL)
    until(lambda: is_gone(pid), "the prober is gone")
    until(lambda: is_gone(started), "its command is gone")
    proxy.ended()


def test_a_reload_changes_checks(install: Programs, members: Members) -> None:
    """Others are asked for at once by the same process; without any there is none."""
    proxy = install.run(checked(install, [members()], WEB))
    pid = has_prober(proxy)
    balancer = proxy.settings["balancers"]["cluster"]
    balancer["health_checks"] = [{"type": "tcp", "name": "port", "interval": "200ms"}]
    proxy.reload()
    proxy.wait_said("cluster server1: port passed: connected")
    assert has_prober(proxy) == pid
    count = proxy.said().count("http passed")
    balancer["health_checks"] = []
    proxy.reload()
    until(lambda: is_gone(pid), "the prober is gone")
    assert proxy.said().count("http passed") == count
    assert "unasked" not in proxy.said()
    balancer["health_checks"] = [WEB]
    proxy.reload()
    assert has_prober(proxy) != pid
    until(lambda: proxy.said().count("http passed") > count, "it asks")


def test_without_checks_there_is_no_process(install: Programs, members: Members) -> None:
    """Nothing runs that nobody asked for."""
    proxy = install.run(checked(install, [members()]))
    assert proxy.workers_of(proxy.pid) == serving(proxy)
    assert "workers wait" not in proxy.said()


def test_stopped_members_are_asked_nothing(install: Programs, members: Members) -> None:
    """Until they are enabled again (H6); the prober goes with the last of them."""
    proxy = install.run(checked(install, [members()], WEB))
    pid = has_prober(proxy)
    set_status(proxy, "stopped")
    until(lambda: is_gone(pid), "the prober is gone")
    count = proxy.said().count("http passed")
    set_status(proxy, "enabled")
    until(lambda: proxy.said().count("http passed") > count, "it is asked again")


def test_an_upgrade_brings_a_prober_of_its_own(install: Programs, members: Members) -> None:
    """The new program has its first results before it takes over; then the old prober ends."""
    proxy = install.run(checked(install, [members("server1"), members.stopped("server2")], WEB))
    pid = has_prober(proxy)
    successor = proxy.upgrade()
    until(lambda: is_gone(pid), "the former prober is gone")
    assert len(proxy.workers_of(successor)) == 2
    said = proxy.said()
    assert said.count("workers wait for the first results of 2 health checks") == 2
    assert "start without the first results" not in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_runs_as_the_workers_do(install: Programs, members: Members) -> None:
    """The prober has given up root for good, and its commands have with it."""
    account = pwd.getpwnam("nobody")
    command = {"type": "command", "name": "who", "command": ["id", "-u"]}
    settings = checked(install, [members()], WEB, command)
    proxy = install.run({**settings, "user": "nobody", "workers": 1})
    status = Path(f"/proc/{has_prober(proxy)}/status").read_text()
    (numbers,) = re.findall(r"^Uid:\s+(.*)$", status, re.MULTILINE)
    assert numbers.split() == [str(account.pw_uid)] * 4
    proxy.wait_said(f"cluster server1: who passed: exit status 0: {account.pw_uid}")


def test_workers_wait_no_longer_than_a_check_may_take(install: Programs, members: Members) -> None:
    """A member that says nothing has failed its check by then, and clients are served."""
    with socket.create_server((HOST, 0)) as silent:
        port = silent.getsockname()[1]
        mail = {"type": "smtp", "port": port, "timeout": "300ms"}
        proxy = install.run(checked(install, [members()], mail))
    said = proxy.said()
    text = "cluster server1: smtp failed: timed out after 0.3 s, waiting for its greeting"
    assert text in said[: said.index("serving on")]


def test_is_stopped_while_workers_wait(install: Programs, members: Members) -> None:
    """Who is told to stop doesn't wait for a member that says nothing."""
    with socket.create_server((HOST, 0)) as silent:
        mail = {"type": "smtp", "port": silent.getsockname()[1]}
        proxy = install.make(checked(install, [members()], mail)).launch()
        proxy.wait_said("workers wait for the first results of 1 health check")
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
    assert "serving on" not in proxy.said()
    assert "unasked" not in proxy.said()
