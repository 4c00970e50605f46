"""Failover files as a cluster manager writes them: real files, looked at as the supervisor does."""

import os
from pathlib import Path
from typing import Any

import pytest

from proxy.control import failover_watch
from proxy.control.failover_watch import LARGEST_FILE, MOST_TOLD, FailoverFiles, Reading
from proxy.core.settings import Settings

STAYS = "what it said before stays in force"


def settings(file: Path | str | None, *, count: int = 3, **others: Any) -> Settings:
    """Settings of one balancer with so many members."""
    members = [
        {"url": f"http://server{n}.zarafa.com", "route": f"server{n}"} for n in range(1, count + 1)
    ]
    name = None if file is None else str(file)
    balancer = {"members": members, "sticky_session": "BALANCEME", "failover_file": name}
    return Settings.model_validate(
        {
            "frontends": [
                {"listen": "127.0.0.1:80", "mappings": [{"path": "/", "balancer": "cluster"}]}
            ],
            "balancers": {"cluster": {**balancer, "session_cookie": {}, **others}},
        }
    )


def news(files: FailoverFiles) -> list[Reading]:
    """What is new once a changed file has stood still for a look."""
    assert files.look() == []
    found = files.look()
    assert files.look() == []
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that says nobody."""
    path = tmp_path / "failover.yaml"
    path.write_text("{}\n")
    path.chmod(0o644)
    return path


@pytest.fixture
def files(file: Path) -> FailoverFiles:
    """The file, looked at until it is known."""
    watched = FailoverFiles(settings(file))
    assert watched.look() == [Reading("cluster", {})]
    assert watched.look() == []
    return watched


def changed(to: dict[str, str], text: str = "") -> list[Reading]:
    """The only news: this map."""
    return [Reading("cluster", to, text)]


# --- changes -----------------------------------------------------------------------------------


def test_first_look(file: Path) -> None:
    """What a file says at the start counts at the first look."""
    file.write_text("server2: server1\n")
    files = FailoverFiles(settings(file))
    assert files.maps == {"cluster": {}}
    assert files.look() == changed({"server2": "server1"})
    assert files.maps == {"cluster": {"server2": "server1"}}
    assert [files.look(), files.look()] == [[], []]


def test_no_file() -> None:
    """A balancer without failover_file has no news."""
    files = FailoverFiles(settings(None))
    assert files.look() == []
    assert files.maps == {}


def test_rename_into_place(file: Path, files: FailoverFiles) -> None:
    """A file that takes the place of another one is seen, though it is as long and as old."""
    before = file.stat()
    file.write_text("server2: server1\n")
    assert news(files) == changed({"server2": "server1"})
    other = file.with_name("new")
    other.write_text("server3: server1\n")
    os.utime(other, ns=(before.st_mtime_ns, before.st_mtime_ns))
    os.utime(file, ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert news(files) == []
    other.rename(file)
    assert news(files) == changed({"server3": "server1"})


def test_rewrite_in_place(file: Path, files: FailoverFiles) -> None:
    """Other text of the same length is seen, even with the time of modification put back."""
    file.write_text("server2: server1\n")
    assert news(files) == changed({"server2": "server1"})
    before = file.stat()
    with file.open("r+") as stream:
        stream.write("server2: server3\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert news(files) == changed({"server2": "server3"})


def test_symlink_switched(file: Path) -> None:
    """A link that leads to another file is seen."""
    link, other = file.with_name("link"), file.with_name("other")
    other.write_text("server2: server1\n")
    link.symlink_to(file)
    files = FailoverFiles(settings(link))
    assert files.look() == changed({})
    assert files.look() == []
    switched = file.with_name("switched")
    switched.symlink_to(other)
    switched.rename(link)
    assert news(files) == changed({"server2": "server1"})


def test_half_written(file: Path, files: FailoverFiles) -> None:
    """Nothing is taken or said of a file that changes from look to look, but of its end."""
    file.write_text("server2: server1\nserver3: server1\n")
    assert news(files) == changed({"server2": "server1", "server3": "server1"})
    text = "server2: server1\nserver3: server1\n# the end\n"
    for end in range(0, len(text), 7):
        file.write_text(text[:end])
        assert files.look() == []
    file.write_text("server2: server1\n")
    assert news(files) == changed({"server2": "server1"})


def test_written_while_first_read(file: Path) -> None:
    """What is written right behind the first look is not missed."""
    files = FailoverFiles(settings(file))
    assert files.look() == changed({})
    file.write_text("server2: server1\n")
    assert news(files) == changed({"server2": "server1"})


def test_written_while_read(
    file: Path, files: FailoverFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read while somebody wrote doesn't count."""
    file.write_text("server2: server1\n")
    assert files.look() == []
    read = failover_watch._read

    def read_beside_a_writer(path: str) -> Any:
        with file.open("a") as stream:
            stream.write("server3: server1\n")
        return read(path)

    monkeypatch.setattr(failover_watch, "_read", read_beside_a_writer)
    assert files.look() == []
    monkeypatch.undo()
    assert news(files) == changed({"server2": "server1", "server3": "server1"})


