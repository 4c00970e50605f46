"""What all connections of one frontend share: settings, and the worker's common parts."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from proxy.core.heads import RequestHead
from proxy.core.http1 import Limits
from proxy.core.mapping import MappingTable
from proxy.core.member import Member
from proxy.dataplane.access_log import AccessLog
from proxy.dataplane.admission import Admission, Networks, is_among
from proxy.dataplane.clock import Clock
from proxy.dataplane.deadlines import Deadlines
from proxy.dataplane.pool import Pools
from proxy.dataplane.tls import Certificates
from proxy.dataplane.waiting_room import WaitingRoom

if TYPE_CHECKING:
    from proxy.dataplane.frontend_connection import FrontendConnection


@dataclass(slots=True)
class Timeouts:
    """How long a client may take, in seconds."""

    head: float
    body: float
    keep_alive: float
    write: float


@dataclass(slots=True)
class Frontend:
    """What all connections of one frontend share."""

    mappings: MappingTable
    pools: Pools
    timeouts: Timeouts
    limits: Limits
    clock: Clock
    deadlines: Deadlines
    access_log: AccessLog
    connections: set["FrontendConnection"]
    admission: Admission
    waiting_room: WaitingRoom
    server_name: str
    port: int
    tls: bool
    # The Server field's value.
    server: bytes
    # The key of the hashes by which sessions are counted, one object for all of a worker.
    salt: bytes
    # Requests after the first on one connection; 0 for no limit. Then the lines that tell a
    # client that its connection is kept are always the same (P9).
    keep_alive_requests: int = 0
    keep_alive_lines: bytes = b"Keep-Alive: timeout=5\r\nConnection: Keep-Alive\r\n"
    # Where https is served, for a frontend that only points there.
    redirect_port: int | None = None
    trusted: Networks = ()
    # Who announces clients by a PROXY preamble.
    announcing: Networks = ()
    # Clients that are told how their member was chosen.
    explain_to: Networks = ()
    # Several certificates by name, if there are.
    certificates: Certificates | None = None
    apache: bool = False
    # Answered by ourselves: whether those before us shall send us clients.
    health_path: bytes | None = None
    leaving: bool = False
    # No more is accepted: connections that are still being secured serve one request.
    closing: bool = False
    # Told when traffic has put a member in error.
    member_in_error: Callable[[Member], None] = lambda _: None

    def become(self, other: "Frontend") -> None:
        """Take another one's settings; connections go on with them from their next request."""
        for each in fields(Frontend):
            setattr(self, each.name, getattr(other, each.name))

    def first_lines(self, second: int, cookie: bytes) -> bytes:
        """Date, Server and cookie of an answer of our own."""
        return b"Date: %b\r\nServer: %b\r\n%b" % (self.clock.date(second), self.server, cookie)

    def connection_lines(self, head: RequestHead, served: int, *, keep: bool) -> bytes:
        """What a client is told about its connection; only who asked is told it is kept (P9).

        ``served`` requests came with it so far.
        """
        if not keep:
            return b"Connection: close\r\n"
        if b"keep-alive" not in head.block.options:
            return b""
        limit = self.keep_alive_requests
        if not limit:
            return self.keep_alive_lines
        timeout, left = int(self.timeouts.keep_alive), limit - served + 1
        return b"Keep-Alive: timeout=%d, max=%d\r\nConnection: Keep-Alive\r\n" % (timeout, left)

    def trusts(self, address: str) -> bool:
        """Whether ``address`` is a proxy whose X-Forwarded fields count."""
        return is_among(address, self.trusted)

    def announces(self, address: str) -> bool:
        """Whether connections from ``address`` begin with a PROXY preamble (H45)."""
        return is_among(address, self.announcing)
