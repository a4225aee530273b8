"""Reading a predict request, within bounds, into the protocol's `Infer` message.

What the headers tell already is refused before the body is read.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, Final

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from anytime_protocol.budget import Budget, tightest
from anytime_protocol.codec import load_json
from anytime_protocol.enums import ErrorCode, Task
from anytime_protocol.errors import FieldError, FrameError, HeaderError, shorten
from anytime_protocol.http import headers
from anytime_protocol.http.headers import Deadline, Priority
from anytime_protocol.http.problems import Problem
from anytime_protocol.http.query import read_query
from anytime_protocol.messages import Infer, OutputOptions
from anytime_protocol.validation import ID_FORM
from anytime_server.api.bodies import read_bounded, too_large
from anytime_server.api.formats import AnswerFormat, formats_of, negotiate, restrict
from anytime_server.api.uploads import Upload
from anytime_server.errors import ImageRejectedError, RefusedError
from anytime_server.images import check_media_type
from anytime_server.settings import Settings

_FORM_OVERHEAD: Final = 64 * 1024
"""Bytes that a form may have beside its file."""

_MULTIPART: Final = "multipart/form-data"

_PARTS: Final = ("image", "budget", "want")

_MOST_PARTS: Final = 8
"""Files, and fields, that are read of a form: more than it may have, so that errors name parts."""


def read_head(request: Request, model: str, task: Task) -> tuple[Infer, AnswerFormat, Deadline]:
    """Reads headers and query.

    Args:
        request: its body is not touched.
        model: asked for.
        task: of the model.

    Returns:
        The request without its image, the format of the answer, and the deadline headers, which are
        in the request's budget already.

    Raises:
        ProtocolError: a header or the query is malformed.
        RefusedError: no format is acceptable, or the body has a wrong type.
    """
    request_id = read_request_id(request)
    deadline = headers.read_deadline(request.headers.items())
    priority = Priority.parse(request.headers.get(headers.PRIORITY, ""))
    accept = ", ".join(request.headers.getlist("accept")).strip(" \t,") or "*/*"
    answer_format = negotiate(accept, task, incremental=priority.incremental)
    if answer_format is None:
        expected = f"expected one of {', '.join(formats_of(task))}"
        raise RefusedError(Problem(ErrorCode.NOT_ACCEPTABLE, expected, "Accept"))
    budget, want = read_query(request.query_params.multi_items())
    media_type = request.headers.get("content-type", "")
    if not _is_form(media_type):
        try:
            check_media_type(media_type)
        except ImageRejectedError as error:
            detail = f"{error}, or {_MULTIPART}"
            raise RefusedError(Problem(error.code, detail, "Content-Type")) from error
    infer = Infer(
        id=request_id,
        model=model,
        payload=b"",
        media_type=media_type,
        budget=tightest(budget, deadline_budget(deadline)),
        want=restrict(want, answer_format),
        urgency=priority.urgency,
    )
    return infer, answer_format, deadline


def read_request_id(request: Request) -> str:
    """The id that a client gave its request, or a new one.

    Raises:
        HeaderError: it has another form, or it gave several.
    """
    match request.headers.getlist(headers.REQUEST_ID):
        case []:
            return uuid.uuid4().hex
        case [request_id] if ID_FORM.fullmatch(request_id):
            return request_id
        case found:
            expected = f"one id of the form {ID_FORM.pattern}"
            raise HeaderError(headers.REQUEST_ID, shorten(", ".join(found)), expected)


async def read_image(
    request: Request,
    infer: Infer,
    answer_format: AnswerFormat,
    settings: Settings,
    upload: Upload,
) -> Infer:
    """Reads the body: the image, or a form with the image in it.

    Args:
        request: whose body.
        infer: what headers and query say.
        answer_format: of the answer.
        settings: bounds.
        upload: holds the body.

    Returns:
        The whole request, with the budget and the output options of the form.

    Raises:
        ProtocolError: the form's JSON is malformed.
        RefusedError: too large, too slow, or no image in it.
        ClientDisconnect: the client has left.
    """
    limit = settings.max_body_bytes
    if not _is_form(infer.media_type):
        body = await read_bounded(request, limit, settings.upload_timeout_s, upload)
        if not body:
            text = "the body is empty, expected an image"
            raise RefusedError(Problem(ErrorCode.BAD_IMAGE, text))
        return replace(infer, payload=body)
    body = await read_bounded(request, limit, settings.upload_timeout_s, upload, _FORM_OVERHEAD)
    form = await _parse_form(request, body, settings)
    try:
        image = form.get("image")
        if not isinstance(image, UploadFile):
            text = "the form has no file in its part `image`: expected one with a file name"
            raise RefusedError(Problem(ErrorCode.BAD_IMAGE, text, "form.image"))
        data = await image.read()
        if not data:
            text = "the part `image` is empty, expected an image file"
            raise RefusedError(Problem(ErrorCode.BAD_IMAGE, text, "form.image"))
        if len(data) > limit:
            raise too_large(limit)
        want = _merge(infer.want, _json(form, "want"), set(request.query_params))
        return replace(
            infer,
            payload=data,
            media_type=image.content_type or "",
            budget=tightest(infer.budget, Budget.from_json(_json(form, "budget"))),
            want=restrict(want, answer_format),
        )
    finally:
        await form.close()


def _is_form(media_type: str) -> bool:
    return media_type.partition(";")[0].strip().lower() == _MULTIPART


def deadline_budget(deadline: Deadline) -> Budget:
    """A hard deadline is a limit; after a soft one no more than exit 1 may be computed."""
    hard = Budget(deadline_ms=deadline.hard_ms)
    if deadline.soft_ms is None:
        return hard
    return tightest(hard, Budget(schedule=((deadline.soft_ms, Budget(max_exit=1)),)))


class _ParserInMemory(MultiPartParser):
    """Keeps files in memory, which the body's bound bounds, and writes none to the disk."""

    spool_max_size = 0  # of a SpooledTemporaryFile: no size is too large


async def _parse_form(request: Request, body: bytes, settings: Settings) -> FormData:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _ParserInMemory(
        request.headers,
        stream(),
        max_files=_MOST_PARTS,
        max_fields=_MOST_PARTS,
        max_part_size=settings.max_json_bytes,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        text = f"the form is malformed: {getattr(error, 'message', error)}"
        raise RefusedError(Problem(ErrorCode.BAD_MESSAGE, text, "form")) from error
    try:
        _check_parts([name for name, _ in form.multi_items()])
    except FieldError:
        await form.close()
        raise
    return form


def _check_parts(names: list[str]) -> None:
    for name in names:
        if name not in _PARTS:
            expected = f"one of {', '.join(_PARTS)}"
            raise FieldError(f"form.{shorten(name)}", "an unknown part", expected)
        if names.count(name) > 1:
            raise FieldError(f"form.{name}", "the part twice", "it once")


def _merge(want: OutputOptions, given: dict[str, Any], in_query: set[str]) -> OutputOptions:
    """The output options of query and form; each may stand in one of them only."""
    twice = sorted(in_query & set(given))
    if twice:
        raise FieldError(f"want.{twice[0]}", "it in query and form", "it in one of them")
    return OutputOptions.from_json(want.to_json() | given, "want")


def _json(form: FormData, name: str) -> dict[str, Any]:
    value = form.get(name)
    if value is None:
        return {}
    if not isinstance(value, str):
        raise FieldError(f"form.{name}", "a file", "JSON text, in a part without a file name")
    try:
        return load_json(value)
    except FrameError as error:
        raise FieldError(f"form.{name}", str(error), "a JSON object") from error
