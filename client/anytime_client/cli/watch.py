"""`anytime watch`: predicts the images of a folder, a video or a camera as they come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from anytime_client import frames
from anytime_client.cli import options
from anytime_client.cli.predict import summary
from anytime_client.errors import ImageError
from anytime_client.frames import NamedImage
from anytime_client.images import encode_image, open_image
from anytime_client.output import OutputFormat, encode_update, result_to_json, write
from anytime_protocol.budget import Budget


def watch(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Folder, video file, or camera (its number or device file)."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for a file of each frame.")
    ] = None,
    form: options.FileFormat = OutputFormat.OVERLAY,
    once: Annotated[
        bool, typer.Option("--once", help="Of a folder only what is there now, all of it.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--every", help="Drop no frame, however late it gets.")
    ] = False,
    most: Annotated[
        int | None, typer.Option("--frames", min=1, help="Stop after so many frames.")
    ] = None,
    model: options.Model = None,
    deadline_ms: options.DeadlineMs = None,
    max_exit: options.MaxExit = None,
    as_json: options.AsJson = False,
) -> None:
    """Follow a folder, a video file at its own speed, or a camera.

    While one frame is computed newer ones replace each other, so that the next is never stale. A
    frame that fails is reported and passed over; the exit code is then 1 in the end.
    """
    budget = Budget(deadline_ms=deadline_ms, max_exit=max_exit)
    served, failures = 0, options.Failures(stop=False)
    with options.connect(context) as client:
        options.check_max_exit(client, model, max_exit)
        for frame, dropped in _read_source(source, once=once, every=every):
            with failures.of(frame.name):
                data, _ = encode_image(frame.image)
                result = client.predict(data, model=model, budget=budget)
                if out is not None:
                    path = out / f"{Path(frame.name).stem}{form.suffix}"
                    write(path, encode_update(result.best, open_image(data, frame.name), form))
                if as_json:
                    options.print_json(
                        {"frame": frame.name, "dropped": dropped} | result_to_json(result)
                    )
                else:
                    late = f" ({dropped} dropped before it)" if dropped else ""
                    options.print_result(f"{frame.name}{late}: {summary(result)}")
                served += 1
            if served == most:
                break
    if not served and not failures.count:
        options.print_note(f"{source}: found no images")
    failures.exit()


def _read_source(source: str, *, once: bool, every: bool) -> Iterator[tuple[NamedImage, int]]:
    folder = Path(source)
    if folder.is_dir():
        found = frames.list_folder(folder) if once else frames.watch_folder(folder)
        every = every or once
    elif not folder.exists() and not frames.is_camera(source):
        raise ImageError(f"{source}: found nothing, expected a folder, a video file or a camera")
    else:
        found = frames.read_video(source, paced=not every and not frames.is_camera(source))
    if every:
        yield from ((frame, 0) for frame in found)
        return
    slot = frames.read_latest(found)
    while (taken := slot.take()) is not None:
        yield taken
