"""Engines that the tests run, and criteria that paint a mask instead of judging."""

from dataclasses import dataclass

import numpy as np
import torch

from anytime_model.checkpoint import Checkpoint
from anytime_model.engines.native import NativeEngine
from anytime_model.engines.native_lowering import lower
from anytime_model.kernels.handles import ModelHandle, PlanHandle, RunHandle
from anytime_model.kernels.library import KernelError, Op, Slot, load
from model.model_fakes import random_image, tiny_card, tiny_network

TOLERANCE = 1e-4
"""Of the largest absolute logit, as for the reference files."""


def native_isas():
    """Instruction sets with float32 kernels here; empty where nothing is built."""
    try:
        return [isa for isa in load().isas if not isa.endswith("bf16")]
    except KernelError:
        return []


def tiny_checkpoint(task="segmentation", **changes):
    """A tiny network of random weights with its card."""
    return Checkpoint(tiny_network(task, **changes), tiny_card(task, **changes))


def native(checkpoint, isa=None, **options):
    """A native engine."""
    return NativeEngine(checkpoint, isa=isa, **options)


def smooth_pixels(height, width, seed=0):
    """An (H, W, 3) uint8 image whose map varies: parts of it are sure and parts are not."""
    values = random_image(1, height, width, seed)[0].permute(1, 2, 0).numpy()
    return (110 + 55 * values).clip(0, 255).astype(np.uint8)


def plan_maker(isa=None, *, strips=True, **changes):
    """Plans of a tiny program, each with what a function changes of its slots and operations.

    Without strips, nine products make a sum of a 3x3 convolution everywhere.
    """
    program = lower(tiny_checkpoint(**changes).network)
    library = load()
    model = ModelHandle(library, isa or library.isas[-1])
    for conv in program.convs:
        model.add_conv(conv.weights, conv.stride, dense=strips and conv.dense)
    for norm in program.norms:
        model.add_norm(norm.bias, norm.shift, norm.window)

    def make(change=lambda slots, ops: None, size=(64, 96)):
        slots = [Slot(b.level, b.channels, b.floats, b.place) for b in program.buffers]
        ops = []
        for o in program.operations:
            op = Op(o.kind, o.where, o.conv, o.norm, o.relu, o.keep, o.out, o.first, o.residual)
            op.pool, op.together, op.banded = o.pool, o.together, o.banded
            op.inputs = len(o.sources)
            for i, source in enumerate(o.sources):
                op.sources[i] = source
            ops.append(op)
        change(slots, ops)
        return PlanHandle(model, size, slots, ops, program.ends)

    return make


def first_map(plan, image, slice_us=0):
    """The first exit's map, made in slices of so many microseconds (0: at once)."""
    run = RunHandle(plan)
    run.start_floats(image)
    while run.advance(slice_us):
        pass
    return run.read_map()


@dataclass(frozen=True)
class Painted:
    """Active where a mask (h, w) says so, whatever the map holds."""

    mask: np.ndarray

    def __call__(self, logits):
        return torch.from_numpy(self.mask)[None, None]


def run(engine, image, criteria=(None, None, None), pause=None):
    """All four results."""
    begun = engine.begin(image)
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


def masks(height, width):
    """Masks (h, w) that try every path: by name."""
    rng = np.random.default_rng(5)
    corner, line, middle = (np.zeros((height, width), np.bool_) for _ in range(3))
    corner[-1, -1] = True
    line[:, width // 2] = True
    middle[height // 2 | 1, width // 2 | 1] = True  # no coarser level sees an odd position
    return {
        "nothing": np.zeros((height, width), np.bool_),
        "everything": np.ones((height, width), np.bool_),
        "a corner": corner,
        "one odd pixel": middle,
        "a line": line,
        "borders": ~np.pad(np.ones((height - 2, width - 2), np.bool_), 1),
        "scattered": rng.random((height, width)) < 0.15,
        "dense": rng.random((height, width)) < 0.85,
    }