def test_same_content(file: Path, files: FailoverFiles) -> None:
    """A file that is written anew with what it said before is no news."""
    file.write_text("{}\n")
    assert news(files) == []


def test_rules(file: Path, files: FailoverFiles) -> None:
    """An Apache include is read, and its notice said once."""
    pair = (
        "RewriteCond %{HTTP_COOKIE} BALANCEME=(Balancer.server2)\n"
        "RewriteRule .* - [CO=BALANCEME:Balancer.server1:zarafa.com:60]\n"
    )
    file.write_text(pair)
    [found] = news(files)
    assert found.map == {"server2": "server1"}
    assert found.text.startswith(f'{file}: line 1: found "Balancer.server2" where cookies begin')
    file.write_text(pair)
    assert news(files) == []


# --- what can't be used ------------------------------------------------------------------------


def test_mistakes(file: Path, files: FailoverFiles) -> None:
    """A file with a mistake changes nothing, and says so once with file and lines."""
    file.write_text("server2: server1\n")
    assert news(files) == changed({"server2": "server1"})
    text = "server3: server1\nserver2: sever1\nserver9: server1\n"
    file.write_text(text)
    [found] = news(files)
    assert found.map is None
    assert [line.partition(", a route")[0] for line in found.text.splitlines()] == [
        f'{file}: line 2, column 10: found "sever1"',
        f'{file}: line 3, column 1: found "server9"',
        f"{file}: {STAYS}",
    ]
    file.write_text(text)
    assert news(files) == []
    file.chmod(0o646)
    [found] = news(files)
    assert found.map == {"server2": "server1"}
    assert "sever1" not in found.text
    assert files.maps == {"cluster": {"server2": "server1"}}
    file.write_text("server3: server1\n")
    assert news(files) == changed({"server3": "server1"})


def test_many_mistakes(file: Path, files: FailoverFiles) -> None:
    """Of a file of nothing but mistakes the first ones are told."""
    file.write_text("RewriteRule\n" * 1000)
    [found] = news(files)
    assert found.map is None
    assert len(found.text.splitlines()) == MOST_TOLD + 2
    assert f"{1000 - MOST_TOLD} mistakes more" in found.text


def test_missing_at_the_start(file: Path) -> None:
    """Without a file at the start nobody's sessions are taken over, and that is said."""
    file.unlink()
    files = FailoverFiles(settings(file))
    said = "there is no such file; until there is, nobody's sessions are taken over"
    assert files.look() == changed({}, f"{file}: {said}")
    assert files.look() == []
    file.write_text("server2: server1\n")
    assert news(files) == changed({"server2": "server1"})


def test_gone_later(file: Path, files: FailoverFiles) -> None:
    """A file that goes takes nothing back; that is said once, and the file may come again."""
    file.write_text("server2: server1\n")
    assert news(files) == changed({"server2": "server1"})
    file.unlink()
    assert news(files) == [Reading("cluster", None, f"{file}: there is no such file; {STAYS}")]
    assert files.maps == {"cluster": {"server2": "server1"}}
    file.write_text("server2: server1\n")
    assert news(files) == changed({"server2": "server1"})


def test_gone_between_two_looks(file: Path, files: FailoverFiles) -> None:
    """Whoever removes a file first and writes it then causes no warning."""
    file.unlink()
    assert files.look() == []
    file.write_text("server2: server1\n")
    assert news(files) == changed({"server2": "server1"})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"server2: \xff", "line 1: not UTF-8: found the byte 0xFF; save the file as UTF-8"),
        (b"#" * (LARGEST_FILE + 1), f"it is larger than {LARGEST_FILE} bytes"),
        (b"{}\x00", "line 1, column 3: not YAML: found the control character U+0000; remove it"),
    ],
)
def test_unfit_content(file: Path, files: FailoverFiles, data: bytes, said: str) -> None:
    """What is no text, or too much of it, is refused."""
    file.write_bytes(data)
    [found] = news(files)
    assert found.map is None
    assert found.text.startswith(f"{file}: {said}")
    assert found.text.endswith(STAYS)


