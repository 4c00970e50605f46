"""The article's whole story: two hosts, each with a frontend and a member, and a cluster manager.

Round-robin DNS brings a client to either frontend, and each keeps every session on its member. Then
a host dies: the slave on the other one takes its services over and rewrites the include of its own
frontend; the cookies of the dead member are turned into those of the survivor. The host comes
back fenced: nothing reaches it until the administrator has looked at it. Nobody loses a session
that needn't.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Dial, Launcher, Proxy, Yaml, until
from tests.end_to_end.member_process import MemberProcess
from tests.end_to_end.processes import status_of
from tests.end_to_end.raw_client import RawClient
from tests.end_to_end.reloads import ask, command

pytestmark = pytest.mark.slow

INCLUDE = """\
RewriteCond %{HTTP_COOKIE} BALANCEME=(Balancer.server2)
RewriteRule .* - [CO=BALANCEME:Balancer.server1:example.org:60]
"""


@pytest.fixture
def hosts(free_port: Callable[[], int]) -> Iterator[list[MemberProcess]]:
    """The members of two hosts, which serve."""
    made = [MemberProcess(name, free_port()) for name in ("server1", "server2")]
    for member in made:
        member.start()
    yield made
    for member in made:
        member.end()


class Host:
    """The frontend of one host."""

    def __init__(self, serve: Launcher, number: int, hosts: list[MemberProcess], folder: Path):
        self.include = folder / f"server{number}-failover.inc"
        self.include.write_text("")
        check = {"type": "http", "interval": "500ms", "timeout": "400ms", "fails": 1, "passes": 1}
        cluster: Yaml = {
            "sticky_session": "BALANCEME",
            "session_cookie": {
                "domain": "example.org",
                "assign": "own",
                "own_route": f"server{number}",
            },
            "members": [member.settings for member in hosts],
            "failover_file": str(self.include),
            "fence": "on_failure",
            "hold_off": 0,
            "health_checks": [check],
        }
        frontend = serve.frontend({"path": "/", "balancer": "cluster"}, tls=False)
        state = folder / f"state{number}"
        settings = {"frontends": [frontend], "balancers": {"cluster": cluster}}
        self.proxy = serve.run({**settings, "state_folder": str(state)})


class Browser:
    """A client of the cluster, whom DNS brings to one frontend or the other."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self.cookie = ""

    def visit(self, proxy: Proxy) -> str:
        """Who serves its next request."""
        client: RawClient = self._dial(proxy)
        fields = [f"Cookie: {self.cookie}"] if self.cookie else []
        answer = ask(client, "/", *fields)
        client.close()
        cookie = answer.value(b"set-cookie")
        if cookie is not None:
            self.cookie = cookie.partition(b";")[0].decode()
        return answer.body.decode()


def test_the_whole_story(
    serve: Launcher, hosts: list[MemberProcess], dial: Dial, tmp_path: Path
) -> None:
    """Sessions stay, move once when they must, and stay again; cookies always say the truth."""
    first, second = (Host(serve, number, hosts, tmp_path) for number in (1, 2))
    both = (first.proxy, second.proxy)

    # Each frontend gives new sessions its own host's member, and leads all others to theirs.
    one, two = Browser(dial), Browser(dial)
    assert (one.visit(first.proxy), two.visit(second.proxy)) == ("server1", "server2")
    for proxy in (*both, *both):
        assert (one.visit(proxy), two.visit(proxy)) == ("server1", "server2")
    assert (one.cookie, two.cookie) == ("BALANCEME=balancer.server1", "BALANCEME=balancer.server2")

    # The second host dies, frontend and member; DNS has the first one left.
    second.proxy.stop()
    hosts[1].kill()
    assert two.visit(first.proxy) == "server1"
    assert two.cookie == "BALANCEME=balancer.server1"
    sleeper = Browser(dial)
    sleeper.cookie = "BALANCEME=balancer.server2"
    until(lambda: status_of(first.proxy, "server2")["verdict"] == "fenced", "it is found dead")

    # The slave takes over, and rewrites its frontend's include.
    first.include.write_text(INCLUDE)
    until(lambda: status_of(first.proxy, "server2")["takeover"], "that is in force", 1.5)
    assert sleeper.visit(first.proxy) == "server1"
    assert sleeper.cookie == "BALANCEME=balancer.server1"
    assert Browser(dial).visit(first.proxy) == "server1"

    # The host comes back. It stays fenced, over a restart of the frontend as well.
    hosts[1].start()
    assert first.proxy.stop() == []
    first.proxy.start()
    until(lambda: status_of(first.proxy, "server2")["checks"][0]["passing"], "it answers again")
    assert status_of(first.proxy, "server2")["verdict"] == "fenced"
    for browser in (one, two, sleeper, Browser(dial)):
        assert browser.visit(first.proxy) == "server1"

    # The administrator has looked at it: its services go back, the include is empty again.
    first.include.write_text("")
    until(lambda: status_of(first.proxy, "server2")["takeover"] is None, "that is in force", 1.5)
    done = command(first.proxy, "readmit", "server2", "--reason", "new disk")
    assert done.returncode == 0, done.stderr
    second.proxy.start()
    until(lambda: status_of(second.proxy, "server2")["verdict"] == "passed", "it is back")
    assert status_of(first.proxy, "server2")["status"] == "ok"

    # Whoever was moved stays where the session is now; new ones begin on both.
    for proxy in both:
        for browser in (one, two, sleeper):
            assert browser.visit(proxy) == "server1"
    new = Browser(dial)
    assert new.visit(second.proxy) == "server2"
    assert {new.visit(proxy) for proxy in both} == {"server2"}
