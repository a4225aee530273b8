"""Which parts of a network lose too much in int8: measured on images, without labels.

The loss of an exit is the share of its answers that are not those of float32: of positions whose
likeliest class is another one, or of joints whose maximum is more than a cell away. It is measured
without masks, with the kernels that serve.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anytime_model.checkpoint.card import Quantisation
from anytime_model.checkpoint.store import Checkpoint
from anytime_model.engines.base import Dtype
from anytime_model.engines.native.engine import NativeEngine
from anytime_model.engines.native.memory import MemoryBudget
from anytime_model.engines.native.quantisation import Range, parts
from anytime_model.engines.native.ranges import Method, measure_ranges, program_to_quantise
from anytime_model.kernels.library import Kind
from anytime_model.tasks import Task

MOST_TRIED = 16
"""Images that losses are measured on."""
MOST_CELLS = 1
"""That a joint's maximum may be away from float32's."""
LEAST_GAIN = 0.1
"""Share of what is above the bound that one more part must take away."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A choice of parts in floats, and what it loses.

    Attributes:
        int8: ranges and parts, as a card has them.
        changed: share of the answers of each exit that are not float32's, 0 to 1.
    """

    int8: Quantisation
    changed: tuple[float, ...]

    def above(self, most_changed: float) -> float:
        """By how much the exits together are above a bound on each."""
        return sum(max(0.0, share - most_changed) for share in self.changed)


def choose_floats(
    checkpoint: Checkpoint,
    images: Sequence[Tensor],
    most_changed: float,
    method: Method = "mse",
    tick: Callable[[Trial], object] = lambda _trial: None,
) -> Trial:
    """Leave parts in floats, one after the other, until no exit changes more than is allowed.

    The next part is that of the least work of those that are enough, or else the one that lowers
    what is above the bound by most.

    Args:
        checkpoint: of a family that runs in int8.
        images: (3, H, W) normalised, of any size. Ranges are measured on all, losses on
            `MOST_TRIED` of them.
        most_changed: share of answers, 0 to 1.
        method: see `measure_ranges`.
        tick: called after each trial.

    Returns:
        The best trial; it is above `most_changed` only where no other part helps much.

    Raises:
        ConfigError: there are no images.
        KernelError: the network does not run in int8, or there are no kernels.
    """
    every = parts(program_to_quantise(checkpoint.network, ()))
    tried = images[:: -(-len(images) // MOST_TRIED) or 1]
    exact = _answers(checkpoint, tried, "f32")

    @cache
    def ranges(floats: tuple[str, ...]) -> tuple[Range, ...]:
        return measure_ranges(checkpoint.network, images, method, floats=floats)

    def attempt(*floats: str) -> Trial:
        int8 = Quantisation(
            ranges(tuple(set(floats) & {every[-1]})),  # of other parts they are the same
            method,
            len(images),
            checkpoint.card.sha256,
            floats=tuple(part for part in every if part in floats),
        )
        quantised = replace(checkpoint, card=replace(checkpoint.card, int8=int8))
        trial = Trial(int8, _changed(_answers(quantised, tried, "int8"), exact))
        tick(trial)
        return trial

    best = attempt()
    while best.above(most_changed) > 0:
        chosen = best.int8.floats
        left = {}  # above the bound, and the work of those parts
        for part in every:
            if part not in chosen:
                trial = attempt(*chosen, part)
                left[trial] = trial.above(most_changed), _work(checkpoint, trial.int8.floats)
        better = min(left, key=lambda trial: left[trial], default=best)
        if better.above(most_changed) > (1 - LEAST_GAIN) * best.above(most_changed):
            break
        best = better
    return best


def _answers(
    checkpoint: Checkpoint, images: Sequence[Tensor], dtype: Dtype
) -> list[list[NDArray[np.int64]]]:
    """For each exit and image, what its map says."""
    engine = NativeEngine(checkpoint, dtype=dtype, memory=MemoryBudget())
    exits = range(checkpoint.card.config.num_exits)
    found: list[list[NDArray[np.int64]]] = [[] for _ in exits]
    for image in images:
        begun = engine.begin_normalised(np.ascontiguousarray(image.numpy()))
        for one in exits:
            found[one].append(_answer(begun.advance().logits, checkpoint.card.task))
    return found


def _answer(map_: NDArray[np.float32], task: Task) -> NDArray[np.int64]:
    """(positions, 1) likeliest class; or (joints, 2) row and column of the maximum, in cells."""
    if task.has_classes:
        return np.asarray(map_.argmax(0).reshape(-1, 1), np.int64)
    places = map_.reshape(len(map_), -1).argmax(1)
    return np.stack(np.unravel_index(places, map_.shape[1:]), 1)


def _changed(
    ours: list[list[NDArray[np.int64]]], exact: list[list[NDArray[np.int64]]]
) -> tuple[float, ...]:
    """For each exit, the share of answers that are others: another class, another place."""
    shares = []
    for some, others in zip(ours, exact, strict=True):
        apart = np.abs(np.concatenate(some) - np.concatenate(others))
        near = 0 if apart.shape[1] == 1 else MOST_CELLS
        shares.append(float((apart.max(1) > near).mean()))
    return tuple(shares)


def _work(checkpoint: Checkpoint, floats: Sequence[str]) -> float:
    """Multiply-adds in floats of these parts, for each px of an image."""
    program = program_to_quantise(checkpoint.network, floats)
    return sum(
        program.convs[one.conv].weights.size / float(4 ** program.buffers[one.out].level)
        for one in program.operations
        if one.kind is Kind.CONV and one.part in floats
    )
