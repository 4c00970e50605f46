"""A member as a process of its own, that can be killed, stopped and started again.

It answers each request with its name. ``python member_process.py PORT NAME`` is the process itself;
it imports nothing but the standard library, so that it starts quickly.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HOST = "127.0.0.1"


class _Answers(asyncio.Protocol):
    """One connection; requests have no bodies."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The proxy has connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """A part of a request, or several of them."""
        self._data += data
        while b"\r\n\r\n" in self._data:
            _, _, self._data = self._data.partition(b"\r\n\r\n")
            self._transport.write(self._answer)


async def _serve(port: int, name: str) -> None:
    body = name.encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    server = await asyncio.get_running_loop().create_server(
        lambda: _Answers(answer), HOST, port, reuse_address=True, backlog=512
    )
    await server.serve_forever()


class MemberProcess:
    """One of them, and what is done to it."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._hole: list[socket.socket] = []

    @property
    def settings(self) -> dict[str, str]:
        """Its block in a configuration."""
        return {"url": f"http://{HOST}:{self.port}", "route": self.name}

    def start(self) -> None:
        """Serve, again if it did before."""
        command = [sys.executable, str(Path(__file__)), str(self.port), self.name]
        self._process = subprocess.Popen(command)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                socket.create_connection((HOST, self.port), 1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return
        raise TimeoutError(f"{self.name} doesn't come up")

    def kill(self) -> None:
        """It is gone at once, with what it held; connections to it are refused."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """It stands still: connections are taken by its kernel, and nothing is answered."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """It stands still no more."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def black_hole(self) -> None:
        """Gone, and packets to it are lost: a socket whose backlog is full answers no SYN."""
        self.kill()
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, self.port))
        listening.listen(0)
        self._hole = [listening]
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex((HOST, self.port))
            self._hole.append(sock)

    def leave_hole(self) -> None:
        """Connections to it are refused from now on."""
        for sock in self._hole:
            sock.close()
        self._hole = []

    def end(self) -> None:
        """Leave nothing behind."""
        self.leave_hole()
        if self._process is not None:
            self.go_on()
        self.kill()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2]))
