"""Reading the bodies of requests within bounds."""

from __future__ import annotations

import asyncio

from fastapi import Request

from anytime_protocol.enums import ErrorCode
from anytime_protocol.http.problems import Problem
from anytime_server.api.uploads import Upload
from anytime_server.errors import RefusedError


async def read_bounded(
    request: Request, limit: int, timeout_s: float, upload: Upload, overhead: int = 0
) -> bytes:
    """A request's body; one whose header tells that it is too large is refused unread.

    Args:
        request: whose body.
        limit: in bytes, that the client is told of.
        timeout_s: until it must be in.
        upload: holds it.
        overhead: bytes that it may have beside.

    Raises:
        RefusedError: too large or too slow, or too much is under way.
        ClientDisconnect: the client has left.
    """
    most = limit + overhead
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                upload.reserve(len(body))
                if len(body) > most:
                    raise too_large(limit)
    except TimeoutError:
        text = f"the body did not arrive within {timeout_s:g} s"
        raise RefusedError(Problem(ErrorCode.BAD_REQUEST, text)) from None
    return bytes(body)


def too_large(limit: int) -> RefusedError:
    """The refusal of a body of more than `limit` bytes."""
    text = f"the body has more than {limit} bytes, which is the limit: send a smaller one"
    return RefusedError(Problem(ErrorCode.TOO_LARGE, text))
