"""Listening sockets by their ``listen`` text: bound by us, handed over by systemd or by an upgrade.

An address is what ``getsockname`` says, so a socket that is open already is known whoever bound
it. All of ours are alike wherever they came from: the same options, and never inherited by chance.
"""

import logging
import os
import re
import socket
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

from proxy.core.errors import ConfigError, Mistake
from proxy.core.values import listen_host_port

log = logging.getLogger("balanceme")

# Connections that may wait to be accepted; the kernel lowers it to net.core.somaxconn.
BACKLOG = 4096
# Quiet connections are probed, so that NAT and firewalls don't forget them (D40): the first probe
# after so many seconds, then so often.
KEEPALIVE_IDLE = 120
KEEPALIVE_INTERVAL = 30
# Descriptors from systemd begin here (sd_listen_fds(3)).
FIRST_DESCRIPTOR = 3
# Where the new program of an upgrade finds the descriptors of its sockets: 5,6,9.
HANDED_OVER = "BALANCEME_SOCKETS"

Address = tuple[Any, ...]
"""Host and port of a socket, and for IPv6 flow and scope, as ``getsockname`` tells them."""


def bind(
    listens: Sequence[str], available: Mapping[Address, socket.socket]
) -> dict[str, socket.socket]:
    """A listening socket for each address; those that are ``available`` are used, others bound.

    ``listens`` are in the order of the frontends. Raises ConfigError with every address that can't
    be listened on; what was opened here is closed again, and what was available stays open.
    """
    found: dict[str, socket.socket] = {}
    opened: list[socket.socket] = []
    mistakes: list[Mistake] = []
    for index, listen in enumerate(listens):
        try:
            family, address = _resolve(listen)
            sock = available.get(address)
            # One that is used already is no other's: binding tells that the address is taken.
            if sock is None or sock in found.values():
                sock = _open(family, address)
                opened.append(sock)
            found[listen] = sock
        except OSError as error:
            mistakes.append(Mistake(("frontends", index, "listen"), _reason(listen, error)))
    if mistakes:
        close_all(opened)
        raise ConfigError(mistakes)
    return found


def by_address(sockets: Iterable[socket.socket]) -> dict[Address, socket.socket]:
    """Sockets as ``bind`` wants them. A second one of an address (SO_REUSEPORT) is closed."""
    found: dict[Address, socket.socket] = {}
    for sock in sockets:
        first = found.setdefault(sock.getsockname(), sock)
        if first is not sock:
            # Left open, it would be given connections that nobody accepts.
            log.warning("%s was handed over twice; one of the sockets is closed", _name(sock))
            sock.close()
    return found


def close_unwanted(
    available: Mapping[Address, socket.socket], used: Iterable[socket.socket]
) -> None:
    """Close those that no frontend listens on, lest clients connect to nobody."""
    wanted = set(used)
    for sock in available.values():
        if sock not in wanted:
            log.warning(
                "no frontend listens on %s, so the socket for it is closed; were it systemd's, take"
                " it out of the socket's unit, where clients still wait",
                _name(sock),
            )
            sock.close()


def close_all(sockets: Iterable[socket.socket]) -> None:
    """Close them without a word."""
    for sock in sockets:
        sock.close()


# --- handed over -------------------------------------------------------------------------------


def from_systemd(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The sockets that systemd opened for us (sd_listen_fds(3)); takes its words from ``environ``.

    Raises ConfigError for what isn't a listening TCP socket.
    """
    process = environ.pop("LISTEN_PID", None)
    count = environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if process != str(os.getpid()):
        return []
    if not re.fullmatch(r"[0-9]{1,4}", count):
        raise ConfigError([Mistake((), f"LISTEN_FDS is {count!r}, and no number of sockets")])
    descriptors = range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count))
    named = dict(zip(descriptors, names, strict=False))
    return _adopt({fd: f"{named.get(fd) or 'a socket'} from systemd" for fd in descriptors})


def from_upgrade(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The sockets of the program that started this one; takes its word from ``environ``.

    Raises ConfigError for what isn't a listening TCP socket.
    """
    text = environ.pop(HANDED_OVER, "")
    if not re.fullmatch(r"([0-9]{1,7}(,[0-9]{1,7})*)?", text):
        raise ConfigError([Mistake((), f"{HANDED_OVER} is {text!r}, and no list of descriptors")])
    descriptors = [int(fd) for fd in text.split(",") if fd]
    return _adopt(dict.fromkeys(descriptors, "a socket from an upgrade"))


def for_upgrade(sockets: Iterable[socket.socket]) -> tuple[dict[str, str], tuple[int, ...]]:
    """What the new program of an upgrade needs: an entry of its environment, and ``pass_fds``."""
    descriptors = tuple(sock.fileno() for sock in sockets)
    return {HANDED_OVER: ",".join(map(str, descriptors))}, descriptors


def _adopt(descriptors: Mapping[int, str]) -> list[socket.socket]:
    """Sockets from descriptors, each with a name for the operator."""
    found: list[socket.socket] = []
    mistakes: list[Mistake] = []
    for fd, name in descriptors.items():
        try:
            sock = socket.socket(fileno=fd)
            found.append(sock)
            reason = _unfit(sock)
            if reason is None:
                _set_options(sock)
        except OSError as error:
            reason = f"can't be used: {error.strerror}"
        if reason is not None:
            mistakes.append(Mistake((), f"{name} (descriptor {fd}) {reason}"))
    if mistakes:
        close_all(found)
        raise ConfigError(mistakes)
    return found


def _unfit(sock: socket.socket) -> str | None:
    """Why clients can't be accepted from a socket, if they can't."""
    is_tcp = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM
    if not is_tcp or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "is no listening TCP socket; ListenStream=address:port with Accept=no makes one"
    if sock.family == socket.AF_INET6 and not sock.getsockopt(
        socket.IPPROTO_IPV6, socket.IPV6_V6ONLY
    ):
        # A client's 192.0.2.1 would be ::ffff:192.0.2.1, which no trusted_proxies names.
        return "takes IPv4 as well; BindIPv6Only=ipv6-only in the socket's unit ends that"
    return None


# --- one socket --------------------------------------------------------------------------------


def _resolve(listen: str) -> tuple[socket.AddressFamily, Address]:
    """The address as ``getsockname`` will tell it. Asks nobody: it is an address, or localhost."""
    host, port = listen_host_port(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return family, found[0][4]


def _open(family: socket.AddressFamily, address: Address) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # [::] is IPv6 alone, so that 0.0.0.0 can stand beside it on every system.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        _set_options(sock)
    except OSError:
        sock.close()
        raise
    return sock


def _set_options(sock: socket.socket) -> None:
    """Listen, with what accepted connections inherit; no program inherits the socket itself."""
    sock.set_inheritable(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
    # On one that listens already this sets the backlog alone.
    sock.listen(BACKLOG)


def _reason(listen: str, error: OSError) -> str:
    text = f"can't listen on {listen}: {error.strerror}"
    if isinstance(error, PermissionError):
        text += "; ports below 1024 need root or CAP_NET_BIND_SERVICE"
    return text


def _name(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"
