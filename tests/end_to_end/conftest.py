"""What the end-to-end tests share: our proxy as a process, certificates, members and clients.

One rule holds for every test here: afterwards the proxy still runs, unless the test itself ended
it, and what it said holds neither a traceback nor a mistake of ours.
"""

import asyncio
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from zlib import crc32

import pytest
import trustme
import yaml
from aiohttp import ClientSession, ClientTimeout, CookieJar, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult

from proxy.admin import client as admin
from tests.end_to_end.raw_client import RawClient
from tests.end_to_end.recording_member import RecordingMember, Script, Seen

if TYPE_CHECKING:
    from tests.end_to_end.program import Programs

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
NAME = "mail.example.org"
# How long, in seconds, something may take that should happen at once: for slow machines only.
PATIENCE = 10.0
_STEP = 0.005
_LOOKS = 15
_MISTAKES = ("Traceback", "a mistake in balanceme", "never retrieved", "never awaited")

Yaml = dict[str, Any]


def until(true: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until ``true()``, and fail with ``what`` if that takes too long."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(_STEP)


async def until_async(true: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """The same for a test with an event loop of its own."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(_STEP)


Value = TypeVar("Value")


async def settled(value: Callable[[], Value]) -> Value:
    """What ``value()`` gives, once so many looks in a row found the same."""
    seen, times = value(), 0
    while times < _LOOKS:
        await asyncio.sleep(2 * _STEP)
        found = value()
        times = times + 1 if found == seen else 0
        seen = found
    return seen


# --- certificates --------------------------------------------------------------------------------


class Authority:
    """A certificate authority of the test run, and a client that trusts it alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ca = trustme.CA()
        self.certificate = self.issue("frontend", NAME, "*.example.org")

    def issue(self, file: str, *names: str, ca: trustme.CA | None = None) -> Path:
        """A file with the key, the certificate for ``names``, and its chain."""
        path = self._folder / f"{file}.pem"
        issued = (ca or self.ca).issue_cert(*names)
        path.touch(mode=0o600)
        issued.private_key_and_cert_chain_pem.write_to_path(str(path))
        return path

    def trust(self) -> ssl.SSLContext:
        """A client's context that verifies certificate and name."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The certificate authority of this run."""
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def trust(authority: Authority) -> ssl.SSLContext:
    """How clients check the proxy's certificate."""
    return authority.trust()


# --- the proxy -----------------------------------------------------------------------------------


class Proxy:
    """``balanceme run`` as a process of its own, ended by its own process id."""

    def __init__(
        self, folder: Path, settings: Yaml, program: Sequence[str] = ("-m", "proxy")
    ) -> None:
        """``program`` stands in the place of ``balanceme``, in words for the interpreter."""
        self.config = folder / "balanceme.yaml"
        self.socket = folder / "control.sock"
        self.settings = settings
        self._program = program
        self._stdout = folder / "stdout.log"
        self._stderr = folder / "stderr.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._ended_by_test = False

    def start(self) -> "Proxy":
        """Run it, and wait until it serves; once it has ended it can be started again."""
        started = self.stderr().count("serving on")
        self.config.write_text(yaml.safe_dump(self.settings, sort_keys=False))
        with self._stdout.open("ab") as out, self._stderr.open("ab") as err:
            command = [sys.executable, *self._program, "run", str(self.config)]
            command += ["--socket", str(self.socket)]
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=err)
        self._ended_by_test = False
        until(
            lambda: self.stderr().count("serving on") > started or not self.alive,
            "the proxy serves",
            20,
        )
        if not self.alive:
            pytest.fail(f"the proxy ended at its start:\n{self.stderr()}")
        return self

    def reload(self) -> list[str]:
        """Put other ``settings`` in force; what changes, as the proxy tells it."""
        self.config.write_text(yaml.safe_dump(self.settings, sort_keys=False))
        return admin.reload(self.socket, dry_run=False)

    # --- where it is ---

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def workers(self) -> list[int]:
        """The process ids of its workers."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    @property
    def worker(self) -> int:
        """The process id of its only worker."""
        (pid,) = self.workers
        return pid

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """Its process; it must have been started."""
        assert self._process is not None
        return self._process

    def address(self, frontend: int = 0) -> tuple[str, int]:
        """Where a frontend listens."""
        host, _, port = self.settings["frontends"][frontend]["listen"].rpartition(":")
        return host, int(port)

    def url(self, host: str = NAME, frontend: int = 0) -> str:
        """A frontend's address for people."""
        scheme = "https" if "tls" in self.settings["frontends"][frontend] else "http"
        return f"{scheme}://{host}:{self.address(frontend)[1]}"

    # --- how it is ---

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def stderr(self) -> str:
        """All it said to the operator."""
        return self._stderr.read_text(errors="replace") if self._stderr.exists() else ""

    def access_lines(self, count: int) -> list[str]:
        """The access log, once it has ``count`` lines."""
        until(lambda: self.stdout().count("\n") >= count, f"{count} lines in the access log")
        return self.stdout().splitlines()

    def stdout(self) -> str:
        """What it wrote to standard output: the access log, unless it goes to a file."""
        return self._stdout.read_text(errors="replace")

    def memory(self, what: str = "VmRSS") -> int:
        """Its worker's resident memory in bytes; VmHWM: the most it had since ``forget_peak``."""
        status = Path(f"/proc/{self.worker}/status").read_text()
        return int(status.partition(f"{what}:")[2].split()[0]) * 1024

    def forget_peak(self) -> int:
        """Measure the peak of its memory from now on; what it has now."""
        Path(f"/proc/{self.worker}/clear_refs").write_text("5")
        return self.memory()

    def descriptors(self) -> int:
        """How many files and sockets its worker has open."""
        return len(list(Path(f"/proc/{self.worker}/fd").iterdir()))

    # --- its end ---

    def signal(self, number: int) -> None:
        """Send a signal that may end it."""
        self._ended_by_test = True
        self.process.send_signal(number)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Its exit status, once it has ended."""
        return self.process.wait(seconds)

    def stop(self) -> list[str]:
        """End it, gracefully at first; what was wrong with it until its end."""
        if self._process is None:
            return []
        found = self.complaints()
        if not self._ended_by_test and self.alive:
            self._ended_by_test = True
            self._process.terminate()
            try:
                status = self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                found.append("the proxy did not end")
            else:
                found += [f"the proxy ended with status {status}"] if status else []
        if self.alive:
            self._process.kill()
            self._process.wait()
        return [*found, *self.complaints()]

    def complaints(self) -> list[str]:
        """What must not be, after any test."""
        text = self.stderr()
        found = [f"{word} in\n{text[-4000:]}" for word in _MISTAKES if word in text]
        if not self._ended_by_test and not self.alive:
            found.append(f"the proxy has ended:\n{text[-4000:]}")
        return found


class Launcher:
    """Starts proxies with a certificate and a port, and ends them."""

    def __init__(
        self, authority: Authority, free_port: Callable[[], int], folder: Callable[[], Path]
    ) -> None:
        self._authority = authority
        self._free_port = free_port
        self._folder = folder
        self._proxies: list[Proxy] = []

    def __call__(
        self,
        *members: RecordingMember | Yaml,
        balancer: Yaml | None = None,
        mapping: Yaml | None = None,
        frontend: Yaml | None = None,
        **top: object,
    ) -> Proxy:
        """A proxy with one frontend, one mapping, and a balancer of these members.

        The cookie BALANCEME, for the domain, carries the sessions. What is given is added, and
        replaces what would stand there.
        """
        cluster: Yaml = {
            "sticky_session": "BALANCEME",
            "session_cookie": {"domain": "example.org"},
            "members": [settings_of(member) for member in members],
            **(balancer or {}),
        }
        return self.run(
            {
                "frontends": [
                    self.frontend({"path": "/", "balancer": "cluster", **(mapping or {})})
                    | (frontend or {})
                ],
                "balancers": {"cluster": cluster},
                **top,
            }
        )

    def frontend(self, *mappings: Yaml, tls: bool = True) -> Yaml:
        """A frontend on a free port."""
        certificate = {"tls": {"certificate": str(self._authority.certificate)}} if tls else {}
        listen = f"{HOST}:{self._free_port()}"
        words: Yaml = {"listen": listen, "server_name": NAME, **certificate}
        return words | ({"mappings": list(mappings)} if mappings else {})

    def run(self, settings: Yaml, program: Sequence[str] = ("-m", "proxy")) -> Proxy:
        """A proxy with exactly these settings, but for a short end."""
        proxy = Proxy(self._folder(), {"stop_timeout": "1s", **settings}, program)
        self._proxies.append(proxy)
        return proxy.start()

    def complaints(self) -> list[str]:
        """What must not be, after any test."""
        return [text for proxy in self._proxies for text in proxy.complaints()]

    def stop(self) -> None:
        """End all that were started; they must have been sound until then."""
        complaints = [text for proxy in self._proxies for text in proxy.stop()]
        if complaints:
            pytest.fail("\n".join(complaints), pytrace=False)


def settings_of(member: RecordingMember | Yaml) -> Yaml:
    """A member as the configuration has it; a recording one has its name for a route."""
    if isinstance(member, RecordingMember):
        return {"url": url_of(member), "route": member.name}
    return member


def url_of(member: RecordingMember) -> str:
    """A member's address as the configuration has it."""
    return f"http://{member.authority.decode()}"


@pytest.fixture
def serve(
    authority: Authority, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Launcher]:
    """Starts proxies for one test."""
    launcher = Launcher(authority, free_port, lambda: tmp_path_factory.mktemp("proxy"))
    yield launcher
    launcher.stop()


@pytest.fixture
def install(
    authority: Authority, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[Programs]":
    """Starts programs for one test: proxies that may be upgraded, and have other processes then."""
    from tests.end_to_end.program import Programs  # which builds on this file

    programs = Programs(authority, free_port, lambda: tmp_path_factory.mktemp("program"))
    yield programs
    programs.stop()


@pytest.fixture(scope="module")
def serve_all(
    authority: Authority, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Launcher]:
    """Starts proxies for all tests of a file."""
    launcher = Launcher(authority, free_port, lambda: tmp_path_factory.mktemp("proxy"))
    yield launcher
    launcher.stop()


@pytest.fixture(autouse=True)
def sound(request: pytest.FixtureRequest) -> Iterator[None]:
    """A proxy that a file's tests share is looked at after each of them."""
    shared = "serve_all" in request.fixturenames
    launcher: Launcher | None = request.getfixturevalue("serve_all") if shared else None
    yield
    complaints = launcher.complaints() if launcher is not None else []
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


@pytest.fixture
def exact_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy whose C library gives back at once what is freed, and doesn't keep it for later."""
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")


# --- members -------------------------------------------------------------------------------------


class Members:
    """Recording members, each on a port of its own, stopped in the end."""

    def __init__(self, free_port: Callable[[], int]) -> None:
        self._free_port = free_port
        self._members: list[RecordingMember] = []

    def __call__(
        self, name: str = "server1", scripts: Mapping[bytes, Script] | None = None
    ) -> RecordingMember:
        """A member that runs; without a script it answers with its name."""
        member = self.stopped(name, scripts)
        member.start()
        return member

    def stopped(
        self, name: str = "server1", scripts: Mapping[bytes, Script] | None = None
    ) -> RecordingMember:
        """A member that refuses connections until it is started."""
        member = RecordingMember(name, HOST, self._free_port(), scripts=scripts)
        self._members.append(member)
        return member

    def stop(self) -> None:
        """Stop them all."""
        for member in self._members:
            member.stop()


@pytest.fixture
def members(free_port: Callable[[], int]) -> Iterator[Members]:
    """Makes members for one test."""
    made = Members(free_port)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def members_all(free_port: Callable[[], int]) -> Iterator[Members]:
    """Makes members for all tests of a file."""
    made = Members(free_port)
    yield made
    made.stop()


BLOCK = bytes(range(256)) * 256


class _Bulk(BaseHTTPRequestHandler):
    """One connection of a BulkMember."""

    protocol_version = "HTTP/1.1"
    server: "BulkMember"

    def do_GET(self) -> None:
        """``/N`` is a body of N blocks, ``/N/chunked`` the same in chunks."""
        count = int(self.path.split("/")[1])
        chunked = self.path.endswith("/chunked")
        self.send_response(200)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(count * len(BLOCK)))
        self.end_headers()
        block = b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK) if chunked else BLOCK
        for _ in range(count):
            self.wfile.write(block)
            self.server.moved += len(BLOCK)
        self.wfile.write(b"0\r\n\r\n" if chunked else b"")

    def do_POST(self) -> None:
        """Take the body, once the test lets us; answer with its length and checksum."""
        self.server.arrived.set()
        self.server.ready.wait(PATIENCE)
        total = checksum = 0
        for piece in self._body():
            total += len(piece)
            checksum = crc32(piece, checksum)
            self.server.moved = total
        text = b"%d %d" % (total, checksum)
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _body(self) -> Iterator[bytes]:
        if "Transfer-Encoding" not in self.headers:
            yield from self._pieces(int(self.headers.get("Content-Length", 0)))
            return
        while size := int(self.rfile.readline(), 16):
            yield from self._pieces(size)
            self.rfile.readline()
        self.rfile.readline()

    def _pieces(self, left: int) -> Iterator[bytes]:
        while left:
            piece = self.rfile.read(min(left, len(BLOCK)))
            if not piece:
                raise ConnectionError("the body broke off")
            left -= len(piece)
            yield piece

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class BulkMember(ThreadingHTTPServer):
    """A member for large bodies: it sends or takes them without keeping them."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int) -> None:
        super().__init__((HOST, port), _Bulk)
        self.settings: Yaml = {"url": f"http://{HOST}:{port}", "route": "server1"}
        self.moved = 0
        """Bytes of bodies that were sent or taken."""
        self.arrived = threading.Event()
        """The head of an upload has come."""
        self.ready = threading.Event()
        """Cleared by a test to let uploads wait."""
        self.ready.set()
        self.broken = threading.Event()
        """A body could not be sent or taken to its end."""

    def handle_error(self, *_: object) -> None:
        """Only remember it."""
        self.broken.set()


@pytest.fixture(scope="module")
def bulk(free_port: Callable[[], int]) -> Iterator[BulkMember]:
    """A member for large bodies."""
    with BulkMember(free_port()) as member:
        thread = threading.Thread(target=member.serve_forever, args=[0.01])
        thread.start()
        yield member
        member.ready.set()
        member.shutdown()
        thread.join()


def seen_by(*members: RecordingMember, path: bytes = b"") -> list[Seen]:
    """What members saw of one path, or at all."""
    seen = [entry for member in members for entry in list(member.record.seen)]
    return [entry for entry in seen if not path or entry.target.partition(b"?")[0] == path]


# --- clients -------------------------------------------------------------------------------------


class _Loopback(AbstractResolver):
    """Every name is this machine, so that cookies meet real domains."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = ResolveResult(
            hostname=host, host=HOST, port=port, family=socket.AF_INET, proto=0, flags=0
        )
        return [found]

    async def close(self) -> None:
        pass


