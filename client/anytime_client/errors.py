"""What can go wrong for a caller of the client.

Decides which faults are told apart: the caller's image, the way to the server, the server's
refusal, and a server that does not keep to the protocol. A cancelled request is no fault.

    AnytimeError
    |-- ImageError                the image cannot be sent
    |-- MissingArrayError         an update does not carry the array that was asked of it
    |-- ConnectError              the server could not be reached
    |   `-- ConnectionLostError   the connection ended before the request did
    |-- SilenceError              the server was silent for too long
    |-- RequestError              the server said no, and why
    `-- AnswerError               the server broke the protocol
"""

from __future__ import annotations

from anytime_protocol.enums import ErrorCode
from anytime_protocol.http.problems import CATALOGUE, Problem
from anytime_protocol.messages import Failed


class AnytimeError(Exception):
    """Root of all errors of this package."""


class ImageError(AnytimeError):
    """An image is not a file, array or picture that can be sent."""


class MissingArrayError(AnytimeError):
    """An update does not carry this array: it was not asked for, or the model makes none.

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


class SilenceError(AnytimeError):
    """The server said nothing for longer than the client was told to wait.

    Attributes:
        waited_s: how long.
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
        retry_after_ms: when asking again makes sense, if it does.
    """

    def __init__(
        self,
        code: ErrorCode,
        detail: str,
        field: str | None = None,
        retry_after_ms: float | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.field = field
        self.retry_after_ms = retry_after_ms

    @property
    def status(self) -> int:
        """The HTTP status that goes with the code."""
        return CATALOGUE[self.code][0]

    @classmethod
    def of(cls, answer: Failed | Problem) -> RequestError:
        """The error that an `error` message or a problem stands for."""
        return cls(answer.code, answer.detail, answer.field, answer.retry_after_ms)


class AnswerError(AnytimeError):
    """The server sent something that the protocol does not allow."""
