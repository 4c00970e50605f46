"""``sessions`` and ``session``: who is where, how it came there, and sending one elsewhere."""

import argparse
import sys
import time
from pathlib import Path

from proxy.cli.common import Add, add_json, add_socket, ask, print_json

_IDS = (
    "A session is known by an id that says nothing of its user, and that changes with each start or"
    " upgrade of balanceme."
)


def add_commands(add: Add) -> None:
    """The commands of this group."""
    sessions = add("sessions", _sessions, "List live sessions, those seen last first.", _IDS)
    sessions.add_argument("--member", metavar="MEMBER", help="only there, by its route or url")
    sessions.add_argument("--balancer", metavar="NAME", help="only there")
    sessions.add_argument(
        "--limit", type=int, default=100, metavar="N", help="at most so many (default: 100)"
    )
    session = add("session", _show, "Show, find or move one session.", _IDS)
    actions = session.add_subparsers(required=True, metavar="ACTION")
    show = actions.add_parser("show", help="its history", description=f"Show its history. {_IDS}")
    move = actions.add_parser(
        "move",
        help="send it to another member",
        description="Send a session to another member with its next request, which also gets it"
        " the cookie for that. What is under way ends where it is.",
    )
    find = actions.add_parser(
        "find",
        help="show the session of a user's device or browser",
        description="Show the session that has a device with its user, a webmail's cookie, or a"
        f" browser's address. {_IDS}",
    )
    for action in (show, move):
        action.add_argument("id", metavar="ID", help="16 hex digits")
    move.add_argument("member", metavar="MEMBER", help="its route, or its url")
    move.add_argument("--balancer", metavar="NAME", help="only there, and not wherever it is")
    move.add_argument("--reason", metavar="TEXT", default="", help="for the log and the history")
    _add_traits(find)
    for command, function in ((show, _show), (move, _move), (find, _find)):
        command.set_defaults(command=function)
    for command in (sessions, show, find):
        add_json(command)
    for command in (sessions, show, move, find):
        add_socket(command)


def _add_traits(find: argparse.ArgumentParser) -> None:
    find.add_argument("--device", metavar="ID", help="ActiveSync's DeviceId, as in its requests")
    find.add_argument("--user", metavar="NAME", help="the device's user, as it logs in")
    find.add_argument(
        "--cookie",
        metavar="TEXT",
        help="a webmail's cookie, such as 'ZARAFA_WEBAPP=...'; - reads it from standard input,"
        " where other users of this machine can't see it",
    )
    find.add_argument("--address", metavar="IP", help="of a browser without a webmail's cookie")
    find.add_argument("--user-agent", metavar="TEXT", help="that browser's User-Agent field")
    find.add_argument("--forwarded-for", metavar="TEXT", help="its X-Forwarded-For, if it has one")


def _sessions(options: argparse.Namespace) -> int:
    from proxy.admin import client
    from proxy.admin.sessions_text import sessions_text

    def sessions(path: Path) -> None:
        told = client.sessions(path, options.balancer, options.member, max(options.limit, 0))
        print_json(told) if options.json else print(sessions_text(told, time.time()))

    return ask(options, sessions)


def _show(options: argparse.Namespace) -> int:
    return ask(options, lambda path: _print_history(options, path, options.id))


def _print_history(options: argparse.Namespace, path: Path, session: str) -> None:
    from proxy.admin import client
    from proxy.admin.sessions_text import history_text

    told = client.session(path, session)
    print_json(told) if options.json else print(history_text(told, time.time()))


def _move(options: argparse.Namespace) -> int:
    from proxy.admin import client

    def move(path: Path) -> None:
        for each in client.move_session(
            path, options.id, options.member, options.balancer, options.reason
        ):
            print(
                f"{each['balancer']}: session {options.id} goes from {each['from']} to"
                f" {each['to']} with its next request"
            )

    return ask(options, move)


def _find(options: argparse.Namespace) -> int:
    from proxy.admin import client

    cookie = sys.stdin.readline().strip() if options.cookie == "-" else options.cookie
    traits = {
        "cookie": cookie,
        "device": options.device,
        "user": options.user,
        "address": options.address,
        "user_agent": options.user_agent,
        "forwarded_for": options.forwarded_for,
    }

    def find(path: Path) -> None:
        given = {key: value for key, value in traits.items() if value is not None}
        _print_history(options, path, client.find_session(path, given))

    return ask(options, find)
