"""Loading, warming up and measuring models, before the first request."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from anytime_model.checkpoint import MANIFEST, Card, Quality, load_model, read_manifest
from anytime_model.confidence import Criterion
from anytime_model.engines.ladder import LadderEngine
from anytime_model.engines.native.memory import MemoryBudget
from anytime_model.engines.select import make_engine
from anytime_model.errors import AnytimeModelError
from anytime_model.networks.base import resized_size
from anytime_protocol.enums import Task
from anytime_protocol.model_info import CertificateInfo, ClassInfo, ExitInfo, ModelInfo
from anytime_server.core.costs import MeasuredPath, ModelProfile, SizeProfile
from anytime_server.core.stage_costs import StageCost
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

    engine: LadderEngine
    card: Card

    @property
    def num_exits(self) -> int:
        """Number of exits, at all sizes of its ladder."""
        return self.card.num_rungs

    @property
    def quality(self) -> Quality | None:
        """What was measured in the engine's precision; where nothing was, in that of the card."""
        return self.card.quality_in(self.engine.dtype) or self.card.quality

    def criterion(self, stage: int, risk: float | None = None) -> Criterion | None:
        """What settles pixels after a stage; see `Card.rung_criteria`."""
        return self.card.rung_criteria(risk)[stage - 1]

    def improves(self, made: tuple[int, ...]) -> bool:
        """Whether the last of some exits was measured to be better than all that were made before.

        Where nothing was measured, it is taken to be.
        """
        for path in () if self.quality is None else self.quality.paths:
            if path.rungs[: len(made)] == made:
                before, last = path.quality[: len(made) - 1], path.quality[len(made) - 1]
                return last > max(before, default=-1.0)
        return True


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
    engine = make_engine(
        checkpoint,
        settings.engine,
        precision=settings.precision,
        device=settings.device,
        memory=memory,
    )
    return LoadedModel(engine, card)


