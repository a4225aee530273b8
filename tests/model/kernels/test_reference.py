"""The interpolation against its formulas, written out position by position."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anytime_model.kernels.reference import (
    NEGLIGIBLE,
    interpolate_inactive,
    rbf_weights,
    sufficient_radius,
)


def by_hand(y, active, lam):
    """Equations 4 to 6, one position at a time."""
    _, channels, height, width = y.shape
    out = y.clone()
    norm = 1e-5 + sum(
        math.exp(-(lam**2) * (dx * dx + dy * dy))
        for dx in range(-3, 4)
        for dy in range(-3, 4)
        if (dx, dy) != (0, 0)
    )
    for r in range(height):
        for c in range(width):
            if active[0, 0, r, c]:
                continue
            total = torch.zeros(channels)
            for dy in range(-3, 4):
                for dx in range(-3, 4):
                    rr, cc = r + dy, c + dx
                    if (dx or dy) and 0 <= rr < height and 0 <= cc < width and active[0, 0, rr, cc]:
                        total += math.exp(-(lam**2) * (dx * dx + dy * dy)) * y[0, :, rr, cc]
            out[0, :, r, c] = total / norm
    return out


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.3, 3.0), st.floats(0, 1))
def test_an_inactive_position_is_the_weighted_mean_of_active_ones_around_it(seed, lam, share):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn((1, 2, 6, 7), generator=generator)
    active = torch.rand((1, 1, 6, 7), generator=generator) < share
    ours = interpolate_inactive(y, active, torch.tensor(lam))
    torch.testing.assert_close(ours, by_hand(y, active, lam), rtol=1e-4, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.1, 6.0))
def test_the_taps_that_training_leaves_out_weigh_next_to_nothing(lam):
    weights = rbf_weights(torch.tensor(lam, dtype=torch.float64))
    radius = sufficient_radius(lam)
    inner = weights[3 - radius : 4 + radius, 3 - radius : 4 + radius]
    assert float(1 - inner.sum() / weights.sum()) <= NEGLIGIBLE


def test_a_wide_kernel_keeps_all_its_taps_and_the_initial_one_only_the_neighbours():
    assert sufficient_radius(0.5) == 3
    assert sufficient_radius(3.0) == 1


def test_active_positions_are_kept_bit_for_bit():
    y = torch.randn(2, 3, 8, 8)
    active = torch.rand(2, 1, 8, 8) < 0.5
    kept = active.expand_as(y)
    assert torch.equal(interpolate_inactive(y, active, torch.tensor(1.0))[kept], y[kept])


def test_values_at_inactive_positions_do_not_matter():
    y = torch.randn(1, 3, 8, 8)
    active = torch.rand(1, 1, 8, 8) < 0.5
    other = torch.where(active, y, torch.full_like(y, float("nan")))
    lam = torch.tensor(0.7)
    assert torch.equal(
        interpolate_inactive(y, active, lam), interpolate_inactive(other, active, lam)
    )


def test_the_window_has_no_weight_at_its_centre_and_sums_to_one():
    weights = rbf_weights(torch.tensor(1.0))
    assert weights[3, 3] == 0
    assert weights.sum() == pytest.approx(1, abs=1e-4)
    assert weights[3, 2] / weights[2, 2] == pytest.approx(math.e)


def test_gradients_are_those_of_finite_differences():
    active = torch.rand(1, 1, 5, 5) < 0.5
    y = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda t: interpolate_inactive(t, active, torch.tensor(0.8)), (y,), atol=1e-4
    )
