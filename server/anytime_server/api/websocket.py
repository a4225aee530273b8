"""`/v1/stream`: one websocket, many requests and streams.

Pumps frames between the socket and the protocol's `Session`, which decides what may be said. Two
tasks a connection: one that always receives, because otherwise cancels, pongs and closes would stay
unseen while a handler works, and one that writes, because a slow reader must hold up nobody but
itself.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from anytime_protocol.enums import PROTOCOL, CloseCode, CloseReason, Effect, ErrorCode
from anytime_protocol.errors import shorten
from anytime_protocol.http.problems import Problem
from anytime_protocol.messages import (
    BudgetApplied,
    Cancel,
    CloseStream,
    Failed,
    Frame,
    Infer,
    OpenStream,
    Ready,
    Role,
    ServerMessage,
    SetBudget,
)
from anytime_protocol.send_queue import QueuedItem
from anytime_protocol.session import Closed, Event, Refused, Session
from anytime_server.api.asyncapi import server_version
from anytime_server.api.live_stream import LiveStream
from anytime_server.api.outbox import FrameExit, Item, Outbox
from anytime_server.api.problems import problem_response
from anytime_server.api.quotas import Caller
from anytime_server.api.request_checks import SPENT_S
from anytime_server.api.state import ApiState
from anytime_server.engine.base import ActiveRequest, EngineState, ExitRendered, RequestEnded
from anytime_server.errors import RefusedError

logger = logging.getLogger(__name__)
router = APIRouter()

_MAX_UNSENT_FRAMES: Final = 64
"""Answers to a client that does not read them, before no more is read from it."""

_CLOSE_S: Final = 1.0
"""Longest wait for a socket to close."""


@router.websocket("/v1/stream")
async def stream(websocket: WebSocket) -> None:
    """See `docs/PROTOCOL.md`, section Websocket."""
    state: ApiState = websocket.app.state.api
    problem = _refusal(state, websocket)
    if problem is not None:
        await websocket.send_denial_response(problem_response(problem))
        return
    await websocket.accept(subprotocol=PROTOCOL)
    state.websockets += 1
    state.metrics.websocket_opened()
    try:
        caller = state.access.caller_of(websocket.headers.items())
        await WebsocketConnection(state, websocket, caller).run()
    finally:
        state.websockets -= 1
        state.metrics.websocket_closed()


@router.get("/v1/stream", include_in_schema=False)
async def stream_without_upgrade() -> None:
    """Says what is missing."""
    raise RefusedError(Problem(ErrorCode.UPGRADE_REQUIRED, "expected `Upgrade: websocket`"))


@router.websocket("/{path:path}")
async def no_stream(websocket: WebSocket) -> None:
    """Says that there is no websocket at any other path."""
    path = websocket.url.path
    problem = Problem(ErrorCode.NOT_FOUND, f"no websocket at {shorten(path)}, expected /v1/stream")
    await websocket.send_denial_response(problem_response(problem, path))


def _refusal(state: ApiState, websocket: WebSocket) -> Problem | None:
    """Why a websocket is not accepted, or None."""
    lines = websocket.headers.items()
    if PROTOCOL not in websocket.scope.get("subprotocols", []):
        text = f"expected `Sec-WebSocket-Protocol: {PROTOCOL}`"
        return Problem(ErrorCode.BAD_REQUEST, text, "Sec-WebSocket-Protocol")
    if not state.access.is_authorised(lines):
        return Problem(ErrorCode.UNAUTHORIZED, "expected this server's token", "Authorization")
    if state.websockets >= state.settings.max_sockets:
        text = f"{state.websockets} websockets are open, which is the limit"
        return Problem(ErrorCode.OVERLOADED, text, retry_after_ms=1000.0)
    engine_state = state.engine.state
    if engine_state is not EngineState.READY:
        draining = engine_state is EngineState.DRAINING
        code = ErrorCode.DRAINING if draining else ErrorCode.NOT_READY
        return Problem(code, f"the server is {engine_state.value}", retry_after_ms=5000.0)
    return None


@dataclass(slots=True)
class _Admission:
    """A request of this connection, and what its client said before it was admitted.

    Attributes:
        request: once it is admitted.
        is_over: its client has cancelled it, or it was refused.
        budget: the last one that came before it was admitted.
    """

    request: ActiveRequest | None = None
    is_over: bool = False
    budget: SetBudget | None = None


_numbers = itertools.count(1)


class WebsocketConnection:
    """One accepted websocket.

    Args:
        state: of the application.
        websocket: accepted.
        caller: its client, if it has a quota.
    """

    def __init__(self, state: ApiState, websocket: WebSocket, caller: Caller | None = None) -> None:
        self._state = state
        self._engine = state.engine
        self._websocket = websocket
        self._caller = caller
        self._session = Session(Role.SERVER)
        self._outbox = Outbox(state.metrics)
        self._number = next(_numbers)
        self._requests: dict[str, _Admission] = {}
        self._streams: dict[str, LiveStream] = {}
        self._admissions: set[asyncio.Task[None]] = set()
        self._frames: list[bytes | str] = []
        self._may_receive = asyncio.Event()
        self._may_receive.set()
        self._shutting_down = False

    async def run(self) -> None:
        """Serves the connection until it ends, and cancels what it leaves behind."""
        models = tuple(served.info for served in self._engine.models.values())
        limits = self._state.settings.limits
        self._send_now(Ready(f"anytime-dense {server_version()}", models, limits))
        tasks = [asyncio.create_task(self._receive()), asyncio.create_task(self._write())]
        shutdown = asyncio.create_task(self._await_shutdown())
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is not None:
                    logger.error("connection %d failed", self._number, exc_info=error)
                    self._session.close(CloseCode.INTERNAL, "the server failed internally")
        finally:
            for task in (shutdown, *tasks, *self._admissions):
                task.cancel()
            await asyncio.gather(shutdown, *tasks, *self._admissions, return_exceptions=True)
            for request_id in self._requests:
                self._engine.cancel(self._job_id(request_id), discard=True)
            for live in self._streams.values():
                live.abandon()
            await self._close()

    async def _await_shutdown(self) -> None:
        """Has the writer close the connection when the server shuts down."""
        await self._state.shutting_down.wait()
        self._shutting_down = True
        for live in self._streams.values():
            live.close(CloseReason.DRAINING)
        self._outbox.wake()

    # Receiving.

    async def _receive(self) -> None:
        """Takes in frames, one after the other, until the connection is over."""
        while self._session.closed is None:
            message = await self._websocket.receive()
            arrival_s = self._engine.clock() - message.get(SPENT_S, 0.0)
            if message["type"] == "websocket.disconnect":
                self._session.close(message.get("code") or CloseCode.GOING_AWAY, "the client left")
                return
            data = message.get("bytes")
            self._session.receive(message.get("text") or "" if data is None else data)
            for event in self._session.events():
                self._handle(event, arrival_s)
            self._flush()
            await self._may_receive.wait()

    def _handle(self, event: Event, arrival_s: float) -> None:
        match event:
            case Infer():
                self._requests[event.id] = _Admission()
                task = asyncio.create_task(self._admit(event, arrival_s))
                self._admissions.add(task)
                task.add_done_callback(self._admissions.discard)
            case OpenStream():
                self._open(event)
            case Frame(id=stream_id) if stream_id in self._streams:
                self._streams[stream_id].take(event, arrival_s)
            case CloseStream(id=stream_id) if stream_id in self._streams:
                self._streams[stream_id].close(CloseReason.CLOSED)
            case Cancel(id=stream_id) if stream_id in self._streams:
                self._streams[stream_id].close(CloseReason.CANCELLED)
            case SetBudget(id=stream_id) if stream_id in self._streams:
                self._send_now(self._streams[stream_id].set_budget(event))
            case SetBudget():
                self._set_budget(event)
            case Cancel():
                self._requests[event.id].is_over = True
                self._engine.cancel(self._job_id(event.id), discard=True)
            case Refused(answer=answer):
                logger.debug("connection %d: refused %s", self._number, answer)
            case Closed(unfinished=unfinished):
                logger.debug("connection %d: closed with %s open", self._number, unfinished)

    def _open(self, opening: OpenStream) -> None:
        key = self._job_id(opening.id)
        try:
            live = LiveStream(
                self._state,
                self._outbox,
                key,
                opening,
                caller=self._caller,
                headers=self._websocket.headers,
            )
        except RefusedError as error:
            self._requests[opening.id] = _Admission()
            self._refuse(opening.id, error.problem)
            return
        self._streams[opening.id] = live

    async def _admit(self, infer: Infer, arrival_s: float) -> None:
        admission, job_id = self._requests[infer.id], self._job_id(infer.id)
        try:
            with self._state.uploads.begin() as upload:
                upload.reserve(len(infer.payload))
                on_event = self._outbox.callback(infer.id)
                request = await self._state.submit(
                    infer,
                    job_id,
                    arrival_s,
                    "websocket",
                    on_event,
                    caller=self._caller,
                    headers=self._websocket.headers,
                )
        except RefusedError as error:
            self._refuse(infer.id, error.problem)
            return
        except Exception:
            logger.exception("request %s could not be admitted", job_id)
            self._refuse(infer.id, Problem(ErrorCode.INTERNAL, "the server failed internally"))
            return
        admission.request = request
        self._outbox.put(infer.id, self._state.messages.accepted(request))
        if admission.budget is not None:
            self._engine.update_budget(job_id, admission.budget.budget, admission.budget.rev)
        if admission.is_over:
            self._engine.cancel(job_id, discard=True)

    def _refuse(self, request_id: str, problem: Problem) -> None:
        self._requests[request_id].is_over = True
        failed = Failed(
            request_id,
            problem.code,
            problem.detail,
            problem.field,
            problem.retry_after_ms,
            problem.needed_ms,
        )
        self._outbox.put(request_id, failed, terminal=True)

    def _set_budget(self, message: SetBudget) -> None:
        admission = self._requests[message.id]
        if admission.request is None and not admission.is_over:
            admission.budget = message  # it has overtaken the admission, and holds from then on
            applied = BudgetApplied(message.id, message.rev, 0, Effect.APPLIED)
        else:
            applied = self._engine.update_budget(
                self._job_id(message.id), message.budget, message.rev
            )
        self._send_now(BudgetApplied(message.id, message.rev, applied.at_exit, applied.effect))

    def _job_id(self, request_id: str) -> str:
        """Unique in the engine; the slash keeps it apart from the ids of HTTP requests."""
        return f"{self._number}/{request_id}"

    # Writing.

    def _send_now(self, message: ServerMessage) -> None:
        """Sends a message that overtakes the outbox, unless the client has left meanwhile."""
        if self._session.closed is None:
            self._session.send(message)
            self._flush()

    def _flush(self) -> None:
        """Hands the session's frames to the writer."""
        self._frames.extend(self._session.outgoing())
        if len(self._frames) > _MAX_UNSENT_FRAMES:
            self._may_receive.clear()
        self._outbox.wake()

    async def _write(self) -> None:
        """Writes frames, and makes messages of what waits, as fast as the client reads."""
        while await self._write_frames() and self._session.closed is None:
            queued = self._outbox.take_now()
            if queued is not None:
                message = await self._message(queued)
                if self._session.closed is None:
                    if queued.terminal:
                        self._requests.pop(queued.request_id, None)
                        self._streams.pop(queued.request_id, None)
                    self._session.send(message)
                    self._frames.extend(self._session.outgoing())
            elif self._shutting_down and not (self._requests or self._streams):
                self._session.close(CloseCode.GOING_AWAY, "the server is going away")
            else:
                await self._outbox.wait()

    async def _message(self, queued: QueuedItem[Item]) -> ServerMessage:
        item, messages = queued.item, self._state.messages
        if isinstance(item, FrameExit):
            return await messages.update(item.request, item.event, queued.skipped)
        if callable(item):
            return item()
        if not isinstance(item, ExitRendered | RequestEnded):
            return item
        request = self._requests[queued.request_id].request
        if request is None:
            raise RuntimeError(f"request {queued.request_id} has not been admitted")
        if isinstance(item, ExitRendered):
            return await messages.update(request, item, queued.skipped)
        return messages.terminal(request, item.ending)

    async def _write_frames(self) -> bool:
        """Writes all frames; False if the connection is over."""
        while self._frames:
            frames, self._frames = self._frames, []
            for frame in frames:
                if not await self._write_frame(frame):
                    return False
            self._may_receive.set()
        return True

    async def _write_frame(self, frame: bytes | str) -> bool:
        try:
            async with asyncio.timeout(self._state.settings.send_timeout_s):
                if isinstance(frame, bytes):
                    await self._websocket.send_bytes(frame)
                else:
                    await self._websocket.send_text(frame)
        except TimeoutError:
            self._session.close(CloseCode.TRY_AGAIN_LATER, "messages are not taken in time")
            return False
        except (WebSocketDisconnect, RuntimeError, OSError) as error:
            self._session.close(CloseCode.GOING_AWAY, str(error))
            return False
        return True

    async def _close(self) -> None:
        """Closes the socket with what the session says, if it is still there."""
        closed = self._session.closed
        if self._websocket.client_state is not WebSocketState.CONNECTED:
            return
        code, reason = (closed.code, closed.reason) if closed else (CloseCode.GOING_AWAY, "")
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._websocket.close(code, reason)
        except (TimeoutError, WebSocketDisconnect, RuntimeError, OSError) as error:
            logger.debug("connection %d: not closed properly: %s", self._number, error)
