"""What the fuzzer found once holds for ever, and it finds nothing new in a short run.

Any Python replays the corpus; a run that is guided by coverage needs atheris. Longer runs:
``python -m tests.fuzz TARGET --seconds 600``.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
# Inputs for one target's run; together they take some 20 s.
RUNS = {
    "request_head": 10000,
    "response_head": 10000,
    "chunks": 20000,
    "target": 20000,
    "cookie_route": 20000,
    "preamble": 20000,
    "conversation": 4000,
}
# The corpus stays small enough to be read, and to be replayed each time.
MOST_FILES, MOST_BYTES = 300, 300_000


def corpus(target: str) -> list[Path]:
    """The files of one target."""
    return sorted((FOLDER / "corpus" / target).iterdir())


@pytest.mark.parametrize("target", TARGETS)
def test_corpus(target: str) -> None:
    """Every input of the corpus keeps to what its target asks for (P1, P5, P7)."""
    for file in corpus(target):
        data = file.read_bytes()
        try:
            TARGETS[target](data)
        except BaseException as error:
            error.add_note(f"{target}/{file.name}: {data!r}")
            raise


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed: it has wheels for Linux on x86-64 only",
)
@pytest.mark.parametrize("target", TARGETS)
def test_short_campaign(target: str) -> None:
    """Some thousand inputs that coverage leads to break nothing; always the same ones (P7)."""
    command = [sys.executable, "-m", "tests.fuzz", target, "--runs", str(RUNS[target])]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        # Not asserted, since pytest would shorten the input.
        pytest.fail(f"{' '.join(command)}\n{done.stdout}\n{done.stderr[-8000:]}")


def test_corpus_is_small_and_complete() -> None:
    """Each target has inputs to begin with, and a run; all of them together are few."""
    assert RUNS.keys() == TARGETS.keys() == {path.name for path in (FOLDER / "corpus").iterdir()}
    sizes = [file.stat().st_size for target in TARGETS for file in corpus(target)]
    assert len(sizes) <= MOST_FILES
    assert sum(sizes) <= MOST_BYTES
