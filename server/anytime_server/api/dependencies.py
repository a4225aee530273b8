"""What every route needs of the application: its service, and whether the client may ask."""

from __future__ import annotations

from fastapi import Request

from anytime_protocol.enums import ErrorCode
from anytime_protocol.http.problems import Problem
from anytime_server.engine.service import RefusedError, Service


def service_of(request: Request) -> Service:
    """The application's service."""
    service = request.app.state.service
    if not isinstance(service, Service):
        raise TypeError("the application was not made by create_app")
    return service


async def require_token(request: Request) -> None:
    """Lets a request pass if it carries the token, where there is one.

    Raises:
        RefusedError: it does not.
    """
    _check(request, operator=False)


async def require_operator(request: Request) -> None:
    """Lets a request pass if it may change the server's budget.

    Raises:
        RefusedError: it may not.
    """
    _check(request, operator=True)


def _check(request: Request, *, operator: bool) -> None:
    if not service_of(request).access.knows(request.headers.items(), operator=operator):
        text = "expected `Authorization: Bearer TOKEN` with this server's token"
        raise RefusedError(Problem(ErrorCode.UNAUTHORIZED, text, "Authorization"))
