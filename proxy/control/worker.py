"""A worker's objects: built from settings, given other settings while they serve, stopped.

The only place that puts the data plane together. It knows no other process: it is handed sockets
to accept from, and told of members by plain calls. A reload swaps settings under traffic: what
stays the same by name (an address, a member's url and route) keeps its object and all that is
known of it, so exchanges under way go on, on the member they have, and sessions stay.
"""

import asyncio
import gc
import logging
import math
import os
import resource
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from proxy.control.certificate_files import KeyMaterial, certificates_from
from proxy.control.long_polls import LongPolls
from proxy.core.balancer import Balancer
from proxy.core.http1 import Limits
from proxy.core.mapping import Mapping as CoreMapping
from proxy.core.mapping import MappingTable
from proxy.core.member import Member
from proxy.core.settings import Compat, LogFormat, Settings
from proxy.core.settings import Frontend as FrontendSettings
from proxy.core.settings import Limits as LimitSettings
from proxy.core.values import listen_host_port
from proxy.dataplane.acceptor import Acceptor, Security
from proxy.dataplane.access_log import AccessLog
from proxy.dataplane.admission import Admission
from proxy.dataplane.clock import Clock
from proxy.dataplane.deadlines import NEVER, Deadlines
from proxy.dataplane.frontend import Frontend, Timeouts
from proxy.dataplane.frontend_connection import FrontendConnection
from proxy.dataplane.notices import Notice
from proxy.dataplane.pool import MemberPool, Pools
from proxy.dataplane.tls import Certificates, Entries
from proxy.dataplane.waiting_room import WaitingRoom

log = logging.getLogger("balanceme")

# More field lines than any head has room for.
MANY = 1_000_000
# Open files that are no connections: sockets that listen, logs, the event loop's own.
OTHER_FILES = 64
# How often, in seconds, a worker that stops looks whether it may end.
STOP_STEP = 0.05
# How long before that, in seconds, the last who waits for news is sent away.
LAST_ANSWERS = 1.0
# Turns of the event loop until a connection that was aborted, TLS or not, is gone.
TURNS = 10

# What makes a frontend the one it is: its address, and whether it speaks TLS there.
Place = tuple[str, bool]
# Certificates and keys of each frontend, by ``listen``.
Keys = Mapping[str, Sequence[KeyMaterial]]


@dataclass
class Others:
    """What a worker shares with others, and tells them; by default it is alone."""

    number: int = 0  # counts the workers from 0
    # made before workers are forked, for all to have the same; the salt has at most 64 bytes
    entries: Entries = field(default_factory=lambda: Entries(spare=0))
    salt: bytes = field(default_factory=lambda: os.urandom(16))
    # told when traffic has put a member in error
    member_in_error: Callable[[Member], None] = lambda _: None
    yields: Callable[[], bool] = lambda: False  # whether another one should take the next client


