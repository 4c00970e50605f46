import pytest

from proxy.core.fields import FieldBlock, FieldsError, connection_options, host_and_port

TEXT = b"Host: a\r\nX-A:  1\t\r\nx-a: 2\r\nConnection: Close, X-B\r\n\r\n"


def test_block() -> None:
    """Lines keep order and spelling, values lose the blanks around them (R3, H22)."""
    block = FieldBlock(TEXT)
    assert block.fields == [
        (b"host", b"Host", b"a"),
        (b"x-a", b"X-A", b"1"),
        (b"x-a", b"x-a", b"2"),
        (b"connection", b"Connection", b"Close, X-B"),
    ]
    assert block.known == {b"host": b"a", b"x-a": b"2", b"connection": b"Close, X-B"}
    assert block.repeated
    assert (block.joined(b"x-a"), block.joined(b"host"), block.joined(b"y")) == (
        b"1, 2",
        b"a",
        None,
    )
    assert (block.count(b"x-a"), block.count(b"y")) == (2, 0)
    assert block.options == {b"close", b"x-b"}
    assert block.text == TEXT
    assert repr(block) == "<FieldBlock 4 lines>"


def test_no_lines() -> None:
    """A head may end with its first line."""
    block = FieldBlock(b"\r\n")
    assert (block.fields, block.repeated, block.options) == ([], False, frozenset())


def test_large_block() -> None:
    """Lines that are too long to be remembered are read alike."""
    lines = [b"X: " + b"x" * 5000, b"Y: a"]
    assert FieldBlock(b"\r\n".join([*lines, b"", b""])).fields == [
        (b"x", b"X", b"x" * 5000),
        (b"y", b"Y", b"a"),
    ]
    with pytest.raises(FieldsError):
        FieldBlock(b"\r\n".join([*lines, b"Z : a", b"", b""]))


@pytest.mark.parametrize("line", [b"X : a", b"X", b" X: a", b": a", b"X: a\nY: b", b"X: a\rb", b""])
def test_malformed_lines_are_not_remembered(line: bytes) -> None:
    """A line that was refused is refused again (H17 to H20)."""
    for _ in range(2):
        with pytest.raises(FieldsError):
            FieldBlock(b"A: b\r\n" + line + b"\r\nC: d\r\n\r\n")


@pytest.mark.parametrize(
    ("value", "options"),
    [
        (b"close", {b"close"}),
        (b" Keep-Alive ,\tX ", {b"keep-alive", b"x"}),
        (b",, ,", set()),
        (b"", set()),
    ],
)
def test_connection_options(value: bytes, options: set[bytes]) -> None:
    """Connection is a list of names in any case of letters, empty ones left out (H40)."""
    assert set(connection_options(value)) == options


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (b"zarafa.com", (b"zarafa.com", b"")),
        (b"Zarafa.com:8443", (b"Zarafa.com", b"8443")),
        (b"[::1]:80", (b"[::1]", b"80")),
        (b"a.", (b"a.", b"")),
        (b"a:", None),
        (b"a:0", None),
        (b"a:65536", None),
        (b"", None),
        (b"a\n", None),
    ],
)
def test_host_and_port(value: bytes, parts: tuple[bytes, bytes] | None) -> None:
    """A host with or without a port that exists (L8, H21)."""
    assert host_and_port(value) == parts
