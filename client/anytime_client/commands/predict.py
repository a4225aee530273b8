"""`anytime predict`: the best map that the budget allows, as a file or numbers."""

from __future__ import annotations

from typing import Annotated

import typer

from anytime_client.commands import options
from anytime_client.errors import MissingArrayError
from anytime_client.images import open_picture
from anytime_client.results import Result
from anytime_client.saving import STANDARD, Form, describe_result, form_of, render, write


def predict(
    context: typer.Context,
    image: options.ImagePath,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="File: .png, .npy or .json; - is standard output."),
    ] = None,
    form: Annotated[
        Form | None, typer.Option("--form", "-f", help="What to write; by default as --out says.")
    ] = None,
    model: options.Model = None,
    deadline_ms: options.DeadlineMs = None,
    max_exit: options.MaxExit = None,
    compute_gmacs: options.ComputeGmacs = None,
    min_confidence: options.MinConfidence = None,
    confident_share: options.ConfidentShare = None,
    as_json: options.AsJson = False,
) -> None:
    """Send an image, get the best map that the budget allows."""
    data, name = options.read_image(image)
    budget = options.limits(deadline_ms, max_exit, compute_gmacs, min_confidence, confident_share)
    chosen = form_of(out, form) if out is not None else None
    with options.connection(context).open() as client:
        result = client.predict(data, model=model, budget=budget)
    if out is not None and chosen is not None:
        write(out, render(result.best, open_picture(data), chosen))
    if as_json and out != STANDARD:
        options.say(describe_result(result, whole=out is None))
    else:
        options.remark(f"{name}: {summary(result)}")
        if out not in {None, STANDARD}:
            options.remark(f"wrote {out}")


def summary(result: Result) -> str:
    """A result in one line."""
    timing = result.timing
    try:
        sure = f", confidence {result.confidence:.2f}"
    except MissingArrayError:
        sure = ""
    return (
        f"exit {result.exit} of {result.exits} ({result.reason}){sure}, "
        f"{timing.total_ms:.1f} ms = queue {timing.queue_ms:.1f} + decode {timing.decode_ms:.1f} "
        f"+ compute {timing.compute_ms:.1f} + encode {timing.encode_ms:.1f} + rest"
    )
