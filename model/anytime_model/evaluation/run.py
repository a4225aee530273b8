"""One evaluation from files to a report: it opens weights and data, and decides what runs.

The only file of this package that constructs networks and sources; it prints nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from anytime_model.anytime import AnytimeNetwork, State
from anytime_model.checkpoint import load_checkpoint
from anytime_model.confidence import heatmap_maximum, maximum_probability
from anytime_model.data.catalogue import LAYOUTS, open_layout, recognise
from anytime_model.data.loading import collate
from anytime_model.data.sample import SampleSource
from anytime_model.errors import ConfigError
from anytime_model.evaluation.figures import (
    ExitView,
    Person,
    PoseView,
    draw_pose_sheet,
    draw_sheet,
)
from anytime_model.evaluation.measure import Settings, found_joints, measure, run_image
from anytime_model.evaluation.report import Report
from anytime_model.hrnet import upsample
from anytime_model.manifest import Card, Masking, Quality, write_card
from anytime_model.tasks import MAP_STRIDE


@dataclass(frozen=True, slots=True)
class Masks:
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
        network: in evaluation mode.
        card: of the weights.
        source: the split.
        data_name: for people.
        settings: how to run.
    """

    network: AnytimeNetwork
    card: Card
    source: SampleSource
    data_name: str
    settings: Settings


def prepare(
    weights: Path,
    data: Path,
    split: str,
    masks: Masks = Masks(),
    *,
    scale: float | None = None,
    flip: bool = False,
    half: bool = False,
    device: torch.device | None = None,
) -> Evaluation:
    """Open weights and data.

    Args:
        weights: one of our files, with its manifest beside it.
        data: a data set's folder; which one is recognised by its layout.
        split: such as test.
        masks: how to mask.
        scale: factor that images are enlarged by; the one of the card's quality by default.
        flip: average in the mirrored image's maps.
        half: bfloat16 autocast.
        device: the CPU by default.

    Raises:
        CheckpointError: the weights cannot be used.
        DataError: the data set is not laid out as expected.
        ConfigError: weights, data and masks do not fit together.
    """
    checkpoint = load_checkpoint(weights)
    card = checkpoint.card
    if scale is None:
        scale = card.quality.scale if card.quality else 1.0
    if scale <= 0:
        raise ConfigError(f"the scale is {scale}; expected a positive factor such as 1.5.")
    layout = recognise(data)
    device = device or torch.device("cpu")
    network = checkpoint.network.to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs
    settings = Settings(scale=scale, flip=flip, half=half, device=device)
    return Evaluation(
        network,
        card,
        open_layout(layout, data, split),
        f"{LAYOUTS[layout].title} {split}",
        _with_masks(settings, card, masks),
    )


def run(
    evaluation: Evaluation, limit: int | None = None, tick: Callable[[], object] = lambda: None
) -> Report:
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


def record(evaluation: Evaluation, report: Report, folder: Path) -> Card:
    """Write a report's scores into the manifest beside the weights."""
    a, b, c, d = (round(e.score, 4) for e in report.exits)
    quality = Quality(report.metric, (a, b, c, d), report.data, report.scale)
    card = replace(evaluation.card, quality=quality)
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
    settled = [_settled(state, size) for state in states]
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
                joints=found_joints(full, evaluation.settings.scale)[0].numpy(),
                confidence=upsample(heatmap_maximum(full), size)[0, 0].numpy(),
                settled=done,
            )
            for full, done in zip(maps, settled, strict=True)
        ]
        person = Person(sample.image, sample.joints, sample.head_px or 0.0, source.skeleton.edges)
        draw_pose_sheet(person, people, source.outputs, path)
    else:
        raise ConfigError(f"{evaluation.data_name} has neither classes nor joints for {name!r}.")


def _settled(state: State, size: tuple[int, int]) -> np.ndarray:
    if state.active is None:
        return np.zeros(size, dtype=np.bool_)
    height, width = state.image_size
    grown = state.active.float().repeat_interleave(MAP_STRIDE, -2).repeat_interleave(MAP_STRIDE, -1)
    settled: np.ndarray = (upsample(grown[..., :height, :width], size)[0, 0] < 0.5).cpu().numpy()
    return settled


def _with_masks(settings: Settings, card: Card, masks: Masks) -> Settings:
    if not masks.enabled:
        return settings
    stored = card.masking
    name = masks.criterion or (stored.criterion if stored else next(iter(card.task.criteria)))
    if masks.threshold is not None:
        stored = Masking(name, (masks.threshold,) * 3)
    elif stored is None or stored.criterion != name:
        if masks.criterion is None:
            return settings
        raise ConfigError(f"the card has no thresholds for {name!r}; give --threshold.")
    return replace(
        settings,
        criteria=replace(card, masking=stored).criteria(),
        criterion=stored.criterion,
        thresholds=stored.thresholds,
    )
