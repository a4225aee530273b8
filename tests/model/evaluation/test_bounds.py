"""Bounds on a mean hold as often as they say, and are not much wider than they need to be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from anytime_model.errors import ConfigError
from anytime_model.evaluation.bounds import images_needed, p_value, upper_bound

Draw = Callable[[np.random.Generator], NDArray[np.float64]]

SAMPLES: dict[str, tuple[Draw, float]] = {
    "all or nothing": (lambda r: r.binomial(1, 0.03, 150).astype(float), 0.03),
    "small": (lambda r: r.beta(0.5, 20, 150), 0.5 / 20.5),
    "mostly none": (lambda r: r.binomial(1, 0.1, 150) * r.uniform(0, 1, 150), 0.05),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_mean_is_above_its_bound_in_one_of_twenty_samples_at_most(name: str) -> None:
    draw, mean = SAMPLES[name]
    random = np.random.default_rng(0)
    bounds = np.array([upper_bound(draw(random), 0.95) for _ in range(400)])
    assert np.mean(bounds < mean) <= 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5
    assert np.mean(bounds) < mean + 0.07
    assert np.mean(bounds) < 1.5 * (mean + (np.log(20) / 300) ** 0.5)  # 1.5 of Hoeffding's


def test_losses_that_vary_little_prove_far_more_than_hoeffdings_inequality_does() -> None:
    losses = np.full(400, 0.005)
    assert upper_bound(losses, 0.95) < 0.02 < 0.005 + (np.log(20) / 800) ** 0.5


def test_the_bound_is_where_the_p_value_crosses_the_level() -> None:
    losses = np.random.default_rng(1).beta(0.5, 20, 200)
    bound = upper_bound(losses, 0.9)
    assert p_value(losses, bound + 1e-6, 0.9) <= 0.1 < p_value(losses, bound - 1e-3, 0.9)


def test_losses_that_are_cut_off_at_a_quarter_prove_as_much_with_a_quarter_of_the_images() -> None:
    assert upper_bound(np.zeros(100), 0.95, 0.25) == pytest.approx(
        upper_bound(np.zeros(100), 0.95) / 4
    )
    whole, quarter = (images_needed([0.0], 0.01, 0.95, largest) for largest in (1.0, 0.25))
    assert whole is not None
    assert quarter is not None
    assert 0.2 * whole < quarter < 0.3 * whole


def test_the_images_that_are_needed_prove_it() -> None:
    losses = np.random.default_rng(2).beta(0.5, 20, 50)
    needed = images_needed(losses, 0.05, 0.95)
    assert needed is not None
    assert p_value(np.resize(losses, needed + needed // 5), 0.05, 0.95) <= 0.05
    assert p_value(np.resize(losses, needed // 2), 0.05, 0.95) > 0.05


def test_no_number_of_images_proves_a_mean_below_itself() -> None:
    assert images_needed([0.02, 0.04], 0.03, 0.95) is None
    assert images_needed([0.0, 0.0999], 0.05, 0.95) is None  # too many


@pytest.mark.parametrize(
    ("losses", "confidence", "largest"),
    [([], 0.95, 1.0), ([0.5], 0.95, 0.25), ([-0.1], 0.95, 1.0), ([0.1], 1.0, 1.0), ([0], 0.5, 0)],
)
def test_numbers_out_of_range_are_refused(
    losses: list[float], confidence: float, largest: float
) -> None:
    with pytest.raises(ConfigError, match="expected"):
        upper_bound(losses, confidence, largest)
