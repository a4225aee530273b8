"""The ladder: one model at several image sizes, the maps of the smaller ones helping the larger.

A *rung* is an exit at one size. Rungs are counted from 1, the exits of the smallest size first, and
a run climbs them in that order: through the exits of one size, and from any exit of it to the first
one of a larger size. Where exits may be left out (`FamilyConfig.may_skip_exits`), any later rung
may follow. What a size has found helps the next in two ways:

* its map is joined to each map of the larger size (`Task.join`);
* positions that it has settled, but for a border of one cell, start settled there.

A size is the length in px to which the longer side of every image is brought, as what a network has
learnt are objects of so many px. A ladder without sizes computes images at the size at which they
come.

A coordinate x of the image, pixel centres at integers, lies at (x + 0.5) s - 0.5 in the resized
one, where s is the ratio of their sizes; the cells of both maps have the same size in px.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from anytime_model.checkpoint.card import Card, may_follow
from anytime_model.confidence import Criterion
from anytime_model.engines.base import Dtype, Engine, HoldingEngine, Pause, Run, check_image
from anytime_model.engines.features import VideoFeatures
from anytime_model.errors import ConfigError, FinishedError
from anytime_model.networks.base import FamilyConfig, Prior, Size, padded_size, resized_size
from anytime_model.ops import upsample
from anytime_model.results import Decoded, ExitResult, Keypoints, SegmentationMap

_MOST_DECODED: Final = 2**21
"""Px of the largest map that is decoded; a larger one is enlarged from a whole fraction of it."""


_Cell = TypeVar("_Cell", bound=np.generic)


@dataclass(frozen=True, slots=True, kw_only=True)
class RungResult(ExitResult):
    """A rung's map, in the frame of the resized image.

    Attributes:
        exit: number of the rung.
        image_size: (H, W) of the resized image, px.
        source_size: (H, W) of the image as it came, px.
    """

    source_size: Size

    def at_source(self, cells: NDArray[_Cell], step: int = 1) -> NDArray[_Cell]:
        """A map in the frame of the image as it came: at each pixel the cell that it is in.

        Args:
            cells: (h, w), one value for each cell inside the resized image.
            step: each how many px of the image, along each side, are wanted.
        """
        rows, columns = (
            ((np.arange(0, length, step) + 0.5) * (resized / length) / self.map_stride).astype(int)
            for length, resized in zip(self.source_size, self.image_size, strict=True)
        )
        found: NDArray[_Cell] = cells[:, columns][rows]  # whole rows last: they are copied at once
        return found


class LadderEngine:
    """Runs a model along its card's ladder.

    Args:
        engine: computes the resized images.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.sides: tuple[int | None, ...] = engine.card.sides or (None,)

    @property
    def card(self) -> Card:
        """Of the engine that computes."""
        return self._engine.card

    @property
    def name(self) -> str:
        """Of the engine that computes."""
        return self._engine.name

    @property
    def dtype(self) -> Dtype:
        """Of the engine that computes."""
        return self._engine.dtype

    @property
    def sparse(self) -> bool:
        """Of the engine that computes."""
        return self._engine.sparse

    def prepare(self, size: Size, sides: int | None = None) -> None:
        """Get ready for images of (H, W) px; see `Engine.prepare`.

        Args:
            size: of the images.
            sides: at how many of the ladder's, the smallest first; None for all. A run gets ready
                for a further one when it comes to it.
        """
        for side in self.sides[:sides]:
            self._engine.prepare(resized_size(size, side))

    def new_features(self) -> VideoFeatures | None:
        """What a video holds from frame to frame; None if the engine that computes has no way."""
        engine = self._engine
        return VideoFeatures(engine) if isinstance(engine, HoldingEngine) else None

    def begin(
        self,
        image: NDArray[np.uint8],
        prior: Prior | None = None,
        *,
        size: Size | None = None,
        monotone: bool = False,
        prior_size: Size | None = None,
        features: VideoFeatures | None = None,
    ) -> LadderRun:
        """Accept an image of any size.

        Args:
            image: see `Engine.begin`.
            prior: for the padded size of the image as it came, or of `prior_size`. Every size
                starts from it, resized; where it is settled it stays, whatever maps are joined.
                Where it is settled everywhere, nothing is computed.
            size: (H, W) px that the image had before it was reduced; None if it was not. Results
                are brought to this size.
            prior_size: (H, W) px of the resized image that the prior's map is of; None for `size`.
            monotone: each map of a size is the normalised product of the distributions of all its
                exits made so far (of a pose the mean of the heat-maps), and criteria judge that, so
                that a later map rarely makes a right pixel wrong (as in Jazbec et al., "Towards
                Anytime Classification in Early-Exit Architectures by Enforcing Conditional
                Monotonicity", 2023, arXiv 2306.02652). A pixel that is settled keeps its map.
            features: of the video that the image is the next frame of. They are made anew where the
                prior is active, everywhere without one; a size that has none yet is computed
                everywhere.

        Raises:
            InputError: an image or a prior of another shape or type.
        """
        check_image(image)
        size = size or (image.shape[0], image.shape[1])
        if prior is not None:
            config = self.card.config
            prior.check(1, config.outputs, padded_cells(prior_size or size, config))
        start = None if prior is None else _Start(prior, prior_size or size)
        if features is not None:
            features.frame(None if start is None else start.active_at(self.card.config))
        return LadderRun(
            self._engine, self.sides, image, size, start, monotone=monotone, features=features
        )

    def resized(self, image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
        """See `Engine.resized`."""
        return self._engine.resized(image, size)

    def decode(self, result: ExitResult) -> Decoded:
        """The result at the size of the image as it came."""
        if not isinstance(result, RungResult) or result.source_size == result.image_size:
            return self._engine.decode(result)
        size, resized = result.source_size, result.image_size
        found = self._engine.decode(
            _enlarged(result, size) if self.card.task.has_classes else result
        )
        match found:
            case SegmentationMap(labels=labels) if labels.shape != size:
                fraction = max(-(-n // made) for n, made in zip(size, labels.shape, strict=True))
                wide = labels.repeat(fraction, axis=1)[:, : size[1]]
                return SegmentationMap(wide.repeat(fraction, axis=0)[: size[0]])
            case Keypoints(points=points):
                return Keypoints(_moved(points, resized, size))
            case _:
                return found


class _Start(NamedTuple):
    """A prior of the caller's, and the (H, W) px of the image that it is of."""

    prior: Prior
    size: Size

    def active_at(self, config: FamilyConfig) -> Callable[[Size], NDArray[np.bool_]]:
        """Its mask (h, w), by the (H, W) px of the resized image."""
        mask = Prior(self.prior.logits[:, :0], self.prior.active)

        def of(resized: Size) -> NDArray[np.bool_]:
            active = resized_prior(mask, self.size, resized, config).active
            found: NDArray[np.bool_] = active[0, 0].numpy()
            return found

        return of


class LadderRun:
    """One image on its way up a ladder.

    A stage that is stopped loses what its size has computed, and no rung: the exits that were made
    before at that size are computed again when the run goes on with it.
    """

    def __init__(
        self,
        engine: Engine,
        sides: tuple[int | None, ...],
        image: NDArray[np.uint8],
        size: Size,
        start: _Start | None,
        *,
        monotone: bool,
        features: VideoFeatures | None,
    ) -> None:
        self._engine = engine
        self._monotone = monotone
        self._features = features
        self._sides = sides
        self._image = image
        self._size = size
        self._start = start
        self._last: RungResult | None = None
        self._at: _SizeRun | None = None

    @property
    def exit(self) -> int:
        """Number of the last rung made, from 0."""
        return 0 if self._last is None else self._last.exit

    def advance(
        self,
        criterion: Criterion | None = None,
        pause: Pause | None = None,
        *,
        rung: int | None = None,
    ) -> RungResult:
        """Make a rung.

        Args:
            criterion: see `Run.advance`.
            pause: see `Run.advance`.
            rung: the next one, or another that `may_follow`; None is the next one.

        Raises:
            FinishedError: the last rung has been made.
            ConfigError: the ladder does not lead from here to this rung.
            InputError: the size needs more memory than there is (`NoRoomError`: now).
        """
        config = self._engine.card.config
        exits = config.num_exits
        wanted = self.exit + 1 if rung is None else rung
        if self.exit == exits * len(self._sides):
            raise FinishedError(
                f"all {self.exit} rungs have been made; begin again with another image."
            )
        if wanted > exits * len(self._sides) or not may_follow(wanted, self.exit, config):
            expected = "a later one" if config.may_skip_exits else "the first of a larger size"
            raise ConfigError(
                f"rung {wanted} does not follow rung {self.exit}; expected the next one, or "
                f"{expected}, of {exits * len(self._sides)}."
            )
        (index, before), at = divmod(wanted - 1, exits), self._at
        if at is None or at.index != index:
            if at is not None:
                at.release()
            image = self._resized(self._sides[index])
            at = _SizeRun(self._engine, index, image, self._last, monotone=self._monotone)
            at.features = self._features
            if self._start is not None:
                at.start_from(*self._start)
        result = at.advance(before + 1, criterion, pause)
        self._at = at
        self._last = RungResult(
            exit=wanted,
            image_size=result.image_size,
            logits=result.logits,
            confidence=result.confidence,
            active=result.active,
            macs=result.macs,
            map_stride=result.map_stride,
            source_size=self._size,
        )
        return self._last

    def release(self) -> None:
        """Give back the memory that the engine holds; no rung is lost, see the class."""
        if self._at is not None:
            self._at.release()

    def _resized(self, side: int | None) -> NDArray[np.uint8]:
        return self._engine.resized(self._image, resized_size(self._size, side))


class _Step(NamedTuple):
    """An exit of the network, and what its map settles."""

    exit: int
    criterion: Criterion | None


class _SizeRun:
    """The run at one size: the engine's own, and what the smaller sizes give to it."""

    def __init__(
        self,
        engine: Engine,
        index: int,
        image: NDArray[np.uint8],
        smaller: RungResult | None,
        *,
        monotone: bool,
    ) -> None:
        self.index = index
        self._engine = engine
        self._monotone = monotone
        self._mean: Tensor | None = None
        self._last: ExitResult | None = None
        self._image = image
        self._size = (image.shape[0], image.shape[1])
        self._steps: list[_Step] = []
        self._run: Run | None = None
        self._prior: Prior | None = None
        self._own: Prior | None = None
        self._smaller: Tensor | None = None
        self.features: VideoFeatures | None = None
        self._whole = False
        self._seeds = None if smaller is None else _seeds(smaller, self._size, engine.card)
        if self._seeds is not None:
            self._prior, self._smaller = self._seeds, self._seeds.logits

    def start_from(self, prior: Prior, size: Size) -> None:
        """Take in the caller's own prior for an image of (H, W) px; seeds give way to it."""
        own = self._own = resized_prior(prior, size, self._size, self._engine.card.config)
        if self._prior is not None:
            logits = torch.where(own.active, self._prior.logits, own.logits)
            own = Prior(logits, own.active & self._prior.active)
        self._prior = own

    def release(self) -> None:
        """Give back what the engine holds; `advance` computes it again."""
        self._run = None

    def advance(self, exit_: int, criterion: Criterion | None, pause: Pause | None) -> ExitResult:
        """A later exit at this size, joined with the map of the smaller one."""
        if self._own is not None and not self._own.active.any():
            return self._settled(exit_, self._own)
        step = _Step(exit_, criterion)
        try:
            if self._run is None:
                run = self._begin()
                self._mean = self._last = None
                for number, before in enumerate(self._steps, start=1):
                    self._next(run, before, number, pause)
                self._run = run
            result = self._next(self._run, step, len(self._steps) + 1, pause)
        except BaseException:
            self._run = None
            raise
        self._steps.append(step)
        if self._whole and self.features is not None:
            self.features.fill(self.index)
        own = self._own
        if self._whole and own is not None:
            result = replace(result, active=result.active & own.active[0, 0].numpy())
        elif self._smaller is None and not self._monotone:
            return result
        task = self._engine.card.task
        joined = self._joined(torch.from_numpy(result.logits)[None], result.exit)
        if own is not None:
            joined = torch.where(own.active, joined, own.logits)
        return replace(
            result,
            logits=joined[0].numpy(),
            confidence=task.confidence(joined)[0, 0].numpy(),
        )

    def _begin(self) -> Run:
        """The engine's run, with the features of the frames before if they are held."""
        features = self.features
        taken = None if features is None else features.take(self.index, self._size)
        if features is None or taken is None:
            return self._engine.begin(self._image, self._prior)
        (cache, fresh), own = taken, self._own
        self._whole = fresh is None or own is None
        if fresh is None or own is None:
            return features.engine.begin_held(self._image, self._seeds, cache, None)
        fresh = fresh | own.active[0, 0].numpy()
        return features.engine.begin_held(self._image, self._prior, cache, fresh)

    def _settled(self, exit_: int, own: Prior) -> ExitResult:
        """What any exit gives where the caller's prior leaves nothing to compute."""
        logits = own.logits.float()
        return ExitResult(
            exit=exit_,
            image_size=self._size,
            logits=logits[0].numpy(),
            confidence=self._engine.card.task.confidence(logits)[0, 0].numpy(),
            active=own.active[0, 0].numpy(),
            macs=0,
            map_stride=self._engine.card.config.map_stride,
        )

    def _next(self, run: Run, step: _Step, number: int, pause: Pause | None) -> ExitResult:
        """The engine's next exit; of a monotone run, its map is the mean with those before it.

        Args:
            run: the engine's.
            step: which exit, and what it settles.
            number: how many exits have been made with it at this size.
            pause: see `Run.advance`.
        """
        exit_, criterion = step
        if not self._monotone:
            return run.advance(criterion, pause, exit_=exit_)
        of_mean = (
            None
            if criterion is None
            else lambda map_: criterion(self._joined(self._averaged(map_, number), exit_))
        )
        result = run.advance(of_mean, pause, exit_=exit_)
        self._mean = self._averaged(torch.from_numpy(result.logits)[None], number)
        self._last = replace(result, logits=self._mean[0].numpy())
        return self._last

    def _averaged(self, new: Tensor, number: int) -> Tensor:
        """The mean of so many normalised maps; a position that was settled keeps it."""
        normalised = self._engine.card.task.normalised(new)
        if self._mean is None or self._last is None:
            return normalised
        mean = torch.lerp(self._mean, normalised, 1 / number)
        return torch.where(torch.from_numpy(self._last.active)[None, None], mean, self._mean)

    def _joined(self, map_: Tensor, exit_: int) -> Tensor:
        """A map of this size joined with that of the smaller one."""
        if self._smaller is None:
            return map_
        card = self._engine.card
        return card.task.join(self._smaller, map_, card.joining[exit_ - 1])


def _seeds(smaller: RungResult, size: Size, card: Card) -> Prior:
    """A smaller size's map as the prior of a resized image of (H, W) px.

    A position starts settled where the smaller map is settled in all cells around it.
    """
    rows, columns = smaller.inside
    logits = card.task.normalised(torch.from_numpy(smaller.logits[:, rows, columns])[None])
    active = torch.from_numpy(smaller.active[rows, columns])[None, None].float()
    near_active = F.max_pool2d(active, 3, 1, 1)
    return _on_padded_map(logits, near_active, size, card.config, at_least=1e-6)


def resized_prior(prior: Prior, size: Size, resized: Size, config: FamilyConfig) -> Prior:
    """The prior of an image of (H, W) px as one of the resized image; itself at the same size."""
    if size == resized:
        return prior
    rows, columns = _cells(size, config.map_stride)
    return _on_padded_map(
        prior.logits.float()[..., :rows, :columns],
        prior.active.float()[..., :rows, :columns],
        resized,
        config,
        at_least=0.5,
    )


def _on_padded_map(
    logits: Tensor, active: Tensor, size: Size, config: FamilyConfig, *, at_least: float
) -> Prior:
    """A map and a mask as a prior for an image of (H, W) px; padding repeats the border.

    Args:
        logits: (1, K, h, w), any h and w that cover the image.
        active: (1, 1, h, w), 0 to 1.
        size: of the image.
        config: of the network.
        at_least: resized values of `active` that count as active.
    """
    cells, padded = _cells(size, config.map_stride), padded_cells(size, config)
    padding = (0, padded[1] - cells[1], 0, padded[0] - cells[0])
    maps = F.pad(upsample(torch.cat([logits, active], dim=1), cells), padding, mode="replicate")
    return Prior(maps[:, :-1], maps[:, -1:] >= at_least)


def _enlarged(result: RungResult, size: Size) -> ExitResult:
    """A rung's map in the frame of an image of (H, W) px, or of a whole fraction of a large one."""
    fraction = 1
    while -(-size[0] // fraction) * -(-size[1] // fraction) > _MOST_DECODED:
        fraction += 1
    height, width = (-(-n // fraction) for n in size)
    rows, columns = result.inside
    cells = _cells((height, width), result.map_stride)
    logits = upsample(torch.from_numpy(result.logits[:, rows, columns])[None], cells)
    return ExitResult(
        exit=result.exit,
        image_size=(height, width),
        logits=logits[0].numpy(),
        confidence=result.confidence,
        active=result.active,
        macs=result.macs,
        map_stride=result.map_stride,
    )


def _moved(points: NDArray[np.float32], resized: Size, size: Size) -> NDArray[np.float32]:
    """Joints of a resized image (x, y, value) at their places in the image of (H, W) px."""
    to, from_ = np.array(size[::-1], np.float32), np.array(resized[::-1], np.float32)
    moved = points.copy()
    moved[:, :2] = ((points[:, :2] + 0.5) * (to / from_) - 0.5).clip(0, to - 1)
    return moved


def _cells(size: Size, map_stride: int) -> Size:
    return -(-size[0] // map_stride), -(-size[1] // map_stride)


def padded_cells(size: Size, config: FamilyConfig) -> Size:
    """(h, w) of the map of an image of (H, W) px, padding included."""
    height, width = padded_size(size, config.stride)
    return height // config.map_stride, width // config.map_stride
