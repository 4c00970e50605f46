"""Hooks, with real programs that write down what they are told."""

import asyncio
import json
import logging
import socket
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from proxy.control import hooks as module
from proxy.control.hooks import JSON, Happening, Hooks
from proxy.core.settings import Event, Hook

AT = 1795356957.0
MISSING = "can't be started: No such file or directory"


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Debug as well."""
    caplog.set_level(logging.DEBUG, "balanceme")


def hook(*command: str, on: list[str] | None = None, **others: Any) -> Hook:
    """A hook with a command."""
    return Hook.model_validate(
        {"on": on or [each.value for each in Event], "command": command, "timeout": "60s", **others}
    )


def script(text: str, **others: Any) -> Hook:
    """A hook that is a shell script."""
    return hook("sh", "-c", text, **others)


def happening(text: str = "it is down", event: Event = Event.MEMBER_DOWN) -> Happening:
    """Something that has happened to a member."""
    details: dict[str, JSON] = {"check": "http", "event": "another", "fails": 3}
    return Happening(event, "cluster", "server2", text, details, AT)


def make(*hooks: Hook) -> Hooks:
    """Hooks in the running loop."""
    return Hooks(hooks, asyncio.get_running_loop())


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that must come."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.005)


async def test_object(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A command finds the object on standard input, and the first of it in its environment."""
    told = tmp_path / "told"
    environ = "$BALANCEME_EVENT $BALANCEME_BALANCER $BALANCEME_MEMBER"
    hooks = make(script(f'(cat; echo; echo "{environ}") >{told}'))
    hooks.happened(happening())
    await hooks.stop(60)
    line, environ = told.read_text().splitlines()
    found = json.loads(line)
    at = datetime.fromisoformat(found.pop("at"))
    assert at.timestamp() == AT
    assert at.tzinfo is not None
    assert found == {
        "event": "member_down",
        "balancer": "cluster",
        "member": "server2",
        "text": "it is down",
        "host": socket.gethostname(),
        "check": "http",
        "fails": 3,
    }
    assert environ == "member_down cluster server2"
    [record] = caplog.records
    assert record.levelno == logging.DEBUG


async def test_of_no_balancer(tmp_path: Path) -> None:
    """What happened in no balancer says so."""
    told = tmp_path / "told"
    hooks = make(script(f'(cat; echo; echo "<$BALANCEME_BALANCER$BALANCEME_MEMBER>") >{told}'))
    hooks.happened(Happening(Event.CERTIFICATE_ENDS, None, None, "", {}, AT))
    await hooks.stop(60)
    line, environ = told.read_text().splitlines()
    assert (json.loads(line)["balancer"], json.loads(line)["member"]) == (None, None)
    assert environ == "<>"


async def test_those_who_want_to_know(tmp_path: Path) -> None:
    """A hook is told of its events only."""
    told = tmp_path / "told"
    append = f"echo $BALANCEME_EVENT >>{told}"
    hooks = make(script(append, on=["takeover", "failback"]), script(append, on=["fenced"]))
    for event in (Event.MEMBER_DOWN, Event.TAKEOVER, Event.MEMBER_UP, Event.FAILBACK):
        hooks.happened(happening(event=event))
    await hooks.stop(60)
    assert told.read_text() == "takeover\nfailback\n"


async def test_in_order_and_one_by_one(tmp_path: Path) -> None:
    """A hook hears of one thing after another, in their order."""
    told = tmp_path / "told"
    lock = tmp_path / "lock"
    hooks = make(script(f"mkdir {lock} && cat >>{told} && echo >>{told} && rmdir {lock}"))
    for number in range(8):
        hooks.happened(happening(str(number)))
    await hooks.stop(60)
    assert [json.loads(line)["text"] for line in told.read_text().splitlines()] == list("01234567")


async def test_side_by_side(tmp_path: Path) -> None:
    """A hook that hangs delays no other one."""
    told = tmp_path / "told"
    hooks = make(script("sleep 60"), script(f"echo >>{told}"))
    hooks.happened(happening())
    hooks.happened(happening())
    await until(lambda: told.exists() and told.read_text() == "\n\n")
    await hooks.stop(0)


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        (
            hook("/nowhere/tell", "secret"),
            "hook /nowhere/tell was not told of member_down (it is down): " + MISSING,
        ),
        (
            script("echo no mail today >&2; exit 3"),
            "hook sh was not told of member_down (it is down): exit status 3: no mail today",
        ),
        (
            script("exec sleep 60", timeout="100ms"),
            "hook sh was not told of member_down (it is down): killed after 0.1 s",
        ),
    ],
)
async def test_failure(hook: Hook, said: str, caplog: pytest.LogCaptureFixture) -> None:
    """A hook that can't be told is one warning, without its arguments."""
    hooks = make(hook)
    hooks.happened(happening())
    await hooks.stop(60)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == said


