"""What tests of reloads share: a cluster to change, clients at each worker, and what it costs.

A change is in force only if every worker has it, and which of them accepts a connection is up to
the kernel. So clients are dialled until each worker has one; whose a connection is, is known from
the inode of its socket.
"""

import copy
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from proxy.admin import client as admin
from tests.end_to_end.conftest import (
    ROOT,
    Dial,
    Proxy,
    Yaml,
    fields_of,
    request,
    until,
)
from tests.end_to_end.raw_client import RawClient, Response

# Connections that are dialled at most until every worker has one.
MOST_DIALLED = 100


def write(proxy: Proxy, settings: Yaml | None = None) -> None:
    """Change the configuration file, in one step; without ``settings`` to the proxy's own."""
    if settings is not None:
        proxy.settings = settings
    fresh = proxy.config.with_suffix(".new")
    fresh.write_text(yaml.safe_dump(proxy.settings, sort_keys=False))
    fresh.replace(proxy.config)


def reload(proxy: Proxy, settings: Yaml | None = None, *, dry_run: bool = False) -> list[str]:
    """Change the file, and have it put in force; what changes."""
    write(proxy, settings)
    return admin.reload(proxy.socket, dry_run=dry_run)


def status(proxy: Proxy) -> dict[str, Any]:
    """All that the supervisor knows."""
    return admin.status(proxy.socket)


def generations(proxy: Proxy) -> set[int]:
    """The generations that workers have in force, and the supervisor's."""
    found = status(proxy)
    return {found["generation"], *(worker["generation"] for worker in found["workers"])}


def begun(proxy: Proxy, *words: str) -> "subprocess.Popen[str]":
    """``balanceme WORDS`` for this proxy, which has begun."""
    line = [sys.executable, "-m", "proxy", *words, "--socket", str(proxy.socket)]
    pipe = subprocess.PIPE
    return subprocess.Popen(line, cwd=ROOT, text=True, stdout=pipe, stderr=pipe)


def ended(process: "subprocess.Popen[str]") -> "subprocess.CompletedProcess[str]":
    """A command, once it has ended."""
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def command(proxy: Proxy, *words: str) -> "subprocess.CompletedProcess[str]":
    """The same, from its begin to its end."""
    return ended(begun(proxy, *words))


# --- workers -------------------------------------------------------------------------------------


def worker_of(proxy: Proxy, client: RawClient) -> int:
    """The process id of the worker that has a client; 0 while it isn't accepted."""
    return worker_at(proxy, client.port)


def worker_at(proxy: Proxy, port: int) -> int:
    """The same by the client's port."""
    inode = accepted().get(port)
    for pid in proxy.workers:
        if inode is not None and f"socket:[{inode}]" in _links(pid):
            return pid
    return 0


def port_of(sock: socket.socket) -> int:
    """A client's port."""
    port: int = sock.getsockname()[1]
    return port


def accepted_by(proxy: Proxy, client: RawClient) -> int:
    """The same, once it is accepted."""
    until(lambda: worker_of(proxy, client), "the connection is accepted")
    return worker_of(proxy, client)


def accepted() -> dict[int, str]:
    """The inodes of this machine's sockets, by the port at their other end."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[2].rpartition(":")[2], 16): row[9] for row in rows if row[9] != "0"}


def _links(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            found.add(str(entry.readlink()))
    return found


def one_each(proxy: Proxy, dial: Dial, frontend: int = 0, **more: Any) -> list[RawClient]:
    """A connection to each worker."""
    found: dict[int, RawClient] = {}
    others: list[RawClient] = []
    workers = proxy.workers
    while len(found) < len(workers):
        assert len(others) < MOST_DIALLED, f"{workers} don't all accept: {found}"
        client = dial(proxy, frontend=frontend, **more)
        if found.setdefault(accepted_by(proxy, client), client) is not client:
            others.append(client)
    for client in others:
        client.close()
    return list(found.values())


class Footprint(NamedTuple):
    """What a process has taken."""

    descriptors: int
    threads: int
    memory: int
    """Bytes of its own (RssAnon)."""


def footprint(pid: int) -> Footprint:
    """What a process takes now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    words = {key: value.split()[:1] for key, _, value in (x.partition(":") for x in lines)}
    files = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - names alone
    return Footprint(files, int(*words["Threads"]), int(*words["RssAnon"]) * 1024)


# --- asking --------------------------------------------------------------------------------------


def ask(client: RawClient, target: str = "/", *fields: str | bytes, **more: Any) -> Response:
    """One request on an open connection, and its answer."""
    client.send(request(target, *fields, **more))
    return client.read_response(more.get("method", "GET").encode())


def code(response: Response) -> int:
    """The status of an answer; 0 without one."""
    return int(response.status_line[9:12] or 0)


def set_route(response: Response) -> str:
    """The route that an answer's cookie names; empty without one."""
    lines = fields_of(response.fields, "set-cookie")
    found = [line for line in lines if line.startswith("BALANCEME=")]
    return found[0].partition(";")[0].partition(".")[2] if found else ""


class Cluster(NamedTuple):
    """A proxy that all tests of a file share, with the settings that each of them begins with."""

    proxy: Proxy
    settings: Yaml

    def begin(self) -> Proxy:
        """The proxy under its first settings, which the test may change."""
        proxy, settings = self.proxy, copy.deepcopy(self.settings)
        reload(proxy, settings)
        until(lambda: is_complete(proxy), "all workers serve")
        return proxy


def is_complete(proxy: Proxy) -> bool:
    """Whether all workers serve that there shall be, and no others are there."""
    workers = status(proxy)["workers"]
    phases = [worker["phase"] for worker in workers]
    return phases == ["serving"] * proxy.settings["workers"] and {
        worker["pid"] for worker in workers
    } == set(proxy.workers)


Edit = Callable[[Yaml], object]
