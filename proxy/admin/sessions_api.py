"""The API's part about sessions: which are alive, one's history, moving one, finding one.

A session goes by its id, 16 hex digits that change with each start of balanceme.
"""

from typing import Any

from aiohttp import web

from proxy.admin.bodies import RequestError, read_body, sender
from proxy.control.commands import Commands

LISTED = 100
LONGEST_REASON = 200
TRAITS = ("cookie", "device", "user", "address", "user_agent", "forwarded_for")


def add_routes(router: web.UrlDispatcher, commands: Commands) -> None:
    """Let the API answer these."""
    sessions = _Sessions(commands)
    router.add_get("/v1/sessions", sessions.listed)
    router.add_post("/v1/sessions/find", sessions.find)
    router.add_get("/v1/sessions/{id}", sessions.history)
    router.add_post("/v1/sessions/{id}/move", sessions.move)


class _Sessions:
    """The handlers."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def listed(self, request: web.Request) -> web.Response:
        """``GET /v1/sessions?balancer=NAME&member=ROUTE&limit=100``: ``total``, ``sessions``."""
        query = request.query
        unknown = [key for key in query if key not in ("balancer", "member", "limit")]
        if unknown:
            raise RequestError(f"unknown {unknown[0]}; known: balancer, member, limit")
        limit = query.get("limit", str(LISTED))
        if not (limit.isascii() and limit.isdigit() and len(limit) < 10):
            raise RequestError("limit must be a whole number")
        balancer, member = query.get("balancer"), query.get("member")
        told = await self._commands.sessions.listed(balancer, member, int(limit))
        return web.json_response(told)

    async def history(self, request: web.Request) -> web.Response:
        """``GET /v1/sessions/ID``: ``sessions``, one for each balancer that it is in."""
        found = await self._commands.sessions.history(_id(request))
        return web.json_response({"sessions": found})

    async def move(self, request: web.Request) -> web.Response:
        """``POST /v1/sessions/ID/move {"member": "server1", "balancer": ..., "reason": ...}``.

        ``moves``, a list of ``balancer``, ``from`` and ``to``.
        """
        session = _id(request)
        found = await read_body(request, member=str, balancer=str, reason=str)
        if "member" not in found:
            raise RequestError("member must say where the session goes")
        reason = found.get("reason", "")
        if len(reason) > LONGEST_REASON or not (reason.isprintable() or reason == ""):
            raise RequestError(
                f"reason must be one line of at most {LONGEST_REASON} printable characters"
            )
        moves = await self._commands.sessions.move(
            session, found["member"], found.get("balancer"), sender(request), reason
        )
        return web.json_response({"moves": moves})

    async def find(self, request: web.Request) -> web.Response:
        """``POST /v1/sessions/find {"device": ..., "user": ...}``: ``id``."""
        known: dict[str, Any] = dict.fromkeys(TRAITS, str)
        traits = await read_body(request, **known)
        return web.json_response({"id": f"{self._commands.sessions.find(traits):016x}"})


def _id(request: web.Request) -> int:
    told = request.match_info["id"]
    try:
        if len(told) == 16:
            return int(told, 16)
    except ValueError:
        pass
    raise RequestError("a session's id has 16 hex digits")
