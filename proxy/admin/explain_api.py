"""The API's part about explanations: why a request goes to its member."""

from aiohttp import web

from proxy.admin.bodies import RequestError, read_body
from proxy.control.commands import Commands, Question


def add_routes(router: web.UrlDispatcher, commands: Commands) -> None:
    """Let the API answer these."""

    async def explain(request: web.Request) -> web.Response:
        """``POST /v1/explain {"target": "/"}``; also ``host``, ``cookie``, ``listen``, ``tls``.

        As ``Commands.explain`` gives it.
        """
        found = await read_body(request, target=str, host=str, cookie=str, listen=str, tls=bool)
        if "target" not in found:
            raise RequestError("target is needed: a path, or a whole URL")
        return web.json_response(await commands.explain(Question(**found)))

    router.add_post("/v1/explain", explain)
