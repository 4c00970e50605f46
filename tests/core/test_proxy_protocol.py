"""proxy.core.proxy_protocol: preambles in and out, and nothing behind them touched (H45)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.errors import ClientError
from proxy.core.proxy_protocol import Ends, binary, line, missing, read

V4 = Ends("192.0.2.1", 50000, "203.0.113.5", 443)
V6 = Ends("2001:db8::1", 1, "2001:db8::2", 65535)
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
BEHIND = b"GET / HTTP/1.1\r\n"


def taken(data: bytes) -> bytes:
    """What is taken of a stream as its preamble."""
    found = b""
    while count := missing(found):
        assert count > 0
        if len(found) + count > len(data):
            raise EOFError(found)
        found = data[: len(found) + count]
    return found


def v2(command: int, family: int, body: bytes, *, length: int | None = None) -> bytes:
    """A preamble of version 2 with these bytes behind its fixed part."""
    size = len(body) if length is None else length
    return SIGNATURE + bytes((command, family)) + size.to_bytes(2, "big") + body


@pytest.mark.parametrize("ends", [V4, V6])
@pytest.mark.parametrize("write", [line, binary])
def test_round_trip(ends: Ends, write: object) -> None:
    """What we write we read, and not a byte more of what follows."""
    assert callable(write)
    preamble = write(ends)
    assert taken(preamble + BEHIND) == preamble
    assert read(preamble) == ends


def test_texts() -> None:
    """The examples of the specification's sections 2.1 and 2.2."""
    assert line(V4) == b"PROXY TCP4 192.0.2.1 203.0.113.5 50000 443\r\n"
    assert line(V6) == b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n"
    addresses = b"\xc0\0\2\1\xcb\0\x71\5" + (50000).to_bytes(2, "big") + b"\1\xbb"
    assert binary(V4) == SIGNATURE + b"\x21\x11\0\x0c" + addresses


def test_families_that_differ() -> None:
    """An IPv4 end beside an IPv6 end is written as IPv6, a zone is left out."""
    mixed = Ends("fe80::1%eth0", 1, "192.0.2.1", 2)
    assert line(mixed) == b"PROXY TCP6 fe80::1 ::ffff:192.0.2.1 1 2\r\n" or line(mixed) == (
        b"PROXY TCP6 fe80::1 ::ffff:c000:201 1 2\r\n"
    )
    found = read(binary(mixed))
    assert found is not None
    assert found.source == "fe80::1"


@pytest.mark.parametrize(
    "preamble",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n",
        v2(0x20, 0x11, bytes(12)),
        v2(0x20, 0x00, b""),
        v2(0x21, 0x31, bytes(216)),
        v2(0x21, 0x00, b""),
    ],
)
def test_without_ends(preamble: bytes) -> None:
    """The proxy's own checks, and what is no TCP over IP, tell of no client."""
    assert taken(preamble + BEHIND) == preamble
    assert read(preamble) is None


def test_additions_are_taken() -> None:
    """What version 2 adds behind the addresses is read over."""
    preamble = v2(0x21, 0x11, binary(V4)[16:] + b"\x04\0\3abc")
    assert taken(preamble + BEHIND) == preamble
    assert read(preamble) == V4


@pytest.mark.parametrize(
    "data",
    [
        BEHIND,
        b"\x16\3\1\2\0\1\0\1\xfc\3\3" + bytes(20),
        b"PROXX TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n" + BEHIND,
        b"PROXY TCP4 " + b"1" * 200,
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 1\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 -1\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 01\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 \xd9\xa1\r\n",
        b"PROXY TCP4 1.1.1.1  1.1.1.1 1 1\r\n",
        b"PROXY TCP4 ::1 ::1 1 1\r\n",
        b"PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n",
        b"PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n",
        b"PROXY TCP4 localhost 1.1.1.1 1 1\r\n",
        v2(0x11, 0x11, bytes(12)),
        v2(0x22, 0x11, bytes(12)),
        v2(0x21, 0x11, bytes(11)),
        v2(0x21, 0x21, bytes(12)),
        v2(0x21, 0x11, b"", length=4097),
    ],
)
def test_refused(data: bytes) -> None:
    """Whatever is no preamble of either version is refused, never guessed at."""
    with pytest.raises(ClientError):
        read(taken(data + bytes(300)))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from([b"", b"PROXY ", SIGNATURE, SIGNATURE + b"\x21"]), st.binary())
def test_any_bytes(start: bytes, data: bytes) -> None:
    """Any bytes are taken, refused or waited for, within bounds."""
    try:
        preamble = taken(start + data)
        assert len(preamble) <= 16 + 4096
        read(preamble)
    except (ClientError, EOFError):
        pass
