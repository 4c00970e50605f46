"""Plays a case on a stage, with the bytes of either side cut anywhere, and looks what is left.

Afterwards the client asks once more. Where its connection was closed nothing may come of that;
where it wasn't, it must get its own answer, and no more. So must another client, which gets the
member's connection if that was kept. So each case shows as well that no byte of it is left where
the next message begins (P3, P6 of the hardening rules).
"""

import re
from collections.abc import Container, Iterator
from typing import Any, ClassVar, NamedTuple

from proxy.core.settings import Settings
from tests.dataplane.messages import DATE
from tests.fakes import Peer, Stage, unchunked
from tests.wire.cases import Case, Step, shown


class Manner(NamedTuple):
    """At which places of all that client and members send their bytes are cut."""

    client: Container[int] = ()
    member: Container[int] = ()


WHOLE = Manner()


def pieces(data: bytes, begin: int, places: Container[int]) -> Iterator[bytes]:
    """``data``, which begins at the place ``begin``, in pieces."""
    start = 0
    for end in range(1, len(data)):
        if begin + end in places:
            yield data[start:end]
            start = end
    yield data[start:]


class QuickStage(Stage):
    """A stage whose settings are checked once; many plays have the same."""

    _known: ClassVar[dict[str, Settings]] = {}

    @classmethod
    def _settings(cls, members: int, changes: dict[str, dict[str, Any]]) -> Settings:
        key = f"{members} {changes}"
        if key not in cls._known:
            cls._known[key] = Stage._settings(members, changes)
        return cls._known[key]


class Conversation:
    """One case, played once."""

    def __init__(self, case: Case, manner: Manner) -> None:
        self._case = case
        self._manner = manner
        self._stage = QuickStage(**{"members": 1, **case.settings})
        self._client = self._stage.client()
        # every connection that a member accepted, the last by its member's name
        self._members: list[Peer] = []
        self._by_name: dict[str, Peer] = {}
        # what everybody must have got until now
        self._expected: dict[Peer, bytes] = {}
        # whose end the case has told
        self._ended: set[Peer] = set()
        # how much either side has sent
        self._sent = {"client": 0, "member": 0}

    def play(self, *, thorough: bool = True) -> None:
        """All of it; ``thorough``: another client asks in the end as well."""
        try:
            for step in self._case.steps:
                try:
                    self._step(step)
                except AssertionError as error:
                    error.add_note(f"in line {step.number}: {step.actor} {step.verb}")
                    raise
            self._look_back()
            self._afterwards(thorough=thorough)
            self._stage.end()
        finally:
            self._stage.close()

    def _step(self, step: Step) -> None:
        if step.verb == "seconds pass":
            self._stage.advance(int(step.actor))
        elif step.verb == "connects":
            assert not self._stage.openings, "somebody connects"
            assert not self._members, "a member was connected to"
        elif step.verb == "refuses":
            self._stage.refuse(self._opening(step.actor) or "nobody")
        else:
            peer = self._client if step.actor == "client" else self._member(step)
            self._peer_step(peer, step)

    def _opening(self, name: str) -> str | None:
        """The member that a connection is being opened to."""
        openings = self._stage.openings
        if name != "member":
            return name if name in openings else None
        return openings[0] if openings else None

    def _member(self, step: Step) -> Peer:
        """The member's connection; it accepts a new one to be asked, or to answer."""
        name = step.actor
        opening = self._opening(name)
        talks = step.verb in ("sends", "gets") or name not in self._by_name
        if opening is not None and talks:
            peer = self._stage.accept(opening)
            self._members.append(peer)
            self._by_name[opening] = self._by_name["member"] = peer
        assert name in self._by_name, f"nobody connects to {name}"
        return self._by_name[name]

    def _peer_step(self, peer: Peer, step: Step) -> None:
        if step.verb not in ("sends", "gets"):
            self._ended.add(peer)
        if step.verb == "sends":
            self._send(peer, step)
        elif step.verb == "gets":
            self._compare(peer, step.data)
        elif step.verb == "ends":
            peer.end()
        elif step.verb == "resets":
            peer.reset()
        elif step.verb == "is reset":
            assert peer.is_reset, f"not reset but {peer.ends}"
        else:
            assert not peer.open, "it is open"
            assert not peer.is_reset, "it is reset"

    def _send(self, peer: Peer, step: Step) -> None:
        side = "client" if step.actor == "client" else "member"
        places = self._manner.client if side == "client" else self._manner.member
        for piece in pieces(step.data, self._sent[side], places):
            peer.send(piece)
        self._sent[side] += len(step.data)

    def _compare(self, peer: Peer, expected: bytes) -> None:
        """Byte for byte; where the bytes were cut, so may chunks be. Time may have passed."""
        found = peer.take()
        now = self._stage.clock.date(int(self._stage.clock.wall()))
        found = found.replace(now, DATE)
        whole = self._expected.get(peer, b"") + expected
        self._expected[peer] = whole
        same = found == expected
        if self._manner != WHOLE:
            got = bytes(peer.transport.sent).replace(now, DATE)
            same = same or unchunked(got) == unchunked(whole)
        assert same, f"expected\n{shown(expected)}\nfound\n{shown(found)}"

    # --- what is left ------------------------------------------------------------------------

    def _look_back(self) -> None:
        """Nobody got anything, and nobody was closed, that the case doesn't say."""
        for peer in (self._client, *self._members):
            found = peer.take()
            assert not found, f"more than the case says:\n{shown(found)}"
            assert peer.open or peer in self._ended, (
                "a connection is closed, and the case doesn't say so"
            )
        assert not self._stage.openings, "a connection that the case says nothing of"

    def _afterwards(self, *, thorough: bool) -> None:
        """The client asks once more, and then another."""
        transport = self._client.transport
        if self._client.open:
            self._ask(self._client, b"/the-same-client")
        elif not (transport.at_eof or transport.lost):
            self._client.send(b"GET /behind HTTP/1.1\r\nHost: proxy.example\r\n\r\n")
            self._look_back()
        if thorough:
            self._ask(self._stage.client("192.0.2.2"), b"/another-client")

    def _ask(self, client: Peer, path: bytes) -> None:
        """A clean request gets its own answer, and no member anything else."""
        mapping = self._case.settings.get("mapping", {})
        host = mapping.get("host", "proxy.example").encode()
        place = mapping.get("path", "").encode()
        client.send(b"GET %b%b HTTP/1.1\r\nHost: %b\r\n\r\n" % (place, path, host))
        for opening in self._stage.openings:
            self._members.append(self._stage.accept(opening))
        asked = [(peer, found) for peer in self._members if (found := peer.take())]
        assert len(asked) == 1, f"{path!r} was not asked of one member: {asked}"
        member, found = asked[0]
        line = found.partition(b"\r\n")[0]
        assert re.fullmatch(rb"GET \S*%b HTTP/1\.1" % path, line), shown(found)
        assert found.find(b"\r\n\r\n") == len(found) - 4, shown(found)
        member.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))
        answer = client.take()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), shown(answer)
        assert answer.partition(b"\r\n\r\n")[2] == path, shown(answer)
