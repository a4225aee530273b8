"""Images of one's own data set: finding, reading, and bringing to one size."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from anytime_model.data.files import opened_image, require_folder
from anytime_model.data.folder.description import SIDE_STEP, SIDES
from anytime_model.data.folder.faults import raise_faults
from anytime_model.errors import DataError
from anytime_model.networks.base import resized_size

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})

_FIRST_TURNED = 5
"""EXIF orientations from here on exchange height and width."""


def find_images(root: Path) -> dict[str, Path]:
    """The images of a folder by name: the path below `images` without the ending.

    Raises:
        DataError: there are none, or two of one name.
    """
    folder = require_folder(root / "images", "the images of the data set")
    found: dict[str, Path] = {}
    faults = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in ENDINGS:
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            faults.append(
                DataError(
                    path,
                    f"has the name of {found[name].name};",
                    "expected names that differ in more than their ending.",
                )
            )
        found[name] = path
    raise_faults(root, faults)
    if not found:
        raise DataError(folder, "holds no image;", f"expected {', '.join(sorted(ENDINGS))}.")
    return found


def usual_side(lengths: Iterable[float], largest: int) -> int:
    """The median of some lengths in px, rounded up to a side that may be, `largest` at most."""
    median = statistics.median(lengths)
    return int(min(max(-(-median // SIDE_STEP) * SIDE_STEP, SIDES[0]), largest))


def longer_sides(paths: Sequence[Path]) -> list[int]:
    """The longer sides, px, of those images whose headers can be read."""
    lengths = []
    for path in paths:
        try:
            with opened_image(path, "an image") as image:
                lengths.append(max(image.size))
        except DataError:  # told when the image is read
            continue
    return lengths


def read_at_side(path: Path, side: int) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """An image, turned as its EXIF says, with its longer side brought to `side` px.

    Returns:
        (h, w, 3) uint8 RGB, and (H, W) px of the image in its file, turned.

    Raises:
        DataError: it cannot be read.
    """
    with opened_image(path, "an image") as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= _FIRST_TURNED
        size = image.size if turned else (image.height, image.width)
        height, width = resized_size(size, side)
        image.draft(None, (height, width) if turned else (width, height))
        ImageOps.exif_transpose(image, in_place=True)
        resized = image.convert("RGB").resize(
            (width, height), Image.Resampling.BILINEAR, reducing_gap=2.0
        )
        return np.array(resized), size
