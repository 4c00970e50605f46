from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.choice import Choice, Reason, Session
from proxy.core.live_sessions import (
    PARTS,
    Event,
    LiveSessions,
    events,
    joined,
    live_sessions,
    merged,
    moves_of,
)
from proxy.core.settings import Balancer as BalancerSettings

NOW = 1000.0
HOUR = 3600.0
SERVER1, SERVER2 = "server1", "server2"


def choice(session: Session = Session.NEW, reason: Reason = Reason.ELECTED) -> Choice:
    """What a balancer said of a request."""
    return Choice(None, session, reason, None, None)


NEW, KEPT = choice(), choice(Session.KEPT, Reason.KEPT)
MOVED = choice(Session.MOVED, Reason.UNUSABLE)


def table(*seen: tuple[int, float], lifetime: float = HOUR, member: str = SERVER1) -> LiveSessions:
    """A table in which these sessions were seen on a member, each at its time."""
    made = LiveSessions(lifetime)
    for session, now in seen:
        made.note(session, now, member, NEW)
    return made


def live(made: LiveSessions, now: float) -> int:
    """How many sessions are alive."""
    return made.live(now).total()


def together(tables: Iterable[LiveSessions], now: float = NOW) -> dict[int, tuple[float, str]]:
    """What the supervisor makes of several workers' tables."""
    told = [(made.names, list(made.packed(now))) for made in tables]
    found: dict[int, tuple[float, str]] = {}
    for part in range(PARTS):
        found |= merged((names, pieces[part]) for names, pieces in told)
    return found


def history(made: LiveSessions, session: int = 1) -> list[Event]:
    """What a table knows of a session."""
    return events(made.told([session])[session][2], made.names)


# --- who is alive --------------------------------------------------------------------------------


def test_live_until_the_lifetime_has_passed() -> None:
    """Each request prolongs its session, as it does the cookie."""
    made = table((1, NOW), (2, NOW), (1, NOW + 1000))
    assert live(made, NOW) == 2
    assert live(made, NOW + HOUR - 1) == 2
    assert live(made, NOW + HOUR) == 1
    assert live(made, NOW + HOUR + 1000) == 0


def test_lifetime_of_a_reload() -> None:
    """A table may outlive a reload that changes the lifetime."""
    made = table((1, NOW))
    made.lifetime = 60.0
    assert live(made, NOW + 60) == 0


def test_sessions_that_are_over_make_room() -> None:
    """A table doesn't grow with the sessions that have been, only with those alive."""
    made = LiveSessions(60.0)
    for session in range(200_000):
        made.note(session, NOW + session / 100, SERVER1, NEW)  # 6000 alive at a time
    assert sum(map(len, made._parts)) < 3 * 6000
    assert live(made, NOW + 2000) == 6000 - 1


def test_bound() -> None:
    """Sessions that never come back can't fill a table, nor drive out those that do."""
    made = LiveSessions(HOUR)
    for number in range(400_000):
        made.note(number, NOW + number / 1000, SERVER1, NEW)
        if number % 100 == 0:
            for session in range(64):  # these come back
                made.note((1 << 63) + session, NOW + number / 1000, SERVER1, NEW)
    assert sum(map(len, made._parts)) <= 131072
    assert all((1 << 63) + session in made._parts[session] for session in range(64))


def test_room_for_as_many_as_there_may_be() -> None:
    """A hundred thousand sessions are all kept, however unevenly hashes fall."""
    hashes = Random(1)
    keys = {hashes.getrandbits(64) for _ in range(100_000)}
    assert live(table(*((session, NOW) for session in keys)), NOW) == len(keys)


