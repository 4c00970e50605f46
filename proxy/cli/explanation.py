"""``explain``: why a request goes to its member, asked of a running balanceme or of a file."""

import argparse
import sys
from pathlib import Path
from typing import Any

from proxy.cli.common import Add, add_json, add_socket, ask, print_json


def add_commands(add: Add) -> None:
    """The commands of this group."""
    explain = add(
        "explain",
        _explain,
        "Show why a request goes to its member.",
        "Nothing is sent and nothing changed. The exit status is 1 if no member would get it.",
    )
    explain.add_argument("target", metavar="TARGET", help="a path with its query, or a whole URL")
    explain.add_argument("--host", metavar="NAME", help="the Host field")
    explain.add_argument(
        "--cookie", metavar="TEXT", help="the Cookie field, such as BALANCEME=balancer.server2"
    )
    explain.add_argument(
        "--listen", metavar="ADDRESS", help="the frontend (default: the first that fits)"
    )
    explain.add_argument(
        "--plain", action="store_true", help="over plain HTTP, where TARGET is only a path"
    )
    explain.add_argument(
        "--config",
        metavar="FILE",
        help="by this configuration alone, with all members as it says",
    )
    add_json(explain)
    add_socket(explain)


def _explain(options: argparse.Namespace) -> int:
    from proxy.admin import client
    from proxy.control.commands import CommandError, Question
    from proxy.core.errors import ConfigError

    question = Question(
        target=options.target,
        host=options.host,
        cookie=options.cookie,
        listen=options.listen,
        tls=False if options.plain else None,
    )
    served: list[bool] = []

    def explain(path: Path) -> None:
        served.append(_show(options, client.explain(path, question)))

    def explain_file(file: str) -> None:
        from proxy.control import config_file, explaining

        # The files of certificates may be on another machine.
        settings = config_file.load(file, check_files=False)
        served.append(_show(options, explaining.explain_file(settings, question)))

    if options.config is None:
        return ask(options, explain) or int(not all(served))
    try:
        explain_file(options.config)
    except CommandError as error:
        print(error, file=sys.stderr)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return int(served != [True])


def _show(options: argparse.Namespace, found: dict[str, Any]) -> bool:
    """Print an explanation; whether a member was found."""
    from proxy.admin.explain_text import explain_text, is_served

    if options.json:
        print_json(found)
    else:
        print(explain_text(found))
    return is_served(found)
