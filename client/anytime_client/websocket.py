"""The websocket transport: one connection for all requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    WebSocketException,
)
from websockets.typing import Subprotocol

from anytime_client.address import (
    ABNORMAL_CLOSURE,
    Address,
    error_of_response,
    sendable_close_code,
)
from anytime_client.errors import AnswerError, AnytimeError, ConnectError, SilenceError
from anytime_client.requests import InferRequest, VideoRequest
from anytime_client.results import Result
from anytime_client.session import ClientSession, RequestEvent, VideoEvent
from anytime_protocol.budget import Budget
from anytime_protocol.codec import ANSWER_LIMITS
from anytime_protocol.enums import PROTOCOL, CloseCode
from anytime_protocol.messages import Ready
from anytime_protocol.model_info import ModelInfo
from anytime_protocol.stream_answers import StreamClosed

EventT = TypeVar("EventT")


class WebSocketTransport:
    """One websocket for all requests, read by a task of its own. Made by `open`."""

    def __init__(
        self,
        address: Address,
        timeout_s: float,
        socket: ClientConnection,
        session: ClientSession,
        ready: Ready,
    ) -> None:
        self.timeout_s = timeout_s
        self._address = address
        self._socket = socket
        self._session = session
        self._ready = ready
        self._write_lock = asyncio.Lock()
        self._writers: set[asyncio.Task[None]] = set()
        self._queues: dict[str, asyncio.Queue[Any]] = {}
        self._places = asyncio.Semaphore(ready.limits.max_in_flight)
        self._reader = asyncio.create_task(self._read(), name="anytime-client-reader")

    @classmethod
    async def open(cls, address: Address, timeout_s: float) -> Self:
        """Connects and waits for the server's first message; errors as `open_transport`."""
        socket = await _connect(address, timeout_s)
        session = ClientSession(address)
        try:
            async with asyncio.timeout(timeout_s):
                session.receive(await socket.recv())
        except TimeoutError as error:
            await socket.close()
            raise ConnectError(address.base, "the server did not say ready") from error
        except ConnectionClosed as error:
            raise address.connection_lost(*_code_and_reason(error)) from error
        if session.ready is None:
            await socket.close(CloseCode.BAD_MESSAGE)
            why = session.closed.reason if session.closed else "its first message is not ready"
            raise AnswerError(f"{address.base}: {why}")
        return cls(address, timeout_s, socket, session, session.ready)

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """The models that the server has."""
        return self._ready.models

    @property
    def is_open(self) -> bool:
        """Whether the connection still stands, as far as is known."""
        return self._session.closed is None

    async def infer(self, request: InferRequest) -> _WebSocketStream:
        """Sends a request; a caller who is cancelled meanwhile cancels it.

        While as many run as the server takes on a connection, it waits until one has ended.

        Raises:
            ConnectionLostError: the connection has ended; the request was not sent.
            RequestError: a limit of the server's `ready` message forbids it.
        """
        request_id, queue = await self._start(lambda: self._session.infer(request).id)
        return _WebSocketStream(self, request_id, queue)

    async def open_video(self, request: VideoRequest) -> _WebSocketVideo:
        """Opens a stream of frames, which takes the place of a request until it has ended.

        Raises:
            ConnectionLostError: the connection has ended.
            RequestError: a limit of the server's `ready` message forbids it.
        """
        stream_id, queue = await self._start(lambda: self._session.open_video(request))
        return _WebSocketVideo(self, stream_id, queue)

    async def send_frame(self, stream_id: str, frame: int, payload: bytes, media_type: str) -> None:
        """Sends a frame, and returns when it is written."""
        if self.is_open:
            self._session.send_frame(stream_id, frame, payload, media_type)
            await self._write()

    async def close_video(self, stream_id: str) -> None:
        """Says that no more frames of a stream come."""
        if self.is_open:
            self._session.close_video(stream_id)
            await self._write()

    async def _start(self, send: Callable[[], str]) -> tuple[str, asyncio.Queue[Any]]:
        """Sends the first message of a request or a stream, once there is a place for it."""
        await self._places.acquire()
        try:
            closed = self._session.closed
            if closed is not None:
                raise self._address.connection_lost(closed.code, closed.reason)
            request_id = send()
        except AnytimeError:
            self._places.release()
            raise
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self._queues[request_id] = queue
        try:
            await self._write()
        except asyncio.CancelledError:
            self._session.cancel(request_id)
            self._start_writing()
            raise
        return request_id, queue

    async def set_budget(self, request_id: str, budget: Budget) -> None:
        """Sends a new budget of a request."""
        if self.is_open:
            self._session.set_budget(request_id, budget)
            await self._write()

    async def cancel(self, request_id: str) -> None:
        """Sends the cancellation of a request."""
        if self.is_open:
            self._session.cancel(request_id)
            await self._write()

    async def close(self) -> None:
        """Closes the websocket and waits for its reader."""
        await self._socket.close()
        await self._reader

    async def _write(self) -> None:
        """Writes all outgoing frames, also if the caller is cancelled meanwhile."""
        await asyncio.shield(self._start_writing())

    def _start_writing(self) -> asyncio.Task[None]:
        writer = asyncio.create_task(self._write_all(), name="anytime-client-writer")
        self._writers.add(writer)  # the event loop itself keeps no task alive
        writer.add_done_callback(self._writers.discard)
        return writer

    async def _write_all(self) -> None:
        """Writes in order; that the connection is broken is noticed by the reader."""
        async with self._write_lock:
            for frame in self._session.outgoing():
                try:
                    await self._socket.send(frame)
                except ConnectionClosed:
                    return

    async def _read(self) -> None:
        try:
            while self._session.closed is None:
                self._session.receive(await self._socket.recv())
                self._deliver()
        except ConnectionClosed as error:
            self._session.close(*_code_and_reason(error))
        self._deliver()
        closed = self._session.closed
        if closed is not None:
            await self._socket.close(sendable_close_code(closed.code), closed.reason)

    def _deliver(self) -> None:
        for request_id, event in self._session.events():
            queue = self._queues.get(request_id)
            if queue is None:  # a budget may be answered after the request's end
                continue
            queue.put_nowait(event)
            if isinstance(event, Result | StreamClosed | AnytimeError):
                del self._queues[request_id]
                self._places.release()


