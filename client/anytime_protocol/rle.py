"""Class maps as COCO run-length strings, one per class, in plain Python.

Decides nothing of its own: the runs and their string form are those of the COCO API, so that any
tool that reads COCO masks reads ours. Runs go down the columns, alternate between outside and
inside of the mask and begin with outside. A server at full rate uses the COCO library instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import groupby
from typing import Final, TypedDict

from anytime_protocol.errors import PayloadError
from anytime_protocol.json_reader import describe, is_whole

_CHUNK_BITS: Final = 5
_SIGN: Final = 0x10
_MORE: Final = 0x20
_FIRST_CHARACTER: Final = 48
_MAX_CHUNKS: Final = 7

# `class` is a keyword of Python, so that this one type needs the functional form.
Segment = TypedDict("Segment", {"class": int, "size": list[int], "counts": str})
"""The pixels of one class: its id, (H, W) of the map in px, and the run-length string."""


def encode(array: bytes, shape: tuple[int, int]) -> list[Segment]:
    """The segments of a class map.

    Args:
        array: class ids, row by row.
        shape: (H, W) in px.

    Returns:
        One segment for each class that occurs, by rising id.

    Raises:
        PayloadError: the array has not H * W bytes.
    """
    height, width = shape
    if len(array) != height * width:
        raise PayloadError(f"rle: found {len(array)} bytes, expected {height} x {width}")
    columns = b"".join(array[column::width] for column in range(width))
    runs = [(value, sum(1 for _ in run)) for value, run in groupby(columns)]
    segments: list[Segment] = []
    for class_id in sorted(set(array)):
        counts = _merge((value == class_id, length) for value, length in runs)
        segments.append({"class": class_id, "size": [height, width], "counts": to_string(counts)})
    return segments


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
    columns = bytearray(height * width)
    covered = 0
    for class_id, counts in _segments(payload, height, width):
        position, inside = 0, False
        for count in from_string(counts):
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


def _merge(runs: Iterable[tuple[bool, int]]) -> list[int]:
    """Lengths that alternate between outside and inside, outside first."""
    counts = [0]
    inside = False
    for is_inside, length in runs:
        if is_inside == inside:
            counts[-1] += length
        else:
            counts.append(length)
            inside = is_inside
    return counts


def _segments(payload: bytes, height: int, width: int) -> list[tuple[int, str]]:
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise PayloadError("rle: the payload is not JSON") from error
    segments: list[tuple[int, str]] = []
    for item in value if isinstance(value, list) else [value]:
        match item:
            case {"class": class_id, "size": [h, w], "counts": str(counts)} if (
                is_whole(class_id) and 0 <= class_id <= 255 and (h, w) == (height, width)
            ):
                segments.append((class_id, counts))
            case _:
                form = f"class, size [{height}, {width}] and counts"
                raise PayloadError(f"rle: found {describe(item)}, expected a segment with {form}")
    return segments
