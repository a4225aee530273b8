"""`POST /v1/models/{model}/predict`: one answer, or one for each exit.

A client that disconnects cancels its request, whatever it is waiting for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from anytime_protocol.budget import LIMITS, Budget
from anytime_protocol.enums import Task
from anytime_protocol.http.headers import Deadline
from anytime_protocol.messages import Failed, Finished, OutputOptions
from anytime_protocol.validation import adapter_of
from anytime_server.api import answers, streams
from anytime_server.api.connection_limit import arrival_s
from anytime_server.api.formats import AnswerFormat
from anytime_server.api.outbox import Outbox
from anytime_server.api.state import ApiState, require_token, state_of
from anytime_server.api.upload import read_head, read_image
from anytime_server.engine.base import ActiveRequest, ExitRendered, RequestEnded
from anytime_server.errors import RefusedError
from anytime_server.images import MEDIA_TYPES

logger = logging.getLogger(__name__)

_CLIENT_CLOSED_REQUEST: Final = 499
"""Status of an answer that nobody gets; for the log."""

router = APIRouter()


@dataclass(slots=True)
class HttpAnswer:
    """The way back to the client of one admitted request.

    Attributes:
        state: of the application.
        request: the admitted request.
        outbox: what happens to it.
        answer_format: of the answer.
        deadline: as its headers say.
        headers: of the answer.
    """

    state: ApiState
    request: ActiveRequest
    outbox: Outbox
    answer_format: AnswerFormat
    deadline: Deadline
    headers: dict[str, str]

    def abandon(self) -> None:
        """The client has left; of no effect on a request that has ended."""
        self.state.engine.cancel(self.request.id, discard=True)

    def terminal(self, ended: RequestEnded) -> Finished | Failed:
        """The terminal message, remembered with the request."""
        message = self.state.messages.terminal(self.request, ended.ending)
        self.request.terminal = answers.for_soft_deadline(message, self.deadline)
        return self.request.terminal

    async def next(self) -> tuple[ExitRendered | RequestEnded, int]:
        """What happens next, and how many exits it has replaced."""
        queued = await self.outbox.take()
        if isinstance(queued.item, ExitRendered | RequestEnded):
            return queued.item, queued.skipped
        raise TypeError(f"found a {type(queued.item).__name__} in the outbox of an HTTP request")


def _parameters() -> list[dict[str, Any]]:
    """The query's parameters in OpenAPI, made from the types that they are read into."""
    properties: dict[str, Any] = {}
    for kind in (Budget, OutputOptions):
        schema = adapter_of(kind).json_schema()
        definitions = schema.get("$defs", {})
        for name, item in schema["properties"].items():
            reference = item.get("$ref", "").rpartition("/")[2]
            properties[name] = definitions.get(reference, item)
    names = [*LIMITS, *(name for name in properties if name in OutputOptions.__slots__)]
    return [
        {"name": name, "in": "query", "required": False, "schema": properties[name]}
        for name in names
    ]


_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_OPENAPI: Final[dict[str, Any]] = {
    "parameters": _parameters(),
    "requestBody": {
        "required": True,
        "content": {
            **dict.fromkeys(sorted(set(MEDIA_TYPES.values())), _BINARY),
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        "budget": adapter_of(Budget).json_schema(),
                        "want": adapter_of(OutputOptions).json_schema(),
                    },
                }
            },
        },
    },
}


