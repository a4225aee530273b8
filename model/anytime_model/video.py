"""Live video: what a stream of frames remembers, so that unchanged pixels are not computed again.

    memory = VideoMemory(engine, ReuseSettings())
    for image in camera:
        run = memory.begin(image)
        result = run.advance(...)  # as deep as there is time for
        reuse = memory.finish(result)

A cell of the map is *settled in time* and keeps its last map if nothing near it has changed since
it was last computed (not since the frame before, so that slow drift cannot slip through), if it was
confident or the nearest change is farther still, and if it is young enough. Blocks of cells take
turns in being computed again. All other cells run as in any image: `Network.begin` with a prior.

A network knows nothing of the features at settled cells, so a frame with time masks differs a
little from the frame computed alone. By how much is measured: `wants_check` says when a frame
should be computed alone as well, in idle time; by what is found, less or more is reused.

Where masks save nothing (families whose features are computed everywhere) only a frame without any
change is answered from memory.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from anytime_model.engines.base import check_image
from anytime_model.engines.ladder import LadderEngine, LadderRun, RungResult
from anytime_model.errors import ConfigError, FinishedError
from anytime_model.networks.base import Prior, Size, padded_size, resized_size
from anytime_model.ops import upsample
from anytime_model.results import Keypoints


@dataclass(frozen=True, slots=True)
class ReuseSettings:
    """How far a frame may be answered by what was computed for earlier ones.

    Attributes:
        max_age: frames after which a cell is computed again at the latest, 1 or more.
        max_difference: share, 0 to 1, of the answer that may differ from the frame computed alone:
            cells of another class, or joints elsewhere by more than two cells.
        motion: follow a camera that moves: memory is shifted by whole cells first.

    Raises:
        ConfigError: a value out of range.
    """

    max_age: int = 30
    max_difference: float = 0.02
    motion: bool = False

    def __post_init__(self) -> None:
        if self.max_age < 1:
            raise ConfigError(f"max_age is {self.max_age}; expected 1 or more frames.")
        if not 0 <= self.max_difference <= 1:
            raise ConfigError(f"max_difference is {self.max_difference}; expected a share, 0 to 1.")


@dataclass(frozen=True, slots=True)
class FrameReuse:
    """What one frame took from earlier ones.

    Attributes:
        share: of the cells that kept their map, 0 to 1.
        oldest: frames since the oldest of them was computed; 0 where there are none.
        difference: mean share that differed from frames computed alone, over the last checks; None
            before the first.
        checked: how many checks that is.
    """

    share: float
    oldest: int
    difference: float | None
    checked: int


class _Strictness(NamedTuple):
    """How much has to be computed again.

    Attributes:
        floor: multiplies the difference that counts as a change.
        near: cells around a change that are computed again.
        far: cells around a change in which unconfident ones are.
    """

    floor: float
    near: int
    far: int


_STRICTNESS: Final = (
    _Strictness(1.5, 1, 3),
    _Strictness(1.0, 2, 5),
    _Strictness(0.7, 3, 8),
    _Strictness(0.5, 5, 12),
    _Strictness(0.4, 8, 20),
)
"""From the least to the most; after the last, frames are computed alone."""

_FIRST_STRICTNESS: Final = 1
_LEAST_FLOOR: Final = 3.0
_MOST_FLOOR: Final = 10.0
"""Bounds on the difference of a cell's mean colour, of 255, that counts as a change."""
_NOISES: Final = 4.0
"""Times the difference of quiet cells between two frames that counts as a change."""
_QUIET: Final = 0.2
"""Share of the cells that are taken for quiet: those that differ least."""
_CONFIDENT: Final = 0.9
"""Of a confident cell, at least; of heat-maps, at most one minus this."""
_TURN: Final = 8
"""Side, in cells, of the blocks that take turns in being computed again."""
_SETTLED_AT_LEAST: Final = 0.3
"""Share of settled cells below which a frame is computed alone: masks would save nothing."""
_CHECK_EVERY: Final = 16
"""Frames from one check to the next."""
_CHECKS: Final = 8
"""Checks that the measured difference is the mean of."""
_CALM_CHECKS: Final = 4
"""Checks in a row, far within the bound, after which more is reused."""


