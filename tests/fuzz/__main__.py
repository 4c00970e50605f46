"""Fuzz one target: ``python -m tests.fuzz TARGET [--seconds N | --runs N]``, guided by coverage.

It begins with the inputs in ``corpus/TARGET``. What it finds interesting goes to the folder that
``--keep`` names, else it is forgotten; an input that breaks the target is shown, and ends it.
"""

import argparse
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["proxy"]):
    from tests.fuzz.targets import TARGETS

FOLDER = Path(__file__).parent
# Longer inputs find little that shorter ones don't, and cost more.
LONGEST = 1024


def main() -> None:
    """Read the arguments, and fuzz."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    bound = parser.add_mutually_exclusive_group()
    bound.add_argument("--seconds", type=int, default=60)
    bound.add_argument("--runs", type=int, help="instead of a time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for what is found")
    given = parser.parse_args()
    corpus = FOLDER / "corpus" / given.target
    options = [
        f"-max_total_time={given.seconds}" if given.runs is None else f"-runs={given.runs}",
        f"-seed={given.seed}",
        f"-max_len={LONGEST}",
        f"-dict={FOLDER / 'http.dict'}",
        # an endless loop is a find; a shared machine's hiccup is none
        "-timeout=60",
    ]
    if given.keep is not None:
        given.keep.mkdir(parents=True, exist_ok=True)
        # libFuzzer writes to the first folder it is given.
        options += [f"-artifact_prefix={given.keep}/", str(given.keep), str(corpus)]
    else:
        inputs = ",".join(map(str, sorted(corpus.iterdir())))
        options += ["-exact_artifact_path=/dev/null", f"-seed_inputs={inputs}"]
    target = TARGETS[given.target]

    def one(data: bytes) -> None:
        try:
            target(data)
        except BaseException:
            sys.stderr.write(f"\n{given.target} fails with {data!r}\n")
            raise

    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
