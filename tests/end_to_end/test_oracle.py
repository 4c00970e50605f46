"""The same requests through a real Apache and through us: answers and members' views are equal.

Apache is the oracle. Every difference is in ``oracle_differences`` with its reason, or it is a
failure. One process of each kind serves all cases; each case has a site of its own in both.
"""

import os
import re
from collections.abc import Iterator

import pytest

from tests.end_to_end.apache import find_apache, start_apache
from tests.end_to_end.balanceme_process import start_balanceme
from tests.end_to_end.oracle_arena import Arena, arena
from tests.end_to_end.oracle_cases import CASES
from tests.end_to_end.oracle_differences import DEPARTURES, complaints
from tests.end_to_end.oracle_model import Case
from tests.end_to_end.oracle_run import compare

NO_APACHE = "no Apache httpd (apache2) on this machine: there is nothing to compare with"


@pytest.fixture(scope="module")
def scene(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Arena]:
    """Both frontends, serving the cases that were selected."""
    if find_apache() is None:
        if os.environ.get("CI"):
            pytest.fail(NO_APACHE)
        pytest.skip(NO_APACHE)
    items = [getattr(item, "callspec", None) for item in request.session.items]
    wanted = [spec.params["case"] for spec in items if spec and "case" in spec.params]
    cases = [case for case in wanted if isinstance(case, Case)]
    with arena(tmp_path_factory.mktemp("oracle"), cases, [start_apache, start_balanceme]) as found:
        yield found


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_as_apache(case: Case, scene: Arena) -> None:
    """Client and members see what they see with Apache, but for the listed differences."""
    apache, ours = scene.play(case)
    texts = complaints(case.name, compare(apache, ours), ours)
    if texts:
        dead = [process for process in scene.processes if not process.alive]
        logs = [f"{process.name} has ended:\n{process.log()}" for process in dead]
        pytest.fail("\n".join([f"{case.name} ({case.rules})", *texts, *logs]), pytrace=False)


def test_the_list_names_cases_and_rules() -> None:
    """Every listed difference belongs to a case that exists, and names the rule it departs from."""
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    for entry in DEPARTURES:
        assert set(entry.cases) <= set(names)
        assert re.match(r"[A-Z]\d+: ", entry.reason)


def test_there_are_many_cases() -> None:
    """The comparison is broad: at least 150 cases, each with the rules it is about."""
    assert len(CASES) >= 150
    assert all(case.rules for case in CASES)
