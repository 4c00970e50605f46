"""What is said of members: drain, disable, enable, set, failover, readmit."""

import argparse
import re
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from proxy.cli.common import Add, add_socket, ask

# How often ``drain --wait`` looks, in seconds.
LOOK = 1.0
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m|h|d)")


def add_commands(add: Add) -> None:
    """The commands of this group."""
    until = "That holds over restarts with a state_folder, until the file says something new."
    drain = add(
        "drain",
        _drain,
        "Give a member no new sessions; it keeps those it has.",
        "With --for or --at those that are left move to others then, each between two requests. "
        + until,
    )
    _add_drain_options(drain)
    disable = add("disable", _disable, "Give a member nothing; its sessions move to others.", until)
    enable = add("enable", _enable, "Give a member sessions again.", until)
    change = add("set", _set, "Change how a member is elected, or its status.", until)
    change.add_argument(
        "--status",
        metavar="STATUS",
        choices=("enabled", "drain", "disabled", "stopped"),
        help="enabled, drain, disabled or stopped",
    )
    change.add_argument(
        "--load-factor", type=float, metavar="N", help="its share of the elections, 1 to 100"
    )
    change.add_argument("--lbset", type=int, metavar="N", help="lower ones are used first, 0 to 99")
    roles = {"standby": "used when nobody else can be", "spare": "stands in for another one"}
    for name, text in roles.items():
        change.add_argument(
            f"--hot-{name}", metavar="WORD", choices=("yes", "no"), help=f"yes or no: {text}"
        )
    failover = add(
        "failover",
        _failover,
        "Say that another member has taken over a member's sessions.",
        "Their cookies are corrected with the next response. " + until,
    )
    readmit = add("readmit", _readmit, "Let a member that is fenced or held off serve again.")
    for command in (drain, disable, enable, change, failover, readmit):
        command.add_argument("member", metavar="MEMBER", help="its route, or its url")
        command.add_argument("--balancer", metavar="NAME", help="only there, and not in all")
        command.add_argument("--reason", metavar="TEXT", default="", help="kept, and shown")
        add_socket(command)
    failover.add_argument("heir", metavar="HEIR", nargs="?", help="who has taken over")
    failover.add_argument("--clear", action="store_true", help="its sessions are its own again")


def _add_drain_options(drain: argparse.ArgumentParser) -> None:
    end = drain.add_mutually_exclusive_group()
    end.add_argument(
        "--for",
        dest="duration",
        type=_duration,
        metavar="TIME",
        help="move what is left after that, such as 2h",
    )
    end.add_argument(
        "--at", type=_clock, metavar="CLOCK", help="the same at a time of day, such as 22:00"
    )
    end.add_argument(
        "--until-empty", action="store_true", help="disable it once its last session is over"
    )
    drain.add_argument(
        "--wait", action="store_true", help="show what is left, until the drain is done"
    )


def _duration(text: str) -> float:
    from proxy.core.values import DURATION_UNITS

    found = _DURATION.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError("a duration is a number with a unit: 90s, 30m, 2h, 1d")
    return float(found[1]) * DURATION_UNITS[found[2]]


def _clock(text: str) -> float:
    """The next time it is so late, in seconds since 1970."""
    try:
        clock = datetime.strptime(text, "%H:%M").time()  # noqa: DTZ007 - local, by the clock
    except ValueError:
        raise argparse.ArgumentTypeError("a time is given as 22:00") from None
    now = datetime.now().astimezone()
    meant = now.replace(hour=clock.hour, minute=clock.minute, second=0, microsecond=0)
    return (meant if meant > now else meant + timedelta(days=1)).timestamp()


# --- status -------------------------------------------------------------------------------------


def _drain(options: argparse.Namespace) -> int:
    from proxy.admin import client
    from proxy.admin.member_notes import clock

    deadline = options.at if options.duration is None else time.time() + options.duration

    def drain(path: Path) -> None:
        body: dict[str, Any] = {"until_empty": options.until_empty}
        if deadline is not None:
            body["deadline"] = deadline
        for each in _say(path, options, "drain", body):
            told = f"no new sessions; {each['sessions']} live ones stay"
            if deadline is not None:
                told += f" until {clock(deadline)}, then they move"
            print(f"{_name(each)} gets {told}", flush=True)
        while options.wait and _show_left(client.members_called(path, *_which(options))):
            time.sleep(LOOK)

    return ask(options, drain)


