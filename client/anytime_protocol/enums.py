"""The closed lists of words that both sides of the wire use.

Decides which words exist: why a request ended, how an array is written, what can go wrong. It
does not know how a message is laid out (`messages`), nor when a word may be said (`session`).
Every enumeration is a `StrEnum` or `IntEnum`, so that its members are their own wire form.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

PROTOCOL = "anytime.v1"
"""The websocket subprotocol, and the name of this version of everything in this package."""


class Reason(StrEnum):
    """Why the network stopped where it stopped: the outcome of a `final` message."""

    COMPLETE = "complete"
    """The last exit was reached."""
    DEADLINE = "deadline"
    """The next exit would not have been ready in time."""
    BUDGET = "budget"
    """The next exit would have cost more, or lain deeper, than the budget allows."""
    SATISFIED = "satisfied"
    """The map is as confident as was asked."""
    CANCELLED = "cancelled"
    """The client did not want it any more."""
    DRAINING = "draining"
    """The server is shutting down and answered with what it had."""


class Task(StrEnum):
    """What a model predicts."""

    SEGMENTATION = "segmentation"
    POSE = "pose"


class Encoding(StrEnum):
    """How an array is written into the payload."""

    PNG = "png"
    """A PNG file; for a class map an indexed one whose pixels are class ids."""
    RAW = "raw"
    """The array's bytes, C order, little-endian."""
    RLE = "rle"
    """JSON with one COCO run-length string per class."""
    DELTA = "delta"
    """The bytes that changed since the last update that was sent (see `delta`)."""


class Compression(StrEnum):
    """What was done to a part's bytes after their encoding; for `raw` and `delta` only."""

    NONE = "none"
    ZLIB = "zlib"


class ArrayName(StrEnum):
    """What an array of an update shows."""

    MAP = "map"
    """Class id per pixel, uint8 (H, W)."""
    CONFIDENCE = "confidence"
    """Confidence per pixel, uint8 (H, W); 0 means 0.0 and 255 means 1.0."""
    ACTIVE = "active"
    """1 where the next stage would still compute, 0 where the pixel is settled, uint8 (H, W)."""
    HEATMAPS = "heatmaps"
    """One plane per joint, (J, h, w), at the network's own resolution."""


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
    """What became of a `budget` message."""

    APPLIED = "applied"
    """It is the request's budget from now on."""
    STALE = "stale"
    """A budget with the same or a higher `rev` came first; nothing changed."""
    GONE = "gone"
    """No such request is running (it has ended, or never was); nothing changed."""
    REJECTED = "rejected"
    """The budget is malformed; nothing changed, and `detail` says why."""


class ErrorCode(StrEnum):
    """What went wrong, in `error` messages and as the last part of an HTTP problem type."""

    BAD_REQUEST = "bad-request"
    BAD_MESSAGE = "bad-message"
    BAD_BUDGET = "bad-budget"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    UNKNOWN_MODEL = "unknown-model"
    UNKNOWN_REQUEST = "unknown-request"
    NOT_FOUND = "not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    NOT_ACCEPTABLE = "not-acceptable"
    DUPLICATE_ID = "duplicate-id"
    CANCELLED = "cancelled"
    TOO_LARGE = "too-large"
    TOO_MANY_PIXELS = "too-many-pixels"
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type"
    BAD_IMAGE = "bad-image"
    BUDGET_TOO_SMALL = "budget-too-small"
    TOO_MANY_REQUESTS = "too-many-requests"
    INTERNAL = "internal"
    OVERLOADED = "overloaded"
    NOT_READY = "not-ready"
    DRAINING = "draining"
    DEADLINE_EXCEEDED = "deadline-exceeded"


class CloseCode(IntEnum):
    """Why a websocket is closed: RFC 6455 section 7.4.1, and private codes from 4400 on."""

    NORMAL = 1000
    GOING_AWAY = 1001
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
