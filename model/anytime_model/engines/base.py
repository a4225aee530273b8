"""What every engine offers, whatever computes underneath: begin an image, make exits, decode.

An engine holds one model and is used by one thread at a time. It knows no budget and no clock: a
caller stops by not advancing, or in the middle of a stage by raising from `pause`, which every
engine calls at least between the modules of the network (the native one between kernels). After
that the run is dead and the engine is ready for the next `begin`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from anytime_model.confidence import Criterion
from anytime_model.errors import ImageError

Pause = Callable[[], None]


@dataclass(frozen=True, slots=True)
class ExitResult:
    """One exit's aggregated map, as the network puts it out.

    Attributes:
        exit: 1 to 4.
        image_size: (H, W) of the image, px.
        logits: (K, h, w) float32 at 1/4 of the padded image: class logits, or heat-maps for pose.
        confidence: (h, w) float32, the largest probability (0 to 1), or the largest heat-map value.
        active: (h, w) boolean, where the next stage will compute.
        macs: multiply-adds that this stage and exit really executed.
    """

    exit: int
    image_size: tuple[int, int]
    logits: NDArray[np.float32]
    confidence: NDArray[np.float32]
    active: NDArray[np.bool_]
    macs: int

    @property
    def inside(self) -> tuple[slice, slice]:
        """The part of (h, w) that lies in the image, padding left out."""
        height, width = self.image_size
        return slice(0, -(-height // 4)), slice(0, -(-width // 4))

    @property
    def mean_confidence(self) -> float:
        """Mean of the confidence over the image."""
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


class Run(Protocol):
    """One image on its way through the network."""

    @property
    def exit(self) -> int:
        """Exits made so far, 0 to 4."""
        ...

    def advance(self, criterion: Criterion | None = None, pause: Pause | None = None) -> ExitResult:
        """Make the next exit.

        Args:
            criterion: which positions of the new map are settled; None settles nothing new.
            pause: called between modules or kernels; whatever it raises ends the run.

        Raises:
            FinishedError: the last exit has been made.
        """
        ...


class Engine(Protocol):
    """One model, ready to run on one device."""

    @property
    def name(self) -> str:
        """What computes: "torch", "native" or "openvino", with its instruction set."""
        ...

    @property
    def sparse(self) -> bool:
        """Whether masked positions save time; a dense engine computes them all the same."""
        ...

    def begin(self, image: NDArray[np.uint8]) -> Run:
        """Accept an image; the run computes nothing yet.

        Args:
            image: (H, W, 3) uint8 RGB, any H, W >= 1. Normalised as the model's card says.

        Raises:
            ImageError: another shape or type.
        """
        ...

    def decode(self, result: ExitResult) -> Decoded:
        """The result at the size of the image: class ids, or joints."""
        ...


def check_image(image: NDArray[np.uint8]) -> None:
    """Refuse what no engine can run.

    Raises:
        ImageError: not (H, W, 3) uint8 with at least one pixel.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0 or image.dtype != np.uint8:
        raise ImageError(
            f"the image is {image.dtype} of shape {image.shape}; expected uint8 of shape "
            "(H, W, 3), H and W at least 1. Decode it to RGB first."
        )
