"""Host and path to balancer: the request's target, its canonical path, and the mapping for it.

A mapping is found by the canonical path: decoded, normalised and encoded again (R23), so that
nobody gets around it by spelling. The member gets the client's own spelling, byte for byte, where
that can't be read in two ways (H26); for Apache it gets the canonical path too. The query is never
touched.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from proxy.core.balancer import Balancer
from proxy.core.errors import ClientError
from proxy.core.fields import host_and_port
from proxy.core.rewriting import Place, Rewriting
from proxy.core.settings import Mapping as MappingSettings

# What stays as it is in a path (R23); everything else is written as %XX.
_PLAIN_BYTES = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/!$&'()*+,;=:@._~-"
)
_NOT_CANONICAL = re.compile(rb"[^A-Za-z0-9/!$&'()*+,;=:@._~-]|//|/\.")
# A target that stays as it is: nearly all do.
_CANONICAL = re.compile(rb"((?:/(?![/.])[A-Za-z0-9!$&'()*+,;=:@._~-]*+)++)(\?[^#]*+)?")
_DOT_SEGMENT = re.compile(rb"/\.\.?(?:/|$)")
_ENCODED = [bytes([byte]) if byte in _PLAIN_BYTES else b"%%%02X" % byte for byte in range(256)]
_PERCENT = re.compile(rb"%(.{0,2})", re.DOTALL)
_HEX = re.compile(rb"[0-9A-Fa-f]{2}")
_ABSOLUTE = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?#]*)(.*)", re.DOTALL)
_LONGEST_REMEMBERED = 512
_ACTIVESYNC = b"/microsoft-server-activesync"


@dataclass(slots=True)
class Target:
    """A request's target, understood; ``query`` keeps its ``?``, byte for byte.

    ``path`` is canonical; ``text`` is what the member gets, path and query together.
    """

    path: bytes
    query: bytes
    text: bytes
    host: bytes | None = None
    activesync: bool = field(init=False)

    def __post_init__(self) -> None:
        self.activesync = is_activesync(self.path)


def read_target(target: bytes, apache: bool = False) -> Target:
    """Origin-form and absolute-form (RFC 9112 section 3.2).

    Raises ClientError: 400 for what is no target, 404 for encoded slashes and NUL (L12).
    """
    # The same targets come again and again; long ones are not remembered.
    read = _remembered if len(target) <= _LONGEST_REMEMBERED else _read_target
    return read(target, apache)


def _read_target(target: bytes, apache: bool) -> Target:
    found = _CANONICAL.fullmatch(target)
    if found is not None:
        path, query = found.groups(b"")
        return Target(path, query, target)
    host = None
    if target[:1] != b"/":
        target, host = _other_form(target)
    if b"#" in target:
        raise ClientError(400, "fragment in the target")
    spelled, mark, query = target.partition(b"?")
    path = canonical_path(spelled)
    text = path if apache or _dot_segments(spelled) else spelled
    return Target(path, mark + query, text + mark + query, host)


_remembered = lru_cache(maxsize=1024)(_read_target)


def _other_form(target: bytes) -> tuple[bytes, bytes | None]:
    """The origin-form of a target that isn't one, and the host it names."""
    if target[:1] == b"?":
        return b"/" + target, None
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        raise ClientError(400, "malformed target")
    host, rest = found.groups()
    if host_and_port(host) is None:
        raise ClientError(400, "malformed host in the target")
    return (rest if rest[:1] == b"/" else b"/" + rest), host


def _dot_segments(path: bytes) -> bool:
    """Whether a path has dot segments; raises ClientError if they are hidden (H26)."""
    if _DOT_SEGMENT.search(path) is not None:
        return True
    if b"%" in path and _DOT_SEGMENT.search(_PERCENT.sub(_decode, path)) is not None:
        raise ClientError(400, "encoded dot segment in the path")
    return False


def canonical_path(path: bytes) -> bytes:
    """The path decoded, without ``//`` and dot segments, encoded again (R23)."""
    if _NOT_CANONICAL.search(path) is None:
        return path
    decoded = _PERCENT.sub(_decode, path)
    segments: list[bytes] = []
    parts = re.sub(rb"/{2,}", b"/", decoded).split(b"/")[1:]
    for part in parts:
        if part == b"..":
            if not segments:
                raise ClientError(400, "path leads above the root")
            segments.pop()
        elif part != b".":
            segments.append(part)
    if parts[-1] in (b".", b".."):
        segments.append(b"")
    return b"/" + b"".join([_ENCODED[byte] for byte in b"/".join(segments)])


def _decode(found: re.Match[bytes]) -> bytes:
    digits = found[1]
    if _HEX.fullmatch(digits) is None:
        raise ClientError(400, "malformed percent-encoding")
    byte = int(digits, 16)
    if byte in b"/\0":
        raise ClientError(404, "encoded slash or NUL in the path")
    return bytes([byte])


