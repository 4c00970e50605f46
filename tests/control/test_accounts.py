"""Names of accounts, and workers that can't become root again."""

import grp
import os
import pwd
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.control.accounts import Account, drop, resolve
from proxy.core.errors import ConfigError

# A child of these tests does little, and ends; Python 3.12 warns where other tests left threads.
pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

NOBODY = pwd.getpwnam("nobody")
# A group of every Debian, and one that nobody is in.
GROUP = next(entry for entry in grp.getgrall() if entry.gr_gid not in (0, NOBODY.pw_gid))


def refusal(user: str | None, group: str | None = None) -> list[tuple[object, str]]:
    """What is wrong with the names."""
    with pytest.raises(ConfigError) as caught:
        resolve(user, group)
    return [(mistake.path, mistake.message) for mistake in caught.value.mistakes]


def become(monkeypatch: pytest.MonkeyPatch, uid: int, gid: int) -> None:
    """Let it look as if we were this user."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(os, "getegid", lambda: gid)


# --- names -------------------------------------------------------------------------------------


def test_no_user() -> None:
    """Without a user workers stay what we are."""
    assert resolve(None, None) is None


def test_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user comes with its own group."""
    become(monkeypatch, 0, 0)
    found = resolve("nobody", None)
    assert found == Account("nobody", NOBODY.pw_uid, NOBODY.pw_gid, (NOBODY.pw_gid,))


def test_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another group takes the place of the user's own."""
    become(monkeypatch, 0, 0)
    found = resolve("nobody", GROUP.gr_name)
    assert found == Account("nobody", NOBODY.pw_uid, GROUP.gr_gid, (GROUP.gr_gid,))


def test_other_groups_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user stays in all of its groups, for that is how it may read and write files."""
    become(monkeypatch, 0, 0)
    monkeypatch.setattr(os, "getgrouplist", lambda _, gid: [gid, 4711])
    found = resolve("nobody", None)
    assert found is not None
    assert found.groups == (NOBODY.pw_gid, 4711)


def test_unknown_names() -> None:
    """Names that this system doesn't know are all told, each with what makes it."""
    user, group = refusal("no-such-user", "no-such-group")
    assert user[0] == ("user",)
    assert user[1].endswith(
        "no user of this system; useradd --system --shell /usr/sbin/nologin no-such-user makes it"
    )
    assert group[0] == ("group",)
    assert group[1].endswith("no group of this system; groupadd --system no-such-group makes it")


def test_root_is_refused() -> None:
    """Root is nobody to drop to, and its group reads its files."""
    assert [path for path, _ in refusal("root", "root")] == [("user",), ("group",)]


def test_not_started_as_root(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who isn't root stays what it is, and says so."""
    become(monkeypatch, 1000, 1001)
    assert resolve("nobody", None) is None
    assert "workers run as user 1000 and group 1001, and not as nobody" in caplog.text


def test_started_as_that_user(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Under systemd's User= there is nothing to drop and nothing to say."""
    become(monkeypatch, NOBODY.pw_uid, NOBODY.pw_gid)
    assert resolve("nobody", None) is None
    assert not caplog.records


# --- dropping ----------------------------------------------------------------------------------


def in_child(do: Callable[[], str]) -> str:
    """What a forked process says, such as a worker is."""
    ours, theirs = socket.socketpair()
    process = os.fork()
    if process == 0:
        signal.alarm(10)
        try:
            said = do()
        except BaseException as error:  # noqa: BLE001 - it ends here, whatever it is
            said = f"{type(error).__name__}: {error}"
        theirs.sendall(said.encode())
        os._exit(0)
    theirs.close()
    with ours:
        said = ours.makefile(encoding="utf-8").read()
    os.waitpid(process, 0)
    return said


def status() -> dict[str, str]:
    """What the kernel says of this process."""
    with open("/proc/self/status", encoding="utf-8") as file:  # noqa: PTH123 - after a fork
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


@root
def test_drop() -> None:
    """A worker has the user, the groups and no capability, and is not root by any of its ids."""
    account = Account("nobody", NOBODY.pw_uid, GROUP.gr_gid, (GROUP.gr_gid, 4711))

    def worker() -> str:
        drop(account)
        found = status()
        names = ("Uid", "Gid", "Groups", "CapPrm", "CapEff", "CapAmb")
        return "|".join(" ".join(found[name].split()) for name in names)

    uid, gid, none = str(account.uid), str(account.gid), "0" * 16
    groups = " ".join(map(str, sorted(account.groups)))
    assert in_child(worker).split("|") == [
        " ".join([uid] * 4),
        " ".join([gid] * 4),
        groups,
        *[none] * 3,
    ]


@root
@pytest.mark.parametrize("change", ["setuid", "seteuid", "setgid", "setegid"])
def test_no_way_back(change: str) -> None:
    """What was given up can't be taken again."""

    def worker() -> str:
        drop(Account("nobody", NOBODY.pw_uid, NOBODY.pw_gid, ()))
        getattr(os, change)(0)
        return "root again"

    assert in_child(worker).startswith("PermissionError")


@root
@pytest.mark.skipif(
    Path("/proc/sys/fs/suid_dumpable").read_text().strip() == "1",
    reason="the system is set to let everybody debug",
)
def test_memory_stays_private() -> None:
    """Other processes of the account can't look into a worker: what it is stays root's."""

    def worker() -> str:
        drop(Account("nobody", NOBODY.pw_uid, NOBODY.pw_gid, ()))
        return str(os.stat("/proc/self/mem").st_uid)  # noqa: PTH116 - after a fork

    assert in_child(worker) == "0"


@root
def test_way_back_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drop that left a way back is an error, and no worker serves so."""
    monkeypatch.setattr(os, "setresuid", lambda *_: None)

    def worker() -> str:
        drop(Account("nobody", NOBODY.pw_uid, NOBODY.pw_gid, ()))
        return "dropped"

    told = "ConfigError: workers became nobody and could still become root"
    assert in_child(worker).startswith(told)


def test_drop_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A root that may not change users, as in some containers, says what it lacks."""

    def refuse(_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setgroups", refuse)
    with pytest.raises(ConfigError, match=r"Operation not permitted; we are root without CAP_SET"):
        drop(Account("nobody", NOBODY.pw_uid, NOBODY.pw_gid, ()))
