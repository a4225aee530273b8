"""The engine as the API knows it: submit a request, cancel it, update its budget, ask its status.

`local.LocalEngine` implements it over the executors of one machine. An active request is one record
of everything that the engine and the API know about it. What happens to it is told through its
callback, on the event loop: `ExitRendered` for exits that its client wants to see, and
`RequestEnded` once. The callback must only take note; writing is the API's own work.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from anytime_protocol.budget import Budget
from anytime_protocol.enums import ArrayName, ErrorCode, Reason
from anytime_protocol.messages import (
    BudgetApplied,
    Failed,
    Finished,
    Infer,
    OutputOptions,
    ReuseOptions,
)
from anytime_protocol.resources import ServerBudget, ServerBudgetStatus
from anytime_server.core.decisions import (
    Admitted,
    Ending,
    ExitReport,
    JobFailed,
    JobFinished,
    RunLimits,
)
from anytime_server.core.jobs import JobState
from anytime_server.errors import ExecutorCallError, ImageRejectedError
from anytime_server.executor.base import (
    FinishedFrame,
    RenderedExit,
    RenderOptions,
    RunCommand,
    ServedModel,
    StreamMemory,
)
from anytime_server.images import DecodedImage, Image

if TYPE_CHECKING:  # it only holds it
    from anytime_server.engine.alarm import Alarm

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExitRendered:
    """An exit that may be sent.

    Attributes:
        report: its numbers.
        rendered: its maps.
        compute_s: seconds of network time until then.
        gmacs: 1e9 multiply-adds until then.
    """

    report: ExitReport
    rendered: RenderedExit
    compute_s: float
    gmacs: float


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """The request is over.

    Attributes:
        ending: how.
        best: its best exit, if it has one and somebody may still look at it.
    """

    ending: Ending
    best: ExitRendered | None

    @property
    def failed(self) -> bool:
        """It ended in an error."""
        return isinstance(self.ending, JobFailed)


RequestEvent: TypeAlias = ExitRendered | RequestEnded
OnEvent: TypeAlias = Callable[[RequestEvent], None]


@dataclass(slots=True, eq=False)
class SentMap:
    """The last update that a client was sent, which the next delta changes.

    Attributes:
        exit: its exit; 0 before the first.
        frame: its frame, in a stream.
        arrays: its arrays, where deltas are wanted.
    """

    exit: int = 0
    frame: int | None = None
    arrays: Mapping[ArrayName, NDArray[np.uint8]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamFrame:
    """What makes a request a frame of a stream.

    Attributes:
        stream: unique among the streams of the engine.
        number: of the frame.
        reuse: what may be taken from earlier frames; None computes it alone.
        sent: the last update of the stream, shared by its frames.
    """

    stream: str
    number: int
    reuse: ReuseOptions | None
    sent: SentMap


@dataclass(slots=True, eq=False)
class ActiveRequest:
    """One admitted request. The engine changes it, but for what is marked as the API's.

    Attributes:
        wire_id: the id that its client knows.
        want: what the client wants to receive.
        job: what the scheduler knows of it.
        served: the model that was asked for.
        transport: "http" or "websocket", for metrics.
        on_event: told what happens.
        admitted: the scheduler's prediction, once it is admitted.
        image: the decoding, from admission to the end, as the executor may need the image again.
        has_begun: the executor has its image.
        risk: of the certificate whose masks it is computed with, 0 without masks; None where it was
            not asked for, or before it has begun.
        discarded: nobody listens any more, so nothing needs to be rendered.
        reports: of the exits made, in order.
        size: (H, W) of the image, upright, px; known once it is decoded.
        best: the last exit that was rendered.
        shown: the last exit that its client was shown before its end.
        executor: number of the executor that has it, from 0.
        ready_s: when it began to wait for its next stage.
        first_s: when its first stage began; None before.
        cancelled_s: when it was cancelled; None if it was not.
        ended_s: when it ended; None before.
        upload_s: seconds that receiving the image took.
        decode_s: seconds spent on decoding.
        queue_s: seconds spent waiting.
        compute_s: seconds spent in the network.
        render_s: seconds spent on rendering exits.
        gmacs: 1e9 multiply-adds spent.
        encode_s: the API's: seconds spent on encoding its answer since it ended.
        sent: the API's: the exit of the last update that was sent.
        sent_map: the API's: that update; in a stream the last one of all frames.
        terminal: the API's: its terminal message, once it has one.
        render_options: what the client's options need.
        deadline_ms: the hard deadline that it came with; None without one.
        frame: of a stream; None of a single request.
        reused: how much was taken from earlier frames of its stream.
    """

    wire_id: str
    want: OutputOptions
    job: JobState
    served: ServedModel
    transport: str
    on_event: OnEvent
    admitted: Admitted | None = None
    image: asyncio.Future[DecodedImage] | None = None
    has_begun: bool = False
    risk: float | None = None
    discarded: bool = False
    reports: list[ExitReport] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)
    best: ExitRendered | None = None
    shown: ExitRendered | None = None
    executor: int = 0
    ready_s: float = 0.0
    first_s: float | None = None
    cancelled_s: float | None = None
    ended_s: float | None = None
    upload_s: float = 0.0
    decode_s: float = 0.0
    queue_s: float = 0.0
    compute_s: float = 0.0
    render_s: float = 0.0
    gmacs: float = 0.0
    encode_s: float = 0.0
    sent: ExitReport | None = None
    sent_map: SentMap = field(init=False)
    terminal: Finished | Failed | None = None
    render_options: RenderOptions = field(init=False)
    deadline_ms: float | None = field(init=False)
    frame: StreamFrame | None = None
    reused: FinishedFrame = field(default_factory=FinishedFrame)

    def __post_init__(self) -> None:
        self.sent_map = SentMap() if self.frame is None else self.frame.sent
        self.render_options = RenderOptions.of(self.want)
        self.deadline_ms = self.job.budget.at(0.0).deadline_ms

    @property
    def id(self) -> str:
        """Unique among the active requests."""
        return self.job.id

    @property
    def exit(self) -> int:
        """The last exit made, from 1; 0 before the first."""
        return self.reports[-1].exit if self.reports else 0

    @property
    def computed_pixels(self) -> int:
        """Px of the largest size at which the network computes its image, padding included."""
        sizes = self.served.profile.computed_sizes(self.job.height, self.job.width)
        return max(height * width for height, width in sizes)

    @property
    def num_exits(self) -> int:
        """Exits that the model has."""
        return len(self.served.info.exits)

    @property
    def has_unrendered_exit(self) -> bool:
        """An exit has been made that is to be shown and has not been rendered yet."""
        shown = (report.exit for report in reversed(self.reports) if report.improves)
        return next(shown, 0) > (self.best.report.exit if self.best else 0)

    def keep(self, rendered: RenderedExit) -> None:
        """Takes a rendered exit as its best map."""
        self.render_s += rendered.elapsed_s
        reports = (report for report in self.reports if report.exit == rendered.exit)
        report = next(reports, None)
        if report is None:
            return  # made after the request was cancelled
        if self.best is None or self.best.report.exit < report.exit:  # else from before a crash
            self.best = ExitRendered(report, rendered, self.compute_s, self.gmacs)

    def show_best(self) -> None:
        """Shows its client the best map, unless that was done."""
        if self.best is not None and self.best is not self.shown:
            self.shown = self.best
            self.on_event(self.best)

    def ending_with_best(self, ending: Ending) -> Ending:
        """Its ending; where time is over, or the server ends, a map that is there is the answer."""
        best = 0 if self.best is None else self.best.report.exit
        match ending:
            case JobFinished(exit=exit_) if exit_ < best:  # the executor has crashed since
                return replace(ending, exit=best)
            case JobFailed(code=ErrorCode.DEADLINE_EXCEEDED) if best:
                return JobFinished(ending.job_id, Reason.DEADLINE, best, ending.wasted_s)
            case JobFailed(code=ErrorCode.DRAINING) if best:
                return JobFinished(ending.job_id, Reason.DRAINING, best, ending.wasted_s)
            case _:
                return ending

    def choose_risk(self, max_risk: float) -> None:
        """Chooses its masks by the risk allowed; infinity leaves the model's own."""
        if max_risk < math.inf:
            # A certificate is about maps as they are by default.
            allowed = 0.0 if self.want.monotone else max_risk
            self.risk = self.served.info.certified_risk(allowed)

    async def decoded_image(
        self, changed: Alarm, limits: Callable[[float], RunLimits]
    ) -> DecodedImage | None:
        """Waits for its image; None if it is not wanted any more.

        Args:
            changed: set when something may have changed.
            limits: tells how far its run may go at a moment.

        Raises:
            ImageRejectedError: it cannot be decoded.
            ExecutorCallError: our decoder failed.
        """
        if self.image is None:
            raise RuntimeError(f"request {self.id} was not submitted")
        self.image.add_done_callback(lambda _: changed.set())
        while not self.image.done():
            now = limits(changed.clock())
            if not now.path or changed.clock() > now.stop_at_s:
                return None
            await changed.wait_until(now.stop_at_s)
        try:
            return self.image.result()
        except ImageRejectedError:
            raise
        except Exception as error:
            logger.exception("decoding for request %s failed", self.id)
            raise ExecutorCallError(f"{type(error).__name__} while decoding") from error

    def note_decoded(self, image: DecodedImage, now: float) -> bool:
        """Its image is decoded; whether for the first time."""
        if self.size != (0, 0):
            return False
        self.size = image.size
        self.decode_s = min(image.elapsed_s, now - self.ready_s)
        self.queue_s -= self.decode_s
        return True

    def command(
        self, stage: int, limits: RunLimits, image: Image | None, render: RenderOptions | None
    ) -> RunCommand:
        """What the executor is told of a run from a stage on.

        Args:
            stage: from 1.
            limits: how far it may go.
            image: None if the executor has it.
            render: how to render the last exit; None not to.
        """
        return RunCommand(
            self.id,
            self.job.model,
            stage,
            limits,
            image,
            self.size,
            render,
            each_exit=self.want.progress,
            risk=self.risk,
            monotone=self.want.monotone,
            memory=self.memory,
        )

    @property
    def memory(self) -> StreamMemory | None:
        """Of its stream, if it may be answered from earlier frames: by the model's own masks."""
        frame = self.frame
        if frame is None or frame.reuse is None or self.risk is not None:
            return None
        return StreamMemory(frame.stream, frame.reuse)

    def must_finish(self) -> bool:
        """Whether the executor must be told of its end, for the frames that follow."""
        return self.has_begun and self.memory is not None and not self.discarded

    def restart(self) -> None:
        """The executor and all exits that it has made are gone, but for the best map."""
        self.has_begun = False
        self.reports.clear()

    def must_render(self, ending: Ending | None = None) -> bool:
        """Whether its last exit should be rendered now.

        Args:
            ending: its end; None while it goes on.
        """
        if self.discarded or not self.has_unrendered_exit or isinstance(ending, JobFailed):
            return False
        return ending is not None or self.want.progress


