"""balanceme as an installed program: one that a test replaces by another version, and upgrades.

Its processes come and go, so they are known by the path of its script, which is this test's alone.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.admin import client
from tests.end_to_end.conftest import PATIENCE, ROOT, Launcher, Proxy, Yaml, until

_START = 20.0
_SCRIPT = """\
import sys
sys.path.insert(0, {root!r})
{first}
from proxy.cli import main
sys.exit(main())
"""


class Program(Proxy):
    """Supervisors and workers of one script and one configuration file."""

    def __init__(self, folder: Path, settings: Yaml, first: str = "") -> None:
        super().__init__(folder, settings)
        self.folder = folder
        self.script = folder / "balanceme.py"
        self.install(first)
        self._told: set[int] = set()

    def install(self, first: str = "") -> None:
        """Put another version in the place of this one, which runs the lines ``first``."""
        self.script.write_text(_SCRIPT.format(root=str(ROOT), first=first))

    def configure(self, **top: object) -> None:
        """Write the configuration file with other words in it."""
        self.settings = {**self.settings, **top}
        self.config.write_text(yaml.safe_dump(self.settings, sort_keys=False))

    # --- its processes -------------------------------------------------------------------------

    def launch(
        self, environ: Mapping[str, str] | None = None, words: Sequence[str] = (), **others: Any
    ) -> "Program":
        """Run it, and don't wait; behind the command ``words`` if there are."""
        if not self.config.exists():
            self.configure()
        with self._stdout.open("ab") as out, self._stderr.open("ab") as err:
            command = [*words, sys.executable, str(self.script), "run", str(self.config)]
            command += ["--socket", str(self.socket)]
            environ = {**os.environ, **(environ or {})}
            streams = {"stdout": out, "stderr": err, **others}
            self._process = subprocess.Popen(command, cwd=ROOT, env=environ, **streams)
        return self

    def start(self, environ: Mapping[str, str] | None = None, **others: Any) -> "Program":
        """Run it, and wait until it serves."""
        before = self.said().count("serving on")
        self.launch(environ, **others)
        until(
            lambda: self.said().count("serving on") > before or not self.alive,
            "it serves",
            _START,
        )
        if not self.alive:
            pytest.fail(f"the proxy ended at its start:\n{self.said()}")
        return self

    @property
    def all(self) -> list[int]:
        """The ids of all processes that run the script."""
        found = []
        for each in Path("/proc").iterdir():
            try:
                if each.name.isdigit() and str(self.script).encode() in (
                    (each / "cmdline").read_bytes().split(b"\0")
                ):
                    found.append(int(each.name))
            except OSError:
                continue
        return found

    def workers_of(self, supervisor: int) -> list[int]:
        """The ids of the workers of one of several supervisors."""
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text()
        return [pid for pid in map(int, children.split()) if ignores(pid, signal.SIGTERM)]

    @property
    def current(self) -> int:
        """The process id of the supervisor that answers."""
        pid: int = self.status()["pid"]
        return pid

    # --- what is asked and said ----------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What ``balanceme status`` tells."""
        return client.status(self.socket)

    def upgrade(self) -> int:
        """As ``balanceme upgrade``; the new supervisor's process id."""
        return client.upgrade(self.socket)

    def balanceme(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of the command line to its end."""
        command = [sys.executable, "-m", "proxy", *words]
        if words[0] != "check":
            command += ["--socket", str(self.socket)]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )

    def said(self) -> str:
        """All it said to the operator, wherever."""
        path = self.settings.get("log", {}).get("path", "-")
        file = self.folder / path
        written = file.read_text(errors="replace") if path != "-" and file.exists() else ""
        return self.stderr() + written

    def wait_said(self, text: str) -> None:
        """Until it has said that."""
        until(lambda: text in self.said(), f"it says {text!r}", _START)

    # --- its end -------------------------------------------------------------------------------

    def ended(self, seconds: float = PATIENCE) -> int:
        """The first supervisor's exit status, and until all processes are gone."""
        self._ended_by_test = True
        status = self.wait(seconds)
        until(lambda: not self.all, "all processes are gone", seconds)
        return status

    def ended_first(self) -> int:
        """The first supervisor's exit status, whoever serves now."""
        self._ended_by_test = True
        return self.wait()

    def stop(self) -> list[str]:
        """End all of its processes; what was wrong with them until then."""
        if self._process is None:
            return []
        found = [] if self.all or self._ended_by_test else [f"it has ended:\n{self.said()[-4000:]}"]
        deadline = time.monotonic() + PATIENCE
        while (left := self.all) and time.monotonic() < deadline:
            for pid in left:
                # workers ignore it, and the rest is told once
                if handles(pid, signal.SIGTERM) and pid not in self._told:
                    self._told.add(pid)
                    _send(pid, signal.SIGTERM)
            time.sleep(0.01)
        for pid in left:
            found.append(f"process {pid} did not end")
            _send(pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        return [*found, *self.complaints()]

    def complaints(self) -> list[str]:
        """What must not be, after any test."""
        self._ended_by_test = True
        return super().complaints()


def ignores(pid: int, number: int) -> bool:
    """Whether a process ignores a signal."""
    return _in_mask(pid, "SigIgn", number)


def blocks(pid: int, number: int) -> bool:
    """Whether a signal has to wait."""
    return _in_mask(pid, "SigBlk", number)


def handles(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal, that it takes now."""
    return _in_mask(pid, "SigCgt", number) and not _in_mask(pid, "SigBlk", number)


def _in_mask(pid: int, name: str, number: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return bool(int(status.partition(f"{name}:")[2].split()[0], 16) & 1 << number - 1)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


class Programs(Launcher):
    """Starts programs with a certificate and a port, and ends them."""

    def run(self, settings: Yaml, program: Sequence[str] = ()) -> Program:
        """A program, an installed one, with exactly these settings, but for a short end."""
        return self.make(settings).start()

    def make(self, settings: Yaml, first: str = "") -> Program:
        """A program that isn't started yet."""
        program = Program(self._folder(), {"stop_timeout": "1s", **settings}, first)
        self._proxies.append(program)
        return program

    def plain(self, *members: Yaml, **top: object) -> Yaml:
        """Settings of a frontend without TLS."""
        frontend = self.frontend({"path": "/", "balancer": "cluster"}, tls=False)
        return {"frontends": [frontend], "balancers": {"cluster": {"members": [*members]}}, **top}
