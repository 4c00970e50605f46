"""The API's part about members: each command one route below the member's own.

``POST /v1/balancers/NAME/members/ROUTE/...``; a member without a route goes by its url,
percent-encoded. Every body may say ``reason``, which is kept and shown; each answer is an empty
object.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from proxy.admin.bodies import NUMBER, RequestError, read_body, sender
from proxy.control.commands import Commands, DrainUntil
from proxy.core.settings import OperatorStatus
from proxy.core.takeover import Said

# balancer and member, what is known of them, and what the request brought
Command = Callable[[str, str, Said, dict[str, Any]], Awaitable[None]]

LONGEST_REASON = 200
# The year 2100: no clock shows times that are beyond what it counts.
LATEST = 4102444800


def add_routes(router: web.UrlDispatcher, commands: Commands) -> None:
    """Let the API answer these."""
    members = _Members(commands)
    keys: dict[str, tuple[Command, dict[str, Any]]] = {
        "status": (members.status, {"status": str}),
        "drain": (members.drain, {"deadline": NUMBER, "until_empty": bool}),
        "terms": (
            members.terms,
            {"load_factor": NUMBER, "lbset": int, "hot_standby": bool, "hot_spare": bool},
        ),
        "failover": (members.failover, {"heir": str}),
        "readmit": (members.readmit, {}),
    }
    for word, (command, known) in keys.items():
        router.add_post(
            f"/v1/balancers/{{balancer}}/members/{{member}}/{word}", _handler(command, known)
        )


def _handler(
    command: Command, known: dict[str, Any]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        found = await read_body(request, reason=str, **known)
        reason = found.pop("reason", "")
        if len(reason) > LONGEST_REASON or not (reason.isprintable() or reason == ""):
            raise RequestError(
                f"reason must be one line of at most {LONGEST_REASON} printable characters"
            )
        said = Said(sender(request), time.time(), reason)
        await command(request.match_info["balancer"], request.match_info["member"], said, found)
        return web.json_response({})

    return handle


class _Members:
    """One method a command; the words are those of ``MemberCommands``."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def status(self, balancer: str, member: str, said: Said, found: dict[str, Any]) -> None:
        """``{"status": "disabled"}``."""
        known = [status.value for status in OperatorStatus]
        if found.get("status") not in known:
            raise RequestError(f"status must be one of {', '.join(known)}")
        status = OperatorStatus(found["status"])
        await self._commands.members.set_operator_status(balancer, member, status, said)

    async def drain(self, balancer: str, member: str, said: Said, found: dict[str, Any]) -> None:
        """``{"deadline": seconds since 1970, "until_empty": true}``, both may be left out."""
        if not 0 <= found.get("deadline", 0) < LATEST:
            raise RequestError("deadline must be in seconds since 1970, and before 2100")
        until = DrainUntil(found.get("deadline"), found.get("until_empty", False))
        await self._commands.members.drain(balancer, member, until, said)

    async def terms(self, balancer: str, member: str, said: Said, found: dict[str, Any]) -> None:
        """``{"load_factor": 2.5, "lbset": 1, "hot_standby": true}``, at least one of them."""
        if not found:
            raise RequestError("one of load_factor, lbset, hot_standby and hot_spare is needed")
        if not 1 <= found.get("load_factor", 1) <= 100:
            raise RequestError("load_factor must be a number from 1 to 100")
        if not 0 <= found.get("lbset", 0) <= 99:
            raise RequestError("lbset must be a whole number from 0 to 99")
        await self._commands.members.set_terms(balancer, member, found, said)

    async def failover(self, balancer: str, member: str, said: Said, found: dict[str, Any]) -> None:
        """``{"heir": "server1"}``; without ``heir`` its sessions are its own again."""
        await self._commands.members.failover(balancer, member, found.get("heir"), said)

    async def readmit(self, balancer: str, member: str, said: Said, _: dict[str, Any]) -> None:
        """An empty object."""
        await self._commands.members.readmit(balancer, member, said)
