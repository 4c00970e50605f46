"""What each signal does, whatever the supervisor is doing; workers heed none of them.

SIGQUIT is not handled: as for any program it ends the supervisor at once, and its workers follow by
themselves.
"""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.end_to_end.conftest import Dial, Members, request, seen_by, settings_of, until
from tests.end_to_end.program import Program, Programs, blocks, ignores
from tests.end_to_end.recording_member import Do, RecordingMember, answer

pytestmark = pytest.mark.slow

HUP, USR1, USR2 = signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2
TERM, INT, QUIT = signal.SIGTERM, signal.SIGINT, signal.SIGQUIT
# Those that do nothing at any time.
NOTHING = (signal.SIGPIPE, signal.SIGWINCH)

# Workers that begin to serve, and take up other settings, only while there is no file of that name.
HELD = """\
import pathlib, resource, time
from proxy.control import worker
def held(name, method):
    def wrapped(self, *others):
        while self._acceptors and pathlib.Path({folder!r}, name).exists():
            time.sleep(0.01)
        return method(self, *others)
    return wrapped
worker.Worker.start = held("hold-start", worker.Worker.start)
worker.Worker.accept = held("hold-reload", worker.Worker.accept)
# a core file is as large as all there is
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
"""


class Scene:
    """A program in a phase, with one exchange under way once it serves."""

    def __init__(self, program: Program, member: RecordingMember, dial: Dial) -> None:
        self.program = program
        self._member = member
        self._dial = dial
        self._start = program.folder / "hold-start"
        self._reload = program.folder / "hold-reload"

    def starting(self) -> None:
        """Workers are there, and don't serve yet."""
        self._start.touch()
        self.program.launch()
        until(self.program.socket.exists, "the control socket is there")
        until(lambda: ignores(self._worker(), TERM), "a worker begins")

    def _worker(self) -> int:
        pids = [pid for pid in self.program.all if pid != self.program.pid]
        return pids[0] if pids else 0

    def serving(self) -> None:
        """All is served."""
        self.program.start()
        self._dial(self.program).send(request("/wait"))
        until(lambda: seen_by(self._member), "an exchange is under way")

    def reloading(self) -> None:
        """A worker has not put other settings in force yet."""
        self.serving()
        self._reload.touch()
        self.program.configure(server="other")
        self.signal(HUP)
        until(lambda: self.program.status()["generation"] == 2, "a reload is under way")

    def leaving(self) -> None:
        """Those before us are told to send no more clients."""
        self.program.settings |= {"leave_before_stop": "1h", "health_path": "/health"}
        self.serving()
        self.signal(TERM)
        self.program.wait_said("leaving: ")

    def stopping(self) -> None:
        """An exchange under way may end."""
        self.serving()
        self.signal(TERM)
        self.program.wait_said("stopping: ")

    def followed(self) -> None:
        """Another program has taken over, and an exchange under way may end."""
        self.serving()
        self.program.upgrade()

    def signal(self, *numbers: int) -> None:
        """Send these to the first supervisor."""
        for number in numbers:
            os.kill(self.program.pid, number)

    def go_on(self) -> None:
        """Hold up nobody any more."""
        self._start.unlink(missing_ok=True)
        self._reload.unlink(missing_ok=True)


@dataclass(frozen=True)
class Case:
    """Signals that only leave words, one word each; then the one that ends it, and how."""

    phase: Callable[[Scene], None]
    said: tuple[tuple[int, str], ...]
    end: int
    status: int
    last_word: str


