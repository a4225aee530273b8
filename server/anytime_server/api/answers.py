"""Single answers over HTTP: one map with its headers, or one problem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

from starlette.responses import JSONResponse, Response

from anytime_protocol.budget import Budget
from anytime_protocol.enums import ErrorCode
from anytime_protocol.http import headers
from anytime_protocol.http.headers import Deadline, ResultHeader
from anytime_protocol.http.problems import Problem
from anytime_protocol.messages import Failed, Finished
from anytime_server import encoding
from anytime_server.api.formats import AnswerFormat
from anytime_server.api.problems import problem_response
from anytime_server.executor.base import RenderedExit


def common_headers(request_id: str, deadline: Deadline, *budgets: Budget) -> dict[str, str]:
    """Headers of every good answer, progressive or not.

    Args:
        request_id: of the request.
        deadline: as the request's headers say.
        budgets: that hold for it, the client's and the operator's.
    """
    lines = {headers.REQUEST_ID: request_id, "Cache-Control": "no-store", "Vary": "Accept"}
    found = (deadline.applied_ms, *(budget.at(0.0).deadline_ms for budget in budgets))
    times = [ms for ms in found if ms is not None]
    if times:
        lines[headers.DEADLINE_APPLIED] = headers.format_ms(min(times))
    preference = headers.preference_applied(deadline)
    if preference is not None:
        lines[headers.PREFERENCE_APPLIED] = preference
    return lines


def result_headers(finished: Finished) -> dict[str, str]:
    """What was served, and where the time went."""
    result = ResultHeader(
        finished.exit,
        finished.exits,
        finished.reason,
        finished.confidence or 0.0,
        finished.gmacs,
        finished.risk,
    )
    timing = {
        "queue": finished.queue_ms,
        "decode": finished.decode_ms,
        "compute": finished.compute_ms,
        "encode": finished.encode_ms,
        "total": finished.total_ms,
    }
    return {headers.RESULT: str(result), headers.SERVER_TIMING: headers.format_timing(timing)}


def make_body(
    rendered: RenderedExit, answer_format: AnswerFormat, palette: bytes
) -> bytes | dict[str, Any]:
    """An exit in the format of the answer; of a JSON answer, the fields beside the final's."""
    match answer_format:
        case AnswerFormat.PNG:
            return encoding.png(_labels(rendered), palette)
        case AnswerFormat.NPY:
            return encoding.npy(
                _labels(rendered) if rendered.keypoints is None else rendered.keypoints
            )
        case AnswerFormat.JSON:
            fields: dict[str, Any] = {"width": rendered.width, "height": rendered.height}
            joints = encoding.keypoints(rendered)
            if joints is None:
                fields["segments"] = encoding.rle_segments(_labels(rendered))
            else:
                fields["keypoints"] = [[round(value, 6) for value in point] for point in joints]
            return fields
        case AnswerFormat.SSE | AnswerFormat.NDJSON | AnswerFormat.MIXED | AnswerFormat.REPLACE:
            raise ValueError(f"{answer_format} is progressive")
        case _:
            assert_never(answer_format)


def answer(
    finished: Finished,
    answer_format: AnswerFormat,
    body: bytes | dict[str, Any],
    lines: Mapping[str, str],
) -> Response:
    """A good answer: 200 for any map."""
    all_lines = {**lines, **result_headers(finished)}
    if isinstance(body, bytes):
        return Response(body, headers=all_lines, media_type=answer_format.value)
    return JSONResponse(finished.to_json() | body, headers=all_lines)


def without_map(message: Finished | Failed, path: str = "") -> Response:
    """The answer to a request that ended without a map; `path` is that of the request."""
    if isinstance(message, Failed):
        problem = Problem(
            message.code,
            message.detail,
            message.field,
            message.id,
            message.retry_after_ms,
            message.needed_ms,
        )
    else:
        text = "the request was cancelled before its first exit"
        problem = Problem(ErrorCode.CANCELLED, text, request_id=message.id)
    return problem_response(problem, path)


def _labels(rendered: RenderedExit) -> encoding.Plane:
    if rendered.labels is None:
        raise ValueError("a pose has no class map")
    return rendered.labels
