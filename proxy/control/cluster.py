"""The supervisor's one view of all balancers and members.

Here a member's status is decided: what the operator wants, what checks found, what any worker's
traffic ran into, and who has taken over whose sessions. It is written to the scoreboard, from which
every worker takes it. Nothing here waits, and nothing here knows processes: workers are rows of the
board.
"""

import time
from collections.abc import Iterable, Iterator, Mapping

from proxy.control.happening import Happenings
from proxy.control.member_view import MemberView
from proxy.control.prober import Probed
from proxy.control.scoreboard import MemberCounters, Scoreboard
from proxy.core.health import Verdict
from proxy.core.settings import Event, HealthCheck, OperatorStatus, Settings
from proxy.core.takeover import Origin, Said, Takeover, Takeovers


class Cluster:
    """All balancers and members, and the board that tells workers of them."""

    def __init__(self, settings: Settings, workers: int) -> None:
        self.settings = settings
        self.members = [
            MemberView(name, member, balancer)
            for name, balancer in settings.balancers.items()
            for member in balancer.members
        ]
        self.takeovers = {name: Takeovers() for name in settings.balancers}
        self.happenings = Happenings()
        self.board = Scoreboard(len(self.members), workers)
        # exchanges of workers that have ended
        self._ended = 0.0
        # since when workers know of each session that is seen, monotonic: theirs end with them
        self.counted_since = time.monotonic()
        self._configure_takeovers()
        self.publish()

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
        self.takeovers = {
            name: self.takeovers.get(name, made) for name, made in fresh.takeovers.items()
        }
        self._configure_takeovers()
        going_on = range(min(workers, former.workers))
        for worker in going_on:
            self.board.set_worker(worker, former.worker(worker))
        for index, made in enumerate(fresh.members):
            if made.key in known:
                place, view = known[made.key]
                view.configure(made.settings, settings.balancers[view.balancer])
                self.members[index] = view
                for worker in going_on:
                    self.board.set_counters(worker, index, former.counters(worker, place))
        self.board.leaving = former.leaving
        self.publish()
        return former

    def _configure_takeovers(self) -> None:
        """What the configuration says of takeovers, and nothing about routes that are gone."""
        by_configuration = Said("the configuration", time.time())
        for name, balancer in self.settings.balancers.items():
            takeovers = self.takeovers[name]
            takeovers.keep(frozenset(each.route for each in balancer.members if each.route))
            takeovers.replace(Origin.CONFIGURATION, balancer.failover, by_configuration)

    def publish(self) -> None:
        """Write to the board what was decided of all members."""
        for name in self.settings.balancers:
            in_force = self.takeovers[name].in_force()
            places = {
                view.settings.route: index
                for index, view in enumerate(self.members)
                if view.balancer == name and view.settings.route
            }
            for gone, index in places.items():
                view = self.members[index]
                heir = places[in_force[gone].heir] if gone in in_force else -1
                view.status = view.status._replace(heir=heir)
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
                view.passed_since = {}
                self.board.set_status(index, view.status)
        return news

    def worker_ended(self, worker: int) -> None:
        """A worker is gone: what it counted stays, and its row is free for the next one."""
        self._keep_counts(worker)
        self.board.clear(worker)

    def _keep_counts(self, worker: int) -> None:
        self.counted_since = time.monotonic()
        self._ended += self.board.worker(worker).exchanges
        for index, view in enumerate(self.members):
            view.ended = view.ended.plus(
                self.board.counters(worker, index)._replace(busy=0, waiting=0)
            )

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
        return [view for view in self.of(balancer) if view.is_called(member)]

    def of(self, balancer: str) -> list[MemberView]:
        """The members of a balancer."""
        return [view for view in self.members if view.balancer == balancer]

    def by_route(self, balancer: str, route: str | None) -> MemberView | None:
        """The member with a route."""
        found = (view for view in self.of(balancer) if route and view.settings.route == route)
        return next(found, None)

    def takeover_of(self, view: MemberView) -> Takeover | None:
        """Who has taken over a member's sessions, if anybody has."""
        route = view.settings.route
        return self.takeovers[view.balancer].in_force().get(route) if route else None

    def tell_takeover(
        self,
        balancer: str,
        gone: str,
        before: Mapping[str, str],
        text: str,
        reason: str | None = None,
    ) -> None:
        """Somebody has said something of a route's sessions: workers and hooks know what counts.

        ``before``: the heirs until then. Where a stronger word stands it is for the log alone.
        """
        self.publish()
        heir = self.takeovers[balancer].heirs.get(gone)
        if heir == before.get(gone):
            self.happenings.note(
                f"{text}; {'nobody' if heir is None else heir} has them, as before"
            )
            return
        event = Event.FAILBACK if heir is None else Event.TAKEOVER
        why = {} if reason is None else {"reason": reason}
        details = {"heir": heir or before[gone], **why}
        self.happenings.happened(event, balancer, gone, text, **details)

    def certificates_seen(
        self, results: Iterable[Probed]
    ) -> Iterator[tuple[MemberView, HealthCheck, float]]:
        """Of results with a certificate: the member, the check, and when the certificate ends."""
        views = {view.key: view for view in self.members}
        for result in results:
            view = views.get(result.key)
            check = None if view is None else view.health.checks.get(result.title)
            if view is not None and check is not None and result.certificate_ends is not None:
                yield view, check.settings, result.certificate_ends

    def set_operator_status(
        self, view: MemberView, status: OperatorStatus, said: Said | None = None
    ) -> None:
        """What the operator wants of a member; whatever drain there was is over."""
        takes_none = (OperatorStatus.DISABLED, OperatorStatus.STOPPED)
        if status is OperatorStatus.ENABLED and view.status.operator in takes_none:
            view.status = view.status._replace(back_since=time.monotonic())
        view.status = view.status._replace(operator=status, empty_by=0)
        view.said = said if status is not view.settings.status else None
        view.drain = None
        self.publish()

    def set_verdict(self, view: MemberView) -> None:
        """The checks' verdict has flipped."""
        verdict = view.health.verdict
        if verdict is Verdict.PASSED and view.status.verdict is not Verdict.UNKNOWN:
            view.status = view.status._replace(back_since=time.monotonic())
        view.status = view.status._replace(verdict=verdict)
        self.publish()

    def __repr__(self) -> str:
        return f"<Cluster {len(self.members)} members>"
