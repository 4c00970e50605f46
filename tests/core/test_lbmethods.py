from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.balancer import Balancer
from proxy.core.health import Verdict
from proxy.core.lbmethods import LBMETHODS, Ledger, bybusyness, byrequests, bytraffic
from proxy.core.member import Member
from proxy.core.settings import Balancer as BalancerSettings
from proxy.core.settings import LbMethod, OperatorStatus
from tests.core.facts import claim

NOW = 1000.0
RETRY = 60.0
EVEN_TRAFFIC = (450, 73)
"""Bytes to and from a member with each request, as in the observation of B9."""


def balancer(*load_factors: float, **options: Any) -> Balancer:
    """A balancer with the members 1, 2, ... of these load factors."""
    members = [
        {"url": f"http://server{number}", "route": str(number), "load_factor": load_factor}
        for number, load_factor in enumerate(load_factors, 1)
    ]
    plain = {"sticky_session": "BALANCEME", "members": members}
    return Balancer("cluster", BalancerSettings.model_validate(plain | options))


def elect(cluster: Balancer, count: int, now: float = NOW, dead: Collection[str] = ()) -> str:
    """The routes of the next ``count`` members, attempts on ``dead`` ones left out."""
    routes = ""
    while len(routes) < count:
        member = cluster.choose(b"/", None, now).member
        assert member is not None
        route = (member.route or b"").decode()
        if route in dead:
            cluster.put_in_error(member, now)
        else:
            routes += route
    return routes


def keep(cluster: Balancer, count: int, route: str) -> None:
    """Requests of a session of ``route``, which stay there."""
    for _ in range(count):
        member = cluster.choose(b"/", b"BALANCEME=x." + route.encode(), NOW).member
        assert member is not None
        assert member.route == route.encode()


# --- byrequests --------------------------------------------------------------------------------

SEQUENCES = [
    ((1, 1), "121212121212121212121212"),
    ((1, 2), "212212212212212212212212"),
    ((3, 1), "112111211121112111211121"),
    ((1.5, 1), "121211212112121121211212"),
    ((1, 1, 1), "123123123123123123123123"),
    ((2, 3, 5), "321323312332132331233213"),
]


@pytest.mark.parametrize(("load_factors", "routes"), SEQUENCES)
def test_byrequests(load_factors: tuple[float, ...], routes: str) -> None:
    """The first 24 elections after a start are Apache's (B3)."""
    assert elect(balancer(*load_factors), 24) == routes


def test_byrequests_step_by_step() -> None:
    """Each candidate's claim grows, the first highest is elected and pays the sum (B3)."""
    first, second = balancer(1, 2).members
    claims = []
    for _ in range(3):
        elected = byrequests([first, second])
        claims.append((elected is second, first.lbstatus, second.lbstatus))
    assert claims == [(True, 100, -100), (False, -100, 100), (True, 0, 0)]


@pytest.mark.parametrize(
    ("load_factors", "before", "kept", "after"),
    [
        ((1, 1), "1212", 6, "222222121212"),
        ((1, 3), "21222122", 4, "2222222222222122"),
    ],
)
def test_kept_sessions_are_paid_for(
    load_factors: tuple[float, ...], before: str, kept: int, after: str
) -> None:
    """Requests that follow their session route are repaid by later elections (B4)."""
    cluster = balancer(*load_factors)
    assert elect(cluster, len(before)) == before
    keep(cluster, kept, "1")
    assert elect(cluster, len(after)) == after


