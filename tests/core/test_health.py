from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.health import MOST_DOUBLED, REMEMBERED, Health, Verdict
from proxy.core.settings import Fence, HealthCheck

NOW = 1000.0
HOLD = 10.0


def check(title: str = "web", **options: Any) -> HealthCheck:
    """A check that one result flips, unless told otherwise."""
    return HealthCheck.model_validate(
        {"type": "http", "name": title, "passes": 1, "fails": 1, **options}
    )


def health(*checks: HealthCheck, fence: Fence = Fence.NEVER, hold_off: float = HOLD) -> Health:
    """A member's health, before anything is known."""
    return Health(checks or (check(),), fence, hold_off)


def verdict(made: Health) -> Verdict:
    """What it is now."""
    return made.verdict


def see(made: Health, word: str, now: float = NOW, title: str = "web") -> Verdict:
    """Results of a check, ``+`` for passed and ``-`` for failed; the verdict behind them."""
    for sign in word:
        made.observe(title, sign == "+", "refused" if sign == "-" else "200 OK")
        made.judge(now, alone=False)
    return made.verdict


# --- one check ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("results", "states"),
    [
        ("+", "+"),
        ("-", "-"),
        ("+-+-+-", "++++++"),
        ("+--", "++-"),
        ("+-+--", "++++-"),
        ("--+++", "----+"),
        ("-+-++-+++", "--------+"),
    ],
)
def test_results_in_a_row(results: str, states: str) -> None:
    """The first result decides alone; then so many in a row do (H4 as section X has it)."""
    made = health(check(passes=3, fails=2))
    told = ""
    for sign in results:
        made.observe("web", sign == "+", "")
        told += "+" if made.checks["web"].passing else "-"
    assert told == states


def test_only_flips_are_news() -> None:
    """A result that changes nothing is no flip, nor is one of a check that is gone."""
    made = health(check(fails=2))
    assert [made.observe("web", sign == "+", "") for sign in "++--+--+"] == [
        *(True, False, False, True, True, False, True, True)
    ]
    assert not made.observe("gone", True, "")


# --- the verdict ---------------------------------------------------------------------------------


def test_nothing_known() -> None:
    """A member with required checks takes no traffic before their first results."""
    assert health().verdict is Verdict.UNKNOWN
    assert health(check(required=False)).verdict is Verdict.PASSED
    assert Health((), Fence.NEVER, HOLD).verdict is Verdict.PASSED
    made = health(check(), check("mail"))
    assert see(made, "+") is Verdict.UNKNOWN
    assert see(made, "+", title="mail") is Verdict.PASSED


def test_any_required_check_fails_the_member() -> None:
    """All required checks must pass; an advisory one changes nothing (D109)."""
    made = health(check(), check("mail"), check("sql", required=False))
    for title in ("web", "mail", "sql"):
        see(made, "+", title=title)
    assert see(made, "-", title="sql") is Verdict.PASSED
    assert see(made, "-", title="mail") is Verdict.FAILED
    assert made.reason == "mail: refused"
    see(made, "-")
    assert made.reason == "web: refused, mail: refused"
    assert see(made, "+", title="mail") is Verdict.FAILED
    assert see(made, "+") is Verdict.HELD


def test_hold_off() -> None:
    """A member that failed must pass for a while before it is back."""
    made = health()
    see(made, "+-")
    assert see(made, "+", NOW + 100) is Verdict.HELD
    assert made.back_at == NOW + 110
    assert see(made, "+", NOW + 109.9) is Verdict.HELD
    made.judge(NOW + 110, alone=False)
    assert verdict(made) is Verdict.PASSED


def test_hold_off_ends_when_nobody_else_can_serve() -> None:
    """Better a member that flaps than none."""
    made = health()
    see(made, "+-+")
    made.judge(NOW, alone=True)
    assert verdict(made) is Verdict.PASSED


def test_no_hold_off() -> None:
    """Without it a member is back with its first passed check (H5)."""
    assert see(health(hold_off=0), "+-+") is Verdict.PASSED


def test_penalty_grows() -> None:
    """Each failure within an hour doubles the hold-off, up to a bound (D111)."""
    made = health()
    now, waits = NOW, []
    see(made, "+", now)
    for _ in range(MOST_DOUBLED + 3):
        see(made, "-+", now)
        waits.append(made.back_at - now)
        now = made.back_at
        made.judge(now, alone=False)
        assert verdict(made) is Verdict.PASSED
    assert waits == [HOLD * 2**power for power in (*range(MOST_DOUBLED + 1), 6, 6)]
    see(made, "-+", now + REMEMBERED + 1)
    assert made.penalty == HOLD


