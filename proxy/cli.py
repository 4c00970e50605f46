"""The command line: one function a command, each importing only what it needs.

Exit status: 0 done, 1 failed, 2 the command line or the configuration is wrong, 3 no balanceme
answers.
"""

import argparse
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from proxy import __version__

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

# What a supervisor listens to; each would end a process that has no handler for it yet.
_SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)


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


# --- words ---------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="balanceme",
        description="A TLS frontend that keeps each session on its member.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, text: str, more: str = "") -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=f"{text} {more}".rstrip())
        command.set_defaults(command=globals()[f"_{name}"])
        return command

    run = add("run", "Serve what a configuration file says.", "It stays in the foreground.")
    _add_socket(run)
    check = add("check", "Check a configuration file and report every mistake.")
    for command in (run, check):
        command.add_argument("file", metavar="FILE", help="the configuration")
    _add_json(check)
    add("schema", "Print the JSON schema of the configuration.")
    _add_demo_options(
        add("demo", "Serve two demo members over TLS on this machine, with things to try.")
    )
    _add_administration(add)
    add("version", "Print the version.")
    return parser


def _add_administration(add: Callable[[str, str, str], argparse.ArgumentParser]) -> None:
    reload = add(
        "reload",
        "Put the changed configuration file in force.",
        "No connection is lost. What changes is printed; a file with mistakes changes nothing.",
    )
    reload.add_argument("--dry-run", action="store_true", help="only print what would change")
    upgrade = add(
        "upgrade",
        "Start the installed program anew on the same sockets.",
        "The running one finishes its exchanges and ends; if the new one can't serve, it stays.",
    )
    stop = add(
        "stop",
        "Stop gracefully, and wait until that has happened.",
        "Exchanges under way may end within stop_timeout.",
    )
    stop.add_argument("--now", action="store_true", help="cut exchanges under way")
    status = add("status", "Show workers, balancers and members.", "")
    until = "That holds over restarts with a state_folder, until the file says something new."
    drain = add("drain", "Give a member no new sessions; it keeps those it has.", until)
    disable = add("disable", "Give a member nothing; its sessions move to others.", until)
    enable = add("enable", "Give a member sessions again.", until)
    for command in (drain, disable, enable):
        command.add_argument("member", metavar="MEMBER", help="its route, or its url")
        command.add_argument("--balancer", metavar="NAME", help="only there, and not in all")
    for command in (reload, status):
        _add_json(command)
    for command in (reload, upgrade, stop, status, drain, disable, enable):
        _add_socket(command)


def _add_demo_options(demo: argparse.ArgumentParser) -> None:
    demo.add_argument("--port", type=int, default=8443, help="port for https (default: 8443)")
    demo.add_argument("--http-port", type=int, default=8080, help="for http (default: 8080)")
    demo.add_argument(
        "--member-port", type=int, default=8001, help="of the first member (default: 8001)"
    )
    demo.add_argument(
        "--control-port", type=int, default=8009, help="to stop and start members (default: 8009)"
    )
    demo.add_argument(
        "--socket",
        type=Path,
        metavar="PATH",
        help="the control socket (default: beside the demo's temporary files)",
    )


def _add_socket(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--socket", type=Path, metavar="PATH", help="the control socket (see balanceme --help)"
    )


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON, for programs")


# --- serving -------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    # A signal that comes while everything is loaded waits for its handler.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    from proxy.core.errors import ConfigError

    try:
        path = _socket(options)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return _serve(options.file, path)


def _demo(options: argparse.Namespace) -> int:
    from proxy.lab.demo import Demo, DemoError

    member_ports = (options.member_port, options.member_port + 1)
    try:
        with Demo(options.port, options.http_port, member_ports, options.control_port) as demo:
            print(demo.welcome(), flush=True)
            path = options.socket or demo.folder / "control.sock"
            return _run_beside(str(demo.config_path), path)
    except DemoError as error:
        print(error, file=sys.stderr)
        return 1


def _run_beside(file: str, socket: Path) -> int:
    """`balanceme run` as a process of its own: it forks, and beside threads none should.

    It is in a session of its own, so that a Ctrl-C reaches it once, through us. An upgrade puts
    another one in its place, which is followed to its end as well.
    """
    from proxy.admin import client

    command = [sys.executable, "-m", "proxy", "run", file, "--socket", str(socket)]
    process = subprocess.Popen(command, start_new_session=True)  # noqa: S603 - ourselves
    pid = process.pid
    missed: list[int] = []

    def forward(number: int, _: object) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            missed.append(number)  # it was followed just now

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, forward)
    status = process.wait()
    with contextlib.suppress(client.NoAnswerError):
        while True:
            with client.until_it_ends(socket) as pid:
                _signal(pid, missed)
    return status


