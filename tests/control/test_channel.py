"""The line between supervisor and worker, over real sockets and between real processes."""

import os
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.control.channel import (
    DIRECT,
    MOST_FILES,
    Channel,
    ChannelError,
    Kind,
    Message,
    channel_pair,
)

# A child of these tests does little, and ends; Python 3.12 warns where other tests left threads.
pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)

Line = tuple[Channel, Channel]


@pytest.fixture
def line() -> Iterator[Line]:
    """Both ends of a line."""
    ends = channel_pair()
    yield ends
    for end in ends:
        end.close()


def open_files() -> int:
    """How many files this process has open."""
    return len([*Path("/proc/self/fd").iterdir()])


def longest_direct() -> bytes:
    """The longest value that still travels in the line itself."""
    rest = DIRECT - len(pickle.dumps((Kind.PLAN, bytes(DIRECT // 2)), pickle.HIGHEST_PROTOCOL))
    return bytes(DIRECT // 2 + rest)


def received(channel: Channel) -> Message:
    """The next message, which is there."""
    message = channel.receive()
    assert message is not None
    return message


# --- messages ------------------------------------------------------------------------------------


def test_nothing_there(line: Line) -> None:
    """Who asks before anything was sent is told so at once, at either end."""
    assert line[0].receive() is None
    assert line[1].receive() is None


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_whole_at_every_length(line: Line, extra: int) -> None:
    """A value arrives whole, on either side of the length that the line itself takes."""
    value = longest_direct() + bytes(extra) if extra > 0 else longest_direct()[: extra or None]
    line[0].send(Kind.PLAN, value)
    assert received(line[1]) == (Kind.PLAN, value, ())


def test_long_message(line: Line) -> None:
    """What is too long for any socket's buffer arrives as well, and leaves no file open."""
    before = open_files()
    value = os.urandom(4 << 20)
    line[0].send(Kind.SESSIONS, value)
    assert received(line[1]).value == value
    assert open_files() == before


def test_both_directions_keep_their_order(line: Line) -> None:
    """Short messages, long ones and those with files come out in the order they went in."""
    values = [number if number % 3 else b"x" * DIRECT * 2 for number in range(30)]
    for end, other in (line, line[::-1]):
        for value in values:
            end.send(Kind.STATUS, value)
        assert [received(other).value for _ in values] == values
        assert other.receive() is None


@pytest.mark.slow
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from(Kind),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats(width=32),
        lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    ),
    st.sampled_from([0, DIRECT]),
)
def test_any_value(line: Line, kind: Kind, value: Any, padding: int) -> None:
    """Any value that can be pickled arrives as it was, direct or in a file."""
    line[0].send(kind, (value, bytes(padding)))
    told = received(line[1])
    # Floats that are no number differ from themselves, hence by what is written of them.
    assert repr(told.value) == repr((value, bytes(padding)))
    assert told.kind is kind


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"short", b"long" * DIRECT])
def test_files_pass(line: Line, value: bytes) -> None:
    """Files arrive open, in order, as the receiver's own; the sender's stay his (SCM_RIGHTS)."""
    before = open_files()
    files = [os.memfd_create(name) for name in ("first", "second")]
    for number, file in enumerate(files):
        os.write(file, b"%d" % number)
    line[0].send(Kind.LOGS, value, files)
    for file in files:
        os.close(file)
    told = received(line[1])
    assert told.value == value
    assert [os.pread(file, 9, 0) for file in told.files] == [b"0", b"1"]
    for file in told.files:
        os.close(file)
    assert open_files() == before


def test_sender_keeps_its_files(line: Line) -> None:
    """A sender goes on using what it has sent, also when sending failed."""
    file = os.memfd_create("kept")
    try:
        line[0].send(Kind.LOGS, None, [file])
        for descriptor in received(line[1]).files:
            os.close(descriptor)
        line[1].close()
        before = open_files()
        for value in (b"short", b"long" * DIRECT):
            with pytest.raises(ChannelError):
                line[0].send(Kind.LOGS, value, [file])
        assert open_files() == before
        assert os.fstat(file).st_size == 0
    finally:
        os.close(file)


def test_most_files(line: Line) -> None:
    """As many files as the kernel takes in one message arrive, the message's own among them."""
    file = os.memfd_create("many")
    line[0].send(Kind.PLAN, b"long" * DIRECT, [file] * (MOST_FILES - 1))
    told = received(line[1])
    for descriptor in (file, *told.files):
        os.close(descriptor)
    assert told.value == b"long" * DIRECT
    assert len(told.files) == MOST_FILES - 1


# --- ends ----------------------------------------------------------------------------------------


def fill(channel: Channel) -> int:
    """Send numbers until the line takes no more; how many it took."""
    sent = 0
    try:
        while True:
            channel.send(Kind.STATUS, sent)
            sent += 1
    except ChannelError:
        return sent


def test_full_line(line: Line) -> None:
    """A line that nobody reads is an error, never a wait; what it had taken arrives in order."""
    sent = fill(line[0])
    assert sent > 10
    with pytest.raises(ChannelError, match=r"^it doesn't read what it is told$"):
        line[0].send(Kind.STATUS, sent)
    assert [received(line[1]).value for _ in range(sent)] == [*range(sent)]
    assert line[1].receive() is None
    line[0].send(Kind.STATUS, "there is room again")
    assert received(line[1]).value == "there is room again"


def test_end(line: Line) -> None:
    """What was said before the end is still heard; then each look says that it is the end."""
    line[0].send(Kind.IN_FORCE, 7)
    line[0].close()
    assert received(line[1]).value == 7
    for _ in range(2):
        with pytest.raises(EOFError):
            line[1].receive()
    with pytest.raises(ChannelError, match=r"^Broken pipe$"):
        line[1].send(Kind.STATUS)


def test_end_with_unread_messages(line: Line) -> None:
    """An end that goes with unread messages is an end as well, and no other error."""
    line[1].send(Kind.STATUS)
    line[0].close()
    with pytest.raises(EOFError):
        line[1].receive()


def test_between_processes(line: Line) -> None:
    """A child that was forked answers with a file of its own; its death is the line's end."""
    ours, theirs = line
    process = os.fork()
    if process == 0:
        try:
            ours.close()
            theirs._socket.setblocking(True)
            told = received(theirs)
            file = os.memfd_create("answer")
            os.write(file, told.value)
            theirs.send(Kind.SESSIONS, os.getpid(), [file])
        finally:
            os._exit(0)
    theirs.close()
    ours.send(Kind.PLAN, b"content")
    os.waitpid(process, 0)
    told = received(ours)
    assert told.value == process
    [file] = told.files
    assert os.pread(file, 99, 0) == b"content"
    os.close(file)
    with pytest.raises(EOFError):
        ours.receive()


def test_waits_for_nobody(line: Line) -> None:
    """Neither end ever blocks, and both can be waited for by their descriptor."""
    for end in line:
        assert not os.get_blocking(end.fileno())
        assert repr(end) == f"<Channel {end.fileno()}>"
        assert end._socket.type == socket.SOCK_SEQPACKET
