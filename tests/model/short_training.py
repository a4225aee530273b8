"""A training that a test can wait for."""

from __future__ import annotations

from pathlib import Path

import torch

from anytime_model.training.loop import CheckpointPolicy, Training
from anytime_model.training.recipe import Recipe
from anytime_model.training.run import run
from model.fakes import Silent


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    stop_after: int | None = None,
    resume: bool = False,
    branch: Path | None = None,
    teacher: Path | None = None,
    keypoints: Path | None = None,
    callback: Silent | None = None,
) -> Training:
    """Train a recipe here and now, in this process, with curves every two steps."""
    callback = callback or Silent()
    return run(
        recipe,
        data,
        out,
        callback,
        resume=resume,
        branch=branch,
        teacher=teacher,
        keypoints=keypoints,
        device=torch.device("cpu"),
        workers=0,
        policy=CheckpointPolicy(row_steps=2, check_epochs=1),
        stop=lambda: stop_after is not None and len(callback.losses) >= stop_after,
    )
