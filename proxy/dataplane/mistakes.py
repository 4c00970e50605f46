"""Our own mistakes: what an exchange raises that nobody foresaw is logged, and ends it.

Events of the member's side and of the clock come to an exchange through callbacks of the event
loop, which would log an exception and go on; the client would then wait for ever.
"""

import logging
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from proxy.core.mapping import is_activesync
from proxy.core.pages import OwnAnswer

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange

log = logging.getLogger("balanceme")

Arguments = ParamSpec("Arguments")
Step = Callable[Concatenate["Exchange", Arguments], None]


def end(exchange: "Exchange") -> None:
    """Answer 500, but never on an ActiveSync path (D26); close if an answer has begun."""
    if exchange.response.status == 0:
        exchange.answer(OwnAnswer(503 if is_activesync(exchange.head.target) else 500))
    else:
        exchange.client.abort()


def guarded(step: Step[Arguments]) -> Step[Arguments]:
    """A step of an exchange that ends the exchange when it fails."""

    @wraps(step)
    def call(exchange: "Exchange", /, *args: Arguments.args, **named: Arguments.kwargs) -> None:
        try:
            step(exchange, *args, **named)
        except Exception:
            log.exception("an exchange could not go on: a mistake in balanceme")
            end(exchange)

    return call
