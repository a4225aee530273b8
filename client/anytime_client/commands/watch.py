"""`anytime watch`: a folder, a video or a camera, frame by frame, stale frames dropped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from anytime_client import frames
from anytime_client.blocking import Client
from anytime_client.commands import options
from anytime_client.commands.predict import summary
from anytime_client.errors import ImageError, RequestError
from anytime_client.frames import Frame
from anytime_client.images import as_file, open_picture
from anytime_client.saving import Form, describe_result, render, write
from anytime_protocol.budget import Budget

_SUFFIXES = {Form.MASK: "png", Form.OVERLAY: "png", Form.NPY: "npy", Form.JSON: "json"}


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
    form: Annotated[
        Form, typer.Option("--form", "-f", help="What the files of --out hold.")
    ] = Form.OVERLAY,
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
    served = failed = 0
    with options.connection(context).open() as client:
        for frame, dropped in _frames(source, once=once, every=every):
            done = _serve(client, frame, dropped, budget, model, out, form, as_json=as_json)
            served, failed = served + done, failed + (not done)
            if served == most:
                break
    if not served and not failed:
        options.remark(f"{source}: found no images")
    if failed:
        raise typer.Exit(1)


def _serve(
    client: Client,
    frame: Frame,
    dropped: int,
    budget: Budget,
    model: str | None,
    out: Path | None,
    form: Form,
    *,
    as_json: bool,
) -> bool:
    """Asks for one frame's map and reports it; whether there is one."""
    try:
        data, _ = as_file(frame.image)
        result = client.predict(data, model=model, budget=budget)
    except (ImageError, RequestError) as error:
        options.remark(f"{frame.name}: {error}")
        return False
    if out is not None:
        path = out / f"{Path(frame.name).stem}.{_SUFFIXES[form]}"
        write(str(path), render(result.best, open_picture(data), form))
    if as_json:
        about = {"frame": frame.name, "dropped": dropped}
        options.say(about | describe_result(result))
    else:
        late = f" ({dropped} dropped before it)" if dropped else ""
        options.remark(f"{frame.name}{late}: {summary(result)}")
    return True


def _frames(source: str, *, once: bool, every: bool) -> Iterator[tuple[Frame, int]]:
    folder = Path(source)
    if folder.is_dir():
        found = frames.in_folder(folder) if once else frames.appearing_in(folder)
        every = every or once
    elif not folder.exists() and not frames.is_camera(source):
        raise ImageError(f"{source}: found nothing, expected a folder, a video file or a camera")
    else:
        found = frames.of_video(source, paced=not every and not frames.is_camera(source))
    if every:
        yield from ((frame, 0) for frame in found)
        return
    slot = frames.newest_of(found)
    while (taken := slot.take()) is not None:
        yield taken
