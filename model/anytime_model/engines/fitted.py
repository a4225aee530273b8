"""An engine that brings images to the one size that a model was trained at, such as for a pose.

It resizes an image as the card says, runs another engine on that, and brings the results back to
the image as it came.

A coordinate x of the image, pixel centres at integers, lies at (x + 0.5) s - 0.5 in the fitted one,
where s is the ratio of their sizes; the cells of both maps have the same size in px.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from anytime_model.checkpoint.card import Card
from anytime_model.confidence import Criterion
from anytime_model.engines.base import Engine, Pause, Run, check_image
from anytime_model.networks.base import FamilyConfig, Prior
from anytime_model.ops import upsample
from anytime_model.results import Decoded, ExitResult, Keypoints, SegmentationMap

Size = tuple[int, int]


def fitted_size(size: Size, side: int | None) -> Size:
    """What an image of (H, W) px is run at: its longer side is `side` px; None changes nothing."""
    if side is None:
        return size
    height, width = (max(1, round(n * side / max(size))) for n in size)
    return height, width


@dataclass(frozen=True, slots=True, kw_only=True)
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
        cells = _cells(self.image_size, fitted.map_stride)
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
            map_stride=fitted.map_stride,
            fitted=fitted,
        )


class FittedEngine:
    """Another engine, whose images are resized.

    Args:
        engine: runs the fitted images.
        side: length of their longer side, px.
    """

    def __init__(self, engine: Engine, side: int) -> None:
        self._engine = engine
        self._side = side

    @property
    def card(self) -> Card:
        """Of the engine that computes."""
        return self._engine.card

    @property
    def name(self) -> str:
        """Of the engine that computes."""
        return self._engine.name

    @property
    def sparse(self) -> bool:
        """Of the engine that computes."""
        return self._engine.sparse

    def begin(self, image: NDArray[np.uint8], prior: Prior | None = None) -> Run:
        """Resize the image, and begin it; one that has the size already is run as it is.

        Args:
            image: see `Engine.begin`.
            prior: for the padded size of the image as it came; it is resized with it.

        Raises:
            InputError: an image or a prior of another shape or type.
        """
        check_image(image)
        size = (image.shape[0], image.shape[1])
        height, width = fitted_size(size, self._side)
        if (height, width) == size:
            return self._engine.begin(image, prior)
        resized = PIL.Image.fromarray(image).resize(
            (width, height), PIL.Image.Resampling.BILINEAR, reducing_gap=2.0
        )
        if prior is not None:
            prior = _resized_prior(prior, size, (height, width), self.card.config)
        return _FittedRun(self._engine.begin(np.asarray(resized), prior), size)

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


def _cells(size: Size, map_stride: int) -> Size:
    return -(-size[0] // map_stride), -(-size[1] // map_stride)


def _padded_cells(size: Size, config: FamilyConfig) -> Size:
    height, width = (n + -n % config.stride for n in size)
    return height // config.map_stride, width // config.map_stride


def _resized_prior(prior: Prior, size: Size, fitted: Size, config: FamilyConfig) -> Prior:
    """The prior of an image of (H, W) px as one of the fitted image; padding repeats its border."""
    prior.check(1, config.outputs, _padded_cells(size, config))
    rows, columns = _cells(size, config.map_stride)
    maps = torch.cat([prior.logits.float(), prior.active.float()], dim=1)[..., :rows, :columns]
    cells, padded = _cells(fitted, config.map_stride), _padded_cells(fitted, config)
    padding = (0, padded[1] - cells[1], 0, padded[0] - cells[0])
    resized = F.pad(upsample(maps, cells), padding, mode="replicate")
    return Prior(resized[:, :-1], resized[:, -1:] >= 0.5)


def fit(engine: Engine, side: int | None) -> Engine:
    """The engine, or a `FittedEngine` around it where the model's card names a side."""
    return engine if side is None else FittedEngine(engine, side)
