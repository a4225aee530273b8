"""What runs inside Ray's proxy: notes when each request and each message came.

Ray passes on neither. Its proxy wraps its application in the middlewares of a function that an
environment variable of the node names (`CALLBACK`); ours notes the time of day in a header and in
websocket messages. Clocks of several machines differ, so that only a short while is believed.
"""

from __future__ import annotations

import time
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

_HEADER: Final = b"x-anytime-came"
_KEY: Final = "anytime_came"


def middlewares() -> list[Middleware]:
    """What Ray's proxy is to wrap its application in."""
    return [Middleware(ProxyTimes)]


class ProxyTimes:
    """An ASGI application around the proxy's that notes when requests and messages came.

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

        await self._app(scope, receive_noted, send)


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
