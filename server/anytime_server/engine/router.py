"""Several executors as one: each request is computed by the least loaded that takes it.

Each executor has a loop and a scheduler of its own, as the state of a half computed request lies
where it was computed. A request of which nothing has been computed can go to another executor, and
does when its own has died. The frames of a stream that reuses anything go to one executor, which
remembers them; after its death to another, where the next frame is computed as a whole.
"""

from __future__ import annotations

import asyncio
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from anytime_protocol.budget import Budget
from anytime_protocol.messages import DEFAULT_URGENCY
from anytime_protocol.resources import ServerBudget, ServerBudgetStatus
from anytime_server.core.decisions import Admitted, BudgetChange, Rejected
from anytime_server.core.routing import route
from anytime_server.engine.base import ActiveRequest, EngineState
from anytime_server.errors import DuplicateJobError

if TYPE_CHECKING:  # it only holds them
    from anytime_server.engine.loop import ExecutorLoop
    from anytime_server.executor.base import ServedModel
    from anytime_server.images import DecodedImage

_STATES = (
    EngineState.STARTING,
    EngineState.READY,
    EngineState.DRAINING,
    EngineState.RECOVERING,
    EngineState.CLOSED,
)
"""The first of these that one of the executors is in is the state of all."""


class Router:
    """See the module; has the methods of one `ExecutorLoop`.

    Args:
        loops: at least one, all with the same models; each knows its place in this list.
        clock: monotonic seconds, the same as theirs.

    Attributes:
        requests: the active requests by id.
    """

    def __init__(self, loops: Sequence[ExecutorLoop], clock: Callable[[], float]) -> None:
        self._loops = loops
        self._clock = clock
        self._of_stream: dict[str, ExecutorLoop] = {}
        for loop in loops:
            loop.on_lost = self._move_away
        self.requests: Mapping[str, ActiveRequest] = ChainMap(
            *(loop.requests for loop in self._loops)
        )

    @property
    def state(self) -> EngineState:
        """What they can do now; `READY` if one of them is, once all have started."""
        states = {loop.state for loop in self._loops}
        return next(state for state in _STATES if state in states)

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """What they serve by name; empty until the models are loaded."""
        return self._loops[0].models

    # Requests.

    def submit(self, request: ActiveRequest) -> Admitted | Rejected:
        """Has one of them take a request, or refuses it.

        Raises:
            DuplicateJobError: one with this id is active.
        """
        if request.id in self.requests:
            raise DuplicateJobError(request.id)
        self.take_exits()
        loops = self._candidates(request)
        first, *others = route([loop.scheduler for loop in loops])
        answer = loops[first].submit(request)
        for other in others:
            if isinstance(answer, Rejected):
                again = loops[other].submit(request)
                answer = again if isinstance(again, Admitted) else answer
        return answer

    def forget_stream(self, stream: str) -> None:
        """A stream is over; see `Engine.forget_stream`."""
        self._of_stream.pop(stream, None)
        for loop in self._loops:
            loop.forget_stream(stream)

    def cancel(self, request: ActiveRequest, *, discard: bool) -> None:
        """Ends an active request; see `Engine.cancel`."""
        self._of(request).cancel(request, discard=discard)

    def update_budget(self, request: ActiveRequest, budget: Budget, rev: int) -> BudgetChange:
        """Replaces a request's budget; see `Scheduler.update_budget`."""
        return self._of(request).update_budget(request, budget, rev)

    def image_ready(self, request: ActiveRequest, image: asyncio.Future[DecodedImage]) -> None:
        """Decoding that a job awaits is over, well or not."""
        self._of(request).image_ready(request, image)

    def note_encoding(self, request: ActiveRequest, elapsed_s: float) -> None:
        """See `Engine.note_encoding`; `elapsed_s` has rendering in it."""
        self._of(request).note_encoding(request, elapsed_s)

    def take_exits(self) -> None:
        """Brings all running requests up to date with the control blocks."""
        for loop in self._loops:
            loop.take_exits()

    def _of(self, request: ActiveRequest) -> ExecutorLoop:
        return self._loops[request.executor]

    def _move_away(self, lost: ExecutorLoop) -> None:
        """An executor has died: gives its requests to others that can still do them in time."""
        ready = self._ready()
        for request in list(lost.requests.values()) if ready else []:
            job, now = replace(request.job), self._clock()  # a copy: it may stay where it is
            for chosen in route([loop.scheduler for loop in ready]):
                admitted = isinstance(ready[chosen].scheduler.offer(job, now), Admitted)
                if admitted and lost.release(request):
                    ready[chosen].submit(request)
                    break

    def _candidates(self, request: ActiveRequest) -> Sequence[ExecutorLoop]:
        """The executors that may compute a request: of a stream with memory the one that has it."""
        ready = self._ready() or list(self._loops)
        stream = request.job.stream
        if stream is None:
            return ready
        bound = self._of_stream.get(stream)
        if bound is None or bound not in ready:
            bound = self._of_stream[stream] = ready[route([loop.scheduler for loop in ready])[0]]
        return [bound]

    def _ready(self) -> list[ExecutorLoop]:
        return [loop for loop in self._loops if loop.state is EngineState.READY]

    # The operator.

    def operator_limits(self) -> Budget:
        """See `Engine.operator_limits`; all executors have the same."""
        return self._loops[0].scheduler.server_limits.at(self._clock())

    def server_budget(self) -> ServerBudgetStatus:
        """See `Engine.server_budget`; what is in force is that of the executor with most load."""
        self.take_exits()
        schedulers = [loop.scheduler for loop in self._loops]
        limits = max(schedulers, key=lambda scheduler: scheduler.load_s).server_limits
        return ServerBudgetStatus(
            budget=limits.budget,
            effective=limits.in_force(self._clock(), DEFAULT_URGENCY),
            in_flight=len(self.requests),
            queued=sum(request.first_s is None for request in self.requests.values()),
            load_s=sum(scheduler.load_s for scheduler in schedulers),
            slowdown=max(scheduler.costs.slow_down.mean for scheduler in schedulers),
        )

    def set_server_budget(self, budget: ServerBudget, time_of_day_s: float) -> None:
        """Replaces the operator's budget of each, so many seconds after local midnight."""
        for loop in self._loops:
            loop.set_server_budget(budget, time_of_day_s)

    # Life.

    async def start(self) -> None:
        """Starts all executors; requests are admitted afterwards.

        Raises:
            ExecutorStartError: one of them cannot start.
        """
        starting = [asyncio.ensure_future(loop.start()) for loop in self._loops]
        try:
            await asyncio.gather(*starting)
        finally:
            for start in starting:
                start.cancel()

    async def run(self) -> None:
        """Runs until cancelled; whatever ends it, no request is left without its end."""
        await asyncio.gather(*(loop.run() for loop in self._loops))

    async def drain(self) -> None:
        """Admits no more, and returns when the last request has ended."""
        await asyncio.gather(*(loop.drain() for loop in self._loops))

    def end_all(self) -> None:
        """Ends every request at once, with what there is of it."""
        for loop in self._loops:
            loop.end_all()
