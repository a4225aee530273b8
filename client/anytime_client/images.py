"""An image of any usual kind as the file that goes over the wire.

Decides what may stand for an image and how pixels become a file: JPEG, PNG and WebP files are sent
as they are, byte for byte; everything else is written as PNG, which loses nothing. Does not scale,
rotate or judge images: the server honours EXIF rotation and its own limits.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from anytime_client.errors import ImageError

Image: TypeAlias = str | Path | bytes | NDArray[np.uint8] | Pillow.Image
"""A path, a file's bytes, uint8 pixels (H, W) grey or (H, W, 3) RGB, or a Pillow image."""

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_FAST: Final = 1
# zlib's level for PNG: a third of the default's time, and a 480x360 photograph grows by 4 %.


def media_type(data: bytes) -> str | None:
    """The media type that the first bytes of a file tell, of those that a server takes."""
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(_PNG):
        return "image/png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return None


def as_file(image: Image) -> tuple[bytes, str]:
    """The image as a file.

    Returns:
        The file's bytes and its media type.

    Raises:
        ImageError: there is no such file, it is empty or no image, or the array is not uint8 of
            shape (H, W) or (H, W, 3).
    """
    match image:
        case str() | Path():
            return _as_is_or_png(_read(Path(image)), f"{image}")
        case bytes():
            return _as_is_or_png(image, "image")
        case np.ndarray():
            return _png(_picture(image)), "image/png"
        case Pillow.Image():
            return _png(image), "image/png"
        case _:
            kinds = "a path, bytes, a numpy array or a Pillow image"
            raise ImageError(f"image: found a {type(image).__name__}, expected {kinds}")


def open_picture(data: bytes) -> Pillow.Image:
    """The upright RGB picture in a file's bytes, as the server sees it.

    Raises:
        ImageError: no image that Pillow can read.
    """
    return ImageOps.exif_transpose(_decode(data, "image")).convert("RGB")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from error


def _as_is_or_png(data: bytes, name: str) -> tuple[bytes, str]:
    known = media_type(data)
    return (data, known) if known is not None else (_png(_decode(data, name)), "image/png")


def _decode(data: bytes, name: str) -> Pillow.Image:
    try:
        picture = Pillow.open(io.BytesIO(data))
        picture.load()
    except UnidentifiedImageError as error:
        found = f"{len(data)} bytes of no known format" if data else "nothing"
        raise ImageError(f"{name}: found {found}, expected an image") from error
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise ImageError(f"{name}: not an image that can be read ({error})") from error
    return picture


def _picture(pixels: NDArray[Any]) -> Pillow.Image:
    grey_or_rgb = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if pixels.dtype != np.uint8 or not grey_or_rgb or 0 in pixels.shape:
        found = f"{pixels.dtype} of shape {pixels.shape}"
        raise ImageError(f"image: found {found}, expected uint8 of shape (H, W) or (H, W, 3)")
    return Pillow.fromarray(np.ascontiguousarray(pixels))


def _png(picture: Pillow.Image) -> bytes:
    usual = picture.mode in {"L", "RGB", "P", "RGBA", "LA", "I;16"}
    out = io.BytesIO()
    (picture if usual else picture.convert("RGB")).save(out, "PNG", compress_level=_FAST)
    return out.getvalue()
