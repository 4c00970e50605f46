"""Sections in sections, strictly: each file closes what it opens, in skipped blocks too (D2).

Skipped blocks are looked at for nothing but their sections (D3). What comes out are the children
of each section in order, with the conditional ones gone.
"""

from dataclasses import dataclass
from enum import Enum, auto

from proxy.apache.known import SECTIONS
from proxy.apache.remarks import Remarks
from proxy.apache.tree import Directive, Place, Section

Children = list[Directive | Section]

# Sections in sections, of all files; whoever walks through the tree may recurse.
_DEEPEST = 100


class Kind(Enum):
    """What becomes of the content."""

    SECTION = auto()
    # a condition that holds: the content stands where it stands
    TAKEN = auto()
    SKIPPED = auto()
    # a macro's text: nothing but its own end is looked for
    MACRO = auto()


@dataclass(slots=True)
class Level:
    """An open section."""

    kind: Kind
    name: str
    at: Place
    children: Children
    arguments: tuple[str, ...] = ()
    text: str = ""
    # why it is skipped; only of the outermost
    reason: str = ""
    lines: int = 0

    @property
    def bare(self) -> bool:
        """Whether it lacks the argument that it has to have."""
        return not self.arguments and self.name.lower() in SECTIONS

    @property
    def tag(self) -> str:
        """The section, to speak of it."""
        return f"<{self.name}>"