def test_kept_elsewhere_is_no_event() -> None:
    """Who is kept on another member than before was moved by another worker, which tells of it.

    Or there are two browsers of one kind and address, each with its own route.
    """
    made = table((1, NOW))
    kept = Choice(None, Session.KEPT, Reason.KEPT, b"server2", None)
    for second in range(1, 6):
        made.note(1, NOW + second, (SERVER1, SERVER2)[second % 2], kept)
    ((history, *_),) = [entry[2:] for part in made._parts for entry in part.values()]
    assert len(events(history, made.names)) == 1
    assert made.live(NOW + 5) == {SERVER2: 1}
    assert {SERVER1, SERVER2} <= set(made.names)
    assert sum(map(len, made.packed(NOW + 5))) > 0


def test_no_pause() -> None:
    """A request goes through one part of the table at most, with a hundred thousand that end."""
    made = table(*((session, NOW) for session in range(125_000)))
    made_room = 0
    for session in range(125_000, 135_000):
        before = [len(part) for part in made._parts]
        made.note(session, NOW + HOUR, SERVER1, NEW)
        changed = [
            (was, len(part))
            for was, part in zip(before, made._parts, strict=True)
            if was != len(part)
        ]
        assert len(changed) <= 1
        made_room += any(now < was for was, now in changed)
    assert made_room


def test_repr() -> None:
    """The number of sessions that are kept, over or not."""
    assert repr(table((1, NOW), (2, NOW))) == "<LiveSessions 2 kept for 3600 s>"


@given(st.lists(st.tuples(st.integers(0, 300), st.floats(0, 50)), max_size=300))
def test_table_is_the_latest_request_of_each(requests: list[tuple[int, float]]) -> None:
    """Making room changes nothing of what is told."""
    made = LiveSessions(20.0)
    latest: dict[int, float] = {}
    now = NOW
    for session, passed in requests:
        now += passed / 10
        made.note(session * 64, now, SERVER1, NEW)  # all in one part
        latest[session] = now
    assert live(made, now) == sum(last > now - 20.0 for last in latest.values())


def test_live_by_member() -> None:
    """A session is alive where it was seen last, and nowhere else."""
    made = table((1, NOW), (2, NOW))
    made.note(1, NOW + 1, SERVER2, MOVED)
    assert made.live(NOW + 1) == {SERVER1: 1, SERVER2: 1}


def test_table_of_a_balancer() -> None:
    """A table goes on over reloads, with the lifetime of the settings in force."""
    plain = {"members": [{"url": "http://server1", "route": "server1"}], "sticky_session": "B"}
    settings = BalancerSettings.model_validate(plain)
    made = live_sessions(settings, None)
    assert made.lifetime == HOUR
    made.note(1, NOW, SERVER1, NEW)
    shorter = BalancerSettings.model_validate({**plain, "session_cookie": {"lifetime": "5m"}})
    assert live_sessions(shorter, made) is made
    assert (live(made, NOW + 299), live(made, NOW + 300)) == (1, 0)


# --- histories -----------------------------------------------------------------------------------


def test_history() -> None:
    """A history says when a session came to a member, how and why; staying is no event."""
    made = table((1, NOW), (1, NOW + 1))
    made.note(1, NOW + 2.5, SERVER2, MOVED)
    made.note(1, NOW + 3, SERVER2, KEPT)
    assert history(made) == [
        Event(NOW, SERVER1, Session.NEW, Reason.ELECTED),
        Event(NOW + 2.5, SERVER2, Session.MOVED, Reason.UNUSABLE),
    ]
    assert made.told([1, 2]).keys() == {1}
    assert made.told([1])[1][:2] == (NOW + 3, SERVER2)
    assert moves_of(history(made)) == 1


def test_history_with_a_name_made_anew() -> None:
    """A reload makes members' names anew: that moves nobody."""
    made = table((1, NOW))
    anew = f"server{len(made.names)}"
    assert anew is not SERVER1
    made.note(1, NOW + 1, anew, KEPT)
    assert len(history(made)) == 1
    assert live(made, NOW + HOUR) == 1


