"""The sample that every loader yields, and the description of a data set's outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from anytime_model.labels import Label
from anytime_model.tasks import TaskName

IGNORE = 255
"""The label of pixels that are neither trained on nor scored."""

OUTSIDE = (124, 116, 104)
"""What lies outside a image, RGB: the mean colour of ImageNet."""


@dataclass(frozen=True, slots=True)
class Skeleton:
    """How joints hang together.

    Attributes:
        edges: pairs of joints that a drawing connects.
        flip: for each joint, which joint it becomes in a mirrored image.
        torso: two joints on opposite corners of the trunk, whose distance is the unit of
            PCK of the torso (left shoulder and right hip).
    """

    edges: tuple[tuple[int, int], ...]
    flip: tuple[int, ...]
    torso: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and its truth.

    Attributes:
        name: unique in its split.
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8 class ids with 255 to ignore, for segmentation.
        joints: (J, 3) float32 x, y in px (pixel centres at integers) and 1 or 0 for visible or
            unknown, for pose.
        head_px: length of the head segment, px, the unit of PCKh; None where unknown.
    """

    name: str
    image: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8] | None = None
    joints: npt.NDArray[np.float32] | None = None
    head_px: float | None = None


class SampleSource(Protocol):
    """A split of a data set, indexable."""

    @property
    def task(self) -> TaskName:
        """What its samples are the truth of."""
        ...

    @property
    def outputs(self) -> tuple[Label, ...]:
        """Its classes, or its joints, in the order of their ids."""
        ...

    @property
    def skeleton(self) -> Skeleton | None:
        """How its joints hang together; None for segmentation."""
        ...

    def __len__(self) -> int:
        """How many samples there are."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """The sample at 0 <= index < len."""
        ...