class _WebSocketRequest(Generic[EventT]):
    def __init__(
        self, transport: WebSocketTransport, request_id: str, queue: asyncio.Queue[EventT]
    ) -> None:
        self._transport = transport
        self._id = request_id
        self._queue = queue

    async def set_budget(self, budget: Budget) -> None:
        await self._transport.set_budget(self._id, budget)

    async def cancel(self) -> None:
        await self._transport.cancel(self._id)


class _WebSocketStream(_WebSocketRequest[RequestEvent]):
    async def next(self) -> RequestEvent:
        timeout_s = self._transport.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await self._queue.get()
        except TimeoutError:
            raise SilenceError(timeout_s) from None

    async def close(self) -> None:
        await self._transport.cancel(self._id)


class _WebSocketVideo(_WebSocketRequest[VideoEvent]):
    @property
    def unread(self) -> int:
        return self._queue.qsize()

    async def next(self) -> VideoEvent:
        return await self._queue.get()

    async def send_frame(self, frame: int, payload: bytes, media_type: str) -> None:
        await self._transport.send_frame(self._id, frame, payload, media_type)

    async def finish(self) -> None:
        await self._transport.close_video(self._id)


async def _connect(address: Address, timeout_s: float) -> ClientConnection:
    url = address.websocket_url
    try:
        return await connect(
            url,
            subprotocols=[Subprotocol(PROTOCOL)],
            compression=None,
            additional_headers=address.headers,
            open_timeout=timeout_s,
            close_timeout=1.0,
            max_size=ANSWER_LIMITS.frame_bytes,
            process_exception=lambda error: error,
        )
    except InvalidStatus as error:
        response = error.response
        raise error_of_response(url, response.status_code, bytes(response.body or b"")) from error
    except InvalidHandshake as error:
        raise AnswerError(f"{url}: no websocket of this protocol ({error})") from error
    except (OSError, TimeoutError, EOFError, WebSocketException) as error:
        raise address.unreachable(error) from error


def _code_and_reason(error: ConnectionClosed) -> tuple[int, str]:
    return (ABNORMAL_CLOSURE, "") if error.rcvd is None else (error.rcvd.code, error.rcvd.reason)
