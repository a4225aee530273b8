"""The engine of one machine: admits requests, and hands them to the router over its executors."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from anytime_protocol.budget import Budget
from anytime_protocol.enums import Effect, ErrorCode
from anytime_protocol.http.problems import Problem
from anytime_protocol.messages import BudgetApplied, Infer
from anytime_protocol.resources import ServerBudget, ServerBudgetStatus
from anytime_server import images
from anytime_server.core.decisions import Rejected, in_ms
from anytime_server.core.jobs import JobState
from anytime_server.engine.base import (
    ActiveRequest,
    EngineState,
    ExitRendered,
    OnEvent,
    StreamFrame,
)
from anytime_server.engine.image_reader import ImageReader
from anytime_server.engine.loop import ExecutorLoop
from anytime_server.engine.router import Router
from anytime_server.errors import (
    DuplicateJobError,
    ImageRejectedError,
    RefusedError,
)
from anytime_server.executor.base import Executor, ServedModel
from anytime_server.images import DecodedImage, Image
from anytime_server.metrics import Metrics
from anytime_server.settings import Settings

logger = logging.getLogger(__name__)

_REMEMBERED: Final = 256
_REMEMBERED_S: Final = 60.0
"""Requests over HTTP that are remembered when they have ended: how many, and for how long."""


class LocalEngine:
    """See the module; implements `Engine`.

    Args:
        executors: compute; at least one.
        metrics: counts.
        settings: the operator's choices.
        clock: monotonic seconds, the same in the executor.
    """

    def __init__(
        self,
        executors: Sequence[Executor],
        metrics: Metrics,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._executors = executors
        self._metrics = metrics
        self._settings = settings
        self._images = ImageReader(settings.max_pixels)
        each = settings.scheduling.divided(len(executors))
        self._router = Router(
            [
                ExecutorLoop(executor, metrics, chosen, clock, self._remember, number=number)
                for number, (executor, chosen) in enumerate(zip(executors, each, strict=True))
            ],
            clock,
        )
        self._ended: deque[ActiveRequest] = deque()
        self._remembered: dict[str, ActiveRequest] = {}
        self._started = asyncio.Event()
        self._task: asyncio.Task[None]

    @property
    def state(self) -> EngineState:
        """See `Engine.state`."""
        return self._router.state

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """See `Engine.models`."""
        return self._router.models

    # Life.

    def open(self) -> None:
        """See `Engine.open`."""
        self._task = asyncio.create_task(self._run())

    async def wait_ready(self) -> None:
        """See `Engine.wait_ready`."""
        started = asyncio.create_task(self._started.wait())
        await asyncio.wait([started, self._task], return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if self._task.done():
            self._task.result()

    async def drain(self) -> None:
        """See `Engine.drain`."""
        try:
            async with asyncio.timeout(self._settings.drain_timeout_s):
                await self._router.drain()
        except TimeoutError:
            logger.warning("requests were still active after %g s", self._settings.drain_timeout_s)
            self.end_all()

    def end_all(self) -> None:
        """See `Engine.end_all`."""
        self._router.end_all()

    async def close(self) -> None:
        """See `Engine.close`."""
        self._task.cancel()
        (result,) = await asyncio.gather(self._task, return_exceptions=True)
        if isinstance(result, Exception) and self._started.is_set():
            logger.error("the engine failed", exc_info=result)
        await asyncio.gather(*(executor.close() for executor in self._executors))
        self._images.close()

    async def _run(self) -> None:
        await self._images.warm_up()
        await self._router.start()
        self._started.set()
        await self._router.run()

    # Requests.

    def admissible_model(self, name: str) -> ServedModel:
        """See `Engine.admissible_model`."""
        served = self.model(name)
        if self.state is not EngineState.READY:
            draining = self.state is EngineState.DRAINING
            code = ErrorCode.DRAINING if draining else ErrorCode.NOT_READY
            raise _refusal(code, f"the server is {self.state.value}", 5.0)
        return served

    def model(self, name: str) -> ServedModel:
        """See `Engine.model`."""
        self._refuse_until_loaded()
        served = self.models.get(name)
        if served is None:
            names = ", ".join(self.models)
            raise _refusal(ErrorCode.UNKNOWN_MODEL, f"found {name!r}, expected one of {names}")
        return served

    async def submit(
        self,
        infer: Infer,
        request_id: str,
        arrival_s: float,
        transport: str,
        on_event: OnEvent,
        *,
        pixels: Image | None = None,
        frame: StreamFrame | None = None,
    ) -> ActiveRequest:
        """See `Engine.submit`; the only place where a request is admitted."""
        served = self.admissible_model(infer.model)
        uploaded_s = self.clock()
        data = infer.payload if pixels is None else pixels
        try:
            header, decode = await self._images.open(
                data,
                infer.media_type,
                idle=not self._router.requests,
                side=max(served.profile.sides, default=None),
            )
        except ImageRejectedError as error:
            raise RefusedError(Problem(error.code, str(error), request_id=infer.id)) from error
        served = self.admissible_model(infer.model)  # again, as reading the header took time
        job = JobState(
            id=request_id,
            model=infer.model,
            height=header.height,
            width=header.width,
            arrival_s=arrival_s,
            budget=infer.budget,
            urgency=infer.urgency,
            media_type=header.media_type,
            encoding=infer.want.encoding.value,
            awaits_image=not images.is_quick(data, header),
            shows_each=infer.want.progress,
            stream=frame.stream if frame is not None and frame.reuse is not None else None,
        )
        request = ActiveRequest(infer.id, infer.want, job, served, transport, on_event, frame=frame)
        request.upload_s = uploaded_s - arrival_s
        try:
            answer = self._rejected_for_size(request) or self._router.submit(request)
        except DuplicateJobError as error:
            text = f"request {infer.id} has not ended yet"
            raise _refusal(ErrorCode.DUPLICATE_ID, text, request_id=infer.id) from error
        if isinstance(answer, Rejected):
            self._metrics.rejected(infer.model, answer.code, self.clock() - arrival_s)
            raise _refusal(
                answer.code, answer.detail, answer.retry_after_s, infer.id, answer.needed_s
            )
        request.admitted = answer
        request.image = decode()
        request.image.add_done_callback(_retrieve_exception)
        if job.awaits_image:
            request.image.add_done_callback(partial(self._router.image_ready, request))
        return request

    def cancel(self, request_id: str, *, discard: bool) -> None:
        """See `Engine.cancel`."""
        request = self._router.requests.get(request_id)
        if request is not None:
            self._router.cancel(request, discard=discard)

    def forget_stream(self, stream: str) -> None:
        """See `Engine.forget_stream`."""
        self._router.forget_stream(stream)

    def update_budget(self, request_id: str, budget: Budget, rev: int | None) -> BudgetApplied:
        """See `Engine.update_budget`."""
        request = self.status(request_id)
        if request is None:
            return BudgetApplied(request_id, rev or 0, 0, Effect.GONE)
        rev = request.job.rev + 1 if rev is None else rev
        change = self._router.update_budget(request, budget, rev)
        return BudgetApplied(request.wire_id, rev, change.exit, change.effect)

    def status(self, request_id: str) -> ActiveRequest | None:
        """See `Engine.status`."""
        self._router.take_exits()
        return self._router.requests.get(request_id) or self._remembered.get(request_id)

    def note_encoding(self, request: ActiveRequest, event: ExitRendered, elapsed_s: float) -> None:
        """See `Engine.note_encoding`."""
        if request.ended_s is not None:
            request.encode_s += min(elapsed_s, self.clock() - request.ended_s)
        whole_s = elapsed_s + event.rendered.elapsed_s
        self._metrics.encoded(request.job.model, request.job.encoding, whole_s)
        if request.ended_s is not None:  # an answer waits for its turn on a busy event loop
            whole_s = max(self.clock() - request.ended_s, elapsed_s) + event.rendered.elapsed_s
        self._router.note_encoding(request, whole_s)

    # The operator.

    def operator_limits(self) -> Budget:
        """See `Engine.operator_limits`."""
        return self._router.operator_limits()

    def server_budget(self) -> ServerBudgetStatus:
        """See `Engine.server_budget`."""
        self._refuse_until_loaded()
        return self._router.server_budget()

    def set_server_budget(self, budget: ServerBudget) -> None:
        """See `Engine.set_server_budget`."""
        self._refuse_until_loaded()
        self._router.set_server_budget(budget, _time_of_day_s())

    def _refuse_until_loaded(self) -> None:
        if not self.models:
            raise _refusal(ErrorCode.NOT_READY, "the models are still loading", 1.0)

    def _rejected_for_size(self, request: ActiveRequest) -> Rejected | None:
        wanted, most = _held_pixels(request), self._settings.max_computed_pixels
        if request.computed_pixels > most:
            text = (
                f"model {request.job.model!r} would compute {request.computed_pixels} px, at most "
                f"{most} are allowed: make the image smaller"
            )
            return Rejected(ErrorCode.TOO_MANY_PIXELS, text, None)
        held = sum(_held_pixels(active) for active in self._router.requests.values())
        most = self._settings.max_pixels_in_flight
        if not held or held + wanted <= most:
            return None
        text = f"{held} px are being processed, {wanted} more would exceed {most}"
        return Rejected(ErrorCode.OVERLOADED, text, 1.0)

    def _remember(self, request: ActiveRequest) -> None:
        """Keeps a request over HTTP findable for a while after its end."""
        now = self.clock()
        if request.transport == "http":
            self._ended.append(request)
            self._remembered[request.id] = request
        while self._ended and (
            len(self._ended) > _REMEMBERED or now - (self._ended[0].ended_s or 0.0) > _REMEMBERED_S
        ):
            old = self._ended.popleft()
            if self._remembered.get(old.id) is old:
                del self._remembered[old.id]


def _held_pixels(request: ActiveRequest) -> int:
    """Px that a request counts for as far as memory goes.

    The network takes some 100 bytes for each px that it computes, an image and its maps 6 for each
    of theirs.
    """
    return request.computed_pixels + request.job.pixels // 16


def _refusal(
    code: ErrorCode,
    detail: str,
    retry_after_s: float | None = None,
    request_id: str | None = None,
    needed_s: float | None = None,
) -> RefusedError:
    problem = Problem(
        code,
        detail,
        request_id=request_id,
        retry_after_ms=in_ms(retry_after_s),
        needed_ms=in_ms(needed_s),
    )
    return RefusedError(problem)


def _retrieve_exception(image: asyncio.Future[DecodedImage]) -> None:
    """Marks an exception as seen that nobody may ask for, as its request has ended before."""
    if not image.cancelled():
        image.exception()


def _time_of_day_s() -> float:
    """Since local midnight."""
    local = time.localtime()
    return local.tm_hour * 3600.0 + local.tm_min * 60.0 + local.tm_sec
