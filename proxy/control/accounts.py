"""Whom the workers run as: names become numbers once, and root is given up for good.

Only the supervisor stays root, to bind ports and to read keys. Each worker drops it before it
takes anything from a client. The kernel then makes the process undumpable, and it stays so: no
other process of that account can read the keys in its memory (PR_SET_DUMPABLE in prctl(2)).
"""

import grp
import logging
import os
import pwd
from typing import NamedTuple

from proxy.core.errors import ConfigError, Mistake
from proxy.core.raw import shown

log = logging.getLogger("balanceme")


class Account(NamedTuple):
    """A user as the kernel knows it, with its group and all others that it is in."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def resolve(user: str | None, group: str | None) -> Account | None:
    """The account to drop to, or None if workers stay what we are.

    They do without a user, and when we aren't root: then we can't become anybody else, which is
    told in the log unless we are that user already. Raises ConfigError for names that this system
    doesn't know, and for root itself.
    """
    if user is None:
        return None
    mistakes: list[Mistake] = []
    uid, gid = _user(user, mistakes)
    if group is not None:
        gid = _group(group, mistakes)
    if mistakes:
        raise ConfigError(mistakes)
    if os.geteuid() == 0:
        # Asked here, since a worker can't wait for a directory service once it serves.
        return Account(user, uid, gid, tuple(os.getgrouplist(user, gid)))
    if (uid, gid) != (os.geteuid(), os.getegid()):
        log.warning(
            "workers run as user %d and group %d, and not as %s: only root can change that;"
            " start as root, or leave user and group out",
            *(os.geteuid(), os.getegid(), user),
        )
    return None


def _user(name: str, mistakes: list[Mistake]) -> tuple[int, int]:
    """A user's number and its group's."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        remedy = f"useradd --system --shell /usr/sbin/nologin {name} makes it"
        text = f"found {shown(name)}, which is no user of this system; {remedy}"
        mistakes.append(Mistake(("user",), text))
        return 0, 0
    if found.pw_uid == 0:
        text = f"found {shown(name)}, which workers are without this key; name another account"
        mistakes.append(Mistake(("user",), text))
    return found.pw_uid, found.pw_gid


def _group(name: str, mistakes: list[Mistake]) -> int:
    try:
        gid = grp.getgrnam(name).gr_gid
    except KeyError:
        text = f"found {shown(name)}, which is no group of this system; groupadd --system {name}"
        mistakes.append(Mistake(("group",), f"{text} makes it"))
        return 0
    if gid == 0:
        text = f"found {shown(name)}, whose files are root's; name another group"
        mistakes.append(Mistake(("group",), text))
    return gid


def drop(account: Account) -> None:
    """Become this account, for a worker and for good; raises ConfigError if that isn't so then.

    The process has to end after that error, for it may be half of each.
    """
    try:
        # In this order: the last step takes away the right to the others, and every capability
        # (capabilities(7), «Effect of user ID changes on capabilities»).
        os.setgroups(account.groups)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    except OSError as error:
        text = f"workers can't become {account.name}: {error.strerror}; we are root"
        remedy = " without CAP_SETUID and CAP_SETGID, or the account's numbers aren't mapped here"
        raise ConfigError([Mistake(("user",), text + remedy)]) from error
    if _is_root_within_reach():
        text = f"workers became {account.name} and could still become root; look at securebits"
        raise ConfigError([Mistake(("user",), text)])


def _is_root_within_reach() -> bool:
    """Whether user or group can be changed back, as with capabilities that were kept."""
    for change in (os.setuid, os.setgid):
        try:
            change(0)
        except PermissionError:
            continue
        return True
    return False
