"""``run`` and ``demo``: a balanceme in this process, or beside it."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from proxy.cli.common import Add, add_socket, socket_of

# What a supervisor listens to; each would end a process that has no handler for it yet.
_SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)


def add_commands(add: Add) -> None:
    """The commands of this group."""
    run = add("run", _run, "Serve what a configuration file says.", "It stays in the foreground.")
    add_socket(run)
    run.add_argument("file", metavar="FILE", help="the configuration")
    _add_demo_options(
        add("demo", _demo, "Serve two demo members over TLS on this machine, with things to try.")
    )


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


def _run(options: argparse.Namespace) -> int:
    # A signal that comes while everything is loaded waits for its handler.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    from proxy.core.errors import ConfigError

    try:
        path = socket_of(options)
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