@pytest.mark.parametrize("lbmethod", LbMethod)
def test_kept_sessions_are_paid_for_by_every_lbmethod(lbmethod: LbMethod) -> None:
    """Spares, standbys, drained members and all lbsets gain, whatever the lbmethod is (B4)."""
    cluster = balancer(1, 2, 3, 4, 5, 6, lbmethod=lbmethod)
    members = cluster.settings.members
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"lbset": 1},
        {"hot_spare": True},
        {"hot_standby": True},
        {"status": OperatorStatus.DRAIN},
        {"status": OperatorStatus.DISABLED},
    )
    changed = [
        member.model_copy(update=update) for member, update in zip(members, changes, strict=True)
    ]
    cluster = Balancer("cluster", cluster.settings.model_copy(update={"members": tuple(changed)}))
    keep(cluster, 2, "1")
    claims = [claim(cluster, member) for member in cluster.members]
    assert claims == [200 - 2 * 1500, 400, 600, 800, 1000, 0]


def test_an_outage_is_not_repaid() -> None:
    """A member that is no candidate gains nothing; a failed attempt counts as a choice (B5, B6)."""
    cluster = balancer(1, 1)
    assert elect(cluster, 3) == "121"
    assert elect(cluster, 7, dead="2") == "1111111"
    assert elect(cluster, 6, NOW + RETRY + 1) == "121212"


def test_an_outage_is_not_repaid_with_load_factors() -> None:
    """The same with 2:3:5, where the dead member is found by an election (B5, B6)."""
    cluster = balancer(2, 3, 5)
    assert elect(cluster, 4) == "3213"
    assert elect(cluster, 10, dead="3") == "2121221212"
    assert elect(cluster, 20, NOW + RETRY + 1) == "32132331233213233123"


def test_elections_are_counted() -> None:
    """``elected`` counts choices, by session route or not, failed or not (B15)."""
    cluster = balancer(1, 1)
    elect(cluster, 3, dead="2")
    keep(cluster, 5, "1")
    cluster.settle()
    assert [member.elected for member in cluster.members] == [8, 1]


# --- bytraffic ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("load_factors", "routes"),
    [
        ((1, 1), "121212121212"),
        ((1, 2), "122122122122"),
        ((3, 1), "121112111211"),
        ((2, 3, 5), "123323132312332132331233"),
    ],
)
def test_bytraffic(load_factors: tuple[float, ...], routes: str) -> None:
    """With requests and responses of one small size the elections are Apache's (B9)."""
    cluster = balancer(*load_factors, lbmethod="bytraffic")
    elected = ""
    for _ in routes:
        member = cluster.choose(b"/", None, NOW).member
        assert member is not None
        elected += (member.route or b"").decode()
        member.sent += EVEN_TRAFFIC[0]
        member.received += EVEN_TRAFFIC[1]
    assert elected == routes


@pytest.mark.parametrize(
    ("traffic", "elected"),
    [
        # each direction is divided by the load factor, and rounded down, for itself
        ([(99, 99), (100, 0)], 0),
        ([(100, 0), (99, 99)], 1),
        ([(50, 50), (0, 0)], 0),
        ([(0, 300), (200, 0)], 1),
        ([(200, 100), (300, 0)], 0),
    ],
)
def test_bytraffic_score(traffic: list[tuple[int, int]], elected: int) -> None:
    """The first member with the lowest sum of both directions is elected (B9)."""
    members = balancer(1, 1).members
    for member, (sent, received) in zip(members, traffic, strict=True):
        member.sent, member.received = sent, received
    assert bytraffic(members) is members[elected]


def test_bytraffic_leaves_claims_alone() -> None:
    """An election by traffic changes no lbstatus (B9)."""
    cluster = balancer(1, 2, lbmethod="bytraffic")
    elect(cluster, 5)
    assert [claim(cluster, member) for member in cluster.members] == [0, 0]


# --- bybusyness --------------------------------------------------------------------------------


@pytest.mark.parametrize(("load_factors", "routes"), SEQUENCES)
def test_bybusyness_when_idle(load_factors: tuple[float, ...], routes: str) -> None:
    """Ties are broken by byrequests: idle members give its sequences (B10)."""
    assert elect(balancer(*load_factors, lbmethod="bybusyness"), 24) == routes


