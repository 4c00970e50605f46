"""A server process of a test: started, waited for, ended by its own process id."""

import socket
import ssl
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_START_LIMIT = 60.0
_STOP_LIMIT = 5.0


class NotStartedError(Exception):
    """The process ended, or did not listen in time; the message holds what it said."""


class FrontendProcess:
    """One process that listens; ``start`` returns when it accepts connections."""

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self.name = name
        self._command = list(command)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, address: tuple[str, int]) -> None:
        """Start it and wait until a TLS handshake at the address succeeds."""
        with (self._folder / "output.log").open("wb") as output:
            self._process = subprocess.Popen(self._command, cwd=_ROOT, stdout=output, stderr=output)
        deadline = time.monotonic() + _START_LIMIT
        while not _accepts(address):
            if self._process.poll() is not None:
                raise NotStartedError(f"{self.name} ended:\n{self.log()}")
            if time.monotonic() > deadline:
                self.stop()
                raise NotStartedError(f"{self.name} did not listen on {address}:\n{self.log()}")
            time.sleep(0.02)

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """What it had to say, the end of it."""
        texts = [path.read_text(errors="replace") for path in sorted(self._folder.glob("*.log"))]
        return "\n".join(text[-4000:] for text in texts)

    def stop(self) -> int | None:
        """End the process that was started here, and no other; its exit status."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.terminate()
        try:
            return process.wait(_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _accepts(address: tuple[str, int]) -> bool:
    # A connection alone says little: a socket may listen long before anybody serves it.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection(address, timeout=_START_LIMIT) as connection:
            context.wrap_socket(connection).close()
    except OSError:
        return False
    return True
