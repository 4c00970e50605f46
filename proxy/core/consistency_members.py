"""Mistakes between the settings that tell how members fail and come back, and who is told.

The second part of ``consistency``, with the same rule: never raise, and say nothing about what
another check reports. Each finder takes the tree's root and a balancer, or a hook.
"""

from collections.abc import Callable, Iterator

from proxy.core.errors import Mistake
from proxy.core.raw import Raw, among, listed, shown
from proxy.core.settings import HealthCheck

Finder = Callable[[Raw, Raw], Iterator[Mistake]]

# What each type of check has a use for, beside what every one has.
_ALWAYS = "type name required interval timeout passes fails"
_HOST = f"{_ALWAYS} host port"
_TLS = "verify ca_file server_name"
_REQUEST = "method path host_field statuses body"
USES = {
    "http": f"{_HOST} {_REQUEST}",
    "https": f"{_HOST} {_REQUEST} {_TLS} certificate_days",
    "tcp": _HOST,
    "tls": f"{_HOST} {_TLS} certificate_days",
    "smtp": f"{_HOST} tls {_TLS} hello",
    "lmtp": f"{_HOST} tls {_TLS} hello",
    "imap": f"{_HOST} tls {_TLS}",
    "pop3": f"{_HOST} tls {_TLS}",
    "mysql": f"{_HOST} credentials_file",
    "zarafa": f"{_HOST} tls {_TLS} statuses",
    "activesync": f"{_HOST} tls {_TLS} path host_field statuses credentials_file",
    "command": f"{_ALWAYS} command",
}


def health_check_mistakes(_: Raw, balancer: Raw) -> Iterator[Mistake]:
    """A check has the settings that its type has a use for, and names tell checks apart."""
    for place in (balancer, *balancer.at("members").entries()):
        checks = place.at("health_checks").entries()
        for check in checks:
            yield from _check(check)
        yield from _same_name(checks)


def _check(check: Raw) -> Iterator[Mistake]:
    kind = check.at("type").text
    if kind not in USES:
        return
    for key in check.named():
        if key in HealthCheck.model_fields and key not in USES[kind].split():
            yield check.at(key).mistake(f"found in a check of type {kind}, which has no use for it")
    if kind == "command" and not check.at("command").value:
        yield check.mistake("found type command without command; it takes program and arguments")


def _same_name(checks: list[Raw]) -> Iterator[Mistake]:
    seen: set[str] = set()
    for check in checks:
        name = check.at("name") if check.at("name").given else check.at("type")
        if name.text in seen:
            yield name.mistake(
                f"found {shown(name.text)} for a second time; name tells checks of one member apart"
            )
        elif name.text is not None:
            seen.add(name.text)


def takeover_mistakes(_: Raw, balancer: Raw) -> Iterator[Mistake]:
    """Who takes over is another member, and it is known when a member has failed."""
    members = balancer.at("members").entries()
    routes = [member.at("route").text for member in members]
    for member in members:
        takeover = member.at("takeover")
        if takeover.text is None or not all(routes):
            continue
        if takeover.text == member.at("route").text:
            yield takeover.mistake(f"found {shown(takeover.text)}, the member's own route")
        elif takeover.text not in routes:
            known = [route for route in routes if route]
            yield takeover.mistake(
                f"found {shown(takeover.text)}, a route that no member has"
                f"{among(takeover.text, known)}"
            )
    if balancer.at("takeover").value == "auto" and not _checked(balancer):
        yield balancer.at("takeover").mistake(_UNCHECKED.format("auto"))
    if balancer.at("fence").value == "on_failure" and not _checked(balancer):
        yield balancer.at("fence").mistake(_UNCHECKED.format("on_failure"))


_UNCHECKED = "found {} without health_checks; without them no member ever counts as failed"


def _checked(balancer: Raw) -> bool:
    """Whether any member has checks; also if that can't be known for sure."""
    places = (balancer, *balancer.at("members").entries())
    return any(
        not isinstance(place.value, dict)
        or place.at("health_checks").value
        or any("check" in name for name in place.named().keys() - {"health_checks"})
        for place in places
    )


def failback_mistakes(_: Raw, balancer: Raw) -> Iterator[Mistake]:
    """A session's home is written in our own cookie, before the separator."""
    failback = balancer.at("failback")
    if failback.value not in ("return", "expire"):
        return
    if not isinstance(balancer.at("session_cookie").value, dict):
        yield failback.mistake(
            f"found {failback.value} without session_cookie, which is where a session's home stands"
        )
    elif not _parts(balancer.at("sticky_separator")):
        yield failback.mistake(
            f"found {failback.value} with sticky_separator: {_written(balancer)}; a session's home"
            " stands before the separator, which then is neither a letter, a digit, @, % nor ~"
        )


def _parts(separator: Raw) -> bool:
    """Whether a separator can't be mistaken for a part of what stands before it."""
    if separator.value is False:
        return False
    # homes, times and signatures consist of these, or are told apart by them
    return not separator.text or not (separator.text.isalnum() or separator.text in "@%~")


def _written(balancer: Raw) -> str:
    value = balancer.at("sticky_separator").value
    return "off" if value is False else str(value)


def hook_mistakes(root: Raw) -> Iterator[Mistake]:
    """A hook is a command or a URL."""
    for hook in root.at("hooks").entries():
        command, url = hook.at("command"), hook.at("url")
        if not isinstance(hook.value, dict):
            continue
        if command.value and url.given:
            yield url.mistake("found beside command; a hook has one of them")
        elif not command.value and not url.given:
            unknown = hook.named().keys() - {"on", "command", "url", "timeout"}
            if not unknown:
                yield hook.mistake(f"found neither of {listed(['command', 'url'])}")


OF_A_BALANCER: tuple[Finder, ...] = (
    health_check_mistakes,
    takeover_mistakes,
    failback_mistakes,
)
