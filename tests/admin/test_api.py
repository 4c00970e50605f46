"""proxy.admin.api: what each route asks and answers, over a real socket."""

import asyncio
import json
import os
import pwd
import signal
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, UnixConnector
from yarl import URL

from proxy.admin.api import LARGEST_BODY, AdminServer
from proxy.admin.control_socket import SocketError
from proxy.control.commands import CommandError, DrainUntil, Question
from proxy.control.config_file import ConfigFileError, Located
from proxy.control.yaml_tree import Position
from proxy.core.errors import ConfigError, Mistake
from proxy.core.settings import OperatorStatus
from tests.admin.fake_commands import EXPLANATION, STATUS, FakeCommands

FILE = "/etc/balanceme/balanceme.yaml"


@pytest.fixture
async def server(path: Path, commands: FakeCommands) -> AsyncIterator[AdminServer]:
    """A server that answers."""
    server = AdminServer(path)
    await server.start(commands)
    yield server
    await server.stop()


class Client:
    """Requests on a path."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    async def __call__(
        self, method: str, target: str, data: object = None
    ) -> tuple[int, dict[str, Any]]:
        """Status and object of an answer; ``data`` is sent as it is, or else as JSON."""
        body = data if isinstance(data, bytes | None) else json.dumps(data).encode()
        url = URL(f"http://balanceme{target}", encoded=True)
        async with (
            ClientSession(connector=UnixConnector(self._path)) as session,
            session.request(method, url, data=body) as response,
        ):
            assert response.content_type == "application/json"
            answer = await response.json()
            assert isinstance(answer, dict)
            if response.status == 405:
                assert response.headers["Allow"]
            return response.status, answer


@pytest.fixture
def ask(request: pytest.FixtureRequest, path: Path) -> Client:
    """A client of the server, which is started for it."""
    request.getfixturevalue("server")
    return Client(path)


# --- commands ------------------------------------------------------------------------------------


async def test_status(ask: Client) -> None:
    """The supervisor's tree is given as it is."""
    assert await ask("GET", "/v1/status") == (200, STATUS)


@pytest.mark.parametrize(
    ("data", "question"),
    [
        ({"target": "/"}, Question("/")),
        (
            {"target": "/a", "host": "b", "cookie": "c=d", "listen": "[::]:80", "tls": False},
            Question("/a", "b", "c=d", "[::]:80", tls=False),
        ),
    ],
)
async def test_explain(
    ask: Client, commands: FakeCommands, data: dict[str, Any], question: Question
) -> None:
    """A question is asked as it is, and the supervisor's answer given as it is."""
    assert await ask("POST", "/v1/explain", data) == (200, EXPLANATION)
    assert commands.asked == [("explain", question)]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (None, "target is needed: a path, or a whole URL"),
        ({"host": "a"}, "target is needed: a path, or a whole URL"),
        ({"target": 7}, "target must be a text"),
        ({"target": "/", "tls": 1}, "tls must be true or false"),
        ({"target": "/", "method": "GET"}, "unknown key"),
    ],
)
async def test_explain_nothing(
    ask: Client, commands: FakeCommands, data: object, error: str
) -> None:
    """A question that can't be understood isn't asked."""
    status, answer = await ask("POST", "/v1/explain", data)
    assert status == 400
    assert error in answer["error"]
    assert commands.asked == []


@pytest.mark.parametrize(
    ("data", "dry_run"),
    [
        (None, False),
        (b"", False),
        ({}, False),
        ({"dry_run": True}, True),
        ({"dry_run": False}, False),
    ],
)
async def test_reload(data: object, dry_run: bool, ask: Client, commands: FakeCommands) -> None:
    """A reload answers with what changes; without a body it is a real one."""
    code, answer = await ask("POST", "/v1/reload", data)
    assert (code, list(answer)) == (200, ["changes"])
    assert answer["changes"][0] == "balancers.cluster: member server3 is new"
    assert commands.asked == [("reload", dry_run)]


