"""How the blocking client's requests travel: over one websocket, or each over its own HTTP request.

Decides nothing about what is said (`conversation` does): a link moves frames and events. A link and
its exchanges may be used from several threads.
"""

from __future__ import annotations

import queue
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    WebSocketException,
)
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from anytime_client import web
from anytime_client.address import Address, close_meaning, may_be_sent, refusal
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
from anytime_protocol.messages import Ready
from anytime_protocol.models import ModelInfo
from anytime_protocol.vocabulary import PROTOCOL, CloseCode, ErrorCode


class Exchange(Protocol):
    """One request under way."""

    def next(self, timeout_s: float) -> Event:
        """Waits for the next event; that there was none in time is raised, not returned."""

    def set_budget(self, budget: Budget) -> None:
        """Replaces the budget; nothing happens if the request is over."""

    def cancel(self) -> None:
        """Tells the server that the request is not wanted any more; its final still comes."""

    def abandon(self) -> None:
        """Cancels, and gives up what belongs to the request: no event will be read any more."""


class Link(Protocol):
    """A way to the server."""

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """What the server serves."""

    @property
    def is_open(self) -> bool:
        """Whether a request can be begun on it."""

    def begin(self, question: Question) -> Exchange:
        """Sends a request."""

    def close(self) -> None:
        """Ends it; requests that run are lost."""


class SocketLink:
    """One websocket, read by a thread of its own.

    Args:
        address: of the server.
        timeout_s: for connecting and for the server's first message.

    Raises:
        ConnectError: nobody answers there.
        RequestError: the server refused the connection, and says why.
        AnswerError: something answers that is no anytime server.
    """

    def __init__(self, address: Address, timeout_s: float) -> None:
        self._address = address
        self._conversation = Conversation(address.base)
        self._state = threading.Lock()
        self._writing = threading.Lock()
        self._inboxes: dict[str, queue.SimpleQueue[Event]] = {}
        self._socket = _connect(address, timeout_s)
        self._ready = self._hear_ready(timeout_s)
        self._reader = threading.Thread(target=self._pump, name="anytime-client", daemon=True)
        self._reader.start()

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """What the server serves."""
        return self._ready.models

    @property
    def is_open(self) -> bool:
        """Whether the connection still stands, as far as is known."""
        return self._conversation.closed is None

    def begin(self, question: Question) -> Exchange:
        """Sends a request.

        Raises:
            ConnectionLostError: the connection has just ended.
            RequestError: what `ready` said forbids it.
        """
        with self._writing:
            with self._state:
                self._check_open()
                request_id, _ = self._conversation.ask(question)
                inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
                self._inboxes[request_id] = inbox
            self._write()
        return _SocketExchange(self, request_id, inbox)

    def say(self, request_id: str, budget: Budget | None) -> None:
        """Sends a new budget, or with None a cancellation."""
        with self._writing:
            with self._state:
                if self._conversation.closed is not None:
                    return
                if budget is None:
                    self._conversation.cancel(request_id)
                else:
                    self._conversation.set_budget(request_id, budget)
            self._write()

    def close(self) -> None:
        """Closes the websocket and waits for its reader."""
        self._socket.close()
        self._reader.join()

    def _write(self) -> None:
        """Writes what there is to say; a broken connection is the reader's to notice."""
        with self._state:
            frames = self._conversation.outgoing()
        for frame in frames:
            try:
                self._socket.send(frame)
            except ConnectionClosed:
                return

    def _hear_ready(self, timeout_s: float) -> Ready:
        try:
            self._conversation.receive(self._socket.recv(timeout_s))
        except TimeoutError as error:
            self._socket.close()
            raise ConnectError(self._address.base, "the server did not say ready") from error
        except ConnectionClosed as error:
            raise _lost(self._address, error) from error
        ready = self._conversation.ready
        if ready is None:
            closed = self._conversation.closed
            self._socket.close(CloseCode.BAD_MESSAGE)
            why = closed.reason if closed is not None else "its first message is not ready"
            raise AnswerError(f"{self._address.base}: {why}")
        return ready

    def _pump(self) -> None:
        try:
            while self._conversation.closed is None:
                data = self._socket.recv()
                with self._state:
                    self._conversation.receive(data)
                    self._deliver()
        except ConnectionClosed as error:
            with self._state:
                self._conversation.close(*_code_and_reason(error))
        with self._state:
            self._deliver()
            closed = self._conversation.closed
        if closed is not None:
            self._socket.close(may_be_sent(closed.code), closed.reason)

    def _deliver(self) -> None:
        for request_id, event in self._conversation.events():
            over = isinstance(event, Result | AnytimeError)
            inbox = self._inboxes.pop(request_id, None) if over else self._inboxes.get(request_id)
            if inbox is not None:
                inbox.put(event)

    def _check_open(self) -> None:
        closed = self._conversation.closed
        if closed is not None:
            why = close_meaning(closed.code, closed.reason)
            raise ConnectionLostError(self._address.base, why, closed.code)


class _SocketExchange:
    def __init__(self, link: SocketLink, request_id: str, inbox: queue.SimpleQueue[Event]) -> None:
        self._link = link
        self._id = request_id
        self._inbox = inbox

    def next(self, timeout_s: float) -> Event:
        try:
            return self._inbox.get(timeout=timeout_s)
        except queue.Empty:
            raise SilenceError(timeout_s) from None

    def set_budget(self, budget: Budget) -> None:
        self._link.say(self._id, budget)

    def cancel(self) -> None:
        self._link.say(self._id, None)

    def abandon(self) -> None:
        self._link.say(self._id, None)


