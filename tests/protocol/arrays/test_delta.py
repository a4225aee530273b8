"""Deltas: the round trip, the documented format, and foreign bytes."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytime_protocol.arrays import delta
from anytime_protocol.errors import PayloadError


@st.composite
def pairs(draw: st.DrawFn) -> tuple[bytes, bytes]:
    base = draw(st.binary(max_size=200))
    new = bytearray(base)
    for index in draw(st.sets(st.integers(0, max(len(base) - 1, 0)))):
        if index < len(new):
            new[index] ^= draw(st.integers(0, 255))
    return base, bytes(new)


@given(pairs())
def test_a_delta_turns_the_base_into_the_new_array(pair: tuple[bytes, bytes]) -> None:
    base, new = pair
    encoded = delta.encode(base, new)
    assert delta.apply(base, encoded) == new
    assert len(encoded) <= delta.largest(len(base))


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_foreign_bytes_give_an_array_of_the_same_size_or_an_error(
    base: bytes, foreign: bytes
) -> None:
    try:
        result = delta.apply(base, foreign)
    except PayloadError:
        return
    assert len(result) == len(base)


@given(pairs())
def test_the_format_can_be_written_with_whole_arrays_at_once(pair: tuple[bytes, bytes]) -> None:
    base, new = (np.frombuffer(item, np.uint8) for item in pair)
    changed = np.concatenate(([False], base != new, [False]))
    starts, ends = np.flatnonzero(changed[1:] != changed[:-1]).reshape(-1, 2).T
    skips = starts - np.concatenate(([0], ends[:-1]))[: len(starts)]
    counters = np.concatenate(([len(starts)], skips, ends - starts)).astype(">u4")
    assert counters.tobytes() + new[changed[1:-1]].tobytes() == delta.encode(*pair)


def test_equal_arrays_differ_by_four_bytes_of_nothing() -> None:
    assert delta.encode(b"same", b"same") == b"\0\0\0\0"


def test_arrays_of_different_length_have_no_delta() -> None:
    with pytest.raises(PayloadError, match="4 bytes, the new array 5"):
        delta.encode(b"base", b"longer"[:5])


def _delta(runs: list[tuple[int, int]], values: bytes) -> bytes:
    skips, lengths = [skip for skip, _ in runs], [length for _, length in runs]
    return struct.pack(f">{1 + 2 * len(runs)}I", len(runs), *skips, *lengths) + values


def test_a_malformed_delta_is_refused() -> None:
    for foreign, says in (
        (b"\0\0\0", "3 bytes"),
        (b"\xff\xff\xff\xff", "4294967295 runs"),
        (_delta([(0, 0)], b""), "empty run"),
        (_delta([(3, 2)], b"ab"), "ends at 5"),
        (_delta([(2**32 - 1, 1)], b"a"), "ends at"),
        (_delta([(0, 2)], b"a"), "more values"),
        (_delta([(0, 1)], b"ab"), "1 bytes are left"),
    ):
        with pytest.raises(PayloadError, match=says):
            delta.apply(b"base", foreign)
