"""proxy.admin.sessions_text: sessions for a terminal."""

from datetime import timedelta, timezone

from proxy.admin.sessions_text import history_text, sessions_text
from tests.admin.fake_commands import EVENTS, SESSION

NOW: float = SESSION["last"] + 65
ZONE = timezone(timedelta(hours=1))

TABLE = """\
SESSION           BALANCER  MEMBER       FOR  LAST SEEN  MOVES  WHY THERE
0123456789abcdef  cluster   server1  17m 45s      1m 5s      1  its own member can't be used

3 live sessions, of which these 1 were seen last
"""

HISTORY = """\
session 0123456789abcdef of balancer cluster
15:15:57 assigned server2: elected
15:16:40 moved to server1: its own member can't be used
15:20:00 told to go from server1 to server2 by root: a bad disk
last request 15:32:37
"""


def test_table() -> None:
    """One line for each session, and how many there are."""
    assert sessions_text({"total": 3, "sessions": [SESSION]}, NOW) + "\n" == TABLE
    assert sessions_text({"total": 0, "sessions": []}, NOW) == "0 live sessions"
    assert sessions_text({"total": 1, "sessions": [SESSION]}, NOW).endswith("\n\n1 live session")


def test_history() -> None:
    """One line for each event, by the time of day."""
    move = {
        "at": 1795357200.0,
        "member": "server2",
        "from": "server1",
        "by": "root",
        "reason": "a bad disk",
    }
    told = {**SESSION, "events": EVENTS, "move": move}
    assert history_text([told], NOW, ZONE) + "\n" == HISTORY


def test_history_of_another_day() -> None:
    """What wasn't today says its date; a session that is over says so."""
    told = {**SESSION, "events": EVENTS[:1], "move": None, "live": False}
    text = history_text([told], NOW + 86400, ZONE)
    assert "\n2026-11-22 15:15:57 assigned server2: elected\n" in text
    assert text.endswith("last request 2026-11-22 15:32:37; it is over")


def test_every_event() -> None:
    """What became of the session is told with its member."""
    known = [
        {**EVENTS[0], "session": "unknown"},
        {**EVENTS[0], "session": "kept", "reason": "its own member"},
        {**EVENTS[0], "session": "teleported"},
    ]
    text = history_text([{**SESSION, "events": known}], NOW, ZONE).splitlines()
    assert text[1:4] == [
        "15:15:57 assigned server2, since its cookie named no member: elected",
        "15:15:57 seen on server2: its own member",
        "15:15:57 on server2: elected",
    ]


def test_other_versions() -> None:
    """What is missing or of another kind is shown as it is, and never ends the command."""
    assert history_text([{}], NOW) == "session - of balancer -\nlast request -"
    strange = [{"events": [{"at": "then"}, 3], "move": {"reason": 1, "by": "\n"}, "last": []}]
    assert "\\n" in history_text(strange, NOW)
    assert sessions_text({}, NOW) == "- live sessions"
    assert sessions_text({"total": "many", "sessions": [{"since": []}]}, NOW)
