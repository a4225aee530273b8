"""What operators can watch, for Prometheus, through its official client.

Each `Metrics` has a registry of its own, so that several servers may live in one process (as in
tests) and nothing is counted at import. Label values come
from closed lists, executors or the models served, so that no client can make the tables grow.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from anytime_protocol.enums import ErrorCode, Reason
from anytime_server.core.decisions import Ending, ExitReport, JobFailed

if TYPE_CHECKING:
    from anytime_server.engine.base import ActiveRequest

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS: Final = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0,
    5.0, 10.0, 30.0,
)  # fmt: skip
_SLACK: Final = (-1.0, -0.1, -0.01, 0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 10.0)
_ERROR: Final = (-0.5, -0.2, -0.1, -0.05, -0.02, 0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

CLIENT_GONE: Final = "499"
"""Outcome of a request whose client vanished; never sent, only counted."""


@dataclass(slots=True)
class Total:
    """How often something was measured, and the sum of what it took.

    Attributes:
        count: measurements.
        seconds: of all of them.
    """

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """One more measurement."""
        self.count += 1
        self.seconds += seconds


@dataclass(slots=True)
class ModelTotals:
    """What became of a model's requests of every transport since the server started.

    Attributes:
        succeeded: requests that ended with a map that somebody may have seen, from arrival to end.
        failed: all others, those not admitted included.
        queue: waiting of admitted requests.
        decode: decoding of their images.
        compute: network time.
        output: rendering and encoding, for each exit that was sent.
        last_s: when the last request ended, seconds of Unix time; 0 before the first.
    """

    succeeded: Total = field(default_factory=Total)
    failed: Total = field(default_factory=Total)
    queue: Total = field(default_factory=Total)
    decode: Total = field(default_factory=Total)
    compute: Total = field(default_factory=Total)
    output: Total = field(default_factory=Total)
    last_s: float = 0.0


class Metrics:
    """The server's metrics.

    Attributes:
        totals: by model, of those that were asked for.
    """

    def __init__(self) -> None:
        self.totals: defaultdict[str, ModelTotals] = defaultdict(ModelTotals)
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = self._counter(
            "anytime_requests", "Requests that have ended.", "model", "transport", "outcome"
        )
        self._request = self._histogram(
            "anytime_request_seconds", "From arrival to the end.", "model", "transport"
        )
        self._queue = self._histogram("anytime_queue_seconds", "Waiting, per request.", "model")
        self._decode = self._histogram("anytime_decode_seconds", "Decoding one image.")
        self._stage = self._histogram(
            "anytime_stage_seconds", "Computing one stage.", "model", "stage"
        )
        self._overhead = self._histogram(
            "anytime_stage_overhead_seconds",
            "From one run to the next, the network and idle time aside.",
        )
        self._encode = self._histogram(
            "anytime_encode_seconds", "Rendering and encoding one exit.", "encoding"
        )
        self._first_exit = self._histogram(
            "anytime_first_exit_seconds", "From arrival to exit 1.", "model"
        )
        self._between = self._histogram(
            "anytime_inter_exit_seconds", "From one exit of a request to the next.", "model"
        )
        self._exits = self._counter(
            "anytime_exits_served", "Requests by their last exit.", "model", "exit", "reason"
        )
        self._slack = self._histogram(
            "anytime_deadline_slack_seconds",
            "Time left at the end; negative where the deadline was missed.",
            "model",
            buckets=_SLACK,
        )
        self._rejections = self._counter(
            "anytime_rejections", "Requests that were not admitted.", "model", "code"
        )
        self._cancel = self._histogram(
            "anytime_cancel_seconds", "From a cancellation to idle compute."
        )
        self._wasted = self._counter(
            "anytime_wasted_compute_seconds", "Computing that led to no map that was sent.", "model"
        )
        self._compute = self._counter(
            "anytime_compute_seconds", "Computing in the network.", "model", "executor"
        )
        self._gmacs = self._counter(
            "anytime_compute_gmacs", "Multiply-adds in the network, in 1e9.", "model"
        )
        self._active = self._gauge(
            "anytime_requests_in_house", "Requests admitted, not ended.", "executor"
        )
        self._slowdown = self._gauge(
            "anytime_slowdown_factor",
            "How much slower than profiled the machine is now.",
            "executor",
        )
        self._error = self._histogram(
            "anytime_prediction_error_ratio",
            "Measured over predicted time of a stage, less one.",
            buckets=_ERROR,
        )
        self._memory = self._gauge(
            "anytime_engine_memory_bytes", "Held by the engines for images under way.", "executor"
        )
        self._executor_memory = self._gauge(
            "anytime_executor_resident_memory_bytes",
            "Resident memory of the process that computes; process_resident_memory_bytes is the "
            "server's own.",
            "executor",
        )
        self._crashes = self._counter(
            "anytime_executor_crashes", "Times the executor has died.", "executor"
        )
        self._sockets = self._gauge("anytime_websocket_connections", "Open websockets.")
        self._conflated = self._counter(
            "anytime_websocket_conflated_updates", "Updates that a newer one replaced unsent."
        )
        self._streams = self._gauge("anytime_streams", "Streams that are open.")
        self._frames = self._counter(
            "anytime_frames",
            "Frames of streams, by what became of them: computed, skipped, failed.",
            "model",
            "outcome",
        )
        self._reused = self._counter(
            "anytime_frames_reused",
            "Sum over computed frames of the share, 0 to 1, that was taken from earlier ones.",
            "model",
        )
        self._check = self._histogram(
            "anytime_frame_check_seconds", "Computing one frame once more, alone, in idle time."
        )
        self._lag = self._histogram(
            "anytime_event_loop_lag_seconds",
            "Lateness of a timer on the event loop: what a ping waits inside the server.",
        )
        self._engine = Gauge(
            "anytime_engine_info",
            "What computes; always 1.",
            ["model", "engine"],
            registry=self.registry,
        )

    def expose(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def serves(self, model: str, engine: str) -> None:
        """A model is loaded."""
        self._engine.labels(model, engine).set(1)

    def rejected(self, model: str, code: ErrorCode, elapsed_s: float) -> None:
        """A request was not admitted, `elapsed_s` after its arrival."""
        self._rejections.labels(model, code.value).inc()
        self.totals[model].failed.add(elapsed_s)

    def active_requests(self, executor: int, count: int) -> None:
        """An executor has so many requests that are admitted and have not ended."""
        self._active.labels(executor).set(count)

    def decoded(self, elapsed_s: float) -> None:
        """An image was decoded."""
        self._decode.observe(elapsed_s)

    def overhead(self, elapsed_s: float) -> None:
        """What a run took beside the network, with the time since the run before it if busy."""
        self._overhead.observe(elapsed_s)

    def stage_done(
        self, request: ActiveRequest, report: ExitReport, slow_down: float, error: float
    ) -> None:
        """A stage has ended by itself.

        Args:
            request: whose stage.
            report: of its exit.
            slow_down: the machine's factor now.
            error: relative error of its prediction.
        """
        model = request.job.model
        self._stage.labels(model, str(report.exit)).observe(report.elapsed_s)
        self._compute.labels(model, request.executor).inc(report.elapsed_s)
        self._error.observe(error)
        self._slowdown.labels(request.executor).set(slow_down)

    def stage_stopped(self, request: ActiveRequest, now: float) -> None:
        """A stage was stopped half-way."""
        if request.cancelled_s is not None:
            self._cancel.observe(now - request.cancelled_s)

    def exit_made(self, request: ActiveRequest) -> None:
        """A request has another exit."""
        model = request.job.model
        *before, last = request.reports
        if before:
            self._between.labels(model).observe(last.ended_s - before[-1].ended_s)
        else:
            self._first_exit.labels(model).observe(last.ended_s - request.job.arrival_s)

    def encoded(self, model: str, encoding: str, elapsed_s: float) -> None:
        """An exit was rendered and encoded."""
        self._encode.labels(encoding).observe(elapsed_s)
        self.totals[model].output.add(elapsed_s)

    def ended(self, request: ActiveRequest, ending: Ending, now: float) -> None:
        """A request has ended."""
        job, model, transport = request.job, request.job.model, request.transport
        if isinstance(ending, JobFailed):
            outcome = ending.code.value
        else:
            gone = request.discarded and ending.reason is Reason.CANCELLED
            outcome = CLIENT_GONE if gone and transport == "http" else ending.reason.value
            self._exits.labels(model, str(ending.exit), ending.reason.value).inc()
        self._requests.labels(model, transport, outcome).inc()
        self._request.labels(model, transport).observe(now - job.arrival_s)
        self._queue.labels(model).observe(max(request.queue_s, 0.0))
        self._wasted.labels(model).inc(ending.wasted_s)
        self._gmacs.labels(model).inc(request.gmacs)
        self._add_totals(request, ending, now)
        if request.deadline_ms is not None:
            self._slack.labels(model).observe(job.arrival_s + request.deadline_ms / 1e3 - now)

    def _add_totals(self, request: ActiveRequest, ending: Ending, now: float) -> None:
        totals = self.totals[request.job.model]
        failed = isinstance(ending, JobFailed) or request.discarded or not ending.exit
        (totals.failed if failed else totals.succeeded).add(now - request.job.arrival_s)
        totals.queue.add(max(request.queue_s, 0.0))
        if request.has_begun:
            totals.decode.add(request.decode_s)
            totals.compute.add(request.compute_s)
        totals.last_s = time.time()

    def engine_memory(self, executor: int, held_bytes: int) -> None:
        """The engines of an executor hold so much memory for images under way."""
        self._memory.labels(executor).set(held_bytes)

    def has_executor(self, executor: int, read_memory: Callable[[], float]) -> None:
        """There is an executor of this number; its resident memory is read when it is asked for."""
        self._executor_memory.labels(executor).set_function(read_memory)
        for metric in (self._active, self._memory, self._crashes, self._slowdown):
            metric.labels(executor)

    def crashed(self, executor: int) -> None:
        """An executor has died."""
        self._crashes.labels(executor).inc()

    def websocket_opened(self) -> None:
        """A websocket was accepted."""
        self._sockets.inc()

    def websocket_closed(self) -> None:
        """A websocket was closed."""
        self._sockets.dec()

    def stream_opened(self) -> None:
        """A stream was opened."""
        self._streams.inc()

    def stream_closed(self) -> None:
        """A stream is over."""
        self._streams.dec()

    def frame_ended(self, model: str, outcome: str, reused_share: float = 0.0) -> None:
        """A frame of a stream was computed or skipped, or has failed."""
        self._frames.labels(model, outcome).inc()
        self._reused.labels(model).inc(reused_share)

    def frame_checked(self, elapsed_s: float) -> None:
        """A frame of a stream was computed once more, alone, to see what reuse had changed."""
        self._check.observe(elapsed_s)

    def conflated(self, updates: int) -> None:
        """So many updates were replaced by a newer one before they were sent."""
        self._conflated.inc(updates)

    def lagged(self, late_s: float) -> None:
        """A timer of the event loop was late."""
        self._lag.observe(late_s)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, *labels: str, buckets: tuple[float, ...] = _SECONDS
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)
