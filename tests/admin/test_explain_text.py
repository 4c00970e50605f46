"""proxy.admin.explain_text: an explanation for a terminal."""

from typing import Any

import pytest

from proxy.admin.explain_text import explain_text, is_served
from tests.admin.fake_commands import EXPLANATION

TEXT = """\
 1. frontend 0.0.0.0:443 speaks TLS
 2. server1 has taken over and can be used: the session moves there
-> member server1 (http://10.0.0.1:8080), session moved; Set-Cookie: BALANCEME=balancer.server1
"""


def test_everything() -> None:
    """Steps have numbers, and what comes of them stands behind an arrow."""
    assert explain_text(EXPLANATION) + "\n" == TEXT
    assert is_served(EXPLANATION)


@pytest.mark.parametrize(
    ("changes", "result"),
    [
        (
            {"set_cookie": None},
            "member server1 (http://10.0.0.1:8080), session moved; no Set-Cookie",
        ),
        (
            {
                "members": [
                    {"route": "server1", "url": "http://a"},
                    {"route": None, "url": "http://b"},
                ],
                "session": "new",
            },
            (
                "one of server1 (http://a), http://b, session new;"
                " of server1 Set-Cookie: BALANCEME=balancer.server1"
            ),
        ),
        ({"members": [], "status": 503, "set_cookie": None}, "no member: answered with 503"),
        (
            {"members": [], "status": 503},
            "no member: answered with 503; Set-Cookie: BALANCEME=balancer.server1",
        ),
    ],
)
def test_results(changes: dict[str, Any], result: str) -> None:
    """A result names the member or the members, or what is answered instead."""
    found = {**EXPLANATION, **changes}
    assert explain_text(found).splitlines()[-1] == f"-> {result}"
    assert is_served(found) == bool(found["members"])


@pytest.mark.parametrize(
    "strange",
    [
        {},
        {"steps": "none", "members": {}},
        {"steps": [None, 7], "members": [1, None], "status": []},
        {"members": [{}], "session": 7, "more": 1},
    ],
)
def test_other_versions(strange: dict[str, Any]) -> None:
    """Values of another kind than today's are shown or left out, and never end the command."""
    assert "-> " in explain_text(strange)


def test_nothing_a_terminal_obeys() -> None:
    """Escapes are shown as text."""
    found = {"steps": ["\x1b[31m"], "members": [{"url": "\x07"}], "set_cookie": "\x9b\n"}
    text = explain_text(found)
    assert text.replace("\n", "").isprintable()
    assert r"\x1b[31m" in text
