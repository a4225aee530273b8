"""Images from clients: what they are, how large, and their pixels, all within bounds.

JPEG, PNG and WebP are taken. `probe` reads no more than a file's structure (`image_headers`), so
that a file that asks for too much is refused before a pixel of it is decoded, and a request can be
admitted or refused before the work is done; `decode` does it. Both block, and are meant for a
thread, or where `is_quick` says that it may take long, for a process that can be ended.

An image may also come as its pixels; both take those in place of a file.

Pillow does the decoding, but for plain JPEGs, which most cameras send: simplejpeg decodes those to
the same pixels (both are libjpeg-turbo) in less time. Whatever it does not like is left to Pillow.
"""

from __future__ import annotations

import io
import time
import warnings
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import PIL.Image
import simplejpeg
from numpy.typing import NDArray
from PIL.Image import Transpose

from anytime_protocol.enums import ErrorCode
from anytime_server.errors import ImageRejectedError
from anytime_server.image_headers import (
    JPEG,
    PNG,
    WEBP,
    BadFileError,
    ImageHeader,
    cannot_decode,
    plain_file,
    read_header,
)

Image: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) RGB."""

MEDIA_TYPES: Final = {"JPEG": JPEG, "PNG": PNG, "WEBP": WEBP}
"""Media type by Pillow's name of the format."""

DECODED: Final = "image/x-rgb"
"""In the place of a media type, of an image whose pixels came as they are."""

MOST_PX_A_SIDE: Final = 2**15
"""Px that a side may have."""

_QUICK_BYTES: Final = 2**20
_QUICK_PX: Final = 2**21
_QUICK_PARTS: Final = 256
"""What decoding goes over in a tenth of a second at most, whatever the file."""

_FORMATS: Final = {media_type: name for name, media_type in MEDIA_TYPES.items()}

