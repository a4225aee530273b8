"""One evaluation from files to a report: opens weights and data, and makes the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from anytime_model.checkpoint.card import Card, Masking, Quality
from anytime_model.checkpoint.manifest import write_card
from anytime_model.checkpoint.store import load_checkpoint
from anytime_model.confidence import heatmap_maximum, maximum_probability
from anytime_model.data.loading import collate
from anytime_model.data.registry import LAYOUTS, open_layout, recognise
from anytime_model.data.sample import SampleSource
from anytime_model.engines.base import Dtype
from anytime_model.engines.select import Precision, make_network_engine
from anytime_model.errors import ConfigError
from anytime_model.evaluation.figures import ExitView, Person, PoseView, draw_pose_sheet, draw_sheet
from anytime_model.evaluation.measure import (
    EngineNetwork,
    Measurable,
    MeasureSettings,
    measure,
    run_image,
)
from anytime_model.evaluation.report import EvaluationReport
from anytime_model.evaluation.scores import joints_at
from anytime_model.networks.base import State
from anytime_model.ops import upsample


@dataclass(frozen=True, slots=True)
class MaskOptions:
    """How an evaluation masks.

    Attributes:
        enabled: False to run without masks.
        criterion: name of a criterion; the card's, or the task's first, by default.
        threshold: for all exits; the card's thresholds by default.
    """

    enabled: bool = True
    criterion: str | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Weights, data and settings, opened and checked.

    Attributes:
        network: what is measured: an engine in place of its network.
        card: of the weights.
        source: the split.
        data_name: for people.
        settings: how to run.
        precision: what convolutions compute in.
    """

    network: Measurable
    card: Card
    source: SampleSource
    data_name: str
    settings: MeasureSettings
    precision: Dtype = "f32"


def prepare(
    weights: Path,
    data: Path,
    split: str,
    masks: MaskOptions = MaskOptions(),
    *,
    scale: float | None = None,
    flip: bool = False,
    precision: Precision | str = Precision.AUTO,
    device: str = "cpu",
    engine: str | None = None,
) -> Evaluation:
    """Open weights and data.

    Args:
        weights: one of our files, with its manifest beside it.
        data: a data set's folder; which one is recognised by its layout.
        split: such as test.
        masks: how to mask.
        scale: factor that images are enlarged by; by default the one of the card's quality, or the
            one that brings the split's first image to the largest size of the card's ladder.
        flip: average in the mirrored image's maps.
        precision: what convolutions compute in; by default what is served.
        device: of the torch engine.
        engine: what computes, see `engines.select`; None asks the environment, as the server does.

    Raises:
        CheckpointError: the weights cannot be used.
        DataError: the data set is not laid out as expected.
        ConfigError: weights, data and masks do not fit together.
    """
    checkpoint = load_checkpoint(weights)
    card = checkpoint.card
    source, data_name = open_data(data, split)
    if scale is None:
        scale = _usual_scale(card, source)
    if scale <= 0:
        raise ConfigError(f"the scale is {scale}; expected a positive factor such as 1.5.")
    made = make_network_engine(checkpoint, engine, precision=precision, device=device)
    settings = MeasureSettings(scale=scale, flip=flip)
    masked = with_masks(card, masks)
    if masked.masking is not None:
        settings = replace(
            settings,
            criteria=masked.criteria(),
            criterion=masked.masking.criterion,
            thresholds=masked.masking.thresholds,
        )
    return Evaluation(
        EngineNetwork(made, checkpoint.network), card, source, data_name, settings, made.dtype
    )


def open_data(data: Path, split: str) -> tuple[SampleSource, str]:
    """A split of the data set in a folder, and its name for people.

    Raises:
        DataError: the data set is not laid out as expected.
    """
    layout = recognise(data)
    return open_layout(layout, data, split), f"{LAYOUTS[layout].title} {split}"


