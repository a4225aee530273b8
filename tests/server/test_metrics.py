"""Names and types of the metrics, and the log's two forms."""

import asyncio
import json
import logging
import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from anytime_protocol.enums import ErrorCode
from anytime_server.logs import JsonFormatter
from anytime_server.metrics import Metrics
from server.factories import image_file


def families():
    metrics = Metrics()
    metrics.rejected("street", ErrorCode.OVERLOADED, 0.1)
    return {f.name: f for f in text_string_to_metric_families(metrics.expose().decode())}


def test_names_follow_the_conventions_of_prometheus():
    for name, family in families().items():
        if name.startswith("anytime_"):
            assert family.documentation
            if family.type == "histogram":
                assert name.endswith(("_seconds", "_ratio")), name
            assert not name.endswith("_ms")


def test_histograms_resolve_a_millisecond():
    lag = families()["anytime_event_loop_lag_seconds"]
    assert "0.001" in {s.labels.get("le") for s in lag.samples}


def test_two_servers_do_not_share_counters():
    first, second = Metrics(), Metrics()
    for metrics in (first, second):
        metrics.has_executor(0, lambda: 0.0)
    first.crashed(0)
    assert b'anytime_executor_crashes_total{executor="0"} 1.0' in first.expose()
    assert b'anytime_executor_crashes_total{executor="0"} 0.0' in second.expose()


def test_a_log_line_can_be_json():
    record = logging.LogRecord("a", logging.INFO, "f", 1, "three %s", ("words",), None)
    entry = json.loads(JsonFormatter().format(record))
    assert entry["message"] == "three words"
    assert entry["level"] == "info"
    try:
        raise ValueError("why")
    except ValueError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    assert "why" in json.loads(JsonFormatter().format(record))["exception"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
async def test_promtool_finds_nothing_to_say_about_the_metrics(live):
    image = image_file()
    lines = {"Content-Type": "image/jpeg"}
    url = "/v1/models/street/predict"
    assert (await live.http.post(url, content=image, headers=lines)).status_code == 200
    assert (await live.http.post(url, content=b"x", headers=lines)).status_code == 422
    text = (await live.http.get("/metrics")).content
    checked = await asyncio.to_thread(
        subprocess.run,
        ["promtool", "check", "metrics"],
        input=text,
        capture_output=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
