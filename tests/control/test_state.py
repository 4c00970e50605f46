"""The pid file and the state folder, with real files, processes and a full disk."""

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.control.state import PidFile, load_state, open_folder, save_state
from proxy.core.errors import ConfigError

# A child of these tests does little, and ends; Python 3.12 warns where other tests left threads.
pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)

OURS = f"{os.getpid()}\n"


def refusal(path: Path | str) -> str:
    """Why a pid file can't be taken."""
    with pytest.raises(ConfigError) as caught:
        PidFile(str(path))
    [mistake] = caught.value.mistakes
    assert mistake.path == ("pid_file",)
    return mistake.message


HOLD = """\
import sys
from proxy.control.state import PidFile
taken = PidFile(sys.argv[1])
print(flush=True)
if sys.stdin.readline() == "remove":
    taken.remove()
"""


@contextmanager
def another(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another balanceme that holds a pid file, until it is told to end."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        yield process


# --- the pid file ------------------------------------------------------------------------------


def test_pid_file(tmp_path: Path) -> None:
    """It holds our process id, everybody may read it whatever the umask, and it goes with us."""
    path = tmp_path / "balanceme.pid"
    umask = os.umask(0o077)
    taken = PidFile(str(path))
    os.umask(umask)
    assert path.read_text() == OURS
    assert path.stat().st_mode & 0o777 == 0o644
    assert [*tmp_path.iterdir()] == [path]
    taken.remove()
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "content", ["", "1\n", "4711", OURS], ids=["empty", "one", "no line", "ours"]
)
def test_stale_pid_file(content: str, tmp_path: Path) -> None:
    """What a dead balanceme left is replaced, even if its process id is another's by now."""
    path = tmp_path / "balanceme.pid"
    path.write_text(content)
    taken = PidFile(str(path))
    assert path.read_text() == OURS
    taken.remove()


def test_pid_file_of_a_living_one(tmp_path: Path) -> None:
    """A balanceme that still runs keeps its file, and is named with what to do."""
    path = tmp_path / "balanceme.pid"
    with another(path) as process:
        assert refusal(path) == (
            f"{path} belongs to a balanceme that runs as process {process.pid}; end it first"
            f" (kill {process.pid}), or give this one a file of its own"
        )
        assert path.read_text() == f"{process.pid}\n"
        assert [*tmp_path.iterdir()] == [path]
        process.kill()
    # Killed, it left its file; the lock went with the process.
    PidFile(str(path)).remove()


def test_pid_file_in_an_upgrade(tmp_path: Path) -> None:
    """The new program takes the file from the one it follows, which leaves it alone then."""
    path = tmp_path / "balanceme.pid"
    with another(path) as process:
        taken = PidFile(str(path), predecessor=process.pid)
        process.communicate("remove")
    assert process.returncode == 0
    assert path.read_text() == OURS
    taken.remove()


def test_only_the_upgrade_may(tmp_path: Path) -> None:
    """A new program doesn't take the file of any other balanceme than the one it follows."""
    path = tmp_path / "balanceme.pid"
    with another(path) as process:
        with pytest.raises(ConfigError):
            PidFile(str(path), predecessor=1)
        process.communicate("")


def test_workers_neither_hold_nor_remove_it(tmp_path: Path) -> None:
    """A worker that outlives its supervisor doesn't block the next one, nor take its file away."""
    path = tmp_path / "balanceme.pid"
    taken = PidFile(str(path))
    process = os.fork()
    if process == 0:
        taken.remove()
        os._exit(0)
    os.waitpid(process, 0)
    assert path.exists()
    # A fork has the descriptor, and not the lock: a second one finds it locked by us.
    process = os.fork()
    if process == 0:
        try:
            PidFile(str(path))
        except ConfigError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 7
    taken.remove()


def test_pid_file_that_was_removed(tmp_path: Path) -> None:
    """Somebody else's rm is no error at the end."""
    path = tmp_path / "balanceme.pid"
    taken = PidFile(str(path))
    path.unlink()
    taken.remove()


def test_pid_file_that_became_anothers(tmp_path: Path) -> None:
    """A file that was put in place of ours stays."""
    path = tmp_path / "balanceme.pid"
    taken = PidFile(str(path))
    path.unlink()
    path.write_text(OURS)
    taken.remove()
    assert path.exists()


@pytest.mark.parametrize("content", ["root:x:0:0:root", "12 34", "-5", "1" * 30])
def test_file_that_is_none(content: str, tmp_path: Path) -> None:
    """A slip of the pen doesn't cost the file that it names."""
    path = tmp_path / "passwd"
    path.write_text(content)
    assert refusal(path).startswith(f"{path} is no pid file: ")
    assert path.read_text() == content


def test_names_that_cant_be_used(tmp_path: Path) -> None:
    """A missing folder is told with its remedy, a folder and a link are no files."""
    missing = tmp_path / "run" / "balanceme.pid"
    assert "No such file or directory; make the folder" in refusal(missing)
    assert refusal(tmp_path) == f"{tmp_path} can't be written: Is a directory"
    link = tmp_path / "link"
    link.symlink_to("/etc/passwd")
    assert refusal(link) == f"{link} can't be written: Too many levels of symbolic links"
    assert [*tmp_path.iterdir()] == [link]


# --- the state folder --------------------------------------------------------------------------


