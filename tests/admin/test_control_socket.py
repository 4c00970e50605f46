"""proxy.admin.control_socket: the path, the rights, and who has it."""

import asyncio
import fcntl
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.admin import control_socket
from proxy.admin.control_socket import ControlSocket, SocketError, default_socket


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """Whatever is made is made with all rights, unless it is made with care."""
    before = os.umask(0)
    yield
    assert os.umask(before) == 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A path for a socket, whose folder is not there yet."""
    return tmp_path / "run" / "control.sock"


def answers(path: Path) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return [path.name for path in folder.iterdir()]


# --- the default path ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "uid", "expected"),
    [
        ({}, 0, "/run/balanceme/control.sock"),
        ({"XDG_RUNTIME_DIR": "/run/user/0"}, 0, "/run/balanceme/control.sock"),
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, 7, "/run/user/7/balanceme/control.sock"),
        ({"BALANCEME_SOCKET": "/a/b.sock", "XDG_RUNTIME_DIR": "/run/user/7"}, 7, "/a/b.sock"),
        ({"BALANCEME_SOCKET": "/a/b.sock"}, 0, "/a/b.sock"),
        ({"BALANCEME_SOCKET": ""}, 0, "/run/balanceme/control.sock"),
        ({"XDG_RUNTIME_DIR": "run"}, 4294967000, "/tmp/balanceme-4294967000/control.sock"),
        ({}, 4294967000, "/tmp/balanceme-4294967000/control.sock"),
    ],
)
def test_default(environ: dict[str, str], uid: int, expected: str) -> None:
    """The variable goes first, then root's folder, the user's own, and one below /tmp."""
    assert default_socket(environ, uid) == Path(expected)


@pytest.mark.parametrize("kind", ["ours", "foreign", "open", "link", "file"])
def test_default_below_tmp(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below /tmp only a folder of one's own, that no one else may enter, is believed."""
    monkeypatch.setattr(control_socket, "_SHARED", tmp_path)
    uid = os.getuid() or 12345
    folder = tmp_path / f"balanceme-{uid + (kind == 'foreign')}"
    if kind == "file":
        folder.touch(mode=0o700)
    elif kind == "link":
        (tmp_path / "other").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "other")
    else:
        folder.mkdir(mode=0o710 if kind == "open" else 0o700)
    if os.getuid() == 0:
        os.chown(folder, uid, -1, follow_symlinks=False)
    if kind == "ours":
        assert default_socket({}, uid) == folder / "control.sock"
    else:
        with pytest.raises(SocketError, match=r"mode 0700; remove it, or give another --socket"):
            default_socket({}, uid + (kind == "foreign"))


# --- making it -----------------------------------------------------------------------------------


async def test_rights(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folder and file are closed to others from the first moment, and only whole ones are seen."""
    seen: list[tuple[int, bool, bool]] = []
    replace = Path.replace

    def watched(temporary: Path, target: Path) -> Path:
        mode = stat.S_IMODE(temporary.lstat().st_mode)
        seen.append((mode, answers(temporary), path.exists()))
        return replace(temporary, target)

    monkeypatch.setattr(Path, "replace", watched)
    with await ControlSocket(path).open(takes_over=False):
        assert seen == [(0o660, True, False)]
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
        assert names(path.parent) == [path.name]
        assert answers(path)


async def test_folder_that_is_there_is_left_as_it_is(path: Path) -> None:
    """The operator's folder keeps its mode, and what lies in it."""
    path.parent.mkdir(mode=0o755)
    (path.parent / "other").touch()
    control = ControlSocket(path)
    with await control.open(takes_over=False):
        await control.remove()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    assert names(path.parent) == ["other"]


async def test_shared_folder(tmp_path: Path) -> None:
    """Where all may write, as in /tmp, a folder is made for its owner alone."""
    tmp_path.chmod(0o1777)
    path = tmp_path / "ours" / "control.sock"
    with await ControlSocket(path).open(takes_over=False):
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.parent.chmod(0o770)
    with pytest.raises(SocketError, match="folder of this user's own with mode 0700"):
        await ControlSocket(path).open(takes_over=True)


@pytest.mark.parametrize("kind", ["file", "folder", "link", "pipe"])
@pytest.mark.parametrize("takes_over", [False, True])
async def test_something_else_is_never_removed(path: Path, kind: str, takes_over: bool) -> None:
    """What isn't a socket may be somebody's data."""
    path.parent.mkdir()
    if kind == "file":
        path.write_text("data")
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(path.parent / "nothing")
    else:
        os.mkfifo(path)
    before = path.lstat()
    with pytest.raises(SocketError, match=r"is there, and is no socket; remove it"):
        await ControlSocket(path).open(takes_over=takes_over)
    assert path.lstat() == before
    assert names(path.parent) == [path.name]


async def test_stale_files_are_replaced(path: Path) -> None:
    """Sockets that a killed supervisor left, in place or on the way there, don't hinder."""
    path.parent.mkdir()
    for left in (path, path.with_name(f".balanceme-{os.getpid()}")):
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(left))
    with await ControlSocket(path).open(takes_over=False):
        assert answers(path)
    assert names(path.parent) == [path.name]


