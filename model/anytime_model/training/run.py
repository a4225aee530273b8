"""One training from a recipe's name to weights in a folder: it builds the parts and runs the loop.

The only file here that constructs networks and sources. It knows devices and processes; it prints
nothing itself (`Watcher` does).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from anytime_model.anytime import AnytimeNetwork
from anytime_model.config import NUM_EXITS
from anytime_model.data.catalogue import open_layout
from anytime_model.data.loading import AugmentedSet
from anytime_model.data.sample import SampleSource
from anytime_model.errors import CheckpointError, ConfigError
from anytime_model.evaluation.check import quick_scores
from anytime_model.training.loop import PROGRESS, Place, Rhythm, Training, Watcher, seed_everything
from anytime_model.training.losses import CrossEntropy, balanced_weights
from anytime_model.training.pipelines import Pipelines
from anytime_model.training.recipes import RECIPES, Recipe
from anytime_model.training.steps import Stepper

CHECK_BATCH = 25


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a command line may change about a recipe; None leaves it as it is."""

    epochs: int | None = None
    batch: int | None = None
    seed: int | None = None


def recipe_named(name: str, overrides: Overrides = Overrides()) -> Recipe:
    """A recipe by name, with the overrides put in.

    Raises:
        ConfigError: there is no such recipe.
    """
    if name not in RECIPES:
        raise ConfigError(f"{name!r} is no recipe; expected one of {', '.join(RECIPES)}.")
    recipe = RECIPES[name]
    return replace(
        recipe,
        epochs=overrides.epochs or recipe.epochs,
        batch=overrides.batch or recipe.batch,
        seed=recipe.seed if overrides.seed is None else overrides.seed,
    )


def run(
    recipe: Recipe,
    data: Path,
    out: Path,
    watcher: Watcher,
    *,
    resume: bool = False,
    branch: Path | None = None,
    device: torch.device | None = None,
    workers: int = 1,
    rhythm: Rhythm = Rhythm(),  # noqa: B008  (frozen)
    stop_after_steps: int | None = None,
) -> Training:
    """Train a recipe.

    Args:
        recipe: what to do.
        data: the data set's folder.
        out: where progress, curves and weights go.
        watcher: is told how it goes.
        resume: go on from the progress in `out`.
        branch: go on from this progress file instead, and leave it as it is: to cool down a copy
            of a training that itself continues.
        device: where; the first GPU, else the CPU.
        workers: processes that load and augment.
        rhythm: how often to save and check.
        stop_after_steps: stop early, as an interrupt would.

    Raises:
        CheckpointError: progress that cannot be used, or a folder that already holds some.
        ConfigError: recipe and data do not fit together.
        DataError: the data set is not laid out as expected.
    """
    place = _place()
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    source = open_layout(recipe.data, data, recipe.split)
    _fit(recipe, source)
    start = branch or (out / PROGRESS if resume else None)
    if start is None and (out / PROGRESS).exists():
        raise CheckpointError(
            out / PROGRESS, "holds a training already.", "Resume it, or give another folder."
        )
    seed_everything(recipe.seed)
    network = AnytimeNetwork(recipe.network).to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs
    wrapped: nn.Module = network
    if place.world > 1:
        wrapped = nn.parallel.DistributedDataParallel(network, find_unused_parameters=True)
    weights = None
    if isinstance(recipe.loss, CrossEntropy) and recipe.loss.balance:
        weights = balanced_weights(source)
    check_source = open_layout(recipe.data, data, recipe.check_split)

    def check(trained: AnytimeNetwork) -> tuple[float, ...]:
        return quick_scores(
            trained, check_source, device, CHECK_BATCH if source.task == "pose" else 1
        )

    training = Training(
        recipe,
        Stepper(wrapped, network, recipe, device, weights),
        AugmentedSet(source, Pipelines(recipe, source.skeleton), recipe.seed),
        out,
        watcher,
        check=check,
        place=place,
        workers=workers,
        rhythm=rhythm,
    )
    if start:
        training.resume(start)
    training.run(stop_after_steps)
    return training


def _fit(recipe: Recipe, source: SampleSource) -> None:
    if recipe.network.outputs != len(source.outputs):
        raise ConfigError(
            f"{recipe.name} has {recipe.network.outputs} outputs, the data set "
            f"{len(source.outputs)}; correct the recipe's network."
        )
    if len(recipe.exit_weights) != NUM_EXITS:
        raise ConfigError(f"{recipe.name} needs {NUM_EXITS} exit weights.")


def _place() -> Place:
    """This process among those that torchrun started; joins them."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Place()
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return Place(torch.distributed.get_rank(), world)
