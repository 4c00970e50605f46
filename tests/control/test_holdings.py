"""What is opened for workers: all of it, or nothing and every reason why, with real files."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from proxy.control.holdings import Holdings, hold, open_logs, read_keys, stamp_of
from proxy.control.sockets import by_address, close_all
from proxy.core.errors import ConfigError, Mistake
from proxy.core.settings import Settings

HOST = "127.0.0.1"
ISSUED = trustme.CA().issue_cert("proxy.example")
Change = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a certificate in ``proxy.pem``."""
    ISSUED.private_key_and_cert_chain_pem.write_to_path(tmp_path / "proxy.pem")
    (tmp_path / "proxy.pem").chmod(0o600)
    return tmp_path


@pytest.fixture
def ports() -> Iterator[Callable[[], int]]:
    """Free ports, which stay so: who sets SO_REUSEADDR may listen on them."""
    taken: list[socket.socket] = []

    def port() -> int:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((HOST, 0))
        taken.append(sock)
        found: int = sock.getsockname()[1]
        return found

    yield port
    close_all(taken)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program listens on."""
    with socket.create_server((HOST, 0)) as sock:
        yield sock.getsockname()[1]


def settings(folder: Path, *frontends: Change, **top: Any) -> Settings:
    """Frontends with these changes; both logs are files in the folder."""
    return Settings.model_validate(
        {
            "frontends": list(frontends),
            "balancers": {"cluster": {"members": [{"url": "http://server1"}]}},
            "log": {"path": str(folder / "log")},
            "access_log": {"path": str(folder / "access_log")},
            **top,
        }
    )


def listen(port: int, **more: Any) -> Change:
    """A frontend on a port."""
    mappings = [{"path": "/", "balancer": "cluster"}]
    return {"listen": f"{HOST}:{port}", "mappings": mappings, **more}


def tls(file: Path) -> Change:
    """A certificate with its key in one file."""
    return {"tls": {"certificate": str(file)}}


def open_files() -> dict[str, str]:
    """What this process has open, by descriptor."""
    found = {}
    for each in Path("/proc/self/fd").iterdir():
        try:
            found[each.name] = str(each.readlink())
        except FileNotFoundError:
            pass  # it was the one by which we look
    return found


def mistakes(
    wanted: Settings, available: dict[tuple[Any, ...], socket.socket] | None = None
) -> list[Mistake]:
    """What keeps these settings from being held; nothing stays open of what could be."""
    before = open_files()
    with pytest.raises(ConfigError) as caught:
        hold(wanted, available or {})
    assert open_files() == before
    return list(caught.value.mistakes)


# --- all of it ------------------------------------------------------------------------------------


def test_holds_everything(folder: Path, ports: Callable[[], int]) -> None:
    """Each frontend has its socket and its keys, and both logs are open."""
    plain, secure = ports(), ports()
    before = open_files()
    wanted = settings(folder, listen(plain), listen(secure, **tls(folder / "proxy.pem")))
    held = hold(wanted, {})
    assert held.settings is wanted
    assert {name: sock.getsockname()[1] for name, sock in held.sockets.items()} == {
        f"{HOST}:{plain}": plain,
        f"{HOST}:{secure}": secure,
    }
    with socket.create_connection((HOST, secure), timeout=60):
        pass
    assert held.keys[f"{HOST}:{plain}"] == ()
    [material] = held.keys[f"{HOST}:{secure}"]
    assert material.certificate == (folder / "proxy.pem").read_bytes()
    assert held.stamp == stamp_of(wanted)
    assert len(held.stamp) == 1
    os.write(held.logs.log, b"a line\n")
    assert (folder / "log").read_bytes() == b"a line\n"
    assert held.logs.access_log is not None
    os.write(held.logs.access_log, b"another\n")
    assert (folder / "access_log").read_bytes() == b"another\n"
    held.close_but(None)
    assert open_files() == before


def test_no_access_log(folder: Path) -> None:
    """Without an access log there is one descriptor."""
    before = open_files()
    logs = open_logs(settings(folder, listen(1), access_log=None))
    assert logs.access_log is None
    assert logs.files == [logs.log]
    logs.close()
    assert open_files() == before
    assert not (folder / "access_log").exists()


def test_available_sockets_are_used(folder: Path, ports: Callable[[], int]) -> None:
    """A reload goes on with the sockets that are there: no client notices."""
    first, second = ports(), ports()
    former = hold(settings(folder, listen(first)), {})
    after = hold(
        settings(folder, listen(first), listen(second)), by_address(former.sockets.values())
    )
    assert after.sockets[f"{HOST}:{first}"] is former.sockets[f"{HOST}:{first}"]
    former.close_but(after)
    for sock in after.sockets.values():
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    for file in former.logs.files:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(file)
    last = hold(settings(folder, listen(second)), by_address(after.sockets.values()))
    after.close_but(last)
    assert after.sockets[f"{HOST}:{first}"].fileno() == -1
    assert last.sockets[f"{HOST}:{second}"].fileno() != -1
    last.close_but(None)


def test_keys_are_read_once(folder: Path, ports: Callable[[], int]) -> None:
    """Files may change or go afterwards: what is held was read."""
    port = ports()
    wanted = settings(folder, listen(port, **tls(folder / "proxy.pem")))
    held = hold(wanted, {})
    content = (folder / "proxy.pem").read_bytes()
    (folder / "proxy.pem").unlink()
    assert held.keys[f"{HOST}:{port}"][0].certificate == content
    assert stamp_of(wanted) != held.stamp
    held.close_but(None)


# --- or nothing -----------------------------------------------------------------------------------


def test_all_mistakes_at_once(folder: Path, ports: Callable[[], int], taken: int) -> None:
    """An address that is taken, keys that can't be used and logs that can't be opened: all told.

    Each with the place in the file; sockets that could be bound are closed again.
    """
    nowhere = folder / "nowhere"
    (folder / "nonsense.pem").write_text("nonsense")
    wanted = settings(
        folder,
        listen(ports()),
        listen(taken),
        listen(ports(), **tls(nowhere / "proxy.pem")),
        listen(ports(), **tls(folder / "nonsense.pem")),
        log={"path": str(nowhere / "log")},
        access_log={"path": str(folder)},
    )
    found = mistakes(wanted)
    assert {mistake.path for mistake in found} == {
        ("frontends", 1, "listen"),
        ("frontends", 2, "tls"),
        ("frontends", 3, "tls"),
        ("log", "path"),
        ("access_log", "path"),
    }
    told = {mistake.path: mistake.message for mistake in found}
    assert (
        told["frontends", 1, "listen"] == f"can't listen on {HOST}:{taken}: Address already in use"
    )
    assert told["frontends", 2, "tls"] == f"No such file or directory: {nowhere / 'proxy.pem'}"
    assert "hold no certificate and key" in told["frontends", 3, "tls"]
    assert told["log", "path"].startswith(f"{nowhere / 'log'} can't be written: No such file")
    assert told["access_log", "path"].startswith(f"{folder} can't be written: Is a directory")


@pytest.mark.parametrize("wrong", ["address", "key", "log", "access_log"])
def test_one_mistake(wrong: str, folder: Path, ports: Callable[[], int], taken: int) -> None:
    """Whatever is wrong alone, all that could be had is let go of again."""
    key = folder / ("none.pem" if wrong == "key" else "proxy.pem")
    frontends = [listen(taken if wrong == "address" else ports()), listen(ports(), **tls(key))]
    top = {}
    if wrong in ("log", "access_log"):
        top = {wrong: {"path": str(folder / "nowhere" / "file")}}
    [_] = mistakes(settings(folder, *frontends, **top))


def test_what_was_available_stays(folder: Path, ports: Callable[[], int], taken: int) -> None:
    """A reload that fails leaves the sockets open that serve."""
    port = ports()
    held = hold(settings(folder, listen(port)), {})
    available = by_address(held.sockets.values())
    wanted = settings(folder, listen(port), listen(ports()), listen(taken))
    [mistake] = mistakes(wanted, available)
    assert mistake.path == ("frontends", 2, "listen")
    [mistake] = mistakes(settings(folder, listen(port), log={"path": str(folder)}), available)
    assert mistake.path == ("log", "path")
    with socket.create_connection((HOST, port), timeout=60):
        pass
    held.close_but(None)


def test_key_of_another(folder: Path) -> None:
    """A key that doesn't belong to its certificate is found before any worker has it."""
    other = folder / "other.key"
    trustme.CA().issue_cert("other.example").private_key_pem.write_to_path(other)
    files = {"certificate": str(folder / "proxy.pem"), "key": str(other)}
    with pytest.raises(ConfigError, match="does not belong to the certificate") as caught:
        read_keys(settings(folder, listen(1, tls=files)))
    assert [mistake.path for mistake in caught.value.mistakes] == [("frontends", 0, "tls")]


def test_shows_no_key(folder: Path, ports: Callable[[], int]) -> None:
    """Nothing that is printed of it tells a key."""
    held = hold(settings(folder, listen(ports(), **tls(folder / "proxy.pem"))), {})
    assert isinstance(held, Holdings)
    assert "PRIVATE" not in repr(held)
    held.close_but(None)
