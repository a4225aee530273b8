"""Choosing the form of an answer."""

import pytest

from anytime_protocol.enums import Task
from anytime_server.api.predict_request import Form, negotiate

CASES = [
    ("*/*", Form.PNG),
    ("", None),
    ("image/*", Form.PNG),
    ("application/json", Form.JSON),
    ("application/*", Form.JSON),
    ("text/html, */*;q=0.1", Form.PNG),
    ("image/png;q=0.5, application/json", Form.JSON),
    ("application/json;q=0.5, image/png;q=0.4", Form.JSON),
    ("image/png;q=0, */*", Form.JSON),
    ("application/x-npy, application/json", Form.NPY),
    ("TEXT/Event-Stream", Form.SSE),
    ("application/x-ndjson ; q=0.8", Form.NDJSON),
    ("multipart/*", Form.MIXED),
    ("multipart/x-mixed-replace", Form.REPLACE),
    ("image/png;q=nonsense", None),
    ("text/html", None),
]


@pytest.mark.parametrize(("accept", "form"), CASES)
def test_the_preferred_form_is_chosen(accept, form):
    assert negotiate(accept, Task.SEGMENTATION, incremental=False) is form


def test_a_pose_is_json_unless_asked_otherwise():
    assert negotiate("*/*", Task.POSE, incremental=False) is Form.JSON
    assert negotiate("image/png", Task.POSE, incremental=False) is None
    assert negotiate("text/event-stream", Task.POSE, incremental=False) is Form.SSE


def test_a_wish_for_partial_results_decides_between_equals_only():
    accept = "image/png, text/event-stream"
    assert negotiate(accept, Task.SEGMENTATION, incremental=True) is Form.SSE
    assert negotiate("image/png, */*;q=0.1", Task.SEGMENTATION, incremental=True) is Form.PNG
    assert negotiate("*/*", Task.SEGMENTATION, incremental=True) is Form.PNG