@router.post(
    "/v1/models/{model}/predict",
    summary="A map of an image, as good as the budget allows",
    response_class=Response,
    responses={
        200: {
            "description": "Any usable map.",
            "content": {answer_format.value: {} for answer_format in AnswerFormat},
        },
        "4XX": {"description": "The client's fault.", "content": {"application/problem+json": {}}},
        "5XX": {"description": "No map in time.", "content": {"application/problem+json": {}}},
    },
    openapi_extra=_OPENAPI,
)
async def predict(request: Request, model: str) -> Response:
    """See `docs/PROTOCOL.md`, section HTTP."""
    require_token(request)
    state = state_of(request)
    arrived_s = arrival_s(request, state.engine.clock)
    task = state.engine.admissible_model(model).info.task
    infer, answer_format, deadline = read_head(request, model, task, state.settings)
    outbox = Outbox(state.metrics)
    try:
        infer = await read_image(request, infer, answer_format, state.settings)
        active = await state.engine.submit(
            infer, infer.id, arrived_s, "http", outbox.callback(infer.id)
        )
    except ClientDisconnect:
        return Response(status_code=_CLIENT_CLOSED_REQUEST)
    except RefusedError as error:
        raise RefusedError(replace(error.problem, request_id=infer.id)) from error
    applied_ms = infer.budget.at(0.0).deadline_ms
    lines = answers.common_headers(infer.id, deadline, applied_ms)
    answer = HttpAnswer(state, active, outbox, answer_format, deadline, lines)
    if not answer_format.is_progressive:
        return await _answer_once(request, answer)
    if answer_format is AnswerFormat.REPLACE and task is Task.SEGMENTATION:
        return await _answer_from_first_exit(request, answer)
    return StreamResponse(answer)


async def _answer_once(request: Request, answer: HttpAnswer) -> Response:
    """The best exit, when the request has ended."""
    with _cancelled_on_disconnect(answer, request.receive) as disconnected:
        best: ExitRendered | None = None
        while True:
            event, _ = await answer.next()
            if isinstance(event, RequestEnded):
                break
            best = event
        response = await _final_response(answer, event, best)
    return Response(status_code=_CLIENT_CLOSED_REQUEST) if disconnected.done() else response


async def _final_response(
    answer: HttpAnswer, ended: RequestEnded, best: ExitRendered | None
) -> Response:
    if best is None:
        return answers.without_map(answer.terminal(ended))
    answer_format, palette = answer.answer_format, answer.request.served.palette
    body = await answer.state.messages.encode(
        answer.request,
        best,
        lambda: answers.make_body(best.rendered, answer_format, palette),
    )
    message = answer.terminal(ended)
    if isinstance(message, Failed):
        return answers.without_map(message)
    return answers.answer(message, answer_format, body, answer.headers)


async def _answer_from_first_exit(request: Request, answer: HttpAnswer) -> Response:
    """A stream whose format has room for maps only, so that its status waits for the first."""
    with _cancelled_on_disconnect(answer, request.receive):
        event, skipped = await answer.next()
    if isinstance(event, RequestEnded):
        return await _final_response(answer, event, None)
    return StreamResponse(answer, (event, skipped))


class StreamResponse(Response):
    """A response that goes on until the request has ended or its client has left.

    Args:
        answer: the request's way back.
        first: an exit that has been taken out of the outbox already, and how many it replaced.
    """

    def __init__(self, answer: HttpAnswer, first: tuple[ExitRendered, int] | None = None) -> None:
        self._answer = answer
        self._first = first
        self._writer = streams.writer(answer.answer_format)
        super().__init__(
            headers=answer.headers | {"X-Accel-Buffering": "no"},
            media_type=self._writer.content_type,
        )
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Sends the stream; see Starlette's `Response`."""
        answer = self._answer
        try:
            with _cancelled_on_disconnect(answer, receive):
                await self._send(send)
        finally:
            answer.abandon()
            while answer.request.terminal is None:
                event, _ = await answer.next()
                if isinstance(event, RequestEnded):
                    answer.terminal(event)

    async def _send(self, send: Send) -> None:
        answer, writer = self._answer, self._writer
        timeout_s = answer.state.settings.send_timeout_s

        async def write(data: bytes, *, more: bool = True) -> None:
            async with asyncio.timeout(timeout_s):
                await send({"type": "http.response.body", "body": data, "more_body": more})

        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        messages, active = answer.state.messages, answer.request
        try:
            await write(writer.opening() + writer.write(messages.accepted(active)))
            event, skipped = self._first or await answer.next()
            while isinstance(event, ExitRendered):
                await write(writer.write(await messages.update(active, event, skipped)))
                event, skipped = await answer.next()
            await write(writer.write(answer.terminal(event)), more=False)
        except TimeoutError:
            logger.info("request %s: its client takes nothing any more", active.id)


@contextmanager
def _cancelled_on_disconnect(
    answer: HttpAnswer, receive: Receive
) -> Iterator[asyncio.Future[None]]:
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
