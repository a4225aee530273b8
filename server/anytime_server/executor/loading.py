"""Loading, warming up and measuring models, before the first request."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from anytime_model.checkpoint import MANIFEST, Card, load_model, read_manifest
from anytime_model.confidence import Criterion
from anytime_model.engines.base import Engine
from anytime_model.engines.fitted import fitted_size
from anytime_model.engines.native.memory import MemoryBudget
from anytime_model.engines.select import make_engine
from anytime_model.errors import AnytimeModelError
from anytime_protocol.enums import Task
from anytime_protocol.model_info import ClassInfo, ExitInfo, ModelInfo
from anytime_server.core.costs import ModelProfile, SizeProfile, StageCost
from anytime_server.executor.base import ServedModel
from anytime_server.executor.messages import WorkerSettings

_REPEATS: Final = 3
"""Profiled runs of which the median counts; one more before them warms up."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model, ready to compute.

    Attributes:
        engine: computes it.
        card: describes it.
    """

    engine: Engine
    card: Card

    @property
    def num_exits(self) -> int:
        """Number of exits."""
        return self.card.config.num_exits

    @property
    def map_stride(self) -> int:
        """Pixels of the image for each position of a map, in each direction."""
        return self.card.config.map_stride

    def criterion(self, stage: int) -> Criterion | None:
        """What settles pixels after a stage; the last exit is judged like the one before it."""
        criteria = self.card.criteria()
        return criteria[stage - 1] or criteria[stage - 2]


def load(settings: WorkerSettings, memory: MemoryBudget) -> dict[str, LoadedModel]:
    """The models that are to be served, in the manifest's order.

    Args:
        settings: which, and by what they are computed.
        memory: that their engines share.

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
    return {name: _load(cards[name], folder, settings, memory) for name in wanted}


def _load(card: Card, folder: Path, settings: WorkerSettings, memory: MemoryBudget) -> LoadedModel:
    checkpoint = load_model(card, folder)
    engine = make_engine(checkpoint, settings.engine, device=settings.device, memory=memory)
    return LoadedModel(engine, card)


def profile(model: LoadedModel, size: tuple[int, int]) -> ServedModel:
    """Warms a model up and measures what each stage costs, on an image of (H, W) px.

    A stage's time splits into a fixed part and one that goes with the share of active pixels: runs
    with everything active and with nothing active give both. A dense engine has a fixed part only.
    """
    dense = sparse = _time_stages(model, size, None)
    if model.engine.sparse:
        sparse = _time_stages(model, size, model.card.task.settle_all())
    stages = tuple(
        StageCost(min(s0, s1), max(s1 - s0, 0.0), min(g0, g1), max(g1 - g0, 0.0))
        for s0, s1, g0, g1 in zip(
            sparse.stages_s, dense.stages_s, sparse.gmacs, dense.gmacs, strict=True
        )
    )
    card = model.card
    costs = ModelProfile(
        card.name,
        (SizeProfile(*fitted_size(size, card.input_side), stages),),
        quality=() if card.quality is None else card.quality.per_exit,
        input_side=card.input_side,
        stride=card.config.stride,
        reaction_s=max(dense.reaction_s, sparse.reaction_s),
    )
    render_s_per_px = dense.render_s / (size[0] * size[1])
    return ServedModel(describe(card, dense.gmacs), costs, model.engine.name, render_s_per_px)


class _Measured(NamedTuple):
    """Medians of some runs.

    Attributes:
        stages_s: seconds of each stage.
        gmacs: 1e9 multiply-adds of each stage.
        render_s: seconds of rendering an exit.
        reaction_s: longest seconds between two checks whether to stop.
    """

    stages_s: list[float]
    gmacs: list[float]
    render_s: float
    reaction_s: float


def _time_stages(
    model: LoadedModel, size: tuple[int, int], criterion: Criterion | None
) -> _Measured:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    times: list[list[float]] = []
    renderings: list[float] = []
    reactions: list[float] = []
    gmacs: list[float] = []
    for _ in range(1 + _REPEATS):
        gmacs = []
        row: list[float] = []
        gaps: list[float] = []
        began = time.perf_counter()
        run = model.engine.begin(image)
        for _stage in range(model.num_exits):
            checks = [began]
            result = run.advance(criterion, partial(_note_time, checks))
            _note_time(checks)
            gaps += (after - before for before, after in pairwise(checks))
            row.append(checks[-1] - began)
            gmacs.append(result.macs / 1e9)
            began = time.perf_counter()
        model.engine.decode(result)
        renderings.append(time.perf_counter() - began)
        times.append(row)
        reactions.append(max(gaps))
    return _Measured(
        [statistics.median(column) for column in zip(*times[1:], strict=True)],
        gmacs,
        statistics.median(renderings[1:]),
        statistics.median(reactions[1:]),
    )


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
    names = tuple(label.name for label in card.labels)
    if task is Task.POSE:
        return ModelInfo(card.name, task, exits, keypoints=names, skeleton=card.skeleton)
    classes = tuple(
        ClassInfo(index, label.name, _rgb(label.color)) for index, label in enumerate(card.labels)
    )
    return ModelInfo(card.name, task, exits, classes=classes)


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue
