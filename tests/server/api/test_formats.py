"""Choosing the form of an answer."""

import pytest

from anytime_protocol.enums import Task
from anytime_server.api.formats import AnswerFormat, negotiate

CASES = [
    ("*/*", AnswerFormat.PNG),
    ("", None),
    ("image/*", AnswerFormat.PNG),
    ("application/json", AnswerFormat.JSON),
    ("application/*", AnswerFormat.JSON),
    ("text/html, */*;q=0.1", AnswerFormat.PNG),
    ("image/png;q=0.5, application/json", AnswerFormat.JSON),
    ("application/json;q=0.5, image/png;q=0.4", AnswerFormat.JSON),
    ("image/png;q=0, */*", AnswerFormat.JSON),
    ("application/x-npy, application/json", AnswerFormat.NPY),
    ("TEXT/Event-Stream", AnswerFormat.SSE),
    ("application/x-ndjson ; q=0.8", AnswerFormat.NDJSON),
    ("multipart/*", AnswerFormat.MIXED),
    ("multipart/x-mixed-replace", AnswerFormat.REPLACE),
    ("image/png;q=nonsense", None),
    ("text/html", None),
]


@pytest.mark.parametrize(("accept", "form"), CASES)
def test_the_preferred_form_is_chosen(accept, form):
    assert negotiate(accept, Task.SEGMENTATION, incremental=False) is form


def test_a_pose_is_json_unless_asked_otherwise():
    assert negotiate("*/*", Task.POSE, incremental=False) is AnswerFormat.JSON
    assert negotiate("image/png", Task.POSE, incremental=False) is None
    assert negotiate("text/event-stream", Task.POSE, incremental=False) is AnswerFormat.SSE


def test_a_wish_for_partial_results_decides_between_equals_only():
    accept = "image/png, text/event-stream"
    assert negotiate(accept, Task.SEGMENTATION, incremental=True) is AnswerFormat.SSE
    assert (
        negotiate("image/png, */*;q=0.1", Task.SEGMENTATION, incremental=True) is AnswerFormat.PNG
    )
    assert negotiate("*/*", Task.SEGMENTATION, incremental=True) is AnswerFormat.PNG
