"""What a request to the API brings: a JSON object with known keys, and who sends it."""

import json
import pwd
import socket
import struct
from typing import Any

from aiohttp import web

_NUMBER = (int, float)
_KINDS: dict[Any, str] = {
    bool: "true or false",
    str: "a text",
    int: "a whole number",
    _NUMBER: "a number",
}
# pid, uid and gid of the other end of a unix socket (unix(7), SO_PEERCRED).
_CREDENTIALS = struct.Struct("3i")

NUMBER = _NUMBER


class RequestError(Exception):
    """A request that can't be understood; the message is for whoever wrote it."""


async def read_body(request: web.Request, **known: Any) -> dict[str, Any]:
    """A request's JSON object, with no other keys than these; none at all counts as empty.

    ``known`` says of each key what its value is: ``bool``, ``str``, ``int`` or ``NUMBER``. Raises
    RequestError.
    """
    try:
        data = await request.read()
        found = json.loads(data) if data else {}
    except (web.RequestPayloadError, ConnectionError) as error:
        raise RequestError("the request's body broke off") from error
    # UnicodeDecodeError is a ValueError.
    except (ValueError, RecursionError) as error:
        raise RequestError("the request's body is no JSON") from error
    if not isinstance(found, dict):
        raise RequestError("the request's body must be a JSON object")
    for key, value in found.items():
        if key not in known:
            raise RequestError(
                f"unknown key {json.dumps(key)}; known: {', '.join(known) or 'none'}"
            )
        if not _is(value, known[key]):
            raise RequestError(f"{key} must be {_KINDS[known[key]]}")
    return found


def _is(value: Any, kind: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, kind)


def sender(request: web.Request) -> str:
    """The name of the user at the other end of a control socket."""
    sock = request.transport.get_extra_info("socket") if request.transport is not None else None
    if sock is None or sock.family != socket.AF_UNIX:
        return request.remote or "somebody"
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid = _CREDENTIALS.unpack(found)[1]
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
