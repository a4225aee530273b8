"""Rendered exits to bytes, read back by the protocol's own decoders."""

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from anytime_protocol.arrays import delta, rle
from anytime_protocol.arrays.segments import ArraySegment, split, unpack
from anytime_protocol.enums import ArrayName, Compression, Encoding
from anytime_protocol.messages import OutputOptions
from anytime_server import encoding
from anytime_server.encoding import encode
from anytime_server.executor.base import RenderedExit

PALETTE = bytes(range(30))


def bit_depth(png):
    """Of a PNG file, by its header."""
    return png[24]


planes = arrays(
    np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 9)
)


def rendered(exit_, labels=None, **arrays_):
    values = dict.fromkeys(("keypoints", "confidence", "active", "heatmaps")) | arrays_
    height, width = (8, 8) if labels is None else labels.shape
    return RenderedExit(exit_, height, width, labels, elapsed_s=0.001, **values)


@given(planes, st.data())
def test_the_fast_delta_is_the_documented_one(base, data):
    new = data.draw(arrays(np.uint8, base.shape, elements=st.integers(0, 9)))
    assert encoding.delta(base, new) == delta.encode(base.tobytes(), new.tobytes())


@given(planes)
def test_the_fast_run_lengths_are_the_documented_ones(plane):
    assert encoding.rle_segments(plane) == rle.encode(plane.tobytes(), plane.shape)


@given(planes)
def test_a_png_keeps_ids_and_palette(plane):
    image = Image.open(io.BytesIO(encoding.png(plane, PALETTE)))
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image), plane)
    assert bytes(image.getpalette()[:30]) == PALETTE
    assert Image.open(io.BytesIO(encoding.png(plane, None))).mode == "L"


@pytest.mark.parametrize("colors", [None, 1, 2, 5, 16, 17, 256])
def test_a_png_has_8_bits_a_pixel_however_many_classes_there_are(colors):
    palette = None if colors is None else bytes(range(256))[:colors] * 3
    assert Image.open(io.BytesIO(encoding.png(np.zeros((3, 4), np.uint8), palette))).size == (4, 3)
    file = encoding.png(np.zeros((3, 4), np.uint8), palette)
    assert bit_depth(file) == 8


@pytest.mark.parametrize("compression", list(Compression))
@given(planes, st.data())
def test_updates_add_up_to_the_map_whatever_was_sent_before(compression, first, data):
    want = OutputOptions(Encoding.DELTA, compression)
    sent, held, exit_ = {}, {}, 0
    for number in range(1, 4):
        plane = data.draw(arrays(np.uint8, first.shape, elements=st.integers(0, 3)))
        shown = rendered(number, plane, confidence=plane * 20)
        encoded = encode(shown, want, PALETTE, exit_, sent)
        sent = encoded.kept
        for part, piece in zip(encoded.parts, split(encoded.parts, encoded.payload), strict=True):
            assert ArraySegment.from_json(part.to_json()) == part
            assert part.base in {None, exit_}
            held[part.name] = unpack(part, piece, held.get(part.name))
        exit_ = number
        assert held[ArrayName.MAP] == plane.tobytes()
        assert held[ArrayName.CONFIDENCE] == (plane * 20).tobytes()


def test_a_delta_that_is_longer_is_raw():
    base = np.zeros((4, 4), np.uint8)
    new = np.arange(16, dtype=np.uint8).reshape(4, 4) * 7
    want = OutputOptions(Encoding.DELTA)
    (part,) = encode(rendered(2, new), want, PALETTE, 1, {ArrayName.MAP: base}).parts
    assert part.encoding is Encoding.RAW
    assert part.base is None


def test_other_maps_follow_the_encoding_where_it_suits_them():
    plane = np.ones((4, 4), np.uint8)
    heat = np.full((2, 3, 3), 0.5, np.float16)
    shown = rendered(1, plane, confidence=plane, active=plane, heatmaps=heat)
    for wanted, expected in [
        (Encoding.PNG, ["png", "png", "png", "raw"]),
        (Encoding.RLE, ["rle", "raw", "raw", "raw"]),
    ]:
        encoded = encode(shown, OutputOptions(wanted), PALETTE)
        assert [part.encoding for part in encoded.parts] == expected
        assert [part.name for part in encoded.parts] == ["map", "confidence", "active", "heatmaps"]
        last = split(encoded.parts, encoded.payload)[-1]
        assert np.frombuffer(last, "<f2").tolist() == [0.5] * 18


def test_only_deltas_keep_arrays():
    plane = np.ones((4, 4), np.uint8)
    assert encode(rendered(1, plane), OutputOptions(Encoding.RAW), PALETTE).kept == {}
    kept = encode(rendered(1, plane), OutputOptions(Encoding.DELTA), PALETTE).kept
    assert kept[ArrayName.MAP] is plane


def test_a_numpy_file_needs_no_pickle():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(np.load(io.BytesIO(encoding.npy(array)), allow_pickle=False), array)


def test_run_lengths_in_a_payload_are_json():
    plane = np.array([[0, 0, 3], [0, 3, 3]], np.uint8)
    encoded = encode(rendered(1, plane), OutputOptions(Encoding.RLE), PALETTE)
    assert rle.decode(encoded.payload, (2, 3)) == plane.tobytes()
    assert [segment["class"] for segment in json.loads(encoded.payload)] == [0, 3]
