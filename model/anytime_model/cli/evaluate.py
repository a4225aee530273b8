"""`anytime-model evaluate`: how good each exit or rung of a weights file is, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from anytime_model.cli.options import (
    DataOption,
    DeviceOption,
    EngineOption,
    LimitOption,
    PrecisionOption,
    ThreadsOption,
    WeightsOption,
)
from anytime_model.data.sample import SampleSource
from anytime_model.engines.select import Precision
from anytime_model.errors import ConfigError
from anytime_model.evaluation import ladder as climbing
from anytime_model.evaluation import run as evaluation
from anytime_model.evaluation.figures import draw_trade_off
from anytime_model.evaluation.report import EvaluationReport


def evaluate(
    weights: WeightsOption,
    data: DataOption,
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
    ladder: Annotated[
        bool, typer.Option("--ladder", help="Measure the rungs of the ladder, as they are served.")
    ] = False,
    sides: Annotated[
        str | None, typer.Option(help="With --ladder: its sizes in px, such as 240,480.")
    ] = None,
    monotone: Annotated[
        bool,
        typer.Option("--monotone", help="With --ladder: each map is the product of all so far."),
    ] = False,
    precision: PrecisionOption = Precision.AUTO,
    engine: EngineOption = None,
    limit: LimitOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    save: Annotated[Path | None, typer.Option(help="Also write the report as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw accuracy over computation.")] = None,
    compare: Annotated[
        list[Path] | None, typer.Option(help="Saved reports to draw into the same plot.")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="Draw the exits of one image.")] = None,
    sheet_image: Annotated[str, typer.Option(help="Which one: its file's stem.")] = "",
    record: Annotated[bool, typer.Option(help="Write the scores into the manifest.")] = False,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Measure each exit, or each rung: accuracy, calibration, masks and multiply-adds."""
    if threads:
        torch.set_num_threads(threads)
    mask_options = evaluation.MaskOptions(masks, criterion, threshold)
    if (sides is not None or monotone) and not ladder:
        raise ConfigError("--sides and --monotone are about a ladder; give --ladder, too.")
    if ladder:
        if flip or any(option is not None for option in (scale, plot, compare, sheet)):
            raise ConfigError(
                "--scale, --flip, --plot, --compare and --sheet are for exits at one size; leave "
                "them out with --ladder."
            )
        climb = climbing.prepare(
            weights,
            data,
            split,
            mask_options,
            sides=None if sides is None else _sides(sides),
            monotone=monotone,
            precision=precision,
            device=device,
            engine=engine,
        )
        rungs = climbing.run(climb, limit, _ticks(climb.source, limit))
        if record:
            climbing.record(climb, rungs, weights.parent)
        _put_out(rungs.to_json(), [rungs.table(), rungs.paths_table()], save, quiet=json)
        return
    prepared = evaluation.prepare(
        weights,
        data,
        split,
        mask_options,
        scale=scale,
        flip=flip,
        precision=precision,
        device=device,
        engine=engine,
    )
    if sheet:
        evaluation.sheet(prepared, sheet_image or prepared.source[0].name, sheet)
    report = evaluation.run(prepared, limit, _ticks(prepared.source, limit))
    if record:
        evaluation.record(prepared, report, weights.parent)
    if plot:
        others = [
            EvaluationReport.from_json(path.read_text(encoding="utf-8")) for path in compare or ()
        ]
        draw_trade_off([report, *others], plot)
    _put_out(report.to_json(), [report.table(), report.by_output_table()], save, quiet=json)


def _put_out(report: str, tables: list[Table], save: Path | None, *, quiet: bool) -> None:
    """Write a report to a file, and print its tables or, if quiet, its JSON alone."""
    if save:
        save.write_text(report, encoding="utf-8")
    if quiet:
        typer.echo(report)
        return
    console = Console(width=110)
    for table in tables:
        console.print(table)


def _ticks(source: SampleSource, limit: int | None) -> Callable[[], object]:
    """A progress bar's next image."""
    total = min(limit or len(source), len(source))
    ticks = iter(
        track(range(total), description="images", console=Console(stderr=True), transient=True)
    )
    return lambda: next(ticks, None)


def _sides(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(side) for side in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--sides is {text!r}; expected whole numbers of px, such as 240,480."
        ) from error
