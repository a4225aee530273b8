"""`anytime-model calibrate`: masks whose settled pixels rarely differ from the whole network."""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from anytime_model.cli.options import (
    DataOption,
    DeviceOption,
    EngineOption,
    LimitOption,
    PrecisionOption,
    ThreadsOption,
    WeightsOption,
)
from anytime_model.engines.select import Precision
from anytime_model.evaluation import risk_control


def calibrate(
    weights: WeightsOption,
    data: DataOption,
    split: Annotated[str, typer.Option(help="Images that were not trained on.")] = "val",
    risk: Annotated[
        list[float] | None,
        typer.Option(
            help="Share of settled pixels that may differ; give it again for another.",
            show_default="0.01",
        ),
    ] = None,
    confidence: Annotated[float, typer.Option(help="That they do not differ more.")] = 0.95,
    largest_loss: Annotated[
        float, typer.Option(help="Share that one image counts at most; less needs fewer images.")
    ] = 1.0,
    precision: PrecisionOption = Precision.AUTO,
    engine: EngineOption = None,
    limit: LimitOption = None,
    record: Annotated[bool, typer.Option(help="Write certificates into the manifest.")] = False,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Choose the thresholds of masks for a promise, without labels.

    Of the pixels that an answer calls settled, at most the given share differs from what the model
    without masks answers at its end: on average over images like those of the split, with the given
    confidence. Ends with 1 where no thresholds keep any of the promises.
    """
    if threads:
        torch.set_num_threads(threads)
    console = Console(stderr=True)
    with Progress(
        SpinnerColumn(), TextColumn("{task.completed} images run"), console=console, transient=True
    ) as progress:
        task = progress.add_task("", total=None)
        found = risk_control.calibrate(
            weights,
            data,
            split,
            risk or [0.01],
            confidence,
            largest_loss=largest_loss,
            precision=precision,
            device=device,
            engine=engine,
            limit=limit,
            tick=lambda: progress.advance(task),
        )
    if record:
        found.record(weights.parent)
    Console(width=110).print(found.table())
    if not found.certificates():
        raise typer.Exit(1)
