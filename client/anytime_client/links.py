"""How requests travel: all over one websocket, or each over its own HTTP request.

Decides nothing about what is said (`conversation` does): a link moves frames and events. It belongs
to the event loop that it was opened on, and only that loop's thread may touch it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Protocol, Self

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    WebSocketException,
)
from websockets.typing import Subprotocol

from anytime_client import web
from anytime_client.address import Address, close_meaning, may_be_sent, refusal, unreachable
from anytime_client.conversation import Conversation, Event
from anytime_client.errors import (
    AnswerError,
    AnytimeError,
    ConnectError,
    ConnectionLostError,
    RequestError,
    SilenceError,
)
from anytime_client.questions import Question
from anytime_client.results import Result
from anytime_protocol.budget import Budget
from anytime_protocol.codec import ANSWER_LIMITS
from anytime_protocol.enums import PROTOCOL, CloseCode, ErrorCode
from anytime_protocol.messages import Ready
from anytime_protocol.resources import ModelInfo


class Exchange(Protocol):
    """One request under way."""

    async def next(self, timeout_s: float) -> Event:
        """Waits for the next event; that there was none in time is raised, not returned."""

    async def set_budget(self, budget: Budget) -> None:
        """Replaces the budget; nothing happens if the request is over."""

    async def cancel(self) -> None:
        """Tells the server that the request is not wanted any more; its final still comes."""

    async def abandon(self) -> None:
        """Cancels, and gives up what belongs to the request: no event will be read any more."""


class Link(Protocol):
    """A way to the server."""

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """What the server serves."""

    @property
    def is_open(self) -> bool:
        """Whether a request can be begun on it."""

    async def begin(self, question: Question) -> Exchange:
        """Sends a request."""

    async def close(self) -> None:
        """Ends it; requests that run are lost."""


class SocketLink:
    """One websocket, read by a task of its own. Made by `open`."""

    def __init__(
        self, address: Address, socket: ClientConnection, conversation: Conversation, ready: Ready
    ) -> None:
        self._address = address
        self._socket = socket
        self._conversation = conversation
        self._ready = ready
        self._writing = asyncio.Lock()
        self._writers: set[asyncio.Task[None]] = set()
        self._inboxes: dict[str, asyncio.Queue[Event]] = {}
        self._reader = asyncio.create_task(self._pump(), name="anytime-client")

    @classmethod
    async def open(cls, address: Address, timeout_s: float) -> Self:
        """Connects and waits for the server's first message.

        Args:
            address: of the server.
            timeout_s: for connecting and for the first message.

        Raises:
            ConnectError: nobody answers there.
            RequestError: the server refused the connection, and says why.
            AnswerError: something answers that is no anytime server.
        """
        socket = await _connect(address, timeout_s)
        conversation = Conversation(address.base)
        try:
            async with asyncio.timeout(timeout_s):
                conversation.receive(await socket.recv())
        except TimeoutError as error:
            await socket.close()
            raise ConnectError(address.base, "the server did not say ready") from error
        except ConnectionClosed as error:
            raise _lost(address, error) from error
        if conversation.ready is None:
            closed = conversation.closed
            await socket.close(CloseCode.BAD_MESSAGE)
            why = closed.reason if closed is not None else "its first message is not ready"
            raise AnswerError(f"{address.base}: {why}")
        return cls(address, socket, conversation, conversation.ready)

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """What the server serves."""
        return self._ready.models

    @property
    def is_open(self) -> bool:
        """Whether the connection still stands, as far as is known."""
        return self._conversation.closed is None

    async def begin(self, question: Question) -> Exchange:
        """Sends a request; a caller who is cancelled meanwhile cancels it.

        Raises:
            ConnectionLostError: the connection has just ended.
            RequestError: what `ready` said forbids it.
        """
        closed = self._conversation.closed
        if closed is not None:
            why = close_meaning(closed.code, closed.reason)
            raise ConnectionLostError(self._address.base, why, closed.code)
        request_id, _ = self._conversation.ask(question)
        inbox: asyncio.Queue[Event] = asyncio.Queue()
        self._inboxes[request_id] = inbox
        try:
            await self._write()
        except asyncio.CancelledError:
            self._conversation.cancel(request_id)
            self._start_writing()
            raise
        return _SocketExchange(self, request_id, inbox)

    async def say(self, request_id: str, budget: Budget | None) -> None:
        """Sends a new budget, or with None a cancellation."""
        if self._conversation.closed is not None:
            return
        if budget is None:
            self._conversation.cancel(request_id)
        else:
            self._conversation.set_budget(request_id, budget)
        await self._write()

    async def close(self) -> None:
        """Closes the websocket and waits for its reader."""
        await self._socket.close()
        await self._reader

    async def _write(self) -> None:
        """Writes what there is to say; a caller who is cancelled leaves no frame unsaid."""
        await asyncio.shield(self._start_writing())

    def _start_writing(self) -> asyncio.Task[None]:
        writer = asyncio.create_task(self._write_all(), name="anytime-client-writer")
        self._writers.add(writer)  # the loop itself keeps no task alive
        writer.add_done_callback(self._writers.discard)
        return writer

    async def _write_all(self) -> None:
        """Writes in order; a broken connection is the reader's to notice."""
        async with self._writing:
            for frame in self._conversation.outgoing():
                try:
                    await self._socket.send(frame)
                except ConnectionClosed:
                    return

    async def _pump(self) -> None:
        try:
            while self._conversation.closed is None:
                self._conversation.receive(await self._socket.recv())
                self._deliver()
        except ConnectionClosed as error:
            self._conversation.close(*_code_and_reason(error))
        self._deliver()
        closed = self._conversation.closed
        if closed is not None:
            await self._socket.close(may_be_sent(closed.code), closed.reason)

    def _deliver(self) -> None:
        for request_id, event in self._conversation.events():
            over = isinstance(event, Result | AnytimeError)
            inbox = self._inboxes.pop(request_id, None) if over else self._inboxes.get(request_id)
            if inbox is not None:
                inbox.put_nowait(event)


