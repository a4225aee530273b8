"""What is said on one connection and what comes of it.

Decides ids and revisions, applies deltas, and turns messages into what a caller sees. Refuses to
know sockets, threads, tasks and clocks: frames come in through `receive`, `outgoing` has what to
write, and `events` says what happened to which request.

It serves HTTP as well. There each request has a conversation of its own, whose server messages come
as server-sent events in the same text form; what a caller says goes out as HTTP requests instead of
the frames, which are thrown away.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from anytime_client.address import close_meaning
from anytime_client.arrays import Canvas
from anytime_client.errors import (
    AnswerError,
    AnytimeError,
    ConnectionLostError,
    MissingArrayError,
    RequestError,
)
from anytime_client.questions import Question
from anytime_client.results import Result, Update
from anytime_protocol import messages
from anytime_protocol.budget import Budget
from anytime_protocol.codec import encode_text
from anytime_protocol.enums import CloseCode, ErrorCode
from anytime_protocol.errors import LocalProtocolError, PayloadError
from anytime_protocol.messages import Accepted, BudgetApplied, ConnectionLimits, Role
from anytime_protocol.resources import ModelInfo
from anytime_protocol.session import Closed, Phase, Session
from anytime_protocol.session import Event as SessionEvent

_UNKNOWN_LIMITS: Final = ConnectionLimits(max_payload_bytes=2**31)
"""Over HTTP only the server knows its limits, and answers 413."""

Event: TypeAlias = Accepted | Update | BudgetApplied | Result | AnytimeError
"""What happened to a request; a `Result` or an error is its last."""


@dataclass(slots=True)
class _Request:
    model: ModelInfo
    canvas: Canvas = field(default_factory=Canvas)
    update: Update | None = None
    rev: int = 0


class Conversation:
    """One connection's requests, from the client's side.

    Args:
        url: of the server, for error messages.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = Session(Role.CLIENT)
        self._requests: dict[str, _Request] = {}
        self._ids = itertools.count(1)
        self._events: list[tuple[str, Event]] = []
        self._ready: messages.Ready | None = None

    @classmethod
    def over_http(cls, url: str, models: Iterable[ModelInfo]) -> Conversation:
        """A conversation whose server is known from its HTTP answers instead of its `ready`."""
        conversation = cls(url)
        conversation.receive(
            encode_text(messages.Ready("", tuple(models), _UNKNOWN_LIMITS).to_json())
        )
        return conversation

    @property
    def ready(self) -> messages.Ready | None:
        """The server's first message, once it is in."""
        return self._ready

    @property
    def closed(self) -> Closed | None:
        """How the connection ended, if it did."""
        return self._session.closed

    def ask(self, question: Question, request_id: str | None = None) -> tuple[str, messages.Infer]:
        """Begins a request.

        Args:
            question: what to ask.
            request_id: a number that rises unless given.

        Returns:
            Its id, and the message for those who send it in another way than `outgoing`.

        Raises:
            RequestError: the server has no such model, or too many requests run or the image is
                too large by what `ready` said.
        """
        model = self._model(question.model)
        message = messages.Infer(
            request_id or str(next(self._ids)),
            model.name,
            question.payload,
            question.media_type,
            question.budget,
            question.want,
            question.urgency,
        )
        if len(question.payload) > self._session.limits.max_payload_bytes:
            most = self._session.limits.max_payload_bytes
            found = f"the image has {len(question.payload)} bytes, the server takes {most}"
            raise RequestError(ErrorCode.TOO_LARGE, found)
        if len(self._session.in_flight) >= self._session.limits.max_in_flight:
            most = self._session.limits.max_in_flight
            found = f"{most} requests run on this connection; wait for one to end"
            raise RequestError(ErrorCode.TOO_MANY_REQUESTS, found)
        self._session.send(message)
        self._requests[message.id] = _Request(model)
        return message.id, message

    def set_budget(self, request_id: str, budget: Budget) -> messages.SetBudget | None:
        """Replaces a request's budget; None and nothing said if it is over."""
        request = self._requests.get(request_id)
        if request is None or self._session.phase(request_id) is Phase.IDLE:
            return None
        request.rev += 1
        message = messages.SetBudget(request_id, request.rev, budget)
        self._session.send(message)
        return message

    def cancel(self, request_id: str) -> bool:
        """Says that a request is not wanted any more; False if it is over already."""
        if self._session.phase(request_id) is Phase.IDLE:
            return False
        self._session.send(messages.Cancel(request_id))
        return True

    def receive(self, data: bytes | str) -> None:
        """Takes in one message of the server."""
        self._session.receive(data)
        self._drain()

    def close(self, code: int, reason: str = "") -> None:
        """Notes that the connection is over; what still ran is lost."""
        self._session.close(code, reason)
        self._drain()

    def outgoing(self) -> list[bytes | str]:
        """Frames to write, in order."""
        return self._session.outgoing()

    def events(self) -> list[tuple[str, Event]]:
        """What happened to which request since the last call, in order."""
        events, self._events = self._events, []
        return events

    def _model(self, name: str | None) -> ModelInfo:
        if self._ready is None:
            raise LocalProtocolError("infer: `ready` comes first")
        models = self._ready.models
        found = next((model for model in models if name in {None, model.name}), None)
        if found is None:
            served = ", ".join(model.name for model in models) or "none"
            detail = f"found {name or 'no name'}, the server has: {served}"
            raise RequestError(ErrorCode.UNKNOWN_MODEL, detail)
        return found

    def _drain(self) -> None:
        while events := self._session.events():  # a faulty update makes one more: the close
            for event in events:
                self._take(event)

    def _take(self, event: SessionEvent) -> None:
        match event:
            case messages.Ready():
                self._ready = event
            case Accepted() | BudgetApplied():
                self._events.append((event.id, event))
            case messages.Update():
                self._show(event)
            case messages.Finished():
                request = self._requests.pop(event.id)
                self._events.append((event.id, Result.of(event, request.model, request.update)))
            case messages.Failed():
                self._requests.pop(event.id)
                self._events.append((event.id, RequestError.of(event)))
            case Closed():
                self._lose(event)
            case _:
                return

    def _show(self, message: messages.Update) -> None:
        request = self._requests[message.id]
        try:
            arrays = request.canvas.apply(message.parts, message.payload)
            update = Update.of(message, request.model, arrays, request.update)
        except (PayloadError, MissingArrayError) as error:
            self._session.close(CloseCode.BAD_MESSAGE, f"update: {error}")
            self._requests.pop(message.id)
            self._events.append((message.id, AnswerError(f"{self._url}: {error}")))
            return
        request.update = update
        self._events.append((message.id, update))

    def _lose(self, closed: Closed) -> None:
        why = close_meaning(closed.code, closed.reason)
        for request_id in list(self._requests):
            del self._requests[request_id]
            self._events.append((request_id, ConnectionLostError(self._url, why, closed.code)))
