"""What can be asked of a running supervisor, whoever asks.

The rule: who administers knows this Protocol and not the supervisor. Nothing here does anything.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from proxy.core.settings import OperatorStatus
from proxy.core.takeover import Said


class CommandError(Exception):
    """A command that can't be carried out; the message says why, in words for the operator."""


class DrainUntil(NamedTuple):
    """How a drain ends; with neither it goes on until the operator says otherwise."""

    # when sessions that are left move elsewhere, in seconds since 1970
    deadline: float | None = None
    # whether the member is disabled once nothing is left on it
    empty: bool = False


class Question(NamedTuple):
    """A request whose way is asked for, as its client would send it."""

    # a path with its query, or a whole URL, which names host and TLS
    target: str
    host: str | None = None
    # the Cookie field
    cookie: str | None = None
    # the address of a frontend; the first that fits when left out
    listen: str | None = None
    tls: bool | None = None


class MemberCommands(Protocol):
    """What can be said of members; each is named by its balancer, and by its route or url.

    All raise CommandError for a name that nobody has, and for what can't be.
    """

    async def set_operator_status(
        self, balancer: str, member: str, status: OperatorStatus, said: Said
    ) -> None:
        """Set what the operator wants of a member."""

    async def drain(self, balancer: str, member: str, until: DrainUntil, said: Said) -> None:
        """Give a member no new sessions, and end those it has as ``until`` says."""

    async def set_terms(
        self, balancer: str, member: str, changes: Mapping[str, Any], said: Said
    ) -> None:
        """Change how a member is elected.

        ``changes``: any of ``load_factor``, ``lbset``, ``hot_standby`` and ``hot_spare``.
        """

    async def failover(self, balancer: str, member: str, heir: str | None, said: Said) -> None:
        """``heir`` has taken over the member's sessions; None: they are its own again."""

    async def readmit(self, balancer: str, member: str, said: Said) -> None:
        """A fenced member may serve again, as soon as its checks pass."""


class SessionCommands(Protocol):
    """What can be asked and said of sessions; all raise CommandError, also for unknown names.

    A session's id is 64 bits that hold until the supervisor ends; people see 16 hex digits.
    """

    async def listed(self, balancer: str | None, member: str | None, limit: int) -> dict[str, Any]:
        """The live sessions, or those of a balancer, of a member, or of both.

        ``total``, and those seen last as ``sessions``: at most ``limit``, and never more than 1000.
        Each has ``id``, ``balancer``, ``member``, ``live``, ``since`` and ``last`` (seconds since
        1970), ``moves`` (how many), ``session`` and ``reason``: what became of it when it came to
        its member, in the words of the access log, and why.
        """

    async def history(self, session: int) -> list[dict[str, Any]]:
        """What is known of one session, an entry as above for each balancer that it is in.

        With ``events``, each with ``at``, ``member``, ``session`` and ``reason``; and ``move``: an
        operator's, with ``member``, ``from``, ``at``, ``by`` and ``reason``, or None.
        """

    async def move(
        self, session: int, member: str, balancer: str | None, by: str, reason: str
    ) -> list[dict[str, str]]:
        """Move a session to a member with its next request, wherever both are.

        Each move's ``balancer``, ``from`` and ``to``.
        """

    def find(self, traits: Mapping[str, str]) -> int:
        """The id of the session that has these traits, be it known or not.

        ``cookie``: a Cookie field with a webmail's session; ``device`` and ``user`` of ActiveSync;
        or ``address``, ``user_agent`` and ``forwarded_for`` of a browser without such a cookie.
        """


class Commands(Protocol):
    """The supervisor, as the API and with it the command line see it."""

    async def status(self) -> dict[str, Any]:
        """How everything is, as one tree that JSON can hold.

        ``version``, ``pid``, ``generation``, ``started`` (seconds since 1970), ``config_file``,
        ``phase`` (``starting``, ``serving``, ``leaving`` or ``stopping``), ``connections``,
        ``requests``; ``frontends`` with ``listen`` and ``tls``; ``workers`` with ``number``,
        ``pid``, ``phase``, ``generation``, ``connections``, ``requests``, ``started`` and
        ``heartbeat`` (seconds since the last one); ``balancers`` by name with ``lbmethod`` and
        ``members``, each with ``route``, ``url``, ``status`` (in words), ``letters`` (Apache's),
        ``operator``, ``verdict``, ``reason``, ``in_error``, ``busy``, ``waiting`` (of the busy,
        those that wait for news), ``elected``, ``sent``, ``received`` (bytes), ``sessions``,
        ``load_factor``, ``lbset``, ``hot_standby``, ``hot_spare``, ``checks`` (``name``,
        ``required``, ``passing``, ``text``), ``said``, ``terms_said``, ``fenced``, ``takeover``
        (``heir``, ``origin``), each with ``by``, ``at`` and ``why``, and ``drain``. Whoever reads
        it copes with more keys and with fewer.
        """

    async def explain(self, question: Question) -> dict[str, Any]:
        """Why a request goes to its member; nothing is changed, and no count goes on.

        ``steps``, a list of sentences; ``balancer``; ``members`` with ``route`` and ``url``: the
        one that gets it, or those of whom each worker elects one, or none; ``session`` and
        ``reason`` in the words of the access log; ``status`` of our own answer; ``set_cookie``: the
        field's value if the first member gets it. What there isn't is None. Raises CommandError.
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

    @property
    def members(self) -> MemberCommands:
        """What can be said of members."""

    @property
    def sessions(self) -> SessionCommands:
        """What is known of sessions, and can be said of them."""

    def stop(self, *, at_once: bool) -> None:
        """Begin to stop: gracefully, or by cutting what is under way."""