def profile(model: LoadedModel, size: tuple[int, int]) -> ServedModel:
    """Warms a model up and measures what each stage costs, on images of (H, W) px.

    A stage's time splits into a fixed part and one that goes with the share of active pixels: runs
    with everything active and with nothing active give both. A dense engine has a fixed part only.
    Where exits may be left out, what each takes is how much longer runs are that make it.

    A ladder is measured at all its sides. A model without one is also measured at half and at twice
    the size, as its images may have any.
    """
    card = model.card
    exits = card.config.num_exits
    stages, dense = _stage_costs(model, size)
    if card.sides:
        sizes = [resized_size(size, side) for side in card.sides]
        costs = [stages[start : start + exits] for start in range(0, len(stages), exits)]
    else:
        height, width = size
        sizes = [size, (-(-height // 2), -(-width // 2)), (2 * height, 2 * width)]
        costs = [stages, *(_stage_costs(model, other)[0] for other in sizes[1:])]
    quality = model.quality
    paths = () if quality is None else quality.paths
    costs_of_model = ModelProfile(
        card.name,
        tuple(SizeProfile(*at, found) for at, found in zip(sizes, costs, strict=True)),
        quality=() if quality is None else quality.per_exit,
        sides=card.sides,
        paths=tuple(MeasuredPath(path.rungs, path.quality) for path in paths),
        stride=card.config.stride,
        reaction_s=dense.reaction_s,
        prepare_s_per_px=_prepare_s_per_px(model, size),
    )
    render_s_per_px = dense.render_s / (size[0] * size[1])
    info = describe(model, dense, size)
    return ServedModel(info, costs_of_model, model.engine.name, render_s_per_px)


def _stage_costs(
    model: LoadedModel, size: tuple[int, int]
) -> tuple[tuple[StageCost, ...], _Measured]:
    """The costs of all stages, and the run with everything active that they come from."""
    every = range(1, model.num_exits + 1)
    dense = sparse = _time_steps(model, size, every, None)
    if model.engine.sparse:
        sparse = _time_steps(model, size, every, model.card.task.settle_all())
    exits = _exit_costs(model, size)
    stages = tuple(
        StageCost(min(s0, s1), max(s1 - s0, 0.0), min(g0, g1), max(g1 - g0, 0.0), *exit_)
        for s0, s1, g0, g1, exit_ in zip(
            sparse.steps_s, dense.steps_s, sparse.gmacs, dense.gmacs, exits, strict=True
        )
    )
    return stages, dense._replace(reaction_s=max(dense.reaction_s, sparse.reaction_s))


def _exit_costs(model: LoadedModel, size: tuple[int, int]) -> list[tuple[float, float]]:
    """Seconds and 1e9 multiply-adds of each exit by itself; zero where it cannot be left out."""
    count, total = model.card.config.num_exits, model.num_exits
    costs = [(0.0, 0.0)] * total
    if not model.card.config.may_skip_exits:
        return costs
    lasts = range(count, total + 1, count)
    direct = _time_steps(model, size, lasts, None)
    for exit_ in range(1, count):
        both = [rung for last in lasts for rung in (last - count + exit_, last)]
        made = _time_steps(model, size, both, None)
        for k, last in enumerate(lasts):
            seconds = sum(made.steps_s[2 * k : 2 * k + 2]) - direct.steps_s[k]
            gmacs = sum(made.gmacs[2 * k : 2 * k + 2]) - direct.gmacs[k]
            costs[last - count + exit_ - 1] = max(seconds, 0.0), max(gmacs, 0.0)
    return costs


def _prepare_s_per_px(model: LoadedModel, size: tuple[int, int]) -> float:
    """Seconds for each px that is computed that the first image of a size takes longer."""
    height, width = size
    # Of another shape, so that it is new at every side of a ladder; of as many px, if it can be.
    other = (width, height) if width != height else (height, max(width // 2, 1))
    times = []
    for _ in range(2):
        began = time.perf_counter()
        model.engine.prepare(other)
        times.append(time.perf_counter() - began)
    computed = [resized_size(other, side) for side in model.card.sides or (None,)]
    return max(times[0] - times[1], 0.0) / sum(height * width for height, width in computed)


class _Measured(NamedTuple):
    """Medians of some runs.

    Attributes:
        steps_s: seconds to each exit from the one before it.
        gmacs: 1e9 multiply-adds of the same.
        render_s: seconds of rendering an exit.
        reaction_s: longest seconds between two checks whether to stop.
    """

    steps_s: list[float]
    gmacs: list[float]
    render_s: float
    reaction_s: float


def _time_steps(
    model: LoadedModel, size: tuple[int, int], rungs: Sequence[int], criterion: Criterion | None
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
        for rung in rungs:
            checks = [began]
            result = run.advance(criterion, partial(_note_time, checks), rung=rung)
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


def describe(model: LoadedModel, measured: _Measured, size: tuple[int, int]) -> ModelInfo:
    """What clients are told about a model.

    Args:
        model: with its manifest entry.
        measured: without masks.
        size: (H, W) of the images that it was measured with, px.
    """
    card = model.card
    measured_quality = card.quality_in(model.engine.dtype)
    quality = [None] * model.num_exits if measured_quality is None else measured_quality.per_exit
    sides = [side for side in card.sides or (None,) for _ in range(card.config.num_exits)]
    exits = tuple(
        ExitInfo(gmacs, value, side, 1e3 * seconds)
        for gmacs, value, side, seconds in zip(
            accumulate(measured.gmacs), quality, sides, accumulate(measured.steps_s), strict=True
        )
    )
    task = Task(card.config.task)
    names = tuple(label.name for label in card.labels)
    certificates = tuple(
        CertificateInfo(c.risk, c.confidence, c.images, c.measured, c.largest_loss, c.dataset)
        for c in card.certificates
        if c.precision == model.engine.dtype
    )
    info = ModelInfo(
        card.name,
        task,
        exits,
        engine=model.engine.name,
        precision=model.engine.dtype,
        measured_size=size,
        description=card.description,
        certificates=certificates,
    )
    if task is Task.POSE:
        colors = tuple(_rgb(label.color) for label in card.labels)
        return replace(info, keypoints=names, skeleton=card.skeleton, keypoint_colors=colors)
    classes = tuple(
        ClassInfo(index, label.name, _rgb(label.color)) for index, label in enumerate(card.labels)
    )
    return replace(info, classes=classes)


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue
