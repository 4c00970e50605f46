"""The files of health checks, read once and handed on as text: credentials, and authorities.

The prober may not be allowed to read what root may: the supervisor reads them for it, where it
reads certificates, and their content travels with the checks. It is never logged, and never shown.
"""

import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from proxy.control.probes.result import CheckFiles
from proxy.core.errors import ConfigError, Mistake
from proxy.core.raw import Raw
from proxy.core.settings import Balancer, HealthCheck, Member, Settings

# Bytes of such a file; the authorities of a whole system have 220 KiB.
_LARGEST = 1 << 20
_NAMES = ("credentials_file", "ca_file")
Place = tuple[str | int, ...]


class CheckOf(NamedTuple):
    """A check in the settings, and the path that leads to it."""

    check: HealthCheck
    path: Place


Named = tuple[str | None, str | None]
"""The names of a check's files: credentials_file, ca_file."""


def named(check: HealthCheck) -> Named:
    """The names of its files."""
    return check.credentials_file, check.ca_file


# --- reading -------------------------------------------------------------------------------------


def read_check_files(settings: Settings) -> dict[Named, CheckFiles]:
    """What the files of all checks hold, by their names; raises ConfigError for all that fail."""
    mistakes: list[Mistake] = []
    found = {}
    for check, path in _checks(settings):
        if named(check) not in found and any(named(check)):
            user, password = _credentials(check.credentials_file, path, mistakes)
            found[named(check)] = CheckFiles(user, password, _ca(check.ca_file, path, mistakes))
    if mistakes:
        raise ConfigError(mistakes)
    return found


def renewed_files(
    former: Mapping[Named, CheckFiles], present: Mapping[Named, CheckFiles]
) -> list[str]:
    """Files with the same names as before, and other content; in words."""
    return [
        f"health_checks: {' and '.join(filter(None, names))} changed, and read anew"
        for names, files in present.items()
        if former.get(names, files) != files
    ]


def _checks(settings: Settings) -> Iterator[CheckOf]:
    for name, balancer in settings.balancers.items():
        path: Place = ("balancers", name)
        yield from _numbered(balancer.health_checks, (*path, "health_checks"))
        for index, member in enumerate(balancer.members):
            inside = (*path, "members", index, "health_checks")
            yield from _numbered(member.health_checks or (), inside)


def _numbered(checks: tuple[HealthCheck, ...], path: Place) -> Iterator[CheckOf]:
    for index, check in enumerate(checks):
        yield CheckOf(check, (*path, index))


def _credentials(
    file: str | None, path: Place, mistakes: list[Mistake]
) -> tuple[str | None, str | None]:
    """User and password."""
    text = _text(file, (*path, "credentials_file"), mistakes)
    if text is None:
        return None, None
    user, colon, password = (text.splitlines() or [""])[0].partition(":")
    if not (user and colon) or "\0" in text:
        problem = f"{file} has no user:password in its first line"
        mistakes.append(Mistake((*path, "credentials_file"), problem))
    return user, password


def _ca(file: str | None, path: Place, mistakes: list[Mistake]) -> str | None:
    """Certificates in PEM."""
    text = _text(file, (*path, "ca_file"), mistakes)
    if text is None:
        return None
    try:
        ssl.create_default_context(cadata=text or "-")
    except (ssl.SSLError, ValueError):
        problem = f"{file} holds no certificates of authorities, in PEM"
        mistakes.append(Mistake((*path, "ca_file"), problem))
    return text


def _text(file: str | None, path: Place, mistakes: list[Mistake]) -> str | None:
    if file is None:
        return None
    try:
        with Path(file).open("rb") as stream:
            return stream.read(_LARGEST).decode("utf-8")
    except OSError as error:
        mistakes.append(Mistake(path, f"{error.strerror}: {file}"))
    except UnicodeDecodeError:
        mistakes.append(Mistake(path, f"{file} is no text in UTF-8"))
    return None


# --- their names ---------------------------------------------------------------------------------


def names_of_files(root: Raw) -> Iterator[tuple[Raw, bool]]:
    """Each name of a file in a raw tree's health checks, and whether the file is a secret."""
    for balancer in root.at("balancers").named().values():
        for place in (balancer, *balancer.at("members").entries()):
            for check in place.at("health_checks").entries():
                yield check.at("credentials_file"), True
                yield check.at("ca_file"), False


def with_absolute_files(settings: Settings, folder: Path) -> Settings:
    """The settings with the names of health checks' files counted from a folder."""
    if not any(any(named(check)) for check, _ in _checks(settings)):
        return settings
    balancers = {name: _absolute(each, folder) for name, each in settings.balancers.items()}
    return settings.model_copy(update={"balancers": balancers})


def _absolute(balancer: Balancer, folder: Path) -> Balancer:
    def each(checks: tuple[HealthCheck, ...]) -> tuple[HealthCheck, ...]:
        return tuple(_absolute_check(check, folder) for check in checks)

    def of(member: Member) -> Member:
        if member.health_checks is None:
            return member
        return member.model_copy(update={"health_checks": each(member.health_checks)})

    members = tuple(of(member) for member in balancer.members)
    update = {"members": members, "health_checks": each(balancer.health_checks)}
    return balancer.model_copy(update=update)


def _absolute_check(check: HealthCheck, folder: Path) -> HealthCheck:
    names = {key: getattr(check, key) for key in _NAMES}
    given = {key: str(folder / name) for key, name in names.items() if name is not None}
    return check.model_copy(update=given) if given else check
