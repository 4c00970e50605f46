"""A worker: builds the runtime objects from settings, serves, stops gracefully.

The only place that puts the data plane together. It runs in the foreground until SIGTERM or
SIGINT; then it accepts nothing more, closes idle connections, lets exchanges under way end for
``stop_timeout``, and ends. A second signal ends it at once.
"""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Iterable
from dataclasses import fields, replace

import uvloop

from proxy.control.log_files import LineSink, open_log
from proxy.control.sockets import bind
from proxy.core.balancer import Balancer
from proxy.core.errors import ConfigError, Mistake
from proxy.core.http1 import Limits
from proxy.core.mapping import Mapping, MappingTable
from proxy.core.settings import Compat, LogFormat, Settings
from proxy.core.settings import Frontend as FrontendSettings
from proxy.core.settings import Limits as LimitSettings
from proxy.core.values import listen_host_port
from proxy.dataplane.acceptor import Acceptor, Security
from proxy.dataplane.access_log import AccessLog
from proxy.dataplane.admission import Admission
from proxy.dataplane.clock import Clock
from proxy.dataplane.deadlines import Deadlines
from proxy.dataplane.frontend import Frontend, Timeouts
from proxy.dataplane.frontend_connection import FrontendConnection
from proxy.dataplane.notices import Notice
from proxy.dataplane.pool import MemberPool, Pools
from proxy.dataplane.tls import Certificates

log = logging.getLogger("balanceme")

# More field lines than any head has room for.
MANY = 1_000_000
# Open files that are no connections: sockets that listen, logs, the event loop's own.
OTHER_FILES = 64
# Turns of the event loop until a connection that was aborted, TLS or not, is gone.
TURNS = 10


class Worker:
    """One process's frontends, balancers and pools."""

    def __init__(
        self,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        *,
        salt: bytes | None = None,
    ) -> None:
        """Build everything; raises ConfigError when a certificate or an address can't be used.

        ``salt``, at most 64 bytes, is the same in all workers that count sessions together; a
        worker that is alone makes its own.
        """
        self.settings = settings
        self._salt = salt or os.urandom(16)
        self._loop = loop
        self._apache = settings.compat is Compat.APACHE
        self._clock = Clock()
        self._deadlines = Deadlines(loop, self._clock.monotonic)
        self._access_log = _access_log(settings, self._clock, loop)
        self._deadlines.ticks.append(self._access_log.flush)
        self._connections: set[FrontendConnection] = set()
        self._stopping = asyncio.Event()
        self._acceptors: list[Acceptor] = []
        self._admission = Admission(
            _most_connections(settings),
            settings.max_connections_per_address,
            settings.trusted_proxies,
        )
        self._forged = Notice("session cookies without a valid signature count as none")
        self._notices = [self._forged, *self._admission.notices]
        self._deadlines.ticks.append(self._tick)
        self.balancers = {
            name: Balancer(name, balancer, apache=self._apache)
            for name, balancer in settings.balancers.items()
        }
        limits = _widest(_limits(f.limits, apache=self._apache) for f in settings.frontends)
        if self._apache:
            # It doesn't count a member's lines (P22), and passes what is no status (P18).
            limits = replace(limits, fields=MANY, last_status=999)
        self.pools: Pools = {
            member: MemberPool(member, limits, self._clock, self._deadlines)
            for balancer in self.balancers.values()
            for member in balancer.members
        }
        self._certificates = [
            _certificates(frontend, index) for index, frontend in enumerate(settings.frontends)
        ]
        self.frontends = [
            self._frontend(frontend, certificates)
            for frontend, certificates in zip(settings.frontends, self._certificates, strict=True)
        ]

    def _frontend(self, settings: FrontendSettings, certificates: Certificates | None) -> Frontend:
        mappings = [
            Mapping(mapping, self.balancers[mapping.balancer]) for mapping in settings.mappings
        ]
        timeouts = settings.timeouts
        return Frontend(
            mappings=MappingTable(mappings, apache=self._apache),
            pools=self.pools,
            timeouts=Timeouts(timeouts.head, timeouts.body, timeouts.keep_alive, timeouts.write),
            limits=_limits(settings.limits, apache=self._apache),
            clock=self._clock,
            deadlines=self._deadlines,
            access_log=self._access_log,
            connections=self._connections,
            admission=self._admission,
            server_name=settings.server_name or socket.gethostname(),
            port=listen_host_port(settings.listen)[1],
            tls=bool(settings.certificates),
            server=self.settings.server.encode(),
            salt=self._salt,
            keep_alive_requests=settings.keep_alive_requests,
            keep_alive_lines=b"Keep-Alive: timeout=%d\r\nConnection: Keep-Alive\r\n"
            % int(timeouts.keep_alive),
            redirect_port=self._twin_port() if settings.redirect_to_https else None,
            trusted=self.settings.trusted_proxies,
            announcing=settings.proxy_protocol,
            certificates=certificates if certificates and certificates.several else None,
            apache=self._apache,
            stopping=self._stopping,
        )

    @property
    def most_connections(self) -> int:
        """How many clients may be connected at a time."""
        return self._admission.most

    def _twin_port(self) -> int:
        """The port of the first frontend that speaks TLS."""
        twin = next(frontend for frontend in self.settings.frontends if frontend.certificates)
        return listen_host_port(twin.listen)[1]

    def start(self) -> None:
        """Accept connections from now on; raises ConfigError for an address that is taken."""
        sockets = bind([frontend.listen for frontend in self.settings.frontends], {})
        for index, frontend in enumerate(self.frontends):
            settings, certificates = self.settings.frontends[index], self._certificates[index]
            security = None
            if certificates is not None:
                security = Security(certificates.default, settings.timeouts.handshake)
            sock = sockets[settings.listen]
            self._acceptors.append(Acceptor(self._loop, sock, frontend, security))
        for acceptor in self._acceptors:
            self._notices += acceptor.notices
            acceptor.start()
        self._deadlines.start()

    def _is_busy(self) -> bool:
        """Whether there are clients, or some are on their way in."""
        return bool(self._connections) or any(acceptor.busy for acceptor in self._acceptors)

    def _tick(self) -> None:
        """With each sweep: what clients did that is worth a line, but not one each time."""
        forged = sum(balancer.forged for balancer in self.balancers.values())
        if forged > self._forged.total:
            self._forged.happened(forged - self._forged.total)
        for notice in self._notices:
            notice.tick()

    async def stop(self) -> None:
        """Stop gracefully: exchanges under way may end within ``stop_timeout``."""
        self._stopping.set()
        for acceptor in self._acceptors:
            acceptor.close()
        for connection in list(self._connections):
            connection.close_when_idle()
        deadline = self._clock.monotonic() + self.settings.stop_timeout
        while self._is_busy() and self._clock.monotonic() < deadline:  # noqa: ASYNC110 - once in a life
            await asyncio.sleep(0.05)
        for connection in list(self._connections):
            connection.abort()
        # They leave within the next turns of the loop, each with its line for the log.
        for _ in range(TURNS):
            await asyncio.sleep(0)
        for pool in self.pools.values():
            pool.close()
        self._deadlines.stop()
        self._access_log.close()


