"""Payloads as arrays: the same as the protocol's definition, in every encoding."""

import io
import json
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anytime_client.arrays import Canvas, apply_delta, decode
from anytime_protocol import delta, rle
from anytime_protocol.arrays import ArraySegment
from anytime_protocol.enums import ArrayName, Compression, DType, Encoding
from anytime_protocol.errors import PayloadError

ARRAYS = st.integers(0, 200).flatmap(
    lambda n: st.tuples(st.binary(min_size=n, max_size=n), st.binary(min_size=n, max_size=n))
)
U32 = st.integers(0, 12).map(lambda n: n.to_bytes(4, "big"))


def flat(data):
    return np.frombuffer(data, np.uint8)


@given(ARRAYS)
def test_a_delta_gives_the_new_array(pair):
    base, new = pair
    assert apply_delta(flat(base), delta.encode(base, new)).tobytes() == new


@given(st.binary(max_size=12), st.lists(U32, max_size=8).map(b"".join), st.binary(max_size=12))
def test_a_foreign_delta_means_what_the_definition_says_or_is_refused_like_it(base, counters, rest):
    foreign = counters + rest
    try:
        expected = delta.apply(base, foreign)
    except PayloadError:
        with pytest.raises(PayloadError):
            apply_delta(flat(base), foreign)
    else:
        assert apply_delta(flat(base), foreign).tobytes() == expected


def test_a_delta_that_announces_billions_of_runs_is_refused_without_memory():
    with pytest.raises(PayloadError, match="4294967295 runs"):
        apply_delta(flat(b"abc"), b"\xff\xff\xff\xff")


def test_the_base_is_left_as_it_was():
    base = flat(b"\0\0\0\0")
    apply_delta(base, delta.encode(b"\0\0\0\0", b"\0\1\1\0"))
    assert base.tobytes() == b"\0\0\0\0"


MAP = np.array([[0, 0, 3], [0, 3, 3]], np.uint8)


def _png(array):
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("encoding", "compression", "piece"),
    [
        (Encoding.RAW, Compression.NONE, MAP.tobytes()),
        (Encoding.RAW, Compression.ZLIB, zlib.compress(MAP.tobytes())),
        (Encoding.PNG, Compression.NONE, _png(MAP)),
        (Encoding.RLE, Compression.NONE, json.dumps(rle.encode(MAP.tobytes(), (2, 3))).encode()),
    ],
)
def test_every_encoding_gives_the_same_map(encoding, compression, piece):
    part = ArraySegment(ArrayName.MAP, encoding, (2, 3), len(piece), compression=compression)
    np.testing.assert_array_equal(decode(part, piece), MAP)


@pytest.mark.parametrize(("dtype", "numpy"), [(DType.FLOAT16, "<f2"), (DType.FLOAT32, "<f4")])
def test_heatmaps_keep_their_type(dtype, numpy):
    planes = np.arange(12, dtype=numpy).reshape(2, 2, 3)
    part = ArraySegment(ArrayName.HEATMAPS, Encoding.RAW, (2, 2, 3), planes.nbytes, dtype)
    np.testing.assert_array_equal(decode(part, planes.tobytes()), planes)


def test_a_canvas_applies_deltas_of_compressed_parts_one_upon_the_other():
    canvas = Canvas()
    first, second = MAP.tobytes(), bytes([0, 3, 3, 0, 3, 3])
    canvas.apply([ArraySegment(ArrayName.MAP, Encoding.RAW, (2, 3), 6)], first)
    piece = zlib.compress(delta.encode(first, second))
    part = ArraySegment(
        ArrayName.MAP, Encoding.DELTA, (2, 3), len(piece), compression=Compression.ZLIB, base=1
    )
    assert canvas.apply([part], piece)[ArrayName.MAP].tobytes() == second


def test_arrays_are_read_only():
    arrays = Canvas().apply([ArraySegment(ArrayName.MAP, Encoding.RAW, (2, 3), 6)], MAP.tobytes())
    with pytest.raises(ValueError, match="read-only"):
        arrays[ArrayName.MAP][0, 0] = 1


@pytest.mark.parametrize(
    ("part", "piece", "message"),
    [
        (ArraySegment(ArrayName.MAP, Encoding.DELTA, (2, 3), 4, base=1), b"\0\0\0\0", "no base"),
        (ArraySegment(ArrayName.MAP, Encoding.PNG, (2, 3), 4), b"nope", "not a PNG"),
        (ArraySegment(ArrayName.MAP, Encoding.PNG, (3, 3), 4), _png(MAP), "2 x 3"),
        (ArraySegment(ArrayName.MAP, Encoding.RLE, (2, 3), 2), b"{}", "segment"),
        (
            ArraySegment(ArrayName.MAP, Encoding.RAW, (2, 3), 4, compression=Compression.ZLIB),
            zlib.compress(bytes(10_000_000)),
            "at most 6 bytes",
        ),
    ],
)
def test_a_part_that_does_not_fit_is_refused(part, piece, message):
    with pytest.raises(PayloadError, match=message):
        decode(part, piece)


def test_a_compressed_delta_cannot_be_a_bomb():
    bomb = zlib.compress(bytes(10_000_000))
    part = ArraySegment(
        ArrayName.MAP, Encoding.DELTA, (2, 3), len(bomb), compression=Compression.ZLIB, base=1
    )
    with pytest.raises(PayloadError, match="at most"):
        decode(part, bomb, MAP)
