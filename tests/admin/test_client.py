"""proxy.admin.client: what the command line is told, over a real socket."""

import copy
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.admin import client
from proxy.admin.client import AdminError, MistakesError, NoAnswerError
from proxy.control.commands import CommandError
from proxy.core.errors import ConfigError, Mistake
from proxy.core.settings import OperatorStatus
from tests.admin.fake_commands import STATUS, FakeCommands, Supervisor

CALLS: dict[str, Callable[[Path], object]] = {
    "status": client.status,
    "reload": lambda path: client.reload(path, dry_run=False),
    "upgrade": client.upgrade,
    "stop": lambda path: client.stop(path, at_once=False),
    "drain": lambda path: [*client.say_of_member(path, "server1", "drain", {})],
}


@pytest.fixture
def supervisor(path: Path, commands: FakeCommands) -> Iterator[Supervisor]:
    """A supervisor that answers."""
    with Supervisor(path, commands) as supervisor:
        yield supervisor


@pytest.mark.usefixtures("supervisor")
def test_commands(path: Path, commands: FakeCommands) -> None:
    """Each function gives what its route answers."""
    assert client.status(path) == STATUS
    assert client.reload(path, dry_run=True)[1] == "access_log.path: b.log, was a.log"
    assert client.upgrade(path) == 4812
    assert commands.asked == [("reload", True), ("upgrade",)]


@pytest.mark.usefixtures("supervisor")
def test_what_is_wanted_of_a_member(path: Path, commands: FakeCommands) -> None:
    """A member is named by route or url, and meant in each balancer that has it, or in one."""
    commands.tree = {
        **STATUS,
        "balancers": dict.fromkeys(("a", "b"), STATUS["balancers"]["cluster"]),
    }
    told = [*client.say_of_member(path, "server1", "readmit", {"reason": "new disk"})]
    assert [(each["balancer"], each["sessions"]) for each in told] == [("a", 40), ("b", 40)]
    enabled = {"status": "enabled"}
    [*_] = client.say_of_member(path, "http://10.0.0.2:8080/app", "status", enabled, "b")
    assert commands.asked == [
        ("readmit", "a", "server1"),
        ("readmit", "b", "server1"),
        ("set_operator_status", "b", "http://10.0.0.2:8080/app", OperatorStatus.ENABLED),
    ]
    assert [said.why for said in commands.said] == ["new disk", "new disk", ""]


@pytest.mark.usefixtures("supervisor")
def test_member_that_nobody_has(path: Path, commands: FakeCommands) -> None:
    """The names that there are stand in the error, and nothing is done."""
    with pytest.raises(AdminError, match=r"^no balancer has a member serv; there are: server1, "):
        [*client.say_of_member(path, "serv", "readmit", {})]
    with pytest.raises(AdminError, match=r"^no balancer b has a member server1; there are: none$"):
        [*client.say_of_member(path, "server1", "readmit", {}, "b")]
    assert commands.asked == []


