"""The client's side of one connection: bytes in, events out; no socket, no clock.

A `ClientSession` gives requests their ids and budgets their revisions, decodes updates and turns
the server's messages into results and errors. A websocket has one session. Over HTTP each request
has its own, which reads the server-sent events (they hold the same messages) and whose outgoing
frames are dropped, because the client's messages are HTTP requests there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from anytime_client.address import Address
from anytime_client.arrays import DeltaDecoder
from anytime_client.errors import (
    AnswerError,
    AnytimeError,
    MissingArrayError,
    RequestError,
)
from anytime_client.requests import InferRequest, VideoRequest
from anytime_client.results import FrameResult, Result, Update
from anytime_protocol import messages
from anytime_protocol.budget import Budget
from anytime_protocol.codec import encode_text
from anytime_protocol.enums import CloseCode, ErrorCode
from anytime_protocol.errors import LocalProtocolError, PayloadError
from anytime_protocol.messages import Accepted, BudgetApplied, ConnectionLimits, Role
from anytime_protocol.model_info import ModelInfo
from anytime_protocol.session import Closed, Event, Phase, Session
from anytime_protocol.stream_answers import FrameEnd, StreamClosed

_NO_LIMITS: Final = ConnectionLimits(max_payload_bytes=2**31)
"""Over HTTP only the server knows its limits, and answers 413."""

RequestEvent: TypeAlias = Accepted | Update | BudgetApplied | Result | AnytimeError
"""What happened to a request; a `Result` or an error is its last event."""

VideoEvent: TypeAlias = FrameResult | BudgetApplied | StreamClosed | AnytimeError
"""What happened to a stream of frames; `StreamClosed` or an error is its last event."""


@dataclass(slots=True)
class _RunningRequest:
    model: ModelInfo
    decoder: DeltaDecoder = field(default_factory=DeltaDecoder)
    update: Update | None = None
    rev: int = 0


class ClientSession:
    """The requests of one connection.

    Args:
        address: of the server, for error messages.

    Attributes:
        ready: the server's first message, once it is in.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._session = Session(Role.CLIENT)
        self._running: dict[str, _RunningRequest] = {}
        self._ids = itertools.count(1)
        self._events: list[tuple[str, RequestEvent | VideoEvent]] = []
        self.ready: messages.Ready | None = None

    @classmethod
    def over_http(cls, address: Address, models: Iterable[ModelInfo]) -> ClientSession:
        """A session for one request over HTTP, where no `ready` comes from the server."""
        session = cls(address)
        ready = messages.Ready("", tuple(models), _NO_LIMITS)
        session.receive(encode_text(ready.to_json()))
        return session

    @property
    def closed(self) -> Closed | None:
        """How the connection ended, if it did."""
        return self._session.closed

    def infer(self, request: InferRequest, request_id: str | None = None) -> messages.Infer:
        """Starts a request.

        Args:
            request: what to infer.
            request_id: the next number unless given.

        Returns:
            The message, for those who send it in another way than `outgoing`.

        Raises:
            RequestError: the server has no such model, or by what `ready` said too many requests
                run or the image is too large.
        """
        model = self._find_model(request.model)
        self._check_size(request.payload)
        self._check_room()
        message = messages.Infer(
            request_id or str(next(self._ids)),
            model.name,
            request.payload,
            request.media_type,
            request.budget,
            request.want,
            request.urgency,
        )
        self._session.send(message)
        self._running[message.id] = _RunningRequest(model)
        return message

    def open_video(self, request: VideoRequest) -> str:
        """Opens a stream of frames.

        Returns:
            Its id.

        Raises:
            RequestError: the server has no such model, or by what `ready` said too many requests
                run.
            FieldError: a field is out of its range.
        """
        model = self._find_model(request.model)
        self._check_room()
        message = messages.OpenStream(
            str(next(self._ids)),
            model.name,
            request.budget,
            request.want,
            request.urgency,
            request.share,
            request.reuse,
        )
        self._session.send(message)
        self._running[message.id] = _RunningRequest(model)
        return message.id

    def send_frame(self, stream_id: str, frame: int, payload: bytes, media_type: str) -> None:
        """Sends a frame; nothing is sent if its stream is over.

        Raises:
            RequestError: the image is larger than the server takes.
        """
        self._check_size(payload)
        if self._session.phase(stream_id) is not Phase.IDLE:
            self._session.send(messages.Frame(stream_id, frame, payload, media_type))

    def close_video(self, stream_id: str) -> None:
        """Says that no more frames come; nothing is sent if the stream is over."""
        if self._session.phase(stream_id) is not Phase.IDLE:
            self._session.send(messages.CloseStream(stream_id))

    def set_budget(self, request_id: str, budget: Budget) -> messages.SetBudget | None:
        """Replaces a request's budget; None, and nothing is sent, if it is over."""
        running = self._running.get(request_id)
        if running is None or self._session.phase(request_id) is Phase.IDLE:
            return None
        running.rev += 1
        message = messages.SetBudget(request_id, running.rev, budget)
        self._session.send(message)
        return message

    def cancel(self, request_id: str) -> None:
        """Cancels a request; nothing is sent if it is over."""
        if self._session.phase(request_id) is not Phase.IDLE:
            self._session.send(messages.Cancel(request_id))

    def receive(self, data: bytes | str) -> None:
        """Takes in one message of the server."""
        self._session.receive(data)
        self._handle_events()

    def close(self, code: int, reason: str = "") -> None:
        """Notes that the connection is over; requests that ran fail."""
        self._session.close(code, reason)
        self._handle_events()

    def outgoing(self) -> list[bytes | str]:
        """Frames to write, in order."""
        return self._session.outgoing()

    def events(self) -> list[tuple[str, RequestEvent | VideoEvent]]:
        """Pairs of an id and event since the last call, in order."""
        events, self._events = self._events, []
        return events

    def _find_model(self, name: str | None) -> ModelInfo:
        if self.ready is None:
            raise LocalProtocolError("infer: `ready` comes first")
        models = self.ready.models
        found = next((model for model in models if name in {None, model.name}), None)
        if found is None:
            served = ", ".join(model.name for model in models) or "none"
            detail = f"found {name or 'no name'}, the server has: {served}"
            raise RequestError(ErrorCode.UNKNOWN_MODEL, detail)
        return found

    def _check_size(self, payload: bytes) -> None:
        most = self._session.limits.max_payload_bytes
        if len(payload) > most:
            detail = f"the image has {len(payload)} bytes, the server takes {most}"
            raise RequestError(ErrorCode.TOO_LARGE, detail)

    def _check_room(self) -> None:
        limits = self._session.limits
        if len(self._session.in_flight) >= limits.max_in_flight:
            running = f"{limits.max_in_flight} requests run on this connection"
            raise RequestError(ErrorCode.TOO_MANY_REQUESTS, f"{running}; wait for one to end")

    def _handle_events(self) -> None:
        while events := self._session.events():  # a faulty update makes one more: the close
            for event in events:
                self._handle(event)

    def _handle(self, event: Event) -> None:
        match event:
            case messages.Ready():
                self.ready = event
            case Accepted() | BudgetApplied():
                self._events.append((event.id, event))
            case messages.Update():
                self._handle_update(event)
            case messages.Finished():
                running = self._running.pop(event.id)
                result = Result.from_message(event, event.reason, running.model, running.update)
                self._events.append((event.id, result))
            case FrameEnd():
                running = self._running[event.id]
                update, running.update = running.update, None
                frame = FrameResult.from_message(event, running.model, update)
                self._events.append((event.id, frame))
            case StreamClosed():
                del self._running[event.id]
                self._events.append((event.id, event))
            case messages.Failed():
                self._running.pop(event.id)
                self._events.append((event.id, RequestError.from_wire(event)))
            case Closed():
                for request_id in self._running:
                    lost = self._address.connection_lost(event.code, event.reason)
                    self._events.append((request_id, lost))
                self._running.clear()
            case _:
                return

    def _handle_update(self, message: messages.Update) -> None:
        running = self._running[message.id]
        try:
            arrays = running.decoder.decode(message.parts, message.payload)
            update = Update.from_message(message, running.model, arrays, running.update)
        except (PayloadError, MissingArrayError) as error:
            self._session.close(CloseCode.BAD_MESSAGE, f"update: {error}")
            self._running.pop(message.id)
            self._events.append((message.id, AnswerError(f"{self._address.base}: {error}")))
            return
        running.update = update
        if message.frame is None:
            self._events.append((message.id, update))
