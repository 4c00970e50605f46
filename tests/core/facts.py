"""What a head or a balancer says, for comparisons."""

from typing import Any

from proxy.core.balancer import Balancer
from proxy.core.heads import RequestHead, ResponseHead
from proxy.core.member import Member


def facts(head: RequestHead | ResponseHead) -> tuple[Any, ...]:
    """All that a head says."""
    start: tuple[Any, ...]
    if isinstance(head, RequestHead):
        start = (head.method, head.target, head.host, head.expects_continue, head.has_body)
    else:
        start = (head.status, head.reason)
    framing = (head.chunked, head.content_length, head.keep_alive)
    return (*start, head.minor, *framing, head.options, head.fields)


def claim(balancer: Balancer, member: Member) -> int:
    """A member's lbstatus, exact."""
    balancer.settle()
    return member.lbstatus
