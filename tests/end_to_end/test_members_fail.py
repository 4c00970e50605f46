"""Members that die, hang, vanish and flap under a load of sessions: who moves, and how soon.

What is asked of all of it: no session changes its member without need, only requests are lost that
a dead member held, and within one check interval and a second every session is served again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.end_to_end.conftest import Launcher, Proxy, until_async
from tests.end_to_end.member_process import MemberProcess
from tests.end_to_end.processes import status_of
from tests.end_to_end.session_load import Load

pytestmark = pytest.mark.slow

INTERVAL = 1.0
# One check interval and a second.
SOON = INTERVAL + 1.0
ROUTES = ["server1", "server2", "server3"]
EACH = 8


@pytest.fixture
def three(free_port: Callable[[], int]) -> Iterator[list[MemberProcess]]:
    """Three members that serve."""
    made = [MemberProcess(name, free_port()) for name in ROUTES]
    for member in made:
        member.start()
    yield made
    for member in made:
        member.end()


@pytest.fixture
def proxy(serve: Launcher, three: list[MemberProcess]) -> Proxy:
    """Two workers before them, with health checks; one member takes over all of another's."""
    frontend = serve.frontend({"path": "/", "balancer": "cluster"}, tls=False)
    frontend["timeouts"] = {"keep_alive": "60s"}
    check = {"type": "http", "interval": f"{INTERVAL:g}s", "timeout": "500ms", "fails": 1}
    cluster = {
        "sticky_session": "BALANCEME",
        "session_cookie": {},
        "members": [member.settings for member in three],
        "takeover": "auto",
        "hold_off": "500ms",
        "timeouts": {"connect": "500ms"},
        "health_checks": [{**check, "passes": 1}],
    }
    settings = {"frontends": [frontend], "balancers": {"cluster": cluster}, "workers": 2}
    return serve.run(settings)


@pytest.fixture
async def load(proxy: Proxy) -> AsyncIterator[Load]:
    """Sessions on all three members, each on its own."""
    async with Load(proxy.address(), ROUTES, EACH) as load:
        await until_async(
            lambda: all(len(each.answers) > 2 for each in load.sessions), "all are served"
        )
        assert load.moves(0) == []
        yield load


async def is_down(proxy: Proxy, route: str) -> None:
    """Wait until the checks have found it."""
    await until_async(lambda: status_of(proxy, route)["verdict"] == "check failed", "it is down")


async def is_up(proxy: Proxy, route: str) -> None:
    """Wait until it serves again."""
    await until_async(lambda: status_of(proxy, route)["verdict"] == "passed", "it is up")


async def for_a_while(seconds: float) -> None:
    """Let the sessions ask."""
    await asyncio.sleep(seconds)


def only_from(load: Load, since: float, *routes: str) -> None:
    """Nobody moves but from these members, and from each of them all to one other."""
    moves = load.moves(since)
    assert {before for before, _, _ in moves} <= set(routes)
    at_home = [each for each in load.sessions if len({a.member for a in each.answers} - {""}) == 1]
    assert len(at_home) >= (len(ROUTES) - len(routes)) * EACH


async def test_killed_and_back(proxy: Proxy, load: Load, three: list[MemberProcess]) -> None:
    """A member is killed: its sessions move, each once, and stay when it is back.

    A request that its connection was refused for goes on to another member, so that only what it
    held is lost.
    """
    begun = time.monotonic()
    three[1].kill()
    await is_down(proxy, "server2")
    await for_a_while(0.5)
    assert load.served_again(begun) < SOON
    only_from(load, begun, "server2")
    assert len(load.moves(begun)) == EACH
    assert len(load.lost(begun)) <= EACH
    three[1].start()
    await is_up(proxy, "server2")
    back = time.monotonic()
    await for_a_while(0.5)
    assert load.moves(back) == []
    assert load.lost(back) == []


@pytest.mark.parametrize("how", ["hang", "black_hole"])
async def test_silent(proxy: Proxy, load: Load, three: list[MemberProcess], how: str) -> None:
    """A member hangs, or its packets are lost: its sessions are served as soon as checks find it.

    What was sent to it is lost; nobody else notices.
    """
    begun = time.monotonic()
    getattr(three[1], how)()
    await is_down(proxy, "server2")
    await for_a_while(2.0)
    # A client finds out that its request is lost when it waits no longer.
    assert load.served_again(begun) < SOON + 1.5
    only_from(load, begun, "server2")
    assert len(load.moves(begun)) == EACH
    assert len(load.lost(begun)) <= 2 * EACH
    if how == "hang":
        three[1].go_on()
    else:
        three[1].leave_hole()
        three[1].start()
    await is_up(proxy, "server2")
    back = time.monotonic()
    await for_a_while(0.5)
    assert load.moves(back) == []


async def test_flapping(proxy: Proxy, load: Load, three: list[MemberProcess]) -> None:
    """A member that dies again and again costs its sessions one move, and is held off longer."""
    begun = time.monotonic()
    for _ in range(3):
        three[1].kill()
        await is_down(proxy, "server2")
        three[1].start()
        await until_async(
            lambda: status_of(proxy, "server2")["verdict"] == "held off", "it is held off"
        )
    await for_a_while(0.3)
    only_from(load, begun, "server2")
    assert len(load.moves(begun)) == EACH
    held = time.monotonic()
    await is_up(proxy, "server2")
    assert time.monotonic() - held > 1.0  # of 2 s
    assert load.moves(held) == []


async def test_all_down_and_back(proxy: Proxy, load: Load, three: list[MemberProcess]) -> None:
    """When all are gone sessions get 503 and keep their cookies; the first one back serves all."""
    for member in three:
        member.kill()
    for member in three:
        await is_down(proxy, member.name)
    gone = time.monotonic()
    await for_a_while(0.3)
    assert {answer.status for answer in load.lost(gone)} == {503}
    three[2].start()
    begun = time.monotonic()
    await is_up(proxy, "server3")
    await for_a_while(0.5)
    assert load.served_again(begun) < SOON
    last = [session.answers[-1].member for session in load.sessions]
    assert set(last) == {"server3"}
    for member in three[:2]:
        member.start()
    for member in three[:2]:
        await is_up(proxy, member.name)
    back = time.monotonic()
    await for_a_while(0.5)
    assert load.moves(back) == []


async def test_restarted_in_a_moment(load: Load, three: list[MemberProcess]) -> None:
    """A member that is back before a check has looked has lost what it held, and little more."""
    begun = time.monotonic()
    three[1].kill()
    three[1].start()
    await for_a_while(INTERVAL)
    only_from(load, begun, "server2")
    assert load.served_again(begun) < SOON
    assert len(load.lost(begun)) <= EACH
