"""Errors over HTTP: every one is a problem (RFC 9457), whoever raised it.

Below `/v2` it has the form of the Open Inference Protocol, with the same statuses and headers.

A problem that is known before the body is read does not close the connection: a client that is
still sending would see a reset in place of the answer. What it sends is thrown away unread.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Match

from anytime_protocol.enums import ErrorCode
from anytime_protocol.errors import FieldError, HeaderError, ProtocolError
from anytime_protocol.http import headers
from anytime_protocol.http.problems import MEDIA_TYPE, Problem
from anytime_protocol.validation import ID_FORM
from anytime_server.errors import RefusedError

_OPEN_INFERENCE: Final = "/v2/"

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

_BY_STATUS: Final = {
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    413: ErrorCode.TOO_LARGE,
}


def problem_response(problem: Problem, path: str = "") -> Response:
    """A problem as a response.

    Args:
        problem: see there.
        path: of the request, which decides over the form.
    """
    lines = {"Cache-Control": "no-store"}
    if problem.request_id is not None:
        lines[headers.REQUEST_ID] = problem.request_id
    if problem.retry_after is not None:
        lines["Retry-After"] = problem.retry_after
    if problem.code is ErrorCode.UNAUTHORIZED:
        lines["WWW-Authenticate"] = "Bearer"
    if problem.code is ErrorCode.UPGRADE_REQUIRED:
        lines |= {"Upgrade": "websocket", "Connection": "Upgrade"}
    if f"{path}/".startswith(_OPEN_INFERENCE):
        text = f"{problem.title}: {problem.detail}"
        return JSONResponse({"error": text}, problem.status, lines)
    return JSONResponse(problem.to_json(), problem.status, lines, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Has an application answer all errors with problems."""

    async def answer(request: Request, error: Exception) -> Response:
        problem = _problem_of(request, error)
        response = problem_response(
            replace(problem, request_id=problem.request_id or _known_id(request)),
            request.url.path,
        )
        if isinstance(error, HTTPException):
            response.headers.update(error.headers or {})
            if error.status_code == 405:
                response.headers["Allow"] = ", ".join(_methods_of(request))
        return response

    for kind in (RefusedError, ProtocolError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)


def _problem_of(request: Request, error: Exception) -> Problem:
    match error:
        case RefusedError(problem=problem):
            return problem
        case FieldError(field=field):
            return Problem(error.code, str(error), field)
        case HeaderError(header=header):
            return Problem(error.code, str(error), header)
        case ProtocolError():
            return Problem(error.code, str(error))
        case HTTPException(status_code=status, detail=detail):
            code = _BY_STATUS.get(status, ErrorCode.BAD_REQUEST)
            return Problem(code, f"{request.method} {request.url.path}: {detail}")
        case _:
            return Problem(ErrorCode.INTERNAL, "see the server's log")


def _methods_of(request: Request) -> list[str]:
    """What a path can be asked for; the framework names the methods of one of its routes."""
    return [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


def _known_id(request: Request) -> str | None:
    """The id that a client gave its request, if it may be one."""
    found = request.headers.get(headers.REQUEST_ID)
    return found if found is not None and ID_FORM.fullmatch(found) else None
