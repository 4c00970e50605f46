"""Hooks: who is told of events, each by a program that runs beside us.

Whoever lets something be told goes on at once. A hook gets its events one after another, in their
order; hooks know nothing of each other, so one that hangs delays its own events alone, and has a
time for each. What can't be told is in the log. Nothing is told again and nothing is kept for a
later start: the status, and not a hook, is what is so.

A URL is told by the program in ``webhook``, so that names, TLS and a slow answer are no matter of
the supervisor's.
"""

import asyncio
import json
import logging
import socket
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeAlias

from proxy.control.programs import inherited, run
from proxy.core.settings import Event, Hook
from proxy.core.written import shown_url

log = logging.getLogger("balanceme")

# Events that may wait for a hook.
MOST_WAITING = 100
# Run as a file and by itself: it is found wherever we run, and loads nothing of ours.
_WEBHOOK = (sys.executable, "-I", "-S", str(Path(__file__).with_name("webhook.py")))

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"


class Happening(NamedTuple):
    """Something that has happened."""

    event: Event
    balancer: str | None
    """Its name, if it happened in one."""
    member: str | None
    """The route of a member, or its url if it has none."""
    text: str
    """One line for people."""
    details: Mapping[str, JSON]
    """What else there is to tell; no entry takes the place of one above."""
    at: float
    """Seconds since 1970."""


class Hooks:
    """All who are told."""

    def __init__(self, hooks: Sequence[Hook], loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tellers: list[_Teller] = []
        # of hooks that the settings have no more, as long as they have something to tell
        self._former: list[_Teller] = []
        self.configure(hooks)

    def configure(self, hooks: Sequence[Hook]) -> None:
        """Tell these from now on; the others are still told what had happened before."""
        former, self._tellers = self._tellers, []
        for hook in hooks:
            teller = next((each for each in former if each.hook == hook), None)
            if teller is None:
                teller = _Teller(hook, self._loop)
            else:
                former.remove(teller)
            self._tellers.append(teller)
        self._former = [each for each in (*self._former, *former) if each.task is not None]

    def happened(self, happening: Happening) -> None:
        """Let it be told to all who want to know; returns at once, loop or no loop."""
        for teller in self._tellers:
            if happening.event in teller.hook.on:
                teller.tell(happening)

    async def stop(self, timeout: float) -> None:  # noqa: ASYNC109 - to say what is lost
        """Let hooks come to their end within ``timeout`` seconds; then they are killed."""
        self.configure(())
        tellers = self._former
        tasks = [each.task for each in tellers if each.task is not None]
        if not tasks:
            return
        await asyncio.wait(tasks, timeout=timeout)
        left = [each for each in tellers if each.cancel()]
        if left:
            await asyncio.wait(tasks)

    def __repr__(self) -> str:
        return f"<Hooks {len(self._tellers)}, {len(self._former)} former>"


class _Teller:
    """One hook, and what it has not been told yet."""

    def __init__(self, hook: Hook, loop: asyncio.AbstractEventLoop) -> None:
        self.hook = hook
        # arguments may be anything, secrets as well
        self._name = f"hook {hook.command[0] if hook.url is None else shown_url(hook.url)}"
        self._loop = loop
        self._waiting: deque[Happening] = deque()
        # it was said that events are lost, and nothing of it is over
        self._losing = False
        self.task: asyncio.Task[None] | None = None

    def tell(self, happening: Happening) -> None:
        """Let it be told once all else is."""
        if len(self._waiting) == MOST_WAITING:
            lost = self._waiting.popleft()
            if not self._losing:
                text = "%s: %d events wait, so the oldest are not told; the first is %s: %s"
                log.warning(text, self._name, MOST_WAITING, lost.event.value, lost.text)
            self._losing = True
        self._waiting.append(happening)
        if self.task is None:
            self.task = self._loop.create_task(self._tell_all())

    def cancel(self) -> bool:
        """Tell nothing more; whether there was anything left."""
        if self.task is None or self.task.done():
            return False
        count = 1 + len(self._waiting)
        what = "one event is" if count == 1 else f"{count} events are"
        log.warning("%s: %s not told, since balanceme stops", self._name, what)
        self.task.cancel()
        return True

    async def _tell_all(self) -> None:
        while self._waiting:
            happening = self._waiting.popleft()
            try:
                await self._tell(happening)
            except Exception:
                log.exception("%s: a mistake in balanceme", self._name)
        self._losing = False
        self.task = None

    async def _tell(self, happening: Happening) -> None:
        hook, event = self.hook, happening.event.value
        environ = {
            **inherited(),
            "BALANCEME_EVENT": event,
            "BALANCEME_BALANCER": happening.balancer or "",
            "BALANCEME_MEMBER": happening.member or "",
        }
        if hook.url is not None:
            environ |= {"BALANCEME_URL": hook.url, "BALANCEME_TIMEOUT": str(hook.timeout)}
        argv = hook.command if hook.url is None else _WEBHOOK
        body = json.dumps(_as_object(happening)).encode()
        finished = await run(argv, stdin=body, timeout=hook.timeout, environ=environ)
        if finished.status == 0:
            log.debug("%s was told of %s: %s", self._name, event, happening.text)
            return
        how = finished.text if hook.url is None else finished.text.removeprefix("exit status 1: ")
        log.warning("%s was not told of %s (%s): %s", self._name, event, happening.text, how)


def _as_object(happening: Happening) -> dict[str, JSON]:
    first: dict[str, JSON] = {
        "event": happening.event.value,
        "balancer": happening.balancer,
        "member": happening.member,
        "text": happening.text,
        "at": iso_time(happening.at),
        "host": socket.gethostname(),
    }
    return {**first, **happening.details, **first}  # for their order, and then for their values


def iso_time(seconds: float) -> str:
    """A time since 1970 as ISO 8601 has it, in the local zone: 2026-11-24T15:35:52+01:00."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(timespec="seconds")
