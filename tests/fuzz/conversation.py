"""A whole conversation for the fuzzer: a client, members that serve it, bytes of its choice.

An input is a list of acts, each behind a NUL byte: ``C`` the client sends what follows, ``M`` the
member does, and so on as ``_ACTS`` has them. What members and the client got is then read by h11.
"""

from collections.abc import Callable
from typing import Any

from proxy.core.settings import Settings
from tests import readers
from tests.fakes import Peer, Stage
from tests.readers import Message

# h11 takes no raw 8-bit bytes in a target: here all of them are one letter.
PLAIN = bytes(byte if byte < 0x80 else 0x7A for byte in range(256))
TLS, APACHE, UPGRADE = 1, 2, 4

Cut = Callable[[bytes], list[bytes]]


class _Stage(Stage):
    """A stage whose settings are checked once."""

    _known: dict[int, Settings] = {}  # noqa: RUF012 - shared on purpose

    def __init__(self, flags: int) -> None:
        self._flags = flags
        super().__init__(2, tls=bool(flags & TLS))

    def _settings(self, members: int, changes: dict[str, dict[str, Any]]) -> Settings:  # type: ignore[override]
        kind = self._flags & ~TLS
        if kind not in self._known:
            changes = {
                "balancer": {"session_cookie": {}},
                "mapping": {"upgrade": ["websocket"]} if kind & UPGRADE else {},
                "top": {"compat": "apache"} if kind & APACHE else {},
            }
            self._known[kind] = Stage._settings(members, changes)
        return self._known[kind]


class Conversation:
    """One client, and the members that its requests reach."""

    def __init__(self, stage: Stage, cut: Cut) -> None:
        self.stage = stage
        self.cut = cut
        self.client = stage.client()
        self.members: list[Peer] = []
        self.said = b""

    def act(self, what: bytes, data: bytes) -> None:
        """One act; what is none is something that the client says."""
        stage, client = self.stage, self.client
        if what == b"T":
            stage.advance((data[:1] or b"\1")[0])
            return
        if what == b"R":
            if stage.openings:
                stage.refuse(stage.openings[0])
            return
        if what in b"MXKL" and what:
            self._member(what, data)
            return
        if client.transport.lost or client.transport.at_eof:
            return
        if what == b"E":
            client.end()
        elif what == b"S":
            client.stick()
        elif what == b"F":
            client.flow()
        else:
            self._say(client, data if what == b"C" else what + data, by_client=True)

    def _member(self, what: bytes, data: bytes) -> None:
        """What the member does that serves the client, or else served it last."""
        if self.stage.openings:
            self.members.append(self.stage.accept(self.stage.openings[0]))
        exchange = self.stage.clients[0].exchange
        connection = exchange.connection if exchange is not None else None
        serving = [m for m in self.members if connection in (None, m.transport.protocol)]
        if not serving or serving[-1].transport.lost or serving[-1].transport.at_eof:
            return
        member = serving[-1]
        if what == b"M":
            self._say(member, data)
        elif what == b"X":
            member.end()
        elif what == b"K":
            member.stick()
        else:
            member.flow()

    def _say(self, peer: Peer, data: bytes, *, by_client: bool = False) -> None:
        for piece in self.cut(data):
            if peer.transport.lost:
                return
            if by_client:
                self.said += piece
            peer.send(piece)

    # --- what must hold ----------------------------------------------------------------------

    def check(self, *, apache: bool) -> None:
        """What members got is what h11 read of the client; so is what the client got."""
        asked = readers.read_requests(self.said.translate(PLAIN), chunks_by_hand=True)
        for member in self.members:
            data = bytes(member.transport.sent + member.transport.waiting)
            got = readers.read_requests(data.translate(PLAIN))
            if self._switched():
                continue  # what follows an upgrade is no HTTP
            assert not got.fault, f"a member got what h11 refuses: {got.fault}"
            assert not got.rest, "a member got more than requests"
            left = asked.messages
            for message in got.messages:
                left = self._heard(message, left, apache=apache)
        self._check_client()

    def _switched(self) -> bool:
        return any(exchange.response.status == 101 for exchange in self.stage.log.exchanges)

    @staticmethod
    def _heard(message: Message, asked: list[Message], *, apache: bool) -> list[Message]:
        """The requests of the client from the one on that ``message`` is a copy of."""
        for index, request in enumerate(asked):
            same = request.body if message.complete else request.body[: len(message.body)]
            if message.method == request.method and message.body == same:
                assert request.complete or not message.complete, "completed by us (H11)"
                if not apache:
                    gone = {b"host", b"expect", b"max-forwards"} | readers.CLAIMS
                    if message.besides(gone | {b"upgrade"}) != request.without(gone):
                        continue
                return asked[index:]
        raise AssertionError(f"nobody asked for {message!r}")

    def _check_client(self) -> None:
        """The client got a sequence of responses, one for each request, or a refusal."""
        log = self.stage.log
        upgrade = [(b"upgrade", b"websocket")]
        requests = [
            # The refusal of a malformed body has a page, whatever was asked.
            Message(b"GET" if e.head.line in log.refusals else e.head.method, fields=upgrade)
            for e in self.stage.clients[0].exchanges
        ]
        requests.append(Message(b"GET"))  # a refusal needs no request
        data = bytes(self.client.transport.sent)
        # Where the connection's end is a body's end, the body counts as incomplete here.
        answered = readers.read_responses(data, requests, closed=False)
        if self._switched():
            return
        assert not answered.fault, f"the client got what h11 refuses: {answered.fault}"
        assert not answered.rest, "the client got more than responses"


def play(data: bytes, flags: int, cut: Cut) -> None:
    """Play the acts in ``data`` and check what came of them."""
    stage = _Stage(flags & (TLS | APACHE | UPGRADE))
    try:
        acts = Conversation(stage, cut)
        for part in data.split(b"\0"):
            acts.act(part[:1], part[1:])
        stage.end()
        acts.check(apache=bool(flags & APACHE))
    finally:
        stage.close()
