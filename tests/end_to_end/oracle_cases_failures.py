"""Oracle cases: members that refuse, close, hang or say so, and what a balancer makes of it (F).

Members are two or three; the settings are those of a balancer: failonstatus, failontimeout,
forcerecovery, timeout, maxattempts, nofailover. Times are a second, so that a case takes two.
"""

from collections.abc import Iterator
from dataclasses import replace

from tests.end_to_end.oracle_model import (
    Ask,
    Case,
    MemberSite,
    New,
    Site,
    Start,
    Step,
    Stop,
    Wait,
    asks,
    chunked,
    get,
    post,
    request,
    to,
)
from tests.end_to_end.recording_member import Do, Script, answer

HANGING: Script = [1.7, Do.CLOSE]
HALF: Script = [b"HTTP/1.1 200 OK\r\nX: y\r\n", 1.7, Do.CLOSE]
BEGUN: Script = [b"HTTP/1.1 20", 1.7, Do.CLOSE]
CLOSING: Script = [Do.CLOSE]
ILL = b"/ill"
FINE = get(b"/fine", to(1))
BUSY = answer(b"busy", status=b"503 Busy")
NO_BODY = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\n"


def members(count: int, *, retry: int = 60, flags: str = "") -> tuple[MemberSite, ...]:
    """So many members; the first has ``flags``."""
    each = [MemberSite(f"server{number}", retry=retry) for number in range(1, count + 1)]
    return (replace(each[0], flags=flags), *each[1:])


def apart(*raws: bytes) -> tuple[Step, ...]:
    """One after the other, each on a connection of its own."""
    return tuple(step for raw in raws for step in (Ask(raw), New()))


# --- failonstatus ------------------------------------------------------------------------------


