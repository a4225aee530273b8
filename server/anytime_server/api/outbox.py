"""What waits to be written to one client: pictures that newer ones replace, and all the rest.

Decides what becomes of a happening on its way to a client, by the protocol's `SendQueue`. Knows no
socket: a writer takes out one thing after the other and encodes it only then.
"""

from __future__ import annotations

import asyncio
from typing import TypeAlias

from anytime_protocol.messages import ServerMessage
from anytime_protocol.send_queue import SendQueue, Waiting
from anytime_server.engine.requests import Ended, Happening, Shown, Sink
from anytime_server.metrics import Metrics

Item: TypeAlias = Shown | Ended | ServerMessage


class Inbox:
    """The line of one connection, over all its requests.

    Args:
        metrics: counts what was replaced.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._outbox: SendQueue[Item] = SendQueue()
        self._filled = asyncio.Event()
        self._exits: dict[str, int] = {}

    def sink(self, request_id: str) -> Sink:
        """Where the engine loop tells what happens to a request."""

        def note(happening: Happening) -> None:
            match happening:
                case Shown():
                    self._show(request_id, happening)
                case Ended(shown=shown):
                    if shown is not None:
                        self._show(request_id, shown)
                    self._exits.pop(request_id, None)
                    self._outbox.put(request_id, happening, terminal=True)
            self._filled.set()

        return note

    def put(self, request_id: str, message: ServerMessage, *, terminal: bool = False) -> None:
        """A message that must be sent, behind all that waits."""
        self._outbox.put(request_id, message, terminal=terminal)
        self._filled.set()

    def wake(self) -> None:
        """Lets `take` return although nothing may wait."""
        self._filled.set()

    def take_now(self) -> Waiting[Item] | None:
        """What is to be sent next, or None if nothing waits."""
        return self._outbox.take()

    async def wait(self) -> None:
        """Returns when something may have been put in since the last call."""
        await self._filled.wait()
        self._filled.clear()

    async def take(self) -> Waiting[Item]:
        """What is to be sent next, as soon as there is something."""
        while True:
            waiting = self._outbox.take()
            if waiting is not None:
                return waiting
            await self.wait()

    def _show(self, request_id: str, shown: Shown) -> None:
        """Puts in a picture unless it has been put in before."""
        if shown.made.exit > self._exits.get(request_id, 0):
            self._exits[request_id] = shown.made.exit
            if self._outbox.update(request_id, shown):
                self._metrics.conflated(1)
