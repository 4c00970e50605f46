r"""Reads the cases of this folder: conversations as text.

A case in a ``.wire`` file::

    == H1 H80 both lengths, length first
    # Why this is so, if it needs a word.
    settings: {mapping: {upgrade: [websocket]}}
    client sends
    | POST / HTTP/1.1
    | Host: proxy.example
    | Content-Length: 5
    | Transfer-Encoding: chunked
    |
    | hello\
    client gets own 400
    client is closed
    nobody connects

The headline has the rules that the case is for, then its name. ``settings`` are Stage's.
Behind ``each`` stand names and texts, as ``a plus | +5``: one case for each, with its text where
the case says ``<each>``.
``whole: reason`` is for a conversation whose outcome rightly depends on what arrives together: it
is played whole only. What follows happens in this order:

=============================  ==============================================================
``client sends``, ``gets``     lines behind a gutter; ``gets`` is everything since the last time
``client gets own 400``        our own answer, which closes; ``own 404 kept`` one that does not
``client gets nothing``        nothing since the last time
``client gets`` twice          one behind the other, in one go
``client ends``, ``resets``    it closes its side, or is gone
``client is closed``           our side has closed, and in an orderly way
``client is reset``            our side has cut it off
``member ...``                 the same for a member's connection; it accepts one that is being
                               opened first. ``server2 ...`` is for one of several members
``member refuses``             it doesn't accept
``client asks``                the plainest request, and ``member is asked`` the same as a member
                               gets it; ``member answers`` and ``client is answered`` likewise;
                               ``client is answered last``: it learns that we close
``nobody connects``            no connection to any member was opened, or is being opened
``21 seconds pass``            and everybody notices
=============================  ==============================================================

A line stands for itself and CR LF, or for itself alone with a backslash at its end. ``\r``,
``\n``, ``\0``, ``\x80`` and the like are those of Python's bytes, ``\\`` is a backslash;
``<300*x>`` is a long ``x``. Two lines stand for several:
``<own fields>`` for Date and Server as an answer gets them from us, and
``<forwarded proxy.example>`` for what a member is told of a client that asked this host
(``<forwarded>``: none).
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from proxy.core.pages import OwnAnswer
from tests.dataplane.messages import CLOSE, DATE, handed_on, passed_on, request, response

# A line's number, and its text.
Line = tuple[int, str]

_HEADLINE = re.compile(r"== ((?:H\d+ )+)(.+)")
_STEP = re.compile(
    r"(client|member|server\d) (sends|gets|ends|resets|refuses|is closed|is reset)(?: (.+))?"
    r"|(nobody) (connects)|(\d+) (seconds pass)"
)
# What so many messages begin with that it is cut in others.
_USUAL_LINES = re.compile(rb"(?:[A-Z]+ / HTTP/1\.1\r\nHost: proxy\.example|HTTP/1\.1 200 OK)\r\n")
# The plainest exchange: who, what he does, and what that stands for.
_USUAL = {
    "client asks": ("sends", request()),
    "member is asked": ("gets", passed_on()),
    "server1 is asked": ("gets", passed_on()),
    "server2 is asked": ("gets", passed_on().replace(b"server1", b"server2")),
    "member answers": ("sends", response(body=b"ok")),
    "server1 answers": ("sends", response(body=b"ok")),
    "server2 answers": ("sends", response(body=b"ok")),
    "client is answered": ("gets", handed_on(body=b"ok")),
    "client is answered last": (
        "gets",
        handed_on(body=b"ok").replace(b"\r\n\r\n", b"\r\n" + CLOSE + b"\r\n"),
    ),
}
_OWN = re.compile(r"own (\d{3})( kept)?")
_REPEATED = re.compile(rb"<(\d+)\*([^>]+)>")
_FORWARDED = re.compile(r"<forwarded(?: (.+))?>")
OWN_FIELDS = b"Date: %b\r\nServer: balanceme\r\n" % DATE


class Step(NamedTuple):
    """One thing that happens, or must have happened; ``number`` is its line's.

    ``cuts`` are the places inside of ``data`` where it is worth to cut it in two: not where the
    bytes are those of many cases.
    """

    actor: str
    verb: str
    data: bytes
    number: int
    cuts: range = range(0)


class Case(NamedTuple):
    """One conversation."""

    name: str
    rules: list[str]
    settings: dict[str, Any]
    whole: bool
    steps: list[Step]

    def sends(self, side: str) -> Iterator[tuple[int, Step]]:
        """What one side sends, each with its place in all of it."""
        place = 0
        for step in self.steps:
            if step.verb == "sends" and (step.actor == "client") == (side == "client"):
                yield place, step
                place += len(step.data)


def read_cases(path: Path) -> Iterator[Case]:
    """The cases of one file."""
    text = path.read_text(encoding="ascii")
    numbered = [*enumerate(text.splitlines(), 1)]
    starts = [index for index, (_, line) in enumerate(numbered) if line.startswith("==")]
    for start, end in pairwise([*starts, len(numbered)]):
        try:
            yield from _read_family(numbered[start:end], path.stem)
        except AssertionError as error:
            error.add_note(f"in the case that begins in {path.name}:{start + 1}")
            raise


def _read_family(lines: list[Line], stem: str) -> Iterator[Case]:
    """One case, or one for each line behind ``each``."""
    found = _HEADLINE.fullmatch(lines[0][1])
    assert found, f"no rule and name: {lines[0][1]}"
    name = f"{stem}:{' '.join(found[1].split())} {found[2]}"
    rules = found[1].split()
    lines = [line for line in lines[1:] if line[1] and line[1][0] != "#"]
    if lines[0][1] != "each":
        yield _read_case(lines, name, rules)
        return
    first: Case | None = None
    size = next(index for index, (_, line) in enumerate(lines) if _begins(line))
    for _, line in lines[1:size]:
        word, gutter, text = line.partition("|")
        assert gutter, f"no text: {line}"
        text = text.removeprefix(" ")
        own = [(number, line.replace("<each>", text)) for number, line in lines[size:]]
        case = _read_case(own, f"{name}: {word.strip()}", rules)
        yield case if first is None else _cut_where_it_differs(case, first)
        first = first or case


def _begins(line: str) -> bool:
    """Whether names and texts have ended."""
    return line in _USUAL or line.startswith("settings: ") or bool(_STEP.fullmatch(line))


def _read_case(lines: list[Line], name: str, rules: list[str]) -> Case:
    settings: dict[str, Any] = {}
    whole = False
    steps: list[Step] = []
    for number, line in lines:
        key, _, value = line.partition(": ")
        if line.startswith("|"):
            assert steps, f"whose words are these? {line}"
            data = steps[-1].data + _bytes(line[1:])
            usual = _USUAL_LINES.match(data)
            cuts = range(usual.end() if usual else 1, len(data))
            steps[-1] = steps[-1]._replace(data=data, cuts=cuts)
        elif key == "settings":
            settings = yaml.safe_load(value)
        elif key == "whole":
            whole = True
        else:
            _add(steps, _step(line, number))
    return Case(name, rules, settings, whole, steps)


def _cut_where_it_differs(case: Case, first: Case) -> Case:
    """A case that differs from another in some bytes: the others are cut in that one."""
    steps = []
    for step, other in zip(case.steps, first.steps, strict=True):
        data = step.data
        same = _in_common(data, other.data)
        behind = _in_common(data[:same:-1], other.data[:same:-1])
        cuts = range(max(same - 1, 1), min(len(data) - behind + 2, len(data)))
        steps.append(step._replace(cuts=cuts if step.cuts else range(0)))
    return case._replace(steps=steps)


def _in_common(one: bytes, other: bytes) -> int:
    """How many bytes both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _add(steps: list[Step], step: Step) -> None:
    """Add a step; what one gets in one go may be told by several."""
    last = steps[-1] if steps else None
    if last and step.verb == "gets" and last[:2] == step[:2] and step.data:
        steps[-1] = last._replace(data=last.data + step.data)
    else:
        steps.append(step)


