"""Images of any usual kind, encoded as the file that is sent.

JPEG, PNG and WebP files are sent as they are; everything else is written as PNG, which is lossless.
Images are neither scaled nor rotated here: the server honours EXIF rotation and has its own limits.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from anytime_client.errors import ImageError

ImageLike: TypeAlias = str | Path | bytes | NDArray[np.uint8] | Image.Image
"""A path, a file's bytes, uint8 pixels (H, W) grey or (H, W, 3) RGB, or a Pillow image."""

_PNG_MODES: Final = frozenset({"L", "RGB", "P", "RGBA", "LA", "I;16"})
_JPEG_QUALITY: Final = 95
_PNG_LEVEL: Final = 1
"""zlib's level for PNG: the fastest; photographs hardly shrink at higher ones."""


def sniff_media_type(data: bytes) -> str | None:
    """The media type of a JPEG, PNG or WebP file by its first bytes; None for all others."""
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return None


def encode_image(image: ImageLike) -> tuple[bytes, str]:
    """The image as a file.

    Returns:
        The file's bytes and its media type.

    Raises:
        ImageError: there is no such file, it is empty or no image, or the array is not uint8 of
            shape (H, W) or (H, W, 3).
    """
    match image:
        case str() | Path():
            return _encode_file(_read(Path(image)), f"{image}")
        case bytes():
            return _encode_file(image, "image")
        case np.ndarray():
            return _encode_png(_from_array(image)), "image/png"
        case Image.Image():
            return _encode_png(image), "image/png"
        case _:
            kinds = "a path, bytes, a numpy array or a Pillow image"
            raise ImageError(f"image: found a {type(image).__name__}, expected {kinds}")


def encode_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels as a JPEG of high quality, which is smaller and sooner made than a PNG.

    Raises:
        ImageError: see `encode_image`.
    """
    out = io.BytesIO()
    _from_array(pixels).save(out, "JPEG", quality=_JPEG_QUALITY)
    return out.getvalue()


def open_image(data: bytes, name: str = "image") -> Image.Image:
    """The upright RGB image in a file's bytes, as the server sees it.

    Args:
        data: the file.
        name: for errors.

    Raises:
        ImageError: no image that Pillow can read.
    """
    return ImageOps.exif_transpose(_decode(data, name)).convert("RGB")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from error


def _encode_file(data: bytes, name: str) -> tuple[bytes, str]:
    known = sniff_media_type(data)
    return (data, known) if known else (_encode_png(_decode(data, name)), "image/png")


def _decode(data: bytes, name: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except UnidentifiedImageError as error:
        found = f"{len(data)} bytes of no known format" if data else "nothing"
        raise ImageError(f"{name}: found {found}, expected an image") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{name}: not an image that can be read ({error})") from error
    return image


def _from_array(pixels: NDArray[Any]) -> Image.Image:
    grey_or_rgb = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if pixels.dtype != np.uint8 or not grey_or_rgb or 0 in pixels.shape:
        found = f"{pixels.dtype} of shape {pixels.shape}"
        raise ImageError(f"image: found {found}, expected uint8 of shape (H, W) or (H, W, 3)")
    return Image.fromarray(np.ascontiguousarray(pixels))


def _encode_png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    writable = image if image.mode in _PNG_MODES else image.convert("RGB")
    writable.save(out, "PNG", compress_level=_PNG_LEVEL)
    return out.getvalue()
