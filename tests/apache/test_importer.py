"""What Apache configurations mean: golden pairs of a configuration, and what is made of it.

``cases/NAME.conf`` is read with ``-D SSL``; ``cases/NAME.txt`` has the configuration of ours and
the notices, or the mistakes. A case of more shape than those here is worth a pair of its own.
"""

from pathlib import Path

import pytest

from proxy.apache.importer import import_tree
from proxy.apache.mistakes import ApacheError
from proxy.apache.reader import Options, read
from proxy.control.config_writer import write
from proxy.control.yaml_tree import read_yaml
from proxy.core.reading import settings_from_tree

CASES = Path(__file__).parent / "cases"
FILES = sorted(CASES.glob("*.conf"))


def told(file: Path) -> str:
    """What is made of a configuration: ours with its notices, or mistakes."""
    try:
        imported = import_tree(read(Path(file.name), Options({"SSL": ""})))
    except ApacheError as error:
        return f"mistakes:\n{error}\n"
    text = write(imported.tree, imported.comments)
    tree, faults = read_yaml(text)
    assert tree is not None
    assert not faults
    assert settings_from_tree(tree.value) == settings_from_tree(imported.tree)
    notices = "\n".join(map(str, imported.notices))
    return text.replace(str(CASES), "CASES") + (f"\nnotices:\n{notices}\n" if notices else "")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_meaning(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each directive is a setting with its place, a notice, or a mistake; ours can be served."""
    monkeypatch.chdir(CASES)
    expected = file.with_suffix(".txt").read_text(encoding="utf-8")
    assert told(file).replace(str(CASES), "CASES") == expected


def test_every_pair_is_whole() -> None:
    """Each configuration has its expectation, and the other way round."""
    assert {file.stem for file in FILES} == {file.stem for file in CASES.glob("*.txt")}
