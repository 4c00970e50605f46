import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from proxy.control import config_file
from proxy.control.config_file import ConfigFileError, load, schema
from proxy.control.yaml_tree import Branch, read_yaml
from proxy.core.errors import ConfigError, Mistake
from proxy.core.reading import settings_from_tree
from proxy.core.settings import Assign, Model, Settings

ROOT = Path(__file__).parent.parent.parent
EVERY_KEY = ROOT / "config" / "balanceme.yaml"
EXAMPLES = sorted((ROOT / "config" / "examples").glob("*.yaml"))
MISTAKES = sorted((Path(__file__).parent / "mistakes").glob("*.yaml"))


def report(file: Path, *, check_files: bool = False) -> str:
    """The report on a file with mistakes, its folder left out."""
    with pytest.raises(ConfigFileError) as caught:
        load(file, check_files=check_files)
    assert str(caught.value) == caught.value.report()
    return caught.value.report().replace(str(file), file.name)


# --- mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("file", MISTAKES, ids=lambda file: file.stem)
def test_mistakes(file: Path) -> None:
    """Each case is answered with exactly the report beside it."""
    assert report(file) + "\n" == file.with_suffix(".txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", MISTAKES, ids=lambda file: file.stem)
def test_reports_are_in_order(file: Path) -> None:
    """Mistakes come in the order of the file, one a line, each with its place."""
    lines = report(file).splitlines()
    found = [re.match(rf"{re.escape(file.name)}:(\d+):(\d+): ", line) for line in lines]
    places = [(int(place[1]), int(place[2])) for place in found if place]
    assert len(places) == len(lines)
    assert places == sorted(places)


def test_it_is_a_config_error(tmp_path: Path) -> None:
    """Who only knows ConfigError gets every mistake as well."""
    file = tmp_path / "a.yaml"
    file.write_text("workers: 0\n")
    with pytest.raises(ConfigError) as caught:
        load(file)
    paths = [mistake.path for mistake in caught.value.mistakes]
    assert paths == [("frontends",), ("balancers",), ("workers",)]


def test_mistakes_that_show_in_use(tmp_path: Path) -> None:
    """What a file's check can't see is reported the same way, but without line and column."""
    found = ConfigError([Mistake(("frontends", 0, "tls"), "no key"), Mistake((), "no room")])
    assert config_file.report(found, "a.yaml") == (
        "a.yaml: frontends[0].tls: no key\na.yaml: no room"
    )
    file = tmp_path / "b.yaml"
    file.write_text("workers: 0\n")
    with pytest.raises(ConfigFileError) as caught:
        load(file)
    assert config_file.report(caught.value, "a.yaml") == caught.value.report()


GOOD = (ROOT / "config" / "examples" / "several-names.yaml").read_text(encoding="utf-8")


@settings(max_examples=60, deadline=None)
@given(
    start=st.integers(0, len(GOOD)),
    length=st.integers(0, 40),
    put=st.text("ab:-[]{}&*!<'\"|>#%?,~ \n\t1\x07", max_size=8) | st.text(max_size=4),
)
def test_any_slip(
    tmp_path_factory: pytest.TempPathFactory, start: int, length: int, put: str
) -> None:
    """Whatever an editor does to a good file, the answer is settings or a report."""
    file = tmp_path_factory.getbasetemp() / "slip.yaml"
    text = GOOD[:start] + put + GOOD[start + length :]
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load(file)
    except ConfigFileError as error:
        told = error.report()
    else:
        told = f"{file}: no mistake"
    assert all(line.startswith(f"{file}:") for line in told.splitlines())


# --- the file as a whole -----------------------------------------------------------------------


def test_no_such_file(tmp_path: Path) -> None:
    """A file that isn't there is named, with what to do."""
    assert report(tmp_path / "a.yaml") == "a.yaml: no such file; check the name and the folder"


def test_folder(tmp_path: Path) -> None:
    """A folder is told from a file."""
    told = "a folder; name the configuration file in it"
    assert report(tmp_path) == f"{tmp_path.name}: {told}"


def test_forbidden_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be read is told from one that isn't there."""

    # By hand, since root may read everything.
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "open", refuse)
    told = "a.yaml: may not be read by this user; change its owner or mode"
    assert report(tmp_path / "a.yaml") == told


