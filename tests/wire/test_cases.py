"""The notation of the cases, and that a case which says something wrong fails."""

from pathlib import Path

import pytest

from tests.wire.cases import Case, read_cases, shown
from tests.wire.playing import WHOLE, Conversation, Manner, pieces


def read(tmp_path: Path, text: str) -> list[Case]:
    """The cases in a text."""
    path = tmp_path / "x.wire"
    path.write_text(text)
    return [*read_cases(path)]


def test_lines_stand_for_bytes(tmp_path: Path) -> None:
    """A line ends in CR LF unless it goes on; escapes are those of Python; long text is short."""
    text = "== H1 a\nclient sends\n| a\\r\\x80\\0\n|  b\\\\\n|\n| <3*xy>c\\\n"
    (case,) = read(tmp_path, text)
    assert case.steps[0].data == b"a\r\x80\0\r\n b\\\r\n\r\nxyxyxyc"
    assert case.name == "x:H1 a"


def test_each_makes_a_case_of_each_text(tmp_path: Path) -> None:
    """All have the first one's shape, and are cut in two where they differ from it."""
    text = "== H1 H2 a\neach\none | 1\nnone |\nclient sends\n| 0123456789<each>0123456789\n"
    one, none = read(tmp_path, text)
    assert (one.name, none.name) == ("x:H1 H2 a: one", "x:H1 H2 a: none")
    assert none.rules == ["H1", "H2"]
    assert none.steps[0].data == b"01234567890123456789\r\n"
    assert one.steps[0].cuts == range(1, 23)
    assert set(none.steps[0].cuts) <= set(range(8, 14))


@pytest.mark.parametrize(
    "text",
    [
        "== a case for no rule\nclient asks\n",
        "== H1 a\n| whose words\n",
        "== H1 a\nclient shouts\n",
        "== H1 a\nclient gets own\n",
        "== H1 a\neach\nno text\nclient asks\n",
    ],
)
def test_refuses_what_is_no_case(tmp_path: Path, text: str) -> None:
    """A slip of the pen is no case that says nothing."""
    with pytest.raises(AssertionError):
        read(tmp_path, text)


def test_pieces() -> None:
    """Places count from the beginning of all that a side sends."""
    assert [*pieces(b"abcdef", 10, (10, 12, 15, 16))] == [b"ab", b"cde", b"f"]
    assert [*pieces(b"abc", 0, range(3))] == [b"a", b"b", b"c"]


def test_shows_bytes_as_a_case_writes_them() -> None:
    """What a failure prints can be pasted into a case."""
    assert shown(b"a\\\0\r\n\r\nb") == "| a\\\\\\x00\n| \n| b\\"


ASKED = "== H1 a\nclient asks\nmember is asked\n"
ANSWERED = ASKED + "member answers\nclient is answered\n"


def test_plays_the_plainest_exchange(tmp_path: Path) -> None:
    """It goes well, whole and in pieces."""
    (case,) = read(tmp_path, ANSWERED)
    Conversation(case, WHOLE).play()
    Conversation(case, Manner(range(100), range(100))).play()


@pytest.mark.parametrize(
    "text",
    [
        ASKED,
        ASKED + "member answers\n",
        ANSWERED + "client is closed\n",
        ANSWERED + "client is reset\n",
        ANSWERED + "member is closed\n",
        ANSWERED + "nobody connects\n",
        ANSWERED + "client sends\n| GET\n",
        "== H1 a\nclient asks\n",
        "== H1 a\nclient asks\nnobody connects\n",
        "== H1 a\nclient sends\n| GET /\n|\nclient gets own 400\n",
        "== H1 a\nclient sends\n| GET /\n|\nclient is closed\n",
        "== H1 a\nclient asks\nserver2 is asked\n",
    ],
)
def test_finds_what_a_case_says_wrong(tmp_path: Path, text: str) -> None:
    """Too little, too much, or not so; what may be left of it is found by asking once more."""
    case = read(tmp_path, text)[0]
    with pytest.raises(AssertionError):
        Conversation(case, WHOLE).play()
