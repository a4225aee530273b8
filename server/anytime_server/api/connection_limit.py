"""The outermost middleware: limits connections, and notes when a request came.

It stands before the framework, because a deadline counts from the moment when the headers are in,
which is before routing; and because uvicorn's own limit of connections answers in plain text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from anytime_protocol.enums import ErrorCode
from anytime_protocol.http.problems import Problem
from anytime_server.api.problems import problem_response

_ARRIVAL: Final = "arrival_s"


class ConnectionLimitMiddleware:
    """An ASGI application around another, which refuses beyond a number of connections.

    Args:
        app: the other.
        clock: monotonic seconds.
        max_connections: TCP connections at a time.

    Attributes:
        connections: tells how many there are; by default none is counted.
    """

    def __init__(self, app: ASGIApp, clock: Callable[[], float], max_connections: int) -> None:
        self.connections: Callable[[], int] = lambda: 0
        self._app = app
        self._clock = clock
        self._most = max_connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        scope[_ARRIVAL] = self._clock()
        if scope["type"] == "http" and self.connections() > self._most:
            response = problem_response(
                Problem(
                    ErrorCode.OVERLOADED,
                    f"{self.connections()} connections are open, at most {self._most} are served",
                    retry_after_ms=1000.0,
                ),
                scope["path"],
            )
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def arrival_s(connection: HTTPConnection, clock: Callable[[], float]) -> float:
    """When a request's headers were in; now, if there was no middleware."""
    noted = connection.scope.get(_ARRIVAL)
    return noted if isinstance(noted, float) else clock()
