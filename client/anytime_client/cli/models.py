"""`anytime models`: what the server serves."""

from __future__ import annotations

from typing import Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from anytime_client.cli import options
from anytime_protocol.enums import Task
from anytime_protocol.model_info import CertificateInfo, ModelInfo

_METRICS: Final = {Task.SEGMENTATION: "mIoU", Task.POSE: "PCKh@0.5"}


def models(context: typer.Context, as_json: options.AsJson = False) -> None:
    """List the server's models: what each knows, takes and costs, exit by exit."""
    with options.connect(context) as client:
        served = client.models
    if as_json:
        options.print_json({"models": [model.to_json() for model in served]})
        return
    console = Console()
    for model in served:
        facts = (model.name, model.task, model.engine, model.precision)
        console.print(", ".join(filter(None, facts)), highlight=False, soft_wrap=True)
        if model.description:
            console.print(model.description, highlight=False, markup=False)
        console.print(_table(model))
        names = [info.name for info in model.classes] or list(model.keypoints)
        lines = [f"{_plural(model.task)}: {', '.join(names)}", *map(_promise, model.certificates)]
        console.print("\n".join(lines) + "\n", highlight=False)


def _table(model: ModelInfo) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for heading in ("exit", "side px", "expected ms", _METRICS[model.task], "GMACs"):
        # Headings wrap between words: 40 columns are enough.
        table.add_column(heading, justify="right", min_width=max(map(len, heading.split())))
    for number, exit_ in enumerate(model.exits, 1):
        table.add_row(
            str(number),
            "as sent" if exit_.side is None else str(exit_.side),
            "" if exit_.expected_ms is None else f"{exit_.expected_ms:.1f}",
            "" if exit_.quality is None else f"{exit_.quality:.3f}",
            f"{exit_.gmacs:.2f}",
        )
    return table


def _plural(task: Task) -> str:
    return "classes" if task is Task.SEGMENTATION else "joints"


def _promise(info: CertificateInfo) -> str:
    images = f"{info.images} images" + (f" of {info.dataset}" if info.dataset else "")
    return f"max risk {info.risk:g}: {info.confidence:.0%} confidence, {images}"