@pytest.mark.parametrize("session", Session)
@pytest.mark.parametrize("reason", Reason)
def test_history_knows_every_reason(session: Session, reason: Reason) -> None:
    """Whatever a balancer may say comes out as it went in."""
    made = LiveSessions(HOUR)
    made.note(1, NOW, SERVER1, choice(session, reason))
    assert history(made) == [Event(NOW, SERVER1, session, reason)]


def test_history_is_bounded() -> None:
    """Of a session that moves again and again, the first event and the last seven are known."""
    made = LiveSessions(HOUR)
    for number in range(100):
        made.note(1, NOW + number, f"server{number % 2 + 1}", MOVED if number else NEW)
    assert [event.at - NOW for event in history(made)] == [0, *range(93, 100)]
    assert len(made.told([1])[1][2]) == 8 * 11


def test_joined_histories() -> None:
    """Of several workers' histories one is made, in which a session is nowhere twice in a row."""
    first, second = table((1, NOW)), LiveSessions(HOUR)
    second.note(1, NOW + 1, SERVER1, KEPT)
    second.note(1, NOW + 2, SERVER2, MOVED)
    first.note(1, NOW + 3, SERVER2, KEPT)
    found = joined([history(second), history(first)])
    assert [(event.at - NOW, event.member) for event in found] == [(0, SERVER1), (2, SERVER2)]
    assert moves_of(found) == 1


def test_moves() -> None:
    """A session that we met when it was moving has moved once."""
    assert moves_of([]) == 0
    assert moves_of([Event(NOW, SERVER1, Session.KEPT, Reason.KEPT)]) == 0
    assert moves_of([Event(NOW, SERVER1, Session.MOVED, Reason.UNUSABLE)]) == 1


# --- several workers -----------------------------------------------------------------------------


def test_merged_has_a_session_once() -> None:
    """A browser's connections go to several workers; together they are one session."""
    first, second = table((1, NOW), (2, NOW)), table((2, NOW - 1), (3, NOW))
    assert together([first, second]) == dict.fromkeys((1, 2, 3), (NOW, SERVER1))


def test_merged_after_a_move() -> None:
    """A session is where it was seen last, whichever worker saw it."""
    before, after = table((1, NOW), (2, NOW)), table((1, NOW + 0.5), member=SERVER2)
    assert together([before, after]) == {1: (NOW + 0.5, SERVER2), 2: (NOW, SERVER1)}


def test_packed_are_those_alive() -> None:
    """Sessions that are over aren't handed on."""
    made = table((1, NOW), (2, NOW + 10))
    assert together([made], NOW + HOUR).keys() == {2}
    assert together([made], NOW + HOUR + 10) == {}


def test_packed_is_compact() -> None:
    """A session takes 18 bytes, and no piece is large."""
    pieces = list(table(*((session, NOW) for session in range(10_000))).packed(NOW))
    assert sum(map(len, pieces)) == 10_000 * 18 + PARTS * 4
    assert max(map(len, pieces)) < 10_000


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x01\0\0\0", b"\xff" * 20])
def test_what_is_no_table(data: bytes) -> None:
    """Bytes of something else are refused."""
    with pytest.raises(ValueError, match="no packed table"):
        merged([((SERVER1,), data)])


seen = st.tuples(
    st.sampled_from(["server1", "server2", "server3"]),
    st.integers(0, 5),
    st.integers(0, 3).map(lambda second: NOW + second),
)


@given(st.lists(st.lists(seen, max_size=8), max_size=3), st.randoms(use_true_random=False))
def test_merged_does_not_depend_on_order(
    workers: list[list[tuple[str, int, float]]], order: Random
) -> None:
    """Whatever the order of the tables, each session is where it was last."""
    tables = []
    latest: dict[int, tuple[float, str]] = {}
    for worker in workers:
        made = LiveSessions(HOUR)
        for route, session, now in sorted(worker, key=lambda each: (each[2], each[0])):
            made.note(session, now, route, NEW)
            latest[session] = max(latest.get(session, (0.0, "")), (now, route))
        tables.append(made)
    order.shuffle(tables)
    assert together(tables) == latest
