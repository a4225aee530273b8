"""Frames of a folder, a video file or a camera, and how stale ones are dropped.

Decides where frames come from and that a reader which cannot keep up gets the newest one and the
number of those it missed. Does not know servers. Video needs PyAV or OpenCV, which are not part of
the base install.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from anytime_client.errors import ImageError
from anytime_client.images import Image

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff"})
_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Frame:
    """One image of a sequence: its name, and what the client sends."""

    name: str
    image: Image


class Newest:
    """A slot for one frame between a source and a slower reader: the newer takes its place."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._dropped = 0
        self._ended = False
        self._error: Exception | None = None

    def put(self, frame: Frame) -> None:
        """Offers a frame; one that still waits is dropped."""
        with self._changed:
            self._dropped += self._frame is not None
            self._frame = frame
            self._changed.notify()

    def end(self, error: Exception | None = None) -> None:
        """No more frames will come; the one that waits is still to be taken."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify()

    def take(self) -> tuple[Frame, int] | None:
        """Waits for a frame; with it the number dropped since the one before. None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._ended)
            frame, self._frame = self._frame, None
            if frame is None:
                if self._error is not None:
                    raise self._error
                return None
            dropped, self._dropped = self._dropped, 0
            return frame, dropped


def newest_of(frames: Iterator[Frame]) -> Newest:
    """Reads a source in a thread of its own, into a slot."""
    slot = Newest()

    def read() -> None:
        try:
            for frame in frames:
                slot.put(frame)
        except ImageError as error:
            slot.end(error)
        else:
            slot.end()

    threading.Thread(target=read, name="anytime-frames", daemon=True).start()
    return slot


def in_folder(folder: Path) -> Iterator[Frame]:
    """The images that are in a folder now, by name."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            yield Frame(path.name, path)


def appearing_in(folder: Path) -> Iterator[Frame]:
    """The images that are in a folder, then each that is put there or written anew, for ever.

    A file counts once its size has stayed the same from one look to the next.
    """
    seen: dict[Path, tuple[int, int]] = {}
    growing: dict[Path, tuple[int, int]] = {}
    while True:
        for frame in in_folder(folder):
            path = folder / frame.name
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # taken away between the listing and the look
            state = (status.st_mtime_ns, status.st_size)
            if seen.get(path) == state:
                continue
            if growing.get(path) == state and status.st_size > 0:
                seen[path] = state
                yield frame
            growing[path] = state
        time.sleep(_POLL_S)


def of_video(source: str, *, paced: bool) -> Iterator[Frame]:
    """The frames of a video file, or of a camera by its number or device file.

    Args:
        source: a path, a number such as `0`, or a device file.
        paced: a file's frames at the speed at which they were taken, as a camera would give them.

    Raises:
        ImageError: it cannot be opened, or neither PyAV nor OpenCV is installed.
    """
    if find_spec("av") is not None:
        frames = _by_pyav(source)
    elif find_spec("cv2") is not None:
        frames = _by_opencv(source)
    else:
        raise ImageError(f"{source}: video needs PyAV or OpenCV: pip install av")
    began = time.monotonic()
    for number, (at_s, pixels) in enumerate(frames):
        if paced and at_s is not None:
            time.sleep(max(0.0, began + at_s - time.monotonic()))
        yield Frame(f"{Path(source).stem}-{number:06d}", pixels)


def is_camera(source: str) -> bool:
    """Whether a source is a camera, which keeps its own pace."""
    return source.isdigit() or source.startswith("/dev/")


def _by_pyav(source: str) -> Iterator[tuple[float | None, Any]]:
    import av  # noqa: PLC0415 - optional, not part of the base install

    device = f"/dev/video{source}" if source.isdigit() else source
    try:
        with av.open(device, format="v4l2" if is_camera(source) else None) as container:
            for frame in container.decode(video=0):
                yield frame.time, frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, OSError, IndexError) as error:
        raise ImageError(f"{source}: not a video that can be read ({error})") from error


def _by_opencv(source: str) -> Iterator[tuple[float | None, Any]]:
    import cv2  # noqa: PLC0415 - optional, not part of the base install

    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    try:
        if not capture.isOpened():
            raise ImageError(f"{source}: not a video that can be read")
        rate = capture.get(cv2.CAP_PROP_FPS)
        number = 0
        while True:
            read, pixels = capture.read()
            if not read:
                return
            yield (number / rate if rate > 0 else None), cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
            number += 1
    finally:
        capture.release()