@dataclass(slots=True)
class _Frame:
    """A frame under way, or the last one.

    Attributes:
        image: as it came.
        source_size: see `LadderEngine.begin`.
        monotone: the same.
        colours: (h, w, 3) mean colour of each cell.
        active: (h, w) cells that are computed.
        result: its last map; None before it has ended, or without one.
    """

    image: NDArray[np.uint8]
    source_size: Size
    monotone: bool
    colours: NDArray[np.float32]
    active: NDArray[np.bool_]
    result: RungResult | None = None


@dataclass(slots=True)
class _Cells:
    """What is remembered of each cell of the map, (h, w).

    Attributes:
        logits: (K, h, w) float32, their last map.
        confident: whether it was sure.
        colours: (h, w, 3) mean colour in the frame in which they were computed.
        age: frames since then.
        rung: that made their map.
    """

    logits: NDArray[np.float32]
    confident: NDArray[np.bool_]
    colours: NDArray[np.float32]
    age: NDArray[np.int32]
    rung: NDArray[np.int32]

    @property
    def bytes(self) -> int:
        """Memory that they take."""
        arrays = (self.logits, self.confident, self.colours, self.age, self.rung)
        return sum(array.nbytes for array in arrays)


class VideoMemory:
    """What one stream of frames remembers. Frames of another size than the last begin afresh.

    Args:
        engine: computes the frames.
        settings: how far they may be answered from memory.
    """

    def __init__(self, engine: LadderEngine, settings: ReuseSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._cells: _Cells | None = None
        self._last: _Frame | None = None
        self._last_colours: NDArray[np.float32] | None = None
        self._frames = 0
        self._strictness = _FIRST_STRICTNESS
        self._differences: deque[float] = deque(maxlen=_CHECKS)
        self._since_check = 0
        self._calm = 0

    @property
    def bytes(self) -> int:
        """Memory held: cells, and the last frame with its map. It grows with the size alone."""
        held = 0 if self._cells is None else self._cells.bytes
        if self._last_colours is not None:
            held += self._last_colours.nbytes
        if self._last is not None:
            held += self._last.image.nbytes + self._last.colours.nbytes + self._last.active.nbytes
            if self._last.result is not None:
                held += self._last.result.logits.nbytes
        return held

    @property
    def wants_check(self) -> bool:
        """Whether the last frame should be computed alone, too, when there is time."""
        frame = self._last
        return (
            frame is not None
            and frame.result is not None
            and not frame.active.all()
            and self._since_check >= _CHECK_EVERY
        )

    def begin(
        self, image: NDArray[np.uint8], *, size: Size | None = None, monotone: bool = False
    ) -> LadderRun:
        """Accept the next frame.

        Args:
            image: see `LadderEngine.begin`.
            size: the same.
            monotone: the same.

        Raises:
            InputError: an image of another shape or type.
        """
        check_image(image)
        size = size or (image.shape[0], image.shape[1])
        resized = resized_size(size, self._engine.sides[-1])
        colours = _colours(image, resized, self._engine.card.config.map_stride, self._grid(resized))
        cells = self._cells
        if cells is not None and cells.colours.shape != colours.shape:
            self._cells = cells = self._last_colours = None
        if cells is not None and self._settings.motion and self._last_colours is not None:
            _shift(cells, *_motion(self._last_colours, colours))
        active = np.ones(colours.shape[:2], np.bool_)
        if cells is not None and self._strictness < len(_STRICTNESS):
            active = self._active(cells, colours)
        self._last_colours = colours
        self._last = _Frame(image, size, monotone, colours, active)
        if cells is None or active.all():
            return self._engine.begin(image, size=size, monotone=monotone)
        prior = Prior.from_arrays(cells.logits, active)
        return self._engine.begin(image, prior, size=size, monotone=monotone, prior_size=resized)

    def finish(self, result: RungResult | None) -> FrameReuse:
        """Take in how far the frame has come; of one without a map nothing is remembered.

        Args:
            result: its last map.

        Raises:
            FinishedError: no frame has begun.
        """
        frame = self._begun()
        self._frames += 1
        self._since_check += 1
        cells = self._cells
        if cells is not None:
            cells.age += 1
        if result is None:
            self._last = None
            return self._reuse(0.0, 0)
        frame.result = result
        logits, confidence = self._on_grid(result, frame)
        if cells is None:
            shape = frame.active.shape
            self._cells = cells = _Cells(
                logits.copy(),
                np.zeros(shape, np.bool_),
                frame.colours.copy(),
                np.zeros(shape, np.int32),
                np.zeros(shape, np.int32),
            )
        settled = ~frame.active
        oldest = int(cells.age[settled].max(initial=0))
        active = frame.active
        cells.logits[:, active] = logits[:, active]
        sure = confidence >= _CONFIDENT
        if not self._engine.card.task.probabilistic:
            sure = confidence <= 1 - _CONFIDENT
        cells.confident[active] = sure[active]
        cells.colours[active] = frame.colours[active]
        cells.age[active] = 0
        cells.rung[active] = result.exit
        return self._reuse(float(settled.mean()), oldest)

    def begin_check(self) -> LadderRun:
        """The last frame once more, alone; make the rungs that it made, then `finish_check`.

        Raises:
            FinishedError: no frame has been answered.
        """
        frame = self._begun()
        return self._engine.begin(frame.image, size=frame.source_size, monotone=frame.monotone)

    def finish_check(self, alone: RungResult) -> None:
        """Compare the last frame's answer with the frame computed alone, and learn from it.

        Args:
            alone: of the run of `begin_check`, the rung at which the answer ended.

        Raises:
            FinishedError: no frame has been answered.
        """
        frame = self._begun()
        if frame.result is None:
            raise FinishedError("the frame has no answer yet; call finish first.")
        self._since_check = 0
        found = self._difference(frame.result, alone)
        self._differences.append(found)
        if found > self._settings.max_difference:
            self._strictness = min(self._strictness + 1, len(_STRICTNESS))
            self._calm = 0
            self._cells = None  # the next frame is computed alone
        elif found <= self._settings.max_difference / 2:
            self._calm += 1
            if self._calm >= _CALM_CHECKS and self._strictness:
                self._strictness -= 1
                self._calm = 0
        else:
            self._calm = 0

    def _begun(self) -> _Frame:
        if self._last is None:
            raise FinishedError("no frame is under way; call begin first.")
        return self._last

    def _reuse(self, share: float, oldest: int) -> FrameReuse:
        checks = self._differences
        difference = sum(checks) / len(checks) if checks else None
        return FrameReuse(share, oldest, difference, len(checks))

    def _grid(self, size: Size) -> Size:
        """(h, w) of the map of a padded image of (H, W) px."""
        config = self._engine.card.config
        height, width = padded_size(size, config.stride)
        return height // config.map_stride, width // config.map_stride

    def _active(self, cells: _Cells, colours: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which cells are to be computed."""
        strict = _STRICTNESS[self._strictness]
        changed = np.abs(colours - cells.colours).max(axis=2) > strict.floor * self._floor(colours)
        near = _widened(changed, strict.near)
        far = _widened(changed, strict.far) & ~cells.confident
        active: NDArray[np.bool_] = near | far | self._turn(cells)
        active |= cells.age + 1 > self._settings.max_age
        dense = self._engine.card.config.may_skip_exits  # its features are computed everywhere
        if active.any() and (dense or 1 - active.mean() < _SETTLED_AT_LEAST):
            active[:] = True
        return active

    def _floor(self, colours: NDArray[np.float32]) -> float:
        """The difference that counts as a change: some times that of quiet cells."""
        if self._last_colours is None:
            return _LEAST_FLOOR
        differences = np.abs(colours - self._last_colours).max(axis=2)
        quiet = float(np.quantile(differences, _QUIET))
        return float(np.clip(_NOISES * quiet, _LEAST_FLOOR, _MOST_FLOOR))

    def _turn(self, cells: _Cells) -> NDArray[np.bool_]:
        """The blocks whose turn it is; those that a lower rung made have theirs more often."""
        rows, columns = np.indices(cells.age.shape) // _TURN
        number = rows * (cells.age.shape[1] // _TURN + 1) + columns
        period = self._settings.max_age
        often = max(1, period // 8)
        coarse = cells.rung < cells.rung.max()
        turn: NDArray[np.bool_] = (number + self._frames) % np.where(coarse, often, period) == 0
        return turn

    def _on_grid(
        self, result: RungResult, frame: _Frame
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A map and its confidence on the cells of the largest size."""
        grid = (frame.active.shape[0], frame.active.shape[1])
        if result.logits.shape[1:] == grid:
            return result.logits, result.confidence
        stacked = np.concatenate([result.logits, result.confidence[None]])
        rows, columns = result.inside
        inside = resized_size(frame.source_size, self._engine.sides[-1])
        stride = result.map_stride
        cells = (-(-inside[0] // stride), -(-inside[1] // stride))
        resized = upsample(torch.from_numpy(stacked[:, rows, columns].copy())[None], cells)
        padding = (0, grid[1] - cells[1], 0, grid[0] - cells[0])
        full = F.pad(resized, padding, mode="replicate")[0].numpy()
        return full[:-1], full[-1]

    def _difference(self, answer: RungResult, alone: RungResult) -> float:
        """Share of cells of another class, or of joints that are elsewhere."""
        task = self._engine.card.task
        ours, theirs = task.labels_on_map(answer), task.labels_on_map(alone)
        if ours is not None and theirs is not None:
            return float((ours != theirs).mean())
        found = [self._engine.decode(result) for result in (answer, alone)]
        points = [one.points[:, :2] for one in found if isinstance(one, Keypoints)]
        moved = np.linalg.norm(points[0] - points[1], axis=1)
        return float((moved > 2 * answer.map_stride).mean())


def _colours(image: NDArray[np.uint8], size: Size, stride: int, grid: Size) -> NDArray[np.float32]:
    """Mean colour of each cell, (h, w, 3), of an image as it is brought to (H, W) px."""
    cells = (-(-size[0] // stride), -(-size[1] // stride))
    reduced = PIL.Image.fromarray(image).resize(
        cells[::-1], PIL.Image.Resampling.BOX, reducing_gap=1.0
    )
    means = np.asarray(reduced, np.float32)
    padding = ((0, grid[0] - cells[0]), (0, grid[1] - cells[1]), (0, 0))
    return np.pad(means, padding, mode="edge")


def _widened(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """A mask, and all cells within so many rows and columns of it."""
    wide: Tensor = torch.from_numpy(mask)[None, None].float()
    side = 2 * by + 1
    wide = F.max_pool2d(F.max_pool2d(wide, (side, 1), 1, (by, 0)), (1, side), 1, (0, by))
    found: NDArray[np.bool_] = wide[0, 0].numpy() > 0
    return found


def _motion(before: NDArray[np.float32], now: NDArray[np.float32]) -> tuple[int, int]:
    """Rows and columns, in cells, by which the whole picture has moved: phase correlation.

    Kuglin and Hines, "The phase correlation image alignment method", 1975.
    """
    grey = [colours.mean(axis=2) for colours in (before, now)]
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in grey[0].shape))
    first, second = (np.fft.rfft2((image - image.mean()) * window) for image in grey)
    cross = second * first.conj()
    peaks = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-9), grey[0].shape)
    rows, columns = divmod(int(peaks.argmax()), peaks.shape[1])
    if rows > peaks.shape[0] // 2:
        rows -= peaks.shape[0]
    if columns > peaks.shape[1] // 2:
        columns -= peaks.shape[1]
    return rows, columns


def _shift(cells: _Cells, rows: int, columns: int) -> None:
    """Move what is remembered; cells that come into view have no known colour."""
    if (rows, columns) == (0, 0):
        return
    cells.logits = np.roll(cells.logits, (rows, columns), (1, 2))
    cells.confident = np.roll(cells.confident, (rows, columns), (0, 1))
    cells.colours = np.roll(cells.colours, (rows, columns), (0, 1))
    cells.age = np.roll(cells.age, (rows, columns), (0, 1))
    cells.rung = np.roll(cells.rung, (rows, columns), (0, 1))
    height, width = cells.age.shape
    new = np.zeros((height, width), np.bool_)
    new[: max(rows, 0)] = new[height + min(rows, 0) :] = True
    new[:, : max(columns, 0)] = new[:, width + min(columns, 0) :] = True
    cells.colours[new] = np.inf
