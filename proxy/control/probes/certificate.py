"""When a certificate ends, from its bytes (RFC 5280 section 4.1).

The standard library tells it of a certificate that was verified, and of no other. Four values
are stepped over, and the end of the fifth is read; nothing else of it is understood.
"""

import calendar
import time

_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


def ends_of(der: bytes) -> float | None:
    """Seconds since 1970 at which it ends; None for what is no certificate."""
    try:
        _, certificate, _ = _take(der)
        _, fields, _ = _take(certificate)
        if fields[0] == _VERSION:
            fields = _take(fields)[2]
        for _ in range(3):  # serial number, signature, issuer
            fields = _take(fields)[2]
        kind, validity, _ = _take(fields)
        if kind != _SEQUENCE:
            return None
        return _seconds(*_take(_take(validity)[2])[:2])
    except (IndexError, ValueError):
        return None


def _take(data: bytes) -> tuple[int, bytes, bytes]:
    """The first value's tag and content, and what follows it (X.690 section 8.1)."""
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start])
    end = start + length
    if end > len(data):
        raise ValueError("cut short")
    return data[0], data[start:end], data[end:]


def _seconds(kind: int, text: bytes) -> float | None:
    if kind not in (_UTC_TIME, _GENERALIZED_TIME):
        return None
    digits = text.decode("ascii").removesuffix("Z")
    if kind == _UTC_TIME:
        # RFC 5280 section 4.1.2.5.1: 50 and above are of the last century
        digits = ("19" if digits[:2] >= "50" else "20") + digits
    return float(calendar.timegm(time.strptime(digits, "%Y%m%d%H%M%S")))
