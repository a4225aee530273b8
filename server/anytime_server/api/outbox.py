"""What waits to be written to one client: exits that newer ones replace, and everything else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from anytime_protocol.messages import ServerMessage
from anytime_protocol.send_queue import QueuedItem, SendQueue
from anytime_server.engine.base import ExitRendered, OnEvent, RequestEnded, RequestEvent
from anytime_server.metrics import Metrics

if TYPE_CHECKING:  # it only holds them
    from anytime_server.engine.base import ActiveRequest


@dataclass(frozen=True, slots=True)
class FrameExit:
    """An exit of a stream's frame.

    Attributes:
        request: the frame.
        event: the exit.
    """

    request: ActiveRequest
    event: ExitRendered


MakeMessage: TypeAlias = Callable[[], ServerMessage]
Item: TypeAlias = ExitRendered | RequestEnded | FrameExit | MakeMessage | ServerMessage


class Outbox:
    """The send queue of one connection, over all its requests.

    An exit is encoded only when it is taken out, so that what is replaced costs nothing.

    Args:
        metrics: counts what was replaced.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._queue: SendQueue[Item] = SendQueue()
        self._filled = asyncio.Event()
        self._last_exits: dict[str, int] = {}

    def callback(self, request_id: str) -> OnEvent:
        """A callback for the engine that puts in what happens to a request."""

        def on_event(event: RequestEvent) -> None:
            match event:
                case ExitRendered():
                    self._put_exit(request_id, event)
                case RequestEnded(best=best):
                    if best is not None:
                        self._put_exit(request_id, best)
                    self._last_exits.pop(request_id, None)
                    self._queue.put(request_id, event, terminal=True)
            self._filled.set()

        return on_event

    def put(
        self,
        request_id: str,
        message: ServerMessage | MakeMessage,
        *,
        terminal: bool = False,
        seals: bool = False,
    ) -> None:
        """Puts in a message that must be sent, behind all that waits; see `SendQueue.put`.

        Args:
            request_id: which request or stream it is about.
            message: the message, or what makes it when it is sent.
            terminal: the request or stream is over with it.
            seals: a frame of the stream is over with it.
        """
        self._queue.put(request_id, message, terminal=terminal, seals=seals)
        self._filled.set()

    def put_frame(
        self,
        stream_id: str,
        request: ActiveRequest,
        event: RequestEvent,
        make_end: Callable[[RequestEnded], ServerMessage],
    ) -> None:
        """Puts in what happened to a frame of a stream.

        Args:
            stream_id: the stream.
            request: the frame.
            event: what happened.
            make_end: makes the message of its end when that is sent.
        """
        match event:
            case ExitRendered():
                self._put_exit(stream_id, event, FrameExit(request, event))
            case RequestEnded(best=best):
                if best is not None:
                    self._put_exit(stream_id, best, FrameExit(request, best))
                self._last_exits.pop(stream_id, None)
                self._queue.put(stream_id, partial(make_end, event), seals=True)
        self._filled.set()

    def wake(self) -> None:
        """Lets `wait` return although nothing may have been put in."""
        self._filled.set()

    def take_now(self) -> QueuedItem[Item] | None:
        """What is to be sent next, or None if nothing waits."""
        return self._queue.take()

    async def wait(self) -> None:
        """Returns when something may have been put in since the last call."""
        await self._filled.wait()
        self._filled.clear()

    async def take(self) -> QueuedItem[Item]:
        """What is to be sent next, as soon as there is something."""
        while (item := self._queue.take()) is None:
            await self.wait()
        return item

    def _put_exit(self, request_id: str, event: ExitRendered, item: Item | None = None) -> None:
        """Puts in an exit unless it has been put in before."""
        if event.report.exit > self._last_exits.get(request_id, 0):
            self._last_exits[request_id] = event.report.exit
            if self._queue.update(request_id, item or event):
                self._metrics.conflated(1)
