"""``check``, ``schema`` and ``version``: what can be said without a running balanceme."""

import argparse
import sys

from proxy import __version__
from proxy.cli.common import Add, add_json, print_json


def add_commands(add: Add) -> None:
    """The commands of this group."""
    check = add("check", _check, "Check a configuration file and report every mistake.")
    check.add_argument("file", metavar="FILE", help="the configuration")
    add_json(check)
    add("schema", _schema, "Print the JSON schema of the configuration.")
    add("version", _version, "Print the version.")


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
        print_json({"file": options.file, "mistakes": mistakes})
    elif not located:
        print(f"{options.file}: no mistakes")
    return 2 if located else 0


def _schema(_: argparse.Namespace) -> int:
    from proxy.control import config_file

    print_json(config_file.schema())
    return 0


def _version(_: argparse.Namespace) -> int:
    print(f"balanceme {__version__}")
    return 0
