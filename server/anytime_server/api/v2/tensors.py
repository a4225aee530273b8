"""Tensors of the Open Inference Protocol: bodies to images, and maps to bodies.

A body is JSON, and behind it may stand the data of tensors, little-endian, row by row, without
gaps; a header says where the JSON ends. An image is either a file (`BYTES`, one element) or its
pixels (`UINT8`); in JSON the file is base64, as JSON has no bytes.

Data in JSON may be long, so they are cut out before the rest is read strictly, and read in pieces:
readers of JSON let nobody else run until they are done.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import pydantic_core
from numpy.typing import NDArray

from anytime_protocol.codec import load_json
from anytime_protocol.enums import ErrorCode
from anytime_protocol.errors import FieldError, FrameError, describe, shorten
from anytime_protocol.http.problems import Problem
from anytime_server.api.v2.messages import InferenceRequest, InputTensor
from anytime_server.errors import RefusedError
from anytime_server.images import Image

FILE: Final = "image"
"""Name of the input that is an image file."""

PIXELS: Final = "pixels"
"""Name of the input that is an image's pixels."""

Array: TypeAlias = NDArray[np.uint8] | NDArray[np.float32]

_CUT: Final = 0
# Data in the JSON are cut out as soon as they are found, and this put in their place. It is no
# list, so whoever sends it himself is refused.

_DATA: Final = re.compile(r'(?<!\\)"data"\s*:\s*\[\s*')
_LIST_END: Final = re.compile(r"\s*\]")
_PIECE: Final = 2**16
"""Characters of JSON that are read at a time."""

MAX_DATA_CHARACTERS: Final = 2**23
"""That data in the JSON may have, as they take far longer to read than the same in binary."""

_NOTHING: Final = memoryview(b"")

_LENGTH: Final = struct.Struct("<I")
_NUMBERS: Final = np.frombuffer(b"".join(b"%3d," % n for n in range(256)), "V4")
"""Each uint8 as JSON with a comma; JSON allows the blanks before it."""

DATATYPES: Final = {"uint8": "UINT8", "float32": "FP32"}
"""The protocol's names of NumPy's types."""


@dataclass(frozen=True, slots=True)
class RequestBody:
    """A request, taken apart.

    Attributes:
        request: its JSON.
        data: data that were cut out of it, as JSON; None if there were none.
        binary: what stands behind it.
        is_raw: there is no JSON: the body is an image file, and outputs are wanted in binary.
    """

    request: InferenceRequest
    data: str | None = None
    binary: memoryview = _NOTHING
    is_raw: bool = False


class NamedArray(NamedTuple):
    """An output before it is written.

    Attributes:
        name: as in the model's metadata.
        array: (1, H, W) uint8 or (1, J, 3) float32.
        is_binary: whether it stands behind the JSON.
    """

    name: str
    array: Array
    is_binary: bool


# Requests.


def read_body(body: bytes, json_bytes: int | None, max_json_bytes: int) -> RequestBody:
    """Takes a body apart and reads its JSON.

    Args:
        body: not compressed.
        json_bytes: length of the JSON, as `Inference-Header-Content-Length` says; None for all of
            it; 0 if the body is nothing but an image file.
        max_json_bytes: that the JSON may have, the data in it aside.

    Raises:
        FrameError: not JSON.
        FieldError: the body is too short, or a field is missing, unknown or out of range.
        RefusedError: the JSON is too long.
    """
    if json_bytes == 0:
        image = InputTensor(FILE, (1,), "BYTES")
        return RequestBody(InferenceRequest((image,)), binary=memoryview(body), is_raw=True)
    if json_bytes is not None and json_bytes > len(body):
        expected = f"at least the {json_bytes} of Inference-Header-Content-Length"
        raise FieldError("body", f"{len(body)} bytes", expected)
    try:
        text = body[:json_bytes].decode()
    except UnicodeDecodeError as error:
        raise FrameError("JSON: not UTF-8") from error
    data = None
    found = _find_data(text)
    if found is not None:
        start, end = found
        data, text = text[start:end], f"{text[:start]}{_CUT}{text[end:]}"
    if data is not None and len(data) > MAX_DATA_CHARACTERS:
        raise _too_large(f"{len(data)} characters of data", MAX_DATA_CHARACTERS)
    if len(text) > max_json_bytes:
        raise _too_large(f"{len(text)} characters of JSON beside the first data", max_json_bytes)
    request = InferenceRequest.from_json(_without_nulls(load_json(text)))
    end = len(body) if json_bytes is None else json_bytes
    return RequestBody(request, data, memoryview(body)[end:])


