from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.apache.lines import BLANKS, first_word, quoted_word, words
from proxy.apache.reader import ApacheError, Options, read
from proxy.apache.variables import shell_values
from tests.apache.tree_text import options_of, reading, without_places

READING = Path(__file__).parent / "reading"
CONFIGURATIONS = sorted(READING.glob("*.conf"))
DEBIAN = Path("/etc/apache2")


# --- golden pairs -------------------------------------------------------------------------------


@pytest.mark.parametrize("file", CONFIGURATIONS, ids=lambda file: file.stem)
def test_reads_as_written_down(file: Path) -> None:
    """A configuration gives the tree and notices, or the mistakes, that stand beside it."""
    assert reading(file, options_of(file)) == file.with_suffix(".txt").read_text(encoding="utf-8")


def test_every_text_has_its_configuration() -> None:
    """No golden text is left of a configuration that went."""
    assert {file.stem for file in READING.glob("*.txt")} == {file.stem for file in CONFIGURATIONS}


# --- one thing each ------------------------------------------------------------------------------


def tree_of(folder: Path, text: str | bytes, options: Options | None = None) -> list[str]:
    """The tree of a text, without places."""
    file = folder / "test.conf"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    tree = read(file, options or Options(server_root=str(folder)))
    return list(without_places(tree.children))


def mistakes_of(folder: Path, text: str, options: Options | None = None) -> str:
    """The mistakes of a text."""
    with pytest.raises(ApacheError) as caught:
        tree_of(folder, text, options)
    assert str(caught.value) == "\n".join(map(str, caught.value.mistakes))
    return str(caught.value)


def test_text_is_as_written(tmp_path: Path) -> None:
    """A directive keeps what stands behind its name: quotes, variables, continued lines joined."""
    file = tmp_path / "test.conf"
    file.write_text(
        'Define X y\nLogFormat  "%{X}i ${X}" \\\n  name\n<Proxy "${X}" > # z\n</Proxy>\n'
    )
    tree = read(file, Options())
    (directive,) = tree.top.directives("logformat")
    assert directive.text == '"%{X}i ${X}"   name'
    assert directive.arguments == ("%{X}i y", "name")
    assert directive.at == (str(file), 2)
    (section,) = tree.top.sections("proxy")
    assert (section.text, section.arguments) == ('"${X}"', ("y",))


def test_missing_file_is_a_mistake(tmp_path: Path) -> None:
    """A file that isn't there is told like any other mistake."""
    with pytest.raises(ApacheError, match=r"be read [(]No such file"):
        read(tmp_path / "none.conf", Options())


def test_line_has_a_bound(tmp_path: Path) -> None:
    """A line has at most 16 MiB, as Apache has it; less is read."""
    longest = "ServerAdmin " + "a" * (16 * 1024 * 1024 - 20)
    assert len(tree_of(tmp_path, longest)) == 1
    assert "test.conf:1: line: is longer" in mistakes_of(tmp_path, longest + "a" * 20)


def test_nesting_has_a_bound(tmp_path: Path) -> None:
    """Whoever walks through a tree may recurse."""
    text = "<Location /x>\n" * 500 + "</Location>\n" * 500
    assert "stands in more than 100 other" in mistakes_of(tmp_path, text)


def test_server_root_counts_from_where_it_stands(tmp_path: Path) -> None:
    """An include is relative to the ServerRoot before it, and the last one is the tree's."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(f"ServerAdmin {name}\n")
    file = tmp_path / "test.conf"
    file.write_text(f"Include a/x\nServerRoot {tmp_path}/b\nInclude x\nServerRoot {tmp_path}/a/\n")
    tree = read(file, Options())
    assert list(without_places(tree.children)) == ["serveradmin|a", "serveradmin|b"]
    assert tree.server_root == f"{tmp_path}/a"
    assert [notice.at.line for notice in tree.notices] == [1]


def test_server_root_is_looked_for(tmp_path: Path) -> None:
    """A virtual host's file alone is read from the folder that has Apache's main file."""
    (tmp_path / "httpd.conf").touch()
    (tmp_path / "extra").write_text("ServerAdmin extra\n")
    folder = tmp_path / "vhosts.d"
    folder.mkdir()
    assert tree_of(folder, "Include extra\n", Options()) == ["serveradmin|extra"]


def test_given_server_root_stands_for_one_elsewhere(tmp_path: Path) -> None:
    """A tree copied from another machine can be read with the folder where it is now."""
    text = "ServerRoot /no/such/folder\nInclude extra\n"
    (tmp_path / "extra").write_text("ServerAdmin extra\n")
    assert "isn't a folder here" in mistakes_of(tmp_path, text, Options())
    assert tree_of(tmp_path, text) == ["serveradmin|extra"]


def test_given_modules_are_all(tmp_path: Path) -> None:
    """With a list of modules, in either spelling, neither ours nor LoadModule's count."""
    text = "".join(
        f"<IfModule {name}>\nServerAdmin {name}\n</IfModule>\nLoadModule c_module c.so\n"
        for name in ("mod_a.c", "b_module", "mod_ssl.c", "c_module")
    )
    found = tree_of(tmp_path, text, Options(modules=["a_module", "mod_b.c"]))
    loads = "loadmodule|c_module|c.so"
    assert found == ["serveradmin|mod_a.c", loads, "serveradmin|b_module", loads, loads, loads]


