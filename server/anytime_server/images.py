"""Images from clients: what they are, how large, and their pixels, all within bounds.

JPEG, PNG and WebP are taken. `probe` reads no more than the header, so that a file too large is
refused before a pixel of it is decoded, and a request can be admitted or refused before the work is
done; `decode` does it. Both block, and are meant for a thread.

An image may also come as its pixels; both take those in place of a file.

Pillow does the reading, but for plain JPEGs, which most cameras send: simplejpeg decodes those to
the same pixels (both are libjpeg-turbo) in less time. Whatever it does not like is left to Pillow.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import PIL.Image
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, ImageOps

from anytime_protocol.enums import ErrorCode
from anytime_server.errors import ImageRejectedError

Image: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) RGB."""

MEDIA_TYPES: Final = {"JPEG": "image/jpeg", "MPO": "image/jpeg", "PNG": "image/png"} | {
    "WEBP": "image/webp"
}
"""Media type by Pillow's name of the format; MPO is a JPEG with more images behind the first."""

DECODED: Final = "image/x-rgb"
"""In the place of a media type, of an image whose pixels came as they are."""

_FIRST_TURNED: Final = 5
"""EXIF orientations from here on exchange height and width."""

_FORMATS: Final = ("JPEG", "PNG", "WEBP")


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a file says about itself.

    Attributes:
        media_type: by its content, or `DECODED`.
        height: px, before any EXIF rotation.
        width: px, before any EXIF rotation.
    """

    media_type: str
    height: int
    width: int

    @property
    def pixels(self) -> int:
        """H times W."""
        return self.height * self.width


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An image, and what decoding it took.

    Attributes:
        image: the pixels, reduced if that was asked for.
        size: (H, W) of the image before it was reduced, px.
        elapsed_s: seconds.
        cpu_s: seconds of them on a core: what decoding costs, whatever else the machine does.
    """

    image: Image
    size: tuple[int, int]
    elapsed_s: float
    cpu_s: float


def disable_pillow_size_check() -> None:
    """Turns off Pillow's own limit, process-wide: `probe` refuses by the operator's limit.

    Pillow's is a warning at one size and an error at twice it; ours is one error, and comes first.
    """
    PIL.Image.MAX_IMAGE_PIXELS = None


def warm_up() -> None:
    """Reads a small image of each format, as the first one loads its reader."""
    for kind in _FORMATS:
        file = io.BytesIO()
        PIL.Image.new("RGB", (8, 8)).save(file, kind)
        decode(file.getvalue(), 64)


def check_media_type(media_type: str) -> str:
    """The media type without its parameters.

    Raises:
        ImageRejectedError: not one that is taken.
    """
    plain = media_type.partition(";")[0].strip().lower()
    if plain not in MEDIA_TYPES.values():
        allowed = ", ".join(sorted(set(MEDIA_TYPES.values())))
        raise ImageRejectedError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            f"found media type {plain[:80]!r}, expected one of {allowed}",
        )
    return plain


def probe(data: bytes | Image, max_pixels: int) -> ImageHeader:
    """Reads a file's header.

    Args:
        data: the file, or pixels.
        max_pixels: the largest image that is taken, px.

    Raises:
        ImageRejectedError: no image of a known format, or too large.
    """
    if not isinstance(data, bytes):
        return _bounded(ImageHeader(DECODED, *data.shape[:2]), max_pixels)
    with _open(data) as image:
        return _header_of(image, max_pixels)


