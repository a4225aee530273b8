"""A replica's application: the server's own, and what it needs to be one of several.

A request over HTTP is known to the replica that computes it alone, and Ray's proxy hands
`/v1/requests/{id}` to any. Whoever does not know the id asks all the others. The id cannot name the
replica: clients choose ids, and Ray's proxy gives one to each request that has none before it has
chosen a replica. The operator's budget goes to all, and metrics come from all.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import httpx
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from anytime_protocol.enums import ErrorCode
from anytime_protocol.http import headers
from anytime_protocol.http.problems import Problem
from anytime_server.api.problems import problem_response
from anytime_server.api.request_checks import SPENT_S
from anytime_server.errors import ServerError
from anytime_server.metrics import CONTENT_TYPE
from anytime_server.ray_serve.merged_metrics import merged
from anytime_server.ray_serve.proxy import BodyFirst, message_spent, spent_before

if TYPE_CHECKING:  # it only holds them
    from fastapi import FastAPI

    from anytime_server.api.state import ApiState

logger = logging.getLogger(__name__)

REPLICA: Final = "Anytime-Replica"
"""Header of answers: the short name of the replica that gave them."""

_FINISH_S: Final = 5.0
"""Longest wait of a drain for requests to end by themselves."""

_LOOK_S: Final = 0.05
_BEGINNINGS: Final = frozenset(
    {"http.response.start", "websocket.http.response.start", "websocket.accept"}
)
_REQUESTS: Final = "/v1/requests/"
_BUDGET: Final = "/v1/budget"
_METRICS: Final = "/metrics"
_REPLICA: Final = REPLICA.lower().encode()
_SILENT: Final = Problem(
    ErrorCode.NOT_READY, "a replica does not answer; it may have what is asked for", None, None, 1e3
)
_OURS: Final = ((b"x-content-type-options", b"nosniff"),)
_RAYS: Final = headers.REQUEST_ID.lower().encode()
"""Header that Ray's proxy adds to every answer, with the same value."""


class ForwardedRequest(NamedTuple):
    """An HTTP request that one replica passes on to others.

    Attributes:
        method: of HTTP.
        path: with the query.
        headers: of the request.
        body: whole.
    """

    method: str
    path: str
    headers: list[tuple[bytes, bytes]]
    body: bytes


class ForwardedAnswer(NamedTuple):
    """What another replica answers.

    Attributes:
        is_over: the request asked about has ended.
        status: of HTTP.
        headers: of the answer.
        body: whole.
    """

    is_over: bool
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Peers(Protocol):
    """All replicas of the deployment."""

    async def forward(self, request: ForwardedRequest) -> list[ForwardedAnswer]:
        """The answers of those that have one.

        Raises:
            TimeoutError: one of them does not say whether it has.
        """
        ...


