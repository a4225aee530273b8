"""One training from a recipe's name to progress in a folder: builds the parts and runs the loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from anytime_model.checkpoint.store import load_checkpoint
from anytime_model.data.keypoints import FoundKeypoints, MergedSource
from anytime_model.data.loading import AugmentedSet, steps_per_epoch
from anytime_model.data.registry import open_layout
from anytime_model.data.sample import SampleSource
from anytime_model.errors import CheckpointError, ConfigError
from anytime_model.evaluation.check import quick_scores
from anytime_model.networks.base import Network, build_network, family
from anytime_model.tasks import TASKS
from anytime_model.training import processes
from anytime_model.training.finetune import FINE_TUNINGS
from anytime_model.training.loop import PROGRESS, Callback, CheckpointPolicy, Training
from anytime_model.training.losses import CrossEntropy, balanced_weights
from anytime_model.training.pipelines import Pipelines
from anytime_model.training.recipe import Recipe
from anytime_model.training.recipes import RECIPES
from anytime_model.training.train_step import TrainStep


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a command line may change about a recipe; None leaves it as it is."""

    epochs: int | None = None
    steps: int | None = None
    batch: int | None = None
    seed: int | None = None


def recipe_named(name: str, overrides: Overrides = Overrides(), data: Path | None = None) -> Recipe:
    """A recipe by name, with the overrides put in.

    Args:
        name: of a recipe, or of a fine-tuning.
        overrides: what changes.
        data: folder of the data set, which completes a fine-tuning.

    Raises:
        ConfigError: there is no such recipe, or a fine-tuning lacks its data.
        DataError: the data set cannot be read.
    """
    if name in FINE_TUNINGS:
        if data is None:
            raise ConfigError(f"{name} is completed by its data set; give its folder.")
        recipe = FINE_TUNINGS[name].recipe(data)
    elif name in RECIPES:
        recipe = RECIPES[name]
    else:
        known = ", ".join((*FINE_TUNINGS, *RECIPES))
        raise ConfigError(f"{name!r} is no recipe; expected one of {known}.")
    return replace(
        recipe,
        epochs=overrides.epochs or recipe.epochs,
        steps=overrides.steps or recipe.steps,
        batch=overrides.batch or recipe.batch,
        seed=recipe.seed if overrides.seed is None else overrides.seed,
    )


