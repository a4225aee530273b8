"""Errors over HTTP: every one is a problem (RFC 9457), whoever raised it.

Decides how this server's and the framework's exceptions become `application/problem+json`. Does not
decide what is an error, nor which code it has.

A problem that is known before the body is read does not close the connection: a client that is
still sending would see a reset in place of the answer. What it sends is thrown away unread.
"""

from __future__ import annotations

from dataclasses import replace

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from anytime_protocol.enums import ErrorCode
from anytime_protocol.errors import FieldError, HeaderError, ProtocolError
from anytime_protocol.http import headers
from anytime_protocol.http.problems import MEDIA_TYPE, Problem
from anytime_protocol.json_reader import ID_FORM
from anytime_server.engine.service import RefusedError

_BY_STATUS = {
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    413: ErrorCode.TOO_LARGE,
}


def problem_response(problem: Problem) -> Response:
    """A problem as a response."""
    lines = {"Cache-Control": "no-store"}
    if problem.request_id is not None:
        lines[headers.REQUEST_ID] = problem.request_id
    if problem.retry_after is not None:
        lines["Retry-After"] = problem.retry_after
    if problem.code is ErrorCode.UNAUTHORIZED:
        lines["WWW-Authenticate"] = "Bearer"
    return JSONResponse(problem.to_json(), problem.status, lines, MEDIA_TYPE)


def problem_of(error: ProtocolError) -> Problem:
    """What is wrong with what a client said."""
    field = None
    if isinstance(error, FieldError):
        field = error.field
    elif isinstance(error, HeaderError):
        field = error.header
    return Problem(error.code, str(error), field)


def known_id(request: Request) -> str | None:
    """The id that a client gave its request, if it may be one."""
    found = request.headers.get(headers.REQUEST_ID)
    return found if found is not None and ID_FORM.fullmatch(found) else None


def install(app: FastAPI) -> None:
    """Has an application answer all errors with problems."""

    def answer(request: Request, problem: Problem) -> Response:
        return problem_response(
            replace(problem, request_id=problem.request_id or known_id(request))
        )

    async def refused(request: Request, error: Exception) -> Response:
        if not isinstance(error, RefusedError):
            raise error
        return answer(request, error.problem)

    async def malformed(request: Request, error: Exception) -> Response:
        if not isinstance(error, ProtocolError):
            raise error
        return answer(request, problem_of(error))

    async def framework(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        code = _BY_STATUS.get(error.status_code, ErrorCode.BAD_REQUEST)
        response = answer(
            request, Problem(code, f"{request.method} {request.url.path}: {error.detail}")
        )
        response.headers.update(error.headers or {})
        return response

    async def mistake(request: Request, error: Exception) -> Response:  # noqa: ARG001
        return answer(request, Problem(ErrorCode.INTERNAL, "see the server's log"))

    app.add_exception_handler(RefusedError, refused)
    app.add_exception_handler(ProtocolError, malformed)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(Exception, mistake)
