"""What a probe found, on its way to the supervisor."""

from typing import NamedTuple


class Probed(NamedTuple):
    """One probe's result."""

    # the member: balancer, url, route
    key: tuple[str, str, str | None]
    # what its check is called
    title: str
    passed: bool
    text: str
    # seconds, and the monotonic time of its end
    took: float
    at: float
    # when the certificate ends that was seen, in seconds since 1970
    certificate_ends: float | None = None