class _SocketExchange:
    def __init__(self, link: SocketLink, request_id: str, inbox: asyncio.Queue[Event]) -> None:
        self._link = link
        self._id = request_id
        self._inbox = inbox

    async def next(self, timeout_s: float) -> Event:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._inbox.get()
        except TimeoutError:
            raise SilenceError(timeout_s) from None

    async def set_budget(self, budget: Budget) -> None:
        await self._link.say(self._id, budget)

    async def cancel(self) -> None:
        await self._link.say(self._id, None)

    async def abandon(self) -> None:
        await self._link.say(self._id, None)


class HttpCaller:
    """Short HTTP requests to one server.

    Args:
        address: of the server.
        timeout_s: the longest silence.
    """

    def __init__(self, address: Address, timeout_s: float) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self.client = httpx.AsyncClient(timeout=timeout_s)

    async def call(self, call: web.Call) -> httpx.Response:
        """One request and its answer, whatever its status.

        Raises:
            ConnectError: nobody answers there.
            SilenceError: not in time.
        """
        try:
            return await self.client.send(call.build(self.client))
        except httpx.HTTPError as error:
            raise web.translate(error, self.address, self.timeout_s, begun=False) from error

    async def close(self) -> None:
        """Closes all connections."""
        await self.client.aclose()


