"""Bodies to images and maps to bodies."""

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from anytime_protocol.errors import FieldError, ProtocolError
from anytime_server.api.v2 import tensors
from anytime_server.api.v2.messages import InferenceRequest, RequestedOutput
from anytime_server.api.v2.tensors import NamedArray, RequestBody
from anytime_server.errors import RefusedError
from server.api.v2.messages import (
    bytes_element,
    file_input,
    pixels_input,
    read_response,
    request_body,
)

MAX_JSON = 4096
SIDES = st.integers(1, 7)
PIXELS = st.tuples(SIDES, SIDES).flatmap(lambda size: arrays.arrays(np.uint8, (*size, 3)))
FORMS = ("binary", "flat", "floats", "nested", "spaced")


def read(body, json_bytes=None, max_json=MAX_JSON):
    return tensors.read_image(tensors.read_body(body, json_bytes, max_json))


def body_of(pixels, form):
    match form:
        case "binary":
            return request_body(pixels_input(pixels), pixels.tobytes())
        case "flat":
            return request_body(pixels_input(pixels, data=pixels.ravel().tolist()))
        case "floats":
            return request_body(pixels_input(pixels, data=pixels.ravel().astype(float).tolist()))
        case "nested":
            return request_body(pixels_input(pixels, data=pixels.tolist()))
        case "spaced":
            body, _ = request_body(pixels_input(pixels, data=pixels.ravel().tolist()))
            return json.dumps(json.loads(body), indent=3).encode(), None


@given(pixels=PIXELS, form=st.sampled_from(FORMS), batch=st.booleans())
def test_pixels_come_out_as_they_went_in(pixels, form, batch):
    sent = pixels[None] if batch else pixels
    np.testing.assert_array_equal(read(*body_of(sent, form)), pixels)


@given(data=st.binary(max_size=200), is_binary=st.booleans(), shape=st.sampled_from([[1], [1, 1]]))
def test_a_file_comes_out_as_it_went_in(data, is_binary, shape):
    tensor = file_input() | {"shape": shape}
    if is_binary:
        body = request_body(tensor, bytes_element(data))
    else:
        body = request_body(tensor | {"data": [base64.b64encode(data).decode()]})
    assert read(*body) == data


def test_a_body_without_json_is_a_file_and_wants_its_outputs_in_binary():
    body = tensors.read_body(b"a file", 0, MAX_JSON)
    assert tensors.read_image(body) == b"a file"
    assert [output.is_binary for output in tensors.wanted_outputs(body, ["map"])] == [True]


@given(
    planes=st.lists(
        st.one_of(
            arrays.arrays(np.uint8, st.tuples(st.just(1), SIDES, SIDES)),
            arrays.arrays(
                np.float32,
                st.tuples(st.just(1), SIDES, st.just(3)),
                elements=st.floats(-1e6, 1e6, width=32),
            ),
        ),
        min_size=1,
        max_size=3,
    ),
    binary=st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_outputs_come_out_as_they_went_in(planes, binary):
    outputs = [NamedArray(f"output {n}", plane, binary[n]) for n, plane in enumerate(planes)]
    head = tensors.write_head({"model_name": "street", "parameters": {"exit": 1}})
    written = tensors.write_outputs(outputs)
    is_binary = written.json_bytes is not None
    assert is_binary == any(output.is_binary for output in outputs)
    size = len(head) + written.json_bytes if is_binary else None
    message, found = read_response(head + written.body, size)
    assert message["model_name"] == "street"
    for name, array, _ in outputs:
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_long_lists_are_read_in_pieces(monkeypatch):
    sizes, load = [], tensors.pydantic_core.from_json
    note = lambda text, **options: sizes.append(len(text)) or load(text, **options)  # noqa: E731
    monkeypatch.setattr(tensors.pydantic_core, "from_json", note)
    pixels = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read(*body_of(pixels, "flat")), pixels)
    assert len(sizes) > 2
    assert max(sizes) < 2**16 + 10


def test_a_limit_of_the_json_leaves_the_data_out():
    pixels = np.zeros((64, 64, 3), np.uint8)
    body, _ = body_of(pixels, "flat")
    assert len(body) > MAX_JSON
    assert read(body).shape == (64, 64, 3)
    long, _ = request_body(pixels_input(pixels, data=[0]), id="x" * 100, model_name="y" * MAX_JSON)
    with pytest.raises(RefusedError, match="of JSON beside the first data, at most 4096"):
        read(long)


@pytest.mark.parametrize("text", ["[" + "1," * 2**22 + "1]", f'["{"A" * 2**23}"]'])
def test_data_in_json_have_a_limit_of_their_own(text):
    tensor = json.dumps(file_input(data="@")).replace('"@"', text)
    with pytest.raises(RefusedError, match="of data, at most 8388608 are allowed: send"):
        read(f'{{"inputs": [{tensor}]}}'.encode())


