"""When a certificate ends, read from its bytes.

The standard library tells that of a certificate only once a connection was verified with it, and
of none that has ended. All it takes is a few lengths in front of the two times of the validity
(RFC 5280 section 4.1): no signature and no name is looked at here, and nothing is trusted.
"""

import binascii
import re
from email.utils import mktime_tz

# What OpenSSL takes for the first certificate of a file.
_PEM = re.compile(
    rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END", re.ASCII
)
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
_TIME = re.compile(rb"(\d{2}|\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z", re.ASCII)


def end_of_pem(pem: bytes) -> float:
    """When the first certificate of a PEM file ends, in seconds since 1970.

    The chain behind it doesn't count: it may hold old authorities that nobody needs any more.
    Raises ValueError when there is none.
    """
    found = _PEM.search(pem)
    if found is None:
        raise ValueError("there is no certificate")
    try:
        return end_of(binascii.a2b_base64(found[1]))
    except binascii.Error as error:
        raise ValueError("this is no certificate") from error


def end_of(der: bytes) -> float:
    """When a certificate in DER ends, in seconds since 1970; raises ValueError for another thing.

    ``SSLSocket.getpeercert(True)`` gives one, verified or not.
    """
    try:
        _, certificate, _ = _element(der, _SEQUENCE)
        _, rest, _ = _element(certificate, _SEQUENCE)
        if rest[0] == _VERSION:  # left out by version 1
            _, _, rest = _element(rest)
        for _ in ("serial number", "signature algorithm", "issuer"):
            _, _, rest = _element(rest)
        _, validity, _ = _element(rest, _SEQUENCE)
        _, _, rest = _element(validity)
        kind, time, _ = _element(rest)
        return _seconds(kind, time)
    except IndexError as error:
        raise ValueError("this is no certificate") from error


def _element(data: bytes, wanted: int | None = None) -> tuple[int, bytes, bytes]:
    """The kind and the content of the first element, and what stands behind it (X.690 8.1)."""
    kind, length, at = data[0], data[1], 2
    if length & 0x80:
        at += length & 0x7F
        length = int.from_bytes(data[2:at], "big")
    end = at + length
    if end > len(data) or wanted not in (None, kind):
        raise ValueError("this is no certificate")
    return kind, data[at:end], data[end:]


def _seconds(kind: int, time: bytes) -> float:
    found = _TIME.fullmatch(time)
    digits = {_UTC_TIME: 2, _GENERALIZED_TIME: 4}.get(kind)
    if found is None or digits != len(found[1]):
        raise ValueError("this is no certificate")
    year, month, day, hour, minute, second = map(int, found.groups())
    if digits == 2:
        year += 2000 if year < 50 else 1900  # RFC 5280 section 4.1.2.5.1
    if not 1 <= month <= 12:
        raise ValueError("this is no certificate")
    return float(mktime_tz((year, month, day, hour, minute, second, 0, 1, 0, 0)))
