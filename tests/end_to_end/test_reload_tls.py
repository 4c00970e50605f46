"""A reload takes up certificates, and nobody notices who is connected or comes again (H78)."""

import shutil
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.end_to_end.conftest import (
    HOST,
    NAME,
    PATIENCE,
    Authority,
    Dial,
    Launcher,
    Members,
    Proxy,
    Yaml,
    connect,
    request,
)
from tests.end_to_end.reloads import ask, code, generations, one_each, port_of, reload, worker_at

pytestmark = pytest.mark.slow

OTHER = "other.example.net"


class Handshake(NamedTuple):
    """What a client found."""

    worker: int
    names: set[str]
    serial: str
    session: ssl.SSLSession | None
    resumed: bool


def shake_hands(
    proxy: Proxy, trust: ssl.SSLContext, name: str = NAME, session: ssl.SSLSession | None = None
) -> Handshake:
    """A connection with one request, which brings the ticket."""
    with (
        connect(proxy) as raw,
        trust.wrap_socket(raw, server_hostname=name, session=session) as sock,
    ):
        sock.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
        worker = worker_at(proxy, port_of(sock))
        found = sock.getpeercert() or {}
        names = {str(entry[1]) for entry in found["subjectAltName"]}
        return Handshake(
            worker, names, str(found["serialNumber"]), sock.session, sock.session_reused or False
        )


def at_each(
    proxy: Proxy, trust: ssl.SSLContext, name: str = NAME, session: ssl.SSLSession | None = None
) -> list[Handshake]:
    """The same with every worker."""
    found: dict[int, Handshake] = {}
    while len(found) < len(proxy.workers):
        shaken = shake_hands(proxy, trust, name, session)
        found.setdefault(shaken.worker, shaken)
    return list(found.values())


@pytest.fixture
def proxy(serve: Launcher, members: Members, authority: Authority, tmp_path: Path) -> Proxy:
    """Two workers, with a certificate's file of the test's own."""
    file = shutil.copy(authority.certificate, tmp_path / "mail.pem")
    tls = {"certificate": str(file)}
    return serve(members("server1"), workers=2, frontend={"tls": tls})


def certificate(proxy: Proxy) -> Path:
    """The file of the first certificate."""
    tls = proxy.settings["frontends"][0]["tls"]
    return Path((tls[0] if isinstance(tls, list) else tls)["certificate"])


def test_another_file(
    proxy: Proxy, dial: Dial, authority: Authority, trust: ssl.SSLContext
) -> None:
    """Another file in the settings; connections that are there go on."""
    before = at_each(proxy, trust)
    kept = one_each(proxy, dial)
    former, file = certificate(proxy), authority.issue("second", NAME)
    proxy.settings["frontends"][0]["tls"] = {"certificate": str(file)}
    place = f"frontends {HOST}:{proxy.address()[1]} tls all names"
    assert reload(proxy) == [f"{place}: certificate {former} -> {file}"]
    after = at_each(proxy, trust)
    assert {each.names == {NAME} for each in after} == {True}
    assert {each.serial for each in before}.isdisjoint(each.serial for each in after)
    assert {code(ask(client)) for client in kept} == {200}


def test_the_same_file_with_other_content(
    proxy: Proxy, dial: Dial, authority: Authority, trust: ssl.SSLContext
) -> None:
    """A renewed certificate is taken up, and said, though the settings are the same."""
    (before,) = {each.serial for each in at_each(proxy, trust)}
    kept = one_each(proxy, dial)
    assert reload(proxy) == ["nothing changes"]
    shutil.copy(authority.issue("renewed", NAME), certificate(proxy))
    assert {each.serial for each in at_each(proxy, trust)} == {before}
    place = f"frontends {HOST}:{proxy.address()[1]} tls"
    expected = [f"{place}: the files of {certificate(proxy)} have changed, and are read anew"]
    assert reload(proxy, dry_run=True) == expected
    assert {each.serial for each in at_each(proxy, trust)} == {before}
    assert reload(proxy) == expected
    (after,) = {each.serial for each in at_each(proxy, trust)}
    assert after != before
    assert f"reloaded: {expected[0]}" in proxy.stderr()
    assert reload(proxy) == ["nothing changes"]
    assert {code(ask(client)) for client in kept} == {200}


def test_names(proxy: Proxy, dial: Dial, authority: Authority, trust: ssl.SSLContext) -> None:
    """Certificates by name come, change their names and go."""
    first = str(certificate(proxy))
    second = str(authority.issue("other", OTHER))
    kept = one_each(proxy, dial)

    def put(*tls: Yaml) -> list[str]:
        proxy.settings["frontends"][0]["tls"] = list(tls)
        return reload(proxy)

    put({"certificate": first}, {"certificate": second, "names": [OTHER]})
    assert {frozenset(each.names) for each in at_each(proxy, trust, OTHER)} == {frozenset({OTHER})}
    assert {NAME in each.names for each in at_each(proxy, trust)} == {True}
    put({"certificate": second}, {"certificate": first, "names": [NAME]})
    assert {frozenset(each.names) for each in at_each(proxy, trust, OTHER)} == {frozenset({OTHER})}
    assert {NAME in each.names for each in at_each(proxy, trust)} == {True}
    put({"certificate": first})
    for _ in range(6):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(proxy, trust, OTHER)
    assert {code(ask(client)) for client in kept} == {200}


