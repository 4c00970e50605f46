"""proxy.lab.websocket_client: the command, against a real member."""

import asyncio

import pytest

from proxy.lab import websocket_client
from proxy.lab.demo_server import DemoMember


async def test_prints_answers(capsys: pytest.CaptureFixture[str]) -> None:
    """Each message is sent, and printed with what came back."""
    member = DemoMember("server1", 0)
    await member.start()
    url = f"ws://127.0.0.1:{member.port}/websocket"
    assert await asyncio.to_thread(websocket_client.main, [url, "one", "two"]) == 0
    await member.stop()
    assert capsys.readouterr().out == "sent one, got one\nsent two, got two\n"


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1/websocket", "no url"])
def test_failure_is_one_line(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What can't be reached ends the command with one line that names it."""
    with pytest.raises(SystemExit) as ended:
        websocket_client.main([url, "hello"])
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(f"{url}: ")
