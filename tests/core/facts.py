"""What a head says, for comparisons."""

from typing import Any

from proxy.core.heads import RequestHead, ResponseHead


def facts(head: RequestHead | ResponseHead) -> tuple[Any, ...]:
    """All that a head says."""
    start: tuple[Any, ...]
    if isinstance(head, RequestHead):
        start = (head.method, head.target, head.host, head.expects_continue, head.has_body)
    else:
        start = (head.status, head.reason)
    framing = (head.chunked, head.content_length, head.keep_alive)
    return (*start, head.minor, *framing, head.options, head.fields)