def _too_large(found: str, most: int) -> RefusedError:
    text = f"the body has {found}, at most {most} are allowed: send the data in binary"
    return RefusedError(Problem(ErrorCode.TOO_LARGE, text))


def _find_data(text: str) -> tuple[int, int] | None:
    """Where the first list of data stands in a request's JSON, if it is one that can be cut out.

    Lists of numbers and lists of one text can; whether it is one is seen when it is read.
    """
    key = _DATA.search(text)
    if key is None:
        return None
    start, inside = text.rindex("[", 0, key.end()), key.end()
    if text.startswith('"', inside):
        quote = text.find('"', inside + 1)
        closing = _LIST_END.match(text, quote + 1) if quote > 0 else None
        return None if closing is None else (start, closing.end())
    marks = [at for at in (text.find('"', inside), text.find("}", inside)) if at >= 0]
    end = text.rfind("]", inside, min(marks, default=len(text)))
    return None if end < 0 else (start, end + 1)


def read_image(body: RequestBody) -> bytes | Image:
    """The image of a request: a file, or (H, W, 3) RGB pixels.

    Raises:
        FieldError: there is not exactly one image, or name, type, shape and data do not agree.
    """
    if body.is_raw:
        return bytes(body.binary)
    inputs = body.request.inputs
    if len(inputs) != 1:
        expected = f"one: `{FILE}` (BYTES, a file) or `{PIXELS}` (UINT8, decoded)"
        raise FieldError("inputs", f"{len(inputs)} inputs", expected)
    tensor = inputs[0]
    if tensor.name == FILE:
        return _read_file(tensor, body)
    if tensor.name == PIXELS:
        return _read_pixels(tensor, body)
    raise FieldError("inputs[0].name", describe(tensor.name), f"{FILE} or {PIXELS}")


def _read_file(tensor: InputTensor, body: RequestBody) -> bytes:
    _check_datatype(tensor, "BYTES")
    if not tensor.shape or set(tensor.shape) != {1}:
        raise FieldError("inputs[0].shape", _shape(tensor.shape), "[1], one file")
    binary = _binary_data(tensor, body)
    if binary is not None:
        return _only_element(binary)
    elements = _json_data(tensor, body)
    if isinstance(elements, str):
        elements = json.loads(elements)
    expected = "a list with one image file as base64, or binary data"
    if not isinstance(elements, list) or len(elements) != 1 or not isinstance(elements[0], str):
        raise FieldError("inputs[0].data", describe(elements), expected)
    try:
        return base64.b64decode(elements[0], validate=True)
    except (binascii.Error, ValueError) as error:
        found = f"text that is not base64 ({shorten(str(error))})"
        raise FieldError("inputs[0].data", found, expected) from error


def _read_pixels(tensor: InputTensor, body: RequestBody) -> Image:
    _check_datatype(tensor, "UINT8")
    shape = tensor.shape[1:] if len(tensor.shape) == 4 and tensor.shape[0] == 1 else tensor.shape
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        expected = "[1, height, width, 3] or [height, width, 3], red, green, blue"
        raise FieldError("inputs[0].shape", _shape(tensor.shape), expected)
    count = shape[0] * shape[1] * shape[2]
    binary = _binary_data(tensor, body)
    if binary is None:
        data = _json_data(tensor, body)
        values = read_numbers(data, tensor.shape) if isinstance(data, str) else to_uint8(data)
    else:
        values = np.frombuffer(binary, np.uint8)
    if values.size != count:
        found = f"{values.size} values"
        raise FieldError("inputs[0].data", found, f"{count}, as shape {_shape(tensor.shape)} says")
    return values.reshape(shape)


