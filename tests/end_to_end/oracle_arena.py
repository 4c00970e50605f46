"""Where a comparison takes place: both frontends serving all cases, and one case on both."""

import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import trustme

from tests.end_to_end.frontend_process import FrontendProcess
from tests.end_to_end.oracle_model import Case, Site
from tests.end_to_end.oracle_run import Facts, Side, free_port, play

Starter = Callable[[Path, list[tuple[Site, str, list[str]]], Path], FrontendProcess]
_OCTETS = (101, 102)
_ASIDE = 6
"""Cases that are played at the same time, if they may be."""


class Arena:
    """Two running frontends that serve the sites of all cases."""

    def __init__(self, cases: Sequence[Case], processes: Sequence[FrontendProcess]) -> None:
        self._indexes = {case.name: index for index, case in enumerate(cases)}
        self._aside = [case for case in cases if case.aside]
        self._pool = ThreadPoolExecutor(_ASIDE)
        self._played: dict[str, Future[list[Facts]]] = {}
        self.processes = list(processes)
        self.sides: list[Side] = []
        self.seconds: dict[str, float] = {}

    def play(self, case: Case) -> list[Facts]:
        """What happened on each side; both are played at the same time."""
        if not case.aside:
            return self._play(case)
        if not self._played:
            self._played = {each.name: self._pool.submit(self._play, each) for each in self._aside}
        return self._played[case.name].result()

    def close(self) -> None:
        """Play nothing more."""
        self._pool.shutdown(cancel_futures=True)

    def _play(self, case: Case) -> list[Facts]:
        index = self._indexes[case.name]
        started = time.monotonic()
        with ThreadPoolExecutor(len(self.sides)) as pool:
            facts = list(pool.map(lambda side: play(case, index, side), self.sides))
        self.seconds[case.name] = time.monotonic() - started
        return facts


@contextmanager
def arena(folder: Path, cases: Sequence[Case], starters: Sequence[Starter]) -> Iterator[Arena]:
    """Start both frontends and stop them afterwards."""
    authority = trustme.CA()
    certificate = folder / "certificate.pem"
    certificate.touch(mode=0o600)
    authority.issue_cert("mail.zarafa.com").private_key_and_cert_chain_pem.write_to_path(
        str(certificate)
    )
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    tls.check_hostname = False  # some cases send another name, or none
    port = free_port()
    scene = Arena(cases, [])
    try:
        for octet, starter in zip(_OCTETS, starters, strict=False):
            side = Side(octet, port, tls)
            own = folder / f"side{octet}"
            own.mkdir()
            sites = [
                (case.site, side.authority(index), side.members(index, len(case.site.members)))
                for index, case in enumerate(cases)
            ]
            scene.processes.append(starter(own, sites, certificate))
            scene.sides.append(side)
        yield scene
    finally:
        scene.close()
        for process in scene.processes:
            process.stop()