def test_several_certificates_and_kept_connections(
    proxy: Proxy, dial: Dial, authority: Authority
) -> None:
    """A client is not sent away (421) since its certificate was read anew, or another one came."""
    first = str(certificate(proxy))
    second = str(authority.issue("other", OTHER))
    one = one_each(proxy, dial)
    tls = [
        {"certificate": first, "names": [NAME]},
        {"certificate": second, "names": [OTHER]},
    ]
    proxy.settings["frontends"][0]["tls"] = tls
    reload(proxy)
    named = one_each(proxy, dial)
    nameless = ssl.create_default_context()
    nameless.check_hostname = False
    nameless.verify_mode = ssl.CERT_NONE
    misdirected = f"GET / HTTP/1.1\r\nHost: {OTHER}\r\n\r\n".encode()
    with connect(proxy) as raw, nameless.wrap_socket(raw) as sock:
        for number in range(3):
            assert {code(ask(client)) for client in (*one, *named)} == {200}
            sock.sendall(misdirected)
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
            proxy.settings["server"] = f"other{number}"
            reload(proxy)
        for client in one_each(proxy, dial):
            client.send(misdirected)
            assert code(client.read_response(b"GET")) == 421


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed(proxy: Proxy, authority: Authority, version: ssl.TLSVersion) -> None:
    """A ticket from before counts in every worker, for an address that was added as well."""
    trust = authority.trust()
    trust.minimum_version = trust.maximum_version = version
    session = shake_hands(proxy, trust).session
    shutil.copy(authority.issue("renewed", NAME), certificate(proxy))
    reload(proxy)
    proxy.settings["workers"] = 3
    reload(proxy)
    assert [each.resumed for each in at_each(proxy, trust, session=session)] == [True] * 3


def test_tickets_of_an_address_that_was_added(
    proxy: Proxy, serve: Launcher, authority: Authority
) -> None:
    """All workers know them, one that is forked later too."""
    trust = authority.trust()
    added = serve.frontend({"path": "/", "balancer": "cluster"})
    proxy.settings["frontends"].insert(0, added)
    reload(proxy)
    session = shake_hands(proxy, trust).session
    proxy.settings["workers"] = 3
    reload(proxy)
    assert [each.resumed for each in at_each(proxy, trust, session=session)] == [True] * 3


def test_min_version(proxy: Proxy, authority: Authority) -> None:
    """The oldest version of TLS, up and down again."""
    trust = authority.trust()
    trust.maximum_version = ssl.TLSVersion.TLSv1_2
    at_each(proxy, trust)
    proxy.settings["frontends"][0]["tls"]["min_version"] = "1.3"
    reload(proxy)
    for _ in range(6):
        with pytest.raises(ssl.SSLError):
            shake_hands(proxy, trust)
    proxy.settings["frontends"][0]["tls"]["min_version"] = "1.2"
    reload(proxy)
    at_each(proxy, trust)
    assert generations(proxy) == {3}


@pytest.mark.parametrize("sent", [1, 100, None], ids=["a byte", "a part", "the whole hello"])
def test_in_the_middle_of_a_handshake(
    proxy: Proxy, authority: Authority, trust: ssl.SSLContext, sent: int | None
) -> None:
    """A handshake that has begun comes to its end, across several reloads."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = trust.wrap_bio(incoming, outgoing, server_hostname=NAME)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    with connect(proxy) as sock:
        sock.sendall(hello[:sent])
        if sent is None:
            incoming.write(sock.recv(65536))
        for name in ("renewed", "renewed again"):
            shutil.copy(authority.issue(name, NAME), certificate(proxy))
            reload(proxy)
        sock.sendall(b"" if sent is None else hello[sent:])
        finish(tls.do_handshake, sock, incoming, outgoing)
        tls.write(request("/"))
        assert b"server1" in finish(lambda: tls.read(65536), sock, incoming, outgoing)


def finish(
    step: Callable[[], bytes | None],
    sock: socket.socket,
    incoming: ssl.MemoryBIO,
    outgoing: ssl.MemoryBIO,
) -> bytes:
    """Move bytes until a step is done; what it gives."""
    sock.settimeout(PATIENCE)
    while True:
        try:
            found = step()
        except ssl.SSLWantReadError:
            sock.sendall(outgoing.read())
            data = sock.recv(65536)
            assert data, "the proxy has closed"
            incoming.write(data)
        else:
            sock.sendall(outgoing.read())
            return found or b""