class HttpLink(HttpCaller):
    """Requests over HTTP, their updates as server-sent events. Made by `open`."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        super().__init__(address, timeout_s)
        self._models: tuple[ModelInfo, ...] = ()

    @classmethod
    async def open(cls, address: Address, timeout_s: float) -> Self:
        """Asks for the server's models.

        Raises:
            ConnectError, RequestError, AnswerError: as for `SocketLink.open`.
        """
        link = cls(address, timeout_s)
        try:
            link._models = web.read_models(await link.call(web.get(address, "/v1/models")))
        except AnytimeError:
            await link.close()
            raise
        return link

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """What the server served when the link was opened."""
        return self._models

    @property
    def is_open(self) -> bool:
        """Always, until closed: each request finds its own connection."""
        return not self.client.is_closed

    async def begin(self, question: Question) -> Exchange:
        """Sends a request; comes back once it is admitted."""
        conversation = Conversation.over_http(self.address.base, self.models)
        request_id, message = conversation.ask(question, uuid.uuid4().hex)
        conversation.outgoing()
        call = web.predict(self.address, message)
        try:
            response = await self.client.send(call.build(self.client), stream=True)
            if not response.is_success:
                await response.aread()
        except httpx.HTTPError as error:
            raise web.translate(error, self.address, self.timeout_s, begun=False) from error
        web.check(response)
        return _HttpExchange(self, conversation, request_id, response)


class _HttpExchange:
    def __init__(
        self,
        link: HttpLink,
        conversation: Conversation,
        request_id: str,
        response: httpx.Response,
    ) -> None:
        self._link = link
        self._conversation = conversation
        self._id = request_id
        self._response = response
        self._waiting: list[Event] = []
        self._lines: AsyncIterator[ServerSentEvent] = EventSource(response).aiter_sse()

    async def next(self, timeout_s: float) -> Event:
        while not self._waiting:
            self._conversation.receive(await self._hear(timeout_s))
            self._waiting += [event for _, event in self._conversation.events()]
        event = self._waiting.pop(0)
        if isinstance(event, Result | AnytimeError):
            await self._response.aclose()
        return event

    async def set_budget(self, budget: Budget) -> None:
        message = self._conversation.set_budget(self._id, budget)
        self._conversation.outgoing()
        if message is None:
            return
        address = self._link.address
        answer = await self._link.call(web.set_budget(address, self._id, message.rev, budget))
        try:
            web.check(answer)
        except RequestError as error:
            if error.code is ErrorCode.UNKNOWN_REQUEST:
                return  # it ended while the new budget was on its way
            raise
        self._conversation.receive(answer.text)
        self._waiting += [event for _, event in self._conversation.events()]

    async def cancel(self) -> None:
        answer = await self._link.call(web.cancel(self._link.address, self._id))
        if answer.status_code != httpx.codes.NOT_FOUND:
            web.check(answer)

    async def abandon(self) -> None:
        await self._response.aclose()  # a client that is gone cancels its request

    async def _hear(self, timeout_s: float) -> str:
        address = self._link.address
        try:
            event = await anext(self._lines, None)
        except httpx.HTTPError as error:
            await self._response.aclose()
            raise web.translate(error, address, timeout_s, begun=True) from error
        except SSEError as error:
            await self._response.aclose()
            raise AnswerError(f"{address.base}: {error}") from error
        if event is None:
            await self._response.aclose()
            raise ConnectionLostError(
                address.base, "the stream ended without a final message", None
            )
        return event.data


async def _connect(address: Address, timeout_s: float) -> ClientConnection:
    try:
        return await connect(
            address.socket_url,
            subprotocols=[Subprotocol(PROTOCOL)],
            compression=None,
            additional_headers=address.headers,
            open_timeout=timeout_s,
            close_timeout=1.0,
            max_size=ANSWER_LIMITS.frame_bytes,
            process_exception=lambda error: error,
        )
    except InvalidStatus as error:
        answer = error.response
        body = bytes(answer.body or b"")
        raise refusal(address.socket_url, answer.status_code, body) from error
    except InvalidHandshake as error:
        raise AnswerError(
            f"{address.socket_url}: no websocket of this protocol ({error})"
        ) from error
    except (OSError, TimeoutError, EOFError, WebSocketException) as error:
        raise unreachable(address, error) from error


def _code_and_reason(error: ConnectionClosed) -> tuple[int, str]:
    return (1006, "") if error.rcvd is None else (error.rcvd.code, error.rcvd.reason)


def _lost(address: Address, error: ConnectionClosed) -> ConnectionLostError:
    code, reason = _code_and_reason(error)
    return ConnectionLostError(address.base, close_meaning(code, reason), code)
