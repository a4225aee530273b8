"""What runs inside Ray's proxy: notes when each message came, and cleans up what Ray leaves.

Ray's proxy passes on neither the moment of a request nor one of a websocket message. An ASGI
middleware of ours notes both, which Ray loads where `PROXY_CALLBACK` names `middlewares`. Clocks of
several machines differ, so that what is noted is a time of day, and only a short while is believed.
"""

from __future__ import annotations

import time
from typing import Final

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PROXY_CALLBACK: Final = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
"""Environment variable of Ray's nodes that names a function of middlewares."""

CALLBACK: Final = "anytime_server.ray_serve.proxy.middlewares"
"""Its value."""

CAME: Final = "anytime_came_s"
"""Key of a message, and of `scope["state"]`: seconds of Unix time when the proxy had it."""

MOST_S: Final = 10.0
"""Longest time between proxy and replica that is believed."""

_HEADER: Final = b"x-anytime-came"
_REQUEST_ID: Final = b"x-request-id"


def middlewares() -> list[Middleware]:
    """What Ray's proxy is to wrap its application in."""
    return [Middleware(ProxyTimes)]


def spent_s(came_s: object, now_s: float) -> float:
    """Seconds between proxy and replica; 0 where it is not known or cannot be.

    Args:
        came_s: what the proxy noted, if it did.
        now_s: seconds of Unix time.
    """
    if not isinstance(came_s, float) or not 0.0 <= now_s - came_s <= MOST_S:
        return 0.0
    return now_s - came_s


def take_came_s(scope: Scope) -> float | None:
    """What the proxy noted of a request, taken out of its headers; None if it did not."""
    values = [value for name, value in scope["headers"] if name == _HEADER]
    if not values:
        return None
    scope["headers"] = [line for line in scope["headers"] if line[0] != _HEADER]
    try:
        return float(values[-1])
    except ValueError:
        return None


class ProxyTimes:
    """An ASGI application around the proxy's: notes times, and sends one request id.

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
        came = [line for line in scope["headers"] if line[0] != _HEADER]
        noted = (_HEADER, repr(time.time()).encode())
        scope = {**scope, "headers": [*came, noted]}

        async def receive_noted() -> Message:
            message = await receive()
            if message["type"] == "websocket.receive":
                message[CAME] = time.time()
            return message

        await self._app(scope, receive_noted, send)
