"""A server process exports the spans of its requests to a collector."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra `tracing` is not installed")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from server.factories import image_file


@pytest.fixture
def collector():
    """Receives spans by OTLP over HTTP; gives its address and what came."""
    came = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            came.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", came
        server.shutdown()
        thread.join()


def test_spans_reach_the_collector_that_the_environment_names(start, collector):
    url, came = collector
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "NO_PROXY": "*"}
    with start(environment=environment) as server:
        answer = httpx.post(
            f"{server.url}/v1/models/{server.model}/predict",
            content=image_file(),
            headers={"Content-Type": "image/jpeg"},
            trust_env=False,
        )
        assert answer.status_code == 200
        server.process.terminate()
        assert server.process.wait(20) == 0  # what was not exported before is now
    spans = [
        (path, {a.key: a.value.string_value for a in resource.resource.attributes}, span)
        for path, request in came
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    ((path, resource, span),) = spans
    assert path == "/v1/traces"
    assert resource["service.name"] == "anytime-server"
    assert span.name == "predict"
    assert {event.name for event in span.events} == {"exit"}
