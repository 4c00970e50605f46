"""The configuration file: YAML to settings, or a report of every mistake with line and column.

The file is only read, never run, and nothing is started: what ``load`` returns is checked as a
whole, so that no later step finds half of it wrong. Whether a certificate can be used is up to
``dataplane.tls``; here its file is there and can be read, and a private key only by those who
need it.
"""

import os
import stat
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from proxy.control.check_files import names_of_files, with_absolute_files
from proxy.control.yaml_tree import Branch, Fault, Position, read_yaml
from proxy.core.errors import ConfigError, Mistake
from proxy.core.raw import Raw, printable, shown
from proxy.core.reading import json_schema, settings_from_tree
from proxy.core.served import certificates
from proxy.core.settings import AccessLog, Frontend, Log, Settings, Tls
from proxy.core.values import duration_text

# Bytes. PyYAML takes seconds for a megabyte, and no configuration comes near it.
LARGEST_FILE = 1024**2


class Located(NamedTuple):
    """A mistake and its place; without one it is about the file as a whole."""

    mistake: Mistake
    at: Position | None = None

    @property
    def key(self) -> str:
        """The path to its value, as people write it: ``frontends[0].listen``; empty for none."""
        key = ""
        for step in self.mistake.path:
            key += f"[{step}]" if isinstance(step, int) else f".{printable(step)}"
        return key.removeprefix(".")


class ConfigFileError(ConfigError):
    """A configuration file can't be used. ``report`` tells all reasons, one a line."""

    def __init__(self, file: str, located: list[Located]) -> None:
        self.file = file
        # Stable: several mistakes in one place keep the order in which they were found.
        self.located = sorted(located, key=lambda found: found.at or Position(0, 0))
        super().__init__([found.mistake for found in self.located])

    def report(self) -> str:
        """``FILE:LINE:COLUMN: key.path: message``, in the order of the file."""
        return "\n".join(_line(self.file, found) for found in self.located)

    def __str__(self) -> str:
        return self.report()


def load(path: str | Path, *, check_files: bool = True) -> Settings:
    """The settings in a file, with the names of files that it holds made absolute.

    Relative ones count from the configuration's folder. ``check_files`` also asks whether the
    files of certificates and health checks can be read, and secret ones not by everybody. Raises
    ConfigFileError with everything that is wrong.
    """
    file, folder = str(path), Path(path).absolute().parent
    text = _text(file)
    tree, faults = read_yaml(text)
    if tree is None:
        raise ConfigFileError(file, [_of_fault(fault) for fault in faults] or [_EMPTY])
    mistakes: list[Mistake] = []
    settings = None
    try:
        settings = settings_from_tree(tree.value)
    except ConfigError as error:
        mistakes += error.mistakes
    if check_files:
        places = {mistake.path for mistake in mistakes}
        unfit = _unfit_files(tree.value, folder)
        mistakes += [mistake for mistake in unfit if mistake.path not in places]
    if faults or mistakes or settings is None:
        raise ConfigFileError(file, _located(tree, faults, mistakes))
    return _with_absolute_names(settings, folder)


def _located(tree: Branch, faults: list[Fault], mistakes: list[Mistake]) -> list[Located]:
    """Faults and mistakes with their places; what stands where YAML is at fault isn't judged."""
    places = {fault.path for fault in faults}
    return [_of_fault(fault) for fault in faults] + [
        Located(mistake, tree.position(mistake.path, on_key=mistake.on_key))
        for mistake in dict.fromkeys(mistakes)
        if mistake.path not in places
    ]


def _of_fault(fault: Fault) -> Located:
    return Located(Mistake(fault.path, fault.message), fault.at)


_EMPTY = Located(
    Mistake((), "the file is empty; config/balanceme.yaml shows every key"), Position(1, 1)
)


def report(error: ConfigError, file: str) -> str:
    """All reasons, one a line, of a mistake in the file or of one that shows in use.

    The latter has no line and column: ``FILE: key.path: message``.
    """
    if isinstance(error, ConfigFileError):
        return error.report()
    return "\n".join(_line(file, Located(mistake)) for mistake in error.mistakes)


def _line(file: str, found: Located) -> str:
    place = f":{found.at.line}:{found.at.column}" if found.at else ""
    key = f" {found.key}:" if found.key else ""
    return f"{file}{place}:{key} {found.mistake.message}"


# --- the file ----------------------------------------------------------------------------------