def test_data_in_another_place_is_not_taken_for_an_input():
    body = b'{"parameters": {"data": [1, 2]}, "inputs": []}'
    with pytest.raises(FieldError, match="parameters"):
        read(body)
    quoted = {"id": '"data": [1, 2]', "inputs": [file_input(data=["AAAA"])]}
    assert read(json.dumps(quoted).encode()) == bytes(3)
    key = b'{"inputs": [], "x\\"data": [1, 2]}'
    with pytest.raises(FieldError, match="unknown"):
        read(key)


TENSOR = pixels_input(np.zeros((1, 2, 2, 3), np.uint8))
FLAT = [0] * 12


def changed(**fields):
    """A well-formed body with other fields in its one input."""
    return request_body({k: v for k, v in (TENSOR | {"data": FLAT} | fields).items() if v != "-"})


MALFORMED = [
    (changed(name="input0"), "inputs[0].name", "the text 'input0'", "image or pixels"),
    (changed(name="-"), "inputs[0].name", "nothing", "text of at most 64 characters"),
    (changed(datatype="FP32"), "inputs[0].datatype", "the text 'FP32'", "UINT8 for input 'pixels'"),
    (changed(shape=[2, 2]), "inputs[0].shape", "[2, 2]", "[1, height, width, 3]"),
    (changed(shape=[2, 2, 2, 3]), "inputs[0].shape", "[2, 2, 2, 3]", "[height, width, 3]"),
    (changed(shape=[1, 2, 2, 4]), "inputs[0].shape", "[1, 2, 2, 4]", "red, green, blue"),
    (changed(shape=[0, 2, 3]), "inputs[0].shape", "[0, 2, 3]", "[height, width, 3]"),
    (changed(shape=[-1, 2, 3]), "inputs[0].shape[0]", "the number -1", "a whole number >= 0"),
    (changed(shape=[1, 3, 2, 3]), "inputs[0].data", "12 values", "18, as shape [1, 3, 2, 3] says"),
    (changed(shape=[1e9, 2, 3]), "inputs[0].shape[0]", "1000000000.0", "a whole number >= 0"),
    (changed(data=[*FLAT[:-1], 256]), "inputs[0].data", "the number 256", "from 0 to 255"),
    (changed(data=[*FLAT[:-1], -1]), "inputs[0].data", "the number -1", "from 0 to 255"),
    (changed(data=[*FLAT[:-1], 0.5]), "inputs[0].data", "the number 0.5", "whole numbers"),
    (changed(data=[*FLAT[:-1], 10**30]), "inputs[0].data", "a gigantic", "from 0 to 255"),
    (changed(data=[*FLAT[:-1], True]), "inputs[0].data", "the boolean true", "whole numbers"),
    (changed(data=[*FLAT[:-1], "0"]), "inputs[0].data", "the text '0'", "whole numbers"),
    (changed(data=[FLAT]), "inputs[0].data", "a list of 12", "nested lists as shape"),
    (changed(data=[[[[0, 0, 0]] * 2, [[0, 0, 0]]]]), "inputs[0].data", "a list of 1", "nested"),
    (changed(data="-"), "inputs[0].data", "nothing", "a list, or binary_data_size"),
    (changed(data="AAAA"), "inputs[0].data", "the text 'AAAA'", "a list"),
    (changed(data=0), "inputs[0].data", "the number 0", "a list"),
    (changed(offset=1), "inputs[0].offset", "an unknown field", "only fields of this protocol"),
    (
        changed(parameters={"shared_memory_region": "r"}),
        "inputs[0].parameters.shared_memory_region",
        "an unknown field",
        "only fields",
    ),
    (
        changed(parameters={"binary_data_size": 12}),
        "inputs[0].data",
        "data in the JSON and behind it",
        "one of them",
    ),
    (
        request_body(TENSOR | {"parameters": {"binary_data_size": 12}}),
        "inputs[0].parameters.binary_data_size",
        "the number 12",
        "the 0 bytes that are behind the JSON, whose own length Inference-Header-Content-Length",
    ),
    (request_body(TENSOR, bytes(11)), "inputs[0].data", "11 values", "12, as shape"),
    (
        request_body(file_input(), b"\xff\0\0\0JPEG"),
        "inputs[0].data",
        "8 bytes that begin with ff 00 00 00",
        "the length of one file (4 bytes, little-endian)",
    ),
    (request_body(file_input(), b""), "inputs[0].data", "0 bytes that begin with nothing", "file"),
    (request_body(file_input(data=["%"])), "inputs[0].data", "text that is not base64", "base64"),
    (request_body(file_input(data=[])), "inputs[0].data", "a list of 0", "one image file"),
    (request_body(file_input(data=["AAAA", "AAAA"])), "inputs[0].data", "a list of 2", "one image"),
    (request_body(file_input() | {"shape": [2]}), "inputs[0].shape", "[2]", "[1], one file"),
    (request_body(file_input() | {"shape": []}), "inputs[0].shape", "[]", "[1], one file"),
    ((b'{"inputs": []}', None), "inputs", "0 inputs", "one: `image` (BYTES, a file) or `pixels`"),
    ((b"{}", None), "inputs", "nothing", "a list"),
    (
        (json.dumps({"inputs": [file_input(data=[""]), TENSOR | {"data": FLAT}]}).encode(), None),
        "inputs",
        "2 inputs",
        "one: `image`",
    ),
    (
        request_body(TENSOR | {"data": FLAT}, parameters={"max_exits": 2}),
        "parameters.max_exits",
        "an unknown field",
        "only fields of this protocol",
    ),
    (
        request_body(TENSOR | {"data": FLAT}, parameters={"max_exit": 0}),
        "parameters.max_exit",
        "the number 0",
        "a whole number >= 1",
    ),
    (
        request_body(TENSOR | {"data": FLAT}, parameters={"priority": 9}),
        "parameters.priority",
        "the number 9",
        "a whole number from 0 to 8",
    ),
    (
        request_body(TENSOR | {"data": FLAT}, parameters={"timeout": 1.5}),
        "parameters.timeout",
        "the number 1.5",
        "a whole number",
    ),
    ((b"{}", 3), "body", "2 bytes", "at least the 3 of Inference-Header-Content-Length"),
]


