"""A loop over one executor: carries out what the scheduler decides.

It turns the scheduler's decisions into calls of the executor and the executor's reports into calls
of the scheduler, and owns both, and the active requests, each of which gets exactly one
`RequestEnded`, whatever happens. Order, depth and time are the scheduler's to decide.

* While a run is under way, whatever changes what it may do (a request, a cancel, a budget, a
  schedule's next entry) is written into the control block at once (`_update_run`).
* An exit is rendered by the executor as part of the run when its client wants each exit or the run
  ends; what was missed is rendered before another request gets the executor, so that a request that
  ends while another one computes has its best map ready.
* A crash of the executor ends the request that it was busy with in an error. All others begin
  again, with another executor or when it has started again, if their deadlines allow; what was
  shown of them stays shown. It takes no new ones meanwhile.
* A request is answered soon after its deadline even where the executor does not react at all.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from anytime_protocol.budget import Budget
from anytime_protocol.enums import ErrorCode
from anytime_protocol.resources import ServerBudget
from anytime_server.core.costs import CostModel
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
from anytime_server.core.jobs import JobState
from anytime_server.core.scheduler import Scheduler
from anytime_server.core.settings import SchedulerSettings
from anytime_server.engine.alarm import Alarm
from anytime_server.engine.base import ActiveRequest, EngineState, RequestEnded
from anytime_server.engine.idle_checks import IdleChecks
from anytime_server.engine.starter import Starter, first_costs
from anytime_server.errors import ExecutorCallError, ExecutorCrashedError, ImageRejectedError
from anytime_server.executor.base import Executor, RenderedExit, RunEnd, ServedModel
from anytime_server.images import DecodedImage, Image
from anytime_server.metrics import Metrics

logger = logging.getLogger(__name__)

_OVERRUN: Final = 20.0
_OVERRUN_S: Final = 60.0
"""A run is given up after this multiple of its predicted time and this many seconds more. An
executor that shows no sign of life has been killed long before."""


class ExecutorLoop:
    """See the module.

    Args:
        executor: computes.
        metrics: counts.
        settings: of the scheduler.
        clock: monotonic seconds, the same in the executor.
        on_ended: called with each request that has ended, before its client is told.
        number: of the executor, from 0.

    Attributes:
        on_lost: called when the executor has died; may `release` requests.
        scheduler: decides.
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
        *,
        number: int = 0,
    ) -> None:
        self.on_lost: Callable[[ExecutorLoop], None] = lambda _: None
        self.state = EngineState.STARTING
        self.models: dict[str, ServedModel] = {}
        self.requests: dict[str, ActiveRequest] = {}
        self._executor, self._metrics = executor, metrics
        metrics.has_executor(number, lambda: executor.resident_bytes)
        self._number, self._on_ended = number, on_ended
        self._settings, self._clock = settings, clock
        self.scheduler = Scheduler(CostModel(()), settings=settings)
        self._unreported: deque[Ending] = deque()
        self._running: ActiveRequest | None = None
        self._give_up_s = math.inf
        self._busy_since_s = math.inf  # since when the loop has not waited for anything to do
        self._changed = Alarm(clock)
        self._starter = Starter(executor, self._changed.set)
        self._checks = IdleChecks(executor, metrics.frame_checked, clock)
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
        answer = self.scheduler.submit(job, self._clock())
        late = isinstance(answer, Rejected) and answer.code is ErrorCode.DEADLINE_EXCEEDED
        if isinstance(answer, Admitted) or request.frame or (late and not self.requests):
            self._get_ready(job, sides=1)  # while it is decoded, or for the next
        if isinstance(answer, Admitted):
            request.ready_s, request.executor = self._clock(), self._number
            self.requests[request.id] = request
            self._metrics.active_requests(self._number, len(self.requests))
            self._empty.clear()
            self._update_run()
        return answer

    def release(self, request: ActiveRequest) -> bool:
        """Gives a request up for another loop, and says whether it can; see `Scheduler.release`."""
        return self.scheduler.release(request.id) and self._remove(request.id) is not None

    def cancel(self, request: ActiveRequest, *, discard: bool) -> None:
        """Ends an active request; see `Engine.cancel`."""
        self.take_exits()
        request.discarded = request.discarded or discard
        if request.cancelled_s is None:
            request.cancelled_s = self._clock()
        ending = self.scheduler.cancel(request.id)
        if ending is not None:
            self._unreported.append(ending)
        self._update_run()

    def update_budget(self, request: ActiveRequest, budget: Budget, rev: int) -> BudgetChange:
        """Replaces a request's budget; see `Scheduler.update_budget`."""
        self.take_exits()
        change = self.scheduler.update_budget(request.id, budget, rev)
        self._update_run()
        return change

    def forget_stream(self, stream: str) -> None:
        """A stream is over; see `Engine.forget_stream`."""
        self.scheduler.costs.forget_stream(stream)
        self._checks.forget_stream(stream)

    def image_ready(self, request: ActiveRequest, image: asyncio.Future[DecodedImage]) -> None:
        """Decoding that a job awaits is over, well or not."""
        failed = image.cancelled() or image.exception() is not None
        self.scheduler.image_decoded(request.id, None if failed else image.result().cpu_s)
        self._update_run()

    def note_encoding(self, request: ActiveRequest, elapsed_s: float) -> None:
        """See `Engine.note_encoding`; `elapsed_s` has rendering in it."""
        job = request.job
        self.scheduler.costs.observe_encode(job.encoding, job.pixels, elapsed_s)

    # The operator.

    def set_server_budget(self, budget: ServerBudget, time_of_day_s: float) -> None:
        """Replaces the operator's budget, so many seconds after local midnight."""
        self.take_exits()
        self.scheduler.set_server_budget(budget, self._clock(), time_of_day_s)
        self._update_run()

    async def drain(self) -> None:
        """Admits no more, and returns when the last request has ended."""
        if self.state is not EngineState.CLOSED:
            if self.state is EngineState.RECOVERING:
                self._end_all(ErrorCode.DRAINING, "the server is shutting down")
            self.state = EngineState.DRAINING
        self.take_exits()
        self._unreported.extend(self.scheduler.drain())
        self._update_run()
        await self._empty.wait()

    def end_all(self) -> None:
        """Ends every request at once, with what there is of it."""
        self._end_all(ErrorCode.DRAINING, "the server is shutting down")
        self._update_run()

    # The loop.

    async def start(self) -> None:
        """Starts the executor; requests are admitted afterwards.

        Raises:
            ExecutorStartError: it cannot start.
        """
        served = await self._starter.start()
        self.models = {model.info.name: model for model in served}
        self.scheduler = Scheduler(first_costs(served), settings=self._settings)
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
                    await self._recover()
                except Exception:
                    # A fault of ours: the executor's state is unknown, so begin afresh.
                    logger.exception("the engine loop failed")
                    self._end_all(ErrorCode.INTERNAL, "the server failed internally")
                    await self._recover()
        finally:
            self.state = EngineState.CLOSED
            self._end_all(ErrorCode.INTERNAL, "the server was stopped")

    async def _step(self) -> None:
        self._starter.check()
        self._changed.clear()
        while self._unreported:
            await self._render_and_end(self._unreported.popleft())
        match self.scheduler.decide(self._clock()):
            case EndJob(ending=ending):
                await self._render_and_end(ending)
            case RunJob() as run:
                await self._run(run, self.requests[run.job_id])
            case Wait(until_s=until_s):
                until_s = math.inf if until_s is None else until_s
                if self.requests or not await self._checks.run_next(self._changed, until_s):
                    await self._changed.wait_until(until_s)
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
            self._starter.check()
            if image is None and not request.has_begun:
                ending = self.scheduler.run_ended(run.job_id, 0.0, self._clock())
            else:
                ending = await self._compute(run, request, image)
        except ImageRejectedError as error:
            ending = self.scheduler.fail(run.job_id, error.code, str(error))
        except ExecutorCallError as error:
            logger.error("request %s: %s", run.job_id, error)
            ending = self.scheduler.fail(run.job_id, error.code, str(error))
        finally:
            self._running = None
            request.ready_s = self._clock()
        busy_s = request.ready_s - min(self._busy_since_s, began_s)
        overhead_s = max(busy_s - request.compute_s + before_s, 0.0)
        self._metrics.overhead(overhead_s)
        self.scheduler.costs.observe_overhead(max(overhead_s - waited_s, 0.0))
        self._busy_since_s = request.ready_s
        if ending is not None:
            await self._render_and_end(ending)
        elif request.must_render():
            await self._render_or_fail(request)

    async def _compute(
        self, run: RunJob, request: ActiveRequest, image: Image | None
    ) -> Ending | None:
        """Has the executor compute a run, and follows what changes meanwhile."""
        now = self._clock()
        request.queue_s += max(now - request.ready_s, 0.0)
        request.first_s = request.first_s or now
        self._give_up_s = now + _OVERRUN_S + _OVERRUN * run.predicted_s
        limits = self._run_limits()
        # While others wait they are next, and this exit would be rendered by itself before.
        render_now = limits.last_stage >= run.depth or len(self.requests) > 1
        render = None
        if not request.discarded and (request.want.progress or render_now):
            render = request.render_options
        if not request.has_begun:
            request.choose_risk(run.max_risk)
            self._checks.frame_begins(request)
        command = request.command(run.stage, limits, image, render)
        request.has_begun = True
        on_exit = partial(self._exit_made, request)
        with self._blaming(request):
            call = asyncio.ensure_future(self._executor.run(command, on_exit, self._changed.set))
        try:
            while not call.done():
                until_s = min(self._end_others(), self._end_overdue(request))
                self._apply_run_limits()  # later than what `until_s` counts from
                await self._changed.wait_until(until_s)
            with self._blaming(request):
                end = call.result()
        finally:
            self.take_exits()
            if not call.done():  # the server is being stopped
                call.cancel()
        return self._run_ended(request, end)

    def _run_ended(self, request: ActiveRequest, end: RunEnd) -> Ending | None:
        now = self._clock()
        if end.rendered is not None:
            request.keep(end.rendered)
        if end.wasted_s:
            request.compute_s += end.wasted_s
            self._metrics.stage_stopped(request, now)
        self._metrics.engine_memory(self._number, self._executor.engine_bytes)
        ending = self.scheduler.run_ended(request.id, end.wasted_s, now)
        if ending is None and end.rendered is not None and request.want.progress:
            request.show_best()
        return ending

    def _exit_made(self, request: ActiveRequest, rendered: RenderedExit | None) -> None:
        """The executor has made an exit in the middle of a run, and tells so."""
        self.take_exits()  # so that there is a report for the rendering
        if rendered is not None:
            request.keep(rendered)
            if request.id in self.requests and request.want.progress:
                request.show_best()
        self._update_run()

    def take_exits(self) -> None:
        """Brings the running request and the scheduler up to date with the control block."""
        request = self._running
        if request is None:
            return
        costs = self.scheduler.costs
        for report in self._executor.take_exits():
            failed = self.scheduler.exit_made(request.id, report)
            request.compute_s += report.elapsed_s
            request.gmacs += report.gmacs
            self._metrics.stage_done(request, report, costs.slow_down.mean, costs.last_error)
            if failed is not None:
                self._unreported.append(failed)
            elif request.cancelled_s is None and request.ended_s is None:
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
        limits = self.scheduler.run_limits(self._clock())
        return limits._replace(stop_at_s=min(limits.stop_at_s, self._give_up_s))

    async def _decoded_image(self, request: ActiveRequest) -> Image | None:
        """Waits for a request's image; see `ActiveRequest.decoded_image`."""
        decoded = await request.decoded_image(self._changed, self.scheduler.run_limits)
        if decoded is None:
            return None
        if request.note_decoded(decoded, self._clock()):
            self._metrics.decoded(decoded.elapsed_s)
        # Images are decoded while others compute; elapsed time would mostly tell of those.
        self.scheduler.image_decoded(request.id, decoded.cpu_s)
        return decoded.image

    # Rendering and endings.

    async def _render(self, request: ActiveRequest) -> None:
        """Has the executor render a request's last exit, and shows it if that is wanted.

        Raises:
            ExecutorCrashedError, ExecutorCallError: see there.
        """
        request.queue_s += max(self._clock() - request.ready_s, 0.0)
        with self._blaming(request):
            rendered = await self._executor.render(request.id, request.render_options)
        request.keep(rendered)
        request.ready_s = self._clock()
        if request.want.progress and request.id in self.requests and not request.discarded:
            request.show_best()

    async def _render_others(self, chosen: ActiveRequest) -> None:
        """Renders exits of requests that may end while `chosen` computes."""
        for request in list(self.requests.values()):
            if request is not chosen and request.has_unrendered_exit and not request.discarded:
                await self._render_or_fail(request)

    async def _render_or_fail(self, request: ActiveRequest) -> None:
        """Renders a request's last exit; a fault ends this request alone."""
        try:
            await self._render(request)
        except ExecutorCallError as error:
            failed = self.scheduler.fail(request.id, error.code, str(error))
            if failed is not None:
                self._unreported.append(failed)

    async def _render_and_end(self, ending: Ending) -> None:
        """Ends a request with its best map rendered.

        Raises:
            ExecutorCrashedError: see there; the request has ended in an error.
        """
        request = self.requests.get(ending.job_id)
        if request is not None and request.must_render(ending):
            try:
                await self._render(request)
            except ExecutorCallError as error:
                logger.error("request %s: %s", request.id, error)
                ending = JobFailed(request.id, error.code, str(error), request.compute_s)
        try:
            if request is not None and request.must_finish():
                await self._finish_frame(request)
        finally:
            self._end(ending)

    async def _finish_frame(self, request: ActiveRequest) -> None:
        """Tells the executor that a frame of a stream is over, and learns what it has reused."""
        if request.want.progress:
            request.show_best()
        await self._checks.finish_frame(request)

    def _end_others(self) -> float:
        """Ends requests whose time has come while another one computes.

        One that the executor still has to do something for waits for it.

        Returns:
            When to look again.
        """
        self.take_exits()
        while isinstance(decision := self.scheduler.decide(self._clock()), EndJob):
            self._unreported.append(decision.ending)
        for _ in range(len(self._unreported)):
            ending = self._unreported.popleft()
            request = self.requests.get(ending.job_id)
            if request and (request.must_render(ending) or request.must_finish()):
                self._unreported.append(ending)
            else:
                self._end(ending)
        until_s = decision.until_s if isinstance(decision, Wait) else None
        return math.inf if until_s is None else until_s

    def _end_overdue(self, request: ActiveRequest) -> float:
        """Ends the request that is computed if its deadline is over and nothing comes of its run.

        Returns:
            When to look again.
        """
        overdue_s = self.scheduler.overdue_s(self._clock())
        if self._clock() < overdue_s:
            return overdue_s
        logger.warning("the executor has not stopped request %s at its deadline", request.id)
        self._abandon(request, ErrorCode.DEADLINE_EXCEEDED, "no map came in time")
        return math.inf

    def _abandon(self, request: ActiveRequest, code: ErrorCode, detail: str) -> None:
        """Ends a request whose run may still be under way; what that makes is dropped."""
        self.scheduler.abandon(request.id)
        self._end(JobFailed(request.id, code, detail, 0.0))
        request.discarded = True

    def _end(self, ending: Ending) -> None:
        """The only place where a request ends; one that has ended is ignored."""
        request = self._remove(ending.job_id)
        if request is None:
            return
        ending = request.ending_with_best(ending)
        if request.image is not None:
            request.image.cancel()
            request.image = None
        if request.has_begun:
            self._executor.forget(request.id)
        now = request.ended_s = self._clock()
        request.queue_s += max(now - request.ready_s, 0.0)
        self._metrics.ended(request, ending, now)
        unwanted = request.discarded or isinstance(ending, JobFailed)
        best, request.best = request.best, None
        if self.state is EngineState.READY and not (self.requests or unwanted):
            self._get_ready(request.job, sides=None)  # for sizes that deadlines keep runs from
        self._on_ended(request)
        try:
            request.on_event(RequestEnded(ending, None if unwanted else best))
        except Exception:
            # A fault of an adapter must not end the loop that all others depend on.
            logger.exception("the callback of request %s failed", request.id)

    def _get_ready(self, job: JobState, sides: int | None) -> None:
        if self.scheduler.get_ready(job, sides):
            self._executor.prepare(job.model, (job.height, job.width), sides)

    def _remove(self, request_id: str) -> ActiveRequest | None:
        request = self.requests.pop(request_id, None)
        self._metrics.active_requests(self._number, len(self.requests))
        if not self.requests:
            self._empty.set()
        return request

    @contextmanager
    def _blaming(self, request: ActiveRequest) -> Iterator[None]:
        """Ends a request in an error if the executor dies of it, so that it is not tried again."""
        try:
            yield
        except ExecutorCrashedError as error:
            failed = self.scheduler.fail(request.id, ErrorCode.INTERNAL, str(error))
            self._end(failed or JobFailed(request.id, ErrorCode.INTERNAL, str(error), 0.0))
            raise

    async def _recover(self) -> None:
        """Has all requests that are left begin again, and starts the executor as often as needed.

        While the server drains, they are ended instead: it would take longer than they may.
        """
        self._metrics.crashed(self._number)
        if self.state is EngineState.DRAINING:
            self.end_all()
            return
        self.state = EngineState.RECOVERING
        self.scheduler.executor_lost()
        self._checks.forget_all()
        for request in self.requests.values():
            request.restart()
        self.on_lost(self)
        starting = asyncio.ensure_future(self._starter.start_again())
        starting.add_done_callback(lambda _: self._changed.set())
        try:
            while not starting.done():
                await self._changed.wait_until(self._end_others())
            starting.result()
        finally:
            starting.cancel()
        self.scheduler.executor_started()
        if self.state is EngineState.RECOVERING:
            self.state = EngineState.READY

    def _end_all(self, code: ErrorCode, detail: str) -> None:
        self._unreported.clear()
        for request in list(self.requests.values()):
            self._abandon(request, code, detail)
