"""The demo: every line it prints works when pasted, and shows what it says."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def free_ports(count: int) -> range:
    """Ports side by side that were free a moment ago, and that the kernel gives to nobody."""
    for first in range(20000 + os.getpid() % 10000, 32000, count):
        ports = range(first, first + count)
        with ExitStack() as stack:
            try:
                for port in ports:
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
        return ports
    pytest.fail("no free ports")


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[str]:
    """What a running demo printed."""
    https, http, control, member, _ = free_ports(5)
    options = zip(
        ("--port", "--http-port", "--control-port", "--member-port"),
        (https, http, control, member),
        strict=True,
    )
    # The name of a control socket has at most 107 bytes.
    short = Path("/tmp") / f"balanceme-demo-{os.getpid()}"
    short.unlink(missing_ok=True)
    short.symlink_to(tmp_path)
    command = [sys.executable, "-m", "proxy", "demo", *(str(x) for pair in options for x in pair)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(short)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "serving on" in line:
                break
        # The access log follows on the same stream.
        printed = []
        for line in process.stdout:
            printed.append(line)
            if "/start" in line:
                printed.append(process.stdout.readline())
                break
        yield "".join(printed)
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=30)
        short.unlink()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_upgrade(demo: str) -> None:
    """The demo goes on with the program that follows, and leaves none behind in the end."""
    folder = Path(re.findall(r"--cacert (\S+)/ca.pem", demo)[0])
    command = [sys.executable, "-m", "proxy", "upgrade", "--socket", str(folder / "control.sock")]
    pids = []
    for _ in range(2):
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        pids += re.findall(r"^upgraded: process (\d+) ", done.stdout)
    assert len(set(pids)) == 2


@pytest.mark.slow
def test_everything_printed_works(demo: str) -> None:
    """The lines, pasted as they are, show a kept session, its move, and its new cookie."""
    if shutil.which("curl") is None and "CI" not in os.environ:
        pytest.skip("curl is not installed")
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail"],
        input=demo,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"^(server[12]): request (\d+)", done.stdout, re.MULTILINE)
    # Twice on one member; then on the other one, twice, though the first is back.
    assert [number for _, number in lines] == ["1", "2", "1", "2"]
    first, again, moved, stayed = (name for name, _ in lines)
    assert first == again != moved == stayed
    assert re.findall(r"balancer\.(server[12])$", done.stdout, re.MULTILINE) == [first, moved]
    assert "MS-ASProtocolVersions" in done.stdout
    assert "20971520 bytes" in done.stdout
    assert "hello" in done.stdout
