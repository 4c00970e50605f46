"""TLS contexts: what a client may agree on, and which certificate it gets."""

import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from proxy.core.errors import ConfigError
from proxy.core.settings import Tls
from proxy.dataplane.tls import SPARE_ENTRIES, Certificates, Entries

# A child of these tests does little, and ends; Python 3.12 warns where other tests left threads.
pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)

PATH = ("frontends", 0, "tls")


class Authority:
    """A certificate authority, and the files of the certificates it has issued."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()

    def certificate(self, *names: str) -> Tls:
        """Settings for a certificate with these names, in files."""
        issued = self._authority.issue_cert(*names)
        certificate = self._folder / f"{names[0].replace('*', '_')}.pem"
        key = certificate.with_suffix(".key")
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        return Tls(certificate=str(certificate), key=str(key), names=names)

    def client(self) -> ssl.SSLContext:
        """A context that trusts this authority."""
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One authority for all tests: making keys takes a while."""
    return Authority(tmp_path_factory.mktemp("tls"))


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str | None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends after a handshake in memory; raises ssl.SSLError if either refuses."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    left = list(ends)
    for _ in range(10):
        for end in list(left):
            try:
                end.do_handshake()
                left.remove(end)
            except ssl.SSLWantReadError:
                continue
    assert not left
    return ends


def entry(certificates: Certificates) -> ssl.SSLContext:
    """Where connections begin that get one of these."""
    made = Entries().of("0.0.0.0:443")
    certificates.put_behind(made)
    return made


def test_agrees_on_tls_1_3_and_http_1_1(authority: Authority) -> None:
    """TLS 1.3 is agreed on, ALPN is http/1.1 and nothing else (H74, H76)."""
    server = entry(Certificates([authority.certificate("proxy.example")], PATH))
    client = authority.client()
    client.set_alpn_protocols(["h2", "http/1.1"])
    end, _ = handshake(server, client, "proxy.example")
    assert end.version() == "TLSv1.3"
    assert end.selected_alpn_protocol() == "http/1.1"


def test_never_selects_h2(authority: Authority) -> None:
    """A client that offers h2 alone gets no protocol (H76)."""
    server = entry(Certificates([authority.certificate("proxy.example")], PATH))
    client = authority.client()
    client.set_alpn_protocols(["h2"])
    end, _ = handshake(server, client, "proxy.example")
    assert end.selected_alpn_protocol() is None


def test_tls_1_2_has_forward_secrecy(authority: Authority) -> None:
    """TLS 1.2 is spoken with ephemeral keys and authenticated encryption only (H74)."""
    server = entry(Certificates([authority.certificate("proxy.example")], PATH))
    client = authority.client()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    end, _ = handshake(server, client, "proxy.example")
    cipher = end.cipher()
    assert cipher is not None
    assert cipher[0].startswith("ECDHE-")
    assert "GCM" in cipher[0] or "CHACHA20" in cipher[0]
    client.set_ciphers("AES128-GCM-SHA256:ECDHE-RSA-AES128-SHA")
    with pytest.raises(ssl.SSLError):
        handshake(server, client, "proxy.example")


def test_min_version(authority: Authority) -> None:
    """With min_version 1.3 an older client is refused (H74)."""
    tls = authority.certificate("proxy.example").model_copy(update={"min_version": "1.3"})
    server = entry(Certificates([tls], PATH))
    client = authority.client()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        handshake(server, client, "proxy.example")


