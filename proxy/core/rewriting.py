"""Members' own addresses and cookies become ours, for the requests of one frontend (P10 to P16).

A Location is tried for every member of every mapping of the frontend, not only those of the one
that answered: members name each other, and paths that another mapping serves.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

# Where a member may name its own address (P10).
LOCATION_FIELDS = frozenset((b"location", b"content-location", b"uri", b"destination"))


class Place(NamedTuple):
    """A member's place and where it is with us: an origin with a path, and a path."""

    origin: bytes
    path: bytes
    ours: bytes

    def find(self, value: bytes, *, apache: bool) -> bytes | None:
        """The path with us that ``value`` leads to; None if it leads elsewhere (P11, P14).

        What follows the place must begin a path, a query or a fragment. Apache doesn't ask for
        that, so that for it ``http://server1.evil`` begins with ``http://server1``.
        """
        origin, path = self.origin, self.path
        size = len(origin) + len(path)
        if value[: len(origin)].lower() != origin or value[len(origin) : size] != path:
            return None
        rest = value[size:]
        inside = not rest or rest[:1] in (b"/", b"?", b"#") or path[-1:] == b"/"
        if not inside and not apache:
            return None
        ours = self.ours + rest
        return ours if ours[:1] == b"/" else b"/" + ours


class Rewriting:
    """What one mapping's responses have rewritten."""

    __slots__ = ("_cookie_domain", "_cookie_path", "_places", "apache")

    def __init__(
        self,
        places: Iterable[Place],
        cookie_domain: Mapping[str, str],
        cookie_path: Mapping[str, str],
        *,
        apache: bool = False,
    ) -> None:
        """``places`` are tried in order; the cookies' domains and paths are theirs to ours."""
        self._places = list(places)
        self._cookie_domain = [(k.lower().encode(), v.encode()) for k, v in cookie_domain.items()]
        self._cookie_path = [(k.encode(), v.encode()) for k, v in cookie_path.items()]
        self.apache = apache

    def location(self, value: bytes, base: bytes) -> bytes:
        """An address of a member's as ours; ``base`` is ``https://host``. Others stay (P13)."""
        for place in self._places:
            path = place.find(value, apache=self.apache)
            if path is not None:
                return base + path
        return value

    @property
    def touches_cookies(self) -> bool:
        """Whether any cookie may change."""
        return bool(self._cookie_domain or self._cookie_path)

    def cookie(self, value: bytes) -> bytes:
        """A member's Set-Cookie with domain and path replaced (P15, P16)."""
        parts = value.split(b";")
        for index, part in enumerate(parts[1:], 1):
            name, equals, text = part.partition(b"=")
            key = name.strip(b" \t").lower()
            if key == b"domain":
                parts[index] = name + equals + self._domain(text)
            elif key == b"path":
                parts[index] = name + equals + self._path(text)
        return b";".join(parts)

    def _domain(self, text: bytes) -> bytes:
        for theirs, ours in self._cookie_domain:
            matches = text.lower().startswith(theirs) if self.apache else text.lower() == theirs
            if matches:
                return ours
        return text

    def _path(self, text: bytes) -> bytes:
        for theirs, ours in self._cookie_path:
            if text.startswith(theirs):
                return ours
        return text
