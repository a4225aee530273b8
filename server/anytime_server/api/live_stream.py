"""A stream of a websocket: turns its frames into requests of the engine, one at a time.

Which frame is next, and when, is decided by `core.frame_selector`; what one frame may spend is the
scheduler's to decide, as for any other request.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from anytime_protocol.enums import CloseReason, Effect, ErrorCode
from anytime_protocol.http.problems import Problem
from anytime_protocol.messages import BudgetApplied, Frame, Infer, OpenStream, SetBudget
from anytime_protocol.stream_answers import FrameEnd, FrameFailure, StreamClosed, StreamOpened
from anytime_server.core.frame_selector import AwaitChange, BeginFrame, EndStream, FrameSelector
from anytime_server.engine.base import RequestEnded, RequestEvent, SentMap, StreamFrame
from anytime_server.errors import RefusedError

if TYPE_CHECKING:  # it only holds them
    from anytime_server.api.outbox import Outbox
    from anytime_server.api.quotas import Caller
    from anytime_server.api.state import ApiState
    from anytime_server.engine.base import ActiveRequest

logger = logging.getLogger(__name__)

_RETRY_S: Final = 0.1
"""How long a frame waits for an executor that starts again, until it is tried once more."""


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A frame that waits or is being admitted.

    Attributes:
        frame: its message; without its payload if there was no room for it.
        arrival_s: when it was there.
        problem: why it cannot be computed, if that is known.
    """

    frame: Frame
    arrival_s: float
    problem: Problem | None = None