async def test_upgrade(ask: Client, commands: FakeCommands) -> None:
    """An upgrade answers with the new supervisor's process id."""
    assert await ask("POST", "/v1/upgrade") == (200, {"pid": 4812})
    assert commands.asked == [("upgrade",)]


@pytest.mark.parametrize(("data", "at_once"), [(None, False), ({"at_once": True}, True)])
async def test_stop(data: object, at_once: bool, ask: Client, commands: FakeCommands) -> None:
    """A stop is answered when it begins."""
    assert await ask("POST", "/v1/stop", data) == (200, {})
    assert commands.asked == [("stop", at_once)]


@pytest.mark.parametrize(
    ("target", "balancer", "member"),
    [
        ("cluster/members/server1", "cluster", "server1"),
        (
            "cluster/members/http%3A%2F%2F10.0.0.2%3A8080%2Fapp",
            "cluster",
            "http://10.0.0.2:8080/app",
        ),
        ("a%20b/members/http:%2F%2F[2001:db8::1]%2Fa%2520b", "a b", "http://[2001:db8::1]/a%20b"),
        ("%C3%A4/members/..%2F..", "ä", "../.."),
    ],
)
@pytest.mark.parametrize("status", list(OperatorStatus))
async def test_operator_status(
    target: str,
    balancer: str,
    member: str,
    *,
    status: OperatorStatus,
    ask: Client,
    commands: FakeCommands,
) -> None:
    """A member goes by its route, or by its url with every special character encoded."""
    answer = await ask("POST", f"/v1/balancers/{target}/status", {"status": status.value})
    assert answer == (200, {})
    assert commands.asked == [("set_operator_status", balancer, member, status)]


@pytest.mark.parametrize(
    ("word", "body", "asked"),
    [
        ("drain", {}, ("drain", DrainUntil())),
        ("drain", {"deadline": 17.5}, ("drain", DrainUntil(17.5))),
        ("drain", {"until_empty": True}, ("drain", DrainUntil(None, empty=True))),
        (
            "terms",
            {"load_factor": 2.5, "lbset": 1},
            ("set_terms", {"load_factor": 2.5, "lbset": 1}),
        ),
        ("terms", {"hot_spare": False}, ("set_terms", {"hot_spare": False})),
        ("failover", {"heir": "server1"}, ("failover", "server1")),
        ("failover", {}, ("failover", None)),
        ("readmit", {}, ("readmit",)),
    ],
)
async def test_what_is_said_of_a_member(
    word: str, body: dict[str, Any], asked: tuple[object, ...], ask: Client, commands: FakeCommands
) -> None:
    """What is said reaches the supervisor, with who said it, when and why."""
    target = f"/v1/balancers/cluster/members/server2/{word}"
    before = time.time()
    assert await ask("POST", target, {**body, "reason": "maintenance"}) == (200, {})
    assert commands.asked == [(asked[0], "cluster", "server2", *asked[1:])]
    [said] = commands.said
    assert (said.by, said.why) == (pwd.getpwuid(os.getuid()).pw_name, "maintenance")
    assert before <= said.at <= time.time()


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/status", 404),
        ("GET", "/v1/status/", 404),
        ("POST", "/v1/balancers/cluster/members/http://10.0.0.2/status", 404),
        ("POST", "/v1/status", 405),
        ("GET", "/v1/reload", 405),
        ("PUT", "/v1/stop", 405),
        ("GET", "/v1/balancers/cluster/members/server1/status", 405),
    ],
)
async def test_no_such_route(
    method: str, target: str, status: int, ask: Client, commands: FakeCommands
) -> None:
    """What there is not is told as JSON too."""
    code, answer = await ask(method, target)
    assert (code, list(answer)) == (status, ["error"])
    assert answer["error"].startswith(f"{method} {target}: ")
    assert commands.asked == []


