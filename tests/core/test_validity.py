"""The ends of certificates, beside those that another reader finds."""

import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.validity import end_of, end_of_pem

CA = trustme.CA()
KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(ends: datetime) -> x509.Certificate:
    """One that ends then."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail.zarafa.com")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(ends - timedelta(days=90))
        .not_valid_after(ends)
        .sign(KEY, hashes.SHA256())
    )


ENDS = datetime(2027, 1, 2, tzinfo=UTC)
DER = certificate(ENDS).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    "ends",
    [
        datetime(2026, 11, 29, 15, 30, 7, tzinfo=UTC),
        datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC),
        datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC),
        # from 2050 on a year has four digits
        datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2050, 1, 1, tzinfo=UTC),
        # no good end (RFC 5280 section 4.1.2.5)
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
    ],
    ids=str,
)
def test_end(ends: datetime) -> None:
    """The end is read to the second, in the past and in the future."""
    made = certificate(ends)
    assert end_of(made.public_bytes(Encoding.DER)) == ends.timestamp()
    assert end_of_pem(made.public_bytes(Encoding.PEM)) == ends.timestamp()


def test_first_of_a_file() -> None:
    """A file's certificate is its first one, wherever its key and its chain stand."""
    ends = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)
    issued = CA.issue_cert("mail.zarafa.com", not_after=ends)
    first, *chain = [blob.bytes() for blob in issued.cert_chain_pems]
    pem = b"".join([b"mail\n", issued.private_key_pem.bytes(), first, *chain, CA.cert_pem.bytes()])
    assert end_of_pem(pem) == ends.timestamp()
    assert end_of_pem(pem.replace(b"\n", b"\r\n")) == ends.timestamp()


@pytest.mark.parametrize("word", [b"TRUSTED ", b"X509 "])
def test_other_words_of_openssl(word: bytes) -> None:
    """A file may call it as OpenSSL allows, with something of its own behind it."""
    ends = datetime(2027, 1, 2, tzinfo=UTC)
    der = certificate(ends).public_bytes(Encoding.DER) + b"\x30\x02\x05\x00"
    pem = ssl.DER_cert_to_PEM_cert(der).encode().replace(b"CERTIFICATE", word + b"CERTIFICATE")
    assert end_of_pem(pem) == ends.timestamp()


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        CA.issue_cert("a.org").private_key_pem.bytes(),
        b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ],
)
def test_no_certificate(pem: bytes) -> None:
    """What holds no certificate is refused."""
    with pytest.raises(ValueError, match="certificate"):
        end_of_pem(pem)


@given(st.binary(max_size=64) | st.integers(0, 2000).map(lambda cut: DER[:cut]))
def test_broken_certificate(der: bytes) -> None:
    """Whatever the bytes are: an end, or ValueError."""
    try:
        assert end_of(der) == ENDS.timestamp()
    except ValueError:
        pass


@given(st.integers(0, 300), st.integers(0, 255))
def test_altered_certificate(at: int, byte: int) -> None:
    """One byte of another value: some end, or ValueError."""
    der = DER[:at] + bytes([byte]) + DER[at + 1 :]
    try:
        assert isinstance(end_of(der), float)
    except ValueError:
        pass
