"""`anytime watch`: a stream of the images of a folder, a video or a camera, as they come."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from PIL import Image
from rich.live import Live

from anytime_client import frames, render
from anytime_client.cli import options
from anytime_client.cli.predict import summary
from anytime_client.cli.terminal import WIDTH, image_to_text
from anytime_client.errors import ImageError
from anytime_client.frames import NamedImage
from anytime_client.images import encode_image, encode_jpeg, open_image
from anytime_client.output import OutputFormat, encode_update, result_to_json, write
from anytime_client.results import FrameResult, Result, Update
from anytime_client.video_file import VideoWriter, is_video_name
from anytime_protocol.budget import Budget
from anytime_protocol.messages import ReuseOptions
from anytime_protocol.validation import JsonObject

_NARROWEST: Final = 30
"""Columns of a terminal in which a map can be made out."""


def watch(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Folder, video file, camera (its number or device file) or URL (rtsp://, http://).",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for a file of each frame, or a video such as out.mp4."
        ),
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
    view: Annotated[
        bool, typer.Option("--view", help="Show the maps in the terminal, small.")
    ] = False,
    reuse: Annotated[
        bool,
        typer.Option(
            "--reuse/--no-reuse", help="Take what has not changed from earlier frames, or nothing."
        ),
    ] = False,
    max_age: Annotated[
        int,
        typer.Option("--max-age", min=1, max=1000, help="Frames that a reused pixel may be old."),
    ] = ReuseOptions().max_age,
    max_difference: Annotated[
        float,
        typer.Option(
            "--max-difference", min=0, max=1, help="Share of pixels that reuse may change."
        ),
    ] = ReuseOptions().max_difference,
    motion: Annotated[
        bool, typer.Option("--motion", help="With --reuse: follow a camera that turns.")
    ] = False,
    share: Annotated[
        float, typer.Option("--share", min=0.001, max=1, help="Of the server's time, at most.")
    ] = 1.0,
    model: options.Model = None,
    deadline_ms: options.DeadlineMs = None,
    max_exit: options.MaxExit = None,
    as_json: options.AsJson = False,
) -> None:
    """Follow a folder, a video file at its own speed, a camera or a URL.

    While one frame is computed newer ones replace each other, so that the next
    is never stale. A frame that fails is reported and passed over; the exit code
    is then 1 in the end. Figures about all frames come last, on standard error;
    with --json as a line of JSON.
    """
    budget = Budget(deadline_ms=deadline_ms, max_exit=max_exit)
    bounds = ReuseOptions(max_age, max_difference, motion) if reuse else None
    failures, figures = options.Failures(stop=False), _Figures()
    source_frames = _Source(source, failures, once=once, every=every)
    with ExitStack() as stack:
        client = stack.enter_context(options.connect(context))
        options.check_max_exit(client, model, max_exit)
        target = stack.enter_context(_Target(out, form))
        screen = stack.enter_context(_screen()) if view else None
        video = stack.enter_context(
            client.video(
                source_frames.read(),
                model=model,
                budget=budget,
                share=share,
                reuse=bounds,
                every=every or once,
            )
        )
        for answer in video:
            frame, dropped = source_frames.answered(answer.frame)
            figures.count(answer, dropped)
            with failures.of(frame.name):
                best = answer.best
                if out is not None or screen is not None:
                    image = open_image(frame.payload, frame.name)
                    target.write(frame, image, best)
                if screen is not None:
                    width = min(screen.console.width, WIDTH)
                    screen.update(image_to_text(render.overlay(image, best), width), refresh=True)
                if answer.result is not None:
                    _tell(frame, answer, answer.result, dropped, as_json=as_json, quiet=view)
            if figures.answered == most:
                break
    if not figures.answered and not failures.count:
        options.print_note(f"{source}: found no images")
    elif as_json:
        options.print_note(json.dumps(figures.to_json()))
    else:
        options.print_note(figures.summary())
    failures.exit()


@dataclass(frozen=True, slots=True)
class _SentFrame:
    """A frame on its way.

    Attributes:
        name: of the image.
        payload: the file that was sent.
        time_s: when it was taken, from the first on.
        dropped: frames that it took the place of before it was sent.
    """

    name: str
    payload: bytes
    time_s: float
    dropped: int


class _Source:
    """Reads a source, encodes its frames, and remembers those that are on their way."""

    def __init__(self, source: str, failures: options.Failures, *, once: bool, every: bool) -> None:
        self._images = _read_source(source, once=once, every=every)
        self._failures = failures
        self._sent: dict[int, _SentFrame] = {}
        self._dropped = 0
        self._began = time.monotonic()

    def read(self) -> Iterator[bytes]:
        """The frames as files; one that is no image is reported and passed over."""
        number = 0
        for image, dropped in self._images:
            self._dropped += dropped
            with self._failures.of(image.name):
                payload = _encode(image)
                time_s = time.monotonic() - self._began if image.time_s is None else image.time_s
                number += 1
                self._sent[number] = _SentFrame(image.name, payload, time_s, self._dropped)
                self._dropped = 0
                yield payload

    def answered(self, number: int) -> tuple[_SentFrame, int]:
        """The frame of this number, and how many were dropped since the last one answered."""
        passed = [sent for sent in self._sent if sent <= number]
        frames_ = [self._sent.pop(sent) for sent in passed]
        return frames_[-1], sum(frame.dropped for frame in frames_) + len(frames_) - 1


class _Target:
    """Where maps are written: nowhere, into a folder, or into a video."""

    def __init__(self, out: Path | None, form: OutputFormat) -> None:
        self._out = out
        self._form = form
        self._video: VideoWriter | None = None
        if out is not None and is_video_name(out):
            if form is not OutputFormat.OVERLAY:
                raise typer.BadParameter(
                    f"found {form}, a video shows the overlay", param_hint="--form"
                )
            self._video = VideoWriter(out)

    def __enter__(self) -> _Target:
        return self

    def __exit__(self, *_: object) -> None:
        if self._video is not None:
            self._video.close()

    def write(self, frame: _SentFrame, image: Image.Image, best: Update) -> None:
        """Writes a frame's map."""
        if self._video is not None:
            self._video.add(render.overlay(image, best), frame.time_s)
        elif self._out is not None:
            path = self._out / f"{Path(frame.name).stem}{self._form.suffix}"
            write(path, encode_update(best, image, self._form))


