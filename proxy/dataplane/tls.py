"""TLS contexts: certificates from files, chosen by name (SNI).

One context for each certificate, made before traffic comes (P10). TLS 1.2 and 1.3 with forward
secrecy only; ALPN offers http/1.1 and nothing else (H74, H76).
"""

import ssl
from collections.abc import Callable, Sequence

from proxy.core.errors import ConfigError, Mistake
from proxy.core.settings import Tls

# Suites of TLS 1.2 with forward secrecy and authenticated encryption (RFC 9325 section 4.2); those
# of TLS 1.3 are all of that kind.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
# Tickets for a full TLS 1.3 handshake: what a client uses, not OpenSSL's two.
TICKETS = 1


def server_context(certificates: Sequence[Tls], path: tuple[str | int, ...]) -> ssl.SSLContext:
    """The context of a frontend; the first certificate serves names that no other has.

    ``path`` leads to the settings, for the mistakes of ConfigError.
    """
    contexts = [_context(tls, path) for tls in certificates]
    by_name = {
        name.lower().rstrip("."): context
        for tls, context in zip(certificates, contexts, strict=True)
        for name in tls.names
    }
    default = contexts[0]
    if len(contexts) > 1:
        default.sni_callback = _chooser(by_name)
    return default


def _chooser(
    by_name: dict[str, ssl.SSLContext],
) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], None]:
    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if name is None:
            return
        name = name.lower().rstrip(".")
        context = by_name.get(name) or by_name.get("*." + name.partition(".")[2])
        if context is not None:
            connection.context = context

    return choose


def _context(tls: Tls, path: tuple[str | int, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = (
        ssl.TLSVersion.TLSv1_3 if tls.min_version == "1.3" else ssl.TLSVersion.TLSv1_2
    )
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(CIPHERS)
    context.num_tickets = TICKETS
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=lambda: _password(tls))
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
