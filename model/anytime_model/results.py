"""What an engine returns: the map of one exit, and its decoded form at the size of the image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ExitResult:
    """One exit's aggregated map, as the network puts it out.

    Attributes:
        exit: number of the exit, from 1.
        image_size: (H, W) of the image, px.
        logits: (K, h, w) float32 for the padded image: class logits, or heat-maps for pose.
        confidence: (h, w) float32, the largest probability (0 to 1), or the largest heat-map value.
        active: (h, w) boolean, where the next stage will compute.
        macs: multiply-adds that this stage and exit really executed.
        map_stride: px of the image for each cell of the map, along each side.
    """

    exit: int
    image_size: tuple[int, int]
    logits: NDArray[np.float32]
    confidence: NDArray[np.float32]
    active: NDArray[np.bool_]
    macs: int
    map_stride: int = 4

    @property
    def inside(self) -> tuple[slice, slice]:
        """The part of (h, w) that lies in the image, padding left out."""
        height, width = self.image_size
        return slice(0, -(-height // self.map_stride)), slice(0, -(-width // self.map_stride))

    @property
    def mean_confidence(self) -> float:
        """Mean of the confidence map over the image."""
        found = self.confidence[self.inside]
        return float(found.sum()) / found.size  # half the time of `mean` where caches are cold

    @property
    def active_share(self) -> float:
        """Share of all positions, padding included, that the next stage will compute, 0 to 1."""
        return float(self.active.mean())


@dataclass(frozen=True, slots=True)
class SegmentationMap:
    """A decoded segmentation.

    Attributes:
        labels: (H, W) uint8, the class of every pixel of the image.
    """

    labels: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Keypoints:
    """A decoded pose.

    Attributes:
        points: (J, 3) float32: x, y in image px (pixel centres at integers) and the heat-map's
            value.
    """

    points: NDArray[np.float32]


Decoded = SegmentationMap | Keypoints
