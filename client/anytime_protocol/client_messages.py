"""What a client says on the websocket: `infer`, `budget`, `cancel`, `ping`.

Decides which fields these messages have and what they may hold. Does not know frames (`codec`), nor
when a message may be sent (`session`). Unknown fields are refused, because a mistyped limit must
not go unnoticed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from typing import ClassVar, Final, Self

from anytime_protocol.budget import Budget
from anytime_protocol.enums import Compression, Encoding
from anytime_protocol.errors import FieldError
from anytime_protocol.json_reader import ID_FORM, NAME_FORM, JsonObject, JsonReader

SCALES: Final = (1.0, 0.5, 0.25)
"""Sizes of a map relative to the input."""

DEFAULT_URGENCY: Final = 3
"""Of a request that names none (RFC 9218 section 4.1)."""

MAX_REV: Final = 2**31 - 1
"""The highest revision that a budget may have."""


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """What a client wants to receive.

    Attributes:
        encoding: of the class map. With `DELTA` the first update is `RAW`, and so is any later one
            whose delta would be longer.
        compression: of `raw` and `delta` parts.
        scale: size of the maps relative to the input: 1, 1/2 or 1/4.
        confidence: also the confidence map.
        active: also the mask of pixels that the next stage would compute.
        heatmaps: also the heatmaps (pose only).
        progress: an update for every exit; otherwise only for the last one served.
    """

    encoding: Encoding = Encoding.RAW
    compression: Compression = Compression.NONE
    scale: float = 1.0
    confidence: bool = False
    active: bool = False
    heatmaps: bool = False
    progress: bool = True

    @classmethod
    def read(cls, fields: JsonReader) -> Self:
        """Reads the object; every field may be absent.

        Raises:
            FieldError: a field is unknown or malformed.
        """
        scale = fields.number("scale", 0.25, 1.0) if fields.has("scale") else 1.0
        if scale not in SCALES:
            raise fields.fail("scale", scale, "1, 0.5 or 0.25")
        want = cls(
            encoding=fields.word("encoding", Encoding) if fields.has("encoding") else Encoding.RAW,
            compression=fields.word("compression", Compression)
            if fields.has("compression")
            else Compression.NONE,
            scale=scale,
            confidence=fields.has("confidence") and fields.flag("confidence"),
            active=fields.has("active") and fields.flag("active"),
            heatmaps=fields.has("heatmaps") and fields.flag("heatmaps"),
            progress=not fields.has("progress") or fields.flag("progress"),
        )
        fields.end()
        return want

    def to_json(self) -> JsonObject:
        """The wire form; what is as by default is left out."""
        return {
            item.name: getattr(self, item.name)
            for item in dataclass_fields(self)
            if getattr(self, item.name) != item.default
        }


@dataclass(frozen=True, slots=True)
class Infer:
    """Asks for the maps of an image.

    Attributes:
        id: chosen by the client; not in use by another request of this connection.
        model: one of those in `ready`.
        payload: the image file.
        media_type: of the image file, such as `image/jpeg`.
        budget: counts from the moment when the server has the whole message.
        want: what to send back.
        urgency: 0 (most) to 7 (least), as in RFC 9218.
    """

    TYPE: ClassVar[str] = "infer"
    id: str
    model: str
    payload: bytes
    media_type: str = "image/jpeg"
    budget: Budget = field(default_factory=Budget)
    want: OutputOptions = field(default_factory=OutputOptions)
    urgency: int = DEFAULT_URGENCY

    @classmethod
    def read(cls, fields: JsonReader, payload: bytes) -> Self:
        """Reads the header; `payload` is the image file."""
        if not payload:
            raise FieldError("payload", "nothing", "an image file")
        return cls(
            id=fields.formed("id", ID_FORM),
            model=fields.formed("model", NAME_FORM),
            payload=payload,
            media_type=fields.text("media_type", 128),
            budget=Budget.from_json(fields.take("budget", "an object"))
            if fields.has("budget")
            else Budget(),
            want=OutputOptions.read(fields.inside("want"))
            if fields.has("want")
            else OutputOptions(),
            urgency=fields.integer("urgency", 0, 7) if fields.has("urgency") else DEFAULT_URGENCY,
        )

    def to_json(self) -> JsonObject:
        """The header; the payload is not in it."""
        wire: JsonObject = {
            "type": self.TYPE,
            "id": self.id,
            "model": self.model,
            "media_type": self.media_type,
        }
        if self.budget != Budget():
            wire["budget"] = self.budget.to_json()
        if self.want != OutputOptions():
            wire["want"] = self.want.to_json()
        if self.urgency != DEFAULT_URGENCY:
            wire["urgency"] = self.urgency
        return wire


@dataclass(frozen=True, slots=True)
class SetBudget:
    """Replaces the budget of a running request as a whole.

    Attributes:
        id: of the request.
        rev: 1 or more, and higher than that of any budget sent before for this request.
        budget: the new one; limits that it does not name no longer hold.
    """

    TYPE: ClassVar[str] = "budget"
    id: str
    rev: int
    budget: Budget

    @classmethod
    def read(cls, fields: JsonReader) -> Self:
        """Reads the message."""
        return cls(
            id=fields.formed("id", ID_FORM),
            rev=fields.integer("rev", 1, MAX_REV),
            budget=Budget.from_json(fields.take("budget", "an object")),
        )

    def to_json(self) -> JsonObject:
        """The wire form."""
        return {
            "type": self.TYPE,
            "id": self.id,
            "rev": self.rev,
            "budget": self.budget.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Cancel:
    """The client does not want a request any more; saying so twice is no fault."""

    TYPE: ClassVar[str] = "cancel"
    id: str

    @classmethod
    def read(cls, fields: JsonReader) -> Self:
        """Reads the message."""
        return cls(id=fields.formed("id", ID_FORM))

    def to_json(self) -> JsonObject:
        """The wire form."""
        return {"type": self.TYPE, "id": self.id}


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a `pong` with the same `nonce` (0 to 2**53), to measure the round trip."""

    TYPE: ClassVar[str] = "ping"
    nonce: int

    @classmethod
    def read(cls, fields: JsonReader) -> Self:
        """Reads the message."""
        return cls(nonce=fields.integer("nonce"))

    def to_json(self) -> JsonObject:
        """The wire form."""
        return {"type": self.TYPE, "nonce": self.nonce}