def _step(line: str, number: int) -> Step:
    if line in _USUAL:
        return Step(line.partition(" ")[0], *_USUAL[line], number)
    found = _STEP.fullmatch(line)
    assert found, f"not understood: {line}"
    actor, verb, rest = (part or "" for part in found.groups()[:3])
    if found[4]:
        actor, verb = found[4], found[5]
    elif found[6]:
        actor, verb = found[6], found[7]
    own = _OWN.fullmatch(rest)
    assert own or rest in ("", "nothing"), f"not understood: {rest}"
    return Step(actor, verb, _own(int(own[1]), kept=bool(own[2])) if own else b"", number)


def _own(status: int, *, kept: bool) -> bytes:
    lines = b"Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS\r\n" if status == 405 else b""
    lines = b"Retry-After: 10\r\n" if status == 503 else lines
    body = b"" if status == 200 else None
    answer = OwnAnswer(status, lines=lines, body=body)
    connection = b"" if kept else b"Connection: close\r\n"
    return answer.encode(OWN_FIELDS, connection, head_only=False)


def _bytes(text: str) -> bytes:
    """What a line behind the gutter stands for."""
    text = text.removeprefix(" ")
    if text == "<own fields>":
        return OWN_FIELDS
    forwarded = _FORWARDED.fullmatch(text)
    if forwarded:
        host = f"X-Forwarded-Host: {forwarded[1]}\r\n" if forwarded[1] else ""
        ours = "X-Forwarded-Server: proxy.example\r\nX-Forwarded-Proto: http\r\n"
        return f"X-Forwarded-For: 192.0.2.1\r\n{host}{ours}".encode()
    goes_on = (len(text) - len(text.rstrip("\\"))) % 2 == 1
    text = text[:-1] if goes_on else text
    data = text.encode().decode("unicode_escape").encode("latin-1")
    data = _REPEATED.sub(lambda found: int(found[1]) * found[2], data)
    return data if goes_on else data + b"\r\n"


def shown(data: bytes) -> str:
    """Bytes as a case writes them."""
    lines = data.split(b"\r\n")
    last = lines.pop()
    texts = [f"| {_escaped(line)}" for line in lines]
    return "\n".join([*texts, f"| {_escaped(last)}\\"] if last else texts)


def _escaped(line: bytes) -> str:
    return "".join(_escapes(line))


def _escapes(line: bytes) -> Iterator[str]:
    for byte in line:
        if byte == 0x5C:
            yield "\\\\"
        else:
            yield chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}"
