"""proxy.admin.status_text: the status for a terminal."""

from typing import Any

import pytest

from proxy.admin.status_text import _bytes, duration, status_text
from tests.admin.fake_commands import STATUS

NOW = 1795356957.0 + 2 * 86400 + 3 * 3600 + 125

TEXT = """\
balanceme 1.2.3, process 4711, generation 3, serving, up 2d 3h
configuration /etc/balanceme/balanceme.yaml
listening on 0.0.0.0:443 (TLS), 0.0.0.0:80
12 connections, 34567 requests

WORKER  PROCESS  PHASE     GENERATION  CONNECTIONS  REQUESTS      UP  HEARTBEAT
1          4712  serving            3            7     20000   2d 3h       0.2s
2          4713  starting           3            5     14567  2h 47m      1m 1s

balancer cluster, byrequests
MEMBER   URL                       STATUS                BUSY  WAITING  ELECTED  SESSIONS    SENT  RECEIVED
server1  http://10.0.0.1:8080      ok                       3        2      120        40  1.2 MB   92.0 GB
-        http://10.0.0.2:8080/app  drain, in error [NE]     0        0        7         2   980 B       0 B
"""  # noqa: E501 - the table is wider than our lines


def test_everything() -> None:
    """Head, workers and members, in columns."""
    assert status_text(STATUS, NOW) + "\n" == TEXT


def test_nothing() -> None:
    """A status without anything is shown, with a dash for what is missing."""
    assert status_text({}, NOW) == (
        "balanceme -, process -, generation -, -, up -\nconfiguration -\nlistening on -\n"
        "- connections, - requests\n\n"
        "WORKER  PROCESS  PHASE  GENERATION  CONNECTIONS  REQUESTS  UP  HEARTBEAT"
    )


@pytest.mark.parametrize(
    "strange",
    [
        {"workers": None, "balancers": [], "frontends": "none"},
        {"workers": [1, None, {}], "balancers": {"a": None, "b": {"members": {}}}},
        {"started": "yesterday", "workers": [{"started": [], "heartbeat": "x", "pid": {}}]},
        {"balancers": {"a": {"members": [{"sent": "much", "received": None, "status": 7}]}}},
    ],
)
def test_other_versions(strange: dict[str, Any]) -> None:
    """Values of another kind than today's are shown or left out, and never end the command."""
    assert status_text(strange, NOW).startswith("balanceme ")


def test_more_keys() -> None:
    """What is new in a later version changes nothing."""
    worker = {**STATUS["workers"][0], "memory": 1}
    tree = {**STATUS, "new": {}, "workers": [worker, *STATUS["workers"][1:]]}
    assert status_text(tree, NOW) + "\n" == TEXT


def test_nothing_a_terminal_obeys() -> None:
    """Escapes are shown as text, in whatever value."""
    tree = {
        "phase": "\x1b[31m",
        "config_file": "a\nb",
        "balancers": {"\x07": {"lbmethod": "\x9b", "members": [{"url": "\u202e", "status": "\r"}]}},
    }
    text = status_text(tree, NOW)
    assert text.replace("\n", "").isprintable()
    assert r"\x1b[31m" in text
    assert r"configuration a\nb" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1024, "1.0 kB"),
        (102000, "99.6 kB"),
        (102400, "100 kB"),
        (1024**2 - 1, "1.0 MB"),
        (5 * 1024**3, "5.0 GB"),
        (3 * 1024**4, "3.0 TB"),
        (2000 * 1024**5, "2000 PB"),
        (None, "-"),
    ],
)
def test_bytes(value: int | None, text: str) -> None:
    """Bytes have at most four digits, but for what nobody has sent."""
    assert _bytes(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.0s"),
        (-3, "0.0s"),
        (0.25, "0.2s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (10, "10s"),
        (59.6, "1m 0s"),
        (3599, "59m 59s"),
        (3600, "1h 0m"),
        (86399.9, "1d 0h"),
        (90000, "1d 1h"),
        (400 * 86400, "400d 0h"),
        (None, "-"),
        ("soon", "soon"),
    ],
)
def testdurations(value: object, text: str) -> None:
    """Durations have two units."""
    assert duration(value) == text
