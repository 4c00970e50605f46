"""What health checks say of a member: results are counted, the verdict follows, and how it ends.

A check passes or fails after so many results in a row; the very first one decides alone. A member
passes when all of its required checks do. One that failed comes back by these steps:

| verdict | a required check fails | all required checks pass |
|---|---|---|
| UNKNOWN | FAILED | PASSED |
| PASSED | FAILED; FENCED if fence is on_failure | PASSED |
| FAILED | FAILED | HELD for the time of its penalty, then PASSED |
| HELD | as PASSED | PASSED once the time is over, or if nobody else can be used |
| FENCED | FENCED | FENCED; PASSED once it is readmitted |

The penalty is ``hold_off``, doubled with each failure of the last hour, so that a member that flaps
stays out for longer and longer (D111). Nothing here knows who runs the checks.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from proxy.core.settings import Fence, HealthCheck

# Failures count towards the penalty for so many seconds, and double it at most so many times.
REMEMBERED = 3600.0
MOST_DOUBLED = 6


class Verdict(Enum):
    """What the checks say of a member; only PASSED lets it take requests."""

    PASSED = "passed"
    FAILED = "check failed"
    HELD = "held off"
    FENCED = "fenced"
    UNKNOWN = "not checked yet"


class Check:
    """One check of one member: its results in a row."""

    __slots__ = ("passing", "settings", "streak", "text")

    def __init__(self, settings: HealthCheck) -> None:
        self.settings = settings
        # None until there is a result
        self.passing: bool | None = None
        # how many in a row say otherwise
        self.streak = 0
        # what the last result said
        self.text = ""

    def observe(self, passed: bool, text: str) -> bool:
        """Count a result; whether it flipped the check."""
        self.text = text
        if passed is self.passing:
            self.streak = 0
            return False
        self.streak += 1
        needed = self.settings.passes if passed else self.settings.fails
        if self.passing is not None and self.streak < needed:
            return False
        self.passing = passed
        self.streak = 0
        return True

    def __repr__(self) -> str:
        return f"<Check {self.settings.title} passing={self.passing} streak={self.streak}>"


class HandedOn(NamedTuple):
    """What is known of a member's checks, for another program on the same machine."""

    verdict: Verdict
    # monotonic, as the times of the last failures
    back_at: float
    failures: tuple[float, ...]
    # by the check's title; None without a result
    passing: Mapping[str, bool | None]


class Health:
    """All checks of one member, and its verdict."""

    __slots__ = ("_failures", "_fence", "_hold_off", "back_at", "checks", "verdict")

    def __init__(self, checks: Sequence[HealthCheck], fence: Fence, hold_off: float) -> None:
        self.checks = {settings.title: Check(settings) for settings in checks}
        # when HELD ends, on the clock of ``now``
        self.back_at = 0.0
        self._failures: list[float] = []
        self._fence, self._hold_off = fence, hold_off
        self.verdict = Verdict.UNKNOWN if self._required else Verdict.PASSED

    def configure(self, checks: Sequence[HealthCheck], fence: Fence, hold_off: float) -> None:
        """Other settings: checks that are the same go on, and so does the verdict.

        A member that serves goes on serving until a new check fails.
        """
        self._fence, self._hold_off = fence, hold_off
        former, self.checks = self.checks, {}
        for settings in checks:
            known = former.get(settings.title)
            same = known is not None and known.settings == settings
            self.checks[settings.title] = known if known and same else Check(settings)
        self._settle()

    def _settle(self) -> None:
        """A verdict that the settings don't give is none."""
        if self._fence is Fence.NEVER and self.verdict is Verdict.FENCED:
            self.verdict = Verdict.FAILED
        if not self._required and self.verdict is not Verdict.FENCED:
            self.verdict = Verdict.PASSED

    @property
    def _required(self) -> list[Check]:
        return [check for check in self.checks.values() if check.settings.required]

    @property
    def reason(self) -> str:
        """Which required checks fail, and what they said."""
        failing = [check for check in self._required if check.passing is False]
        return ", ".join(f"{check.settings.title}: {check.text}" for check in failing)

    def observe(self, title: str, passed: bool, text: str) -> bool:
        """A result of the check with this title; whether it flipped it."""
        check = self.checks.get(title)
        return check is not None and check.observe(passed, text)

    def judge(self, now: float, *, alone: bool) -> bool:
        """Whether the verdict flips, as of ``now``; ``alone``: no other member can be used."""
        before = self.verdict
        if any(check.passing is False for check in self._required):
            self._fail(now)
        elif all(check.passing for check in self._required):
            self._pass(now, alone=alone)
        return self.verdict is not before

    def _fail(self, now: float) -> None:
        if self.verdict in (Verdict.FAILED, Verdict.FENCED):
            return
        # One that never passed may have been away for long when we came: that is no failure.
        fences = self._fence is Fence.ON_FAILURE and self.verdict is not Verdict.UNKNOWN
        self.verdict = Verdict.FENCED if fences else Verdict.FAILED
        self._failures = [*(t for t in self._failures if now - t < REMEMBERED), now]

    def _pass(self, now: float, *, alone: bool) -> None:
        if self.verdict is Verdict.UNKNOWN:
            self.verdict = Verdict.PASSED
        elif self.verdict is Verdict.FAILED:
            self.back_at = now + self.penalty
            self.verdict = Verdict.HELD
        if self.verdict is Verdict.HELD and (alone or now >= self.back_at):
            self.verdict = Verdict.PASSED

    @property
    def penalty(self) -> float:
        """For how many seconds it must pass before it is back."""
        doubled = min(max(len(self._failures) - 1, 0), MOST_DOUBLED)
        return self._hold_off * 2.0**doubled

    def handed_on(self) -> "HandedOn":
        """What the next program is to know, lest an upgrade look like a start."""
        passing = {title: check.passing for title, check in self.checks.items()}
        return HandedOn(self.verdict, self.back_at, tuple(self._failures), passing)

    def take_up(self, known: "HandedOn") -> None:
        """Go on where the program before us was; what is not checked any more is forgotten.

        So a single lost probe fails nobody who passed until then, and no failure is told twice.
        """
        self.verdict, self.back_at, self._failures = known[0], known[1], [*known[2]]
        for title, check in self.checks.items():
            check.passing = known.passing.get(title)
        self._settle()

    def fence(self) -> None:
        """It is fenced, as was said before a restart."""
        self.verdict = Verdict.FENCED

    def readmit(self) -> bool:
        """The operator takes it back: no fence, no penalty; whether there was one.

        With checks that fail it stays out until they pass, and then for ``hold_off``.
        """
        if self.verdict not in (Verdict.FENCED, Verdict.HELD, Verdict.FAILED):
            return False
        held = self.verdict in (Verdict.FENCED, Verdict.HELD) or bool(self._failures)
        self._failures = []
        states = [check.passing for check in self._required]
        if all(states):
            self.verdict = Verdict.PASSED
        else:
            self.verdict = Verdict.FAILED if False in states else Verdict.UNKNOWN
        return held

    def __repr__(self) -> str:
        return f"<Health {self.verdict.value} {list(self.checks.values())}>"
