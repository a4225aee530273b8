"""Connections of HTTP/1.1, on h11, with bounds on what a client may send and how long it may take.

h11 and not httptools, because that one neither bounds a request's headers nor reads the body of a
request that proposes another protocol.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from anytime_protocol.enums import ErrorCode
from anytime_protocol.http.problems import Problem
from anytime_server.api.problems import problem_response
from anytime_server.api.request_checks import PLACE
from anytime_server.settings import Settings
from anytime_server.transport.places import Place, Places
from anytime_server.transport.sending import SendTimeout

MAX_HEAD_BYTES: Final = 64 * 1024
"""Of a request line and its headers together."""

MAX_LINE_BYTES: Final = 8000
"""Of a request line or a header; the websockets library takes 8192 with what stands around it."""

MAX_HEADERS: Final = 100

_FREE_CHUNKS: Final = 1000
"""Chunks of a body that may have any size."""

_CHUNK_BYTES: Final = 256
"""What the later ones must have on average: each costs the event loop some 10 us."""

_LINGER_S: Final = 1.0
"""After a refusal, for the client to read it: a close with unread input would reset."""


class Parser(h11.Connection):
    """h11's reading of requests, within bounds that h11 does not have.

    Attributes:
        refusal: why a request could not be read, once one could not.
    """

    def __init__(self) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self.refusal: h11.RemoteProtocolError | None = None
        self._chunks = 0
        self._chunk_bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """See h11."""
        try:
            event = super().next_event()
            if isinstance(event, h11.Request):
                self._chunks = self._chunk_bytes = 0
                _check_request(event)
                return _in_origin_form(event)
            if isinstance(event, h11.Data):
                self._check_chunks(event)
        except h11.RemoteProtocolError as error:
            self.refusal = error
            raise
        return event

    def _check_chunks(self, data: h11.Data) -> None:
        self._chunks += data.chunk_start
        self._chunk_bytes += len(data.data)
        if self._chunks > _FREE_CHUNKS + self._chunk_bytes / _CHUNK_BYTES:
            text = f"{self._chunks} chunks hold {self._chunk_bytes} bytes: send larger ones"
            raise h11.RemoteProtocolError(text)


def _check_request(request: h11.Request) -> None:
    headers = request.headers.raw_items()
    lines = [len(request.target), *(len(name) + len(value) for name, value in headers)]
    found = ""
    if len(headers) > MAX_HEADERS:
        found = f"{len(headers)} headers, expected at most {MAX_HEADERS}"
    elif max(lines) > MAX_LINE_BYTES:
        found = f"a line of {max(lines)} bytes, expected at most {MAX_LINE_BYTES}"
    elif sum(lines) > MAX_HEAD_BYTES:
        found = f"headers of {sum(lines)} bytes, expected at most {MAX_HEAD_BYTES}"
    if found:
        raise h11.RemoteProtocolError(f"found {found}", error_status_hint=431)
    if {b"content-length", b"transfer-encoding"} <= {name.lower() for name, _ in headers}:
        text = "found Content-Length and Transfer-Encoding, expected one of them"
        raise h11.RemoteProtocolError(text)


def _in_origin_form(request: h11.Request) -> h11.Request:
    """A request as if to a server; proxies are asked with a whole URL, which names the host."""
    scheme, found, rest = request.target.partition(b"://")
    if not found or scheme.lower() not in {b"http", b"https"}:
        return request
    authority, slash, path = rest.partition(b"/")
    headers = [
        (name, authority if name.lower() == b"host" else value)
        for name, value in request.headers.raw_items()
    ]
    return h11.Request(
        method=request.method,
        target=b"/" + path if slash else b"/",
        headers=headers,
        http_version=request.http_version,
    )


class HttpConnection(H11Protocol):
    """Uvicorn's connection of HTTP/1.1; it ends what is silent, endless or unread.

    Args:
        config: uvicorn's.
        server_state: uvicorn's.
        app_state: uvicorn's.
        _loop: uvicorn's.
        settings: the operator's choices.
        places: of all connections.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        settings: Settings,
        places: Places,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn: Parser = Parser()
        self._settings = settings
        self._places = places
        self._place: Place
        self._sending: SendTimeout
        self._timer: asyncio.TimerHandle | None = None
        self._awaited: object = None
        self._is_done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._sending = SendTimeout(self.transport, self.loop, self._settings.send_timeout_s)
        self._place = self._places.take(self.transport.abort)
        self.app_state = {**self.app_state, PLACE: self._place}
        self._set_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._is_done = True
        self._set_timer()
        self._sending.stop()
        self._place.leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._is_done:
            return
        if not self.flow.write_paused:
            self._sending.stop()
        super().data_received(data)
        self._set_timer()

    def on_response_complete(self) -> None:
        """See uvicorn."""
        super().on_response_complete()
        self._sending.start()
        self._set_timer()

    def pause_writing(self) -> None:
        """See asyncio."""
        super().pause_writing()
        self._sending.start()

    def resume_writing(self) -> None:
        """See asyncio."""
        self._sending.stop()
        super().resume_writing()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """See uvicorn; the place goes with the connection, as part of `app_state`."""
        self._is_done = True
        self._set_timer()
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        """Answers what could not be read, if it may still be answered."""
        self._is_done = True
        if self._is_answering:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            self.transport.abort()
            return
        refusal = self.conn.refusal
        is_large = refusal is not None and refusal.error_status_hint == 431
        code = ErrorCode.HEADERS_TOO_LARGE if is_large else ErrorCode.BAD_REQUEST
        response = problem_response(Problem(code, str(refusal or msg)))
        headers = [*self.server_state.default_headers, *response.raw_headers]
        for answer in (
            h11.Response(
                status_code=response.status_code, headers=[*headers, (b"connection", b"close")]
            ),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(answer))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.abort)

    @property
    def _is_answering(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    def _set_timer(self) -> None:
        """Limits the time until the next request's headers, or the rest of an answered one."""
        awaited = None if self._is_done or self._is_answering else self.conn.their_state
        if awaited is self._awaited:
            return
        self._awaited = awaited
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        settings = self._settings
        if awaited is h11.IDLE:
            self._timer = self.loop.call_later(settings.header_timeout_s, self.transport.abort)
        elif awaited is h11.SEND_BODY:
            self._timer = self.loop.call_later(settings.upload_timeout_s, self.transport.abort)
