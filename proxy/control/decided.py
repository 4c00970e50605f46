"""What the supervisor decided of members, put into the balancers' objects.

These may be a worker's, or the throw-away ones of an explanation. When traffic last failed isn't
put here: a worker knows errors of its own.
"""

from collections.abc import Iterable

from proxy.control.scoreboard import MemberStatus
from proxy.core.balancer import Balancer
from proxy.core.member import Member


def put_status(balancer: Balancer, member: Member, status: MemberStatus) -> None:
    """What one member is to be; what is so already isn't touched."""
    if member.operator is not status.operator:
        balancer.set_operator_status(member, status.operator)
    if member.terms != status.terms:
        balancer.set_terms(member, status.terms)
    if member.verdict is not status.verdict:
        balancer.set_verdict(member, status.verdict)
    balancer.end_error(member, status.recovered)


def put_heirs(decided: Iterable[tuple[Balancer, Member, MemberStatus | None]]) -> None:
    """Whose sessions are taken over, of all members in the order of the settings."""
    members = list(decided)
    heirs: dict[Balancer, dict[bytes, bytes]] = {balancer: {} for balancer, _, _ in members}
    for balancer, member, status in members:
        if status is None or status.heir < 0 or member.route is None:
            continue
        heir = members[int(status.heir)][1].route
        if heir is not None:
            heirs[balancer][member.route] = heir
    for balancer, found in heirs.items():
        balancer.set_heirs(found)
