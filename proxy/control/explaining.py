"""Why a request goes to its member, as the supervisor knows it, or as a file alone says.

Balancers are built from the settings, stand as the cluster says, choose once, and are thrown away:
no worker's count goes on. What each worker counts of its own (whom it elected before) isn't known
here, so that of an election there are the candidates.
"""

import re
import socket
import time
from collections.abc import Iterable
from typing import Any

from proxy.control.cluster import Cluster
from proxy.control.commands import CommandError, Question
from proxy.control.decided import put_heirs, put_status
from proxy.control.session_answers import Ordered, obey
from proxy.control.worker import twin_port
from proxy.core.balancer import Balancer
from proxy.core.explain import Asked, Entrance, Explanation, Known
from proxy.core.explain import explain as explained
from proxy.core.explain_choice import Remarks
from proxy.core.health import Verdict
from proxy.core.mapping import Mapping, MappingTable
from proxy.core.member import Member
from proxy.core.settings import Compat, Frontend, Settings
from proxy.core.values import listen_host_port

# Scheme, host with port, and what is asked for; a fragment stays with the browser.
_URL = re.compile(r"(https?)://([^/?#]*)([^#]*)(?:#.*)?", re.IGNORECASE | re.DOTALL)
_PORTS = {True: 443, False: 80}
_FIELD = "Set-Cookie: "


def explain(
    cluster: Cluster, question: Question, moves: tuple[Ordered, ...] = (), salt: bytes = b""
) -> dict[str, Any]:
    """The answer of ``Commands.explain``; raises CommandError.

    ``moves`` are the operator's, of sessions whose keys were made with ``salt``.
    """
    settings, now, wall = cluster.settings, time.monotonic(), time.time()
    question, port = _understood(question)
    frontend = _frontend(settings, question, port)
    asked = Asked(_bytes(question.target), _field(question.host), _field(question.cookie))
    balancers = {
        name: Balancer(name, balancer, apache=settings.compat is Compat.APACHE)
        for name, balancer in settings.balancers.items()
    }
    for balancer in balancers.values():
        balancer.homes.clock_offset = wall - now
    obey(balancers, moves)
    known = Known(
        now=now,
        salt=salt,
        second=int(wall),
        takeovers={name: each.in_force() for name, each in cluster.takeovers.items()},
        remarks=_put_standing(cluster, balancers.values(), now),
    )
    entrance = _entrance(cluster, frontend, balancers)
    return _told(explained(entrance, asked, known))


def explain_file(settings: Settings, question: Question) -> dict[str, Any]:
    """The same for settings that nobody serves, with all members as they say.

    Raises CommandError.
    """
    cluster = Cluster(settings, 1)
    try:
        for view in cluster.members:
            view.status = view.status._replace(verdict=Verdict.PASSED)
        told = explain(cluster, question)
    finally:
        cluster.board.close()
    text = (
        "members are as the file says: checks pass, nothing is in error, no failover_file is read"
    )
    return {**told, "steps": [text, *told["steps"]]}


# --- the question ------------------------------------------------------------------------------


def _understood(question: Question) -> tuple[Question, int | None]:
    """A URL's host and TLS as if they had been told, and its port."""
    found = _URL.fullmatch(question.target)
    if found is None:
        return question, None
    scheme, authority, target = found.groups()
    if not target.startswith("/"):
        target = f"/{target}"
    tls = scheme.lower() == "https"
    if question.tls not in (None, tls):
        raise CommandError(f"the URL says {scheme}; name a path to ask for the other")
    told = re.fullmatch(r".*:([0-9]{1,5})", authority)
    port = int(told[1]) if told is not None else _PORTS[tls]
    return question._replace(target=target, host=question.host or authority, tls=tls), port


def _frontend(settings: Settings, question: Question, port: int | None) -> Frontend:
    """The frontend that is named, or the first that fits; raises CommandError."""
    wanted = question.tls
    if question.listen is not None:
        found = [each for each in settings.frontends if each.listen == question.listen]
        if not found:
            known = ", ".join(each.listen for each in settings.frontends)
            raise CommandError(f"no frontend listens on {question.listen}; there are: {known}")
    else:
        found = list(settings.frontends)
    fit = [each for each in found if wanted in (None, bool(each.certificates))]
    if not fit:
        where = "no frontend" if question.listen is None else f"{question.listen} is none that"
        raise CommandError(f"{where} speaks {'TLS' if wanted else 'plain HTTP'}")
    # Behind port forwarding a URL's port may be nobody's; without one, who has mappings counts.
    return min(fit, key=lambda each: (_port(each) != port, not each.mappings))


def _port(frontend: Frontend) -> int:
    return listen_host_port(frontend.listen)[1]


def _field(text: str | None) -> bytes | None:
    """A field's value; raises CommandError for one that no client could send."""
    return None if text is None else _bytes(text)


def _bytes(text: str) -> bytes:
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text):
        raise CommandError("target, host and cookie are one line each, without control characters")
    return text.encode()


# --- the answer --------------------------------------------------------------------------------


def _put_standing(
    cluster: Cluster, balancers: Iterable[Balancer], now: float
) -> dict[Member, Remarks]:
    """Let fresh balancers stand as the cluster says; what was said of their members."""
    members = [(balancer, member) for balancer in balancers for member in balancer.members]
    decided = [
        (balancer, member, view.status)
        for (balancer, member), view in zip(members, cluster.members, strict=True)
    ]
    for (balancer, member, status), view in zip(decided, cluster.members, strict=True):
        put_status(balancer, member, status)
        if view.in_error(now):
            balancer.put_in_error(member, status.error_since)
    put_heirs(decided)
    return {
        member: Remarks(view.said, view.fenced, view.health.reason)
        for (_, member), view in zip(members, cluster.members, strict=True)
    }


def _entrance(cluster: Cluster, frontend: Frontend, balancers: dict[str, Balancer]) -> Entrance:
    settings = cluster.settings
    apache = settings.compat is Compat.APACHE
    # Which addresses are rewritten has no part in this, and with many members takes longest.
    bare = [each.model_copy(update={"rewrite_location": False}) for each in frontend.mappings]
    mappings = [Mapping(each, balancers[each.balancer]) for each in bare]
    return Entrance(
        listen=frontend.listen,
        mappings=MappingTable(mappings, apache=apache),
        tls=bool(frontend.certificates),
        apache=apache,
        server_name=frontend.server_name or socket.gethostname(),
        health_path=settings.health_path.encode() if settings.health_path else None,
        leaving=cluster.board.leaving,
        redirect_port=twin_port(settings) if frontend.redirect_to_https else None,
    )


def _told(found: Explanation) -> dict[str, Any]:
    choice, balancer = found.choice, found.balancer
    cookie = found.cookie.decode("ascii", "backslashreplace").strip()
    return {
        "steps": found.steps,
        "balancer": None if balancer is None else balancer.name,
        "members": [
            {"route": member.settings.route, "url": member.settings.url} for member in found.members
        ],
        "session": None if choice is None else choice.session.value,
        "reason": None if choice is None else choice.reason.value,
        "status": found.status,
        "set_cookie": cookie.removeprefix(_FIELD) or None,
    }
