"""Settings with some members, for tests of what is decided about them."""

from typing import Any

from proxy.core.settings import Balancer, Settings


def settings(
    *members: dict[str, Any], top: dict[str, Any] | None = None, **balancers: Any
) -> Settings:
    """A balancer ``mail`` with these members, and others with members of their own.

    Members are called server1, server2, ... unless they say otherwise.
    """

    def plain(blocks: tuple[dict[str, Any], ...]) -> dict[str, Any]:
        each = [
            {"url": f"http://server{number}", "route": f"server{number}", **block}
            for number, block in enumerate(blocks, 1)
        ]
        return {"members": each, "sticky_session": "ROUTE"}

    mapping = {"path": "/", "balancer": "mail"}
    return Settings.model_validate(
        {
            "frontends": [{"listen": "127.0.0.1:8080", "mappings": [mapping]}],
            "balancers": {"mail": plain(members), **{k: plain(v) for k, v in balancers.items()}},
            **(top or {}),
        }
    )


def with_balancer(made: Settings, **changes: Any) -> Settings:
    """The same settings with other ones of the balancer ``mail``."""
    tree = made.balancers["mail"].model_dump(mode="json", exclude_unset=True) | changes
    mail = Balancer.model_validate(tree)
    return made.model_copy(update={"balancers": {**made.balancers, "mail": mail}})
