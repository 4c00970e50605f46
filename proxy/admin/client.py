"""The API as the command line calls it: one synchronous function a command.

The rule: whatever goes wrong on the way is an AdminError, whose words are for the terminal and
whose ``exit_status`` is the command's.
"""

import asyncio
import errno
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from aiohttp import ClientConnectorError, ClientError, ClientSession, ClientTimeout, UnixConnector

from proxy.admin.control_socket import process_behind

if TYPE_CHECKING:
    from proxy.control.commands import Question

# Seconds. A reload may wait for its workers, an upgrade for a whole start.
QUICK = 10.0
PATIENT = 120.0
# Verdicts that readmission changes.
_KEPT_OUT = ("fenced", "held off", "check failed")


class AdminError(Exception):
    """A command that failed; the message says why."""

    exit_status = 1


class NoAnswerError(AdminError):
    """No balanceme answers on the path."""

    exit_status = 3


class MistakesError(AdminError):
    """The configuration can't be used; ``mistakes`` are lines."""

    exit_status = 2

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def status(path: Path) -> dict[str, Any]:
    """How everything is: the tree of ``Commands.status``. Raises AdminError."""
    return _call(path, "GET", "status")


def reload(path: Path, *, dry_run: bool) -> list[str]:
    """Put the configuration file in force, or only ask; what changes, in lines.

    Raises MistakesError if the file can't be used, else AdminError.
    """
    answer = _call(path, "POST", "reload", {"dry_run": dry_run}, seconds=PATIENT)
    return [str(line) for line in _of(answer, "changes", path)]


def upgrade(path: Path) -> int:
    """Start the program anew; the new supervisor's process id. Raises AdminError."""
    return int(_of(_call(path, "POST", "upgrade", seconds=PATIENT), "pid", path))


def explain(path: Path, question: "Question") -> dict[str, Any]:
    """Why a request goes to its member: the answer of ``Commands.explain``. Raises AdminError."""
    body = {key: value for key, value in question._asdict().items() if value is not None}
    return _call(path, "POST", "explain", body)


def say_of_member(
    path: Path, member: str, word: str, body: dict[str, Any], balancer: str | None = None
) -> Iterator[dict[str, Any]]:
    """Say something of a member, named by route or url, in all balancers that have it.

    ``word`` and ``body`` are those of the API. Once each such balancer has obeyed, it gives the
    member's entry in the status, as it was before, with the balancer's name under ``balancer``.
    Raises AdminError, also for a member that nobody has; what one balancer refuses is raised when
    all were told.
    """
    meant = members_called(path, member, balancer)
    if word == "readmit":
        # Whatever is not kept out needs no word, and would refuse it.
        meant = [each for each in meant if each.get("verdict") in _KEPT_OUT] or meant
    refused = []
    for name in dict.fromkeys(each["balancer"] for each in meant):
        place = f"balancers/{quote(name, safe='')}/members/{quote(member, safe='')}/{word}"
        try:
            _call(path, "POST", place, body)
        except NoAnswerError:
            raise
        except AdminError as error:
            refused.append(str(error))
        else:
            yield from (each for each in meant if each["balancer"] == name)
    if refused:
        raise AdminError("\n".join(refused))


def members_called(path: Path, member: str, balancer: str | None = None) -> list[dict[str, Any]]:
    """The entries of a member in the status, with the balancer's name. Raises AdminError."""
    balancers = _of(_call(path, "GET", "status"), "balancers", path)
    everybody = [
        {**each, "balancer": name}
        for name, found in balancers.items()
        if balancer in (None, name)
        for each in found["members"]
    ]
    meant = [each for each in everybody if member in (each["route"], each["url"])]
    if not meant:
        names = ", ".join(each["route"] or each["url"] for each in everybody) or "none"
        where = "balancer" if balancer is None else f"balancer {balancer}"
        raise AdminError(f"no {where} has a member {member}; there are: {names}")
    return meant


def sessions(path: Path, balancer: str | None, member: str | None, limit: int) -> dict[str, Any]:
    """Live sessions: the tree of ``SessionCommands.listed``. Raises AdminError."""
    given = {"balancer": balancer, "member": member, "limit": str(limit)}
    query = urlencode({key: value for key, value in given.items() if value is not None})
    return _call(path, "GET", f"sessions?{query}")


