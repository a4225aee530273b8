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
from anytime_protocol.model_info import CertificateInfo, ClassInfo, ExitInfo, ModelInfo
from anytime_protocol.stream_answers import FrameEnd, FrameFailure, MeasuredDifference

STREET = ModelInfo(
    "street",
    Task.SEGMENTATION,
    tuple(ExitInfo(gmacs) for gmacs in (1.0, 2.0, 3.0, 4.0)),
    (ClassInfo(0, "sky", (128, 128, 128)), ClassInfo(3, "road", (128, 64, 128))),
    description="Streets, seen from a car.",
    certificates=(CertificateInfo(0.02, 0.95, 400, 0.012),),
)
LADDER = ModelInfo(
    "ladder",
    Task.SEGMENTATION,
    tuple(
        ExitInfo(gmacs, quality, side, expected_ms)
        for gmacs, quality, side, expected_ms in [
            (1.0, 0.4, 240, 9.0),
            (1.5, 0.5, 240, 14.5),
            (4.0, 0.55, 480, 40.0),
            (6.0, 0.6, 480, 66.0),
        ]
    ),
    STREET.classes,
    engine="native-avx512-bf16",
    precision="bf16",
)
"""Its exits are two at each of two sizes."""
POSE = ModelInfo(
    "pose",
    Task.POSE,
    (ExitInfo(1.0), ExitInfo(2.0)),
    keypoints=("ankle", "knee"),
    skeleton=((0, 1),),
)
READY = Ready("fake 1", (STREET, POSE, LADDER), ConnectionLimits(max_in_flight=4))
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


def update(request_id: str, exit_: int, *, raw: bool = False, base: int | None = None) -> Update:
    """Exit 1 raw, the others as deltas on the exit `base`, by default the one before."""
    new = MAPS[exit_ - 1].tobytes()
    if exit_ == 1 or raw:
        payload, segment = new, raw_segment()
    else:
        base = base or exit_ - 1
        payload = delta.encode(MAPS[base - 1].tobytes(), new)
        segment = ArraySegment(ArrayName.MAP, Encoding.DELTA, (2, 3), len(payload), base=base)
    return Update(
        request_id, exit_, 4, 3, 2, 10.0 * exit_, 5.0 * exit_, exit_, 0.2 * exit_, 0.25 * exit_,
        parts=(segment,), payload=payload,
    )  # fmt: skip


def raw_segment() -> ArraySegment:
    return ArraySegment(ArrayName.MAP, Encoding.RAW, (2, 3), 6)


def finished(request_id: str, exit_: int, reason: Reason = Reason.COMPLETE) -> Finished:
    share = 0.2 * exit_ if exit_ else None
    return Finished(request_id, exit_, 4, reason, share, share, exit_, 44.0, 1.0, 2.0, 30.0, 3.0)


def frame_update(stream: str, frame: int, base_frame: int | None = None) -> Update:
    """Exit 4 of a frame, raw or as a delta on exit 4 of another frame."""
    new = MAPS[3].tobytes()
    segment = raw_segment()
    if base_frame is not None:
        new = delta.encode(new, new)
        segment = ArraySegment(
            ArrayName.MAP, Encoding.DELTA, (2, 3), len(new), base=4, base_frame=base_frame
        )
    return Update(
        stream, 4, 4, 3, 2, 10.0, 5.0, 1.0, 0.8, 0.9, parts=(segment,), frame=frame, payload=new
    )  # fmt: skip


def frame_end(stream: str, frame: int, error: FrameFailure | None = None) -> FrameEnd:
    """The end of a frame at exit 4, half of it reused, or in an error."""
    exit_, reason, share = (4, Reason.COMPLETE, 0.8) if error is None else (0, None, None)
    return FrameEnd(
        stream, frame, exit_, 4, reason, error, 0, 0.5, 2, share, share,
        1.0, 10.0, 1.0, 2.0, 5.0, 2.0, difference=MeasuredDifference(0.01, 3),
    )  # fmt: skip


def failed(request_id: str) -> Failed:
    return Failed(request_id, ErrorCode.OVERLOADED, "no room", retry_after_ms=180.0)


def map_update(exit_: int, model: ModelInfo = STREET) -> results.Update:
    """The update of a model of four exits."""
    times = results.UpdateTimes(10.0 * exit_, 7.5 * exit_)
    arrays = {ArrayName.MAP: MAPS[exit_ - 1]}
    return results.Update(
        model, exit_, 4, 3, 2, 0.8, 0.9, 3.5, times, changed_share=0.5, arrays=arrays
    )


def street_update() -> results.Update:
    """The update of the model `STREET` at exit 4."""
    return map_update(4)


def pose_update(score: float = 0.9) -> results.Update:
    """The update of the model `POSE` at exit 2; `score` is the second keypoint's."""
    joints = np.array([[0.5, 0.5, 0.9], [2.5, 1.5, score]], np.float32)
    times = results.UpdateTimes(40.0, 30.0)
    return results.Update(POSE, 2, 2, 3, 2, 0.8, 0.9, 3.5, times, joints=joints)
