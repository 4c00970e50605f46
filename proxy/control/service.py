"""What the supervisor is handed to run beside its workers, without knowing what it is."""

from typing import Protocol

from proxy.control.commands import Commands


class Service(Protocol):
    """What runs beside the workers in the supervisor's loop."""

    async def start(self, commands: Commands, *, takes_over: bool) -> None:
        """Begin; raises ConfigError if it can't. ``takes_over``: another program's has to go."""

    async def take_back(self) -> None:
        """Begin again if another program had taken over, and is gone; raises ConfigError."""

    async def stop(self) -> None:
        """End."""