def with_masks(card: Card, masks: MaskOptions) -> Card:
    """The card of a model that masks as the options say.

    Raises:
        ConfigError: the card has no thresholds for the criterion.
    """
    if not masks.enabled:
        return replace(card, masking=None)
    stored = card.masking
    name = masks.criterion or (stored.criterion if stored else card.task.first_criterion)
    if masks.threshold is not None:
        stored = Masking(name, (masks.threshold,) * (card.config.num_exits - 1))
    elif masks.criterion is not None and (stored is None or stored.criterion != name):
        raise ConfigError(f"the card has no thresholds for {name!r}; give --threshold.")
    return replace(card, masking=stored)


def run(
    evaluation: Evaluation, limit: int | None = None, tick: Callable[[], object] = lambda: None
) -> EvaluationReport:
    """Measure every exit.

    Args:
        evaluation: see `prepare`.
        limit: only so many images, evenly spaced.
        tick: called after each image.
    """
    return measure(
        evaluation.network,
        evaluation.source,
        evaluation.settings,
        model=evaluation.card.name,
        data=evaluation.data_name,
        limit=limit,
        tick=tick,
    )


def record(evaluation: Evaluation, report: EvaluationReport, folder: Path) -> Card:
    """Write a report's scores into the manifest beside the weights.

    Raises:
        ConfigError: the card has a ladder, whose rungs are more than these exits.
    """
    if evaluation.card.sides:
        raise ConfigError(
            f"{evaluation.card.name} is served along a ladder, and its card quotes every rung; "
            "record with --ladder."
        )
    scores = tuple(round(e.score, 4) for e in report.exits)
    quality = Quality(
        report.metric, scores, report.data, report.scale, precision=evaluation.precision
    )
    card = evaluation.card.with_quality(quality)
    write_card(folder, card)
    return card


@torch.no_grad()
def sheet(evaluation: Evaluation, name: str, path: Path) -> None:
    """Draw the exits of one image of the split (see `figures`).

    Raises:
        ConfigError: there is no such image, or it has nothing to compare with.
    """
    source = evaluation.source
    sample = next((s for s in map(source.__getitem__, range(len(source))) if s.name == name), None)
    if sample is None:
        raise ConfigError(f"{evaluation.data_name} has no image {name!r}; give its file's stem.")
    states, maps = run_image(
        evaluation.network, collate([sample]).images, evaluation.settings, source.skeleton
    )
    size = (sample.image.shape[0], sample.image.shape[1])
    map_stride = evaluation.network.config.map_stride
    settled = [_settled(state, size, map_stride) for state in states]
    if sample.labels is not None:
        views = [
            ExitView(
                predicted=full.argmax(1)[0].to(torch.uint8).numpy(),
                confidence=maximum_probability(full)[0, 0].numpy(),
                settled=done,
            )
            for full, done in zip(maps, settled, strict=True)
        ]
        draw_sheet(sample.image, sample.labels, views, source.outputs, path)
    elif sample.joints is not None and source.skeleton is not None:
        people = [
            PoseView(
                joints=joints_at(full, map_stride, evaluation.settings.scale)[0].numpy(),
                confidence=upsample(heatmap_maximum(full), size)[0, 0].numpy(),
                settled=done,
            )
            for full, done in zip(maps, settled, strict=True)
        ]
        person = Person(sample.image, sample.joints, sample.head_px or 0.0, source.skeleton.edges)
        draw_pose_sheet(person, people, source.outputs, path)
    else:
        raise ConfigError(f"{evaluation.data_name} has neither classes nor joints for {name!r}.")


def _settled(state: State, size: tuple[int, int], map_stride: int) -> np.ndarray:
    if state.active is None:
        return np.zeros(size, dtype=np.bool_)
    height, width = state.image_size
    cells = state.active.float()
    grown = cells.repeat_interleave(map_stride, -2).repeat_interleave(map_stride, -1)
    settled: np.ndarray = (upsample(grown[..., :height, :width], size)[0, 0] < 0.5).cpu().numpy()
    return settled


def _usual_scale(card: Card, source: SampleSource) -> float:
    if card.sides:
        return card.sides[-1] / int(max(source[0].image.shape[:2]))
    return card.quality.scale if card.quality else 1.0
