"""What runs inside Ray's proxy: notes when a request and its messages came, and sends bodies along.

Ray passes on no times. Its proxy wraps its application in the middlewares of a function that an
environment variable of the node names (`CALLBACK`); ours notes the time of day in a header and in
websocket messages. Clocks of several machines differ, so that only a short while is believed.

A replica of Ray's fetches the body of a request from the proxy by calls, which take longer than all
the rest of its way. So what has come of a body goes with the request, in its scope. Ray's calls
deliver it again, as other applications behind the same proxy know nothing of this.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import MutableMapping
from typing import Any, Final

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CALLBACK: Final = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "anytime_server.ray_serve.proxy.middlewares"
}
"""Environment of Ray's nodes that has the proxy call `middlewares`."""

MOST_S: Final = 10.0
"""Longest time between proxy and replica that is believed."""

_AHEAD_S: Final = 0.01
"""Longest wait for a body that goes with its request."""

_HEADER: Final = b"x-anytime-came"
_KEY: Final = "anytime_came"
_BODY: Final = "anytime_body"


def middlewares() -> list[Middleware]:
    """What Ray's proxy is to wrap its application in."""
    return [Middleware(ProxyNotes)]


class ProxyNotes:
    """An ASGI application around the proxy's that notes times and bodies for a replica.

    Args:
        app: the proxy's.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        others = [line for line in scope["headers"] if line[0] != _HEADER]  # a client's own
        scope = {**scope, "headers": [*others, (_HEADER, repr(time.time()).encode())]}

        async def receive_noted() -> Message:
            message = await receive()
            if message["type"] == "websocket.receive":
                message[_KEY] = time.time()
            return message

        if scope["type"] == "websocket":
            await self._app(scope, receive_noted, send)
            return
        ahead = _Ahead(receive)
        try:
            scope[_BODY] = await ahead.look()
            await self._app(scope, ahead, send)
        finally:
            ahead.close()


class _Ahead:
    """Receives messages that were looked at before, then what follows."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._looked_at: deque[asyncio.Future[Message]] = deque()

    async def look(self) -> list[Message]:
        """The messages of a body that come at once."""
        loop, came = asyncio.get_running_loop(), list[Message]()
        until_s = loop.time() + _AHEAD_S
        while not came or came[-1].get("more_body"):
            coming = asyncio.ensure_future(self._receive())
            self._looked_at.append(coming)
            await asyncio.wait([coming], timeout=until_s - loop.time())
            if not coming.done() or coming.result()["type"] != "http.request":
                break
            came.append(coming.result())
        return came

    async def __call__(self) -> Message:
        """See ASGI."""
        return await (self._looked_at.popleft() if self._looked_at else self._receive())

    def close(self) -> None:
        """Nobody receives any more."""
        for coming in self._looked_at:
            coming.cancel()


class BodyFirst:
    """Receives what came of a body with its request, and then what Ray delivers beyond that.

    Args:
        scope: of the request; what came is taken out of it.
        receive: Ray's.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._came: deque[Message] = deque(scope.pop(_BODY, ()))
        self._repeated = len(self._came)
        self._receive = receive

    async def __call__(self) -> Message:
        """See ASGI."""
        if self._came:
            return self._came.popleft()
        message = await self._receive()
        while self._repeated and message["type"] == "http.request":
            self._repeated -= 1
            message = await self._receive()
        return message


def spent_before(scope: Scope, now_s: float) -> float:
    """Seconds that a request spent between proxy and replica; takes the note out of its headers.

    Args:
        scope: of the request; changed.
        now_s: seconds of Unix time.
    """
    noted = [value for name, value in scope["headers"] if name == _HEADER]
    if not noted:
        return 0.0
    scope["headers"] = [line for line in scope["headers"] if line[0] != _HEADER]
    try:
        return _believed(now_s - float(noted[-1]))
    except ValueError:
        return 0.0


def message_spent(message: MutableMapping[str, Any], now_s: float) -> float:
    """The same of a websocket message; takes the note out of it."""
    noted = message.pop(_KEY, None)
    return _believed(now_s - noted) if isinstance(noted, float) else 0.0


def _believed(spent_s: float) -> float:
    return spent_s if 0.0 <= spent_s <= MOST_S else 0.0
