"""TLS as operators and clients need it: versions, names, chains, keys, and nothing said in vain."""

import contextlib
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
import yaml
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.end_to_end.conftest import (
    HOST,
    NAME,
    PATIENCE,
    ROOT,
    Authority,
    Launcher,
    Members,
    Proxy,
    request,
    until,
)

pytestmark = pytest.mark.slow

PASSWORD = "swordfish and more"


class Files(NamedTuple):
    """One certificate in all the forms it may be given in."""

    both: Path
    certificate: Path
    key: Path
    encrypted: Path
    password: Path


def files(folder: Path, ca: trustme.CA, *names: str) -> Files:
    """A certificate for ``names``, with its chain, in files."""
    issued = ca.issue_cert(*names)
    found = Files(*[folder / f"{names[0]}.{kind}" for kind in Files._fields])
    key = issued.private_key_pem.bytes()
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    for secret in (found.both, found.key, found.encrypted, found.password):
        secret.touch(mode=0o600)
    found.both.write_bytes(key + chain)
    found.certificate.write_bytes(chain)
    found.key.write_bytes(key)
    found.encrypted.write_bytes(
        load_pem_private_key(key, None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSWORD.encode())
        )
    )
    found.password.write_text(f"{PASSWORD}\nwhat follows the first line is not read\n")
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the certificates are."""
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def site(serve_all: Launcher, members_all: Members, authority: Authority, folder: Path) -> Proxy:
    """A frontend with three certificates, and one that speaks TLS 1.3 only."""
    between = authority.ca.create_child_ca()
    default = files(folder, between, "default.example.org")
    named = files(folder, authority.ca, NAME)
    wildcard = files(folder, authority.ca, "*.example.net")
    mapping = {"path": "/", "balancer": "cluster"}
    first, strict = serve_all.frontend(mapping), serve_all.frontend(mapping)
    first["tls"] = [
        {"certificate": str(default.certificate), "key": str(default.key)},
        {"certificate": str(named.both), "names": [NAME, "Webmail.example.org"]},
        {
            "certificate": str(wildcard.certificate),
            "key": str(wildcard.encrypted),
            "password_file": str(wildcard.password),
            "names": ["*.example.net"],
        },
    ]
    first["timeouts"] = {"handshake": "500ms", "head": "1s"}
    strict["tls"] |= {"min_version": 1.3}
    member = members_all("server1")
    members = [{"url": f"http://{member.authority.decode()}", "route": "server1"}]
    return serve_all.run(
        {"frontends": [first, strict], "balancers": {"cluster": {"members": members}}}
    )


def shake(
    proxy: Proxy,
    context: ssl.SSLContext,
    name: str | None = NAME,
    frontend: int = 0,
    session: ssl.SSLSession | None = None,
) -> ssl.SSLSocket:
    """A connection after its handshake."""
    raw = socket.create_connection(proxy.address(frontend), timeout=PATIENCE)
    try:
        return context.wrap_socket(
            raw, server_hostname=name, session=session, suppress_ragged_eofs=False
        )
    except BaseException:
        raw.close()
        raise


def answer_of(client: ssl.SSLSocket) -> bytes:
    """What comes in answer to a request, up to the end that TLS itself announces."""
    host = client.server_hostname or NAME
    client.sendall(b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % host.encode())
    data = b""
    while piece := client.recv(65_536):
        data += piece
    return data


def subject(client: ssl.SSLSocket) -> set[str]:
    """The names of the certificate that was shown, and verified."""
    shown = client.getpeercert()
    assert shown is not None
    return {str(entry[1]) for entry in shown["subjectAltName"]}


# --- handshakes that succeed ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "text"),
    [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")],
    ids=["1.2", "1.3"],
)
def test_versions(version: ssl.TLSVersion, text: str, site: Proxy, authority: Authority) -> None:
    """TLS 1.2 and 1.3 serve, with forward secrecy and authenticated encryption (H74)."""
    context = authority.trust()
    context.minimum_version = context.maximum_version = version
    with shake(site, context) as client:
        assert client.version() == text
        cipher = client.cipher()
        assert cipher is not None
        assert cipher[0].startswith(("ECDHE-", "TLS_"))
        assert "GCM" in cipher[0] or "POLY1305" in cipher[0]
        assert client.compression() is None
        # The end of the answer is announced by close_notify, or recv would raise (H77).
        assert answer_of(client).endswith(b"server1")


def hello(version: int, name: bytes = NAME.encode()) -> bytes:
    """A ClientHello of TLS 1.0 to 1.2, as bytes: no library has to be able to speak it."""
    ciphers = bytes.fromhex("c013c014c009c00a002f0035c02bc02f")
    extensions = b"\0\0" + (len(name) + 5).to_bytes(2) + (len(name) + 3).to_bytes(2)
    extensions += b"\0" + len(name).to_bytes(2) + name
    extensions += bytes.fromhex("000a00060004001d0017 000b00020100 000d000a00080403040102010203")
    body = version.to_bytes(2) + bytes(32) + b"\0"
    body += len(ciphers).to_bytes(2) + ciphers + b"\1\0"
    body += len(extensions).to_bytes(2) + extensions
    message = b"\1" + len(body).to_bytes(3) + body
    return b"\x16\3\1" + len(message).to_bytes(2) + message


def test_name_that_is_no_text(site: Proxy, authority: Authority) -> None:
    """A server name of any bytes fails its handshake without a word (H75, H76)."""
    said = site.stderr()
    for name in (b"mail\xff.example.org", b"\xe4\xf6", b"a\0b"):
        with socket.create_connection(site.address(), timeout=PATIENCE) as client:
            client.sendall(hello(0x0303, name))
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(65_536)[:1] in (b"", b"\x15", b"\x16")
    with shake(site, authority.trust()) as late:
        assert answer_of(late).endswith(b"server1")
    assert site.stderr() == said


@pytest.mark.parametrize("version", [0x0300, 0x0301, 0x0302, 0x0303])
def test_old_versions_are_refused(version: int, site: Proxy) -> None:
    """SSL 3, TLS 1.0 and 1.1 get no handshake; the same hello with 1.2 gets one (H74)."""
    with socket.create_connection(site.address(), timeout=PATIENCE) as client:
        client.sendall(hello(version))
        kind = client.recv(65_536)[:1]
    # At best an alert; the event loop closes without one.
    assert kind in ([b"\x16"] if version == 0x0303 else [b"", b"\x15"])


def test_min_version(site: Proxy, authority: Authority) -> None:
    """min_version: 1.3 refuses TLS 1.2 (H74)."""
    context = authority.trust()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        shake(site, context, frontend=1)
    with shake(site, context) as client:
        assert client.version() == "TLSv1.2"
    with shake(site, authority.trust(), frontend=1) as client:
        assert client.version() == "TLSv1.3"


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1"), ([], None)],
    ids=["both", "ours", "none"],
)
def test_alpn(offered: list[str], chosen: str | None, site: Proxy, authority: Authority) -> None:
    """ALPN chooses http/1.1 and never what we don't speak (H76)."""
    context = authority.trust()
    if offered:
        context.set_alpn_protocols(offered)
    with shake(site, context) as client:
        assert client.selected_alpn_protocol() == chosen
        assert answer_of(client).endswith(b"server1")


