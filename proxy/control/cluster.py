"""The supervisor's one view of all balancers and members.

Here a member's status is decided: what the operator wants, what checks found, what any worker's
traffic ran into. It is written to the scoreboard, from which every worker takes it. Nothing here
waits, and nothing here knows processes: workers are rows of the board.
"""

import time
from collections.abc import Mapping
from typing import Any

from proxy.control.scoreboard import MemberCounters, MemberStatus, Scoreboard
from proxy.core.member import status_words
from proxy.core.settings import Member as MemberSettings
from proxy.core.settings import OperatorStatus, Settings

Key = tuple[str, str, str | None]


class MemberView:
    """What the supervisor knows of one member."""

    __slots__ = ("balancer", "ended", "settings", "status")

    def __init__(self, balancer: str, settings: MemberSettings) -> None:
        self.balancer = balancer
        self.settings = settings
        self.status = MemberStatus(settings.status, check_failed=False, error_since=0)
        # what workers counted that have ended
        self.ended = MemberCounters()

    @property
    def key(self) -> Key:
        """What makes it this member, of all balancers'."""
        return self.balancer, *self.settings.key

    @property
    def name(self) -> str:
        """What people call it."""
        return self.settings.route or self.settings.url

    def configure(self, settings: MemberSettings) -> None:
        """Other settings; if the file says another status than before, that counts."""
        if settings.status is not self.settings.status:
            self.status = self.status._replace(operator=settings.status)
        self.settings = settings

    def in_error(self, now: float) -> bool:
        """Whether traffic failed less than the retry time ago (F6)."""
        since = self.status.error_since
        return bool(since) and now - since <= self.settings.retry_after

    def __repr__(self) -> str:
        return f"<MemberView {self.balancer} {self.name} {self.status.operator.value}>"


