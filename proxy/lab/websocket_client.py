"""A WebSocket client for the command line: sends messages, prints what comes back for each.

Runs as a module or by its path, from any folder, with the interpreter that has aiohttp:

    python -m proxy.lab.websocket_client wss://localhost:8443/websocket --ca ca.pem hello
"""

import argparse
import asyncio
import ssl
from collections.abc import Sequence

from aiohttp import ClientError, ClientSession, ClientTimeout, WSMessageTypeError

# For the connection, and for each answer.
TIMEOUT = 10.0


async def talk(url: str, ca: str | None, messages: Sequence[str]) -> list[str]:
    """The answers to the messages, one for each; raises OSError, ClientError and others."""
    context = ssl.create_default_context(cafile=ca)
    answers = []
    async with (
        ClientSession(timeout=ClientTimeout(connect=TIMEOUT)) as session,
        session.ws_connect(url, ssl=context) as socket,
    ):
        for message in messages:
            await socket.send_str(message)
            answers.append(await socket.receive_str(timeout=TIMEOUT))
    return answers


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Send WebSocket messages, print the answers.")
    parser.add_argument("url", help="ws://host:port/path or wss://host:port/path")
    parser.add_argument("messages", nargs="+", metavar="message", help="text to send")
    parser.add_argument("--ca", help="PEM file with the authority of the server's certificate")
    options = parser.parse_args(arguments)
    try:
        answers = asyncio.run(talk(options.url, options.ca, options.messages))
    except (OSError, ValueError, ClientError, WSMessageTypeError) as error:
        parser.exit(1, f"{options.url}: {str(error) or type(error).__name__}\n")
    for message, answer in zip(options.messages, answers, strict=True):
        print(f"sent {message}, got {answer}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
