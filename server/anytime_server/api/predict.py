"""`POST /v1/models/{model}/predict`: one answer, or one for each exit.

Decides the order of things for one HTTP request: refuse early, read, admit, wait, answer; and that
a client that goes away cancels its request, whatever it is waiting for. What the parts look like is
decided in `http_call`, `http_answers` and `http_streams`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from anytime_protocol.budget import Budget
from anytime_protocol.enums import Task
from anytime_protocol.messages import Failed, Finished
from anytime_server.api import answers as http_answers
from anytime_server.api import connection_limit as door
from anytime_server.api import streams as http_streams
from anytime_server.api.answering import Answering
from anytime_server.api.dependencies import require_token, service_of
from anytime_server.api.outbox import Inbox
from anytime_server.api.predict_request import Call, Form, read_body, read_call
from anytime_server.core.jobs import Admitted
from anytime_server.engine.requests import Ended, Shown, Ticket
from anytime_server.engine.service import Asked, Record, RefusedError, Service

logger = logging.getLogger(__name__)

_GONE = 499
"""Status of an answer that nobody gets; for the log."""


@dataclass(slots=True)
class Exchange:
    """One admitted request and its way back to the client."""

    service: Service
    call: Call
    ticket: Ticket
    admitted: Admitted
    inbox: Inbox
    answering: Answering
    record: Record
    lines: dict[str, str]

    def abandon(self) -> None:
        """The client is gone."""
        self.service.engine.cancel(self.ticket.id, discard=True)

    async def end(self, ended: Ended) -> Finished | Failed:
        """The terminal message, remembered."""
        message = self.answering.terminal(ended)
        if isinstance(message, Finished):
            message = http_answers.soften(message, self.call)
        self.service.end(self.record, message)
        return message


class _Direct(APIRoute):
    """A route whose handler takes the request as it is.

    FastAPI would resolve arguments and dependencies first, which takes 0.2 ms of a request's 7.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        async def handle(request: Request) -> Response:
            await require_token(request)
            response: Response = await self.endpoint(request, request.path_params["model"])
            return response

        return handle


router = APIRouter(route_class=_Direct)

_IMAGES = {
    media_type: {"schema": {"type": "string", "format": "binary"}}
    for media_type in ("image/jpeg", "image/png", "image/webp")
}
_BODY: dict[str, Any] = {
    "required": True,
    "content": _IMAGES
    | {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {
                    "image": {"type": "string", "format": "binary"},
                    "budget": {"type": "string", "description": "JSON, see docs/PROTOCOL.md"},
                    "want": {"type": "string", "description": "JSON, see docs/PROTOCOL.md"},
                },
            }
        }
    },
}


@router.post(
    "/v1/models/{model}/predict",
    summary="A map of an image, as good as the budget allows",
    response_class=Response,
    responses={
        200: {"description": "Any usable map.", "content": {form.value: {} for form in Form}},
        "4XX": {"description": "The client's fault.", "content": {"application/problem+json": {}}},
        "5XX": {"description": "No map in time.", "content": {"application/problem+json": {}}},
    },
    openapi_extra={"requestBody": _BODY},
)
async def predict(request: Request, model: str) -> Response:
    """See `docs/PROTOCOL.md`, section HTTP."""
    service = service_of(request)
    arrival_s = door.arrival_s(request, service.engine.clock)
    served = service.check_model(model)
    service.check_open()
    call = read_call(request, served.info.task, service.settings)
    try:
        exchange = await _open(request, service, call, model, arrival_s)
    except ClientDisconnect:
        return Response(status_code=_GONE)
    except RefusedError as error:
        raise RefusedError(replace(error.problem, request_id=call.id)) from error
    if call.form.progressive:
        return await _begin_stream(request, exchange, served.info.task)
    return await _answer_once(request, exchange)


async def _open(
    request: Request, service: Service, call: Call, model: str, arrival_s: float
) -> Exchange:
    data, media_type, budget, want = await read_body(request, call, service.settings)
    asked = Asked(
        id=call.id,
        job_id=call.id,
        model=model,
        data=data,
        media_type=media_type,
        budget=budget,
        want=want,
        arrival_s=arrival_s,
        transport="http",
        encoding=want.encoding.value,
        urgency=call.priority.urgency,
    )
    inbox = Inbox(service.metrics)
    ticket, admitted = await service.admit(asked, lambda: inbox.sink(call.id))
    return Exchange(
        service=service,
        call=call,
        ticket=ticket,
        admitted=admitted,
        inbox=inbox,
        answering=Answering(ticket, service.engine, service.encoders, call.id),
        record=service.remember(ticket),
        lines=http_answers.common_headers(call, _applied_ms(call, budget)),
    )


