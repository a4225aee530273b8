"""The progress file of a training: written whole or not at all, read without running code.

It holds everything that the next step depends on, so a resumed training computes exactly what an
uninterrupted one would have.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anytime_model.errors import CheckpointError

FORMAT = 1


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """The state of a training between two steps.

    Attributes:
        recipe: name of the recipe.
        step: optimiser steps done since the start.
        epoch: epoch that the next step belongs to.
        step_in_epoch: steps of that epoch already done.
        network: state of the network.
        average: the averaged weights, or None.
        optimisers: state of each optimiser.
    """

    recipe: str
    step: int
    epoch: int
    step_in_epoch: int
    network: dict[str, Tensor]
    average: dict[str, Tensor] | None
    optimisers: list[dict[str, Any]]


def save(progress: TrainingProgress, path: Path) -> None:
    """Write a progress file; a full disk or a kill leaves the previous file as it was.

    Raises:
        CheckpointError: it cannot be written.
    """
    content = {
        "format": FORMAT,
        "recipe": progress.recipe,
        "step": progress.step,
        "epoch": progress.epoch,
        "step_in_epoch": progress.step_in_epoch,
        "network": progress.network,
        "average": progress.average,
        "optimisers": progress.optimisers,
    }
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise CheckpointError(
            path,
            f"the progress of step {progress.step} could not be written ({error}).",
            "Free some space and resume; the file holds the last progress that was written.",
        ) from error


def restore(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put the tensors of a progress file into the network of its recipe.

    Raises:
        CheckpointError: they are of another network, as the number of outputs has changed.
    """
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise CheckpointError(
            path,
            f"holds another network than the recipe makes for this data ({detail})",
            "Give the data set as it was when the training began, or train anew.",
        ) from error


def load(path: Path, *recipes: str) -> TrainingProgress:
    """Read a progress file (tensors and plain values only; nothing in it is executed).

    Args:
        path: the file.
        recipes: those that it may belong to.

    Raises:
        CheckpointError: it is missing, damaged, or another recipe's.
    """
    cure = "Start without --resume, or name the folder of the training to go on with."
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(path, "no such progress file.", cure) from error
    except Exception as error:
        raise CheckpointError(path, f"is no progress file ({error}).", cure) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(path, f"is no progress file of format {FORMAT}.", cure)
    if content["recipe"] not in recipes:
        raise CheckpointError(
            path, f"belongs to the recipe {content['recipe']}, not {recipes[0]}.", cure
        )
    return TrainingProgress(
        recipe=content["recipe"],
        step=content["step"],
        epoch=content["epoch"],
        step_in_epoch=content["step_in_epoch"],
        network=content["network"],
        average=content["average"],
        optimisers=content["optimisers"],
    )
