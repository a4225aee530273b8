"""Arrays in a payload: descriptions, splitting, compression and its bounds."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytime_protocol.arrays import delta, segments
from anytime_protocol.arrays.segments import ArraySegment
from anytime_protocol.enums import ArrayName, Compression, DType, Encoding
from anytime_protocol.errors import FieldError, PayloadError
from anytime_protocol.validation import JsonObject

MAP: JsonObject = {
    "name": "map",
    "encoding": "raw",
    "dtype": "uint8",
    "shape": [2, 3],
    "bytes": 6,
}


def test_a_description_survives_the_wire() -> None:
    heatmaps = ArraySegment(ArrayName.HEATMAPS, Encoding.RAW, (14, 8, 6), 1344, DType.FLOAT16)
    changed = ArraySegment(
        ArrayName.MAP, Encoding.DELTA, (2, 3), 9, compression=Compression.ZLIB, base=1
    )
    for part in (heatmaps, changed):
        assert ArraySegment.from_json(part.to_json()) == part


def test_a_description_that_makes_no_sense_is_refused() -> None:
    for change, field in (
        ({"name": "mask"}, "name"),
        ({"encoding": "gif"}, "encoding"),
        ({"name": "heatmaps", "encoding": "png"}, "encoding"),
        ({"name": "confidence", "encoding": "rle"}, "encoding"),
        ({"dtype": "int64"}, "dtype"),
        ({"dtype": "float32", "bytes": 24}, "dtype"),
        ({"shape": [2]}, "shape"),
        ({"shape": [2, 3, 1]}, "shape"),
        ({"shape": [0, 3]}, "shape[0]"),
        ({"shape": [True, 6]}, "shape[0]"),
        ({"shape": [2, "3"]}, "shape[1]"),
        ({"shape": [65_535, 65_535]}, "shape"),
        ({"bytes": 5}, "bytes"),
        ({"bytes": -1}, "bytes"),
        ({"encoding": "png", "compression": "zlib"}, "compression"),
        ({"encoding": "delta"}, "base"),
        ({"encoding": "delta", "base": 0}, "base"),
    ):
        with pytest.raises(FieldError) as caught:
            ArraySegment.from_json(MAP | change)
        assert caught.value.field == field


def test_parts_lie_one_after_the_other() -> None:
    first = ArraySegment(ArrayName.MAP, Encoding.RAW, (1, 2), 2)
    second = ArraySegment(ArrayName.ACTIVE, Encoding.RAW, (1, 3), 3)
    assert segments.split((first, second), b"abcde") == [b"ab", b"cde"]
    for wrong in (b"abcd", b"abcdef"):
        with pytest.raises(PayloadError):
            segments.split((first, second), wrong)


@given(st.binary(min_size=1, max_size=300), st.sampled_from(Compression), st.data())
def test_raw_and_delta_parts_come_back(
    array: bytes, compression: Compression, data: st.DataObject
) -> None:
    size = len(array)
    base = data.draw(st.binary(min_size=size, max_size=size))
    raw = segments.pack(array, compression)
    part = ArraySegment(ArrayName.MAP, Encoding.RAW, (1, size), len(raw), compression=compression)
    assert segments.unpack(part, raw) == array
    changes = segments.pack(delta.encode(base, array), compression)
    part = ArraySegment(
        ArrayName.MAP, Encoding.DELTA, (1, size), len(changes), compression=compression, base=1
    )
    assert segments.unpack(part, changes, base) == array


def test_a_compression_bomb_is_not_inflated() -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    part = ArraySegment(
        ArrayName.MAP, Encoding.RAW, (2, 3), len(bomb), compression=Compression.ZLIB
    )
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError, match="at most 6 bytes"):
            segments.unpack(part, bomb)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1_000_000


@pytest.mark.parametrize(
    "piece",
    [b"", b"no zlib", zlib.compress(b"abcdef")[:-2], zlib.compress(b"abcdef") + b"more"],
)
def test_a_broken_stream_is_refused(piece: bytes) -> None:
    part = ArraySegment(
        ArrayName.MAP, Encoding.RAW, (2, 3), len(piece), compression=Compression.ZLIB
    )
    with pytest.raises(PayloadError):
        segments.unpack(part, piece)


def test_a_delta_needs_the_base_that_it_was_made_for() -> None:
    part = ArraySegment(ArrayName.MAP, Encoding.DELTA, (2, 3), 4, base=1)
    with pytest.raises(PayloadError, match="no base"):
        segments.unpack(part, b"\0\0\0\0")
    with pytest.raises(PayloadError, match="a base of 5 bytes"):
        segments.unpack(part, b"\0\0\0\0", b"short")


def test_images_are_left_to_an_image_library() -> None:
    with pytest.raises(PayloadError, match="png"):
        segments.unpack(ArraySegment(ArrayName.MAP, Encoding.PNG, (2, 3), 4), b"\x89PNG")
