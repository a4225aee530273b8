"""Answers that come at once: one map, or one problem.

Decides headers and body of a single answer. Does not wait, and does not know the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

from starlette.responses import JSONResponse, Response

from anytime_protocol.enums import ErrorCode, Reason
from anytime_protocol.http import headers
from anytime_protocol.http.headers import Result
from anytime_protocol.http.problems import Problem
from anytime_protocol.messages import Failed, Finished
from anytime_server import encoding
from anytime_server.api.predict_request import Call, Form
from anytime_server.api.problems import problem_response
from anytime_server.executor.base import Picture


def common_headers(call: Call, applied_ms: float | None) -> dict[str, str]:
    """Headers of every good answer, progressive or not.

    Args:
        call: the request.
        applied_ms: the deadline in force, form fields included.
    """
    lines = {headers.REQUEST_ID: call.id, "Cache-Control": "no-store", "Vary": "Accept"}
    if applied_ms is not None:
        lines[headers.DEADLINE_APPLIED] = headers.format_ms(applied_ms)
    preference = headers.preference_applied(call.deadline)
    if preference is not None:
        lines[headers.PREFERENCE_APPLIED] = preference
    return lines


def result_headers(finished: Finished) -> dict[str, str]:
    """What was served, and where the time went."""
    result = Result(
        finished.exit,
        finished.exits,
        finished.reason,
        finished.confidence or 0.0,
        finished.gmacs,
    )
    timing = {
        "queue": finished.queue_ms,
        "decode": finished.decode_ms,
        "compute": finished.compute_ms,
        "encode": finished.encode_ms,
        "total": finished.total_ms,
    }
    return {headers.RESULT: str(result), headers.SERVER_TIMING: headers.format_timing(timing)}


def make_body(picture: Picture, form: Form, palette: bytes) -> bytes | dict[str, object]:
    """The picture in the form of the answer; of a JSON answer, the fields beside the final's."""
    match form:
        case Form.PNG:
            return encoding.png(_labels(picture), palette)
        case Form.NPY:
            return encoding.npy(
                _labels(picture) if picture.keypoints is None else picture.keypoints
            )
        case Form.JSON:
            fields: dict[str, object] = {"width": picture.width, "height": picture.height}
            joints = encoding.keypoints(picture)
            if joints is None:
                fields["segments"] = encoding.segments(_labels(picture))
            else:
                fields["keypoints"] = [[round(value, 6) for value in point] for point in joints]
            return fields
        case Form.SSE | Form.NDJSON | Form.MIXED | Form.REPLACE:
            raise ValueError(f"{form} is progressive")
        case _:
            assert_never(form)


def answer(
    finished: Finished, form: Form, body: bytes | dict[str, object], lines: Mapping[str, str]
) -> Response:
    """A good answer: 200 for any map."""
    all_lines = {**lines, **result_headers(finished)}
    if isinstance(body, bytes):
        return Response(body, headers=all_lines, media_type=form.value)
    return JSONResponse(finished.to_json() | body, headers=all_lines)


def soften(finished: Finished, call: Call) -> Finished:
    """The reason as the client knows it: what its soft deadline ended ended by deadline."""
    soft_ms = call.deadline.soft_ms
    if finished.reason is Reason.BUDGET and soft_ms is not None and finished.total_ms >= soft_ms:
        return replace(finished, reason=Reason.DEADLINE)
    return finished


def failure(failed: Failed) -> Response:
    """A bad end as a problem."""
    return problem_response(problem_of(failed))


def problem_of(failed: Failed) -> Problem:
    """The same as a value."""
    return Problem(failed.code, failed.detail, failed.field, failed.id, failed.retry_after_ms)


def cancelled(request_id: str) -> Response:
    """The answer to a request that was cancelled before its first exit."""
    text = "the request was cancelled before its first exit"
    return problem_response(Problem(ErrorCode.CANCELLED, text, request_id=request_id))


def _labels(picture: Picture) -> encoding.Plane:
    if picture.labels is None:
        raise ValueError("a pose has no class map")
    return picture.labels
