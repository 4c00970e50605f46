"""Bytes both ways after an upgrade, until a side ends or both are silent for too long (P26)."""

from typing import TYPE_CHECKING

from proxy.core.heads import ResponseHead
from proxy.core.own_answers import upgrade_protocol

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange
    from proxy.dataplane.frontend_connection import FrontendConnection
    from proxy.dataplane.member_connection import MemberConnection


def asked_for(exchange: "Exchange", head: ResponseHead) -> "Tunnel | None":
    """The tunnel that a 101 begins; None if its client did not ask for it (P26, H84)."""
    connection = exchange.connection
    protocol = upgrade_protocol(exchange.head, exchange.placement.mapping.upgrade)
    if protocol is None or protocol.lower() != head.known.get(b"upgrade", b"").lower():
        return None
    if connection is None or not exchange.request.complete:
        return None
    timeout = exchange.placement.member.tunnel_timeout
    return Tunnel(exchange, exchange.client, connection, timeout)


class Tunnel:
    """Joins a client's and a member's connection."""

    __slots__ = ("_client", "_exchange", "_member", "_timeout")

    def __init__(
        self,
        exchange: "Exchange",
        client: "FrontendConnection",
        member: "MemberConnection",
        timeout: float,
    ) -> None:
        self._exchange = exchange
        self._client = client
        self._member = member
        self._timeout = timeout
        self._touch()

    def client_data(self, data: bytes) -> None:
        """From the client to the member."""
        if not data:
            return
        self._member.transport.write(data)
        self._touch()

    def member_data(self, data: bytes) -> None:
        """From the member to the client."""
        if not data:
            return
        self._client.transport.write(data)
        self._exchange.response.body_sent += len(data)
        self._touch()

    def _touch(self) -> None:
        self._member.deadline = self._client.frontend.clock.monotonic() + self._timeout

    def client_lost(self) -> None:
        """The client is gone; what it sent before still reaches the member."""
        self._member.exchange = None
        self._member.transport.close()
        self._exchange.connection = None

    def close(self) -> None:
        """End both sides, after what is already written."""
        self._member.exchange = None
        self._member.transport.close()
        self._touch()  # a member that doesn't take what is written is not waited for
        self._exchange.finish(keep=False)
