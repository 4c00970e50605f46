"""The PROXY protocol: who the client is, said before its first byte (HAProxy's PROXY protocol).

A proxy before us says it to us, and we say it to members that want it. The text is that of
version 1 (section 2.1 of its specification), or binary as in version 2 (section 2.2). A preamble
is taken byte by byte as far as needed and never further, since TLS or HTTP begins behind it.
"""

import struct
from ipaddress import ip_address
from typing import NamedTuple

from proxy.core.errors import ClientError

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V1 = b"PROXY "
# The longest line of version 1, its end included; then the longest head with all additions (TLV)
# of version 2 that is accepted: a client certificate is among them.
_LONGEST_LINE = 107
_LONGEST_ADDITIONS = 4096
# The shortest line, and the fixed part of version 2.
_SHORTEST = len(b"PROXY UNKNOWN\r\n")
_FIXED = 16
_ADDRESSES = {0x11: struct.Struct("!4s4sHH"), 0x21: struct.Struct("!16s16sHH")}


# What a proxy says that connects for itself, as for a health check: no addresses; command LOCAL.
OWN_LINE = b"PROXY UNKNOWN\r\n"
OWN_BINARY = _SIGNATURE + b"\x20\0\0\0"


class Ends(NamedTuple):
    """Both ends of a client's connection, as numeric addresses."""

    source: str
    source_port: int
    destination: str
    destination_port: int


def missing(data: bytes) -> int:
    """How many bytes more belong to the preamble for sure; 0 once it is complete.

    Raises ClientError for what is no preamble.
    """
    size = len(data)
    if not data:
        return _SHORTEST
    if _SIGNATURE.startswith(data[: len(_SIGNATURE)]):
        if size < _FIXED:
            return _FIXED - size
        length = int.from_bytes(data[14:16], "big")
        if length > _LONGEST_ADDITIONS:
            raise ClientError(400, "PROXY preamble too long")
        return _FIXED + length - size
    if not _V1.startswith(data[: len(_V1)]) or size > _LONGEST_LINE:
        raise ClientError(400, "no PROXY preamble")
    if data.endswith(b"\r\n"):
        return 0
    if b"\n" in data or size == _LONGEST_LINE:
        raise ClientError(400, "malformed PROXY preamble")
    return max(_SHORTEST - size, 1)


def read(data: bytes) -> Ends | None:
    """What a complete preamble says; None if it is the proxy itself that connects.

    Raises ClientError.
    """
    try:
        return _read_line(data) if data.startswith(_V1) else _read_binary(data)
    except (ValueError, struct.error) as error:
        raise ClientError(400, "malformed PROXY preamble") from error


def _read_line(data: bytes) -> Ends | None:
    words = data.removesuffix(b"\r\n").decode("ascii").split(" ")
    if b"%" in data:
        raise ValueError("zones mean nothing to others")
    if words[1] == "UNKNOWN":
        return None
    _, family, source, destination, *ports = words
    versions = {ip_address(source).version, ip_address(destination).version}
    if versions != {{"TCP4": 4, "TCP6": 6}.get(family)} or len(ports) != 2:
        raise ValueError(data)
    return Ends(_plain(source), _port(ports[0]), _plain(destination), _port(ports[1]))


def _plain(address: str | bytes) -> str:
    """An address in its usual spelling, one of IPv4 in IPv6's clothes without them."""
    found = ip_address(address)
    mapped = found.ipv4_mapped if found.version == 6 else None
    return str(mapped or found)


def _port(word: str) -> int:
    port = int(word)
    if word != str(port) or not 0 <= port < 65536:
        raise ValueError(word)
    return port


def _read_binary(data: bytes) -> Ends | None:
    version, command = data[12] >> 4, data[12] & 15
    if version != 2 or command > 1:
        raise ValueError(data)
    addresses = _ADDRESSES.get(data[13])
    # LOCAL is the proxy's own check; what is no TCP over IP has no addresses for us.
    if command == 0 or addresses is None:
        return None
    source, destination, *ports = addresses.unpack_from(data, _FIXED)
    return Ends(_plain(source), ports[0], _plain(destination), ports[1])


def line(ends: Ends) -> bytes:
    """The preamble of version 1."""
    source, destination, family = _same_family(ends)
    name = "TCP6" if family == 6 else "TCP4"
    return (
        f"PROXY {name} {source} {destination} {ends.source_port} {ends.destination_port}\r\n"
    ).encode()


def binary(ends: Ends) -> bytes:
    """The preamble of version 2."""
    source, destination, family = _same_family(ends)
    kind = 0x21 if family == 6 else 0x11
    packed = _ADDRESSES[kind].pack(
        ip_address(source).packed,
        ip_address(destination).packed,
        ends.source_port,
        ends.destination_port,
    )
    return _SIGNATURE + bytes((0x21, kind)) + len(packed).to_bytes(2, "big") + packed


def _same_family(ends: Ends) -> tuple[str, str, int]:
    """Both addresses in one family; IPv4 in IPv6's clothes if they differ."""
    source = ip_address(ends.source.partition("%")[0])
    destination = ip_address(ends.destination.partition("%")[0])
    if source.version == destination.version:
        return str(source), str(destination), source.version
    both = [a if a.version == 6 else ip_address(f"::ffff:{a}") for a in (source, destination)]
    return str(both[0]), str(both[1]), 6
