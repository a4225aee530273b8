"""What a server says about a stream: that it is open, how each frame ended, and how it ended."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, model_validator

from anytime_protocol.enums import CloseReason, ErrorCode, Reason
from anytime_protocol.errors import FieldError, describe
from anytime_protocol.fields import (
    Count,
    Detail,
    Duration,
    Exit,
    Exits,
    FrameNumber,
    check_exit,
)
from anytime_protocol.validation import Absent, Amount, Id, JsonValue, Share


@dataclass(frozen=True, slots=True)
class StreamOpened(JsonValue):
    """A stream was opened (type `opened`).

    Attributes:
        id: of the stream.
        exits: that the model has.
    """

    type: Literal["opened"] = field(default="opened", kw_only=True, repr=False)
    id: Id
    exits: Exit


@dataclass(frozen=True, slots=True)
class FrameFailure(JsonValue):
    """Why a frame got no answer.

    Attributes:
        code: what went wrong, for programs.
        detail: what was found, what was expected and the cure, for people.
        retry_after_ms: when another frame makes sense, if that is known.
        needed_ms: the deadline that would do for exit 1 as things stand, if it was too tight.
    """

    code: ErrorCode
    detail: Detail
    retry_after_ms: Absent[Duration] = None
    needed_ms: Absent[Duration] = None


@dataclass(frozen=True, slots=True)
class MeasuredDifference(JsonValue):
    """How far reuse has changed the answers of a stream, as checked in idle time.

    Attributes:
        share: of the pixels that differed from those of the same frames computed alone, 0 to 1.
        frames: that were checked for it.
    """

    share: Share
    frames: Count


@dataclass(frozen=True, slots=True)
class FrameEnd(JsonValue):
    """The one end of a frame that was not skipped (type `frame_end`); the stream goes on.

    Attributes:
        id: of the stream.
        frame: its number.
        exit: of its last update, 0 if it has none or failed.
        exits: that the model has.
        reason: why the network stopped there; None if it failed.
        error: why it failed; None if it did not.
        skipped: frames passed over since the last one that ended.
        reused_share: part of its positions that were taken from earlier frames, 0 to 1.
        oldest: frames since its oldest position was computed; 0 if all were computed for it.
        confidence: mean over the last map, 0 to 1; None at exit 0.
        confident_share: settled pixels of the last map, 0 to 1; None at exit 0.
        gmacs: really computed, in 1e9 multiply-adds.
        total_ms: from the frame's arrival until this message was about to be written.
        queue_ms: part of `total_ms`, spent waiting.
        decode_ms: another part, spent on decoding the image.
        compute_ms: another part, spent in the network.
        encode_ms: another part, spent on rendering, and on encoding after the network had ended.
        risk: as in `Finished`.
        difference: as measured so far; None before anything was checked.
    """

    type: Literal["frame_end"] = field(default="frame_end", kw_only=True, repr=False)
    id: Id
    frame: FrameNumber
    exit: Exits
    exits: Exit
    reason: Annotated[Absent[Reason], Field(default=None)]
    error: Annotated[Absent[FrameFailure], Field(default=None)]
    skipped: Count
    reused_share: Share
    oldest: Count
    confidence: Annotated[Absent[Share], Field(default=None)]
    confident_share: Annotated[Absent[Share], Field(default=None)]
    gmacs: Amount
    total_ms: Amount
    queue_ms: Amount
    decode_ms: Amount
    compute_ms: Amount
    encode_ms: Amount
    risk: Absent[Share] = None
    difference: Absent[MeasuredDifference] = None

    @model_validator(mode="after")
    def _check(self) -> "FrameEnd":
        check_exit("exit", self.exit, self.exits)
        if (self.reason is None) == (self.error is None):
            found = "neither" if self.reason is None else "both"
            raise FieldError("reason", found, "either a reason or an error")
        if self.error is not None and self.exit:
            raise FieldError("exit", describe(self.exit), "0, as the frame failed")
        for name in ("confidence", "confident_share"):
            if self.exit and getattr(self, name) is None:
                raise FieldError(name, "nothing", "a number from 0 to 1, as there was an exit")
        return self


@dataclass(frozen=True, slots=True)
class StreamClosed(JsonValue):
    """The good end of a stream (type `closed`).

    Every frame that came before its `close` or `cancel` is counted once.

    Attributes:
        id: of the stream.
        reason: why it ended.
        frames: that ended with a reason.
        skipped: that were passed over.
        failed: that ended in an error.
    """

    type: Literal["closed"] = field(default="closed", kw_only=True, repr=False)
    id: Id
    reason: CloseReason
    frames: Count
    skipped: Count
    failed: Count