class Worker:
    """One process's frontends, balancers and pools."""

    def __init__(
        self,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        keys: Keys | None = None,
        others: Others | None = None,
    ) -> None:
        """Build everything; raises ConfigError when a certificate can't be used.

        ``keys`` are what the files of certificates hold, if they are not to be read here.
        """
        self._loop = loop
        self._others = others or Others()
        self.clock = Clock()
        self.deadlines = Deadlines(loop, self.clock.monotonic)
        self.access_log = AccessLog(None, LogFormat.COMBINED, self.clock)
        self.connections: set[FrontendConnection] = set()
        self.admission = Admission(0)
        self.waiting_room = WaitingRoom(self.clock, self.deadlines)
        self._acceptors: dict[Place, Acceptor] = {}
        self._closed: list[Acceptor] = []  # they accept no more; clients are on their way in
        self._forged = Notice("session cookies without a valid signature count as none")
        self._forged_before = 0
        self.frontends: dict[Place, Frontend] = {}
        self.balancers: dict[str, Balancer] = {}
        self.pools: Pools = {}
        self.leaving = False
        # once it stops: when it ends, and how long that was from when it was told
        self._end, self._stop_timeout = NEVER, 0.0
        self.long_polls = LongPolls(self.connections, self.clock)
        self.deadlines.ticks += [self.access_log.flush, self._tick, self.long_polls.tick]
        self.configure(settings, keys)
        for balancer in self.balancers.values():
            balancer.stagger(self._others.number)

    # --- settings ----------------------------------------------------------------------------

    def configure(self, settings: Settings, keys: Keys | None = None) -> None:
        """Put settings in force, the first or others; raises ConfigError and changes nothing."""
        certificates = {
            place_of(frontend): _certificates(frontend, index, keys)
            for index, frontend in enumerate(settings.frontends)
            if frontend.certificates
        }
        self.settings = settings
        self._apache = settings.compat is Compat.APACHE
        former, self.balancers = self.balancers, {}
        for name, balancer in settings.balancers.items():
            self.balancers[name] = Balancer(
                name, balancer, apache=self._apache, former=former.get(name)
            )
        for name in former.keys() - self.balancers.keys():
            former[name].retire()
        self._forged_before = self._count_forged()
        self._configure_pools()
        self._configure_frontends(certificates)
        self.admission.configure(
            most_connections(settings),
            settings.max_connections_per_address,
            settings.trusted_proxies,
            [connection.address for connection in self.connections],
        )
        for connection in list(self.connections):
            connection.reload()
        self.waiting_room.settings_changed()

    def _configure_pools(self) -> None:
        frontends = self.settings.frontends
        limits = _widest(_limits(each.limits, apache=self._apache) for each in frontends)
        if self._apache:
            # It doesn't count a member's lines (P22), and passes what is no status (P18).
            limits = replace(limits, fields=MANY, last_status=999)
        members = [member for each in self.balancers.values() for member in each.members]
        for member in members:
            pool = self.pools.get(member)
            if pool is None:
                self.pools[member] = MemberPool(member, limits, self.clock, self.deadlines)
            else:
                pool.configure(limits)
        for member in self.pools.keys() - members:
            # Exchanges under way still find it here; nothing is kept when they are done.
            member.reuse = False
            self.pools[member].close()

    def _configure_frontends(self, certificates: Mapping[Place, Certificates]) -> None:
        former = self.frontends
        self.frontends = {}
        for settings in self.settings.frontends:
            place = place_of(settings)
            frontend = self._frontend(settings, certificates.get(place))
            known = former.pop(place, None)
            if known is not None:
                known.become(frontend)
            self.frontends[place] = known or frontend
            if place in certificates:
                certificates[place].put_behind(self._others.entries.of(settings.listen))
            if place in self._acceptors:
                self._acceptors[place].security = self._security(settings)
        for place, frontend in former.items():
            self._close(place, frontend)

    def _frontend(self, settings: FrontendSettings, certificates: Certificates | None) -> Frontend:
        mappings = [
            CoreMapping(mapping, self.balancers[mapping.balancer]) for mapping in settings.mappings
        ]
        timeouts = settings.timeouts
        health_path = self.settings.health_path
        return Frontend(
            mappings=MappingTable(mappings, apache=self._apache),
            pools=self.pools,
            timeouts=Timeouts(timeouts.head, timeouts.body, timeouts.keep_alive, timeouts.write),
            limits=_limits(settings.limits, apache=self._apache),
            clock=self.clock,
            deadlines=self.deadlines,
            access_log=self.access_log,
            connections=self.connections,
            admission=self.admission,
            waiting_room=self.waiting_room,
            server_name=settings.server_name or socket.gethostname(),
            port=listen_host_port(settings.listen)[1],
            tls=bool(settings.certificates),
            server=self.settings.server.encode(),
            salt=self._others.salt,
            keep_alive_requests=settings.keep_alive_requests,
            keep_alive_lines=b"Keep-Alive: timeout=%d\r\nConnection: Keep-Alive\r\n"
            % int(timeouts.keep_alive),
            redirect_port=twin_port(self.settings) if settings.redirect_to_https else None,
            trusted=self.settings.trusted_proxies,
            announcing=settings.proxy_protocol,
            explain_to=self.settings.explain_to,
            certificates=certificates if certificates and certificates.several else None,
            apache=self._apache,
            health_path=health_path.encode() if health_path else None,
            leaving=self.leaving,
            member_in_error=self._others.member_in_error,
        )

    # --- serving -----------------------------------------------------------------------------

    def accept(self, sockets: Mapping[str, socket.socket]) -> None:
        """Accept from the frontends' sockets, by ``listen``; they are the worker's from now on."""
        for settings in self.settings.frontends:
            place, sock = place_of(settings), sockets[settings.listen]
            if place in self._acceptors:
                sock.close()
                continue
            security, yields = self._security(settings), self._others.yields
            acceptor = Acceptor(self._loop, sock, self.frontends[place], security, yields)
            self._acceptors[place] = acceptor
            acceptor.start()

    def _security(self, settings: FrontendSettings) -> Security | None:
        if not settings.certificates:
            return None
        return Security(self._others.entries.of(settings.listen), settings.timeouts.handshake)

    def start(self) -> None:
        """Keep deadlines from now on."""
        self.deadlines.start()
        # What was made so far lives as long as the worker; the collector needn't look at it (P8).
        gc.collect()
        gc.freeze()

    def leave(self, *, leaving: bool) -> None:
        """Tell those before us whether to send us clients."""
        self.leaving = leaving
        for frontend in self.frontends.values():
            frontend.leaving = leaving

    @property
    def exchanges(self) -> int:
        """How many have ended."""
        return self.access_log.count

    @property
    def members(self) -> list[Member]:
        """All members, in the order of the settings."""
        return [member for each in self.balancers.values() for member in each.members]

    @property
    def is_busy(self) -> bool:
        """Whether there are clients, or some are on their way in."""
        return bool(self.connections) or any(
            each.busy for each in (*self._acceptors.values(), *self._closed)
        )

    def _count_forged(self) -> int:
        return sum(balancer.forged for balancer in self.balancers.values())

    def _tick(self) -> None:
        """With each sweep: what clients did that is worth a line, but not one each time."""
        forged = self._count_forged()
        if forged > self._forged_before:
            self._forged.happened(forged - self._forged_before)
            self._forged_before = forged
        announced = [notice for each in self._acceptors.values() for notice in each.notices]
        for notice in (self._forged, self.waiting_room.notice, *self.admission.notices, *announced):
            notice.tick()
        self._closed = [each for each in self._closed if each.busy]
        if len(self.pools) > len(self.members):
            self._forget_members()

    def _forget_members(self) -> None:
        """Members that no balancer has any more go with their last connection."""
        for member in self.pools.keys() - self.members:
            if not member.busy and not self.pools[member].connections:
                del self.pools[member]

    # --- stopping ----------------------------------------------------------------------------

    def _close(self, place: Place, frontend: Frontend) -> None:
        """Accept nothing more at a frontend; its connections end with what is under way."""
        frontend.closing = True
        acceptor = self._acceptors.pop(place, None)
        if acceptor is not None:
            acceptor.close()
            self._closed.append(acceptor)
        for connection in list(self.connections):
            if connection.frontend is frontend:
                connection.close_when_idle()

    async def stop(self, allowed: float) -> None:
        """Stop gracefully: exchanges under way may end within ``allowed`` seconds."""
        self.leave(leaving=True)
        for place, frontend in self.frontends.items():
            self._close(place, frontend)
        self.hurry(allowed)
        while self.is_busy and (left := self._end - self.clock.monotonic()) > 0:
            # The last one has time for its answer as well, which is more than a cut.
            spare = min(self._stop_timeout / 10, LAST_ANSWERS)
            share = max(left - spare, 0) / (self._stop_timeout - spare)
            self.long_polls.end_some(share)
            await asyncio.sleep(STOP_STEP)
        self.waiting_room.look()
        await asyncio.sleep(0)
        for connection in list(self.connections):
            connection.abort()
        # They leave within the next turns of the loop, each with its line for the log.
        for _ in range(TURNS):
            await asyncio.sleep(0)
        for pool in self.pools.values():
            pool.close()
        self.deadlines.stop()
        self.access_log.close()

    def hurry(self, timeout: float) -> None:
        """End within ``timeout`` seconds from now, if not sooner."""
        end = self.clock.monotonic() + timeout
        if end < self._end:
            self._end, self._stop_timeout = end, timeout
            self.waiting_room.close(end - min(timeout / 2, LAST_ANSWERS))


