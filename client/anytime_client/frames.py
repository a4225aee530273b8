"""Images from a folder, a video file or a camera, one after the other; stale ones are dropped.

Video needs PyAV or OpenCV, which are not part of the base install.
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
from anytime_client.images import ImageLike

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff"})
_POLL_S: Final = 0.1
_SILENCE_S: Final = 10.0
"""Of a URL, after which it is given up."""


@dataclass(frozen=True, slots=True)
class NamedImage:
    """One image of a sequence.

    Attributes:
        name: for people and file names.
        image: as the client takes it.
        time_s: of a video or a camera when it was taken, in seconds from the first on; else None.
    """

    name: str
    image: ImageLike
    time_s: float | None = None


class LatestImage:
    """A slot for one image between a source and a slower reader; a newer image replaces it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._image: NamedImage | None = None
        self._dropped = 0
        self._ended = False
        self._error: Exception | None = None

    def put(self, image: NamedImage) -> None:
        """Puts an image into the slot; one that still waits is dropped."""
        with self._changed:
            self._dropped += self._image is not None
            self._image = image
            self._changed.notify()

    def end(self, error: Exception | None = None) -> None:
        """Marks the end of the sequence; the image that waits can still be taken."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify()

    def take(self) -> tuple[NamedImage, int] | None:
        """Waits for an image; None at the end.

        Returns:
            The image and how many were dropped since the last one taken.

        Raises:
            Exception: the error that the sequence ended with.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._image is not None or self._ended)
            image, self._image = self._image, None
            if image is None:
                if self._error is not None:
                    raise self._error
                return None
            dropped, self._dropped = self._dropped, 0
            return image, dropped


def read_latest(images: Iterator[NamedImage]) -> LatestImage:
    """Reads a sequence in a thread of its own, into a slot."""
    slot = LatestImage()

    def read() -> None:
        try:
            for image in images:
                slot.put(image)
        except ImageError as error:
            slot.end(error)
        else:
            slot.end()

    threading.Thread(target=read, name="anytime-frames", daemon=True).start()
    return slot


def list_folder(folder: Path) -> Iterator[NamedImage]:
    """The images that are in a folder now, by name."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            yield NamedImage(path.name, path)


def watch_folder(folder: Path) -> Iterator[NamedImage]:
    """The images that are in a folder, then each that is put there or written anew, for ever.

    A file is complete once its size is the same at two polls.
    """
    seen: dict[Path, tuple[int, int]] = {}
    growing: dict[Path, tuple[int, int]] = {}
    while True:
        for image in list_folder(folder):
            path = folder / image.name
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # deleted meanwhile
            state = (status.st_mtime_ns, status.st_size)
            if seen.get(path) == state:
                continue
            if growing.get(path) == state and status.st_size > 0:
                seen[path] = state
                yield image
            growing[path] = state
        time.sleep(_POLL_S)


def read_video(source: str, *, paced: bool) -> Iterator[NamedImage]:
    """The frames of a video file, of a camera by its number or device file, or of a URL.

    Args:
        source: a path, a number such as `0`, a device file, or a URL such as `rtsp://...`.
        paced: a file's frames at the speed at which they were taken, as a camera would give them.

    Raises:
        ImageError: it cannot be opened, or neither PyAV nor OpenCV is installed.
    """
    if find_spec("av") is not None:
        frames = _read_with_pyav(source)
    elif find_spec("cv2") is not None:
        frames = _read_with_opencv(source)
    else:
        raise ImageError(f"{source}: video needs PyAV or OpenCV: pip install av")
    name = "stream" if is_url(source) else Path(source).stem
    live, began = is_live(source), time.monotonic()
    for number, (media_s, pixels) in enumerate(frames):
        elapsed_s = time.monotonic() - began
        if paced and media_s is not None:
            time.sleep(max(0.0, media_s - elapsed_s))
        time_s = elapsed_s if live or media_s is None else media_s
        yield NamedImage(f"{name}-{number:06d}", pixels, time_s)


def is_camera(source: str) -> bool:
    """Whether a source is a camera of this machine."""
    return source.isdigit() or source.startswith("/dev/")


def is_url(source: str) -> bool:
    """Whether a source is a URL, such as a network camera's."""
    return "://" in source


def is_live(source: str) -> bool:
    """Whether a source keeps its own pace."""
    return is_camera(source) or is_url(source)


def _read_with_pyav(source: str) -> Iterator[tuple[float | None, Any]]:
    import av  # noqa: PLC0415 - optional, not part of the base install

    device = f"/dev/video{source}" if source.isdigit() else source
    format_ = "v4l2" if is_camera(source) else None
    # Over TCP no packets of a picture are lost; UDP is what cameras take first.
    options = {"rtsp_transport": "tcp"} if source.startswith("rtsp") else {}
    timeout_s = _SILENCE_S if is_url(source) else None
    try:
        with av.open(device, format=format_, options=options, timeout=timeout_s) as container:
            for frame in container.decode(video=0):
                yield frame.time, frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, OSError, IndexError) as error:
        raise ImageError(f"{source}: not a video that can be read ({error})") from error


def _read_with_opencv(source: str) -> Iterator[tuple[float | None, Any]]:
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
