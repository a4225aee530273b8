"""The interface of every engine: begin an image, make its exits one by one, decode a map.

An engine holds one model and is used by one thread at a time. A caller stops by not advancing, or
in the middle of a stage by raising from `pause`, which every engine calls at least between the
modules of the network (the native one between kernels). After that the run is over and the engine
is ready for the next `begin`.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from anytime_model.checkpoint.card import Card
from anytime_model.confidence import Criterion
from anytime_model.errors import InputError
from anytime_model.kernels.library import Dtype
from anytime_model.networks.base import Prior
from anytime_model.results import Decoded, ExitResult, Keypoints, SegmentationMap

__all__ = [
    "Decoded",
    "Dtype",
    "Engine",
    "ExitResult",
    "FeatureCache",
    "HoldingEngine",
    "Keypoints",
    "NetworkEngine",
    "Pause",
    "Prior",
    "Run",
    "SegmentationMap",
    "check_image",
    "check_normalised",
    "is_reduced",
    "resized_image",
]

Pause = Callable[[], None]

_REDUCED = 4
"""See `is_reduced`: so many times as long as it is to be."""


class Run(Protocol):
    """One image on its way through the network."""

    @property
    def exit(self) -> int:
        """Exits made so far, from 0."""
        ...

    def advance(
        self,
        criterion: Criterion | None = None,
        pause: Pause | None = None,
        *,
        exit_: int | None = None,
    ) -> ExitResult:
        """Make the next exit.

        Args:
            criterion: which positions of the new map are settled; None settles nothing new.
            pause: called between modules or kernels; whatever it raises ends the run.
            exit_: number of a later exit to make instead, the stages before it without theirs;
                where `FamilyConfig.may_skip_exits`.

        Raises:
            FinishedError: the last exit has been made.
            ConfigError: this exit cannot be made next.
        """
        ...


class Engine(Protocol):
    """One model, ready to run on one device."""

    @property
    def card(self) -> Card:
        """What the model is."""
        ...

    @property
    def name(self) -> str:
        """What computes: "torch", "native" or "openvino", with its instruction set."""
        ...

    @property
    def dtype(self) -> Dtype:
        """What convolutions compute in."""
        ...

    @property
    def sparse(self) -> bool:
        """Whether masked positions save time; a dense engine computes them all the same."""
        ...

    def begin(self, image: NDArray[np.uint8], prior: Prior | None = None) -> Run:
        """Accept an image; the run computes nothing yet.

        Args:
            image: (H, W, 3) uint8 RGB, any H, W >= 1. Normalised as the model's card says.
            prior: a map of this image to start from, see `Network.begin`; a batch of one.

        Raises:
            InputError: an image or a prior of another shape or type.
        """
        ...

    def prepare(self, size: tuple[int, int]) -> None:
        """Make ready for images of (H, W) px, so that the first one takes no longer than others.

        What is ready may be given up again for other sizes.

        Raises:
            InputError: there is no room for such images.
        """
        ...

    def resized(self, image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        """An image at (H, W) px: the bytes of `resized_image`."""
        ...

    def decode(self, result: ExitResult) -> Decoded:
        """The result at the size of the image: class ids, or joints."""
        ...


class FeatureCache(Protocol):
    """The features of a video's last frame at one size, for the next one."""

    @property
    def bytes(self) -> int:
        """Of memory."""
        ...

    @property
    def lost(self) -> bool:
        """Whether the engine needed the memory; a run that began before is not concerned."""
        ...


@runtime_checkable
class HoldingEngine(Engine, Protocol):
    """An engine that can hold the features of a video's frame for the next one.

    Of each layer it computes what is fresh, and leaves the rest as the frames before have made it,
    in the first stage and its exit too. So unchanged parts cost nothing, and features beside a
    change are the true ones and no interpolation. How far a change reaches beyond what is fresh is
    left out.
    """

    def new_cache(self, size: tuple[int, int]) -> FeatureCache | None:
        """Memory for the features of a video's frames of (H, W) px.

        Returns:
            None where the network's features cannot be held, or there is no room for them.
        """
        ...

    def begin_held(
        self,
        image: NDArray[np.uint8],
        prior: Prior | None,
        cache: Any,
        fresh: NDArray[np.bool_] | None,
    ) -> Run:
        """Accept a frame; see `begin`.

        Args:
            image: see `begin`.
            prior: see `begin`.
            cache: of `new_cache` for this size; from now on this run's, until the next one begins.
            fresh: (h, w) of the padded map: where the features are to be made anew, at least where
                the prior is active. None for everywhere, as a cache's first frame needs it. Where a
                stage is left out, or stopped, it makes them when it is next done.

        Raises:
            InputError: an image or a prior of another shape or type.
        """
        ...


class NetworkEngine(Engine, Protocol):
    """An engine that runs images at the size at which they come."""

    def begin_normalised(self, image: NDArray[np.float32], prior: Prior | None = None) -> Run:
        """Accept an image that is normalised already.

        Args:
            image: (3, H, W) float32, finite.
            prior: see `begin`.

        Raises:
            InputError: another shape or type, or a value that is not finite.
        """
        ...


def resized_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image (H, W, 3) at another (H, W) px; itself if it has this size.

    Pillow's bilinear filter, along rows and then along columns; where `is_reduced`, over means of
    whole pixels.
    """
    if size == image.shape[:2]:
        return image
    height, width = size
    whole, bilinear = PIL.Image.fromarray(image), PIL.Image.Resampling.BILINEAR
    if is_reduced(image, size):
        return np.asarray(whole.resize((width, height), bilinear, reducing_gap=_REDUCED / 2))
    # One after the other: which comes first makes other bytes, and Pillow's choice has changed.
    narrow = whole.resize((width, whole.height), bilinear)
    return np.asarray(narrow.resize((width, height), bilinear))


def is_reduced(image: NDArray[np.uint8], size: tuple[int, int]) -> bool:
    """Whether a side of an image is so long that `resized_image` begins with means of pixels."""
    return any(n >= _REDUCED * m for n, m in zip(image.shape[:2], size, strict=True))


def check_image(image: NDArray[np.uint8]) -> None:
    """Refuse what no engine can run.

    Raises:
        InputError: not (H, W, 3) uint8 with at least one pixel.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0 or image.dtype != np.uint8:
        raise InputError(
            f"the image is {image.dtype} of shape {image.shape}; expected uint8 of shape "
            "(H, W, 3), H and W at least 1. Decode it to RGB first."
        )


def check_normalised(image: NDArray[np.float32]) -> None:
    """Refuse a normalised image that no engine can run.

    Raises:
        InputError: not (3, H, W) float32 with at least one pixel, or not finite.
    """
    if image.ndim != 3 or image.shape[0] != 3 or image.size == 0 or image.dtype != np.float32:
        raise InputError(
            f"the image is {image.dtype} of shape {image.shape}; expected float32 of shape "
            "(3, H, W), H and W at least 1."
        )
    if not np.isfinite(image).all():
        raise InputError(
            "the image has values that are NaN or infinite; expected finite ones. "
            "Check its normalisation."
        )
