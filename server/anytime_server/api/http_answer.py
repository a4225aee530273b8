"""The way back to the client of a request over HTTP, whatever the form of its answer.

A client that disconnects cancels its request, whatever it is waiting for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from fastapi import Request, Response
from starlette.types import Receive

from anytime_protocol.enums import Reason
from anytime_protocol.http.headers import Deadline
from anytime_protocol.messages import Failed, Finished
from anytime_server.engine.base import ActiveRequest, ExitRendered, RequestEnded

if TYPE_CHECKING:  # it only holds them
    from anytime_server.api.outbox import Outbox
    from anytime_server.api.state import ApiState

CLIENT_CLOSED_REQUEST: Final = 499
"""Status of an answer that nobody gets; for the log."""


@dataclass(slots=True)
class HttpAnswer:
    """The way back to the client of one admitted request.

    Attributes:
        state: of the application.
        request: the admitted request.
        outbox: what happens to it.
        deadline: as its headers say.
        headers: of the answer.
    """

    state: ApiState
    request: ActiveRequest
    outbox: Outbox
    deadline: Deadline
    headers: dict[str, str]

    def abandon(self) -> None:
        """The client has left; of no effect on a request that has ended."""
        self.state.engine.cancel(self.request.id, discard=True)

    def terminal(self, ended: RequestEnded) -> Finished | Failed:
        """The terminal message, remembered with the request."""
        message = self.state.messages.terminal(self.request, ended.ending)
        self.request.terminal = _for_soft_deadline(message, self.deadline)
        return self.request.terminal

    async def next(self) -> tuple[ExitRendered | RequestEnded, int]:
        """What happens next, and how many exits it has replaced."""
        queued = await self.outbox.take()
        if isinstance(queued.item, ExitRendered | RequestEnded):
            return queued.item, queued.skipped
        raise TypeError(f"found a {type(queued.item).__name__} in the outbox of an HTTP request")


Respond: TypeAlias = Callable[[HttpAnswer, RequestEnded, ExitRendered | None], Awaitable[Response]]
"""Makes the response of a request from its end and its best exit, if it has one."""


async def answer_once(request: Request, answer: HttpAnswer, respond: Respond) -> Response:
    """The best exit, when the request has ended.

    Args:
        request: whose client may leave.
        answer: its way back.
        respond: makes the response.
    """
    with cancelled_on_disconnect(answer, request.receive) as disconnected:
        best: ExitRendered | None = None
        while True:
            event, _ = await answer.next()
            if isinstance(event, RequestEnded):
                break
            best = event
        response = await respond(answer, event, best)
    return Response(status_code=CLIENT_CLOSED_REQUEST) if disconnected.done() else response


@contextmanager
def cancelled_on_disconnect(answer: HttpAnswer, receive: Receive) -> Iterator[asyncio.Future[None]]:
    """Cancels a request whose client disconnects; gives a future that is done by then."""

    def note(disconnected: asyncio.Future[None]) -> None:
        if not disconnected.cancelled():
            answer.abandon()

    disconnected = asyncio.ensure_future(_disconnect(receive))
    disconnected.add_done_callback(note)
    try:
        yield disconnected
    finally:
        disconnected.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _for_soft_deadline(message: Finished | Failed, deadline: Deadline) -> Finished | Failed:
    """The end as the client knows it: what its soft deadline ended has ended by deadline."""
    soft_ms = deadline.soft_ms
    if (
        isinstance(message, Finished)
        and message.reason is Reason.BUDGET
        and soft_ms is not None
        and message.total_ms >= soft_ms
    ):
        return replace(message, reason=Reason.DEADLINE)
    return message
