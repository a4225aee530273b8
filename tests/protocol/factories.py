"""Values of the protocol for its tests: Hypothesis strategies and small, valid messages."""

from __future__ import annotations

from hypothesis import strategies as st

from anytime_protocol.arrays.segments import ArraySegment
from anytime_protocol.budget import MAX_MS, Budget
from anytime_protocol.enums import (
    ArrayName,
    CloseReason,
    Compression,
    Encoding,
    ErrorCode,
    Reason,
    Task,
)
from anytime_protocol.messages import (
    Accepted,
    Failed,
    Finished,
    Frame,
    Infer,
    OpenStream,
    OutputOptions,
    Ready,
    ReuseOptions,
    Update,
)
from anytime_protocol.model_info import CertificateInfo, ClassInfo, ExitInfo, ModelInfo
from anytime_protocol.stream_answers import (
    FrameEnd,
    FrameFailure,
    MeasuredDifference,
    StreamClosed,
    StreamOpened,
)

STREET = ModelInfo(
    name="street",
    task=Task.SEGMENTATION,
    exits=(ExitInfo(23.7, 0.49), ExitInfo(34.7), ExitInfo(49.9), ExitInfo(73.2, 0.6)),
    classes=(ClassInfo(0, "sky", (128, 128, 128)), ClassInfo(3, "road", (128, 64, 128))),
    description="Streets, seen from a car.",
    certificates=(
        CertificateInfo(0.02, 0.95, 400, 0.012, 1.0, "streets"),
        CertificateInfo(0.1, 0.9, 40, 0.05, 0.25),
    ),
)

SHARES = st.floats(0, 1)
IDS = st.from_regex(r"[A-Za-z0-9._~:-]{1,12}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
LIMITS = st.builds(
    Budget,
    deadline_ms=st.none() | st.floats(0, MAX_MS),
    compute_gmacs=st.none() | st.floats(0, 1e6),
    max_exit=st.none() | st.integers(1, 8),
    min_confidence=st.none() | SHARES,
    confident_share=st.none() | SHARES,
    max_risk=st.none() | SHARES,
)
MOMENTS = st.integers(0, 12).map(lambda n: n * 7.5)
"""Few enough that moments of different schedules meet."""


@st.composite
def budgets(draw: st.DrawFn) -> Budget:
    """Budgets with schedules of up to five entries."""
    moments = sorted(draw(st.sets(MOMENTS, max_size=5)))
    limits = draw(LIMITS)
    return Budget(
        limits.deadline_ms,
        limits.compute_gmacs,
        limits.max_exit,
        limits.min_confidence,
        limits.confident_share,
        limits.max_risk,
        tuple((at_ms, draw(LIMITS)) for at_ms in moments),
    )


WANTS = st.builds(
    OutputOptions,
    encoding=st.sampled_from(Encoding),
    compression=st.sampled_from(Compression),
    scale=st.sampled_from([1.0, 0.5, 0.25]),
    confidence=st.booleans(),
    active=st.booleans(),
    heatmaps=st.booleans(),
    progress=st.booleans(),
    monotone=st.booleans(),
)


def ready(models: tuple[ModelInfo, ...] = (STREET,)) -> Ready:
    return Ready("anytime-dense 0.1.0", models)


def infer(request_id: str, budget: Budget | None = None) -> Infer:
    return Infer(request_id, "street", b"an image", budget=budget or Budget())


def accepted(request_id: str) -> Accepted:
    return Accepted(request_id, exits=4, predicted_exit=3, predicted_ms=71.5)


def raw_map(size: int = 6) -> ArraySegment:
    return ArraySegment(ArrayName.MAP, Encoding.RAW, (1, size), size)


def update(
    request_id: str,
    exit_: int,
    part: ArraySegment | None = None,
    payload: bytes = b"",
    frame: int | None = None,
) -> Update:
    return Update(
        id=request_id,
        exit=exit_,
        exits=4,
        width=3,
        height=2,
        elapsed_ms=21.4,
        compute_ms=16.0,
        gmacs=23.7,
        confidence=0.71,
        confident_share=0.4,
        parts=(part or raw_map(),),
        frame=frame,
        payload=payload or b"\0\0\3\3\3\0",
    )


def open_stream(stream_id: str, budget: Budget | None = None) -> OpenStream:
    return OpenStream(stream_id, "street", budget or Budget(), reuse=ReuseOptions())


def frame(stream_id: str, number: int) -> Frame:
    return Frame(stream_id, number, b"an image")


def opened(stream_id: str) -> StreamOpened:
    return StreamOpened(stream_id, exits=4)


def frame_end(
    stream_id: str, number: int, exit_: int, error: FrameFailure | None = None
) -> FrameEnd:
    return FrameEnd(
        id=stream_id,
        frame=number,
        exit=exit_,
        exits=4,
        reason=None if error else Reason.DEADLINE,
        error=error,
        skipped=2,
        reused_share=0.71,
        oldest=12,
        confidence=0.83 if exit_ else None,
        confident_share=0.71 if exit_ else None,
        gmacs=34.7,
        total_ms=67.6,
        queue_ms=0.4,
        decode_ms=3.1,
        compute_ms=61.9,
        encode_ms=1.8,
        difference=MeasuredDifference(0.008, 12),
    )


def closed(stream_id: str) -> StreamClosed:
    return StreamClosed(stream_id, CloseReason.CLOSED, frames=3, skipped=2, failed=1)


BAD_FRAME = FrameFailure(ErrorCode.BAD_IMAGE, "this is no image")


def finished(request_id: str, exit_: int, reason: Reason = Reason.DEADLINE) -> Finished:
    return Finished(
        id=request_id,
        exit=exit_,
        exits=4,
        reason=reason,
        confidence=0.83 if exit_ else None,
        confident_share=0.71 if exit_ else None,
        gmacs=34.7,
        total_ms=67.6,
        queue_ms=0.4,
        decode_ms=3.1,
        compute_ms=61.9,
        encode_ms=1.8,
        risk=0.02 if exit_ else None,
    )


def failed(request_id: str) -> Failed:
    return Failed(request_id, ErrorCode.OVERLOADED, "no room", retry_after_ms=180.0)
