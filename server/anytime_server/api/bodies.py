"""Reading the bodies of requests within bounds."""

from __future__ import annotations

import asyncio

from fastapi import Request

from anytime_protocol.enums import ErrorCode
from anytime_protocol.http.problems import Problem
from anytime_server.api.uploads import Upload
from anytime_server.errors import RefusedError


async def read_bounded(request: Request, max_bytes: int, timeout_s: float, upload: Upload) -> bytes:
    """A request's body.

    Args:
        request: whose body.
        max_bytes: that it may have.
        timeout_s: until it must be in.
        upload: holds it.

    Raises:
        RefusedError: too large or too slow, or too much is under way.
        ClientDisconnect: the client has left.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                upload.hold(len(body))
                if len(body) > max_bytes:
                    raise too_large(max_bytes)
    except TimeoutError:
        text = f"the body did not arrive within {timeout_s:g} s"
        raise RefusedError(Problem(ErrorCode.BAD_REQUEST, text)) from None
    return bytes(body)


def too_large(limit: int) -> RefusedError:
    """The refusal of a body of more than `limit` bytes."""
    text = f"the body has more than {limit} bytes, which is the limit: send a smaller one"
    return RefusedError(Problem(ErrorCode.TOO_LARGE, text))


def check_length(request: Request, limit: int, overhead: int) -> None:
    """Refuses a body before it is read, where its header tells that it is too large.

    Args:
        request: whose body.
        limit: in bytes, that the client is told of.
        overhead: bytes that it may have beside.

    Raises:
        RefusedError: it is too large.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit + overhead:
        raise too_large(limit)
