"""The field lines of a head, read strictly and judged once (RFC 9112 section 5, RFC 9110 5).

httptools (llhttp in its strict mode) judges each line. Most lines come again and again, from one
client or from all of them, and so do whole blocks of lines; what they say is remembered in bounded
tables, and reading a known block is a look into one. The tables hold pure functions of the bytes,
so nothing in them can go stale (benchmarks/micro: head parsing).
"""

import re
from functools import lru_cache

import httptools

from proxy.core.errors import ProxyError

# (lower-cased name, name as sent, value without blanks around it)
Field = tuple[bytes, bytes, bytes]

# Larger blocks, in bytes, are not remembered, so that the table of lines holds 4 MiB at the most,
# and each of the tables of blocks (http1.py) about 6 MiB.
REMEMBERED_SIZE = 4096
_REMEMBERED_LINES = 1024
REMEMBERED_BLOCKS = 512
_NO_OPTIONS: frozenset[bytes] = frozenset()
_HOST = re.compile(
    rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?)"
    rb"(?::([0-9]{1,5}))?"
)


class FieldsError(ProxyError):
    """Field lines that no reading can make sense of."""


class _Line:
    """What httptools calls for the one field line it is given."""

    __slots__ = ("field",)

    field: Field

    def on_header(self, name: bytes, value: bytes) -> None:
        self.field = (name.lower(), name, value)


def _read_line(line: bytes) -> Field:
    """One field line without its line end; raises httptools.HttpParserError."""
    found = _Line()
    line = line.rstrip(b" \t")
    httptools.HttpRequestParser(found).feed_data(b"GET / HTTP/1.1\r\n" + line + b"\r\n\r\n")
    return found.field


_remembered = lru_cache(maxsize=_REMEMBERED_LINES)(_read_line)


class FieldBlock:
    """The field lines of one head, in order and with their spelling.

    ``known`` has the last value of each name, ``repeated`` tells that some name has several
    lines. Lines for others that ``headers`` derives of a block are kept with it, in ``lines``.
    """

    __slots__ = ("fields", "known", "lines", "options", "repeated", "text")

    def __init__(self, text: bytes) -> None:
        """``text`` ends with the empty line; raises FieldsError."""
        read = _remembered if len(text) <= REMEMBERED_SIZE else _read_line
        try:
            self.fields = list(map(read, text.split(b"\r\n")[:-2]))
        except (httptools.HttpParserError, AttributeError) as error:
            # An AttributeError: llhttp took the line for the end of the head.
            raise FieldsError("malformed header field") from error
        self.text = text
        self.known = {key: value for key, _, value in self.fields}
        self.repeated = len(self.known) != len(self.fields)
        connection = self.joined(b"connection")
        self.options = _NO_OPTIONS if connection is None else _options(connection)
        self.lines: dict[object, bytes] = {}

    def joined(self, key: bytes) -> bytes | None:
        """All lines of one name joined by ``, `` (RFC 9110 section 5.3); None without one."""
        if not self.repeated:
            return self.known.get(key)
        values = [value for name, _, value in self.fields if name == key]
        return b", ".join(values) if values else None

    def count(self, key: bytes) -> int:
        """How many lines one name has."""
        return sum(name == key for name, _, _ in self.fields)

    def __repr__(self) -> str:
        return f"<FieldBlock {len(self.fields)} lines>"


# Longer ones, in bytes, are not remembered: nobody names so many options.
_USUAL_LENGTH = 256


def _options(value: bytes) -> frozenset[bytes]:
    read = _remembered_options if len(value) <= _USUAL_LENGTH else connection_options
    return read(value)


def connection_options(value: bytes) -> frozenset[bytes]:
    """The names in a Connection field, lower case (RFC 9110 section 7.6.1)."""
    return frozenset(filter(None, (name.strip(b" \t") for name in value.lower().split(b","))))


_remembered_options = lru_cache(maxsize=256)(connection_options)


# A name of 253 bytes (RFC 1035 section 2.3.4) with a dot and a port.
_LONGEST_HOST = 260


def host_and_port(value: bytes) -> tuple[bytes, bytes] | None:
    """Host and port (empty if there is none) of a Host field; None if malformed (L8, H21)."""
    return _host_and_port(value) if len(value) <= _LONGEST_HOST else None


@lru_cache(maxsize=1024)
def _host_and_port(value: bytes) -> tuple[bytes, bytes] | None:
    found = _HOST.fullmatch(value)
    if found is None:
        return None
    host, port = found[1], found[2] or b""
    if port and not 0 < int(port) < 65536:
        return None
    return host, port
