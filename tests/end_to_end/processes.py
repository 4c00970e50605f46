"""A proxy's processes as the system sees them: who holds which connection, and what status tells.

Which worker a client is with is nothing that the proxy tells clients. The kernel knows: a
connection is a socket with a number of its own, and a process has links to the sockets it holds.
"""

import http.client
import json
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.end_to_end.conftest import HOST, NAME, PATIENCE, Proxy, request, until
from tests.end_to_end.raw_client import RawClient, Response

# States in /proc/net/tcp.
_ESTABLISHED, _LISTEN = "01", "0A"
# Connections to open at most until every worker has one.
_MANY = 200


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a control socket, by the standard library."""

    def __init__(self, path: Path) -> None:
        super().__init__("balanceme", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(self._path))


def call(proxy: Proxy, method: str, command: str, body: object = None) -> dict[str, Any]:
    """What the API says to a command, which it must carry out."""
    connection = _UnixConnection(proxy.socket)
    try:
        connection.request(method, f"/v1/{command}", None if body is None else json.dumps(body))
        with connection.getresponse() as answer:
            told: dict[str, Any] = json.loads(answer.read())
            assert answer.status == 200, told
            return told
    finally:
        connection.close()


def status(proxy: Proxy) -> dict[str, Any]:
    """What the proxy tells of itself over its control socket."""
    return call(proxy, "GET", "status")


def status_of(proxy: Proxy, route: str = "server1") -> dict[str, Any]:
    """What it tells of one member."""
    members = status(proxy)["balancers"]["cluster"]["members"]
    found: dict[str, Any] = next(each for each in members if each["route"] == route)
    return found


def set_status(proxy: Proxy, word: str, route: str = "server1") -> None:
    """What the operator says of a member."""
    command = f"balancers/cluster/members/{route}/status"
    assert call(proxy, "POST", command, {"status": word}) == {}


def serving(proxy: Proxy) -> list[int]:
    """The process ids of workers that serve, by the number of the worker."""
    workers = status(proxy)["workers"]
    return [each["pid"] for each in workers if each["phase"] == "serving"]


def is_replaced(proxy: Proxy, victim: int, count: int) -> bool:
    """Whether so many workers serve, and a former one not."""
    found = serving(proxy)
    return len(found) == count and victim not in found


def phase_of(pid: int) -> str:
    """One letter: R, S and D run, T is stopped, Z has ended; empty when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return ""
    return text.rpartition(")")[2].split()[0]


def is_gone(pid: int) -> bool:
    """Whether a process has ended."""
    return phase_of(pid) in ("", "Z")


def _sockets(port: int, state: str) -> dict[int, str]:
    """Sockets of ours with this local port: the other end's port, and the socket's number."""
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if int(words[1].partition(":")[2], 16) == port and words[3] == state:
            found[int(words[2].partition(":")[2], 16)] = words[9]
    return found


def _held(pid: int) -> set[str]:
    """The numbers of the sockets that a process holds."""
    found = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(file.readlink().name)
        except FileNotFoundError:
            pass  # closed meanwhile
    return {name[8:-1] for name in found if name.startswith("socket:[")}


def listens(pid: int, proxy: Proxy, frontend: int = 0) -> set[str]:
    """The numbers of the frontend's listening sockets that a process holds."""
    return set(_sockets(proxy.address(frontend)[1], _LISTEN).values()) & _held(pid)


def holders(proxy: Proxy, frontend: int = 0) -> dict[int, int]:
    """For each connected client's port the process that serves it, be it the supervisor."""
    sockets = _sockets(proxy.address(frontend)[1], _ESTABLISHED)
    held = {pid: _held(pid) for pid in (proxy.pid, *proxy.workers)}
    return {
        port: pid
        for port, number in sockets.items()
        for pid, numbers in held.items()
        if number in numbers
    }


def port_of(connection: socket.socket) -> int:
    """A client's own port."""
    port: int = connection.getsockname()[1]
    return port


def on_each(
    proxy: Proxy,
    make: Callable[[], RawClient],
    frontend: int = 0,
) -> dict[int, RawClient]:
    """An open connection to each worker, by the worker's process id."""
    clients: list[RawClient] = []
    workers = set(serving(proxy))
    found: dict[int, RawClient] = {}
    while set(found) != workers and len(clients) < _MANY:
        clients += [make() for _ in workers]
        ports = {port_of(each._socket): each for each in clients}
        until(lambda: ports.keys() <= holders(proxy, frontend).keys(), "all are accepted")  # noqa: B023
        held = holders(proxy, frontend)
        found = {held[port]: each for port, each in ports.items()}
    assert set(found) == workers
    for each in clients:
        if each not in found.values():
            each.close()
    return found


def ask(connection: RawClient, *fields: str, target: str = "/") -> Response:
    """One exchange on an open connection."""
    connection.send(request(target, *fields))
    return connection.read_response(b"GET")


def shake(
    proxy: Proxy,
    context: ssl.SSLContext,
    session: ssl.SSLSession | None = None,
    frontend: int = 0,
) -> ssl.SSLSocket:
    """A connection after its handshake, with an answer read: so a ticket has come as well."""
    raw = socket.create_connection((HOST, proxy.address(frontend)[1]), timeout=PATIENCE)
    try:
        secured = context.wrap_socket(raw, server_hostname=NAME, session=session)
        secured.sendall(request("/"))
        assert secured.recv(65_536).startswith(b"HTTP/1.1 200 ")
    except BaseException:
        raw.close()
        raise
    return secured
