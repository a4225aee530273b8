"""Networks in int8: the bytes that torch says, on every CPU, near what floats make."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from anytime_model.checkpoint.card import Quantisation
from anytime_model.confidence import MaximumProbability
from anytime_model.engines.native.engine import program_of
from anytime_model.engines.native.interpretation import Interpretation
from anytime_model.engines.native.lowering import lower
from anytime_model.engines.native.memory import PlanMaker
from anytime_model.engines.native.program import (
    Buffer,
    ByteSteps,
    ConvWeights,
    NormWeights,
    Operation,
    Program,
)
from anytime_model.engines.native.quantisation import parts, quantise, rounded_weights
from anytime_model.engines.native.ranges import measure_ranges, program_to_quantise
from anytime_model.engines.torch_engine import TorchEngine
from anytime_model.errors import ConfigError
from anytime_model.kernels.library import Activation, KernelError, Kind, Storage, load
from anytime_model.kernels.reference import rbf_weights
from model.comparing import assert_agrees, native, native_isas, run
from model.factories import (
    lite_checkpoint,
    masks,
    random_pixels,
    smooth_pixels,
    tiny_checkpoint,
)
from model.fakes import Painted

ISAS = native_isas("int8")
built = pytest.mark.skipif(not ISAS, reason="the native kernels are not built")
MASKS = masks(16, 24)


def normalised(card, image):
    values = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(three).view(3, 1, 1) for three in (card.mean, card.std))
    return (values - mean) / std


def with_ranges(checkpoint, method="mse"):
    images = [normalised(checkpoint.card, smooth_pixels(64, 96, seed)) for seed in range(1, 7)]
    ranges = measure_ranges(checkpoint.network, images, method)
    int8 = Quantisation(ranges, method, len(images), checkpoint.card.sha256)
    return replace(checkpoint, card=replace(checkpoint.card, int8=int8))


@pytest.fixture(scope="module")
def checkpoint():
    return with_ranges(tiny_checkpoint())


# One masked layer after another


def layers(first, second, seed):
    """A program in floats: two halvings, and in stage 2 a masked 3x3 layer with a residual.

    Its widths are `first` and `second`; the map has three classes.
    """
    rng = np.random.default_rng(seed)

    def conv(out, in_, kernel, stride=1):
        return ConvWeights(rng.normal(0, 1, (out, in_, kernel, kernel)).astype(np.float32), stride)

    def norm(channels, window=None):
        bias = rng.normal(0, 1, channels).astype(np.float32)
        return NormWeights(bias, 0.5 * bias, window)

    window = rbf_weights(torch.tensor(0.8)).flatten().numpy()
    relu = Activation.RELU
    return Program(
        convs=[
            conv(first, 3, 3, 2),
            conv(second, first, 3, 2),
            conv(3, second, 1),
            conv(second, second, 3),
            conv(3, second, 1),
        ],
        norms=[norm(first), norm(second), norm(3), norm(second, window), norm(3)],
        buffers=[
            Buffer(0, 0, 3, storage=Storage.RUN),
            Buffer(1, 2, 3, floats=True, storage=Storage.RUN),
            Buffer(2, 1, first),
            Buffer(3, 2, second, storage=Storage.RUN),
            Buffer(4, 2, second),
        ],
        operations=[
            Operation(Kind.CONV, 0, 2, (0,), conv=0, norm=0, activation=relu),
            Operation(Kind.CONV, 0, 3, (2,), conv=1, norm=1, activation=relu),
            Operation(Kind.CONV, 0, 1, (3,), conv=2, norm=2),
            Operation(
                Kind.CONV, 0, 4, (3,), conv=3, norm=3, activation=relu, keep=True, residual=3
            ),
            Operation(Kind.INTERPOLATE, 0, 4, norm=3, activation=relu, residual=3),
            Operation(Kind.CONV, 0, 1, (4,), conv=4, norm=4),
        ],
        ends=[3, 6],
    )


def maps_of_kernels(isa, program, image, active):
    plan = PlanMaker(load(), isa, program).make(image.shape[1:])
    handle = plan.take_run()
    steps = program.image_steps
    handle.start_floats(np.ascontiguousarray(image / steps.step + steps.zero, np.float32))
    handle.advance(0)
    first = handle.read_map()
    handle.mask(active)
    handle.advance(0)
    return first, handle.read_map()


@built
@settings(max_examples=12, deadline=None)
@given(
    first=st.sampled_from([1, 3, 16, 18, 20, 36]),
    second=st.sampled_from([2, 4, 17, 18, 19, 36, 48, 65]),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
@example(first=1, second=4, share=0.0, seed=75)  # a value at the middle between two bytes
def test_masked_layers_are_what_torch_says_and_the_same_on_every_cpu(first, second, share, seed):
    rng = np.random.default_rng(seed)
    high = float(rng.uniform(1, 30))
    program = quantise(
        layers(first, second, seed), [(-3, 3), (0, high), (0, 4 * high), (0, 8 * high)]
    )
    image = rng.normal(0, 1, (3, 32, 64)).astype(np.float32)
    active = rng.random((8, 16)) < share
    reference = Interpretation(program, torch.from_numpy(image))
    expected = [reference.advance(), reference.advance(torch.from_numpy(active))]
    found = {isa: maps_of_kernels(isa, program, image, active) for isa in ISAS}
    for maps in found.values():
        for ours, theirs in zip(maps, found[ISAS[0]], strict=True):
            np.testing.assert_array_equal(ours, theirs)
        # A byte may round another way once in a while, as torch's sums have more digits; all that
        # is interpolated from it follows.
        for ours, theirs in zip(maps, expected, strict=True):
            assert (ours != theirs.permute(1, 2, 0).numpy()).mean() < 0.05


@pytest.mark.parametrize("low_high", [(0.0, 5.1), (-2.0, 2.7), (-1.0, 0.0), (0.0, 0.0)], ids=str)
def test_a_range_holds_both_of_its_ends_and_0_exactly(low_high):
    low, high = low_high
    steps = ByteSteps.between(low, high)
    assert 0 <= steps.zero <= 255
    assert (0 - steps.zero) * steps.step == pytest.approx(low, abs=steps.step / 2 + 1e-9)
    if high > low:
        assert (255 - steps.zero) * steps.step == pytest.approx(high, abs=steps.step / 2 + 1e-9)


def test_weights_round_to_the_nearest_of_255_steps_of_their_channel():
    weights = np.array([[0.5, -1.0, 0.003], [0, 0, 0]])
    whole, step = rounded_weights(weights)
    np.testing.assert_array_equal(whole, [[64, -127, 0], [0, 0, 0]])
    np.testing.assert_allclose(step * 127, [1, 1])


# Whole networks


@pytest.mark.parametrize("exits", ["redesigned", "original"])
@pytest.mark.parametrize("concatenate", [False, True])
def test_the_interpretation_of_floats_is_the_network(exits, concatenate):
    checkpoint = tiny_checkpoint(exits=exits)
    image, criteria = smooth_pixels(64, 96), [Painted(MASKS["scattered"]), None, None]
    expected = run(TorchEngine(checkpoint), image, criteria)
    program = lower(checkpoint.network, concatenate=concatenate)
    reference = Interpretation(program, normalised(checkpoint.card, image))
    masks_ = [None, torch.from_numpy(MASKS["scattered"]), None, None]
    for mask, result in zip(masks_, expected, strict=True):
        found = reference.advance(mask).numpy()
        assert np.abs(found - result.logits).max() <= 1e-5 * np.abs(result.logits).max()


@built
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("task", "exits"), [("segmentation", "redesigned"), ("pose", "original")])
@pytest.mark.parametrize("name", ["scattered", "a line", "nothing"])
def test_a_network_is_what_torch_says(isa, task, exits, name):
    checkpoint = with_ranges(tiny_checkpoint(task, exits=exits))
    image = smooth_pixels(64, 96)
    engine = native(checkpoint, isa)
    assert (engine.dtype, engine.name) == ("int8", f"native-{isa}")
    ours = run(engine, image, [Painted(MASKS[name]), None, None])
    reference = Interpretation(program_of(checkpoint, "int8"), normalised(checkpoint.card, image))
    for mask, result in zip((None, MASKS[name], None, None), ours, strict=True):
        expected = reference.advance(None if mask is None else torch.from_numpy(mask)).numpy()
        assert np.abs(result.logits - expected).max() <= 0.02 * np.abs(expected).max()
        assert (np.abs(result.logits - expected) > 1e-5 * np.abs(expected).max()).mean() < 0.02


@built
@pytest.mark.parametrize("size", [(64, 96), (33, 97), (1, 1)], ids=str)
def test_every_cpu_makes_the_same_maps_bit_for_bit(checkpoint, size):
    image, criteria = smooth_pixels(*size), [MaximumProbability(0.6)] * 3
    first, *others = (run(native(checkpoint, isa), image, criteria) for isa in ISAS)
    for results in others:
        for ours, theirs in zip(results, first, strict=True):
            np.testing.assert_array_equal(ours.logits, theirs.logits)
            np.testing.assert_array_equal(ours.active, theirs.active)


@built
@pytest.mark.parametrize("method", ["mse", "percentile", "largest"])
def test_int8_stays_near_the_definition(method):
    checkpoint, image = with_ranges(tiny_checkpoint(), method), smooth_pixels(64, 96)
    ours, expected = (
        run(engine, image, [Painted(MASKS["dense"])] * 3)
        for engine in (native(checkpoint, dtype="int8"), TorchEngine(checkpoint))
    )
    for found, wanted in zip(ours, expected, strict=True):
        error = np.sqrt(np.square(found.logits - wanted.logits).mean())
        assert error < 0.15 * wanted.logits.std()


@built
def test_images_and_normalised_images_start_alike(checkpoint):
    engine, image = native(checkpoint, dtype="int8"), random_pixels(64, 96)
    values = normalised(checkpoint.card, image).numpy()
    ours = engine.begin(image).advance().logits
    theirs = engine.begin_normalised(values).advance().logits
    assert np.abs(ours - theirs).max() < 0.05 * np.abs(theirs).max()


@built
def test_a_prior_and_what_the_last_image_left_behind(checkpoint):
    engine, image = native(checkpoint, dtype="int8"), random_pixels(64, 96)
    criteria = [Painted(MASKS["scattered"])] * 3
    first = run(engine, image, criteria)
    run(engine, 255 - image)
    assert_agrees(run(engine, image, criteria), first, tolerance=0)


@built
def test_a_plan_in_bytes_takes_at_most_half_of_the_memory(checkpoint):
    sizes = {}
    for dtype in ("f32", "int8"):
        engine = native(checkpoint, dtype=dtype)
        plan = PlanMaker(engine.library, engine.isa, program_of(checkpoint, dtype)).make((256, 512))
        plan.give_back(plan.take_run())
        sizes[dtype] = plan.bytes
    assert sizes["int8"] <= 0.5 * sizes["f32"]


@built
def test_a_model_without_ranges_is_refused():
    with pytest.raises(ConfigError, match="anytime-model quantise"):
        native(tiny_checkpoint(), dtype="int8")


@built
def test_ranges_of_another_network_are_refused(checkpoint):
    int8 = replace(checkpoint.card.int8, ranges=checkpoint.card.int8.ranges[:-1])
    with pytest.raises(ConfigError, match="expected"):
        native(replace(checkpoint, card=replace(checkpoint.card, int8=int8)), dtype="int8")


@built
def test_depthwise_convolutions_are_refused():
    checkpoint = lite_checkpoint()
    int8 = Quantisation((), "mse", 1, checkpoint.card.sha256)
    with pytest.raises(KernelError, match="depthwise"):
        native(replace(checkpoint, card=replace(checkpoint.card, int8=int8)), dtype="int8")


def test_there_must_be_images_to_measure_on():
    with pytest.raises(ConfigError, match="no images"):
        measure_ranges(tiny_checkpoint().network, [])


# Parts in floats


def with_floats(checkpoint, *floats):
    images = [normalised(checkpoint.card, smooth_pixels(64, 96, seed)) for seed in range(1, 4)]
    ranges = measure_ranges(checkpoint.network, images, floats=floats)
    int8 = Quantisation(ranges, "mse", len(images), checkpoint.card.sha256, floats=floats)
    return replace(checkpoint, card=replace(checkpoint.card, int8=int8))


EVERY_PART = tuple(
    f"{what} {kind}".strip()
    for number in (2, 3, 4)
    for what, kind in (
        (f"stage {number}", "branches"),
        (f"stage {number}", "fusions"),
        (f"exit {number}", ""),
    )
)


def test_all_but_the_first_stage_and_its_exit_may_stay_in_floats():
    assert parts(program_to_quantise(tiny_checkpoint().network, ())) == EVERY_PART


@built
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "floats",
    [*((part,) for part in EVERY_PART), ("stage 3 branches", "exit 4"), EVERY_PART],
    ids=", ".join,
)
def test_parts_in_floats_are_what_torch_says(isa, floats):
    checkpoint, image = with_floats(tiny_checkpoint(), *floats), smooth_pixels(64, 96)
    ours = run(native(checkpoint, isa), image, [Painted(MASKS["scattered"]), None, None])
    program = program_of(checkpoint, "int8")
    for operation in program.operations:
        if operation.kind is Kind.CONV:
            assert program.convs[operation.conv].whole == (operation.part in floats)
    reference = Interpretation(program, normalised(checkpoint.card, image))
    for mask, result in zip((None, MASKS["scattered"], None, None), ours, strict=True):
        expected = reference.advance(None if mask is None else torch.from_numpy(mask)).numpy()
        assert np.abs(result.logits - expected).max() <= 0.02 * np.abs(expected).max()
        assert (np.abs(result.logits - expected) > 1e-4 * np.abs(expected).max()).mean() < 0.02


@built
def test_a_network_whose_later_parts_are_in_floats_is_nearer_to_the_definition():
    image, criteria = smooth_pixels(64, 96), [Painted(MASKS["dense"])] * 3
    exact = run(TorchEngine(tiny_checkpoint()), image, criteria)[-1].logits
    errors = [
        np.square(
            run(native(with_floats(tiny_checkpoint(), *floats), dtype="int8"), image, criteria)[
                -1
            ].logits
            - exact
        ).mean()
        for floats in ((), EVERY_PART)
    ]
    assert errors[1] < 0.95 * errors[0]


@built
@pytest.mark.parametrize("part", ["stage 1", "exit 1", "exit 5"])
def test_a_part_that_cannot_stay_in_floats_is_refused(part):
    with pytest.raises(ConfigError, match=f"{part}'; expected some of stage 2 branches"):
        native(with_floats(tiny_checkpoint(), part), dtype="int8")


@built
def test_the_last_head_in_floats_leaves_a_plan_in_bytes_smaller():
    sizes = {}
    for dtype in ("f32", "int8"):
        checkpoint = with_floats(tiny_checkpoint(), "exit 4")
        engine = native(checkpoint, dtype=dtype)
        plan = PlanMaker(engine.library, engine.isa, program_of(checkpoint, dtype)).make((256, 512))
        plan.give_back(plan.take_run())
        sizes[dtype] = plan.bytes
    assert sizes["int8"] <= 0.6 * sizes["f32"]  # W18: 0.43
