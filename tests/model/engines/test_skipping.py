"""Exits that are left out: what they would have cost is saved, and nothing else changes."""

import importlib.util
from itertools import combinations

import numpy as np
import pytest
import torch

from anytime_model.confidence import MaximumProbability, TopShare
from anytime_model.engines.ladder import LadderEngine
from anytime_model.engines.native.lowering import lower
from anytime_model.engines.openvino_engine import OpenVinoEngine
from anytime_model.engines.torch_engine import TorchEngine
from anytime_model.errors import ConfigError, FinishedError
from anytime_model.flops import conv_costs, one_exit, per_exit, step_macs
from anytime_model.kernels.handles import RunHandle
from anytime_model.kernels.library import KernelError, Measure
from anytime_model.networks.base import Prior
from model.comparing import assert_agrees, native, native_isas
from model.factories import (
    lite_checkpoint,
    one_change,
    plan_maker,
    smooth_pixels,
    tiny_checkpoint,
    tiny_lite,
    with_ladder,
)

built = pytest.mark.skipif(not native_isas(), reason="the native kernels are not built")

IMAGE = smooth_pixels(60, 90)
PATHS = [path for count in (1, 2, 3, 4) for path in combinations(range(1, 5), count)]
SURE = MaximumProbability(0.6)
HALF = TopShare(0.5)
ENGINES = {
    "torch": TorchEngine,
    **{isa: lambda checkpoint, isa=isa: native(checkpoint, isa) for isa in native_isas()},
    **({"openvino": OpenVinoEngine} if importlib.util.find_spec("openvino") else {}),
}


