"""What commands share: their options, asking a running balanceme, printing."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class Add(Protocol):
    """Adds a command: its name, its function, a sentence that stands alone, and more of them."""

    def __call__(
        self, name: str, command: Callable[[argparse.Namespace], int], text: str, more: str = ""
    ) -> argparse.ArgumentParser:
        """The parser for the command's own arguments."""


def add_socket(command: argparse.ArgumentParser) -> None:
    """Let the command be told where a running balanceme listens."""
    command.add_argument(
        "--socket", type=Path, metavar="PATH", help="the control socket (see balanceme --help)"
    )


def add_json(command: argparse.ArgumentParser) -> None:
    """Let the command answer programs."""
    command.add_argument("--json", action="store_true", help="print JSON, for programs")


def socket_of(options: argparse.Namespace) -> Path:
    """The control socket to use. Raises SocketError, a ConfigError."""
    from proxy.admin.control_socket import default_socket

    given: Path | None = options.socket
    return given or default_socket(os.environ, os.getuid())


def ask(options: argparse.Namespace, command: Callable[[Path], None]) -> int:
    """Carry out a command on the control socket; the exit status."""
    from proxy.admin.client import AdminError
    from proxy.core.errors import ConfigError

    try:
        command(socket_of(options))
    except AdminError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def print_json(value: object) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=2))
