"""``reload``, ``upgrade``, ``stop`` and ``status``: the running balanceme as a whole."""

import argparse
import time
from pathlib import Path

from proxy.cli.common import Add, add_json, add_socket, ask, print_json


def add_commands(add: Add) -> None:
    """The commands of this group."""
    reload = add(
        "reload",
        _reload,
        "Put the changed configuration file in force.",
        "No connection is lost. What changes is printed; a file with mistakes changes nothing.",
    )
    reload.add_argument("--dry-run", action="store_true", help="only print what would change")
    upgrade = add(
        "upgrade",
        _upgrade,
        "Start the installed program anew on the same sockets.",
        "The running one finishes its exchanges and ends; if the new one can't serve, it stays.",
    )
    stop = add(
        "stop",
        _stop,
        "Stop gracefully, and wait until that has happened.",
        "Exchanges under way may end within stop_timeout.",
    )
    stop.add_argument("--now", action="store_true", help="cut exchanges under way")
    status = add("status", _status, "Show workers, balancers and members.")
    for command in (reload, status):
        add_json(command)
    for command in (reload, upgrade, stop, status):
        add_socket(command)


def _reload(options: argparse.Namespace) -> int:
    from proxy.admin import client

    def reload(path: Path) -> None:
        try:
            changes = client.reload(path, dry_run=options.dry_run)
        except client.MistakesError as error:
            if options.json:
                print_json({"mistakes": error.mistakes})
            raise
        if options.json:
            print_json({"changes": changes})
        else:
            print("\n".join(changes) or "no changes")

    return ask(options, reload)


def _upgrade(options: argparse.Namespace) -> int:
    from proxy.admin import client

    return ask(
        options, lambda path: print(f"upgraded: process {client.upgrade(path)} serves from now on")
    )


def _stop(options: argparse.Namespace) -> int:
    from proxy.admin import client

    def stop(path: Path) -> None:
        client.stop(path, at_once=options.now)
        print("stopped")

    return ask(options, stop)


def _status(options: argparse.Namespace) -> int:
    from proxy.admin import client
    from proxy.admin.status_text import status_text

    def status(path: Path) -> None:
        found = client.status(path)
        if options.json:
            print_json(found)
        else:
            print(status_text(found, time.time()))

    return ask(options, status)
