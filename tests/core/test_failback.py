import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.failback import Away, away_token, read_away

ROUTE = st.from_regex(rb"[A-Za-z0-9_.-]{1,63}", fullmatch=True)


@pytest.mark.parametrize(
    ("away", "token"),
    [
        (Away(b"server2", None, b"server1"), b"@server2.server1"),
        (Away(b"server2", 1764000000, b"server1"), b"@server2@1764000000.server1"),
        (Away(b"a.b", None, b"c.d"), b"@a%2Eb.c.d"),
    ],
)
def test_token(away: Away, token: bytes) -> None:
    """A token holds home and time in front of the separator, and the route behind it."""
    assert away_token(away, b".") == token
    assert read_away(token, b".") == away


@given(
    ROUTE,
    ROUTE,
    st.none() | st.integers(0, 10**12),
    st.sampled_from([b".", b"-", b"!", b"_", b":"]),
)
def test_any_token(home: bytes, route: bytes, until: int | None, separator: bytes) -> None:
    """What was written is read back, whatever routes and separator are."""
    assert read_away(away_token(Away(home, until, route), separator), separator) == Away(
        home, until, route
    )


@given(st.binary(max_size=40))
def test_anything(token: bytes) -> None:
    """A client may send what it likes."""
    away = read_away(token, b".")
    assert (away is None) is not token.startswith(b"@")


def test_time_that_is_none() -> None:
    """A time that makes no sense counts as none."""
    for text in (b"x", b"-1", b"9" * 17, b""):
        assert read_away(b"@server2@" + text + b".server1", b".") == Away(
            b"server2", None, b"server1"
        )