def test_bybusyness() -> None:
    """The member with the fewest exchanges under way is elected until it has as many (B10)."""
    cluster = balancer(1, 1, lbmethod="bybusyness")
    keep(cluster, 3, "2")
    cluster.members[1].busy = 3
    elected = ""
    for _ in range(3):
        elected += elect(cluster, 1)
        cluster.members[0].busy += 1
    assert elected == "111"
    assert elect(cluster, 3) == "121"  # as busy as the other, and nothing is owed any more


def test_bybusyness_advances_every_claim() -> None:
    """The claims move with every election, also where no tie has to be broken (B10)."""
    first, second = balancer(1, 3).members
    second.busy = 1
    assert bybusyness([first, second]) is first
    assert (first.lbstatus, second.lbstatus) == (100 - 400, 300)


def test_every_lbmethod_has_its_function() -> None:
    """What can be configured can elect."""
    assert set(LBMETHODS) == set(LbMethod)


# --- the ledger --------------------------------------------------------------------------------


def test_ledger_pays_when_asked() -> None:
    """Kept sessions cost one addition each; everybody pays and gets when it is settled (B4)."""
    cluster = balancer(1, 2)
    first, second = cluster.members
    ledger = Ledger(cluster.members)
    first.kept += 2
    assert (first.lbstatus, second.lbstatus) == (0, 0)
    ledger.settle()
    assert (first.lbstatus, second.lbstatus) == (-400, 400)
    ledger.settle()
    assert (first.lbstatus, second.lbstatus) == (-400, 400)


class Naive:
    """A member as Apache keeps it: every claim is exact at any time."""

    def __init__(self, factor: int) -> None:
        self.factor = factor
        self.lbstatus = 0
        self.operator = OperatorStatus.ENABLED
        self.check_failed = False
        self.error_since: float | None = None

    def permitted(self) -> bool:
        """Neither the operator nor the checks keep it out."""
        kept_out = (OperatorStatus.DISABLED, OperatorStatus.STOPPED)
        return not self.check_failed and self.operator not in kept_out

    def in_error(self, now: float) -> bool:
        """Traffic failed within the retry time."""
        return self.error_since is not None and now <= self.error_since + RETRY

    def considered(self, now: float) -> bool:
        """Whether it is usable, now that somebody looks (F6)."""
        if self.permitted() and not self.in_error(now):
            self.error_since = None
        return self.permitted() and self.error_since is None


def naive_choice(members: list[Naive], asked: int | None, now: float) -> Naive | None:
    """Apache's arithmetic, straightforwardly (B3, B4, F6, F7)."""
    if not any(member.permitted() and not member.in_error(now) for member in members):
        for member in members:
            member.error_since = None
    if asked is not None and members[asked].considered(now):
        chosen = members[asked]
        gaining = [m for m in members if m.permitted() and m.error_since is None]
        for member in gaining:
            member.lbstatus += member.factor
    else:
        enabled = [m for m in members if m.operator is OperatorStatus.ENABLED]
        gaining = [m for m in enabled if m.considered(now)]
        if not gaining:
            return None
        for member in gaining:
            member.lbstatus += member.factor
        chosen = max(gaining, key=lambda m: m.lbstatus)  # the first one among equals
    chosen.lbstatus -= sum(member.factor for member in gaining)
    return chosen


def apply(cluster: Balancer, member: Member, naive: Naive, change: Any, now: float) -> None:
    """One change of status, on both."""
    if isinstance(change, OperatorStatus):
        cluster.set_operator_status(member, change)
        naive.operator = change
    elif isinstance(change, bool):
        cluster.set_verdict(member, Verdict.FAILED if change else Verdict.PASSED)
        naive.check_failed = change
        naive.error_since = naive.error_since if change else None
    else:
        cluster.put_in_error(member, now)
        naive.error_since = now