def session(path: Path, session_id: str) -> list[dict[str, Any]]:
    """One session's history in each balancer. Raises AdminError."""
    return list(_of(_call(path, "GET", _place_of(session_id)), "sessions", path))


def move_session(
    path: Path, session_id: str, member: str, balancer: str | None, reason: str
) -> list[dict[str, str]]:
    """Move a session: each move's ``balancer``, ``from`` and ``to``. Raises AdminError."""
    body = {"member": member, "reason": reason} | ({"balancer": balancer} if balancer else {})
    return list(_of(_call(path, "POST", f"{_place_of(session_id)}/move", body), "moves", path))


def find_session(path: Path, traits: dict[str, str]) -> str:
    """The id of the session with these traits. Raises AdminError."""
    return str(_of(_call(path, "POST", "sessions/find", traits), "id", path))


def _place_of(session_id: str) -> str:
    return f"sessions/{quote(session_id, safe='')}"


def stop(path: Path, *, at_once: bool) -> None:
    """Stop it, and wait until it has ended. Raises AdminError.

    An upgrade meanwhile doesn't matter: the wait is for the one that was asked.
    """
    with until_it_ends(path):
        try:
            _call(path, "POST", "stop", {"at_once": at_once})
        except _EndedError:
            pass  # at once may be before the answer


@contextmanager
def until_it_ends(path: Path) -> Iterator[int]:
    """The process that answers; at the end of the block its own end is waited for.

    Raises AdminError if nobody answers.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as held:
        try:
            held.connect(str(path))
        except OSError as error:
            raise _unreachable(path, error) from error
        yield process_behind(held)
        try:
            held.recv(1)  # it never sends anything here, and closes in the end
        except ConnectionError:
            pass


class _EndedError(NoAnswerError):
    """The supervisor took the request, and ended before it had answered."""


def _call(
    path: Path,
    method: str,
    command: str,
    body: dict[str, Any] | None = None,
    *,
    seconds: float = QUICK,
) -> dict[str, Any]:
    """The object that answers a request. Raises AdminError."""
    try:
        code, text = asyncio.run(_exchange(path, method, command, body, seconds))
    except ClientConnectorError as error:
        raise _unreachable(path, error.os_error) from error
    except TimeoutError as error:
        raise NoAnswerError(f"balanceme on {path} gave no answer for {seconds:g} s") from error
    except (ClientError, ConnectionError) as error:
        raise _EndedError(
            f"balanceme on {path} ended before it had answered; see its log"
        ) from error
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise _foreign(path) from error
    if not isinstance(answer, dict):
        raise _foreign(path)
    if code == 422:
        raise MistakesError([str(line) for line in _of(answer, "mistakes", path)])
    if code != 200:
        raise AdminError(str(_of(answer, "error", path)))
    return answer


async def _exchange(
    path: Path, method: str, command: str, body: dict[str, Any] | None, seconds: float
) -> tuple[int, bytes]:
    # The name only has to be one: the socket is the address.
    url = f"http://balanceme/v1/{command}"
    async with (
        ClientSession(
            connector=UnixConnector(str(path)), timeout=ClientTimeout(total=seconds)
        ) as session,
        session.request(method, url, json=body, allow_redirects=False) as response,
    ):
        return response.status, await response.read()


def _of(answer: dict[str, Any], key: str, path: Path) -> Any:
    if key not in answer:
        raise _foreign(path)
    return answer[key]


def _foreign(path: Path) -> AdminError:
    return AdminError(f"what answers on {path} is no balanceme, or one of another version")


def _unreachable(path: Path, error: OSError) -> AdminError:
    """What connecting ran into, in words."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return AdminError(
            f"{path} may not be used by this user; try as root or as a member of its group"
        )
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
        return NoAnswerError(
            f"no balanceme answers on {path}; is it running? with another --socket?"
        )
    # A path that is too long has no number.
    return NoAnswerError(f"no balanceme can be reached on {path}: {error.strerror or error}")
