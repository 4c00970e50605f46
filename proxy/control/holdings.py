"""What the supervisor holds for its workers under one set of settings: all that has to be opened.

Sockets are bound, logs opened and private keys read here and nowhere else, since a worker may have
given up the right to. It is all or nothing: whatever can't be had is told at once, with everything
else that can't, and then nothing new stays open.
"""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from proxy.control.certificate_files import (
    KeyMaterial,
    Stamp,
    certificates_from,
    read_pem,
    stamp,
)
from proxy.control.check_files import Named, read_check_files
from proxy.control.log_files import open_log
from proxy.control.probes.result import CheckFiles
from proxy.control.sockets import Address, bind, close_all
from proxy.core.errors import ConfigError, Mistake
from proxy.core.settings import Settings, Tls


class Logs(NamedTuple):
    """Descriptors that are open for both logs; None for no access log."""

    log: int
    access_log: int | None

    @property
    def files(self) -> list[int]:
        """The descriptors there are."""
        return [self.log] if self.access_log is None else [self.log, self.access_log]

    def close(self) -> None:
        """Close them."""
        for file in self.files:
            os.close(file)


@dataclass
class Holdings:
    """All that is open for the workers of one generation."""

    settings: Settings
    # by ``listen``
    sockets: dict[str, socket.socket]
    keys: dict[str, tuple[KeyMaterial, ...]]
    # what the files of certificates were when they were read
    stamp: Stamp
    logs: Logs
    # what the files of health checks hold
    check_files: dict[Named, CheckFiles] = field(default_factory=dict)

    def close_but(self, others: "Holdings | None") -> None:
        """Close what ``others`` don't hold as well."""
        kept = set() if others is None else set(others.sockets.values())
        close_all(sock for sock in self.sockets.values() if sock not in kept)
        self.logs.close()


def hold(settings: Settings, available: Mapping[Address, socket.socket]) -> Holdings:
    """Open and read everything; sockets that are ``available`` are used.

    Raises ConfigError with everything that can't be had.
    """
    mistakes: list[Mistake] = []
    seen = stamp_of(settings)
    listens = [each.listen for each in settings.frontends]
    keys = _or_mistakes(lambda: read_keys(settings), mistakes)
    sockets = _or_mistakes(lambda: bind(listens, available), mistakes)
    logs = _or_mistakes(lambda: open_logs(settings), mistakes)
    files = _or_mistakes(lambda: read_check_files(settings), mistakes)
    if keys is not None and sockets is not None and logs is not None and files is not None:
        return Holdings(settings, sockets, keys, seen, logs, files)
    if logs is not None:
        logs.close()
    if sockets is not None:
        there = set(available.values())
        close_all(sock for sock in sockets.values() if sock not in there)
    raise ConfigError(mistakes)


def stamp_of(settings: Settings) -> Stamp:
    """What the files of all certificates are now."""
    return stamp(tls for frontend in settings.frontends for tls in frontend.certificates)


Held = TypeVar("Held")


def _or_mistakes(get: Callable[[], Held], mistakes: list[Mistake]) -> Held | None:
    try:
        return get()
    except ConfigError as error:
        mistakes += error.mistakes
        return None


def read_keys(settings: Settings) -> dict[str, tuple[KeyMaterial, ...]]:
    """Certificates and keys of each frontend, by ``listen``; raises ConfigError for all that fail.

    They have been tried: a worker can use them.
    """
    mistakes: list[Mistake] = []
    keys = {}
    for index, frontend in enumerate(settings.frontends):
        path = ("frontends", index, "tls")
        try:
            found = tuple(read_pem(tls, path) for tls in frontend.certificates)
            if found:
                certificates_from(frontend.certificates, path, found)
            keys[frontend.listen] = found
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)
    return keys


def renewed(
    former: Holdings, settings: Settings, keys: Mapping[str, Sequence[KeyMaterial]]
) -> list[str]:
    """Certificates whose files have the same names as before, and other content; in words."""
    before = {
        (frontend.listen, _files(tls)): material
        for frontend in former.settings.frontends
        for tls, material in zip(frontend.certificates, former.keys[frontend.listen], strict=True)
    }
    return [
        f"frontends {frontend.listen} tls: the files of {tls.certificate} have changed,"
        " and are read anew"
        for frontend in settings.frontends
        for tls, material in zip(frontend.certificates, keys[frontend.listen], strict=True)
        if before.get((frontend.listen, _files(tls)), material) != material
    ]


def _files(tls: Tls) -> tuple[str | None, ...]:
    return tls.certificate, tls.key, tls.password_file


def open_logs(settings: Settings) -> Logs:
    """Both logs, opened anew; raises ConfigError for all that fail."""
    mistakes: list[Mistake] = []
    wanted = settings.access_log
    log = _or_mistakes(lambda: open_log(settings.log.path, 2, "log"), mistakes)
    access_log = None
    if wanted is not None:
        access_log = _or_mistakes(lambda: open_log(wanted.path, 1, "access_log"), mistakes)
    if mistakes or log is None:
        for file in (log, access_log):
            if file is not None:
                os.close(file)
        raise ConfigError(mistakes)
    return Logs(log, access_log)