def test_file_may_include_itself_once(tmp_path: Path) -> None:
    """A loop that a condition ends is none."""
    text = "ServerAdmin a\n<IfDefine !X>\nDefine X\nInclude test.conf\n</IfDefine>\n"
    assert tree_of(tmp_path, text) == ["serveradmin|a"] * 2


def test_loop_is_named(tmp_path: Path) -> None:
    """A file that includes itself, twice at that, is told with the way round, and soon."""
    found = mistakes_of(tmp_path, "Include test.conf\nInclude test.conf\n")
    assert found.endswith(f"includes itself, {tmp_path}/test.conf → {tmp_path}/test.conf: end that")


def test_files_are_bounded(tmp_path: Path) -> None:
    """Files that each include the next one twice are no loop, and end all the same."""
    for number in range(20):
        (tmp_path / str(number)).write_text(f"Include {number + 1}\n" * 2)
    (tmp_path / "20").touch()
    assert "too deep or too often" in mistakes_of(tmp_path, "Include 0\n")


def test_folder_in_itself_is_a_mistake(tmp_path: Path) -> None:
    """A link to a folder above it ends nowhere."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "self").symlink_to(".")
    assert "leads back to itself" in mistakes_of(tmp_path, "Include folder\n")


def test_links_to_folders_match_no_pattern(tmp_path: Path) -> None:
    """As a part of a path, a pattern means folders only; a link to a file is a file."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").write_text("ServerAdmin x\n")
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "lonely").symlink_to("folder/x")
    assert "matches lin?" in mistakes_of(tmp_path, "Include lin?/x\n")
    assert tree_of(tmp_path, "Include link/x\nInclude lone*\n") == ["serveradmin|x"] * 2


# --- Debian's and SUSE's layouts ----------------------------------------------------------------

ENVVARS = """\
unset HOME
if [ "${APACHE_CONFDIR##/etc/apache2-}" != "${APACHE_CONFDIR}" ] ; then
\tSUFFIX="-${APACHE_CONFDIR##/etc/apache2-}"
else
\tSUFFIX=
fi
export APACHE_RUN_USER=www-data   # a comment
export APACHE_RUN_DIR=/var/run/apache2$SUFFIX
export APACHE_LOG_DIR=${LOG_BASE:-/var/log}/apache2$SUFFIX
export UNKNOWN=$(hostname)
export 'NONSENSE
export SINGLE='a $SUFFIX'
"""


def test_envvars_beside_the_file(tmp_path: Path) -> None:
    """Debian's envvars gives what neither Define nor the environment has."""
    (tmp_path / "envvars").write_text(ENVVARS)
    names = "APACHE_RUN_USER APACHE_RUN_DIR APACHE_LOG_DIR UNKNOWN SINGLE".split()
    text = "".join(f'ServerAdmin "${{{name}}}"\n' for name in names)
    found = tree_of(tmp_path, text, Options(environ={"APACHE_RUN_USER": "given"}))
    assert [line.partition("|")[2] for line in found] == [
        "given",
        "/var/run/apache2",
        "/var/log/apache2",
        "${UNKNOWN}",
        "a $SUFFIX",
    ]


def test_envvars_of_a_second_instance() -> None:
    """The suffix of ``/etc/apache2-NAME`` comes from the folder's name."""
    found = shell_values(ENVVARS, {"APACHE_CONFDIR": "/etc/apache2-two"})
    assert found["APACHE_RUN_DIR"] == "/var/run/apache2-two"


@pytest.mark.skipif(not (DEBIAN / "apache2.conf").exists(), reason="no Debian layout here")
def test_debian_tree() -> None:
    """The package's own tree is read without a mistake and without a variable missing."""
    tree = read(DEBIAN / "apache2.conf", Options())
    assert tree.server_root == str(DEBIAN)
    assert [site.arguments for site in tree.top.sections("VirtualHost")] == [("*:80",)]
    assert {"errorlog", "listen", "loadmodule"} <= {one.key for one in tree.top.directives()}
    assert not [str(notice) for notice in tree.notices if "has no value" in notice.text]


