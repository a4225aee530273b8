"""What comes before routing: the moment of arrival, and who is turned away whatever they ask.

A deadline counts from the moment when the headers are in. A connection beyond the limit is refused
here, because uvicorn's own limit answers in plain text, and those inside it, too. A foreign host or
page is refused for every path and every method that changes something.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from anytime_protocol.enums import ErrorCode
from anytime_protocol.http.problems import Problem
from anytime_server.api.access import Access
from anytime_server.api.problems import problem_response

if TYPE_CHECKING:  # it only looks at it
    from anytime_server.transport.places import Place

PLACE: Final = "place"
"""Key of `scope["state"]`: the place of the connection, where connections are counted."""

SPENT_S: Final = "spent_s"
"""Key of `scope["state"]` and of a websocket message: seconds spent on the way here, if told."""

_ARRIVAL: Final = "arrival_s"

_HEALTH: Final = frozenset({"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"})
"""Paths that are answered to everybody, so that nobody takes a full server for dead."""

_HARMLESS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class RequestChecks:
    """An ASGI application around another.

    Args:
        app: the other.
        access: who may ask.
        clock: monotonic seconds.
    """

    def __init__(self, app: ASGIApp, access: Access, clock: Callable[[], float]) -> None:
        self._app = app
        self._access = access
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        scope[_ARRIVAL] = self._clock() - scope.get("state", {}).get(SPENT_S, 0.0)
        problem = None if scope["path"] in _HEALTH else self._refusal(scope)
        if problem is None:
            await self._app(scope, receive, send)
            return
        response = problem_response(problem, scope["path"])
        if problem.code is ErrorCode.OVERLOADED:
            response.headers["Connection"] = "close"
        await response(scope, receive, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        """Why a request is refused, or None."""
        place: Place | None = scope.get("state", {}).get(PLACE)
        if place is not None and not place.is_inside:
            text = "more connections are open than are served at a time"
            return Problem(ErrorCode.OVERLOADED, text, retry_after_ms=1000.0)
        lines = Headers(scope=scope).items()
        if not self._access.is_host_allowed(lines):
            text = (
                "found another host, expected localhost, as the server is on loopback and has no "
                "token: set ANYTIME_TOKEN, or name the origin in ANYTIME_ORIGINS"
            )
            return Problem(ErrorCode.FORBIDDEN, text, "Host")
        changes = scope["type"] == "websocket" or scope["method"] not in _HARMLESS
        if changes and not self._access.is_origin_allowed(lines):
            text = "pages of this origin may not do this here; ANYTIME_ORIGINS names those that may"
            return Problem(ErrorCode.FORBIDDEN, text, "Origin")
        return None


def arrival_s(connection: HTTPConnection, clock: Callable[[], float]) -> float:
    """When a request's headers were in; now, if there was no middleware."""
    noted = connection.scope.get(_ARRIVAL)
    return noted if isinstance(noted, float) else clock()
