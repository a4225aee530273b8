"""`anytime bench`."""

import json


def test_percentiles_exits_and_kept_deadlines_are_printed(anytime, url, image):
    done = anytime(url, "bench", image, "-n", 8, "-c", 2, "-d", 1000, "--json")
    figures = json.loads(done.stdout)
    assert figures["exits"] == {"4": 8}
    assert figures["within_deadline"] == 1.0
    assert figures["first_ms"]["p50"] <= figures["total_ms"]["p99"]
