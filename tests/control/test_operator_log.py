import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.control import log_files
from proxy.control.log_files import LineSink, open_log
from proxy.control.operator_log import start_logging
from proxy.core.settings import Log

log = logging.getLogger("balanceme")

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} "


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    """The loggers of the process are as before when the test has ended."""
    root, loop = logging.getLogger(), logging.getLogger("asyncio")
    handlers, levels = list(root.handlers), (root.level, loop.level)
    yield
    for handler in list(root.handlers):
        root.removeHandler(handler)
        if handler not in handlers:
            handler.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(levels[0])
    loop.setLevel(levels[1])


def start(path: Path | str, speaker: str = "", level: str = "info") -> LineSink:
    """The log goes to a file."""
    settings = Log.model_validate({"path": str(path), "level": level})
    sink = LineSink(open_log(settings.path, 2, "log"), "log")
    start_logging(settings, sink, speaker)
    return sink


def lines(path: Path) -> list[str]:
    """What was logged, without its time, which stands before each."""
    found = path.read_text(encoding="utf-8").splitlines()
    assert all(re.match(TIME, line) for line in found)
    return [line.split(" ", 2)[2] for line in found]


def fail(text: str) -> None:
    """A mistake of ours."""
    raise ValueError(text)


# --- lines ---------------------------------------------------------------------------------------


def test_lines(tmp_path: Path) -> None:
    """A line has its time, its level and its text; other loggers have theirs as well."""
    start(tmp_path / "log")
    log.info("serving on %s", "[::]:443")
    logging.getLogger("aiohttp.access").warning("Grüße")
    assert lines(tmp_path / "log") == ["INFO serving on [::]:443", "WARNING Grüße"]


def test_worker_says_who_it_is(tmp_path: Path) -> None:
    """Which of several processes speaks stands before what it says."""
    start(tmp_path / "log", "worker 2")
    log.warning("100%s", "%")
    assert lines(tmp_path / "log") == ["WARNING worker 2: 100%"]


@pytest.mark.parametrize(
    ("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)]
)
def test_level(level: str, count: int, tmp_path: Path) -> None:
    """The least that is told is what the settings say."""
    start(tmp_path / "log", level=level)
    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        log.log(number, "text")
    assert len(lines(tmp_path / "log")) == count


def test_event_loop_warns_nobody(tmp_path: Path) -> None:
    """The loop's own warnings, one for each client that has left, are left out; errors aren't."""
    start(tmp_path / "log", level="debug")
    logging.getLogger("asyncio").warning("socket.send() raised exception.")
    logging.getLogger("asyncio").error("a task failed")
    assert lines(tmp_path / "log") == ["ERROR a task failed"]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a\nb\r\n", r"a\nb\r\n"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
        ("\u2028\u202e", r"\u2028\u202e"),
        ("\udc80", r"\udc80"),
        ("ü – 漢", "ü – 漢"),
    ],
)
def test_nothing_breaks_a_line(text: str, written: str, tmp_path: Path) -> None:
    """What could begin a line, or a terminal would obey, is escaped (H85)."""
    start(tmp_path / "log")
    log.info("member said %s", text)
    assert lines(tmp_path / "log") == [f"INFO member said {written}"]


def test_traceback(tmp_path: Path) -> None:
    """A mistake of ours comes with its traceback, whose lines look like no others (H85)."""
    start(tmp_path / "log")
    try:
        fail("a\n2026-11-22 14:15:57,000 INFO forged\x1b")
    except ValueError:
        log.exception("a mistake in balanceme", stack_info=True)
    first, *others = (tmp_path / "log").read_text().splitlines()
    assert first.endswith(" ERROR a mistake in balanceme")
    assert others[0] == "  Traceback (most recent call last):"
    assert r"  2026-11-22 14:15:57,000 INFO forged\x1b" in others
    assert "  Stack (most recent call last):" in others
    assert all(line.startswith("  ") for line in others)