def test_impossible_name(tmp_path: Path) -> None:
    """A name that no file can have is no crash."""
    assert report(tmp_path / "a\0.yaml").endswith("can't be read: embedded null byte")


def test_not_utf8(tmp_path: Path) -> None:
    """Another encoding is told at its first odd byte, counted in characters."""
    file = tmp_path / "a.yaml"
    file.write_bytes("workers: 1\nserver: ü".encode() + b"\xfc\n")
    told = "not UTF-8: found the byte 0xFC; save the file as UTF-8"
    assert report(file) == f"a.yaml:2:10: {told}"


def test_byte_order_mark(tmp_path: Path) -> None:
    """A byte order mark, as Windows editors write it, is no mistake."""
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + EXAMPLES[0].read_bytes())
    assert load(file, check_files=False).workers == 1


def test_too_large(tmp_path: Path) -> None:
    """A file that can't be a configuration isn't read to its end."""
    file = tmp_path / "a.yaml"
    file.write_bytes(b"#" * (1024**2 + 1))
    assert report(file) == "a.yaml: larger than 1048576 bytes; is it a configuration?"


def test_keys_of_a_terminal(tmp_path: Path) -> None:
    """A key can't put control characters into the report."""
    file = tmp_path / "a.yaml"
    file.write_text('"a\\eb\\n": 1\n')
    assert "\x1b" not in report(file)
    assert "a\\x1bb\\n: unknown key" in report(file)


# --- the files it names ------------------------------------------------------------------------

WITH_FILES = """\
access_log: {path: access.log}
frontends:
  - listen: 0.0.0.0:443
    tls: {certificate: tls/mail.pem, key: tls/mail.key, password_file: /no/such/file}
    mappings: [{path: /, balancer: cluster}]
  - listen: 0.0.0.0:444
    tls:
      - {certificate: tls}
      - {certificate: "a\\0b", names: [mail.zarafa.com], key: 5}
    mappings: [{path: /, balancer: cluster}]
balancers:
  cluster:
    members: [{url: "http://server1.zarafa.com"}]
"""


def test_files_that_cant_be_read(tmp_path: Path) -> None:
    """Every file of a certificate that is missing or no file is told with its place."""
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "mail.pem").touch()
    file = tmp_path / "a.yaml"
    file.write_text(WITH_FILES)
    assert (
        report(file, check_files=True)
        == """\
a.yaml:4:43: frontends[0].tls.key: found "tls/mail.key", but there is no such file
a.yaml:4:72: frontends[0].tls.password_file: found "/no/such/file", but there is no such file
a.yaml:8:23: frontends[1].tls[0].certificate: found "tls", which is no plain file
a.yaml:9:23: frontends[1].tls[1].certificate: found "a\\x00b"; allowed: the name of a file, as text
a.yaml:9:62: frontends[1].tls[1].key: found the number 5; allowed: the name of a file, as text, or \
null; in quotes it would be text"""
    )


def test_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate of another user is told from one that isn't there."""
    (tmp_path / "mail.pem").touch()
    text = EXAMPLES[-1].read_text().replace("/etc/balanceme/mail.key", "mail.pem")
    file = tmp_path / "a.yaml"
    file.write_text(text.replace("/etc/balanceme/mail.pem", "mail.pem"))
    opened = Path.open

    def refuse(self: Path, *args: Any, **others: Any) -> Any:
        if self.name == "mail.pem":
            raise PermissionError
        return opened(self, *args, **others)

    monkeypatch.setattr(Path, "open", refuse)
    assert 'found "mail.pem", which this user may not read' in report(file, check_files=True)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o777])