async def test_mistake_of_ours(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What we fail at ourselves is told, and the next event as well."""
    hooks = make(script("true"))
    with monkeypatch.context() as patch:
        patch.setattr(module, "_as_object", lambda _: {"details": object()})
        hooks.happened(happening("first"))
        await until(lambda: bool(caplog.records))
    hooks.happened(happening("second"))
    await hooks.stop(60)
    first, second = caplog.messages
    assert first == "hook sh: a mistake in balanceme"
    assert second == "hook sh was told of member_down: second"


async def test_too_many(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At most 100 wait; then the oldest are lost, and that is said once."""
    told, go = tmp_path / "told", tmp_path / "go"
    wait = f"while ! test -e {go}; do sleep 0.01; done"
    hooks = make(script(f"{wait}; read -r line; echo $line >>{told}"))
    hooks.happened(happening("first"))
    await until(lambda: not hooks._tellers[0]._waiting)
    for number in range(module.MOST_WAITING + 2):
        hooks.happened(happening(str(number)))
    go.touch()
    await hooks.stop(60)
    texts = [json.loads(line)["text"] for line in told.read_text().splitlines()]
    assert texts == ["first", *map(str, range(2, module.MOST_WAITING + 2))]
    [warning] = [each.getMessage() for each in caplog.records if each.levelno > logging.DEBUG]
    assert warning == (
        "hook sh: 100 events wait, so the oldest are not told; the first is member_down: 0"
    )


async def test_stop_ends_what_hangs(caplog: pytest.LogCaptureFixture) -> None:
    """At the end what hangs is killed, what was not told is said, and nothing more begins."""
    hooks = make(script("sleep 60"))
    hooks.happened(happening())
    await hooks.stop(0.05)
    hooks = make(script("sleep 60"))
    hooks.happened(happening())
    hooks.happened(happening())
    await hooks.stop(0.05)
    hooks.happened(happening())
    assert caplog.messages == [
        "hook sh: one event is not told, since balanceme stops",
        "hook sh: 2 events are not told, since balanceme stops",
    ]
    assert len(asyncio.all_tasks()) == 1


async def test_stop_without_events() -> None:
    """Nobody waits for hooks that have nothing to tell."""
    await make(script("true")).stop(60)


async def test_before_the_loop_runs(tmp_path: Path) -> None:
    """What happens while the loop stands still is told once it runs."""
    told = tmp_path / "told"

    def run_a_loop() -> None:
        loop = asyncio.new_event_loop()
        hooks = Hooks([script(f"cat >{told}")], loop)
        hooks.happened(happening())
        loop.run_until_complete(hooks.stop(60))
        loop.close()

    await asyncio.to_thread(run_a_loop)
    assert told.exists()


async def test_reload(tmp_path: Path) -> None:
    """A hook that stays keeps its order; one that goes is told what had happened before."""
    told, go = tmp_path / "told", tmp_path / "go"
    wait = f"while ! test -e {go}; do sleep 0.01; done"
    stays = script(f"{wait}; echo stays >>{told}")
    goes = script(f"{wait}; echo goes >>{told}")
    hooks = make(goes, stays)
    hooks.happened(happening())
    hooks.configure([stays, script(f"echo new >>{told}")])
    hooks.happened(happening())
    hooks.configure([stays])
    assert repr(hooks) == "<Hooks 1, 2 former>"
    go.touch()
    await hooks.stop(60)
    assert sorted(told.read_text().split()) == ["goes", "new", "stays", "stays"]


async def test_same_hook_twice(tmp_path: Path) -> None:
    """A hook that is there twice is told twice, also after a reload."""
    told = tmp_path / "told"
    twice = [script(f"echo >>{told}")] * 2
    hooks = make(*twice)
    hooks.configure(twice)
    hooks.happened(happening())
    await hooks.stop(60)
    assert told.read_text() == "\n\n"


# --- URLs -----------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_url(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The object is posted; a failure is told without what is secret of the URL."""
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        heard.append(head)
        heard.append(await reader.readexactly(length))
        status = b"200 OK" if len(heard) == 2 else b"500 Oh"
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        at = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        hooks = make(hook(url=f"http://user:secret@{at}/events?token=secret"))
        hooks.happened(happening("one"))
        hooks.happened(happening("two"))
        await hooks.stop(60)
    assert heard[0].startswith(b"POST /events?token=secret HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Basic dXNlcjpzZWNyZXQ=\r\n" in heard[0]
    assert json.loads(heard[1])["text"] == "one"
    name = f"hook http://...@{at}/events?..."
    assert caplog.messages == [
        f"{name} was told of member_down: one",
        f"{name} was not told of member_down (two): it answers 500 Oh",
    ]


@pytest.mark.slow
async def test_url_is_seen_by_nobody() -> None:
    """What everybody may see of a program, its command line, has nothing of the URL."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hooks = make(hook(url=f"http://user:secret@127.0.0.1:{silent.getsockname()[1]}/"))
        hooks.happened(happening())
        await until(lambda: bool(webhooks()))
        lines = webhooks()
        await hooks.stop(0)
    assert all(b"secret" not in line and b"http:" not in line for line in lines)


def webhooks() -> list[bytes]:
    """The command lines of children that are webhooks."""
    [*children] = Path("/proc/self/task").glob("*/children")
    pids = [pid for each in children for pid in each.read_text().split()]
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids]
    return [line for line in lines if b"webhook.py" in line]
