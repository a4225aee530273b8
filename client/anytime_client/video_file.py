"""A video file of pictures that come at any times. It needs PyAV: the extra `[video]`."""

from __future__ import annotations

from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from PIL import Image

from anytime_client.output import OutputError

_SUFFIXES: Final = frozenset({".mp4", ".mkv", ".mov", ".webm", ".avi"})
_TIME_BASE: Final = Fraction(1, 1000)
_NOMINAL_RATE: Final = 30
"""Frames a second that the file's header names; each frame has its own time."""


def is_video_name(path: Path) -> bool:
    """Whether a file's name is that of a video."""
    return path.suffix.lower() in _SUFFIXES


class VideoWriter:
    """Writes a video; its size is that of the first picture, later ones are brought to it.

    Args:
        path: of the file; its suffix says the format.

    Raises:
        OutputError: PyAV is not installed, or the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        if find_spec("av") is None:
            raise OutputError(f"{path}: writing videos needs PyAV: pip install av")
        import av  # noqa: PLC0415 - optional, not part of the base install

        self._av: Any = av
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._container: Any = av.open(str(path), "w")
        except (av.FFmpegError, OSError, ValueError) as error:
            raise OutputError(f"{path}: {error}") from error
        self._stream: Any = None
        self._last_pts = -1

    def add(self, image: Image.Image, time_s: float) -> None:
        """Appends a picture.

        Args:
            image: RGB.
            time_s: when it is shown, from the beginning; times that do not rise are moved on.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            if self._stream is None:
                self._stream = self._open_stream(image)
            size = (self._stream.width, self._stream.height)
            frame = self._av.VideoFrame.from_image(image.convert("RGB").resize(size))
            self._last_pts = max(self._last_pts + 1, round(time_s / _TIME_BASE))
            frame.pts, frame.time_base = self._last_pts, _TIME_BASE
            self._container.mux(self._stream.encode(frame))
        except (self._av.FFmpegError, OSError) as error:
            raise OutputError(f"{self._path}: {error}") from error

    def close(self) -> None:
        """Writes what is left; without a picture the file is empty.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            if self._stream is not None:
                self._container.mux(self._stream.encode(None))
            self._container.close()
        except (self._av.FFmpegError, OSError) as error:
            raise OutputError(f"{self._path}: {error}") from error

    def _open_stream(self, image: Image.Image) -> Any:
        codec = "libvpx-vp9" if self._path.suffix.lower() == ".webm" else "libx264"
        if codec not in self._av.codecs_available:
            codec = "mpeg4"
        stream = self._container.add_stream(codec, rate=_NOMINAL_RATE)
        # Codecs halve the resolution of colours, so that sides are even.
        stream.width, stream.height = (n + n % 2 for n in image.size)
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = _TIME_BASE
        return stream
