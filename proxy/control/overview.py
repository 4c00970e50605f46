"""What people are told of what is served: by the status command, by the API, by systemd.

Nothing is decided here, and nothing kept. The words are those of ``commands.Commands.status``.
"""

import time
from typing import Any

from proxy.control.served import Served


async def overview(served: Served) -> dict[str, Any]:
    """All that is known of what is served, ready for JSON."""
    sessions = await served.count_sessions()
    workers = _workers(served)
    return {
        "generation": served.generation,
        "frontends": [
            {"listen": each.listen, "tls": bool(each.certificates)}
            for each in served.settings.frontends
        ],
        "connections": sum(each["connections"] for each in workers),
        "requests": served.cluster.exchanges,
        "workers": workers,
        "balancers": served.cluster.as_json(sessions),
    }


def in_numbers(served: Served) -> str:
    """How much is served, for one line."""
    workers = _workers(served)
    connections, requests = sum(each["connections"] for each in workers), served.cluster.exchanges
    return f"serving: {connections} connections, {requests} requests, {len(workers)} workers"


def _workers(served: Served) -> list[dict[str, Any]]:
    """The workers in their slots."""
    now, wall = time.monotonic(), time.time()
    told = []
    for worker in served.workers.current:
        counters = served.cluster.board.worker(worker.number)
        told.append(
            {
                "number": worker.number + 1,
                "pid": worker.pid,
                "phase": worker.phase.value,
                "generation": worker.generation,
                "connections": int(counters.connections),
                "requests": int(counters.exchanges),
                "started": wall - (now - worker.started),
                "heartbeat": round(now - counters.heartbeat, 3),
            }
        )
    return told