def _text(file: str) -> str:
    """The file's text. Raises ConfigFileError if there is none to be had."""
    try:
        with Path(file).open("rb") as stream:
            data = stream.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise _unusable(file, "no such file; check the name and the folder") from None
    except IsADirectoryError:
        raise _unusable(file, "a folder; name the configuration file in it") from None
    except PermissionError:
        raise _unusable(file, "may not be read by this user; change its owner or mode") from None
    except (OSError, ValueError) as error:
        raise _unusable(file, f"can't be read: {error}") from None
    if len(data) > LARGEST_FILE:
        raise _unusable(file, f"larger than {LARGEST_FILE} bytes; is it a configuration?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigFileError(file, [_not_utf8(data, error.start)]) from None


def _unusable(file: str, reason: str) -> ConfigFileError:
    return ConfigFileError(file, [Located(Mistake((), reason))])


def _not_utf8(data: bytes, start: int) -> Located:
    before = data[:start]
    column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
    message = f"not UTF-8: found the byte 0x{data[start]:02X}; save the file as UTF-8"
    return Located(Mistake((), message), Position(before.count(b"\n") + 1, column))


# --- the files it names ------------------------------------------------------------------------

# Where a log goes that goes to no file.
NO_FILES = ("-", "syslog")
# The end of a PEM file's line before a private key of any kind (RFC 7468 sections 10 and 11).
_BEGIN_OF_KEY = b"PRIVATE KEY-----"
_FILES_OF_TLS = ("certificate", "key", "password_file")


def _unfit_files(tree: Any, folder: Path) -> Iterator[Mistake]:
    frontends = Raw(tree).at("frontends").entries()
    entries = [entry for frontend in frontends for entry in certificates(frontend)]
    of_tls = [(at.at(key), key != "certificate") for at, key in product(entries, _FILES_OF_TLS)]
    for named, is_secret in [*of_tls, *names_of_files(Raw(tree))]:
        if not named.text:
            continue
        reason = _unfit(folder / named.text, is_secret=is_secret)
        if reason is not None:
            yield named.mistake(f"found {shown(named.text)}, {reason}")


def _unfit(file: Path, *, is_secret: bool) -> str | None:
    """Why a file can't be used, if it can't; one with a private key is secret in any case."""
    try:
        if not file.exists():
            return "but there is no such file"
        # Opening a pipe would wait for its writer.
        if not file.is_file():
            return "which is no plain file"
        with file.open("rb") as stream:
            is_secret = is_secret or _BEGIN_OF_KEY in stream.read(LARGEST_FILE)
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
        if is_secret and mode & stat.S_IROTH:
            remedy = "chmod 640, and chown it to root or to whoever starts balanceme"
            return f"a secret that everybody may read (mode {mode:04o}); {remedy}"
    except PermissionError:
        return "which this user may not read"
    except (OSError, ValueError) as error:
        return f"which can't be read: {error}"
    return None


def _with_absolute_names(settings: Settings, folder: Path) -> Settings:
    frontends = tuple(_with_absolute_tls(frontend, folder) for frontend in settings.frontends)
    balancers = {
        name: balancer
        if balancer.failover_file is None
        else balancer.model_copy(update={"failover_file": str(folder / balancer.failover_file)})
        for name, balancer in settings.balancers.items()
    }
    update: dict[str, Any] = {"frontends": frontends, "balancers": balancers}
    for key in ("log", "access_log"):
        log: Log | AccessLog | None = getattr(settings, key)
        if log is not None and log.path not in NO_FILES:
            update[key] = log.model_copy(update={"path": str(folder / log.path)})
    for key in ("pid_file", "state_folder"):
        name = getattr(settings, key)
        if name is not None:
            update[key] = str(folder / name)
    return with_absolute_files(settings.model_copy(update=update), folder)


def _with_absolute_tls(frontend: Frontend, folder: Path) -> Frontend:
    tls = tuple(_with_absolute_files(entry, folder) for entry in frontend.certificates)
    if not tls:
        return frontend
    return frontend.model_copy(update={"tls": tls if isinstance(frontend.tls, tuple) else tls[0]})


def _with_absolute_files(tls: Tls, folder: Path) -> Tls:
    named = {key: getattr(tls, key) for key in _FILES_OF_TLS}
    return tls.model_copy(
        update={key: str(folder / name) for key, name in named.items() if name is not None}
    )


# --- the schema --------------------------------------------------------------------------------


def schema() -> dict[str, Any]:
    """The JSON schema of the configuration file, for editors and for other programs."""
    described = _for_people(json_schema())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **described,
        "title": "balanceme configuration",
    }


# Under these the keys are names, not words of the schema.
_NAMED = ("$defs", "properties", "patternProperties")


def _for_people(schema: Any) -> Any:
    """A copy with defaults as one would write them, and no titles that only repeat the key."""
    if isinstance(schema, list):
        return [_for_people(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: {name: _for_people(inside) for name, inside in value.items()}
        if key in _NAMED
        else _for_people(value)
        for key, value in schema.items()
    }
    for inside in made.get("properties", {}).values():
        inside.pop("title", None)
    if "default" in made and made.get("type") != "number":
        made["default"] = _as_written(made["default"])
    if "patternProperties" in made:
        made["additionalProperties"] = False
    return made


def _as_written(default: Any) -> Any:
    """A default in the file's spelling; a float is a duration."""
    if isinstance(default, dict):
        return {key: _as_written(value) for key, value in default.items()}
    return duration_text(default) if isinstance(default, float) else default
