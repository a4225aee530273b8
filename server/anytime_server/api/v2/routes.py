"""`/v2`: the Open Inference Protocol, over the same engine as everything else.

A request goes the way of `POST /v1/models/{model}/predict`; other is only how it is written.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Depends, Request, Response
from starlette.requests import ClientDisconnect

from anytime_protocol.budget import LIMITS, MAX_MS, Budget, tightest
from anytime_protocol.enums import ErrorCode, Task
from anytime_protocol.errors import HeaderError, shorten
from anytime_protocol.http import headers
from anytime_protocol.http.headers import Priority
from anytime_protocol.http.problems import Problem
from anytime_protocol.messages import Failed, Infer, OutputOptions
from anytime_server.api import answers
from anytime_server.api.asyncapi import server_version
from anytime_server.api.bodies import read_bounded, too_large
from anytime_server.api.http_answer import CLIENT_CLOSED_REQUEST, HttpAnswer, answer_once
from anytime_server.api.json_body import schema_of
from anytime_server.api.outbox import Outbox
from anytime_server.api.request_checks import arrival_s
from anytime_server.api.state import caller_of, require_token, state_of
from anytime_server.api.upload import deadline_budget, read_request_id
from anytime_server.api.uploads import Upload
from anytime_server.api.v2 import tensors
from anytime_server.api.v2.compression import (
    Coding,
    accepted_coding,
    coding_of,
    decompress,
    deflate,
    join,
)
from anytime_server.api.v2.messages import (
    BatchStatistics,
    DurationStatistic,
    ErrorBody,
    InferenceRequest,
    InferenceResponse,
    InferenceStatistics,
    ModelMetadata,
    ModelReady,
    ModelStatistics,
    RequestParameters,
    ServerLive,
    ServerMetadata,
    ServerReady,
    StatisticsResponse,
    TensorMetadata,
)
from anytime_server.api.v2.tensors import NamedArray, RequestBody, WantedOutput
from anytime_server.engine.base import EngineState, ExitRendered, RequestEnded
from anytime_server.errors import RefusedError
from anytime_server.executor.base import RenderedExit
from anytime_server.images import Image
from anytime_server.metrics import ModelTotals, Total
from anytime_server.settings import Settings

VERSION: Final = "1"
"""Of every model: a server has one version of each."""

_EXTENSIONS: Final = ("binary_tensor_data", "schedule_policy", "statistics")
_JSON_BYTES: Final = "Inference-Header-Content-Length"
_WHOLE: Final = re.compile(r"[0-9]{1,12}")

_QUICK_BYTES: Final = 2**16
"""Bodies up to this size are taken apart on the event loop."""

_INPUTS: Final = (
    TensorMetadata(tensors.FILE, "BYTES", (1,)),
    TensorMetadata(tensors.PIXELS, "UINT8", (1, -1, -1, 3)),
)
_MAP: Final = "map"
_CONFIDENCE: Final = "confidence"
_KEYPOINTS: Final = "keypoints"

_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {"description": "The client's fault.", "model": ErrorBody},
    "5XX": {"description": "No answer now, or none in time.", "model": ErrorBody},
}

public = APIRouter(prefix="/v2", responses=_ERRORS)
"""Health, for machines that have no token."""

router = APIRouter(prefix="/v2", responses=_ERRORS, dependencies=[Depends(require_token)])


def require_version(version: str) -> None:
    """Lets a request pass that names the one version that there is.

    Raises:
        RefusedError: it names another one.
    """
    if version != VERSION:
        text = f"found version {shorten(version)!r}, expected {VERSION}, or none in the URL"
        raise RefusedError(Problem(ErrorCode.UNKNOWN_MODEL, text))


_VERSIONED: Final = [Depends(require_version)]


# Health and metadata.


@public.get("/health/live", summary="200 while the process works")
async def get_live() -> ServerLive:
    """See `docs/PROTOCOL.md`."""
    return ServerLive(live=True)


@public.get("/health/ready", summary="200 while requests are admitted")
async def get_ready(request: Request) -> ServerReady:
    """See `docs/PROTOCOL.md`."""
    state = state_of(request).engine.state
    if state is not EngineState.READY:
        code = ErrorCode.DRAINING if state is EngineState.DRAINING else ErrorCode.NOT_READY
        raise RefusedError(Problem(code, f"the server is {state.value}"))
    return ServerReady(ready=True)


@router.get("", summary="What the server is, and its extensions of the protocol")
async def get_server() -> ServerMetadata:
    """See `docs/PROTOCOL.md`."""
    return ServerMetadata("anytime-dense", server_version(), _EXTENSIONS)


@router.get("/models/stats", summary="Statistics of all models")
async def get_all_statistics(request: Request) -> StatisticsResponse:
    """See `docs/PROTOCOL.md`."""
    state = state_of(request)
    totals = state.metrics.totals
    return StatisticsResponse(
        tuple(_statistics(name, totals[name]) for name in state.engine.models)
    )


@router.get("/models/{model}", summary="A model's tensors")
@router.get("/models/{model}/versions/{version}", dependencies=_VERSIONED)
async def get_model(request: Request, model: str) -> ModelMetadata:
    """See `docs/PROTOCOL.md`."""
    info = state_of(request).engine.model(model).info
    outputs = _outputs_of(info.task, len(info.keypoints))
    return ModelMetadata(info.name, (VERSION,), "anytime-dense", _INPUTS, outputs)


@router.get("/models/{model}/ready", summary="200 while requests for a model are admitted")
@router.get("/models/{model}/versions/{version}/ready", dependencies=_VERSIONED)
async def get_model_ready(request: Request, model: str) -> ModelReady:
    """See `docs/PROTOCOL.md`."""
    return ModelReady(state_of(request).engine.admissible_model(model).info.name, ready=True)


@router.get("/models/{model}/stats", summary="Statistics of a model")
@router.get("/models/{model}/versions/{version}/stats", dependencies=_VERSIONED)
async def get_statistics(request: Request, model: str) -> StatisticsResponse:
    """See `docs/PROTOCOL.md`."""
    state = state_of(request)
    name = state.engine.model(model).info.name
    return StatisticsResponse((_statistics(name, state.metrics.totals[name]),))


def _outputs_of(task: Task, joints: int) -> tuple[TensorMetadata, ...]:
    if task is Task.POSE:
        return (TensorMetadata(_KEYPOINTS, "FP32", (1, joints, 3)),)
    return tuple(TensorMetadata(name, "UINT8", (1, -1, -1)) for name in (_MAP, _CONFIDENCE))


def _statistics(name: str, totals: ModelTotals) -> ModelStatistics:
    def duration(total: Total) -> DurationStatistic:
        return DurationStatistic(total.count, round(total.seconds * 1e9))

    parts = [duration(total) for total in (totals.decode, totals.compute, totals.output)]
    return ModelStatistics(
        name=name,
        version=VERSION,
        last_inference=round(totals.last_s * 1e3),
        inference_count=totals.succeeded.count,
        execution_count=totals.succeeded.count,
        inference_stats=InferenceStatistics(
            duration(totals.succeeded), duration(totals.failed), duration(totals.queue), *parts
        ),
        batch_stats=(BatchStatistics(1, *parts),),
    )


# Inference.


_REQUEST: Final = {
    "parameters": [
        {
            "name": _JSON_BYTES,
            "in": "header",
            "description": "Bytes of the body that are JSON, not compressed; 0 if it is a file.",
            "schema": {"type": "integer", "minimum": 0},
        },
        {"name": "Content-Encoding", "in": "header", "schema": {"enum": [*Coding, "identity"]}},
    ],
    "requestBody": {
        "required": True,
        "description": "JSON, and behind it the binary data of the input, if it has any.",
        "content": {
            "application/json": {"schema": schema_of(InferenceRequest)},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
}
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "JSON, and behind it the outputs that are wanted in binary.",
        "model": InferenceResponse,
        "content": {"application/octet-stream": {}},
    }
}


@router.post(
    "/models/{model}/infer",
    summary="A map of an image, as good as the budget allows",
    response_class=Response,
    responses=_RESPONSES,
    openapi_extra=_REQUEST,
)
@router.post(
    "/models/{model}/versions/{version}/infer",
    dependencies=_VERSIONED,
    response_class=Response,
    responses=_RESPONSES,
    openapi_extra=_REQUEST,
)
async def infer(request: Request, model: str) -> Response:
    """See `docs/PROTOCOL.md`, section Open Inference Protocol."""
    state, caller = state_of(request), caller_of(request)
    arrived_s = arrival_s(request, state.engine.clock)
    info = state.engine.admissible_model(model).info
    request_id = read_request_id(request)
    deadline = headers.read_deadline(request.headers.items())
    outbox = Outbox(state.metrics)
    try:
        with state.uploads.begin() as upload:
            body, image = await _read(request, state.settings, upload)
        name = body.request.model_name or info.name
        if name != info.name:
            text = f"model_name: found {name!r}, expected the model of the URL, {info.name!r}"
            raise RefusedError(Problem(ErrorCode.BAD_MESSAGE, text, "model_name"))
        available = [tensor.name for tensor in _outputs_of(info.task, 0)]
        wanted = tensors.wanted_outputs(body, available)
        message = Infer(
            id=request_id,
            model=info.name,
            payload=image if isinstance(image, bytes) else b"",
            budget=tightest(_budget(body.request.parameters), deadline_budget(deadline)),
            want=OutputOptions(confidence=_CONFIDENCE in {w.name for w in wanted}, progress=False),
            urgency=_urgency(body.request.parameters, request),
        )
        active = await state.submit(
            message,
            request_id,
            arrived_s,
            "http",
            outbox.callback(request_id),
            caller=caller,
            headers=request.headers,
            pixels=None if isinstance(image, bytes) else image,
        )
    except ClientDisconnect:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    except RefusedError as error:
        raise RefusedError(replace(error.problem, request_id=request_id)) from error
    operators = state.engine.operator_limits()
    lines = answers.common_headers(request_id, deadline, message.budget, operators)
    answer = HttpAnswer(state, active, outbox, deadline, lines | {"Vary": "Accept-Encoding"})
    coding = accepted_coding(request.headers.get("accept-encoding", ""))
    form = _ResponseForm(body.request.id, wanted, coding)
    return await answer_once(request, answer, partial(_respond, form))


async def _read(
    request: Request, settings: Settings, upload: Upload
) -> tuple[RequestBody, bytes | Image]:
    """The request's body, taken apart, and its image."""
    coding = coding_of(request.headers.get("content-encoding", ""))
    json_bytes = _read_json_bytes(request)
    limit = settings.max_body_bytes
    timeout_s, overhead = settings.upload_timeout_s, settings.max_json_bytes
    data = await read_bounded(request, limit, timeout_s, upload, overhead)

    def take_apart() -> tuple[RequestBody, bytes | Image]:
        whole = data
        if coding is not None:
            unpacked = decompress(data, coding, limit + overhead)
            if unpacked is None:
                raise too_large(limit)
            whole = unpacked
        body = tensors.read_body(whole, json_bytes, settings.max_json_bytes)
        return body, tensors.read_image(body)

    if coding is None and len(data) <= _QUICK_BYTES:
        return take_apart()
    return await asyncio.to_thread(take_apart)