def _statuses() -> Iterator[Case]:
    site = Site(cookie=None, fail_on_status=(500, 503))
    answers: dict[str, Script] = {
        "503": [BUSY],
        "500": [answer(b"ill", status=b"500 Ill")],
        "502-unlisted": [answer(b"ill", status=b"502 Ill")],
        "200": [answer(b"fine")],
        "chunked": [
            b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"bu", b"sy")
        ],
        "until-close": [b"HTTP/1.1 503 Busy\r\n\r\nbusy", Do.CLOSE],
        "closes": [answer(b"busy", b"Connection: close", status=b"503 Busy"), Do.CLOSE],
        "after-interim": [b"HTTP/1.1 102 Wait\r\n\r\n", BUSY],
        "body-cut": [answer(b"busy", status=b"503 Busy")[:-1], Do.CLOSE],
        "no-answer": CLOSING,
    }
    for name, script in answers.items():
        steps = (*apart(get(ILL, to(1))), *apart(FINE, FINE))
        yield Case(f"failonstatus-{name}", "F10", steps, site, {ILL: script})
    steps = apart(request(b"HEAD /ill HTTP/1.1", to(1)), FINE)
    yield Case("failonstatus-head", "F10", steps, site, {ILL: [NO_BODY]})
    steps = apart(post(ILL, b"a=b", to(1)), FINE)
    yield Case("failonstatus-post", "F10", steps, site, {ILL: [BUSY]})
    site304 = replace(site, fail_on_status=(304,))
    steps = apart(get(ILL, to(1)), FINE)
    script = [b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"]
    yield Case("failonstatus-304", "F10", steps, site304, {ILL: script})
    steps = asks(get(ILL, to(1)), FINE, get(ILL, to(1)))
    yield Case("failonstatus-one-connection", "F10 P8", steps, site, {ILL: [BUSY]})
    faithful = replace(site, members=members(2, flags="I"))
    steps = apart(get(ILL, to(1)), FINE)
    yield Case("failonstatus-ignored", "F10 F8", steps, faithful, {ILL: [BUSY]})
    soon = replace(site, members=members(2, retry=1))
    steps = (*apart(get(ILL, to(1)), FINE), Wait(1.15), *apart(FINE))
    yield Case("failonstatus-retry", "F10 F6", steps, soon, {ILL: [BUSY]})
    steps = apart(get(ILL, to(1)), get(ILL, to(2)), FINE, FINE)
    yield Case("failonstatus-both", "F10 F7", steps, site, {ILL: [BUSY]})
    for count, recovery in ((2, True), (3, True), (2, False), (3, False)):
        every = replace(site, members=members(count), forced_recovery=recovery)
        steps = apart(*[get(ILL)] * (count + 2))
        name = f"failonstatus-all-{count}" + ("" if recovery else "-no-recovery")
        yield Case(name, "F10 F7", steps, every, {ILL: [BUSY]})
    stay = replace(site, no_failover=True)
    steps = apart(get(ILL, to(1)), FINE, get(), get(b"/", to(2)))
    yield Case("failonstatus-no-failover", "F10 F9", steps, stay, {ILL: [BUSY]})
    standby = replace(site, members=(MemberSite("server1"), MemberSite("server2", flags="H")))
    steps = apart(get(ILL), get(), FINE)
    yield Case("failonstatus-standby", "F10 B2", steps, standby, {ILL: [BUSY]})


# --- failontimeout -----------------------------------------------------------------------------


def _timeouts() -> Iterator[Case]:
    site = Site(cookie=None, timeout=1, fail_on_timeout=True)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
    scripts: dict[str, Script] = {
        "silent": HANGING,
        "begun": BEGUN,
        "half-head": HALF,
        "in-body": [head, 1.7, Do.CLOSE],
    }
    for name, script in scripts.items():
        steps = apart(get(ILL, to(1)), FINE)
        yield Case(f"failontimeout-{name}", "F11", steps, site, {ILL: script})
    steps = apart(post(ILL, b"a=b", to(1)), FINE)
    yield Case("failontimeout-post", "F11", steps, site, {ILL: HANGING})
    steps = apart(get(ILL, to(1)), FINE)
    off = replace(site, fail_on_timeout=False)
    yield Case("failontimeout-off", "F11 F1", steps, off, {ILL: HANGING})
    faithful = replace(site, members=members(2, flags="I"))
    yield Case("failontimeout-ignored", "F11 F8", steps, faithful, {ILL: HANGING})
    three = replace(site, members=members(3))
    yield Case("failontimeout-three", "F11", steps, three, {ILL: HANGING})
    ping = b"/Microsoft-Server-ActiveSync"
    device = apart(post(ping, b"a=b", to(1)), FINE)
    yield Case("failontimeout-activesync", "F11", device, site, {ping: HANGING})
    silent: Script = [Do.LEAVE_BODY, 1.7, Do.CLOSE]
    expecting = request(b"POST /ill HTTP/1.1", to(1), b"Expect: 100-continue", b"Content-Length: 3")
    steps = apart(expecting, FINE)
    yield Case("failontimeout-no-continue", "F11 F1", steps, site, {ILL: silent})


# --- forcerecovery -----------------------------------------------------------------------------


def _recovery() -> Iterator[Case]:
    for count in (2, 3):
        down = tuple(range(1, count + 1))
        site = Site(members(count, retry=1), cookie=None, forced_recovery=False)
        steps = (
            *apart(get(b"/", to(1))),
            Start(1),
            *apart(FINE, get()),
            Wait(1.2),
            *apart(FINE, get()),
        )
        yield Case(f"no-recovery-{count}-down", "F7 F6", steps, site, down=down)
        on = replace(site, forced_recovery=True)
        yield Case(f"recovery-{count}-down", "F7 F6", steps, on, down=down)
        many = replace(site, max_attempts=5)
        steps = apart(get(b"/", to(1)), post(b"/", b"a=b", to(2)))
        yield Case(f"no-recovery-{count}-attempts", "F7 F5", steps, many, down=down)
    none = Site(cookie=None, forced_recovery=False, max_attempts=0)
    steps = (*apart(get(b"/", to(1)), get(b"/", to(2))), Start(1), Start(2), *apart(FINE, get()))
    yield Case("no-recovery-no-attempts", "F7 F5", steps, none, down=(1, 2))
    single = Site(members(1, retry=1), cookie=None, forced_recovery=False)
    steps = (*apart(get()), Start(1), *apart(get()), Wait(1.2), *apart(get()))
    yield Case("no-recovery-single", "F7 F6", steps, single, down=(1,))
    faithful = Site(members(2, flags="I"), cookie=None, forced_recovery=False)
    steps = (*apart(FINE, get(b"/", to(2))), Start(1), Start(2), *apart(FINE, get(b"/", to(2))))
    yield Case("no-recovery-ignored", "F7 F8", steps, faithful, down=(1, 2))
    stay = Site(members(2), cookie=None, forced_recovery=False, no_failover=True)
    steps = (*apart(FINE), Start(1), *apart(FINE, get(), get(b"/", to(9)), get(b"/", to(2))))
    yield Case("no-recovery-no-failover", "F7 F9", steps, stay, down=(1,))


# --- waiting for a member ----------------------------------------------------------------------


def _waiting() -> Iterator[Case]:
    off = Site(members(2, flags="D"), cookie=None, wait=1)
    steps = apart(FINE, get(b"/", to(2)), get())
    yield Case("wait-not-needed", "B16", steps, off)
    all_off = replace(
        off, members=(MemberSite("server1", flags="D"), MemberSite("server2", flags="S"))
    )
    yield Case("wait-in-vain", "B16 B17", apart(FINE), all_off)
    yield Case("wait-in-vain-post", "B16 B17", apart(post(b"/", b"a=b", to(1))), all_off)
    # In error for one second, and nothing is recovered: who waits two gets his member back.
    site = Site(members(2, retry=1), cookie=None, wait=2, forced_recovery=False)
    steps = (*apart(FINE), Start(1), *apart(FINE))
    yield Case("wait-for-retry", "B16 F6", steps, site, down=(1, 2))
    large = post(b"/", b"x" * 50_000, to(2))
    steps = (*apart(FINE), Start(2), *apart(large, FINE))
    yield Case("wait-for-retry-post", "B16 F6 F3", steps, site, down=(1, 2))
    steps = (*apart(FINE), Start(1), *apart(request(b"HEAD / HTTP/1.1")))
    yield Case("wait-for-retry-elected", "B16 F6", steps, site, down=(1, 2))
    pipeline = (Ask(get(b"/a", to(1)) + get(b"/b", to(1)), answers=2),)
    steps = (*apart(FINE), Start(1), *pipeline)
    yield Case("wait-for-retry-pipeline", "B16 L16", steps, site, down=(1, 2))
    short = replace(site, members=members(2), wait=1)
    steps = (*apart(FINE), Start(1), *apart(FINE))
    yield Case("wait-shorter-than-retry", "B16 F6", steps, short, down=(1, 2))
    # One is off, so nothing is recovered for Apache.
    blocked = Site(
        (MemberSite("server1", retry=1), MemberSite("server2", flags="D")), cookie=None, wait=2
    )
    steps = (*apart(get()), Start(1), *apart(get()))
    yield Case("wait-beside-disabled", "B16 F7", steps, blocked, down=(1,))
    stay = replace(site, no_failover=True)
    steps = (*apart(FINE), *apart(FINE), Start(1), *apart(get(b"/", to(2)), FINE))
    yield Case("wait-not-with-no-failover", "B16 F9", steps, stay, down=(1,))
    second = replace(site, max_attempts=3)
    steps = apart(get(b"/", to(1)))
    yield Case("wait-after-attempts", "B16 F5", (*steps, *apart(FINE)), second, down=(1,))
    one = (MemberSite("server1", retry=1), MemberSite("server2"))
    ill = replace(site, fail_on_status=(503,), members=one)
    steps = apart(get(ILL, to(1)), get(ILL, to(2)), get(b"/", to(2)))
    yield Case("wait-after-status", "B16 F10", steps, ill, {ILL: [BUSY]})


# --- three members -----------------------------------------------------------------------------


def _three() -> Iterator[Case]:
    for attempts in (0, 1, 2, 4):
        site = Site(members(3), cookie=None, max_attempts=attempts)
        steps = apart(get(b"/", to(1)), get(b"/", to(1)), get(), get())
        yield Case(f"three-{attempts}-attempts", "F5", steps, site, down=(1, 2))
        steps = apart(get(b"/", to(3)), get(), get(b"/", to(2)))
        yield Case(f"three-{attempts}-attempts-all", "F5 F7", steps, site, down=(1, 2, 3))
    plain = Site(members(3), cookie=None)
    scripts = {1: {b"*": CLOSING}}
    steps = apart(FINE, get(b"/", to(2)), FINE, get(b"/", to(3)))
    yield Case("three-closing-refusing", "F1", steps, plain, per_member=scripts, down=(2,))
    steps = (*apart(FINE, FINE), Stop(2), *apart(*[get()] * 4), Start(1), Stop(3), *apart(FINE))
    yield Case("three-one-after-another", "F1 F5 F7", steps, plain, down=(1,))
    faithful = Site(members(3, flags="I"), cookie=None)
    yield Case("three-ignored", "F8", apart(FINE, FINE, get(), get()), faithful, down=(1,))
    spare = Site(
        (MemberSite("server1"), MemberSite("server2", flags="R"), MemberSite("server3", flags="H")),
        cookie=None,
        fail_on_status=(503,),
    )
    steps = apart(get(ILL), get(), get(b"/", to(1)), get())
    yield Case("three-roles-status", "F10 B2", steps, spare, per_member={1: {ILL: [BUSY]}})
    hanging = replace(plain, timeout=1, fail_on_timeout=True)
    steps = apart(get(ILL, to(1)), FINE, get(), get(), get(b"/", to(3)))
    own = {1: {ILL: HANGING}}
    yield Case("three-hanging-refusing", "F11 F1", steps, hanging, per_member=own, down=(2,))


FAILURE_CASES = [
    replace(case, aside=True)  # most of their time is waiting
    for case in (*_statuses(), *_timeouts(), *_recovery(), *_waiting(), *_three())
]