def test_record_that_cant_be_written_is_a_mistake(tmp_path: Path) -> None:
    """A log call with wrong arguments says so in the log, and doesn't fail."""
    start(tmp_path / "log", "worker 1")
    log.info("%d connections", "many")
    (line,) = lines(tmp_path / "log")
    assert line.startswith(
        "WARNING worker 1: a mistake in balanceme: '%d connections' can't be logged: TypeError("
    )


def test_other_settings(tmp_path: Path) -> None:
    """A reload changes the level and the place; each line is written once."""
    sink = start(tmp_path / "one")
    log.info("first")
    settings = Log.model_validate({"path": str(tmp_path / "two"), "level": "warning"})
    sink.replace(open_log(settings.path, 2, "log"))
    start_logging(settings, sink)
    log.info("second")
    log.warning("third")
    assert lines(tmp_path / "one") == ["INFO first"]
    assert lines(tmp_path / "two") == ["WARNING third"]


def test_syslog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon gets each line with its level, and with one time, its own."""
    monkeypatch.setattr(log_files, "SYSLOG", str(tmp_path / "log"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(tmp_path / "log"))
        start("syslog", "worker 1", "debug")
        log.debug("one")
        log.warning("two")
        try:
            fail("text")
        except ValueError:
            log.exception("three")
        found = [daemon.recv(1000).decode() for _ in range(4)]
    assert [line.split(">")[0] for line in found] == ["<31", "<28", "<27", "<27"]
    assert found[0].endswith(f"balanceme[{os.getpid()}]: DEBUG worker 1: one")
    assert found[3].endswith("]:   Traceback (most recent call last):")


# --- trouble -------------------------------------------------------------------------------------


def test_trouble_is_told_on_standard_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A log that can't be written says so elsewhere, once, and itself when it is over."""
    sink = start("/dev/full", "worker 1")
    log.info("one")
    log.info("two")
    sink.replace(open_log(str(tmp_path / "log"), 2, "log"))
    log.info("three")
    (told,) = capfd.readouterr().err.splitlines()
    assert re.fullmatch(
        TIME + "WARNING worker 1: log: No space left on device;"
        " lines are lost until it can be written",
        told,
    )
    assert lines(tmp_path / "log") == [
        "INFO worker 1: three",
        "WARNING worker 1: log: it can be written again; lines lost: 2",
    ]


PROGRAM = """
import logging, os, sys
from proxy.control.log_files import LineSink, open_log
from proxy.control.operator_log import start_logging
from proxy.core.settings import Log
path, closing = sys.argv[1:]
sink = LineSink(open_log(path, 2, "log"), "log")
if closing:
    os.close(2)
start_logging(Log(path=path), sink)
logging.getLogger("balanceme").warning("one")
os.write(1, b"alive")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "closing", "told"),
    [("-", "", "one"), ("/dev/full", "", "log: No space left"), ("/dev/full", "closing", "")],
)
def test_process(path: str, closing: str, told: str) -> None:
    """A whole process: on standard error, beside it, and with none at all."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, path, closing], capture_output=True, check=True, text=True
    )
    assert ended.stdout == "alive"
    assert ended.stderr.count("\n") == (1 if told else 0)
    assert told in ended.stderr


def test_standard_error_that_is_broken_too() -> None:
    """When nobody can be told, nobody is, and nothing fails."""
    reader, writer = os.pipe()
    os.close(reader)
    before = os.dup(2)
    os.dup2(writer, 2)
    try:
        start("/dev/full")
        log.info("one")
        log.info("two")
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(writer)


def test_last_lines_wait_for_their_reader(tmp_path: Path) -> None:
    """What still waits when the process ends is written then (logging.shutdown)."""
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    start(tmp_path / "log")
    room = 1 << 20
    count = 0
    while count * 1100 < room + 10_000:
        log.info("%s", "x" * 1100)
        count += 1
    found = os.read(reader, room)
    (handler,) = logging.getLogger().handlers
    handler.flush()
    handler.close()
    while part := os.read(reader, room):
        found += part
    os.close(reader)
    assert found.count(b"\n") == count