SUSE = {
    "httpd.conf": """\
Include ROOT/uid.conf
Include ROOT/server-tuning.conf
ErrorLog /var/log/apache2/error_log
<IfDefine !SYSCONFIG>
  Include ROOT/loadmodule.conf
</IfDefine>
Include ROOT/listen.conf
Include ROOT/mod_log_config.conf
<IfDefine !SYSCONFIG>
  Include ROOT/global.conf
</IfDefine>
Include ROOT/mod_status.conf
Include ROOT/ssl-global.conf
<Directory />
    Options None
    AllowOverride None
    <IfModule !mod_access_compat.c>
        Require all denied
    </IfModule>
    <IfModule mod_access_compat.c>
        Order deny,allow
        Deny from all
    </IfModule>
</Directory>
AccessFileName .htaccess
DirectoryIndex index.html index.html.var
Include ROOT/default-server.conf
IncludeOptional ROOT/vhosts.d/*.conf
""",
    "uid.conf": "User wwwrun\nGroup www\n",
    "server-tuning.conf": "<IfModule prefork.c>\n  StartServers 5\n</IfModule>\nKeepAlive On\n",
    "loadmodule.conf": "LoadModule access_compat_module /usr/lib64/apache2/mod_access_compat.so\n",
    "listen.conf": """\
Listen 80
<IfDefine SSL>
    <IfDefine !NOSSL>
        <IfModule mod_ssl.c>
            Listen 443
        </IfModule>
    </IfDefine>
</IfDefine>
""",
    "mod_log_config.conf": 'LogFormat "%h %l %u %t \\"%r\\" %>s %b" common\n',
    "global.conf": "ServerSignature on\n",
    "mod_status.conf": """\
<IfModule mod_status.c>
    <Location /server-status>
        SetHandler server-status
    </Location>
</IfModule>
""",
    "ssl-global.conf": """\
<IfDefine SSL>
    <IfDefine !NOSSL>
        SSLSessionCache shmcb:/var/lib/apache2/ssl_scache(512000)
    </IfDefine>
</IfDefine>
""",
    "default-server.conf": 'DocumentRoot "/srv/www/htdocs"\nIncludeOptional ROOT/conf.d/*.conf\n',
    "conf.d/mod_x.conf": "ServerTokens Prod\n",
    "vhosts.d/zarafa.conf": """\
<IfDefine SSL>
<IfDefine !NOSSL>
<VirtualHost _default_:443>
    SSLEngine on
</VirtualHost>
</IfDefine>
</IfDefine>
""",
    "vhosts.d/vhost-ssl.template": "Never read this\n",
}


@pytest.mark.parametrize(
    ("defines", "keys", "denied"),
    [
        ({}, "user group keepalive errorlog loadmodule listen logformat serversignature", 0),
        (
            {"SSL": "", "SYSCONFIG": ""},
            "user group keepalive errorlog listen listen logformat sslsessioncache",
            1,
        ),
    ],
)
def test_suse_tree(tmp_path: Path, defines: Mapping[str, str], keys: str, denied: int) -> None:
    """SUSE's layout is read through all its files, with and without TLS."""
    for name, text in SUSE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text.replace("ROOT", str(tmp_path)))
    top = read(tmp_path / "httpd.conf", Options(defines=defines)).top
    ends = "accessfilename directoryindex documentroot servertokens"
    assert [one.key for one in top.directives()] == f"{keys} {ends}".split()
    assert len(list(top.sections("VirtualHost"))) == len(defines) // 2
    assert [site.arguments for site in top.sections("Location")] == [("/server-status",)]
    (root,) = top.sections("Directory")
    assert len(list(root.directives("Require"))) == denied


# --- any text -----------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        *[*"<>/!\\\"'#${}= \n\t\r\0*?[]~.-", "\\\n", "</", "<IfDefine", "<IfVersion", "<IfModule"],
        *["<IfFile", "<Proxy>", "<Proxy a>", "</Proxy>", "<Macro", "</IfDefine>", "Include", "Use"],
        *[
            "Define",
            "UnDefine",
            "ServerRoot",
            "LoadModule",
            "IncludeOptional",
            "2.4",
            "X",
            "\ufeff",
        ],
    ]
)


@pytest.mark.slow
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pieces=st.lists(PIECES | st.text(max_size=5), max_size=40), repair=st.booleans())
def test_any_text_is_a_tree_or_mistakes(tmp_path: Path, pieces: list[str], repair: bool) -> None:
    """Whatever a file holds, it is read, or ApacheError says why not."""
    data = "".join(pieces).encode("utf-8", "surrogatepass")
    try:
        tree_of(tmp_path, data, Options(server_root=str(tmp_path), repair=repair))
    except ApacheError as error:
        mistakes = list(map(str, error.mistakes))
    else:
        mistakes = ["none"]
    assert mistakes
    assert all(mistakes)


@given(found=st.lists(st.text(st.characters(exclude_characters="\0\n"))))
def test_quoted_words_are_read_back(found: list[str]) -> None:
    """Words that are written in quotes are read as they were."""
    assert words(" ".join(map(quoted_word, found))) == tuple(found)


@given(text=st.text(st.sampled_from([*"ab\\\"'", *BLANKS])))
def test_words_take_all_of_a_line(text: str) -> None:
    """Cutting off a word makes a line shorter, until nothing is left."""
    while text:
        shorter = first_word(text)[1]
        assert len(shorter) < len(text)
        text = shorter
