"""The wall clock may jump: what people and browsers read follows it, and nothing else does."""

import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Dial, Launcher, Members, Yaml, request, seen_by, until
from tests.end_to_end.jumping_clock import Jump
from tests.end_to_end.processes import ask, on_each, status, status_of
from tests.end_to_end.raw_client import Response
from tests.end_to_end.recording_member import Held, answer

pytestmark = pytest.mark.slow

YEAR = 365 * 86400
HOUR = 3600
# Longer than it takes the supervisor to look at its workers twice.
HEAD = 2.2


def configured(frontend: Yaml, url: str) -> Yaml:
    """Two workers for one member, with a cookie that lasts for an hour."""
    timeouts = {"keep_alive": "60s", "head": f"{HEAD}s"}
    cookie = {"domain": "example.org", "lifetime": "1h"}
    members = [{"url": url, "route": "server1"}]
    return {
        "workers": 2,
        "frontends": [frontend | {"timeouts": timeouts}],
        "balancers": {
            "cluster": {
                "sticky_session": "BALANCEME",
                "session_cookie": cookie,
                "members": members,
            }
        },
    }


def is_about(text: bytes | None, expected: float) -> bool:
    """Whether a time as HTTP has it is this one in seconds since 1970, but for the test's own."""
    assert text is not None
    return abs(parsedate_to_datetime(text.decode()).timestamp() - expected) < 60


def expires(response: Response) -> bytes:
    """Until when a browser keeps the session cookie."""
    cookie = response.value(b"set-cookie") or b""
    return cookie.lower().partition(b"expires=")[2].partition(b";")[0]


def test_wall_clock_jumps(serve: Launcher, members: Members, dial: Dial, tmp_path: Path) -> None:
    """When the wall clock jumps cookies and dates follow it; nobody is killed, or sent away.

    Deadlines are kept: not sooner because it is later all at once, and not later either.
    """
    jump, held = Jump(tmp_path / "clock"), Held(answer(b"news"))
    member = members("server1", {b"/ping": held})
    settings = configured(
        serve.frontend({"path": "/", "balancer": "cluster"}, tls=False),
        f"http://{member.authority.decode()}",
    )
    proxy = serve.run(settings, ("-m", "tests.end_to_end.jumping_clock", str(tmp_path / "clock")))
    workers = proxy.workers
    clients = on_each(proxy, lambda: dial(proxy)).values()
    ping = dial(proxy)
    assert ask(ping, "Cookie: BALANCEME=balancer.server1; PHPSESSID=abcdef").body == b"server1"
    ping.send(request("/ping"))
    until(lambda: seen_by(member, path=b"/ping"), "the Ping waits")
    for years in (10, -10):
        jump.seconds = years * YEAR
        for client in clients:
            assert is_about(expires(ask(client)), time.time() + years * YEAR + HOUR)
        slow = dial(proxy)
        slow.send(request("/")[:-2])
        begun = time.monotonic()
        response = slow.read_response(b"GET")
        assert response.status_line == b"HTTP/1.1 408 Request Timeout"
        assert time.monotonic() - begun > HEAD - 0.1
        assert is_about(response.value(b"date"), time.time() + years * YEAR)
        told = status(proxy)
        assert {each["phase"] for each in told["workers"]} == {"serving"}
        assert max(each["heartbeat"] for each in told["workers"]) < HEAD
        assert status_of(proxy)["sessions"] == 1
    held.let.set()
    assert ping.read_response(b"GET").body == b"news"
    assert proxy.workers == workers
    assert "WARNING" not in proxy.stderr()
    assert "ERROR" not in proxy.stderr()
