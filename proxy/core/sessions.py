"""What makes requests one session, and how long one lives without them.

The cookie that we set carries a route alone, so a session is told by what makes it one: the
webmail's own session cookie (D74), ActiveSync's device with its user (D19), or else the address of
a client that carries a route, with its browser. Of these a keyed hash of 64 bits is kept, which
says nothing of what it was made of. One supervisor's workers share the key, the *salt*, for a
browser's connections go to several of them; with each start of a supervisor it is another one.

What is known of sessions is for people, who move them or take a member away: no session is kept
or placed by it.
"""

import base64
import hashlib
import re
from functools import lru_cache

from proxy.core.heads import RequestFields, RequestHead, SessionMark
from proxy.core.settings import Balancer as BalancerSettings

# Seconds for which a session counts that has no cookie of ours, or one that ends with the browser.
WITHOUT_LIFETIME = 3600.0

# Names of a balancer and of a member in it: its route, or its url if it has none. No two members of
# a balancer have one name.
MemberName = tuple[str, str]

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
        mark = (salt, 0 if device is None else device_hash(salt, device, user), False)
    head.session = mark
    return mark


def _read_fields(block: RequestFields, salt: bytes) -> SessionMark:
    key = 0 if block.cookie is None else cookie_hash(salt, block.cookie)
    if key:
        return (salt, key, False)
    told = [block.joined(name) or b"" for name in (b"user-agent", b"x-forwarded-for")]
    return (salt, browser_hash(salt, *told), True)


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
    return user


def _hash(salt: bytes, *parts: bytes) -> int:
    """64 bits of ``parts`` that nobody without the salt can make; never 0."""
    digest = hashlib.blake2b(b"\0".join(parts), digest_size=8, key=salt).digest()
    return int.from_bytes(digest, "little") or 1


def cookie_hash(salt: bytes, cookie: bytes) -> int:
    """64 bits of a webmail's session in a Cookie field; 0 if it has none."""
    found = _COOKIE.search(cookie)
    return 0 if found is None else _hash(salt, b"cookie", *found.groups())


def device_hash(salt: bytes, device: bytes, user: bytes) -> int:
    """64 bits of an ActiveSync device and its user, whatever domain stands before the name."""
    return _hash(salt, b"device", device, user.rpartition(b"\\")[2].lower())


def browser_hash(salt: bytes, agent: bytes, forwarded_for: bytes = b"") -> int:
    """64 bits of a browser without a webmail's session, to be joined with its address."""
    return _hash(salt, b"browser", agent, forwarded_for)


@lru_cache(maxsize=1024)
def address_hash(salt: bytes, address: str) -> int:
    """64 bits of a client's address, to be joined with a shared mark by ``^``."""
    return _hash(salt, b"address", address.encode())


# --- how long it lives -------------------------------------------------------------------------


def live_for(balancer: BalancerSettings) -> float:
    """Seconds without a request after which a balancer's sessions are over."""
    cookie = balancer.session_cookie
    return (cookie.lifetime if cookie is not None else 0.0) or WITHOUT_LIFETIME
