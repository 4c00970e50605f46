"""What a supervisor tells of a request's way, and that it changes nothing by telling."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from proxy.control.cluster import Cluster
from proxy.control.commands import CommandError, DrainUntil, Question
from proxy.control.explaining import explain, explain_file
from proxy.control.operations import Operations
from proxy.control.scoreboard import MemberCounters
from proxy.control.session_answers import Ordered
from proxy.control.standing import Standing
from proxy.control.verdicts import Verdicts
from proxy.control.worker import Worker
from proxy.core.health import Verdict
from proxy.core.moves import Move
from proxy.core.sessions import cookie_hash
from proxy.core.settings import OperatorStatus, Settings
from proxy.core.takeover import Said
from tests.control.clusters import settings
from tests.fakes import FakeClock, FakeLoop

ROOT = Said("root", 1764000000.0, "new disk")
COOKIE = "ROUTE=x.server2"


class Desk:
    """A cluster of three, and who commands it."""

    def __init__(self, *members: dict[str, Any]) -> None:
        self.cluster = Cluster(settings(*(members or ({}, {}, {}))), 1)
        self.operations = Operations(self.cluster, Verdicts(self.cluster))

    def ask(self, cookie: str | None = COOKIE, target: str = "/") -> dict[str, Any]:
        """Why a request goes where it does."""
        return explain(self.cluster, Question(target, cookie=cookie))

    def served_by(self, cookie: str | None = COOKIE) -> list[str]:
        """The routes of who may get it."""
        return [each["route"] for each in self.ask(cookie)["members"]]


@pytest.fixture
def desk() -> Desk:
    """One of three members."""
    return Desk()


def test_its_own_member(desk: Desk) -> None:
    """A session that stays: all there is to tell."""
    told = desk.ask()
    assert told.pop("steps")[-1] == "no session_cookie: balanceme sets none"
    assert told == {
        "balancer": "mail",
        "members": [{"route": "server2", "url": "http://server2"}],
        "session": "kept",
        "reason": "its own member",
        "status": None,
        "set_cookie": None,
    }


def test_what_was_said_of_members(desk: Desk) -> None:
    """Drains, takeovers and disabled members are told with by whom and why."""
    first, second, third = desk.cluster.members
    desk.operations.drain(third, DrainUntil(), ROOT)
    desk.operations.failover(second, "server1", ROOT)
    told = desk.ask()
    assert [each["route"] for each in told["members"]] == ["server1"]
    assert (told["session"], told["reason"]) == ("moved", "failover map")
    said = "by root on Mon, 24 Nov 2025 16:00:00 GMT: new disk"
    assert f"server2: server1 has taken over its sessions, said {said}" in told["steps"]
    assert f"member server3: drained {said}; takes its own sessions only" in told["steps"]
    desk.operations.clear_failover(second, ROOT)
    desk.operations.set_status(second, OperatorStatus.DISABLED, ROOT)
    assert desk.served_by() == ["server1"]
    assert f"member server2: disabled {said}; takes nothing" in desk.ask()["steps"]
    desk.operations.set_status(first, OperatorStatus.STOPPED, ROOT)
    told = desk.ask()
    assert (told["members"], told["status"], told["session"]) == ([], 503, "kept")


def test_terms(desk: Desk) -> None:
    """Members are elected by the terms of now."""
    desk.operations.set_terms(desk.cluster.members[0], {"load_factor": 3, "lbset": 1}, ROOT)
    desk.operations.set_terms(desk.cluster.members[2], {"hot_standby": True}, ROOT)
    assert desk.served_by(None) == ["server2"]
    desk.operations.set_status(desk.cluster.members[1], OperatorStatus.DISABLED, ROOT)
    assert desk.served_by(None) == ["server3"]
    desk.operations.set_status(desk.cluster.members[2], OperatorStatus.DISABLED, ROOT)
    assert "server1 (load factor 3): the only one" in " ".join(desk.ask(None)["steps"])


def test_errors_and_verdicts(desk: Desk) -> None:
    """Who is in error, or fails its checks, is told with how long and why."""
    view = desk.cluster.members[1]
    counters = MemberCounters(error_since=time.monotonic() - 10)
    desk.cluster.board.set_counters(0, 1, counters)
    desk.cluster.take_errors()
    assert desk.served_by() == ["server1", "server3"]
    assert "member server2: in error for 50 s more" in " ".join(desk.ask()["steps"])
    view.status = view.status._replace(recovered=time.monotonic())
    assert desk.served_by() == ["server2"]
    view.status = view.status._replace(verdict=Verdict.FAILED)
    assert desk.served_by() == ["server1", "server3"]
    assert "member server2: check failed; takes nothing" in desk.ask()["steps"]


def test_nothing_changes(desk: Desk) -> None:
    """However often it is asked, no count goes on and no status changes (F7)."""
    for index in range(3):
        counters = MemberCounters(error_since=time.monotonic())
        desk.cluster.board.set_counters(0, index, counters)
    desk.cluster.take_errors()

    def all_there_is() -> list[object]:
        views = desk.cluster.members
        return [(view.status, view.drain, desk.cluster.counters(i)) for i, view in enumerate(views)]

    before = all_there_is()
    told = [desk.ask(None) for _ in range(3)]
    assert told[0] == told[1] == told[2]
    assert all_there_is() == before
    assert not desk.cluster.happenings.take()


def test_a_session_that_is_moved(desk: Desk) -> None:
    """A session that the operator moves goes there, if its own cookie tells which it is."""
    salt, cookie = b"salt", f"{COOKIE}; ZARAFA_WEBAPP=abc"
    move = Move("server3", "server2", time.monotonic() + 60)
    moves = (Ordered("mail", cookie_hash(salt, cookie.encode()), move),)
    told = explain(desk.cluster, Question("/", cookie=cookie), moves, salt)
    assert [each["route"] for each in told["members"]] == ["server3"]
    assert (told["session"], told["reason"]) == ("moved", "moved by the operator")
    assert "the operator moves the session to server3" in told["steps"]
    told = explain(desk.cluster, Question("/", cookie=COOKIE), moves, salt)
    assert [each["route"] for each in told["members"]] == ["server2"]
    assert "whether this one is can't be told" in " ".join(told["steps"])
    told = explain(desk.cluster, Question("/", cookie=f"{cookie}d"), moves, salt)
    assert [each["route"] for each in told["members"]] == ["server2"]
    assert "by the operator" not in " ".join(told["steps"])


def test_workers_do_the_same() -> None:
    """A worker that takes the same board sends the request where it was said to go."""
    desk = Desk({"redirect_route": "server3"}, {}, {"hot_standby": True})
    first, second, _ = desk.cluster.members
    clock = FakeClock()
    loop = FakeLoop(clock)
    worker = Worker(desk.cluster.settings, loop)
    loop.close()
    standing = Standing(worker, desk.cluster.board)
    steps: tuple[Callable[[], object], ...] = (
        lambda: None,
        lambda: desk.operations.failover(second, "server1", ROOT),
        lambda: desk.operations.set_status(first, OperatorStatus.DRAIN, ROOT),
        lambda: desk.operations.set_status(first, OperatorStatus.DISABLED, ROOT),
        lambda: desk.operations.clear_failover(second, ROOT),
        lambda: desk.operations.set_terms(second, {"lbset": 5}, ROOT),
    )
    for step in steps:
        step()
        standing.take()
        for cookie in (None, "ROUTE=x.server1", "ROUTE=x.server2", "ROUTE=x.server9"):
            told = desk.ask(cookie)
            field = None if cookie is None else cookie.encode()
            choice = worker.balancers["mail"].choose(b"/", field, time.monotonic())
            assert choice.member is not None
            assert choice.member.name in [each["route"] for each in told["members"]]
            assert (told["session"], told["reason"]) == (choice.session.value, choice.reason.value)


# --- the question ------------------------------------------------------------------------------


def frontends(*blocks: dict[str, Any], **top: Any) -> Cluster:
    """A cluster with these frontends."""
    tls = {"certificate": "a.pem"}
    made = [
        {key: (tls if key == "tls" else value) for key, value in block.items()} for block in blocks
    ]
    return Cluster(settings({}, top={"frontends": made, **top}), 1)


MAPPINGS = [{"path": "/", "balancer": "mail"}]
SITE = (
    {"listen": "0.0.0.0:80", "redirect_to_https": True},
    {"listen": "0.0.0.0:443", "tls": True, "server_name": "us", "mappings": MAPPINGS},
    {"listen": "0.0.0.0:8080", "mappings": MAPPINGS},
    {"listen": "0.0.0.0:8443", "tls": True, "mappings": MAPPINGS},
)


@pytest.mark.parametrize(
    ("question", "listen"),
    [
        (Question("/"), "0.0.0.0:443 speaks TLS"),
        (Question("/", tls=False), "0.0.0.0:8080 speaks plain HTTP"),
        (Question("/", tls=True), "0.0.0.0:443 speaks TLS"),
        (Question("http://us/"), "0.0.0.0:80 speaks plain HTTP"),
        (Question("http://us:8080/"), "0.0.0.0:8080 speaks plain HTTP"),
        (Question("HTTPS://us:8443"), "0.0.0.0:8443 speaks TLS"),
        (Question("https://us:10443/a#b"), "0.0.0.0:443 speaks TLS"),
        (Question("https://[::1]:8443/a"), "0.0.0.0:8443 speaks TLS"),
        (Question("https://us/", listen="0.0.0.0:8443"), "0.0.0.0:8443 speaks TLS"),
        (Question("/", listen="0.0.0.0:80"), "0.0.0.0:80 speaks plain HTTP"),
    ],
)
def test_the_frontend(question: Question, listen: str) -> None:
    """The frontend is the one that is named, or the first that fits: by TLS, port and mappings."""
    told = explain(frontends(*SITE), question)
    assert told["steps"][0] == f"frontend {listen}"
    redirected = "0.0.0.0:80 " in listen
    assert told["status"] == (301 if redirected else None)


def test_a_url_is_a_request() -> None:
    """A URL's host and path are asked for; a Host that is told counts before it."""
    mappings = [{"path": "/", "host": "mail.zarafa.com", "balancer": "mail"}]
    cluster = frontends({"listen": "0.0.0.0:80", "mappings": mappings})
    assert explain(cluster, Question("http://mail.zarafa.com?a"))["members"]
    assert explain(cluster, Question("http://zarafa.com/"))["status"] == 404
    assert explain(cluster, Question("http://10.0.0.1/", host="mail.zarafa.com"))["members"]
    assert explain(cluster, Question("/"))["status"] == 404


