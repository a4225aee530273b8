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
from anytime_model.engines.native.quantisation import parts
from anytime_model.engines.native.ranges import Method, measure_ranges, program_to_quantise
from anytime_model.kernels.library import Kind
from anytime_model.results import ExitResult


@dataclass(frozen=True, slots=True)
class Trial:
    """A choice of parts in floats, and what it loses.

    Attributes:
        int8: ranges and parts, as a card has them.
        changed: share of the answers of each exit that are not float32's, 0 to 1.
    """

    int8: Quantisation
    changed: tuple[float, ...]


def choose_floats(
    checkpoint: Checkpoint,
    images: Sequence[Tensor],
    most_changed: float,
    method: Method = "mse",
    tick: Callable[[Trial], object] = lambda _trial: None,
) -> Trial:
    """Leave parts in floats, one after the other, until no exit changes more than is allowed.

    The next part is the one that lowers what is above that by most for each multiply-add that it
    does in floats.

    Args:
        checkpoint: of a family that runs in int8.
        images: (3, H, W) normalised, of any size; at least one.
        most_changed: share of answers, 0 to 1.
        method: see `measure_ranges`.
        tick: called after each trial.

    Returns:
        The last trial; it is above `most_changed` only where no part helps any more.
    """
    exact = _answers(checkpoint, images, "f32")
    every = parts(program_to_quantise(checkpoint.network, ()))

    @cache
    def ranges(head_in_floats: tuple[str, ...]) -> tuple[tuple[float, float], ...]:
        return measure_ranges(checkpoint.network, images, method, floats=head_in_floats)

    def attempt(floats: tuple[str, ...]) -> Trial:
        int8 = Quantisation(
            ranges(tuple(part for part in floats if part == every[-1])),
            method,
            len(images),
            checkpoint.card.sha256,
            floats=floats,
        )
        card = replace(checkpoint.card, int8=int8)
        found = _answers(replace(checkpoint, card=card), images, "int8")
        changed = tuple(
            float(
                np.concatenate([_changed(*pair) for pair in zip(ours, theirs, strict=True)]).mean()
            )
            for ours, theirs in zip(zip(*found, strict=True), zip(*exact, strict=True), strict=True)
        )
        trial = Trial(int8, changed)
        tick(trial)
        return trial

    def above(trial: Trial) -> float:
        return sum(max(0.0, share - most_changed) for share in trial.changed)

    best = attempt(())
    while above(best) > 0:
        chosen = best.int8.floats
        trials = [
            attempt(tuple(one for one in every if one in (*chosen, part)))
            for part in every
            if part not in chosen
        ]
        work = _work(checkpoint, [trial.int8.floats for trial in trials])
        gains = [
            (above(best) - above(trial)) / macs for trial, macs in zip(trials, work, strict=True)
        ]
        if not gains or max(gains) <= 0:
            break
        best = trials[int(np.argmax(gains))]
    return best


def _answers(
    checkpoint: Checkpoint, images: Sequence[Tensor], dtype: Dtype
) -> list[list[NDArray[np.int64]]]:
    """For each image and exit, what its map says."""
    engine = NativeEngine(checkpoint, dtype=dtype, memory=MemoryBudget())
    classes = checkpoint.card.task.has_classes
    found = []
    for image in images:
        begun = engine.begin_normalised(np.ascontiguousarray(image.numpy()))
        results = [begun.advance() for _ in range(checkpoint.card.config.num_exits)]
        found.append([_answer(result, classes=classes) for result in results])
    return found


def _answer(result: ExitResult, *, classes: bool) -> NDArray[np.int64]:
    """(positions, 1) likeliest class; or (joints, 2) row and column of the maximum, in cells."""
    map_ = result.logits
    if classes:
        return map_.argmax(0).reshape(-1, 1)
    places = map_.reshape(len(map_), -1).argmax(1)
    return np.stack(np.unravel_index(places, map_.shape[1:]), 1)


def _changed(ours: NDArray[np.int64], exact: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which answers are others: another class, or a place more than a cell away."""
    near = 0 if ours.shape[1] == 1 else 1
    return np.abs(ours - exact).max(1) > near


def _work(checkpoint: Checkpoint, choices: Sequence[Sequence[str]]) -> list[float]:
    """Multiply-adds in floats of each choice, for each px of an image; 1 at least."""
    found = []
    for floats in choices:
        program = program_to_quantise(checkpoint.network, floats)
        found.append(
            1.0
            + sum(
                program.convs[one.conv].weights.size / 4 ** program.buffers[one.out].level
                for one in program.operations
                if one.kind is Kind.CONV and one.part in floats
            )
        )
    return found
