"""What a server says on the websocket: `ready`, `accepted`, `update`, `final`, `error` and others.

Decides which fields these messages have and what they may hold. Does not know frames (`codec`), nor
when a message may be sent (`session`). A client ignores fields that it does not know, so that a
server may grow. Times are ms from the request's arrival unless said otherwise; exits count from 1;
costs are in 1e9 multiply-adds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final, Self, TypeAlias

from anytime_protocol.arrays import MAX_SIDE, ArraySegment
from anytime_protocol.budget import MAX_MS
from anytime_protocol.client_messages import MAX_REV
from anytime_protocol.enums import (
    PROTOCOL,
    ArrayName,
    Effect,
    ErrorCode,
    Reason,
)
from anytime_protocol.errors import shorten
from anytime_protocol.json_reader import ID_FORM, JsonObject, JsonReader, finite
from anytime_protocol.resources import MAX_EXITS, ModelInfo

MAX_JOINTS: Final = 256
"""Keypoints that an update may carry."""

MAX_DETAIL: Final = 2000
"""Characters of an explanation."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a server allows on one connection.

    Attributes:
        max_in_flight: requests at a time.
        max_payload_bytes: of an image file.
        max_json_bytes: of the JSON of a frame.
        max_pixels: of a decoded image, px.
    """

    max_in_flight: int = 8
    max_payload_bytes: int = 32 * 1024 * 1024
    max_json_bytes: int = 256 * 1024
    max_pixels: int = 16_777_216

    @classmethod
    def read(cls, fields: JsonReader) -> Self:
        """Reads the object."""
        return cls(
            max_in_flight=fields.integer("max_in_flight", 1),
            max_payload_bytes=fields.integer("max_payload_bytes", 1),
            max_json_bytes=fields.integer("max_json_bytes", 1),
            max_pixels=fields.integer("max_pixels", 1),
        )

    def to_json(self) -> JsonObject:
        """The wire form."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Ready:
    """The server's first message: what it serves and what it allows.

    Attributes:
        server: name and version, for people.
        models: what it serves; the first is the default of a client without an opinion.
        limits: of this connection.
    """

    TYPE: ClassVar[str] = "ready"
    server: str
    models: tuple[ModelInfo, ...]
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)

    @classmethod
    def read(cls, fields: JsonReader) -> Self:
        """Reads the message."""
        protocol = fields.text("protocol", 64)
        if protocol != PROTOCOL:
            raise fields.fail("protocol", protocol, PROTOCOL)
        return cls(
            server=fields.text("server", 256),
            models=tuple(ModelInfo.read(item) for item in fields.objects("models", 256)),
            limits=ConnectionLimits.read(fields.inside("limits")),
        )

    def to_json(self) -> JsonObject:
        """The wire form."""
        return {
            "type": self.TYPE,
            "protocol": PROTOCOL,
            "server": self.server,
            "models": [model.to_json() for model in self.models],
            "limits": self.limits.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request was admitted; nothing is promised beyond exit 1.

    Attributes:
        id: of the request.
        exits: that the model has.
        predicted_exit: the deepest that the server now expects to serve.
        predicted_ms: when it expects to have served it.
    """

    TYPE: ClassVar[str] = "accepted"
    id: str
    exits: int
    predicted_exit: int
    predicted_ms: float

    @classmethod
    def read(cls, fields: JsonReader) -> Self:
        """Reads the message."""
        exits = fields.integer("exits", 1, MAX_EXITS)
        return cls(
            id=fields.formed("id", ID_FORM),
            exits=exits,
            predicted_exit=fields.integer("predicted_exit", 1, exits),
            predicted_ms=fields.number("predicted_ms", 0, MAX_MS),
        )

    def to_json(self) -> JsonObject:
        """The wire form."""
        return {
            "type": self.TYPE,
            "id": self.id,
            "exits": self.exits,
            "predicted_exit": self.predicted_exit,
            "predicted_ms": _round(self.predicted_ms),
        }


Keypoint: TypeAlias = tuple[float, float, float]
"""x and y in px of the input, and a score from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Update:
    """What one exit sees.

    Attributes:
        id: of the request.
        exit: that made it; higher with each update of a request.
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
        payload: the arrays' bytes, one after the other.
    """

    TYPE: ClassVar[str] = "update"
    id: str
    exit: int
    exits: int
    width: int
    height: int
    elapsed_ms: float
    compute_ms: float
    gmacs: float
    confidence: float
    confident_share: float
    skipped: int = 0
    parts: tuple[ArraySegment, ...] = ()
    keypoints: tuple[Keypoint, ...] | None = None
    payload: bytes = b""

    @property
    def part_bytes(self) -> int:
        """Bytes that the parts take together: the length of the payload."""
        return sum(part.size for part in self.parts)

    @property
    def base(self) -> int | None:
        """The exit whose arrays the deltas of this update change, or None without a delta."""
        return next((part.base for part in self.parts if part.base is not None), None)

    @classmethod
    def read(cls, fields: JsonReader, payload: bytes) -> Self:
        """Reads the header; `payload` is the arrays."""
        exits = fields.integer("exits", 1, MAX_EXITS)
        update = cls(
            id=fields.formed("id", ID_FORM),
            exit=fields.integer("exit", 1, exits),
            exits=exits,
            width=fields.integer("width", 1, MAX_SIDE),
            height=fields.integer("height", 1, MAX_SIDE),
            elapsed_ms=fields.number("elapsed_ms"),
            compute_ms=fields.number("compute_ms"),
            gmacs=fields.number("gmacs"),
            confidence=fields.number("confidence", 0, 1),
            confident_share=fields.number("confident_share", 0, 1),
            skipped=fields.integer("skipped", 0, exits),
            parts=tuple(
                ArraySegment.read(item) for item in fields.objects("parts", len(ArrayName))
            ),
            keypoints=_read_keypoints(fields) if fields.has("keypoints") else None,
            payload=payload,
        )
        _check_parts(update, fields)
        return update

    def to_json(self) -> JsonObject:
        """The header; the payload is not in it."""
        wire: JsonObject = {
            "type": self.TYPE,
            "id": self.id,
            "exit": self.exit,
            "exits": self.exits,
            "width": self.width,
            "height": self.height,
            "elapsed_ms": _round(self.elapsed_ms),
            "compute_ms": _round(self.compute_ms),
            "gmacs": _round(self.gmacs),
            "confidence": _round(self.confidence),
            "confident_share": _round(self.confident_share),
            "skipped": self.skipped,
            "parts": [part.to_json() for part in self.parts],
        }
        if self.keypoints is not None:
            wire["keypoints"] = [[_round(value) for value in point] for point in self.keypoints]
        return wire


@dataclass(frozen=True, slots=True)
class Finished:
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
        queue_ms: spent waiting.
        decode_ms: spent on decoding the image.
        compute_ms: spent in the network.
        encode_ms: spent on encoding what was sent.
    """

    TYPE: ClassVar[str] = "final"
    id: str
    exit: int
    exits: int
    reason: Reason
    confidence: float | None
    confident_share: float | None
    gmacs: float
    total_ms: float
    queue_ms: float
    decode_ms: float
    compute_ms: float
    encode_ms: float

    @classmethod
    def read(cls, fields: JsonReader) -> Self:
        """Reads the message."""
        exits = fields.integer("exits", 1, MAX_EXITS)
        exit_ = fields.integer("exit", 0, exits)
        return cls(
            id=fields.formed("id", ID_FORM),
            exit=exit_,
            exits=exits,
            reason=fields.word("reason", Reason),
            confidence=fields.number("confidence", 0, 1) if exit_ else None,
            confident_share=fields.number("confident_share", 0, 1) if exit_ else None,
            gmacs=fields.number("gmacs"),
            total_ms=fields.number("total_ms"),
            queue_ms=fields.number("queue_ms"),
            decode_ms=fields.number("decode_ms"),
            compute_ms=fields.number("compute_ms"),
            encode_ms=fields.number("encode_ms"),
        )

    def to_json(self) -> JsonObject:
        """The wire form."""
        wire: JsonObject = {
            "type": self.TYPE,
            "id": self.id,
            "exit": self.exit,
            "exits": self.exits,
            "reason": self.reason,
        }
        if self.confidence is not None and self.confident_share is not None:
            wire["confidence"] = _round(self.confidence)
            wire["confident_share"] = _round(self.confident_share)
        for name in ("gmacs", "total_ms", "queue_ms", "decode_ms", "compute_ms", "encode_ms"):
            wire[name] = _round(getattr(self, name))
        return wire


@dataclass(frozen=True, slots=True)
class Failed:
    """The one bad end of a request (type `error`); the connection goes on.

    Attributes:
        id: of the request.
        code: what went wrong, for programs.
        detail: what was found, what was expected and the cure, for people.
        field: the field of the message at fault, if one is.
        retry_after_ms: when asking again makes sense, if it does.
    """

    TYPE: ClassVar[str] = "error"
    id: str
    code: ErrorCode
    detail: str
    field: str | None = None
    retry_after_ms: float | None = None

    @classmethod
    def read(cls, fields: JsonReader) -> Self:
        """Reads the message."""
        return cls(
            id=fields.formed("id", ID_FORM),
            code=fields.word("code", ErrorCode),
            detail=fields.text("detail", MAX_DETAIL),
            field=fields.text("field", 512) if fields.has("field") else None,
            retry_after_ms=fields.number("retry_after_ms", 0, MAX_MS)
            if fields.has("retry_after_ms")
            else None,
        )

    def to_json(self) -> JsonObject:
        """The wire form."""
        wire: JsonObject = {
            "type": self.TYPE,
            "id": self.id,
            "code": self.code,
            "detail": shorten(self.detail, MAX_DETAIL),
        }
        if self.field is not None:
            wire["field"] = shorten(self.field, 512)
        if self.retry_after_ms is not None:
            wire["retry_after_ms"] = _round(self.retry_after_ms)
        return wire


@dataclass(frozen=True, slots=True)
class BudgetApplied:
    """What became of a `budget` message; every one is answered by one of these.

    Attributes:
        id: of the request.
        rev: of the budget.
        at_exit: exits that had been finished at that moment; 0 if none, or the request is gone.
        effect: what became of it.
        detail: for people, when it was rejected.
    """

    TYPE: ClassVar[str] = "budget_applied"
    id: str
    rev: int
    at_exit: int
    effect: Effect
    detail: str | None = None

    @classmethod
    def read(cls, fields: JsonReader) -> Self:
        """Reads the message."""
        return cls(
            id=fields.formed("id", ID_FORM),
            rev=fields.integer("rev", 0, MAX_REV),
            at_exit=fields.integer("at_exit", 0, MAX_EXITS),
            effect=fields.word("effect", Effect),
            detail=fields.text("detail", MAX_DETAIL) if fields.has("detail") else None,
        )

    def to_json(self) -> JsonObject:
        """The wire form."""
        wire: JsonObject = {
            "type": self.TYPE,
            "id": self.id,
            "rev": self.rev,
            "at_exit": self.at_exit,
            "effect": self.effect,
        }
        if self.detail is not None:
            wire["detail"] = shorten(self.detail, MAX_DETAIL)
        return wire


@dataclass(frozen=True, slots=True)
class Pong:
    """Answers a `ping` with its `nonce`."""

    TYPE: ClassVar[str] = "pong"
    nonce: int

    @classmethod
    def read(cls, fields: JsonReader) -> Self:
        """Reads the message."""
        return cls(nonce=fields.integer("nonce"))

    def to_json(self) -> JsonObject:
        """The wire form."""
        return {"type": self.TYPE, "nonce": self.nonce}


def _round(value: float) -> float:
    """Six digits after the point: more would be noise and bytes."""
    return round(float(value), 6)


def _read_keypoints(fields: JsonReader) -> tuple[Keypoint, ...]:
    points: list[Keypoint] = []
    for item in fields.items("keypoints", MAX_JOINTS):
        match [finite(value) for value in item] if isinstance(item, list) else []:
            case [float(x), float(y), float(score)] if 0 <= score <= 1:
                points.append((x, y, score))
            case _:
                raise fields.fail("keypoints", item, "lists of finite x, y and a score in 0 to 1")
    return tuple(points)


def _check_parts(update: Update, fields: JsonReader) -> None:
    names = [part.name for part in update.parts]
    if len(set(names)) != len(names):
        raise fields.fail("parts", names, "each array once")
    if update.part_bytes != len(update.payload):
        raise fields.fail(
            "parts", update.part_bytes, f"{len(update.payload)} bytes, as the payload has"
        )
    bases = {part.base for part in update.parts if part.base is not None}
    if len(bases) > 1 or any(base >= update.exit for base in bases):
        raise fields.fail("parts", sorted(bases), f"one base below exit {update.exit}")
