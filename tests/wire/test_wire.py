"""Golden conversations, in every cut: the messages that are malformed, ambiguous, or just rare.

The files beside this one hold them, one for a part of the hardening rules; ``cases`` says how
they are written, ``playing`` what is looked at besides. Each case is played whole, byte by byte on
either side and both, and cut in two at every single place (long ones in pieces of each small
size); the outcome is always the same.
"""

import re
from itertools import zip_longest
from pathlib import Path

import pytest

from tests.wire.cases import Case, read_cases
from tests.wire.playing import WHOLE, Conversation, Manner

FOLDER = Path(__file__).parent
TESTS = FOLDER.parent
CASES = [case for path in sorted(FOLDER.glob("*.wire")) for case in read_cases(path)]
# What is longer is cut into fewer pieces: its case would take longer than it tells.
MOST_BYTES = 400
PIECE = 997
# What has more places to cut it in two is cut into pieces of two bytes, of three, and so on.
MOST_PLACES = 80
PIECES = range(2, 12)

# Rules of the sections A to C, E, G, H, K and L.
RULES = {
    f"H{number}"
    for first, last in ((1, 30), (40, 44), (52, 69), (79, 84))
    for number in range(first, last + 1)
}
# A rule without a case: the reason, and the test that holds it.
ELSEWHERE: dict[str, tuple[str, str]] = {}


def manners(case: Case) -> tuple[list[Manner], list[Manner]]:
    """How a case is played: whole and in many pieces, then in two."""
    if case.whole:
        return [WHOLE], []
    client, client_places = _places(case, "client")
    member, member_places = _places(case, "member")
    many = [WHOLE, Manner(client=client), Manner(member=member), Manner(client, member)]
    if max(len(client_places), len(member_places)) > MOST_PLACES:
        return many, [Manner(client[::size], member[::size]) for size in PIECES]
    two = zip_longest(client_places, member_places, fillvalue=0)
    return many, [Manner((place,), (other,)) for place, other in two]


def _places(case: Case, side: str) -> tuple[range, list[int]]:
    """Where to cut what one side sends into many pieces, and where into two."""
    sent = [*case.sends(side)]
    size = sum(len(step.data) for _, step in sent)
    if size > MOST_BYTES:
        return range(0, size, PIECE), []
    return range(size), [start + place for start, step in sent for place in step.cuts]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_wire(case: Case) -> None:
    """Both sides get exactly what the case says, however the bytes are cut (H32, P1, P3, P6)."""
    many, two = manners(case)
    for manner in (*many, *two):
        try:
            Conversation(case, manner).play(thorough=manner in many)
        except AssertionError as error:
            error.add_note(f"played with {manner}")
            raise


def test_each_rule_has_a_case() -> None:
    """A rule that no case is for is held by a test elsewhere, which exists."""
    covered = {rule for case in CASES for rule in case.rules}
    assert covered | set(ELSEWHERE) >= RULES
    assert not covered & set(ELSEWHERE)
    for _, place in ELSEWHERE.values():
        file, _, test = place.partition("::")
        text = (TESTS / file).read_text(encoding="utf-8")
        assert re.search(rf"^def {re.escape(test)}\(", text, re.MULTILINE), place


def test_names_are_unique() -> None:
    """A case is found by its name."""
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