def _read_json_bytes(request: Request) -> int | None:
    value = request.headers.get(_JSON_BYTES)
    if value is None:
        return None
    if _WHOLE.fullmatch(value) is None:
        raise HeaderError(_JSON_BYTES, value, "the length of the JSON in bytes")
    return int(value)


def _budget(parameters: RequestParameters) -> Budget:
    budget = Budget(**{name: getattr(parameters, name) for name in LIMITS})
    if not parameters.timeout:
        return budget
    return tightest(budget, Budget(deadline_ms=min(parameters.timeout / 1e3, MAX_MS)))


def _urgency(parameters: RequestParameters, request: Request) -> int:
    """How urgent a request is: its parameter, which counts from 1, goes before its header."""
    if parameters.priority:
        return parameters.priority - 1
    return Priority.parse(request.headers.get(headers.PRIORITY, "")).urgency


@dataclass(frozen=True, slots=True)
class _ResponseForm:
    """How a client wants its response.

    Attributes:
        client_id: to be repeated in it; None for none.
        wanted: outputs.
        coding: of the body; None for none.
    """

    client_id: str | None
    wanted: tuple[WantedOutput, ...]
    coding: Coding | None


async def _respond(
    form: _ResponseForm,
    answer: HttpAnswer,
    ended: RequestEnded,
    best: ExitRendered | None,
) -> Response:
    if best is None:
        return answers.without_map(answer.terminal(ended), router.prefix)
    coding = form.coding

    def encode() -> tuple[tensors.WrittenOutputs, bytes]:
        written = tensors.write_outputs(_arrays(best.rendered, form.wanted))
        return written, b"" if coding is None else deflate(written.body)

    written, deflated = await answer.state.messages.encode(answer.request, best, encode)
    message = answer.terminal(ended)
    if isinstance(message, Failed):
        return answers.without_map(message, router.prefix)
    fields = {"model_name": answer.request.job.model, "model_version": VERSION}
    if form.client_id is not None:
        fields["id"] = form.client_id
    parameters = message.to_json()
    del parameters["type"], parameters["id"]
    head = tensors.write_head(fields | {"parameters": parameters})
    lines = answer.headers | answers.result_headers(message)
    if written.json_bytes is not None:
        lines[_JSON_BYTES] = str(len(head) + written.json_bytes)
    content = head + written.body
    if coding is not None:
        content = join(head, written.body, deflated, coding)
        lines["Content-Encoding"] = coding.value
    binary = written.json_bytes is not None
    media_type = "application/octet-stream" if binary else "application/json"
    return Response(content, headers=lines, media_type=media_type)


def _arrays(rendered: RenderedExit, wanted: tuple[WantedOutput, ...]) -> list[NamedArray]:
    """The outputs of an exit, with the batch of one before their own dimensions."""
    arrays = {
        _MAP: rendered.labels,
        _CONFIDENCE: rendered.confidence,
        _KEYPOINTS: rendered.keypoints,
    }
    found: list[NamedArray] = []
    for name, is_binary in wanted:
        array = arrays[name]
        if array is None:
            raise ValueError(f"exit {rendered.exit} was rendered without {name}")
        found.append(NamedArray(name, array[None], is_binary))
    return found
