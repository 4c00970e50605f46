"""The members of what is served: commands about them, what checks say, drains, what is kept.

Whatever changes here is told to all workers, saved, and announced, in this order. It waits for
nothing but for workers to count their sessions.
"""

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

from proxy.control.cluster import Cluster
from proxy.control.commands import CommandError, DrainUntil
from proxy.control.drains import Drains
from proxy.control.failover_watch import FailoverFiles
from proxy.control.hooks import Happening
from proxy.control.journal import restore, saved
from proxy.control.live_sessions import Counts
from proxy.control.member_view import MemberView
from proxy.control.operations import Operations, member_named
from proxy.control.prober import Probed
from proxy.control.state import load_state, save_state
from proxy.control.verdicts import Verdicts
from proxy.core.settings import OperatorStatus, Takeover
from proxy.core.takeover import Origin, Said

log = logging.getLogger("balanceme")

# How often times that run out are looked at, in seconds, and how often sessions are counted where
# that matters: for a drain, or to know who has the fewest.
LOOK = 0.3
COUNT = 2.0
# How often it is tried again to save what could not be saved, in seconds.
RETRY = 60.0
# What was said of members and must survive, in the state folder.
STATE = "members.json"
# The same for the new program of an upgrade, in its environment.
VARIABLE = "BALANCEME_MEMBERS"


class Others(NamedTuple):
    """Whom the members' affairs concern."""

    # lets workers look at the board
    nudge: Callable[[], None]
    # counts live sessions, over all workers
    sessions: Callable[[], Awaitable[Counts]]
    # tells hooks what happened
    announce: Callable[[Happening], None]