# Most events are sessions that are kept, so that the ledger has something to put off.
INDEX = st.integers(0, 4)
KEEP = st.tuples(st.just("choose"), INDEX)
EVENTS = st.one_of(
    KEEP,
    KEEP,
    KEEP,
    st.tuples(st.just("choose"), st.none()),
    st.tuples(st.just("look"), INDEX),
    st.tuples(st.just("wait"), st.sampled_from([1, RETRY + 1])),
    st.tuples(st.sampled_from([*OperatorStatus, True, False, "error", "error"]), INDEX),
)


FACTORS = st.lists(st.integers(100, 500), min_size=2, max_size=5)


def settings_of(factors: list[int]) -> BalancerSettings:
    """The settings of a balancer whose members have these factors."""
    return balancer(*(factor / 100 for factor in factors)).settings


def happen(cluster: Balancer, naive: list[Naive], event: Any, argument: Any, now: float) -> None:
    """One event for both; what they say of it is the same."""
    index = argument % len(naive) if isinstance(argument, int) else None
    if event == "choose":
        cookie = None if index is None else b"BALANCEME=x.%d" % (index + 1)
        expected = naive_choice(naive, index, now)
        member = cluster.choose(b"/", cookie, now).member
        assert (member and cluster.members.index(member)) == (expected and naive.index(expected))
    elif index is None:
        return
    elif event == "look":
        assert claim(cluster, cluster.members[index]) == naive[index].lbstatus
    else:
        apply(cluster, cluster.members[index], naive[index], event, now)


def check_claims(cluster: Balancer, naive: list[Naive]) -> None:
    """All claims are the model's."""
    claims = [claim(cluster, member) for member in cluster.members]
    assert claims == [member.lbstatus for member in naive]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(FACTORS, st.lists(EVENTS, max_size=40))
def test_the_lazy_ledger_is_exact(factors: list[int], events: list[tuple[Any, Any]]) -> None:
    """Choices and claims are those of a model that pays at once, whatever happens (B3 to B6)."""
    cluster = Balancer("cluster", settings_of(factors))
    naive = [Naive(member.factor) for member in cluster.members]
    now = NOW
    for event, argument in events:
        now += argument if event == "wait" else 0
        happen(cluster, naive, event, argument, now)
    check_claims(cluster, naive)


RELOAD = st.tuples(st.just("reload"), st.lists(st.integers(100, 500), min_size=5, max_size=5))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(FACTORS, st.lists(st.tuples(EVENTS | RELOAD, st.integers(0, 9)), max_size=40))
def test_the_ledger_is_exact_over_reloads(
    factors: list[int], events: list[tuple[tuple[Any, Any], int]]
) -> None:
    """Other load factors change no claim that was earned before, and begin none anew (B4).

    Exchanges that began under former settings, of whichever reload, go on to count.
    """
    clusters = [Balancer("cluster", settings_of(factors))]
    naive = [Naive(member.factor) for member in clusters[0].members]
    now = NOW
    for (event, argument), which in events:
        now += argument if event == "wait" else 0
        if event == "reload":
            wanted = settings_of(argument[: len(naive)])
            clusters.append(Balancer("cluster", wanted, former=clusters[-1]))
            for member, model in zip(clusters[-1].members, naive, strict=True):
                model.factor = member.factor
        else:
            happen(clusters[which % len(clusters)], naive, event, argument, now)
    check_claims(clusters[-1], naive)
    check_claims(clusters[0], naive)


def test_reload_pays_by_the_factors_of_then() -> None:
    """What sessions brought before a reload is paid with the load factors of that time (B4)."""
    cluster = balancer(1, 1)
    keep(cluster, 6, "1")
    after = Balancer("cluster", settings_of([100, 300]), former=cluster)
    assert [member.lbstatus for member in after.members] == [-600, 600]
    keep(after, 2, "1")
    assert [claim(after, member) for member in after.members] == [-1200, 1200]
