"""Reading a small JSON body, strictly and within bounds."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from anytime_protocol.codec import load_json
from anytime_protocol.enums import ErrorCode
from anytime_protocol.errors import FrameError
from anytime_protocol.http.problems import Problem
from anytime_protocol.json_reader import JsonObject
from anytime_server.engine.service import RefusedError
from anytime_server.settings import Settings


async def read_json(request: Request, settings: Settings) -> JsonObject:
    """The JSON object that a body is.

    Raises:
        FrameError: not JSON, or not an object.
        RefusedError: too large or too slow.
    """
    limit = settings.max_json_bytes
    body = bytearray()
    try:
        async with asyncio.timeout(settings.upload_timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    text = f"the JSON has more than {limit} bytes, which is the limit"
                    raise RefusedError(Problem(ErrorCode.TOO_LARGE, text))
    except TimeoutError:
        text = f"the body did not arrive within {settings.upload_timeout_s:g} s"
        raise RefusedError(Problem(ErrorCode.BAD_REQUEST, text)) from None
    try:
        return load_json(body.decode())
    except UnicodeDecodeError as error:
        raise FrameError("JSON: not UTF-8") from error
