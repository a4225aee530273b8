"""Payloads from a stranger: each is an array of the announced size, or a payload error."""

import struct
import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from anytime_client.arrays import apply_delta, decode_segment
from anytime_protocol.arrays import delta, rle
from anytime_protocol.arrays.segments import ArraySegment, pack, split
from anytime_protocol.enums import ArrayName, Compression, Encoding
from anytime_protocol.errors import FieldError, PayloadError
from anytime_server import encoding
from fuzz.mutations import damaged

SHAPE = (30, 40)
BASE = np.random.default_rng(0).integers(0, 5, SHAPE, dtype=np.uint8)
NEW = np.where(np.arange(40) % 7 < 5, BASE, 9).astype(np.uint8)
PALETTE = bytes(range(30))
DELTA = encoding.delta(BASE, NEW)
RLE = encoding.json.dumps(encoding.rle_segments(NEW)).encode()
PNG = encoding.png(NEW, PALETTE)


def outcome(compute):
    """The result; `PayloadError` in place of one."""
    try:
        return bytes(compute())
    except PayloadError:
        return PayloadError


@given(damaged([DELTA, encoding.delta(BASE, BASE), struct.pack(">I", 2**32 - 1)]))
def test_both_readers_of_deltas_agree_on_what_is_one(changes):
    defined = outcome(lambda: delta.apply(BASE.tobytes(), changes))
    assert outcome(lambda: apply_delta(BASE.ravel(), changes)) == defined
    assert defined is PayloadError or len(defined) == BASE.size


@given(damaged([RLE, b"[]", b'[{"class":0,"size":[30,40],"counts":"00"}]']))
def test_a_list_of_run_lengths_is_a_whole_map_or_an_error(payload):
    found = outcome(lambda: rle.decode(payload, SHAPE))
    assert found is PayloadError or len(found) == BASE.size


@given(st.text(alphabet=[chr(code) for code in range(40, 115)], max_size=200))
def test_a_run_length_string_that_is_read_is_written_the_same(text):
    try:
        counts = rle.from_string(text)
    except PayloadError:
        return
    assert rle.from_string(rle.to_string(counts)) == counts


@given(
    st.sampled_from(Encoding),
    st.sampled_from(Compression),
    damaged(
        [DELTA, RLE, PNG, NEW.tobytes(), zlib.compress(NEW.tobytes()), zlib.compress(bytes(10**6))]
    ),
    st.booleans(),
)
def test_a_part_is_an_array_of_its_shape_or_an_error(kind, compression, piece, packed):
    if packed:
        piece = pack(piece, compression)
    base = 1 if kind is Encoding.DELTA else None
    try:
        part = ArraySegment(
            ArrayName.MAP, kind, SHAPE, len(piece), compression=compression, base=base
        )
        (same,) = split((part,), piece)
        array = decode_segment(part, same, BASE)
    except (PayloadError, FieldError):
        return
    assert array.shape == SHAPE
    assert array.dtype == np.uint8
