"""Reading a predict request: headers, query, body or form, within bounds.

Decides what a client asks for, from all the places where it may stand, and in which of the accepted
forms it is answered. Refuses before the body is read whatever the headers tell already. Does not
know the engine.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Final

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from anytime_protocol.budget import Budget, tightest
from anytime_protocol.client_messages import OutputOptions
from anytime_protocol.codec import load_json
from anytime_protocol.enums import Encoding, ErrorCode, Task
from anytime_protocol.errors import FieldError, FrameError, HeaderError, shorten
from anytime_protocol.http import headers
from anytime_protocol.http.headers import Deadline, Priority
from anytime_protocol.http.problems import Problem
from anytime_protocol.http.query import read_query
from anytime_protocol.json_reader import ID_FORM, JsonReader
from anytime_server.engine.service import RefusedError
from anytime_server.images import ImageError, check_media_type
from anytime_server.settings import Settings

_FORM_OVERHEAD: Final = 64 * 1024
"""Bytes that a form may have beside its file and its JSON."""

_MULTIPART: Final = "multipart/form-data"


class Form(StrEnum):
    """In which form a request is answered; the value is the media type."""

    PNG = "image/png"
    JSON = "application/json"
    NPY = "application/x-npy"
    SSE = "text/event-stream"
    NDJSON = "application/x-ndjson"
    MIXED = "multipart/mixed"
    REPLACE = "multipart/x-mixed-replace"

    @property
    def progressive(self) -> bool:
        """Whether it shows every exit."""
        return self not in {Form.PNG, Form.JSON, Form.NPY}


_ENCODINGS: Final = {
    Form.PNG: Encoding.PNG,
    Form.JSON: Encoding.RLE,
    Form.NPY: Encoding.RAW,
    Form.MIXED: Encoding.PNG,
    Form.REPLACE: Encoding.PNG,
}
"""Forms that choose the encoding themselves."""


@dataclass(frozen=True, slots=True)
class Call:
    """A predict request, its headers and query read, its body not yet.

    Attributes:
        id: given or made up.
        form: of the answer.
        budget: of headers and query together.
        want: of the query.
        wanted: names of the fields of `want` that the query has.
        deadline: as the headers say.
        priority: as the headers say.
        media_type: of the body.
    """

    id: str
    form: Form
    budget: Budget
    want: OutputOptions
    wanted: frozenset[str]
    deadline: Deadline
    priority: Priority
    media_type: str

    @property
    def applied_ms(self) -> float | None:
        """The deadline in force: the tightest of headers and budget."""
        times = (self.deadline.applied_ms, self.budget.at(0.0).deadline_ms)
        return min((ms for ms in times if ms is not None), default=None)


def read_call(request: Request, task: Task, settings: Settings) -> Call:
    """Reads all but the body.

    Raises:
        ProtocolError: a header or the query is malformed.
        RefusedError: the answer has no acceptable form, or the body a wrong size or type.
    """
    lines = request.headers.items()
    request_id = request.headers.get(headers.REQUEST_ID, uuid.uuid4().hex)
    if ID_FORM.fullmatch(request_id) is None:
        raise HeaderError(headers.REQUEST_ID, shorten(request_id), f"the form {ID_FORM.pattern}")
    deadline = headers.read_deadline(lines)
    priority = Priority.parse(request.headers.get(headers.PRIORITY, ""))
    form = negotiate(request.headers.get("accept", "*/*"), task, priority.incremental)
    if form is None:
        forms = ", ".join(f for f in Form if f in allowed(task))
        raise RefusedError(Problem(ErrorCode.NOT_ACCEPTABLE, f"expected one of {forms}", "Accept"))
    budget, want = read_query(request.query_params.multi_items())
    media_type = request.headers.get("content-type", "")
    if media_type.partition(";")[0].strip().lower() != _MULTIPART:
        try:
            check_media_type(media_type)
        except ImageError as error:
            detail = f"{error}, or {_MULTIPART}"
            raise RefusedError(Problem(error.code, detail, "Content-Type")) from error
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > settings.max_body_bytes + _FORM_OVERHEAD:
        raise _too_large(settings.max_body_bytes)
    return Call(
        id=request_id,
        form=form,
        budget=tightest(budget, _deadline_budget(deadline)),
        want=shape_want(want, form),
        wanted=frozenset(request.query_params),
        deadline=deadline,
        priority=priority,
        media_type=media_type,
    )


async def read_body(
    request: Request, call: Call, settings: Settings
) -> tuple[bytes, str, Budget, OutputOptions]:
    """Reads the body: the image, or a form with the image in it.

    Returns:
        The image file, its media type, and the budget and wishes of headers, query and form.

    Raises:
        ProtocolError: the form's JSON is malformed.
        RefusedError: too large, too slow, or no image in it.
        ClientDisconnect: the client is gone.
    """
    is_form = call.media_type.partition(";")[0].strip().lower() == _MULTIPART
    limit = settings.max_body_bytes + (_FORM_OVERHEAD if is_form else 0)
    try:
        async with asyncio.timeout(settings.upload_timeout_s):
            body = await _collect(request.stream(), limit, settings.max_body_bytes)
    except TimeoutError:
        text = f"the body did not arrive within {settings.upload_timeout_s:g} s"
        raise RefusedError(Problem(ErrorCode.BAD_REQUEST, text, request_id=call.id)) from None
    if is_form:
        return await _read_form(request, body, call, settings)
    if not body:
        raise RefusedError(
            Problem(ErrorCode.BAD_IMAGE, "the body is empty, expected an image", request_id=call.id)
        )
    return body, call.media_type, call.budget, call.want


def negotiate(accept: str, task: Task, incremental: bool) -> Form | None:
    """The form that a client prefers among those that exist for a task (RFC 9110, 12.5.1).

    Args:
        accept: the header.
        task: of the model.
        incremental: partial results are of use; decides between forms of one weight.

    Returns:
        None if no form is acceptable.
    """
    forms = allowed(task)
    default = forms[0]
    weights: dict[Form, float] = {}
    exactness: dict[Form, int] = {}
    order: dict[Form, int] = {}
    for position, item in enumerate(accept.split(",")[:32]):
        pattern, *parameters = (piece.strip().lower() for piece in item.split(";"))
        weight = _weight(parameters)
        for form in forms:
            exact = _match(pattern, form)
            if exact > exactness.get(form, 0):
                exactness[form], weights[form], order[form] = exact, weight, position
    usable = [form for form, weight in weights.items() if weight > 0.0]
    if not usable:
        return None

    def rank(form: Form) -> tuple[float, bool, int, bool, int]:
        named = exactness[form] == 3
        suits = form.progressive == incremental if named else form is default
        return (-weights[form], not suits, order[form], not named, forms.index(form))

    return min(usable, key=rank)


def allowed(task: Task) -> tuple[Form, ...]:
    """The forms that exist for a task, the default first."""
    if task is Task.POSE:
        return (Form.JSON, Form.NPY, Form.SSE, Form.NDJSON, Form.MIXED)
    return (Form.PNG, Form.JSON, Form.NPY, Form.SSE, Form.NDJSON, Form.MIXED, Form.REPLACE)


def shape_want(want: OutputOptions, form: Form) -> OutputOptions:
    """What the engine must make for a form: a plain file holds one map and nothing else."""
    encoding = _ENCODINGS.get(form)
    if encoding is None:
        return want
    return replace(
        want,
        encoding=encoding,
        confidence=False,
        active=False,
        heatmaps=False,
        progress=form.progressive and want.progress,
    )


def _deadline_budget(deadline: Deadline) -> Budget:
    """A hard deadline is a limit; after a soft one no more than exit 1 may be computed."""
    hard = Budget(deadline_ms=deadline.hard_ms)
    if deadline.soft_ms is None:
        return hard
    return tightest(hard, Budget(schedule=((deadline.soft_ms, Budget(max_exit=1)),)))


async def _collect(stream: AsyncIterator[bytes], limit: int, shown: int) -> bytes:
    body = bytearray()
    async for chunk in stream:
        body += chunk
        if len(body) > limit:
            raise _too_large(shown)
    return bytes(body)


async def _read_form(
    request: Request, body: bytes, call: Call, settings: Settings
) -> tuple[bytes, str, Budget, OutputOptions]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        request.headers,
        stream(),
        max_files=1,
        max_fields=2,
        max_part_size=settings.max_json_bytes,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        text = f"the form is malformed: {getattr(error, 'message', error)}"
        raise RefusedError(Problem(ErrorCode.BAD_REQUEST, text, request_id=call.id)) from error
    try:
        unknown = sorted(set(form) - {"image", "budget", "want"})
        if unknown:
            raise FieldError(
                f"form.{shorten(unknown[0])}", "an unknown part", "image, budget, want"
            )
        image = form.get("image")
        if not isinstance(image, UploadFile):
            text = "the form has no file in its part `image`"
            raise RefusedError(Problem(ErrorCode.BAD_IMAGE, text, "form.image", call.id))
        data = await image.read()
        if not data:
            text = "the part `image` is empty, expected an image file"
            raise RefusedError(Problem(ErrorCode.BAD_IMAGE, text, "form.image", call.id))
        if len(data) > settings.max_body_bytes:
            raise _too_large(settings.max_body_bytes)
        budget = tightest(call.budget, Budget.from_json(_json(form.get("budget"), "budget")))
        want = _merge(call, _json(form.get("want"), "want"))
        return data, image.content_type or "", budget, want
    finally:
        await form.close()


def _merge(call: Call, value: dict[str, object]) -> OutputOptions:
    """The wishes of query and form; each may stand in one of them only."""
    twice = sorted(call.wanted & set(value))
    if twice:
        raise FieldError(f"want.{twice[0]}", "it in query and form", "it in one of them")
    formed = OutputOptions.read(JsonReader(value, "want"))
    chosen = {
        item.name: getattr(formed, item.name)
        for item in fields(OutputOptions)
        if item.name in value
    }
    return shape_want(replace(call.want, **chosen), call.form)


def _json(value: UploadFile | str | None, name: str) -> dict[str, object]:
    if value is None:
        return {}
    if not isinstance(value, str):
        raise FieldError(f"form.{name}", "a file", "JSON text")
    try:
        return load_json(value)
    except FrameError as error:
        raise FieldError(f"form.{name}", str(error), "a JSON object") from error


def _weight(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def _match(pattern: str, form: Form) -> int:
    """How exactly a media range names a form: 3 by name, 2 by its type, 1 by `*/*`, 0 not."""
    if pattern == form.value:
        return 3
    if pattern == form.value.partition("/")[0] + "/*":
        return 2
    return 1 if pattern in {"*/*", "*"} else 0


def _too_large(limit: int) -> RefusedError:
    text = f"the body has more than {limit} bytes, which is the limit: send a smaller image"
    return RefusedError(Problem(ErrorCode.TOO_LARGE, text))
