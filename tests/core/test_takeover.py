from hypothesis import given
from hypothesis import strategies as st

from proxy.core.takeover import Origin, Said, Takeovers

ROOT = Said("root", 1.0, "maintenance")
ROUTES = ["server1", "server2", "server3", "server4"]


def in_force(made: Takeovers) -> dict[str, str]:
    """What counts, by route."""
    return {gone: entry.heir for gone, entry in made.in_force().items()}


def test_the_strongest_word_counts() -> None:
    """An operator's word counts before the cluster manager's, the checks', the configuration's."""
    made = Takeovers()
    heirs = ["server4", "server3", "server2", "server1"]
    for origin, heir in zip(reversed(Origin), heirs, strict=True):
        made.put("gone", heir, origin, ROOT)
        assert in_force(made) == {"gone": heir}
    for origin, heir in zip(Origin, [*reversed(heirs)][1:], strict=False):
        assert made.clear("gone", origin) is not None
        assert in_force(made) == {"gone": heir}
    assert made.clear("gone", Origin.OPERATOR) is None


def test_a_circle_has_no_effect() -> None:
    """Of entries that would close a circle the weakest has no effect, until the others are gone."""
    made = Takeovers()
    made.put("server1", "server2", Origin.CONFIGURATION, ROOT)
    made.put("server2", "server3", Origin.CHECKS, ROOT)
    made.put("server3", "server1", Origin.OPERATOR, ROOT)
    assert in_force(made) == {"server3": "server1", "server2": "server3"}
    assert made.circle("server1", "server3")
    assert not made.circle("server2", "server3")
    made.clear("server3", Origin.OPERATOR)
    assert in_force(made) == {"server2": "server3", "server1": "server2"}


def test_to_itself() -> None:
    """Nobody takes over from itself."""
    made = Takeovers()
    made.put("server1", "server1", Origin.FILE, ROOT)
    assert in_force(made) == {}
    assert made.circle("server1", "server1")


def test_replace_keeps_what_stays() -> None:
    """What an origin says again keeps by whom and when it was said first."""
    made = Takeovers()
    made.replace(Origin.FILE, {"a": "b", "c": "d"}, ROOT)
    later = Said("failover_file", 2.0)
    made.replace(Origin.FILE, {"a": "b", "c": "e"}, later)
    assert [(each.heir, each.said) for each in made.of(Origin.FILE).values()] == [
        ("b", ROOT),
        ("e", later),
    ]
    made.replace(Origin.FILE, {}, later)
    assert in_force(made) == {}


def test_keep() -> None:
    """Entries about routes that nobody has are forgotten."""
    made = Takeovers()
    made.replace(Origin.FILE, {"a": "b", "c": "a"}, ROOT)
    made.keep(frozenset("ac"))
    assert in_force(made) == {"c": "a"}


@given(
    st.lists(
        st.tuples(st.sampled_from(Origin), st.sampled_from(ROUTES), st.sampled_from(ROUTES)),
        max_size=12,
    )
)
def test_never_a_circle(entries: list[tuple[Origin, str, str]]) -> None:
    """Whoever says what: every chain ends."""
    made = Takeovers()
    for origin, gone, heir in entries:
        made.put(gone, heir, origin, ROOT)
    found = in_force(made)
    for start in found:
        route = start
        for _ in range(len(ROUTES)):
            route = found.get(route, route)
        assert route not in found
