"""A camera's noise is no change; light, surfaces and edges are."""

import numpy as np
import pytest

from anytime_model.kernels.handles import block_differences
from anytime_model.kernels.library import load
from anytime_model.video.blocks import (
    change,
    differences_without_kernels,
    narrowed,
    widened,
    with_samples,
)
from model.factories import smooth_pixels

IMAGE = smooth_pixels(64, 96).clip(30, 220)


def noisy(image, sigma, seed):
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return (image + noise).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("sigma", [0, 1, 3, 5])
def test_noise_is_no_change(sigma):
    found = change(noisy(IMAGE, sigma, 1), noisy(IMAGE, sigma, 2), 4)
    assert found.shape == (16, 24)
    assert np.quantile(found, 0.99) < 2


@pytest.mark.parametrize("sigma", [0, 3])
def test_a_surface_that_changes_is_seen_through_noise(sigma):
    now = IMAGE.copy()
    now[16:32, 16:32, 0] += 20
    found = change(noisy(now, sigma, 1), noisy(IMAGE, sigma, 2), 4)
    assert (found[4:8, 4:8] > 8).all()
    assert (np.delete(found, range(4, 8), axis=0) < 4).all()


def test_a_pattern_that_moves_under_the_same_mean_is_seen():
    stripes = np.tile(np.repeat([60, 180], 2), 24).astype(np.uint8)
    image = np.broadcast_to(stripes[None, :, None], (64, 96, 3)).copy()
    moved = image.copy()
    moved[:16, :16] = np.roll(image, 1, axis=1)[:16, :16]
    found = change(moved, image, 4)
    assert (found[:4, :4] > 30).all()
    assert not found[4:].any()


def test_light_that_changes_everywhere_is_no_noise():
    assert (change(IMAGE + 10, IMAGE, 4) > 8).all()


@pytest.mark.parametrize("cells", [0, 1, 3, 40])
def test_a_mask_is_widened_along_both_axes(cells):
    mask = np.zeros((9, 13), np.bool_)
    mask[2, 5] = mask[8, 12] = True
    rows, columns = np.indices(mask.shape)
    expected = np.zeros_like(mask)
    for row, column in ((2, 5), (8, 12)):
        expected |= (abs(rows - row) <= cells) & (abs(columns - column) <= cells)
    np.testing.assert_array_equal(widened(mask, cells), expected)


@pytest.mark.parametrize("block", [1, 4, 8])
def test_kernels_find_the_differences_that_the_definition_finds(block):
    now, then = noisy(IMAGE, 30, 1), noisy(IMAGE, 60, 2)
    then[:16] = 255 - now[:16]
    ours = block_differences(load(), now, then, block)
    for found, expected in zip(ours, differences_without_kernels(now, then, block), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("cells", [0, 1, 3, 40])
def test_what_is_narrowed_after_it_was_widened_has_its_gaps_filled(cells):
    mask = np.zeros((9, 24), np.bool_)
    mask[4, 2] = mask[4, 8] = mask[4, 20] = True
    found = narrowed(widened(mask, cells), cells)
    assert found[4, 2:9].all() == (cells >= 3)
    assert found[mask].all()
    if cells == 1:
        np.testing.assert_array_equal(found, mask)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_the_cell_that_stands_for_a_block_is_set_where_a_quarter_of_it_is(share):
    mask = np.random.default_rng(1).random((32, 48)) < share
    expected = mask.copy()
    for block in (2, 4, 8):
        for row, column in np.ndindex(32 // block, 48 // block):
            y, x = row * block, column * block
            around = mask[
                max(0, y - block // 2) : y + block // 2, max(0, x - block // 2) : x + block // 2
            ]
            expected[y, x] |= around.sum() >= block**2 / 4
    np.testing.assert_array_equal(with_samples(mask, 3), expected)
