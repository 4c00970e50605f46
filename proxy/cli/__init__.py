"""The command line: one function a command, each importing only what it needs.

``common`` has what commands share; the other modules are groups of commands, each with an
``add_commands`` that says how they are called. Exit status: 0 done, 1 failed, 2 the command line
or the configuration is wrong, 3 no balanceme answers.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from proxy.cli import administration, configuration, explanation, members, serving, sessions

_EPILOG = """\
exit status:
  0  done
  1  failed
  2  mistakes in the configuration or in the command line
  3  no balanceme answers

Commands find a running balanceme by its control socket: --socket, else $BALANCEME_SOCKET, else
/run/balanceme/control.sock for root, and for others balanceme/control.sock in $XDG_RUNTIME_DIR, or
/tmp/balanceme-UID/control.sock without one.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status."""
    options = _parser().parse_args(arguments)
    # The event loop's warnings are of writes to clients that have left, one for each.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        status: int = options.command(options)
    except (BrokenPipeError, KeyboardInterrupt):
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="balanceme",
        description="A TLS frontend that keeps each session on its member.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, command: Callable[[argparse.Namespace], int], text: str, more: str = ""
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=f"{text} {more}".rstrip())
        added.set_defaults(command=command)
        return added

    for group in (serving, configuration, administration, members, sessions, explanation):
        group.add_commands(add)
    return parser
