"""A demo member: a small HTTP server that stands for one server of a groupware cluster.

It counts requests in sessions that live in its own memory only, so that a session that moves to
another member is seen to start again. It takes and gives bodies of any size, waits, redirects,
echoes and answers ActiveSync. Every response names its member in ``X-Member``. Odd input gets a
400 and never an exception. It is no model of a good server: it trusts whoever asks.

    python -m proxy.lab.demo_server --name server1 --port 8001
"""

import argparse
import asyncio
import hashlib
import json
import logging
import re
import secrets
import signal
from collections.abc import Sequence

import uvloop
from aiohttp import ClientError, WSMsgType, web
from aiohttp.http_exceptions import HttpProcessingError

from proxy.lab import demo_activesync, demo_page

SESSION_COOKIE = "ZARAFA_WEBACCESS"
# Enough for a benchmark with a session a request; beyond it the oldest session is forgotten.
MAX_SESSIONS = 100_000
# The longest wait of an ActiveSync client is 3540 s.
MAX_WAIT = 3600.0
PING_WAIT = 20.0
# A stop means: gone at once, as a crashed server is, whatever waits. (For aiohttp 0 is for ever.)
LAST_WORDS = 0.01
# Beyond 1 TB a mistyped size would keep a terminal busy for hours.
_SIZE = re.compile(r"(\d{1,12})([kmg]?)", re.ASCII | re.IGNORECASE)
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_SECONDS = re.compile(r"\d{1,6}(\.\d{1,6})?", re.ASCII)
_BLOCK = bytes(range(256)) * 256
# Statuses of ActiveSync that the standard library has no phrase for.
_REASONS = {449: "Retry after sending a PROVISION command", 451: "Redirect", 507: "Server full"}


