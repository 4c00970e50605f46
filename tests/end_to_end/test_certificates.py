"""Certificate files that change while they are served (H78)."""

import signal
import socket
import ssl
from pathlib import Path

import pytest
import trustme

from tests.end_to_end.conftest import NAME, Authority, Launcher, Members, Proxy, until

pytestmark = pytest.mark.slow

REQUEST = b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % NAME.encode()


def write(folder: Path, issued: trustme.LeafCert, *kinds: str) -> None:
    """Put a certificate, its key or both in the files that are served, as a renewal would."""
    contents = {
        "certificate": b"".join(blob.bytes() for blob in issued.cert_chain_pems),
        "key": issued.private_key_pem.bytes(),
    }
    for kind in kinds:
        made = folder / f"{kind}.new"
        made.touch(mode=0o600)
        made.write_bytes(contents[kind])
        made.replace(folder / kind)


def connect(proxy: Proxy, authority: Authority) -> ssl.SSLSocket:
    """A client's connection."""
    sock = socket.create_connection(proxy.address(), timeout=10)
    return authority.trust().wrap_socket(sock, server_hostname=NAME)


def serial(client: ssl.SSLSocket) -> str:
    """Which certificate a connection has."""
    certificate = client.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


def test_taken_up_on_their_own(
    serve: Launcher, members: Members, authority: Authority, tmp_path: Path
) -> None:
    """With reload_certificates: auto a new pair is served within seconds, once it is whole.

    Connections that are there stay, and half a pair changes nothing but is told.
    """
    old, new = authority.ca.issue_cert(NAME), authority.ca.issue_cert(NAME)
    write(tmp_path, old, "certificate", "key")
    tls = {"certificate": str(tmp_path / "certificate"), "key": str(tmp_path / "key")}
    proxy = serve(members("server1"), frontend={"tls": tls}, workers=2, reload_certificates="auto")
    with connect(proxy, authority) as client:
        before = serial(client)
        write(tmp_path, new, "certificate")
        until(lambda: "certificate files have changed, but can't" in proxy.stderr(), "a word")
        with connect(proxy, authority) as other:
            assert serial(other) == before
        write(tmp_path, new, "key")
        until(lambda: "and are read anew" in proxy.stderr(), "it is taken up")
        until(lambda: "generation 2" in proxy.stderr(), "it is in force")
        for _ in range(8):  # whichever worker it is
            with connect(proxy, authority) as other:
                assert serial(other) != before
        client.sendall(REQUEST)
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
    assert proxy.stderr().count("can't be used") == 1
    assert "PRIVATE KEY" not in proxy.stderr()


def test_left_alone_without_it(
    serve: Launcher, members: Members, authority: Authority, tmp_path: Path
) -> None:
    """By default files are read again by a reload only."""
    old, new = authority.ca.issue_cert(NAME), authority.ca.issue_cert(NAME)
    write(tmp_path, old, "certificate", "key")
    tls = {"certificate": str(tmp_path / "certificate"), "key": str(tmp_path / "key")}
    proxy = serve(members("server1"), frontend={"tls": tls})
    with connect(proxy, authority) as client:
        before = serial(client)
    write(tmp_path, new, "certificate", "key")
    proxy.process.send_signal(signal.SIGHUP)
    until(lambda: "generation 2" in proxy.stderr(), "the reload")
    with connect(proxy, authority) as client:
        assert serial(client) != before
