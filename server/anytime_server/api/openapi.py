"""The HTTP interface in OpenAPI: what FastAPI makes of the routes, and what it cannot know.

Added are the headers, the errors of each operation, the forms of path parameters and the token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI

from anytime_protocol.enums import ErrorCode
from anytime_protocol.http import headers
from anytime_protocol.http.problems import MEDIA_TYPE, Problem
from anytime_protocol.validation import ID_FORM, MAX_WHOLE, NAME_FORM, adapter_of

_PREDICT: Final = "/v1/models/{model}/predict"
_CHANGED: Final = (ErrorCode.BAD_MESSAGE, ErrorCode.BAD_BUDGET, ErrorCode.TOO_LARGE)

_ERRORS: Final[dict[tuple[str, str], tuple[ErrorCode, ...]]] = {
    ("post", _PREDICT): (
        ErrorCode.BAD_REQUEST,
        *_CHANGED,
        ErrorCode.UNKNOWN_MODEL,
        ErrorCode.NOT_ACCEPTABLE,
        ErrorCode.DUPLICATE_ID,
        ErrorCode.CANCELLED,
        ErrorCode.TOO_MANY_PIXELS,
        ErrorCode.UNSUPPORTED_MEDIA_TYPE,
        ErrorCode.BAD_IMAGE,
        ErrorCode.BUDGET_TOO_SMALL,
        ErrorCode.OVERLOADED,
        ErrorCode.NOT_READY,
        ErrorCode.DRAINING,
        ErrorCode.DEADLINE_EXCEEDED,
    ),
    ("get", "/v1/models"): (),
    ("get", "/v1/models/{model}"): (ErrorCode.UNKNOWN_MODEL, ErrorCode.NOT_READY),
    ("get", "/v1/budget"): (ErrorCode.NOT_READY,),
    ("put", "/v1/budget"): (*_CHANGED, ErrorCode.NOT_READY),
    ("get", "/v1/requests/{request_id}"): (ErrorCode.UNKNOWN_REQUEST,),
    ("patch", "/v1/requests/{request_id}"): (*_CHANGED, ErrorCode.UNKNOWN_REQUEST),
    ("delete", "/v1/requests/{request_id}"): (ErrorCode.UNKNOWN_REQUEST,),
}
"""Errors of the operations below `/v1`, beside a missing token and faults of the server."""

_PATH_FORMS: Final = {"model": NAME_FORM, "request_id": ID_FORM}

_WHOLE_MS: Final = {"type": "integer", "minimum": 0, "maximum": MAX_WHOLE}
_REQUEST_HEADERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "X-Deadline-Ms": (
        "Hard deadline, in ms from arrival; of several deadlines the tightest holds.",
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$", "maxLength": 400},
    ),
    "grpc-timeout": (
        "Another form of it.",
        {"type": "string", "pattern": "^[0-9]{1,8}[HMSmun]$"},
    ),
    "Connect-Timeout-Ms": ("Another form of it.", _WHOLE_MS),
    "x-envoy-expected-rq-timeout-ms": ("Another form of it.", _WHOLE_MS),
    "Prefer": ("`wait=N`: soft deadline, in whole seconds (RFC 7240).", {"type": "string"}),
    headers.PRIORITY: ("`u=0` to `u=7`, and `i` (RFC 9218).", {"type": "string"}),
    headers.REQUEST_ID: (
        "Of the client's choice; not that of a request that still runs.",
        {"type": "string", "pattern": f"^{ID_FORM.pattern}$"},
    ),
}
_ANSWER_HEADERS: Final = {
    headers.REQUEST_ID: "The request's id.",
    headers.DEADLINE_APPLIED: "The deadline in force, in ms, if there is one.",
    headers.PREFERENCE_APPLIED: "The soft deadline, if there is one.",
    headers.RESULT: "Exit, reason, confidence and cost of a single answer (RFC 9651).",
    headers.SERVER_TIMING: "Parts of a single answer's time, in ms.",
}


def install(app: FastAPI) -> None:
    """Has an application describe itself so."""
    app.openapi = describe(app.openapi)  # type: ignore[method-assign]


def describe(made: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """Completes the document of FastAPI, once."""
    known: list[dict[str, Any]] = []

    def complete() -> dict[str, Any]:
        if not known:
            known.append(_completed(made()))
        return known[0]

    return complete


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    components = document["components"]
    problem = adapter_of(Problem).json_schema(
        mode="serialization", ref_template="#/components/schemas/{model}"
    )
    components["schemas"] |= problem.pop("$defs", {}) | {"Problem": problem}
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for parameter in operation.get("parameters", []):
                form = _PATH_FORMS.get(parameter["name"])
                if parameter["in"] == "path" and form is not None:
                    parameter["schema"]["pattern"] = f"^{form.pattern}$"
            if (method, path) in _ERRORS:
                operation["security"] = [{"token": []}, {}]  # the server may have no token
                operation["responses"].pop("422", None)  # of FastAPI, which never comes
                operation["responses"] |= _problems(_ERRORS[method, path])
    predict = document["paths"][_PREDICT]["post"]
    predict["parameters"] += [
        {"name": name, "in": "header", "description": text, "schema": schema}
        for name, (text, schema) in _REQUEST_HEADERS.items()
    ]
    predict["responses"]["200"]["headers"] = {
        name: {"description": text, "schema": {"type": "string"}}
        for name, text in _ANSWER_HEADERS.items()
    }
    return document


def _problems(codes: tuple[ErrorCode, ...]) -> dict[str, Any]:
    """The responses of errors, by status."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    by_status: dict[str, list[ErrorCode]] = {}
    for code in (*codes, ErrorCode.UNAUTHORIZED, ErrorCode.OVERLOADED, ErrorCode.INTERNAL):
        by_status.setdefault(str(code.status), [])
        if code not in by_status[str(code.status)]:
            by_status[str(code.status)].append(code)
    named = {
        status: {
            "description": "; ".join(f"`{code}`: {code.summary}" for code in found),
            "content": content,
        }
        for status, found in sorted(by_status.items())
    }
    others = {"description": "Another error.", "content": content}
    return {**named, "4XX": others, "5XX": others}
