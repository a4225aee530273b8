"""`/v1/stream`: one websocket, many requests.

Decides how frames are pumped between the socket and the protocol's `Session`; what may be said is
the session's to decide, what is computed the engine's. Two tasks a connection: one that always
receives, because otherwise cancels, pongs and closes would stay unseen while a handler works, and
one that writes, because a slow reader must hold up nobody but itself.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from dataclasses import dataclass, field
from typing import Final

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from anytime_protocol.enums import PROTOCOL, CloseCode, Effect, ErrorCode
from anytime_protocol.http.problems import Problem
from anytime_protocol.messages import (
    BudgetApplied,
    Cancel,
    Failed,
    Infer,
    Ready,
    Role,
    ServerMessage,
    SetBudget,
)
from anytime_protocol.session import Closed, Refused, Session
from anytime_server.api.answering import Answering
from anytime_server.api.asyncapi import server_version
from anytime_server.api.outbox import Inbox
from anytime_server.api.problems import problem_response
from anytime_server.engine.requests import Ended, Shown
from anytime_server.engine.service import Asked, RefusedError, Service

logger = logging.getLogger(__name__)
router = APIRouter()

_UNREAD_FRAMES: Final = 64
"""Answers to a client that does not read them, before no more is read from it."""


@router.websocket("/v1/stream")
async def stream(websocket: WebSocket) -> None:
    """See `docs/PROTOCOL.md`, section Websocket."""
    service = websocket.app.state.service
    problem = refusal(service, websocket)
    if problem is not None:
        await websocket.send_denial_response(problem_response(problem))
        return
    await websocket.accept(subprotocol=PROTOCOL)
    service.sockets += 1
    service.metrics.socket_opened()
    try:
        await Connection(service, websocket).run()
    finally:
        service.sockets -= 1
        service.metrics.socket_closed()


def refusal(service: Service, websocket: WebSocket) -> Problem | None:
    """Why a websocket is not accepted, or None."""
    lines = websocket.headers.items()
    if PROTOCOL not in websocket.scope.get("subprotocols", []):
        text = f"expected `Sec-WebSocket-Protocol: {PROTOCOL}`"
        return Problem(ErrorCode.BAD_REQUEST, text, "Sec-WebSocket-Protocol")
    if not service.access.welcomes(lines):
        text = "pages of this origin may not open a websocket here"
        return Problem(ErrorCode.FORBIDDEN, text, "Origin")
    if not service.access.knows(lines):
        text = "expected this server's token"
        return Problem(ErrorCode.UNAUTHORIZED, text, "Authorization")
    if service.sockets >= service.settings.max_sockets:
        text = f"{service.sockets} websockets are open, which is the limit"
        return Problem(ErrorCode.OVERLOADED, text, retry_after_ms=1000.0)
    try:
        service.check_open()
    except RefusedError as error:
        return error.problem
    return None


@dataclass(slots=True)
class _Live:
    """A request of this connection: its answers, once it is admitted."""

    answering: Answering | None = None
    cancelled: bool = False
    budgets: list[SetBudget] = field(default_factory=list)


_numbers = itertools.count(1)


class Connection:
    """One accepted websocket.

    Args:
        service: the house.
        websocket: accepted.
    """

    def __init__(self, service: Service, websocket: WebSocket) -> None:
        self._service = service
        self._websocket = websocket
        self._session = Session(Role.SERVER)
        self._inbox = Inbox(service.metrics)
        self._number = next(_numbers)
        self._live: dict[str, _Live] = {}
        self._admissions: set[asyncio.Task[None]] = set()
        self._writing = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._frames: list[bytes | str] = []
        self._leaving = False

    async def run(self) -> None:
        """Serves the connection until it ends, and cancels whatever it leaves behind."""
        ready = Ready(
            f"anytime-dense {server_version()}",
            tuple(served.info for served in self._service.engine.models.values()),
            self._service.settings.limits,
        )
        self._say(ready)
        tasks = [asyncio.create_task(self._receive()), asyncio.create_task(self._write())]
        leaving = asyncio.create_task(self._leave())
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                self._note_fault(task)
        finally:
            for task in (leaving, *tasks, *self._admissions):
                task.cancel()
            await asyncio.gather(leaving, *tasks, *self._admissions, return_exceptions=True)
            for request_id in self._live:
                self._service.engine.cancel(self._job_id(request_id), discard=True)
            await self._close()

    def _note_fault(self, task: asyncio.Task[None]) -> None:
        error = task.exception()
        if error is not None:
            logger.error("connection %d failed", self._number, exc_info=error)
            self._session.close(CloseCode.INTERNAL, "the server made a mistake")

    async def _leave(self) -> None:
        """Has the writer close the connection when the server goes away."""
        await self._service.going.wait()
        self._leaving = True
        self._inbox.wake()

    # Receiving.

    async def _receive(self) -> None:
        """Takes in frames, one after the other, until the connection is over."""
        while self._session.closed is None:
            message = await self._websocket.receive()
            arrival_s = self._service.engine.clock()
            if message["type"] == "websocket.disconnect":
                self._session.close(message.get("code") or CloseCode.GOING_AWAY, "the client left")
                return
            data = message.get("bytes")
            self._session.receive(message.get("text") or "" if data is None else data)
            for event in self._session.events():
                self._handle(event, arrival_s)
            self._flush()
            await self._room.wait()

    def _handle(self, event: object, arrival_s: float) -> None:
        match event:
            case Infer():
                self._live[event.id] = _Live()
                task = asyncio.create_task(self._admit(event, arrival_s))
                self._admissions.add(task)
                task.add_done_callback(self._admissions.discard)
            case SetBudget():
                self._set_budget(event)
            case Cancel():
                self._live[event.id].cancelled = True
                self._service.engine.cancel(self._job_id(event.id), discard=True)
            case Refused(answer=answer):
                logger.debug("connection %d: refused %s", self._number, answer)
            case Closed(unfinished=unfinished):
                logger.debug("connection %d: closed with %s open", self._number, unfinished)

    async def _admit(self, infer: Infer, arrival_s: float) -> None:
        live = self._live[infer.id]
        asked = Asked(
            id=infer.id,
            job_id=self._job_id(infer.id),
            model=infer.model,
            data=infer.payload,
            media_type=infer.media_type,
            budget=infer.budget,
            want=infer.want,
            arrival_s=arrival_s,
            transport="websocket",
            encoding=infer.want.encoding.value,
            urgency=infer.urgency,
        )
        service = self._service
        try:
            ticket, admitted = await service.admit(asked, lambda: self._inbox.sink(infer.id))
        except RefusedError as error:
            problem = error.problem
            failed = Failed(
                infer.id, problem.code, problem.detail, problem.field, problem.retry_after_ms
            )
            self._inbox.put(infer.id, failed, terminal=True)
            return
        except Exception:
            logger.exception("request %s could not be admitted", asked.job_id)
            failed = Failed(infer.id, ErrorCode.INTERNAL, "the server made a mistake")
            self._inbox.put(infer.id, failed, terminal=True)
            return
        live.answering = Answering(ticket, service.engine, service.encoders, infer.id)
        self._inbox.put(infer.id, live.answering.accepted(admitted))
        for budget in live.budgets:
            self._set_budget(budget)
        if live.cancelled:
            service.engine.cancel(asked.job_id, discard=True)

    def _set_budget(self, message: SetBudget) -> None:
        live = self._live[message.id]
        if live.answering is None and not live.cancelled:
            live.budgets.append(message)  # it overtook the admission
            return
        answer = self._service.engine.update_budget(
            self._job_id(message.id), message.budget, message.rev
        )
        effect = Effect.APPLIED if answer.effect is Effect.APPLIED else answer.effect
        self._say(BudgetApplied(message.id, message.rev, answer.at_exit, effect))

    def _job_id(self, request_id: str) -> str:
        """Unique in the house; the slash keeps it apart from the ids of HTTP requests."""
        return f"{self._number}/{request_id}"

    # Writing.

    def _say(self, message: ServerMessage) -> None:
        """Says something that overtakes pictures."""
        self._session.send(message)
        self._flush()

    def _flush(self) -> None:
        """Hands the session's frames to the writer."""
        self._frames.extend(self._session.outgoing())
        if len(self._frames) > _UNREAD_FRAMES:
            self._room.clear()
        self._inbox.wake()

    async def _write(self) -> None:
        """Writes frames, and makes messages of what waits, as fast as the client reads."""
        while True:
            while self._frames:
                frames, self._frames = self._frames, []
                for frame in frames:
                    if not await self._send(frame):
                        return
                self._room.set()
            if self._session.closed is not None:
                return
            waiting = self._inbox.take_now()
            if waiting is None and self._leaving and not self._live:
                self._session.close(CloseCode.GOING_AWAY, "the server is going away")
            elif waiting is None:
                await self._inbox.wait()
            if waiting is None:
                continue
            message = await self._message(waiting.request_id, waiting.item, waiting.skipped)
            if self._session.closed is None:
                if waiting.terminal:
                    self._live.pop(waiting.request_id, None)
                self._session.send(message)
                self._frames.extend(self._session.outgoing())

    async def _message(
        self, request_id: str, item: Shown | Ended | ServerMessage, skipped: int
    ) -> ServerMessage:
        answering = self._live[request_id].answering
        match item:
            case Shown() if answering is not None:
                return await answering.update(item, skipped)
            case Ended() if answering is not None:
                return answering.terminal(item)
            case Shown() | Ended():
                raise RuntimeError(f"request {request_id} has not been admitted")
            case _:
                return item

    async def _send(self, frame: bytes | str) -> bool:
        """Writes a frame; False if the connection is over."""
        try:
            async with asyncio.timeout(self._service.settings.send_timeout_s):
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
            async with asyncio.timeout(1.0):
                await self._websocket.close(code, reason)
        except (TimeoutError, WebSocketDisconnect, RuntimeError, OSError) as error:
            logger.debug("connection %d: not closed properly: %s", self._number, error)
