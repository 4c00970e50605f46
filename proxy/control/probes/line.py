"""The connection of a probe: opened, spoken on in turns, closed whatever happened.

Each step says first what it waits for, so that whoever runs out of time can say in what. Reading
is bounded: no member can make a probe hold more than ``MOST_READ`` bytes for one answer.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from proxy.control.probes.certificate import ends_of
from proxy.control.probes.result import CheckFiles, ProbeError, Target
from proxy.core.settings import HealthCheck

# Bytes of one answer: a greeting, a line, a packet; a body has a bound of its own.
MOST_READ = 8192
# How long a goodbye may take, in seconds, once all is known.
GOODBYE = 1.0
# What getaddrinfo(3) finds.
Address = tuple[Any, Any, int, str, Any]


@lru_cache(maxsize=64)
def tls_context(verify: bool, authorities: str | None) -> ssl.SSLContext:
    """How a member's certificate is checked; reading the system's authorities takes 20 ms."""
    context = ssl.create_default_context(cadata=authorities)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Line:
    """One connection to a member."""

    def __init__(self) -> None:
        # what is waited for, in words for "timed out after 5 s, ..."
        self.doing = "before it began"
        self.certificate_ends: float | None = None
        self.tls_version = ""
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._closing: asyncio.StreamWriter | None = None

    # --- opening ---------------------------------------------------------------------------------

    async def open(
        self, check: HealthCheck, target: Target, port: int, files: CheckFiles | None = None
    ) -> None:
        """Connect to whom the check asks; with ``files`` over TLS. Raises ProbeError.

        ``port`` is the one to take if the check names none.
        """
        host, port = check.host or target.host, check.port or port
        sock = await self._connect(host, port)
        if check.host is None and port == target.port and target.preamble:
            # it fits into the kernel's buffer for sure
            sock.send(target.preamble)
        if files is None:
            self._reader, self._writer = await asyncio.open_connection(sock=sock, limit=MOST_READ)
            return
        self.doing = "in the TLS handshake"
        try:
            self._reader, self._writer = await asyncio.open_connection(
                sock=sock,
                limit=MOST_READ,
                ssl=tls_context(check.verify, files.authorities),
                server_hostname=check.server_name or host,
                # ours ends with the probe's
                ssl_handshake_timeout=3600.0,
                ssl_shutdown_timeout=GOODBYE,
            )
        except ssl.SSLCertVerificationError as error:
            raise ProbeError(f"its certificate is refused: {error.verify_message}") from error
        except ssl.SSLError as error:
            reason = error.reason or error.strerror or str(error)
            raise ProbeError(f"no TLS: {reason.replace('_', ' ').lower()}") from error
        except OSError as error:
            raise ProbeError(f"no TLS: {_reason(error)}") from error
        self._look_at_tls(self._writer)

    def _look_at_tls(self, writer: asyncio.StreamWriter) -> None:
        tls = writer.get_extra_info("ssl_object")
        self.tls_version = tls.version() or "TLS"
        self.certificate_ends = ends_of(tls.getpeercert(binary_form=True) or b"")

    async def _connect(self, host: str, port: int) -> socket.socket:
        """A connected socket: the addresses of a name are tried one after another."""
        loop = asyncio.get_running_loop()
        self.doing = f"looking up {host}"
        try:
            found = await _addresses(host, port)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no name"
            raise ProbeError(f"{host} can't be looked up: {reason}") from error
        reason = "it has no address"
        for family, kind, protocol, _, address in found:
            self.doing = f"connecting to {address[0]} port {port}"
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(0)
                await loop.sock_connect(sock, address)
            except OSError as error:
                sock.close()
                reason = _reason(error)
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise ProbeError(f"can't connect to {host} port {port}: {reason}")

    # --- speaking --------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send something small."""
        if self._writer is not None:
            self._writer.write(data)

    async def read_line(self, what: str) -> bytes:
        """A line without its end. Raises ProbeError if it is too long, or doesn't come."""
        with self._reading(what):
            line = await self._open_reader.readuntil(b"\n")
        return line.rstrip(b"\r\n")

    async def read_exactly(self, count: int, what: str) -> bytes:
        """So many bytes. Raises ProbeError if they don't come."""
        with self._reading(what):
            return await self._open_reader.readexactly(count)

    async def read_some(self, count: int, what: str) -> bytes:
        """Up to so many bytes; none at the end. Raises ProbeError."""
        with self._reading(what):
            return await self._open_reader.read(count)

    @property
    def _open_reader(self) -> asyncio.StreamReader:
        if self._reader is None:
            raise ProbeError("not connected")
        return self._reader

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        self.doing = f"waiting for {what}"
        try:
            yield
        except asyncio.IncompleteReadError as error:
            cut = "in the midst of" if error.partial else "before"
            raise ProbeError(f"it hung up {cut} {what}") from error
        except asyncio.LimitOverrunError as error:
            raise ProbeError(f"{what} is no line of at most {MOST_READ} bytes") from error
        except OSError as error:
            raise ProbeError(f"{_reason(error)} while waiting for {what}") from error

    # --- ending ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Say goodbye, when all was said; what was written is sent yet."""
        if self._writer is not None:
            self._writer.close()
            self._closing, self._writer = self._writer, None

    async def closed(self) -> None:
        """Wait until the goodbye is said; who doesn't hear it in time is left without."""
        if self._closing is None:
            return
        try:
            async with asyncio.timeout(GOODBYE):
                await self._closing.wait_closed()
        except (OSError, TimeoutError):
            self._closing.transport.abort()

    def abort(self) -> None:
        """Let go of it at once, unless it is closed."""
        if self._writer is not None:
            self._writer.transport.abort()


async def _addresses(host: str, port: int) -> list[Address]:
    """The addresses of a host; an address is its own, without a thread that others may wait for."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        loop = asyncio.get_running_loop()
        return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _reason(error: OSError) -> str:
    """Why, in the system's words; those of the event loop speak of its calls."""
    return os.strerror(error.errno) if error.errno else str(error) or "it hung up"
