"""`anytime predict`: the best map of each image that the budget allows, as a file or numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from anytime_client.cli import options
from anytime_client.errors import MissingArrayError
from anytime_client.images import open_image
from anytime_client.output import (
    STANDARD,
    OutputError,
    OutputFormat,
    check_form,
    encode_update,
    format_of,
    result_to_json,
    write,
)
from anytime_client.results import Result


def predict(
    context: typer.Context,
    images: options.ImagePaths,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="File: .png, .npy or .json; - is standard output. Of several images a folder.",
        ),
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
    """Send images, get of each the best map that the budget allows.

    Of several images one that fails is reported and passed over; the exit code
    is then 1 in the end.
    """
    files = options.ImageFiles.of(images)
    budget = options.limits(
        deadline_ms, max_exit, compute_gmacs, min_confidence, confident_share, max_risk
    )
    target = _Target.of(out, form, files)
    failures = options.Failures(stop=files.is_one)
    with options.connect(context) as client:
        options.check_max_exit(client, model, max_exit)
        for path in files.paths:
            with failures.of(name := _name(path)):
                data = options.read_image(path)
                result = client.predict(data, model=model, budget=budget)
                written = target.write(path, data, result)
                if as_json and out != STANDARD:
                    fields = result_to_json(result, with_map=out is None)
                    options.print_json({"image": name} | fields)
                    continue
                tell = options.print_note if out == STANDARD else options.print_result
                tell(f"{name}: {summary(result)}")
                if written is not None:
                    options.print_note(f"wrote {written}")
    failures.exit()


@dataclass(frozen=True, slots=True)
class _Target:
    """Where maps are written, and as what; nowhere without a path."""

    path: str | None
    form: OutputFormat
    is_folder: bool

    @classmethod
    def of(cls, out: str | None, form: OutputFormat | None, files: options.ImageFiles) -> _Target:
        if out is None or not files.is_one:
            if out == STANDARD:
                raise typer.BadParameter("of several images a folder", param_hint="--out")
            return cls(out, form or OutputFormat.OVERLAY, is_folder=True)
        chosen = form or format_of(out)
        check_form(out, chosen)
        folder = Path(out).parent
        if out != STANDARD and not folder.is_dir():
            raise OutputError(f"{out}: there is no folder {folder}")
        return cls(out, chosen, is_folder=False)

    def write(self, image: str, data: bytes, result: Result) -> str | None:
        """Writes a result's map; the file that it was written to."""
        if self.path is None:
            return None
        encoded = encode_update(result.best, open_image(data, _name(image)), self.form)
        path = self.path
        if self.is_folder:
            path = str(Path(path) / (Path(_name(image)).stem + self.form.suffix))
        write(path, encoded)
        return None if path == STANDARD else path


def _name(path: str) -> str:
    return "stdin" if path == STANDARD else path


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
