"""`anytime-model evaluate`: how good each exit of a weights file is, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track

from anytime_model.evaluation import run as evaluation
from anytime_model.evaluation.figures import draw_trade_off
from anytime_model.evaluation.report import EvaluationReport


def evaluate(
    weights: Annotated[Path, typer.Option(help="One of our .safetensors files.")],
    data: Annotated[Path, typer.Option(help="Folder of a data set; its layout is recognised.")],
    split: Annotated[str, typer.Option(help="Such as val or test.")] = "test",
    *,
    masks: Annotated[
        bool, typer.Option(help="Skip settled positions as the manifest says.")
    ] = True,
    criterion: Annotated[str | None, typer.Option(help="Instead of the manifest's.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="For all exits, instead of the manifest's.")
    ] = None,
    scale: Annotated[float | None, typer.Option(help="Factor that images are enlarged by.")] = None,
    flip: Annotated[bool, typer.Option(help="Average with the mirrored image.")] = False,
    half: Annotated[bool, typer.Option(help="Run in bfloat16.")] = False,
    engine: Annotated[
        str | None,
        typer.Option(help="auto, torch, native or openvino [default: as ANYTIME_ENGINE says]."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only so many images.", min=1)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    save: Annotated[Path | None, typer.Option(help="Also write the report as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw accuracy over computation.")] = None,
    compare: Annotated[
        list[Path] | None, typer.Option(help="Saved reports to draw into the same plot.")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="Draw the exits of one image.")] = None,
    sheet_image: Annotated[str, typer.Option(help="Which one: its file's stem.")] = "",
    record: Annotated[bool, typer.Option(help="Write the scores into the manifest.")] = False,
    device: Annotated[str, typer.Option(help="Of the torch engine: cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads; all cores by default.")] = None,
) -> None:
    """Measure accuracy, calibration, masks and multiply-adds of each exit."""
    if threads:
        torch.set_num_threads(threads)
    prepared = evaluation.prepare(
        weights,
        data,
        split,
        evaluation.MaskOptions(masks, criterion, threshold),
        scale=scale,
        flip=flip,
        half=half,
        device=device,
        engine=engine,
    )
    console = Console(width=110)
    if sheet:
        evaluation.sheet(prepared, sheet_image or prepared.source[0].name, sheet)
    total = min(limit or len(prepared.source), len(prepared.source))
    ticks = iter(
        track(range(total), description="images", console=Console(stderr=True), transient=True)
    )
    report = evaluation.run(prepared, limit, tick=lambda: next(ticks, None))
    if record:
        evaluation.record(prepared, report, weights.parent)
    if save:
        save.write_text(report.to_json(), encoding="utf-8")
    if plot:
        others = [
            EvaluationReport.from_json(path.read_text(encoding="utf-8")) for path in compare or ()
        ]
        draw_trade_off([report, *others], plot)
    if json:
        typer.echo(report.to_json())
    else:
        console.print(report.table())
        console.print(report.by_output_table())