def folder_refusal(path: Path) -> str:
    """Why a folder can't be used."""
    with pytest.raises(ConfigError) as caught:
        open_folder(str(path))
    [mistake] = caught.value.mistakes
    assert mistake.path == ("state_folder",)
    return mistake.message.removeprefix(f"{path} ")


def test_folder_is_made(tmp_path: Path) -> None:
    """A folder that isn't there is made for us and our group, and found the next time."""
    path = tmp_path / "state"
    assert open_folder(str(path)) == path
    assert path.stat().st_mode & 0o777 == 0o750
    assert open_folder(str(path)) == path


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o752, 0o702])
def test_folder_that_others_can_write_to(mode: int, tmp_path: Path) -> None:
    """A folder that everybody may write to is refused, for what is read from it is believed."""
    path = tmp_path / "state"
    path.mkdir()
    path.chmod(mode)
    told = f"can be written by others (mode {mode:04o}); chmod 750 {path}"
    assert folder_refusal(path) == told


def test_folder_of_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another group's right to write is refused, our own group's is ours."""
    path = tmp_path / "state"
    path.mkdir()
    path.chmod(0o770)
    assert open_folder(str(path)) == path
    monkeypatch.setattr(os, "getegid", lambda: 4711)
    assert "mode 0770" in folder_refusal(path)


def test_folder_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner could put anything there, were it the user that workers run as."""
    path = tmp_path / "state"
    path.mkdir()
    if os.geteuid() == 0:
        os.chown(path, 4711, -1)
        owner = 4711
    else:
        owner = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert folder_refusal(path).startswith(f"belongs to user {owner}, who could forge")


def test_folder_that_is_none(tmp_path: Path) -> None:
    """A file, and a name below nothing, are told."""
    file = tmp_path / "state"
    file.touch()
    assert folder_refusal(file) == "is no folder"
    assert folder_refusal(tmp_path / "a" / "b") == "can't be used: No such file or directory"


def test_folder_that_cant_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that we may not write to is told at the start and not with the first save."""
    monkeypatch.setattr(os, "access", lambda *_, **__: False)  # root may write anywhere
    assert folder_refusal(tmp_path).startswith("can't be written by user ")


# --- what is saved -----------------------------------------------------------------------------


def test_saved_and_loaded(tmp_path: Path) -> None:
    """What was saved last is loaded, and only that is there."""
    assert load_state(tmp_path, "cluster.json", json.loads) is None
    assert save_state(tmp_path, "cluster.json", b"[1]")
    assert save_state(tmp_path, "cluster.json", b"[2]")
    assert load_state(tmp_path, "cluster.json", json.loads) == [2]
    assert [*tmp_path.iterdir()] == [tmp_path / "cluster.json"]
    assert (tmp_path / "cluster.json").stat().st_mode & 0o777 == 0o640


def test_everything_reaches_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is on the disk before its name is, and then the name."""
    told: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        told.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def watched_replace(*names: str) -> None:
        told.append("replace")
        replace(*names)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    assert save_state(tmp_path, "a", b"x")
    assert told == [f".a.{os.getpid()}", "replace", tmp_path.name]


def test_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without room for the new state the old one stays, and it is said."""
    assert save_state(tmp_path, "a", b"old")
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        saved = save_state(tmp_path, "a", b"x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not saved
    assert load_state(tmp_path, "a", bytes) == b"old"
    assert [*tmp_path.iterdir()] == [tmp_path / "a"]
    assert "can't be saved, what it held before stays: File too large" in caplog.text


def test_disk_that_fails_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk may say only at the end that it had no room."""
    assert save_state(tmp_path, "a", b"old")

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    assert not save_state(tmp_path, "a", b"new")
    assert load_state(tmp_path, "a", bytes) == b"old"
    assert [*tmp_path.iterdir()] == [tmp_path / "a"]
    assert "No space left on device" in caplog.text


def test_folder_that_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing that happens to the folder stops us."""
    assert not save_state(tmp_path / "gone", "a", b"")
    assert "No such file or directory" in caplog.text


def test_leftover_of_a_crash(tmp_path: Path) -> None:
    """What a process of the same id left half written is no obstacle."""
    (tmp_path / f".a.{os.getpid()}").write_bytes(b"half")
    assert save_state(tmp_path, "a", b"whole")
    assert [*tmp_path.iterdir()] == [tmp_path / "a"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_damaged_file(content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that can't be read is kept under another name, and we start without it."""
    (tmp_path / "a").write_bytes(content)
    assert load_state(tmp_path, "a", json.loads) is None
    assert [*tmp_path.iterdir()] == [tmp_path / "a.damaged"]
    assert (tmp_path / "a.damaged").read_bytes() == content
    assert f"it is set aside as {tmp_path / 'a.damaged'}" in caplog.text


def test_damaged_file_that_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What can't even be set aside is no reason not to start."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a.damaged").touch()
    assert load_state(tmp_path, "a", json.loads) is None
    assert "can't be used (Is a directory), nor set aside: Not a directory" in caplog.text


def test_half_of_a_file_goes(tmp_path: Path) -> None:
    """What a process that was killed had half written doesn't stay for years."""
    save_state(tmp_path, "members.json", b"{}")
    for name in (".members.json.4711", ".members.json.4712", ".other.4711", "members.json.damaged"):
        (tmp_path / name).write_bytes(b"half")
    assert load_state(tmp_path, "members.json", bytes) == b"{}"
    kept = {".other.4711", "members.json", "members.json.damaged"}
    assert {each.name for each in tmp_path.iterdir()} == kept