@pytest.mark.parametrize(
    ("question", "told"),
    [
        (
            Question("/", listen="[::]:80"),
            r"no frontend listens on \[::\]:80; there are: 0.0.0.0:80",
        ),
        (
            Question("http://us/", listen="0.0.0.0:443"),
            "0.0.0.0:443 is none that speaks plain HTTP",
        ),
        (Question("http://us/", tls=True), "the URL says http; name a path to ask for the other"),
        (Question("/", cookie="a\r\nHost: b"), "one line each, without control characters"),
        (Question("/\x7f"), "one line each, without control characters"),
    ],
)
def test_no_such_question(question: Question, told: str) -> None:
    """What nobody could ask is refused in words."""
    with pytest.raises(CommandError, match=told):
        explain(frontends(*SITE), question)


def test_without_such_a_frontend() -> None:
    """Without a frontend that speaks TLS there is nothing to explain."""
    with pytest.raises(CommandError, match="no frontend speaks TLS"):
        explain(frontends(SITE[2]), Question("https://us/"))


def test_leaving() -> None:
    """What those before us are told is what they would be told now."""
    cluster = frontends(SITE[2], health_path="/health")
    assert explain(cluster, Question("/health"))["status"] == 200
    cluster.board.leaving = True
    assert explain(cluster, Question("/health"))["status"] == 503


def test_any_text_is_a_question(desk: Desk) -> None:
    """Text beyond ASCII, and what is no cookie, is explained too, in printable words."""
    for text in ("ROUTE=x.sérver2", "ROUTE=\u202e.\u202e", "=;,=", "", "ROUTE"):
        told = desk.ask(text, f"/?{text or 'a'}")
        assert all(step.isprintable() for step in told["steps"])


# --- a file alone ------------------------------------------------------------------------------


def test_a_file_alone() -> None:
    """Members are as the file says, with their checks passed, and that is told."""
    check = {"health_checks": [{"type": "tcp"}]}
    file: Settings = settings(check, {"status": "disabled", **check})
    told = explain_file(file, Question("/", cookie=COOKIE))
    assert told["steps"][0].startswith("members are as the file says: checks pass")
    assert [each["route"] for each in told["members"]] == ["server1"]
    assert "member server2: disabled by the configuration; takes nothing" in told["steps"]
    assert Cluster(file, 1).members[0].status.verdict is Verdict.UNKNOWN
