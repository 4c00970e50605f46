"""Listening sockets: bound here, or taken over from systemd and from an older program."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.control import sockets
from proxy.control.sockets import (
    bind,
    by_address,
    close_unwanted,
    for_upgrade,
    from_systemd,
    from_upgrade,
)
from proxy.core.errors import ConfigError

Open = Callable[..., socket.socket]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Makes sockets on free ports of an address; all are closed in the end."""
    made: list[socket.socket] = []

    def make(host: str = "127.0.0.1", *, listening: bool = True) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        made.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, 0))
        if listening:
            sock.listen()
        return sock

    yield make
    sockets.close_all(made)


def port(sock: socket.socket) -> int:
    """The port that a socket is bound to."""
    found: int = sock.getsockname()[1]
    return found


def free(opened: Open) -> int:
    """A port that others who set SO_REUSEADDR may listen on."""
    return port(opened(listening=False))


def check_options(sock: socket.socket) -> None:
    """A socket is as all of ours are."""
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 120
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 30
    assert not sock.get_inheritable()


# --- bound here --------------------------------------------------------------------------------


def test_binds(opened: Open) -> None:
    """Each address gets a socket that listens, and clients' connections are probed (D40)."""
    number = free(opened)
    listens = [f"127.0.0.1:{number}", f"[::1]:{number}"]
    found = bind(listens, {})
    assert list(found) == listens
    for sock in found.values():
        check_options(sock)
        with socket.create_connection(sock.getsockname()[:2]):
            client, _ = sock.accept()
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            client.close()
        sock.close()


def test_wildcards_stand_side_by_side(opened: Open) -> None:
    """All of IPv4 and all of IPv6 are two addresses of the same port."""
    number = port(opened("0.0.0.0", listening=False))
    found = bind([f"0.0.0.0:{number}", f"[::]:{number}"], {})
    assert len(found) == 2
    sockets.close_all(found.values())


def test_every_refusal_is_told(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """All addresses that can't be had are told at once, and nothing stays open."""
    number, taken = free(opened), port(opened())
    made: list[socket.socket] = []
    original = sockets._open

    def watched(*arguments: object) -> socket.socket:
        made.append(original(*arguments))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(sockets, "_open", watched)
    listens = [f"127.0.0.1:{taken}", f"127.0.0.1:{number}", f"192.0.2.1:{number}"]
    with pytest.raises(ConfigError) as caught:
        bind(listens, {})
    assert [tuple(mistake) for mistake in caught.value.mistakes] == [
        (
            ("frontends", 0, "listen"),
            f"can't listen on {listens[0]}: Address already in use",
            False,
        ),
        (
            ("frontends", 2, "listen"),
            f"can't listen on {listens[2]}: Cannot assign requested address",
            False,
        ),
    ]
    assert [sock.fileno() for sock in made] == [-1]


def test_forbidden_port_names_the_remedy(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who isn't root is told what ports below 1024 need."""

    # By hand, since root may bind any port.
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sockets, "_set_options", refuse)
    with pytest.raises(ConfigError, match=r"Permission denied; ports below 1024 need root or CAP"):
        bind([f"127.0.0.1:{free(opened)}"], {})


# --- available ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "written"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "localhost"),
        ("0.0.0.0", "0.0.0.0"),
        ("::1", "[::1]"),
        ("::1", "[0:0::0:0001]"),
        ("::", "[::]"),
    ],
)
def test_open_socket_is_used(opened: Open, host: str, written: str) -> None:
    """A socket that is open for the same address is taken, however the address is written."""
    sock = opened(host)
    listen = f"{written}:{port(sock)}"
    assert bind([listen], by_address([sock])) == {listen: sock}


def test_another_address_is_another_socket(opened: Open) -> None:
    """All of IPv6 isn't all of IPv4, and one address isn't another on the same port."""
    sock = opened("::")
    number = port(sock)
    found = bind([f"127.0.0.1:{number}", f"127.0.0.2:{number}"], by_address([sock]))
    assert sock not in found.values()
    sockets.close_all(found.values())


def test_one_socket_for_two_names(opened: Open) -> None:
    """An address that is written in two ways is one, and taken the second time."""
    sock = opened()
    listens = [f"127.0.0.1:{port(sock)}", f"localhost:{port(sock)}"]
    with pytest.raises(ConfigError, match="Address already in use") as caught:
        bind(listens, by_address([sock]))
    assert [mistake.path for mistake in caught.value.mistakes] == [("frontends", 1, "listen")]
    assert sock.fileno() >= 0