Browser = Callable[..., ClientSession]


@pytest.fixture
async def browser(trust: ssl.SSLContext) -> AsyncIterator[Browser]:
    """Makes clients that keep cookies by domain, verify certificates and follow no redirects."""
    sessions: list[ClientSession] = []

    def new(
        proxy: Proxy, host: str = NAME, frontend: int = 0, jar: CookieJar | None = None
    ) -> ClientSession:
        session = ClientSession(
            base_url=proxy.url(host, frontend),
            connector=TCPConnector(resolver=_Loopback(), ssl=trust, limit=0),
            cookie_jar=CookieJar() if jar is None else jar,
            timeout=ClientTimeout(total=PATIENCE),
        )
        sessions.append(session)
        return session

    yield new
    for session in sessions:
        await session.close()


Dial = Callable[..., RawClient]


@pytest.fixture
def dial(trust: ssl.SSLContext) -> Iterator[Dial]:
    """Opens connections that send exact bytes."""
    clients: list[RawClient] = []

    def connect(proxy: Proxy, host: str = NAME, frontend: int = 0) -> RawClient:
        tls = trust if "tls" in proxy.settings["frontends"][frontend] else None
        client = RawClient(proxy.address(frontend), tls=tls, server_name=host, patience=PATIENCE)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()


def request(
    target: str | bytes = "/", *fields: str | bytes, method: str = "GET", body: bytes | None = None
) -> bytes:
    """A request's bytes: its head with Host, and a body with its length."""
    lines = [b"%s %s HTTP/1.1" % (method.encode(), _bytes(target)), b"Host: " + NAME.encode()]
    lines += [_bytes(field) for field in fields]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body or b""])


def is_served(client: RawClient) -> bool:
    """Whether a clean client gets its answer."""
    client.send(request("/clean"))
    return client.read_response(b"GET").body == b"server1"


def connect(proxy: Proxy, frontend: int = 0) -> socket.socket:
    """A connection, before any handshake."""
    return socket.create_connection(proxy.address(frontend), timeout=PATIENCE)


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def fields_of(lines: Sequence[bytes], name: str) -> list[str]:
    """The values of all fields of one name."""
    split = [line.partition(b":") for line in lines]
    return [
        value.strip().decode("latin-1")
        for key, _, value in split
        if key.lower().decode("latin-1") == name.lower()
    ]
