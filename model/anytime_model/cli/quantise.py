"""`anytime-model quantise`: the ranges that a model needs to run in int8, into its manifest."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from torch import Tensor

from anytime_model.checkpoint.card import Card
from anytime_model.checkpoint.manifest import write_card
from anytime_model.checkpoint.store import load_checkpoint
from anytime_model.cli.options import ThreadsOption, WeightsOption
from anytime_model.cli.overlays import read_image
from anytime_model.engines.native.sensitivity import Trial, choose_floats
from anytime_model.errors import ConfigError
from anytime_model.networks.base import resized_size

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


class Method(StrEnum):
    """How ranges are chosen."""

    MSE = "mse"
    PERCENTILE = "percentile"
    LARGEST = "largest"


def quantise(
    weights: WeightsOption,
    images: Annotated[Path, typer.Option(help="Folder of images that were trained on.")],
    method: Annotated[
        Method, typer.Option(help="mse: least squared error; percentile: all but 1 in 10 000.")
    ] = Method.MSE,
    limit: Annotated[int, typer.Option(help="Only so many images, evenly spaced.", min=1)] = 64,
    scale: Annotated[
        float, typer.Option(help="Factor that images are enlarged by, without a ladder.")
    ] = 1.0,
    max_changed: Annotated[
        float,
        typer.Option(
            help="Percent of an exit's answers that may differ from float32's: parts of the "
            "network stay in floats until none is above it.",
            min=0,
            max=100,
        ),
    ] = 1.2,
    threads: ThreadsOption = None,
) -> None:
    """Measure which values a model's maps take, and note them in its manifest for --precision int8.

    Answers are classes of positions of a map, or joints. Labels are not needed. Measure the quality
    afterwards: `anytime-model evaluate --precision int8 --record`; "auto" takes int8 only where
    that is on record.
    """
    if threads:
        torch.set_num_threads(threads)
    checkpoint = load_checkpoint(weights)
    card = checkpoint.card
    found = sorted(path for path in images.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise ConfigError(f"{images} has no JPEG, PNG or WebP files; expected at least one.")
    chosen = [found[i] for i in np.linspace(0, len(found) - 1, min(limit, len(found)), dtype=int)]
    prepared = [made for path in chosen for made in at_sizes(read_image(path), card, scale)]
    console = Console(stderr=True)
    trial = choose_floats(
        checkpoint, prepared, max_changed / 100, method.value, lambda one: console.print(_line(one))
    )
    int8 = replace(trial.int8, images=len(chosen))
    write_card(weights.parent, replace(card, int8=int8))
    typer.echo(f"{card.name}: ranges from {len(chosen)} images; {_line(trial)}.")
    if trial.above(max_changed / 100):
        typer.echo(
            f"More than {max_changed:g} % differ, and no other part would help much.", err=True
        )


def _line(trial: Trial) -> str:
    shares = " / ".join(f"{100 * share:.2f}" for share in trial.changed)
    return f"in floats: {', '.join(trial.int8.floats) or 'nothing'}; other answers {shares} %"


def at_sizes(image: np.ndarray, card: Card, scale: float = 1.0) -> list[Tensor]:
    """An image (H, W, 3) as the network gets it, (3, h, w), at each size of the ladder."""
    height, width = image.shape[:2]
    sizes = [resized_size((height, width), side) for side in card.sides] or [
        (round(scale * height), round(scale * width))
    ]
    made = []
    for h, w in sizes:
        pixels = Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR)
        values = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255
        mean, std = (torch.tensor(three).view(3, 1, 1) for three in (card.mean, card.std))
        made.append((values - mean) / std)
    return made