_UPRIGHT: Final = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""How an image is turned upright, by its Exif orientation."""

_FIRST_TURNED: Final = 5
"""Orientations from here on exchange height and width."""


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


def configure_pillow() -> None:
    """Turns off Pillow's own limit and its warnings, process-wide.

    `probe` refuses by the operator's limit: Pillow's is a warning at one size and an error at twice
    it; ours is one error, and comes first. Its warnings are about files of strangers.
    """
    PIL.Image.MAX_IMAGE_PIXELS = None
    warnings.filterwarnings("ignore", module=r"PIL\.")


def warm_up() -> None:
    """Reads a small image of each format, as the first one loads its reader."""
    for kind in MEDIA_TYPES:
        file = io.BytesIO()
        PIL.Image.new("RGB", (8, 8)).save(file, kind)
        data = file.getvalue()
        decode(data, probe(data, 64))


def check_media_type(media_type: str) -> str:
    """The media type without its parameters.

    Raises:
        ImageRejectedError: not one that is taken.
    """
    plain = media_type.partition(";")[0].strip().lower()
    if plain not in _FORMATS:
        allowed = ", ".join(_FORMATS)
        raise ImageRejectedError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            f"found media type {plain[:80]!r}, expected one of {allowed}",
        )
    return plain


def probe(data: bytes | Image, max_pixels: int) -> ImageHeader:
    """Reads what a file says about itself.

    Args:
        data: the file, or pixels.
        max_pixels: the largest image that is taken, px.

    Raises:
        ImageRejectedError: no whole image of a known format, too large, or of too many parts.
    """
    try:
        header = (
            read_header(data) if isinstance(data, bytes) else ImageHeader(DECODED, *data.shape[:2])
        )
    except BadFileError as error:
        raise ImageRejectedError(ErrorCode.BAD_IMAGE, str(error)) from error
    size = f"{header.width}x{header.height}"
    if header.pixels > max_pixels:
        raise _too_large(
            f"the image has {size} = {header.pixels} px, at most {max_pixels} are allowed"
        )
    if max(header.height, header.width) > MOST_PX_A_SIDE:
        raise _too_large(f"the image has {size} px, at most {MOST_PX_A_SIDE} a side are allowed")
    return header


def is_quick(data: bytes | Image, header: ImageHeader) -> bool:
    """Whether decoding takes no more than some 0.1 s, whatever the file."""
    return not isinstance(data, bytes) or (
        len(data) <= _QUICK_BYTES
        and header.pixels * header.scans <= _QUICK_PX
        and header.parts <= _QUICK_PARTS
    )


def decode(data: bytes | Image, header: ImageHeader, side: int | None = None) -> DecodedImage:
    """The pixels of a file's first frame, upright, as 8-bit RGB.

    Alpha is dropped; 16-bit grey loses its low byte. An image that is computed at a much smaller
    size is reduced by a whole factor, a JPEG while it is decoded, which takes a part of the time.

    Args:
        data: the file, or pixels, which are only reduced.
        header: what `probe` says of it.
        side: px of the longer side at which it is computed at most; the longer side stays at least
            twice as long. None keeps all pixels.

    Raises:
        ImageRejectedError: damaged, or there is no memory for it.
    """
    began, began_cpu = time.perf_counter(), time.thread_time()
    size = (header.height, header.width)
    factor = 1 if side is None else max(max(size) // (2 * side), 1)
    try:
        if isinstance(data, bytes):
            pixels = _decode_file(plain_file(data, header), header, factor)
            if header.orientation >= _FIRST_TURNED:
                size = (header.width, header.height)
            factor = factor * max(pixels.shape) // max(size)
        else:
            pixels = data
        if factor > 1:  # means of `factor` by `factor` px
            pixels = np.asarray(PIL.Image.fromarray(pixels).reduce(factor))
    except MemoryError:
        text = f"there is no memory for an image of {header.width}x{header.height} px"
        raise _too_large(text) from None
    elapsed_s, cpu_s = time.perf_counter() - began, time.thread_time() - began_cpu
    return DecodedImage(pixels, size, elapsed_s, cpu_s)


def _decode_file(data: bytes, header: ImageHeader, factor: int) -> Image:
    """The pixels of a file without metadata, of a JPEG reduced by up to `factor`."""
    try:
        with PIL.Image.open(io.BytesIO(data), formats=[_FORMATS[header.media_type]]) as image:
            if image.size != (header.width, header.height):
                raise bad_image("its header is damaged")
            if factor == 1 and header.orientation == 1:
                plain = _decode_plain_jpeg(image, data)
                if plain is not None:
                    return plain
            if factor > 1:  # decodes JPEGs at 1/2, 1/4 or 1/8 of their size; does nothing to others
                image.draft(None, (image.width // factor, image.height // factor))
            return _rgb(image, header.orientation)
    except (ImageRejectedError, MemoryError):
        raise
    except Exception as error:
        # A broken file makes Pillow's readers raise whatever they stumble over, and their words are
        # about Pillow.
        raise bad_image("it is damaged") from error


def _rgb(image: PIL.Image.Image, orientation: int) -> Image:
    """Upright pixels, 8 bits a channel."""
    how = _UPRIGHT.get(orientation)
    upright = image if how is None else image.transpose(how)
    if upright.mode.startswith("I"):
        grey = (np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.asarray(upright if upright.mode == "RGB" else upright.convert("RGB"))


def _decode_plain_jpeg(image: PIL.Image.Image, data: bytes) -> Image | None:
    """The pixels of a JPEG in colour; None if it is something else."""
    if image.format != "JPEG" or image.mode != "RGB":
        return None
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    try:
        found = simplejpeg.decode_jpeg(data, "RGB", buffer=pixels)
    except ValueError:  # damaged
        return None
    return pixels if found.shape == pixels.shape else None


def bad_image(reason: str) -> ImageRejectedError:
    """The refusal of a file that cannot be decoded."""
    return ImageRejectedError(ErrorCode.BAD_IMAGE, cannot_decode(reason))


def _too_large(text: str) -> ImageRejectedError:
    return ImageRejectedError(ErrorCode.TOO_MANY_PIXELS, f"{text}: make it smaller")
