"""Class maps as COCO run-length strings, one per class, in plain Python.

The runs and their string form are those of the COCO API, so that any tool that reads COCO masks
reads ours. Runs go down the columns, alternate between outside and
inside of the mask and begin with outside. A server at full rate uses the COCO library instead.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Final

from pydantic import Field, ValidationError

from anytime_protocol.errors import PayloadError
from anytime_protocol.validation import JsonObject, JsonValue, adapter_of, whole

_CHUNK_BITS: Final = 5
_SIGN: Final = 0x10
_MORE: Final = 0x20
_FIRST_CHARACTER: Final = 48
_MAX_CHUNKS: Final = 7


@dataclass(frozen=True, slots=True)
class Segment(JsonValue):
    """The pixels of one class.

    Attributes:
        class_id: 0 to 255 (`class` in the JSON).
        size: (H, W) of the map in px.
        counts: the run-length string.
    """

    class_id: Annotated[int, whole(0, 255), Field(alias="class")]
    size: tuple[int, int]
    counts: str


def encode(array: bytes, shape: tuple[int, int]) -> list[JsonObject]:
    """The segments of a class map.

    Args:
        array: class ids, row by row.
        shape: (H, W) in px.

    Returns:
        The JSON of one `Segment` for each class that occurs, by rising id.

    Raises:
        PayloadError: the array has not H * W bytes.
    """
    height, width = shape
    if len(array) != height * width:
        raise PayloadError(f"rle: found {len(array)} bytes, expected {height} x {width}")
    columns = b"".join(array[column::width] for column in range(width))
    runs = [(value, sum(1 for _ in run)) for value, run in groupby(columns)]
    return [
        Segment(class_id, shape, to_string(_counts(runs, class_id))).to_json()
        for class_id in sorted(set(array))
    ]


def decode(payload: bytes, shape: tuple[int, ...]) -> bytes:
    """The class map of an `rle` part.

    Args:
        payload: JSON, a list of segments.
        shape: (H, W) in px.

    Returns:
        H * W class ids, row by row.

    Raises:
        PayloadError: not a list of segments of this size that cover each pixel once.
    """
    height, width = shape
    try:
        segments: tuple[Segment, ...] = adapter_of(tuple[Segment, ...]).validate_json(
            payload, extra="ignore"
        )
    except ValidationError as error:
        raise PayloadError(f"rle: not a list of segments ({error.errors()[0]['msg']})") from None
    columns = bytearray(height * width)
    covered = 0
    for segment in segments:
        class_id, position, inside = segment.class_id, 0, False
        if segment.size != shape:
            raise PayloadError(f"rle: found the size {segment.size}, expected {shape}")
        for count in from_string(segment.counts):
            if position + count > len(columns):
                raise PayloadError(f"rle: class {class_id} runs beyond the {len(columns)} pixels")
            if inside:
                columns[position : position + count] = bytes((class_id,)) * count
                covered += count
            position += count
            inside = not inside
        if position != len(columns):
            raise PayloadError(f"rle: class {class_id} ends at {position} of {len(columns)} pixels")
    if covered != len(columns):
        raise PayloadError(f"rle: {covered} pixels are given, the map has {len(columns)}")
    return b"".join(bytes(columns[row::height]) for row in range(height))


def to_string(counts: Iterable[int]) -> str:
    """The COCO string of run lengths.

    From the fourth on a length is written as its difference to the one before the last. A number
    is cut into groups of five bits, least significant first, with a sixth that says whether more
    follow; each group is a character from `0` on.
    """
    text: list[str] = []
    history: list[int] = []
    for count in counts:
        value = count - history[-2] if len(history) > 2 else count
        history.append(count)
        more = True
        while more:
            chunk = value & (_MORE - 1)
            value >>= _CHUNK_BITS
            more = value != (-1 if chunk & _SIGN else 0)
            text.append(chr(_FIRST_CHARACTER + (chunk | _MORE if more else chunk)))
    return "".join(text)


def from_string(text: str) -> list[int]:
    """The run lengths of a COCO string.

    Raises:
        PayloadError: a character is out of range, the string is truncated or a length negative.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        chunk = ord(character) - _FIRST_CHARACTER
        if not 0 <= chunk < 2 * _MORE or shift > _MAX_CHUNKS * _CHUNK_BITS:
            raise PayloadError(f"rle: {character!r} does not belong into a run-length string")
        value |= (chunk & (_MORE - 1)) << shift
        shift += _CHUNK_BITS
        if chunk & _MORE:
            continue
        if chunk & _SIGN:
            value -= 1 << shift
        if len(counts) > 2:
            value += counts[-2]
        if value < 0:
            raise PayloadError(f"rle: found a run of {value} pixels")
        counts.append(value)
        value = shift = 0
    if shift:
        raise PayloadError("rle: the run-length string is truncated")
    return counts


def _counts(runs: Iterable[tuple[int, int]], class_id: int) -> list[int]:
    """Lengths that alternate between outside and inside of a class, outside first."""
    groups = groupby(runs, key=lambda run: run[0] == class_id)
    lengths = [(inside, sum(length for _, length in group)) for inside, group in groups]
    return ([0] if lengths[0][0] else []) + [length for _, length in lengths]