class LiveStream:
    """One stream of a connection.

    Args:
        state: of the application.
        outbox: of the connection.
        key: unique among the streams of the engine.
        opening: what its client asks for.
        caller: its client, if it has a quota.
        headers: of the handshake, for traces.

    Raises:
        RefusedError: there is no such model, or nothing is admitted now.
    """

    def __init__(
        self,
        state: ApiState,
        outbox: Outbox,
        key: str,
        opening: OpenStream,
        *,
        caller: Caller | None,
        headers: Mapping[str, str],
    ) -> None:
        served = state.engine.admissible_model(opening.model)
        self._exits = len(served.info.exits)
        self._state = state
        self._engine = state.engine
        self._outbox = outbox
        self._key = key
        self._caller = caller
        self._headers = headers
        if caller is not None:
            caller.begin(state.engine.clock())
            urgency = max(opening.urgency, caller.quota.urgency)
            opening = replace(opening, urgency=urgency)
        self._opening = opening
        self._budget, self._rev = opening.budget, 0
        self._selector = FrameSelector(opening.share)
        self._upload = state.uploads.begin()
        self._frames: dict[int, _Arrived] = {}
        self._request: ActiveRequest | None = None
        self._sent = SentMap()
        self._is_released = False
        self._admission: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        state.metrics.stream_opened()
        outbox.put(opening.id, StreamOpened(opening.id, self._exits))

    # What the client says.

    def take(self, frame: Frame, arrival_s: float) -> None:
        """A frame has come."""
        replaced, number = self._selector.waiting, frame.frame
        if self._selector.arrived(number) and replaced is not None:
            self._skip(replaced)
        self._frames[number] = _Arrived(frame, arrival_s)
        try:
            self._reserve()
        except RefusedError as error:
            empty = replace(frame, payload=b"")
            self._frames[number] = _Arrived(empty, arrival_s, error.problem)
        self._proceed()

    def set_budget(self, message: SetBudget) -> BudgetApplied:
        """The budget of the frame under way and of all later ones."""
        self._budget, self._rev = message.budget, message.rev
        at_exit = 0
        if self._request is not None:
            at_exit = self._engine.update_budget(
                self._request.id, message.budget, message.rev
            ).at_exit
        return BudgetApplied(message.id, message.rev, at_exit, Effect.APPLIED)

    def close(self, reason: CloseReason) -> None:
        """No more frames come; what is under way ends at once unless it was merely closed."""
        waiting = self._selector.waiting
        if self._selector.close(reason) and waiting is not None:
            self._skip(waiting)
        if self._selector.closing is not CloseReason.CLOSED and self._request is not None:
            self._engine.cancel(self._request.id, discard=False)
        self._proceed()

    def abandon(self) -> None:
        """Its client has left."""
        if self._admission is not None:
            self._admission.cancel()
        if self._request is not None:
            self._engine.cancel(self._request.id, discard=True)
        self._release()

    # From frames to requests.

    def _proceed(self) -> None:
        """Carries out what is to be done now."""
        if self._is_released:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        match self._selector.decide(self._engine.clock()):
            case BeginFrame(number=number):
                self._admission = asyncio.create_task(self._admit(self._frames[number]))
            case EndStream(reason=reason):
                selector = self._selector
                counts = (selector.frames, selector.skipped, selector.failed)
                closed = StreamClosed(self._opening.id, reason, *counts)
                self._outbox.put(self._opening.id, closed, terminal=True)
                self._release()
            case AwaitChange(until_s=until_s) if until_s < math.inf:
                delay_s = until_s - self._engine.clock()
                self._timer = asyncio.get_running_loop().call_later(delay_s, self._proceed)

    async def _admit(self, arrived: _Arrived) -> None:
        frame, rev = arrived.frame, self._rev
        try:
            if arrived.problem is not None:
                raise RefusedError(arrived.problem)
            if self._caller is not None:
                self._caller.begin_frame(self._engine.clock())
            request = await self._state.submit(
                self._infer(frame),
                f"{self._key}/{frame.frame}",
                arrived.arrival_s,
                "websocket",
                self._on_event,
                caller=None,
                headers=self._headers,
                frame=StreamFrame(self._key, frame.frame, self._opening.reuse, self._sent),
            )
        except RefusedError as error:
            self._refused(arrived, error.problem)
            return
        except Exception:
            logger.exception("frame %d of stream %s could not be admitted", frame.frame, self._key)
            problem = Problem(ErrorCode.INTERNAL, "the server failed internally")
            self._refused(arrived, problem)
            return
        self._drop(frame.frame)  # its request has the image
        self._request = request
        if self._rev != rev:
            self._engine.update_budget(request.id, self._budget, self._rev)
        if self._selector.closing not in {None, CloseReason.CLOSED}:
            self._engine.cancel(request.id, discard=False)

    def _infer(self, frame: Frame) -> Infer:
        """A frame as a request."""
        opening = self._opening
        return Infer(
            opening.id,
            opening.model,
            frame.payload,
            frame.media_type,
            self._budget,
            opening.want,
            opening.urgency,
        )

    def _refused(self, arrived: _Arrived, problem: Problem) -> None:
        """A frame was not admitted."""
        now, number = self._engine.clock(), arrived.frame.frame
        if problem.code is ErrorCode.NOT_READY:  # the executor starts again
            if self._selector.postpone(now + _RETRY_S):
                self._skip(number)
        elif problem.code is ErrorCode.DRAINING:
            self._selector.close(CloseReason.DRAINING)
            self._selector.postpone(now)
            self._skip(number)
        else:
            self._drop(number)
            self._selector.ended(0.0, now, failed=True)
            self._state.metrics.frame_ended(self._opening.model, "failed")
            end = partial(self._refused_end, arrived, problem)
            self._outbox.put(self._opening.id, end, seals=True)
        self._proceed()

    def _refused_end(self, arrived: _Arrived, problem: Problem) -> FrameEnd:
        """The end of a frame that was not admitted, about to be sent."""
        return FrameEnd(
            id=self._opening.id,
            frame=arrived.frame.frame,
            exit=0,
            exits=self._exits,
            reason=None,
            error=FrameFailure(
                problem.code, problem.detail, problem.retry_after_ms, problem.needed_ms
            ),
            skipped=self._end_sent(),
            reused_share=0.0,
            oldest=0,
            confidence=None,
            confident_share=None,
            gmacs=0.0,
            total_ms=(self._engine.clock() - arrived.arrival_s) * 1e3,
            queue_ms=0.0,
            decode_ms=0.0,
            compute_ms=0.0,
            encode_ms=0.0,
        )

    def _frame_end(self, request: ActiveRequest, ended: RequestEnded) -> FrameEnd:
        """The end of a frame that was admitted, about to be sent."""
        return self._state.messages.frame_end(request, ended.ending, self._end_sent())

    def _end_sent(self) -> int:
        """The end of a frame is about to be sent; how many were passed over before it."""
        asyncio.get_running_loop().call_soon(self._proceed)
        return self._selector.end_sent()

    def _on_event(self, event: RequestEvent) -> None:
        """The engine tells of the frame under way."""
        request = self._request
        if request is None:
            return
        make_end = partial(self._frame_end, request)
        self._outbox.put_frame(self._opening.id, request, event, make_end)
        if isinstance(event, RequestEnded):
            self._request = None
            failed = event.failed
            self._state.metrics.frame_ended(
                self._opening.model, "failed" if failed else "computed", request.reused.share
            )
            used_s = request.compute_s + request.render_s
            self._selector.ended(used_s, self._engine.clock(), failed=failed)
            asyncio.get_running_loop().call_soon(self._proceed)

    def _skip(self, number: int) -> None:
        """A frame was passed over."""
        self._drop(number)
        self._state.metrics.frame_ended(self._opening.model, "skipped")

    def _drop(self, number: int) -> None:
        """A frame does not wait any more."""
        self._frames.pop(number, None)
        self._reserve()

    def _reserve(self) -> None:
        """Counts the bytes of the frames that wait.

        Raises:
            RefusedError: all uploads together would hold too many.
        """
        self._upload.reserve(sum(len(kept.frame.payload) for kept in self._frames.values()))

    def _release(self) -> None:
        """Gives back what the stream holds."""
        if self._is_released:
            return
        self._is_released = True
        if self._timer is not None:
            self._timer.cancel()
        self._frames.clear()
        self._upload.reserve(0)
        self._engine.forget_stream(self._key)
        if self._caller is not None:
            self._caller.end()
            self._caller = None
        self._state.metrics.stream_closed()