def test_secrets_that_everybody_may_read(mode: int, tmp_path: Path) -> None:
    """A private key, and the password of one, are refused when any account may read them."""
    text = WITH_FILES.replace("certificate: tls}", "certificate: both.pem}").replace("key: 5", "")
    text = text.replace("/no/such/file", "password").replace('"a\\0b"', "tls/mail.pem")
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "tls").mkdir()
    for name in ("tls/mail.pem", "tls/mail.key", "password", "both.pem"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    (tmp_path / "both.pem").write_text("-----BEGIN EC PRIVATE KEY-----\n")
    told = (
        f"a secret that everybody may read (mode {mode:04o});"
        " chmod 640, and chown it to root or to whoever starts balanceme"
    )
    assert report(tmp_path / "a.yaml", check_files=True).splitlines() == [
        f'a.yaml:4:43: frontends[0].tls.key: found "tls/mail.key", {told}',
        f'a.yaml:4:72: frontends[0].tls.password_file: found "password", {told}',
        f'a.yaml:8:23: frontends[1].tls[0].certificate: found "both.pem", {told}',
    ]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o440])
def test_secrets_of_few(mode: int, tmp_path: Path) -> None:
    """Owner and group may read a key; a certificate alone is for everybody."""
    text = WITH_FILES.replace("certificate: tls}", "certificate: b.pem}").replace("key: 5", "")
    text = text.replace("/no/such/file", "tls/mail.key").replace('"a\\0b"', "tls/mail.pem")
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "tls").mkdir()
    for name in ("tls/mail.key", "b.pem"):
        (tmp_path / name).write_text("-----BEGIN PRIVATE KEY-----\n")
        (tmp_path / name).chmod(mode)
    (tmp_path / "tls/mail.pem").touch(mode=0o644)
    assert load(tmp_path / "a.yaml").frontends