class StopError(Exception):
    """What a caller raises to stop."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(k, marks=pytest.mark.slow) if k == "openvino" else k for k in ENGINES],
)
def engine(request):
    return ENGINES[request.param](lite_checkpoint())


def along(engine, path, criterion=None, prior=None):
    """The results of some exits."""
    begun = engine.begin(IMAGE, prior)
    return [begun.advance(criterion, exit_=exit_) for exit_ in path]


def test_without_masks_an_exit_is_the_same_to_the_bit_whatever_was_left_out(engine):
    expected = along(engine, (1, 2, 3, 4))
    for path in PATHS:
        for result in along(engine, path):
            assert result.exit in path
            for name in ("logits", "confidence", "active"):
                ours, theirs = (getattr(r, name) for r in (result, expected[result.exit - 1]))
                np.testing.assert_array_equal(ours, theirs)


def test_with_masks_all_engines_agree_along_every_path(engine):
    reference = TorchEngine(lite_checkpoint())
    for path in PATHS:
        expected = along(reference, path, SURE)
        assert_agrees(along(engine, path, SURE), expected)
        assert len(path) == 1 or 0 < expected[-2].active_share < 1


def test_a_map_to_start_from_stays_where_it_is_settled_whichever_exit_comes_first(engine):
    seen = along(TorchEngine(lite_checkpoint()), (1,), SURE)[0]
    prior = Prior.from_arrays(2 * seen.logits, seen.active)
    for path in ((1, 2, 3, 4), (3, 4), (4,)):
        results = along(engine, path, SURE, prior)
        assert_agrees(results, along(TorchEngine(lite_checkpoint()), path, SURE, prior))
        np.testing.assert_allclose(
            results[-1].logits[:, ~seen.active], 2 * seen.logits[:, ~seen.active], rtol=1e-6
        )


def test_multiply_adds_of_exits_that_are_left_out_are_not_counted(engine):
    costs = conv_costs(engine.card.config, 60, 90)
    assert step_macs(costs, 0, 4) == one_exit(costs)
    assert sum(step_macs(costs, k, k + 1) for k in range(4)) == per_exit(costs)[-1]
    for path in PATHS:
        steps = zip((0, *path), path, strict=False)
        expected = [step_macs(costs, made, exit_) for made, exit_ in steps]
        assert [result.macs for result in along(engine, path)] == expected


@pytest.mark.parametrize(("made", "wanted"), [(2, 2), (2, 1), (0, 5), (1, 0), (1, -3)])
def test_an_exit_that_cannot_be_made_next_is_refused_and_the_run_goes_on(engine, made, wanted):
    begun = engine.begin(IMAGE)
    for _ in range(made):
        begun.advance()
    with pytest.raises(ConfigError, match=rf"exit {wanted} does not.*expected {made + 1} to 4"):
        begun.advance(exit_=wanted)
    assert begun.advance(exit_=4).exit == begun.exit == 4
    with pytest.raises(FinishedError):
        begun.advance(exit_=4)


@pytest.mark.parametrize("kind", ENGINES)
def test_no_exit_of_a_network_whose_masks_come_from_exits_may_be_left_out(kind):
    begun = ENGINES[kind](tiny_checkpoint()).begin(IMAGE)
    with pytest.raises(ConfigError, match=r"exit 2 does not follow exit 0.*'hrnet'.*expected 1\."):
        begun.advance(exit_=2)
    assert begun.advance(exit_=1).exit == 1


def test_a_stop_on_the_way_ends_the_run_and_not_the_engine(engine, monkeypatch):
    monkeypatch.setattr("anytime_model.engines.native.engine.SLICE_US", 1)
    expected = along(engine, (1, 4), SURE)
    for calls in range(3):
        begun, left = engine.begin(IMAGE), iter(range(calls))

        def pause(left=left):
            if next(left, None) is None:
                raise StopError

        begun.advance(SURE)
        with pytest.raises(StopError):
            begun.advance(SURE, pause, exit_=4)
    assert_agrees(along(engine, (1, 4), SURE), expected, tolerance=1e-6)


@built
def test_what_is_computed_piece_by_piece_is_the_same_to_the_bit(monkeypatch):
    engine = native(lite_checkpoint())
    expected = along(engine, (1, 4), SURE)
    monkeypatch.setattr("anytime_model.engines.native.engine.SLICE_US", 1)
    begun = engine.begin(IMAGE)
    for result, exit_ in zip(expected, (1, 4), strict=True):
        ours = begun.advance(SURE, lambda: None, exit_=exit_)
        np.testing.assert_array_equal(ours.logits, result.logits)


# The ladder.


def ladder_of(kind, *sides):
    return LadderEngine(ENGINES[kind](with_ladder(lite_checkpoint(), *sides)))


def climb(engine, rungs, criterion=HALF, *, monotone=False):
    begun = engine.begin(IMAGE, monotone=monotone)
    return [begun.advance(criterion, rung=rung) for rung in rungs]


@pytest.mark.parametrize("rungs", [(1, 8), (1, 3, 8), (1, 4, 6, 8), (3, 4, 7), (8,)])
@pytest.mark.parametrize("kind", ["torch", *native_isas()[:1]])
def test_a_run_may_pass_over_rungs_of_any_size(kind, rungs):
    results = climb(ladder_of(kind, 64, 96), rungs)
    assert tuple(r.exit for r in results) == rungs
    assert [max(r.image_size) for r in results] == [(64, 96)[(r - 1) // 4] for r in rungs]
    assert_agrees(results, climb(ladder_of("torch", 64, 96), rungs))


def test_the_first_map_of_a_size_is_joined_by_the_share_of_its_own_exit():
    shares = (0.5, 0.4, 0.25, 0.0)
    engine = LadderEngine(TorchEngine(with_ladder(lite_checkpoint(), 64, 96, joining=shares)))
    plain = LadderEngine(TorchEngine(with_ladder(lite_checkpoint(), 96)))
    joined, alone = climb(engine, (1, 8), None)[-1], climb(plain, (4,), None)[-1]
    assert np.abs(joined.logits - alone.logits).max() > 0.1  # it is normalised
    np.testing.assert_array_equal(joined.logits.argmax(0), alone.logits.argmax(0))


@pytest.mark.parametrize("monotone", [False, True])
@pytest.mark.parametrize("stopped_at", [1, 2, 3])
def test_a_stop_between_rungs_that_are_made_loses_none_of_them(stopped_at, monotone):
    engine, rungs = ladder_of("torch", 64, 96), (1, 6, 8)
    expected = climb(engine, rungs, monotone=monotone)
    begun = engine.begin(IMAGE, monotone=monotone)
    results = [begun.advance(HALF, rung=rung) for rung in rungs[: stopped_at - 1]]
    for calls in (0, 2):
        left = iter(range(calls))

        def pause(left=left):
            if next(left, None) is None:
                raise StopError

        with pytest.raises(StopError):
            begun.advance(HALF, pause, rung=rungs[stopped_at - 1])
        assert begun.exit == (0, *rungs)[stopped_at - 1]
    results += [begun.advance(HALF, rung=rung) for rung in rungs[stopped_at - 1 :]]
    for ours, theirs in zip(results, expected, strict=True):
        np.testing.assert_array_equal(ours.logits, theirs.logits)
        np.testing.assert_array_equal(ours.active, theirs.active)


def test_after_a_stop_on_the_way_to_a_far_rung_a_nearer_one_may_be_made():
    engine = ladder_of("torch", 64, 96)
    expected = climb(engine, (1, 5, 8))
    begun = engine.begin(IMAGE)
    results = [begun.advance(HALF)]
    with pytest.raises(StopError):
        begun.advance(HALF, _raise, rung=8)
    results += [begun.advance(HALF, rung=rung) for rung in (5, 8)]
    for ours, theirs in zip(results, expected, strict=True):
        np.testing.assert_array_equal(ours.logits, theirs.logits)


def _raise():
    raise StopError


def test_a_monotone_map_is_the_mean_of_the_exits_that_were_made():
    engine = ladder_of("torch", 96)
    first, _, third, last = climb(engine, (1, 2, 3, 4), None)
    task = engine.card.task
    made = climb(engine, (1, 3, 4), None, monotone=True)
    normalised = [
        task.normalised(torch.from_numpy(r.logits)[None])[0].numpy() for r in (first, third, last)
    ]
    for count, result in enumerate(made, start=1):
        np.testing.assert_allclose(result.logits, np.mean(normalised[:count], axis=0), atol=1e-5)


# The kernels.


@pytest.fixture(name="plan_of")
def _plan_of():
    return plan_maker(network=tiny_lite())


@built
def test_where_exits_begin_is_checked(plan_of):
    plan_of()
    heads = lower(tiny_lite()).heads
    for changed, complaint in (
        ((heads[0] - 1, *heads[1:]), "within a fused group|has written"),
        ((0, *heads[1:]), "has written"),
        ((*heads[:3], heads[3] + 10_000), "outside of its stage"),
        ((heads[1], heads[0], *heads[2:]), "outside of its stage"),
        ((-1, *heads[1:]), "outside of its stage"),
    ):
        with pytest.raises(KernelError, match=complaint):
            plan_of(heads=changed)
    with pytest.raises(ValueError, match="3 exits begin and 4 stages end"):
        plan_of(heads=heads[:3])


@built
def test_no_exit_of_a_plan_that_does_not_say_where_they_begin_is_left_out(plan_of):
    run = RunHandle(plan_of(heads=()))
    run.start_floats(np.zeros((3, 64, 96), np.float32))
    with pytest.raises(KernelError, match="no exit may be left out"):
        run.advance(0, 2)
    assert not run.advance(0, 1)


@built
def test_the_exit_that_is_being_made_cannot_be_changed(plan_of):
    run = RunHandle(plan_of())
    run.start_floats(np.zeros((3, 64, 96), np.float32))
    assert run.advance(1, 3)
    for other in (1, 2, 4):
        with pytest.raises(KernelError, match="another exit is being made"):
            run.advance(1, other)
    with pytest.raises(KernelError, match="no map"):
        run.settle(Measure.PROBABILITY)
    while run.advance(1):
        pass
    for wrong in (1, 3, 5, -1):
        with pytest.raises(KernelError, match="no such exit"):
            run.advance(0, wrong)
    assert not run.advance(0, 4)


@built
def test_any_single_change_to_a_program_with_exits_to_leave_out_is_refused_or_harmless(plan_of):
    rng = np.random.default_rng(0)
    refused = 0
    for round_ in range(200):
        try:
            plan = plan_of(one_change(rng), size=(32, 32))
        except KernelError:
            refused += 1
            continue
        handle = RunHandle(plan)
        handle.start_floats(np.zeros((3, 32, 32), np.float32))
        for exit_ in ((4,), (1, 4), (2, 3, 4))[round_ % 3]:
            while handle.advance(1, exit_):
                pass
            handle.settle(Measure.PROBABILITY, most=0.4)
    assert refused > 50
