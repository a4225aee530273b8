"""Errors over HTTP: problem details (RFC 9457) with the protocol's error codes.

Decides which status and title each error code has, and the form of the body. Does not know which
request failed, nor how a response is sent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Self

from anytime_protocol.codec import load_json
from anytime_protocol.enums import ErrorCode
from anytime_protocol.errors import shorten
from anytime_protocol.json_reader import JsonObject, JsonReader

MEDIA_TYPE: Final = "application/problem+json"

TYPE_PREFIX: Final = "/problems/"
"""The problem type is this and the error code: a reference relative to the server."""

CATALOGUE: Final[dict[ErrorCode, tuple[int, str]]] = {
    ErrorCode.BAD_REQUEST: (400, "The request is malformed"),
    ErrorCode.BAD_MESSAGE: (400, "The message is malformed"),
    ErrorCode.BAD_BUDGET: (400, "The budget is malformed"),
    ErrorCode.UNAUTHORIZED: (401, "A valid token is needed"),
    ErrorCode.FORBIDDEN: (403, "This origin is not allowed"),
    ErrorCode.UNKNOWN_MODEL: (404, "There is no such model"),
    ErrorCode.UNKNOWN_REQUEST: (404, "There is no such request"),
    ErrorCode.NOT_FOUND: (404, "There is nothing here"),
    ErrorCode.METHOD_NOT_ALLOWED: (405, "The method is not allowed here"),
    ErrorCode.NOT_ACCEPTABLE: (406, "None of the accepted types can be made"),
    ErrorCode.DUPLICATE_ID: (409, "A request with this id is not over yet"),
    ErrorCode.CANCELLED: (409, "The request was cancelled before its first exit"),
    ErrorCode.TOO_LARGE: (413, "The body is too large"),
    ErrorCode.TOO_MANY_PIXELS: (413, "The image has too many pixels"),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: (415, "The media type is not supported"),
    ErrorCode.BAD_IMAGE: (422, "The image cannot be decoded"),
    ErrorCode.BUDGET_TOO_SMALL: (422, "The budget is below the cost of exit 1"),
    ErrorCode.TOO_MANY_REQUESTS: (429, "This client has too many requests"),
    ErrorCode.INTERNAL: (500, "The server made a mistake"),
    ErrorCode.OVERLOADED: (503, "The server has no room"),
    ErrorCode.NOT_READY: (503, "The server is not ready yet"),
    ErrorCode.DRAINING: (503, "The server is shutting down"),
    ErrorCode.DEADLINE_EXCEEDED: (504, "Not even exit 1 could be ready in time"),
}
"""Status and title of each error code."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The body of a response that is an error.

    Attributes:
        code: what went wrong, for programs.
        detail: what was found, what was expected and the cure, for people.
        field: the field or header at fault, if one is.
        request_id: of the request, if it has one.
        retry_after_ms: when asking again makes sense, if it does; `Retry-After` has it in whole
            seconds, rounded up.
    """

    code: ErrorCode
    detail: str
    field: str | None = None
    request_id: str | None = None
    retry_after_ms: float | None = None

    @property
    def status(self) -> int:
        """The HTTP status."""
        return CATALOGUE[self.code][0]

    @property
    def title(self) -> str:
        """The same for every problem of this type."""
        return CATALOGUE[self.code][1]

    @property
    def retry_after(self) -> str | None:
        """The value of `Retry-After`: whole seconds, at least 1."""
        if self.retry_after_ms is None:
            return None
        return str(max(1, math.ceil(self.retry_after_ms / 1000)))

    @classmethod
    def parse(cls, body: str) -> Self:
        """Reads a body; unknown members are passed over.

        Raises:
            FrameError: not a JSON object.
            FieldError: it is no problem of this protocol.
        """
        fields = JsonReader(load_json(body))
        return cls(
            code=fields.word("code", ErrorCode),
            detail=fields.text("detail", 4000),
            field=fields.text("field", 1024) if fields.has("field") else None,
            request_id=fields.text("request_id", 256) if fields.has("request_id") else None,
            retry_after_ms=fields.number("retry_after_ms")
            if fields.has("retry_after_ms")
            else None,
        )

    def to_json(self) -> JsonObject:
        """The body."""
        wire: JsonObject = {
            "type": TYPE_PREFIX + self.code,
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": shorten(self.detail, 2000),
        }
        if self.field is not None:
            wire["field"] = shorten(self.field, 512)
        if self.request_id is not None:
            wire["request_id"] = self.request_id
        if self.retry_after_ms is not None:
            wire["retry_after_ms"] = round(self.retry_after_ms, 3)
        return wire