def test_largest_file(file: Path, files: FailoverFiles) -> None:
    """The largest file is read to its end."""
    entry = b"\nserver2: server1\n"
    file.write_bytes(b"#" * (LARGEST_FILE - len(entry)) + entry)
    assert news(files) == changed({"server2": "server1"})


def test_no_plain_file(file: Path, files: FailoverFiles) -> None:
    """A pipe isn't waited for, nor is a folder read."""
    file.unlink()
    os.mkfifo(file, 0o600)
    assert news(files) == [Reading("cluster", None, f"{file}: it is no plain file; {STAYS}")]
    file.unlink()
    file.mkdir()
    assert news(files) == []
    file.rmdir()
    file.symlink_to(file.name)
    [found] = news(files)
    assert found.map is None
    assert "it can't be read: Too many levels of symbolic links" in found.text


def test_not_readable(file: Path, files: FailoverFiles) -> None:
    """A file that may not be read says so."""
    file.chmod(0)
    we_are = os.geteuid()
    # root may read everything
    os.seteuid(we_are or 65534)
    try:
        [found] = news(files)
    finally:
        os.seteuid(we_are)
    assert found.map is None
    assert "it can't be read: Permission denied" in found.text


# --- who may write -----------------------------------------------------------------------------


def test_others_may_write(file: Path, files: FailoverFiles) -> None:
    """If anybody but its owner may write to the file, that is said once; reading is harmless."""
    file.chmod(0o646)
    said = f"{file}: everybody may write to it (mode 0646); chmod go-w leaves that to its owner"
    assert news(files) == changed({}, said)
    file.write_text("server2: server1\n")
    assert news(files) == changed({"server2": "server1"})
    file.chmod(0o644)
    assert news(files) == []


def test_a_group_may_write(file: Path, files: FailoverFiles) -> None:
    """A group's right to write is told, unless it is root's."""
    if os.getuid() == 0:
        os.chown(file, -1, 1)
    file.chmod(0o664)
    group = file.stat().st_gid
    [found] = news(files)
    assert f"{file}: group {group} may write to it (mode 0664)" in found.text


def test_others_may_replace(file: Path) -> None:
    """A folder in which anybody may replace the file is told as well, a sticky one is not."""
    file.parent.chmod(0o777)
    [found] = FailoverFiles(settings(file)).look()
    assert "everybody may write to its folder (mode 0777)" in found.text
    file.parent.chmod(0o1777)
    assert FailoverFiles(settings(file)).look() == changed({})


# --- other settings ----------------------------------------------------------------------------


def test_reload_keeps_what_is_known(file: Path, files: FailoverFiles) -> None:
    """After a reload that doesn't concern the file nothing is read or said again."""
    file.write_text("server2: server9\n")
    assert len(news(files)) == 1
    files.configure(settings(file))
    assert [files.look(), files.look()] == [[], []]


def test_reload_with_other_members(file: Path, files: FailoverFiles) -> None:
    """A map is read by the members that there are now."""
    file.write_text("server2: server1\nserver3: server1\n")
    assert news(files) == changed({"server2": "server1", "server3": "server1"})
    files.configure(settings(file, count=2))
    assert files.maps == {"cluster": {"server2": "server1"}}
    [found] = files.look()
    assert found.map is None
    assert 'line 2, column 1: found "server3", a route that no member has' in found.text
    assert files.look() == []
    assert files.maps == {"cluster": {"server2": "server1"}}
    files.configure(settings(file))
    assert files.look() == changed({"server2": "server1", "server3": "server1"})


def test_reload_into_a_circle(file: Path, files: FailoverFiles) -> None:
    """No circle is in force at any time, not even between a reload and the next look."""
    file.write_text("server2: server1\n")
    assert news(files) == changed({"server2": "server1"})
    files.configure(settings(file, failover={"server1": "server2"}))
    assert files.maps == {"cluster": {}}
    [found] = files.look()
    assert found.map is None
    assert "found a circle: server2 -> server1 -> server2" in found.text


def test_reload_to_another_file(file: Path, files: FailoverFiles) -> None:
    """Another file's word counts at the next look, and that of the former one until then."""
    file.write_text("server2: server1\n")
    assert news(files) == changed({"server2": "server1"})
    other = file.with_name("other.yaml")
    other.write_text("server3: server1\n")
    files.configure(settings(other))
    assert files.maps == {"cluster": {"server2": "server1"}}
    assert files.look() == changed({"server3": "server1"})
    files.configure(settings(None))
    assert files.look() == []
    assert files.maps == {}