def decode(
    data: bytes | Image,
    max_pixels: int,
    on_header: Callable[[ImageHeader], object] | None = None,
    side: int | None = None,
) -> DecodedImage:
    """The pixels of a file's first frame, upright, as 8-bit RGB.

    Alpha is dropped; 16-bit grey loses its low byte. An image that is computed at a much smaller
    size is reduced by a whole factor, a JPEG while it is decoded, which takes a part of the time.

    Args:
        data: the file, or pixels, which are only reduced.
        max_pixels: as for `probe`.
        on_header: called with what `probe` returns, before any pixel is decoded.
        side: px of the longer side at which it is computed at most; the longer side stays at least
            twice as long. None keeps all pixels.

    Raises:
        ImageRejectedError: truncated, corrupt or too large.
    """
    began, began_cpu = time.perf_counter(), time.thread_time()
    if not isinstance(data, bytes):
        header = probe(data, max_pixels)
        if on_header is not None:
            on_header(header)
        size = (header.height, header.width)
        return _decoded(_reduce(data, _factor(size, side)), size, began, began_cpu)
    with _open(data) as image:
        header = _header_of(image, max_pixels)
        if on_header is not None:
            on_header(header)
        try:
            factor = _factor(image.size, side)
            if factor == 1:
                plain = _decode_plain_jpeg(image, data)
                if plain is not None:
                    return _decoded(plain, plain.shape[:2], began, began_cpu)
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= _FIRST_TURNED
            size = image.size if turned else (image.height, image.width)
            if factor > 1:  # decodes JPEGs at 1/2, 1/4 or 1/8 of their size; does nothing to others
                image.draft(None, (image.width // factor, image.height // factor))
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode.startswith("I"):
                grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
                pixels = np.repeat(grey[:, :, None], 3, axis=2)
            else:
                pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
        except ImageRejectedError:
            raise
        except Exception as error:
            raise _bad(error) from error
    rest = factor * max(pixels.shape) // max(size)
    return _decoded(_reduce(pixels, rest), size, began, began_cpu)


def _factor(size: tuple[int, int], side: int | None) -> int:
    """By how much an image is reduced that is computed at `side` px at most, see `decode`."""
    return 1 if side is None else max(max(size) // (2 * side), 1)


def _reduce(pixels: Image, factor: int) -> Image:
    """Pixels with means of `factor` by `factor` px in place of those."""
    if factor <= 1:
        return pixels
    return np.asarray(PIL.Image.fromarray(pixels).reduce(factor))


def _decoded(pixels: Image, size: tuple[int, int], began: float, began_cpu: float) -> DecodedImage:
    elapsed_s, cpu_s = time.perf_counter() - began, time.thread_time() - began_cpu
    return DecodedImage(pixels, size, elapsed_s, cpu_s)


def _decode_plain_jpeg(image: PIL.Image.Image, data: bytes) -> Image | None:
    """The pixels of a JPEG in colour that needs no turning; None if it is something else."""
    if image.format != "JPEG" or image.mode != "RGB":
        return None
    may_be_turned = "exif" in image.info or "xmp" in image.info
    if may_be_turned and image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        return None
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    try:
        found = simplejpeg.decode_jpeg(data, "RGB", buffer=pixels)
    except ValueError:  # damaged, or larger than its header says
        return None
    return pixels if found.shape == pixels.shape else None


def _open(data: bytes) -> PIL.Image.Image:
    try:
        return PIL.Image.open(io.BytesIO(data), formats=_FORMATS)
    except Exception as error:
        # A broken file makes Pillow's readers raise whatever they stumble over.
        raise _bad(error) from error


def _header_of(image: PIL.Image.Image, max_pixels: int) -> ImageHeader:
    header = ImageHeader(MEDIA_TYPES[str(image.format)], image.height, image.width)
    return _bounded(header, max_pixels)


def _bounded(header: ImageHeader, max_pixels: int) -> ImageHeader:
    if header.pixels > max_pixels:
        raise ImageRejectedError(
            ErrorCode.TOO_MANY_PIXELS,
            f"the image has {header.width}x{header.height} = {header.pixels} px, at most "
            f"{max_pixels} are allowed: make it smaller",
        )
    return header


def _bad(error: Exception) -> ImageRejectedError:
    words = f"{type(error).__name__}: {error}"[:200]
    return ImageRejectedError(
        ErrorCode.BAD_IMAGE,
        f"the image cannot be decoded ({words}); expected a whole JPEG, PNG or WebP file",
    )
