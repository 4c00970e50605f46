"""What all connections of one frontend share: settings, and the worker's common parts."""

import asyncio
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING

from proxy.core.http1 import Limits
from proxy.core.mapping import MappingTable
from proxy.dataplane.access_log import AccessLog
from proxy.dataplane.clock import Clock
from proxy.dataplane.deadlines import Deadlines
from proxy.dataplane.pool import Pools

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
    server_name: str
    port: int
    tls: bool
    # The Server field's value.
    server: bytes
    # Requests after the first on one connection; 0 for no limit. Then the lines that tell a
    # client that its connection is kept are always the same (P9).
    keep_alive_requests: int = 0
    keep_alive_lines: bytes = b"Keep-Alive: timeout=5\r\nConnection: Keep-Alive\r\n"
    # Where https is served, for a frontend that only points there.
    redirect_port: int | None = None
    trusted: tuple[IPv4Network | IPv6Network, ...] = ()
    apache: bool = False
    # Set while the worker is stopping: new connections serve one request.
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def trusts(self, address: str) -> bool:
        """Whether ``address`` is a proxy whose X-Forwarded fields count."""
        if not self.trusted:
            return False
        try:
            peer = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return any(peer in network for network in self.trusted if network.version == peer.version)
