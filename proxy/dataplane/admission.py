"""How many clients may be connected at a time, in all and from one address (H39).

A connection beyond either is refused at once, before anything is spent on it, while those that are
there go on. An IPv6 client counts by its network of 64 bits, of which it has every address.
"""

import errno
from collections.abc import Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from proxy.dataplane.notices import Notice

# What says that the system has nothing left for another connection: nobody's fault but our own.
# EADDRNOTAVAIL: no local port is left for another connection to a member.
EXHAUSTED = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)
)


Networks = Sequence[IPv4Network | IPv6Network]


def is_among(address: str, networks: Networks) -> bool:
    """Whether one of ``networks`` has ``address``."""
    found = _parsed(address) if networks else None
    return found is not None and any(
        found in network for network in networks if network.version == found.version
    )


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    """A numeric address, its zone left out."""
    try:
        return ip_address(address.partition("%")[0])
    except ValueError:
        return None


class Admission:
    """The clients' connections of a worker, counted."""

    __slots__ = ("_by_address", "_exempt", "_full", "_per_address", "_too_many", "count", "most")

    def __init__(
        self,
        most: int,
        per_address: int | None = None,
        exempt: Networks = (),
    ) -> None:
        self.count = 0
        self._by_address: dict[str, int] = {}
        self._full = Notice("connections refused: max_connections allows this worker %d")
        self._too_many = Notice("connections refused: max_connections_per_address is %d")
        self._set(most, per_address, exempt)

    def _set(self, most: int, per_address: int | None, exempt: Networks) -> None:
        self.most = most
        self._per_address = per_address
        self._exempt = exempt
        self._full.about(most)
        self._too_many.about(per_address)

    def configure(
        self, most: int, per_address: int | None, exempt: Networks, connected: Iterable[str]
    ) -> None:
        """Other limits; ``connected`` are the addresses of all clients there are.

        Nobody is sent away. Who is still being secured counts in all, but not by address.
        """
        self._set(most, per_address, exempt)
        self._by_address.clear()
        if per_address is not None:
            for address in connected:
                key = self._key(address)
                self._by_address[key] = self._by_address.get(key, 0) + 1

    @property
    def notices(self) -> tuple[Notice, Notice]:
        """What is said of refused connections."""
        return self._full, self._too_many

    def has_room(self, more: int) -> bool:
        """Whether there is room for a connection beside ``more`` that don't count yet."""
        if self.count + more < self.most:
            return True
        self._full.happened()
        return False

    def admit(self, address: str) -> bool:
        """Whether one more connection from ``address`` is let in; it counts until ``leave``."""
        if not self.has_room(0):
            return False
        if self._per_address is not None:
            key = self._key(address)
            there = self._by_address.get(key, 0)
            if key and there >= self._per_address:
                self._too_many.happened()
                return False
            self._by_address[key] = there + 1
        self.count += 1
        return True

    def leave(self, address: str) -> None:
        """A connection from ``address`` that was let in has ended."""
        self.count -= 1
        if self._per_address is None:
            return
        key = self._key(address)
        there = self._by_address.get(key, 0) - 1
        if there > 0:
            self._by_address[key] = there
        else:
            self._by_address.pop(key, None)

    def _key(self, address: str) -> str:
        """Under what an address counts; empty for those without a limit of their own."""
        found = _parsed(address)
        if found is None or is_among(address, self._exempt):
            return ""
        return str(ip_network((found, 64), strict=False)) if found.version == 6 else str(found)

    def __repr__(self) -> str:
        return f"<Admission {self.count} of {self.most}>"
