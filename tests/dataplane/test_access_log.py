"""One line for each exchange: what it says, what it never says, and how it is written."""

import json

import pytest

from proxy.core.pages import OwnAnswer
from proxy.core.settings import LogFormat
from proxy.dataplane.access_log import BATCH, LONGEST, PATIENCE, AccessLog, Refusal
from tests.dataplane.conftest import MakeStage
from tests.dataplane.messages import request, response
from tests.fakes import FakeClock, Stage

JSON = {"access_log": {"format": "json"}}


def log_line(stage: Stage, line: bytes = b"GET / HTTP/1.1", fields: bytes = b"") -> str:
    """The line of one exchange that is answered 200 with five bytes."""
    client = stage.client()
    client.send(request(line, fields))
    stage.clock.advance(0.25)
    member = stage.accept(stage.openings[0])
    stage.clock.advance(0.5)
    member.send(response(body=b"hello"))
    return stage.log.lines[-1]


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Local time is UTC."""
    monkeypatch.setattr(
        FakeClock, "log_time", lambda _, second: f"22/Nov/2026:14:15:{second % 60:02} +0000"
    )


# --- combined ------------------------------------------------------------------------------------


def test_combined_line(stage: Stage) -> None:
    """Apache's combined format, then the session's fate and times in microseconds (G1)."""
    fields = b"Referer: http://a/b\r\nUser-Agent: Mozilla/5.0 (X; Y)\r\n"
    fields += b"Cookie: BALANCEME=x.server2\r\n"
    assert log_line(stage, b"GET /a?b=c HTTP/1.1", fields) == (
        '192.0.2.1 - - [22/Nov/2026:14:15:57 +0000] "GET /a?b=c HTTP/1.1" 200 5'
        ' "http://a/b" "Mozilla/5.0 (X; Y)" session=kept route=server2 member=server2 attempts=1'
        " connect=250000 first_byte=750000 total=750000"
    )


def test_combined_line_of_an_own_answer(stage: Stage) -> None:
    """What reached no member says so with dashes."""
    client = stage.client()
    client.send(request(b"OPTIONS * HTTP/1.1"))
    assert stage.log.lines[0].endswith(
        '"OPTIONS * HTTP/1.1" 200 - "-" "-" session=- route=- member=- attempts=0'
        " connect=0 first_byte=0 total=0"
    )


def test_combined_line_of_a_refusal(stage: Stage) -> None:
    """A refused request has the same fields, as far as it was read (G2)."""
    stage.client().send(b'GET /"\x1b[31m  HTTP/1.1\r\nCookie: secret\r\n\r\n')
    page = len(OwnAnswer(400).body)
    (line,) = stage.log.lines
    assert line == (
        '192.0.2.1 - - [22/Nov/2026:14:15:57 +0000] "GET /\\x22\\x1b[31m  HTTP/1.1" 400 '
        f'{page} "-" "-" session=- route=- member=- attempts=0 connect=0 first_byte=0 total=0'
    )


@pytest.mark.parametrize(
    ("cookie", "words"),
    [
        (b"", "session=new route=- member=server1"),
        (b"BALANCEME=x.server2", "session=kept route=server2 member=server2"),
        (b"BALANCEME=x.gone", "session=unknown route=gone member=server1"),
        (b"BALANCEME=x.a b", "session=unknown route=a\\x20b member=server1"),
    ],
)
def test_says_what_became_of_the_session(stage: Stage, cookie: bytes, words: str) -> None:
    """New, kept or unknown, the route that came in, and who served (habit 21 of the style)."""
    assert f'" {words} attempts=1' in log_line(stage, fields=b"Cookie: " + cookie + b"\r\n")


# --- JSON ----------------------------------------------------------------------------------------


def test_json_line(make_stage: MakeStage) -> None:
    """The same as an object, on one line."""
    stage = make_stage(top=JSON)
    fields = b'User-Agent: a"b\\c\x80\r\nReferer: http://a/?token=secret\r\n'
    line = log_line(stage, b"GET /a HTTP/1.1", fields)
    assert json.loads(line) == {
        "time": 1795356957.0,
        "client": "192.0.2.1",
        "request": "GET /a HTTP/1.1",
        "host": "proxy.example",
        "status": 200,
        "bytes": 5,
        "referer": "http://a/?token=...",
        "user_agent": 'a"b\\c\x80',
        "session": "new",
        "route": "-",
        "member": "server1",
        "reason": "elected",
        "attempts": 1,
        "connect": 250000,
        "first_byte": 750000,
        "total": 750000,
    }


def test_json_line_of_a_refusal(make_stage: MakeStage) -> None:
    """A refused request is an object too, with what is known of it."""
    stage = make_stage(top=JSON)
    stage.client().send(b"GET /\x00 HTTP/1.1\r\n\r\n")
    line = json.loads(stage.log.lines[0])
    assert line["request"] == "GET /\x00 HTTP/1.1"
    assert line["status"] == 400
    assert line["bytes"] == len(OwnAnswer(400).body)


@pytest.mark.parametrize("status", [404, 503])
def test_json_line_without_a_member(make_stage: MakeStage, status: int) -> None:
    """Own answers and failed attempts are whole objects as well."""
    stage = make_stage(1, top=JSON)
    stage.client().send(request(b"GET /%2F HTTP/1.1" if status == 404 else b"GET / HTTP/1.1"))
    if status == 503:
        stage.refuse()
    line = json.loads(stage.log.lines[0])
    assert (line["status"], line["member"]) == (status, "-")
    assert line["attempts"] == (status == 503)


# --- what is never written -----------------------------------------------------------------------


@pytest.mark.parametrize("top", [{}, JSON], ids=["combined", "json"])
def test_secrets_are_not_written(make_stage: MakeStage, top: dict[str, object]) -> None:
    """Cookies, credentials, and session ids in addresses stay out of the log (H86, D80)."""
    stage = make_stage(top=top)
    fields = (
        b"Cookie: SID=hidden\r\nAuthorization: Basic hidden\r\n"
        b"Referer: https://a/?PassWord=hidden&x=seen\r\n"
    )
    target = b"GET /webapp?sessionid=hidden&a=seen&passwd=hidden&Token=hidden HTTP/1.1"
    line = log_line(stage, target, fields)
    assert "hidden" not in line
    assert line.count("seen") == 2
    assert "?sessionid=...&a=seen&passwd=...&Token=... HTTP/1.1" in line


@pytest.mark.parametrize("top", [{}, JSON], ids=["combined", "json"])
def test_passwords_before_a_host_are_not_written(
    make_stage: MakeStage, top: dict[str, object]
) -> None:
    """An address may hold a name and password of its own (H86, RFC 3986 section 3.2.1)."""
    stage = make_stage(top=top)
    line = log_line(stage, b"GET / HTTP/1.1", b"Referer: https://user:hidden@seen/a@b\r\n")
    assert '"https://...@seen/a@b"' in line
    client = stage.client()
    client.send(request(b"GET http://user:hidden@seen/ HTTP/1.1"))
    assert "hidden" not in stage.log.lines[-1]
    assert "GET http://...@seen/ HTTP/1.1" in stage.log.lines[-1]


def test_secrets_of_refused_requests_are_not_written(stage: Stage) -> None:
    """The same for what could not be read (H86)."""
    client = stage.client()
    client.send(b"GET /?sessionid=hidden&password=hidd")
    stage.advance(21)
    assert "hid" not in stage.log.lines[0]
    assert "408" in stage.log.lines[0]


@pytest.mark.parametrize("top", [{}, JSON], ids=["combined", "json"])
@pytest.mark.parametrize("byte", [b'"', b"\\", b"\t", b"\x80", b"\xff"])
def test_nothing_breaks_a_line(make_stage: MakeStage, top: dict[str, object], byte: bytes) -> None:
    """What could end a string, a line or reach a terminal is escaped (H85)."""
    stage = make_stage(top=top)
    line = log_line(stage, fields=b"User-Agent: a" + byte + b"b\r\n")
    escaped = f"\\x{byte[0]:02x}" if not top else f"\\u{byte[0]:04x}"
    assert f'"a{escaped}b"' in line
    assert line.isprintable()
    assert line.isascii()


def test_long_values_are_cut(stage: Stage) -> None:
    """A value beyond 2048 bytes is cut (H85)."""
    line = log_line(
        stage, b"GET /" + b"a" * 5000 + b" HTTP/1.1", b"Referer: a" + b"\t" * 9000 + b"b\r\n"
    )
    assert f'"GET /{"a" * (LONGEST - 5)}" ' in line
    assert len(line) < 6 * LONGEST


# --- writing -------------------------------------------------------------------------------------


class Writes(list[bytes]):
    """A sink that keeps what it was handed, and for how long it was to wait in the end."""

    patience: float | None = None

    def write(self, lines: bytes) -> None:
        """Keep them."""
        self.append(lines)

    def close(self, patience: float) -> None:
        """The end."""
        self.patience = patience


def refuse(log: AccessLog, count: int = 1) -> None:
    """So many requests are refused."""
    for number in range(count):
        log.refused(Refusal(b"192.0.2.1", 0, b"%d" % number, 400, 9))


def test_lines_are_written_in_batches() -> None:
    """Lines wait until they are flushed; then one write takes all of them (P6)."""
    writes = Writes()
    log = AccessLog(writes, LogFormat.COMBINED, FakeClock())
    refuse(log, BATCH - 1)
    assert not writes
    assert repr(log) == f"<AccessLog {BATCH - 1} lines waiting>"
    log.flush()
    assert [lines.count(b"\n") for lines in writes] == [BATCH - 1]


def test_a_full_batch_is_written_at_once(stage: Stage) -> None:
    """However soon it is, 500 lines are written (P6)."""
    writes = Writes()
    client = stage.client()
    client.send(request(b"OPTIONS * HTTP/1.1"))
    (exchange,) = stage.log.exchanges
    log = AccessLog(writes, LogFormat.COMBINED, stage.clock)
    for _ in range(BATCH):
        assert not writes
        log.exchange(exchange, 0.0)
    assert len(writes) == 1


def test_a_full_batch_of_refusals_is_written_at_once() -> None:
    """The same for requests that never became exchanges (P6)."""
    writes = Writes()
    refuse(AccessLog(writes, LogFormat.COMBINED, FakeClock()), BATCH)
    assert len(writes) == 1


def test_sink_may_try_again_without_new_lines() -> None:
    """Each flush reaches the sink, which may have lines that waited for their reader."""
    writes = Writes()
    log = AccessLog(writes, LogFormat.COMBINED, FakeClock())
    log.flush()
    assert writes == [b""]


def test_another_sink_and_format() -> None:
    """Both change while it is in use: what was collected before goes to the sink before."""
    first, second, third = Writes(), Writes(), Writes()
    log = AccessLog(first, LogFormat.COMBINED, FakeClock())
    refuse(log)
    log.replace(second, LogFormat.JSON)
    refuse(log)
    log.replace(None, LogFormat.JSON)
    refuse(log)
    log.replace(third, LogFormat.COMBINED)
    refuse(log, 2)
    log.flush()
    assert [b"".join(sink).count(b"\n") for sink in (first, second, third)] == [1, 1, 2]
    assert first[0].startswith(b"192.0.2.1 - - ")
    assert json.loads(second[0])["client"] == "192.0.2.1"
    assert third[-1].startswith(b"192.0.2.1 - - ")
    assert (first.patience, second.patience) == (None, None)


def test_close_writes_what_was_collected() -> None:
    """In the end the last lines get a moment to be taken, and nothing comes behind them."""
    writes = Writes()
    log = AccessLog(writes, LogFormat.COMBINED, FakeClock())
    refuse(log)
    log.close()
    log.close()
    refuse(log)
    log.flush()
    assert b"".join(writes).count(b"\n") == 1
    assert writes.patience == PATIENCE


def test_counts_exchanges(stage: Stage) -> None:
    """Every exchange that has ended counts, whether lines are written or not; refusals don't."""
    assert stage.worker.exchanges == 0
    log_line(stage)
    client = stage.client()
    client.send(request(b"OPTIONS * HTTP/1.1"))
    assert stage.worker.exchanges == stage.log.count == 2
    client.send(b"nonsense\r\n\r\n")
    assert stage.log.count == 2
    log = AccessLog(None, LogFormat.COMBINED, stage.clock)
    log.exchange(stage.log.exchanges[0], 0.0)
    assert log.count == 1


def test_no_log(stage: Stage) -> None:
    """Without a place to write to nothing is kept."""
    log = AccessLog(None, LogFormat.COMBINED, stage.clock)
    stage.client().send(request(b"OPTIONS * HTTP/1.1"))
    log.exchange(stage.log.exchanges[0], 0.0)
    log.refused(Refusal(b"192.0.2.1", 0, b"-", 400, 9))
    log.flush()
    log.close()
    assert repr(log) == "<AccessLog 0 lines waiting>"
