"""Which sessions are alive on a member: what makes requests one session, and who was seen when.

The cookie that we set carries a route alone, so a session is told by what makes it one: the
webmail's own session cookie (D74), ActiveSync's device with its user (D19), or else the address of
a client that carries a route, with its browser. Of these a keyed hash of 64 bits is kept, which
says nothing of what it was made of. One supervisor's workers share the key, the *salt*: a
browser's connections go to several of them, and ``merge`` counts it once.

The counts are for people who are about to take a member away; nothing is decided by them.
"""

import base64
import hashlib
import re
import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache

from proxy.core.heads import RequestFields, RequestHead, SessionMark
from proxy.core.settings import Balancer as BalancerSettings

# Seconds for which a session counts that has no cookie of ours, or one that ends with the browser.
WITHOUT_LIFETIME = 3600.0

# --- what makes a session ----------------------------------------------------------------------

# The webmails' session cookies (D74), and what PHP and Java call theirs unless told otherwise. A
# route that Java's members put behind a dot is no part of the session.
_COOKIE = re.compile(
    rb"(?:^|[;,])[ \t]*("
    rb"(?:__Secure-|__Host-)?"
    rb"(?:ZARAFA_WEBAPP|ZARAFA_WEBACCESS|KOPANO_WEBAPP|GROMMUNIO_WEB|PHPSESSID|JSESSIONID)"
    rb")[ \t]*=[ \t]*([^;. \t]+)"
)
_DEVICE = re.compile(rb"[?&]DeviceId=([^&]+)", re.IGNORECASE)


def read_session(head: RequestHead, salt: bytes, *, activesync: bool) -> SessionMark:
    """What stands for a request's session: 64 bits, or 0 for a request that belongs to none.

    If the mark says *shared*, clients have it in common that ``address_hash`` tells apart.
    ``salt``, at most 64 bytes, is one object for all requests of a process. The mark is kept with
    the head, and what the field lines say of it with them, for the next request of the same bytes.
    """
    block = head.block
    if block.session[0] is not salt:
        block.session = _read_fields(block, salt)
    mark = block.session
    if activesync and mark[2]:
        device = _device(head.target)
        # Only OPTIONS comes without a device, and leaves nothing behind (D5).
        user = _user(block.known.get(b"authorization"))
        mark = (salt, 0 if device is None else _hash(salt, b"device", device, user), False)
    head.session = mark
    return mark


def _read_fields(block: RequestFields, salt: bytes) -> SessionMark:
    found = None if block.cookie is None else _COOKIE.search(block.cookie)
    if found is not None:
        return (salt, _hash(salt, b"cookie", *found.groups()), False)
    told = [block.joined(key) or b"" for key in (b"user-agent", b"x-forwarded-for")]
    return (salt, _hash(salt, b"browser", *told), True)


def _device(target: bytes) -> bytes | None:
    """The device's id in a plain query, or in a compact one as hex (D9, D10)."""
    found = _DEVICE.search(target)
    if found is not None:
        return found[1]
    try:
        told = base64.b64decode(target.partition(b"?")[2], validate=True)
        return told[5 : 5 + told[4]].hex().encode() or None
    except (ValueError, IndexError):
        return None


def _user(authorization: bytes | None) -> bytes:
    """The user of Basic credentials; the password may change within a session (D18, D19)."""
    scheme, _, told = (authorization or b"").partition(b" ")
    if scheme.lower() != b"basic":
        return b""
    try:
        user = base64.b64decode(told).partition(b":")[0]
    except ValueError:
        return b""
    return user.rpartition(b"\\")[2].lower()


def _hash(salt: bytes, *parts: bytes) -> int:
    """64 bits of ``parts`` that nobody without the salt can make; never 0."""
    digest = hashlib.blake2b(b"\0".join(parts), digest_size=8, key=salt).digest()
    return int.from_bytes(digest, "little") or 1


@lru_cache(maxsize=1024)
def address_hash(salt: bytes, address: str) -> int:
    """64 bits of a client's address, to be joined with a shared mark by ``^``."""
    return _hash(salt, b"address", address.encode())


# --- who is alive ------------------------------------------------------------------------------