class EngineState(Enum):
    """What the engine can do now."""

    STARTING = "starting"
    READY = "ready"
    RECOVERING = "recovering"
    DRAINING = "draining"
    CLOSED = "closed"


class Engine(Protocol):
    """Computes requests within their budgets. All methods are called on the event loop."""

    @property
    def state(self) -> EngineState:
        """What it can do now."""
        ...

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """What it serves by name; empty until the models are loaded."""
        ...

    def clock(self) -> float:
        """The moment, in seconds; deadlines count on this clock."""
        ...

    def model(self, name: str) -> ServedModel:
        """A model by its name.

        Raises:
            RefusedError: there is none, or the models are not loaded yet.
        """
        ...

    def admissible_model(self, name: str) -> ServedModel:
        """The model of a request that may be admitted now, asked before its image has come.

        Raises:
            RefusedError: there is no such model, or no request is admitted now.
        """
        ...

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
        """Admits a request, before its image is decoded.

        Args:
            infer: what the client asks for.
            request_id: unique among the active requests; the client knows `infer.id`.
            arrival_s: when its clock started.
            transport: "http" or "websocket".
            on_event: told what happens, on the event loop.
            pixels: (H, W, 3) RGB, of an image that came decoded; they count in place of `payload`.
            frame: what makes it a frame of a stream.

        Raises:
            RefusedError: it is not admitted.
        """
        ...

    def cancel(self, request_id: str, *, discard: bool) -> None:
        """Ends a request; unknown ids are ignored.

        Args:
            request_id: the request.
            discard: its map is not needed any more.
        """
        ...

    def forget_stream(self, stream: str) -> None:
        """A stream is over: what was kept of its frames may go. Unknown ones are ignored."""
        ...

    def update_budget(self, request_id: str, budget: Budget, rev: int | None) -> BudgetApplied:
        """Replaces a request's budget.

        Args:
            request_id: the request.
            budget: its new budget.
            rev: number of this change; None for one more than the last.
        """
        ...

    def status(self, request_id: str) -> ActiveRequest | None:
        """A request and how far it has come; over HTTP also one that ended a short while ago."""
        ...

    def operator_limits(self) -> Budget:
        """What the operator's budget allows now, load caps aside."""
        ...

    def server_budget(self) -> ServerBudgetStatus:
        """The operator's budget, what is in force of it, and the load.

        Raises:
            RefusedError: the models are not loaded yet.
        """
        ...

    def set_server_budget(self, budget: ServerBudget) -> None:
        """Replaces the operator's budget.

        Raises:
            RefusedError: the models are not loaded yet.
        """
        ...

    def note_encoding(self, request: ActiveRequest, event: ExitRendered, elapsed_s: float) -> None:
        """The API spent `elapsed_s` on encoding an exit of a request."""
        ...

    def open(self) -> None:
        """Starts everything; returns before the models are loaded."""
        ...

    async def wait_ready(self) -> None:
        """Returns when requests are admitted.

        Raises:
            ExecutorStartError: the models cannot be loaded.
        """
        ...

    async def drain(self) -> None:
        """Admits no more; returns when the last request has ended.

        After a timeout those that are left are ended, see `end_all`.
        """
        ...

    def end_all(self) -> None:
        """Ends all active requests at once, with their best maps or as `draining`."""
        ...

    async def close(self) -> None:
        """Ends everything; requests that are still active end in an error."""
        ...
