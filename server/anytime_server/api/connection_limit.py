"""The outermost middleware: limits connections, and notes when a request came.

It stands before the framework, because a deadline counts from the moment when the headers are in,
which is before routing; and because uvicorn's own limit of connections answers in plain text, and
those inside it, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from anytime_protocol.enums import ErrorCode
from anytime_protocol.http.problems import Problem
from anytime_server.api.problems import problem_response

if TYPE_CHECKING:  # it only looks at it
    from anytime_server.transport.places import Place

PLACE: Final = "place"
"""Key of `scope["state"]`: the place of the connection, where connections are counted."""

_ARRIVAL: Final = "arrival_s"

_HEALTH: Final = frozenset({"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"})
"""Paths that are answered beyond the limit as well, so that nobody takes a full server for dead."""


class ConnectionLimitMiddleware:
    """An ASGI application around another, which refuses beyond a number of connections.

    Args:
        app: the other.
        clock: monotonic seconds.
    """

    def __init__(self, app: ASGIApp, clock: Callable[[], float]) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        scope[_ARRIVAL] = self._clock()
        place: Place | None = scope.get("state", {}).get(PLACE)
        if place is None or place.is_inside or scope["path"] in _HEALTH:
            await self._app(scope, receive, send)
            return
        text = "more connections are open than are served at a time"
        problem = Problem(ErrorCode.OVERLOADED, text, retry_after_ms=1000.0)
        response = problem_response(problem, scope["path"])
        response.headers["Connection"] = "close"
        await response(scope, receive, send)


def arrival_s(connection: HTTPConnection, clock: Callable[[], float]) -> float:
    """When a request's headers were in; now, if there was no middleware."""
    noted = connection.scope.get(_ARRIVAL)
    return noted if isinstance(noted, float) else clock()
