"""Compares the reader with the real Apache: what it takes, and the tree that it dumps."""

import os
import random
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from proxy.apache.lines import first_word, words
from proxy.apache.reader import ApacheError, Options, read
from proxy.apache.variables import shell_values
from tests.apache.tree_text import options_of, without_places
from tests.end_to_end.apache import find_apache

# --- the real Apache ----------------------------------------------------------------------------

APACHE = find_apache()
MODULE_FOLDER = Path("/usr/lib/apache2/modules")
LOADED = ("mpm_event", "authz_core", "info", "proxy")
NEEDS_APACHE = [
    pytest.mark.oracle,
    pytest.mark.skipif(
        APACHE is None or not (MODULE_FOLDER / "mod_info.so").exists(), reason="no apache2 here"
    ),
]
BUILT_IN = ("core", "so", "watchdog", "http", "log_config", "logio", "version", "unixd")


class Oracle:
    """Asks Apache what it makes of a configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        loads = [f"LoadModule {x}_module {MODULE_FOLDER}/mod_{x}.so" for x in LOADED]
        own = ["PidFile pid", f"DefaultRuntimeDir {folder}", "ErrorLog log", "Listen 127.0.0.1:1"]
        (folder / "before").write_text("\n".join([*loads, *own, "ServerName top", ""]))
        version = re.search(r"Apache/(\d+)\.(\d+)\.(\d+)", self._run("-v").stdout)
        assert version
        self.version = (int(version[1]), int(version[2]), int(version[3]))

    def _run(self, *arguments: str, environ: Mapping[str, str] | None = None) -> "Process":
        return subprocess.run(
            [str(APACHE), *arguments],
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="replace",
            env={"PATH": os.environ["PATH"], **(environ or {})},
        )

    def asks(self, file: Path, options: Options) -> tuple[bool | None, list[str]]:
        """Whether Apache reads it, None if a directive isn't to its liking; and its dump."""
        names = [part for name in options.defines for part in ("-D", name)]
        before = ("-d", options.server_root or "", "-C", f"Include {self.folder}/before")
        ran = self._run(
            "-t", "-DDUMP_CONFIG", *names, *before, f"-f{file}", environ=options.environ
        )
        said = ran.stderr
        if ran.returncode:
            meaning = "AH00526" in said and not re.search(r"closing '>'|additional arg", said)
            return None if meaning else False, []
        return True, list(self._dumped(ran.stdout, f"{self.folder}/before"))

    def _dumped(self, text: str, before: str) -> Iterator[str]:
        here = True
        for line in text.split("\n"):
            said = line.strip()
            if said.startswith("# In file:"):
                here = not said.endswith(before)
            # Apache ends sections in its dump only if something is in them; the indent is enough.
            if not here or not said or re.match(r"#( In file:|\s+\d+:$)|</", said):
                continue
            word, rest = first_word(said)
            if word.startswith("<"):
                word, rest = word.removesuffix(">"), rest.rpartition(">")[0]
            indent = " " * (len(line) - len(line.lstrip(" ")))
            yield indent + "|".join([word.lower(), *words(rest)])

    def options(self, options: Options, more: Iterable[str] = ()) -> Options:
        """The same with this Apache's version and modules, and more of those."""
        return Options(
            dict.fromkeys(options.defines, ""),
            options.environ,
            options.server_root,
            [*(f"{name}_module" for name in (*LOADED, *BUILT_IN)), *more],
            version=self.version,
        )


Process = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """One for all tests of this file."""
    return Oracle(tmp_path_factory.mktemp("oracle"))


def same(oracle: Oracle, file: Path, options: Options) -> None:
    """We read what Apache reads, and as it does."""
    options = oracle.options(options)
    accepted, dump = oracle.asks(file, options)
    text = file.read_text("latin-1")
    try:
        tree = read(file, options)
    except ApacheError as error:
        mistakes = str(error)
    else:
        mistakes = ""
        if accepted:
            assert list(without_places(tree.children)) == dump, text
    if accepted is not None:
        assert accepted == (not mistakes), (text, mistakes)


pytestmark = NEEDS_APACHE

READING = Path(__file__).parent / "reading"
# With modules that aren't loaded here.
BEYOND = {"modules", "macros"}
# In Latin-1, which Apache's dump has as it is.
BEYOND |= {"latin"}


