"""JSON bodies of requests: read strictly and within bounds, into the protocol's classes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request

from anytime_protocol.codec import load_json
from anytime_protocol.errors import FrameError
from anytime_protocol.validation import JsonValue, adapter_of
from anytime_server.api.bodies import read_bounded
from anytime_server.api.state import state_of

_Body = TypeVar("_Body", bound=JsonValue)


def json_body(kind: type[_Body]) -> Callable[[Request], Awaitable[_Body]]:
    """A dependency that reads the body as a class of the protocol.

    FastAPI's own reading has no bound, passes over repeated keys and takes NaN for a number.

    Args:
        kind: the class.
    """

    async def read(request: Request) -> _Body:
        state = state_of(request)
        limit, timeout_s = state.settings.max_json_bytes, state.settings.upload_timeout_s
        with state.uploads.begin() as upload:
            body = await read_bounded(request, limit, timeout_s, upload)
        try:
            return kind.from_json(load_json(body.decode()))
        except UnicodeDecodeError as error:
            raise FrameError("JSON: not UTF-8") from error

    return read


def schema_of(kind: type[JsonValue]) -> dict[str, Any]:
    """The JSON schema of a class, whole in itself, so that it can stand inside another document."""
    schema = adapter_of(kind).json_schema()
    definitions = schema.pop("$defs", {})

    def inlined(node: Any) -> Any:
        match node:
            case {"$ref": str(reference), **rest}:
                return inlined(definitions[reference.rpartition("/")[2]]) | inlined(rest)
            case dict():
                return {key: inlined(value) for key, value in node.items()}
            case list():
                return [inlined(value) for value in node]
            case _:
                return node

    whole: dict[str, Any] = inlined(schema)
    return whole


def body_schema(kind: type[JsonValue]) -> dict[str, Any]:
    """The OpenAPI description of such a body, made from its type."""
    content = {"application/json": {"schema": schema_of(kind)}}
    return {"requestBody": {"required": True, "content": content}}
