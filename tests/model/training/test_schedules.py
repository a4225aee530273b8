"""Schedules are the published ones, and those without a fall do not depend on the length."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytime_model.training.schedules import Poly, Schedule, Steps, WarmStableDecay


@given(
    schedule=st.sampled_from(
        [Poly(0.9, 10), Steps((2, 4), warmup_steps=5), WarmStableDecay(3, warmup_steps=4)]
    ),
    step=st.integers(0, 99),
)
def test_a_factor_is_between_0_and_1_and_falls_once_warm(schedule: Schedule, step: int) -> None:
    now, then = (schedule.factor(s, 10, 100) for s in (step, step + 1))
    assert 0 < now <= 1
    if step >= 10:
        assert then <= now


def test_steps_fall_to_a_tenth_at_their_epochs() -> None:
    schedule = Steps((170, 200))
    factors = [schedule.factor(epoch * 7, 7, 1470) for epoch in (169, 170, 199, 200)]
    assert factors == pytest.approx([1, 0.1, 0.1, 0.01])


def test_poly_is_hrnets() -> None:
    assert Poly(0.9).factor(30, 10, 100) == pytest.approx(0.7**0.9)


def test_the_stable_phase_does_not_depend_on_how_long_a_training_is() -> None:
    schedule = WarmStableDecay(decay_epochs=3, warmup_steps=5)
    for step in range(70):
        assert schedule.factor(step, 10, 100) == schedule.factor(step, 10, 1000)
    assert schedule.factor(85, 10, 100) == pytest.approx(0.5)
    assert schedule.factor(99, 10, 100) == pytest.approx(1 / 30)