def test_options(authority: Authority) -> None:
    """No compression, no renegotiation, one ticket (H74, P10)."""
    server = entry(Certificates([authority.certificate("proxy.example")], PATH))
    assert server.options & ssl.OP_NO_COMPRESSION
    assert server.options & ssl.OP_NO_RENEGOTIATION
    assert server.num_tickets == 1
    assert server.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("one.example", "one.example"),
        ("TWO.example", "two.example"),
        ("a.two.example", "two.example"),
        ("b.a.two.example", "one.example"),
        ("other.example", "one.example"),
        (None, "one.example"),
    ],
)
def test_certificate_by_name(authority: Authority, asked: str | None, served: str) -> None:
    """A name gets its own certificate, any other the first; neither is an error (H76, L13)."""
    first = authority.certificate("one.example")
    second = authority.certificate("two.example", "*.two.example")
    server = entry(Certificates([first, second], PATH))
    client = authority.client()
    client.check_hostname = False
    end, _ = handshake(server, client, asked)
    certificate = end.getpeercert()
    assert certificate is not None
    names = certificate["subjectAltName"]
    assert isinstance(names, tuple)
    assert ("DNS", served) in names


def test_read_under_other_names(authority: Authority, tmp_path: Path) -> None:
    """Files can be read under other names than those that mistakes tell."""
    real = authority.certificate("proxy.example")
    named = Tls(certificate="/etc/mail.pem", key="/etc/mail.key")
    handshake(entry(Certificates([named], PATH, [real])), authority.client(), "proxy.example")
    (tmp_path / "nonsense").touch()
    nonsense = Tls(certificate=str(tmp_path / "nonsense"))
    with pytest.raises(ConfigError, match=r"^/etc/mail.pem and /etc/mail.key hold no certificate"):
        Certificates([named], PATH, [nonsense])


def encrypted(folder: Path, tls: Tls) -> Tls:
    """The same certificate with a key that a password protects."""
    assert tls.key is not None
    key = load_pem_private_key(Path(tls.key).read_bytes(), None)
    protection = BestAvailableEncryption(b"secret")
    path = folder / "encrypted.key"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection))
    return tls.model_copy(update={"key": str(path)})


def test_encrypted_key(authority: Authority, tmp_path: Path) -> None:
    """The first line of password_file decrypts the key."""
    password = tmp_path / "password"
    password.write_text("secret\nsecond line\n", encoding="utf-8")
    tls = encrypted(tmp_path, authority.certificate("proxy.example"))
    server = entry(Certificates([tls.model_copy(update={"password_file": str(password)})], PATH))
    handshake(server, authority.client(), "proxy.example")


def test_mistakes_are_named(authority: Authority, tmp_path: Path) -> None:
    """Each thing that can be wrong with the files is said in words, with the place (style 8)."""
    good = authority.certificate("proxy.example")
    other = authority.certificate("other.example")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense", encoding="utf-8")
    password = tmp_path / "password"
    password.write_text("wrong\n", encoding="utf-8")
    protected = encrypted(tmp_path, good)
    cases = {
        "No such file": good.model_copy(update={"certificate": str(tmp_path / "none.pem")}),
        "does not belong to the certificate": good.model_copy(update={"key": other.key}),
        "hold no certificate and key": good.model_copy(update={"certificate": str(nonsense)}),
        "name a password_file": protected,
        "hold no certificate": protected.model_copy(update={"password_file": str(password)}),
    }
    for words, tls in cases.items():
        with pytest.raises(ConfigError, match=words) as caught:
            Certificates([tls], PATH)
        (mistake,) = caught.value.mistakes
        assert mistake.path == PATH
        assert "secret" not in mistake.message


# --- entries of several processes ----------------------------------------------------------------

FIRST, SECOND, THIRD = "0.0.0.0:443", "[::]:443", "127.0.0.1:8443"


