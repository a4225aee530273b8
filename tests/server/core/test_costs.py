"""Predictions from profiles, and what the cost model learns from measured times."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytime_server.core.costs import CostModel, ModelProfile, SideCost, SizeProfile
from anytime_server.core.slow_down import Prediction, SlowDown
from anytime_server.core.stage_costs import StageCost
from anytime_server.errors import ProfileError, UnknownModelError

STAGES = (StageCost(0.010, 0.0, 1.0, 0.0), StageCost(0.004, 0.016, 0.5, 2.0))
PROFILE = ModelProfile(
    "m", (SizeProfile(64, 64, STAGES), SizeProfile(256, 256, tuple(s.scaled(10) for s in STAGES)))
)


def test_a_stage_costs_its_fixed_part_and_its_share_of_the_active_part():
    assert STAGES[1].seconds(0.0) == pytest.approx(0.004)
    assert STAGES[1].seconds(0.5) == pytest.approx(0.012)
    assert STAGES[1].gmacs(0.25) == pytest.approx(1.0)


@pytest.mark.parametrize("size", [(32, 64), (320, 640), (3200, 6400)])
def test_a_ladder_costs_the_same_whatever_the_size_of_an_image(size):
    larger = tuple(stage.scaled(4.0) for stage in STAGES)
    sizes = (SizeProfile(64, 128, STAGES), SizeProfile(128, 256, larger))
    ladder = ModelProfile("m", sizes, sides=(128, 256))
    assert CostModel([ladder]).steps("m", *size).stages == (*STAGES, *larger)


def test_a_profiled_size_is_taken_as_it_is_after_padding_to_32():
    costs = CostModel([PROFILE])
    assert costs.steps("m", 64, 64).stages == STAGES
    assert costs.steps("m", 33, 64).stages == STAGES


def test_the_stride_that_images_are_padded_to_is_the_models():
    coarse = CostModel([ModelProfile("m", (SizeProfile(64, 64, STAGES),), stride=64)])
    assert coarse.steps("m", 33, 64).stages == STAGES
    assert coarse.steps("m", 64, 65).stages[0].fixed_s == pytest.approx(0.020)


def test_a_size_beyond_those_profiled_scales_the_nearest_by_pixels():
    costs = CostModel([PROFILE])
    assert costs.steps("m", 32, 64).stages[0].fixed_s == pytest.approx(0.005)
    assert costs.steps("m", 256, 512).stages[0].fixed_s == pytest.approx(0.200)


def test_a_size_between_two_profiled_ones_lies_between_what_both_say():
    costs = CostModel([PROFILE])  # for 64 x 64 px 10 ms, for 16 times as many 100 ms
    assert costs.steps("m", 128, 128).stages[0].fixed_s == pytest.approx((0.040 + 0.025) / 2)


def test_getting_ready_for_a_size_costs_time_once():
    ladder = ModelProfile(
        "m", (SizeProfile(64, 64, STAGES),), sides=(64, 512), prepare_s_per_px=1e-6
    )
    costs, larger = CostModel([ladder]), len(STAGES) + 1
    assert costs.preparation_s("m", 300, 300) == pytest.approx((1e-6 * 64 * 64, 1e-6 * 512 * 512))
    costs.note_size("m", 300, 300, 1)
    assert costs.preparation_s("m", 300, 300) == pytest.approx((0.0, 1e-6 * 512 * 512))
    costs.note_size("m", 300, 300, larger)
    assert costs.preparation_s("m", 500, 500) == (0.0, 0.0)  # computed at the same sizes
    assert min(costs.preparation_s("m", 250, 500)) > 0.0
    for side in range(100, 900, 50):
        costs.note_size("m", side, 1000, larger)
        costs.note_size("m", 1000, side, larger)
    assert min(costs.preparation_s("m", 300, 300)) > 0.0  # too many others came since
    costs.note_size("m", 300, 300, 1)
    costs.forget_executor()
    assert costs.preparation_s("m", 300, 300)[0] > 0.0


def test_sizes_that_clients_choose_cannot_fill_the_memory():
    costs = CostModel([PROFILE])
    for side in range(32, 32 * 1500, 32):
        costs.steps("m", side, 32)
    assert len(costs._steps) <= 1024


def test_an_unknown_model_is_named_with_the_known_ones():
    with pytest.raises(UnknownModelError, match="serves m"):
        CostModel([PROFILE]).steps("x", 64, 64)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ModelProfile("m", ()),
        lambda: ModelProfile("m", PROFILE.sizes, quality=(1.0,)),
        lambda: ModelProfile("m", PROFILE.sizes, reaction_s=math.nan),
        lambda: ModelProfile("m", (SizeProfile(0, 64, STAGES),)),
        lambda: ModelProfile("m", (SizeProfile(64, 64, STAGES), SizeProfile(1, 1, STAGES[:1]))),
        lambda: ModelProfile("m", (SizeProfile(64, 64, (StageCost(-1.0, 2.0),)),)),
        lambda: ModelProfile("m", (SizeProfile(64, 64, (StageCost(math.nan, 1.0),)),)),
        lambda: ModelProfile("m", (SizeProfile(64, 64, (StageCost(0.0, 0.0),)),)),
    ],
)
def test_a_profile_that_makes_no_sense_is_refused(make):
    with pytest.raises(ProfileError, match="model 'm'"):
        make()


def test_the_time_of_one_stage_changes_predictions_of_all_stages():
    costs = CostModel([PROFILE])
    for _ in range(30):
        costs.observe_stage(0.010, 0.020)
    assert costs.slow_down.predict(0.5).mean_s == pytest.approx(1.0, rel=0.01)


@given(st.lists(st.floats(-1.0, 1e6), max_size=60))
def test_no_error_makes_a_bias_useless(errors):
    costs = CostModel([PROFILE])
    for error in errors:
        costs.observe_bias("m", {1: 1.0}, error)
    assert 0.5 <= costs.bias("m", 1) <= 2.0 + 1e-9
    assert costs.bias("m", 2) == 1.0


def test_a_bias_is_forgotten_where_the_factor_explains_everything():
    costs = CostModel([PROFILE])
    costs.observe_bias("m", {1: 1.0}, 1.0)
    before = costs.bias("m", 1)
    for _ in range(3000):
        costs.observe_bias("m", {1: 1.0}, 0.0)
    assert before > 1.05
    assert costs.bias("m", 1) == pytest.approx(1.0, abs=0.01)


# Steps.

WITH_EXITS = (
    StageCost(0.008, 0.002, 0.9, 0.1, exit_s=0.004, exit_gmacs=0.3),
    StageCost(0.016, 0.004, 1.8, 0.2, exit_s=0.005, exit_gmacs=0.5),
    StageCost(0.030, 0.010, 3.6, 0.4, exit_s=0.015, exit_gmacs=1.0),
)
LADDER = ModelProfile(
    "m",
    (
        SizeProfile(32, 32, tuple(s.scaled(0.25) for s in WITH_EXITS)),
        SizeProfile(64, 64, WITH_EXITS),
    ),
    sides=(32, 64),
)


@pytest.mark.parametrize(
    ("made", "exit_", "share", "seconds", "gmacs"),
    [
        (0, 1, 1.0, 0.0025, 0.25),
        (1, 2, 0.5, 0.0045, 0.475),
        (0, 3, 1.0, 0.0015 + 0.00375 + 0.010, 0.175 + 0.375 + 1.0),
        (1, 4, 1.0, 0.010, 1.0),
        (2, 6, 1.0, 0.006 + 0.015 + 0.040, 0.7 + 1.5 + 4.0),
        (4, 6, 0.5, 0.015 + 0.035, 1.5 + 3.8),
    ],
)
def test_a_step_costs_its_last_stage_and_those_before_it_at_that_size_without_their_exits(
    made, exit_, share, seconds, gmacs
):
    steps = CostModel([LADDER]).steps("m", 64, 64).current()
    assert steps.step(made, exit_, share) == pytest.approx((seconds, gmacs))
    assert steps.starts_size(made, exit_) == (made < (1, 4)[exit_ > 3])
    parts = steps.parts(made, exit_, share)
    assert sum(parts.values()) == pytest.approx(1.0)
    assert parts[exit_] * seconds == pytest.approx(
        (*LADDER.sizes[0].stages, *WITH_EXITS)[exit_ - 1].seconds(share)
    )


def test_stages_that_were_never_measured_to_have_an_exit_cost_the_same_with_and_without():
    steps = CostModel([ModelProfile("m", (SizeProfile(64, 64, STAGES),))]).steps("m", 64, 64)
    assert steps.current().step(0, 2, 1.0)[0] == pytest.approx(0.030)


def test_an_exit_that_was_measured_to_take_more_than_its_stage_leaves_nothing_below_zero():
    stage = StageCost(0.001, 0.0, 1.0, exit_s=0.5, exit_gmacs=9.0)
    assert (stage.features_s, stage.features_gmacs) == (0.0, 0.0)


@pytest.mark.parametrize("error", [0.5, -0.3])
def test_the_error_of_a_step_moves_its_prediction_as_that_of_a_stage_and_the_longest_part_most(
    error,
):
    alone, shared = CostModel([LADDER]), CostModel([LADDER])
    alone.observe_bias("m", {6: 1.0}, error)
    steps = shared.steps("m", 64, 64)
    before, _ = steps.current().step(2, 6, 1.0)
    parts = steps.parts(2, 6, 1.0)
    shared.observe_bias("m", parts, error)
    after, _ = steps.current().step(2, 6, 1.0)
    assert after / before == pytest.approx(alone.bias("m", 6), rel=0.003)
    moved = [abs(math.log(shared.bias("m", stage))) for stage in (4, 5, 6)]
    assert moved == sorted(moved)
    assert [shared.bias("m", stage) for stage in (1, 2, 3)] == [1.0] * 3


def test_a_step_that_is_always_slower_is_learnt_whatever_leads_there():
    costs = CostModel([LADDER])
    steps = costs.steps("m", 64, 64)
    for _ in range(400):
        base_s, _ = steps.current().step(1, 6, 1.0)
        true_s = 1.4 * CostModel([LADDER]).steps("m", 64, 64).current().step(1, 6, 1.0)[0]
        costs.observe_bias("m", steps.parts(1, 6, 1.0), true_s / base_s - 1.0)
    assert steps.current().step(1, 6, 1.0)[0] == pytest.approx(true_s, rel=0.02)


def test_a_stop_takes_longer_on_larger_images_and_slower_machines_but_never_less():
    costs = CostModel([ModelProfile("m", (SizeProfile(64, 64, STAGES),), reaction_s=0.002)])
    assert costs.reaction_s("m", 128, 64) == pytest.approx(0.004)
    assert costs.reaction_s("m", 32, 32) == pytest.approx(0.002)
    for _ in range(50):
        costs.observe_stage(0.01, 0.02)
    assert costs.reaction_s("m", 64, 64) == pytest.approx(0.004, rel=0.02)
    for _ in range(50):
        costs.observe_stage(0.01, 0.005)
    assert costs.reaction_s("m", 64, 64) == pytest.approx(0.002)


def test_the_deviation_shrinks_on_a_steady_machine():
    factor = SlowDown()
    before = factor.sigma
    for _ in range(100):
        factor.observe(1.0)
    assert factor.sigma < before / 5


@pytest.mark.parametrize("jitter", [0.02, 0.05, 0.15])
def test_two_deviations_hold_about_as_often_as_they_should(jitter):
    rng = random.Random(3)
    factor, within = SlowDown(), 0
    for n in range(2000):
        ratio = 1.5 * math.exp(rng.gauss(0.0, jitter))
        if n >= 50:
            within += ratio <= factor.predict(1.0).upper_s(2.0)
        factor.observe(ratio)
    assert 0.94 <= within / 1950 <= 0.999
    assert factor.sigma < 3.0 * 1.5 * jitter + 0.01


def test_a_machine_that_becomes_twice_as_slow_is_followed_within_ten_stages():
    factor = SlowDown()
    for _ in range(100):
        factor.observe(1.0)
    for _ in range(10):
        factor.observe(2.0)
    assert factor.mean == pytest.approx(2.0, rel=0.1)


def test_one_outlier_does_not_spoil_the_margins():
    factor = SlowDown()
    for _ in range(100):
        factor.observe(1.0)
    factor.observe(20.0)
    for _ in range(5):
        factor.observe(1.0)
    assert factor.mean == pytest.approx(1.0, rel=0.1)
    assert factor.sigma < 0.1


@given(st.lists(st.floats(0.0, 1e6), max_size=60))
def test_no_measurement_makes_the_factor_useless(ratios):
    factor = SlowDown()
    for ratio in ratios:
        factor.observe(ratio)
    assert 0.0 < factor.mean < 1e7
    assert 0.0 < factor.sigma < math.inf
    assert math.isfinite(factor.predict(1.0).upper_s(3.0))


def test_the_error_of_a_prediction_is_relative():
    assert SlowDown().observe(1.1) == pytest.approx(0.1)


def test_a_stopped_stage_counts_only_if_it_was_already_too_slow():
    costs = CostModel([PROFILE])
    costs.observe_at_least(0.010, 0.005)
    assert costs.slow_down.mean == 1.0
    costs.observe_at_least(0.010, 0.012)
    assert costs.slow_down.mean > 1.0


def test_a_stage_with_nothing_to_compute_changes_no_prediction():
    costs = CostModel([PROFILE])
    assert costs.observe_stage(0.0, 0.001) == 0.0
    costs.observe_at_least(0.0, 0.001)
    assert costs.slow_down.mean == 1.0


def test_decode_and_encode_are_learnt_by_format():
    costs = CostModel([PROFILE], encode={"png": SideCost(0.0, 0.010), "raw": SideCost(0.0, 0.001)})
    for _ in range(50):
        costs.observe_encode("png", 1_000_000, 0.030)
    assert costs.encode("png", 2_000_000).mean_s == pytest.approx(0.060, rel=0.05)
    assert costs.encode("raw", 1_000_000).mean_s == pytest.approx(0.001)
    costs.observe_decode("image/png", 1_000_000, 0.050)
    assert costs.decode("image/x", 1_000_000).mean_s > 0.0105


def test_typical_shares_follow_what_is_seen():
    costs = CostModel([PROFILE])
    assert costs.typical_shares("m")[1] == 1.0
    for _ in range(200):
        costs.observe_share("m", 2, 0.4)
    assert costs.typical_shares("m")[1] == pytest.approx(0.4, abs=0.01)


def test_the_version_rises_with_each_observation_that_moves_predictions():
    costs = CostModel([PROFILE])
    versions = [costs.version]
    for observe in (
        lambda: costs.observe_stage(0.01, 0.013),
        lambda: costs.observe_at_least(0.01, 1.0),
        lambda: costs.observe_decode("image/png", 10, 0.01),
        lambda: costs.observe_encode("png", 10, 0.01),
    ):
        observe()
        versions.append(costs.version)
    assert versions == sorted(set(versions))


def test_deviations_of_successive_work_add_up_in_full():
    both = Prediction(1.0, 0.1).then(Prediction(2.0, 0.3))
    assert both == Prediction(3.0, pytest.approx(0.4))
    assert both.upper_s(2.0) == pytest.approx(3.8)


def test_what_a_run_takes_beside_the_network_is_unknown_until_it_was_seen_and_then_learnt():
    costs = CostModel([PROFILE])
    assert costs.overhead() == Prediction(0.0, 0.0)
    for _ in range(50):
        costs.observe_overhead(0.003)
    assert costs.overhead().mean_s == pytest.approx(0.003)
    for _ in range(50):
        costs.observe_overhead(0.006)
    assert costs.overhead().mean_s == pytest.approx(0.006, rel=0.1)


def test_forecasts_hold_while_observations_hardly_move_predictions():
    costs = CostModel([PROFILE])
    for _ in range(100):
        costs.observe_stage(0.010, 0.010)
    version = costs.version
    for _ in range(100):
        costs.observe_stage(0.010, 0.0101)
    assert costs.version == version
    for _ in range(3):  # one alone may be an outlier
        costs.observe_stage(0.010, 0.015)
    assert costs.version > version
