"""From what the engine reports to what the client is told: the protocol's messages of a request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypedDict, TypeVar

from anytime_protocol.enums import ErrorCode
from anytime_protocol.messages import Accepted, Failed, Finished, Update
from anytime_protocol.stream_answers import FrameEnd, FrameFailure, MeasuredDifference
from anytime_server import encoding
from anytime_server.core.decisions import Ending, JobFailed, JobFinished, in_ms
from anytime_server.engine.base import ActiveRequest, Engine, ExitRendered

_Result = TypeVar("_Result")

_SMALL_PX: Final = 2**18
"""Up to so many px are encoded on the event loop, which takes no longer than a thread's wake-up."""

_RETRY_MS: Final = 5000.0
"""When to ask again, for a request that a server that shuts down has not begun."""


class _Times(TypedDict):
    """Where the time of a request or a frame went, in ms."""

    total_ms: float
    queue_ms: float
    decode_ms: float
    compute_ms: float
    encode_ms: float


class MessageWriter:
    """Makes the messages of requests, and encodes exits just before they are sent.

    Args:
        engine: tells the time, and learns what encoding takes.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="encode")

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def accepted(self, request: ActiveRequest) -> Accepted:
        """The request was admitted."""
        if request.admitted is None:
            raise ValueError(f"request {request.id} has not been admitted")
        exit_, after_s = request.admitted.exit, request.admitted.after_s
        exit_ = min(max(exit_, 1), request.num_exits)
        return Accepted(request.wire_id, request.num_exits, exit_, max(after_s, 0.0) * 1e3)

    async def update(self, request: ActiveRequest, event: ExitRendered, skipped: int) -> Update:
        """An exit, encoded; to be sent at once, as the next delta builds on it."""
        rendered, report, sent = event.rendered, event.report, request.sent_map
        encoded = await self.encode(
            request,
            event,
            lambda: encoding.encode(
                rendered,
                request.want,
                request.served.palette,
                sent.exit,
                sent.arrays,
                sent_frame=sent.frame,
            ),
        )
        frame = None if request.frame is None else request.frame.number
        sent.exit, sent.frame, sent.arrays = rendered.exit, frame, encoded.kept
        return Update(
            id=request.wire_id,
            exit=rendered.exit,
            exits=request.num_exits,
            width=rendered.width,
            height=rendered.height,
            elapsed_ms=self._elapsed_ms(request),
            compute_ms=event.compute_s * 1e3,
            gmacs=event.gmacs,
            confidence=report.confidence,
            confident_share=report.confident_share,
            skipped=skipped,
            parts=encoded.parts,
            keypoints=encoding.keypoints(rendered),
            frame=frame,
            payload=encoded.payload,
        )

    async def encode(
        self, request: ActiveRequest, event: ExitRendered, encode: Callable[[], _Result]
    ) -> _Result:
        """Encodes an exit that is going to be sent, in a thread if that takes long."""
        began = time.perf_counter()
        if request.job.pixels <= _SMALL_PX:
            encoded = encode()
        else:
            encoded = await asyncio.get_running_loop().run_in_executor(self._threads, encode)
        self._engine.note_encoding(request, event, time.perf_counter() - began)
        request.sent = event.report
        return encoded

    def terminal(self, request: ActiveRequest, ending: Ending) -> Finished | Failed:
        """The end, after the last update; it is remembered with the request."""
        match ending:
            case JobFailed(code=code, detail=detail, needed_s=needed_s):
                retry_after_ms = _RETRY_MS if code is ErrorCode.DRAINING else None
                message: Finished | Failed = Failed(
                    request.wire_id,
                    code,
                    detail,
                    retry_after_ms=retry_after_ms,
                    needed_ms=in_ms(needed_s),
                )
            case JobFinished(reason=reason):
                sent = request.sent
                message = Finished(
                    id=request.wire_id,
                    exit=0 if sent is None else sent.exit,
                    exits=request.num_exits,
                    reason=reason,
                    confidence=None if sent is None else sent.confidence,
                    confident_share=None if sent is None else sent.confident_share,
                    gmacs=request.gmacs,
                    **self._times_ms(request),
                    risk=request.risk,
                )
        request.terminal = message
        return message

    def frame_end(self, request: ActiveRequest, ending: Ending, skipped: int) -> FrameEnd:
        """The end of a stream's frame, after its last update.

        Args:
            request: the frame.
            ending: its end.
            skipped: frames passed over since the end before it.
        """
        if request.frame is None:
            raise ValueError(f"request {request.id} is no frame of a stream")
        error = None
        if isinstance(ending, JobFailed):
            error = FrameFailure(ending.code, ending.detail, needed_ms=in_ms(ending.needed_s))
        sent = None if error else request.sent
        reused = request.reused
        checked = None
        if reused.difference is not None:
            checked = MeasuredDifference(reused.difference, reused.checked)
        return FrameEnd(
            id=request.wire_id,
            frame=request.frame.number,
            exit=0 if sent is None else sent.exit,
            exits=request.num_exits,
            reason=None if isinstance(ending, JobFailed) else ending.reason,
            error=error,
            skipped=skipped,
            reused_share=reused.share,
            oldest=reused.oldest,
            confidence=None if sent is None else sent.confidence,
            confident_share=None if sent is None else sent.confident_share,
            gmacs=request.gmacs,
            **self._times_ms(request),
            risk=request.risk,
            difference=checked,
        )

    def _times_ms(self, request: ActiveRequest) -> _Times:
        """Where the time of a request that ends now went."""
        return {
            "total_ms": self._elapsed_ms(request),
            "queue_ms": max(request.queue_s, 0.0) * 1e3,
            "decode_ms": request.decode_s * 1e3,
            "compute_ms": request.compute_s * 1e3,
            "encode_ms": (request.render_s + request.encode_s) * 1e3,
        }

    def _elapsed_ms(self, request: ActiveRequest) -> float:
        return (self._engine.clock() - request.job.arrival_s) * 1e3
