"""Payloads as arrays: the same as the protocol's definition, in every encoding."""

import io
import json
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anytime_client.arrays import DeltaDecoder, apply_delta, decode_segment
from anytime_protocol.arrays import delta, rle
from anytime_protocol.arrays.segments import ArraySegment
from anytime_protocol.enums import ArrayName, Compression, DType, Encoding
from anytime_protocol.errors import PayloadError
from client.factories import raw_segment

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
def test_any_bytes_are_the_delta_of_the_definition_or_refused_like_there(base, counters, rest):
    delta_bytes = counters + rest
    try:
        expected = delta.apply(base, delta_bytes)
    except PayloadError:
        with pytest.raises(PayloadError):
            apply_delta(flat(base), delta_bytes)
    else:
        assert apply_delta(flat(base), delta_bytes).tobytes() == expected


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
    ("encoding", "compression", "data"),
    [
        (Encoding.RAW, Compression.NONE, MAP.tobytes()),
        (Encoding.RAW, Compression.ZLIB, zlib.compress(MAP.tobytes())),
        (Encoding.PNG, Compression.NONE, _png(MAP)),
        (Encoding.RLE, Compression.NONE, json.dumps(rle.encode(MAP.tobytes(), (2, 3))).encode()),
    ],
)
def test_every_encoding_gives_the_same_map(encoding, compression, data):
    segment = ArraySegment(ArrayName.MAP, encoding, (2, 3), len(data), compression=compression)
    np.testing.assert_array_equal(decode_segment(segment, data), MAP)


@pytest.mark.parametrize(("dtype", "numpy"), [(DType.FLOAT16, "<f2"), (DType.FLOAT32, "<f4")])
def test_heatmaps_keep_their_type(dtype, numpy):
    planes = np.arange(12, dtype=numpy).reshape(2, 2, 3)
    segment = ArraySegment(ArrayName.HEATMAPS, Encoding.RAW, (2, 2, 3), planes.nbytes, dtype)
    np.testing.assert_array_equal(decode_segment(segment, planes.tobytes()), planes)


def test_compressed_deltas_are_applied_one_upon_the_other():
    decoder = DeltaDecoder()
    first, second = MAP.tobytes(), bytes([0, 3, 3, 0, 3, 3])
    decoder.decode((raw_segment(),), first)
    data = zlib.compress(delta.encode(first, second))
    segment = ArraySegment(
        ArrayName.MAP, Encoding.DELTA, (2, 3), len(data), compression=Compression.ZLIB, base=1
    )
    assert decoder.decode((segment,), data)[ArrayName.MAP].tobytes() == second


def test_arrays_are_read_only():
    arrays = DeltaDecoder().decode((raw_segment(),), MAP.tobytes())
    with pytest.raises(ValueError, match="read-only"):
        arrays[ArrayName.MAP][0, 0] = 1


@pytest.mark.parametrize(
    ("segment", "data", "message"),
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
def test_data_that_do_not_fit_their_description_are_refused(segment, data, message):
    with pytest.raises(PayloadError, match=message):
        decode_segment(segment, data)


def test_a_compressed_delta_cannot_be_a_bomb():
    bomb = zlib.compress(bytes(10_000_000))
    segment = ArraySegment(
        ArrayName.MAP, Encoding.DELTA, (2, 3), len(bomb), compression=Compression.ZLIB, base=1
    )
    with pytest.raises(PayloadError, match="at most"):
        decode_segment(segment, bomb, MAP)