def run(settings: Settings) -> int:
    """Serve until a signal says stop; the exit status. Raises ConfigError before serving."""
    _raise_file_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_exception)
    sys.unraisablehook = _unraisable
    worker = Worker(settings, loop)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop_or_end, stop)
    worker.start()
    # What was made so far lives as long as the worker; the collector needn't look at it (P8).
    gc.collect()
    gc.freeze()
    listens = ", ".join(frontend.listen for frontend in settings.frontends)
    log.info("serving on %s, with room for %d connections", listens, worker.most_connections)
    await stop.wait()
    log.info("stopping: exchanges under way may take %g s", settings.stop_timeout)
    await worker.stop()
    return 0


def _stop_or_end(stop: asyncio.Event) -> None:
    if stop.is_set():
        log.warning("stopped at once by a second signal")
        os._exit(1)
    stop.set()


def _exception(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """What nobody caught: that a client breaks its TLS is no news, the rest is our mistake."""
    error = context.get("exception")
    if isinstance(error, OSError | ssl.SSLError):
        log.debug("%s: %s", context.get("message"), error)
    else:
        exc_info = error if isinstance(error, BaseException) else None
        log.error("a mistake in balanceme: %s", context.get("message"), exc_info=exc_info)


def _unraisable(problem: "sys.UnraisableHookArgs") -> None:
    """A name (SNI) that is no ASCII can't be told to the TLS context; the handshake fails (H75)."""
    if isinstance(problem.exc_value, UnicodeDecodeError) and isinstance(problem.object, bytes):
        log.debug("handshake with a malformed server name")
    else:
        sys.__unraisablehook__(problem)


def _certificates(settings: FrontendSettings, index: int) -> Certificates | None:
    if not settings.certificates:
        return None
    return Certificates(settings.certificates, ("frontends", index, "tls"))


def _most_connections(settings: Settings) -> int:
    """How many clients may be connected; each may need a member's connection as well (H39)."""
    room = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OTHER_FILES) // 2
    wanted = settings.max_connections
    if wanted is not None and wanted > room:
        log.warning(
            "max_connections is %d, but the limit of open files has room for %d; raise it to %d",
            *(wanted, room, 2 * wanted + OTHER_FILES),
        )
    return max(room, 1) if wanted is None else wanted


def _limits(settings: LimitSettings, *, apache: bool) -> Limits:
    status = 400 if apache else 431
    return Limits(**settings.model_dump(), status=status)


def _widest(limits: Iterable[Limits]) -> Limits:
    """The limits of members' answers, which may be for a client of any frontend."""
    every = list(limits)
    names = [field.name for field in fields(Limits) if field.init]
    return Limits(**{name: max(getattr(each, name) for each in every) for name in names})


def _access_log(settings: Settings, clock: Clock, loop: asyncio.AbstractEventLoop) -> AccessLog:
    wanted = settings.access_log
    if wanted is None:
        return AccessLog(None, LogFormat.COMBINED, clock)
    sink = LineSink(open_log(wanted.path, 1, "access_log"), "access log")
    sink.call_later = loop.call_later
    return AccessLog(sink, wanted.format, clock)


def _raise_file_limit() -> None:
    """As many open files as the system allows (P9)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
