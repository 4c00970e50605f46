"""A whole exchange without sockets: what Python itself costs of a sticky request.

The bytes of the request go in, those for the member come out; the response's the other way.
"""

import asyncio
from pathlib import Path
from typing import Any, cast

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.micro.test_core import ANSWER, STICKY
from proxy.control.log_files import LineSink, open_log
from proxy.control.worker import Worker
from proxy.core.reading import settings_from_tree
from proxy.core.settings import LogFormat
from proxy.dataplane.frontend_connection import FrontendConnection
from proxy.dataplane.member_connection import MemberConnection


class Sink:
    """A transport that takes everything at once and keeps the last write."""

    def __init__(self) -> None:
        self.last = b""

    def write(self, data: bytes) -> None:
        """Take it."""
        self.last = data

    def is_closing(self) -> bool:
        """It never closes."""
        return False

    def get_write_buffer_size(self) -> int:
        """Nothing ever waits."""
        return 0

    def get_extra_info(self, name: str) -> Any:
        """A client's address, and no socket."""
        return ("192.0.2.1", 1024) if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None:
        """There is no buffer."""


def test_exchange(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Request in, request out, response in, response out, and a line in the access log."""
    members = [{"url": f"http://127.0.0.1:{n}", "route": f"server{n}"} for n in (1, 2)]
    tree = {
        "frontends": [
            {"listen": "127.0.0.1:8080", "mappings": [{"path": "/", "balancer": "cluster"}]}
        ],
        "balancers": {
            "cluster": {
                "sticky_session": "BALANCEME",
                "session_cookie": {"domain": "zarafa.com"},
                "members": members,
            }
        },
    }
    loop = asyncio.new_event_loop()
    worker = Worker(settings_from_tree(tree), loop)
    path = str(tmp_path / "access.log")
    sink = LineSink(open_log(path, 1, "access_log"), "access log")
    worker.access_log.replace(sink, LogFormat.COMBINED)
    (frontend,) = worker.frontends.values()
    client = FrontendConnection(frontend)
    client.connection_made(cast(asyncio.Transport, Sink()))
    pool = worker.pools[worker.balancers["cluster"].members[1]]
    member = MemberConnection(pool)
    member.connection_made(cast(asyncio.Transport, Sink()))
    pool.give_back(member, 0.0)

    def exchange() -> bytes:
        client.data_received(STICKY)
        member.data_received(ANSWER)
        return cast(Sink, client.transport).last

    assert benchmark(exchange).startswith(b"HTTP/1.1 200 OK\r\n")
    assert cast(Sink, member.transport).last.startswith(b"GET /small HTTP/1.1\r\n")
    worker.access_log.close()
    loop.close()
