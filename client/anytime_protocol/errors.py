"""The errors of the protocol.

Each says what was found and what was expected and has, as attributes, what a program needs in order
to answer: the error code of the protocol and the close code of the websocket.

    ProtocolError
    |-- FieldError          a field of a message or a budget is not what the protocol says
    |   `-- BudgetError     ... in a budget
    |-- FrameError          the bytes are not a frame, or not JSON
    |-- PayloadError        a payload does not fit its description (size, delta, run lengths)
    |-- HeaderError         an HTTP header that must be understood is malformed
    `-- LocalProtocolError  this side tried to send something that the protocol forbids now
"""

from anytime_protocol.enums import CloseCode, ErrorCode


class AnytimeError(Exception):
    """Root of all errors of the protocol and of the clients that speak it."""


class ProtocolError(AnytimeError):
    """Root of all errors of this package.

    Attributes:
        code: what an `error` message or an HTTP problem says about it.
        close_code: what a websocket is closed with where it cannot go on.
    """

    code: ErrorCode = ErrorCode.BAD_MESSAGE
    close_code: CloseCode = CloseCode.BAD_MESSAGE


class FieldError(ProtocolError, ValueError):
    """A field is missing, unknown, of the wrong type or out of range.

    It is a `ValueError` too, so that a check inside a validator of pydantic may raise it.

    Attributes:
        field: path of the field, such as `budget.schedule[2].max_exit`.
        found: what was there, in words, shortened.
        expected: what may be there.
    """

    def __init__(self, field: str, found: str, expected: str) -> None:
        super().__init__(f"{field}: found {found}, expected {expected}")
        self.field = field
        self.found = found
        self.expected = expected


class BudgetError(FieldError):
    """A field of a budget is not what the protocol says."""

    code = ErrorCode.BAD_BUDGET


class FrameError(ProtocolError):
    """The bytes of a message cannot be taken apart.

    Attributes:
        close_code: 1007 for text that is not UTF-8, 1009 for too much of it, 1003 for an unknown
            kind of frame, 4400 otherwise.
    """

    def __init__(self, message: str, close_code: CloseCode = CloseCode.BAD_MESSAGE) -> None:
        super().__init__(message)
        self.close_code = close_code


class PayloadError(ProtocolError):
    """A payload does not fit the description that came with it."""


class HeaderError(ProtocolError):
    """An HTTP header that decides over the request is malformed.

    Attributes:
        header: name of the header.
        found: its value, shortened.
        expected: the form it should have.
    """

    code = ErrorCode.BAD_REQUEST

    def __init__(self, header: str, found: str, expected: str) -> None:
        super().__init__(f"{header}: found {shorten(found)!r}, expected {expected}")
        self.header = header
        self.found = found
        self.expected = expected


class LocalProtocolError(ProtocolError):
    """This side tried to send a message that is not allowed now; nothing was sent.

    It is a fault of the program that drives the session, never of the peer.
    """

    code = ErrorCode.INTERNAL
    close_code = CloseCode.INTERNAL


def shorten(text: str, limit: int = 60) -> str:
    """Cuts foreign text to `limit` characters, so that an error never repeats megabytes."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def describe(value: object) -> str:
    """Names a JSON value in a few words, for an error message."""
    match value:
        case None:
            words = "null"
        case bool():
            words = f"the boolean {str(value).lower()}"
        case int() if value.bit_length() > 64:
            words = "a gigantic whole number"
        case int() | float():
            words = f"the number {value}"
        case str():
            words = f"the text {shorten(value)!r}"
        case bytes():
            words = f"{len(value)} bytes"
        case dict():
            words = "an object"
        case list() | tuple():
            words = f"a list of {len(value)}"
        case _:
            words = f"a {type(value).__name__}"
    return words
