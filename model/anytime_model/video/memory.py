"""What a stream remembers of its frames: each cell's last answer, and the pixels that it is of."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from anytime_model.engines.base import check_image
from anytime_model.engines.features import VideoFeatures
from anytime_model.engines.ladder import (
    LadderEngine,
    LadderRun,
    RungResult,
    padded_cells,
    resized_prior,
)
from anytime_model.errors import ConfigError
from anytime_model.networks.base import Prior, Size, padded_size, resized_size
from anytime_model.results import Decoded, Keypoints, SegmentationMap
from anytime_model.video.blocks import change, widened, with_samples
from anytime_model.video.bound import Bound
from anytime_model.video.motion import shift_between, shifted

_TURNS: Final = 8
"""Parts of the image that are refreshed one after the other."""

_CHECK_EVERY: Final = 8
"""Frames at least between two checks."""

_LEAST_REUSED: Final = 0.1
"""Of the cells; where fewer could be kept, masks would save less than they cost in quality."""

_LEAST_HELD: Final = 0.4
"""The same where features are held: a frame that is nearly all new takes longer with them."""

_LOOK_EVERY: Final = 8
"""Frames between two looks at what has changed, once it has been everything for some looks."""

_JOINT_MOVED: Final = 1 / 32
"""Of the image's longer side: a joint that is further off counts as different."""

_LEAST_SIDE: Final = 16
"""Px of the smallest image whose motion is estimated."""

_NEVER: Final = -(2**30)
"""When a cell was computed that was not."""


@dataclass(frozen=True, slots=True)
class ReuseSettings:
    """What a stream may reuse.

    Attributes:
        max_age: frames, from 1, after which a cell is computed again at the latest; 1 reuses none.
        max_difference: share of pixels, 0 to 1, that may differ from the frame computed alone; of
            a pose the share of joints.
        motion: whether to look for a shift of the whole image, as of a camera that turns.

    Raises:
        ConfigError: a number is out of range.
    """

    max_age: int = 30
    max_difference: float = 0.05
    motion: bool = False

    def __post_init__(self) -> None:
        if self.max_age < 1:
            raise ConfigError(f"max_age is {self.max_age}; expected a number of frames from 1.")
        if not 0 <= self.max_difference <= 1:
            raise ConfigError(
                f"max_difference is {self.max_difference}; expected a share of pixels, 0 to 1."
            )


@dataclass(frozen=True, slots=True)
class FrameReuse:
    """What a frame's answer has from earlier frames.

    Attributes:
        share: of the image's cells whose answer was kept, 0 to 1.
        oldest: frames since the oldest of them was computed; 0 if there is none.
        difference: mean share, 0 to 1, of pixels that differed from the frames computed alone, over
            the last checks; of a pose, of joints that were further off than 1/32 of the image's
            longer side. None before the first check.
        checked: checks that it is the mean of.
    """

    share: float
    oldest: int
    difference: float | None
    checked: int


@dataclass(frozen=True, slots=True)
class _Kept:
    """Every cell's last answer, all (h, w) of the padded map at the largest size.

    Attributes:
        pixels: (H, W, 3) padded image: each cell's as they were when it was computed.
        logits: (K, h, w) float32.
        rung: that made it; the last one where it was settled for good.
        computed_at: number of the frame.
    """

    pixels: NDArray[np.uint8]
    logits: NDArray[np.float32]
    rung: NDArray[np.int16]
    computed_at: NDArray[np.int32]

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """All that is held."""
        return (self.pixels, self.logits, self.rung, self.computed_at)


@dataclass(frozen=True, slots=True)
class _Frame:
    """A frame under way.

    Attributes:
        image: as it came.
        size: (H, W) px that it had before it was reduced.
        monotone: see `LadderEngine.begin`.
        pixels: (H, W, 3) at the largest size, padded.
        active: (h, w) where it is computed.
    """

    image: NDArray[np.uint8]
    size: Size
    monotone: bool
    pixels: NDArray[np.uint8]
    active: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Answer:
    """A frame and its last map, kept to be checked."""

    frame: _Frame
    result: RungResult


