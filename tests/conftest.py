"""What tests of all folders share: ports for servers that they start."""

import socket
from collections.abc import Callable, Iterator

import pytest

_HOST = "127.0.0.1"


@pytest.fixture(scope="session")
def free_port() -> Iterator[Callable[[], int]]:
    """Gives ports that refuse connections until the test listens on them.

    Each is held by a socket that is bound and never listens: no other program is given the port,
    while whoever sets SO_REUSEADDR may listen on it, stop, and listen again.
    """
    held: list[socket.socket] = []

    def take() -> int:
        sock = socket.socket()
        held.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((_HOST, 0))
        port: int = sock.getsockname()[1]
        return port

    yield take
    for sock in held:
        sock.close()
