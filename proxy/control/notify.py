"""What systemd is told of us: ready, reloading, stopping, alive (sd_notify(3)).

Each message is one datagram that is sent or lost. Nothing here waits or raises, since the proxy
serves as well without anybody who listens; what can't be said to systemd is said once in the log.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, MutableMapping

log = logging.getLogger("balanceme")

# How often whoever asks systemd is told how it goes, in seconds.
STATUS_INTERVAL = 10.0


class Notify:
    """The line to the service manager; without NOTIFY_SOCKET every message is dropped."""

    __slots__ = ("_address", "_failed", "watchdog_interval")

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Read ``environ``, and leave in it what the new program of an upgrade is to find.

        NOTIFY_SOCKET and WATCHDOG_USEC stay, for they are about the service. WATCHDOG_PID names
        one process: without it the next one takes the limit for its own.
        """
        self._failed = False
        self._address = self._read_address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog_interval = self._read_watchdog(environ)
        """Seconds between two calls of ``watchdog``, half of the limit; None if nobody waits."""

    def _read_address(self, name: str) -> str | None:
        if name.startswith("@"):
            return "\0" + name[1:]
        if name and not name.startswith("/"):
            self._fail(f"the kind of NOTIFY_SOCKET {name} is not known")
            return None
        return name or None

    def _read_watchdog(self, environ: MutableMapping[str, str]) -> float | None:
        limit, process = environ.get("WATCHDOG_USEC"), environ.pop("WATCHDOG_PID", None)
        if limit is None:
            return None
        if process is not None and process != str(os.getpid()):
            del environ["WATCHDOG_USEC"]
            return None
        if not (limit.isascii() and limit.isdigit() and int(limit)):
            self._fail(f"WATCHDOG_USEC is {limit!r}, and no number of microseconds")
            return None
        return int(limit) / 2e6

    def ready(self, status: str) -> None:
        """We serve: after the start, and at the end of each reload."""
        self._send("READY=1", _status(status))

    def reloading(self) -> None:
        """A reload begins; ``ready`` ends it."""
        # Type=notify-reload wants the time, on the clock that systemd itself reads.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """We are on our way out."""
        self._send("STOPPING=1", _status(status))

    def status(self, text: str) -> None:
        """One line for those who ask ``systemctl status``."""
        self._send(_status(text))

    def watchdog(self) -> None:
        """We are alive; due every ``watchdog_interval``."""
        self._send("WATCHDOG=1")

    def watchdog_begins(self, call_later: Callable[..., object]) -> None:
        """Call ``watchdog`` when it is due from now on, as long as an event loop turns."""
        if self.watchdog_interval is not None:
            self.watchdog()
            call_later(self.watchdog_interval, self.watchdog_begins, call_later)

    def main_pid(self, pid: int) -> None:
        """Another process is the service from now on; nothing more is said by this one."""
        self._send(f"MAINPID={pid}")
        self._address = None  # a STOPPING=1 of ours could be taken for the service's

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        try:
            # A socket for each message: none is left to children, and a manager that made its own
            # anew is found.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(0)
                sock.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
        except (OSError, ValueError) as error:
            self._fail(f"{lines[0]} could not be sent to NOTIFY_SOCKET: {error}")

    def _fail(self, reason: str) -> None:
        if not self._failed:
            log.warning("systemd isn't told how we are, and may stop us: %s", reason)
        self._failed = True


def _status(text: str) -> str:
    # A line break would begin another assignment.
    return "STATUS=" + " ".join(text.splitlines())