@pytest.mark.parametrize(
    ("target", "data", "words"),
    [
        ("reload", b"{", "the request's body is no JSON"),
        ("reload", b"\xff", "the request's body is no JSON"),
        ("reload", b"[" * 10000, "the request's body is no JSON"),
        ("reload", b"1" * 10000, "the request's body is no JSON"),
        ("reload", [], "the request's body must be a JSON object"),
        ("reload", b"null", "the request's body must be a JSON object"),
        ("reload", {"dry": True}, 'unknown key "dry"; known: dry_run'),
        ("reload", {"dry_run": 1}, "dry_run must be true or false"),
        ("reload", {"dry_run": None}, "dry_run must be true or false"),
        ("upgrade", {"\n": 1}, 'unknown key "\\n"; known: none'),
        ("stop", {"now": True}, 'unknown key "now"; known: at_once'),
        ("balancers/a/members/b/status", {"status": 1}, "status must be a text"),
        (
            "balancers/a/members/b/status",
            {"status": "off"},
            "status must be one of enabled, drain, disabled, stopped",
        ),
        ("balancers/a/members/b/drain", {"deadline": "22:00"}, "deadline must be a number"),
        ("balancers/a/members/b/drain", {"deadline": True}, "deadline must be a number"),
        *(
            (
                "balancers/a/members/b/drain",
                b'{"deadline": %b}' % deadline,
                "deadline must be in seconds since 1970, and before 2100",
            )
            for deadline in (b"NaN", b"1e308", b"1e999", b"-1", b"-Infinity", b"1" * 400)
        ),
        (
            "balancers/a/members/b/terms",
            b'{"load_factor": NaN}',
            "load_factor must be a number from 1 to 100",
        ),
        (
            "balancers/a/members/b/terms",
            {"reason": "x"},
            "one of load_factor, lbset, hot_standby and hot_spare is needed",
        ),
        (
            "balancers/a/members/b/terms",
            {"load_factor": 0},
            "load_factor must be a number from 1 to 100",
        ),
        (
            "balancers/a/members/b/terms",
            {"lbset": 100},
            "lbset must be a whole number from 0 to 99",
        ),
        ("balancers/a/members/b/terms", {"lbset": 1.5}, "lbset must be a whole number"),
        (
            "balancers/a/members/b/readmit",
            {"reason": "a\nb"},
            "reason must be one line of at most 200 printable characters",
        ),
        (
            "balancers/a/members/b/status",
            None,
            "status must be one of enabled, drain, disabled, stopped",
        ),
    ],
)
async def test_request_that_is_wrong(
    target: str, data: object, words: str, ask: Client, commands: FakeCommands
) -> None:
    """A body that can't be understood is refused with what is wrong, and nothing is done."""
    assert await ask("POST", f"/v1/{target}", data) == (400, {"error": words})
    assert commands.asked == []


async def test_body_too_large(ask: Client, commands: FakeCommands) -> None:
    """A body past the bound is refused, and nothing is done."""
    code, answer = await ask("POST", "/v1/reload", b" " * (LARGEST_BODY + 1))
    assert (code, list(answer)) == (413, ["error"])
    assert commands.asked == []


async def test_command_that_fails(ask: Client, commands: FakeCommands) -> None:
    """The supervisor's reason is passed on."""
    commands.failure = CommandError("the new program ended at its start")
    refused = (409, {"error": "the new program ended at its start"})
    assert await ask("POST", "/v1/upgrade") == refused
    assert await ask("POST", "/v1/reload") == refused
    assert await ask("POST", "/v1/stop") == refused
    assert await ask("POST", "/v1/balancers/a/members/b/status", {"status": "drain"}) == refused


@pytest.mark.parametrize(
    ("failure", "lines"),
    [
        (
            ConfigFileError(
                "a.yaml",
                [
                    Located(Mistake(("workers",), "found 0"), Position(7, 3)),
                    Located(Mistake((), "a mistake"), Position(1, 1)),
                ],
            ),
            ["a.yaml:1:1: a mistake", "a.yaml:7:3: workers: found 0"],
        ),
        (
            ConfigError([Mistake(("frontends", 0, "tls"), "no key"), Mistake((), "no room")]),
            [f"{FILE}: frontends[0].tls: no key", f"{FILE}: no room"],
        ),
    ],
    ids=["in the file", "in use"],
)
async def test_mistakes(
    failure: Exception, lines: list[str], ask: Client, commands: FakeCommands
) -> None:
    """Every mistake of a configuration is a line with its place."""
    commands.failure = failure
    assert await ask("POST", "/v1/reload") == (422, {"mistakes": lines})


