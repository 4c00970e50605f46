"""The messages of the data plane's tests: as clients and members send them, and as they arrive."""

DATE = b"Sun, 22 Nov 2026 14:15:57 GMT"
HOST = b"Host: proxy.example\r\n"
OUR_FIELDS = (
    b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Host: proxy.example\r\n"
    b"X-Forwarded-Server: proxy.example\r\nX-Forwarded-Proto: http\r\n"
)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CLOSE = b"Connection: close\r\n"


def length(body: bytes) -> bytes:
    """The Content-Length line of a body."""
    return b"Content-Length: %d\r\n" % len(body)


def chunks(*pieces: bytes) -> bytes:
    """Pieces as chunks, with the last chunk."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def request(line: bytes = b"GET / HTTP/1.1", fields: bytes = b"", body: bytes = b"") -> bytes:
    """A request as the client sends it; ``fields`` are whole lines."""
    return line + b"\r\n" + HOST + fields + b"\r\n" + body


def post(body: bytes, fields: bytes = b"") -> bytes:
    """A POST with a length as the client sends it."""
    return request(b"POST / HTTP/1.1", fields + length(body), body)


def passed_on(
    line: bytes = b"GET / HTTP/1.1", fields: bytes = b"", tail: bytes = b"", body: bytes = b""
) -> bytes:
    """The same request as the member gets it; ``tail`` is what stands behind our fields."""
    return (
        line
        + b"\r\nHost: server1\r\n"
        + fields
        + OUR_FIELDS
        + tail
        + b"Connection: Keep-Alive\r\n\r\n"
        + body
    )


def response(line: bytes = b"200 OK", fields: bytes = b"", body: bytes | None = b"") -> bytes:
    """A response as the member sends it, with a length unless ``body`` is None."""
    framing = b"" if body is None else length(body)
    return b"HTTP/1.1 " + line + b"\r\n" + fields + framing + b"\r\n" + (body or b"")


def handed_on(line: bytes = b"200 OK", fields: bytes = b"", body: bytes | None = b"") -> bytes:
    """The same response as the client gets it."""
    first = b"Date: " + DATE + b"\r\nServer: balanceme\r\n"
    return response(line, first + fields, body)