def _check_datatype(tensor: InputTensor, expected: str) -> None:
    if tensor.datatype != expected:
        words = f"{expected} for input {tensor.name!r}"
        raise FieldError("inputs[0].datatype", describe(tensor.datatype), words)


def _binary_data(tensor: InputTensor, body: RequestBody) -> memoryview | None:
    """The bytes behind the JSON, all of which are the one input's; None if it has none there."""
    size = tensor.parameters.binary_data_size
    name = "inputs[0].parameters.binary_data_size"
    if size is None:
        if body.binary:
            found = f"nothing, but {len(body.binary)} bytes behind the JSON"
            raise FieldError(name, found, "their number")
        return None
    if tensor.data is not None:
        raise FieldError("inputs[0].data", "data in the JSON and behind it", "one of them")
    if size != len(body.binary):
        expected = (
            f"the {len(body.binary)} bytes that are behind the JSON, whose own length "
            "Inference-Header-Content-Length says"
        )
        raise FieldError(name, describe(size), expected)
    return body.binary


def _json_data(tensor: InputTensor, body: RequestBody) -> Any:
    """Data in the JSON: a list, or the text of the one that was cut out."""
    if tensor.data is None:
        expected = "a list, or binary_data_size in the parameters and the data behind the JSON"
        raise FieldError("inputs[0].data", "nothing", expected)
    if body.data is not None and tensor.data == _CUT:
        return body.data
    if not isinstance(tensor.data, list):
        raise FieldError("inputs[0].data", describe(tensor.data), "a list")
    return tensor.data


def _only_element(binary: memoryview) -> bytes:
    """The element of a BYTES tensor that has one: its length, and then it."""
    if len(binary) >= _LENGTH.size:
        (size,) = _LENGTH.unpack_from(binary)
        if size == len(binary) - _LENGTH.size:
            return bytes(binary[_LENGTH.size :])
    found = f"{len(binary)} bytes that begin with {binary[: _LENGTH.size].hex(' ') or 'nothing'}"
    expected = "the length of one file (4 bytes, little-endian), and then the file"
    raise FieldError("inputs[0].data", found, expected)


def read_numbers(text: str, shape: Sequence[int]) -> NDArray[np.uint8]:
    """A JSON list of whole numbers from 0 to 255, flat or nested as `shape` says.

    Args:
        text: the list.
        shape: of the tensor; a nested list has these lengths.

    Raises:
        FieldError: it is something else.
    """
    inner = text.strip()[1:-1]
    if "[" in inner:
        if len(text) > _PIECE:
            found = f"nested lists of {len(text)} characters"
            raise FieldError("inputs[0].data", found, "one flat list, row by row, or binary data")
        return to_uint8(_flatten(_load_list(text), shape))
    if not inner.strip():
        return np.empty(0, np.uint8)
    arrays: list[NDArray[np.uint8]] = []
    start = 0
    while start <= len(inner):
        end = inner.find(",", start + _PIECE)
        end = len(inner) if end < 0 else end
        values = _load_list(f"[{inner[start:end]}]")
        if not values:
            raise FieldError("inputs[0].data", "a comma with nothing behind it", "a list")
        arrays.append(to_uint8(values))
        start = end + 1
    return np.concatenate(arrays)


def to_uint8(values: list[Any]) -> NDArray[np.uint8]:
    """Values of a JSON list as uint8; 7.0 is a whole number, too, as some clients write it.

    Raises:
        FieldError: one is not a whole number from 0 to 255.
    """
    kinds = set(map(type, values))
    if kinds <= {int, float}:
        try:
            numbers = np.asarray(values, np.int64 if kinds == {int} else np.float64)
        except OverflowError:
            numbers = np.full(1, -1)
        result = numbers.astype(np.uint8) if np.all((numbers >= 0) & (numbers <= 255)) else None
        if result is not None and np.array_equal(result, numbers):
            return result
    wrong = next(value for value in values if not _is_uint8(value))
    raise FieldError("inputs[0].data", describe(wrong), "whole numbers from 0 to 255")


