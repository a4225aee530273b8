"""`anytime-model train`: training of a network by a recipe."""

from __future__ import annotations

import shlex
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track

from anytime_model.data import folder
from anytime_model.data.registry import OWN, recognise
from anytime_model.training.callbacks import LogLines, ProgressBar
from anytime_model.training.finetune import FINE_TUNINGS
from anytime_model.training.loop import PROGRESS, Callback
from anytime_model.training.run import Overrides, recipe_named, run
from anytime_model.training.stopping import StopRequest


def train(
    recipe: Annotated[str, typer.Option(help="Name of a recipe; a wrong one lists them all.")],
    data: Annotated[Path, typer.Option(help="Folder of the data set.")],
    out: Annotated[Path, typer.Option(help="Folder for progress, curves and weights.")],
    *,
    resume: Annotated[bool, typer.Option(help="Go on from the progress in --out.")] = False,
    branch: Annotated[
        Path | None,
        typer.Option(help="Go on from this progress file, which stays (to cool down, to compare)."),
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="Weights of ours to start from, such as a backbone's.")
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(help="Weights of ours that teach, if the recipe is taught."),
    ] = None,
    keypoints: Annotated[
        Path | None,
        typer.Option(help="Key points (.npz) that labels are merged with, if the recipe says so."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    steps: Annotated[int | None, typer.Option(help="End after so many steps instead.")] = None,
    batch: Annotated[int | None, typer.Option(help="Samples a step, instead of ours.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:1.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that load and augment.")] = 1,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of the network; all cores by default.")
    ] = None,
) -> None:
    """Train a network by a recipe."""
    if threads:
        torch.set_num_threads(threads)
    console = Console()
    if recipe in FINE_TUNINGS and not resume and recognise(data) == OWN:
        _check(data)
    watching: AbstractContextManager[Callback] = (
        ProgressBar(console) if console.is_terminal else nullcontext(LogLines(console))
    )
    with StopRequest() as stop, watching as callback:
        run(
            recipe_named(recipe, Overrides(epochs, steps, batch, seed), data),
            data,
            out,
            callback,
            resume=resume,
            branch=branch,
            init=init,
            teacher=teacher,
            keypoints=keypoints,
            stop=stop,
            device=torch.device(device) if device else None,
            workers=workers,
        )
    of = ["--recipe", recipe, "--data", str(data), "--progress", str(out / PROGRESS)]
    ship = ["anytime-model", "finish", *of, "--out", str(out / "weights"), "--name", "NAME"]
    typer.echo(f"next: {shlex.join(ship)}")


def _check(data: Path) -> None:
    """Read a folder of one's own data to its end, with a progress bar on a terminal."""
    splits = folder.open_splits(data)
    console = Console(stderr=True)
    ticks = iter(
        track(
            range(sum(map(len, splits))),
            description="checking the data",
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
    )
    folder.check(data, splits, lambda: next(ticks, None))
