"""Models, maps and messages for the client's tests."""

from __future__ import annotations

import numpy as np

from anytime_client import results
from anytime_protocol.arrays import delta
from anytime_protocol.arrays.segments import ArraySegment
from anytime_protocol.enums import ArrayName, Encoding, ErrorCode, Reason, Task
from anytime_protocol.messages import (
    Accepted,
    ConnectionLimits,
    Failed,
    Finished,
    Ready,
    Update,
)
from anytime_protocol.model_info import ClassInfo, ExitInfo, ModelInfo

STREET = ModelInfo(
    "street",
    Task.SEGMENTATION,
    tuple(ExitInfo(gmacs) for gmacs in (1.0, 2.0, 3.0, 4.0)),
    (ClassInfo(0, "sky", (128, 128, 128)), ClassInfo(3, "road", (128, 64, 128))),
)
POSE = ModelInfo(
    "pose",
    Task.POSE,
    (ExitInfo(1.0), ExitInfo(2.0)),
    keypoints=("ankle", "knee"),
    skeleton=((0, 1),),
)
READY = Ready("fake 1", (STREET, POSE), ConnectionLimits(max_in_flight=4))
MAPS = (
    np.array([[0, 0, 0], [3, 3, 3]], np.uint8),
    np.array([[0, 0, 3], [3, 3, 3]], np.uint8),
    np.array([[0, 0, 3], [0, 3, 3]], np.uint8),
    np.array([[0, 3, 3], [0, 3, 3]], np.uint8),
)
"""The maps of the four exits."""

PIXELS = np.zeros((2, 3, 3), np.uint8)


def accepted(request_id: str) -> Accepted:
    return Accepted(request_id, 4, 4, 40.0)


def update(request_id: str, exit_: int, *, raw: bool = False) -> Update:
    """Exit 1 raw, the others as deltas on the exit before."""
    new = MAPS[exit_ - 1].tobytes()
    if exit_ == 1 or raw:
        payload, segment = new, raw_segment()
    else:
        payload = delta.encode(MAPS[exit_ - 2].tobytes(), new)
        segment = ArraySegment(ArrayName.MAP, Encoding.DELTA, (2, 3), len(payload), base=exit_ - 1)
    return Update(
        request_id, exit_, 4, 3, 2, 10.0 * exit_, 5.0 * exit_, exit_, 0.2 * exit_, 0.25 * exit_,
        parts=(segment,), payload=payload,
    )  # fmt: skip


def raw_segment() -> ArraySegment:
    return ArraySegment(ArrayName.MAP, Encoding.RAW, (2, 3), 6)


def finished(request_id: str, exit_: int, reason: Reason = Reason.COMPLETE) -> Finished:
    share = 0.2 * exit_ if exit_ else None
    return Finished(request_id, exit_, 4, reason, share, share, exit_, 44.0, 1.0, 2.0, 30.0, 3.0)


def failed(request_id: str) -> Failed:
    return Failed(request_id, ErrorCode.OVERLOADED, "no room", retry_after_ms=180.0)


def street_update() -> results.Update:
    """The update of the model `STREET` at exit 4."""
    times = results.UpdateTimes(40.0, 30.0)
    arrays = {ArrayName.MAP: MAPS[3]}
    return results.Update(
        STREET, 4, 4, 3, 2, 0.8, 0.9, 3.5, times, changed_share=0.5, arrays=arrays
    )


def pose_update(score: float = 0.9) -> results.Update:
    """The update of the model `POSE` at exit 2; `score` is the second keypoint's."""
    joints = np.array([[0.5, 0.5, 0.9], [2.5, 1.5, score]], np.float32)
    times = results.UpdateTimes(40.0, 30.0)
    return results.Update(POSE, 2, 2, 3, 2, 0.8, 0.9, 3.5, times, joints=joints)
