"""What the tests of the API and of its client share."""

from pathlib import Path

import pytest

from tests.admin.fake_commands import FakeCommands


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the API answers."""
    return tmp_path / "control.sock"


@pytest.fixture
def commands() -> FakeCommands:
    """The supervisor behind it."""
    return FakeCommands()
