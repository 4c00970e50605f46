"""``check``, ``import``, ``schema`` and ``version``: what needs no running balanceme."""

import argparse
import os
import sys
from pathlib import Path

from proxy import __version__
from proxy.cli.common import Add, add_json, print_json


def add_commands(add: Add) -> None:
    """The commands of this group."""
    check = add("check", _check, "Check a configuration file and report every mistake.")
    check.add_argument("file", metavar="FILE", help="the configuration")
    add_json(check)
    importer = add(
        "import",
        _import,
        "Turn an Apache configuration into one of ours.",
        "What is lost is told on standard error; what would be wrong to serve without is an error.",
    )
    importer.add_argument("file", metavar="FILE", help="Apache's main file, or one of a site")
    importer.add_argument(
        "-D", dest="defines", metavar="NAME", action="append", default=[], help="as Apache's own -D"
    )
    importer.add_argument("-d", dest="root", metavar="FOLDER", help="the ServerRoot")
    importer.add_argument(
        "-o", dest="output", metavar="FILE", help="write there, not to the screen"
    )
    importer.add_argument(
        "--repair", action="store_true", help="read slips as they were meant, where that is certain"
    )
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


def _import(options: argparse.Namespace) -> int:
    from proxy.apache.importer import import_tree
    from proxy.apache.mistakes import ApacheError
    from proxy.apache.reader import Options, read
    from proxy.control.config_writer import write
    from proxy.core.errors import ConfigError
    from proxy.core.reading import settings_from_tree

    defines = dict(each.partition("=")[::2] for each in options.defines)
    how = Options(defines, os.environ, server_root=options.root, repair=options.repair)
    try:
        imported = import_tree(read(Path(options.file), how))
        text = write(imported.tree, imported.comments, [f"Imported from {options.file}."])
        settings_from_tree(imported.tree)
    except ApacheError as error:
        print(error, file=sys.stderr)
        return 2
    except ConfigError as error:
        # Each setting is right by itself: together they can't be served.
        for mistake in error.mistakes:
            print(f"{options.file}: {mistake.message}", file=sys.stderr)
        return 2
    for notice in imported.notices:
        print(notice, file=sys.stderr)
    return _write(text, options.output)


def _write(text: str, file: str | None) -> int:
    if file is None:
        print(text, end="")
        return 0
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        print(f"{file} can't be written: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _schema(_: argparse.Namespace) -> int:
    from proxy.control import config_file

    print_json(config_file.schema())
    return 0


def _version(_: argparse.Namespace) -> int:
    print(f"balanceme {__version__}")
    return 0
