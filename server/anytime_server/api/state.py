"""What the routes of one application share, and how they get at it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from fastapi import Request

from anytime_protocol.enums import ErrorCode
from anytime_protocol.http.problems import Problem
from anytime_server.errors import RefusedError

if TYPE_CHECKING:  # it only holds them
    from anytime_protocol.messages import Infer
    from anytime_server.api.access import Access
    from anytime_server.api.messages import MessageWriter
    from anytime_server.api.quotas import Caller
    from anytime_server.api.uploads import Uploads
    from anytime_server.engine.base import ActiveRequest, Engine, OnEvent, StreamFrame
    from anytime_server.images import Image
    from anytime_server.metrics import Metrics
    from anytime_server.settings import Settings
    from anytime_server.tracing import Tracing


@dataclass(slots=True)
class ApiState:
    """Everything that the routes share.

    Attributes:
        settings: the operator's choices.
        engine: computes requests.
        metrics: counts.
        access: who may ask.
        messages: makes the protocol's messages.
        uploads: bounds what clients send.
        tracing: records requests; None where traces are off.
        websockets: how many are open.
        shutting_down: set when the server is about to close its websockets.
    """

    settings: Settings
    engine: Engine
    metrics: Metrics
    access: Access
    messages: MessageWriter
    uploads: Uploads
    tracing: Tracing | None = None
    websockets: int = 0
    shutting_down: asyncio.Event = field(default_factory=asyncio.Event)

    async def submit(
        self,
        infer: Infer,
        request_id: str,
        arrival_s: float,
        transport: str,
        on_event: OnEvent,
        *,
        caller: Caller | None,
        headers: Mapping[str, str],
        pixels: Image | None = None,
        frame: StreamFrame | None = None,
    ) -> ActiveRequest:
        """Admits a request within its caller's quota, and traces it; see `Engine.submit`.

        The `headers` are those of the HTTP request or of the websocket's handshake.

        Raises:
            RefusedError: it is not admitted.
        """
        submit = partial(self._submit, caller=caller, pixels=pixels, frame=frame)
        if self.tracing is None:
            return await submit(infer, request_id, arrival_s, transport, on_event)
        trace = self.tracing.begin(infer, arrival_s, transport, headers)
        on_event = trace.ending(on_event)
        try:
            trace.request = await submit(infer, request_id, arrival_s, transport, on_event)
        except BaseException as error:
            trace.not_admitted(error)
            raise
        return trace.request

    async def _submit(
        self,
        infer: Infer,
        request_id: str,
        arrival_s: float,
        transport: str,
        on_event: OnEvent,
        *,
        caller: Caller | None,
        pixels: Image | None,
        frame: StreamFrame | None,
    ) -> ActiveRequest:
        submit = partial(self.engine.submit, pixels=pixels, frame=frame)
        if caller is None:
            return await submit(infer, request_id, arrival_s, transport, on_event)
        caller.begin(self.engine.clock())
        infer = replace(infer, urgency=max(infer.urgency, caller.quota.urgency))
        on_event = caller.ending(on_event)
        try:
            return await submit(infer, request_id, arrival_s, transport, on_event)
        except BaseException:
            caller.end()
            raise


def caller_of(request: Request) -> Caller | None:
    """Who asks, if it has a quota that it has not used up.

    Raises:
        RefusedError: it has.
    """
    state = state_of(request)
    caller = state.access.caller_of(request.headers.items())
    if caller is not None:
        caller.check(state.engine.clock())
    return caller


def state_of(request: Request) -> ApiState:
    """The application's state."""
    state: ApiState = request.app.state.api
    return state


def require_token(request: Request) -> None:
    """Lets a request pass if it carries the token, where there is one.

    Raises:
        RefusedError: it does not.
    """
    _check(request, operator=False)


def require_operator(request: Request) -> None:
    """Lets a request pass if it may change the server's budget.

    Raises:
        RefusedError: it may not.
    """
    _check(request, operator=True)


def _check(request: Request, *, operator: bool) -> None:
    access = state_of(request).access
    if not access.is_authorised(request.headers.items(), operator=operator):
        text = "expected `Authorization: Bearer TOKEN` with this server's token"
        raise RefusedError(Problem(ErrorCode.UNAUTHORIZED, text, "Authorization"))