@pytest.mark.parametrize("longer", [0, 1])
async def test_long_path(tmp_path: Path, longer: int) -> None:
    """A path that the system has no room for is refused with its length; the longest works."""
    room = 107 - len(os.fsencode(tmp_path)) - len("/x/control.sock")
    path = tmp_path / ("x" * (room + 1 + longer)) / "control.sock"
    if longer:
        with pytest.raises(SocketError, match=r"has 108 bytes, .* at most 107; give a shorter"):
            await ControlSocket(path).open(takes_over=False)
        assert not path.parent.exists()
    else:
        # The name under which it is bound is no longer than this one.
        path = path.parent.with_name(path.parent.name[8:]) / f"{'y' * 8}{path.name}"
        with await ControlSocket(path).open(takes_over=False):
            assert answers(path)


async def test_missing_parent(tmp_path: Path) -> None:
    """Only the last folder is made; the system's reason is told."""
    path = tmp_path / "a" / "b" / "control.sock"
    with pytest.raises(SocketError, match=rf"no socket can be made at {path}: No such file"):
        await ControlSocket(path).open(takes_over=False)


async def test_relative_path(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts from the folder of the start, wherever the process goes later."""
    path.parent.mkdir()
    monkeypatch.chdir(path.parent)
    control = ControlSocket(Path(path.name))
    monkeypatch.chdir("/")
    with await control.open(takes_over=False):
        assert answers(path)


# --- who has it ----------------------------------------------------------------------------------


async def test_second_one_gives_up(path: Path) -> None:
    """A socket that is answered stays, and the reason names the process and a way out."""
    with await ControlSocket(path).open(takes_over=False):
        with pytest.raises(SocketError) as refused:
            await ControlSocket(path).open(takes_over=False)
        assert str(refused.value) == (
            f"another balanceme, process {os.getpid()}, answers on {path};"
            " stop it, or give this one another --socket"
        )
        assert answers(path)


async def test_busy_one_answers_too(path: Path) -> None:
    """A supervisor that has no time for one more command is not taken for a dead one."""
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(SocketError, match="another balanceme answers"):
            await ControlSocket(path).open(takes_over=False)


async def test_two_that_start_together(path: Path) -> None:
    """Of two that find the same stale file one gets the path, and the other one is told."""
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    stale = path.lstat()
    lock = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    both = [asyncio.create_task(ControlSocket(path).open(takes_over=False)) for _ in range(2)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert path.lstat() == stale
    os.close(lock)
    ended = await asyncio.gather(*both, return_exceptions=True)
    opened = [one for one in ended if isinstance(one, socket.socket)]
    refused = [one for one in ended if isinstance(one, SocketError)]
    assert (len(opened), len(refused)) == (1, 1)
    assert "another balanceme, process" in str(refused[0])
    opened[0].close()


async def test_locked_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who holds the lock and never lets go is told of, and nothing is changed."""
    monkeypatch.setattr(control_socket, "_LOCK_PAUSE", 0)
    path.parent.mkdir()
    lock = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(SocketError, match=f"{path.parent} is locked by another process"):
        await ControlSocket(path).open(takes_over=False)
    os.close(lock)
    assert names(path.parent) == []


async def test_take_over(path: Path) -> None:
    """The successor has the path in one step, and its predecessor leaves it alone."""
    old, new = ControlSocket(path), ControlSocket(path)
    first = await old.open(takes_over=False)
    refused: list[int] = []
    done = threading.Event()

    def knock() -> None:
        while not done.is_set():
            with socket.socket(socket.AF_UNIX) as client:
                # A queue that is full is no refusal.
                code = client.connect_ex(str(path))
                refused.extend([code] if code else [])

    first.listen(10000)
    knocking = threading.Thread(target=knock)
    knocking.start()
    second = await new.open(takes_over=True)
    second.listen(10000)
    await old.remove()
    done.set()
    knocking.join()
    first.close()
    assert refused == []
    assert answers(path)
    await new.remove()
    second.close()
    assert names(path.parent) == []


async def test_take_over_of_nobody(path: Path) -> None:
    """Who was told to take over starts as well if there is nobody any more."""
    with await ControlSocket(path).open(takes_over=True):
        assert answers(path)


async def test_remove(path: Path) -> None:
    """The file goes once, and what came to its place later stays."""
    control = ControlSocket(path)
    with await control.open(takes_over=False):
        await control.remove()
        assert not path.exists()
        path.write_text("another's")
        await control.remove()
    assert path.read_text() == "another's"


async def test_remove_when_the_folder_is_gone(path: Path) -> None:
    """Nothing is left to do if somebody has removed everything."""
    control = ControlSocket(path)
    with await control.open(takes_over=False):
        path.unlink()
        path.parent.rmdir()
        await control.remove()


async def test_remove_that_fails_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that has to stay is in the log, and the stop goes on."""
    control = ControlSocket(path)

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    with await control.open(takes_over=False):
        monkeypatch.setattr(Path, "unlink", refuse)
        await control.remove()
    assert f"{path} could not be removed: " in caplog.text
