"""Stage 1 in bands of rows: the same numbers as one operation after another, in less memory."""

import numpy as np
import pytest

from anytime_model.errors import AnytimeModelError
from anytime_model.kernels.handles import RunHandle
from anytime_model.kernels.library import KernelError, Kind, Place
from model.engine_fakes import first_map, native_isas, plan_maker

ISAS = native_isas()
built = pytest.mark.skipif(not ISAS, reason="the native kernels are not built")

SHAPES = {
    "one band": (64, 96),
    "bands of equal height": (192, 2048),
    "a last band that is lower": (96, 1600),
    "a row at a time": (64, 8192),
    "a band higher than the map": (320, 32),
}
STRUCTURES = [("segmentation", "redesigned"), ("segmentation", "original"), ("pose", "original")]


def straight(slots, ops):
    """One operation after another, every map whole."""
    for op in ops:
        op.banded = 0
    for slot in slots:
        if slot.place == Place.WINDOW:
            slot.place = Place.SCRATCH


def an_image(size, seed=0):
    return np.random.default_rng(seed).standard_normal((3, *size), np.float32)


@built
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("task", "exits"), STRUCTURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_bands_change_no_bit(isa, task, exits, shape):
    size = SHAPES[shape]
    plan_of = plan_maker(isa, task=task, exits=exits)
    banded, whole = plan_of(size=size), plan_of(straight, size)
    for seed in range(2):  # the second image meets what the first left in the windows
        image = an_image(size, seed)
        expected = first_map(whole, image)
        np.testing.assert_array_equal(first_map(banded, image), expected)
    np.testing.assert_array_equal(first_map(banded, image, slice_us=1), expected)


@built
def test_bands_need_less_memory():
    plan_of = plan_maker()
    size = (2048, 1024)
    assert plan_of(size=size).scratch_bytes < 0.7 * plan_of(straight, size).scratch_bytes


@built
def test_an_image_given_up_within_a_band_leaves_no_trace():
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
    slots.append(type(slots[0])(1, 8, 0, Place.WINDOW))
    ops[1].sources[0] = len(slots) - 1


def _known_outside(slots, ops):
    last = next(i for i, op in enumerate(ops) if not op.banded and not op.together)
    slots[ops[last + 1].out].place = Place.WINDOW


def _beyond_the_first_stage(slots, ops):
    for op in ops:
        op.banded = not op.together


def _within_together(slots, ops):
    next(op for op in ops if op.together).banded = 1


def _upsampled(slots, ops):
    for op in ops:
        if op.kind == Kind.MIX and not op.pool:
            return
        op.banded = not op.together


@built
@pytest.mark.parametrize(
    "change",
    [_never_written, _known_outside, _beyond_the_first_stage, _within_together, _upsampled],
)
def test_bands_that_cannot_be_are_refused(change):
    with pytest.raises(KernelError, match="operation"):
        plan_maker()(change)


def test_what_goes_wrong_in_the_kernels_has_the_package_root():
    assert issubclass(KernelError, AnytimeModelError)