def _is_uint8(value: object) -> bool:
    return type(value) in {int, float} and value in range(256)


def _flatten(values: list[Any], shape: Sequence[int]) -> list[Any]:
    """Nested lists, each level as long as `shape` says, as one list, row by row."""
    rows: list[Any] = [values]
    for length in shape:
        wrong = next((r for r in rows if not isinstance(r, list) or len(r) != length), None)
        if wrong is not None:
            expected = f"nested lists as shape {_shape(shape)} says, or one flat list"
            raise FieldError("inputs[0].data", describe(wrong), expected)
        rows = [item for row in rows for item in row]
    return rows


def _load_list(text: str) -> list[Any]:
    try:
        values = pydantic_core.from_json(text, allow_inf_nan=False)
    except ValueError as error:
        found = f"what is no list ({shorten(str(error))})"
        raise FieldError("inputs[0].data", found, "a list of numbers") from error
    return values if isinstance(values, list) else [values]


def _without_nulls(request: dict[str, Any]) -> dict[str, Any]:
    """A request whose optional fields are absent where some clients write null."""
    cleaned = _drop_nulls(request)
    for name in ("inputs", "outputs"):
        items = cleaned.get(name)
        if isinstance(items, list):
            cleaned[name] = [
                _drop_nulls(item) if isinstance(item, dict) else item for item in items
            ]
    return cleaned


def _drop_nulls(value: dict[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in value.items() if item is not None}


def _shape(shape: Iterable[int]) -> str:
    return shorten(str(list(shape)))


# Responses.


class WantedOutput(NamedTuple):
    """An output that is to be sent.

    Attributes:
        name: of those that the model has.
        is_binary: whether its data stand behind the JSON.
    """

    name: str
    is_binary: bool


def wanted_outputs(body: RequestBody, available: Sequence[str]) -> tuple[WantedOutput, ...]:
    """What a request wants of the outputs that a model has: all, unless it names some.

    Raises:
        FieldError: it names another one, or one twice.
    """
    is_binary = body.is_raw or bool(body.request.parameters.binary_data_output)
    found: dict[str, WantedOutput] = {}
    for index, output in enumerate(body.request.outputs):
        where = f"outputs[{index}].name"
        if output.name not in available:
            raise FieldError(where, describe(output.name), f"one of {', '.join(available)}")
        if output.name in found:
            raise FieldError(where, f"{describe(output.name)} again", "each output once")
        own = output.parameters.binary_data
        found[output.name] = WantedOutput(output.name, is_binary if own is None else own)
    return tuple(found.values()) or tuple(WantedOutput(name, is_binary) for name in available)


class WrittenOutputs(NamedTuple):
    """The end of a response's body.

    Attributes:
        body: the outputs in JSON to the end of the JSON, and the binary data.
        json_bytes: how much of it is JSON; None if all of it is.
    """

    body: bytes
    json_bytes: int | None


def write_outputs(outputs: Iterable[NamedArray]) -> WrittenOutputs:
    """Writes the outputs, which is most of the work, so that the rest can tell what it took."""
    described: list[bytes] = []
    binary: list[bytes] = []
    for name, array, is_binary in outputs:
        tensor = {"name": name, "datatype": DATATYPES[array.dtype.name], "shape": array.shape}
        if is_binary:
            data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
            binary.append(data)
            described.append(_dump(tensor | {"parameters": {"binary_data_size": len(data)}}))
        else:
            described.append(_dump(tensor)[:-1] + b',"data":' + _json_list(array) + b"}")
    text = b"[" + b",".join(described) + b"]}"
    return WrittenOutputs(text + b"".join(binary), len(text) if binary else None)


def write_head(fields: dict[str, Any]) -> bytes:
    """The beginning of a response's body, before its outputs; with them it is whole."""
    return _dump(fields)[:-1] + b',"outputs":'


def _json_list(array: Array) -> bytes:
    flat = array.ravel()
    if flat.dtype == np.uint8:
        return b"[" + _NUMBERS[flat].tobytes()[:-1] + b"]"
    return _dump(flat.tolist())


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
