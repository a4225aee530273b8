"""What a caller receives: an exit's maps and figures, and how a request ended.

All arrays are read-only; all times are milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from anytime_client.arrays import Array
from anytime_client.errors import MissingArrayError, RequestError
from anytime_client.images import ImageLike
from anytime_protocol import messages
from anytime_protocol.enums import ArrayName, Reason
from anytime_protocol.model_info import ModelInfo
from anytime_protocol.stream_answers import FrameEnd, MeasuredDifference

_CURES: Final = {
    ArrayName.MAP: "a pose model gives keypoints: use .keypoints",
    ArrayName.CONFIDENCE: "request it with want=OutputOptions(confidence=True)",
    ArrayName.ACTIVE: "request it with want=OutputOptions(active=True)",
    ArrayName.HEATMAPS: "request it of a pose model with want=OutputOptions(heatmaps=True)",
}


@dataclass(frozen=True, slots=True)
class UpdateTimes:
    """When an exit was ready.

    Attributes:
        elapsed_ms: from the request's arrival until the update was about to be written.
        compute_ms: spent in the network so far.
    """

    elapsed_ms: float
    compute_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """The output of one exit.

    Attributes:
        model: that computed it.
        exit: 1 or more, higher with each update; numbers between may be left out, as a server
            passes over exits that would not pay.
        exits: that the model has.
        width: of the upright input, px.
        height: of the same, px.
        confidence: mean over the map, 0 to 1.
        confident_share: share of settled pixels, 0 to 1.
        gmacs: really computed so far, in 1e9 multiply-adds.
        times: when.
        skipped: exits since the last update that were ready and not sent, because this one was
            ready before they could be.
        changed_share: share of the map's pixels that differ from the last update, 0 to 1; None
            at the first and without a map.
        arrays: all arrays of the update, by name.
        joints: what `keypoints` gives, or None for a segmentation model.
    """

    model: ModelInfo = field(repr=False)
    exit: int
    exits: int
    width: int
    height: int
    confidence: float
    confident_share: float
    gmacs: float
    times: UpdateTimes
    skipped: int = 0
    changed_share: float | None = None
    arrays: Mapping[ArrayName, Array] = field(default_factory=dict, repr=False)
    joints: NDArray[np.float32] | None = field(default=None, repr=False)

    @property
    def side(self) -> int | None:
        """Px to which the image's longer side was brought, as the server describes the exit.

        None where the image was computed as large as it is, and where the server does not say.
        """
        return _side(self.model, self.exit)

    @property
    def label(self) -> str:
        """The exit in words: `exit 5 of 8 (480 px)`."""
        return _label(self.model, self.exit, self.exits)

    @property
    def map(self) -> NDArray[np.uint8]:
        """Class ids, uint8 (H, W) at the scale that was requested.

        Raises:
            MissingArrayError: the model is not for segmentation.
        """
        return self._array(ArrayName.MAP)

    @property
    def confidence_map(self) -> NDArray[np.uint8]:
        """Confidence of each pixel, uint8 (H, W): 255 means 1.0.

        Raises:
            MissingArrayError: it was not requested.
        """
        return self._array(ArrayName.CONFIDENCE)

    @property
    def active(self) -> NDArray[np.bool_]:
        """True where the next stage would still compute, (H, W).

        Raises:
            MissingArrayError: it was not requested.
        """
        return self._array(ArrayName.ACTIVE).astype(np.bool_)

    @property
    def heatmaps(self) -> Array:
        """One plane per joint, (J, h, w), at the network's resolution.

        Raises:
            MissingArrayError: they were not requested.
        """
        return self._array(ArrayName.HEATMAPS)

    @property
    def keypoints(self) -> NDArray[np.float32]:
        """X and y in px of the input and a score from 0 to 1 for each joint, float32 (J, 3).

        The rows are in the order of `model.keypoints`, the joints' names.

        Raises:
            MissingArrayError: the model is not for pose.
        """
        if self.joints is None:
            raise MissingArrayError("keypoints", "a segmentation model gives a map: use .map")
        return self.joints

    def _array(self, name: ArrayName) -> Array:
        array = self.arrays.get(name)
        if array is None:
            raise MissingArrayError(name, _CURES[name])
        return array

    @classmethod
    def from_message(
        cls,
        message: messages.Update,
        model: ModelInfo,
        arrays: Mapping[ArrayName, Array],
        previous: Update | None,
    ) -> Update:
        """The update of a message and its decoded arrays, after the update `previous`."""
        joints = None
        if message.keypoints is not None:
            joints = np.array(message.keypoints, np.float32).reshape(-1, 3)
            joints.flags.writeable = False
        return cls(
            model=model,
            exit=message.exit,
            exits=message.exits,
            width=message.width,
            height=message.height,
            confidence=message.confidence,
            confident_share=message.confident_share,
            gmacs=message.gmacs,
            times=UpdateTimes(message.elapsed_ms, message.compute_ms),
            skipped=message.skipped,
            changed_share=_changed_share(arrays, previous),
            arrays=arrays,
            joints=joints,
        )


def _side(model: ModelInfo, exit_: int) -> int | None:
    return model.exits[exit_ - 1].side if 1 <= exit_ <= len(model.exits) else None


def _label(model: ModelInfo, exit_: int, exits: int) -> str:
    side = _side(model, exit_)
    return f"exit {exit_} of {exits}" + ("" if side is None else f" ({side} px)")


def _changed_share(arrays: Mapping[ArrayName, Array], previous: Update | None) -> float | None:
    new = arrays.get(ArrayName.MAP)
    old = previous.arrays.get(ArrayName.MAP) if previous is not None else None
    if new is None or old is None or new.shape != old.shape:
        return None
    return float(np.count_nonzero(new != old)) / new.size


@dataclass(frozen=True, slots=True)
class Timing:
    """Where a request's time went, in ms; the total counts from its arrival."""

    total_ms: float
    queue_ms: float
    decode_ms: float
    compute_ms: float
    encode_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """How a request ended well.

    Attributes:
        model: that computed.
        exit: the deepest that was served; 0 if the request was cancelled before exit 1.
        exits: that the model has.
        reason: why the network stopped there.
        gmacs: really computed, in 1e9 multiply-adds.
        timing: where the time went.
        update: the last one, with the best map; None at exit 0.
        risk: of the certificate whose masks were used, 0 where there were none; None where the
            budget asked for no `max_risk`.
    """

    model: ModelInfo = field(repr=False)
    exit: int
    exits: int
    reason: Reason
    gmacs: float
    timing: Timing
    update: Update | None
    risk: float | None = None

    @property
    def label(self) -> str:
        """The exit in words, as in `Update.label`."""
        return _label(self.model, self.exit, self.exits)

    @property
    def best(self) -> Update:
        """The last update.

        Raises:
            MissingArrayError: there is none, the request was cancelled before exit 1.
        """
        if self.update is None:
            raise MissingArrayError("map", "the request was cancelled before exit 1")
        return self.update

    @property
    def map(self) -> NDArray[np.uint8]:
        """The best class map: class ids, uint8 (H, W); as in `Update.map`."""
        return self.best.map

    @property
    def keypoints(self) -> NDArray[np.float32]:
        """The best keypoints: x, y, score of each joint, float32 (J, 3); as in `Update`."""
        return self.best.keypoints

    @property
    def confidence(self) -> float:
        """Mean confidence of the best map, 0 to 1."""
        return self.best.confidence

    @classmethod
    def from_message(
        cls,
        message: messages.Finished | FrameEnd,
        reason: Reason,
        model: ModelInfo,
        update: Update | None,
    ) -> Result:
        """The result of a `final` or `frame_end` message and the last update."""
        times = {item.name: getattr(message, item.name) for item in fields(Timing)}
        return cls(
            model,
            message.exit,
            message.exits,
            reason,
            message.gmacs,
            Timing(**times),
            update,
            message.risk,
        )


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """How one frame of a stream ended.

    Attributes:
        frame: its number; the first that was sent is 1.
        result: its end, with its best map; None if it failed.
        error: why it failed; None if it did not.
        skipped: frames passed over by the server since the last one that ended, as newer ones came.
        reused_share: part of the pixels that was taken from earlier frames, 0 to 1.
        oldest: frames since the oldest of those was computed; 0 if there are none.
        difference: as the server has measured it in idle time; None before.
        image: the frame as its source gave it, for drawing.
    """

    frame: int
    result: Result | None
    error: RequestError | None
    skipped: int
    reused_share: float
    oldest: int
    difference: MeasuredDifference | None
    image: ImageLike | None = field(default=None, repr=False)

    @property
    def best(self) -> Update:
        """The best map.

        Raises:
            RequestError: the frame failed.
            MissingArrayError: it was stopped before exit 1.
        """
        if self.error is not None:
            raise self.error
        if self.result is None:
            raise AssertionError("a frame has a result or an error")
        return self.result.best

    @classmethod
    def from_message(
        cls, message: FrameEnd, model: ModelInfo, update: Update | None
    ) -> FrameResult:
        """The result of a `frame_end` message and the frame's last update."""
        error, result = message.error, None
        if message.reason is not None:
            result = Result.from_message(message, message.reason, model, update)
        return cls(
            message.frame,
            result,
            None if error is None else RequestError.of_frame(error),
            message.skipped,
            message.reused_share,
            message.oldest,
            message.difference,
        )
