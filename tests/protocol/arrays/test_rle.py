"""Run-length segments: the round trip, the COCO library's own answer, and foreign text."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anytime_protocol.arrays import rle
from anytime_protocol.errors import PayloadError


@st.composite
def maps(draw: st.DrawFn) -> tuple[bytes, tuple[int, int]]:
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    classes = draw(st.lists(st.integers(0, 255), min_size=1, max_size=4))
    pixels = draw(
        st.lists(st.sampled_from(classes), min_size=height * width, max_size=height * width)
    )
    return bytes(pixels), (height, width)


@settings(max_examples=40)
@given(maps())
def test_a_map_survives_its_segments(drawn: tuple[bytes, tuple[int, int]]) -> None:
    pixels, shape = drawn
    payload = json.dumps(rle.encode(pixels, shape)).encode()
    assert rle.decode(payload, shape) == pixels


@settings(max_examples=40)
@given(maps())
def test_the_coco_library_writes_the_same_strings(drawn: tuple[bytes, tuple[int, int]]) -> None:
    mask = pytest.importorskip("pycocotools.mask")
    pixels, shape = drawn
    array = np.frombuffer(pixels, np.uint8).reshape(shape)
    for segment in rle.encode(pixels, shape):
        theirs = mask.encode(np.asfortranarray(array == segment["class"]))
        assert theirs["counts"].decode() == segment["counts"]


@given(st.lists(st.integers(0, 2**31), max_size=20))
def test_any_run_lengths_survive_their_string(counts: list[int]) -> None:
    assert rle.from_string(rle.to_string(counts)) == counts


@given(st.text(alphabet=[chr(c) for c in range(40, 120)]) | st.text())
def test_foreign_text_gives_run_lengths_or_an_error(text: str) -> None:
    try:
        counts = rle.from_string(text)
    except PayloadError:
        return
    assert all(count >= 0 for count in counts)


def test_segments_that_are_no_map_are_refused() -> None:
    for payload in (
        b"",
        b"{}",
        b"[1]",
        b"\xff",
        b"[" * 100_000,
        b'[{"class":0,"size":[2,2],"counts":"04"}]',
        b'[{"class":0,"size":[1,2],"counts":"03"}]',
        b'[{"class":0,"size":[1,2],"counts":"01"}]',
        b'[{"class":0,"size":[1,2],"counts":"02"},{"class":1,"size":[1,2],"counts":"02"}]',
        b'[{"class":256,"size":[1,2],"counts":"02"}]',
        b'[{"class":0,"size":[1,2],"counts":"0R"}]',
    ):
        with pytest.raises(PayloadError):
            rle.decode(payload, (1, 2))


def test_an_array_of_the_wrong_size_has_no_segments() -> None:
    with pytest.raises(PayloadError):
        rle.encode(b"12345", (2, 3))
