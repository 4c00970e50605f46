"""Asking a program of the operator's, which knows better: exit status 0 passes."""

from proxy.control import programs
from proxy.control.probes.result import ProbeError, Target
from proxy.core.settings import HealthCheck

# Bytes of its output that are kept; its first line is told.
MOST_OUTPUT = 4096


async def ask(check: HealthCheck, target: Target, seconds: float) -> str:
    """Run it for at most ``seconds``; how it ended, with what it said. Raises ProbeError."""
    environ = programs.inherited() | {
        "BALANCEME_HOST": target.host,
        "BALANCEME_PORT": str(target.port),
        "BALANCEME_ROUTE": target.route or "",
        "BALANCEME_URL": target.url,
    }
    finished = await programs.run(check.command, timeout=seconds, environ=environ, most=MOST_OUTPUT)
    if finished.status != 0:
        raise ProbeError(finished.text)
    return finished.text