def test_alpn_of_others(site: Proxy, authority: Authority) -> None:
    """A client that speaks h2 alone is never told that we do (H76)."""
    context = authority.trust()
    context.set_alpn_protocols(["h2"])
    try:
        with shake(site, context) as client:
            assert client.selected_alpn_protocol() is None
    except ssl.SSLError as error:
        assert error.reason == "TLSV1_ALERT_NO_APPLICATION_PROTOCOL"  # noqa: PT017


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (NAME, NAME),
        ("webmail.example.org", NAME),
        ("MAIL.example.ORG", NAME),
        ("a.example.net", "*.example.net"),
        ("b.example.net", "*.example.net"),
        ("example.net", "default.example.org"),
        ("a.b.example.net", "default.example.org"),
        ("default.example.org", "default.example.org"),
        ("elsewhere.example.com", "default.example.org"),
        (None, "default.example.org"),
    ],
)
def test_names_choose_certificates(
    name: str | None, shown: str, site: Proxy, authority: Authority
) -> None:
    """The name in the handshake picks the certificate; the first one serves all others (H76)."""
    context = authority.trust()
    context.check_hostname = False
    with shake(site, context, name) as client:
        assert subject(client) == {shown}
        # Another name in Host is served all the same.
        assert answer_of(client).endswith(b"server1")


def test_chain_is_sent(site: Proxy, authority: Authority) -> None:
    """A client that knows the root alone gets the authority between from us."""
    with shake(site, authority.trust(), "default.example.org") as client:
        assert subject(client) == {"default.example.org"}


