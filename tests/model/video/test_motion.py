"""The shift of a whole image is found to the pixel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytime_model.video.motion import shift_between, shifted
from model.factories import smooth_pixels

WIDE = (
    (
        smooth_pixels(160, 200).astype(int)
        + np.random.default_rng(0).integers(-20, 20, (160, 200, 3))
    )
    .clip(0, 255)
    .astype(np.uint8)
)


@pytest.mark.parametrize("shift", [(0, 0), (3, -5), (-8, 2), (0, 17), (-12, -11)])
def test_it_is_found_where_all_moves_together(shift):
    rows, columns = shift
    then = WIDE[20:140, 20:180]
    now = WIDE[20 - rows : 140 - rows, 20 - columns : 180 - columns]
    assert shift_between(now, then) == shift


@given(st.integers(-5, 5), st.integers(-5, 5))
def test_what_comes_in_is_empty_and_the_rest_is_moved(rows, columns):
    values = np.arange(1, 13).reshape(3, 4)
    moved = shifted(values, (rows, columns), 0)
    for (row, column), value in np.ndenumerate(moved):
        y, x = row - rows, column - columns
        inside = 0 <= y < 3 and 0 <= x < 4
        assert value == (values[y, x] if inside else 0)