class HttpCaller:
    """Short HTTP requests to one server.

    Args:
        address: of the server.
        timeout_s: the longest silence.
    """

    def __init__(self, address: Address, timeout_s: float) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self.client = httpx.Client(timeout=timeout_s)

    def call(self, call: web.Call) -> httpx.Response:
        """One request and its answer, whatever its status.

        Raises:
            ConnectError: nobody answers there.
            SilenceError: not in time.
        """
        try:
            return self.client.send(call.build(self.client))
        except httpx.HTTPError as error:
            raise web.translate(error, self.address, self.timeout_s, begun=False) from error

    def close(self) -> None:
        """Closes all connections."""
        self.client.close()


class HttpLink(HttpCaller):
    """Requests over HTTP, their updates as server-sent events.

    Args:
        address: of the server.
        timeout_s: the longest silence while a request runs.

    Raises:
        ConnectError, RequestError, AnswerError: as for `SocketLink`.
    """

    def __init__(self, address: Address, timeout_s: float) -> None:
        super().__init__(address, timeout_s)
        try:
            self._models = web.read_models(self.call(web.get(address, "/v1/models")))
        except AnytimeError:
            self.close()
            raise

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """What the server served when the link was made."""
        return self._models

    @property
    def is_open(self) -> bool:
        """Always, until closed: each request finds its own connection."""
        return not self.client.is_closed

    def begin(self, question: Question) -> Exchange:
        """Sends a request; comes back once it is admitted."""
        return _HttpExchange(self, question)


class _HttpExchange:
    def __init__(self, link: HttpLink, question: Question) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._conversation = Conversation.over_http(link.address.base, link.models)
        self._id, message = self._conversation.ask(question, uuid.uuid4().hex)
        self._conversation.outgoing()
        self._waiting: list[Event] = []
        call = web.predict(link.address, message)
        try:
            self._response = link.client.send(call.build(link.client), stream=True)
            if not self._response.is_success:
                self._response.read()
        except httpx.HTTPError as error:
            raise web.translate(error, link.address, link.timeout_s, begun=False) from error
        web.check(self._response)
        self._lines: Iterator[ServerSentEvent] = EventSource(self._response).iter_sse()

    def next(self, timeout_s: float) -> Event:
        while not self._waiting:
            data = self._hear(timeout_s)
            with self._lock:
                self._conversation.receive(data)
                self._waiting += [event for _, event in self._conversation.events()]
        event = self._waiting.pop(0)
        if isinstance(event, Result | AnytimeError):
            self._response.close()
        return event

    def set_budget(self, budget: Budget) -> None:
        with self._lock:
            message = self._conversation.set_budget(self._id, budget)
            self._conversation.outgoing()
        if message is None:
            return
        address = self._link.address
        answer = self._link.call(web.set_budget(address, self._id, message.rev, budget))
        try:
            web.check(answer)
        except RequestError as error:
            if error.code is ErrorCode.UNKNOWN_REQUEST:
                return  # it ended while the new budget was on its way
            raise
        with self._lock:
            self._conversation.receive(answer.text)
            self._waiting += [event for _, event in self._conversation.events()]

    def cancel(self) -> None:
        answer = self._link.call(web.cancel(self._link.address, self._id))
        if answer.status_code != httpx.codes.NOT_FOUND:
            web.check(answer)

    def abandon(self) -> None:
        self._response.close()  # a client that is gone cancels its request

    def _hear(self, timeout_s: float) -> str:
        address = self._link.address
        try:
            event = next(self._lines, None)
        except httpx.HTTPError as error:
            self._response.close()
            raise web.translate(error, address, timeout_s, begun=True) from error
        except SSEError as error:
            self._response.close()
            raise AnswerError(f"{address.base}: {error}") from error
        if event is None:
            self._response.close()
            raise ConnectionLostError(
                address.base, "the stream ended without a final message", None
            )
        return event.data


def _connect(address: Address, timeout_s: float) -> ClientConnection:
    """Opens a websocket; `SocketLink` closes it, later than any `with` statement could."""
    opening = ExitStack()
    try:
        return opening.enter_context(
            connect(
                address.socket_url,
                subprotocols=[Subprotocol(PROTOCOL)],
                compression=None,
                additional_headers=address.headers,
                open_timeout=timeout_s,
                close_timeout=1.0,
                max_size=ANSWER_LIMITS.frame_bytes,
            )
        )
    except InvalidStatus as error:
        raise refusal(error.response.status_code, bytes(error.response.body or b"")) from error
    except InvalidHandshake as error:
        raise AnswerError(
            f"{address.socket_url}: no websocket of this protocol ({error})"
        ) from error
    except (OSError, TimeoutError, EOFError, WebSocketException) as error:
        raise ConnectError(address.base, f"no connection ({error})") from error


def _code_and_reason(error: ConnectionClosed) -> tuple[int, str]:
    return (1006, "") if error.rcvd is None else (error.rcvd.code, error.rcvd.reason)


def _lost(address: Address, error: ConnectionClosed) -> ConnectionLostError:
    code, reason = _code_and_reason(error)
    return ConnectionLostError(address.base, close_meaning(code, reason), code)