NO_RELOAD = "WARNING nothing is reloaded: there is no reload while balanceme is "
NO_UPGRADE = "ERROR no upgrade: there is no upgrade while balanceme is "
REOPENED = "logs are opened anew"
CASES = [
    Case(
        Scene.starting,
        ((HUP, NO_RELOAD + "starting"), (USR2, NO_UPGRADE + "starting"), (USR1, REOPENED)),
        *(TERM, 0, "stopping: "),
    ),
    Case(Scene.serving, ((HUP, "generation 2 of"), (USR1, REOPENED)), INT, 0, "stopping: "),
    Case(Scene.serving, (), QUIT, -QUIT, "the supervisor is gone; this worker stops gracefully"),
    Case(Scene.reloading, ((USR1, REOPENED),), TERM, 0, "stopping: "),
    Case(Scene.reloading, ((USR2, "followed by process "),), INT, 0, "stopping: "),
    Case(
        Scene.leaving,
        ((HUP, NO_RELOAD + "leaving"), (USR2, NO_UPGRADE + "leaving"), (USR1, REOPENED)),
        *(INT, 1, "stopped at once"),
    ),
    Case(
        Scene.stopping,
        ((HUP, NO_RELOAD + "stopping"), (USR2, NO_UPGRADE + "stopping"), (USR1, REOPENED)),
        *(TERM, 1, "stopped at once"),
    ),
    Case(
        Scene.followed,
        ((HUP, NO_RELOAD + "followed"), (USR2, NO_UPGRADE + "followed"), (USR1, REOPENED)),
        *(TERM, 0, "stopping: "),
    ),
]


@pytest.fixture(autouse=True)
def quit_ends_programs() -> Iterator[None]:
    """A script's job in the background ignores SIGQUIT, and so would all programs started here."""
    former = signal.signal(QUIT, signal.SIG_DFL)
    yield
    signal.signal(QUIT, former)


def name_of(case: Case) -> str:
    """The phase, and what ends it."""
    return f"{case.phase.__name__}-{signal.Signals(case.end).name}"


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_signals(case: Case, install: Programs, members: Members, dial: Dial) -> None:
    """In each phase a signal does what it is for, or says why not; only some may end it."""
    member = members("server1", {b"/wait": [Do.READ_BODY, Do.WAIT_CLOSE]})
    # a stop at once comes before this, any other may be cut
    patient = case.status == 1
    settings = install.plain(settings_of(member), stop_timeout="1h" if patient else "200ms")
    program = install.make(settings)
    program.install(HELD.format(folder=str(program.folder)))
    scene = Scene(program, member, dial)
    case.phase(scene)
    scene.signal(*NOTHING)
    for number, words in case.said:
        scene.signal(number)
        program.wait_said(words)
    assert program.alive
    scene.signal(case.end)
    program.wait_said(case.last_word)
    scene.go_on()
    assert program.ended_first() == case.status


def test_before_the_start(install: Programs, members: Members) -> None:
    """Signals that come before anything can handle them wait; a stop among them is obeyed."""
    program = install.make(install.plain(settings_of(members("server1"))))
    program.configure()
    text = program.config.read_text()
    program.config.unlink()
    os.mkfifo(program.config)
    program.launch()
    until(lambda: blocks(program.pid, TERM), "the start blocks the signals")
    for number in (HUP, USR1, USR2, *NOTHING, TERM):
        os.kill(program.pid, number)
    program.config.write_text(text)  # it waits for a writer until now
    assert program.ended() == 0
    for words in (REOPENED, NO_RELOAD, NO_UPGRADE, "stopping: ", "stopped"):
        assert words in program.said()


def test_workers_heed_none(install: Programs, members: Members, dial: Dial) -> None:
    """Workers ignore what is meant for the supervisor, and a terminal's Ctrl-C stops gracefully."""
    member = members("server1", {b"/slow": [Do.READ_BODY, 0.3, answer(b"slow")]})
    settings = install.plain(settings_of(member), workers=3, stop_timeout="10s")
    program = install.make(settings).start(start_new_session=True)
    workers = program.workers
    for pid in workers:
        for number in (HUP, USR1, USR2, TERM, INT, *NOTHING):
            os.kill(pid, number)
    client = dial(program)
    client.send(request("/"))
    assert client.read_response(b"GET").body == b"server1"
    client.send(request("/slow"))
    until(lambda: seen_by(member, path=b"/slow"), "an exchange is under way")
    assert program.workers == workers
    os.killpg(program.pid, INT)
    assert client.read_response(b"GET").body == b"slow"
    client.close()
    assert program.ended() == 0
    assert "at once" not in program.said()
    assert "unasked" not in program.said()