def place_of(settings: FrontendSettings) -> Place:
    """What makes a frontend the one it is."""
    return settings.listen, bool(settings.certificates)


def twin_port(settings: Settings) -> int:
    """The port of the first frontend that speaks TLS."""
    twin = next(each for each in settings.frontends if each.certificates)
    return listen_host_port(twin.listen)[1]


def _certificates(settings: FrontendSettings, index: int, keys: Keys | None) -> Certificates:
    path = ("frontends", index, "tls")
    if keys is None:
        return Certificates(settings.certificates, path)
    return certificates_from(settings.certificates, path, keys[settings.listen])


def worker_count(settings: Settings) -> int:
    """How many workers there are to be."""
    wanted = settings.workers
    return len(os.sched_getaffinity(0)) if wanted == "auto" else wanted


def room_for_connections() -> int:
    """How many clients one process has room for; each may need a member's connection (H39)."""
    return max((resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OTHER_FILES) // 2, 1)


def most_connections(settings: Settings) -> int:
    """How many clients one worker takes: its part of ``max_connections``, or all it can."""
    room = room_for_connections()
    if settings.max_connections is None:
        return room
    return math.ceil(settings.max_connections / worker_count(settings))


def warn_of_room(settings: Settings) -> None:
    """Tell when workers are to take more clients than they can."""
    room, wanted = room_for_connections(), most_connections(settings)
    if settings.max_connections is not None and wanted > room:
        log.warning(
            "max_connections is %d, for each worker %d, but the limit of open files has room for"
            " %d; raise it to %d",
            *(settings.max_connections, wanted, room, 2 * wanted + OTHER_FILES),
        )


def _limits(settings: LimitSettings, *, apache: bool) -> Limits:
    status = 400 if apache else 431
    return Limits(**settings.model_dump(), status=status)


def _widest(limits: Iterable[Limits]) -> Limits:
    """The limits of members' answers, which may be for a client of any frontend."""
    every = list(limits)
    names = [field.name for field in fields(Limits) if field.init]
    return Limits(**{name: max(getattr(each, name) for each in every) for name in names})
