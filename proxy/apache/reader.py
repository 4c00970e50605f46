"""Apache's configuration files to a tree: lines, sections, conditions, includes, variables.

    tree = read(Path("/etc/apache2/apache2.conf"), Options(defines={"SSL": ""}))

It reads as Apache does: from the first line to the last, each with what was defined, loaded and
included before it (D1-D5). What directives mean is decided elsewhere, and whether there are such
directives as well. All mistakes are told at once; what Apache takes in silence, though it may not
be what was meant, is a notice.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from proxy.apache.conditions import ConditionError, Facts, holds, is_condition, reason
from proxy.apache.includes import IncludeError, included
from proxy.apache.known import OWN_MODULES, module_names
from proxy.apache.lines import (
    LONGEST,
    Line,
    first_word,
    logical_lines,
    open_quote,
    replaced,
    words,
)
from proxy.apache.mistakes import ApacheError
from proxy.apache.nesting import Kind, Level, Nesting
from proxy.apache.remarks import Remarks
from proxy.apache.tree import Directive, Included, Place, Tree
from proxy.apache.variables import Variables

__all__ = ["ApacheError", "Options", "read"]

# Files in files (Apache: AP_MAX_INCLUDE_DEPTH), and in all.
_DEEPEST = 128
_MOST_FILES = 10_000
# What the main file is called, seen from the ServerRoot.
_MAIN_FILES = ("apache2.conf", "httpd.conf", "conf/httpd.conf")


@dataclass(frozen=True, slots=True)
class Options:
    """What Apache's command line and environment would have said."""

    # -D; a value other than "" can be used as ${NAME}
    defines: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    # -d; None: the nearest folder above the file that has a main file
    server_root: str | None = None
    # mod_x.c or x_module; None: those that we stand in for, and what LoadModule names
    modules: Collection[str] | None = None
    # read slips as they were meant, where that is certain
    repair: bool = False
    # what IfVersion compares with
    version: tuple[int, int, int] = (2, 4, 71)


def read(file: Path, options: Options) -> Tree:
    """The tree of a configuration. Raises ApacheError with all mistakes."""
    return _Reader(file, options).read()


@dataclass(slots=True)
class _File:
    """A file that is being read, or waits for it."""

    path: Path
    depth: int
    # the Include that named it
    included_at: Place | None
    lines: Iterator[Line] | None = None


