"""What the executor's process does before the first request: loads models, warms up, measures.

Decides what a model's stages are said to cost, and what clients are told about it. Knows no request
and no pipe.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anytime_model.checkpoint import load_model
from anytime_model.confidence import Criterion, HeatmapMaximum, MaximumProbability
from anytime_model.engines.base import Engine
from anytime_model.engines.fitted import fitted_size
from anytime_model.engines.select import make_engine
from anytime_model.errors import AnytimeModelError
from anytime_model.manifest import MANIFEST, Card, read_manifest
from anytime_protocol.enums import Task
from anytime_protocol.resources import ClassInfo, ExitInfo, ModelInfo
from anytime_server.core.costs import ModelProfile, SizeProfile, StageCost
from anytime_server.executor.base import ServedModel
from anytime_server.executor.commands import WorkerSettings

_REPEATS = 3
"""Profiled runs of which the median counts; one more before them warms up."""


@dataclass(slots=True)
class Loaded:
    """A model, ready to compute.

    Attributes:
        engine: computes it.
        card: says what it is.
    """

    engine: Engine
    card: Card

    @property
    def exits(self) -> int:
        """Number of exits."""
        return len(self.card.criteria())

    def criterion(self, stage: int) -> Criterion | None:
        """What settles pixels after a stage; the last exit is judged like the one before it."""
        criteria = self.card.criteria()
        return criteria[stage - 1] or criteria[stage - 2]


def load(settings: WorkerSettings) -> dict[str, Loaded]:
    """The models that are to be served, in the manifest's order.

    Raises:
        CheckpointError: weights or manifest are missing or wrong.
        AnytimeModelError: a model that was asked for is not in the manifest, or there is none.
    """
    cards = read_manifest(settings.weights)
    folder = settings.weights if settings.weights.is_dir() else settings.weights.parent
    unknown = sorted(set(settings.models) - set(cards))
    if unknown or not cards:
        raise AnytimeModelError(
            f"{folder / MANIFEST} has {', '.join(cards) or 'no model at all'}; expected "
            f"{', '.join(unknown) or 'at least one'}. Correct the names or the folder."
        )
    wanted = settings.models or tuple(cards)
    return {name: _load(cards[name], folder, settings) for name in wanted}


def _load(card: Card, folder: Path, settings: WorkerSettings) -> Loaded:
    checkpoint = load_model(card, folder)
    return Loaded(make_engine(checkpoint, settings.engine, device=settings.device), card)


def profile(loaded: Loaded, size: tuple[int, int]) -> ServedModel:
    """Warms a model up and measures what each stage costs, on an image of (H, W) px.

    A stage's time splits into a fixed part and one that goes with the share of active pixels: runs
    with everything active and with nothing active tell both. A dense engine has a fixed part only.
    """
    dense = sparse = _time_stages(loaded, size, None)
    if loaded.engine.sparse:
        nothing: Criterion = MaximumProbability(-1.0)
        if loaded.card.config.task == "pose":
            nothing = HeatmapMaximum(1e9)
        sparse = _time_stages(loaded, size, nothing)
    stages = tuple(
        StageCost(min(s0, s1), max(s1 - s0, 0.0), min(g0, g1), max(g1 - g0, 0.0))
        for s0, s1, g0, g1 in zip(
            sparse.stages_s, dense.stages_s, sparse.gmacs, dense.gmacs, strict=True
        )
    )
    card = loaded.card
    quality = () if card.quality is None else card.quality.per_exit
    computed = SizeProfile(*fitted_size(size, card.input_side), stages)
    costs = ModelProfile(
        card.name,
        (computed,),
        quality,
        input_side=card.input_side,
        reaction_s=max(dense.reaction_s, sparse.reaction_s),
    )
    show_s_per_px = dense.show_s / (size[0] * size[1])
    return ServedModel(describe(card, dense.gmacs), costs, loaded.engine.name, show_s_per_px)


class _Timed(NamedTuple):
    """Medians of some runs.

    Attributes:
        stages_s: seconds of each stage.
        gmacs: 1e9 multiply-adds of each stage.
        show_s: seconds of a picture.
        reaction_s: longest seconds between two looks at whether to stop.
    """

    stages_s: list[float]
    gmacs: list[float]
    show_s: float
    reaction_s: float


def _time_stages(loaded: Loaded, size: tuple[int, int], criterion: Criterion | None) -> _Timed:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    times: list[list[float]] = []
    shows: list[float] = []
    reactions: list[float] = []
    gmacs: list[float] = []
    for _ in range(1 + _REPEATS):
        gmacs = []
        row: list[float] = []
        gaps: list[float] = []
        began = time.perf_counter()
        run = loaded.engine.begin(image)
        for _stage in loaded.card.criteria():
            looked = [began]
            result = run.advance(criterion, partial(_note_time, looked))
            _note_time(looked)
            gaps += (after - before for before, after in pairwise(looked))
            row.append(looked[-1] - began)
            gmacs.append(result.macs / 1e9)
            began = time.perf_counter()
        loaded.engine.decode(result)
        shows.append(time.perf_counter() - began)
        times.append(row)
        reactions.append(max(gaps))
    stages_s = [statistics.median(column) for column in zip(*times[1:], strict=True)]
    return _Timed(stages_s, gmacs, statistics.median(shows[1:]), statistics.median(reactions[1:]))


def _note_time(moments: list[float]) -> None:
    moments.append(time.perf_counter())


def describe(card: Card, gmacs: Sequence[float]) -> ModelInfo:
    """What clients are told about a model.

    Args:
        card: its manifest entry.
        gmacs: 1e9 multiply-adds of each stage, unmasked.
    """
    quality = [None] * len(gmacs) if card.quality is None else list(card.quality.per_exit)
    exits = tuple(ExitInfo(sum(gmacs[: index + 1]), value) for index, value in enumerate(quality))
    task = Task(card.config.task)
    if task is Task.POSE:
        joints = tuple(label.name for label in card.labels)
        return ModelInfo(card.name, task, exits, keypoints=joints, skeleton=card.skeleton)
    classes = tuple(
        ClassInfo(index, label.name, _rgb(label.color)) for index, label in enumerate(card.labels)
    )
    return ModelInfo(card.name, task, exits, classes=classes)


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue
