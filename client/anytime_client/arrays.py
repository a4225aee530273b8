"""The arrays of a request's updates as numpy arrays, deltas applied.

`anytime_protocol.arrays.delta` defines the delta format; here whole arrays are decoded at once,
with the same checks. The protocol's session has checked that a delta's base is the last update.
"""

from __future__ import annotations

import io
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anytime_protocol.arrays import rle
from anytime_protocol.arrays.delta import largest
from anytime_protocol.arrays.segments import ArraySegment, inflate, split, unpack
from anytime_protocol.enums import ArrayName, DType, Encoding
from anytime_protocol.errors import PayloadError

Array: TypeAlias = NDArray[Any]

_DTYPES: Final[dict[DType, str]] = {
    DType.UINT8: "u1",
    DType.FLOAT16: "<f2",
    DType.FLOAT32: "<f4",
}


class DeltaDecoder:
    """Decodes the updates of one request; keeps the last array of each name as the deltas' base."""

    def __init__(self) -> None:
        self._arrays: dict[ArrayName, Array] = {}

    def decode(self, segments: tuple[ArraySegment, ...], payload: bytes) -> dict[ArrayName, Array]:
        """Decodes an update's payload.

        Returns:
            The update's arrays by name, read-only, of the segments' shapes. If one of them is
            faulty none is kept.

        Raises:
            PayloadError: a segment does not fit its description or the array that it changes.
        """
        arrays = {
            segment.name: decode_segment(segment, data, self._arrays.get(segment.name))
            for segment, data in zip(segments, split(segments, payload), strict=True)
        }
        for array in arrays.values():
            array.flags.writeable = False
        self._arrays.update(arrays)
        return arrays


def decode_segment(segment: ArraySegment, data: bytes, base: Array | None = None) -> Array:
    """One segment's array.

    Args:
        segment: describes the data.
        data: the segment's bytes.
        base: for a delta, the array of the same name as of exit `segment.base`.

    Returns:
        An array of `segment.shape` and `segment.dtype`.

    Raises:
        PayloadError: the data do not fit their description, or the base is missing or of another
            size.
    """
    match segment.encoding:
        case Encoding.RAW:
            flat = np.frombuffer(unpack(segment, data), _DTYPES[segment.dtype])
        case Encoding.DELTA:
            if base is None or base.nbytes != segment.array_bytes:
                found = "no base" if base is None else f"a base of {base.nbytes} bytes"
                raise PayloadError(
                    f"{segment.name}: found {found}, expected {segment.array_bytes} bytes"
                )
            changes = inflate(segment, data, largest(segment.array_bytes))
            flat = apply_delta(base.reshape(-1).view(np.uint8), changes)
        case Encoding.RLE:
            flat = np.frombuffer(rle.decode(data, segment.shape), np.uint8)
        case Encoding.PNG:
            return _decode_png(segment, data)
    return flat.reshape(segment.shape)


def apply_delta(base: NDArray[np.uint8], delta: bytes) -> NDArray[np.uint8]:
    """What `anytime_protocol.arrays.delta.apply` gives, without a Python step per run.

    Args:
        base: flat, uint8.
        delta: as the protocol writes it.

    Raises:
        PayloadError: as the definition does.
    """
    if len(delta) < 4:
        raise PayloadError(f"delta: found {len(delta)} bytes, expected at least 4")
    count = int.from_bytes(delta[:4], "big")
    values_at = 4 + 8 * count
    if values_at > len(delta):
        raise PayloadError(f"delta: {count} runs take {values_at} bytes, found {len(delta)}")
    counters = np.frombuffer(delta, ">u4", 2 * count, 4).astype(np.int64).reshape(2, count)
    skips, lengths = counters
    values = np.frombuffer(delta, np.uint8, offset=values_at)
    if (lengths == 0).any():
        raise PayloadError("delta: found an empty run, expected lengths of at least 1")
    stops = np.cumsum(skips + lengths)
    if count and stops[-1] > base.size:
        raise PayloadError(f"delta: a run ends at {stops[-1]}, the base at {base.size}")
    needed = int(lengths.sum())
    if needed != values.size:
        raise PayloadError(f"delta: the runs take {needed} values, found {values.size}")
    result = base.copy()
    result[_positions(stops - lengths, lengths)] = values
    return result


def _positions(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every position of every run: each run's start repeated, plus the place within the run."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


def _decode_png(segment: ArraySegment, data: bytes) -> Array:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if (image.height, image.width) != segment.shape or image.mode not in {"L", "P"}:
                found = f"{image.mode} of {image.height} x {image.width} px"
                raise PayloadError(f"{segment.name}: found a PNG, {found}, expected 8 bits a pixel")
            return np.asarray(image, np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PayloadError(f"{segment.name}: not a PNG file ({error})") from error