def test_unwanted_sockets_are_closed(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    """Clients can't connect to a socket that no frontend listens on, and the operator is told."""
    wanted, first, second = opened(), opened(), opened("::1")
    names = [f"127.0.0.1:{port(first)}", f"[::1]:{port(second)}"]
    close_unwanted(by_address([first, wanted, second]), [wanted])
    assert wanted.fileno() >= 0
    assert (first.fileno(), second.fileno()) == (-1, -1)
    told = [record.getMessage().partition(";")[0] for record in caplog.records]
    assert told == [f"no frontend listens on {n}, so the socket for it is closed" for n in names]


def test_second_socket_of_an_address(caplog: pytest.LogCaptureFixture) -> None:
    """Of two sockets for one address one is closed, since nobody would accept from it."""
    pair = [socket.socket(), socket.socket()]
    address: tuple[str, int] = ("127.0.0.1", 0)
    for sock in pair:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        sock.listen()
        address = sock.getsockname()
    assert by_address(pair) == {address: pair[0]}
    assert pair[1].fileno() == -1
    assert f"127.0.0.1:{address[1]} was handed over twice" in caplog.text
    pair[0].close()


# --- handed over -------------------------------------------------------------------------------


def test_descriptors_of_systemd(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets that systemd opened get our options, and the environment forgets them."""
    fd = os.dup(opened().fileno())
    os.set_inheritable(fd, True)
    monkeypatch.setattr(sockets, "FIRST_DESCRIPTOR", fd)
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web", "A": ""}
    [sock] = from_systemd(environ)
    assert sock.fileno() == fd
    check_options(sock)
    assert environ == {"A": ""}
    sock.close()


@pytest.mark.parametrize("process", [None, "1"])
def test_descriptors_of_another_process(process: str | None) -> None:
    """What names another process is not for us, nor for our children."""
    environ = {"LISTEN_FDS": "1"} | ({"LISTEN_PID": process} if process else {})
    assert from_systemd(environ) == []
    assert environ == {}


@pytest.mark.parametrize("count", ["", "two", "-1", "99999"])
def test_count_that_is_none(count: str) -> None:
    """A number of sockets that is none is told."""
    with pytest.raises(ConfigError, match="LISTEN_FDS"):
        from_systemd({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count})


def test_descriptors_that_do_not_listen(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound socket, a datagram socket, a unix socket, a file and none at all are told by name."""
    with Path(os.devnull).open() as file, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        unix = socket.socket(socket.AF_UNIX)
        kinds: list[Any] = [opened(listening=False), datagram, unix, file]
        first = 700
        for place, kind in enumerate(kinds, first):
            os.dup2(kind.fileno(), place)
        unix.close()
        monkeypatch.setattr(sockets, "FIRST_DESCRIPTOR", first)
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "5", "LISTEN_FDNAMES": "web:dns"}
        with pytest.raises(ConfigError) as caught:
            from_systemd(environ)
        os.close(first + 3)
    unfit = "is no listening TCP socket; ListenStream=address:port with Accept=no makes one"
    assert [mistake.message for mistake in caught.value.mistakes] == [
        f"web from systemd (descriptor 700) {unfit}",
        f"dns from systemd (descriptor 701) {unfit}",
        f"a socket from systemd (descriptor 702) {unfit}",
        "a socket from systemd (descriptor 703) can't be used: Socket operation on non-socket",
        "a socket from systemd (descriptor 704) can't be used: Bad file descriptor",
    ]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(first)


def test_socket_for_both_families() -> None:
    """An IPv6 socket that takes IPv4 as well is refused, with the word that the unit lacks."""
    sock = socket.socket(socket.AF_INET6)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", 0))
    sock.listen()
    environ = {"BALANCEME_SOCKETS": str(sock.detach())}
    with pytest.raises(ConfigError, match="takes IPv4 as well; BindIPv6Only=ipv6-only"):
        from_upgrade(environ)


@pytest.mark.parametrize("text", ["x", "5,", ",", "-1", "5;6", "99999999999999999999"])
def test_list_of_an_upgrade_that_is_none(text: str) -> None:
    """A list that is none is told."""
    with pytest.raises(ConfigError, match="BALANCEME_SOCKETS"):
        from_upgrade({"BALANCEME_SOCKETS": text})


def test_no_upgrade() -> None:
    """Who wasn't started by an upgrade has no sockets from one."""
    assert from_upgrade({}) == []


# The new program: what it took over, and what its environment says afterwards.
TAKE_OVER = """\
import os, sys
from proxy.control.sockets import from_systemd, from_upgrade
for sock in [*from_systemd(os.environ), *from_upgrade(os.environ)]:
    print(*sock.getsockname()[:2], sock.get_inheritable())
    sock.close()
print([name for name in os.environ if name.startswith(("LISTEN_", "BALANCEME_"))])
"""


def test_upgrade(opened: Open) -> None:
    """A new program has the sockets of the one that started it, and they go no further."""
    pair = [opened(), opened("::1")]
    entry, descriptors = for_upgrade(pair)
    done = subprocess.run(
        [sys.executable, "-c", TAKE_OVER],
        env=os.environ | entry,
        pass_fds=descriptors,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [f"127.0.0.1 {port(pair[0])} False", f"::1 {port(pair[1])} False", "[]"]
    assert done.stdout.splitlines() == lines


def test_socket_activation(opened: Open) -> None:
    """A process that is started as systemd starts it finds its sockets from descriptor 3 on."""
    sock = opened()
    start = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" -c "$1" 3<&0 </dev/null'
    done = subprocess.run(
        ["/bin/sh", "-c", start, sys.executable, TAKE_OVER],
        stdin=sock.fileno(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [f"127.0.0.1 {port(sock)} False", "[]"]
