"""How many requests wait for news on each member."""

from types import SimpleNamespace
from typing import Any, cast

from proxy.control import waiting as module
from proxy.control.waiting import Waiting
from proxy.dataplane.frontend_connection import FrontendConnection

NOW = 1000.0


def connection(member: object, begun: float | None) -> FrontendConnection:
    """A client whose request has waited for news since ``begun``, or one without a request."""
    exchange = SimpleNamespace(
        placement=SimpleNamespace(member=member),
        waits_for_news=lambda now: begun is not None and now - begun >= 10,
    )
    return cast(FrontendConnection, SimpleNamespace(exchange=begun and exchange))


def counted(waiting: Waiting, now: float = NOW) -> Any:
    """What is counted after a tick."""
    waiting.tick(now)
    return waiting.counts


def test_waiting_by_member() -> None:
    """Each request that waits counts on its member, and as long as it waits."""
    waits = [connection("a", NOW - 10), connection("b", NOW - 9), connection("a", NOW - 99)]
    connections = [*waits, connection("b", None)]
    waiting = Waiting(connections)
    assert counted(waiting) == {"a": 2}
    assert counted(waiting, NOW + 1) == {"a": 2, "b": 1}
    del connections[:2]
    assert counted(waiting) == {"a": 1}
    assert repr(waiting) == "<Waiting 1>"


def test_waiting_is_counted_over_several_ticks() -> None:
    """However many connections there are, a tick looks at some; the counts are those of all."""
    count = module._AT_ONCE * 2 + 1
    waiting = Waiting([connection("a", 1.0) for _ in range(count)])
    assert [counted(waiting)["a"] for _ in range(4)] == [0, 0, count, count]
