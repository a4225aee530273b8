"""Problem details: statuses, the round trip, and what the design rules out."""

from __future__ import annotations

import json

import pytest

from anytime_protocol.enums import ErrorCode
from anytime_protocol.errors import FieldError, FrameError
from anytime_protocol.http.problems import Problem


def test_the_problem_of_every_error_code_survives_the_wire() -> None:
    for code in ErrorCode:
        problem = Problem(code, "because", field="f", request_id="r1", retry_after_ms=180.0)
        body = problem.to_json()
        assert (body["type"], body["status"]) == (f"/problems/{code}", code.status)
        assert body["title"] == code.summary
        assert Problem.parse(json.dumps(body)) == problem


def test_statuses_that_make_proxies_do_harm_are_not_used() -> None:
    statuses = {code.status for code in ErrorCode}
    assert 408 not in statuses
    assert 499 not in statuses
    assert ErrorCode.OVERLOADED.status == 503


@pytest.mark.parametrize(("after_ms", "seconds"), [(0.0, "1"), (180.0, "1"), (1000.1, "2")])
def test_retry_after_is_in_whole_seconds_rounded_up(after_ms: float, seconds: str) -> None:
    assert Problem(ErrorCode.OVERLOADED, "x", retry_after_ms=after_ms).retry_after == seconds
    assert Problem(ErrorCode.OVERLOADED, "x").retry_after is None


def test_a_foreign_body_is_an_error() -> None:
    for body, error in (("<html>", FrameError), ("{}", FieldError), ('{"code":"x"}', FieldError)):
        with pytest.raises(error):
            Problem.parse(body)
