"""Traces for OpenTelemetry: a span for each request, with an event for each exit that was made.

Nothing of OpenTelemetry is imported unless the environment asks for traces. The provider is our
own, not the process's global one. What a span says is known when its request ends, so its events
are added then, each with its own moment.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from anytime_server.core.decisions import JobFailed
from anytime_server.engine.base import RequestEnded
from anytime_server.errors import RefusedError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

    from anytime_protocol.messages import Infer
    from anytime_server.engine.base import ActiveRequest, OnEvent, RequestEvent

logger = logging.getLogger(__name__)

_SERVICE: Final = "anytime-server"

_ASKS: Final = (
    "OTEL_TRACES_EXPORTER",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
)
"""Variables of which one asks for traces."""


class Tracing:
    """Records requests.

    Args:
        provider: of spans.
        clock: the engine's, monotonic seconds.
    """

    def __init__(self, provider: TracerProvider, clock: Callable[[], float]) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("anytime_server")
        self._clock = clock

    def begin(
        self, infer: Infer, arrival_s: float, transport: str, headers: Mapping[str, str]
    ) -> RequestTrace:
        """Begins the span of a request.

        Args:
            infer: what the client asks for.
            arrival_s: when its clock started.
            transport: "http" or "websocket".
            headers: of the HTTP request or of the websocket's handshake; their `traceparent` is the
                span's parent.
        """
        from opentelemetry import propagate  # noqa: PLC0415  an optional extra
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        since_epoch_s = time.time() - self._clock()  # once, as the wall clock may jump
        span = self._tracer.start_span(
            "predict",
            context=propagate.extract(headers),
            kind=SpanKind.SERVER,
            attributes={
                "anytime.model": infer.model,
                "anytime.request_id": infer.id,
                "anytime.transport": transport,
                "anytime.urgency": infer.urgency,
            },
            start_time=_ns(since_epoch_s + arrival_s),
        )
        return RequestTrace(span, since_epoch_s)

    def close(self) -> None:
        """Exports what has not been exported yet."""
        self._provider.shutdown()


class RequestTrace:
    """The span of one request.

    Args:
        span: begun.
        since_epoch_s: of the moment at which the engine's clock was zero.

    Attributes:
        request: once it is admitted.
    """

    def __init__(self, span: Span, since_epoch_s: float) -> None:
        self._span = span
        self._since_epoch_s = since_epoch_s
        self.request: ActiveRequest | None = None

    def ending(self, on_event: OnEvent) -> OnEvent:
        """A callback for the engine that ends the span with its request."""

        def note_end(event: RequestEvent) -> None:
            on_event(event)
            if isinstance(event, RequestEnded) and self.request is not None:
                self._end(self.request, event)

        return note_end

    def not_admitted(self, error: BaseException) -> None:
        """Ends the span of a request that was refused, or whose client left before."""
        if isinstance(error, RefusedError):
            self._fail(error.problem.code.value, error.problem.detail)
        else:
            self._fail(type(error).__name__, "")
        self._span.end()

    def _end(self, request: ActiveRequest, ended: RequestEnded) -> None:
        span = self._span
        if not span.is_recording():
            return
        for report in request.reports:
            span.add_event(
                "exit",
                {
                    "anytime.exit": report.exit,
                    "anytime.confidence": report.confidence,
                    "anytime.compute_ms": 1e3 * report.elapsed_s,
                    "anytime.gmacs": report.gmacs,
                },
                timestamp=_ns(self._since_epoch_s + report.ended_s),
            )
        times = ("upload", "decode", "queue", "compute", "render")
        span.set_attributes({f"anytime.{t}_ms": 1e3 * getattr(request, f"{t}_s") for t in times})
        span.set_attributes({"anytime.exits": request.num_exits, "anytime.gmacs": request.gmacs})
        if request.deadline_ms is not None:
            span.set_attribute("anytime.deadline_ms", request.deadline_ms)
        ending = ended.ending
        if isinstance(ending, JobFailed):
            self._fail(ending.code.value, ending.detail)
        else:
            span.set_attributes(
                {"anytime.exit": ending.exit, "anytime.reason": ending.reason.value}
            )
        end_s = request.ended_s
        span.end(None if end_s is None else _ns(self._since_epoch_s + end_s))

    def _fail(self, code: str, detail: str) -> None:
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415  an optional extra

        self._span.set_attribute("error.type", code)
        self._span.set_status(Status(StatusCode.ERROR, detail))


def from_environment(clock: Callable[[], float] = time.monotonic) -> Tracing | None:
    """What the `OTEL_*` variables ask for; None if they ask for no traces.

    The SDK reads the sampler, the resource and the exporters' settings from them by itself. Where a
    package is missing there are no traces, and a warning says so.
    """
    names = [name.strip() for name in os.environ.get(_ASKS[0], "").split(",") if name.strip()]
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if disabled or names == ["none"] or not any(os.environ.get(name) for name in _ASKS):
        return None
    try:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  an optional extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        exporters = [_exporter(name) for name in names or ["otlp"]]
    except ImportError as error:
        logger.warning(
            "no traces are exported: %s; install them by `pip install 'anytime-dense[tracing]'`",
            error,
        )
        return None
    resource = Resource.create()
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": _SERVICE}))
    provider = TracerProvider(resource=resource)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider, clock)


def _exporter(name: str) -> SpanExporter:
    """An exporter by the name that `OTEL_TRACES_EXPORTER` gives it.

    Raises:
        ImportError: no installed package has it.
    """
    if name == "otlp":
        general = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", general)
        name = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    found = importlib.metadata.entry_points(group="opentelemetry_traces_exporter", name=name)
    for entry in found:
        exporter: SpanExporter = entry.load()()
        return exporter
    raise ImportError(f"no package has the exporter {name!r}")


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