class VideoMemory:
    """The frames of one stream: what has not changed keeps its answer.

    A cell of the map is computed again if its block of pixels has changed, beyond noise, since it
    was last computed (not since the frame before, so that no slow drift slips through); if its
    answer was neither confident nor made by as late a rung as the stream has reached lately; if it
    is as old as it may be; or near such a cell. The image is refreshed part by part, so that the
    work is spread over the frames. After frames that have changed everywhere it looks less often.
    All else keeps its last logits, and where nothing is to be computed the run answers from memory.
    Families without masks save nothing in part, so they keep all of a frame or nothing.

    Where the engine has room it holds the features of the frame before, too, so that less has to be
    computed around what has changed. A frame that moved as a whole, or changed everywhere like the
    one before, is computed without them.

    How strict this is follows from checks (`wants_check`): frames computed alone as well.

    Args:
        engine: of one model.
        settings: what may be reused.
    """

    def __init__(self, engine: LadderEngine, settings: ReuseSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._bound = Bound(settings.max_difference)
        self._clock = 0
        self._size: Size | None = None
        self._kept: _Kept | None = None
        self._offset = (0, 0)
        self._features: VideoFeatures | None = None
        self._moved = False
        self._frame: _Frame | None = None
        self._reached: deque[int] = deque(maxlen=settings.max_age)
        self._answer: _Answer | None = None
        self._checking: _Answer | None = None
        self._next_check = 1
        self._in_vain = 0
        self._look_at = 0

    @property
    def wants_check(self) -> bool:
        """Whether the last frame should be computed alone, in idle time, to be compared."""
        return self._answer is not None

    @property
    def kept_cells(self) -> NDArray[np.bool_]:
        """Where the last frame kept its answers, (h, w) inside the image.

        Raises:
            ConfigError: there has been no frame.
        """
        if self._kept is None or self._size is None:
            raise ConfigError("there has been no frame; expected `finish` before.")
        stride = self._engine.card.config.map_stride
        rows, columns = (-(-n // stride) for n in self._resized(self._size))
        kept: NDArray[np.bool_] = self._kept.computed_at[:rows, :columns] < self._clock
        return kept

    @property
    def bytes(self) -> int:
        """Held between frames; images and maps of a frame under way or to be checked included.

        Features come on top of it, see `feature_bytes`.
        """
        arrays = list(self._kept.arrays) if self._kept else []
        answers = [answer for answer in (self._answer, self._checking) if answer is not None]
        frames = [answer.frame for answer in answers]
        for frame in [*frames, self._frame] if self._frame else frames:
            arrays += [frame.image, frame.pixels, frame.active]
        for answer in answers:
            arrays += [answer.result.logits, answer.result.confidence, answer.result.active]
        return sum({id(array): array.nbytes for array in arrays}.values())

    @property
    def feature_bytes(self) -> int:
        """Of features that the engine holds, within its bound on memory."""
        return 0 if self._features is None else self._features.bytes

    def begin(
        self, image: NDArray[np.uint8], *, size: Size | None = None, monotone: bool = False
    ) -> LadderRun:
        """The stream's next frame; its run computes what has to be computed.

        Args:
            image: see `LadderEngine.begin`; not changed before `finish`.
            size: see `LadderEngine.begin`; another than before forgets the frames before.
            monotone: see `LadderEngine.begin`.

        Raises:
            InputError: an image of another shape or type.
        """
        check_image(image)
        size = size or (image.shape[0], image.shape[1])
        if size != self._size:
            self._size, self._kept, self._offset = size, None, (0, 0)
            self._in_vain = self._look_at = 0
            holds = self._settings.max_age > 1 and not self._engine.card.config.may_skip_exits
            self._features = self._engine.new_features() if holds else None
        self._clock += 1
        self._moved = False
        self._bound.frame()
        config = self._engine.card.config
        resized = self._resized(size)
        height, width = padded_size(resized, config.stride)
        pixels = self._engine.resized(image, resized)
        if (height, width) != resized:
            padding = ((0, height - resized[0]), (0, width - resized[1]), (0, 0))
            pixels = np.pad(pixels, padding, mode="edge")
        elif pixels is image:
            pixels = image.copy()  # it is kept longer than the caller's stays as it is
        active = np.ones(padded_cells(resized, config), np.bool_)
        prior = None
        if self._kept is not None and self._clock >= self._look_at:
            active = self._active(pixels, self._kept)
            if active.all():  # looking was in vain, and takes time
                self._in_vain += 1
                self._look_at = self._clock + min(2 ** (self._in_vain - 1), _LOOK_EVERY)
            else:
                self._in_vain = 0
                prior = Prior.from_arrays(self._kept.logits, active)
        self._frame = _Frame(image, size, monotone, pixels, active)
        return self._engine.begin(
            image,
            prior,
            size=size,
            monotone=monotone,
            prior_size=resized,
            features=self._features_of(prior),
        )

    def finish(self, result: RungResult | None) -> FrameReuse:
        """Take in the last map of the frame that has begun.

        Args:
            result: of its run; None if none was made, which leaves the memory as it was.

        Raises:
            ConfigError: no frame has begun.
        """
        frame, self._frame = self._frame, None
        if frame is None:
            raise ConfigError("no frame is under way; expected `begin` before `finish`.")
        if result is None:
            return self._reuse(0.0, 0)
        self._answer = None
        resized = self._resized(frame.size)
        kept = self._taken_in(frame, result)
        inside = (
            slice(-(-resized[0] // result.map_stride)),
            slice(-(-resized[1] // result.map_stride)),
        )
        reused = ~frame.active[inside]
        self._kept = kept
        self._reached.append(result.exit)
        if not reused.any():
            return self._reuse(0.0, 0)
        if self._clock >= self._next_check:
            self._answer = _Answer(replace(frame, image=frame.image.copy()), result)
        oldest = self._clock - int(kept.computed_at[inside][reused].min())
        return self._reuse(float(reused.mean()), oldest)

    def begin_check(self) -> LadderRun:
        """The last frame, to be computed alone, along the path that it has taken.

        Raises:
            ConfigError: there is none to be checked, see `wants_check`.
        """
        answer, self._answer = self._answer, None
        if answer is None:
            raise ConfigError("no frame waits to be checked; expected `wants_check` to be true.")
        self._checking = answer
        frame = answer.frame
        return self._engine.begin(frame.image, size=frame.size, monotone=frame.monotone)

    def finish_check(self, result: RungResult) -> None:
        """Compare the answer with the frame computed alone, and reuse less or more.

        Args:
            result: of the run of `begin_check`, of the same rung as the answer.

        Raises:
            ConfigError: no check is under way, or the result is of another rung.
        """
        checking, self._checking = self._checking, None
        if checking is None:
            raise ConfigError("no check is under way; expected `begin_check` first.")
        if result.exit != checking.result.exit:
            raise ConfigError(
                f"the check has made rung {result.exit}; expected {checking.result.exit}, as the "
                "answer. Take the same path."
            )
        # Checks that come at changing distances see all parts that are refreshed in turn. One that
        # was given up counts for nothing, so that the next frame asks for another.
        self._next_check = self._clock + _CHECK_EVERY + self._clock % 5
        decode = self._engine.decode
        self._bound.found(_difference(decode(checking.result), decode(result), checking.frame.size))

    def _resized(self, size: Size) -> Size:
        return resized_size(size, self._engine.sides[-1])

    def _features_of(self, prior: Prior | None) -> VideoFeatures | None:
        """What this frame holds; nothing while frames change everywhere, as that takes time."""
        features = self._features
        if features is None:
            return None
        if features.refused:
            self._features = None
            return None
        if self._moved or (prior is None and self._in_vain):
            features.forget()
            return None
        return features

    def _reuse(self, share: float, oldest: int) -> FrameReuse:
        return FrameReuse(share, oldest, self._bound.difference, self._bound.checked)

    def _active(self, pixels: NDArray[np.uint8], kept: _Kept) -> NDArray[np.bool_]:
        """Where the frame is to be computed, (h, w)."""
        rule = self._bound.rule
        card, stride = self._engine.card, self._engine.card.config.map_stride
        everywhere = np.ones(kept.rung.shape, np.bool_)
        if rule is None:
            return everywhere
        changes = change(pixels, kept.pixels, stride)
        if self._settings.motion:
            kept, changes = self._followed(pixels, kept, changes)
        age = self._clock - kept.computed_at
        most = max(1, int(rule.age * self._settings.max_age))
        unsettled = changes > rule.tolerance
        again = (age >= most) | (kept.rung < max(self._reached))
        if card.config.may_skip_exits:
            return everywhere if (unsettled | again).any() else ~everywhere
        again |= self._turn(unsettled.shape, most) & (2 * age >= most)
        least = _LEAST_REUSED
        if self._features is None or self._moved:
            active = widened(unsettled | again, rule.spread)
        else:  # what is made again has not changed, and what lies beside it is held
            levels = (card.config.stride // stride).bit_length() - 1
            active = with_samples(widened(unsettled, rule.near) | again, levels)
            least = _LEAST_HELD
        return active if active.mean() <= 1 - least else everywhere

    def _followed(
        self, pixels: NDArray[np.uint8], kept: _Kept, changes: NDArray[np.float32]
    ) -> tuple[_Kept, NDArray[np.float32]]:
        """The memory moved with the image, and what has changed then, if it is less."""
        if min(pixels.shape[:2]) < _LEAST_SIDE:
            return kept, changes
        shift = shift_between(pixels, kept.pixels)
        if shift == (0, 0):
            return kept, changes
        stride = self._engine.card.config.map_stride
        moved_pixels = shifted(kept.pixels, shift, 0)
        moved_changes = change(pixels, moved_pixels, stride)
        if np.count_nonzero(moved_changes > 0) >= np.count_nonzero(changes > 0):
            return kept, changes
        # Maps move by whole cells, so that they are not blurred again and again.
        offset = (self._offset[0] + shift[0], self._offset[1] + shift[1])
        cells = (round(offset[0] / stride), round(offset[1] / stride))
        self._offset = (offset[0] - stride * cells[0], offset[1] - stride * cells[1])
        logits = shifted(kept.logits.transpose(1, 2, 0), cells, 0).transpose(2, 0, 1)
        self._moved = True
        self._kept = _Kept(
            pixels=moved_pixels,
            logits=logits,
            rung=shifted(kept.rung, cells, 0),
            computed_at=shifted(kept.computed_at, cells, _NEVER),
        )
        return self._kept, moved_changes

    def _turn(self, size: Size, period: int) -> NDArray[np.bool_]:
        """The part of the image whose turn it is to be refreshed, (h, w); often none."""
        turns = min(_TURNS, period)
        between = period // turns
        part = np.zeros(size, np.bool_)
        if self._clock % between == 0:
            rows = max(n for n in range(1, turns + 1) if turns % n == 0 and n * n <= turns)
            row, column = divmod(self._clock // between % turns, turns // rows)
            part[_part(size[0], rows, row), _part(size[1], turns // rows, column)] = True
        return part

    def _taken_in(self, frame: _Frame, result: RungResult) -> _Kept:
        """The memory after a frame."""
        engine, config = self._engine, self._engine.card.config
        made = resized_prior(
            Prior.from_arrays(result.logits, result.active),
            result.image_size,
            self._resized(frame.size),
            config,
        )
        active = frame.active
        last = len(engine.sides) * config.num_exits
        rung = np.where(made.active[0, 0].numpy(), result.exit, last).astype(np.int16)
        before = self._kept
        if before is None or active.all():
            self._offset = (0, 0)
            computed_at = np.full(active.shape, self._clock, np.int32)
            return _Kept(frame.pixels, made.logits[0].numpy(), rung, computed_at)
        return _Kept(
            pixels=_mixed(active, frame.pixels, before.pixels, config.map_stride),
            logits=np.where(active, made.logits[0].numpy(), before.logits),
            rung=np.where(active, rung, before.rung),
            computed_at=np.where(active, np.int32(self._clock), before.computed_at),
        )


def _mixed(
    active: NDArray[np.bool_],
    now: NDArray[np.uint8],
    before: NDArray[np.uint8],
    stride: int,
) -> NDArray[np.uint8]:
    """An image (H, W, 3) that is another one where cells (h, w) of so many px are not active."""
    mixed = before.copy()
    rows, columns = active.shape
    cells = f"V{3 * stride}"  # a row of a cell's pixels at a time
    of_now, of_mixed = (x.reshape(rows, stride, columns * 3 * stride) for x in (now, mixed))
    np.copyto(of_mixed.view(cells), of_now.view(cells), where=active[:, None])
    return mixed


def _part(length: int, parts: int, index: int) -> slice:
    return slice(length * index // parts, length * (index + 1) // parts)


def _difference(answered: Decoded, alone: Decoded, size: Size) -> float:
    """Share of pixels, or of joints, whose answer is another."""
    match answered, alone:
        case SegmentationMap(ours), SegmentationMap(theirs):
            return float((ours != theirs).mean())
        case Keypoints(ours), Keypoints(theirs):
            moved = np.linalg.norm(ours[:, :2] - theirs[:, :2], axis=1)
            return float((moved > _JOINT_MOVED * max(size)).mean())
        case _:
            raise AssertionError("both are of one task")