class _Reader:
    """One reading."""

    def __init__(self, file: Path, options: Options) -> None:
        self._remarks = Remarks(repair=options.repair)
        self._includes: list[Included] = []
        self._nesting = Nesting(self._remarks)
        self._options = options
        self._variables = Variables(options.defines, options.environ)
        # the last one is being read; those of one Include wait in reverse order
        self._files = [_File(file, 0, None)]
        self._read_files = 0
        # until it was said once
        self._guessed = options.server_root is None
        self._server_root = (
            _nearest_root(file) if options.server_root is None else Path(options.server_root)
        )
        self._variables.look_in(file.parent)
        self._variables.look_in(self._server_root)
        asked = OWN_MODULES if options.modules is None else options.modules
        self._modules = {name for module in asked for name in module_names(module)}

    def read(self) -> Tree:
        """All files, each to its end."""
        while self._files:
            file = self._files[-1]
            if file.lines is None:
                file.lines = self._opened(file)
                self._nesting.enter_file()
            line = next(file.lines, None)
            if line:
                self._line(Place(str(file.path), line.number), line)
            else:
                self._nesting.leave_file()
                self._files.pop()
        if self._remarks.mistakes:
            raise ApacheError(self._remarks.mistakes)
        children, notices = self._nesting.children, dict.fromkeys(self._remarks.notices)
        return Tree(tuple(children), tuple(notices), str(self._server_root), tuple(self._includes))

    def _opened(self, file: _File) -> Iterator[Line]:
        at = file.included_at or Place(str(file.path), 0)
        name = "Include" if file.included_at else "file"
        self._read_files += 1
        if file.depth > _DEEPEST or self._read_files > _MOST_FILES:
            text = f"{file.path} is included too deep or too often: {_again(self._files)}"
            self._remarks.mistake(at, name, text)
            # Files that include themselves twice would go on for ever.
            raise ApacheError(self._remarks.mistakes)
        try:
            text = _decoded(file.path.read_bytes())
        except (OSError, ValueError) as error:
            why = (isinstance(error, OSError) and error.strerror) or error
            self._remarks.mistake(at, name, f"{file.path} can't be read ({why}): let us read it")
            return iter(())
        if text.startswith("\ufeff"):
            first = Place(str(file.path), 1)
            said = "begins with a byte order mark, which Apache takes for a directive's name"
            self._remarks.slip(first, "file", said, "the same file without it")
            text = text[1:]
        return logical_lines(text)

    # --- one line -------------------------------------------------------------------------------

    def _line(self, at: Place, line: Line) -> None:
        if len(line.text) >= LONGEST:
            self._remarks.mistake(at, "line", "is longer than 16 MiB: cut it")
            return
        if self._nesting.skipping:
            word, rest = first_word(line.text)
            self._nesting.scan(at, word, rest, line.text)
            return
        text, missing = replaced(line.text, self._variables.value)
        word, rest = first_word(text)
        _, written = first_word(line.text)
        name = f"{word.removesuffix('>')}>" if word.startswith("<") else word
        for variable in dict.fromkeys(missing):
            said = f"${{{variable}}} has no value and stays as it is: Define it, or set it outside"
            self._remarks.notice(at, name, said)
        if line.cut:
            said = "a NUL byte ends the line, what follows it isn't read: delete the byte"
            self._remarks.notice(at, name, said)
        if word.startswith("</"):
            self._nesting.close(at, word, text)
        elif word.startswith("<"):
            self._section(at, word, rest, written)
        else:
            self._directive(Directive(word, words(rest), written, at), rest)

    def _section(self, at: Place, word: str, rest: str, written: str) -> None:
        name = word[1:].removesuffix(">")
        if word.endswith(">"):
            rest = rest or ">"
        if not name:
            name = first_word(rest)[0].removesuffix(">")
            self._remarks.mistake(at, "<", f"write the name right behind it: <{name}")
        if ">" not in rest:
            meant = f"<{name} {written}>"
            if word.endswith(">"):
                self._remarks.mistake(at, word, "its > comes before its argument: write " + meant)
            else:
                self._remarks.slip(at, word, "has no closing >", meant)
            rest += ">"
        key, inside = name.lower(), rest.rpartition(">")[0]
        if is_condition(key):
            self._nesting.open(self._conditional(at, name, rest))
        elif key == "macro":
            said = "macros aren't read; a Use of it is a mistake"
            self._remarks.notice(at, f"<{name}>", said)
            self._nesting.open(Level(Kind.MACRO, name, at, []))
        else:
            self._missed_quote(at, name, inside)
            shown = written.rpartition(">")[0] or written.removesuffix(">")
            self._nesting.open(Level(Kind.SECTION, name, at, [], words(inside), shown.strip()))

    def _conditional(self, at: Place, name: str, text: str) -> Level:
        key = name.lower()
        facts = Facts(
            self._variables.is_defined, self._modules, self._options.version, self._server_root
        )
        try:
            if holds(key, text, facts):
                return Level(Kind.TAKEN, name, at, [])
            return Level(Kind.SKIPPED, name, at, [], (), "", reason(key, text))
        except ConditionError as error:
            self._remarks.mistake(at, f"<{name}>", str(error))
            return Level(Kind.SKIPPED, name, at, [], (), "", "not read, since it can't be decided")

    def _directive(self, directive: Directive, rest: str) -> None:
        if not directive.name:
            self._remarks.notice(directive.at, '""', "names no directive, and is passed over")
            return
        self._missed_quote(directive.at, directive.name, rest)
        if own := self._OWN.get(directive.key):
            low, high, usage, do = own
            if low <= len(directive.arguments) <= high and directive.arguments[0]:
                do(self, directive)
            else:
                self._remarks.mistake(directive.at, directive.name, f"write {usage}")
        else:
            self._nesting.here.append(directive)

    def _missed_quote(self, at: Place, name: str, text: str) -> None:
        if open_quote(text):
            said = "a quote isn't closed; all to the line's end stands in it"
            self._remarks.notice(at, name, said)

    # --- directives that decide what is read -----------------------------------------------------

    def _define(self, directive: Directive) -> None:
        if self._is_name(directive):
            name, *value = directive.arguments
            self._variables.define(name, value[0] if value else "")

    def _undefine(self, directive: Directive) -> None:
        if self._is_name(directive):
            self._variables.undefine(directive.arguments[0])

    def _is_name(self, directive: Directive) -> bool:
        if ":" in directive.arguments[0]:
            self._remarks.mistake(directive.at, directive.name, "a name has no colon: leave it out")
            return False
        return True

    def _include(self, directive: Directive) -> None:
        name = directive.arguments[0]
        if self._guessed and not Path(name).is_absolute():
            said = f"read below {self._server_root}, since no ServerRoot stands before it"
            self._remarks.notice(directive.at, directive.name, said)
            self._guessed = False
        try:
            optional = directive.key == "includeoptional"
            paths = included(name, self._server_root, optional=optional)
        except IncludeError as error:
            self._remarks.mistake(directive.at, directive.name, str(error))
            return
        self._includes += [Included(directive.at, str(path)) for path in paths]
        depth = self._files[-1].depth + 1
        self._files += [_File(path, depth, directive.at) for path in reversed(paths)]

    def _set_server_root(self, directive: Directive) -> None:
        folder = Path(directive.arguments[0])
        if folder.is_absolute() and _is_folder(folder):
            self._server_root, self._guessed = folder, False
        elif self._options.server_root is not None:
            said = f"{folder} isn't a folder here; {self._server_root} stays"
            self._remarks.notice(directive.at, directive.name, said)
        else:
            said = f"{folder} isn't a folder here: make it, or say which one stands for it"
            self._remarks.mistake(directive.at, directive.name, said)

    def _load_module(self, directive: Directive) -> None:
        if self._options.modules is None:
            self._modules |= module_names(directive.arguments[0])
        self._nesting.here.append(directive)

    def _use(self, directive: Directive) -> None:
        said = "macros aren't supported: write the macro's text here, with its arguments in place"
        self._remarks.mistake(directive.at, directive.name, said)

    _Own = tuple[int, int, str, Callable[["_Reader", Directive], None]]
    # least and most arguments, how it is written, what it does
    _OWN: Mapping[str, _Own] = {
        "define": (1, 2, "Define NAME, or Define NAME VALUE", _define),
        "undefine": (1, 1, "UnDefine NAME", _undefine),
        "include": (1, 1, "Include PATH, one for each path", _include),
        "includeoptional": (1, 1, "IncludeOptional PATH, one for each path", _include),
        "serverroot": (1, 1, "ServerRoot FOLDER", _set_server_root),
        "loadmodule": (2, 2, "LoadModule NAME_module FILE", _load_module),
        "use": (1, 1_000_000, "Use MACRO", _use),
    }


def _decoded(data: bytes) -> str:
    """Its text; what isn't UTF-8 is old, and Latin-1 takes every byte."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _again(files: list[_File]) -> str:
    """The way from a file to itself, as far as it goes round."""
    way = [str(file.path) for file in files if file.lines is not None or file is files[-1]]
    for end in range(len(way) - 1, 0, -1):
        if way[end] in way[:end]:
            start = end - 1 - way[:end][::-1].index(way[end])
            return f"{way[end]} includes itself, {' → '.join(way[start : end + 1])}: end that"
    return f"end what goes round in {way[0]}"


def _nearest_root(file: Path) -> Path:
    """The nearest folder above a file that has a main file of Apache, else the file's own."""
    folder = file.absolute().parent
    for above in (folder, *folder.parents):
        if any(_is_file(above / name) for name in _MAIN_FILES):
            return above
    return folder


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
