"""Transports: how requests travel, all over one websocket or each over its own HTTP request.

A transport belongs to the event loop on which it was opened; only that loop's thread may use it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from anytime_client.address import Address
from anytime_client.errors import AnswerError
from anytime_client.http import HttpTransport
from anytime_client.requests import InferRequest, VideoRequest
from anytime_client.session import RequestEvent, VideoEvent
from anytime_client.websocket import WebSocketTransport
from anytime_protocol.budget import Budget
from anytime_protocol.model_info import ModelInfo


class TransportKind(StrEnum):
    """How a client reaches its server."""

    AUTO = "auto"
    """The websocket, or HTTP where something on the way does not let websockets through."""
    WEBSOCKET = "websocket"
    """One connection for all requests; a budget's change arrives at once."""
    HTTP = "http"
    """One HTTP request each, its updates as server-sent events."""


class RequestStream(Protocol):
    """The events of one request that was sent, and changes to it."""

    async def next(self) -> RequestEvent:
        """Waits for the next event.

        Raises:
            AnytimeError: there is none in time, or the connection was lost.
        """

    async def set_budget(self, budget: Budget) -> None:
        """Replaces the budget; nothing happens if the request is over."""

    async def cancel(self) -> None:
        """Cancels the request; its final message is still an event."""

    async def close(self) -> None:
        """Cancels the request and releases what belongs to it; no event may be awaited then."""


class VideoStream(Protocol):
    """A stream of frames that is open."""

    @property
    def unread(self) -> int:
        """Events that have come and were not taken yet."""

    async def next(self) -> VideoEvent:
        """Waits for the next event, however long that takes."""

    async def send_frame(self, frame: int, payload: bytes, media_type: str) -> None:
        """Sends a frame; nothing happens if the stream is over.

        Raises:
            RequestError: the image is larger than the server takes.
        """

    async def set_budget(self, budget: Budget) -> None:
        """Replaces the budget of the frames; nothing happens if the stream is over."""

    async def finish(self) -> None:
        """Says that no more frames come; those that were sent are still answered."""

    async def cancel(self) -> None:
        """Ends the stream at once; its last message is still an event."""


class Transport(Protocol):
    """A way to the server."""

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """The models that the server has."""

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent."""

    async def infer(self, request: InferRequest) -> RequestStream:
        """Sends a request."""

    async def open_video(self, request: VideoRequest) -> VideoStream:
        """Opens a stream of frames.

        Raises:
            AnswerError: this transport has none.
        """

    async def close(self) -> None:
        """Closes the connection; requests that run are lost."""


async def open_transport(kind: TransportKind, address: Address, timeout_s: float) -> Transport:
    """Connects to a server.

    Args:
        kind: of the transport; `AUTO` takes HTTP where no websocket gets through.
        address: of the server.
        timeout_s: for connecting and for the server's first message.

    Raises:
        ConnectError: the server cannot be reached.
        RequestError: the server refused the connection, and says why.
        AnswerError: something else than an anytime server answers.
    """
    if kind is TransportKind.HTTP:
        return await HttpTransport.open(address, timeout_s)
    try:
        return await WebSocketTransport.open(address, timeout_s)
    except AnswerError:
        if kind is TransportKind.WEBSOCKET:
            raise
        return await HttpTransport.open(address, timeout_s)
