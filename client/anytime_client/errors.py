"""Exceptions of the client.

    AnytimeError
    |-- FieldError                an argument is not what the protocol says
    |   `-- BudgetError           ... a limit of a budget
    |-- ImageError                the image cannot be sent
    |-- MissingArrayError         an update does not carry the requested array
    |-- ConnectError              the server could not be reached
    |   `-- ConnectionLostError   the connection ended before the request did
    |-- SilenceError              the server sent nothing for too long
    |-- RequestError              the server refused or failed the request, and says why
    `-- AnswerError               the server broke the protocol

A cancelled request is a result (`Reason.CANCELLED`), not an error.
"""

from __future__ import annotations

from anytime_protocol.enums import CloseCode, ErrorCode
from anytime_protocol.errors import AnytimeError, BudgetError, FieldError
from anytime_protocol.http.problems import Problem
from anytime_protocol.messages import Failed
from anytime_protocol.stream_answers import FrameFailure

__all__ = [
    "AnswerError",
    "AnytimeError",
    "BudgetError",
    "ConnectError",
    "ConnectionLostError",
    "FieldError",
    "ImageError",
    "MissingArrayError",
    "RequestError",
    "SilenceError",
]


class ImageError(AnytimeError):
    """An image is not a file, an array or a Pillow image that can be sent."""


class MissingArrayError(AnytimeError):
    """An update does not carry this array: it was not requested, or the model makes none.

    Attributes:
        name: of the array.
    """

    def __init__(self, name: str, cure: str) -> None:
        super().__init__(f"{name}: not in this update; {cure}")
        self.name = name


class ConnectError(AnytimeError):
    """No connection to the server.

    Attributes:
        url: that was tried.
    """

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"{url}: {why}")
        self.url = url


class ConnectionLostError(ConnectError):
    """The connection ended while a request ran; the server has cancelled it.

    Attributes:
        code: of the websocket's close frame; 1006 without one. None over HTTP.
    """

    def __init__(self, url: str, why: str, code: int | None) -> None:
        super().__init__(url, why)
        self.code = code

    @property
    def in_order(self) -> bool:
        """Whether the websocket was closed on purpose and for no fault."""
        return self.code in {CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.RESTART}


class SilenceError(AnytimeError):
    """The server sent nothing for longer than the client's `timeout_s`.

    Attributes:
        waited_s: how long, in seconds.
    """

    def __init__(self, waited_s: float) -> None:
        super().__init__(
            f"no message for {waited_s:g} s, so the request was given up; raise timeout_s to wait"
        )
        self.waited_s = waited_s


class RequestError(AnytimeError):
    """The server refused or failed the request.

    Attributes:
        code: why, for programs.
        detail: why, for people.
        field: the field or header at fault, if one is.
        retry_after_ms: when trying again makes sense, if it does.
        needed_ms: the deadline that would do as things stand, if one was too tight.
    """

    def __init__(
        self,
        code: ErrorCode,
        detail: str,
        field: str | None = None,
        retry_after_ms: float | None = None,
        needed_ms: float | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.field = field
        self.retry_after_ms = retry_after_ms
        self.needed_ms = needed_ms

    @property
    def status(self) -> int:
        """The HTTP status that goes with the code."""
        return self.code.status

    @classmethod
    def from_wire(cls, failure: Failed | Problem) -> RequestError:
        """The error that an `error` message or an HTTP problem stands for."""
        return cls(
            failure.code,
            failure.detail,
            failure.field,
            failure.retry_after_ms,
            failure.needed_ms,
        )

    @classmethod
    def of_frame(cls, failure: FrameFailure) -> RequestError:
        """The error of one frame of a stream."""
        return cls(
            failure.code,
            failure.detail,
            retry_after_ms=failure.retry_after_ms,
            needed_ms=failure.needed_ms,
        )


class AnswerError(AnytimeError):
    """The server sent something that the protocol does not allow."""
