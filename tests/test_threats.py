"""Holds the list of threats: each rule is checked by a test that cites it, or has its reason.

The rules and their numbers are in the README's table «What never gets through»; a second table
there says of some why they are not checked.
"""

import re
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parent.parent
RULES = range(1, 93)
_CITED = re.compile(r"\bH(\d+)(?: to H(\d+))?\b")


def section() -> str:
    """The README's section about threats."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.partition("## What never gets through\n")[2].partition("\n## ")[0]


def excepted() -> set[int]:
    """The rules that the second table gives a reason for."""
    rows = section().partition("| rule | why not |")[2].splitlines()
    cells = [row.split("|")[1] for row in rows if row.startswith("| H")]
    return {int(number) for cell in cells for number in re.findall(r"H(\d+)", cell)}


def cited() -> set[int]:
    """The rules that tests cite; «H1 to H4» cites four."""
    files = chain(*(ROOT.joinpath("tests").rglob(f"*.{kind}") for kind in ("py", "wire")))
    found: set[int] = set()
    for file in files:
        for first, last in _CITED.findall(file.read_text(encoding="utf-8")):
            found |= {*range(int(first), int(last or first) + 1)}
    return found


def test_every_rule_has_a_row() -> None:
    """The table names each rule once, in order."""
    table = section().partition("| rule | why not |")[0]
    ranges = re.findall(r"^\| H(\d+)–H(\d+) \|", table, re.MULTILINE)
    numbers = [number for first, last in ranges for number in range(int(first), int(last) + 1)]
    assert numbers == [*RULES]


def test_every_rule_is_checked() -> None:
    """A rule is cited by a test, or the README says why not; never both without need."""
    assert {*RULES} - cited() - excepted() == set()


def test_exceptions_are_rules() -> None:
    """Exceptions are few, and are rules."""
    assert excepted() <= {*RULES}
    assert len(excepted()) <= 4
