"""`POST /v1/models/{model}/predict`: one answer, or one for each exit.

How a client's disconnecting cancels its request: `http_answer`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from anytime_protocol.budget import LIMITS, Budget
from anytime_protocol.enums import Task
from anytime_protocol.messages import Failed, OutputOptions
from anytime_server.api import answers, streams
from anytime_server.api.formats import AnswerFormat
from anytime_server.api.http_answer import (
    CLIENT_CLOSED_REQUEST,
    HttpAnswer,
    answer_once,
    cancelled_on_disconnect,
)
from anytime_server.api.json_body import schema_of
from anytime_server.api.outbox import Outbox
from anytime_server.api.request_checks import arrival_s
from anytime_server.api.state import caller_of, require_token, state_of
from anytime_server.api.upload import read_head, read_image
from anytime_server.engine.base import ExitRendered, RequestEnded
from anytime_server.errors import RefusedError
from anytime_server.images import MEDIA_TYPES

router = APIRouter()


def _parameters() -> list[dict[str, Any]]:
    """The query's parameters in OpenAPI, made from the types that they are read into."""
    properties: dict[str, Any] = {}
    for kind in (Budget, OutputOptions):
        properties |= schema_of(kind)["properties"]
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
                        "budget": schema_of(Budget),
                        "want": schema_of(OutputOptions),
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
    state, caller = state_of(request), caller_of(request)
    arrived_s = arrival_s(request, state.engine.clock)
    task = state.engine.admissible_model(model).info.task
    infer, answer_format, deadline = read_head(request, model, task)
    outbox = Outbox(state.metrics)
    try:
        with state.uploads.begin() as upload:
            infer = await read_image(request, infer, answer_format, state.settings, upload)
            active = await state.submit(
                infer,
                infer.id,
                arrived_s,
                "http",
                outbox.callback(infer.id),
                caller=caller,
                headers=request.headers,
            )
    except ClientDisconnect:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    except RefusedError as error:
        raise RefusedError(replace(error.problem, request_id=infer.id)) from error
    operators = state.engine.operator_limits()
    lines = answers.common_headers(infer.id, deadline, infer.budget, operators)
    answer = HttpAnswer(state, active, outbox, deadline, lines)
    if not answer_format.is_progressive:
        return await answer_once(request, answer, partial(_final_response, answer_format))
    if answer_format is AnswerFormat.REPLACE and task is Task.SEGMENTATION:
        return await _answer_from_first_exit(request, answer)
    return StreamResponse(answer, answer_format)


async def _final_response(
    answer_format: AnswerFormat,
    answer: HttpAnswer,
    ended: RequestEnded,
    best: ExitRendered | None,
) -> Response:
    if best is None:
        return answers.without_map(answer.terminal(ended))
    palette = answer.request.served.palette
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
    with cancelled_on_disconnect(answer, request.receive):
        event, skipped = await answer.next()
    if isinstance(event, RequestEnded):
        return await _final_response(AnswerFormat.REPLACE, answer, event, None)
    return StreamResponse(answer, AnswerFormat.REPLACE, (event, skipped))


class StreamResponse(Response):
    """A response that goes on until the request has ended or its client has left.

    Args:
        answer: the request's way back.
        answer_format: progressive.
        first: an exit that has been taken out of the outbox already, and how many it replaced.
    """

    def __init__(
        self,
        answer: HttpAnswer,
        answer_format: AnswerFormat,
        first: tuple[ExitRendered, int] | None = None,
    ) -> None:
        self._answer = answer
        self._first = first
        self._writer = streams.writer(answer_format)
        super().__init__(
            headers=answer.headers | {"X-Accel-Buffering": "no"},
            media_type=self._writer.content_type,
        )
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Sends the stream; see Starlette's `Response`."""
        answer = self._answer
        try:
            with cancelled_on_disconnect(answer, receive):
                await self._send(send)
        finally:
            answer.abandon()
            while answer.request.terminal is None:
                event, _ = await answer.next()
                if isinstance(event, RequestEnded):
                    answer.terminal(event)

    async def _send(self, send: Send) -> None:
        answer, writer = self._answer, self._writer

        async def write(data: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        messages, active = answer.state.messages, answer.request
        await write(writer.opening() + writer.write(messages.accepted(active)))
        event, skipped = self._first or await answer.next()
        while isinstance(event, ExitRendered):
            await write(writer.write(await messages.update(active, event, skipped)))
            event, skipped = await answer.next()
        await write(writer.write(answer.terminal(event)), more=False)
