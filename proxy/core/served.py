"""What the frontends let through to a balancer: which mappings, names and paths.

Works on a raw tree and only gathers facts; ``consistency`` judges them.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address

from proxy.core.raw import Raw

ACTIVESYNC = "/Microsoft-Server-ActiveSync"
HOUR = 3600.0
"""Seconds. A device's Ping or Sync waits up to 3540 s (D33, D34)."""


def certificates(frontend: Raw) -> list[Raw]:
    """The entries of ``tls``, also if it is one block instead of a list."""
    tls = frontend.at("tls")
    return [tls] if isinstance(tls.value, dict) else tls.entries()


def mappings_to(root: Raw, balancer: str) -> Iterator[tuple[Raw, Raw]]:
    """Each mapping that leads to a balancer, behind its frontend."""
    for frontend in root.at("frontends").entries():
        for mapping in frontend.at("mappings").entries():
            if mapping.at("balancer").text == balancer:
                yield frontend, mapping


def served_names(root: Raw, balancer: str) -> list[str]:
    """The names by which clients reach a balancer, as far as the configuration tells.

    A mapping's host is the only name for its requests; without one it is every name of the
    frontend. Names that are told nowhere can't be known, so an empty list forbids nothing.
    """
    names: dict[str, None] = {}
    for frontend, mapping in mappings_to(root, balancer):
        host = mapping.at("host")
        for name in [host] if host.given else _frontend_names(frontend):
            if name.text is not None:
                names[name.text.lower()] = None
    return list(names)


def _frontend_names(frontend: Raw) -> list[Raw]:
    entries = certificates(frontend)
    return [
        frontend.at("server_name"),
        *(name for entry in entries for name in entry.at("names").entries()),
    ]


def could_serve(name: str, domain: str) -> bool:
    """Whether a browser takes a cookie for ``domain`` from ``name`` (RFC 6265 section 5.1.3).

    ``*.example.org`` stands for every name below it: one of them fits unless the domain lies
    elsewhere.
    """
    domain = domain.lower().removeprefix(".")
    below = name.lower().removeprefix("*.")
    if below == domain:
        return True
    if below != name.lower() and domain.endswith("." + below):
        return True
    return below.endswith("." + domain) and not _is_address(below)


def _is_address(name: str) -> bool:
    try:
        IPv4Address(name)
    except ValueError:
        return False
    return True


def takes_activesync(frontend: Raw, mapping: Raw) -> bool:
    """Whether ActiveSync's requests come through this mapping.

    They do if its path is ActiveSync's or lies below it (in any case of letters, D1), and through
    / unless the same frontend has a mapping of its own for ActiveSync and the same host, which as
    the longer one takes them away.
    """
    path = (mapping.at("path").text or "").lower()
    activesync = ACTIVESYNC.lower()
    if path != "/":
        return path == activesync or path.startswith(activesync + "/")
    return not any(
        (other.at("path").text or "").lower() == activesync and _host(other) == _host(mapping)
        for other in frontend.at("mappings").entries()
    )


def _host(mapping: Raw) -> str:
    return (mapping.at("host").text or "").lower()
