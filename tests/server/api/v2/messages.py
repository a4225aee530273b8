"""Bodies of the Open Inference Protocol as a client writes and reads them."""

import json

import numpy as np

NUMPY = {"UINT8": np.uint8, "FP32": np.float32}


def request_body(tensor, binary=None, **rest):
    """A body with one input, and where its JSON ends; None if that is its end."""
    if binary is None:
        return json.dumps({"inputs": [tensor], **rest}).encode(), None
    tensor = tensor | {"parameters": {"binary_data_size": len(binary)}}
    text = json.dumps({"inputs": [tensor], **rest}).encode()
    return text + binary, len(text)


def pixels_input(pixels, **rest):
    return {"name": "pixels", "shape": list(pixels.shape), "datatype": "UINT8", **rest}


def file_input(**rest):
    return {"name": "image", "shape": [1], "datatype": "BYTES", **rest}


def bytes_element(data):
    return len(data).to_bytes(4, "little") + data


def read_response(body, json_bytes):
    """The JSON of a response, and its outputs by name."""
    size = len(body) if json_bytes is None else int(json_bytes)
    message, rest = json.loads(body[:size]), body[size:]
    outputs = {}
    for tensor in message["outputs"]:
        count = tensor.get("parameters", {}).get("binary_data_size")
        kind = NUMPY[tensor["datatype"]]
        if count is None:
            values = np.array(tensor["data"], kind)
        else:
            values, rest = np.frombuffer(rest[:count], kind), rest[count:]
        outputs[tensor["name"]] = values.reshape(tensor["shape"])
    assert not rest
    return message, outputs