@pytest.mark.parametrize("name", ["default.example.org", NAME, "a.example.net"])
@pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"]
)
def test_sessions_are_resumed(
    version: ssl.TLSVersion, name: str, site: Proxy, authority: Authority
) -> None:
    """A second connection needs no full handshake, whichever certificate it is (H77)."""
    context = authority.trust()
    context.minimum_version = context.maximum_version = version
    context.check_hostname = False
    with shake(site, context, name) as client:
        assert not client.session_reused
        assert answer_of(client).endswith(b"server1")
        session = client.session
    with shake(site, context, name, session=session) as client:
        assert client.session_reused
        assert answer_of(client).endswith(b"server1")


# --- handshakes that fail ------------------------------------------------------------------------

NOT_TLS = {
    "plain-http": b"GET / HTTP/1.1\r\nHost: mail.example.org\r\n\r\n",
    "garbage": bytes(range(256)) * 8,
    "zeros": bytes(5000),
    "huge-record": b"\x16\3\1\xff\xff" + b"x" * 5000,
    "empty-record": b"\x16\3\1\0\0" * 100,
    "alerts": b"\x15\3\1\0\2\1\0" * 100,
    "application-data": b"\x17\3\3\0\5hello",
    "broken-hello": hello(0x0303)[:20] + b"\xff" * 200,
    "half-hello": hello(0x0303)[:50],
    "hello-and-garbage": hello(0x0303) + b"garbage" * 100,
    "ssl-2": b"\x80\x2e\1\0\2\0\x15\0\0\0\x10\1\0\x80" + bytes(40),
    "silence": b"",
}


@pytest.mark.parametrize("data", NOT_TLS.values(), ids=NOT_TLS.keys())
def test_what_is_no_handshake(data: bytes, site: Proxy) -> None:
    """Whatever is no TLS is closed within the handshake's time, without a word (H70, H75)."""
    before, said = site.descriptors(), site.stderr()
    with socket.create_connection(site.address(), timeout=PATIENCE) as client:
        client.sendall(data)
        got = b""
        try:
            while piece := client.recv(65_536):
                got += piece
        except ConnectionResetError:
            pass
    assert not got or got[0] in b"\x15\x16"
    until(lambda: site.descriptors() <= before, "the connection is closed")
    assert site.stderr() == said


def test_handshakes_thrown_away(site: Proxy, authority: Authority) -> None:
    """Handshakes that end at any point leave nothing behind (H72, H75)."""
    message = hello(0x0303)
    before, said = site.descriptors(), site.stderr()
    clients = []
    for end in range(0, 2 * len(message), 2):
        client = socket.create_connection(site.address(), timeout=PATIENCE)
        client.sendall(message[:end])
        if end % 3 == 0:
            client.close()
        clients.append(client)
    for client in clients:
        client.close()
    # A client that refuses our certificate breaks off as well.
    for _ in range(10):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake(site, ssl.create_default_context())
    until(lambda: site.descriptors() <= before, "all connections are closed")
    assert site.stderr() == said
    with shake(site, authority.trust()) as late:
        assert answer_of(late).endswith(b"server1")


def test_plain_end_is_no_answer(site: Proxy, authority: Authority) -> None:
    """A client that is cut off inside a request, by the network or at will, is just gone (H77)."""
    before = site.descriptors()
    for end in (b"GET / HT", b"GET / HTTP/1.1\r\nHost: ", request("/", method="POST")):
        with shake(site, authority.trust()) as client:
            client.sendall(end)
            client.shutdown(socket.SHUT_WR)
    until(lambda: site.descriptors() <= before, "all connections are closed")


# --- certificates that can't be used -------------------------------------------------------------