@pytest.mark.usefixtures("supervisor")
def test_one_balancer_refuses(
    path: Path, commands: FakeCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are told all the same; who refused and why is raised in the end."""
    commands.tree = {
        **STATUS,
        "balancers": dict.fromkeys(("a", "b", "c"), STATUS["balancers"]["cluster"]),
    }

    async def failover(balancer: str, *_: object) -> None:
        commands.asked.append((balancer,))
        if balancer == "b":
            raise CommandError("b has no member server7")

    monkeypatch.setattr(commands, "failover", failover)
    told = client.say_of_member(path, "server1", "failover", {"heir": "server7"})
    assert [next(told)["balancer"], next(told)["balancer"]] == ["a", "c"]
    with pytest.raises(AdminError, match=r"^b has no member server7$"):
        next(told)
    assert commands.asked == [("a",), ("b",), ("c",)]


@pytest.mark.usefixtures("supervisor")
def test_readmit_where_it_is_kept_out(path: Path, commands: FakeCommands) -> None:
    """A member that is fenced in one balancer of several is readmitted there."""
    fenced = copy.deepcopy(STATUS["balancers"]["cluster"])
    fenced["members"][0]["verdict"] = "fenced"
    balancers = {"a": STATUS["balancers"]["cluster"], "b": fenced}
    commands.tree = {**STATUS, "balancers": balancers}
    told = [*client.say_of_member(path, "server1", "readmit", {})]
    assert [each["balancer"] for each in told] == ["b"]
    assert commands.asked == [("readmit", "b", "server1")]


@pytest.mark.parametrize("at_once", [False, True])
def test_stop_waits_for_the_end(
    at_once: bool, path: Path, commands: FakeCommands, supervisor: Supervisor
) -> None:
    """A stop returns when the supervisor has closed everything, however long that takes."""
    asked, ended = threading.Event(), threading.Event()

    def stop(*, at_once: bool) -> None:
        commands.asked.append(("stop", at_once))
        asked.set()

    commands.stop = stop  # type: ignore[method-assign]

    def wait() -> None:
        client.stop(path, at_once=at_once)
        ended.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert asked.wait(10)
    # As long as it stops, it can be asked how that goes on.
    assert client.status(path) == STATUS
    assert not ended.is_set()
    supervisor.end()
    waiting.join(10)
    assert ended.is_set()
    assert commands.asked == [("stop", at_once)]


@contextmanager
def other_program(path: Path, answer: bytes) -> Iterator[None]:
    """Something on the path that gives every connection one answer to whatever it sends."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                sock, _ = listening.accept()
                with sock:
                    if sock.recv(4096):
                        sock.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            with socket.socket(socket.AF_UNIX) as last:
                last.connect(str(path))
            thread.join()


def test_stop_before_the_answer(path: Path) -> None:
    """A supervisor that ends at once, without an answer, has done what it was asked."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def end() -> None:
            held, _ = listening.accept()
            asking, _ = listening.accept()
            with held, asking:
                assert asking.recv(4096).startswith(b"POST /v1/stop ")

        ending = threading.Thread(target=end)
        ending.start()
        client.stop(path, at_once=True)
        ending.join()


# --- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("kind", ["nothing", "no folder", "stale", "file", "a file's"])
def test_nobody_answers(kind: str, call: Callable[[Path], object], path: Path) -> None:
    """Without a supervisor the words say where it was looked for, and what to do."""
    if kind == "stale":
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(path))
    elif kind == "file":
        path.touch()
    elif kind == "no folder":
        path = path / "control.sock"
    elif kind == "a file's":
        path.touch()
        path = path / "control.sock"
    with pytest.raises(NoAnswerError) as told:
        call(path)
    assert str(told.value) == (
        f"no balanceme answers on {path}; is it running? with another --socket?"
    )
    assert told.value.exit_status == 3


@pytest.mark.usefixtures("supervisor")
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_permission(call: Callable[[Path], object], path: Path) -> None:
    """A user without the rights is told of them, and not that nobody answers."""
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(AdminError) as told:
            call(path)
    finally:
        os.seteuid(user)
    assert str(told.value) == (
        f"{path} may not be used by this user; try as root or as a member of its group"
    )
    assert told.value.exit_status == 1


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_path_too_long(call: Callable[[Path], object], path: Path) -> None:
    """What the system can't even try is told in its words."""
    with pytest.raises(NoAnswerError, match=r"no balanceme can be reached on .*: .*too long"):
        call(path.with_name("x" * 108))


@pytest.mark.usefixtures("supervisor")
@pytest.mark.parametrize("call", [CALLS["reload"], CALLS["upgrade"]], ids=["reload", "upgrade"])
def test_refusal(call: Callable[[Path], object], path: Path, commands: FakeCommands) -> None:
    """The supervisor's reason is the message."""
    commands.failure = CommandError("an upgrade is under way")
    with pytest.raises(AdminError, match=r"^an upgrade is under way$") as told:
        call(path)
    assert told.value.exit_status == 1


@pytest.mark.usefixtures("supervisor")
def test_refused_stop_is_no_wait(path: Path, commands: FakeCommands) -> None:
    """A stop that doesn't begin isn't waited for."""
    commands.failure = CommandError("not now")
    with pytest.raises(AdminError, match=r"^not now$"):
        client.stop(path, at_once=False)


@pytest.mark.usefixtures("supervisor")
def test_mistakes(path: Path, commands: FakeCommands) -> None:
    """Mistakes of a configuration come as lines, with an exit status of their own."""
    commands.failure = ConfigError([Mistake(("workers",), "found 0"), Mistake((), "no room")])
    with pytest.raises(MistakesError) as told:
        client.reload(path, dry_run=False)
    assert told.value.mistakes == [
        "/etc/balanceme/balanceme.yaml: workers: found 0",
        "/etc/balanceme/balanceme.yaml: no room",
    ]
    assert str(told.value) == "\n".join(told.value.mistakes)
    assert told.value.exit_status == 2


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "ended before it had answered; see its log"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "ended before it had answered"),
        (b"+PONG\r\n", "ended before it had answered"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "is no balanceme, or one of another",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "is no balanceme, or one of another"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "is no balanceme, or one of another"),
        (b"HTTP/1.1 422 X\r\nContent-Length: 2\r\n\r\n{}", "is no balanceme, or one of another"),
        (b"HTTP/1.1 404 X\r\nContent-Length: 2\r\n\r\n{}", "is no balanceme, or one of another"),
    ],
)
def test_other_programs(answer: bytes, words: str, path: Path) -> None:
    """What doesn't answer as balanceme does is told as that."""
    with other_program(path, answer), pytest.raises(AdminError, match=words):
        client.upgrade(path)


def test_no_answer_in_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who doesn't answer is not waited for for ever."""
    monkeypatch.setattr(client, "PATIENT", 0.05)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(NoAnswerError, match=r"gave no answer for 0\.05 s"):
            client.upgrade(path)