async def test_our_own_mistake(
    ask: Client, commands: FakeCommands, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody foresaw is in the log with its trace, and not in the answer."""
    commands.failure = ZeroDivisionError("secret")
    code, answer = await ask("POST", "/v1/upgrade")
    assert (code, answer) == (500, {"error": "a mistake in balanceme; its log has more"})
    assert "POST /v1/upgrade failed: a mistake in balanceme" in caplog.text
    assert "ZeroDivisionError: secret" in caplog.text
    commands.tree["version"] = {1, 2}
    assert (await ask("GET", "/v1/status"))[0] == 500


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\r\n\r\n",
        b"POST /v1/reload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\r\n",
        b"POST /v1/reload HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{",
        b"GET /v1/st",
        b"",
    ],
    ids=["no HTTP", "no chunk", "half a body", "half a head", "nothing"],
)
async def test_nonsense(
    sent: bytes,
    ask: Client,
    path: Path,
    commands: FakeCommands,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Who sends nonsense or breaks off is no news, does nothing, and hinders nobody."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(sent)
    writer.write_eof()
    await reader.read()
    writer.close()
    await writer.wait_closed()
    assert (await ask("GET", "/v1/status"))[0] == 200
    assert commands.asked == []
    assert caplog.text == ""


# --- the service ---------------------------------------------------------------------------------


async def test_process_stays_as_it_is(path: Path) -> None:
    """No thread, no executor and no signal handler: the supervisor forks."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    threads, handlers = threading.active_count(), list(map(signal.getsignal, numbers))
    server = AdminServer(path)
    await server.start(FakeCommands())
    assert (await Client(path)("POST", "/v1/reload"))[0] == 200
    assert threading.active_count() == threads
    assert asyncio.get_running_loop()._default_executor is None  # type: ignore[attr-defined]
    assert list(map(signal.getsignal, numbers)) == handlers
    await server.stop()


async def test_no_line_for_each_request(ask: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Being asked is not worth a line in the log."""
    caplog.set_level("DEBUG")
    assert (await ask("GET", "/v1/status"))[0] == 200
    assert [record for record in caplog.records if record.name != "asyncio"] == []


async def test_stop_ends_everything(server: AdminServer, path: Path) -> None:
    """The file goes, and waiting connections are closed; a second stop does nothing."""
    reader, writer = await asyncio.open_unix_connection(path)
    # One more round, so that it is accepted.
    assert (await Client(path)("GET", "/v1/status"))[0] == 200
    await server.stop()
    assert not path.exists()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    await server.stop()


async def test_answer_under_way_is_finished(server: AdminServer, path: Path) -> None:
    """Who asked before the stop gets the answer."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Slow(FakeCommands):
        async def upgrade(self) -> int:
            begun.set()
            await go_on.wait()
            return 7

    await server.stop()
    await server.start(Slow())
    asked = asyncio.create_task(Client(path)("POST", "/v1/upgrade"))
    await begun.wait()
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0)
    go_on.set()
    await stopping
    assert await asked == (200, {"pid": 7})


async def test_take_over(server: AdminServer, path: Path) -> None:
    """A second one is refused; a successor is asked from then on, and outlives the first."""
    successor, commands = AdminServer(path), FakeCommands()
    with pytest.raises(SocketError, match=f"another balanceme, process {os.getpid()}, answers"):
        await successor.start(commands)
    await successor.stop()
    await successor.start(commands, takes_over=True)
    for _ in range(2):
        assert (await Client(path)("POST", "/v1/upgrade"))[0] == 200
        await server.stop()
    assert commands.asked == [("upgrade",)] * 2
    await successor.stop()
    assert not path.exists()
