"""TLS contexts: certificates from files, chosen by name (SNI).

One context for each certificate, made before traffic comes (P10); a connection begins at the
entry of its address, which outlives reloads, and goes on under the certificate for its name. TLS
1.2 and 1.3 with forward secrecy only; ALPN offers http/1.1 and nothing else (H74, H76).
"""

import ssl
from collections.abc import Sequence

from proxy.core.errors import ConfigError, Mistake
from proxy.core.fields import host_and_port
from proxy.core.settings import Tls

# Suites of TLS 1.2 with forward secrecy and authenticated encryption (RFC 9325 section 4.2); those
# of TLS 1.3 are all of that kind.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
# Tickets for a full TLS 1.3 handshake: what a client uses, not OpenSSL's two.
TICKETS = 1
# Addresses that reloads can add before a restart is needed for their tickets to count everywhere.
SPARE_ENTRIES = 16


class Entries:
    """The context by which a connection to an address begins; it holds no certificate.

    What it holds is the keys of session tickets, and no way leads from one process to those of
    another. So entries are made before workers are forked, some more than there are addresses:
    a reload can then add an address whose tickets count in all workers too. Each process has to
    ask for the same addresses in the same order.
    """

    __slots__ = ("_by_address", "_spare")

    def __init__(self, spare: int = SPARE_ENTRIES) -> None:
        self._by_address: dict[str, ssl.SSLContext] = {}
        self._spare = [_bare_context() for _ in range(spare)]

    def of(self, listen: str) -> ssl.SSLContext:
        """The entry of the frontend that listens there."""
        entry = self._by_address.get(listen)
        if entry is None:
            entry = self._spare.pop(0) if self._spare else _bare_context()
            self._by_address[listen] = entry
        return entry


class Certificates:
    """The certificates of a frontend; the first one serves names that no other has.

    A connection under ``nameless`` came without a name (SNI). ``path`` leads to the settings, for
    the mistakes of ConfigError, which name their files. ``opened`` says under which names the same
    files are read instead, if they are.
    """

    __slots__ = ("_by_name", "_contexts", "_first", "_min_version", "nameless", "several")

    def __init__(
        self,
        certificates: Sequence[Tls],
        path: tuple[str | int, ...],
        opened: Sequence[Tls] | None = None,
    ) -> None:
        read = certificates if opened is None else opened
        contexts = [
            _context(tls, path, names) for tls, names in zip(certificates, read, strict=True)
        ]
        self._by_name = {
            name.lower().rstrip("."): context
            for tls, context in zip(certificates, contexts, strict=True)
            for name in tls.names
        }
        self._first = contexts[0]
        self._min_version = contexts[0].minimum_version
        self._contexts = frozenset(contexts)
        self.several = len(contexts) > 1
        self.nameless = _context(certificates[0], path, read[0]) if self.several else self._first

    def put_behind(self, entry: ssl.SSLContext) -> None:
        """Connections that begin at ``entry`` get one of these certificates from now on."""
        entry.minimum_version = self._min_version
        entry.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        connection.context = self.nameless if name is None else self._find(name) or self._first

    def _find(self, name: str) -> ssl.SSLContext | None:
        name = name.lower().rstrip(".")
        return self._by_name.get(name) or self._by_name.get("*." + name.partition(".")[2])

    def misdirects(self, context: ssl.SSLContext | None, host: bytes | None) -> bool:
        """Whether a request for ``host`` came with a certificate that is for others (421, H76).

        ``context`` is the connection's. A host that no certificate names is served by any, and
        so is a client that could not name one, or whose connection is older than the last reload.
        """
        if context not in self._contexts:
            return False
        parts = host_and_port(host) if host else None
        right = None if parts is None else self._find(parts[0].decode("ascii"))
        return right is not None and right is not context


def _bare_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(CIPHERS)
    context.num_tickets = TICKETS
    context.set_alpn_protocols(["http/1.1"])
    return context


def _context(tls: Tls, path: tuple[str | int, ...], read: Tls) -> ssl.SSLContext:
    context = _bare_context()
    if tls.min_version == "1.3":
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(read.certificate, read.key, password=lambda: _password(read))
    except (OSError, ssl.SSLError, ValueError) as error:
        raise ConfigError([_mistake(tls, error, path)]) from error
    return context


def _password(tls: Tls) -> str:
    if tls.password_file is None:
        raise ValueError("the key is encrypted: name a password_file")
    with open(tls.password_file, encoding="utf-8") as file:  # noqa: PTH123 - no pathlib here
        return file.readline().rstrip("\n")


def _mistake(tls: Tls, error: Exception, path: tuple[str | int, ...]) -> Mistake:
    """What is wrong with the files, in words; OpenSSL's own say little."""
    key = tls.key or tls.certificate
    if isinstance(error, FileNotFoundError | PermissionError):
        # OpenSSL doesn't tell which of its two files it means; the password's file has a name.
        text = f"{error.strerror}: {error.filename or f'{tls.certificate} or {key}'}"
    elif isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        text = f"the key in {key} does not belong to the certificate in {tls.certificate}"
    elif isinstance(error, ssl.SSLError):
        text = (
            f"{tls.certificate} and {key} hold no certificate and key in PEM form that fit"
            f" ({error.reason or error})"
        )
    else:
        text = f"{key}: {error}"
    return Mistake(path, text)
