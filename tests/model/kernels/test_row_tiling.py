"""Row tiling of stage 1: the same numbers as one operation after another, in less memory."""

import numpy as np
import pytest

from anytime_model.kernels.handles import RunHandle
from anytime_model.kernels.library import KernelError, Kind, Storage
from model.comparing import first_map, native_isas, sampled
from model.factories import plan_maker

ISAS = native_isas()
built = pytest.mark.skipif(not ISAS, reason="the native kernels are not built")

SHAPES = {
    "one tile": (64, 96),
    "tiles of equal height": (192, 2048),
    "a last tile that is lower": (96, 1600),
    "a row at a time": (64, 8192),
    "a tile higher than the map": (320, 32),
}
STRUCTURES = [("segmentation", "redesigned"), ("segmentation", "original"), ("pose", "original")]


def straight(slots, ops):
    """One operation after another, every map whole."""
    for op in ops:
        op.tiled = 0
    for slot in slots:
        if slot.storage == Storage.WINDOW:
            slot.storage = Storage.SCRATCH


def an_image(size, seed=0):
    return np.random.default_rng(seed).standard_normal((3, *size), np.float32)


@built
@pytest.mark.parametrize(("isa", "structure", "shape"), sampled(ISAS, STRUCTURES, SHAPES))
def test_row_tiling_changes_no_bit(isa, structure, shape):
    size, (task, exits) = SHAPES[shape], structure
    plan_of = plan_maker(isa, task=task, exits=exits)
    tiled, whole = plan_of(size=size), plan_of(straight, size)
    for seed in range(2):  # the second image meets what the first left in the windows
        image = an_image(size, seed)
        expected = first_map(whole, image)
        np.testing.assert_array_equal(first_map(tiled, image), expected)
    np.testing.assert_array_equal(first_map(tiled, image, slice_us=1), expected)


@built
def test_row_tiling_needs_less_memory():
    plan_of = plan_maker()
    size = (2048, 1024)
    assert plan_of(size=size).scratch_bytes < 0.7 * plan_of(straight, size).scratch_bytes


@built
def test_an_image_given_up_within_a_row_tile_leaves_no_trace():
    plan = plan_maker()(size=(192, 2048))
    image = an_image((192, 2048))
    expected = first_map(plan, image)
    run = RunHandle(plan)
    for pieces in (1, 2, 5):
        run.start_floats(an_image((192, 2048), seed=9))
        for _ in range(pieces):
            assert run.advance(1)
        run.start_floats(image)
        run.advance(0)
        np.testing.assert_array_equal(run.read_map(), expected)


def _never_written(slots, ops):
    """The second step reads a window that only it writes."""
    slots.append(type(slots[0])(1, 8, 0, Storage.WINDOW))
    ops[1].sources[0] = len(slots) - 1


def _known_outside(slots, ops):
    last = next(i for i, op in enumerate(ops) if not op.tiled and not op.fused)
    slots[ops[last + 1].out].storage = Storage.WINDOW


def _beyond_the_first_stage(slots, ops):
    for op in ops:
        op.tiled = not op.fused


def _within_fused(slots, ops):
    next(op for op in ops if op.fused).tiled = 1


def _upsampled(slots, ops):
    for op in ops:
        if op.kind == Kind.WEIGHTED_SUM and not op.pool:
            return
        op.tiled = not op.fused


@built
@pytest.mark.parametrize(
    "change",
    [_never_written, _known_outside, _beyond_the_first_stage, _within_fused, _upsampled],
)
def test_row_tiling_that_cannot_be_is_refused(change):
    with pytest.raises(KernelError, match="operation"):
        plan_maker()(change)
