"""What the reader has to say of what it reads: mistakes, notices, and slips that may be either."""

from proxy.apache.tree import Notice, Place


class Remarks:
    """Collects them in the order in which they are found."""

    def __init__(self, *, repair: bool) -> None:
        self.mistakes: list[Notice] = []
        self.notices: list[Notice] = []
        self._repair = repair

    def mistake(self, at: Place, directive: str, text: str) -> None:
        """Apache doesn't start with this, or we can't serve what it says."""
        self.mistakes.append(Notice(at, directive, text))

    def notice(self, at: Place, directive: str, text: str) -> None:
        """It is read, but maybe not as it was meant."""
        self.notices.append(Notice(at, directive, text))

    def slip(self, at: Place, directive: str, text: str, meant: str) -> None:
        """A mistake of which it is certain what was meant: with ``repair`` a notice."""
        if self._repair:
            self.notice(at, directive, f"{text}; read as {meant}")
        else:
            self.mistake(at, directive, f"{text}: write {meant}, or let --repair read it so")
