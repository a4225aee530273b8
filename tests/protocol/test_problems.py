"""Problem details: statuses, the round trip, and what the design rules out."""

from __future__ import annotations

import json

import pytest

from anytime_protocol.enums import ErrorCode
from anytime_protocol.errors import FieldError, FrameError
from anytime_protocol.http.problems import CATALOGUE, Problem


@pytest.mark.parametrize("code", ErrorCode)
def test_every_error_code_has_a_problem_that_survives_the_wire(code: ErrorCode) -> None:
    problem = Problem(code, "because", field="f", request_id="r1", retry_after_ms=180.0)
    body = problem.to_json()
    assert body["type"] == f"/problems/{code}"
    assert body["status"] == problem.status
    assert body["title"] == problem.title
    assert Problem.parse(json.dumps(body)) == problem


def test_statuses_that_make_proxies_do_harm_are_not_used() -> None:
    statuses = {status for status, _ in CATALOGUE.values()}
    assert 408 not in statuses
    assert 499 not in statuses
    assert CATALOGUE[ErrorCode.OVERLOADED][0] == 503


@pytest.mark.parametrize(("after_ms", "seconds"), [(0.0, "1"), (180.0, "1"), (1000.1, "2")])
def test_retry_after_is_in_whole_seconds_rounded_up(after_ms: float, seconds: str) -> None:
    assert Problem(ErrorCode.OVERLOADED, "x", retry_after_ms=after_ms).retry_after == seconds
    assert Problem(ErrorCode.OVERLOADED, "x").retry_after is None


def test_a_foreign_body_is_an_error() -> None:
    for body, error in (("<html>", FrameError), ("{}", FieldError), ('{"code":"x"}', FieldError)):
        with pytest.raises(error):
            Problem.parse(body)