def test_file_names_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative names count from the configuration's folder, not from where we were started."""
    (tmp_path / "sub").mkdir()
    text = WITH_FILES.replace('"a\\0b"', "b.pem").replace("key: 5", "key: b.key")
    (tmp_path / "sub" / "a.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    loaded = load("sub/a.yaml", check_files=False)
    folder = tmp_path / "sub"
    assert loaded.access_log is not None
    assert loaded.access_log.path == str(folder / "access.log")
    one, more = loaded.frontends[0].tls, loaded.frontends[1].certificates
    assert not isinstance(one, tuple)
    assert one is not None
    assert (one.certificate, one.key) == (
        str(folder / "tls/mail.pem"),
        str(folder / "tls/mail.key"),
    )
    assert one.password_file == "/no/such/file"
    assert [entry.key for entry in more] == [None, str(folder / "b.key")]


@pytest.mark.parametrize("name", ["failover.yaml", "/run/failover.yaml"])
def test_failover_file_becomes_absolute(tmp_path: Path, name: str) -> None:
    """A failover file is looked for beside the configuration, wherever we were started."""
    text = (ROOT / "config" / "examples" / "two-members.yaml").read_text(encoding="utf-8")
    file = tmp_path / "a.yaml"
    file.write_text(text.replace("    members:", f"    failover_file: {name}\n    members:"))
    [balancer] = load(file, check_files=False).balancers.values()
    assert balancer.failover_file == str(tmp_path / name)


@pytest.mark.parametrize("log", ["null", "{path: '-'}"])
def test_access_log_that_is_no_file(log: str, tmp_path: Path) -> None:
    """Standard output and no log at all aren't made names of files."""
    file = tmp_path / "a.yaml"
    file.write_text(
        WITH_FILES.replace("{path: access.log}", log).replace('"a\\0b"', "b").replace("key: 5", "")
    )
    loaded = load(file, check_files=False)
    assert loaded.access_log is None or loaded.access_log.path == "-"


# --- config/ -----------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [EVERY_KEY, *EXAMPLES], ids=lambda file: file.stem)
def test_examples_have_no_mistake(file: Path) -> None:
    """What a user may copy can be used as it is, but for the certificates."""
    assert isinstance(load(file, check_files=False), Settings)


def test_two_members() -> None:
    """The first example means what it says."""
    loaded = load(ROOT / "config" / "examples" / "two-members.yaml", check_files=False)
    [cluster] = loaded.balancers.values()
    cookie = cluster.session_cookie
    assert [member.route for member in cluster.members] == ["server1", "server2"]
    assert cookie is not None
    assert (cookie.assign, cookie.own_route, cookie.lifetime) == (Assign.OWN, "server1", 3600.0)
    assert cluster.failover == {}


class Line(NamedTuple):
    """A key of ``config/balanceme.yaml``: its field, its value, and the comment behind it."""

    name: str
    field: FieldInfo
    value: Any
    comment: str


def lines(branch: Branch, value: Any, text: list[str]) -> Iterator[Line]:
    """Every key in a block of settings and below."""
    if isinstance(value, Model):
        for key, place in branch.keys.items():
            name, inside = str(key), getattr(value, str(key))
            comment = text[place.line - 1].partition(" # ")[2]
            title = f"{type(value).__name__}.{name}"
            yield Line(title, type(value).model_fields[name], inside, comment)
            yield from lines(branch.below[key], inside, text)
    elif isinstance(value, tuple | dict):
        for key, below in branch.below.items():
            inside = value[key]  # type: ignore[index]
            yield from lines(below, inside, text)


def every_line() -> list[Line]:
    """All keys of the file; of those that occur twice, the one that is explained."""
    text = EVERY_KEY.read_text(encoding="utf-8")
    tree, _ = read_yaml(text)
    assert tree is not None
    found = lines(tree, settings_from_tree(tree.value), text.splitlines())
    return list({line.name: line for line in [*found][::-1] if line.comment}.values())


LINES = every_line()


def test_every_key_is_in_the_file() -> None:
    """Each field of each model stands in config/balanceme.yaml, with a comment behind it."""
    fields = {
        f"{model.__name__}.{key}" for model in Model.__subclasses__() for key in model.model_fields
    }
    assert {line.name for line in LINES} == fields


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_every_key_is_explained(line: Line) -> None:
    """Behind a key stand its unit, whether it is a default, and what it does."""
    found = re.fullmatch(
        r"(?P<unit>[^:].*?), (?P<kind>default|required|example): .{5,}", line.comment
    )
    assert found, line.comment
    if line.field.is_required():
        assert found["kind"] == "required"
    elif found["kind"] == "default":
        assert line.value == line.field.default
    else:
        assert found["kind"] == "example"
        assert line.value != line.field.default


def unit(name: str) -> str:
    """A part of what the file has to say about a field's unit; nothing if any words will do."""
    model, _, key = name.partition(".")
    described = schema()
    block = described if model == "Settings" else described["$defs"][model]
    field = block["properties"][key]
    kinds = [field, *field.get("anyOf", ())]
    kinds += [
        described["$defs"][kind["$ref"].rpartition("/")[2]] for kind in kinds if "$ref" in kind
    ]
    for kind in kinds:
        if "enum" in kind:
            first, last = kind["enum"][0], kind["enum"][-1]
            return f"{first}.* or {last}" if first != last else str(first)
        if "(ms|s|m|h|d)" in kind.get("pattern", ""):
            return "duration"
        if "[kmg]" in kind.get("pattern", ""):
            return "size"
        if kind.get("type") in ("boolean", "integer", "number"):
            return "true or false" if kind["type"] == "boolean" else "number"
    return ""


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_every_unit_is_told(line: Line) -> None:
    """The unit in the file is that of the schema; for words, all of them are named."""
    assert re.match(unit(line.name), line.comment)


# --- the schema --------------------------------------------------------------------------------


def test_schema_knows_every_key() -> None:
    """Each field is in the JSON schema with its description, and nothing else is allowed."""
    described = schema()
    assert described["$schema"].startswith("https://json-schema.org/")
    for model in Model.__subclasses__():
        block = described if model is Settings else described["$defs"][model.__name__]
        assert block["additionalProperties"] is False
        assert list(block["properties"]) == list(model.model_fields)
        # A block whose description is its model's says it there.
        fields = block["properties"].values()
        assert all("description" in field or "$ref" in field for field in fields)


def test_schema_writes_defaults_as_the_file_does() -> None:
    """A default in the schema is spelled as one would write it."""
    described = schema()
    member = described["$defs"]["Member"]["properties"]
    assert member["retry_after"]["default"] == "1m"
    assert member["load_factor"]["default"] == 1.0
    assert member["timeouts"]["default"] is None
    balancer = described["$defs"]["Balancer"]["properties"]
    assert balancer["timeouts"]["default"]["activesync"] == "61m"
    assert balancer["failover"]["additionalProperties"] is False


def test_schema_is_the_same_each_time() -> None:
    """Asking for the schema leaves it as it was."""
    assert schema() == schema()
