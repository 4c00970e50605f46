from typing import Any

import pytest

from proxy.core.balancer import Balancer
from proxy.core.choice import Choice, Reason, Session
from proxy.core.moves import MOST, SETTLED, Move, Moves, follow
from proxy.core.settings import Balancer as BalancerSettings
from proxy.core.settings import OperatorStatus

NOW = 1000.0
HOUR = 3600.0
MOVE = Move("server2", "server1", NOW + HOUR)


def balancer(**options: Any) -> Balancer:
    """One with three members."""
    members = [{"url": f"http://server{n}", "route": f"server{n}"} for n in (1, 2, 3)]
    plain = {"sticky_session": "B", "session_cookie": {}, "members": members, **options}
    return Balancer("cluster", BalancerSettings.model_validate(plain))


def cookie(made: Balancer, route: str | None) -> Choice:
    """The balancer's own choice for a request with this route in its cookie."""
    return made.choose(b"/", f"B=balancer.{route}".encode() if route else None, NOW)


def followed(made: Balancer, choice: Choice, tried: tuple[int, ...] = ()) -> Choice:
    """What becomes of that for a session that moves from server1 to server2."""
    return follow(MOVE, choice, made.members, NOW, [made.members[n] for n in tried])


@pytest.mark.parametrize("route", ["server1", "gone", None])
def test_session_is_moved(route: str | None) -> None:
    """A session that comes with its former route, or with none, goes where it is to go."""
    made = balancer()
    choice = followed(made, cookie(made, route))
    asked = route.encode() if route else None
    assert choice == Choice(made.members[1], Session.MOVED, Reason.OPERATOR, asked, b"server2")


@pytest.mark.parametrize("route", ["server2", "server3"])
def test_session_that_is_elsewhere(route: str) -> None:
    """One that is there already, or at home with a third member by now, is left alone."""
    made = balancer()
    choice = cookie(made, route)
    assert followed(made, choice) is choice


def test_member_that_cannot_be_used() -> None:
    """While the other member can't be used, or was tried, the balancer's choice stands."""
    made = balancer()
    choice = cookie(made, "server1")
    assert followed(made, choice, tried=(1,)) is choice
    made.put_in_error(made.members[1], NOW)
    assert followed(made, choice) is choice


def test_session_whose_member_cannot_be_used() -> None:
    """A session that has to move anyway goes where the operator said."""
    made = balancer()
    made.set_operator_status(made.members[0], OperatorStatus.DISABLED)
    for _ in range(3):
        assert followed(made, cookie(made, "server1")).member is made.members[1]
    alone = balancer(no_failover=True)
    alone.set_operator_status(alone.members[0], OperatorStatus.DISABLED)
    assert followed(alone, cookie(alone, "server1")).member is alone.members[1]


def test_counts() -> None:
    """The member that the request doesn't go to counts nothing."""
    made = balancer()
    followed(made, cookie(made, "server1"))
    followed(made, cookie(made, None))
    made.settle()
    assert [member.elected for member in made.members] == [0, 2, 0]


def test_move_is_over() -> None:
    """A move that nobody asks for is over, and forgotten, after its session's lifetime."""
    moves = Moves()
    moves.put(1, MOVE)
    assert moves.of(1, NOW + HOUR - 1) == MOVE
    assert moves.of(1, NOW + HOUR) is None
    assert moves.of(2, NOW) is None
    moves.forget(NOW + HOUR - 1)
    assert moves
    moves.forget(NOW + HOUR)
    assert not moves


def test_move_of_a_client_without_cookies() -> None:
    """A client that returns no cookies is led for as long as its session lives."""
    made, moves = balancer(), Moves()
    moves.put(1, MOVE)
    moves.followed(1, followed(made, cookie(made, None)), NOW + 100, HOUR)
    assert moves[1].until == NOW + 100 + HOUR


def test_move_with_corrected_cookies() -> None:
    """Once a session comes with its new cookie, the move holds only for what is under way."""
    made, moves = balancer(), Moves()
    moves.put(1, MOVE)
    moves.followed(1, followed(made, cookie(made, "server1")), NOW, HOUR)
    assert moves[1] == MOVE
    moves.followed(1, cookie(made, "server2"), NOW, HOUR)
    moves.followed(1, cookie(made, "server2"), NOW + 10, HOUR)
    assert moves[1].until == NOW + SETTLED
    moves.followed(2, cookie(made, "server2"), NOW, HOUR)
    assert 2 not in moves


def test_moves_are_bounded() -> None:
    """The first ones go first; one that is said again is the latest."""
    moves = Moves()
    for key in range(MOST):
        moves.put(key, MOVE)
    moves.put(0, MOVE)
    moves.put(MOST, MOVE)
    assert len(moves) == MOST
    assert 0 in moves
    assert 1 not in moves
