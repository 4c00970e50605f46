"""A configuration's tree, mistakes and notices as text, for golden files and comparisons."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from proxy.apache.lines import quoted_word
from proxy.apache.reader import ApacheError, Options, read
from proxy.apache.tree import Directive, Section


def options_of(file: Path) -> Options:
    """What its first line says: ``# options: --repair --root=FOLDER -DNAME[=VALUE] NAME=VALUE``."""
    first = file.read_bytes().partition(b"\n")[0].decode("latin-1")
    said = first.removeprefix("# options:").split() if first.startswith("# options:") else []
    pairs = [word.partition("=")[::2] for word in said]
    return Options(
        {name.removeprefix("-D"): value for name, value in pairs if name.startswith("-D")},
        {name: value for name, value in pairs if not name.startswith("-")},
        str(file.parent / dict(pairs).get("--root", "")),
        repair="--repair" in said,
    )


def reading(file: Path, options: Options) -> str:
    """What comes of a file; paths are seen from its folder."""
    try:
        tree = read(file, options)
    except ApacheError as error:
        lines = ["mistakes:", *map(str, error.mistakes)]
    else:
        lines = [*shown(tree.children), *["notices:"][: len(tree.notices)]]
        lines += map(str, tree.notices)
    return "\n".join(lines).replace(f"{file.parent}/", "") + "\n"


def shown(children: Iterable[Directive | Section], indent: str = "") -> Iterator[str]:
    """A line for each directive, with its place and its words in quotes where they need them."""
    for child in children:
        line = " ".join([child.name, *map(quoted_word, child.arguments)])
        if isinstance(child, Section):
            yield f"{indent}{child.at} <{line}>"
            yield from shown(child.children, f"{indent}  ")
        else:
            yield f"{indent}{child.at} {line}"


def without_places(children: Iterable[Directive | Section], indent: str = "") -> Iterator[str]:
    """Names in lower case, and words between bars, to compare."""
    for child in children:
        line = "|".join([child.key, *child.arguments])
        if isinstance(child, Section):
            yield f"{indent}<{line}"
            yield from without_places(child.children, f"{indent}  ")
        else:
            yield indent + line
