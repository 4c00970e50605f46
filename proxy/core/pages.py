"""The answers we give ourselves: small correct pages, the same for every kind of error."""

from http import HTTPStatus

_TEXTS = {
    400: "The request can't be understood.",
    404: "Nothing is here.",
    405: "This method can't be used here.",
    408: "The request did not arrive in time.",
    413: "The request is too large.",
    414: "The address is too long.",
    417: "The expectation can't be met.",
    421: "This name is served by another connection. Please connect anew.",
    431: "The request's header is too large.",
    500: "The proxy made a mistake.",
    501: "This transfer coding is not supported.",
    502: "The server that answers this request did not answer properly.",
    503: "No server can take this request now. Please try again shortly.",
    504: "The server that answers this request did not answer in time.",
    505: "This HTTP version is not supported.",
}


# Phrases that Python has changed over the years; these are Apache's.
_PHRASES = {413: "Request Entity Too Large", 414: "Request-URI Too Long"}


def reason(status: int) -> str:
    """The reason phrase of a status."""
    return _PHRASES.get(status) or HTTPStatus(status).phrase


def page(status: int) -> bytes:
    """The body of an error answer; it quotes nothing that a client sent (H86)."""
    title = f"{status} {reason(status)}"
    text = _TEXTS.get(status, "")
    return (
        f"<!DOCTYPE html>\n<html><head><title>{title}</title></head>\n"
        f"<body><h1>{title}</h1><p>{text}</p></body></html>\n"
    ).encode()


class OwnAnswer:
    """An answer of our own: status line, lines of its own, body."""

    __slots__ = ("body", "lines", "phrase", "status", "type")

    def __init__(
        self, status: int, phrase: str = "", *, lines: bytes = b"", body: bytes | None = None
    ) -> None:
        self.status = status
        self.phrase = phrase or reason(status)
        self.lines = lines
        self.body = page(status) if body is None else body
        self.type = b"Content-Type: text/html; charset=iso-8859-1\r\n" if self.body else b""

    def encode(self, first: bytes, connection: bytes, *, head_only: bool) -> bytes:
        """The whole message; ``first`` are Date, Server and cookie, in Apache's order (F14)."""
        length = b"" if head_only else b"Content-Length: %d\r\n" % len(self.body)
        return b"HTTP/1.1 %d %b\r\n%b%b%b%b%b\r\n%b" % (
            self.status,
            self.phrase.encode(),
            first,
            self.lines,
            length,
            connection,
            self.type,
            b"" if head_only else self.body,
        )
