"""The messages of the websocket and of event streams, and their reader `parse`.

A client sends `Infer`, `SetBudget`, `Cancel` and `Ping`; a server `Ready`, `Accepted`, `Update`,
`Finished` (type `final`), `Failed` (type `error`), `BudgetApplied` and `Pong`. Of a stream a client
sends `OpenStream` (type `open`), `Frame` and `CloseStream` (type `close`), a server `StreamOpened`
(type `opened`), `Update`, `FrameEnd` (type `frame_end`) and `StreamClosed` (type `closed`). A
server refuses fields that it does not know, a client ignores them. Times are ms from the arrival of
the request or frame unless stated otherwise; exits count from 1; costs are in 1e9 multiply-adds.
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args

from pydantic import Field, model_validator

from anytime_protocol.arrays.segments import MAX_SIDE, ArraySegment
from anytime_protocol.budget import Budget
from anytime_protocol.enums import (
    ArrayName,
    Compression,
    Effect,
    Encoding,
    ErrorCode,
    Reason,
)
from anytime_protocol.errors import FieldError, describe
from anytime_protocol.fields import Detail, Duration, Exit, Exits, FrameNumber, check_exit
from anytime_protocol.model_info import ModelInfo
from anytime_protocol.stream_answers import FrameEnd, StreamClosed, StreamOpened
from anytime_protocol.validation import (
    Absent,
    Amount,
    Flag,
    Id,
    JsonObject,
    JsonValue,
    Name,
    Share,
    number,
    omit,
    one_of,
    text,
    whole,
)

# Of a request that names none (RFC 9218 section 4.1).
DEFAULT_URGENCY: Final = 3

# The highest revision that a budget may have.
MAX_REV: Final = 2**31 - 1

_Urgency = Annotated[int, whole(0, 7), omit(DEFAULT_URGENCY)]
_Coordinate = Annotated[float, number(-math.inf)]
_Limit = Annotated[int, whole(1)]

# x and y in px of the input, and a score from 0 to 1.
Keypoint: TypeAlias = tuple[_Coordinate, _Coordinate, Share]


@dataclass(frozen=True, slots=True)
class OutputOptions(JsonValue):
    """What a client wants to receive; what is as by default is left out of the JSON.

    Attributes:
        encoding: of the class map. With `DELTA` the first update is `RAW`, and so is any later one
            whose delta would be longer.
        compression: of `raw` and `delta` parts.
        scale: size of the maps relative to the input: 1, 1/2 or 1/4.
        confidence: also the confidence map.
        active: also the mask of pixels that the next stage would compute.
        heatmaps: also the heatmaps (pose only).
        progress: an update for every exit; otherwise only for the last one served.
        monotone: each map is the product of those before it, so that a later one rarely makes a
            right pixel wrong.
    """

    encoding: Annotated[Encoding, omit(Encoding.RAW)] = Encoding.RAW
    compression: Annotated[Compression, omit(Compression.NONE)] = Compression.NONE
    scale: Annotated[float, one_of(1.0, 0.5, 0.25), omit(1.0)] = 1.0
    confidence: Annotated[Flag, omit(False)] = False
    active: Annotated[Flag, omit(False)] = False
    heatmaps: Annotated[Flag, omit(False)] = False
    progress: Annotated[Flag, omit(True)] = True
    monotone: Annotated[Flag, omit(False)] = False


@dataclass(frozen=True, slots=True)
class Infer(JsonValue):
    """Asks for the maps of an image.

    Attributes:
        id: chosen by the client; not in use by another request of this connection.
        model: one of those in `ready`.
        payload: the image file; not part of the JSON.
        media_type: of the image file, such as `image/jpeg`.
        budget: counts from the moment when the server has the whole message.
        want: what to send back.
        urgency: 0 (most) to 7 (least), as in RFC 9218.
    """

    type: Literal["infer"] = field(default="infer", kw_only=True, repr=False)
    id: Id
    model: Name
    payload: Annotated[bytes, Field(exclude=True)]
    media_type: Annotated[str, text(128)] = "image/jpeg"
    budget: Annotated[Budget, omit(Budget())] = field(default_factory=Budget)
    want: Annotated[OutputOptions, omit(OutputOptions())] = field(default_factory=OutputOptions)
    urgency: _Urgency = DEFAULT_URGENCY

    @model_validator(mode="before")
    @classmethod
    def _check(cls, header: Any) -> Any:
        """The media type has a default in Python alone."""
        return _with_media_type(header)


@dataclass(frozen=True, slots=True)
class ReuseOptions(JsonValue):
    """How far a stream may answer a frame with what was computed for earlier ones.

    Attributes:
        max_age: frames after which a pixel is computed again at the latest.
        max_difference: share of the pixels, 0 to 1, that may differ from those of the frame
            computed alone.
        motion: follow a camera that moves: estimate one shift of the whole image.
    """

    max_age: Annotated[int, whole(1, 1000)] = 30
    max_difference: Annotated[float, number(0, 1, digits=None)] = 0.05
    motion: Annotated[Flag, omit(False)] = False


@dataclass(frozen=True, slots=True)
class OpenStream(JsonValue):
    """Opens a stream of frames (type `open`), which counts as one request until it has ended.

    Attributes:
        id: chosen by the client, as for `infer`.
        model: one of those in `ready`.
        budget: of each frame; its times count from the frame's arrival.
        want: what to send back for each frame.
        urgency: 0 (most) to 7 (least) of each frame.
        share: of the machine's time that the stream may take, 0.001 to 1.
        reuse: what may be taken from earlier frames; None computes each frame alone.
    """

    type: Literal["open"] = field(default="open", kw_only=True, repr=False)
    id: Id
    model: Name
    budget: Annotated[Budget, omit(Budget())] = field(default_factory=Budget)
    want: Annotated[OutputOptions, omit(OutputOptions())] = field(default_factory=OutputOptions)
    urgency: _Urgency = DEFAULT_URGENCY
    share: Annotated[float, number(0.001, 1, digits=None), omit(1.0)] = 1.0
    reuse: Absent[ReuseOptions] = None


@dataclass(frozen=True, slots=True)
class Frame(JsonValue):
    """The next image of a stream.

    Attributes:
        id: of the stream.
        frame: its number, higher than that of any frame sent before in this stream.
        payload: the image file; not part of the JSON.
        media_type: of the image file.
    """

    type: Literal["frame"] = field(default="frame", kw_only=True, repr=False)
    id: Id
    frame: FrameNumber
    payload: Annotated[bytes, Field(exclude=True)]
    media_type: Annotated[str, text(128)] = "image/jpeg"

    @model_validator(mode="before")
    @classmethod
    def _check(cls, header: Any) -> Any:
        """The media type has a default in Python alone."""
        return _with_media_type(header)


@dataclass(frozen=True, slots=True)
class CloseStream(JsonValue):
    """No more frames will come (type `close`); those that were sent are still answered."""

    type: Literal["close"] = field(default="close", kw_only=True, repr=False)
    id: Id


@dataclass(frozen=True, slots=True)
class SetBudget(JsonValue):
    """Replaces the budget of a running request as a whole, or that of a stream's frames.

    Attributes:
        id: of the request or stream.
        rev: 1 or more, and higher than that of any budget sent before for this request.
        budget: the new one; limits that it does not name no longer hold.
    """

    type: Literal["budget"] = field(default="budget", kw_only=True, repr=False)
    id: Id
    rev: Annotated[int, whole(1, MAX_REV)]
    budget: Budget


@dataclass(frozen=True, slots=True)
class Cancel(JsonValue):
    """The client does not want a request or stream any more; to say it twice is no fault."""

    type: Literal["cancel"] = field(default="cancel", kw_only=True, repr=False)
    id: Id


@dataclass(frozen=True, slots=True)
class Ping(JsonValue):
    """Asks for a `pong` with the same `nonce` (0 to 2**53), to measure the round trip."""

    type: Literal["ping"] = field(default="ping", kw_only=True, repr=False)
    nonce: Annotated[int, whole()]


@dataclass(frozen=True, slots=True)
class ConnectionLimits(JsonValue):
    """What a server allows on one connection.

    Attributes:
        max_in_flight: requests at a time.
        max_payload_bytes: of an image file.
        max_json_bytes: of the JSON of a frame.
        max_pixels: of a decoded image, px.
    """

    max_in_flight: _Limit = 8
    max_payload_bytes: _Limit = 32 * 1024 * 1024
    max_json_bytes: _Limit = 256 * 1024
    max_pixels: _Limit = 16_777_216


@dataclass(frozen=True, slots=True)
class Ready(JsonValue):
    """The server's first message: what it serves and what it allows.

    Attributes:
        server: name and version, for people.
        models: what it serves; the first is the default of a client without an opinion.
        limits: of this connection.
        protocol: the version of the protocol that it speaks.
    """

    type: Literal["ready"] = field(default="ready", kw_only=True, repr=False)
    protocol: Literal["anytime.v1"] = field(default="anytime.v1", kw_only=True, repr=False)
    server: Annotated[str, text(256)]
    models: Annotated[tuple[ModelInfo, ...], Field(max_length=256)]
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)


@dataclass(frozen=True, slots=True)
class Accepted(JsonValue):
    """A request was admitted; nothing is promised beyond exit 1.

    Attributes:
        id: of the request.
        exits: that the model has.
        predicted_exit: the deepest that the server now expects to serve.
        predicted_ms: when it expects to have served it.
    """

    type: Literal["accepted"] = field(default="accepted", kw_only=True, repr=False)
    id: Id
    exits: Exit
    predicted_exit: Exit
    predicted_ms: Duration

    @model_validator(mode="after")
    def _check(self) -> "Accepted":
        check_exit("predicted_exit", self.predicted_exit, self.exits)
        return self


@dataclass(frozen=True, slots=True)
class Update(JsonValue):
    """The result of one exit.

    Attributes:
        id: of the request or stream.
        exit: that made it; higher with each update of a request, or of a frame.
        exits: that the model has.
        width: of the input as the network sees it (EXIF rotation applied), px.
        height: of the same, px.
        elapsed_ms: from arrival until this update was about to be written.
        compute_ms: spent in the network so far.
        gmacs: really computed so far, in 1e9 multiply-adds.
        confidence: mean over the map, 0 to 1.
        confident_share: share of pixels that are settled, 0 to 1.
        skipped: exits since the last update whose updates this one replaced.
        parts: describes the arrays of the payload, in order.
        keypoints: for pose, one per joint in the order that `ready` names; else None.
        frame: of a stream; None for a request.
        payload: the arrays' bytes, one after the other; not part of the JSON.
    """

    type: Literal["update"] = field(default="update", kw_only=True, repr=False)
    id: Id
    exit: Exit
    exits: Exit
    width: Annotated[int, whole(1, MAX_SIDE)]
    height: Annotated[int, whole(1, MAX_SIDE)]
    elapsed_ms: Amount
    compute_ms: Amount
    gmacs: Amount
    confidence: Share
    confident_share: Share
    skipped: Exits = 0
    parts: Annotated[tuple[ArraySegment, ...], Field(max_length=len(ArrayName))] = ()
    keypoints: Absent[Annotated[tuple[Keypoint, ...], Field(max_length=256)]] = None
    frame: Absent[FrameNumber] = None
    payload: Annotated[bytes, Field(exclude=True)] = b""

    @property
    def part_bytes(self) -> int:
        """Bytes that the parts take together: the length of the payload."""
        return sum(part.size for part in self.parts)

    @property
    def base(self) -> int | None:
        """The exit whose arrays the deltas of this update change, or None without a delta."""
        return next((part.base for part in self.parts if part.base is not None), None)

    @property
    def base_frame(self) -> int | None:
        """The frame of that exit, in a stream."""
        return next((part.base_frame for part in self.parts if part.base is not None), None)

    @model_validator(mode="after")
    def _check(self) -> "Update":
        check_exit("exit", self.exit, self.exits)
        check_exit("skipped", self.skipped, self.exits)
        names = [part.name for part in self.parts]
        if len(set(names)) != len(names):
            raise FieldError("parts", ", ".join(names), "each array once")
        if self.part_bytes != len(self.payload):
            expected = f"{len(self.payload)} bytes, as the payload has"
            raise FieldError("parts", describe(self.part_bytes), expected)
        bases = {(part.base_frame, part.base) for part in self.parts if part.base is not None}
        if len(bases) > 1 or not all(self._follows(*base) for base in bases):
            found = " and ".join(_exit_of(*base) for base in bases)
            expected = f"one base before {_exit_of(self.frame, self.exit)}"
            raise FieldError("parts", f"a delta on {found}", expected)
        return self

    def _follows(self, frame: int | None, exit_: int) -> bool:
        """Whether it comes after an exit, of a frame where it has one itself."""
        if self.frame is None or frame is None:
            return self.frame is frame and exit_ < self.exit
        return (frame, exit_) < (self.frame, self.exit)


@dataclass(frozen=True, slots=True)
class Finished(JsonValue):
    """The one good end of a request (type `final`); its map was in the last update.

    Attributes:
        id: of the request.
        exit: the deepest that was served, 0 if none was (cancelled before exit 1).
        exits: that the model has.
        reason: why the network stopped there.
        confidence: mean over the last map, 0 to 1; None at exit 0.
        confident_share: settled pixels of the last map, 0 to 1; None at exit 0.
        gmacs: really computed, in 1e9 multiply-adds.
        total_ms: from arrival until this message was about to be written.
        queue_ms: part of `total_ms`, spent waiting for the executor.
        decode_ms: another part, spent on decoding the image.
        compute_ms: another part, spent in the network.
        encode_ms: another part, spent on rendering, and on encoding after the network had ended.
        risk: of the certificate whose masks were used, 0 where there were none; None where the
            budget asked for no `max_risk`.
    """

    type: Literal["final"] = field(default="final", kw_only=True, repr=False)
    id: Id
    exit: Exits
    exits: Exit
    reason: Reason
    confidence: Annotated[Absent[Share], Field(default=None)]
    confident_share: Annotated[Absent[Share], Field(default=None)]
    gmacs: Amount
    total_ms: Amount
    queue_ms: Amount
    decode_ms: Amount
    compute_ms: Amount
    encode_ms: Amount
    risk: Absent[Share] = None

    @model_validator(mode="after")
    def _check(self) -> "Finished":
        check_exit("exit", self.exit, self.exits)
        for name in ("confidence", "confident_share"):
            if self.exit and getattr(self, name) is None:
                raise FieldError(name, "nothing", "a number from 0 to 1, as there was an exit")
        return self


@dataclass(frozen=True, slots=True)
class Failed(JsonValue):
    """The one bad end of a request or stream (type `error`); the connection goes on.

    Attributes:
        id: of the request or stream.
        code: what went wrong, for programs.
        detail: what was found, what was expected and the cure, for people.
        field: the field of the message at fault, if one is.
        retry_after_ms: when asking again makes sense, if it does.
        needed_ms: the deadline that would do for exit 1 as things stand, if one was too tight.
    """

    type: Literal["error"] = field(default="error", kw_only=True, repr=False)
    id: Id
    code: ErrorCode
    detail: Detail
    field: Absent[Annotated[str, text(512)]] = None
    retry_after_ms: Absent[Duration] = None
    needed_ms: Absent[Duration] = None


@dataclass(frozen=True, slots=True)
class BudgetApplied(JsonValue):
    """What became of a `budget` message; every one is answered by one of these.

    Attributes:
        id: of the request.
        rev: of the budget.
        at_exit: exits that had been finished at that moment; 0 if none, or the request is gone.
        effect: what became of it.
        detail: for people, when it was rejected.
    """

    type: Literal["budget_applied"] = field(default="budget_applied", kw_only=True, repr=False)
    id: Id
    rev: Annotated[int, whole(0, MAX_REV)]
    at_exit: Exits
    effect: Effect
    detail: Absent[Detail] = None


@dataclass(frozen=True, slots=True)
class Pong(JsonValue):
    """Answers a `ping` with its `nonce`."""

    type: Literal["pong"] = field(default="pong", kw_only=True, repr=False)
    nonce: Annotated[int, whole()]


class Role(StrEnum):
    """A side of the connection."""

    CLIENT = "client"
    SERVER = "server"

    @property
    def peer(self) -> "Role":
        """The other side."""
        return Role.SERVER if self is Role.CLIENT else Role.CLIENT


StreamMessage: TypeAlias = OpenStream | Frame | CloseStream
ClientMessage: TypeAlias = Infer | SetBudget | Cancel | Ping | StreamMessage
StreamAnswer: TypeAlias = StreamOpened | FrameEnd | StreamClosed
ServerMessage: TypeAlias = (
    Ready | Accepted | Update | Finished | Failed | BudgetApplied | Pong | StreamAnswer
)
Message: TypeAlias = ClientMessage | ServerMessage


# The message types that each side sends, and their classes.
TYPES: Final[dict[Role, dict[str, Any]]] = {
    role: {kind.__dataclass_fields__["type"].default: kind for kind in get_args(kinds)}
    for role, kinds in ((Role.CLIENT, ClientMessage), (Role.SERVER, ServerMessage))
}


def parse(header: JsonObject, payload: bytes, sender: Role) -> Message:
    """Reads the message of a frame.

    Args:
        header: the frame's JSON, without its payload.
        payload: empty for all but `infer`, `frame` and `update`.
        sender: who sent it; decides which types exist and whether unknown fields are refused.

    Raises:
        FieldError: the type is unknown, a field is missing, malformed or (from a client) unknown,
            or a payload came with a message that has none.
    """
    kind = header.get("type")
    message_class = TYPES[sender].get(kind) if isinstance(kind, str) else None
    if message_class is None:
        found = describe(kind) if "type" in header else "nothing"
        allowed = ", ".join(sorted(TYPES[sender]))
        raise FieldError("type", found, f"what a {sender} sends: {allowed}")
    if "payload" in header:
        raise FieldError("payload", "a field of the JSON", "bytes outside of it")
    if message_class in {Infer, Frame, Update}:
        header = header | {"payload": payload}
    elif payload:
        raise FieldError("payload", f"{len(payload)} bytes", f"none with {kind}")
    if message_class is Infer and not payload:
        raise FieldError("payload", "nothing", "an image file")
    message: Message = message_class.from_json(header, ignore_unknown=sender is Role.SERVER)
    return message


def _with_media_type(header: Any) -> Any:
    """An image's header, if it says what its file is."""
    if isinstance(header, dict) and "media_type" not in header:
        raise FieldError("media_type", "nothing", "a media type, such as image/jpeg")
    return header


def _exit_of(frame: int | None, exit_: int) -> str:
    return f"exit {exit_}" if frame is None else f"exit {exit_} of frame {frame}"
