"""proxy.admin.member_notes: what a terminal shows of a member beside its numbers."""

import time
from datetime import datetime
from typing import Any

import pytest

from proxy.admin.member_notes import clock, left, member_notes, word

AT = datetime(2026, 11, 20, 15, 4, 5).astimezone().timestamp()
ROOT = {"by": "root", "at": AT, "why": "new disk"}
MEMBER: dict[str, Any] = {"route": "server2", "operator": "drain", "sessions": 12, "busy": 3}
WHEN = "at 2026-11-20 15:04:05"


@pytest.mark.parametrize(
    ("member", "notes"),
    [
        ({}, []),
        ({"said": ROOT}, [f"drain, as root said {WHEN}: new disk"]),
        ({"said": {"by": "root", "at": 0.0, "why": ""}}, ["drain, as root said"]),
        (
            {"said": ROOT, "waiting": 1, "drain": {"until": AT, "empty_at": AT}},
            [
                (
                    f"drain, as root said {WHEN}: new disk; 12 live sessions, 3 exchanges under"
                    " way, 1 of them waiting for news; empty at about 2026-11-20 15:04:05;"
                    " what is left moves at 2026-11-20 15:04:05"
                )
            ],
        ),
        (
            {"operator": "disabled", "said": ROOT, "drain": {"done": True}},
            [f"disabled, as root said {WHEN}: new disk; drained, nothing is left on it"],
        ),
        (
            {"takeover": {"heir": "server1", "origin": "checks", **ROOT}},
            [f"server1 has taken over its sessions, as root said {WHEN}: new disk"],
        ),
        (
            {"fenced": {"by": "health checks", "at": AT, "why": "web: refused"}},
            [
                (
                    f"fenced, as health checks said {WHEN}: web: refused;"
                    " balanceme readmit server2 lets it serve again"
                )
            ],
        ),
        (
            {"terms_said": ROOT, "load_factor": 2.5, "lbset": 1, "hot_spare": True},
            [f"load factor 2.5, lbset 1, hot spare, as root said {WHEN}: new disk"],
        ),
        (
            {
                "checks": [
                    {"name": "web", "required": True, "passing": True, "text": "200 OK"},
                    {"name": "sql", "required": False, "passing": False, "text": "no\x1b[1m"},
                    {"name": "imap", "required": True, "passing": None, "text": ""},
                ]
            },
            ["check sql (advisory) fails: no\\x1b[1m", "check imap has no result yet"],
        ),
    ],
)
def test_notes(member: dict[str, Any], notes: list[str]) -> None:
    """What was said is shown with by whom, when and why; checks that fail, with what they saw."""
    assert member_notes({**MEMBER, **member}) == [f"server2: {note}" for note in notes]


@pytest.mark.parametrize(
    "strange",
    [
        {"said": 7, "drain": [], "takeover": "x", "checks": {}},
        {"said": {"by": 7, "at": "x"}, "checks": [None, 7, {}]},
        {"drain": {"until": "x", "empty_at": []}},
        {"drain": {"until": 1e308, "empty_at": float("nan")}, "said": {"by": "x", "at": -1e308}},
    ],
)
def test_other_versions(strange: dict[str, Any]) -> None:
    """What is of another kind than today is shown or left out."""
    assert isinstance(member_notes(strange), list)


def test_times_of_today() -> None:
    """A time of today has no date."""
    assert len(clock(time.time())) == len("15:04:05")


def test_left_without_an_estimate() -> None:
    """What can't be estimated isn't told."""
    assert left(MEMBER) == "12 live sessions, 3 exchanges under way"


def test_word() -> None:
    """Nothing that a terminal obeys gets through, and nothing is a dash."""
    assert [word(value) for value in (None, "", 0, "a\nb")] == ["-", "-", "0", "a\\nb"]
