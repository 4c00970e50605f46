"""The files of health checks: found, fit, read; what is wrong is told with its path."""

from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from proxy.control import config_file
from proxy.control.check_files import Named, read_check_files, renewed_files
from proxy.control.config_file import ConfigFileError
from proxy.control.probes.result import CheckFiles
from proxy.core.errors import ConfigError

MAPPING = {"path": "/", "balancer": "cluster"}
CA = trustme.CA().cert_pem.bytes().decode()


def write(folder: Path, checks: list[dict[str, Any]], own: list[dict[str, Any]]) -> Path:
    """A configuration file."""
    tree = {
        "frontends": [
            {"listen": "127.0.0.1:80", "mappings": [{"path": "/", "balancer": "cluster"}]}
        ],
        "balancers": {
            "cluster": {
                "members": [{"url": "http://server1"}, {"url": "http://b", "health_checks": own}],
                "health_checks": checks,
            }
        },
    }
    file = folder / "balanceme.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def secret(folder: Path, text: str, name: str = "login") -> str:
    """A file that not everybody may read; its name."""
    (folder / name).write_text(text)
    (folder / name).chmod(0o600)
    return name


def read(folder: Path, text: str, kind: str = "credentials_file") -> CheckFiles:
    """What one file is read as."""
    check = {"type": "mysql" if kind == "credentials_file" else "tls", kind: secret(folder, text)}
    (found,) = read_check_files(config_file.load(write(folder, [check], []))).values()
    return found


def test_read_from_the_configurations_folder(tmp_path: Path) -> None:
    """Names count from there, those of a member's own checks as well; equal ones are read once."""
    (tmp_path / "ca.pem").write_text(CA)
    tls = {"type": "tls", "ca_file": "ca.pem"}
    login = {"type": "mysql", "credentials_file": secret(tmp_path, "user:pass:word\nmore\n")}
    settings = config_file.load(write(tmp_path, [tls, {"type": "tcp"}], [tls, login]))
    assert read_check_files(settings) == {
        (None, f"{tmp_path}/ca.pem"): CheckFiles(authorities=CA),
        (f"{tmp_path}/login", None): CheckFiles("user", "pass:word"),
    }


@pytest.mark.parametrize("text", ["user", ":password", "", "\nuser:password"])
def test_credentials_are_user_and_password(tmp_path: Path, text: str) -> None:
    """The first line has both, or it is a mistake."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    (mistake,) = caught.value.mistakes
    path = ("balancers", "cluster", "health_checks", 0, "credentials_file")
    assert mistake == (path, f"{tmp_path}/login has no user:password in its first line", False)


def test_an_empty_password_is_one(tmp_path: Path) -> None:
    """An account may have none."""
    assert read(tmp_path, "user:\r\n") == CheckFiles("user", "")


@pytest.mark.parametrize("text", ["", "no certificate", CA[:60]], ids=["none", "text", "cut"])
def test_authorities_are_certificates(tmp_path: Path, text: str) -> None:
    """What can't be used is told at once, and not by a check that fails for ever."""
    with pytest.raises(ConfigError, match="login holds no certificates of authorities"):
        read(tmp_path, text, "ca_file")


def test_everything_unreadable_is_told(tmp_path: Path) -> None:
    """All mistakes at once, with their paths."""
    checks = [{"type": "tls", "ca_file": "/nowhere"}, {"type": "tcp"}]
    own = [{"type": "mysql", "credentials_file": "/neither"}]
    file = write(tmp_path, checks, own)
    settings = config_file.load(file, check_files=False)
    with pytest.raises(ConfigError) as caught:
        read_check_files(settings)
    assert [mistake.path[2:] for mistake in caught.value.mistakes] == [
        ("health_checks", 0, "ca_file"),
        ("members", 1, "health_checks", 0, "credentials_file"),
    ]
    with pytest.raises(ConfigFileError) as refused:
        config_file.load(file)
    assert 'health_checks[0].ca_file: found "/nowhere", but there is no such file' in str(
        refused.value
    )


def test_credentials_that_everybody_may_read_are_refused(tmp_path: Path) -> None:
    """Like keys."""
    (tmp_path / secret(tmp_path, "user:password")).chmod(0o644)
    check = {"type": "activesync", "credentials_file": "login"}
    with pytest.raises(ConfigFileError, match="a secret that everybody may read"):
        config_file.load(write(tmp_path, [check], []))


def test_other_content_is_told() -> None:
    """A reload says which files were read anew, and nothing of those that came or went."""
    names: Named = ("/login", None)
    former, present = {names: CheckFiles("a", "b")}, {names: CheckFiles("a", "c")}
    assert renewed_files(former, present) == ["health_checks: /login changed, and read anew"]
    assert renewed_files({}, present) == []
    assert renewed_files(former, former) == []
