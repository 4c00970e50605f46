"""The names that Define, ``-D`` and the environment give, and Debian's ``envvars``.

Whether a name is defined is asked with its case, and its value without, as Apache does (D1).
"""

import re
from collections.abc import Mapping
from pathlib import Path

_ASSIGNED = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)=(\"[^\"]*\"|'[^']*'|[^\s;#]*)\s*(?:[;#].*)?")
_EXPANSION = re.compile(r"\$(?:(\w+)|\{(\w+)(?:(:?-|##?)([^}$`*?\[]*))?\})")
_TEST = re.compile(r'if \[ "([^"]*)" (!=|==?) "([^"]*)" \] *; *then')


class Variables:
    """What is defined at a place of the configuration."""

    def __init__(self, defines: Mapping[str, str], environ: Mapping[str, str]) -> None:
        self._names = set(defines)
        self._values = {name.lower(): value for name, value in defines.items() if value}
        self._environ = environ
        # what envvars has, once somebody missed a name
        self._shell: Mapping[str, str] | None = None
        self._folders: list[Path] = []

    def look_in(self, folder: Path) -> None:
        """The folder may hold an ``envvars``."""
        self._folders.append(folder)

    def define(self, name: str, value: str) -> None:
        """Define; an empty value is none, and leaves an earlier one."""
        self._names.add(name)
        if value:
            self._values[name.lower()] = value

    def undefine(self, name: str) -> None:
        """UnDefine; the environment stays."""
        self._names.discard(name)
        self._values.pop(name.lower(), None)

    def is_defined(self, name: str) -> bool:
        """Whether Define or ``-D`` named it."""
        return name in self._names

    def value(self, name: str) -> str | None:
        """The value of a name, None if it has none."""
        known = self._values.get(name.lower())
        if known is None:
            known = self._environ.get(name)
        return self._from_shell(name) if known is None else known

    def _from_shell(self, name: str) -> str | None:
        if self._shell is None:
            self._shell = {}
            for folder in reversed(self._folders):
                self._shell = {**self._shell, **_read_envvars(folder)}
        return self._shell.get(name)


def _read_envvars(folder: Path) -> Mapping[str, str]:
    try:
        text = (folder / "envvars").read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return {}
    return shell_values(text, {"APACHE_CONFDIR": str(folder)})


def shell_values(text: str, known: Mapping[str, str]) -> Mapping[str, str]:
    """What the simple assignments of a shell script make of what is known.

    Understood are ``X=y`` with and without export and quotes, ``$X``, ``${X:-y}``, ``${X#y}`` and
    ``if [ "a" != "b" ]``. What needs a real shell isn't assigned.
    """
    values = dict(known)
    taken = [True]
    for line in text.split("\n"):
        said = line.strip()
        if said.startswith("if "):
            taken.append(taken[-1] and _test(said, values))
        elif said == "else" and len(taken) > 1:
            taken[-1] = taken[-2] and not taken[-1]
        elif said == "fi" and len(taken) > 1:
            taken.pop()
        elif taken[-1] and (found := _ASSIGNED.fullmatch(said)):
            _assign(found[1], found[2], values)
    return values


def _assign(name: str, written: str, values: dict[str, str]) -> None:
    if written.startswith("'"):
        values[name] = written[1:-1]
    elif (value := _expanded(written.strip('"'), values)) is not None:
        values[name] = value


def _test(said: str, values: Mapping[str, str]) -> bool:
    found = _TEST.fullmatch(said)
    if not found:
        return False
    left, right = _expanded(found[1], values), _expanded(found[3], values)
    return (left != right) if found[2] == "!=" else (left == right)


def _expanded(text: str, values: Mapping[str, str]) -> str | None:
    def value(found: re.Match[str]) -> str:
        name, how, operand = found[1] or found[2], found[3] or "", found[4] or ""
        known = values.get(name)
        if how.endswith("-"):
            empty_counts = how == ":-"
            return operand if known is None or (empty_counts and not known) else known
        return (known or "").removeprefix(operand)

    # What is left of a $ needs a real shell.
    if re.search(r"[$`\\]", _EXPANSION.sub("", text)):
        return None
    return _EXPANSION.sub(value, text)
