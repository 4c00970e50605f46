"""``drain``, ``disable`` and ``enable``: what the operator wants of a member."""

import argparse
from pathlib import Path

from proxy.cli.common import Add, add_socket, ask


def add_commands(add: Add) -> None:
    """The commands of this group."""
    until = "That holds over restarts with a state_folder, until the file says something new."
    drain = add("drain", _drain, "Give a member no new sessions; it keeps those it has.", until)
    disable = add("disable", _disable, "Give a member nothing; its sessions move to others.", until)
    enable = add("enable", _enable, "Give a member sessions again.", until)
    for command in (drain, disable, enable):
        command.add_argument("member", metavar="MEMBER", help="its route, or its url")
        command.add_argument("--balancer", metavar="NAME", help="only there, and not in all")
    for command in (drain, disable, enable):
        add_socket(command)


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

    return ask(options, set_status)
