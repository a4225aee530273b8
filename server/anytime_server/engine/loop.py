"""A loop over one executor: carries out what the scheduler decides.

It turns the scheduler's decisions into calls of the executor and the executor's reports into calls
of the scheduler, and owns both, and the active requests, each of which gets exactly one
`RequestEnded`, whatever happens. Order, depth and time are the scheduler's to decide.

* While a run is under way, whatever changes what it may do (a request, a cancel, a budget, a
  schedule's next entry) is written into the control block at once (`_update_run`).
* An exit is rendered by the executor as part of the run when its client wants each exit or the run
  ends; what was missed is rendered before another request gets the executor, so that a request that
  ends while another one computes has its best map ready.
* A crash of the executor ends all active requests with an error; until it has started again, new
  ones are refused.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from anytime_protocol.budget import Budget
from anytime_protocol.enums import ErrorCode
from anytime_protocol.messages import DEFAULT_URGENCY
from anytime_protocol.resources import ServerBudget, ServerBudgetStatus
from anytime_server import images
from anytime_server.core.costs import CostModel, SideCost
from anytime_server.core.decisions import (
    Admitted,
    BudgetChange,
    Ending,
    EndJob,
    JobFailed,
    Rejected,
    RunJob,
    RunLimits,
    Wait,
)
from anytime_server.core.scheduler import Scheduler
from anytime_server.core.settings import SchedulerSettings
from anytime_server.engine.base import ActiveRequest, EngineState, ExitRendered, RequestEnded
from anytime_server.errors import (
    ExecutorCallError,
    ExecutorCrashedError,
    ExecutorStartError,
    ImageRejectedError,
)
from anytime_server.executor.base import (
    Executor,
    RenderedExit,
    RunCommand,
    RunEnd,
    ServedModel,
)
from anytime_server.images import Image
from anytime_server.metrics import Metrics

logger = logging.getLogger(__name__)

_OVERRUN: Final = 20.0
_OVERRUN_S: Final = 60.0
"""A run is given up after this multiple of its predicted time and this many seconds more."""

_RESTART_S: Final = (0.0, 0.5, 2.0, 10.0)
"""Waits before the executor is started again; the last repeats."""


class ExecutorLoop:
    """See the module.

    Args:
        executor: computes.
        metrics: counts.
        settings: of the scheduler.
        clock: monotonic seconds, the same in the executor.
        on_ended: called with each request that has ended, before its client is told.

    Attributes:
        state: what it can do now.
        models: what it serves by name; empty until the models are loaded.
        requests: the active requests by id.
    """

    def __init__(
        self,
        executor: Executor,
        metrics: Metrics,
        settings: SchedulerSettings,
        clock: Callable[[], float],
        on_ended: Callable[[ActiveRequest], None],
    ) -> None:
        self.state = EngineState.STARTING
        self.models: dict[str, ServedModel] = {}
        self.requests: dict[str, ActiveRequest] = {}
        self._executor = executor
        self._metrics = metrics
        self._settings = settings
        self._clock = clock
        self._on_ended = on_ended
        self._scheduler = Scheduler(CostModel(()), settings=settings)
        self._unreported: deque[Ending] = deque()
        self._running: ActiveRequest | None = None
        self._give_up_s = math.inf
        self._busy_since_s = math.inf  # since when the loop has not waited for anything to do
        self._changed = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    # Requests.

    def submit(self, request: ActiveRequest) -> Admitted | Rejected:
        """Takes a request or refuses it.

        Raises:
            DuplicateJobError: one with this id is active.
        """
        self.take_exits()
        job = request.job
        answer = self._scheduler.submit(job, self._clock())
        if isinstance(answer, Admitted):
            request.ready_s = self._clock()
            self.requests[request.id] = request
            self._metrics.active_requests(len(self.requests))
            self._empty.clear()
            if job.prepare_s:  # the size is new: get ready while the image is decoded
                self._executor.prepare(job.model, (job.height, job.width))
            self._update_run()
        return answer

    def cancel(self, request: ActiveRequest, *, discard: bool) -> None:
        """Ends an active request; see `Engine.cancel`."""
        self.take_exits()
        request.discarded = request.discarded or discard
        if request.cancelled_s is None:
            request.cancelled_s = self._clock()
        ending = self._scheduler.cancel(request.id)
        if ending is not None:
            self._unreported.append(ending)
        self._update_run()

    def update_budget(self, request: ActiveRequest, budget: Budget, rev: int) -> BudgetChange:
        """Replaces a request's budget; see `Scheduler.update_budget`."""
        self.take_exits()
        change = self._scheduler.update_budget(request.id, budget, rev)
        self._update_run()
        return change

    def note_encoding(self, request: ActiveRequest, elapsed_s: float) -> None:
        """See `Engine.note_encoding`; `elapsed_s` has rendering in it."""
        job = request.job
        self._scheduler.costs.observe_encode(job.encoding, job.pixels, elapsed_s)

    # The operator.

    def server_budget(self) -> ServerBudgetStatus:
        """See `Engine.server_budget`."""
        self.take_exits()
        limits = self._scheduler.server_limits
        return ServerBudgetStatus(
            budget=limits.budget,
            effective=limits.in_force(self._clock(), DEFAULT_URGENCY),
            in_flight=len(self.requests),
            queued=sum(request.first_s is None for request in self.requests.values()),
            load_s=self._scheduler.load_s,
            slowdown=self._scheduler.costs.slow_down.mean,
        )

    def set_server_budget(self, budget: ServerBudget) -> None:
        """Replaces the operator's budget."""
        self.take_exits()
        self._scheduler.set_server_budget(budget, self._clock(), _time_of_day_s())
        self._update_run()

    async def drain(self) -> None:
        """Admits no more, and returns when the last request has ended."""
        if self.state is not EngineState.CLOSED:
            self.state = EngineState.DRAINING
        self.take_exits()
        self._unreported.extend(self._scheduler.drain())
        self._update_run()
        await self._empty.wait()

    # The loop.

    async def start(self) -> None:
        """Starts the executor; requests are admitted afterwards.

        Raises:
            ExecutorStartError: it cannot start.
        """
        served = await self._executor.start()
        self.models = {model.info.name: model for model in served}
        self._scheduler = Scheduler(_cost_model(served), settings=self._settings)
        for model in served:
            self._metrics.serves(model.info.name, model.engine)
            logger.info("%s is computed by %s", model.info.name, model.engine)
        if self.state is EngineState.STARTING:
            self.state = EngineState.READY

    async def run(self) -> None:
        """Runs until cancelled; whatever ends it, no request is left without its end."""
        try:
            while True:
                try:
                    await self._step()
                except ExecutorCrashedError as error:
                    logger.error("%s", error)
                    await self._recover(str(error))
                except Exception:
                    # A fault of ours: the executor's state is unknown, so begin afresh.
                    logger.exception("the engine loop failed")
                    await self._recover("the server failed internally")
        finally:
            self.state = EngineState.CLOSED
            self._fail_all("the server was stopped")

    async def _step(self) -> None:
        self._changed.clear()
        while self._unreported:
            await self._render_and_end(self._unreported.popleft())
        match self._scheduler.decide(self._clock()):
            case EndJob(ending=ending):
                await self._render_and_end(ending)
            case RunJob() as run:
                await self._run(run, self.requests[run.job_id])
            case Wait(until_s=until_s):
                await self._sleep_until(math.inf if until_s is None else until_s)
                self._busy_since_s = self._clock()

    async def _run(self, run: RunJob, request: ActiveRequest) -> None:
        """Carries out one run, and reports it to the scheduler exactly once."""
        began_s, before_s, waited_s = self._clock(), request.compute_s, 0.0
        self._running = request
        try:
            await self._render_others(request)
            decode_from_s = self._clock()
            image = None if request.has_begun else await self._decoded_image(request)
            waited_s = self._clock() - decode_from_s
            if image is None and not request.has_begun:
                ending = self._scheduler.run_ended(run.job_id, 0.0, self._clock())
            else:
                ending = await self._compute(run, request, image)
        except ImageRejectedError as error:
            ending = self._scheduler.fail(run.job_id, error.code, str(error))
        except ExecutorCallError as error:
            logger.error("request %s: %s", run.job_id, error)
            ending = self._scheduler.fail(run.job_id, error.code, str(error))
        finally:
            self._running = None
        request.ready_s = self._clock()
        busy_s = request.ready_s - min(self._busy_since_s, began_s)
        overhead_s = max(busy_s - request.compute_s + before_s, 0.0)
        self._metrics.overhead(overhead_s)
        self._scheduler.costs.observe_overhead(max(overhead_s - waited_s, 0.0))
        self._busy_since_s = request.ready_s
        if ending is not None:
            await self._render_and_end(ending)
        elif request.must_render():
            await self._render(request)
            request.ready_s = self._clock()

    async def _compute(
        self, run: RunJob, request: ActiveRequest, image: Image | None
    ) -> Ending | None:
        """Has the executor compute a run, and follows what changes meanwhile."""
        now = self._clock()
        request.queue_s += max(now - request.ready_s, 0.0)
        request.first_s = request.first_s or now
        self._give_up_s = now + _OVERRUN_S + _OVERRUN * run.predicted_s
        progress = request.want.progress
        limits = self._run_limits()
        render = None
        # While others wait they are next, and this exit would be rendered by itself before.
        render_now = progress or limits.last_stage >= run.depth or len(self.requests) > 1
        if not request.discarded and render_now:
            render = request.render_options
        if not request.has_begun and run.max_risk < math.inf:
            # A certificate is about maps as they are by default.
            allowed = 0.0 if request.want.monotone else run.max_risk
            request.risk = request.served.info.certified_risk(allowed)
        command = RunCommand(
            run.job_id,
            request.job.model,
            run.stage,
            limits,
            image,
            request.size,
            render,
            each_exit=progress,
            risk=request.risk,
            monotone=request.want.monotone,
        )
        request.has_begun = True
        call = asyncio.ensure_future(self._executor.run(command, partial(self._exit_made, request)))
        call.add_done_callback(lambda _: self._changed.set())
        try:
            await asyncio.sleep(0)  # the executor begins before anything else is looked at
            while not call.done():
                until_s = self._end_others()
                self._apply_run_limits()  # later than what `until_s` counts from
                await self._sleep_until(until_s)
            end = call.result()
        finally:
            self.take_exits()
            if not call.done():  # the server is being stopped
                call.cancel()
        return self._run_ended(request, end)

    def _run_ended(self, request: ActiveRequest, end: RunEnd) -> Ending | None:
        now = self._clock()
        if end.rendered is not None:
            self._keep(request, end.rendered)
        if end.wasted_s:
            request.compute_s += end.wasted_s
            self._metrics.stage_stopped(request, now)
        self._metrics.engine_memory(self._executor.engine_bytes)
        ending = self._scheduler.run_ended(request.id, end.wasted_s, now)
        if ending is None and end.rendered is not None and request.want.progress:
            self._emit(request)
        return ending

    def _exit_made(self, request: ActiveRequest, rendered: RenderedExit | None) -> None:
        """The executor has made an exit in the middle of a run, and tells so."""
        self.take_exits()  # so that there is a report for the rendering
        if rendered is not None:
            self._keep(request, rendered)
            if request.id in self.requests and request.want.progress:
                self._emit(request)
        self._update_run()

    def take_exits(self) -> None:
        """Brings the running request and the scheduler up to date with the control block."""
        request = self._running
        if request is None:
            return
        costs = self._scheduler.costs
        for report in self._executor.take_exits():
            failed = self._scheduler.exit_made(request.id, report)
            request.compute_s += report.elapsed_s
            request.gmacs += report.gmacs
            self._metrics.stage_done(request, report, costs.slow_down.mean, costs.last_error)
            if failed is not None:
                self._unreported.append(failed)
            elif request.cancelled_s is None:
                request.reports.append(report)
                self._metrics.exit_made(request)

    def _update_run(self) -> None:
        """Something has changed: tell the executor how far it may go, and wake the loop."""
        self._apply_run_limits()
        self._changed.set()

    def _apply_run_limits(self) -> None:
        self.take_exits()
        if self._running is not None:
            self._executor.set_limits(self._run_limits())

    def _run_limits(self) -> RunLimits:
        limits = self._scheduler.run_limits(self._clock())
        return limits._replace(stop_at_s=min(limits.stop_at_s, self._give_up_s))

    async def _decoded_image(self, request: ActiveRequest) -> Image | None:
        """Waits for a request's image; None if it is not wanted any more.

        Raises:
            ImageRejectedError: it cannot be decoded.
            ExecutorCallError: our decoder failed.
        """
        if request.image is None:
            raise RuntimeError(f"request {request.id} was not submitted")
        request.image.add_done_callback(lambda _: self._changed.set())
        while not request.image.done():
            limits = self._scheduler.run_limits(self._clock())
            if not limits.path or self._clock() > limits.stop_at_s:
                return None
            await self._sleep_until(limits.stop_at_s)
        try:
            decoded = request.image.result()
        except ImageRejectedError:
            raise
        except Exception as error:
            logger.exception("decoding for request %s failed", request.id)
            raise ExecutorCallError(f"{type(error).__name__} while decoding") from error
        request.image = None
        request.size = decoded.size
        request.decode_s = decoded.elapsed_s
        request.queue_s -= min(decoded.elapsed_s, self._clock() - request.ready_s)
        self._metrics.decoded(decoded.elapsed_s)
        # Images are decoded while others compute; elapsed time would mostly tell of those.
        self._scheduler.image_decoded(request.id, decoded.cpu_s)
        return decoded.image

    # Rendering and endings.

    async def _render(self, request: ActiveRequest) -> None:
        """Has the executor render a request's last exit, and shows it if that is wanted.

        Raises:
            ExecutorCrashedError, ExecutorCallError: see there.
        """
        self._keep(request, await self._executor.render(request.id, request.render_options))
        if request.want.progress and request.id in self.requests and not request.discarded:
            self._emit(request)

    async def _render_others(self, chosen: ActiveRequest) -> None:
        """Renders exits of requests that may end while `chosen` computes."""
        for request in list(self.requests.values()):
            if request is not chosen and request.has_unrendered_exit and not request.discarded:
                try:
                    await self._render(request)
                except ExecutorCallError as error:
                    failed = self._scheduler.fail(request.id, error.code, str(error))
                    if failed is not None:
                        self._unreported.append(failed)

    async def _render_and_end(self, ending: Ending) -> None:
        """Ends a request with its best map rendered.

        Raises:
            ExecutorCrashedError: the request is still active.
        """
        request = self.requests.get(ending.job_id)
        if request is not None and request.must_render(ending):
            try:
                await self._render(request)
            except ExecutorCallError as error:
                logger.error("request %s: %s", request.id, error)
                ending = JobFailed(request.id, error.code, str(error), request.compute_s)
        self._end(ending)

    def _end_others(self) -> float:
        """Ends requests whose time has come while another one computes.

        One that still has to be rendered waits for the executor.

        Returns:
            When to look again.
        """
        self.take_exits()
        while isinstance(decision := self._scheduler.decide(self._clock()), EndJob):
            self._unreported.append(decision.ending)
        for _ in range(len(self._unreported)):
            ending = self._unreported.popleft()
            request = self.requests.get(ending.job_id)
            if request is not None and request.must_render(ending):
                self._unreported.append(ending)
            else:
                self._end(ending)
        until_s = decision.until_s if isinstance(decision, Wait) else None
        return math.inf if until_s is None else until_s

    def _end(self, ending: Ending) -> None:
        """The only place where a request ends; one that has ended is ignored."""
        request = self.requests.pop(ending.job_id, None)
        if request is None:
            return
        if request.image is not None:
            request.image.cancel()
            request.image = None
        if request.has_begun:
            self._executor.forget(request.id)
        now = request.ended_s = self._clock()
        self._metrics.ended(request, ending, now)
        self._metrics.active_requests(len(self.requests))
        if not self.requests:
            self._empty.set()
        unwanted = request.discarded or isinstance(ending, JobFailed)
        best, request.best = request.best, None
        self._on_ended(request)
        try:
            request.on_event(RequestEnded(ending, None if unwanted else best))
        except Exception:
            # A fault of an adapter must not end the loop that all others depend on.
            logger.exception("the callback of request %s failed", request.id)

    def _keep(self, request: ActiveRequest, rendered: RenderedExit) -> None:
        request.render_s += rendered.elapsed_s
        reports = (report for report in request.reports if report.exit == rendered.exit)
        report = next(reports, None)
        if report is None:
            return  # made after the request was cancelled
        request.best = ExitRendered(report, rendered, request.compute_s, request.gmacs)

    def _emit(self, request: ActiveRequest) -> None:
        if request.best is not None:
            request.on_event(request.best)

    async def _recover(self, reason: str) -> None:
        """Ends what was lost and starts the executor again, as often as it takes."""
        self._metrics.crashed()
        if self.state is EngineState.READY:
            self.state = EngineState.RECOVERING
        self._fail_all(reason)
        self._scheduler.costs.forget_sizes()
        attempt = 0
        while True:
            await asyncio.sleep(_RESTART_S[min(attempt, len(_RESTART_S) - 1)])
            try:
                await self._executor.start()
            except ExecutorStartError as failure:
                logger.error("the executor does not start: %s", failure)
                attempt += 1
            else:
                break
        if self.state is EngineState.RECOVERING:
            self.state = EngineState.READY

    def _fail_all(self, reason: str) -> None:
        self._unreported.clear()
        for request_id in list(self.requests):
            self._scheduler.fail(request_id, ErrorCode.INTERNAL, reason)
            self._end(JobFailed(request_id, ErrorCode.INTERNAL, reason, 0.0))

    async def _sleep_until(self, until_s: float) -> None:
        """Returns when something has changed, or at a moment."""
        timer = None
        if until_s < math.inf:
            wait_s = max(until_s - self._clock(), 0.0)
            timer = asyncio.get_running_loop().call_later(wait_s, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            if timer is not None:
                timer.cancel()
        self._changed.clear()


def _cost_model(served: tuple[ServedModel, ...]) -> CostModel:
    """What was measured at the start, rendering included."""
    slowest_s = 1e6 * max(model.render_s_per_px for model in served)
    encode = {name: SideCost(0.001, slowest_s + 0.005) for name in ("png", "raw", "rle", "delta")}
    decode = dict.fromkeys((*images.MEDIA_TYPES.values(), images.DECODED), SideCost())
    return CostModel((model.profile for model in served), decode, encode)


def _time_of_day_s() -> float:
    """Since local midnight."""
    local = time.localtime()
    return local.tm_hour * 3600.0 + local.tm_min * 60.0 + local.tm_sec