def run(
    recipe: Recipe,
    data: Path,
    out: Path,
    callback: Callback,
    *,
    resume: bool = False,
    branch: Path | None = None,
    device: torch.device | None = None,
    workers: int = 1,
    policy: CheckpointPolicy = CheckpointPolicy(),  # noqa: B008  (frozen)
    init: Path | None = None,
    teacher: Path | None = None,
    keypoints: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Training:
    """Train a recipe.

    Args:
        recipe: what to do.
        data: the data set's folder.
        out: where progress, curves and weights go.
        callback: called as it goes on.
        resume: go on from the progress in `out`.
        branch: go on from this progress file instead, and leave it as it is: to cool down a copy
            of a training that itself continues. It may be a recipe's that differs in nothing that
            the file holds (`siblings`): to compare what comes after one beginning.
        device: where; the first GPU, else the CPU.
        workers: processes that load and augment.
        policy: how often to save and check.
        init: weights of ours to start from instead of random ones.
        teacher: weights of ours that teach by soft targets; a recipe with `taught` needs them.
        keypoints: an .npz of key points (`data.keypoints`) that labels are merged with; a recipe
            with `keypoints` needs it.
        stop: asked after each step whether to stop.

    Raises:
        CheckpointError: progress that cannot be used, or a folder that already holds some.
        ConfigError: recipe and data do not fit together.
        DataError: the data set is not laid out as expected.
    """
    process = processes.join()
    device = device or _device(process)
    source = _merged(recipe, open_layout(recipe.data, data, recipe.split), keypoints)
    _fit(recipe, source, process.world)
    start = branch or (out / PROGRESS if resume else None)
    if start is None and (out / PROGRESS).exists():
        raise CheckpointError(
            out / PROGRESS, "holds a training already.", "Resume it, or give another folder."
        )
    ending = recipe.ending_after(steps_per_epoch(len(source), recipe.batch))
    torch.manual_seed(recipe.seed)
    network = build_network(recipe.network).to(device)
    if recipe.pretrained and not (start or init):
        pretrain(network)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs
    task = TASKS[source.task]
    if task.initial_head_std is not None:
        initialise_heads(network, task.initial_head_std)
    if init:
        warm_start(network, init)
    wrapped = processes.share(network, process)
    weights = None
    if isinstance(recipe.loss, CrossEntropy) and recipe.loss.balance:
        weights = balanced_weights(source)
    check_source = open_layout(recipe.data, data, recipe.check_split)

    def check(trained: Network) -> tuple[float, ...]:
        return quick_scores(trained, check_source, device, task.check_batch)

    training = Training(
        recipe,
        TrainStep(
            wrapped,
            network,
            recipe,
            device,
            class_weights=weights,
            teacher=_teacher(recipe, teacher),
            process=process,
        ),
        AugmentedSet(source, Pipelines(ending, source.skeleton), recipe.seed),
        out,
        callback,
        check=check,
        process=process,
        workers=workers,
        policy=policy,
        stop=stop,
    )
    if start:
        training.resume(start, siblings(recipe) if branch else ())
    training.run()
    processes.leave(process)
    return training


def siblings(recipe: Recipe) -> tuple[str, ...]:
    """Names of the recipes with the same network, data and optimiser."""
    return tuple(
        other.name
        for other in RECIPES.values()
        if (other.network, other.data, other.optimiser)
        == (recipe.network, recipe.data, recipe.optimiser)
    )


def initialise_heads(network: Network, std: float) -> None:
    """Draw the weights of each exit's last convolution anew, with a standard deviation.

    With a small one, maps begin near zero, where nearly all targets of heat-maps are (as HRNet's
    do); otherwise the first hundred steps go into shrinking the features.
    """
    for head in network.exits:
        if isinstance(head.predict, nn.Conv2d):
            nn.init.normal_(head.predict.weight, std=std)


def pretrain(network: Network) -> None:
    """Put the weights that the network's family has published elsewhere into its backbone.

    Raises:
        ConfigError: there are none, or their package is not installed.
        CheckpointError: their file cannot be used.
    """
    load = family(network.config.family).pretrain
    if load is None:
        raise ConfigError(
            f"the family {network.config.family!r} has no published weights to start from; give "
            "weights of ours with --init, such as weights/camvid-w18.safetensors, or leave "
            "`pretrained` out of the recipe."
        )
    load(network)


def warm_start(network: Network, weights: Path) -> tuple[str, ...]:
    """Copy all weights of a file that fit by name and shape: a backbone, whatever its task.

    Args:
        network: is changed.
        weights: one of our files (convert a published one first).

    Returns:
        Names of tensors that keep their random start.

    Raises:
        CheckpointError: the file cannot be used, or no layer of its backbone fits.
    """
    found = load_checkpoint(weights).network.state_dict()
    own = network.state_dict()
    fitting = {n: t for n, t in found.items() if n in own and own[n].shape == t.shape}
    if not any(name.startswith(("stages.1.", "function.")) for name in fitting):
        raise CheckpointError(
            weights,
            "has no layer that fits this network's stages.",
            f"Give weights of the same family and size: {network.config.entries()}.",
        )
    network.load_state_dict(fitting, strict=False)
    return tuple(name for name in own if name not in fitting)


def _merged(recipe: Recipe, source: SampleSource, keypoints: Path | None) -> SampleSource:
    if recipe.keypoints != (keypoints is not None):
        wanted = "needs a file" if recipe.keypoints else "merges no labels; leave out the one"
        raise ConfigError(f"{recipe.name} {wanted} of key points with --keypoints.")
    return MergedSource(source, FoundKeypoints.read(keypoints)) if keypoints else source


def _teacher(recipe: Recipe, weights: Path | None) -> Network | None:
    if bool(recipe.taught) != (weights is not None):
        wanted = "needs a teacher; give weights" if recipe.taught else "has no teacher; leave out"
        raise ConfigError(f"{recipe.name} {wanted} with --teacher.")
    if weights is None:
        return None
    network = load_checkpoint(weights).network
    found, own = network.config, recipe.network
    if (found.outputs, found.map_stride) != (own.outputs, own.map_stride):
        raise ConfigError(
            f"the teacher {weights} has {found.outputs} outputs on a map of stride "
            f"{found.map_stride}; expected {own.outputs} and {own.map_stride}. Give another."
        )
    return network


def _device(process: processes.ProcessRank) -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", process.local)
    return torch.device("cpu")


def _fit(recipe: Recipe, source: SampleSource, world: int) -> None:
    if recipe.network.outputs != len(source.outputs):
        raise ConfigError(
            f"{recipe.name} has {recipe.network.outputs} outputs, the data set "
            f"{len(source.outputs)}; correct the recipe's network."
        )
    if recipe.batch % world:
        raise ConfigError(
            f"a batch of {recipe.batch} cannot be shared by {world} processes; "
            "give a --batch that their number divides."
        )
    num_exits = recipe.network.num_exits
    if len(recipe.exit_weights) != num_exits:
        raise ConfigError(
            f"{recipe.name} has {len(recipe.exit_weights)} exit weights; expected {num_exits}."
        )