def is_activesync(path: bytes) -> bool:
    """Whether ``path`` belongs to ActiveSync, where requests may wait for an hour (D1, D34)."""
    return path[:28].lower() == _ACTIVESYNC


class Mapping:
    """One mapping with the balancer it leads to."""

    __slots__ = (
        "balancer",
        "fail_on_status",
        "host",
        "max_body",
        "moves",
        "prefix",
        "preserve_host",
        "response_timeout",
        "rewriting",
        "settings",
        "to",
        "upgrade",
    )

    def __init__(self, settings: MappingSettings, balancer: Balancer) -> None:
        self.settings = settings
        self.balancer = balancer
        # Looked at with each answer, hence here: empty costs 0.02 µs.
        self.fail_on_status = frozenset(balancer.settings.fail_on_status)
        self.host = settings.host.lower().encode() if settings.host else None
        self.prefix = settings.path.encode()
        self.to = settings.to.encode() if settings.to else self.prefix
        # whether a path is another one on the member
        self.moves = self.to != self.prefix
        self.preserve_host = settings.preserve_host
        self.response_timeout = settings.response_timeout
        self.max_body = settings.max_body
        self.upgrade = frozenset(name.lower().encode() for name in settings.upgrade)
        # Set by the table, which knows the other mappings of the frontend.
        self.rewriting = Rewriting((), settings.cookie_domain, settings.cookie_path)

    def places(self) -> list[Place]:
        """Where the members are, and where they are with us."""
        if not self.settings.rewrite_location:
            return []
        ours, to = self.prefix, self.to
        if to == b"/":
            # The whole member: what follows its name begins with the slash, or is nothing.
            ours, to = ours.rstrip(b"/"), b""
        return [
            Place(member.origin, member.base_path.rstrip(b"/") + to, ours)
            for member in self.balancer.members
        ]

    def fits(self, path: bytes) -> bool:
        """Whether ``path`` lies under the prefix, at the boundary of a segment (R26)."""
        prefix = self.prefix
        if not path.startswith(prefix):
            return False
        return prefix[-1:] == b"/" or path[len(prefix) : len(prefix) + 1] in (b"", b"/")

    def member_path(self, target: Target, base: bytes) -> bytes:
        """Path and query on a member whose URL has the path ``base``.

        The prefix is replaced as text (R26), and the base put before it (R27).
        """
        text = target.text
        if not text.startswith(self.prefix):
            text = target.path + target.query  # the client has spelled the prefix its own way
        return base + self.to + text[len(self.prefix) :]

    def __repr__(self) -> str:
        return f"<Mapping {self.settings.host or ''}{self.settings.path}>"


class MappingTable:
    """A frontend's mappings: the most exact host first, then the longest prefix."""

    __slots__ = ("_by_host", "_catch_all", "_general", "_suffixes")

    def __init__(self, mappings: Iterable[Mapping], *, apache: bool = False) -> None:
        given = list(mappings)
        ordered = sorted(given, key=lambda mapping: -len(mapping.prefix))
        _share_places(given, apache=apache)
        self._by_host: dict[bytes, list[Mapping]] = {}
        self._suffixes: list[Mapping] = []
        self._general = [mapping for mapping in ordered if mapping.host is None]
        for mapping in ordered:
            if mapping.host is not None and mapping.host.startswith(b"*."):
                self._suffixes.append(mapping)
            elif mapping.host is not None:
                self._by_host.setdefault(mapping.host, []).append(mapping)
        self._suffixes.sort(key=lambda mapping: -len(mapping.host or b""))
        # The usual case is decided without a search: one mapping that takes everything.
        only = ordered[0] if len(ordered) == 1 else None
        self._catch_all = only if only and only.host is None and only.prefix == b"/" else None

    def find(self, host: bytes | None, path: bytes) -> Mapping | None:
        """The mapping for a Host field's value and a canonical path; None if there is none."""
        if self._catch_all is not None:
            return self._catch_all
        parts = host_and_port(host) if host else None
        name = parts[0].lower().rstrip(b".") if parts else b""
        for mapping in self._by_host.get(name, ()):
            if mapping.fits(path):
                return mapping
        for mapping in self._suffixes:
            if name.endswith((mapping.host or b"*")[1:]) and mapping.fits(path):
                return mapping
        return next((mapping for mapping in self._general if mapping.fits(path)), None)


def _share_places(mappings: Iterable[Mapping], *, apache: bool) -> None:
    """Let each mapping's responses name the places of all that serve its host too.

    The longest place is tried first, the mapping's own among equals; for Apache the order of its
    lines counts.
    """
    for mapping in mappings:
        settings = mapping.settings
        served = [other for other in mappings if other.host in (None, mapping.host)]
        places = [place for other in served for place in other.places()]
        if not apache:
            own = mapping.places()
            places.sort(key=lambda place: (-len(place.origin + place.path), place not in own))
        mapping.rewriting = Rewriting(
            places if settings.rewrite_location else (),
            settings.cookie_domain,
            settings.cookie_path,
            apache=apache,
        )
