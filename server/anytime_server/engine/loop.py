"""The one loop that carries out what the scheduler decides.

Decide, execute, hear what happened meanwhile, complete: this module turns the scheduler's answers
into calls of the executor, and the executor's replies into reports to the scheduler. It owns both,
and the tickets of all requests in the house, each of which gets exactly one `Ended`, whatever
happens. It decides nothing about order, depth or time, knows neither torch nor sockets, and takes
its clock as an argument.

* While a stage runs, the scheduler is asked whether it is still worth finishing: at once when a
  client or operator says something, when its time is up, and every `_LOOK_S` besides where limits
  have been changed or change with time.
* Stages that follow each other anyway are one call of the executor. Its exits are noted when
  somebody says something, and at the end: waking up for each takes time from the core that computes
  (1 ms a stage at 480x360, of 20).
* A map is made into a picture when its client wants each exit, when the request ends, and before
  another request gets the executor; so a request that ends while another one computes has its
  picture already.
* A crash of the executor ends all requests in the house with an error; until it has started again,
  new ones are refused.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from typing import Any, Final

from anytime_protocol.budget import Budget, tightest
from anytime_protocol.client_messages import DEFAULT_URGENCY
from anytime_protocol.enums import ErrorCode
from anytime_server.core.jobs import (
    Admitted,
    BudgetAnswer,
    Ending,
    ExitMade,
    Failed,
    Finish,
    Idle,
    Outcome,
    Rejected,
    Run,
    Wait,
)
from anytime_server.core.jobs import (
    Final as JobFinal,
)
from anytime_server.core.limits import Clock as ScheduleClock
from anytime_server.core.limits import ServerBudget
from anytime_server.core.scheduler import Scheduler
from anytime_server.engine.active import House
from anytime_server.engine.requests import Ticket
from anytime_server.executor.base import (
    Executor,
    ExecutorCallError,
    ExecutorCrashedError,
    ExecutorStartError,
    ServedModel,
    StageDone,
    StageStopped,
    View,
)
from anytime_server.images import Decoded, ImageError
from anytime_server.metrics import Metrics

logger = logging.getLogger(__name__)

Clock = Callable[[], float]
Load = Callable[[], Awaitable[Decoded]]

_LOOK_S: Final = 0.005
"""Between two looks at a stage whose limits move; 200 looks a second cost some 5 % of a core."""

_OVERRUN: Final = 20.0
_OVERRUN_S: Final = 60.0
"""A stage is given up after this multiple of its predicted time and this many seconds more."""

_RESTART_S: Final = (0.0, 0.5, 2.0, 10.0)
"""Waits before the executor is started again; the last repeats."""


class State(Enum):
    """What the house can do now."""

    STARTING = "starting"
    READY = "ready"
    RECOVERING = "recovering"
    DRAINING = "draining"
    CLOSED = "closed"


class EngineLoop:
    """See the module.

    Args:
        executor: computes.
        metrics: counts.
        make_scheduler: makes the scheduler once the executor has measured its models.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        executor: Executor,
        metrics: Metrics,
        make_scheduler: Callable[[tuple[ServedModel, ...]], Scheduler],
        clock: Clock = time.monotonic,
    ) -> None:
        self.clock = clock
        self.state = State.STARTING
        self.models: dict[str, ServedModel] = {}
        self._executor = executor
        self._metrics = metrics
        self._make_scheduler = make_scheduler
        self._scheduler: Scheduler | None = None
        self._house = House(executor, metrics, clock)
        self._endings: deque[Ending] = deque()
        self._wake = asyncio.Event()
        self._running: Run | None = None
        self._stage_began_s = clock()
        self._budget_set_s = clock()
        self._limits_move = False

    # What adapters say.

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler; there is one as soon as the state has been `READY` once."""
        if self._scheduler is None:
            raise RuntimeError("the engine loop has not been started")
        return self._scheduler

    @property
    def tickets(self) -> dict[str, Ticket]:
        """The requests in the house by id; not to be changed."""
        return self._house.tickets

    @property
    def running(self) -> str | None:
        """Id of the request that computes now."""
        return None if self._running is None else self._running.job_id

    @property
    def pixels(self) -> int:
        """Px of all requests in the house."""
        return sum(ticket.pixels for ticket in self.tickets.values())

    def submit(self, ticket: Ticket, load: Load) -> Admitted | Rejected:
        """Takes a request or refuses it.

        Args:
            ticket: the request.
            load: decodes its image, or raises `images.ImageError`; called at once if it is taken.

        Raises:
            DuplicateJobError: one with this id is in the house.
        """
        job = ticket.job
        self.catch_up()
        if self.state in {State.STARTING, State.RECOVERING, State.CLOSED}:
            text = f"the server is {self.state.value}; ask again shortly"
            answer: Admitted | Rejected = Rejected(job.id, ErrorCode.NOT_READY, text, 1.0)
        else:
            answer = self.scheduler.submit(job, self.clock())
        if isinstance(answer, Rejected):
            self._metrics.rejected(job.model, answer.code)
            return answer
        self._executor.hold()  # the running request is not alone any more
        ticket.image = asyncio.ensure_future(load())
        ticket.image.add_done_callback(_retrieve)
        ticket.ready_s = self.clock()
        self._house.enter(ticket)
        self._wake.set()
        return answer

    def cancel(self, job_id: str, *, discard: bool) -> None:
        """Ends a request; unknown ids are ignored.

        Args:
            job_id: the request.
            discard: nobody wants to see its map any more.
        """
        self.catch_up()
        ticket = self.tickets.get(job_id)
        if ticket is None:
            return
        ticket.discarded = ticket.discarded or discard
        if ticket.cancelled_s is None:
            ticket.cancelled_s = self.clock()
        self._take(self.scheduler.cancel(job_id, self.clock()))
        self._look()

    def update_budget(self, job_id: str, budget: Budget, rev: int) -> BudgetAnswer:
        """Replaces a request's budget; see `Scheduler.update_budget`."""
        self.catch_up()
        answer = self.scheduler.update_budget(job_id, budget, rev, self.clock())
        ticket = self.tickets.get(job_id)
        if ticket is not None:
            ticket.limits_move = True
        self._look()
        return answer

    def set_server_budget(self, budget: ServerBudget) -> None:
        """Replaces the operator's budget."""
        self.catch_up()
        self._budget_set_s = self.clock()
        self.scheduler.set_server_budget(budget, self._budget_set_s, _time_of_day_s())
        self._limits_move = True
        self._look()

    def server_limits(self) -> Budget:
        """What the operator's budget allows every request now, load caps included."""
        budget = self.scheduler.server_budget
        daily = budget.clock is ScheduleClock.DAILY
        limits = budget.at(_time_of_day_s() if daily else self.clock() - self._budget_set_s)
        engaged = budget.engage((), self.scheduler.load_s)
        cap = budget.load_cap(engaged, DEFAULT_URGENCY)
        return limits if cap == math.inf else tightest(limits, Budget(max_exit=int(cap)))

    def encoded(self, ticket: Ticket, elapsed_s: float) -> None:
        """An adapter spent `elapsed_s` on encoding an exit that it had been shown."""
        ticket.encode_s += elapsed_s
        shown = ticket.shown
        whole_s = elapsed_s + (shown.picture.elapsed_s if shown else 0.0)
        self._metrics.encoded(ticket.job.encoding, whole_s)
        self.scheduler.costs.observe_encode(ticket.job.encoding, ticket.pixels, whole_s)

    def catch_up(self) -> None:
        """Notes the exits that the executor has made without waking anybody up.

        To be called before tickets or the scheduler are asked how far a request has come.
        """
        if self._running is None:
            return
        ticket = self.tickets[self._running.job_id]
        for done in self._executor.made():
            run = self._running
            self._stage_began_s += done.elapsed_s
            self._running = self.scheduler.go_on(
                run.job_id, run.stage, done.elapsed_s, done.result, self._stage_began_s
            )
            self._done(ticket, run, done)
            self._house.made(
                ticket, ExitMade(run.job_id, run.stage, done.result), self._stage_began_s
            )

    async def drain(self) -> None:
        """Admits no more, and returns when the last request has ended."""
        if self.state is not State.CLOSED:
            self.state = State.DRAINING
        self.catch_up()
        if self._scheduler is not None:
            self._take(self._scheduler.drain(self.clock()))
        self._look()
        await self._house.empty.wait()

    # The loop.

    async def start(self) -> None:
        """Starts the executor; requests are admitted afterwards.

        Raises:
            ExecutorStartError: it cannot start.
        """
        served = await self._executor.start()
        self.models = {model.info.name: model for model in served}
        self._scheduler = self._make_scheduler(served)
        if self.state is State.STARTING:
            self.state = State.READY

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
                    # A mistake of ours: nobody knows what the executor is at, so begin afresh.
                    logger.exception("the engine loop failed")
                    await self._recover("the server made a mistake")
        finally:
            self.state = State.CLOSED
            for job_id in list(self.tickets):
                text = "the server was stopped"
                self._house.leave(Failed(job_id, ErrorCode.INTERNAL, text, 0.0))

    async def _step(self) -> None:
        self._wake.clear()
        while self._endings:
            await self._house.finish(self._endings.popleft())
        match self.scheduler.decide(self.clock()):
            case Finish(ending=ending):
                await self._house.finish(ending)
            case Run() as run:
                self._running = run
                try:
                    await self._stage(run)
                finally:
                    self._running = None
            case Wait(until_s=until_s):
                await self._sleep(math.inf if until_s is None else until_s - self.clock())
            case Idle():
                await self._sleep(math.inf)

    async def _stage(self, run: Run) -> None:
        """Carries out one `Run`, and reports each stage to the scheduler exactly once."""
        ticket = self.tickets[run.job_id]
        began_s, before_s = self.clock(), ticket.compute_s
        try:
            await self._show_others(ticket)
            if not ticket.begun and not await self._hand_over(ticket):
                outcomes = self.scheduler.abandon(run.job_id, run.stage, 0.0, self.clock())
            else:
                began_s = self.clock()
                ticket.queue_s += max(began_s - ticket.ready_s, 0.0)
                ticket.first_s = ticket.first_s or began_s
                self._stage_began_s = began_s
                reply = await self._watch(run)
                outcomes = self._report(ticket, self._running or run, reply)
        except ImageError as error:
            outcomes = self.scheduler.fail(run.job_id, error.code, str(error))
        except ExecutorCallError as error:
            logger.error("request %s: %s", run.job_id, error)
            outcomes = self.scheduler.fail(run.job_id, ErrorCode.INTERNAL, str(error))
        ticket.ready_s = self.clock()
        stages_s = ticket.compute_s - before_s
        self._metrics.overhead(max(ticket.ready_s - began_s - stages_s, 0.0))
        for outcome in outcomes:
            match outcome:
                case ExitMade():
                    if ticket.want.progress:
                        await self._house.show(ticket)
                case JobFinal() | Failed():
                    await self._house.finish(outcome)
        ticket.ready_s = self.clock()

    async def _hand_over(self, ticket: Ticket) -> bool:
        """Waits for the image and gives it to the executor; False if it is not wanted any more.

        Raises:
            ImageError: it cannot be decoded.
        """
        if ticket.image is None:
            raise RuntimeError(f"request {ticket.id} was not submitted")
        ticket.image.add_done_callback(self._wake_up)
        while not ticket.image.done():
            if self.scheduler.should_stop(ticket.id, self.clock()) is not None:
                return False
            await self._sleep(_LOOK_S)
        try:
            decoded = ticket.image.result()
        except ImageError:
            raise
        except Exception as error:
            logger.exception("decoding for request %s failed", ticket.id)
            raise ExecutorCallError(f"{type(error).__name__} while decoding") from error
        ticket.decode_s = decoded.elapsed_s
        ticket.queue_s -= min(decoded.elapsed_s, self.clock() - ticket.ready_s)
        self._metrics.decoded(decoded.elapsed_s)
        # Images are decoded while others compute; elapsed time would mostly tell of those.
        self.scheduler.decoded(ticket.id, decoded.cpu_s)
        self._executor.begin(ticket.id, ticket.job.model, decoded.image)
        ticket.begun, ticket.image = True, None
        return True

    async def _watch(self, run: Run) -> StageDone | StageStopped:
        """Runs stages, stops them when not worth finishing, and ends others meanwhile.

        Returns:
            How the last one ended, which is that of `_running`; those before it are noted.
        """
        ticket = self.tickets[run.job_id]
        through = run.stage if ticket.want.progress else run.through
        ahead = run.goes_on and through == run.stage
        view = self._view_of(ticket, run.depth, through)
        stage = asyncio.ensure_future(
            self._executor.run(run.job_id, run.stage, view, through=through, go_ahead=ahead)
        )
        stage.add_done_callback(self._wake_up)
        patience_s = self.clock() + _OVERRUN_S + _OVERRUN * run.predicted_s
        try:
            while not stage.done():
                self.catch_up()
                now = self.clock()
                stop = self.scheduler.should_stop(run.job_id, now)
                if stop is not None or now > patience_s:
                    self._executor.stop()
                others_s = self._end_others()
                moving = stop is not None or ticket.limits_move or self._limits_move
                stop_at_s = (self._running or run).stop_at_s
                look_s = now + _LOOK_S if moving or stop_at_s <= now else stop_at_s
                await self._sleep(min(patience_s, others_s, look_s) - now)
            return stage.result()
        finally:
            self.catch_up()
            if not stage.done():  # the server is being stopped
                self._executor.stop()
                stage.cancel()

    def _view_of(self, ticket: Ticket, depth: int, stage: int) -> View | None:
        """How to show an exit at once, if it is likely that somebody will look at it."""
        likely = ticket.want.progress or stage >= depth
        return ticket.view if likely and not ticket.discarded else None

    def _end_others(self) -> float:
        """Ends requests whose time has come while another one computes.

        One that still needs a picture has to wait for the executor.

        Returns:
            When to look again.
        """
        decision = self.scheduler.decide(self.clock())
        while isinstance(decision, Finish):
            self._endings.append(decision.ending)
            decision = self.scheduler.decide(self.clock())
        for _ in range(len(self._endings)):
            ending = self._endings.popleft()
            if not self._house.finish_now(ending):
                self._endings.append(ending)
        until_s = decision.until_s if isinstance(decision, Wait) else None
        return math.inf if until_s is None else until_s

    def _report(self, ticket: Ticket, run: Run, reply: StageDone | StageStopped) -> list[Outcome]:
        """Tells the scheduler how a stage ended."""
        now = self.clock()
        match reply:
            case StageDone(result=result, elapsed_s=elapsed_s, picture=picture):
                outcomes = self.scheduler.complete(run.job_id, run.stage, elapsed_s, result, now)
                self._done(ticket, run, reply)
                if any(isinstance(outcome, ExitMade) for outcome in outcomes):
                    made = ExitMade(run.job_id, run.stage, result)
                    self._house.made(ticket, made, now, picture)
            case StageStopped(elapsed_s=elapsed_s):
                ticket.compute_s += elapsed_s
                outcomes = self.scheduler.abandon(run.job_id, run.stage, elapsed_s, now)
                self._metrics.stage_stopped(ticket, now)
        return outcomes

    def _done(self, ticket: Ticket, run: Run, done: StageDone) -> None:
        """Counts what a stage has cost that ended by itself."""
        ticket.compute_s += done.elapsed_s
        ticket.gmacs += done.result.gmacs
        self._metrics.stage_done(ticket, run, done.elapsed_s, self.scheduler)

    # Ends.

    async def _show_others(self, chosen: Ticket) -> None:
        """Makes pictures for requests that may end while `chosen` computes."""
        for ticket in self._house.unseen():
            if ticket is not chosen:
                try:
                    await self._house.picture(ticket)
                except ExecutorCallError as error:
                    self._take(self.scheduler.fail(ticket.id, ErrorCode.INTERNAL, str(error)))
                    ticket.discarded = True

    async def _recover(self, reason: str) -> None:
        """Ends what was lost and starts the executor again, as often as it takes."""
        self._metrics.crashed()
        if self.state is State.READY:
            self.state = State.RECOVERING
        for job_id in list(self.tickets):
            self.scheduler.fail(job_id, ErrorCode.INTERNAL, reason)
            self._house.leave(Failed(job_id, ErrorCode.INTERNAL, reason, 0.0))
        self._endings.clear()
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
        if self.state is State.RECOVERING:
            self.state = State.READY

    # Waiting.

    def _take(self, outcomes: Iterable[Outcome]) -> None:
        """Notes ends that came about outside the loop."""
        self._endings.extend(o for o in outcomes if isinstance(o, JobFinal | Failed))

    def _look(self) -> None:
        """Something has changed: stop the running stage if need be, and have the loop look."""
        self._executor.hold()
        run = self._running
        if run is not None and self.scheduler.should_stop(run.job_id, self.clock()) is not None:
            self._executor.stop()
        self._wake.set()

    async def _sleep(self, wait_s: float) -> None:
        """Returns when something has changed, or after `wait_s`."""
        timer = None
        if wait_s < math.inf:
            timer = asyncio.get_running_loop().call_later(max(wait_s, 0.0), self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()
        self._wake.clear()

    def _wake_up(self, _: asyncio.Future[Any]) -> None:
        """Something that was under way is done."""
        self._wake.set()


def _time_of_day_s() -> float:
    """Since local midnight."""
    local = time.localtime()
    return local.tm_hour * 3600.0 + local.tm_min * 60.0 + local.tm_sec


def _retrieve(image: asyncio.Future[Decoded]) -> None:
    """Takes note of an exception that nobody may ask for, as its request has ended before."""
    if not image.cancelled():
        image.exception()