@pytest.mark.parametrize(
    ("body", "field", "found", "expected"),
    MALFORMED,
    ids=[f"{n}-{m[1]}" for n, m in enumerate(MALFORMED)],
)
def test_malformed_bodies_are_named_with_what_was_found_and_expected(body, field, found, expected):
    with pytest.raises(FieldError) as raised:
        read(*body)
    assert raised.value.field == field
    assert found in raised.value.found
    assert expected in raised.value.expected


@pytest.mark.parametrize(
    "text", ["[1,,2]", "[1,]", "[,1]", "[1 2]", "[1]]", "[0x1]", "[NaN]", "[01]"]
)
def test_lists_that_are_no_json_are_refused(text):
    body = json.dumps({"inputs": [pixels_input(np.zeros((1, 1, 3), np.uint8), data="@")]})
    with pytest.raises(ProtocolError):
        read(body.replace('"@"', text).encode())


def read_or_refuse(body, json_bytes=None):
    """Reads a body that may be nonsense: it is refused with words, or it is an image."""
    try:
        image = read(body, json_bytes)
    except ProtocolError as error:
        return bool(str(error))
    return isinstance(image, bytes) or image.shape == (1, 1, 3)


BEGINNING = b'{"inputs":[{"name":"pixels","shape":[1,1,3],"datatype":"UINT8","data":'


@given(data=st.binary(max_size=60), json_bytes=st.one_of(st.none(), st.integers(0, 70)))
def test_no_bytes_make_the_reader_fail_otherwise(data, json_bytes):
    assert read_or_refuse(data, json_bytes)
    assert read_or_refuse(BEGINNING + data, json_bytes)


@given(text=st.text('[]{}",:0129.-+eE \\data', max_size=40))
def test_no_text_in_the_place_of_data_makes_the_reader_fail_otherwise(text):
    assert read_or_refuse(BEGINNING + text.encode() + b"}]}")


def body_wanting(*outputs, **parameters):
    fields = {"inputs": [], "outputs": list(outputs), "parameters": parameters}
    return RequestBody(InferenceRequest.from_json(fields))


def test_outputs_are_those_named_and_otherwise_all():
    available = ["map", "confidence"]
    everything = tensors.wanted_outputs(body_wanting(), available)
    assert everything == (("map", False), ("confidence", False))
    assert tensors.wanted_outputs(body_wanting(binary_data_output=True), ["map"]) == (
        ("map", True),
    )
    named = body_wanting(
        {"name": "confidence", "parameters": {"binary_data": False}},
        {"name": "map"},
        binary_data_output=True,
    )
    assert tensors.wanted_outputs(named, available) == (("confidence", False), ("map", True))


@pytest.mark.parametrize(
    ("outputs", "field", "message"),
    [
        ([{"name": "mask"}], "outputs[0].name", "found the text 'mask', expected one of map"),
        (
            [{"name": "map"}, {"name": "map"}],
            "outputs[1].name",
            "'map' again, expected each output once",
        ),
    ],
)
def test_other_outputs_and_repeated_ones_are_refused(outputs, field, message):
    with pytest.raises(FieldError, match=message) as raised:
        tensors.wanted_outputs(body_wanting(*outputs), ["map", "confidence"])
    assert raised.value.field == field


def test_null_is_an_absent_field_as_some_clients_write_it():
    fields = {"id": None, "parameters": None, "outputs": [{"name": "map", "parameters": None}]}
    body, _ = request_body(TENSOR | {"data": FLAT, "parameters": None}, **fields)
    found = tensors.read_body(body, None, MAX_JSON).request
    assert found.id is None
    assert found.outputs == (RequestedOutput("map"),)
