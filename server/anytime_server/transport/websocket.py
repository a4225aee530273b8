"""Websockets, on uvicorn's, with bounds on frames that cost much and carry little."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, cast

import uvicorn
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame

from anytime_protocol.enums import CloseCode
from anytime_server.api.request_checks import PLACE
from anytime_server.api.uploads import Uploads
from anytime_server.errors import RefusedError
from anytime_server.settings import Settings
from anytime_server.transport.places import Place
from anytime_server.transport.sending import SendTimeout

_FREE_FRAMES: Final = 1000
"""Frames of a message that may have any size."""

_FRAME_BYTES: Final = 256
"""What the later ones must have on average."""

_PIECE_BYTES: Final = 2048
"""Of what came in, read at a time; at most 340 frames."""

_TURN_FRAMES: Final = 64
"""After so many frames others get their turn on the event loop."""

_logger = logging.getLogger(__name__)
_logger.setLevel(logging.WARNING)  # what libraries log below that holds headers, tokens included


class WebsocketTransport(WebSocketsSansIOProtocol):
    """Uvicorn's websocket; it reads no more than is taken, and closes with our codes.

    Args:
        config: uvicorn's.
        server_state: uvicorn's.
        app_state: uvicorn's, with the place of the connection in it.
        _loop: uvicorn's.
        settings: the operator's choices.
        uploads: bounds what clients send.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        settings: Settings,
        uploads: Uploads,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger = self.conn.logger = _logger
        self.conn.debug = False
        self._place: Place = app_state[PLACE]
        self._settings = settings
        self._upload = uploads.begin()
        self._sending: SendTimeout
        self._unread = bytearray()
        self._turn_frames = 0
        self._message_frames = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        super().connection_made(transport)
        # Twice the time, so that the application can say first that its client is too slow.
        interval_s = 2 * self._settings.send_timeout_s
        self._sending = SendTimeout(cast("asyncio.Transport", transport), self.loop, interval_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._sending.stop()
        self._place.leave()
        self._upload.reserve(0)
        super().connection_lost(exc)

    # Receiving.

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._unread += data
        self._read()
        held = len(self._unread) + len(self.conn.reader.buffer) + (self.conn.current_size or 0)
        is_open = self.handshake_complete and not self.transport.is_closing()
        try:
            self._upload.reserve(held if is_open else 0)
        except RefusedError as error:
            self._fail(CloseCode.TRY_AGAIN_LATER, error.problem.detail)

    async def receive(self) -> ASGIReceiveEvent:
        """See ASGI."""
        message = await super().receive()
        if self._unread:
            self.loop.call_soon(self._read)
        return message

    def _read(self) -> None:
        """Reads what came in while it is taken, answers included, and others do not wait."""
        self._turn_frames = 0
        while self._unread and self._may_read and self._turn_frames < _TURN_FRAMES:
            piece = bytes(self._unread[:_PIECE_BYTES])
            del self._unread[:_PIECE_BYTES]
            super().data_received(piece)
        if self.transport.is_closing():
            self._unread.clear()
        elif self._unread or not self._may_read:
            self.transport.pause_reading()
            if self._may_read:
                self.loop.call_soon(self._read)
        else:
            self.transport.resume_reading()

    @property
    def _may_read(self) -> bool:
        return self.writable.is_set() and not (self.read_paused or self.transport.is_closing())

    def handle_events(self) -> None:
        """See uvicorn."""
        self._turn_frames += len(self.conn.events)
        super().handle_events()

    def handle_cont(self, event: Frame) -> None:
        """See uvicorn."""
        self._message_frames += 1
        if self._message_frames > _FREE_FRAMES + (self.conn.current_size or 0) / _FRAME_BYTES:
            self._fail(CloseCode.POLICY, "a message of too many small frames")
        else:
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """See uvicorn, which logs a traceback for text that is not UTF-8."""
        self._message_frames = 0
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self._fail(CloseCode.INVALID_TEXT, "text that is not UTF-8")
                return
        super().send_receive_event_to_app()

    def _fail(self, code: CloseCode, reason: str) -> None:
        self.frames = []
        self.conn.fail(code, reason)
        self.handle_parser_exception()

    # Sending.

    def pause_writing(self) -> None:
        """See asyncio."""
        super().pause_writing()
        self._sending.start()

    def resume_writing(self) -> None:
        """See asyncio."""
        self._sending.stop()
        super().resume_writing()
        self._read()

    async def send(self, message: ASGISendEvent) -> None:
        """See ASGI; a refusal completes the handshake, too, which uvicorn calls an error."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True

    async def run_asgi(self) -> None:
        """See uvicorn, which waits for ever for a client to take what is left."""
        await super().run_asgi()
        if not self.disconnected:
            self.loop.call_later(self._settings.send_timeout_s, self._abort)

    def _abort(self) -> None:
        if not self.disconnected:
            self.transport.abort()

    def keepalive_timeout(self) -> None:
        """See uvicorn, whose own close comes second and is not sent."""
        if not (self.close_sent or self.transport.is_closing()):
            self.conn.fail(CloseCode.TIMEOUT, "pings are not answered")
        super().keepalive_timeout()
