"""Overlays of decoded maps on images: colours of classes, or skeletons."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageOps, UnidentifiedImageError

from anytime_model.checkpoint.card import Card
from anytime_model.errors import InputError
from anytime_model.results import Decoded, Keypoints, SegmentationMap

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded."""

OPACITY = 0.6
VISIBLE = 0.1
"""Joints whose heat-map stays below this are not drawn."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file as (H, W, 3) uint8 RGB, turned upright as its EXIF says.

    Raises:
        InputError: missing, not an image, truncated, or too large.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(
                    f"{path}: the image has {image.width}x{image.height} px; expected at most "
                    f"{MAX_PIXELS} px. Scale it down first."
                )
            upright = ImageOps.exif_transpose(image)
            return np.asarray(upright.convert("RGB"))
    except FileNotFoundError as e:
        raise InputError(f"{path}: there is no such image. Check the path.") from e
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as e:
        raise InputError(
            f"{path}: cannot be read as an image ({e}). Give a JPEG, PNG or WebP file."
        ) from e


def palette(card: Card) -> NDArray[np.uint8]:
    """Colours of a card's labels, (K, 3) uint8 RGB."""
    return np.array([ImageColor.getrgb(label.color) for label in card.labels], dtype=np.uint8)


def overlay(image: NDArray[np.uint8], decoded: Decoded, card: Card) -> Image.Image:
    """The image with a map drawn over it.

    Args:
        image: (H, W, 3) uint8 RGB.
        decoded: a map of the same size, or joints in its pixels.
        card: of the model that made it, for colours and skeleton.
    """
    match decoded:
        case SegmentationMap(labels):
            colors = palette(card)[labels]
            mixed = (1 - OPACITY) * image + OPACITY * colors
            return Image.fromarray(mixed.round().astype(np.uint8))
        case Keypoints(points):
            return _skeleton(image, points, card)


def contact_sheet(images: Sequence[Image.Image]) -> Image.Image:
    """Images of one size side by side."""
    width, height = images[0].size
    sheet = Image.new("RGB", (width * len(images), height))
    for i, image in enumerate(images):
        sheet.paste(image, (i * width, 0))
    return sheet


def _skeleton(image: NDArray[np.uint8], points: NDArray[np.float32], card: Card) -> Image.Image:
    drawing = Image.fromarray(image)
    draw = ImageDraw.Draw(drawing)
    size = max(1, round(max(image.shape[:2]) / 80))
    seen = points[:, 2] >= VISIBLE
    for bone in card.skeleton:
        for a, b in pairwise(bone):
            if seen[a] and seen[b]:
                ends = [tuple(points[a, :2]), tuple(points[b, :2])]
                draw.line(ends, fill=card.labels[b].color, width=size)
    for (x, y, _), label, visible in zip(points, card.labels, seen, strict=True):
        if visible:
            draw.ellipse((x - size, y - size, x + size, y + size), fill=label.color)
    return drawing
