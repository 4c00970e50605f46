import h11
import pytest

from proxy.core.pages import OwnAnswer, page, reason

FIRST = b"Date: Sun, 22 Nov 2026 13:15:57 GMT\r\nServer: balanceme\r\nSet-Cookie: a=b\r\n"
CLOSE = b"Connection: close\r\n"
STATUSES = [400, 404, 405, 408, 413, 414, 417, 431, 500, 502, 503, 504, 505]


@pytest.mark.parametrize("status", STATUSES)
def test_page(status: int) -> None:
    """A page says its status and, in a sentence, what is the matter (F14, H86)."""
    text = page(status).decode("ascii")
    assert text.count(f"{status} {reason(status)}") == 2
    sentence = text.partition("<p>")[2].partition("</p>")[0]
    assert sentence.endswith(".")


def test_reason() -> None:
    """The reason phrase is the same whatever Python's own is, unless one is given (F14, L2)."""
    assert reason(502) == "Bad Gateway"
    assert reason(414) == "Request-URI Too Long"
    assert OwnAnswer(502).phrase == "Bad Gateway"
    assert OwnAnswer(502, "Proxy Error").phrase == "Proxy Error"


def test_answer() -> None:
    """Date, Server and cookie come first, the connection's lines before the type (C15, F14)."""
    answer = OwnAnswer(503, lines=b"Retry-After: 10\r\n")
    body = page(503)
    assert answer.encode(FIRST, CLOSE, head_only=False) == (
        b"HTTP/1.1 503 Service Unavailable\r\n"
        + FIRST
        + b"Retry-After: 10\r\n"
        + b"Content-Length: %d\r\n" % len(body)
        + CLOSE
        + b"Content-Type: text/html; charset=iso-8859-1\r\n\r\n"
        + body
    )


def test_answer_to_head() -> None:
    """HEAD gets the same head without Content-Length, and no body (F14, H44)."""
    assert OwnAnswer(404).encode(FIRST, b"", head_only=True) == (
        b"HTTP/1.1 404 Not Found\r\n"
        + FIRST
        + b"Content-Type: text/html; charset=iso-8859-1\r\n\r\n"
    )


def test_answer_without_a_body() -> None:
    """An answer of no bytes says so, and has no type (R17)."""
    assert OwnAnswer(200, body=b"").encode(FIRST, b"", head_only=False) == (
        b"HTTP/1.1 200 OK\r\n" + FIRST + b"Content-Length: 0\r\n\r\n"
    )


@pytest.mark.parametrize("status", [400, 503])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_answers_are_read_by_h11(status: int, method: str) -> None:
    """Each of our answers is a whole message for another reader."""
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(OwnAnswer(status).encode(FIRST, b"", head_only=method == "HEAD"))
    event = reader.next_event()
    assert isinstance(event, h11.Response)
    assert event.status_code == status
    if method == "GET":
        assert isinstance(event := reader.next_event(), h11.Data)
        assert event.data == page(status)
    assert isinstance(reader.next_event(), h11.EndOfMessage)