# A table is cut into parts by the key, so that whatever goes through one, to make room or to pack
# it, takes well below 1 ms.
_PARTS = 64
_MASK = _PARTS - 1
# Sessions of a part: with so many it is looked for the first time whose life is over; no more
# than so many are kept. Those that never come back, as an attack's, are the first to go. At most
# 131072 of a member in each worker, some 110 bytes each.
_FEW = 64
_MOST = 2048


def live_for(balancer: BalancerSettings) -> float:
    """Seconds without a request after which a balancer's sessions are over."""
    cookie = balancer.session_cookie
    return (cookie.lifetime if cookie is not None else 0.0) or WITHOUT_LIFETIME


class LiveSessions:
    """The sessions that one worker saw on one member, each with the second of its last request.

    Seconds are monotonic ones, which all processes of a machine share. ``lifetime`` may be changed
    by a reload, and the table outlives it with its member.
    """

    __slots__ = ("_parts", "_room", "lifetime")

    def __init__(self, lifetime: float) -> None:
        self.lifetime = lifetime
        self._parts: list[dict[int, float]] = [{} for _ in range(_PARTS)]
        # How many a part may hold before those are looked for whose life is over; as keys are
        # hashes, all parts are about the same size.
        self._room = _FEW

    def note(self, key: int, now: float) -> None:
        """A request of session ``key`` was served at ``now``."""
        part = self._parts[key & _MASK]
        part[key] = now
        if len(part) > self._room:
            self._make_room(part, now)

    def _make_room(self, part: dict[int, float], now: float) -> None:
        """Forget whose life is over, and when that is not enough who was not seen for longest.

        At least an eighth of the room is free then, so that each new session pays for a few others.
        """
        over = now - self.lifetime
        for key in [key for key, last in part.items() if last <= over]:
            del part[key]
        if len(part) > _MOST - _MOST // 8:
            for key in sorted(part, key=part.__getitem__)[: _MOST // 4]:
                del part[key]
        self._room = min(max(2 * len(part), _FEW), _MOST)

    def live(self, now: float) -> int:
        """How many sessions are alive; some of them may have moved since, which ``merge`` knows."""
        over = now - self.lifetime
        return sum(last > over for part in self._parts for last in part.values())

    def packed(self, now: float) -> Iterator[bytes]:
        """Those alive, for another process: pieces whose concatenation ``merge`` takes.

        Each piece is made when it is asked for; to make all at once of 100,000 sessions takes some
        20 ms.
        """
        over = now - self.lifetime
        for part in self._parts:
            alive = {key: last for key, last in part.items() if last > over}
            if alive:
                count = len(alive)
                yield struct.pack(f"<I{count}Q{count}d", count, *alive, *alive.values())

    def __repr__(self) -> str:
        return f"<LiveSessions {sum(map(len, self._parts))} kept for {self.lifetime:g} s>"


# Names of a balancer and of a route in it.
MemberName = tuple[str, str]


def merge(tables: Iterable[tuple[MemberName, bytes]]) -> dict[MemberName, int]:
    """How many sessions are alive on each member, from any number of workers' packed tables.

    A session of a balancer counts once, where it was seen last. Raises ValueError for bytes that
    are no packed table.
    """
    counts: dict[MemberName, int] = {}
    seen: dict[str, dict[int, tuple[float, str]]] = {}
    for (balancer, route), table in tables:
        counts[balancer, route] = 0
        latest = seen.setdefault(balancer, {})
        for key, last in _unpacked(table):
            # Of two in the same moment it is any, as long as it is always the same one.
            if key not in latest or (last, route) > latest[key]:
                latest[key] = (last, route)
    for balancer, latest in seen.items():
        for _, route in latest.values():
            counts[balancer, route] += 1
    return counts


def _unpacked(table: bytes) -> Iterator[tuple[int, float]]:
    position = 0
    try:
        while position < len(table):
            (count,) = struct.unpack_from("<I", table, position)
            keys = struct.unpack_from(f"<{count}Q", table, position + 4)
            seconds = struct.unpack_from(f"<{count}d", table, position + 4 + 8 * count)
            position += 4 + 16 * count
            yield from zip(keys, seconds, strict=True)
    except struct.error as error:
        raise ValueError("no packed table of sessions") from error
