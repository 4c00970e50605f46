"""The error of an Apache configuration that can't be used: every reason that was found."""

from collections.abc import Iterable

from proxy.apache.tree import Notice
from proxy.core.errors import ProxyError


class ApacheError(ProxyError):
    """The configuration can't be used; ``mistakes`` are in the order in which they were found."""

    def __init__(self, mistakes: Iterable[Notice]) -> None:
        # A file that is included twice has its mistakes twice.
        self.mistakes = tuple(dict.fromkeys(mistakes))
        super().__init__("\n".join(map(str, self.mistakes)))