def _is_news(record: logging.LogRecord) -> bool:
    """False for what aiohttp says of clients that break off or send nonsense."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, ConnectionError | ClientError | HttpProcessingError)


LOGGER = logging.getLogger(__name__)
LOGGER.addFilter(_is_news)


class DemoMember:
    """One member; ``start`` and ``stop`` may alternate, and a stop loses its sessions."""

    def __init__(self, name: str, port: int, host: str = "127.0.0.1") -> None:
        self.name = name
        self.host = host
        # With 0 the system chooses one at the first start, and it is kept from then on.
        self.port = port
        self.sessions: dict[str, int] = {}
        self._runner: web.AppRunner | None = None

    @property
    def is_running(self) -> bool:
        """Whether it takes connections."""
        return self._runner is not None

    @property
    def address(self) -> str:
        """Its own address, as a URL without path."""
        return f"http://{self.host}:{self.port}"

    async def start(self) -> None:
        """Listen; raises OSError if the port can't be had. Nothing to do if it runs."""
        if self._runner is not None:
            return
        runner = web.AppRunner(
            self._application(), access_log=None, logger=LOGGER, shutdown_timeout=LAST_WORDS
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port).start()
        except OSError:
            await runner.cleanup()
            raise
        self.port = runner.addresses[0][1]
        self._runner = runner

    async def stop(self) -> None:
        """Refuse connections, cut those that are open, forget the sessions."""
        runner, self._runner = self._runner, None
        self.sessions.clear()
        if runner is not None:
            await runner.cleanup()

    def __repr__(self) -> str:
        state = "running" if self.is_running else "stopped"
        return f"<DemoMember {self.name} {self.address} {state} {len(self.sessions)} sessions>"

    def _application(self) -> web.Application:
        application = web.Application()
        application.on_response_prepare.append(self._sign)
        router = application.router
        for path in ("/", "/webaccess", "/webaccess/"):
            router.add_get(path, self._webaccess)
        router.add_post("/upload", self._upload)
        router.add_put("/upload", self._upload)
        router.add_get("/download", self._download)
        router.add_route("*", "/redirect", self._redirect)
        router.add_get("/websocket", self._websocket)
        router.add_route("*", "/slow", self._slow)
        router.add_route("*", "/status/{code}", self._status)
        router.add_route("*", "/headers", self._headers)
        router.add_route("*", demo_activesync.PATH, self._activesync)
        return application

    async def _sign(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers["X-Member"] = self.name

    # --- sessions ---

    async def _webaccess(self, request: web.Request) -> web.Response:
        sent = request.cookies.get(SESSION_COOKIE)
        session = sent if sent in self.sessions else secrets.token_hex(8)
        count = self.sessions.pop(session, 0) + 1
        self.sessions[session] = count  # last in order: the one used last
        if len(self.sessions) > MAX_SESSIONS:
            del self.sessions[next(iter(self.sessions))]
        line = demo_page.text(self.name, count, was_known=sent is not None)
        if "text/html" in request.headers.get("Accept", ""):
            response = web.Response(text=demo_page.page(self.name, line), content_type="text/html")
        else:
            response = web.Response(text=line + "\n")
        response.headers["Cache-Control"] = "no-store"
        if session != sent:
            response.set_cookie(SESSION_COOKIE, session, path="/")
        return response

    # --- bodies ---

    async def _upload(self, request: web.Request) -> web.Response:
        digest = hashlib.sha256()
        size = 0
        async for piece in request.content.iter_any():
            digest.update(piece)
            size += len(piece)
        return self._text(f"{size} bytes, sha256 {digest.hexdigest()}")

    async def _download(self, request: web.Request) -> web.StreamResponse:
        found = _SIZE.fullmatch(request.query.get("size", "1m"))
        if found is None:
            return self._text("size is a number of bytes, or one with a unit: 16k, 20m, 1g", 400)
        remaining = int(found[1]) * _UNITS[found[2].lower()]
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        if request.query.get("chunked", "0") == "0":
            response.content_length = remaining
        elif request.version >= (1, 1):
            response.enable_chunked_encoding()
        await response.prepare(request)
        while remaining and request.method != "HEAD":
            piece = _BLOCK[:remaining]
            await response.write(piece)
            remaining -= len(piece)
        return response

    # --- single answers ---

    async def _redirect(self, request: web.Request) -> web.Response:
        is_absolute = request.query.get("absolute", "0") != "0"
        location = (self.address if is_absolute else "") + "/webaccess/"
        return self._text(f"to {location}", 303, {"Location": location})

    async def _slow(self, request: web.Request) -> web.Response:
        seconds = _wait(request.query.get("seconds", "3"))
        if seconds is None:
            return self._text("seconds is a number from 0 to 3600", 400)
        await asyncio.sleep(seconds)
        return self._text(f"after {seconds:g} s")

    async def _status(self, request: web.Request) -> web.Response:
        code = request.match_info["code"]
        if not re.fullmatch(r"[2-5]\d\d", code, re.ASCII):
            return self._text("a status is a number from 200 to 599", 400)
        headers = {"WWW-Authenticate": 'Basic realm="demo"'} if code == "401" else None
        return self._text(f"status {code}", int(code), headers)

    async def _headers(self, request: web.Request) -> web.Response:
        """The request line and every field, in order and spelling, as they arrived."""
        major, minor = request.version
        line = f"{request.method} {request.raw_path} HTTP/{major}.{minor}"
        # JSON with a field a line, since people read it too.
        fields = ",\n  ".join(
            json.dumps([name.decode("latin-1"), value.decode("latin-1")])
            for name, value in request.raw_headers
        )
        text = (
            f'{{"member": {json.dumps(self.name)},\n'
            f' "request": {json.dumps(line)},\n'
            f' "headers": [\n  {fields}]}}\n'
        )
        return web.Response(text=text, content_type="application/json")

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        """Sends every message back, until the client closes."""
        socket = web.WebSocketResponse(max_msg_size=0)
        if not socket.can_prepare(request):
            return self._text(
                "this path wants a WebSocket handshake", 426, {"Upgrade": "websocket"}
            )
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket

    # --- ActiveSync ---

    async def _activesync(self, request: web.Request) -> web.Response:
        if request.method == "OPTIONS":
            return web.Response(headers=demo_activesync.HEADERS)
        if request.method != "POST":
            return self._text("this path is for devices: OPTIONS and POST")
        async for _ in request.content.iter_any():
            pass
        command = demo_activesync.read_query(request.raw_path.partition("?")[2])
        seconds = _wait(request.query.get("wait", f"{PING_WAIT:g}"))
        if command is None or seconds is None:
            return self._text("no ActiveSync command in the query", 400)
        headers = {"MS-Server-ActiveSync": demo_activesync.HEADERS["MS-Server-ActiveSync"]}
        sender = f"device {command.device or 'unknown'}"
        if command.name != "Ping":
            return self._text(f"{command.name} of {sender}: done", headers=headers)
        # Not a byte until the end, not even the head, and a client that leaves ends nothing:
        # that is how Z-Push waits.
        await asyncio.sleep(seconds)
        return self._text(f"Ping of {sender}: nothing new in {seconds:g} s", headers=headers)

    def _text(
        self, line: str, status: int = 200, headers: dict[str, str] | None = None
    ) -> web.Response:
        # None: the standard phrase, or an empty one.
        reason = _REASONS.get(status)
        text = None if status in (204, 304) else f"{self.name}: {line}\n"
        return web.Response(status=status, reason=reason, text=text, headers=headers)


def _wait(value: str) -> float | None:
    """Seconds to wait, or None if that is no sensible number."""
    seconds = float(value) if _SECONDS.fullmatch(value) else -1.0
    return seconds if 0 <= seconds <= MAX_WAIT else None


async def _serve(member: DemoMember) -> None:
    """Run until SIGINT or SIGTERM."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, over.set)
    await member.start()
    print(f"{member.name} listens on {member.address}", flush=True)
    await over.wait()
    await member.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of one member."""
    parser = argparse.ArgumentParser(
        prog="python -m proxy.lab.demo_server", description="Run a demo member."
    )
    parser.add_argument("--name", default="server1", help="its name in pages and in X-Member")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8001, help="port; 0 for any free one")
    options = parser.parse_args(arguments)
    member = DemoMember(options.name, options.port, options.host)
    try:
        uvloop.run(_serve(member))
    except (OSError, OverflowError) as error:
        parser.exit(1, f"{options.name} can't listen on {member.address}: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