class Cluster:
    """All balancers and members, and the board that tells workers of them."""

    def __init__(self, settings: Settings, workers: int) -> None:
        self.settings = settings
        self.members = [
            MemberView(name, member)
            for name, balancer in settings.balancers.items()
            for member in balancer.members
        ]
        self.board = Scoreboard(len(self.members), workers)
        # exchanges of workers that have ended
        self._ended = 0.0
        self._write()

    def reload(self, settings: Settings, workers: int) -> Scoreboard:
        """Other settings, on a board of their own; the former board, which is the caller's.

        What workers said goes with them and their members, so that no count goes back and nobody
        counts as hung until a worker writes to the new board itself. Those beyond ``workers`` never
        will.
        """
        for worker in range(workers, self.board.workers):
            self._keep_counts(worker)
        known = {view.key: (index, view) for index, view in enumerate(self.members)}
        former = self.board
        fresh = Cluster(settings, workers)
        self.settings, self.board, self.members = settings, fresh.board, fresh.members
        going_on = range(min(workers, former.workers))
        for worker in going_on:
            self.board.set_worker(worker, former.worker(worker))
        for index, made in enumerate(fresh.members):
            if made.key in known:
                place, view = known[made.key]
                view.configure(made.settings)
                self.members[index] = view
                for worker in going_on:
                    self.board.set_counters(worker, index, former.counters(worker, place))
        self.board.leaving = former.leaving
        self._write()
        return former

    def _write(self) -> None:
        for index, view in enumerate(self.members):
            self.board.set_status(index, view.status)

    # --- what workers say ----------------------------------------------------------------------

    def take_errors(self) -> bool:
        """Take up what workers' traffic ran into; whether that was news."""
        news = False
        for index, view in enumerate(self.members):
            latest = max(
                self.board.counters(worker, index).error_since
                for worker in range(self.board.workers)
            )
            if latest > view.status.error_since:
                news = True
                view.status = view.status._replace(error_since=latest)
                self.board.set_status(index, view.status)
        return news

    def worker_ended(self, worker: int) -> None:
        """A worker is gone: what it counted stays, and its row is free for the next one."""
        self._keep_counts(worker)
        self.board.clear(worker)

    def _keep_counts(self, worker: int) -> None:
        self._ended += self.board.worker(worker).exchanges
        for index, view in enumerate(self.members):
            view.ended = view.ended.plus(self.board.counters(worker, index)._replace(busy=0))

    def counters(self, index: int) -> MemberCounters:
        """What all workers together counted of a member."""
        total = self.members[index].ended
        for worker in range(self.board.workers):
            total = total.plus(self.board.counters(worker, index))
        return total

    @property
    def exchanges(self) -> int:
        """How many have ended, with all workers there were."""
        told = [self.board.worker(worker).exchanges for worker in range(self.board.workers)]
        return int(self._ended + sum(told))

    # --- what the operator says ----------------------------------------------------------------

    def find(self, balancer: str, member: str) -> list[MemberView]:
        """The members of a balancer that are called ``member``, by route or url."""
        return [
            view
            for view in self.members
            if view.balancer == balancer and member in (view.settings.route, view.settings.url)
        ]

    def set_operator_status(self, view: MemberView, status: OperatorStatus) -> None:
        """What the operator wants of a member."""
        view.status = view.status._replace(operator=status)
        self.board.set_status(self.members.index(view), view.status)

    # --- what people and files see -------------------------------------------------------------

    def as_json(self, sessions: Mapping[tuple[str, str], int]) -> dict[str, Any]:
        """The balancers with their members; ``sessions`` are live ones by balancer and route."""
        now = time.monotonic()
        found: dict[str, Any] = {
            name: {"lbmethod": balancer.lbmethod.value, "members": []}
            for name, balancer in self.settings.balancers.items()
        }
        for index, view in enumerate(self.members):
            counters = self.counters(index)
            found[view.balancer]["members"].append(
                {
                    "route": view.settings.route,
                    "url": view.settings.url,
                    "status": status_words(
                        view.status.operator,
                        check_failed=view.status.check_failed,
                        in_error=view.in_error(now),
                    ),
                    "operator": view.status.operator.value,
                    "check_failed": view.status.check_failed,
                    "in_error": view.in_error(now),
                    "busy": int(counters.busy),
                    "elected": int(counters.elected),
                    "sent": int(counters.sent),
                    "received": int(counters.received),
                    "sessions": sessions.get((view.balancer, view.settings.route or ""), 0),
                }
            )
        return found

    def saved(self) -> list[dict[str, Any]]:
        """What was said since the start and must survive: statuses that differ from the file's."""
        return [
            {
                "balancer": view.balancer,
                "url": view.settings.url,
                "route": view.settings.route,
                "file": view.settings.status.value,
                "operator": view.status.operator.value,
            }
            for view in self.members
            if view.status.operator is not view.settings.status
        ]

    def restore(self, saved: list[dict[str, Any]]) -> list[str]:
        """Take up what ``saved`` said, as far as the file still says what it did then; in words.

        Nothing is taken up, and some exception raised, if it is nothing that ``saved`` says.
        """
        if not isinstance(saved, list):
            raise TypeError("it holds no list")
        by_key = {view.key: view for view in self.members}
        # All is read before any of it counts.
        read = [
            (
                by_key.get((entry["balancer"], entry["url"], entry["route"])),
                f"{entry['balancer']}: {entry['route'] or entry['url']}",
                OperatorStatus(entry["file"]),
                OperatorStatus(entry["operator"]),
            )
            for entry in saved
        ]
        words = []
        for view, name, file, operator in read:
            over = f"{name} is {operator.value} no more, as was said"
            if view is None:
                words.append(f"{over}: there is no such member now")
            elif view.settings.status is not file:
                words.append(f"{over}: the file says {view.settings.status.value} now")
            else:
                self.set_operator_status(view, operator)
                words.append(f"{name} is still {operator.value}, as was said")
        return words

    def __repr__(self) -> str:
        return f"<Cluster {len(self.members)} members>"
