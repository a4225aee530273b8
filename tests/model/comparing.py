"""Running engines and kernels, and comparing what comes out."""

import numpy as np

from anytime_model.engines.native.engine import NativeEngine
from anytime_model.kernels.handles import RunHandle
from anytime_model.kernels.library import KernelError, dtype_of, load

TOLERANCE = 1e-4
"""Of the largest absolute logit, as for the reference files."""


def native_isas(dtype="f32"):
    """Instruction sets with kernels for a precision here; empty where nothing is built."""
    try:
        return [isa for isa in load().isas if dtype_of(isa) == dtype]
    except KernelError:
        return []


def native(checkpoint, isa=None, **options):
    """A native engine."""
    return NativeEngine(checkpoint, isa=isa, **options)


def first_map(plan, image, slice_us=0):
    """The first exit's map, made in slices of so many microseconds (0: at once)."""
    run = RunHandle(plan)
    run.start_floats(image)
    while run.advance(slice_us):
        pass
    return run.read_map()


def run(engine, image, criteria=(None, None, None), pause=None, prior=None):
    """The results of all exits."""
    begun = engine.begin(image, prior)
    return [begun.advance(criterion, pause) for criterion in (*criteria, None)]


def assert_agrees(results, expected, tolerance=TOLERANCE):
    """Same maps within tolerance, same masks, same confidence."""
    for ours, theirs in zip(results, expected, strict=True):
        assert ours.exit == theirs.exit
        assert ours.image_size == theirs.image_size
        largest = np.abs(theirs.logits).max()
        assert np.abs(ours.logits - theirs.logits).max() <= tolerance * largest
        np.testing.assert_array_equal(ours.active, theirs.active)
        np.testing.assert_allclose(ours.confidence, theirs.confidence, atol=10 * tolerance)


def sampled(*axes, rounds=2):
    """Some of all combinations: each value of the longest axis with two of each other axis."""
    axes = [list(axis) for axis in axes]
    if not all(axes):
        return []
    count = max(map(len, axes))
    rows = [
        tuple(axis[(i + step * k) % len(axis)] for k, axis in enumerate(axes))
        for step in range(rounds)
        for i in range(count)
    ]
    return list(dict.fromkeys(rows))