class Members:
    """All members, and what is done about them."""

    def __init__(
        self,
        cluster: Cluster,
        loop: asyncio.AbstractEventLoop,
        folder: Path | None,
        others: Others,
    ) -> None:
        self._cluster = cluster
        self._loop = loop
        self._folder = folder
        self._others = others
        self._failover_files = FailoverFiles(cluster.settings)
        self._verdicts = Verdicts(cluster)
        self._operations = Operations(cluster, self._verdicts)
        self._drains = Drains(cluster)
        self._stopped = False
        self._counting: asyncio.Task[None] | None = None
        self._counted_at = 0.0
        # when what could not be saved is tried again; None if all is saved
        self._save_at: float | None = None
        # whether a new program has been told all that was said, and wouldn't hear of more
        self.handed_on = False
        self._handed: int | None = None

    # --- commands -------------------------------------------------------------------------------

    async def set_operator_status(
        self, balancer: str, member: str, status: OperatorStatus, said: Said
    ) -> None:
        """What the operator wants of a member; raises CommandError."""
        view = self._named(balancer, member)
        self._operations.set_status(view, status, said)
        self.changed()

    async def drain(self, balancer: str, member: str, until: DrainUntil, said: Said) -> None:
        """No new sessions for a member, and an end of those it has; raises CommandError."""
        view = self._named(balancer, member)
        self._operations.drain(view, until, said)
        self.changed()
        self._count_now()

    async def set_terms(
        self, balancer: str, member: str, changes: Mapping[str, Any], said: Said
    ) -> None:
        """How a member is elected; raises CommandError."""
        view = self._named(balancer, member)
        self._operations.set_terms(view, changes, said)
        self.changed()

    async def failover(self, balancer: str, member: str, heir: str | None, said: Said) -> None:
        """Who has taken over a member's sessions, or that nobody has; raises CommandError."""
        view = self._named(balancer, member)
        if heir is None:
            self._operations.clear_failover(view, said)
        else:
            self._operations.failover(view, heir, said)
        self.changed()

    async def readmit(self, balancer: str, member: str, said: Said) -> None:
        """A fenced member may serve again; raises CommandError."""
        self._operations.readmit(self._named(balancer, member), said)
        self.changed()

    def _named(self, balancer: str, member: str) -> MemberView:
        if self.handed_on:
            raise CommandError("an upgrade is under way, and would not hear of it; say it again")
        return member_named(self._cluster, balancer, member)

    # --- what happens by itself -----------------------------------------------------------------

    def take_probes(self, results: Iterable[Probed]) -> None:
        """Checks have results."""
        if not self._stopped and self._verdicts.take(results):
            self.changed()

    def configure(self) -> None:
        """Other settings are in force."""
        self._failover_files.configure(self._cluster.settings)
        maps = self._failover_files.maps
        for balancer in self._cluster.settings.balancers:
            self._operations.set_failover_file(balancer, maps.get(balancer, {}))
        self.changed()

    def look_at_files(self) -> None:
        """Take up what cluster managers have written about takeovers."""
        for reading in self._failover_files.look():
            for line in reading.text.splitlines():
                log.warning("%s: %s", reading.balancer, line)
            if reading.map is not None:
                self._operations.set_failover_file(reading.balancer, reading.map)
                self.changed()

    def start(self) -> None:
        """Look after what runs out from now on."""
        self._loop.call_later(LOOK, self._look)

    def stop(self) -> None:
        """Look after nothing any more: we stop, or another program does it from now on."""
        self._stopped = True

    def _look(self) -> None:
        if self._stopped:
            return
        self._loop.call_later(LOOK, self._look)
        self.look_at_files()
        if self._verdicts.tick():
            self.changed()
        if self._save_at is not None and self._loop.time() >= self._save_at:
            self.save()
        if self._loop.time() - self._counted_at >= COUNT and self._counts_matter:
            self._count_now()

    @property
    def _counts_matter(self) -> bool:
        by_count = any(
            each.takeover is Takeover.AUTO for each in self._cluster.settings.balancers.values()
        )
        return by_count or bool(self._drains.under_way)

    def _count_now(self) -> None:
        if self._counting is None or self._counting.done():
            self._counting = self._loop.create_task(self._take_counts())

    async def _take_counts(self) -> None:
        self._counted_at = self._loop.time()
        counts = await self._others.sessions()
        self._verdicts.sessions = counts.sessions
        if not self._stopped and self._drains.look(
            counts.sessions, counts.last_seen, complete=counts.complete
        ):
            self.changed()
        self._announce()

    def changed(self) -> None:
        """Something is other than it was: workers are told, it is kept, and announced."""
        self._others.nudge()
        self.save()
        self._announce()

    def _announce(self) -> None:
        if self.handed_on:
            return  # a new program finds it as well, and tells, unless it is dropped
        for happening in self._cluster.happenings.take():
            self._others.announce(happening)

    # --- what survives --------------------------------------------------------------------------

    def save(self) -> None:
        """Keep what was said of members, also once the file has overruled it."""
        if self._folder is not None and not self.handed_on:
            data = json.dumps(saved(self._cluster), indent=1).encode()
            is_saved = save_state(self._folder, STATE, data)
            self._save_at = None if is_saved else self._loop.time() + RETRY

    def for_upgrade(self) -> tuple[dict[str, str], tuple[int, ...]]:
        """The same for a new program: an entry of its environment, and the file that it names.

        In the environment itself there is no room for 200 members. Nothing more can be said.
        """
        self.handed_on = True
        self._handed = file = os.memfd_create("balanceme-members")
        with open(file, "wb", closefd=False) as memory:
            memory.write(json.dumps(saved(self._cluster, upgrade=True)).encode())
        return {VARIABLE: str(file)}, (file,)

    def take_back(self) -> None:
        """There is no new program after all: what has happened meanwhile is kept again."""
        self.handed_on = False
        if self._handed is not None:
            os.close(self._handed)
            self._handed = None
        self.save()
        self._announce()

    def restore(self, environ: MutableMapping[str, str]) -> None:
        """Take up what the program before us said, or else what was saved."""
        words: list[str] | None = None
        handed_on = environ.pop(VARIABLE, None)
        if handed_on is not None:
            try:
                with open(int(handed_on), "rb") as file:  # noqa: PTH123 - a descriptor
                    file.seek(0)
                    words = self._parse(file.read())
            except Exception as error:  # noqa: BLE001 - of another version, and no reason to fail
                log.warning("what was said of members is not understood: %s", error)
                handed_on = None
        if handed_on is None and self._folder is not None:
            words = load_state(self._folder, STATE, self._parse)
        for text in words or ():
            log.info("%s", text)
        for balancer, takeovers in self._cluster.takeovers.items():
            said = {gone: each.heir for gone, each in takeovers.of(Origin.FILE).items()}
            self._failover_files.remember(balancer, said)
        self.look_at_files()

    def _parse(self, data: bytes) -> list[str]:
        return restore(self._cluster, json.loads(data))

    def __repr__(self) -> str:
        return f"<Members {self._cluster!r}>"
