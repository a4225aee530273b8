"""The metrics of all replicas in one text."""

import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from anytime_protocol.enums import Reason
from anytime_server.core.decisions import JobFinished
from anytime_server.metrics import Metrics
from anytime_server.ray_serve.merged_metrics import merged
from server.factories import active_request


async def expositions():
    """Of two replicas, the first of which has answered a request."""
    first, second = Metrics(), Metrics()
    request = active_request("a", print, 0.0)
    first.ended(request, JobFinished("a", Reason.COMPLETE, 4, 0.0), 0.1)
    second.websocket_opened()
    return {"one": first.expose().decode(), "two": second.expose().decode()}


async def test_every_sample_says_whose_it_is_and_none_is_lost():
    texts = await expositions()
    found = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(merged(texts).decode())
        for sample in family.samples
    }
    count = 0
    for replica, text in texts.items():
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = tuple(sorted({**sample.labels, "replica": replica}.items()))
                assert found[sample.name, labels] == sample.value
                count += 1
    assert len(found) == count


async def test_names_types_and_texts_are_those_of_each():
    texts = await expositions()

    def lines(text):
        return {line for line in text.splitlines() if line.startswith("#")}

    assert lines(merged(texts).decode()) == lines(texts["one"])


async def test_promtool_finds_nothing_to_say_about_it():
    found = shutil.which("promtool") or shutil.which("promtool", path="/usr/sbin")
    if found is None:
        pytest.skip("promtool is not installed")
    text = merged(await expositions())
    done = subprocess.run(
        [found, "check", "metrics"], input=text, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
