"""What these tests share: a clock, and real servers, started when the first test wants them."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.control.real_servers import (
    Issued,
    Mail,
    MariaDb,
    Web,
    issue,
    start_apache,
    start_dovecot,
    start_mariadb,
    start_postfix,
)
from tests.fakes import FakeClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The clock of all decisions."""
    clock = FakeClock()
    monkeypatch.setattr("time.monotonic", clock.monotonic)
    return clock


@pytest.fixture(scope="session")
def make_folder() -> Iterator[Callable[[], Path]]:
    """Makes folders that servers find their way into after they have given up root."""
    with tempfile.TemporaryDirectory(prefix="balanceme-", ignore_cleanup_errors=True) as name:
        root = Path(name)
        root.chmod(0o755)

        def make() -> Path:
            folder = root / str(len(list(root.iterdir())))
            folder.mkdir()
            return folder

        yield make


@pytest.fixture(scope="session")
def issued(make_folder: Callable[[], Path]) -> Issued:
    """The certificate of all these servers."""
    return issue(make_folder())


@pytest.fixture(scope="session")
def mariadb(make_folder: Callable[[], Path], free_port: Callable[[], int]) -> Iterator[MariaDb]:
    """A MariaDB."""
    running = start_mariadb(make_folder(), free_port)
    yield running
    running.server.stop()


@pytest.fixture(scope="session")
def postfix(
    make_folder: Callable[[], Path], free_port: Callable[[], int], issued: Issued
) -> Iterator[Mail]:
    """A Postfix."""
    running = start_postfix(make_folder(), free_port, issued)
    yield running
    running.server.stop()


@pytest.fixture(scope="session")
def dovecot(
    make_folder: Callable[[], Path], free_port: Callable[[], int], issued: Issued
) -> Iterator[Mail]:
    """A Dovecot."""
    running = start_dovecot(make_folder(), free_port, issued)
    yield running
    running.server.stop()


@pytest.fixture(scope="session")
def apache(
    make_folder: Callable[[], Path], free_port: Callable[[], int], issued: Issued
) -> Iterator[Web]:
    """An Apache."""
    running = start_apache(make_folder(), free_port, issued)
    yield running
    running.server.stop()
