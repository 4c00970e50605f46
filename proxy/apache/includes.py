"""Which files an Include means, in the order in which Apache reads them (D5).

Patterns match names in any folder of the path, but not hidden ones, and no links to folders on
the way; whole folders are read with all that is in them, hidden files too. Names are sorted.
"""

import re
from pathlib import Path

# Folders in folders of an included folder.
_DEEPEST = 128
_BRACKETS = re.compile(r"\[[!^]?(?:\][^\]]*|[^\]]+)\]")


class IncludeError(ValueError):
    """There is nothing to include; says why, and what to do."""


def included(name: str, root: Path, *, optional: bool) -> list[Path]:
    """The files of an Include or IncludeOptional. Raises IncludeError."""
    try:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.endswith(("/", "/.")):
            # Says that the last name is a folder's; Path would forget it.
            parts.append(".")
        start = Path(root.anchor) if name.startswith("/") else root
        if is_pattern(name):
            return _matching(start, tuple(parts), optional)
        return _named(start.joinpath(*parts), parts[-1:] == ["."], optional)
    except (OSError, ValueError) as error:
        if isinstance(error, IncludeError):
            raise
        raise IncludeError(_because(error)) from error


def is_pattern(name: str) -> bool:
    """Whether a name has wildcards that no backslash stands before."""
    bare = re.sub(r"\\.", "", name)
    return "*" in bare or "?" in bare or _BRACKETS.search(bare) is not None


def _named(path: Path, must_be_folder: bool, optional: bool) -> list[Path]:
    if must_be_folder and path.exists() and not path.is_dir():
        if optional:
            return []
        raise IncludeError(f"{path} isn't a folder; leave out the / at its end")
    return _whole(path, optional, ())


def _matching(folder: Path, parts: tuple[str, ...], optional: bool) -> list[Path]:
    part, rest = parts[0], parts[1:]
    if not is_pattern(part):
        path = folder / part
        return _matching(path, rest, optional) if rest else _named(path, part == ".", optional)
    pattern = _expression(part)
    try:
        names = sorted(path.name for path in folder.iterdir() if pattern.fullmatch(path.name))
    except OSError as error:
        if optional and isinstance(error, FileNotFoundError):
            return []
        raise IncludeError(
            f"the folder {folder} can't be read ({_because(error)}); make it, or say"
            " IncludeOptional"
        ) from error
    paths = [folder / name for name in sorted(names, key=_bytes)]
    if rest:
        paths = [path for path in paths if path.is_dir() and not path.is_symlink()]
    if not paths and not optional:
        raise IncludeError(f"nothing in {folder} matches {part}; say IncludeOptional if it may")
    found = []
    for path in paths:
        found += _matching(path, rest, optional) if rest else _whole(path, optional, ())
    return found


def _whole(path: Path, optional: bool, above: tuple[Path, ...]) -> list[Path]:
    """A file, or all files of a folder and of its folders."""
    if path.is_dir():
        real = path.resolve()
        if real in above or len(above) >= _DEEPEST:
            raise IncludeError(f"the folder {path} leads back to itself, or too deep")
        found = []
        for inner in sorted(path.iterdir(), key=lambda inner: _bytes(inner.name)):
            found += _whole(inner, optional, (*above, real))
        return found
    if path.is_file() or str(path) == "/dev/null":
        return [path]
    if path.exists():
        raise IncludeError(f"{path} isn't a regular file")
    if optional:
        return []
    # A failover include is such a file (D5).
    raise IncludeError(f"there is no {path}; make it (it may be empty), or say IncludeOptional")


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _because(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _expression(part: str) -> re.Pattern[str]:
    """A wildcard as a regular expression. A hidden file's dot is matched by a dot only."""
    text, at = "", 0
    while at < len(part):
        bracket = _BRACKETS.match(part, at)
        if bracket:
            inside = bracket[0][1:-1]
            negated = inside.startswith(("!", "^"))
            members = re.sub(r"([\\\]\[&~|^])", r"\\\1", inside[negated:])
            text += f"[{'^' * negated}{members}]"
            at = bracket.end()
            continue
        if part[at] == "\\" and at + 1 < len(part):
            at += 1
            text += re.escape(part[at])
        else:
            text += {"*": ".*", "?": "."}.get(part[at], re.escape(part[at]))
        at += 1
    hidden = "" if part.startswith((".", "\\.")) else r"(?!\.)"
    try:
        return re.compile(hidden + text, re.DOTALL)
    except re.error as error:
        raise IncludeError(f"{part} isn't a pattern: {error}") from error
