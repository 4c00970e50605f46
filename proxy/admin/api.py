"""The API: a supervisor's commands over HTTP and JSON, on the control socket.

The rule: one handler a route and no state, so that whoever asks, be it the command line or a page,
is told the same. Every answer is a JSON object, every refusal as well:

| status | object | when |
|---|---|---|
| 200 | what the route gives | done |
| 400 | ``error`` | the request can't be understood |
| 404, 405, 413 | ``error`` | there is no such route or method; the body is too large |
| 409 | ``error`` | the command can't be carried out, and why |
| 422 | ``mistakes``, a list of lines | the configuration can't be used |
| 500 | ``error`` | a mistake in balanceme; the log has more |

The supervisor forks: nothing here uses threads, the loop's executor or signals.
"""

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from proxy.admin import explain_api, members_api, sessions_api
from proxy.admin.bodies import RequestError, read_body
from proxy.admin.control_socket import ControlSocket
from proxy.control.commands import CommandError, Commands
from proxy.control.config_file import report
from proxy.core.errors import ConfigError

log = logging.getLogger("balanceme")

# Bytes of a request's body; the longest that means anything has some dozens.
LARGEST_BODY = 16 * 1024
# Seconds that an answer under way may take when the server stops.
LAST_WORDS = 1.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AdminServer:
    """The API at a path in the file system: a service that the supervisor starts and stops."""

    def __init__(self, path: Path) -> None:
        self._control_socket = ControlSocket(path)
        self._runner: web.AppRunner | None = None

    async def start(self, commands: Commands, *, takes_over: bool = False) -> None:
        """Answer on the path from now on.

        With ``takes_over`` a supervisor that answers there loses the path to this one, without a
        moment in which nobody answers. Raises SocketError, a ConfigError, if the path can't be
        had.
        """
        listening = await self._control_socket.open(takes_over=takes_over)
        self._runner = web.AppRunner(
            application(commands), access_log=None, logger=_LOGGER, shutdown_timeout=LAST_WORDS
        )
        await self._runner.setup()
        await web.SockSite(self._runner, listening).start()

    async def take_back(self) -> None:
        """Answer on the path again if another one had taken it over, and is gone.

        Raises SocketError.
        """
        if self._runner is not None and not self._control_socket.is_in_place:
            # Whoever is connected to the former one is still answered there.
            listening = await self._control_socket.open(takes_over=True)
            await web.SockSite(self._runner, listening).start()

    async def stop(self) -> None:
        """Close everything; the file goes unless another one has taken the path over."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await self._control_socket.remove()
            await runner.cleanup()


def _is_news(record: logging.LogRecord) -> bool:
    """False for what aiohttp says of clients that break off or send what isn't HTTP."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, ConnectionError | HttpProcessingError)


_LOGGER = logging.getLogger(__name__)
_LOGGER.addFilter(_is_news)


def application(commands: Commands) -> web.Application:
    """The API of these commands, to be served wherever."""
    routes = _Routes(commands)
    made = web.Application(middlewares=[routes.refuse], client_max_size=LARGEST_BODY)
    made.router.add_get("/v1/status", routes.status)
    made.router.add_post("/v1/reload", routes.reload)
    made.router.add_post("/v1/upgrade", routes.upgrade)
    made.router.add_post("/v1/stop", routes.stop)
    members_api.add_routes(made.router, commands)
    sessions_api.add_routes(made.router, commands)
    explain_api.add_routes(made.router, commands)
    return made


class _Routes:
    """The handlers."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def status(self, _: web.Request) -> web.Response:
        """``GET /v1/status``: everything, as ``Commands.status`` gives it."""
        return web.json_response(await self._commands.status())

    async def reload(self, request: web.Request) -> web.Response:
        """``POST /v1/reload {"dry_run": false}``: ``changes``, a list of lines."""
        found = await read_body(request, dry_run=bool)
        changes = await self._commands.reload(dry_run=found.get("dry_run", False))
        return web.json_response({"changes": changes})

    async def upgrade(self, request: web.Request) -> web.Response:
        """``POST /v1/upgrade``: ``pid``, the new supervisor's process id."""
        await read_body(request)
        return web.json_response({"pid": await self._commands.upgrade()})

    async def stop(self, request: web.Request) -> web.Response:
        """``POST /v1/stop {"at_once": false}``: an empty object; the stop has begun."""
        found = await read_body(request, at_once=bool)
        self._commands.stop(at_once=found.get("at_once", False))
        return web.json_response({})

    @web.middleware
    async def refuse(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Make an answer of whatever is raised."""
        try:
            return await handler(request)
        except web.HTTPException as error:
            allow = error.headers.get("Allow")
            reason = f"{request.method} {request.rel_url.raw_path}: {error.reason}"
            return _refusal(error.status, reason, {"Allow": allow} if allow else None)
        except RequestError as error:
            return _refusal(400, str(error))
        except CommandError as error:
            return _refusal(409, str(error))
        except ConfigError as error:
            status = await self._commands.status()
            file = str(status.get("config_file"))
            return web.json_response({"mistakes": report(error, file).splitlines()}, status=422)
        except Exception:
            log.exception("%s %s failed: a mistake in balanceme", request.method, request.path)
            return _refusal(500, "a mistake in balanceme; its log has more")


def _refusal(status: int, reason: str, fields: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": reason}, status=status, headers=fields)
