"""A class map as the masks and polygons that annotation tools take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from anytime_client import OutputOptions, Update

K = TypeVar("K")

WANT: Final = OutputOptions(confidence=True)
"""What `regions` needs of an update."""

_TOLERANCE_PX: Final = 1.0
_SMALLEST_SHARE: Final = 1e-4
"""Share of the image below which a part is left out of the polygons."""


@dataclass(frozen=True, slots=True)
class Region(Generic[K]):
    """The pixels of one label.

    Attributes:
        label: as the caller names it.
        mask: bool (H, W), true somewhere.
        score: mean confidence of these pixels, 0 to 1.
    """

    label: K
    mask: NDArray[np.bool_]
    score: float


@dataclass(frozen=True, slots=True)
class Polygon(Generic[K]):
    """The outline of one connected part of a label, without its holes.

    Attributes:
        label: as the caller names it.
        points: float (N, 2) with N of at least 3: x and y in px, the middle of the first pixel
            being (0.5, 0.5).
        score: of the region that it is of, 0 to 1.
    """

    label: K
    points: NDArray[np.float64]
    score: float


def regions(update: Update, classes: Mapping[K, Sequence[int]]) -> list[Region[K]]:
    """The regions of a map, the largest first; labels without a pixel are left out.

    Args:
        update: of a segmentation model, with its confidence map.
        classes: ids of the classes that make up each label.
    """
    masks = [(label, np.isin(update.map, list(ids))) for label, ids in classes.items()]
    found = [
        Region(label, mask, float(update.confidence_map[mask].mean()) / 255)
        for label, mask in masks
        if mask.any()
    ]
    return sorted(found, key=lambda region: -int(region.mask.sum()))


def polygons(found: Iterable[Region[K]]) -> list[Polygon[K]]:
    """The outlines of all parts, the largest first.

    No annotation tool's polygons have holes. Drawn in this order, what lies in a hole covers it.
    """
    outlines: list[tuple[float, Polygon[K]]] = []
    for region in found:
        mask = region.mask.astype(np.uint8)
        contours: Sequence[Any]
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        for contour in contours:
            area = cv2.contourArea(contour)
            points = cv2.approxPolyDP(contour, _TOLERANCE_PX, closed=True).reshape(-1, 2) + 0.5
            if area >= _SMALLEST_SHARE * mask.size and len(points) >= 3:
                outlines.append(
                    (area, Polygon(region.label, points.astype(np.float64), region.score))
                )
    return [polygon for _, polygon in sorted(outlines, key=lambda outline: -outline[0])]
