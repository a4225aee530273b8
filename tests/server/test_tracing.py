"""Spans of requests, as an exporter gets them."""

import subprocess
import sys
import time

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra `tracing` is not installed")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from anytime_protocol.messages import Infer
from anytime_server import tracing
from anytime_server.tracing import Tracing
from server.api.clients import URL, ask
from server.api.test_websocket import client
from server.api.v2.messages import bytes_element, file_input, request_body
from server.factories import image_file
from server.fakes import FakeExecutor

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
async def live(serve, exporter):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with serve(tracing=Tracing(provider, time.monotonic)) as running:
        yield running


async def test_a_request_is_a_span_with_an_event_for_each_exit(live, exporter):
    before = time.time_ns()
    await ask(live, "mine")
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.kind, span.parent) == ("predict", SpanKind.SERVER, None)
    assert span.attributes["anytime.model"] == "street"
    assert span.attributes["anytime.request_id"] == "mine"
    assert (span.attributes["anytime.exit"], span.attributes["anytime.exits"]) == (4, 4)
    assert span.attributes["anytime.reason"] == "complete"
    assert span.attributes["anytime.compute_ms"] == pytest.approx(90)
    assert [event.name for event in span.events] == ["exit"] * 4
    assert [event.attributes["anytime.exit"] for event in span.events] == [1, 2, 3, 4]
    assert before - 10**8 < span.start_time <= span.end_time < time.time_ns() + 10**8
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("path", [URL, "/v2/models/street/infer"])
async def test_the_clients_span_is_the_parent_over_http(live, exporter, path):
    content, lines = image_file(), JPEG
    if path != URL:
        content, json_bytes = request_body(file_input(), bytes_element(content))
        lines = {"Inference-Header-Content-Length": str(json_bytes)}
    answer = await live.http.post(path, content=content, headers=SAMPLED | lines)
    assert answer.status_code == 200, answer.text
    (span,) = exporter.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT


async def test_the_span_of_the_handshake_is_the_parent_of_every_request_of_a_websocket(
    live, exporter
):
    async with client(live, additional_headers=SAMPLED) as one:
        for name in ("a", "b"):
            await one.say(Infer(name, "street", image_file()))
            await one.story(name)
    first, second = exporter.get_finished_spans()
    assert [span.attributes["anytime.request_id"] for span in (first, second)] == ["a", "b"]
    assert {f"{span.parent.span_id:016x}" for span in (first, second)} == {PARENT}
    assert first.attributes["anytime.transport"] == "websocket"


async def test_what_the_client_does_not_sample_is_not_recorded(live, exporter):
    lines = JPEG | {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    assert (await live.http.post(URL, content=image_file(), headers=lines)).status_code == 200
    assert exporter.get_finished_spans() == ()


async def test_a_malformed_traceparent_harms_nothing(live, exporter):
    lines = JPEG | {"traceparent": "nonsense"}
    assert (await live.http.post(URL, content=image_file(), headers=lines)).status_code == 200
    (span,) = exporter.get_finished_spans()
    assert span.parent is None


async def test_a_refused_request_is_a_span_with_its_code(live, exporter):
    assert (await live.http.post(URL, content=b"no image", headers=JPEG)).status_code == 422
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "bad-image"


async def test_a_failed_request_is_a_span_with_its_code(serve, exporter):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    executor = FakeExecutor(fail_at={"mine"})
    async with serve(executor, tracing=Tracing(provider, time.monotonic)) as live:
        assert (await ask(live, "mine")).status_code == 500
    (span,) = exporter.get_finished_spans()
    assert span.attributes["error.type"] == "internal"


def test_nothing_is_traced_unless_the_environment_asks_for_it(monkeypatch):
    for name in ("OTEL_SDK_DISABLED", *tracing._ASKS):
        monkeypatch.delenv(name, raising=False)
    assert tracing.from_environment() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert tracing.from_environment() is None
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert tracing.from_environment() is None
    monkeypatch.delenv("OTEL_SDK_DISABLED")
    found = tracing.from_environment()
    assert found is not None
    found.close()


def test_an_exporter_that_is_not_installed_is_one_warning(monkeypatch, caplog):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "carrier-pigeon")
    assert tracing.from_environment() is None
    assert "anytime-dense[tracing]" in caplog.text


def test_the_sdk_is_not_imported_by_a_server_that_traces_nothing():
    code = "import sys, anytime_server.cli; print('opentelemetry.sdk' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
