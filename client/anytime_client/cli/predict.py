"""`anytime predict`: the best map that the budget allows, as a file or numbers."""

from __future__ import annotations

from typing import Annotated

import typer

from anytime_client.cli import options
from anytime_client.errors import MissingArrayError
from anytime_client.images import open_image
from anytime_client.output import (
    STANDARD,
    OutputFormat,
    encode_update,
    format_of,
    result_to_json,
    write,
)
from anytime_client.results import Result


def predict(
    context: typer.Context,
    image: options.ImagePath,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="File: .png, .npy or .json; - is standard output."),
    ] = None,
    form: Annotated[
        OutputFormat | None,
        typer.Option("--form", "-f", help="What to write; by default as --out says."),
    ] = None,
    model: options.Model = None,
    deadline_ms: options.DeadlineMs = None,
    max_exit: options.MaxExit = None,
    compute_gmacs: options.ComputeGmacs = None,
    min_confidence: options.MinConfidence = None,
    confident_share: options.ConfidentShare = None,
    max_risk: options.MaxRisk = None,
    as_json: options.AsJson = False,
) -> None:
    """Send an image, get the best map that the budget allows."""
    data, name = options.read_image(image)
    budget = options.limits(
        deadline_ms, max_exit, compute_gmacs, min_confidence, confident_share, max_risk
    )
    if out is not None and form is None:
        form = format_of(out)
    with options.connect(context) as client:
        result = client.predict(data, model=model, budget=budget)
    if out is not None and form is not None:
        write(out, encode_update(result.best, open_image(data), form))
    if as_json and out != STANDARD:
        options.print_json(result_to_json(result, with_map=out is None))
    else:
        options.print_note(f"{name}: {summary(result)}")
        if out not in {None, STANDARD}:
            options.print_note(f"wrote {out}")


def summary(result: Result) -> str:
    """A result in one line."""
    timing = result.timing
    try:
        confidence = f", confidence {result.confidence:.2f}"
    except MissingArrayError:
        confidence = ""
    if result.risk is not None:
        confidence += f", risk {result.risk:g}" if result.risk else ", no masks"
    return (
        f"{result.label}, {result.reason}{confidence}, "
        f"{timing.total_ms:.1f} ms = queue {timing.queue_ms:.1f} + decode {timing.decode_ms:.1f} "
        f"+ compute {timing.compute_ms:.1f} + encode {timing.encode_ms:.1f} + rest"
    )