@dataclass(slots=True)
class _Figures:
    """What is told at the end."""

    answered: int = 0
    dropped: int = 0
    failed: int = 0
    exits: list[int] = field(default_factory=list)
    times_ms: list[float] = field(default_factory=list)
    reused: list[float] = field(default_factory=list)
    last: FrameResult | None = None
    began: float = field(default_factory=time.monotonic)

    def count(self, answer: FrameResult, dropped: int) -> None:
        """Counts an answered frame."""
        self.answered += 1
        self.dropped += dropped
        self.last = answer
        if answer.result is None:
            self.failed += 1
            return
        self.exits.append(answer.result.exit)
        self.times_ms.append(answer.result.timing.total_ms)
        self.reused.append(answer.reused_share)

    def summary(self) -> str:
        """All of it in a few lines."""
        elapsed_s = time.monotonic() - self.began
        lines = [
            f"{self.answered} frames in {elapsed_s:.1f} s ({self.answered / elapsed_s:.1f} a "
            f"second), {self.dropped} dropped, {self.failed} failed"
        ]
        if self.times_ms:
            lines.append(
                f"exit {statistics.fmean(self.exits):.1f} on average; half of the answers within "
                f"{self._within_ms(0.5):.1f} ms, 95 % within {self._within_ms(0.95):.1f} ms"
            )
        if any(self.reused):
            text = f"{100 * statistics.fmean(self.reused):.0f} % of the pixels reused"
            measured = None if self.last is None else self.last.difference
            if measured is not None:
                text += f"; of these answers {100 * measured.share:.2f} % of the pixels differ"
            lines.append(text)
        return "\n".join(lines)

    def to_json(self) -> JsonObject:
        """The same for programs; what nothing was measured of is absent."""
        figures: JsonObject = {
            "type": "statistics",
            "frames": self.answered,
            "dropped": self.dropped,
            "failed": self.failed,
            "elapsed_s": round(time.monotonic() - self.began, 3),
        }
        if self.times_ms:
            figures["mean_exit"] = round(statistics.fmean(self.exits), 3)
            figures["reused_share"] = round(statistics.fmean(self.reused), 6)
            for percent in (50, 95, 99):
                figures[f"p{percent}_ms"] = self._within_ms(percent / 100)
        if self.last is not None and self.last.difference is not None:
            figures["difference"] = self.last.difference.to_json()
        return figures

    def _within_ms(self, share: float) -> float:
        """The time within which this share of the answers came (nearest rank)."""
        return float(np.quantile(self.times_ms, share, method="inverted_cdf"))


def _tell(
    frame: _SentFrame,
    answer: FrameResult,
    result: Result,
    dropped: int,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    if as_json:
        reused = {"reused_share": answer.reused_share, "oldest": answer.oldest}
        options.print_json(
            {"frame": frame.name, "dropped": dropped} | reused | result_to_json(result)
        )
    elif not quiet:
        late = f" ({dropped} dropped before it)" if dropped else ""
        reused_text = f", {100 * answer.reused_share:.0f} % reused" if answer.reused_share else ""
        options.print_result(f"{frame.name}{late}: {summary(result)}{reused_text}")


def _encode(image: NamedImage) -> bytes:
    """An image as the file that is sent; pixels, as of videos and cameras, as JPEG."""
    if isinstance(image.image, np.ndarray):
        return encode_jpeg(image.image)
    return encode_image(image.image)[0]


def _screen() -> Live:
    console = options.stderr_console()
    if not console.is_terminal:
        raise typer.BadParameter("standard error is no terminal", param_hint="--view")
    if console.width < _NARROWEST:
        found = f"the terminal has {console.width} columns, expected {_NARROWEST} or more"
        raise typer.BadParameter(found, param_hint="--view")
    return Live(console=console, auto_refresh=False, transient=True)


def _read_source(source: str, *, once: bool, every: bool) -> Iterator[tuple[NamedImage, int]]:
    folder = Path(source)
    if folder.is_dir():
        found = frames.list_folder(folder) if once else frames.watch_folder(folder)
        every = every or once
    elif not folder.exists() and not frames.is_live(source):
        expected = "a folder, a video file, a camera or a URL"
        raise ImageError(f"{source}: found nothing, expected {expected}")
    else:
        found = frames.read_video(source, paced=not every and not frames.is_live(source))
    if every:
        yield from ((frame, 0) for frame in found)
        return
    slot = frames.read_latest(found)
    while (taken := slot.take()) is not None:
        yield taken