def _show_left(members: list[dict[str, Any]]) -> bool:
    """Show how far drains are; whether any is still under way. Raises AdminError."""
    from proxy.admin.client import AdminError
    from proxy.admin.member_notes import left

    waiting = False
    for each in members:
        drain = each.get("drain")
        if drain is None:
            raise AdminError(f"{_name(each)} is drained no more: it is {each['status']}")
        if drain["done"]:
            print(f"{_name(each)} is drained: nothing is left on it", flush=True)
        else:
            waiting = True
            print(f"{_name(each)}: {left(each)}", flush=True)
    return waiting


def _disable(options: argparse.Namespace) -> int:
    return _set_status(options, "disabled", "nothing; {sessions} live sessions move to others")


def _enable(options: argparse.Namespace) -> int:
    return _set_status(options, "enabled", "sessions")


def _set_status(options: argparse.Namespace, word: str, gets: str) -> int:
    return _told(options, "status", {"status": word}, f"gets {gets}")


def _set(options: argparse.Namespace) -> int:
    terms = {
        "load_factor": options.load_factor,
        "lbset": options.lbset,
        "hot_standby": _yes(options.hot_standby),
        "hot_spare": _yes(options.hot_spare),
    }
    terms = {key: value for key, value in terms.items() if value is not None}
    parts = [("terms", terms)] if terms else []
    if options.status is not None:
        parts.append(("status", {"status": options.status}))

    def change(path: Path) -> None:
        from proxy.admin.client import AdminError

        if not parts:
            raise AdminError("nothing to set; balanceme set --help lists what there is")
        for word, body in parts:
            for each in _say(path, options, word, body):
                told = ", ".join(f"{key} {_shown(value)}" for key, value in body.items())
                print(f"{_name(each)} has {told}")

    return ask(options, change)


def _yes(word: str | None) -> bool | None:
    return None if word is None else word == "yes"


def _shown(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


# --- takeovers and fences -----------------------------------------------------------------------


def _failover(options: argparse.Namespace) -> int:
    from proxy.admin.client import AdminError

    def refuse(_: Path) -> None:
        raise AdminError("say who has taken over, or --clear: balanceme failover server2 server1")

    if options.clear is (options.heir is not None):
        return ask(options, refuse)
    if options.clear:
        return ask(options, lambda path: _clear(path, options))
    return ask(options, lambda path: _give(path, options))


def _give(path: Path, options: argparse.Namespace) -> None:
    """Say who has taken over, and print when that one can't serve anybody. Raises AdminError."""
    from proxy.admin import client

    for said in _say(path, options, "failover", {"heir": options.heir}):
        print(f"{_name(said)} has lost its {said['sessions']} live sessions to {options.heir}")
        for heir in client.members_called(path, options.heir, said["balancer"]):
            keeps_out = [word for word in heir["status"].split(", ") if word not in ("ok", "drain")]
            if keeps_out:
                print(f"{_name(heir)} can't serve them now: it is {', '.join(keeps_out)}")


def _clear(path: Path, options: argparse.Namespace) -> None:
    """Take a takeover back, and print whose word counts now. Raises AdminError."""
    from proxy.admin import client

    for said in _say(path, options, "failover", {}):
        for each in client.members_called(path, options.member, said["balancer"]):
            takeover = each.get("takeover")
            told = "has its sessions again"
            if takeover:
                told = f"is taken over by {takeover['heir']} now, as {takeover['by']} said"
            print(f"{_name(each)} {told}")


def _readmit(options: argparse.Namespace) -> int:
    return _told(options, "readmit", {}, "is readmitted; it serves once its checks pass")


# --- what they share ----------------------------------------------------------------------------


def _told(options: argparse.Namespace, word: str, body: dict[str, Any], text: str) -> int:
    """Say something of a member, and print what that means."""

    def say(path: Path) -> None:
        for each in _say(path, options, word, body):
            print(f"{_name(each)} {text.format(sessions=each['sessions'])}")

    return ask(options, say)


def _say(
    path: Path, options: argparse.Namespace, word: str, body: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    from proxy.admin import client

    member, balancer = _which(options)
    said = {**body, "reason": options.reason}
    return client.say_of_member(path, member, word, said, balancer)


def _which(options: argparse.Namespace) -> tuple[str, str | None]:
    return options.member, options.balancer


def _name(member: dict[str, Any]) -> str:
    return f"{member['balancer']}: {member['route'] or member['url']}"
