"""The files of certificates, read once and handed on as bytes.

A worker that has dropped root can't read the keys: the supervisor reads them for it, before a
fork or for a reload. OpenSSL takes keys from files only, so the worker lends the bytes a name for
as long as that takes: a file in memory (memfd_create(2)), which nobody else can open.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from proxy.core.errors import ConfigError, Mistake
from proxy.core.settings import Tls
from proxy.dataplane.tls import Certificates

Stamp = tuple[tuple[int, int, int, int] | None, ...]
"""What was seen of files; equal as long as they are the same."""


@dataclass(frozen=True, slots=True, repr=False)
class KeyMaterial:
    """The content of the files of one certificate. Shows nothing of itself, in no log either."""

    certificate: bytes
    key: bytes | None
    password: bytes | None

    def __repr__(self) -> str:
        return "KeyMaterial(...)"


def read_pem(tls: Tls, path: tuple[str | int, ...]) -> KeyMaterial:
    """What the files of a certificate hold. Raises ConfigError for one that can't be read.

    ``path`` leads to the settings. Whether it is a certificate shows when it is used.
    """
    try:
        return KeyMaterial(
            Path(tls.certificate).read_bytes(),
            None if tls.key is None else Path(tls.key).read_bytes(),
            None if tls.password_file is None else Path(tls.password_file).read_bytes(),
        )
    except OSError as error:
        text = f"{error.strerror}: {error.filename}"
        raise ConfigError([Mistake(path, text)]) from error


def certificates_from(
    settings: Sequence[Tls], path: tuple[str | int, ...], materials: Sequence[KeyMaterial]
) -> Certificates:
    """The certificates of a frontend, from bytes that were read before, one for each of settings.

    Raises ConfigError for what is no certificate with its key; it names the files.
    """
    with ExitStack() as stack:
        opened = [
            stack.enter_context(_lent_names(tls, material))
            for tls, material in zip(settings, materials, strict=True)
        ]
        return Certificates(settings, path, opened)


def stamp(settings: Iterable[Tls]) -> Stamp:
    """What the files are now; another one once any of them has changed, come or gone.

    To be taken before the files are read, else a change in between goes unnoticed. It costs a few
    µs a file. A replaced file has another inode, one that was written over another time or size.
    """
    return tuple(
        _seen(name)
        for tls in settings
        for name in (tls.certificate, tls.key, tls.password_file)
        if name is not None
    )


def _seen(name: str) -> tuple[int, int, int, int] | None:
    try:
        found = os.stat(name)  # noqa: PTH116 - of every file, every second
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev


@contextmanager
def _lent_names(tls: Tls, material: KeyMaterial) -> Iterator[Tls]:
    """The settings with names under which the bytes can be read as if they were files."""
    contents = {
        "certificate": material.certificate,
        "key": material.key,
        "password_file": material.password,
    }
    with ExitStack() as stack:
        names = {
            name: None if content is None else stack.enter_context(_in_memory(content))
            for name, content in contents.items()
        }
        yield tls.model_copy(update=names)


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """The name of a file in memory that is gone afterwards; it needs no right on any folder."""
    with open(os.memfd_create("pem"), "wb") as file:  # noqa: PTH123 - a descriptor
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"