def _applied_ms(call: Call, budget: Budget) -> float | None:
    times = (call.applied_ms, budget.at(0.0).deadline_ms)
    return min((ms for ms in times if ms is not None), default=None)


# One answer.


async def _answer_once(request: Request, exchange: Exchange) -> Response:
    with _watching(exchange, request.receive) as gone:
        response = await _make_answer(exchange)
    return Response(status_code=_GONE) if gone.done() else response


async def _make_answer(exchange: Exchange) -> Response:
    shown: Shown | None = None
    while True:
        item = (await exchange.inbox.take()).item
        match item:
            case Shown():
                shown = item
            case Ended():
                return await _make_end(exchange, item, shown)
            case _:
                raise TypeError(f"found a {type(item).__name__} in the inbox of a single answer")


async def _make_end(exchange: Exchange, ended: Ended, shown: Shown | None) -> Response:
    call, answering = exchange.call, exchange.answering
    if shown is None:
        message = await exchange.end(ended)
        if isinstance(message, Failed):
            return http_answers.failure(message)
        return http_answers.cancelled(call.id)
    picture, palette = shown.picture, exchange.ticket.served.palette
    body = await answering.timed(lambda: http_answers.make_body(picture, call.form, palette))
    answering.last = shown.made
    message = await exchange.end(ended)
    if isinstance(message, Failed):
        return http_answers.failure(message)
    return http_answers.answer(message, call.form, body, exchange.lines)


# An answer for each exit.


async def _begin_stream(request: Request, exchange: Exchange, task: Task) -> Response:
    """The response to begin with: a stream, unless its form has room for maps only."""
    if exchange.call.form is Form.REPLACE and task is Task.SEGMENTATION:
        with _watching(exchange, request.receive):
            first = await exchange.inbox.take()
        if isinstance(first.item, Ended):
            return await _make_end(exchange, first.item, None)
        if isinstance(first.item, Shown):
            return StreamResponse(exchange, (first.item, first.skipped))
    return StreamResponse(exchange, None)


class StreamResponse(Response):
    """A response that goes on until the request has ended or its client is gone.

    Args:
        exchange: the request.
        first: a picture that has been taken out of the inbox already, and what it replaced.
    """

    def __init__(self, exchange: Exchange, first: tuple[Shown, int] | None) -> None:
        self._exchange = exchange
        self._first = first
        self._writer = http_streams.writer(exchange.call.form)
        super().__init__(
            headers=exchange.lines | {"X-Accel-Buffering": "no"},
            media_type=self._writer.content_type,
        )
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Sends the stream; see Starlette's `Response`."""
        try:
            with _watching(self._exchange, receive):
                await self._send(send)
        finally:
            self._exchange.abandon()  # of no effect on a request that has ended
            if self._exchange.record.end is None:
                self._exchange.service.end(self._exchange.record, await _drop(self._exchange))

    async def _send(self, send: Send) -> None:
        async def write(data: bytes, *, more: bool = True) -> None:
            limit_s = self._exchange.service.settings.send_timeout_s
            async with asyncio.timeout(limit_s):
                await send({"type": "http.response.body", "body": data, "more_body": more})

        exchange, answering = self._exchange, self._exchange.answering
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        await write(
            self._writer.opening() + self._writer.write(answering.accepted(exchange.admitted))
        )
        try:
            if self._first is not None:
                await write(self._writer.write(await answering.update(*self._first)))
            while True:
                waiting = await exchange.inbox.take()
                match waiting.item:
                    case Shown() as shown:
                        await write(
                            self._writer.write(await answering.update(shown, waiting.skipped))
                        )
                    case Ended() as ended:
                        message = await exchange.end(ended)
                        await write(self._writer.write(message), more=False)
                        return
        except TimeoutError:
            logger.info("request %s: its client takes nothing any more", exchange.ticket.id)


async def _drop(exchange: Exchange) -> Finished | Failed:
    """The end of a request whose client is gone, for the memory."""
    while True:
        item = (await exchange.inbox.take()).item
        if isinstance(item, Ended):
            return exchange.answering.terminal(item)


@contextmanager
def _watching(exchange: Exchange, receive: Receive) -> Iterator[asyncio.Future[None]]:
    """Abandons a request whose client goes away; then its end comes soon, to be told to nobody."""

    def note(gone: asyncio.Future[None]) -> None:
        if not gone.cancelled():
            exchange.abandon()

    gone = asyncio.ensure_future(_gone(receive))
    gone.add_done_callback(note)
    try:
        yield gone
    finally:
        gone.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