BAD_FILES: dict[str, tuple[dict[str, str], list[str]]] = {
    "no-certificate": ({"certificate": "missing.pem"}, ["missing.pem", "no such file"]),
    "no-key": ({"certificate": "certificate", "key": "missing.key"}, ["missing.key", "no such"]),
    "folder": ({"certificate": "."}, ["no plain file"]),
    "key-left-out": ({"certificate": "certificate"}, ["certificate", "PEM"]),
    "not-pem": ({"certificate": "garbage"}, ["garbage", "PEM"]),
    "empty": ({"certificate": "nothing"}, ["nothing", "PEM"]),
    "key-is-no-key": ({"certificate": "certificate", "key": "garbage"}, ["garbage", "PEM"]),
    "other-key": (
        {"certificate": "certificate", "key": "other"},
        ["other", "does not belong to the certificate", "certificate"],
    ),
    "no-password": (
        {"certificate": "certificate", "key": "encrypted"},
        ["encrypted", "password_file"],
    ),
    "wrong-password": (
        {"certificate": "certificate", "key": "encrypted", "password_file": "garbage"},
        ["encrypted"],
    ),
    "no-password-file": (
        {"certificate": "certificate", "key": "encrypted", "password_file": "missing"},
        ["missing", "no such file"],
    ),
    "binary-password": (
        {"certificate": "certificate", "key": "encrypted", "password_file": "binary"},
        ["binary"],
    ),
}


class Refusal(NamedTuple):
    """What ``balanceme run`` said to the settings of one case."""

    status: int
    stdout: str
    stderr: str
    words: list[str]


@pytest.fixture(scope="module")
def refusals(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> dict[str, Refusal]:
    """All cases, run at the same time."""
    folder = tmp_path_factory.mktemp("refused")
    good = files(folder, authority.ca, NAME)
    names = {
        "certificate": str(good.certificate),
        "encrypted": str(good.encrypted),
        "other": str(files(folder, authority.ca, "other.example.org").key),
    }
    (folder / "garbage").write_text("this is no certificate\n")
    (folder / "binary").write_bytes(b"\xff\xfe\xfd\n")
    (folder / "nothing").touch()
    for given_as_secret in ("garbage", "binary"):
        (folder / given_as_secret).chmod(0o600)
    running = {}
    for case, (settings, _) in BAD_FILES.items():
        frontend = {
            "listen": f"{HOST}:{free_port()}",
            "tls": {key: names.get(name, name) for key, name in settings.items()},
            "mappings": [{"path": "/", "balancer": "cluster"}],
        }
        cluster = {"members": [{"url": f"http://{HOST}:1", "route": "server1"}]}
        config = folder / f"{case}.yaml"
        config.write_text(
            yaml.safe_dump({"frontends": [frontend], "balancers": {"cluster": cluster}})
        )
        running[case] = subprocess.Popen(
            [sys.executable, "-m", "proxy", "run", str(config)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    found = {}
    for case, process in running.items():
        try:
            stdout, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
        words = [names.get(word, word) for word in BAD_FILES[case][1]]
        found[case] = Refusal(process.returncode, stdout, stderr, [f"{case}.yaml", *words])
    return found


@pytest.mark.parametrize("case", BAD_FILES)
def test_unusable_files(case: str, refusals: dict[str, Refusal]) -> None:
    """What is wrong with certificate, key or password is told in words, with the file's name."""
    refusal = refusals[case]
    assert (refusal.status, refusal.stdout) == (2, "")
    assert refusal.stderr.count("\n") == 1
    assert "Traceback" not in refusal.stderr
    assert PASSWORD not in refusal.stderr
    for word in refusal.words:
        assert word in refusal.stderr


def test_key_material_is_not_logged(site: Proxy) -> None:
    """Neither a key nor its password is in what the proxy says (H78)."""
    said = site.stderr() + site.stdout()
    assert PASSWORD not in said
    assert "PRIVATE KEY" not in said


# --- names that differ ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "host", "status"),
    [
        (NAME, NAME, 200),
        (NAME, "webmail.example.org", 200),
        (NAME, "Webmail.Example.ORG.:443", 200),
        (NAME, "elsewhere.example.com", 200),
        (NAME, "a.example.net", 421),
        ("a.example.net", "b.example.net", 200),
        ("a.example.net", NAME, 421),
        ("default.example.org", NAME, 421),
        ("default.example.org", "default.example.org", 200),
        (None, NAME, 200),
        (None, "a.example.net", 200),
    ],
)
def test_host_of_another_certificate(
    name: str | None, host: str, status: int, site: Proxy, authority: Authority
) -> None:
    """Who asked for one certificate's name gets nothing of another's (421, RFC 9110 15.5.20, H76).

    Names that no certificate has, and clients that name none, are served.
    """
    context = authority.trust()
    if name is None:
        context.check_hostname = False
    with shake(site, context, name) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host.encode())
        assert client.recv(65536).startswith(b"HTTP/1.1 %d " % status)
        # The connection stays, for its own names.
        own = (name or host).encode()
        client.sendall(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % own)
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