def resumes(
    tls: Tls,
    client: ssl.SSLContext,
    session: ssl.SSLSession | None,
    serving: Callable[[], ssl.SSLContext],
) -> tuple[bool, ssl.SSLSession]:
    """Whether another process takes a client's ticket up; and the ticket it gives.

    ``serving`` is called in that process.
    """
    ours, theirs = socket.socketpair()
    process = os.fork()
    if process == 0:
        try:
            ours.close()
            theirs.settimeout(60)
            context = serving()
            Certificates([tls], PATH).put_behind(context)
            with context.wrap_socket(theirs, server_side=True) as server:
                server.sendall(b"x")
                server.recv(1)
        finally:
            os._exit(0)
    theirs.close()
    ours.settimeout(60)
    with client.wrap_socket(ours, server_hostname="proxy.example", session=session) as end:
        assert end.recv(1) == b"x"
        end.sendall(b"x")
        found = bool(end.session_reused), end.session
    os.waitpid(process, 0)
    assert found[1] is not None
    return found[0], found[1]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tickets_count_in_all_workers(authority: Authority, version: ssl.TLSVersion) -> None:
    """A client that comes back to another worker needs no full handshake (P10)."""
    tls = authority.certificate("proxy.example")
    client = authority.client()
    client.maximum_version = version
    entries = Entries(spare=3)
    entries.of(FIRST)
    # each worker is a copy of this, and asks for the addresses that its settings add
    again, session = resumes(tls, client, None, lambda: entries.of(SECOND))
    assert not again
    again, session = resumes(tls, client, session, lambda: entries.of(SECOND))
    assert again
    again, _ = resumes(tls, client, session, lambda: entries.of(FIRST))
    assert not again, "another address has tickets of its own"


def test_tickets_need_the_same_order(authority: Authority) -> None:
    """Who asks in another order has other tickets: it is the order that makes them the same."""
    tls = authority.certificate("proxy.example")
    client = authority.client()
    entries = Entries(spare=2)

    def turned() -> ssl.SSLContext:
        entries.of(SECOND)
        return entries.of(FIRST)

    _, session = resumes(tls, client, None, lambda: entries.of(FIRST))
    again, _ = resumes(tls, client, session, turned)
    assert not again


def test_tickets_beyond_the_spare_entries(authority: Authority) -> None:
    """More addresses than were made room for are served as well, with tickets of one worker."""
    tls = authority.certificate("proxy.example")
    client = authority.client()
    entries = Entries(spare=1)
    entries.of(FIRST)
    _, session = resumes(tls, client, None, lambda: entries.of(SECOND))
    again, _ = resumes(tls, client, session, lambda: entries.of(SECOND))
    assert not again


def test_entries() -> None:
    """An address has one entry for good; a default number is ready for those that come."""
    entries = Entries()
    assert len(entries._spare) == SPARE_ENTRIES
    assert entries.of(FIRST) is entries.of(FIRST)
    assert entries.of(FIRST) is not entries.of(SECOND)
    assert entries.of(THIRD) not in (entries.of(FIRST), entries.of(SECOND))
    assert len(entries._spare) == SPARE_ENTRIES - 3


def test_tickets_outlive_a_reload(authority: Authority) -> None:
    """With a certificate that was read anew a client's ticket still counts."""
    tls = authority.certificate("proxy.example")
    client = authority.client()
    entries = Entries(spare=1)
    _, session = resumes(tls, client, None, lambda: entries.of(FIRST))
    Certificates([tls], PATH).put_behind(entries.of(FIRST))
    again, _ = resumes(tls, client, session, lambda: entries.of(FIRST))
    assert again


def test_connection_of_before_a_reload_is_not_misdirected(authority: Authority) -> None:
    """Who was secured under a name may go on to ask for it, once certificates are read anew (H76).

    Only certificates for other names are refused, and who named none is served.
    """
    settings = [authority.certificate(name) for name in ("one.example", "two.example")]
    before, after = Certificates(settings, PATH), Certificates(settings, PATH)
    client = authority.client()
    client.check_hostname = False

    def context(name: str | None) -> ssl.SSLContext:
        """What secures a connection for a name, or for none."""
        return handshake(entry(before), client, name)[1].context

    assert before.misdirects(context("two.example"), b"one.example")
    for certificates in (before, after):
        assert not certificates.misdirects(context("one.example"), b"one.example:443")
        assert not certificates.misdirects(context("one.example"), b"other.example")
        assert not certificates.misdirects(context(None), b"two.example")
