"""What a caller sees: an exit's maps and numbers, and how a request ended.

Decides how the protocol's messages look from Python. All arrays are read-only; all times are ms.
Does not decode (`arrays` does) and does not draw (`painting` does).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from anytime_client.arrays import Array
from anytime_client.errors import MissingArrayError
from anytime_protocol.budget import Budget
from anytime_protocol.enums import ArrayName, Reason
from anytime_protocol.json_reader import JsonReader
from anytime_protocol.messages import Finished
from anytime_protocol.messages import Update as UpdateMessage
from anytime_protocol.resources import ModelInfo

_CURES: Final = {
    ArrayName.MAP: "a pose model gives keypoints: use .keypoints",
    ArrayName.CONFIDENCE: "ask for it with want=OutputOptions(confidence=True)",
    ArrayName.ACTIVE: "ask for it with want=OutputOptions(active=True)",
    ArrayName.HEATMAPS: "ask a pose model for it with want=OutputOptions(heatmaps=True)",
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
    """What one exit sees.

    Attributes:
        model: that made it.
        exit: 1 or more, higher with each update.
        exits: that the model has.
        width: of the upright input, px.
        height: of the same, px.
        confidence: mean over the map, 0 to 1.
        confident_share: share of settled pixels, 0 to 1.
        gmacs: really computed so far, in 1e9 multiply-adds.
        times: when.
        skipped: exits since the update before that were not sent.
        changed_share: share of the map's pixels that differ from the update before, 0 to 1; None
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
    def map(self) -> NDArray[np.uint8]:
        """Class ids, uint8 (H, W) at the scale that was asked for.

        Raises:
            MissingArrayError: the model is not for segmentation.
        """
        return self._array(ArrayName.MAP)

    @property
    def confidence_map(self) -> NDArray[np.uint8]:
        """Confidence of each pixel, uint8 (H, W): 255 means 1.0.

        Raises:
            MissingArrayError: it was not asked for.
        """
        return self._array(ArrayName.CONFIDENCE)

    @property
    def active(self) -> NDArray[np.bool_]:
        """True where the next stage would still compute, (H, W).

        Raises:
            MissingArrayError: it was not asked for.
        """
        return self._array(ArrayName.ACTIVE).astype(np.bool_)

    @property
    def heatmaps(self) -> Array:
        """One plane per joint, (J, h, w), at the network's resolution.

        Raises:
            MissingArrayError: they were not asked for.
        """
        return self._array(ArrayName.HEATMAPS)

    @property
    def keypoints(self) -> NDArray[np.float32]:
        """X and y in px of the input and a score from 0 to 1 for each joint, float32 (J, 3).

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
    def of(
        cls,
        message: UpdateMessage,
        model: ModelInfo,
        arrays: Mapping[ArrayName, Array],
        before: Update | None,
    ) -> Update:
        """The update that a message and its decoded arrays make, after the update `before`."""
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
            changed_share=_changed(arrays, before),
            arrays=arrays,
            joints=joints,
        )


def _changed(arrays: Mapping[ArrayName, Array], before: Update | None) -> float | None:
    new = arrays.get(ArrayName.MAP)
    old = before.arrays.get(ArrayName.MAP) if before is not None else None
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
    """

    model: ModelInfo = field(repr=False)
    exit: int
    exits: int
    reason: Reason
    gmacs: float
    timing: Timing
    update: Update | None

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
        """The best class map, as in `Update.map`."""
        return self.best.map

    @property
    def keypoints(self) -> NDArray[np.float32]:
        """The best keypoints, as in `Update.keypoints`."""
        return self.best.keypoints

    @property
    def confidence(self) -> float:
        """Mean confidence of the best map, 0 to 1."""
        return self.best.confidence

    @classmethod
    def of(cls, message: Finished, model: ModelInfo, update: Update | None) -> Result:
        """The result that a final message and the last update make."""
        timing = Timing(
            message.total_ms,
            message.queue_ms,
            message.decode_ms,
            message.compute_ms,
            message.encode_ms,
        )
        return cls(
            model, message.exit, message.exits, message.reason, message.gmacs, timing, update
        )


@dataclass(frozen=True, slots=True)
class ServerBudget:
    """The server's own budget and load.

    Attributes:
        budget: what its operator set.
        effective: what is in force now: the operator's and that by load.
        in_flight: requests that run.
        queued: requests that wait.
        slowdown: how much slower than measured alone the stages are now; 1 is not at all.
    """

    budget: Budget
    effective: Budget
    in_flight: int
    queued: int
    slowdown: float

    @classmethod
    def read(cls, fields: JsonReader) -> ServerBudget:
        """Reads the body of `GET /v1/budget`."""
        return cls(
            Budget.from_json(fields.take("budget", "an object")),
            Budget.from_json(fields.take("effective", "an object"), "effective"),
            fields.integer("in_flight"),
            fields.integer("queued"),
            fields.number("slowdown"),
        )