def _signal(pid: int, numbers: list[int]) -> None:
    while numbers:
        os.kill(pid, numbers.pop(0))


def _serve(file: str, socket: Path) -> int:
    from proxy.admin.api import AdminServer
    from proxy.admin.control_socket import SocketError
    from proxy.control import supervisor
    from proxy.control.config_file import report
    from proxy.control.log_files import take_standard_streams
    from proxy.core.errors import ConfigError

    take_standard_streams()
    try:
        return supervisor.run(file, [AdminServer(socket)])
    except SocketError as error:
        print(error, file=sys.stderr)
    except ConfigError as error:
        print(report(error, file), file=sys.stderr)
    return 2


# --- configurations ------------------------------------------------------------------------------


def _check(options: argparse.Namespace) -> int:
    from proxy.control.config_file import ConfigFileError, Located, load

    located: list[Located] = []
    try:
        load(options.file)
    except ConfigFileError as error:
        located = error.located
        if not options.json:
            print(error.report(), file=sys.stderr)
    if options.json:
        mistakes = [
            {
                "line": found.at.line if found.at else None,
                "column": found.at.column if found.at else None,
                "key": found.key,
                "message": found.mistake.message,
            }
            for found in located
        ]
        _print_json({"file": options.file, "mistakes": mistakes})
    elif not located:
        print(f"{options.file}: no mistakes")
    return 2 if located else 0


def _schema(_: argparse.Namespace) -> int:
    from proxy.control import config_file

    _print_json(config_file.schema())
    return 0


# --- what a running one is asked -----------------------------------------------------------------


def _socket(options: argparse.Namespace) -> Path:
    """The control socket to use. Raises SocketError, a ConfigError."""
    from proxy.admin.control_socket import default_socket

    given: Path | None = options.socket
    return given or default_socket(os.environ, os.getuid())


def _reload(options: argparse.Namespace) -> int:
    from proxy.admin import client

    def reload(path: Path) -> None:
        try:
            changes = client.reload(path, dry_run=options.dry_run)
        except client.MistakesError as error:
            if options.json:
                _print_json({"mistakes": error.mistakes})
            raise
        if options.json:
            _print_json({"changes": changes})
        else:
            print("\n".join(changes) or "no changes")

    return _ask(options, reload)


def _upgrade(options: argparse.Namespace) -> int:
    from proxy.admin import client

    return _ask(
        options, lambda path: print(f"upgraded: process {client.upgrade(path)} serves from now on")
    )


def _stop(options: argparse.Namespace) -> int:
    from proxy.admin import client

    def stop(path: Path) -> None:
        client.stop(path, at_once=options.now)
        print("stopped")

    return _ask(options, stop)


def _status(options: argparse.Namespace) -> int:
    from proxy.admin import client
    from proxy.admin.status_text import status_text

    def status(path: Path) -> None:
        found = client.status(path)
        if options.json:
            _print_json(found)
        else:
            print(status_text(found, time.time()))

    return _ask(options, status)


def _drain(options: argparse.Namespace) -> int:
    return _set_status(options, "drain", "no new sessions; {sessions} live ones stay")


def _disable(options: argparse.Namespace) -> int:
    return _set_status(options, "disabled", "nothing; {sessions} live sessions move to others")


def _enable(options: argparse.Namespace) -> int:
    return _set_status(options, "enabled", "sessions")


def _set_status(options: argparse.Namespace, word: str, gets: str) -> int:
    from proxy.admin import client
    from proxy.core.settings import OperatorStatus

    def set_status(path: Path) -> None:
        status = OperatorStatus(word)
        for each in client.set_operator_status(path, options.member, status, options.balancer):
            told = gets.format(sessions=each["sessions"])
            print(f"{each['balancer']}: {each['route'] or each['url']} gets {told}")

    return _ask(options, set_status)


def _ask(options: argparse.Namespace, command: Callable[[Path], None]) -> int:
    """Carry out a command on the control socket; the exit status."""
    from proxy.admin.client import AdminError
    from proxy.core.errors import ConfigError

    try:
        command(_socket(options))
    except AdminError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _version(_: argparse.Namespace) -> int:
    print(f"balanceme {__version__}")
    return 0


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))
