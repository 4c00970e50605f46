"""The program's own log: what we tell the operator, through a ``LineSink`` like the access log.

A record is one line, whatever a client or a member put into it (H85); only the traceback of a
mistake of ours has more, which are indented, so that none of them looks like a line of its own.
Whoever logs neither waits nor fails, wherever the lines go.
"""

import contextlib
import logging
from typing import Any

from proxy.control.log_files import INFORMATIONAL, LineSink
from proxy.core.settings import Log

# RFC 3164 section 4.1.1
SEVERITIES = {
    logging.DEBUG: 7,
    logging.INFO: INFORMATIONAL,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}
# How long lines may wait for their reader when a process ends, in seconds.
PATIENCE = 1.0


def start_logging(settings: Log, sink: LineSink, speaker: str = "") -> None:
    """What this process logs goes to ``sink`` from now on, and nowhere else.

    ``speaker`` is the process that speaks, if it isn't the supervisor: "worker 2". To be called
    again with other settings, and by a worker with a sink of its own. Trouble of the sink is said
    on standard error, if it isn't that.
    """
    last_resort = None
    if settings.path != "-":
        # If it is closed there is nobody to be told.
        with contextlib.suppress(OSError):
            last_resort = LineSink(2, "standard error")
    handler = LogHandler(sink, last_resort)
    handler.setFormatter(_Format(settings.path, speaker))
    root = logging.getLogger()
    for other in list(root.handlers):
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(settings.level.name)
    # The event loop's warnings are of writes to clients that have left, one for each.
    logging.getLogger("asyncio").setLevel(logging.ERROR)


class _Format(logging.Formatter):
    """A record as a line without its end, or several."""

    def __init__(self, path: str, speaker: str) -> None:
        # The syslog daemon has the time from the sink.
        time = "" if path == "syslog" else "%(asctime)s "
        name = f"{speaker}: " if speaker else ""
        super().__init__(f"{time}%(levelname)s {name}%(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line."""
        return _escaped(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """The lines of a traceback."""
        return self.formatStack(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        """The lines of a stack."""
        return "\n".join(f"  {_escaped(line)}" for line in stack_info.splitlines())


class LogHandler(logging.Handler):
    """Hands records to a sink; a sink's own trouble is told here, since the log can't tell it."""

    def __init__(self, sink: LineSink, last_resort: LineSink | None) -> None:
        """``last_resort`` is told of the sink's trouble."""
        super().__init__()
        self._sink = sink
        self._last_resort = last_resort
        sink.on_trouble = self._say_elsewhere
        sink.on_recovery = self._say
        if last_resort is not None:
            last_resort.on_trouble = last_resort.on_recovery = _say_nowhere

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            lines = self.format(record)
        except Exception as error:  # noqa: BLE001 - arguments of any kind, told in our own line
            record = _warning(f"a mistake in balanceme: {record.msg!r} can't be logged: {error!r}")
            lines = self.format(record)
        self._sink.write(lines.encode() + b"\n", SEVERITIES.get(record.levelno, INFORMATIONAL))

    def flush(self) -> None:
        """Try again what waits."""
        self._sink.flush()

    def close(self) -> None:
        """The process ends (logging.shutdown): what waits has its last chance."""
        self._sink.close(PATIENCE)
        super().close()

    def _say(self, text: str) -> None:
        """Log it from within the sink, where loggers may refuse a second record."""
        self.emit(_warning(text))

    def _say_elsewhere(self, text: str) -> None:
        if self._last_resort is not None:
            self._last_resort.write(self.format(_warning(text)).encode() + b"\n")


def _say_nowhere(_: str) -> None:
    """Standard error has trouble as well."""


def _warning(text: str) -> logging.LogRecord:
    return logging.LogRecord("balanceme", logging.WARNING, "", 0, text, None, None)


def _escaped(text: str) -> str:
    """Without controls, line ends and what else a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