class Nesting:
    """The open sections of all files that are being read."""

    def __init__(self, remarks: Remarks) -> None:
        self.children: Children = []
        self._levels: list[Level] = []
        # how many levels were open when each file began
        self._bases: list[int] = []
        self._remarks = remarks

    @property
    def skipping(self) -> bool:
        """Whether nothing is read now but sections."""
        return bool(self._levels) and self._levels[-1].kind in (Kind.SKIPPED, Kind.MACRO)

    @property
    def here(self) -> Children:
        """Where a directive belongs now."""
        return self._levels[-1].children if self._levels else self.children

    def enter_file(self) -> None:
        """A file begins: it can't close what others opened."""
        self._bases.append(len(self._levels))

    def leave_file(self) -> None:
        """A file ends, and with it what it left open."""
        base = self._bases[-1]
        self._fold(None)
        taken = False
        for level in self._levels[base:]:
            taken = taken or level.kind is Kind.TAKEN
            if taken and level.kind is not Kind.SKIPPED:
                # Apache doesn't look at what a condition that holds leaves open.
                text = f"isn't closed; it ends with the file: write </{level.name}>"
                self._remarks.notice(level.at, level.tag, text)
            else:
                text = f"isn't closed before the file ends: write </{level.name}>"
                self._remarks.mistake(level.at, level.tag, text)
        while len(self._levels) > base:
            self._pop()
        self._bases.pop()

    def open(self, level: Level) -> None:
        """A section begins. Its children of a condition that holds belong to what is around it."""
        if level.kind is Kind.TAKEN:
            level.children = self.here
        if len(self._levels) == _DEEPEST:
            text = f"stands in more than {_DEEPEST} other sections: close some"
            self._remarks.mistake(level.at, level.tag, text)
        self._levels.append(level)

    def scan(self, at: Place, word: str, rest: str, line: str) -> None:
        """A line of a skipped block: only sections count."""
        self._levels[-1].lines += 1
        if word.startswith("</"):
            self.close(at, word, line)
        elif word.startswith("<") and self._counts(word):
            name = word[1:].removesuffix(">")
            # A section without argument is one of its own here, until the nesting says otherwise.
            given = ("",) if rest.partition(">")[0] else ()
            self.open(Level(self._levels[-1].kind, name, at, [], given))

    def _counts(self, word: str) -> bool:
        return self._levels[-1].kind is not Kind.MACRO or word.lower().startswith("<macro")

    def close(self, at: Place, word: str, line: str) -> None:
        """``</NAME>``; ``line`` is all of it."""
        top = self._top()
        if top and top.kind is Kind.MACRO and not word.lower().startswith("</macro"):
            return
        name = word[2:].removesuffix(">")
        if not word.endswith(">"):
            name = self._unended(at, word, line)
        self._fold(name)
        top = self._top()
        if top is None or top.name.lower() != name.lower():
            self._mismatch(at, name)
            return
        # Where a condition holds, Apache compares the whole line.
        behind = line[line.find(">") + 1 :].strip() if ">" in line else ""
        if top.kind is Kind.TAKEN and behind:
            text = f"nothing may stand behind it: put {behind!r} on a line of its own"
            self._remarks.mistake(at, f"</{name}>", text)
        if top.kind is Kind.SECTION and top.bare:
            # Apache takes a bare <Proxy>, and that alone, but no <Proxy> in another.
            around = self._levels[-2].name.lower() if len(self._levels) > 1 else ""
            lenient = top.name.lower() in ("proxy", "proxymatch") and not around.startswith("proxy")
            say = self._remarks.notice if lenient else self._remarks.mistake
            say(top.at, top.tag, "has no argument: write what it is for")
        self._pop()

    def _unended(self, at: Place, word: str, line: str) -> str:
        """The name of a closing tag that doesn't end in ``>``."""
        name, top = word[2:], self._top()
        if top and top.kind is Kind.SKIPPED and top.name.lower() == word[2:-1].lower():
            # Apache takes any character there for the >.
            return word[2:-1]
        if top and top.name.lower() == name.lower():
            self._remarks.slip(at, line, "has no > right behind the name", f"</{top.name}>")
        elif top and top.kind is not Kind.TAKEN:
            self._remarks.mistake(at, word, f"doesn't end in >: write </{top.name}>")
        return name.partition(">")[0]

    def _mismatch(self, at: Place, name: str) -> None:
        """A closing tag that isn't the innermost section's."""
        base = self._bases[-1]
        names = [level.name.lower() for level in self._levels[base:]]
        if name.lower() not in names:
            inner = self._top()
            text = "closes nothing that this file opened"
            if inner:
                text += f"; {inner.tag} of line {inner.at.line} is open"
            self._remarks.mistake(at, f"</{name}>", f"{text}: delete it, or write its beginning")
            return
        inner = self._levels[-1]
        text = f"isn't closed before </{name}> of line {at.line}: write </{inner.name}> there"
        self._remarks.mistake(inner.at, inner.tag, text)
        while self._levels[-1].name.lower() != name.lower():
            self._pop()
        self._pop()

    def _fold(self, closing: str | None) -> None:
        """A second ``<Proxy>`` where ``</Proxy>`` belongs, as in the article's listing (D2).

        It is certain once the end of something else comes, or the file's, and two sections of that
        name are open, the inner one without its argument.
        """
        while len(self._levels) - self._bases[-1] >= 2:
            outer, inner = self._levels[-2:]
            same = outer.name.lower() == inner.name.lower() and outer.kind is inner.kind
            wanted = closing is None or closing.lower() != inner.name.lower()
            if not (same and inner.bare and wanted and inner.kind in (Kind.SECTION, Kind.SKIPPED)):
                return
            if self._outermost(outer):
                return
            text = f"opens a section in that of line {outer.at.line}, which isn't closed"
            self._remarks.slip(inner.at, inner.tag, text, f"</{outer.name}>")
            self._levels.pop()
            self._pop()
            self.here.extend(inner.children)

    def _outermost(self, level: Level) -> bool:
        """Whether it is the condition that began the skipping."""
        return level.kind is Kind.SKIPPED and bool(level.reason)

    def _top(self) -> Level | None:
        return self._levels[-1] if len(self._levels) > self._bases[-1] else None

    def _pop(self) -> None:
        level = self._levels.pop()
        if level.kind is Kind.SECTION:
            made = Section(level.name, level.arguments, level.text, level.at, tuple(level.children))
            self.here.append(made)
        elif level.kind is Kind.SKIPPED and level.reason and level.lines > 1:
            self._remarks.notice(level.at, level.tag, level.reason)