@pytest.mark.parametrize(
    "file",
    [file for file in sorted(READING.glob("*.conf")) if file.stem not in BEYOND],
    ids=lambda file: file.stem,
)
def test_golden_files_are_apaches(oracle: Oracle, file: Path) -> None:
    """What the golden texts say is what Apache says."""
    same(oracle, file, options_of(file))


def blocks(name: str) -> list[str]:
    """The conditions of a golden file, each with a directive in it."""
    text = (READING / name).read_text()
    return [f"{line}\nTimeout 1" for line in re.findall(r"^<If.*>$", text, re.MULTILINE)]


ALONE = [
    *(f"{block}\n</IfVersion>" for block in blocks("versions-refused.conf")),
    *(READING / "usage.conf").read_text().split("\n")[:6],
    *(READING / "includes-missing.conf").read_text().split("\n")[:6],
    "<IfDefine>\n</IfDefine>",
    "<IfDefine !>\n</IfDefine>",
    '<IfDefine "!X">\nTimeout 1\n</IfDefine>',
    "<IfModule mod_proxy.c >\nTimeout 1\n</IfModule>",
    "<IfModule ! mod_proxy.c>\nTimeout 1\n</IfModule>",
    "<IfModule event.c>\nTimeout 1\n</IfModule>",
    "<IfModule mod_mpm_event.c>\nTimeout 1\n</IfModule>",
    "<IfModule http_module>\nTimeout 1\n</IfModule>",
    "<VirtualHost *:80\n</VirtualHost>",
    "<VirtualHost *:80>\n</VirtualHost",
    "<VirtualHost *:80>\n</VirtualHost >",
    "<VirtualHost *:80>\n</VirtualHost> # x",
    "<VirtualHost *:80>\n</VirtualHost>x",
    "<VirtualHost>\n</VirtualHost>",
    "<VirtualHost> *:80\n</VirtualHost>",
    "<VirtualHost> *:80>\n</VirtualHost>",
    "< VirtualHost *:80>\n</VirtualHost>",
    "<IfDefine X>\n</IfDefine >",
    "<IfDefine X>\n</IfDefine> # x",
    "<IfDefine X>\n</IfDefine>x",
    "<IfDefine X>\n</IfDefin>",
    "<IfDefine X>\n</IfDefine",
    "<IfDefine X>\n</",
    "<IfDefine X>\n<IfDefine>\n</IfDefine>\n",
    "<IfDefine !X>\n</IfDefine> # x",
    "<IfDefine !X>\n</IfDefine >",
    "<IfDefine !X>\n<VirtualHost *:80>\n</IfDefine>\n</VirtualHost>",
    "<VirtualHost *:80>\n<IfDefine !X>\n</VirtualHost>\n</IfDefine>",
    "<VirtualHost *:80>\n<IfDefine !X>\n",
    "<IfDefine !X>\n<VirtualHost *:80>\n<IfDefine X>\n",
    "Include loop.conf",
    "Include inc/[1",
    "Include inc/\\*.inc",
    "Include inc/[^1]*.inc",
    "Include inc/[1-2].inc",
    "Include inc/.hid*",
    "Include inc/folder/.hid*",
    "Include inc/*",
    "Include inc/folder/",
    "Include inc/../inc/1.inc",
    "Define Q '<VirtualHost'\n${Q} *:80>\n</VirtualHost>",
    "Define Q '</VirtualHost>'\n<VirtualHost *:80>\n${Q}",
    "Timeout 1\\\\\n\n\nTimeout 2",
    "\\\nTimeout 1\\",
    "\x0b\x0cTimeout\x0b1\x0c",
    "Timeout 1\rTimeout 2",
    "'' Timeout",
]


@pytest.mark.parametrize("text", ALONE)
def test_small_files_are_apaches(oracle: Oracle, tmp_path: Path, text: str) -> None:
    """Each of these alone is taken or refused as Apache does it."""
    for name in ("inc", "loop.conf"):
        (tmp_path / name).symlink_to(READING / name)
    file = tmp_path / "test.conf"
    file.write_bytes(text.encode("latin-1"))
    same(oracle, file, Options(server_root=str(tmp_path)))


