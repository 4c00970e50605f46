"""proxy.lab.demo: what stands around the proxy in a demonstration."""

import shlex
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from proxy.core.settings import Settings, Tls
from proxy.lab.demo import Demo, DemoError


def free_ports() -> tuple[int, int]:
    """Two ports that were free a moment ago."""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        return one.getsockname()[1], other.getsockname()[1]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's folder is made in the test's own, with a blank in its name."""
    folder = tmp_path / "a place"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def demo() -> Iterator[Demo]:
    """A demo under way, without a proxy."""
    https_port, http_port = free_ports()
    with Demo(https_port, http_port, (0, 0), 0) as demo:
        yield demo


def test_configuration_is_valid(demo: Demo) -> None:
    """The proxy's settings take the configuration, and it says what the demo is about."""
    settings = Settings.model_validate(yaml.safe_load(demo.config_path.read_text()))
    balancer = settings.balancers["cluster"]
    assert balancer.sticky_session == "BALANCEME"
    assert [member.route for member in balancer.members] == ["server1", "server2"]
    assert settings.frontends[0].listen == f"127.0.0.1:{demo.https_port}"
    assert settings.frontends[0].mappings[0].upgrade == ("websocket",)
    assert settings.frontends[1].redirect_to_https
    for member in balancer.members:
        with urllib.request.urlopen(member.url + "/", timeout=10) as response:
            assert response.headers["X-Member"] == member.route


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_certificate_is_trusted(demo: Demo, name: str) -> None:
    """A client that trusts the demo's authority trusts the proxy under each local name."""
    settings = Settings.model_validate(yaml.safe_load(demo.config_path.read_text()))
    certificate = settings.frontends[0].tls
    assert isinstance(certificate, Tls)
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(certificate.certificate)
    trusting = ssl.create_default_context(cafile=demo.ca_path)
    handshake(trusting, served, name)


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    """A TLS handshake in memory; raises ssl.SSLError if the client doesn't trust the server."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(5):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert all(end.cipher() for end in ends)


def test_folder_is_ours_alone_and_goes(temporary: Path) -> None:
    """The key is in a folder that others can't read, and the folder goes with the demo."""
    https_port, http_port = free_ports()
    with Demo(https_port, http_port, (0, 0), 0) as demo:
        assert demo.folder == temporary / f"balanceme-demo-{https_port}"
        assert demo.folder.stat().st_mode & 0o777 == 0o700
        assert (demo.folder / "localhost.pem").stat().st_mode & 0o777 == 0o600
    assert not demo.folder.exists()


def test_leftover_is_replaced(temporary: Path) -> None:
    """What a demo left that was killed doesn't hinder the next."""
    https_port, http_port = free_ports()
    leftover = temporary / f"balanceme-demo-{https_port}"
    leftover.mkdir()
    (leftover / "cookies").touch()
    with Demo(https_port, http_port, (0, 0), 0) as demo:
        assert not (demo.folder / "cookies").exists()


def test_foreign_folder_is_refused(temporary: Path) -> None:
    """Somebody else's link in the place of the folder is neither followed nor removed."""
    https_port, http_port = free_ports()
    link = temporary / f"balanceme-demo-{https_port}"
    link.symlink_to(temporary)
    with pytest.raises(DemoError, match="is not ours"), Demo(https_port, http_port, (0, 0), 0):
        pass
    assert link.is_symlink()


@pytest.mark.parametrize(("index", "option"), [(0, "--port"), (1, "--http-port")])
def test_busy_port_is_named(temporary: Path, index: int, option: str) -> None:
    """A port that the proxy would need is asked for before anything is started."""
    ports = free_ports()
    with socket.create_server(("127.0.0.1", ports[index])):
        expected = rf"port {ports[index]} .*in use.*with {option}$"
        with pytest.raises(DemoError, match=expected), Demo(*ports, control_port=0):
            pass
    assert not list(temporary.iterdir())


def test_busy_member_port_leaves_nothing(temporary: Path) -> None:
    """A demo that can't start its members takes its folder away again."""
    https_port, http_port = free_ports()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = (0, taken.getsockname()[1])
        with pytest.raises(DemoError, match="--member-port"), Demo(https_port, http_port, ports, 0):
            pass
    assert not list(temporary.iterdir())


def test_missing_trustme_names_the_remedy(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the demo says how to install it, and leaves nothing."""
    monkeypatch.setitem(sys.modules, "trustme", None)
    https_port, http_port = free_ports()
    expected = r"pip install 'balanceme\[demo\]'"
    with pytest.raises(DemoError, match=expected), Demo(https_port, http_port, (0, 0), 0):
        pass
    assert not list(temporary.iterdir())


def test_welcome_is_a_shell_script(demo: Demo) -> None:
    """Every line is a comment or a command; pasting them all at once works as well."""
    checked = subprocess.run(["sh", "-n"], input=demo.welcome(), text=True, check=False)
    assert checked.returncode == 0
    for line in demo.welcome().splitlines():
        if line and not line.startswith("#"):
            assert shlex.split(line)[0] in ("curl", "grep", sys.executable)


def test_welcome_has_no_quotes_in_comments(demo: Demo) -> None:
    """A shell that takes comments only in scripts must not wait for a closing quotation mark."""
    comments = [line for line in demo.welcome().splitlines() if line.startswith("#")]
    assert not any(mark in line for line in comments for mark in "'\"`$;|&<>")


def test_welcome_stops_the_member_of_the_session(demo: Demo) -> None:
    """The stop command reads the route from the cookie jar; the start command undoes it."""
    fields = "#HttpOnly_localhost\tFALSE\t/\tTRUE\t1795504812\tBALANCEME\tbalancer.server2\n"
    (demo.folder / "cookies").write_text(fields)
    commands = [line for line in demo.welcome().splitlines() if "-X POST" in line]
    outputs = [
        subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout
        for line in commands
    ]
    assert [output.count("stopped") for output in outputs] == [1, 0]
    assert outputs[0].startswith("server1 running")
