"""The oracle's tools: the recording member, the raw client, and how facts are compared."""

import socket
import time
from collections.abc import Iterator

import pytest

from tests.end_to_end.oracle_differences import complaints
from tests.end_to_end.oracle_model import chunked, get, post, request
from tests.end_to_end.oracle_run import Difference, Facts, comparable, compare
from tests.end_to_end.raw_client import End, RawClient, Response
from tests.end_to_end.recording_member import CONTINUE, Do, RecordingMember, Script, answer

SCRIPTS: dict[bytes, Script] = {
    b"/early": [Do.LEAVE_BODY, answer(b"early")],
    b"/cut": [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", Do.CLOSE],
    b"/gone": [Do.CLOSE],
    b"/reset": [Do.RESET],
    b"/chunks": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunked(b"ab", b"c")],
    b"/hints": [b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", answer(b"ok")],
    b"/self": [answer(b"", b"Location: http://@SELF@/", b"X-Host: @HOST@", b"X-Other: @OTHER@")],
    b"/ask": [CONTINUE, Do.READ_BODY, answer(b"took it")],
    b"/nonsense": [b"hello", Do.CLOSE],
}


@pytest.fixture
def member() -> Iterator[RecordingMember]:
    """A member with scripts, on a port of its own."""
    with RecordingMember("server1", "127.0.0.1", scripts=SCRIPTS) as found:
        found.other = b"the other"
        yield found


def ask(member: RecordingMember, raw: bytes) -> Response:
    """The member's response to exact bytes, on a connection of its own."""
    host, _, port = member.authority.decode().rpartition(":")
    client = RawClient((host, int(port)), tls=None, patience=2.0)
    try:
        client.send(raw)
        return client.read_response(raw.partition(b" ")[0])
    finally:
        client.close()


def test_a_request_is_recorded_byte_by_byte(member: RecordingMember) -> None:
    """Request line and fields stay as they came: order, case and blanks."""
    ask(member, request(b"get /x?y HTTP/1.1", b"x-Odd:  two \t", b"X-Odd:", host=b"h"))
    (seen,) = member.record.seen
    assert seen.lines == [b"get /x?y HTTP/1.1", b"Host: h", b"x-Odd:  two \t", b"X-Odd:"]
    assert (seen.framing, seen.body, seen.complete) == ("none", b"", True)


def test_bodies_are_recorded_with_their_framing(member: RecordingMember) -> None:
    """A body by length and one by chunks, trailers included."""
    ask(member, post(b"/x", b"abc"))
    raw = chunked(b"ab", b"c", trailers=b"X-T: 1\r\n")
    ask(member, request(b"PUT /x HTTP/1.1", b"Transfer-Encoding: chunked", body=raw))
    first, second = member.record.seen
    assert (first.framing, first.body) == ("length", b"abc")
    assert (second.framing, second.body, second.trailers) == ("chunked", b"abc", b"X-T: 1\r\n")


def test_an_aborted_body_is_recorded_as_far_as_it_came(member: RecordingMember) -> None:
    """The client goes away before the body is complete."""
    host, _, port = member.authority.decode().rpartition(":")
    client = RawClient((host, int(port)), tls=None)
    client.send_all(post(b"/x", b"abcdef")[:-2])
    client.close()
    deadline = time.monotonic() + 2
    while not (member.record.seen and member.record.settled()) and time.monotonic() < deadline:
        time.sleep(0.005)
    (seen,) = member.record.seen
    assert (seen.body, seen.complete, seen.aborted) == (b"abcd", False, True)


def test_a_stopped_member_refuses_and_comes_back(member: RecordingMember) -> None:
    """Stop and start keep the port."""
    host, _, port = member.authority.decode().rpartition(":")
    member.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))
    member.start()
    assert ask(member, get()).body == b"server1"


def test_the_client_tells_endings_apart(member: RecordingMember) -> None:
    """Complete, truncated, nothing at all, and what is no response."""
    assert ask(member, get(b"/chunks")).body == b"abc"
    cut = ask(member, get(b"/cut"))
    assert (cut.end, cut.body) == (End.TRUNCATED, b"abc")
    assert ask(member, get(b"/gone")).end is End.NOTHING
    assert ask(member, get(b"/reset")).end is End.NOTHING
    nonsense = ask(member, get(b"/nonsense"))
    assert (nonsense.status_line, nonsense.body) == (b"", b"hello")


def test_the_client_keeps_interim_responses(member: RecordingMember) -> None:
    """1xx responses are reported with the final one."""
    response = ask(member, get(b"/hints"))
    assert response.interim == [[b"HTTP/1.1 103 Early Hints", b"Link: x"]]
    assert response.body == b"ok"
    asked = ask(member, post(b"/ask", b"abc", b"Expect: 100-continue"))
    assert asked.interim == [[b"HTTP/1.1 100 Continue"]]
    assert asked.body == b"took it"


def test_scripts_may_answer_early_and_name_addresses(member: RecordingMember) -> None:
    """A script that leaves the body answers at once; addresses are filled in."""
    head = request(b"POST /early HTTP/1.1", b"Content-Length: 5")
    assert ask(member, head).body == b"early"
    fields = ask(member, get(b"/self")).fields
    assert b"Location: http://%s/" % member.authority in fields
    assert b"X-Host: 127.0.0.1" in fields
    assert b"X-Other: the other" in fields


def test_dates_of_today_become_comparable() -> None:
    """A fresh date and a cookie's expiry are kept as distances, a script's date as it is."""
    response = Response(
        fields=[
            b"Date: Tue, 01 Dec 2026 10:00:00 GMT",
            b"Expires: Sun, 06 Nov 1994 08:49:37 GMT",
            b"Set-Cookie: BALANCEME=balancer.server1; expires=Tue, 01-Dec-2026 11:00:00 GMT",
            b"Content-Length: 3",
        ],
        started=1796119200.4,
    )
    assert list(comparable(response, own=True)) == [
        b"Date: (at arrival)",
        b"Expires: Sun, 06 Nov 1994 08:49:37 GMT",
        b"Set-Cookie: BALANCEME=balancer.server1; expires=(date + 3600 s)",
    ]


def test_every_unequal_fact_is_a_difference() -> None:
    """Facts that one side lacks differ, too."""
    found = compare({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4})
    assert found == [Difference("b", 2, 3), Difference("c", None, 4)]


def test_the_list_is_kept_true_from_both_sides() -> None:
    """An unlisted difference, a listed one that is gone and a wrong deviation are complaints."""
    status = "answer 1: status line"
    ours: Facts = {status: b"HTTP/1.1 502 Proxy Error"}
    listed = [Difference(status, b"HTTP/1.1 200 OK", ours[status])]
    assert complaints("bad-lf-only", listed, ours) == []
    assert "not on the list" in complaints("bad-lf-only", [*listed, Difference("x", 1, 2)], ours)[0]
    assert "no longer different" in complaints("bad-lf-only", [], ours)[0]
    assert "should be" in complaints("bad-lf-only", listed, {status: b"HTTP/1.1 500 Oops"})[0]
    assert "not on the list" in complaints("assign-absent", listed, ours)[0]
