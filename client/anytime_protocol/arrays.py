"""The arrays inside one payload: their description in JSON and their bytes, one after the other.

Decides which array may be written in which encoding, how long each part is, and how `raw` and
`delta` parts become the array's bytes again. Does not know PNG, nor numpy: a caller turns the bytes
into whatever it likes.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from anytime_protocol import delta
from anytime_protocol.enums import ArrayName, Compression, DType, Encoding
from anytime_protocol.errors import PayloadError
from anytime_protocol.json_reader import JsonObject, JsonReader, is_whole

MAX_SIDE: Final = 65_535
"""Largest extent of an array, px."""

MAX_PART_BYTES: Final = 2**30
"""Bytes that one array may have when it is decoded."""

ENCODINGS: Final[dict[ArrayName, frozenset[Encoding]]] = {
    ArrayName.MAP: frozenset(Encoding),
    ArrayName.CONFIDENCE: frozenset({Encoding.PNG, Encoding.RAW, Encoding.DELTA}),
    ArrayName.ACTIVE: frozenset({Encoding.PNG, Encoding.RAW, Encoding.DELTA}),
    ArrayName.HEATMAPS: frozenset({Encoding.RAW}),
}
"""The encodings that make sense for each array."""


@dataclass(frozen=True, slots=True)
class ArraySegment:
    """Describes one array of a payload.

    Attributes:
        name: what it shows.
        encoding: how it is written.
        shape: (H, W), or (J, H, W) for heatmaps; px of the map at its scale.
        size: bytes that it takes in the payload (`bytes` on the wire).
        dtype: element type; everything but heatmaps is uint8.
        compression: of `raw` and `delta` parts only.
        base: for `delta`, the exit whose array of the same name it changes; else None.
    """

    name: ArrayName
    encoding: Encoding
    shape: tuple[int, ...]
    size: int
    dtype: DType = DType.UINT8
    compression: Compression = Compression.NONE
    base: int | None = None

    @property
    def array_bytes(self) -> int:
        """Bytes of the decoded array."""
        return math.prod(self.shape) * self.dtype.itemsize

    @classmethod
    def read(cls, fields: JsonReader) -> ArraySegment:
        """Reads a part's description.

        Raises:
            FieldError: a field is missing, malformed or does not go with the others.
        """
        name = fields.word("name", ArrayName)
        encoding = fields.word("encoding", Encoding)
        if encoding not in ENCODINGS[name]:
            allowed = ", ".join(sorted(ENCODINGS[name]))
            raise fields.fail("encoding", str(encoding), f"one of {allowed} for {name}")
        part = cls(
            name=name,
            encoding=encoding,
            shape=_read_shape(fields, 3 if name is ArrayName.HEATMAPS else 2),
            size=fields.integer("bytes", 0, MAX_PART_BYTES),
            dtype=fields.word("dtype", DType),
            compression=_read_compression(fields, encoding),
            base=fields.integer("base", 1, 64) if encoding is Encoding.DELTA else None,
        )
        if part.dtype is not DType.UINT8 and name is not ArrayName.HEATMAPS:
            raise fields.fail("dtype", str(part.dtype), f"uint8 for {name}")
        if part.array_bytes > MAX_PART_BYTES:
            raise fields.fail("shape", list(part.shape), f"at most {MAX_PART_BYTES} bytes")
        plain = part.encoding is Encoding.RAW and part.compression is Compression.NONE
        if plain and part.size != part.array_bytes:
            raise fields.fail("bytes", part.size, f"{part.array_bytes}, as the shape says")
        return part

    def to_json(self) -> JsonObject:
        """The wire form."""
        wire: JsonObject = {
            "name": self.name,
            "encoding": self.encoding,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "bytes": self.size,
        }
        if self.compression is not Compression.NONE:
            wire["compression"] = self.compression
        if self.base is not None:
            wire["base"] = self.base
        return wire


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


def _read_shape(fields: JsonReader, dimensions: int) -> tuple[int, ...]:
    shape = fields.items("shape", dimensions)
    sides = [n for n in shape if is_whole(n) and 1 <= n <= MAX_SIDE]
    if len(shape) != dimensions or len(sides) != dimensions:
        raise fields.fail("shape", shape, f"{dimensions} whole numbers from 1 to {MAX_SIDE}")
    return tuple(sides)


def _read_compression(fields: JsonReader, encoding: Encoding) -> Compression:
    if not fields.has("compression"):
        return Compression.NONE
    compression = fields.word("compression", Compression)
    if compression is not Compression.NONE and encoding in {Encoding.PNG, Encoding.RLE}:
        raise fields.fail("compression", str(compression), f"none for {encoding}")
    return compression