PIECES = [
    *[
        "Timeout 1",
        "Timeout \\",
        "# comment \\",
        "",
        "\tTimeout '2'\r",
        "Timeout ${T}",
        '"Timeout" 3',
    ],
    *["<VirtualHost *:80>", "</VirtualHost>", "</virtualhost> #", "<Location /x>", "</Location>"],
    *["<IfDefine A>", "<IfDefine !A>", "</IfDefine>", "</IFDEFINE>", "<IfModule mod_proxy.c>"],
    *["<IfModule mod_x.c>", "</IfModule>", "Define A", "UnDefine A", "Define T 4", "Define A T"],
    *["<IfVersion >= 2.4>", "</IfVersion>", "<Proxy>", "<Proxy x>", "</Proxy>", "<If true>"],
]
ENDS = {"VirtualHost", "Location", "IfDefine", "IfModule", "IfVersion", "Proxy", "If"}


def made_up(numbers: random.Random) -> str:
    """A file of pieces, most of its sections closed."""
    lines: list[str] = []
    opened: list[str] = []
    for _ in range(numbers.randrange(3, 14)):
        if opened and numbers.random() < 0.4:
            lines.append(f"</{opened.pop()}>")
            continue
        piece = numbers.choice(PIECES)
        if piece.startswith("</") and numbers.random() < 0.8:
            continue
        lines.append(piece)
        if piece.startswith("<") and (name := piece[1:].split()[0].strip(">")) in ENDS:
            opened.append(name)
    if numbers.random() < 0.8:
        lines += [f"</{name}>" for name in reversed(opened)]
    return "\n".join(lines) + "\n"


@pytest.mark.slow
def test_made_up_files_are_apaches(oracle: Oracle, tmp_path: Path) -> None:
    """Files of pieces in any order are taken or refused, and dumped, as Apache does it."""
    numbers = random.Random(6)
    file = tmp_path / "test.conf"
    for _ in range(120):
        file.write_text(made_up(numbers))
        same(oracle, file, Options(server_root=str(tmp_path)))


NAMES = ["a", "b", "ab", "a.b", ".a", "B", "a]", "a-b", "a*", "a\\b", "[a]", "a^", "!a"]
PARTS = [*"ab.*?!^-\\B/", "[a]", "[a-b]", "[^a]", "[!a]", "/*", "a/", "[.]", "[a", "//"]


@pytest.mark.slow
def test_patterns_are_apaches(oracle: Oracle, tmp_path: Path) -> None:
    """Patterns of any kind include the same files in the same order."""
    for folder in NAMES:
        (tmp_path / folder).mkdir()
        for number, name in enumerate(NAMES):
            (tmp_path / folder / name).write_text(f"Timeout {number}\n")
    numbers = random.Random(6)
    file = tmp_path / "test.conf"
    for _ in range(80):
        name = numbers.choice(["", "*/", "a/"])
        name += "".join(numbers.choice(PARTS) for _ in range(numbers.randrange(1, 5)))
        if not name.startswith("/"):
            file.write_text(f"Include{numbers.choice(['', 'Optional'])} {name}\n")
            same(oracle, file, Options(server_root=str(tmp_path)))


@pytest.mark.skipif(not Path("/etc/apache2/apache2.conf").exists(), reason="no Debian layout here")
def test_debian_tree_is_apaches(oracle: Oracle, tmp_path: Path) -> None:
    """The package's own tree is read as Apache reads it with its envvars."""
    file = Path("/etc/apache2/apache2.conf")
    loads = read(file, Options()).top.directives("LoadModule")
    environ = {
        **shell_values((file.parent / "envvars").read_text(), {"APACHE_CONFDIR": "/etc/apache2"}),
        **dict.fromkeys(("APACHE_RUN_DIR", "APACHE_LOG_DIR"), str(tmp_path)),
    }
    options = Options({}, environ, str(file.parent))
    accepted, dump = oracle.asks(file, options)
    tree = read(file, oracle.options(options, [load.arguments[0] for load in loads]))
    # Apache acts on these while it reads, and doesn't dump them.
    acted_on = ("loadmodule", "defaultruntimedir")
    shown = [line for line in without_places(tree.children) if not line.startswith(acted_on)]
    assert (accepted, shown) == (True, dump)
