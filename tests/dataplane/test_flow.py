"""Pausing one side when the other is slow: holds add up."""

import pytest

from proxy.dataplane.flow import Gate, Hold
from tests.fakes import FakeTransport, Stage


@pytest.fixture
def transport(stage: Stage) -> FakeTransport:
    """A transport with nobody behind it."""
    return stage.client().transport


def test_reads_until_held(transport: FakeTransport) -> None:
    """A hold stops reading, its release goes on; each may be given twice (H36)."""
    gate = Gate(transport)
    for _ in range(2):
        gate.hold(Hold.CONNECTING)
        assert not transport.is_reading()
        assert not gate.open
    for _ in range(2):
        gate.release(Hold.CONNECTING)
        assert transport.is_reading()
        assert gate.open


def test_goes_on_when_the_last_hold_is_gone(transport: FakeTransport) -> None:
    """With several reasons the last release counts; all at once is one (H36)."""
    gate = Gate(transport)
    gate.hold(Hold.CONNECTING)
    gate.hold(Hold.PIPELINED)
    gate.release(Hold.CONNECTING | Hold.OTHER_SIDE_SLOW)
    assert not transport.is_reading()
    assert repr(gate) == "<Gate Hold.PIPELINED>"
    gate.release(~Hold.NONE)
    assert transport.is_reading()


def test_leaves_a_closing_transport_alone(transport: FakeTransport) -> None:
    """A connection that is closing is neither paused nor resumed: uvloop would object."""
    gate = Gate(transport)
    gate.hold(Hold.CONNECTING)
    transport.abort()
    gate.release(Hold.CONNECTING)
    assert not transport.reading
    assert gate.open
    transport.reading = True
    gate.hold(Hold.CONNECTING)
    assert transport.reading
