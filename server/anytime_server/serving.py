"""Running the application under uvicorn, and ending it gracefully.

On the first SIGTERM, SIGHUP or Ctrl-C nothing more is admitted, active requests are answered with
what they have by the end of their next stage, and only then are the sockets closed: uvicorn by
itself would close websockets first. At a second signal requests are answered without waiting for
anything, and a third ends at once. Either way the exit status is 0.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from functools import partial
from types import FrameType
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

from anytime_protocol.codec import FrameLimits
from anytime_server.api.state import ApiState
from anytime_server.errors import ExecutorStartError
from anytime_server.settings import Settings
from anytime_server.transport.http import HttpConnection
from anytime_server.transport.places import Places
from anytime_server.transport.websocket import WebsocketTransport

logger = logging.getLogger(__name__)

_MOST_SIGNALS: Final = 2
"""After so many that tell it to end, the server ends without answering anybody."""

_FLUSH_S: Final = 0.2
"""Between the last answer and the closing of sockets, so that writers can write it."""


def uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Uvicorn's settings; what it logs goes to our log."""
    limits = settings.limits
    state: ApiState = app.state.api
    frame_bytes = FrameLimits(limits.max_json_bytes, limits.max_payload_bytes).frame_bytes
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        log_level=settings.log_level,
        access_log=settings.log_level == "debug",
        server_header=False,
        headers=[("X-Content-Type-Options", "nosniff")],
        http=partial(  # type: ignore[arg-type]  # uvicorn calls it, and does nothing else with it
            HttpConnection, settings=settings, places=Places(settings.max_connections)
        ),
        ws=partial(  # type: ignore[arg-type]  # the same
            WebsocketTransport, settings=settings, uploads=state.uploads
        ),
        ws_max_size=frame_bytes,
        ws_per_message_deflate=False,
        ws_ping_interval=settings.ping_interval_s,
        ws_ping_timeout=settings.ping_interval_s,
        timeout_graceful_shutdown=max(round(settings.send_timeout_s), 1),
    )


class Server(uvicorn.Server):
    """Uvicorn with a drain before its shutdown.

    Args:
        config: see `uvicorn_config`.
        state: of the application, whose engine is drained.
    """

    def __init__(self, config: uvicorn.Config, state: ApiState) -> None:
        super().__init__(config)
        self.failure: Exception | None = None
        self._state = state
        self._signals = 0
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[Any] | None = None) -> None:
        """See uvicorn."""
        self._loop = asyncio.get_running_loop()
        self._drain_on_hangup()
        watch = asyncio.create_task(self._watch_start())
        try:
            await super().serve(sockets)
        finally:
            watch.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Begins to drain; the second time, hurries; the third time, ends at once."""
        self._signals += 1
        if self._signals > _MOST_SIGNALS or self._loop is None:
            self.should_exit = self.force_exit = True
            return
        self._loop.call_soon_threadsafe(self._begin_drain)

    def _drain_on_hangup(self) -> None:
        """Has a closed terminal end the server as SIGTERM does, unless `nohup` is in force."""
        hangup = getattr(signal, "SIGHUP", None)
        is_main = threading.current_thread() is threading.main_thread()
        if hangup is not None and is_main and signal.getsignal(hangup) is signal.SIG_DFL:
            signal.signal(hangup, self.handle_exit)

    def _begin_drain(self) -> None:
        if self._draining is None:
            self._draining = asyncio.ensure_future(self._drain())
        elif self._signals > 1:
            self._state.engine.end_all()

    async def _drain(self) -> None:
        logger.info("draining: no more requests are admitted")
        await self._state.engine.drain()
        self._state.shutting_down.set()
        await asyncio.sleep(_FLUSH_S)
        self.should_exit = True

    async def _watch_start(self) -> None:
        """Ends a server whose models cannot be loaded."""
        while not self.started:
            await asyncio.sleep(0.01)
        try:
            await self._state.engine.wait_ready()
        except Exception as error:
            if not isinstance(error, ExecutorStartError):
                logger.exception("the server cannot start")
            self.failure = error
            self.should_exit = True
            return
        logger.info("ready")
