"""Certificates as bytes: read once, used without their files."""

import os
import pickle
import pwd
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from proxy.control.certificate_files import KeyMaterial, certificates_from, read_pem, stamp
from proxy.core.errors import ConfigError
from proxy.core.settings import Tls
from proxy.dataplane.tls import Certificates

# A child of these tests does little, and ends; Python 3.12 warns where other tests left threads.
pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)

PATH = ("frontends", 0, "tls")
ISSUED = trustme.CA().issue_cert("proxy.example")
CHAIN, KEY = ISSUED.cert_chain_pems[0].bytes(), ISSUED.private_key_pem.bytes()
SECRET = b"a password"
ENCRYPTED = load_pem_private_key(KEY, None).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(SECRET)
)


def files(folder: Path, certificate: bytes, key: bytes | None, password: bytes | None) -> Tls:
    """Settings for files with this content."""
    names = {"certificate": certificate, "key": key, "password_file": password}
    for name, content in names.items():
        if content is not None:
            (folder / name).write_bytes(content)
    return Tls.model_validate(
        {name: str(folder / name) for name, content in names.items() if content is not None}
    )


def mistake(certificate: bytes, key: bytes | None, password: bytes | None, folder: Path) -> str:
    """What is said of bytes that are no certificate with its key."""
    tls = files(folder, certificate, key, password)
    material = read_pem(tls, PATH)
    with pytest.raises(ConfigError) as caught:
        certificates_from([tls], PATH, [material])
    with pytest.raises(ConfigError) as of_files:
        Certificates([tls], PATH)
    assert caught.value.mistakes == of_files.value.mistakes
    assert caught.value.mistakes[0].path == PATH
    return caught.value.mistakes[0].message


@pytest.mark.parametrize(
    ("certificate", "key", "password"),
    [
        (CHAIN, KEY, None),
        (KEY + CHAIN, None, None),
        (CHAIN, ENCRYPTED, SECRET),
        (CHAIN, ENCRYPTED, SECRET + b"\nsecond line\n"),
    ],
)
def test_context_from_bytes(
    certificate: bytes, key: bytes | None, password: bytes | None, tmp_path: Path
) -> None:
    """What was read serves when the files are gone, and no descriptor stays open."""
    tls = files(tmp_path, certificate, key, password)
    material = read_pem(tls, PATH)
    assert material == KeyMaterial(certificate, key, password)
    for file in tmp_path.iterdir():
        file.unlink()
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - names are enough
    found = certificates_from([tls], PATH, [material])
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208
    assert isinstance(found.nameless, ssl.SSLContext)


def test_several() -> None:
    """Each certificate of a list is made from its own bytes, the first one twice."""
    other = trustme.CA().issue_cert("other.example").private_key_and_cert_chain_pem.bytes()
    tls = [Tls(certificate="a"), Tls(certificate="b", names=("other.example",))]
    materials = [KeyMaterial(KEY + CHAIN, None, None), KeyMaterial(other, None, None)]
    assert certificates_from(tls, PATH, materials).several


def test_mistakes_name_the_files(tmp_path: Path) -> None:
    """Bytes that are no certificate are told as their files would be."""
    other = trustme.CA().issue_cert("other.example").private_key_pem.bytes()
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    told = f"the key in {key} does not belong to the certificate in {certificate}"
    assert mistake(CHAIN, other, None, tmp_path) == told
    told = f"{certificate} and {key} hold no certificate and key in PEM form that fit"
    assert mistake(b"nonsense", KEY, None, tmp_path).startswith(told)
    assert mistake(b"", KEY, None, tmp_path).startswith(told)
    assert mistake(CHAIN, ENCRYPTED, b"wrong", tmp_path).startswith(told)
    (tmp_path / "password_file").unlink()
    told = f"{key}: the key is encrypted: name a password_file"
    assert mistake(CHAIN, ENCRYPTED, None, tmp_path) == told
    assert mistake(CHAIN, ENCRYPTED, b"\xff\xfe", tmp_path).startswith(f"{key}: ")


@pytest.mark.parametrize("missing", ["certificate", "key", "password_file"])
def test_file_that_cant_be_read(missing: str, tmp_path: Path) -> None:
    """A file that is gone since the configuration was checked is told by its name."""
    tls = files(tmp_path, CHAIN, ENCRYPTED, SECRET)
    (tmp_path / missing).unlink()
    with pytest.raises(ConfigError) as caught:
        read_pem(tls, PATH)
    text = f"No such file or directory: {tmp_path / missing}"
    assert [tuple(mistake) for mistake in caught.value.mistakes] == [(PATH, text, False)]


def test_nothing_is_shown() -> None:
    """No log, traceback or message shows a key, while it can be sent to a worker."""
    material = KeyMaterial(CHAIN, KEY, SECRET)
    assert {repr(material), str(material), f"{material}"} == {"KeyMaterial(...)"}
    assert "KeyMaterial(...)" in repr([material])
    assert pickle.loads(pickle.dumps(material)) == material


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_worker_that_can_read_no_file() -> None:
    """A process that has dropped root makes its contexts from bytes all the same."""
    material = KeyMaterial(CHAIN, ENCRYPTED, SECRET)
    nobody = pwd.getpwnam("nobody").pw_uid
    process = os.fork()
    if process == 0:
        try:
            os.setresuid(nobody, nobody, nobody)
            certificates_from([Tls(certificate="/root/a", key="/root/b")], PATH, [material])
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


# --- changes -----------------------------------------------------------------------------------


def test_stamp_of_files_that_stay(tmp_path: Path) -> None:
    """As long as nothing changes it is the same, whether files are there or not."""
    tls = [files(tmp_path, CHAIN, KEY, None), Tls(certificate=str(tmp_path / "none"))]
    assert stamp(tls) == stamp(tls)
    assert len(stamp(tls)) == 3


@pytest.mark.parametrize("name", ["certificate", "key", "password_file"])
def test_stamp_of_a_change(name: str, tmp_path: Path) -> None:
    """A file that was replaced, written over, removed or put back is another one."""
    tls = [files(tmp_path, CHAIN, KEY, SECRET)]
    file, seen = tmp_path / name, [stamp(tls)]

    def look() -> None:
        assert stamp(tls) != seen[-1]
        seen.append(stamp(tls))

    os.utime(file, ns=(0, 0))
    look()
    made = tmp_path / "made"
    made.write_bytes(file.read_bytes())
    os.utime(made, ns=(0, 0))
    made.replace(file)  # the same size and time, as cp -p leaves them
    look()
    with file.open("ab") as stream:
        stream.write(b"\n")
    os.utime(file, ns=(0, 0))
    look()
    file.unlink()
    look()
    file.touch()
    look()


def test_stamp_follows_links(tmp_path: Path) -> None:
    """A link that is set to a new certificate is a change, as certbot leaves it."""
    tls = [files(tmp_path, CHAIN, None, None)]
    link = tmp_path / "live.pem"
    link.symlink_to("certificate")
    linked = [tls[0].model_copy(update={"certificate": str(link)})]
    before = stamp(linked)
    (tmp_path / "new").write_bytes(CHAIN)
    link.unlink()
    link.symlink_to("new")
    assert stamp(linked) != before
