"""One probe from its start to its result, whatever the member does meanwhile."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from proxy.control.probes import database, mail, program, web
from proxy.control.probes.line import Line
from proxy.control.probes.result import (
    LONGEST_TEXT,
    NO_FILES,
    CheckFiles,
    ProbeError,
    Result,
    Target,
    told,
)
from proxy.core.settings import CheckType, HealthCheck

log = logging.getLogger("balanceme")

# For a whole probe, in seconds; mail servers may let a client wait before they greet (D103).
TIMEOUT = 5.0
MAIL_TIMEOUT = 15.0

Conversation = Callable[[Line, HealthCheck, Target, CheckFiles], Awaitable[str]]


def timeout_of(check: HealthCheck) -> float:
    """How long a probe may take, in seconds."""
    if check.timeout is not None:
        return check.timeout
    return MAIL_TIMEOUT if check.type in (CheckType.SMTP, CheckType.LMTP) else TIMEOUT


async def probe(check: HealthCheck, target: Target, files: CheckFiles = NO_FILES) -> Result:
    """Ask a member once; raises nothing but cancellation, and leaves no connection behind.

    It takes at most the check's timeout, a command at most two seconds more, for its end.
    """
    line = Line()
    seconds = timeout_of(check)
    passed = False
    try:
        if check.type is CheckType.COMMAND:
            text = await program.ask(check, target, seconds)
        else:
            async with asyncio.timeout(seconds):
                text = await _CONVERSATIONS[check.type](line, check, target, files)
        passed = True
        line.close()
    except ProbeError as error:
        text = str(error)
        line.close()
    except TimeoutError:
        text = f"timed out after {seconds:g} s, {line.doing}"
    except Exception:
        log.exception("a probe of %s ended by a mistake in balanceme", target.url)
        text = "not asked, by a mistake in balanceme; its log has more"
    finally:
        line.abort()
    await line.closed()
    return Result(passed, told(text, LONGEST_TEXT), line.certificate_ends)


# --- those that need no protocol -----------------------------------------------------------------


async def _tcp(line: Line, check: HealthCheck, target: Target, _: CheckFiles) -> str:
    """Something listens; that is all."""
    await line.open(check, target, target.port)
    return "connected"


async def _tls(line: Line, check: HealthCheck, target: Target, files: CheckFiles) -> str:
    """A whole handshake (D99)."""
    await line.open(check, target, 443, files)
    return line.tls_version


_CONVERSATIONS: dict[CheckType, Conversation] = {
    CheckType.HTTP: web.ask,
    CheckType.HTTPS: web.ask,
    CheckType.ZARAFA: web.ask,
    CheckType.ACTIVESYNC: web.ask,
    CheckType.TCP: _tcp,
    CheckType.TLS: _tls,
    CheckType.SMTP: mail.smtp,
    CheckType.LMTP: mail.smtp,
    CheckType.IMAP: mail.imap,
    CheckType.POP3: mail.pop3,
    CheckType.MYSQL: database.mysql,
}
