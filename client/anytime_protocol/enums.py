"""The enumerations of the protocol: why a request ended, how an array is written, what failed.

Each is a `StrEnum` or `IntEnum`, so that its members are their own wire form.
"""

from enum import IntEnum, StrEnum
from typing import Self

# The websocket subprotocol, and the name of this version of everything in this package.
PROTOCOL = "anytime.v1"


class Reason(StrEnum):
    """Why the network stopped where it stopped: the outcome of a `final` message.

    Attributes:
        COMPLETE: the last exit was reached.
        DEADLINE: the next exit would not have been ready in time.
        BUDGET: the next exit would have cost more, or lain deeper, than the budget allows.
        SATISFIED: the map is as confident as was asked.
        CANCELLED: the client did not want it any more.
        DRAINING: the server is shutting down and answered with what it had.
    """

    COMPLETE = "complete"
    DEADLINE = "deadline"
    BUDGET = "budget"
    SATISFIED = "satisfied"
    CANCELLED = "cancelled"
    DRAINING = "draining"


class CloseReason(StrEnum):
    """Why a stream ended: in its `closed` message.

    Attributes:
        CLOSED: the client has closed it, and all frames that it had sent were answered.
        CANCELLED: the client did not want it any more.
        DRAINING: the server is shutting down.
    """

    CLOSED = "closed"
    CANCELLED = "cancelled"
    DRAINING = "draining"


class Task(StrEnum):
    """What a model predicts."""

    SEGMENTATION = "segmentation"
    POSE = "pose"


class Encoding(StrEnum):
    """How an array is written into the payload.

    Attributes:
        PNG: a PNG file; for a class map an indexed one whose pixels are class ids.
        RAW: the array's bytes, C order, little-endian.
        RLE: JSON with one COCO run-length string per class.
        DELTA: the bytes that changed since the last update that was sent (see `delta`).
    """

    PNG = "png"
    RAW = "raw"
    RLE = "rle"
    DELTA = "delta"


class Compression(StrEnum):
    """What was done to a part's bytes after their encoding; for `raw` and `delta` only."""

    NONE = "none"
    ZLIB = "zlib"


class ArrayName(StrEnum):
    """What an array of an update shows.

    Attributes:
        MAP: class id per pixel, uint8 (H, W).
        CONFIDENCE: confidence per pixel, uint8 (H, W); 0 means 0.0 and 255 means 1.0.
        ACTIVE: 1 where the next stage would still compute, 0 where the pixel is settled, uint8
            (H, W).
        HEATMAPS: one plane per joint, (J, h, w), at the network's own resolution.
    """

    MAP = "map"
    CONFIDENCE = "confidence"
    ACTIVE = "active"
    HEATMAPS = "heatmaps"


class DType(StrEnum):
    """The element type of an array; several bytes are little-endian."""

    UINT8 = "uint8"
    FLOAT16 = "float16"
    FLOAT32 = "float32"

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return {DType.UINT8: 1, DType.FLOAT16: 2, DType.FLOAT32: 4}[self]


class Effect(StrEnum):
    """What became of a `budget` message.

    Attributes:
        APPLIED: it is the request's budget from now on.
        STALE: a budget with the same or a higher `rev` came first; nothing changed.
        GONE: no such request is running (it has ended, or never was); nothing changed.
        REJECTED: the budget is malformed; nothing changed, and `detail` says why.
    """

    APPLIED = "applied"
    STALE = "stale"
    GONE = "gone"
    REJECTED = "rejected"


class RequestState(StrEnum):
    """Where a request that came over HTTP stands.

    Attributes:
        FINISHED: it ended with a final message.
        FAILED: it ended with an error message.
    """

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


class ScheduleClock(StrEnum):
    """What the times of a server's schedule count from.

    Attributes:
        ELAPSED: the moment the budget was set.
        DAILY: local midnight; the last entry of a day holds until the first of the next.
    """

    ELAPSED = "elapsed"
    DAILY = "daily"


class ErrorCode(StrEnum):
    """What went wrong, in `error` messages and as the last part of an HTTP problem type.

    Attributes:
        status: of the HTTP response.
        summary: the title of the problem, for people.
    """

    status: int
    summary: str

    def __new__(cls, value: str, status: int, summary: str) -> Self:
        """Makes a member that has its status and summary beside it."""
        member = str.__new__(cls, value)
        member._value_, member.status, member.summary = value, status, summary
        return member

    BAD_REQUEST = "bad-request", 400, "The request is malformed"
    BAD_MESSAGE = "bad-message", 400, "The message is malformed"
    BAD_BUDGET = "bad-budget", 400, "The budget is malformed"
    UNAUTHORIZED = "unauthorized", 401, "A valid token is needed"
    FORBIDDEN = "forbidden", 403, "This origin or host is not allowed"
    UNKNOWN_MODEL = "unknown-model", 404, "There is no such model"
    UNKNOWN_REQUEST = "unknown-request", 404, "There is no such request"
    NOT_FOUND = "not-found", 404, "There is nothing here"
    METHOD_NOT_ALLOWED = "method-not-allowed", 405, "The method is not allowed here"
    NOT_ACCEPTABLE = "not-acceptable", 406, "None of the accepted types can be made"
    DUPLICATE_ID = "duplicate-id", 409, "A request with this id is not over yet"
    CANCELLED = "cancelled", 409, "The request was cancelled before its first exit"
    TOO_LARGE = "too-large", 413, "The body is too large"
    TOO_MANY_PIXELS = "too-many-pixels", 413, "The image has too many pixels"
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type", 415, "The media type is not supported"
    BAD_IMAGE = "bad-image", 422, "The image cannot be decoded"
    BUDGET_TOO_SMALL = "budget-too-small", 422, "The budget is below the cost of exit 1"
    UPGRADE_REQUIRED = "upgrade-required", 426, "This is a websocket"
    TOO_MANY_REQUESTS = "too-many-requests", 429, "This client has too many requests"
    HEADERS_TOO_LARGE = "headers-too-large", 431, "The headers are too large"
    INTERNAL = "internal", 500, "The server made a mistake"
    OVERLOADED = "overloaded", 503, "The server has no room"
    NOT_READY = "not-ready", 503, "The server is not ready yet"
    DRAINING = "draining", 503, "The server is shutting down"
    DEADLINE_EXCEEDED = "deadline-exceeded", 504, "Not even exit 1 could be ready in time"


class CloseCode(IntEnum):
    """Why a websocket is closed: RFC 6455 section 7.4.1, and private codes from 4400 on."""

    NORMAL = 1000
    GOING_AWAY = 1001
    BAD_FRAME = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_TEXT = 1007
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_MESSAGE = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    TIMEOUT = 4408
    DUPLICATE_ID = 4409
    TOO_MANY_IN_FLIGHT = 4429
