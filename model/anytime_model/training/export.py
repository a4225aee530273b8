"""Export of a training's progress as weights that can be served.

The averaged weights are calibrated and the masks' threshold is chosen, both on the recipe's
held-out split; then they are written with their card.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from anytime_model.checkpoint.card import Card, Masking
from anytime_model.checkpoint.store import save_checkpoint
from anytime_model.data.loading import AugmentedSet, Batch, EpochOrder, epoch_batches
from anytime_model.data.registry import open_layout
from anytime_model.data.sample import SampleSource
from anytime_model.evaluation.calibration import fold_temperatures, temperatures
from anytime_model.evaluation.measure import MeasureSettings
from anytime_model.evaluation.thresholds import Choice, choose
from anytime_model.networks.base import Network, build_network
from anytime_model.tasks import TASKS
from anytime_model.training import progress
from anytime_model.training.loop import training_criteria
from anytime_model.training.pipelines import Pipelines
from anytime_model.training.recipe import Recipe
from anytime_model.training.statistics import refresh

STATISTICS_BATCHES = 50
"""Batches that normalisation statistics are measured on."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export made.

    Attributes:
        card: as written.
        temperatures: of each exit; 1 where the confidence is no probability.
        choice: the thresholds that were tried.
    """

    card: Card
    temperatures: tuple[float, ...]
    choice: Choice


def export(
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
) -> Exported:
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
    settings = MeasureSettings(scale=scale, half=half)
    values: tuple[float, ...] = (1.0,) * recipe.network.num_exits
    if TASKS[held_out.task].probabilistic:
        values = temperatures(network, held_out, settings, tick)
        fold_temperatures(network, values)
    choice = choose(network, held_out, settings, allowed_loss=allowed_loss, tick=tick)
    card = card_for(recipe, held_out, name=name, licence=licence, description=description)
    if choice.threshold is not None:
        criterion = choice.tried[0][1].criterion or ""
        card = replace(
            card, masking=Masking(criterion, (choice.threshold,) * (recipe.network.num_exits - 1))
        )
    return Exported(save_checkpoint(network, card, folder), values, choice)


def _batches(recipe: Recipe, source: SampleSource) -> Iterable[Batch]:
    """Some batches of the epoch that would come next, augmented as in the last."""
    last = Pipelines(recipe, source.skeleton)(recipe.epochs - 1)
    data = AugmentedSet(source, lambda _: last, recipe.seed)
    order = EpochOrder(len(source), recipe.batch, recipe.epochs, recipe.seed)
    return islice(epoch_batches(data, order, workers=0), STATISTICS_BATCHES)


def trained_network(recipe: Recipe, progress_path: Path) -> Network:
    """The network with the weights that a training would keep: their average where it has one."""
    found = progress.load(progress_path, recipe.name)
    network = build_network(recipe.network)
    progress.restore(network, found.average or found.network, progress_path)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs
    return network.eval()


def card_for(
    recipe: Recipe, source: SampleSource, *, name: str, licence: str, description: str
) -> Card:
    """A card without file digest, masks and quality.

    Images are brought to the recipe's ladder; where it has none, those of a task with a fixed input
    size to the size of the last epochs.
    """
    last = recipe.augmentation_of(recipe.epochs - 1)
    fixed = TASKS[source.task].fixed_input_size
    return Card(
        name=name,
        file=f"{name}.safetensors",
        sha256="",
        config=recipe.network,
        labels=source.outputs,
        sides=recipe.ladder or ((max(last.output_size),) if fixed else ()),
        skeleton=source.skeleton.edges if source.skeleton else (),
        licence=licence,
        description=description,
    )
