"""The arrays inside one payload: their description in JSON and their bytes, one after the other.

`raw` and `delta` parts become the array's bytes again here; PNG and RLE need a decoder of their
own.
"""

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field, model_validator

from anytime_protocol.arrays import delta
from anytime_protocol.enums import ArrayName, Compression, DType, Encoding
from anytime_protocol.errors import FieldError, PayloadError, describe
from anytime_protocol.validation import Absent, JsonValue, omit, whole

# Largest extent of an array, px.
MAX_SIDE: Final = 65_535

# Bytes that one array may have when it is decoded.
MAX_PART_BYTES: Final = 2**30

# The encodings that make sense for each array.
ENCODINGS: Final[dict[ArrayName, frozenset[Encoding]]] = {
    ArrayName.MAP: frozenset(Encoding),
    ArrayName.CONFIDENCE: frozenset({Encoding.PNG, Encoding.RAW, Encoding.DELTA}),
    ArrayName.ACTIVE: frozenset({Encoding.PNG, Encoding.RAW, Encoding.DELTA}),
    ArrayName.HEATMAPS: frozenset({Encoding.RAW}),
}

# The encodings that have a compression of their own.
COMPRESSED: Final = frozenset({Encoding.PNG, Encoding.RLE})


@dataclass(frozen=True, slots=True)
class ArraySegment(JsonValue):
    """Describes one array of a payload.

    Attributes:
        name: what it shows.
        encoding: how it is written.
        shape: (H, W), or (J, H, W) for heatmaps; px of the map at its scale.
        size: bytes that it takes in the payload (`bytes` on the wire).
        dtype: element type; everything but heatmaps is uint8.
        compression: of `raw` and `delta` parts only.
        base: for `delta`, the exit whose array of the same name it changes; else None.
        base_frame: the frame of that exit, in a stream; else None.
    """

    name: ArrayName
    encoding: Encoding
    shape: Annotated[tuple[Annotated[int, whole(1, MAX_SIDE)], ...], Field(max_length=3)]
    size: Annotated[int, whole(0, MAX_PART_BYTES), Field(alias="bytes")]
    dtype: DType = DType.UINT8
    compression: Annotated[Compression, omit(Compression.NONE)] = Compression.NONE
    base: Absent[Annotated[int, whole(1, 64)]] = None
    base_frame: Absent[Annotated[int, whole(1)]] = None

    @property
    def array_bytes(self) -> int:
        """Bytes of the decoded array."""
        return math.prod(self.shape) * self.dtype.itemsize

    @model_validator(mode="after")
    def _check(self) -> "ArraySegment":
        """Checks that the fields go together."""
        allowed = ", ".join(sorted(ENCODINGS[self.name]))
        dimensions = 3 if self.name is ArrayName.HEATMAPS else 2
        plain = self.encoding is Encoding.RAW and self.compression is Compression.NONE
        compressed = self.compression is not Compression.NONE and self.encoding in COMPRESSED
        wide = self.dtype is not DType.UINT8 and self.name is not ArrayName.HEATMAPS
        based = (self.base is None) == (self.encoding is Encoding.DELTA)
        framed = self.base_frame is not None and self.base is None
        size, most = self.array_bytes, MAX_PART_BYTES
        for wrong, field, expected in (
            (self.encoding not in ENCODINGS[self.name], "encoding", f"one of {allowed}"),
            (len(self.shape) != dimensions, "shape", f"{dimensions} whole numbers"),
            (size > most, "shape", f"an array of at most {most} bytes"),
            (wide, "dtype", "uint8"),
            (compressed, "compression", f"none for {self.encoding}"),
            (based, "base", "an exit for delta, and for nothing else"),
            (framed, "base_frame", "nothing without a base"),
            (plain and self.size != size, "bytes", f"{size}, as the shape says"),
        ):
            if wrong:
                value = self.size if field == "bytes" else getattr(self, field)
                found = "nothing" if value is None else describe(value)
                raise FieldError(field, found, f"{expected} ({self.name})")
        return self


def split(parts: Iterable[ArraySegment], payload: bytes) -> list[bytes]:
    """The bytes of each part, in order.

    Raises:
        PayloadError: the parts' sizes do not add up to the payload's.
    """
    pieces: list[bytes] = []
    position = 0
    for part in parts:
        pieces.append(payload[position : position + part.size])
        position += part.size
    if position != len(payload):
        raise PayloadError(f"payload: found {len(payload)} bytes, the parts say {position}")
    return pieces


def unpack(part: ArraySegment, piece: bytes, base: bytes | None = None) -> bytes:
    """The array's bytes from a `raw` or `delta` part.

    Args:
        part: describes the piece.
        piece: the part's bytes, as `split` gives them.
        base: for a delta, the bytes of the same array as of exit `part.base`.

    Returns:
        `part.array_bytes` bytes, C order, little-endian.

    Raises:
        PayloadError: the piece does not fit its description, the base is missing or of another
            size, or the part is a PNG or RLE, which need a decoder of their own.
    """
    match part.encoding:
        case Encoding.RAW:
            array = inflate(part, piece, part.array_bytes)
        case Encoding.DELTA:
            if base is None or len(base) != part.array_bytes:
                found = "no base" if base is None else f"a base of {len(base)} bytes"
                raise PayloadError(f"{part.name}: found {found}, expected {part.array_bytes} bytes")
            array = delta.apply(base, inflate(part, piece, delta.largest(part.array_bytes)))
        case _:
            raise PayloadError(f"{part.name}: {part.encoding} is decoded by an image library")
    if len(array) != part.array_bytes:
        raise PayloadError(f"{part.name}: found {len(array)} bytes, expected {part.array_bytes}")
    return array


def inflate(part: ArraySegment, piece: bytes, limit: int) -> bytes:
    """A `raw` or `delta` part's bytes without their compression.

    Args:
        part: describes the piece.
        piece: the part's bytes, as `split` gives them.
        limit: bytes that the result may have; more are never made.

    Raises:
        PayloadError: the piece is not one whole zlib stream, or holds more than `limit` bytes.
    """
    if part.compression is Compression.NONE:
        return piece
    inflater = zlib.decompressobj()
    try:
        body = inflater.decompress(piece, limit + 1)
    except zlib.error as error:
        raise PayloadError(f"{part.name}: not a zlib stream ({error})") from error
    if len(body) > limit or not inflater.eof or inflater.unused_data:
        raise PayloadError(f"{part.name}: expected one zlib stream of at most {limit} bytes")
    return body


def pack(array: bytes, compression: Compression) -> bytes:
    """A part's bytes from its encoded bytes; zlib at its fastest level."""
    return zlib.compress(array, 1) if compression is Compression.ZLIB else array
