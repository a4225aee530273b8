"""An engine for models that want their images at one size, such as a person's crop for a pose.

It fits an image into the size that the card names, runs another engine on that, and brings what
comes out back to the image as it came: callers see no difference. Nothing here computes exits.

A coordinate x of the image, pixel centres at integers, lies at (x + 0.5) s - 0.5 in the fitted one,
where s is the ratio of their sizes; both maps have cells of 4 px.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray

from anytime_model.confidence import Criterion
from anytime_model.engines.base import (
    Decoded,
    Engine,
    ExitResult,
    Keypoints,
    Pause,
    Run,
    SegmentationMap,
    check_image,
)
from anytime_model.hrnet import upsample
from anytime_model.tasks import MAP_STRIDE

Size = tuple[int, int]


def fitted_size(size: Size, side: int | None) -> Size:
    """What an image of (H, W) px is run at: its longer side is `side` px; None changes nothing."""
    if side is None:
        return size
    height, width = (max(1, round(n * side / max(size))) for n in size)
    return height, width


@dataclass(frozen=True, slots=True)
class FittedResult(ExitResult):
    """An exit in the frame of the image as it came.

    Attributes:
        fitted: the same exit as the other engine made it.
    """

    fitted: ExitResult


@dataclass(slots=True)
class _FittedRun:
    run: Run
    image_size: Size

    @property
    def exit(self) -> int:
        return self.run.exit

    def advance(self, criterion: Criterion | None = None, pause: Pause | None = None) -> ExitResult:
        fitted = self.run.advance(criterion, pause)
        cells = tuple(-(-n // MAP_STRIDE) for n in self.image_size)
        inside = fitted.inside
        maps = np.concatenate([fitted.logits, fitted.confidence[None], fitted.active[None]])
        smooth = torch.from_numpy(maps[:, *inside].astype(np.float32))[None]
        resized = upsample(smooth, cells)[0].numpy()
        return FittedResult(
            exit=fitted.exit,
            image_size=self.image_size,
            logits=resized[:-2],
            confidence=resized[-2],
            active=resized[-1] >= 0.5,
            macs=fitted.macs,
            fitted=fitted,
        )


class FittedEngine:
    """Another engine behind a fit of its images.

    Args:
        engine: runs the fitted images.
        side: length of their longer side, px.
    """

    def __init__(self, engine: Engine, side: int) -> None:
        self._engine = engine
        self._side = side

    @property
    def name(self) -> str:
        """Of the engine that computes."""
        return self._engine.name

    @property
    def sparse(self) -> bool:
        """Of the engine that computes."""
        return self._engine.sparse

    def begin(self, image: NDArray[np.uint8]) -> Run:
        """Fit the image, and begin it; one that fits already is run as it is.

        Raises:
            ImageError: another shape or type.
        """
        check_image(image)
        size = (image.shape[0], image.shape[1])
        height, width = fitted_size(size, self._side)
        if (height, width) == size:
            return self._engine.begin(image)
        resized = PIL.Image.fromarray(image).resize(
            (width, height), PIL.Image.Resampling.BILINEAR, reducing_gap=2.0
        )
        return _FittedRun(self._engine.begin(np.asarray(resized)), size)

    def decode(self, result: ExitResult) -> Decoded:
        """The result at the size of the image as it came, from the exit as it was computed."""
        if not isinstance(result, FittedResult):
            return self._engine.decode(result)
        size, fitted = result.image_size, result.fitted.image_size
        match self._engine.decode(result.fitted):
            case Keypoints(points=points):
                image_xy, fitted_xy = np.array(size[::-1], np.float32), np.array(fitted[::-1])
                moved = points.copy()
                moved[:, :2] = (points[:, :2] + 0.5) * (image_xy / fitted_xy) - 0.5
                moved[:, :2] = moved[:, :2].clip(0, image_xy - 1)
                return Keypoints(moved)
            case SegmentationMap(labels=labels):
                full = PIL.Image.fromarray(labels).resize(size[::-1], PIL.Image.Resampling.NEAREST)
                return SegmentationMap(np.array(full))


def fit(engine: Engine, side: int | None) -> Engine:
    """The engine, behind a fit where the model's card asks for one."""
    return engine if side is None else FittedEngine(engine, side)