class ReplicaApplication:
    """An ASGI application around the server's.

    Args:
        app: the server's.
        name: the replica's short name.
        peers: all replicas.
    """

    def __init__(self, app: FastAPI, name: str, peers: Peers) -> None:
        self._app = app
        self._state: ApiState = app.state.api
        self._name = name.encode()
        self._peers = peers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        spent_s = spent_before(scope, time.time())
        scope["state"] = {**scope.get("state", {}), SPENT_S: spent_s}
        body_first = BodyFirst(scope, receive)

        async def receive_timed() -> Message:
            message = await body_first()
            if message["type"] == "websocket.receive":
                message[SPENT_S] = message_spent(message, time.time())
            return message

        async def send_named(message: Message) -> None:
            if message["type"] in _BEGINNINGS:
                message["headers"] = self._lines(message.get("headers", ()))
            await send(message)

        if scope["type"] == "http" and self._is_unknown(scope):
            await self._forward(scope, receive_timed, send_named)
        elif scope["type"] == "http" and (scope["method"], scope["path"]) == ("PUT", _BUDGET):
            await self._set_everywhere(scope, receive_timed, send_named)
        elif scope["type"] == "http" and (scope["method"], scope["path"]) == ("GET", _METRICS):
            await self._merge_metrics(scope, receive_timed, send_named)
        else:
            await self._app(scope, receive_timed, send_named)

    async def answer(self, request: ForwardedRequest) -> ForwardedAnswer | None:
        """Answers what another replica was asked; None if it is not about a request of ours."""
        path = request.path.partition("?")[0]
        found = self._state.engine.status(path.removeprefix(_REQUESTS))
        if path.startswith(_REQUESTS) and found is None:
            return None
        transport = httpx.ASGITransport(self._app)
        kept = [line for line in request.headers if line[0] != b"content-length"]
        async with httpx.AsyncClient(transport=transport, base_url="http://replica") as client:
            response = await client.request(
                request.method, request.path, headers=kept, content=request.body
            )
        lines = self._lines([(name.lower(), value) for name, value in response.headers.raw])
        is_over = found is not None and found.ended_s is not None
        return ForwardedAnswer(is_over, response.status_code, lines, response.content)

    async def drain(self) -> None:
        """Closes each websocket once it is answered; what runs for long ends with what it has."""
        logger.info("draining: websockets are closed, each when its requests have ended")
        self._state.shutting_down.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(_FINISH_S):
                while self._state.websockets or self._state.engine.server_budget().in_flight:
                    await asyncio.sleep(_LOOK_S)
        await self._state.engine.drain()

    def _lines(self, lines: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The headers of an answer of ours, once it is Ray's."""
        kept = [line for line in lines if line[0].lower() != _RAYS]
        named = any(name.lower() == _REPLICA for name, _ in kept)
        return [*kept, *(() if named else [*_OURS, (_REPLICA, self._name)])]

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Starts and ends the application; it has started once requests are admitted."""
        tracing = self._state.tracing

        async def send_ready(message: Message) -> None:
            if message["type"] == "lifespan.shutdown.complete" and tracing is not None:
                await asyncio.to_thread(tracing.close)
            if message["type"] == "lifespan.startup.complete":
                try:
                    await self._state.engine.wait_ready()
                except ServerError as error:
                    message = {"type": "lifespan.startup.failed", "message": str(error)}
            await send(message)

        await self._app(scope, receive, send_ready)

    def _is_unknown(self, scope: Scope) -> bool:
        """It is about a request that is not ours, and asked by somebody who may."""
        path: str = scope["path"]
        if not path.startswith(_REQUESTS):
            return False
        if not self._state.access.is_authorised(Headers(scope=scope).items()):
            return False
        return self._state.engine.status(path.removeprefix(_REQUESTS)) is None

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Has the replica answer that has the request; ours says that there is none."""
        body = await self._read(receive)
        replay = _Replay(body, receive)
        if len(body) > self._state.settings.max_json_bytes:
            await self._app(scope, replay, send)
            return
        try:
            answers = await self._peers.forward(_forwarded(scope, body))
        except TimeoutError:
            await problem_response(_SILENT)(scope, receive, send)
            return
        if answers:
            active_first = min(answers, key=lambda one: one.is_over)
            await _response(active_first)(scope, receive, send)
        else:
            await self._app(scope, replay, send)

    async def _set_everywhere(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sets the operator's budget here, and, if it is accepted, everywhere."""
        request = _forwarded(scope, await self._read(receive))
        own = await self.answer(request)
        response = Response(status_code=500) if own is None else _response(own)
        if response.status_code < 300:
            try:
                await self._peers.forward(request)
            except TimeoutError:
                response = problem_response(_SILENT)
        await response(scope, receive, send)

    async def _merge_metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The metrics of all replicas; of those that answer, if one is silent."""
        request = _forwarded(scope, b"")
        try:
            answers = await self._peers.forward(request)
        except TimeoutError:
            own = await self.answer(request)
            answers = [] if own is None else [own]
        texts = {
            dict(answer.headers)[_REPLICA].decode(): answer.body.decode() for answer in answers
        }
        await Response(merged(texts), media_type=CONTENT_TYPE)(scope, receive, send)

    async def _read(self, receive: Receive) -> bytes:
        """A body, up to a little more than a body may have."""
        body = bytearray()
        while len(body) <= self._state.settings.max_json_bytes:
            message = await receive()
            body += message.get("body", b"")
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                break
        return bytes(body)


class _Replay:
    """Receives a body that was read already, then what follows."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        body, self._body = self._body, None
        if body is None:
            return await self._receive()
        return {"type": "http.request", "body": body, "more_body": False}


def _response(answer: ForwardedAnswer) -> Response:
    response = Response(answer.body, answer.status)
    response.raw_headers = answer.headers
    return response


def _forwarded(scope: Scope, body: bytes) -> ForwardedRequest:
    query = scope.get("query_string", b"").decode("latin-1")
    path = scope.get("raw_path", scope["path"].encode()).decode("latin-1").partition("?")[0]
    return ForwardedRequest(
        scope["method"], path + (f"?{query}" if query else ""), list(scope["headers"]), body
    )
