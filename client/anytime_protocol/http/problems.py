"""Errors over HTTP: problem details (RFC 9457) with the protocol's error codes."""

import math
from dataclasses import dataclass
from typing import Annotated, Final, Self

from pydantic import computed_field

from anytime_protocol.codec import load_json
from anytime_protocol.enums import ErrorCode
from anytime_protocol.validation import Absent, Amount, JsonValue, text

MEDIA_TYPE: Final = "application/problem+json"

# The problem type is this and the error code: a reference relative to the server.
TYPE_PREFIX: Final = "/problems/"


@dataclass(frozen=True, slots=True)
class Problem(JsonValue):
    """The body of a response that is an error.

    Attributes:
        code: what went wrong, for programs.
        detail: what was found, what was expected and the cure, for people.
        field: the field or header at fault, if one is.
        request_id: of the request, if it has one.
        retry_after_ms: when asking again makes sense, if it does; `Retry-After` has it in whole
            seconds, rounded up.
        needed_ms: the deadline that would do for exit 1 as things stand, if one was too tight.
    """

    code: ErrorCode
    detail: Annotated[str, text(4000)]
    field: Absent[Annotated[str, text(1024)]] = None
    request_id: Absent[Annotated[str, text(256)]] = None
    retry_after_ms: Absent[Amount] = None
    needed_ms: Absent[Amount] = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def type(self) -> str:
        """A reference to the problem type, relative to the server."""
        return TYPE_PREFIX + self.code

    @computed_field  # type: ignore[prop-decorator]
    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.code.status

    @computed_field  # type: ignore[prop-decorator]
    @property
    def title(self) -> str:
        """The same for every problem of this type."""
        return self.code.summary

    @property
    def retry_after(self) -> str | None:
        """The value of `Retry-After`: whole seconds, at least 1."""
        after_ms = self.retry_after_ms
        return None if after_ms is None else str(max(1, math.ceil(after_ms / 1000)))

    @classmethod
    def parse(cls, body: str) -> Self:
        """Reads a body; unknown members are passed over.

        Raises:
            FrameError: not a JSON object.
            FieldError: it is no problem of this protocol.
        """
        return cls.from_json(load_json(body), ignore_unknown=True)
