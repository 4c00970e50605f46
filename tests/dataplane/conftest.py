"""What the data plane's tests share: a stage that is checked and thrown away in the end."""

from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from tests.fakes import Stage


class MakeStage(Protocol):
    """Makes a stage, with changes to the settings."""

    def __call__(self, members: int = 2, *, tls: bool = False, **settings: Any) -> Stage:
        """The stage."""


@pytest.fixture
def make_stage() -> Iterator[MakeStage]:
    """Makes stages; each is checked at the end of the test."""
    stages: list[Stage] = []

    def make(members: int = 2, *, tls: bool = False, **settings: Any) -> Stage:
        stage = Stage(members, tls=tls, **settings)
        stages.append(stage)
        return stage

    yield make
    try:
        for stage in stages:
            stage.end()
    finally:
        for stage in stages:
            stage.close()


@pytest.fixture
def stage(make_stage: MakeStage) -> Stage:
    """A stage with two members and the settings' defaults."""
    return make_stage()
