"""The command line: one function a command, each importing only what it needs.

Exit status: 0 done, 1 failed while running, 2 the command line or the configuration is wrong.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence

from proxy import __version__


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
    except BrokenPipeError:
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="balanceme", description="A TLS frontend that keeps each session on its member."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(command=globals()[f"_{name}"])
        return command

    add("run", "Serve what a configuration file says.").add_argument("file", metavar="FILE")
    add("check", "Check a configuration file and report every mistake.").add_argument(
        "file", metavar="FILE"
    )
    add("schema", "Print the JSON schema of the configuration.")
    demo = add("demo", "Serve two demo members over TLS on this machine, with things to try.")
    demo.add_argument("--port", type=int, default=8443, help="port for https (default: 8443)")
    demo.add_argument("--http-port", type=int, default=8080, help="for http (default: 8080)")
    demo.add_argument(
        "--member-port", type=int, default=8001, help="of the first member (default: 8001)"
    )
    demo.add_argument(
        "--control-port", type=int, default=8009, help="to stop and start members (default: 8009)"
    )
    add("version", "Print the version.")
    return parser


def _run(options: argparse.Namespace) -> int:
    return _serve(options.file)


def _serve(file: str) -> int:
    from proxy.control import config_file, worker
    from proxy.core.errors import ConfigError

    try:
        settings = config_file.load(file)
    except config_file.ConfigFileError as error:
        print(error.report(), file=sys.stderr)
        return 2
    try:
        return worker.run(settings)
    except ConfigError as error:
        for mistake in error.mistakes:
            place = ".".join(str(part) for part in mistake.path)
            print(f"{file}: {place}: {mistake.message}", file=sys.stderr)
        return 2


def _check(options: argparse.Namespace) -> int:
    from proxy.control import config_file

    try:
        config_file.load(options.file)
    except config_file.ConfigFileError as error:
        print(error.report(), file=sys.stderr)
        return 2
    print(f"{options.file}: no mistakes")
    return 0


def _schema(_: argparse.Namespace) -> int:
    from proxy.control import config_file

    print(json.dumps(config_file.schema(), indent=2))
    return 0


def _demo(options: argparse.Namespace) -> int:
    from proxy.lab.demo import Demo, DemoError

    member_ports = (options.member_port, options.member_port + 1)
    try:
        with Demo(options.port, options.http_port, member_ports, options.control_port) as demo:
            print(demo.welcome(), flush=True)
            return _serve(str(demo.config_path))
    except DemoError as error:
        print(error, file=sys.stderr)
        return 1


def _version(_: argparse.Namespace) -> int:
    print(f"balanceme {__version__}")
    return 0
