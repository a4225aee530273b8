"""From a training's progress to weights that can be served.

Takes the averaged weights, calibrates each exit, chooses the masks' threshold, both on the
recipe's held-out split, and writes them with their card.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from anytime_model.anytime import AnytimeNetwork
from anytime_model.checkpoint import save_checkpoint
from anytime_model.data.augment import PoseAugmentation
from anytime_model.data.catalogue import open_layout
from anytime_model.data.loading import (
    AugmentedSet,
    Batch,
    EpochOrder,
    epoch_batches,
)
from anytime_model.data.sample import SampleSource
from anytime_model.evaluation.calibration import fold_temperatures, temperatures
from anytime_model.evaluation.measure import Settings
from anytime_model.evaluation.thresholds import Choice, choose
from anytime_model.manifest import Card, Masking
from anytime_model.training import progress
from anytime_model.training.loop import training_criteria
from anytime_model.training.pipelines import Pipelines
from anytime_model.training.recipe import Recipe
from anytime_model.training.statistics import refresh

STATISTICS_BATCHES = 50
"""Batches that normalisation statistics are measured on."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What finishing did.

    Attributes:
        card: as written.
        temperatures: of exits 1 to 4; all 1 for pose.
        choice: the thresholds that were tried.
    """

    card: Card
    temperatures: tuple[float, ...]
    choice: Choice


def finish(
    recipe: Recipe,
    progress_path: Path,
    data: Path,
    folder: Path,
    *,
    name: str,
    licence: str,
    description: str,
    scale: float = 1.0,
    allowed_loss: float = 0.003,
    half: bool = False,
    tick: Callable[[], object] = lambda: None,
) -> Finished:
    """Write weights and their card.

    Args:
        recipe: that was trained.
        progress_path: where the training left its progress.
        data: the data set's folder.
        folder: of the weights and their manifest.
        name: of the model, and of its file.
        licence: of the weights.
        description: one line.
        scale: factor that images will be enlarged by.
        allowed_loss: what masks may cost the last exit on the held-out split, 0 to 1.
        half: run in bfloat16 while calibrating and choosing.
        tick: called after each image.

    Raises:
        CheckpointError: the progress cannot be used or the weights cannot be written.
        DataError: the data set is not laid out as expected.
    """
    held_out = open_layout(recipe.data, data, recipe.check_split)
    network = trained_network(recipe, progress_path)
    refresh(
        network,
        _batches(recipe, open_layout(recipe.data, data, recipe.split)),
        training_criteria(recipe),
        half=half,
    )
    settings = Settings(scale=scale, half=half)
    values: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    if held_out.task == "segmentation":
        values = temperatures(network, held_out, settings, tick)
        fold_temperatures(network, values)
    choice = choose(network, held_out, settings, allowed_loss=allowed_loss, tick=tick)
    card = card_for(recipe, held_out, name=name, licence=licence, description=description)
    if choice.threshold is not None:
        criterion = choice.tried[0][1].criterion or ""
        card = replace(card, masking=Masking(criterion, (choice.threshold,) * 3))
    return Finished(save_checkpoint(network, card, folder), values, choice)


def _batches(recipe: Recipe, source: SampleSource) -> Iterable[Batch]:
    """Some batches of the epoch that would come next, augmented as in the last."""
    last = Pipelines(recipe, source.skeleton)(recipe.epochs - 1)
    data = AugmentedSet(source, lambda _: last, recipe.seed)
    order = EpochOrder(len(source), recipe.batch, recipe.epochs, recipe.seed)
    return islice(epoch_batches(data, order, workers=0), STATISTICS_BATCHES)


def trained_network(recipe: Recipe, progress_path: Path) -> AnytimeNetwork:
    """The network with the weights that a training would keep: their average where it has one."""
    found = progress.load(progress_path, recipe.name)
    network = AnytimeNetwork(recipe.network)
    network.load_state_dict(found.average or found.network)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs
    return network.eval()


def card_for(
    recipe: Recipe, source: SampleSource, *, name: str, licence: str, description: str
) -> Card:
    """A card without file digest, masks and quality.

    People are shown to the network at the size that the last epochs had; streets as they come.
    """
    last = recipe.augmentation_of(recipe.epochs - 1)
    return Card(
        name=name,
        file=f"{name}.safetensors",
        sha256="",
        config=recipe.network,
        labels=source.outputs,
        input_side=max(last.size) if isinstance(last, PoseAugmentation) else None,
        skeleton=source.skeleton.edges if source.skeleton else (),
        licence=licence,
        description=description,
    )