def test_failing_while_held_off() -> None:
    """Who fails again on the way back begins anew, with the next penalty."""
    made = health()
    see(made, "+-+")
    assert see(made, "-") is Verdict.FAILED
    assert see(made, "+") is Verdict.HELD
    assert made.back_at == NOW + 2 * HOLD


# --- fencing -------------------------------------------------------------------------------------


def test_fenced_until_readmitted() -> None:
    """Once fenced, no check brings a member back, but the operator does."""
    made = health(fence=Fence.ON_FAILURE)
    assert see(made, "+-") is Verdict.FENCED
    assert see(made, "+" * 10, NOW + 1e6) is Verdict.FENCED
    assert made.readmit()
    assert verdict(made) is Verdict.PASSED


def test_readmitted_while_checks_fail() -> None:
    """Then the member is out until they pass, and back at once when they do, but for hold_off."""
    made = health(fence=Fence.ON_FAILURE)
    see(made, "+-")
    assert made.readmit()
    assert verdict(made) is Verdict.FAILED
    assert see(made, "+") is Verdict.HELD
    assert made.back_at == NOW + HOLD
    assert made.readmit()
    assert verdict(made) is Verdict.PASSED
    assert not made.readmit()


def test_never_passed_is_no_failure_to_fence() -> None:
    """A member that was down when we came isn't fenced: nothing failed that we knew of."""
    made = health(fence=Fence.ON_FAILURE)
    assert see(made, "-") is Verdict.FAILED
    assert see(made, "+") is Verdict.HELD
    made.judge(NOW + HOLD, alone=False)
    assert see(made, "-") is Verdict.FENCED


# --- other settings ------------------------------------------------------------------------------


def test_configure_keeps_what_is_known() -> None:
    """Checks that stay the same go on; a new one lets a member serve until it fails."""
    made = health(check(fails=2))
    see(made, "+-")
    made.configure((check(fails=2), check("mail")), Fence.NEVER, HOLD)
    assert verdict(made) is Verdict.PASSED
    assert see(made, "-") is Verdict.FAILED
    made.configure((check(fails=3), check("mail")), Fence.NEVER, HOLD)
    assert made.checks["web"].passing is None
    assert verdict(made) is Verdict.FAILED


def test_configure_without_checks() -> None:
    """Without required checks nothing keeps a member out, but a fence does while there are any."""
    made = health()
    see(made, "+-")
    made.configure((), Fence.NEVER, HOLD)
    assert verdict(made) is Verdict.PASSED
    made = health(fence=Fence.ON_FAILURE)
    see(made, "+-")
    made.configure((), Fence.ON_FAILURE, HOLD)
    assert verdict(made) is Verdict.FENCED
    made.configure((), Fence.NEVER, HOLD)
    assert verdict(made) is Verdict.PASSED


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["web+", "web-", "mail+", "mail-", "readmit", "look"]), st.floats(0, 40)
    ),
    max_size=60,
)


@given(EVENTS, st.sampled_from(Fence), st.booleans())
def test_any_history(events: list[tuple[str, float]], fence: Fence, alone: bool) -> None:
    """Whatever happens: out while a required check fails, fenced until readmitted, back in time."""
    made = health(check(), check("mail"), fence=fence)
    now = NOW
    for event, later in events:
        now += later
        before, states = made.verdict, [each.passing for each in made.checks.values()]
        if event == "readmit":
            made.readmit()
        elif event != "look":
            made.observe(event[:-1], event[-1] == "+", "")
        made.judge(now, alone=alone)
        states = [each.passing for each in made.checks.values()]
        if made.verdict is Verdict.PASSED:
            assert all(states)
            assert before in (Verdict.PASSED, Verdict.UNKNOWN) or (
                event == "readmit" or alone or now >= made.back_at
            )
        if False in states:
            assert verdict(made) in (Verdict.FAILED, Verdict.FENCED)
        if before is Verdict.FENCED and event != "readmit":
            assert verdict(made) is Verdict.FENCED
        if fence is Fence.NEVER:
            assert verdict(made) is not Verdict.FENCED
    made.readmit()
    for title in ("web", "mail"):
        made.observe(title, True, "")
    made.judge(now, alone=False)
    made.judge(now + 64 * HOLD, alone=False)
    assert verdict(made) is Verdict.PASSED
