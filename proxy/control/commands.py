"""What can be asked of a running supervisor, whoever asks.

The rule: who administers knows this Protocol and not the supervisor. Nothing here does anything.
"""

from typing import Any, Protocol

from proxy.core.settings import OperatorStatus


class CommandError(Exception):
    """A command that can't be carried out; the message says why, in words for the operator."""


class Commands(Protocol):
    """The supervisor, as the API and with it the command line see it."""

    async def status(self) -> dict[str, Any]:
        """How everything is, as one tree that JSON can hold.

        ``version``, ``pid``, ``generation``, ``started`` (seconds since 1970), ``config_file``,
        ``phase`` (``starting``, ``serving``, ``leaving`` or ``stopping``), ``connections``,
        ``requests``; ``frontends`` with ``listen`` and ``tls``; ``workers`` with ``number``,
        ``pid``, ``phase``, ``generation``, ``connections``, ``requests``, ``started`` and
        ``heartbeat`` (seconds since the last one); ``balancers`` by name with ``lbmethod`` and
        ``members``, each with ``route``, ``url``, ``status`` (in words), ``operator``,
        ``check_failed``, ``in_error``, ``busy``, ``elected``, ``sent``, ``received`` (bytes) and
        ``sessions``, maybe ``letters``. Whoever reads it copes with more keys and with fewer.
        """

    async def reload(self, *, dry_run: bool) -> list[str]:
        """Put the configuration file in force, or with ``dry_run`` only say what it would change.

        What changes, a line each. Raises ConfigError if the file can't be used, CommandError if
        there can be no reload now.
        """

    async def upgrade(self) -> int:
        """Start the program anew on the same sockets; the new supervisor's process id.

        Raises CommandError if the new program was dropped; then this one serves on.
        """

    def stop(self, *, at_once: bool) -> None:
        """Begin to stop: gracefully, or by cutting what is under way."""

    async def set_operator_status(self, balancer: str, member: str, status: OperatorStatus) -> None:
        """Set what the operator wants of a member, named by its route or its url.

        Raises CommandError for a name that nobody has.
        """
